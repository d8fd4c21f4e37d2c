"""The mapping of a whole model, layer after layer on the hardware's own activations."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from sim.llm.attention import MAX_LINES, LayerAttention, MeanAttention, output_projection
from sim.llm.files import write_whole
from sim.llm.mapping import LayerMap, calibrate, softmax_attention
from sim.llm.model import LanguageModel
from sim.llm.recipe import Recipe

__all__ = ["learn_layers", "load_map", "map_model", "mean_control", "save_map"]

Progress = Callable[[int, int], None]


class _Learning:
    """A layer that is mapped by its first batch, and computes with the map from then on."""

    def __init__(self, learn: Callable[[Tensor, Tensor, Tensor], LayerAttention]) -> None:
        self._learn = learn
        self.layer: LayerAttention | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.layer is None:
            self.layer = self._learn(q, k, v)
        return self.layer.attend(q, k, v)


def learn_layers(
    model: LanguageModel,
    ids: Tensor,
    learn: Callable[[Any, Tensor, Tensor, Tensor], Any],
    *,
    choose: Callable[[int], bool] = lambda layer: True,
    progress: Progress | None = None,
) -> list[Any]:
    """Run a text through the model once; each layer chosen is learnt when the text reaches it.

    Parameters
    ----------
    model
        The model; its layers below the one being learnt compute what was learnt.
    ids
        The text, (sequences, tokens).
    learn
        Called with the attention module and its queries, keys and values; gives what it computes.
    choose
        Which layers; the others keep softmax.
    progress
        Called with the layers done and the layers in all.
    """
    count = len(model.layers)

    def of(index: int) -> Callable[[Tensor, Tensor, Tensor], Any]:
        def step(q: Tensor, k: Tensor, v: Tensor) -> Any:
            layer = learn(model.layers[index], q, k, v)
            if progress is not None:
                progress(index + 1, count)
            return layer

        return step

    layers: list[Any] = list(model.softmax())
    for index in range(count):
        if choose(index):
            layers[index] = _Learning(of(index))
    model.attach(layers)
    model.run(ids)
    return [layer.layer if isinstance(layer, _Learning) else layer for layer in layers]


def map_model(
    model: LanguageModel,
    ids: Tensor,
    recipe: Recipe | None = None,
    *,
    choose: Callable[[int], bool] = lambda layer: True,
    progress: Progress | None = None,
) -> list[Any]:
    """Map the layers chosen, each on what the mapped layers below it make of the text.

    Parameters
    ----------
    model
        The model, as trained.
    ids
        Calibration text, (sequences, tokens).
    recipe
        Levers; the defaults if left out.
    choose
        Which layers; the others keep softmax.
    progress
        Called with the layers done and the layers in all.

    Returns
    -------
    layers
        A `LayerMap` per layer chosen, the model's own attention for the others.

    Raises
    ------
    ValueError
        The model's heads do not fit the arrays.
    """
    recipe = Recipe() if recipe is None else recipe
    size = int(model.layers[0].head_dim)
    lines = max(recipe.rows(size), recipe.lanes(size))
    if lines > MAX_LINES:
        raise ValueError(
            f"head size must be in 1..{MAX_LINES - lines + size} for a map with "
            f"{recipe.rows(0)} rows and {recipe.lanes(0)} lanes of its own, not {size!r}"
        )

    def learn(layer: Any, q: Tensor, k: Tensor, v: Tensor) -> LayerMap:
        return calibrate(
            q, k, v, output_projection(layer), scale=float(layer.scaling), recipe=recipe
        )

    return learn_layers(model, ids, learn, choose=choose, progress=progress)


def mean_control(
    model: LanguageModel,
    ids: Tensor,
    *,
    choose: Callable[[int], bool] = lambda layer: True,
) -> list[Any]:
    """The control without attention: mean outputs of the softmax model, layer by layer."""

    def learn(layer: Any, q: Tensor, k: Tensor, v: Tensor) -> MeanAttention:
        return MeanAttention(softmax_attention(q, k, v, float(layer.scaling)).mean((0, 2)))

    return learn_layers(model, ids, learn, choose=choose)


# --- files --------------------------------------------------------------------------------------
def save_map(path: Path, layers: list[Any], model: str) -> None:
    """Write the maps of a model's layers; others are left out."""
    maps = {index: layer for index, layer in enumerate(layers) if isinstance(layer, LayerMap)}
    tensors = {
        f"{index}.{name}": tensor
        for index, layer in maps.items()
        for name, tensor in layer.tensors().items()
    }
    recipe = next(iter(maps.values())).recipe
    meta = {
        "model": model,
        "recipe": json.dumps(dataclasses.asdict(recipe)),
        "scales": json.dumps({index: layer.scale for index, layer in maps.items()}),
    }
    write_whole(path, tensors, meta)


def load_map(path: Path) -> dict[int, LayerMap]:
    """Maps by layer.

    Raises
    ------
    FileNotFoundError
        There is no such file; the message names the command that writes it.
    ValueError
        The file is no map.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is missing: run `gaincell llm map` first")
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        recipe, scales = Recipe(**json.loads(meta["recipe"])), json.loads(meta["scales"])
    except Exception as error:
        raise ValueError(f"{path.name} must be a map written by `gaincell llm map`") from error
    by_layer: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        by_layer.setdefault(int(index), {})[name] = tensor
    return {
        index: LayerMap.from_tensors(recipe, float(scales[str(index)]), parts)
        for index, parts in sorted(by_layer.items())
    }
