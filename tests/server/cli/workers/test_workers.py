"""`proctor serve --workers`, with real processes over a fake engine."""

import json
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.server.harness import CHAT, body, listening_socket, parse_events
from tests.server.serve_process import serve_process, wait_until_ready
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow

LONG = 300
"""The `max_tokens` of requests that last until something happens."""

ENGINE = f"""FakeEngine(
    lambda job: Script(("x" * (10**4 if job.sampling.max_tokens == {LONG} else 5),), "42"),
    before_token=lambda job, at: asyncio.sleep(
        {PATIENCE} if job.sampling.max_tokens == {LONG} and at == 3 else 0
    ),
)"""
WAITING = """FakeEngine(before_token=lambda job, at: asyncio.sleep(0.05))"""
LOADS_WITHOUT_FILE = """(
    [*iter(lambda: not os.path.exists({file!r}) or time.sleep(0.01), True)], FakeEngine()
)[1]"""
"""An engine that does not load while a file exists."""


@pytest.fixture(autouse=True)
def _temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the metrics in the folder of the test, as killed supervisors leave them."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@contextmanager
def serving(
    folder: Path, engine: str = ENGINE, port: int = 0, **settings: object
) -> Iterator["subprocess.Popen[str]"]:
    """Run two workers, without waiting until they are ready."""
    known: Mapping[str, object] = {
        "WORKERS": 2,
        "ENGINE": json.dumps({"kind": "completions", "base_url": "http://elsewhere/v1"}),
        "LEDGER__URL": f"sqlite:///{folder}/ledger.db",
        "DEFAULT_TIER": "custom",
        **settings,
    }
    with serve_process(engine, known, port) as process:
        yield process


@contextmanager
def one_client_per_worker(url: str) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Yield a client of each worker: a new connection goes to the worker with the fewest."""
    with (
        httpx.Client(base_url=url, timeout=PATIENCE) as one,
        httpx.Client(base_url=url, timeout=PATIENCE) as other,
    ):
        for each in (one, other):
            assert each.get("/health").status_code == 200
        yield one, other


def workers_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Return the processes of the workers."""
    return [
        child
        for child in psutil.Process(process.pid).children()
        if "workers.worker.main()" in " ".join(child.cmdline())
    ]


def server_of(response: httpx.Response, process: "subprocess.Popen[str]") -> psutil.Process:
    """Return the worker at the other end of a response's connection."""
    client = response.extensions["network_stream"].get_extra_info("client_addr")
    (found,) = [
        worker
        for worker in workers_of(process)
        if any(each.raddr and each.raddr.port == client[1] for each in worker.net_connections())
    ]
    return found


def families(http: httpx.Client) -> list[Metric]:
    return [
        family
        for family in text_string_to_metric_families(http.get("/metrics").text)
        if family.name.startswith("proctor_")
    ]


def counted(http: httpx.Client) -> dict[str, float]:
    """Return the samples of counters and histograms; gauges change by themselves."""
    return {
        f"{sample.name}{sample.labels}": sample.value
        for family in families(http)
        for sample in family.samples
        if family.type != "gauge"
    }


def total(http: httpx.Client, name: str) -> float:
    """Return the sum of the samples with this name."""
    return sum(
        sample.value
        for family in families(http)
        for sample in family.samples
        if sample.name == f"proctor_{name}"
    )


def until_requests(count: int, *clients: httpx.Client) -> None:
    """Wait until each client is told of so many requests: one counts after its last byte."""
    until(lambda: all(total(http, "requests_total") == count for http in clients))


def kill_one_worker(process: "subprocess.Popen[str]") -> str:
    """Kill a worker, wait until the supervisor has noticed, and return what it complains of."""
    assert process.stderr is not None
    workers_of(process)[0].kill()
    # The other worker may report first that it has taken over the requests.
    return next(line for line in process.stderr if "supervisor" in line)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def ask(http: httpx.Client, **fields: Any) -> None:
    assert http.post(CHAT, json=body(**fields)).status_code == 200


