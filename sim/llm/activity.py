"""What arrays and converters see of a model, by layer and head: pulses, saturation, clipping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sim.llm.arrays import Statistics
from sim.llm.mapping import LayerMap
from sim.llm.model import LanguageModel

__all__ = ["measure_activity"]


@dataclass
class _Observed:
    """A mapped layer that is watched."""

    layer: LayerMap
    statistics: Statistics = field(default_factory=Statistics)
    clipped: dict[str, Tensor] = field(default_factory=dict)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        layer, levels = self.layer, self.layer.recipe.arrays.levels_ua
        pulses = layer.query_pulses(q)
        top, low, high = layer.recipe.arrays.q_max, float(levels.min()), float(levels.max())
        keys, values = layer.key_ua(k), layer.value_ua(v)
        self.clipped = {
            "q_clipped": _share((pulses <= 0) | (pulses >= top)),
            "k_clipped": _share((keys < low) | (keys > high)),
            "v_clipped": _share((values < low) | (values > high)),
        }
        return layer.attend(q, k, v, statistics=self.statistics)


def _share(true: Tensor) -> Tensor:
    return true.double().mean((0, 2, 3))


def measure_activity(
    model: LanguageModel, layers: Sequence[Any], ids: Tensor
) -> list[dict[str, Any]]:
    """Run a text through a mapped model once and report what its arrays did.

    Parameters
    ----------
    model
        The model; it keeps ``layers`` attached.
    layers
        What each layer computes; those that are no maps are left out.
    ids
        The text, (sequences, tokens).

    Returns
    -------
    activity
        By mapped layer: ``layer``, and by head (keys and values: by key-value head) the shares of
        pulses of pairs of query and token seen that are ``active`` and ``saturated``, their
        ``mean_pulse`` in units of the longest, the share of sub-tile results at ``full_scale``,
        and the shares of elements ``q_clipped, k_clipped, v_clipped``.
    """
    watched = [_Observed(layer) if isinstance(layer, LayerMap) else layer for layer in layers]
    model.attach(watched)
    try:
        model.run(ids)
    finally:
        model.attach(list(layers))
    return [
        {
            "layer": index,
            **{name: x.tolist() for name, x in one.statistics.shares().items()},
            **{name: x.tolist() for name, x in one.clipped.items()},
        }
        for index, one in enumerate(watched)
        if isinstance(one, _Observed)
    ]
