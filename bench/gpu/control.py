"""Whether every budget holds, on each runner, with and without speculation and CUDA graphs."""

import asyncio
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from transformers import AutoTokenizer

from bench.native import recount, reported_tokens, send
from bench.throughput import NAME, Side, gateway, prompts, serving

NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}
MOST = 200
HEADER = """\
| runner | speculation | CUDA graphs | requests | outside the budget | usage differs | tokens/s |
|---|---|---|--:|--:|--:|--:|"""


@dataclass(frozen=True)
class Configuration:
    """A way to run the engine.

    Attributes:
        v2: whether on vLLM's V2 model runner.
        speculates: whether tokens are drafted, from n-grams of the prompt.
        graphs: whether the model is compiled and runs in CUDA graphs.
    """

    v2: bool
    speculates: bool
    graphs: bool

    @property
    def engine(self) -> dict[str, Any]:
        """The engine arguments of vLLM."""
        speculation = {"speculative_config": NGRAM} if self.speculates else {}
        return {"enforce_eager": not self.graphs, **speculation}

    @property
    def environment(self) -> dict[str, str]:
        return {"VLLM_USE_V2_MODEL_RUNNER": str(int(self.v2))}

    @property
    def refusal(self) -> str | None:
        """The reason why it cannot run here, or None."""
        if not self.v2 and self.speculates:
            return "vLLM refuses speculation beside logits processors on V1"
        if (self.v2 or self.graphs) and not torch.cuda.is_available():
            return "needs a GPU"
        return None

    def __str__(self) -> str:
        names = ("V2" if self.v2 else "V1", "n-gram" if self.speculates else "none")
        return f"| {' | '.join(names)} | {'yes' if self.graphs else 'no'} |"


CONFIGURATIONS = [
    Configuration(*flags) for flags in product((False, True), (False, True), (False, True))
]


def table(model: str, engine: Mapping[str, Any], count: int) -> Iterator[str]:
    """Measure, and yield the lines of the table.

    Args:
        model: a path or a Hugging Face name of a model that thinks between `<think>` and
            `</think>`, with a token for each.
        engine: vLLM's engine arguments.
        count: the number of requests for each configuration.
    """
    vocabulary = AutoTokenizer.from_pretrained(model).get_vocab()
    opens, closes = vocabulary["<think>"], vocabulary["</think>"]
    requests = list(bodies(count))
    yield HEADER
    for configuration in CONFIGURATIONS:
        if configuration.refusal is not None:
            yield f"{configuration} {configuration.refusal} | | | |"
            continue
        command = partial(gateway, model=model, engine={**engine, **configuration.engine})
        try:
            with serving(Side("Proctor", command, {}, configuration.environment)) as (server,):
                began = time.perf_counter()
                answers = asyncio.run(send(server.url, requests))
                seconds = time.perf_counter() - began
        except RuntimeError as error:  # the other configurations may start
            yield f"{configuration} {error} | | | |"
        else:
            yield f"{configuration} {row(requests, answers, opens, closes, seconds)} |"


def bodies(count: int) -> Iterator[dict[str, Any]]:
    """Yield requests with a random minimum and maximum; half of them are sampled."""
    rng = random.Random(0)
    for seed, text in enumerate(prompts(count, 0)):
        maximum = rng.randint(1, MOST)
        yield {
            "model": NAME,
            "messages": [{"role": "user", "content": text}],
            "min_thinking_tokens": rng.randint(0, maximum),
            "max_thinking_tokens": maximum,
            "thinking": {"on_loop": "off"},
            "max_tokens": MOST + 200,
            "temperature": rng.choice([0.0, 0.8]),
            "seed": seed,
            "return_token_ids": True,
        }


def row(
    requests: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    opens: int,
    closes: int,
    seconds: float,
) -> str:
    """Return the numbers of a table row; thinking is counted from the ids of the tokens."""
    counts = [recount(answer, opens, closes) for answer in answers]
    outside = sum(
        not body["min_thinking_tokens"] <= tokens <= body["max_thinking_tokens"]
        for body, tokens in zip(requests, counts, strict=True)
    )
    differing = sum(
        tokens != reported_tokens(answer) for answer, tokens in zip(answers, counts, strict=True)
    )
    generated = sum(answer["usage"]["completion_tokens"] for answer in answers)
    return f"{len(answers)} | {outside} | {differing} | {generated / seconds:.0f}"
