#!/usr/bin/env bash
# Healthy: the broker answers an AMQP greeting with Connection.Start. No Erlang VM is started to ask.
set -euo pipefail

exec 3<>/dev/tcp/127.0.0.1/5672
printf 'AMQP\x00\x00\x09\x01' >&3
IFS= read -r -t 4 -N 1 frame_type <&3
[[ $frame_type == $'\x01' ]]
