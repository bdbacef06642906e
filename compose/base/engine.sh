#!/usr/bin/env bash
# Makes sure that images can be built and run here: a Docker engine, its compose and buildx plugins, a base image.
# What is already there is left alone, so a second run only looks. A running engine is never changed.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly PULLED_BASE=debian:trixie-slim # what the Dockerfiles name by default
readonly BUILT_BASE=rabbitbal/debian:trixie
readonly SUITE=trixie
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
readonly ENGINE_LOG=/var/log/rabbitbal-dockerd.log
readonly MIN_ENGINE=20.10 MIN_COMPOSE=2.20 MIN_FREE_GIB=3
readonly ENV_FILE=.env

say() { printf 'rabbitbal: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1) == "$2" ]]; } # at_least 2.26.1 2.20
is_root() { [[ $(id -u) == 0 ]]; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# --- apt -----------------------------------------------------------------------------------------------------------

apt_updated=
apt_update() {
  [[ -z $apt_updated ]] || return 0
  # A source of the user's that fails is no reason to stop: an install that needs it will say so.
  apt-get update -qq >/dev/null 2>&1 || say "apt-get update had errors; going on"
  apt_updated=1
}

apt_install() {
  say "installing $*"
  apt_update
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
    >"$scratch/apt.log" 2>&1 9>&- ||
    { tail -n 20 "$scratch/apt.log" >&2; die "apt-get could not install $*"; }
}

# The sources of the suite, from the mirrors this machine already uses: apt tells them, whatever the format of its files.
suite_sources() {
  local label uri mirror='' security=''
  # shellcheck disable=SC2016  # apt's variables, not the shell's
  while read -r uri label; do
    case $label in
      Debian) mirror=${mirror:-$uri} ;;
      Debian-Security) security=${security:-$uri} ;;
    esac
  done < <(apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' 'Origin: Debian')
  [[ -n $mirror ]] || return 1
  printf 'deb [signed-by=%s] %s %s main\n' "$KEYRING" "$mirror" "$SUITE"
  printf 'deb [signed-by=%s] %s %s-updates main\n' "$KEYRING" "$mirror" "$SUITE"
  [[ -z $security ]] || printf 'deb [signed-by=%s] %s %s-security main\n' "$KEYRING" "$security" "$SUITE"
}

# apt-get over the suite, with lists and cache of its own: this machine's apt never sees them.
suite_apt() {
  apt-get -qq -o Dir::Etc::SourceList="$scratch/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State="$scratch/state" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$scratch/cache" \
    -o APT::Sandbox::User=root "$@"
}

# --- engine --------------------------------------------------------------------------------------------------------

engine_version() { docker version --format '{{.Server.Version}}' 2>/dev/null; }

# owns_pid FILE PROGRAM: the process that FILE names runs, and is PROGRAM. A zombie has a name but no executable.
owns_pid() { [[ -s $1 && $(readlink "/proc/$(<"$1")/exe" 2>/dev/null) == */"$2" ]]; }

start_engine() {
  [[ -z ${DOCKER_HOST:-} ]] || die "no Docker engine answers at DOCKER_HOST"
  is_root || die "no Docker engine answers and only root can start one; install Docker or run as root"
  if ! have dockerd || ! have iptables || ! have docker; then
    have apt-get || die "no Docker engine on this machine; install Docker"
    apt_install docker.io iptables
  fi
  if [[ -d /run/systemd/system ]]; then
    systemctl start docker || die "systemctl could not start docker"
  elif ! owns_pid /var/run/docker.pid dockerd; then
    # Left by a machine that was switched off: the number may be another program's now, which dockerd does not check.
    rm -f /var/run/docker.pid
    owns_pid /var/run/docker/containerd/containerd.pid containerd || rm -f /var/run/docker/containerd/containerd.pid
    say "starting dockerd (log: $ENGINE_LOG)"
    setsid --fork dockerd >>"$ENGINE_LOG" 2>&1 </dev/null 9>&-
  fi
  local deadline=$((SECONDS + 60))
  until engine_version >/dev/null; do
    if ((SECONDS >= deadline)); then
      [[ ! -s $ENGINE_LOG ]] || tail -n 15 "$ENGINE_LOG" >&2
      die "the Docker engine did not answer within 60 s"
    fi
    sleep 0.3
  done
}

ensure_engine() {
  local version=''
  ! have docker || version=$(engine_version) || true
  if [[ -z $version ]]; then
    start_engine
    version=$(engine_version)
  fi
  at_least "$version" "$MIN_ENGINE" || die "Docker engine $version is too old; $MIN_ENGINE or newer is needed"
}

# --- compose and buildx --------------------------------------------------------------------------------------------

plugin_works() { docker "$1" version >/dev/null 2>&1; }

ensure_plugins() {
  local name missing=()
  for name in compose buildx; do plugin_works "$name" || missing+=("docker-$name"); done
  if ((${#missing[@]})); then
    have apt-get || die "${missing[*]} missing: install the Docker plugins compose and buildx"
    install_plugins "${missing[@]}"
  fi
  local version
  version=$(docker compose version --short)
  at_least "${version#v}" "$MIN_COMPOSE" || die "docker compose $version is too old; $MIN_COMPOSE or newer is needed"
}

# Debian 12 packages neither as a plugin; those of Debian 13 are static binaries that run on it.
install_plugins() {
  say "installing plugins: $*"
  ! is_root || apt_update
  suite_sources >"$scratch/sources.list" || die "no Debian mirror among apt's sources; install: $*"
  mkdir -p "$scratch"/{debs,state/lists/partial,cache/archives/partial}
  suite_apt update >&2 || die "apt-get could not read $SUITE; install: $*"
  (cd "$scratch/debs" && suite_apt download "$@" >&2) || die "apt-get could not download $*"
  local target=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins name deb
  mkdir -p "$target"
  for name in "$@"; do
    for deb in "$scratch/debs/${name}"_*.deb; do dpkg-deb -x "$deb" "$scratch/$name"; done
    install -m 0755 "$(find "$scratch/$name" -type f -path '*/cli-plugins/*' -name "$name" | head -n1)" "$target/$name"
    plugin_works "${name#docker-}" || die "the plugin $name does not run here"
  done
}

# --- base image ----------------------------------------------------------------------------------------------------

has_image() { docker image inspect "$1" >/dev/null 2>&1; }

# Debian itself from the mirror, where no registry answers. The image keeps that mirror in its own sources.list.
build_base() {
  say "no registry answers: building $BUILT_BASE from this machine's Debian mirror"
  if ! is_root || ! have apt-get; then
    die "$PULLED_BASE cannot be pulled; set BASE_IMAGE to an image of Debian $SUITE"
  fi
  have mmdebstrap || apt_install mmdebstrap
  apt_update
  suite_sources >"$scratch/base.list" || die "no Debian mirror among apt's sources; set BASE_IMAGE"
  # Not piped into the import: that would make an image of half a tree.
  # shellcheck disable=SC2016  # $1 is the hook's
  mmdebstrap --quiet --mode=root --variant=minbase --include=ca-certificates \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='echo APT::Keep-Downloaded-Packages \"false\"\; >"$1/etc/apt/apt.conf.d/90-keep-none"' \
    "$SUITE" "$scratch/base.tar" "$scratch/base.list" 2>"$scratch/base.log" ||
    { tail -n 15 "$scratch/base.log" >&2; die "could not build $BUILT_BASE"; }
  docker import --change 'CMD ["bash"]' "$scratch/base.tar" "$BUILT_BASE" >/dev/null
}

# Prints the image that builds must name, or nothing where the Dockerfiles' default will do.
choose_base() {
  local wanted
  wanted=${BASE_IMAGE:-$(env_value BASE_IMAGE)}
  if [[ -n $wanted && $wanted != "$BUILT_BASE" ]]; then
    printf '%s' "$wanted"
  elif has_image "$BUILT_BASE"; then # the pull failed once: do not wait for it again
    printf '%s' "$BUILT_BASE"
  elif ! has_image "$PULLED_BASE" && ! timeout 20 docker pull -q "$PULLED_BASE" >/dev/null 2>&1; then
    build_base
    printf '%s' "$BUILT_BASE"
  fi
}

# --- what `docker compose` reads by itself -------------------------------------------------------------------------

env_value() { [[ ! -f $ENV_FILE ]] || sed -n "s/^$1=//p" "$ENV_FILE" | tail -n1; }

set_env_value() {
  [[ $(env_value "$1") != "$2" ]] || return 0
  local rest=''
  [[ ! -f $ENV_FILE ]] || rest=$(grep -v "^$1=" "$ENV_FILE" || true)
  printf '%s%s=%s\n' "${rest:+$rest$'\n'}" "$1" "$2" >"$ENV_FILE.new"
  mv "$ENV_FILE.new" "$ENV_FILE"
}

drop_env_value() {
  [[ -n $(env_value "$1") ]] || return 0
  grep -v "^$1=" "$ENV_FILE" >"$ENV_FILE.new" || true
  mv "$ENV_FILE.new" "$ENV_FILE"
}

# pip in a build must trust what this machine trusts (a network that inspects TLS).
ca_bundle() {
  local file
  for file in "${RABBITBAL_CA_BUNDLE:-}" "${SSL_CERT_FILE:-}" "${PIP_CERT:-}" "${REQUESTS_CA_BUNDLE:-}" \
    "${CURL_CA_BUNDLE:-}" "$(env_value RABBITBAL_CA_BUNDLE)"; do
    [[ -z $file || ! -s $file ]] || { realpath "$file"; return; }
  done
}

write_env() {
  local base bundle
  base=$(choose_base)
  if [[ -n $base ]]; then set_env_value BASE_IMAGE "$base"; else drop_env_value BASE_IMAGE; fi
  bundle=$(ca_bundle)
  if [[ -n $bundle ]]; then set_env_value RABBITBAL_CA_BUNDLE "$bundle"; else drop_env_value RABBITBAL_CA_BUNDLE; fi
}

check_disk() {
  local root free
  root=$(docker info --format '{{.DockerRootDir}}')
  # The engine may run elsewhere (DOCKER_HOST, Docker Desktop): then this machine's disk says nothing.
  free=$(df --output=avail -k "$root" 2>/dev/null | tail -n1) || return 0
  ((free >= MIN_FREE_GIB * 1024 * 1024)) ||
    die "only $((free / 1024)) MiB free in $root; images and volumes need $MIN_FREE_GIB GiB"
}

# Two recipes at once must not both start an engine or write .env.
mkdir -p .cache
exec 9>.cache/engine.lock
! have flock || flock 9
ensure_engine
check_disk
ensure_plugins
write_env
