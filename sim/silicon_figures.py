"""Pictures of silicon figures: floorplan to scale, energy, times, history."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sim.figures import save_figure
from sim.published import PAPER

__all__ = ["draw_energy", "draw_floorplan", "draw_history", "draw_times"]

_INK = "#1b1b1f"
_MUTED = "#5b5f66"
_ARRAY_1, _ARRAY_2 = "#2f7ebc", "#3a9a6b"
_DAC, _DIGITAL, _REST = "#c9a227", "#b5515b", "#e4e7eb"
_BLOCKS = ("#b5515b", "#d9822b", "#8a5fb0", "#4aa3a2", "#7f6a55", "#c9a227", "#5f8fd0", "#8c96a3")


def _plain(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def draw_floorplan(
    path: Path, silicon: Mapping[str, Any], blocks: Mapping[str, float]
) -> tuple[Path, Path]:
    """Draw a head to scale, as PNG and as SVG: arrays, what is between them, digital blocks.

    Where things are is not a result: nothing is placed. How large they are is.

    Parameters
    ----------
    path
        File to write; its ending is replaced by ``.png`` and ``.svg``.
    silicon
        What `sim.silicon.build_silicon` returned; its digital area must have a value.
    blocks
        Share of each block in the digital area.

    Returns
    -------
    png, svg
        Paths of the two files.
    """
    params = silicon["params"]
    side = math.sqrt(PAPER.area_mm2)
    area = silicon["digital_area_mm2_28nm"]
    figure = Figure(figsize=(9.6, 6.9), facecolor="white", layout="constrained")
    axis: Axes = figure.subplots()
    axis.set_aspect("equal")
    _plain(axis)
    axis.add_patch(Rectangle((0, 0), side, side, facecolor=_REST, edgecolor=_INK, lw=1.2))
    across = math.ceil(math.sqrt(params["subtiles"]))
    down = math.ceil(params["subtiles"] / across)
    cell = math.sqrt(PAPER.cell_um2) * 1e-3
    for index in range(params["subtiles"]):
        x, y = (index % across) * side / across, (index // across) * side / down
        axis.add_patch(
            Rectangle((x, y), side / across, side / down, fill=False, edgecolor="white", lw=1.0)
        )
        for number, (colour, size) in enumerate(
            ((_ARRAY_1, params["rows"]), (_ARRAY_2, params["lanes"]))
        ):
            width, height = params["columns"] * cell, size * cell
            left = x + (0.08 + 0.47 * number) * side / across
            bottom = y + (side / down - height) / 2
            axis.add_patch(Rectangle((left, bottom), width, height, facecolor=colour))
    height = area / side
    at = 0.0
    labels = []
    for index, (block, share) in enumerate(sorted(blocks.items(), key=lambda item: -item[1])):
        width = share * side
        colour = _BLOCKS[min(index, len(_BLOCKS) - 1)]
        axis.add_patch(
            Rectangle((at, side), width, height, facecolor=colour, edgecolor="white", lw=0.6)
        )
        if share > 0.05:
            labels.append((at + width / 2, f"{block.replace('_', ' ')}\n{share:.0%}"))
        at += width
    axis.add_patch(Rectangle((0, side), side, height, fill=False, edgecolor=_INK, lw=1.2))
    for x, text in labels:
        axis.text(
            x, side + height + 0.012, text, ha="center", va="bottom", fontsize=8.5, color=_INK
        )
    arrays = 2 * params["subtiles"]
    notes = (
        (side + height / 2, _DIGITAL, f"digital part, ours: {area:.4f} mm² at 28 nm"),
        (
            0.80 * side,
            _ARRAY_1,
            f"{params['subtiles']} arrays of keys and as many of values:\n"
            f"{params['columns']} × {params['rows']} and {params['columns']} × "
            f"{params['lanes']} cells of\n{PAPER.cell_um2:g} µm² (published), "
            f"{PAPER.cells_mm2:.3f} mm² in {arrays} arrays",
        ),
        (
            0.45 * side,
            _MUTED,
            f"published head, {PAPER.area_mm2:g} mm²: what is left of it is\n"
            "converters, DACs, wiring and its own digital part;\n"
            "how it divides is not published",
        ),
    )
    for y, colour, text in notes:
        axis.text(side + 0.03, y, text, va="center", fontsize=10, color=colour)
    axis.plot([0, 0.1], [-0.03, -0.03], color=_INK, lw=2.5)
    axis.text(0.05, -0.045, "100 µm", ha="center", va="top", fontsize=9, color=_INK)
    axis.set_xlim(-0.02, 1.78 * side)
    axis.set_ylim(-0.08, side + height + 0.09)
    axis.set_title("One head to scale; nothing is placed", fontsize=11, loc="left")
    return save_figure(figure, path, "floorplan")


def draw_energy(path: Path, silicon: Mapping[str, Any]) -> tuple[Path, Path]:
    """Draw where a token's energy goes, published and ours, as PNG and as SVG.

    The discs' areas are to one scale.
    """
    analog, digital = silicon["analog"], silicon["figures"]["digital_energy_pj_28nm"]
    published = (PAPER.qk_pj, PAPER.phi_v_pj, PAPER.dac_pj, PAPER.digital_pj)
    ours = (analog["qk_pj"], analog["phi_v_pj"], analog["dac_pj"], digital["value"])
    names = ("Q·K", "φ·V", "DACs", "digital")
    colours = (_ARRAY_1, _ARRAY_2, _DAC, _DIGITAL)
    figure = Figure(figsize=(11.0, 4.8), facecolor="white", layout="constrained")
    axes = figure.subplots(1, 2)
    largest = max(sum(published), sum(ours))
    for axis, title, parts in (
        (axes[0], "published", published),
        (axes[1], "ours, scaled to 28 nm", ours),
    ):
        total = sum(parts)
        radius = math.sqrt(total / largest)
        axis.pie(
            parts,
            colors=colours,
            radius=radius,
            startangle=90,
            counterclock=False,
            labels=[
                f"{name}\n{part:,.0f} pJ, {part / total:.0%}"
                for name, part in zip(names, parts, strict=True)
            ],
            textprops={"fontsize": 9.5, "color": _INK},
            wedgeprops={"edgecolor": "white", "linewidth": 1.2},
        )
        axis.set_xlim(-1.5, 1.5)
        axis.set_ylim(-1.15, 1.15)
        axis.set_title(f"{title}: {total / 1e3:.2f} nJ per token and head", fontsize=11)
    if digital["error"] is not None:
        note = f"method's error of the digital part: {digital['error']:+.0%}"
        axes[1].text(0, -1.12, note, ha="center", fontsize=9, color=_MUTED)
    return save_figure(figure, path, "energy")


def draw_times(path: Path, silicon: Mapping[str, Any]) -> tuple[Path, Path]:
    """Draw latencies and intervals as bars, graphics processors on a logarithmic scale."""
    clock = silicon["clock_ns"]
    bars = [
        ("published head: latency", PAPER.latency_ns, _MUTED),
        ("ours: latency", silicon["latency_clk"] * clock, _ARRAY_1),
        ("ours: a token every", silicon["interval_clk"] * clock, _ARRAY_2),
    ]
    for gpu in silicon["gpus"]:
        bars.append((f"{gpu['name']}: must read its window", 1e3 * gpu["least_us"], _REST))
        measured = "from the printed ratio" if gpu["from_ratio"] else "measured"
        bars.append((f"{gpu['name']}: {measured}", 1e3 * gpu["measured_us"], _DIGITAL))
    figure = Figure(figsize=(11.0, 0.42 * len(bars) + 1.1), facecolor="white", layout="constrained")
    axis: Axes = figure.subplots()
    axis.barh(
        range(len(bars)),
        [value for _, value, _ in bars],
        color=[colour for *_, colour in bars],
        edgecolor=_MUTED,
        lw=0.5,
        height=0.66,
    )
    for row, (_, value, _) in enumerate(bars):
        text = f"{value:,.0f} ns" if value < 1e4 else f"{value / 1e3:,.1f} µs"
        axis.text(1.08 * value, row, text, va="center", fontsize=9, color=_INK)
    axis.set_xscale("log")
    axis.set_xlim(10, 20 * max(value for _, value, _ in bars) / 4)
    axis.set_ylim(len(bars) - 0.5, -0.5)
    axis.set_yticks(range(len(bars)), [name for name, *_ in bars], fontsize=9)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=8.5, colors=_MUTED)
    axis.set_xlabel(
        f"ns per token of {PAPER.heads} heads, which are in parallel here; logarithmic",
        fontsize=9,
        color=_MUTED,
    )
    axis.spines[["right", "top", "left"]].set_visible(False)
    return save_figure(figure, path, "times")


def draw_history(
    path: Path, history: Sequence[Mapping[str, Any]], names: Mapping[str, str]
) -> tuple[Path, Path]:
    """Draw each metric over its committed updates, relative to the first.

    Parameters
    ----------
    path
        File to write; its ending is replaced by ``.png`` and ``.svg``.
    history
        Updates in order, each with ``date`` and ``values`` by metric.
    names
        Metrics that are drawn, and what they are called.
    """
    shown = [name for name in names if any(name in update["values"] for update in history)]
    rows = math.ceil(len(shown) / 2)
    figure = Figure(figsize=(11.0, 1.7 * rows + 0.6), facecolor="white", layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False).flatten()
    for axis, name in zip(axes, shown, strict=False):
        points = [
            (number, update["values"][name])
            for number, update in enumerate(history)
            if name in update["values"]
        ]
        axis.plot(*zip(*points, strict=True), "o-", color=_ARRAY_1, ms=4, lw=1.4)
        axis.set_title(f"{names[name]}: {points[-1][1]:,.6g}", fontsize=9.5, loc="left")
        axis.set_xlim(-0.4, len(history) - 0.6)
        low, high = min(value for _, value in points), max(value for _, value in points)
        margin = 0.15 * (high - low) or 0.1 * abs(high) or 1.0
        axis.set_ylim(low - margin, high + margin)
        axis.set_xticks(
            range(len(history)), [update["date"][:10] for update in history], fontsize=7.5
        )
        axis.tick_params(axis="y", labelsize=8, colors=_MUTED)
        axis.spines[["right", "top"]].set_visible(False)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    return save_figure(figure, path, "history")
