"""Area of a head's blocks, for both readouts, on a standard-cell library.

Every block is synthesised by itself and keeps its boundary, so the figures of the blocks add up
to the head's. Nothing is placed or routed; see docs/blocks/area.md for what the figures are not.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from hw.layer import AttentionLayer
from hw.params import READOUTS, HeadParams
from sim.results import ROOT, write_result, write_text_whole
from synth.liberty import Adder, Library, open_library
from synth.netlist import Part, cut
from synth.variants import Variant
from synth.verilog import component_rtlil
from synth.yosys import YosysError, run_yosys, yosys_version

__all__ = ["GLUE", "RATIO_TARGET", "STORE", "area_table", "head_parts", "run_area", "variant_table"]

#: The head's own cells, outside its blocks.
GLUE = "glue"
#: The block whose memories are counted in bits and not built of cells: they would be a memory
#: macro, for which a cell library has no figure.
STORE = "code_store"
#: How much smaller than the counter readout the population readout must be at the least, in a
#: head of as many sub-tiles as the default one: with few, there is little to save.
RATIO_TARGET = 4.0
_TARGET_SUBTILES = HeadParams().subtiles

_FIGURES = ("cells", "area_um2", "gate_equivalents", "flip_flops")
_PROCESSES = 2
_QUIET_S = 2.0


def head_parts(params: HeadParams) -> dict[tuple[str, ...], Part]:
    """Every module of a head, of a layer's every head, and what connects them (`GLUE`).

    They are cut out of the whole design, so they have just the ports that it uses.
    """
    return cut(component_rtlil(AttentionLayer(params), params.top), params.top, GLUE)


def _block(path: tuple[str, ...], parts: Mapping[tuple[str, ...], Part]) -> str:
    """Block that a module counts to: the one right below the top that it is, or is inside of."""
    return parts[path[:1]].name


def _adder_map(adder: Adder) -> str:
    """Verilog by which Yosys replaces its full adders by the library's."""
    a, b, c = (
        f".{pin}({port}[i])" for pin, port in zip(adder.inputs, ("A", "B", "C"), strict=True)
    )
    return f"""(* techmap_celltype = "$fa" *)
module map_full_adder (A, B, C, X, Y);
  parameter WIDTH = 1;
  input [WIDTH-1:0] A, B, C;
  output [WIDTH-1:0] X, Y;
  genvar i;
  generate for (i = 0; i < WIDTH; i = i + 1) begin : bits
    {adder.name} adder ({a}, {b}, {c}, .{adder.carry}(X[i]), .{adder.sum}(Y[i]));
  end endgenerate
endmodule
"""


def _script(top: str, library: Library, store: bool) -> dict[str, list[str]]:
    """Commands up to gates, and from gates to cells without and with the library's full adder.

    Memories of a ``store`` are turned inside out: their ports become the module's.
    """
    forbidden = " ".join(f"-dont_use {cell}" for cell in library.forbidden)
    gate_library = (
        f"-liberty library.lib {forbidden}"
        if library.timed
        else "-genlib gates.genlib -script +strash;dc2;dch;map,-a"
    )
    cells = [
        f"dfflibmap -liberty library.lib {forbidden}",
        f"abc {gate_library}",
        "opt_clean",
        "stat -liberty library.lib -json",
    ]
    gates = [
        f"hierarchy -check -top {top}",
        "proc",
        "check -assert",
        *(["memory_collect", "expose -evert t:$mem_v2"] if store else []),
        f"synth -top {top} -noabc",
        "opt_clean -purge",
    ]
    adders = ["extract_fa -fa", "techmap -map adder.v", "simplemap", "opt_clean"]
    scripts = {"gates": gates, "plain": cells}
    if library.full_adder:
        scripts["full_adder"] = [*adders, *cells]
    return scripts


