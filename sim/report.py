"""Report: one page of HTML, and a summary for the terminal, from whatever jobs have been run."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sim.figures import draw_area, draw_waveform, wave_phases
from sim.metrics import METRICS, RULES, read_rules
from sim.published import PAPER
from sim.results import ROOT, write_text_whole
from sim.silicon import CHOSEN, build_silicon
from sim.silicon_figures import draw_energy, draw_floorplan, draw_history, draw_times
from synth.scaling import GATE_28NM_UM2

__all__ = ["COMMANDS", "draw_pictures", "terminal_summary", "write_report"]

#: Results that the page shows, and the command that makes each.
COMMANDS = {
    "cosim": "make cosim",
    "tokens": "make demo",
    "area": "make area",
    "timing": "make timing",
    "energy": "make energy",
    "mutants": "make mutants",
    "formal": "make formal",
    "bench": "make bench",
}
_PICTURE_COMMANDS = {
    "waveform": "make cosim report",
    "attention": "make cosim",
    "area": "make area report",
    "energy": "make energy report",
    "floorplan": "make timing report",
    "times": "make report",
    "history": "make metrics-update report",
}
#: Results that silicon figures are made from.
_SILICON = ("area", "timing", "energy")
_PAGE_NAME = "index.html"


def _folder(report_dir: Path | None) -> Path:
    return report_dir or ROOT / "build" / "report"


def _load(report: Path, name: str) -> dict[str, Any] | None:
    """Return a result, or None if its job has not run."""
    path = report / f"{name}.json"
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is no valid JSON ({error}); remake it") from None
    if not isinstance(result, dict):
        raise ValueError(f"{path.name} must hold a JSON object, not {type(result).__name__!r}")
    return result


def draw_pictures(report_dir: Path | None = None) -> list[Path]:
    """Draw the pictures whose results are newer than they are.

    Parameters
    ----------
    report_dir
        Folder of the results; ``build/report`` by default.

    Returns
    -------
    list of Path
        The files written.
    """
    report = _folder(report_dir)
    written: list[Path] = []
    for source, name, draw in (
        ("wave", "waveform", draw_waveform),
        ("area", "area", draw_area),
    ):
        made_from, picture = report / f"{source}.json", report / f"{name}.svg"
        if not made_from.exists():
            continue
        if not picture.exists() or picture.stat().st_mtime < made_from.stat().st_mtime:
            result = _load(report, source)
            assert result is not None
            written += draw(picture, result)
    silicon = _load(report, "silicon")
    made_from = report / "silicon.json"
    for name in ("energy", "floorplan", "times") if silicon else ():
        picture = report / f"{name}.svg"
        if not picture.exists() or picture.stat().st_mtime < made_from.stat().st_mtime:
            assert silicon is not None
            written += _draw_silicon(name, picture, silicon, _block_areas(report))
    picture, history = report / "history.svg", read_rules()["history"]
    if history and (not picture.exists() or picture.stat().st_mtime < RULES.stat().st_mtime):
        written += draw_history(picture, history, {m.name: m.title for m in METRICS})
    return written


def _draw_silicon(
    name: str, picture: Path, silicon: Mapping[str, Any], blocks: Mapping[str, float]
) -> tuple[Path, ...]:
    """Draw a picture of silicon figures if what it shows has been measured."""
    if name == "times":
        return draw_times(picture, silicon)
    if name == "energy" and silicon["digital_energy_pj_28nm"] is not None:
        return draw_energy(picture, silicon)
    if name == "floorplan" and silicon["digital_area_mm2_28nm"] is not None:
        whole = sum(blocks.values())
        return draw_floorplan(picture, silicon, {b: area / whole for b, area in blocks.items()})
    return ()


def _block_areas(report: Path) -> dict[str, float]:
    """Area of each block in the library's node, of the timed netlist if there is one."""
    if timing := _load(report, "timing"):
        blocks = timing["blocks"]
    elif area := _load(report, "area"):
        own = area.get("params", {}).get("readout", next(iter(area["readouts"])))
        blocks = area["readouts"][own]["blocks"]
    else:
        return {}
    # Of the ports only the slack is known.
    return {name: figs["area_um2"] for name, figs in blocks.items() if "area_um2" in figs}


# --- page ---------------------------------------------------------------------------------------


