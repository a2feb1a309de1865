"""A scripted engine that enforces budgets in earnest, for tests and for authors of clients.

Its tokens are bytes, so that any character beyond ASCII spans several of them. What
a job's answer is bound to is the script's affair: it says what it says.
"""

import asyncio
import codecs
import json
import re
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proctor.budget import BudgetStateMachine, Markers, Vocabulary
from proctor.server.engines.base import Delta, Finish, Job, ModelInfo, Prompt, TokenLogprob
from proctor.server.engines.processes.stall import Patience
from proctor.server.engines.tool_calls import ToolFormat
from proctor.server.errors import EngineUnavailable

BYTES = 256
THINK, END_THINK, TURN, END_TURN = range(BYTES, BYTES + 4)
SPECIAL = {"<think>": THINK, "</think>": END_THINK, "<|im_start|>": TURN, "<|im_end|>": END_TURN}
SPELLING = {token: name.encode() for name, token in SPECIAL.items()}
SPELLED = re.compile("(" + "|".join(map(re.escape, SPECIAL)) + ")")
MARKERS = Markers((THINK,), (END_THINK,), frozenset({END_TURN}))
BLANK = ord(" ")
UTF8_TAIL = range(0x80, 0xC0)
VOCABULARY = Vocabulary.from_bytes([bytes([byte]) for byte in range(BYTES)])

Written = str | Sequence[int]
"""A text, or token ids."""


@dataclass(frozen=True, slots=True)
class Script:
    """What the model has in mind.

    Attributes:
        thinking: what it thinks before each attempt to close; it says the last
            one again if it is sent back more often. Empty is no thinking.
        answer: what it answers.
    """

    thinking: Sequence[Written] = ("Let me see.",)
    answer: Written = "42"


class ByteDetokenizer:
    """Bytes to text, a character at a time."""

    def __init__(self, special: bool = False) -> None:
        self._texts = SPELLING if special else {}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_ids: Sequence[int]) -> str:
        """See `Detokenizer`."""
        return self._decoder.decode(b"".join(map(self._bytes, token_ids)))

    def close(self) -> str:
        """See `Detokenizer`. Bytes of an unfinished character are dropped."""
        return ""

    def _bytes(self, token: int) -> bytes:
        return bytes([token]) if token < BYTES else self._texts.get(token, b"")


