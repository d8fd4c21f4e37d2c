"""Pictures of the report: one token's phases on the wires, and area by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

__all__ = ["Phase", "draw_area", "draw_waveform", "wave_phases"]

_INK = "#1b1b1f"
_MUTED = "#5b5f66"
_TRACE = "#1f4e79"
_BUS = "#eaf1f8"

#: Phases: signals that mark one (the first that the recording has), title, colour.
_PHASES = (
    (("s_axis_tvalid",), "token beats", "#8c96a3"),
    (("ana_k_write", "k_write"), "write K", "#d9822b"),
    (("ana_v_write", "v_write"), "write V", "#c9a227"),
    (("ana_integrate", "integrate"), "integrate Q·K", "#2f7ebc"),
    (("ana_convert", "convert"), "convert to φ", "#3a9a6b"),
    (("ana_readout", "readout"), "read out", "#8a5fb0"),
    (("m_axis_tvalid",), "result beats", "#8c96a3"),
)
#: What a recorded signal is called in the picture.
_TITLES = {
    "s_axis_tvalid": "token beat valid",
    "s_axis_tlast": "last beat",
    "ana_k_write": "write K",
    "ana_v_write": "write V",
    "ana_scores_reset": "reset integrators 1",
    "ana_integrate": "integrate Q·K",
    "ana_q_pulse": "query pulses high",
    "ana_outputs_reset": "reset integrators 2",
    "ana_convert": "convert to φ",
    "ana_readout": "read out",
    "ana_out_pulse": "result pulses high",
    "m_axis_tvalid": "result beat valid",
    "m_axis_tlast": "last beat",
}


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase of a recorded token."""

    title: str
    colour: str
    start: int  #: first clock, counted from the start of the recording
    clocks: int


def _save(figure: Figure, path: Path, salt: str) -> tuple[Path, Path]:
    png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "path"}):
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    return png, svg


def _spans(values: Sequence[int]) -> list[tuple[int, int, int]]:
    """Runs of equal values: (start, length, value)."""
    spans, at = [], 0
    for value, run in groupby(values):
        length = sum(1 for _ in run)
        spans.append((at, length, value))
        at += length
    return spans


def wave_phases(wave: Mapping[str, Any]) -> list[Phase]:
    """Phases of the first token of a recording, by the control lines that mark them."""
    signals = {signal["name"]: signal["values"] for signal in wave["signals"]}
    phases = []
    for names, title, colour in _PHASES:
        values = next((signals[name] for name in names if name in signals), None)
        high = [span for span in _spans(values or []) if span[2]]
        if high:
            phases.append(Phase(title=title, colour=colour, start=high[0][0], clocks=high[0][1]))
    return phases