def test_metrics_add_up_also_after_a_worker_was_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        url = wait_until_ready(process)
        with one_client_per_worker(url) as (one, other):
            for http, count in ((one, 3), (other, 2)):
                for _ in range(count):
                    ask(http)
            until_requests(5, one, other)
            until(lambda: counted(one) == counted(other))  # rows are written, and counted, later
            with other.stream("POST", CHAT, json=body(max_tokens=LONG, stream=True)) as response:
                lines = response.iter_lines()
                next(lines)
                load = one.get("/load").json()["server_load"]
                server_of(response, process).kill()
                with pytest.raises(httpx.HTTPError):
                    list(lines)
            until(lambda: total(one, "engine_starts_total") == 3 and total(one, "engine_up") == 1)
            until(lambda: total(one, "in_flight") == 0)
        with one_client_per_worker(url) as (one, other):
            for http in (one, other):
                ask(http)
            until_requests(7, one, other)
            observed = total(one, "request_seconds_count")
            tokens = total(other, "thinking_tokens_sum")
            load_afterwards = one.get("/load").json()["server_load"]

    assert observed == 7
    assert tokens == 7 * 5
    assert (load, load_afterwards) == (1, 0)


def test_a_signal_to_all_processes_lets_running_streams_finish(tmp_path: Path) -> None:
    with serving(tmp_path, WAITING) as process:
        with one_client_per_worker(wait_until_ready(process)) as (one, other):
            workers = workers_of(process)
            request = body(stream=True)
            with (
                one.stream("POST", CHAT, json=request) as first,
                other.stream("POST", CHAT, json=request) as second,
            ):
                lines = [response.iter_lines() for response in (first, second)]
                for each in lines:
                    next(each)
                for each in (process, *workers):
                    each.send_signal(signal.SIGTERM)
                assert all("data: [DONE]" in list(each) for each in lines)
        _, complaints = process.communicate(timeout=PATIENCE)

    assert len(workers) == 2
    assert (process.returncode, complaints) == (0, "")


def test_a_second_signal_ends_the_requests_of_all_workers(tmp_path: Path) -> None:
    with serving(tmp_path, LIMITS__SHUTDOWN_GRACE_SECONDS=2 * PATIENCE) as process:
        url = wait_until_ready(process)
        with one_client_per_worker(url) as (one, other):
            request = body(stream=True, max_tokens=LONG)
            with (
                one.stream("POST", CHAT, json=request) as first,
                other.stream("POST", CHAT, json=request) as second,
            ):
                process.send_signal(signal.SIGTERM)
                until(lambda: not is_listening(url))
                process.send_signal(signal.SIGINT)
                ends = [parse_events(each.read().decode())[-1] for each in (first, second)]
        _, complaints = process.communicate(timeout=PATIENCE)

    assert all("shutting down" in end.data["error"]["message"] for end in ends)
    assert (process.returncode, complaints) == (0, "")
    assert rows(tmp_path, "SELECT status FROM requests") == [(503,), (503,)]
    assert rows(tmp_path, "SELECT id FROM gateways") == []


