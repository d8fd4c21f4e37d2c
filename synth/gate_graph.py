"""A netlist of cells as arrays: rows of logic by level, storage, clock gates, loads, blocks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synth.electrical import CellData, Electrical, read_electrical
from synth.liberty import LibertyError, Library, truth_table

__all__ = ["ONE", "ZERO", "GateGraph", "Gating", "Kind", "Port", "Rows", "read_graph"]

Indices = NDArray[np.int64]

#: Nets that are constant.
ZERO, ONE = 0, 1
#: Inputs of one row of logic at the most; the table of one with six has 64 bits.
_INPUTS = 6


@dataclass(frozen=True, eq=False)
class Port:
    """A port of the design."""

    output: bool
    nets: Indices


@dataclass(frozen=True, eq=False)
class Kind:
    """All cells of one kind."""

    data: CellData
    names: tuple[str, ...]
    blocks: Indices  #: index of each cell's block
    pins: Mapping[str, Indices]  #: net at each pin, by cell

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class Rows:
    """Logic, a row per output: its value is bit ``code`` of the table, ``code`` the inputs'."""

    inputs: Indices  #: (rows, 6); not needed ones are net 0
    tables: NDArray[np.uint64]
    outputs: Indices
    arity: Indices
    level: Indices  #: above those of the rows it depends on

    def __len__(self) -> int:
        return len(self.outputs)


@dataclass(frozen=True, eq=False)
class Gating:
    """Clock gates: each passes the pulse of its clock if the enable was high before the edge."""

    clock: Indices
    enable: Indices
    held: Indices  #: net between latch and AND gate, -1 in a cell made for the purpose
    output: Indices


@dataclass(frozen=True, eq=False)
class GateGraph:
    """A netlist."""

    electrical: Electrical
    blocks: tuple[str, ...]
    nets: int
    net_names: Mapping[int, str]  #: of nets that have a name of the design
    ports: Mapping[str, Port]
    kinds: Mapping[str, Kind]
    rows: Rows
    states: Rows  #: next values of flip-flops; ``outputs`` are the states' own nets
    state_clock: Indices  #: net of each flip-flop's clock
    copies: Rows  #: outputs of flip-flops as functions of their states
    gating: Gating
    inverted: frozenset[int]  #: nets of the clock that are high while it is low
    clock: int  #: net of the clock port
    clock_nets: frozenset[int]  #: it and what follows from it

    def cell_of(self, net: int) -> tuple[str, str]:
        """Kind and name of the cell that drives a net; empty for a port."""
        for name, kind in self.kinds.items():
            for pin in kind.data.outputs:
                at = np.flatnonzero(kind.pins[pin] == net) if pin in kind.pins else []
                if len(at):
                    return name, kind.names[int(at[0])]
        return "", ""


class _Builder:
    """Collects rows."""

    def __init__(self) -> None:
        self.inputs: list[list[int]] = []
        self.tables: list[int] = []
        self.outputs: list[int] = []

    def add(self, inputs: list[int], table: int, output: int) -> None:
        self.inputs.append(inputs)
        self.tables.append(table)
        self.outputs.append(output)

    def rows(self, level: Indices | None = None) -> Rows:
        count = len(self.outputs)
        inputs = np.zeros((count, _INPUTS), np.int64)
        for at, nets in enumerate(self.inputs):
            inputs[at, : len(nets)] = nets
        return Rows(
            inputs=inputs,
            tables=np.array(self.tables, np.uint64),
            outputs=np.array(self.outputs, np.int64),
            arity=np.array([len(nets) for nets in self.inputs], np.int64),
            level=np.zeros(count, np.int64) if level is None else level,
        )


def _levels(rows: Rows, nets: int) -> Indices:
    """Level of each row; a loop is an error."""
    driver = np.full(nets, -1, np.int64)
    driver[rows.outputs] = np.arange(len(rows))
    before = driver[rows.inputs]  # rows that each depends on, -1 for none
    level = np.zeros(len(rows), np.int64)
    for _ in range(len(rows) + 1):
        new = np.where(before >= 0, level[before] + 1, 0).max(axis=1, initial=0)
        if np.array_equal(new, level):
            return level
        level = new
        if level.max() > 10_000:
            break
    raise ValueError("the netlist has a loop of logic")


