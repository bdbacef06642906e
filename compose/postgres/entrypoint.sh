#!/usr/bin/env bash
# Makes the password and the cluster at the first start, then becomes the server, so that signals reach it.
set -euo pipefail

readonly data=/var/lib/postgresql/data draft=/var/lib/postgresql/draft secret=/run/secrets/ledger/password
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH

# Whoever mounts this volume may read it: the tap, and nobody else.
if [[ ! -s $secret ]]; then
  (umask 077 && head --bytes 30 /dev/urandom | base64 --wrap 0 | tr -d '/+=' >"$secret.new")
  chmod 0444 "$secret.new"
  mv "$secret.new" "$secret"
fi

# One statement, by the server itself without a network.
single() { postgres --single -D "$1" "$2" <<<"$3" >/dev/null; }

if [[ ! -s $data/PG_VERSION ]]; then
  rm -rf "$draft"
  initdb --pgdata "$draft" --username postgres --encoding UTF8 --locale C.UTF-8 \
    --auth-local reject --auth-host reject >/dev/null
  echo "host rabbitbal rabbitbal samenet scram-sha-256" >"$draft/pg_hba.conf"
  single "$draft" postgres "CREATE ROLE rabbitbal LOGIN"
  single "$draft" postgres "CREATE DATABASE rabbitbal OWNER rabbitbal"
  mv "$draft" "$data"
fi
# At each start: the volume of the secret may be a new one.
single "$data" postgres "ALTER ROLE rabbitbal PASSWORD '$(<"$secret")'"

exec postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp \
  -c shared_buffers=64MB -c max_connections=20 -c logging_collector=off -c log_line_prefix='' "$@"
