"""The arrays of many heads at once, in PyTorch: codes in, signed counts out.

Two precisions of one schedule. *Exact*: float64 on the grid of `analog_models`, level by level
and age by age; counts equal those of `analog_models.attend` bit for bit. *Fast*: float32, the
cell's polynomial in powers of the stored deviation, whose fading with age splits into a factor of
the query's time and one of the token's, so that leakage costs no step per pair of tokens. Fast
counts differ from exact ones only where a charge lies within float32's rounding of a boundary.

Work proceeds sub-tile by sub-tile, as in the hardware: what is held at a time is one sub-tile's
scores, so memory is linear in the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from analog_models.cell import V_MID_V, PolynomialCell
from analog_models.converter import PHI_GRID, check_exact
from analog_models.dac import Dac, LevelCurrents, check_decay
from analog_models.params import check_int
from analog_models.presets import resolve_cell

__all__ = ["ArrayParams", "NonIdeal", "Shot", "Statistics", "counts", "scores_ua"]


@dataclass(frozen=True, kw_only=True)
class ArrayParams:
    """What all heads of a model have in common.

    Raises
    ------
    TypeError
        A field is not of its kind.
    ValueError
        A field is out of its range.
    """

    window: int = 1024  #: tokens a head holds
    columns: int = 64  #: tokens of one sub-tile
    q_bits: int = 4  #: width of query codes
    kv_bits: int = 3  #: width of stored codes
    count_bits: int = 4  #: magnitude bits of one sub-tile's result
    cell: str = "published"  #: name of a preset cell
    decay_per_token: float = 0.0  #: share of the stored deviation lost per token, 0 is ideal

    def __post_init__(self) -> None:
        check_int("window", self.window, 1, 2**20)
        check_int("columns", self.columns, 1, 2**20)
        for name in ("q_bits", "kv_bits", "count_bits"):
            check_int(name, getattr(self, name), 1, 8)
        check_decay(self.decay_per_token, "voltage")
        resolve_cell(self.cell)

    @property
    def q_max(self) -> int:
        """Highest query code, and clocks of the longest pulse."""
        return (1 << self.q_bits) - 1

    @property
    def count_max(self) -> int:
        """Largest magnitude of one sub-tile's result."""
        return (1 << self.count_bits) - 1

    @cached_property
    def currents(self) -> LevelCurrents:
        """Currents of the stored levels, by age."""
        return LevelCurrents(
            resolve_cell(self.cell), Dac(bits=self.kv_bits), decay_per_token=self.decay_per_token
        )

    @cached_property
    def levels_ua(self) -> Tensor:
        """Currents of freshly stored levels in µA, float64."""
        return torch.from_numpy(self.currents.fresh.copy())


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One pass of every query: what differs between the shots of one query."""

    s_sat_ua: Tensor  #: saturation current of the scores, broadcast over (..., queries, tokens)
    a_sat_ua: Tensor  #: saturation current of the results, broadcast over (..., queries, lanes)
    bias: Tensor | None = None  #: pulses of the bias rows, (..., queries, bias rows)


@dataclass
class Statistics:
    """What converters saw, added up over queries and lanes; feeds the energy report."""

    pairs: float = 0.0  #: of a query and a token it sees, per shot
    active: float = 0.0  #: of those, pulses longer than nothing
    saturated: float = 0.0  #: of those, pulses of full length
    pulse: float = 0.0  #: sum of pulse lengths, as shares of the longest
    results: float = 0.0  #: of sub-tile, lane and query
    full_scale: float = 0.0  #: of those, counts at their limit

    def shares(self) -> dict[str, float]:
        """Shares of pulses that are active and saturated, mean length, results at full scale."""
        pairs, results = max(self.pairs, 1.0), max(self.results, 1.0)
        return {
            "active": self.active / pairs,
            "saturated": self.saturated / pairs,
            "mean_pulse": self.pulse / pairs,
            "full_scale": self.full_scale / results,
        }


class NonIdeal(Protocol):
    """Arrays that are not ideal: see `sim.llm.faults`."""

    def counts(
        self,
        params: ArrayParams,
        shots: Sequence[Shot],
        q_codes: Tensor,
        k_codes: Tensor,
        v_codes: Tensor,
        *,
        bias_codes: Tensor | None = None,
        first: int = 0,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What `counts` gives."""
        ...


