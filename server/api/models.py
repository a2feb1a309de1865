"""`GET /v1/models`: the model that is served, under each of its names."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Path, Response

from proctor.server.admission.model_names import check_model, names
from proctor.server.engines.base import ModelInfo
from proctor.server.engines.supervisor import EngineSupervisor
from proctor.server.schemas.responses import ModelCard, ModelList, as_json


class ModelsEndpoint:
    """The endpoints of `/v1/models`."""

    def __init__(self, supervisor: EngineSupervisor, aliases: Sequence[str]) -> None:
        self._supervisor = supervisor
        self._aliases = aliases

    async def list_models(self) -> Response:
        """Return one entry for each name of the model."""
        model = self._supervisor.engine.model
        cards = [_to_card(model, name) for name in names(model, self._aliases)]
        return as_json(ModelList(object="list", data=cards))

    async def get_model(
        self,
        name: Annotated[str, Path(description="A name of the model. It may contain slashes.")],
    ) -> Response:
        """Return the model under one of its names.

        Raises:
            UnknownModel: if the model has another name.
        """
        model = self._supervisor.engine.model
        check_model(name, model, self._aliases)
        return as_json(_to_card(model, name))


def _to_card(model: ModelInfo, name: str) -> ModelCard:
    return {
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": "proctor",
        "root": model.name,
        "max_model_len": model.context_length,
    }
