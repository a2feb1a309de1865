"""From a prompt and its budget to jobs: room, reserve, price, and how to sample."""

from dataclasses import dataclass, replace

from proctor.budget import (
    Markers,
    ThinkingBudget,
    TokenBudget,
    answer_reserve,
    thinking_room,
    tokenize,
)
from proctor.server.config.budgets import Tier
from proctor.server.config.prices import Prices
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine, Job, Prompt, Sampling
from proctor.server.engines.tool_calls import Constraint, Kind
from proctor.server.errors import BadRequest, ContextTooLong
from proctor.server.generation.budget_request import FieldValue
from proctor.server.generation.budget_resolution import PRICE, ROOM, Resolution
from proctor.server.generation.prompt import check_room
from proctor.server.pricing import affordable
from proctor.server.schemas.generation import Generation

INT64_SPAN = 2**64
INT64_LEAST = -(2**63)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a request's jobs are made of.

    Attributes:
        name: unique among the requests of this engine's lifetime.
        request: what the client sent.
        resolution: the budget.
        prompt: what it goes on from.
        field: the request's field that the prompt was made of.
        max_tokens: what was asked for, and by which field.
        constraint: what the answer is bound to.
        first: the number of its first choice among those of the request.
    """

    name: str
    request: Generation
    resolution: Resolution
    prompt: Prompt
    field: str
    max_tokens: FieldValue[int] | None
    constraint: Constraint | None = None
    first: int = 0


def make_jobs(
    draft: JobSpec, engine: Engine, settings: Settings
) -> tuple[tuple[Job, ...], tuple[str, ...]]:
    """One job for each choice, and what cut the budget that was asked for.

    Raises:
        BadRequest: if the context or the price does not allow for them.
        BudgetError: if the budget cannot be enforced.
    """
    resolution, request = draft.resolution, draft.request
    wanted = _tokens_left(draft, engine.model.context_length)
    max_tokens = _at_price(wanted, draft, settings.prices)
    least = _answer_minimum(draft, max_tokens, engine.model.markers)
    for tokens, by in ((wanted, ROOM), (max_tokens, PRICE)):
        room = _room(draft, tokens, engine.model.markers, settings)
        resolution = resolution.within(room, by)
    enforced = _token_budget(resolution.budget, draft.prompt, room, engine)
    enforced = replace(enforced, answer_minimum=least)
    if draft.constraint is not None:
        enforced = _bound(enforced, draft.constraint)
    sampling = _sampling(request, resolution.tier, max_tokens, draft.constraint)
    jobs = tuple(
        Job(
            f"{draft.name}-{draft.first + index}",
            draft.prompt.ids,
            _nth(sampling, index, streamed=bool(request.stream)),
            enforced,
        )
        for index in range(request.n or 1)
    )
    return jobs, resolution.clamped_by


def _tokens_left(draft: JobSpec, context: int) -> int:
    """The tokens that each choice may have: what was asked for, or all that is left.

    Raises:
        ContextTooLong: if the context does not hold them beside the prompt.
    """
    asked = draft.max_tokens
    left = check_room(draft.prompt.ids, context, draft.field)
    if asked is not None and asked.value > left:
        what = f"of which the prompt leaves {left}, and '{asked.field}' is {asked.value}"
        raise ContextTooLong(context, f"{what}: ask for {left} or fewer", param=asked.field)
    return left if asked is None else asked.value


def _at_price(max_tokens: int, draft: JobSpec, prices: Prices | None) -> int:
    """As many of `max_tokens` as the tier's price pays for.

    Raises:
        BadRequest: if the prompt alone costs more.
    """
    tier = draft.resolution.tier
    if tier is None or tier.max_price is None or prices is None:
        return max_tokens
    most = affordable(prices, len(draft.prompt.ids), tier.max_price)
    if most is not None and most < 1:
        raise BadRequest(
            f"'{draft.field}' alone costs more than the {tier.max_price} {prices.currency} that "
            f"an answer of tier '{tier.name}' may cost: send less, or name another tier",
            param=draft.field,
        )
    return max_tokens if most is None else min(max_tokens, most)


def _answer_minimum(draft: JobSpec, max_tokens: int, markers: Markers) -> int:
    """The answer tokens before which no end of turn is sampled.

    Raises:
        BadRequest: if there are not so many, or something else decides where the answer ends.
    """
    request, bound = draft.request, draft.constraint
    wanted = {"min_tokens": request.min_tokens or 0, "ignore_eos": bool(request.ignore_eos)}
    field = next((name for name, value in wanted.items() if value), None)
    if field is not None and bound is not None:
        raise BadRequest(
            f"'{field}' cannot be had beside '{bound.field}', which says where the answer ends: "
            "leave one of them out",
            param=field,
        )
    most = max_tokens - (len(markers.end) if draft.prompt.opened else 0)
    if wanted["min_tokens"] and wanted["min_tokens"] > most:
        raise BadRequest(
            f"'min_tokens' is {request.min_tokens}, but the answer can have {most} tokens at most",
            param="min_tokens",
        )
    return max_tokens if request.ignore_eos else wanted["min_tokens"]


def _room(draft: JobSpec, max_tokens: int, markers: Markers, settings: Settings) -> int:
    """Return the thinking tokens that `max_tokens` leaves beside the answer."""
    reserve = answer_reserve(max_tokens, **settings.answer_reserve.model_dump())
    reserve = max(reserve, draft.request.min_tokens or 0)
    return thinking_room(max_tokens, reserve, markers, draft.prompt.opened)


def _token_budget(budget: ThinkingBudget, prompt: Prompt, room: int, engine: Engine) -> TokenBudget:
    return tokenize(
        budget,
        encode=engine.codec.encode,
        markers=engine.model.markers,
        opened=prompt.opened,
        room=room,
        vocabulary=engine.model.vocabulary,
        may_think=prompt.may_think,
    )


def _bound(budget: TokenBudget, constraint: Constraint) -> TokenBudget:
    """The budget of a constrained answer, which begins with a thinking unless there is to be none.

    The engine binds what comes after the end marker. Whether a model that may think
    will, it could not know before its first token, and by then an answer has begun.
    A structural tag binds parts of an answer alone.
    """
    return replace(
        budget,
        opens=budget.opens or bool(budget.maximum),
        bound=constraint.kind is not Kind.STRUCTURAL_TAG,
    )


def _sampling(
    request: Generation, tier: Tier | None, max_tokens: int, constraint: Constraint | None
) -> Sampling:
    temperature, top_p = request.temperature, request.top_p
    if tier is not None:
        temperature = tier.temperature if temperature is None else temperature
        top_p = tier.top_p if top_p is None else top_p
    return Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        repetition_penalty=request.repetition_penalty,
        logit_bias=request.logit_bias,
        seed=request.seed,
        top_logprobs=request.requested_logprobs,
        prompt_logprobs=request.requested_prompt_logprobs,
        constraint=constraint,
    )


def _nth(sampling: Sampling, index: int, *, streamed: bool) -> Sampling:
    """The sampling of one choice; each has a seed of its own, kept within 64 bits signed.

    The prompt's scores are the first one's affair, but in a stream each choice's text begins
    with them.
    """
    if index and not streamed:
        sampling = replace(sampling, prompt_logprobs=None)
    if sampling.seed is None:
        return sampling
    seed = (sampling.seed + index - INT64_LEAST) % INT64_SPAN + INT64_LEAST
    return replace(sampling, seed=seed)
