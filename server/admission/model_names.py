"""The names under which clients can request the models."""

from collections.abc import Sequence

from proctor.server.config.settings import Settings
from proctor.server.engines.base import ModelInfo
from proctor.server.errors import UnknownModel

MAX_NAME_CHARACTERS = 64
"""How much of an unknown name an error message repeats."""


def names(model: ModelInfo, aliases: Sequence[str]) -> list[str]:
    """Return the names that clients can use, the model's own name first."""
    return [model.name, *(alias for alias in aliases if alias != model.name)]


def check_model(
    name: str, model: ModelInfo, settings: Settings, *, param: str | None = None
) -> None:
    """Return if a served model has this name.

    Args:
        name: the name in the request.
        model: the model of the settings.
        settings: the settings with the other names of the model, and the names of further models.
        param: the request's field with the name.

    Raises:
        UnknownModel: if none has; the message lists the valid names.
    """
    further = (name for model in settings.models for name in model.names)
    known = [*names(model, settings.aliases), *further]
    if name not in known:
        listed = ", ".join(f"'{each}'" for each in known)
        raise UnknownModel(
            f"the model '{name[:MAX_NAME_CHARACTERS]}' does not exist: this server has {listed}",
            param=param,
        )
