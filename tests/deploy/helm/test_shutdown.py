"""How long pods may take to end, and which paths probes ask."""

import math

import httpx
import pytest
from vllm.entrypoints.serve.instrumentator.health import router

from proctor.server.config.settings import Settings
from proctor.server.engines.fake import FakeEngine
from tests.deploy.helm.cases import BASE, CASES, Values
from tests.deploy.helm.chart import NAME, Object, container_of, find, render
from tests.deploy.helm.test_settings import load
from tests.server.harness import running_server

ENGINE = f"{NAME}-engine"
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
LIMITS = [{}, {"max_request_seconds": 90.5}, {"max_request_seconds": 4_000_000}]


def _pre_stop_seconds(deployment: Object) -> int:
    program, seconds = container_of(deployment)["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    return int(seconds)


def _grace_seconds(deployment: Object) -> int:
    return int(deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])


def _flag(deployment: Object, name: str) -> str:
    (value,) = (
        argument.partition("=")[2]
        for argument in container_of(deployment)["args"]
        if argument.startswith(f"--{name}=")
    )
    return str(value)


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_pods_end_later_than_the_longest_request(
    limits: Values, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {**BASE, "gateway": {"settings": {"limits": limits}}}
    loaded: Settings = load(values, tmp_path, monkeypatch)  # type: ignore[arg-type]
    gateway = find(render(values), "Deployment")
    engine = find(render(values), "Deployment", ENGINE)
    longest = loaded.limits.max_request_seconds

    assert loaded.limits.shutdown_grace_seconds >= longest
    drained = _pre_stop_seconds(gateway) + loaded.limits.shutdown_grace_seconds
    assert _grace_seconds(gateway) >= drained + 10
    drain = int(_flag(engine, "shutdown-timeout"))
    assert drain >= longest
    assert _grace_seconds(engine) >= _pre_stop_seconds(engine) + drain + 30


def test_the_grace_period_of_gateways_can_be_shorter() -> None:
    settings = {"limits": {"shutdown_grace_seconds": 60}}
    gateway = find(render({**BASE, "gateway": {"settings": settings}}), "Deployment")

    assert _grace_seconds(gateway) == 10 + 60 + 15


async def test_gateways_answer_their_probes() -> None:
    container = container_of(find(render(BASE), "Deployment"))
    paths = {probe: container[probe]["httpGet"]["path"] for probe in PROBES}
    engine = FakeEngine()

    async with running_server(engine) as url, httpx.AsyncClient(base_url=url) as client:
        statuses = {path: (await client.get(path)).status_code for path in paths.values()}
        assert statuses == {"/health": 200, "/ready": 200}
        await engine.aclose()
        assert (await client.get(paths["livenessProbe"])).status_code == 200
        assert (await client.get(paths["startupProbe"])).status_code == 200
        assert (await client.get(paths["readinessProbe"])).status_code == 503


def test_replicas_have_the_path_of_their_probes() -> None:
    container = container_of(find(render(BASE), "Deployment", ENGINE))

    paths = {route.path for route in router.routes}
    assert {container[probe]["httpGet"]["path"] for probe in PROBES} <= paths


@pytest.mark.parametrize(("name", "workload"), [(NAME, "gateway"), (ENGINE, "engine")])
def test_pods_have_time_to_start(name: str, workload: str) -> None:
    values = {**BASE, workload: {"startupSeconds": 4000}}
    probe = container_of(find(render(values), "Deployment", name))["startupProbe"]

    assert probe["failureThreshold"] * probe["periodSeconds"] == pytest.approx(4000)


def test_rollouts_wait_for_weights() -> None:
    spec = find(render({**BASE, "engine": {"startupSeconds": 4000}}), "Deployment", ENGINE)["spec"]

    assert spec["progressDeadlineSeconds"] > 4000


def test_routes_allow_the_longest_request() -> None:
    values = {**CASES["route"], "gateway": {"settings": {"limits": {"max_request_seconds": 90.5}}}}
    (rule,) = find(render(values), "HTTPRoute")["spec"]["rules"]

    assert rule["timeouts"]["request"] == f"{math.ceil(90.5)}s"
