"""Frames and requests on a byte stream that loses, changes and invents bytes."""

from __future__ import annotations

import os
import socket
import threading
import tty

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from terminals import needs_terminals

from analog_models import AnalogParams, FunctionalHead
from hw.presets import PRESETS
from sim.driver import (
    ByteStreamBackend,
    ByteStreamDevice,
    CallTransport,
    Driver,
    DriverError,
    FileTransport,
    FunctionalBackend,
    LinkError,
    SocketTransport,
    Timeout,
)
from sim.driver.byte_stream import join_packets, split_packets
from sim.driver.framing import FRAME_MAX, FrameReader, cobs_decode, cobs_encode, encode_frame
from sim.driver.link import VERSION, WINDOW, DeviceLink, Greeting, HostLink, Kind, Status

TINY = PRESETS["tiny"]
CONTENT = st.binary(min_size=1, max_size=700)


# --- frames ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "stuffed"),
    [
        # By hand from Cheshire and Baker, IEEE/ACM Transactions on Networking 7(2), 1999.
        ("", "01"),
        ("00", "0101"),
        ("0000", "010101"),
        ("4500000440", "024501030440"),
        ("11220033", "0311220233"),
        ("11223344", "0511223344"),
        ("11000000", "0211010101"),
        (bytes(range(1, 255)).hex(), "ff" + bytes(range(1, 255)).hex()),
        (bytes(range(0, 255)).hex(), "01ff" + bytes(range(1, 255)).hex()),
        (bytes(range(1, 256)).hex(), "ff" + bytes(range(1, 255)).hex() + "02ff"),
        ((bytes(range(2, 256)) + b"\0").hex(), "ff" + bytes(range(2, 256)).hex() + "0101"),
        ((bytes(range(3, 256)) + b"\0\1").hex(), "fe" + bytes(range(3, 256)).hex() + "0201"),
    ],
)
def test_cobs_vectors(content, stuffed):
    assert cobs_encode(bytes.fromhex(content)).hex() == stuffed
    assert cobs_decode(bytes.fromhex(stuffed)).hex() == content


@given(st.binary(max_size=800))
def test_cobs_comes_back(content):
    stuffed = cobs_encode(content)
    assert 0 not in stuffed
    assert len(stuffed) <= len(content) + 1 + len(content) // 254
    assert cobs_decode(stuffed) == content


@pytest.mark.parametrize("stuffed", [b"\x00", b"\x03\x01", b"\x05\x01\x02", b"\x02\x01\x00"])
def test_what_cobs_never_gives_is_refused(stuffed):
    with pytest.raises(ValueError, match="length byte at"):
        cobs_decode(stuffed)


@given(st.lists(CONTENT, max_size=5), st.data())
def test_frames_survive_any_cut(contents, data):
    line = b"".join(encode_frame(content) for content in contents)
    reader, got, at = FrameReader(), [], 0
    while at < len(line):
        step = data.draw(st.integers(1, len(line) - at))
        got += reader.feed(line[at : at + step])
        at += step
    assert got == contents
    assert reader.rejected == 0


@given(CONTENT, st.binary(max_size=300), st.binary(max_size=300))
def test_a_frame_after_garbage_is_read(content, before, after):
    reader = FrameReader()
    got = reader.feed(before) + reader.feed(encode_frame(content)) + reader.feed(after)
    assert content in got


@given(st.binary(min_size=1, max_size=60), st.data())
def test_no_changed_frame_is_accepted(content, data):
    frame = bytearray(encode_frame(content))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(frame) - 1))
        change = data.draw(st.sampled_from(["flip", "drop", "insert"]))
        if change == "flip":
            frame[at] ^= data.draw(st.integers(1, 255))
        elif change == "insert":
            frame.insert(at, data.draw(st.integers(0, 255)))
        elif len(frame) > 1:
            del frame[at]
    assert set(FrameReader().feed(bytes(frame) + b"\0")) <= {content}


def test_a_reader_holds_no_more_than_a_frame():
    reader = FrameReader()
    for _ in range(40):
        reader.feed(b"\x01" * 10_000)
    assert len(reader._held) < FRAME_MAX + 100
    assert reader.feed(encode_frame(b"good")) == [b"good"]
    assert reader.rejected == 1
    longest = bytes(i % 255 + 1 for i in range(FRAME_MAX))
    assert reader.feed(encode_frame(longest)) == [longest]
    for content in (b"", longest + b"x"):
        with pytest.raises(ValueError, match=f"content must have 1..{FRAME_MAX} bytes"):
            encode_frame(content)


@given(st.lists(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9), max_size=5))
def test_joined_packets_come_apart(packets):
    assert split_packets(join_packets(packets, 4), 4) == packets


