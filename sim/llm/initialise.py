"""Matching of statistics: the published algorithm's step from the linear to the nonlinear cell.

Scalers of the nonlinear model are moved until mean and standard deviation of every head's scaled
queries, keys, values and outputs are what they were in the linear model: Leroux et al., Nature
Computational Science 5, 813-824 (2025).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sim.llm.straight import SCALERS, StraightAttention

__all__ = ["FIRST_STEP", "LAST_STEP", "Iteration", "Moments", "iterate", "record"]

#: Share of the way that an iteration goes, falling geometrically: same source.
FIRST_STEP, LAST_STEP = 1.0, 0.1

_LEAST = 1e-6  # deviation below which a head's statistic is a constant
_MOST = 4.0  # factor that one iteration changes a scale by at most

#: Mean and standard deviation by head of a layer's scaled quantities, by `SCALERS`.
Moments = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """How far the statistics are from their targets before an iteration."""

    step: float  #: share of the way that the iteration goes; 0 is the last look
    deviation: float  #: largest of |sigma / target - 1|
    mean: float  #: largest of |mean - target| in target deviations


@torch.no_grad()
def record(layers: Sequence[StraightAttention], run: Callable[[], object]) -> list[Moments]:
    """Statistics of every layer while ``run`` puts the calibration batch through the model."""
    for layer in layers:
        layer.observed = {}
    run()
    found: list[Moments] = []
    for layer in layers:
        observed, layer.observed = layer.observed or {}, None
        found.append({n: (x.mean((0, 2, 3)), x.std((0, 2, 3))) for n, x in observed.items()})
    return found


@torch.no_grad()
def iterate(
    layers: Sequence[StraightAttention],
    targets: Sequence[Moments],
    run: Callable[[], object],
    *,
    iterations: int = 20,
) -> list[Iteration]:
    """Move scalers until statistics are their targets.

    All layers move at once: what a layer does to those above it shows in the next iteration.

    Parameters
    ----------
    layers
        Layers of the nonlinear model, below first; their scalers change.
    targets
        What `record` found in the linear model, on the same batch.
    run
        Puts the calibration batch through the model.
    iterations
        How many, at least 1.

    Returns
    -------
    course
        One more than iterations: the last says where they ended.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, not {iterations!r}")
    course = []
    for n in range(iterations + 1):
        step = FIRST_STEP * (LAST_STEP / FIRST_STEP) ** (n / max(iterations - 1, 1))
        step = 0.0 if n == iterations else step
        spread, shift = [0.0], [0.0]
        for layer, found, wanted in zip(layers, record(layers, run), targets, strict=True):
            for name in SCALERS:
                (mean, sigma), (mean_to, sigma_to) = found[name], wanted[name]
                moves = (sigma > _LEAST) & (sigma_to > _LEAST)
                ratio = torch.where(moves, sigma_to / sigma.clamp(min=_LEAST), 1.0)
                spread.append(float((1 / ratio - 1).abs().max()))
                shift.append(float(((mean - mean_to) / sigma_to.clamp(min=_LEAST)).abs().max()))
                getattr(layer, f"{name}_scale").mul_((ratio**step).clamp(1 / _MOST, _MOST))
                getattr(layer, f"{name}_offset").add_(step * (mean_to - mean))
        course.append(Iteration(step=step, deviation=max(spread), mean=max(shift)))
    return course
