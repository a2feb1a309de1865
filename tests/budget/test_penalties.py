"""With a budget, penalties have the same effect as in vLLM's sampler, which applies them later."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessors
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.ops.penalties import apply_all_penalties
from vllm.v1.sample.sampler import Sampler

from proctor.budget import UNKNOWN_VOCABULARY, Markers, TokenBudget
from proctor.budget.processors import v1
from proctor.budget.processors.params import EngineBudget
from proctor.budget.processors.sampling import table
from tests.budget.strategies import EOS, VOCABULARY, WORDS
from tests.budget.test_v1 import config

START, END = 6, 7
MARKERS = Markers(start=(START,), end=(END,), eos=frozenset({EOS}))
CLOSERS = [END, EOS]
DRAWS = 100
ROOTS = torch.tensor([0, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37], dtype=torch.float64).sqrt()
MINIMUM = TokenBudget(minimum=50, continuation_ids=((1,),))


@dataclass
class Row:
    """A request in the batch, some tokens into its turn."""

    budget: TokenBudget | None
    settings: dict[str, Any]
    prompt: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)

    def params(self, key: str) -> SamplingParams:
        carried = EngineBudget(key, 7, self.budget).to_extra_args() if self.budget else {}
        return SamplingParams(extra_args=carried, **self.settings)


def processor(rows: list[Row]) -> v1.BudgetLogitsProcessor:
    """Return a budget processor with these rows in its batch."""
    with patch.object(v1, "vocabulary_of", return_value=UNKNOWN_VOCABULARY):
        made = v1.BudgetLogitsProcessor(config(MARKERS), torch.device("cpu"), False)  # type: ignore[arg-type]
    added = [(at, row.params(str(at)), row.prompt, row.output) for at, row in enumerate(rows)]
    made.update_state(BatchUpdate(len(rows), removed=[], added=added, moved=[]))
    return made


def prompts(rows: list[Row]) -> torch.Tensor:
    """Return the prompts, padded as vLLM does."""
    longest = max(len(row.prompt) for row in rows)
    padded = [row.prompt + [VOCABULARY] * (longest - len(row.prompt)) for row in rows]
    return torch.tensor(padded, dtype=torch.int64)


def column(rows: list[Row], name: str, default: float) -> torch.Tensor:
    return torch.tensor([float(row.settings.get(name, default)) for row in rows])


def sampled(
    logits: torch.Tensor, rows: list[Row], ours: v1.BudgetLogitsProcessor | None
) -> tuple[list[int], torch.Tensor]:
    """Return the tokens that vLLM's sampler samples, and the probabilities that it samples from."""
    temperature = column(rows, "temperature", 1)
    greedy = bool((temperature == 0).all())
    metadata = SamplingMetadata(
        temperature=None if greedy else temperature,
        all_greedy=greedy,
        all_random=bool((temperature > 0).all()),
        top_p=None if greedy else column(rows, "top_p", 1),
        top_k=None if greedy else column(rows, "top_k", VOCABULARY).int(),
        generators={},
        max_num_logprobs=-1,
        no_penalties=False,
        prompt_token_ids=prompts(rows),
        frequency_penalties=column(rows, "frequency_penalty", 0),
        presence_penalties=column(rows, "presence_penalty", 0),
        repetition_penalties=column(rows, "repetition_penalty", 1),
        output_token_ids=[row.output for row in rows],
        allowed_token_ids_mask=None,
        bad_words_token_ids={},
        logitsprocs=LogitsProcessors([ours] if ours else []),
    )
    output = Sampler("processed_logprobs")(logits.clone(), metadata)
    return output.sampled_token_ids[:, 0].tolist(), output.logprobs_tensors.logprobs.exp()


def penalized(logits: torch.Tensor, rows: list[Row]) -> torch.Tensor:
    return apply_all_penalties(
        logits.clone(),
        prompts(rows),
        column(rows, "presence_penalty", 0),
        column(rows, "frequency_penalty", 0),
        column(rows, "repetition_penalty", 1),
        [row.output for row in rows],
    )


penalties = st.fixed_dictionaries(
    {},
    optional={
        "presence_penalty": st.sampled_from([-2.0, 0.4, 2.0]),
        "frequency_penalty": st.sampled_from([-2.0, 0.3, 2.0]),
        "repetition_penalty": st.sampled_from([0.001, 0.8, 1.2, 2.0]),
    },
)
words = st.lists(st.integers(0, WORDS - 1), max_size=12)
seeds = st.integers(0, 2**31)