@pytest.mark.parametrize("joined", [b"\x01", b"\x00\x00", b"\x02\x00abcd", b"\x01\x00abc"])
def test_what_is_no_packet_is_refused(joined):
    with pytest.raises(ValueError, match="packet must have"):
        split_packets(joined, 4)


# --- requests ----------------------------------------------------------------------------------
class Line:
    """A stream to a `DeviceLink` that carries requests out at once and can lose either way."""

    def __init__(self) -> None:
        self.device = DeviceLink(Greeting(VERSION, 4, 1, 16))
        self.carried_out: list[tuple[int, bytes]] = []
        self.deaf = self.mute = False  #: requests, responses are lost
        self.answered = b""

    def write(self, data: bytes) -> None:
        if self.deaf:
            return
        requests, out = self.device.feed(data)
        for request in requests:
            self.carried_out.append((request.kind, request.body))
            out += self.device.respond(request, Status.OK, request.body[::-1])
        self.answered += b"" if self.mute else out

    def read(self, timeout_s: float) -> bytes:
        data, self.answered = self.answered, b""
        return data

    def close(self) -> None:
        pass


def opened(**options) -> tuple[Line, HostLink]:
    line = Line()
    host = HostLink(line, **{"retries": 3, "retry_s": 0.01, **options})
    assert host.open() == Greeting(VERSION, 4, 1, 16)
    line.carried_out.clear()
    return line, host


def test_requests_are_carried_out_in_order():
    line, host = opened()
    posted = [host.post(Kind.SEND, bytes([i, 7])) for i in range(30)]
    assert [host.wait(request) for request in posted] == [
        (Status.OK, bytes([7, i])) for i in range(30)
    ]
    assert [body[0] for _, body in line.carried_out] == list(range(30))
    assert host.repeated == line.device.repeated == 0


def test_a_lost_response_carries_nothing_out_twice():
    line, host = opened()
    line.mute = True
    posted = [host.post(Kind.SEND, bytes([i])) for i in range(WINDOW)]
    line.mute = False
    assert [host.wait(request)[1] for request in posted] == [bytes([i]) for i in range(WINDOW)]
    assert len(line.carried_out) == WINDOW
    assert line.device.repeated >= WINDOW


def test_a_lost_request_keeps_the_order():
    line, host = opened()
    posted = []
    for i in range(6):
        line.deaf = i in (0, 3)
        posted.append(host.post(Kind.SEND, bytes([i])))
    line.deaf = False
    host.settle()
    assert [body[0] for _, body in line.carried_out] == list(range(6))
    assert all(request.response for request in posted)


def test_retries_are_bounded_and_a_failed_link_stays_so():
    line, host = opened(retries=4)
    line.deaf = True
    request = host.post(Kind.READ, b"xx")
    with pytest.raises(LinkError, match=r"no response to 1 requests \(READ\), repeated 4 times"):
        host.wait(request)
    assert host.repeated == 4
    line.deaf = False
    for attempt in (lambda: host.post(Kind.READ, b""), lambda: host.wait(request)):
        with pytest.raises(LinkError, match="no session is open"):
            attempt()
    host.open()
    assert host.wait(host.post(Kind.READ, b"ab")) == (Status.OK, b"ba")


def test_sequence_numbers_come_around():
    line, host = opened()
    host._next = line.device._expected = 65530
    for i in range(40):
        line.mute = i % 7 == 3
        request = host.post(Kind.SEND, bytes([i]))
        line.mute = False
        if i % 5 == 0:
            host.wait(request)
    host.settle()
    assert [body[0] for _, body in line.carried_out] == list(range(40))


def test_a_device_that_was_started_anew_says_so():
    line, host = opened()
    line.device = DeviceLink(Greeting(VERSION, 4, 1, 16))
    with pytest.raises(LinkError, match="knows nothing of this session"):
        host.wait(host.post(Kind.READ, b""))
    host.open()


def test_another_version_is_refused():
    line = Line()
    line.device = DeviceLink(Greeting(VERSION + 1, 4, 1, 16))
    host = HostLink(line, retry_s=0.01)
    with pytest.raises(LinkError, match=f"must speak version {VERSION}, not {VERSION + 1}"):
        host.open()
    with pytest.raises(LinkError, match="no session"):
        host.post(Kind.READ, b"")


