"""From a request to jobs that the engine can be trusted with."""

from dataclasses import dataclass, replace

from budget import ThinkingBudget, TokenBudget, answer_reserve, thinking_room, tokenize
from server.asked import Given, contradiction, read_asked
from server.engines.answers import BoundTools, Constraint, ToolChoice
from server.engines.base import Engine, Job, Prompt, Sampling
from server.errors import BadRequest, ContextTooLong
from server.models import check_model
from server.prices import affordable
from server.rendering import check_length, render, spent_before
from server.resolution import Resolution, ceilings, resolve, wants_router
from server.routing import Routed, Router
from server.schemas import ChatRequest
from server.sections import Prices, Tier
from server.settings import Settings

INT64_SPAN = 2**64
INT64_LEAST = -(2**63)


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that was let in.

    Attributes:
        jobs: one for each choice.
        resolution: its budget, and where that came from.
        routed: what the router found, or None if it was not asked.
        clamped_by: what cut the maximum that was asked for: a ceiling's owner,
            "turn", which is what was thought in it before, "price", or "room",
            which is what the context and `max_tokens` leave.
        tools: what may or must be called, or None if nothing may be.
        call_named: whether the function to call was named.
    """

    jobs: tuple[Job, ...]
    resolution: Resolution
    routed: Routed | None
    clamped_by: tuple[str, ...]
    tools: BoundTools | None
    call_named: bool

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, which the choices share."""
        return len(self.jobs[0].prompt_ids)

    @property
    def enforced(self) -> TokenBudget:
        """What holds for each choice."""
        return self.jobs[0].budget

    @property
    def max_thinking_tokens(self) -> int | None:
        """The maximum enforced, or None if no number was asked for."""
        return None if self.resolution.budget.max_tokens is None else self.enforced.maximum


class Admissions:
    """Lets requests in, or not."""

    def __init__(self, settings: Settings, router: Router) -> None:
        self._settings = settings
        self._router = router
        self._ceilings = ceilings(settings)

    async def admit(self, request: ChatRequest, engine: Engine, name: str) -> Admission:
        """Check a request against the model and the limits, and make its jobs.

        Args:
            request: what the client sent.
            engine: whose model, template and tokenizer it is for.
            name: unique among the requests of this engine's lifetime.

        Raises:
            ApiError: if the request cannot be served.
            BudgetError: if its budget cannot be enforced.
        """
        settings = self._settings
        context = engine.model.context_length
        _check(request, engine, settings)
        check_length(request, context)
        asked = read_asked(request)
        choice = request.tools_wanted()
        tools = _bind(choice, engine)
        constraint = request.constraint() if tools is None else tools.constraint
        routed = self._router.sort(request) if wants_router(asked, settings) else None
        level = None if routed is None else routed.level
        resolution = resolve(asked, settings, level, self._ceilings)
        resolution = resolution.after(await spent_before(request.messages, engine.codec))
        prompt = await render(request, engine, thinking=not resolution.budget.disabled)
        wanted = _max_tokens(request, prompt, context)
        max_tokens = _at_price(wanted, prompt, resolution.tier, settings.prices)
        enforced = _token_budget(resolution, prompt, max_tokens, engine, settings)
        if constraint is not None:
            enforced = _opened(enforced)
        told = resolution.clamped_by
        if _is_clamped(resolution.budget, enforced):
            told = (*told, "room" if max_tokens == wanted else "price")
        sampling = _sampling(request, resolution.tier, max_tokens, constraint)
        jobs = tuple(
            Job(f"{name}-{index}", prompt.ids, _nth(sampling, index), enforced)
            for index in range(request.n or 1)
        )
        await engine.check(jobs[0])
        named = choice is not None and choice.name is not None
        return Admission(jobs, resolution, routed, told, tools, named)


def _check(request: ChatRequest, engine: Engine, settings: Settings) -> None:
    check_model(request.model, engine.model, settings.aliases, param="model")
    if (request.n or 1) > settings.limits.max_choices:
        raise BadRequest(f"'n' can be at most {settings.limits.max_choices}", param="n")
    if request.stream_options is not None and not request.stream:
        raise BadRequest("'stream_options' needs 'stream': true", param="stream_options")
    if request.top_logprobs and not request.logprobs:
        raise BadRequest("'top_logprobs' needs 'logprobs': true", param="top_logprobs")


