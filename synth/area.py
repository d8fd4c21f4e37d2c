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
from collections.abc import Callable, Iterable, Mapping, Set
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
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
from synth.verilog import component_rtlil
from synth.yosys import YosysError, run_yosys, yosys_version

__all__ = ["GLUE", "RATIO_TARGET", "area_table", "head_modules", "run_area"]

TOP = "attention_head"

#: The head's own cells, outside its blocks.
GLUE = "glue"
#: How much smaller than the counter readout the population readout must be at the least, in a
#: head of as many sub-tiles as the default one: with few, there is little to save.
RATIO_TARGET = 4.0
_TARGET_SUBTILES = HeadParams().subtiles

_FIGURES = ("cells", "area_um2", "gate_equivalents", "flip_flops")
_PROCESSES = 2
_QUIET_S = 2.0
_MODULE = re.compile(r"^(?:attribute [^\n]*\n)*module \\(\S+)\n.*?^end$\n?", re.M | re.S)
_SUFFIX = re.compile(r"\$\d+$")


def head_modules(params: HeadParams) -> dict[str, str]:
    """RTLIL of every block of a head, and of what connects them (`GLUE`), each by itself.

    The blocks are cut out of the whole head, so they have just the ports that the head uses.
    """
    modules = {}
    for match in _MODULE.finditer(component_rtlil(AttentionLayer(params), TOP)):
        name, text = match[1], match[0]
        block = GLUE if name == TOP else _SUFFIX.sub("", name.removeprefix(f"{TOP}."))
        # Amaranth marks the head as the top; each block is the top of its own design here.
        text = text.replace("attribute \\top 1\n", "", 1)
        modules[block] = text.replace(f"module \\{name}\n", f"module \\{block}\n", 1)
    return modules


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


def _script(top: str, library: Library) -> dict[str, list[str]]:
    """Commands up to gates, and from gates to cells without and with the library's full adder."""
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

    block: str
    rtlil: str
    key: str  #: hash of everything the outcome depends on
    boxes: frozenset[str] = frozenset()  #: types of its cells that are synthesised elsewhere


def _job(block: str, rtlil: str, library: Library, boxes: Iterable[str] = ()) -> _Job:
    parts = [
        rtlil,
        json.dumps(_script(block, library)),
        _adder_map(library.full_adder) if library.full_adder else "",
        library.sha256,
        yosys_version(),
    ]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return _Job(block, rtlil, key, frozenset(boxes))


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
    cached = cache_dir / f"area-{job.key[:32]}.json" if cache_dir else None
    if cached and cached.exists():
        figures: dict[str, Any] = json.loads(cached.read_text(encoding="utf-8"))
        return figures
    scripts = _script(job.block, library)
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
            kinds = json.loads(text)["modules"][f"\\{job.block}"].get("num_cells_by_type", {})
            figures = _figures(kinds, library, job.block, job.boxes)
            found.append(figures | {"full_adder": script == "full_adder"})
    best = min(found, key=lambda figures: figures["area_um2"])
    if cached:
        write_text_whole(cached, json.dumps(best) + "\n")
    return best


def _boxed(glue: str, blocks: Mapping[str, str]) -> str:
    """The head's own logic, with every block an empty box of the same ports."""
    boxes = []
    for block, text in blocks.items():
        ports = re.findall(r"^  wire [^\n]*\b(?:input|output|inout) \d+[^\n]*$", text, re.M)
        boxes.append(f"attribute \\blackbox 1\nmodule \\{block}\n" + "\n".join(ports) + "\nend\n")
    names = "|".join(map(re.escape, blocks))
    glue = re.sub(
        rf"^(  cell )\\{re.escape(TOP)}\.({names})(?:\$\d+)? ", r"\1\\\2 ", glue, flags=re.M
    )
    return "".join(boxes) + glue


def run_area(
    params: HeadParams,
    *,
    liberty: Path | str | None = None,
    report_dir: Path | None = None,
    cache_dir: Path | None = ROOT / "build" / "cache",
    on_progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Measure the area of a head with either readout and write ``area.json``.

    Parameters
    ----------
    params
        The head; its ``readout`` is what ``config_hash`` refers to, both are measured.
    liberty
        Standard-cell library, plain or compressed; `synth.liberty.DEFAULT_LIBERTY` if None.
    report_dir
        Folder of the result; ``build/report`` by default.
    cache_dir
        Where outcomes are kept, by content of block, script and library; None keeps nothing.
    on_progress
        Called with blocks done, blocks in all and the block just done. By default a bar appears
        in a terminal when the job takes longer than two seconds.

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
    heads: dict[str, dict[str, _Job]] = {}
    for readout in READOUTS:
        modules = head_modules(replace(params, readout=readout))
        glue = modules.pop(GLUE)
        heads[readout] = {block: _job(block, text, library) for block, text in modules.items()}
        heads[readout][GLUE] = _job(GLUE, _boxed(glue, modules), library, modules)
    jobs = {job.key: job for blocks in heads.values() for job in blocks.values()}
    # The longest first, so that no process is left with it at the end.
    order = sorted(jobs.values(), key=lambda job: (-len(job.rtlil), job.key))
    figures = {}
    with ExitStack() as stack:
        report = on_progress or _progress_bar(stack)
        pool = stack.enter_context(ThreadPoolExecutor(_PROCESSES))
        futures = {pool.submit(_synthesise, job, library, cache_dir): job for job in order}
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                job = futures[future]
                figures[job.key] = future.result()
            last = futures[next(iter(done))].block if done else ""
            if done or on_progress is None:
                report(len(jobs) - len(pending), len(jobs), last)

    readouts = {}
    for readout, blocks in heads.items():
        rows = {block: figures[job.key] for block, job in blocks.items()}
        total = {name: sum(row[name] for row in rows.values()) for name in _FIGURES}
        total["area_um2"] = round(total["area_um2"], 4)
        total["gate_equivalents"] = round(total["area_um2"] / library.gate_equivalent_um2, 1)
        own_hash = replace(params, readout=readout).config_hash
        readouts[readout] = total | {"config_hash": own_hash, "blocks": rows}
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
