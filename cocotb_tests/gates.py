"""Gate-level simulation: a netlist of library cells does what its source does; the host side."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cocotb_tests.cosim import saturation
from cocotb_tests.runner import (
    SIMULATION_TOOLS,
    SimulationError,
    build_simulation,
    prepare_head,
    run_folder,
    run_simulation,
)
from hw.params import HeadParams
from hw.presets import PRESETS
from sim.results import ROOT, write_result
from synth.gates import cells_of, write_gates
from synth.liberty import LibertyError, open_library

__all__ = ["GATE_HEADS", "run_gates"]

_BARE = {"sinks": 0, "age_bits": 0, "trim_bits": 0, "result_slots": 2}
#: Small enough for a simulator of gates: with every feature, with none, and several heads.
GATE_HEADS: Mapping[str, HeadParams] = {
    "tiny": PRESETS["tiny"],
    "tiny-layer": PRESETS["tiny-layer"],
    "tiny without features": dataclasses.replace(
        PRESETS["tiny"], **_BARE, shots=False, refresh=False, self_test=False
    ),
}


def run_gates(
    heads: Mapping[str, HeadParams] = GATE_HEADS,
    *,
    packets: int = 300,
    seed: int = 0,
    liberty: Path | None = None,
    report_dir: Path | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Synthesise heads to cells and simulate netlist and source with the same packets.

    Every flip-flop of the netlist is unknown at power-up; after the reset no output that means
    something may be. Answers are compared with the functional models, those of the netlist with
    those of the source, and so are the clocks in which they leave. Delays are not simulated.
    Writes ``gates.json``.

    Parameters
    ----------
    heads
        Small heads or layers by name.
    packets
        Packets to send, at least 1.
    seed
        The same packets, stalls, resets and accesses for the same seed.
    liberty
        Cell library with a Verilog file of the same name beside it; OSU 0.18 µm by default.
    report_dir
        Folder of the report; ``build/report`` by default.
    on_stage
        Called with what happens next, in a few words.

    Returns
    -------
    list
        Figures of each head, as written to ``gates.json``.

    Raises
    ------
    ValueError
        ``packets`` is out of range.
    LibertyError
        There is no such library, or no Verilog of its cells.
    SimulationError
        A simulation failed, or netlist and source differ; nothing is written then.
    """
    if packets < 1:
        raise ValueError(f"packets must be at least 1, not {packets!r}")
    stage = on_stage or (lambda _: None)
    library = open_library(liberty)
    models = library.path.with_suffix(".v")
    if not models.is_file():
        raise LibertyError(f"{models}, which simulates the library's cells, is missing")
    rows = []
    for name, params in heads.items():
        stage(f"{name}: synthesis")
        folder = ROOT / "build" / "sim" / f"gates-{params.config_hash}"
        netlist = write_gates(params, folder / f"{params.top}.v", library)
        builds = {
            "gates": build_simulation(netlist, "icarus", top=params.top, models=models),
            "source": prepare_head(params, "icarus"),
        }
        found = {}
        for kind, build in builds.items():
            stage(f"{name}: simulation of the {kind}")
            with run_folder(f"gates-{params.config_hash}-") as scratch:
                job = {
                    "params": params.as_dict(),
                    "seed": seed,
                    "packets": packets,
                    "analog": saturation(params),
                    "figures": str(scratch / "figures"),
                }
                run_simulation(build, "icarus", "cocotb_tests.gates_run", job, run_dir=scratch)
                found[kind] = json.loads((scratch / "figures").read_text(encoding="utf-8"))
        own = {kind: found[kind].pop("seconds") for kind in found}
        gates, source = found["gates"], found["source"]
        if not gates.pop("unknown_at_power_up") or source.pop("unknown_at_power_up"):
            raise SimulationError(f"{name}: of netlist and source, one must begin unknown")
        if gates != source:
            differ = sorted(key for key in gates if gates[key] != source.get(key))
            raise SimulationError(f"{name}: netlist and source differ in {', '.join(differ)}")
        cells = cells_of(netlist.read_text(encoding="utf-8"))
        flip_flops = sum(n for cell, n in cells.items() if library.cells[cell].flip_flop)
        rows.append(
            {
                "head": name,
                "config_hash": params.config_hash,
                "cells": sum(cells.values()),
                "flip_flops": flip_flops,
                **gates,
                "seconds": own,
                "params": params.as_dict(),
            }
        )
    write_result(
        "gates",
        {"rows": rows, "library": library.name, "seed": seed, "simulator": "icarus"},
        config_hash=rows[0]["config_hash"],
        tools=SIMULATION_TOOLS,
        report_dir=report_dir,
    )
    return rows
