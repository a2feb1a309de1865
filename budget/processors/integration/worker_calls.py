"""Calls the methods of `BudgetWorkerExtension` on all workers of an engine."""

from typing import Any

from vllm.v1.engine.core_client import AsyncMPClient

from proctor.budget.moves import EMPTY_RECORD, EngineRecord, Move
from proctor.budget.outcome import EndReason


async def call_workers(client: AsyncMPClient, method: str, *args: Any) -> list[list[Any]]:
    """Call a method between two steps, and return the results of all workers.

    vLLM's own `collective_rpc` only reaches the first data-parallel engine.

    Returns:
        A list of the workers' results for each data-parallel engine.
    """
    results: list[list[Any]] = await client.call_utility_all_async(
        "collective_rpc", method, None, args, None
    )
    return results


async def read_record(client: AsyncMPClient, key: str, *, is_over: bool) -> EngineRecord:
    """Return the record of a request, from whichever worker sampled it.

    Tensor-parallel workers all have it, and the same one.

    Args:
        client: vLLM's client of its engine processes.
        key: the request's key, see `EngineBudget`.
        is_over: whether the request has ended, so that its record can be removed.
    """
    per_engine = await call_workers(client, "take_record" if is_over else "peek_record", key)
    records = [EngineRecord.from_wire(record) for workers in per_engine for record in workers]
    return next((record for record in records if record != EMPTY_RECORD), EMPTY_RECORD)


async def move_maximum(
    client: AsyncMPClient, key: str, target: int | None, reason: EndReason | None
) -> Move | None:
    """Move the maximum of a running request, on all workers that sample it.

    Args:
        client: vLLM's client of its engine processes.
        key: the request's key, see `EngineBudget`.
        target: the new maximum, or None to exit early; see `BudgetStateMachine.move_maximum`.
        reason: the end reason if it is reached.

    Returns:
        The move as it took effect; None if there was none, or the request is not running.
    """
    per_engine = await call_workers(client, "move_maximum", key, target, reason)
    moves = [move for workers in per_engine for move in workers if move is not None]
    return EngineRecord.from_wire({"attempts": (), "moves": moves[:1]}).moves[0] if moves else None
