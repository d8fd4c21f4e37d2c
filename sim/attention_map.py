"""Picture of attention between real tokens: pulses of the hardware beside softmax weights."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from sim.tokens import TokenTrace

__all__ = ["draw_attention_map"]

_FUTURE = "0.90"  # grey of tokens a query cannot see
_BRIGHTEST = 0.997  # quantile of both maps at the top of the colour scale
_LONGEST = 12  # characters of a tick label


def _label(token: str) -> str:
    """Text of a token that stays readable on an axis: blanks and line ends as signs."""
    shown = token.strip(" ").replace("\n", "↵").replace("\t", "→") or "␣"
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _normalised(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    total = rows.sum(axis=1, keepdims=True)
    return np.divide(rows, total, out=np.zeros_like(rows), where=total > 0)


def draw_attention_map(
    path: Path,
    trace: TokenTrace,
    phi: ArrayLike,
    *,
    window: int = 1024,
    first: int = 0,
    count: int = 48,
) -> tuple[Path, Path]:
    """Draw ``count`` consecutive tokens, attending to each other, as PNG and as SVG.

    Each row is one query. Its pulses are divided by their sum over its whole window, tokens
    outside the picture included, as a lane of constant values would let a host do; softmax weights
    add up to one over the same window. Both maps share one colour scale.

    Parameters
    ----------
    path
        File to write; its ending is replaced by ``.png`` and ``.svg``.
    trace
        Tokens, and the model's weights.
    phi
        Pulse lengths of the hardware, (queries, tokens), in any unit; tokens of the future and
        tokens that have left the window are ignored.
    window
        Tokens that a query may see.
    first, count
        First token of the picture, and how many.

    Returns
    -------
    png, svg
        Paths of the two files.

    Raises
    ------
    ValueError
        ``phi`` has another shape, or the picture reaches past the trace.
    """
    tokens = len(trace.token_strings)
    phi = np.asarray(phi, dtype=np.float64)
    if phi.shape != (tokens, tokens):
        raise ValueError(f"phi must have the shape {(tokens, tokens)!r}, not {phi.shape!r}")
    if not 2 <= count <= tokens:
        raise ValueError(f"count must be in 2..{tokens}, not {count!r}")
    if not 0 <= first <= tokens - count:
        raise ValueError(f"first must be in 0..{tokens - count}, not {first!r}")
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window!r}")

    visible = trace.visible(window)
    shown = slice(first, first + count)
    maps = {
        "hardware: φ pulses, divided by their sum": _normalised(np.where(visible, phi, 0.0)),
        "model: softmax weights": trace.softmax_weights(window),
    }
    panels = {title: np.where(visible, m, np.nan)[shown, shown] for title, m in maps.items()}
    top = float(np.nanquantile(np.stack(list(panels.values())), _BRIGHTEST))
    norm = PowerNorm(0.5, vmin=0.0, vmax=top or 1.0, clip=True)
    colours = matplotlib.colormaps["viridis"].with_extremes(bad=_FUTURE)

    side = 0.14 * count  # inches: a token's label needs its line
    figure = Figure(figsize=(2 * side + 3.6, side + 2.1), layout="constrained")
    axes: list[Axes] = list(figure.subplots(1, 2, sharey=True))
    labels = [_label(token) for token in trace.token_strings[shown]]
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        image = axis.imshow(panel, norm=norm, cmap=colours, interpolation="nearest")
        axis.set_title(title, fontsize=11)
        axis.set_xticks(range(count), labels, rotation=90, fontsize=7.5, parse_math=False)
        axis.set_yticks(range(count), labels, fontsize=7.5, parse_math=False)
        axis.tick_params(length=2, pad=2)
        axis.set_xlabel("token read (key)")
    axes[0].set_ylabel("token that reads (query)")
    axes[1].tick_params(labelleft=True)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.015, extend="max")
    bar.set_label("share of the query's attention (square-root scale)")
    source = trace.source
    figure.suptitle(
        f"SmolLM2-135M-Instruct, layer {source.layer}, head {source.head}: tokens {first} to "
        f"{first + count - 1} of {tokens} from “{source.text}”, window {window}\n",
        fontsize=12,
        parse_math=False,
    )
    figure.text(
        0.5,
        0.945,
        "grey: not visible to the query · attention to tokens outside the picture is not shown · "
        f"configuration {source.config_hash}",
        ha="center",
        fontsize=8.5,
        color="0.35",
    )

    png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": source.config_hash, "svg.fonttype": "path"}):
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    return png, svg
