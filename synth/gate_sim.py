"""Gate-level simulation of a netlist, clock by clock, of two-valued nets.

Without delays every net takes the value it settles to: one pass through the logic, level by level.
With delays each gate answers after a time of its own and swallows pulses shorter than that: what
is more than without is glitches. Both end every clock with the same values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synth.gate_graph import ONE, GateGraph, Rows

__all__ = ["DelaySimulation", "Simulation"]

Bits = NDArray[np.uint8]


@dataclass(frozen=True)
class _Level:
    """Rows of one level with at most three inputs, or with more."""

    inputs: NDArray[np.int64]  #: (inputs, rows)
    tables: NDArray[np.uint64] | NDArray[np.uint8]
    outputs: NDArray[np.int64]

    def run(self, values: Bits) -> None:
        code = values[self.inputs[0]]
        for at, nets in enumerate(self.inputs[1:], 1):
            code = code | values[nets] << at
        values[self.outputs] = (self.tables >> code) & 1


def _groups(rows: Rows) -> Iterator[_Level]:
    """Rows by level, few and many inputs apart."""
    wide = rows.arity > 3
    for level in range(int(rows.level.max(initial=-1)) + 1):
        for many in (False, True):
            at = np.flatnonzero((rows.level == level) & (wide == many))
            if len(at):
                width = max(1, int(rows.arity[at].max()))
                tables = rows.tables[at]
                yield _Level(
                    np.ascontiguousarray(rows.inputs[at, :width].T),
                    tables if many else tables.astype(np.uint8),
                    rows.outputs[at],
                )


class Simulation:
    """Simulates without delays.

    Parameters
    ----------
    graph
        The netlist. Every flip-flop begins with 0.

    """

    def __init__(self, graph: GateGraph) -> None:
        self.graph = graph
        self.values: Bits = np.zeros(graph.nets, np.uint8)  #: of every net, the clock being low
        self.values[ONE] = 1
        self.values[list(graph.inverted)] = 1
        self._levels = list(_groups(graph.rows))
        self._states = list(_groups(graph.states))
        self._copies = list(_groups(graph.copies))
        # Which gate passes each flip-flop's clock; -1: it runs.
        gate_of = {int(out): at for at, out in enumerate(graph.gating.output)}
        self._gate = np.array([gate_of.get(int(c), -1) for c in graph.state_clock], np.int64)
        self._parent = np.array([gate_of.get(int(c), -1) for c in graph.gating.clock], np.int64)

    def settle(self) -> None:
        """Let the logic follow states and inputs."""
        values = self.values
        for level in self._levels:
            level.run(values)

    def passed(self) -> Bits:
        """Whether each gate passes the clock's next pulse, and at its end one that is always 1."""
        open_ = np.append(self.values[self.graph.gating.enable], np.uint8(1))
        while True:  # gates behind gates
            both = open_[:-1] & open_[self._parent]
            if np.array_equal(both, open_[:-1]):
                return open_
            open_[:-1] = both

    def edge(self) -> Bits:
        """Clock edge: flip-flops take their next values, logic does not follow yet.

        Returns
        -------
        array
            Whether each gate passed it, as of `passed`.
        """
        values, graph = self.values, self.graph
        open_ = self.passed()
        before = values[graph.states.outputs]
        for states in self._states:
            states.run(values)
        states_at = graph.states.outputs
        values[states_at] = np.where(open_[self._gate] == 1, values[states_at], before)
        for copies in self._copies:
            copies.run(values)
        held = graph.gating.held >= 0
        values[graph.gating.held[held]] = open_[:-1][held]
        return open_

    def drive(self, nets: NDArray[np.int64], bits: Bits) -> None:
        """Set inputs."""
        self.values[nets] = bits


