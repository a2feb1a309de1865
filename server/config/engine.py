"""Settings of the engine."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    SecretStr,
)

from proctor.server.config.section import Section


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
