"""Pictures of an evaluation: perplexity by case, and levers against their price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["draw_curve", "draw_evaluation", "draw_levers"]


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
    return path


def draw_evaluation(path: Path, result: Mapping[str, Any]) -> Path:
    """Perplexity over the teacher's, by case and context, on a logarithmic scale."""
    cases = list(dict.fromkeys((row["case"], row["context"]) for row in result["rows"]))
    figure = Figure(figsize=(8.5, 0.34 * len(cases) + 1.6), layout="constrained")
    axis = figure.subplots()
    for place, (case, context) in enumerate(cases):
        ratios = [
            row["ratio"]
            for row in result["rows"]
            if (row["case"], row["context"]) == (case, context)
        ]
        mean = float(np.exp(np.mean(np.log(ratios))))
        colour = "C0" if case.startswith("mapped") else "C7"
        axis.barh(place, mean, left=0, color=colour, height=0.7)
        axis.plot(ratios, [place] * len(ratios), "|", color="black", markersize=9)
        axis.text(max(ratios) * 1.05, place, f"{mean:.2f}", va="center", fontsize=8)
    axis.axvline(1.0, color="black", linewidth=0.8)
    axis.axvline(1.25, color="C2", linewidth=0.8, linestyle="--")
    axis.axvline(1.6, color="C3", linewidth=0.8, linestyle="--")
    axis.set_xscale("log")
    axis.set_xlim(left=0.9)
    axis.set_yticks(range(len(cases)), [f"{case} ({context})" for case, context in cases])
    axis.tick_params(axis="y", labelsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("perplexity over the teacher's (marks: texts; dashed: 1.25, 1.6)")
    return _save(figure, path)


def draw_levers(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Error of the attention over clocks per query, one point per lever; the Pareto front."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    for row in rows:
        axis.plot(row["clocks"], row["error"], "o", color="C0", markersize=4)
        axis.annotate(row["lever"], (row["clocks"], row["error"]), fontsize=7, xytext=(4, 2),
                      textcoords="offset points")  # fmt: skip
    front, best = [], np.inf
    for row in sorted(rows, key=lambda row: (row["clocks"], row["error"])):
        if row["error"] < best:
            best = row["error"]
            front.append((row["clocks"], best))
    axis.step(*zip(*front, strict=True), where="post", color="C3", linewidth=1)
    axis.set_xscale("log")
    axis.set_xlabel("clocks per query")
    axis.set_ylabel("share of the output's variance lost, median of the heads")
    return _save(figure, path)


def draw_curve(path: Path, curve: Sequence[Mapping[str, float]]) -> Path:
    """Divergence from the teacher, and perplexity over the teacher's, over steps."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    left = figure.subplots()
    steps = [point["step"] for point in curve]
    left.plot(steps, [point["divergence"] for point in curve], "o-", markersize=3, color="C0")
    left.set_xlabel("steps")
    left.set_ylabel("divergence from the teacher, nats per token", color="C0")
    left.set_ylim(bottom=0)
    right = left.twinx()
    right.plot(steps, [point["ratio"] for point in curve], "s-", markersize=3, color="C3")
    right.axhline(1.25, color="C3", linewidth=0.8, linestyle="--")
    right.set_ylabel("perplexity over the teacher's (dashed: 1.25)", color="C3")
    right.set_ylim(bottom=1)
    return _save(figure, path)
