"""The input of custom tools, decoded as it is generated."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.server.renderers.custom_input import CustomInput

texts = st.text(st.characters(exclude_categories=["Cs"]))


def decode(parts: list[str]) -> CustomInput:
    decoder = CustomInput()
    pushed = "".join(map(decoder.push, parts))
    assert pushed + decoder.close() == decoder.text
    return decoder


@given(texts, st.booleans(), st.integers(1, 7))
def test_the_pieces_are_the_whole_input(text: str, ascii_only: bool, size: int) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=ascii_only)
    parts = [arguments[start : start + size] for start in range(0, len(arguments), size)]

    assert decode(parts).text == text


def test_the_input_is_decoded_before_it_is_complete() -> None:
    decoder = CustomInput()

    assert decoder.push('{"input": "a\\') == "a"
    assert decoder.push("n\\ud83d") == "\n"
    assert decoder.push("\\ude00b") == "\N{GRINNING FACE}b"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"other": 1, "input": "a"}', "a"),
        ('{"command": "ls"}', '{"command": "ls"}'),
        ("ls -l", "ls -l"),
        ('{"input": 5}', '{"input": 5}'),
        ('{"input": "a\nb"}', "a\nb"),
        ('{"input": "a\\d"}', "a\\d"),
        ('{"other": "' + "x" * 80 + '", "input": "a"}', "a"),
        ("", ""),
    ],
)
def test_arguments_of_other_forms(arguments: str, text: str) -> None:
    assert decode([*arguments]).text == text
