"""The resubmit loop compared with the reference state machine, over servers that differ."""

import zlib
from collections.abc import Sequence, Set
from dataclasses import dataclass

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from proctor.budget import (
    UNKNOWN_VOCABULARY,
    BudgetStateMachine,
    DesyncError,
    EndReason,
    Markers,
    TokenBudget,
    Vocabulary,
    replay,
)
from proctor.server.engines.base import Finish, Job, ModelInfo, Sampling
from proctor.server.engines.completions.resubmit import MAX_STEPS, ResubmitLoop, ResubmitStep
from proctor.server.errors import EngineUnavailable
from tests.budget.strategies import EOS, VOCABULARY, WORDS, budgets, markers, vocabularies

THINK, END = WORDS, WORDS + 1
SINGLE = Markers((THINK,), (END,), frozenset({EOS}))


def wish(salt: int, ids: Sequence[int], barred: Set[int] = frozenset()) -> int:
    """Return the token that a pseudorandom greedy model chooses after `ids`."""
    scores = {zlib.crc32(bytes([salt, *ids, token])): token for token in range(VOCABULARY)}
    left = [scores[key] for key in sorted(scores) if scores[key] not in barred]
    # Forced text that ends inside a character, which no real one does, can bar all tokens.
    return left[0] if left else reject()


@dataclass(frozen=True)
class Server:
    """A simulated completions server.

    Attributes:
        salt: the seed of its model.
        stops: whether it honours the end marker as a stop token.
        keeps_stops: whether it leaves out the token at which it stopped.
        surplus: the number of tokens that it returns beyond `max_tokens`.
        most: the maximum number of tokens per reply.
        chunk: the number of tokens per delta.
    """

    salt: int
    stops: bool = True
    keeps_stops: bool = False
    surplus: int = 0
    most: int = 99
    chunk: int = 1

    def complete(self, step: ResubmitStep, markers: Markers) -> tuple[list[int], bool]:
        """Return the tokens of a reply, and whether it ended at a stop token."""
        ids: list[int] = []
        stops = set(markers.eos)
        if self.stops and step.suppresses_close and len(markers.end) == 1:
            stops |= {*markers.end}
        while len(ids) < min(self.most, step.max_tokens + self.surplus):
            token = wish(self.salt, (*step.prompt_ids, *ids), step.barred)
            if token in stops:
                return ids + [token] * (not self.keeps_stops), True
            ids.append(token)
        return ids, False


@dataclass(frozen=True)
class Ran:
    tokens: list[int]
    attempts: frozenset[int]
    finish: Finish | None


def model(markers: Markers, vocabulary: Vocabulary = UNKNOWN_VOCABULARY) -> ModelInfo:
    return ModelInfo("model", 300, markers, 0, vocabulary)


def run(server: Server, job: Job, of: ModelInfo) -> Ran:
    rounds = ResubmitLoop(job, of)
    settled: list[int] = []
    while step := rounds.next_step():
        assert step.prompt_ids == (*job.prompt_ids, *rounds.tokens)
        settled += rounds.pop_final_tokens()
        ids, stopped = server.complete(step, of.markers)
        for at in range(0, len(ids), server.chunk):
            if not rounds.push(ids[at : at + server.chunk]):
                break
            settled += rounds.pop_final_tokens()
        else:
            rounds.end_step(stopped=stopped)
        settled += rounds.pop_final_tokens()
    settled += rounds.pop_final_tokens()
    assert settled == rounds.tokens
    return Ran(rounds.tokens, rounds.record.attempts, rounds.finish)


def masked(machine: BudgetStateMachine, vocabulary: Vocabulary) -> set[int]:
    """Return the tokens that an engine would mask in this state."""
    return {
        token
        for token in range(VOCABULARY)
        if token in machine.barred
        or vocabulary.incomplete_bytes_after(machine.incomplete_bytes, token)
        > machine.max_incomplete_bytes
    }


def reference(salt: int, job: Job, of: ModelInfo) -> Ran:
    """Run the same model with the budget enforced token by token, as inside an engine."""
    machine = BudgetStateMachine(job.budget, of.markers, of.vocabulary)
    tokens: list[int] = []
    attempts: set[int] = set()
    while len(tokens) < job.sampling.max_tokens:
        token = machine.forced
        attempted = False
        if token is None:
            token = wish(salt, (*job.prompt_ids, *tokens), masked(machine, of.vocabulary))
            if token in machine.closing_tokens and machine.suppresses_close:
                token, attempted = machine.continuation[0], True
                attempts.add(len(tokens))
            elif token in machine.closing_tokens and token == EOS:
                token = machine.end_token
        machine.advance(token, attempted)
        tokens.append(token)
        if token == EOS:
            return Ran(tokens, frozenset(attempts), Finish.STOP)
    return Ran(tokens, frozenset(attempts), Finish.LENGTH)


servers = st.builds(
    Server,
    salt=st.integers(0, 255),
    stops=st.booleans(),
    keeps_stops=st.booleans(),
    surplus=st.integers(0, 9),
    most=st.integers(1, 99),
    chunk=st.integers(1, 9),
)


def job(budget: TokenBudget, max_tokens: int = 60) -> Job:
    return Job("job", (0, 1), Sampling(max_tokens), budget)


