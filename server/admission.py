"""From a request to jobs that the engine can be trusted with."""

from dataclasses import dataclass
from typing import TypeVar

from budget import ThinkingBudget, TokenBudget, answer_reserve, thinking_room, tokenize
from server.engines.base import Engine, Job, Prompt, Sampling
from server.errors import BadRequest, ContextTooLong, UnknownModel
from server.schemas import ChatRequest, Thinking
from server.settings import Settings

T = TypeVar("T")

MAX_TOKEN_LENGTH = 64
"""More characters to a token than any real text has; beyond it none is worth tokenizing."""

INT64_SPAN = 2**64
INT64_LEAST = -(2**63)


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that was let in.

    Attributes:
        jobs: one for each choice.
        budget: as asked for, defaults filled in.
        clamped: whether the maximum asked for was over what the context and
            `max_tokens` leave.
    """

    jobs: tuple[Job, ...]
    budget: ThinkingBudget
    clamped: bool

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, which the choices share."""
        return len(self.jobs[0].prompt_ids)

    @property
    def max_thinking_tokens(self) -> int | None:
        """The maximum enforced, or None if no number was asked for."""
        return None if self.budget.max_tokens is None else self.jobs[0].budget.maximum


async def admit(request: ChatRequest, engine: Engine, settings: Settings, name: str) -> Admission:
    """Check a request against the model and the limits, and make its jobs.

    Args:
        request: what the client sent.
        engine: whose model, template and tokenizer it is for.
        settings: defaults and limits.
        name: unique among the requests of this engine's lifetime.

    Raises:
        ApiError: if the request cannot be served.
        BudgetError: if its budget cannot be enforced.
    """
    if request.model != engine.model.name:
        raise UnknownModel(
            f"there is no model '{request.model}': this server has '{engine.model.name}'",
            param="model",
        )
    if (request.n or 1) > settings.limits.max_choices:
        raise BadRequest(f"'n' can be at most {settings.limits.max_choices}", param="n")
    if request.stream_options is not None and not request.stream:
        raise BadRequest("'stream_options' needs 'stream': true", param="stream_options")
    budget = asked_budget(request, settings.budget.to_budget())
    prompt = await _render(request, engine, thinking=not budget.disabled)
    max_tokens = _max_tokens(request, prompt, engine.model.context_length)
    enforced = _token_budget(budget, prompt, max_tokens, engine, settings)
    jobs = tuple(
        Job(f"{name}-{index}", prompt.ids, _sampling(request, max_tokens, index), enforced)
        for index in range(request.n or 1)
    )
    return Admission(jobs, budget, _is_clamped(budget, enforced))


def asked_budget(request: ChatRequest, default: ThinkingBudget) -> ThinkingBudget:
    """The budget that a request asks for, over the server's default.

    Raises:
        BadRequest: if two fields contradict each other; both are named.
        BudgetError: if the budget makes no sense.
    """
    thinking = request.thinking or Thinking()
    maximum = _agreed(
        ("max_thinking_tokens", request.max_thinking_tokens),
        ("thinking.budget_tokens", thinking.budget_tokens),
    )
    minimum = _agreed(
        ("min_thinking_tokens", request.min_thinking_tokens),
        ("thinking.min_tokens", thinking.min_tokens),
    )
    _check_type(thinking, maximum, minimum)
    cap = _cap(thinking, maximum, default)
    texts = thinking.continuation_text
    return ThinkingBudget(
        min_tokens=_at_most(cap, default.min_tokens) if minimum is None else minimum,
        max_tokens=cap,
        continuations=_continuations(thinking, cap, default),
        continuation_texts=default.continuation_texts if texts is None else tuple(texts),
        wrap_up_text=_or(default.wrap_up_text, thinking.wrap_up_text),
        on_loop=_or(default.on_loop, thinking.on_loop),
        landing=_or(default.landing, thinking.landing),
    )


