"""Energy of one token in the analog part of a head: current x voltage x time, pulse by pulse.

A driven cell draws its output current from the supply while its word line or its phi pulse is on.
A preset that knows better, from simulation, says what a cell of each level draws per time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analog_models.device import DevicePreset

__all__ = ["PUBLISHED_DAC_PJ", "TokenEnergy", "level_power_uw", "mean_pulse_ns", "token_energy"]

Floats = NDArray[np.float64]

#: All DACs of one token: Leroux et al., Nat. Comput. Sci. 5, 813-824 (2025).
PUBLISHED_DAC_PJ = 330.0


@dataclass(frozen=True, kw_only=True)
class TokenEnergy:
    """Energy of one token by phase, in pJ; None is not known for the device."""

    write_pj: float | None  #: both columns, DACs included
    integrate_pj: float  #: Q.K
    convert_pj: float | None  #: conversions to phi
    drive_pj: float  #: phi.V
    readout_pj: float | None  #: conversions to counts


def level_power_uw(device: DevicePreset) -> Floats:
    """Power that a driven cell draws, in µW, ``(levels,)``."""
    if device.energy.read_pj_per_ns is not None:
        return np.asarray(device.energy.read_pj_per_ns, dtype=np.float64) * 1e3
    current_ua = device.cell_model().current_ua(np.asarray(device.levels_v))
    return np.asarray(np.abs(current_ua) * device.supply_v, dtype=np.float64)


def token_energy(
    device: DevicePreset,
    q_codes: ArrayLike,
    k_codes: ArrayLike,
    v_codes: ArrayLike,
    phi_clk: ArrayLike,
    *,
    subtiles: int,
) -> TokenEnergy:
    """Energy of one token, mean over queries.

    Parameters
    ----------
    device
        Its preset.
    q_codes
        Query codes, ``(n, rows)``.
    k_codes, v_codes
        What the window holds, ``(window, rows)`` and ``(window, lanes)``.
    phi_clk
        Phi pulses in clocks, ``(n, window)``.
    subtiles
        Of the window, each with a converter for every lane.

    Raises
    ------
    ValueError
        Shapes do not fit each other.
    """
    q, phi = np.asarray(q_codes, dtype=np.float64), np.asarray(phi_clk, dtype=np.float64)
    keys, values = np.asarray(k_codes), np.asarray(v_codes)
    if q.ndim != 2 or keys.ndim != 2 or q.shape[1] != keys.shape[1]:
        raise ValueError(f"k_codes must have the rows of q_codes, {q.shape!r}, not {keys.shape!r}")
    if phi.shape != (len(q), len(keys)) or len(values) != len(keys):
        raise ValueError(f"phi_clk must have shape {(len(q), len(keys))!r}, not {phi.shape!r}")
    pj_per_clk = level_power_uw(device) * device.lsb_ns * 1e-3
    figures = device.energy
    edge_pj = figures.read_edge_pj or 0.0
    integrate = q.mean(axis=0) @ pj_per_clk[keys].sum(axis=0)
    drive = phi.mean(axis=0) @ pj_per_clk[values].sum(axis=1)
    integrate += edge_pj * len(keys) * float((q > 0).sum(axis=1).mean())
    drive += edge_pj * values.shape[1] * float((phi > 0).sum(axis=1).mean())

    def times(pj: float | None, number: int) -> float | None:
        return None if pj is None else pj * number

    write = times(figures.write_pj, keys.shape[1] + values.shape[1])
    if write is None and device.name.startswith("published"):
        write = PUBLISHED_DAC_PJ
    return TokenEnergy(
        write_pj=write,
        integrate_pj=float(integrate),
        convert_pj=times(figures.conversion_pj, len(keys)),
        drive_pj=float(drive),
        readout_pj=times(figures.output_conversion_pj, subtiles * values.shape[1]),
    )


def mean_pulse_ns(device: DevicePreset, energy_pj: float, cells: int) -> float:
    """Mean pulse at which so many cells, all levels equally often, draw an energy.

    Raises
    ------
    ValueError
        There is no cell.
    """
    if cells < 1:
        raise ValueError(f"cells must be at least 1, not {cells!r}")
    return energy_pj * 1e3 / (cells * float(level_power_uw(device).mean()))
