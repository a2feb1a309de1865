"""Domains by keywords: those of the built-in table, or of the recipe."""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Annotated

from pydantic import Field

from proctor.curation.options import Context
from proctor.curation.selection import Classifier, ClassifierOptions

OTHER = "other"
"""The domain of questions that a classifier cannot place."""


class KeywordsOptions(ClassifierOptions):
    """Place each question in the domain of which it has the most keywords.

    Attributes:
        keywords: the keywords of each domain, in place of the built-in ones. A keyword is one or
            more words; with `*` at its end it is the beginning of a word.
    """

    keywords: Annotated[dict[str, list[str]], Field(min_length=1)] | None = None

    def build(self, context: Context) -> Classifier:
        return Keywords(built_in_keywords() if self.keywords is None else self.keywords)


class Keywords:
    """Counts the occurrences of each domain's keywords; of equal counts the first domain wins."""

    def __init__(self, keywords: Mapping[str, Sequence[str]]) -> None:
        self._patterns = {domain: _pattern(listed) for domain, listed in keywords.items()}

    def classify(self, questions: Iterable[str]) -> list[str]:
        """Return the domain of each question; `other` if it has no keyword."""
        return [self._domain(question) for question in questions]

    def _domain(self, question: str) -> str:
        counts = {
            domain: sum(1 for _ in pattern.finditer(question))
            for domain, pattern in self._patterns.items()
        }
        domain = max(counts, key=counts.__getitem__)
        return domain if counts[domain] else OTHER


def built_in_keywords() -> dict[str, list[str]]:
    """Return the built-in table: subjects of schools and universities."""
    text = files("proctor.curation.diversity").joinpath("keywords.toml").read_text("utf-8")
    return tomllib.loads(text)


def _pattern(keywords: Sequence[str]) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(map(_spelling, keywords)) + r")\b", re.IGNORECASE)


def _spelling(keyword: str) -> str:
    words = r"\s+".join(map(re.escape, keyword.removesuffix("*").split()))
    return words + (r"\w*" if keyword.endswith("*") else "")
