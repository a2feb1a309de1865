r"""What a learned router saves: the demo model, with its three kinds of prompts.

    .venv/bin/python -m bench.outcomes questions --out questions.jsonl
    .venv/bin/proctor serve &
    .venv/bin/proctor eval run questions.jsonl --tiers none,low,medium,high --scorer regex \
        --temperature 0 --concurrency 64 --out run.jsonl
    .venv/bin/python -m bench.outcomes report run.jsonl questions.jsonl

Every prompt is answered once under every tier, so that any policy can be replayed. Over and over, a
model is learned from some of the prompts, at random, and judged on 1,000 others; the intervals are
the middle 95% of these draws. `one` learns from one answer to each prompt, under a tier at random,
as traffic that explores would give; `all` from the answers under all tiers.

Policies are compared along their curves, over all prices of a wrong answer: at equal tokens, or at
equal accuracy. *By kind* knows each prompt's kind and each kind's results under each tier; *in
hindsight* knows for each prompt which tiers answer it rightly.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from proctor.demo.lessons import APOLOGY, off_domain_prompt
from proctor.demo.world import draw_problem, phrase
from proctor.router import Conversation, load
from proctor.router.learning.answers import Answer, Answers, Ending
from proctor.router.learning.fitting import Recipe
from proctor.router.learning.learner import learn
from proctor.router.learning.off_policy import mixture_line
from proctor.router.model import Floats, Integers
from proctor.router.outcomes.frontier import PRICES, cheapest
from proctor.router.outcomes.policy import Objective
from proctor.router.outcomes.prior import Prior

TIERS = ("none", "low", "medium", "high")
LOW, MEDIUM = 1, 2
KINDS = {"elsewhere": None, "one step": (1, 1), "a chain": (3, 8)}
SEED = 19
PERCENTILES = (2.5, 97.5)
RECIPE = Recipe((0, 1, 2, 3), Prior.of())
GAIN_PRICES = (100.0, 200.0, 300.0, 500.0, 800.0, 1200.0, 2000.0, 3000.0)


def questions(count: int) -> Iterator[dict[str, str]]:
    """Yield distinct prompts of all kinds, none of which the model was trained on.

    Their right answers are patterns: the last number, or the model's sentence for other prompts.
    """
    rng, seen = Random(SEED), set[str]()
    while len(seen) < count:
        kind = [*KINDS][len(seen) % len(KINDS)]
        steps = KINDS[kind]
        if steps is None:
            text, answer = off_domain_prompt(rng), rf"\A\s*{re.escape(APOLOGY)}\s*\Z"
        else:
            fewest, most = steps
            count_steps = fewest if fewest == most else rng.randint(fewest, most)
            problem = draw_problem(rng, count_steps, unseen=True)
            text, answer = phrase(problem, rng), rf"(?<!\d)0*{problem.answer}\D*\Z"
        if text not in seen:
            yield {"id": f"q{len(seen)}", "question": text, "answer": answer, "kind": kind}
            seen.add(text)


@dataclass(frozen=True)
class Replay:
    """The answers to n prompts under K tiers.

    Attributes:
        prompts: (n,) texts.
        kinds: (n,) indices of kinds.
        score: (n, K).
        thinking: (n, K), thinking tokens.
        generated: (n, K), all generated tokens.
    """

    prompts: Sequence[str]
    kinds: Integers
    score: Floats
    thinking: Floats
    generated: Floats

    @classmethod
    def read(cls, run: Path, task: Path) -> "Replay":
        """Read the answers of a run; every prompt must have one under each tier."""
        lines = [json.loads(line) for line in task.read_text("utf-8").splitlines()]
        index = {line["id"]: number for number, line in enumerate(lines)}
        arrays = np.full((3, len(lines), len(TIERS)), np.nan)
        for line in run.read_text("utf-8").splitlines()[1:]:
            row = json.loads(line)
            usage = row["response"]["usage"]
            thinking = usage["completion_tokens_details"]["reasoning_tokens"]
            place = index[row["question"]], TIERS.index(row["setting"]["value"])
            arrays[:, *place] = row["score"], thinking, usage["completion_tokens"]
        if np.isnan(arrays).any():
            raise SystemExit(f"{run} lacks {np.isnan(arrays[0]).sum()} answers")
        kinds = np.array([[*KINDS].index(line["kind"]) for line in lines])
        return cls([line["question"] for line in lines], kinds, *arrays)

    def answers(self) -> Answers:
        """Return all answers, those to one prompt next to each other, in the order of the tiers."""
        classifier = load("ensemble")
        found = [
            Answer(Conversation.of(prompt), tier, int(tokens), Ending.NATURAL, float(n), score)
            for n, prompt in enumerate(self.prompts)
            for tier, tokens, score in zip(TIERS, self.thinking[n], self.score[n], strict=True)
        ]
        return Answers.of(found, TIERS, classifier)


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
    kinds = replay.kinds[rows]
    means = np.array([replay.score[rows][kinds == kind].mean(axis=0) for kind in range(len(KINDS))])
    used = np.array([tokens[rows][kinds == kind].mean(axis=0) for kind in range(len(KINDS))])
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


def report(replay: Replay, learn_from: int, judge_on: int, draws: int, answers_each: str) -> None:
    """Learn and judge `draws` times, and print means and intervals."""
    answers, tables = replay.answers(), {"thinking": replay.thinking, "generated": replay.generated}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in tables}
    gains: list[list[float]] = []
    for draw in range(draws):
        generator = np.random.default_rng(draw)
        order = generator.permutation(len(replay.prompts))
        training, held_out = order[:learn_from], np.sort(order[learn_from:][:judge_on])
        places = training[:, None] * len(TIERS) + np.arange(len(TIERS))
        if answers_each == "one":
            places = places[np.arange(learn_from), generator.integers(0, len(TIERS), learn_from)]
        model = learn(answers.select(np.sort(places.ravel())), RECIPE, Objective(1.0)).model
        new = answers.select(held_out * len(TIERS))
        forecasts = model.forecast_all(new.features, new.levels)
        for name, tokens in tables.items():
            routed = curve(replay, held_out, tokens, forecasts.right, forecasts.tokens)
            found[name].append(figures(replay, held_out, tokens, routed))
        gains.append(_gains(replay, held_out, forecasts.right, forecasts.tokens))
    print(f"Learned from {learn_from} prompts, {answers_each} of the answers; {draws} draws.")
    for name, each in found.items():
        print(f"\n| {name} tokens | mean | 95% |\n|---|--:|--:|")
        for label in each[0]:
            print(f"| {label} | {_interval([figure[label] for figure in each])} |")
    print("\n| price of a wrong answer | points over the coin, same thinking tokens | 95% |")
    print("|--:|--:|--:|")
    for price, column in zip(GAIN_PRICES, np.array(gains).T, strict=True):
        print(f"| {price:.0f} | {_interval(column.tolist())} |")


def _gains(replay: Replay, rows: Integers, right: Floats, expected: Floats) -> list[float]:
    shares, used = replay.score[rows].mean(axis=0), replay.thinking[rows].mean(axis=0)
    gains = []
    for price in GAIN_PRICES:
        chosen = cheapest(right, expected, price)
        line = mixture_line(used, shares, float(replay.thinking[rows, chosen].mean()))
        gains.append(100 * (float(replay.score[rows, chosen].mean()) - line))
    return gains


def _interval(values: Sequence[float]) -> str:
    low, high = np.percentile(values, PERCENTILES)
    return f"{np.mean(values):.2f} | {low:.2f} to {high:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    asking = commands.add_parser("questions", help="write the prompts")
    asking.add_argument("--count", type=int, default=1600)
    asking.add_argument("--out", type=Path, required=True)
    judging = commands.add_parser("report", help="learn and judge")
    judging.add_argument("run", type=Path, help="file of 'proctor eval run'")
    judging.add_argument("questions", type=Path, help="file of the prompts")
    judging.add_argument("--learn", type=int, default=600, help="prompts to learn from")
    judging.add_argument("--judge", type=int, default=1000, help="prompts to judge on")
    judging.add_argument("--draws", type=int, default=20)
    judging.add_argument("--answers", choices=("one", "all"), default="one")
    options = parser.parse_args()
    if options.command == "questions":
        lines = [json.dumps(row) for row in questions(options.count)]
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        replay = Replay.read(options.run, options.questions)
        report(replay, options.learn, options.judge, options.draws, options.answers)


if __name__ == "__main__":
    main()
