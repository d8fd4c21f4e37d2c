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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from analog_models.cell import V_MID_V, PolynomialCell
from analog_models.converter import PHI_GRID, check_exact
from analog_models.dac import Dac, LevelCurrents, check_decay
from analog_models.params import check_int
from analog_models.presets import resolve_cell

__all__ = [
    "ArrayParams",
    "NonIdeal",
    "Shot",
    "Statistics",
    "counts",
    "counts_at",
    "scores_ua",
]


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
    """What converters saw, by head, added up over all else; feeds the energy report."""

    pairs: Tensor = field(default_factory=lambda: _NONE)  #: of a query and a token, per shot
    active: Tensor = field(default_factory=lambda: _NONE)  #: of those, pulses longer than nothing
    saturated: Tensor = field(default_factory=lambda: _NONE)  #: of those, pulses of full length
    pulse: Tensor = field(default_factory=lambda: _NONE)  #: sum of pulses, as shares of the longest
    results: Tensor = field(default_factory=lambda: _NONE)  #: of sub-tile, lane and query
    full_scale: Tensor = field(default_factory=lambda: _NONE)  #: of those, counts at their limit

    def add(self, heads: int, **found: Tensor) -> None:
        """Add sums over matrices, (..., heads) or flat."""
        for name, value in found.items():
            setattr(self, name, getattr(self, name) + value.double().reshape(-1, heads).sum(0))

    def shares(self) -> dict[str, Tensor]:
        """Shares of pulses that are active and saturated, mean length, results at full scale."""
        pairs, results = self.pairs.clamp(min=1.0), self.results.clamp(min=1.0)
        return {
            "active": self.active / pairs,
            "saturated": self.saturated / pairs,
            "mean_pulse": self.pulse / pairs,
            "full_scale": self.full_scale / results,
        }


_NONE = torch.zeros((), dtype=torch.float64)


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
        self._q, self._first, self._params = q.to(self.dtype), first, params
        k, v = (_per_query_head(codes, q) for codes in (k, v))
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

    def _by_age(self, level: int, rows: slice, block: slice) -> Tensor:
        assert self._table is not None
        queries = torch.arange(rows.start, rows.stop)[:, None] + self._first
        ages = (queries - torch.arange(block.start, block.stop)).clamp(0, len(self._table) - 1)
        return self._table[:, level][ages]

    def shot(self, shot: Shot) -> Shot:
        """What `phi` and `charges` need of a shot."""
        return shot

    def scores(self, rows: slice, block: slice) -> Tensor:
        """Charges of the columns, but for the bias rows."""
        q = self._q[..., rows, :]
        if self._table is None:
            return q @ self._k[..., block, :].transpose(-1, -2)
        return sum(
            (q @ k[..., block, :].transpose(-1, -2)) * self._by_age(level, rows, block)
            for level, k, _, _ in self._stored
        )

    def _bias(self, pulses: Tensor, rows: slice, block: slice) -> Tensor:
        pulses = pulses[..., rows, :].to(self.dtype)
        if self._table is None:
            return (pulses @ self._fixed)[..., None]
        return sum(
            pulses[..., lines].sum(-1)[..., None] * self._by_age(level, rows, block)
            for level, _, _, lines in self._stored
        )

    def phi(self, shared: Tensor, shot: Shot, rows: slice, block: slice) -> Tensor:
        """Pulses on the grid."""
        if shot.bias is not None:
            shared = shared + self._bias(shot.bias, rows, block)
        phi = (shared / shot.s_sat_ua).clamp_(0.0, self._params.q_max)
        return torch.round(phi.mul_(PHI_GRID))

    def limit(self, shot: Shot) -> Tensor:
        """The longest pulse."""
        return _scalar(self._params.q_max * PHI_GRID)

    def charges(self, drive: Tensor, shot: Shot, rows: slice, block: slice) -> Tensor:
        """Charges by lane in µA·ticks; the last lane is the sum of ``drive``."""
        total = drive.sum(-1, keepdim=True)
        if self._table is None:
            return torch.cat([drive @ self._v[..., block, :], total], dim=-1)
        charges = sum(
            (drive * self._by_age(level, rows, block)) @ v[..., block, :]
            for level, _, v, _ in self._stored
        )
        return torch.cat([charges, total], dim=-1)

    def read(self, charges: Tensor, shot: Shot) -> Tensor:
        """Signed counts, as `SignedChargeToPulse.round_charge` does."""
        top = self._params.count_max
        per_count = self._params.q_max * shot.a_sat_ua.double() / top
        length = (charges / (per_count * PHI_GRID)).clamp_(-top - 1, top + 1)
        return torch.trunc(2 * length) - torch.trunc(length)


