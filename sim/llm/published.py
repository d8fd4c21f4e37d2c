"""The published structure, mapped without training: affine scalers matched to statistics."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from sim.llm.arrays import ArrayParams
from sim.llm.attention import AffineAttention
from sim.llm.mapping import softmax_attention

__all__ = ["match_statistics"]

_CONSTANT = 1e-6  # standard deviation below which an output is a constant
_SPREAD = 2.0  # standard deviations that fill half the range of pulses and voltages


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.double()
    return x.mean((0, 2, 3)), x.std((0, 2, 3)).clamp(min=1e-9)


def match_statistics(
    layer: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    params: ArrayParams,
    *,
    by_channel: bool = False,
) -> AffineAttention:
    """Scalers of one layer: inputs fill the ranges, outputs get softmax's mean and deviation.

    Parameters
    ----------
    layer
        The model's attention module, for its scale.
    q, k, v
        What a calibration text makes of the layer: (sequences, heads, tokens, head size).
    params
        Widths and physics; the cell may be the nonlinear or the linear one.
    by_channel
        Offsets of every channel by itself, and outputs by least squares, channel by channel.
    """
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scalers = {}
    for name, x, centre in (("q", q, 0.5), ("k", k, 0.45), ("v", v, 0.45)):
        mean, deviation = _moments(x)
        if by_channel:
            mean = x.double().mean((0, 2))
            _, deviation = _moments(x - mean[:, None])
        scale = centre / (_SPREAD * deviation)
        shift = scale[:, None] * mean if by_channel else scale * mean
        scalers |= {f"{name}_scale": scale, f"{name}_offset": centre - shift}
    found = AffineAttention(params=params, **scalers)
    wanted = softmax_attention(q, k, v, float(layer.scaling)).double()
    got = found.sums(q, k, v) / params.count_max
    if by_channel:
        scale, offset = _least_squares(got, wanted)
    else:
        mean, deviation = _moments(wanted)
        got_mean, got_deviation = _moments(got)
        scale = torch.where(got_deviation > _CONSTANT, deviation / got_deviation, 0.0)
        offset = mean - scale * got_mean
    return dataclasses.replace(found, out_scale=scale, out_offset=offset)


def _least_squares(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset of y over x, by head and channel."""
    x_mean, y_mean = x.mean((0, 2)), y.mean((0, 2))
    dx, dy = x - x_mean[:, None], y - y_mean[:, None]
    variance = (dx * dx).mean((0, 2))
    slope = torch.where(
        variance > _CONSTANT**2, (dx * dy).mean((0, 2)) / variance.clamp(min=_CONSTANT**2), 0.0
    )
    return slope, y_mean - slope * x_mean
