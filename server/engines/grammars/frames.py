"""The messages between the grammar pool, the fork server and its children."""

import json
import socket
import struct
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

T = TypeVar("T")

LENGTH = struct.Struct("!Q")


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """A grammar to check.

    Attributes:
        kind: the kind of `value`, by vLLM's name.
        value: the grammar.
        seconds: limit of CPU time.
        memory_mib: limit of memory.
        nice: increment of the process's niceness.
    """

    kind: str
    value: Any
    seconds: float
    memory_mib: int
    nice: int


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check.

    Attributes:
        backend: the backend to use, by vLLM's name; None if the grammar cannot be used.
        rewritten: the grammar by which vLLM replaces it, if it does.
        refused: why it cannot be used.
        exceeded: the limit that it exceeded: "time" or "memory" to compile, or the time to compute
            the logits mask of some of its "steps".
    """

    backend: str | None = None
    rewritten: str | None = None
    refused: str | None = None
    exceeded: str | None = None


def pack(message: CheckRequest | CheckResult) -> bytes:
    """Return a message as bytes, with its length as a prefix."""
    body = json.dumps(asdict(message)).encode()
    return LENGTH.pack(len(body)) + body


def unpack(body: bytes, kind: type[T]) -> T:
    """Return the message of a body without its length prefix."""
    return kind(**json.loads(body))


def send(connection: socket.socket, message: CheckRequest | CheckResult) -> None:
    """Send a message, blocking."""
    connection.sendall(pack(message))


def receive(connection: socket.socket, kind: type[T]) -> T:
    """Receive a message, blocking.

    Raises:
        EOFError: if the connection is closed before a whole message.
    """
    (length,) = LENGTH.unpack(_receive_exactly(connection, LENGTH.size))
    return unpack(_receive_exactly(connection, length), kind)


def _receive_exactly(connection: socket.socket, length: int) -> bytes:
    received = bytearray()
    while len(received) < length:
        chunk = connection.recv(min(length - len(received), 2**20))
        if not chunk:
            raise EOFError
        received += chunk
    return bytes(received)
