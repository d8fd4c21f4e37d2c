"""Heads and layers against the packet oracle, an integer array behind their analog boundary."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from fractions import Fraction

import pytest
from test_hw_bench import (
    COMPLETE,
    HEADS,
    SMALL,
    Clocked,
    StreamRules,
    both_schedules,
    elaborated,
    seeds,
    simulate,
    small,
    stalls,
)
from test_hw_receiver import good, sections, traffic

from hw.layer import AttentionLayer, layer_ports, stream_prefixes
from hw.packet import Command, PacketError, Shot, token_beats
from hw.params import HeadParams
from hw.presets import PRESETS
from hw.registers import RegisterMap
from sim.reference.column_mask import column_mask
from sim.reference.layer import (
    LayerReference,
    Levels,
    Stored,
    head_interval_clk,
    head_latency_clk,
)
from sim.reference.readout import pulses
from sim.reference.writer import Select, selected_columns

W, Q, B, F = Command.WRITE, Command.QUERY, Command.WRITE_QUERY, Command.FLUSH


def mixing_array(params):
    """An array that is physics in nothing but its ranges: every code, column and lane matters."""
    top = 2**params.kv_bits - 1

    def array(cells, q, levels):
        results = [[0] * params.lanes for _ in range(params.subtiles)]
        for column, (k, v) in cells.items():
            score = sum((row + 1) * a * b for row, (a, b) in enumerate(zip(q, k, strict=True)))
            phi = (score + column + levels.s) % (params.convert_clk + 1)
            subtile = results[column // params.columns]
            for lane, code in enumerate(v):
                subtile[lane] += phi * (2 * code - top) + (lane + levels.a) % 2
        scale = max(1, params.convert_clk * top // params.count_max)
        return [
            [max(-params.count_max, min(params.count_max, raw // scale)) for raw in subtile]
            for subtile in results
        ]

    return array


@dataclasses.dataclass
class Integrators:
    """One set of integrators of both arrays, with what a converter makes of it."""

    score: list[int] | None = None  #: on-time of each word line since the reset
    integrated_clk: int = 0
    keys: dict[int, tuple[int, ...]] | None = None  #: K as it was while they integrated
    wave: object = None  #: pulses of the readout to come, or under way
    a_level: int = 0  #: level of that readout
    read_clk: int = 0


class AnalogDouble:
    """Behaves as one head's arrays and converters, from the control lines alone, and checks them.

    There are two sets of integrators; the simple schedule uses the first one only.
    """

    def __init__(self, params, head=0) -> None:
        self.params, self.head, self.array = params, head, mixing_array(params)
        self.k, self.v = {}, {}
        self.write_clk = params.write_clk
        self.overlaps = 0  #: clocks in which more than one phase runs
        self.rewrites = 0  #: columns that were given the codes they held
        self.reset()

    def reset(self) -> None:
        """What a reset of the digital side does to an access under way."""
        self.writing = {"k": None, "v": None}
        self.sets = (Integrators(), Integrators())
        self.converting = None  # set, clocks, mask, level

    def _unpack(self, value, count, bits):
        value >>= self.head * count * bits
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
            assert clocks == self.write_clk
            self.rewrites += store.get(column) == codes
            store[column] = codes
            self.writing[name] = None

    def clock(self, clk: Clocked, rng: random.Random) -> tuple[int, int]:
        """Read the control lines of this clock; return pulses and signs."""
        p = self.params
        get = clk.get
        self._write(clk, "k", self.k, p.rows)
        self._write(clk, "v", self.v, p.lanes)
        k_write, v_write = get("ana_k_write", "ana_v_write")
        integrate, convert, readout = get("ana_integrate", "ana_convert", "ana_readout")
        assert k_write + integrate < 2, "array 1 is written while read"
        assert v_write + convert < 2, "array 2 is written while read"
        if p.streaming:
            assert k_write + v_write < 2, "one set of select lines serves both"
        if not k_write and not v_write:
            assert get("ana_subtile_select", "ana_column_select") == (0, 0)
        assert get("ana_readout_select") == 2**p.subtiles - 1
        banks = (0, 0, 0)
        if p.streaming:
            banks = get("ana_scores_bank", "ana_convert_bank", "ana_readout_bank")
        else:
            assert integrate + convert + readout < 2
        self.overlaps += integrate + convert + readout > 1
        scores, middle, outputs = (self.sets[bank] for bank in banks)

        # What the last clock completed: a conversion. The level of the readout is there now.
        if self.converting is not None and self.converting[1] == p.convert_clk:
            where, _, mask, s_level = self.converting
            # A masked column's charge counts for nothing, an unmasked one must have been written.
            cells = {
                column: Stored(where.keys[column], self.v[column])
                for column in range(p.window)
                if mask >> column & 1
            }
            (a_level,) = self._unpack(get("ana_a_level"), 1, 8)
            levels = Levels(s_level, a_level)
            where.wave = pulses(p, self.array(cells, tuple(where.score), levels))
            where.a_level = a_level
            where.score, where.read_clk, where.integrated_clk = None, 0, 0
            self.converting = None

        # Array 1.
        lines = self._unpack(get("ana_q_pulse"), p.rows, 1)
        reset = get("ana_scores_reset")
        if (reset or integrate) and convert:
            assert scores is not middle, "scores are lost while they are converted"
        if reset:
            scores.score, scores.integrated_clk = [0] * p.rows, 0
        if integrate:
            scores.score = [a + b for a, b in zip(scores.score, lines, strict=True)]
            scores.integrated_clk += 1
            scores.keys = dict(self.k)
        else:
            assert not any(lines), "a word line is high outside of the integration"

        # Array 2.
        reset = get("ana_outputs_reset")
        (s_level,) = self._unpack(get("ana_s_level"), 1, 8)
        if (reset or convert) and readout:
            assert middle is not outputs, "outputs are lost while they are read"
        if reset:
            assert self.converting is None, "a conversion is cut off"
            assert middle.integrated_clk == p.integrate_clk
            middle.wave, self.converting = None, (middle, 0, get("ana_column_mask"), s_level)
        if convert:
            assert self.converting is not None, "outputs were not reset, or conversion is over"
            where, clocks, mask, level = self.converting
            assert where is middle, "the bank holds during conversion"
            assert get("ana_column_mask") == mask, "the mask holds from the guard on"
            assert s_level == level, "the level holds from the guard on"
            self.converting = (middle, clocks + 1, mask, level)

        # Readout.
        if readout:
            assert self._unpack(get("ana_a_level"), 1, 8) == (outputs.a_level,)
            if outputs.read_clk == 0:
                assert outputs.wave is not None, "there is nothing to read"
        if outputs.wave is None:
            # Nothing has been converted: pulses and signs are of no concern to the head.
            noise = p.subtiles * p.lanes
            return rng.getrandbits(noise), rng.getrandbits(noise)
        pulse = outputs.wave.pulse[outputs.read_clk] if readout else 0
        outputs.read_clk += readout
        sign = outputs.wave.sign
        if outputs.read_clk == p.readout_clk:
            outputs.wave = None
        return pulse, sign


class Streams:
    """Both streams of one head: what is to be sent, what is owed, what has come."""

    def __init__(self, params, head: int) -> None:
        self.tokens, self.results = stream_prefixes(params, head)
        self.to_send: list[tuple[int, bool]] = []
        self.owed: list = []
        self.offered = False
        self.rules = StreamRules(self.results)
        self.last_taken_at: list[int] = []
        self.header_at: list[int] = []
        self.answered = self.full_scale = 0
        self.received: list[tuple[int, int]] = []


class LayerBench:
    """Streams, register bus, analog doubles and scoreboard around a layer of one head or more."""

    def __init__(self, clk: Clocked, params, seed: int) -> None:
        self.clk, self.params, self.rng = clk, params, random.Random(seed)
        self.analogs = [AnalogDouble(params, head) for head in range(params.heads)]
        self.registers = RegisterMap(params)
        self.never = lambda: False
        self.send_stall = self.take_stall = self.never
        self.late_until = 0  #: clock before which only the first head's packets are offered
        self.restart()

    @property
    def analog(self) -> AnalogDouble:
        return self.analogs[0]

    def restart(self) -> None:
        self.reference = LayerReference(self.params, mixing_array(self.params))
        self.streams = [Streams(self.params, head) for head in range(self.params.heads)]

    @property
    def one(self) -> Streams:
        """The streams of the first head."""
        return self.streams[0]

    def send(self, *packets) -> None:
        """Queue a packet of each head."""
        outcomes = self.reference.step(packets)
        for stream, beats, outcome in zip(self.streams, packets, outcomes, strict=True):
            stream.to_send += [(beat, i == len(beats) - 1) for i, beat in enumerate(beats)]
            stream.owed += outcome.answer

    def _stream(self, stream: Streams) -> bool:
        """Drive one head's streams for this clock; true if a result beat may leave."""
        clk, p = self.clk, self.params
        late = stream is not self.one and clk.now < self.late_until
        offers = stream.offered or not (late or self.send_stall())
        stream.offered = bool(stream.to_send) and offers
        data, last = stream.to_send[0] if stream.offered else (self.rng.getrandbits(p.bus_bits), 0)
        ready = not self.take_stall()
        tokens, results = stream.tokens, stream.results
        clk.set(
            **{
                f"{tokens}_tvalid": stream.offered,
                f"{tokens}_tdata": data,
                f"{tokens}_tlast": last,
                f"{results}_tready": ready,
            }
        )
        return ready

    def _transfers(self, stream: Streams, ready: bool) -> None:
        """What this clock's edge will move."""
        clk = self.clk
        tokens, results = stream.tokens, stream.results
        if stream.offered and clk.get(f"{tokens}_tready"):
            if stream.to_send[0][1]:
                stream.last_taken_at.append(clk.now)
            stream.to_send.pop(0)
            stream.offered = False
        valid, beat = clk.get(f"{results}_tvalid"), clk.get(f"{results}_tdata", f"{results}_tlast")
        if valid:
            assert stream.owed, "a beat that is not owed"
            assert beat == stream.owed[0][:2]
            if len(stream.header_at) == stream.answered:
                stream.header_at.append(clk.now)
        if stream.rules.clock(valid, ready, beat):
            gone = stream.owed.pop(0)
            stream.received.append(beat)
            stream.answered += gone.last
            stream.full_scale += gone.full_scale_lanes

    async def clock(self) -> None:
        clk, p = self.clk, self.params
        outs = [analog.clock(clk, self.rng) for analog in self.analogs]
        width = p.subtiles * p.lanes
        clk.set(
            ana_out_pulse=sum(pulse << width * head for head, (pulse, _) in enumerate(outs)),
            ana_out_sign=sum(sign << width * head for head, (_, sign) in enumerate(outs)),
        )
        ready = [self._stream(stream) for stream in self.streams]
        for stream, one in zip(self.streams, ready, strict=True):
            self._transfers(stream, one)
        await clk.edge()

    async def drain(self) -> None:
        """Until nothing is in flight; then compare status and window."""
        start = self.clk.now
        while any(s.to_send or s.owed for s in self.streams) or not self.clk.get("idle"):
            await self.clock()
            assert self.clk.now - start < 30_000, "the head hangs"
        await self.clock()
        await self.clock()
        reference = self.reference
        for name, value in reference.status.counters.items():
            if name != "refreshes" and not name.startswith("clocks"):
                assert await self.read(name) == value, name
        sticky = self.registers["sticky"]
        got = await self.read("sticky")
        for field in sticky.fields:
            assert bool(field.get(got)) == reference.status.sticky[field.name], field.name
        assert await self.read("occupancy") == len(reference.valid)
        assert self.clk.get("ana_column_mask") == column_mask(self.params, reference.valid)

    async def reset(self) -> None:
        for stream in self.streams:
            self.clk.set(**{f"{stream.tokens}_tvalid": 0})
        await self.clk.reset()
        for analog in self.analogs:
            analog.reset()
        self.restart()

    # --- registers ------------------------------------------------------------------------
    async def _until(self, ready: str) -> None:
        for _ in range(5_000):
            if self.clk.get(ready):
                return
            await self.clock()
        raise AssertionError(f"{ready} does not come")

    async def write(self, name: str, value: int, entry: int = 0) -> int:
        """Write a register while the streams go on; returns the response."""
        clk = self.clk
        clk.set(
            s_axil_awaddr=self.registers[name].offset + 4 * entry, s_axil_awvalid=1,
            s_axil_wdata=value % 2**32, s_axil_wstrb=15, s_axil_wvalid=1, s_axil_bready=1,
        )  # fmt: skip
        waiting = {"aw", "w"}
        for _ in range(5_000):
            taken = {channel for channel in waiting if clk.get(f"s_axil_{channel}ready")}
            done = clk.get("s_axil_bvalid")
            response = clk.get("s_axil_bresp")
            await self.clock()
            for channel in taken:
                clk.set(**{f"s_axil_{channel}valid": 0})
            waiting -= taken
            if done:
                assert not waiting
                return response
        raise AssertionError("a write is not answered")

    async def read(self, name: str, entry: int = 0) -> int:
        """Read a register's word while the streams go on."""
        clk = self.clk
        clk.set(
            s_axil_araddr=self.registers[name].offset + 4 * entry, s_axil_arvalid=1, s_axil_rready=1
        )
        await self._until("s_axil_arready")
        await self.clock()
        clk.set(s_axil_arvalid=0)
        await self._until("s_axil_rvalid")
        data, response = clk.get("s_axil_rdata", "s_axil_rresp")
        assert response == 0
        await self.clock()
        return data