def read_graph(path: Path, library: Library, *, top: str, clock: str = "clk") -> GateGraph:
    """Read a flat netlist, as Yosys writes it as JSON.

    A cell belongs to the block that its name begins with, up to the first full stop; without one
    to the block ``glue``.

    Parameters
    ----------
    path
        The JSON file.
    library
        Library of its cells.
    top
        Its module.
    clock
        Name of the clock port.

    Raises
    ------
    LibertyError
        A cell is not of the library, or its function is not known.
    ValueError
        The logic has a loop, or a flip-flop's clock is no clock.
    """
    module = json.loads(path.read_text(encoding="utf-8"))["modules"][top]
    cells: Mapping[str, Mapping[str, Any]] = module["cells"]
    unknown = sorted({cell["type"] for cell in cells.values()} - library.cells.keys())
    if unknown:
        raise LibertyError(f"{path.name}: cells {unknown} are not of {library.name}")
    electrical = read_electrical(library, sorted({cell["type"] for cell in cells.values()}))
    dense: dict[int | str, int] = {"0": ZERO, "1": ONE, "x": ZERO, "z": ZERO}

    def net(bit: int | str) -> int:
        return dense.setdefault(bit, len(dense) - 2)  # four words for two constants

    ports = {
        name: Port(port["direction"] == "output", np.array([net(b) for b in port["bits"]]))
        for name, port in module["ports"].items()
    }
    blocks: dict[str, int] = {}
    members: dict[str, list[tuple[str, int, dict[str, int]]]] = {}
    open_pins = 0
    for name, cell in cells.items():
        block, dot, _ = name.partition(".")
        block = re.sub(r"\$\d+$", "", block)
        index = blocks.setdefault(block if dot else "glue", len(blocks))
        pins = {}
        for pin in electrical.cells[cell["type"]].pins:
            bits = cell["connections"].get(pin) or []
            if not bits:  # of an output that drives nothing
                open_pins += 1
                bits = [f"open{open_pins}"]
            pins[pin] = net(bits[0])
        members.setdefault(cell["type"], []).append((name, index, pins))
    kinds = {
        kind: Kind(
            data=electrical.cells[kind],
            names=tuple(name for name, _, _ in group),
            blocks=np.array([index for _, index, _ in group]),
            pins={
                pin: np.array([pins[pin] for _, _, pins in group])
                for pin in electrical.cells[kind].pins
            },
        )
        for kind, group in sorted(members.items())
    }
    names: dict[int, str] = {}
    # Where a net is a register and a port, the register's name comes first.
    for name, entry in sorted(module["netnames"].items(), key=lambda item: item[0] in ports):
        if not entry.get("hide_name"):
            several = len(entry["bits"]) > 1
            for at, bit in enumerate(entry["bits"]):
                names.setdefault(net(bit), f"{name}[{at}]" if several else name)
    return _graph(electrical, library, kinds, ports, names, tuple(blocks), dense, clock)


