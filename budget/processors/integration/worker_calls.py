"""Calls the methods of `BudgetWorkerExtension` on all workers of an engine."""

from typing import Any

from vllm.v1.engine.core_client import AsyncMPClient


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


async def read_attempts(client: AsyncMPClient, key: str, *, is_over: bool) -> frozenset[int]:
    """Return the attempts of a request, from whichever worker sampled it.

    Args:
        client: vLLM's client of its engine processes.
        key: the request's key, see `EngineBudget`.
        is_over: whether the request has ended, so that its record can be removed.
    """
    method = "take_attempts" if is_over else "peek_attempts"
    per_engine = await call_workers(client, method, key)
    return frozenset(
        position for workers in per_engine for record in workers for position in record
    )
