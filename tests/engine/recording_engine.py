"""An engine that records every token it generates, so that tests can recount them."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from proctor.budget import EMPTY_RECORD, EndReason, EngineRecord, Move, Outcome, replay
from proctor.server.engines.base import Codec, Delta, Engine, Job, ModelInfo
from proctor.server.engines.processes.stall import StallTimeouts
from proctor.server.engines.tool_calls import ToolFormat


@dataclass
class Recording:
    """The tokens that the engine generated for a job."""

    job: Job
    tokens: list[int] = field(default_factory=list)
    record: EngineRecord = EMPTY_RECORD


class RecordingEngine:
    """Delegates to another engine, and records its tokens by job id."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.recordings: dict[str, Recording] = {}

    @property
    def model(self) -> ModelInfo:
        return self._engine.model

    @property
    def codec(self) -> Codec:
        return self._engine.codec

    @property
    def tools(self) -> ToolFormat | None:
        return self._engine.tools

    async def check(self, job: Job) -> None:
        await self._engine.check(job)

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        recording = self.recordings[job.id] = Recording(job)
        stream = self._engine.generate(job)
        try:
            async for delta in stream:
                recording.tokens += delta.token_ids
                yield delta
        finally:
            await stream.aclose()

    async def move_maximum(
        self, job: Job, target: int | None, reason: EndReason | None = None
    ) -> Move | None:
        return await self._engine.move_maximum(job, target, reason)

    async def record(self, job: Job) -> EngineRecord:
        record = self.recordings[job.id].record = await self._engine.record(job)
        return record

    async def health(self) -> None:
        await self._engine.health()

    async def warm_up(self) -> None:
        await self._engine.warm_up()

    async def heartbeat(self, timeouts: StallTimeouts) -> None:
        await self._engine.heartbeat(timeouts)

    async def kill(self) -> None:
        await self._engine.kill()

    async def aclose(self) -> None:
        await self._engine.aclose()

    async def check_slots(self) -> int:
        """Return the number of requests with a slot in the logits processor.

        Raises if its bookkeeping is inconsistent.
        """
        counts: list[int] = await self._engine._llm.collective_rpc("check_slots")  # type: ignore[attr-defined]
        return sum(counts)

    def thinking_ids(self, job_id: str) -> list[int]:
        """Return a job's thinking tokens, found by the markers alone, which have one token each."""
        return [token for block in self.thinking_blocks(job_id) for token in block]

    def thinking_blocks(self, job_id: str) -> list[list[int]]:
        """Return the tokens of each thinking block of a job; the model may open several."""
        recording = self.recordings[job_id]
        (start,), (end,) = self.model.markers.start, self.model.markers.end
        inside = recording.job.budget.opened
        blocks: list[list[int]] = [[]] if inside else []
        for token in recording.tokens:
            if inside and token == end:
                inside = False
            elif inside:
                blocks[-1].append(token)
            elif token == start:
                inside = True
                blocks.append([])
        return blocks

    def probe_tokens(self, job_id: str) -> int:
        """Return how many tokens the probes of a job have generated."""
        prefix = f"{job_id}-probe-"
        return sum(
            len(recording.tokens)
            for name, recording in self.recordings.copy().items()
            if name.startswith(prefix)
        )

    def outcome(self, job_id: str) -> Outcome:
        """Return the outcome of a job according to the reference state machine."""
        recording = self.recordings[job_id]
        machine = replay(
            recording.job.budget,
            self.model.markers,
            recording.tokens,
            recording.record.attempts,
            self.model.vocabulary,
            recording.record.moves,
        )
        machine.flush()
        return machine.outcome(EndReason.LENGTH)


class KeptOpen(RecordingEngine):
    """An engine that the application does not close, because other tests use it."""

    async def aclose(self) -> None:
        pass
