"""Builders of rows and files of rows."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from proctor.curation.options import Context
from proctor.curation.rows import Row
from proctor.curation.tokens import Words

QUESTION = "Anna has 17 apples and buys 25 more at the market. How many apples does she have now?"
TRACE = "Anna begins with 17 apples.\nShe buys 25 more.\nTogether these are 17 + 25 = 42."
ANSWER = "The answer is 42."

WORDS = (
    "Anna has 17 apples the of and is wait answer so therefore 42 3.50 \\frac{1}{2} $x$ . ? "
    "Wait, boxed \\boxed{7} <think> </think> caf\u00c3\u00a9 \u4e2d\u6587 der die das figure "
    "below [asy] ``` \ufffd I'm sorry, but I can't error 500"
)
CONTEXT = Context(Path(), Words(), 0)


def make_row(**changes: Any) -> Row:
    """Return a row without a fault, but for the changes."""
    fields = {"id": "a", "question": QUESTION, "trace": TRACE, "answer": ANSWER, "reference": "42"}
    return Row(**{**fields, **changes})


def write_lines(path: Path, records: Iterable[Any]) -> Path:
    """Write records as JSON lines; strings are written as they are."""
    lines = (each if isinstance(each, str) else json.dumps(each) for each in records)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def texts(max_words: int = 30) -> st.SearchStrategy[str]:
    """Return texts of words, numbers, punctuation, formulas and damage."""
    words = st.sampled_from(WORDS.split())
    return st.lists(st.one_of(words, st.text(max_size=5)), max_size=max_words).map(" ".join)


def rows() -> st.SearchStrategy[list[Row]]:
    """Return lists of rows with distinct ids, good ones among them."""
    row = st.builds(
        make_row,
        question=st.one_of(st.just(QUESTION), texts()),
        trace=st.one_of(st.just(TRACE), texts()),
        answer=st.one_of(st.just(ANSWER), texts(8)),
        reference=st.sampled_from([None, "42", "7"]),
    )
    return st.lists(row, max_size=12).map(
        lambda found: [
            make_row(**_fields(each) | {"id": f"r{at}"}) for at, each in enumerate(found)
        ]
    )


def _fields(row: Row) -> dict[str, Any]:
    return {
        "question": row.question,
        "trace": row.trace,
        "answer": row.answer,
        "reference": row.reference,
    }
