"""AXI4-Stream drivers that take and give packets as lists of beats.

Two pairs with one interface. Those of cocotbext-axi were written by others and look at every clock;
tests of the protocol use them. Ours sleep while nothing can happen on their stream and make long
runs about twice as fast.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import cocotb
from cocotb.queue import Queue
from cocotb.triggers import ClockCycles, Event, RisingEdge
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

__all__ = [
    "EventSink",
    "EventSource",
    "LibrarySink",
    "LibrarySource",
    "Received",
    "Sink",
    "Source",
    "pauses",
]


#: Says which clock it is.
ClockCall = Callable[[], int]


class Received(NamedTuple):
    """A packet."""

    beats: list[int]
    clocks: list[int]  #: clock in which each beat was taken


class Source(Protocol):
    """Sends packets."""

    on_header: Callable[[], None]  #: called when a packet's first beat has been taken

    def send(self, beats: Sequence[int]) -> None:
        """Queue a packet."""

    async def wait(self) -> None:
        """Wait until every beat queued has been taken."""

    def clear(self) -> None:
        """Forget what is queued; called while the head is in reset."""

    def stall(self, seed: int, probability: float) -> None:
        """Stall in that share of clocks from now on, the same for the same seed; 0: never."""


class Sink(Protocol):
    """Receives packets."""

    pause: bool  #: not ready while set

    async def receive(self) -> Received:
        """Wait for a packet."""

    def clear(self) -> None:
        """Forget what has arrived; called while the head is in reset."""

    def stall(self, seed: int, probability: float) -> None:
        """Stall in that share of clocks from now on, the same for the same seed; 0: never."""


def pauses(seed: int, probability: float) -> Iterator[bool]:
    """Whether to stall in each clock, for ever."""
    rng = random.Random(seed)
    while True:
        yield rng.random() < probability


def _nothing() -> None:
    pass


class _Library:
    """What both drivers of the library share: beside them, a watch on the stream's rules."""

    def __init__(self, dut: Any, prefix: str, driver: Any) -> None:
        self.driver = driver
        driver.log.setLevel("WARNING")
        self._clk, self._rst = dut.clk, dut.rst
        self._data, self._last = getattr(dut, f"{prefix}_tdata"), getattr(dut, f"{prefix}_tlast")
        self._valid = getattr(dut, f"{prefix}_tvalid")
        self._ready = getattr(dut, f"{prefix}_tready")
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        """Look at every beat as it is when a clock ends; a beat that waits must stay."""
        edge = RisingEdge(self._clk)
        waiting: tuple[int, int] | None = None
        inside = False  # a packet
        while True:
            await edge
            if int(self._rst.value):
                waiting, inside = None, False
                continue
            if not int(self._valid.value):
                assert waiting is None, "a beat that waited was withdrawn"
                continue
            beat = int(self._data.value), int(self._last.value)
            assert waiting in (None, beat), "a beat that waited has changed"
            waiting = beat
            if int(self._ready.value):
                waiting = None
                self._taken(not inside, bool(beat[1]))
                inside = not beat[1]

    def _taken(self, first: bool, last: bool) -> None:
        raise NotImplementedError

    def stall(self, seed: int, probability: float) -> None:
        if probability:
            self.driver.set_pause_generator(pauses(seed, probability))
        else:
            self.driver.clear_pause_generator()
            self.driver.pause = False


class LibrarySource(_Library):
    """Source of cocotbext-axi."""

    def __init__(self, dut: Any, prefix: str, clock: ClockCall) -> None:
        bus = AxiStreamBus.from_prefix(dut, prefix)
        self._bytes = len(bus.tdata) // 8
        self.on_header = _nothing
        super().__init__(dut, prefix, AxiStreamSource(bus, dut.clk, dut.rst, byte_size=8))

    def _taken(self, first: bool, last: bool) -> None:
        if first:
            self.on_header()

    def send(self, beats: Sequence[int]) -> None:
        """Queue a packet."""
        data = b"".join(beat.to_bytes(self._bytes, "little") for beat in beats)
        self.driver.send_nowait(AxiStreamFrame(data))

    async def wait(self) -> None:
        """Wait until every beat queued has been taken."""
        await self.driver.wait()

    def clear(self) -> None:
        """Forget what is queued."""
        self.driver.clear()


