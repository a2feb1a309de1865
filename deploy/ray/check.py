"""Check that a Ray Serve LLM application keeps budgets: `python -m deploy.ray.check URL MODEL`.

Sends prompts of token ids to `/v1/completions` with budgets in `vllm_xargs`, and follows the token
ids that come back with the reference state machine. A budget that forbids, cuts or prolongs the
thinking is each checked streamed and in one response; malformed budgets must be refused.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.tokenizers import cached_tokenizer_from_config

from proctor.budget.budgets import TokenBudget
from proctor.budget.machine import replay
from proctor.budget.outcome import EndReason
from proctor.budget.processors.params import EngineBudget
from proctor.budget.processors.tokenizer.marker_discovery import MarkerSource, find_markers
from proctor.budget.processors.tokenizer.vocabulary import read_vocabulary

PROMPT = "Start with 4, add 8, times 4, minus 4, minus 9. What are the last two digits?"
MAX_TOKENS = 400


class Checker:
    """Sends completions to one application."""

    def __init__(self, url: str, name: str, source: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=120)
        self._name = name
        config = AsyncEngineArgs(model=source).create_model_config()
        self._tokenizer = cached_tokenizer_from_config(config)
        _, self.markers = find_markers(self._tokenizer, config, MarkerSource())
        self._vocabulary = read_vocabulary(self._tokenizer, config.get_vocab_size())
        self._prompt = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": PROMPT}],
            add_generation_prompt=True,
            return_dict=False,
        )
        self.opened = self._prompt[-len(self.markers.start) :] == [*self.markers.start]

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the token ids of a text."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def body(self, budget: str, *, stream: bool) -> dict[str, Any]:
        """Return a request with a budget, as a JSON string."""
        return {
            "model": self._name,
            "prompt": self._prompt,
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "stream": stream,
            "return_token_ids": True,
            "vllm_xargs": {"proctor": budget},
        }

    def send(self, body: dict[str, Any]) -> httpx.Response:
        """Return the response to a completion."""
        return self._client.post("/v1/completions", json=body)

    def token_ids(self, budget: TokenBudget, *, stream: bool) -> list[int]:
        """Return the token ids that were generated within a budget."""
        wire = EngineBudget("check", 0, budget).to_extra_args()["proctor"]
        response = self.send(self.body(json.dumps(wire), stream=stream)).raise_for_status()
        if not stream:
            ids: list[int] = response.json()["choices"][0]["token_ids"]
            return ids
        return [token for chunk in _events(response) for token in _chunk_ids(chunk)]

    def thinking_tokens(self, tokens: list[int]) -> int:
        """Count the thinking tokens."""
        unlimited = TokenBudget(opened=self.opened)
        machine = replay(unlimited, self.markers, tokens, vocabulary=self._vocabulary)
        return machine.outcome(EndReason.LENGTH).tokens


def _events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        data = line.removeprefix("data: ")
        if data != line and data != "[DONE]":
            yield json.loads(data)


def _chunk_ids(chunk: dict[str, Any]) -> list[int]:
    return [token for choice in chunk["choices"] for token in choice.get("token_ids") or ()]


def main() -> int:
    """Print one line per check; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of the application, such as http://127.0.0.1:8000")
    parser.add_argument("model", help="its model_id")
    parser.add_argument("source", help="a path or a Hugging Face name, for the tokenizer")
    arguments = parser.parse_args()
    checker = Checker(arguments.url, arguments.model, arguments.source)
    failed = 0
    for name, passed, detail in [*_budgets(checker), *_refusals(checker)]:
        failed += not passed
        print(f"{'ok' if passed else 'FAILED':6} {name}: {detail}")
    return int(failed > 0)


def _budgets(checker: Checker) -> Iterator[tuple[str, bool, str]]:
    room = MAX_TOKENS - 100
    unbounded = TokenBudget(maximum=room, opened=checker.opened, opens=True)
    wait = checker.encode("Wait")
    free = checker.thinking_tokens(checker.token_ids(unbounded, stream=True))
    cases = {
        "no budget but the room": (unbounded, free, free),
        "no thinking": (replace(unbounded, maximum=0, opens=False), 0, 0),
        "at most 10": (replace(unbounded, maximum=10), 10, 10),
        f"at least {2 * free}": (
            replace(unbounded, minimum=2 * free, continuation_ids=(wait,)),
            2 * free,
            room,
        ),
    }
    for name, (budget, least, most) in cases.items():
        streamed = checker.token_ids(budget, stream=True)
        same = streamed == checker.token_ids(budget, stream=False)
        count = checker.thinking_tokens(streamed)
        sameness = "the same" if same else "others"
        detail = f"{count} thinking tokens of {len(streamed)}; {sameness} without a stream"
        yield name, least <= count <= most and same, detail


def _refusals(checker: Checker) -> Iterator[tuple[str, bool, str]]:
    valid: dict[str, Any] = EngineBudget("check", 0, TokenBudget()).to_extra_args()["proctor"]
    negative = {**valid, "budget": {**valid["budget"], "maximum": -1}}
    cases = {"no JSON": "10", "no budget": "{}", "a negative maximum": json.dumps(negative)}
    for name, wire in cases.items():
        response = checker.send(checker.body(wire, stream=False))
        message = response.json()["error"]["message"].partition(" (Request ID")[0]
        yield name, response.status_code == 400, f"{response.status_code}, {message}"


if __name__ == "__main__":
    sys.exit(main())
