"""The tokens that every server of this benchmark streams, at the rate that a request sets."""

import asyncio
import random
import string
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

LETTERS = string.ascii_uppercase
"""Each token is one of these. No other part of a stream has capital letters, so that a client
counts tokens without parsing anything."""

PERIOD = 4096
TEXT = "".join(random.Random(0).choices(LETTERS, k=PERIOD))
"""The text of the tokens, which repeats after `PERIOD` of them: a loop detector finds nothing."""


@dataclass(eq=False, slots=True)
class Production:
    """What has been produced of one stream.

    Attributes:
        tokens: the number of tokens so far.
        more: set when there are more.
    """

    tokens: int
    more: asyncio.Event


class StepClock:
    """Produces one token of each of its streams per step, as an engine with one batch does."""

    def __init__(self, rate: int, on_idle: Callable[[], None]) -> None:
        """Start the clock.

        Args:
            rate: steps per minute.
            on_idle: called when the last stream has left; the clock has stopped then.
        """
        self._interval = 60 / rate
        self._on_idle = on_idle
        self._streams: set[Production] = set()
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.time() + self._interval
        self._timer = self._loop.call_at(self._next, self._step)

    def join(self) -> Production:
        """Return a new stream, which has its first token at once."""
        production = Production(1, asyncio.Event())
        production.more.set()
        self._streams.add(production)
        return production

    def leave(self, production: Production) -> None:
        """Stop to produce a stream."""
        self._streams.discard(production)
        if not self._streams:
            self._timer.cancel()
            self._on_idle()

    def _step(self) -> None:
        """Produce the tokens that are due: several of each stream if the process is behind."""
        steps = 1 + int((self._loop.time() - self._next) / self._interval)
        for production in self._streams:
            production.tokens += steps
            production.more.set()
        self._next += steps * self._interval
        self._timer = self._loop.call_at(self._next, self._step)


class StepClocks:
    """The clocks of a process, by their rates."""

    def __init__(self) -> None:
        self._clocks: dict[int, StepClock] = {}

    async def counts(self, rate: int, total: int) -> AsyncGenerator[int, None]:
        """Yield how many tokens of a stream have been produced, whenever there are more.

        A consumer that is behind gets all that it has missed at once, as vLLM's does.

        Args:
            rate: tokens per minute; 0 produces them at once, one at a time.
            total: the number of tokens to produce.
        """
        if not rate:
            for count in range(1, total + 1):
                yield count
            return
        clock = self._clocks.get(rate)
        if clock is None:
            clock = StepClock(rate, lambda: self._remove(rate))
            self._clocks[rate] = clock
        production = clock.join()
        try:
            while production.tokens < total:
                await production.more.wait()
                production.more.clear()
                yield min(production.tokens, total)
        finally:
            clock.leave(production)

    def _remove(self, rate: int) -> None:
        del self._clocks[rate]


def text_at(start: int, end: int) -> str:
    """Return the text of the tokens from `start` to `end`."""
    return "".join(TEXT[position % PERIOD] for position in range(start, end))


def letter_ids(encode: Callable[[str], list[int]]) -> list[int]:
    """Return the tokens of the script, in a vocabulary in which each letter is a token."""
    ids: dict[str, int] = {}
    for letter in LETTERS:
        (ids[letter],) = encode(letter)
    return [ids[letter] for letter in TEXT]
