"""`GET /v1/models`: the models that are served, under each of their names."""

from typing import Annotated

from fastapi import Path, Response

from proctor.server.admission.model_names import check_model, names
from proctor.server.config.settings import Settings
from proctor.server.engines.base import ModelInfo
from proctor.server.engines.served_models import ServedModels
from proctor.server.schemas.responses import ModelCard, ModelList, as_json


class ModelsEndpoint:
    """The endpoints of `/v1/models`."""

    def __init__(self, settings: Settings, models: ServedModels) -> None:
        self._settings = settings
        self._models = models

    async def list_models(self) -> Response:
        """Return one entry for each name of a model; further models are listed while they are up.

        Raises:
            Unavailable: if the engine of the default model is loading, restarting or failed to
                load.
        """
        model = self._models.default.engine.model
        cards = [_to_card(model, name) for name in names(model, self._settings.aliases)]
        for each in self._settings.models:
            supervisor = self._models.find(each.name)
            if supervisor.up:
                cards += [_to_card(supervisor.engine.model, name) for name in each.names]
        return as_json(ModelList(object="list", data=cards))

    async def get_model(
        self,
        name: Annotated[str, Path(description="A name of the model. It may contain slashes.")],
    ) -> Response:
        """Return a model under one of its names.

        Raises:
            UnknownModel: if no model has this name.
            Unavailable: if its engine is loading, restarting or failed to load.
        """
        model = self._models.find(name).engine.model
        check_model(name, model, self._settings)
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
