"""OpenSTA: a netlist's slack by endpoint and its slowest paths."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from synth.electrical import units_of
from synth.gate_graph import ONE, ZERO, GateGraph
from synth.liberty import Library
from synth.loads import Loads

__all__ = ["Endpoint", "StaError", "Stage", "TimingPath", "run_sta", "sta_version"]

_ENDPOINTS = 100_000


class StaError(RuntimeError):
    """OpenSTA is missing, or did not end as it should."""


@dataclass(frozen=True)
class Endpoint:
    """Where a path ends, and its slack."""

    pin: str  #: ``cell/pin`` or a port
    block: str
    slack_ps: float


@dataclass(frozen=True)
class Stage:
    """One cell of a path."""

    cell: str  #: kind
    instance: str
    block: str
    net: str  #: name of the design of what it drives, if it has one
    delay_ps: float
    arrival_ps: float


@dataclass(frozen=True)
class TimingPath:
    """A path from a flip-flop or input to a flip-flop, clock gate or output."""

    start: str
    end: str
    block: str  #: that it ends in
    slack_ps: float
    stages: tuple[Stage, ...]

    @property
    def blocks(self) -> list[str]:
        """Blocks on the way, in order."""
        found: list[str] = []
        for stage in self.stages:
            if not found or found[-1] != stage.block:
                found.append(stage.block)
        return found


@cache
def sta_version() -> str:
    """Version that the program states."""
    program = _program()
    run = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
    match = re.search(r"\d+\.\d+\.\d+", run.stdout + run.stderr)
    return match[0] if match else "unknown"


def _program() -> str:
    program = shutil.which("sta")
    if program is None:
        raise StaError("the program sta is missing (OpenSTA, Debian's package opensta)")
    return program


class _Names:
    """Plain names of cells and nets in the Verilog, and what they stand for."""

    def __init__(self, graph: GateGraph) -> None:
        self.graph = graph
        self.cells: dict[str, tuple[str, str, int]] = {}  # kind, instance, block
        self.by_kind: dict[str, list[str]] = {}
        for kind_name, kind in graph.kinds.items():
            own = self.by_kind.setdefault(kind_name, [])
            for at, instance in enumerate(kind.names):
                name = f"c{len(self.cells)}"
                self.cells[name] = (kind_name, instance, int(kind.blocks[at]))
                own.append(name)

    def block(self, cell: str) -> str:
        return self.graph.blocks[self.cells[cell][2]] if cell in self.cells else "ports"

    def driven(self, cell: str, pin: str) -> str:
        """Name in the design of the net at a cell's pin, without the number of its block."""
        kind_name, instance, _ = self.cells[cell]
        kind = self.graph.kinds[kind_name]
        net = int(kind.pins[pin][kind.names.index(instance)])
        name = self.graph.net_names.get(net, "")
        return re.sub(r"\$\d+(?=\.)", "", name)


def _verilog(graph: GateGraph, names: _Names, top: str) -> str:
    """Structural Verilog: instances and nets with plain names."""

    def net(index: int) -> str:
        return {ZERO: "1'b0", ONE: "1'b1"}.get(index, f"n{index}")

    lines = [f"module {top} ({', '.join(f'p_{name}' for name in graph.ports)});"]
    assigns = []
    for name, port in graph.ports.items():
        width = len(port.nets)
        vector = f"[{width - 1}:0] " if width > 1 else ""
        lines.append(f"  {'output' if port.output else 'input'} {vector}p_{name};")
        for at, index in enumerate(port.nets):
            bit = f"p_{name}[{at}]" if width > 1 else f"p_{name}"
            ends = (bit, net(int(index))) if port.output else (net(int(index)), bit)
            assigns.append(f"  assign {ends[0]} = {ends[1]};")
    lines += [f"  wire n{index};" for index in range(2, graph.nets)]
    lines += assigns
    for kind_name, kind in graph.kinds.items():
        columns = [(pin, nets.tolist()) for pin, nets in kind.pins.items()]
        for at, name in enumerate(names.by_kind[kind_name]):
            pins = ", ".join(f".{pin}({net(nets[at])})" for pin, nets in columns)
            lines.append(f"  {kind_name} {name} ({pins});")
    return "\n".join([*lines, "endmodule\n"])


def _commands(
    folder: Path,
    top: str,
    library: Library,
    *,
    clock: str,
    period_ns: float,
    slew_ns: float,
    output_pf: float,
    loads: Loads | None,
    units: tuple[float, float],
) -> list[str]:
    """Tcl up to the constraints; times and capacitances in the library's units."""
    time, cap = units
    commands = [
        f"read_liberty {library.file}",
        f"read_verilog {folder}/netlist.v",
        f"link_design {top}",
        f"create_clock -name clk -period {period_ns / time:.6g} [get_ports p_{clock}]",
        f"set_clock_transition {slew_ns / time:.6g} [get_clocks clk]",
        "set inputs {}",
        "foreach port [all_inputs] {",
        f'  if {{[get_property $port full_name] ne "p_{clock}"}} {{ lappend inputs $port }}',
        "}",
        "set_input_delay 0 -clock clk $inputs",
        f"set_input_transition {slew_ns / time:.6g} $inputs",
        "set_output_delay 0 -clock clk [all_outputs]",
        f"set_load {output_pf / cap:.6g} [all_outputs]",
    ]
    if loads is not None:
        commands += [
            f"set_load {wire / cap:.6g} [get_nets n{net}]"
            for net, wire in enumerate(loads.wires)
            if wire > 0
        ]
    return commands


