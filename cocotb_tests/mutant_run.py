"""Plays one compact scenario to mutants of a head, one after the other, in one simulation.

The design under test holds every mutant; its input ``mutsel`` selects one, 0 none. Beside it runs
the original under the same inputs, and the output ``differs`` compares the two. What the mutant
does is checked against the specification: answers, registers and masks against the exact models,
the order of control lines by the bridge, and rules that a look at the ports can see broken. The
comparison is noted apart; the scenario goes on until the specification is seen broken, or ends.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Event, FallingEdge

from cocotb_tests.axil import OKAY, SLVERR, Done, EventBus, Reading
from cocotb_tests.bench import CLOCK_NS, Bench, load_job
from cocotb_tests.lines import reader, watcher
from cocotb_tests.oracle import Packet
from cocotb_tests.streams import Received
from cocotb_tests.traffic import BOTH, FLUSH, QUERY, WRITE, Traffic
from hw import registers
from hw.layer import stream_prefixes
from hw.packet import SHOT_LSB, TAG_LSB, Command, PacketError, Shot, token_beats
from hw.params import HeadParams
from hw.registers import Access, Register
from sim.reference.ages import TokenAges

__all__ = ["LaggingBus", "MutantBench", "judge", "mutants"]

#: Clocks without a packet, an answer or an access after which something is missing.
PATIENCE_CLK = 1500
#: Saturation currents of the array model. A head as small as the one that is mutated never comes
#: near the published ones: every result must be able to reach full scale, of either sign.
ANALOG = {
    "s_sat_ua": 12.0,
    "a_sat_ua": 12.0,
    "score_offset_sigma_clk": 0.3,
    "output_offset_sigma_counts": 0.3,
}


#: Ports of a stream: valid, ready, and what must stay.
STREAM_PARTS = ("tvalid", "tready", "tdata", "tlast")


class Difference(AssertionError):
    """The mutant does something the design must not do."""


def demand(holds: bool, otherwise: str) -> None:
    """Fail unless something holds."""
    if not holds:
        raise Difference(otherwise)


class LaggingBus(EventBus):
    """AXI4-Lite master that can let address, data and its own readiness come late."""

    #: Clocks by which the write address, the data, and readiness for responses come late.
    lags = (0, 0, 0)

    def __init__(self, dut: Any) -> None:
        super().__init__(dut)
        self._clk, self._wready = dut.clk, dut.s_axil_wready
        self._rng = random.Random(0)

    def _junk(self, *names: str) -> None:
        for name in names:
            line = self._of[name]
            line.value = 0x5A5A5A5A & (1 << len(line)) - 1

    async def write(self, address: int, word: int, strobe: int) -> int:
        """Write."""
        if self.lags == (0, 0, 0):
            return await super().write(address, word, strobe)
        of, (address_lag, data_lag, ready_lag) = self._of, self.lags
        async with self._write_lock:
            self._junk("awaddr", "wdata", "wstrb", "awprot")
            for clock in range(max(address_lag, data_lag) + 1):
                if clock == address_lag:
                    of["awaddr"].value, of["awvalid"].value = address, 1
                if clock == data_lag:
                    of["wdata"].value, of["wstrb"].value, of["wvalid"].value = word, strobe, 1
                if clock < max(address_lag, data_lag):
                    await ClockCycles(self._clk, 1)
                    demand(not int(of["awready"].value), "a write was taken without its data")
            await self._until("awready")
            demand(bool(int(self._wready.value)), "address was taken without the data")
            of["awvalid"].value = of["wvalid"].value = 0
            self._junk("awaddr", "wdata", "wstrb")
            await self._until("bvalid")
            await ClockCycles(self._clk, ready_lag)
            of["bready"].value = 1
            await ClockCycles(self._clk, 1)
            of["bready"].value = 0
            return int(of["bresp"].value)

    async def read(self, address: int) -> Reading:
        """Read, a clock later now and then: what changes in every clock must not stay hidden."""
        if self._rng.random() < 0.5:
            await ClockCycles(self._clk, 1)
        if self.lags == (0, 0, 0):
            return await super().read(address)
        of, lag = self._of, self.lags[2]
        async with self._read_lock:
            of["araddr"].value, of["arvalid"].value = address, 1
            await self._until("arready")
            of["arvalid"].value = 0
            self._junk("araddr", "arprot")
            await self._until("rvalid")
            await ClockCycles(self._clk, lag)
            of["rready"].value = 1
            await ClockCycles(self._clk, 1)
            of["rready"].value = 0
            return Reading(int(of["rresp"].value), int(of["rdata"].value))


class _Rewrites:
    """Follows what is written to the arrays: tokens in their order, and columns rewritten.

    Begin with an empty window, and begin anew after a flush.
    """

    def __init__(self, bench: MutantBench, sinks: int = 0) -> None:
        self._p, self._bench, self._sinks = bench.params, bench, sinks
        self._tokens: dict[str, deque[int]] = {"key": deque(), "value": deque()}
        self._held: dict[str, dict[int, int]] = {"key": {}, "value": {}}
        self._pointer = {"key": 0, "value": 0}
        self._next = 0  # column that is rewritten next
        self.count = {"key": 0, "value": 0}  #: columns rewritten
        self.clocks: list[int] = []  #: in which a rewriting of K began
        self.rewrites = {"key": False, "value": False}  #: so does the write that began last

    def expect(self, packets: Sequence[Packet]) -> None:
        """Note a token, one packet of each head."""
        p = self._p
        for name, of, count in (("key", "k", p.rows), ("value", "v", p.lanes)):
            raw = 0
            for head, packet in enumerate(packets):
                for at, code in enumerate(getattr(packet, of)):
                    raw |= code << p.kv_bits * (head * count + at)
            self._tokens[name].append(raw)

    def see(self, name: str, column: int, raw: int) -> None:
        """A write has begun."""
        p, held, tokens = self._p, self._held[name], self._tokens[name]
        token = bool(tokens) and column == self._pointer[name] and raw == tokens[0]
        self.rewrites[name] = not token
        if token:
            tokens.popleft()
            held[column] = raw
            follows = column + 1
            self._pointer[name] = follows if follows < p.window else self._sinks
            return
        demand(column == self._next, f"{name}: column {column} was written, not {self._next}")
        demand(held.get(column) == raw, f"{name}: column {column} was not rewritten as it was")
        self.count[name] += 1
        if name == "key":
            self.clocks.append(self._bench.clocks)
        else:
            self._next = 0 if column + 1 == len(held) else column + 1


class _Notes:
    """How a mutant was noticed."""

    def __init__(self) -> None:
        self.part = "load"  #: of the scenario
        self.reason: str | None = None
        self.over = Event()  #: the scenario has ended, or a difference was found

    def fail(self, reason: str) -> None:
        """Note a difference; only the first one counts."""
        if self.reason is None:
            self.reason = f"{self.part}: {reason}"
            self.over.set()


class MutantBench(Bench):
    """A bench that is made anew for each mutant and notes the first difference."""

    def __init__(self, dut: Any, params: HeadParams, notes: _Notes) -> None:
        super().__init__(dut, params, library=False, **ANALOG)
        self.bus = self.registers._bus = LaggingBus(dut)
        self.notes = notes
        self.clocks = 0  #: clocks since the mutant was switched on
        self.latency = 0  #: word of the register, once it has been read
        self.apart = 0  #: first clock in which an output differs from the original's, 0 if none
        self.aside = 0  #: the same of outputs that mean nothing in that clock
        self.rewrites: _Rewrites | None = None
        self.watch: _AgeWatch | None = None  #: begins when the length of a tick is set
        self._alive = 0
        self._idle_now = 1
        self._counted = self._shown = [0, 0]  # clocks that were busy, and idle
        self._waiting: dict[str, tuple[int, ...] | None] = {}
        self._pulses = -1  # word lines that may be on
        self._began: dict[str, Any] = {"key": None, "value": None}  # write that began last
        prefixes = [stream_prefixes(params, head) for head in range(params.heads)]
        self._tokens = [
            tuple(watcher(getattr(dut, f"{name}_{part}")) for part in ("tvalid", "tready", "tlast"))
            for name, _ in prefixes
        ]
        #: What is offered, and must stay until it is taken: valid, ready, and the rest.
        self._offers: dict[str, tuple[Callable[[], int], ...]] = {
            name: tuple(reader(getattr(dut, f"{name}_{part}")) for part in STREAM_PARTS)
            for _, name in prefixes
        }
        for name, parts in (("b", ("bresp",)), ("r", ("rresp", "rdata"))):
            lines = (f"{name}valid", f"{name}ready", *parts)
            self._offers[f"s_axil_{name}"] = tuple(
                reader(getattr(dut, f"s_axil_{line}")) for line in lines
            )
        ports = ("rst", "idle", "differs", "s_axil_arvalid", "s_axil_arready")
        ports += ("ana_k_write", "ana_v_write", "ana_subtile_select", "ana_column_select")
        ports += ("ana_q_pulse", "ana_integrate")
        self._line = {name: reader(getattr(dut, name)) for name in ports}
        self._inside = [False] * params.heads  # a packet has begun to come in

    async def load(self, mutant: int) -> None:
        """Reset, and switch the mutant on."""
        dut = self.dut
        dut.rst.value = 1
        dut.mutsel.value = 0
        dut.ana_out_pulse.value = 0
        dut.ana_out_sign.value = 0
        for head in range(self.params.heads):
            cocotb.start_soon(self._score(head))
        cocotb.start_soon(self._watch())
        await ClockCycles(dut.clk, 2)
        dut.mutsel.value = mutant
        await self.reset()
        # Whatever the head does by itself, it does now.
        await ClockCycles(dut.clk, 8)
        self.apart = self.aside = 0
        await self.reset()

    # --- what is followed -------------------------------------------------------------------
    async def reset(self) -> None:
        """Reset."""
        self.rewrites = self.watch = None
        self._watching = False
        await super().reset()

    def queue(self, head: int, packet: Packet) -> None:
        """Queue any packet."""
        super().queue(head, packet)
        if self.rewrites is not None and head == self.params.heads - 1 and packet.k is not None:
            self.rewrites.expect([channel.queued[-1] for channel in self.channels])

    def _header(self, head: int) -> None:
        self._alive = self.clocks
        super()._header(head)

    def _compare(self, head: int, received: Received) -> None:
        self._alive = self.clocks
        super()._compare(head, received)
        if self.mismatches:
            self.notes.fail(f"mismatch: {self.mismatches[0]}")

    def _written(self, done: Done) -> None:
        self._alive = self.clocks
        super()._written(done)
        self._watching |= done.register.name == "age_tick" and self.watch is not None
        if done.register.name == "command":
            if done.values["soft_reset"] or done.values["clear_counters"]:
                self._counted = [0, 0]
                self._counted[self._idle_now] = 1

    async def _watch(self) -> None:
        """Pass every clock to the array models and look at the ports."""
        edge = FallingEdge(self.dut.clk)
        while True:
            await edge
            self.clocks += 1
            self.bridge.step()
            self.bridge.clocks += 1
            self._look()

    def _stays(self, name: str) -> None:
        """What is offered must stay until it is taken."""
        valid, ready, *payload = self._offers[name]
        before = self._waiting.get(name)
        if not valid():
            demand(before is None, f"{name}: what waited was withdrawn")
            return
        offered = tuple(part() for part in payload)
        demand(before in (None, offered), f"{name}: what waited has changed")
        self._waiting[name] = None if ready() else offered

    def _look(self) -> None:
        """Rules of the ports that no answer depends on."""
        line = self._line
        if line["rst"]():
            self._waiting.clear()
            self._counted = [0, 0]
            self._alive = self.clocks
            self._inside = [False] * self.params.heads
            return
        differs = line["differs"]()
        if differs:
            if differs & 1:
                self.apart = self.apart or self.clocks
            self.aside = self.aside or self.clocks
        for name in self._offers:
            self._stays(name)
        self._idle_now = line["idle"]()
        demand(not (self._idle_now and any(self._inside)), "idle while a packet comes in")
        for head, (valid, ready, last) in enumerate(self._tokens):
            if valid() and ready():
                self._inside[head] = not last()
        self._counted[self._idle_now] += 1
        if line["s_axil_arvalid"]() and line["s_axil_arready"]():
            self._shown = list(self._counted)
        for name in self._began:
            held = self.bridge._writing.get(name)
            if held is not self._began[name]:
                self._began[name] = held
                if held is not None and self.rewrites is not None:
                    subtile, column, raw = held.raw
                    at = self.params.columns * (subtile.bit_length() - 1) + column.bit_length() - 1
                    self.rewrites.see(name, at, raw)
        if not (line["ana_k_write"]() or line["ana_v_write"]()):
            selects = line["ana_subtile_select"]() | line["ana_column_select"]()
            demand(not selects, "a column is selected while nothing is written")
        pulses, integrates = line["ana_q_pulse"](), line["ana_integrate"]()
        demand(not pulses or bool(integrates), "a word line is on outside the integration")
        if integrates:
            demand(not pulses & ~self._pulses, "a word line rises during the integration")
        self._pulses = pulses if integrates else -1
        if self._watching and self.watch is not None:
            self.watch.clock()
        demand(self.clocks - self._alive < PATIENCE_CLK, "nothing happens any more")

    # --- waiting and checks -----------------------------------------------------------------
    async def pass_clocks(self, clocks: int) -> None:
        """Let time go by."""
        while clocks > 0:
            self._alive = self.clocks
            await ClockCycles(self.dut.clk, min(clocks, PATIENCE_CLK // 2))
            clocks -= PATIENCE_CLK // 2

    async def read(self, name: str, entry: int = 0) -> dict[str, int]:
        """Fields of a register."""
        self._alive = self.clocks
        return await self.registers.read(name, entry)

    async def check(self) -> None:
        """Check every answer, counter and sticky bit, the interrupt, and the clock counters."""
        self._alive = self.clocks
        await super().check()
        for kind in (0, 1):
            name = ("clocks_busy", "clocks_idle")[kind]
            count = (await self.read(name))["count"]
            expected = min(self._shown[kind], self.registers.map[name]["count"].high)
            demand(count == expected, f"{name} {count}, expected {expected}")
        sticky = self.oracle.events | self.sent.events
        enabled = self.registers.model.words["irq_enable"]
        fields = self.registers.map["irq_enable"].fields
        wanted = any(field.get(enabled) and field.name in sticky for field in fields)
        stale = "stale" in self.registers.map["sticky"] and enabled & 1 << 7
        if not stale:
            demand(int(self.dut.irq.value) == wanted, f"irq is {int(not wanted)}")

    async def drain(self, most_us: int = 0) -> None:
        """Wait until everything queued has been dealt with; `PATIENCE_CLK` says how long."""
        await self._drained()
        self.oracle.settle()

    async def settle(self) -> None:
        """Wait until everything is answered, then check."""
        await self.drain()
        await self.check()

    async def clear(self) -> None:
        """Drain, clear counters and sticky bits, check that they are."""
        await self.drain()
        await self.registers.write("command", clear_counters=1)
        await self.registers.write(
            "sticky", **{field.name: 1 for field in self.registers.map["sticky"].fields}
        )
        await self.check()

    async def soft_reset(self) -> None:
        """Drain and reset by command."""
        await self.drain()
        await self.registers.write("command", soft_reset=1)

    async def refused(self, address: int, word: int, strobe: int = 0b1111) -> None:
        """Write what must be refused."""
        self._alive = self.clocks
        response = await self.registers.write_word(address, word, strobe)
        demand(response == SLVERR, f"write of {word:#x} to {address:#x} was accepted")


class HardTraffic(Traffic):
    """Traffic, and packets whose results are large.

    No token has the codes of one shortly before it: a write of the same codes to the column under
    the pointer would look like the refresh of that column.
    """

    bench: MutantBench

    def __init__(self, bench: MutantBench, seed: int) -> None:
        super().__init__(bench, seed)
        lately = 4 * self.params.window
        self._lately: dict[str, deque[list[int]]] = {
            name: deque(maxlen=lately) for name in ("k", "v")
        }

    def sections(self, command: Command) -> dict[str, list[int]]:
        """Codes that the command asks for."""
        sections = super().sections(command)
        top = 2**self.params.kv_bits - 1
        for name, lately in self._lately.items():
            if name in sections:
                while sections[name] in lately:
                    sections[name] = [self.rng.randint(0, top) for _ in sections[name]]
                lately.append(sections[name])
        return sections

    def extreme(self, command: Command, shot: Shot | None = None) -> None:
        """Queue a good step whose codes push results towards full scale, of either sign."""
        p, rng, tag = self.params, self.rng, self.tag()
        top_kv, top_q = 2**p.kv_bits - 1, 2**p.q_bits - 1
        for head in range(p.heads):
            sections = {}
            if command.writes:
                sections["k"] = [top_kv] * p.rows
                edge = [rng.choice((0, top_kv)) for _ in range(p.lanes)]
                sections["v"] = [
                    code if rng.random() < 0.6 else rng.randint(0, top_kv) for code in edge
                ]
            if command.queries:
                sections["q"] = [top_q] * p.rows
            self.bench.send(command, tag, head=head, shot=shot, **sections)

    def wrong_step(self, beats: Sequence[int], error: PacketError, command: Command) -> None:
        """Queue a packet that is refused, in a step whose others are good."""
        p = self.params
        wrong = self.rng.randrange(p.heads)
        tag = beats[0] >> TAG_LSB & 2**p.tag_bits - 1
        for head in range(p.heads):
            if head == wrong:
                self.bench.send_refused(beats, error, head=head)
            else:
                self.bench.send(command, tag, head=head, **self.sections(command))


Part = Callable[[MutantBench, HardTraffic, dict[str, Any]], Coroutine[Any, Any, None]]


# --- the scenario: packets ------------------------------------------------------------------
async def _first(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """After reset: what registers say; a query on an empty window; the first tokens."""
    demand(bool(int(bench.dut.idle.value)), "busy after reset")
    latency = await bench.read("latency")
    expected = {name: job[name] for name in ("latency_clk", "query_latency_clk")}
    demand(latency == expected, f"latency reads {latency}")
    await bench.check()
    await _read_all(bench)
    traffic.good(QUERY)
    await bench.settle()
    traffic.good(WRITE)
    await bench.settle()
    traffic.good(QUERY)
    traffic.good(BOTH)
    await bench.settle()


async def _read_all(bench: MutantBench) -> None:
    """Every register, first and last entry of arrays; what software can know is checked."""
    for register in bench.registers.map:
        for entry in sorted({0, register.entries - 1}):
            bench._alive = bench.clocks
            reading = await bench.registers.read_word(register.offset + 4 * entry)
            demand(reading.response == OKAY, f"read of {register.name} was refused")
            if register.name == "latency":
                held = bench.latency = bench.latency or reading.word
                demand(reading.word == held, f"latency reads {reading.word:#x}, before {held:#x}")


async def _latency(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Last beat to first result beat, of both kinds of query, for several phase lengths."""
    p = bench.params
    lengths = [(p.write_clk, p.guard_clk), (1, 2), (p.write_max_clk, 1), (2, 15), (p.write_clk, 4)]
    for write_clk, guard_clk in lengths:
        if (write_clk, guard_clk) != lengths[0]:
            await bench.registers.write("phases", write_clk=write_clk, guard_clk=guard_clk)
        more = 3 * (guard_clk - p.guard_clk)
        for command, expected in (
            (BOTH, job["latency_clk"] + more + write_clk - p.write_clk),
            (QUERY, job["query_latency_clk"] + more),
        ):
            took = await _clocks_to_answer(bench, traffic, command, expected)
            demand(took == expected, f"{command.name}: {took} clocks instead of {expected}")
            await bench.settle()
        # A token is asked for while its V is still being written, the first as soon as any other.
        traffic.good(FLUSH)
        await bench.settle()
        times = []
        for _ in range(2):
            traffic.good(WRITE)
            times.append(await _clocks_to_answer(bench, traffic, QUERY, expected, after=1))
            await bench.settle()
        demand(times[0] == times[1], f"first token: {times[0]} clocks instead of {times[1]}")
    await bench.soft_reset()


