"""Loops are found: by definition, token by token, as tensors, and on the corpus."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from budget.loops import (
    COPIES,
    COVERED,
    COVERED_WITHOUT_WORDS,
    ENOUGH,
    MOST_LETTERS,
    REACH,
    SURPRISE,
    LoopDetector,
    letters_of,
)
from budget.processors.loops import LoopState, LoopTable, step
from tests.budget.loops_corpus import DemoEncoder, Encoder, WordEncoder, corpus, demo_traces
from tests.budget.loops_measure import find

CPU = torch.device("cpu")
LETTERS = bytes([0, 1, 4, MOST_LETTERS])  # of the tokens 0 to 3; others count as one letter
ALPHABET = 5


def exact_loop(tokens: Sequence[int], letters: bytes = b"") -> bool:
    """The tail is at least four copies of something, and long enough."""
    said = [letters[token] if token < len(letters) else 1 for token in tokens[-COVERED:]]
    least = COVERED if any(said) else COVERED_WITHOUT_WORDS
    for period in range(1, REACH + 1):
        covered = max(COPIES * period, least)
        tail = tokens[-covered:]
        if len(tail) == covered and tail[period:] == tail[:-period]:
            return True
    return False


def inexact_score(tokens: Sequence[int], letters: bytes = b"") -> int:
    """Phrases by looking for each in the text before it; the score they add up to."""
    score, begin = 0, 0
    for end, token in enumerate(tokens, 1):
        phrase = tokens[begin:end]
        nearest = range(max(0, begin - REACH), begin)
        places = [at for at in nearest if tokens[at : at + len(phrase)] == phrase]
        if not places:
            score, begin = max(0, score - SURPRISE), end
        else:
            said = letters[token] if token < len(letters) else 1
            score = min(ENOUGH, score + (max(1, said) if len(places) > 1 else 1))
    return score


def is_loop(tokens: Sequence[int], letters: bytes = b"") -> bool:
    return exact_loop(tokens, letters) or inexact_score(tokens, letters) == ENOUGH


def token_lists(longest: int = 40) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, ALPHABET - 1), max_size=longest)


@st.composite
def texts(draw: st.DrawFn) -> list[int]:
    """Tokens in which some stretch comes again and again, perhaps with a token changed."""
    tokens = draw(token_lists())
    for _ in range(draw(st.integers(0, 3))):
        copy = draw(token_lists(90).filter(len))
        for _ in range(draw(st.integers(1, 2 + 160 // len(copy)))):
            if draw(st.integers(0, 9)) == 0:
                copy[draw(st.integers(0, len(copy) - 1))] = draw(st.integers(0, ALPHABET - 1))
            tokens += copy
        tokens += draw(token_lists())
    return tokens


def first_hit(tokens: Sequence[int], letters: bytes = b"") -> int | None:
    detector = LoopDetector(letters)
    return next((at for at, token in enumerate(tokens) if detector.advance(token)), None)


@given(texts(), st.sampled_from([b"", LETTERS]))
def test_token_by_token_is_the_definition(tokens: list[int], letters: bytes) -> None:
    detector = LoopDetector(letters)
    hits = [detector.advance(token) for token in tokens]
    assert detector.score == inexact_score(tokens, letters)
    for length in {*range(1, len(tokens) + 1, 7), len(tokens)} - {0}:
        assert hits[length - 1] == is_loop(tokens[:length], letters)


@given(st.integers(1, REACH), st.integers(0, 50))
def test_an_exact_loop_is_found_as_soon_as_it_is_one(period: int, before: int) -> None:
    loop = list(range(period)) * (2 + max(COPIES, COVERED // period))
    detector = LoopDetector()
    for token in range(REACH, REACH + before):
        assert not detector.advance(token)
    hits = [detector.advance(token) for token in loop]
    begins = max(COPIES * period, COVERED)
    assert all(hits[begins - 1 :])
    assert not any(hits[: min(begins, period + ENOUGH) - 1])


def test_a_repetition_without_words_must_be_longer() -> None:
    rule = [0, 0, 0, 7]  # |---|---|---|
    wordless = bytes(8)
    assert first_hit(rule * 100) == COVERED - 1
    assert first_hit(rule * 100, wordless) == COVERED_WITHOUT_WORDS - 1


def test_what_is_said_twice_is_not_a_loop() -> None:
    said = list(range(REACH - 1))
    words = bytes([MOST_LETTERS]) * REACH
    assert first_hit([*said, *said], words) is None
    assert first_hit([*said, *said, *said], words) == 2 * len(said)


def test_the_same_thought_with_a_changing_number_is_a_loop() -> None:
    thought = [MOST_LETTERS] * 15
    tokens = [token for number in range(40) for token in (*range(15), 100 + number)]
    hit = first_hit(tokens, bytes(thought))
    assert hit is not None
    assert not exact_loop(tokens[: hit + 1])


@given(texts(), texts())
def test_reset_forgets_everything(before: list[int], after: list[int]) -> None:
    reset, fresh = LoopDetector(LETTERS), LoopDetector(LETTERS)
    for token in before:
        reset.advance(token)
    reset.reset()
    assert [reset.advance(token) for token in after] == [fresh.advance(token) for token in after]


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("", 0),
        (" 42", 0),
        ("|---|", 0),
        ("\n", 0),
        ("a", 1),
        (" the", 3),
        (" number", 6),
        (" numbers", 6),
        (".", 6),
        (" 3.14", 6),
        ("é", 2),
        ("数", 3),
    ],
)
def test_how_much_a_token_says(text: str, letters: int) -> None:
    assert letters_of([text.encode()]) == bytes([letters])


def test_a_cut_letter_counts_once_for_each_of_its_bytes() -> None:
    whole = "数".encode()
    cut = [whole[:1], whole[1:2], whole[2:]]
    assert letters_of(cut) == bytes([1, 1, 1])


SLOTS = 3


def come(table: LoopTable, tokens: Sequence[int | None]) -> list[bool]:
    """Let a token come in the slots that have one."""
    token = torch.tensor([-1 if each is None else each for each in tokens])
    hits: list[bool] = table.advance(token, token >= 0).tolist()
    return hits


@settings(max_examples=25)
@given(st.data())
def test_the_table_equals_the_detector_over_random_batches(data: st.DataObject) -> None:
    table = LoopTable(SLOTS, LETTERS, CPU)
    detectors = [LoopDetector(LETTERS) for _ in range(SLOTS)]
    queues: list[list[int]] = [[] for _ in range(SLOTS)]
    for _ in range(data.draw(st.integers(1, 4))):
        for slot in range(SLOTS):
            queues[slot] = data.draw(texts())
            if data.draw(st.booleans()):
                detectors[slot] = LoopDetector(LETTERS)
                for token in data.draw(texts()):
                    detectors[slot].advance(token)
                table.load(slot, detectors[slot])
        forgotten = torch.tensor(data.draw(st.lists(st.booleans(), min_size=SLOTS, max_size=SLOTS)))
        table.forget(forgotten)
        for slot in forgotten.nonzero()[:, 0]:
            detectors[slot].reset()
        rng = data.draw(st.randoms(use_true_random=False))
        while any(queues):
            tokens = [queue.pop(0) if queue and rng.random() < 0.9 else None for queue in queues]
            expected = [
                token is not None and detector.advance(token)
                for token, detector in zip(tokens, detectors, strict=True)
            ]
            assert come(table, tokens) == expected
        assert table.state.score.tolist() == [detector.score for detector in detectors]


def test_a_step_leaves_the_state_before_it_alone() -> None:
    table = LoopTable(1, LETTERS, CPU)
    for token in [1, 2, 3] * 30:
        come(table, [token])
    kept = LoopState(*(column.clone() for column in table.state))
    before = table.state
    drafted, token = before, torch.tensor([1])
    for _ in range(5):
        drafted, _ = step(drafted, token, table.letters(token), torch.tensor([True]))
    come(table, [4])
    table.forget(torch.tensor([True]))
    table.load(0, LoopDetector())
    assert all(map(torch.equal, before, kept))


@pytest.mark.parametrize(("encode", "late"), [(WordEncoder, 0.06), (DemoEncoder, 0.2)])
def test_a_slice_of_the_corpus(encode: type[Encoder], late: float) -> None:
    encoder = encode()
    traces = list(corpus(3, encoder, progress=180, looping=96))
    findings = list(find(traces, encoder.letters()))
    assert not [finding.trace.family for finding in findings if finding.false_alarm]
    looping = [finding for finding in findings if finding.trace.loop_at is not None]
    assert sum(not finding.in_time for finding in looping) <= late * len(looping)


def test_the_demo_model_driven_past_its_budget_is_found_looping() -> None:
    findings = list(find(list(demo_traces()), DemoEncoder().letters()))
    assert not [finding for finding in findings if finding.false_alarm]
    assert all(finding.in_time for finding in findings if finding.trace.loop_at is not None)
