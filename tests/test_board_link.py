"""A board's line: bits, frames, requests; byte by byte what the link in software does."""

from __future__ import annotations

import random

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator

import boards.link
import sim.driver.link
from boards.board import HeadWithArrays
from boards.frame_receiver import QUEUE, FrameReceiver
from boards.frame_sender import FrameSender
from boards.link import Link
from boards.params import BoardParams
from boards.responder import SLOTS
from boards.serial_port import SerialPort
from hw.packet import Command, token_beats
from hw.presets import PRESETS
from hw.registers import RegisterMap
from sim.board import loopback_device
from sim.board_params import emulator_params
from sim.driver.framing import FrameReader, cobs_encode, encode_frame
from sim.driver.link import WINDOW, Kind, Status

HEAD = PRESETS["tiny"]
BOARD = BoardParams(emulator=emulator_params(HEAD), clk_hz=1_000, baud=250)
REGISTERS = RegisterMap(HEAD)


def simulate(top, *benches) -> None:
    """Run benches; the last one ends the simulation."""
    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    for bench in benches[:-1]:
        simulator.add_testbench(bench, background=True)
    simulator.add_testbench(benches[-1])
    simulator.run()


# --- bits --------------------------------------------------------------------------------------
def serve_line(bit_clk: int, levels: list[tuple[int, float]]) -> list[int]:
    """Bytes that a port receives from a line of levels, each held for so many bits."""
    port, got = SerialPort(bit_clk), []

    async def bench(ctx):
        clocks = time = 0.0
        for level, bits in [(1, 3), *levels, (1, 3)]:
            ctx.set(port.rx, level)
            time += bits * bit_clk
            while clocks < time:
                _, _, valid, byte = await ctx.tick().sample(port.valid, port.received)
                clocks += 1
                if valid:
                    got.append(byte)

    simulate(port, bench)
    return got


def levels_of(byte: int, stop: int = 1, scale: float = 1.0) -> list[tuple[int, float]]:
    return [(0, scale), *((byte >> bit & 1, scale) for bit in range(8)), (stop, scale)]


@pytest.mark.parametrize("bit_clk", [3, 4, 12, 25])
@pytest.mark.parametrize("scale", [0.98, 1.0, 1.02])
def test_bytes_are_received_from_a_port_that_is_a_little_off(bit_clk, scale):
    sent = [0x00, 0xFF, 0x55, 0xA5, 0x01, 0x80]
    if bit_clk < 5:
        scale = 1.0  # so few clocks leave no room
    assert serve_line(bit_clk, [lv for byte in sent for lv in levels_of(byte, scale=scale)]) == sent


def test_a_late_start_costs_none_of_the_bytes_that_follow_at_once():
    sent = [0x00, 0x06, 0x01, 0x01, 0xFF]
    levels = [lv for byte in sent for lv in levels_of(byte)]
    assert serve_line(4, [(0, 0.75), *levels[1:]]) == sent


def test_a_byte_without_a_stop_bit_is_none():
    good, broken = levels_of(0x12), levels_of(0x34, stop=0)
    assert serve_line(8, [*good, *broken, (0, 30), (1, 2), *good]) == [0x12, 0x12]


def test_a_glitch_is_no_start_bit():
    assert serve_line(16, [(0, 0.25), (1, 2), *levels_of(0x12)]) == [0x12]


def test_bytes_are_sent_as_bits():
    port, seen = SerialPort(5), []

    async def send(ctx):
        for byte in (0x35, 0x00):
            ctx.set(port.send.payload, byte)
            ctx.set(port.send.valid, 1)
            await ctx.tick().until(port.send.ready)
        ctx.set(port.send.valid, 0)

    async def watch(ctx):
        for _ in range(130):
            _, _, level = await ctx.tick().sample(port.tx)
            seen.append(level)

    simulate(port, send, watch)
    start = seen.index(0)
    bits = seen[start + 2 :: 5]
    wanted = [level for level, _ in levels_of(0x35)]
    assert bits[:10] == wanted
    second = start + 50 + seen[start + 50 :].index(0)
    assert seen[second + 2 :: 5][:10] == [level for level, _ in levels_of(0x00)]
    assert all(seen[:start]) and all(seen[second + 50 :])


