"""The tables of the settings."""

from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from proctor.budget import BudgetError, Landing, OnLoop, ThinkingBudget
from proctor.router import Costs
from proctor.server.engines.processes.stall import Patience

T = TypeVar("T")

AUTO = "auto"
"""In the place of a tier's name: the router chooses."""

CUSTOM = "custom"
"""What metrics and headers call a budget of no tier."""

MIN_REQUEST_SECONDS = 0.01
"""The shortest time that a request can be given: no answer is there sooner, less is a mistake."""


Origin = Annotated[str, Field(pattern=r"^(\*|null|[a-z][a-z0-9+.-]*://[^/\s*]+)$")]


class Section(BaseModel):
    """A table of the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AnswerReserve(Section):
    """How much of `max_tokens` thinking may not use.

    Attributes:
        share: of `max_tokens`.
        at_least: tokens.
        at_most: tokens.
    """

    share: Annotated[float, Field(ge=0, le=1)] = 0.25
    at_least: Annotated[int, Field(ge=0)] = 16
    at_most: Annotated[int, Field(ge=0)] = 512


class Limits(Section):
    """What one request may ask for, and how long things may take.

    Attributes:
        max_body_bytes: largest body.
        max_choices: largest `n`.
        max_running: choices in the engine at a time; those beyond wait in line, by
            turns of those who sent them. The engine's own `max_num_seqs` should be
            no less.
        max_waiting: requests in the line; those beyond are refused with a 429.
        max_request_seconds: longest time for a request, the line included;
            clients may set a shorter one by `x-request-timeout`.
        heartbeat_seconds: between two comments in a stream; 0 sends none.
        send_timeout_seconds: after so long a client that takes nothing of its
            answer is let go.
        shutdown_grace_seconds: for running answers, once the server was told to stop.
        stall_seconds: after so long without a sign of life, an answer or work of its
            processes, the engine is given up and started again.
        busy_stall_seconds: after so long without an answer it is given up even though
            its processes work; longer than its longest step.
    """

    max_body_bytes: Annotated[int, Field(ge=1)] = 4 * 2**20
    max_choices: Annotated[int, Field(ge=1)] = 16
    max_running: Annotated[int, Field(ge=1)] = 256
    max_waiting: Annotated[int, Field(ge=0)] = 1024
    max_request_seconds: Annotated[float, Field(ge=MIN_REQUEST_SECONDS, allow_inf_nan=False)] = (
        3600.0
    )
    heartbeat_seconds: Annotated[float, Field(ge=0)] = 10.0
    send_timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    shutdown_grace_seconds: Annotated[int, Field(ge=0)] = 30
    stall_seconds: Annotated[float, Field(gt=0)] = 8.0
    busy_stall_seconds: Annotated[float, Field(gt=0)] = 300.0

    def to_patience(self) -> Patience:
        """How long the engine may owe an answer."""
        return Patience(self.stall_seconds, self.busy_stall_seconds)


class GrammarSettings(Section):
    """What the grammar of a JSON schema, a pattern or a set of tools may cost.

    Grammars are compiled in processes of their own first, and only those that stay
    within these limits by the engine.

    Attributes:
        seconds: CPU time that one may take to compile.
        memory_mib: memory that one may take meanwhile.
        processes: grammars that take long, compiled at a time; those that do not,
            four times as many.
        max_waiting: that wait for a process, by turns of those who sent them; more
            are refused with a 429.
        cache_mib: of compiled grammars that the engine keeps.
    """

    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20.0
    memory_mib: Annotated[int, Field(ge=16)] = 512
    processes: Annotated[int, Field(ge=1)] = 2
    max_waiting: Annotated[int, Field(ge=0)] = 256
    cache_mib: Annotated[int, Field(ge=1)] = 256


class Cors(Section):
    """Which web pages of other origins may use the server.

    Attributes:
        allow_origins: as a browser writes them, like "https://chat.example.com";
            "*" is every page of the web.
        allow_loopback: pages that the browser's own machine serves.
    """

    allow_origins: tuple[Origin, ...] = ()
    allow_loopback: bool = True


def _texts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
Cap = Annotated[int, Field(ge=-1)]
Million = Annotated[Decimal, Field(ge=0)]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$")]


def _no_cap(max_tokens: int) -> int | None:
    return None if max_tokens == -1 else max_tokens


def either(default: T, given: T | None) -> T:
    """What is given, or else the default."""
    return default if given is None else given


def _checked(make: Callable[[], ThinkingBudget]) -> None:
    try:
        make()
    except BudgetError as error:
        raise ValueError(str(error)) from error


class DefaultBudget(Section):
    """The budget of a request that sets none and is of no tier; tiers take their texts from here.

    Attributes:
        max_tokens: -1 is no cap but the context.
    """

    min_tokens: int = 0
    max_tokens: Cap = -1
    continuations: int = 0
    continuation_text: Texts = ("Wait",)
    wrap_up_text: str = ""
    on_loop: OnLoop = OnLoop.CLOSE
    landing: Landing = Landing.SENTENCE

    @model_validator(mode="after")
    def _is_a_budget(self) -> "DefaultBudget":
        _checked(self.to_budget)
        return self

    def to_budget(self) -> ThinkingBudget:
        """The budget itself."""
        return ThinkingBudget(
            min_tokens=self.min_tokens,
            max_tokens=_no_cap(self.max_tokens),
            continuations=self.continuations,
            continuation_texts=self.continuation_text,
            wrap_up_text=self.wrap_up_text,
            on_loop=self.on_loop,
            landing=self.landing,
        )


class Tier(Section):
    """A named budget; what it leaves out is as under `[budget]`.

    Attributes:
        name: what requests, headers and metrics call it.
        max_tokens: -1 is no cap but the context.
        temperature: for requests that set none.
        top_p: likewise.
        max_price: most that one answer may cost, prompt included; its length is
            cut to what that pays for.
    """

    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9._-]{0,31}$")]
    min_tokens: Annotated[int, Field(ge=0)] = 0
    max_tokens: Cap
    continuations: Annotated[int, Field(ge=0)] = 0
    continuation_text: Texts | None = None
    wrap_up_text: str | None = None
    on_loop: OnLoop | None = None
    landing: Landing | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_price: Annotated[Decimal, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _is_a_budget(self) -> "Tier":
        if self.name in (AUTO, CUSTOM):
            raise ValueError(f"no tier can be called '{self.name}': it has another meaning")
        _checked(lambda: self.to_budget(ThinkingBudget()))
        return self

    @property
    def thinks(self) -> bool:
        """Whether it allows any thinking."""
        return self.max_tokens != 0

    @property
    def cap(self) -> float:
        """Most thinking tokens, infinite without a cap."""
        return float("inf") if self.max_tokens == -1 else self.max_tokens

    def to_cap(self) -> int | None:
        """Most thinking tokens, or None."""
        return _no_cap(self.max_tokens)

    def to_budget(self, default: ThinkingBudget) -> ThinkingBudget:
        """The budget itself, over the server's default."""
        return ThinkingBudget(
            min_tokens=self.min_tokens,
            max_tokens=_no_cap(self.max_tokens),
            continuations=self.continuations,
            continuation_texts=either(default.continuation_texts, self.continuation_text),
            wrap_up_text=either(default.wrap_up_text, self.wrap_up_text),
            on_loop=either(default.on_loop, self.on_loop),
            landing=either(default.landing, self.landing),
        )


