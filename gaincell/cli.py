"""The `gaincell` program: one subcommand per job. Options in, jobs called, tables out."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    track,
)
from rich.table import Table

from gaincell.board import board_app, fpga
from gaincell.llm import app as llm_app
from gaincell.llm import generate
from gaincell.physics import characterise
from gaincell.silicon import (
    ClockOption,
    EffortOption,
    GatingOption,
    HierarchyOption,
    WireOption,
    flow_of,
    show_energy,
    show_equivalence,
    show_timing,
    wires_of,
)
from gaincell.studies import register
from hw.params import READOUTS, SCHEDULES, HeadParams
from hw.presets import PRESETS, preset
from sim.results import ROOT, write_result

if TYPE_CHECKING:
    from sim.tokens import TokenSource

__all__ = ["app", "main"]

app = typer.Typer(
    help="Gain-cell attention: RTL, array models, co-simulation, area.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(board_app, name="board")
app.command()(fpga)
app.add_typer(llm_app, name="llm")
register(app)
app.command()(generate)
console = Console()

_INTERRUPTED = 130  # status of a program that Ctrl-C ended

Preset = StrEnum("Preset", {name: name for name in PRESETS})
Readout = StrEnum("Readout", {name: name for name in READOUTS})
Schedule = StrEnum("Schedule", {name: name for name in SCHEDULES})
Simulator = StrEnum("Simulator", {"verilator": "verilator", "icarus": "icarus"})

PresetOption = Annotated[Preset, typer.Option("--preset", help="Head configuration.")]
ReadoutOption = Annotated[
    Readout | None, typer.Option("--readout", help="Readout, if not the preset's.")
]
ScheduleOption = Annotated[
    Schedule | None, typer.Option("--schedule", help="Schedule, if not the preset's.")
]
TokensOption = Annotated[int, typer.Option("--tokens", min=1, help="Real tokens to send.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Picks the place in the text.")]
LayerOption = Annotated[int | None, typer.Option("--layer", help="Layer of the language model.")]
HeadOption = Annotated[int | None, typer.Option("--head", help="Query head of that layer.")]
SimulatorOption = Annotated[Simulator, typer.Option("--simulator", help="HDL simulator.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change one parameter of the preset."),
]
LibertyOption = Annotated[
    list[Path] | None,
    typer.Option("--liberty", help="Cell library, .lib or .lib.gz; several make one."),
]


def _params(
    name: Preset,
    readout: Readout | None = None,
    schedule: Schedule | None = None,
    settings: list[str] | None = None,
) -> HeadParams:
    """Parameters of a preset, with the changes asked for."""
    params = preset(name.value)
    choices = {"readout": readout, "schedule": schedule}
    numbers = sorted(set(params.as_dict()) - set(choices))
    kinds = params.as_dict()
    changes: dict[str, Any] = {name: choice.value for name, choice in choices.items() if choice}
    for setting in settings or ():
        key, _, value = setting.partition("=")
        if key not in numbers:
            raise ValueError(f"--set must name one of {', '.join(numbers)}, not {key!r}")
        if isinstance(kinds[key], bool):
            if value not in ("0", "1"):
                raise ValueError(f"--set {key} must be 0 or 1, not {value!r}")
            changes[key] = value == "1"
            continue
        if not value.strip().isdecimal():
            raise ValueError(f"--set {key} must be a whole number, not {value!r}")
        changes[key] = int(value)
    return dataclasses.replace(params, **changes)


def _source(count: int, seed: int, layer: int | None, head: int | None) -> TokenSource:
    from sim.tokens import TokenSource

    given = {"tokens": count, "seed": seed, "layer": layer, "head": head}
    return TokenSource(**{name: value for name, value in given.items() if value is not None})


def _progress(unit: str) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


@app.command()
def verilog(
    name: PresetOption = Preset.default,
    readout: ReadoutOption = None,
    schedule: ScheduleOption = None,
    settings: SetOption = None,
) -> None:
    """Write build/verilog/attention_head.v and the JSON that describes it."""
    from synth.verilog import write_verilog

    params = _params(name, readout, schedule, settings)
    path = write_verilog(params, ROOT / "build" / "verilog" / f"{params.top}.v")
    console.print(
        f"{_shown(path)} and {path.with_suffix('.json').name}, configuration {params.config_hash}"
    )


@app.command()
def registers(
    name: PresetOption = Preset.default,
    readout: ReadoutOption = None,
    schedule: ScheduleOption = None,
    settings: SetOption = None,
) -> None:
    """Write the register map to build/registers: SystemRDL, HTML, C header, Python constants."""
    from synth.register_files import write_register_files

    params = _params(name, readout, schedule, settings)
    paths = write_register_files(params, ROOT / "build" / "registers")
    names = ", ".join(path.name for path in paths)
    console.print(f"{_shown(paths[0].parent)}: {names}, configuration {params.config_hash}")


@app.command()
def package(
    name: PresetOption = Preset.default,
    readout: ReadoutOption = None,
    schedule: ScheduleOption = None,
    settings: SetOption = None,
) -> None:
    """Write build/package/: Verilog, FuseSoC core, port documents, an instantiation."""
    from synth.package import write_package

    params = _params(name, readout, schedule, settings)
    paths = write_package(params, ROOT / "build" / "package")
    for path in paths:
        console.print(_shown(path))
    console.print(f"configuration {params.config_hash}")


@app.command()
def cosim(
    count: TokensOption = 1200,
    seed: SeedOption = 0,
    layer: LayerOption = None,
    head: HeadOption = None,
    name: PresetOption = Preset.default,
    readout: ReadoutOption = None,
    schedule: ScheduleOption = None,
    settings: SetOption = None,
    simulator: SimulatorOption = Simulator.verilator,
    stalls: Annotated[
        float, typer.Option(min=0.0, max=0.95, help="Share of clocks that either stream stalls.")
    ] = 0.1,
    decay: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the stored charge lost per token.")
    ] = 0.0,
    every: Annotated[
        bool, typer.Option("--every", help="Each preset in turn, instead of one configuration.")
    ] = False,
) -> None:
    """Send real tokens through Verilog and array model together; compare every integer."""
    from cocotb_tests.cosim import run_cosim, traces_of

    source = _source(count, seed, layer, head)
    if every:
        _cosim_every(source, simulator.value, stalls)
        return
    params = _params(name, readout, schedule, settings)
    traces = traces_of(params, source)
    with _progress("tokens") as progress:
        task = progress.add_task("", total=count)
        figures = run_cosim(
            params,
            traces,
            simulator=simulator.value,
            stall_probability=stalls,
            decay_per_token=decay,
            on_stage=lambda text: progress.update(task, description=text),
            on_progress=lambda done: progress.update(task, completed=done),
        )
    table = Table(title="Co-simulation: Verilog and array model against the functional model")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_row("real tokens", f"{figures['tokens']}")
    table.add_row("integers compared", f"{figures['lanes_compared']}")
    table.add_row("mismatches", f"{figures['mismatches']}")
    table.add_row("latency", f"{figures['latency_clk']} clocks")
    table.add_row("interval", f"{figures['interval_clk']:g} clocks")
    table.add_row("speed", f"{figures['tokens_per_second']:.0f} tokens/s")
    for part, share in figures["time_share"].items():
        table.add_row(f"time in {part.replace('_', ' ')}", f"{share:.0%}")
    console.print(table)


def _cosim_every(source: TokenSource, simulator: str, stalls: float) -> None:
    """Co-simulate every preset; a row of the table is printed when its preset is done."""
    from cocotb_tests.cosim import run_every_cosim

    table = Table(title="Co-simulation of every preset against the functional model")
    columns = ("preset", "heads", "tokens", "integers", "mismatches", "interval", "tokens/s")
    for column in columns:
        table.add_column(column, justify="left" if column == "preset" else "right")
    with _progress("tokens") as progress:
        task = progress.add_task("", total=source.tokens)
        rows = run_every_cosim(
            source,
            simulator=simulator,
            stall_probability=stalls,
            on_stage=lambda text: progress.update(task, description=text),
            on_progress=lambda done: progress.update(task, completed=done),
        )
        for row in rows:
            table.add_row(
                row["preset"],
                str(row["heads"]),
                f"{row['tokens']:,}",
                f"{row['lanes_compared']:,}",
                str(row["mismatches"]),
                f"{row['interval_clk']:g}",
                f"{row['tokens_per_second']:.0f}",
            )
    console.print(table)


@app.command()
def soak(
    packets: Annotated[int, typer.Option(min=1, help="Random packets to send.")] = 20_000,
    seed: SeedOption = 0,
    name: PresetOption = Preset.tiny,
    readout: ReadoutOption = None,
    schedule: ScheduleOption = None,
    settings: SetOption = None,
    simulator: Annotated[Simulator, typer.Option(help="HDL simulator.")] = Simulator.verilator,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Simulations at a time.")] = 1,
) -> None:
    """Send random packets under stalls, resets and register accesses; compare every answer."""
    from cocotb_tests.soak import run_soak

    with _progress("packets") as progress:
        task = progress.add_task("", total=packets)
        figures = run_soak(
            _params(name, readout, schedule, settings),
            packets=packets,
            seed=seed,
            processes=processes,
            simulator=simulator.value,
            on_stage=lambda text: progress.update(task, description=text),
            on_progress=lambda done: progress.update(task, completed=done),
        )
    table = Table(title="Soak: random packets, stalls, resets and register accesses")
    table.add_column("figure")
    table.add_column("value", justify="right")
    figures_shown = ("packets", "malformed", "resets", "answers", "lanes_compared", "mismatches")
    for figure in (*figures_shown, "clocks"):
        table.add_row(figure.replace("_", " "), f"{figures[figure]:,}")
    for thing, count in figures["things"].items():
        table.add_row(f"times: {thing.replace('_', ' ')}", f"{count:,}")
    table.add_row("time", f"{figures['seconds']:.0f} s")
    table.add_row("processor time", f"{figures['cpu_seconds']:.0f} s")
    console.print(table)


@app.command()
def gates(
    packets: Annotated[int, typer.Option(min=1, help="Random packets to send.")] = 300,
    seed: SeedOption = 0,
    liberty: LibertyOption = None,
) -> None:
    """Simulate small heads as netlists of cells, unknown at power-up, against their source."""
    from cocotb_tests.gates import run_gates

    table = Table(title="Gate-level simulation, without delays: netlist against source and model")
    columns = ("head", "cells", "flip-flops", "packets", "integers", "mismatches", "clocks", "time")
    for column in columns:
        table.add_column(column, justify="left" if column == "head" else "right")
    with console.status("gates") as status:
        rows = run_gates(
            packets=packets, seed=seed, liberty=liberty, on_stage=lambda text: status.update(text)
        )
    for row in rows:
        numbers = [row[name] for name in ("cells", "flip_flops", "packets", "lanes_compared")]
        numbers += [row["mismatches"], row["clocks"]]
        seconds = f"{row['seconds']['gates']:.0f} s"
        table.add_row(row["head"], *(f"{number:,}" for number in numbers), seconds)
    console.print(table)


@app.command()
def tokens(
    count: TokensOption = 1200,
    seed: SeedOption = 0,
    layer: LayerOption = None,
    head: HeadOption = None,
) -> None:
    """Compare what ideal hardware makes of real tokens' codes with the model's softmax."""
    from sim.tokens import agreement, real_tokens

    trace = real_tokens(_source(count, seed, layer, head))
    # Queries that see few tokens say little; a short trace has no others.
    figures = agreement(trace, least=min(100, count // 2))
    source = dataclasses.asdict(trace.source)
    write_result("tokens", figures | source, config_hash=trace.source.config_hash, tools=["numpy"])
    table = Table(title=f"{count} real tokens as codes, ideal hardware against softmax")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:.3f}")
    console.print(table)


@app.command()
def retention(
    count: TokensOption = 1200,
    seed: SeedOption = 0,
    layer: LayerOption = None,
    head: HeadOption = None,
) -> None:
    """Let real tokens fade: what a window loses at slow rates, and what refresh gives back."""
    from sim.retention import RetentionStudy, run_retention

    study = RetentionStudy(source=_source(count, seed, layer, head))
    with _progress("comparisons") as progress:
        task = progress.add_task("", total=len(study.token_s) * len(study.policies))
        result = run_retention(
            study, on_progress=lambda done: progress.update(task, completed=done)
        )
    table = Table(title="Retention: an array that leaks against one that does not")
    for column in ("per token", "measure", "clocks", "error", "others", "phi", "tokens"):
        table.add_column(column, justify="left" if column == "measure" else "right")
    for row in result["rows"]:
        if row["token_s"] not in (1e-6, 1e-4, 1e-2):
            continue
        budget, share = row["budget"], row.get("refresh_clk_share")
        table.add_row(
            f"{row['token_s'] * 1e6:g} µs",
            "none" if budget is None else f"{row['policy']} at {budget:g} tau",
            "" if share is None else f"{share:.1%}",
            f"{row['output_error']:.3f}",
            f"{row['sums_differ']:.1%}",
            f"{row['phi_correlation']:.3f}",
            f"{row['effective_tokens']:.0f}",
            end_section=row["policy"] == "mask" and budget == study.budgets[-1],
        )
    console.print(table)
    console.print(
        "error: of the outputs, RMS; others: integer sums that differ; phi: correlation; "
        "tokens: columns with more than half of their stored deviation"
    )


@app.command()
def calibrate(
    name: PresetOption = Preset.default,
    settings: SetOption = None,
    sigma: Annotated[
        float, typer.Option(min=0.0, help="Spread of the converters' offsets, in counts.")
    ] = 0.6,
    seed: SeedOption = 0,
    queries: Annotated[int, typer.Option(min=1, help="Queries to estimate offsets from.")] = 64,
    held_out: Annotated[int, typer.Option(min=1, help="Other queries, to check with.")] = 64,
    simulator: Annotated[
        Simulator | None, typer.Option(help="Verilog in this simulator instead of the model.")
    ] = None,
) -> None:
    """Calibrate a device whose converters have offsets; what is left before and after."""
    from sim.driver.calibrate_job import run_calibrate

    connect = None
    if simulator is not None:
        from cocotb_tests.driver_backend import connect_simulated

        connect = connect_simulated(simulator.value)
    with _progress("measurements") as progress:
        task = progress.add_task("calibrating", total=None)
        figures = run_calibrate(
            _params(name, settings=settings),
            sigma=sigma,
            seed=seed,
            queries=queries,
            held_out=held_out,
            connect=connect,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    table = Table(title=f"Sums of lanes against ideal converters, {figures['device']}, in counts")
    for column in ("", "before", "after"):
        table.add_column(column, justify="left" if not column else "right")
    meanings = {
        "lane_rms": "offset of a lane, root mean square",
        "rms": "difference, root mean square",
        "mean_abs": "difference, mean magnitude",
        "max_abs": "difference, largest",
    }
    for figure, meaning in meanings.items():
        table.add_row(meaning, *(f"{figures[when][figure]:.3g}" for when in ("before", "after")))
    console.print(table)


app.command()(characterise)


@app.command()
def area(
    name: PresetOption = Preset.default,
    schedule: ScheduleOption = None,
    settings: SetOption = None,
    liberty: LibertyOption = None,
    compare: Annotated[
        bool | None,
        typer.Option(
            "--compare/--no-compare",
            help="What features, shape and sharing cost; as it is, for the default head only.",
        ),
    ] = None,
) -> None:
    """Synthesise the head with both readouts; cells, area and gate equivalents by block."""
    from synth.area import area_table, run_area, variant_table
    from synth.variants import VARIANTS

    params = _params(name, schedule=schedule, settings=settings)
    if compare is None:
        compare = params == PRESETS["default"]
    result = run_area(params, liberty=liberty, variants=VARIANTS if compare else ())
    console.print(area_table(result))
    if compare:
        console.print(variant_table(result))


@app.command()
def timing(
    name: PresetOption = Preset.default,
    readout: ReadoutOption = None,
    schedule: ScheduleOption = None,
    settings: SetOption = None,
    liberty: LibertyOption = None,
    clock: ClockOption = None,
    effort: EffortOption = "normal",
    hierarchy: HierarchyOption = "kept",
    gating: GatingOption = True,
    wire: WireOption = 0.2,
) -> None:
    """Map the head to cells and time it; highest clock, slowest paths."""
    params = _params(name, readout, schedule, settings)
    flow = flow_of(clock, effort, hierarchy, gating, wire)
    show_timing(console, params, liberty, flow, wires_of(wire))


@app.command()
def energy(
    count: Annotated[int, typer.Option("--tokens", min=2, help="Real tokens to stream.")] = 256,
    seed: SeedOption = 0,
    name: PresetOption = Preset.default,
    readout: ReadoutOption = None,
    schedule: ScheduleOption = None,
    settings: SetOption = None,
    liberty: LibertyOption = None,
    clock: ClockOption = None,
    effort: EffortOption = "normal",
    gating: GatingOption = True,
    wire: WireOption = 0.2,
) -> None:
    """Simulate the head's netlist with real tokens; energy per token by block and phase."""
    params = _params(name, readout, schedule, settings)
    flow = flow_of(clock, effort, "kept", gating, wire)
    show_energy(console, params, liberty, flow, wires_of(wire), count, seed)


