"""Random markers, budgets and tokens for property tests, over a tiny vocabulary."""

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from proctor.budget import BudgetStateMachine, Markers, OnLoop, TokenBudget
from proctor.budget.markers import matched_prefix
from proctor.budget.vocabulary import UNKNOWN_VOCABULARY, Vocabulary

WORDS = 6
EOS = WORDS + 4
VOCABULARY = WORDS + 5

_marker_token = st.integers(WORDS, WORDS + 3)


@st.composite
def markers(draw: st.DrawFn) -> Markers:
    """Start and end markers of one to three tokens, which may share tokens."""
    marker = st.lists(_marker_token, min_size=1, max_size=3).map(tuple).filter(_is_borderless)
    start = draw(marker)
    end = draw(marker.filter(lambda tokens: tokens != start))
    return Markers(start, end, frozenset({EOS}))


def _is_borderless(marker: tuple[int, ...]) -> bool:
    return not matched_prefix(marker[1:], marker)


@st.composite
def budgets(draw: st.DrawFn) -> TokenBudget:
    """Any budget that admission lets through, numbers small enough to be reached."""
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


def raised(budget: TokenBudget) -> st.SearchStrategy[TokenBudget]:
    """The same with a minimum that a loop can keep it from."""

    def by(more: int) -> TokenBudget:
        maximum = None if budget.maximum is None else budget.maximum + more
        return replace(budget, minimum=budget.minimum + more, maximum=maximum)

    return st.integers(0, 150).map(by)


@st.composite
def vocabularies(draw: st.DrawFn) -> Vocabulary:
    """Words that end sentences or parts of characters, and markers without text.

    As in any real vocabulary, there is a token after which no character is unfinished.
    """
    parts = [b"a", b"1", b".", b". ", b"\n", b"\xc3", b"\xe2", b"\xf0", b"\x9f\xa4"]
    words = draw(st.lists(st.sampled_from(parts), min_size=WORDS - 2, max_size=WORDS - 2))
    return Vocabulary.from_bytes([*words, b"a", b"\xa4", *[b""] * (VOCABULARY - WORDS)])


SPELLINGS = [
    ([b"<", b"/", b"t", b">"], [0, 2, 3], [0, 1, 2, 3]),
    ([b"<", b"</", b"t>", b">."], [0, 2], [1, 2]),
    ([b"<t", b">", b"</t", b" </"], [0, 1], [2, 1]),
    ([b"<t>", b"</t>", b"<", b"/t>."], [0], [1]),
    ([b"<t>", b"</", b"t>", b"t><"], [0], [1, 2]),
]
"""Tokens that spell `<t>` and `</t>`, and which of them the markers themselves are of."""


@st.composite
def spelled_markers(draw: st.DrawFn) -> tuple[Markers, Vocabulary]:
    """Markers of ordinary text, and a vocabulary that can spell them in several ways."""
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


def marked() -> st.SearchStrategy[tuple[Markers, Vocabulary]]:
    """Markers of tokens that stand for themselves, or of text; and a vocabulary with them."""
    return spelled_markers() | st.tuples(markers(), vocabularies())


@dataclass
class Sampler:
    """Plays an engine that obeys a machine, with tokens from a stream of numbers."""

    machine: BudgetStateMachine
    vocabulary: Vocabulary = UNKNOWN_VOCABULARY

    def next(self, number: int) -> tuple[int, bool]:
        """The token that comes when the model wants `number`, and whether it was an attempt."""
        machine = self.machine
        if machine.forced is not None:
            return machine.forced, False
        wanted = next(
            token
            for token in ((number + step) % VOCABULARY for step in range(VOCABULARY))
            if self.vocabulary.incomplete_bytes_after(machine.incomplete_bytes, token)
            <= machine.max_incomplete_bytes
            and token not in machine.barred
            and not (token == EOS and machine.bars_eos)
        )
        if machine.suppresses_close and wanted in machine.closing_tokens:
            return machine.continuation[0], True
        if machine.thinking and wanted == EOS:
            return machine.end_token, False
        return wanted, False
