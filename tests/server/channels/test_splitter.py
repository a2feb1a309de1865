from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.budget import (
    EMPTY_RECORD,
    BudgetStateMachine,
    DesyncError,
    EndReason,
    EngineRecord,
    Label,
    Markers,
    TokenBudget,
    Vocabulary,
)
from proctor.server.channels.answer_text import AnswerText
from proctor.server.channels.deltas import Channel, TextDelta
from proctor.server.channels.splitter import ChannelSplitter
from proctor.server.engines.base import Job, ModelInfo, Sampling
from proctor.server.engines.fake import END_THINK, END_TURN, MARKERS, THINK, ByteCodec

LONG = Markers(tuple(b"<think>"), tuple(b"</think>"), frozenset({END_TURN}))


def channels(
    budget: TokenBudget | None = None, markers: Markers = MARKERS, stops: Sequence[str] = ()
) -> ChannelSplitter:
    job = Job("job", (1, 2), Sampling(100), budget or TokenBudget())
    model = ModelInfo("bytes", 4096, markers, created=0)
    return ChannelSplitter(ByteCodec(markers, opens=True), model, job, 0, AnswerText(stops))


def texts(pieces: list[TextDelta]) -> tuple[str, str]:
    """Return the reasoning and the answer."""
    of = dict.fromkeys(Channel, "")
    for piece in pieces:
        of[piece.channel] += piece.text
    return of[Channel.REASONING], of[Channel.ANSWER]


def fold(split: ChannelSplitter, tokens: Sequence[int], size: int = 1) -> list[TextDelta]:
    cuts = range(0, len(tokens), size)
    pieces = [piece for at in cuts for piece in split.push(tokens[at : at + size])]
    pieces += split.close()
    deltas = [piece for piece in pieces if isinstance(piece, TextDelta)]
    assert deltas == pieces  # without tools, there are no calls
    return deltas


words = st.text(st.characters(exclude_characters="<", codec="utf-8"))


@given(
    thought=words,
    answer=words,
    size=st.integers(1, 9),
    markers=st.sampled_from([MARKERS, LONG]),
)
def test_texts_are_split_exactly(thought: str, answer: str, size: int, markers: Markers) -> None:
    tokens = [*thought.encode(), *markers.end, *answer.encode(), END_TURN]

    assert texts(fold(channels(markers=markers), tokens, size)) == (thought, answer.lstrip("\n"))


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_character_cut_by_the_end_marker_is_dropped(size: int) -> None:
    tokens = [*"é☃".encode()[:-1], END_THINK, *"☃".encode(), END_TURN]

    assert texts(fold(channels(), tokens, size)) == ("é", "☃")


def test_bytes_on_both_sides_of_a_marker_never_make_a_character() -> None:
    snowman = "☃".encode()

    reasoning, answer = texts(fold(channels(), [*snowman[:2], END_THINK, *snowman[2:], END_TURN]))

    assert reasoning == ""
    assert "☃" not in answer


def test_an_incomplete_marker_is_text() -> None:
    tokens = [*b"a</thing", *LONG.end, *b"b<thinks", END_TURN]

    split = channels(markers=LONG)

    assert texts(fold(split, tokens)) == ("a</thing", "b<thinks")
    assert split.outcome(EndReason.STOP, EMPTY_RECORD).tokens == len("a</thing")


def test_thinking_may_reopen_after_the_answer_began() -> None:
    tokens = [*b"one", END_THINK, *b"\n\ntwo\n", THINK, *b"three", END_THINK, *b"\nfour", END_TURN]

    assert texts(fold(channels(), tokens)) == ("onethree", "two\n\nfour")


def test_stop_strings_apply_to_the_answer_only() -> None:
    split = channels(stops=["\n", "stop"])

    pieces = fold(split, [*b"st\nop stop", END_THINK, *b"\n\nfull stop here"])

    assert texts(pieces) == ("st\nop stop", "full ")
    assert split.stopped


def test_a_stop_string_is_found_in_text_held_back_for_a_marker() -> None:
    split = channels(TokenBudget(opened=False), LONG, stops=["<th"])

    assert texts(fold(split, [*b"x<th"])) == ("", "x")
    assert split.stopped


