"""`POST /v1/feedback`: how right an answer was, attached to its row in the ledger."""

import logging

import orjson
from fastapi import Request, Response

from proctor.server.accounting.ledger.service import Ledger
from proctor.server.auth.api_key import Key
from proctor.server.config.access import Scope
from proctor.server.errors import BadRequest, NotFound, Unavailable
from proctor.server.schemas.feedback import FeedbackRequest
from proctor.server.schemas.parsing import parse
from proctor.server.storage.errors import reason
from proctor.server.transport.bodies import BodyReader

logger = logging.getLogger(__name__)


class FeedbackEndpoint:
    """The endpoint."""

    def __init__(self, bodies: BodyReader, ledger: Ledger | None) -> None:
        self._bodies = bodies
        self._ledger = ledger

    async def __call__(self, request: Request) -> Response:
        """Attach an outcome to an answer; one that was attached before is replaced.

        Raises:
            ApiError: if there is no such answer, or the ledger cannot be written now.
        """
        given = parse(await self._bodies.read(request), FeedbackRequest)
        if self._ledger is None:
            raise NotFound("this server keeps no ledger: its setting ledger.url is empty")
        found = await _set_score(self._ledger, given, _of(request.state.key))
        if not found:
            raise NotFound(f"the ledger has no request '{given.request_id}'", param="request_id")
        if found > 1:
            raise BadRequest(
                "'request_id' was used for several requests: give the completion's id instead",
                param="request_id",
            )
        told = {"request_id": given.request_id, "score": given.outcome}
        return Response(orjson.dumps(told), media_type="application/json")


def _of(key: Key | None) -> str | None:
    """Whose answers a key may speak of, None if anybody's."""
    return None if key is None or key.scope is Scope.ADMIN else key.name


async def _set_score(ledger: Ledger, given: FeedbackRequest, of: str | None) -> int:
    try:
        return await ledger.set_score(given.request_id, given.outcome, of)
    except Exception as error:
        logger.warning("feedback could not be written: %s", reason(error))
        raise Unavailable(
            "the ledger cannot be written now: try again later", headers={"retry-after": "5"}
        ) from error
