"""From a request to jobs that the engine can be trusted with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from proctor.budget import TokenBudget
from proctor.server.auth.api_key import Key
from proctor.server.config.budgets import AUTO, CUSTOM
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine, Finish, Job, Prompt
from proctor.server.engines.tool_calls import BoundTools, Constraint
from proctor.server.errors import BadRequest, Forbidden, UnsupportedRequest
from proctor.server.generation.answer_binding import Binder
from proctor.server.generation.budget_request import (
    BudgetRequest,
    FieldValue,
    contradiction,
    read_budget_request,
)
from proctor.server.generation.budget_resolution import (
    PROMPT,
    Ceiling,
    Resolution,
    ceilings,
    resolve,
    wants_router,
)
from proctor.server.generation.context import EVERYBODY
from proctor.server.generation.jobs import JobSpec, make_jobs
from proctor.server.generation.model_names import check_model
from proctor.server.generation.prompt import check_length, read_prompt, render, spent_before
from proctor.server.generation.routing import Routed, Router
from proctor.server.schemas.completions import DEFAULT_MAX_TOKENS, CompletionRequest
from proctor.server.schemas.generation import ChatRequest, Generation
from proctor.server.schemas.responses import Source

MAX_PROMPT_SCORES = 2**17
"""Log probabilities of prompts in one answer."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that was let in.

    Attributes:
        jobs: one for each choice.
        resolution: its budget, and where that came from.
        routed: what the router found, or None if it was not asked.
        clamped_by: what cut the budget that was asked for: a ceiling's owner, or
            what `proctor.server.generation.budget_resolution` names beside them.
        tools: what may or must be called, or None if nothing may be.
        call_named: whether the function to call was named.
        clamped: of each job, whether its budget was cut.
        choices_per_prompt: how many jobs in a row have the same prompt.
    """

    jobs: tuple[Job, ...]
    resolution: Resolution
    routed: Routed | None
    clamped_by: tuple[str, ...]
    tools: BoundTools | None
    call_named: bool
    clamped: tuple[bool, ...]
    choices_per_prompt: int

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompts, each of which its choices share."""
        return sum(len(job.prompt_ids) for job in self.jobs[:: self.choices_per_prompt])

    @property
    def enforced(self) -> TokenBudget:
        """What holds for the choices of the first prompt."""
        return self.jobs[0].budget

    def max_thinking_tokens(self, choice: int) -> int | None:
        """The maximum enforced on a choice, or None if no number was asked for."""
        asked = self.resolution.budget.max_tokens
        return None if asked is None else self.jobs[choice].budget.maximum

    def finish_reason(self, finish: Finish, calls: int) -> str:
        """Return OpenAI's finish reason of a choice.

        A call of the function that `tool_choice` names ends with `stop`, as OpenAI has it.

        Args:
            finish: why its generation ended.
            calls: how many tool calls it has.
        """
        called = calls and finish is Finish.STOP and not self.call_named
        return "tool_calls" if called else finish.value


