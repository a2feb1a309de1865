"""The names by which clients may call the model."""

from collections.abc import Sequence

from proctor.server.engines.base import ModelInfo
from proctor.server.errors import UnknownModel

MAX_TOLD = 64


def names(model: ModelInfo, aliases: Sequence[str]) -> list[str]:
    """What clients may call the model, its own name first."""
    return [model.name, *(alias for alias in aliases if alias != model.name)]


def check_model(
    name: str, model: ModelInfo, aliases: Sequence[str], *, param: str | None = None
) -> None:
    """Return if the model goes by this name.

    Args:
        name: what a client calls it.
        model: the one served.
        aliases: its other names.
        param: the request's field that has the name.

    Raises:
        UnknownModel: if it does not; the message lists its names.
    """
    known = names(model, aliases)
    if name not in known:
        told = ", ".join(f"'{each}'" for each in known)
        raise UnknownModel(
            f"there is no model '{name[:MAX_TOLD]}': this server has {told}", param=param
        )
