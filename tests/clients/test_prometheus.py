"""A real Prometheus, which scrapes a server with traffic, and is asked every query of the dashboard and the rules."""

import concurrent.futures
import contextlib
import json
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading
import time

import numpy
import pytest
import requests
import tritonclient.grpc
import yaml
from tritonclient.utils import InferenceServerException

from conftest import PROJECT, serving

DEPLOY = PROJECT / "deploy"
RULES = DEPLOY / "prometheus/rules.yml"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboard.json").read_text())
JSON = {"content-type": "application/json"}

# What has to have happened meanwhile: a rule whose query finds a zero has not been tried.
HAPPENED = [
    ("a request that was shed", 'onward_inference_requests_shed_total{reason="queue_full"} > 0'),
    ("a load that failed", 'onward_model_loads_total{result="failure"} > 0'),
    ("a canary that was taken back", 'onward_model_rollbacks_total{cause="canary"} > 0'),
    ("a copy that was compared", 'onward_model_shadow_comparisons_total{result=~"same|different"} > 0'),
    ("an answer that had been kept", "onward_response_cache_hits_total > 0"),
    ("requests over both protocols", 'onward_inference_requests_total{outcome="success",protocol="grpc"} > 0'),
    ("a request for nobody", 'onward_inference_requests_unrouted_total{model="/unknown"} > 0'),
]

# Queries that may find nothing, each with the reason.
MAY_FIND_NOTHING = {}

# What Grafana puts in the place of its variables.
VARIABLES = {"$job": ".*", "$instance": ".*", "$model": ".*", "$__rate_interval": "30s"}

# How long Prometheus may take until it has two looks at everything that happens.
PATIENCE = 40


def tool(name):
    found = shutil.which(name)
    return pathlib.Path(found) if found else PROJECT / ".tools" / name


@pytest.fixture(scope="module")
def tools(summary):
    """promtool and prometheus; without them, nothing here is tried."""
    fetched = subprocess.run([PROJECT / "scripts/fetch_prometheus.sh"], capture_output=True, text=True)
    if fetched.returncode == 0:
        return tool("promtool").absolute(), tool("prometheus").absolute()
    if os.environ.get("CI") == "true":
        pytest.fail(f"there is no Prometheus and it could not be fetched:\n{fetched.stderr}")
    summary.append("Prometheus: SKIPPED, it is not there and could not be fetched")
    pytest.skip(f"there is no Prometheus: {fetched.stderr}")


def promtool(tools, *arguments, **more):
    told = subprocess.run(
        [tools[0], *arguments], cwd=DEPLOY / "prometheus", capture_output=True, text=True, **more
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout + told.stderr


def rules(kind):
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def test_configuration_and_rules_are_sound(tools):
    promtool(tools, "check", "config", "prometheus.yml")
    promtool(tools, "check", "rules", "rules.yml")
    promtool(tools, "test", "rules", "rules_test.yml")


def test_every_alert_says_what_to_do_and_is_tried_both_ways():
    guide = (PROJECT / "docs/metrics.md").read_text()
    cases = yaml.safe_load((DEPLOY / "prometheus/rules_test.yml").read_text())["tests"]
    tried = [(case["alertname"], bool(case["exp_alerts"])) for test in cases for case in test["alert_rule_test"]]
    for rule in rules("alert"):
        name = rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), name
        assert {"summary", "description"} <= rule["annotations"].keys(), name
        assert rule["annotations"]["runbook"] == f"docs/metrics.md#{name.lower()}"
        assert f"\n### {name}\n" in guide, f"docs/metrics.md says nothing of {name}"
        assert {(name, True), (name, False)} <= set(tried), f"rules_test.yml has not both cases of {name}"


