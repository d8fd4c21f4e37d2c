"""Linear layers of a model that stay as they are, and those that get an update of low rank."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from sim.llm.attention import attention_layers

__all__ = ["LowRank", "freeze", "linear_layers", "merge"]


def linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """Linear layers below the head: name, module, and whether it belongs to an attention layer."""
    attention = {id(m) for layer in attention_layers(model) for m in layer.modules()}
    base: Any = model
    base = model.get_submodule(base.base_model_prefix)
    for name, module in base.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            yield f"{base_prefix(model)}.{name}", module, id(module) in attention


def base_prefix(model: Any) -> str:
    """Name of the model below its head."""
    return str(model.base_model_prefix)


def _weight(module: nn.Module) -> Tensor:
    """Weight as (outputs, inputs)."""
    weight: Tensor = module.weight.detach()  # type: ignore[assignment]
    return weight.T if isinstance(module, Conv1D) else weight


class LowRank(nn.Module):
    """A linear layer ``W + up @ down``; W is fixed, and multiplied in the precision asked for.

    Parameters
    ----------
    module
        `nn.Linear`, or transformers' ``Conv1D``.
    rank
        Of the update; 0 is no update.
    dtype
        Of the products; inputs and outputs are float32.
    """

    def __init__(self, module: nn.Module, rank: int, dtype: torch.dtype) -> None:
        super().__init__()
        weight = _weight(module)
        bias: Any = module.bias
        self.register_buffer("weight", weight.to(dtype).contiguous(), persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach(), persistent=False)
        self.rank = rank
        if rank:
            outputs, inputs = weight.shape
            self.down = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
            self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Product, float32."""
        weight: Any = self.weight
        x = x.to(weight.dtype)
        out = nn.functional.linear(x, weight)
        if self.rank:
            inner = nn.functional.linear(x, self.down.to(x.dtype))
            out = out + nn.functional.linear(inner, self.up.to(x.dtype))
        out = out.float()
        return out if self.bias is None else out + self.bias


def freeze(model: nn.Module, rank: int, dtype: torch.dtype) -> dict[str, nn.Parameter]:
    """Replace a model's linear layers; parameters that learn, by name.

    Those are the updates of low rank of attention layers, and the weights of the norms. Whatever
    the model holds else gets no gradients.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for name, module, attends in list(linear_layers(model)):
        parent, _, child = name.rpartition(".")
        new = LowRank(module, rank if attends else 0, dtype)
        setattr(model.get_submodule(parent), child, new)
    learnt: dict[str, nn.Parameter] = {}
    for name, module in model.named_modules():
        if isinstance(module, LowRank) and module.rank:
            learnt |= {f"{name}.down": module.down, f"{name}.up": module.up}
        elif rank and type(module).__name__.endswith("Norm"):
            for part, parameter in module.named_parameters(recurse=False):
                parameter.requires_grad_(True)
                learnt[f"{name}.{part}"] = parameter
    return learnt


@torch.no_grad()
def merge(model: nn.Module, learnt: dict[str, Tensor]) -> None:
    """Write what `freeze`'s parameters learnt into an ordinary model's weights.

    Raises
    ------
    ValueError
        The parameters are those of another model.
    """
    modules = dict(model.named_modules())
    for name, value in learnt.items():
        owner, _, part = name.rpartition(".")
        module: Any = modules.get(owner)
        if module is None:
            raise ValueError(f"parameters must be those of this model, it has no {owner}")
        if part == "up":
            update = value.float() @ learnt[f"{owner}.down"].float()
            if update.shape != _weight(module).shape:
                raise ValueError(f"parameters must be those of this model: {owner} differs in size")
            module.weight += update.T if isinstance(module, Conv1D) else update
        elif part != "down":
            if getattr(module, part).shape != value.shape:
                raise ValueError(f"parameters must be those of this model: {owner} differs in size")
            getattr(module, part).copy_(value)