def test_responses_to_others_are_not_ours():
    line, host = opened()
    request = host.post(Kind.SEND, b"a")
    _, kept = line.device.feed(b"")
    stranger = DeviceLink(Greeting(VERSION, 4, 1, 1))
    assert kept == b""
    host.wait(request)
    # A response of another session, of another kind, with an unknown status, come twice.
    late = line.device._frame(Kind.READ, host._session, 1, Status.OK, b"wrong")
    other = stranger._frame(Kind.SEND, (host._session + 1) % 2**32, 1, Status.OK, b"wrong")
    unknown = line.device._frame(Kind.SEND, host._session, 1, 77, b"wrong")
    line.mute = True
    request = host.post(Kind.SEND, b"b")
    line.mute = False
    line.answered = late + other + unknown + b"\0\1\2\0"
    assert host.wait(request) == (Status.OK, b"b")
    assert host.rejected == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"retries": -1}, ValueError, "retries must be at least 0, not -1"),
        ({"retries": 1.0}, TypeError, "retries must be an int, not 1.0"),
        ({"retry_s": 0}, ValueError, "retry_s must be positive, not 0"),
    ],
)
def test_arguments_of_the_link(options, error, message):
    with pytest.raises(error, match=message):
        HostLink(Line(), **options)


def test_requests_that_make_no_sense_are_said_to():
    backend = loop(TINY)
    for kind, body in (
        (Kind.SEND, b""),
        (Kind.SEND, b"\0"),
        (Kind.SEND, b"\0abc"),
        (Kind.SEND, b"\1abcd"),
        (Kind.RECEIVE, b"\0"),
        (Kind.RECEIVE, b"\1\0\0"),
        (Kind.READ, b"\0"),
        (Kind.WRITE, b"\0\0\0"),
    ):
        assert backend.link.wait(backend.link.post(kind, body))[0] is Status.MALFORMED
    backend._sent.append(backend.link.post(Kind.SEND, b"\0abc"))
    with pytest.raises(LinkError, match="sending a packet failed: MALFORMED"):
        backend.read_register(0)


def test_a_packet_that_was_not_delivered_is_said_at_the_end():
    served = ByteStreamDevice(FunctionalBackend(TINY), bus_bytes=4)
    deaf = False

    def feed(data: bytes) -> bytes:
        return b"" if deaf else served.feed(data)

    for problem in (None, ZeroDivisionError):
        transport = CallTransport(feed)
        backend = ByteStreamBackend(transport, retries=1, retry_s=0.01)
        with pytest.raises(problem or LinkError), Driver(backend, TINY) as driver:
            driver.write([1] * 4, [1] * 4)
            deaf = True
            driver.write([1] * 4, [1] * 4)
            if problem:
                raise problem
        deaf = False
        backend.close()
        with pytest.raises(LinkError, match="no session is open"):
            backend.read_register(0)


def test_a_device_that_fails_is_said_to():
    class Broken(FunctionalBackend):
        def send_packet(self, head, beats):
            raise DriverError("the fuse is blown")

    device = ByteStreamDevice(Broken(TINY), bus_bytes=4)
    backend = ByteStreamBackend(CallTransport(device.feed), retry_s=0.01)
    with Driver(backend, TINY) as driver, pytest.raises(LinkError, match="the fuse is blown"):
        driver.flush()
        driver.wait_idle()


# --- noise -------------------------------------------------------------------------------------
class Noise:
    """Changes, drops and invents bytes."""

    def __init__(self, seed: int, share: float) -> None:
        self.rng, self.share = np.random.default_rng(seed), share
        self.hits = 0

    def __call__(self, data: bytes) -> bytes:
        out = bytearray()
        hits = self.rng.random(len(data)) < self.share
        for byte, hit in zip(data, hits, strict=True):
            kind = self.rng.integers(3) if hit else -1
            self.hits += int(hit)
            if kind == 0:
                out.append(byte ^ int(self.rng.integers(1, 256)))
            elif kind == 1:
                out += bytes([byte, int(self.rng.integers(256))])
            elif kind == -1:
                out.append(byte)
        return bytes(out)


def loop(params, noise=lambda data: data, **options) -> ByteStreamBackend:
    """A device at the end of a stream with noise in both directions."""
    analog = AnalogParams.matching(params, s_sat_ua=5.0, a_sat_ua=2.5)
    served = ByteStreamDevice(
        FunctionalBackend(params, analog), bus_bytes=params.bus_bits // 8, heads=params.heads
    )
    transport = CallTransport(lambda data: noise(served.feed(noise(data))))
    return ByteStreamBackend(transport, **{"retry_s": 0.01, **options})


