"""What an operator can set: flags over `PROCTOR_*` environment over `proctor.toml`."""

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
    Tier,
)
from proctor.server.config.engine import CompletionsServer, GrammarSettings
from proctor.server.config.ledger import LedgerSettings
from proctor.server.config.limits import MAX_NAME, AnswerReserve, Limits
from proctor.server.config.page import Page
from proctor.server.config.paths import state_folder
from proctor.server.config.prices import ComputePrice, Prices
from proctor.server.config.reasoning_format import ReasoningFormat
from proctor.server.config.tracing import TracingSettings

logger = logging.getLogger(__name__)

DEFAULT_CONFIG = Path("proctor.toml")
DEMO = Path(__file__).resolve().parents[2] / "demo"


ModelName = Annotated[
    str, Field(max_length=MAX_NAME, pattern=r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*\S)?$")
]
"""A name that a request can give: printable, and without spaces around it."""


class ConfigError(ValueError):
    """A setting that cannot be used; the message names it."""


class Settings(BaseSettings):
    """Everything that can be set; read once, by `load_settings`.

    Attributes:
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        model: a path or a Hugging Face name; None is the demo model.
        served_model_name: what clients call the model; None is `model` itself.
        aliases: other names that clients may call it by.
        engine: vLLM's engine arguments, passed on unchanged; or, with a `kind`
            of "completions", a `CompletionsServer`.
        reasoning_parser: vLLM's reasoning parser to take the thinking markers
            from; None finds them in the chat template.
        tool_call_parser: vLLM's name of how the model writes tool calls; None
            refuses tools.
        thinking_start: the start marker's text, over any parser's.
        thinking_end: the end marker's text, over any parser's.
        reasoning_format: where responses carry the thinking, unless a request says.
        event_names: whether the events of streams have names, unless a request says.
        budget: of requests that are of no tier.
        tiers: the named budgets, from least to most.
        efforts: the tier of each `reasoning_effort`.
        default_tier: of a request that says nothing about its thinking: "auto"
            lets the router choose, "custom" takes `budget`.
        prices: None where they are not known.
        compute: what costs are worked out from instead of `prices`.
        machine: the old name of `compute`; deprecated.
        auth: who is let in.
        keys: those that are let in, beside the database's.
    """

    model_config = SettingsConfigDict(
        env_prefix="PROCTOR_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
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

    @model_validator(mode="before")
    @classmethod
    def _machine_is_called_compute_now(cls, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("machine") is None:
            return given
        logger.warning("[machine] is deprecated, use [compute]")
        return {"compute": given["machine"], **given, "machine": None}

    @model_validator(mode="after")
    def _names_differ(self) -> "Settings":
        names = [self.model_name, *self.aliases]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"aliases: the model is called '{name}' twice")
        return self

    @model_validator(mode="after")
    def _both_markers(self) -> "Settings":
        if (self.thinking_start is None) != (self.thinking_end is None):
            raise ValueError("thinking_start and thinking_end must be set together")
        return self

    @model_validator(mode="after")
    def _one_way_to_price(self) -> "Settings":
        if self.prices is not None and self.compute is not None:
            raise ValueError("prices and compute: set one of them, tokens have one price")
        return self

    @model_validator(mode="after")
    def _tiers_are_in_order(self) -> "Settings":
        names = [tier.name for tier in self.tiers]
        if len({*names}) < len(names):
            raise ValueError(f"tiers: two have one name, of {', '.join(names)}")
        for less, more in pairwise(self.tiers):
            if less.cap > more.cap:
                raise ValueError(
                    f"tiers: '{less.name}' may think more than '{more.name}': "
                    "list them from least to most"
                )
        for tier in self.tiers:
            if tier.max_price is not None and self.prices is None:
                raise ValueError(f"tiers: '{tier.name}' has a max_price, so [prices] must be set")
        return self

    @model_validator(mode="after")
    def _tiers_that_are_named_exist(self) -> "Settings":
        named = {f"efforts.{effort}": name for effort, name in self.efforts}
        named |= {f"router.levels.{level}": name for level, name in self.router.levels}
        if self.default_tier not in (AUTO, CUSTOM):
            named["default_tier"] = self.default_tier
        if self.ceilings.tier is not None:
            named["ceilings.tier"] = self.ceilings.tier
        named |= {f"keys.{key.name}.tier": key.tier for key in self.keys if key.tier is not None}
        known = [tier.name for tier in self.tiers]
        for setting, name in named.items():
            if name not in known:
                raise ValueError(f"{setting}: there is no tier '{name}', only {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _completions_server_is_whole(self) -> "Settings":
        try:
            server = self.completions_server
        except ValidationError as error:
            wrong = [_readable(part, "engine") for part in error.errors()]
            raise ValueError("; ".join(wrong)) from error
        if server is not None and self.model is None:
            raise ValueError("model must be set: its tokenizer is needed beside engine.base_url")
        return self

    @model_validator(mode="after")
    def _keys_can_be_held_to_their_limits(self) -> "Settings":
        names = [key.name for key in self.keys]
        for key in self.keys:
            if names.count(key.name) > 1:
                raise ValueError(f"keys: two have the name '{key.name}'")
            if key.counted and not self.ledger.url.get_secret_value():
                raise ValueError(f"keys: the limits of '{key.name}' need a ledger (ledger.url)")
            if key.spending and not self.priced:
                raise ValueError(f"keys: what '{key.name}' may spend needs [prices] or [compute]")
        return self

    def tier(self, name: str) -> Tier | None:
        """The tier of that name, if there is one."""
        return next((tier for tier in self.tiers if tier.name == name), None)

    @property
    def asks_for_keys(self) -> bool:
        """Whether a request must come with a key."""
        if self.auth.required is not None:
            return self.auth.required
        return bool(self.keys) or not self.listens_here_alone

    @property
    def listens_here_alone(self) -> bool:
        """Whether nothing but this machine can reach the server."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def priced(self) -> bool:
        """Whether costs are known."""
        return self.prices is not None or self.compute is not None

    @property
    def currency(self) -> str:
        """The unit of all costs, if there are any."""
        price = self.prices or self.compute
        return "USD" if price is None else price.currency

    @property
    def completions_server(self) -> CompletionsServer | None:
        """The server elsewhere that generates, or None for the engine in this process."""
        return CompletionsServer(**self.engine) if "kind" in self.engine else None

    @property
    def model_path(self) -> str:
        """Where the model is: a path or a Hugging Face name."""
        return self.model or str(DEMO / "model")

    @property
    def model_name(self) -> str:
        """What clients call the model."""
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
        """Read flags and environment only; `load_settings` adds the file."""
        return init_settings, env_settings


def load_settings(flags: Mapping[str, Any], config: Path | None = None) -> Settings:
    """Read the settings; a ledger is kept unless they say otherwise.

    Args:
        flags: what the command line set.
        config: the TOML file; None is `PROCTOR_CONFIG`, or else
            `./proctor.toml` if there is one.

    Raises:
        BadSettings: if a value is wrong or the file cannot be read; the
            message names it on one line each.
    """
    tables = [_read_toml(path) for path in _config_files(config)]
    fallback = {"ledger": {"url": f"sqlite:///{state_folder() / 'ledger.db'}"}}
    settings = _merge(flags, [*tables, fallback])
    if settings.model is None and (demo := DEMO / "proctor.toml").exists():
        return _merge(flags, [*tables, _read_toml(demo), fallback])
    return settings


def _config_files(config: Path | None) -> list[Path]:
    if config is None and (named := os.environ.get("PROCTOR_CONFIG")):
        config = Path(named)
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
        return Layered(**flags)
    except ValidationError as error:
        raise ConfigError("\n".join(map(_readable, error.errors()))) from error
    except SettingsError as error:
        raise ConfigError(str(error)) from error


def _readable(error: Any, *within: str) -> str:
    name = ".".join(map(str, (*within, *error["loc"])))
    message = error["msg"].removeprefix("Value error, ")
    return f"{name}: {message}" if name else message