# --- frames ------------------------------------------------------------------------------------
def received_frames(data: bytes, frame_bytes: int = 64) -> tuple[list[bytes | int], int]:
    """Contents that a receiver queues, or the length of one too long; stretches rejected."""
    receiver, got, rejected = FrameReceiver(frame_bytes), [], 0

    async def feed(ctx):
        nonlocal rejected
        for byte in [*data, None, None, None]:
            ctx.set(receiver.valid, byte is not None)
            ctx.set(receiver.received, byte or 0)
            for _ in range(2):
                _, _, bad = await ctx.tick().sample(receiver.rejected)
                rejected += bad
                ctx.set(receiver.valid, 0)
            while ctx.get(receiver.waiting):
                length = ctx.get(receiver.length)
                content = bytearray()
                for index in range(length if length <= frame_bytes else 0):
                    ctx.set(receiver.index, index)
                    await ctx.tick()
                    content.append(ctx.get(receiver.byte))
                got.append(bytes(content) if length <= frame_bytes else length)
                ctx.set(receiver.take, 1)
                await ctx.tick()
                ctx.set(receiver.take, 0)

    simulate(receiver, feed)
    return got, rejected


def test_frames_are_read_whatever_stands_between_them():
    rng = random.Random(5)
    line, frames = b"", 0
    for _ in range(120):
        content = bytes(rng.choices(range(256), k=rng.randrange(1, 50), weights=[60] + [1] * 255))
        frame = bytearray(encode_frame(content))
        match rng.randrange(6):
            case 0:  # a byte changed
                frame[rng.randrange(len(frame))] ^= rng.randrange(1, 256)
            case 1:  # a byte lost
                del frame[rng.randrange(len(frame))]
            case 2:  # one come from nowhere
                frame.insert(rng.randrange(len(frame)), rng.randrange(256))
            case 3:
                frame = bytearray(rng.randbytes(rng.randrange(20)))
        frames += 1
        line += bytes(frame)
    reader = FrameReader()
    wanted = reader.feed(line + b"\0")
    assert 30 < len(wanted) < frames
    assert received_frames(line + b"\0") == (wanted, reader.rejected)


def test_garbage_at_any_byte_costs_one_frame_at_most():
    rng = random.Random(6)
    first, good = encode_frame(b"\0\1first\0"), encode_frame(b"good")
    line = b""
    for at in range(len(first) + 1):
        line += first[:at] + rng.randbytes(rng.randrange(1, 9)) + first[at:] + good
    reader = FrameReader()
    wanted = reader.feed(line)
    assert wanted.count(b"good") == len(first) + 1
    assert received_frames(line) == (wanted, reader.rejected)


@pytest.mark.parametrize("size", [1, 59, 60, 61, 64, 65, 100, 253, 254, 255, 600])
def test_of_a_long_frame_the_length_is_told(size):
    for content in (bytes(size), bytes(1 + i % 255 for i in range(size))):
        got, rejected = received_frames(encode_frame(content))
        assert got == [content] if size <= 64 else got[0] > 64
        assert rejected == 0


def test_a_full_queue_drops_a_frame_and_keeps_the_others():
    receiver, lengths = FrameReceiver(64), []

    async def bench(ctx):
        async def feed(data):
            for byte in data:
                ctx.set(receiver.valid, 1)
                ctx.set(receiver.received, byte)
                await ctx.tick()
            ctx.set(receiver.valid, 0)
            await ctx.tick().repeat(3)

        async def take():
            lengths.append(ctx.get(receiver.length))
            ctx.set(receiver.take, 1)
            await ctx.tick()
            ctx.set(receiver.take, 0)

        for size in range(1, QUEUE + 2):
            await feed(encode_frame(b"x" * size))
        await take()
        await feed(encode_frame(b"y" * 20))
        while ctx.get(receiver.waiting):
            await take()

    simulate(receiver, bench)
    assert lengths == [*range(1, QUEUE + 1), 20]


def test_frames_are_sent_as_software_stuffs_them():
    rng = random.Random(7)
    contents = [
        b"\0", b"\1", b"\0\0\0", bytes(range(254)), bytes(range(1, 255)), bytes(range(1, 256)),
        bytes(range(1, 256)) + b"\0", b"\1" * 254 + b"\0", b"\1" * 253 + b"\0\2", b"\1" * 512,
        *(bytes(rng.choices((0, 1, 2), k=rng.randrange(1, 30))) for _ in range(10)),
    ]  # fmt: skip
    sender, sent = FrameSender(512), []

    async def memory(ctx):
        while True:
            _, _, index = await ctx.tick().sample(sender.index)
            ctx.set(sender.byte, current[0][index] if index < len(current[0]) else 0)

    async def bench(ctx):
        for content in contents:
            current[0] = content
            ctx.set(sender.length, len(content))
            ctx.set(sender.start, 1)
            await ctx.tick()
            ctx.set(sender.start, 0)
            sent.append(bytearray())
            while ctx.get(sender.busy):
                ctx.set(sender.send.ready, rng.random() < 0.5)
                _, _, valid, ready, byte = await ctx.tick().sample(
                    sender.send.valid, sender.send.ready, sender.send.payload
                )
                if valid and ready:
                    sent[-1].append(byte)

    current = [b""]
    simulate(sender, memory, bench)
    assert [bytes(frame) for frame in sent] == [
        b"\0" + cobs_encode(content) + b"\0" for content in contents
    ]


