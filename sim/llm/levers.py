"""Each lever of the mapping by itself: error on held-out text, and price."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from sim.llm.attention import output_projection
from sim.llm.evaluate import HELD_OUT, LEVERS, calibration_ids
from sim.llm.mapping import calibrate, lost, softmax_attention
from sim.llm.model import SMOLLM2, LanguageModel
from sim.llm.pipeline import learn_layers
from sim.llm.recipe import Recipe
from sim.text import load_text

__all__ = ["measure_levers"]


class _Kept:
    """A softmax layer that remembers what went in."""

    def __init__(self, scale: float, kept: list[Any], *inputs: Any) -> None:
        self._scale = scale
        kept.append(inputs)

    def attend(self, q: Any, k: Any, v: Any) -> Any:
        return softmax_attention(q, k, v, self._scale)


def measure_levers(
    name: str = SMOLLM2,
    layers: Sequence[int] = (1, 4, 7, 18, 23),
    *,
    context: int = 256,
    tokens: int = 1024,
    levers: Mapping[str, Recipe] = LEVERS,
    notice: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Map single layers of the softmax model with one lever changed at a time.

    Parameters
    ----------
    name
        Model, as `LanguageModel.load` takes it.
    layers
        Which layers.
    context, tokens
        Length of a sequence, and calibration tokens; as many held-out tokens are measured on.
    levers
        Recipes by name.
    notice
        Called with the name of each lever before it is measured.

    Returns
    -------
    rows
        ``lever, error, clocks, rows, lanes, host_macs, host_bytes``; the error is the share of the
        variance behind the output projection that is lost, median of the heads, mean of the
        layers.
    """
    model = LanguageModel.load(name)
    for layer in layers:
        if not 0 <= layer < len(model.layers):
            raise ValueError(f"layer must be in 0..{len(model.layers) - 1}, not {layer!r}")
    held_out = model.pieces(load_text(HELD_OUT[0]), tokens=tokens, context=context, skip=6000)
    inputs: list[list[Any]] = []
    for ids in (calibration_ids(model, tokens, context), held_out):
        inputs.append([])
        kept = inputs[-1]
        learn_layers(
            model,
            ids,
            lambda layer, q, k, v, kept=kept: _Kept(float(layer.scaling), kept, layer, q, k, v),
            choose=lambda index: index in layers,
        )
    rows = []
    for lever, recipe in levers.items():
        if notice is not None:
            notice(lever)
        errors = []
        for (layer, *known), (_, q, k, v) in zip(*inputs, strict=True):
            weight = output_projection(layer)
            found = calibrate(*known, weight, scale=float(layer.scaling), recipe=recipe)
            with torch.no_grad():
                exact = softmax_attention(q, k, v, found.scale)
                error = lost(found.attend(q, k, v), exact, weight)
            errors.append(float(error.median()))
        size, group = q.shape[-1], q.shape[1] // k.shape[1]
        rows.append(
            {
                "lever": lever,
                "error": sum(errors) / len(errors),
                "clocks": recipe.clocks(),
                "rows": recipe.rows(size),
                "lanes": recipe.lanes(size),
                "host_macs": sum(recipe.host_macs(size, group).values()),
                "host_bytes": recipe.host_bytes(size, group),
            }
        )
    return rows
