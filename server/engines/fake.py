"""A scripted engine that enforces budgets, for tests and for authors of clients.

Its tokens are bytes, so that every character outside ASCII spans several of them. It ignores
structured output: the answer is always the script's.
"""

import asyncio
import codecs
import json
import re
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proctor.budget import (
    EMPTY_RECORD,
    BudgetStateMachine,
    EndReason,
    EngineRecord,
    Markers,
    Move,
    Vocabulary,
)
from proctor.server.engines.base import Delta, Finish, Job, ModelInfo, Prompt, TokenLogprob
from proctor.server.engines.processes.stall import StallTimeouts
from proctor.server.engines.tool_calls import ToolFormat
from proctor.server.errors import EngineUnavailable, UnsupportedRequest

BYTES = 256
THINK, END_THINK, TURN, END_TURN = range(BYTES, BYTES + 4)
SPECIAL = {"<think>": THINK, "</think>": END_THINK, "<|im_start|>": TURN, "<|im_end|>": END_TURN}
SPELLING = {token: name.encode() for name, token in SPECIAL.items()}
SPELLED = re.compile("(" + "|".join(map(re.escape, SPECIAL)) + ")")
MARKERS = Markers((THINK,), (END_THINK,), frozenset({END_TURN}))
BLANK = ord(" ")
UTF8_TAIL = range(0x80, 0xC0)
VOCABULARY = Vocabulary.from_bytes([bytes([byte]) for byte in range(BYTES)])

TextOrTokens = str | Sequence[int]


@dataclass(frozen=True, slots=True)
class Script:
    """What the model generates.

    Attributes:
        thinking: what it thinks before each attempt to end the thinking; the last entry
            repeats if more attempts are rejected. Empty disables thinking.
        answer: what it answers.
    """

    thinking: Sequence[TextOrTokens] = ("Let me see.",)
    answer: TextOrTokens = "42"


class ByteDetokenizer:
    """An incremental UTF-8 decoder."""

    def __init__(self, special: bool = False) -> None:
        self._texts = SPELLING if special else {}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_ids: Sequence[int]) -> str:
        return self._decoder.decode(b"".join(map(self._bytes, token_ids)))

    def close(self) -> str:
        """Return nothing; the bytes of an incomplete character are dropped."""
        return ""

    def _bytes(self, token: int) -> bytes:
        return bytes([token]) if token < BYTES else self._texts.get(token, b"")


class ByteCodec:
    """A byte tokenizer with a chat template like Qwen's."""

    def __init__(self, markers: Markers, opens: bool) -> None:
        self._markers = markers
        self._opens = opens

    async def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        thinking: bool,
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> Prompt:
        if continue_final_message:
            return await self._render_unfinished(messages, thinking, tools)
        ids: list[int] = []
        system = [{"role": "system", "content": json.dumps(tools)}] if tools else []
        for message in (*system, *messages):
            calls = message.get("tool_calls")
            content = f"{message['content']}{json.dumps(calls) if calls else ''}"
            text = f"{message['role']}\n{content}"
            ids += [TURN, *text.encode(), END_TURN, *b"\n"]
        if not add_generation_prompt:
            return Prompt(tuple(ids), False)
        ids += [TURN, *b"assistant\n"]
        newline = b"\n"
        if not thinking:
            ids += [*self._markers.start, *newline, *self._markers.end, *newline]
        elif self._opens:
            ids += [*self._markers.start, *newline]
        return Prompt(tuple(ids), thinking and self._opens)

    async def _render_unfinished(
        self,
        messages: Sequence[Mapping[str, Any]],
        thinking: bool,
        tools: Sequence[Mapping[str, Any]],
    ) -> Prompt:
        if messages[-1]["content"]:
            whole = await self.render(
                messages, thinking=thinking, tools=tools, add_generation_prompt=False
            )
            return Prompt(whole.ids[: -len((END_TURN, *b"\n"))], False)
        before = await self.render(messages[:-1], thinking=True, tools=tools)
        opening = () if before.opened else (*self._markers.start, *b"\n")
        reasoning = messages[-1].get("reasoning", "")
        return Prompt((*before.ids, *opening, *reasoning.encode()), True)

    async def renders_tools(self) -> bool:
        return True

    @property
    def vocabulary_size(self) -> int:
        return BYTES + len(SPECIAL)

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        return [
            token
            for part in SPELLED.split(text)
            for token in ([SPECIAL[part]] if part in SPECIAL else part.encode())
        ]

    def decode(self, token_ids: Sequence[int]) -> str:
        return b"".join(map(self.token_bytes, token_ids)).decode(errors="replace")

    def convert_ids_to_tokens(self, token_ids: Sequence[int]) -> list[str]:
        return [self.decode([token]) for token in token_ids]

    def info(self) -> Mapping[str, Any]:
        return {"tokenizer_class": "ByteCodec", "eos_token": "<|im_end|>", "bos_token": None}

    def detokenizer(self, after: Sequence[int], *, special: bool = False) -> ByteDetokenizer:
        return ByteDetokenizer(special)

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < BYTES else SPELLING.get(token, b"")


