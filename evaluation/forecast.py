"""What a run will take, told before its first request and once more after the first answers."""

from collections.abc import Sequence
from statistics import mean

from evaluation.asking import Examiner
from evaluation.rows import Row
from evaluation.running import Ask
from evaluation.settings import Setting
from evaluation.tasks import Question

PRICED = 3
"""Questions of each setting whose price the server is asked for."""


async def before(examiner: Examiner, work: Sequence[Ask]) -> str:
    """Answers, most thinking tokens, and cost by the server's own expectation, where it has one."""
    capped = [ask.setting.most for ask in work if ask.setting.most is not None]
    told = [f"{len(work):,} answers"]
    if capped:
        told.append(f"at most {sum(capped):,} thinking tokens in the {len(capped):,} with a cap")
    cost = await _expected_cost(examiner, work)
    if cost is not None:
        told.append(f"an expected cost of {cost:.3g}")
    return ", ".join(told)


def after(rows: Sequence[Row], left: Sequence[Ask], at_a_time: int) -> str:
    """Time, tokens and cost of what is left, by what came first.

    Args:
        rows: the first answers, which came one by one.
        left: what is still to be asked.
        at_a_time: requests that will run side by side.
    """
    seconds = mean(row.seconds for row in rows) * len(left) / at_a_time
    tokens = mean(row.generated for row in rows) * len(left)
    told = f"{len(left):,} answers more: about {tokens:,.0f} tokens"
    costs = [row.cost for row in rows if row.cost is not None]
    if costs:
        told += f", a cost of {mean(costs) * len(left):.3g}"
    return (
        f"{told}, and {seconds:,.0f} s if the server answers {at_a_time} at a time as fast as one"
    )


async def _expected_cost(examiner: Examiner, work: Sequence[Ask]) -> float | None:
    """None if the server cannot price one of the settings."""
    asked: dict[Setting, list[Question]] = {}
    for ask in work:
        asked.setdefault(ask.setting, []).append(ask.question)
    total = 0.0
    for setting, questions in asked.items():
        costs = [await examiner.expected_cost(setting, each) for each in questions[:PRICED]]
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(costs):
            return None
        total += mean(known) * len(questions)
    return total
