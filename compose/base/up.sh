#!/usr/bin/env bash
# up.sh [WORKERS]: builds and starts the deployment, waits until all of it is healthy, and says where to look.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly WORKERS=${1:-8} WAIT_SECONDS=180

die() { echo "rabbitbal: $*" >&2; exit 1; }

# A setting as docker compose sees it: the environment, then .env, then the default.
setting() {
  local line
  line=$(grep "^$1=" .env 2>/dev/null | tail -n1) || true
  echo "${!1:-${line#*=}}"
}

published_port() { docker compose port "$1" "$2" 2>/dev/null | sed 's/.*://'; }

# Every ${…_PORT:-N} of the compose file, so a port that is taken is named together with the variable that moves it.
check_ports() {
  local variable port ours
  ours=$(docker compose ps --format '{{.Ports}}' 2>/dev/null || true)
  while IFS=: read -r variable port; do
    port=$(setting "$variable" | grep . || echo "${port#-}")
    [[ $port =~ ^[0-9]+$ ]] || die "$variable=$port is not a port"
    [[ $ours != *":$port->"* ]] || continue
    ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || die "port $port is taken; set $variable to a free one"
  done < <(grep -oE 'RABBITBAL_[A-Z_]*PORT:-[0-9]+' docker-compose.yml | sort -u)
}

# With progress on a terminal; elsewhere only what went wrong.
build_images() {
  if [[ -t 2 ]]; then
    docker compose --profile operator build || die "the images could not be built"
    return
  fi
  echo "rabbitbal: building the images (log: .cache/build.log)" >&2
  mkdir -p .cache
  docker compose --profile operator --progress plain build >.cache/build.log 2>&1 ||
    { tail -n 25 .cache/build.log >&2; die "the images could not be built"; }
}

[[ $WORKERS =~ ^[0-9]+$ ]] || die "workers=$WORKERS is not a number"
check_ports
build_images
# --wait takes one-shot services that ended well, as long as some service depends on their completion.
if ! docker compose up --detach --remove-orphans --scale "worker=$WORKERS" --wait --wait-timeout "$WAIT_SECONDS"; then
  docker compose ps --all --format 'table {{.Name}}\t{{.Status}}' >&2
  unhealthy=$(docker compose ps --all --format '{{.Service}} {{.Status}}' | grep -vE '\(healthy\)|Exited \(0\)' |
    cut -d' ' -f1 | sort -u)
  # shellcheck disable=SC2086  # one word for each service
  [[ -z $unhealthy ]] || docker compose logs --no-log-prefix --tail 15 $unhealthy >&2
  die "not everything became healthy within $WAIT_SECONDS s"
fi

url=http://127.0.0.1:$(published_port nginx 8080)
page=http://127.0.0.1:$(published_port tap 8081)
cat <<END

$WORKERS workers behind $url/

  curl $url/whoami                     which worker answered; again, and it is another
  docker compose up -d --no-recreate --scale worker=12     more workers, no reload
  $page/                the live page: requests, latency, queues, workers
  just logs tap                                            each request and its ending
  just rabbitbal pools list                                who serves what; --help says what else
  just load                                                a load test with a web page
  just down
END
