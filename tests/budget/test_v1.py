"""The V1 processor in a batch whose rows come, go, move, swap and are preempted."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import MoveDirectionality
from vllm.v1.sample.logits_processor.state import BatchUpdateBuilder

from proctor.budget import (
    EMPTY_RECORD,
    UNKNOWN_VOCABULARY,
    BudgetError,
    EndReason,
    EngineRecord,
    Markers,
    Move,
    TokenBudget,
    Vocabulary,
    replay,
)
from proctor.budget.processors import v1
from proctor.budget.processors.params import KEY, EngineBudget, read, with_markers
from proctor.budget.processors.v1 import BudgetLogitsProcessor
from tests.budget.requests import LENGTH, Request, assert_obeys
from tests.budget.strategies import EOS, VOCABULARY, budgets, markers_and_vocabularies, moves

ROWS = 4
PROMPT = [4, 2, 4]


def config(markers: Markers) -> SimpleNamespace:
    return SimpleNamespace(
        scheduler_config=SimpleNamespace(max_num_seqs=ROWS),
        model_config=SimpleNamespace(max_model_len=LENGTH, get_vocab_size=lambda: VOCABULARY),
        additional_config=with_markers({}, markers),
    )


@pytest.fixture(autouse=True, scope="module")
def small_tables() -> Iterator[None]:
    """Every batch outgrows its machines and slots, which return when it is empty."""
    with patch.object(v1, "MIN_SLOTS", 1), patch.object(v1, "MAX_MACHINES", 2):
        yield


class Batch:
    """The part of vLLM's persistent batch that processors see; the last row fills removed ones."""

    def __init__(self, markers: Markers, vocabulary: Vocabulary = UNKNOWN_VOCABULARY) -> None:
        with patch.object(v1, "vocabulary_of", return_value=vocabulary):
            self.processor = BudgetLogitsProcessor(config(markers), torch.device("cpu"), False)  # type: ignore[arg-type]
        self.rows: list[Any] = []  # requests, and None where one was removed
        self._builder = BatchUpdateBuilder()
        self._gone: list[int] = []

    def remove(self, request: Request) -> None:
        row = self.rows.index(request)
        self._builder.removed_append(row)
        self.rows[row] = None

    def add(self, request: Request) -> None:
        row = self._builder.pop_removed()
        if row is None:
            row = len(self.rows)
            self.rows.append(request)
        else:
            self.rows[row] = request
        prompt = [*PROMPT, *request.resumed]
        self._builder.added.append((row, request.params, prompt, request.output))

    def condense(self) -> None:
        while None in self.rows:
            if self.rows[-1] is None:
                self.rows.pop()
                continue
            empty, last = self._builder.pop_removed(), len(self.rows) - 1
            assert empty is not None
            self._builder.moved.append((last, empty, MoveDirectionality.UNIDIRECTIONAL))
            self.rows[empty] = self.rows.pop()

    def swap(self, first: int, second: int) -> None:
        self._builder.moved.append((first, second, MoveDirectionality.SWAP))
        self.rows[first], self.rows[second] = self.rows[second], self.rows[first]

    def record(self, request: Request) -> EngineRecord:
        """Return the record of a request, of an earlier engine if this one has not run it."""
        record = self.processor.take_record(request.key)
        return request.record if record == EMPTY_RECORD else record

    def step(self, logits: torch.Tensor) -> None:
        self.processor.update_state(self._builder.get_and_reset(len(self.rows)))
        shaped = self.processor.apply(logits)
        for request, row in zip(self.rows, shaped, strict=True):
            request.output.append(int(row.argmax()))


@given(st.data())
def test_every_row_obeys_its_own_budget(data: st.DataObject) -> None:
    markers, vocabulary = data.draw(markers_and_vocabularies())
    batch = Batch(markers, vocabulary)
    requests: list[Request] = []
    waiting: list[Request] = []
    preferred: dict[str, list[int]] = {}
    for _ in range(data.draw(st.integers(1, 25))):
        for request in list(batch.rows):
            if request.over:
                batch.remove(request)
            elif data.draw(st.integers(0, 9)) == 0:  # preempted, to be resumed later
                batch.remove(request)
                if data.draw(st.booleans()):  # by another engine
                    request.change_engine(batch.processor.take_record(request.key))
                waiting.append(request)
        while sum(row is not None for row in batch.rows) < ROWS and data.draw(st.booleans()):
            if len(waiting) > 0 and data.draw(st.booleans()):
                batch.add(waiting.pop(0))
                continue
            budget = data.draw(st.none() | budgets())
            name = f"r{len(requests)}"
            requests.append(Request.greedy(name, budget))
            preferred[name] = []
            batch.add(requests[-1])
        batch.condense()
        if len(batch.rows) > 1 and data.draw(st.booleans()):
            batch.swap(0, len(batch.rows) - 1)
        logits = torch.zeros(len(batch.rows), VOCABULARY)
        for row, request in enumerate(batch.rows):
            token = data.draw(st.integers(0, VOCABULARY - 1))
            logits[row, token] = 1.0
            preferred[request.name].append(token)
        batch.step(logits)
        for request in batch.rows:
            if data.draw(st.integers(0, 9)) == 0:
                batch.processor.move_maximum(request.key, *data.draw(moves()))
    for request in requests:
        record = batch.record(request)
        if request.budget is None:
            assert request.tokens == preferred[request.name]
            assert record == EMPTY_RECORD
        else:
            assert_obeys(request, markers, vocabulary, record, preferred[request.name])


ONE = Markers(start=(6,), end=(7,), eos=frozenset({EOS}))
MINIMUM = TokenBudget(minimum=5, continuation_ids=((1,),))


