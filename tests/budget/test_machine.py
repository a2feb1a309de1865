"""The reference state machine: its guarantees, and its agreement with the loop of s1."""

import copy
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.budget import (
    BudgetStateMachine,
    DesyncError,
    EndReason,
    Forced,
    Label,
    Labelled,
    MarkerMatcher,
    Markers,
    OnLoop,
    TokenBudget,
    matcher_of,
    replay,
)
from proctor.budget.phases import Event, Phase
from proctor.budget.vocabulary import Vocabulary
from tests.budget.strategies import (
    EOS,
    VOCABULARY,
    WORDS,
    Sampler,
    budgets,
    markers_and_vocabularies,
    vocabularies,
    with_raised_minimum,
)

ONE = Markers(start=(6,), end=(7,), eos=frozenset({EOS}))
WAIT = 1
MarkersAndVocabulary = tuple[Markers, Vocabulary]
numbers = st.lists(st.integers(0, 10**6), max_size=80)


def play(machine: BudgetStateMachine, wanted: list[int]) -> tuple[list[int], list[int]]:
    """Run a machine to the end of its turn; return the tokens and the positions of attempts."""
    tokens: list[int] = []
    attempts: list[int] = []
    for number in wanted:
        token, attempted = Sampler(machine, machine.vocabulary).next(number)
        if attempted:
            attempts.append(len(tokens))
        machine.advance(token, attempted)
        tokens.append(token)
        if token == EOS:
            break
    return tokens, attempts


@given(markers_and_vocabularies(), budgets(), numbers)
def test_thinking_never_passes_its_maximum(
    pair: MarkersAndVocabulary, budget: TokenBudget, wanted: list[int]
) -> None:
    machine = BudgetStateMachine(budget, *pair)
    for number in wanted:
        machine.advance(*Sampler(machine, machine.vocabulary).next(number))
        cut_here = copied(machine)
        cut_here.flush()
        assert budget.maximum is None or cut_here.tokens <= budget.maximum


@given(markers_and_vocabularies(), budgets(), numbers)
def test_thinking_that_has_ended_reached_its_minimum(
    pair: MarkersAndVocabulary, budget: TokenBudget, wanted: list[int]
) -> None:
    machine = BudgetStateMachine(budget, *pair)
    for number in wanted:
        was_thinking = machine.thinking
        machine.advance(*Sampler(machine, machine.vocabulary).next(number))
        if was_thinking and not machine.thinking:
            assert machine.tokens >= budget.minimum


@given(markers_and_vocabularies(), budgets(), numbers)
def test_a_maximum_is_closed_by_its_wrap_up_and_the_marker(
    pair: MarkersAndVocabulary, budget: TokenBudget, wanted: list[int]
) -> None:
    machine = BudgetStateMachine(budget, *pair)
    tokens, _ = play(machine, wanted)
    outcome = machine.outcome(EndReason.LENGTH)
    end, matcher = pair[0].end, matcher_of(*pair)
    if outcome.end_reason is EndReason.MAX and not budget.continuations:
        assert any(contains(tokens, matcher.completion(at)) for at in range(*inside(matcher)))
        if not max(matcher.depth) and outcome.forced[Forced.WRAP_UP]:
            assert contains(tokens, (*budget.wrap_up_ids, *end))


@given(markers_and_vocabularies(), budgets(), numbers)
def test_every_token_gets_one_label_in_order(
    pair: MarkersAndVocabulary, budget: TokenBudget, wanted: list[int]
) -> None:
    machine = BudgetStateMachine(budget, *pair)
    tokens: list[int] = []
    labelled: list[Labelled] = []
    for number in wanted:
        token, attempted = Sampler(machine, machine.vocabulary).next(number)
        labelled += machine.advance(token, attempted)
        tokens.append(token)
        if token == EOS:
            break
    labelled += machine.flush()
    whole = [item for item in labelled if item.token is not None]
    assert [item.token for item in whole] == tokens
    assert machine.tokens == sum(item.label is Label.THINKING for item in whole)


