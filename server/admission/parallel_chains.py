"""Several chains of thought for one answer: whether they apply, and the budget of each."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from proctor.budget import ThinkingBudget
from proctor.server.config.budgets import Keep, Parallel, VoteMethod
from proctor.server.config.settings import Settings
from proctor.server.errors import BadRequest
from proctor.server.generation.resolution import Resolution, with_bounds
from proctor.server.schemas.generation import Generation

PARALLEL = "thinking.parallel"
CHAINS = f"{PARALLEL}.chains"


class Obstacle(NamedTuple):
    """Why several chains do not apply to a request: the field, and an error message."""

    field: str
    message: str


def applicable(
    resolution: Resolution, request: Generation, settings: Settings, *, has_tools: bool
) -> Resolution:
    """Return the resolution, with one chain if a tier's chains do not apply to the request.

    Args:
        resolution: the budget of the request.
        request: the request.
        settings: the settings of the model.
        has_tools: whether the model may call tools.

    Raises:
        BadRequest: if the request itself sets `thinking.parallel`, and it does not apply.
    """
    if resolution.parallel is None:
        return resolution
    obstacle = next(_obstacles(resolution, resolution.parallel, request, settings, has_tools), None)
    if obstacle is None:
        return resolution
    thinking = request.thinking
    if thinking is None or thinking.parallel is None:
        return replace(resolution, parallel=None)
    raise BadRequest(obstacle.message, param=obstacle.field)


def _obstacles(
    resolution: Resolution,
    parallel: Parallel,
    request: Generation,
    settings: Settings,
    has_tools: bool,
) -> Iterator[Obstacle]:
    if not request.supports_parallel:
        yield Obstacle(PARALLEL, f"'{PARALLEL}' is supported by chat completions only")
    if parallel.chains > settings.limits.max_choices:
        most = settings.limits.max_choices
        yield Obstacle(CHAINS, f"'{CHAINS}' must be at most {most}, the server's limit")
    if parallel.method is VoteMethod.BEST_BY_KEY and not settings.answer_scorer.configured:
        field = f"{PARALLEL}.method"
        message = f"'{field}' is 'best_by_key', but this server has no 'answer_scorer': use 'vote'"
        yield Obstacle(field, message)
    excluded = {
        "n": (request.n or 1) > 1,
        "tools": has_tools,
        "prompt_logprobs": request.prompt_logprobs is not None,
        "return_token_ids": bool(request.return_token_ids) and parallel.keep is Keep.SUMMARY,
    }
    for field, is_set in excluded.items():
        if is_set:
            other = f"{PARALLEL}.keep" if field == "return_token_ids" else PARALLEL
            yield Obstacle(field, f"'{field}' cannot be combined with '{other}'")
    yield from _greedy(resolution, request)
    yield from _small_shares(resolution.requested, parallel)


def _greedy(resolution: Resolution, request: Generation) -> Iterator[Obstacle]:
    """Yield what makes all chains the same."""
    temperature, tier = request.temperature, resolution.tier
    if temperature is None and tier is not None:
        temperature = tier.temperature
    for field, is_greedy in {"temperature": temperature == 0, "top_k": request.top_k == 1}.items():
        if is_greedy:
            value = "above 0" if field == "temperature" else "other than 1"
            message = f"'{PARALLEL}' requires a '{field}' {value}, or all chains are the same"
            yield Obstacle(field, message)


def _small_shares(budget: ThinkingBudget, parallel: Parallel) -> Iterator[Obstacle]:
    """Yield what is wrong with the chains' shares of the maximum that was requested."""
    if not budget.max_tokens:
        return
    share, least = budget.max_tokens // parallel.chains, max(1, budget.min_tokens)
    if share < least:
        message = (
            f"'{CHAINS}' is {parallel.chains}, and each chain must have at least {least} thinking "
            f"tokens, but the maximum of {budget.max_tokens} leaves {share}: request at most "
            f"{budget.max_tokens // least} chains"
        )
        yield Obstacle(CHAINS, message)


def share_of(resolution: Resolution, room: int) -> ThinkingBudget:
    """Return the budget of each chain: its share of the maximum, and the whole minimum.

    Args:
        resolution: the budget of all chains together.
        room: the thinking tokens that the context and `max_tokens` leave for each of them.

    Raises:
        BadRequest: if the request's minimum exceeds the share.
    """
    budget, chains = resolution.budget, resolution.chains
    maximum = None if budget.max_tokens is None else budget.max_tokens // chains
    share = room if maximum is None else maximum
    if resolution.minimum_requested and budget.min_tokens > share:
        raise BadRequest(
            f"'{CHAINS}' is {chains}, and each chain must have at least {budget.min_tokens} "
            f"thinking tokens, but gets {share}, which limits and the answers leave: request "
            "fewer chains",
            param=CHAINS,
        )
    return with_bounds(budget, min(budget.min_tokens, share), maximum)
