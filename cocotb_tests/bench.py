"""Test bench of a head or layer: stream and bus drivers, array models, an exact scoreboard."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Event, FallingEdge, with_timeout

from analog_models.functional import FunctionalHead
from analog_models.head import SteppedHead
from analog_models.params import AnalogParams
from cocotb_tests.axil import Done, EventBus, LibraryBus, RegisterHost
from cocotb_tests.bridge import ArrayBridge
from cocotb_tests.oracle import LayerOracle, Packet
from cocotb_tests.streams import (
    EventSink,
    EventSource,
    LibrarySink,
    LibrarySource,
    Received,
    Sink,
    Source,
)
from hw.layer import stream_prefixes
from hw.packet import TAG_LSB, Command, PacketError, Shot, answer_beats, token_beats
from hw.params import HeadParams

__all__ = ["CLOCK_NS", "Bench", "load_job"]

CLOCK_NS = 1
Codes = Sequence[int]
#: Beats that may have been taken while a clear is on its way to the bench.
_RECENT = 64


def load_job() -> dict[str, Any]:
    """What the run was asked to do."""
    return json.loads(Path(cocotb.plusargs["job"]).read_text(encoding="utf-8"))


class _Sent:
    """Lanes at full scale and results at their limit that have left, since the last clear."""

    def __init__(self) -> None:
        self._recent: deque[tuple[int, int, int]] = deque(maxlen=_RECENT)
        self.full_scale = self.saturated = 0
        self.events: set[str] = set()
        self._from = dict.fromkeys(("counters", "full_scale", "saturated"), 0)

    def add(self, clock: int, full_scale: int, saturated: int) -> None:
        """Count what left in a clock; a packet's beats are told when its last has left."""
        if full_scale or saturated:
            self._recent.append((clock, full_scale, saturated))
        if clock >= self._from["counters"]:
            self.full_scale += full_scale
            self.saturated += saturated
        for event, happened in (("full_scale", full_scale), ("saturated", saturated)):
            if happened and clock >= self._from[event]:
                self.events.add(event)

    def clear(self, clock: int, *what: str) -> None:
        """Count from a clock on; what leaves in it counts.

        Parameters
        ----------
        clock
            Clock of the clear.
        what
            "counters", "full_scale" and "saturated": what begins anew.

        """
        for name in what:
            self._from[name] = clock
        since = [beat for beat in self._recent if beat[0] >= clock]
        if "counters" in what:
            self.full_scale = sum(full_scale for _, full_scale, _ in since)
            self.saturated = sum(saturated for *_, saturated in since)
        if "full_scale" in what and not any(full_scale for _, full_scale, _ in since):
            self.events.discard("full_scale")
        if "saturated" in what and not any(saturated for *_, saturated in since):
            self.events.discard("saturated")


class _Channel:
    """One head's streams, and the packets that were queued and have not been taken."""

    def __init__(self, source: Source, sink: Sink) -> None:
        self.source, self.sink = source, sink
        self.queued: deque[Packet] = deque()
        self.last_answer: Received | None = None


