"""Checks of a request against its model, its API key and the server's limits."""

from collections.abc import Sequence

from proctor.server.admission.budget_request import FieldValue, conflict
from proctor.server.admission.model_names import check_model
from proctor.server.auth.api_key import Key
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine, Job
from proctor.server.engines.tool_calls import Constraint
from proctor.server.errors import BadRequest, Forbidden, UnsupportedRequest
from proctor.server.generation.early_exit.probe import probe_job
from proctor.server.schemas.completions import CompletionRequest
from proctor.server.schemas.generation import ChatRequest, Generation

MAX_PROMPT_LOGPROBS = 2**17
"""Maximum number of prompt log probabilities in one response."""


def check_request(request: Generation, engine: Engine, settings: Settings, key: Key | None) -> None:
    """Check the model that a request names, and what does not depend on its budget and prompt.

    Args:
        request: the request.
        engine: the engine of the model.
        settings: the settings of the model.
        key: the API key, or None.

    Raises:
        UnknownModel: if no model has this name.
        Forbidden: if the key does not allow it.
        BadRequest: if a field is invalid.
    """
    model = engine.model.name if request.model is None else request.model
    check_model(model, engine.model, settings, param="model")
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


def check_prompts(request: CompletionRequest, settings: Settings) -> None:
    """Check the number of the prompts of a raw completion, and of their tokens.

    Raises:
        BadRequest: if it is invalid.
    """
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


def continues(request: ChatRequest) -> bool:
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


def check_unconstrained(constraint: Constraint | None) -> None:
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


def check_prompt_logprobs(jobs: Sequence[Job], field: str) -> None:
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


def logprobs_field(request: CompletionRequest) -> str:
    """Return the field by which a raw completion requests prompt log probabilities."""
    return "logprobs" if request.prompt_logprobs is None else "prompt_logprobs"


async def check_job(job: Job, engine: Engine, request: Generation) -> None:
    """Check that the engine supports a job. Errors name the field as the request spells it.

    Raises:
        UnsupportedRequest: if it does not.
        BudgetError: if it cannot enforce the budget.
    """
    await _check_probe(job, engine)
    try:
        await engine.check(job)
    except UnsupportedRequest as error:
        name = error.param
        if name in ("logprobs", "top_logprobs") and request.requested_logprobs is None:
            raise _unsupported_method(error) from error
        if isinstance(request, CompletionRequest):
            name = {"top_logprobs": "logprobs"}.get(name, name)
            name = logprobs_field(request) if name == "prompt_logprobs" else name
        if name == "min_tokens" and request.ignore_eos:
            name = "ignore_eos"
        if name == error.param:
            raise
        raise UnsupportedRequest(
            name, str(error).replace(f"'{error.param}'", f"'{name}'")
        ) from error


def _unsupported_method(error: UnsupportedRequest) -> UnsupportedRequest:
    """Return the error for a vote that needs log probabilities, which the request does not."""
    field = "thinking.parallel.method"
    return UnsupportedRequest(
        field,
        f"'{field}' is 'confidence', which needs log probabilities of tokens, and this engine does "
        f"not support it ({error}): use 'vote'",
    )


async def _check_probe(job: Job, engine: Engine) -> None:
    """Check that the engine supports the probes of a job, if it may end early.

    Raises:
        UnsupportedRequest: if it does not; the error names the method.
    """
    if job.early_exit is None or not job.probe_allowance:
        return
    try:
        await engine.check(probe_job(job, (), job.early_exit, engine))
    except UnsupportedRequest as error:
        field, method = "thinking.early_exit.method", job.early_exit.method.value
        raise UnsupportedRequest(
            field,
            f"'{field}' is '{method}', which this engine does not support ({error}): use another "
            "method, or 'off'",
        ) from error
