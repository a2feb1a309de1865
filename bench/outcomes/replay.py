"""Recorded answers under every tier, and what policies give on them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proctor.router import Conversation
from proctor.router.learning.answers import Answer, Ending
from proctor.router.learning.off_policy import mixture_line
from proctor.router.model import Floats, Integers
from proctor.router.outcomes.frontier import PRICES, cheapest

LOW, MEDIUM = 1, 2


@dataclass(frozen=True)
class Replay:
    """The answers to n prompts under K tiers.

    Attributes:
        tiers: (K,) names of the tiers, from the least thinking to the most.
        prompts: (n,) texts.
        kinds: (n,) names of kinds.
        score: (n, K).
        thinking: (n, K), thinking tokens.
        generated: (n, K), all generated tokens.
    """

    tiers: tuple[str, ...]
    prompts: Sequence[str]
    kinds: NDArray[np.str_]
    score: Floats
    thinking: Floats
    generated: Floats

    @classmethod
    def read(cls, run: Path, task: Path, tiers: tuple[str, ...]) -> "Replay":
        """Read the answers of a run; every prompt must have one under each of the tiers."""
        lines = [json.loads(line) for line in task.read_text("utf-8").splitlines()]
        index = {line["id"]: number for number, line in enumerate(lines)}
        arrays = np.full((3, len(lines), len(tiers)), np.nan)
        for line in run.read_text("utf-8").splitlines()[1:]:
            row = json.loads(line)
            if row["setting"]["value"] not in tiers:
                continue
            usage = row["response"]["usage"]
            thinking = usage["completion_tokens_details"]["reasoning_tokens"]
            place = index[row["question"]], tiers.index(row["setting"]["value"])
            arrays[:, *place] = row["score"], thinking, usage["completion_tokens"]
        if np.isnan(arrays).any():
            raise SystemExit(f"{run} lacks {np.isnan(arrays[0]).sum()} answers")
        kinds = np.array([line["kind"] for line in lines])
        return cls(tiers, [line["question"] for line in lines], kinds, *arrays)

    def answers(self, start: float = 0.0) -> Iterator[Answer]:
        """Yield all answers, those to one prompt next to each other, in the order of the tiers.

        Args:
            start: the time of the first one; the prompts follow each other by the second.
        """
        for n, prompt in enumerate(self.prompts):
            conversation = Conversation.of(prompt)
            for tier, tokens, score in zip(
                self.tiers, self.thinking[n], self.score[n], strict=True
            ):
                yield Answer(conversation, tier, int(tokens), Ending.NATURAL, start + n, score)


@dataclass(frozen=True)
class Curve:
    """What a policy gives on some prompts, at all prices.

    Attributes:
        right: (P,), shares of right answers.
        tokens: (P,), mean tokens.
    """

    right: Floats
    tokens: Floats

    def right_at(self, tokens: float) -> float:
        """Return the best share of right answers with at most this many tokens on average."""
        return mixture_line(self.tokens, self.right, tokens)

    def tokens_at(self, right: float) -> float:
        """Return the fewest tokens on average at this share of right answers."""
        found = [self.tokens[reached] for reached in np.flatnonzero(self.right >= right)]
        for above in np.flatnonzero(self.right > right):
            for below in np.flatnonzero(self.right < right):
                share = (right - self.right[below]) / (self.right[above] - self.right[below])
                between = self.tokens[above] - self.tokens[below]
                found.append(self.tokens[below] + share * between)
        return float(min(found, default=np.nan))


def curve(replay: Replay, rows: Integers, tokens: Floats, right: Floats, expected: Floats) -> Curve:
    """Return the curve of choosing by probabilities and expected tokens, (n, K) of these rows."""
    values = []
    for price in PRICES.tolist():
        chosen = cheapest(right, expected, price)
        values.append((replay.score[rows, chosen].mean(), tokens[rows, chosen].mean()))
    shares, used = np.array(values).T
    return Curve(shares, used)


def figures(replay: Replay, rows: Integers, tokens: Floats, routed: Curve) -> dict[str, float]:
    """Return what is compared, on held-out prompts."""
    fixed = Curve(replay.score[rows].mean(axis=0), tokens[rows].mean(axis=0))
    names, kinds = np.unique(replay.kinds[rows], return_inverse=True)
    means = np.array([replay.score[rows][kinds == kind].mean(axis=0) for kind in range(len(names))])
    used = np.array([tokens[rows][kinds == kind].mean(axis=0) for kind in range(len(names))])
    by_kind = curve(replay, rows, tokens, means[kinds], used[kinds])
    hindsight = curve(replay, rows, tokens, replay.score[rows], tokens[rows])
    found = {}
    for name, each in (
        ("coin between two tiers", fixed),
        ("**routed**", routed),
        ("by kind", by_kind),
        ("in hindsight", hindsight),
    ):
        found[f"{name}: share of medium's tokens at its accuracy"] = (
            each.tokens_at(fixed.right[MEDIUM]) / fixed.tokens[MEDIUM]
        )
        found[f"{name}: points over low at its tokens"] = 100 * (
            each.right_at(fixed.tokens[LOW]) - fixed.right[LOW]
        )
    return found


def against_coin(replay: Replay, rows: Integers, chosen: Integers) -> Floats:
    """Return what chosen tiers give, beside a coin between two fixed ones.

    The result, (4,), is the share of right answers, mean thinking tokens, the share that a coin
    gives for them, and the difference.
    """
    right = replay.score[rows, chosen].mean()
    used = replay.thinking[rows, chosen].mean()
    fixed = replay.thinking[rows].mean(axis=0), replay.score[rows].mean(axis=0)
    line = mixture_line(*fixed, float(used))
    return np.array([right, used, line, right - line])
