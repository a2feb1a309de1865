"""`/v1/responses/{id}`: stored responses of the Responses API."""

from typing import Annotated, Any

import orjson
from fastapi import Path, Query, Request, Response

from proctor.server.api.generation.background import START, followed
from proctor.server.api.generation.response_archive import (
    ResponseArchive,
    patiently,
    to_object,
)
from proctor.server.auth.api_key import Key
from proctor.server.config.limits import Limits
from proctor.server.errors import BadRequest
from proctor.server.generation.context import ANONYMOUS
from proctor.server.schemas.openai_responses.response import DeletedResponse, ItemList
from proctor.server.schemas.responses import as_json

DEFAULT_ITEMS, MAX_ITEMS = 20, 100

ResponseId = Annotated[str, Path(description="The identifier of the response.")]


class StoredResponsesEndpoints:
    """The endpoints of stored responses. Each API key has its own."""

    def __init__(self, archive: ResponseArchive, limits: Limits) -> None:
        self._archive = archive
        self._limits = limits

    async def retrieve(
        self,
        request: Request,
        response_id: ResponseId,
        stream: Annotated[
            str | None, Query(description="`true` for the stream of a background response.")
        ] = None,
        starting_after: Annotated[
            str | None,
            Query(description="The `sequence_number` after which the stream is resumed."),
        ] = None,
    ) -> Response:
        """Return a response, or the stream of one that is generated in the background.

        Raises:
            ApiError: if there is no such response, or a parameter is invalid.
        """
        key = _name(request)
        body = to_object(await self._archive.find(key, response_id))
        if (stream or "false").lower() != "true":
            return as_json(body)
        if not body["background"]:
            raise BadRequest(
                "'stream' is only supported for responses with 'background'.", param="stream"
            )
        after = _integer(starting_after, "starting_after", START)
        return followed(self._archive, key, response_id, after, self._limits)

    async def delete(self, request: Request, response_id: ResponseId) -> Response:
        """Delete a response. One that is running is cancelled.

        Raises:
            ApiError: if there is no such response.
        """
        key = _name(request)
        await self._archive.find(key, response_id)
        await patiently(self._archive.require("response_id").delete(key, response_id))
        return as_json(DeletedResponse(id=response_id, object="response", deleted=True))

    async def cancel(self, request: Request, response_id: ResponseId) -> Response:
        """Cancel a response that is generated in the background; one that has ended stays as it is.

        Raises:
            ApiError: if there is no such response, or it is not generated in the background.
        """
        key = _name(request)
        body = to_object(await self._archive.find(key, response_id))
        if not body["background"]:
            raise BadRequest(
                "Only responses with 'background' can be cancelled.", param="response_id"
            )
        await patiently(self._archive.require("response_id").cancel(key, response_id))
        return as_json(to_object(await self._archive.find(key, response_id)))

    async def list_items(
        self,
        request: Request,
        response_id: ResponseId,
        limit: Annotated[
            str | None, Query(description="The number of items, 1 to 100; 20 by default.")
        ] = None,
        order: Annotated[
            str | None, Query(description="`asc`, or `desc` (the default) for the newest first.")
        ] = None,
        after: Annotated[
            str | None, Query(description="The identifier of the item before the first one.")
        ] = None,
    ) -> Response:
        """Return the items of the conversation before a response.

        Raises:
            ApiError: if there is no such response, or a parameter is invalid.
        """
        stored = await self._archive.find(_name(request), response_id)
        items: list[dict[str, Any]] = orjson.loads(stored.input)
        for index, item in enumerate(items):
            item.setdefault("id", f"item_{response_id.partition('_')[2]}{index:02x}")
        if order != "asc":
            items = items[::-1]
        count = min(MAX_ITEMS, max(1, _integer(limit, "limit", DEFAULT_ITEMS)))
        return as_json(_page(_after(items, after), count))


def _name(request: Request) -> str:
    key: Key | None = request.state.key
    return ANONYMOUS if key is None else key.name


def _after(items: list[dict[str, Any]], identifier: str | None) -> list[dict[str, Any]]:
    """Return the items after the one with this identifier.

    Raises:
        BadRequest: if there is none.
    """
    if identifier is None:
        return items
    ids = [item["id"] for item in items]
    if identifier not in ids:
        raise BadRequest(f"'after' is no item of the response: '{identifier}'.", param="after")
    return items[ids.index(identifier) + 1 :]


def _page(items: list[dict[str, Any]], count: int) -> ItemList:
    page = items[:count]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(items) > count,
    }


def _integer(value: str | None, name: str, default: int) -> int:
    try:
        return default if value is None else int(value)
    except ValueError:
        raise BadRequest(f"'{name}' must be an integer.", param=name) from None
