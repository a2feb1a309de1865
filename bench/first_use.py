"""The longest pause of other streams while each feature is used for the first time.

    .venv/bin/proctor serve --port 8000
    .venv/bin/python -m bench.first_use --url http://127.0.0.1:8000

Two streams think all the time. Meanwhile each feature is requested once; whatever compiles or
loads something on first use shows as a pause. The table has the status and the duration of each
request, and the longest gap between two events of a stream meanwhile. Target: at most 1 s. Each
run needs a newly started server.
"""

import argparse
import asyncio
import gzip
import json
import time
from collections.abc import Mapping
from typing import Any

import httpx

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "Start with 7, add 5, times 3."}]
STREAMS = 2
SETTLING_SECONDS = 1.0
SCHEMA = {"type": "object", "properties": {"digit": {"enum": [3, 5]}}, "required": ["digit"]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
GRAMMAR = 'root ::= "yes" | "no"'


def chat(**fields: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"messages": MESSAGES, "max_thinking_tokens": 16, "max_tokens": 64, **fields}


def raw(**fields: Any) -> tuple[str, dict[str, Any]]:
    return COMPLETIONS, {"prompt": "7 + 5 =", "max_tokens": 8, **fields}


def outputs(**fields: Any) -> tuple[str, dict[str, Any]]:
    return chat(structured_outputs=fields)


FEATURES: dict[str, tuple[str, dict[str, Any]]] = {
    "greedy": chat(temperature=0),
    "sampled, seed": chat(seed=1),
    "top-p, top-k, min-p": chat(top_p=0.9, top_k=8, min_p=0.05),
    "penalties": chat(presence_penalty=0.5, frequency_penalty=0.5, repetition_penalty=1.1),
    "logit_bias": chat(logit_bias={"5": 1}),
    "logprobs": chat(logprobs=True, top_logprobs=3),
    "stop": chat(stop=["3"]),
    "n": chat(n=4),
    "minimum, continuations": chat(
        min_thinking_tokens=16, thinking={"continuations": 2, "wrap_up_text": "So"}
    ),
    "minimum, top-p, penalties": chat(min_thinking_tokens=16, top_p=0.9, presence_penalty=0.5),
    "no thinking": chat(thinking={"type": "disabled"}, max_thinking_tokens=None),
    "tier auto": chat(budget_tier="auto", max_thinking_tokens=None, max_tokens=None),
    "json_object": chat(response_format={"type": "json_object"}),
    "json_schema": chat(
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
    ),
    "regex": outputs(regex="[0-9]{3}"),
    "choice": outputs(choice=["yes", "no"]),
    "grammar": outputs(grammar=GRAMMAR),
    "long prompt": chat(messages=[{"role": "user", "content": "Please read this. " * 100}]),
    "raw prompt": raw(),
    "echo, logprobs": raw(echo=True, logprobs=2),
    "prompt_logprobs": raw(prompt_logprobs=2),
    "lists of prompts": raw(prompt=["1 +", "2 +", "3 +"]),
    "token ids": chat(return_token_ids=True),
    "continue_final_message": chat(
        messages=[*MESSAGES, {"role": "assistant", "content": "The"}],
        continue_final_message=True,
        add_generation_prompt=False,
    ),
    "tools": chat(tools=[TOOL], tool_choice="required"),
    "tokenize": ("/tokenize", {"prompt": "hello"}),
    "route": ("/v1/route", {"messages": MESSAGES}),
}


class Streams:
    """Streams that run all the time.

    Attributes:
        longest: the longest gap between two events of a stream, in seconds, since the last reset.
    """

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self, http: httpx.AsyncClient) -> None:
        """Stream one response after another."""
        path, body = chat(
            min_thinking_tokens=1400,
            max_thinking_tokens=1400,
            max_tokens=1900,
            thinking={"on_loop": "off"},
            stream=True,
        )
        while True:
            async with http.stream("POST", path, json=body) as response:
                response.raise_for_status()
                last: float | None = None
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        now = time.perf_counter()
                        self.longest = max(self.longest, now - (last or now))
                        last = now


async def measure(url: str, features: Mapping[str, tuple[str, dict[str, Any]]]) -> None:
    streams = Streams()
    async with httpx.AsyncClient(base_url=url, timeout=120) as http:
        (await http.get("/ready")).raise_for_status()
        running = [asyncio.create_task(streams.run(http)) for _ in range(STREAMS)]
        print("| feature | status | seconds | longest pause of a stream, s |\n|---|--:|--:|--:|")
        await asyncio.sleep(SETTLING_SECONDS)
        for name, (path, body) in {"nothing": ("/health", {}), **features}.items():
            streams.longest, begin = 0.0, time.perf_counter()
            if body:
                content = gzip.compress(json.dumps(body).encode())
                headers = {"content-type": "application/json", "content-encoding": "gzip"}
                response = await http.post(path, content=content, headers=headers)
            else:
                response = await http.get(path)
            seconds = time.perf_counter() - begin
            await asyncio.sleep(SETTLING_SECONDS)
            print(f"| {name} | {response.status_code} | {seconds:.2f} | {streams.longest:.2f} |")
            if response.is_error:
                print(response.text)
            if failed := [task for task in running if task.done()]:
                await failed[0]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    asyncio.run(measure(parser.parse_args().url, FEATURES))


if __name__ == "__main__":
    main()
