"""The marker matcher, compared with a search of the text, however tokens split it."""

from hypothesis import given
from hypothesis import strategies as st

from proctor.budget import (
    UNKNOWN_VOCABULARY,
    BudgetStateMachine,
    Label,
    MarkerMatcher,
    Markers,
    TokenBudget,
    Vocabulary,
    matcher_of,
)
from proctor.budget.matcher import Crossing
from tests.budget.strategies import VOCABULARY, markers_and_vocabularies, spelled_markers

MarkersAndVocabulary = tuple[Markers, Vocabulary]
numbers = st.lists(st.integers(0, 10**6), max_size=40)


class Search:
    """A slow reference: compares the end of the text with the markers after every symbol."""

    def __init__(self, markers: Markers, vocabulary: Vocabulary, inside: bool) -> None:
        self._vocabulary = vocabulary
        self._start = self._symbols(markers.start_symbols, markers.start)
        self._end = self._symbols(markers.end_symbols, markers.end)
        self._text: list[int] = []
        self.inside = inside

    def _symbols(self, symbols: tuple[int, ...], ids: tuple[int, ...]) -> list[int]:
        return [*symbols] or [symbol for token in ids for symbol in self._vocabulary.symbols(token)]

    def take(self, token: int) -> tuple[Crossing, int]:
        """Return the crossing of a token, and the number of its symbols after it."""
        crossing, rest = Crossing.NONE, 0
        symbols = self._vocabulary.symbols(token)
        for count, symbol in enumerate(symbols, 1):
            self._text.append(symbol)
            found = self._found()
            if found is Crossing.NONE:
                continue
            switches = found is not Crossing.STRAY
            if switches:
                self._text.clear()
            if crossing in (Crossing.NONE, Crossing.STRAY):
                crossing, rest = found, len(symbols) - count
                self.inside = self.inside ^ switches
        return crossing, rest

    def _found(self) -> Crossing:
        if self.inside:
            return Crossing.CLOSED if self._ends_in(self._end) else Crossing.NONE
        if self._ends_in(self._start):
            return Crossing.OPENED
        if not self._ends_in(self._end):
            return Crossing.NONE
        # The symbols of a stray marker begin no other, except where they begin a start marker.
        keep = max(
            (n for n in range(1, len(self._start)) if self._ends_in(self._start[:n])), default=0
        )
        self._text = self._text[len(self._text) - keep :]
        return Crossing.STRAY

    def _ends_in(self, marker: list[int]) -> bool:
        return self._text[-len(marker) :] == marker


@given(markers_and_vocabularies(), st.booleans(), numbers)
def test_markers_are_found_where_a_text_search_finds_them(
    pair: MarkersAndVocabulary, inside: bool, wanted: list[int]
) -> None:
    markers, _ = pair
    matcher, search = MarkerMatcher(*pair), Search(*pair, inside)
    state = matcher.inside if inside else matcher.outside
    for number in wanted:
        token = number % VOCABULARY
        if token in markers.eos:
            continue
        step = matcher.step(state, token)
        assert (step.crossing, step.rest) == search.take(token)
        state = step.state
        assert (state >= matcher.inside) is search.inside


@given(spelled_markers())
def test_the_completion_of_an_end_marker_closes_it(pair: MarkersAndVocabulary) -> None:
    matcher = matcher_of(*pair)
    for state in range(matcher.inside, matcher.inert):
        at, crossings = state, []
        for token in matcher.completion(state):
            step = matcher.step(at, token)
            at = step.state
            crossings.append(step.crossing)
        assert crossings == [*[Crossing.NONE] * (len(crossings) - 1), Crossing.CLOSED]


@given(markers_and_vocabularies())
def test_closing_and_barred_tokens_agree_with_steps(pair: MarkersAndVocabulary) -> None:
    matcher, size = matcher_of(*pair), VOCABULARY
    for state in range(matcher.states):
        steps = {token: matcher.step(state, token) for token in range(size)}
        closing = {at for at, step in steps.items() if step.crossing is Crossing.CLOSED}
        opening = {at for at, step in steps.items() if step.crossing is Crossing.OPENED}
        assert matcher.closing_tokens(state) == closing
        assert matcher.barred(state) >= opening


