"""Mismatch, noise and offsets while a model is trained: other devices in every step.

A model that is trained on one device learns that device. Here every forward pass draws devices
anew, with the spreads of `sim.llm.faults.ArrayFaults`; gradients pass as if nothing were added.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sim.llm.arrays import ArrayParams
from sim.llm.faults import ArrayFaults

__all__ = ["FreshDevices"]


@dataclass(frozen=True)
class FreshDevices:
    """Charges of arrays whose cells and converters are drawn anew with every call.

    Columns do not wrap: every token has cells of its own.

    Raises
    ------
    ValueError
        The spreads are those of trimmed converters.
    """

    spreads: ArrayFaults  #: spreads and noise; its seeds are not used
    params: ArrayParams  #: widths
    generator: torch.Generator  #: picks the devices

    def __post_init__(self) -> None:
        if self.spreads.trimmed:
            raise ValueError("spreads must not be trimmed: devices drawn anew have no trims")

    def _drawn(self, sigma: float, *shape: int) -> Tensor:
        return sigma * torch.randn(*shape, generator=self.generator)

    def _added(
        self, drive: Tensor, current_ua: Tensor, rows: bool, offset_ua_clk: float, gain: float
    ) -> Tensor:
        faults, longest = self.spreads.faults, self.params.q_max
        heads, tokens, lines = current_ua.shape[-3:]
        wrong = current_ua * self._drawn(faults.cell_gain_sigma, heads, tokens, lines)
        wrong = wrong + self._drawn(faults.cell_offset_sigma_ua, heads, tokens, lines)
        ideal = drive @ (current_ua.mT if rows else current_ua)
        added = drive @ (wrong.mT if rows else wrong)
        converters = heads, 1, ideal.shape[-1]
        added = added + self._drawn(offset_ua_clk / longest, *converters)
        if faults.read_sigma_ua:
            on = (drive.sum(-1, keepdim=True) / longest).clamp(min=0).sqrt()
            added = added + on * self._drawn(faults.read_sigma_ua, *ideal.shape)
        return added + (ideal + added) * self._drawn(gain, *converters)

    def scores(self, pulses: Tensor, current_ua: Tensor) -> Tensor:
        """Added to mean currents of columns, (..., tokens, tokens) in µA."""
        offset, gain = self.spreads.score_offset_ua_clk, self.spreads.faults.score_gain_sigma
        return self._added(pulses, current_ua, True, offset, gain)

    def outputs(self, phi: Tensor, current_ua: Tensor) -> Tensor:
        """Added to those of the lanes of one sub-tile, (..., tokens, lanes) in µA."""
        offset, gain = self.spreads.output_offset_ua_clk, self.spreads.faults.output_gain_sigma
        return self._added(phi, current_ua, False, offset, gain)
