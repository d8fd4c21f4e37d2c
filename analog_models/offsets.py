"""Offsets of converters: what a mismatch of their input stages adds to every charge.

Each converter has an offset of its own, which stays. It is drawn from a normal distribution. None
has been published for the 28 nm converters: their spread is an assumption to try designs against.
Offsets lie on a grid of charge, so that sums stay exact.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from analog_models.dac import CURRENT_GRID

__all__ = ["charge_offsets", "check_sigma"]


def check_sigma(name: str, sigma: object) -> None:
    """Refuse what is no spread.

    Raises
    ------
    TypeError
        ``sigma`` is no number.
    ValueError
        It is negative or not finite.
    """
    if isinstance(sigma, bool) or not isinstance(sigma, int | float | np.floating):
        raise TypeError(f"{name} must be a float, not {sigma!r}")
    if not 0 <= sigma < math.inf:
        raise ValueError(f"{name} must be finite and not negative, not {sigma!r}")


def charge_offsets(
    sigma: float, shape: tuple[int, ...], seed: tuple[int, ...]
) -> NDArray[np.float64] | None:
    """Draw offsets of charge on a grid of 2**-16 µA·clk.

    Parameters
    ----------
    sigma
        Standard deviation in µA·clk; 0 is ideal.
    shape
        Of the converters.
    seed
        Same seed, same offsets.

    Returns
    -------
    offsets
        In µA·clk; None if ideal.
    """
    if not sigma:
        return None
    drawn = sigma * np.random.default_rng(seed).standard_normal(shape)
    offsets: NDArray[np.float64] = np.rint(drawn * CURRENT_GRID) / CURRENT_GRID
    offsets.setflags(write=False)
    return offsets
