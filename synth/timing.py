"""Timing of a head's netlist: highest clock, slowest path to each block, slack."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from hw.params import HeadParams
from sim.results import ROOT, write_result, write_text_whole
from synth.electrical import read_electrical
from synth.flow import Flow, Mapped, buffer_of, fo4_ps, map_head
from synth.gate_graph import GateGraph, read_graph
from synth.liberty import LibertyError, Library, open_library, truth_table
from synth.loads import ClockTree, Conditions, Loads, Wires, find_loads
from synth.sta import TimingPath, run_sta, sta_version
from synth.yosys import yosys_version

__all__ = [
    "TOOLS",
    "conditions_figures",
    "conditions_of",
    "content_key",
    "flow_figures",
    "library_figures",
    "netlist_figures",
    "run_timing",
    "timing_table",
]

#: Packages whose versions a result records.
TOOLS = ("pyosys", "amaranth", "numpy", "scipy")
#: Periods tried until the slack is next to nothing.
_ROUNDS = 4
_SLACK_PS = 0.5


@cache
def _sources() -> str:
    """Hash of the code that figures depend on."""
    files = [*sorted((ROOT / "synth").glob("*.py"))]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def content_key(*parts: object) -> str:
    """Hash of what a figure depends on, the code that makes it included."""
    text = json.dumps([*map(str, parts), _sources()])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def conditions_of(library: Library, wires: Wires | None = None) -> Conditions:
    """Conditions around a netlist of a library: its clock tree, and loads of four inverters.

    Raises
    ------
    LibertyError
        The library has no buffer with timing tables.
    """
    wires = wires or Wires()
    name = buffer_of(library)
    if name is None:
        raise LibertyError(f"{library.path.name}: no buffer with tables of delays")
    inverter = library.inverters[0]
    data = read_electrical(library, [name, inverter, library.flip_flop]).cells
    tree = ClockTree(buffer=data[name])
    flop = data[library.flip_flop]
    clocked_on = flop.storage["clocked_on"]
    pins = [pin for pin in flop.inputs if truth_table(clocked_on, (pin,)) is not None]
    load = tree.fan_out * flop.pins[pins[0]].cap_pf
    slew = sum(tree.transition_ns(load).values()) / 2
    output_pf = 4 * data[inverter].pins[data[inverter].inputs[0]].cap_pf
    return Conditions(wires=wires, tree=tree, slew_ns=slew, output_pf=output_pf)


def library_figures(library: Library, flow: Flow) -> dict[str, Any]:
    """What a result says of the library."""
    data = read_electrical(library, [library.nand2])
    gate = library.clock_gate if flow.clock_gating else None
    return {
        "name": library.name,
        "files": [path.name for path in library.files],
        "sha256": library.sha256,
        "voltage_v": data.voltage_v,
        "temperature_c": data.temperature_c,
        "gate_equivalent": library.nand2,
        "gate_equivalent_um2": library.gate_equivalent_um2,
        "clock_gate": gate.name if gate else None,
        "fo4_ps": round(fo4_ps(library), 2),
    }


def flow_figures(flow: Flow, mapped: Mapped) -> dict[str, Any]:
    """What a result says of how the head was mapped."""
    return asdict(flow) | {"clock_ps": mapped.clock_ps, "yosys": yosys_version()}


def conditions_figures(conditions: Conditions) -> dict[str, Any]:
    """Assumptions of a result, by name."""
    wires, tree = conditions.wires, conditions.tree
    return {
        "wires": {
            "model": "Donath 1979: mean length of a connection in pitches of cells",
            "rent": wires.rent,
            "cap_ff_per_um": wires.cap_ff_per_um,
        },
        "clock_tree": {
            "buffer": tree.buffer.name,
            "fan_out": tree.fan_out,
            "steiner": tree.steiner,
            "transition_ps": round(1000 * conditions.slew_ns, 1),
            "skew": "none",
        },
        "inputs": "with the edge of the clock, transition as of the clock",
        "outputs": f"due at the next edge, load {1000 * conditions.output_pf:.2f} fF each",
    }


def netlist_figures(graph: GateGraph, library: Library) -> dict[str, Any]:
    """Cells and area of a netlist, and by block."""

    def row() -> dict[str, Any]:
        return {
            "area_um2": 0.0,
            "gate_equivalents": 0.0,
            "cells": 0,
            "flip_flops": 0,
            "buffers": 0,
            "clock_gates": 0,
        }

    blocks = {name: row() for name in graph.blocks}
    buffers = set(library.buffers)
    flop_um2 = library.cells[library.flip_flop].area_um2 or 0.0
    gate_of = {int(net) for net in graph.gating.output}
    for name, kind in graph.kinds.items():
        cell = library.cells[name]
        # A latch of no stated area counts as the smallest flip-flop, which is larger.
        area = cell.area_um2 or (flop_um2 if cell.latch else 0.0)
        outputs = [set(map(int, kind.pins[pin])) & gate_of for pin in kind.data.outputs]
        for at in kind.blocks:
            figures = blocks[graph.blocks[int(at)]]
            figures["area_um2"] += area
            figures["cells"] += 1
            figures["flip_flops"] += cell.flip_flop
            figures["buffers"] += name in buffers
        if any(outputs):
            for pin in kind.data.outputs:
                for net, at in zip(kind.pins[pin], kind.blocks, strict=True):
                    blocks[graph.blocks[int(at)]]["clock_gates"] += int(net) in gate_of
    total = row()
    for figures in blocks.values():
        for name in total:
            total[name] += figures[name]
    for figures in (*blocks.values(), total):
        figures["area_um2"] = round(figures["area_um2"], 4)
        figures["gate_equivalents"] = round(figures["area_um2"] / library.gate_equivalent_um2, 1)
    return total | {"blocks": blocks}


def _path_figures(path: TimingPath) -> dict[str, Any]:
    return {
        "from": path.start,
        "to": path.end,
        "block": path.block,
        "blocks": path.blocks,
        "slack_ps": path.slack_ps,
        "delay_ps": path.stages[-1].arrival_ps if path.stages else 0.0,
        "stages": [asdict(stage) for stage in path.stages],
    }


def _timed(
    graph: GateGraph, library: Library, mapped: Mapped, conditions: Conditions, loads: Loads | None
) -> dict[str, Any]:
    """Highest clock, slacks at the period it was mapped for, slowest paths at the highest clock."""

    def run(period_ps: float, paths: bool) -> Any:
        return run_sta(
            graph,
            library,
            top=mapped.top,
            period_ns=period_ps / 1000,
            slew_ns=conditions.slew_ns,
            output_pf=conditions.output_pf,
            loads=loads,
            worst_of=None if paths else (),
        )

    ends, _ = run(mapped.clock_ps, False)
    slack_ps = ends[0].slack_ps
    blocks: dict[str, float] = {}
    for end in ends:
        blocks.setdefault(end.block, round(end.slack_ps, 1))
    # A path through a latch begins at the other edge: its slack does not follow the period.
    period_ps, slack = mapped.clock_ps, slack_ps
    for _ in range(_ROUNDS):
        if abs(slack) <= _SLACK_PS:
            break
        period_ps -= slack
        slack = run(period_ps, False)[0][0].slack_ps
    _, paths = run(period_ps, True)
    return {
        "fmax_mhz": round(1e6 / period_ps, 2),
        "period_ps": round(period_ps, 1),
        "slack_ps": round(slack_ps, 1),
        "slacks_ps": blocks,
        "paths": [_path_figures(path) for path in paths],
    }


def run_timing(
    params: HeadParams,
    *,
    liberty: Any = None,
    flow: Flow | None = None,
    wires: Wires | None = None,
    report_dir: Path | None = None,
    cache_dir: Path | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Map a head and time its netlist; writes ``timing.json``.

    Parameters
    ----------
    params
        The head.
    liberty
        File or files of the library of cells; OSU 0.18 µm if None.
    flow
        How the head is mapped.
    wires
        Wires assumed; the highest clock is also told without any.
    report_dir, cache_dir
        Folders of results and of what is kept; ``build/report`` and ``build/cache`` by default.
    on_stage
        Called with what happens next, in a few words.

    Returns
    -------
    dict
        The figures, as in ``timing.json``.

    Raises
    ------
    LibertyError
        The library lacks something; the message says what.
    StaError
        OpenSTA is missing or failed.
    YosysError
        A script failed.
    """
    stage = on_stage or (lambda _: None)
    flow = flow or Flow()
    cache_dir = cache_dir or ROOT / "build" / "cache"
    library = open_library(liberty, cache_dir=cache_dir)
    stage(f"mapping to {library.name}")
    mapped = map_head(
        params,
        library,
        flow,
        cache_dir=cache_dir,
        on_progress=lambda done, all_: stage(f"mapping to {library.name}: block {done} of {all_}"),
    )
    conditions = conditions_of(library, wires)
    key = content_key("timing", mapped.key, sta_version(), conditions_figures(conditions))
    kept = cache_dir / f"timing-{key}.json"
    if kept.exists():
        figures = json.loads(kept.read_text(encoding="utf-8"))
    else:
        stage("timing")
        graph = read_graph(mapped.json, library, top=mapped.top)
        loads = find_loads(graph, conditions.wires, conditions.output_pf)
        figures = netlist_figures(graph, library)
        timed = _timed(graph, library, mapped, conditions, loads)
        for block, slack in timed.pop("slacks_ps").items():
            figures["blocks"].setdefault(block, {})["slack_ps"] = slack
        stage("timing without wires")
        bare = _timed(graph, library, mapped, conditions, None)
        names = ("fmax_mhz", "period_ps", "slack_ps")
        figures |= timed | {"no_wires": {name: bare[name] for name in names}}
        figures["no_wires"]["paths"] = bare["paths"][:1]
        write_text_whole(kept, json.dumps(figures) + "\n")
    result = {
        "library": library_figures(library, flow),
        "flow": flow_figures(flow, mapped),
        "opensta": sta_version(),
        **figures,
        "assumptions": conditions_figures(conditions),
        "netlist": mapped.key,
        "params": params.as_dict(),
        "config_hash": params.config_hash,
    }
    write_result(
        "timing", result, config_hash=params.config_hash, tools=TOOLS, report_dir=report_dir
    )
    return result


def timing_table(result: Mapping[str, Any]) -> Table:
    """Table of a timing result: blocks, and the slowest path to each."""
    library, flow, bare = result["library"], result["flow"], result["no_wires"]
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"Timing on {library['name']}: {result['fmax_mhz']:,.0f} MHz with the wires assumed, "
        f"{bare['fmax_mhz']:,.0f} MHz without",
        caption=f"mapped for {flow['clock_ps']:,.0f} ps, {result['cells']:,} cells, "
        f"{result['area_um2']:,.0f} µm²; before layout; configuration {result['config_hash']}",
    )
    for column in ("ends in", "slack\nps", "path\nps", "cells"):
        table.add_column(column, justify="left" if column == "ends in" else "right")
    table.add_column("from")
    table.add_column("to")
    for path in result["paths"]:
        table.add_row(
            path["block"],
            f"{path['slack_ps']:,.0f}",
            f"{path['delay_ps']:,.0f}",
            str(len(path["stages"])),
            path["from"],
            path["to"],
        )
    return table
