import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.budget import BudgetStateMachine, EndReason, Forced, OnLoop, ThinkingBudget, tokenize
from proctor.server.channels.answer_text import AnswerText
from proctor.server.channels.deltas import Channel, TextDelta
from proctor.server.channels.forced_spans import ForcedSpan
from proctor.server.channels.splitter import ChannelSplitter
from proctor.server.engines.base import Job, Sampling
from proctor.server.engines.fake import (
    BYTES,
    END_THINK,
    MARKERS,
    THINK,
    VOCABULARY,
    ByteDetokenizer,
    FakeEngine,
    Script,
)
from tests.server.harness import CHAT, body, client, parse_events

text = st.text(st.characters(exclude_characters="<>/", codec="utf-8"), max_size=12)
some_text = text.filter(bool)


@st.composite
def budgets(draw: st.DrawFn) -> ThinkingBudget:
    maximum = draw(st.none() | st.integers(1, 60))
    return ThinkingBudget(
        min_tokens=draw(st.integers(0, 40 if maximum is None else maximum)),
        max_tokens=maximum,
        continuations=draw(st.integers(0, 3)),
        continuation_texts=tuple(draw(st.lists(some_text, min_size=1, max_size=2))),
        wrap_up_text=draw(text),
        on_loop=draw(st.sampled_from(OnLoop)),
    )


def truth(
    job: Job, tokens: Sequence[int], attempts: frozenset[int]
) -> tuple[list[tuple[Forced, str, int]], str]:
    """Return the forced texts with their numbers of tokens, and the sampled text between them.

    Text belongs to its last token: a character that the maximum splits appears with the next.
    """
    machine, reader = BudgetStateMachine(job.budget, MARKERS, VOCABULARY), ByteDetokenizer()
    runs: list[list[tuple[Forced, str]]] = []
    before, free = None, ""
    for position, token in enumerate(tokens):
        attempted = position in attempts
        forced = attempted or machine.forced is not None
        kind = Forced.WRAP_UP if machine.closing else Forced.CONTINUATION
        if token < BYTES and machine.thinking:
            text = reader.push([token])
            if not forced:
                free += text
            elif attempted or kind is not before:
                runs.append([(kind, text)])
            else:
                runs[-1].append((kind, text))
        before = kind if forced else None
        nudges = machine.loop_counts[OnLoop.NUDGE]
        machine.advance(token, attempted)
        if machine.loop_counts[OnLoop.NUDGE] > nudges:
            before = None  # a nudge is a separate span
    return [(run[0][0], "".join(text for _, text in run), len(run)) for run in runs], free


def split(text: str, spans: Sequence[ForcedSpan]) -> tuple[list[str], str]:
    """Return the texts in the spans, and the text between them."""
    inside, between, at = [], "", 0
    for span in spans:
        assert at <= span.start <= span.end <= len(text)
        between += text[at : span.start]
        inside.append(text[span.start : span.end])
        at = span.end
    return inside, between + text[at:]


@given(
    budget=budgets(),
    thoughts=st.lists(text, min_size=1, max_size=3),
    opens=st.booleans(),
    size=st.integers(1, 9),
)
def test_spans_cover_exactly_the_forced_text(
    budget: ThinkingBudget, thoughts: list[str], opens: bool, size: int
) -> None:
    script = Script(thoughts, "answer")
    engine = FakeEngine(script, opens=opens, tokens_per_delta=size)
    codec = engine.codec
    enforced = tokenize(budget, encode=codec.encode, markers=MARKERS, opened=opens, room=400)
    job = Job("job", (1,), Sampling(420), enforced)
    channels = ChannelSplitter(codec, engine.model, job, 0, AnswerText())

    async def run() -> list[TextDelta]:
        reported = [
            item async for delta in engine.generate(job) for item in channels.push(delta.token_ids)
        ]
        return [item for item in reported + channels.close() if isinstance(item, TextDelta)]

    pieces = asyncio.run(run())
    thinking = "".join(piece.text for piece in pieces if piece.channel is Channel.REASONING)
    record = asyncio.run(engine.record(job))
    outcome = channels.outcome(EndReason.LENGTH, record)
    spans = channels.forced_spans(outcome)

    forced, free = truth(job, channels.tokens, record.attempts)
    inside, between = split(thinking, spans)
    reported = [(span.kind, text, span.tokens) for span, text in zip(spans, inside, strict=True)]
    assert (reported, between) == (forced, free)


async def test_spans_count_from_the_start_of_all_thinking() -> None:
    thoughts = ("é one",)
    again = [*b"two", THINK, *"☃ three".encode(), END_THINK, *b"four"]
    thinking = {"continuations": 1, "continuation_text": "Wait"}

    async with client(FakeEngine(Script(thoughts, again))) as http:
        response = await http.post(CHAT, json=body(thinking=thinking))

    (choice,) = response.json()["choices"]
    assert choice["message"]["reasoning_content"] == "é oneWaité one☃ three"
    assert choice["thinking"]["forced_spans"] == [
        {"kind": "continuation", "start": 5, "end": 9, "tokens": 4}
    ]


@pytest.mark.parametrize("style", ["reasoning_content", "reasoning", "both", "tags", "hidden"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_every_reasoning_format_has_spans(style: str, streamed: bool) -> None:
    request = body(
        max_thinking_tokens=12,
        thinking={"wrap_up_text": "☃ so", "landing": "hard"},
        reasoning_format=style,
        stream=streamed,
    )

    async with client(FakeEngine(Script(("thinking away",)))) as http:
        response = await http.post(CHAT, json=request)

    choice = parse_events(response.text)[-2].choice if streamed else response.json()["choices"][0]
    assert choice["thinking"]["forced_spans"] == [
        {"kind": "wrap_up", "start": 6, "end": 10, "tokens": 6}
    ]
    assert choice["thinking"]["forced_tokens"] == 7
