#!/usr/bin/env bash
# Writes nginx's configuration from its template and the environment, then becomes nginx.
set -euo pipefail

die() { echo "rabbitbal: $*" >&2; exit 1; }

body_limit=${RABBITBAL_BODY_LIMIT:-1073741824}
edge=${RABBITBAL_EDGE:-edge:8000}
[[ $body_limit =~ ^[1-9][0-9]*$ ]] || die "RABBITBAL_BODY_LIMIT=$body_limit is not a number of bytes"
[[ $edge =~ ^[A-Za-z0-9._-]+:[0-9]+$ ]] || die "RABBITBAL_EDGE=$edge is not host:port"
resolver=$(awk '$1 == "nameserver" { print $2; exit }' /etc/resolv.conf)
[[ -n $resolver ]] || die "/etc/resolv.conf names no name server"
[[ $resolver != *:* ]] || resolver="[$resolver]"

sed -e "s/@RESOLVER@/$resolver/g" -e "s/@EDGE@/$edge/g" -e "s/@BODY_LIMIT@/$body_limit/g" \
  /etc/nginx/nginx.conf.in >/tmp/nginx.conf

rm -f /tmp/edges.sock  # left by a kill
exec nginx -c /tmp/nginx.conf -e stderr "$@"
