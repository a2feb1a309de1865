"""`GET /v1/tiers`: the named budgets."""

from fastapi import Response

from proctor.server.config.budgets import Tier
from proctor.server.config.settings import Settings
from proctor.server.schemas.responses import TierCard, TierList, as_json


class TiersEndpoint:
    """The endpoint of `GET /v1/tiers`."""

    def __init__(self, settings: Settings) -> None:
        self._tiers: TierList = {
            "object": "list",
            "default_tier": settings.default_tier,
            "data": [_to_card(tier) for tier in settings.tiers],
        }

    async def list_tiers(self) -> Response:
        """Return the tiers, by ascending budget."""
        return as_json(self._tiers)


def _to_card(tier: Tier) -> TierCard:
    return {
        "name": tier.name,
        "min_tokens": tier.min_tokens,
        "max_tokens": tier.max_tokens,
        "continuations": tier.continuations,
        "temperature": tier.temperature,
        "top_p": tier.top_p,
    }
