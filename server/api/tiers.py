"""`GET /v1/tiers`: the named budgets."""

from typing import Annotated, cast

from fastapi import Query, Response

from proctor.server.admission.model_names import names
from proctor.server.config.budgets import Tier
from proctor.server.config.settings import Settings
from proctor.server.engines.served_models import ServedModels
from proctor.server.errors import UnknownModel
from proctor.server.schemas.responses import (
    EarlyExitCard,
    ParallelCard,
    TierCard,
    TierList,
    as_json,
)


class TiersEndpoint:
    """The endpoint of `GET /v1/tiers`."""

    def __init__(self, settings: Settings, models: ServedModels) -> None:
        self._settings = settings
        self._models = models
        self._tiers = _to_list(settings)
        self._tiers_of_models = {
            name: _to_list(settings.of_model(model.name))
            for model in settings.models
            for name in model.names
        }

    async def list_tiers(
        self,
        model: Annotated[
            str | None, Query(description="A name of a model; by default, of the default model.")
        ] = None,
    ) -> Response:
        """Return the tiers of a model, by ascending budget.

        Raises:
            UnknownModel: if no model has this name. The error does not list the names, which may
                require a key.
            Unavailable: if the names of the default model are not known yet.
        """
        if model in self._tiers_of_models:
            return as_json(self._tiers_of_models[model])
        if model is not None:
            default = self._models.default.engine.model
            if model not in names(default, self._settings.aliases):
                raise UnknownModel("no model has this name", param="model")
        return as_json(self._tiers)


def _to_list(settings: Settings) -> TierList:
    return {
        "object": "list",
        "default_tier": settings.default_tier,
        "data": [_to_card(tier) for tier in settings.tiers],
    }


def _to_card(tier: Tier) -> TierCard:
    card: TierCard = {
        "name": tier.name,
        "min_tokens": tier.min_tokens,
        "max_tokens": tier.max_tokens,
        "continuations": tier.continuations,
        "temperature": tier.temperature,
        "top_p": tier.top_p,
    }
    if tier.model is not None:
        card["model"] = tier.model
    if tier.early_exit is not None:
        options = tier.early_exit.model_dump(mode="json", exclude_none=True)
        card["early_exit"] = cast(EarlyExitCard, options)
    if tier.parallel is not None:
        card["parallel"] = cast(ParallelCard, tier.parallel.model_dump(mode="json"))
    return card
