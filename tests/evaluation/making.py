"""Runs by hand."""

from collections.abc import Mapping, Sequence

from evaluation.samples import Run, Sample


def run(name: str, answers: Mapping[str, Sequence[float]], tokens: int = 100) -> Run:
    """A run whose samples took so many tokens each, all of them thinking."""
    return Run(
        name,
        tuple(
            Sample(question, tokens, tokens, correct)
            for question, samples in answers.items()
            for correct in samples
        ),
    )