@dataclass(frozen=True)
class _Job:
    """Synthesis of one module."""

    block: str  #: what the module's area counts to
    top: str  #: its name
    boxes: frozenset[str]  #: types of its cells that are synthesised elsewhere
    store_bits: int  #: bits of its memories, if they are no cells
    digest: str  #: hash of its RTLIL
    rtlil: str  #: empty if the outcome is known

    def script(self, library: Library) -> dict[str, list[str]]:
        """Commands, see `_script`."""
        return _script(self.top, library, self.store_bits > 0)

    def key(self, library: Library) -> str:
        """Hash of everything that the outcome depends on."""
        parts = [
            self.digest,
            json.dumps(self.script(library)),
            _adder_map(library.full_adder) if library.full_adder else "",
            library.sha256,
            yosys_version(),
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def kept(self, library: Library, cache_dir: Path) -> Path:
        """File that the outcome is kept in."""
        return cache_dir / f"area-{self.key(library)[:32]}.json"


def _job(block: str, part: Part) -> _Job:
    return _Job(
        block=block,
        top=part.name,
        boxes=part.boxes,
        store_bits=part.memory_bits if block == STORE else 0,
        digest=hashlib.sha256(part.rtlil.encode()).hexdigest(),
        rtlil=part.rtlil,
    )


@cache
def _sources() -> str:
    """Hash of what turns parameters into modules."""
    files = [*sorted((ROOT / "hw").glob("*.py")), Path(cut.__code__.co_filename)]
    texts = [path.read_bytes() for path in files]
    return hashlib.sha256(b"\0".join([*texts, metadata.version("amaranth").encode()])).hexdigest()


def _jobs(params: HeadParams, library: Library, cache_dir: Path | None) -> list[_Job]:
    """A job per module; elaborates the head only if an outcome is missing."""
    index = cache_dir and cache_dir / f"parts-{_sources()[:32]}-{params.config_hash}.json"
    if cache_dir and index and index.exists():
        rows = json.loads(index.read_text(encoding="utf-8"))
        jobs = [_Job(**row | {"boxes": frozenset(row["boxes"]), "rtlil": ""}) for row in rows]
        if all(job.kept(library, cache_dir).exists() for job in jobs):
            return jobs
    parts = head_parts(params)
    jobs = [_job(_block(path, parts), part) for path, part in parts.items()]
    if index:
        rows = [asdict(job) | {"boxes": sorted(job.boxes), "rtlil": ""} for job in jobs]
        write_text_whole(index, json.dumps(rows) + "\n")
    return jobs


def _figures(
    kinds: Mapping[str, int], library: Library, block: str, boxes: Set[str]
) -> dict[str, Any]:
    """Figures of a mapped module, from its cells by type; ``boxes`` are counted elsewhere."""
    area_um2, cells, flip_flops = 0.0, 0, 0
    for kind, number in sorted(kinds.items()):
        if kind in boxes:
            continue
        cell = library.cells.get(kind)
        if cell is None or cell.area_um2 is None:
            raise YosysError(
                f"{block}: {number} cells of type {kind} could not be mapped to {library.name}"
            )
        cells += number
        area_um2 += number * cell.area_um2
        flip_flops += number * cell.flip_flop
    return {
        "cells": cells,
        "area_um2": round(area_um2, 4),
        "gate_equivalents": round(area_um2 / library.gate_equivalent_um2, 1),
        "flip_flops": flip_flops,
    }


def _synthesise(job: _Job, library: Library, cache_dir: Path | None) -> dict[str, Any]:
    """Synthesise a module by every script and return the figures of the smallest outcome."""
    cached = job.kept(library, cache_dir) if cache_dir else None
    if cached and cached.exists():
        figures: dict[str, Any] = json.loads(cached.read_text(encoding="utf-8"))
        return figures
    scripts = job.script(library)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "library.lib").symlink_to(library.file)
        (folder / "module.il").write_text(job.rtlil, encoding="utf-8")
        if not library.timed:
            (folder / "gates.genlib").write_text(library.genlib(), encoding="utf-8")
        if library.full_adder:
            (folder / "adder.v").write_text(_adder_map(library.full_adder), encoding="utf-8")

        def in_folder(command: str, script: str) -> str:
            command = re.sub(r"\b(library\.lib|gates\.genlib|adder\.v)", rf"{folder}/\1", command)
            if command.startswith("stat "):
                return f"tee -q -o {folder}/{script}.json {command}"
            return command

        commands = [f"read_rtlil {folder}/module.il", *scripts["gates"], "design -save gates"]
        outcomes = [script for script in scripts if script != "gates"]
        for script in outcomes:
            commands += ["design -load gates", *(in_folder(c, script) for c in scripts[script])]
        run_yosys(*commands)
        found = []
        for script in outcomes:
            text = (folder / f"{script}.json").read_text(encoding="utf-8")
            kinds = json.loads(text)["modules"][f"\\{job.top}"].get("num_cells_by_type", {})
            figures = _figures(kinds, library, job.block, job.boxes)
            found.append(figures | {"full_adder": script == "full_adder"})
    best = min(found, key=lambda figures: figures["area_um2"])
    if cached:
        write_text_whole(cached, json.dumps(best) + "\n")
    return best


