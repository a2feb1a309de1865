"""s1's ablation in small: models trained on differently chosen rows, served and measured.

Every step is a command of `proctor` that continues where it was stopped, and is left out once its
result is there, so that the whole can be run again until it is done.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.curation.files import SEEN, UNSEEN
from proctor.evaluation.report.findings import Findings
from proctor.evaluation.statistics.delta import Interval
from proctor.evaluation.statistics.paired import compare
from proctor.evaluation.store import read_store

ARMS = ("filtered", "random", "longest", "uniform", "curated")
FIRST_ARMS = ARMS[:3]
"""The last one needs answers of the base model to all questions that pass the filters."""
RECIPES = Path(__file__).with_name("recipes")
SCORER = "bench.curation.scorer:ANSWER"
PROCTOR = [
    sys.executable, "-c", "import sys; from proctor.server.cli.main import main; sys.exit(main())"
]  # fmt: skip
PORT = 8377
URL = f"http://127.0.0.1:{PORT}"
START_SECONDS = 1200
ENGINE = {"max_model_len": 1024, "kv_cache_memory_bytes": 2**29, "max_num_seqs": 16}
BUDGETS, CONTINUATIONS = "0,40,80,200", "1"


@dataclass(frozen=True, slots=True)
class Setup:
    """What all arms have in common.

    Attributes:
        pool: the folder of the pool, in which the recipes and the results are written.
        model: the folder of the base model.
        steps: the training steps of each arm.
        batch: the examples per step.
    """

    pool: Path
    model: Path
    steps: int
    batch: int = 16

    def folder(self, arm: str) -> Path:
        """Return the folder of an arm's results."""
        return self.pool / arm


def measure_command(setup: Setup) -> list[str]:
    """Return the command that asks the base model the questions of the curated arm."""
    recipe = setup.pool / "curated.toml"
    return [*PROCTOR, "curate", "measure", str(recipe), "--out", str(setup.folder("curated"))]


def curate_command(setup: Setup, arm: str) -> list[str]:
    """Return the command that chooses the rows of an arm."""
    recipe = setup.pool / f"{arm}.toml"
    return [*PROCTOR, "curate", "run", str(recipe), "--out", str(setup.folder(arm))]


def train_command(setup: Setup, arm: str, *, resume: bool) -> list[str]:
    """Return the command that trains a model on the rows of an arm."""
    command = [*PROCTOR, "train", "run", str(setup.folder(arm) / "rows.jsonl")]
    command += ["--model", str(setup.model), "--out", str(setup.folder(arm) / "run")]
    command += ["--method", "lora", "--learning-rate", "1e-3"]
    command += ["--batch", str(setup.batch), "--device-batch", "8"]
    command += ["--max-steps", str(setup.steps), "--save-steps", "10"]
    return [*command, "--resume"] if resume else command


def eval_command(setup: Setup, arm: str, questions: str) -> list[str]:
    """Return the command that asks the held-out questions."""
    command = [*PROCTOR, "eval", "run", str(setup.pool / questions), "--base-url", f"{URL}/v1"]
    command += ["--model", arm, "--budgets", BUDGETS, "--continuations", CONTINUATIONS]
    command += ["--scorer", SCORER, "--temperature", "0"]
    return [*command, "--out", str(setup.folder(arm) / questions)]


def run_arms(setup: Setup, arms: Sequence[str]) -> None:
    """Do what is left to do for each arm: choose rows, train, serve, and ask.

    Raises:
        subprocess.CalledProcessError: if a command fails.
        RuntimeError: if a server does not start.
    """
    for arm in arms:
        (setup.pool / f"{arm}.toml").write_text((RECIPES / f"{arm}.toml").read_text())
    if "curated" in arms and not (setup.folder("curated") / "rows.jsonl").exists():
        with served(setup.model, "base"):
            subprocess.run(measure_command(setup), check=True)
    for arm in arms:
        out = setup.folder(arm)
        if not (out / "rows.jsonl").exists():
            subprocess.run(curate_command(setup, arm), check=True)
        if not (out / "run" / "model").exists():
            resume = any((out / "run" / "checkpoints").glob("checkpoint-*"))
            subprocess.run(train_command(setup, arm, resume=resume), check=True)
        with served(out / "run" / "model", arm):
            for questions in (SEEN, UNSEEN):
                subprocess.run(eval_command(setup, arm, questions), check=True)


@contextmanager
def served(model: Path, name: str) -> Iterator[None]:
    """Serve a model as long as the context lasts."""
    command = [*PROCTOR, "serve", "--port", str(PORT), "--model", str(model)]
    command += ["--served-model-name", name]
    command += ["--thinking-start", "<think>", "--thinking-end", "</think>"]
    for option, value in ENGINE.items():
        command += ["--engine", f"{option}={value}"]
    with subprocess.Popen(command) as server:
        try:
            _wait(server)
            yield
        finally:
            server.terminate()


def _wait(server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{URL}/ready").is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(1)
    raise RuntimeError("the server did not start")


def report(setup: Setup, arms: Sequence[str]) -> Iterator[str]:
    """Yield Markdown tables of the accuracy of each arm, and of the first against the others."""
    for questions in (SEEN, UNSEEN):
        results = {arm: Findings.of(read_store(setup.folder(arm) / questions).rows) for arm in arms}
        yield f"\n{questions}\n"
        yield from accuracies(results)
        yield from differences(results)


def accuracies(results: Mapping[str, Findings]) -> Iterator[str]:
    """Yield a table of the accuracy under each condition, with its interval."""
    yield f"| condition | {' | '.join(results)} |"
    yield f"|---|{'--:|' * len(results)}"
    by_condition = [
        {each.condition.name: each for each in findings.results} for findings in results.values()
    ]
    for name in by_condition[0]:
        yield f"| {name} | {' | '.join(_share(each[name].right) for each in by_condition)} |"


def differences(results: Mapping[str, Findings]) -> Iterator[str]:
    """Yield a table of the first arm's accuracy minus the others', paired by question."""
    first, *others = results
    yield f"\n| {first} minus | {' | '.join(others)} |"
    yield f"|---|{'--:|' * len(others)}"
    for each in results[first].results:
        gains = []
        for other in others:
            runs = {found.run.name: found.run for found in results[other].results}
            gains.append(_share(compare(each.run, runs[each.run.name]).gain))
        yield f"| {each.run.name} | {' | '.join(gains)} |"


def _share(value: Interval) -> str:
    return f"{value.value:.1%} [{value.low:.1%}, {value.high:.1%}]"