def run(params, bench, seed=0) -> None:
    async def wrapped(clk: Clocked) -> None:
        await bench(LayerBench(clk, params, seed))

    simulate(AttentionLayer(params), wrapped)


@both_schedules()
def test_fill_and_wrap(params):
    # With a single result slot, or packets that come slowly, no phases overlap.
    overlaps = params.streaming and params.result_slots > 1

    async def bench(head: LayerBench) -> None:
        for _ in range(min(2 * params.window + 1, 20)):
            head.send(good(params, B, head.rng))
        await head.drain()
        assert head.one.full_scale > 0, "some lanes reach full scale, or this tests too little"
        assert (head.analog.overlaps > 0) == overlaps

    run(params, bench)


@both_schedules("tiny", "three-subtiles", "slow-write", "long-guard", "wide-sums")
@seeds(1)
def test_random_traffic_and_stalls(params, seed):
    """Good and bad packets mixed, stalls on both streams, the event counters cleared at times."""

    async def bench(head: LayerBench) -> None:
        head.send_stall, head.take_stall = stalls(head.rng), stalls(head.rng)
        for beats in traffic(params, head.rng, 50):
            head.send(beats)
            # Attend often, or the window's errors stay unseen.
            if head.rng.random() < 0.5:
                head.send(good(params, head.rng.choice((W, B, Q)), head.rng))
        await head.drain()

    run(params, bench, seed)


