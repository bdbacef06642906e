#!/usr/bin/env bash
# certs.sh [--force]: a CA of this machine's own and a server certificate for localhost, for compose/tls.yml.
# What is there and valid stays; --force makes a new server certificate. RABBITBAL_CERTIFICATES is the directory.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly DIRECTORY=${RABBITBAL_CERTIFICATES:-.cache/certs}
readonly CA_DAYS=3650 SERVER_DAYS=397 RENEW_DAYS=30

say() { printf 'rabbitbal: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

force=
case ${1-} in
  '') ;;
  --force) force=1 ;;
  *) die "certs.sh takes --force or nothing" ;;
esac
command -v openssl >/dev/null || die "openssl is not on this machine; on Debian: apt-get install openssl"

umask 077 # keys are their owner's alone, from their first byte
mkdir -p "$DIRECTORY"
cd "$DIRECTORY"
scratch=$(mktemp -d ./new.XXXXXX) # beside the old ones: a rename is whole or did not happen
trap 'rm -rf "$scratch"' EXIT

lasts() { openssl x509 -noout -in "$1" -checkend "$((RENEW_DAYS * 86400))" >/dev/null 2>&1; }
expiry() { openssl x509 -noout -enddate -in "$1" | cut -d= -f2; }
public_key() { openssl pkey -pubout -in "$1" 2>/dev/null; }

# belong CERTIFICATE KEY: half of a pair is none
belong() { [[ $(openssl x509 -noout -pubkey -in "$1" 2>/dev/null) == "$(public_key "$2")" && -n $(public_key "$2") ]]; }

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

# put NAME: the new key and certificate take their places; a certificate is no secret
put() {
  chmod 0644 "$scratch/$1.pem"
  mv "$scratch/$1.key" "$scratch/$1.pem" .
}

# Whoever gets at its key can speak for this machine to itself, and for nobody else.
make_ca() {
  new_key "$scratch/ca.key"
  openssl req -new -x509 -sha256 -days "$CA_DAYS" -key "$scratch/ca.key" -out "$scratch/ca.pem" \
    -subj "/O=Rabbitbal/CN=Rabbitbal local CA $(openssl rand -hex 4)" -config <(
      cat <<END
[req]
distinguished_name = name
x509_extensions = ca
[name]
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
nameConstraints = critical, permitted;DNS:localhost, permitted;IP:127.0.0.0/255.0.0.0, permitted;IP:::1/ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
END
    )
  put ca
}

make_server() {
  new_key "$scratch/server.key"
  openssl req -new -sha256 -key "$scratch/server.key" -subj /CN=localhost -out "$scratch/server.csr"
  openssl x509 -req -sha256 -days "$SERVER_DAYS" -in "$scratch/server.csr" -CA ca.pem -CAkey ca.key \
    -set_serial "0x$(openssl rand -hex 16 | sed 's/^./4/')" -out "$scratch/server.pem" 2>/dev/null -extfile <(
      cat <<END
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
END
    )
  put server
}

if ! lasts ca.pem || ! belong ca.pem ca.key; then
  make_ca
  say "made a new CA: clients that knew the old one must be told ($DIRECTORY/ca.pem)"
fi
if [[ -n $force ]] || ! lasts server.pem || ! belong server.pem server.key ||
  ! openssl verify -CAfile ca.pem server.pem >/dev/null 2>&1; then
  make_server
  say "made a new server certificate; a running nginx takes it after \`up\` and \`kill -s HUP nginx\`"
fi
say "certificate of localhost, 127.0.0.1, ::1 until $(expiry server.pem); CA until $(expiry ca.pem)"