def params_with(budget: TokenBudget, **params: float) -> SamplingParams:
    return SamplingParams(extra_args=EngineBudget("r", 7, budget).to_extra_args(), **params)  # type: ignore[arg-type]


def test_a_preempted_request_draws_the_same_again() -> None:
    logits = torch.randn(40, VOCABULARY, generator=torch.Generator().manual_seed(3))

    def run(preempted_at: int | None) -> list[int]:
        batch = Batch(ONE)
        request = Request("r", MINIMUM, params_with(MINIMUM, temperature=1.0))
        batch.add(request)
        for step in range(5):
            if step == preempted_at:
                batch.remove(request)
                batch.condense()
                batch.step(torch.zeros(0, VOCABULARY))
                batch.add(request)
            batch.step(logits[step : step + 1].clone())
        replay(MINIMUM, ONE, request.tokens, batch.processor.take_record("r").attempts)
        return request.tokens

    assert run(None) == run(2) == run(4)


def test_a_request_without_a_budget_is_unchanged() -> None:
    batch = Batch(ONE)
    batch.add(Request("plain", None, SamplingParams()))
    logits = torch.randn(1, VOCABULARY)
    assert batch.processor.apply(logits) is logits
    before = logits.clone()
    batch.step(logits)
    assert logits.equal(before)


def masked(*tokens: int) -> torch.Tensor:
    """Return the logits of a row whose grammar masks some tokens, and whose model prefers 1."""
    logits = torch.eye(VOCABULARY)[[1]]
    logits[0, list(tokens)] = -float("inf")
    return logits


def violate(batch: Batch, request: Request) -> None:
    """Add a request, and let a grammar mask the token that its budget of one token forces."""
    batch.add(request)
    batch.step(masked())
    batch.step(masked(7))


@pytest.mark.parametrize("preempted", [False, True])
def test_a_request_whose_forced_token_a_grammar_masks_goes_on_without_a_budget(
    preempted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    batch = Batch(ONE)
    violating, other = (Request.greedy(key, TokenBudget(maximum=1)) for key in ("bad", "other"))
    violate(batch, violating)
    if preempted:
        batch.remove(violating)
        batch.condense()
        batch.step(torch.zeros(0, VOCABULARY))
        batch.add(violating)
    batch.add(other)
    for _ in range(2):
        batch.step(masked().repeat(2, 1))

    assert "the output of request bad violates its budget" in caplog.text
    assert violating.tokens == [1, 1, 1, 1]
    assert other.tokens == [1, 7]


def test_unread_attempt_records_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(v1, "MAX_RECORDS", 2)
    batch = Batch(ONE)
    for number in range(4):
        request = Request.greedy(f"r{number}", MINIMUM)
        batch.add(request)
        logits = torch.zeros(1, VOCABULARY)
        logits[0, 7] = 1.0
        batch.step(logits)
        batch.remove(request)
        batch.condense()
        batch.step(torch.zeros(0, VOCABULARY))
    assert [[*batch.processor.take_record(f"r{n}").attempts] for n in range(4)] == [
        [],
        [],
        [0],
        [0],
    ]


RECORD = EngineRecord(frozenset({1}), (Move(2, 4, EndReason.SETTLED), Move(3, 9)))
WIRE = EngineBudget("r", 7, MINIMUM, 3, RECORD).to_extra_args()[KEY]


def test_a_budget_may_be_a_string() -> None:
    params = SamplingParams(extra_args={KEY: json.dumps(WIRE)})
    assert read(params) == EngineBudget("r", 7, MINIMUM, 3, RECORD)


@pytest.mark.parametrize(
    ("params", "param"),
    [
        (SamplingParams(extra_args={KEY: 3}), "extra_args"),
        (SamplingParams(extra_args={KEY: {**WIRE, "budget": {}}}), "thinking"),
        (SamplingParams(extra_args={KEY: {**WIRE, "seed": "x"}}), "extra_args"),
        (SamplingParams(extra_args={KEY: {**WIRE, "wire": 0}}), "extra_args"),
        (SamplingParams(extra_args={KEY: {**WIRE, "other": 1}}), "extra_args"),
        (SamplingParams(extra_args={KEY: "{"}), "extra_args"),
        (params_with(MINIMUM, thinking_token_budget=3), "thinking_token_budget"),
    ],
)
def test_unenforceable_params_are_refused_at_admission(params: SamplingParams, param: str) -> None:
    with pytest.raises(BudgetError) as refused:
        BudgetLogitsProcessor.validate_params(params)
    assert refused.value.param == param


def test_an_engine_without_markers_does_not_start() -> None:
    bare = config(ONE)
    bare.additional_config = {}
    with pytest.raises(ValueError, match="must contain the thinking markers"):
        BudgetLogitsProcessor(bare, torch.device("cpu"), False)  # type: ignore[arg-type]


def test_a_continuation_replaces_an_attempt_even_if_its_character_is_incomplete() -> None:
    vocabulary = Vocabulary.from_bytes([b"\xf0", *[b"a"] * 4, b"\xa4", *[b""] * 5])
    budget = TokenBudget(minimum=1, maximum=1, continuation_ids=((0,),))
    batch = Batch(ONE, vocabulary)
    request = Request("r", budget, params_with(budget, temperature=0))
    batch.add(request)
    batch.step(torch.eye(VOCABULARY)[[7]])
    batch.step(torch.eye(VOCABULARY)[[2]])
    assert request.tokens == [0, 7]
    assert batch.processor.take_record("r").attempts == {0}
