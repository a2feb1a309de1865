"""The settings. Flags override `PROCTOR_*` environment variables, which override `proctor.toml`."""

import logging
import os
import tomllib
from collections.abc import Mapping
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from proctor.server.config.access import Auth, ConfiguredKey, Cors
from proctor.server.config.budgets import (
    AUTO,
    CUSTOM,
    DEFAULT_TIERS,
    Ceilings,
    DefaultBudget,
    Efforts,
    RouterSettings,
    ScorerSettings,
    Tier,
    VoteMethod,
)
from proctor.server.config.engine import (
    REMOTE_ENGINES,
    CompletionsServer,
    GrammarSettings,
    ReplicaSettings,
)
from proctor.server.config.ledger import LedgerSettings
from proctor.server.config.limits import AnswerReserve, Limits, ModelName
from proctor.server.config.models import ModelSettings
from proctor.server.config.page import Page
from proctor.server.config.paths import state_folder
from proctor.server.config.prices import ComputePrice, Prices
from proctor.server.config.section import ConfigError, UsageLimits, coalesce
from proctor.server.config.thinking.reasoning_format import ReasoningFormat
from proctor.server.config.tracing import TracingSettings
from proctor.server.config.unknown_names import describe_unknown, names_at, unknown_variables

logger = logging.getLogger(__name__)

DEFAULT_CONFIG = Path("proctor.toml")
DEMO = Path(__file__).resolve().parents[2] / "demo"


OF_ONE_MODEL = (
    "model",
    "aliases",
    "engine",
    "reasoning_parser",
    "tool_call_parser",
    "thinking_start",
    "thinking_end",
    "prices",
)
"""The settings that each of `models` has for itself."""