@both_schedules()
def test_refused_packets_among_writes(params):
    """A packet that is refused leaves the one before it alone, whose V may not be written yet."""

    async def bench(head: LayerBench) -> None:
        for _ in range(12):
            head.send(good(params, head.rng.choice((B, Q)), head.rng))
            head.send(good(params, W, head.rng))
            for _ in range(2):
                bad = good(params, head.rng.choice((W, B)), head.rng)
                head.send(bad[: head.rng.randint(1, len(bad) - 1)])
            head.send(good(params, Q, head.rng))
        await head.drain()
        assert head.reference.status.counters["length_errors"] == min(24, 2**params.event_bits - 1)

    run(params, bench)


@small("tiny", "slow-write", "all-one", "bytes")
@seeds(3)
def test_both_schedules_give_the_same_answers(params, seed):
    """The same packets, good and bad; stalls of their own; the beats that leave are equal."""
    received = []
    for slots in (None, 1, 4):
        rng = random.Random(seed)
        packets = []
        for beats in traffic(params, rng, 20):
            packets += [beats, good(params, rng.choice((W, B, B, Q)), rng)]

        async def bench(head: LayerBench, packets=packets) -> None:
            head.send_stall, head.take_stall = stalls(head.rng), stalls(head.rng)
            for beats in packets:
                head.send(beats)
            await head.drain()
            received.append(head.one.received)

        fields = {} if slots is None else {"schedule": "streaming", "result_slots": slots}
        run(dataclasses.replace(params, **fields), bench, seed=100 * seed + (slots or 0))
    assert len(received[0]) > 30
    assert all(beats == received[0] for beats in received)


