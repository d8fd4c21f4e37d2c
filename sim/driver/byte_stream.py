"""A device at the far end of a byte stream; and that end, in front of another back end."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Sequence

from sim.driver.backend import Backend
from sim.driver.errors import DriverError, LinkError, RegisterError, Timeout
from sim.driver.framing import FRAME_MAX
from sim.driver.link import (
    VERSION,
    DeviceLink,
    Greeting,
    HostLink,
    Kind,
    Request,
    Status,
    Unanswered,
)
from sim.driver.transport import Transport

__all__ = ["ByteStreamBackend", "ByteStreamDevice", "join_packets", "split_packets"]

#: Bytes of result packets in one response; leaves room for the response's header.
RESULT_BYTES = FRAME_MAX - 64
_PAUSE_S = 0.005


def join_packets(packets: Sequence[Sequence[int]], bus_bytes: int) -> bytes:
    """Bytes of packets: how many beats follow (2 bytes), and the beats, little-endian."""
    parts = []
    for beats in packets:
        parts.append(len(beats).to_bytes(2, "little"))
        parts += [beat.to_bytes(bus_bytes, "little") for beat in beats]
    return b"".join(parts)


def split_packets(joined: bytes, bus_bytes: int) -> list[list[int]]:
    """Packets that `join_packets` was given.

    Raises
    ------
    ValueError
        It would never have given this.
    """
    packets = []
    while joined:
        length = 2 + bus_bytes * int.from_bytes(joined[:2], "little")
        if not 2 + bus_bytes <= length <= len(joined):
            raise ValueError(f"packet must have {length} bytes, not {len(joined)!r}")
        packets.append(split_beats(joined[2:length], bus_bytes))
        joined = joined[length:]
    return packets


def split_beats(data: bytes, bus_bytes: int) -> list[int]:
    """Beats of one packet.

    Raises
    ------
    ValueError
        There is none, or the last one is not whole.
    """
    if not data or len(data) % bus_bytes:
        raise ValueError(f"packet must have a multiple of {bus_bytes} bytes, not {len(data)!r}")
    return [
        int.from_bytes(data[at : at + bus_bytes], "little") for at in range(0, len(data), bus_bytes)
    ]


class ByteStreamBackend:
    """A device behind a byte stream that may damage or lose bytes.

    Every request is numbered, checked by a CRC-32 and repeated until it is answered, and the
    device carries each out at most once. What cannot be repaired so is a `LinkError`.

    Parameters
    ----------
    transport
        The stream; `close` closes it.
    retries
        Times that requests are repeated without any of them being answered.
    retry_s
        Time after which they are.

    Raises
    ------
    LinkError
        The device cannot be reached, or speaks another version.
    """

    def __init__(self, transport: Transport, *, retries: int = 8, retry_s: float = 0.5) -> None:
        self._transport = transport
        self.link = HostLink(transport, retries=retries, retry_s=retry_s)
        self._received: dict[int, deque[list[int]]] = defaultdict(deque)
        self._sent: deque[Unanswered] = deque()
        self.recover()

    def recover(self) -> None:
        """Begin a new session; answers not yet received are dropped."""
        self._received.clear()
        self._sent.clear()
        greeting = self.link.open()
        self.bus_bytes, self.heads, self.credit = greeting[1:]

    def send_packet(self, head: int, beats: Sequence[int]) -> None:
        """Send a token packet; up to `WINDOW` requests are under way at once."""
        body = bytes([head]) + b"".join(beat.to_bytes(self.bus_bytes, "little") for beat in beats)
        self._sent.append(self.link.post(Kind.SEND, body))
        self._check_sent()

    def receive_packet(self, head: int, timeout_s: float) -> list[int]:
        """Beats of a head's next result packet."""
        if not self._received[head]:
            doing = f"receiving from head {head}"
            payload = self._ask(Kind.RECEIVE, bytes([head]), timeout_s, doing)
            try:
                self._received[head] += split_packets(payload, self.bus_bytes)
            except ValueError as error:
                raise LinkError(f"the device's response makes no sense: {error}") from error
        return self._received[head].popleft()

    def deliver(self, timeout_s: float) -> None:
        """Wait until the device has taken every packet that was sent."""
        self._ask(Kind.DELIVER, b"", timeout_s, "delivering")

    def _ask(self, kind: Kind, body: bytes, timeout_s: float, doing: str) -> bytes:
        """Ask for something that may take its time, until it has come."""
        # The device waits shorter than it would take the host to repeat the question.
        wait_s = min(timeout_s, self.link.retry_s / 2)
        body += min(int(wait_s * 1000), 0xFFFF).to_bytes(2, "little")
        until = time.monotonic() + timeout_s
        while True:
            status, payload = self.link.wait(self.link.post(kind, body))
            self._check_sent()
            if status is Status.OK:
                return payload
            if status is not Status.NOTHING:
                raise self._error(status, payload, doing)
            if time.monotonic() >= until:
                raise Timeout(f"{doing} has not ended within {timeout_s:g} s")
            time.sleep(min(wait_s, _PAUSE_S))  # some devices know at once that nothing comes

    def read_register(self, address: int) -> int:
        """Value of a 32-bit register."""
        payload = self._access(Kind.READ, address, b"", "reading")
        if len(payload) != 4:
            raise LinkError(f"the device's response must be a value, not {payload.hex()!r}")
        return int.from_bytes(payload, "little")

    def write_register(self, address: int, value: int) -> None:
        """Write a 32-bit register."""
        self._access(Kind.WRITE, address, value.to_bytes(4, "little"), f"writing {value:#x} to")

    def build(self) -> str | None:
        """Hash of the configuration that a board was built from; None if it is no board."""
        status, payload = self.link.wait(self.link.post(Kind.BUILD, b""))
        self._check_sent()
        if status is Status.MALFORMED:
            return None
        if status is not Status.OK:
            raise self._error(status, payload, "asking for the build")
        return payload.hex()

    def _access(self, kind: Kind, address: int, value: bytes, doing: str) -> bytes:
        body = address.to_bytes(2, "little") + value
        status, payload = self.link.wait(self.link.post(kind, body))
        self._check_sent()
        if status is not Status.OK:
            raise self._error(status, payload, f"{doing} register {address:#05x}")
        return payload

    def close(self) -> None:
        """Close the stream, once the device has taken every packet that was sent.

        Raises
        ------
        LinkError
            It has not; the stream is closed all the same.
        """
        try:
            if self.link.opened:
                self.link.settle()
                self._check_sent()
        finally:
            self._sent.clear()
            self.link.end()
            self._transport.close()

    def _check_sent(self) -> None:
        """Fail if a packet that was sent has been responded to with anything but OK."""
        while self._sent and (response := self._sent[0].response) is not None:
            self._sent.popleft()
            status, payload = response
            if status is not Status.OK:
                raise self._error(status, payload, "sending a packet")

    @staticmethod
    def _error(status: Status, payload: bytes, doing: str) -> DriverError:
        why = payload.decode("utf-8", "replace")
        if status is Status.REFUSED:
            return RegisterError(f"{doing} was refused")
        return LinkError(f"{doing} failed: {status.name}{': ' if why else ''}{why}")


