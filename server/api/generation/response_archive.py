"""Stores responses of the Responses API, and continues conversations from them."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import orjson
from fastapi import Response
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor.server.config.ledger import LedgerSettings
from proctor.server.errors import SOON, BadRequest, NotFound, Unavailable, UnknownResponse
from proctor.server.generation.context import RequestContext
from proctor.server.schemas.openai_responses.item_ids import response_of
from proctor.server.schemas.openai_responses.items import InputItem, ItemReference
from proctor.server.schemas.openai_responses.request import ResponsesRequest
from proctor.server.schemas.openai_responses.translation import ResponsesChatRequest, to_chat
from proctor.server.storage.errors import reason
from proctor.server.storage.responses import FAILED, MAX_STORED_BYTES, ResponseStore, StoredResponse
from proctor.server.transport.sse import LastEvents, data_of
from proctor.server.transport.sse_response import SseResponse

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""The maximum time that a request waits for the database."""

ITEMS: TypeAdapter[tuple[InputItem, ...]] = TypeAdapter(tuple[InputItem, ...])
LOST = {"code": "server_error", "message": "The server that generated the response has stopped."}

T = TypeVar("T")


class ResponseArchive:
    """Stores responses for a while, each for its API key."""

    def __init__(self, store: ResponseStore | None, lifetime: timedelta) -> None:
        """Initialize the archive.

        Args:
            store: the store of the responses, or None if none are stored.
            lifetime: how long responses are stored.
        """
        self._store = store
        self._lifetime = lifetime

    @property
    def expires(self) -> datetime:
        """When a response that is stored now expires."""
        return datetime.now(UTC) + self._lifetime

    def require(self, field: str) -> ResponseStore:
        """Return the store, for a field that needs it.

        Raises:
            BadRequest: if no responses are stored.
        """
        if self._store is None:
            raise BadRequest(
                f"'{field}' is not supported, as this server has no ledger or does not store "
                "responses. Remove it, or ask the operator to set ledger.url and "
                "ledger.response_hours.",
                param=field,
            )
        return self._store

    async def find(self, key: str, response_id: str) -> StoredResponse:
        """Return a stored response of an API key.

        Raises:
            NotFound: if there is none with this id.
            Unavailable: if the database does not answer.
        """
        found = None
        if self._store is not None:
            found = await patiently(self._store.get(key, response_id, datetime.now(UTC)))
        if found is None:
            message = f"No stored response '{response_id}': it does not exist, or has expired."
            raise NotFound(message, param="response_id")
        return found

    async def prepare(
        self, chat: ResponsesChatRequest, context: RequestContext
    ) -> ResponsesChatRequest:
        """Return a request with the conversation that it continues, and what is to be stored.

        Raises:
            BadRequest: if it needs a stored response, and there is none; or if it is too long to be
                generated in the background.
            Unavailable: if the database does not answer.
        """
        request = chat.client_request
        if request.background and request.store is False:
            raise BadRequest("'background' requires 'store': true.", param="background")
        request = await self._resolved(request, context.name)
        if request is not chat.client_request:
            chat = to_chat(request)
        earlier: list[Mapping[str, Any]] = []
        if request.previous_response_id is not None:
            self.require("previous_response_id")
            earlier = await self._earlier(context.name, request.previous_response_id)
            chat = to_chat(request, _validated(earlier))
        if request.background:
            self.require("background")
        if self._store is None and request.store:
            return chat.model_copy(update={"ignored": (*chat.ignored, "store")})
        if self._store is None or request.store is False:
            return chat
        stored = orjson.dumps([*earlier, *_plain_items(request)])
        if request.background and len(stored) > MAX_STORED_BYTES // 2:
            raise BadRequest(
                f"'background' is not supported for conversations of more than "
                f"{MAX_STORED_BYTES // 2} bytes.",
                param="background",
            )
        return chat.model_copy(update={"stored_input": stored})

    async def _resolved(self, request: ResponsesRequest, key: str) -> ResponsesRequest:
        """Return the request with the items that its input refers to.

        Raises:
            BadRequest: if one of them is not stored.
            Unavailable: if the database does not answer.
        """
        items = [*request.input]
        found: dict[str, Mapping[str, Any]] = {}
        for index, item in enumerate(items):
            if not isinstance(item, ItemReference):
                continue
            if item.id not in found:
                found |= await self._items_beside(item.id, key)
            if item.id not in found:
                raise BadRequest(
                    f"'input[{index}]' refers to the item '{item.id}', which is not stored: it "
                    "does not exist, or has expired. Send the item itself; clients do with "
                    "'store': false.",
                    param=f"input[{index}].id",
                )
            (items[index],) = _validated([found[item.id]])
        return request.model_copy(update={"input": tuple(items)}) if found else request

    async def _items_beside(self, item_id: str, key: str) -> dict[str, Mapping[str, Any]]:
        """Return the items of the response that an item belongs to, by their ids."""
        try:
            stored = await self.find(key, response_of(item_id))
        except NotFound:
            return {}
        return {item["id"]: item for item in orjson.loads(stored.body)["output"]}

    async def _earlier(self, key: str, response_id: str) -> list[Mapping[str, Any]]:
        try:
            stored = await self.find(key, response_id)
        except NotFound as error:
            message = f"'previous_response_id': {error}"
            raise UnknownResponse(message, param="previous_response_id") from None
        if stored.is_running:
            raise BadRequest(
                f"'previous_response_id': the response '{response_id}' is still being generated.",
                param="previous_response_id",
            )
        earlier: list[Mapping[str, Any]] = orjson.loads(stored.input)
        return earlier + list(orjson.loads(stored.body)["output"])

    async def keep(
        self, response: Response, chat: ResponsesChatRequest, context: RequestContext
    ) -> Response:
        """Return the response, which is stored before its last byte is sent, if it can be.

        A database that does not answer does not delay it by more than `PATIENCE_SECONDS`.
        """
        if chat.stored_input is None:
            return response
        if isinstance(response, SseResponse):
            response.body_iterator = self._record(response.body_iterator, chat, context)
        else:
            await self._save(orjson.loads(bytes(response.body)), chat, context)
        return response

    async def _record(
        self,
        chunks: AsyncGenerator[bytes, None],
        chat: ResponsesChatRequest,
        context: RequestContext,
    ) -> AsyncGenerator[bytes, None]:
        """Yield the chunks of a stream; store the response before its last chunk is sent."""
        async with aclosing(chunks):
            async for chunk in chunks:
                if isinstance(chunk, LastEvents):
                    *_, last = data_of(chunk)
                    await self._save(last["response"], chat, context)
                yield chunk

    async def _save(
        self, body: Mapping[str, Any], chat: ResponsesChatRequest, context: RequestContext
    ) -> None:
        if self._store is None or not body["store"]:
            return
        stored = StoredResponse(
            body["id"],
            context.name,
            body["status"],
            chat.stored_input or b"",
            orjson.dumps(body),
        )
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._store.add(stored, datetime.now(UTC), self.expires)
        except Exception as error:  # each driver has exceptions of its own
            logger.warning("A response cannot be stored: %s", reason(error))


