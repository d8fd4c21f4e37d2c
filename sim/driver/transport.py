"""Duplex byte streams: what carries frames between a host and a device."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable
from typing import Protocol

from sim.driver.errors import LinkError

__all__ = ["CallTransport", "FileTransport", "SocketTransport", "Transport"]

_CHUNK = 65536


class Transport(Protocol):
    """A duplex byte stream; what comes may be damaged in any way."""

    def read(self, timeout_s: float) -> bytes:
        """Bytes that have come; wait for at least one, and give none once the time is over.

        Raises
        ------
        LinkError
            The other side has gone.
        """

    def write(self, data: bytes) -> None:
        """Send bytes.

        Raises
        ------
        LinkError
            The other side has gone.
        """

    def close(self) -> None:
        """Let go of the stream; a second time does nothing."""


class SocketTransport:
    """Bytes over a connected stream socket.

    Parameters
    ----------
    connection
        The socket; `close` closes it.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def read(self, timeout_s: float) -> bytes:
        """Bytes that have come within the time."""
        try:
            self._socket.settimeout(max(timeout_s, 1e-4))
            data = self._socket.recv(_CHUNK)
        except TimeoutError:
            return b""
        except OSError as error:
            raise LinkError(f"the connection broke: {error}") from error
        if not data:
            raise LinkError("the other side has closed the connection")
        return data

    def write(self, data: bytes) -> None:
        """Send bytes."""
        try:
            self._socket.settimeout(None)
            self._socket.sendall(data)
        except OSError as error:
            raise LinkError(f"the connection broke: {error}") from error

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class FileTransport:
    """Bytes over a file descriptor that is read and written: a serial port or pseudo-terminal.

    A terminal must be in raw mode, in which it changes no byte.

    Parameters
    ----------
    descriptor
        Open for reading and writing; `close` closes it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def _open(self) -> int:
        if self._descriptor is None:
            raise LinkError("the stream is closed")
        return self._descriptor

    def read(self, timeout_s: float) -> bytes:
        """Bytes that have come within the time."""
        descriptor = self._open()
        try:
            ready, _, _ = select.select([descriptor], [], [], timeout_s)
            if not ready:
                return b""
            data = os.read(descriptor, _CHUNK)
        except OSError as error:
            raise LinkError(f"the stream broke: {error}") from error
        if not data:
            raise LinkError("the other side has closed the stream")
        return data

    def write(self, data: bytes) -> None:
        """Send bytes."""
        descriptor = self._open()
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        except OSError as error:
            raise LinkError(f"the stream broke: {error}") from error

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


class CallTransport:
    """A device in the same thread: what is written to it is served before `write` returns.

    Parameters
    ----------
    serve
        Takes bytes and gives the bytes it answers with, such as `ByteStreamDevice.feed`.
    """

    def __init__(self, serve: Callable[[bytes], bytes]) -> None:
        self._serve = serve
        self._answered = bytearray()
        self._closed = False

    def read(self, timeout_s: float) -> bytes:
        """Bytes that have come; nothing can come while nobody writes, so there is no wait."""
        data = bytes(self._answered)
        self._answered.clear()
        return data

    def write(self, data: bytes) -> None:
        """Serve bytes."""
        if self._closed:
            raise LinkError("the stream is closed")
        self._answered += self._serve(data)

    def close(self) -> None:
        """Take no more bytes."""
        self._closed = True
