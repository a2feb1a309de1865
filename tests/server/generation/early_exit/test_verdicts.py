"""When probes find an answer settled."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.server.config.thinking.early_exit import AnswerKind, EarlyExit, Method
from proctor.server.engines.base import TokenLogprob
from proctor.server.generation.early_exit.verdicts import Verdict, entropy


def position(*probabilities: float) -> TokenLogprob:
    top = tuple((token, math.log(each)) for token, each in enumerate(probabilities))
    return TokenLogprob(0, top[0][1], top)


def test_the_entropy_in_nats() -> None:
    assert entropy(position(0.25, 0.25, 0.25, 0.25)) == pytest.approx(math.log(4))
    assert entropy(position(1.0)) == pytest.approx(0)
    # What is not reported counts as one token.
    assert entropy(position(0.5)) == pytest.approx(math.log(2))


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=30), st.integers(1, 30))
def test_what_is_reported_bounds_the_entropy_from_below(weights: list[float], count: int) -> None:
    probabilities = sorted((each / sum(weights) for each in weights), reverse=True)
    whole = entropy(position(*probabilities))
    assert entropy(position(*probabilities[:count])) <= whole + 1e-9


def test_low_entropies_in_a_row_settle() -> None:
    verdict = Verdict(EarlyExit(method=Method.ENTROPY, threshold=0.5, patience=2))
    low, high = [position(0.99, 0.01)], [position(0.5, 0.5)]
    settled = []
    for logprobs in (low, high, low, [], low, low):
        verdict.push("", logprobs)
        settled.append(verdict.settled)
    assert settled == [False, False, False, False, False, True]


def test_equal_answers_in_a_row_settle() -> None:
    exits = EarlyExit(method=Method.ANSWER, patience=3, answer=AnswerKind.NUMBER)
    verdict = Verdict(exits)
    settled = []
    for answer in ("so 7", "is 8", "8.", "it is 9", "9", "?", "9", "= 9", "9.0"):
        verdict.push(answer, [])
        settled.append(verdict.settled)
    assert settled == [False] * 8 + [True]


@given(
    st.sampled_from(Method),
    st.integers(1, 64),
    st.integers(2, 4),
    st.integers(0, 50),
    st.integers(0, 4000),
)
def test_the_allowance_leaves_the_minimum_and_pays_whole_probes(
    method: Method, every: int, patience: int, minimum: int, beyond: int
) -> None:
    early_exit = EarlyExit(method=method, every=every, patience=patience, threshold=1.0)
    maximum = minimum + beyond
    allowance = early_exit.allowance(minimum, maximum)
    assert 0 <= allowance <= maximum / 8
    assert maximum - allowance >= minimum
    if allowance:
        assert allowance % early_exit.probe_tokens == 0
        assert allowance // early_exit.probe_tokens >= patience
