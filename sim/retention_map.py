"""Retention explorer: which windows hold at which token rates, and what refresh costs.

A window holds while its oldest column has lost at most half a step of the stored code, at the
level that leakage moves furthest. Beyond that every column must be rewritten within that time.
Charge fades by a time constant, or by the table of a simulated device at a temperature.
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
from numpy.typing import ArrayLike, NDArray

from analog_models.droop import Droop
from analog_models.energy import PUBLISHED_DAC_PJ
from analog_models.presets import resolve_device
from sim.figures import save_figure
from sim.results import write_result

__all__ = [
    "PUBLISHED_TOKEN_S",
    "Exponential",
    "RetentionMap",
    "Tabulated",
    "draw_map",
    "run_map",
    "table_header",
    "table_rows",
]

#: Time per token that the published decay of 1.6e-4 per token assumes at tau = 5 ms.
PUBLISHED_TOKEN_S = 0.8e-6
HALF_LSB = 0.5

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Exponential:
    """Charge that fades by a time constant."""

    tau_s: float  #: time constant
    swing_lsb: float  #: steps from the rest voltage to the level furthest from it
    rewrite_pj: float  #: both columns of a token

    @property
    def name(self) -> str:
        """As it is shown."""
        return f"τ = {self.tau_s:g} s"

    @property
    def holds_s(self) -> float:
        """Time until the furthest level has lost half a step."""
        return -self.tau_s * math.log1p(-HALF_LSB / self.swing_lsb)

    def droop_lsb(self, age_s: ArrayLike) -> Floats:
        """Steps that the furthest level has lost."""
        return np.asarray(-self.swing_lsb * np.expm1(-np.asarray(age_s) / self.tau_s))


@dataclass(frozen=True, kw_only=True)
class Tabulated:
    """Charge that fades as simulated."""

    device: str  #: preset's name
    temperature_c: float  #: of the device
    droop: Droop  #: stored voltage of every level over time
    lsb_v: float  #: step of the stored code
    holds_s: float  #: time until the fastest level has lost half a step
    rewrite_pj: float  #: both columns of a token

    @property
    def name(self) -> str:
        """As it is shown."""
        return f"{self.device}, {self.temperature_c:g} °C"

    def droop_lsb(self, age_s: ArrayLike) -> Floats:
        """Steps that the level which has moved furthest has lost."""
        start = np.array([course[0] for course in self.droop.v_store_v])
        age = np.asarray(age_s, np.float64)[..., np.newaxis]
        moved = np.abs(self.droop.stored_v(start, age) - start)
        return np.asarray(moved.max(axis=-1) / self.lsb_v)


Law = Exponential | Tabulated


@dataclass(frozen=True, kw_only=True)
class RetentionMap:
    """Axes of the map.

    Raises
    ------
    ValueError
        An axis is empty or not positive; a device holds no table or no energy of a write.
    """

    windows: tuple[int, ...] = (64, 256, 1024, 4096)  #: tokens
    token_s: tuple[float, ...] = (0.8e-6, 1e-5, 1e-4, 1e-3, 1e-2)  #: time per token
    #: 28 nm CMOS cell as published; slower ones up to oxide semiconductors
    tau_s: tuple[float, ...] = (5e-3, 0.1, 1.0, 100.0)
    levels: int = 8  #: stored levels
    rest_share: float = 0.5  #: where between the lowest and the highest level charge leaks to
    #: both columns of a token; the published energy of all DACs of a token, an upper bound
    rewrite_pj: float = PUBLISHED_DAC_PJ
    devices: tuple[str, ...] = ("sky130-tt",)  #: simulated ones, beside the time constants
    temperatures_c: tuple[float, ...] = (27.0, 85.0)  #: of the devices
    cells: int = 128  #: of a token, in both arrays

    def __post_init__(self) -> None:
        for name in ("windows", "token_s", "tau_s"):
            values = getattr(self, name)
            if not values or min(values) <= 0:
                raise ValueError(f"{name} must hold positive values, not {values!r}")
        if self.levels < 2:
            raise ValueError(f"levels must be at least 2, not {self.levels!r}")
        if not 0 <= self.rest_share <= 1:
            raise ValueError(f"rest_share must be in 0..1, not {self.rest_share!r}")
        _ = self.laws()

    def laws(self) -> list[Law]:
        """How charge may fade: every time constant, then every device at every temperature."""
        swing = max(self.rest_share, 1 - self.rest_share) * (self.levels - 1)
        laws: list[Law] = [
            Exponential(tau_s=tau_s, swing_lsb=swing, rewrite_pj=self.rewrite_pj)
            for tau_s in self.tau_s
        ]
        for name, temperature_c in itertools.product(self.devices, self.temperatures_c):
            device = resolve_device(name)
            leak, write_pj = device.leakage_at(temperature_c), device.energy.write_pj
            droop = None if leak is None else leak.droop
            if leak is None or droop is None or leak.retention_s is None or write_pj is None:
                raise ValueError(f"devices must hold tables and energies of writes, not {name!r}")
            laws.append(
                Tabulated(
                    device=name,
                    temperature_c=temperature_c,
                    droop=droop,
                    lsb_v=device.levels_v[1] - device.levels_v[0],
                    holds_s=leak.retention_s,
                    rewrite_pj=write_pj * self.cells,
                )
            )
        return laws

    def rows(self) -> list[dict[str, Any]]:
        """One row per law, window and time per token.

        Returns
        -------
        rows
            ``law``, with ``tau_s`` or ``device`` and ``temperature_c``; ``droop_lsb`` of the oldest
            column, ``holds`` (at most half a step), ``refresh_s`` (all columns within this time,
            None if none is needed), ``refresh_pj_per_token`` and ``refresh_nw``.
        """
        rows = []
        for law, window, token_s in itertools.product(self.laws(), self.windows, self.token_s):
            droop = float(law.droop_lsb(window * token_s))
            row: dict[str, Any] = {"law": law.name, "window": window, "token_s": token_s}
            for name in ("tau_s", "device", "temperature_c"):
                row[name] = getattr(law, name, None)
            row |= {"droop_lsb": droop, "holds": window * token_s <= law.holds_s}
            row |= {"refresh_s": None, "refresh_pj_per_token": 0.0, "refresh_nw": 0.0}
            if not row["holds"]:
                power_w = window * law.rewrite_pj * 1e-12 / law.holds_s
                row["refresh_s"] = law.holds_s
                row["refresh_pj_per_token"] = power_w * token_s * 1e12
                row["refresh_nw"] = power_w * 1e9
            rows.append(row)
        return rows


def run_map(study: RetentionMap | None = None, *, report_dir: Path | None = None) -> dict[str, Any]:
    """Write ``retention_map.json`` and draw ``retention_map.png`` and ``.svg``."""
    study = RetentionMap() if study is None else study
    fields = dataclasses.asdict(study)
    presets = [resolve_device(name).to_json() for name in study.devices]
    text = json.dumps([fields, presets], sort_keys=True)
    config_hash = hashlib.sha256(text.encode()).hexdigest()[:12]
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
    """Draw the droop over window and time per token, one picture per law; PNG and SVG."""
    laws = study.laws()
    wide = min(len(laws), 3)
    high = math.ceil(len(laws) / wide)
    figure = Figure(figsize=(3.7 * wide, 3.5 * high), facecolor="white", layout="constrained")
    axes = figure.subplots(high, wide, sharex=True, sharey=True, squeeze=False).ravel()
    token = np.geomspace(1e-7, 1e-1, 200)
    window = np.geomspace(min(study.windows), max(study.windows), 120)
    colours: Any = None
    for axis, law in zip(axes, laws, strict=False):
        droop = law.droop_lsb(np.outer(window, token))
        colours = axis.pcolormesh(
            token,
            window,
            droop,
            cmap="YlOrRd",
            vmin=0.0,
            vmax=(study.levels - 1) / 2,
            rasterized=True,
        )
        axis.contour(token, window, droop, levels=[HALF_LSB], colors="#1b1b1f", linewidths=1.6)
        axis.axvline(PUBLISHED_TOKEN_S, color="#2f7ebc", lw=1.4, ls="--")
        axis.set_xscale("log")
        axis.set_yscale("log", base=2)
        axis.set_title(law.name, fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
    for axis in axes[len(laws) :]:
        axis.set_visible(False)
    figure.supxlabel("time per token, s", fontsize=9)
    figure.supylabel("window, tokens", fontsize=9)
    pale = max(range(len(laws)), key=lambda i: laws[i].holds_s)
    axes[pale].text(
        PUBLISHED_TOKEN_S * 1.2, window[2], "published: 0.8 µs", color="#2f7ebc", fontsize=8
    )
    figure.colorbar(colours, ax=list(axes), label="droop of the oldest column, LSB", extend="max")
    figure.suptitle(
        f"Black: half an LSB. Right of it refresh is needed · configuration {config_hash}",
        fontsize=9,
    )
    return save_figure(figure, path, "retention_map")


def table_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of the printed table: law, window, then droop and refresh of every time per token."""
    held: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in result["rows"]:
        held.setdefault((row["law"], row["window"]), []).append(row)
    rows = []
    for (law, window), own in held.items():
        refresh_s = next((row["refresh_s"] for row in own if row["refresh_s"]), None)
        rows.append(
            (
                law,
                str(window),
                *(_cell(row) for row in own),
                "" if refresh_s is None else _time(float(f"{refresh_s:.3g}")),
            )
        )
    return rows


def table_header(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Header of the printed table; the time of the published assumption is marked."""
    times = (
        _time(token_s) + (" *" if token_s == PUBLISHED_TOKEN_S else "")
        for token_s in result["token_s"]
    )
    return ("charge fades by", "window", *times, "refresh within")


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds * 1e6:g} µs"


def _cell(row: Mapping[str, Any]) -> str:
    droop, pj = f"{row['droop_lsb']:.2g}", row["refresh_pj_per_token"]
    if row["holds"]:
        return droop
    return f"{droop}; {float(f'{pj:.3g}'):,.12g} pJ"
