"""Gradients through the arrays: straight through what rounds, tile by tile.

The forward pass is `counts`, code for code. The backward pass computes pulses anew, sub-tile by
sub-tile, so that memory is linear in the context, and takes three liberties, none of which changes
what the arrays compute: rounding passes gradients (clipping does not), every tile of queries and
tokens leaks as its mean age does, and rows that make up for something pass gradients to what they
make up for: compensation rows to the keys, bias rows to the current wanted of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sim.llm.arrays import ArrayParams, Shot, counts, hide, laps

__all__ = ["Stored", "divided", "passes", "rounded", "straight"]

_QUERIES = 256  # of a tile of the backward pass
_LEAST = 0.3  # sum of weights that gradients are divided by at least


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, soft: Tensor, hard: Tensor) -> Tensor:
        return hard.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        return grads[0], None


def straight(soft: Tensor, hard: Tensor) -> Tensor:
    """``hard``, with the gradient of ``soft``."""
    out: Tensor = _Straight.apply(soft, hard)
    return out


def rounded(x: Tensor) -> Tensor:
    """Nearest integer, with the gradient of ``x``."""
    return straight(x, torch.round(x.detach()))


class _Divided(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out: Tensor, weight: Tensor) -> Tensor:
        mean = out / weight
        ctx.save_for_backward(mean, weight)
        return mean

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor]:
        mean, weight = ctx.saved_tensors
        by_out = grads[0] / weight.clamp(min=_LEAST)
        return by_out, -(by_out * mean).sum(-1, keepdim=True)


def divided(out: Tensor, weight: Tensor) -> Tensor:
    """``out / weight``; where hardly a pulse was, gradients stay in bounds."""
    mean: Tensor = _Divided.apply(out, weight)
    return mean


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What the arrays hold: codes, and the currents that were wanted of them."""

    codes: Tensor  #: (batch, groups, tokens, lines)
    wanted_ua: Tensor  #: of the first lines; the others hold nothing of their own


