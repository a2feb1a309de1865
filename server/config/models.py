"""Settings of further models behind one gateway."""

from typing import Annotated, Any

from pydantic import Field, field_validator

from proctor.server.config.budgets import DefaultBudget, Tier
from proctor.server.config.limits import ModelName
from proctor.server.config.prices import Prices
from proctor.server.config.section import Section


class ModelSettings(Section):
    """A further model, whose engine is outside the gateway's process.

    All other settings are those of the top level, such as the tier of each effort.

    Attributes:
        name: the name of the model in the API.
        model: a path or a Hugging Face name.
        aliases: further names of the model that requests may use.
        engine: where the model runs: a `CompletionsServer` or `ReplicaSettings`, by
            `kind`.
        reasoning_parser: vLLM's reasoning parser that defines the thinking markers;
            None detects them in the chat template.
        tool_call_parser: vLLM's parser of the model's tool calls; None rejects
            requests with tools.
        thinking_start: the text of the start marker; overrides any parser's.
        thinking_end: the text of the end marker; overrides any parser's.
        budget: the budget of requests without a tier; None for that of the top level.
        tiers: the tiers, by ascending `max_tokens`; None for those of the top level.
        prices: the prices of tokens, or None if they are not known.
    """

    name: ModelName
    model: Annotated[str, Field(min_length=1)]
    aliases: tuple[ModelName, ...] = ()
    engine: dict[str, Any]
    reasoning_parser: str | None = None
    tool_call_parser: Annotated[str, Field(min_length=1)] | None = None
    thinking_start: Annotated[str, Field(min_length=1)] | None = None
    thinking_end: Annotated[str, Field(min_length=1)] | None = None
    budget: DefaultBudget | None = None
    tiers: Annotated[tuple[Tier, ...], Field(min_length=1)] | None = None
    prices: Prices | None = None

    @field_validator("engine")
    @classmethod
    def _is_elsewhere(cls, engine: dict[str, Any]) -> dict[str, Any]:
        if "kind" not in engine:
            raise ValueError(
                "kind must be set: only the model of the top level can have the embedded engine"
            )
        return engine

    @field_validator("tiers")
    @classmethod
    def _only_budgets(cls, tiers: tuple[Tier, ...] | None) -> tuple[Tier, ...] | None:
        for tier in tiers or ():
            if tier.session.limited:
                raise ValueError(
                    f"The session limits of '{tier.name}' hold for all models: set them in the "
                    "tiers of the top level"
                )
            if tier.model is not None:
                raise ValueError(
                    f"'{tier.name}' must not have a model: only tiers of the top level can"
                )
        return tiers

    @property
    def names(self) -> tuple[str, ...]:
        """All names that requests may use."""
        return (self.name, *self.aliases)
