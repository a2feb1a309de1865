"""What the answers of a run say, setting by setting."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from statistics import fmean

from proctor.evaluation.conditions import NO_MAXIMUM, Condition, Kind
from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.statistics.curve import control
from proctor.evaluation.statistics.delta import Interval, delta, mean_interval
from proctor.evaluation.statistics.price import cost_per_correct
from proctor.evaluation.statistics.samples import Run

FORCED_ENDS = ("max", "loop")
"""Ends of a thinking that the server made."""


@dataclass(frozen=True)
class Measured:
    """A setting and its answers.

    Attributes:
        setting: what was asked for.
        rows: what came.
    """

    setting: Condition
    rows: tuple[AnswerRecord, ...]

    @cached_property
    def run(self) -> Run:
        """For the statistics."""
        return Run(self.setting.name, tuple(row.to_sample() for row in self.rows))

    @cached_property
    def right(self) -> Interval:
        """The share of right answers, each question counting once."""
        return accuracy(self.run)

    @property
    def within(self) -> float:
        """s1's control: the share of answers whose thinking is within its bounds."""
        return fmean(control([row.tokens], *row.bounds) for row in self.rows)

    @property
    def cost_per_correct(self) -> float | None:
        """In money; None where the server did not tell it for every answer."""
        costs = [row.cost for row in self.rows]
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(costs):
            return None
        return cost_per_correct(sum(known) / len(known), self.run.accuracy)

    def share_ended(self, *reasons: str) -> float:
        """The share of answers whose thinking ended for one of these reasons."""
        return fmean(row.thinking.get("end_reason") in reasons for row in self.rows)

    @property
    def continuations(self) -> float:
        """Continuations of an answer."""
        return fmean(row.thinking.get("continuations", 0) for row in self.rows)

    @property
    def forced_tokens(self) -> float:
        """Tokens of an answer that the server chose."""
        return fmean(row.thinking.get("forced_tokens", 0) for row in self.rows)

    @property
    def unanswered(self) -> float:
        """The share of answers that say nothing the scorer could judge."""
        return fmean(row.said is None for row in self.rows)


@dataclass(frozen=True)
class Findings:
    """All settings of a run, each list from the smallest budget to the largest.

    Attributes:
        measured: every setting that has answers.
    """

    measured: tuple[Measured, ...]

    @classmethod
    def of(cls, rows: Sequence[AnswerRecord]) -> "Findings":
        """Sort the rows by setting.

        Raises:
            ValueError: if there are none.
        """
        if not rows:
            raise ValueError("there are no answers to report")
        first_seen = {setting: at for at, setting in enumerate({row.setting: 0 for row in rows})}
        ordered = sorted(rows, key=lambda row: _rank(row.setting, first_seen[row.setting]))
        return cls(
            tuple(
                Measured(setting, tuple(of_setting))
                for setting, of_setting in groupby(ordered, lambda row: row.setting)
            )
        )

    def of_kind(self, kind: Kind) -> list[Measured]:
        """Settings of one kind whose answers stand alone."""
        return [
            each for each in self.measured if each.setting.kind == kind and each.setting.votes == 1
        ]

    @property
    def voting(self) -> list[Measured]:
        """Settings whose answers share a budget."""
        return [each for each in self.measured if each.setting.votes > 1]

    @property
    def unbounded(self) -> Measured | None:
        """The setting without a cap, if there is one."""
        return self.find(Condition(Kind.CAP, NO_MAXIMUM))

    def find(self, setting: Condition) -> Measured | None:
        """The answers of one setting, if there are some."""
        return next((each for each in self.measured if each.setting == setting), None)

    def baseline(self, kind: Kind) -> Measured:
        """What settings of a kind are compared with: no thinking, or else the first of them.

        Raises:
            IndexError: if there is neither.
        """
        return self.find(Condition(Kind.CAP, 0)) or self.of_kind(kind)[0]


def accuracy(run: Run) -> Interval:
    """The share of right answers with its interval, each question counting once."""
    return mean_interval(run.by_question(run.questions, "correct"))


def no_surer(runs: Sequence[Run]) -> Run:
    """The first run, by rising budget, that none of the later ones is surely better than."""
    for at, run in enumerate(runs):
        if not any(delta(later, run).low > 0 for later in runs[at + 1 :]):
            return run
    raise ValueError("there are no runs")


def _rank(setting: Condition, seen: int) -> tuple[int, int, float]:
    """Kinds in their order, votes apart, rising budgets; names as they were asked."""
    if isinstance(setting.value, str):
        value = float(seen)
    else:
        value = float("inf") if setting.value == NO_MAXIMUM else setting.value
    return [*Kind].index(setting.kind), setting.votes, value
