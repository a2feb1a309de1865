"""The coding agents that `proctor launch` knows, and how each is pointed to a server.

All of it is in the agent's environment and arguments: nothing is written into its configuration.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

KEY_VARIABLE = "PROCTOR_API_KEY"
"""The environment variable with the API key, for the launcher and for Codex."""

NO_KEY = "none"
"""The API key for servers that need none: agents refuse to start without one."""

MAX_OUTPUT_TOKENS = 32_000
"""What opencode requests at most; less for models whose context is small."""

OUTPUT_SHARE = 4
"""The context divided by the part of it that opencode requests for an answer."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server, as an agent uses it.

    Attributes:
        url: its base URL.
        model: the name of its model.
        context_length: the context of the model in tokens, or None if it is not known.
        key: the API key, or None.
        headers: the headers of all requests.
    """

    url: str
    model: str
    context_length: int | None
    key: str | None
    headers: Mapping[str, str]

    @property
    def token(self) -> str:
        """The API key, or what stands for it."""
        return self.key or NO_KEY


@dataclass(frozen=True, slots=True)
class Invocation:
    """How an agent is run.

    Attributes:
        arguments: its first arguments.
        environment: the environment variables to set.
        unset: the environment variables to remove.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    unset: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Agent:
    """A coding agent.

    Attributes:
        title: its name.
        program: its command.
        install: the command that installs it.
        invoke: returns how it is run with a server, given the user's environment.
    """

    title: str
    program: str
    install: str
    invoke: Callable[[Target, Mapping[str, str]], Invocation]


def claude_code(target: Target, environment: Mapping[str, str]) -> Invocation:
    """Return how Claude Code is run with a server."""
    own = [f"{name}: {value}" for name, value in target.headers.items()]
    headers = [environment.get("ANTHROPIC_CUSTOM_HEADERS", ""), *own]
    variables = {
        "ANTHROPIC_BASE_URL": target.url,
        "ANTHROPIC_AUTH_TOKEN": target.token,
        "ANTHROPIC_CUSTOM_HEADERS": "\n".join(filter(None, headers)),
        # All of its models are the server's one, those of subagents and small tasks too.
        **dict.fromkeys(
            (
                "ANTHROPIC_MODEL",
                "ANTHROPIC_DEFAULT_OPUS_MODEL",
                "ANTHROPIC_DEFAULT_SONNET_MODEL",
                "ANTHROPIC_DEFAULT_HAIKU_MODEL",
                "ANTHROPIC_DEFAULT_FABLE_MODEL",
                "ANTHROPIC_SMALL_FAST_MODEL",
            ),
            target.model,
        ),
    }
    if target.context_length is not None:
        # It assumes a million tokens otherwise, and would not compact the conversation in time.
        variables["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] = str(target.context_length)
    others = ("ANTHROPIC_API_KEY", "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX")
    return Invocation((), variables, others)


def codex(target: Target, environment: Mapping[str, str]) -> Invocation:
    """Return how Codex is run with a server."""
    provider = {
        "name": "Proctor",
        "base_url": f"{target.url}/v1",
        "wire_api": "responses",
        "env_key": KEY_VARIABLE,
        "http_headers": target.headers,
    }
    overrides: dict[str, Any] = {
        "model": target.model,
        "model_provider": "proctor",
        "model_providers.proctor": provider,
    }
    if target.context_length is not None:
        overrides["model_context_window"] = target.context_length
    options = [f"{name}={_toml(value)}" for name, value in overrides.items()]
    arguments = tuple(part for option in options for part in ("-c", option))
    return Invocation(arguments, {KEY_VARIABLE: target.token})


def opencode(target: Target, environment: Mapping[str, str]) -> Invocation:
    """Return how opencode is run with a server."""
    model: dict[str, Any] = {
        "name": target.model,
        "reasoning": True,
        "tool_call": True,
        # It sends the thinking back, so that it counts for the whole turn.
        "interleaved": {"field": "reasoning_content"},
        # Only headers of the model, spelled like its own `X-Session-Id`, replace that.
        "headers": {name.title(): value for name, value in target.headers.items()},
    }
    if target.context_length is not None:
        output = min(MAX_OUTPUT_TOKENS, target.context_length // OUTPUT_SHARE)
        model["limit"] = {"context": target.context_length, "output": output}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Proctor",
        "options": {"baseURL": f"{target.url}/v1", "apiKey": target.token},
        "models": {target.model: model},
    }
    name = f"proctor/{target.model}"
    config = {"model": name, "small_model": name, "provider": {"proctor": provider}}
    return Invocation((), {"OPENCODE_CONFIG_CONTENT": json.dumps(config)})


AGENTS = {
    "claude": Agent(
        "Claude Code", "claude", "npm install --global @anthropic-ai/claude-code", claude_code
    ),
    "codex": Agent("Codex", "codex", "npm install --global @openai/codex", codex),
    "opencode": Agent("opencode", "opencode", "npm install --global opencode-ai", opencode),
}


def _toml(value: Any) -> str:
    """Return a value as inline TOML, whose strings, numbers and booleans are those of JSON."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(k)} = {_toml(v)}' for k, v in value.items())}}}"
    return json.dumps(value)
