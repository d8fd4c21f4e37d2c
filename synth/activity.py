"""What every net of a netlist does while recorded inputs drive it, and that outputs agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from synth.gate_graph import GateGraph
from synth.gate_sim import DelaySimulation, Simulation
from synth.loads import Transitions

__all__ = ["PHASES", "History", "NetlistError", "Recording", "simulate", "transitions_with_delays"]

Bits = NDArray[np.uint8]

#: Phases of a token that has the head for itself, by the line that tells them, the first that is
#: high; what is left between them are guards, and the way in and out.
PHASES: Mapping[str, str] = {
    "readout": "ana_readout",
    "convert": "ana_convert",
    "score": "ana_integrate",
    "write": "ana_k_write",
    "send": "m_axis_tvalid",
    "receive": "s_axis_tvalid",
}


class NetlistError(RuntimeError):
    """Netlist and source differ."""


@dataclass(frozen=True, eq=False)
class Recording:
    """Values of every port by clock, and what passed through the head meanwhile."""

    values: Mapping[str, Bits]  #: by port, bytes of each clock, least significant first
    warm: int
    stream: int
    alone: int
    key: str  #: hash of everything it depends on

    @property
    def clocks(self) -> int:
        """Clocks recorded."""
        return len(self.values["rst"])

    def line(self, name: str) -> NDArray[np.bool_]:
        """Values of a port of one bit; of several heads, those of the first."""
        for axis in ("s_axis", "m_axis"):
            if name.startswith(f"{axis}_") and name not in self.values:
                name = name.replace(axis, f"{axis}_0", 1)
        found: NDArray[np.bool_] = self.values[name][:, 0] & 1 == 1
        return found

    @cached_property
    def answers(self) -> NDArray[np.int64]:
        """Clocks in which the last beats of answers left."""
        lines = (self.line(f"m_axis_t{name}") for name in ("valid", "ready", "last"))
        return np.flatnonzero(np.logical_and.reduce(list(lines)))

    def streaming(self, tokens: int | None = None) -> range:
        """Clocks of the measured tokens, or of the first of them: from answer to answer."""
        count = self.stream if tokens is None else tokens
        first, last = self.answers[self.warm - 1], self.answers[self.warm - 1 + count]
        return range(int(first) + 1, int(last) + 1)

    @property
    def idle(self) -> range:
        """Clocks in which nothing is in the head."""
        start = int(self.answers[self.warm + self.stream]) + 8
        return range(start, int(self._next_beat(start)) - 1)

    @property
    def singly(self) -> list[range]:
        """Clocks of each token that has the head for itself, first beat in to last beat out."""
        found, last = [], self.answers[self.warm + self.stream] + 1
        for answer in self.answers[-self.alone :]:
            found.append(range(int(self._next_beat(int(last))), int(answer) + 2))
            last = answer + 1
        return found

    def _next_beat(self, clock: int) -> int:
        return clock + int(np.argmax(self.line("s_axis_tvalid")[clock:]))

    def phases(self, clocks: range) -> list[str]:
        """Phase of each clock, ``between`` if it is none."""
        lines = {
            phase: self.line(name)[clocks.start : clocks.stop] for phase, name in PHASES.items()
        }
        return [
            next((phase for phase, line in lines.items() if line[at]), "between")
            for at in range(len(clocks))
        ]

    def bits(self, graph: GateGraph, output: bool) -> tuple[NDArray[np.int64], Bits]:
        """Nets of all outputs or inputs but the clock, and their values; (clocks, nets)."""
        nets = [np.zeros(0, np.int64)]
        columns = [np.zeros((self.clocks, 0), np.uint8)]
        for name, port in graph.ports.items():
            if port.output == output and name in self.values:
                nets.append(port.nets)
                bits = np.unpackbits(self.values[name], axis=1, bitorder="little")
                columns.append(bits[:, : len(port.nets)])
        return np.concatenate(nets), np.concatenate(columns, axis=1)


@dataclass(frozen=True, eq=False)
class History:
    """Settled values of every net, clock by clock."""

    graph: GateGraph
    packed: Bits  #: (clocks, nets / 8)
    passed: Bits  #: whether each clock gate passed the edge that a clock begins with
    first: int  #: clock of the recording that the first row is of

    def values(self, clocks: range) -> Bits:
        """Values of every net; (clocks, nets)."""
        rows = self.packed[clocks.start - self.first : clocks.stop - self.first]
        return np.unpackbits(rows, axis=1, count=self.graph.nets, bitorder="little")


def simulate(
    graph: GateGraph,
    recording: Recording,
    *,
    keep_from: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> History:
    """Drive a netlist with the inputs of a recording and compare every output in every clock.

    Parameters
    ----------
    graph
        The netlist.
    recording
        Inputs and outputs of its source, from the reset on.
    keep_from
        Clock from which values are kept.
    on_progress
        Called with clocks done and clocks in all.

    Raises
    ------
    NetlistError
        An output differs from the source's, after the first clock of the reset; the message names
        port and clock.
    """
    simulation = Simulation(graph)
    inputs, driven = recording.bits(graph, False)
    outputs, expected = recording.bits(graph, True)
    clocks = recording.clocks
    packed = np.zeros((clocks - keep_from, -(-graph.nets // 8)), np.uint8)
    passed = np.zeros((clocks - keep_from, len(graph.gating.output) + 1), np.uint8)
    values = simulation.values
    open_ = np.zeros(passed.shape[1], np.uint8)
    reset_over = int(np.argmin(recording.line("rst")))
    for clock in range(clocks):
        simulation.drive(inputs, driven[clock])
        simulation.settle()
        # Registers without a value at power-up have one after the reset.
        if clock >= reset_over and not np.array_equal(values[outputs], expected[clock]):
            at = int(outputs[np.flatnonzero(values[outputs] != expected[clock])[0]])
            name = next(n for n, p in graph.ports.items() if p.output and at in p.nets)
            raise NetlistError(f"netlist and source differ at {name} in clock {clock}")
        if clock >= keep_from:
            packed[clock - keep_from] = np.packbits(values, bitorder="little")
            passed[clock - keep_from] = open_
        open_ = simulation.edge()
        if on_progress and clock % 256 == 0:
            on_progress(clock, clocks)
    return History(graph, packed, passed, keep_from)


def transitions_with_delays(
    history: History,
    clocks: range,
    delays: Transitions,
    *,
    tick_ns: float,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.int64]:
    """Transitions of every net over clocks, glitches included.

    Parameters
    ----------
    history
        Settled values, from the clock before on.
    clocks
        Clocks that are simulated.
    delays
        Delays of gates and flip-flops.
    tick_ns
        What delays are rounded to.
    on_progress
        Called with clocks done and clocks in all.

    Raises
    ------
    NetlistError
        A clock does not end with the values it settles to.
    """

    def ticks(delay: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.maximum(1, np.rint(delay / tick_ns)).astype(np.int64)

    simulation = DelaySimulation(history.graph, ticks(delays.rows), ticks(delays.copies))
    values = history.values(range(clocks.start - 1, clocks.start))[0]
    for clock in clocks:
        after = history.values(range(clock, clock + 1))[0]
        simulation.clock(values, after)
        if not np.array_equal(values, after):
            raise NetlistError(f"clock {clock} ends with other values with delays than without")
        if on_progress and clock % 16 == 0:
            on_progress(clock - clocks.start, len(clocks))
    return simulation.transitions
