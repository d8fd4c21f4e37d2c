"""Loads, transitions and delays of a netlist: wires as assumed, cells from the library's tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synth.electrical import EDGES, Arc, CellData
from synth.gate_graph import GateGraph, Kind

__all__ = ["ClockTree", "Conditions", "Loads", "Transitions", "Wires", "find_loads", "transitions"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Wires:
    """Wires before there is a layout.

    The mean length of a connection in a block of N cells is Donath's bound for Rent's exponent
    ``rent``, in pitches of cells: W. E. Donath, "Placement and average interconnection lengths of
    computer logic", IEEE Trans. Circuits Syst. 26 (4), 272-277, 1979. Real placements are shorter.
    The capacitance per length hardly depends on the process: R. Ho, K. W. Mai, M. A. Horowitz,
    "The future of wires", Proc. IEEE 89 (4), 490-504, 2001.
    """

    rent: float = 0.6  #: Rent's exponent of random logic
    cap_ff_per_um: float = 0.2  #: capacitance of a wire; 0 leaves wires out

    def pitches(self, cells: int) -> float:
        """Mean length of a connection among so many cells, in pitches."""
        n, p = max(4, cells), self.rent
        first = 7 * (n ** (p - 0.5) - 1) / (4 ** (p - 0.5) - 1)
        second = (1 - n ** (p - 1.5)) / (1 - 4 ** (p - 1.5))
        return 2 / 9 * (first - second) * (1 - 4 ** (p - 1)) / (1 - n ** (p - 1))

    def connection_pf(self, cells: int, area_um2: float) -> float:
        """Mean capacitance of a connection in a block."""
        if not cells:
            return 0.0
        pitch_um = (area_um2 / cells) ** 0.5
        return self.pitches(cells) * pitch_um * self.cap_ff_per_um / 1000


@dataclass(frozen=True, eq=False)
class Loads:
    """What each net's driver has to charge, pF."""

    pins: Floats  #: inputs of cells, and what is behind an output port
    wires: Floats
    block: NDArray[np.int64]  #: block of its driver; of an input, that of the glue

    @property
    def total(self) -> Floats:
        """Pins and wires."""
        return self.pins + self.wires


