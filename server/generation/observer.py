"""How a request is observed, for costs, the ledger, traces and metrics: one lifecycle for all."""

from collections.abc import Callable
from dataclasses import dataclass

from proctor.server.generation.admission import Admission
from proctor.server.generation.channels import TextDelta, ToolCallDelta
from proctor.server.generation.runner import ChoiceResult
from proctor.server.schemas.generation import Generation


@dataclass(frozen=True, slots=True)
class AdmittedRequest:
    """A request that was admitted.

    Attributes:
        id: the completion's id.
        model: the model's name.
        request: what the client sent.
        admission: its budget and jobs.
        key: the name of its key, empty where no keys are required.
    """

    id: str
    model: str
    request: Generation
    admission: Admission
    key: str


class RequestObserver:
    """Follows one request; each method is called when something happens, and does nothing here.

    A refused request is only `finished`. A choice that starts always finishes, also when it
    fails or is cancelled, and may do so after the response has ended, but before `finished`.
    """

    def admitted(self, admitted: AdmittedRequest) -> None:
        """The request was admitted."""

    def choice_started(self, choice: int, so_far: Callable[[], ChoiceResult]) -> None:
        """A choice enters the engine.

        Args:
            choice: which one.
            so_far: returns what its result would be if it were cancelled now, without the
                spans of forced text.
        """

    def first_token(self, choice: int, cached_tokens: int | None) -> None:
        """The first tokens of a choice have arrived.

        Args:
            choice: which one.
            cached_tokens: tokens of its prompt from the prefix cache, if the engine reports them.
        """

    def choice_left_engine(self, choice: int) -> None:
        """A choice has left the engine."""

    def item(self, item: TextDelta | ToolCallDelta) -> None:
        """Text or a tool call is about to be sent."""

    def choice_finished(self, result: ChoiceResult) -> None:
        """A choice has finished."""

    def finished(self, status: int, seconds: float) -> None:
        """The response has ended, and every choice has finished.

        Args:
            status: the HTTP status, or what broke the response off.
            seconds: from the first byte of the request.
        """
