"""The pool that the curation is proved on: answers, derivations, variety, and planted dirt."""

import re
from collections import Counter
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.curation.dirt import CONTAMINATION, COPIES, DIRT, SPOILS, plant
from bench.curation.kinds import STEPS, TRAINED, UNSEEN
from bench.curation.pool import CORRECTED, NOTICED, Pool, make_pool, write_trace
from proctor.curation.rows import Row
from tests.bench.solvers import SOLVERS

KINDS = {**TRAINED, **UNSEEN}
EQUATION = re.compile(r"(-?[\d.]*\d) ([-+*/]) (-?[\d.]*\d) = (-?[\d.]*\d)")
COUNT, DIRTY, SEED = 1500, 20, 7


@pytest.fixture(scope="module")
def pool() -> Pool:
    return make_pool(COUNT, SEED)


def holds(equation: tuple[str, ...]) -> bool:
    left, sign, right, result = equation
    a, b = Decimal(left), Decimal(right)
    operations = {"+": Decimal.__add__, "-": Decimal.__sub__, "*": Decimal.__mul__}
    # Divisions are exact.
    return Decimal(result) * b == a if sign == "/" else operations[sign](a, b) == Decimal(result)


@given(kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 2**32), steps=st.integers(1, 5))
def test_answers_are_right_by_another_computation(kind: str, seed: int, steps: int) -> None:
    problem = KINDS[kind](Random(seed), min(steps, STEPS[kind]))
    assert problem.answer == SOLVERS[kind](problem.facts)
    assert problem.steps == min(steps, STEPS[kind])


@given(kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 2**32), steps=st.integers(1, 5))
def test_every_line_is_right_and_every_slip_is_wrong(kind: str, seed: int, steps: int) -> None:
    problem = KINDS[kind](Random(seed), min(steps, STEPS[kind]))
    for line in problem.lines:
        equations = EQUATION.findall(line.text)
        assert all(map(holds, equations)), line
        assert line.text != line.slip
        if equations and line.slip:
            assert not all(map(holds, EQUATION.findall(line.slip))), line
    # What is calculated last is the answer, unless the answer is no such number.
    results = [each[-1] for line in problem.lines for each in EQUATION.findall(line.text)]
    if results and re.fullmatch(r"[\d.]+", problem.answer):
        assert results[-1] == problem.answer


def test_the_last_line_of_a_clean_trace_gives_the_answer(pool: Pool) -> None:
    for row in pool.rows:
        last = row.trace.split("\n")[-1]
        assert last.endswith(f" {row.answer}.")
        assert "answer" in last
        assert row.answer == row.reference


def test_corrections_are_of_real_slips_and_about_as_frequent_as_said(pool: Pool) -> None:
    corrected = 0
    for problem, row in zip(pool.problems, pool.rows, strict=True):
        lines = row.trace.split("\n")
        noticed = [index for index, line in enumerate(lines) if line in NOTICED]
        assert len(noticed) <= 1
        for index in noticed:
            corrected += 1
            assert lines[index + 1] in {
                each.text for each in problem.lines if each.slip == lines[index - 1]
            }
            del lines[index - 1 : index + 1]
        assert lines[:-1] == [line.text for line in problem.lines]
    assert CORRECTED / 2 < corrected / len(pool.rows) < CORRECTED * 1.5