def test_clearing_the_status():
    params = SMALL["tiny"]

    async def bench(head: LayerBench) -> None:
        for _ in range(20):
            head.send(good(params, B, head.rng))
        head.send([0xFF])
        await head.drain()
        assert head.reference.status.counters["command_errors"] == 1
        assert await head.write("command", 2) == 0
        head.reference.clear_counters()
        await head.drain()
        assert await head.read("occupancy") == params.window, "tokens stay"

    run(params, bench)


@both_schedules("tiny", "slow-write", "all-one")
@seeds()
def test_reset_at_any_time(params, seed):
    async def bench(head: LayerBench) -> None:
        for _ in range(12):
            for _ in range(3):
                head.send(good(params, B, head.rng))
            for _ in range(head.rng.randint(1, 2 * head_latency_clk(params, B))):
                await head.clock()
            await head.reset()
            assert head.clk.get("idle", "m_axis_tvalid") == (1, 0)
            head.send(good(params, Q, head.rng))
            head.send(good(params, B, head.rng))
            await head.drain()
            assert head.reference.status.counters["empty_errors"] == 1

    run(params, bench, seed)


@both_schedules("tiny", "three-subtiles", "slow-write", "all-one")
def test_answers_wait_for_their_receiver(params):
    """With the result stream stopped, the head fills up and stops its token stream."""
    packets = params.sender_slots + 4

    async def bench(head: LayerBench) -> None:
        head.take_stall = lambda: True
        for _ in range(packets):
            head.send(good(params, B, head.rng))
        for _ in range(400):
            await head.clock()
        assert head.one.to_send and head.one.answered == 0
        assert head.clk.get("s_axis_tready", "idle") == (0, 0)
        if params.streaming:
            # What came in: a query for each slot, and a packet that waits with its K.
            assert await head.read("occupancy") == min(params.window, params.result_slots)
            assert len(head.one.last_taken_at) == params.result_slots + 1
        head.take_stall = head.never
        await head.drain()
        assert head.one.answered == packets

    run(params, bench)


