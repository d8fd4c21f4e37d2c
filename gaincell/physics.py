"""The subcommand that simulates the transistors: options in, campaign, tables out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from analog_models.device import DevicePreset
from analog_models.presets import DEVICE_FOLDER
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
        Path | None,
        typer.Option(help="Folder of the presets; build/devices, or build/devices-quick."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Fit and simulate the committed presets again.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample that --check takes.")] = 0,
) -> None:
    """Simulate gain cell and converter in ngspice; fit device presets, one per corner.

    Finished simulations are kept in build/spice: an interrupted campaign goes on where it was.
    The committed presets change only with --out analog_models/devices, which --quick refuses.
    """
    from spice.characterise import FULL, QUICK, run_campaign

    if check:
        check_presets(corner or (), seed)
        return
    folder = ROOT / "build" / ("devices-quick" if quick else "devices") if out is None else out
    if quick and folder.resolve() == DEVICE_FOLDER:
        raise ValueError("out must not be the committed presets' folder with --quick")
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
        made = run_campaign(
            campaign,
            processes=processes,
            cache_dir=ROOT / "build" / "spice",
            on_progress=lambda done, total, name: progress.update(
                task, completed=done, total=total, description=name
            ),
        )
    for name, (preset, points) in made.items():
        write_text_whole(folder / "points" / f"{name}.json", points)
        write_text_whole(folder / f"{name}.json", preset.to_json())
    console.print(device_table([preset for preset, _ in made.values()]))
    console.print(f"presets: {folder}; what they are fitted to: {folder / 'points'}")


def check_presets(corners: Iterable[str], seed: int) -> None:
    """Print how the committed presets compare with a fit and a sample of simulations of today.

    Raises
    ------
    ValueError
        They differ.
    """
    from spice.check import refit, sample

    bad = []
    for path in sorted(DEVICE_FOLDER.glob("sky130-*.json")):
        if corners and path.stem.rpartition("-")[2] not in corners:
            continue
        held, again = refit(path)
        same = held == again
        bad += [] if same else [f"{path.stem} differs from the fit of its points"]
        table = Table(title=f"{path.stem}: fit of its points {'equal' if same else 'DIFFERS'}")
        for column in ("simulated again, figure", "numbers", "largest difference", "limit"):
            table.add_column(column, justify="left" if column.startswith("sim") else "right")
        for row in sample(path, seed=seed):
            table.add_row(row.figure, str(row.numbers), f"{row.error:.1e}", f"{row.limit:.0e}")
            bad += [] if row.alike else [f"{path.stem}, {row.figure}"]
        console.print(table)
    if bad:
        raise ValueError(f"presets must be what circuits give; these differ: {'; '.join(bad)}")


def device_table(presets: list[DevicePreset]) -> Table:
    """Figures of devices side by side."""
    table = Table(title="Gain cell and converters, simulated")
    table.add_column("figure")
    for preset in presets:
        table.add_column(preset.name, justify="right")
    for row in device_rows(presets):
        table.add_row(*row)
    return table
