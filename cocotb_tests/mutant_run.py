"""Plays one compact scenario to mutants of a head, one after the other, in one simulation.

The design under test holds every mutant; its input ``mutsel`` selects one, 0 none. What is
checked is what `cocotb_tests.bench` and `cocotb_tests.test_head` check, stopped at the first
difference, and rules that a clock-by-clock look at the ports can see broken.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Event, FallingEdge, Timer

from analog_models.functional import FunctionalHead
from analog_models.head import SteppedHead
from analog_models.params import AnalogParams
from cocotb_tests.bench import CLOCK_NS, HeadBench, Oracle, load_job
from cocotb_tests.bridge import ArrayBridge
from cocotb_tests.test_head import BOTH, FLUSH, QUERY, WRITE, Traffic
from hw.packet import TAG_LSB, Command, PacketError, token_beats
from hw.params import HeadParams

__all__ = ["MutantBench", "judge", "mutants"]

#: Clocks that an answer may take before it is missing, however many are queued before it.
PATIENCE_CLK = 4000
#: Saturation currents of the array model. A head as small as the one that is mutated never comes
#: near the published ones: every result must be able to reach full scale, of either sign.
S_SAT_UA, A_SAT_UA = 12.0, 12.0


class Difference(AssertionError):
    """The mutant does something the design must not do."""


class MutantBench(HeadBench):
    """A head's bench that starts anew for each mutant and notes the first difference."""

    def __init__(self, dut: Any, params: HeadParams) -> None:
        super().__init__(dut, params)
        self._analog = AnalogParams.matching(params, s_sat_ua=S_SAT_UA, a_sat_ua=A_SAT_UA)
        self.reason: str | None = None
        self.over = Event()  #: the scenario has ended, or a difference was found
        self.clocks = 0  #: clocks since the mutant was switched on
        self._held: tuple[int, int] | None = None

    async def start(self) -> None:
        """Start the clock and everything that runs through all mutants."""
        self.dut.mutsel.value = 0
        self.dut.rst.value = 1
        self.dut.status_clear.value = 0
        self.dut.ana_out_pulse.value = 0
        self.dut.ana_out_sign.value = 0
        Clock(self.dut.clk, CLOCK_NS, unit="ns").start()
        cocotb.start_soon(self._watch())
        cocotb.start_soon(self._score())
        await self.reset()

    async def load(self, mutant: int) -> None:
        """Reset the unmutated head, forget everything, and switch the mutant on."""
        self.dut.mutsel.value = 0
        self.dut.status_clear.value = 0
        self.go()
        self.bridge = ArrayBridge(self.dut, self.params, SteppedHead(self._analog))
        self.dut.ana_out_pulse.value = 0
        self.oracle = Oracle(self.params, FunctionalHead(self._analog))
        await self.reset()
        self.mismatches.clear()
        self._held = None
        self.clocks = 0
        self.reason = None
        self.over.clear()
        self.dut.mutsel.value = mutant
        # Whatever the head does by itself, it does now.
        await ClockCycles(self.dut.clk, 8)
        await self.reset()

    def fail(self, reason: str) -> None:
        """Note a difference; only the first one counts."""
        if self.reason is None:
            self.reason = reason
            self.over.set()

    def _compare(self, beats: list[int]) -> None:
        super()._compare(beats)
        if self.mismatches:
            self.fail(f"mismatch: {self.mismatches[0]}")

    async def _watch(self) -> None:
        """Pass every clock to the array model and look at the ports."""
        edge = FallingEdge(self.dut.clk)
        while True:
            await edge
            self.clocks += 1
            try:
                self.bridge.step()
                self._look()
            except Exception as error:
                self.fail(f"{type(error).__name__}: {error}")

    def _look(self) -> None:
        """Rules of the ports that no answer depends on."""
        dut = self.dut
        if int(dut.rst.value):
            self._held = None
            return
        if int(dut.m_axis_tvalid.value):
            beat = (int(dut.m_axis_tdata.value), int(dut.m_axis_tlast.value))
            if self._held not in (None, beat):
                raise Difference("a waiting result beat changed")
            self._held = None if int(dut.m_axis_tready.value) else beat
        elif self._held is not None:
            raise Difference("a waiting result beat was withdrawn")
        strobes = int(dut.ana_k_write.value) + int(dut.ana_v_write.value)
        if not strobes and (int(dut.ana_subtile_select.value) | int(dut.ana_column_select.value)):
            raise Difference("a column is selected while nothing is written")
        if int(dut.ana_q_pulse.value) and not int(dut.ana_integrate.value):
            raise Difference("a word line is on outside the integration")

    # --- waiting ----------------------------------------------------------------------------
    async def drain(self, most_us: int = PATIENCE_CLK * CLOCK_NS // 1000) -> None:
        """Wait until everything owed has come and the head is idle."""
        left = 1000 * most_us // CLOCK_NS
        sent = cocotb.start_soon(self.source.wait())
        try:
            while self.owed or not sent.done():
                if left <= 0:
                    raise Difference("an answer is missing")
                await Timer(8 * CLOCK_NS, "ns")
                left -= 8
        finally:
            if not sent.done():
                sent.cancel()
        await ClockCycles(self.dut.clk, 4)
        while not int(self.dut.status_idle.value):
            if left <= 0:
                raise Difference("the head stays busy")
            await FallingEdge(self.dut.clk)
            left -= 1
        await ClockCycles(self.dut.clk, 2)

    async def settle(self) -> None:
        """Drain, then check every answer, counter and sticky bit."""
        await self.drain()
        self.check()

    async def clear_status(self) -> None:
        """Drain, clear the event counters and check that they are."""
        await self.drain()
        self.dut.status_clear.value = 1
        await ClockCycles(self.dut.clk, 1)
        self.dut.status_clear.value = 0
        await ClockCycles(self.dut.clk, 2)
        self.oracle.errors = dict.fromkeys(PacketError, 0)
        self.oracle.full_scale_lanes = 0
        self.check()


class HardTraffic(Traffic):
    """Traffic, and packets whose results are large."""

    def extreme(self, command: Command) -> None:
        """Queue a good packet whose codes push results towards full scale, of either sign."""
        p, rng = self.params, self.rng
        top_kv, top_q = 2**p.kv_bits - 1, 2**p.q_bits - 1
        sections = {}
        if command.writes:
            sections["k"] = [top_kv] * p.rows
            edge = [rng.choice((0, top_kv)) for _ in range(p.lanes)]
            sections["v"] = [
                code if rng.random() < 0.6 else rng.randint(0, top_kv) for code in edge
            ]
        if command.queries:
            sections["q"] = [top_q] * p.rows
        self.bench.send(command, self.tag(), **sections)


# --- the scenario ---------------------------------------------------------------------------
async def _empty(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """After reset; a query on an empty window; the first tokens."""
    bench.check()
    if not int(bench.dut.status_idle.value):
        raise Difference("busy after reset")
    traffic.good(QUERY)
    await bench.settle()
    traffic.good(WRITE)
    await bench.settle()
    traffic.good(QUERY)
    traffic.good(BOTH)
    await bench.settle()


async def _latency(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Last beat to first result beat, of both kinds of query."""
    dut = bench.dut
    for command, expected in (
        (BOTH, job["latency_clk"]),
        (QUERY, job["query_latency_clk"]),
        (BOTH, job["latency_clk"]),
    ):
        traffic.good(command)
        taken, clock = None, 0
        while True:
            await FallingEdge(dut.clk)
            clock += 1
            if (
                int(dut.s_axis_tvalid.value)
                & int(dut.s_axis_tready.value)
                & int(dut.s_axis_tlast.value)
            ):
                taken = clock
            if taken is not None and int(dut.status_idle.value) and clock > taken:
                raise Difference("idle with a query in flight")
            if int(dut.m_axis_tvalid.value):
                break
            if clock > 4 * expected:
                raise Difference(f"{command.name}: no answer")
        if taken is None or clock - taken != expected:
            raise Difference(f"{command.name}: wrong latency")
        await bench.settle()


async def _fill(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Through a full window and around it; status looked at on the way."""
    for token in range(2 * bench.params.window + 3):
        traffic.good(BOTH)
        if token % 3 == 0:
            await bench.settle()
    await bench.settle()
    await bench.clear_status()


async def _kinds(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Every kind of good packet, under stalls."""
    for probability in (0.0, 0.3, 0.7):
        if probability:
            bench.stall(job["seed"], probability)
        traffic.good(WRITE)
        for _ in range(20):
            traffic.good(traffic.rng.choices((WRITE, QUERY, BOTH, FLUSH), (6, 6, 6, 2))[0])
        await bench.settle()
    bench.go()


async def _malformed(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Every kind of bad packet, with good ones between; counters looked at as they count."""
    wrong = {
        "short": (WRITE, QUERY, BOTH),
        "long": (WRITE, QUERY, BOTH, FLUSH),
        "unknown": (WRITE, BOTH),
        "reserved": (WRITE, QUERY, FLUSH),
        "code": (WRITE, BOTH, WRITE),
    }
    await bench.clear_status()
    for kind, commands in wrong.items():
        for command in commands:
            traffic.malformed(kind, command)
            traffic.malformed(kind, command)
            await bench.settle()
        traffic.good(BOTH)
        traffic.good(QUERY)
        await bench.settle()


async def _sweeps(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Every unknown command, every reserved bit, every length, every bit too high in a code."""
    p = bench.params

    def beats(command: Command) -> list[int]:
        return token_beats(p, command, traffic.tag(), **traffic.sections(command))

    async def refused(packets: Sequence[list[int]], error: PacketError) -> None:
        for at in range(0, len(packets), 5):
            await bench.clear_status()
            for packet in packets[at : at + 5]:
                bench.send_refused(packet, error)
            await bench.settle()
        traffic.good(BOTH)
        await bench.settle()

    unknown = [code for code in range(256) if code not in set(Command)]
    headers = [code | traffic.tag() << TAG_LSB for code in unknown]
    await refused([[header] for header in headers], PacketError.COMMAND)
    for command in Command:
        packet = beats(command)
        reserved = range(TAG_LSB + p.tag_bits, p.bus_bits)
        await refused(
            [[packet[0] | 1 << bit, *packet[1:]] for bit in reserved], PacketError.COMMAND
        )
        extra = [traffic.rng.getrandbits(p.bus_bits) for _ in range(4)]
        lengths = [length for length in range(1, len(packet) + 4) if length != len(packet)]
        await refused([[*packet, *extra][:length] for length in lengths], PacketError.LENGTH)
        for _ in range(2):
            # Twice, with other codes around the bad one.
            packet = beats(command)
            await refused(
                [
                    [value | (1 << bit if at == beat else 0) for at, value in enumerate(packet)]
                    for beat, bit in _too_high(p, command)
                ],
                PacketError.CODE,
            )


def _too_high(params: HeadParams, command: Command) -> list[tuple[int, int]]:
    """Beat and bit of everything above a code's width, in slots that hold a code."""
    p, places, first = params, [], 1
    sections = (
        (p.kv_bits, p.rows, p.k_beats, command.writes),
        (p.kv_bits, p.lanes, p.v_beats, command.writes),
        (p.q_bits, p.rows, p.q_beats, command.queries),
    )
    for bits, count, beats, there in sections:
        if there:
            for slot in range(count):
                beat, place = divmod(slot, p.codes_per_beat)
                places += [
                    (first + beat, place * p.slot_bits + bit) for bit in range(bits, p.slot_bits)
                ]
            first += beats
    return places


async def _status(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Counters stop at their limit and can be cleared, one kind of event at a time."""
    p = bench.params
    limit = 2**p.event_bits - 1
    for kind in ("unknown", "short", "code"):
        await bench.clear_status()
        for _ in range(limit + 2):
            traffic.malformed(kind, WRITE)
            await bench.settle()
    traffic.good(FLUSH)
    await bench.clear_status()
    for _ in range(limit + 2):
        traffic.good(QUERY)
        await bench.settle()
    # Extreme codes: lanes at full scale, of either sign, none to all of them.
    top_kv, top_q = 2**p.kv_bits - 1, 2**p.q_bits - 1
    for probability in (0.1, 0.5, 1.0):
        traffic.good(FLUSH)
        await bench.clear_status()
        for token in range(p.window + 2):
            full = [traffic.rng.random() < probability for _ in range(p.lanes)]
            v = [
                traffic.rng.choice((0, top_kv)) if is_full else traffic.rng.randint(0, top_kv)
                for is_full in full
            ]
            bench.send(BOTH, traffic.tag(), k=[top_kv] * p.rows, v=v, q=[top_q] * p.rows)
            if token < p.window - 2 or token > p.window:
                await bench.settle()
    await bench.clear_status()


async def _resets(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Reset in mid-packet and in several phases; then as from power-up."""
    for clocks in (3, 9, 14, 25, 45, 60, 75):
        traffic.malformed("code", BOTH)
        traffic.good(BOTH)
        traffic.good(BOTH)
        await ClockCycles(bench.dut.clk, clocks)
        await bench.reset()
        bench.check()
        if not int(bench.dut.status_idle.value):
            raise Difference("busy after reset")
        traffic.good(QUERY)
        traffic.good(BOTH)
        await bench.settle()


async def _back_pressure(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """A receiver that stops loses nothing: not sums, not the full-scale flags, not the error."""
    for last in (BOTH, "empty", "short", "code", "unknown"):
        traffic.good(FLUSH)
        await bench.settle()
        answers = bench.answers
        bench.sink.pause = True
        for _ in range(2):
            traffic.extreme(BOTH)
        if last == "empty":
            traffic.good(FLUSH)
            traffic.good(QUERY)
        elif last is BOTH:
            traffic.extreme(BOTH)
            traffic.extreme(BOTH)
        else:
            traffic.malformed(last, BOTH)
            traffic.extreme(BOTH)
        await ClockCycles(bench.dut.clk, 260)
        if bench.answers != answers or not int(bench.dut.m_axis_tvalid.value):
            raise Difference("the result did not wait")
        bench.sink.pause = False
        await bench.settle()


async def _mixture(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Good, bad and extreme packets close after each other, with and without stalls."""
    kinds = ("short", "long", "unknown", "reserved", "code")
    for probability in (0.0, 0.4):
        if probability:
            bench.stall(job["seed"] + 2, probability)
        for _ in range(8):
            await bench.clear_status()
            for _ in range(8):
                choice = traffic.rng.randrange(5)
                if choice == 0:
                    traffic.malformed(traffic.rng.choice(kinds), traffic.rng.choice((WRITE, BOTH)))
                elif choice == 1:
                    traffic.good(traffic.rng.choices((WRITE, QUERY, FLUSH), (3, 3, 1))[0])
                else:
                    traffic.extreme(traffic.rng.choice((QUERY, BOTH)))
            await bench.settle()
    bench.go()


SCENARIO = (
    _empty,
    _latency,
    _fill,
    _kinds,
    _malformed,
    _sweeps,
    _status,
    _resets,
    _back_pressure,
    _mixture,
)


async def _play(bench: MutantBench, job: dict[str, Any]) -> None:
    traffic = HardTraffic(bench, job["seed"])
    try:
        for part in SCENARIO:
            try:
                await part(bench, traffic, job)
            except Exception as error:
                raise Difference(f"{part.__name__[1:]}: {error}") from error
    except Exception as error:
        bench.fail(str(error))
    bench.over.set()


async def judge(bench: MutantBench, mutant: int, job: dict[str, Any]) -> dict[str, Any]:
    """Play the scenario to one mutant; ``caught`` says why it was noticed, or is None."""
    start = time.perf_counter()
    await bench.load(mutant)
    play = cocotb.start_soon(_play(bench, job))
    await bench.over.wait()
    if not play.done():
        play.cancel()
    return {
        "mutant": mutant,
        "caught": bench.reason,
        "clocks": bench.clocks,
        "seconds": time.perf_counter() - start,
    }


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


@cocotb.test()
async def mutants(dut: Any) -> None:
    """Judge each mutant of the job, one line of its results file each, flushed at once."""
    job = load_job()
    bench = MutantBench(dut, HeadParams(**job["params"]))
    await bench.start()
    results = Path(job["results"])
    chosen: Sequence[int] = job["mutants"]
    for mutant in chosen:
        _append(results, {"started": mutant})
        _append(results, await judge(bench, mutant, job))