class AdmissionController:
    """Lets requests in, or not."""

    def __init__(self, settings: Settings, router: Router) -> None:
        self._settings = settings
        self._unrouted = settings
        if settings.default_tier == AUTO:
            self._unrouted = settings.model_copy(update={"default_tier": CUSTOM})
        self._router = router
        self._ceilings = ceilings(settings)
        self._binder = Binder()

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
        continuing = _continues(request)
        if continuing:
            *before, last = request.messages
            request = request.model_copy(update={"messages": [*before, last.unfinished()]})
        asked = read_budget_request(request)
        bound = await self._binder.bind(request, engine)
        routed = self._router.sort(request) if wants_router(asked, settings) else None
        level = None if routed is None else routed.level
        resolution = resolve(asked, settings, level, self._above(key))
        resolution = resolution.after(await spent_before(request.messages, engine.codec))
        prompt = await render(
            request, engine, thinking=not resolution.budget.disabled, continuing=continuing
        )
        if continuing and not prompt.opened:
            _check_free(bound.constraint)
            resolution = _without_minimum(resolution, asked, "messages")
        max_tokens = _tokens_asked(request)
        draft = JobSpec(name, request, resolution, prompt, "messages", max_tokens, bound.constraint)
        jobs, clamped_by = make_jobs(draft, engine, settings)
        _check_scores(jobs, "prompt_logprobs")
        await _checked(jobs[0], engine, request, key)
        clamped = (bool(clamped_by),) * len(jobs)
        return Admission(
            jobs,
            resolution,
            routed,
            clamped_by,
            bound.tools,
            bound.call_named,
            clamped,
            choices_per_prompt=len(jobs),
        )

    async def admit_prompt(
        self, request: CompletionRequest, engine: Engine, name: str, key: Key | None
    ) -> Admission:
        """The same for completions of raw prompts; the router is not asked.

        All the prompts are looked at before any reaches the engine.

        Raises:
            ApiError: if the request cannot be served.
            BudgetError: if its budget cannot be enforced.
        """
        settings = self._unrouted
        _check(request, engine, settings, key)
        _check_prompts(request, settings)
        asked = read_budget_request(request)
        if asked.tier is not None and wants_router(asked, settings):
            raise BadRequest(
                f"'{asked.tier.field}' asks for the router, which reads messages: name a tier",
                param=asked.tier.field,
            )
        resolution = resolve(asked, settings, None, self._above(key))
        special = request.add_special_tokens is not False
        jobs: list[Job] = []
        clamped: list[bool] = []
        clamped_by: dict[str, None] = {}
        for field, written in request.prompts:
            prompt = await read_prompt(written, field, engine, special=special)
            granted = resolution if prompt.opened else _without_minimum(resolution, asked, field)
            most = request.max_tokens
            if most is None:
                most = _most_by_default(prompt, engine.model.context_length)
            given = FieldValue("max_tokens", most)
            draft = JobSpec(name, request, granted, prompt, field, given, first=len(jobs))
            made, cut = make_jobs(draft, engine, settings)
            await _checked(made[0], engine, request, key)
            jobs += made
            clamped += [bool(cut)] * len(made)
            clamped_by |= dict.fromkeys(cut)
        _check_scores(jobs, _scored_field(request))
        return Admission(
            tuple(jobs),
            resolution,
            routed=None,
            clamped_by=tuple(clamped_by),
            tools=None,
            call_named=False,
            clamped=tuple(clamped),
            choices_per_prompt=request.n or 1,
        )

    def _above(self, key: Key | None) -> tuple[Ceiling, ...]:
        if key is None:
            return self._ceilings
        tier = key.limits.tier
        if tier is not None and self._settings.tier(tier) is None:
            raise Forbidden(f"this key goes up to the tier '{tier}', which this server has not")
        return (*self._ceilings, Ceiling("key", key.limits.max_thinking_tokens, tier))


def _without_minimum(resolution: Resolution, asked: BudgetRequest, field: str) -> Resolution:
    """The budget of a prompt, made of `field`, that opens no thinking: it opens none by force.

    Raises:
        BadRequest: if the request demands some.
    """
    demands = [
        given.field
        for given in (asked.minimum, asked.continuations, asked.enabled)
        if given is not None and given.value
    ]
    budget = resolution.budget
    # What the router found, nobody demands.
    routed = resolution.source is Source.ROUTER
    named = None if routed or resolution.tier is None else resolution.field
    if named is not None and (budget.min_tokens or budget.continuations):
        demands.append(named)
    if demands:
        raise BadRequest(
            f"'{demands[0]}' demands thinking, but '{field}' does not end inside a thinking "
            "block: open one there, or leave it out",
            param=demands[0],
        )
    undemanding = replace(budget, min_tokens=0, continuations=0)
    return resolution.limited(PROMPT, undemanding, resolution.tier)


def _check(request: Generation, engine: Engine, settings: Settings, key: Key | None) -> None:
    model = engine.model.name if request.model is None else request.model
    check_model(model, engine.model, settings.aliases, param="model")
    models = () if key is None else key.limits.models
    if models and model not in models:
        raise Forbidden(f"this key is for {', '.join(models)}", param="model")
    if (request.n or 1) > settings.limits.max_choices:
        raise BadRequest(f"'n' can be at most {settings.limits.max_choices}", param="n")
    if request.stream_options is not None and not request.stream:
        raise BadRequest("'stream_options' needs 'stream': true", param="stream_options")
    if request.prompt_logprobs is not None and request.stream:
        raise BadRequest("'prompt_logprobs' cannot be had in a stream", param="prompt_logprobs")


def _check_prompts(request: CompletionRequest, settings: Settings) -> None:
    choices, most = len(request.prompts) * (request.n or 1), settings.limits.max_choices
    if choices > most:
        raise BadRequest(
            f"'prompt' asks for {choices} choices, 'n' for each of its prompts: {most} can be had "
            "at once",
            param="prompt",
        )
    if request.max_tokens == 0 and not (request.echo or request.prompt_logprobs is not None):
        raise BadRequest(
            "'max_tokens' is 0, which generates nothing: ask for 'echo' or 'prompt_logprobs', or "
            "for 1 token or more",
            param="max_tokens",
        )


