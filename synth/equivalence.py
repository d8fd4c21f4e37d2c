"""Formal equivalence of a netlist of cells and its source, from the reset on.

ABC's signal correspondence finds which nets of both are equal in every state that can be reached
and proves it by induction; no names are compared, and registers may have been merged or dropped.
A flip-flop behind a clock gate is one that takes its next value where the enable is high.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyosys

from hw.layer import AttentionLayer
from hw.params import HeadParams
from hw.presets import PRESETS
from sim.results import ROOT, write_result
from synth.flow import Flow, map_head
from synth.gate_graph import ONE, ZERO, GateGraph, read_graph
from synth.liberty import open_library
from synth.verilog import component_rtlil
from synth.yosys import run_yosys

__all__ = ["EQUIVALENT_HEADS", "EquivalenceError", "functional_verilog", "run_equivalence"]

#: Small enough to be proved in a minute each.
EQUIVALENT_HEADS: Mapping[str, HeadParams] = {
    "simple": HeadParams(subtiles=1, columns=2, rows=2, lanes=2, bus_bits=32),
    "streaming": HeadParams(
        subtiles=2, columns=4, rows=4, lanes=4, bus_bits=32, schedule="streaming"
    ),
    "tiny": PRESETS["tiny"],
}


class EquivalenceError(RuntimeError):
    """Netlist and source are not proved equal; the message is what ABC said last."""


def functional_verilog(graph: GateGraph, top: str) -> str:
    """Verilog of what a netlist's cells do: their functions, and flip-flops with enables.

    Parameters
    ----------
    graph
        The netlist.
    top
        Name for the module.
    """
    registers = {int(net) for net in graph.states.outputs}
    lines = [f"module {top} ({', '.join(graph.ports)});"]
    for port_name, port in graph.ports.items():
        flow = "output" if port.output else "input"
        lines.append(f"  {flow} [{len(port.nets) - 1}:0] {port_name};")
    lines += [f"  {'reg' if net in registers else 'wire'} n{net};" for net in range(2, graph.nets)]
    for port_name, port in graph.ports.items():
        for at, net in enumerate(port.nets):
            bit = f"{port_name}[{at}]"
            left, right = (bit, _net(net)) if port.output else (_net(net), bit)
            lines.append(f"  assign {left} = {right};")
    for rows in (graph.rows, graph.copies):
        for inputs, arity, table, output in zip(
            rows.inputs, rows.arity, rows.tables, rows.outputs, strict=True
        ):
            lines.append(f"  assign n{output} = {_function(int(table), inputs[:arity])};")
    gates = {int(net): at for at, net in enumerate(graph.gating.output)}

    def enable(net: int) -> list[str]:
        if net not in gates:
            return []
        at = gates[net]
        return [_net(graph.gating.enable[at]), *enable(int(graph.gating.clock[at]))]

    states = graph.states
    for inputs, arity, table, output, clock in zip(
        states.inputs, states.arity, states.tables, states.outputs, graph.state_clock, strict=True
    ):
        open_ = " & ".join(enable(int(clock))) or "1'b1"
        value = _function(int(table), inputs[:arity])
        lines.append(f"  always @(posedge clk) if ({open_}) n{output} <= {value};")
    return "\n".join([*lines, "endmodule\n"])


def _net(net: int) -> str:
    return f"1'b{net}" if net in (ZERO, ONE) else f"n{net}"


def _function(table: int, inputs: Sequence[int]) -> str:
    """A truth table as a sum of products, of the function or of its complement."""
    size = 1 << len(inputs)
    ones = [code for code in range(size) if table >> code & 1]
    zeros = [code for code in range(size) if not table >> code & 1]
    if not ones or not zeros:
        return f"1'b{int(not zeros)}"
    codes, sign = (ones, "") if len(ones) <= len(zeros) else (zeros, "~")
    products = (
        " & ".join(("" if code >> j & 1 else "~") + _net(net) for j, net in enumerate(inputs))
        for code in codes
    )
    return f"{sign}({' | '.join(f'({product})' for product in products)})"


def _both(graph: GateGraph) -> str:
    """Verilog of source and netlist side by side: reset first, then their outputs compared."""
    ports = {name: f"[{len(port.nets) - 1}:0]" for name, port in graph.ports.items()}
    outputs = [name for name, port in graph.ports.items() if port.output]
    inputs = [name for name in ports if name not in (*outputs, "clk", "rst")]
    lines = [
        f"module both (clk, rst, differ, {', '.join(inputs)});",
        "  input clk, rst;",
        *(f"  input {ports[name]} {name};" for name in inputs),
        "  output differ;",
        "  reg started;",
        "  always @(posedge clk) started <= 1'b1;",
        "  wire reset = rst | ~started;",
    ]
    for module in ("source", "netlist"):
        lines += [f"  wire {ports[name]} \\{module}.{name} ;" for name in outputs]
        pins = [".clk(clk)", ".rst(reset)", *(f".{name}({name})" for name in inputs)]
        pins += [f".{name}(\\{module}.{name} )" for name in outputs]
        lines.append(f"  {module} {module}_ ({', '.join(pins)});")
    source, netlist = (
        ", ".join(f"\\{module}.{name} " for name in outputs) for module in ("source", "netlist")
    )
    lines += [f"  assign differ = started & ({{{source}}} != {{{netlist}}});", "endmodule\n"]
    return "\n".join(lines)


def prove_netlist(
    params: HeadParams, *, liberty: Any = None, flow: Flow | None = None, cache_dir: Path | None
) -> dict[str, Any]:
    """Map a head and prove that from the reset on the netlist's outputs are its source's.

    Flip-flops of both begin with 0; what a reset does not reach has no other value in either.

    Returns
    -------
    dict
        ``flip_flops``, ``clock_gates`` and ``cells`` of the netlist, ``seconds``.

    Raises
    ------
    EquivalenceError
        They differ, or it cannot be proved.
    """
    start = time.monotonic()
    library = open_library(liberty, cache_dir=cache_dir)
    mapped = map_head(params, library, flow, cache_dir=cache_dir)
    graph = read_graph(mapped.json, library, top=mapped.top)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rtlil = component_rtlil(AttentionLayer(params), params.top)
        (folder / "source.il").write_text(rtlil, encoding="utf-8")
        (folder / "netlist.v").write_text(functional_verilog(graph, "netlist"), encoding="utf-8")
        (folder / "both.v").write_text(_both(graph), encoding="utf-8")
        run_yosys(
            f"read_rtlil {folder}/source.il",
            f"hierarchy -check -top {params.top}",
            "proc",
            "flatten",
            "memory_map",
            "rename -top source",
            f"read_verilog {folder}/netlist.v",
            f"read_verilog {folder}/both.v",
            "hierarchy -check -top both",
            "proc",
            "flatten",
            "setattr -unset init w:*",
            "opt_clean -purge",
            "dffunmap",
            "simplemap",
            "techmap",
            "setundef -zero",
            "setundef -zero -init",
            "aigmap",
            "opt_clean",
            f"write_aiger -zinit {folder}/both.aig",
        )
        abc = Path(pyosys.__file__).parent / "yosys-abc"
        script = (
            f"read_aiger {folder}/both.aig; strash; scorr; dc2; scorr -F 2; dprove; print_status"
        )
        run = subprocess.run(
            [str(abc), "-c", script], capture_output=True, text=True, check=False, cwd=folder
        )
    if "Status = 1" not in run.stdout:
        said = "\n".join(run.stdout.splitlines()[-5:])
        raise EquivalenceError(f"{params.top}: netlist and source are not proved equal:\n{said}")
    return {
        "config_hash": params.config_hash,
        "cells": sum(map(len, graph.kinds.values())),
        "flip_flops": len(graph.states),
        "clock_gates": len(graph.gating.output),
        "seconds": round(time.monotonic() - start, 1),
    }


def run_equivalence(
    heads: Mapping[str, HeadParams] = EQUIVALENT_HEADS,
    *,
    liberty: Any = None,
    report_dir: Path | None = None,
    cache_dir: Path | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Prove small heads' netlists equal to their sources; writes ``equivalence.json``.

    Parameters
    ----------
    heads
        Heads by name.
    liberty
        File or files of the library of cells; OSU 0.18 µm if None.
    report_dir, cache_dir
        Folders of results and of what is kept; ``build/report`` and ``build/cache`` by default.
    on_stage
        Called with what happens next, in a few words.

    Raises
    ------
    EquivalenceError
        A head's netlist and source differ, or it cannot be proved.
    """
    stage = on_stage or (lambda _: None)
    cache = cache_dir or ROOT / "build" / "cache"
    rows = []
    for name, params in heads.items():
        stage(f"{name}: netlist and source")
        rows.append({"head": name, **prove_netlist(params, liberty=liberty, cache_dir=cache)})
    write_result(
        "equivalence",
        {"rows": rows, "library": open_library(liberty, cache_dir=cache).name},
        config_hash=rows[0]["config_hash"],
        tools=("pyosys", "amaranth"),
        report_dir=report_dir,
    )
    return rows
