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
from sim.devices import device_rows
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
    for row in device_rows(presets):
        table.add_row(*row)
    return table