DEFAULT_TIERS = (
    Tier(name="none", max_tokens=0),
    Tier(name="low", max_tokens=512),
    Tier(name="medium", max_tokens=2048),
    Tier(name="high", min_tokens=256, max_tokens=8192),
    Tier(name="max", min_tokens=512, max_tokens=32768),
)
"""For a full-size model."""


class TierNames(Section):
    """The names of the tiers that stand for something."""

    def tier_of(self, key: str) -> str:
        """The name of the tier of one of the fields."""
        name: str = getattr(self, key)
        return name


class Efforts(TierNames):
    """The tier of each `reasoning_effort`."""

    none: str = "none"
    minimal: str = "low"
    low: str = "low"
    medium: str = "medium"
    high: str = "high"
    xhigh: str = "max"
    max: str = "max"


class Levels(TierNames):
    """The tier of each of `router.LEVELS`."""

    none: str = "none"
    low: str = "low"
    medium: str = "medium"
    high: str = "high"


class RouterSettings(Section):
    """How prompts are sorted into tiers.

    Attributes:
        classifier: an entry point of the group `proctor.classifiers`.
        levels: the tier of each level of difficulty.
        costs: what it costs to treat a prompt of one level as one of another.
    """

    classifier: Annotated[str, Field(min_length=1)] = "linear"
    levels: Levels = Levels()
    costs: Costs = Costs()


class Ceilings(Section):
    """What no request may go beyond; what asks for more is cut, and told so.

    Attributes:
        max_thinking_tokens: most thinking tokens of a choice.
        tier: the highest tier.
    """

    max_thinking_tokens: Annotated[int, Field(ge=0)] | None = None
    tier: str | None = None


class Page(Section):
    """The page at `/`.

    Attributes:
        examples: prompts to try, such as suit the model.
        remembers: whether a prompt goes with what was said before it, until
            that is switched over on the page.
    """

    examples: tuple[Annotated[str, Field(min_length=1)], ...] = (
        "A bat and a ball cost 1.10 together. The bat costs 1.00 more than the ball. "
        "What does the ball cost?",
        "How many times does the letter r stand in “strawberry”?",
        "Three people need three minutes for three cakes. How long do nine people need for nine?",
        "Prove that the square root of 2 is not a fraction.",
    )
    remembers: bool = True


