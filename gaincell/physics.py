"""The subcommand that simulates the transistors: options in, campaign, tables out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from analog_models.device import DevicePreset
from sim.results import ROOT, write_text_whole

__all__ = ["characterise"]

console = Console()


def characterise(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer points and draws.")] = False,
    corner: Annotated[
        list[str] | None, typer.Option("--corner", help="tt, ss or ff; all if not given.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Simulations at a time.")] = 2,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the presets; build/devices if not given.")
    ] = None,
) -> None:
    """Simulate gain cell and converter in ngspice; fit device presets, one per corner.

    Finished simulations are kept in build/spice: an interrupted campaign goes on where it was.
    """
    from spice.characterise import FULL, QUICK, run_campaign

    campaign = QUICK if quick else FULL
    if corner:
        campaign = dataclasses.replace(campaign, corners=tuple(dict.fromkeys(corner)))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("decks"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        presets = run_campaign(
            campaign,
            processes=processes,
            cache_dir=ROOT / "build" / "spice",
            on_progress=lambda done, total, name: progress.update(
                task, completed=done, total=total, description=name
            ),
        )
    folder = ROOT / "build" / "devices" if out is None else out
    for name, preset in presets.items():
        write_text_whole(folder / f"{name}.json", preset.to_json())
    console.print(device_table(list(presets.values())))
    console.print(f"presets: {folder}")


def device_table(presets: list[DevicePreset]) -> Table:
    """Figures of devices side by side."""
    table = Table(title="Gain cell and converters, simulated")
    table.add_column("figure")
    for preset in presets:
        table.add_column(preset.name, justify="right")

    def add(figure: str, *values: str) -> None:
        table.add_row(figure, *values)

    add("current at the ends, µA", *(_ends(preset) for preset in presets))
    add("current crosses zero at, V", *(f"{zero_v(preset):.3f}" for preset in presets))
    add("cubic residual, RMS, µA", *(f"{p.residuals.polynomial_rms_ua:.3g}" for p in presets))
    add("cubic residual, largest, µA", *(f"{p.residuals.polynomial_max_ua:.3g}" for p in presets))
    add("table residual, RMS, µA", *(f"{p.residuals.table_rms_ua:.2g}" for p in presets))
    add("table residual, largest, µA", *(f"{p.residuals.table_max_ua:.2g}" for p in presets))
    add("slowest write, ns", *(f"{p.write_ns:.2f}" for p in presets))
    for i, row in enumerate(presets[0].leakage):
        figure = f"half an LSB lost at {row.temperature_c:g} °C after, s"
        add(figure, *(f"{p.leakage[i].retention_s:.3g}" for p in presets))
    matches = [p.mismatch for p in presets if p.mismatch is not None]
    add("mismatch, gain", *(f"{m.gain_sigma:.2%}" for m in matches))
    add("mismatch, offset, µA", *(f"{m.offset_sigma_ua:.3f}" for m in matches))
    add("read noise over one LSB, µA", *(f"{p.read_noise_ua:.4f}" for p in presets))
    for kind in ("score", "output"):
        found = [getattr(preset, f"{kind}_converter") for preset in presets]
        add(f"{kind} converter, offset, counts", *(f"{c.offset_sigma_counts:.2f}" for c in found))
        add(f"{kind} converter, gain", *(f"{c.gain_sigma:.2%}" for c in found))
        add(f"{kind} converter, delay, ns", *(f"{c.delay_ns:.2f}" for c in found))
        add(
            f"{kind} converter, off ideal, counts", *(f"{c.nonlinearity_counts:.2f}" for c in found)
        )
    add("write, fJ", *(f"{1e3 * p.energy.write_pj:.1f}" for p in presets))
    add("read, mean of levels, fJ/ns", *(_read_fj(preset) for preset in presets))
    add("conversion to phi, pJ", *(f"{p.energy.conversion_pj:.2f}" for p in presets))
    add("conversion to counts, pJ", *(f"{p.energy.output_conversion_pj:.2f}" for p in presets))
    return table


def _ends(preset: DevicePreset) -> str:
    table = preset.cell.i_out_ua or ()
    return f"{table[0]:.2f} .. {table[-1]:.2f}"


def _read_fj(preset: DevicePreset) -> str:
    levels = preset.energy.read_pj_per_ns or ()
    return f"{1e3 * sum(levels) / len(levels):.2f}"


def zero_v(preset: DevicePreset) -> float:
    """Stored voltage at which a tabulated cell gives no current.

    Raises
    ------
    ValueError
        The current has one sign over the whole table.
    """
    import numpy as np

    voltages, currents = preset.cell.v_store_v, preset.cell.i_out_ua
    if voltages is None or currents is None or not currents[0] < 0 < currents[-1]:
        raise ValueError(f"cell.i_out_ua must change its sign in {preset.name}, not {currents!r}")
    return float(np.interp(0.0, currents, voltages))