@both_schedules()
def test_latency_clk(params):
    """Last beat taken to first result beat offered, nothing in the way."""

    async def bench(head: LayerBench) -> None:
        for command in (B, Q, B):
            head.send(good(params, command, head.rng))
            await head.drain()
            latency = head.one.header_at[-1] - head.one.last_taken_at[-1]
            assert latency == head_latency_clk(params, command)
            dut = head.clk.dut
            assert latency == (dut.latency_clk if command.writes else dut.query_latency_clk)

    run(params, bench)


#: Each of the loops that can set the interval.
MANY_TOKEN_BEATS = HeadParams(
    subtiles=1, columns=2, rows=48, lanes=96, q_bits=2, write_clk=3, count_bits=2, bus_bits=32
)
MANY_RESULT_BEATS = HeadParams(
    subtiles=1, columns=2, rows=1, lanes=64, q_bits=1, kv_bits=1, write_clk=1, count_bits=2,
    bus_bits=32,
)  # fmt: skip


def streaming(params, **fields) -> HeadParams:
    return dataclasses.replace(params, schedule="streaming", **fields)


INTERVALS = {
    **{
        name: HEADS[name]
        for name in ("tiny", "slow-write", "tiny-streaming", "bytes-streaming", "tiny-complete")
    },
    "layer": PRESETS["tiny-layer"],
    "many-token-beats": MANY_TOKEN_BEATS,
    "many-result-beats": MANY_RESULT_BEATS,
}
#: With overlapped phases: the shape, its interval, and whether answers come one by one.
STREAMING_INTERVALS = {
    "array-1": (streaming(SMALL["tiny"]), 20, True),
    "readout": (streaming(SMALL["slow-write"]), 34, True),
    "write-and-readout": (streaming(SMALL["slow-write"], count_bits=4), 18, True),
    "token-beats": (streaming(MANY_TOKEN_BEATS), 29, True),
    "result-beats": (streaming(MANY_RESULT_BEATS, result_slots=5), 17, True),
    "one-slot": (streaming(SMALL["tiny"], result_slots=1), 56, True),
    "one-slot-of-two-heads": (streaming(SMALL["tiny"], heads=2, result_slots=1), 57, True),
    "two-slots": (streaming(SMALL["tiny"], result_slots=2), 28, False),
    "three-slots": (streaming(SMALL["tiny"], result_slots=3), 20, True),
    "one-slot-on-a-narrow-bus": (streaming(MANY_RESULT_BEATS, result_slots=1), 28, True),
    "two-slots-and-long-guards": (streaming(SMALL["long-guard"], result_slots=2), 16, False),
}


