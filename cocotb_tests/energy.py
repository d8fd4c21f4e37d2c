"""Energy per token and head: a netlist of cells at work on real tokens; the host side."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from cocotb_tests.record import Plan, record_ports
from hw.params import HeadParams
from sim.results import ROOT, write_result, write_text_whole
from synth.activity import PHASES, Recording, simulate, transitions_with_delays
from synth.flow import Flow, map_head
from synth.gate_graph import read_graph
from synth.liberty import open_library
from synth.loads import Conditions, Wires, find_loads, transitions
from synth.power import PARTS, EnergyModel, statistics
from synth.timing import (
    TOOLS,
    conditions_figures,
    conditions_of,
    content_key,
    run_timing,
)

__all__ = ["DELAYED", "energy_table", "run_energy"]

#: Tokens that are simulated with delays as well, and from which shares of causes are taken.
DELAYED = 64
#: What delays are rounded to, in FO4 delays.
_TICK_FO4 = 1 / 8
_MHZ = 1000.0
_DIGITS = 4


def run_energy(
    params: HeadParams,
    *,
    liberty: Any = None,
    flow: Flow | None = None,
    wires: Wires | None = None,
    plan: Plan | None = None,
    seed: int = 0,
    report_dir: Path | None = None,
    cache_dir: Path | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Simulate a head's netlist with real tokens and sum the energy of its transitions.

    The source passes the tokens first, with the array models around it; the netlist gets the same
    inputs and must give the same outputs, in every clock. Writes ``energy.json``, and
    ``timing.json`` on the way.

    Parameters
    ----------
    params
        The head.
    liberty
        File or files of the library of cells; OSU 0.18 µm if None.
    flow
        How the head is mapped; its hierarchy must be kept.
    wires
        Wires assumed.
    plan
        What passes through the head; a full window and 256 tokens by default.
    seed
        Picks the place in the text.
    report_dir, cache_dir
        Folders of results and of what is kept; ``build/report`` and ``build/cache`` by default.
    on_stage
        Called with what happens next, in a few words.

    Returns
    -------
    dict
        The figures, as in ``energy.json``.

    Raises
    ------
    ValueError
        The hierarchy is not kept, so that energy has no blocks.
    LibertyError
        The library lacks something; the message says what.
    NetlistError
        Netlist and source differ.
    SimulationError, StaError, YosysError
        A tool failed.
    """
    stage = on_stage or (lambda _: None)
    flow = flow or Flow()
    if flow.hierarchy != "kept":
        raise ValueError(f"hierarchy must be 'kept' for energy by block, not {flow.hierarchy!r}")
    plan = plan or Plan(fill=params.window, stream=256)
    cache = cache_dir or ROOT / "build" / "cache"
    options = {"liberty": liberty, "flow": flow, "wires": wires, "cache_dir": cache}
    timing = run_timing(params, report_dir=report_dir, on_stage=stage, **options)
    library = open_library(liberty, cache_dir=cache)
    mapped = map_head(params, library, flow, cache_dir=cache)
    conditions = conditions_of(library, wires)
    recording = record_ports(params, plan, seed=seed, cache_dir=cache, on_stage=stage)
    key = content_key("energy", mapped.key, recording.key, conditions_figures(conditions))
    kept = cache / f"energy-{key}.json"
    if kept.exists():
        figures = json.loads(kept.read_text(encoding="utf-8"))
    else:
        stage("simulating the netlist")
        graph = read_graph(mapped.json, library, top=mapped.top)
        tick_ns = timing["library"]["fo4_ps"] * _TICK_FO4 / 1000
        figures = _measure(graph, recording, conditions, tick_ns, stage)
        write_text_whole(kept, json.dumps(figures) + "\n")
    clock_mhz = min(_MHZ, timing["fmax_mhz"])
    result = {
        "library": timing["library"],
        "flow": timing["flow"],
        "clock_mhz": clock_mhz,
        **_per_token(figures, clock_mhz, params.heads),
        "window_filled_with": plan.fill,
        "plan": asdict(plan),
        "seed": seed,
        "assumptions": timing["assumptions"],
        "netlist": mapped.key,
        "params": params.as_dict(),
        "config_hash": params.config_hash,
    }
    write_result(
        "energy",
        result,
        config_hash=params.config_hash,
        tools=(*TOOLS, "cocotb", "verilator"),
        report_dir=report_dir,
    )
    return result


