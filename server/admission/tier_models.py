"""Tiers that another model serves than the one that a request names."""

from proctor.budget import BudgetError
from proctor.server.auth.api_key import Key
from proctor.server.config.budgets import Tier
from proctor.server.config.settings import Settings
from proctor.server.errors import (
    BadRequest,
    EngineUnavailable,
    Forbidden,
    Unavailable,
    UnsupportedRequest,
)
from proctor.server.generation.resolution import Resolution
from proctor.server.schemas.generation import ChatRequest
from proctor.server.schemas.responses import Source

NOT_SERVED = (
    BadRequest,
    BudgetError,
    EngineUnavailable,
    Forbidden,
    Unavailable,
    UnsupportedRequest,
)
"""Why the model of a tier does not serve a request. If the request has not selected the tier, the
model that it names serves it instead."""


def selects_tier(resolution: Resolution) -> bool:
    """Return whether the request itself selects its tier, by name or by an effort."""
    return resolution.source in (Source.EXPLICIT, Source.EFFORT)


def check_other_model(
    request: ChatRequest, tier: Tier, settings: Settings, key: Key | None
) -> None:
    """Check that another model than the one that a request names may serve it.

    Args:
        request: the request.
        tier: its tier, which the other model serves.
        settings: the settings of the other model.
        key: its API key, or None.

    Raises:
        BadRequest: if the request depends on the token IDs of the model that it names.
        Forbidden: if the key does not allow the other model.
    """
    other = settings.model_name
    allowed = () if key is None else key.limits.models
    if allowed and not {*allowed} & {other, *settings.aliases}:
        raise Forbidden(
            f"this key only allows the models {', '.join(allowed)}, but the tier '{tier.name}' is "
            f"served by the model '{other}'",
            param="model",
        )
    if request.logit_bias:
        raise BadRequest(
            f"'logit_bias' has token IDs, which differ between models, and the tier '{tier.name}' "
            f"is served by the model '{other}': request that model, or leave 'logit_bias' out",
            param="logit_bias",
        )


def check_own_model(resolution: Resolution) -> None:
    """Check that the model that a request of raw prompts names may serve it.

    Raises:
        BadRequest: if the request selects a tier that another model serves.
    """
    tier = resolution.tier
    if tier is None or tier.model is None or not selects_tier(resolution):
        return
    raise BadRequest(
        f"'{resolution.field}' selects the tier '{tier.name}', which is served by the model "
        f"'{tier.model}', but raw prompts are written for one model: request that model, or "
        "select another tier",
        param=resolution.field,
    )
