"""`POST /v1/feedback`: records in the ledger how correct an answer was."""

import logging

from fastapi import Request, Response

from proctor.server.accounting.ledger.service import Ledger
from proctor.server.api.bodies import BodyReader
from proctor.server.auth.api_key import Key
from proctor.server.config.access import Scope
from proctor.server.errors import BadRequest, NotFound, Unavailable
from proctor.server.schemas.feedback import FeedbackRequest
from proctor.server.schemas.parsing import parse
from proctor.server.schemas.responses import Feedback, as_json
from proctor.server.storage.errors import reason

logger = logging.getLogger(__name__)


class FeedbackEndpoint:
    """The endpoint of `POST /v1/feedback`."""

    def __init__(self, body_reader: BodyReader, ledger: Ledger | None) -> None:
        self._body_reader = body_reader
        self._ledger = ledger

    async def __call__(self, request: Request) -> Response:
        """Record the outcome of an answer, in place of an earlier one.

        Raises:
            ApiError: if there is no such answer, or the ledger cannot be written now.
        """
        feedback = parse(await self._body_reader.read(request), FeedbackRequest)
        request_id = feedback.request_id
        if self._ledger is None:
            raise NotFound("This server has no ledger, as its setting ledger.url is empty.")
        matches = await _set_score(self._ledger, feedback, _owner(request.state.key))
        if not matches:
            raise NotFound(f"The ledger has no request '{request_id}'.", param="request_id")
        if matches > 1:
            raise BadRequest(
                "'request_id' matches several requests. Use the 'id' of the completion instead.",
                param="request_id",
            )
        return as_json(Feedback(request_id=request_id, score=feedback.outcome))


def _owner(key: Key | None) -> str | None:
    """Return the name of the key whose requests may be scored, or None for those of all keys."""
    return None if key is None or key.scope is Scope.ADMIN else key.name


async def _set_score(ledger: Ledger, feedback: FeedbackRequest, owner: str | None) -> int:
    """Set the score of a request, and return the number of requests that match."""
    try:
        return await ledger.set_score(feedback.request_id, feedback.outcome, owner)
    except Exception as error:
        logger.warning("feedback cannot be written: %s", reason(error))
        raise Unavailable(
            "The ledger cannot be written now. Try again later.", headers={"retry-after": "5"}
        ) from error