@given(markers_and_vocabularies(), budgets(), numbers)
def test_a_replay_reaches_the_same_state(
    pair: MarkersAndVocabulary, budget: TokenBudget, wanted: list[int]
) -> None:
    machine = BudgetStateMachine(budget, *pair)
    tokens, attempts = play(machine, wanted)
    again = replay(budget, pair[0], tokens, frozenset(attempts), pair[1])
    assert state_of(again) == state_of(machine)


def inside(matcher: MarkerMatcher) -> tuple[int, int]:
    return matcher.inside, matcher.inert


def contains(tokens: list[int], part: tuple[int, ...]) -> bool:
    return any(tuple(tokens[at : at + len(part)]) == part for at in range(len(tokens)))


def copied(machine: BudgetStateMachine) -> BudgetStateMachine:
    """Return an independent copy; immutable parts are shared."""
    shared = (machine.vocabulary, machine.matcher)
    return copy.deepcopy(machine, {id(one): one for one in shared})


def state_of(machine: BudgetStateMachine) -> dict[str, object]:
    """Return all attributes of a machine, including those of its loop detector."""
    return {**vars(machine), "detector": vars(machine.detector)}


@given(st.integers(0, 4), st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=40))
def test_continuations_agree_with_the_loop_of_s1(ignored: int, wanted: list[int]) -> None:
    """s1's loop: stop at the delimiter, strip it, append "Wait", resubmit; N times."""
    plain = [token for token in wanted if token not in {6, EOS}]
    expected: list[int] = []
    rest = iter(plain)
    for turn in range(ignored + 1):
        for token in rest:
            if token == 7:
                break
            expected.append(token)
        else:
            break
        if turn < ignored:
            expected.append(WAIT)
        else:
            expected.append(7)
    budget = TokenBudget(continuations=ignored, continuation_ids=((WAIT,),))
    machine = BudgetStateMachine(budget, ONE)
    produced: list[int] = []
    for number in plain:
        token, attempted = Sampler(machine, machine.vocabulary).next(number)
        machine.advance(token, attempted)
        produced.append(token)
        if not machine.thinking:
            break
    assert produced == expected[: len(produced)]
    assert machine.continuations == produced.count(WAIT) - plain[: len(produced)].count(WAIT)


@given(markers_and_vocabularies(), budgets(), numbers)
def test_no_character_is_split(
    pair: MarkersAndVocabulary, budget: TokenBudget, wanted: list[int]
) -> None:
    """Except the first character of a continuation, which replaces the attempt."""
    machine = BudgetStateMachine(budget, *pair)
    pattern = 0
    for number in wanted:
        was, pattern = machine.phase, pattern + 1
        token, attempted = Sampler(machine, machine.vocabulary).next(number)
        machine.advance(token, attempted)
        if attempted:
            pattern = 0
        if machine.phase is Phase.CLOSING and was in (Phase.THINKING, Phase.CONTINUING):
            assert not machine.incomplete_bytes or pattern < 3


@given(budgets(), vocabularies(), st.lists(st.integers(0, 5), max_size=40))
def test_a_landing_is_at_the_first_end_of_a_sentence_near_the_cap(
    budget: TokenBudget, vocabulary: Vocabulary, words: list[int]
) -> None:
    machine = BudgetStateMachine(dataclasses.replace(budget, opened=True), ONE, vocabulary)
    maximum = budget.maximum
    for count, word in enumerate(words, 1):
        if machine.forced is not None:
            break
        machine.advance(Sampler(machine, vocabulary).next(word)[0])
        if maximum is None:
            assert machine.phase is Phase.THINKING
            continue
        left = maximum - len(budget.wrap_up_ids) - count
        lands = machine.ends_sentence and left <= budget.landing and count >= budget.minimum
        assert (machine.phase is Phase.CLOSING) is (left == 0 or lands)
        assert (machine.event is Event.LAND) is (left > 0 and lands)