def test_all_kinds_and_difficulties_are_there_and_held_out_kinds_are_not(pool: Pool) -> None:
    assert len(TRAINED) >= 10
    assert len(UNSEEN) >= 2
    found = Counter((each.kind, each.steps) for each in pool.problems)
    assert set(found) == {(kind, steps) for kind in TRAINED for steps in range(1, STEPS[kind] + 1)}
    by_kind = Counter(each.kind for each in pool.problems)
    assert set(by_kind.values()) == {COUNT // len(TRAINED)}
    assert {each.kind for each in pool.unseen} == set(UNSEEN)
    assert {each.kind for each in pool.seen} == set(TRAINED)


def test_no_question_is_asked_twice(pool: Pool) -> None:
    questions = [each.question for each in (*pool.problems, *pool.seen, *pool.unseen)]
    assert len(set(questions)) == len(questions)


def test_each_kind_has_several_phrasings(pool: Pool) -> None:
    for kind in KINDS:
        problems = [each for each in (*pool.problems, *pool.unseen) if each.kind == kind]
        endings = {re.sub(r"\b[A-Z]\w+|\d+", "", each.question)[-15:] for each in problems}
        assert len(endings) >= 3, kind


def test_held_out_questions_do_not_depend_on_the_size(pool: Pool) -> None:
    assert make_pool(300, SEED).seen == pool.seen
    assert make_pool(300, SEED).rows == make_pool(300, SEED).rows
    assert make_pool(300, SEED + 1).seen != pool.seen


def test_dirt_is_planted_where_the_labels_say(pool: Pool) -> None:
    rows, labels = plant(pool, DIRTY, SEED)
    assert (rows, labels) == plant(pool, DIRTY, SEED)
    assert [row.id for row in rows] == sorted({row.id for row in rows})
    assert Counter(label.dirt for label in labels) == dict.fromkeys(DIRT, DIRTY)
    assert len(rows) == COUNT + DIRTY * (len(COPIES) + 1)
    dirty = {label.id: label.dirt for label in labels}
    originals = {(row.question, row.trace) for row in pool.rows}
    for row in rows:
        unchanged = (row.question, row.trace) in originals and row.answer == row.reference
        assert unchanged == (dirty.get(row.id, "exact duplicate") == "exact duplicate"), row


def test_copies_come_after_what_they_are_copies_of(pool: Pool) -> None:
    rows, labels = plant(pool, DIRTY, SEED)
    dirty = {label.id: label.dirt for label in labels}
    first: dict[str, str] = {}
    for row in rows:
        first.setdefault(row.trace, row.id)
        if dirty.get(row.id) in COPIES:
            assert first[row.trace] != row.id
            assert first[row.trace] not in dirty


def test_leaks_are_held_out_questions(pool: Pool) -> None:
    rows, labels = plant(pool, DIRTY, SEED)
    leaked = {label.id for label in labels if label.dirt == CONTAMINATION}
    held_out = {words(each.question) for each in (*pool.seen, *pool.unseen)}
    for row in rows:
        assert (words(row.question.removeprefix("Solve: ")) in held_out) == (row.id in leaked)


def words(text: str) -> str:
    return " ".join(text.lower().split())


@given(dirt=st.sampled_from(sorted(SPOILS)), seed=st.integers(0, 2**32))
def test_spoilt_rows_are_spoilt(dirt: str, seed: int) -> None:
    rng = Random(seed)
    problem = KINDS[rng.choice(sorted(TRAINED))](rng, rng.randint(1, 3))
    clean = Row(
        id="q",
        question=problem.question,
        trace=write_trace(problem, rng),
        answer=problem.answer,
        reference=problem.answer,
    )
    row = SPOILS[dirt](clean, rng)
    match dirt:
        case "truncated trace":
            assert clean.trace.startswith(row.trace)
            assert "answer" not in row.trace.split("\n")[-1]
        case "loop":
            assert max(Counter(row.trace.split("\n")).values()) >= 6
        case "wrong answer":
            assert row.answer != row.reference
            assert row.trace.endswith(f" {row.answer}.")
        case "answer not of the trace":
            assert row.answer != row.reference
            assert row.trace.endswith(f" {row.reference}.")
        case "encoding damage":
            assert not row.trace.isascii()
        case "refusal":
            assert any(word in row.answer for word in ("can't", "cannot", "not able"))
        case "image reference":
            assert re.search("figure|image|picture", row.question)
        case "answer given away":
            assert clean.answer in row.trace.split("\n")[0]
        case "too easy":
            assert row.answer == row.reference
            assert len(row.trace.split("\n")) == 2
        case _:
            raise AssertionError(dirt)
