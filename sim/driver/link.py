"""The protocol on a byte stream, both ends: requests of the host, each carried out at most once.

See docs/link.md. Neither end reads a clock or a stream by itself but `HostLink`, whose transport
does it.
"""

from __future__ import annotations

import enum
import secrets
import struct
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from sim.driver.errors import LinkError
from sim.driver.framing import FrameReader, encode_frame
from sim.driver.transport import Transport

__all__ = [
    "VERSION",
    "WINDOW",
    "DeviceLink",
    "Greeting",
    "HostLink",
    "Kind",
    "Request",
    "Status",
    "Unanswered",
]

VERSION = 1  #: of the protocol
WINDOW = 8  #: requests that may be unanswered at once

_HEADER = struct.Struct("<BIH")  # kind, session, sequence number
_GREETING = struct.Struct("<BHBH")  # version, bytes of a beat, heads, credit
_RESPONSE = 0x80
_SEQUENCES = 1 << 16


class Kind(enum.IntEnum):
    """What a request asks for; its response has bit 7 set as well."""

    OPEN = 1  #: begin a session; answers waiting in the device are dropped
    SEND = 2  #: head (1 byte), beats: take a token packet
    RECEIVE = 3  #: head (1 byte), wait in ms (2 bytes): give result packets
    READ = 4  #: address (2 bytes): give a register's value
    WRITE = 5  #: address (2 bytes), value (4 bytes): set a register
    DELIVER = 6  #: wait in ms (2 bytes): until every packet sent before has been taken
    BUILD = 7  #: give the hash of what the device was built from (6 bytes), if it is a board


class Status(enum.IntEnum):
    """First byte of a response."""

    OK = 0
    NOTHING = 1  #: it did not happen in time
    REFUSED = 2  #: the device refuses the register access
    MALFORMED = 3  #: the request makes no sense
    FAILED = 4  #: the device failed; the rest says why
    SESSION = 5  #: the device knows no such session: it was started anew


class Request(NamedTuple):
    """A request that is to be carried out."""

    sequence: int
    kind: int
    body: bytes


class Greeting(NamedTuple):
    """What a device says when a session begins."""

    version: int  #: of the protocol
    bus_bytes: int  #: bytes of a beat
    heads: int  #: heads with streams of their own
    credit: int  #: answers that may be owed at once


@dataclass
class Unanswered:
    """A request on its way."""

    kind: Kind
    frame: bytes
    response: tuple[Status, bytes] | None = None


class DeviceLink:
    """The device's end: says which requests are new, and repeats responses that were lost.

    Parameters
    ----------
    greeting
        What the device says when a session begins.
    """

    def __init__(self, greeting: Greeting) -> None:
        self._greeting = greeting
        self._reader = FrameReader()
        self._session: int | None = None
        self._expected = 0
        self._responses: OrderedDict[int, bytes | None] = OrderedDict()
        self.repeated = 0  #: requests that came again

    @property
    def rejected(self) -> int:
        """Stretches of bytes that were no frame."""
        return self._reader.rejected

    def feed(self, received: bytes) -> tuple[list[Request], bytes]:
        """Requests to carry out, in order, and bytes to send at once.

        A request of the kind OPEN is among them, so that the device can drop answers that wait;
        it has been responded to.
        """
        requests: list[Request] = []
        out = b""
        for content in self._reader.feed(received):
            if len(content) < _HEADER.size:
                self._reader.rejected += 1
                continue
            kind, session, sequence = _HEADER.unpack_from(content)
            body = content[_HEADER.size :]
            if kind == Kind.OPEN:
                if session != self._session:
                    # Requests of the old session that have not been carried out yet are dropped.
                    requests = [Request(sequence, kind, body)]
                    self._session, self._expected = session, 0
                    self._responses.clear()
                out += self._frame(
                    kind, session, sequence, Status.OK, _GREETING.pack(*self._greeting)
                )
            elif session != self._session:
                out += self._frame(kind, session, sequence, Status.SESSION, b"")
            elif sequence == self._expected:
                self._expected = (sequence + 1) % _SEQUENCES
                self._responses[sequence] = None
                while len(self._responses) > WINDOW:
                    self._responses.popitem(last=False)
                requests.append(Request(sequence, kind, body))
            elif sequence in self._responses:
                self.repeated += 1
                out += self._responses[sequence] or b""
            # Any other is behind a request that was lost, and will come again after it.
        return requests, out

    def respond(self, request: Request, status: Status, payload: bytes = b"") -> bytes:
        """Bytes of the response to a request that has been carried out."""
        if self._session is None or request.sequence not in self._responses:
            return b""  # of a session that is over
        frame = self._frame(request.kind, self._session, request.sequence, status, payload)
        self._responses[request.sequence] = frame
        return frame

    @staticmethod
    def _frame(kind: int, session: int, sequence: int, status: Status, payload: bytes) -> bytes:
        header = _HEADER.pack(kind | _RESPONSE, session, sequence)
        return encode_frame(header + bytes([status]) + payload)


