#!/usr/bin/env bash
# load.sh locust|open|streams [ARGS]: a load test of the deployment that runs here.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

address=$(docker compose port nginx 8080 2>/dev/null) || true
tool=$1
shift
if [[ -z $address && " $* " != *" --help "* ]]; then
  echo "rabbitbal: nothing to load: run \`just up\` first" >&2
  exit 1
fi
case $tool in
  locust) exec .venv/bin/locust -f loadtests/locustfile.py --host "http://$address" "$@" ;;
  streams) exec .venv/bin/python loadtests/streams.py --url "http://$address" "$@" ;;
  open) exec .venv/bin/python loadtests/openloop.py --url "http://$address" "$@" ;;
esac
