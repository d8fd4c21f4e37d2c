"""Pictures of the published algorithm's course, and of perplexity against noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["draw_noise", "draw_published"]


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
    return path


_MOST = 10.0  # ratio at which the picture of noise ends

#: Colour, and line, of a learning curve.
_LINES = {
    "softmax, further": ("C7", "-"),
    "no attention": ("black", ":"),
    "linear cell": ("C0", "-"),
    "nonlinear cell, matched": ("C3", "-"),
    "nonlinear cell, not matched": ("C1", "-"),
    "nonlinear cell, no linear stage": ("C4", "--"),
    "nonlinear cell, from random weights": ("C5", "-."),
}


def draw_published(path: Path, result: Mapping[str, Any]) -> Path:
    """Per task: learning curves of all seeds, and the statistics' distance over iterations."""
    tasks = list(dict.fromkeys(row["task"] for row in result["rows"]))
    figure = Figure(figsize=(11, 3.8 * len(tasks)), layout="constrained")
    axes = figure.subplots(len(tasks), 2, squeeze=False, width_ratios=(2, 1))
    for (curves, matching), task in zip(axes, tasks, strict=True):
        for name, (colour, line) in _LINES.items():
            of_name = [c for c in result["curves"] if (c["task"], c["name"]) == (task, name)]
            for n, curve in enumerate(of_name):
                steps, losses = zip(*curve["points"], strict=True)
                label = name if n == 0 else None
                curves.plot(steps, losses, color=colour, linestyle=line, linewidth=1.2, label=label)
        curves.set_yscale("log")
        curves.set_title(f"{task}: held-out loss", fontsize=10)
        curves.set_xlabel("steps after the teacher's training")
        curves.set_ylabel("nats per prediction")
        curves.legend(fontsize=7)
        for n, course in enumerate(c for c in result["matching"] if c["task"] == task):
            iterations = range(len(course["course"]))
            for name, colour, meaning in (
                ("deviation", "C3", "standard deviation, relative"),
                ("mean", "C0", "mean, in deviations"),
            ):
                values = [max(each[name], 1e-6) for each in course["course"]]
                matching.plot(iterations, values, color=colour, linewidth=1.2,
                              label=meaning if n == 0 else None)  # fmt: skip
        matching.set_yscale("log")
        matching.set_title(f"{task}: largest distance of a head's statistics", fontsize=10)
        matching.set_xlabel("iteration of matching")
        matching.legend(fontsize=7)
    return _save(figure, path)


def draw_noise(path: Path, result: Mapping[str, Any]) -> Path:
    """Perplexity over ideal arrays' against the factor of all spreads, a curve per case."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axis = figure.subplots()
    for n, case in enumerate(dict.fromkeys(row["case"] for row in result["rows"])):
        rows = [row for row in result["rows"] if row["case"] == case]
        factors = sorted({row["factor"] for row in rows})
        means = [
            float(np.exp(np.mean([np.log(r["ratio"]) for r in rows if r["factor"] == factor])))
            for factor in factors
        ]
        style = {"linewidth": 2.2} if case.startswith("all") else {"linewidth": 1.1}
        shown = [min(mean, _MOST) for mean in means]
        axis.plot(factors, shown, "-o", color=f"C{n}", markersize=3, label=case, **style)
        near = [row for row in rows if row["ratio"] < _MOST]
        axis.plot([r["factor"] for r in near], [r["ratio"] for r in near], "_", color=f"C{n}")
    for name, colour in (("control", "black"), ("teacher", "C7")):
        ratio = result[name] / result["ideal"]
        axis.axhline(ratio, color=colour, linestyle=":", linewidth=1)
        axis.annotate(
            name, (0.01, ratio), fontsize=8, va="bottom", xycoords=axis.get_yaxis_transform()
        )
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlabel(f"spreads and noise, times those of {result['study']['device']}")
    axis.set_xticks(factors, [f"{factor:g}" for factor in factors])
    axis.set_ylabel(f"perplexity over ideal arrays' (at the top: {_MOST:g} or more)")
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return _save(figure, path)