async def _clocks_to_answer(
    bench: MutantBench, traffic: HardTraffic, command: Command, about: int, *, after: int = 0
) -> int:
    """Send a packet, behind some that wait, and measure how long its answer takes."""
    dut, last = bench.dut, bench.params.heads - 1
    number = "" if last == 0 else f"_{last}"
    tokens = [getattr(dut, f"s_axis{number}_{name}") for name in ("tvalid", "tready", "tlast")]
    valid = getattr(dut, f"m_axis{number}_tvalid")
    traffic.good(command)
    taken, clock = None, 0
    while True:
        await FallingEdge(dut.clk)
        clock += 1
        demand(not (taken and int(dut.idle.value)), "idle with a query in flight")
        if all(int(line.value) for line in tokens):
            taken = clock if after == 0 else None
            after -= 1
        if int(valid.value):
            break
        demand(clock < 4 * about + 100, f"{command.name}: no answer")
    return clock - (taken or 0)


async def _fill(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Through a full window and around it; registers looked at on the way."""
    for token in range(2 * bench.params.window + 3):
        traffic.good(BOTH)
        if token % 3 == 0:
            await bench.settle()
    await bench.settle()
    await bench.clear()


async def _kinds(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Every kind of good packet and shot, under stalls."""
    for probability in (0.0, 0.3, 0.7):
        bench.stall(job["seed"], probability)
        traffic.good(WRITE)
        for _ in range(20):
            traffic.any_shot(traffic.rng.choices((WRITE, QUERY, BOTH, FLUSH), (6, 6, 6, 2))[0])
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
    for kind, commands in wrong.items():
        await bench.clear()
        for command in commands:
            traffic.malformed(kind, command)
            traffic.malformed(kind, command)
            await bench.drain()
        await bench.check()
        traffic.good(BOTH)
        traffic.good(QUERY)
        await bench.settle()


async def _sweeps(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Every unknown command, every reserved bit, every length, every bit too high in a code."""
    p = bench.params

    def beats(command: Command) -> list[int]:
        return token_beats(p, command, traffic.tag(), **traffic.sections(command))

    async def refused(
        packets: Sequence[list[int]], error: PacketError, command: Command = FLUSH
    ) -> None:
        for at in range(0, len(packets), 12):
            await bench.registers.write("command", clear_counters=1)
            for packet in packets[at : at + 12]:
                traffic.wrong_step(packet, error, command)
            await bench.settle()
        traffic.good(BOTH)
        await bench.settle()

    unknown = [code for code in range(256) if code not in set(Command)]
    headers = [code | traffic.tag() << TAG_LSB for code in unknown]
    await refused([[header] for header in headers], PacketError.COMMAND)
    for command in Command:
        packet = beats(command)
        shot = p.shots and command.queries
        reserved = [*range(TAG_LSB + p.tag_bits, SHOT_LSB), *range(SHOT_LSB + 8, p.bus_bits)]
        reserved += [] if shot else range(SHOT_LSB, SHOT_LSB + 8)
        await refused(
            [[packet[0] | 1 << bit, *packet[1:]] for bit in reserved], PacketError.COMMAND, command
        )
        extra = [traffic.rng.getrandbits(p.bus_bits) for _ in range(4)]
        lengths = [length for length in range(1, len(packet) + 4) if length != len(packet)]
        await refused(
            [[*packet, *extra][:length] for length in lengths], PacketError.LENGTH, command
        )
        for _ in range(2):
            # Twice, with other codes around the bad one.
            packet = beats(command)
            await refused(
                [
                    [value | (1 << bit if at == beat else 0) for at, value in enumerate(packet)]
                    for beat, bit in traffic._above_codes(command)
                ],
                PacketError.CODE,
                command,
            )


async def _status(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Counters stop at their limit, one kind of event at a time; lanes at full scale."""
    p = bench.params
    limit = 2**p.event_bits - 1
    for kind in ("unknown", "short", "code"):
        await bench.clear()
        for at in range(limit + 2):
            traffic.malformed(kind, WRITE)
            if at % 4 == 2 or at >= limit - 2:
                await bench.settle()
    traffic.good(FLUSH)
    await bench.clear()
    for _ in range(limit + 2):
        traffic.good(QUERY)
        await bench.settle()
    # Extreme codes: lanes at full scale, of either sign, none to all of them.
    top_kv, top_q = 2**p.kv_bits - 1, 2**p.q_bits - 1
    for probability in (0.1, 0.5, 1.0):
        traffic.good(FLUSH)
        await bench.clear()
        for token in range(p.window + 2):
            tag = traffic.tag()
            for head in range(p.heads):
                full = [traffic.rng.random() < probability for _ in range(p.lanes)]
                v = [
                    traffic.rng.choice((0, top_kv)) if is_full else traffic.rng.randint(0, top_kv)
                    for is_full in full
                ]
                k, q = [top_kv] * p.rows, [top_q] * p.rows
                bench.send(BOTH, tag, head=head, k=k, v=v, q=q)
            if token < p.window - 2 or token > p.window:
                await bench.settle()
    await bench.clear()


async def _resets(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Reset in mid-packet and in several phases; then as from power-up."""
    for clocks in (3, 9, 14, 25, 45, 60, 75):
        traffic.malformed("code", BOTH)
        traffic.good(BOTH)
        traffic.any_shot(BOTH)
        await bench.pass_clocks(clocks)
        await bench.reset()
        demand(bool(int(bench.dut.idle.value)), "busy after reset")
        await bench.check()
        traffic.good(QUERY)
        traffic.good(BOTH)
        await bench.settle()


async def _back_pressure(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """A receiver that stops loses nothing: not sums, not the full-scale flags, not the error."""
    for last in (BOTH, "empty", "short", "code", "unknown"):
        traffic.good(FLUSH)
        await bench.drain()
        answers = bench.answers
        for channel in bench.channels:
            channel.sink.pause = True
        await bench.pass_clocks(2)
        for _ in range(2):
            traffic.extreme(BOTH)
        if last == "empty":
            traffic.good(FLUSH)
            traffic.good(QUERY)
        elif last is BOTH:
            traffic.extreme(BOTH)
            traffic.extreme(BOTH)
            traffic.any_shot(QUERY)
        else:
            traffic.malformed(str(last), BOTH)
            traffic.extreme(BOTH)
        await bench.pass_clocks(260)
        waits = all(
            bench._offers[stream_prefixes(bench.params, head)[1]][0]()
            for head in range(bench.params.heads)
        )
        demand(bench.answers == answers and waits, "the result did not wait")
        demand(not int(bench.dut.idle.value), "idle with a result held")
        for channel in bench.channels:
            channel.sink.pause = False
        await bench.settle()


async def _mixture(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Good, bad and extreme packets close after each other, with and without stalls."""
    kinds = ("short", "long", "unknown", "reserved", "code")
    for probability in (0.0, 0.4):
        bench.stall(job["seed"] + 2, probability)
        for _ in range(8):
            await bench.clear()
            for _ in range(8):
                choice = traffic.rng.randrange(5)
                if choice == 0:
                    traffic.malformed(traffic.rng.choice(kinds), traffic.rng.choice((WRITE, BOTH)))
                elif choice == 1:
                    traffic.any_shot(traffic.rng.choices((WRITE, QUERY, FLUSH), (3, 3, 1))[0])
                else:
                    command = traffic.rng.choice((QUERY, BOTH))
                    traffic.extreme(command, traffic.shot(command))
            await bench.settle()
    bench.go()


async def _shots(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Every gain code, weight and flag; limits reached from either side; flags that stay."""
    p, host = bench.params, bench.registers
    traffic.good(FLUSH)
    for _ in range(p.window // 2 + 1):
        traffic.extreme(WRITE)
    for levels in (
        {},
        {"level_0": 1, "level_1": 2, "level_2": 3, "level_3": 6},
        {"level_0": 5, "level_1": 33, "level_2": 129, "level_3": 254},
    ):
        for name in ("s_levels", "a_levels"):
            if levels:
                await host.write(name, **levels)
        for s_gain in range(4):
            for a_gain in range(4):
                shot = Shot(s_gain=s_gain, a_gain=a_gain, shift=s_gain ^ a_gain)
                traffic.extreme(QUERY, shot)
                traffic.any_shot(QUERY)
        await bench.settle()
    # All lanes of one sign, then of the other.
    await host.write("a_levels", **{f"level_{code}": 1 for code in range(4)})
    for sign in (0, 2**p.kv_bits - 1, None):
        traffic.good(FLUSH)
        await bench.clear()
        for _ in range(p.columns + 1):
            tag = traffic.tag()
            for head in range(p.heads):
                v = [
                    (0, 2**p.kv_bits - 1)[traffic.rng.randrange(2)] if sign is None else sign
                    for _ in range(p.lanes)
                ]
                bench.send(WRITE, tag, head=head, k=[2**p.kv_bits - 1] * p.rows, v=v)
        traffic.extreme(QUERY, Shot(shift=3))
        for at in range(20):
            traffic.extreme(QUERY, Shot(shift=3, accumulate=True, hold=at % 3 == 0))
            if at % 5 == 4:
                await bench.settle()
        traffic.good(FLUSH)
        traffic.good(QUERY, Shot(hold=True))  # refused, so answered, and no shot
        traffic.malformed("code", BOTH)
        traffic.good(BOTH, Shot(accumulate=True, shift=1))  # onto the shot before the flush
        traffic.good(QUERY, Shot())
        traffic.good(QUERY, Shot(accumulate=True))
        await bench.settle()
    # One lane alone at its limit, in every slot.
    await host.write("a_levels", **{f"level_{code}": 48 for code in range(4)})
    for lane in range(p.lanes):
        traffic.good(FLUSH)
        for at in range(p.window + p.window % 2):
            tag = traffic.tag()
            for head in range(p.heads):
                # The others' two values around nothing cancel, or nearly.
                v = [2 ** (p.kv_bits - 1) - at % 2] * p.lanes
                v[lane] = 2**p.kv_bits - 1
                bench.send(WRITE, tag, head=head, k=[2**p.kv_bits - 1] * p.rows, v=v)
        # Runs of three and four shots, of which the last is beyond, come to every slot.
        for at in range(28):
            traffic.extreme(QUERY, Shot(shift=3, accumulate=at % 7 not in (0, 3)))
        await bench.settle()
    await bench.soft_reset()
    traffic.good(BOTH, Shot(accumulate=True))  # onto nothing
    await bench.settle()


async def _sinks(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Several laps with each number of sinks; a change waits for an empty window."""
    p = bench.params
    for sinks in range(p.sinks + 1):
        await bench.registers.write("sinks", count=sinks)
        traffic.good(FLUSH)
        for at in range(2 * p.window + 1):
            if at in (1, p.window + 1):
                await bench.registers.write("sinks", count=p.sinks - sinks)
            traffic.good(BOTH if at % 3 else WRITE)
            await bench.ahead(3)
            if at % 4 == 0:
                await bench.settle()
        await bench.settle()
    await bench.soft_reset()


# --- the scenario: registers ----------------------------------------------------------------
async def _every_bit(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Each bit of each register turned, each byte alone, each field around its bounds."""
    host = bench.registers
    traffic.good(WRITE)
    await bench.drain()
    for register in host.map:
        address = register.offset
        if not register.writable:
            for word in (0, 1 << traffic.rng.randrange(32)):
                await bench.refused(address, word)
            continue
        if register.count is not None or register.name == "command":
            continue
        base = 0 if register.name == "sticky" else host.model.words[register.name]
        for word, strobe in _words(register, base):
            bench._alive = bench.clocks
            if await host.write_word(address, word, strobe) == OKAY:
                await host.read_word(address)
        if register.name == "sticky":
            continue
        high, low = base, base
        for field in register.fields:
            high, low = field.put(high, field.high), field.put(low, field.low)
        for held, other in ((high, low), (low, high), *_one_hot(register, low)):
            for strobe in (0b1110, 0b1101, 0b1011, 0b0111):
                bench._alive = bench.clocks
                await host.write_word(address, held)
                await host.write_word(address, other, strobe)
                await host.read_word(address)
                if held != high and register.waits:
                    # Of the byte alone: out of range if the field must not be 0.
                    await host.write_word(address, held)
                    await host.write_word(address, 0, 0b1111 ^ strobe)
                    await host.read_word(address)
        for field in register.fields:
            for value in (field.low - 1, field.high + 1):
                if field.natural[0] <= value <= field.natural[1]:
                    await host.write_word(address, high)
                    await host.write_word(address, field.put(high, value))
                    await host.read_word(address)
        await host.write_word(address, base)
        if "enable" in register:
            demand(bool(int(bench.dut.idle.value)), "not idle")
    await _together(bench)
    await bench.soft_reset()
    await _read_all(bench)
    await bench.settle()


async def _together(bench: MutantBench) -> None:
    """Each setting at its least and largest values while the others are at the opposite ones."""
    host = bench.registers
    chosen = [register for register in host.map if register.waits and register.name != "control"]
    ends: list[dict[str, int]] = []
    for end in ("low", "high"):
        words = {register.name: register.reset for register in chosen}
        for register in chosen:
            for field in register.fields:
                words[register.name] = field.put(words[register.name], getattr(field, end))
        ends.append(words)
    for base, other in (ends, reversed(ends)):
        for register in chosen:
            await host.write_word(register.offset, base[register.name])
        await _read_all(bench)
        for odd in chosen:
            bench._alive = bench.clocks
            await host.write_word(odd.offset, other[odd.name])
            await _read_settings(bench)
            await host.write_word(odd.offset, base[odd.name])


def _words(register: Register, base: int) -> Iterator[tuple[int, int]]:
    """Words and byte strobes to write."""
    for bit in range(32):
        yield base ^ 1 << bit, 0b1111
    for byte in range(4):
        yield 0xFFFFFFFF, 1 << byte
        yield base ^ 0x01010101, 1 << byte
        yield base, 0b1111 & ~(1 << byte)
        yield base | 0xFF << 8 * byte, 0b1111 & ~(1 << byte)  # what is not written may be anything
    yield 0xFFFFFFFF, 0
    for field in register.fields:
        low, high = field.natural
        for value in (low, field.low - 1, field.low, field.high, field.high + 1, high):
            if low <= value <= high:
                yield field.put(base, value), 0b1111
    if not any(field.access is Access.STICKY for field in register.fields):
        yield base, 0b1111


def _one_hot(register: Register, low: int) -> Iterator[tuple[int, int]]:
    """Words of which each byte has one bit, if that is in its field's range; beside it the least.

    Only of fields that must not be 0 or are a byte long: what must be kept of a byte not written.
    """
    width = max(field.width for field in register.fields)
    for bit in range(min(width, 8)):
        word = low
        for field in register.fields:
            if field.low <= 1 << bit <= field.high:
                word = field.put(word, 1 << bit)
        yield word, low


async def _addresses(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Every address, written and read, but for what is mapped and does something."""
    host = bench.registers
    # What an address must not show is there to be shown: every register holds something.
    for kind in ("unknown", "long", "code"):
        traffic.malformed(kind, WRITE)
    traffic.good(FLUSH)
    traffic.good(QUERY)
    for _ in range(3):
        traffic.extreme(BOTH)
    await bench.drain()
    for word in range(1024):
        address = 4 * word + word % 4
        bench._alive = bench.clocks
        found = host.map.at(address)
        await host.read_word(address)
        if found is None or not found[0].writable:
            await bench.refused(address, 1)
    await bench.soft_reset()
    await bench.check()


async def _bus(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Address, data and readiness that come late; reads and writes at once."""
    host = bench.registers
    bus = bench.bus
    assert isinstance(bus, LaggingBus)
    for lags in ((2, 0, 0), (0, 3, 0), (0, 0, 3), (1, 1, 1), (0, 2, 2)):
        bus.lags = lags
        for _ in range(3):
            level = traffic.rng.randint(1, 255)
            await host.write("a_levels", level_0=level)
            await host.read("a_levels")
            await bench.refused(host.map["id"].offset, level)
            await host.read_word(0xFF0)
            await host.write("irq_enable", command=level & 1, length=level >> 1 & 1)
            await host.read("irq_enable")
            read = cocotb.start_soon(host.read("s_levels"))
            await host.write("s_levels", level_0=level)
            await read
            await host.read("s_levels")
        await bench.check()
    bus.lags = (0, 0, 0)
    host._bus = bus
    await bench.soft_reset()
    await host.write("irq_enable", command=0, length=0)


async def _events(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Each event by itself interrupts if it is enabled, and is cleared by itself."""
    host = bench.registers
    names = [field.name for field in host.map["sticky"].fields if field.name != "stale"]

    def happen(name: str) -> None:
        if name == "empty":
            traffic.good(FLUSH)
            traffic.good(QUERY)
        elif name == "step":
            traffic.mismatched(*([WRITE] * (bench.params.heads - 1)), QUERY)
        elif name in ("full_scale", "saturated"):
            traffic.extreme(BOTH, Shot(shift=3))
            for _ in range(16 if name == "saturated" else 0):
                traffic.extreme(BOTH, Shot(shift=3, accumulate=True))
        else:
            traffic.malformed({"command": "unknown", "length": "long"}.get(name, name), BOTH)

    for name in names:
        if name in ("full_scale", "saturated") and bench.params.shots:
            await host.write("a_levels", **{f"level_{code}": 2 for code in range(4)})
        await bench.clear()
        await host.write("irq_enable", **{other: int(other != name) for other in names})
        happen(name)
        await bench.settle()
        await host.write("irq_enable", **{other: int(other == name) for other in names})
        await bench.check()
        others = {other: 1 for other in names if other != name}
        await host.write("sticky", **others)
        await bench.check()
        await host.write("sticky", **{name: 1})
        await bench.check()
        happen(name)
        await bench.settle()
        address = host.map["sticky"].offset
        await host.write_word(address, 0xFF, 0b1110)  # the byte with the bits is not written
        await bench.check()
        await host.write_word(address, 0xFF)
        await bench.check()
    await host.write("irq_enable", **dict.fromkeys(names, 0))
    await bench.soft_reset()


async def _settings(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Settings under traffic: packets that have begun keep the old ones, later ones wait."""
    host, rng, p = bench.registers, traffic.rng, bench.params
    traffic.good(WRITE)
    for at in range(12):
        for _ in range(rng.randint(1, 3)):
            traffic.any_shot(rng.choice((WRITE, QUERY, BOTH)))
        await bench.pass_clocks(rng.randint(6, 50))
        fields = host.map["a_levels"].fields
        levels = {field.name: rng.choice((1, 5, 20, 80, 255)) for field in fields}
        before = bench.clocks
        write = cocotb.start_soon(host.write(rng.choice(("s_levels", "a_levels")), **levels))
        if at % 3 == 2:
            await write
            write = cocotb.start_soon(host.write("phases", write_clk=rng.randint(1, 7)))
        await bench.pass_clocks(3)
        pending = (await bench.read("state"))["pending"]
        demand(pending == (not write.done()) or bench.clocks - before > 8, "pending")
        if not write.done() and not int(bench.dut.idle.value):
            demand(bool((await bench.read("state"))["pending"]) or write.done(), "not pending")
        await write
        traffic.any_shot(BOTH)
    await bench.settle()
    # Every setting waits, and is in effect when its write is answered.
    for register in [register for register in host.map if register.waits]:
        for _ in range(2):
            traffic.good(BOTH)
        await bench.pass_clocks(30)
        demand(not int(bench.dut.idle.value), "idle with queries in flight")
        base = host.model.words[register.name]
        write = cocotb.start_soon(host.write_word(register.offset, base))
        await bench.pass_clocks(4)
        demand(not write.done(), f"the write to {register.name} did not wait")
        await write
        await bench.settle()
    # What takes effect at once does not wait.
    for _ in range(2):
        traffic.good(BOTH)
    await bench.pass_clocks(30)
    for name, values in (
        ("irq_enable", {"code": 1}),
        ("irq_enable", {"code": 0}),
        ("sticky", {"code": 1}),
        ("test", {"subtile": 0}),
        ("trim", {"offset": 0}),
    ):
        if name in host.map:
            before = bench.clocks
            await host.write(name, **values)
            demand(bench.clocks - before <= 6, f"the write to {name} waited")
    demand(not int(bench.dut.idle.value), "idle with queries in flight")
    await bench.settle()
    # Soft resets, with results that wait to leave, and with a half-received packet.
    for at in range(6):
        for channel in bench.channels:
            channel.sink.pause = at % 2 == 1
        await host.write("a_levels", level_0=rng.choice((5, 10)))
        # The simple schedule holds one result; another would keep the head from being quiet.
        for _ in range(1 if at % 2 and not p.streaming else 2):
            traffic.any_shot(BOTH)
        await bench.pass_clocks(rng.randint(1, 90))
        write = cocotb.start_soon(host.write("command", soft_reset=1))
        await bench.pass_clocks(4 * job["latency_clk"])
        demand(write.done(), "the soft reset does not come")
        for channel in bench.channels:
            channel.sink.pause = False
        traffic.any_shot(BOTH)
        traffic.any_shot(QUERY)
        await bench.settle()
        await _read_settings(bench)
    # Not enabled: nothing is taken.
    await host.write("control", enable=0)
    taken = list(bench.oracle.taken)
    traffic.good(BOTH)
    await bench.pass_clocks(60)
    demand(bench.oracle.taken == taken and bool(int(bench.dut.idle.value)), "a packet was taken")
    state = await bench.read("state")
    demand(state["idle"] == 1 and state["pending"] == 0, f"state {state}")
    await bench.check()
    await host.write("control", enable=1)
    await bench.settle()


async def _read_settings(bench: MutantBench) -> None:
    for register in bench.registers.map:
        if register.waits:
            await bench.registers.read_word(register.offset)


# --- the scenario: features -----------------------------------------------------------------
async def _trims(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Offsets of every lane, at their bounds; refused beyond; reset by reset alone."""
    p, host, rng = bench.params, bench.registers, traffic.rng
    if not p.trim_bits:
        return
    half = 2 ** (p.trim_bits - 1)
    trim = host.map["trim"].offset
    for _ in range(3):
        traffic.good(WRITE)
    await bench.drain()
    for at in range(5):
        for head in range(p.heads):
            if p.heads > 1:
                await host.write("head_select", head=head)
            # In either order: what a write does to another lane must not be overwritten.
            for lane in range(p.lanes)[:: -1 if at % 2 else 1]:
                choice = rng.choice((-half, half - 1, -1, rng.randrange(-half, half)))
                await host.write("trim", lane, offset=(choice, choice, -half, half - 1, 0)[at])
            for lane in range(p.lanes):
                await bench.refused(trim + 4 * lane, half)
                await bench.refused(trim + 4 * lane, 1 << rng.randrange(p.trim_bits, 32))
                await bench.refused(trim + 4 * lane, -half - 1 & 0xFFFFFFFF)
                await bench.refused(trim + 4 * lane, 0, (0b0111, 0b1110, 0b1101, 0b1011)[lane % 4])
        await bench.refused(trim + 4 * p.lanes, 0)
        for head in range(p.heads):
            if p.heads > 1:
                await host.write("head_select", head=head)
            bench.oracle.settle()
            for lane in 4 * list(range(p.lanes)):  # in clocks of either parity: it must stay
                offset = (await bench.read("trim", lane))["offset"]
                demand(offset == bench.oracle.heads[head].trims[lane], f"trim {lane}: {offset}")
        for _ in range(3):
            traffic.any_shot(BOTH)
        await bench.settle()
        if at == 0:
            await bench.soft_reset()
            traffic.good(BOTH)
            await bench.settle()
    # Written and read at once: the word is that of before or after.
    for at in range(4):
        write = cocotb.start_soon(host.write("trim", 1, offset=at))
        await bench.pass_clocks(at)
        await bench.read("trim", 2)
        await write


async def _self_test(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Raw sums of each sub-tile, also of an empty window; the shot before stays."""
    p, host, rng = bench.params, bench.registers, traffic.rng
    if not p.self_test:
        return
    command, test_q = host.map["command"].offset, host.map["test_q"].offset
    traffic.good(FLUSH)
    for fill in (0, p.columns + 1, p.window):
        for _ in range(fill):
            traffic.good(WRITE)
        if fill:
            traffic.good(QUERY, traffic.shot(QUERY, accumulate=False))
        await bench.settle()
        await bench.refused(command, 0b100)
        await bench.refused(test_q, 0)
        await host.write("control", enable=0)
        await bench.refused(command, 0b101)
        # Sensitive to every row by itself.
        await host.write("a_levels", **{f"level_{code}": 8 + code for code in range(4)})
        await host.write("s_levels", **{f"level_{code}": 20 + 4 * code for code in range(4)})
        for at in range(2 * p.rows):
            queries = []
            for head in range(p.heads):
                if p.heads > 1:
                    await host.write("head_select", head=head)
                query = [rng.randint(0, 2**p.q_bits - 1) for _ in range(p.rows)]
                if at % 2:
                    query = [(2**p.q_bits - 1) * (row == at // 2) for row in range(p.rows)]
                queries.append(query)
                # In either order: what a write does to another row must not be overwritten.
                for row, code in list(enumerate(queries[-1]))[:: 1 if at % 2 else -1]:
                    await host.write("test_q", row, code=code)
                    await bench.refused(test_q + 4 * row, 1 << rng.randrange(p.q_bits, 32))
                    await bench.refused(test_q + 4 * row, 1, 0b1110)
                await bench.refused(test_q + 4 * p.rows, 0)
            test = {"subtile": at % p.subtiles}
            if p.shots:
                test |= traffic.gains()
            await host.write("test", **test)
            await host.write("command", test_start=1)
            state = await bench.read("state")
            demand(not state["test_done"] and not state["idle"], f"state {state} in a self-test")
            # A new query waits until the one that runs has ended.
            write = cocotb.start_soon(host.write("test_q", 0, code=0))
            await bench.pass_clocks(4)
            demand(not write.done(), "a query was written into a self-test")
            await write
            most = bench.clocks + 2 * job["latency_clk"]
            while not (await bench.read("state"))["test_done"]:
                demand(bench.clocks < most, "the self-test does not end")
            await bench.drain()
            for head, query in enumerate(queries):
                if p.heads > 1:
                    await host.write("head_select", head=head)
                counts = [(await bench.read("test_count", lane))["sum"] for lane in range(p.lanes)]
                levels = bench.oracle.levels
                result = bench.oracle.heads[head].model.query(
                    query,
                    s_level=levels["s_levels"][test.get("s_gain", 0)],
                    a_level=levels["a_levels"][test.get("a_gain", 0)],
                    subtile=test["subtile"],
                )
                expected = result.sums.tolist()
                demand(counts == expected, f"counts {counts}, expected {expected}")
        # Started and left alone: it goes on when enabled, packets wait for it.
        await host.write("command", test_start=1)
        await host.write("control", enable=1)
        if fill:
            traffic.good(QUERY, traffic.shot(QUERY, accumulate=True, hold=False))
        await bench.settle()
    await bench.soft_reset()
    demand(not (await bench.read("state"))["test_done"], "soft reset leaves test_done")


async def _ages(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Oldest age, stale flag and masks, with sinks and without, against the writes' history."""
    p, host, rng = bench.params, bench.registers, traffic.rng
    if not p.age_bits:
        return
    top = 2**p.age_bits - 1
    for sinks, budget, tick, masks, fill in (
        (0, 2, 30, 1, p.window + 3),
        (2, 5, 11, 1, 2 * p.window),
        (p.sinks, 1, 60, 1, p.columns + 2),
        (p.sinks, top - 1, 20, 0, p.window + 1),
        (1, top, 12, 1, 3),
        (p.sinks, 3, 23, 1, 2 * p.window),
        (0, 4, 160, 1, p.window + p.columns),
        (1, 6, 120, 1, p.window + 2),
        (0, 9, 60, 1, 3),
        (0, 9, 400, 1, 2 * p.window),
        (p.sinks, 9, 250, 1, p.window + 2),
    ):
        await bench.reset()
        watch = _AgeWatch(bench, sinks=sinks, budget=budget, tick=tick)
        await host.write("age_budget", ticks=budget)
        await host.write("sinks", count=sinks)
        await host.write("control", age_mask=masks)
        await host.write("irq_enable", stale=1)
        await bench.pass_clocks(tick)
        bench.watch = watch  # from the write on
        await host.write("age_tick", clocks=tick)
        for _ in range(fill):
            traffic.good(rng.choice((BOTH, BOTH, WRITE)))
            if rng.random() < 0.4:
                traffic.good(QUERY)
            await bench.drain()
            await watch.read()
            if rng.random() < 0.3:
                await bench.pass_clocks(rng.randint(1, min(3 * tick, 200)))
                await watch.read()
        for _ in range(3):
            await bench.pass_clocks(min((budget + 2) * tick // 2, 500))
            traffic.good(QUERY)
            await bench.drain()
            await watch.read()
        await bench.check()
        if p.refresh:
            await host.write("refresh_period", clocks=64)
            await host.write("control", age_mask=masks, refresh_enable=1)
            for _ in range(2 * p.window):
                await bench.pass_clocks(70)
                await watch.read()
                if rng.random() < 0.3:
                    traffic.good(rng.choice((QUERY, BOTH)))
            await bench.drain()
            await host.write("control", age_mask=masks, refresh_enable=0)
        # It may rise while it is read, or while it is being cleared.
        before = watch.risen
        sticky = bool((await bench.read("sticky"))["stale"])
        demand(sticky in (before, watch.risen), f"sticky.stale is {sticky}")
        if before == watch.risen:
            demand(bool(int(bench.dut.irq.value)) == sticky, "irq of stale")
        watch.risen = False
        await host.write("sticky", stale=1)
        before = watch.risen
        sticky = bool((await bench.read("sticky"))["stale"])
        demand(
            before or sticky in (before, watch.risen),
            f"sticky.stale is {sticky} after being cleared",
        )
        traffic.good(FLUSH)
        await bench.drain()
        watch.flush()
        await watch.read()
        traffic.good(BOTH)
        await bench.drain()
        await watch.read()
    await bench.reset()


class _AgeWatch:
    """Follows writes and ticks, as the ports show them, by the reference of the ages."""

    def __init__(self, bench: MutantBench, sinks: int, budget: int, tick: int) -> None:
        self._bench, self._sinks, self._budget, self._tick = bench, sinks, budget, tick
        self._masks = True
        self._ages = TokenAges(bench.params)
        # The period before was longer: it ends when this one is set.
        self._ages._elapsed = tick
        self._converting = self._reading = self._stale = False
        self._shown = (0, False)
        self._bound = 0  # of the clock before
        self.risen = False  #: some column was past its budget
        bench.rewrites = _Rewrites(bench, sinks)

    def flush(self) -> None:
        """The window was flushed, some clocks ago."""
        self._ages._clear()
        self._bound = 0
        self._bench.rewrites = _Rewrites(self._bench, self._sinks)

    def clock(self) -> None:
        """One clock."""
        bench, ages = self._bench, self._ages
        dut, rewrites = bench.dut, bench.rewrites
        stale = ages.stale(self._budget)
        self.risen |= bool(stale) and not self._stale
        self._stale = bool(stale)
        if self._reading:  # looked up in this clock; the age is two clocks old
            self._shown = (self._shown[0], bool(stale))
        self._reading = bool(int(dut.s_axil_arvalid.value) and int(dut.s_axil_arready.value))
        if self._reading:
            self._shown = (self._bound, False)
        self._bound = ages.oldest_bound
        converting = bool(int(dut.ana_convert.value))
        if converting and not self._converting:
            masked = stale if bench.registers.model.words["control"] & 2 else set()
            raw = int(dut.ana_column_mask.value)
            mask = {column for column in range(bench.params.window) if raw >> column & 1}
            expected = set(ages.state.valid) - masked
            demand(mask == expected, f"mask {sorted(mask)}, expected {sorted(expected)}")
        self._converting = converting
        event: Any = None
        held = bench.bridge._writing.get("value")
        if held is not None and held.clocks == bench.bridge.write_clk and rewrites is not None:
            event = "refresh" if rewrites.rewrites["value"] else "write"
        ages.clock(age_tick=self._tick, sinks=self._sinks, event=event)

    async def read(self) -> None:
        """Read age and flag."""
        age = (await self._bench.read("oldest_age"))["ticks"]
        demand(age == self._shown[0], f"oldest age {age}, expected {self._shown[0]}")
        stale = bool((await self._bench.read("state"))["stale"])
        demand(stale == self._shown[1], f"stale {stale}, expected {self._shown[1]}")


async def _long(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Ticks and refresh periods of thousands of clocks, as long as a scenario can wait."""
    p, host = bench.params, bench.registers
    await bench.reset()
    longest = host.map["clocks_idle"]["count"].high
    period = longest - 90
    await bench.pass_clocks(period if p.age_bits else 1)
    if p.age_bits:
        bench.watch = _AgeWatch(bench, sinks=0, budget=2**p.age_bits - 1, tick=period)
        await host.write("age_tick", clocks=period)
    if p.refresh:
        bench.rewrites = bench.rewrites or _Rewrites(bench)
        await host.write("refresh_period", clocks=period)
        await host.write("control", refresh_enable=1)
    traffic.good(BOTH)
    for _ in range(4):
        await bench.pass_clocks(period // 4 * 3)
        if bench.watch is not None:
            await bench.watch.read()
    if p.refresh and bench.rewrites is not None:
        clocks = bench.rewrites.clocks
        demand(len(clocks) >= 2, f"{len(clocks)} refreshes in {3 * period} clocks")
        gaps = {after - before for before, after in itertools.pairwise(clocks)}
        demand(gaps == {period}, f"refreshes {gaps} clocks apart")
    await bench.settle()
    # Busy for as long, with a result that waits.
    await bench.registers.write("command", clear_counters=1)
    for channel in bench.channels:
        channel.sink.pause = True
    await bench.pass_clocks(2)
    traffic.good(BOTH)
    await bench.pass_clocks(longest + 60)
    for channel in bench.channels:
        channel.sink.pause = False
    await bench.settle()
    await bench.reset()


async def _refresh(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """One column in every period, as it was written; none without need; answers stay."""
    p, host, rng = bench.params, bench.registers, traffic.rng
    if not p.refresh:
        return
    for sinks, tokens, write_clk in (
        (0, 3, p.write_clk),
        (p.sinks, p.window, p.write_max_clk),
        (0, p.columns, 1),
        (1, p.window + 3, 2),
    ):
        await bench.reset()
        await host.write("sinks", count=sinks)
        await host.write("phases", write_clk=write_clk)
        bench.rewrites = seen = _Rewrites(bench, sinks)
        await host.write("refresh_period", clocks=64)
        await host.write("control", refresh_enable=1)
        await bench.pass_clocks(150)
        demand(not seen.clocks, "an empty window is refreshed")
        for at in range(tokens):
            traffic.good(BOTH if at % 4 == 0 else WRITE)
        await bench.drain()
        for period in (64, 65, 96, 127):
            await host.write("refresh_period", clocks=period)
            await bench.pass_clocks(2 * period)
            seen.clocks.clear()
            await bench.pass_clocks(4 * period)
            gaps = [after - before for before, after in itertools.pairwise(seen.clocks)]
            demand(len(gaps) >= 2 and set(gaps) == {period}, f"refreshes {gaps} clocks apart")
        await host.write("refresh_period", clocks=64)
        # Packets that always wait take turns with refreshes.
        seen.clocks.clear()
        for _ in range(40):
            traffic.good(BOTH)
        await bench.drain()
        demand(len(seen.clocks) >= 8, f"{len(seen.clocks)} refreshes between 40 packets")
        for _ in range(2 * p.window):
            traffic.any_shot(rng.choice((BOTH, BOTH, WRITE, QUERY)))
            await bench.ahead(2)
            if rng.random() < 0.3:
                await bench.pass_clocks(rng.randint(1, 90))
        await bench.settle()
        await host.write("control", refresh_enable=0)
        await bench.pass_clocks(10)
        demand(seen.count["key"] == seen.count["value"], "K and V rewritten differ in number")
        count = (await bench.read("refreshes"))["count"]
        expected = min(seen.count["value"], 2**p.event_bits - 1)
        demand(count == expected, f"refreshes {count}, expected {expected}")
        before = seen.count["key"]
        await bench.pass_clocks(150)
        await host.write("refresh_period", clocks=host.map["refresh_period"]["clocks"].high)
        await host.write("control", refresh_enable=1)
        await bench.pass_clocks(150)
        demand(seen.count["key"] == before, "refreshed without need")
        await host.write("refresh_period", clocks=64)
        await FallingEdge(bench.dut.ana_v_write)
        await host.write("command", clear_counters=1)
        before = seen.count["value"]
        for _ in range(3):
            await FallingEdge(bench.dut.ana_v_write)
            await bench.pass_clocks(2)
            count = (await bench.read("refreshes"))["count"]
            demand(count == seen.count["value"] - before, f"refreshes {count}")
        traffic.good(FLUSH)
        await bench.drain()
        bench.rewrites = seen = _Rewrites(bench, sinks)
        await bench.pass_clocks(80)
        traffic.good(BOTH)
        await bench.settle()
        await bench.pass_clocks(150)
        demand(len(seen.clocks) >= 1, "nothing is refreshed")
        await bench.check()
    await bench.reset()


async def _steps(bench: MutantBench, traffic: HardTraffic, job: dict[str, Any]) -> None:
    """Packets of a step that differ in anything but codes and gains are refused together."""
    p, rng = bench.params, traffic.rng
    if p.heads == 1:
        return
    traffic.good(WRITE)
    for odd in range(p.heads):
        await bench.clear()
        tags = [1 << bit for bit in range(p.tag_bits)]
        shots = [Shot(accumulate=True), Shot(hold=True), Shot(shift=1), Shot(shift=2)]
        for changed in [*tags, *(shots if p.shots else ()), WRITE, QUERY, FLUSH]:
            tag = traffic.tag()
            for head in range(p.heads):
                differs = head == odd
                command, own, shot = BOTH, tag, None
                if differs and isinstance(changed, Command):
                    command = changed
                elif differs and isinstance(changed, Shot):
                    shot = changed
                elif differs and isinstance(changed, int):
                    own ^= changed
                bench.send(command, own, head=head, shot=shot, **traffic.sections(command))
            traffic.any_shot(rng.choice((BOTH, QUERY)))
            await bench.drain()
            if rng.random() < 0.3:
                await bench.check()
        await bench.check()
        for kind in ("short", "long", "unknown", "code"):
            wrong = traffic.wrong(kind, BOTH, 5)
            for head in range(p.heads):
                if head == odd:
                    bench.send_refused(*wrong, head=head)
                else:
                    command = rng.choice((WRITE, QUERY, BOTH))
                    bench.send(command, 5 + head, head=head, **traffic.sections(command))
            traffic.any_shot(BOTH)
            await bench.settle()
    # One head's packets come later than the others', one head's results leave later.
    for odd in range(p.heads):
        for _ in range(6):
            traffic.any_shot(rng.choice((BOTH, QUERY, WRITE)))
        bench.channels[odd].source.stall(odd, 0.8)
        bench.channels[odd].sink.stall(odd + 9, 0.8)
        await bench.settle()
        bench.go()
        bench.channels[odd].sink.pause = True
        for _ in range(6):
            traffic.good(QUERY)
        await bench.pass_clocks(300)
        bench.channels[odd].sink.pause = False
        await bench.settle()


#: Cheap and broad first: most mutants end early.
SCENARIO: tuple[Part, ...] = (
    _first,
    _latency,
    _fill,
    _kinds,
    _malformed,
    _every_bit,
    _shots,
    _trims,
    _self_test,
    _settings,
    _sinks,
    _events,
    _refresh,
    _ages,
    _steps,
    _status,
    _resets,
    _back_pressure,
    _bus,
    _sweeps,
    _addresses,
    _mixture,
    _long,
)


# --- a mutant -------------------------------------------------------------------------------
@contextlib.contextmanager
def _guarded(fail: Callable[[str], None]) -> Iterator[None]:
    """Whatever is started meanwhile ends with this, and a failure in it is noted, not raised."""
    tasks: list[Any] = []
    plain = cocotb.start_soon

    async def guard(coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coroutine
        except Exception as error:
            fail(f"{type(error).__name__}: {error}")

    def start(coroutine: Coroutine[Any, Any, Any]) -> Any:
        tasks.append(plain(guard(coroutine)))
        return tasks[-1]

    cocotb.start_soon = start
    try:
        yield
    finally:
        cocotb.start_soon = plain
        for task in tasks:
            if not task.done():
                task.cancel()


async def _play(bench: MutantBench, mutant: int, job: dict[str, Any]) -> None:
    await bench.load(mutant)
    traffic = HardTraffic(bench, job["seed"])
    for part in SCENARIO:
        if job.get("parts") and part.__name__[1:] not in job["parts"]:
            continue
        bench.notes.part = part.__name__[1:]
        try:
            await part(bench, traffic, job)
        except Exception as error:
            bench.notes.fail(f"{error}")
            return
    bench.notes.over.set()


async def judge(dut: Any, params: HeadParams, mutant: int, job: dict[str, Any]) -> dict[str, Any]:
    """Play the scenario to one mutant.

    Returns
    -------
    dict
        ``caught``: how it broke the specification, or None; ``apart`` and ``aside``: the first
        clock in which a port differed from the original's, in what it says and in what means
        nothing in that clock, 0 if none did.

    """
    start = time.perf_counter()
    notes = _Notes()
    with _guarded(notes.fail):
        bench = MutantBench(dut, params, notes)
        cocotb.start_soon(_play(bench, mutant, job))
        await notes.over.wait()
    return {
        "mutant": mutant,
        "caught": notes.reason,
        "apart": bench.apart,
        "aside": bench.aside,
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
    params = HeadParams(**job["params"])
    registers._CLOCK_BITS = job["clock_bits"]
    Clock(dut.clk, CLOCK_NS, unit="ns").start()
    results = Path(job["results"])
    for mutant in job["mutants"]:
        _append(results, {"started": mutant})
        _append(results, await judge(dut, params, mutant, job))