def test_a_decimal_point_ends_no_sentence() -> None:
    digits = Vocabulary.from_bytes([b"3", b".", b"a"])
    budget = TokenBudget(maximum=10, landing=9)
    assert replay(budget, ONE, [0, 1], vocabulary=digits).forced is None
    assert replay(budget, ONE, [2, 1], vocabulary=digits).forced == 7


def test_end_reasons() -> None:
    def reason(budget: TokenBudget, tokens: list[int]) -> EndReason:
        return replay(budget, ONE, tokens).outcome(EndReason.CANCELLED).end_reason

    assert reason(TokenBudget(maximum=2), [1, 2, 7]) is EndReason.MAX
    assert reason(TokenBudget(maximum=2, capped_by_room=True), [1, 2, 7]) is EndReason.LENGTH
    assert reason(TokenBudget(maximum=0), [7]) is EndReason.DISABLED
    assert reason(TokenBudget(maximum=9), [1, 7]) is EndReason.NATURAL
    assert reason(TokenBudget(maximum=9), [1, 2]) is EndReason.CANCELLED
    assert reason(TokenBudget(opened=False), [1, 2]) is EndReason.DISABLED


def test_forced_tokens_are_counted_by_kind() -> None:
    budget = TokenBudget(
        minimum=2, maximum=6, continuation_ids=((1, 2),), wrap_up_ids=(3,), opened=False
    )
    machine = replay(budget, ONE, [6, 1, 2, 5, 5, 5, 3, 7], frozenset({1}))
    outcome = machine.outcome(EndReason.LENGTH)
    assert outcome.forced == {Forced.MARKER: 2, Forced.CONTINUATION: 2, Forced.WRAP_UP: 1}
    assert (outcome.tokens, outcome.continuations) == (6, 1)


def test_forced_runs_have_positions() -> None:
    budget = TokenBudget(maximum=6, continuations=2, continuation_ids=((1, 2),), wrap_up_ids=(3,))
    machine = replay(budget, ONE, [1, 2, 1, 2, 5, 3, 7], frozenset({0, 2}))
    assert machine.outcome(EndReason.LENGTH).forced_runs == (
        (Forced.CONTINUATION, 0, 2),
        (Forced.CONTINUATION, 2, 4),
        (Forced.WRAP_UP, 5, 6),
        (Forced.MARKER, 6, 7),
    )


def test_a_nudge_right_after_a_continuation_is_a_separate_run() -> None:
    budget = dataclasses.replace(NUDGED, minimum=100, continuation_ids=((2,),))
    machine = replay(budget, ONE, [2] * 64 + [4, 5], frozenset({63}))
    assert machine.outcome(EndReason.LENGTH).forced_runs == (
        (Forced.CONTINUATION, 63, 64),
        (Forced.CONTINUATION, 64, 66),
    )


@given(markers_and_vocabularies(), budgets(), numbers)
def test_forced_runs_hold_each_forced_token_once(
    pair: MarkersAndVocabulary, budget: TokenBudget, wanted: list[int]
) -> None:
    machine, forced = BudgetStateMachine(budget, *pair), list[int]()
    for position, number in enumerate(wanted):
        token, attempted = Sampler(machine, machine.vocabulary).next(number)
        if attempted or machine.forced is not None:
            forced.append(position)
        machine.advance(token, attempted)
    runs = machine.outcome(EndReason.LENGTH).forced_runs
    assert [position for run in runs for position in range(run.start, run.end)] == forced


def test_a_reopened_block_continues_the_same_budget() -> None:
    machine = replay(TokenBudget(maximum=3), ONE, [1, 2, 7, 5, 6, 3])
    assert machine.forced == 7
    machine.advance(7)
    assert machine.tokens == 3
    assert machine.barred == {6}


