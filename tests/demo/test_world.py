from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.demo.world import (
    MAX_STEPS,
    Judgement,
    Passes,
    Problem,
    Step,
    draw_problem,
    judge,
    last_integer,
    phrase,
    recheck_line,
    replay,
    slip,
    two_digits,
    working,
)

steps = st.one_of(
    st.builds(Step, st.sampled_from("+-"), st.integers(2, 99)),
    st.builds(Step, st.just("*"), st.integers(2, 9)),
)
problems = st.builds(
    Problem, st.integers(0, 99), st.lists(steps, min_size=1, max_size=MAX_STEPS).map(tuple)
)


def write(problem: Problem, rng: Random, rate: float, waits: int) -> str:
    """Write a trace as in the lessons, with slips at `rate` and `waits` rechecks."""
    passes, lines = Passes(problem), list[str]()

    def hasty() -> None:
        results = list(passes.claims[: passes.checked])
        value = results[-1] if results else problem.start
        for step in problem.steps[passes.checked :]:
            value = step.apply(value)
            value = slip(rng, value) if rng.random() < rate else value
            results.append(value)
        lines.extend(f"{head}{result}\n" for head, result, _ in passes.hasty(results))

    hasty()
    lines.append(f"{passes.closing()}{two_digits(passes.claims[-1])}\n")
    for _ in range(waits):
        lines.append("Wait, " if passes.done else "Wait, check:\n")
        lines.extend(passes.recheck())
        if not passes.done:
            hasty()
        lines.append(f"{passes.closing()}{two_digits(passes.claims[-1])}\n")
    return "".join(lines).replace("Wait, all", "Wait,\nall")


@given(problems)
def test_a_hasty_pass_without_slips_replays_to_the_true_answer(problem: Problem) -> None:
    assert replay(problem, write(problem, Random(0), 0.0, 0)) == problem.answer


@given(problems, st.integers(0, 2**32), st.floats(0, 0.9))
def test_enough_rechecks_always_reach_the_true_answer(
    problem: Problem, seed: int, rate: float
) -> None:
    trace = write(problem, Random(seed), rate, len(problem.steps))
    assert replay(problem, trace) == problem.answer
    assert trace.endswith(f"all ok {two_digits(problem.answer)}\n")


@given(problems, st.integers(0, 2**32))
def test_a_continuation_repairs_exactly_the_first_error(problem: Problem, seed: int) -> None:
    trace = write(problem, Random(seed), 0.5, 1)
    assert trace.count("fix") <= 1
    assert replay(problem, trace) is not None


@given(st.integers(0, 99), steps)
def test_the_working_ends_in_the_digits_of_the_result(value: int, step: Step) -> None:
    ones_line, *_, tens_line = working(value, step).split(",")
    tens, ones = divmod(step.apply(value), 10)
    assert int(ones_line[-1]) == ones
    assert int(tens_line[-1]) == tens


@given(st.integers(0, 99), steps)
def test_each_equation_of_the_working_is_true_in_its_last_digit(value: int, step: Step) -> None:
    for equation in working(value, step).split(","):
        left, *results = equation.split("=")
        for result in results:
            shown, _, more = result.partition("+" if "+" in result else "-")
            assert eval(left) % 10 == int(shown) % 10
            left = result if more else shown


@given(st.integers(0, 99), steps, st.integers(0, 99))
def test_a_check_says_ok_exactly_when_the_claim_is_right(
    value: int, step: Step, claimed: int
) -> None:
    line = recheck_line(0, value, step, claimed)
    assert line.endswith(" ok\n" if step.apply(value) == claimed else " fix\n")


@given(st.integers(0, 99), st.integers(0, 2**32))
def test_a_slip_is_always_wrong(value: int, seed: int) -> None:
    assert slip(Random(seed), value) != value


@given(st.integers(0, 2**32), st.integers(1, MAX_STEPS), st.booleans())
def test_drawing_is_seeded_and_separates_unseen_problems(
    seed: int, count: int, unseen: bool
) -> None:
    problem = draw_problem(Random(seed), count, unseen)
    assert problem == draw_problem(Random(seed), count, unseen)
    assert problem.unseen is unseen
    assert len(problem.steps) == count


@pytest.mark.parametrize("phrasing", range(5))
def test_a_phrase_names_every_number(phrasing: int) -> None:
    problem = Problem(7, (Step("+", 5), Step("*", 3), Step("-", 21)))
    text = phrase(problem, Random(1), phrasing)
    assert [n for n in ("7", "5", "3", "21") if n in text] == ["7", "5", "3", "21"]


@pytest.mark.parametrize(
    ("text", "number"), [("The answer is 07.", 7), ("3 then 42!", 42), ("none", None)]
)
def test_answers_are_scored_by_their_last_integer(text: str, number: int | None) -> None:
    assert last_integer(text) == number


@pytest.mark.parametrize(
    "trace",
    [
        "a:07+05=12\nso 13\n",  # not what the pass ended with
        "a:08+05=13\nso 13\n",  # not the problem's value
        "b:07+05=12\n",  # not the next step
        "a:07+05=12\nso 12\na:07+05;7+5=13,0+0=0+1=1,12?12 ok\n",  # false working
        "",
    ],
)
def test_a_trace_that_breaks_the_rules_does_not_replay(trace: str) -> None:
    assert replay(Problem(7, (Step("+", 5),)), trace) is None


@given(st.integers(0, 99), steps, st.integers(0, 99))
def test_a_generated_recheck_line_is_judged_correct(value: int, step: Step, claimed: int) -> None:
    line = recheck_line(0, value, step, claimed).rstrip()
    assert judge(line) == Judgement(step.op, working=True, verdict=True)


@pytest.mark.parametrize(
    ("line", "working", "verdict"),
    [
        ("a:56-13;6-3=3,5-1=4,43?16 ok", True, False),
        ("a:56-13;6-3=4,5-1=4,44?44 ok", False, False),
        ("a:56-13;6-3=4,5-1=4,44?44 fix", False, True),
        ("a:56-13;6-3=3,5-1=4", False, False),
    ],
)
def test_errors_in_a_recheck_line_are_judged(line: str, working: bool, verdict: bool) -> None:
    assert judge(line) == Judgement("-", working, verdict)


@pytest.mark.parametrize("line", ["a:56-13=43", "so 43", "all ok 43", ""])
def test_other_lines_are_not_judged(line: str) -> None:
    assert judge(line) is None