def test_when_the_supervisor_is_killed_its_workers_end(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        url = wait_until_ready(process)
        started = psutil.Process(process.pid).children(recursive=True)
        stopped = workers_of(process)[0]
        stopped.send_signal(signal.SIGSTOP)
        process.kill()
        for each in started:
            until(partial(is_gone, each))

    assert len(started) >= 2
    assert not is_listening(url)


def test_a_worker_serves_once_its_engine_is_ready(tmp_path: Path) -> None:
    file = tmp_path / "does not load"
    with serving(tmp_path, LOADS_WITHOUT_FILE.format(file=str(file))) as process:
        url = wait_until_ready(process)
        with httpx.Client(base_url=url, headers={"connection": "close"}) as http:
            file.touch()
            kill_one_worker(process)
            until(lambda: total(http, "engine_starts_total") == 3)
            statuses = [http.get("/ready").status_code for _ in range(6)]
            file.unlink()
            until(lambda: total(http, "engine_up") == 1)

    assert statuses == [200] * 6


def test_the_server_does_not_wait_for_a_worker_that_would_be_started_again(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        wait_until_ready(process)
        complaint = kill_one_worker(process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)

    assert "was killed by SIGKILL; it is started again in 1 s" in complaint
    assert process.returncode == 0


def test_what_workers_share_is_in_the_database(tmp_path: Path) -> None:
    with serving(tmp_path) as process, one_client_per_worker(wait_until_ready(process)) as clients:
        one, other = clients
        request = {"model": "fake", "input": "hi", "background": True}
        created = one.post("/v1/responses", json=request).json()
        path = f"/v1/responses/{created['id']}"
        until(lambda: other.get(path).json()["status"] == "completed")
        endless = one.post("/v1/responses", json={**request, "max_output_tokens": LONG}).json()
        cancelled = other.post(f"/v1/responses/{endless['id']}/cancel").json()
        headers = {"idempotency-key": "k"}
        answers = [http.post(CHAT, json=body(), headers=headers) for http in clients]
        gateways = rows(tmp_path, "SELECT id FROM gateways")

    assert cancelled["status"] == "cancelled"
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert len(gateways) == 2


def test_limits_hold_for_all_workers_together(tmp_path: Path) -> None:
    limits: dict[str, Any] = {
        "LIMITS__MAX_CHOICES": 1,
        "LIMITS__MAX_RUNNING": 2,
        "LIMITS__MAX_WAITING": 0,
    }
    with (
        serving(tmp_path, LIMITS__SHUTDOWN_GRACE_SECONDS=0, **limits) as process,
        one_client_per_worker(wait_until_ready(process)) as (one, other),
    ):
        request = body(stream=True, max_tokens=LONG)
        with (
            one.stream("POST", CHAT, json=request) as first,
            other.stream("POST", CHAT, json=request) as second,
        ):
            refused = [httpx.post(f"{one.base_url}{CHAT}", json=body()) for _ in range(4)]
        statuses = [response.status_code for response in (first, second)]

    assert statuses == [200, 200]
    assert [response.status_code for response in refused] == [429] * 4


def test_the_separate_port_has_the_metrics_of_all_workers(tmp_path: Path) -> None:
    with listening_socket() as bound:
        port = bound.getsockname()[1]
    with serving(tmp_path, AUTH__ADMIN_PORT=port) as process:
        with one_client_per_worker(wait_until_ready(process)) as clients:
            for http in clients:
                ask(http)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as admin:
            until_requests(2, admin)


def test_a_model_that_fails_to_load_is_reported_once(tmp_path: Path) -> None:
    broken = "(_ for _ in ()).throw(ValueError('no such weights'))"
    with serving(tmp_path, broken) as process:
        _, complaints = process.communicate(timeout=PATIENCE)

    assert process.returncode == 1
    assert complaints.count("the model failed to load: no such weights") == 1
    assert complaints.count("proctor: fake failed to load") == 1


def test_a_port_in_use_is_reported_once(tmp_path: Path) -> None:
    with (
        listening_socket() as bound,
        serving(tmp_path, port=bound.getsockname()[1]) as process,
    ):
        _, complaints = process.communicate(timeout=PATIENCE)

    assert process.returncode == 2
    assert complaints.startswith("proctor: port: ")
    assert "is in use by another process" in complaints
    assert complaints.count("\n") == 1


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(folder / "ledger.db") as database:
        return database.execute(query).fetchall()


def is_listening(url: str) -> bool:
    where = urlsplit(url)
    with socket.socket() as connection:
        return not connection.connect_ex((where.hostname, where.port))
