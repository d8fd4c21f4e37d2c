"""The file of an adapted model: maps with matrices in 16 bits, updates of low rank, and a history.

A map's matrices differ between the query heads of a group by a factor only; one is kept, with the
factors. Training starts from what the file can hold, so that nothing is lost by writing it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from sim.llm.attention import MeanAttention
from sim.llm.files import write_whole
from sim.llm.lowrank import merge
from sim.llm.mapping import LayerMap
from sim.llm.model import LanguageModel
from sim.llm.recipe import Recipe

__all__ = ["DATA", "Adapted", "compress", "expand", "load_adapted"]

DATA = Path(__file__).parent / "data"  #: files of adapted models that are part of the package

_MATRICES = ("key_map", "query_map", "moment", "value_map", "value_back")
_MEAN = "control_mean"


def compress(layers: Sequence[Any]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Tensors of a model's maps, or of its control, and their scales by layer."""
    tensors, scales = {}, {}
    for index, layer in enumerate(layers):
        if isinstance(layer, MeanAttention):
            tensors[f"map/{index}.{_MEAN}"] = layer.mean
        if not isinstance(layer, LayerMap):
            continue
        scales[str(index)] = layer.scale
        for name, tensor in layer.tensors().items():
            if name not in _MATRICES:
                tensors[f"map/{index}.{name}"] = tensor
                continue
            groups = len(layer.key_mean)
            by_group = tensor.reshape(groups, -1, *tensor.shape[1:])
            first = by_group[:, 0]
            top = first.abs().amax((1, 2), keepdim=True)
            norms = by_group.flatten(2).norm(dim=-1)
            tensors[f"map/{index}.{name}"] = (first / top).half()
            factors = top[:, :, 0] * norms / norms[:, :1]
            tensors[f"map/{index}.{name}.factors"] = factors.reshape(-1)
    return tensors, scales


def expand(
    tensors: Mapping[str, Tensor],
    scales: Mapping[str, float],
    recipe: Recipe,
    others: Sequence[Any],
) -> list[Any]:
    """Layers that `compress` made tensors of; ``others`` where it had none."""
    by_layer: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("map/"):
            index, name = key.removeprefix("map/").split(".", 1)
            by_layer.setdefault(int(index), {})[name] = tensor
    layers = list(others)
    for index, parts in by_layer.items():
        if _MEAN in parts:
            layers[index] = MeanAttention(parts[_MEAN])
            continue
        for name in _MATRICES:
            matrix, factors = parts[name].float(), parts.pop(f"{name}.factors")
            per = len(factors) // len(matrix)
            parts[name] = matrix.repeat_interleave(per, 0) * factors[:, None, None]
        layers[index] = LayerMap.from_tensors(recipe, float(scales[str(index)]), parts)
    return layers


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """A model's maps and updates, and how they came about."""

    study: dict[str, Any]  #: fields of the study
    config_hash: str  #: of the study
    curve: list[dict[str, float]]  #: steps, divergence and perplexity over the teacher's
    seconds: float  #: that training took
    layers: list[Any]  #: what each layer computes
    learnt: dict[str, Tensor]  #: updates of low rank and weights of norms, by name

    def apply(self, model: LanguageModel) -> None:
        """Change a model's weights, and attach the maps.

        Raises
        ------
        ValueError
            The model is another one.
        """
        if len(self.layers) != len(model.layers):
            raise ValueError(f"model must have {len(self.layers)} layers, not {len(model.layers)}")
        merge(model.model, self.learnt)
        model.attach(self.layers)

    @contextmanager
    def merged(self, model: LanguageModel) -> Iterator[None]:
        """`apply`, and afterwards the model's own weights again."""
        owners = {name.rpartition(".")[0] for name in self.learnt}
        kept = {
            name: parameter.detach().clone()
            for name, parameter in model.model.named_parameters()
            if name.rpartition(".")[0] in owners
        }
        try:
            self.apply(model)
            yield
        finally:
            for name, value in kept.items():
                model.model.get_parameter(name).data.copy_(value)

    def save(self, path: Path) -> None:
        """Write a safetensors file and, beside it, its history as JSON."""
        tensors, scales = compress(self.layers)
        for name, tensor in self.learnt.items():
            short = name.endswith((".up", ".down"))
            tensors[f"update/{name}"] = tensor.half() if short else tensor
        history = {
            "study": self.study,
            "config_hash": self.config_hash,
            "seconds": self.seconds,
            "curve": self.curve,
        }
        meta = {"scales": json.dumps(scales), "history": json.dumps(history)}
        write_whole(path, tensors, meta)
        path.with_suffix(".json").write_text(json.dumps(history, indent=1) + "\n")


def load_adapted(path: Path, model: LanguageModel) -> Adapted:
    """Read a file that `Adapted.save` wrote.

    Raises
    ------
    FileNotFoundError
        There is no such file; the message names the command that writes it.
    ValueError
        The file is none of an adapted model, or of another model.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is missing: run `gaincell llm adapt` first")
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        history, scales = json.loads(meta["history"]), json.loads(meta["scales"])
        recipe = Recipe(**history["study"]["recipe"])
    except Exception as error:
        raise ValueError(f"{path.name} must be a file written by `gaincell llm adapt`") from error
    layers = expand(tensors, scales, recipe, model.softmax())
    learnt = {
        name.removeprefix("update/"): tensor.float()
        for name, tensor in tensors.items()
        if name.startswith("update/")
    }
    return Adapted(**history, layers=[*layers], learnt=learnt)
