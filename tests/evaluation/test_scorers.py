import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from proctor.evaluation import math_scorer
from proctor.evaluation.math_scorer import LimitExceeded, MathProcess, equal, last_expression
from proctor.evaluation.scorers import ScorerError, load_scorer
from proctor.evaluation.tasks import Question
from tests.requirements import require

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("scorer", "answer", "right", "score"),
    [
        ("exact", " 35\n", "35", 1),
        ("exact", "it is 35", "35", 0),
        ("numeric", "first 12, so it is 1,234.50.", "1234.5", 1),
        ("numeric", "The answer is 07.", "7", 1),
        ("numeric", "-3", "3", 0),
        ("numeric", "none", "3", 0),
        ("numeric", "$2,880,000 in all", "2880000", 1),
        ("numeric", "1200", "$1,200", 1),
        ("choice", "A is wrong. The answer is (C).", "c", 1),
        ("choice", "Both are", "B", 0),
        ("regex", "so 35 it is", r"\b35\b", 1),
        ("regex", "so 135", r"\b35\b", 0),
        ("math", r"So it is $\frac{2}{4}$.", "0.5", 1),
        ("math", r"First \boxed{3}, no: \boxed{\frac12}.", r"\frac{1}{2}", 1),
        ("math", r"\boxed{2\sqrt{2}}", r"\sqrt{8}", 1),
        ("math", r"\boxed{(1, 3)}", "(1,2)", 0),
        ("math", "I do not know.", "7", 0),
        ("math", "It is 7.", r"\boxed{7}", 1),
        ("math", r"\boxed{(-\infty,2)\cup(3,\infty)}", r"(-\infty, 2) \cup (3, \infty)", 1),
        ("operator:eq", "a", "a", 1),
    ],
)
def test_scores(scorer: str, answer: str, right: str, score: float) -> None:
    assert load_scorer(scorer).score(answer, right) == score


@pytest.mark.parametrize(
    ("scorer", "answers", "normalized"),
    [
        ("numeric", ["it is 1,200.0", "1200"], "1200"),
        ("numeric", ["no idea"], None),
        ("choice", ["(B)", "B."], "B"),
        ("choice", ["none of them"], None),
        ("math", [r"\boxed{\frac{1}{2}}", r"so $\frac12$", r"\boxed{0.5}"], "1/2"),
        ("math", [""], None),
        ("exact", [" yes ", "yes"], "yes"),
        ("regex", ["  "], None),
        ("operator:eq", ["a"], "a"),
    ],
)
def test_normalized_answers(scorer: str, answers: list[str], normalized: str | None) -> None:
    assert {load_scorer(scorer).normalize(answer) for answer in answers} == {normalized}


def test_a_scorer_is_loaded_by_module_path() -> None:
    assert load_scorer("proctor.evaluation.math_scorer:MATH") is load_scorer("math")


@pytest.mark.parametrize("name", ["perfect", "no.such.module:f", "operator:nothing"])
def test_an_unknown_scorer_is_refused(name: str) -> None:
    with pytest.raises(ScorerError):
        load_scorer(name)


@pytest.mark.parametrize("right", [r"\frac{1}{4}", r"\sqrt{4}", "x = 4", "1, 4", ""])
def test_numeric_refuses_right_answers_that_are_not_plain_numbers(right: str) -> None:
    with pytest.raises(ValueError, match="plain number"):
        load_scorer("numeric").check([Question("q", "?", right)])


def test_math_refuses_right_answers_that_cannot_be_read() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        load_scorer("math").check([Question("q", "?", "")])


HARD = r"\boxed{10^{10^{10}}}"
"""An answer that takes hours to compare."""


def test_answers_that_exceed_the_cpu_limit_score_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU limit is 1 second here instead of 20, in a separate process for this test."""
    program = "from proctor.evaluation import math_process as m; m.CPU_SECONDS = 1; m.serve()"
    process = MathProcess((sys.executable, "-c", program))
    monkeypatch.setattr(math_scorer, "_math_process", process)
    try:
        assert equal(HARD, "7") == 0
        assert equal(r"\boxed{7}", "7") == 1
        with pytest.raises(LimitExceeded):
            process.call("is_equal", HARD, "7")
        assert last_expression(r"\boxed{7}") == "7"
    finally:
        process.close()


def test_numbers_of_any_length_are_normalized() -> None:
    number = "9" * 5000  # over Python's default limit of 4,300 digits

    assert last_expression(rf"\boxed{{{number}}}") == number


def test_math_scores_in_any_thread() -> None:
    scores: list[float] = []
    threads = [
        Thread(target=lambda: scores.append(equal(r"\boxed{\frac{2}{4}}", "0.5"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert scores == [1.0] * 4


async def test_math_scores_in_a_running_event_loop() -> None:
    assert equal(r"\boxed{7}", "7") == 1
    assert await asyncio.to_thread(equal, r"\boxed{8}", "7") == 0


def test_a_killed_process_raises_and_is_restarted() -> None:
    process = MathProcess()
    assert process.call("is_readable", "7")
    assert process._process is not None
    process._process.send_signal(signal.SIGKILL)
    process._process.wait()
    with pytest.raises(ScorerError, match="has ended, with -9"):
        process.call("is_equal", "7", "7")
    assert process.call("is_equal", "7", "7")
    process.close()


def test_a_fork_starts_its_own_process() -> None:
    """Runs in a separate interpreter, which has no other threads."""
    program = """
import os
from proctor.evaluation.math_scorer import equal
assert equal("7", "7") == 1
child = os.fork()
for number in range(40):
    right = str(number + 100 * (child == 0))
    assert equal(right, right) == 1 and equal(right, "-5") == 0
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_right_answers_of_the_shared_files_are_right_and_others_wrong() -> None:
    require(DATA.is_dir(), "../shared/data")
    math = load_scorer("math").score
    for file in ("math_test_200.jsonl", "gsm8k_test_200.jsonl"):
        lines = (DATA / file).read_text(encoding="utf-8").splitlines()
        right = [json.loads(line)["answer"] for line in lines]
        answers = [rf"So we get $\boxed{{{each}}}$." for each in right]
        assert all(math(answer, each) for answer, each in zip(answers, right, strict=True))
        others = [*right[1:], right[0]]
        wrong = [
            (answer, other)
            for answer, each, other in zip(answers, right, others, strict=True)
            if each != other and math(answer, other)
        ]
        assert not wrong
