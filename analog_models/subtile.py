"""Sub-tiles: key array, converter, value array and signed converter, clock by clock."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analog_models.array import KeyArray, ValueArray
from analog_models.params import AnalogParams

__all__ = ["AnalogProtocolError", "SubTiles"]

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]
Bools = NDArray[np.bool_]


class AnalogProtocolError(RuntimeError):
    """The digital side drove the arrays in a way whose outcome silicon does not define."""


class SubTiles:
    """A bank of identical sub-tiles in lockstep; ``params.subtiles = 1`` is a single one.

    The converters sample: the first clock of a conversion samples the column charges, the first
    clock of a readout the lane charges. A conversion lasts ``q_max`` clocks and a readout
    ``count_max``; the next call after that starts a new one. Integrators may hence be reset and
    reused while a sample is still being converted, which is what a pipelined head does. The level,
    and with it the saturation current, must stay from the first clock to the last.

    Parameters
    ----------
    params
        Shape, widths, cell and converters.
    """

    def __init__(self, params: AnalogParams) -> None:
        self.params = params
        self.keys = KeyArray(
            subtiles=params.subtiles,
            columns=params.columns,
            rows=params.rows,
            currents=params.key_currents,
            age_clk=params.age_clk,
        )
        self.values = ValueArray(
            subtiles=params.subtiles,
            columns=params.columns,
            lanes=params.lanes,
            currents=params.value_currents,
            age_clk=params.age_clk,
        )
        self._left_clk = np.zeros(params.window)  # of each phi pulse
        self._step_clk = np.zeros(params.window)
        self._length_clk = np.zeros((params.subtiles, params.lanes))
        self._signs = np.zeros((params.subtiles, params.lanes), dtype=np.bool_)
        self._convert_clock = 0
        self._convert_level: int | None = None
        self._read_clock = 0
        self._read_level: int | None = None
        self._reader = params.output_converter
        self.conversions = 0  #: begun so far; numbers the noise of array 1's evaluations
        self.readouts = 0  #: begun so far; numbers the noise of array 2's evaluations

    def tick(self, clocks: int = 1) -> None:
        """Let time pass."""
        self.keys.now_clk += clocks
        self.values.now_clk += clocks

    def reset(self) -> None:
        """Discharge all integrators and abort any conversion; stored codes stay."""
        for bank in (1, 0):
            self.keys.reset(bank)
            self.values.reset(bank)
        self._convert_clock = 0
        self._read_clock = 0

    def reset_scores(self, bank: int = 0) -> None:
        """Discharge one set of array 1's integrators."""
        self.keys.reset(bank)

    def reset_outputs(self, bank: int = 0) -> None:
        """Discharge one set of array 2's integrators; the next conversion clock is a first one."""
        self.values.reset(bank)
        self._convert_clock = 0

    def integrate_scores(self, word_lines: Bools, bank: int = 0) -> None:
        """One clock of Q.K."""
        self.keys.select(bank)
        self.keys.drive(word_lines)

    def phi_clk(self, bank: int = 0, level: int | None = None) -> Floats:
        """Phi of every column, were the scores held now converted next; clocks, ``(window,)``."""
        charge, on_clk = self.keys.charge(bank), float(self.keys.driven_clk(bank))
        charge = self.params.sensing.scores(charge, on_clk, self.conversions)
        jitter_clk = self.params.sensing.score_jitter_clk(self.conversions)
        return self.params.score_converter_of(level).phi_clk(charge, jitter_clk)

    def convert_scores(self, column_mask: Bools, bank: int = 0, level: int | None = None) -> None:
        """One clock of conversion: the phi pulses of unmasked columns drive array 2."""
        left, step = self._left_clk, self._step_clk
        if self._convert_clock == 0:
            left[:] = self.phi_clk(bank, level)
            self.conversions += 1
            self._convert_level = level
        elif level != self._convert_level:
            raise AnalogProtocolError(
                f"S_sat changed from level {self._convert_level} to {level} after "
                f"{self._convert_clock} of {self.params.q_max} clocks of a conversion"
            )
        self._convert_clock += 1
        if self._convert_clock == self.params.q_max:
            self._convert_clock = 0
        np.minimum(left, 1.0, out=step)  # the last clock of a pulse is a fraction
        left -= step
        step *= column_mask
        self.values.select(bank)
        self.values.drive(step)

    def output_charge(self, bank: int = 0) -> Floats:
        """Charge that the signed converters see in the next readout, ``(subtiles, lanes)``."""
        charge, on_clk = self.values.charge(bank), self.values.driven_clk(bank)
        return self.params.sensing.outputs(charge, on_clk, self.readouts)

    def read_outputs(
        self, bank: int = 0, level: int | None = None, select: Bools | None = None
    ) -> tuple[Bools, Bools]:
        """One clock of readout: pulses and signs, ``(subtiles, lanes)`` each.

        Sub-tiles that ``select`` is false for have no pulse in this clock; None selects all.
        """
        if self._read_clock == 0:
            self._reader = self.params.output_converter_of(level)
            self._read_level = level
            charge = self.output_charge(bank)
            jitter_clk = self.params.sensing.output_jitter_clk(self.readouts)
            self._length_clk = self._reader.length_clk(charge, jitter_clk)
            self.readouts += 1
            self._signs = charge < 0
        elif level != self._read_level:
            raise AnalogProtocolError(
                f"A_sat changed from level {self._read_level} to {level} after "
                f"{self._read_clock} of {self.params.count_max} clocks of a readout"
            )
        self._read_clock += 1
        pulses = self._reader.high(self._length_clk, self._read_clock)
        if self._read_clock == self.params.count_max:
            self._read_clock = 0
        if select is not None:
            pulses = pulses & select[:, np.newaxis]
        return pulses, self._signs
