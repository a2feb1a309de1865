"""From a request to jobs that the engine can be trusted with."""

from dataclasses import dataclass

from budget import TokenBudget
from server.asked import Given, contradiction, read_asked
from server.engines.answers import BoundTools, ToolChoice
from server.engines.base import Engine, Job
from server.errors import BadRequest
from server.jobs import Draft, make_jobs
from server.models import check_model
from server.rendering import check_length, render, spent_before
from server.resolution import Resolution, ceilings, resolve, wants_router
from server.routing import Routed, Router
from server.schemas import ChatRequest
from server.settings import Settings


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
        max_tokens = _tokens_asked(request)
        draft = Draft(name, request, resolution, prompt, "messages", max_tokens, constraint)
        jobs, clamped_by = make_jobs(draft, engine, settings)
        await engine.check(jobs[0])
        named = choice is not None and choice.name is not None
        return Admission(jobs, resolution, routed, clamped_by, tools, named)


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