def test_an_unfinished_thinking_is_counted() -> None:
    split = channels(markers=LONG)
    fold(split, [*b"abc</th"])

    outcome = split.outcome(EndReason.LENGTH, EMPTY_RECORD)

    assert (outcome.tokens, outcome.end_reason) == (7, EndReason.LENGTH)


def test_without_a_record_of_attempts_the_tokens_are_still_counted() -> None:
    budget = TokenBudget(minimum=4, continuation_ids=(tuple(b"Wait"),))
    split = channels(budget)
    fold(split, [*b"aWaitb", END_THINK, *b"x"])

    assert split.outcome(EndReason.CANCELLED, None).tokens == 6
    assert split.outcome(EndReason.CANCELLED, EngineRecord(frozenset({1}))).continuations == 1


def test_exceeding_the_budget_is_a_desync() -> None:
    with pytest.raises(DesyncError):
        fold(channels(TokenBudget(maximum=2)), [*b"abc", END_THINK])


def test_missing_the_minimum_is_a_desync_at_the_end() -> None:
    split = channels(TokenBudget(minimum=9, maximum=12, continuation_ids=((1,),)))
    fold(split, [*b"abc"] * 5)

    with pytest.raises(DesyncError):
        split.outcome(EndReason.STOP, EMPTY_RECORD)


PIECES = [b"<", b"/", b"t", b">", b"</", b"t>", b"<t", b"<t>", b"</t>", b">.", b" </", b"><", b"a"]
SPELLED = Vocabulary.from_bytes([*PIECES, *(bytes([byte]) for byte in b". \n")])
TEXT = Markers((0, 2, 3), (0, 1, 2, 3), frozenset({99}), tuple(b"<t>"), tuple(b"</t>"))


class PieceCodec(ByteCodec):
    """A codec whose tokens have several bytes each."""

    def detokenizer(self, after: Sequence[int], *, special: bool = False) -> Any:
        return PieceDetokenizer()


class PieceDetokenizer:
    def push(self, token_ids: Sequence[int]) -> str:
        return b"".join(SPELLED.spelling[token] for token in token_ids).decode()

    def close(self) -> str:
        return ""


def spelled(budget: TokenBudget) -> ChannelSplitter:
    job = Job("job", (1, 2), Sampling(100), budget)
    model = ModelInfo("pieces", 4096, TEXT, created=0, vocabulary=SPELLED)
    return ChannelSplitter(PieceCodec(TEXT, opens=True), model, job, 0, AnswerText())


def cut(text: bytes, choose: Sequence[int]) -> list[int]:
    """Tokenize a text in one of the possible ways."""
    tokens: list[int] = []
    for choice in choose:
        fits = [at for at, piece in enumerate(SPELLED.spelling) if text.startswith(piece)]
        if not fits:
            break
        tokens.append(fits[choice % len(fits)])
        text = text[len(SPELLED.spelling[tokens[-1]]) :]
    return tokens + [SPELLED.spelling.index(bytes([byte])) for byte in text]


def split_at_markers(text: str, inside: bool) -> tuple[str, str]:
    """Return the reasoning and the answer, by a simple reference implementation."""
    reasoning = answer = ""
    while text:
        if inside:
            thought, end, text = text.partition("</t>")
            reasoning += thought
            inside = not end
        else:
            at = {marker: text.find(marker) for marker in ("<t>", "</t>") if marker in text}
            marker = min(at, key=at.__getitem__, default="")
            content, _, text = text.partition(marker) if marker else (text, "", "")
            answer += content
            inside = marker == "<t>"
    return reasoning, answer


@given(
    parts=st.lists(st.sampled_from([b"<t>", b"</t>", b"a", b"<", b".", b" ", b"t>", b"</"])),
    opened=st.booleans(),
    choose=st.lists(st.integers(0, 9), max_size=30),
    size=st.integers(1, 5),
)
def test_the_texts_do_not_depend_on_the_tokenization(
    parts: list[bytes], opened: bool, choose: list[int], size: int
) -> None:
    whole = b"".join(parts)

    split = texts(fold(spelled(TokenBudget(opened=opened)), cut(whole, choose), size))

    assert split == split_at_markers(whole.decode(), opened)


