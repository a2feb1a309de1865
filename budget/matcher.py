"""Find thinking markers in a text, whatever tokens spell it.

A marker that is ordinary text can be cut into tokens in many ways, and a token
can hold an end of it together with other text (` </`, `think`, `>.`). So markers
are matched on symbols: the bytes of ordinary tokens, and one symbol for each
token that stands for itself, such as a special token. The search is that of Aho
and Corasick (Efficient string matching, 1975), stepped by whole tokens: the
tables hold, for each state and token, where the token's symbols lead.

Two automata share one space of states. Outside a thinking block a start marker
opens one, and an end marker, which has nothing to close there, is a stray one.
Inside, the end marker closes the block. A last state matches nothing any more.
"""

from collections import defaultdict, deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from proctor.budget.markers import Markers
from proctor.budget.vocabulary import ATOM, Vocabulary


class Crossing(IntEnum):
    """The marker that a token completes."""

    NONE = 0
    OPENED = 1
    CLOSED = 2
    STRAY = 3


class Step(NamedTuple):
    """Where a token leads.

    Attributes:
        state: the state after it.
        crossing: the marker that it completes.
        span: how many of the last symbols belong to a marker or may come to;
            where one was completed, the symbols after it in the token are
            counted too.
        rest: symbols of the token after a marker that it completes.
    """

    state: int
    crossing: Crossing = Crossing.NONE
    span: int = 0
    rest: int = 0


class _Node(NamedTuple):
    """A state of one automaton, while it is built.

    Attributes:
        children: the state that each symbol leads to.
        depth: symbols of a marker that have been matched.
    """

    children: dict[int, int]
    depth: int


class _Automaton:
    """Aho and Corasick's automaton for some patterns; its states begin at `base`."""

    def __init__(self, base: int, patterns: Sequence[tuple[Crossing, Sequence[int]]]) -> None:
        self.base = base
        self.nodes = [_Node({}, 0)]
        self._found: dict[int, Crossing] = {}
        self._fallback = [0]
        for crossing, pattern in patterns:
            self._found[self._insert(pattern)] = crossing
        self._link()

    def _insert(self, pattern: Sequence[int]) -> int:
        at = 0
        for symbol in pattern:
            if symbol not in self.nodes[at].children:
                self.nodes[at].children[symbol] = len(self.nodes)
                self.nodes.append(_Node({}, self.nodes[at].depth + 1))
                self._fallback.append(0)
            at = self.nodes[at].children[symbol]
        return at

    def _link(self) -> None:
        """Give each node its fallback: the longest proper suffix that begins a pattern."""
        waiting = deque(self.nodes[0].children.values())
        while waiting:
            at = waiting.popleft()
            for symbol, child in self.nodes[at].children.items():
                self._fallback[child] = self.goto(self._fallback[at], symbol)
                waiting.append(child)
        # In the order of depth a fallback's own pattern is known by now.
        for at in sorted(range(1, len(self.nodes)), key=lambda one: self.nodes[one].depth):
            shorter = self.found(self._fallback[at])
            if shorter is Crossing.OPENED or (shorter and not self.found(at)):
                self._found[at] = shorter

    def goto(self, at: int, symbol: int) -> int:
        """Return the node after one more symbol."""
        while at and symbol not in self.nodes[at].children:
            at = self._fallback[at]
        return self.nodes[at].children.get(symbol, 0)

    def soon_at_root(self, at: int, symbols: Sequence[int]) -> bool:
        """Return whether symbols lead from a node where they lead from the root, without a find."""
        root = 0
        for symbol in symbols:
            at, root = self.goto(at, symbol), self.goto(root, symbol)
            if at == root or self.found(at):
                return at == root and not self.found(at)
        return False

    def found(self, at: int) -> Crossing:
        """Return the marker that ends here."""
        return self._found.get(at, Crossing.NONE)

    def along(self, pattern: Sequence[int]) -> list[int]:
        """Return the nodes on the way along a pattern, without the root."""
        at, nodes = 0, []
        for symbol in pattern:
            at = self.nodes[at].children[symbol]
            nodes.append(at)
        return nodes

    def longest_suffix(self, at: int, among: Container[int]) -> int:
        """Return the longest suffix of a node's text that is one of some nodes, or the root."""
        while at and at not in among:
            at = self._fallback[at]
        return at