def noise(seed: int, rows: int) -> torch.Tensor:
    return 3 * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def evenly(number: int, seed: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Return the random numbers of one of `DRAWS`, evenly spread over these.

    Those of a draw's attempts form a Kronecker sequence, so that they are spread jointly too.
    """
    attempt = (position >> 32) % len(ROOTS)
    return ((number + 0.5) / DRAWS * (attempt == 0) + (number + 1) * ROOTS[attempt]) % 1


@st.composite
def batches(draw: st.DrawFn, /, budget: TokenBudget, **more: st.SearchStrategy[Any]) -> list[Row]:
    """Draw rows of which all, some or none have a budget, and all, some or none have penalties."""
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        settings = draw(st.just({}) | penalties) | draw(st.fixed_dictionaries({}, optional=more))
        rows.append(Row(draw(st.sampled_from([budget, None])), settings, draw(words), draw(words)))
    return rows


@given(batches(MINIMUM), seeds)
def test_greedy_rows_under_a_minimum_sample_the_same_tokens_as_vllm(
    rows: list[Row], seed: int
) -> None:
    """Attempts are impossible here; rows with and without a budget agree."""
    for row in rows:
        row.settings["temperature"] = 0
    logits = noise(seed, len(rows))
    logits[:, CLOSERS] = -torch.inf
    ours = processor(rows)
    assert sampled(logits, rows, ours)[0] == sampled(logits, rows, None)[0]


@pytest.mark.slow
@settings(max_examples=25)
@given(
    batches(
        MINIMUM,
        temperature=st.sampled_from([0.3, 1.0, 2.0]),
        top_p=st.sampled_from([0.5, 0.9, 1.0]),
        top_k=st.sampled_from([VOCABULARY, 1, 2, 3, 6]),
    ),
    seeds,
)
def test_rows_under_a_minimum_have_the_distribution_of_vllm(rows: list[Row], seed: int) -> None:
    """Over all random numbers; the share of attempts is the probability of the closing tokens."""
    logits = noise(seed, len(rows))
    with_budget = [at for at, row in enumerate(rows) if row.budget is not None]
    attempts, law = torch.zeros(len(rows)), torch.zeros(len(rows), VOCABULARY)
    for number in range(DRAWS):
        ours = processor(rows)
        with patch.object(table, "uniform", partial(evenly, number)):
            _, probabilities = sampled(logits, rows, ours)
        for at in with_budget:
            if ours.take_record(str(at)).attempts:
                assert probabilities[at, 1] == 1
                attempts[at] += 1 / DRAWS
            else:
                law[at] += probabilities[at] / DRAWS
    _, expected = sampled(logits, rows, None)
    closing = expected[:, CLOSERS].sum(dim=1)
    expected[:, CLOSERS] = 0
    error = 6 / DRAWS
    torch.testing.assert_close(attempts[with_budget], closing[with_budget], rtol=0, atol=error)
    torch.testing.assert_close(law[with_budget], expected[with_budget], rtol=0, atol=error)


@given(batches(TokenBudget(maximum=100)), seeds)
def test_the_end_marker_takes_over_the_probability_of_eos(rows: list[Row], seed: int) -> None:
    """The penalties are those of the likelier of the two, not of the token that replaces it."""
    for row in rows:
        row.prompt.append(EOS)
    logits = noise(seed, len(rows))
    _, probabilities = sampled(logits, rows, processor(rows))
    expected = penalized(logits, rows)
    for at, row in enumerate(rows):
        if row.budget is not None:
            expected[at, END] = expected[at, CLOSERS].max()
            expected[at, EOS] = -torch.inf
    torch.testing.assert_close(probabilities, expected.softmax(-1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("repetition", [0.001, 2.0])
@pytest.mark.parametrize("frequency", [-2.0, 2.0])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_forced_tokens_keep_probability_1(
    repetition: float, frequency: float, temperature: float
) -> None:
    """Both at the maximum and below a minimum, however often tokens occurred before."""
    settings = {
        "temperature": temperature,
        "frequency_penalty": frequency,
        "repetition_penalty": repetition,
    }
    seen = [[END, *range(WORDS)], [3] * 500]
    closed = Row(TokenBudget(maximum=500), settings, *seen)
    sent_back = Row(TokenBudget(minimum=501, continuation_ids=((1,),)), settings, *seen)
    logits = torch.full((2, VOCABULARY), 40.0)
    logits[0, END] = -40
    logits[1, CLOSERS] = 1e6
    tokens, probabilities = sampled(logits, [closed, sent_back], processor([closed, sent_back]))
    assert tokens == [END, 1]
    assert probabilities[[0, 1], tokens].tolist() == [1, 1]
