import tomllib
from importlib import resources

import pytest

from proctor.router.features.lexicon import (
    EDGE_WORDS,
    MIN_PREFIX_LENGTH,
    SCRIPTS,
    Lexicon,
    words_of,
)

LEXICON = Lexicon(
    {
        "prove": {"en": "prove, show that, if and only*", "ru": "докаж*", "zh": "证明, 求"},
        "count": {"en": "how many, prove", "de": "zähl*"},
    }
)
FILLER = "and so it went on for a good while until somebody asked " * 3


def test_words_prefixes_and_phrases_are_counted() -> None:
    hits = LEXICON.find("show that it holds, show that; prove: if and onlyest, zähle, zählen")
    assert hits.counts == {"prove": 4, "count": 3}
    assert hits.terms == {"prove": "prove", "count": "prove"}


@pytest.mark.parametrize("text", ["improve", "show a that", "how man", "zäh", "недокажу", ""])
def test_a_part_of_a_word_does_not_match(text: str) -> None:
    assert LEXICON.find(text).counts == {}


def test_terms_of_other_scripts_are_found() -> None:
    assert LEXICON.find("请证明这个数列收敛并求极限").counts == {"prove": 2}
    assert LEXICON.find("пусть она докажет").counts == {"prove": 1}


@pytest.mark.parametrize("term", ["if and only", "show that", "докажите"])
def test_terms_at_the_edges_are_leading_or_trailing(term: str) -> None:
    first, last = LEXICON.find(f"{term} {FILLER}"), LEXICON.find(f"{FILLER} {term}")
    assert (first.leading, first.trailing) == ({"prove"}, set())
    assert (last.leading, last.trailing) == (set(), {"prove"})
    middle = LEXICON.find(f"{FILLER} {term} {FILLER}")
    assert (middle.counts, middle.leading | middle.trailing) == ({"prove": 1}, set())


def test_an_edge_has_a_fixed_number_of_words() -> None:
    before = "x " * (EDGE_WORDS - 1)
    assert LEXICON.find(f"{before} show that {FILLER}").leading == {"prove"}
    assert LEXICON.find(f"x {before} show that {FILLER}").leading == set()
    assert LEXICON.find(f"{FILLER} show that {'x ' * (EDGE_WORDS - 2)}").trailing == {"prove"}
    assert LEXICON.find(f"{FILLER} show that {before}").trailing == set()


@pytest.mark.parametrize("text", ["don't_stop 3rd x2y naïve", "Ünïcode — 漢字かな 5 ñandú"])
def test_words_are_runs_of_letters(text: str) -> None:
    letters = "".join(character if character.isalpha() else " " for character in text)
    assert words_of(text) == letters.split()


def test_prefixes_in_the_shipped_lexicon_are_long_enough() -> None:
    groups = tomllib.loads(
        resources.files("proctor.router.features").joinpath("lexicon.toml").read_text("utf-8")
    )
    for languages in groups.values():
        for language, terms in languages.items():
            for term in terms.split(", "):
                if language not in SCRIPTS:
                    words = words_of(term)
                    assert words, term
                    assert (
                        len(words) > 1
                        or not term.endswith("*")
                        or len(words[0]) >= MIN_PREFIX_LENGTH
                    )
