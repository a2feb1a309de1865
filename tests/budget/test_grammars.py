"""`grammars.install`: vLLM's StructuredOutputManager with Proctor's grammar initialization."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("vllm", reason="the CPU engine is not installed")

import torch
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager, backend_guidance
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar

from proctor.budget.processors.params import SLOW
from proctor.budget.processors.structured_outputs import grammars
from proctor.budget.processors.structured_outputs.mask_threads import MaskThreads
from proctor.demo.train import MODEL
from tests.waiting import PATIENCE

# vLLM passes XGrammar a deprecated argument.
pytestmark = pytest.mark.filterwarnings("ignore:max_rollback_tokens:DeprecationWarning")


@pytest.fixture(scope="module")
def manager() -> Iterator[StructuredOutputManager]:
    grammars.install()
    config = AsyncEngineArgs(model=str(MODEL), enable_chunked_prefill=False).create_engine_config()
    manager = StructuredOutputManager(config)
    yield manager
    manager.clear_backend()


def request(backend: str | None, *, slow: bool = False, **constraint: Any) -> Request:
    structured = StructuredOutputsParams(**constraint)
    structured._backend = backend
    params = SamplingParams(structured_outputs=structured, extra_args={SLOW: slow})
    return Request("one", [1, 2], params, None)


def compiled(manager: StructuredOutputManager, compiling: Request) -> Any:
    manager.grammar_init(compiling)
    structured = compiling.structured_output_request
    assert structured is not None
    grammar = structured._grammar
    assert grammar is not None
    return grammar.result()  # type: ignore[union-attr]


def allows(manager: StructuredOutputManager, grammar: Any, text: str) -> bool:
    tokens = manager.tokenizer.encode(text, add_special_tokens=False)
    return bool(grammar.accept_tokens("one", tokens))


@pytest.mark.parametrize("slow", [False, True])
def test_each_request_has_its_own_backend(manager: StructuredOutputManager, slow: bool) -> None:
    sevens = {"type": "integer", "multipleOf": 7}
    for _ in range(2):
        one = compiled(manager, request("guidance", json=sevens, slow=slow))
        other = compiled(manager, request("xgrammar", json={"enum": ["x"]}, slow=slow))
        assert allows(manager, one, "21")
        assert allows(manager, other, '"x"')
    assert not allows(manager, compiled(manager, request("guidance", json=sevens)), "22\n")


def test_fill_bitmask_writes_only_its_own_row(manager: StructuredOutputManager) -> None:
    grammar = compiled(manager, request("xgrammar", json={"enum": ["x", "y"]}))
    assert manager.backend is not None
    bitmask = torch.full_like(manager.backend.allocate_token_bitmask(3), 7)
    grammar.fill_bitmask(bitmask, 1)

    assert bitmask[0].tolist() == bitmask[2].tolist() == [7] * bitmask.shape[1]
    allowed = [
        token
        for token in range(manager.backend.vocab_size)
        if int(bitmask[1, token // 32]) >> (token % 32) & 1
    ]
    assert allowed
    texts = [manager.tokenizer.decode([token]) for token in allowed]
    assert all(text[0] == '"' for text in texts)


def test_a_failed_llguidance_grammar_does_not_accept_eos(
    manager: StructuredOutputManager,
) -> None:
    """llguidance itself would allow the end of the answer at any point."""
    grammar = compiled(manager, request("guidance", regex="(a?){3000}a{3000}"))
    assert manager.backend is not None
    bitmask = manager.backend.allocate_token_bitmask(1)
    (letter,) = manager.tokenizer.encode("a", add_special_tokens=False)
    accepted = 0
    while grammar.accept_tokens("one", [letter]) and accepted < 3000:
        grammar.fill_bitmask(bitmask, 0)
        accepted += 1

    assert "too many expressions" in grammar.error
    assert not grammar.accept_tokens("one", [manager.tokenizer.eos_token_id])


def test_grammars_compiled_concurrently_are_not_mixed_up(
    manager: StructuredOutputManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM stores the grammar being compiled in the backend, which all threads share."""
    both = threading.Barrier(2, timeout=PATIENCE)
    serialize = backend_guidance.serialize_guidance_grammar

    def serialize_together(*args: Any) -> str:
        serialized = serialize(*args)
        both.wait()
        return serialized

    monkeypatch.setattr(backend_guidance, "serialize_guidance_grammar", serialize_together)
    compiling = [request("guidance", regex=text) for text in ("21", "43")]
    for each in compiling:
        manager.grammar_init(each)

    for each, text in zip(compiling, ("21", "43"), strict=True):
        structured: Any = each.structured_output_request
        assert allows(manager, structured._grammar.result(PATIENCE), text)