class LibrarySink(_Library):
    """Sink of cocotbext-axi."""

    def __init__(self, dut: Any, prefix: str, clock: ClockCall) -> None:
        bus = AxiStreamBus.from_prefix(dut, prefix)
        self._bytes = len(bus.tdata) // 8
        self._clock = clock
        self._clocks: list[int] = []
        self._packets: Queue[list[int]] = Queue()
        super().__init__(dut, prefix, AxiStreamSink(bus, dut.clk, dut.rst, byte_size=8))

    def _taken(self, first: bool, last: bool) -> None:
        if first:
            self._clocks = []
        self._clocks.append(self._clock())
        if last:
            self._packets.put_nowait(self._clocks)

    @property
    def pause(self) -> bool:
        """Not ready while set."""
        return bool(self.driver.pause)

    @pause.setter
    def pause(self, value: bool) -> None:
        self.driver.pause = value

    async def receive(self) -> Received:
        """Wait for a packet."""
        data = bytes((await self.driver.recv()).tdata)
        beats = [
            int.from_bytes(data[at : at + self._bytes], "little")
            for at in range(0, len(data), self._bytes)
        ]
        return Received(beats, await self._packets.get())

    def clear(self) -> None:
        """Forget what has arrived."""
        self.driver.clear()
        while not self._packets.empty():
            self._packets.get_nowait()


class _EventDriver:
    """What both event-driven drivers share: signals, stalls, and a task that reset restarts."""

    def __init__(self, dut: Any, prefix: str) -> None:
        self._clk = dut.clk
        self._data, self._last = getattr(dut, f"{prefix}_tdata"), getattr(dut, f"{prefix}_tlast")
        self._valid = getattr(dut, f"{prefix}_tvalid")
        self._ready = getattr(dut, f"{prefix}_tready")
        self._edge = RisingEdge(self._clk)
        self._rng, self._probability = random.Random(0), 0.0
        self._task: Any = None

    def stall(self, seed: int, probability: float) -> None:
        self._rng, self._probability = random.Random(seed), probability

    def _gap(self) -> int:
        """Clocks to stall before the next beat."""
        clocks = 0
        while self._probability and self._rng.random() < self._probability:
            clocks += 1
        return clocks

    def _restart(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = cocotb.start_soon(self._run())

    async def _run(self) -> None:
        raise NotImplementedError


class EventSource(_EventDriver):
    """Source that sleeps while the head is not ready and while it has nothing to send."""

    def __init__(self, dut: Any, prefix: str, clock: ClockCall) -> None:
        super().__init__(dut, prefix)
        self.on_header = _nothing
        self._queue: deque[Sequence[int]] = deque()
        self._queued, self._idle = Event(), Event()
        self.clear()

    def send(self, beats: Sequence[int]) -> None:
        """Queue a packet."""
        self._queue.append(beats)
        self._idle.clear()
        self._queued.set()

    async def wait(self) -> None:
        """Wait until every beat queued has been taken."""
        await self._idle.wait()

    def clear(self) -> None:
        """Forget what is queued."""
        self._queue.clear()
        self._idle.set()
        self._valid.value = self._last.value = 0
        self._restart()

    async def _run(self) -> None:
        await self._edge
        while True:
            while not self._queue:
                self._idle.set()
                self._queued.clear()
                await self._queued.wait()
                await self._edge
            beats = self._queue.popleft()
            for at, beat in enumerate(beats):
                await self._send(beat, at == len(beats) - 1)
                if at == 0:
                    self.on_header()

    async def _send(self, beat: int, last: bool) -> None:
        """Offer a beat just after a clock edge; return just after the edge at which it is taken."""
        gap = self._gap()
        if gap:
            await ClockCycles(self._clk, gap)
        self._data.value, self._last.value, self._valid.value = beat, int(last), 1
        await self._edge
        while not int(self._ready.value):  # as it was before this edge
            await RisingEdge(self._ready)
            await self._edge
        self._valid.value = self._last.value = 0


class EventSink(_EventDriver):
    """Sink that sleeps while nothing is offered."""

    def __init__(self, dut: Any, prefix: str, clock: ClockCall) -> None:
        super().__init__(dut, prefix)
        self._clock = clock
        self._packets: deque[Received] = deque()
        self._arrived, self._resumed = Event(), Event()
        self._pause = False
        self.clear()

    @property
    def pause(self) -> bool:
        """Not ready while set; takes effect before the next beat."""
        return self._pause

    @pause.setter
    def pause(self, value: bool) -> None:
        self._pause = value
        if not value:
            self._resumed.set()

    async def receive(self) -> Received:
        """Wait for a packet."""
        while not self._packets:
            self._arrived.clear()
            await self._arrived.wait()
        return self._packets.popleft()

    def clear(self) -> None:
        """Forget what has arrived."""
        self._packets.clear()
        self._ready.value = 0
        self._restart()

    async def _run(self) -> None:
        packet = Received([], [])
        await self._edge
        while True:
            gap = self._gap()
            if gap or self._pause:
                self._ready.value = 0
                if gap:
                    await ClockCycles(self._clk, gap)
                while self._pause:
                    self._resumed.clear()
                    await self._resumed.wait()
                    await self._edge
            self._ready.value = 1
            await self._edge
            while not int(self._valid.value):  # as it was before this edge
                await RisingEdge(self._valid)
                await self._edge
            packet.beats.append(int(self._data.value))
            packet.clocks.append(self._clock())
            if int(self._last.value):
                self._packets.append(packet)
                packet = Received([], [])
                self._arrived.set()