def test_a_rejected_partial_end_marker_is_neither_shown_nor_counted() -> None:
    budget = TokenBudget(minimum=5, continuation_ids=((12,),), opened=True)
    tokens = [
        12,
        10,
        2,
        12,
        12,
        12,
        12,
        12,
        4,
        5,
        12,
    ]  # "a </t", which is rejected, then "aaaaa</t>a"
    split = spelled(budget)

    reasoning, answer = texts(fold(split, tokens))
    outcome = split.outcome(EndReason.STOP, EngineRecord(frozenset({3})))
    assert (reasoning, answer) == ("a aaaaa", "a")
    assert (outcome.tokens, outcome.continuations) == (6, 1)
    (span,) = split.forced_spans(outcome)
    assert reasoning[span.start : span.end] == "a"
    assert span.start == len("a ")


BLOCKS = st.lists(
    st.tuples(st.text("ab ", min_size=1, max_size=6), st.text("xy", min_size=1, max_size=4)),
    min_size=1,
    max_size=4,
)


@given(
    blocks=BLOCKS,
    size=st.integers(1, 40),
    markers=st.sampled_from([MARKERS, LONG]),
    replayed=st.booleans(),
)
def test_each_delta_knows_the_thinking_before_it(
    blocks: list[tuple[str, str]], size: int, markers: Markers, replayed: bool
) -> None:
    budget = TokenBudget(continuations=1, continuation_ids=((1,),)) if replayed else TokenBudget()
    tokens: list[int] = []
    expected: list[int] = []
    total = 0
    for thought, answer in blocks:
        start = markers.start if tokens else ()
        tokens += [*start, *thought.encode(), *markers.end, *answer.encode()]
        total += len(thought)
        expected.append(total)
    split = channels(budget, markers)

    pieces = fold(split, tokens, size)

    counts = dict.fromkeys(p.thinking_tokens for p in pieces if p.channel is Channel.ANSWER)
    assert [*counts] == expected
    assert split.outcome(EndReason.STOP, None).tokens == total


@given(
    parts=st.lists(st.sampled_from([b"<t>", b"</t>", b"a", b"<", b".", b" ", b"t>", b"</"])),
    opened=st.booleans(),
    choose=st.lists(st.integers(0, 9), max_size=30),
    size=st.integers(1, 5),
)
def test_the_thinking_of_the_last_delta_is_that_of_the_outcome(
    parts: list[bytes], opened: bool, choose: list[int], size: int
) -> None:
    split = spelled(TokenBudget(opened=opened))
    pieces = fold(split, [*cut(b"".join(parts), choose), SPELLED.spelling.index(b"a")], size)

    assert pieces[-1].thinking_tokens == split.outcome(EndReason.STOP, EMPTY_RECORD).tokens


class SlowMachine(BudgetStateMachine):
    """A state machine without the way of its own for plain text."""

    def advance_plain(self, token: int) -> Label | None:
        return None


@st.composite
def marked_texts(draw: st.DrawFn, markers: Markers) -> list[int]:
    """Return tokens of text, with markers and the end of turn anywhere."""
    parts = st.one_of(
        st.text("a<é/th\n☃.1", min_size=1, max_size=6).map(lambda text: [*text.encode()]),
        st.sampled_from([[*markers.start], [*markers.end], [END_TURN]]),
    )
    return [token for part in draw(st.lists(parts, max_size=12)) for token in part]


@given(data=st.data(), markers=st.sampled_from([MARKERS, LONG]), opened=st.booleans())
def test_plain_text_is_split_as_all_other_text(
    data: st.DataObject, markers: Markers, opened: bool
) -> None:
    tokens = data.draw(marked_texts(markers))
    budget = TokenBudget(opened=opened)
    stops = data.draw(st.sampled_from([(), ("\n", "th")]))
    fast, slow = (channels(budget, markers, stops) for _ in range(2))
    slow._machine.__class__ = SlowMachine

    pieces = [(fast.push([token]), slow.push([token])) for token in tokens]
    pieces.append((fast.close(), slow.close()))

    for of_fast, of_slow in pieces:
        assert of_fast == of_slow
    assert fast.used == slow.used
    assert (fast.answer_tokens, fast.stop_string) == (slow.answer_tokens, slow.stop_string)
    outcomes = [each.outcome(EndReason.STOP, EMPTY_RECORD) for each in (fast, slow)]
    assert outcomes[0] == outcomes[1]
    states = [vars(each._machine) for each in (fast, slow)]
    for name in ("length", "partial", "incomplete_bytes", "ends_sentence", "after_digit", "phase"):
        assert states[0][name] == states[1][name]
