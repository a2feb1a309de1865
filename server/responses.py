"""Responses, as they are described: in `/openapi.json` and to the type checker.

The text under each field is its description.
"""

from typing import Literal

from pydantic import with_config
from typing_extensions import TypedDict


@with_config(use_attribute_docstrings=True, extra="forbid")
class Shape(TypedDict):
    """A response, or a part of one; it has no other fields than these."""


class ErrorDetail(Shape):
    """What went wrong."""

    message: str
    """What is wrong, and what to do."""
    type: Literal["invalid_request_error", "server_error"]
    """Whose fault it is: the request's, or the server's."""
    param: str | None
    """The request's field at fault, as a path; null if no field is."""
    code: str | None
    """OpenAI's code, where it has one for this."""


class Error(Shape):
    """An error, in OpenAI's shape."""

    error: ErrorDetail
    """What went wrong."""


class ModelCard(Shape):
    """One name of the model served."""

    id: str
    """The name, as requests give it in `model`."""
    object: Literal["model"]
    """What this is."""
    created: int
    """When it was loaded, as unix time in seconds."""
    owned_by: str
    """Who serves it."""
    root: str
    """The model's own name, of which `id` may be an alias."""
    max_model_len: int
    """Most tokens of prompt and completion together."""


class ModelList(Shape):
    """The model served, under each of its names."""

    object: Literal["list"]
    """What this is."""
    data: list[ModelCard]
    """One entry for each name, the model's own first."""


class Tokenized(Shape):
    """The tokens of a text or a conversation."""

    count: int
    """How many there are."""
    max_model_len: int
    """Most tokens of prompt and completion together."""
    tokens: list[int]
    """Their ids."""
    token_strs: list[str] | None
    """Each as the vocabulary spells it, where that was asked for."""


class Detokenized(Shape):
    """The text of tokens."""

    prompt: str
    """The text, special tokens included."""


class Health(Shape):
    """The process runs."""

    status: Literal["ok"]
    """Always `ok`: a process that does not run does not answer."""


class Ready(Shape):
    """The engine can answer."""

    status: Literal["ready"]
    """Always `ready`: before and after that the answer is a 503."""
