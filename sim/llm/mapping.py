"""Training-free mapping of one layer's softmax attention onto the arrays.

What the arrays compute is made to approach softmax by exact rewritings, least squares and choices
by measured error, on the layer's own queries, keys and values of a short calibration text:

1. *Sum of phi.* Lanes of fixed codes return it; the host divides, so that a common factor of all
   pulses of a query does not matter, nor does a common shift of its scores.
2. *Shots.* A query is played several times with its own threshold and slope each; the weighted sum
   of the HardSigmoids is a piecewise-linear exponential, fitted to E[exp(score) | measured score].
3. *Signed queries.* Pulses are unsigned, half full scale plus the signed query. Rows at full width
   hold the negated half sum of a token's own currents.
4. *Balance.* Scores do not change when keys are multiplied by A and queries by its inverse
   transpose. Rounding noise of either is tr(AᵀA C) tr((AᵀA)⁻¹ Q), for the second moments C of keys
   and Q of queries, least for the geometric mean of C⁻¹ and Q; an orthogonal matrix behind it
   spreads outliers over all rows. Values likewise, against the output projection; that folds.
5. *Thresholds by query.* Keys are centred; the largest score of a query is predicted from its
   product with the mean key, its length, its product with its own key and its position, and bias
   rows of fixed codes put it where phi ends.
6. *Sinks.* The host attends to the first tokens of a sequence by itself: one pair of products per
   sink, against which everything else is small. Queries that see no other token stay exact.
7. *Joint codes.* The levels of a column are chosen by coordinate descent on the squared error of
   its scores over the calibration's pulses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.linalg import hadamard
from scipy.optimize import least_squares
from torch import Tensor

from sim.llm.arrays import NonIdeal, Shot, Statistics, counts, counts_at, scores_ua
from sim.llm.gradient import divided
from sim.llm.recipe import Recipe

__all__ = ["LEVEL_MAX", "LayerMap", "calibrate", "lost", "softmax_attention"]

Floats = NDArray[np.float64]

_NORM_CURRENTS_UA = (3.3, -2.4, 6.4, -5.8)  # wanted of the lanes that return the sum of phi
_FINE_UA = 1.3  # wanted of the bias row that makes the small steps
_RIDGE = 1.0  # share of the mean added to moments before they are balanced
_RATIO = 11.0  # most of two shots' weights: a shift by 3, and a little of A_sat
_SWEEPS = 2  # of coordinate descent over a column's rows
_BLOCK = 16  # rows whose changes reach the other rows together
LEVEL_MAX = 255  #: highest level of a saturation current, in µA
FEATURES = 6  #: of a query that its largest score is predicted from
_SKIP = 4  # queries at the start of a sequence, at least, that see too few tokens to learn from
_LEAST_SCORE = -60.0  # of a sink, below the threshold: nothing beside others, not 0 alone
_SHORTEST = 32  # tokens of a calibration sequence, at least
_PRIORS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 30.0)  # weight of the mean output: tried
_A_SAT_UA = (10.0, 15.0, 22.0, 32.0, 48.0, 72.0, 110.0)  # A_sat: tried


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Causal softmax attention with grouped heads; the queries are the newest tokens."""
    queries, tokens = q.shape[-2], k.shape[-2]
    seen = None
    if queries != tokens:
        seen = torch.ones(queries, tokens, dtype=torch.bool).tril(tokens - queries)
    return torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=seen, is_causal=seen is None, enable_gqa=True, scale=scale
    )


def _spreading(size: int) -> Tensor:
    """Orthogonal matrix whose elements are about equally large."""
    if size & (size - 1) == 0:
        return torch.tensor(hadamard(size) / size**0.5, dtype=torch.float32)
    return torch.tensor(dct(np.eye(size), norm="ortho"), dtype=torch.float32)