class DelaySimulation:
    """Simulates a clock of a `Simulation` with delays, and counts transitions.

    Parameters
    ----------
    graph
        The netlist.
    delays
        Delay of each row of logic in ticks, to 1 and to 0, at least 1; (2, rows).
    copies
        The same of each output of a flip-flop, from the edge of the clock.

    """

    def __init__(
        self, graph: GateGraph, delays: NDArray[np.int64], copies: NDArray[np.int64]
    ) -> None:
        rows = graph.rows
        self.graph, self._delays, self._copies = graph, delays, copies
        self.transitions = np.zeros(graph.nets, np.int64)  #: of every net, since the beginning
        used = np.arange(6)[None, :] < rows.arity[:, None]
        row_at = np.repeat(np.arange(len(rows)), rows.arity)
        nets = rows.inputs[used]
        order = np.argsort(nets, kind="stable")
        self._readers = row_at[order]
        self._first = np.searchsorted(nets[order], np.arange(graph.nets + 1))
        self._due = np.full(len(rows), -1, np.int64)
        self._mark = np.zeros(len(rows), bool)

    def _reading(self, nets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows that read any of these nets."""
        first, last = self._first[nets], self._first[nets + 1]
        counts = last - first
        total = int(counts.sum())
        if not total:
            return np.zeros(0, np.int64)
        offsets = np.repeat(first - np.cumsum(counts) + counts, counts)
        rows = self._readers[offsets + np.arange(total)]
        self._mark[rows] = True
        rows = np.flatnonzero(self._mark) if len(rows) > 4096 else np.unique(rows)
        self._mark[rows] = False
        return rows

    def clock(self, values: Bits, after: Bits) -> int:
        """Go from settled values to those after an edge, inputs and flip-flops first.

        Parameters
        ----------
        values
            Settled values of every net before; changed to those after.
        after
            Values after the edge and new inputs, settled; those of flip-flops and inputs count.

        Returns
        -------
        int
            Ticks until nothing changes any more.
        """
        graph, rows = self.graph, self.graph.rows
        tables, inputs = rows.tables, rows.inputs
        driven = np.zeros(graph.nets, bool)
        driven[rows.outputs] = True
        changed = np.flatnonzero((values != after) & ~driven)
        wheel: dict[int, list[NDArray[np.int64]]] = {}
        starts: dict[int, NDArray[np.int64]] = {}
        delay = np.zeros(graph.nets, np.int64)
        up = values[graph.copies.outputs] == 0
        delay[graph.copies.outputs] = np.where(up, *self._copies)
        for tick in np.unique(delay[changed]):
            starts[int(tick)] = changed[delay[changed] == tick]
        tick = last = 0
        due = self._due
        while starts or wheel:
            tick = min([*starts, *wheel])
            nets = starts.pop(tick, np.zeros(0, np.int64))
            values[nets] = after[nets]
            if tick in wheel:
                pending = np.concatenate(wheel.pop(tick))
                pending = np.unique(pending[due[pending] == tick])
                due[pending] = -1
                outputs = rows.outputs[pending]
                values[outputs] ^= 1
                nets = np.concatenate([nets, outputs])
            if not len(nets):
                continue
            last = tick
            self.transitions[nets] += 1
            touched = self._reading(nets)
            code = values[inputs[touched, 0]].astype(np.uint64)
            for at in range(1, 6):
                code |= values[inputs[touched, at]].astype(np.uint64) << np.uint64(at)
            # Inputs beyond a row's own are net 0, which is 0.
            new = ((tables[touched] >> code) & np.uint64(1)).astype(np.uint8)
            differs = new != values[rows.outputs[touched]]
            due[touched[~differs]] = -1  # a pulse too short
            moved = touched[differs & (due[touched] < 0)]
            if len(moved):
                rising = values[rows.outputs[moved]] == 0
                times = tick + np.where(rising, self._delays[0, moved], self._delays[1, moved])
                due[moved] = times
                order = np.argsort(times, kind="stable")
                times, moved = times[order], moved[order]
                cuts = np.flatnonzero(np.diff(times)) + 1
                for part, time in zip(
                    np.split(moved, cuts), times[np.append(0, cuts)], strict=True
                ):
                    wheel.setdefault(int(time), []).append(part)
        return last
