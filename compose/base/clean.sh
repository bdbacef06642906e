#!/usr/bin/env bash
# Removes what the project left on this machine: containers, volumes, images, virtual environment, caches. Not .env.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if docker info >/dev/null 2>&1; then
  docker compose --profile '*' down --volumes --remove-orphans --timeout 10
  mapfile -t images < <(docker image ls --quiet --filter 'reference=rabbitbal/*' | sort -u)
  ((${#images[@]} == 0)) || docker image rm --force "${images[@]}" >/dev/null
fi
rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache
find . -name .git -prune -o -type d \( -name __pycache__ -o -name .hypothesis \) -prune -exec rm -rf {} +