def _or(default: T, asked: T | None) -> T:
    return default if asked is None else asked


def _cap(thinking: Thinking, maximum: int | None, default: ThinkingBudget) -> int | None:
    if thinking.type == "disabled":
        return 0
    if maximum is not None:
        return None if maximum == -1 else maximum
    if thinking.type == "enabled" and default.disabled:
        return None
    return default.max_tokens


def _continuations(thinking: Thinking, cap: int | None, default: ThinkingBudget) -> int:
    if thinking.continuations is not None:
        return thinking.continuations
    return 0 if cap == 0 else default.continuations


def _at_most(cap: int | None, number: int) -> int:
    return number if cap is None else min(cap, number)


def _check_type(thinking: Thinking, maximum: int | None, minimum: int | None) -> None:
    """Refuse a `thinking.type` that the numbers contradict."""
    if thinking.type == "disabled":
        wanted = {
            "max_thinking_tokens": maximum,
            "min_thinking_tokens": minimum,
            "thinking.continuations": thinking.continuations,
        }
        for name, number in wanted.items():
            if number:
                raise BadRequest(
                    f"'thinking.type' is disabled, but '{name}' is {number}: leave one of them out",
                    param=name,
                )
    if thinking.type == "enabled" and maximum == 0:
        raise BadRequest(
            "'thinking.type' is enabled, but 'max_thinking_tokens' is 0: leave one of them out",
            param="max_thinking_tokens",
        )


def _agreed(*given: tuple[str, int | None]) -> int | None:
    """The one number that fields of the same meaning give."""
    named = [(name, number) for name, number in given if number is not None]
    if len({number for _, number in named}) > 1:
        (first, one), (second, other) = named
        raise BadRequest(
            f"'{first}' is {one}, but '{second}' is {other}: leave one of them out", param=first
        )
    return named[0][1] if named else None


async def _render(request: ChatRequest, engine: Engine, *, thinking: bool) -> Prompt:
    messages = [message.to_plain() for message in request.messages]
    context = engine.model.context_length
    if sum(len(message["content"]) for message in messages) > context * MAX_TOKEN_LENGTH:
        raise ContextTooLong(
            f"the messages are far longer than the context of {context} tokens: send shorter ones",
            param="messages",
        )
    try:
        return await engine.codec.render(messages, thinking=thinking)
    except ValueError as error:
        raise BadRequest(
            f"the model's chat template refuses these messages: {error}", param="messages"
        ) from error


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
    asked = _agreed(
        ("max_completion_tokens", request.max_completion_tokens),
        ("max_tokens", request.max_tokens),
    )
    if asked is not None and asked > left:
        name = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
        raise ContextTooLong(
            f"'{name}' is {asked}, but the context of {context} tokens has {left} left after the "
            f"messages: ask for {left} or fewer",
            param=name,
        )
    return left if asked is None else asked


def _token_budget(
    budget: ThinkingBudget, prompt: Prompt, max_tokens: int, engine: Engine, settings: Settings
) -> TokenBudget:
    reserve = answer_reserve(max_tokens, **settings.answer_reserve.model_dump())
    markers = engine.model.markers
    return tokenize(
        budget,
        encode=engine.codec.encode,
        markers=markers,
        opened=prompt.opened,
        room=thinking_room(max_tokens, reserve, markers, prompt.opened),
    )


def _is_clamped(budget: ThinkingBudget, enforced: TokenBudget) -> bool:
    return budget.max_tokens is not None and budget.max_tokens != enforced.maximum


def _sampling(request: ChatRequest, max_tokens: int, index: int) -> Sampling:
    """How to sample one choice; each has a seed of its own, kept within 64 bits signed."""
    seed = request.seed
    if seed is not None:
        seed = (seed + index - INT64_LEAST) % INT64_SPAN + INT64_LEAST
    return Sampling(max_tokens, request.temperature, request.top_p, seed)