async def send_in_a_row(head: LayerBench, count: int) -> list[int]:
    """Clocks of the headers of packets that always wait, a result stream that never does."""
    p = head.params
    for _ in range(count):
        head.send(*(token_beats(p, B, 0, **sections(p, B, head.rng)) for _ in head.streams))
    await head.drain()
    assert len(head.one.header_at) == count
    return head.one.header_at


@pytest.mark.parametrize("name", INTERVALS)
def test_interval_clk(name):
    """Once the pipeline is full. Slots may free in bunches: the mean over a bunch counts."""
    params = INTERVALS[name]
    bunch = params.sender_slots

    async def bench(head: LayerBench) -> None:
        at = await send_in_a_row(head, 3 * bunch + 3)
        mean = Fraction(at[-1] - at[-1 - bunch], bunch)
        assert math.ceil(mean) == head.clk.dut.interval_clk == head_interval_clk(params)
        if not params.streaming:
            assert {b - a for a, b in itertools.pairwise(at[1:])} == {mean}

    run(params, bench)


@pytest.mark.parametrize("name", STREAMING_INTERVALS)
def test_interval_clk_of_each_loop(name):
    params, interval, one_by_one = STREAMING_INTERVALS[name]
    bunch = params.result_slots

    async def bench(head: LayerBench) -> None:
        assert head.clk.dut.interval_clk == interval == head_interval_clk(params)
        at = (await send_in_a_row(head, 4 * bunch + 3))[-2 * bunch - 1 :]
        assert math.ceil(Fraction(at[-1] - at[0], 2 * bunch)) == interval
        steps = [b - a for a, b in itertools.pairwise(at)]
        assert steps[:bunch] == steps[bunch:], "the same in every bunch"
        assert (set(steps) == {interval}) == one_by_one, steps

    run(params, bench)


@seeds(1)
def test_interval_of_any_head(seed):
    """The figure of the head against the timetable of many packets, for heads of many shapes."""
    rng = random.Random(seed)
    for _ in range(15):
        q_bits = rng.randint(1, 4)
        params = HeadParams(
            subtiles=1, columns=2, rows=rng.choice((1, 20, 70)), lanes=rng.choice((1, 20, 70)),
            q_bits=q_bits, count_bits=rng.randint(1, 5), write_clk=rng.randint(1, 2**q_bits - 1),
            guard_clk=rng.randint(1, 5), bus_bits=rng.choice((32, 64, 256)),
            result_slots=rng.randint(1, 5), schedule="streaming",
        )  # fmt: skip
        head = elaborated(AttentionLayer(params))
        assert head.interval_clk == head_interval_clk(params), params


