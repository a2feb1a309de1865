"""Measure the tables of the model card on a running server: `python -m proctor.demo.measure`.

All points use the same held-out problems; the answer is the last integer of the content. Greedy
requests have temperature 0; sampled ones have 0.6 and a seed per problem.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from random import Random
from typing import Any, NamedTuple

import httpx
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from proctor.demo.world import Problem, draw_problem, judge, last_integer, phrase

CAPS: tuple[int, ...] = (0, 8, 16, 32, 48, 64, 96, 128, -1)
CONTINUATIONS = (0, 1, 2, 4, 8)
TEMPERATURES = (0.0, 0.6)
Z95 = 1.96


def wilson(right: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95% interval of a share."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = right / total, Z95**2 / total
    middle = (share + z2 / 2) / (1 + z2)
    half = Z95 * sqrt(share * (1 - share) / total + z2 / (4 * total)) / (1 + z2)
    return middle - half, middle + half


def share_cells(right: int, total: int) -> tuple[str, str]:
    """Format a share and its interval for a table."""
    low, high = wilson(right, total)
    return f"{right / max(1, total):.3f}", f"{low:.3f}-{high:.3f}"


@dataclass(frozen=True)
class Question:
    """A problem and its prompt."""

    problem: Problem
    text: str


def questions(count: int, min_steps: int, max_steps: int, seed: int) -> list[Question]:
    """Draw held-out problems with these numbers of steps, in mixed phrasings."""
    rng = Random(seed)
    problems = [
        draw_problem(rng, rng.randint(min_steps, max_steps), unseen=True) for _ in range(count)
    ]
    return [Question(problem, phrase(problem, rng)) for problem in problems]


@dataclass(frozen=True)
class Point:
    """The result for one budget: right answers, all answers, mean thinking tokens, traces."""

    label: str
    right: int
    total: int
    thinking: float
    traces: tuple[str, ...] = ()

    @property
    def cells(self) -> tuple[str, str, str, str]:
        return self.label, *share_cells(self.right, self.total), f"{self.thinking:.0f}"


class Reply(NamedTuple):
    """One answer: its content, its thinking, and the number of thinking tokens."""

    content: str
    thinking: str
    tokens: int


class RequestRefused(Exception):
    """The server rejected a request; the message has its response."""


class Client:
    """Sends questions to a server, with a maximum of concurrent requests."""

    def __init__(self, http: httpx.AsyncClient, model: str, streams: int) -> None:
        self.http = http
        self.model = model
        self.semaphore = asyncio.Semaphore(streams)

    async def point(
        self, label: str, problems: Sequence[Question], temperature: float, extra: Mapping[str, Any]
    ) -> Point:
        """Send all questions with the same budget fields."""
        replies = await asyncio.gather(
            *(self.ask(q, temperature, seed, extra) for seed, q in enumerate(problems))
        )
        right = sum(
            last_integer(reply.content) == question.problem.answer
            for question, reply in zip(problems, replies, strict=True)
        )
        tokens = sum(reply.tokens for reply in replies) / max(1, len(replies))
        return Point(
            label, right, len(problems), tokens, tuple(reply.thinking for reply in replies)
        )

    async def ask(
        self, question: Question, temperature: float, seed: int, extra: Mapping[str, Any]
    ) -> Reply:
        """Send one question."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": question.text}],
            "temperature": temperature,
            **extra,
        }
        if temperature > 0:
            body["seed"] = seed
        async with self.semaphore:
            response = await self.http.post("/v1/chat/completions", json=body)
        if response.is_error:
            raise RequestRefused(f"{response.status_code}: {response.text}")
        reply = response.json()
        details = reply["usage"].get("completion_tokens_details") or {}
        message = reply["choices"][0]["message"]
        tokens = details.get("reasoning_tokens") or 0
        return Reply(message["content"] or "", message.get("reasoning_content") or "", tokens)


def settings(temperature: float) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Return the rows of each table by title: labels and budget fields."""
    sampling = "greedy" if temperature == 0 else f"temperature {temperature}"
    caps = [("full" if c < 0 else str(c), {"max_thinking_tokens": c}) for c in CAPS]
    waits = [(str(n), {"thinking": {"continuations": n}}) for n in CONTINUATIONS]
    return {f"max_thinking_tokens, {sampling}": caps, f"continuations, {sampling}": waits}


async def measure(base_url: str, model: str, count: int, streams: int, seed: int) -> None:
    """Measure and print all tables."""
    console = Console()
    chains, single = questions(count, 3, 8, seed), questions(count, 1, 1, seed)
    limits = httpx.Limits(max_connections=streams)
    async with httpx.AsyncClient(base_url=base_url, timeout=600, limits=limits) as http:
        client = Client(http, model, streams)
        for temperature in TEMPERATURES:
            for title, rows in settings(temperature).items():
                points = [(label, chains, extra) for label, extra in rows]
                *_, last = await run_table(console, client, title, points, temperature)
                if "continuations" in title:
                    console.print(recheck_table(last.traces, title))
            off = {"max_thinking_tokens": 0}
            title = f"one step, no thinking, temperature {temperature}"
            await run_table(console, client, title, [("0", single, off)], temperature)


async def run_table(
    console: Console,
    client: Client,
    title: str,
    rows: Sequence[tuple[str, Sequence[Question], Mapping[str, Any]]],
    temperature: float,
) -> list[Point]:
    """Measure one table and print it."""
    table = Table("setting", "accuracy", "95% interval", "mean thinking tokens", title=title)
    points: list[Point] = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(title, total=len(rows))
        for label, problems, extra in rows:
            points.append(await client.point(label, problems, temperature, extra))
            table.add_row(*points[-1].cells)
            progress.advance(task)
    console.print(table)
    return points


def recheck_table(traces: Iterable[str], title: str) -> Table:
    """Return the accuracy of the working and of the verdicts of the rechecks in traces."""
    table = Table("step", "lines", "worked out", "95%", "judged", "95%", title=f"rechecks, {title}")
    judged = [j for trace in traces for line in trace.splitlines() if (j := judge(line))]
    for op in "+-*":
        lines = [judgement for judgement in judged if judgement.op == op]
        worked = share_cells(sum(judgement.working for judgement in lines), len(lines))
        verdicts = share_cells(sum(judgement.verdict for judgement in lines), len(lines))
        table.add_row(op, str(len(lines)), *worked, *verdicts)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="proctor-demo")
    parser.add_argument("--count", type=int, default=500, help="problems per point")
    parser.add_argument("--streams", type=int, default=64, help="maximum concurrent requests")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    try:
        asyncio.run(
            measure(options.base_url, options.model, options.count, options.streams, options.seed)
        )
    except (RequestRefused, httpx.TransportError) as error:
        raise SystemExit(f"{options.base_url}: {error}") from error


if __name__ == "__main__":
    main()
