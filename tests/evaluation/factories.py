"""Builders of runs, responses and answer records."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from proctor.evaluation.conditions import Condition
from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.run_config import RunConfig
from proctor.evaluation.statistics.delta import Interval
from proctor.evaluation.statistics.samples import Floats, Run, Sample

CONFIG = RunConfig("m", "sums.jsonl", "{question}", "numeric", 0.6, 0.95, 1)


def run(name: str, answers: Mapping[str, Sequence[float]], tokens: int = 100) -> Run:
    """Return a run whose samples have `tokens` tokens each, all of them thinking."""
    return Run(
        name,
        tuple(
            Sample(question, tokens, tokens, correct)
            for question, samples in answers.items()
            for correct in samples
        ),
    )


def simulate(
    generator: np.random.Generator, chances: Sequence[float] | Floats, tokens: float, samples: int
) -> Run:
    """Simulate a run: each question has its own chance of a right answer.

    The tokens of an answer vary by up to a half around the mean.
    """
    right = generator.random((len(chances), samples)) < np.asarray(chances)[:, None]
    spent = tokens * generator.uniform(0.5, 1.5, right.shape)
    return Run(
        f"{tokens:g} tokens",
        tuple(
            Sample(f"{at:04}", count, count, float(correct), index=index)
            for at, (counts, row) in enumerate(zip(spent, right, strict=True))
            for index, (count, correct) in enumerate(zip(counts, row, strict=True))
        ),
    )


def covers(estimate: Interval, truth: float) -> bool:
    """Return whether an interval contains the truth."""
    return estimate.low <= truth <= estimate.high


def response(
    tokens: int = 2,
    content: str = "1",
    logprobs: Any = None,
    cost: Any = None,
    **thinking: Any,
) -> dict[str, Any]:
    """Return a response with `tokens` thinking tokens and one token of answer.

    Given a field of `thinking`, the response has that object with all that Proctor reports.
    """
    if thinking:
        thinking = {"end_reason": "natural", "continuations": 0, "forced_tokens": 0, **thinking}
    choice: dict[str, Any] = {"message": {"content": content}, "logprobs": logprobs}
    return {
        "choices": [{**choice, "thinking": thinking} if thinking else choice],
        "usage": {
            "prompt_tokens": 1,
            "completion_tokens": tokens + 1,
            "completion_tokens_details": {"reasoning_tokens": tokens},
        },
        "cost": cost,
    }


def row(
    condition: Condition,
    question: str = "q",
    sample: int = 0,
    score: float = 1.0,
    normalized_answer: str | None = "1",
    **thinking: Any,
) -> AnswerRecord:
    """Return an answer record; `thinking` is the object of that name in its response."""
    return AnswerRecord(
        condition, question, sample, score, normalized_answer, None, 0.5, response(**thinking)
    )
