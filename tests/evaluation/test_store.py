"""The file of a run, and files that are refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.store import BLOCK, Store, StoreError, read_store
from tests.evaluation.factories import CONFIG, response, row

CAP = Condition(Kind.CAP, 5)
FIRST = row(CAP, content="a\u2028", cost={"total": "0.25"}, end_reason="max", max_tokens=5)


def test_a_record_survives_serialization() -> None:
    read = AnswerRecord.from_json(json.loads(json.dumps(FIRST.to_json())))

    assert read == FIRST
    assert (read.tokens, read.generated, read.cost, read.bounds) == (2, 3, 0.25, (0, 5))
    assert row(CAP).cost is None


def test_bounds_come_from_the_condition_or_the_tier() -> None:
    assert row(Condition(Kind.TIER, "high"), min_tokens=4, max_tokens=9).bounds == (4, 9)
    assert row(CAP, min_tokens=0, max_tokens=9).bounds == (0, 5)
    assert row(Condition(Kind.CAP, -1)).bounds == (0, float("inf"))


def test_a_store_cut_in_a_line_is_appended_to(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    with Store(file, CONFIG) as store:
        store.add(FIRST)
    whole = file.read_text()
    file.write_text(whole + whole[-20:].rstrip())  # as by a kill in the middle of a line
    inode = file.stat().st_ino

    with Store(file, CONFIG) as store:
        assert file.read_text() == whole  # before anything is written
        store.add(replace(FIRST, sample=1))

    assert [each.sample for each in read_store(file).rows] == [0, 1]
    assert file.stat().st_ino == inode
    with pytest.raises(RuntimeError, match="not open"):
        Store(file, CONFIG).add(FIRST)


def test_rows_can_be_kept_without_their_texts(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    with Store(file, CONFIG, keep_texts=False) as store:
        store.add(FIRST)
    (kept,) = store.rows

    assert "a\u2028" not in str(kept.response)
    assert kept.to_sample() == FIRST.to_sample()
    assert (kept.key, kept.cost, kept.bounds) == (FIRST.key, FIRST.cost, FIRST.bounds)
    assert Store(file, CONFIG, keep_texts=False).rows == [kept]
    assert read_store(file).rows == [FIRST]


@pytest.mark.parametrize("length", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_a_cut_line_of_any_length_is_dropped(length: int, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    with Store(file, CONFIG) as store:
        store.add(FIRST)
    whole = file.read_bytes()
    file.write_bytes(whole + b"x" * length)

    with Store(file, CONFIG) as store:
        assert file.read_bytes() == whole
        assert store.rows == [FIRST]


def test_a_store_of_another_configuration_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    with Store(file, CONFIG):
        pass
    with pytest.raises(StoreError, match=r"differs in model \('m', 'other'\), seed \(1, 2\): use"):
        Store(file, replace(CONFIG, model="other", seed=2))


@pytest.mark.parametrize(
    "content",
    [
        "no line end",
        json.dumps({"question": "x"}) + "\n",
        json.dumps({"protocol": {"model": "m"}}) + "\n",
        json.dumps({"protocol": CONFIG.to_json()}) + "\n{}\n",
        *(
            json.dumps({"protocol": CONFIG.to_json()}) + "\n" + json.dumps(line) + "\n"
            for line in (FIRST.to_json() | {"response": {}}, FIRST.to_json() | {"setting": {}})
        ),
    ],
)
def test_a_foreign_file_is_refused_and_left_unchanged(content: str, tmp_path: Path) -> None:
    file = tmp_path / "other.jsonl"
    file.write_text(content)
    with pytest.raises(StoreError, match="does not hold"):
        Store(file, CONFIG)
    assert file.read_text() == content


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        read_store(tmp_path / "none.jsonl")


def test_thinking_without_a_token_count_is_refused() -> None:
    content = response()
    del content["usage"]["completion_tokens_details"]
    record = AnswerRecord(CAP, "q", 0, 1.0, "1", None, 0.1, content)
    assert record.tokens == 0
    content["choices"][0]["message"]["reasoning"] = "hm"
    with pytest.raises(ValueError, match="does not count"):
        _ = record.tokens
