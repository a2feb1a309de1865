"""Random markers, budgets and tokens for property tests, over a tiny vocabulary."""

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from proctor.budget import BudgetStateMachine, EndReason, Markers, OnLoop, TokenBudget
from proctor.budget.markers import matched_prefix
from proctor.budget.vocabulary import UNKNOWN_VOCABULARY, Vocabulary

WORDS = 6
EOS = WORDS + 4
VOCABULARY = WORDS + 5

_marker_token = st.integers(WORDS, WORDS + 3)


@st.composite
def markers(draw: st.DrawFn) -> Markers:
    """Draw start and end markers of one to three tokens, which may share tokens."""
    marker = st.lists(_marker_token, min_size=1, max_size=3).map(tuple).filter(_is_borderless)
    start = draw(marker)
    end = draw(marker.filter(lambda tokens: tokens != start))
    return Markers(start, end, frozenset({EOS}))


def _is_borderless(marker: tuple[int, ...]) -> bool:
    return not matched_prefix(marker[1:], marker)


@st.composite
def budgets(draw: st.DrawFn) -> TokenBudget:
    """Draw any budget that admission accepts, with numbers small enough to be reached."""
    maximum = draw(st.none() | st.integers(0, 24))
    minimum = draw(st.integers(0, 24 if maximum is None else maximum))
    text = st.lists(st.integers(0, WORDS - 1), min_size=1, max_size=3).map(tuple)
    wrap_up: tuple[int, ...] = ()
    if maximum is not None and maximum > 1:
        wrap_up = draw(st.just(()) | text.filter(lambda ids: len(ids) < maximum))
    on_loop = draw(st.sampled_from(OnLoop))
    return TokenBudget(
        minimum=minimum,
        maximum=maximum,
        continuations=draw(st.integers(0, 3)) if maximum != 0 else 0,
        continuation_ids=tuple(draw(st.lists(text, min_size=1, max_size=3))),
        wrap_up_ids=wrap_up,
        opened=draw(st.booleans()),
        landing=draw(st.integers(0, 8)),
        opens=draw(st.booleans()),
        bound=draw(st.booleans()),
        on_loop=on_loop,
        nudge_ids=draw(text) if on_loop is OnLoop.NUDGE else (),
        answer_minimum=draw(st.integers(0, 6)),
    )


def with_raised_minimum(budget: TokenBudget) -> st.SearchStrategy[TokenBudget]:
    """Return a strategy of copies with a minimum that a loop can prevent."""

    def raise_by(increase: int) -> TokenBudget:
        maximum = None if budget.maximum is None else budget.maximum + increase
        return replace(budget, minimum=budget.minimum + increase, maximum=maximum)

    return st.integers(0, 150).map(raise_by)


@st.composite
def vocabularies(draw: st.DrawFn) -> Vocabulary:
    """Draw words with ends of sentences and parts of characters, and markers without text.

    As in any real vocabulary, there is a token that leaves no character incomplete.
    """
    pieces = [b"a", b"1", b".", b". ", b"\n", b"\xc3", b"\xe2", b"\xf0", b"\x9f\xa4"]
    words = draw(st.lists(st.sampled_from(pieces), min_size=WORDS - 2, max_size=WORDS - 2))
    return Vocabulary.from_bytes([*words, b"a", b"\xa4", *[b""] * (VOCABULARY - WORDS)])


SPELLINGS = [
    ([b"<", b"/", b"t", b">"], [0, 2, 3], [0, 1, 2, 3]),
    ([b"<", b"</", b"t>", b">."], [0, 2], [1, 2]),
    ([b"<t", b">", b"</t", b" </"], [0, 1], [2, 1]),
    ([b"<t>", b"</t>", b"<", b"/t>."], [0], [1]),
    ([b"<t>", b"</", b"t>", b"t><"], [0], [1, 2]),
]
"""Tokens that spell `<t>` and `</t>`, and the indices of those in the start and end marker."""


@st.composite
def spelled_markers(draw: st.DrawFn) -> tuple[Markers, Vocabulary]:
    """Draw markers of ordinary text, and a vocabulary that can spell them in several ways."""
    spelling, start, end = draw(st.sampled_from(SPELLINGS))
    words = [b".", b" ", b"x", b"\xe2", b"\x80", draw(st.sampled_from([b"a<", b"\xa6", b"a"]))]
    tokens = [*words, *spelling, b""]
    first = len(words)
    markers = Markers(
        tuple(first + at for at in start),
        tuple(first + at for at in end),
        frozenset({EOS}),
        tuple(b"<t>"),
        tuple(b"</t>"),
    )
    return markers, Vocabulary.from_bytes(tokens)


def markers_and_vocabularies() -> st.SearchStrategy[tuple[Markers, Vocabulary]]:
    """Return a strategy of markers, of special tokens or of text, with a vocabulary."""
    return spelled_markers() | st.tuples(markers(), vocabularies())


def moves() -> st.SearchStrategy[tuple[int | None, EndReason | None]]:
    """Return a strategy of targets and reasons of a moved maximum; most are early exits."""
    targets = st.none() | st.integers(0, 30)
    return st.tuples(targets, st.sampled_from([EndReason.SETTLED, EndReason.UNSURE, None]))


@dataclass
class Sampler:
    """Simulates an engine that obeys a machine; the model's preferred tokens come from numbers."""

    machine: BudgetStateMachine
    vocabulary: Vocabulary = UNKNOWN_VOCABULARY

    def next(self, number: int) -> tuple[int, bool]:
        """Return the token when the model prefers `number`, and whether it was an attempt."""
        machine = self.machine
        if machine.forced is not None:
            return machine.forced, False
        token = next(
            token
            for token in ((number + step) % VOCABULARY for step in range(VOCABULARY))
            if self.vocabulary.incomplete_bytes_after(machine.incomplete_bytes, token)
            <= machine.max_incomplete_bytes
            and token not in machine.barred
            and not (token == EOS and machine.bars_eos)
        )
        if machine.suppresses_close and token in machine.closing_tokens:
            return machine.continuation[0], True
        if machine.thinking and token == EOS:
            return machine.end_token, False
        return token, False