def _graph(
    electrical: Electrical,
    library: Library,
    kinds: Mapping[str, Kind],
    ports: Mapping[str, Port],
    names: Mapping[int, str],
    blocks: tuple[str, ...],
    dense: dict[int | str, int],
    clock: str,
) -> GateGraph:
    if clock not in ports:
        raise ValueError(f"the netlist must have a port {clock!r} for its clock")
    root = int(ports[clock].nets[0])
    rows, states, copies = _Builder(), _Builder(), _Builder()
    state_clock: list[int] = []
    gates: list[tuple[int, int, int, int]] = []
    latches: dict[int, int] = {}  # output to data
    for name, kind in kinds.items():
        data, storage = kind.data, kind.data.storage
        gate = library.cells[name].clock_gate
        if gate is not None:
            pins = (kind.pins[pin] for pin in (gate.clock, gate.enable, gate.output))
            gates += [(int(c), int(e), -1, int(o)) for c, e, o in zip(*pins, strict=True)]
        elif "next_state" in storage:
            clocks = [
                p for p in data.inputs if truth_table(storage["clocked_on"], (p,)) is not None
            ]
            if len(clocks) != 1:
                raise LibertyError(f"clocked_on of {name} must be one pin, not {storage!r}")
            inputs = tuple(p for p in data.inputs if p != clocks[0])
            complement = (data.inverted_state,) if data.inverted_state else ()
            used = tuple(p for p in inputs if p in storage["next_state"])
            table = truth_table(storage["next_state"], (*used, data.state))
            if table is None:
                raise LibertyError(f"next_state of {name} is not understood: {storage!r}")
            for at in range(len(kind)):
                state = dense.setdefault(f"state of {kind.names[at]}", len(dense) - 2)
                nets = [int(kind.pins[p][at]) for p in used]
                states.add([*nets, state], table, state)
                state_clock.append(int(kind.pins[clocks[0]][at]))
                for output in data.outputs:
                    value = truth_table(data.pins[output].function, (data.state, *complement))
                    if value is None:
                        raise LibertyError(f"function of {name}.{output} is not understood")
                    # Of code 01 and 10 only: state and complement differ.
                    copy = (value >> 1 & 1) << 1 | (value >> (2 if complement else 0) & 1)
                    copies.add([state], copy, int(kind.pins[output][at]))
        elif "data_in" in storage:
            latch = library.cells[name].latch
            if latch is None:
                raise LibertyError(f"latch {name} is not understood")
            data_pin, _, output, _ = latch
            pairs = zip(kind.pins[output], kind.pins[data_pin], strict=True)
            latches |= {int(q): int(d) for q, d in pairs}
        else:
            for output in data.outputs:
                function = data.pins[output].function
                table = truth_table(function, data.inputs)
                if table is None or len(data.inputs) > _INPUTS:
                    raise LibertyError(f"function of {name}.{output} is not known: {function!r}")
                for at in range(len(kind)):
                    nets = [int(kind.pins[p][at]) for p in data.inputs]
                    rows.add(nets, table, int(kind.pins[output][at]))
    nets = len(dense) - 2
    logic, clock_nets, inverted, composed = _clock_network(rows, root, latches, gates)
    gates = [*gates, *composed]
    reached = {out for *_, out in gates} | clock_nets
    stray = {c for c in state_clock if c not in reached}
    if stray:
        raise ValueError(
            f"clocks of flip-flops must come from {clock!r}, not from "
            f"{sorted(names.get(n, str(n)) for n in stray)[:3]}"
        )
    table = logic.rows()
    columns = np.array(gates, np.int64).reshape(-1, 4).T
    return GateGraph(
        electrical=electrical,
        blocks=blocks,
        nets=nets,
        net_names=names,
        ports=ports,
        kinds=kinds,
        rows=logic.rows(_levels(table, nets)),
        states=states.rows(),
        state_clock=np.array(state_clock, np.int64),
        copies=copies.rows(),
        gating=Gating(*columns),
        inverted=frozenset(inverted),
        clock=root,
        clock_nets=frozenset(reached),
    )


def _clock_network(
    rows: _Builder, root: int, latches: Mapping[int, int], gates: list[tuple[int, int, int, int]]
) -> tuple[_Builder, set[int], set[int], list[tuple[int, int, int, int]]]:
    """Split logic from what only passes or stops the clock.

    Returns the logic that is left, nets of the clock that always run, those of them that are
    inverted, and gates made of a latch and an AND gate.
    """
    running, inverted = {root}, set[int]()
    gated = {output: clock for clock, _, _, output in gates}
    composed: list[tuple[int, int, int, int]] = []
    taken: set[int] = set()
    changed = True
    while changed:
        changed = False
        for at, (inputs, table, output) in enumerate(
            zip(rows.inputs, rows.tables, rows.outputs, strict=True)
        ):
            if at in taken or not any(net in running for net in inputs):
                continue
            if len(inputs) == 1 and table in (0b10, 0b01):
                running.add(output)
                if (inputs[0] in inverted) != (table == 0b01):
                    inverted.add(output)
            elif len(inputs) == 2 and table == 0b1000 and any(net in latches for net in inputs):
                held = next(net for net in inputs if net in latches)
                clock = next(net for net in inputs if net != held)
                composed.append((clock, latches[held], held, output))
            else:
                raise ValueError("the clock must reach flip-flops, latches and clock gates only")
            taken.add(at)
            changed = True
    del gated
    left = _Builder()
    for at, (inputs, table, output) in enumerate(
        zip(rows.inputs, rows.tables, rows.outputs, strict=True)
    ):
        if at not in taken:
            left.add(inputs, table, output)
    return left, running, inverted, composed
