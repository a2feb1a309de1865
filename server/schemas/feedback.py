"""The request model of feedback."""

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from proctor.server.config.limits import MAX_NAME
from proctor.server.schemas.base import Flag, Float, RequestModel, Text, exactly_one


class FeedbackRequest(RequestModel):
    """What became of an answer: `correct` or `score`."""

    model_config = ConfigDict(json_schema_extra=exactly_one("correct", "score"))

    request_id: Annotated[Text, Field(min_length=1, max_length=MAX_NAME)]
    """The completion's `id`, or the response's `x-request-id` if it was used once."""
    correct: Flag | None = None
    """Whether the answer was right."""
    score: Annotated[Float, Field(ge=0, le=1)] | None = None
    """How right it was: 1 is right, 0 is wrong."""

    @model_validator(mode="after")
    def _one_outcome(self) -> "FeedbackRequest":
        if (self.correct is None) == (self.score is None):
            reason = "or 'score' is needed, and not both"
            raise PydanticCustomError("field", "{reason}", {"field": "correct", "reason": reason})
        return self

    @property
    def outcome(self) -> float:
        """How right the answer was, from 0 to 1."""
        return float(bool(self.correct)) if self.score is None else self.score
