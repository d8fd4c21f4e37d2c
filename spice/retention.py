"""From a leakage current and a capacitance to the stored voltage over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analog_models.device import Leakage

__all__ = ["droop", "fit_leakage", "rest_voltage"]

Floats = NDArray[np.float64]
_GRID = 4001


def rest_voltage(v_store_v: Floats, leak_fa: Floats) -> float:
    """Voltage at which nothing leaks; the end of the range that it leaks towards if there is none.

    Parameters
    ----------
    v_store_v
        Rising voltages.
    leak_fa
        Current out of the node.
    """
    crossing = np.flatnonzero((leak_fa[:-1] < 0) & (leak_fa[1:] >= 0))
    if crossing.size == 0:
        return float(v_store_v[0] if leak_fa[-1] > 0 else v_store_v[-1])
    i = int(crossing[-1])
    share = -leak_fa[i] / (leak_fa[i + 1] - leak_fa[i])
    return float(v_store_v[i] + share * (v_store_v[i + 1] - v_store_v[i]))


def droop(
    v_store_v: Floats, leak_fa: Floats, store_ff: Floats, start_v: float, time_s: Floats
) -> Floats:
    """Stored voltage at the times given: the integral of capacitance over current, inverted.

    Parameters
    ----------
    v_store_v, leak_fa, store_ff
        Current out of the node and capacitance over voltage, ``(n,)`` each.
    start_v
        Stored voltage at time zero.
    time_s
        Times, rising.
    """
    rest = rest_voltage(v_store_v, leak_fa)
    grid = np.linspace(start_v, rest, _GRID)[:-1]  # the rest itself is never reached
    current = np.abs(np.interp(grid, v_store_v, leak_fa)) * 1e-15
    slowness = np.interp(grid, v_store_v, store_ff) * 1e-15 / np.maximum(current, 1e-30)
    steps = np.abs(np.diff(grid)) * (slowness[1:] + slowness[:-1]) / 2
    reached = np.concatenate([[0.0], np.cumsum(steps)])
    return np.asarray(np.interp(time_s, reached, grid, right=rest), dtype=np.float64)


def fit_leakage(
    *,
    temperature_c: float,
    levels_v: Sequence[float],
    v_store_v: Floats,
    leak_fa: Floats,
    store_ff: Floats,
    points: int = 41,
) -> Leakage:
    """Retention and table of a leakage that was simulated.

    It is a current that hardly depends on the voltage, which no time constant describes: the
    models take the table.
    """
    half = (levels_v[-1] - levels_v[0]) / (len(levels_v) - 1) / 2
    rest = rest_voltage(v_store_v, leak_fa)
    long = np.concatenate([[0.0], np.geomspace(1e-7, 1e5, 4001)])
    courses = np.array([droop(v_store_v, leak_fa, store_ff, v, long) for v in levels_v])
    moved = np.abs(courses - courses[:, :1]).max(axis=0)
    retention = float(np.interp(half, moved, long))
    table = np.concatenate([[0.0], np.geomspace(retention / 30, retention * 30, points - 1)])
    rows = [droop(v_store_v, leak_fa, store_ff, v, table) for v in levels_v]
    return Leakage(
        temperature_c=temperature_c,
        v_rest_v=significant(rest),
        retention_s=significant(retention),
        time_s=significant_row(table),
        v_store_v=tuple(significant_row(row) for row in rows),
    )


def significant(value: float, digits: int = 6) -> float:
    """A number with as many digits as it is worth."""
    return float(f"{value:.{digits}g}")


def significant_row(values: Floats, digits: int = 6) -> tuple[float, ...]:
    """The same of each of several."""
    return tuple(significant(float(value), digits) for value in values)