def _measure(
    graph: Any,
    recording: Recording,
    conditions: Conditions,
    tick_ns: float,
    stage: Callable[[str], None],
) -> dict[str, Any]:
    """Energies by block and part, leakage apart; pJ and nW, of all heads together."""

    def counted(text: str) -> Callable[[int, int], None]:
        return lambda done, of: stage(f"{text}: clock {done:,} of {of:,}")

    streaming = recording.streaming()
    history = simulate(
        graph,
        recording,
        keep_from=streaming.start - 1,
        on_progress=counted("simulating the netlist"),
    )
    loads = find_loads(graph, conditions.wires, conditions.output_pf)
    slews = transitions(graph, loads, conditions.slew_ns)
    short = recording.streaming(min(DELAYED, recording.stream))
    model = EnergyModel(graph, loads, slews, conditions, statistics(history, short))
    by_clock = model.by_clock(history, streaming, counted("energy"))
    moved = transitions_with_delays(
        history,
        short,
        slews,
        tick_ns=tick_ns,
        on_progress=counted("simulating the netlist with delays"),
    )
    settled = np.zeros(graph.nets, np.int64)
    for clock in short:
        before, after = history.values(range(clock - 1, clock + 1))
        settled += before != after
    glitches = model.of_transitions(moved - settled).sum(axis=1)
    idle = model.by_clock(history, recording.idle)
    phases, lengths = _phases(model, history, recording, float(idle.sum(axis=(1, 2)).mean()))
    tokens = by_clock.reshape(recording.stream, -1, *by_clock.shape[1:]).sum(axis=1)
    count = min(DELAYED, recording.stream)
    return {
        "blocks": list(graph.blocks),
        "tokens": recording.stream,
        "clocks": len(streaming),
        "clocks_compared": recording.clocks,
        "outputs_compared": int(sum(len(p.nets) for p in graph.ports.values() if p.output)),
        "by_block": tokens.mean(axis=0).tolist(),
        "glitches": (glitches / count).tolist(),
        "delayed": count,
        "token_pj": tokens.sum(axis=(1, 2)).round(2).tolist(),
        "by_clock_pj": _folded(by_clock.sum(axis=(1, 2)), recording.stream),
        "idle": idle.mean(axis=0).tolist(),
        "leakage_nw": model.leakage_nw.tolist(),
        "phases": phases,
        "phase_clk": lengths,
    }


def _folded(energy: NDArray[np.float64], tokens: int) -> list[float]:
    """Mean energy of each clock of the interval."""
    folded: list[float] = energy.reshape(tokens, -1).mean(axis=0).round(2).tolist()
    return folded


