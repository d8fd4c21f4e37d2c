"""Whole head against the packet oracle, with an integer array behind its analog boundary."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from dataclasses import asdict
from fractions import Fraction

import pytest
from test_hw_bench import (
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
from test_hw_receiver import good, traffic

from hw.layer import AttentionLayer, layer_ports
from hw.packet import Command, PacketError
from hw.params import HeadParams
from hw.presets import PRESETS
from sim.reference.column_mask import column_mask
from sim.reference.layer import HeadReference, Stored, head_interval_clk, head_latency_clk
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


@dataclasses.dataclass
class Integrators:
    """One set of integrators of both arrays, with what a converter makes of it."""

    score: list[int] | None = None  #: on-time of each word line since the reset
    integrated_clk: int = 0
    keys: dict[int, tuple[int, ...]] | None = None  #: K as it was while they integrated
    wave: object = None  #: pulses of the readout to come, or under way
    read_clk: int = 0


class AnalogDouble:
    """Behaves as the arrays and converters, from the control lines alone, and checks them.

    There are two sets of integrators; the simple schedule uses the first one only.
    """

    def __init__(self, params) -> None:
        self.params, self.array = params, mixing_array(params)
        self.k, self.v = {}, {}
        self.overlaps = 0  #: clocks in which more than one phase runs
        self.reset()

    def reset(self) -> None:
        """What a reset of the digital side does to an access under way."""
        self.writing = {"k": None, "v": None}
        self.sets = (Integrators(), Integrators())
        self.converting = None  # set, clocks, mask

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
        assert k_write + v_write < 2, "one set of select lines serves both"
        if not k_write and not v_write:
            assert get("ana_subtile_select", "ana_column_select") == (0, 0)
        banks = (0, 0, 0)
        if p.streaming:
            banks = get("ana_scores_bank", "ana_convert_bank", "ana_readout_bank")
        else:
            assert integrate + convert + readout < 2
        self.overlaps += integrate + convert + readout > 1
        scores, middle, outputs = (self.sets[bank] for bank in banks)

        # What the last clock completed: a conversion.
        if self.converting is not None and self.converting[1] == p.convert_clk:
            where, _, mask = self.converting
            # A masked column's charge counts for nothing, an unmasked one must have been written.
            cells = {
                column: Stored(where.keys[column], self.v[column])
                for column in range(p.window)
                if mask >> column & 1
            }
            where.wave = pulses(p, self.array(cells, tuple(where.score)))
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
        if (reset or convert) and readout:
            assert middle is not outputs, "outputs are lost while they are read"
        if reset:
            assert self.converting is None, "a conversion is cut off"
            assert middle.integrated_clk == p.integrate_clk
            middle.wave, self.converting = None, (middle, 0, get("ana_column_mask"))
        if convert:
            assert self.converting is not None, "outputs were not reset, or conversion is over"
            where, clocks, mask = self.converting
            assert where is middle, "the bank holds during conversion"
            assert get("ana_column_mask") == mask, "the mask holds from the guard on"
            self.converting = (middle, clocks + 1, mask)

        # Readout.
        if get("ana_readout") and outputs.read_clk == 0:
            assert outputs.wave is not None, "there is nothing to read"
        if outputs.wave is None:
            # Nothing has been converted: pulses and signs are of no concern to the head.
            noise = p.subtiles * p.lanes
            clk.set(ana_out_pulse=rng.getrandbits(noise), ana_out_sign=rng.getrandbits(noise))
        else:
            pulse = outputs.wave.pulse[outputs.read_clk] if readout else 0
            outputs.read_clk += readout
            clk.set(ana_out_pulse=pulse, ana_out_sign=outputs.wave.sign)
            if outputs.read_clk == p.readout_clk:
                outputs.wave = None


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
        self.received: list[tuple[int, int]] = []

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
            self.received.append(beat)
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

    simulate(AttentionLayer(params), wrapped)


@both_schedules()
def test_fill_and_wrap(params):
    # With a single result slot, or packets that come slowly, no phases overlap.
    overlaps = params.streaming and params.result_slots > 1

    async def bench(head: HeadBench) -> None:
        for _ in range(min(2 * params.window + 1, 20)):
            head.send(good(params, B, head.rng))
        await head.drain()
        assert head.full_scale > 0, "some lanes reach full scale, or this tests too little"
        assert (head.analog.overlaps > 0) == overlaps

    run(params, bench)


@both_schedules()
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


@both_schedules()
def test_refused_packets_among_writes(params):
    """A packet that is refused leaves the one before it alone, whose V may not be written yet."""

    async def bench(head: HeadBench) -> None:
        for _ in range(12):
            head.send(good(params, head.rng.choice((B, Q)), head.rng))
            head.send(good(params, W, head.rng))
            for _ in range(2):
                bad = good(params, head.rng.choice((W, B)), head.rng)
                head.send(bad[: head.rng.randint(1, len(bad) - 1)])
            head.send(good(params, Q, head.rng))
        await head.drain()
        assert head.reference.status.length_errors == min(24, 2**params.event_bits - 1)

    run(params, bench)


@small("tiny", "slow-write", "all-one", "bytes", "wide-sums")
@seeds(3, 4)
def test_both_schedules_give_the_same_answers(params, seed):
    """The same packets, good and bad; stalls of their own; the beats that leave are equal."""
    received = []
    for slots in (None, 1, 3, 4):
        rng = random.Random(seed)
        packets = []
        for beats in traffic(params, rng, 30):
            packets += [beats, good(params, rng.choice((W, B, B, Q)), rng)]

        async def bench(head: HeadBench, packets=packets) -> None:
            head.send_stall, head.take_stall = stalls(head.rng), stalls(head.rng)
            for beats in packets:
                head.send(beats)
            await head.drain()
            received.append(head.received)

        fields = {} if slots is None else {"schedule": "streaming", "result_slots": slots}
        run(dataclasses.replace(params, **fields), bench, seed=100 * seed + (slots or 0))
    assert len(received[0]) > 40
    assert all(beats == received[0] for beats in received)


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


@both_schedules("tiny", "slow-write", "all-one")
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


@both_schedules("tiny", "three-subtiles", "slow-write", "all-one")
def test_answers_wait_for_their_receiver(params):
    """With the result stream stopped, the head fills up and stops its token stream."""
    packets = params.sender_slots + 4

    async def bench(head: HeadBench) -> None:
        head.take_stall = lambda: True
        for _ in range(packets):
            head.send(good(params, B, head.rng))
        for _ in range(400):
            await head.clock()
        assert head.to_send and head.answered == 0
        assert head.clk.get("s_axis_tready", "status_idle") == (0, 0)
        if params.streaming:
            # What came in: a query for each slot, and a packet that waits with its K.
            assert head.clk.get("status_occupancy") == min(params.window, params.result_slots)
            assert len(head.last_taken_at) == params.result_slots + 1
        head.take_stall = head.never
        await head.drain()
        assert head.answered == packets

    run(params, bench)


@both_schedules()
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
    **HEADS,
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
    "two-slots": (streaming(SMALL["tiny"], result_slots=2), 28, False),
    "three-slots": (streaming(SMALL["tiny"], result_slots=3), 20, True),
    "one-slot-on-a-narrow-bus": (streaming(MANY_RESULT_BEATS, result_slots=1), 28, True),
    "two-slots-and-long-guards": (streaming(SMALL["long-guard"], result_slots=2), 16, False),
}


async def send_in_a_row(head: HeadBench, count: int) -> list[int]:
    """Clocks of the headers of packets that always wait, a result stream that never does."""
    for _ in range(count):
        head.send(good(head.params, B, head.rng))
    await head.drain()
    assert len(head.header_at) == count
    return head.header_at


@pytest.mark.parametrize("name", INTERVALS)
def test_interval_clk(name):
    """Once the pipeline is full. Slots may free in bunches: the mean over a bunch counts."""
    params = INTERVALS[name]
    bunch = params.sender_slots

    async def bench(head: HeadBench) -> None:
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

    async def bench(head: HeadBench) -> None:
        assert head.clk.dut.interval_clk == interval == head_interval_clk(params)
        at = (await send_in_a_row(head, 4 * bunch + 3))[-2 * bunch - 1 :]
        assert math.ceil(Fraction(at[-1] - at[0], 2 * bunch)) == interval
        steps = [b - a for a, b in itertools.pairwise(at)]
        assert steps[:bunch] == steps[bunch:], "the same in every bunch"
        assert (set(steps) == {interval}) == one_by_one, steps

    run(params, bench)


@seeds(1, 2, 3)
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
        assert figures == (55, 51, 54 if name == "default" else 20)


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
