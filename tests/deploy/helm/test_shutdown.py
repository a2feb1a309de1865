"""How long pods may take to end, and which paths probes ask."""

import asyncio
import math
import sys
from collections.abc import Iterator
from itertools import repeat

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from vllm.entrypoints.serve.instrumentator.health import router

from proctor.server.config.settings import Settings
from proctor.server.engines.fake import FakeEngine
from tests.deploy.helm.cases import BASE, CASES, Values
from tests.deploy.helm.chart import NAME, Object, container_of, find, render
from tests.deploy.helm.test_settings import load
from tests.server.harness import running_server, serve_app

ENGINE = f"{NAME}-engine"
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
LIMITS = [{}, {"max_request_seconds": 90.5}, {"max_request_seconds": 4_000_000}]


def _pre_stop(deployment: Object) -> list[str]:
    command = container_of(deployment)["lifecycle"]["preStop"]["exec"]["command"]
    return [str(argument) for argument in command]


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
    program, seconds = _pre_stop(gateway)
    assert program == "sleep"
    assert _grace_seconds(gateway) >= int(seconds) + loaded.limits.shutdown_grace_seconds + 10
    *_, wait, limit = _pre_stop(engine)
    assert int(limit) >= longest
    assert _grace_seconds(engine) >= int(wait) + int(limit) + 30
    assert int(_flag(engine, "shutdown-timeout")) >= longest


async def _drain(hook: list[str], counts: Iterator[tuple[int, int]]) -> int:
    """Run the hook beside metrics with these numbers of running and waiting requests."""
    name = 'num_requests_{}{{engine="{}",model_name="m"}} {}.0'

    async def metrics(_: Request) -> PlainTextResponse:
        running, waiting = next(counts)
        lines = [name.format("running", 0, running), name.format("running", 1, 0)]
        lines += [name.format("waiting", 0, waiting), "prompt_tokens_total 9.0"]
        return PlainTextResponse("".join(f"vllm:{line}\n" for line in lines))

    async with serve_app(Starlette(routes=[Route("/metrics", metrics)])) as url:
        local = [part.replace("http://127.0.0.1:8000", url) for part in hook]
        process = await asyncio.create_subprocess_exec(sys.executable, *local[1:])
        return await process.wait()


async def test_replicas_wait_for_their_requests_before_they_end() -> None:
    program, *arguments, _, limit = _pre_stop(find(render(BASE), "Deployment", ENGINE))
    counts = iter([(2, 0), (0, 1), (0, 0), (7, 7)])

    assert program == "python3"
    assert await _drain([program, *arguments, "0", limit], counts) == 0
    assert next(counts) == (7, 7)  # it stopped at the first that had none


async def test_replicas_do_not_wait_for_ever() -> None:
    program, *arguments, _, _ = _pre_stop(find(render(BASE), "Deployment", ENGINE))

    assert await _drain([program, *arguments, "0", "0.5"], repeat((1, 0))) == 0


async def test_a_replica_that_has_died_is_not_waited_for() -> None:
    _, *arguments, _, limit = _pre_stop(find(render(BASE), "Deployment", ENGINE))
    closed = [part.replace("127.0.0.1:8000", "127.0.0.1:1") for part in arguments]

    process = await asyncio.create_subprocess_exec(sys.executable, *closed, "0", limit)
    assert await process.wait() == 0


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

    paths = {route.path for route in router.routes if isinstance(route, Route)}
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
