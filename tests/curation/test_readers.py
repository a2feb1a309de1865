"""Data sets of every shape, and rows that cannot be read."""

import gzip
import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from proctor.curation.errors import CurationError
from proctor.curation.readers import files
from proctor.curation.readers.files import Unreadable, read_records
from proctor.curation.readers.inputs import Input, Mapped, read_input
from proctor.curation.readers.markers import PAIRS, split_thinking
from proctor.curation.readers.shapes import Parsed, parse
from proctor.curation.rows import Row
from proctor.curation.storage import row_to_line
from tests.curation.factories import write_lines

Q, T, A = "What is 6 times 7?", "Six sevens.\n6 * 7 = 42.", "It is 42."

SHAPES: dict[str, dict[str, Any]] = {
    "s1K": {
        "question": Q, "solution": "42", "cot_type": "math", "source_type": "AIME",
        "metadata": "{}", "cot": None, "thinking_trajectories": [T], "attempt": A,
    },
    "s1K-1.1": {
        "question": Q, "solution": "42", "cot_type": "math", "source_type": "AIME",
        "gemini_thinking_trajectory": "Another.", "gemini_attempt": "41", "gemini_grade": "No",
        "deepseek_thinking_trajectory": T, "deepseek_attempt": A, "deepseek_grade": "Yes",
    },
    "OpenThoughts-114k": {
        "system": "Think step by step.",
        "conversations": [
            {"from": "user", "value": Q},
            {"from": "assistant", "value": "<|begin_of_thought|>\n\n" + T + "\n\n<|end_of_thought|>"
             "\n\n<|begin_of_solution|>\n\n" + A + "\n\n<|end_of_solution|>"},
        ],
    },
    "OpenThoughts-114k metadata": {
        "problem": Q, "deepseek_reasoning": T, "deepseek_solution": A,
        "ground_truth_solution": "42", "domain": "math", "source": "olympiads",
        "test_cases": None, "starter_code": None,
    },
    "OpenThoughts2": {
        "conversations": [
            {"from": "user", "value": Q},
            {"from": "assistant", "value": f"<think>\n{T}\n</think>\n\n{A}"},
        ],
        "question": Q, "source": "dolphin", "id": 7,
    },
    "OpenThoughts3": {
        "difficulty": 8, "source": "ai2", "domain": "math",
        "conversations": [
            {"from": "human", "value": Q}, {"from": "gpt", "value": f"<think>{T}</think>{A}"},
        ],
    },
    "OpenR1-Math": {
        "problem": Q, "solution": "6 * 7", "answer": "42", "source": "olympiads",
        "generations": ["…"],
        "messages": [
            {"role": "user", "content": Q},
            {"role": "assistant", "content": f"<think>\n{T}\n</think>\n\n{A}"},
        ],
    },
    "messages, reasoning_content": {
        "messages": [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": Q},
            {"role": "assistant", "content": A, "reasoning_content": T},
        ],
        "reference": "42",
    },
    "messages, reasoning and parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": Q}]},
            {"role": "assistant", "content": A, "reasoning": T},
        ],
    },
    "prompt and completion of messages": {
        "prompt": [{"role": "user", "content": Q}],
        "completion": [{"role": "assistant", "content": A, "reasoning_content": T}],
    },
    "prompt and completion": {"prompt": Q, "completion": f"<think>\n{T}\n</think>\n{A}"},
    "prompt that opens the thinking": {
        "prompt": f"{Q}\n<think>\n", "completion": f"{T}\n</think>\n\n{A}",
    },
    "text": {
        "text": f"<|im_start|>user\n{Q}<|im_end|>\n<|im_start|>assistant\n<think>\n{T}\n</think>"
        f"\n\n{A}<|im_end|>\n"
    },
    "s1K_tokenized text": {
        "text": f"<|im_start|>system\nBe helpful.<|im_end|>\n<|im_start|>user\n{Q}<|im_end|>\n"
        f"<|im_start|>assistant\n<|im_start|>think\n{T}\n<|im_start|>answer\n{A}<|im_end|>"
    },
    "columns": {"question": Q, "reasoning": T, "answer": A, "reference": "42"},
    "rows of this package": {"id": "q1", "question": Q, "trace": T, "answer": A, "domain": "math"},
}  # fmt: skip


