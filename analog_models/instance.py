"""One device's arrays: the currents of its cells, mismatch folded in once per write."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analog_models.dac import LevelCurrents, snap_ua
from analog_models.faults import Faults, line_transfer

__all__ = ["ARRAY_STREAMS", "CellCurrents"]

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

#: First word of the random streams of array 1 ("key") and of array 2 ("value").
ARRAY_STREAMS = {"key": 16, "value": 24}


class CellCurrents:
    """Currents of the cells of one array of a device, by what they hold, for how long, and where.

    A current is ``transfer * factor * (I * (1 + gain) + offset)``: I that of the stored voltage,
    the cell's own gain and offset, temperature's factor, and the share that the summing line lets
    through. It lies on the grid of all currents, so sums stay exact. Without faults it is I.

    Parameters
    ----------
    levels
        Currents of ideal cells by code and age.
    faults
        Non-idealities.
    array
        "key" or "value".
    subtiles, columns, lines
        Shape of the array: tokens of a sub-tile, cells of a token.
    """

    def __init__(
        self,
        levels: LevelCurrents,
        faults: Faults,
        *,
        array: str,
        subtiles: int,
        columns: int,
        lines: int,
    ) -> None:
        self.levels = levels
        self.lines = lines
        tokens = subtiles * columns
        stream = ARRAY_STREAMS[array]
        factor = faults.current_factor

        def drawn(sigma: float, number: int, shape: tuple[int, ...]) -> Floats | None:
            if not sigma:
                return None
            rng = np.random.default_rng((faults.seed, stream + number))
            return sigma * rng.standard_normal(shape)

        gain = drawn(faults.cell_gain_sigma, 0, (tokens, lines))
        offset_ua = drawn(faults.cell_offset_sigma_ua, 1, (tokens, lines))
        self._dac_v = drawn(faults.dac_sigma_v, 2, (lines, levels.dac.levels))

        scale: Floats | None = None if gain is None else (1.0 + gain) * factor
        if scale is None and factor != 1.0:
            scale = np.full((1, 1), factor)
        offset = None if offset_ua is None else offset_ua * factor
        if faults.line_ohm and faults.cell_out_us:
            # Array 1 sums over the rows of a column, array 2 over the columns of a sub-tile.
            cells = lines if array == "key" else columns
            transfer = line_transfer(cells, faults.line_ohm, faults.cell_out_us)
            share = transfer[np.newaxis] if array == "key" else np.tile(transfer, subtiles)[:, None]
            scale = share if scale is None else scale * share
            offset = None if offset is None else offset * share
        self._scale = None if scale is None else np.broadcast_to(scale, (tokens, lines))
        self._offset_ua = offset
        self.ideal = scale is None and offset is None and self._dac_v is None
        #: Largest current of any cell at any age.
        self.i_max_ua = levels.i_max_ua
        if self._scale is not None:
            self.i_max_ua *= float(np.abs(self._scale).max())
        if offset is not None:
            self.i_max_ua += float(np.abs(offset).max())

    def at(self, ages: Codes, codes: Codes, tokens: slice | int = slice(None)) -> Floats:
        """Currents in µA of the columns ``tokens``, which hold ``codes`` and are ``ages`` old.

        Parameters
        ----------
        ages
            Steps of age, ``(n,)``.
        codes
            Stored codes, ``(n, lines)``.
        tokens
            Which columns of the window they are; one int for a single column.
        """
        if isinstance(tokens, int):
            tokens = slice(tokens, tokens + 1)
        if self._dac_v is None:
            nominal = self.levels.at(ages, codes)
        else:
            error_v = self._dac_v[np.arange(self.lines), codes]
            nominal = self.levels.off_level(ages, codes, error_v)
        if self.ideal:
            return nominal
        if self._scale is not None:
            nominal = nominal * self._scale[tokens]
        if self._offset_ua is not None:
            nominal = nominal + self._offset_ua[tokens]
        return snap_ua(nominal)
