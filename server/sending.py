"""What answers are sent through."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any


class ClientTransport(asyncio.Transport):
    """A transport that asks its protocol how to close."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        """Stand before a transport.

        Args:
            transport: the connection's own.
            close: closes the connection, called once.
        """
        self._transport = transport
        self._close = close
        self._closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See asyncio."""
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """See asyncio. Nothing more is answered then, though what comes may be read."""
        return self._closing or self._transport.is_closing()

    def pause_reading(self) -> None:
        """See asyncio."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """See asyncio."""
        self._transport.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See asyncio."""
        self._transport.write(data)

    def write_eof(self) -> None:
        """See asyncio."""
        if not self._transport.is_closing():
            with contextlib.suppress(OSError):  # it was reset, which is not known yet
                self._transport.write_eof()

    def close(self) -> None:
        """Close in the protocol's way."""
        if not self.is_closing():
            self._closing = True
            self._close()

    def end(self) -> None:
        """Close once what was written has been sent, whatever still comes."""
        self._transport.close()
