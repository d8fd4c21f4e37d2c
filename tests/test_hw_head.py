"""Whole head against the packet oracle, with an integer array behind its analog boundary."""

from __future__ import annotations

import itertools
import random
from dataclasses import asdict

import pytest
from test_hw_bench import SMALL, Clocked, StreamRules, elaborated, seeds, simulate, small, stalls
from test_hw_receiver import good, traffic

from hw.head import AttentionHead, head_ports
from hw.packet import Command, PacketError
from hw.params import HeadParams
from hw.presets import PRESETS
from sim.reference.column_mask import column_mask
from sim.reference.head import HeadReference, Stored, head_interval_clk, head_latency_clk
from sim.reference.readout import pulses
from sim.reference.writer import Select, selected_columns

W, Q, B, F = Command.WRITE, Command.QUERY, Command.WRITE_QUERY, Command.FLUSH


def mixing_array(params):
    """An array that is physics in nothing but its ranges: every code, column and lane matters."""
    top = 2**params.kv_bits - 1

    def array(cells, q):
        results = [[0] * params.lanes for _ in range(params.subtiles)]
        for column, (k, v) in cells.items():
            score = sum((row + 1) * a * b for row, (a, b) in enumerate(zip(q, k, strict=True)))
            phi = (score + column) % (params.convert_clk + 1)
            subtile = results[column // params.columns]
            for lane, code in enumerate(v):
                subtile[lane] += phi * (2 * code - top) + lane % 2
        scale = max(1, params.convert_clk * top // params.count_max)
        return [
            [max(-params.count_max, min(params.count_max, raw // scale)) for raw in subtile]
            for subtile in results
        ]

    return array


class AnalogDouble:
    """Behaves as the arrays and converters, from the control lines alone, and checks them."""

    def __init__(self, params) -> None:
        self.params, self.array = params, mixing_array(params)
        self.k, self.v = {}, {}
        self.reset()

    def reset(self) -> None:
        """What a reset of the digital side does to an access under way."""
        self.writing = {"k": None, "v": None}
        self.score = self.converted = None
        self.reading = 0
        self.wave = None

    def _unpack(self, value, count, bits):
        return tuple(value >> bits * i & 2**bits - 1 for i in range(count))

    def _write(self, clk, name, store, count) -> None:
        strobe, code = clk.get(f"ana_{name}_write", f"ana_{name}_code")
        held = self.writing[name]
        if strobe:
            lines = Select(*clk.get("ana_subtile_select", "ana_column_select"))
            (column,) = selected_columns(self.params, lines)
            now = (column, self._unpack(code, count, self.params.kv_bits))
            clocks = 0
            if held is not None:
                clocks = held[1]
                assert held[0] == now, "address and codes hold during a write"
            self.writing[name] = (now, clocks + 1)
        elif held is not None:
            (column, codes), clocks = held
            assert clocks == self.params.write_clk
            store[column] = codes
            self.writing[name] = None

    def clock(self, clk: Clocked, rng: random.Random) -> None:
        """Read the control lines of this clock and set pulses and signs."""
        p = self.params
        get = clk.get
        self._write(clk, "k", self.k, p.rows)
        self._write(clk, "v", self.v, p.lanes)
        k_write, v_write = get("ana_k_write", "ana_v_write")
        integrate, convert, readout = get("ana_integrate", "ana_convert", "ana_readout")
        assert k_write + integrate < 2, "array 1 is written while read"
        assert v_write + convert < 2, "array 2 is written while read"
        assert integrate + convert + readout < 2
        if not k_write and not v_write:
            assert get("ana_subtile_select", "ana_column_select") == (0, 0)

        lines = self._unpack(get("ana_q_pulse"), p.rows, 1)
        if get("ana_scores_reset"):
            self.score = [0] * p.rows
        if integrate:
            self.score = [a + b for a, b in zip(self.score, lines, strict=True)]
        else:
            assert not any(lines), "a word line is high outside of the integration"
        if get("ana_outputs_reset"):
            self.converted, self.wave = (0, None), None
        if convert:
            clocks, mask = self.converted[0], get("ana_column_mask")
            assert clocks == 0 or mask == self.converted[1], "the mask holds during conversion"
            self.converted = (clocks + 1, mask)
        elif self.converted is not None and self.converted[0]:
            clocks, mask = self.converted
            assert clocks == p.convert_clk
            # A masked column's charge counts for nothing, an unmasked one must have been written.
            cells = {
                column: Stored(self.k[column], self.v[column])
                for column in range(p.window)
                if mask >> column & 1
            }
            self.wave = pulses(p, self.array(cells, tuple(self.score)))
            self.converted = self.score = None
            self.reading = 0
        if self.wave is None:
            # Nothing has been converted: pulses and signs are of no concern to the head.
            noise = p.subtiles * p.lanes
            clk.set(ana_out_pulse=rng.getrandbits(noise), ana_out_sign=rng.getrandbits(noise))
        else:
            pulse = self.wave.pulse[self.reading] if readout else 0
            self.reading += readout
            clk.set(ana_out_pulse=pulse, ana_out_sign=self.wave.sign)
            if self.reading == p.readout_clk:
                self.wave = None


class HeadBench:
    """Streams, analog double and scoreboard around one head."""

    def __init__(self, clk: Clocked, params, seed: int) -> None:
        self.clk, self.params, self.rng = clk, params, random.Random(seed)
        self.analog = AnalogDouble(params)
        self.never = lambda: False
        self.send_stall = self.take_stall = self.never
        self.restart()

    def restart(self) -> None:
        self.reference = HeadReference(self.params, mixing_array(self.params))
        self.to_send: list[tuple[int, bool]] = []
        self.owed: list = []
        self.offered = False
        self.rules = StreamRules("m_axis")
        self.last_taken_at: list[int] = []
        self.header_at: list[int] = []
        self.answered = self.full_scale = 0

    def send(self, beats) -> None:
        self.to_send += [(beat, i == len(beats) - 1) for i, beat in enumerate(beats)]
        self.owed += self.reference.packet(beats).answer

    async def clock(self) -> None:
        clk, p = self.clk, self.params
        self.analog.clock(clk, self.rng)
        self.offered = bool(self.to_send) and (self.offered or not self.send_stall())
        data, last = self.to_send[0] if self.offered else (self.rng.getrandbits(p.bus_bits), 0)
        ready = not self.take_stall()
        clk.set(
            s_axis_tvalid=self.offered, s_axis_tdata=data, s_axis_tlast=last, m_axis_tready=ready
        )
        if self.offered and clk.get("s_axis_tready"):
            if last:
                self.last_taken_at.append(clk.now)
            self.to_send.pop(0)
            self.offered = False
        valid, beat = clk.get("m_axis_tvalid"), clk.get("m_axis_tdata", "m_axis_tlast")
        if valid:
            assert self.owed, "a beat that is not owed"
            assert beat == self.owed[0][:2]
            if len(self.header_at) == self.answered:
                self.header_at.append(clk.now)
        if self.rules.clock(valid, ready, beat):
            gone = self.owed.pop(0)
            self.answered += gone.last
            self.full_scale += gone.full_scale_lanes
        await clk.edge()

    async def drain(self) -> None:
        """Until nothing is in flight; then compare status and window."""
        start = self.clk.now
        while self.to_send or self.owed or not self.clk.get("status_idle"):
            await self.clock()
            assert self.clk.now - start < 30_000, "the head hangs"
        await self.clock()
        await self.clock()
        clk, reference = self.clk, self.reference
        for name, value in asdict(reference.status).items():
            assert clk.get(f"status_{name}") == value, name
        assert clk.get("status_occupancy") == len(reference.valid)
        assert clk.get("ana_column_mask") == column_mask(self.params, reference.valid)

    async def reset(self) -> None:
        self.clk.set(s_axis_tvalid=0)
        await self.clk.reset()
        self.analog.reset()
        self.restart()


def run(params, bench, seed=0) -> None:
    async def wrapped(clk: Clocked) -> None:
        await bench(HeadBench(clk, params, seed))

    simulate(AttentionHead(params), wrapped)


@small()
def test_fill_and_wrap(params):
    async def bench(head: HeadBench) -> None:
        for _ in range(min(2 * params.window + 1, 20)):
            head.send(good(params, B, head.rng))
        await head.drain()
        assert head.full_scale > 0, "some lanes reach full scale, or this tests too little"

    run(params, bench)


@small()
@seeds(1)
def test_random_traffic_and_stalls(params, seed):
    """Good and bad packets mixed, stalls on both streams, the event counters cleared at times."""

    async def bench(head: HeadBench) -> None:
        head.send_stall, head.take_stall = stalls(head.rng), stalls(head.rng)
        for beats in traffic(params, head.rng, 50):
            head.send(beats)
            # Attend often, or the window's errors stay unseen.
            if head.rng.random() < 0.5:
                head.send(good(params, head.rng.choice((W, B, Q)), head.rng))
        await head.drain()

    run(params, bench, seed)


def test_clearing_the_status():
    params = SMALL["tiny"]

    async def bench(head: HeadBench) -> None:
        for _ in range(20):
            head.send(good(params, B, head.rng))
        head.send([0xFF])
        await head.drain()
        assert head.clk.get("status_sticky") == 0b10001
        head.clk.set(status_clear=1)
        await head.clock()
        head.clk.set(status_clear=0)
        for name in ("sticky", "command_errors", "full_scale_total"):
            assert head.clk.get(f"status_{name}") == 0
        assert head.clk.get("status_occupancy") == params.window, "tokens stay"

    run(params, bench)


@small("tiny", "slow-write", "all-one")
@seeds()
def test_reset_at_any_time(params, seed):
    async def bench(head: HeadBench) -> None:
        for _ in range(12):
            for _ in range(3):
                head.send(good(params, B, head.rng))
            for _ in range(head.rng.randint(1, 2 * head_latency_clk(params, B))):
                await head.clock()
            await head.reset()
            assert head.clk.get("status_idle", "status_occupancy", "m_axis_tvalid") == (1, 0, 0)
            head.send(good(params, Q, head.rng))
            head.send(good(params, B, head.rng))
            await head.drain()
            assert head.reference.status.empty_errors == 1

    run(params, bench, seed)


def test_answers_wait_for_their_receiver():
    """With the result stream stopped, the head fills up and stops its token stream."""
    params = SMALL["three-subtiles"]

    async def bench(head: HeadBench) -> None:
        head.take_stall = lambda: True
        for _ in range(5):
            head.send(good(params, B, head.rng))
        for _ in range(400):
            await head.clock()
        assert head.to_send and head.answered == 0
        assert head.clk.get("s_axis_tready", "status_idle") == (0, 0)
        head.take_stall = head.never
        await head.drain()
        assert head.answered == 5

    run(params, bench)


@small(*SMALL)
def test_latency_clk(params):
    """Last beat taken to first result beat offered, nothing in the way."""

    async def bench(head: HeadBench) -> None:
        for command in (B, Q, B):
            head.send(good(params, command, head.rng))
            await head.drain()
            latency = head.header_at[-1] - head.last_taken_at[-1]
            assert latency == head_latency_clk(params, command)
            dut = head.clk.dut
            assert latency == (dut.latency_clk if command.writes else dut.query_latency_clk)

    run(params, bench)


#: Each of the three loops that can set the interval.
INTERVALS = {
    **SMALL,
    "many-token-beats": HeadParams(subtiles=1, columns=2, rows=48, lanes=96, q_bits=2,
                                   write_clk=3, count_bits=2, bus_bits=32),
    "many-result-beats": HeadParams(subtiles=1, columns=2, rows=1, lanes=64, q_bits=1, kv_bits=1,
                                    write_clk=1, count_bits=2, bus_bits=32),
}  # fmt: skip


@pytest.mark.parametrize("name", INTERVALS)
def test_interval_clk(name):
    """Packets that always wait, a result stream that never does."""
    params = INTERVALS[name]

    async def bench(head: HeadBench) -> None:
        for _ in range(6):
            head.send(good(params, B, head.rng))
        await head.drain()
        at = head.header_at[1:]
        intervals = {b - a for a, b in itertools.pairwise(at)}
        assert intervals == {head_interval_clk(params)}
        assert head.clk.dut.interval_clk == head_interval_clk(params)

    run(params, bench)


@pytest.mark.parametrize("name", PRESETS)
def test_latency_of_presets(name):
    params = PRESETS[name]
    head = elaborated(AttentionHead(params))
    assert head.latency_clk == head_latency_clk(params, B)
    assert head.query_latency_clk == head_latency_clk(params, Q)
    assert head.interval_clk == head_interval_clk(params)
    if name == "default":
        assert (head.latency_clk, head.query_latency_clk, head.interval_clk) == (55, 51, 54)


def test_latency_of_what_is_not_answered():
    with pytest.raises(ValueError, match=r"^command must be one that queries, not <Command.WRITE"):
        head_latency_clk(SMALL["tiny"], W)


@small()
def test_ports_are_those_of_the_signature(params):
    head = elaborated(AttentionHead(params))
    assert head.ports == head_ports(params)
    assert [port.name for port in head.ports] == list(head.signature.members)
    for port in head.ports:
        member = head.signature.members[port.name]
        assert (port.direction, port.width) == (member.flow.name.lower(), member.shape)
        assert port.meaning.endswith(".")


def test_reference():
    params = SMALL["tiny"]
    head = HeadReference(params, lambda cells, q: [[len(cells)] * 4, [-q[0]] * 4])
    rng = random.Random(0)
    assert head.packet(good(params, Q, rng)).error is PacketError.EMPTY
    assert head.packet(good(params, W, rng)).answer == ()
    query = [2 | 9 << 8, 0x000F]
    answer = head.packet(query).answer
    assert [beat.data for beat in answer] == [0x0902, 0xF2F2F2F2]
    assert head.valid == (0,)
    assert head.packet([*query, 0]).error is PacketError.LENGTH
    head.packet([4])
    assert head.valid == ()
    assert (head.status.empty_errors, head.status.length_errors) == (1, 1)
    assert head.status.full_scale_total == 4