# --- requests ----------------------------------------------------------------------------------
def talk(messages: list[bytes], quiet_clk: int = 400, params: BoardParams = BOARD) -> list[bytes]:
    """What a link with a head behind it answers to each message, until it has nothing to say."""
    top, answers = Module(), []
    top.submodules.link = link = Link(params)
    top.submodules.head = head = HeadWithArrays(params)
    connect(top, link.device, head.device)

    async def bench(ctx):
        ctx.set(link.send.ready, 1)
        for message in messages:
            answers.append(bytearray())
            left, quiet = list(message), 0
            while left or quiet < quiet_clk:
                quiet += 1
                if left:
                    ctx.set(link.received, left.pop(0))
                    ctx.set(link.valid, 1)
                    quiet = 0
                _, _, valid, byte = await ctx.tick().sample(link.send.valid, link.send.payload)
                ctx.set(link.valid, 0)
                if valid:
                    answers[-1].append(byte)
                    quiet = 0
                for _ in range(2 if left else 0):
                    _, _, valid, byte = await ctx.tick().sample(link.send.valid, link.send.payload)
                    if valid:
                        answers[-1].append(byte)

    simulate(top, bench)
    return [bytes(answer) for answer in answers]


def request(kind: int, sequence: int, body: bytes = b"", session: int = 0x01020304) -> bytes:
    header = bytes([kind]) + session.to_bytes(4, "little") + sequence.to_bytes(2, "little")
    return encode_frame(header + body)


def token(command: Command, tag: int, rng: random.Random, **shot) -> bytes:
    """Body of a SEND."""
    codes = {}
    if command.writes:
        codes["k"] = [rng.randrange(8) for _ in range(HEAD.rows)]
        codes["v"] = [rng.randrange(8) for _ in range(HEAD.lanes)]
    if command.queries:
        codes["q"] = [rng.randrange(16) for _ in range(HEAD.rows)]
    beats = token_beats(HEAD, command, tag, **codes)
    return b"\0" + b"".join(beat.to_bytes(BOARD.bus_bytes, "little") for beat in beats)


def test_both_ends_speak_of_the_same():
    for ours, theirs in ((boards.link.Kind, Kind), (boards.link.Status, Status)):
        assert {item.name: int(item) for item in ours} == {item.name: int(item) for item in theirs}
    assert boards.link.VERSION == sim.driver.link.VERSION
    assert QUEUE == WINDOW == SLOTS - 1


