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
from sim.results import ROOT, write_text_whole

__all__ = ["COMMANDS", "draw_pictures", "terminal_summary", "write_report"]

#: Results that the page shows, and the command that makes each.
COMMANDS = {
    "cosim": "make cosim",
    "tokens": "make demo",
    "area": "make area",
    "mutants": "make mutants",
    "formal": "make formal",
    "bench": "make bench",
}
_PICTURE_COMMANDS = {
    "waveform": "make cosim report",
    "attention": "make cosim",
    "area": "make area report",
}
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
    return written


# --- page ---------------------------------------------------------------------------------------


def _number(value: float) -> str:
    """Whole number with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\u202f")


def _percent(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f}\u202f%"


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


def write_report(report_dir: Path | None = None) -> Path:
    """Write ``index.html`` from the results and pictures in a folder; one file, no scripts.

    What is missing is said on the page, with the command that makes it.

    Parameters
    ----------
    report_dir
        Folder of the results; ``build/report`` by default.

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
    draw_pictures(report)
    results = {name: _load(report, name) for name in COMMANDS}
    cosim, area = results["cosim"], results["area"]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=False,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": _number, "percent": _percent}
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
            "cards": _key_figures(results),
            "cosim_rows": _cosim_rows(cosim) if cosim else [],
            "shares": _shares(cosim) if cosim else [],
            "blocks": blocks,
            "waveform_alt": _waveform_alt(_load(report, "wave")),
            "area_alt": _area_alt(area),
            "params": (cosim or area or {}).get("params", {}),
            "provenances": {
                name: {
                    "config_hash": result.get("config_hash", ""),
                    "date": result.get("date", ""),
                    "tools": _tools(result),
                }
                for name, result in results.items()
                if result
            },
        }
    )
    page = report / _PAGE_NAME
    write_text_whole(page, text)
    return page


# --- terminal -----------------------------------------------------------------------------------


def terminal_summary(report_dir: Path | None = None) -> RenderableType:
    """Return the page's key figures as something `rich` prints."""
    report = _folder(report_dir)
    results = {name: _load(report, name) for name in COMMANDS}
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
    limits = Text(
        "Area is pre-layout, of the digital part; 1 GHz is assumed, not timed.", style="dim"
    )
    return Group(table, *notes, limits)
