#!/usr/bin/env bash
# Makes sure that /usr/bin/chromium is there for the page's tests. Debian's package; where it is there this only looks.
set -euo pipefail

readonly BROWSER=/usr/bin/chromium

die() { echo "rabbitbal: $*" >&2; exit 1; }

[[ ! -x $BROWSER ]] || exit 0
if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null 2>&1; then
  die "the page's tests need $BROWSER; install Debian's package chromium"
fi
echo "rabbitbal: installing chromium" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } \
  >"$log" 2>&1 || { tail -n 20 "$log" >&2; die "apt-get could not install chromium"; }