def test_every_answer_is_the_one_that_software_gives():
    """Requests in and out of order, of any session, right and wrong, with garbage between."""
    rng = random.Random(11)
    wait = (2).to_bytes(2, "little")
    bodies = [
        *((Kind.SEND, token(Command.WRITE_QUERY, tag, rng)) for tag in range(3)),
        *((Kind.RECEIVE, b"\0" + wait) for _ in range(4)),
        (Kind.SEND, token(Command.WRITE, 9, rng)),
        (Kind.SEND, token(Command.WRITE, 10, rng) + bytes(4)),  # too long: the head refuses it
        (Kind.SEND, token(Command.QUERY, 11, rng)),
        (Kind.DELIVER, wait),
        (Kind.RECEIVE, b"\0" + wait),
        (Kind.SEND, b"\0" + (7 | 12 << 8).to_bytes(4, "little")),  # no command, and an answer
        (Kind.RECEIVE, b"\0" + wait),
        *(
            (Kind.READ, REGISTERS[name].offset.to_bytes(2, "little"))
            for name in ("id", "version", "config_hash", "occupancy", "pointer", "s_levels")
        ),
        (Kind.WRITE, REGISTERS["s_levels"].offset.to_bytes(2, "little") + b"\1\2\3\4"),
        (Kind.READ, REGISTERS["s_levels"].offset.to_bytes(2, "little")),
        (Kind.READ, b"\xfc\x0f"),  # nothing is there
        (Kind.READ, b"\0\x10"),  # outside
        (Kind.WRITE, b"\0\x10" + bytes(4)),
        (Kind.WRITE, REGISTERS["id"].offset.to_bytes(2, "little") + bytes(4)),
        (Kind.BUILD, b""),
        # What makes no sense.
        (Kind.SEND, b""), (Kind.SEND, b"\0"), (Kind.SEND, b"\0abc"), (Kind.SEND, b"\1abcd"),
        (Kind.RECEIVE, b"\0"), (Kind.RECEIVE, b"\1\0\0"),
        (Kind.READ, b"\0"), (Kind.WRITE, b"\0\0\0"), (Kind.DELIVER, b""), (Kind.BUILD, b"x"),
        (0, b""), (8, b""), (0x81, b""), (255, b"123456789"),
    ]  # fmt: skip
    messages = [
        request(Kind.READ, 0, b"\0\0"),  # no session yet
        request(Kind.OPEN, 0),
        request(Kind.OPEN, 0),
    ]
    for sequence, (kind, body) in enumerate(bodies):
        messages.append(request(kind, sequence, body))
        if rng.random() < 0.3:  # once more, or one long past, or not yet its turn
            again = max(0, sequence - rng.choice((0, 1, WINDOW - 1, WINDOW, 20)))
            messages.append(request(*bodies[again][:1], again, bodies[again][1]))
            messages.append(request(Kind.READ, sequence + rng.choice((2, 9, 40_000)), b"\0\0"))
        if rng.random() < 0.2:
            messages.append(b"\0" + rng.randbytes(rng.randrange(12)).replace(b"\0", b"x") + b"\0")
            messages.append(encode_frame(b"short"))
            messages.append(request(kind, sequence, body, session=99))
    # A new session forgets what waits, and begins anew with 0.
    messages += [
        request(Kind.SEND, len(bodies), token(Command.QUERY, 77, rng)),
        request(Kind.OPEN, 0, session=5),
        request(Kind.RECEIVE, 0, b"\0" + wait, session=5),
        request(Kind.READ, 1, b"\0\0"),
    ]
    device = loopback_device(BOARD)
    wanted = [device.feed(message) for message in messages]
    got = talk(messages)
    for number, message in enumerate(messages):
        assert got[number].hex() == wanted[number].hex(), (number, message.hex())
    assert sum(map(bool, wanted)) > 50


@pytest.mark.parametrize("beats", [14, 15, 33, 70])
def test_a_packet_longer_than_a_frame_is_said_to_be(beats):
    body = b"\0" + bytes(4 * beats)
    answers = talk([request(Kind.OPEN, 0), request(Kind.SEND, 0, body)])
    fits = len(body) + 7 <= BOARD.frame_bytes
    assert fits == (beats == 14)
    wanted = Status.OK if fits else Status.MALFORMED
    assert FrameReader().feed(answers[1])[0][7] == wanted


def test_several_requests_at_once_are_carried_out_in_order():
    rng = random.Random(12)
    wait = (900).to_bytes(2, "little")
    requests = [request(Kind.OPEN, 0)]
    requests += [
        request(Kind.SEND, sequence, token(Command.WRITE_QUERY, sequence, rng))
        for sequence in range(4)
    ]
    requests += [request(Kind.RECEIVE, sequence, b"\0" + wait) for sequence in range(4, 7)]
    message = b"".join(requests)
    assert talk([message], quiet_clk=1500) == [loopback_device(BOARD).feed(message)]


def test_packets_that_are_not_taken_are_refused_after_a_while():
    """The head is told to take nothing; its queue fills; what is in it is carried out later."""
    rng = random.Random(13)
    control = REGISTERS["control"]
    off, on = (
        control.offset.to_bytes(2, "little")
        + (control["enable"].mask * value).to_bytes(4, "little")
        for value in (0, 1)
    )
    packets = [token(Command.WRITE, tag, rng) for tag in range(16)]
    messages = [request(Kind.OPEN, 0), request(Kind.WRITE, 0, off)]
    messages += [request(Kind.SEND, 1 + tag, packet) for tag, packet in enumerate(packets)]
    messages += [
        request(Kind.DELIVER, 17, b"\3\0"),
        request(Kind.WRITE, 18, on),
        request(Kind.DELIVER, 19, b"\3\0"),
        request(Kind.READ, 20, REGISTERS["tokens"].offset.to_bytes(2, "little")),
    ]
    answers = [FrameReader().feed(answer)[0] for answer in talk(messages)]
    statuses = [Status(answer[7]) for answer in answers]
    held = statuses.index(Status.FAILED) - 2
    assert held * (HEAD.token_beats - 1) <= BOARD.token_beats
    assert set(statuses[2 : 2 + held]) == {Status.OK}
    assert set(statuses[2 + held : 18]) == {Status.FAILED}
    assert statuses[18:] == [Status.NOTHING, Status.OK, Status.OK, Status.OK]
    assert int.from_bytes(answers[-1][8:], "little") == held