@dataclass(frozen=True, kw_only=True, eq=False)
class ClockTree:
    """Clock buffers that are not in the netlist: each drives so many pins, or buffers."""

    buffer: CellData
    fan_out: int = 16
    #: Wire of a tree over n pins in an area A: a Steiner tree, 0.76 sqrt(n A) long for pins at
    #: random places; F. K. Hwang, SIAM J. Appl. Math. 30, 104-114, 1976, and what follows it.
    steiner: float = 0.76

    @property
    def input_pf(self) -> float:
        """Capacitance of a buffer's input."""
        return self.buffer.pins[self.buffer.inputs[0]].cap_pf

    def levels(self, pins: int) -> list[int]:
        """Buffers of each level, the lowest first; none for few pins."""
        found = []
        while pins > self.fan_out:
            pins = -(-pins // self.fan_out)
            found.append(pins)
        return found

    def transition_ns(self, load_pf: float) -> dict[str, float]:
        """Transitions, by edge, at the output of a buffer whose input has them too."""
        arc = self.buffer.pins[self.buffer.outputs[0]].arcs[0]
        found = dict.fromkeys(EDGES, 0.05)
        for _ in range(20):
            found = {edge: float(arc.slew[edge].at(found[edge], load_pf)) for edge in EDGES}
        return found

    def energy_pj(self, slew_ns: float, load_pf: float) -> float:
        """Energy inside a buffer, of a pulse."""
        pins = self.buffer.pins.values()
        return sum(
            float(arc.energy[edge].at(slew_ns, load_pf))
            for pin in pins
            for arc in pin.power[:1]
            for edge in EDGES
            if edge in arc.energy
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditions:
    """What is around the netlist."""

    wires: Wires
    tree: ClockTree
    slew_ns: float  #: transition of clock pins and of inputs
    output_pf: float  #: load behind every output port


def find_loads(graph: GateGraph, wires: Wires, output_pf: float) -> Loads:
    """Loads of every net; those of the clock are of pins alone, its wires are the tree's."""
    pins = np.zeros(graph.nets)
    fan_out = np.zeros(graph.nets)
    glue = graph.blocks.index("glue") if "glue" in graph.blocks else 0
    block = np.full(graph.nets, glue, np.int64)
    cells = np.zeros(len(graph.blocks), np.int64)
    area = np.zeros(len(graph.blocks))
    for kind in graph.kinds.values():
        np.add.at(cells, kind.blocks, 1)
        np.add.at(area, kind.blocks, kind.data.area_um2)
        for pin in kind.data.outputs:
            block[kind.pins[pin]] = kind.blocks
    crosses = np.zeros(graph.nets, bool)
    for kind in graph.kinds.values():
        for pin in kind.data.inputs:
            nets = kind.pins[pin]
            np.add.at(pins, nets, kind.data.pins[pin].cap_pf)
            np.add.at(fan_out, nets, 1)
            crosses[nets[block[nets] != kind.blocks]] = True
    for port in graph.ports.values():
        if port.output:
            np.add.at(pins, port.nets, output_pf)
            np.add.at(fan_out, port.nets, 1)
            crosses[port.nets] = True
        else:
            crosses[port.nets] = True
    inside = [wires.connection_pf(int(n), float(a)) for n, a in zip(cells, area, strict=True)]
    across = wires.connection_pf(int(cells.sum()), float(area.sum()))
    each = np.where(crosses, across, np.array(inside)[block])
    length = fan_out * each
    length[list(graph.clock_nets)] = 0
    length[:2] = 0
    return Loads(pins=pins, wires=length, block=block)


@dataclass(frozen=True, eq=False)
class Transitions:
    """Transitions of every net and delays of every output, ns; to 1 first, then to 0."""

    slew: Floats  #: (2, nets)
    arrival: Floats  #: (2, nets), after the clock's edge or the input's
    rows: Floats  #: delay of each row of the logic, mean over its inputs; (2, rows)
    copies: Floats  #: of each output of a flip-flop; (2, copies)

    def mean(self, nets: NDArray[np.int64]) -> Floats:
        """Mean of both edges' transitions."""
        found: Floats = self.slew[:, nets].mean(axis=0)
        return found


def _sources(arc: Arc, edge: int) -> Sequence[int]:
    """Edges of the input that lead to an edge of the output."""
    if arc.sense == "positive_unate":
        return (edge,)
    if arc.sense == "negative_unate":
        return (1 - edge,)
    return (0, 1)


def _tasks(graph: GateGraph) -> Iterator[tuple[Kind, str, NDArray[np.int64]]]:
    """Outputs of logic by level: kind, pin, and which cells."""
    level = np.full(graph.nets, -1, np.int64)
    level[graph.rows.outputs] = graph.rows.level
    found: list[tuple[int, Kind, str, NDArray[np.int64]]] = []
    for kind in graph.kinds.values():
        for pin in kind.data.outputs:
            levels = level[kind.pins[pin]]
            for each in np.unique(levels[levels >= 0]):
                found.append((int(each), kind, pin, np.flatnonzero(levels == each)))
    for _, kind, pin, cells in sorted(found, key=lambda task: task[0]):
        yield kind, pin, cells


def transitions(graph: GateGraph, loads: Loads, slew_ns: float) -> Transitions:
    """Propagate transitions and arrivals through the netlist, the worst of each.

    Parameters
    ----------
    graph, loads
        The netlist and what its nets load their drivers with.
    slew_ns
        Transition of the clock at flip-flops, and of inputs.
    """
    total = loads.total
    slew = np.full((2, graph.nets), slew_ns)
    arrival = np.zeros((2, graph.nets))
    delay = np.zeros((2, graph.nets))
    for kind in graph.kinds.values():
        for pin in kind.data.outputs:
            nets = kind.pins[pin]
            for arc in kind.data.pins[pin].arcs:
                if not arc.edge:
                    continue
                for edge, name in enumerate(EDGES):
                    if name in arc.delay and name in arc.slew:
                        slew[edge, nets] = arc.slew[name].at(slew_ns, total[nets])
                        delay[edge, nets] = arc.delay[name].at(slew_ns, total[nets])
                        arrival[edge, nets] = delay[edge, nets]
    for kind, pin, cells in _tasks(graph):
        nets = kind.pins[pin][cells]
        for edge, name in enumerate(EDGES):
            worst = np.zeros(len(cells))
            latest = np.zeros(len(cells))
            sum_, count = np.zeros(len(cells)), 0
            for arc in kind.data.pins[pin].arcs:
                if arc.edge or name not in arc.delay or name not in arc.slew:
                    continue
                inputs = kind.pins[arc.related][cells]
                for source in _sources(arc, edge):
                    before = slew[source, inputs]
                    own = arc.delay[name].at(before, total[nets])
                    worst = np.maximum(worst, arc.slew[name].at(before, total[nets]))
                    latest = np.maximum(latest, arrival[source, inputs] + own)
                    sum_ += own
                    count += 1
            slew[edge, nets], arrival[edge, nets] = worst, latest
            delay[edge, nets] = sum_ / max(1, count)
    return Transitions(
        slew=slew,
        arrival=arrival,
        rows=delay[:, graph.rows.outputs],
        copies=delay[:, graph.copies.outputs],
    )
