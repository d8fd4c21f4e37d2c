"""Energy of a netlist's transitions from a library's tables: by block, by cause, clock by clock.

A transition of a net costs half of load times voltage squared, what the tables add inside the cell
that makes it, and what they add inside the cells that see it. Where a cell's table depends on the
input that caused a transition, or on a condition, the shares are those seen in simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from synth.activity import History
from synth.electrical import EDGES, PowerArc
from synth.gate_graph import GateGraph, Kind
from synth.liberty import evaluate
from synth.loads import Conditions, Loads, Transitions

__all__ = ["PARTS", "EnergyModel", "Statistics", "statistics"]

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]

#: Causes of energy that transitions have, in the order of a block's rows.
PARTS = ("internal", "pins", "wires", "clock_pins", "clock_tree")
_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_CHUNK = 256


@dataclass(frozen=True, eq=False)
class Statistics:
    """Every net's values over some clocks, 64 clocks to a word."""

    clocks: int
    values: Words  #: (nets, words), the clock being low
    changes: Words  #: whether the value differs from that of the clock before
    passed: Floats  #: share of clocks in which each clock gate passes the clock; the last is 1
    passes: Words  #: the same by clock, (gates + 1, words)


def _words(bits: NDArray[np.uint8]) -> Words:
    """Pack (clocks, nets) into (nets, words)."""
    packed = np.packbits(bits.T, axis=1, bitorder="little")
    padded = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint64)


def statistics(history: History, clocks: range) -> Statistics:
    """Values and changes over clocks; the clock before them must have been kept too."""
    values = history.values(range(clocks.start - 1, clocks.stop))
    passed = history.passed[clocks.start - history.first : clocks.stop - history.first]
    return Statistics(
        clocks=len(clocks),
        values=_words(values[1:]),
        changes=_words(values[1:] ^ values[:-1]),
        passed=passed.mean(axis=0),
        passes=_words(passed),
    )


def _count(words: Words) -> Floats:
    """Ones in each row."""
    return np.bitwise_count(words).sum(axis=-1).astype(np.float64)


@dataclass(frozen=True)
class _Term:
    """Energy that transitions of nets cost, of one edge; of a net of the clock, that of a pulse."""

    nets: NDArray[np.int64]
    edge: int  #: 0 to 1, 1 to 0
    energy_pj: Floats
    blocks: NDArray[np.int64]
    part: str


