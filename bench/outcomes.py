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
        --tiers none,low,medium --judge 600 --prices 5 10 20 50 100 200 500

and with a router that has learned from the demo model's answers only:

        … --from run.jsonl questions.jsonl

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
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from proctor.demo.lessons import APOLOGY, off_domain_prompt
from proctor.demo.simple_tasks import SIMPLE_TASKS
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
from proctor.router.prediction import LEVELS

LOW, MEDIUM = 1, 2
GAIN_PRICES = (100.0, 200.0, 300.0, 500.0, 800.0, 1200.0, 2000.0, 3000.0)
SEED = 19
PERCENTILES = (2.5, 97.5)

Ask = Callable[[Random], tuple[str, str]]
"""Draws a prompt, and the pattern of its right answers."""


def number(answer: int | str) -> str:
    """Return a pattern of texts whose last number is the answer."""
    return rf"(?<!\d)0*{answer}\D*\Z"


def text(answer: str, end: str = "") -> str:
    """Return a pattern of a text, alone, and of what may end it."""
    return rf"\A\s*{re.escape(answer)}{end}\s*\Z"


def draw_elsewhere(rng: Random) -> tuple[str, str]:
    """Draw a prompt outside the demo model's domain, for which it has one sentence."""
    return off_domain_prompt(rng), text(APOLOGY)


def draw_step(rng: Random) -> tuple[str, str]:
    """Draw a problem of one step."""
    return _chain(rng, 1)


def draw_chain(rng: Random) -> tuple[str, str]:
    """Draw a problem of 3 to 8 steps."""
    return _chain(rng, rng.randint(3, 8))


def _chain(rng: Random, steps: int) -> tuple[str, str]:
    problem = draw_problem(rng, steps, unseen=True)
    return phrase(problem, rng), number(problem.answer)


def _simple(kind: str) -> Ask:
    def draw(rng: Random) -> tuple[str, str]:
        task = SIMPLE_TASKS[kind](rng)
        copied = kind == "copying"
        return task.prompt, text(task.answer, end=r"\.?") if copied else number(task.answer)

    return draw


WORLDS: dict[str, dict[str, Ask]] = {
    "demo": {"elsewhere": draw_elsewhere, "one step": draw_step, "a chain": draw_chain},
    "simple": {kind: _simple(kind) for kind in SIMPLE_TASKS},
}


def questions(world: str, count: int) -> Iterator[dict[str, str]]:
    """Yield distinct prompts of all kinds of a world, in turn, with patterns of right answers."""
    rng, seen, kinds = Random(SEED), set[str](), [*WORLDS[world].items()]
    while len(seen) < count:
        kind, draw = kinds[len(seen) % len(kinds)]
        prompt, answer = draw(rng)
        if prompt not in seen:
            yield {"id": f"q{len(seen)}", "question": prompt, "answer": answer, "kind": kind}
            seen.add(prompt)


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

    def answers(self) -> Answers:
        """Return all answers, those to one prompt next to each other, in the order of the tiers."""
        classifier = load("ensemble")
        found = [
            Answer(Conversation.of(prompt), tier, int(tokens), Ending.NATURAL, float(n), score)
            for n, prompt in enumerate(self.prompts)
            for tier, tokens, score in zip(self.tiers, self.thinking[n], self.score[n], strict=True)
        ]
        return Answers.of(found, self.tiers, classifier)


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


@dataclass(frozen=True)
class Plan:
    """How often to learn, from what, and on what to judge.

    Attributes:
        learn: the number of prompts to learn from.
        judge: the number of other prompts to judge on.
        draws: how often.
        one: whether to learn from one answer to each prompt, instead of those under all tiers.
        prices: the prices of a wrong answer to compare at.
    """

    learn: int
    judge: int
    draws: int
    one: bool
    prices: Sequence[float]

    def training(self, generator: np.random.Generator, prompts: Integers, tiers: int) -> Integers:
        """Return the rows of answers to learn from, of prompts in random order."""
        places = prompts[: self.learn, None] * tiers + np.arange(tiers)
        if self.one:
            places = places[np.arange(len(places)), generator.integers(0, tiers, len(places))]
        return np.sort(places.ravel())


@dataclass(frozen=True)
class Draw:
    """What one draw gives.

    Attributes:
        figures: what `figures` returns, in thinking tokens and in generated ones.
        coin: what `against_coin` returns at each price, and by the shipped costs.
    """

    figures: dict[str, dict[str, float]]
    coin: dict[str, Floats]


def draws(replay: Replay, source: Replay, plan: Plan) -> Iterator[Draw]:
    """Learn from some prompts of `source`, and judge on others, of `replay`, over and over."""
    answers, known, recipe = replay.answers(), source.answers(), recipe_of(replay.tiers)
    tables = {"thinking": replay.thinking, "generated": replay.generated}
    for seed in range(plan.draws):
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(source.prompts))
        training = plan.training(generator, order, len(source.tiers))
        others = order[plan.learn :] if source is replay else np.arange(len(replay.prompts))
        rows = generator.choice(others[: plan.judge], len(others[: plan.judge]))
        model = learn(known.select(training), recipe, Objective(1.0)).model
        new = answers.select(rows * len(replay.tiers))
        forecasts = model.forecast_all(new.features, new.levels)
        right, expected = forecasts.right, forecasts.tokens
        coin = {
            f"{price:.0f}": against_coin(replay, rows, cheapest(right, expected, price))
            for price in plan.prices
        }
        coin["shipped costs"] = against_coin(replay, rows, recipe.prior_choices(new.levels))
        found = {
            name: figures(replay, rows, tokens, curve(replay, rows, tokens, right, expected))
            for name, tokens in tables.items()
        }
        yield Draw(found, coin)


def report(replay: Replay, source: Replay, plan: Plan) -> None:
    """Print means and intervals of all draws."""
    found = [*draws(replay, source, plan)]
    each = "one" if plan.one else "all"
    print(f"Learned from {plan.learn} prompts, {each} of the answers; {plan.draws} draws.")
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


def recipe_of(tiers: Sequence[str]) -> Recipe:
    """Return the recipe of tiers for the levels in order, the last one for those beyond."""
    return Recipe(tuple(min(level, len(tiers) - 1) for level in range(len(LEVELS))), Prior.of())


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
        "--from", nargs=2, type=Path, dest="source", help="run and prompts to learn from instead"
    )
    options = parser.parse_args()
    if options.command == "questions":
        lines = [json.dumps(row) for row in questions(options.world, options.count)]
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    tiers = tuple(options.tiers.split(","))
    replay = Replay.read(options.run, options.questions, tiers)
    source = replay
    if options.source:
        source_run, source_questions = options.source
        source = Replay.read(source_run, source_questions, tiers)
    one = options.answers == "one"
    report(replay, source, Plan(options.learn, options.judge, options.draws, one, options.prices))


if __name__ == "__main__":
    main()