_STAGE = re.compile(r"^ *(?:[\d.]+ +)?(-?[\d.]+) +(-?[\d.]+) [v^] (\w+)/(\w+) \((\w+)\)$")


def run_sta(
    graph: GateGraph,
    library: Library,
    *,
    top: str,
    clock: str = "clk",
    period_ns: float,
    slew_ns: float,
    output_pf: float,
    loads: Loads | None,
    worst_of: Sequence[str] | None = None,
) -> tuple[list[Endpoint], list[TimingPath]]:
    """Time a netlist.

    Parameters
    ----------
    graph, library
        The netlist and its cells.
    top, clock
        Its module and the port of its clock, which reaches all at once.
    period_ns
        Period of the clock. Inputs arrive with its edge, outputs are due at the next.
    slew_ns
        Transition of the clock and of inputs.
    output_pf
        Load of outputs.
    loads
        Loads that wires add; none if None.
    worst_of
        Blocks of which the slowest path that ends there is told; all if None.

    Returns
    -------
    endpoints, paths
        Every endpoint, the least slack first; and the slowest path to each block.

    Raises
    ------
    StaError
        OpenSTA is missing or failed; the message says what it said.
    """
    names = _Names(graph)
    units = units_of(library)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "netlist.v").write_text(_verilog(graph, names, top), encoding="utf-8")
        setup = _commands(
            folder,
            top,
            library,
            clock=clock,
            period_ns=period_ns,
            slew_ns=slew_ns,
            output_pf=output_pf,
            loads=loads,
            units=units,
        )
        query = [
            f"foreach end [find_timing_paths -path_delay max -group_count {_ENDPOINTS}] {{",
            '  puts "END [get_full_name [get_property $end endpoint]] [get_property $end slack]"',
            "}",
        ]
        found = []
        for line in _run(folder, [*setup, *query]).splitlines():
            if line.startswith("END "):
                _, pin, slack = line.split()
                cell = pin.partition("/")[0]
                found.append(Endpoint(pin, names.block(cell), float(slack) * units[0] * 1000))
        if not found:
            raise StaError("OpenSTA found no path that ends at a flip-flop or output")
        found.sort(key=lambda end: end.slack_ps)
        worst: dict[str, Endpoint] = {}
        for end in found:
            if worst_of is None or end.block in worst_of:
                worst.setdefault(end.block, end)
        report = []
        for end in worst.values():
            kind = "pins" if "/" in end.pin else "ports"
            report += [
                f'puts "PATH {end.pin}"',
                f"report_checks -to [get_{kind} {{{end.pin}}}] -path_delay max -format full "
                "-fields {slew cap input_pin net} -digits 5",
            ]
        text = _run(folder, [*setup, *report]) if report else ""
    ends = {end.pin: end for end in worst.values()}
    paths = []
    for part in text.split("PATH ")[1:]:
        pin, _, body = part.partition("\n")
        end = ends[pin.strip()]
        paths.append(_path(body, end, names, units[0]))
    return (
        [Endpoint(_shown(end.pin, names), end.block, end.slack_ps) for end in found],
        sorted(paths, key=lambda path: path.slack_ps),
    )


def _shown(pin: str, names: _Names) -> str:
    cell, slash, port = pin.partition("/")
    if not slash:
        return pin.removeprefix("p_")
    kind = names.graph.kinds[names.cells[cell][0]].data
    outputs = [] if port in kind.outputs else [o for o in kind.outputs if kind.storage]
    held = names.driven(cell, outputs[0]) if outputs else ""
    return held or f"{names.cells[cell][1]}/{port}"


def _path(body: str, end: Endpoint, names: _Names, unit: float) -> TimingPath:
    stages: list[Stage] = []
    start = ""
    for line in body.splitlines():
        if line.startswith("Startpoint:"):
            start = line.split()[1]
        if "data arrival time" in line:
            break
        match = _STAGE.match(line)
        if not match:
            continue
        delay, arrival, cell, pin, kind = match.groups()
        if cell not in names.cells or pin not in names.graph.kinds[kind].data.outputs:
            continue
        stages.append(
            Stage(
                cell=kind,
                instance=names.cells[cell][1],
                block=names.block(cell),
                net=names.driven(cell, pin),
                delay_ps=round(float(delay) * unit * 1000, 1),
                arrival_ps=round(float(arrival) * unit * 1000, 1),
            )
        )
    if start in names.cells and stages:
        begin = stages[0].net or stages[0].instance
    else:
        begin = start.removeprefix("p_")
    shown = _shown(end.pin, names)
    return TimingPath(begin, shown, end.block, round(end.slack_ps, 1), tuple(stages))


def _run(folder: Path, commands: Sequence[str]) -> str:
    script = folder / "commands.tcl"
    script.write_text("\n".join([*commands, "exit"]) + "\n", encoding="utf-8")
    run = subprocess.run(
        [_program(), "-exit", str(script)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    text = run.stdout + run.stderr
    errors = [line for line in text.splitlines() if line.startswith("Error")]
    if run.returncode or errors:
        raise StaError("OpenSTA failed:\n" + "\n".join(errors[:10] or text.splitlines()[-10:]))
    return text
