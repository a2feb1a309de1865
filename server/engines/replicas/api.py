"""What the engine needs of an endpoint by which requests reach replicas."""

from collections.abc import Sequence
from typing import Protocol

from proctor.server.engines.base import Job, TokenLogprob
from proctor.server.engines.grammars.base import CheckedGrammar
from proctor.server.engines.replicas.choice import Segment
from proctor.server.engines.replicas.events import EventReader


class ReplicaApi(Protocol):
    """An endpoint of vLLM that takes token ids and a budget, and streams token ids."""

    @property
    def path(self) -> str:
        """The path of the endpoint."""

    def check(self, job: Job) -> None:
        """Return if the endpoint can do what a job needs.

        Raises:
            UnsupportedRequest: if it cannot.
        """

    def stream(self, segment: Segment, grammar: CheckedGrammar | None, salt: str) -> bytes:
        """Return the body of a request whose tokens are streamed.

        Args:
            segment: what to generate.
            grammar: the checked grammar of its constraint.
            salt: separates its prefixes from those of others in the cache; empty for none.
        """

    def prompt_logprobs(self, segment: Segment, salt: str) -> bytes:
        """Return the body of a request for the log probabilities of the prompt, not streamed."""

    def read_prompt_logprobs(
        self, response: bytes, prompt_ids: Sequence[int], count: int
    ) -> list[TokenLogprob]:
        """Return the log probabilities of a prompt but for its first token, from such a response.

        Args:
            response: the body of the response.
            prompt_ids: the prompt.
            count: how many of the most likely tokens to return for each position.
        """

    def reader(self, segment: Segment) -> EventReader:
        """Return a reader for the stream."""
