"""Building blocks of the request models.

The docstring of each field is its description in `/openapi.json`.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, Strict, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from proctor.server.schemas.unsupported import (
    as_header,
    describe_extra,
    describe_lenient_extra,
    ignored_names,
    is_ignored,
    rejection,
)

NULL = {"type": "null"}
BUDGET_WORDS = ("think", "reason", "budget")
"""What the name of a budget has, also if it is misspelled."""

Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Int = Annotated[int, Strict(), Field(ge=-(2**63), le=2**63 - 1)]
Float = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Count = Annotated[Int, Field(ge=0)]
CountOrNoCap = Annotated[Int, Field(ge=-1)]

MAX_PARTS = 256
"""The maximum number of parts, or of blocks, of a message."""

MAX_KIND = 64
Kind = Annotated[Text, Field(max_length=MAX_KIND)]
"""The type of an item, a part or a tool that is not supported."""


def one_as_list(value: Any) -> Any:
    """Wrap a string in a list, and return a list unchanged."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return value
    raise PydanticCustomError("texts", "Input should be a string or a list of strings")


def none_of(*types: str) -> dict[str, Any]:
    """Return the JSON schema of all types but these."""
    return {"not": {"enum": [*types]}}


def kind_of(value: Any) -> str | None:
    """Return the type of an item or a part, before or after its validation.

    It is None if there is none, and empty if it is not a string.
    """
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if kind is None or isinstance(kind, str) else ""


def exactly_one(*names: str) -> dict[str, Any]:
    """Return a JSON schema that requires exactly one of these fields."""
    present = ({"required": [name], "properties": {name: {"not": NULL}}} for name in names)
    return {"oneOf": [*present]}


def needs(field: str, values: Any, **others: Any) -> dict[str, Any]:
    """Return a JSON schema that makes some values of a field require values of other fields.

    Args:
        field: the name of the dependent field.
        values: the schema of its values that have requirements.
        others: the schemas of the required fields, by name.
    """
    return {
        "if": {"required": [field], "properties": {field: values}},
        "then": {"required": [*others], "properties": others},
    }


class RequestModel(BaseModel):
    """Base class of requests and their parts; unknown fields are rejected by name."""

    model_config = ConfigDict(
        extra="allow", frozen=True, use_attribute_docstrings=True, populate_by_name=True
    )

    @model_validator(mode="after")
    def _reject_unknown(self) -> "RequestModel":
        for name, value in (self.model_extra or {}).items():
            if not self._accepts(name, value):
                raise rejection(name, list(type(self).model_fields))
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        reference = handler(core_schema)
        handler.resolve_ref_schema(reference).update(cls._describe_extra())
        return reference

    @classmethod
    def _describe_extra(cls) -> dict[str, Any]:
        return describe_extra(cls.model_fields)

    @classmethod
    def _accepts(cls, name: str, value: object) -> bool:
        """Return whether an unknown field is ignored rather than rejected."""
        return is_ignored(name, value)

    def _ignored(self) -> list[str]:
        return ignored_names((self.model_extra or {}).items())

    def present_fields(self) -> dict[str, Any]:
        """Return the known fields that are not null, by the names that clients use."""
        fields = {
            field.alias or name: getattr(self, name)
            for name, field in type(self).model_fields.items()
        }
        return {name: value for name, value in fields.items() if value is not None}

    def ignored_fields(self) -> Iterator[str]:
        """Yield the paths of ignored fields, those of nested models included."""
        yield from self._ignored()
        for name, value in vars(self).items():
            if isinstance(value, RequestModel):
                yield from (f"{name}.{path}" for path in value.ignored_fields())
            elif isinstance(value, list | tuple):
                for index, item in enumerate(value):
                    if isinstance(item, RequestModel):
                        yield from (f"{name}[{index}].{path}" for path in item.ignored_fields())

    def ignored_header(self) -> dict[str, str]:
        """Return the header that lists the ignored fields; empty if there are none."""
        listed = as_header(self.ignored_fields())
        return {"x-ignored-fields": listed} if listed else {}


class LenientModel(RequestModel):
    """Base class of the parts of a conversation, to which clients add fields of their own.

    Client libraries add fields to a message and send it back with the next request, so
    that rejecting them would break every tool loop at its second turn. Unknown fields
    are therefore ignored, and listed in a header. They cannot be told apart from
    misspelled ones.

    Attributes:
        rejected: unknown fields that are rejected unless they are null, because the
            model would have to see what they say.
    """

    rejected: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def _describe_extra(cls) -> dict[str, Any]:
        return describe_lenient_extra(cls.rejected)

    @classmethod
    def _accepts(cls, name: str, value: object) -> bool:
        return value is None or name not in cls.rejected

    def _ignored(self) -> list[str]:
        return [name for name, value in (self.model_extra or {}).items() if value is not None]


class AgentModel(LenientModel):
    """Base class of models to which agents add fields of their own, but none for a budget.

    A misspelled budget must not be ignored.
    """

    @classmethod
    def _accepts(cls, name: str, value: object) -> bool:
        if value is not None and any(word in name.lower() for word in BUDGET_WORDS):
            return False
        return super()._accepts(name, value)
