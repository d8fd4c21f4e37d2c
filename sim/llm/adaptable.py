"""A mapped layer that learns: `LayerMap` with gradients, and what of it may change."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from sim.llm.attention import MeanAttention
from sim.llm.gradient import Stored, passes, rounded, straight
from sim.llm.mapping import LEVEL_MAX, LayerMap

__all__ = ["LEARNT", "AdaptableLayer", "AdaptableMean"]

#: Fields of a map that learn. Matrices stay as mapped; so do the weights of shots and A_sat, for
#: a device adds shots up after shifts.
LEARNT = ("top", "shot_start", "s_sat_ua", "norm", "prior", "mean_output")


class AdaptableLayer(nn.Module):
    """A layer's map, with parameters in the place of its small tensors.

    S_sat and the weight of the mean output learn as factors, ``exp`` of the parameter times what
    was mapped; S_sat stays whole µA.

    Parameters
    ----------
    layer
        The map.
    """

    def __init__(self, layer: LayerMap) -> None:
        super().__init__()
        self._mapped = layer
        for name in LEARNT:
            start = getattr(layer, name)
            zero = torch.zeros_like(start) if name in _FACTORS else start.clone()
            self.register_parameter(name, nn.Parameter(zero))

    def map(self) -> LayerMap:
        """The map as it is now; its tensors carry gradients where there are any."""
        changed: dict[str, Any] = {}
        for name in LEARNT:
            value = getattr(self, name)
            if name in _FACTORS:
                value = getattr(self._mapped, name) * torch.exp(value)
            changed[name] = value
        changed["s_sat_ua"] = rounded(changed["s_sat_ua"]).clamp(1, LEVEL_MAX)
        return dataclasses.replace(self._mapped, **changed)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the newest tokens over all, as `LayerMap.attend`, with gradients."""
        layer = self.map()
        if not torch.is_grad_enabled():
            return layer.attend(q, k, v)
        return attend(layer, q, k, v)


_FACTORS = ("s_sat_ua", "prior")


def attend(layer: LayerMap, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`LayerMap.attend` with gradients to queries, keys, values and the map's small tensors.

    The numbers are the same; saturation currents of results are taken as they are.
    """
    recipe, sinks = layer.recipe, layer.recipe.sinks
    threshold = layer.threshold(q, k)
    pulses = layer.query_pulses(q)
    stored = k[..., sinks:, :], v[..., sinks:, :]
    keys_ua, values_ua = layer.key_ua(stored[0]), layer.value_ua(stored[1])
    wanted_ua = layer.bias_ua(threshold)
    levels = recipe.arrays.levels_ua.float()
    low, high = float(levels.min()), float(levels.max())
    with torch.no_grad():
        shots, bias_codes = layer.shots(threshold)
        k_codes, v_codes = layer.key_codes(stored[0]), layer.value_codes(stored[1])
        full = torch.full((*pulses.shape[:-1], recipe.compensation_rows), recipe.arrays.q_max)
        shots = [
            dataclasses.replace(shot, s_sat_ua=shot.s_sat_ua.detach(), bias=shot.bias.detach())
            for shot in shots
        ]
    sums = passes(
        recipe.arrays,
        shots,
        torch.cat([straight(pulses, torch.round(pulses.detach())), full.to(q.dtype)], dim=-1),
        Stored(codes=k_codes, wanted_ua=keys_ua.clamp(low, high)),
        Stored(codes=v_codes, wanted_ua=values_ua.clamp(low, high)),
        wanted_ua=wanted_ua,
        s_sat_ua=layer.s_sat_ua,
        bias_codes=bias_codes,
        first=k.shape[-2] - q.shape[-2] - sinks,
    )
    return layer.decode(layer.total(list(sums)), threshold, q, k, v)


class AdaptableMean(nn.Module):
    """The control, with mean outputs that learn.

    Parameters
    ----------
    layer
        Where they start.
    """

    def __init__(self, layer: MeanAttention) -> None:
        super().__init__()
        self.mean = nn.Parameter(layer.mean.clone())

    def map(self) -> MeanAttention:
        """The control as it is now."""
        return MeanAttention(self.mean)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The mean outputs."""
        return self.map().attend(q, k, v)
