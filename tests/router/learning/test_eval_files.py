import json
from pathlib import Path
from typing import Any

import pytest

from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.run_config import RunConfig
from proctor.evaluation.store import Store
from proctor.router.learning.answers import Ending
from proctor.router.learning.eval_files import EvalFileError, read_eval

QUESTIONS = [
    {"id": "a", "question": "What is 2 + 3?", "answer": "5"},
    {"id": "b", "problem": "What is 7 times 8?\u2028Think.", "answer": "56"},
]


def record(condition: Condition, question: str, score: float, **thinking: Any) -> AnswerRecord:
    details = {"tier": "low", "tokens": 12, "end_reason": "natural", **thinking}
    choice = {"message": {"content": "5"}, "finish_reason": "stop", "thinking": details}
    usage = {"completion_tokens": 20, "completion_tokens_details": {"reasoning_tokens": 12}}
    response = {"created": 1_700_000_000, "choices": [choice], "usage": usage}
    return AnswerRecord(condition, question, 0, score, "5", None, 0.5, response)


LOW, AUTO = Condition(Kind.TIER, "low"), Condition(Kind.TIER, "auto")


def write(folder: Path, *records: AnswerRecord) -> tuple[Path, Path]:
    run, questions = folder / "run.jsonl", folder / "questions.jsonl"
    config = RunConfig("m", "questions.jsonl", "Q: {question}", "numeric", 0.0, 1.0, 0)
    with Store(run, config) as store:
        for each in records:
            store.add(each)
    lines = [json.dumps(row, ensure_ascii=False) for row in QUESTIONS]
    questions.write_text("\n".join(lines), encoding="utf-8")
    return run, questions


def test_answers_under_tiers_are_read_with_their_prompts(tmp_path: Path) -> None:
    files = write(tmp_path, record(LOW, "a", 1.0), record(AUTO, "b", 0.0, tier="high", tokens=70))
    first, second = read_eval(*files)
    assert first.conversation.prompt == "Q: What is 2 + 3?"
    assert (first.tier, first.tokens, first.score, first.time) == ("low", 12, 1.0, 1.7e9)
    assert first.ending is Ending.NATURAL
    assert second.conversation.prompt == "Q: What is 7 times 8?\u2028Think."
    assert (second.tier, second.tokens, second.score) == ("high", 70, 0.0)


def test_answers_under_other_conditions_are_left_out(tmp_path: Path) -> None:
    run, questions = write(
        tmp_path,
        record(Condition(Kind.CAP, 64), "a", 1.0),
        record(Condition(Kind.CONTINUATIONS, 2), "a", 1.0),
    )
    row = record(LOW, "a", 1.0).to_json()
    row["setting"] |= {"early_exit": {"method": "answer"}}
    with run.open("a") as file:
        file.write(json.dumps(row) + "\n")
    assert read_eval(run, questions) == []


def test_how_an_answer_ended_is_read(tmp_path: Path) -> None:
    files = write(
        tmp_path,
        record(LOW, "a", 1.0, end_reason="max"),
        record(LOW, "b", 1.0, spilled_tokens=4),
    )
    assert [each.ending for each in read_eval(*files)] == [Ending.CAPPED, Ending.SPILLED]


def test_an_incomplete_last_line_is_dropped(tmp_path: Path) -> None:
    run, questions = write(tmp_path, record(LOW, "a", 1.0))
    with run.open("a") as file:
        file.write('{"setting": {"ki')
    assert len(read_eval(run, questions)) == 1


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    run, questions = write(tmp_path, record(LOW, "other", 1.0))
    with pytest.raises(EvalFileError, match=r"run\.jsonl, line 2: .*no question 'other'"):
        read_eval(run, questions)
    with pytest.raises(EvalFileError, match=r"nowhere"):
        read_eval(tmp_path / "nowhere", questions)
    with pytest.raises(EvalFileError, match=r"not a run"):
        read_eval(questions, questions)
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(EvalFileError, match="is empty"):
        read_eval(tmp_path / "empty", questions)
    (tmp_path / "bad").write_text('{"id": "a"}\n')
    with pytest.raises(EvalFileError, match=r"bad, line 1: no question"):
        read_eval(run, tmp_path / "bad")
    (tmp_path / "broken").write_text("{\n{}\n")
    with pytest.raises(EvalFileError, match=r"broken, line 1"):
        read_eval(run, tmp_path / "broken")