def draw_waveform(path: Path, wave: Mapping[str, Any]) -> tuple[Path, Path]:
    """Draw one token's phases from a recorded run, as PNG and as SVG.

    One-bit signals are traces. Of a wider signal the number of bits that are high is shown, span by
    span: of 64 pulses at once that is what one can read.

    Parameters
    ----------
    path
        File to write; its ending is replaced by ``.png`` and ``.svg``.
    wave
        ``clock_ns``, the ``start`` in clocks, and ``signals``, each with ``name``, ``width`` and a
        value per clock.

    Returns
    -------
    png, svg
        Paths of the two files.

    Raises
    ------
    ValueError
        There is no signal, or their lengths differ.
    """
    signals = wave["signals"]
    lengths = {len(signal["values"]) for signal in signals}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"signals must have the same number of clocks, not {sorted(lengths)!r}")
    phases = wave_phases(wave)
    clocks = lengths.pop()
    if phases:  # what follows the last phase is of no interest
        clocks = min(clocks, max(phase.start + phase.clocks for phase in phases) + 3)

    rows = len(signals)
    figure = Figure(figsize=(12.0, 1.55 + 0.34 * rows), facecolor="white", layout="constrained")
    axis: Axes = figure.subplots()
    axis.set_xlim(0, clocks)
    axis.set_ylim(rows + 0.15, -1.75)
    for phase in phases:
        end = phase.start + phase.clocks
        # Writing V runs within the integration: its title takes the second line.
        level = -0.55 if phase.title == "write V" else -1.2
        axis.axvspan(phase.start, end, color=phase.colour, alpha=0.13, lw=0, zorder=0)
        axis.plot([phase.start, end], [level + 0.36] * 2, color=phase.colour, lw=3.2, zorder=3)
        narrow = phase.clocks < 8
        axis.annotate(
            f"{phase.title} {phase.clocks}" if narrow else f"{phase.title}\n{phase.clocks} clocks",
            ((phase.start + end) / 2, level + 0.2),
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=_INK,
            linespacing=1.05,
            annotation_clip=False,
        )
    for row, signal in enumerate(signals):
        values = signal["values"][:clocks]
        top, bottom = row + 0.18, row + 0.78
        axis.axhline(bottom, color="0.88", lw=0.6, zorder=1)
        if signal["width"] == 1:
            xs, ys = [], []
            for start, length, value in _spans(values):
                xs += [start, start + length]
                ys += [top if value else bottom] * 2
            axis.plot(xs, ys, color=_TRACE, lw=1.5, solid_joinstyle="miter", zorder=2)
        else:
            _draw_bus(axis, [int(value).bit_count() for value in values], top, bottom)
    axis.set_yticks(
        [row + 0.5 for row in range(rows)],
        [_TITLES.get(signal["name"], signal["name"]) for signal in signals],
        fontsize=9,
        color=_INK,
        parse_math=False,
    )
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=8.5, colors=_MUTED)
    step = 5 if clocks <= 120 else 20
    axis.set_xticks(range(0, clocks + 1, step))
    axis.set_xlabel(
        f"clocks of {wave['clock_ns']:g} ns, from clock {wave['start']} of the run",
        fontsize=9,
        color=_MUTED,
    )
    axis.spines[["left", "right", "top"]].set_visible(False)
    return _save(figure, path, "waveform")


def _draw_bus(axis: Axes, values: Sequence[int], top: float, bottom: float) -> None:
    """Draw labelled hexagons; a value of zero is a flat line."""
    middle, slope = (top + bottom) / 2, 0.18
    for start, length, value in _spans(values):
        end = start + length
        if not value:
            axis.plot([start, end], [bottom] * 2, color=_TRACE, lw=1.2, zorder=2)
            continue
        corners = [
            (start, middle),
            (start + slope, top),
            (end - slope, top),
            (end, middle),
            (end - slope, bottom),
            (start + slope, bottom),
        ]
        axis.add_patch(Polygon(corners, facecolor=_BUS, edgecolor=_TRACE, lw=0.9, zorder=2))
        text = str(value)
        if length >= 0.55 * len(text):
            size = 6.6 if len(text) > 2 and length < 2 else 7.2
            middle_x = (start + end) / 2
            axis.text(
                middle_x, middle + 0.02, text, ha="center", va="center", fontsize=size, zorder=3
            )


# --- area ---------------------------------------------------------------------------------------

#: Colours of blocks, by size; blocks beyond them share the last.
_BLOCK_COLOURS = (
    "#2f7ebc",
    "#d9822b",
    "#3a9a6b",
    "#8a5fb0",
    "#c9a227",
    "#b5515b",
    "#4aa3a2",
    "#7f6a55",
    "#8c96a3",
)


