"""The manifests of deploy/kubernetes: sound by Kubernetes' schemas, and of one mind with the server's settings."""

import re
import shutil
import subprocess
import textwrap

import jsonschema
import kubernetes_validate
import pytest
import urllib3
import yaml

from conftest import PROJECT
from manifests import (
    KUBERNETES, OVERLAYS, container, effective, environment, only, pod, render, resources, seconds, settings, size,
)

# The oldest that is promised, and the newest that is known.
VERSIONS = ["1.31", "1.37"]
MARGIN = 5
# The ports of each Service, by name.
SERVICES = {
    "onward": {"http", "grpc"}, "onward-replicas": {"http", "grpc"}, "onward-management": {"management"},
}


def strict(properties, *required, **more):
    """A schema of an object that has these properties and no others."""
    return {
        "type": "object", "properties": properties, "required": list(required),
        "additionalProperties": False, **more,
    }


def resource(version, kind, spec):
    strings = {"type": "object", "additionalProperties": {"type": "string"}}
    metadata = strict({"name": {"type": "string"}, "labels": strings}, "name")
    kinds = {"apiVersion": {"const": version}, "kind": {"const": kind}}
    return strict({**kinds, "metadata": metadata, "spec": spec}, *kinds, "metadata", "spec")


TEXT = {"type": "string", "minLength": 1}
DURATION = {"type": "string", "pattern": r"^\d+(ms|s|m|h)$"}
MODEL_FORMAT = {"name": TEXT, "version": TEXT}
# What is used of kinds that Kubernetes itself has not, by their definitions in the Prometheus operator and KServe.
CUSTOM = {
    "ServiceMonitor": resource("monitoring.coreos.com/v1", "ServiceMonitor", strict({
        "jobLabel": TEXT,
        "selector": strict({"matchLabels": {"type": "object"}}, "matchLabels"),
        "endpoints": {"type": "array", "minItems": 1, "items": strict({
            "port": TEXT, "path": TEXT, "interval": DURATION, "scrapeTimeout": DURATION,
            "authorization": strict({
                "type": {"const": "Bearer"}, "credentials": strict({"name": TEXT, "key": TEXT}, "name", "key"),
            }, "credentials"),
        }, "port")},
    }, "selector", "endpoints")),
    "PrometheusRule": resource("monitoring.coreos.com/v1", "PrometheusRule", strict({
        "groups": {"type": "array", "minItems": 1, "items": strict({
            "name": TEXT, "interval": DURATION, "rules": {"type": "array", "minItems": 1, "items": strict({
                "alert": TEXT, "record": TEXT, "expr": TEXT, "for": DURATION, "keep_firing_for": DURATION,
                "labels": {"type": "object"}, "annotations": {"type": "object"},
            }, "expr", oneOf=[{"required": ["alert"]}, {"required": ["record"]}])},
        }, "name", "rules")},
    }, "groups")),
    "ClusterServingRuntime": resource("serving.kserve.io/v1alpha1", "ClusterServingRuntime", strict({
        "annotations": {"type": "object"},
        "supportedModelFormats": {"type": "array", "minItems": 1, "items": strict({
            **MODEL_FORMAT, "autoSelect": {"type": "boolean"}, "priority": {"type": "integer", "minimum": 1},
        }, "name")},
        "protocolVersions": {"type": "array", "items": {"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]}},
        "containers": {"type": "array", "minItems": 1},
        "volumes": {"type": "array"},
    }, "containers")),
    "InferenceService": resource("serving.kserve.io/v1beta1", "InferenceService", strict({
        "predictor": strict({
            "minReplicas": {"type": "integer", "minimum": 0},
            "model": strict({
                "runtime": TEXT, "modelFormat": strict(MODEL_FORMAT, "name"),
                "protocolVersion": {"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]}, "storageUri": TEXT,
            }, "modelFormat"),
        }, "model"),
    }, "predictor")),
}


def check(manifest, version):
    if manifest["kind"] in CUSTOM:
        jsonschema.validate(manifest, CUSTOM[manifest["kind"]])
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


def durations(told):
    return {
        key: seconds(value) for key, value in told.items()
        if key.endswith(("_timeout", "_delay", ".max_stall"))
    }


def port(address):
    return int(address.rpartition(":")[2])


def kserve(name):
    return yaml.safe_load((KUBERNETES / f"kserve/{name}.yaml").read_text())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_applied_is_sound(overlay, version):
    for manifest in resources(overlay):
        check(manifest, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_runtime_of_kserve_is_sound(version):
    (runtime,) = resources("kserve")
    check(runtime, version)
    spec = {key: runtime["spec"][key] for key in ("containers", "volumes")}
    # It becomes a pod, to which KServe adds the models.
    check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}, version)
    service = kserve("inferenceservice")
    check(service, version)
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    formats = [(it["name"], it["version"]) for it in runtime["spec"]["supportedModelFormats"]]
    assert (model["modelFormat"]["name"], model["modelFormat"]["version"]) in formats


@pytest.mark.parametrize("kind", sorted(CUSTOM))
def test_the_schemas_of_other_kinds_refuse_what_they_do_not_know(kind):
    example = {"apiVersion": "x", "kind": kind, "metadata": {"name": "x"}, "spec": {"unknown": 1}}
    with pytest.raises(jsonschema.ValidationError):
        check(example, VERSIONS[0])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_number_of_a_port_is_that_of_the_settings(overlay, tmp_path):
    told = effective(overlay, tmp_path)
    listened = {
        "http": told["server.listen"], "grpc": told["server.grpc_listen"],
        "management": told["server.management_listen"],
    }
    ports = {name: port(address) for name, address in listened.items()}
    assert {it["name"]: it["containerPort"] for it in container(overlay)["ports"]} == ports
    for service, names in SERVICES.items():
        served = only(overlay, "Service", service)["spec"]["ports"]
        assert {it["name"]: it["port"] for it in served} == {name: ports[name] for name in names}
        assert all(it["targetPort"] == it["name"] for it in served)
    named = [it["port"] for rule in only(overlay, "NetworkPolicy")["spec"]["ingress"] for it in rule["ports"]]
    assert set(named) == ports.keys()
    url = environment(container(overlay))["ONWARD_URL"]
    assert url == f"http://127.0.0.1:{ports['management']}", "where the command line asks"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container(overlay)[probe]["httpGet"]["port"] == "http"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_kubelets_patience_is_that_of_the_settings(overlay, tmp_path):
    told = effective(overlay, tmp_path)
    time = durations(told)
    spec, of = only(overlay, "Deployment")["spec"], container(overlay)
    ending = time["lifecycle.pre_stop_delay"] + time["lifecycle.shutdown_timeout"]
    assert pod(overlay)["terminationGracePeriodSeconds"] == ending + MARGIN
    assert "lifecycle" not in of, "the server itself waits"
    # What was let in at the last moment has its whole deadline.
    assert time["lifecycle.shutdown_timeout"] >= time["server.request_timeout"] + MARGIN
    start, live, ready = (of[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness"))
    started = start["periodSeconds"] * start["failureThreshold"]
    assert time["lifecycle.startup_timeout"] + 30 <= started <= time["lifecycle.startup_timeout"] + 120
    assert time["models.load_timeout"] < started < spec["progressDeadlineSeconds"]
    # A stall that the server gets over is no reason for a restart; one that lasts is soon.
    tolerated = live["periodSeconds"] * (live["failureThreshold"] - 1)
    assert time["health.max_stall"] < tolerated <= 2 * time["health.max_stall"]
    # Where it is not told of the end, a balancer leaves a replica before that stops taking connections.
    unready = ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"]
    assert unready < time["lifecycle.pre_stop_delay"]
    paths = [probe["httpGet"]["path"] for probe in (start, live, ready)]
    assert paths == ["/startupz", "/livez", "/readyz"]


def test_the_kubelets_patience_with_kserve_is_that_of_the_settings():
    (of,) = kserve("clusterservingruntime")["spec"]["containers"]
    told = settings([], environment(of))
    time = durations(told)
    # Kubernetes gives 30 s where nobody says otherwise, as KServe does not.
    ending = time["lifecycle.pre_stop_delay"] + time["lifecycle.shutdown_timeout"]
    assert ending + MARGIN <= 30
    assert time["lifecycle.shutdown_timeout"] >= time["server.request_timeout"] + MARGIN
    live = of["livenessProbe"]
    assert time["health.max_stall"] < live["periodSeconds"] * (live["failureThreshold"] - 1)
    assert told["models.required"] == ["{{.Name}}"]


def test_the_address_of_a_service_of_kserve_leads_to_no_management():
    spec = kserve("clusterservingruntime")["spec"]
    (of,) = spec["containers"]
    told = settings([], environment(of))
    (served,) = [it["containerPort"] for it in of["ports"]]
    assert port(told["server.listen"]) == served
    assert told["server.grpc_listen"] == "off", "Knative allows one port"
    assert all(of[probe]["httpGet"]["port"] == served for probe in ("livenessProbe", "readinessProbe"))
    management = port(told["server.management_listen"])
    assert management != served
    assert spec["annotations"]["prometheus.kserve.io/port"] == str(management)
    assert environment(of)["ONWARD_URL"] == f"http://127.0.0.1:{management}"


@pytest.mark.parametrize("overlay", [*OVERLAYS, "kserve"])
def test_a_container_may_do_nothing_but_serve(overlay):
    if overlay == "kserve":
        (of,) = kserve("clusterservingruntime")["spec"]["containers"]
        held = of["securityContext"]
    else:
        of = container(overlay)
        held = pod(overlay)["securityContext"] | of["securityContext"]
        assert pod(overlay)["automountServiceAccountToken"] is False
        assert only(overlay, "ServiceAccount")["automountServiceAccountToken"] is False
        assert all("sizeLimit" in it["emptyDir"] for it in pod(overlay)["volumes"] if "emptyDir" in it)
    assert held["runAsNonRoot"] and (held["runAsUser"], held["runAsGroup"]) == (65532, 65532)
    assert held["readOnlyRootFilesystem"] and held["allowPrivilegeEscalation"] is False
    assert held["capabilities"] == {"drop": ["ALL"]}
    assert held["seccompProfile"] == {"type": "RuntimeDefault"}
    assert of["resources"]["limits"].keys() >= {"cpu", "memory"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_written_has_a_volume_of_its_size(overlay, tmp_path):
    told = effective(overlay, tmp_path)
    volumes = {it["name"]: it for it in pod(overlay)["volumes"]}
    writable = {
        it["mountPath"]: size(volumes[it["name"]]["emptyDir"]["sizeLimit"])
        for it in container(overlay)["volumeMounts"] if not it.get("readOnly")
    }
    caches = [told["models.cache"], told["onnxruntime.cache"]]
    for folder in [*caches, told["models.state"], "/tmp/x"]:
        assert any(folder.startswith(f"{path}/") for path in writable), folder
    (cache,) = [size for path, size in writable.items() if all(it.startswith(path) for it in caches)]
    assert size(told["models.cache_size"]) + size(told["onnxruntime.cache_size"]) + 2**30 <= cache
    limits = container(overlay)["resources"]["limits"]
    assert sum(writable.values()) < size(limits["ephemeral-storage"])
    assert 2 * size(told["models.memory_budget"]) <= size(limits["memory"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_selector_finds_the_pods(overlay):
    template = only(overlay, "Deployment")["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    for kind, path in {
        "Deployment": ["selector", "matchLabels"], "PodDisruptionBudget": ["selector", "matchLabels"],
        "NetworkPolicy": ["podSelector", "matchLabels"], "Service": ["selector"],
    }.items():
        selector = only(overlay, kind)["spec"]
        for key in path:
            selector = selector[key]
        assert selector and selector.items() <= labels, kind
    for spread in template["spec"]["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"].items() <= labels


@pytest.mark.parametrize("overlay", ["overlays/keys", "overlays/monitoring", "overlays/production"])
def test_every_replica_is_scraped_once(overlay):
    monitor = only(overlay, "ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    services = [it for it in resources(overlay) if it["kind"] == "Service"]
    (found,) = [it for it in services if wanted <= it["metadata"]["labels"].items()]
    assert [it["port"] for it in monitor["endpoints"]] == ["management"], "the others have no metrics"
    assert "management" in {it["name"] for it in found["spec"]["ports"]}
    assert found["metadata"]["labels"][monitor["jobLabel"]] == "onward", "the job of the rules"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_clients_reach_no_management(overlay):
    rules = only(overlay, "NetworkPolicy")["spec"]["ingress"]
    (managing,) = [rule for rule in rules if "management" in [it["port"] for it in rule["ports"]]]
    labels = [it["podSelector"]["matchLabels"] for it in managing["from"]]
    assert labels == [{"app.kubernetes.io/name": "prometheus"}, {"onward/operator": "true"}]
    assert len(managing["ports"]) == 1


def test_prometheus_shows_a_key_where_one_is_asked_for(tmp_path):
    told = effective("overlays/keys", tmp_path)
    assert told["server.allow_unauthenticated_management"] is False
    of, volumes = container("overlays/keys"), {it["name"]: it for it in pod("overlays/keys")["volumes"]}
    (mount,) = [it for it in of["volumeMounts"] if told["auth.keys_file"].startswith(f"{it['mountPath']}/")]
    assert mount["readOnly"] and volumes[mount["name"]]["secret"] == {"secretName": "onward-keys"}
    (endpoint,) = only("overlays/keys", "ServiceMonitor")["spec"]["endpoints"]
    shown = {"type": "Bearer", "credentials": {"name": "onward-prometheus", "key": "key"}}
    assert endpoint["authorization"] == shown
    commands = "\n".join(guide("sh"))
    assert "secret generic onward-keys --from-file=keys.yaml" in commands
    assert "secret generic onward-prometheus --from-file=key=" in commands
    (plain,) = only("overlays/monitoring", "ServiceMonitor")["spec"]["endpoints"]
    assert "authorization" not in plain


def test_keys_need_no_prometheus(tmp_path):
    shutil.copytree(KUBERNETES, tmp_path / "deploy")
    (tmp_path / "mine").mkdir()
    mine = {"resources": ["../deploy/base"], "components": ["../deploy/components/keys"]}
    (tmp_path / "mine/kustomization.yaml").write_text(yaml.safe_dump(mine))
    made = list(yaml.safe_load_all(render(tmp_path / "mine")))
    assert "ONWARD_AUTH_KEYS_FILE" in str(made) and not [it for it in made if it["kind"] == "ServiceMonitor"]


@pytest.mark.parametrize("overlay", ["overlays/autoscaling", "overlays/production"])
def test_what_is_scaled_by_is_measured(overlay, server):
    scaler = only(overlay, "HorizontalPodAutoscaler")["spec"]
    target = only(overlay, "Deployment")
    assert (scaler["scaleTargetRef"]["kind"], scaler["scaleTargetRef"]["name"]) == ("Deployment", "onward")
    assert "replicas" not in target["spec"], "they are the autoscaler's"
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]
    (metric,) = [it["pods"]["metric"]["name"] for it in scaler["metrics"] if it["type"] == "Pods"]
    metrics = urllib3.request("GET", f"http://{server['rest']}/metrics").data.decode()
    assert f"\n{metric}{{" in metrics
    adapter = (KUBERNETES / "components/autoscaling/prometheus-adapter.yaml").read_text()
    (rule,) = yaml.safe_load(adapter)["rules"]["custom"]
    assert rule["name"]["as"] == metric and rule["seriesQuery"].startswith(f"{metric}{{")


@pytest.mark.parametrize("overlay", ["overlays/persistent-volume", "overlays/image-volume"])
def test_models_of_a_volume_need_no_way_out(overlay, tmp_path):
    repository = effective(overlay, tmp_path)["models.repository"]
    (mount,) = [it for it in container(overlay)["volumeMounts"] if it["mountPath"] == repository]
    assert mount["readOnly"]
    (way,) = only(overlay, "NetworkPolicy")["spec"]["egress"]
    assert {it["port"] for it in way["ports"]} == {53}


def test_strangers_are_kept_out_where_no_credentials_are_asked_for(tmp_path):
    for overlay in OVERLAYS:
        if effective(overlay, tmp_path)["server.allow_unauthenticated_management"]:
            policy = only(overlay, "NetworkPolicy")["spec"]
            assert policy["policyTypes"] == ["Ingress", "Egress"]
            assert all(rule["from"] and rule["ports"] for rule in policy["ingress"])


def test_another_configuration_is_rolled_out():
    (mounted,) = [it["configMap"]["name"] for it in pod("base")["volumes"] if "configMap" in it]
    assert mounted.startswith("onward-"), "with a hash of its content"
    assert "namespace:" not in render("base"), "it is the user's to choose"


def guide(language):
    """The blocks of docs/kubernetes.md in a language; one may stand in a list."""
    text = (PROJECT / "docs/kubernetes.md").read_text()
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, re.M | re.S)
    return [textwrap.dedent(block) for _, block in blocks]


def test_the_overlay_of_the_guide_does_what_it_says(tmp_path):
    shutil.copytree(KUBERNETES, tmp_path / "deploy/kubernetes")
    mine = tmp_path / "mine"
    mine.mkdir()
    shutil.copy(KUBERNETES / "base/onward.yaml", mine)
    (whole,) = [yaml.safe_load(block) for block in guide("yaml") if block.startswith("# mine/")]
    for block in guide("yaml"):
        if block.startswith("# in mine/"):
            for key, values in yaml.safe_load(block).items():
                whole[key] = whole.get(key, []) + values
    (mine / "kustomization.yaml").write_text(yaml.safe_dump(whole))
    made = list(yaml.safe_load_all(render(mine)))
    for manifest in made:
        assert manifest["metadata"]["namespace"] == "models"
        del manifest["metadata"]["namespace"]
        check(manifest, VERSIONS[0])
    (deployment,) = [it for it in made if it["kind"] == "Deployment"]
    (of,) = deployment["spec"]["template"]["spec"]["containers"]
    assert of["image"] == "registry.example.com/onward:0.1.0"
    assert environment(of) == environment(container("overlays/keys")) | {
        "ONWARD_MODELS_REPOSITORY": "s3://our-models/serving",
        "ONWARD_MODELS_REQUIRED": "digits,wine",
    }
    (monitor,) = [it for it in made if it["kind"] == "ServiceMonitor"]
    assert "authorization" in monitor["spec"]["endpoints"][0]


def test_the_ingress_of_the_guide_passes_on_inference_alone():
    (ingress,) = [yaml.safe_load(block) for block in guide("yaml") if "kind: Ingress" in block]
    check(ingress, VERSIONS[0])
    (rule,) = ingress["spec"]["rules"]
    assert [path["path"] for path in rule["http"]["paths"]] == ["/v2/models"]


def test_the_commands_of_the_guide_can_be_read():
    for block in guide("sh"):
        subprocess.run(["sh", "-n"], input=block, text=True, check=True)
        for folder in re.findall(r"(?:--kustomize|--filename|--values) (deploy\S+)", block):
            assert (PROJECT / folder).exists(), folder


def test_the_guide_knows_every_overlay():
    told = (PROJECT / "docs/kubernetes.md").read_text()
    assert all(f"| `{overlay}` |" in told for overlay in OVERLAYS)


def test_the_guide_tells_the_times_of_the_base():
    told = (PROJECT / "docs/kubernetes.md").read_text()
    start, live, ready = (container("base")[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness"))
    for line in (
        f"| `startupProbe` `/startupz`, {start['failureThreshold']} times {start['periodSeconds']} s |",
        f"| `livenessProbe` `/livez`, {live['failureThreshold']} times every {live['periodSeconds']} s |",
        f"| `readinessProbe` `/readyz`, {ready['failureThreshold']} times every {ready['periodSeconds']} s |",
        f"| `terminationGracePeriodSeconds` | {pod('base')['terminationGracePeriodSeconds']} s |",
        f"| `progressDeadlineSeconds` | {only('base', 'Deployment')['spec']['progressDeadlineSeconds']} s |",
    ):
        assert f"\n{line}" in told


def test_the_operator_has_the_rules_of_prometheus():
    rules, rule = PROJECT / "deploy/prometheus/rules.yml", KUBERNETES / "components/monitoring/prometheusrule.yaml"
    assert rules.exists() == rule.exists(), "`make prometheus-rule`, and name it in the kustomization beside it"
    if rules.exists():
        made = only("overlays/monitoring", "PrometheusRule")
        assert made["spec"] == yaml.safe_load(rules.read_text()), "`make prometheus-rule`"
        assert 'job="onward"' in rules.read_text(), "which is what jobLabel finds"
