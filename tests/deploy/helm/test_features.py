"""Each feature of the chart, on and off."""

import pytest

from tests.deploy.helm.cases import BASE, CASES, PEER, Values
from tests.deploy.helm.chart import NAME, Object, container_of, find, has, render

ENGINE = f"{NAME}-engine"
OBJECTS_OF_CASES = {
    "gateway autoscaling": [("HorizontalPodAutoscaler", NAME)],
    "engine autoscaling": [("ScaledObject", ENGINE)],
    "claim": [("PersistentVolumeClaim", f"{NAME}-weights")],
    "ingress": [("Ingress", NAME)],
    "route": [("HTTPRoute", NAME)],
    "network policy": [("NetworkPolicy", NAME), ("NetworkPolicy", ENGINE)],
    "migration": [("Job", f"{NAME}-migration")],
    "ledger URL": [("Secret", f"{NAME}-ledger")],
    "extra objects": [("ConfigMap", "prod-a"), ("ConfigMap", "prod-b")],
    "monitoring": [
        ("ServiceMonitor", NAME),
        ("PodMonitor", ENGINE),
        ("PrometheusRule", NAME),
        ("ConfigMap", f"{NAME}-cost-dashboard"),
        ("ConfigMap", f"{NAME}-serving-dashboard"),
        ("ConfigMap", f"{NAME}-thinking-dashboard"),
    ],
}
DEFAULT_OBJECTS = [
    ("Deployment", NAME),
    ("Deployment", ENGINE),
    ("Service", NAME),
    ("Service", f"{NAME}-metrics"),
    ("Service", ENGINE),
    ("ConfigMap", NAME),
    ("Secret", ENGINE),
    ("ServiceAccount", NAME),
    ("PodDisruptionBudget", NAME),
    ("PodDisruptionBudget", ENGINE),
]


def _names(objects: list[Object]) -> set[tuple[str, str]]:
    return {(item["kind"], item["metadata"]["name"]) for item in objects}


def test_the_objects_of_an_install() -> None:
    assert _names(render(BASE)) == {*DEFAULT_OBJECTS}


@pytest.mark.parametrize("case", OBJECTS_OF_CASES)
def test_a_feature_adds_its_objects_only(case: str) -> None:
    added = OBJECTS_OF_CASES[case]

    assert _names(render(CASES[case])) == {*DEFAULT_OBJECTS, *added}


def test_disruption_budgets_can_be_left_out() -> None:
    assert not has(render(CASES["no disruption budgets"]), "PodDisruptionBudget")
    assert not has(render(CASES["no disruption budgets"]), "PodDisruptionBudget", ENGINE)


def test_replicas_elsewhere_leave_no_object_of_the_engine() -> None:
    objects = render(CASES["replicas elsewhere"])

    assert not [name for _, name in _names(objects) if name == ENGINE]
    (variable,) = (
        item
        for item in container_of(find(objects, "Deployment"))["env"]
        if item["name"] == "PROCTOR_ENGINE__API_KEY"
    )
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "replicas", "key": "api-key"}


@pytest.mark.parametrize(
    ("engine", "gpus"),
    [
        ({}, 1),
        ({"tensorParallelSize": 4}, 4),
        ({"tensorParallelSize": 8, "pipelineParallelSize": 2}, 16),
        ({"tensorParallelSize": 4, "gpu": {"count": 2}}, 2),
        ({"gpu": {"count": 0}}, None),
    ],
)
def test_a_replica_has_the_gpus_of_its_parallelism(engine: Values, gpus: int | None) -> None:
    deployment = find(render({**BASE, "engine": engine}), "Deployment", ENGINE)

    resources = container_of(deployment)["resources"]
    assert resources["limits"].get("nvidia.com/gpu") == gpus
    assert resources["requests"].get("nvidia.com/gpu") == gpus
    assert resources["requests"]["memory"] == "32Gi"


def test_gpus_of_another_vendor() -> None:
    values = {**BASE, "engine": {"gpu": {"resource": "amd.com/gpu"}}}

    limits = container_of(find(render(values), "Deployment", ENGINE))["resources"]["limits"]

    assert limits == {"amd.com/gpu": 1, "memory": "64Gi"}


@pytest.mark.parametrize(
    ("case", "source"),
    [
        ("defaults", {"emptyDir": {"sizeLimit": "100Gi"}}),
        ("claim", {"persistentVolumeClaim": {"claimName": f"{NAME}-weights"}}),
        ("existing claim", {"persistentVolumeClaim": {"claimName": "weights"}}),
    ],
)
def test_where_weights_are_kept(case: str, source: Object) -> None:
    pod = find(render(CASES[case]), "Deployment", ENGINE)["spec"]["template"]["spec"]

    assert {"name": "weights", **source} in pod["volumes"]


def test_engines_scale_by_what_gateways_have_promised_and_by_waiting_requests() -> None:
    scaler = find(render(CASES["engine autoscaling"]), "ScaledObject", ENGINE)

    series = f'{{namespace="models",service="{NAME}-metrics"}}'
    queries = {
        trigger["metadata"]["query"]: trigger["metadata"]["threshold"]
        for trigger in scaler["spec"]["triggers"]
    }
    assert queries == {
        f"sum(proctor_outstanding_tokens{series})": "100000",
        f"sum(proctor_waiting{series})": "4",
    }


def test_gateways_scale_by_their_cpu_and_by_further_metrics() -> None:
    scaler = find(render(CASES["gateway autoscaling"]), "HorizontalPodAutoscaler")

    assert [metric["type"] for metric in scaler["spec"]["metrics"]] == ["Resource", "Pods"]
    requests = container_of(find(render(BASE), "Deployment"))["resources"]["requests"]
    assert "cpu" in requests  # utilization is relative to it


def test_only_gateways_and_prometheus_reach_replicas() -> None:
    objects = render(CASES["network policy with peers"])
    (rule,) = find(objects, "NetworkPolicy", ENGINE)["spec"]["ingress"]

    gateways = find(objects, "Deployment")["spec"]["selector"]
    assert rule["from"] == [{"podSelector": gateways}, PEER]
    requests, metrics = find(objects, "NetworkPolicy")["spec"]["ingress"]
    assert (requests["from"], metrics["from"]) == ([PEER], [PEER])


def test_without_peers_gateways_are_open_and_metrics_closed() -> None:
    rules = find(render(CASES["network policy"]), "NetworkPolicy")["spec"]["ingress"]

    assert rules == [{"ports": [{"port": "http"}]}]


def test_metrics_are_on_no_load_balancer() -> None:
    objects = render(CASES["load balancer"])

    (port,) = find(objects, "Service")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (443, "http")
    assert find(objects, "Service", f"{NAME}-metrics")["spec"]["clusterIP"] == "None"


def test_pods_restart_when_settings_change() -> None:
    def checksum(values: Values) -> str:
        template = find(render(values), "Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/settings"])

    assert checksum(BASE) == checksum(CASES["scheduling"])
    assert checksum(BASE) != checksum(CASES["short requests"])


def test_the_key_of_the_replicas_is_random() -> None:
    first = find(render(BASE), "Secret", ENGINE)["data"]
    second = find(render(CASES["ingress"]), "Secret", ENGINE)["data"]

    assert first.keys() == second.keys() == {"api-key", "cache-salt"}
    values = [*first.values(), *second.values()]
    assert len({*values}) == 4
    assert all(len(value) >= 40 for value in values)