def test_thinking_goes_on_in_the_answer_up_to_a_stray_end_marker() -> None:
    def spilled(budget: TokenBudget, tokens: list[int]) -> int:
        return replay(budget, ONE, tokens).outcome(EndReason.LENGTH).spilled

    assert spilled(TokenBudget(maximum=2), [1, 2, 7, 3, 4, 7, 5]) == 2
    assert spilled(TokenBudget(maximum=2), [1, 2, 7, 3, 7, 4, 7, 5]) == 2
    assert spilled(TokenBudget(maximum=2), [1, 2, 7, 3, 4, 5]) == 0
    assert spilled(TokenBudget(maximum=0, opened=False), [3, 4, 7, 5]) == 2
    # What the model closed itself, or nobody limited, has not been cut short.
    assert spilled(TokenBudget(maximum=9), [1, 7, 3, 4, 7, 5]) == 0
    assert spilled(TokenBudget(opened=False), [3, 4, 7, 5]) == 0
    # A grammar describes the whole answer, and with it any markers there.
    assert spilled(TokenBudget(maximum=2, bound=True), [1, 2, 7, 3, 4, 7, 5]) == 0


@given(budgets(), numbers)
def test_spilled_tokens_agree_with_a_count_by_hand(budget: TokenBudget, wanted: list[int]) -> None:
    machine = BudgetStateMachine(budget, ONE)
    tokens, _ = play(machine, wanted)
    outcome = machine.outcome(EndReason.LENGTH)
    forced = {at for run in outcome.forced_runs for at in range(run.start, run.end)}

    thinking, cut_short = budget.opened, budget.maximum == 0
    since, spilled = 0, 0
    for position, token in enumerate(tokens):
        if thinking or token == 6:
            thinking = token not in (7, EOS)
            if not thinking:
                cut_short, since = budget.maximum == 0 or position in forced, 0
                if budget.bound:
                    break
        elif token == 7:
            spilled, since = spilled + (since if cut_short else 0), 0
        elif token != EOS:
            since += 1
    assert outcome.spilled == spilled


def test_a_token_that_was_not_enforced_raises_desync_error() -> None:
    with pytest.raises(DesyncError, match="7 was forced"):
        replay(TokenBudget(maximum=1), ONE, [1, 2])
    with pytest.raises(DesyncError, match="cannot replace an attempt"):
        replay(TokenBudget(maximum=1), ONE, [1], frozenset({0}))


def test_an_end_of_turn_that_no_budget_prevented_is_a_stop() -> None:
    machine = BudgetStateMachine(TokenBudget(), ONE)
    assert machine.advance(EOS) == [Labelled(EOS, Label.MARKER)]
    assert machine.outcome(EndReason.STOP).end_reason is EndReason.STOP


def test_outside_thinking_there_are_no_closing_tokens() -> None:
    assert BudgetStateMachine(TokenBudget(opened=False), ONE).closing_tokens == frozenset()
    assert BudgetStateMachine(TokenBudget(), ONE).closing_tokens == {7, EOS}


def test_a_loop_is_nudged_once_and_then_closed_with_its_wrap_up() -> None:
    budget = TokenBudget(
        minimum=300,
        maximum=400,
        continuation_ids=((1,),),
        wrap_up_ids=(3,),
        on_loop=OnLoop.NUDGE,
        nudge_ids=(4, 5),
    )
    machine = BudgetStateMachine(budget, ONE)
    tokens: list[int] = []
    while machine.thinking:
        tokens.append(2 if machine.forced is None else machine.forced)
        machine.advance(tokens[-1])
    assert tokens == [2] * 64 + [4, 5] + [2] * 64 + [3, 7]
    outcome = machine.outcome(EndReason.LENGTH)
    assert (outcome.end_reason, outcome.tokens) == (EndReason.LOOP, 131)
    assert outcome.loops == {OnLoop.NUDGE: 1, OnLoop.CLOSE: 1}


NUDGED = TokenBudget(
    minimum=300,
    maximum=700,
    continuation_ids=((WAIT,),),
    on_loop=OnLoop.NUDGE,
    nudge_ids=(4, 5),
)