def test_a_grammar_of_a_finished_request_is_not_compiled(manager: StructuredOutputManager) -> None:
    compiling = request("xgrammar", regex="[ab]")
    compiling.status = RequestStatus.FINISHED_ABORTED

    with pytest.raises(ValueError, match="finished"):
        compiled(manager, compiling)


class SlowGrammar(StructuredOutputGrammar):
    """A grammar whose calls take `cpu_seconds` of simulated CPU time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cpu_seconds = 0.0
        self.clock = 0.0
        monkeypatch.setattr(time, "thread_time", lambda: self.clock)

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        self.clock += self.cpu_seconds
        return True

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        return tokens

    def rollback(self, num_tokens: int) -> None:
        pass

    def fill_bitmask(self, bitmask: torch.Tensor, batch_index: int) -> None:
        self.clock += self.cpu_seconds

    def is_terminated(self) -> bool:
        return False

    def reset(self) -> None:
        pass


@pytest.mark.parametrize(("cpu_seconds", "steps"), [(0.3, 0), (0.1, 1), (0.02, 12), (0.009, 1000)])
def test_a_grammar_that_uses_too_much_cpu_time_is_given_up(
    monkeypatch: pytest.MonkeyPatch, cpu_seconds: float, steps: int
) -> None:
    slow = SlowGrammar(monkeypatch)
    grammar = grammars.TimedGrammar(slow)
    slow.cpu_seconds = cpu_seconds
    bitmask = torch.zeros((1, 1), dtype=torch.int32)
    accepted = 0
    while accepted < 1000:
        grammar.fill_bitmask(bitmask, 0)
        if not grammar.accept_tokens("one", [1]):
            break
        accepted += 1

    assert accepted == steps
    assert grammar.is_given_up == (steps < 1000)


class EndlessGrammar(SlowGrammar):
    """A grammar that computes in one of its calls until `stop` is set."""

    def __init__(self, call: str) -> None:
        self.call = call
        self.calls: list[str] = []
        self.stop = threading.Event()

    def _record(self, name: str) -> None:
        self.calls.append(name)
        while name == self.call and not self.stop.is_set():
            pass

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        self._record("accept")
        return True

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        self._record("validate")
        return tokens

    def rollback(self, num_tokens: int) -> None:
        self._record("rollback")

    def fill_bitmask(self, bitmask: torch.Tensor, batch_index: int) -> None:
        self._record("fill")
        bitmask[batch_index].fill_(0)

    def reset(self) -> None:
        self._record("reset")


STEP: dict[str, Callable[[grammars.TimedGrammar, torch.Tensor], Any]] = {
    "fill": lambda grammar, bitmask: grammar.fill_bitmask(bitmask, 1),
    "accept": lambda grammar, _: grammar.accept_tokens("one", [1]),
    "validate": lambda grammar, _: grammar.validate_tokens([1]),
    "rollback": lambda grammar, _: grammar.rollback(1),
    "reset": lambda grammar, _: grammar.reset(),
}


@pytest.mark.parametrize("call", STEP)
def test_a_call_that_takes_too_long_is_abandoned(call: str) -> None:
    endless = EndlessGrammar(call)
    grammar = grammars.TimedGrammar(endless, MaskThreads(), torch.zeros((1, 2), dtype=torch.int32))
    bitmask = torch.zeros((3, 2), dtype=torch.int32)
    try:
        assert not STEP[call](grammar, bitmask)
        assert grammar.is_given_up
        called = [*endless.calls]
        for step in STEP.values():
            assert not step(grammar, bitmask)  # the grammar may still be in use by its thread
        assert endless.calls == called
    finally:
        endless.stop.set()

    # The request ends with this step; until then all tokens are allowed.
    assert bitmask.tolist() == [[0, 0], [-1, -1], [0, 0]]
