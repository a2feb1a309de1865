"""`POST /v1/responses`, of OpenAI's API."""

from proctor.server.admission.budget_request import read_include_reasoning
from proctor.server.admission.controller import AdmissionController
from proctor.server.api.generation.client_fields import client_fields
from proctor.server.api.generation.endpoint import GenerationApi
from proctor.server.auth.api_key import Key
from proctor.server.config.reasoning_format import ReasoningFormat
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine
from proctor.server.generation.base import Admission
from proctor.server.renderers.base import Envelope
from proctor.server.renderers.openai_responses import ResponsesRenderer
from proctor.server.schemas.openai_responses.request import ResponsesRequest
from proctor.server.schemas.openai_responses.translation import ResponsesChatRequest, to_chat
from proctor.server.schemas.parsing import parse
from proctor.server.sessions.limits import Allowance


class ResponsesApi(GenerationApi[ResponsesChatRequest]):
    """The Responses API: the items of a conversation in, the next ones out."""

    id_prefix = "resp_"
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