def run_area(
    params: HeadParams,
    *,
    liberty: Path | str | None = None,
    report_dir: Path | None = None,
    cache_dir: Path | None = ROOT / "build" / "cache",
    variants: Sequence[Variant] = (),
    on_progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Measure the area of a head with either readout and write ``area.json``.

    Modules that are alike are synthesised once, whichever heads they are of.

    Parameters
    ----------
    params
        The head; its ``readout`` is what ``config_hash`` refers to, both are measured.
    liberty
        Standard-cell library, plain or compressed; `synth.liberty.DEFAULT_LIBERTY` if None.
    report_dir
        Folder of the result; ``build/report`` by default.
    cache_dir
        Where outcomes are kept, by content of module, script and library; None keeps nothing.
    variants
        Heads to compare, each after what it is compared with.
    on_progress
        Called with modules done, modules known so far and the block just done. By default a bar
        appears in a terminal when the job takes longer than two seconds.

    Returns
    -------
    dict
        The figures, as in ``area.json``.

    Raises
    ------
    LibertyError
        The library is missing or lacks what the flow needs.
    YosysError
        A script failed, or a cell could not be mapped to the library; the message names its type.
    """
    library = open_library(liberty, cache_dir=cache_dir)
    heads = {readout: replace(params, readout=readout) for readout in reversed(READOUTS)}
    designs = dict.fromkeys([*heads.values(), *(variant.params for variant in variants)])
    figures: dict[str, dict[str, Any]] = {}
    futures: dict[Future[dict[str, Any]], _Job] = {}
    started: set[str] = set()
    with ExitStack() as stack:
        report = on_progress or _progress_bar(stack)
        pool = stack.enter_context(ThreadPoolExecutor(_PROCESSES))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        jobs = {}
        for design in designs:  # processes synthesise while the next is being elaborated
            jobs[design] = _jobs(design, library, cache_dir)
            # The longest first, so that no process is left with it at the end.
            for job in sorted(jobs[design], key=lambda job: (-len(job.rtlil), job.digest)):
                if job.key(library) not in started:
                    started.add(job.key(library))
                    futures[pool.submit(_synthesise, job, library, cache_dir)] = job
            report(len(figures), len(futures), "")
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                figures[futures[future].key(library)] = future.result()
            last = futures[next(iter(done))].block if done else ""
            if done or on_progress is None:
                report(len(figures), len(futures), last)

    def measured(head: HeadParams) -> dict[str, Any]:
        return _sum([(job, figures[job.key(library)]) for job in jobs[head]], head, library)

    readouts = {readout: measured(heads[readout]) for readout in READOUTS}
    areas = {name: readouts[name]["blocks"]["readout"]["area_um2"] for name in READOUTS}
    result = {
        "library": {
            "name": library.name,
            "file": library.path.name,
            "sha256": library.sha256,
            "gate_equivalent": library.nand2,
            "full_adder": library.full_adder.name if library.full_adder else None,
        },
        "yosys": yosys_version(),
        "gate_equivalent_um2": library.gate_equivalent_um2,
        "readouts": readouts,
        "readout_ratio": round(areas["counter"] / areas["population"], 3),
        "readout_ratio_target": RATIO_TARGET if params.subtiles >= _TARGET_SUBTILES else None,
        "variants": _compared({v: measured(v.params) for v in variants}, library),
        "params": asdict(params),
        "config_hash": params.config_hash,
    }
    write_result(
        "area",
        result,
        config_hash=params.config_hash,
        tools=("pyosys", "amaranth"),
        report_dir=report_dir,
    )
    return result


def _sum(
    modules: Iterable[tuple[_Job, Mapping[str, Any]]], params: HeadParams, library: Library
) -> dict[str, Any]:
    """Figures of a head: by block and in all."""

    def gates(row: dict[str, Any]) -> dict[str, Any]:
        row["area_um2"] = round(row["area_um2"], 4)
        row["gate_equivalents"] = round(row["area_um2"] / library.gate_equivalent_um2, 1)
        return row

    blocks: dict[str, dict[str, Any]] = {}
    total: dict[str, Any] = dict.fromkeys(_FIGURES, 0)
    store_bits = 0
    for job, figures in modules:
        row = blocks.setdefault(job.block, dict.fromkeys(_FIGURES, 0) | {"full_adder": False})
        row["full_adder"] |= figures["full_adder"]
        for name in _FIGURES:
            row[name] += figures[name]
            total[name] += figures[name]
        store_bits += job.store_bits
    own = {"code_store_bits": store_bits, "config_hash": params.config_hash}
    blocks[GLUE] = blocks.pop(GLUE)  # last
    return gates(total) | own | {"blocks": {name: gates(row) for name, row in blocks.items()}}


def _compared(
    measured: Mapping[Variant, Mapping[str, Any]], library: Library
) -> list[dict[str, Any]]:
    """Rows of a comparison: each head's figures, and the difference to what it is compared with."""
    rows: dict[str, dict[str, Any]] = {}
    for variant, head in measured.items():
        heads = variant.params.heads
        row = {
            "name": variant.name,
            "base": variant.base,
            "times": variant.times,
            "heads": heads,
            **{name: head[name] for name in (*_FIGURES, "code_store_bits", "config_hash")},
            "per_head": round(head["area_um2"] / library.gate_equivalent_um2 / heads, 1),
            "difference": None,
            "ratio": None,
        }
        if variant.base is not None:
            base = variant.times * rows[variant.base]["area_um2"]
            row["difference"] = round((row["area_um2"] - base) / library.gate_equivalent_um2, 1)
            row["ratio"] = round(row["area_um2"] / base, 4)
        rows[variant.name] = row
    return list(rows.values())


def _progress_bar(stack: ExitStack) -> Callable[[int, int, str], None]:
    """Bar on the terminal that appears after `_QUIET_S`."""
    begin = time.monotonic()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("synthesis", total=None)
    shown = False

    def report(done: int, total: int, block: str) -> None:
        nonlocal shown
        if not shown and time.monotonic() - begin > _QUIET_S and bar.console.is_terminal:
            stack.enter_context(bar)
            shown = True
        bar.update(task, completed=done, total=total)
        if block:
            bar.update(task, description=f"synthesis: {block} done")

    return report


def area_table(result: Mapping[str, Any]) -> Table:
    """Table of an area result: blocks by size, both readouts side by side."""
    library, readouts = result["library"], result["readouts"]
    ratio, target = result["readout_ratio"], result["readout_ratio_target"]
    verdict = ""
    if target:
        verdict = f" (target {target:g}: {'met' if ratio >= target else 'MISSED'})"
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title=f"Area on {library['name']} (1 gate = {library['gate_equivalent']}, "
        f"{result['gate_equivalent_um2']:g} µm²)",
        caption=f"readout block: counter / population = {ratio:.2f}{verdict}; "
        f"pre-layout, digital part only; configuration {result['config_hash']}",
    )
    table.add_column("block", no_wrap=True)
    for readout in READOUTS:
        for column in (f"{readout}\nµm²", "\ngates", "flip-\nflops"):
            table.add_column(column, justify="right", no_wrap=True)

    def cells(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
        texts = []
        for readout in READOUTS:
            row = rows[readout]
            texts += [
                f"{row['area_um2']:,.0f}",
                f"{row['gate_equivalents']:,.0f}",
                f"{row['flip_flops']:,}",
            ]
        return texts

    first = readouts[READOUTS[0]]["blocks"]
    for block in sorted(first, key=lambda name: -first[name]["area_um2"]):
        table.add_row(block, *cells({r: readouts[r]["blocks"][block] for r in READOUTS}))
    table.add_section()
    table.add_row("whole head", *cells({r: readouts[r] for r in READOUTS}), style="bold")
    return table


def variant_table(result: Mapping[str, Any]) -> Table:
    """Table of the heads that an area result compares."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title=f"What features cost, in gates of {result['library']['gate_equivalent']}",
        caption="pre-layout, digital part only; kbit: of the copy of the codes, a memory and no "
        "gates",
    )
    table.add_column("head", no_wrap=True)
    for column in ("gates", "per head", "more", ""):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("than", no_wrap=True)
    table.add_column("kbit", justify="right", no_wrap=True)
    for row in result["variants"]:
        base = difference = ratio = ""
        if row["base"]:
            base = f"{row['times']} × {row['base']}" if row["times"] > 1 else row["base"]
            difference, ratio = f"{row['difference']:+,.0f}", f"{row['ratio'] - 1:+.1%}"
        bits = row["code_store_bits"]
        table.add_row(
            row["name"],
            f"{row['gate_equivalents']:,.0f}",
            f"{row['per_head']:,.0f}" if row["heads"] > 1 else "",
            difference,
            ratio,
            base,
            f"{bits / 1024:,.0f}" if bits else "",
        )
    return table
