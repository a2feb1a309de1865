"""Names the domains of the rows that pass all stages, and chooses among them."""

import random
from collections.abc import Sequence
from dataclasses import replace

from proctor.curation.answers import same_answer
from proctor.curation.errors import CurationError
from proctor.curation.options import Context
from proctor.curation.rows import Row
from proctor.curation.selection import Candidate, ClassifierOptions, SelectorOptions
from proctor.curation.tokens import Tokens


def to_candidate(row: Row, tokens: Tokens) -> Candidate:
    """Return what a selector knows of a row."""
    correct = None if row.reference is None else same_answer(row.answer, row.reference)
    length = tokens.count(row.trace)
    return Candidate(row.id, row.question, row.domain or "", row.source, length, correct)


def classify(
    candidates: Sequence[Candidate],
    classifier: tuple[str, ClassifierOptions] | None,
    context: Context,
) -> list[Candidate]:
    """Return the candidates with a classifier's domains; without one, with their own."""
    if classifier is None:
        return list(candidates)
    domains = classifier[1].build(context).classify(each.question for each in candidates)
    return [
        replace(candidate, domain=domain)
        for candidate, domain in zip(candidates, domains, strict=True)
    ]


def select(
    candidates: Sequence[Candidate],
    selector: tuple[str, SelectorOptions] | None,
    context: Context,
) -> list[str]:
    """Return the ids of the candidates that a selector chooses; without one, of all.

    Raises:
        CurationError: if the candidates do not allow what the selector is to choose, or it
            chooses one twice.
    """
    if selector is None:
        return [candidate.id for candidate in candidates]
    name, options = selector
    chosen = options.build(context).select(candidates, random.Random(context.seed))
    if len({*chosen}) < len(chosen):
        raise CurationError(f"the selector '{name}' chose a row twice")
    return chosen
