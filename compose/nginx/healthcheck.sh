#!/usr/bin/env bash
# Healthy: nginx answers and an edge behind it is ready.
set -euo pipefail

exec 3<>/dev/tcp/127.0.0.1/8079
printf 'GET /healthz HTTP/1.0\r\n\r\n' >&3
read -r -t 4 _ status _ <&3
[[ $status == 2* ]]