class MarkerMatcher:
    """The markers of a model, matched token by token.

    Attributes:
        markers: the markers.
        outside: the state outside a thinking block, with nothing matched.
        inside: the same inside a block.
        inert: the state that matches nothing.
        states: how many states there are.
        depth: for each state, how many symbols of a marker have been matched.
    """

    def __init__(self, markers: Markers, vocabulary: Vocabulary) -> None:
        self.markers = markers
        self._vocabulary = vocabulary
        self._start = _symbols(markers.start_symbols, markers.start, vocabulary)
        self._end = _symbols(markers.end_symbols, markers.end, vocabulary)
        outside = _Automaton(0, [(Crossing.STRAY, self._end), (Crossing.OPENED, self._start)])
        # What a stray end marker may be the beginning of goes on.
        self._openings = frozenset(outside.along(self._start)[:-1])
        inside = _Automaton(len(outside.nodes), [(Crossing.CLOSED, self._end)])
        self.outside, self.inside = outside.base, inside.base
        self.inert = inside.base + len(inside.nodes)
        self.states = self.inert + 1
        # After a whole marker nothing is matched, but for what a stray one may begin.
        depths = [
            0
            if automaton.found(at) and (automaton is inside or at not in self._openings)
            else node.depth
            for automaton in (outside, inside)
            for at, node in enumerate(automaton.nodes)
        ]
        self.depth = [*depths, 0]
        self._modes = [outside] * len(outside.nodes) + [inside] * len(inside.nodes)
        # What a token does in a state; what it does in the state's root stands for the rest.
        self._steps: list[dict[int, Step]] = [{} for _ in range(self.states)]
        tokens = _Tokens(vocabulary)
        for automaton in (outside, inside):
            self._fill_root(automaton, tokens)
            self._fill_states(automaton, tokens)
        self._completions = self._spell_ends(tokens)
        self._barred = [self._bars(state) for state in range(self.inside)]

    @property
    def spelled(self) -> bool:
        """Whether some marker takes several symbols, so that it can be begun and left."""
        return any(self.depth)

    def step(self, state: int, token: int) -> Step:
        """Return where a token leads from a state."""
        found = self._steps[state].get(token)
        if found is None:
            root = self.root(state)
            found = self._steps[root].get(token) or Step(root)
        return found

    def root(self, state: int) -> int:
        """Return the state of the same mode in which nothing is matched."""
        return self._modes[state].base if state < self.inert else state

    def special_steps(self, state: int) -> Mapping[int, Step]:
        """Return the steps from a state that differ from those of its root; a root's own."""
        return self._steps[state]

    def width(self, token: int) -> int:
        """Return how many symbols a token is."""
        return len(self._vocabulary.symbols(token))

    def closing_tokens(self, state: int) -> frozenset[int]:
        """Return the tokens that complete the end marker inside a thinking block."""
        both = {**self._steps[self.root(state)], **self._steps[state]}
        return frozenset(at for at, step in both.items() if step.crossing is Crossing.CLOSED)

    def completion(self, state: int) -> tuple[int, ...]:
        """Return tokens that complete the end marker from a state inside a block.

        Where the vocabulary cannot spell the rest they are the whole marker.
        """
        return self._completions[state - self.inside] or self.markers.end

    def barred(self, state: int) -> frozenset[int]:
        """Return the tokens that match more than half of the start marker, outside a block.

        A model that may not write the last token of its marker alone writes
        something like it, and thinks all the same.
        """
        return self._barred[state] if state < self.inside else frozenset()

    def inside_after(self, tokens: Iterable[int]) -> bool:
        """Return whether a text of these tokens ends inside a thinking block."""
        state = self.outside
        for token in tokens:
            state = self.outside if token in self.markers.eos else self.step(state, token).state
        return state >= self.inside

    def completes_marker(self, tokens: Sequence[int]) -> bool:
        """Return whether a text inside a block holds a marker, or may end one begun before it."""
        states = (self.outside, *range(self.inside, self.inert))
        return any(self._crosses(state, tokens) for state in states)

    def _crosses(self, state: int, tokens: Sequence[int]) -> bool:
        for token in tokens:
            state, crossing, _, _ = self.step(state, token)
            if crossing is not Crossing.NONE:
                return True
        return False

    def _run(self, automaton: _Automaton, at: int, symbols: Sequence[int]) -> Step:
        """Return where symbols lead from a node of an automaton."""
        crossing, rest, length = Crossing.NONE, 0, 0
        for count, symbol in enumerate(symbols, 1):
            at = automaton.goto(at, symbol)
            found = automaton.found(at)
            if found is Crossing.NONE:
                continue
            if found is Crossing.STRAY:
                at = automaton.longest_suffix(at, self._openings)
            else:
                at = 0
            if crossing in (Crossing.NONE, Crossing.STRAY):
                crossing, rest, length = found, len(symbols) - count, self._length(found)
                automaton = self._beyond(found)
        if crossing is Crossing.NONE:
            return Step(automaton.base + at, span=automaton.nodes[at].depth)
        return Step(automaton.base + at, crossing, length + rest, rest)

    def _length(self, crossing: Crossing) -> int:
        return len(self._start if crossing is Crossing.OPENED else self._end)

    def _beyond(self, crossing: Crossing) -> _Automaton:
        """Return the automaton that goes on after a marker.

        No vocabulary has tokens of several markers; of such a token the first counts.
        """
        return self._modes[self.inside if crossing is Crossing.OPENED else self.outside]

    def _fill_root(self, automaton: _Automaton, tokens: "_Tokens") -> None:
        for token in tokens.that_hold(automaton.nodes[0].children):
            step = self._run(automaton, 0, self._vocabulary.symbols(token))
            if step != Step(automaton.base):
                self._steps[automaton.base][token] = step

    def _fill_states(self, automaton: _Automaton, tokens: "_Tokens") -> None:
        symbols = {symbol for node in automaton.nodes for symbol in node.children}
        for at in range(1, len(automaton.nodes)):
            for symbol in symbols:
                if automaton.goto(at, symbol) == automaton.goto(0, symbol):
                    continue
                for token in tokens.that_begin_with(symbol):
                    text = self._vocabulary.symbols(token)
                    if not automaton.soon_at_root(at, text):
                        self._steps[automaton.base + at][token] = self._run(automaton, at, text)

    def _spell_ends(self, tokens: "_Tokens") -> list[tuple[int, ...]]:
        """For each state inside a block, the tokens that complete the end marker.

        At an end of one of the marker's own tokens they are its other ones,
        elsewhere the longest that fit. From the marker's end backwards, as each
        token leads to a state that is known.
        """
        canonical, at = {}, len(self._end)
        for count, token in enumerate(reversed(self.markers.end), 1):
            at -= self.width(token)
            canonical[at] = self.markers.end[-count:]
        spelled: list[tuple[int, ...]] = [()] * (len(self._end) + 1)
        for at in range(len(self._end) - 1, 0, -1):
            if at in canonical:
                spelled[at] = canonical[at]
            elif (longest := tokens.longest(self._end[at:])) is not None:
                after = at + self.width(longest)
                if after == len(self._end) or spelled[after]:
                    spelled[at] = (longest, *spelled[after])
        return spelled

    def _bars(self, state: int) -> frozenset[int]:
        far = {*self._modes[state].along(self._start)[len(self._start) // 2 :]}
        both = {**self._steps[self.outside], **self._steps[state]}
        return frozenset(
            token
            for token, step in both.items()
            if step.crossing is Crossing.OPENED or step.state in far
        )


class _Tokens:
    """The tokens of a vocabulary, by their symbols."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._by_first: dict[int, list[int]] = defaultdict(list)
        for token, text in enumerate(vocabulary.spelling):
            if text:
                self._by_first[text[0]].append(token)

    def that_begin_with(self, symbol: int) -> Sequence[int]:
        if symbol >= ATOM:
            return [symbol - ATOM]
        return self._by_first[symbol]

    def that_hold(self, symbols: Iterable[int]) -> Iterator[int]:
        """Give the tokens that hold one of these symbols."""
        wanted = {*symbols}
        yield from (symbol - ATOM for symbol in wanted if symbol >= ATOM)
        some = [bytes([symbol]) for symbol in wanted if symbol < ATOM]
        for token, text in enumerate(self._vocabulary.spelling if some else ()):
            if any(one in text for one in some):
                yield token

    def longest(self, symbols: Sequence[int]) -> int | None:
        """Return the longest token that these symbols begin with, the first of its kind."""
        fits = [
            token
            for token in self.that_begin_with(symbols[0])
            if (text := self._vocabulary.symbols(token)) == tuple(symbols[: len(text)])
        ]
        return max(fits, key=lambda token: (self._width(token), -token), default=None)

    def _width(self, token: int) -> int:
        return len(self._vocabulary.symbols(token))


def _symbols(text: Sequence[int], ids: Sequence[int], vocabulary: Vocabulary) -> tuple[int, ...]:
    """Return a marker's symbols: its text, unless the tokens that it has are not seen to spell it.

    So it is where a tokenizer does not tell the bytes of its tokens. Some put a
    space before a text, which is no part of the marker.
    """
    spelled = tuple(symbol for token in ids for symbol in vocabulary.symbols(token))
    return tuple(text) if text and spelled[-len(text) :] == tuple(text) else spelled


@lru_cache(maxsize=8)
def matcher_of(markers: Markers, vocabulary: Vocabulary) -> MarkerMatcher:
    """Return the matcher of a model; making one takes a pass over its vocabulary."""
    return MarkerMatcher(markers, vocabulary)
