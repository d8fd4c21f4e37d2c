"""A law of fading that is a table: stored voltage over time, from simulation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Droop"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Droop:
    """Courses of the stored voltage from several starts; between starts and times it is linear.

    Leakage depends on the stored voltage alone, so courses of two starts never cross, and a start
    between two of them stays between them.

    Raises
    ------
    ValueError
        Times do not rise from zero, starts do not rise, courses cross or a shape does not fit.
    """

    time_s: tuple[float, ...]  #: times, rising from zero
    v_store_v: tuple[tuple[float, ...], ...]  #: stored voltage in V, ``(starts, time)``

    def __post_init__(self) -> None:
        time, course = np.asarray(self.time_s), np.asarray(self.v_store_v)
        if time.ndim != 1 or time.size < 2 or time[0] != 0 or not (np.diff(time) > 0).all():
            raise ValueError(f"time_s must rise strictly from 0, not {self.time_s!r}")
        if course.ndim != 2 or len(course) < 2 or course.shape[1] != time.size:
            raise ValueError(
                f"v_store_v must have shape (starts, {time.size}), that of starts, time_s, "
                f"not {course.shape!r}"
            )
        if not np.isfinite(course).all():
            raise ValueError(f"v_store_v must be finite, not {self.v_store_v!r}")
        if not (np.diff(course[:, 0]) > 0).all():
            raise ValueError(f"v_store_v must start rising strictly, not {course[:, 0].tolist()!r}")
        if (np.diff(course, axis=0) < 0).any():
            row, at = np.argwhere(np.diff(course, axis=0) < 0)[0]
            raise ValueError(
                f"v_store_v must hold courses that do not cross, not {float(course[row, at])!r} "
                f"above {float(course[row + 1, at])!r} at index ({int(row)}, {int(at)})"
            )

    @cached_property
    def _arrays(self) -> tuple[Floats, Floats]:
        return np.asarray(self.time_s, np.float64), np.asarray(self.v_store_v, np.float64)

    @property
    def end_s(self) -> float:
        """Time after which nothing changes any more."""
        return self.time_s[-1]

    @property
    def range_v(self) -> tuple[float, float]:
        """Lowest and highest voltage of all courses."""
        course = self._arrays[1]
        return float(course.min()), float(course.max())

    def stored_v(self, start_v: ArrayLike, age_s: ArrayLike) -> Floats:
        """Stored voltage in V; the two arguments broadcast against each other.

        Parameters
        ----------
        start_v
            Voltage at age zero; beyond the starts of the table its outer slope holds.
        age_s
            Age in s; past the end of the table, that of the end.
        """
        time, course = self._arrays
        start, age = np.asarray(start_v, np.float64), np.asarray(age_s, np.float64)
        row = np.clip(np.searchsorted(course[:, 0], start, side="right") - 1, 0, len(course) - 2)
        column = np.clip(np.searchsorted(time, age, side="right") - 1, 0, time.size - 2)
        across = (start - course[row, 0]) / (course[row + 1, 0] - course[row, 0])
        along = np.clip((age - time[column]) / (time[column + 1] - time[column]), 0.0, 1.0)
        low = (1 - along) * course[row, column] + along * course[row, column + 1]
        high = (1 - along) * course[row + 1, column] + along * course[row + 1, column + 1]
        return np.asarray((1 - across) * low + across * high, dtype=np.float64)
