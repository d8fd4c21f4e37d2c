"""``attn_implementation="gaincell"``: the hardware as an attention of Hugging Face transformers.

Importing this module registers it. Every attention layer of a model computes what `attach` gave
it; a layer that was given nothing computes `AffineAttention` with its defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from sim.llm.arrays import ArrayParams, NonIdeal, Shot, Statistics, counts
from sim.llm.mapping import softmax_attention

__all__ = [
    "IMPLEMENTATION",
    "AffineAttention",
    "LayerAttention",
    "MeanAttention",
    "SoftmaxAttention",
    "attach",
    "attention_layers",
    "output_projection",
]

IMPLEMENTATION = "gaincell"  #: name under which transformers knows the hardware
MAX_LINES = 256  #: rows, and lanes, that a head can have
_SLOT = "gaincell_attention"  # attribute of a layer that holds what it computes


class LayerAttention(Protocol):
    """What a layer computes: (batch, heads, newest tokens, head size) from q, and all k and v."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the newest tokens over all."""
        ...


@dataclass(frozen=True)
class SoftmaxAttention:
    """The model's own attention."""

    scale: float  #: scores are products of query and key times this

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the newest tokens over all."""
        return softmax_attention(q, k, v, self.scale)


@dataclass(frozen=True)
class MeanAttention:
    """The control: no attention at all, every token gets the mean output."""

    mean: Tensor  #: (heads, head size)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the newest tokens over all."""
        return self.mean[:, None].expand(*q.shape[:-1], v.shape[-1]).to(q.dtype)