def _continues(request: ChatRequest) -> bool:
    """Whether the answer goes on with the last message.

    Raises:
        BadRequest: if that contradicts another field, or there is nothing to go on with.
    """
    continues, begins = request.continue_final_message, request.add_generation_prompt
    if not continues:
        needing = {"add_generation_prompt": begins is False, "echo": bool(request.echo)}
        for name, needs in needing.items():
            if needs:
                told = "true" if getattr(request, name) else "false"
                raise BadRequest(
                    f"'{name}' is {told}, which needs 'continue_final_message': true", param=name
                )
        return False
    if begins:
        raise contradiction(
            FieldValue("continue_final_message", True), FieldValue("add_generation_prompt", True)
        )
    at, last = len(request.messages) - 1, request.messages[-1].unfinished()
    reason = None
    if last.role != "assistant":
        reason = f"is of the role '{last.role}', not of 'assistant'"
    elif last.tool_calls:
        reason = "has tool calls, and so has ended"
    elif not (last.text or last.thought or request.messages[-1].text):
        reason = "is empty"
    elif not last.text and not at:
        reason = "begins the conversation with a thinking"
    if reason is not None:
        raise BadRequest(
            f"'continue_final_message' cannot go on with 'messages[{at}]', which {reason}",
            param="continue_final_message",
        )
    return True


def _check_free(constraint: Constraint | None) -> None:
    """See that nothing binds an answer whose beginning is written already.

    Raises:
        BadRequest: if something does.
    """
    if constraint is not None:
        raise BadRequest(
            f"'{constraint.field}' binds the whole answer, but 'continue_final_message' goes on "
            "with one that has begun: leave one of them out",
            param="continue_final_message",
        )


def _check_scores(jobs: Sequence[Job], field: str) -> None:
    """See that the log probabilities of the prompts are not too many for one answer.

    Raises:
        BadRequest: if they are.
    """
    scored = [(job, most) for job in jobs if (most := job.sampling.prompt_logprobs) is not None]
    scores = sum(len(job.prompt_ids) * (most + 1) for job, most in scored)
    if scores > MAX_PROMPT_SCORES:
        raise BadRequest(
            f"'{field}' asks for {scores} log probabilities of prompts, and {MAX_PROMPT_SCORES} "
            "can be had at once: ask for fewer of them, or for fewer choices",
            param=field,
        )


def _scored_field(request: CompletionRequest) -> str:
    return "logprobs" if request.prompt_logprobs is None else "prompt_logprobs"


def _most_by_default(prompt: Prompt, context: int) -> int:
    """The tokens of a choice where nobody says how many.

    OpenAI's default is one for texts without thinking: the answer's reserve would take all of
    it. Who opens a thinking gets what a chat gets.
    """
    left = context - len(prompt.ids)
    return left if prompt.opened else min(DEFAULT_MAX_TOKENS, left)


async def _checked(job: Job, engine: Engine, request: Generation, key: Key | None) -> None:
    """See that the engine takes a job; what it refuses is named as the request has it.

    Raises:
        UnsupportedRequest: if it does not.
        BudgetError: if it cannot enforce the budget.
    """
    try:
        await engine.check(job, EVERYBODY if key is None else key.name)
    except UnsupportedRequest as error:
        name = error.param
        if isinstance(request, CompletionRequest):
            name = {"top_logprobs": "logprobs"}.get(name, name)
            name = _scored_field(request) if name == "prompt_logprobs" else name
        if name == "min_tokens" and request.ignore_eos:
            name = "ignore_eos"
        if name == error.param:
            raise
        raise UnsupportedRequest(
            name, str(error).replace(f"'{error.param}'", f"'{name}'")
        ) from error


def _tokens_asked(request: ChatRequest) -> FieldValue[int] | None:
    """The tokens that each choice is to have, and the field that says so.

    Raises:
        BadRequest: if two fields contradict each other.
    """
    one, other = request.max_completion_tokens, request.max_tokens
    if one is not None and other is not None and one != other:
        raise contradiction(
            FieldValue("max_completion_tokens", one), FieldValue("max_tokens", other)
        )
    if one is not None:
        return FieldValue("max_completion_tokens", one)
    return None if other is None else FieldValue("max_tokens", other)