class ScriptedModel:
    """The model without a budget: the token that it would sample next."""

    def __init__(self, script: Script, markers: Markers, opened: bool, thinks: bool) -> None:
        self._script = script
        self._markers = markers
        self._attempt = 0
        self._answering = False
        self._pending: deque[int] = deque()
        if script.thinking and (opened or thinks):
            self._pending.extend(() if opened else markers.start)
            self._think()
        elif opened:
            self._pending.extend(markers.end)
        else:
            self.answer()

    @property
    def next_token(self) -> int:
        """The token that it would sample; an end of turn once the script is finished."""
        return self._pending[0] if self._pending else min(self._markers.eos)

    def advance(self) -> None:
        """Consume the next token."""
        if self._pending:
            self._pending.popleft()

    def reject_attempt(self) -> None:
        """Continue to think: the attempt to end the thinking was rejected."""
        self._attempt += 1
        self._pending.clear()
        self._think()

    def answer(self, forced: bool = False) -> None:
        """Begin the answer: the thinking has ended. The rest of it is dropped.

        Args:
            forced: whether the end marker was forced.
        """
        if not self._answering:
            self._answering = True
            self._pending = deque(_ids(self._script.answer))
        elif forced:
            while self._pending and self._pending.popleft() != self._markers.end[-1]:
                pass

    def _think(self) -> None:
        thoughts = self._script.thinking or ("",)
        self._pending.extend(_ids(thoughts[min(self._attempt, len(thoughts) - 1)]))
        self._pending.extend(self._markers.end)


def _ids(content: TextOrTokens) -> Iterable[int]:
    return content.encode() if isinstance(content, str) else content


async def _no_wait(job: Job, position: int) -> None:
    pass


