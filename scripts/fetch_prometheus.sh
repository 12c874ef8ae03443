#!/bin/sh
# Puts Prometheus and its promtool into .tools/, unless they are there or installed.
# usage: scripts/fetch_prometheus.sh
# Silent and 0 when both can be had. Debian's package is unpacked but not installed, as installing it would start
# a service.
set -eu
cd "$(dirname "$0")/.."

# `command -v` of dash looks at its first name alone.
is_installed() { command -v promtool >/dev/null && command -v prometheus >/dev/null; }
is_fetched() { [ -x .tools/promtool ] && [ -x .tools/prometheus ]; }

if is_installed || is_fetched; then
    exit 0
fi
for tool in apt-get dpkg-deb; do
    if ! command -v "$tool" >/dev/null; then
        echo "fetch_prometheus: there is no $tool; install Prometheus 2.42 or newer" >&2
        exit 1
    fi
done

FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
if [ "$(id -u)" -eq 0 ]; then
    apt-get -qq update >"$FOLDER/log" 2>&1 || { cat "$FOLDER/log" >&2; exit 1; }
fi
(cd "$FOLDER" && apt-get -qq -o APT::Sandbox::User=root download prometheus >log 2>&1) ||
    { cat "$FOLDER/log" >&2; exit 1; }
dpkg-deb -x "$FOLDER"/prometheus_*.deb "$FOLDER/package"
mkdir -p .tools
# Each is renamed into its place, so that nobody finds half of one.
for tool in promtool prometheus; do
    cp "$FOLDER/package/usr/bin/$tool" ".tools/$tool.$$"
    mv ".tools/$tool.$$" ".tools/$tool"
done
