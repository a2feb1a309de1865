"""`GET /v1/models`: the model served, under each of its names."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Path, Response

from proctor.server.admission.model_names import check_model, names
from proctor.server.engines.base import ModelInfo
from proctor.server.engines.supervisor import EngineSupervisor
from proctor.server.schemas.responses import ModelCard, ModelList, as_json


class ModelsEndpoint:
    """The endpoints."""

    def __init__(self, host: EngineSupervisor, aliases: Sequence[str]) -> None:
        self._host = host
        self._aliases = aliases

    async def list_models(self) -> Response:
        """List the model served, under each of its names."""
        model = self._host.engine.model
        cards = [_describe(model, name) for name in names(model, self._aliases)]
        return as_json(ModelList(object="list", data=cards))

    async def get_model(
        self, name: Annotated[str, Path(description="One of its names; it may hold slashes.")]
    ) -> Response:
        """Tell of one model."""
        model = self._host.engine.model
        check_model(name, model, self._aliases)
        return as_json(_describe(model, name))


def _describe(model: ModelInfo, name: str) -> ModelCard:
    return {
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": "proctor",
        "root": model.name,
        "max_model_len": model.context_length,
    }
