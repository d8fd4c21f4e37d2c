"""Studies of the analog models: sweeps, Monte Carlo, retention map, energy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from sim.sweep import Point

__all__ = ["register"]

console = Console()

DeviceOption = Annotated[str, typer.Option("--device", help="Device preset, or path .json.")]
SchedulerOption = Annotated[
    str | None, typer.Option(help="Dask scheduler, tcp://…; workers here if left out.")
]
WorkersOption = Annotated[int, typer.Option(min=0, help="Local workers; 0 is this process.")]
LimitOption = Annotated[float, typer.Option(min=0.0, help="Error that counts as good.")]


def _value(name: str, text: str) -> Any:
    from sim.sweep import Point

    hint = get_type_hints(Point)[name]
    if text == "none" and hint == (float | None):
        return None
    kind = {int: int, str: str}.get(hint, float)
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"--axis {name} must hold numbers, not {text!r}") from error


def _axes(texts: Sequence[str]) -> dict[str, list[Any]]:
    from sim.sweep import Point

    names = [field.name for field in dataclasses.fields(Point) if field.name != "seed"]
    axes = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name not in names or not values:
            raise ValueError(f"--axis must be NAME=VALUE,… of {', '.join(names)}, not {text!r}")
        axes[name] = [_value(name, value) for value in values.split(",")]
    return axes


def _run(
    points: Sequence[Point], name: str, scheduler: str | None, workers: int
) -> list[dict[str, Any]]:
    from sim.sweep import run_sweep

    shown = (TextColumn("points"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*shown, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(points))
        return run_sweep(
            points,
            name=name,
            scheduler=scheduler,
            workers=workers,
            on_progress=lambda done: progress.update(task, completed=done),
        )


def _summary(groups: dict[str, list[dict[str, Any]]], limit: float) -> Table:
    from sim.sweep import summary

    table = Table(title=f"Error of attention against an ideal device; good: at most {limit:g}")
    for column in ("setting", "devices", "trim", "mean", "median", "95 %", "worst", "good"):
        table.add_column(column, justify="left" if column in ("setting", "trim") else "right")
    for setting, rows in groups.items():
        figures = summary(rows, limit)
        for when in ("before", "after"):
            row = figures[when]
            numbers = [f"{row[key]:.4f}" for key in ("mean", "median", "p95", "worst")]
            table.add_row(setting, str(len(rows)), when, *numbers, f"{row['yield']:.1%}")
    return table


def sweep(
    axes: Annotated[
        list[str] | None, typer.Option("--axis", metavar="NAME=VALUE,…", help="Values to combine.")
    ] = None,
    device: DeviceOption = "published",
    devices: Annotated[int, typer.Option(min=1, help="Devices of each setting.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the first device.")] = 0,
    name: Annotated[str, typer.Option(help="Of the table in build/sweep.")] = "sweep",
    limit: LimitOption = 0.1,
    scheduler: SchedulerOption = None,
    workers: WorkersOption = 2,
) -> None:
    """Error of attention over presets, faults, windows, bits and token rates; resumable."""
    from sim.sweep import Point, grid, write_summary

    chosen = _axes(axes or ("token_s=none,1e-6,1e-5,1e-4", "refresh_s=none,1e-3"))
    rows = _run(grid(Point(device=device, seed=seed), chosen, devices), name, scheduler, workers)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(", ".join(f"{key} {row[key]}" for key in chosen), []).append(row)
    console.print(_summary(groups, limit))
    write_summary(rows, name, limit)
    console.print(f"build/sweep/{name}.parquet, build/report/{name}.json and .png")


def montecarlo(
    device: DeviceOption = "sky130-tt",
    devices: Annotated[int, typer.Option(min=1, help="Devices to draw.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the first device.")] = 0,
    cell_gain_sigma: Annotated[
        float | None, typer.Option(min=0.0, help="Spread of cells, if not the preset's.")
    ] = None,
    offset_sigma: Annotated[
        float | None, typer.Option(min=0.0, help="Of converters, counts, if not the preset's.")
    ] = None,
    limit: LimitOption = 0.1,
    scheduler: SchedulerOption = None,
    workers: WorkersOption = 2,
) -> None:
    """Distribution of the error of attention over devices, before and after trim; resumable."""
    from sim.sweep import Point, grid, write_summary

    base = Point(
        device=device,
        seed=seed,
        cell_gain_sigma=cell_gain_sigma,
        output_offset_sigma_counts=offset_sigma,
    )
    rows = _run(grid(base, {}, devices), "montecarlo", scheduler, workers)
    console.print(_summary({device: rows}, limit))
    write_summary(rows, "montecarlo", limit)
    console.print("build/sweep/montecarlo.parquet, build/report/montecarlo.json and .png")


def retention_map() -> None:
    """Windows, token rates and time constants: droop, and what refresh costs."""
    from sim.retention_map import run_map, table_header, table_rows

    result = run_map()
    table = Table(
        title="Droop of the oldest column in LSB over time per token, and what refresh costs per "
        "token; * is the published assumption"
    )
    for column in table_header(result):
        table.add_column(column, justify="left" if column.startswith("charge") else "right")
    for row in table_rows(result):
        table.add_row(*row)
    console.print(table)
    console.print("build/report/retention_map.png, retention_map.json")


def energy(device: DeviceOption = "published") -> None:
    """Energy of a token in the analog part, by phase, against the published figures."""
    from sim.analog_energy import run_energy

    result = run_energy(device)
    table = Table(title=f"Analog energy of one token, {result['device']}, pJ")
    for column in ("operands", "Q pulse, ns", "phi, ns", "write", "Q.K", "phi", "phi.V", "counts"):
        table.add_column(column, justify="left" if column == "operands" else "right")
    phases = ("write_pj", "integrate_pj", "convert_pj", "drive_pj", "readout_pj")
    for row in result["rows"]:
        figures = ["" if row[name] is None else f"{row[name]:.0f}" for name in phases]
        means = [f"{row[name]:.2f}" for name in ("q_mean_ns", "phi_mean_ns")]
        table.add_row(row["operands"], *means, *figures)
    published = result["published"]
    figures = [f"{published[name]:.0f}" if name in published else "" for name in phases]
    table.add_row("published", "", "", *figures)
    console.print(table)


def register(app: typer.Typer) -> None:
    """Add the commands to a program."""
    app.command()(sweep)
    app.command()(montecarlo)
    app.command("retention-map")(retention_map)
    app.command("analog-energy")(energy)
