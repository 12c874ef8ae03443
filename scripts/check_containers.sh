#!/usr/bin/env bash
# Builds and runs the container files for real, on a Debian machine, as root, with no image registry:
# a Docker daemon of its own in a network namespace of its own, and base images made from packages.
# usage: scripts/check_containers.sh
# Takes minutes and some gigabytes under /var/tmp; everything but the installed packages is removed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly NAMESPACE=onward-check
readonly SERVER=http://127.0.0.1:8000
readonly PROMETHEUS=http://127.0.0.1:9090
readonly PACKAGES=(docker.io containerd runc iptables iproute2 slirp4netns debootstrap curl)
STATE=$(mktemp -d /var/tmp/onward-check.XXXXXX)
readonly STATE
SLIRP=
LOG=
exec 4>&2

export DOCKER_HOST=unix://$STATE/docker.sock DOCKER_CONFIG=$STATE/config DOCKER_BUILDKIT=1
export COMPOSE_PROJECT_NAME=onward-check BUILDKIT_PROGRESS=plain

say() { printf '==> %s\n' "$*"; }

fail() {
    printf 'check_containers: %s\n' "$*" >&2
    exit 1
}

# quietly NAME COMMAND...: the output is shown only where the command fails, by `diagnose`.
quietly() {
    say "$1"
    LOG=$STATE/$1.log
    shift
    "$@" >"$LOG" 2>&1 </dev/null
    LOG=
}

# wait_for SECONDS WHAT COMMAND...
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "waited too long for $what"
        sleep 0.2
    done
}

# --- the machine ---

require_machine() {
    [ "$(id -u)" -eq 0 ] || fail "needs root"
    command -v apt-get >/dev/null || fail "needs Debian"
}

install_packages() {
    apt-get -qq update
    apt-get -qq install --yes --no-install-recommends "${PACKAGES[@]}"
}

