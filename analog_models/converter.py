"""Charge-to-pulse converters: the only place where the elementwise formulas are written.

Every speed of the model calls these functions on the same exact charges, which makes the speeds
agree bit for bit. Divisors are not replaced by reciprocals: a correctly rounded quotient keeps
exact ties where they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analog_models.dac import CURRENT_GRID
from analog_models.transfer import Transfer

__all__ = ["PHI_GRID", "ChargeToPulse", "SignedChargeToPulse", "check_exact"]

PHI_GRID = 2**18  #: grid points per clock of a phi pulse: about 4 fs at 1 GHz

Floats = NDArray[np.float64]


def _check_bits(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if not 1 <= value <= 8:
        raise ValueError(f"{name} must be in 1..8, not {value!r}")


def _check_saturation(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
        raise TypeError(f"{name} must be a float, not {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, not {value!r}")


def _check_transfer(transfer: object, longest: int) -> None:
    if transfer is None:
        return
    if not isinstance(transfer, Transfer):
        raise TypeError(f"transfer must be a Transfer or None, not {transfer!r}")
    if transfer.charge[0] > 0 or transfer.charge[-1] < longest:
        raise ValueError(
            f"transfer must span the charges of all pulses, 0..{longest} counts, "
            f"not {transfer.charge[0]!r}..{transfer.charge[-1]!r}"
        )


@dataclass(frozen=True, kw_only=True)
class ChargeToPulse:
    """Turns a column's charge into a phi pulse: a HardSigmoid in the time domain.

    Raises
    ------
    TypeError
        A field is not of its kind.
    ValueError
        A field is out of its range.
    """

    q_bits: int = 4  #: query code width; the longest pulse lasts 2**q_bits - 1 clocks
    s_sat_ua: float = 80.0  #: mean current over the longest query pulse that saturates
    transfer: Transfer | None = None  #: pulse over charge, both in clocks; None is ideal

    def __post_init__(self) -> None:
        _check_bits("q_bits", self.q_bits)
        _check_saturation("s_sat_ua", self.s_sat_ua)
        _check_transfer(self.transfer, self.q_max)

    @property
    def q_max(self) -> int:
        """Longest pulse in clocks, and the highest query code."""
        return (1 << self.q_bits) - 1

    def phi_ticks(
        self, charge: Floats, out: Floats | None = None, jitter_clk: Floats | None = None
    ) -> Floats:
        """Pulse lengths in ticks of 2**-18 clock, from charges in µA·clk.

        ``jitter_clk`` is added to the pulses that there are; none gets longer than the longest.
        """
        out = np.divide(charge, self.s_sat_ua, out=out)
        if self.transfer is not None:
            out[...] = self.transfer.length(out)
        np.clip(out, 0.0, float(self.q_max), out=out)
        if jitter_clk is not None:
            pulses = out > 0.0
            np.add(out, jitter_clk, out=out, where=pulses)
            np.clip(out, 0.0, float(self.q_max), out=out)
        np.multiply(out, float(PHI_GRID), out=out)
        return np.rint(out, out=out)

    def phi_clk(self, charge: Floats, jitter_clk: Floats | None = None) -> Floats:
        """Pulse lengths in clocks, from charges in µA·clk."""
        return self.phi_ticks(charge, jitter_clk=jitter_clk) / PHI_GRID


@dataclass(frozen=True, kw_only=True)
class SignedChargeToPulse:
    """Turns an output's charge into a sign and a pulse that a counter measures.

    Half a clock is added to the pulse, so that counting clocks rounds to nearest, halves away
    from zero.

    Raises
    ------
    TypeError
        A field is not of its kind.
    ValueError
        A field is out of its range.
    """

    q_bits: int = 4  #: query code width; the longest phi pulse lasts 2**q_bits - 1 clocks
    count_bits: int = 4  #: magnitude bits of the count
    a_sat_ua: float = 40.0  #: mean current over the longest phi pulse that saturates
    transfer: Transfer | None = None  #: pulse over charge, both in counts; None is ideal

    def __post_init__(self) -> None:
        _check_bits("q_bits", self.q_bits)
        _check_bits("count_bits", self.count_bits)
        _check_saturation("a_sat_ua", self.a_sat_ua)
        _check_transfer(self.transfer, self.count_max)

    @property
    def count_max(self) -> int:
        """Largest count."""
        return (1 << self.count_bits) - 1

    @property
    def charge_per_count(self) -> float:
        """Charge of one count in µA·clk."""
        return ((1 << self.q_bits) - 1) * self.a_sat_ua / self.count_max

    def length_clk(self, charge: Floats, jitter_clk: Floats | None = None) -> Floats:
        """Pulse lengths in clocks, without the half clock, from charges in µA·clk.

        ``jitter_clk`` is added to them; none gets shorter than nothing.
        """
        length: Floats = charge / self.charge_per_count
        length = np.abs(length if self.transfer is None else self.transfer.length(length))
        return length if jitter_clk is None else np.maximum(length + jitter_clk, 0.0)

    def high(self, length_clk: Floats, clock: int) -> NDArray[np.bool_]:
        """Which pulses are high at the clock edge given; edges are numbered from 1.

        A pulse lasts ``length_clk + 0.5``. The half is taken from the edge's time instead, where
        no rounding can carry a pulse over an edge.
        """
        return np.asarray(length_clk >= clock - 0.5)

    def counts(self, charge: Floats, jitter_clk: Floats | None = None) -> NDArray[np.int64]:
        """Signed counts of the clock edges 1..count_max, from charges in µA·clk."""
        return self.round_charge(charge, 1.0, jitter_clk=jitter_clk).astype(np.int64)

    def round_charge(
        self,
        charge: Floats,
        ticks_per_clk: float = float(PHI_GRID),
        out: Floats | None = None,
        half: Floats | None = None,
        jitter_clk: Floats | None = None,
    ) -> Floats:
        """Signed counts as floats, from charges in µA·clk / ticks_per_clk (a power of two).

        A pulse of length |x| + 0.5 is counted at the edges 1..n with n = floor(|x| + 0.5), which
        is trunc(2 |x|) - trunc(|x|), without a sum that would have to be rounded. ``half`` is
        scratch space.
        """
        out = np.divide(charge, self.charge_per_count * ticks_per_clk, out=out)
        if self.transfer is not None:
            out[...] = self.transfer.length(out)
        if jitter_clk is not None:
            length = np.maximum(np.abs(out) + jitter_clk, 0.0)
            np.copyto(out, np.where(out < 0.0, -length, length))
        np.clip(out, -float(self.count_max), float(self.count_max), out=out)
        half = np.trunc(out, out=half)
        np.add(out, out, out=out)
        np.trunc(out, out=out)
        return np.subtract(out, half, out=out)


def check_exact(
    *,
    rows: int,
    columns: int,
    q_bits: int,
    i_max_ua: float,
    score_offset: float = 0.0,
    output_offset: float = 0.0,
) -> None:
    """Refuse an array whose charges might not be exact in float64.

    Query codes are integers, currents multiples of 2**-16 µA and pulses multiples of 2**-18
    clock; while the largest charge, in units of that grid, fits the 53 bits of a float64, every
    partial sum is exact and no order of summation can change it. The largest offsets of the
    converters, in µA·clk and on the same grid, come on top.

    Raises
    ------
    ValueError
        It does not fit; the message names the field.
    """
    q_max = (1 << q_bits) - 1
    limit = 2.0**53 - score_offset * CURRENT_GRID
    if rows * q_max * i_max_ua * CURRENT_GRID > limit:
        most = max(0, int(limit / (q_max * i_max_ua * CURRENT_GRID)))
        raise ValueError(
            f"rows must be in 1..{most} for exact charges with q_bits = {q_bits} and cell "
            f"currents up to {i_max_ua:.4g} µA, not {rows!r}"
        )
    limit = 2.0**53 - output_offset * CURRENT_GRID * PHI_GRID
    if columns * q_max * i_max_ua * CURRENT_GRID * PHI_GRID > limit:
        most = max(0, int(limit / (q_max * i_max_ua * CURRENT_GRID * PHI_GRID)))
        raise ValueError(
            f"columns must be in 1..{most} for exact charges with q_bits = {q_bits} and cell "
            f"currents up to {i_max_ua:.4g} µA, not {columns!r}"
        )