class HostLink:
    """The host's end: sends requests, and repeats those that are not answered in time.

    Parameters
    ----------
    transport
        The stream to the device.
    retries
        Times that requests are repeated without any of them being answered.
    retry_s
        Time after which they are.
    """

    def __init__(self, transport: Transport, *, retries: int = 8, retry_s: float = 0.5) -> None:
        if isinstance(retries, bool) or not isinstance(retries, int):
            raise TypeError(f"retries must be an int, not {retries!r}")
        if retries < 0:
            raise ValueError(f"retries must be at least 0, not {retries!r}")
        if not retry_s > 0:
            raise ValueError(f"retry_s must be positive, not {retry_s!r}")
        self.retries, self.retry_s = retries, retry_s
        self._transport = transport
        self._reader = FrameReader()
        self._session: int | None = None
        self._next = 0
        self._open: OrderedDict[int, Unanswered] = OrderedDict()
        self.repeated = 0  #: frames sent again

    @property
    def rejected(self) -> int:
        """Stretches of bytes that were no frame."""
        return self._reader.rejected

    @property
    def opened(self) -> bool:
        """A session is open."""
        return self._session is not None

    def end(self) -> None:
        """Forget the session and what is under way."""
        self._session = None
        self._open.clear()

    def open(self) -> Greeting:
        """Begin a session: whatever was under way is forgotten, at both ends.

        Raises
        ------
        LinkError
            The device does not answer, or speaks another version.
        """
        self._open.clear()
        self._session = secrets.randbits(32)
        self._next = 0
        status, payload = self._wait(self._send(Kind.OPEN, b"", 0))
        if status is not Status.OK or len(payload) != _GREETING.size:
            self._session = None
            raise LinkError(f"the device's greeting makes no sense: {status.name} {payload.hex()}")
        greeting = Greeting(*_GREETING.unpack(payload))
        if greeting.version != VERSION:
            self._session = None
            raise LinkError(f"the device must speak version {VERSION}, not {greeting.version!r}")
        return greeting

    def post(self, kind: Kind, body: bytes) -> Unanswered:
        """Send a request and do not wait for its response; `wait` gives it.

        Raises
        ------
        LinkError
            No session, or earlier requests stay unanswered.
        """
        while self._open and (self._next - next(iter(self._open))) % _SEQUENCES >= WINDOW:
            self._wait(next(iter(self._open.values())))
        sequence = self._next
        self._next = (sequence + 1) % _SEQUENCES
        return self._send(kind, body, sequence)

    def wait(self, request: Unanswered) -> tuple[Status, bytes]:
        """Response to a request.

        Raises
        ------
        LinkError
            It stays unanswered; nobody knows then whether it was carried out.
        """
        return self._wait(request)

    def settle(self) -> None:
        """Wait until every request has been answered.

        Raises
        ------
        LinkError
            One stays unanswered.
        """
        while self._open:
            self._wait(next(iter(self._open.values())))

    def _send(self, kind: Kind, body: bytes, sequence: int) -> Unanswered:
        if self._session is None:
            raise LinkError("no session is open; the link failed before, and must recover")
        frame = encode_frame(_HEADER.pack(kind, self._session, sequence) + body)
        request = Unanswered(kind, frame)
        self._open[sequence] = request
        self._transport.write(frame)
        return request

    def _wait(self, request: Unanswered) -> tuple[Status, bytes]:
        attempts = 0
        until = time.monotonic() + self.retry_s
        while request.response is None:
            if self._session is None:
                raise LinkError("no session is open; the link failed before, and must recover")
            before = len(self._open)
            data = self._transport.read(max(until - time.monotonic(), 0.0))
            self._take(data)
            if len(self._open) < before:
                attempts, until = 0, time.monotonic() + self.retry_s
            elif not data or time.monotonic() >= until:
                if attempts >= self.retries:
                    kinds = ", ".join(sorted({other.kind.name for other in self._open.values()}))
                    self._session = None
                    raise LinkError(
                        f"no response to {len(self._open)} requests ({kinds}), repeated "
                        f"{attempts} times; whether they were carried out is not known"
                    )
                attempts, until = attempts + 1, time.monotonic() + self.retry_s
                for other in list(self._open.values()):
                    self._transport.write(other.frame)
                    self.repeated += 1
        return request.response

    def _take(self, data: bytes) -> None:
        """Note the responses among the bytes received."""
        for content in self._reader.feed(data):
            if len(content) <= _HEADER.size:
                continue
            kind, session, sequence = _HEADER.unpack_from(content)
            request = self._open.get(sequence)
            status = content[_HEADER.size]
            if (
                session != self._session
                or request is None
                or kind != request.kind | _RESPONSE
                or status not in set(Status)
            ):
                continue  # an old one come late, or one come twice
            if status == Status.SESSION:
                self._session = None
                raise LinkError("the device knows nothing of this session: it was started anew")
            request.response = (Status(status), content[_HEADER.size + 1 :])
            del self._open[sequence]
