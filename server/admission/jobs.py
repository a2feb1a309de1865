"""Makes jobs from a prompt and its budget: room, answer reserve, price and sampling."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from proctor.budget import (
    Markers,
    TokenBudget,
    answer_reserve,
    thinking_room,
    tokenize,
)
from proctor.server.admission.budget_request import FieldValue
from proctor.server.admission.parallel_chains import PARALLEL, share_of
from proctor.server.admission.prompt import check_room
from proctor.server.config.budgets import Tier, VoteMethod
from proctor.server.config.prices import Prices
from proctor.server.config.sessions import Limit
from proctor.server.config.settings import Settings
from proctor.server.config.thinking.early_exit import EarlyExit
from proctor.server.engines.base import Engine, Job, Prompt, Sampling
from proctor.server.engines.tool_calls import Constraint, Kind
from proctor.server.errors import BadRequest, ContextTooLong
from proctor.server.generation.base import ParallelPlan
from proctor.server.generation.resolution import PRICE, ROOM, SESSION, Resolution
from proctor.server.pricing import affordable
from proctor.server.schemas.generation import Generation

INT64_SPAN = 2**64
INT64_MIN = -(2**63)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """The input of `make_jobs`.

    Attributes:
        name: a request id, unique during the lifetime of the engine.
        request: the client's request.
        resolution: the budget.
        prompt: the prompt.
        field: the request's field that the prompt is from.
        max_tokens: the requested maximum number of tokens and its field, or None.
        constraint: the structured output that the answer must match.
        first: index of the first choice among those of the request.
        session_tokens: the maximum length that a limit of the session leaves for a choice, all
            its chains together, and that limit, or None.
        owner: the name of the request's API key.
    """

    name: str
    request: Generation
    resolution: Resolution
    prompt: Prompt
    field: str
    max_tokens: FieldValue[int] | None
    constraint: Constraint | None = None
    first: int = 0
    session_tokens: tuple[int, Limit] | None = None
    owner: str = ""

    @property
    def chains(self) -> int:
        """The number of chains of thought for each choice."""
        return self.resolution.chains


class JobSet(NamedTuple):
    """The jobs of a prompt.

    Attributes:
        jobs: one for each choice, or for each chain of the only one.
        clamped_by: what clamped the requested budget.
        reduced_by: the limits of the session that reduced the thinking or the length.
        parallel: how the chains of the choice share its tokens, or None if there is only one.
    """

    jobs: tuple[Job, ...]
    clamped_by: tuple[str, ...]
    reduced_by: tuple[Limit, ...]
    parallel: ParallelPlan | None = None


class Fit(NamedTuple):
    """What the context and all limits leave for a prompt.

    Attributes:
        resolution: the budget, clamped to the room for thinking.
        room: the thinking tokens of each chain for which there is room.
        max_tokens: the maximum number of tokens of each chain.
        context: the number of tokens that the context has left.
        shortened_by: the limits of the session that reduced `max_tokens`.
    """

    resolution: Resolution
    room: int
    max_tokens: int
    context: int
    shortened_by: tuple[Limit, ...]


def make_jobs(spec: JobSpec, engine: Engine, settings: Settings) -> JobSet:
    """Return one job for each choice, or each of its chains, and what clamped the budget.

    Raises:
        BadRequest: if the context or the tier's maximum price is too small.
        BudgetError: if the budget cannot be enforced.
    """
    fit, request = _fit(spec, engine, settings), spec.request
    enforced = _token_budget(spec, fit, engine)
    early_exit, allowance = _early_exit(fit.resolution.early_exit, enforced)
    enforced = _without(enforced, allowance)
    plan, max_tokens, moved_for = _plan(fit), fit.max_tokens, ""
    if plan is not None:
        max_tokens = min(fit.context, plan.cap + plan.other_tokens)
        moved_for = PARALLEL if enforced.maximum else ""
    elif early_exit is not None:
        moved_for = "thinking.early_exit"
    tier = fit.resolution.tier
    sampling = _sampling(request, tier, max_tokens - allowance, spec.constraint)
    if plan is not None and plan.parallel.method is VoteMethod.CONFIDENCE:
        sampling = replace(sampling, top_logprobs=sampling.top_logprobs or 0)
    jobs = tuple(
        Job(
            f"{spec.name}-{spec.first + index}",
            spec.prompt.ids,
            _choice_sampling(sampling, index, streamed=bool(request.stream)),
            enforced,
            spec.owner,
            priority=request.priority or 0,
            moved_for=moved_for,
            early_exit=early_exit,
            probe_allowance=allowance,
        )
        for index in range((request.n or 1) * spec.chains)
    )
    clamped_by = fit.resolution.clamped_by
    thinking_reduced = _capped_by_session(spec.resolution, fit.resolution)
    if thinking_reduced and SESSION not in clamped_by:
        clamped_by = (*clamped_by, SESSION)
    reduced_by = (*([Limit.THINKING] if thinking_reduced else []), *fit.shortened_by)
    return JobSet(jobs, clamped_by, reduced_by, plan)


def _fit(spec: JobSpec, engine: Engine, settings: Settings) -> Fit:
    """Return what the context and all limits leave, as if all chains were equally long.

    Raises:
        BadRequest: if the context or the tier's maximum price is too small.
    """
    resolution, markers = spec.resolution, engine.model.markers
    context_max_tokens = _max_tokens(spec, engine.model.context_length)
    price_max_tokens = _affordable_tokens(context_max_tokens, spec, settings.prices)
    max_tokens, shortened_by = _session_tokens(price_max_tokens, spec)
    for tokens, by in (
        (context_max_tokens, ROOM),
        (price_max_tokens, PRICE),
        (max_tokens, SESSION),
    ):
        room = _thinking_room(spec, tokens, markers, settings)
        resolution = resolution.within(room * spec.chains, by)
    context = engine.model.context_length - len(spec.prompt.ids)
    return Fit(resolution, room, max_tokens, context, shortened_by)


def _plan(fit: Fit) -> ParallelPlan | None:
    """Return how the chains of an answer share its tokens, or None if there is only one."""
    parallel = fit.resolution.parallel
    if parallel is None:
        return None
    thinking_tokens = fit.resolution.budget.max_tokens
    if thinking_tokens is None:
        thinking_tokens = fit.room * parallel.chains
    largest_share = -(-thinking_tokens // parallel.chains)
    other_tokens = fit.max_tokens - largest_share
    # A chain may think longer than its share as far as the context still has the answer reserve.
    cap = min(thinking_tokens, fit.room + fit.context - fit.max_tokens)
    return ParallelPlan(parallel, thinking_tokens, cap, other_tokens)


def _session_tokens(max_tokens: int, spec: JobSpec) -> tuple[int, tuple[Limit, ...]]:
    """Return the tokens of each chain, at most what the session leaves, and what reduced them."""
    if spec.session_tokens is None:
        return max_tokens, ()
    tokens, limit = spec.session_tokens
    tokens //= spec.chains
    return (tokens, (limit,)) if tokens < max_tokens else (max_tokens, ())


def _capped_by_session(resolution: Resolution, fitted: Resolution) -> bool:
    """Return whether the thinking would be longer without the limits of the session.

    A cap that exceeds the room for thinking changes nothing.
    """
    if SESSION in resolution.clamped_by:
        return True
    is_cap = fitted.budget.max_tokens == resolution.budget.max_tokens
    return SESSION in resolution.capped_by and is_cap


def _max_tokens(spec: JobSpec, context: int) -> int:
    """Return the tokens of each chain: its share of those requested, or all that are left.

    Some protocols' clients always request more than many contexts have, which is then reduced.

    Raises:
        ContextTooLong: if the context does not have as many left after the prompt.
        BadRequest: if there is not one token for each chain.
    """
    requested, chains = spec.max_tokens, spec.chains
    left = check_room(spec.prompt.ids, context, spec.field)
    if requested is None:
        return left
    if requested.value > left * chains and not spec.request.clamps_max_tokens:
        what = (
            f"of which the prompt leaves {left}, but '{requested.field}' is {requested.value}: it "
            f"must be at most {left * chains}"
        )
        raise ContextTooLong(context, what, param=requested.field)
    if chains > 1 and requested.value < chains:
        raise BadRequest(
            f"'{requested.field}' is {requested.value}, less than one token for each of the "
            f"{chains} chains of '{PARALLEL}'",
            param=requested.field,
        )
    return min(left, requested.value // chains)


def _affordable_tokens(max_tokens: int, spec: JobSpec, prices: Prices | None) -> int:
    """Return the tokens of each chain, at most `max_tokens`, that the maximum price pays for.

    Raises:
        BadRequest: if the prompt alone costs more.
    """
    tier = spec.resolution.tier
    if tier is None or tier.max_price is None or prices is None:
        return max_tokens
    affordable_tokens = affordable(prices, len(spec.prompt.ids), tier.max_price)
    if affordable_tokens is None:
        return max_tokens
    if affordable_tokens < spec.chains:
        raise BadRequest(
            f"'{spec.field}' alone costs more than {tier.max_price} {prices.currency}, the "
            f"maximum price of tier '{tier.name}': send less, or name another tier",
            param=spec.field,
        )
    return min(max_tokens, affordable_tokens // spec.chains)


def _answer_minimum(spec: JobSpec, max_tokens: int, markers: Markers) -> int:
    """Return the number of answer tokens before which no end of turn is sampled.

    Raises:
        BadRequest: if `max_tokens` leaves fewer, or the answer has structured output, which
            decides where it ends.
    """
    request, constraint = spec.request, spec.constraint
    options = {"min_tokens": request.min_tokens or 0, "ignore_eos": bool(request.ignore_eos)}
    field = next((name for name, value in options.items() if value), None)
    if field is not None and constraint is not None:
        raise BadRequest(
            f"'{field}' cannot be combined with '{constraint.field}', which decides where the "
            "answer ends: leave one of them out",
            param=field,
        )
    maximum = max_tokens - (len(markers.end) if spec.prompt.opened else 0)
    if options["min_tokens"] and options["min_tokens"] > maximum:
        raise BadRequest(
            f"'min_tokens' is {request.min_tokens}, but the answer has at most {maximum} tokens",
            param="min_tokens",
        )
    return max_tokens if request.ignore_eos else options["min_tokens"]


def _thinking_room(spec: JobSpec, max_tokens: int, markers: Markers, settings: Settings) -> int:
    """Return the thinking tokens that `max_tokens` leaves after the answer reserve."""
    reserve = answer_reserve(max_tokens, **settings.answer_reserve.model_dump())
    reserve = max(reserve, spec.request.min_tokens or 0)
    return thinking_room(max_tokens, reserve, markers, spec.prompt.opened)


def _token_budget(spec: JobSpec, fit: Fit, engine: Engine) -> TokenBudget:
    """Return the budget of each choice or chain.

    Raises:
        BadRequest: if fields contradict each other.
        BudgetError: if the budget cannot be enforced.
    """
    resolution, prompt = fit.resolution, spec.prompt
    is_shared = resolution.parallel is not None
    budget = tokenize(
        share_of(resolution, fit.room) if is_shared else resolution.budget,
        encode=engine.codec.encode,
        markers=engine.model.markers,
        opened=prompt.opened,
        room=fit.room,
        vocabulary=engine.model.vocabulary,
        may_think=prompt.may_think,
    )
    answer_minimum = _answer_minimum(spec, fit.max_tokens, engine.model.markers)
    budget = replace(budget, answer_minimum=answer_minimum)
    return budget if spec.constraint is None else _constrained(budget, spec.constraint)


def _early_exit(early_exit: EarlyExit | None, budget: TokenBudget) -> tuple[EarlyExit | None, int]:
    """Return the early exit of a choice, if its budget has room for one, and what its probes get.

    The second result is a number of tokens.
    """
    if early_exit is None or not budget.maximum:
        return None, 0
    allowance = early_exit.allowance(budget.minimum, budget.maximum)
    needs_probes = early_exit.probe_tokens > 0
    return (None, 0) if needs_probes and not allowance else (early_exit, allowance)


def _without(budget: TokenBudget, allowance: int) -> TokenBudget:
    """Return the budget without the tokens that are set aside for probes."""
    if not allowance:
        return budget
    maximum = (budget.maximum or 0) - allowance
    wrap_up = budget.wrap_up_ids if len(budget.wrap_up_ids) < maximum else ()
    return replace(budget, maximum=maximum, wrap_up_ids=wrap_up)


def _constrained(budget: TokenBudget, constraint: Constraint) -> TokenBudget:
    """Return the budget of an answer with structured output: thinking, if allowed, is forced open.

    The grammar applies from the end marker on, so the engine must know before the first token
    whether there will be one. A structural tag only constrains parts of the answer, so that
    markers still count in the rest.
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


def _choice_sampling(sampling: Sampling, index: int, *, streamed: bool) -> Sampling:
    """Return the sampling of one choice, which has its own seed, a signed 64-bit integer.

    Only the first choice reports prompt log probabilities. In a stream all choices do, as the text
    of each begins with the prompt's.
    """
    if index and not streamed:
        sampling = replace(sampling, prompt_logprobs=None)
    if sampling.seed is None:
        return sampling
    seed = (sampling.seed + index - INT64_MIN) % INT64_SPAN + INT64_MIN
    return replace(sampling, seed=seed)