def random_token(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return rng.integers(0, 8, 4), rng.integers(0, 8, 4), rng.integers(0, 16, 4)


def recovered(driver: Driver, noise: Noise) -> None:
    """Recover; without retries that would hardly ever succeed in noise."""
    share, noise.share = noise.share, 0.0
    driver.recover()
    noise.share = share


def model() -> FunctionalHead:
    return FunctionalHead(AnalogParams.matching(TINY, s_sat_ua=5.0, a_sat_ua=2.5))


@pytest.mark.parametrize("seed", range(3))
def test_one_byte_in_a_hundred_is_repaired(seed):
    rng, noise, head = np.random.default_rng(seed), Noise(seed, 0.01), model()
    backend = loop(TINY, noise, retries=60)
    with Driver(backend, TINY) as driver:
        for token in range(60):
            k, v, q = random_token(rng)
            driver.submit(q, k=k, v=v)
            head.write(k, v)
            assert driver.collect().sums.tolist() == head.query(q).sums.tolist()
            if token % 20 == 0:
                driver.configure(age_budget=token % 16)
                assert driver.settings()["age_budget"] == token % 16
        assert driver.counters().tokens == 60, "no token is lost and none is written twice"
        assert driver.counters().refused == 0
    assert noise.hits > 50 and backend.link.repeated > 20 and backend.link.rejected > 5


@pytest.mark.parametrize("seed", range(3))
def test_every_loss_is_an_error_and_nothing_wrong_is_accepted(seed):
    """Without retries a loss cannot be repaired: it is said, and what is not said is right."""
    rng, noise, head = np.random.default_rng(seed), Noise(seed, 0.0), model()
    driver = Driver(loop(TINY, noise, retries=0), TINY)
    noise.share = 0.01
    good = lost = hits = 0
    while good + lost < 100:
        k, v, q = random_token(rng)
        try:
            driver.submit(q, k=k, v=v)
            sums = driver.collect().sums
        except LinkError:
            lost += 1
            assert noise.hits > hits, "only what was damaged is lost"
            recovered(driver, noise)
            head.flush()
            hits = noise.hits
            continue
        head.write(k, v)
        good += 1
        assert sums.tolist() == head.query(q).sums.tolist()
    assert good > 20 and lost > 10


def test_registers_over_a_noisy_link_without_retries():
    rng, noise = np.random.default_rng(5), Noise(5, 0.0)
    driver = Driver(loop(TINY, noise, retries=0), TINY)
    noise.share = 0.01
    good = lost = 0
    while good + lost < 60:
        trim = int(rng.integers(-16, 16))
        try:
            driver.write_fields("trim", 2, offset=trim)
            assert driver.read("trim", 2) == {"offset": trim}
            good += 1
        except LinkError:
            lost += 1
            recovered(driver, noise)
    assert good > 10 and lost > 10


def test_many_answers_in_one_response():
    rng, head = np.random.default_rng(6), model()
    with Driver(loop(TINY), TINY) as driver:
        expected = []
        for _ in range(300):
            k, v, q = random_token(rng)
            driver.submit(q, k=k, v=v)
            head.write(k, v)
            expected.append(head.query(q).sums.tolist())
        assert [driver.collect().sums.tolist() for _ in range(300)] == expected


# --- streams -----------------------------------------------------------------------------------
def serve(transport) -> threading.Thread:
    served = ByteStreamDevice(FunctionalBackend(TINY), bus_bytes=4)
    thread = threading.Thread(target=served.serve, args=(transport,), daemon=True)
    thread.start()
    return thread


@needs_terminals
def test_a_pseudo_terminal():
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    thread = serve(FileTransport(theirs))
    with Driver(ByteStreamBackend(FileTransport(ours)), TINY) as driver:
        driver.attend(np.full((20, 4), 15), np.full((20, 4), 7), np.full((20, 4), 7))
        assert driver.counters().tokens == 20
    thread.join(5)
    assert not thread.is_alive()
    transport = FileTransport(os.dup(0))
    transport.close()
    transport.close()
    for attempt in (lambda: transport.read(0), lambda: transport.write(b"x")):
        with pytest.raises(LinkError, match="the stream is closed"):
            attempt()


def test_a_socket_that_is_closed():
    ours, theirs = socket.socketpair()
    thread = serve(SocketTransport(theirs))
    backend = ByteStreamBackend(SocketTransport(ours))
    with pytest.raises(Timeout, match=r"receiving from head 0 has not ended within 0\.05 s"):
        backend.receive_packet(0, 0.05)
    backend.close()
    thread.join(5)
    assert not thread.is_alive()
    with pytest.raises(LinkError, match="no session is open"):
        backend.read_register(0)
    ours, theirs = socket.socketpair()
    theirs.close()
    with pytest.raises(LinkError):
        ByteStreamBackend(SocketTransport(ours))
    ours.close()
    closed = CallTransport(lambda data: b"")
    closed.close()
    with pytest.raises(LinkError, match="the stream is closed"):
        closed.write(b"x")
