"""Settings of the engine."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from proctor.server.config.section import Section


class GrammarSettings(Section):
    """Limits of grammar compilation, for JSON schemas, patterns and tools.

    Grammars are first compiled in separate processes. The engine compiles only those
    that stay within these limits.

    Attributes:
        seconds: the maximum CPU time for compiling a grammar.
        memory_mib: the maximum memory for compiling a grammar.
        processes: the number of slow grammars that are compiled at a time; for fast
            ones, it is four times as many.
        max_waiting: the maximum number of grammars that wait for a process, round-robin
            over clients. When the queue is full, requests get 429.
        cache_mib: the size of the engine's cache of compiled grammars.
    """

    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20.0
    memory_mib: Annotated[int, Field(ge=16)] = 512
    processes: Annotated[int, Field(ge=1)] = 2
    max_waiting: Annotated[int, Field(ge=0)] = 256
    cache_mib: Annotated[int, Field(ge=1)] = 256


class CompletionsServer(Section):
    """Settings of an external completions server as the engine (`kind = "completions"`).

    Attributes:
        base_url: the base URL, as for OpenAI's clients, including `/v1`.
        api_key: the server's bearer token; empty for none.
        max_model_len: the context length in tokens, for servers that do not report it.
    """

    kind: Literal["completions"]
    base_url: Annotated[str, Field(pattern="^https?://.")]
    api_key: SecretStr = SecretStr("")
    max_model_len: Annotated[int, Field(ge=2)] | None = None


def _check_url(url: str) -> str:
    """Return a URL that has a host, perhaps a port, and nothing else.

    Raises:
        ValueError: if it has not.
    """
    parts = urlsplit(url)
    plain = parts._replace(path=parts.path.removeprefix("/")).geturl()
    if parts.scheme not in ("http", "https") or plain != f"{parts.scheme}://{parts.netloc}":
        raise ValueError("must be a URL without a path, such as http://replicas.example:8000")
    if not parts.hostname or parts.username is not None or parts.port == 0:
        raise ValueError("must have a host, and a port if it is not the protocol's")
    return url


class ReplicaSettings(Section):
    """Settings of replicas as the engine (`kind = "vllm"`): servers started by `proctor replica`.

    Attributes:
        urls: the base URLs, without a path such as `/v1`. Each address that a host name resolves
            to is a replica; names are resolved again every five seconds.
        api_key: the replicas' bearer token; empty for none.
        cache_salt: a secret from which each API key gets a salt of its own for the replicas' prefix
            caches, so that none can find out what others have asked; empty for one cache for all.
        max_model_len: the context length in tokens, for servers that do not report it.
    """

    kind: Literal["vllm"]
    urls: Annotated[list[Annotated[str, AfterValidator(_check_url)]], Field(min_length=1)]
    api_key: SecretStr = SecretStr("")
    cache_salt: SecretStr = SecretStr("")
    max_model_len: Annotated[int, Field(ge=2)] | None = None


REMOTE_ENGINES: dict[str, type[CompletionsServer] | type[ReplicaSettings]] = {
    "completions": CompletionsServer,
    "vllm": ReplicaSettings,
}
"""The settings of engines outside the gateway's process, by `engine.kind`."""
