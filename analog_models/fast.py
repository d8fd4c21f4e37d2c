"""The fast batched model: a head in single precision, in NumPy or in PyTorch.

What makes it fast, in order of effect:

- nothing but the two products touches more than one number per output: saturation currents and
  the converters' gains are folded into the stored currents, mismatch with them, once per write;
- read noise is drawn per output, not per cell: a sum of independent normal numbers is normal, its
  variance the clocks that cells were on times the variance of one cell in one clock;
- normal numbers come from a table (`analog_models.noise`);
- work space stays allocated: fresh pages cost more than the arithmetic on them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from analog_models.batched import Window
from analog_models.namespace import Library
from analog_models.noise import FastNormal
from analog_models.params import AnalogParams
from analog_models.transfer import Transfer

__all__ = ["FastHead"]

Array = Any  #: of NumPy or of PyTorch

#: Queries of one pass: work space of the default head is 2 MB per array and stays in a cache.
_QUERIES = 512
#: Queries below which a loop over sub-tiles costs more than it saves.
_FEW = 64
#: Offset of a column without a token, in clocks: no charge lifts it above zero.
_NEVER = -1e9


class _Lookup:
    """A converter's transfer on equal steps, fine enough that the steps do not show.

    Parameters
    ----------
    transfer
        The table; linear between its points, which steps of a 64th of a count follow.
    library
        Of the arrays.
    """

    _STEPS = 64  # per count

    def __init__(self, transfer: Transfer, library: Library) -> None:
        low, high = transfer.charge[0], transfer.charge[-1]
        number = math.ceil((high - low) * self._STEPS)
        points = np.linspace(low, high, number + 1)
        length = transfer.length(points)
        self._low, self._per_step, self._last = low, number / (high - low), number - 1
        self._length = library.array(length[:-1])
        self._slope = library.array(np.diff(length))
        self._library = library

    def __call__(self, charge: Array) -> None:
        """Put lengths, in counts, in the place of charges."""
        xp = self._library.xp
        charge -= self._low
        charge *= self._per_step
        xp.clip(charge, 0.0, float(self._last + 1), out=charge)
        index = self._library.whole(xp.clip(charge, 0.0, float(self._last)))
        charge -= index
        charge *= xp.take(self._slope, index)
        charge += xp.take(self._length, index)


class FastHead:
    """One head in the type of ``like``, a batch of queries at a time.

    Statistics are those of the exact speeds, bits are not: charges are rounded sums, phi is not
    put on its grid, halves round to even, and read noise has the same distribution but other
    draws. Without noise a count differs from `BatchedHead`'s only where a charge lies within
    rounding of a threshold.

    What `phi_clk` and `counts` return is work space, good until the next call.

    Parameters
    ----------
    params
        Shape, widths, cell, converters and faults.
    like
        An array of the library, type and device wanted; None is NumPy's float32.
    s_level, a_level
        Levels of S_sat and A_sat, 1..255; None are the default ones, 80 and 40.

    Raises
    ------
    TypeError, ValueError
        An argument is not of its kind or out of its range.
    """

    def __init__(
        self,
        params: AnalogParams,
        *,
        like: Array = None,
        s_level: int | None = None,
        a_level: int | None = None,
    ) -> None:
        if not isinstance(params, AnalogParams):
            raise TypeError(f"params must be AnalogParams, not {params!r}")
        self.params = params
        self._library = Library(np.empty(0, np.float32) if like is None else like)
        self._s_sat_ua = params.score_converter_of(s_level).s_sat_ua
        self._charge_per_count = params.output_converter_of(a_level).charge_per_count
        tables = (params.score_transfer, params.output_transfer)
        self._phi_of, self._count_of = (
            None if table is None else _Lookup(table, self._library) for table in tables
        )
        self._normal = FastNormal((params.faults.noise_seed, 80), self._library)
        self._space: dict[str, Array] = {}
        self._rows_on = self._library.array(np.ones((params.rows, 1)))
        self._columns_on = self._library.array(np.ones((params.columns, 1)))
        self._subtiles_on = self._library.array(np.ones((1, params.subtiles)))
        self._k: Array = None

    def write(
        self, k_codes: ArrayLike, v_codes: ArrayLike, *, ages: ArrayLike | None = None
    ) -> None:
        """Store tokens in columns 0, 1, … and forget all others; see `Window`."""
        self.load(Window(self.params, k_codes, v_codes, ages))

    def load(self, window: Window) -> None:
        """Take currents as they are: fold them with what the converters make of them."""
        params, sensing, array = self.params, self.params.sensing, self._library.array
        subtiles, columns, lanes = params.subtiles, params.columns, params.lanes
        # Array 1, in clocks of phi.
        scale = np.full(params.window, 1.0 / self._s_sat_ua)
        if sensing.score_gain is not None:
            scale *= sensing.score_gain
        k = (window.k_ua * scale[:, np.newaxis]).reshape(subtiles, columns, params.rows)
        self._k = array(np.ascontiguousarray(k.transpose(0, 2, 1)))
        self._k_scale = array(scale.reshape(subtiles, 1, columns))
        self._k_offset: Array = None
        if sensing.score_offset is not None or params.faults.noisy or self._phi_of is not None:
            offset = np.zeros(params.window)
            if sensing.score_offset is not None:
                offset += sensing.score_offset * scale
            offset[window.tokens :] = _NEVER
            if offset.any():
                self._k_offset = array(offset.reshape(subtiles, 1, columns))
        # Array 2, in counts.
        scale = np.full((subtiles, 1, lanes), 1.0 / self._charge_per_count)
        if sensing.output_gain is not None:
            scale *= sensing.output_gain[:, np.newaxis]
        self._v = array(window.v_ua.reshape(subtiles, columns, lanes) * scale)
        self._v_scale = array(scale)
        self._v_offset: Array = None
        if sensing.output_offset is not None:
            self._v_offset = array(sensing.output_offset[:, np.newaxis] * scale)

    def phi_clk(self, q: Array) -> Array:
        """Phi pulses in clocks, ``(subtiles, n, columns)``, of queries ``(n, rows)``.

        Parameters
        ----------
        q
            Lengths of the query's pulses in clocks, 0..q_max, whole or not, in the library and
            type of ``like``. They are not checked: that would cost as much as a converter.

        Raises
        ------
        ValueError
            The shape does not fit, or nothing has been written.
        """
        params, xp = self.params, self._library.xp
        if self._k is None:
            raise ValueError("the window must be written before a query")
        if len(q.shape) != 2 or q.shape[1] != params.rows:
            raise ValueError(f"q must have shape (n, {params.rows}), not {tuple(q.shape)!r}")
        phi = self._work("phi", (params.subtiles, q.shape[0], params.columns))
        xp.matmul(q, self._k, out=phi)
        if self._k_offset is not None:
            phi += self._k_offset
        sigma_ua = params.faults.read_sigma_ua
        if sigma_ua:
            self._add_noise(phi, xp.matmul(q, self._rows_on), sigma_ua, self._k_scale)
        if self._phi_of is not None:
            self._phi_of(phi)
        xp.clip(phi, 0.0, float(params.q_max), out=phi)
        jitter = params.faults.score_jitter_sigma_clk
        if jitter:
            noise = self._normal.fill(self._work("noise", tuple(phi.shape)))
            noise *= jitter
            noise *= phi > 0.0
            phi += noise
            xp.clip(phi, 0.0, float(params.q_max), out=phi)
        return phi

    def counts(self, phi_clk: Array) -> Array:
        """Signed counts of every sub-tile, ``(subtiles, n, lanes)``, of `phi_clk`'s pulses."""
        params, xp = self.params, self._library.xp
        counts = self._work("counts", (params.subtiles, phi_clk.shape[1], params.lanes))
        xp.matmul(phi_clk, self._v, out=counts)
        if self._v_offset is not None:
            counts += self._v_offset
        sigma_ua = params.faults.read_sigma_ua
        if sigma_ua:
            self._add_noise(counts, xp.matmul(phi_clk, self._columns_on), sigma_ua, self._v_scale)
        if self._count_of is not None:
            self._count_of(counts)
        jitter = params.faults.output_jitter_sigma_clk
        if jitter:
            noise = self._normal.fill(self._work("noise", tuple(counts.shape)))
            noise *= jitter
            noise *= xp.sign(counts)
            # A pulse does not get shorter than nothing: what would turn its sign is cut off.
            noise += counts
            counts[...] = noise * (xp.sign(noise) == xp.sign(counts))
        top = float(params.count_max)
        xp.clip(counts, -top, top, out=counts)
        return self._library.rint(counts, out=counts)

    def query(self, q: Array) -> Array:
        """Attend over the window.

        Parameters
        ----------
        q
            Lengths of the query's pulses in clocks, ``(n, rows)``; see `phi_clk`.

        Returns
        -------
        sums
            Signed counts summed over sub-tiles, ``(n, lanes)``, whole numbers in the type of
            ``like``; an array of its own.
        """
        n, lanes = q.shape[0], self.params.lanes
        sums = self._library.empty((n, lanes))
        for low in range(0, n, _QUERIES):
            high = min(low + _QUERIES, n)
            counts = self.counts(self.phi_clk(q[low:high]))
            flat = counts.reshape(self.params.subtiles, (high - low) * lanes)
            part = sums[low:high].reshape(1, (high - low) * lanes)
            self._library.xp.matmul(self._subtiles_on, flat, out=part)
        return sums

    def _add_noise(self, target: Array, on_clk: Array, sigma_ua: float, scale: Array) -> None:
        """Add the read noise of cells that were on for so many clocks together."""
        sigma = self._library.xp.sqrt(on_clk) * sigma_ua
        if target.shape[1] < _FEW:
            noise = self._normal.fill(self._work("noise", tuple(target.shape)))
            noise *= sigma
            noise *= scale
            target += noise
            return
        # One sub-tile after the other: its noise is still in the cache when it is added.
        noise = self._work("noise of one", tuple(target.shape[1:]))
        for number in range(target.shape[0]):
            self._normal.fill(noise)
            noise *= sigma if len(sigma.shape) == 2 else sigma[number]
            noise *= scale[number]
            target[number] += noise

    def _work(self, name: str, shape: tuple[int, ...]) -> Array:
        space = self._space.get(name)
        if space is None or tuple(space.shape) != shape:
            space = self._library.empty(shape)
            self._space[name] = space
        return space
