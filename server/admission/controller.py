"""Admission control: validates a request against the model and all limits, and makes its jobs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

from proctor.server.admission.answer_binding import Binder
from proctor.server.admission.budget_request import (
    BudgetRequest,
    FieldValue,
    conflict,
    read_budget_request,
)
from proctor.server.admission.budget_resolution import Ceiling, resolve, uses_router
from proctor.server.admission.budget_resolution import ceilings as operator_ceilings
from proctor.server.admission.jobs import JobSet, JobSpec, make_jobs
from proctor.server.admission.parallel_chains import applicable
from proctor.server.admission.prompt import check_length, read_prompt, render
from proctor.server.admission.request_checks import (
    check_job,
    check_prompt_logprobs,
    check_prompts,
    check_request,
    check_unconstrained,
    continues,
    logprobs_field,
)
from proctor.server.admission.routing import Router
from proctor.server.admission.session_share import SessionShare
from proctor.server.admission.tier_models import (
    NOT_SERVED,
    check_other_model,
    check_own_model,
    selects_tier,
)
from proctor.server.auth.api_key import Key
from proctor.server.config.budgets import AUTO, CUSTOM
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine, Prompt
from proctor.server.engines.supervisor import EngineSupervisor
from proctor.server.errors import BadRequest, Forbidden
from proctor.server.generation.base import Admission, RoutingResult
from proctor.server.generation.context import ANONYMOUS
from proctor.server.generation.resolution import PROMPT, Resolution
from proctor.server.schemas.completions import DEFAULT_MAX_TOKENS, CompletionRequest
from proctor.server.schemas.generation import ChatRequest
from proctor.server.schemas.responses import Source
from proctor.server.sessions.limits import UNLIMITED, Allowance
from proctor.server.turns.history import History, RecordVerifier

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ChatSpec:
    """A chat request whose tier is known, before it is rendered for a model.

    Attributes:
        name: a request id, unique during the lifetime of the engine.
        request: the request, with the thinking that only records carry.
        history: the thinking in its history.
        continuing: whether the answer continues the last message.
        budget_request: its budget fields.
        routing: the router's result, or None.
        resolution: its budget, before the limits of a model and of its turn.
        key: its API key, or None.
        allowance: what it may use of the limits of its session.
    """

    name: str
    request: ChatRequest
    history: History
    continuing: bool
    budget_request: BudgetRequest
    routing: RoutingResult | None
    resolution: Resolution
    key: Key | None
    allowance: Allowance


class AdmissionController:
    """Admits or rejects requests."""

    def __init__(
        self,
        settings: Settings,
        router: Router,
        record_verifier: RecordVerifier,
        further: Mapping[str, EngineSupervisor] | None = None,
    ) -> None:
        """Initialize the controller.

        Args:
            settings: the settings of the server.
            router: chooses the tier of requests.
            record_verifier: verifies the records in the history of requests.
            further: the engines of `settings.models`, by the names of the models.
        """
        self._settings = settings
        self._further = further or {}
        self._settings_of_models = {name: settings.of_model(name) for name in self._further}
        self._unrouted_default = _without_router(settings)
        self._unrouted = {
            name: _without_router(each) for name, each in self._settings_of_models.items()
        }
        self._router = router
        self._record_verifier = record_verifier
        self._ceilings = operator_ceilings(settings)
        self._binder = Binder()

    async def admit(
        self,
        request: ChatRequest,
        engine: Engine,
        name: str,
        key: Key | None,
        allowance: Allowance = UNLIMITED,
    ) -> Admission:
        """Admit a chat completion and return its jobs.

        The model that a tier names serves the tier. If it cannot, the model that the request names
        does, unless the request has selected the tier.

        Args:
            request: the client's request.
            engine: the engine of the model that it names.
            name: a request id, unique during the lifetime of this engine.
            key: the API key, or None.
            allowance: what the request may use of the limits of its session.

        Raises:
            ApiError: if the request is invalid or not allowed.
            UnsupportedRequest: if the engine does not support it.
            BudgetError: if its budget cannot be enforced.
        """
        chat = await self._choose_budget(request, engine, name, key, allowance)
        tier = chat.resolution.tier
        if tier is not None and tier.model is not None:
            try:
                other = await self._further[tier.model].ready()
                check_other_model(chat.request, tier, self._settings_of(other), key)
                check_length(chat.request, other.model.context_length)
                return await self._admit_chat(chat, other)
            except NOT_SERVED:
                if selects_tier(chat.resolution):
                    raise
        return await self._admit_chat(chat, engine)

    async def _choose_budget(
        self,
        request: ChatRequest,
        engine: Engine,
        name: str,
        key: Key | None,
        allowance: Allowance,
    ) -> ChatSpec:
        settings = self._settings_of(engine)
        check_request(request, engine, settings, key)
        if request.top_logprobs and not request.logprobs:
            raise BadRequest("'top_logprobs' requires 'logprobs': true", param="top_logprobs")
        history = await self._record_verifier.verify(request, _name(key))
        request = history.restore(request)
        check_length(request, engine.model.context_length)
        continuing = continues(request)
        if continuing:
            *before, last = request.messages
            request = request.model_copy(update={"messages": [*before, last.unfinished()]})
        budget_request = read_budget_request(request)
        routing = self._router.classify(request) if uses_router(budget_request, settings) else None
        level = None if routing is None else routing.level
        ceilings = self._ceilings_for(key, settings)
        resolution = resolve(budget_request, settings, level, ceilings)
        return ChatSpec(
            name,
            request,
            history,
            continuing,
            budget_request,
            routing,
            resolution,
            key,
            allowance,
        )

    async def _admit_chat(self, chat: ChatSpec, engine: Engine) -> Admission:
        """Admit a chat completion to the model that shall serve it."""
        settings, request = self._settings_of(engine), chat.request
        binding = await self._binder.bind(request, engine)
        turn = await chat.history.resume(request.messages, engine.codec)
        resolution = applicable(
            chat.resolution, request, settings, has_tools=binding.tools is not None
        ).minus_spent(turn.spent)
        share = SessionShare(chat.allowance, resolution.label, request.n or 1, settings)
        share.check()
        resolution = share.cap_thinking(resolution)
        prompt = await render(
            request,
            engine,
            thinking=not resolution.budget.disabled,
            continue_final_message=chat.continuing,
        )
        if chat.continuing and not prompt.opened:
            check_unconstrained(binding.constraint)
            resolution = _without_minimum(resolution, chat.budget_request, "messages")
        spec = JobSpec(
            chat.name,
            request,
            resolution,
            prompt,
            "messages",
            _max_tokens(request),
            binding.constraint,
            session_tokens=share.max_tokens(len(prompt.ids), resolution.chains),
            owner=_name(chat.key),
        )
        jobs, clamped_by, reduced_by, parallel = make_jobs(spec, engine, settings)
        check_prompt_logprobs(jobs, "prompt_logprobs")
        await check_job(jobs[0], engine, request)
        clamped = (bool(clamped_by),) * len(jobs)
        return Admission(
            jobs,
            engine,
            resolution,
            chat.routing,
            clamped_by,
            binding.tools,
            binding.call_named,
            clamped,
            choices_per_prompt=len(jobs),
            turn=turn,
            reduced_by=reduced_by,
            max_seconds=share.max_seconds(),
            parallel=parallel,
        )

    async def admit_prompt(
        self,
        request: CompletionRequest,
        engine: Engine,
        name: str,
        key: Key | None,
        allowance: Allowance = UNLIMITED,
    ) -> Admission:
        """Admit a completion of raw prompts and return its jobs.

        Checks all prompts before any reaches the engine. The router, which classifies messages, is
        not used. See `admit` for the arguments.

        Raises:
            ApiError: if the request is invalid or not allowed.
            UnsupportedRequest: if the engine does not support it.
            BudgetError: if its budget cannot be enforced.
        """
        settings = self._unrouted.get(engine.model.name, self._unrouted_default)
        check_request(request, engine, settings, key)
        check_prompts(request, settings)
        budget_request = read_budget_request(request)
        if budget_request.tier is not None and uses_router(budget_request, settings):
            raise BadRequest(
                f"'{budget_request.tier.field}' selects the router, which needs messages: name a "
                "tier instead",
                param=budget_request.tier.field,
            )
        resolution = resolve(budget_request, settings, None, self._ceilings_for(key, settings))
        check_own_model(resolution)
        resolution = applicable(resolution, request, settings, has_tools=False)
        choices = request.n or 1
        share = SessionShare(allowance, resolution.label, choices * len(request.prompts), settings)
        share.check()
        resolution = share.cap_thinking(resolution)
        prompts = await _read_prompts(request, engine)
        prompt_tokens = sum(len(prompt.ids) for prompt in prompts.values())
        session_tokens = share.max_tokens(prompt_tokens, 0 if request.max_tokens == 0 else 1)
        sets: list[JobSet] = []
        for index, (field, prompt) in enumerate(prompts.items()):
            budget = resolution
            if not prompt.opened:
                budget = _without_minimum(resolution, budget_request, field)
            spec = JobSpec(
                name,
                request,
                budget,
                prompt,
                field,
                FieldValue("max_tokens", _max_raw_tokens(request, prompt, engine)),
                first=index * choices,
                session_tokens=session_tokens,
                owner=_name(key),
            )
            sets.append(make_jobs(spec, engine, settings))
            await check_job(sets[-1].jobs[0], engine, request)
        jobs = tuple(job for each in sets for job in each.jobs)
        check_prompt_logprobs(jobs, logprobs_field(request))
        return Admission(
            jobs,
            engine,
            resolution,
            routing=None,
            clamped_by=_union(each.clamped_by for each in sets),
            tools=None,
            call_named=False,
            clamped=tuple(bool(each.clamped_by) for each in sets for _ in each.jobs),
            choices_per_prompt=choices,
            reduced_by=_union(each.reduced_by for each in sets),
            max_seconds=share.max_seconds(),
        )

    def _settings_of(self, engine: Engine) -> Settings:
        """Return the settings of the model of an engine."""
        return self._settings_of_models.get(engine.model.name, self._settings)

    def _ceilings_for(self, key: Key | None, settings: Settings) -> tuple[Ceiling, ...]:
        if key is None:
            return self._ceilings
        tier = key.limits.tier
        if tier is not None and settings.tier(tier) is None:
            raise Forbidden(f"the key's tier limit '{tier}' does not exist on this server")
        return (*self._ceilings, Ceiling("key", key.limits.max_thinking_tokens, tier))


def _without_router(settings: Settings) -> Settings:
    if settings.default_tier != AUTO:
        return settings
    return settings.model_copy(update={"default_tier": CUSTOM})


def _name(key: Key | None) -> str:
    return ANONYMOUS if key is None else key.name


def _without_minimum(
    resolution: Resolution, budget_request: BudgetRequest, field: str
) -> Resolution:
    """Return the budget of a prompt that opens no thinking block, which is not forced open.

    Args:
        resolution: the budget of the request.
        budget_request: the budget fields of the request.
        field: the field of the prompt.

    Raises:
        BadRequest: if the request demands thinking.
    """
    demanding = (budget_request.minimum, budget_request.continuations, budget_request.enabled)
    demands = [each.field for each in demanding if each is not None and each.value]
    budget = resolution.budget
    # A tier that the router chose is not a demand of the request.
    routing = resolution.source is Source.ROUTER
    named = None if routing or resolution.tier is None else resolution.field
    if named is not None and (budget.min_tokens or budget.continuations):
        demands.append(named)
    if demands:
        raise BadRequest(
            f"'{demands[0]}' requires thinking, but '{field}' does not end inside a thinking "
            f"block: open one there, or leave '{demands[0]}' out",
            param=demands[0],
        )
    without_minimum = replace(budget, min_tokens=0, continuations=0)
    return resolution.clamped(PROMPT, without_minimum, resolution.tier)


def _max_raw_tokens(request: CompletionRequest, prompt: Prompt, engine: Engine) -> int:
    """Return the `max_tokens` of a raw completion, or its default.

    OpenAI's default assumes no thinking: the answer reserve would take all of it. A prompt that
    opens a thinking block therefore gets all of the context, as a chat completion does.
    """
    if request.max_tokens is not None:
        return request.max_tokens
    room = engine.model.context_length - len(prompt.ids)
    return room if prompt.opened else min(DEFAULT_MAX_TOKENS, room)


async def _read_prompts(request: CompletionRequest, engine: Engine) -> dict[str, Prompt]:
    """Return the prompts of a raw completion by their fields; see `read_prompt`.

    Raises:
        BadRequest: if one is invalid.
    """
    special = request.add_special_tokens is not False
    return {
        field: await read_prompt(content, field, engine, add_special_tokens=special)
        for field, content in request.prompts
    }


def _union(groups: Iterable[Iterable[T]]) -> tuple[T, ...]:
    """Return the distinct members of several groups, in the order of their first occurrence."""
    return tuple(dict.fromkeys(chain.from_iterable(groups)))


def _max_tokens(request: ChatRequest) -> FieldValue[int] | None:
    """Return the maximum number of tokens of each choice, with its field.

    Raises:
        ConflictingFields: if two fields contradict each other.
    """
    one, other = request.max_completion_tokens, request.max_tokens
    if one is not None and other is not None and one != other:
        raise conflict(FieldValue("max_completion_tokens", one), FieldValue("max_tokens", other))
    if one is not None:
        return FieldValue("max_completion_tokens", one)
    return None if other is None else FieldValue("max_tokens", other)
