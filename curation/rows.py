"""A question with a trace and an answer: what all stages judge."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """A question with a trace and an answer.

    Attributes:
        id: unique in its data set, and the same each time that it is read.
        question: the question as a user asks it.
        trace: the thinking, without markers; empty if there is none.
        answer: what is answered after the thinking.
        reference: the right answer, if the data set knows it.
        domain: the subject, if the data set or a classifier names it.
        source: the name of the collection that the row comes from.
        metadata: the fields of the data set that no attribute holds, as JSON.
    """

    id: str
    question: str
    trace: str
    answer: str
    reference: str | None = None
    domain: str | None = None
    source: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
