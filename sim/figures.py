"""Pictures: one token's phases on the wires, tokens that overlap, and area by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

__all__ = [
    "Phase",
    "Span",
    "draw_area",
    "draw_pipeline",
    "draw_waveform",
    "packet_spans",
    "save_figure",
    "wave_phases",
]

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
    "s_axis_tlast": "last token beat",
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
    "m_axis_tlast": "last result beat",
}


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase of a recorded token."""

    title: str
    colour: str
    start: int  #: first clock, counted from the start of the recording
    clocks: int
    complete: bool = True  #: False: the recording ends before the phase does


def save_figure(figure: Figure, path: Path, salt: str) -> tuple[Path, Path]:
    """Write a figure as PNG and as SVG, the same bytes for the same figure."""
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
            start, clocks, _ = high[0]
            complete = start + clocks < len(values or [])
            phases.append(
                Phase(title=title, colour=colour, start=start, clocks=clocks, complete=complete)
            )
    return phases


def draw_waveform(path: Path, wave: Mapping[str, Any]) -> tuple[Path, Path]:
    """Draw one token's phases from a recorded run, as PNG and as SVG.

    One-bit signals are traces. Of a wider signal the number of bits that are high is shown: of 64
    pulses at once that is what one can read. It stands in the spans where it has room, else it is
    drawn as a height.

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
    latency = _latency(signals)
    below = 0.95 if latency else 0.15
    figure = Figure(
        figsize=(12.0, 1.25 + 0.34 * (rows + below)), facecolor="white", layout="constrained"
    )
    axis: Axes = figure.subplots()
    axis.set_xlim(0, clocks)
    axis.set_ylim(rows + below, -1.75)
    for phase in phases:
        end = phase.start + phase.clocks
        # Writing V runs within the integration: its title takes the second line.
        level = -0.55 if phase.title == "write V" else -1.2
        axis.axvspan(phase.start, end, color=phase.colour, alpha=0.13, lw=0, zorder=0)
        axis.plot([phase.start, end], [level + 0.36] * 2, color=phase.colour, lw=3.2, zorder=3)
        number = f"{'' if phase.complete else '≥ '}{phase.clocks}"
        narrow = phase.clocks < 8
        axis.annotate(
            f"{phase.title} {number}" if narrow else f"{phase.title}\n{number} clocks",
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
    if latency:
        level = rows + 0.55
        axis.annotate(
            "",
            (latency[1], level),
            (latency[0], level),
            arrowprops={"arrowstyle": "<->", "color": _INK, "lw": 1.0, "shrinkA": 0, "shrinkB": 0},
        )
        axis.text(
            sum(latency) / 2,
            level,
            f"latency: {latency[1] - latency[0]} clocks from the last token beat to the first "
            "result beat",
            ha="center",
            va="center",
            fontsize=9,
            color=_INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2.0},
        )
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
    return save_figure(figure, path, "waveform")


def _latency(signals: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    """Clocks of the last token beat and of the first result beat, if both were recorded."""
    edges = []
    for name in ("s_axis_tlast", "m_axis_tvalid"):
        values = next((signal["values"] for signal in signals if signal["name"] == name), [])
        edges.append(next((clock for clock, value in enumerate(values) if value), -1))
    return (edges[0], edges[1]) if 0 <= edges[0] < edges[1] else None


def _draw_bus(axis: Axes, values: Sequence[int], top: float, bottom: float) -> None:
    """Draw labelled hexagons, or heights where the labels have no room; zero is a flat line."""
    spans = _spans(values)
    axis.plot([0, len(values)], [bottom] * 2, color=_TRACE, lw=1.2, zorder=2)
    middle, slope = (top + bottom) / 2, 0.18
    if all(length >= 0.8 * len(str(value)) for _, length, value in spans if value):
        for start, length, value in spans:
            end = start + length
            if not value:
                continue
            corners = [
                (start, middle),
                (start + slope, top),
                (end - slope, top),
                (end, middle),
                (end - slope, bottom),
                (start + slope, bottom),
            ]
            axis.add_patch(
                Polygon(corners, facecolor=_BUS, edgecolor=_TRACE, lw=0.9, closed=True, zorder=2)
            )
            axis.text(
                (start + end) / 2,
                middle + 0.02,
                str(value),
                ha="center",
                va="center",
                fontsize=7.2,
                zorder=3,
            )
        return
    peak = max(values)
    xs, ys = [0.0], [bottom]
    for start, length, value in spans:
        xs += [start, start + length]
        ys += [bottom - (bottom - top) * value / peak] * 2
    axis.fill_between(xs, ys, bottom, color=_TRACE, alpha=0.25, lw=0, zorder=2)
    axis.plot(xs, ys, color=_TRACE, lw=1.3, zorder=2)
    last = max(start + length for start, length, value in spans if value)
    axis.text(last + 0.6, middle, f"at most {peak}", va="center", fontsize=8, color=_MUTED)


# --- pipeline -----------------------------------------------------------------------------------

#: Rows of the pipeline picture: title, and the phases in it, each a line and what it is called.
_STAGES = (
    ("token beats", (("s_axis", "packet"),)),
    ("array 1", (("ana_k_write", "K"), ("ana_integrate", "integrate Q·K"))),
    ("array 2", (("ana_v_write", "V"), ("ana_convert", "convert to φ"))),
    ("readout", (("ana_readout", "count"),)),
    ("result beats", (("m_axis", "result"),)),
)
#: Letters that have room beside each other in the picture's width.
_LETTERS = 185
_PACKET_COLOURS = ("#2f7ebc", "#d9822b", "#3a9a6b", "#8a5fb0", "#b5515b", "#c9a227")


@dataclass(frozen=True, kw_only=True)
class Span:
    """Clocks in which a packet uses something."""

    packet: int  #: in the order of arrival
    line: str  #: control line that is high, or the beginning of a stream's names
    start: int  #: first clock, counted from the start of the recording
    clocks: int

    @property
    def end(self) -> int:
        """Clock after the last one."""
        return self.start + self.clocks


def packet_spans(wave: Mapping[str, Any]) -> list[Span]:
    """Spans of every packet of a recording of packets that all write and query.

    Each such packet raises each line once, and packets keep their order, so the spans of a line
    belong to the packets in turn. A stream's span lasts from the first beat taken to the last.
    """
    signals = {signal["name"]: signal["values"] for signal in wave["signals"]}
    spans = []
    for line in (line for _, phases in _STAGES for line, _ in phases):
        if f"{line}_tvalid" in signals:
            valid, ready, last = (signals[f"{line}_t{name}"] for name in ("valid", "ready", "last"))
            start, packet = None, 0
            for clock, (v, r, end) in enumerate(zip(valid, ready, last, strict=True)):
                if v and r:
                    start = clock if start is None else start
                    if end:
                        clocks = clock + 1 - start
                        spans.append(Span(packet=packet, line=line, start=start, clocks=clocks))
                        start, packet = None, packet + 1
        elif line in signals:
            high = [span for span in _spans(signals[line]) if span[2]]
            spans += [
                Span(packet=packet, line=line, start=start, clocks=clocks)
                for packet, (start, clocks, _) in enumerate(high)
            ]
    return spans


def draw_pipeline(path: Path, wave: Mapping[str, Any]) -> tuple[Path, Path]:
    """Draw overlapping packets from a recorded run, as PNG and as SVG: who uses what, when.

    Parameters
    ----------
    path
        File to write; its ending is replaced by ``.png`` and ``.svg``.
    wave
        What `sim.pipeline.record_pipeline` returned.

    Returns
    -------
    png, svg
        Paths of the two files.

    Raises
    ------
    ValueError
        There is no packet in the recording.
    """
    spans = packet_spans(wave)
    results = [span for span in spans if span.line == "m_axis"]
    if not results:
        raise ValueError("wave must hold at least one packet and its result, not none")
    clocks = max(span.end for span in spans)
    signals = {signal["name"]: signal["values"] for signal in wave["signals"]}
    figure = Figure(figsize=(12.0, 3.8), facecolor="white", layout="constrained")
    axis: Axes = figure.subplots()
    axis.set_xlim(-1, clocks + 1)
    axis.set_ylim(len(_STAGES) + 0.15, -0.95)
    banks = {"ana_integrate": "ana_scores_bank", "ana_convert": "ana_convert_bank"}
    banks["ana_readout"] = "ana_readout_bank"
    for row, (_, phases) in enumerate(_STAGES):
        axis.axhline(row + 0.5, color="0.9", lw=0.6, zorder=0)
        names = dict(phases)
        for span in (span for span in spans if span.line in names):
            colour = _PACKET_COLOURS[span.packet % len(_PACKET_COLOURS)]
            axis.barh(
                row, span.clocks, left=span.start, height=0.62, color=colour, ec="white", lw=0.8
            )
            detail = f"{span.clocks}"
            if bank := signals.get(banks.get(span.line, "")):
                detail += f", bank {bank[span.start]}"
            texts = (f"{names[span.line]}\n{detail}", names[span.line], names[span.line].split()[0])
            room = span.clocks * _LETTERS / clocks
            text = next((t for t in texts if max(map(len, t.split("\n"))) <= room), "")
            axis.text(
                span.start + span.clocks / 2,
                row,
                text,
                ha="center",
                va="center",
                fontsize=7.5,
                color="white",
                linespacing=1.1,
            )

    def measure(level: float, start: int, end: int, text: str) -> None:
        arrow = {"arrowstyle": "<->", "color": _INK, "lw": 1.0, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", (end, level), (start, level), arrowprops=arrow)
        axis.text(
            (start + end) / 2,
            level,
            text,
            ha="center",
            va="center",
            fontsize=8.5,
            color=_INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )

    tokens = [span for span in spans if span.line == "s_axis"]
    measure(
        -0.65,
        tokens[0].end - 1,
        results[0].start,
        f"latency {results[0].start - tokens[0].end + 1}: last token beat to first result beat",
    )
    for one, other in pairwise(results):
        measure(len(_STAGES) - 0.25, one.start, other.start, f"{other.start - one.start}")
    if len(results) > 1:
        text = {"ha": "right", "va": "center", "fontsize": 8.5, "color": _INK}
        axis.text(results[0].start - 1, len(_STAGES) - 0.25, "interval", **text)
    axis.set_yticks(range(len(_STAGES)), [title for title, _ in _STAGES], fontsize=9.5, color=_INK)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=8.5, colors=_MUTED)
    axis.set_xticks(range(0, clocks + 1, 10))
    axis.set_xlabel(f"clocks of {wave['clock_ns']:g} ns", fontsize=9, color=_MUTED)
    axis.spines[["left", "right", "top"]].set_visible(False)
    return save_figure(figure, path, "pipeline")


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


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 else "under 0.1%"


def draw_area(path: Path, area_result: Mapping[str, Any]) -> tuple[Path, Path]:
    """Draw the area of every block for both readouts, as PNG and as SVG.

    Above, one stacked bar per readout, to one scale; below, the blocks with the first readout.

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
    figure = Figure(figsize=(11.0, 3.0 + 0.29 * len(blocks)), facecolor="white")
    figure.set_layout_engine("constrained", h_pad=0.08)
    ratios = [len(readouts) * 1.6, len(blocks)]
    whole, parts = figure.subplots(2, 1, height_ratios=ratios)
    largest = max(head["gate_equivalents"] for head in readouts.values())

    for row, head in enumerate(readouts.values()):
        at = 0.0
        for block in blocks:
            size = head["blocks"][block]["gate_equivalents"]
            share = size / head["gate_equivalents"]
            whole.barh(row, size, left=at, height=0.72, color=colours[block], ec="white", lw=0.8)
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

    (own, head), *others = readouts.items()
    sizes = [head["blocks"][block]["gate_equivalents"] for block in blocks]
    parts.barh(range(len(blocks)), sizes, height=0.66, color=[colours[block] for block in blocks])
    for row, (block, size) in enumerate(zip(blocks, sizes, strict=True)):
        text = f"{size:,.0f} gates, {_share(size / head['gate_equivalents'])}"
        for name, other in others:
            there = other["blocks"][block]["gate_equivalents"]
            number = f"{there:,.0f} gates, " if there != size else ""
            text += f"   ({name} readout: {number}{_share(there / other['gate_equivalents'])})"
        parts.text(size + 0.006 * max(sizes), row, text, va="center", fontsize=8.5, color=_MUTED)
    parts.set_yticks(range(len(blocks)), [b.replace("_", " ") for b in blocks], fontsize=9.5)
    parts.set_ylim(len(blocks) - 0.45, -0.55)
    parts.set_xlim(0, max(sizes) * 1.65)
    parts.set_xlabel(
        f"gate equivalents of {area_result['gate_equivalent_um2']:g} µm² "
        f"({library['gate_equivalent']}) · configuration {area_result['config_hash']}",
        fontsize=8.5,
        color=_MUTED,
        parse_math=False,
    )
    parts.set_title(
        f"Block by block with the {own} readout: gates and share of the whole head",
        fontsize=11,
        loc="left",
    )
    for axis in (whole, parts):
        axis.spines[["right", "top", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.tick_params(axis="x", labelsize=8.5, colors=_MUTED)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return save_figure(figure, path, "area")
