"""What a run will take, told before its first request and once more after the first answers."""

from collections.abc import Sequence
from contextlib import suppress
from statistics import mean

from proctor.evaluation.client import ServerClient
from proctor.evaluation.conditions import Condition
from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.runner import WorkItem
from proctor.evaluation.tasks import Question

WORDS = {"expected": "an expected cost of", "most": "a cost of at most"}
PRICED = 3
"""Questions of each setting whose price the server is asked for."""


async def before(examiner: ServerClient, work: Sequence[WorkItem]) -> str:
    """Answers, most thinking tokens, and costs as far as the server can tell them."""
    capped = [ask.setting.most for ask in work if ask.setting.most is not None]
    told = [f"{len(work):,} answers"]
    if capped:
        told.append(f"at most {sum(capped):,} thinking tokens in the {len(capped):,} with a cap")
    return ", ".join([*told, *await _costs(examiner, work)])


def after(rows: Sequence[AnswerRecord], left: Sequence[WorkItem], concurrency: int) -> str:
    """Time, tokens and cost of what is left, by what came first.

    Args:
        rows: the first answers, which came one by one.
        left: what is still to be asked.
        concurrency: requests that will run side by side.
    """
    seconds = mean(row.seconds for row in rows) * len(left) / concurrency
    tokens = mean(row.generated for row in rows) * len(left)
    told = f"{len(left):,} answers more: about {tokens:,.0f} tokens"
    costs = [row.cost for row in rows if row.cost is not None]
    if costs:
        told += f", a cost of {mean(costs) * len(left):.3g}"
    return (
        f"{told}, and {seconds:,.0f} s if the server answers {concurrency} at a time as fast as one"
    )


async def _costs(examiner: ServerClient, work: Sequence[WorkItem]) -> list[str]:
    """What the server can say of every setting."""
    asked: dict[Condition, list[Question]] = {}
    for ask in work:
        asked.setdefault(ask.setting, []).append(ask.question)
    priced = [
        (len(questions), [await examiner.price(setting, each) for each in questions[:PRICED]])
        for setting, questions in asked.items()
    ]
    told = []
    for name, words in WORDS.items():
        with suppress(KeyError):
            total = sum(count * mean(cost[name] for cost in costs) for count, costs in priced)
            told.append(f"{words} {total:.3g}")
    return told