# Sets APT_TRIXIE: apt options that see Debian 13, by the machine's own sources.
use_trixie() {
    local codename apt=$STATE/trixie
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    mkdir -p "$apt"/{lists/partial,cache/archives/partial}
    cp -r /etc/apt/sources.list.d "$apt/parts"
    cat /etc/apt/sources.list >"$apt/sources.list" 2>/dev/null || true
    find "$apt/parts" "$apt/sources.list" -type f -exec sed -i "s/$codename/trixie/g" {} +
    APT_TRIXIE=(-o "Dir::Etc::SourceList=$apt/sources.list" -o "Dir::Etc::SourceParts=$apt/parts"
        -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
    apt-get -qq "${APT_TRIXIE[@]}" update
}

# Debian 12 has neither Compose v2 nor buildx; both are static programs.
install_plugins() {
    local plugins=$DOCKER_CONFIG/cli-plugins
    use_trixie
    mkdir -p "$plugins" "$STATE/plugins"
    (cd "$STATE/plugins" && apt-get -qq "${APT_TRIXIE[@]}" download docker-compose docker-buildx)
    find "$STATE/plugins" -name '*.deb' -exec dpkg-deb -x {} "$STATE/plugins" \;
    find "$STATE/plugins" -path '*/cli-plugins/docker-*' -type f -exec cp {} "$plugins" \;
    docker compose version
    docker buildx version
}

# --- the daemon ---

inside() { nsenter --net="/run/netns/$NAMESPACE" "$@"; }

make_network() {
    ip netns add "$NAMESPACE"
    ip -n "$NAMESPACE" link set lo up
    slirp4netns --configure --mtu=65520 --disable-host-loopback --netns-type=path \
        "/run/netns/$NAMESPACE" tap0 >"$STATE/slirp.log" 2>&1 &
    SLIRP=$!
    wait_for 10 "the network" sh -c "ip -n $NAMESPACE route | grep -q default"
}

start_daemon() {
    inside dockerd --host "$DOCKER_HOST" --data-root "$STATE/data" --exec-root "$STATE/exec" \
        --pidfile "$STATE/dockerd.pid" --storage-driver overlay2 --log-level error \
        --default-ulimit nofile=20000:20000 --default-ulimit nproc=32768:32768 \
        >"$STATE/dockerd.log" 2>&1 &
    wait_for 60 "the Docker daemon" docker version
}

stop_daemon() {
    local pid
    pid=$(cat "$STATE/dockerd.pid" 2>/dev/null) || return 0
    kill "$pid" || return 0
    wait_for 60 "the daemon's end" test ! -e "$STATE/dockerd.pid"
}

stop_network() {
    [ -z "$SLIRP" ] || kill "$SLIRP" || true
    ip netns delete "$NAMESPACE" || true
}

clean_up() {
    local status=$?
    trap - EXIT
    set +e
    [ "$status" -eq 0 ] || diagnose >&4 2>&4
    docker compose down --volumes --timeout 1 >/dev/null 2>&1
    stop_daemon
    stop_network
    rm -rf --one-file-system "$STATE"
    exit "$status"
}

diagnose() {
    if [ -n "$LOG" ]; then
        tail -n 60 "$LOG"
    fi
    docker compose ps --all
    docker compose logs --no-color --tail 40
    grep -E 'level=(error|fatal)' "$STATE/dockerd.log"
}

# --- base images ---

# The machine's package sources and certificates: what it can reach, a build can reach.
copy_machine_settings() {
    local root=$1
    rm -rf "$root/etc/apt"
    cp -a /etc/apt "$root/etc/apt"
    mkdir -p "$root/etc/ssl/certs" "$root/usr/local/share/ca-certificates"
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    cp -a /usr/local/share/ca-certificates/. "$root/usr/local/share/ca-certificates/"
}

debian_image() {
    local root=$STATE/bookworm
    debootstrap --variant=minbase bookworm "$root"
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
    rm -rf "$root"/usr/share/{doc,man,locale,info}/*
    copy_machine_settings "$root"
    tar -C "$root" --numeric-owner -c . | docker import - debian:bookworm-slim
    rm -rf "$root"
}

rust_image() {
    docker build --tag rust:1.95-bookworm --file - "$(rustc --print sysroot)" <<'DOCKERFILE'
FROM debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev pkg-config
COPY bin/cargo bin/rustc /usr/local/bin/
COPY lib /usr/local/lib
ENV CARGO_HOME=/usr/local/cargo
DOCKERFILE
}

# Debian's Prometheus, with the paths of the public image.
prometheus_image() {
    local root=$STATE/prometheus
    mkdir -p "$root"
    (cd "$root" && apt-get -qq -o APT::Sandbox::User=root download prometheus)
    dpkg-deb -x "$root"/prometheus_*.deb "$root"
    docker build --tag "$(prometheus_tag)" --file - "$root" <<'DOCKERFILE'
FROM debian:bookworm-slim
COPY usr/bin/prometheus /bin/prometheus
RUN mkdir -p /prometheus /etc/prometheus && chown nobody:nogroup /prometheus
USER nobody
WORKDIR /prometheus
VOLUME /prometheus
ENTRYPOINT ["/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
DOCKERFILE
}

prometheus_tag() { awk '$1 == "image:" && $2 ~ /prometheus/ { print $2 }' docker-compose.yml; }

# --- the checks ---

onward_container() { docker compose ps --all --quiet onward; }

state() { docker inspect --format "{{$1}}" "$(onward_container)"; }

expect() {
    [ "$2" = "$3" ] || fail "$1: expected $2, got $3"
    say "$1: $3"
}

measure_image() {
    local bytes
    bytes=$(docker image inspect --format '{{.Size}}' onward)
    say "image size: $((bytes / 1000000)) MB"
}

# Without the setting that docker-compose.yml makes, the image must not serve: EX_CONFIG.
check_refusal() {
    local status=0
    docker run --rm onward >"$STATE/refusal.log" 2>&1 || status=$?
    expect "exit code without an answer to who may change models" 78 "$status"
}

check_healthy() {
    local start=$EPOCHREALTIME
    quietly "up: onward" docker compose up --detach --wait --wait-timeout 120 onward
    say "time to healthy: $(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $start }") s"
    quietly "up: all" docker compose up --detach --wait --wait-timeout 120
    expect "health" healthy "$(state .State.Health.Status)"
    expect "user" 65532:65532 "$(state .Config.User)"
}

target_is_up() {
    inside curl -sS --get "$PROMETHEUS/api/v1/query" --data-urlencode 'query=up{job="onward"}' |
        grep -q '"value":\[[^]]*,"1"\]'
}

check_prometheus() {
    wait_for 60 "Prometheus to see its target up" target_is_up
    say "Prometheus: up == 1"
}

infer() {
    inside curl -sS --fail-with-body --max-time 10 "$SERVER/v2/models/digits/infer" \
        --header 'Content-Type: application/json' --data @models/digits/samples/digit-7.json
}

# The digit, and the version that has recognised it.
read_answer() {
    python3 -c '
import json, sys
answer = json.load(sys.stdin)
label = next(output["data"] for output in answer["outputs"] if output["name"] == "label")
print(label[0], answer["model_version"])'
}

check_inference() {
    expect "digit and version" "7 1" "$(infer | read_answer)"
}

check_swap() {
    inside curl -sS --fail-with-body --max-time 60 "$SERVER/lifecycle/models/digits/swap" \
        --header 'Content-Type: application/json' --data '{"to":"2"}' >/dev/null
    expect "digit and version after the swap" "7 2" "$(infer | read_answer)"
}

# One status a line, 000 where nothing answers, until the file $STATE/stopped is there.
request_until_stopped() {
    until [ -e "$STATE/stopped" ]; do
        inside curl -s --max-time 10 --output /dev/null --write-out '%{http_code}\n' \
            --data @models/digits/samples/digit-7.json "$SERVER/v2/models/digits/infer" || true
        sleep 0.05
    done
}

# Requests go on while the container stops: each is answered by a 200, or no longer accepted. Docker's
# port proxy accepts for the container, so a refused connection is a closed one here: curl's 000.
check_stop() {
    local client
    request_until_stopped >"$STATE/statuses" &
    client=$!
    wait_for 10 "the first requests" test -s "$STATE/statuses"
    docker stop "$(onward_container)" >/dev/null
    touch "$STATE/stopped"
    wait "$client"
    say "statuses while it stopped:" "$(sort "$STATE/statuses" | uniq -c | xargs)"
    ! grep -qvE '^(200|000)$' "$STATE/statuses" || fail "a request failed while it stopped"
    expect "exit code after docker stop" 0 "$(state .State.ExitCode)"
}

main() {
    require_machine
    quietly packages install_packages
    quietly plugins install_plugins
    quietly network make_network
    quietly daemon start_daemon
    quietly debian:bookworm-slim debian_image
    quietly rust:1.95-bookworm rust_image
    quietly prometheus prometheus_image
    quietly "build" docker compose build
    measure_image
    check_refusal
    check_healthy
    check_prometheus
    check_inference
    check_swap
    check_stop
    say "all is well"
}

trap clean_up EXIT
trap 'exit 130' INT TERM
main