@pytest.mark.parametrize("name", PRESETS)
def test_latency_of_presets(name):
    params = PRESETS[name]
    head = elaborated(AttentionLayer(params))
    assert head.latency_clk == head_latency_clk(params, B)
    assert head.query_latency_clk == head_latency_clk(params, Q)
    assert head.interval_clk == head_interval_clk(params)
    figures = (head.latency_clk, head.query_latency_clk, head.interval_clk)
    if name in ("default", "streaming"):
        assert figures == (55, 51, 20)


def test_latency_of_what_is_not_answered():
    with pytest.raises(ValueError, match=r"^command must be one that queries, not <Command.WRITE"):
        head_latency_clk(SMALL["tiny"], W)


@both_schedules()
def test_ports_are_those_of_the_signature(params):
    head = elaborated(AttentionLayer(params))
    assert head.ports == layer_ports(params)
    assert [port.name for port in head.ports] == list(head.signature.members)
    banks = [port.name for port in head.ports if port.name.endswith("_bank")]
    assert len(banks) == (3 if params.streaming else 0)
    for port in head.ports:
        member = head.signature.members[port.name]
        assert (port.direction, port.width) == (member.flow.name.lower(), member.shape)
        assert port.meaning.endswith(".")


def test_reference():
    params = SMALL["tiny"]
    head = LayerReference(params, lambda cells, q, levels: [[len(cells)] * 4, [-q[0]] * 4])
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
    counters = head.status.counters
    assert (counters["empty_errors"], counters["length_errors"]) == (1, 1)
    assert counters["full_scale_total"] == 4


# --- features ----------------------------------------------------------------------------------
LAYER = PRESETS["tiny-layer"]
FEATURED = {
    **COMPLETE,
    "layer": LAYER,
    "layer-simple": dataclasses.replace(LAYER, schedule="simple"),
}
#: Commands of random steps, and how often each comes.
MIX = ((W, Q, B, F), (4, 8, 8, 1))


def featured(*names: str) -> pytest.MarkDecorator:
    chosen = names or tuple(FEATURED)
    return pytest.mark.parametrize("params", [FEATURED[n] for n in chosen], ids=chosen)


def shot_of(rng: random.Random) -> Shot:
    """Any shot; most are sent, or a test would see little."""
    return Shot(
        accumulate=rng.random() < 0.5,
        hold=rng.random() < 0.3,
        shift=rng.randrange(4),
    )


def step_of(params, rng, command=None) -> list[list[int]]:
    """A packet of each head that ask for the same, gains apart."""
    command = command or rng.choices(*MIX)[0]
    tag = rng.randrange(2**params.tag_bits)
    shot = shot_of(rng) if command.queries else None
    packets = []
    for _ in range(params.heads):
        gains = {"s_gain": rng.randrange(4), "a_gain": rng.randrange(4)}
        own = None if shot is None else dataclasses.replace(shot, **gains)
        packets.append(
            token_beats(params, command, tag, shot=own, **sections(params, command, rng))
        )
    return packets


def damaged(params, rng, packets) -> list[list[int]]:
    """The step, with one head's packet too short, unknown, or of another tag."""
    packets = [list(beats) for beats in packets]
    beats = rng.choice(packets)
    kind = rng.choice(("short", "unknown", "tag"))
    if kind == "short" and len(beats) > 1:
        del beats[rng.randint(1, len(beats) - 1) :]
    elif kind == "tag" and params.heads > 1:
        beats[0] ^= 1 << 8
    else:
        beats[0] |= 0x80
    return packets


