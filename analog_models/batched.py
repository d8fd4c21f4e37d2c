"""Batched closed form: many queries over one window as matrix products; integers are exact.

One head's window is stored once and asked by a whole batch of queries, as in Monte Carlo runs and
in prompt processing. The same charges, converters and noise as of the other speeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analog_models.functional import Result
from analog_models.namespace import to_numpy
from analog_models.params import AnalogParams

__all__ = ["BatchedHead", "Window", "check_batch"]

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]


def check_batch(name: str, codes: Any, lines: int, code_max: int, most: int | None = None) -> Codes:
    """Return codes, ``(n, lines)``, as an array.

    Raises
    ------
    TypeError
        They are no integers.
    ValueError
        Their shape or one of them is out of range.
    """
    array = to_numpy(codes)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, not dtype {array.dtype.name!r}")
    if array.ndim != 2 or array.shape[1] != lines:
        raise ValueError(f"{name} must have shape (n, {lines}), not {array.shape!r}")
    if most is not None and len(array) > most:
        raise ValueError(f"{name} must be at most {most} tokens, not {len(array)!r}")
    if array.size and (array.min() < 0 or array.max() > code_max):
        row, line = np.argwhere((array < 0) | (array > code_max))[0]
        raise ValueError(
            f"{name} must be in 0..{code_max}, not {int(array[row, line])!r} "
            f"at index ({row}, {line})"
        )
    return array.astype(np.intp)


class Window:
    """Currents of a window that is written at once.

    Parameters
    ----------
    params
        Shape, widths, cell and faults.
    k_codes, v_codes
        Codes of columns 0, 1, …: ``(tokens, rows)`` and ``(tokens, lanes)``, at most a window.
    ages
        Steps of age of each token, ``(tokens,)``; None is just written.

    Raises
    ------
    TypeError, ValueError
        Something is not of its kind, shape or range.
    """

    def __init__(
        self,
        params: AnalogParams,
        k_codes: ArrayLike,
        v_codes: ArrayLike,
        ages: ArrayLike | None = None,
    ) -> None:
        top = params.dac.levels - 1
        keys = check_batch("k_codes", k_codes, params.rows, top, params.window)
        values = check_batch("v_codes", v_codes, params.lanes, top, params.window)
        self.tokens = len(keys)
        if len(values) != self.tokens:
            raise ValueError(f"v_codes must be {self.tokens} tokens, as k_codes, not {len(values)}")
        steps = np.zeros(self.tokens, np.intp) if ages is None else to_numpy(ages)
        if steps.dtype.kind not in "iu":
            raise TypeError(f"ages must be integers, not dtype {steps.dtype.name!r}")
        if steps.shape != (self.tokens,) or (steps < 0).any():
            raise ValueError(f"ages must be {self.tokens} steps, none negative, not {ages!r}")
        held = slice(0, self.tokens)
        #: Currents of array 1 in µA, ``(window, rows)``; zero where no token is.
        self.k_ua = np.zeros((params.window, params.rows))
        self.k_ua[held] = params.key_currents.at(steps.astype(np.intp), keys, held)
        #: Currents of array 2 in µA, ``(window, lanes)``.
        self.v_ua = np.zeros((params.window, params.lanes))
        self.v_ua[held] = params.value_currents.at(steps.astype(np.intp), values, held)


class BatchedHead:
    """One head, a batch of queries at a time; integers equal those of `FunctionalHead` exactly.

    Query number n since the last `write` or `restart` has the read noise of evaluation n, which is
    what a head that is asked one query after the other has.

    Parameters
    ----------
    params
        Shape, widths, cell, converters and faults.
    """

    def __init__(self, params: AnalogParams) -> None:
        if not isinstance(params, AnalogParams):
            raise TypeError(f"params must be AnalogParams, not {params!r}")
        self.params = params
        self._evaluations = 0
        self._window: Window | None = None

    def write(
        self, k_codes: ArrayLike, v_codes: ArrayLike, *, ages: ArrayLike | None = None
    ) -> None:
        """Store tokens in columns 0, 1, … and forget all others; see `Window`."""
        self._window = Window(self.params, k_codes, v_codes, ages)

    def restart(self, evaluation: int = 0) -> None:
        """Set the number of the next query's evaluation, which picks its read noise."""
        self._evaluations = evaluation

    def phi_clk(self, q_codes: ArrayLike, *, s_level: int | None = None) -> Floats:
        """First half of `query`: the phi pulse of every column in clocks, ``(n, window)``."""
        params, window = self.params, self._held()
        codes = check_batch("q_codes", q_codes, params.rows, params.q_max)
        evaluations = range(self._evaluations, self._evaluations + len(codes))
        charge = codes.astype(np.float64) @ window.k_ua.T
        on_clk = codes.sum(axis=1).astype(np.float64)
        charge = params.sensing.scores(charge, on_clk, evaluations)
        jitter_clk = params.sensing.score_jitter_clk(evaluations)
        phi_clk = params.score_converter_of(s_level).phi_clk(charge, jitter_clk)
        phi_clk[:, window.tokens :] = 0.0
        return phi_clk

    def counts(
        self, q_codes: ArrayLike, *, s_level: int | None = None, a_level: int | None = None
    ) -> NDArray[np.int64]:
        """Signed counts of every sub-tile, ``(n, subtiles, lanes)``; see `query`."""
        params, window = self.params, self._held()
        converter = params.output_converter_of(a_level)
        phi_clk = self.phi_clk(q_codes, s_level=s_level)
        n = len(phi_clk)
        evaluations = range(self._evaluations, self._evaluations + n)
        self._evaluations += n
        drive = phi_clk.reshape(n, params.subtiles, params.columns)
        values = window.v_ua.reshape(params.subtiles, params.columns, params.lanes)
        charge = np.matmul(drive.transpose(1, 0, 2), values).transpose(1, 0, 2)
        charge = params.sensing.outputs(charge, drive.sum(axis=2), evaluations)
        return converter.counts(charge, params.sensing.output_jitter_clk(evaluations))

    def query(
        self, q_codes: ArrayLike, *, s_level: int | None = None, a_level: int | None = None
    ) -> Result:
        """Attend over the window.

        Parameters
        ----------
        q_codes
            Query codes, ``(n, rows)``.
        s_level, a_level
            Levels of S_sat and A_sat, 1..255; None are the default ones, 80 and 40.

        Returns
        -------
        result
            ``sums`` and ``full_scale``, ``(n, lanes)`` each.

        Raises
        ------
        TypeError, ValueError
            An argument is not of its kind, shape or range, or nothing has been written.
        """
        counts = self.counts(q_codes, s_level=s_level, a_level=a_level)
        full_scale = (np.abs(counts) == self.params.count_max).any(axis=1)
        return Result(counts.sum(axis=1), full_scale)

    def _held(self) -> Window:
        if self._window is None or not self._window.tokens:
            raise ValueError("the window must hold at least 1 token for a query, not 0")
        return self._window
