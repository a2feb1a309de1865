"""The endpoint of `POST /v1/responses`, which may store responses or generate in background."""

from typing import cast

from fastapi import Request, Response

from proctor.server.api.generation.background import BackgroundResponses, follow
from proctor.server.api.generation.endpoint import GenerationEndpoint, Services
from proctor.server.api.generation.openai_responses import ResponsesApi
from proctor.server.api.generation.responder import Responder, headers_of, respond
from proctor.server.api.generation.response_archive import ResponseArchive, to_object
from proctor.server.config.limits import Limits
from proctor.server.engines.base import Engine
from proctor.server.generation.context import RequestContext
from proctor.server.renderers.openai_responses import ResponsesRenderer
from proctor.server.schemas.openai_responses.translation import ResponsesChatRequest
from proctor.server.schemas.responses import as_json
from proctor.server.transport.sse import SseResponse

START = -1
"""The number before that of the first event."""


class ResponsesEndpoint(GenerationEndpoint[ResponsesChatRequest]):
    """The endpoint of `POST /v1/responses`."""

    def __init__(
        self,
        api: ResponsesApi,
        services: Services,
        background: BackgroundResponses,
    ) -> None:
        super().__init__(api, services)
        self._archive = background.archive
        self._background = background

    async def _respond(
        self,
        request: Request,
        parsed: ResponsesChatRequest,
        engine: Engine,
        context: RequestContext,
    ) -> Response:
        prepared = await self._archive.prepare(parsed, context)
        return await super()._respond(request, prepared, engine, context)

    async def _send(self, request: Request, responder: Responder) -> Response:
        renderer = cast(ResponsesRenderer, responder.renderer)  # as ResponsesApi makes it
        context = responder.context
        if not renderer.request.client_request.background:
            response = await respond(request, responder, self._services.settings)
            return await self._archive.keep(response, renderer.request, context)
        stored = await self._background.start(responder, renderer, request.state.monitor)
        response = as_json(to_object(stored))
        if renderer.request.client_request.stream:
            limits = self._services.settings.limits
            response = followed(self._archive, context.name, stored.id, START, limits)
        response.headers.update(headers_of(responder))
        return response


def followed(
    archive: ResponseArchive, key: str, response_id: str, after: int, limits: Limits
) -> SseResponse:
    """Return the stream of a background response, see `follow`."""
    return SseResponse(
        follow(archive, key, response_id, after),
        sep="\n",
        ping=limits.heartbeat_seconds,
        send_timeout=limits.send_timeout_seconds,
    )
