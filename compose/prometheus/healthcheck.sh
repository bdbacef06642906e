#!/usr/bin/env bash
# Healthy: Prometheus has read what it had stored, and answers.
set -euo pipefail

exec 3<>/dev/tcp/127.0.0.1/9090
printf 'GET /-/ready HTTP/1.0\r\n\r\n' >&3
read -r -t 4 _ status _ <&3
[[ $status == 2* ]]