@pytest.mark.parametrize("record", SHAPES.values(), ids=SHAPES.keys())
def test_each_shape_is_read(record: dict[str, Any], tmp_path: Path) -> None:
    row = read(tmp_path, [record])[0]

    assert isinstance(row, Row)
    assert (row.question, row.trace, row.answer) == (Q, T, A)
    if "42" in (record.get("solution"), record.get("answer"), record.get("reference")):
        assert row.reference == "42"


def test_names_of_the_row(tmp_path: Path) -> None:
    records = [SHAPES["OpenThoughts2"], SHAPES["s1K"], SHAPES["columns"]]
    first, second, third = read(tmp_path, records, name="set")

    assert isinstance(first, Row)
    assert (first.id, first.source, first.domain) == ("set/7", "dolphin", None)
    assert isinstance(second, Row)
    assert (second.id, second.source, second.domain) == ("set/1", "AIME", "math")
    assert isinstance(third, Row)
    assert (third.id, third.source) == ("set/2", "set")


def test_metadata_holds_what_no_attribute_does(tmp_path: Path) -> None:
    row = read(tmp_path, [SHAPES["OpenThoughts3"]])[0]

    assert isinstance(row, Row)
    assert row.metadata["difficulty"] == 8
    assert "conversations" not in row.metadata


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("{broken", "invalid JSON"),
        ('"text"', "not a JSON object"),
        ("{}", "unknown shape"),
        (f'{{"question": "a", "answer": "b", "deep": {"[" * 300}{"]" * 300}}}', "cannot be stored"),
        ({"messages": [{"role": "user", "content": Q}]}, "no answer message"),
        ({"messages": [{"role": "assistant", "content": A}]}, "no question"),
        ({"messages": ["hello"]}, "invalid message"),
        ({"messages": [{"role": "user", "content": Q}] * 2}, "several turns"),
        (
            {"messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
                {"role": "assistant", "content": A},
            ]},
            "image or audio in a message",
        ),
        ({"text": "no user and no markers"}, "no question"),
    ],
)  # fmt: skip
def test_unreadable_rows_are_named(record: Any, reason: str, tmp_path: Path) -> None:
    good = SHAPES["columns"]
    first, second = read(tmp_path, [record, good])

    assert isinstance(first, Unreadable)
    assert first.reason == reason
    assert isinstance(second, Row)


def test_an_id_is_used_once(tmp_path: Path) -> None:
    record = SHAPES["rows of this package"]
    _, second = read(tmp_path, [record, record])

    assert second == Unreadable("id used twice", "q1")


def test_rows_without_a_trace_are_rows(tmp_path: Path) -> None:
    row = read(tmp_path, [{"question": Q, "answer": A}])[0]

    assert isinstance(row, Row)
    assert (row.trace, row.answer) == ("", A)


def test_mapped_fields(tmp_path: Path) -> None:
    record = {"in": {"q": Q}, "runs": [{"out": f"<think>{T}</think>{A}"}], "key": "k", "gold": "42"}
    mapped = Mapped(question="in.q", answer="runs.0.out", id="key", reference="gold")
    row, bad = read(tmp_path, [record, {"in": 3}], fields=mapped)

    assert row == Row("k", Q, T, A, "42", None, "data", {})
    assert isinstance(bad, Unreadable)
    assert "in.q" in bad.detail


@given(st.text(), st.text(), st.text(), st.sampled_from(PAIRS))
def test_markers_are_split(before: str, trace: str, answer: str, pair: tuple[str, str]) -> None:
    if any(marker in before + trace + answer for other in PAIRS for marker in other):
        return
    thought = split_thinking(f"{before}{pair[0]}\n{trace}\n{pair[1]}\n{answer}")

    assert thought.markers == pair
    assert thought.trace == trace.strip()
    assert thought.answer == answer.strip()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "text", "type"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["messages", "conversations", "prompt", "completion", "question", "answer", "text", "trace",
     "thinking_trajectories", "attempt", "deepseek_reasoning", "reasoning_content", "id"]
)  # fmt: skip


