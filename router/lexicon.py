"""Finds the words of `lexicon.toml` in a text."""

import re
import tomllib
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from itertools import chain

_WORD = re.compile(r"[^\W\d_]+")
_ONLY_LETTERS = {at: " " for at in range(128) if not chr(at).isalpha()}

SCRIPTS = {
    "he": ("\u0590", "\u05ff"),
    "ar": ("\u0600", "\u06ff"),
    "fa": ("\u0600", "\u06ff"),
    "hi": ("\u0900", "\u097f"),
    "bn": ("\u0980", "\u09ff"),
    "te": ("\u0c00", "\u0c7f"),
    "th": ("\u0e00", "\u0e7f"),
    "ko": ("\uac00", "\ud7af"),
    "ja": ("\u3040", "\u30ff"),
    "zh": ("\u4e00", "\u9fff"),
}
"""Languages whose terms are looked for anywhere in the text, and the first and last of the
characters that show that a text may be in them. Other languages' terms are whole words."""

EDGE_WORDS = 10
EDGE_CHARACTERS = 20
"""How much of a text counts as its beginning, and its end."""

LEAST_LETTERS = 3
"""Of the beginning of a word: shorter ones would not be found."""


def words_of(text: str) -> list[str]:
    """The runs of letters in a text, in order."""
    # Of ASCII the same, five times as fast.
    return text.translate(_ONLY_LETTERS).split() if text.isascii() else _WORD.findall(text)


@dataclass(slots=True)
class Hits:
    """How often each group was found in a text, and which at its edges."""

    counts: dict[str, int] = field(default_factory=dict)
    leading: set[str] = field(default_factory=set)
    trailing: set[str] = field(default_factory=set)
    terms: dict[str, str] = field(default_factory=dict)

    def add(self, group: str, term: str, count: int, *, leads: bool, trails: bool) -> None:
        self.counts[group] = self.counts.get(group, 0) + count
        self.terms.setdefault(group, term)
        if leads:
            self.leading.add(group)
        if trails:
            self.trailing.add(group)

    def search(self, group: str, text: str, term: str, head: int, tail: int) -> None:
        """Add a term where it is in the text, whose edges end at `head` and begin at `tail`."""
        first = text.find(term)
        if first >= 0:
            leads, trails = first < head, text.rfind(term) >= tail
            self.add(group, term.strip(), text.count(term), leads=leads, trails=trails)


class Lexicon:
    """Groups of terms: whole words, beginnings of words (`a*`), phrases, and parts of a text."""

    def __init__(self, groups: dict[str, dict[str, str]]) -> None:
        self.groups = tuple(groups)
        self._words: dict[str, set[str]] = {}
        # Beginnings by their first letters, parts by their first two characters: few are tried.
        self._beginnings: dict[str, list[tuple[str, str]]] = {}
        self._phrases: dict[str, list[tuple[str, str]]] = {}
        self._parts: dict[str, dict[str, list[tuple[str, str]]]] = {name: {} for name in SCRIPTS}
        for group, languages in groups.items():
            for language, terms in languages.items():
                for term in terms.split(", "):
                    self._learn(group, language, term)

    def _learn(self, group: str, language: str, term: str) -> None:
        if language in SCRIPTS:
            self._parts[language].setdefault(term[:2], []).append((term, group))
            return
        words = words_of(term)
        open_ended = term.endswith("*")
        if len(words) > 1:
            phrase = f" {' '.join(words)}" if open_ended else f" {' '.join(words)} "
            self._phrases.setdefault(words[0], []).append((phrase, group))
        elif open_ended:
            self._beginnings.setdefault(words[0][:LEAST_LETTERS], []).append((words[0], group))
        else:
            self._words.setdefault(words[0], set()).add(group)

    def find(self, text: str, words: list[str] | None = None) -> Hits:
        """What a text in lower case holds; `words` are its words, where they are at hand."""
        hits = Hits()
        self._find_words(words_of(text) if words is None else words, hits)
        if not text.isascii():
            self._find_parts(text, hits)
        return hits

    def _find_words(self, words: list[str], hits: Hits) -> None:
        counts = Counter(words)
        leading, trailing = set(words[:EDGE_WORDS]), set(words[-EDGE_WORDS:])
        for word, count in counts.items():
            for group in self._groups_of(word):
                hits.add(group, word, count, leads=word in leading, trails=word in trailing)
        line = f" {' '.join(words)} "
        head = 1 + len(" ".join(words[:EDGE_WORDS]))
        tail = len(line) - 2 - len(" ".join(words[-EDGE_WORDS:]))
        for word in filter(self._phrases.__contains__, counts):
            for phrase, group in self._phrases[word]:
                hits.search(group, line, phrase, head, tail)

    def _groups_of(self, word: str) -> set[str]:
        groups = self._words.get(word, set())
        begun = self._beginnings.get(word[:LEAST_LETTERS])
        if begun is None:
            return groups
        return groups.union(group for beginning, group in begun if word.startswith(beginning))

    def _find_parts(self, text: str, hits: Hits) -> None:
        characters = set(text)
        for language in _languages(sorted(characters)):
            parts = self._parts[language]
            # A text's characters are known at once, its pairs are not.
            near = [pair for pair in parts if characters.issuperset(pair) and pair in text]
            for term, group in chain.from_iterable(map(parts.__getitem__, near)):
                hits.search(group, text, term, EDGE_CHARACTERS, len(text) - EDGE_CHARACTERS)


def _languages(characters: Sequence[str]) -> list[str]:
    """The languages in which a text may be that has these characters, given in order."""
    found = []
    for name, (first, last) in SCRIPTS.items():
        at = bisect_left(characters, first)
        if at < len(characters) and characters[at] <= last:
            found.append(name)
    # Japanese is written with Han characters too; Chinese never with kana.
    return [name for name in found if name != "zh" or "ja" not in found]


@cache
def load() -> Lexicon:
    """The lexicon of the package."""
    return Lexicon(_groups())


@cache
def only(group: str) -> Lexicon:
    """One group of it: far less to look for."""
    return Lexicon({group: _groups()[group]})


@cache
def _groups() -> dict[str, dict[str, str]]:
    return tomllib.loads(
        resources.files("proctor.router").joinpath("lexicon.toml").read_text("utf-8")
    )