def draw_area(path: Path, area_result: Mapping[str, Any]) -> tuple[Path, Path]:
    """Draw the area of every block for both readouts, as PNG and as SVG.

    Above, one stacked bar per readout, to one scale; below, block by block.

    Parameters
    ----------
    path
        File to write; its ending is replaced by ``.png`` and ``.svg``.
    area_result
        What `synth.area.run_area` returned or wrote.

    Returns
    -------
    png, svg
        Paths of the two files.
    """
    readouts = area_result["readouts"]
    first = next(iter(readouts.values()))["blocks"]
    blocks = sorted(first, key=lambda block: (block != "readout", -first[block]["area_um2"]))
    colours = {
        block: _BLOCK_COLOURS[min(index, len(_BLOCK_COLOURS) - 1)]
        for index, block in enumerate(blocks)
    }
    figure = Figure(figsize=(11.0, 2.9 + 0.36 * len(blocks)), facecolor="white")
    figure.set_layout_engine("constrained", h_pad=0.08)
    ratios = [len(readouts) * 1.15, len(blocks)]
    whole, parts = figure.subplots(2, 1, height_ratios=ratios)
    largest = max(head["gate_equivalents"] for head in readouts.values())

    for row, (name, head) in enumerate(readouts.items()):
        at = 0.0
        for block in blocks:
            size = head["blocks"][block]["gate_equivalents"]
            share = size / head["gate_equivalents"]
            whole.barh(row, size, left=at, height=0.62, color=colours[block], ec="white", lw=0.8)
            if size / largest > 0.055:
                text = f"{block.replace('_', ' ')}\n{share:.0%}"
                whole.text(
                    at + size / 2, row, text, ha="center", va="center", fontsize=8.5, color="white"
                )
            at += size
        whole.text(
            at + 0.008 * largest,
            row,
            f"{head['gate_equivalents']:,.0f} gates",
            va="center",
            fontsize=9.5,
            color=_INK,
            fontweight="bold",
        )
    whole.set_yticks(range(len(readouts)), [f"{name} readout" for name in readouts], fontsize=10)
    whole.set_ylim(len(readouts) - 0.5, -0.5)
    whole.set_xlim(0, largest * 1.16)
    library = area_result["library"]
    whole.set_title(
        f"Whole head on {library['name']}: the readout block is "
        f"{area_result['readout_ratio']:.1f} times smaller with a population count",
        fontsize=11,
        loc="left",
        parse_math=False,
    )

    height = 0.8 / len(readouts)
    for index, (name, head) in enumerate(readouts.items()):
        sizes = [head["blocks"][block]["gate_equivalents"] for block in blocks]
        places = [row - 0.4 + height * (index + 0.5) for row in range(len(blocks))]
        alpha = 1.0 if index == 0 else 0.45
        bars = [colours[block] for block in blocks]
        parts.barh(places, sizes, height=height * 0.92, color=bars, alpha=alpha)
        for place, block, size in zip(places, blocks, sizes, strict=True):
            same = all(other["blocks"][block] == head["blocks"][block] for other in readouts.values())
            share = size / head["gate_equivalents"]
            text = f"{size:,.0f} · {share:.1%}" + ("" if same else f" · {name}")
            parts.text(
                size + 0.006 * largest, place, text, va="center", fontsize=7.6, color=_MUTED
            )
    parts.set_yticks(range(len(blocks)), [b.replace("_", " ") for b in blocks], fontsize=9.5)
    parts.set_ylim(len(blocks) - 0.45, -0.55)
    parts.set_xlim(0, largest * 1.16)
    parts.set_xlabel(
        f"gate equivalents ({library['gate_equivalent']}, "
        f"{area_result['gate_equivalent_um2']:g} µm²); solid: {next(iter(readouts))} readout, "
        f"pale: {list(readouts)[-1]} readout; share of the whole head · "
        f"configuration {area_result['config_hash']}",
        fontsize=8.5,
        color=_MUTED,
        parse_math=False,
    )
    parts.set_title("Block by block, same scale", fontsize=11, loc="left")
    for axis in (whole, parts):
        axis.spines[["right", "top", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.tick_params(axis="x", labelsize=8.5, colors=_MUTED)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return _save(figure, path, "area")