def _bind(choice: ToolChoice | None, engine: Engine) -> BoundTools | None:
    """The tools in the model's own format, if any may be called.

    Raises:
        BadRequest: if nobody said how the model writes calls.
        Unserved: if its format cannot do what is wanted.
    """
    if choice is None:
        return None
    if engine.tools is None:
        raise BadRequest(
            "this server was not told how its model writes tool calls (its setting "
            "tool_call_parser): leave 'tools' out",
            param="tools",
        )
    return engine.tools.bind(choice)


def _max_tokens(request: ChatRequest, prompt: Prompt, context: int) -> int:
    """The tokens that each choice may have.

    Raises:
        ContextTooLong: if the context does not hold them beside the prompt.
        BadRequest: if two fields contradict each other.
    """
    left = context - len(prompt.ids)
    if left < 1:
        raise ContextTooLong(
            f"the messages have {len(prompt.ids)} tokens and the context holds {context}, the "
            "answer included: send shorter messages",
            param="messages",
        )
    one, other = request.max_completion_tokens, request.max_tokens
    if one is not None and other is not None and one != other:
        raise contradiction(Given("max_completion_tokens", one), Given("max_tokens", other))
    asked = other if one is None else one
    if asked is not None and asked > left:
        name = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
        raise ContextTooLong(
            f"'{name}' is {asked}, but the context of {context} tokens has {left} left after the "
            f"messages: ask for {left} or fewer",
            param=name,
        )
    return left if asked is None else asked


def _at_price(max_tokens: int, prompt: Prompt, tier: Tier | None, prices: Prices | None) -> int:
    """As many of `max_tokens` as the tier's price pays for.

    Raises:
        BadRequest: if the prompt alone costs more.
    """
    if tier is None or tier.max_price is None or prices is None:
        return max_tokens
    most = affordable(prices, len(prompt.ids), tier.max_price)
    if most is not None and most < 1:
        raise BadRequest(
            f"the messages alone cost more than the {tier.max_price} {prices.currency} that an "
            f"answer of tier '{tier.name}' may cost: send shorter ones, or name another tier",
            param="messages",
        )
    return max_tokens if most is None else min(max_tokens, most)


def _token_budget(
    resolution: Resolution, prompt: Prompt, max_tokens: int, engine: Engine, settings: Settings
) -> TokenBudget:
    reserve = answer_reserve(max_tokens, **settings.answer_reserve.model_dump())
    markers = engine.model.markers
    room = thinking_room(max_tokens, reserve, markers, prompt.opened)
    budget = resolution.budget
    if not resolution.minimum_asked:
        budget = replace(budget, min_tokens=min(budget.min_tokens, room))
    return tokenize(
        budget, encode=engine.codec.encode, markers=markers, opened=prompt.opened, room=room
    )


def _is_clamped(budget: ThinkingBudget, enforced: TokenBudget) -> bool:
    return budget.max_tokens is not None and budget.max_tokens != enforced.maximum


def _opened(budget: TokenBudget) -> TokenBudget:
    """The budget of a constrained answer, which begins with a thinking unless there is to be none.

    The engine binds what comes after the end marker. Whether a model that may think
    will, it could not know before its first token, and by then an answer has begun.
    """
    if budget.opened or budget.demands_thinking or not budget.maximum:
        return budget
    return replace(budget, minimum=1)


def _sampling(
    request: ChatRequest, tier: Tier | None, max_tokens: int, constraint: Constraint | None
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
        alternatives=(request.top_logprobs or 0) if request.logprobs else None,
        constraint=constraint,
    )


def _nth(sampling: Sampling, index: int) -> Sampling:
    """The sampling of one choice; each has a seed of its own, kept within 64 bits signed."""
    if sampling.seed is None:
        return sampling
    seed = (sampling.seed + index - INT64_LEAST) % INT64_SPAN + INT64_LEAST
    return replace(sampling, seed=seed)