def test_a_nudge_keeps_the_minimum_and_the_continuations_to_come() -> None:
    budget = dataclasses.replace(NUDGED, minimum=100, continuations=40)
    machine = replay(budget, ONE, [2] * 64)
    attempts = 0
    while machine.thinking:
        machine.advance(*Sampler(machine).next(3 if attempts % 2 else 7))
        attempts += 1
    outcome = machine.outcome(EndReason.LENGTH)
    assert outcome.tokens >= 100
    assert outcome.loops[OnLoop.NUDGE] == 1
    assert outcome.continuations == 40 or outcome.end_reason is EndReason.LOOP


def test_after_a_nudge_the_minimum_holds_until_a_second_loop() -> None:
    once = replay(NUDGED, ONE, [2] * 64 + [4, 5, 3])
    assert once.looped
    assert not once.loop_closed
    assert once.suppresses_close
    twice = replay(NUDGED, ONE, [2] * 64 + [4, 5] + [2] * 64 + [7])
    assert not twice.suppresses_close
    outcome = twice.outcome(EndReason.LENGTH)
    assert (outcome.tokens, outcome.end_reason) == (130, EndReason.LOOP)


def test_a_later_block_that_misses_the_minimum_ends_because_of_the_loop() -> None:
    looping = dataclasses.replace(NUDGED, on_loop=OnLoop.CLOSE, nudge_ids=())
    again = replay(looping, ONE, [2] * 64 + [7, 3, 6, 3])
    assert again.thinking
    assert not again.suppresses_close
    again.advance(7)
    outcome = again.outcome(EndReason.LENGTH)
    assert (outcome.tokens, outcome.end_reason) == (65, EndReason.LOOP)
    more = replay(looping, ONE, [*[2] * 64, 7, 6, *range(100, 400), 7])
    outcome = more.outcome(EndReason.LENGTH)
    assert (outcome.tokens, outcome.end_reason) == (364, EndReason.NATURAL)


@given(
    markers_and_vocabularies(),
    budgets().flatmap(with_raised_minimum),
    st.lists(st.integers(0, WORDS - 1), min_size=1, max_size=3),
    st.lists(st.integers(0, 10**6), max_size=6),
)
def test_a_missed_minimum_has_a_loop_or_cancellation_as_its_reason(
    pair: MarkersAndVocabulary, budget: TokenBudget, pattern: list[int], wanted: list[int]
) -> None:
    """At every point where a choice can end, in loops and between them."""
    machine = BudgetStateMachine(budget, *pair)
    for number in (pattern * 70)[:70] + wanted + (pattern * 70)[:70] + wanted:
        machine.advance(*Sampler(machine, machine.vocabulary).next(number))
        cut_here = copied(machine)
        cut_here.flush()
        outcome = cut_here.outcome(EndReason.CANCELLED)
        if outcome.tokens >= budget.minimum:
            continue
        if cut_here.thinking or cut_here.phase is Phase.OPENING:
            assert outcome.end_reason is EndReason.CANCELLED
        else:
            assert outcome.end_reason is EndReason.LOOP
            assert outcome.loops[OnLoop.CLOSE]


def test_a_loop_is_closed_even_under_a_half_matched_marker() -> None:
    split = Markers(start=(6,), end=(8, 7), eos=frozenset({EOS}))
    machine = BudgetStateMachine(TokenBudget(on_loop=OnLoop.CLOSE), split)
    while machine.forced is None:
        machine.advance(8)
    assert machine.forced == 7


def test_a_wrap_up_without_room_after_a_broken_marker_is_left_out() -> None:
    two = Markers(start=(6,), end=(7, 8), eos=frozenset({EOS}))
    budget = TokenBudget(maximum=4, wrap_up_ids=(1, 2))
    # The first half of a marker delayed the wrap-up, and then turned out to be thinking.
    machine = replay(budget, two, [5, 7, 9, 5])
    assert (machine.tokens, machine.forced) == (4, 7)
    machine.advance(7, False)
    machine.advance(8, False)
    assert not machine.thinking
    outcome = machine.outcome(EndReason.CANCELLED)
    assert (outcome.tokens, outcome.end_reason) == (4, EndReason.MAX)
