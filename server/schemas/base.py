"""What the models of a request are made of.

The text under each field is its description, in `/openapi.json` too.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, Strict, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from proctor.server.schemas.unsupported import (
    as_header,
    describe_lenient,
    describe_others,
    ignored,
    is_ignored,
    refusal,
)

NULL = {"type": "null"}

Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Int = Annotated[int, Strict(), Field(ge=-(2**63), le=2**63 - 1)]
Float = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Count = Annotated[Int, Field(ge=0)]
CountOrNoCap = Annotated[Int, Field(ge=-1)]


def one_as_list(value: Any) -> Any:
    """A string as a list of one."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return value
    raise PydanticCustomError("texts", "It should be a string or a list of strings")


def exactly_one(*names: str) -> dict[str, Any]:
    """What a JSON schema says where one of these fields is needed, and no more than one."""
    given = ({"required": [name], "properties": {name: {"not": NULL}}} for name in names)
    return {"oneOf": [*given]}


def needs(field: str, values: Any, **others: Any) -> dict[str, Any]:
    """What a JSON schema says where a field of some values needs others of some.

    Args:
        field: the one that needs.
        values: a schema of those for which it does.
        others: schemas of the fields needed.
    """
    return {
        "if": {"required": [field], "properties": {field: values}},
        "then": {"required": [*others], "properties": others},
    }


class RequestModel(BaseModel):
    """Part of a request; fields that it does not know are refused by name."""

    model_config = ConfigDict(
        extra="allow", frozen=True, use_attribute_docstrings=True, populate_by_name=True
    )

    @model_validator(mode="after")
    def _refuse_unknown(self) -> "RequestModel":
        for name, value in (self.model_extra or {}).items():
            if not self._passes(name, value):
                reason = refusal(name, list(type(self).model_fields))
                raise PydanticCustomError("field", "{reason}", {"field": name, "reason": reason})
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        reference = handler(core_schema)
        handler.resolve_ref_schema(reference).update(cls._describe_others())
        return reference

    @classmethod
    def _describe_others(cls) -> dict[str, Any]:
        return describe_others(cls.model_fields)

    @classmethod
    def _passes(cls, name: str, value: object) -> bool:
        """Whether a field that is not known may be passed over."""
        return is_ignored(name, value)

    def _ignored(self) -> list[str]:
        return ignored((self.model_extra or {}).items())

    def given(self) -> dict[str, Any]:
        """The fields that it knows and that were given, by the names that clients give them."""
        fields = {
            field.alias or name: getattr(self, name)
            for name, field in type(self).model_fields.items()
        }
        return {name: value for name, value in fields.items() if value is not None}

    def ignored_fields(self) -> Iterator[str]:
        """Paths of the fields that were given and are ignored, those of its parts too."""
        yield from self._ignored()
        for name, value in vars(self).items():
            if isinstance(value, RequestModel):
                yield from (f"{name}.{path}" for path in value.ignored_fields())
            elif isinstance(value, list | tuple):
                for at, each in enumerate(value):
                    if isinstance(each, RequestModel):
                        yield from (f"{name}[{at}].{path}" for path in each.ignored_fields())

    def ignored_header(self) -> dict[str, str]:
        """The header that lists them, if there are any."""
        listed = as_header(self.ignored_fields())
        return {"x-ignored-fields": listed} if listed else {}


class LenientModel(RequestModel):
    """A part of a conversation, in which clients put members of their own.

    What a client's helper adds to a message comes back with the next request: a
    refusal would end every loop at its second turn. So members that it does not know
    are passed over, and named in a header. They cannot be told from misspelt ones.

    Attributes:
        needed: members that are refused nevertheless, unless they are null: the
            model would have to be told what they say.
    """

    needed: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def _describe_others(cls) -> dict[str, Any]:
        return describe_lenient(cls.needed)

    @classmethod
    def _passes(cls, name: str, value: object) -> bool:
        return value is None or name not in cls.needed

    def _ignored(self) -> list[str]:
        return [name for name, value in (self.model_extra or {}).items() if value is not None]
