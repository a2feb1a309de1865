"""Line ends in options, as a shell passes them."""

import json
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import text

from proctor.evaluation.options.escapes import escape, unescape
from proctor.evaluation.options.thinking import EarlyExit
from proctor.evaluation.tasks import load_task
from tests.evaluation.test_runner import parse

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "evaluate.md"


def test_the_template_of_the_guide_has_line_ends(tmp_path: Path) -> None:
    found = re.search(r"`(--template \".+?\")`", GUIDE.read_text())
    assert found is not None
    task = tmp_path / "task.jsonl"
    task.write_text(json.dumps({"question": "Which?", "choices": ["x", "y"], "answer": "A"}))

    template = parse("run", str(task), *shlex.split(found[1])).template

    assert load_task(str(task), template, None, 0).questions[0].text == "Which?\nA. x\nB. y"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"a\nb", "a\nb"),
        (r"\\nu", r"\nu"),
        (r"\text{x} \boxed{} \\", r"\text{x} \boxed{} \\"),
        ("a\nb", "a\nb"),
    ],
)
def test_only_line_ends_are_unescaped(written: str, meant: str) -> None:
    assert unescape(written) == meant


@given(text(alphabet="\\n\nab"))
def test_what_is_escaped_is_in_one_line(written: str) -> None:
    assert "\n" not in escape(written)


def test_an_opening_with_a_line_end_has_a_name_in_one_line() -> None:
    option = EarlyExit.parse(r"answer:opening=\n\nSo")
    assert option.opening == "\n\nSo"
    assert option.name == r"answer:opening=\n\nSo"
    assert EarlyExit.parse(option.name) == option
