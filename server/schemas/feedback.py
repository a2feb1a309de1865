"""The request model of `POST /v1/feedback`."""

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from proctor.server.config.limits import MAX_NAME
from proctor.server.schemas.base import Flag, Float, RequestModel, Text, exactly_one


class FeedbackRequest(RequestModel):
    """The body of `POST /v1/feedback`: how correct an answer was, as `correct` or `score`."""

    model_config = ConfigDict(json_schema_extra=exactly_one("correct", "score"))

    request_id: Annotated[Text, Field(min_length=1, max_length=MAX_NAME)]
    """The `id` of the completion, or the `x-request-id` of the response if it is unique."""
    correct: Flag | None = None
    """Whether the answer was correct."""
    score: Annotated[Float, Field(ge=0, le=1)] | None = None
    """How correct the answer was, from 0 (wrong) to 1 (right)."""

    @model_validator(mode="after")
    def _check_one_outcome(self) -> "FeedbackRequest":
        if (self.correct is None) == (self.score is None):
            reason = "or 'score' is required, but not both"
            raise PydanticCustomError("field", "{reason}", {"field": "correct", "reason": reason})
        return self

    @property
    def outcome(self) -> float:
        """How correct the answer was, from 0 (wrong) to 1 (right)."""
        return float(bool(self.correct)) if self.score is None else self.score
