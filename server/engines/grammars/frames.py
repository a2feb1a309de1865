"""What the pool, the process that forks and its children tell each other."""

import json
import socket
import struct
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

T = TypeVar("T")

LENGTH = struct.Struct("!Q")


@dataclass(frozen=True, slots=True)
class Task:
    """A grammar to try.

    Attributes:
        kind: vLLM's name for what `value` is.
        value: the grammar.
        seconds: CPU time that it may take.
        mebibytes: memory that it may take.
        nice: how far to stand back behind other processes.
    """

    kind: str
    value: Any
    seconds: float
    mebibytes: int
    nice: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of it.

    Attributes:
        backend: vLLM's name of the backend for it; None where it cannot be used.
        rewritten: the grammar that stands for it, where it is another.
        refused: why it cannot be used.
        out_of: what it has used up: "time" to compile, "memory", or the time of "steps".
    """

    backend: str | None = None
    rewritten: str | None = None
    refused: str | None = None
    out_of: str | None = None


def pack(message: Task | Answer) -> bytes:
    """A message with its length before it."""
    body = json.dumps(asdict(message)).encode()
    return LENGTH.pack(len(body)) + body


def unpack(body: bytes, kind: type[T]) -> T:
    """The message."""
    return kind(**json.loads(body))


def send(connection: socket.socket, message: Task | Answer) -> None:
    """Send a message; blocks."""
    connection.sendall(pack(message))


def receive(connection: socket.socket, kind: type[T]) -> T:
    """Receive a message; blocks.

    Raises:
        EOFError: if none comes.
    """
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    return unpack(_exactly(connection, length), kind)


def _exactly(connection: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(min(length - len(parts), 2**20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
