#!/usr/bin/env bash
# Builds and runs the container files for real, on a Debian machine, as root, with no image registry:
# a Docker daemon of its own in a network namespace of its own, and base images made from packages.
# usage: scripts/check_containers.sh [--if-possible]
# Takes a quarter of an hour and gigabytes under /var/tmp; everything but the installed packages is removed.
# Where the machine is no such one it fails, and with --if-possible says so and is 0.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly NAMESPACE=onward-check
readonly SERVER=http://127.0.0.1:8000
readonly PROMETHEUS=http://127.0.0.1:9090
readonly LARGEST_IMAGE=90000000
readonly SPACE=10
readonly PACKAGES=(docker.io containerd runc iptables iproute2 slirp4netns debootstrap curl openssl)
STATE=$(mktemp -d /var/tmp/onward-check.XXXXXX)
readonly STATE
IF_POSSIBLE=
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

# What the machine cannot, which says nothing about the container files.
cannot() {
    [ -n "$IF_POSSIBLE" ] || fail "not on this machine: $*"
    say "SKIPPED, the container files were not checked: $*"
    exit 0
}

# quietly NAME COMMAND...: the output is shown only where the command fails, by `diagnose`.
quietly() {
    say "$1"
    LOG=$STATE/${1//\//-}.log
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
        sleep 0.1
    done
}

# since TIME: the seconds that have passed, with one place.
since() { awk "BEGIN { printf \"%.1f s\", $EPOCHREALTIME - $1 }"; }

expect() {
    [ "$2" = "$3" ] || fail "$1: expected $2, got $3"
    say "$1: $3"
}

# --- the machine ---

require_machine() {
    local program
    [ "$(id -u)" -eq 0 ] || cannot "it needs root"
    command -v apt-get >/dev/null || cannot "it needs Debian, for its packages"
    for program in cargo rustc python3; do
        command -v "$program" >/dev/null || cannot "there is no $program"
    done
    unshare --net --mount true 2>/dev/null || cannot "namespaces are not allowed here"
    [ -c /dev/net/tun ] || cannot "there is no /dev/net/tun"
    [ "$(df --output=avail -BG /var/tmp | tail -n 1 | tr -dc 0-9)" -ge "$SPACE" ] ||
        cannot "it needs $SPACE GB under /var/tmp"
    [ ! -e "/run/netns/$NAMESPACE" ] || fail "another check runs, or one was killed: ip netns delete $NAMESPACE"
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
    [ -n "$SLIRP" ] || return 0
    kill "$SLIRP"
    ip netns delete "$NAMESPACE"
}

stop_containers() {
    docker compose --profile '*' down --volumes --timeout 1
    docker ps --all --quiet | xargs -r docker rm --force
}

clean_up() {
    local status=$?
    trap - EXIT
    set +e
    [ "$status" -eq 0 ] || diagnose >&4 2>&4
    touch "$STATE/stopped"
    [ ! -e "$STATE/dockerd.pid" ] || stop_containers >/dev/null 2>&1
    stop_daemon
    stop_network
    rm -rf --one-file-system "$STATE"
    exit "$status"
}

diagnose() {
    if [ -n "$LOG" ]; then
        tail -n 60 "$LOG"
    fi
    [ -e "$STATE/dockerd.pid" ] || return 0
    docker ps --all
    docker compose logs --no-color --tail 40
    if container_exists; then
        docker logs --tail 40 onward-alone
    fi
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

# --- the image ---

# Public images alone, and no frontend that would have to be pulled for the build.
check_dockerfile() {
    local channel
    channel=$(sed -n 's/^channel = "\(.*\)\.[0-9]*"$/\1/p' rust-toolchain.toml)
    expect "images that the Dockerfile begins with" "debian:bookworm-slim rust:$channel-bookworm scratch" \
        "$(awk '$1 == "FROM" { print $2 }' Dockerfile | sort -u | xargs)"
    ! grep -qi '^# *syntax=' Dockerfile || fail "the Dockerfile names a frontend, which has to be pulled"
}

version() { sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | sed -n 1p; }

# As docs/containers.md says, of what `docker compose build` has made: with labels of its own.
label_image() {
    docker build --build-arg "VERSION=$(version)" --build-arg REVISION=check --tag onward .
}

image() { docker image inspect --format "{{$1}}" onward; }

check_image() {
    local bytes name
    bytes=$(image .Size)
    say "image size: $((bytes / 1000000)) MB"
    [ "$bytes" -lt "$LARGEST_IMAGE" ] || fail "the image is larger than $((LARGEST_IMAGE / 1000000)) MB"
    expect "user" 65532:65532 "$(image .Config.User)"
    expect "stop signal" SIGTERM "$(image .Config.StopSignal)"
    expect "health check" "[CMD onward health]" "$(image .Config.Healthcheck.Test)"
    for name in title description licenses; do
        [ -n "$(image "index .Config.Labels \"org.opencontainers.image.$name\"")" ] || fail "there is no label $name"
    done
    expect "label version" "$(version)" "$(image 'index .Config.Labels "org.opencontainers.image.version"')"
    expect "label revision" check "$(image 'index .Config.Labels "org.opencontainers.image.revision"')"
}

# No shell and nothing that gives rights; the licences of what is inside; certificates for object stores.
check_files() {
    local file listing=$STATE/files container
    container=$(docker create onward)
    docker export "$container" | tar -tv >"$listing"
    docker rm "$container" >/dev/null
    ! grep -E '^-..[sS]|^-.....[sS]' "$listing" || fail "the image has programs that give rights"
    ! grep -E ' (usr/)?bin/(ba|da)?sh( |$)' "$listing" || fail "the image has a shell"
    for file in usr/share/doc/onward/LICENSE usr/local/lib/onward/LICENSE usr/local/lib/onward/ThirdPartyNotices.txt \
        usr/share/doc/libc6/copyright etc/ssl/certs/ca-certificates.crt etc/os-release; do
        grep -qE " $file( |$)" "$listing" || fail "the image has no $file"
    done
    say "files: $(wc -l <"$listing"), no shell"
}

# Without the setting that docker-compose.yml makes, the image must not serve: EX_CONFIG.
check_refusal() {
    local status=0
    docker run --rm onward >"$STATE/refusal.log" 2>&1 || status=$?
    expect "exit code without an answer to who may change models" 78 "$status"
}

# An object store is asked over TLS, by certificates of the image, and what comes of it is kept where there is room.
# Nobody is there, which ends the start.
check_object_store() {
    docker run --rm --env ONWARD_SERVER_ALLOW_UNAUTHENTICATED_MANAGEMENT=true \
        --env ONWARD_MODELS_REPOSITORY=https://127.0.0.1:1/models onward >"$STATE/store.log" 2>&1 || true
    grep -q 'ERROR .*PROPFIND https://127.0.0.1:1/models' "$STATE/store.log" || fail "the image asks no object store"
    ! grep 'disk_space.*tells nothing' "$STATE/store.log" || fail "the space that its cache has is not looked at"
    say "an object store is asked over TLS"
}

# A build after a change of the sources, which are older than the last build, compiles them and no dependency. It is
# ended once that is seen, as it would go on for minutes.
check_rebuild() {
    local context=$STATE/context log=$STATE/rebuild.log start build
    mkdir "$context"
    cp -a Cargo.toml Cargo.lock LICENSE README.md openapi.yaml build.rs proto src scripts Dockerfile .dockerignore \
        "$context"
    echo '// Changed.' >>"$context/src/lib.rs"
    touch --date 2001-01-01 "$context/src/lib.rs"
    start=$EPOCHREALTIME
    docker build "$context" >"$log" 2>&1 &
    build=$!
    wait_for 300 "cargo to compile the sources that have changed" grep -q ' Compiling onward ' "$log"
    say "docker build with other sources until it compiles them: $(since "$start")"
    sleep 5
    kill "$build"
    wait "$build" || true
    expect "what that compiles" onward "$(sed -n 's/^#[0-9]* [0-9.]* *Compiling \([^ ]*\) .*/\1/p' "$log" | xargs)"
}

# --- one container ---

# alone ARGUMENT...: a container as strict as that of the Compose file.
alone() {
    docker run --detach --name onward-alone --read-only --cap-drop ALL --security-opt no-new-privileges \
        --publish 127.0.0.1:8100:8000 --volume "$PWD/models:/models:ro" --stop-timeout 40 "$@" >/dev/null
}

container_exists() { docker container inspect onward-alone >/dev/null 2>&1; }

of_alone() { docker inspect --format "{{$1}}" onward-alone; }

alone_is() { [ "$(of_alone .State.Health.Status)" = "$1" ]; }

remove_alone() {
    docker stop onward-alone >/dev/null
    expect "exit code" 0 "$(of_alone .State.ExitCode)"
    docker rm onward-alone >/dev/null
}

answers() { inside curl -sS --fail --max-time 5 --output /dev/null "$@"; }

# The user and the rights of the process, as the kernel has them.
check_rights() {
    local status
    status=/proc/$(of_alone .State.Pid)/status
    expect "the process's user" "65532 65532 65532 65532" "$(awk '/^Uid:/ { print $2, $3, $4, $5 }' "$status")"
    expect "the process's capabilities" 0000000000000000 "$(awk '/^CapEff:/ { print $2 }' "$status")"
    expect "read-only root file system" true "$(of_alone .HostConfig.ReadonlyRootfs)"
}

check_alone() {
    local start=$EPOCHREALTIME
    alone --env ONWARD_SERVER_ALLOW_UNAUTHENTICATED_MANAGEMENT=true onward
    wait_for 60 "readiness" answers http://127.0.0.1:8100/readyz
    say "docker run until ready: $(since "$start")"
    wait_for 60 "health" alone_is healthy
    say "docker run until healthy, which is looked at every 5 s: $(since "$start")"
    docker exec onward-alone onward health --live
    check_rights
    remove_alone
}

# As docs/security.md and docs/tls.md have it, with files that the container's user may read and no other.
check_credentials() {
    local secrets=$STATE/secrets key
    mkdir "$secrets"
    docker run --rm onward key --name ci --role manage >"$secrets/key"
    key=$(sed -n 1p "$secrets/key")
    { echo keys:; sed 1d "$secrets/key"; } >"$secrets/keys.yaml"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$secrets/tls.key" -out "$secrets/tls.crt" \
        2>/dev/null
    chown 65532:65532 "$secrets"/*
    chmod 400 "$secrets"/*
    alone --volume "$secrets:/etc/onward:ro" --env ONWARD_AUTH_KEYS_FILE=/etc/onward/keys.yaml \
        --env ONWARD_SERVER_TLS_CERTIFICATE=/etc/onward/tls.crt --env ONWARD_SERVER_TLS_KEY=/etc/onward/tls.key onward
    wait_for 60 "health over TLS" alone_is healthy
    ask_with_key "$secrets/tls.crt" "$key"
    remove_alone
}

ask_with_key() {
    local ask=(inside curl -sS --cacert "$1" --output /dev/null --write-out '%{http_code}')
    expect "over TLS without a key" 401 "$("${ask[@]}" https://localhost:8100/v2/models)"
    expect "over TLS with a key" 200 \
        "$("${ask[@]}" --header "Authorization: Bearer $2" https://localhost:8100/v2/models)"
}

# --- the Compose file ---

# Every profile makes sense to Compose, and what it mounts is there.
check_compose_file() {
    docker compose --profile '*' config --format json |
        python3 -c '
import json, os, sys
services = json.load(sys.stdin)["services"]
mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
missing = [mount["source"] for mount in mounts if mount["type"] == "bind" and not os.path.exists(mount["source"])]
if missing or not {"onward", "prometheus", "grafana"} <= services.keys():
    sys.exit(f"missing: {missing}; services: {sorted(services)}")'
    say "services of the Compose file: $(docker compose --profile '*' config --services | sort | xargs)"
}

onward_container() { docker compose ps --all --quiet onward; }

state() { docker inspect --format "{{$1}}" "$(onward_container)"; }

check_up() {
    local start=$EPOCHREALTIME
    quietly "docker compose up" docker compose up --detach --wait --wait-timeout 120
    say "docker compose up until healthy: $(since "$start")"
    expect "health" healthy "$(state .State.Health.Status)"
    expect "read-only root file system" true "$(state .HostConfig.ReadonlyRootfs)"
    expect "seconds to stop" 40 "$(state .Config.StopTimeout)"
}

prometheus() { inside curl -sS --fail --max-time 10 --get "$PROMETHEUS/api/v1/$1" "${@:2}"; }

target_is_up() {
    prometheus query --data-urlencode 'query=up{job="onward"}' | grep -q '"value":\[[^]]*,"1"\]'
}

# Prints the groups of rules that Prometheus has evaluated without an error.
healthy_groups() {
    prometheus rules | python3 -c '
import json, sys
groups = json.load(sys.stdin)["data"]["groups"]
print(*sorted(it["name"] for it in groups if it["rules"] and all(rule["health"] == "ok" for rule in it["rules"])))'
}

groups_of_file() { sed -n 's/^  - name: //p' deploy/prometheus/rules.yml | sort | xargs; }

all_groups_are_healthy() { [ "$(healthy_groups)" = "$(groups_of_file)" ]; }

check_prometheus() {
    wait_for 60 "Prometheus to see its target up" target_is_up
    say "Prometheus: up == 1"
    wait_for 60 "Prometheus to evaluate the rules" all_groups_are_healthy
    say "groups of rules that Prometheus evaluates: $(healthy_groups)"
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

# A load with files of its own, which go through /tmp beside the read-only root file system.
check_upload() {
    python3 -c '
import base64, json
model = base64.b64encode(open("models/digits/2/model.onnx", "rb").read()).decode()
print(json.dumps({"parameters": {"config": "{}", "file:1/model.onnx": model}}))' >"$STATE/upload.json"
    answers --data "@$STATE/upload.json" "$SERVER/v2/repository/models/brought/load"
    answers "$SERVER/v2/models/brought/ready"
    say "a load with files of its own: ready"
}

# request_until_stopped URL FILE: a line with status, version and curl's exit code for each request, until the file
# $STATE/stopped is there.
request_until_stopped() {
    until [ -e "$STATE/stopped" ]; do
        inside curl -s --max-time 10 --output /dev/null \
            --write-out '%{http_code} %header{x-onward-version} %{exitcode}\n' \
            --data @models/digits/samples/digit-7.json "$1/v2/models/digits/infer" || true
        sleep 0.02
    done >"$2"
}

answered() { [ "$(cat "$STATE"/answers.* | wc -l)" -ge "$1" ]; }

# start_clients URL: sets CLIENTS, which ask until `stop_clients`.
start_clients() {
    local file
    rm -f "$STATE/stopped" "$STATE"/answers.*
    CLIENTS=()
    for file in "$STATE"/answers.{1,2,3}; do
        request_until_stopped "$1" "$file" &
        CLIENTS+=($!)
    done
    wait_for 20 "the first requests" answered 100
}

stop_clients() {
    touch "$STATE/stopped"
    wait "${CLIENTS[@]}"
}

counted_answers() { cat "$STATE"/answers.* | sort | uniq -c | sed 's/^ *//; s/ *$//' | paste -sd, | sed 's/,/, /g'; }

check_swap() {
    start_clients "$SERVER"
    inside curl -sS --fail-with-body --max-time 60 "$SERVER/lifecycle/models/digits/swap" \
        --header 'Content-Type: application/json' --data '{"to":"2"}' >/dev/null
    expect "digit and version after the swap" "7 2" "$(infer | read_answer)"
    wait_for 20 "requests after the swap" answered "$(($(cat "$STATE"/answers.* | wc -l) + 100))"
    stop_clients
    say "requests during the swap, with status, version and curl's exit code: $(counted_answers)"
    ! grep -hvE '^200 [12] 0$' "$STATE"/answers.* || fail "a request failed while a version was swapped"
    grep -qhx '200 1 0' "$STATE"/answers.* || fail "no request came before the swap"
    grep -qhx '200 2 0' "$STATE"/answers.* || fail "no request came after the swap"
}

# Takes eight seconds to send its body, and prints the status and the digits of the answer; $STATE/asking is there
# once the first part was sent.
ask_slowly() {
    inside python3 - "${SERVER#http://}" models/digits/samples/digit-7.json "$STATE/asking" <<'PYTHON'
import http.client, json, pathlib, sys, time
address, sample, asking = sys.argv[1:]
request = json.load(open(sample))
(image,) = request["inputs"]
image["shape"][0], image["data"] = 160, image["data"] * 160
body = json.dumps(request).encode()
connection = http.client.HTTPConnection(address, timeout=60)
connection.putrequest("POST", "/v2/models/digits/infer")
connection.putheader("content-type", "application/json")
connection.putheader("content-length", str(len(body)))
connection.endheaders()
for at in range(0, len(body), len(body) // 16 + 1):
    connection.send(body[at:at + len(body) // 16 + 1])
    pathlib.Path(asking).touch()
    time.sleep(0.5)
answer = connection.getresponse()
outputs = {it["name"]: it["data"] for it in json.load(answer)["outputs"]}
print(answer.status, len(outputs["label"]), sorted(set(outputs["label"])))
PYTHON
}

# The container's own address: Docker's port proxy takes connections also for a server that refuses them.
own_address() {
    docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$(onward_container)"
}

# What a client has of a connection that was refused, which is curl's exit code 7.
readonly REFUSED='000  7'

each_was_refused() { [ "$(grep -lx "$REFUSED" "$STATE"/answers.* | wc -l)" -eq "${#CLIENTS[@]}" ]; }

# Whether each client was answered until it no longer was.
all_before_the_end() { awk 'FNR == 1 { ended = 0 } /^000/ { ended = 1 } /^200/ && ended { exit 1 }' "$@"; }

# Requests go on while the container stops, which a slow one holds up: each is answered by a 200, or its connection is
# refused. One that was accepted and then closed or reset has another exit code, and fails the check.
check_stop() {
    local slow stop start
    start_clients "http://$(own_address):8000"
    ask_slowly >"$STATE/slow" &
    slow=$!
    wait_for 10 "the slow request" test -e "$STATE/asking"
    start=$EPOCHREALTIME
    docker stop "$(onward_container)" >/dev/null &
    stop=$!
    # No longer, as nobody refuses anything at the address of a container that is gone.
    wait_for 20 "connections to be refused" each_was_refused
    stop_clients
    wait "$stop"
    say "docker stop, for which a request takes 8 s: $(since "$start")"
    wait "$slow" || fail "a slow request was cut off when the container stopped"
    say "requests while it stopped, with status, version and curl's exit code: $(counted_answers)"
    ! grep -hvE "^(200 2 0|$REFUSED)$" "$STATE"/answers.* || fail "a request failed while it stopped"
    all_before_the_end "$STATE"/answers.* || fail "a request failed while others were still accepted"
    expect "exit code after docker stop" 0 "$(state .State.ExitCode)"
    expect "status and digits of the slow request" "200 160 [7]" "$(cat "$STATE/slow")"
}

# Bodies that take all of a container's memory together, though none is too large.
overwhelm() {
    local clients=()
    head -c 60000000 /dev/zero >"$STATE/large"
    for _ in {1..8}; do
        inside curl -s --max-time 60 --output /dev/null --data-binary "@$STATE/large" "$SERVER/v2/models/digits/infer" &
        clients+=($!)
    done
    wait "${clients[@]}" || true
}

has_come_back() { [ "$(state .RestartCount)" -ge 1 ] && [ "$(state .State.Health.Status)" = healthy ]; }

# A container whose memory was taken by requests is killed by the kernel, and comes back by its restart policy with
# what it served.
check_killed() {
    local start=$EPOCHREALTIME bounded=$STATE/bounded.yml
    printf '%s\n' services: '  onward:' '    mem_limit: 256m' '    memswap_limit: 256m' >"$bounded"
    quietly "docker compose up with a bound on memory" docker compose --file docker-compose.yml --file "$bounded" \
        --project-directory . up --detach --wait --wait-timeout 120 onward
    expect "digit and version after a new container" "7 2" "$(infer | read_answer)"
    overwhelm
    wait_for 120 "the container to come back" has_come_back
    docker events --since "${start%.*}" --until "$(date +%s)" --filter "container=$(onward_container)" \
        --filter event=oom --filter event=die \
        --format '{{.Action}} {{index .Actor.Attributes "exitCode"}}' >"$STATE/events"
    grep -q '^oom' "$STATE/events" || fail "the container was not killed for its memory"
    grep -q '^die 137' "$STATE/events" || fail "the container did not end by SIGKILL"
    say "killed for its memory, came back by itself: $(xargs <"$STATE/events"), restarts: $(state .RestartCount)"
    expect "digit and version after that" "7 2" "$(infer | read_answer)"
}

read_arguments() {
    case ${1:-} in
    '') ;;
    --if-possible) IF_POSSIBLE=1 ;;
    *) fail "usage: scripts/check_containers.sh [--if-possible]" ;;
    esac
}

prepare() {
    require_machine
    quietly packages install_packages
    quietly plugins install_plugins
    quietly network make_network
    quietly daemon start_daemon
    quietly debian:bookworm-slim debian_image
    quietly rust:1.95-bookworm rust_image
    quietly prometheus prometheus_image
}

check_all() {
    local start
    start=$EPOCHREALTIME
    quietly "docker compose build" docker compose build
    say "docker compose build: $(since "$start")"
    quietly "docker build" label_image
    check_image
    check_files
    check_refusal
    check_object_store
    check_alone
    check_credentials
    check_up
    check_prometheus
    check_inference
    check_upload
    check_swap
    check_stop
    check_killed
    check_rebuild
}

main() {
    read_arguments "$@"
    check_dockerfile
    prepare
    check_compose_file
    check_all
    say "all is well, after $SECONDS s"
}

trap clean_up EXIT
trap 'exit 130' INT TERM
main "$@"
