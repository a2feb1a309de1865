"""Admission control: validates a request against the model and all limits, and makes its jobs."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import TypeVar

from proctor.server.admission.answer_binding import Binder
from proctor.server.admission.budget_request import (
    BudgetRequest,
    FieldValue,
    conflict,
    read_budget_request,
)
from proctor.server.admission.budget_resolution import Ceiling, ceilings, resolve, uses_router
from proctor.server.admission.jobs import JobSet, JobSpec, make_jobs
from proctor.server.admission.model_names import check_model
from proctor.server.admission.prompt import check_length, read_prompt, render
from proctor.server.admission.routing import Router
from proctor.server.admission.session_share import SessionShare
from proctor.server.auth.api_key import Key
from proctor.server.config.budgets import AUTO, CUSTOM
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine, Job, Prompt
from proctor.server.engines.tool_calls import Constraint
from proctor.server.errors import BadRequest, Forbidden, UnsupportedRequest
from proctor.server.generation.base import Admission
from proctor.server.generation.context import ANONYMOUS
from proctor.server.generation.resolution import PROMPT, Resolution
from proctor.server.schemas.completions import DEFAULT_MAX_TOKENS, CompletionRequest
from proctor.server.schemas.generation import ChatRequest, Generation
from proctor.server.schemas.responses import Source
from proctor.server.sessions.limits import UNLIMITED, Allowance
from proctor.server.turns.history import RecordVerifier

T = TypeVar("T")

MAX_PROMPT_LOGPROBS = 2**17
"""Maximum number of prompt log probabilities in one response."""


class AdmissionController:
    """Admits or rejects requests."""

    def __init__(self, settings: Settings, router: Router, record_verifier: RecordVerifier) -> None:
        self._settings = settings
        self._unrouted = settings
        if settings.default_tier == AUTO:
            self._unrouted = settings.model_copy(update={"default_tier": CUSTOM})
        self._router = router
        self._record_verifier = record_verifier
        self._ceilings = ceilings(settings)
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

        Args:
            request: the client's request.
            engine: the engine that it is for.
            name: a request id, unique during the lifetime of this engine.
            key: the API key, or None.
            allowance: what the request may use of the limits of its session.

        Raises:
            ApiError: if the request is invalid or not allowed.
            UnsupportedRequest: if the engine does not support it.
            BudgetError: if its budget cannot be enforced.
        """
        settings = self._settings
        _check(request, engine, settings, key)
        if request.top_logprobs and not request.logprobs:
            raise BadRequest("'top_logprobs' requires 'logprobs': true", param="top_logprobs")
        history = await self._record_verifier.verify(request, _name(key))
        request = history.restore(request)
        check_length(request, engine.model.context_length)
        continuing = _continues(request)
        if continuing:
            *before, last = request.messages
            request = request.model_copy(update={"messages": [*before, last.unfinished()]})
        budget_request = read_budget_request(request)
        binding = await self._binder.bind(request, engine)
        routing = self._router.classify(request) if uses_router(budget_request, settings) else None
        level = None if routing is None else routing.level
        resolution = resolve(budget_request, settings, level, self._ceilings_for(key))
        turn = await history.resume(request.messages, engine.codec)
        resolution = resolution.minus_spent(turn.spent)
        share = SessionShare(allowance, resolution.label, request.n or 1, settings)
        share.check()
        resolution = share.cap_thinking(resolution)
        prompt = await render(
            request,
            engine,
            thinking=not resolution.budget.disabled,
            continue_final_message=continuing,
        )
        if continuing and not prompt.opened:
            _check_unconstrained(binding.constraint)
            resolution = _without_minimum(resolution, budget_request, "messages")
        spec = JobSpec(
            name,
            request,
            resolution,
            prompt,
            "messages",
            _max_tokens(request),
            binding.constraint,
            session_tokens=share.max_tokens(len(prompt.ids), 1),
            owner=_name(key),
        )
        jobs, clamped_by, reduced_by = make_jobs(spec, engine, settings)
        _check_prompt_logprobs(jobs, "prompt_logprobs")
        await _check_job(jobs[0], engine, request)
        clamped = (bool(clamped_by),) * len(jobs)
        return Admission(
            jobs,
            resolution,
            routing,
            clamped_by,
            binding.tools,
            binding.call_named,
            clamped,
            choices_per_prompt=len(jobs),
            turn=turn,
            reduced_by=reduced_by,
            max_seconds=share.max_seconds(),
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
        settings = self._unrouted
        _check(request, engine, settings, key)
        _check_prompts(request, settings)
        budget_request = read_budget_request(request)
        if budget_request.tier is not None and uses_router(budget_request, settings):
            raise BadRequest(
                f"'{budget_request.tier.field}' selects the router, which needs messages: name a "
                "tier instead",
                param=budget_request.tier.field,
            )
        resolution = resolve(budget_request, settings, None, self._ceilings_for(key))
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
            await _check_job(sets[-1].jobs[0], engine, request)
        jobs = tuple(job for each in sets for job in each.jobs)
        _check_prompt_logprobs(jobs, _logprobs_field(request))
        return Admission(
            jobs,
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

    def _ceilings_for(self, key: Key | None) -> tuple[Ceiling, ...]:
        if key is None:
            return self._ceilings
        tier = key.limits.tier
        if tier is not None and self._settings.tier(tier) is None:
            raise Forbidden(f"the key's tier limit '{tier}' does not exist on this server")
        return (*self._ceilings, Ceiling("key", key.limits.max_thinking_tokens, tier))


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


def _check(request: Generation, engine: Engine, settings: Settings, key: Key | None) -> None:
    model = engine.model.name if request.model is None else request.model
    check_model(model, engine.model, settings.aliases, param="model")
    models = () if key is None else key.limits.models
    if models and model not in models:
        raise Forbidden(f"this key only allows the models {', '.join(models)}", param="model")
    if (request.n or 1) > settings.limits.max_choices:
        raise BadRequest(f"'n' must be at most {settings.limits.max_choices}", param="n")
    if request.stream_options is not None and not request.stream:
        raise BadRequest("'stream_options' requires 'stream': true", param="stream_options")
    if request.prompt_logprobs is not None and request.stream:
        raise BadRequest(
            "'prompt_logprobs' is not supported with 'stream': true", param="prompt_logprobs"
        )


def _check_prompts(request: CompletionRequest, settings: Settings) -> None:
    choices, maximum = len(request.prompts) * (request.n or 1), settings.limits.max_choices
    if choices > maximum:
        raise BadRequest(
            f"'prompt' has too many prompts: with 'n' for each they make {choices} choices, and "
            f"at most {maximum} are allowed",
            param="prompt",
        )
    if request.max_tokens == 0 and not (request.echo or request.prompt_logprobs is not None):
        raise BadRequest(
            "'max_tokens' must be at least 1, unless 'echo' or 'prompt_logprobs' is set",
            param="max_tokens",
        )


def _continues(request: ChatRequest) -> bool:
    """Return whether the answer continues the last message.

    Raises:
        BadRequest: if that contradicts another field, or the last message cannot be continued.
    """
    continues = request.continue_final_message
    add_generation_prompt = request.add_generation_prompt
    if not continues:
        requires_it = {
            "add_generation_prompt": add_generation_prompt is False,
            "echo": bool(request.echo),
        }
        for name, is_set in requires_it.items():
            if is_set:
                value = "true" if getattr(request, name) else "false"
                raise BadRequest(
                    f"'{name}': {value} requires 'continue_final_message': true", param=name
                )
        return False
    if add_generation_prompt:
        raise conflict(
            FieldValue("continue_final_message", True), FieldValue("add_generation_prompt", True)
        )
    index, last = len(request.messages) - 1, request.messages[-1].unfinished()
    reason = None
    if last.role != "assistant":
        reason = f"has the role '{last.role}', not 'assistant'"
    elif last.tool_calls:
        reason = "has tool calls and is therefore complete"
    elif not (last.text or last.thought or request.messages[-1].text):
        reason = "is empty"
    elif not last.text and not index:
        reason = "only has reasoning and no message before it"
    if reason is not None:
        raise BadRequest(
            f"'continue_final_message' cannot continue 'messages[{index}]', which {reason}",
            param="continue_final_message",
        )
    return True


def _check_unconstrained(constraint: Constraint | None) -> None:
    """Check that an answer which the request has begun has no structured output.

    Raises:
        BadRequest: if it has.
    """
    if constraint is not None:
        raise BadRequest(
            f"'{constraint.field}' constrains the whole answer, but 'continue_final_message' "
            "continues one that has begun: leave one of them out",
            param="continue_final_message",
        )


def _check_prompt_logprobs(jobs: Sequence[Job], field: str) -> None:
    """Check that the response has at most `MAX_PROMPT_LOGPROBS` prompt log probabilities.

    Raises:
        BadRequest: if it has more.
    """
    counts = [(job, count) for job in jobs if (count := job.sampling.prompt_logprobs) is not None]
    total = sum(len(job.prompt_ids) * (count + 1) for job, count in counts)
    if total > MAX_PROMPT_LOGPROBS:
        raise BadRequest(
            f"'{field}' must not request more than {MAX_PROMPT_LOGPROBS} log probabilities of "
            f"prompts, but requests {total}: request fewer alternatives or fewer choices",
            param=field,
        )


def _logprobs_field(request: CompletionRequest) -> str:
    return "logprobs" if request.prompt_logprobs is None else "prompt_logprobs"


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


async def _check_job(job: Job, engine: Engine, request: Generation) -> None:
    """Check that the engine supports a job. Errors name the field as the request spells it.

    Raises:
        UnsupportedRequest: if it does not.
        BudgetError: if it cannot enforce the budget.
    """
    try:
        await engine.check(job)
    except UnsupportedRequest as error:
        name = error.param
        if isinstance(request, CompletionRequest):
            name = {"top_logprobs": "logprobs"}.get(name, name)
            name = _logprobs_field(request) if name == "prompt_logprobs" else name
        if name == "min_tokens" and request.ignore_eos:
            name = "ignore_eos"
        if name == error.param:
            raise
        raise UnsupportedRequest(
            name, str(error).replace(f"'{error.param}'", f"'{name}'")
        ) from error


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
