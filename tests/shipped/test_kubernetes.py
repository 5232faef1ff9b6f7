"""The manifests of deploy/kubernetes: what their APIs say of them, and that they name what the exporter has."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from starlette.routing import Route

from deploy import generate
from exporter import config
from exporter.flags import DEFAULT_PORT, parser
from tests.harness.inprocess import Exporter
from tests.harness.kubernetes import Manifest, problems, rendered
from tests.harness.programs import ROOT, program

KUBERNETES = ROOT / "deploy/kubernetes"
KUSTOMIZATIONS = sorted(path.parent.name for path in KUBERNETES.glob("*/kustomization.yaml"))
EXPORTERS = ("base", "sharded", "sidecar")
"""The kustomizations that run the exporter."""
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def objects(kustomization: str, *kinds: str) -> list[Manifest]:
    return [each for each in rendered(KUBERNETES / kustomization) if not kinds or each["kind"] in kinds]


def workload(kustomization: str) -> Manifest:
    (found,) = objects(kustomization, "Deployment", "StatefulSet")
    return found


def pod(kustomization: str) -> dict[str, Any]:
    found: dict[str, Any] = workload(kustomization)["spec"]["template"]
    return found


def exporter(kustomization: str) -> dict[str, Any]:
    """The container that runs the exporter."""
    spec = pod(kustomization)["spec"]
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    (found,) = [each for each in containers if each["image"].partition(":")[0] == "concurrency-exporter"]
    return dict(found)


def arguments(kustomization: str) -> Iterator[list[str]]:
    """The flags of each pod, with its variables put in their places as the kubelet does."""
    container = exporter(kustomization)
    for index in range(workload(kustomization)["spec"].get("replicas", 1)):
        variables = {
            each["name"]: {"metadata.labels['apps.kubernetes.io/pod-index']": str(index)}[
                each["valueFrom"]["fieldRef"]["fieldPath"]
            ]
            for each in container.get("env", [])
            if "valueFrom" in each
        }
        yield [
            re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], argument)  # noqa: B023  used before the next
            for argument in container.get("args", [])
        ]


def test_every_kustomization_is_looked_at() -> None:
    assert {*EXPORTERS, "monitoring"} == set(KUSTOMIZATIONS)


@pytest.mark.parametrize("kustomization", KUSTOMIZATIONS)
def test_its_apis_have_no_objections(kustomization: str) -> None:
    for manifest in objects(kustomization):
        assert problems(manifest) == [], f"{manifest['kind']} {manifest['metadata']['name']}"


def test_an_api_would_object() -> None:
    misspelt = deepcopy(workload("base"))
    container = misspelt["spec"]["template"]["spec"]["containers"][0]
    container["redinessProbe"] = container.pop("readinessProbe")
    del container["livenessProbe"]["httpGet"]["port"]
    assert [problem.rpartition("containers.0.")[2] for problem in problems(misspelt)] == [
        "livenessProbe.httpGet.port: Field required",
        "redinessProbe: Extra inputs are not permitted",
    ]
    (rule,) = deepcopy(objects("monitoring", "PrometheusRule"))
    rule["spec"]["groups"][0]["rules"][0]["for"] = "5 min"
    assert problems(rule)


@pytest.mark.parametrize("kustomization", EXPORTERS)
def test_the_flags_are_the_exporters(kustomization: str) -> None:
    replicas = workload(kustomization)["spec"].get("replicas", 1)
    shards = []
    for flags in arguments(kustomization):
        parsed = parser().parse_args(flags)
        assert (parsed.web_listen_address, parsed.web_systemd_socket) == (None, False), "the default"
        shards.append(str(parsed.shard))
    assert shards == [f"{index}/{replicas}" for index in range(replicas)]


@pytest.mark.parametrize("kustomization", EXPORTERS)
def test_what_it_polls_is_configured(kustomization: str, tmp_path: Path) -> None:
    container = exporter(kustomization)
    (flags, *_) = arguments(kustomization)
    file = parser().parse_args(flags).config_file
    if not file:
        environment = {each["name"]: each["value"] for each in container["env"]}
        assert [source.name for source in config.from_environment(environment).sources] == ["prefect"]
        return
    (mount,) = [each for each in container["volumeMounts"] if each["mountPath"] == str(file.parent)]
    (volume,) = [each for each in pod(kustomization)["spec"]["volumes"] if each["name"] == mount["name"]]
    names = [source["configMap"]["name"] for source in volume["projected"]["sources"] if "configMap" in source]
    (map_,) = [each for each in objects(kustomization, "ConfigMap") if each["metadata"]["name"] in names]
    (tmp_path / file.name).write_text(map_["data"][file.name])
    assert config.load(tmp_path / file.name).sources


@pytest.mark.parametrize("kustomization", EXPORTERS)
def test_probes_ask_for_routes_on_the_port(kustomization: str) -> None:
    routes = [route.path for route in Exporter().routes.routes if isinstance(route, Route)]
    container = exporter(kustomization)
    assert container["ports"] == [{"name": "http", "containerPort": DEFAULT_PORT}]
    probes = {
        name: container[f"{name}Probe"]["httpGet"]
        for name in ("liveness", "readiness", "startup")
        if f"{name}Probe" in container
    }
    expected = {"liveness": {"path": "/-/healthy", "port": "http"}, "readiness": {"path": "/-/ready", "port": "http"}}
    if kustomization == "sidecar":
        del expected["readiness"]  # it would be that of the server, too
    assert probes == expected
    assert {probe["path"] for probe in probes.values()} <= set(routes)


@pytest.mark.parametrize("kustomization", EXPORTERS)
def test_a_service_finds_it_and_is_found(kustomization: str) -> None:
    (monitor,) = objects("monitoring", "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (service,) = [
        each for each in objects(kustomization, "Service") if wanted <= each["metadata"].get("labels", {}).items()
    ]
    assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == ["http"]
    assert service["spec"]["ports"] == [{"name": "http", "port": DEFAULT_PORT, "targetPort": "http"}]
    assert service["spec"]["selector"].items() <= pod(kustomization)["metadata"]["labels"].items()
    selector = workload(kustomization)["spec"]["selector"]["matchLabels"]
    assert selector.items() <= pod(kustomization)["metadata"]["labels"].items()


@pytest.mark.parametrize("kustomization", EXPORTERS)
def test_it_may_do_nothing_that_it_need_not(kustomization: str) -> None:
    container = exporter(kustomization)
    context = pod(kustomization)["spec"].get("securityContext", {}) | container["securityContext"]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", (ROOT / "Dockerfile").read_text(), re.MULTILINE), "or no pod starts"
    assert context == {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["image"] == f"concurrency-exporter:{VERSION}"
    assert container["resources"] == exporter("base")["resources"]


RESTRICTED_V2 = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
"""The kinds of volumes that this security context constraint allows."""


@pytest.mark.parametrize("kustomization", EXPORTERS)
def test_openshift_takes_it_by_restricted_v2(kustomization: str) -> None:
    """It numbers users and groups by the namespace, and refuses a pod with a number of its own."""
    spec = pod(kustomization)["spec"]
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    contexts = [part.get("securityContext", {}) for part in (spec, *containers)]
    for context in contexts:
        assert not {"runAsUser", "fsGroup", "supplementalGroups", "seLinuxOptions", "privileged"} & context.keys()
        assert context.get("seccompProfile", {"type": "RuntimeDefault"}) == {"type": "RuntimeDefault"}
        assert not context.get("allowPrivilegeEscalation", False)
        assert not context.get("capabilities", {}).get("add")
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & spec.keys()
    assert not any("hostPort" in port for container in containers for port in container.get("ports", []))
    for volume in spec.get("volumes", []):
        assert volume.keys() - {"name"} <= RESTRICTED_V2


def test_any_user_can_read_the_configuration() -> None:
    """The number is not known, and without a group of the volume its files are root's."""
    for kustomization in ("base", "sharded"):
        for volume in pod(kustomization)["spec"]["volumes"]:
            assert volume["projected"]["defaultMode"] & 0o004