def to_object(stored: StoredResponse) -> dict[str, Any]:
    """Return a stored response as it is now. The status of one that is running may be newer."""
    body: dict[str, Any] = orjson.loads(stored.body)
    if body["status"] != stored.status:
        body["status"] = stored.status
        body["error"] = LOST if stored.status == FAILED else None
    return body


def open_archive(
    database: AsyncEngine | None, settings: LedgerSettings, gateway: str
) -> ResponseArchive:
    """Return an archive in the ledger's database, which is disabled without a ledger.

    Args:
        database: connects to the database, or None if there is no ledger.
        settings: how long responses are stored; 0 hours disable the archive.
        gateway: the ID of this gateway among those that share the database.
    """
    store = None
    if database is not None and settings.response_hours:
        store = ResponseStore(database, gateway)
    return ResponseArchive(store, timedelta(hours=settings.response_hours))


async def patiently(access: Awaitable[T]) -> T:
    """Access the database, for `PATIENCE_SECONDS` at most.

    Raises:
        Unavailable: if it does not answer.
    """
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await access
    except Exception as error:  # each driver has exceptions of its own
        logger.warning("stored responses cannot be accessed: %s", reason(error))
        message = "Stored responses cannot be accessed now. Try again later."
        raise Unavailable(message, headers=SOON) from error


def _plain_items(request: ResponsesRequest) -> list[dict[str, Any]]:
    return [item.model_dump(mode="json", exclude_none=True) for item in request.input]


def _validated(items: list[Mapping[str, Any]]) -> tuple[InputItem, ...]:
    """Return the items of a stored conversation.

    Raises:
        UnknownResponse: if this version does not understand them.
    """
    try:
        return ITEMS.validate_python(items)
    except ValidationError:
        message = "'previous_response_id': the response was stored by an incompatible version."
        raise UnknownResponse(message, param="previous_response_id") from None
