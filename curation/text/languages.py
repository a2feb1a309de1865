"""Tells the language of a text by its script, and among those in Latin script by stop words.

That is enough to find the rows in another language of a collection that is mostly in one. It
cannot tell languages apart that share both, and says nothing of texts of a few words.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache

SCRIPTS = {
    "ar": {"ARABIC"},
    "el": {"GREEK"},
    "he": {"HEBREW"},
    "hi": {"DEVANAGARI"},
    "ja": {"HIRAGANA", "KATAKANA", "CJK"},
    "ko": {"HANGUL"},
    "ru": {"CYRILLIC"},
    "th": {"THAI"},
    "uk": {"CYRILLIC"},
    "zh": {"CJK"},
}
"""The scripts of the languages that are not written in Latin letters."""

STOP_WORDS = {
    "cs": "je na se že to do jsou který pro by tak jako jeho ale nebo",
    "de": "der die das und ist nicht ein eine er es hat zu den von mit dem sich auf wie wir viele",
    "en": "the of and to in is that it for as with are this be by from so we have what how if not",
    "es": "el la de que en los se del las un por con una para es como su al lo más tiene cada",
    "fr": "le la les de des et est une un que dans pour qui sur pas nous au avec ce du sont chaque",
    "id": "yang dan di itu dengan untuk dari ini tidak dalam adalah pada akan kita ada atau",
    "it": "il di che la per un in una non sono con del della si le dei come più",
    "nl": "de het een van en is dat op te in voor met die niet zijn er aan ook als bij",
    "pl": "na nie się jest do to że jak po co za przez są dla od ale",
    "pt": "de que do da em um para com não uma os no se na por mais as",
    "sv": "och att det som en är av för på med den till inte om ett de kan har så vi",
    "tr": "ve bir bu için ile da de ne olarak çok daha gibi olan her kadar sonra ama",
    "vi": "là và của có một các trong cho không được với những này người để đã khi từ",
}
"""Frequent words of languages in Latin letters; none of one letter, as these are variables too."""

KNOWN = frozenset({*SCRIPTS, *STOP_WORDS})
WORDS = re.compile(r"[^\W\d_]+")
CODE = re.compile(
    r"```.*?```|\$\$.*?\$\$|\$[^$\n]*\$|\\\[.*?\\\]|\\\(.*?\\\)|\\[a-zA-Z]+", re.DOTALL
)
"""Code and formulas, whose letters are of no language."""

FOREIGN_SHARE = 0.2
"""The share of letters in scripts that the languages do not use from which a text is foreign."""

MIN_LETTERS = 8
MIN_DISTINCT = 4
"""Different stop words of a language that a text must have: one word proves nothing."""

STOP_WORD_SHARE = 0.1
"""The least share of stop words in texts of a language; about 0.3 is usual."""

_SETS = {language: frozenset(words.split()) for language, words in STOP_WORDS.items()}


def other_language(text: str, languages: tuple[str, ...]) -> str | None:
    """Return the script or language of a text that is in none of the languages, or None.

    Args:
        text: the text; only the first 20,000 characters are looked at.
        languages: codes among `KNOWN`.
    """
    prose = CODE.sub(" ", text[:20_000])
    return _other_script(prose, languages) or _other_words(prose, languages)


def _other_script(prose: str, languages: tuple[str, ...]) -> str | None:
    scripts: Counter[str] = Counter()
    for char, count in Counter(prose).items():
        if char.isalpha():
            scripts[_script(char)] += count
    total = sum(scripts.values())
    # Latin and Greek letters are names and variables in every language.
    allowed = {"LATIN", "GREEK", "MATHEMATICAL"}.union(
        *(SCRIPTS.get(each, ()) for each in languages)
    )
    foreign = {script: count for script, count in scripts.items() if script not in allowed}
    if total < MIN_LETTERS or sum(foreign.values()) <= FOREIGN_SHARE * total:
        return None
    return max(sorted(foreign), key=lambda script: foreign[script]).title()


def _other_words(prose: str, languages: tuple[str, ...]) -> str | None:
    """Return the language whose stop words are most frequent, if it is clearly another."""
    words = Counter(WORDS.findall(prose.lower()))
    counts = {
        language: sum(words[word] for word in stop_words) for language, stop_words in _SETS.items()
    }
    own = max((counts[language] for language in languages if language in counts), default=0)
    best = max(counts, key=lambda language: counts[language])
    distinct = len(_SETS[best] & words.keys())
    enough = distinct >= MIN_DISTINCT and counts[best] >= STOP_WORD_SHARE * words.total()
    return best if enough and counts[best] > 2 * own else None


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    return unicodedata.name(char, "UNKNOWN").partition(" ")[0]
