"""Matches thinking markers in a sequence of tokens, however their text is tokenized.

A marker in ordinary text can be tokenized in many ways, and a token can contain
part of it together with other text (` </`, `think`, `>.`). Markers are therefore
matched on symbols: the bytes of ordinary tokens, and a single symbol for each token
that is matched as a whole, such as a special token. The algorithm is that of Aho and
Corasick (Efficient string matching, 1975), advanced by whole tokens: its tables
give, for each state and token, the state after the token's symbols.

Two automata share one set of state numbers. Outside a thinking block, a start marker
opens one, and an end marker, which closes nothing, is stray. Inside, the end marker
closes the block. The last state, `inert`, matches nothing.
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
    """The transition on a token.

    Attributes:
        state: the state after the token.
        crossing: the marker that the token completes.
        span: how many of the last symbols belong to a marker or a partial match;
            if a marker is completed, includes the token's symbols after it.
        rest: the number of the token's symbols after the marker that it completes.
    """

    state: int
    crossing: Crossing = Crossing.NONE
    span: int = 0
    rest: int = 0


class _Node(NamedTuple):
    """A node of an automaton's trie.

    Attributes:
        children: the next node by symbol.
        depth: the number of marker symbols matched.
    """

    children: dict[int, int]
    depth: int


class _Automaton:
    """An Aho-Corasick automaton; its node n is the matcher's state `base` + n."""

    def __init__(self, base: int, patterns: Sequence[tuple[Crossing, Sequence[int]]]) -> None:
        self.base = base
        self.nodes = [_Node({}, 0)]
        self._markers_at: dict[int, Crossing] = {}
        self._fallback = [0]
        for crossing, pattern in patterns:
            self._markers_at[self._insert(pattern)] = crossing
        self._link()

    def _insert(self, pattern: Sequence[int]) -> int:
        node = 0
        for symbol in pattern:
            if symbol not in self.nodes[node].children:
                self.nodes[node].children[symbol] = len(self.nodes)
                self.nodes.append(_Node({}, self.nodes[node].depth + 1))
                self._fallback.append(0)
            node = self.nodes[node].children[symbol]
        return node

    def _link(self) -> None:
        """Set each node's fallback: the longest proper suffix that is a prefix of a pattern."""
        queue = deque(self.nodes[0].children.values())
        while queue:
            node = queue.popleft()
            for symbol, child in self.nodes[node].children.items():
                self._fallback[child] = self.goto(self._fallback[node], symbol)
                queue.append(child)
        # By increasing depth, so that a fallback's own marker is known.
        for node in sorted(range(1, len(self.nodes)), key=lambda node: self.nodes[node].depth):
            suffix = self.marker_at(self._fallback[node])
            if suffix is Crossing.OPENED or (suffix and not self.marker_at(node)):
                self._markers_at[node] = suffix

    def goto(self, node: int, symbol: int) -> int:
        """Return the node after one more symbol."""
        while node and symbol not in self.nodes[node].children:
            node = self._fallback[node]
        return self.nodes[node].children.get(symbol, 0)

    def rejoins_root(self, node: int, symbols: Sequence[int]) -> bool:
        """Return whether symbols lead to the same node from `node` and the root, without a match.

        If they do, the transition from the root applies to `node` too.
        """
        from_root = 0
        for symbol in symbols:
            node, from_root = self.goto(node, symbol), self.goto(from_root, symbol)
            if node == from_root or self.marker_at(node):
                return node == from_root and not self.marker_at(node)
        return False

    def marker_at(self, node: int) -> Crossing:
        """Return the marker that ends at a node."""
        return self._markers_at.get(node, Crossing.NONE)

    def path(self, pattern: Sequence[int]) -> list[int]:
        """Return the nodes along a pattern, without the root."""
        node, nodes = 0, []
        for symbol in pattern:
            node = self.nodes[node].children[symbol]
            nodes.append(node)
        return nodes

    def longest_suffix(self, node: int, among: Container[int]) -> int:
        """Return the longest suffix of a node that is in `among`, or the root."""
        while node and node not in among:
            node = self._fallback[node]
        return node


