"""Pictures of simulated devices: current, retention, converters, from their presets alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analog_models.device import DevicePreset
from sim.figures import save_figure

__all__ = ["draw_converters", "draw_currents", "draw_droop"]

_COLOURS = ("#1b1b1f", "#2f7ebc", "#d9822b", "#3a9a6b", "#8a5fb0")


def _figure(number: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(3.8 * number, 3.6), facecolor="white", layout="constrained")
    axes = list(figure.subplots(1, number, squeeze=False)[0])
    for axis in axes:
        axis.spines[["right", "top"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure, axes


def _decks(presets: Sequence[DevicePreset]) -> str:
    return "decks " + ", ".join(preset.provenance["decks"][:8] for preset in presets)


def draw_currents(path: Path, presets: Sequence[DevicePreset]) -> tuple[Path, Path]:
    """Current over stored voltage with its fit, per device; then over the input of the first.

    Raises
    ------
    ValueError
        A preset holds no table or no grid.
    """
    figure, (left, right) = _figure(2)
    for preset, colour in zip(presets, _COLOURS, strict=False):
        cell = preset.cell
        if cell.v_store_v is None or cell.i_out_ua is None:
            raise ValueError(f"cell.v_store_v must be given in {preset.name}, not None")
        fine = np.linspace(preset.levels_v[0], preset.levels_v[-1], 200)
        fit = preset.cell_model(polynomial=True).current_ua(fine)
        left.plot(fine, fit, color=colour, lw=1.2, label=f"{preset.name}, cubic")
        left.plot(cell.v_store_v, cell.i_out_ua, ".", color=colour, ms=5)
        if cell.tc_ua_per_k is not None:
            hot = preset.cell_model(temperature_c=85.0).current_ua(np.asarray(cell.v_store_v))
            left.plot(cell.v_store_v, hot, color=colour, lw=0.8, ls=":")
    left.axhline(0.0, color="#8c96a3", lw=0.6)
    for level in presets[0].levels_v:
        left.axvline(level, color="#8c96a3", lw=0.4)
    left.set_xlabel("stored voltage, V; lines: the codes", fontsize=8.5)
    left.set_ylabel("current, µA", fontsize=8.5)
    left.set_title("points: simulated; dotted: 85 °C", fontsize=8.5, loc="left")
    left.legend(frameon=False, fontsize=7.5)
    cell = presets[0].cell
    if cell.v_store_v is None or cell.v_in_v is None or cell.grid_ua is None:
        raise ValueError(f"cell.grid_ua must be given in {presets[0].name}, not None")
    grid = np.asarray(cell.grid_ua)
    shades = np.linspace(0.85, 0.0, len(cell.v_in_v))
    for column, v_in, shade in zip(grid.T, cell.v_in_v, shades, strict=True):
        right.plot(cell.v_store_v, column, color=(shade, shade, shade), lw=1.2, label=f"{v_in:g} V")
    right.axhline(0.0, color="#8c96a3", lw=0.6)
    right.set_xlabel("stored voltage, V", fontsize=8.5)
    right.set_title(f"{presets[0].name}: steady, by word line", fontsize=8.5, loc="left")
    right.legend(frameon=False, fontsize=7.5)
    figure.suptitle(_decks(presets), fontsize=8, x=0.995, ha="right")
    return save_figure(figure, path, path.stem)


def draw_droop(path: Path, preset: DevicePreset) -> tuple[Path, Path]:
    """Stored voltage over time from every level, one picture per temperature.

    Raises
    ------
    ValueError
        A temperature has no table.
    """
    figure, axes = _figure(len(preset.leakage))
    for axis, leak in zip(axes, preset.leakage, strict=True):
        if leak.time_s is None or leak.v_store_v is None or leak.retention_s is None:
            raise ValueError(f"leakage.time_s must be given in {preset.name}, not None")
        for course in leak.v_store_v:
            axis.plot(leak.time_s[1:], course[1:], color="#2f7ebc", lw=1.2)
        axis.axvline(leak.retention_s, color="#d9822b", lw=1.2, ls="--")
        axis.set_xscale("log")
        axis.set_xlabel("time, s", fontsize=8.5)
        title = f"{leak.temperature_c:g} °C: half an LSB after {leak.retention_s:.3g} s"
        axis.set_title(title, fontsize=8.5, loc="left")
    axes[0].set_ylabel("stored voltage, V", fontsize=8.5)
    figure.suptitle(f"{preset.name} · {_decks([preset])}", fontsize=8, x=0.995, ha="right")
    return save_figure(figure, path, path.stem)


def draw_converters(path: Path, presets: Sequence[DevicePreset]) -> tuple[Path, Path]:
    """Deviation of both converters from ideal over the charge, in counts, per device.

    Raises
    ------
    ValueError
        A converter has no table.
    """
    figure, axes = _figure(2)
    for axis, kind in zip(axes, ("score", "output"), strict=True):
        for preset, colour in zip(presets, _COLOURS, strict=False):
            figures = getattr(preset, f"{kind}_converter")
            transfer = None if figures is None else figures.transfer(preset.lsb_ns)
            if transfer is None:
                raise ValueError(f"{kind}_converter.charge_fc must be given in {preset.name}")
            charge, pulse = np.asarray(transfer.charge), np.asarray(transfer.pulse)
            low = 0.0 if kind == "score" else -15.0
            ideal = np.clip(charge, low, 15.0)
            axis.plot(charge, pulse - ideal, color=colour, marker=".", lw=1.0, label=preset.name)
        axis.axhline(0.0, color="#8c96a3", lw=0.6)
        axis.set_xlabel("charge, in that of one count", fontsize=8.5)
        title = "phi, between the arrays" if kind == "score" else "counts, behind array 2"
        axis.set_title(title, fontsize=8.5, loc="left")
    axes[0].set_ylabel("pulse less ideal, counts", fontsize=8.5)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8
    )
    figure.suptitle(_decks(presets), fontsize=8, x=0.995, ha="right")
    return save_figure(figure, path, path.stem)
