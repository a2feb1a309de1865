"""What a replica tells a gateway about itself, so that they do not misunderstand each other."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from proctor.budget import Markers, Vocabulary

PATH = "/inference/v1/proctor"
"""The path of the handshake, below a prefix that vLLM's `--api-key` protects."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """A replica's answer to a gateway.

    Attributes:
        wire: the version of the format of budgets, see `proctor.budget.processors.params`.
        runner: vLLM's model runner, `v1` or `v2`.
        markers: digest of the thinking markers and end-of-turn tokens.
        vocabulary: digest of the text of all tokens.
        weights: digest of samples of the weights' files; empty if they are not local files.
        models: the names of the served model.
        context_length: maximum number of tokens of prompt and completion together.
        max_running: how many requests run at a time.
        by_priority: whether requests may have priorities.
        started: Unix time at which the replica was started, in seconds.
    """

    wire: int
    runner: str
    markers: str
    vocabulary: str
    weights: str
    models: tuple[str, ...]
    context_length: int
    max_running: int
    by_priority: bool
    started: float

    @property
    def identity(self) -> str:
        """What generated tokens depend on: changes if a replica comes back with another model."""
        return digest([self.markers.encode(), self.vocabulary.encode(), self.weights.encode()])

    def to_wire(self) -> dict[str, Any]:
        """Return the handshake as JSON-compatible data."""
        return asdict(self)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "Handshake":
        """Create a handshake from the result of `to_wire`; unknown fields are ignored.

        Raises:
            ValueError: if a field is absent.
        """
        try:
            values = {field.name: wire[field.name] for field in fields(cls)}
            return cls(**{**values, "models": tuple(values["models"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed handshake: {error}") from error


def digest_markers(markers: Markers) -> str:
    """Return a digest of markers."""
    return digest([repr(sorted(markers.to_wire().items())).encode()])


def digest_vocabulary(vocabulary: Vocabulary) -> str:
    """Return a digest of a vocabulary: of how each token is matched and what it ends."""
    return digest([*vocabulary.spelling, *vocabulary.incomplete_bytes, *vocabulary.traits])


def digest(parts: Iterable[bytes]) -> str:
    """Return a digest of byte strings, as 32 hexadecimal digits."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        hashed.update(len(part).to_bytes(8, "big"))
        hashed.update(part)
    return hashed.hexdigest()