@given(server=servers, budget=budgets(), vocabulary=vocabularies(), max_tokens=st.integers(1, 60))
def test_steps_yield_the_same_tokens_as_enforcement_in_the_engine(
    server: Server, budget: TokenBudget, vocabulary: Vocabulary, max_tokens: int
) -> None:
    requested, of = job(budget, max_tokens), model(SINGLE, vocabulary)

    assert run(server, requested, of) == reference(server.salt, requested, of)


@given(server=servers, budget=budgets(), marked=markers(), vocabulary=vocabularies())
def test_markers_of_any_length(
    server: Server, budget: TokenBudget, marked: Markers, vocabulary: Vocabulary
) -> None:
    ran = run(server, job(budget, 200), model(marked, vocabulary))

    machine = replay(budget, marked, ran.tokens, ran.attempts, vocabulary)
    if ran.finish is Finish.STOP:
        assert machine.outcome(EndReason.STOP).end_reason is not EndReason.STOP
        assert budget.minimum <= machine.tokens
    assert budget.maximum is None or machine.tokens <= budget.maximum


TAGS = Markers((7,), (8, 9), frozenset({EOS}))
WAIT = ((5,),)


def test_an_attempt_is_stripped_with_its_whole_marker() -> None:
    rounds = ResubmitLoop(job(TokenBudget(continuations=1, continuation_ids=WAIT)), model(TAGS))

    rounds.next_step()
    assert rounds.push([1, 8])
    assert rounds.pop_final_tokens() == [1]
    assert not rounds.push([9, 1])
    step = rounds.next_step()

    assert step is not None
    assert step.prompt_ids == (0, 1, 1, 5)
    assert rounds.pop_final_tokens() == [5]
    assert rounds.record.attempts == {1}


def test_stripping_an_end_of_turn_keeps_the_tokens_before_it() -> None:
    rounds = ResubmitLoop(job(TokenBudget(continuations=1, continuation_ids=WAIT)), model(TAGS))

    rounds.next_step()
    rounds.push([1, 8, EOS])

    assert rounds.tokens == [1, 8, 5]


def test_the_part_of_a_marker_in_a_continuation_is_not_stripped() -> None:
    budget = TokenBudget(continuations=2, continuation_ids=((5, 8),))
    rounds = ResubmitLoop(job(budget), model(TAGS))

    rounds.next_step()
    rounds.push([1, EOS])
    rounds.next_step()
    rounds.push([9])

    assert rounds.tokens == [1, 5, 8, 5]


def test_an_end_of_turn_inside_the_thinking_becomes_the_end_marker() -> None:
    rounds = ResubmitLoop(job(TokenBudget()), model(TAGS))

    rounds.next_step()
    assert not rounds.push([1, EOS])
    step = rounds.next_step()

    assert rounds.tokens == [1, 8, 9]
    assert step is not None
    assert step.max_tokens == 60 - 3


def test_no_step_requests_more_tokens_than_the_budget_leaves() -> None:
    budget = TokenBudget(10, 20, continuation_ids=WAIT, wrap_up_ids=(2, 3))
    rounds = ResubmitLoop(job(budget), model(SINGLE))
    requested: list[int] = []

    while (current := rounds.next_step()) and len(requested) < 4:
        requested.append(current.max_tokens)
        rounds.push([4, END] if current.position < 8 else [4] * 4)
        if current.position >= 8:
            rounds.end_step(stopped=False)

    assert requested == [18, 16, 14, 12]


def test_receiving_a_barred_token_is_a_desync() -> None:
    rounds = ResubmitLoop(job(TokenBudget(maximum=0)), model(SINGLE))

    step = rounds.next_step()

    assert step is not None
    assert step.barred == {THINK}
    with pytest.raises(DesyncError, match="barred"):
        rounds.push([THINK])


def test_a_start_marker_of_several_tokens_is_barred_at_its_end_alone() -> None:
    marked = Markers((6, 7), (8,), frozenset({EOS}))
    rounds = ResubmitLoop(job(TokenBudget(maximum=0, opened=False)), model(marked))

    first = rounds.next_step()
    assert not rounds.push([7, 6, 7])
    second = rounds.next_step()
    rounds.push([1])
    third = rounds.next_step()

    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.barred, first.max_tokens) == (frozenset(), 60)
    assert (second.barred, second.max_tokens) == (frozenset({7}), 1)
    assert (third.barred, third.max_tokens) == (frozenset(), 57)
    assert rounds.tokens == [7, 6, 1]


def test_an_empty_step_is_an_error() -> None:
    rounds = ResubmitLoop(job(TokenBudget()), model(SINGLE))

    rounds.next_step()

    with pytest.raises(EngineUnavailable, match="no room"):
        rounds.end_step(stopped=False)


def test_the_number_of_steps_is_limited() -> None:
    budget = TokenBudget(minimum=10_000, continuation_ids=WAIT)
    rounds = ResubmitLoop(job(budget, 20_000), model(SINGLE))

    for _ in range(MAX_STEPS):
        rounds.next_step()
        rounds.push([END])

    with pytest.raises(EngineUnavailable, match=str(MAX_STEPS)):
        rounds.next_step()


def test_tokens_outside_a_step_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="next_step"):
        ResubmitLoop(job(TokenBudget()), model(SINGLE)).push([1])
