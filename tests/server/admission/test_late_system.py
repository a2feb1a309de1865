"""System messages within a conversation, for templates that accept one at the beginning only."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.server.admission.prompt import fold_late_system, render
from proctor.server.engines.base import Prompt
from proctor.server.engines.fake import ByteCodec, FakeEngine
from proctor.server.errors import BadRequest
from proctor.server.schemas.generation import ChatRequest

conversations = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant", "tool"]),
            "content": st.text(min_size=1, max_size=3),
        }
    ),
    max_size=8,
)


def message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["system S", "user A", "system B"], ["system S", "user A\n\nB"]),
        (["user A", "assistant B", "tool C", "system D"], ["user A", "assistant B", "tool C\n\nD"]),
        (
            ["user A", "assistant B", "system C", "user D"],
            ["user A", "assistant B", "user C\n\nD"],
        ),
        (["user A", "assistant B", "system C"], ["user A", "assistant B", "user C"]),
        (["system S", "system T", "user A"], ["system S", "system T", "user A"]),
    ],
)
def test_late_system_messages_are_folded(before: list[str], after: list[str]) -> None:
    folded = fold_late_system([message(*each.split(" ", 1)) for each in before])

    assert folded == [message(*each.split(" ", 1)) for each in after]


@given(conversations)
def test_folding_keeps_every_text_in_order(messages: list[dict[str, Any]]) -> None:
    folded = fold_late_system(messages)
    roles = [each["role"] for each in folded]
    leading = (
        roles.index(next((role for role in roles if role != "system"), "system")) if roles else 0
    )

    assert "system" not in roles[leading:] or {*roles} == {"system"}
    texts = "".join(each["content"] for each in folded).replace("\n\n", "")
    assert texts == "".join(each["content"] for each in messages).replace("\n\n", "")
    assert fold_late_system(folded) == folded


class StrictCodec(ByteCodec):
    """A codec whose template accepts a system message at the beginning only."""

    async def render(self, messages: Any, **options: Any) -> Prompt:
        if any(each["role"] == "system" for each in messages[1:]):
            raise ValueError("System message must be at the beginning.")
        return await super().render(messages, **options)


def strict_engine() -> FakeEngine:
    engine = FakeEngine()
    engine.codec = StrictCodec(engine.model.markers, True)
    return engine


def request(*messages: dict[str, Any]) -> ChatRequest:
    return ChatRequest.model_validate({"messages": messages})


async def test_a_strict_template_renders_late_system_messages() -> None:
    engine = strict_engine()
    late = request(message("user", "A"), message("system", "B"))
    folded = request(message("user", "A\n\nB"))

    assert await render(late, engine, thinking=True) == await render(folded, engine, thinking=True)


async def test_other_errors_of_a_template_are_reported() -> None:
    engine = strict_engine()

    with pytest.raises(BadRequest, match="System message must be at the beginning"):
        await render(request(message("system", "A"), message("system", "B")), engine, thinking=True)
