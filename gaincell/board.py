"""Subcommands for FPGA boards: bitstream, real tokens through a board, comparison, stand-in."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

__all__ = ["board_app", "fpga"]

console = Console()
board_app = typer.Typer(help="FPGA boards.", no_args_is_help=True)

BoardOption = Annotated[str, typer.Option("--board", help="Board: ulx3s or icebreaker.")]
TokensOption = Annotated[int, typer.Option("--tokens", min=16, help="Real tokens.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Picks the place in the text.")]


def _progress() -> Progress:
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tokens"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def _table(title: str, rows: dict[str, str]) -> None:
    table = Table(title=title)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def fpga(
    board: BoardOption = "ulx3s",
    program: Annotated[bool, typer.Option("--program", help="Load it into the board.")] = False,
) -> None:
    """Build a board's bitstream: utilisation and highest clock; build/fpga/BOARD."""
    from synth.fpga import run_fpga

    with Progress(
        TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True
    ) as progress:
        task = progress.add_task("", total=None)
        shown = ""

        def stage(text: str) -> None:
            nonlocal shown
            progress.update(task, description=text)
            if text.split(",")[0] != shown:
                shown = text.split(",")[0]
                progress.console.print(f"{progress.tasks[0].elapsed or 0:6.0f} s  {shown}")

        figures = run_fpga(board, program=program, on_stage=stage)
    _table(f"{figures['device']}, build {figures['build_hash']}", fpga_rows(figures))
    console.print(figures["bitstream"])


def fpga_rows(figures: dict[str, Any]) -> dict[str, str]:
    """Figures of a bitstream, as shown."""
    rows = {
        "head": f"window {figures['window']}, {figures['rows']} rows, {figures['lanes']} lanes",
        "clock": f"{figures['target_mhz']:g} MHz",
        "highest clock": f"{figures['fmax_mhz']:.1f} MHz",
    }
    for name in ("logic", "flip_flops", "block_ram"):
        used, there = figures[name], figures[f"{name}_of"]
        rows[name.replace("_", "-" if name == "flip_flops" else " ")] = (
            f"{used:,} of {there:,}, {used / there:.0%}"
        )
    rows["multipliers"] = f"{figures['multipliers']}"
    rows["time to build"] = f"{figures['seconds']:.0f} s"
    return rows


@board_app.command()
def run(
    port: Annotated[str, typer.Option("--port", help="Serial port, such as /dev/ttyUSB0.")],
    board: BoardOption = "ulx3s",
    count: TokensOption = 200,
    seed: SeedOption = 0,
) -> None:
    """Send real tokens through a board; compare every integer; show the throughput."""
    from sim.board import run_board
    from sim.tokens import TokenSource

    with _progress() as progress:
        task = progress.add_task("", total=count)
        figures = run_board(
            board,
            port,
            TokenSource(tokens=count, seed=seed),
            on_progress=lambda done: progress.update(task, completed=done),
        )
    _table(
        f"Board {board} at {port}",
        {
            "real tokens": f"{figures['tokens']:,}",
            "integers compared": f"{figures['integers_compared']:,}",
            "mismatches with the emulator's reference": f"{figures['mismatches']:,}",
            "equal to the real-valued model": f"{figures['share_of_sums_equal']:.2%}",
            "largest distance from it": f"{figures['largest_distance']}",
            "throughput": f"{figures['tokens_per_second']:.0f} tokens/s",
            "requests repeated": f"{figures['repeated']}",
        },
    )
    if figures["mismatches"]:
        raise typer.Exit(1)


@board_app.command()
def compare(board: BoardOption = "ulx3s", count: TokensOption = 1200, seed: SeedOption = 0) -> None:
    """Compare a board's integers with the real-valued model on real tokens."""
    from sim.emulation import run_compare
    from sim.tokens import TokenSource

    with _progress() as progress:
        task = progress.add_task("", total=count)
        figures = run_compare(
            board,
            TokenSource(tokens=count, seed=seed),
            on_progress=lambda done: progress.update(task, completed=done),
        )
    rows = {"counts of one sub-tile compared": f"{figures['counts_compared']:,}"}
    for difference, times in figures["differences"].items():
        share = times / figures["counts_compared"]
        rows[f"difference {int(difference):+d}"] = f"{times:,}, {share:.4%}"
    rows["within one"] = f"{figures['share_within_one']:.4%}"
    rows["sums equal"] = f"{figures['share_of_sums_equal']:.3%}"
    _table(f"Emulated arrays of {board} against the real-valued model", rows)


@board_app.command()
def loopback(board: BoardOption = "ulx3s") -> None:
    """Stand in for a board at a pseudo-terminal, for trying `board run` without one."""
    from sim.board import loopback as serve

    serve(
        board,
        lambda port: console.print(
            f"gaincell board run --board {board} --port {port}", highlight=False
        ),
    )


@board_app.command()
def simulate(
    board: BoardOption = "ulx3s",
    count: TokensOption = 200,
    seed: SeedOption = 0,
    share: Annotated[
        float, typer.Option("--share", min=0.0, max=0.5, help="Of bytes changed on a bad line.")
    ] = 0.01,
    simulator: Annotated[
        str, typer.Option("--simulator", help="verilator or icarus.")
    ] = "verilator",
) -> None:
    """Simulate a board's top level, serial line included: sessions over good and bad lines."""
    from cocotb_tests.board_session import simulate_board
    from sim.tokens import TokenSource

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=count)
        figures = simulate_board(
            board,
            TokenSource(tokens=count, seed=seed),
            simulator=simulator,
            share=share,
            on_stage=lambda text: progress.update(task, description=text, completed=0),
            on_progress=lambda done: progress.update(task, completed=done),
        )
    _table(f"Simulated board {board}", simulation_rows(figures))
    bad = figures.get("with_repetition", {}).get("mismatches", 0)
    bad += figures.get("without_repetition", {}).get("wrong", 0)
    if figures["mismatches"] or bad:
        raise typer.Exit(1)


def simulation_rows(figures: dict[str, Any]) -> dict[str, str]:
    """Figures of a simulated board, as shown."""
    rows = {
        "real tokens of the session": f"{figures['tokens']:,}",
        "integers compared": f"{figures['integers_compared']:,}",
        "mismatches": f"{figures['mismatches']}",
        "bytes on the line": f"{figures['bytes']:,}",
    }
    if "with_repetition" in figures:
        repeated, lossy = figures["with_repetition"], figures["without_repetition"]
        rows |= {
            f"{figures['share_changed']:.0%} of bytes changed: mismatches": (
                f"{repeated['mismatches']}"
            ),
            "requests repeated": f"{repeated['repeated']:,}",
            "without repetition: tokens answered": f"{lossy['answered']}",
            "tokens reported lost": f"{lossy['reported']}",
            "wrong answers accepted": f"{lossy['wrong']}",
        }
    return rows
