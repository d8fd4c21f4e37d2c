"""A converter's transfer as simulated: pulse over charge, both in counts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["Transfer"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Length of the pulse over the charge; linear between the points, constant beyond them.

    An ideal converter's is the identity, clipped. A converter's sign is the charge's: near zero a
    pulse may be missing, but does not turn.

    Raises
    ------
    ValueError
        Charges do not rise strictly, pulses fall, or there are not as many of both, at least two.
    """

    charge: tuple[float, ...]  #: in charges of one count
    pulse: tuple[float, ...]  #: in lengths of one count, negative for negative charge

    def __post_init__(self) -> None:
        charge, pulse = np.asarray(self.charge), np.asarray(self.pulse)
        if charge.ndim != 1 or charge.size < 2 or not (np.diff(charge) > 0).all():
            raise ValueError(f"charge must rise strictly, not {self.charge!r}")
        if pulse.shape != charge.shape:
            raise ValueError(
                f"pulse must have shape {charge.shape!r}, that of charge, not {pulse.shape!r}"
            )
        if not (np.diff(pulse) >= 0).all() or not np.isfinite(pulse).all():
            raise ValueError(f"pulse must be finite and must not fall, not {self.pulse!r}")

    @cached_property
    def _arrays(self) -> tuple[Floats, Floats]:
        return np.asarray(self.charge, np.float64), np.asarray(self.pulse, np.float64)

    def length(self, charge: Floats) -> Floats:
        """Signed lengths of pulses in counts, of charges in those of one count; any shape."""
        length = np.interp(charge, *self._arrays)
        return np.where(charge < 0, np.minimum(length, 0.0), np.maximum(length, 0.0))
