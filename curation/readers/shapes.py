"""Recognizes the shape of a record, and takes question, trace and answer out of it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proctor.curation.readers import fields
from proctor.curation.readers.files import Unreadable
from proctor.curation.readers.markers import split_thinking

USER, ASSISTANT = ("user", "human"), ("assistant", "gpt", "model")
S1_TRACES = {
    "thinking_trajectories": "attempt",
    "deepseek_thinking_trajectory": "deepseek_attempt",
    "gemini_thinking_trajectory": "gemini_attempt",
}
"""The fields of s1K's and s1K-1.1's traces, and those of the answers after them."""

CHAT_USER = re.compile(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", re.DOTALL)
CHAT_MARKUP = re.compile(r"<\|im_start\|>\w*\n?|<\|im_end\|>")


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a record holds.

    Attributes:
        shape: the name of the shape, for the audit.
        question: the question.
        trace: the thinking; empty if there is none.
        answer: the answer.
        markers: the markers around the thinking in the file; None if it is a field of its own.
        used: the fields that the question, the trace and the answer come from.
    """

    shape: str
    question: str
    trace: str
    answer: str
    markers: tuple[str, str] | None = None
    used: tuple[str, ...] = ()


Parse = Callable[[Mapping[str, Any]], Parsed | Unreadable | None]


def parse(record: Mapping[str, Any]) -> Parsed | Unreadable:
    """Return what a record holds, in the first shape that it has."""
    for shape in SHAPES:
        parsed = shape(record)
        if isinstance(parsed, Unreadable):
            return parsed
        if parsed is not None:
            return parsed if parsed.question else Unreadable("no question")
    return Unreadable("unknown shape", f"fields: {', '.join(map(str, list(record)[:12]))}")


def _messages(record: Mapping[str, Any]) -> Parsed | Unreadable | None:
    """Parse a conversation of one turn: OpenAI's messages, or OpenThoughts' conversations."""
    prompt, completion = record.get("prompt"), record.get("completion")
    for name in ("messages", "conversations", "conversation"):
        if isinstance(record.get(name), list):
            return _conversation(record[name], name)
    if isinstance(prompt, list) and isinstance(completion, list):
        return _conversation([*prompt, *completion], "prompt", "completion")
    return None


def _conversation(messages: Sequence[Any], *used: str) -> Parsed | Unreadable:
    if not all(isinstance(message, Mapping) for message in messages):
        return Unreadable("invalid message")
    asked = [message for message in messages if _role(message) in USER]
    answered = [message for message in messages if _role(message) in ASSISTANT]
    if len(asked) > 1 or len(answered) > 1:
        return Unreadable("several turns", f"{len(asked)} questions, {len(answered)} answers")
    if not asked or not answered:
        return Unreadable("no question" if not asked else "no answer message")
    texts = [_content(message) for message in (asked[0], answered[0])]
    if None in texts:
        return Unreadable("image or audio in a message")
    question, text = (text or "" for text in texts)
    trace = fields.text_of(answered[0], ("reasoning_content", "reasoning", "thinking"))
    if trace:
        return Parsed("messages with reasoning_content", question, trace, text, None, used)
    thought = split_thinking(text)
    shape = "OpenThoughts conversations" if "conversations" in used else "messages"
    return Parsed(shape, question, thought.trace, thought.answer, thought.markers, used)


def _role(message: Mapping[str, Any]) -> str:
    return str(message.get("role") or message.get("from") or "")


def _content(message: Mapping[str, Any]) -> str | None:
    """Return a message's text; None if it has a part that is no text."""
    content = message.get("content", message.get("value"))
    if not isinstance(content, list):
        return content.strip() if isinstance(content, str) else ""
    parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    if not all(isinstance(part, str) for part in parts):
        return None
    return "".join(map(str, parts)).strip()


def _s1(record: Mapping[str, Any]) -> Parsed | None:
    for trace, attempt in S1_TRACES.items():
        text = fields.joined(record.get(trace))
        if text:
            question = fields.text_of(record, fields.QUESTION)
            answer = fields.joined(record.get(attempt))
            return Parsed("s1K", question, text, answer, None, ("question", trace, attempt))
    return None


def _open_thoughts(record: Mapping[str, Any]) -> Parsed | None:
    """Parse a row of OpenThoughts' `metadata` subset."""
    if "deepseek_reasoning" not in record:
        return None
    trace, answer = (
        fields.joined(record.get(name)) for name in ("deepseek_reasoning", "deepseek_solution")
    )
    question = fields.text_of(record, fields.QUESTION)
    used = ("problem", "deepseek_reasoning", "deepseek_solution")
    return Parsed("OpenThoughts metadata", question, trace, answer, None, used)


def _columns(record: Mapping[str, Any]) -> Parsed | None:
    """Parse columns: a question, an answer, and the trace in a column or before the answer."""
    question = fields.first_text(record, fields.QUESTION)
    if question is None:
        return None
    trace = fields.first_text(record, fields.TRACE)
    answers = ("answer", "completion") if trace else ("completion", "response", "output", "answer")
    answer = fields.first_text(record, (*answers, *fields.ANSWER)) or ("", "")
    used = (question[0], answer[0])
    if trace:
        return Parsed("columns", question[1], trace[1], answer[1], None, (*used, trace[0]))
    # A prompt may end with the start marker, as a chat template writes it.
    thought = split_thinking(answer[1])
    asked = split_thinking(question[1])
    text = asked.before if asked.markers and not asked.trace else question[1]
    shape = "columns with markers" if thought.markers else "columns without a trace"
    return Parsed(shape, text, thought.trace, thought.answer, thought.markers, used)


def _text(record: Mapping[str, Any]) -> Parsed | None:
    """Parse a conversation rendered as one text."""
    text = record.get("text")
    if not isinstance(text, str):
        return None
    users = CHAT_USER.findall(text)
    thought = split_thinking(text)
    answer = CHAT_MARKUP.sub("", thought.answer).strip()
    question = users[-1] if users else thought.before
    if not users and thought.markers is None:
        return Parsed("text", "", "", answer, None, ("text",))
    if users and thought.markers is None:
        answer = CHAT_MARKUP.sub("", text.rpartition("<|im_start|>assistant\n")[2]).strip()
    return Parsed("text", question.strip(), thought.trace, answer, thought.markers, ("text",))


SHAPES: tuple[Parse, ...] = (_messages, _s1, _open_thoughts, _columns, _text)