@app.command()
def equivalence(liberty: LibertyOption = None) -> None:
    """Prove that small heads' netlists do what their sources do."""
    show_equivalence(console, liberty)


@app.command()
def bench() -> None:
    """Measure speed against named limits; print ratios."""
    from sim.bench import run_bench

    table = Table(title="Speed, measured in one process")
    for column in ("measurement", "ours", "reference", "ratio", "limit", "per product"):
        table.add_column(column, justify="left" if column == "measurement" else "right")
    rows = run_bench()
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['ours_s'] * 1e3:.3f} ms",
            f"{row['reference_s'] * 1e3:.3f} ms",
            f"{row['ratio']:.2f}",
            "" if row["limit"] is None else f"{row['limit']:.2f}",
            f"{row['ns_per_product']:.0f} ns" if "ns_per_product" in row else "",
        )
    console.print(table)
    if any(row["limit"] is not None and row["ratio"] > row["limit"] for row in rows):
        raise typer.Exit(1)


@app.command()
def formal(
    full: Annotated[bool, typer.Option(help="Every size and every seeded bug.")] = False,
) -> None:
    """Prove the schedules, the window, the registers, the streams and the arithmetic."""
    from synth.prove import run_proofs

    rows = run_proofs(full=full)
    table = Table(title="Proofs")
    for column in ("property", "method", "depth", "seconds", "status"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            row["property"],
            row["method"],
            str(row["depth"]),
            f"{row['seconds']:.1f}",
            row["status"],
        )
    console.print(table)
    if any(row["status"] != "proved" for row in rows):
        raise typer.Exit(1)


