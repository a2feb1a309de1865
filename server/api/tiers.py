"""`GET /v1/tiers`: the budgets that have a name."""

from fastapi import Response

from proctor.server.config.budgets import Tier
from proctor.server.config.settings import Settings
from proctor.server.schemas.responses import TierCard, TierList, as_json


class TiersEndpoint:
    """The endpoint."""

    def __init__(self, settings: Settings) -> None:
        self._told: TierList = {
            "object": "list",
            "default_tier": settings.default_tier,
            "data": [_describe(tier) for tier in settings.tiers],
        }

    async def list_tiers(self) -> Response:
        """List the budgets that a request can name, from least to most."""
        return as_json(self._told)


def _describe(tier: Tier) -> TierCard:
    return {
        "name": tier.name,
        "min_tokens": tier.min_tokens,
        "max_tokens": tier.max_tokens,
        "continuations": tier.continuations,
        "temperature": tier.temperature,
        "top_p": tier.top_p,
    }
