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

_SPREAD = 2.0  # standard deviations that fill half the range of pulses and voltages


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.double()
    return x.mean((0, 2, 3)), x.std((0, 2, 3)).clamp(min=1e-9)


def match_statistics(
    layer: Any, q: Tensor, k: Tensor, v: Tensor, params: ArrayParams
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
    """
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scalers = {}
    for name, x, centre in (("q", q, 0.5), ("k", k, 0.45), ("v", v, 0.45)):
        mean, deviation = _moments(x)
        scale = centre / (_SPREAD * deviation)
        scalers |= {f"{name}_scale": scale, f"{name}_offset": centre - scale * mean}
    found = AffineAttention(params=params, **scalers)
    mean, deviation = _moments(softmax_attention(q, k, v, float(layer.scaling)))
    got_mean, got_deviation = _moments(found.sums(q, k, v) / params.count_max)
    scale = torch.where(got_deviation > 1e-6, deviation / got_deviation, 0.0)
    return dataclasses.replace(found, out_scale=scale, out_offset=mean - scale * got_mean)
