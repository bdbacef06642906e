#!/usr/bin/env bash
# Makes .venv hold exactly what requirements-dev.txt says; does nothing while that has not changed.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

wanted=$(cksum <requirements-dev.txt)
stamp=.venv/rabbitbal-lock
if [[ -x .venv/bin/python && -f $stamp && $(<"$stamp") == "$wanted" ]]; then exit 0; fi

echo "rabbitbal: making .venv from requirements-dev.txt" >&2
if command -v uv >/dev/null; then
  # uv reads only this one of the variables that name a CA bundle.
  bundle=${SSL_CERT_FILE:-${PIP_CERT:-${REQUESTS_CA_BUNDLE:-${CURL_CA_BUNDLE:-}}}}
  [[ -z $bundle ]] || export SSL_CERT_FILE=$bundle
  [[ -x .venv/bin/python ]] || uv venv --quiet --no-python-downloads --python '>=3.11' --clear .venv
  uv pip sync --quiet --python .venv/bin/python --require-hashes requirements-dev.txt
else
  python3 -m venv --clear .venv
  .venv/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.txt
fi
echo "$wanted" >"$stamp"
