"""What the models of a request are made of.

The text under each field is its description, in `/openapi.json` too.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, Strict, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from server.fields import describe_others, ignored, is_ignored, refusal

MAX_NAME = 256

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


class Part(BaseModel):
    """Part of a request; fields that it does not know are refused by name."""

    model_config = ConfigDict(
        extra="allow", frozen=True, use_attribute_docstrings=True, populate_by_name=True
    )

    @model_validator(mode="after")
    def _refuse_unknown(self) -> "Part":
        for name, value in (self.model_extra or {}).items():
            if not is_ignored(name, value):
                reason = refusal(name, list(type(self).model_fields))
                raise PydanticCustomError("field", "{reason}", {"field": name, "reason": reason})
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        reference = handler(core_schema)
        handler.resolve_ref_schema(reference).update(describe_others())
        return reference

    def ignored_fields(self) -> list[str]:
        """Names of fields that were given and are ignored."""
        return ignored((self.model_extra or {}).items())