class ByteStreamDevice:
    """Serves the protocol from another back end.

    Parameters
    ----------
    backend
        What carries the requests out.
    bus_bytes
        Bytes of a beat.
    heads
        Heads with streams of their own.
    build
        Hash of the configuration it was built from, as hexadecimal digits; None if it is no board.
    most
        Result packets in one response; as many as fit by default.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        bus_bytes: int,
        heads: int = 1,
        build: str | None = None,
        most: int | None = None,
    ) -> None:
        self._backend, self._bus_bytes, self._heads = backend, bus_bytes, heads
        self._build, self._most = build, most
        credit = min(backend.credit, 0xFFFF)
        self.link = DeviceLink(Greeting(VERSION, bus_bytes, heads, credit))

    def feed(self, received: bytes) -> bytes:
        """Bytes that answer these bytes."""
        requests, out = self.link.feed(received)
        for request in requests:
            if request.kind == Kind.OPEN:
                self._backend.recover()
            else:
                out += self.link.respond(request, *self._carry_out(request))
        return out

    def serve(self, transport: Transport) -> None:
        """Serve a stream until the other side has gone."""
        try:
            while True:
                answer = self.feed(transport.read(3600.0))
                if answer:
                    transport.write(answer)
        except LinkError:
            transport.close()

    def _carry_out(self, request: Request) -> tuple[Status, bytes]:
        kind, body = request.kind, request.body
        backend = self._backend
        try:
            if kind == Kind.SEND and body and body[0] < self._heads:
                backend.send_packet(body[0], split_beats(body[1:], self._bus_bytes))
                return Status.OK, b""
            if kind == Kind.RECEIVE and len(body) == 3 and body[0] < self._heads:
                return self._receive(body[0], int.from_bytes(body[1:], "little") / 1000)
            if kind == Kind.DELIVER and len(body) == 2:
                backend.deliver(int.from_bytes(body, "little") / 1000)
                return Status.OK, b""
            if kind == Kind.READ and len(body) == 2:
                value = backend.read_register(int.from_bytes(body, "little"))
                return Status.OK, value.to_bytes(4, "little")
            if kind == Kind.WRITE and len(body) == 6:
                value = int.from_bytes(body[2:], "little")
                backend.write_register(int.from_bytes(body[:2], "little"), value)
                return Status.OK, b""
            if kind == Kind.BUILD and not body and self._build is not None:
                return Status.OK, bytes.fromhex(self._build)
        except RegisterError:
            return Status.REFUSED, b""
        except Timeout:
            return Status.NOTHING, b""
        except ValueError:
            return Status.MALFORMED, b""
        except DriverError as error:
            return Status.FAILED, str(error).encode()[:256]
        return Status.MALFORMED, b""

    def _receive(self, head: int, wait_s: float) -> tuple[Status, bytes]:
        """As many result packets as there are and fit a response; wait for the first."""
        joined = b""
        packets = 0
        try:
            while packets != self._most:
                beats = self._backend.receive_packet(head, 0.0 if joined else wait_s)
                joined += join_packets([beats], self._bus_bytes)
                packets += 1
                if len(joined) * 2 > RESULT_BYTES:
                    break
        except Timeout:
            pass
        return (Status.OK, joined) if joined else (Status.NOTHING, b"")