def _powers(matrix: Tensor, *exponents: float) -> list[Tensor]:
    """Powers of a symmetric positive matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp(min=float(values.max()) * 1e-6)
    return [(vectors * values**exponent) @ vectors.T for exponent in exponents]


def balance(c: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric A and its inverse, where M = A² makes tr(M C) tr(M⁻¹ Q) least."""
    eye = torch.eye(len(c), dtype=torch.float64)
    c, q = (m.double() + _RIDGE * m.diagonal().mean() * eye for m in (c, q))
    root, inverse = _powers(c, 0.5, -0.5)
    (middle,) = _powers(root @ q @ root, 0.5)
    a, back = _powers(inverse @ middle @ inverse, 0.5, -0.5)
    return a.float(), back.float()


def nearest(target_ua: Tensor, levels_ua: Tensor) -> Tensor:
    """Code of the nearest current."""
    return torch.bucketize(target_ua.contiguous(), (levels_ua[1:] + levels_ua[:-1]) / 2)


def joint(target_ua: Tensor, levels_ua: Tensor, moment: Tensor) -> Tensor:
    """Codes of each column, (..., columns, rows), that keep the error of its scores small.

    Coordinate descent: given all other rows, a row's best level is the one nearest to where the
    error's gradient vanishes. ``moment`` is that of the pulses, (..., rows, rows).
    """
    lead, rows = target_ua.shape[:-2], target_ua.shape[-1]
    moment = moment.expand(*lead, rows, rows).reshape(lead.numel(), rows, rows)
    wanted = target_ua.reshape(lead.numel(), *target_ua.shape[-2:]).mT.contiguous()
    edges = (levels_ua[1:] + levels_ua[:-1]) / 2
    codes = torch.bucketize(wanted, edges)
    current = levels_ua[codes]
    slope = 1 / moment.diagonal(dim1=-2, dim2=-1).clamp(min=1e-9)
    for _ in range(_SWEEPS):
        gradient = torch.bmm(moment, current - wanted)
        for start in range(0, rows, _BLOCK):
            stop = min(start + _BLOCK, rows)
            block = gradient[:, start:stop]
            before = current[:, start:stop].clone()
            for i, row in enumerate(range(start, stop)):
                code = torch.bucketize(current[:, row] - block[:, i] * slope[:, row, None], edges)
                level = levels_ua[code]
                step = (level - current[:, row])[:, None]
                current[:, row], codes[:, row] = level, code
                block[:, i + 1 :].baddbmm_(moment[:, row + 1 : stop, row, None], step)
            if stop < rows:
                change = current[:, start:stop] - before
                gradient[:, stop:].baddbmm_(moment[:, stop:, start:stop], change)
    return codes.mT.reshape(target_ua.shape)


def compensation(total_ua: Tensor, rows: int, levels_ua: Tensor) -> Tensor:
    """Codes of rows at full width whose currents add up to minus half of ``total_ua``."""
    left, codes = -total_ua / 2, []
    for row in range(rows):
        codes.append(nearest(left / (rows - row), levels_ua))
        left = left - levels_ua[codes[-1]]
    if not codes:
        return torch.zeros(*total_ua.shape, 0, dtype=torch.long)
    return torch.stack(codes, dim=-1)


@dataclass(frozen=True)
class _Bias:
    """Rows of fixed codes: some at the lowest level, some at the highest, one for small steps."""

    codes: Tensor
    negative: int
    levels_ua: Tensor

    @classmethod
    def of(cls, rows: int, levels_ua: Tensor) -> _Bias:
        negative = rows - 1 - (rows - 1) // 3
        top = len(levels_ua) - 1
        fine = int((levels_ua - _FINE_UA).abs().argmin())
        codes = [0] * negative + [top] * (rows - 1 - negative) + [fine]
        return cls(torch.tensor(codes), negative, levels_ua)

    def pulses(self, wanted_ua: Tensor, q_max: int) -> Tensor:
        """Pulses whose charge comes near the current wanted, (..., rows)."""
        levels, positive = self.levels_ua, len(self.codes) - 1 - self.negative
        low, high, fine = (float(levels[self.codes[i]]) / q_max for i in (0, -2, -1))
        down = torch.ceil(-wanted_ua / -low).clamp(0, q_max * self.negative)
        up = torch.floor(wanted_ua / high).clamp(0, q_max * positive)
        small = torch.round((wanted_ua - down * low - up * high) / fine).clamp(0, q_max)
        parts = []
        for total, rows in ((down, self.negative), (up, positive)):
            for row in range(rows):
                part = torch.clamp(total, max=q_max) if row + 1 < rows else total
                parts.append(part)
                total = total - part
        return torch.stack([*parts, small], dim=-1)


