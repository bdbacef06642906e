#!/usr/bin/env bash
# rabbitbal.sh ARGS: the operator's command in a container of its own. Only what the command prints is on standard output.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Who moves things, for the log.
export RABBITBAL_OPERATOR=${RABBITBAL_OPERATOR:-${SUDO_USER:-$(id -un)}}

if ! docker image inspect rabbitbal/operator >/dev/null 2>&1; then
  docker compose build --quiet operator >&2
fi
terminal=()
[[ -t 0 && -t 1 ]] || terminal=(-T)
# Not run's own progress, and nothing of groups of workers that an overlay has made: it would be between the lines.
export COMPOSE_IGNORE_ORPHANS=1
exec docker compose --progress quiet run --rm --no-deps "${terminal[@]}" operator "$@"