def test_tokens_that_complete_half_a_start_marker_are_barred() -> None:
    tokens = [bytes([byte]) for byte in range(256)]
    vocabulary = Vocabulary.from_bytes([*tokens, b"think", b"thin", b"table", b"<t"])
    markers = Markers(tuple(b"<think>"), tuple(b"</think>"), frozenset({2000}))
    matcher = matcher_of(markers, vocabulary)
    begun = matcher.step(matcher.outside, ord("<")).state
    assert matcher.barred(begun) == {256, 257}
    further = matcher.step(begun, ord("t")).state
    assert matcher.barred(further) == frozenset()
    assert ord("i") in matcher.barred(matcher.step(further, ord("h")).state)
    assert matcher.barred(matcher.outside) == frozenset()


def test_an_inert_state_matches_nothing() -> None:
    matcher = matcher_of(Markers((1,), (2,), frozenset({3})), UNKNOWN_VOCABULARY)
    assert matcher.step(matcher.inert, 1) == (matcher.inert, Crossing.NONE, 0, 0)
    assert matcher.barred(matcher.inert) == matcher.closing_tokens(matcher.inert) == frozenset()


def test_a_text_that_contains_or_completes_a_marker_is_detected() -> None:
    tokens = [bytes([byte]) for byte in range(256)]
    markers = Markers(tuple(b"<a>"), tuple(b"Here:"), frozenset({2000}))
    matcher = matcher_of(markers, Vocabulary.from_bytes(tokens))
    assert matcher.completes_marker([*b"so <a> "])
    assert matcher.completes_marker([*b"Here: "])
    assert matcher.completes_marker([*b"re: no"])
    assert not matcher.completes_marker([*b"Wait, here: "])


def test_an_end_marker_that_cannot_be_completed_is_restarted() -> None:
    markers = Markers((0,), (1,), frozenset({9}), tuple(b"<t>"), tuple(b"</t>"))
    matcher = matcher_of(markers, Vocabulary.from_bytes([b"<t>", b"</t>", b"<", b"/"]))
    begun = matcher.step(matcher.inside, 2).state
    assert matcher.completion(begun) == matcher.completion(matcher.inside) == (1,)


def test_a_marker_may_begin_inside_the_token_that_ends_another() -> None:
    markers = Markers((0,), (1, 2), frozenset({9}), tuple(b"<t>"), tuple(b"</t>"))
    known = Vocabulary.from_bytes([b"<t>", b"</", b"t>", b"t><", b"t>", b"a"])
    for tokens, expected in (
        ([1, 3, 4], []),
        ([1, 3, 5], [(None, b"<"), (5, b"")]),
    ):
        machine = BudgetStateMachine(TokenBudget(), markers, known)
        released = [item for token in tokens for item in machine.advance(token)]
        released += machine.flush()
        kept = [(item.token, item.text) for item in released if item.label is Label.ANSWER]
        assert kept == expected
        assert machine.thinking is (not expected)


def test_an_end_marker_is_completed_with_the_longest_tokens_that_fit() -> None:
    tokens = [bytes([byte]) for byte in range(256)]
    known = Vocabulary.from_bytes([*tokens, b"</t>", b"/t", b"<t>"])
    markers = Markers((258,), (256,), frozenset({999}), tuple(b"<t>"), tuple(b"</t>"))
    matcher = matcher_of(markers, known)
    begun = matcher.step(matcher.inside, ord("<")).state
    assert matcher.completion(begun) == (257, ord(">"))
    assert matcher.completion(matcher.step(begun, 257).state) == (ord(">"),)
    assert matcher.has_multi_symbol_marker


def test_the_first_of_two_markers_in_a_token_counts() -> None:
    markers = Markers((0,), (1,), frozenset({9}), tuple(b"<t>"), tuple(b"</t>"))
    matcher = matcher_of(markers, Vocabulary.from_bytes([b"<t>", b"</t>", b"<t></t>a"]))
    assert matcher.step(matcher.outside, 2) == (matcher.inside, Crossing.OPENED, 8, 5)
