"""From a request to jobs that the engine can be trusted with."""

from dataclasses import dataclass, replace

from budget import TokenBudget
from server.asked import Asked, Given, contradiction, read_asked
from server.engines.answers import BoundTools, ToolChoice
from server.engines.base import Engine, Job
from server.errors import BadRequest, Forbidden
from server.jobs import Draft, make_jobs
from server.key import Key
from server.models import check_model
from server.prompts import DEFAULT_MAX_TOKENS, CompletionRequest
from server.rendering import check_length, read_prompt, render, spent_before
from server.resolution import Ceiling, Resolution, ceilings, resolve, wants_router
from server.routing import Routed, Router
from server.schemas import ChatRequest, Generation
from server.sections import AUTO, CUSTOM
from server.settings import Settings
from server.terms import EVERYBODY


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
        self._unrouted = settings
        if settings.default_tier == AUTO:
            self._unrouted = settings.model_copy(update={"default_tier": CUSTOM})
        self._router = router
        self._ceilings = ceilings(settings)

    async def admit(
        self, request: ChatRequest, engine: Engine, name: str, key: Key | None
    ) -> Admission:
        """Check a chat against the model and the limits, and make its jobs.

        Args:
            request: what the client sent.
            engine: whose model, template and tokenizer it is for.
            name: unique among the requests of this engine's lifetime.
            key: whose it is, or None.

        Raises:
            ApiError: if the request cannot be served.
            BudgetError: if its budget cannot be enforced.
        """
        settings = self._settings
        _check(request, engine, settings, key)
        if request.top_logprobs and not request.logprobs:
            raise BadRequest("'top_logprobs' needs 'logprobs': true", param="top_logprobs")
        check_length(request, engine.model.context_length)
        asked = read_asked(request)
        choice = request.tools_wanted()
        tools = _bind(choice, engine)
        constraint = request.constraint() if tools is None else tools.constraint
        routed = self._router.sort(request) if wants_router(asked, settings) else None
        level = None if routed is None else routed.level
        resolution = resolve(asked, settings, level, self._above(key))
        resolution = resolution.after(await spent_before(request.messages, engine.codec))
        prompt = await render(request, engine, thinking=not resolution.budget.disabled)
        max_tokens = _tokens_asked(request)
        draft = Draft(name, request, resolution, prompt, "messages", max_tokens, constraint)
        jobs, clamped_by = make_jobs(draft, engine, settings)
        await engine.check(jobs[0], EVERYBODY if key is None else key.name)
        named = choice is not None and choice.name is not None
        return Admission(jobs, resolution, routed, clamped_by, tools, named)

    async def admit_prompt(
        self, request: CompletionRequest, engine: Engine, name: str, key: Key | None
    ) -> Admission:
        """The same for a completion of a raw prompt; the router is not asked.

        Raises:
            ApiError: if the request cannot be served.
            BudgetError: if its budget cannot be enforced.
        """
        settings = self._unrouted
        _check(request, engine, settings, key)
        asked = read_asked(request)
        if asked.tier is not None and wants_router(asked, settings):
            raise BadRequest(
                f"'{asked.tier.field}' is auto, but the router reads messages: name a tier",
                param=asked.tier.field,
            )
        resolution = resolve(asked, settings, None, self._above(key))
        prompt = await read_prompt(request, engine)
        if not prompt.opened:
            resolution = _undemanding(resolution, asked)
        most = request.max_tokens
        if most is None:
            most = min(DEFAULT_MAX_TOKENS, engine.model.context_length - len(prompt.ids))
        draft = Draft(name, request, resolution, prompt, "prompt", Given("max_tokens", most))
        jobs, clamped_by = make_jobs(draft, engine, settings)
        await engine.check(jobs[0], EVERYBODY if key is None else key.name)
        return Admission(jobs, resolution, None, clamped_by, None, call_named=False)

    def _above(self, key: Key | None) -> tuple[Ceiling, ...]:
        if key is None:
            return self._ceilings
        tier = key.limits.tier
        if tier is not None and self._settings.tier(tier) is None:
            raise Forbidden(f"this key goes up to the tier '{tier}', which this server has not")
        return (*self._ceilings, Ceiling("key", key.limits.max_thinking_tokens, tier))


def _undemanding(resolution: Resolution, asked: Asked) -> Resolution:
    """The budget of a prompt that opens no thinking: it opens none by force.

    Raises:
        BadRequest: if the request demands some.
    """
    demands = [
        given.field
        for given in (asked.minimum, asked.continuations, asked.switch)
        if given is not None and given.value
    ]
    budget = resolution.budget
    named = resolution.field if resolution.tier is not None else None
    if named is not None and (budget.min_tokens or budget.continuations):
        demands.append(named)
    if demands:
        raise BadRequest(
            f"'{demands[0]}' demands thinking, but the prompt does not end inside a thinking "
            "block: open one there, or leave it out",
            param=demands[0],
        )
    return replace(resolution, budget=replace(budget, min_tokens=0, continuations=0))


def _check(request: Generation, engine: Engine, settings: Settings, key: Key | None) -> None:
    check_model(request.model, engine.model, settings.aliases, param="model")
    models = () if key is None else key.limits.models
    if models and request.model not in models:
        raise Forbidden(f"this key is for {', '.join(models)}", param="model")
    if (request.n or 1) > settings.limits.max_choices:
        raise BadRequest(f"'n' can be at most {settings.limits.max_choices}", param="n")
    if request.stream_options is not None and not request.stream:
        raise BadRequest("'stream_options' needs 'stream': true", param="stream_options")


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


def _tokens_asked(request: ChatRequest) -> Given[int] | None:
    """The tokens that each choice is to have, and the field that says so.

    Raises:
        BadRequest: if two fields contradict each other.
    """
    one, other = request.max_completion_tokens, request.max_tokens
    if one is not None and other is not None and one != other:
        raise contradiction(Given("max_completion_tokens", one), Given("max_tokens", other))
    if one is not None:
        return Given("max_completion_tokens", one)
    return None if other is None else Given("max_tokens", other)
