"""Non-idealities of one device: what its cells, DACs, converters and lines do differently.

Spreads between devices of one wafer are *fixed*: drawn once from ``seed``, they stay. Noise is
*fresh*: drawn anew for every evaluation, from ``noise_seed`` and the evaluation's number, so that
a run can be repeated and every speed of the model sees the same noise.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BOLTZMANN_EV_PER_K", "ROOM_C", "Faults", "line_transfer"]

ROOM_C = 27.0  #: temperature that presets are given at, SPICE's default
ZERO_C_K = 273.15
BOLTZMANN_EV_PER_K = 8.617333262e-5  #: CODATA 2018

Floats = NDArray[np.float64]

_SPREADS = (
    "cell_gain_sigma",
    "cell_offset_sigma_ua",
    "dac_sigma_v",
    "score_gain_sigma",
    "output_gain_sigma",
    "read_noise_ua",
    "score_jitter_sigma_clk",
    "output_jitter_sigma_clk",
    "line_ohm",
    "cell_out_us",
)


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Non-idealities of cells, DACs, converters and lines; the defaults are ideal.

    Where the figures come from: spreads of cells and converters from Monte Carlo runs of the
    device preset's netlist; noise from its simulation too; the rest is for the user to assume, as
    nothing has been published for the 28 nm cell.

    Raises
    ------
    TypeError
        A field is not of its kind.
    ValueError
        A field is out of its range.
    """

    cell_gain_sigma: float = 0.0  #: spread of a cell's current, relative; fixed
    cell_offset_sigma_ua: float = 0.0  #: spread of what is added to a cell's current; fixed
    dac_sigma_v: float = 0.0  #: spread of each level of each writing DAC, one per line; fixed
    score_gain_sigma: float = 0.0  #: spread of the gain from charge to phi, per column; fixed
    output_gain_sigma: float = 0.0  #: spread of the gain from charge to count, per lane; fixed
    read_noise_ua: float = 0.0  #: RMS of a driven cell's current, mean over one clock, white; fresh
    score_jitter_sigma_clk: float = 0.0  #: RMS of a phi pulse's length; fresh
    output_jitter_sigma_clk: float = 0.0  #: RMS of an output pulse's length; fresh
    line_ohm: float = 0.0  #: resistance of a summing line from one cell to the next
    cell_out_us: float = 0.0  #: output conductance of a cell, which loads the line
    temperature_c: float = ROOM_C  #: of the device
    current_tc_per_k: float = 0.0  #: change of all cell currents, relative, from 27 °C
    tau_activation_ev: float = 0.0  #: activation energy of leakage: tau falls with temperature
    seed: int = 0  #: picks the device
    noise_seed: int = 0  #: picks the noise

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("seed", "noise_seed"):
                if isinstance(value, bool) or not isinstance(value, int):
                    raise TypeError(f"{field.name} must be an int, not {value!r}")
                if not 0 <= value < 2**63:
                    raise ValueError(f"{field.name} must be in 0..{2**63 - 1}, not {value!r}")
                continue
            if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
                raise TypeError(f"{field.name} must be a float, not {value!r}")
            if not math.isfinite(value):
                raise ValueError(f"{field.name} must be finite, not {value!r}")
            if field.name in _SPREADS and value < 0:
                raise ValueError(f"{field.name} must be finite and not negative, not {value!r}")
        if not -ZERO_C_K < self.temperature_c <= 400.0:
            raise ValueError(
                f"temperature_c must be above {-ZERO_C_K} and at most 400, "
                f"not {self.temperature_c!r}"
            )
        if self.tau_activation_ev < 0:
            raise ValueError(
                f"tau_activation_ev must be finite and not negative, not {self.tau_activation_ev!r}"
            )
        if self.current_factor <= 0:
            raise ValueError(
                f"current_tc_per_k must leave a current at {self.temperature_c:g} °C, "
                f"not {self.current_tc_per_k!r}"
            )

    @property
    def current_factor(self) -> float:
        """What temperature multiplies every cell current by."""
        return 1.0 + self.current_tc_per_k * (self.temperature_c - ROOM_C)

    @property
    def tau_factor(self) -> float:
        """What temperature multiplies tau by: Arrhenius' law with ``tau_activation_ev``."""
        inverse_k = 1.0 / (self.temperature_c + ZERO_C_K) - 1.0 / (ROOM_C + ZERO_C_K)
        return math.exp(self.tau_activation_ev / BOLTZMANN_EV_PER_K * inverse_k)

    @property
    def read_sigma_ua(self) -> float:
        """Read noise at ``temperature_c``: thermal, so it grows with the root of temperature."""
        kelvin = self.temperature_c + ZERO_C_K
        return self.read_noise_ua * math.sqrt(kelvin / (ROOM_C + ZERO_C_K))

    @property
    def noisy(self) -> bool:
        """Two evaluations of one device may differ."""
        return bool(
            self.read_noise_ua or self.score_jitter_sigma_clk or self.output_jitter_sigma_clk
        )

    def device(self, seed: int) -> Faults:
        """The same statistics, another device, and other noise."""
        return dataclasses.replace(self, seed=seed, noise_seed=seed)


def line_transfer(cells: int, line_ohm: float, cell_out_us: float) -> Floats:
    """Share of each cell's current that reaches the end of a resistive summing line.

    The line is a ladder: ``line_ohm`` between neighbours and to the integrator's virtual ground,
    ``cell_out_us`` from every cell to ground. By reciprocity the share of cell k is the voltage at
    k when the end is driven with one volt.

    Parameters
    ----------
    cells
        Cells on the line; the first is nearest to the integrator.
    line_ohm
        Resistance of a segment in ohm.
    cell_out_us
        Output conductance of a cell in µS.

    Returns
    -------
    transfer
        Shares in 0..1, ``(cells,)``.

    Raises
    ------
    ValueError
        There is no cell.
    """
    if cells < 1:
        raise ValueError(f"cells must be at least 1, not {cells!r}")
    load = line_ohm * cell_out_us * 1e-6
    # Outwards in: ratio of a node's voltage to its inner neighbour's.
    ratio = np.empty(cells)
    seen = load  # admittance of a node to ground and outwards, times line_ohm
    for k in range(cells - 1, -1, -1):
        ratio[k] = 1.0 / (1.0 + seen)
        seen = load + seen / (1.0 + seen)
    transfer: Floats = np.cumprod(ratio, dtype=np.float64)
    return transfer