class MarkerMatcher:
    """Matches a model's markers, token by token.

    Attributes:
        markers: the markers.
        outside: the state outside a thinking block with nothing matched.
        inside: the state inside a block with nothing matched.
        inert: the state that matches nothing.
        states: the number of states.
        depth: for each state, the number of marker symbols matched.
    """

    def __init__(self, markers: Markers, vocabulary: Vocabulary) -> None:
        self.markers = markers
        self._vocabulary = vocabulary
        self._start = _symbols(markers.start_symbols, markers.start, vocabulary)
        self._end = _symbols(markers.end_symbols, markers.end, vocabulary)
        outside = _Automaton(0, [(Crossing.STRAY, self._end), (Crossing.OPENED, self._start)])
        # A stray end marker may end in a prefix of a start marker, whose match goes on.
        self._openings = frozenset(outside.path(self._start)[:-1])
        inside = _Automaton(len(outside.nodes), [(Crossing.CLOSED, self._end)])
        self.outside, self.inside = outside.base, inside.base
        self.inert = inside.base + len(inside.nodes)
        self.states = self.inert + 1
        # After a complete marker nothing is matched, except what a stray one may begin.
        depths = [
            0
            if automaton.marker_at(index) and (automaton is inside or index not in self._openings)
            else node.depth
            for automaton in (outside, inside)
            for index, node in enumerate(automaton.nodes)
        ]
        self.depth = [*depths, 0]
        self._automaton_of = [outside] * len(outside.nodes) + [inside] * len(inside.nodes)
        self._is_root = [self.root(state) == state for state in range(self.states)]
        # By state and token; tokens not listed have the transition of the state's root.
        self._steps: list[dict[int, Step]] = [{} for _ in range(self.states)]
        tokens = _Tokens(vocabulary)
        for automaton in (outside, inside):
            self._fill_root(automaton, tokens)
            self._fill_states(automaton, tokens)
        self._completions = self._completions_by_state(tokens)
        self._barred = [self._barred_tokens(state) for state in range(self.inside)]

    @property
    def has_multi_symbol_marker(self) -> bool:
        """Whether a marker has several symbols, so that it can be matched in part."""
        return any(self.depth)

    def step(self, state: int, token: int) -> Step:
        """Return the transition from a state on a token."""
        step = self._steps[state].get(token)
        if step is None:
            root = self.root(state)
            step = self._steps[root].get(token) or Step(root)
        return step

    def is_plain(self, state: int, token: int) -> bool:
        """Return whether nothing is matched in a state, nor after a token that follows it."""
        return self._is_root[state] and token not in self._steps[state]

    def root(self, state: int) -> int:
        """Return the state of the same automaton with nothing matched."""
        return self._automaton_of[state].base if state < self.inert else state

    def special_steps(self, state: int) -> Mapping[int, Step]:
        """Return the transitions of a state that differ from its root's; of a root, all."""
        return self._steps[state]

    def width(self, token: int) -> int:
        """Return the number of a token's symbols."""
        return len(self._vocabulary.symbols(token))

    def closing_tokens(self, state: int) -> frozenset[int]:
        """Return the tokens that complete the end marker inside a thinking block."""
        steps = {**self._steps[self.root(state)], **self._steps[state]}
        return frozenset(token for token, step in steps.items() if step.crossing is Crossing.CLOSED)

    def completion(self, state: int) -> tuple[int, ...]:
        """Return tokens that complete the end marker from a state inside a block.

        If the vocabulary cannot spell the rest, return the whole marker.
        """
        return self._completions[state - self.inside] or self.markers.end

    def barred(self, state: int) -> frozenset[int]:
        """Return the tokens that match more than half of the start marker, outside a block.

        A model that is denied only the last token of its marker writes something
        similar, and thinks nevertheless.
        """
        return self._barred[state] if state < self.inside else frozenset()

    def inside_after(self, tokens: Iterable[int]) -> bool:
        """Return whether a text of these tokens, which starts outside a block, ends inside one."""
        state = self.outside
        for token in tokens:
            state = self.outside if token in self.markers.eos else self.step(state, token).state
        return state >= self.inside

    def completes_marker(self, tokens: Sequence[int]) -> bool:
        """Return whether tokens contain a marker, or complete a partial end marker before them."""
        states = (self.outside, *range(self.inside, self.inert))
        return any(self._completes_from(state, tokens) for state in states)

    def _completes_from(self, state: int, tokens: Sequence[int]) -> bool:
        for token in tokens:
            state, crossing, _, _ = self.step(state, token)
            if crossing is not Crossing.NONE:
                return True
        return False

    def _run(self, automaton: _Automaton, node: int, symbols: Sequence[int]) -> Step:
        """Return the transition from a node of an automaton on a token's symbols."""
        crossing, rest, length = Crossing.NONE, 0, 0
        for count, symbol in enumerate(symbols, 1):
            node = automaton.goto(node, symbol)
            marker = automaton.marker_at(node)
            if marker is Crossing.NONE:
                continue
            if marker is Crossing.STRAY:
                node = automaton.longest_suffix(node, self._openings)
            else:
                node = 0
            if crossing in (Crossing.NONE, Crossing.STRAY):
                crossing, rest, length = marker, len(symbols) - count, self._length(marker)
                automaton = self._automaton_after(marker)
        if crossing is Crossing.NONE:
            return Step(automaton.base + node, span=automaton.nodes[node].depth)
        return Step(automaton.base + node, crossing, length + rest, rest)

    def _length(self, crossing: Crossing) -> int:
        return len(self._start if crossing is Crossing.OPENED else self._end)

    def _automaton_after(self, crossing: Crossing) -> _Automaton:
        """Return the automaton that continues after a marker.

        No known vocabulary has tokens with several markers; of those only the first counts.
        """
        return self._automaton_of[self.inside if crossing is Crossing.OPENED else self.outside]

    def _fill_root(self, automaton: _Automaton, tokens: "_Tokens") -> None:
        for token in tokens.containing(automaton.nodes[0].children):
            step = self._run(automaton, 0, self._vocabulary.symbols(token))
            if step != Step(automaton.base):
                self._steps[automaton.base][token] = step

    def _fill_states(self, automaton: _Automaton, tokens: "_Tokens") -> None:
        symbols = {symbol for node in automaton.nodes for symbol in node.children}
        for node in range(1, len(automaton.nodes)):
            for symbol in symbols:
                if automaton.goto(node, symbol) == automaton.goto(0, symbol):
                    continue
                for token in tokens.starting_with(symbol):
                    text = self._vocabulary.symbols(token)
                    if not automaton.rejoins_root(node, text):
                        self._steps[automaton.base + node][token] = self._run(automaton, node, text)

    def _completions_by_state(self, tokens: "_Tokens") -> list[tuple[int, ...]]:
        """Return, by state inside a block, the tokens that complete the end marker.

        At a boundary of the marker's own tokens these are its remaining tokens;
        elsewhere, the longest tokens that fit. Computed from the marker's end
        backwards, so that the state after each token is known.
        """
        canonical, position = {}, len(self._end)
        for count, token in enumerate(reversed(self.markers.end), 1):
            position -= self.width(token)
            canonical[position] = self.markers.end[-count:]
        completions: list[tuple[int, ...]] = [()] * (len(self._end) + 1)
        for position in range(len(self._end) - 1, 0, -1):
            if position in canonical:
                completions[position] = canonical[position]
            elif (longest := tokens.longest(self._end[position:])) is not None:
                after = position + self.width(longest)
                if after == len(self._end) or completions[after]:
                    completions[position] = (longest, *completions[after])
        return completions

    def _barred_tokens(self, state: int) -> frozenset[int]:
        second_half = {*self._automaton_of[state].path(self._start)[len(self._start) // 2 :]}
        steps = {**self._steps[self.outside], **self._steps[state]}
        return frozenset(
            token
            for token, step in steps.items()
            if step.crossing is Crossing.OPENED or step.state in second_half
        )


class _Tokens:
    """An index of a vocabulary's tokens by symbol."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._by_first: dict[int, list[int]] = defaultdict(list)
        for token, text in enumerate(vocabulary.spelling):
            if text:
                self._by_first[text[0]].append(token)

    def starting_with(self, symbol: int) -> Sequence[int]:
        if symbol >= ATOM:
            return [symbol - ATOM]
        return self._by_first[symbol]

    def containing(self, symbols: Iterable[int]) -> Iterator[int]:
        """Yield the tokens that contain any of these symbols."""
        distinct = {*symbols}
        yield from (symbol - ATOM for symbol in distinct if symbol >= ATOM)
        encoded = [bytes([symbol]) for symbol in distinct if symbol < ATOM]
        for token, text in enumerate(self._vocabulary.spelling if encoded else ()):
            if any(byte in text for byte in encoded):
                yield token

    def longest(self, symbols: Sequence[int]) -> int | None:
        """Return the longest token that is a prefix of these symbols; on a tie, the lowest id."""
        prefixes = [
            token
            for token in self.starting_with(symbols[0])
            if (text := self._vocabulary.symbols(token)) == tuple(symbols[: len(text)])
        ]
        return max(prefixes, key=lambda token: (self._width(token), -token), default=None)

    def _width(self, token: int) -> int:
        return len(self._vocabulary.symbols(token))


def _symbols(text: Sequence[int], ids: Sequence[int], vocabulary: Vocabulary) -> tuple[int, ...]:
    """Return a marker's symbols: those of its text, or of its tokens if these do not spell it.

    The latter is the case if the tokenizer does not expose its tokens' bytes. Some
    tokenizers insert a space before a text, which is not part of the marker.
    """
    of_tokens = tuple(symbol for token in ids for symbol in vocabulary.symbols(token))
    return tuple(text) if text and of_tokens[-len(text) :] == tuple(text) else of_tokens


@lru_cache(maxsize=8)
def matcher_of(markers: Markers, vocabulary: Vocabulary) -> MarkerMatcher:
    """Return a model's matcher, cached because building it iterates over the vocabulary."""
    return MarkerMatcher(markers, vocabulary)
