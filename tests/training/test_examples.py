"""The examples that a file holds, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from proctor.training.examples import DataError, parse_example, read_examples
from tests.training.conftest import THINK

USER = {"role": "user", "content": "2 + 3?"}
EXPECTED = ((USER,), "2 and 3 make 5.", "5")


@pytest.mark.parametrize(
    "row",
    [
        {"question": "2 + 3?", "trace": "2 and 3 make 5.\n", "answer": " 5", "domain": "sums"},
        {"messages": [USER, {"role": "assistant", "content": "5", "reasoning": EXPECTED[1]}]},
        {
            "messages": [
                USER,
                {"role": "assistant", "content": "5", "reasoning_content": EXPECTED[1]},
            ]
        },
        {
            "messages": [
                USER,
                {"role": "assistant", "content": f"<think>\n{EXPECTED[1]}\n</think>\n5"},
            ]
        },
        {"messages": [USER, {"role": "assistant", "content": f"{EXPECTED[1]}</think>5"}]},
    ],
)
def test_an_example_is_read_from_each_shape(row: dict[str, Any]) -> None:
    example = parse_example(row, THINK)
    assert (example.messages, example.thinking, example.answer) == EXPECTED


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ([], "must be a JSON object"),
        ({"trace": "so", "answer": "5"}, "'messages', or 'question'"),
        ({"question": "2 + 3?", "answer": "5"}, "has no thinking"),
        ({"question": "2 + 3?", "trace": " \n", "answer": "5"}, "has no thinking"),
        ({"question": "2 + 3?", "trace": "so", "answer": ""}, "has no answer"),
        (
            {"question": "2 + 3?", "trace": "a </think> b", "answer": "5"},
            "marker '</think>' stands",
        ),
        ({"prompt": "2 + 3?", "completion": "5"}, 'form = "messages"'),
        ({"messages": "hello"}, "must be a list"),
        ({"messages": [USER]}, "must end with a message of the assistant"),
        ({"messages": [USER, USER]}, "must end with a message of the assistant"),
        ({"messages": [USER, {"role": "assistant", "content": "5"}]}, "has no thinking"),
    ],
)
def test_a_row_that_is_no_example_is_refused(row: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        parse_example(row, THINK)


def test_errors_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    good = json.dumps(
        {"question": "2 + 3?", "trace": "five", "answer": "5\u2028"}, ensure_ascii=False
    )
    path.write_text(f"{good}\n\n{good}\n{{}}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"data.jsonl, line 4: 'messages'"):
        read_examples(path, THINK)
    path.write_text(f"{good}\n\n{good}\n", encoding="utf-8")
    assert len(read_examples(path, THINK)) == 2


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_file_without_examples_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match="has no examples"):
        read_examples(path, THINK)
    with pytest.raises(DataError, match=r"missing.jsonl"):
        read_examples(tmp_path / "missing.jsonl", THINK)
