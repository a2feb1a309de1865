r"""What a learned router saves, on two worlds: prompts of several kinds, and a model for each.

The demo model, with prompts outside its domain, sums of one step, and chains:

    .venv/bin/python -m bench.outcomes questions --out questions.jsonl
    .venv/bin/proctor serve &
    .venv/bin/proctor eval run questions.jsonl --tiers none,low,medium,high --scorer regex \
        --temperature 0 --concurrency 64 --out run.jsonl
    .venv/bin/python -m bench.outcomes report run.jsonl questions.jsonl

SmolLM2 (see demo/smollm2.py), with copying, counting, and arithmetic of one step:

    .venv/bin/python -m bench.outcomes questions --world simple --count 1200 --out simple.jsonl
    .venv/bin/proctor serve --model MODEL --config demo/smollm2.toml &
    .venv/bin/proctor eval run simple.jsonl --model smollm2 --tiers none,low,medium \
        --scorer regex --temperature 0 --concurrency 64 --out simple-run.jsonl
    .venv/bin/python -m bench.outcomes report simple-run.jsonl simple.jsonl \
        --tiers none,low,medium --judge 600 --prices 5 10 20 50 100 200 500 1000 2000

and with a router that has learned from the demo model's answers, and from none of these (or few):

        … --learn 0 --other run.jsonl questions.jsonl

Every prompt is answered once under every tier, so that any policy can be replayed. Over and over, a
model is learned from some of the prompts, at random, and judged on a bootstrap resample of others;
the intervals are the middle 95% of these draws. `one` learns from one answer to each prompt, under
a tier at random, as traffic that explores would give; `all` from the answers under all tiers.

Policies are compared along their curves, over all prices of a wrong answer: at equal tokens, or at
equal accuracy. *By kind* knows each prompt's kind and each kind's results under each tier; *in
hindsight* knows for each prompt which tiers answer it rightly.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.outcomes.replay import Replay, against_coin, curve, figures
from bench.outcomes.worlds import WORLDS, questions
from proctor.router import load
from proctor.router.learning.answers import Answers
from proctor.router.learning.fitting import Recipe
from proctor.router.learning.learner import learn
from proctor.router.model import Floats, Integers
from proctor.router.outcomes.frontier import cheapest
from proctor.router.outcomes.policy import Objective
from proctor.router.outcomes.prior import Prior
from proctor.router.prediction import LEVELS

GAIN_PRICES = (100.0, 200.0, 300.0, 500.0, 800.0, 1200.0, 2000.0, 3000.0)
ELSEWHERE = 600
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Plan:
    """How often to learn, from what, and on what to judge.

    Attributes:
        learn: the number of prompts to learn from.
        judge: the number of other prompts to judge on.
        draws: how often.
        one: whether to learn from one answer to each prompt, instead of those under all tiers.
        prices: the prices of a wrong answer to compare at.
        elsewhere: the number of prompts of another world to learn from as well, if there is one.
    """

    learn: int
    judge: int
    draws: int
    one: bool
    prices: Sequence[float]
    elsewhere: int = ELSEWHERE

    def training(self, generator: np.random.Generator, prompts: Integers, tiers: int) -> Integers:
        """Return the rows of the answers to some prompts that are to be learned from."""
        places = prompts[:, None] * tiers + np.arange(tiers)
        if self.one:
            places = places[np.arange(len(places)), generator.integers(0, tiers, len(places))]
        return places.ravel()


@dataclass(frozen=True)
class Draw:
    """What one draw gives.

    Attributes:
        figures: what `figures` returns, in thinking tokens and in generated ones.
        coin: what `against_coin` returns at each price, and by the shipped costs.
    """

    figures: dict[str, dict[str, float]]
    coin: dict[str, Floats]


def draws(replay: Replay, other: Replay | None, plan: Plan) -> Iterator[Draw]:
    """Learn from some prompts, and from some of another world, and judge on others; repeatedly."""
    tiers, recipe = len(replay.tiers), recipe_of(replay.tiers)
    elsewhere = len(other.prompts) if other else 0
    found = [*(other.answers() if other else ()), *replay.answers(float(elsewhere))]
    answers = Answers.of(found, replay.tiers, load("ensemble"))
    tables = {"thinking": replay.thinking, "generated": replay.generated}
    for seed in range(plan.draws):
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(replay.prompts))
        training = plan.training(generator, elsewhere + order[: plan.learn], tiers)
        if other:
            prompts = generator.permutation(elsewhere)[: plan.elsewhere]
            training = np.append(training, plan.training(generator, prompts, tiers))
        others = order[plan.learn :][: plan.judge]
        rows = generator.choice(others, len(others))
        model = learn(answers.select(np.sort(training)), recipe, Objective(1.0)).model
        new = answers.select((elsewhere + rows) * tiers)
        forecasts = model.forecast_all(new.features, new.levels)
        right, expected = forecasts.right, forecasts.tokens
        coin = {
            f"{price:.0f}": against_coin(replay, rows, cheapest(right, expected, price))
            for price in plan.prices
        }
        coin["shipped costs"] = against_coin(replay, rows, recipe.prior_choices(new.levels))
        compared = {
            name: figures(replay, rows, tokens, curve(replay, rows, tokens, right, expected))
            for name, tokens in tables.items()
        }
        yield Draw(compared, coin)


def report(replay: Replay, other: Replay | None, plan: Plan) -> None:
    """Print means and intervals of all draws."""
    print_tiers(replay)
    found = [*draws(replay, other, plan)]
    each = "one" if plan.one else "all"
    also = f" and {plan.elsewhere} of the other world" if other else ""
    print(f"\nLearned from {plan.learn} prompts{also}, {each} of the answers; {plan.draws} draws.")
    for name, values in found[0].figures.items():
        print(f"\n| {name} tokens | mean | 95% |\n|---|--:|--:|")
        for label in values:
            print(f"| {label} | {_interval([draw.figures[name][label] for draw in found])} |")
    print("\n| price of a wrong answer | right, % | tokens | coin, % | points over it | 95% |")
    print("|--:|--:|--:|--:|--:|--:|")
    for label in found[0].coin:
        right, used, line, gain = np.array([draw.coin[label] for draw in found]).T
        means = f"{100 * right.mean():.1f} | {used.mean():.1f} | {100 * line.mean():.1f}"
        print(f"| {label} | {means} | {_interval(100 * gain)} |")


def print_tiers(replay: Replay) -> None:
    """Print the share of right answers and the mean thinking tokens of each kind and tier."""
    print(f"| right at thinking tokens | {' | '.join(replay.tiers)} |")
    print("|---|" + "--:|" * len(replay.tiers))
    of_kinds = {kind: replay.kinds == kind for kind in dict.fromkeys(replay.kinds.tolist())}
    for kind, rows in {**of_kinds, "all": np.full(len(replay.kinds), True)}.items():
        right, used = replay.score[rows].mean(axis=0), replay.thinking[rows].mean(axis=0)
        cells = [f"{100 * share:.1f}% at {n:.1f}" for share, n in zip(right, used, strict=True)]
        print(f"| {kind} | {' | '.join(cells)} |")


def recipe_of(tiers: Sequence[str]) -> Recipe:
    """Return the recipe of tiers for the levels in order, the last one for those beyond."""
    return Recipe(tuple(min(level, len(tiers) - 1) for level in range(len(LEVELS))), Prior.of())


def _interval(values: Sequence[float] | Floats) -> str:
    low, high = np.percentile(values, PERCENTILES)
    return f"{np.mean(values):.2f} | {low:.2f} to {high:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    asking = commands.add_parser("questions", help="write the prompts")
    asking.add_argument("--world", choices=WORLDS, default="demo")
    asking.add_argument("--count", type=int, default=1600)
    asking.add_argument("--out", type=Path, required=True)
    judging = commands.add_parser("report", help="learn and judge")
    judging.add_argument("run", type=Path, help="file of 'proctor eval run'")
    judging.add_argument("questions", type=Path, help="file of the prompts")
    judging.add_argument("--learn", type=int, default=600, help="prompts to learn from")
    judging.add_argument("--judge", type=int, default=1000, help="prompts to judge on")
    judging.add_argument("--draws", type=int, default=20)
    judging.add_argument("--answers", choices=("one", "all"), default="one")
    judging.add_argument("--tiers", default="none,low,medium,high")
    judging.add_argument("--prices", type=float, nargs="+", default=GAIN_PRICES)
    judging.add_argument(
        "--other", nargs=2, type=Path, help="run and prompts of another world to learn from as well"
    )
    options = parser.parse_args()
    if options.command == "questions":
        lines = [json.dumps(row) for row in questions(options.world, options.count)]
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    tiers = tuple(options.tiers.split(","))
    replay = Replay.read(options.run, options.questions, tiers)
    other = None
    if options.other:
        other_run, other_questions = options.other
        other = Replay.read(other_run, other_questions, tiers)
    one = options.answers == "one"
    report(replay, other, Plan(options.learn, options.judge, options.draws, one, options.prices))


if __name__ == "__main__":
    main()
