#!/usr/bin/env bash
# Locust against the deployment that runs here; arguments go to locust.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

address=$(docker compose port nginx 8080 2>/dev/null) || true
[[ -n $address ]] || { echo "rabbitbal: nothing to load: run \`just up\` first" >&2; exit 1; }
exec .venv/bin/locust -f loadtests/locustfile.py --host "http://$address" "$@"