class _Exact:
    """Charges on the grid, in float64: (one hot code) times (current of that level by age)."""

    dtype = torch.float64

    def __init__(
        self, params: ArrayParams, q: Tensor, k: Tensor, v: Tensor, fixed: Tensor, first: int
    ) -> None:
        self._q, self._first = q.to(self.dtype), first
        levels = params.levels_ua
        self._table: Tensor | None = None
        if params.decay_per_token:
            self._table = torch.from_numpy(params.currents.table(params.window))
            self._stored = [
                (level, (k == level).to(self.dtype), (v == level).to(self.dtype), fixed == level)
                for level in range(len(levels))
            ]
        else:
            self._k, self._v, self._fixed = levels[k], levels[v], levels[fixed]
        check_exact(
            rows=k.shape[-1] + fixed.shape[-1],
            columns=min(params.columns, params.window),
            q_bits=params.q_bits,
            i_max_ua=params.currents.i_max_ua,
        )

    def _by_age(self, level: int, low: int, block: slice) -> Tensor:
        assert self._table is not None
        queries = torch.arange(low, self._q.shape[-2])[:, None] + self._first
        ages = (queries - torch.arange(block.start, block.stop)).clamp(0, len(self._table) - 1)
        return self._table[:, level][ages]

    def scores(self, low: int, block: slice) -> Tensor:
        q = self._q[..., low:, :]
        if self._table is None:
            return q @ self._k[..., block, :].transpose(-1, -2)
        return sum(
            (q @ k[..., block, :].transpose(-1, -2)) * self._by_age(level, low, block)
            for level, k, _, _ in self._stored
        )

    def bias(self, pulses: Tensor, low: int, block: slice) -> Tensor:
        pulses = pulses[..., low:, :].to(self.dtype)
        if self._table is None:
            return (pulses @ self._fixed)[..., None]
        return sum(
            pulses[..., rows].sum(-1)[..., None] * self._by_age(level, low, block)
            for level, _, _, rows in self._stored
        )

    def charges(self, drive: Tensor, low: int, block: slice) -> Tensor:
        if self._table is None:
            return drive @ self._v[..., block, :]
        return sum(
            (drive * self._by_age(level, low, block)) @ v[..., block, :]
            for level, _, v, _ in self._stored
        )


class _Fast:
    """The same in float32: powers of the stored deviation u, each fading at its own rate."""

    dtype = torch.float32

    def __init__(
        self, params: ArrayParams, q: Tensor, k: Tensor, v: Tensor, fixed: Tensor, first: int
    ) -> None:
        cell = resolve_cell(params.cell)
        leaks = params.decay_per_token > 0
        q = q.to(self.dtype)
        self._leaks, self._constant, self._lanes = leaks, 0.0, v.shape[-1]
        if not leaks:
            levels = params.levels_ua.to(self.dtype)
            self._q, self._k, self._v, self._fixed = q, levels[k], levels[v], levels[fixed]
            return
        if not isinstance(cell, PolynomialCell) or cell.v_mid_v != V_MID_V:
            raise ValueError(
                "cell must be a polynomial around 0.45 V where charge leaks and exact is false, "
                f"not {params.cell!r}"
            )
        self._constant, *coefficients = cell.coefficients
        u = torch.tensor(Dac(bits=params.kv_bits).levels_v - V_MID_V, dtype=self.dtype)
        rates = [params.decay_per_token * (i + 1) for i in range(len(coefficients))]
        asked = first + torch.arange(q.shape[-2], dtype=self.dtype)
        stored = torch.arange(k.shape[-2], dtype=self.dtype)
        middle = k.shape[-2] / 2  # times are counted from here: exponents stay small
        self._fade = [torch.exp(-rate * (asked - middle))[:, None] for rate in rates]
        rise = [torch.exp(rate * (stored - middle))[:, None] for rate in rates]
        powers = [c * u ** (i + 1) for i, c in enumerate(coefficients)]
        self._q = torch.cat([q * fade for fade in self._fade], dim=-1)
        self._q_sum = self._constant * q.sum(-1, keepdim=True)
        self._k = torch.cat([p[k] * r for p, r in zip(powers, rise, strict=True)], dim=-1)
        self._v = torch.cat([p[v] * r for p, r in zip(powers, rise, strict=True)], dim=-1)
        self._fixed = torch.stack([p[fixed] for p in powers], dim=-1)
        self._rise = torch.cat(rise, dim=-1)

    def scores(self, low: int, block: slice) -> Tensor:
        scores = self._q[..., low:, :] @ self._k[..., block, :].transpose(-1, -2)
        return scores.add_(self._q_sum[..., low:, :]) if self._leaks else scores

    def bias(self, pulses: Tensor, low: int, block: slice) -> Tensor:
        pulses = pulses[..., low:, :].to(self.dtype)
        if not self._leaks:
            return (pulses @ self._fixed)[..., None]
        fade = torch.cat([fade[low:] for fade in self._fade], dim=-1)
        bias = ((pulses @ self._fixed) * fade) @ self._rise[block].T
        return bias.add_(self._constant * pulses.sum(-1, keepdim=True))

    def charges(self, drive: Tensor, low: int, block: slice) -> Tensor:
        charges = drive @ self._v[..., block, :]
        if not self._leaks:
            return charges
        parts = charges.split(self._lanes, dim=-1)
        total = drive.sum(-1, keepdim=True) * self._constant
        return sum((p * f[low:] for p, f in zip(parts, self._fade, strict=True)), start=total)


def _exact_counts(params: ArrayParams, charge: Tensor, a_sat_ua: Tensor) -> Tensor:
    """Signed counts from charges in µA·ticks, as `SignedChargeToPulse.round_charge` does."""
    per_count = params.q_max * a_sat_ua.double() / params.count_max
    length = (charge / (per_count * PHI_GRID)).clamp_(-params.count_max, params.count_max)
    return torch.trunc(2 * length) - torch.trunc(length)


