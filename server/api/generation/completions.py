"""`POST /v1/completions`."""

from proctor.server.admission.controller import AdmissionController
from proctor.server.api.generation.endpoint import GenerationApi
from proctor.server.auth.api_key import Key
from proctor.server.engines.base import Engine
from proctor.server.generation.base import Admission
from proctor.server.renderers.base import Envelope
from proctor.server.renderers.completions import CompletionRenderer
from proctor.server.schemas.completions import CompletionRequest
from proctor.server.schemas.parsing import parse
from proctor.server.sessions.limits import Allowance


class CompletionsApi(GenerationApi[CompletionRequest]):
    """The API of completions: raw prompts in, text out."""

    id_prefix = "cmpl-"
    operation = "text_completion"

    def __init__(self, admission_controller: AdmissionController) -> None:
        self._admission_controller = admission_controller

    def parse(self, body: bytes) -> CompletionRequest:
        return parse(body, CompletionRequest)

    async def admit(
        self,
        request: CompletionRequest,
        engine: Engine,
        name: str,
        key: Key | None,
        allowance: Allowance,
    ) -> Admission:
        return await self._admission_controller.admit_prompt(request, engine, name, key, allowance)

    def renderer(
        self, request: CompletionRequest, engine: Engine, envelope: Envelope
    ) -> CompletionRenderer:
        return CompletionRenderer(envelope, request, engine.codec, engine.model.markers.eos)