def _number(value: float) -> str:
    """Whole number with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\u202f")


def _percent(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f}\u202f%"


def _signed(value: float) -> str:
    """Share with its sign."""
    digits = 0 if abs(value) >= 0.095 else 1
    return f"{100 * value:+.{digits}f}\u202f%".replace("-", "−")


def _figure(value: float | None, digits: int = 0) -> str:
    """Number with thin spaces between thousands and fixed decimals; nothing for None."""
    return "" if value is None else f"{value:,.{digits}f}".replace(",", "\u202f")


def _significant(value: float) -> str:
    """Number to three significant digits."""
    if abs(value) >= 100:
        return _figure(float(f"{value:.3g}"))
    return f"{value:.3g}"


def _grouped(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Rows by what stands under a key, in their order."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return [{"name": name, "rows": rows} for name, rows in groups.items()]


def _silicon_cards(silicon: Mapping[str, Any]) -> list[dict[str, str]]:
    cards = []
    for name, label, digits, unit in (
        ("digital_energy_pj_28nm", "digital energy per token and head, scaled to 28 nm", 0, "pJ"),
        ("digital_area_mm2_28nm", "digital area per head, scaled to 28 nm", 3, "mm²"),
        ("fmax_mhz_28nm", "highest clock, scaled to 28 nm", 0, "MHz"),
    ):
        figure = silicon["figures"][name]
        if figure["value"] is None:
            continue
        error = " not known" if figure["error"] is None else f": {_signed(figure['error'])}"
        cards.append(
            {
                "label": f"{label} (method's error{error})",
                "value": f"{_figure(figure['value'], digits)}\u202f{unit}",
                "mood": "",
            }
        )
    return cards


def _key_figures(results: Mapping[str, dict[str, Any] | None]) -> list[dict[str, str]]:
    """Label, value and mood of the figures that matter most."""
    figures = []
    if cosim := results["cosim"]:
        wrong = cosim["mismatches"]
        figures += [
            {
                "label": f"mismatches in {_number(cosim['lanes_compared'])} integers compared",
                "value": _number(wrong),
                "mood": "bad" if wrong else "good",
            },
            {
                "label": "latency, last token beat in to first result beat out",
                "value": f"{cosim['latency_clk']} clocks",
                "mood": "",
            },
            {
                "label": "real tokens co-simulated per second of wall time",
                "value": f"{_number(cosim['tokens_per_second'])}\u202f/s",
                "mood": "",
            },
        ]
    if silicon := results.get("silicon"):
        figures += _silicon_cards(silicon)
    if area := results["area"]:
        ratio, target = area["readout_ratio"], area.get("readout_ratio_target")
        own = area.get("params", {}).get("readout", next(iter(area["readouts"])))
        head = area["readouts"][own]
        figures += [
            {
                "label": f"smaller readout than with counters, {area['library']['name']}"
                + (f" (target {target:g}×)" if target else ""),
                "value": f"{ratio:.1f}×",
                "mood": "" if not target else "good" if ratio >= target else "bad",
            },
            {
                "label": f"digital part, {_number(head['gate_equivalents'])} gates, pre-layout",
                "value": f"{head['area_um2'] / 1e6:.3f}\u202fmm²",
                "mood": "",
            },
        ]
    if mutants := results["mutants"]:
        figures.append(
            {
                "label": "mutants of the netlist caught",
                "value": f"{_number(mutants['caught'])} of {_number(mutants['count'])}",
                "mood": "",
            }
        )
    return figures


def _shares(cosim: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": part.replace("_", " "), "share": share}
        for part, share in sorted(cosim.get("time_share", {}).items(), key=lambda item: -item[1])
    ]


def _cosim_rows(cosim: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("real tokens", _number(cosim["tokens"])),
        ("integers compared", _number(cosim["lanes_compared"])),
        ("mismatches", _number(cosim["mismatches"])),
        ("latency, last token beat to first result beat", f"{cosim['latency_clk']} clocks"),
        ("clocks simulated", _number(cosim["clocks"])),
        ("time", f"{cosim['seconds']:.1f} s"),
        ("clocks per second", _number(cosim["clocks_per_second"])),
        ("tokens per second", _number(cosim["tokens_per_second"])),
    ]
    if "full_scale_lanes" in cosim:
        rows.append(
            ("results at full scale (counted, not hidden)", _number(cosim["full_scale_lanes"]))
        )
    return rows


def _waveform_alt(wave: Mapping[str, Any] | None) -> str:
    text = "Waveform of one token."
    if wave:
        phases = [f"{p.title} {p.clocks} clocks from clock {p.start}" for p in wave_phases(wave)]
        text = f"Waveform of one token: {'; '.join(phases)}."
    return text


def _area_alt(area: Mapping[str, Any] | None) -> str:
    if not area:
        return "Area by block."
    heads = [
        f"{_number(head['gate_equivalents'])} gates with the {name} readout, "
        f"{_number(head['blocks']['readout']['gate_equivalents'])} of them in the readout"
        for name, head in area["readouts"].items()
    ]
    return f"Bars of area by block. Whole head: {'; '.join(heads)}."


def _embedded(path: Path) -> str | None:
    """Picture as a data address, so that the page is one file."""
    if not path.exists():
        return None
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _tools(result: Mapping[str, Any]) -> str:
    return ", ".join(f"{tool} {version}" for tool, version in result.get("tools", {}).items())


def _library(result: Mapping[str, Any]) -> str:
    """Name of a result's library, and the beginning of its content's hash."""
    library = result.get("library", "")
    if isinstance(library, str):
        return library
    return f"{library['name']} ({library['sha256'][:12]})"


def write_report(report_dir: Path | None = None, *, node_nm: int | None = None) -> Path:
    """Write ``index.html`` from the results and pictures in a folder; one file, no scripts.

    What is missing is said on the page, with the command that makes it.

    Parameters
    ----------
    report_dir
        Folder of the results; ``build/report`` by default.
    node_nm
        Node of the library of the last run, if its name does not tell.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ValueError
        A result file is damaged.
    """
    report = _folder(report_dir)
    results = {name: _load(report, name) for name in COMMANDS}
    silicon = (
        build_silicon(report, node_nm=node_nm) if any(results[name] for name in _SILICON) else None
    )
    draw_pictures(report)
    cosim, area = results["cosim"], results["area"]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=False,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": _number,
        "percent": _percent,
        "signed": _signed,
        "figure": _figure,
        "significant": _significant,
        "groupby_order": _grouped,
    }
    blocks: list[str] = []
    if area:
        first = next(iter(area["readouts"].values()))["blocks"]
        blocks = sorted(first, key=lambda block: -first[block]["area_um2"])
    cosim_view = None
    if cosim:
        absent = ("model_layer", "model_head", "text", "simulator", "seed", "first_mismatch")
        cosim_view = dict.fromkeys(absent, "") | {"decay_per_token": 0.0, "stall_probability": 0.0}
        cosim_view |= cosim
    text = environment.get_template("report.html.j2").render(
        results
        | {
            "cosim": cosim_view,
            "commands": COMMANDS,
            "picture_commands": _PICTURE_COMMANDS,
            "pictures": {name: _embedded(report / f"{name}.svg") for name in _PICTURE_COMMANDS},
            "cards": _key_figures(results | {"silicon": silicon}),
            "cosim_rows": _cosim_rows(cosim) if cosim else [],
            "shares": _shares(cosim) if cosim else [],
            "blocks": blocks,
            "waveform_alt": _waveform_alt(_load(report, "wave")),
            "area_alt": _area_alt(area),
            "params": (cosim or area or {}).get("params", {}),
            **_silicon_view(silicon, results["energy"], report),
            "provenances": {
                name: {
                    "config_hash": result.get("config_hash", ""),
                    "date": result.get("date", ""),
                    "tools": _tools(result),
                    "library": _library(result),
                }
                for name, result in results.items()
                if result
            },
        }
    )
    page = report / _PAGE_NAME
    write_text_whole(page, text)
    return page


def _silicon_view(
    silicon: Mapping[str, Any] | None, energy: Mapping[str, Any] | None, report: Path
) -> dict[str, Any]:
    """What the page says of silicon."""
    view: dict[str, Any] = {
        "silicon": silicon,
        "crossbars_mm2": PAPER.crossbars_mm2,
        "cells": _number(2 * PAPER.window * PAPER.head_size),
        "history_alt": _history_alt(),
    }
    if silicon is None:
        return view
    tables = []
    if energy:
        tables = [
            ("By cause", _by_size(energy["parts"])),
            ("By block", _by_size({b: f["energy_pj"] for b, f in energy["blocks"].items()})),
            ("By phase, one token alone, above idle", list(energy["phases"].items())),
        ]
    ours, digital = silicon["analog"], silicon["digital_energy_pj_28nm"]
    blocks = _block_areas(report)
    whole = sum(blocks.values())
    return view | {
        "own": silicon["figures"]["digital_area_mm2_28nm"]["library"],
        "chosen": CHOSEN,
        "units": {
            "delay": "clock period, ns",
            "energy": "switching, pJ",
            "area": "area, µm²",
        },
        "gate_um2": GATE_28NM_UM2,
        "gpu_heads": PAPER.heads,
        "energy_tables": tables,
        "energy_alt": (
            f"Two discs. Published: Q·K {PAPER.qk_pj:g} pJ, φ·V {PAPER.phi_v_pj:g} pJ, DACs "
            f"{PAPER.dac_pj:g} pJ, digital {PAPER.digital_pj:g} pJ. Ours: Q·K {ours['qk_pj']:.0f} "
            f"pJ, φ·V {ours['phi_v_pj']:.0f} pJ, DACs {ours['dac_pj']:.0f} pJ, digital "
            f"{_figure(digital)} pJ."
        ),
        "floorplan_alt": (
            f"A square of {PAPER.area_mm2:g} mm² with {2 * silicon['params']['subtiles']} small "
            "squares, the arrays, and along its edge a strip of "
            f"{_figure(silicon['digital_area_mm2_28nm'], 4)} mm², the digital part: "
            + ", ".join(
                f"{block.replace('_', ' ')} {_percent(area / whole)}"
                for block, area in sorted(blocks.items(), key=lambda item: -item[1])
            )
            + "."
        ),
        "times_alt": (
            f"Bars. Published head {PAPER.latency_ns:g} ns; ours {silicon['latency_clk']} clocks, "
            f"a token every {silicon['interval_clk']}; "
            + "; ".join(
                f"{gpu['name']} {gpu['measured_us']:.1f} µs, at least {gpu['least_us']:.1f} µs"
                for gpu in silicon["gpus"]
            )
            + "."
        ),
    }


def _history_alt() -> str:
    rules = read_rules()
    now = ", ".join(
        f"{metric.title} {rules['values'][metric.name]:,.6g} {metric.unit}"
        for metric in METRICS
        if metric.name in rules["values"]
    )
    return f"A small plot per metric over {len(rules['history'])} updates. Now: {now}."


def _by_size(values: Mapping[str, float]) -> list[tuple[str, float]]:
    """Items with readable names, the largest first."""
    items = sorted(values.items(), key=lambda item: -item[1])
    return [(name.replace("_", " "), value) for name, value in items]


# --- terminal -----------------------------------------------------------------------------------


def terminal_summary(report_dir: Path | None = None) -> RenderableType:
    """Return the page's key figures as something `rich` prints."""
    report = _folder(report_dir)
    results = {name: _load(report, name) for name in (*COMMANDS, "silicon")}
    table = Table(title="Attention in gain cells: one head", show_header=False)
    table.add_column("figure")
    table.add_column("value", justify="right")
    colours = {"good": "bold green", "bad": "bold red"}
    if cosim := results["cosim"]:
        table.add_row(
            "simulated",
            f"{_number(cosim['tokens'])} real tokens of “{cosim.get('text', '')}”, layer "
            f"{cosim.get('model_layer', '')}, head {cosim.get('model_head', '')}; "
            f"{cosim.get('simulator', '')}, seed {cosim.get('seed', '')}",
        )
    for figure in _key_figures(results):
        table.add_row(figure["label"], Text(figure["value"], style=colours.get(figure["mood"], "")))
    for part in _shares(cosim) if cosim else []:
        table.add_row(f"time in {part['name']}", _percent(part["share"]))
    hashes = {
        result["config_hash"] for name, result in results.items() if result and name != "tokens"
    }
    if hashes:
        table.add_row("configuration", ", ".join(sorted(hashes)))
    notes = [
        Text.assemble(f"{name}: not run; ", (command, "bold"), " makes it")
        for name, command in COMMANDS.items()
        if not results[name]
    ]
    if silicon := results["silicon"]:
        notes += [Text.assemble(("note: ", "bold yellow"), note) for note in silicon["notes"]]
    limits = Text(
        "Pre-layout; the analog part is published or modelled; 28 nm is predicted, not built.",
        style="dim",
    )
    return Group(table, *notes, limits)