class Settings(BaseSettings):
    """All settings, read once by `load_settings`.

    Attributes:
        host: the address to bind to. Binds to 127.0.0.1 by default; a public address
            requires an API key, unless `auth.required` is false.
        port: the port to bind to; 0 selects a free one.
        workers: the number of gateway processes behind the port, for engines outside the
            gateway's process (`engine.kind`). They divide `limits.max_running`,
            `limits.max_waiting` and the processes and the queue of `grammars` among them.
        model: a path or a Hugging Face name; None for the demo model.
        served_model_name: the name of the model in the API; defaults to `model`.
        aliases: further names of the model that requests may use.
        engine: vLLM's engine arguments, passed on unchanged; or, with a `kind`
            of "completions", a `CompletionsServer`; or, with a `kind` of "vllm",
            `ReplicaSettings`.
        reasoning_parser: vLLM's reasoning parser that defines the thinking markers;
            None detects them in the chat template.
        tool_call_parser: vLLM's parser of the model's tool calls; None rejects
            requests with tools.
        thinking_start: the text of the start marker; overrides any parser's.
        thinking_end: the text of the end marker; overrides any parser's.
        reasoning_format: where responses have the thinking, unless the request
            specifies it.
        event_names: whether the events of streams have names, unless the request
            specifies it.
        budget: the budget of requests without a tier.
        tiers: the tiers, by ascending `max_tokens`.
        efforts: the tier of each `reasoning_effort`.
        default_tier: the tier of requests that do not specify a budget; "auto" lets the
            router choose, and "custom" uses `budget`.
        answer_scorer: scores the answers of parallel chains, with `best_by_key`.
        prices: the prices of tokens, or None if they are not known.
        compute: the price of compute time, instead of `prices`.
        machine: the former name of `compute`; deprecated.
        auth: settings of authentication.
        keys: API keys, in addition to those in the database.
        models: further models, with engines outside the gateway's process.
    """

    model_config = SettingsConfigDict(
        env_prefix="PROCTOR_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    workers: Annotated[int, Field(ge=1)] = 1
    model: Annotated[str, Field(min_length=1)] | None = None
    served_model_name: ModelName | None = None
    aliases: tuple[ModelName, ...] = ()
    engine: dict[str, Any] = {}
    reasoning_parser: str | None = None
    tool_call_parser: Annotated[str, Field(min_length=1)] | None = None
    thinking_start: Annotated[str, Field(min_length=1)] | None = None
    thinking_end: Annotated[str, Field(min_length=1)] | None = None
    reasoning_format: ReasoningFormat = ReasoningFormat.REASONING_CONTENT
    event_names: bool = True
    answer_reserve: AnswerReserve = AnswerReserve()
    budget: DefaultBudget = DefaultBudget()
    tiers: Annotated[tuple[Tier, ...], Field(min_length=1)] = DEFAULT_TIERS
    efforts: Efforts = Efforts()
    default_tier: str = AUTO
    router: RouterSettings = RouterSettings()
    ceilings: Ceilings = Ceilings()
    answer_scorer: ScorerSettings = ScorerSettings()
    prices: Prices | None = None
    compute: ComputePrice | None = None
    machine: ComputePrice | None = None
    auth: Auth = Auth()
    keys: tuple[ConfiguredKey, ...] = ()
    ledger: LedgerSettings = LedgerSettings()
    limits: Limits = Limits()
    grammars: GrammarSettings = GrammarSettings()
    tracing: TracingSettings = TracingSettings()
    cors: Cors = Cors()
    page: Page = Page()
    models: tuple[ModelSettings, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _rename_machine(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("machine") is None:
            return values
        logger.warning("[machine] is deprecated; use [compute]")
        return {"compute": values["machine"], **values, "machine": None}

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Settings":
        names = [self.model_name, *self.aliases]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"aliases: Duplicate name '{name}'")
        names += [name for model in self.models for name in model.names]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"models: Duplicate name '{name}'")
        return self

    @model_validator(mode="after")
    def _models_of_tiers_exist(self) -> "Settings":
        known = [model.name for model in self.models]
        for tier in self.tiers:
            if tier.model is not None and tier.model not in known:
                raise ValueError(
                    f"tiers: The model of '{tier.name}' must be the name of one of [[models]], "
                    f"not '{tier.model}'"
                )
        return self

    @model_validator(mode="after")
    def _each_model_is_valid(self) -> "Settings":
        self._check_model()
        for index, model in enumerate(self.models):
            try:
                self.of_model(model.name)._check_model()
            except ValueError as error:
                raise ValueError(f"models.{index} ('{model.name}'): {error}") from error
            if model.prices is not None and model.prices.currency != self.currency:
                raise ValueError(
                    f"models.{index}.prices.currency: Must be {self.currency}, as of all prices"
                )
        return self

    def _check_model(self) -> None:
        """Check the settings that each of `models` has as well."""
        self._check_markers()
        self._check_tiers()
        self._check_tier_names()
        self._check_remote_engine()
        self._check_key_limits()

    def _check_markers(self) -> None:
        if (self.thinking_start is None) != (self.thinking_end is None):
            raise ValueError("thinking_start and thinking_end must be set together")

    @model_validator(mode="after")
    def _has_answers_to_learn_from(self) -> "Settings":
        has_texts = self.ledger.texts and bool(self.ledger.url.get_secret_value())
        if self.router.learn_hours and not has_texts:
            raise ValueError("router.learn_hours requires a ledger with texts (ledger.texts)")
        return self

    @model_validator(mode="after")
    def _one_price_model(self) -> "Settings":
        if self.prices is not None and self.compute is not None:
            raise ValueError("prices and compute are mutually exclusive")
        return self

    def _check_tiers(self) -> None:
        names = [tier.name for tier in self.tiers]
        if len({*names}) < len(names):
            raise ValueError(f"tiers: Names must be unique, got {', '.join(names)}")
        for tier, following in pairwise(self.tiers):
            if tier.cap > following.cap:
                raise ValueError(
                    f"tiers: '{tier.name}' has a larger max_tokens than '{following.name}': "
                    "sort the tiers by ascending max_tokens"
                )
        for tier in self.tiers:
            method = None if tier.parallel is None else tier.parallel.method
            if method is VoteMethod.BEST_BY_KEY and not self.answer_scorer.configured:
                raise ValueError(f"tiers: The parallel.method of '{tier.name}' requires a scorer")
            if tier.parallel is not None and tier.parallel.chains > self.limits.max_choices:
                raise ValueError(
                    f"tiers: '{tier.name}' has more parallel.chains than limits.max_choices "
                    f"({self.limits.max_choices})"
                )
            # A tier of another model is served by this one if the other is not available.
            if tier.max_price is not None and None in (self.prices, self.prices_of(tier)):
                raise ValueError(f"tiers: The max_price of '{tier.name}' requires [prices]")

    def _check_tier_names(self) -> None:
        references = {f"efforts.{effort}": name for effort, name in self.efforts}
        references |= {f"router.levels.{level}": name for level, name in self.router.levels}
        if self.default_tier not in (AUTO, CUSTOM):
            references["default_tier"] = self.default_tier
        if self.ceilings.tier is not None:
            references["ceilings.tier"] = self.ceilings.tier
        references |= {
            f"keys.{key.name}.tier": key.tier for key in self.keys if key.tier is not None
        }
        known = [tier.name for tier in self.tiers]
        for setting, name in references.items():
            if name not in known:
                raise ValueError(f"{setting}: Unknown tier '{name}'; tiers are {', '.join(known)}")

    def _check_remote_engine(self) -> None:
        try:
            remote = self.remote_engine
        except ValidationError as error:
            messages = [_readable(part, "engine") for part in error.errors()]
            raise ValueError("; ".join(messages)) from error
        if remote is not None and self.model is None:
            raise ValueError("model must be set with engine.kind: the gateway needs its tokenizer")

    @model_validator(mode="after")
    def _workers_are_supported(self) -> "Settings":
        if self.workers == 1:
            return self
        if self.embeds_engine:
            raise ValueError(
                "workers: Must be 1 with the embedded engine, which has one gateway. Start one "
                "server per engine, or run the model elsewhere and set engine.kind"
            )
        if self.compute is not None:
            raise ValueError(
                "workers: Must be 1 with [compute], since each worker would charge the time of "
                "the whole engine. Use [prices] instead"
            )
        if self.limits.max_running < self.workers * self.limits.max_choices:
            raise ValueError(
                "workers: limits.max_running is divided among the workers, and must be at least "
                f"{self.workers * self.limits.max_choices}, so that each has room for "
                f"limits.max_choices ({self.limits.max_choices})"
            )
        return self

    def _check_key_limits(self) -> None:
        names = [key.name for key in self.keys]
        for key in self.keys:
            if names.count(key.name) > 1:
                raise ValueError(f"keys: Duplicate name '{key.name}'")
            if key.counted and not self.ledger.url.get_secret_value():
                raise ValueError(f"keys: The limits of '{key.name}' require a ledger (ledger.url)")
            if key.spending and not self.priced:
                raise ValueError(
                    f"keys: The spending limits of '{key.name}' require [prices] or [compute]"
                )

    @model_validator(mode="after")
    def _session_limits_are_enforceable(self) -> "Settings":
        owners: list[tuple[str, UsageLimits]] = [
            *((f"tiers: The session limits of '{tier.name}'", tier.session) for tier in self.tiers),
            *((f"keys: The session limits of '{key.name}'", key.session) for key in self.keys),
        ]
        for owner, limits in owners:
            if limits.limited and not self.ledger.url.get_secret_value():
                raise ValueError(f"{owner} require a ledger (ledger.url)")
            if limits.max_cost is not None and not self.priced:
                raise ValueError(f"{owner} require [prices] or [compute] for max_cost")
        return self

    def of_model(self, name: str) -> "Settings":
        """Return the settings of one of `models`, as those of a server of this model only.

        Keys that do not allow the model are left out.

        Raises:
            KeyError: if there is no such model.
        """
        model = self._model(name)
        keys = [key for key in self.keys if not key.models or {*key.models} & {*model.names}]
        tiers = tuple(tier.model_copy(update={"model": None}) for tier in self.tiers)
        return self.model_copy(
            update={
                **{field: getattr(model, field) for field in OF_ONE_MODEL},
                "served_model_name": model.name,
                "budget": coalesce(self.budget, model.budget),
                "tiers": coalesce(tiers, model.tiers),
                "compute": None,
                "keys": tuple(keys),
                "models": (),
            }
        )

    def prices_of(self, tier: Tier | None) -> Prices | None:
        """Return the prices of the model that serves a tier, or None if they are not known."""
        if tier is None or tier.model is None:
            return self.prices
        return self._model(tier.model).prices

    def default_budget(self, tier: Tier | None) -> DefaultBudget:
        """Return the defaults of what a tier omits: those of the model that serves it."""
        if tier is None or tier.model is None:
            return self.budget
        return coalesce(self.budget, self._model(tier.model).budget)

    def _model(self, name: str) -> ModelSettings:
        for model in self.models:
            if model.name == name:
                return model
        raise KeyError(name)

    def tier(self, name: str) -> Tier | None:
        """Return the tier with this name, or None."""
        return next((tier for tier in self.tiers if tier.name == name), None)

    @property
    def asks_for_keys(self) -> bool:
        """Whether requests must have an API key."""
        if self.auth.required is not None:
            return self.auth.required
        return bool(self.keys) or not self.binds_to_loopback

    @property
    def binds_to_loopback(self) -> bool:
        """Whether the server binds to a loopback address."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def embeds_engine(self) -> bool:
        """Whether the engine runs in the process of the gateway."""
        return "kind" not in self.engine

    @property
    def priced(self) -> bool:
        """Whether prices are set."""
        return self.prices is not None or self.compute is not None

    @property
    def currency(self) -> str:
        """The currency of all costs; USD if no prices are set."""
        prices = (self.prices, self.compute, *(model.prices for model in self.models))
        price = next((each for each in prices if each is not None), None)
        return "USD" if price is None else price.currency

    @property
    def remote_engine(self) -> CompletionsServer | ReplicaSettings | None:
        """The engine outside this process, or None for the embedded engine."""
        if "kind" not in self.engine:
            return None
        kind = self.engine["kind"]
        if kind not in REMOTE_ENGINES:
            kinds = " or ".join(map(repr, REMOTE_ENGINES))
            raise ValueError(f"engine.kind: Must be {kinds}, or absent for the embedded engine")
        return REMOTE_ENGINES[kind](**self.engine)

    @property
    def model_path(self) -> str:
        """The path or Hugging Face name of the model."""
        return self.model or str(DEMO / "model")

    @property
    def model_name(self) -> str:
        """The name of the model in the API."""
        return self.served_model_name or self.model or "proctor-demo"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read flags and environment variables only; `load_settings` adds the file."""
        return init_settings, env_settings


def load_settings(flags: Mapping[str, Any], config: Path | None = None) -> Settings:
    """Read the settings; by default, a ledger is kept in the state folder.

    Args:
        flags: the flags of the command line.
        config: the TOML file; None for `PROCTOR_CONFIG`, or else `./proctor.toml` if it
            exists.

    Raises:
        ConfigError: if a setting is invalid or the file cannot be read; the message
            has one line per setting.
    """
    if unknown := unknown_variables(Settings, os.environ):
        raise ConfigError("\n".join(unknown))
    tables = [_read_toml(path) for path in _config_files(config)]
    fallback = {"ledger": {"url": f"sqlite:///{state_folder() / 'ledger.db'}"}}
    settings = _merge(flags, [*tables, fallback])
    if settings.model is None and (demo := DEMO / "proctor.toml").exists():
        return _merge(flags, [*tables, _read_toml(demo), fallback])
    return settings


def _config_files(config: Path | None) -> list[Path]:
    if config is None and (path := os.environ.get("PROCTOR_CONFIG")):
        config = Path(path)
    if config is not None:
        return [config]
    return [DEFAULT_CONFIG] if DEFAULT_CONFIG.exists() else []


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _merge(flags: Mapping[str, Any], tables: list[dict[str, Any]]) -> Settings:
    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *args: Any, **sources: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            files = (InitSettingsSource(settings_cls, init_kwargs=table) for table in tables)
            return (
                *super().settings_customise_sources(settings_cls, *args, **sources),
                *files,
            )

    try:
        layered = Layered(**flags)
        # Not of the local class, so that they can be sent to the processes of workers.
        return Settings.model_construct(layered.model_fields_set, **dict(iter(layered)))
    except ValidationError as error:
        raise ConfigError("\n".join(map(_readable, error.errors()))) from error
    except SettingsError as error:
        raise ConfigError(str(error)) from error


def _readable(error: Any, *within: str) -> str:
    location: list[str | int] = [*within, *error["loc"]]
    name = ".".join(map(str, location))
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = names_at(Settings, location[:-1])
        message = describe_unknown("setting", str(location[-1]), known)
    return f"{name}: {message}" if name else message
