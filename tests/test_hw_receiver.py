"""Receiver against the parse of whole packets, with stalls on both sides."""

from __future__ import annotations

import dataclasses
import random

import pytest
from test_hw_bench import (
    COMPLETE,
    HEADS,
    PARTIAL,
    SMALL,
    STREAMING,
    Clocked,
    StreamRules,
    elaborated,
    every_kind,
    pack,
    seeds,
    simulate,
    small,
    stalls,
)

from hw.packet import SHOT_LSB, Command, PacketError, Shot, token_beats
from hw.receiver import Receiver, packet_layout
from sim.reference.receiver import Kept, Parsed, kept_codes, parse

COMMANDS = tuple(Command)
SHOT_FIELDS = ("s_gain", "a_gain", "accumulate", "hold", "shift")
#: Heads of each kind for what does not depend on the shape.
few = small("tiny", "bytes-streaming", "tiny-complete", "slow-write-complete-simple", "bytes-shots")


def sections(params, command, rng):
    def codes(count, bits):
        return [rng.choice((0, 2**bits - 1, rng.getrandbits(bits))) for _ in range(count)]

    fields = {}
    if command.writes:
        fields["k"] = codes(params.rows, params.kv_bits)
        fields["v"] = codes(params.lanes, params.kv_bits)
    if command.queries:
        fields["q"] = codes(params.rows, params.q_bits)
    return fields


def random_shot(params, command, rng):
    """A shot that the command and the head allow; most of them plain."""
    if not (command.queries and params.shots) or rng.random() < 0.3:
        return Shot()
    return Shot.from_field(rng.getrandbits(8))


def good(params, command, rng, tag=None):
    tag = rng.randrange(2**params.tag_bits) if tag is None else tag
    shot = random_shot(params, command, rng)
    return token_beats(params, command, tag, **sections(params, command, rng), shot=shot)


def traffic(params, rng, count):
    """Packets, most of them damaged in one way or another."""
    packets = []
    for _ in range(count):
        beats = good(params, rng.choice(COMMANDS), rng)
        kinds = ("good", "good", "short", "long", "bit", "header", "shot", "noise", "padding")
        kind = rng.choice(kinds)
        if kind == "short":
            beats = beats[: rng.randint(1, len(beats))]
        elif kind == "long":
            beats += [rng.getrandbits(params.bus_bits) for _ in range(rng.randint(1, 4))]
        elif kind == "bit":
            beats[rng.randrange(len(beats))] ^= 1 << rng.randrange(params.bus_bits)
        elif kind == "header":
            beats[0] = beats[0] & ~0xFF | rng.choice((0, 5, 6, 7, 8, 0x81, 0x82, 0x84, 0xFF))
        elif kind == "shot":
            beats[0] |= rng.getrandbits(8) << SHOT_LSB
        elif kind == "noise":
            beats = [rng.getrandbits(params.bus_bits) for _ in range(rng.randint(1, 5))]
            beats[0] = beats[0] & ~0xFF | rng.randrange(6)
        elif kind == "padding":
            beats[-1] |= 1 << params.bus_bits - 1
        packets.append(beats)
    return packets


class PacketPort:
    """The packet stream as plain values, and what has been taken from it."""

    def __init__(self, clk: Clocked, params) -> None:
        self.clk, self.params, self.port = clk, params, clk.dut.packet
        self.taken: list[Parsed] = []

    def ready(self, value) -> None:
        self.clk.ctx.set(self.port.ready, int(value))

    def valid(self) -> int:
        return self.clk.ctx.get(self.port.valid)

    def everything(self):
        """What must not change while the packet waits: payload and codes."""
        payload = self.clk.ctx.get(self.port.payload)
        fields = tuple(
            int(getattr(payload, name)) for name in ("writes", "queries", "flushes", "tag", "error")
        )
        return fields + self.clk.get("k_codes", "v_codes", "q_codes") + (self.shot(),)

    def shot(self):
        if not self.params.shots:
            return ()
        payload = self.clk.ctx.get(self.port.payload)
        return tuple(int(getattr(payload, name)) for name in SHOT_FIELDS)

    def check(self, expected: Parsed) -> None:
        """The packet offered says what is expected."""
        e, got = expected, self.everything()
        assert got[:5] == (e.writes, e.queries, e.flushes, e.tag, e.error)
        if self.params.shots and e.error is PacketError.NONE:
            assert got[-1] == tuple(getattr(e.shot, name) for name in SHOT_FIELDS)
        assert e.k is None or got[5] == pack(e.k, self.params.kv_bits)
        if not self.params.streaming:
            self._check_v_and_q(Kept(e.v, e.q))

    def check_kept(self) -> None:
        """V and Q of earlier packets stay as they are, whatever comes in."""
        if self.params.streaming:
            self._check_v_and_q(kept_codes(self.taken))

    def _check_v_and_q(self, codes: Kept) -> None:
        p = self.params
        assert codes.v is None or self.clk.get("v_codes") == pack(codes.v, p.kv_bits)
        assert codes.q is None or self.clk.get("q_codes") == pack(codes.q, p.q_bits)