def counts(
    params: ArrayParams,
    shots: Sequence[Shot],
    q_codes: Tensor,
    k_codes: Tensor,
    v_codes: Tensor,
    *,
    bias_codes: Tensor | None = None,
    first: int = 0,
    exact: bool = False,
    statistics: Statistics | None = None,
    faults: NonIdeal | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Play every query's shots over the window that it sees.

    Token j is stored in column ``j mod window``; a query sees the tokens up to its own index, the
    ``window`` newest of them.

    Parameters
    ----------
    params
        Widths and physics.
    shots
        Passes of every query.
    q_codes
        Pulses of the rows that all shots have in common, (..., queries, rows).
    k_codes, v_codes
        Stored codes, (..., tokens, rows) and (..., tokens, lanes).
    bias_codes
        Codes of the rows that hold the same in every column, (bias rows,).
    first
        Index of the token that the first query belongs to; below 0 it sees nothing.
    exact
        In float64, bit for bit; else in float32.
    statistics
        Added to, if given.
    faults
        Non-ideal arrays, which compute instead of these, in float32 and without statistics.

    Returns
    -------
    sums, phis
        Per shot: signed counts summed over sub-tiles, (..., queries, lanes); and the sum of all
        pulses as shares of the longest one, (..., queries).

    Raises
    ------
    ValueError
        Exact counts or statistics of non-ideal arrays are asked for.
    """
    if faults is not None:
        if exact or statistics is not None:
            raise ValueError("exact must be false with faults, and statistics None")
        return faults.counts(
            params, shots, q_codes, k_codes, v_codes, bias_codes=bias_codes, first=first
        )
    queries, tokens = q_codes.shape[-2], k_codes.shape[-2]
    fixed = torch.zeros(0, dtype=torch.long) if bias_codes is None else bias_codes
    kind: Any = _Exact if exact else _Fast
    arrays = kind(params, q_codes, k_codes, v_codes, fixed, first)
    lead, lanes = q_codes.shape[:-2], v_codes.shape[-1]
    sums = [torch.zeros(*lead, queries, lanes, dtype=arrays.dtype) for _ in shots]
    phis = [torch.zeros(*lead, queries, dtype=arrays.dtype) for _ in shots]
    index = first + torch.arange(queries)
    for start in range(0, min(params.window, tokens), params.columns):
        width = min(params.columns, params.window - start)
        laps = range(start, tokens, params.window)
        charge: list[Any] = [None] * len(shots)
        for lap in laps:
            block = slice(lap, min(lap + width, tokens))
            low = max(0, lap - first)
            if low >= queries:
                continue
            age = index[low:, None] - torch.arange(block.start, block.stop)
            seen = (age >= 0) & (age < params.window)
            if not seen.any():
                continue
            shared = arrays.scores(low, block)
            for n, shot in enumerate(shots):
                raw = shared
                if shot.bias is not None:
                    raw = shared + arrays.bias(shot.bias, low, block)
                phi = raw / shot.s_sat_ua
                phi = phi.clamp_(0.0, params.q_max).mul_(seen)
                if exact:
                    phi = torch.round(phi.mul_(PHI_GRID))
                if statistics is not None:
                    _observe(statistics, phi, params.q_max * (PHI_GRID if exact else 1), seen)
                got = arrays.charges(phi, low, block)
                phis[n][..., low:] += phi.sum(-1)
                if charge[n] is None:
                    charge[n] = torch.zeros(*lead, queries, lanes, dtype=arrays.dtype)
                charge[n][..., low:, :] += got
        for n, shot in enumerate(shots):
            if charge[n] is None:
                continue
            if exact:
                result = _exact_counts(params, charge[n], shot.a_sat_ua)
            else:
                per_count = params.q_max * shot.a_sat_ua / params.count_max
                result = charge[n].div_(per_count).round_()
                result = result.clamp_(-params.count_max, params.count_max)
            if statistics is not None:
                statistics.results += result.numel()
                statistics.full_scale += float((result.abs() == params.count_max).sum())
            sums[n] += result
    full = params.q_max * (PHI_GRID if exact else 1)
    return sums, [phi / full for phi in phis]


def scores_ua(params: ArrayParams, q_codes: Tensor, k_codes: Tensor, *, first: int = 0) -> Tensor:
    """Mean current of every column over a query's pulses, (..., queries, tokens), in float32.

    Parameters are those of `counts`; bias rows add to it.
    """
    none = torch.zeros(*k_codes.shape[:-1], 0, dtype=torch.long)
    arrays = _Fast(params, q_codes, k_codes, none, torch.zeros(0, dtype=torch.long), first)
    return arrays.scores(0, slice(0, k_codes.shape[-2])) / params.q_max


def _observe(statistics: Statistics, phi: Tensor, full: float, seen: Tensor) -> None:
    statistics.pairs += float(seen.sum()) * phi[..., 0, 0].numel()
    statistics.active += float((phi > 0).sum())
    statistics.saturated += float((phi >= full).sum())
    statistics.pulse += float(phi.sum()) / full
