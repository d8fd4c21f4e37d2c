"""Test bench of one head: stream drivers, array model, and a scoreboard that tolerates nothing."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Event, FallingEdge, with_timeout

from analog_models.functional import FunctionalHead
from analog_models.head import SteppedHead
from analog_models.params import AnalogParams
from cocotb_tests.bridge import ArrayBridge
from cocotb_tests.streams import (
    EventSink,
    EventSource,
    LibrarySink,
    LibrarySource,
    Sink,
    Source,
)
from hw.packet import Answer, Command, PacketError, answer_beats, token_beats
from hw.params import HeadParams

__all__ = ["HeadBench", "Oracle", "load_job"]

CLOCK_NS = 1
Codes = Sequence[int]


def load_job() -> dict[str, Any]:
    """What the run was asked to do."""
    return json.loads(Path(cocotb.plusargs["job"]).read_text(encoding="utf-8"))


@dataclass
class Expected:
    """An answer that is owed."""

    answer: Answer
    beats: list[int]


class Oracle:
    """Says what each packet must be answered with, from the functional model.

    Parameters
    ----------
    params
        Head parameters.
    model
        The functional model of the same head.

    """

    def __init__(self, params: HeadParams, model: FunctionalHead) -> None:
        self.params, self.model = params, model
        self.errors = dict.fromkeys(PacketError, 0)
        self.full_scale_lanes = 0

    def _answer(self, tag: int, error: PacketError, sums: Any = (), full: Any = ()) -> Answer:
        self.full_scale_lanes += int(sum(full))
        return Answer(
            tag=tag, error=error, full_scale=any(full), sums=tuple(int(value) for value in sums)
        )

    def packet(
        self, command: Command, tag: int, k: Codes | None, v: Codes | None, q: Codes | None
    ) -> Answer | None:
        """Outcome of a well-formed packet."""
        if command is Command.FLUSH:
            self.model.flush()
        if command.writes:
            self.model.write(k, v)
        if not command.queries:
            return None
        if self.model.occupancy == 0:
            return self.refuse(tag, PacketError.EMPTY, owed=True)
        result = self.model.query(q)
        return self._answer(tag, PacketError.NONE, result.sums, result.full_scale)

    def refuse(self, tag: int, error: PacketError, *, owed: bool) -> Answer | None:
        """Outcome of a packet that is refused."""
        self.errors[error] += 1
        return self._answer(tag, error) if owed else None


class HeadBench:
    """Everything around a simulated head.

    Parameters
    ----------
    dut
        The simulated head.
    params
        Its parameters.

    """

    def __init__(
        self,
        dut: Any,
        params: HeadParams,
        *,
        library_streams: bool = True,
        **analog: float,
    ) -> None:
        logging.getLogger("cocotb").setLevel(logging.WARNING)
        self.dut, self.params = dut, params
        model = AnalogParams.matching(params, **analog)
        self.array = SteppedHead(model)
        self.bridge = ArrayBridge(dut, params, self.array)
        self.oracle = Oracle(params, FunctionalHead(model))
        pair = (LibrarySource, LibrarySink) if library_streams else (EventSource, EventSink)
        self.source: Source = pair[0](dut, "s_axis")
        self.sink: Sink = pair[1](dut, "m_axis")
        self.owed: deque[Expected] = deque()
        self.lanes_compared = 0
        self.answers = 0
        self.mismatches: list[str] = []
        self.oracle_s = 0.0  #: seconds spent in the functional model
        self._answered = Event()

    async def start(self) -> None:
        """Start the clock, reset, and start the model and the scoreboard."""
        self.dut.rst.value = 1
        self.dut.status_clear.value = 0
        Clock(self.dut.clk, CLOCK_NS, unit="ns").start()
        cocotb.start_soon(self.bridge.run())
        await self.reset()
        cocotb.start_soon(self._score())

    async def reset(self) -> None:
        """Reset the head; what was sent before is owed no more, the window is empty."""
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 3)
        self.source.clear()
        self.sink.clear()
        self.owed.clear()
        self.oracle.model.flush()
        self.oracle.errors = dict.fromkeys(PacketError, 0)
        self.oracle.full_scale_lanes = 0
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 1)

    def stall(self, seed: int, probability: float) -> None:
        """Stall both streams at random from now on."""
        self.source.stall(seed, probability)
        self.sink.stall(seed + 1, probability)

    def go(self) -> None:
        """Stop stalling."""
        self.stall(0, 0.0)

    # --- sending ----------------------------------------------------------------------------
    def send_beats(self, beats: Sequence[int], answer: Answer | None) -> None:
        """Queue the beats of any packet, well-formed or not, and note the answer it is owed."""
        if answer is not None:
            self.owed.append(Expected(answer, answer_beats(self.params, answer)))
        self.source.send(beats)

    def send(
        self,
        command: Command,
        tag: int,
        *,
        k: Codes | None = None,
        v: Codes | None = None,
        q: Codes | None = None,
    ) -> None:
        """Queue a well-formed packet."""
        beats = token_beats(self.params, command, tag, k=k, v=v, q=q)
        start = time.perf_counter()
        answer = self.oracle.packet(command, tag, k, v, q)
        self.oracle_s += time.perf_counter() - start
        self.send_beats(beats, answer)

    def send_refused(self, beats: Sequence[int], error: PacketError) -> None:
        """Queue a packet that the head must refuse."""
        owed = bool(beats[0] & 2)
        tag = beats[0] >> 8 & 2**self.params.tag_bits - 1
        self.send_beats(beats, self.oracle.refuse(tag, error, owed=owed))

    # --- receiving --------------------------------------------------------------------------
    async def _score(self) -> None:
        while True:
            self._compare(await self.sink.receive())
            self.answers += 1
            self._answered.set()

    def _compare(self, beats: list[int]) -> None:
        if not self.owed:
            self.mismatches.append(f"answer {beats} is not owed")
            return
        expected = self.owed.popleft()
        self.lanes_compared += len(expected.answer.sums)
        if beats != expected.beats:
            self.mismatches.append(f"answer {beats}, expected {expected.answer}")

    async def answered(self) -> None:
        """Wait for the next answer."""
        self._answered.clear()
        await self._answered.wait()

    async def drain(self, most_us: int = 1000) -> None:
        """Wait until everything owed has come and the head is idle."""
        await with_timeout(self._drained(), most_us, "us")

    async def _drained(self) -> None:
        while self.owed:
            await self.answered()
        await self.source.wait()
        await ClockCycles(self.dut.clk, 4)
        while not int(self.dut.status_idle.value):
            await FallingEdge(self.dut.clk)
        await ClockCycles(self.dut.clk, 2)

    # --- checks -----------------------------------------------------------------------------
    def check(self) -> None:
        """Fail if any answer was wrong, missing or superfluous, or a status differs."""
        assert not self.mismatches, (
            f"{len(self.mismatches)} mismatches, first: {self.mismatches[0]}"
        )
        assert not self.owed, f"{len(self.owed)} answers are missing"
        limit = 2**self.params.event_bits - 1
        oracle = self.oracle
        expected = {
            "status_command_errors": min(oracle.errors[PacketError.COMMAND], limit),
            "status_length_errors": min(oracle.errors[PacketError.LENGTH], limit),
            "status_code_errors": min(oracle.errors[PacketError.CODE], limit),
            "status_empty_errors": min(oracle.errors[PacketError.EMPTY], limit),
            "status_full_scale_total": min(oracle.full_scale_lanes, limit),
        }
        got = {name: int(getattr(self.dut, name).value) for name in expected}
        assert got == expected, f"status {got}, expected {expected}"
        sticky = sum(bool(count) << bit for bit, count in enumerate(expected.values()))
        assert int(self.dut.status_sticky.value) == sticky
        occupancy = int(self.dut.status_occupancy.value)
        assert occupancy == oracle.model.occupancy, (
            f"occupancy {occupancy}, expected {oracle.model.occupancy}"
        )