async def send(port: PacketPort, beats, *, last=True) -> None:
    """Send beats without stalls; the receiver must be ready throughout."""
    clk = port.clk
    for i, beat in enumerate(beats):
        clk.set(s_axis_tdata=beat, s_axis_tvalid=1, s_axis_tlast=last and i == len(beats) - 1)
        assert clk.get("s_axis_tready", "quiet") == (1, i == 0)
        port.check_kept()
        await clk.edge()
    clk.set(s_axis_tvalid=0, s_axis_tlast=0)


async def take(port: PacketPort, beats) -> None:
    """Check that the packet of these beats is offered in this very clock, and take it."""
    clk, expected = port.clk, parse(port.params, beats)
    assert port.valid(), "the packet is offered one clock after its last beat"
    port.check(expected)
    port.check_kept()
    assert clk.get("s_axis_tready", "quiet") == (0, 0), "one packet is held at a time"
    port.ready(1)
    await clk.edge()
    port.ready(0)
    port.taken.append(expected)
    port.check_kept()
    assert not port.valid()
    assert clk.get("s_axis_tready", "quiet") == (1, 1)


def run_packets(params, packets) -> None:
    async def bench(clk: Clocked) -> None:
        port = PacketPort(clk, params)
        for beats in packets:
            await send(port, beats)
            await take(port, beats)

    simulate(Receiver(params), bench)


