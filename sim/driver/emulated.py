"""A device made of a board's integers: the emulated arrays in place of the real-valued ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analog_models import AnalogParams, FunctionalHead, Result
from analog_models.functional import Clocks
from analog_models.params import A_LEVEL, S_LEVEL
from boards.params import EmulatorParams
from sim.driver.functional import FunctionalBackend
from sim.reference.emulator import ArrayReference

__all__ = ["EmulatedBackend", "EmulatedHead"]


class EmulatedHead(FunctionalHead):
    """One head, token by token; integers equal those of the FPGA, exactly.

    Parameters
    ----------
    params
        Emulator parameters.
    """

    def __init__(self, params: EmulatorParams) -> None:
        super().__init__(AnalogParams.matching(params.head))
        self._arrays = ArrayReference(params)

    def write(
        self, k_codes: ArrayLike, v_codes: ArrayLike, *, now_clk: Clocks | None = None
    ) -> None:
        """Append a token; see `FunctionalHead.write`."""
        column = self.pointer
        super().write(k_codes, v_codes)
        self._arrays.write_key(column, np.asarray(k_codes).tolist())
        self._arrays.write_value(column, np.asarray(v_codes).tolist())

    def counts(
        self,
        q_codes: ArrayLike,
        *,
        s_level: int | None = None,
        a_level: int | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """Signed counts of a query, ``(subtiles, lanes)``; see `FunctionalHead.query`."""
        taking_part = self.valid if mask is None else self.valid & mask
        counts = self._arrays.query(
            np.asarray(q_codes).tolist(),
            taking_part.tolist(),
            s_level=S_LEVEL if s_level is None else s_level,
            a_level=A_LEVEL if a_level is None else a_level,
        )
        return np.array(counts, dtype=np.int64)

    def query(
        self,
        q_codes: ArrayLike,
        *,
        s_level: int | None = None,
        a_level: int | None = None,
        subtile: int | None = None,
        mask: NDArray[np.bool_] | None = None,
        now_clk: Clocks | None = None,
    ) -> Result:
        """Attend over the window; see `FunctionalHead.query`."""
        counts = self.counts(q_codes, s_level=s_level, a_level=a_level, mask=mask)
        if subtile is not None:
            counts = counts[subtile : subtile + 1]
        full = np.abs(counts) == self.params.count_max
        return Result(counts.sum(axis=0), full.any(axis=0))


class EmulatedBackend(FunctionalBackend):
    """A head that answers at once, with the integers of a board.

    Parameters
    ----------
    params
        Emulator parameters.
    """

    def __init__(self, params: EmulatorParams) -> None:
        self._emulator = params
        super().__init__(params.head)

    def _model(self, analog: AnalogParams) -> FunctionalHead:
        """Emulated arrays."""
        return EmulatedHead(self._emulator)
