"""`POST /v1/responses`, of OpenAI's API."""

from typing import cast

import orjson
from fastapi import Request, Response

from proctor.server.admission.budget_request import read_include_reasoning
from proctor.server.admission.controller import AdmissionController
from proctor.server.api.generation.background import START, BackgroundResponses, followed
from proctor.server.api.generation.client_fields import client_fields
from proctor.server.api.generation.endpoint import GenerationApi, GenerationEndpoint, Services
from proctor.server.api.generation.responder import Responder, headers_of, respond
from proctor.server.api.generation.response_archive import to_object
from proctor.server.auth.api_key import Key
from proctor.server.config.settings import Settings
from proctor.server.config.thinking.reasoning_format import ReasoningFormat
from proctor.server.engines.base import Engine
from proctor.server.generation.base import Admission
from proctor.server.generation.context import RequestContext
from proctor.server.renderers.base import Envelope
from proctor.server.renderers.openai_responses import ResponsesRenderer
from proctor.server.schemas.openai_responses.item_ids import PREFIX
from proctor.server.schemas.openai_responses.request import ResponsesRequest
from proctor.server.schemas.openai_responses.translation import ResponsesChatRequest, to_chat
from proctor.server.schemas.parsing import parse
from proctor.server.schemas.responses import as_json
from proctor.server.sessions.limits import Allowance
from proctor.server.storage.responses import QUEUED, StoredResponse


class ResponsesApi(GenerationApi[ResponsesChatRequest]):
    """The Responses API: the items of a conversation in, the next ones out."""

    id_prefix = PREFIX
    operation = "chat"

    def __init__(self, settings: Settings, admission_controller: AdmissionController) -> None:
        self._settings = settings
        self._admission_controller = admission_controller

    def parse(self, body: bytes) -> ResponsesChatRequest:
        return to_chat(parse(body, ResponsesRequest))

    async def admit(
        self,
        request: ResponsesChatRequest,
        engine: Engine,
        name: str,
        key: Key | None,
        allowance: Allowance,
    ) -> Admission:
        read_include_reasoning(request)  # before anything is reserved; the renderer reads it again
        with client_fields(request.client_fields):
            return await self._admission_controller.admit(request, engine, name, key, allowance)

    def renderer(
        self, request: ResponsesChatRequest, engine: Engine, envelope: Envelope
    ) -> ResponsesRenderer:
        hides_thinking = _hides_thinking(request, self._settings)
        return ResponsesRenderer(envelope, request, hides_thinking, engine.codec.token_bytes)


def _hides_thinking(request: ResponsesChatRequest, settings: Settings) -> bool:
    """Return whether the response has no text of the thinking.

    Raises:
        ConflictingFields: if two fields contradict each other.
    """
    include = read_include_reasoning(request)
    if include is None:
        return settings.reasoning_format is ReasoningFormat.HIDDEN
    return not include.value


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
        stored, encoder = _queued(renderer, context.name), renderer.encoder()
        monitor = request.state.monitor
        await self._background.start(stored, responder, encoder, encoder.cancelled, monitor)
        response = as_json(to_object(stored))
        if renderer.request.client_request.stream:
            limits = self._services.settings.limits
            response = followed(self._archive, context.name, stored.id, START, limits)
        response.headers.update(headers_of(responder))
        return response


def _queued(renderer: ResponsesRenderer, key: str) -> StoredResponse:
    """Return the response of an API key's request as it begins, to be stored."""
    response = renderer.response()
    response["status"] = "queued"
    stored_input = renderer.request.stored_input or b""
    return StoredResponse(response["id"], key, QUEUED, stored_input, orjson.dumps(response))