def test_compose_mounts_what_there_is():
    compose = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
    mounts = [mount.split(":") for service in compose.values() for mount in service.get("volumes", [])]
    assert all((PROJECT / source).exists() for source, *_ in mounts if source.startswith("./"))
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/onward.yml").read_text())
    folder = provider["providers"][0]["options"]["path"]
    assert any(target.startswith(f"{folder}/") for _, target, *_ in mounts)
    assert compose["grafana"]["profiles"] == ["grafana"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prometheus") / "models"
    shutil.copytree(PROJECT / "models", folder)
    (folder / "broken/1").mkdir(parents=True)
    (folder / "broken/1/model.onnx").write_bytes(b"no graph")
    for name, settings in {
        "narrow": "instances: 1\nqueue_capacity: 1\nbatching: {max_delay: 200ms}\nversion_policy: {specific: [1]}\n",
        "shadowed": "version_policy: {specific: [1, 2]}\n",
        "kept": "response_cache: true\nversion_policy: {specific: [1]}\n",
    }.items():
        shutil.copytree(folder / "digits", folder / name)
        (folder / name / "model.yaml").write_text(settings)
    return folder


@pytest.fixture(scope="module")
def server(repository):
    settings = ["--models.memory_budget", "1GiB", "--models.keep_previous", "5m"]
    with serving(*settings, repository=repository) as addresses:
        yield addresses


class Prometheus:
    """One that runs, and how to ask it."""

    def __init__(self, address):
        self.api = f"http://{address}/api/v1"

    def get(self, path, **parameters):
        answer = requests.get(f"{self.api}/{path}", params=parameters, timeout=10).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def ask(self, query):
        """The numbers that a query finds."""
        found = self.get("query", query=query)["result"]
        return [number for series in found if not math.isnan(number := float(series["value"][1]))]


@contextlib.contextmanager
def prometheus(tools, server, folder):
    scrape = {"job_name": "onward", "static_configs": [{"targets": [server["rest"]]}]}
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [scrape],
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration))
    command = [
        tools[1], f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        "--web.listen-address=127.0.0.1:0",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    told = []
    try:
        listening = None
        for line in process.stderr:
            told.append(line)
            listening = re.search(r'msg="Listening on" address=(\S+)', line) or listening
            if "Server is ready" in line:
                break
        assert listening, "".join(told)
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield Prometheus(listening[1])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def digits(batch=1):
    sample = json.loads((PROJECT / "models/digits/samples/digit-7.json").read_text())
    image = numpy.array(sample["inputs"][0]["data"], dtype=numpy.float32).reshape(1, 8, 8)
    return image.repeat(batch, axis=0)


class Traffic:
    """Requests of every kind, for as long as the block lasts."""

    def __init__(self, server):
        self.url, self.grpc = f"http://{server['rest']}", server["grpc"]
        self.over = threading.Event()
        self.pool = concurrent.futures.ThreadPoolExecutor(3)

    def __enter__(self):
        self.work = [self.pool.submit(work) for work in (self.rest, self.calls, self.crowd)]
        return self

    def __exit__(self, *_):
        self.over.set()
        for work in self.work:
            work.result()

    def infer(self, model, batch=1):
        tensor = {"name": "image", "shape": [batch, 8, 8], "datatype": "FP32", "data": digits(batch).ravel().tolist()}
        return requests.post(f"{self.url}/v2/models/{model}/infer", json={"inputs": [tensor]}, timeout=30)

    def rest(self):
        while not self.over.wait(0.02):
            for model in ("digits", "kept", "shadowed"):
                assert self.infer(model).status_code == 200
            assert self.infer("nobody").status_code == 404
            requests.get(f"{self.url}/readyz", timeout=10)

    def calls(self):
        tensor = tritonclient.grpc.InferInput("image", [1, 8, 8], "FP32")
        tensor.set_data_from_numpy(digits())
        with tritonclient.grpc.InferenceServerClient(self.grpc) as client:
            while not self.over.wait(0.05):
                client.infer("digits", [tensor])
                with contextlib.suppress(InferenceServerException):
                    client.infer("nobody", [tensor])

    def crowd(self):
        """More at once than the model has places for."""
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            while not self.over.wait(0.1):
                statuses = [answer.status_code for answer in pool.map(lambda _: self.infer("narrow"), range(8))]
                assert set(statuses) <= {200, 429}, statuses


def change(server, method, path, body):
    answer = requests.request(method, f"http://{server['rest']}{path}", json=body, timeout=30)
    return answer.status_code, answer.json()


def change_everything(server, repository):
    """What an operator may do, each once."""

    def done(method, path, body, statuses=(200,)):
        status, told = change(server, method, path, body)
        assert status in statuses, (path, told)

    done("POST", "/lifecycle/models/digits/swap", {"to": "2"})
    done("POST", "/lifecycle/models/digits/rollback", {})
    done("PUT", "/lifecycle/models/digits/aliases/stable", {"version": "1"})
    done("PUT", "/lifecycle/models/shadowed/shadow", {"version": 1, "percent": 100})
    canary = {"steps": [50], "interval": "200ms", "patience": "300ms"}
    trial = {"to": "2", "strategy": "canary", "canary": canary, "limits": {"min_requests": 100000}}
    done("POST", "/lifecycle/models/kept/swap", trial, (409,))
    shutil.copytree(repository / "digits", repository / "late")
    done("POST", "/lifecycle/models/late/load", {})


def queries():
    """Every query of the dashboard and of the rules, with where it is."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']!r}", target["expr"]
    for note in DASHBOARD["annotations"]["list"]:
        if "expr" in note:
            yield f"annotation {note['name']!r}", note["expr"]
    for rule in rules("record"):
        yield f"rule {rule['record']}", rule["record"]
        yield f"rule {rule['record']}", rule["expr"]
    for rule in rules("alert"):
        # Without what makes it fire.
        watched, compared = re.subn(r"\s+(==|>|<)\s+[0-9.]+$", "", rule["expr"].strip())
        assert compared == 1, f"{rule['alert']} compares with no number at its end"
        yield f"alert {rule['alert']}", watched


def filled(query):
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query, query
    return query


def test_every_query_finds_what_it_asks_for(tools, server, repository, tmp_path, summary):
    begun = time.monotonic()
    with prometheus(tools, server, tmp_path) as judge:
        # What happens before the first look has not happened, as far as it can tell.
        while not judge.ask("onward_model_swaps_total"):
            time.sleep(0.1)
        with Traffic(server):
            change_everything(server, repository)
            asked = [(where, filled(query)) for where, query in [*queries(), *HAPPENED]]
            missing, deadline = asked, time.monotonic() + PATIENCE
            while missing and time.monotonic() < deadline:
                missing = [
                    (where, query) for where, query in missing
                    if query not in MAY_FIND_NOTHING and not judge.ask(query)
                ]
                time.sleep(0.5)
        assert not missing, "\n".join(f"{where} finds nothing: {query}" for where, query in missing)
        failing = [rule for group in judge.get("rules")["groups"] for rule in group["rules"] if rule["health"] != "ok"]
        assert not failing, failing
        for variable in DASHBOARD["templating"]["list"]:
            if variable["type"] == "query":
                selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
                assert judge.get(f"label/{label}/values", **{"match[]": filled(selector)}), variable["name"]
    summary.append(f"Prometheus: {len(asked)} queries found what they ask for, {time.monotonic() - begun:.0f} s")


def test_the_page_is_as_promtool_likes_it(tools, server):
    page = requests.get(f"http://{server['rest']}/metrics", timeout=10)
    assert page.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert promtool(tools, "check", "metrics", input=page.text) == ""
