#!/usr/bin/env bash
# rabbitbal.sh ARGS: the operator's command in a container of its own. Only what the command prints is on standard output.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Who moves things, for the log.
export RABBITBAL_OPERATOR=${RABBITBAL_OPERATOR:-${SUDO_USER:-$(id -un)}}

if ! docker image inspect rabbitbal/operator >/dev/null 2>&1; then
  docker compose build --quiet operator >&2
fi
# Not run's own progress, and nothing of groups of workers that an overlay has made: it would be between the lines.
export COMPOSE_IGNORE_ORPHANS=1
run=(docker compose --progress quiet run --rm --no-deps)
if [[ -t 0 && -t 1 ]]; then
  exec "${run[@]}" operator "$@"
fi

# Without a terminal of its own in the container, Ctrl-C would end compose before the command has said its last. So
# compose runs in a session of its own, and the command is told.
name=rabbitbal-operator-$$-$RANDOM
setsid "${run[@]}" -T --name "$name" operator "$@" <&0 &
trap 'docker kill --signal INT "$name" >/dev/null 2>&1 || true' INT TERM HUP
while true; do
  status=0
  wait $! || status=$?
  # A signal ends the wait, and not what is waited for.
  kill -0 $! 2>/dev/null || exit "$status"
done
