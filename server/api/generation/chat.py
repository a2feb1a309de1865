"""`POST /v1/chat/completions`."""

from proctor.server.admission.budget_request import (
    FieldValue,
    conflict,
    read_include_reasoning,
)
from proctor.server.admission.controller import AdmissionController
from proctor.server.api.generation.endpoint import GenerationApi
from proctor.server.auth.api_key import Key
from proctor.server.config.section import coalesce
from proctor.server.config.settings import Settings
from proctor.server.config.thinking.reasoning_format import ReasoningFormat
from proctor.server.engines.base import Engine
from proctor.server.errors import BadRequest
from proctor.server.generation.base import Admission
from proctor.server.renderers.base import Envelope
from proctor.server.renderers.chat import ChatRenderer
from proctor.server.schemas.generation import ChatRequest
from proctor.server.schemas.parsing import parse_chat
from proctor.server.sessions.limits import Allowance

SEPARATED = ReasoningFormat.REASONING_CONTENT
"""The format for requests that want the thinking separated, where the default does not do so."""


class ChatApi(GenerationApi[ChatRequest]):
    """The API of chat completions: a conversation in, the next message out."""

    id_prefix = "chatcmpl-"
    operation = "chat"

    def __init__(self, settings: Settings, admission_controller: AdmissionController) -> None:
        self._settings = settings
        self._admission_controller = admission_controller

    def parse(self, body: bytes) -> ChatRequest:
        return parse_chat(body)

    async def admit(
        self,
        request: ChatRequest,
        engine: Engine,
        name: str,
        key: Key | None,
        allowance: Allowance,
    ) -> Admission:
        _check_token_ids(request, _reasoning_format(request, self._settings))
        return await self._admission_controller.admit(request, engine, name, key, allowance)

    def renderer(self, request: ChatRequest, engine: Engine, envelope: Envelope) -> ChatRenderer:
        reasoning_format = _reasoning_format(request, self._settings)
        return ChatRenderer(envelope, request, reasoning_format, engine.codec.token_bytes)


def _reasoning_format(request: ChatRequest, settings: Settings) -> ReasoningFormat:
    """Return where the response has the thinking.

    Raises:
        ConflictingFields: if two fields contradict each other.
    """
    requested, separate = request.reasoning_format, request.separate_reasoning
    resolved = coalesce(settings.reasoning_format, requested)
    include = read_include_reasoning(request)
    if include is not None and include.value is (resolved is ReasoningFormat.HIDDEN):
        if requested is not None:
            raise conflict(include, FieldValue("reasoning_format", requested))
        resolved = SEPARATED if include.value else ReasoningFormat.HIDDEN
    if separate is None or separate is not (resolved is ReasoningFormat.TAGS):
        return resolved
    separate_field = FieldValue("separate_reasoning", separate)
    if requested is not None:
        raise conflict(separate_field, FieldValue("reasoning_format", requested))
    if resolved is ReasoningFormat.HIDDEN and include is not None:
        raise conflict(separate_field, include)
    return SEPARATED if separate else ReasoningFormat.TAGS


def _check_token_ids(request: ChatRequest, reasoning_format: ReasoningFormat) -> None:
    """Check that token ids do not reveal hidden thinking.

    Raises:
        BadRequest: if they would.
    """
    if reasoning_format is ReasoningFormat.HIDDEN and request.return_token_ids:
        raise BadRequest(
            "'return_token_ids' is not supported while the thinking is hidden, as the ids would "
            "reveal it. Remove it, or include the thinking with 'reasoning_format'.",
            param="return_token_ids",
        )