def _constant(value: float) -> Callable[[], Tensor]:
    return lambda: torch.tensor([value], dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class AffineAttention:
    """The published structure: affine scalers per head around one pass through the arrays.

    Queries become pulses ``a q + b`` in 0..1, keys and values voltages in 0..0.9, results
    ``a out + b`` with ``out`` the sum over sub-tiles in units of A_sat. Scalers are (1,), (heads,)
    or (heads, head size). Counts equal those of `analog_models.attend` bit for bit.

    Raises
    ------
    ValueError
        A context is longer than the window and ``slide`` is false.
    """

    params: ArrayParams = field(default_factory=ArrayParams)  #: widths and physics
    q_scale: Tensor = field(default_factory=_constant(0.1))  #: a of the queries
    q_offset: Tensor = field(default_factory=_constant(0.5))  #: b of the queries
    k_scale: Tensor = field(default_factory=_constant(0.1))  #: a of the keys
    k_offset: Tensor = field(default_factory=_constant(0.45))  #: b of the keys
    v_scale: Tensor = field(default_factory=_constant(0.1))  #: a of the values
    v_offset: Tensor = field(default_factory=_constant(0.45))  #: b of the values
    out_scale: Tensor = field(default_factory=_constant(1.0))  #: a of the results
    out_offset: Tensor = field(default_factory=_constant(0.0))  #: b of the results
    s_sat_ua: float = 80.0  #: score current that saturates
    a_sat_ua: float = 40.0  #: output current that saturates
    slide: bool = True  #: forget the oldest tokens of a context longer than the window
    faults: NonIdeal | None = None  #: arrays that are not ideal, in float32, if given

    def inputs(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pulses as shares of the longest, and voltages; in float64, one key head per query."""
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        q, k, v = (
            x.double() * _by_head(scale) + _by_head(offset)
            for x, scale, offset in (
                (q, self.q_scale, self.q_offset),
                (k, self.k_scale, self.k_offset),
                (v, self.v_scale, self.v_offset),
            )
        )
        return q.clamp(0.0, 1.0), k.clamp(0.0, 0.9), v.clamp(0.0, 0.9)

    def codes(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes of `inputs`."""
        pulses, keys, values = self.inputs(q, k, v)
        dac = self.params.currents.dac
        per_volt = (dac.levels - 1) / (dac.v_max_v - dac.v_min_v)
        k_codes, v_codes = (
            torch.round((x - dac.v_min_v) * per_volt).clamp_(0, dac.levels - 1).long()
            for x in (keys, values)
        )
        return torch.round(pulses * float(self.params.q_max)), k_codes, v_codes

    def sums(
        self, q: Tensor, k: Tensor, v: Tensor, *, statistics: Statistics | None = None
    ) -> Tensor:
        """Signed counts summed over sub-tiles, (batch, heads, newest tokens, head size)."""
        tokens, window = k.shape[-2], self.params.window
        if tokens > window and not self.slide:
            raise ValueError(f"context must be in 1..{window}, the window, not {tokens!r}")
        q_codes, k_codes, v_codes = self.codes(q, k, v)
        shot = Shot(s_sat_ua=_scalar(self.s_sat_ua), a_sat_ua=_scalar(self.a_sat_ua))
        sums, _ = counts(
            self.params,
            [shot],
            q_codes,
            k_codes,
            v_codes,
            first=tokens - q.shape[-2],
            exact=self.faults is None,
            statistics=statistics,
            faults=self.faults,
        )
        return sums[0]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the newest tokens over all."""
        out = self.sums(q, k, v) / self.params.count_max
        out = out * _by_head(self.out_scale) + _by_head(self.out_offset)
        return out.to(q.dtype)


def _by_head(scaler: Tensor) -> Tensor:
    """A scaler beside (batch, heads, tokens, head size)."""
    return scaler.reshape(len(scaler), 1, -1)


def _scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


# --- transformers -------------------------------------------------------------------------------
def _forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **_: Any,
) -> tuple[Tensor, None]:
    if not getattr(module, "is_causal", True):
        raise ValueError(
            f"model must be causal, for a token is written before it is read; "
            f"{type(module).__name__} is not"
        )
    if query.shape[-1] > MAX_LINES:
        raise ValueError(f"head size must be in 1..{MAX_LINES}, not {query.shape[-1]!r}")
    if attention_mask is not None:
        raise ValueError("attention_mask must be None: sequences of equal length, no padding")
    layer: LayerAttention = getattr(module, _SLOT, None) or AffineAttention()
    return layer.attend(query, key, value).transpose(1, 2), None


def _no_mask(*_: Any, attention_mask: Tensor | None = None, **__: Any) -> None:
    """The window is the mask; padding has no place in it."""
    if attention_mask is not None and not bool(attention_mask.all()):
        raise ValueError("attention_mask must be all ones: the hardware has no padding")


AttentionInterface.register(IMPLEMENTATION, _forward)
AttentionMaskInterface.register(IMPLEMENTATION, _no_mask)


def attention_layers(model: nn.Module) -> list[nn.Module]:
    """Attention modules of a model, by layer.

    Raises
    ------
    ValueError
        The model is of no family that computes attention through transformers' interface.
    """
    layers = {
        int(module.layer_idx): module
        for module in model.modules()
        if hasattr(module, "layer_idx") and hasattr(module, "is_causal")
    }
    if not layers:
        raise ValueError(f"model must be of the GPT-2 or Llama family, not {type(model).__name__}")
    return [layers[index] for index in sorted(layers)]


def output_projection(layer: nn.Module) -> Tensor:
    """Weight behind a layer's heads, (outputs, heads * head size)."""
    for name in ("o_proj", "c_proj", "out_proj"):
        projection = getattr(layer, name, None)
        if isinstance(projection, nn.Linear):
            return projection.weight
        if projection is not None:  # transformers' Conv1D stores the transpose
            return projection.weight.T
    raise ValueError(f"layer must have an output projection, {type(layer).__name__} has none")


def attach(
    model: Any, layers: Sequence[LayerAttention | None] | Mapping[int, LayerAttention | None]
) -> None:
    """Let a model's layers compute what is given, by layer; None is the default.

    Raises
    ------
    ValueError
        There is no such layer, or too few are given.
    """
    modules = attention_layers(model)
    if isinstance(layers, Mapping):
        for index in layers:
            if not 0 <= index < len(modules):
                raise ValueError(f"layer must be in 0..{len(modules) - 1}, not {index!r}")
        chosen = dict(layers)
    else:
        if len(layers) != len(modules):
            raise ValueError(f"layers must be {len(modules)}, as the model has, not {len(layers)}")
        chosen = dict(enumerate(layers))
    for index, layer in chosen.items():
        object.__setattr__(modules[index], _SLOT, layer)
    if model.config._attn_implementation != IMPLEMENTATION:
        model.set_attn_implementation(IMPLEMENTATION)