class Bench:
    """Everything around a simulated head or layer.

    Parameters
    ----------
    dut
        The simulated head or layer.
    params
        Its parameters.
    library
        Whether streams and registers are driven by cocotbext-axi; our own drivers are faster.
    analog
        Parameters of the array models, beyond shape and widths; of every head.

    """

    def __init__(
        self, dut: Any, params: HeadParams, *, library: bool = True, **analog: Any
    ) -> None:
        logging.getLogger("cocotb").setLevel(logging.WARNING)
        self.dut, self.params, self.library = dut, params, library
        # The bridge demands the length of writes, which is a setting.
        models = [
            AnalogParams.matching(params, write_clk=1, **{"offset_seed": head, **analog})
            for head in range(params.heads)
        ]
        self.analog = models[0]
        self.bridge = ArrayBridge(dut, params, [SteppedHead(model) for model in models])
        self.oracle = LayerOracle(params, [FunctionalHead(model) for model in models], self.bridge)
        pair = (LibrarySource, LibrarySink) if library else (EventSource, EventSink)
        self.channels = []
        for head in range(params.heads):
            prefixes = stream_prefixes(params, head)
            source, sink = (
                kind(dut, prefix, self._clock) for kind, prefix in zip(pair, prefixes, strict=True)
            )
            self.channels.append(_Channel(source, sink))
            source.on_header = lambda head=head: self._header(head)
        self.bus = (LibraryBus if library else EventBus)(dut)
        self.registers = RegisterHost(dut, params, self.bus, self._written)
        self.sent = _Sent()
        self.lanes_compared = 0
        self.answers = 0
        self.mismatches: list[str] = []
        self.oracle_s = 0.0  #: seconds spent in the functional models
        self._answered, self._taken = Event(), Event()

    @property
    def source(self) -> Source:
        """Token stream of the first head."""
        return self.channels[0].source

    @property
    def sink(self) -> Sink:
        """Result stream of the first head."""
        return self.channels[0].sink

    def _clock(self) -> int:
        return self.bridge.clocks

    async def start(self) -> None:
        """Start the clock, reset, and start the models and the scoreboard."""
        self.dut.rst.value = 1
        Clock(self.dut.clk, CLOCK_NS, unit="ns").start()
        cocotb.start_soon(self.bridge.run())
        await self.reset()
        for head in range(self.params.heads):
            cocotb.start_soon(self._score(head))

    async def reset(self) -> None:
        """Reset; what was sent before is owed no more. No register access may be under way."""
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 3)
        for channel in self.channels:
            channel.source.clear()
            channel.sink.clear()
            channel.queued.clear()
        self.bridge.forget()
        self.oracle.reset()
        self.registers.model.reset()
        self.sent = _Sent()
        self.bridge.write_clk = self.params.write_clk
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 1)

    def stall(self, seed: int, probability: float) -> None:
        """Stall every stream at random from now on."""
        for head, channel in enumerate(self.channels):
            channel.source.stall(seed + 2 * head, probability)
            channel.sink.stall(seed + 2 * head + 1, probability)

    def go(self) -> None:
        """Stop stalling."""
        self.stall(0, 0.0)

    # --- sending ----------------------------------------------------------------------------
    def queue(self, head: int, packet: Packet) -> None:
        """Queue any packet, well-formed or not."""
        self.channels[head].queued.append(packet)
        self.channels[head].source.send(packet.beats)

    def send(
        self,
        command: Command,
        tag: int,
        *,
        head: int = 0,
        shot: Shot | None = None,
        **sections: Codes,
    ) -> None:
        """Queue a well-formed packet of one head; ``k``, ``v`` and ``q`` as the command asks."""
        beats = token_beats(self.params, command, tag, shot=shot, **sections)
        self.queue(
            head,
            Packet(
                beats=beats,
                tag=tag,
                queries=command.queries,
                command=command,
                shot=shot or Shot(),
                **sections,
            ),
        )

    def send_refused(self, beats: Sequence[int], error: PacketError, *, head: int = 0) -> None:
        """Queue a packet that must be refused."""
        tag = beats[0] >> TAG_LSB & 2**self.params.tag_bits - 1
        packet = Packet(beats=beats, tag=tag, queries=bool(beats[0] & 2), error=error)
        self.queue(head, packet)

    def _header(self, head: int) -> None:
        """Note that a packet's header has been taken: settings changed later do not concern it."""
        self.oracle.take(head, self.channels[head].queued.popleft())
        self._taken.set()

    async def ahead(self, most: int) -> None:
        """Wait until no head has more packets than that queued and not yet begun."""
        while max(len(channel.queued) for channel in self.channels) > most:
            self._taken.clear()
            await self._taken.wait()

    async def sources(self) -> None:
        """Wait until every beat queued has been taken."""
        for channel in self.channels:
            await channel.source.wait()

    # --- receiving --------------------------------------------------------------------------
    async def _score(self, head: int) -> None:
        channel = self.channels[head]
        while True:
            received = await channel.sink.receive()
            channel.last_answer = received
            self._compare(head, received)
            self.answers += 1
            self._answered.set()

    def _compare(self, head: int, received: Received) -> None:
        start = time.perf_counter()
        expected = self.oracle.answer(head)
        self.oracle_s += time.perf_counter() - start
        name = f"head {head}: " if self.params.heads > 1 else ""
        if expected is None:
            self.mismatches.append(f"{name}answer {received.beats} is not owed")
            return
        answer = expected.answer
        self.lanes_compared += len(answer.sums)
        if received.beats != answer_beats(self.params, answer):
            self.mismatches.append(f"{name}answer {received.beats}, expected {answer}")
            return
        per_beat = self.params.lanes_per_beat
        for beat, clock in enumerate(received.clocks):
            lanes = expected.full_scale[per_beat * (beat - 1) : per_beat * beat] if beat else ()
            last = beat == len(received.clocks) - 1
            self.sent.add(clock, sum(lanes), int(last and answer.saturated))

    async def answered(self) -> None:
        """Wait for the next answer of any head."""
        self._answered.clear()
        await self._answered.wait()

    # --- registers --------------------------------------------------------------------------
    def _written(self, done: Done) -> None:
        """Do what a write to a register did in the clock before."""
        oracle, name, values = self.oracle, done.register.name, done.values
        clock = self._clock()
        if name == "command":
            if values["soft_reset"]:
                self.registers.model.soft_reset()
                oracle.between(oracle.soft_reset)
                self.bridge.write_clk = self.params.write_clk
            elif values["clear_counters"]:
                oracle.between(oracle.clear_counters)
            if values["soft_reset"]:
                self.sent.clear(clock, "counters", "full_scale", "saturated")
            elif values["clear_counters"]:
                self.sent.clear(clock, "counters")
            if values.get("test_start"):
                oracle.between(oracle.probe)
        elif name == "sticky":
            cleared = {event for event, bit in values.items() if bit}

            def clear() -> None:
                oracle.events -= cleared

            oracle.between(clear)
            self.sent.clear(clock, *cleared & {"full_scale", "saturated"})
        elif name == "trim":
            head = self.registers.model.words.get("head_select", 0)

            def trim() -> None:
                oracle.heads[head].trims[done.entry] = values["offset"]

            oracle.between(trim)
        elif done.register.waits:
            oracle.between(lambda: self._set(name, values))
            if name == "phases":
                self.bridge.write_clk = values["write_clk"]

    def _set(self, name: str, values: Mapping[str, int]) -> None:
        """Let settings take effect on the packets to come."""
        oracle = self.oracle
        if name in oracle.levels:
            oracle.levels[name] = list(values.values())
        elif name == "sinks":
            for head in oracle.heads:
                head.model.sinks = values["count"]
        elif name == "control":
            oracle.age_mask = bool(values.get("age_mask"))

    # --- waiting ----------------------------------------------------------------------------
    async def drain(self, most_us: int = 1000) -> None:
        """Wait until everything queued has been dealt with and all that is owed has come."""
        await with_timeout(self._drained(), most_us, "us")
        start = time.perf_counter()
        self.oracle.settle()
        self.oracle_s += time.perf_counter() - start

    async def _drained(self) -> None:
        await self.sources()
        idle = self.dut.idle
        await ClockCycles(self.dut.clk, 4)
        while True:
            while not int(idle.value):
                await FallingEdge(self.dut.clk)
            # The last answer is on its way through the sink.
            await ClockCycles(self.dut.clk, 3)
            if int(idle.value):
                return

    # --- checks -----------------------------------------------------------------------------
    async def check(self) -> None:
        """Fail if any answer was wrong, missing or superfluous, or a register differs.

        Call it when everything has been answered.
        """
        assert not self.mismatches, (
            f"{len(self.mismatches)} mismatches, first: {self.mismatches[0]}"
        )
        oracle, read = self.oracle, self.registers.read
        oracle.settle()
        assert not oracle.missing, f"{oracle.missing} answers are missing"
        most = 2**self.params.event_bits - 1
        errors = {kind.name.lower(): count for kind, count in oracle.errors.items() if kind}
        counters = {
            "tokens": oracle.tokens,
            "queries": oracle.queries,
            **{f"{kind}_errors": count for kind, count in errors.items()},
            "full_scale_total": self.sent.full_scale,
            "saturated_total": self.sent.saturated,
        }
        expected = {
            name: min(count, most) for name, count in counters.items() if name in self.registers.map
        }
        got = {name: (await read(name))["count"] for name in expected}
        assert got == expected, f"counters {got}, expected {expected}"
        sticky = await read("sticky")
        sticky.pop("stale", None)
        happened = oracle.events | self.sent.events
        assert {name for name, bit in sticky.items() if bit} == happened, (
            f"sticky bits {sticky}, expected {happened}"
        )
        occupancy = (await read("occupancy"))["tokens"]
        assert occupancy == oracle.occupancy, f"occupancy {occupancy}, expected {oracle.occupancy}"
        pointer = await read("pointer")
        column = self.params.columns * pointer["subtile"] + pointer["column"]
        expected_column = oracle.heads[0].model.pointer
        assert column == expected_column, f"pointer {column}, expected {expected_column}"