class ByteCodec:
    """Bytes as tokens, and a template like Qwen's."""

    def __init__(self, markers: Markers, opens: bool) -> None:
        self._markers = markers
        self._opens = opens

    async def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        thinking: bool,
        tools: Sequence[Mapping[str, Any]] = (),
        answering: bool = True,
        continuing: bool = False,
    ) -> Prompt:
        """See `Codec`."""
        if continuing:
            return await self._unfinished(messages, thinking, tools)
        ids: list[int] = []
        told = [{"role": "system", "content": json.dumps(tools)}] if tools else []
        for message in (*told, *messages):
            calls = message.get("tool_calls")
            said = f"{message['content']}{json.dumps(calls) if calls else ''}"
            text = f"{message['role']}\n{said}"
            ids += [TURN, *text.encode(), END_TURN, *b"\n"]
        if not answering:
            return Prompt(tuple(ids), False)
        ids += [TURN, *b"assistant\n"]
        newline = b"\n"
        if not thinking:
            ids += [*self._markers.start, *newline, *self._markers.end, *newline]
        elif self._opens:
            ids += [*self._markers.start, *newline]
        return Prompt(tuple(ids), thinking and self._opens)

    async def _unfinished(
        self,
        messages: Sequence[Mapping[str, Any]],
        thinking: bool,
        tools: Sequence[Mapping[str, Any]],
    ) -> Prompt:
        if said := messages[-1]["content"]:
            whole = await self.render(messages, thinking=thinking, tools=tools, answering=False)
            return Prompt(whole.ids[: -len((END_TURN, *b"\n"))], False)
        before = await self.render(messages[:-1], thinking=True, tools=tools)
        opening = () if before.opened else (*self._markers.start, *b"\n")
        said = messages[-1].get("reasoning", "")
        return Prompt((*before.ids, *opening, *said.encode()), True)

    async def renders_tools(self) -> bool:
        """See `Codec`."""
        return True

    @property
    def vocabulary_size(self) -> int:
        """See `Codec`."""
        return BYTES + len(SPECIAL)

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """See `Codec`."""
        return [
            token
            for part in SPELLED.split(text)
            for token in ([SPECIAL[part]] if part in SPECIAL else part.encode())
        ]

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `Codec`."""
        return b"".join(map(self.token_bytes, token_ids)).decode(errors="replace")

    def names(self, token_ids: Sequence[int]) -> list[str]:
        """See `Codec`."""
        return [self.decode([token]) for token in token_ids]

    def info(self) -> Mapping[str, Any]:
        """See `Codec`."""
        return {"tokenizer_class": "ByteCodec", "eos_token": "<|im_end|>", "bos_token": None}

    def detokenizer(self, after: Sequence[int], *, special: bool = False) -> ByteDetokenizer:
        """See `Codec`."""
        return ByteDetokenizer(special)

    def token_bytes(self, token: int) -> bytes:
        """See `Codec`."""
        return bytes([token]) if token < BYTES else SPELLING.get(token, b"")


class Writer:
    """The model: which token it would choose next, were it free."""

    def __init__(self, script: Script, markers: Markers, opened: bool, thinks: bool) -> None:
        self._script = script
        self._markers = markers
        self._attempt = 0
        self._answering = False
        self._ahead: deque[int] = deque()
        if script.thinking and (opened or thinks):
            self._ahead.extend(() if opened else markers.start)
            self._think()
        elif opened:
            self._ahead.extend(markers.end)
        else:
            self.answer()

    @property
    def wish(self) -> int:
        """The token that it would choose; the end of its turn, when all is said."""
        return self._ahead[0] if self._ahead else min(self._markers.eos)

    def advance(self) -> None:
        """Its wish was granted."""
        if self._ahead:
            self._ahead.popleft()

    def send_back(self) -> None:
        """Its attempt to close the thinking was turned down."""
        self._attempt += 1
        self._ahead.clear()
        self._think()

    def answer(self, by_force: bool = False) -> None:
        """Its thinking has ended; what it still had to think is dropped."""
        if not self._answering:
            self._answering = True
            self._ahead = deque(_ids(self._script.answer))
        elif by_force:
            while self._ahead and self._ahead.popleft() != self._markers.end[-1]:
                pass

    def _think(self) -> None:
        thoughts = self._script.thinking or ("",)
        self._ahead.extend(_ids(thoughts[min(self._attempt, len(thoughts) - 1)]))
        self._ahead.extend(self._markers.end)


def _ids(written: Written) -> Iterable[int]:
    return written.encode() if isinstance(written, str) else written


async def _no_wait(job: Job, position: int) -> None:
    pass


class FakeEngine:
    """Generates what scripts say, within each job's budget.

    Attributes:
        jobs: those that were begun, in order.
        aborted: takes the id of each job whose generator was closed early.
    """

    def __init__(
        self,
        script: Script | Callable[[Job], Script] = Script(),
        *,
        name: str = "fake",
        context_length: int = 4096,
        markers: Markers = MARKERS,
        opens: bool = True,
        tokens_per_delta: int = 1,
        before_token: Callable[[Job, int], Awaitable[None]] = _no_wait,
        die_after: int | None = None,
        tools: ToolFormat | None = None,
        cached: int | None = None,
    ) -> None:
        """Make an engine.

        Args:
            script: what to generate, for every job or by job.
            name: the model's name.
            context_length: the model's context, in tokens.
            markers: what opens and closes its thinking.
            opens: whether its template opens the thinking.
            tokens_per_delta: how many tokens come at once.
            before_token: awaited before each token, with the token's position.
            die_after: tokens of a job after which the engine is dead.
            tools: how its scripts write tool calls.
            cached: tokens of every prompt that are said to have been in a cache.
        """
        self.model = ModelInfo(name, context_length, markers, created=0, vocabulary=VOCABULARY)
        self.codec = ByteCodec(markers, opens)
        self.tools = tools
        self.jobs: list[Job] = []
        self.aborted: asyncio.Queue[str] = asyncio.Queue()
        self._script_of = script if callable(script) else lambda _: script
        self._tokens_per_delta = tokens_per_delta
        self._before_token = before_token
        self._die_after = die_after
        self._dead = False
        self._cached = cached
        self._awake = asyncio.Event()
        self._awake.set()
        self._attempts: dict[str, frozenset[int]] = {}

    async def check(self, job: Job, owner: str) -> None:
        """See `Engine`."""

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """See `Engine`."""
        self.jobs.append(job)
        tokens: list[int] = []
        finished = not job.sampling.max_tokens
        of_prompt = _prompt_scores(job)
        try:
            if finished:
                self._attempts[job.id] = frozenset()
                await self.health()
                yield Delta((), Finish.LENGTH, (), self._cached, of_prompt)
            async for token, finish in self._tokens(job):
                tokens.append(token)
                finished = finish is not None
                if finished or len(tokens) == self._tokens_per_delta:
                    scores = _scores(job.sampling.top_logprobs, tokens)
                    yield Delta(tokens, finish, scores, self._cached, of_prompt)
                    tokens, of_prompt = [], None
        finally:
            if not finished:
                self.aborted.put_nowait(job.id)

    async def attempts(self, job: Job) -> frozenset[int]:
        """See `Engine`."""
        return self._attempts.pop(job.id)

    async def health(self) -> None:
        """See `Engine`."""
        if self._dead:
            raise EngineUnavailable("the engine died")

    async def warm_up(self) -> None:
        """See `Engine`."""

    async def heartbeat(self, patience: Patience) -> None:
        """See `Engine`."""
        await self.health()
        try:
            async with asyncio.timeout(patience.stall_seconds):
                await self._awake.wait()
        except TimeoutError:
            raise EngineUnavailable("the engine hangs") from None

    async def kill(self) -> None:
        """See `Engine`."""
        self._dead = True
        self._awake.set()

    async def aclose(self) -> None:
        """See `Engine`."""
        self._dead = True

    def hang(self) -> None:
        """Generate nothing more, and say nothing, until it is abandoned."""
        self._awake.clear()

    async def _tokens(self, job: Job) -> AsyncGenerator[tuple[int, Finish | None], None]:
        machine = BudgetStateMachine(job.budget, self.model.markers, VOCABULARY)
        writer = self._writer(job)
        eos = self.model.markers.eos
        for position in range(job.sampling.max_tokens):
            await self._before_token(job, position)
            await self._awake.wait()
            if position == self._die_after:
                self._dead = True
            await self.health()
            token, attempted = self._next(machine, writer)
            if attempted:
                self._attempts[job.id] |= {position}
            thinking, forced = machine.thinking, machine.forced is not None
            machine.advance(token, attempted)
            if thinking and not machine.thinking:
                writer.answer(forced)
            last = position + 1 == job.sampling.max_tokens
            yield token, Finish.STOP if token in eos else Finish.LENGTH if last else None
            if token in eos:
                return

    def _writer(self, job: Job) -> Writer:
        self._attempts[job.id] = frozenset()
        opened = job.budget.opened
        return Writer(self._script_of(job), self.model.markers, opened, job.budget.maximum != 0)

    def _next(self, machine: BudgetStateMachine, writer: Writer) -> tuple[int, bool]:
        """The next token, and whether it stands for an attempt to close."""
        if machine.forced is not None:
            if not machine.thinking:  # it opens its thinking, as it would by itself
                writer.advance()
            return machine.forced, False
        while writer.wish in machine.barred:
            writer.advance()
        wish = writer.wish
        if machine.bars_eos and wish in self.model.markers.eos:
            return BLANK, False
        if wish in machine.closing_tokens and machine.suppresses_close:
            writer.send_back()
            return machine.continuation[0], True
        if wish in machine.closing_tokens and wish in self.model.markers.eos:
            return machine.end_token, False
        writer.advance()
        if (
            VOCABULARY.incomplete_bytes_after(machine.incomplete_bytes, wish)
            > machine.max_incomplete_bytes
        ):
            # It has no room to finish this character, and drops the rest of it.
            while writer.wish in UTF8_TAIL:
                writer.advance()
            return BLANK, False
        return wish, False


def _scores(count: int | None, tokens: Sequence[int]) -> list[TokenLogprob]:
    """It is certain of everything that it says; its second choices are the tokens that follow."""
    if count is None:
        return []
    return [
        TokenLogprob(token, 0.0, tuple((token + step, -float(step)) for step in range(count)), 1)
        for token in tokens
    ]


def _prompt_scores(job: Job) -> list[TokenLogprob] | None:
    count = job.sampling.prompt_logprobs
    return None if count is None else _scores(count, job.prompt_ids[1:])
