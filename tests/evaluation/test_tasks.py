import json
from pathlib import Path

import pytest

from proctor.demo.tasks import chains
from proctor.evaluation.tasks import TaskError, load_task

DATA = Path(__file__).parents[3] / "shared" / "data"


def write(path: Path, *rows: object) -> str:
    file = path / "task.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(file)


def test_tasks_are_loaded_from_json_lines(tmp_path: Path) -> None:
    task = write(
        tmp_path,
        {"id": "a", "question": "1 + 1?", "answer": "It is 2.\n#### 2"},
        "",
        {"problem": "3?", "answer": 3, "level": 4},
    )
    first, second = load_task(task, "Q: {question}", None, 0).questions

    assert (first.id, first.text, first.answer) == ("a", "Q: 1 + 1?", "2")
    assert (second.id, second.text, second.answer) == ("1", "Q: 3?", "3")
    assert len(load_task(task, "{question}", 1, 0).questions) == 1


def test_line_separators_inside_a_question_do_not_split_it(tmp_path: Path) -> None:
    task = write(tmp_path, '{"question": "a\u2028b\x85c", "answer": "1"}')

    assert [each.text for each in load_task(task, "{question}", None, 0).questions] == [
        "a\u2028b\x85c"
    ]


@pytest.mark.parametrize("name", ["gsm8k_test_200.jsonl", "math_test_200.jsonl"])
def test_the_shared_task_files_are_loaded(name: str) -> None:
    if not (DATA / name).exists():
        pytest.skip("../shared/data has no such file")
    loaded = load_task(str(DATA / name), "{question}", None, 0)
    assert len(loaded.questions) + loaded.duplicates == 200


def test_generated_chains_are_deterministic_and_sorted_by_steps() -> None:
    rows = chains(60, seed=1)
    steps = [row["steps"] for row in rows]

    assert rows == chains(60, seed=1) != chains(60, seed=2)
    assert steps == sorted(steps)
    assert {*steps} == {3, 4, 5, 6, 7, 8}
    assert all(0 <= int(row["answer"]) < 100 for row in rows)


@pytest.mark.parametrize(
    ("row", "template", "message"),
    [
        ({"question": "x"}, "{question}", "row 1"),
        ({"answer": "x"}, "{question}", "row 1"),
        ("[1]", "{question}", "must be a JSON object"),
        ("{", "{question}", "line 1"),
        ({"question": "x", "answer": "y"}, "{hint}", "template"),
        ("", "{question}", "no questions"),
    ],
)
def test_invalid_task_files_are_refused(
    row: object, template: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(TaskError, match=message):
        load_task(write(tmp_path, row), template, None, 0)


def test_unknown_tasks_and_duplicate_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no task 'nowhere'"):
        load_task("nowhere", "{question}", None, 0)
    twice = write(tmp_path, *[{"id": 1, "question": "x", "answer": "y"}] * 2)
    with pytest.raises(TaskError, match="the same id"):
        load_task(twice, "{question}", None, 0)


@pytest.mark.parametrize(
    ("rows", "notice"),
    [
        (["a", "b"], None),
        (["a", "b", "a"], "1 row is left out: the same prompt is in an earlier row"),
        (["a", "a ", "a"], "2 rows are left out: the same prompt is in an earlier row"),
    ],
)
def test_a_prompt_is_one_question_however_often_it_is_listed(
    rows: list[str], notice: str | None, tmp_path: Path
) -> None:
    task = write(tmp_path, *({"question": text, "answer": "1"} for text in rows))
    loaded = load_task(task, "Q: {question}", None, 0)
    assert [each.id for each in loaded.questions] == [
        str(at) for at, text in enumerate(rows) if text.strip() not in map(str.strip, rows[:at])
    ]
    assert loaded.notice == notice


def test_duplicates_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    task = write(tmp_path, *({"question": "?", "answer": answer} for answer in "112"))
    loaded = load_task(task, "{question}", None, 0)
    assert [each.answer for each in loaded.questions] == ["1"]
    assert loaded.notice is not None
    assert loaded.notice.endswith("an earlier row, 1 of them with another answer")


def test_prompts_that_differ_by_their_choices_are_different_questions(tmp_path: Path) -> None:
    rows = ({"question": "Which?", "choices": [letter], "answer": "A"} for letter in "xy")
    loaded = load_task(write(tmp_path, *rows), "{question} {choices[0]}", None, 0)
    assert len(loaded.questions) == 2