class FakeEngine:
    """An engine that generates scripts, within each job's budget.

    Attributes:
        jobs: the jobs started so far, in order.
        aborted: receives the id of each job whose generator is closed early.
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
        cached_tokens: int | None = None,
    ) -> None:
        """Create an engine.

        Args:
            script: what to generate, for every job or by job.
            name: the model's name.
            context_length: the model's context, in tokens.
            markers: the markers that start and end its thinking, and its end of turn.
            opens: whether the chat template opens the thinking block.
            tokens_per_delta: tokens in each delta.
            before_token: awaited before each token, with the token's position.
            die_after: number of tokens of a job after which the engine dies.
            tools: the tool call format of its scripts.
            cached_tokens: what it reports as served from the prefix cache, for every prompt.
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
        self._cached_tokens = cached_tokens
        self._awake = asyncio.Event()
        self._awake.set()
        self._records: dict[str, EngineRecord] = {}
        self._machines: dict[str, BudgetStateMachine] = {}

    async def check(self, job: Job) -> None:
        if job.confidence is not None:
            name = "thinking.early_exit.method"
            raise UnsupportedRequest(name, f"'{name}' must not be 'confidence' with this engine")

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        self.jobs.append(job)
        tokens: list[int] = []
        finished = not job.sampling.max_tokens
        prompt_logprobs = _prompt_logprobs(job)
        try:
            if finished:
                self._records[job.id] = EMPTY_RECORD
                await self.health()
                yield Delta((), Finish.LENGTH, (), self._cached_tokens, prompt_logprobs)
            async for token, finish in self._tokens(job):
                tokens.append(token)
                finished = finish is not None
                if finished or len(tokens) == self._tokens_per_delta:
                    logprobs = _logprobs(job.sampling.top_logprobs, tokens)
                    yield Delta(tokens, finish, logprobs, self._cached_tokens, prompt_logprobs)
                    tokens, prompt_logprobs = [], None
        finally:
            if not finished:
                self.aborted.put_nowait(job.id)

    async def move_maximum(
        self, job: Job, target: int | None, reason: EndReason | None = None
    ) -> Move | None:
        machine = self._machines.get(job.id)
        move = None if machine is None else machine.move_maximum(target, reason)
        if move is not None:
            self._records[job.id] |= EngineRecord(moves=(move,))
        return move

    async def record(self, job: Job) -> EngineRecord:
        self._machines.pop(job.id, None)
        return self._records.pop(job.id)

    async def health(self) -> None:
        if self._dead:
            raise EngineUnavailable("the engine died")

    async def warm_up(self) -> None:
        pass

    async def heartbeat(self, timeouts: StallTimeouts) -> None:
        await self.health()
        try:
            async with asyncio.timeout(timeouts.stall_seconds):
                await self._awake.wait()
        except TimeoutError:
            raise EngineUnavailable("the engine hangs") from None

    async def kill(self) -> None:
        self._dead = True
        self._awake.set()

    async def aclose(self) -> None:
        self._dead = True

    def hang(self) -> None:
        """Stop generating and responding, until the engine is killed."""
        self._awake.clear()

    async def _tokens(self, job: Job) -> AsyncGenerator[tuple[int, Finish | None], None]:
        machine = BudgetStateMachine(job.budget, self.model.markers, VOCABULARY)
        self._machines[job.id] = machine
        model = self._scripted_model(job)
        eos = self.model.markers.eos
        for position in range(job.sampling.max_tokens):
            await self._before_token(job, position)
            await self._awake.wait()
            if position == self._die_after:
                self._dead = True
            await self.health()
            token, attempted = self._next(machine, model)
            if attempted:
                self._records[job.id] |= EngineRecord(frozenset([position]))
            thinking, forced = machine.thinking, machine.forced is not None
            machine.advance(token, attempted)
            if thinking and not machine.thinking:
                model.answer(forced)
            last = position + 1 == job.sampling.max_tokens
            yield token, Finish.STOP if token in eos else Finish.LENGTH if last else None
            if token in eos:
                return

    def _scripted_model(self, job: Job) -> ScriptedModel:
        self._records[job.id] = EMPTY_RECORD
        thinks = job.budget.maximum != 0
        return ScriptedModel(self._script_of(job), self.model.markers, job.budget.opened, thinks)

    def _next(self, machine: BudgetStateMachine, model: ScriptedModel) -> tuple[int, bool]:
        """Return the next token, and whether it replaces an attempt to end the thinking."""
        if machine.forced is not None:
            if not machine.thinking:  # the forced start marker is the script's next token too
                model.advance()
            return machine.forced, False
        while model.next_token in machine.barred:
            model.advance()
        token = model.next_token
        if machine.bars_eos and token in self.model.markers.eos:
            return BLANK, False
        if token in machine.closing_tokens and machine.suppresses_close:
            model.reject_attempt()
            return machine.continuation[0], True
        if token in machine.closing_tokens and token in self.model.markers.eos:
            return machine.end_token, False
        model.advance()
        if (
            VOCABULARY.incomplete_bytes_after(machine.incomplete_bytes, token)
            > machine.max_incomplete_bytes
        ):
            # The budget has no room for the whole character: drop the rest of it.
            while model.next_token in UTF8_TAIL:
                model.advance()
            return BLANK, False
        return token, False


def _logprobs(count: int | None, tokens: Sequence[int]) -> list[TokenLogprob]:
    """Give each token the probability 1; the alternatives are the token ids that follow it."""
    if count is None:
        return []
    return [
        TokenLogprob(token, 0.0, tuple((token + step, -float(step)) for step in range(count)), 1)
        for token in tokens
    ]


def _prompt_logprobs(job: Job) -> list[TokenLogprob] | None:
    count = job.sampling.prompt_logprobs
    return None if count is None else _logprobs(count, job.prompt_ids[1:])
