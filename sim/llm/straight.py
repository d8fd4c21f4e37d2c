"""The published structure as it is trained: forward what the hardware does, straight gradients.

Forward equals `sim.llm.attention.AffineAttention` in float32. Backward, a quantiser passes the
gradient of what it rounds, a clip none beyond its ends, and a product of pulses and currents has
the gradient of the linear cell of 19.3 µA/V, whatever the cell: Leroux et al., Nature
Computational Science 5, 813-824 (2025).
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from analog_models.cell import V_MID_V, PolynomialCell
from analog_models.presets import CELLS, resolve_cell
from sim.llm.arrays import ArrayParams
from sim.llm.attention import AffineAttention

__all__ = ["SCALERS", "Disturbance", "Scaled", "StraightAttention"]

_LINEAR = CELLS["linear"]
assert isinstance(_LINEAR, PolynomialCell)
_GAIN_UA_PER_V = _LINEAR.coefficients[1]

#: Scalers of a layer, in the order of the path through it; each has ``_scale`` and ``_offset``.
SCALERS = ("q", "k", "v", "out")


class Disturbance(Protocol):
    """What arrays that are not ideal add to charges, while a model is trained."""

    def scores(self, pulses: Tensor, current_ua: Tensor) -> Tensor:
        """Added to mean currents of columns, (..., tokens, tokens) in µA."""
        ...

    def outputs(self, phi: Tensor, current_ua: Tensor) -> Tensor:
        """Added to those of the lanes of one sub-tile, (..., tokens, lanes) in µA."""
        ...


#: Scaled queries, keys, values and outputs of a layer: (sequences, heads, tokens, head size) each.
Scaled = dict[str, Tensor]


def _current_ua(u: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    current = torch.zeros_like(u)
    for c in reversed(coefficients):  # Horner's rule
        current = current * u + c
    return current


class _Multiply(torch.autograd.Function):
    """Sum over j of drive_ij * I(u_jl), currents faded by age; the gradient is the linear cell's.

    ``coefficients`` are the cell's, in powers of the stored deviation u; ``fade`` is what is left
    of u, (queries, tokens), or None. With ``scores`` the sum runs over rows: sum over l of
    drive_il * I(u_jl).
    """

    @staticmethod
    def forward(
        ctx: Any,
        drive: Tensor,
        u: Tensor,
        coefficients: tuple[float, ...],
        fade: Tensor | None,
        scores: bool,
    ) -> Tensor:
        ctx.save_for_backward(drive, u, fade)
        ctx.scores = scores
        if fade is None:
            current = _current_ua(u, coefficients)
            return drive @ (current.transpose(-1, -2) if scores else current)
        total: Any = 0.0
        for power, c in enumerate(coefficients):
            if c == 0.0:
                continue
            stored, left = c * u**power, fade**power
            if scores:
                total = total + (drive @ stored.transpose(-1, -2)) * left
            else:
                total = total + (drive * left) @ stored
        return torch.as_tensor(total)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        drive, u, fade = ctx.saved_tensors
        if ctx.scores:
            grad = _GAIN_UA_PER_V * (grad if fade is None else grad * fade)
            return grad @ u, grad.transpose(-1, -2) @ drive, None, None, None
        grad = _GAIN_UA_PER_V * grad
        by_drive = grad @ u.transpose(-1, -2)
        if fade is not None:
            by_drive, drive = by_drive * fade, drive * fade
        return by_drive, drive.transpose(-1, -2) @ grad, None, None, None


def _rounded(x: Tensor, steps: int) -> Tensor:
    """Nearest of ``steps`` equal steps of 0..1; the gradient passes."""
    return x + (torch.round(x.detach() * steps) / steps - x.detach())


class StraightAttention(nn.Module):
    """One layer of the published structure, with scalers that can be trained.

    Sequences are whole: there are as many queries as tokens.

    Parameters
    ----------
    start
        Scalers, widths and physics to begin with.
    heads
        Query heads; each has scalers of its own.

    Raises
    ------
    ValueError
        The cell is no polynomial around 0.45 V.
    """

    def __init__(self, start: AffineAttention, heads: int) -> None:
        super().__init__()
        cell = resolve_cell(start.params.cell)
        if not isinstance(cell, PolynomialCell) or cell.v_mid_v != V_MID_V:
            raise ValueError(
                f"cell must be a polynomial around {V_MID_V} V, not {start.params.cell!r}"
            )
        self.start = start
        self.coefficients = tuple(cell.coefficients)
        #: Where the next batch's scaled queries, keys, values and outputs are put, if anywhere.
        self.observed: Scaled | None = None
        #: What is added to charges, if anything.
        self.disturbance: Disturbance | None = None
        for name in SCALERS:
            for part in ("scale", "offset"):
                value = getattr(start, f"{name}_{part}").float().expand(heads).clone()
                self.register_parameter(f"{name}_{part}", nn.Parameter(value))
        self._tokens = -1
        self._fade: Tensor | None = None
        self._seen = torch.empty(0)

    @property
    def params(self) -> ArrayParams:
        """Widths and physics."""
        return self.start.params

    def affine(self) -> AffineAttention:
        """The same layer on the exact arrays, with today's scalers."""
        return AffineAttention(
            params=self.params,
            s_sat_ua=self.start.s_sat_ua,
            a_sat_ua=self.start.a_sat_ua,
            slide=self.start.slide,
            **{name: value.detach().double() for name, value in self.named_parameters()},
        )

    def _scaled(self, name: str, x: Tensor) -> Tensor:
        scale, offset = (getattr(self, f"{name}_{part}") for part in ("scale", "offset"))
        scaled = x * scale[:, None, None] + offset[:, None, None]
        if self.observed is not None:
            self.observed[name] = scaled.detach()
        return scaled

    def _prepare(self, tokens: int) -> None:
        age = torch.arange(tokens)[:, None] - torch.arange(tokens)
        self._seen = ((age >= 0) & (age < self.params.window)).float()
        rate = self.params.decay_per_token
        self._fade = torch.exp(-rate * age.clamp(min=0)) if rate else None
        self._tokens = tokens

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of all tokens over those before them and themselves."""
        params, dac = self.params, self.params.currents.dac
        tokens, span = k.shape[-2], dac.v_max_v - dac.v_min_v
        if q.shape[-2] != tokens:
            raise ValueError(f"queries must be {tokens}, as the tokens are, not {q.shape[-2]!r}")
        if tokens != self._tokens:
            self._prepare(tokens)
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        pulses = _rounded(self._scaled("q", q).clamp(0.0, 1.0), params.q_max)
        keys, values = (
            _rounded((x.clamp(dac.v_min_v, dac.v_max_v) - dac.v_min_v) / span, dac.levels - 1)
            * span
            + (dac.v_min_v - V_MID_V)
            for x in (self._scaled("k", k), self._scaled("v", v))
        )
        scores = _Multiply.apply(pulses, keys, self.coefficients, self._fade, True)
        stored = values.detach()
        if self.disturbance is not None:
            with torch.no_grad():
                stored = _current_ua(values, self.coefficients)
                wrong = self.disturbance.scores(pulses, _current_ua(keys, self.coefficients))
            scores = scores + wrong
        phi = (scores / self.start.s_sat_ua).clamp(0.0, 1.0) * self._seen
        place = torch.arange(tokens) % params.window // params.columns
        out: Any = 0.0
        for subtile in range(int(place.max()) + 1):
            held = torch.nonzero(place == subtile)[:, 0]
            charge = _Multiply.apply(
                phi[..., held],
                values[..., held, :],
                self.coefficients,
                None if self._fade is None else self._fade[:, held],
                False,
            )
            if self.disturbance is not None:
                with torch.no_grad():
                    wrong = self.disturbance.outputs(phi[..., held], stored[..., held, :])
                charge = charge + wrong
            share = (charge / self.start.a_sat_ua).clamp(-1.0, 1.0)
            out = out + _rounded(share, params.count_max)
        return self._scaled("out", out)
