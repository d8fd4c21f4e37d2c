"""Retention explorer: which windows hold at which token rates, and what refresh costs.

A window holds while its oldest column has lost at most half a step of the stored code, at the
level that leakage moves furthest. Beyond that every column must be rewritten within that time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analog_models.energy import PUBLISHED_DAC_PJ
from sim.figures import save_figure
from sim.results import write_result

__all__ = ["PUBLISHED_TOKEN_S", "RetentionMap", "draw_map", "run_map"]

#: Time per token that the published decay of 1.6e-4 per token assumes at tau = 5 ms.
PUBLISHED_TOKEN_S = 0.8e-6


@dataclass(frozen=True, kw_only=True)
class RetentionMap:
    """Axes of the map.

    Raises
    ------
    ValueError
        An axis is empty or not positive.
    """

    windows: tuple[int, ...] = (64, 256, 1024, 4096)  #: tokens
    token_s: tuple[float, ...] = (0.8e-6, 1e-5, 1e-4, 1e-3, 1e-2)  #: time per token
    #: 28 nm CMOS cell as published; slower ones up to oxide semiconductors
    tau_s: tuple[float, ...] = (5e-3, 0.1, 1.0, 100.0)
    levels: int = 8  #: stored levels
    rest_share: float = 0.5  #: where between the lowest and the highest level charge leaks to
    #: both columns of a token; the published energy of all DACs of a token, an upper bound
    rewrite_pj: float = PUBLISHED_DAC_PJ

    def __post_init__(self) -> None:
        for name in ("windows", "token_s", "tau_s"):
            values = getattr(self, name)
            if not values or min(values) <= 0:
                raise ValueError(f"{name} must hold positive values, not {values!r}")
        if self.levels < 2:
            raise ValueError(f"levels must be at least 2, not {self.levels!r}")
        if not 0 <= self.rest_share <= 1:
            raise ValueError(f"rest_share must be in 0..1, not {self.rest_share!r}")

    @property
    def swing_lsb(self) -> float:
        """Steps from the rest voltage to the level furthest from it."""
        return max(self.rest_share, 1 - self.rest_share) * (self.levels - 1)

    def holds_s(self, tau_s: float) -> float:
        """Time until the furthest level has lost half a step."""
        return -tau_s * math.log1p(-0.5 / self.swing_lsb)

    def rows(self) -> list[dict[str, Any]]:
        """One row per window, time per token and tau.

        Returns
        -------
        rows
            ``droop_lsb`` of the oldest column, ``holds`` (at most half a step), ``refresh_s`` (all
            columns within this time, None if none is needed), ``refresh_pj_per_token`` and
            ``refresh_nw``.
        """
        rows = []
        for tau_s, window, token_s in itertools.product(self.tau_s, self.windows, self.token_s):
            droop = -self.swing_lsb * math.expm1(-window * token_s / tau_s)
            holds = droop <= 0.5
            row: dict[str, Any] = {"tau_s": tau_s, "window": window, "token_s": token_s}
            row |= {"droop_lsb": droop, "holds": holds, "refresh_s": None}
            row |= {"refresh_pj_per_token": 0.0, "refresh_nw": 0.0}
            if not holds:
                refresh_s = self.holds_s(tau_s)
                power_w = window * self.rewrite_pj * 1e-12 / refresh_s
                row["refresh_s"] = refresh_s
                row["refresh_pj_per_token"] = power_w * token_s * 1e12
                row["refresh_nw"] = power_w * 1e9
            rows.append(row)
        return rows


def run_map(study: RetentionMap | None = None, *, report_dir: Path | None = None) -> dict[str, Any]:
    """Write ``retention_map.json`` and draw ``retention_map.png`` and ``.svg``."""
    study = RetentionMap() if study is None else study
    fields = dataclasses.asdict(study)
    config_hash = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
    figures = {**fields, "published_token_s": PUBLISHED_TOKEN_S, "rows": study.rows()}
    path = write_result(
        "retention_map",
        figures,
        config_hash=config_hash,
        tools=["numpy", "matplotlib"],
        report_dir=report_dir,
    )
    draw_map(path, study, config_hash)
    return figures


def draw_map(path: Path, study: RetentionMap, config_hash: str) -> tuple[Path, Path]:
    """Draw the droop over window and time per token, one picture per tau; PNG and SVG."""
    figure = Figure(figsize=(3.3 * len(study.tau_s), 3.9), facecolor="white", layout="constrained")
    axes = figure.subplots(1, len(study.tau_s), sharey=True, squeeze=False)[0]
    token = np.geomspace(1e-7, 1e-1, 200)
    window = np.geomspace(min(study.windows), max(study.windows), 120)
    colours: Any = None
    for axis, tau_s in zip(axes, study.tau_s, strict=True):
        droop = -study.swing_lsb * np.expm1(-np.outer(window, token) / tau_s)
        colours = axis.pcolormesh(
            token, window, droop, cmap="YlOrRd", vmin=0.0, vmax=study.swing_lsb, rasterized=True
        )
        axis.contour(token, window, droop, levels=[0.5], colors="#1b1b1f", linewidths=1.6)
        axis.axvline(PUBLISHED_TOKEN_S, color="#2f7ebc", lw=1.4, ls="--")
        axis.set_xscale("log")
        axis.set_yscale("log", base=2)
        axis.set_title(f"τ = {tau_s:g} s", fontsize=9, loc="left")
        axis.set_xlabel("time per token, s", fontsize=8.5)
        axis.tick_params(labelsize=8)
    axes[0].set_ylabel("window, tokens", fontsize=8.5)
    axes[0].text(
        PUBLISHED_TOKEN_S * 1.2, window[2], "published: 0.8 µs", color="#2f7ebc", fontsize=8
    )
    figure.colorbar(colours, ax=list(axes), label="droop of the oldest column, LSB")
    figure.suptitle(
        f"Black: half an LSB. Right of it refresh is needed · configuration {config_hash}",
        fontsize=9,
    )
    return save_figure(figure, path, "retention_map")


def table_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of the printed table, numbers as text."""
    return [
        (
            f"{row['tau_s']:g} s",
            f"{row['window']}",
            f"{row['token_s'] * 1e6:g} µs" + (" *" if row["token_s"] == PUBLISHED_TOKEN_S else ""),
            f"{row['droop_lsb']:.3g}",
            "holds" if row["holds"] else f"{row['refresh_s'] * 1e3:.3g} ms",
            f"{row['refresh_pj_per_token']:.3g}",
        )
        for row in result["rows"]
    ]
