"""The manifests of the chart: valid against published schemas, and consistent with each other."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.deploy.helm.cases import BASE, CASES, EXISTING, Values
from tests.deploy.helm.chart import CHART, RELEASE, Object, container_of, helm, render
from tests.deploy.helm.schemas import problems

VERSIONS = ("1.27.0", "1.37.0")
"""The oldest version that the chart supports, and the newest whose schemas are known."""

every_case = pytest.mark.parametrize("values", CASES.values(), ids=CASES)


def _of(objects: list[Object], *kinds: str) -> list[Object]:
    return [item for item in objects if item["kind"] in kinds]


def _workloads(objects: list[Object]) -> list[Object]:
    return _of(objects, "Deployment", "Job")


def _matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def _selectors(objects: list[Object]) -> Iterator[tuple[str, dict[str, str]]]:
    """Return the selectors of pods, with what has them."""
    for item in objects:
        spec, kind = item.get("spec", {}), item["kind"]
        if kind == "Service":
            yield kind, spec["selector"]
        if kind in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
            yield kind, spec["selector"]["matchLabels"]
        if kind == "NetworkPolicy":
            yield kind, spec["podSelector"]["matchLabels"]
            for rule in spec["ingress"]:
                for peer in rule.get("from", ()):
                    if "podSelector" in peer:
                        yield f"{kind}, from", peer["podSelector"]["matchLabels"]


@every_case
@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_follow_the_published_schemas(values: Values, version: str) -> None:
    assert not problems(render(values, version), version)


def test_the_schemas_find_mistakes() -> None:
    """As a field that does not exist, deep inside, and a value of the wrong type."""
    for case, kind, field in [
        ("defaults", "Deployment", "spec.template.spec.containers"),
        ("engine autoscaling", "ScaledObject", "spec.triggers"),
        ("route", "HTTPRoute", "spec.rules"),
        ("monitoring", "ServiceMonitor", "spec.endpoints"),
        ("monitoring", "PodMonitor", "spec.podMetricsEndpoints"),
        ("monitoring", "PrometheusRule", "spec.groups"),
    ]:
        (item, *_) = _of(render(CASES[case]), kind)
        for change in ({"nme": "x"}, {"name": ["x"], "interval": 3, "matches": 4}):
            mistaken = json.loads(json.dumps(item))
            parent: Any = mistaken
            for part in field.split("."):
                parent = parent[part]
            parent[0] |= change
            assert problems([mistaken], "1.34.0"), (kind, change)


@every_case
def test_helm_finds_nothing_to_complain_about(values: Values) -> None:
    done = helm("lint", str(CHART), "--strict", values=values)

    assert done.returncode == 0, done.stdout + done.stderr


@every_case
def test_objects_have_unique_names_that_are_short_enough(values: Values) -> None:
    objects = render(values)
    names = [(item["kind"], item["metadata"]["name"]) for item in objects]

    assert len({*names}) == len(names)
    assert all(len(name) <= 63 for _, name in names)


@every_case
def test_each_selector_matches_the_pods_of_one_workload(values: Values) -> None:
    objects = render(values)
    pods = [item["spec"]["template"]["metadata"]["labels"] for item in _workloads(objects)]

    for owner, selector in _selectors(objects):
        assert sum(_matches(selector, labels) for labels in pods) == 1, owner
    for monitor in _of(objects, "ServiceMonitor"):
        (service,) = (
            item
            for item in _of(objects, "Service")
            if _matches(monitor["spec"]["selector"]["matchLabels"], item["metadata"]["labels"])
        )
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


@every_case
def test_named_ports_exist(values: Values) -> None:
    objects = render(values)
    for workload in _of(objects, "Deployment"):
        container, labels = container_of(workload), workload["spec"]["template"]["metadata"]
        ports = {port["name"] for port in container["ports"]}
        used = {
            container[probe]["httpGet"]["port"]
            for probe in ("startupProbe", "livenessProbe", "readinessProbe")
        }
        for item in _of(objects, "Service"):
            if _matches(item["spec"]["selector"], labels["labels"]):
                used |= {port["targetPort"] for port in item["spec"]["ports"]}
        for item in _of(objects, "PodMonitor"):
            if _matches(item["spec"]["selector"]["matchLabels"], labels["labels"]):
                used |= {endpoint["port"] for endpoint in item["spec"]["podMetricsEndpoints"]}
        for item in _of(objects, "NetworkPolicy"):
            if _matches(item["spec"]["podSelector"]["matchLabels"], labels["labels"]):
                rules = item["spec"]["ingress"]
                used |= {port["port"] for rule in rules for port in rule["ports"]}
        assert used <= ports


@every_case
def test_references_lead_to_objects(values: Values) -> None:
    objects = render(values)
    by_kind = {
        kind: {item["metadata"]["name"] for item in _of(objects, kind)} | EXISTING
        for kind in ("Secret", "ConfigMap", "PersistentVolumeClaim", "Service")
    }
    accounts = {item["metadata"]["name"] for item in _of(objects, "ServiceAccount")} | {"mine"}
    for workload in _workloads(objects):
        pod = workload["spec"]["template"]["spec"]
        assert pod.get("serviceAccountName", "mine") in accounts
        container, volumes = container_of(workload), {item["name"]: item for item in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
        for volume in volumes.values():
            if "configMap" in volume:
                assert volume["configMap"]["name"] in by_kind["ConfigMap"]
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert claim in by_kind["PersistentVolumeClaim"]
        for variable in container["env"]:
            if "valueFrom" in variable:
                assert variable["valueFrom"]["secretKeyRef"]["name"] in by_kind["Secret"]
    for scaler in _of(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        target = scaler["spec"]["scaleTargetRef"]
        (deployment,) = (
            item
            for item in _of(objects, "Deployment")
            if item["metadata"]["name"] == target["name"]
        )
        # Helm would otherwise reset what the autoscaler has set.
        assert "replicas" not in deployment["spec"]
    for route in _of(objects, "HTTPRoute"):
        for backend in route["spec"]["rules"][0]["backendRefs"]:
            assert backend["name"] in by_kind["Service"]


@every_case
def test_pods_run_without_privileges(values: Values) -> None:
    for workload in _workloads(render(values)):
        pod, container = workload["spec"]["template"]["spec"], container_of(workload)
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/tmp", "/home/proctor"} <= mounts


def test_no_secret_is_in_a_config_map_or_in_the_environment() -> None:
    text = json.dumps([item for item in render(CASES["ledger URL"]) if item["kind"] != "Secret"])

    assert "postgresql://" not in text


def test_the_notes_tell_how_to_send_a_request() -> None:
    done = helm("install", RELEASE, str(CHART), "--dry-run=client", values=BASE)

    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("\nNOTES:\n")[2]
    assert "proctor keys create" in notes
    assert "WARNING" not in notes


def test_the_notes_warn_of_open_gateways() -> None:
    values = CASES["no keys"]
    done = helm("install", RELEASE, str(CHART), "--dry-run=client", values=values)

    assert "requests need no key" in done.stdout