class EnergyModel:
    """Energies of a netlist.

    Parameters
    ----------
    graph, loads, slews
        The netlist, its loads and its transitions.
    conditions
        Voltage is the library's; wires and the tree of the clock are these.
    seen
        What shares of causes and conditions are taken from.

    """

    def __init__(
        self,
        graph: GateGraph,
        loads: Loads,
        slews: Transitions,
        conditions: Conditions,
        seen: Statistics,
    ) -> None:
        self.graph, self._loads, self._slews = graph, loads, slews
        self._conditions, self._seen = conditions, seen
        self._tail = np.uint64((1 << (seen.clocks % 64)) - 1) if seen.clocks % 64 else _ALL
        gates = {int(net): at for at, net in enumerate(graph.gating.output)}
        #: Which gate passes each net of the clock; the last one always does.
        self._gate = {net: gates.get(net, len(gates)) for net in graph.clock_nets}
        self._is_clock = np.zeros(graph.nets, bool)
        self._is_clock[list(graph.clock_nets)] = True
        self._matrices(list(self._terms()))
        self.leakage_nw = self._leakage()  #: by block

    # --- terms ------------------------------------------------------------------------------
    def _terms(self) -> Iterator[_Term]:
        half_cv2 = 0.5 * self.graph.electrical.voltage_v**2
        nets = np.flatnonzero(~self._is_clock)[2:]
        for edge in (0, 1):
            for part, load in (("pins", self._loads.pins), ("wires", self._loads.wires)):
                yield _Term(nets, edge, half_cv2 * load[nets], self._loads.block[nets], part)
        for kind in self.graph.kinds.values():
            for pin in kind.data.pins.values():
                on = np.flatnonzero(self._is_clock[kind.pins[pin.name]])
                if not pin.output and len(on):  # a pulse charges the pin and discharges it
                    energy = np.full(len(on), 2 * half_cv2 * pin.cap_pf)
                    yield _Term(kind.pins[pin.name][on], 0, energy, kind.blocks[on], "clock_pins")
                if pin.power:
                    yield from self._internal(kind, pin.name, pin.power, pin.output)
        yield from self._tree(half_cv2)

    def _internal(
        self, kind: Kind, pin: str, arcs: tuple[PowerArc, ...], output: bool
    ) -> Iterator[_Term]:
        """Energy inside cells when a pin of theirs changes."""
        nets = kind.pins[pin]
        shares = self._shares(kind, pin, arcs, output)
        load = self._loads.total[nets]
        clock = self._is_clock[nets]
        # Behind a clock gate is a tree of buffers.
        limit = self._conditions.tree.fan_out * self._conditions.tree.input_pf
        load = np.where(clock & output, np.minimum(load, limit), load)
        for edge, name in enumerate(EDGES):
            energy = np.zeros(len(kind))
            for arc, share in zip(arcs, shares, strict=True):
                if name not in arc.energy:
                    continue
                related = [p for p in arc.related if p in kind.pins] if output else []
                slew = (
                    np.mean([self._slews.mean(kind.pins[p]) for p in related], axis=0)
                    if related
                    else self._slews.slew[edge, nets]
                )
                energy += share * arc.energy[name].at(slew, load)
            for some, part in ((~clock, "internal"), (clock, "clock_pins")):
                yield _Term(nets[some], edge, energy[some], kind.blocks[some], part)

    def _shares(
        self, kind: Kind, pin: str, arcs: tuple[PowerArc, ...], output: bool
    ) -> list[Floats]:
        """Share of a pin's transitions that each table is for, by cell."""
        nets = kind.pins[pin]
        clock = bool(self._is_clock[nets].any())
        if clock:  # a pulse in every clock that the gate passes
            change = np.full((len(kind), 1), _ALL)
        else:
            change = self._seen.changes[nets]
        weights, default = [], None
        for at, arc in enumerate(arcs):
            caused = np.zeros_like(change)
            related = [p for p in arc.related if p in kind.pins and p != pin] if output else []
            for p in related:
                if self._is_clock[kind.pins[p]].any():
                    caused = caused | _ALL
                elif not clock:
                    caused = caused | self._seen.changes[kind.pins[p]]
            if not related:
                caused = caused | _ALL
            if arc.when:
                caused = caused & self._condition(kind, arc.when, not clock)
            elif not output:
                default = at
            weights.append(_count(change & caused))
        total = np.sum(weights, axis=0)
        if default is not None and len(arcs) > 1:
            # Of an input: the table without a condition is for what no condition covers.
            others = total - weights[default]
            weights[default] = np.maximum(_count(change) - others, 0)
            total = others + weights[default]
        if not output and default is None:
            whole = _count(change)
            total = np.where(whole > 0, np.maximum(whole, total), 0)
        even = 1 / len(arcs)
        return [np.where(total > 0, w / np.where(total > 0, total, 1), even) for w in weights]

    def _condition(self, kind: Kind, when: str, by_clock: bool) -> Words:
        """Clocks in which a condition holds, by cell; one word of shares if not ``by_clock``."""
        values = {}
        for pin, nets in kind.pins.items():
            words = self._seen.values[nets].copy()
            clock = self._is_clock[nets]
            if clock.any():  # its transitions are judged while it is high
                words[clock] = _ALL
            values[pin] = words
        try:
            found: Words = evaluate(when, values, _ALL)
        except KeyError:  # of a state that is no pin
            found = np.full_like(next(iter(values.values())), _ALL)
        if by_clock:
            return found
        # The word stands for the share of clocks: as many of its bits are set.
        found = found.copy()
        found[:, -1] &= self._tail
        ones = np.rint(64 * _count(found) / self._seen.clocks).astype(np.int64)
        share = np.array([(1 << int(n)) - 1 for n in ones], dtype=object).astype(np.uint64)
        return share[:, None]

    def _tree(self, half_cv2: float) -> Iterator[_Term]:
        """Clock buffers, which the netlist does not have, of each part of the clock."""
        conditions, graph = self._conditions, self.graph
        tree = conditions.tree
        area = float(sum(k.data.area_um2 * len(k) for k in graph.kinds.values()))
        cells = sum(map(len, graph.kinds.values()))
        sinks: dict[int, list[tuple[NDArray[np.int64], float]]] = {}
        for kind in graph.kinds.values():
            for pin in kind.data.inputs:
                nets = kind.pins[pin]
                for net in np.unique(nets[self._is_clock[nets]]):
                    blocks = kind.blocks[nets == net]
                    sinks.setdefault(int(net), []).append((blocks, kind.data.pins[pin].cap_pf))
        for net, parts in sinks.items():
            blocks = np.concatenate([blocks for blocks, _ in parts])
            count = len(blocks)
            pin_pf = sum(len(b) * cap for b, cap in parts) / count
            spread = area * count / cells  # pins of one gate lie together
            wire_pf = (
                tree.steiner * (count * spread) ** 0.5 * conditions.wires.cap_ff_per_um / 1000
                if count > 1
                else 0.0
            )
            pulse_pj = 2 * half_cv2 * wire_pf
            below, below_pf = count, pin_pf
            for buffers in tree.levels(count):
                load = below / buffers * below_pf + wire_pf / max(1, buffers)
                inside = tree.energy_pj(conditions.slew_ns, load)
                pulse_pj += buffers * (inside + 2 * half_cv2 * tree.input_pf)
                below, below_pf = buffers, tree.input_pf
            share = np.full(count, pulse_pj / count)
            yield _Term(np.full(count, net), 0, share, blocks, "clock_tree")

    # --- sums -------------------------------------------------------------------------------
    def _matrices(self, terms: list[_Term]) -> None:
        """Sum terms to a row per block and part: of transitions to 1, to 0, and of pulses."""
        blocks, nets = len(self.graph.blocks), self.graph.nets
        shape = (blocks * len(PARTS), nets)
        found = []
        pulses = np.zeros((shape[0], len(self.graph.gating.output) + 1))
        for edge in (0, 1):
            rows, columns, values = [], [], []
            for term in terms:
                if term.edge != edge or not len(term.nets):
                    continue
                row = term.blocks * len(PARTS) + PARTS.index(term.part)
                clock = self._is_clock[term.nets]
                gate = np.array([self._gate[int(net)] for net in term.nets[clock]], np.int64)
                np.add.at(pulses, (row[clock], gate), term.energy_pj[clock])
                rows.append(row[~clock])
                columns.append(term.nets[~clock])
                values.append(term.energy_pj[~clock])
            cells = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
            found.append(csr_array(cells, shape=shape))
        self._rising, self._falling = found
        self._pulses = pulses

    def _leakage(self) -> Floats:
        """Leakage by block, nW, in the states seen, the clock being high half of the time."""
        found = np.zeros(len(self.graph.blocks))
        seen = self._seen
        for kind in self.graph.kinds.values():
            data = kind.data
            power, covered = np.zeros(len(kind)), np.zeros(len(kind))
            for high in (False, True):
                values = {}
                for pin, nets in kind.pins.items():
                    words = seen.values[nets].copy()
                    for at in np.flatnonzero(self._is_clock[nets]):
                        net = int(nets[at])
                        pulse = seen.passes[self._gate[net]] if high else np.uint64(0)
                        words[at] = pulse ^ (_ALL if net in self.graph.inverted else np.uint64(0))
                    values[pin] = words
                for when, leakage in data.leakage_when_nw:
                    try:
                        holds: Words = evaluate(when, values, _ALL)
                    except KeyError:
                        continue
                    holds = holds.copy()
                    holds[:, -1] &= self._tail
                    share = _count(holds) / seen.clocks / 2
                    power += share * leakage
                    covered += share
            power += np.maximum(0, 1 - covered) * data.leakage_nw
            np.add.at(found, kind.blocks, power)
        return found

    def by_clock(
        self,
        history: History,
        clocks: range,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Floats:
        """Energy of each clock, pJ, leakage left out; (clocks, blocks, parts)."""
        found = np.zeros((len(clocks), self._rising.shape[0]))
        for first in range(clocks.start, clocks.stop, _CHUNK):
            some = range(first, min(first + _CHUNK, clocks.stop))
            values = history.values(range(some.start - 1, some.stop))
            before, after = values[:-1], values[1:]
            passed = history.passed[some.start - history.first : some.stop - history.first]
            rises = (after & ~before & 1).T.astype(np.float32)
            falls = (before & ~after & 1).T.astype(np.float32)
            energy = self._rising @ rises + self._falling @ falls
            energy += self._pulses @ passed.T.astype(np.float64)
            found[some.start - clocks.start : some.stop - clocks.start] = energy.T
            if on_progress:
                on_progress(some.stop - clocks.start, len(clocks))
        return found.reshape(len(clocks), len(self.graph.blocks), len(PARTS))

    def of_transitions(self, transitions: NDArray[np.int64]) -> Floats:
        """Energy of transitions of nets, half of them to 1, pJ; (blocks, parts)."""
        half = np.where(self._is_clock, 0, transitions) / 2
        energy: Floats = self._rising @ half + self._falling @ half
        return energy.reshape(len(self.graph.blocks), len(PARTS))

    def parts(self, energy: Floats) -> Mapping[str, Mapping[str, float]]:
        """Energy by block and part, from an array of (blocks, parts)."""
        return {
            block: dict(zip(PARTS, map(float, energy[at]), strict=True))
            for at, block in enumerate(self.graph.blocks)
        }
