"""The garbage collector is off only while large libraries are imported."""

import gc
import os
import pickle
from collections.abc import Iterator

import pytest

from proctor.server.engines.garbage import no_garbage_collection


@pytest.fixture(autouse=True)
def keep_collector() -> Iterator[None]:
    yield
    gc.enable()


def test_it_is_off_in_the_body_and_on_again_after_an_error() -> None:
    def fail_to_import() -> None:
        with no_garbage_collection():
            assert not gc.isenabled()
            raise ImportError

    with pytest.raises(ImportError):
        fail_to_import()
    assert gc.isenabled()


def test_it_stays_off_if_it_was() -> None:
    gc.disable()
    with no_garbage_collection():
        pass
    assert not gc.isenabled()


def test_vllm_starts_its_engine_core_by_our_function(monkeypatch: pytest.MonkeyPatch) -> None:
    core = pytest.importorskip("vllm.v1.engine.core", reason="the CPU engine is not installed")
    from proctor.server.engines.vllm.core_process import run_engine_core, starting_engine_core

    original = core.EngineCoreProc.run_engine_core
    with starting_engine_core(None):
        monkeypatch.setenv("SET_BY_VLLM", "1")  # as it does just before a process starts
        target = pickle.loads(pickle.dumps(core.EngineCoreProc.run_engine_core))
    assert target.func is run_engine_core
    assert target.keywords == {"environment": dict(os.environ), "cpus": []}
    assert core.EngineCoreProc.run_engine_core is original
    assert gc.isenabled()
