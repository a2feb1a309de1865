"""Early exits by confidence: the arrays equal the reference, and both runners end the thinking."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proctor.budget import BudgetError, EndReason, Markers, Move, TokenBudget, replay
from proctor.budget.confidence import TOP_K, ConfidenceExit, ConfidenceWindow
from proctor.budget.processors.params import EngineBudget
from proctor.budget.processors.sampling.confidence import (
    VERDICTS,
    ConfidenceTable,
    token_confidence,
)
from tests.budget import test_v1, test_v2
from tests.budget.requests import Request
from tests.budget.strategies import EOS, VOCABULARY
from tests.budget.test_v2 import device

__all__ = ["device"]

SLOTS, MAX_ROWS = 3, 3
ONE = Markers(start=(6,), end=(7,), eos=frozenset({EOS}))
levels = st.none() | st.sampled_from([0.25, 0.5, 0.75])
exits = st.builds(ConfidenceExit, st.integers(1, 4), levels, st.integers(1, 3), levels)
# Sums of these are exact in 32 bits.
confidences = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


@given(st.data())
def test_the_arrays_equal_the_reference(data: st.DataObject) -> None:
    table = ConfidenceTable(SLOTS, MAX_ROWS, torch.device("cpu"))
    windows: list[ConfidenceWindow | None] = [None] * SLOTS
    verdicts: list[EndReason | None] = [None] * SLOTS
    for _ in range(data.draw(st.integers(1, 20))):
        slot = data.draw(st.integers(0, SLOTS - 1))
        if data.draw(st.integers(0, 4)) == 0 or windows[slot] is None:
            settings = data.draw(exits)
            table.load(slot, settings)
            windows[slot], verdicts[slot] = ConfidenceWindow(settings), None
        rows = data.draw(st.lists(st.none() | confidences, min_size=1, max_size=MAX_ROWS))
        accepted = data.draw(st.integers(0, len(rows)))
        slots = torch.tensor([slot])
        for taken, confidence in enumerate(rows):
            value = torch.tensor([confidence or 0.0])
            table.observe(value, slots, torch.tensor([confidence is not None]), taken)
        for taken, confidence in enumerate(rows):
            table.advance(slots, torch.tensor([taken < accepted]), taken)
            window = windows[slot]
            if taken < accepted and confidence is not None and window is not None:
                verdicts[slot] = window.push(confidence) or verdicts[slot]
        assert VERDICTS[int(table.verdicts[slot])] is verdicts[slot]


def test_the_confidence_of_a_token() -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(1))
    logprobs = logits.log_softmax(dim=-1).sort(dim=-1, descending=True).values
    assert token_confidence(logits).tolist() == pytest.approx(
        (-logprobs[:, :TOP_K].mean(dim=-1)).tolist(), rel=1e-5
    )
    masked = torch.tensor([[0.0, 0.0, -math.inf]])
    assert token_confidence(masked).tolist() == pytest.approx([math.log(2)])


def row(preferred: int, *, certain: bool) -> torch.Tensor:
    """Return the logits of a row, [1, vocabulary]."""
    logits = torch.zeros(1, VOCABULARY)
    logits[0, preferred] = 20.0 if certain else 0.5
    return logits


def request_with(budget: TokenBudget, settings: ConfidenceExit) -> Request:
    request = Request.greedy("r", budget)
    request.params.extra_args = EngineBudget("r", 7, budget, confidence=settings).to_extra_args()
    return request


SETTLES = ConfidenceExit(window=2, threshold=15.0, patience=2, floor=None)
LOST = ConfidenceExit(window=3, threshold=None, patience=1, floor=5.0)
CASES = [
    pytest.param(
        [False, True, True, True, True, True], SETTLES, EndReason.SETTLED, 6, id="settled"
    ),
    pytest.param([True, True, True, False, False, False], LOST, EndReason.UNSURE, 6, id="unsure"),
    pytest.param([True, False] * 4, SETTLES, None, None, id="neither"),
]


@pytest.mark.parametrize(("certain", "settings", "reason", "closes_at"), CASES)
def test_v1_ends_thinking(
    certain: Sequence[bool],
    settings: ConfidenceExit,
    reason: EndReason | None,
    closes_at: int | None,
) -> None:
    batch = test_v1.Batch(ONE)
    request = request_with(TokenBudget(maximum=40), settings)
    batch.add(request)
    for each in (*certain, True, True):
        batch.step(row(1, certain=each))
    assert_ended(request, batch.processor.take_record("r").moves, reason, closes_at)


@pytest.mark.parametrize(("certain", "settings", "reason", "closes_at"), CASES)
def test_v2_ends_thinking(
    device: torch.device,
    certain: Sequence[bool],
    settings: ConfidenceExit,
    reason: EndReason | None,
    closes_at: int | None,
) -> None:
    """A step later than V1, which reads the verdict at once."""
    runner = test_v2.Runner(ONE, device)
    request = request_with(TokenBudget(maximum=40), settings)
    runner.add(request)
    for each in (*certain, True, True):
        runner.step([request], [[]], row(1, certain=each))
    latest = None if closes_at is None else closes_at + 1
    assert_ended(request, runner.processor.take_record("r").moves, reason, latest)


def assert_ended(
    request: Request, moves: Sequence[Move], reason: EndReason | None, closes_at: int | None
) -> None:
    assert request.budget is not None
    closed = [at for at, token in enumerate(request.tokens) if token == 7]
    assert closed == ([] if closes_at is None else [closes_at])
    assert len(moves) == (reason is not None)
    if reason is not None:
        machine = replay(request.budget, ONE, request.tokens, moves=moves)
        assert machine.outcome(EndReason.LENGTH).end_reason is reason


def test_the_numbers_are_checked() -> None:
    assert ConfidenceExit.from_wire(SETTLES.to_wire()) == SETTLES
    with pytest.raises(BudgetError, match="at least 1"):
        ConfidenceExit(0, 1.0, 1, None)
    with pytest.raises(BudgetError, match="malformed"):
        ConfidenceExit.from_wire({"window": 2})
