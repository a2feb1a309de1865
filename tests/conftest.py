"""Settings that all tests share."""

import inspect
import os

import httpx
import pytest
from hypothesis import settings

from tests.waiting import PATIENCE

pytest_plugins = ["tests.engine.gateway", "tests.server.accounting.ledger.postgres"]

# The first example includes imports and lazy set-up, so a deadline per example is misleading.
settings.register_profile("proctor", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=10)
settings.load_profile("proctor")

# The default timeout of httpx, 5 s, is too short on a busy machine.
for function in (
    httpx.AsyncClient.__init__,
    httpx.Client.__init__,
    httpx.get,
    httpx.post,
    httpx.stream,
):
    inspect.unwrap(function).__kwdefaults__["timeout"] = PATIENCE


def bind_engines() -> None:
    """Bind the engines of each test process to cores of their own.

    vLLM would bind all of them to the same core of two.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if worker:
        cores = sorted(os.sched_getaffinity(0))
        mine = cores[int(worker) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])] or cores
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, mine)))


bind_engines()

# By default, commands would write a ledger to the user's home directory.
os.environ["PROCTOR_LEDGER__URL"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the real engine, and run them first, those on busy cores before all.

    They take longest: were they last, one of two test processes would wait for the other's. Busy
    cores delay the tests of clients, which run beside them then, less than those of restarts.
    """
    for item in items:
        if "vllm_gateway" in getattr(item, "fixturenames", ()):
            item.add_marker("engine")
    for marker in ("engine", "busy"):
        items.sort(key=lambda item: item.get_closest_marker(marker) is None)