class _Passes(torch.autograd.Function):
    """Counts of every shot; see `passes`."""

    @staticmethod
    def forward(
        ctx: Any,
        params: ArrayParams,
        first: int,
        bias_codes: Tensor,
        codes: tuple[Tensor, Tensor],
        shots: Sequence[Shot],
        q: Tensor,
        keys_ua: Tensor,
        values_ua: Tensor,
        wanted_ua: Tensor,
        s_sat_ua: Tensor,
    ) -> Tensor:
        within: list[tuple[slice, Tensor]] = []
        sums, _ = counts(
            params,
            shots,
            q,
            *codes,
            bias_codes=bias_codes,
            first=first,
            within=within,
        )
        ctx.save_for_backward(q, *codes, s_sat_ua, *(mask for _, mask in within))
        ctx.sizes = keys_ua.shape[-1], values_ua.shape[-1]
        ctx.known = params, first, bias_codes, shots
        return torch.stack(sums)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        params, first, bias_codes, shots = ctx.known
        q, k_codes, v_codes, s_sat_ua, *within = ctx.saved_tensors
        (grad,) = grads
        rows, lanes = ctx.sizes
        batch, heads, queries = q.shape[:3]
        groups, tokens = k_codes.shape[1:3]
        per = heads // groups
        table = torch.from_numpy(params.currents.table(params.window)).float()
        flat = q.flatten(0, 1)
        signed = flat[..., :rows] - params.q_max / 2
        bias = [shot.bias.flatten(0, 1).float() for shot in shots]
        limits = [
            params.q_max * s_sat_ua[:, n].repeat(batch)[:, None, None] for n in range(len(shots))
        ]
        shares = [1 / s_sat_ua[:, n].repeat(batch)[:, None, None] for n in range(len(shots))]
        gains = [params.count_max / (params.q_max * shot.a_sat_ua) for shot in shots]
        grads_counts = [(grad[n] * gains[n]).flatten(0, 1) for n in range(len(shots))]
        d_q = torch.zeros(batch * heads, queries, q.shape[-1])
        d_keys = torch.zeros(batch * heads, tokens, rows)
        d_values = torch.zeros(batch * heads, tokens, lanes)
        d_wanted = torch.zeros(len(shots), batch * heads, queries)
        d_s_sat = torch.zeros(batch * heads, len(shots))
        masks = iter(within)
        for start in range(0, min(params.window, tokens), params.columns):
            held = laps(params, start, queries=queries, tokens=tokens, first=first)
            if not held:
                continue
            low = min(lap.start for lap, _ in held)
            high = max(lap.stop for lap, _ in held)
            seen = [next(masks) for _ in shots]
            charged = [g[:, low:high] * mask for g, mask in zip(grads_counts, seen, strict=True)]
            for lap, block in held:
                for begin in range(lap.start, lap.stop, _QUERIES):
                    tile = slice(begin, min(begin + _QUERIES, lap.stop))
                    age = first + (tile.start + tile.stop - block.start - block.stop) // 2
                    current = table[min(max(age, 0), len(table) - 1)]
                    keys = current[k_codes[:, :, block]].repeat_interleave(per, 1).flatten(0, 1)
                    values = current[v_codes[:, :, block]].repeat_interleave(per, 1).flatten(0, 1)
                    raw = torch.bmm(flat[:, tile], keys.mT)
                    total = torch.zeros_like(raw)
                    for n in range(len(shots)):
                        extra = bias[n][:, tile] @ current[bias_codes]
                        charge = raw + extra[..., None]
                        inside = (charge > 0) & (charge < limits[n])
                        hide(inside, params, first, tile, block)
                        phi = torch.clamp(charge * shares[n], 0, params.q_max)
                        hide(phi, params, first, tile, block)
                        by_count = charged[n][:, tile.start - low : tile.stop - low]
                        d_values[:, block] += torch.bmm(phi.mT, by_count[..., :lanes])
                        d_charge = torch.bmm(by_count, values.mT).mul_(shares[n]).mul_(inside)
                        d_wanted[n][:, tile] += d_charge.sum(-1)
                        d_s_sat[:, n] -= (d_charge * phi).sum((1, 2))
                        total += d_charge
                    d_q[:, tile, :rows] += torch.bmm(total, keys[..., :rows])
                    d_keys[:, block] += torch.bmm(total.mT, signed[:, tile])
        by_head = (batch, heads, -1)
        by_group = (batch, groups, per, tokens, -1)
        return (
            None, None, None, None, None,
            d_q.reshape(q.shape),
            d_keys.reshape(by_group).sum(2),
            d_values.reshape(by_group).sum(2),
            params.q_max * d_wanted.reshape(len(shots), *by_head),
            d_s_sat.reshape(batch, heads, -1).sum(0),
        )  # fmt: skip


def passes(
    params: ArrayParams,
    shots: Sequence[Shot],
    q_codes: Tensor,
    keys: Stored,
    values: Stored,
    *,
    wanted_ua: Tensor,
    s_sat_ua: Tensor,
    bias_codes: Tensor,
    first: int = 0,
) -> Tensor:
    """Counts as `counts` gives them in float32, with gradients.

    Parameters
    ----------
    params
        Widths and physics.
    shots
        Passes of every query.
    q_codes
        Pulses of signal and compensation rows, (batch, heads, queries, rows).
    keys, values
        What is stored; columns of ``wanted_ua`` are the signal rows and lanes.
    wanted_ua
        Current that the pulses of each shot's bias rows stand for, (shots, batch, heads, queries).
    s_sat_ua
        Saturation currents of the scores, those of the shots, (heads, shots).
    bias_codes
        Codes of the bias rows.
    first
        Index of the token that the first query belongs to.

    Returns
    -------
    sums
        (shots, batch, heads, queries, lanes).
    """
    sums: Tensor = _Passes.apply(
        params,
        first,
        bias_codes,
        (keys.codes, values.codes),
        tuple(shots),
        q_codes,
        keys.wanted_ua,
        values.wanted_ua,
        wanted_ua,
        s_sat_ua,
    )
    return sums
