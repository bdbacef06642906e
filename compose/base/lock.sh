#!/usr/bin/env bash
# Pins and hashes every requirements.in beside it. Arguments go to uv, e.g. --upgrade, --upgrade-package aio-pika.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
command -v uv >/dev/null || { echo "rabbitbal: uv is not on this machine: use ./justw lock" >&2; exit 1; }

# The header names this instead of a command line with the paths of one machine.
export UV_CUSTOM_COMPILE_COMMAND="just lock"

compile() { # compile DIRECTORY NAME PYTHON [ARGS]: from within, so that no path but the file's own is recorded
  local directory=$1 name=$2 python=$3
  shift 3
  echo "$directory/$name.txt"
  (cd "$directory" && uv pip compile --quiet --no-python-downloads --universal --python-version "$python" \
    --generate-hashes --no-emit-index-url --output-file "$name.txt" "$name.in" "$@")
}

for input in services/*/requirements.in examples/*/requirements.in; do
  compile "$(dirname "$input")" requirements 3.13 "$@" # Debian 13's
done
compile . requirements-dev 3.11 "$@" # the oldest that a developer's machine may have: Debian 12's
compile compose/base tools 3.11
