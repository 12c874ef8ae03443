#!/bin/sh
# Starts the server, makes one inference, and lints /metrics and what deploy/prometheus has with promtool.
# usage: scripts/check_metrics.sh [BINARY]
# Silent and 0 when all is well. Without promtool it fails where CI=true, and is skipped elsewhere.
set -eu
cd "$(dirname "$0")/.."

BINARY=${1:-target/release/onward}
STATE=$(mktemp -d)
SERVER=
PROMTOOL=

fail() {
    echo "check_metrics: $*" >&2
    if [ -s "$STATE/server.log" ]; then
        echo "check_metrics: the server's log:" >&2
        cat "$STATE/server.log" >&2
    fi
    exit 1
}

clean_up() {
    if [ -n "$SERVER" ]; then
        kill -KILL "$SERVER" 2>/dev/null || true
    fi
    rm -rf "$STATE"
}

find_promtool() {
    scripts/fetch_prometheus.sh >"$STATE/fetch.log" 2>&1 || no_promtool
    PROMTOOL=$(command -v promtool) || PROMTOOL=.tools/promtool
}

no_promtool() {
    cat "$STATE/fetch.log" >&2
    if [ "${CI:-}" = true ]; then
        fail "there is no promtool and it could not be fetched"
    fi
    echo "check_metrics: SKIPPED, there is no promtool (it comes with Prometheus)" >&2
    exit 0
}

find_binary() {
    if [ ! -x "$BINARY" ]; then
        [ "$BINARY" = target/release/onward ] || fail "there is no $BINARY"
        cargo build --quiet --locked --release
    fi
}

# request PATH [FILE]: gets it, or posts the file to it; prints the body, fails unless it is a 200.
request() {
    python3 - "http://$ADDRESS$1" "${2:-}" <<'PYTHON'
import sys
import urllib.request

url, path = sys.argv[1:]
body = open(path, "rb").read() if path else None
headers = {"Content-Type": "application/json"} if path else {}
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    call = urllib.request.Request(url, data=body, headers=headers)
    with direct.open(call, timeout=10) as answer:
        sys.stdout.buffer.write(answer.read())
        sys.exit(0 if answer.status == 200 else 1)
except OSError as error:
    sys.exit(f"{url}: {error}")
PYTHON
}

start_server() {
    "$BINARY" serve --server.listen 127.0.0.1:0 --server.grpc_listen off --server.port_file "$STATE/address" \
        --models.repository models --lifecycle.pre_stop_delay 0s \
        </dev/null >"$STATE/server.log" 2>&1 &
    SERVER=$!
}

# wait_for SECONDS WHAT COMMAND...: tries the command about ten times a second.
wait_for() {
    tries=$(($1 * 10)) what=$2
    shift 2
    until "$@" >"$STATE/last" 2>&1; do
        tries=$((tries - 1))
        if [ "$tries" -le 0 ]; then
            cat "$STATE/last" >&2
            fail "waited too long for $what"
        fi
        sleep 0.1
    done
}

running() { kill -0 "$SERVER" 2>/dev/null; }
stopped() { ! running; }
bound() { [ -s "$STATE/address" ] || stopped; }
ready() { stopped || request /readyz; }

wait_until_ready() {
    wait_for 30 "the listener" bound
    running || fail "the server ended early"
    ADDRESS=$(cat "$STATE/address")
    wait_for 60 "readiness" ready
    running || fail "the server ended early"
}

infer() {
    request /v2/models/digits/infer models/digits/samples/digit-7.json >"$STATE/answer.json" ||
        fail "the inference failed"
}

lint_metrics() {
    request /metrics >"$STATE/metrics.txt" || fail "there are no metrics"
    grep -q '^onward_inference_requests_total{' "$STATE/metrics.txt" ||
        fail "the inference was not counted"
    if ! "$PROMTOOL" check metrics <"$STATE/metrics.txt" >"$STATE/lint.txt" 2>&1 ||
        [ -s "$STATE/lint.txt" ]; then
        cat "$STATE/lint.txt" >&2
        fail "promtool complains"
    fi
}

check_rules() {
    for check in "check config prometheus.yml" "check rules rules.yml" "test rules rules_test.yml"; do
        # Each is words: a command of promtool with its file.
        # shellcheck disable=SC2086
        (cd deploy/prometheus && "$PROMTOOL" $check) >"$STATE/rules.txt" 2>&1 || {
            cat "$STATE/rules.txt" >&2
            fail "promtool $check complains"
        }
    done
}

stop_server() {
    kill -TERM "$SERVER"
    wait_for 60 "the server's end" stopped
    status=0
    wait "$SERVER" || status=$?
    SERVER=
    [ "$status" -eq 0 ] || fail "the server ended with exit code $status after SIGTERM"
}

trap clean_up EXIT
trap 'exit 130' INT TERM
find_promtool
case $PROMTOOL in /*) ;; *) PROMTOOL=$PWD/$PROMTOOL ;; esac
check_rules
find_binary
start_server
wait_until_ready
infer
lint_metrics
stop_server
