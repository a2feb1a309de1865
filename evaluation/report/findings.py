"""The answers of a run, grouped by condition, with the figures of each condition."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from statistics import fmean
from typing import Any

from proctor.evaluation.conditions import NO_MAXIMUM, Condition, Kind
from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.statistics.curve import control
from proctor.evaluation.statistics.delta import Interval, delta, share_interval
from proctor.evaluation.statistics.price import cost_per_correct
from proctor.evaluation.statistics.samples import Run

FORCED_ENDS = ("max", "loop")
"""End reasons of thinking that the server ended."""


@dataclass(frozen=True)
class ConditionResults:
    """A condition and its answers.

    Attributes:
        condition: the condition.
        rows: its answers.
    """

    condition: Condition
    rows: tuple[AnswerRecord, ...]

    @cached_property
    def run(self) -> Run:
        """The answers in the form that the statistics take."""
        return Run(self.condition.name, tuple(row.to_sample() for row in self.rows))

    @cached_property
    def right(self) -> Interval:
        """The share of right answers, each question counting once."""
        return accuracy(self.run)

    @property
    def within(self) -> float | None:
        """s1's *control*: the share of answers whose thinking is within its bounds.

        None if the server does not count the thinking tokens of all answers.
        """
        counts = [row.tokens for row in self.rows]
        known = [tokens for tokens in counts if tokens is not None]
        if len(known) < len(counts):
            return None
        return fmean(
            control([tokens], *row.bounds) for tokens, row in zip(known, self.rows, strict=True)
        )

    @property
    def cost_per_correct(self) -> float | None:
        """The cost per right answer in money; None if the cost of an answer is unknown."""
        costs = [row.cost for row in self.rows]
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(costs):
            return None
        return cost_per_correct(sum(known) / len(known), self.run.accuracy)

    def share_ended(self, *reasons: str) -> float | None:
        """Return the share of answers whose thinking ended for one of these reasons.

        None if the server does not give the reason of all answers.
        """
        return self._mean_reported("end_reason", lambda reason: reason in reasons)

    @property
    def continuations(self) -> float | None:
        """The mean number of continuations per answer; None if the server does not report it."""
        return self._mean_reported("continuations", float)

    @property
    def forced_tokens(self) -> float | None:
        """The mean number of forced tokens per answer; None if the server does not report it."""
        return self._mean_reported("forced_tokens", float)

    def _mean_reported(self, field: str, measure: Callable[[Any], float]) -> float | None:
        """Return the mean of a field of `thinking`, or None unless all answers have it."""
        values = [row.thinking.get(field) for row in self.rows]
        return None if None in values else fmean(measure(value) for value in values)

    @property
    def probe_tokens(self) -> float:
        """The mean number of tokens of probes per answer."""
        return fmean(row.probe_tokens for row in self.rows)

    @property
    def unanswered(self) -> float:
        """The share of answers in which the scorer finds no answer."""
        return fmean(row.normalized_answer is None for row in self.rows)


@dataclass(frozen=True)
class Findings:
    """The results of a run, ordered from the smallest budget to the largest.

    Attributes:
        results: one for every condition that has answers.
    """

    results: tuple[ConditionResults, ...]

    @classmethod
    def of(cls, rows: Sequence[AnswerRecord]) -> "Findings":
        """Group the rows by condition.

        Raises:
            ValueError: if there are no rows.
        """
        if not rows:
            raise ValueError("there are no answers to report")
        first_seen = {
            condition: index for index, condition in enumerate({row.condition: 0 for row in rows})
        }
        ordered = sorted(rows, key=lambda row: _rank(row.condition, first_seen[row.condition]))
        return cls(
            tuple(
                ConditionResults(condition, tuple(group))
                for condition, group in groupby(ordered, lambda row: row.condition)
            )
        )

    def of_kind(self, kind: Kind) -> list[ConditionResults]:
        """Return the results of the conditions of one kind without votes and options."""
        return [
            each
            for each in self.results
            if each.condition.kind == kind
            and each.condition.votes == 1
            and not each.condition.options
        ]

    @property
    def fixed(self) -> list[ConditionResults]:
        """The results of the conditions that give every question the same budget."""
        return [each for each in self.results if each.condition.is_fixed]

    @property
    def early_exits(self) -> list[ConditionResults]:
        """The results of the conditions with early exit."""
        return [each for each in self.results if each.condition.early_exit is not None]

    @property
    def parallel(self) -> list[ConditionResults]:
        """The results of the caps that the server shares among several chains."""
        return [
            each
            for each in self.results
            if each.condition.parallel is not None and each.condition.kind == Kind.CAP
        ]

    @property
    def voting(self) -> list[ConditionResults]:
        """The results of the conditions with votes, each of one answer."""
        return [each for each in self.results if each.condition.votes > 1]

    def continuations_within(self, total: int) -> list[ConditionResults]:
        """Return the results with continuations that used at most `total` tokens in the mean."""
        return [
            each
            for each in self.of_kind(Kind.CONTINUATIONS)
            if each.condition.value and each.run.mean_tokens <= total
        ]

    @property
    def unbounded(self) -> ConditionResults | None:
        """The result of the condition without a cap, if there is one."""
        return self.find(Condition(Kind.CAP, NO_MAXIMUM))

    def find(self, condition: Condition) -> ConditionResults | None:
        """Return the result of a condition, or None if it has no answers."""
        return next((each for each in self.results if each.condition == condition), None)

    @property
    def baseline(self) -> ConditionResults:
        """The result without thinking, or else that of the smallest budget."""
        return self.find(Condition(Kind.CAP, 0)) or self.results[0]

    def baseline_of(self, kind: Kind) -> ConditionResults:
        """Return the result without thinking, or else the first of a kind that has results."""
        return self.find(Condition(Kind.CAP, 0)) or self.of_kind(kind)[0]


def accuracy(run: Run) -> Interval:
    """Return the share of right answers and its interval, each question counting once."""
    return share_interval(run.by_question(run.questions, "correct"))


def first_unbeaten(runs: Sequence[Run]) -> Run:
    """Return the first run, by rising budget, that no later run significantly beats.

    Raises:
        ValueError: if there are no runs.
    """
    for index, run in enumerate(runs):
        if not any(delta(later, run).low > 0 for later in runs[index + 1 :]):
            return run
    raise ValueError("there are no runs")


def _rank(condition: Condition, first_seen: int) -> tuple[int, int, tuple[str, ...], float]:
    """Return the sort key: kind, votes, options, budget; named budgets by first occurrence."""
    if isinstance(condition.value, str):
        value = float(first_seen)
    else:
        value = float("inf") if condition.value == NO_MAXIMUM else condition.value
    return [*Kind].index(condition.kind), condition.votes, condition.options, value