@dataclass(frozen=True, kw_only=True)
class LayerMap:
    """One layer, mapped. Tensors by key-value head start with G, by query head with H.

    A grouped map has fewer key-value heads than query heads; else both are equally many.
    """

    recipe: Recipe  #: levers
    scale: float  #: scores are q.k times this
    key_mean: Tensor  #: (G, D)
    key_map: Tensor  #: centred key to currents in µA, (G, D, D)
    query_map: Tensor  #: query to half codes, (H, D, D)
    moment: Tensor  #: second moment of pulses about half scale, (G, D, D)
    value_mean: Tensor  #: (G, D)
    value_map: Tensor  #: centred value to currents, (G, D, D); folds into the projection
    value_back: Tensor  #: currents to value, (H, D, D); folds into the output projection
    gain_ua: Tensor  #: µA per unit of score, (H,)
    top: Tensor  #: prediction of the largest score from the features, (H, features)
    shot_weight: Tensor  #: (H, shots)
    shot_start: Tensor  #: where phi begins, from the predicted largest score on, (H, shots)
    s_sat_ua: Tensor  #: (H, shots), in steps of 1 µA
    a_sat_ua: Tensor  #: (H, shots), in steps of 1 µA
    norm: Tensor  #: sums of norm lanes to sum of phi, (H, norm lanes)
    prior: Tensor  #: weight of the mean output, (H,)
    mean_output: Tensor  #: of softmax attention on calibration, (H, D)
    error: Tensor  #: share of variance lost behind the output projection on calibration, (H,)

    @property
    def heads(self) -> int:
        """Query heads."""
        return len(self.query_map)

    @property
    def head_size(self) -> int:
        """Elements of a query."""
        return self.query_map.shape[-1]

    def tensors(self) -> dict[str, Tensor]:
        """Everything but the recipe and the scale, for a file."""
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("recipe", "scale")]
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_tensors(cls, recipe: Recipe, scale: float, tensors: Mapping[str, Tensor]) -> LayerMap:
        """Map of the tensors that `tensors` gave."""
        return cls(recipe=recipe, scale=scale, **tensors)

    # --- codes ------------------------------------------------------------------------------
    def _levels(self) -> Tensor:
        return self.recipe.arrays.levels_ua.float()

    def _per_query_head(self, x: Tensor, dim: int = 1) -> Tensor:
        return x.repeat_interleave(self.heads // x.shape[dim], dim)

    def _own(self, x: Tensor) -> Tensor:
        """Keys or values by array: as they are, or repeated where groups do not share."""
        return x.repeat_interleave(len(self.key_mean) // x.shape[1], 1)

    def query_pulses(self, q: Tensor) -> Tensor:
        """Pulses wanted of the signal rows in clocks, not whole ones, (batch, H, queries, D)."""
        top = self.recipe.arrays.q_max
        return (top / 2 + q @ self.query_map).clamp(0, top)

    def query_codes(self, q: Tensor) -> Tensor:
        """Pulses of the signal rows, (batch, H, queries, D)."""
        return torch.round(self.query_pulses(q))

    def key_ua(self, k: Tensor) -> Tensor:
        """Currents wanted of the signal rows, (batch, G, tokens, D)."""
        return (self._own(k) - self.key_mean[:, None]) @ self.key_map

    def value_ua(self, v: Tensor) -> Tensor:
        """Currents wanted of the value lanes, (batch, G, tokens, D)."""
        return (self._own(v) - self.value_mean[:, None]) @ self.value_map

    def key_codes(self, k: Tensor) -> Tensor:
        """Codes of signal and compensation rows, (batch, G, tokens, rows)."""
        target, levels = self.key_ua(k), self._levels()
        joined = self.recipe.joint
        codes = joint(target, levels, self.moment) if joined else nearest(target, levels)
        rows = compensation(levels[codes].sum(-1), self.recipe.compensation_rows, levels)
        return torch.cat([codes, rows], dim=-1)

    def value_codes(self, v: Tensor) -> Tensor:
        """Codes of value and norm lanes, (batch, G, tokens, lanes)."""
        levels = self._levels()
        codes = nearest(self.value_ua(v), levels)
        wanted = [_NORM_CURRENTS_UA[i % 4] for i in range(self.recipe.norm_lanes)]
        lanes = nearest(torch.tensor(wanted), levels)
        return torch.cat([codes, lanes.expand(*codes.shape[:-1], -1)], dim=-1)

    # --- what the host knows of a query -----------------------------------------------------
    def common(self, q: Tensor) -> Tensor:
        """Score of the query with the mean key, (batch, H, queries)."""
        mean = self.key_mean.repeat_interleave(self.heads // len(self.key_mean), 0)
        return torch.einsum("bhtd,hd->bht", q, mean) * self.scale

    def features(self, q: Tensor, k: Tensor) -> Tensor:
        """What the largest score of a query is predicted from, (batch, H, queries, features)."""
        common = self.common(q)
        if not self.recipe.predict:
            one = torch.ones_like(common)
            return torch.stack([one, *[0 * one] * (FEATURES - 1)], dim=-1)
        own = self._per_query_head(k[..., k.shape[-2] - q.shape[-2] :, :])
        own = (q * own).sum(-1) * self.scale - common
        length = (q @ self.query_map).norm(dim=-1) / self.recipe.arrays.q_max
        index = torch.arange(k.shape[-2] - q.shape[-2], k.shape[-2])
        seen = torch.log1p(index.clamp(max=self.recipe.window).float()).expand_as(common)
        few = torch.rsqrt(1 + index.float()).expand_as(common)
        return torch.stack([torch.ones_like(common), common, length, own, seen, few], dim=-1)

    def threshold(self, q: Tensor, k: Tensor) -> Tensor:
        """Predicted largest score of each query, the mean key's taken out."""
        return torch.einsum("bhtf,hf->bht", self.features(q, k), self.top)

    def bias_ua(self, threshold: Tensor) -> Tensor:
        """Currents wanted of the bias rows, (shots, batch, H, queries)."""
        start = self.shot_start.T[:, None, :, None]
        return -self.gain_ua[:, None] * (threshold + start)

    def shots(self, threshold: Tensor) -> tuple[list[Shot], Tensor]:
        """Passes of every query, and the codes of the bias rows."""
        arrays = self.recipe.arrays
        bias = _Bias.of(self.recipe.bias_rows, self._levels())
        passes = []
        for n, wanted in enumerate(self.bias_ua(threshold)):
            passes.append(
                Shot(
                    s_sat_ua=self.s_sat_ua[:, n, None, None],
                    a_sat_ua=self.a_sat_ua[:, n, None, None],
                    bias=bias.pulses(wanted, arrays.q_max),
                )
            )
        return passes, bias.codes

    # --- the whole layer --------------------------------------------------------------------
    def full_rows(self, q: Tensor) -> Tensor:
        """Pulses of signal and compensation rows."""
        codes = self.query_codes(q)
        full = torch.full((*codes.shape[:-1], self.recipe.compensation_rows), 1.0)
        return torch.cat([codes, full * self.recipe.arrays.q_max], dim=-1)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        exact: bool = False,
        statistics: Statistics | None = None,
        faults: NonIdeal | None = None,
    ) -> Tensor:
        """Attention of the newest tokens over all: (batch, heads, tokens, head size) each.

        Parameters
        ----------
        q
            Queries, after the rotary embedding if there is one.
        k, v
            Keys and values of all tokens.
        exact
            Counts bit for bit those of the array models, in float64.
        statistics
            Added to, if given.
        faults
            Non-ideal arrays that compute instead, if given.
        """
        threshold, sinks = self.threshold(q, k), self.recipe.sinks
        passes, bias_codes = self.shots(threshold)
        sums, _ = counts(
            self.recipe.arrays,
            passes,
            self.full_rows(q),
            self.key_codes(k[..., sinks:, :]),
            self.value_codes(v[..., sinks:, :]),
            bias_codes=bias_codes,
            first=k.shape[-2] - q.shape[-2] - sinks,
            exact=exact,
            statistics=statistics,
            faults=faults,
        )
        return self.decode(self.total([s.float() for s in sums]), threshold, q, k, v)

    def total(self, sums: list[Tensor]) -> Tensor:
        """Weighted sum of the shots' results, in µA."""
        unit = self.a_sat_ua / self.recipe.arrays.count_max * self.shot_weight
        return sum(s * unit[:, n, None, None] for n, s in enumerate(sums))

    def decode(self, total: Tensor, threshold: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The host's last step: sinks added, divided by the sum of weights."""
        first = k.shape[-2] - q.shape[-2]
        return self.averaged(*self.gathered(total, threshold, q, k, v), first)

    def gathered(
        self, total: Tensor, threshold: Tensor, q: Tensor, k: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weighted sum of the values, sinks included, and the sum of weights, (..., 1)."""
        size, sinks = self.head_size, min(self.recipe.sinks, k.shape[-2])
        index = k.shape[-2] - q.shape[-2] + torch.arange(q.shape[-2])
        # Arrays that are not ideal answer even to queries that see nothing stored.
        total = total * (index >= self.recipe.sinks)[:, None]
        weight = torch.einsum("bhtl,hl->bht", total[..., size:], self.norm).clamp_(min=0)
        mean = self._per_query_head(self.value_mean, 0)[:, None]
        out = total[..., :size] @ self.value_back
        out = out + weight[..., None] * mean
        if sinks:
            keys = self._per_query_head(k[..., :sinks, :])
            values = self._per_query_head(v[..., :sinks, :])
            score = (q @ keys.transpose(-1, -2)) * self.scale
            score = score - (self.common(q) + threshold)[..., None]
            own = torch.exp(score.clamp(_LEAST_SCORE, 30.0)) * (
                index[:, None] >= torch.arange(sinks)
            )
            out = out + own @ values
            weight = weight + own.sum(-1)
        return out, weight[..., None]

    def averaged(self, out: Tensor, weight: Tensor, first: int = 0) -> Tensor:
        """What `gathered` gave and the mean output, divided by all weights.

        Queries of token ``first`` and on; those that see nothing but sinks are the host's alone.
        """
        stored = first + torch.arange(out.shape[-2]) >= self.recipe.sinks
        prior = self.prior[:, None, None] * stored[:, None]
        return divided(out + prior * self.mean_output[:, None], weight + prior)


# --- calibration --------------------------------------------------------------------------------
def _moment(x: Tensor) -> Tensor:
    flat = x.reshape(-1, x.shape[-1])
    return flat.T @ flat / len(flat)


def _quantile(x: Tensor, q: float) -> float:
    return float(np.quantile(x.abs().flatten().numpy(), q))


def _piecewise(x: Floats, target: Floats, weight: Floats, shots: int) -> tuple[Floats, ...]:
    """Weights, starts and lengths of ramps whose sum fits ``target(x)`` in least squares."""
    root = np.sqrt(weight / max(float((weight * target**2).sum()), 1e-30))

    def error(theta: Floats) -> Floats:
        w, start, length = np.split(theta, 3)
        ramps = np.clip((x - start[:, None]) / np.exp(length)[:, None], 0, 1)
        return np.asarray(root * (np.exp(w) @ ramps - target))

    low = np.repeat([-6.0, -8.0, np.log(0.4)], shots)
    high = np.repeat([3.0, 3.0, np.log(9.0)], shots)
    found: list[tuple[float, Floats]] = []
    for top in (-0.5, 0.7, 2.0):
        for span in (2.5, 4.5):
            edges = top - span * np.arange(shots, -1, -1) / shots
            rise = np.exp(edges[1:]) - np.where(np.arange(shots) > 0, np.exp(edges[:-1]), 0)
            theta = np.concatenate([np.log(rise), edges[:-1], np.log(np.diff(edges))])
            theta = np.clip(theta, low + 1e-3, high - 1e-3)
            fit = least_squares(error, theta, bounds=(low, high), max_nfev=40, diff_step=1e-3).x
            fit[:shots] = np.maximum(fit[:shots], fit[:shots].max() - np.log(_RATIO))
            found.append((float((error(fit) ** 2).sum()), fit))
    w, start, length = np.split(min(found, key=lambda pair: pair[0])[1], 3)
    return np.exp(w), start, np.exp(length)


def _arrays_of_layer(
    q: Tensor, k: Tensor, v: Tensor, gram: Tensor, scale: float, recipe: Recipe
) -> dict[str, Any]:
    """Rotations and ranges: everything that codes are made with."""
    heads, size = q.shape[1], q.shape[-1]
    arrays, groups = recipe.arrays, k.shape[1] if recipe.grouped else heads
    levels = arrays.levels_ua.float()
    reach, per = float(min(levels.max(), -levels.min())), heads // groups
    k, v = (x.repeat_interleave(groups // x.shape[1], 1)[..., recipe.sinks :, :] for x in (k, v))
    key_mean, value_mean = k.mean((0, 2)), v.mean((0, 2))
    spread, eye = _spreading(size), torch.eye(size)
    found: dict[str, list[Tensor]] = {
        name: []
        for name in ("key_map", "query_map", "moment", "value_map", "value_back", "gain_ua")
    }
    for g in range(groups):
        queries = q[:, g * per : (g + 1) * per]
        keys, values = k[:, g] - key_mean[g], v[:, g] - value_mean[g]
        a, b = balance(_moment(keys), _moment(queries)) if recipe.balance else (eye, eye)
        query_map, unit = b @ spread, arrays.q_max / 2
        key_scale = reach / _quantile(keys @ (a @ spread), recipe.clip)
        halves = []
        for h in range(per):
            rotated = queries[:, h] @ query_map
            reach_q = _quantile(rotated, recipe.clip)
            halves.append(torch.clamp(rotated * (unit / reach_q), -unit, unit))
            found["query_map"].append(query_map * (unit / reach_q))
            found["gain_ua"].append(torch.tensor(unit / reach_q / arrays.q_max * key_scale / scale))
        found["key_map"].append(a @ spread * key_scale)
        pulses = torch.round(torch.stack(halves) + unit) / arrays.q_max
        found["moment"].append(_moment(pulses - 0.5))
        weights = gram[g * per : (g + 1) * per].sum(0)
        a, b = balance(_moment(values), weights) if recipe.balance else (eye, eye)
        value_scale = reach / _quantile(values @ (a @ spread), recipe.clip)
        found["value_map"].append(a @ spread * value_scale)
        found["value_back"] += [spread.T @ b / value_scale] * per
    return {
        "key_mean": key_mean,
        "value_mean": value_mean,
        **{name: torch.stack(parts) for name, parts in found.items()},
    }


def _seen(tokens: int, recipe: Recipe) -> Tensor:
    """Which stored token (column) each query (row) sees, sinks left out."""
    age = torch.arange(tokens)[:, None] - torch.arange(recipe.sinks, tokens)
    return (age >= 0) & (age < recipe.window)


def _fit_shots(scores: Tensor, measured: Tensor, seen: Tensor, shots: int) -> tuple[Floats, ...]:
    """Ramps of one head that come nearest to E[exp(score) | measured score].

    Scores count from the predicted largest one. A pair weighs as much as its error does in the
    output: by one over the square of the query's sum.
    """
    weights = torch.where(seen, torch.exp(scores), 0.0)
    per_query = (1 / weights.sum(-1, keepdim=True).clamp(min=1e-6) ** 2).expand_as(scores)
    x, target, pair = measured[seen], weights[seen].double(), per_query[seen].double()
    low, step, bins = -14.0, 0.1, 220
    index = ((x - low) / step).long().clamp(0, bins - 1)
    empty = torch.zeros(bins, dtype=torch.float64)
    total = empty.index_add(0, index, pair)
    mean = empty.index_add(0, index, pair * target) / total.clamp(min=1e-300)
    centre = torch.arange(bins, dtype=torch.float64) * step + low + step / 2
    used = total > 0
    return _piecewise(centre[used].numpy(), mean[used].numpy(), total[used].numpy(), shots)


def _regress(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Weighted ridge regression without intercept, (samples, features) to (samples,)."""
    moment = (x * weight[:, None]).T @ (x * weight[:, None])
    ridge = 1e-3 * moment.diagonal().mean() + 1e-6
    right = (x * weight[:, None]).T @ (y * weight)
    return torch.linalg.solve(moment + ridge * torch.eye(len(moment)), right)


def _loss(error: Tensor, gram: Tensor) -> Tensor:
    """Squared error behind the output projection, by head; the first token has no choice."""
    error = error[:, :, 1:]
    return ((error @ gram) * error).sum((0, 2, 3))


def _gram(projection: Tensor, heads: int) -> Tensor:
    """Gram matrix of each head's part of the output projection, (H, D, D)."""
    by_head = projection.detach().float().reshape(len(projection), heads, -1)
    return torch.einsum("ohd,ohe->hde", by_head, by_head)


def lost(out: Tensor, exact: Tensor, projection: Tensor) -> Tensor:
    """Share of the variance of exact attention that is lost behind the projection, by head."""
    gram = _gram(projection, out.shape[1])
    variance = _loss(exact - exact.mean((0, 2), keepdim=True), gram).clamp(min=1e-12)
    return _loss(out - exact, gram) / variance


def calibrate(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    projection: Tensor,
    *,
    scale: float,
    recipe: Recipe,
    faults: NonIdeal | None = None,
) -> LayerMap:
    """Map one layer, from what a calibration text makes of it.

    Parameters
    ----------
    q
        Queries, after the rotary embedding if there is one: (sequences, heads, tokens, head size).
    k, v
        Keys and values, (sequences, key-value heads, tokens, head size).
    projection
        Output projection as (outputs, heads * head size).
    scale
        Scores are products of query and key times this.
    recipe
        Levers.
    faults
        Non-ideal arrays on which saturation of the results and weights of norm lanes and of the
        mean are chosen, if given.

    Raises
    ------
    ValueError
        The text is shorter than the map needs.
    """
    heads, tokens = q.shape[1:3]
    skip = max(_SKIP, recipe.sinks)
    least = max(_SHORTEST, 4 * skip)
    if tokens <= least:
        raise ValueError(f"calibration needs sequences of over {least} tokens, not {tokens!r}")
    gram = _gram(projection, heads)
    shots, arrays = recipe.shots, recipe.arrays
    blank = torch.zeros(heads, shots)
    layer = LayerMap(
        recipe=recipe,
        scale=scale,
        **_arrays_of_layer(q, k, v, gram, scale, recipe),
        top=torch.zeros(heads, FEATURES),
        shot_weight=blank,
        shot_start=blank,
        s_sat_ua=blank + 1,
        a_sat_ua=blank + 1,
        norm=torch.zeros(heads, recipe.norm_lanes),
        prior=torch.zeros(heads),
        mean_output=softmax_attention(q, k, v, scale).mean((0, 2)),
        error=torch.zeros(heads),
    )
    seen = _seen(tokens, recipe)
    keys = layer._per_query_head(k[..., recipe.sinks :, :])
    scores = (q @ keys.transpose(-1, -2)) * scale - layer.common(q)[..., None]
    largest = scores.masked_fill(~seen, -torch.inf)[:, :, skip:].amax(-1)
    features = layer.features(q, k)
    learnt = features[:, :, skip:]
    used = learnt.abs().sum((0, 1, 2)) > 0
    if not recipe.position:
        used[-2:] = False
    top = torch.zeros(heads, learnt.shape[-1])
    for h in range(heads):
        # NumPy's, for PyTorch's answers differ in their last bits from call to call.
        x, y = learnt[:, h].flatten(0, 1)[:, used].double(), largest[:, h].flatten().double()
        top[h, used] = torch.from_numpy(np.linalg.lstsq(x.numpy(), y.numpy())[0]).float()
    layer = dataclasses.replace(layer, top=top)
    threshold = layer.threshold(q, k)

    k_codes = layer.key_codes(k[..., recipe.sinks :, :])
    v_codes = layer.value_codes(v[..., recipe.sinks :, :])
    rows = layer.full_rows(q)
    measured = scores_ua(arrays, rows, k_codes, first=-recipe.sinks)
    measured = measured / layer.gain_ua[:, None, None] - threshold[..., None]
    scores = scores - threshold[..., None]
    late = seen[skip:].expand(len(q), -1, -1)
    fits = [
        _fit_shots(scores[:, h, skip:], measured[:, h, skip:], late, shots) for h in range(heads)
    ]
    weight, start, length = (
        torch.tensor(np.array(part), dtype=torch.float32) for part in zip(*fits, strict=True)
    )
    layer = dataclasses.replace(
        layer,
        shot_weight=weight,
        shot_start=start,
        s_sat_ua=(layer.gain_ua[:, None] * length).round().clamp(1, LEVEL_MAX),
    )
    return _choose_outputs(layer, q, k, v, gram, (rows, k_codes, v_codes, threshold), faults)


def _choose_outputs(
    layer: LayerMap,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gram: Tensor,
    codes: tuple[Tensor, Tensor, Tensor, Tensor],
    faults: NonIdeal | None = None,
) -> LayerMap:
    """Saturation of the results, weights of the norm lanes and of the mean, by measured error."""
    rows, k_codes, v_codes, threshold = codes
    recipe, heads, size = layer.recipe, layer.heads, layer.head_size
    exact = softmax_attention(q, k, v, layer.scale)
    variance = _loss(exact - exact.mean((0, 2), keepdim=True), gram).clamp(min=1e-12)
    # Shots of one query are added after a shift: their A_sat keep the ratio of their weights.
    weight = layer.shot_weight
    least = weight.min(1, keepdim=True).values
    shift = torch.round(torch.log2(weight / least)).clamp(0, 3)
    ratio = 2**shift * least / weight
    trials = [(a * ratio).round().clamp(1, LEVEL_MAX) for a in _A_SAT_UA]
    passes, bias_codes = layer.shots(threshold)
    played = counts_at(
        recipe.arrays,
        passes,
        [a.T[:, :, None, None] for a in trials],
        rows,
        k_codes,
        v_codes,
        bias_codes=bias_codes,
        first=-recipe.sinks,
        faults=faults,
    )
    best = dataclasses.replace(layer, error=torch.full((heads,), torch.inf))
    for a_sat_ua, a, (sums, phis) in zip(_A_SAT_UA, trials, played, strict=True):
        trial = dataclasses.replace(layer, a_sat_ua=a, shot_weight=2**shift * least * a_sat_ua / a)
        total = trial.total(sums)
        true = sum(p * trial.shot_weight[:, n, None] for n, p in enumerate(phis))
        norm = torch.stack(
            [
                _regress(lanes.flatten(0, 1), y.flatten(), (1 / (y.flatten() + 1)) ** 0.5)
                for lanes, y in zip(total[..., size:].unbind(1), true.unbind(1), strict=True)
            ]
        )
        trial = dataclasses.replace(trial, norm=norm)
        out, weight = trial.gathered(total, threshold, q, k, v)
        for prior in _PRIORS:
            trial = dataclasses.replace(trial, prior=torch.full((heads,), prior))
            error = _loss(trial.averaged(out, weight) - exact, gram) / variance
            best = _better(best, dataclasses.replace(trial, error=error))
    return best


def _better(a: LayerMap, b: LayerMap) -> LayerMap:
    """Head by head, the map with the smaller error."""
    pick = b.error < a.error
    names = ("a_sat_ua", "shot_weight", "norm", "prior", "error")
    return dataclasses.replace(
        a,
        **{
            name: torch.where(
                pick.reshape(-1, *[1] * (getattr(a, name).dim() - 1)),
                getattr(b, name),
                getattr(a, name),
            )
            for name in names
        },
    )