class _Fast:
    """The same in float32: powers of the stored deviation u, each fading at its own rate.

    The constant part of the current and the bias rows enter as further columns of the products,
    shares of pulses stay in µA (times clocks) until charges become counts: what is done pair by
    pair is one product, one clipping and one product per shot.
    """

    dtype = torch.float32

    def __init__(
        self, params: ArrayParams, q: Tensor, k: Tensor, v: Tensor, fixed: Tensor, first: int
    ) -> None:
        cell, u = resolve_cell(params.cell), Dac(bits=params.kv_bits).levels_v - V_MID_V
        coefficients: Sequence[float] = (0.0, 1.0)
        powers = [params.levels_ua.to(self.dtype)]
        if params.decay_per_token:
            if not isinstance(cell, PolynomialCell) or cell.v_mid_v != V_MID_V:
                raise ValueError(
                    "cell must be a polynomial around 0.45 V where charge leaks and exact is "
                    f"false, not {params.cell!r}"
                )
            coefficients = cell.coefficients
            powers = [
                c * torch.tensor(u, dtype=self.dtype) ** (i + 1)
                for i, c in enumerate(coefficients[1:])
            ]
        self._lead, self._lanes = q.shape[:-2], v.shape[-1]
        self._constant, self._params = coefficients[0], params
        asked = first + torch.arange(q.shape[-2], dtype=self.dtype)
        stored = torch.arange(k.shape[-2], dtype=self.dtype)
        middle = k.shape[-2] / 2  # times are counted from here: exponents stay small
        rates = [params.decay_per_token * (i + 1) for i in range(len(powers))]
        self._fade = [torch.exp(-rate * (asked - middle))[:, None] for rate in rates]
        rise = [torch.exp(rate * (stored - middle))[:, None] for rate in rates]
        q = self.flat(q).to(self.dtype)
        self._q = torch.cat([q * fade for fade in self._fade], dim=-1)
        self._q_sum = q.sum(-1, keepdim=True)
        self._k = self._stored(k, powers, rise)
        one = torch.ones(*v.shape[:-1], 1)
        self._v = self._stored(v, powers, rise, one)
        self._fixed = torch.stack([p[fixed] for p in powers], dim=-1)
        self._rise = torch.cat([*rise, torch.ones(len(stored), 1)], dim=-1).T

    def flat(self, x: Tensor) -> Tensor:
        """One leading dimension; a value per head alone is given its other dimensions."""
        x = x.reshape((1,) * (len(self._lead) + 2 - x.dim()) + x.shape)
        return x.expand(*self._lead, *x.shape[-2:]).reshape(self._lead.numel(), *x.shape[-2:])

    def _stored(
        self, codes: Tensor, powers: list[Tensor], rise: list[Tensor], *more: Tensor
    ) -> Tensor:
        parts = [p[codes].mul_(r) for p, r in zip(powers, rise, strict=True)]
        parts = [part.to(self.dtype) for part in (*parts, *more)]
        stored = torch.cat(parts, dim=-1)
        stored = stored.reshape(codes.shape[:-2].numel(), *stored.shape[-2:])
        return stored.repeat_interleave(self._lead.numel() // len(stored), 0)

    def shot(self, shot: Shot) -> tuple[Tensor, Tensor, list[Tensor]]:
        """What every pair gets on top, its upper limit, and counts per charge by power."""
        top, total = self._q_sum, self._q_sum.new_zeros(1, 1, len(self._fade))
        if shot.bias is not None:
            pulses = self.flat(shot.bias).to(self.dtype)
            total = (pulses @ self._fixed) * torch.cat(self._fade, dim=-1)
            top = top + pulses.sum(-1, keepdim=True)
        more = torch.cat([total.expand(*top.shape[:-1], -1), self._constant * top], dim=-1)
        s_sat_ua, a_sat_ua = (self.flat(x.to(self.dtype)) for x in (shot.s_sat_ua, shot.a_sat_ua))
        gain = self._params.count_max / (self._params.q_max * a_sat_ua * s_sat_ua)
        gains = [self._constant * gain, *(gain * fade for fade in self._fade)]
        return more, self._params.q_max * s_sat_ua, gains

    def scores(self, rows: slice, block: slice) -> Tensor:
        """Charges of the columns, but for what `shot` adds."""
        return torch.bmm(self._q[:, rows], self._k[:, block].transpose(-1, -2))

    def phi(self, shared: Tensor, shot: Any, rows: slice, block: slice) -> Tensor:
        """Pulses in clocks, times S_sat in µA."""
        more, limit, _ = shot
        rise = self._rise[:, block].expand(len(shared), -1, -1)
        raw = torch.baddbmm(shared, more[:, rows], rise)
        return torch.clamp(raw, torch.zeros(()), limit, out=raw)

    def limit(self, shot: Any) -> Tensor:
        """The longest pulse."""
        limit: Tensor = shot[1]
        return limit

    def charges(self, drive: Tensor, shot: Any, rows: slice, block: slice) -> Tensor:
        """Charges by lane in counts; the last lane is the sum of ``drive``."""
        lanes, (constant, *gains) = self._lanes, shot[2]
        parts = torch.bmm(drive, self._v[:, block])
        total = parts[..., -1:]
        charges = torch.empty(*parts.shape[:-1], lanes + 1)
        charges[..., lanes:] = total
        out = charges[..., :lanes]
        torch.mul(parts[..., :lanes], gains[0][:, rows], out=out)
        for i, gain in enumerate(gains[1:], 1):
            out.addcmul_(parts[..., i * lanes : (i + 1) * lanes], gain[:, rows])
        if self._constant:
            out.add_(total * constant)
        return charges

    def read(self, charges: Tensor, shot: Any) -> Tensor:
        """Signed counts."""
        return charges.round()


def laps(
    params: ArrayParams, start: int, *, queries: int, tokens: int, first: int
) -> list[tuple[slice, slice]]:
    """Tokens that the sub-tile of column ``start`` holds one after another, and who sees them."""
    width, found = min(params.columns, params.window - start), []
    for lap in range(start, tokens, params.window):
        block = slice(lap, min(lap + width, tokens))
        rows = slice(max(0, lap - first), min(queries, block.stop - 1 + params.window - first))
        if rows.start < rows.stop:
            found.append((rows, block))
    return found


def hide(phi: Tensor, params: ArrayParams, first: int, rows: slice, block: slice) -> None:
    """No pulse from a token that is not written yet, or overwritten already."""
    stored = torch.arange(block.start, block.stop)
    newer = min(block.stop - 1 - first, rows.stop) - rows.start
    if newer > 0:
        asked = torch.arange(newer) + first + rows.start
        phi[..., :newer, :] *= asked[:, None] >= stored
    older = max(block.start + params.window - first, rows.start)
    if older < rows.stop:
        asked = torch.arange(older, rows.stop) + first
        phi[..., older - rows.start :, :] *= asked[:, None] - stored < params.window


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
    within: list[tuple[slice, Tensor]] | None = None,
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
        Stored codes, (..., tokens, rows) and (..., tokens, lanes). Of fewer heads than queries
        have, each serves as many query heads.
    bias_codes
        Codes of the rows that hold the same in every column, (bias rows,).
    first
        Index of the token that the first query belongs to; below 0 it sees nothing.
    exact
        In float64, bit for bit; else in float32.
    statistics
        Added to, if given.
    within
        Appended to, if given: by sub-tile and shot, queries and whether their results are within
        the range of the counters.
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
        k_codes, v_codes = (_per_query_head(codes, q_codes) for codes in (k_codes, v_codes))
        return faults.counts(
            params, shots, q_codes, k_codes, v_codes, bias_codes=bias_codes, first=first
        )
    lead, lanes, top = q_codes.shape[:-2], v_codes.shape[-1], params.count_max
    kind: Any = _Exact if exact else _Fast
    arrays = kind(params, q_codes, k_codes, v_codes, _none(bias_codes), first)
    played = [arrays.shot(shot) for shot in shots]
    totals = _zeros(arrays, q_codes, lanes + 1, len(shots), exact)
    for span, charges in _charges(params, arrays, played, q_codes, k_codes, first, statistics):
        for total, charge, shot in zip(totals, charges, played, strict=True):
            result = arrays.read(charge[..., :lanes], shot)
            if within is not None:
                within.append((span, result.abs() <= top))
            result = result.clamp_(-top, top)
            if statistics is not None:
                limit = (result.abs() == top).sum((-2, -1))
                each = torch.full_like(limit, result.shape[-2] * lanes)
                statistics.add(_heads(q_codes), results=each, full_scale=limit)
            total[..., span, :lanes] += result
            total[..., span, lanes] += charge[..., lanes]
    sums = [total[..., :lanes].reshape(*lead, -1, lanes) for total in totals]
    return sums, _phis(arrays, totals, played, lead)


def counts_at(
    params: ArrayParams,
    shots: Sequence[Shot],
    a_sat_ua: Sequence[Tensor],
    q_codes: Tensor,
    k_codes: Tensor,
    v_codes: Tensor,
    *,
    bias_codes: Tensor | None = None,
    first: int = 0,
    faults: NonIdeal | None = None,
) -> list[tuple[list[Tensor], list[Tensor]]]:
    """`counts` in float32 at several saturation currents of the results, from the same charges.

    Parameters
    ----------
    params, shots, q_codes, k_codes, v_codes, bias_codes, first, faults
        As for `counts`; saturation currents of the results are not those of ``shots``.
    a_sat_ua
        By trial: of every shot, (shots, ...) with the rest as `Shot.a_sat_ua` has it.

    Returns
    -------
    found
        By trial, what `counts` gives. Arrays that are not ideal are played anew for each, since
        their noise belongs to a pass: its sums go with its own pulses.
    """
    if faults is not None:
        k_codes, v_codes = (_per_query_head(codes, q_codes) for codes in (k_codes, v_codes))
        found = []
        for trial in a_sat_ua:
            tried = [replace(shot, a_sat_ua=a) for shot, a in zip(shots, trial, strict=True)]
            found.append(
                faults.counts(
                    params, tried, q_codes, k_codes, v_codes, bias_codes=bias_codes, first=first
                )
            )
        return found
    lead, lanes, top = q_codes.shape[:-2], v_codes.shape[-1], params.count_max
    arrays = _Fast(params, q_codes, k_codes, v_codes, _none(bias_codes), first)
    unit = [replace(shot, a_sat_ua=torch.ones(())) for shot in shots]
    played = [arrays.shot(shot) for shot in unit]
    # Counts of every trial side by side, then the sum of the pulses.
    totals = _zeros(arrays, q_codes, len(a_sat_ua) * lanes + 1, len(shots), exact=False)
    shares = [[1 / arrays.flat(a) for a in trial] for trial in a_sat_ua]
    for span, charges in _charges(params, arrays, played, q_codes, k_codes, first, None):
        for n, (total, charge) in enumerate(zip(totals, charges, strict=True)):
            for at, share in enumerate(shares):
                result = (charge[..., :lanes] * share[n]).round_().clamp_(-top, top)
                total[..., span, at * lanes : (at + 1) * lanes] += result
            total[..., span, -1] += charge[..., lanes]
    phis = _phis(arrays, totals, played, lead)
    return [
        (
            [
                total[..., at * lanes : (at + 1) * lanes].reshape(*lead, -1, lanes)
                for total in totals
            ],
            phis,
        )
        for at in range(len(shares))
    ]


def _per_query_head(codes: Tensor, q: Tensor) -> Tensor:
    """Codes (..., heads, tokens, lines), repeated for the query heads that share them."""
    if codes.dim() < 3 or codes.shape[-3] == q.shape[-3]:
        return codes
    return codes.repeat_interleave(q.shape[-3] // codes.shape[-3], -3)


def _none(bias_codes: Tensor | None) -> Tensor:
    return torch.zeros(0, dtype=torch.long) if bias_codes is None else bias_codes


def _zeros(arrays: Any, q_codes: Tensor, width: int, shots: int, exact: bool) -> list[Tensor]:
    lead = q_codes.shape[:-2]
    flat = lead if exact else (lead.numel(),)
    return [torch.zeros(*flat, q_codes.shape[-2], width, dtype=arrays.dtype) for _ in range(shots)]


def _phis(arrays: Any, totals: list[Tensor], played: list[Any], lead: Any) -> list[Tensor]:
    return [
        (total[..., -1] / arrays.limit(shot)[..., 0]).reshape(*lead, -1)
        for total, shot in zip(totals, played, strict=True)
    ]


def _charges(
    params: ArrayParams,
    arrays: Any,
    played: list[Any],
    q_codes: Tensor,
    k_codes: Tensor,
    first: int,
    statistics: Statistics | None,
) -> Iterator[tuple[slice, list[Tensor]]]:
    """By sub-tile: the queries that see it, and their charges by shot; a lane adds up pulses."""
    queries, tokens = q_codes.shape[-2], k_codes.shape[-2]
    for start in range(0, min(params.window, tokens), params.columns):
        held = laps(params, start, queries=queries, tokens=tokens, first=first)
        if not held:
            continue
        span = slice(min(rows.start for rows, _ in held), max(rows.stop for rows, _ in held))
        charges: list[Any] = [None] * len(played)
        for rows, block in held:
            shared = arrays.scores(rows, block)
            for n, shot in enumerate(played):
                phi = arrays.phi(shared, shot, rows, block)
                hide(phi, params, first, rows, block)
                if statistics is not None:
                    share = phi / arrays.limit(shot)
                    _observe(statistics, share, params, _heads(q_codes), first, rows, block)
                got = arrays.charges(phi, shot, rows, block)
                if len(held) == 1:
                    charges[n] = got
                    continue
                if charges[n] is None:
                    charges[n] = got.new_zeros(
                        *got.shape[:-2], span.stop - span.start, got.shape[-1]
                    )
                charges[n][..., rows.start - span.start : rows.stop - span.start, :] += got
        yield span, charges


def scores_ua(params: ArrayParams, q_codes: Tensor, k_codes: Tensor, *, first: int = 0) -> Tensor:
    """Mean current of every column over a query's pulses, (..., queries, tokens), in float32.

    Parameters are those of `counts`; bias rows add to it.
    """
    none = torch.zeros(*k_codes.shape[:-1], 0, dtype=torch.long)
    arrays = _Fast(params, q_codes, k_codes, none, torch.zeros(0, dtype=torch.long), first)
    one = torch.ones(())
    more, _, _ = arrays.shot(Shot(s_sat_ua=one, a_sat_ua=one))
    rows, block = slice(0, q_codes.shape[-2]), slice(0, k_codes.shape[-2])
    raw = arrays.scores(rows, block).add_(more[..., -1:])
    return raw.reshape(*q_codes.shape[:-1], -1) / params.q_max


def _scalar(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def _heads(q_codes: Tensor) -> int:
    return q_codes.shape[-3] if q_codes.dim() > 2 else 1


def _observe(
    statistics: Statistics,
    share: Tensor,
    params: ArrayParams,
    heads: int,
    first: int,
    rows: slice,
    block: slice,
) -> None:
    seen = torch.ones(share.shape[-2:])
    hide(seen, params, first, rows, block)
    both = (-2, -1)
    statistics.add(
        heads,
        pairs=seen.sum().expand(share.shape[:-2]),
        active=(share > 0).sum(both),
        saturated=(share >= 1).sum(both),
        pulse=share.sum(both),
    )