def test_a_shard_is_the_same_but_for_its_number() -> None:
    shard = deepcopy(pod("sharded"))
    (container,) = shard["spec"]["containers"]
    assert container.pop("env")
    assert container["args"].pop().startswith("--shard=")
    assert shard == pod("base")
    (service,) = objects("sharded", "Service")
    assert workload("sharded")["spec"]["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"


def test_a_pod_above_the_number_of_shards_does_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    flags = [flag.replace("$(POD_INDEX)", "3") for flag in exporter("sharded")["args"]]
    with pytest.raises(SystemExit):
        parser().parse_args(flags)
    assert "--shard: '3/3' must have the form I/N" in capsys.readouterr().err


def test_the_sidecar_is_one_and_polls_the_server_beside_it() -> None:
    spec = pod("sidecar")["spec"]
    (sidecar,) = spec["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    (server,) = spec["containers"]
    (port,) = server["ports"]
    assert sidecar["env"] == [{"name": "PREFECT_API_URL", "value": f"http://localhost:{port['containerPort']}/api"}]
    (tested,) = re.findall(r"^prefect==(.*)$", (ROOT / "tests/requirements-prefect.txt").read_text(), re.MULTILINE)
    assert server["image"].startswith(f"prefecthq/prefect:{tested}-")


def test_the_rules_are_those_of_alerts(tmp_path: Path) -> None:
    (rule,) = objects("monitoring", "PrometheusRule")
    assert rule == generate.prometheus_rule()
    names = [path.name for path in (ROOT / "alerts").glob("*.yml") if "groups" in YAML(typ="safe").load(path)]
    count = sum(
        len(group["rules"]) for name in names for group in YAML(typ="safe").load(ROOT / "alerts" / name)["groups"]
    )
    assert sum(len(group["rules"]) for group in rule["spec"]["groups"]) == count

    rules = tmp_path / "rules.yml"
    rules.write_text(json.dumps(rule["spec"]))
    done = subprocess.run([program("promtool"), "check", "rules", rules], capture_output=True, text=True, check=False)
    assert f"SUCCESS: {count} rules found" in done.stdout, done.stderr


def test_the_dashboards_are_those_of_dashboards() -> None:
    found = {}
    for each in objects("monitoring", "ConfigMap"):
        assert each["metadata"]["labels"] == {"grafana_dashboard": "1"}
        ((name, text),) = each["data"].items()
        assert len(text) < 2**18, "kubectl apply keeps a copy in an annotation, which may not be larger"
        found[name] = text
    assert found == {path.name: path.read_text() for path in (ROOT / "dashboards").glob("*.json")}
