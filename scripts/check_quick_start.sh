#!/usr/bin/env bash
# Does the README's first two steps, and asks for the answer that it promises.
# usage: scripts/check_quick_start.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

STATE=$(mktemp -d)
SERVER=
export no_proxy=127.0.0.1

clean_up() {
    [ -z "$SERVER" ] || kill -KILL -- "-$SERVER" 2>/dev/null || true
    rm -rf "$STATE"
}

fail() {
    echo "check_quick_start: $*" >&2
    tail -n 50 "$STATE/serve.log" >&2
    exit 1
}

# A group of its own, so that a signal reaches make and what it runs.
start() {
    set -m
    make serve ARGS="--server.listen 127.0.0.1:0 --server.grpc_listen off --server.port_file $STATE/address" \
        </dev/null >"$STATE/serve.log" 2>&1 &
    SERVER=$!
    set +m
}

ready() { curl --silent --fail "http://$ADDRESS/readyz" >/dev/null; }

wait_until_ready() {
    until [ -s "$STATE/address" ]; do
        kill -0 "$SERVER" 2>/dev/null || fail "make serve has ended"
        sleep 0.2
    done
    ADDRESS=$(cat "$STATE/address")
    local tries=0
    until ready; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || fail "it does not become ready"
        sleep 0.1
    done
}

classify() {
    local answer
    answer=$(curl --silent --fail --json @models/digits/samples/digit-7.json \
        "http://$ADDRESS/v2/models/digits/infer") || fail "the inference failed"
    case $answer in
    *'"name":"label","datatype":"INT64","shape":[1],"data":[7]'*) ;;
    *) fail "unexpected answer: $answer" ;;
    esac
}

# Ctrl-C reaches make too, which then reports that its command was interrupted.
stop() {
    kill -INT -- "-$SERVER"
    wait "$SERVER" || true
    SERVER=
    grep -q 'to=STOPPED' "$STATE/serve.log" || fail "the server did not stop in order"
}

trap clean_up EXIT
trap 'exit 130' INT TERM
start
wait_until_ready
classify
stop