async def switch_on(head: LayerBench, rng: random.Random) -> None:
    """Sinks, trims, levels and a refresh as often as it can be, all at random."""
    p = head.params
    sinks = rng.randint(0, p.sinks)
    assert await head.write("sinks", sinks) == 0
    head.reference.sinks = sinks
    levels = tuple(tuple(rng.randint(1, 255) for _ in range(4)) for _ in range(2))
    for name, codes in zip(("s_levels", "a_levels"), levels, strict=True):
        assert await head.write(name, sum(code << 8 * i for i, code in enumerate(codes))) == 0
    head.reference.levels = levels
    assert await head.write("refresh_period", 64) == 0
    assert await head.write("control", 0b101) == 0  # enable, and refresh
    half = 2 ** (p.trim_bits - 1)
    for number in range(p.heads):
        if p.heads > 1:
            assert await head.write("head_select", number) == 0
        for lane in range(p.lanes):
            offset = rng.randint(-half, half - 1)
            assert await head.write("trim", offset, lane) == 0
            head.reference.trim(number, lane, offset)


@featured()
@seeds(1)
def test_every_feature_at_once(params, seed):
    """Shots, gains, trims, sinks and refresh under random packets, good and bad, and stalls."""

    async def bench(head: LayerBench) -> None:
        await switch_on(head, head.rng)
        head.send_stall, head.take_stall = stalls(head.rng), stalls(head.rng)
        for _ in range(60):
            packets = step_of(params, head.rng)
            if head.rng.random() < 0.15:
                packets = damaged(params, head.rng, packets)
            head.send(*packets)
        await head.drain()
        assert head.analog.rewrites > 3, "columns are refreshed"
        assert await head.read("refreshes") > 3

    run(params, bench, seed)


@featured("tiny-complete", "tiny-complete-simple", "layer")
def test_settings_change_between_packets(params):
    """A setting that is written with packets in flight holds for those whose header comes later."""

    async def bench(head: LayerBench) -> None:
        for write_clk, guard_clk in ((1, 3), (params.write_max_clk, 1), (2, 2)):
            for _ in range(4):
                head.send(*step_of(params, head.rng, B))
            for _ in range(head.rng.randint(10, 60)):
                await head.clock()
            assert await head.write("phases", write_clk | guard_clk << 8) == 0
            for analog in head.analogs:
                analog.write_clk = write_clk
            await head.drain()
            head.send(*step_of(params, head.rng, B))
            await head.drain()

    run(params, bench)


@featured("layer", "layer-simple")
def test_a_setting_amid_a_step_waits_for_its_end(params):
    """One head's packet has begun, the others' come after the setting was written."""

    async def bench(head: LayerBench) -> None:
        for clocks in (1, 2, 3, 20):
            head.late_until = head.clk.now + 60
            for _ in range(3):
                head.send(*step_of(params, head.rng, B))
            for _ in range(clocks):
                await head.clock()
            assert await head.write("phases", 2 | 2 << 8) == 0
            assert head.clk.now > head.late_until
            for analog in head.analogs:
                analog.write_clk = 2
            await head.drain()

    run(params, bench)


@featured("tiny-complete", "tiny-complete-simple", "layer")
def test_soft_reset_between_packets(params):
    """Packets that began before it are answered; later ones meet an empty window."""

    async def bench(head: LayerBench) -> None:
        for _ in range(5):
            await switch_on(head, head.rng)
            for _ in range(3):
                head.send(*step_of(params, head.rng, B))
            while any(stream.to_send for stream in head.streams):
                await head.clock()
            # Results wait to leave when the rest is forgotten; what they count, counts later.
            # The simple schedule has no place for more than one.
            head.take_stall = (lambda: True) if params.streaming else head.never
            assert await head.write("command", 1) == 0
            head.take_stall = head.never
            while any(stream.owed for stream in head.streams):
                await head.clock()
            assert await head.write("command", 2) == 0
            events = sum(field.mask for field in head.registers["sticky"].fields)
            assert await head.write("sticky", events) == 0
            head.reference.soft_reset()
            assert await head.read("occupancy") == 0
            assert await head.read("sinks") == 0
            head.send(*step_of(params, head.rng, Q))
            head.send(*step_of(params, head.rng, B))
            await head.drain()

    run(params, bench)
