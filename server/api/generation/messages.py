"""`POST /v1/messages`, of Anthropic's API."""

from proctor.server.admission.controller import AdmissionController
from proctor.server.api.generation.client_fields import client_fields
from proctor.server.api.generation.endpoint import GenerationApi
from proctor.server.auth.api_key import Key
from proctor.server.engines.base import Engine
from proctor.server.generation.base import Admission
from proctor.server.renderers.base import Envelope
from proctor.server.renderers.messages import MessagesRenderer
from proctor.server.schemas.anthropic.request import MessagesRequest
from proctor.server.schemas.anthropic.translation import CLIENT_FIELDS, to_chat
from proctor.server.schemas.parsing import parse
from proctor.server.schemas.translated import TranslatedRequest
from proctor.server.sessions.limits import Allowance


class MessagesApi(GenerationApi[TranslatedRequest]):
    """The Messages API: a conversation in, the next message out."""

    id_prefix = "msg_"
    operation = "chat"

    def __init__(self, admission_controller: AdmissionController) -> None:
        self._admission_controller = admission_controller

    def parse(self, body: bytes) -> TranslatedRequest:
        return to_chat(parse(body, MessagesRequest))

    async def admit(
        self,
        request: TranslatedRequest,
        engine: Engine,
        name: str,
        key: Key | None,
        allowance: Allowance,
    ) -> Admission:
        with client_fields(CLIENT_FIELDS):
            return await self._admission_controller.admit(request, engine, name, key, allowance)

    def renderer(
        self, request: TranslatedRequest, engine: Engine, envelope: Envelope
    ) -> MessagesRenderer:
        return MessagesRenderer(envelope, request)