def _phases(
    model: EnergyModel, history: Any, recording: Recording, idle_pj: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Energy above idle of a token alone in the head, by phase, and clocks of each; means."""
    names = (*PHASES, "between")
    energy, clocks = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for alone in recording.singly:
        own = model.by_clock(history, alone).sum(axis=(1, 2)) - idle_pj
        for phase, pj in zip(recording.phases(alone), own, strict=True):
            energy[phase] += float(pj) / recording.alone
            clocks[phase] += 1 / recording.alone
    return energy, clocks


def _per_token(figures: Mapping[str, Any], clock_mhz: float, heads: int) -> dict[str, Any]:
    """Figures of the result from what was measured: per token and head."""
    interval = figures["clocks"] / figures["tokens"]
    tokens = np.array(figures["token_pj"])
    window = tokens[: figures["delayed"]]
    # Glitches were counted in a part of the tokens: in the others they are in proportion.
    ratio = float(tokens.mean() / window.mean())
    leakage = np.array(figures["leakage_nw"])
    leakage_pj = leakage * 1e-3 * interval / clock_mhz  # nW times µs is fJ
    rows = np.array(figures["by_block"])
    glitches = np.array(figures["glitches"]) * ratio
    blocks = {}
    for at, name in enumerate(figures["blocks"]):
        parts = dict(zip(PARTS, rows[at], strict=True))
        parts |= {"glitches": glitches[at], "leakage": leakage_pj[at]}
        parts = {part: round(float(pj) / heads, _DIGITS) for part, pj in parts.items()}
        blocks[name] = {"energy_pj": round(sum(parts.values()), _DIGITS), "parts": parts}
    names = ("clock_tree", "clock_pins", "internal", "pins", "wires", "glitches", "leakage")
    total = float(rows.sum() + glitches.sum() + leakage_pj.sum()) / heads
    idle_pj = float(np.sum(figures["idle"]))
    leakage_mw = float(leakage.sum()) * 1e-6
    error = abs(float(window.mean() / tokens.mean()) - 1)
    return {
        "tokens": figures["tokens"],
        "clocks": figures["clocks"],
        "interval_clk": interval,
        "energy_pj": round(total, _DIGITS),
        "parts": {
            part: round(sum(block["parts"][part] for block in blocks.values()), _DIGITS)
            for part in names
        },
        "blocks": blocks,
        "glitch_share": round(float(glitches.sum()) / heads / total, 4),
        "power_mw": round(total * heads / interval * clock_mhz * 1e-3, _DIGITS),
        "by_clock_pj": [round(pj / heads, _DIGITS) for pj in figures["by_clock_pj"]],
        "phases": {name: round(pj / heads, _DIGITS) for name, pj in figures["phases"].items()},
        "phase_clk": figures["phase_clk"],
        "idle": {
            "energy_pj_per_clk": round(idle_pj / heads, _DIGITS),
            "power_mw": round((idle_pj * clock_mhz * 1e-3 + leakage_mw) / heads, 6),
            "leakage_mw": round(leakage_mw / heads, 6),
        },
        "sample": {
            "tokens": figures["delayed"],
            "energy_pj": round(float(window.mean()) / heads, _DIGITS),
            "of_tokens": figures["tokens"],
            "of_energy_pj": round(float(tokens.mean()) / heads, _DIGITS),
            "error": round(error, 5),
            "token_spread": round(float(tokens.std() / tokens.mean()), 5),
        },
        "compared": {
            "clocks": figures["clocks_compared"],
            "outputs": figures["outputs_compared"],
            "differences": 0,
        },
    }


def energy_table(result: Mapping[str, Any]) -> Table:
    """Table of an energy result: blocks by energy, with its causes."""
    parts = list(result["parts"])
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"Energy per token and head on {result['library']['name']}, pJ",
        caption=f"{result['tokens']} tokens, every {result['interval_clk']:g} clocks, window "
        f"filled with {result['window_filled_with']}; idle "
        f"{result['idle']['energy_pj_per_clk']:,.1f} pJ a clock; first "
        f"{result['sample']['tokens']} tokens differ by {result['sample']['error']:.1%}; before "
        f"layout; configuration {result['config_hash']}",
    )
    table.add_column("block", no_wrap=True)
    for column in ("all", *(part.replace("_", "\n") for part in parts)):
        table.add_column(column, justify="right", no_wrap=True)
    rows = sorted(result["blocks"].items(), key=lambda row: -row[1]["energy_pj"])
    for name, block in rows:
        cells = [block["energy_pj"], *(block["parts"][part] for part in parts)]
        table.add_row(name, *(f"{pj:,.1f}" for pj in cells))
    table.add_section()
    cells = [result["energy_pj"], *(result["parts"][part] for part in parts)]
    table.add_row("whole head", *(f"{pj:,.1f}" for pj in cells), style="bold")
    return table


def phase_table(result: Mapping[str, Any]) -> Table:
    """Table of a token alone in the head, by phase."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title="A token alone in the head, by phase, above idle",
    )
    table.add_column("phase")
    for column in ("clocks", "pJ"):
        table.add_column(column, justify="right")
    for name, pj in result["phases"].items():
        table.add_row(name, f"{result['phase_clk'][name]:g}", f"{pj:,.1f}")
    return table
