"""Estimates of a run's time, tokens and cost, before it and after its first answers."""

from collections.abc import Sequence
from contextlib import suppress
from statistics import mean

from proctor.evaluation.client import ServerClient
from proctor.evaluation.conditions import Condition
from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.runner import WorkItem
from proctor.evaluation.tasks import Question

LABELS = {"expected": "an expected cost of", "most": "a cost of at most"}
PRICED_QUESTIONS = 3
"""Questions of each condition whose price is requested from the server."""


async def before(client: ServerClient, work: Sequence[WorkItem]) -> str:
    """Describe the run: answers, maximum thinking tokens, and costs if the server has prices."""
    caps = [item.condition.max_tokens for item in work if item.condition.max_tokens is not None]
    parts = [f"{len(work):,} answers"]
    if caps:
        parts.append(f"at most {sum(caps):,} thinking tokens in the {len(caps):,} with a cap")
    return ", ".join([*parts, *await _costs(client, work)])


def after(rows: Sequence[AnswerRecord], remaining: Sequence[WorkItem], concurrency: int) -> str:
    """Estimate time, tokens and cost of the remaining answers.

    Args:
        rows: the first answers, which were requested one after the other.
        remaining: the answers still missing.
        concurrency: the number of concurrent requests.
    """
    count = len(remaining)
    seconds = mean(row.seconds for row in rows) * count / concurrency
    tokens = mean(row.generated for row in rows) * count
    estimate = f"{count:,} answers remaining: about {tokens:,.0f} tokens"
    costs = [row.cost for row in rows if row.cost is not None]
    if costs:
        estimate += f", a cost of {mean(costs) * count:.3g}"
    return (
        f"{estimate}, and {seconds:,.0f} s if the server answers {concurrency} concurrent requests "
        "as fast as one"
    )


async def _costs(client: ServerClient, work: Sequence[WorkItem]) -> list[str]:
    """Describe the costs that the server estimates for every condition."""
    by_condition: dict[Condition, list[Question]] = {}
    for item in work:
        by_condition.setdefault(item.condition, []).append(item.question)
    prices = [
        (
            len(questions),
            [await client.price(condition, each) for each in questions[:PRICED_QUESTIONS]],
        )
        for condition, questions in by_condition.items()
    ]
    parts = []
    for name, label in LABELS.items():
        with suppress(KeyError):
            total = sum(count * mean(cost[name] for cost in costs) for count, costs in prices)
            parts.append(f"{label} {total:.3g}")
    return parts
