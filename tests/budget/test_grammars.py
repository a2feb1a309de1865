"""Grammars in vLLM's own manager, with ours in the place of its method."""

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("vllm", reason="the CPU engine is not installed")

import torch
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar

from budget.processors import grammars
from budget.processors.wire import SLOW
from demo.train import MODEL

# vLLM gives XGrammar an argument that it has no more use for.
pytestmark = pytest.mark.filterwarnings("ignore:max_rollback_tokens:DeprecationWarning")


@pytest.fixture(scope="module")
def manager() -> Iterator[StructuredOutputManager]:
    grammars.install()
    config = AsyncEngineArgs(model=str(MODEL), enable_chunked_prefill=False).create_engine_config()
    manager = StructuredOutputManager(config)
    yield manager
    manager.clear_backend()


def request(backend: str | None, *, slow: bool = False, **form: Any) -> Request:
    structured = StructuredOutputsParams(**form)
    structured._backend = backend
    params = SamplingParams(structured_outputs=structured, extra_args={SLOW: slow})
    return Request("one", [1, 2], params, None)


def compiled(manager: StructuredOutputManager, asked: Request) -> Any:
    manager.grammar_init(asked)
    structured = asked.structured_output_request
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


def test_a_grammar_of_nobody_is_not_compiled(manager: StructuredOutputManager) -> None:
    asked = request("xgrammar", regex="[ab]")
    asked.status = RequestStatus.FINISHED_ABORTED

    with pytest.raises(ValueError, match="nobody waits"):
        compiled(manager, asked)


class Slow(StructuredOutputGrammar):
    """Takes as much CPU time as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.takes = 0.0
        self.clock = 0.0
        monkeypatch.setattr(grammars.time, "thread_time", lambda: self.clock)

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        self.clock += self.takes
        return True

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        return tokens

    def rollback(self, num_tokens: int) -> None:
        pass

    def fill_bitmask(self, bitmask: torch.Tensor, batch_index: int) -> None:
        self.clock += self.takes

    def is_terminated(self) -> bool:
        return False

    def reset(self) -> None:
        pass


@pytest.mark.parametrize(("takes", "steps"), [(0.3, 0), (0.1, 1), (0.03, 12), (0.019, 1000)])
def test_a_grammar_that_holds_up_steps_is_given_up(
    monkeypatch: pytest.MonkeyPatch, takes: float, steps: int
) -> None:
    slow = Slow(monkeypatch)
    grammar = grammars.TimedGrammar(slow)
    slow.takes = takes
    bitmask = torch.zeros((1, 1), dtype=torch.int32)
    followed = 0
    while followed < 1000:
        grammar.fill_bitmask(bitmask, 0)
        if not grammar.accept_tokens("one", [1]):
            break
        followed += 1

    assert followed == steps
    assert grammar.is_given_up == (steps < 1000)
