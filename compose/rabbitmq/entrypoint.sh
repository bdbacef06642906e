#!/usr/bin/env bash
# Starts the broker as process 1, so that SIGTERM reaches Erlang, which stops it in order.
set -euo pipefail

readonly definitions=/run/rabbitbal/definitions.json
[[ -r $definitions ]] || { echo "rabbitbal: no readable $definitions: the broker has no users to begin with" >&2; exit 1; }

# Erlang sizes its tables by the limit of open files, and Docker's may be a thousand million.
ulimit -n "${RABBITBAL_BROKER_FILES:-65536}" 2>/dev/null || true

memory_limit() {
  local file limit total
  total=$(($(awk '/^MemTotal:/ { print $2 }' /proc/meminfo) * 1024))
  for file in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do  # cgroup v2, v1
    [[ -r $file ]] || continue
    limit=$(<"$file")
    # v2 writes "max" and v1 an enormous number where there is no limit.
    [[ $limit == max ]] || ((limit > total)) || { echo "$limit"; return; }
  done
  echo "$total"
}

# Above the watermark the broker stops reading from publishers. The rest of the container's memory is for the garbage
# collector, which may need as much again for a moment.
readonly generated=${TMPDIR:-/tmp}/rabbitmq.d
mkdir -p "$generated"
echo "vm_memory_high_watermark.absolute = ${RABBITBAL_BROKER_WATERMARK:-$(($(memory_limit) * 6 / 10))}" \
  >"$generated/50-memory.conf"
for overlay in /etc/rabbitmq/conf.d/*.conf; do  # mounted by a cluster or TLS overlay
  [[ ! -e $overlay ]] || cp "$overlay" "$generated/"
done

export HOME=/var/lib/rabbitmq
cookie=$HOME/.erlang.cookie
if [[ -n ${RABBITBAL_COOKIE_FILE:-} ]]; then  # the members of a cluster share one
  install -m 0400 "$RABBITBAL_COOKIE_FILE" "$cookie"
elif [[ ! -s $cookie ]]; then
  (umask 0377 && od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$cookie")
fi

# The name is part of the data, so it must not change with the container. `localhost` also lets the ports that only
# Erlang's own tools use stay on the loopback; a cluster names its members instead.
if [[ $RABBITMQ_NODENAME == *@localhost ]]; then
  export ERL_EPMD_ADDRESS=127.0.0.1
  RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="${RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS:-} -kernel inet_dist_use_interface {127,0,0,1}"
  export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS
fi

export RABBITMQ_CONFIG_FILE=/etc/rabbitmq/rabbitmq.conf
export RABBITMQ_CONFIG_FILES="$generated/*.conf"
export RABBITMQ_ENABLED_PLUGINS_FILE=/etc/rabbitmq/enabled_plugins
# Many containers share few cores: no busy waiting (said here although it is the default) and no pinning to a core that
# another container pins to as well.
export RABBITMQ_SCHEDULER_BUSY_WAIT_THRESHOLD=none
export RABBITMQ_SCHEDULER_BIND_TYPE=u
export RABBITMQ_MAX_NUMBER_OF_PROCESSES=${RABBITMQ_MAX_NUMBER_OF_PROCESSES:-131072}

# The start script would stay as process 1 to translate signals; told that an init system watches, it execs Erlang.
export RUNNING_UNDER_SYSTEMD=true
exec /usr/lib/rabbitmq/bin/rabbitmq-server "$@"