@every_kind()
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_good_packets(params, command):
    rng = random.Random(3)
    top = 2**params.tag_bits - 1
    packets = [good(params, command, rng, tag) for tag in (0, 1, top, top // 2 + 1)]
    assert all(parse(params, beats).error is PacketError.NONE for beats in packets)
    run_packets(params, packets)


@every_kind()
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_wrong_length(params, command):
    rng = random.Random(4)
    beats = good(params, command, rng)
    packets = [beats[:n] for n in range(1, len(beats))]
    packets += [beats + [rng.getrandbits(params.bus_bits)] * n for n in (1, 2, 5)]
    assert all(parse(params, packet).error is PacketError.LENGTH for packet in packets)
    good_after = good(params, Command.WRITE_QUERY, rng)
    run_packets(params, [packet for bad in packets for packet in (bad, good_after)])


@few
def test_every_command_byte(params):
    rng = random.Random(5)
    packets = []
    for number in range(256):
        tag = rng.randrange(2**params.tag_bits)
        header = number | tag << 8
        packets.append([header])
        if number not in tuple(Command):
            packets.append([header, 0, 2**params.bus_bits - 1])
            assert parse(params, packets[-1]).error is PacketError.COMMAND
            assert parse(params, packets[-1]).queries == bool(number & 2)
    run_packets(params, packets)


@every_kind()
def test_every_header_bit(params):
    rng = random.Random(6)
    packets = []
    for command in COMMANDS:
        for bit in range(params.bus_bits):
            beats = token_beats(params, command, 0, **sections(params, command, rng))
            beats[0] ^= 1 << bit
            packets.append(beats)
            if bit >= 8 + params.tag_bits:
                shot = SHOT_LSB <= bit < SHOT_LSB + 8 and params.shots and command.queries
                error = PacketError.NONE if shot else PacketError.COMMAND
                assert parse(params, beats).error is error
    run_packets(params, packets)


@small("tiny-complete", "slow-write-complete-simple", *PARTIAL)
def test_every_shot(params):
    """Every field of a query's header goes with the packet, and is an error in any other packet."""
    rng = random.Random(11)
    packets = []
    for field in range(256):
        command = rng.choice((Command.QUERY, Command.WRITE_QUERY))
        beats = token_beats(params, command, 0, **sections(params, command, rng))
        beats[0] |= field << SHOT_LSB
        packets.append(beats)
        parsed = parse(params, beats)
        if params.shots:
            assert (parsed.error, parsed.shot) == (PacketError.NONE, Shot.from_field(field))
        else:
            assert parsed.error is (PacketError.COMMAND if field else PacketError.NONE)
        command = rng.choice((Command.WRITE, Command.FLUSH))
        beats = token_beats(params, command, 0, **sections(params, command, rng))
        beats[0] |= (field or 1) << SHOT_LSB
        assert parse(params, beats).error is PacketError.COMMAND
        packets.append(beats)
    run_packets(params, packets)


@small()
def test_every_payload_bit(params):
    """A bit above a code's width is an error, a code's own bit is a code, padding is ignored."""
    rng = random.Random(7)
    packets, errors = [], set()
    for command in (Command.WRITE, Command.QUERY, Command.WRITE_QUERY):
        clean = token_beats(params, command, 0, **{
            name: [0] * len(codes) for name, codes in sections(params, command, rng).items()
        })  # fmt: skip
        for beat in range(1, len(clean)):
            for bit in range(params.bus_bits):
                beats = clean.copy()
                beats[beat] ^= 1 << bit
                packets.append(beats)
                errors.add(parse(params, beats).error)
    assert errors == {PacketError.NONE, PacketError.CODE}
    run_packets(params, packets if len(packets) < 1500 else rng.sample(packets, 1500))


@few
def test_first_error_in_order_is_reported(params):
    rng = random.Random(8)
    beats = good(params, Command.WRITE_QUERY, rng)
    wide = beats.copy()
    wide[1] |= 1 << params.kv_bits
    packets = {
        PacketError.CODE: [wide],
        PacketError.LENGTH: [wide[:-1], wide[:2], [*wide, 0]],
        PacketError.COMMAND: [[wide[0] | 0x80, *wide[1:]], [wide[0] | 0x80], [wide[0] | 0x80] * 99],
    }
    if not params.shots:
        packets[PacketError.COMMAND].append([wide[0] | 1 << SHOT_LSB, *wide[1:-1]])
    for error, bad in packets.items():
        assert {parse(params, packet).error for packet in bad} == {error}
    # A refusal leaves nothing behind in the next packet.
    run_packets(params, [p for bad in packets.values() for x in bad for p in (x, beats)])


@every_kind()
def test_packet_waits_unchanged_and_holds_the_stream_off(params):
    rng = random.Random(9)
    port_rules = StreamRules("packet")

    async def bench(clk: Clocked) -> None:
        port = PacketPort(clk, params)
        for command in COMMANDS:
            beats = good(params, command, rng)
            await send(port, beats)
            for _ in range(20):
                # A next header is waiting: it must not be taken.
                clk.set(s_axis_tvalid=1, s_axis_tlast=1, s_axis_tdata=rng.getrandbits(8))
                assert clk.get("s_axis_tready") == 0
                port_rules.clock(port.valid(), 0, port.everything())
                await clk.edge()
            clk.set(s_axis_tvalid=0)
            port_rules.clock(port.valid(), 1, port.everything())
            await take(port, beats)

    simulate(Receiver(params), bench)


@small(*STREAMING, *(name for name in COMPLETE if HEADS[name].streaming))
def test_v_and_q_stay_while_other_packets_come_in(params):
    """A packet's V and Q stay through the beats of the next, and through any that is refused."""
    rng = random.Random(10)
    packets = [good(params, Command.WRITE_QUERY, rng)]
    for command in (Command.WRITE_QUERY, Command.QUERY, Command.WRITE, Command.FLUSH):
        bad = good(params, command, rng)
        packets += [[*bad, 0], [bad[0] | 0x80, *bad[1:]], bad[:-1] or [0]]
        if command.writes:
            wide = bad.copy()
            wide[1] |= 1 << params.slot_bits - 1
            assert params.slot_bits == params.kv_bits or (
                parse(params, wide).error is PacketError.CODE
            )
            packets.append(wide)
        packets.append(good(params, command, rng))
    assert len({kept_codes([parse(params, p) for p in packets[: n + 1]]).v
                for n in range(len(packets))}) > 1  # fmt: skip
    run_packets(params, packets)


@every_kind()
@seeds()
def test_random_packets_and_stalls(params, seed):
    rng = random.Random(seed)
    packets = traffic(params, rng, 50)
    beats = [(b, i == len(p) - 1) for p in packets for i, b in enumerate(p)]

    async def bench(clk: Clocked) -> None:
        port, rules = PacketPort(clk, params), StreamRules("packet")
        send_stall, take_stall, pauses = stalls(rng), stalls(rng), stalls(rng)
        sent = received = 0
        inside = False  # a packet whose header has been taken is not complete yet
        offered = taken_last = False
        while received < len(packets):
            # A sender must not withdraw a beat that it has offered.
            offered = sent < len(beats) and (offered or not send_stall())
            data, last = beats[sent] if offered else (rng.getrandbits(params.bus_bits), False)
            clk.set(s_axis_tvalid=offered, s_axis_tdata=data, s_axis_tlast=last)
            pause = pauses()
            clk.set(pause=pause)
            # Valid must not wait for ready: it is there in the clock after the last beat.
            assert port.valid() or not taken_last
            ready = not take_stall()
            port.ready(ready)
            port.check_kept()
            if port.valid():
                port.check(parse(params, packets[received]))
            if rules.clock(port.valid(), ready, port.everything()):
                port.taken.append(parse(params, packets[received]))
                received += 1
            quiet = not port.valid() and not inside
            expected = not port.valid() and (inside or not pause)
            assert clk.get("s_axis_tready", "quiet") == (expected, quiet)
            taken = offered and expected
            taken_last = taken and last
            inside = (inside or taken) and not taken_last
            sent += bool(taken)
            offered = offered and not taken
            await clk.edge()
            assert clk.now < 40 * len(beats) + 1000, "the receiver hangs"
        assert sent == len(beats)

    simulate(Receiver(params), bench)


@every_kind()
@seeds()
def test_reset_in_mid_packet(params, seed):
    rng = random.Random(seed)

    async def bench(clk: Clocked) -> None:
        for beats in traffic(params, rng, 30):
            # Cut off after any beat, the last one too (the packet is then held).
            count = rng.randint(1, len(beats))
            await send(PacketPort(clk, params), beats[:count], last=count == len(beats))
            await clk.reset()
            port = PacketPort(clk, params)
            assert not port.valid()
            after = good(params, rng.choice(COMMANDS), rng)
            await send(port, after)
            await take(port, after)

    simulate(Receiver(params), bench)


@few
def test_pause_before_a_header(params):
    """No header is taken, for as long as the pause lasts; the beat that waits is the next one."""
    rng = random.Random(12)

    async def bench(clk: Clocked) -> None:
        port = PacketPort(clk, params)
        for command in COMMANDS:
            beats = good(params, command, rng)
            clk.set(pause=1, s_axis_tvalid=1, s_axis_tdata=beats[0], s_axis_tlast=len(beats) == 1)
            for _ in range(rng.randint(1, 5)):
                assert clk.get("s_axis_tready", "quiet") == (0, 1)
                assert not port.valid()
                await clk.edge()
            clk.set(pause=0)
            await send(port, beats)
            await take(port, beats)

    simulate(Receiver(params), bench)


@few
def test_pause_at_every_beat(params):
    """A packet that has begun comes in to its end, is offered and taken; then nothing is."""
    rng = random.Random(13)
    bad = [good(params, command, rng) for command in COMMANDS]
    packets = [beats for packet in bad for beats in (packet, [*packet, 0, 0])]  # payload, dropped
    packets += [[packet[0] | 0x80, *packet[1:]] for packet in bad]

    async def bench(clk: Clocked) -> None:
        port = PacketPort(clk, params)
        for beats in packets:
            expected = parse(params, beats)
            for first in range(1, len(beats) + 1):  # beats that come before the pause
                for i, beat in enumerate(beats):
                    clk.set(pause=i >= first)
                    clk.set(s_axis_tdata=beat, s_axis_tvalid=1, s_axis_tlast=i == len(beats) - 1)
                    assert clk.get("s_axis_tready", "quiet") == (1, i == 0)
                    await clk.edge()
                # The next header waits, also in the clock in which the packet is taken.
                clk.set(pause=1, s_axis_tdata=0x04, s_axis_tlast=1)
                for ready in (0, 0, 1):
                    assert port.valid()
                    port.check(expected)
                    assert clk.get("s_axis_tready", "quiet") == (0, 0)
                    port.ready(ready)
                    await clk.edge()
                port.ready(0)
                port.taken.append(expected)
                for _ in range(3):
                    assert not port.valid()
                    assert clk.get("s_axis_tready", "quiet") == (0, 1)
                    port.check_kept()
                    await clk.edge()
                clk.set(pause=0, s_axis_tvalid=0)
                assert clk.get("s_axis_tready", "quiet") == (1, 1)

    simulate(Receiver(params), bench)


@small(*COMPLETE)
def test_codes_of_a_self_test(params):
    """Each row's code can be set while no packet is in flight, and the others keep theirs."""
    rng = random.Random(14)

    async def bench(clk: Clocked) -> None:
        port = PacketPort(clk, params)
        for _ in range(3):
            beats = good(params, Command.WRITE_QUERY, rng)
            await send(port, beats)
            await take(port, beats)
            v = clk.get("v_codes")
            codes = list(parse(params, beats).q)
            assert clk.get("q_codes") == pack(codes, params.q_bits)
            clk.set(pause=1)
            for row in (*range(params.rows), *rng.choices(range(params.rows), k=10)):
                codes[row] = rng.choice((0, 2**params.q_bits - 1, rng.getrandbits(params.q_bits)))
                clk.set(q_write=1, q_index=row, q_data=codes[row])
                await clk.edge()
                assert clk.get("q_codes", "v_codes") == (pack(codes, params.q_bits), v)
                # Without a write nothing happens.
                clk.set(q_write=0, q_index=0, q_data=rng.getrandbits(params.q_bits))
                await clk.edge()
                assert clk.get("q_codes") == pack(codes, params.q_bits)
            assert clk.get("quiet") == 1 and not port.valid()
            clk.set(pause=0)
            port.taken.clear()  # their Q is no longer kept

    simulate(Receiver(params), bench)


def test_codes_stay_when_a_packet_is_refused_with_its_step():
    """A good packet whose step is refused may be dropped while V and Q are in use."""
    params = dataclasses.replace(HEADS["bytes-streaming"], heads=2)
    rng = random.Random(11)

    async def bench(clk: Clocked) -> None:
        port = PacketPort(clk, params)
        for refused in (0, 1, 1, 0, 1):
            beats = good(params, Command.WRITE_QUERY, rng)
            clk.set(refused=refused)
            await send(port, beats)
            before = clk.get("v_codes", "q_codes")
            port.ready(1)
            await clk.edge()
            port.ready(0)
            parsed = parse(params, beats)
            new = pack(parsed.v, params.kv_bits), pack(parsed.q, params.q_bits)
            assert new != before
            assert clk.get("v_codes", "q_codes") == (before if refused else new)
            if not refused:
                port.taken.append(parsed)

    simulate(Receiver(params), bench)


@every_kind()
def test_features_that_are_absent_have_no_port(params):
    receiver = elaborated(Receiver(params))
    assert hasattr(receiver, "q_write") == params.self_test
    assert hasattr(receiver, "refused") == (params.heads > 1)
    fields = set(packet_layout(params).members)
    assert set(SHOT_FIELDS) & fields == (set(SHOT_FIELDS) if params.shots else set())


def test_latency_clk():
    # `take` looks in the clock after the last beat, and `send` sees no packet before.
    assert Receiver.latency_clk == 1


def test_reference():
    params = SMALL["tiny"]
    parsed = parse(params, [0x1234_03, 0x4321, 0x7654, 0xFEDC])
    assert parsed == Parsed(
        writes=True, queries=True, flushes=False, tag=0x1234, error=PacketError.NONE,
        shot=Shot(), k=(1, 2, 3, 4), v=(4, 5, 6, 7), q=(12, 13, 14, 15),
    )  # fmt: skip
    assert parse(params, [0x03, 0x4321, 0x8654, 0xFEDC]).error is PacketError.CODE
    assert parse(params, [0x03, 0x4321, 0x8654]).error is PacketError.LENGTH
    assert parse(params, [0x0100_0003]).error is PacketError.COMMAND


def test_reference_of_a_shot():
    params = HEADS["tiny-complete"]
    shot = Shot(s_gain=2, a_gain=1, accumulate=True, shift=3)
    parsed = parse(params, [0xD6_1234_02, 0xFEDC])
    assert (parsed.error, parsed.shot, parsed.q) == (PacketError.NONE, shot, (12, 13, 14, 15))
    for misplaced in ([0x10_0000_01, 1, 2], [0x01_0000_04], [0x80_0000_05]):
        assert parse(params, misplaced).error is PacketError.COMMAND
    # A packet that is refused has no shot.
    assert parse(params, [0xD6_1234_02]).shot == Shot()


def test_reference_of_what_is_kept():
    params = SMALL["tiny"]
    packets = [[0x03, 1, 2, 3], [0x01, 4, 5], [0x02, 6], [0x04], [0x03, 1, 8, 3], [0x01, 4, 5, 6]]
    parsed = [parse(params, beats) for beats in packets]
    kept = [kept_codes(parsed[:n]) for n in range(len(packets) + 1)]
    low = [(codes.v and codes.v[0], codes.q and codes.q[0]) for codes in kept]
    assert low == [(None, None), (2, 3), (5, 3), *[(5, 6)] * 4]
