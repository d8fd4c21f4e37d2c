"""The writing DACs, and the cell currents of their levels on an exact grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analog_models.cell import V_MID_V, Cell
from analog_models.droop import Droop

__all__ = ["CURRENT_GRID", "DECAY_LAWS", "Dac", "LevelCurrents", "level_currents", "snap_ua"]

CURRENT_GRID = 2**16  #: grid points per µA: 15 pA, far below what a device repeats
DECAY_LAWS = ("voltage", "current")

Floats = NDArray[np.float64]


def snap_ua(i_ua: ArrayLike) -> Floats:
    """Round currents to the grid, on which sums of products are exact in float64."""
    return np.asarray(np.rint(np.multiply(i_ua, CURRENT_GRID)) / CURRENT_GRID, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Dac:
    """A digital-to-analog converter with equal steps.

    Raises
    ------
    TypeError
        A field is not of its kind.
    ValueError
        A field is out of its range.
    """

    bits: int = 3  #: code width
    v_min_v: float = 0.0  #: voltage of code 0
    v_max_v: float = 0.9  #: voltage of the highest code

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int):
            raise TypeError(f"bits must be an int, not {self.bits!r}")
        if not 1 <= self.bits <= 8:
            raise ValueError(f"bits must be in 1..8, not {self.bits!r}")
        if not -math.inf < self.v_min_v < self.v_max_v < math.inf:
            raise ValueError(
                f"v_max_v must be finite and above v_min_v = {self.v_min_v!r}, not {self.v_max_v!r}"
            )

    @property
    def levels(self) -> int:
        """Number of levels."""
        return 1 << self.bits

    @property
    def levels_v(self) -> Floats:
        """Voltage of every code."""
        return np.linspace(self.v_min_v, self.v_max_v, self.levels)

    def codes(self, v_store_v: ArrayLike) -> NDArray[np.intp]:
        """Code of the level nearest to each voltage, clipped to the range."""
        scaled: Floats = np.atleast_1d(np.subtract(v_store_v, self.v_min_v, dtype=np.float64))
        scaled *= (self.levels - 1) / (self.v_max_v - self.v_min_v)
        np.rint(scaled, out=scaled)
        np.clip(scaled, 0.0, self.levels - 1.0, out=scaled)
        return scaled.astype(np.intp).reshape(np.shape(v_store_v))


def level_currents(
    cell: Cell,
    dac: Dac,
    ages: ArrayLike,
    *,
    decay_per_token: float = 0.0,
    decay_law: str = "voltage",
    v_rest_v: float = V_MID_V,
) -> Floats:
    """Currents of all levels at the ages given, snapped to the grid: ``(ages, levels)`` in µA.

    Parameters are those of `LevelCurrents`.
    """
    currents = LevelCurrents(
        cell, dac, decay_per_token=decay_per_token, decay_law=decay_law, v_rest_v=v_rest_v
    )
    return snap_ua(currents.faded(dac.levels_v, np.asarray(ages)[:, np.newaxis]))


class LevelCurrents:
    """Level currents by age, from a table that grows as tokens get older.

    The table grows in whole blocks, so a current never depends on who asked for it first.

    Parameters
    ----------
    cell
        The cell.
    dac
        The DAC that writes it.
    decay_per_token
        Fraction of the deviation (or current) lost per step of age, which is a token or a tick,
        small against 1; 0 is ideal.
    decay_law
        "voltage" or "current".
    v_rest_v
        Stored voltage that leakage leads to.
    written_v
        Stored voltage of every code once its write has ended, rising; None is the DAC's.
    droop
        Law of fading instead of the exponential's.
    step_s
        Length of a step of age in s; used with ``droop``.

    Raises
    ------
    ValueError
        A parameter is out of its range, or the cell's current is not finite.
    """

    _BLOCK = 1024

    def __init__(
        self,
        cell: Cell,
        dac: Dac,
        *,
        decay_per_token: float = 0.0,
        decay_law: str = "voltage",
        v_rest_v: float = V_MID_V,
        written_v: Sequence[float] | None = None,
        droop: Droop | None = None,
        step_s: float = 0.0,
    ) -> None:
        check_decay(decay_per_token, decay_law)
        self.cell = cell
        self.dac = dac
        self.v_rest_v = float(v_rest_v)
        self.decay_per_token = float(decay_per_token)
        self.decay_law = decay_law
        self.droop = droop
        self._step_s = float(step_s)
        self.leaks = bool(decay_per_token) or droop is not None  #: currents change with age
        #: Stored voltage of every code once written.
        self.written_v: Floats = dac.levels_v
        if written_v is not None:
            self.written_v = np.asarray(written_v, dtype=np.float64)
        self._written_error_v = self.written_v - dac.levels_v
        reached = np.concatenate(
            [self.written_v, dac.levels_v, () if droop is None else droop.range_v]
        )
        # What lies beyond the cell's table is at its end; rounding, too, may carry a level there.
        low, high = getattr(cell, "range_v", (-math.inf, math.inf))
        self._low_v = float(max(reached.min(), low))
        self._high_v = float(min(reached.max(), high))
        between = cell.current_ua(np.linspace(self._low_v, self._high_v, 1025))
        if not np.isfinite(between).all():
            raise ValueError(
                f"cell must give finite currents over {self._low_v:g}..{self._high_v:g} V, "
                f"not {cell!r}"
            )
        self.fresh: Floats = self._block(0, 1)[0]  #: currents of newly written levels
        #: Largest current of any level at any age, with a margin for what lies between samples.
        self.i_max_ua = 1.01 * max(float(np.abs(between).max()), float(np.abs(self.fresh).max()))
        self._table: Floats = self.fresh[np.newaxis]
        # Past this age nothing but the end state is left, to the last bit.
        self._oldest = math.ceil(50.0 / decay_per_token) if decay_per_token else 0
        if droop is not None:
            self._oldest = math.ceil(droop.end_s / step_s)

    def faded(self, start_v: Floats, ages: NDArray[Any]) -> Floats:
        """Currents in µA of cells that were written to ``start_v`` so many steps of age ago.

        The arguments broadcast against each other. With the law "voltage" the stored deviation
        from ``v_rest_v`` decays, as charge does; with "current" the whole current does, its
        constant term included.
        """
        if self.droop is not None:
            v_store_v = self.droop.stored_v(start_v, ages * self._step_s)
        else:
            fade = np.exp(np.asarray(ages, dtype=np.float64) * -self.decay_per_token)
            if self.decay_law == "current":
                return np.asarray(fade * self.cell.current_ua(start_v), dtype=np.float64)
            v_store_v = self.v_rest_v + fade * (start_v - self.v_rest_v)
        return self.cell.current_ua(np.clip(v_store_v, self._low_v, self._high_v))

    def _block(self, start: int, stop: int) -> Floats:
        return snap_ua(self.faded(self.written_v, np.arange(start, stop)[:, np.newaxis]))

    def table(self, ages: int) -> Floats:
        """Currents of at least the ages 0..ages-1, one row each (one row only without decay)."""
        if not self.leaks:
            return self._table
        if self._table.shape[0] < ages:
            start = self._table.shape[0] // self._BLOCK * self._BLOCK
            starts = range(start, ages, self._BLOCK)
            blocks = [self._block(first, first + self._BLOCK) for first in starts]
            self._table = np.concatenate([self._table[:start], *blocks])
        return self._table

    def at(self, ages: NDArray[np.intp], codes: NDArray[np.intp]) -> Floats:
        """Look up currents: row i of ``codes (n, m)`` is ``ages[i]`` steps old."""
        if not self.leaks:
            return np.take(self.fresh, codes)
        ages = np.minimum(ages, self._oldest)
        table = self.table(int(ages.max(initial=0)) + 1)
        return np.take(table.ravel(), codes + (ages * self.dac.levels)[:, np.newaxis])

    def off_level(self, ages: NDArray[np.intp], codes: NDArray[np.intp], error_v: Floats) -> Floats:
        """Currents of cells that were written ``error_v`` beside their level; shapes as in `at`.

        A DAC does not leave its range: the voltage that it gives is clipped to it.
        """
        dac = self.dac
        given_v = np.clip(dac.levels_v[codes] + error_v, dac.v_min_v, dac.v_max_v)
        written_v = given_v + self._written_error_v[codes]
        if not self.leaks:
            return self.cell.current_ua(np.clip(written_v, self._low_v, self._high_v))
        return self.faded(written_v, np.minimum(ages, self._oldest)[:, np.newaxis])


def check_decay(decay_per_token: float, decay_law: str) -> None:
    """Refuse a decay that is not physical.

    Raises
    ------
    TypeError
        ``decay_per_token`` is no number.
    ValueError
        A parameter is out of its range.
    """
    if isinstance(decay_per_token, bool) or not isinstance(
        decay_per_token, int | float | np.floating
    ):
        raise TypeError(f"decay_per_token must be a float, not {decay_per_token!r}")
    if not 0 <= decay_per_token <= 1:
        raise ValueError(f"decay_per_token must be in 0..1, not {decay_per_token!r}")
    if decay_law not in DECAY_LAWS:
        raise ValueError(f"decay_law must be one of {DECAY_LAWS}, not {decay_law!r}")