@app.command()
def mutants(
    count: Annotated[int, typer.Option(min=1, help="Mutants of the netlists.")] = 500,
    seed: SeedOption = 0,
) -> None:
    """Change the design in many small ways and see that the tests notice."""
    from synth.mutants import run_mutants

    result = run_mutants(count=count, seed=seed)
    table = Table(title="Mutants: faults put in, and whether the tests notice")
    for column in ("kind", "put in", "caught", "survived", "share"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    kinds = {pool["netlist"]: pool for pool in result["by_pool"].values()}
    kinds |= {"netlists": result, "sources": result["source_mutants"]}
    for kind, figures in kinds.items():
        count, caught = figures["count"], figures["caught"]
        share = caught / count if count else 1.0
        table.add_row(kind, str(count), str(caught), str(count - caught), f"{share:.1%}")
    console.print(table)
    console.print(
        f"with the original compared: {result['share_compared']:.1%}; "
        f"proved equivalent: {result['equivalent']}"
    )
    for figures in (result, result["source_mutants"]):
        for mutant, why in figures["explanations"].items():
            console.print(f"survived: {mutant}: {why}", highlight=False)


@app.command()
def report(
    node_nm: Annotated[
        int | None,
        typer.Option(
            "--node-nm", help="Technology node of the library, if its name does not tell."
        ),
    ] = None,
) -> None:
    """Write build/report/index.html and silicon.json from what has been run."""
    from sim.report import terminal_summary, write_report

    page = write_report(node_nm=node_nm)
    console.print(terminal_summary())
    console.print(f"report: {_shown(page)}, silicon.json")


@app.command()
def metrics(
    update: Annotated[
        bool, typer.Option("--update", help="Let today's values hold from now on.")
    ] = False,
) -> None:
    """Check clocks, gates, clock rate and energy against the values that hold."""
    from gaincell.metrics import run_metrics

    if not run_metrics(console, update=update):
        raise typer.Exit(1)


@app.command()
def demo(
    count: TokensOption = 1200,
    seed: SeedOption = 0,
    layer: LayerOption = None,
    head: HeadOption = None,
    name: PresetOption = Preset.default,
    readout: ReadoutOption = None,
    schedule: ScheduleOption = None,
    settings: SetOption = None,
    simulator: SimulatorOption = Simulator.verilator,
    liberty: LibertyOption = None,
) -> None:
    """The main job: Verilog, co-simulation of real tokens, area, pictures, report."""
    from sim.report import draw_pictures

    shape = {"name": name, "schedule": schedule, "settings": settings}
    source = {"count": count, "seed": seed, "layer": layer, "head": head}
    verilog(readout=readout, **shape)
    tokens(**source)
    cosim(readout=readout, simulator=simulator, **source, **shape)
    area(liberty=liberty, **shape)
    draw_pictures()
    report(node_nm=None)


@app.command()
def lint() -> None:
    """Check the generated Verilog with Verilator, every warning on, justified waivers apart."""
    from synth.lint import lint_head

    # Large heads are made of the same blocks: they are checked as they are.
    small = [params for params in PRESETS.values() if params.window <= 64]
    heads = set(PRESETS.values()) | {
        dataclasses.replace(params, readout=readout, schedule=schedule)
        for params, readout, schedule in itertools.product(small, READOUTS, SCHEDULES)
    }
    for params in track(sorted(heads, key=str), "Verilator lint", console=console, transient=True):
        lint_head(params)
    console.print(
        f"clean: {', '.join(PRESETS)}; the small ones with both readouts and both schedules"
    )


@app.command()
def docs() -> None:
    """Write the generated figures into the documents."""
    from sim.docs import update_documents

    with console.status("generating figures"):
        changed = update_documents()
    for path in changed:
        console.print(f"updated {_shown(path)}")


@app.command("docs-check")
def docs_check() -> None:
    """Fail if a generated part of a document is not what its command gives today."""
    from sim.docs import stale_documents

    with console.status("generating figures"):
        stale = stale_documents()
    for path, name in stale:
        console.print(f"{_shown(path)}: part {name!r} is stale; run `make docs`")
    if stale:
        raise typer.Exit(1)
    console.print("documents are up to date")


def main() -> None:
    """Run the program; an expected failure is one line on standard error, not a traceback."""
    from cocotb_tests.runner import SimulationError
    from sim.driver.errors import DriverError
    from spice.ngspice import NgspiceError
    from synth.activity import NetlistError
    from synth.equivalence import EquivalenceError
    from synth.fpga import FpgaError
    from synth.sta import StaError
    from synth.yosys import YosysError

    try:
        app()
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # Typer has turned the interrupt into this
            Console(stderr=True).print("interrupted; results of finished jobs are kept")
        raise
    except (
        ValueError,
        OSError,
        ModuleNotFoundError,
        DriverError,
        EquivalenceError,
        FpgaError,
        NetlistError,
        NgspiceError,
        SimulationError,
        StaError,
        YosysError,
    ) as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False)
        sys.exit(1)
