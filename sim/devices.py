"""Figures of simulated devices, as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analog_models.device import DevicePreset

__all__ = ["device_rows", "zero_v"]


def device_rows(presets: Sequence[DevicePreset]) -> list[tuple[str, ...]]:
    """What was simulated of each device: the figure's name and unit, then a value per preset."""
    rows: list[tuple[str, ...]] = []

    def add(figure: str, *values: str) -> None:
        rows.append((figure, *values))

    add("current at the ends, µA", *(_ends(preset) for preset in presets))
    add("current crosses zero at, V", *(f"{zero_v(preset):.3f}" for preset in presets))
    add("cubic residual, RMS, µA", *(f"{p.residuals.polynomial_rms_ua:.3g}" for p in presets))
    add("cubic residual, largest, µA", *(f"{p.residuals.polynomial_max_ua:.3g}" for p in presets))
    add("table residual, RMS, µA", *(f"{p.residuals.table_rms_ua:.2g}" for p in presets))
    add("table residual, largest, µA", *(f"{p.residuals.table_max_ua:.2g}" for p in presets))
    add("change by the first read, at most, mV", *(f"{1e3 * _first_v(p):.2g}" for p in presets))
    add("change by all later reads, at most, mV", *(f"{1e3 * _repeat_v(p):.2g}" for p in presets))
    add("slowest write, ns", *(f"{p.write_ns:.2f}" for p in presets))
    for i, row in enumerate(presets[0].leakage):
        figure = f"half an LSB lost at {row.temperature_c:g} °C after, s"
        add(figure, *(f"{p.leakage[i].retention_s:.3g}" for p in presets))
    matches = [p.mismatch for p in presets if p.mismatch is not None]
    add("mismatch, gain", *(f"{m.gain_sigma:.2%}" for m in matches))
    add("mismatch, offset, µA", *(f"{m.offset_sigma_ua:.3f}" for m in matches))
    add("read noise over one LSB, µA", *(f"{p.read_noise_ua:.4f}" for p in presets))
    for kind in ("score", "output"):
        found = [getattr(preset, f"{kind}_converter") for preset in presets]
        add(f"{kind} converter, offset, counts", *(f"{c.offset_sigma_counts:.2f}" for c in found))
        add(f"{kind} converter, gain", *(f"{c.gain_sigma:.2%}" for c in found))
        add(f"{kind} converter, delay, ns", *(f"{c.delay_ns:.2f}" for c in found))
        add(
            f"{kind} converter, off ideal, counts", *(f"{c.nonlinearity_counts:.2f}" for c in found)
        )
    add("write, fJ", *(f"{1e3 * p.energy.write_pj:.1f}" for p in presets))
    add("read, mean of levels, fJ/ns", *(_read_fj(preset) for preset in presets))
    add("conversion to phi, pJ", *(f"{p.energy.conversion_pj:.2f}" for p in presets))
    add("conversion to counts, pJ", *(f"{p.energy.output_conversion_pj:.2f}" for p in presets))
    return rows


def _ends(preset: DevicePreset) -> str:
    low, high = preset.cell_model().current_ua([preset.levels_v[0], preset.levels_v[-1]])
    return f"{low:.2f} .. {high:.2f}"


def _first_v(preset: DevicePreset) -> float:
    pulses, low, high = preset.pulses, preset.levels_v[0], preset.levels_v[-1]
    if pulses is None or pulses.kickback_kept_v is None:
        return 0.0
    changes = zip(pulses.v_store_v, pulses.kickback_kept_v, strict=True)
    return max(abs(change) for stored, change in changes if low <= stored <= high)


def _repeat_v(preset: DevicePreset) -> float:
    return (preset.pulses.repeat_v if preset.pulses else None) or 0.0


def _read_fj(preset: DevicePreset) -> str:
    levels = preset.energy.read_pj_per_ns or ()
    return f"{1e3 * sum(levels) / len(levels):.2f}"


def zero_v(preset: DevicePreset) -> float:
    """Stored voltage at which a tabulated cell gives no current.

    Raises
    ------
    ValueError
        The current has one sign over the whole table.
    """
    voltages, currents = preset.cell.v_store_v, preset.cell.i_out_ua
    if voltages is None or currents is None or not currents[0] < 0 < currents[-1]:
        raise ValueError(f"cell.i_out_ua must change its sign in {preset.name}, not {currents!r}")
    return float(np.interp(0.0, currents, voltages))
