"""What an operator can set: flags over `PROCTOR_*` environment over `proctor.toml`."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from budget import BudgetError, Landing, OnLoop, ThinkingBudget
from server.schemas import ReasoningFormat

DEFAULT_CONFIG = Path("proctor.toml")
DEMO = Path(__file__).resolve().parent.parent / "demo"


class BadSettings(ValueError):
    """A setting that cannot be used; the message names it."""


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
        heartbeat_seconds: between two comments in a stream; 0 sends none.
        shutdown_grace_seconds: for running answers, once the server was told to stop.
    """

    max_body_bytes: Annotated[int, Field(ge=1)] = 4 * 2**20
    max_choices: Annotated[int, Field(ge=1)] = 16
    heartbeat_seconds: Annotated[float, Field(ge=0)] = 10.0
    shutdown_grace_seconds: Annotated[int, Field(ge=0)] = 30


def _texts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class DefaultBudget(Section):
    """The budget of a request that does not set its own."""

    min_tokens: int = 0
    max_tokens: Annotated[int, Field(ge=-1)] = -1
    continuations: int = 0
    continuation_text: Annotated[tuple[str, ...], BeforeValidator(_texts)] = ("Wait",)
    wrap_up_text: str = ""
    on_loop: OnLoop = OnLoop.CLOSE
    landing: Landing = Landing.SENTENCE

    @model_validator(mode="after")
    def _is_a_budget(self) -> "DefaultBudget":
        try:
            self.to_budget()
        except BudgetError as error:
            raise ValueError(str(error)) from error
        return self

    def to_budget(self) -> ThinkingBudget:
        """The budget itself."""
        return ThinkingBudget(
            min_tokens=self.min_tokens,
            max_tokens=None if self.max_tokens == -1 else self.max_tokens,
            continuations=self.continuations,
            continuation_texts=self.continuation_text,
            wrap_up_text=self.wrap_up_text,
            on_loop=self.on_loop,
            landing=self.landing,
        )


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


class Settings(BaseSettings):
    """Everything that can be set; read once, by `load_settings`.

    Attributes:
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        model: a path or a Hugging Face name; None is the demo model.
        served_model_name: what clients call the model; None is `model` itself.
        engine: vLLM's engine arguments, passed on unchanged; or, with a `kind`
            of "completions", a `CompletionsServer`.
        reasoning_parser: vLLM's reasoning parser to take the thinking markers
            from; None finds them in the chat template.
        thinking_start: the start marker's text, over any parser's.
        thinking_end: the end marker's text, over any parser's.
        reasoning_format: where responses carry the thinking, unless a request says.
    """

    model_config = SettingsConfigDict(
        env_prefix="PROCTOR_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    model: Annotated[str, Field(min_length=1)] | None = None
    served_model_name: Annotated[str, Field(min_length=1)] | None = None
    engine: dict[str, Any] = {}
    reasoning_parser: str | None = None
    thinking_start: Annotated[str, Field(min_length=1)] | None = None
    thinking_end: Annotated[str, Field(min_length=1)] | None = None
    reasoning_format: ReasoningFormat = ReasoningFormat.REASONING_CONTENT
    answer_reserve: AnswerReserve = AnswerReserve()
    budget: DefaultBudget = DefaultBudget()
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _both_markers(self) -> "Settings":
        if (self.thinking_start is None) != (self.thinking_end is None):
            raise ValueError("thinking_start and thinking_end must be set together")
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
    """Read the settings.

    Args:
        flags: what the command line set.
        config: the TOML file; None is `PROCTOR_CONFIG`, or else
            `./proctor.toml` if there is one.

    Raises:
        BadSettings: if a value is wrong or the file cannot be read; the
            message names it on one line each.
    """
    tables = [_read_toml(path) for path in _config_files(config)]
    settings = _merge(flags, tables)
    if settings.model is None and (demo := DEMO / "proctor.toml").exists():
        return _merge(flags, [*tables, _read_toml(demo)])
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
        raise BadSettings(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise BadSettings(f"{path}: {error}") from error


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
        raise BadSettings("\n".join(map(_readable, error.errors()))) from error
    except SettingsError as error:
        raise BadSettings(str(error)) from error


def _readable(error: Any, *within: str) -> str:
    name = ".".join(map(str, (*within, *error["loc"])))
    message = error["msg"].removeprefix("Value error, ")
    return f"{name}: {message}" if name else message
