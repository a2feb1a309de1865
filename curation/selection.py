"""The seam of the last step: choosing some of the rows that pass all stages."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from proctor.curation.options import Context, Options


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a selector knows of a row: little, so that all rows' fit into memory.

    Attributes:
        id: the row's id.
        question: the question, of which a classifier may need the words.
        domain: the subject: a classifier's, or else the data set's; empty without either.
        source: the name of the collection that the row comes from.
        trace_tokens: the length of the trace: in the tokens of the model that the recipe names,
            or else in words.
        correct: whether the answer equals the reference; None without a reference.
    """

    id: str
    question: str
    domain: str
    source: str
    trace_tokens: int
    correct: bool | None = None


class Classifier(Protocol):
    """Names the domain of each question."""

    def classify(self, questions: Iterable[str]) -> list[str]:
        """Return the domain of each question, in their order.

        It is called once, with the questions of all candidates, so that it may compare them.
        """


class Selector(Protocol):
    """Chooses the rows that are written."""

    def select(self, candidates: Sequence[Candidate], rng: random.Random) -> list[str]:
        """Return the ids of the chosen candidates, in the order in which they are written.

        Args:
            candidates: the rows that pass all stages, in the order of the input.
            rng: the only source of chance; it is seeded by the recipe.

        Raises:
            CurationError: if the candidates do not allow what the options ask for; the message
                says which option, and what the candidates have.
        """


class ClassifierOptions(Options):
    """The options of a classifier."""

    def build(self, context: Context) -> Classifier:
        """Create the classifier; raises `CurationError` as a stage's options do."""
        raise NotImplementedError


class SelectorOptions(Options):
    """The options of a selector."""

    def build(self, context: Context) -> Selector:
        """Create the selector; raises `CurationError` as a stage's options do."""
        raise NotImplementedError
