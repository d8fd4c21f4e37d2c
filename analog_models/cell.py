"""Gain cells: output current as a function of the stored and the input voltage."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import RectBivariateSpline, make_interp_spline  # type: ignore[import-untyped]

__all__ = ["V_IN_FULL_V", "V_MID_V", "Cell", "PolynomialCell", "TabulatedCell"]

V_IN_FULL_V = 0.9  #: input voltage of a word line that is on
V_MID_V = 0.45  #: stored voltage towards which the cell leaks

Floats = NDArray[np.float64]


@runtime_checkable
class Cell(Protocol):
    """What the arrays need to know of a cell."""

    def current_ua(self, v_store_v: ArrayLike, v_in_v: ArrayLike | None = None) -> Floats:
        """Output current in µA; ``v_in_v=None`` is a word line that is fully on (0.9 V)."""
        ...


@dataclass(frozen=True, kw_only=True)
class PolynomialCell:
    """A cell whose current is a polynomial of the stored deviation ``u = v - v_mid_v``.

    Raises
    ------
    TypeError
        A field is not of its kind.
    ValueError
        A field is out of its range.
    """

    coefficients: tuple[float, ...]  #: µA/V^i of u^i, constant term first, at Vin = 0.9 V
    v_mid_v: float = V_MID_V  #: voltage at which u is zero

    def __post_init__(self) -> None:
        if not isinstance(self.coefficients, tuple):
            raise TypeError(f"coefficients must be a tuple of floats, not {self.coefficients!r}")
        if not self.coefficients:
            raise ValueError(f"coefficients must hold at least one term, not {self.coefficients!r}")
        for value in (*self.coefficients, self.v_mid_v):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"coefficients and v_mid_v must be floats, not {value!r}")
            if not math.isfinite(value):
                raise ValueError(f"coefficients and v_mid_v must be finite, not {value!r}")

    def current_ua(self, v_store_v: ArrayLike, v_in_v: ArrayLike | None = None) -> Floats:
        """Output current in µA at full input voltage, the only one the fit holds for.

        Raises
        ------
        ValueError
            ``v_in_v`` is neither None nor 0.9.
        """
        if v_in_v is not None and not np.all(np.asarray(v_in_v) == V_IN_FULL_V):
            raise ValueError(
                f"v_in_v must be None or {V_IN_FULL_V} V (the polynomial is folded there), "
                f"not {v_in_v!r}"
            )
        u = np.asarray(v_store_v, dtype=np.float64) - self.v_mid_v
        current = np.full_like(u, self.coefficients[-1])
        for coefficient in self.coefficients[-2::-1]:
            current = current * u + coefficient
        return current


def _axis(name: str, values: ArrayLike) -> Floats:
    axis = np.array(values, dtype=np.float64)
    if axis.ndim != 1 or axis.size < 2:
        raise ValueError(
            f"{name} must be one-dimensional with at least two points, not shape {axis.shape!r}"
        )
    if not np.isfinite(axis).all():
        raise ValueError(f"{name} must be finite, not {float(axis[~np.isfinite(axis)][0])!r}")
    steps = np.diff(axis)
    if not (steps > 0).all():
        i = int(np.argmax(steps <= 0))
        raise ValueError(
            f"{name} must rise strictly, not {float(axis[i])!r} followed by "
            f"{float(axis[i + 1])!r} at index {i}"
        )
    axis.setflags(write=False)
    return axis


class TabulatedCell:
    """A cell given by measured or simulated currents, with a cubic spline between the points.

    Parameters
    ----------
    vstore_v
        Stored voltages, rising strictly.
    i_out_ua
        Currents: ``(len(vstore_v),)`` at full input voltage, or ``(len(vstore_v), len(vin_v))``.
    vin_v
        Input voltages, rising strictly; None for a table at full input voltage only.

    Raises
    ------
    ValueError
        An axis does not rise, a shape does not fit or a value is not finite.
    """

    def __init__(
        self, vstore_v: ArrayLike, i_out_ua: ArrayLike, vin_v: ArrayLike | None = None
    ) -> None:
        self.vstore_v = _axis("vstore_v", vstore_v)
        self.vin_v = None if vin_v is None else _axis("vin_v", vin_v)
        self.i_out_ua: Floats = np.array(i_out_ua, dtype=np.float64)
        shape: tuple[int, ...] = (self.vstore_v.size,)
        if self.vin_v is not None:
            shape = (self.vstore_v.size, self.vin_v.size)
        if self.i_out_ua.shape != shape:
            raise ValueError(f"i_out_ua must have shape {shape}, not {self.i_out_ua.shape!r}")
        if not np.isfinite(self.i_out_ua).all():
            bad = float(self.i_out_ua[~np.isfinite(self.i_out_ua)][0])
            raise ValueError(f"i_out_ua must be finite, not {bad!r}")
        self.i_out_ua.setflags(write=False)
        order = min(3, self.vstore_v.size - 1)
        self._spline: Any
        if self.vin_v is None:
            self._spline = make_interp_spline(self.vstore_v, self.i_out_ua, k=order)
        else:
            self._spline = RectBivariateSpline(
                self.vstore_v,
                self.vin_v,
                self.i_out_ua,
                kx=order,
                ky=min(3, self.vin_v.size - 1),
            )

    @property
    def range_v(self) -> tuple[float, float]:
        """Stored voltages that the table holds between."""
        return float(self.vstore_v[0]), float(self.vstore_v[-1])

    @classmethod
    def from_npz(cls, path: str | Path) -> TabulatedCell:
        """Read a grid from a NumPy archive with the arrays vstore_v, vin_v and i_out_ua.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            The file is no NumPy archive, an array is missing, or the grid is refused.
        """
        name = Path(path).name
        try:
            with np.load(path, allow_pickle=False) as archive:
                if not isinstance(archive, np.lib.npyio.NpzFile):
                    raise ValueError("one array, no archive")
                for key in ("vstore_v", "vin_v", "i_out_ua"):
                    if key not in archive:
                        raise KeyError(key)
                grid = {key: archive[key] for key in ("vstore_v", "vin_v", "i_out_ua")}
        except KeyError as error:
            raise ValueError(
                f"{name} must hold the arrays vstore_v, vin_v and i_out_ua; "
                f"{error.args[0]} is missing"
            ) from error
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{name} must be a NumPy .npz archive: {error}") from error
        try:
            return cls(grid["vstore_v"], grid["i_out_ua"], grid["vin_v"])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def __repr__(self) -> str:
        vin = "" if self.vin_v is None else f" x {self.vin_v.size}"
        return f"<TabulatedCell {self.vstore_v.size}{vin} points>"

    @staticmethod
    def _inside(name: str, values: Floats, axis: Floats) -> None:
        outside = ~((values >= axis[0]) & (values <= axis[-1]))  # NaN is outside
        if outside.any():
            raise ValueError(
                f"{name} must be inside the grid, {axis[0]:g}..{axis[-1]:g} V, "
                f"not {float(values[outside].flat[0])!r}"
            )

    def current_ua(self, v_store_v: ArrayLike, v_in_v: ArrayLike | None = None) -> Floats:
        """Output current in µA; the two arguments broadcast against each other.

        Raises
        ------
        ValueError
            A voltage lies outside the grid: the spline says nothing there.
        """
        v_store = np.asarray(v_store_v, dtype=np.float64)
        self._inside("v_store_v", v_store, self.vstore_v)
        if self.vin_v is None:
            if v_in_v is not None and not np.all(np.asarray(v_in_v) == V_IN_FULL_V):
                raise ValueError(
                    f"v_in_v must be None or {V_IN_FULL_V} V (the table holds no other), "
                    f"not {v_in_v!r}"
                )
            return np.asarray(self._spline(v_store), dtype=np.float64)
        v_in = np.asarray(V_IN_FULL_V if v_in_v is None else v_in_v, dtype=np.float64)
        self._inside("v_in_v", v_in, self.vin_v)
        v_store, v_in = np.broadcast_arrays(v_store, v_in)
        return np.asarray(self._spline(v_store, v_in, grid=False), dtype=np.float64)