@given(st.dictionaries(NAMES, JSON, max_size=5))
def test_no_record_crashes_the_reader(record: dict[str, Any]) -> None:
    parsed = parse(record)

    assert isinstance(parsed, (Parsed, Unreadable))
    if isinstance(parsed, Parsed):
        assert parsed.question


@given(st.binary(max_size=60))
def test_no_line_crashes_the_reader(content: bytes) -> None:
    for line in content.split(b"\n"):
        assert isinstance(files._record(line, 1), (dict, Unreadable))


def test_kinds_of_files(tmp_path: Path) -> None:
    records = [{"question": f"{Q} {at}", "trace": T, "answer": A} for at in range(600)]
    table = pyarrow.Table.from_pylist(records)
    parquet.write_table(table, tmp_path / "a.parquet")
    with pyarrow.ipc.new_stream(tmp_path / "b.arrow", table.schema) as stream:
        stream.write_table(table)
    with pyarrow.ipc.new_file(tmp_path / "c.arrow", table.schema) as file:
        file.write_table(table)
    with gzip.open(tmp_path / "d.jsonl.gz", "wt") as zipped:
        zipped.writelines(json.dumps(record) + "\n" for record in records)
    write_lines(tmp_path / "e.json", records)

    for path in sorted(tmp_path.iterdir()):
        assert list(read_records(path)) == records, path.name
    # A data set's folder: its own description is no data.
    (tmp_path / "e.json").rename(tmp_path / "dataset_info.json")
    (tmp_path / "cache-1.arrow").write_bytes(b"no")
    assert list(read_records(tmp_path)) == records * 4


def test_values_that_json_has_not(tmp_path: Path) -> None:
    """Parquet has types beyond JSON's; what is written of them is text."""
    values = {
        "question": Q, "answer": A, "day": date(2026, 11, 30), "share": Decimal("0.10"),
        "blob": b"ab", "none": None, "missing": float("nan"),
    }  # fmt: skip
    parquet.write_table(pyarrow.Table.from_pylist([values]), tmp_path / "a.parquet")
    (row,) = read_input(Input(path=tmp_path / "a.parquet"), Path(), set())

    assert isinstance(row, Row)
    stored = json.loads(row_to_line(row))
    assert stored["metadata"] == {
        "day": "2026-11-30", "share": "0.10", "blob": "b'ab'", "none": None, "missing": None,
    }  # fmt: skip


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "b.arrow").write_bytes(b"no")
    (tmp_path / "c.json").write_text("[{}]")
    (tmp_path / "d.txt").write_text("")
    (tmp_path / "e.jsonl.gz").write_bytes(b"no")
    (tmp_path / "empty").mkdir()
    for name in ("a.parquet", "b.arrow", "c.json", "d.txt", "e.jsonl.gz", "empty", "none.jsonl"):
        with pytest.raises(CurationError, match=name.partition(".")[0]) as raised:
            list(read_records(tmp_path / name))
        assert "\n" not in str(raised.value)


def test_records_are_streamed(tmp_path: Path) -> None:
    """Reading one record of a file takes no more than a batch of it."""
    path = write_lines(tmp_path / "rows.jsonl", [SHAPES["columns"]] * 3 + ["{broken"] * 10_000)
    table = pyarrow.Table.from_pylist([{"question": "x" * 1000}] * 20_000)
    parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=1000)
    before = pyarrow.total_allocated_bytes()

    assert next(iter(read_records(path))) == SHAPES["columns"]
    records = read_records(tmp_path / "rows.parquet")
    next(records)

    assert pyarrow.total_allocated_bytes() - before < 5_000_000


def read(
    folder: Path, records: list[Any], name: str = "", fields: Mapped | None = None
) -> list[Row | Unreadable]:
    path = write_lines(folder / "data.jsonl", records)
    return list(read_input(Input(path=path, name=name, fields=fields), Path(), set()))
