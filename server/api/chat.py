"""`POST /v1/chat/completions`: from a conversation to its answer."""

from proctor.server.admission.budget_request import (
    FieldValue,
    contradiction,
    read_include_reasoning,
)
from proctor.server.admission.controller import AdmissionController
from proctor.server.api.generation.endpoint import GenerationApi
from proctor.server.auth.api_key import Key
from proctor.server.config.reasoning_format import ReasoningFormat
from proctor.server.config.section import coalesce
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine
from proctor.server.errors import BadRequest
from proctor.server.generation.base import Admission
from proctor.server.renderers.base import Envelope
from proctor.server.renderers.chat import ChatRenderer
from proctor.server.schemas.generation import ChatRequest
from proctor.server.schemas.parsing import parse_chat

SEPARATE = ReasoningFormat.REASONING_CONTENT
"""Where the thinking stands if a request wants it beside the content, and the default does not."""


class ChatApi(GenerationApi[ChatRequest]):
    """Conversations, and the message that comes next."""

    id_prefix = "chatcmpl"
    operation = "chat"

    def __init__(self, settings: Settings, admission_controller: AdmissionController) -> None:
        self._settings = settings
        self._admission_controller = admission_controller

    def parse(self, body: bytes) -> ChatRequest:
        """See `GenerationApi`."""
        return parse_chat(body)

    async def admit(
        self, request: ChatRequest, engine: Engine, name: str, key: Key | None
    ) -> Admission:
        """See `GenerationApi`."""
        _check_ids(request, _style(request, self._settings))
        return await self._admission_controller.admit(request, engine, name, key)

    def renderer(self, request: ChatRequest, engine: Engine, envelope: Envelope) -> ChatRenderer:
        """See `GenerationApi`."""
        style = _style(request, self._settings)
        return ChatRenderer(envelope, request, style, engine.codec.token_bytes)


def _style(request: ChatRequest, settings: Settings) -> ReasoningFormat:
    """Where the thinking stands.

    Raises:
        BadRequest: if two fields contradict each other.
    """
    given, separate = request.reasoning_format, request.separate_reasoning
    style, shown = coalesce(settings.reasoning_format, given), read_include_reasoning(request)
    if shown is not None and shown.value is (style is ReasoningFormat.HIDDEN):
        if given is not None:
            raise contradiction(shown, FieldValue("reasoning_format", given))
        style = SEPARATE if shown.value else ReasoningFormat.HIDDEN
    if separate is None or separate is not (style is ReasoningFormat.TAGS):
        return style
    told = FieldValue("separate_reasoning", separate)
    if given is not None:
        raise contradiction(told, FieldValue("reasoning_format", given))
    if style is ReasoningFormat.HIDDEN and shown is not None:
        raise contradiction(told, shown)
    return SEPARATE if separate else ReasoningFormat.TAGS


def _check_ids(request: ChatRequest, style: ReasoningFormat) -> None:
    """See that token ids tell nothing that is hidden.

    Raises:
        BadRequest: if they would.
    """
    if style is ReasoningFormat.HIDDEN and request.return_token_ids:
        raise BadRequest(
            "'return_token_ids' would tell the thinking, which is hidden: leave it out, or show "
            "the thinking with 'reasoning_format'",
            param="return_token_ids",
        )
