"""Loop detection: against a definition, as arrays against single detectors, and on the corpus."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proctor.budget.loops import (
    MIN_COPIES,
    MIN_LENGTH,
    MIN_LENGTH_WITHOUT_WORDS,
    PHRASE_PENALTY,
    THRESHOLD,
    WINDOW,
    LoopDetector,
)
from proctor.budget.processors.backend import ArrayBackend
from proctor.budget.processors.loops import LoopDetectors, LoopState
from proctor.budget.vocabulary import MAX_WEIGHT, weights_of
from tests.budget.loops_corpus import Encoder, ModelEncoder, WordEncoder, corpus, demo_traces
from tests.budget.loops_measure import find

LETTERS = bytes([0, 0, 1, 4, MAX_WEIGHT, MAX_WEIGHT])  # other tokens count as one letter
ALPHABET = 8


def exact_loop(tokens: Sequence[int], weights: bytes = b"") -> bool:
    """Return whether the tail is at least `MIN_COPIES` copies of a period, and long enough."""
    token_weights = [
        weights[token] if token < len(weights) else 1 for token in tokens[-MIN_LENGTH:]
    ]
    minimum = MIN_LENGTH if any(token_weights) else MIN_LENGTH_WITHOUT_WORDS
    for period in range(1, WINDOW + 1):
        covered = max(MIN_COPIES * period, minimum)
        tail = tokens[-covered:]
        if len(tail) == covered and tail[period:] == tail[:-period]:
            return True
    return False


def inexact_scores(tokens: Sequence[int], weights: bytes = b"") -> list[int]:
    """Return the score after each token, by searching each phrase in the window before it."""
    scores, score, begin = list[int](), 0, 0
    for end, token in enumerate(tokens, 1):
        phrase = tokens[begin:end]
        near = range(max(0, begin - WINDOW), begin)
        places = [at for at in near if tokens[at : at + len(phrase)] == phrase]
        if not places:
            score, begin = max(0, score - PHRASE_PENALTY), end
        else:
            token_weights = weights[token] if token < len(weights) else 1
            score = min(THRESHOLD, score + (max(1, token_weights) if len(places) > 1 else 1))
        scores.append(score)
    return scores


def text(rng: Random) -> list[int]:
    """Return tokens in which a sequence is repeated, sometimes with a changed token."""

    def random_tokens(maximum: int) -> list[int]:
        return rng.choices(range(ALPHABET), k=rng.randint(1, maximum))

    tokens = random_tokens(40)
    for _ in range(rng.randint(0, 2)):
        copy = random_tokens(rng.choice((5, 60, 150)))
        for _ in range(rng.randint(1, 2 + 300 // len(copy))):
            if rng.random() < 0.1:
                copy[rng.randrange(len(copy))] = rng.randrange(ALPHABET)
            tokens += copy
        tokens += random_tokens(20)
    return tokens


seeds = st.integers(0, 2**32)
texts = seeds.map(Random).map(text)


def first_hit(tokens: Sequence[int], weights: bytes = b"") -> int | None:
    detector = LoopDetector(weights)
    return next((at for at, token in enumerate(tokens) if detector.advance(token)), None)


@pytest.mark.slow
@settings(max_examples=50)
@given(texts, st.sampled_from([b"", LETTERS]))
def test_the_detector_agrees_with_the_definition(tokens: list[int], weights: bytes) -> None:
    detector = LoopDetector(weights)
    for end, score in enumerate(inexact_scores(tokens, weights), 1):
        hit = detector.advance(tokens[end - 1])
        assert detector.score == score
        assert hit == (score == THRESHOLD or exact_loop(tokens[:end], weights))


@given(st.integers(1, WINDOW), st.integers(0, 50))
def test_an_exact_loop_is_found_at_the_minimum_length(period: int, before: int) -> None:
    loop = list(range(period)) * (2 + max(MIN_COPIES, MIN_LENGTH // period))
    detector = LoopDetector()
    for token in range(WINDOW, WINDOW + before):
        assert not detector.advance(token)
    hits = [detector.advance(token) for token in loop]
    begins = max(MIN_COPIES * period, MIN_LENGTH)
    assert all(hits[begins - 1 :])
    assert not any(hits[: min(begins, period + THRESHOLD) - 1])


def test_a_repetition_without_words_must_be_longer() -> None:
    rule = [0, 0, 0, 7]  # |---|---|---|
    wordless = bytes(8)
    assert first_hit(rule * 100) == MIN_LENGTH - 1
    assert first_hit(rule * 100, wordless) == MIN_LENGTH_WITHOUT_WORDS - 1


def test_text_written_only_twice_is_not_a_loop() -> None:
    token_weights = list(range(WINDOW - 1))
    words = bytes([MAX_WEIGHT]) * WINDOW
    assert first_hit([*token_weights, *token_weights], words) is None
    assert first_hit([*token_weights, *token_weights, *token_weights], words) == 2 * len(
        token_weights
    )


def test_a_repeated_sentence_with_a_changing_number_is_a_loop() -> None:
    thought = [MAX_WEIGHT] * 15
    tokens = [token for number in range(40) for token in (*range(15), 100 + number)]
    hit = first_hit(tokens, bytes(thought))
    assert hit is not None
    assert not exact_loop(tokens[: hit + 1])


@given(texts, texts)
def test_reset_forgets_everything(before: list[int], after: list[int]) -> None:
    reset, fresh = LoopDetector(LETTERS), LoopDetector(LETTERS)
    for token in before:
        reset.advance(token)
    reset.reset()
    assert [reset.advance(token) for token in after] == [fresh.advance(token) for token in after]


@pytest.mark.parametrize(
    ("text", "weights"),
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
def test_weights_of_tokens(text: str, weights: int) -> None:
    assert weights_of([text.encode()]) == bytes([weights])


def test_a_cut_letter_counts_once_for_each_of_its_bytes() -> None:
    whole = "数".encode()
    cut = [whole[:1], whole[1:2], whole[2:]]
    assert weights_of(cut) == bytes([1, 1, 1])


SLOTS = 3


def state_of(detectors: Sequence[LoopDetector], arrays: ArrayBackend) -> LoopState:
    state = LoopState.empty(len(detectors), arrays)
    for slot, detector in enumerate(detectors):
        state.load(slot, detector, arrays)
    return state


def step(
    state: LoopState, tokens: Sequence[int | None], arrays: ArrayBackend
) -> tuple[LoopState, list[bool]]:
    """Advance the slots that have a token."""
    ids = arrays.as_int64([-1 if token is None else token for token in tokens])
    token_weights = [
        LETTERS[token] if token is not None and token in range(len(LETTERS)) else 1
        for token in tokens
    ]
    state, hits = LoopDetectors(arrays).step(state, ids, arrays.as_int64(token_weights), ids >= 0)
    return state, hits.tolist()


def equal(one: LoopState, other: LoopState) -> bool:
    return all(bool((a == b).all()) for a, b in zip(one, other, strict=True))


@settings(max_examples=12)
@given(data=st.data())
def test_the_arrays_equal_the_detectors_over_random_batches(
    arrays: ArrayBackend, data: st.DataObject
) -> None:
    state = LoopState.empty(SLOTS, arrays)
    detectors = [LoopDetector(LETTERS) for _ in range(SLOTS)]
    masks = st.lists(st.booleans(), min_size=SLOTS, max_size=SLOTS)
    for _ in range(data.draw(st.integers(1, 3))):
        reused, forgotten = data.draw(masks), data.draw(masks)
        for slot in range(SLOTS):
            if reused[slot]:
                detectors[slot] = LoopDetector(LETTERS)
                for token in data.draw(texts):
                    detectors[slot].advance(token)
        state = state_of(detectors, arrays).where(arrays.as_int64(reused) > 0, state, arrays)
        for slot in range(SLOTS):
            if forgotten[slot]:
                detectors[slot].reset()
        empty = LoopState.empty(SLOTS, arrays)
        state = empty.where(arrays.as_int64(forgotten) > 0, state, arrays)
        queues = [data.draw(texts) for _ in range(SLOTS)]
        rng = Random(data.draw(seeds))
        while any(queues):
            tokens = [queue.pop(0) if queue and rng.random() < 0.9 else None for queue in queues]
            expected = [
                token is not None and detector.advance(token)
                for token, detector in zip(tokens, detectors, strict=True)
            ]
            state, hits = step(state, tokens, arrays)
            assert hits == expected
        assert equal(state, state_of(detectors, arrays))


def test_a_step_leaves_the_state_before_it_alone(arrays: ArrayBackend) -> None:
    state = LoopState.empty(1, arrays)
    for token in [1, 2, 3] * 30:
        state, _ = step(state, [token], arrays)
    kept = LoopState(*(column + 0 for column in state))
    drafted = state
    for token in [1, 2, 4]:
        drafted, _ = step(drafted, [token], arrays)
    drafted.where(arrays.as_int64([0]) > 0, state, arrays)
    assert equal(state, kept)
    assert not equal(drafted, kept)


@pytest.mark.slow
@pytest.mark.parametrize(("encode", "late"), [(WordEncoder, 0.06), (ModelEncoder, 0.2)])
def test_detection_on_a_slice_of_the_corpus(encode: type[Encoder], late: float) -> None:
    encoder = encode()
    traces = list(corpus(3, encoder, progress=180, looping=96))
    findings = list(find(traces, encoder.weights()))
    assert not [finding.trace.family for finding in findings if finding.false_alarm]
    looping = [finding for finding in findings if finding.trace.loop_at is not None]
    assert sum(not finding.in_time for finding in looping) <= late * len(looping)


def test_loops_of_the_demo_model_are_found() -> None:
    findings = list(find(list(demo_traces()), ModelEncoder().weights()))
    assert not [finding for finding in findings if finding.false_alarm]
    assert all(finding.in_time for finding in findings if finding.trace.loop_at is not None)
