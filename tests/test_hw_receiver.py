"""Receiver against the parse of whole packets, with stalls on both sides."""

from __future__ import annotations

import random

import pytest
from test_hw_bench import (
    SMALL,
    STREAMING,
    Clocked,
    StreamRules,
    both_schedules,
    pack,
    seeds,
    simulate,
    small,
    stalls,
)

from hw.packet import Command, PacketError, token_beats
from hw.receiver import Receiver
from sim.reference.receiver import Kept, Parsed, kept_codes, parse

COMMANDS = tuple(Command)


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


def good(params, command, rng, tag=None):
    tag = rng.randrange(2**params.tag_bits) if tag is None else tag
    return token_beats(params, command, tag, **sections(params, command, rng))


def traffic(params, rng, count):
    """Packets, most of them damaged in one way or another."""
    packets = []
    for _ in range(count):
        beats = good(params, rng.choice(COMMANDS), rng)
        kind = rng.choice(("good", "good", "short", "long", "bit", "header", "noise", "padding"))
        if kind == "short":
            beats = beats[: rng.randint(1, len(beats))]
        elif kind == "long":
            beats += [rng.getrandbits(params.bus_bits) for _ in range(rng.randint(1, 4))]
        elif kind == "bit":
            beats[rng.randrange(len(beats))] ^= 1 << rng.randrange(params.bus_bits)
        elif kind == "header":
            beats[0] = beats[0] & ~0xFF | rng.choice((0, 5, 6, 7, 8, 0x81, 0x82, 0x84, 0xFF))
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
        return fields + self.clk.get("k_codes", "v_codes", "q_codes")

    def check(self, expected: Parsed) -> None:
        """The packet offered says what is expected."""
        e, got = expected, self.everything()
        assert got[:5] == (e.writes, e.queries, e.flushes, e.tag, e.error)
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
        assert clk.get("s_axis_tready") == 1
        port.check_kept()
        await clk.edge()
    clk.set(s_axis_tvalid=0, s_axis_tlast=0)


async def take(port: PacketPort, beats) -> None:
    """Check that the packet of these beats is offered in this very clock, and take it."""
    clk, expected = port.clk, parse(port.params, beats)
    assert port.valid(), "the packet is offered one clock after its last beat"
    port.check(expected)
    port.check_kept()
    assert clk.get("s_axis_tready") == 0, "one packet is held at a time"
    port.ready(1)
    await clk.edge()
    port.ready(0)
    port.taken.append(expected)
    port.check_kept()
    assert not port.valid()
    assert clk.get("s_axis_tready") == 1


def run_packets(params, packets) -> None:
    async def bench(clk: Clocked) -> None:
        port = PacketPort(clk, params)
        for beats in packets:
            await send(port, beats)
            await take(port, beats)

    simulate(Receiver(params), bench)


@both_schedules()
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_good_packets(params, command):
    rng = random.Random(3)
    top = 2**params.tag_bits - 1
    packets = [good(params, command, rng, tag) for tag in (0, 1, top, top // 2 + 1)]
    assert all(parse(params, beats).error is PacketError.NONE for beats in packets)
    run_packets(params, packets)


@both_schedules()
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_wrong_length(params, command):
    rng = random.Random(4)
    beats = good(params, command, rng)
    packets = [beats[:n] for n in range(1, len(beats))]
    packets += [beats + [rng.getrandbits(params.bus_bits)] * n for n in (1, 2, 5)]
    assert all(parse(params, packet).error is PacketError.LENGTH for packet in packets)
    good_after = good(params, Command.WRITE_QUERY, rng)
    run_packets(params, [packet for bad in packets for packet in (bad, good_after)])


@small()
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


@small()
def test_every_header_bit(params):
    rng = random.Random(6)
    packets = []
    for bit in range(params.bus_bits):
        beats = good(params, rng.choice(COMMANDS), rng)
        beats[0] ^= 1 << bit
        packets.append(beats)
        if bit >= 8 + params.tag_bits:
            assert parse(params, beats).error is PacketError.COMMAND
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


@small("tiny", "bytes")
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
    for error, bad in packets.items():
        assert {parse(params, packet).error for packet in bad} == {error}
    # A refusal leaves nothing behind in the next packet.
    run_packets(params, [p for bad in packets.values() for x in bad for p in (x, beats)])


@both_schedules()
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


@small(*STREAMING)
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


@both_schedules()
@seeds()
def test_random_packets_and_stalls(params, seed):
    rng = random.Random(seed)
    packets = traffic(params, rng, 80)
    beats = [(b, i == len(p) - 1) for p in packets for i, b in enumerate(p)]

    async def bench(clk: Clocked) -> None:
        port, rules = PacketPort(clk, params), StreamRules("packet")
        send_stall, take_stall = stalls(rng), stalls(rng)
        sent = received = 0
        offered = taken_last = False
        while received < len(packets):
            # A sender must not withdraw a beat that it has offered.
            offered = sent < len(beats) and (offered or not send_stall())
            data, last = beats[sent] if offered else (rng.getrandbits(params.bus_bits), False)
            clk.set(s_axis_tvalid=offered, s_axis_tdata=data, s_axis_tlast=last)
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
            taken = offered and clk.get("s_axis_tready")
            taken_last = taken and last
            sent += bool(taken)
            offered = offered and not taken
            await clk.edge()
            assert clk.now < 40 * len(beats) + 1000, "the receiver hangs"
        assert sent == len(beats)

    simulate(Receiver(params), bench)


@both_schedules()
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


def test_latency_clk():
    # `take` looks in the clock after the last beat, and `send` sees no packet before.
    assert Receiver.latency_clk == 1


def test_reference():
    params = SMALL["tiny"]
    parsed = parse(params, [0x1234_03, 0x4321, 0x7654, 0xFEDC])
    assert parsed == Parsed(
        writes=True, queries=True, flushes=False, tag=0x1234, error=PacketError.NONE,
        k=(1, 2, 3, 4), v=(4, 5, 6, 7), q=(12, 13, 14, 15),
    )  # fmt: skip
    assert parse(params, [0x03, 0x4321, 0x8654, 0xFEDC]).error is PacketError.CODE
    assert parse(params, [0x03, 0x4321, 0x8654]).error is PacketError.LENGTH
    assert parse(params, [0x0100_0003]).error is PacketError.COMMAND


def test_reference_of_what_is_kept():
    params = SMALL["tiny"]
    packets = [[0x03, 1, 2, 3], [0x01, 4, 5], [0x02, 6], [0x04], [0x03, 1, 8, 3], [0x01, 4, 5, 6]]
    parsed = [parse(params, beats) for beats in packets]
    kept = [kept_codes(parsed[:n]) for n in range(len(packets) + 1)]
    low = [(codes.v and codes.v[0], codes.q and codes.q[0]) for codes in kept]
    assert low == [(None, None), (2, 3), (5, 3), *[(5, 6)] * 4]
