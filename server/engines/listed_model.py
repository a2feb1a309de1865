"""The models that an OpenAI-compatible server lists."""

from collections.abc import Collection, Sequence

from pydantic import BaseModel


class ListedModel(BaseModel):
    """An entry of the list.

    Attributes:
        id: the model's name there.
        max_model_len: maximum number of tokens of prompt and completion together, which vLLM
            reports, and not every server.
    """

    id: str
    max_model_len: int | None = None


class ModelList(BaseModel):
    """The response of `/v1/models`.

    Attributes:
        data: the models.
    """

    data: list[ListedModel]


def choose_model(models: Sequence[ListedModel], known_as: Collection[str]) -> ListedModel:
    """Return the model that has one of some names, or the only one.

    Raises:
        ValueError: if there is none.
    """
    for model in models:
        if model.id in known_as or len(models) == 1:
            return model
    names = ", ".join(model.id for model in models) or "none"
    raise ValueError(f"the server has these models: {names}; set served_model_name to one of them")


def context_length_of(model: ListedModel, setting: int | None) -> int:
    """Return the context length of a model: as set, or as the server reports it.

    Raises:
        ValueError: if neither is there, or the setting is longer.
    """
    limit = model.max_model_len
    length = setting or limit
    if length is None:
        raise ValueError("the server does not report its context length: set engine.max_model_len")
    if limit is not None and length > limit:
        raise ValueError(f"engine.max_model_len is {length}, but the server's context is {limit}")
    return length
