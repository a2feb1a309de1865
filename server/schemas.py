"""The request, as a client may send it."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

from server.fields import IGNORED, MEANINGLESS, refusal

INT64 = 2**63
MAX_STOPS = 16
MAX_STOP_LENGTH = 256

Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Int = Annotated[int, Strict()]
Float = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Tokens = Annotated[Int, Field(ge=0, lt=INT64)]
TokensOrNoCap = Annotated[Int, Field(ge=-1, lt=INT64)]


def _one_as_list(wrap: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda value: [wrap(value)] if isinstance(value, str) else value


def _texts(at_most: int, longest: int) -> Any:
    """One text or a list of them."""
    return Annotated[
        list[Annotated[Text, Field(min_length=1, max_length=longest)]],
        Field(min_length=1, max_length=at_most),
        BeforeValidator(_one_as_list(str), json_schema_input_type=str | list[str]),
    ]


class ReasoningFormat(StrEnum):
    """Where in a response the thinking stands."""

    REASONING_CONTENT = "reasoning_content"
    REASONING = "reasoning"
    BOTH = "both"
    TAGS = "tags"
    HIDDEN = "hidden"


class Body(BaseModel):
    """Part of a request; a field that it does not know is refused by name."""

    model_config = ConfigDict(extra="allow", frozen=True)

    hints: ClassVar[Mapping[str, str]] = {}
    """What to say of fields that are known but not supported."""

    ignored: ClassVar[frozenset[str]] = frozenset()
    """Fields that are accepted, because ignoring them does not change the answer."""

    @model_validator(mode="after")
    def _refuse_unknown(self) -> "Body":
        for name, value in (self.model_extra or {}).items():
            if name not in self.ignored and not self._is_meaningless(name, value):
                known = [*type(self).model_fields, *self.ignored]
                raise PydanticCustomError(
                    "refused_field",
                    "{reason}",
                    {"field": name, "reason": refusal(name, known, self.hints)},
                )
        return self

    def ignored_fields(self) -> list[str]:
        """The fields that were given and are ignored."""
        extra = self.model_extra or {}
        return [name for name in extra if name in self.ignored and extra[name] is not None]

    def _is_meaningless(self, name: str, value: object) -> bool:
        return value is None or value in MEANINGLESS.get(name, ())
