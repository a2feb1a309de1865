"""What a coin and a perfect router get: the lines against which conditions are judged."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.report.findings import ConditionResults, Findings
from proctor.evaluation.statistics.delta import Interval
from proctor.evaluation.statistics.mixture import margins, vertices
from proctor.evaluation.statistics.oracle import (
    can_hold_out,
    held_out_router,
    line,
    perfect_router,
)
from proctor.evaluation.statistics.samples import Run, have_shared_questions
from proctor.evaluation.statistics.strategies import majority

Points = Sequence[tuple[float, float]]
"""Mean thinking tokens and accuracy, by rising tokens."""


@dataclass(frozen=True, slots=True)
class Frontier:
    """The fixed conditions of a run, and what could be made of them.

    Attributes:
        fixed: the runs of the conditions that give every question the same budget.
        others: the runs of all other conditions; of those with votes, the majority's.
        routers: the perfect router, and if there are several answers per question, also the one
            that chooses by the other answers, at the price per token at which the cheapest
            condition is worth as much as the most accurate one.
    """

    fixed: tuple[Run, ...]
    others: tuple[Run, ...]
    routers: tuple[Run, ...]

    @classmethod
    def of(cls, findings: Findings) -> "Frontier":
        """Derive the lines' runs from a run's answers.

        They are judged on the questions that all of them have. Without any, there are no lines.
        Conditions whose thinking tokens are unknown have no place among them.
        """
        fixed = tuple(each.run for each in findings.fixed if each.run.has_token_counts)
        voted = [answered(each) for each in findings.results if not each.condition.is_fixed]
        others = tuple(run for run in voted if run.samples and run.has_token_counts)
        if not have_shared_questions([*fixed, *others]):
            return cls((), (), ())
        routers: tuple[Run, ...] = ()
        if fixed:
            held_out = (held_out_router(fixed, _price(fixed)),) if can_hold_out(fixed) else ()
            routers = (perfect_router(fixed), *held_out)
        return cls(fixed, others, routers)

    @property
    def is_comparable(self) -> bool:
        """Whether there are two conditions between which a coin can decide."""
        return len(self.fixed) > 1

    @property
    def corners(self) -> list[Run]:
        """The fixed conditions on the mixture line, from the cheapest to the most accurate."""
        return [self.fixed[at] for at in vertices([_point(run) for run in self.fixed])]

    @property
    def mixture(self) -> Points:
        """The corners of the mixture line."""
        return [_point(run) for run in self.corners]

    @property
    def router_lines(self) -> dict[str, Points]:
        """The lines of the routers, by name."""
        functions = (perfect_router, held_out_router)
        return {
            run.name: line(function, self.fixed)
            for run, function in zip(self.routers, functions, strict=False)
        }

    def margins(self) -> list[tuple[Run, Interval]]:
        """Return how far each run is above the mixture line: fixed ones, others, routers."""
        runs = [*self.fixed, *self.others, *self.routers]
        return list(zip(runs, margins(runs, self.fixed), strict=True))

    def coin(self, tokens: float) -> tuple[Run, ...]:
        """Return the corners between which the coin with so many mean tokens decides.

        It is the most accurate one from its tokens on, and the cheapest up to its tokens.
        """
        corners = self.corners
        cheaper = [run for run in corners if run.mean_tokens <= tokens]
        dearer = [run for run in corners if run.mean_tokens > tokens]
        return (*cheaper[-1:], *dearer[:1])


def curves(findings: Findings) -> dict[str, list[Run]]:
    """Return the runs of each way to spend more or fewer tokens that has at least two conditions.

    The run without thinking belongs to all of them.
    """
    grouped: dict[str, list[Run]] = {}
    for each in findings.results:
        condition, run = each.condition, answered(each)
        if condition.is_fixed or condition.options:
            name = " + ".join([CURVE_NAMES[condition.kind], *condition.options])
        elif condition.votes > 1:
            name = f"majority of {condition.votes}"
        else:
            continue
        if run.samples and run.has_token_counts and condition != WITHOUT:
            grouped.setdefault(name, []).append(run)
    without = findings.find(WITHOUT)
    shared = [without.run] if without is not None and without.run.has_token_counts else []
    return {
        name: [*shared, *runs]
        for name, runs in grouped.items()
        if len(runs) > 1 and have_shared_questions([*shared, *runs])
    }


WITHOUT = Condition(Kind.CAP, 0)
CURVE_NAMES = {
    Kind.CAP: "caps",
    Kind.CONTINUATIONS: "continuations",
    Kind.TIER: "tiers",
    Kind.EFFORT: "efforts",
}


def answered(each: ConditionResults) -> Run:
    """Return the run of a condition's answers; with votes, of the majority's."""
    if each.condition.votes == 1:
        return each.run
    voted = majority(each.run, each.condition.votes)
    return replace(voted, name=f"majority of {each.condition.name}")


def _price(runs: Sequence[Run]) -> float:
    """Return the accuracy per token between the cheapest and the most accurate condition."""
    points = [_point(run) for run in runs]
    corners = [points[at] for at in vertices(points)]
    (fewer, lower), (more, higher) = corners[0], corners[-1]
    return (higher - lower) / (more - fewer) if more > fewer else 0.0


def _point(run: Run) -> tuple[float, float]:
    return run.mean_tokens, run.accuracy
