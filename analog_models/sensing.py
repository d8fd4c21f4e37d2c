"""What the converters of one device see: offset, gain, and noise that is new in every evaluation.

Noise is a function of ``noise_seed``, of the array and of the evaluation's number, not of who asks
or in what order. Every speed of the model therefore gets the same noise for the same evaluation,
and calls the functions below on the same exact charges.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from analog_models.faults import Faults

__all__ = ["Sensing"]

Floats = NDArray[np.float64]
Evaluation = int | Iterable[int]

#: First words of the random streams; those of arrays are in `analog_models.instance`.
_GAIN, _NOISE, _JITTER = 8, 64, 66
_SCORE, _OUTPUT = 0, 1


class Sensing:
    """Everything between the charge of an array and the formula of its converters.

    A converter sees ``(charge + offset + noise) * gain``.

    Parameters
    ----------
    faults
        Non-idealities.
    score_offset, output_offset
        Fixed offsets in µA·clk, ``(window,)`` and ``(subtiles, lanes)``; None is none.
    window, subtiles, lanes
        Shape of the head.
    """

    def __init__(
        self,
        faults: Faults,
        *,
        score_offset: Floats | None,
        output_offset: Floats | None,
        window: int,
        subtiles: int,
        lanes: int,
    ) -> None:
        self.faults = faults
        self.score_offset = score_offset
        self.output_offset = output_offset
        self._score_shape = (window,)
        self._output_shape = (subtiles, lanes)
        self.score_gain = self._gain(faults.score_gain_sigma, _SCORE, self._score_shape)
        self.output_gain = self._gain(faults.output_gain_sigma, _OUTPUT, self._output_shape)

    def _gain(self, sigma: float, stage: int, shape: tuple[int, ...]) -> Floats | None:
        if not sigma:
            return None
        rng = np.random.default_rng((self.faults.seed, _GAIN + stage))
        gain: Floats = 1.0 + sigma * rng.standard_normal(shape)
        return gain

    def _fresh(self, stream: int, evaluation: Evaluation, shape: tuple[int, ...]) -> Floats:
        if not isinstance(evaluation, int):
            return np.stack([self._fresh(stream, each, shape) for each in evaluation])
        rng = np.random.default_rng((self.faults.noise_seed, stream, evaluation))
        return rng.standard_normal(shape)

    def scores(self, charge: Floats, on_clk: float | Floats, evaluation: Evaluation) -> Floats:
        """Charges that the converters between the arrays see, µA·clk, ``(..., window)``.

        Parameters
        ----------
        charge
            What array 1 collected, ``(window,)`` or ``(n, window)`` in µA·clk.
        on_clk
            Sum over the rows of the clocks that each was on, one number or ``(n,)``: white noise of
            the cells adds up in variance, so a column's is normal with that many times the
            variance of one clock.
        evaluation
            Number of the conversion, or of n of them.
        """
        if self.score_offset is not None:
            charge = charge + self.score_offset
        sigma_ua = np.float64(self.faults.read_sigma_ua)
        if sigma_ua:
            drawn = self._fresh(_NOISE + _SCORE, evaluation, self._score_shape)
            charge = charge + (sigma_ua * np.sqrt(on_clk))[..., np.newaxis] * drawn
        if self.score_gain is not None:
            charge = charge * self.score_gain
        return charge

    def score_jitter_clk(self, evaluation: Evaluation) -> Floats | None:
        """What is added to the lengths of phi pulses, ``(..., window)``; None is nothing."""
        sigma = self.faults.score_jitter_sigma_clk
        if not sigma:
            return None
        return sigma * self._fresh(_JITTER + _SCORE, evaluation, self._score_shape)

    def outputs(self, charge: Floats, on_clk: Floats, evaluation: Evaluation) -> Floats:
        """Charges that the signed converters see, µA·clk, ``(..., subtiles, lanes)``.

        Parameters
        ----------
        charge
            What array 2 collected, ``(..., subtiles, lanes)`` in µA·clk.
        on_clk
            Sum over the columns of a sub-tile of the clocks that they were on, ``(..., subtiles)``.
        evaluation
            Number of the readout, or of n of them.
        """
        if self.output_offset is not None:
            charge = charge + self.output_offset
        sigma_ua = self.faults.read_sigma_ua
        if sigma_ua:
            drawn = self._fresh(_NOISE + _OUTPUT, evaluation, self._output_shape)
            charge = charge + (sigma_ua * np.sqrt(on_clk))[..., np.newaxis] * drawn
        if self.output_gain is not None:
            charge = charge * self.output_gain
        return charge

    def output_jitter_clk(self, evaluation: Evaluation) -> Floats | None:
        """What is added to output pulses, ``(..., subtiles, lanes)``; None is nothing."""
        sigma = self.faults.output_jitter_sigma_clk
        if not sigma:
            return None
        return sigma * self._fresh(_JITTER + _OUTPUT, evaluation, self._output_shape)