class Prices(Section):
    """Prices of the model's tokens, per million.

    Attributes:
        currency: their unit.
        prompt: of a prompt's tokens.
        cached_prompt: of those that the engine had in its cache; None is the same price.
        thinking: of generated tokens that are not the answer's.
        answer: of the answer's.
    """

    currency: Currency = "USD"
    prompt: Million
    cached_prompt: Million | None = None
    thinking: Million
    answer: Million

    @model_validator(mode="after")
    def _cache_is_no_dearer(self) -> "Prices":
        if self.cached_prompt is not None and self.cached_prompt > self.prompt:
            raise ValueError("cached_prompt can be no dearer than prompt")
        return self


class MachinePrice(Section):
    """The price of the machine that the model runs on, in the place of prices of tokens.

    Attributes:
        currency: its unit.
        per_hour: of all its GPUs together, for an hour in which they are busy.
    """

    currency: Currency = "USD"
    per_hour: Annotated[Decimal, Field(ge=0)]


class Scope(StrEnum):
    """What a key opens."""

    USER = "user"
    ADMIN = "admin"


class KeyLimits(Section):
    """What requests with one key may do and take; None is as much as there is.

    Attributes:
        max_thinking_tokens: of a choice; what asks for more is cut, and told so.
        tier: the highest tier, likewise.
        models: names of the model by which it may be called; empty is all of them.
        requests_per_minute: in any 60 seconds.
        tokens_per_minute: of prompts and answers in any 60 seconds, counted from
            when a request comes; while it runs, as many as it may take.
        per_day: money from midnight to midnight, UTC.
        per_month: money in a month, UTC.
    """

    max_thinking_tokens: Annotated[int, Field(ge=0)] | None = None
    tier: str | None = None
    models: tuple[str, ...] = ()
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    per_day: Annotated[Decimal, Field(gt=0, lt=10**9)] | None = None
    per_month: Annotated[Decimal, Field(gt=0, lt=10**9)] | None = None

    @property
    def spending(self) -> bool:
        """Whether money is limited."""
        return self.per_day is not None or self.per_month is not None

    @property
    def counted(self) -> bool:
        """Whether what has been taken before decides over what comes next."""
        rates = (self.requests_per_minute, self.tokens_per_minute)
        return self.spending or any(rate is not None for rate in rates)


KeyName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]


class ListedKey(KeyLimits):
    """A key that stands in the settings, as `proctor keys create --print` writes it.

    Attributes:
        name: what the ledger calls it.
        hash: its id and the SHA-256 of it, in hexadecimal.
        scope: what it opens.
    """

    name: KeyName
    hash: Annotated[str, Field(pattern="^[0-9a-f]{8}:[0-9a-f]{64}$")]
    scope: Scope = Scope.USER


class Auth(Section):
    """Who is let in.

    Attributes:
        required: whether a key is asked for; None asks for one if keys are listed
            in the settings, or the address is not of this machine alone.
        admin_port: where the metrics are, for whoever reaches it, and no more on
            the server's own port; None leaves them there, for keys of the scope
            "admin" where keys are asked for.
        admin_host: the address of that port.
    """

    required: bool | None = None
    admin_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    admin_host: str = "127.0.0.1"


class LedgerSettings(Section):
    """The ledger.

    Attributes:
        url: a database, `sqlite:///…` or `postgresql://…`; empty keeps no ledger.
        texts: whether to keep prompts, thinking and answers too.
        replay_hours: that an answer is kept whose request came with an
            `Idempotency-Key`; 0 refuses such requests.
    """

    url: SecretStr = SecretStr("")
    texts: bool = False
    replay_hours: Annotated[float, Field(ge=0, le=24 * 30)] = 24.0


class TracingSettings(Section):
    """Traces of requests, for OpenTelemetry.

    Attributes:
        endpoint: where to send them by OTLP over HTTP, without the `/v1/traces`
            that is added; empty is what `OTEL_EXPORTER_OTLP_ENDPOINT` says, or
            else nowhere.
    """

    endpoint: Annotated[str, Field(pattern="^(https?://.+)?$")] = ""


class CompletionsServer(Section):
    """The engine, when it is a completions server elsewhere (`kind = "completions"`).

    Attributes:
        base_url: as for OpenAI's clients, up to and with `/v1`.
        api_key: the bearer token that it wants; empty is none.
        max_model_len: its context in tokens, for servers that do not say.
    """

    kind: Literal["completions"]
    base_url: Annotated[str, Field(pattern="^https?://.")]
    api_key: SecretStr = SecretStr("")
    max_model_len: Annotated[int, Field(ge=2)] | None = None
