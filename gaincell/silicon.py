"""Commands about silicon: timing and energy of a head's netlist."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from hw.params import HeadParams
from synth.flow import Flow
from synth.loads import Wires

__all__ = [
    "ClockOption",
    "EffortOption",
    "GatingOption",
    "HierarchyOption",
    "WireOption",
    "flow_of",
    "show_energy",
    "show_equivalence",
    "show_timing",
    "wires_of",
]

ClockOption = Annotated[
    float | None,
    typer.Option("--clock", metavar="PS", help="Period to map for; 60 FO4 delays if left out."),
]
EffortOption = Annotated[str, typer.Option("--effort", help="fast, normal or high.")]
HierarchyOption = Annotated[
    str, typer.Option("--hierarchy", help="kept: blocks by themselves; flat: all at once.")
]
GatingOption = Annotated[
    bool, typer.Option("--clock-gating/--no-clock-gating", help="Stop the clock where it can be.")
]
WireOption = Annotated[
    float, typer.Option("--wire", metavar="FF", min=0.0, help="Capacitance of wires, fF per µm.")
]


def flow_of(clock_ps: float | None, effort: str, hierarchy: str, gating: bool, wire: float) -> Flow:
    """How a head is to be mapped."""
    return Flow(
        clock_ps=clock_ps,
        effort=effort,
        hierarchy=hierarchy,
        clock_gating=gating,
        wire_ff_per_um=wire,
    )


def wires_of(cap_ff_per_um: float) -> Wires:
    """Wires as asked for."""
    return Wires(cap_ff_per_um=cap_ff_per_um)


def show_timing(
    console: Console, params: HeadParams, liberty: Sequence[Path] | None, flow: Flow, wires: Wires
) -> None:
    """Run the job and show its table."""
    from synth.timing import run_timing, timing_table

    with console.status("timing") as status:
        result = run_timing(
            params,
            liberty=liberty,
            flow=flow,
            wires=wires,
            on_stage=lambda text: status.update(text),
        )
    console.print(timing_table(result))


def show_energy(
    console: Console,
    params: HeadParams,
    liberty: Sequence[Path] | None,
    flow: Flow,
    wires: Wires,
    tokens: int,
    seed: int,
) -> None:
    """Run the job and show its tables."""
    from cocotb_tests.energy import energy_table, phase_table, run_energy
    from cocotb_tests.record import Plan

    with console.status("energy") as status:
        result = run_energy(
            params,
            liberty=liberty,
            flow=flow,
            wires=wires,
            plan=Plan(fill=params.window, stream=tokens),
            seed=seed,
            on_stage=lambda text: status.update(text),
        )
    console.print(energy_table(result))
    console.print(phase_table(result))


def show_equivalence(console: Console, liberty: Sequence[Path] | None) -> None:
    """Run the job and show its table."""
    from synth.equivalence import run_equivalence

    table = Table(title="Netlists proved equal to their sources, from the reset on")
    columns = ("head", "cells", "flip_flops", "clock_gates", "seconds")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="left" if column == "head" else "right")
    with console.status("equivalence") as status:
        rows = run_equivalence(liberty=liberty, on_stage=lambda text: status.update(text))
    for row in rows:
        table.add_row(row["head"], *(f"{row[column]:,g}" for column in columns[1:]))
    console.print(table)
