#!/usr/bin/env python3
"""Writes the rules of Prometheus as the PrometheusRule that the Prometheus operator reads.

usage: scripts/prometheus_rule.py < deploy/prometheus/rules.yml > prometheusrule.yaml
"""

import sys

HEAD = """\
# Written by `make prometheus-rule` from deploy/prometheus/rules.yml: change that.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: onward
  labels:
    app.kubernetes.io/name: onward
spec:
"""


def main():
    lines = sys.stdin.read().splitlines()
    sys.stdout.write(HEAD + "".join(f"  {line}".rstrip() + "\n" for line in lines))


if __name__ == "__main__":
    main()
