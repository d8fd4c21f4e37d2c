"""The stepped head: driven once per clock by control signals, as silicon is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analog_models.params import AnalogParams
from analog_models.subtile import AnalogProtocolError, SubTiles

__all__ = ["AnalogProtocolError", "SteppedHead", "check_codes", "pack_bits", "unpack_bits"]

Codes = NDArray[np.intp]
Bools = NDArray[np.bool_]


def check_codes(name: str, codes: ArrayLike, length: int, code_max: int) -> Codes:
    """Return the codes as an array.

    Raises
    ------
    TypeError
        They are no integers.
    ValueError
        There are too few or too many, or one is out of range.
    """
    array = np.asarray(codes)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, not dtype {array.dtype.name!r}")
    if array.shape != (length,):
        raise ValueError(f"{name} must have shape ({length},), not {array.shape!r}")
    if array.min() < 0 or array.max() > code_max:
        bad = int(np.argmax((array < 0) | (array > code_max)))
        raise ValueError(f"{name} must be in 0..{code_max}, not {int(array[bad])!r} at index {bad}")
    return array.astype(np.intp)


def pack_bits(bits: Bools) -> int:
    """Integer whose bit i is element i of the flattened array."""
    return int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")


def unpack_bits(value: int, width: int) -> Bools:
    """Array whose element i is bit i of the integer."""
    raw = np.frombuffer(value.to_bytes((width + 7) // 8, "little"), dtype=np.uint8)
    return np.unpackbits(raw, count=width, bitorder="little").view(np.bool_)


@dataclass
class _Write:
    """A write in progress."""

    subtile: int
    column: int
    raw: bytes
    codes: Codes
    held_clk: int = 0


class SteppedHead:
    """All sub-tiles of one head, driven clock by clock.

    Call a method in every clock its strobe is high. A query is: ``reset_scores``, the query's
    word lines in ``q_max`` calls of ``integrate_scores``; ``reset_outputs``, ``q_max`` calls of
    ``convert_scores``; ``count_max`` calls of ``read_outputs``. A column takes its codes in the
    ``write_clk``-th clock of a write; call ``end_write`` in the first clock after it. A write that
    is over may be followed at once by one of another column; the same column and codes without
    ``end_write`` in between are one long write.

    Each array counts its own writes to know the age of its columns, so K and V of one token may
    be written in different phases. With ``params.tau_s`` age is time instead: call ``tick`` once
    per clock.

    Parameters
    ----------
    params
        Shape, widths, cell and converters; ``params.write_clk`` is the write time demanded.
    """

    def __init__(self, params: AnalogParams) -> None:
        if not isinstance(params, AnalogParams):
            raise TypeError(f"params must be AnalogParams, not {params!r}")
        self.params = params
        self.bank = SubTiles(params)
        self._writes: dict[str, _Write] = {}
        self._signs: Bools | None = None
        self._packed_signs = 0

    @property
    def now_clk(self) -> int:
        """Clocks that have passed."""
        return self.bank.keys.now_clk

    def tick(self, clocks: int = 1) -> None:
        """Let time pass; `reset` does not turn it back."""
        self.bank.tick(clocks)

    def reset(self) -> None:
        """Abort every phase; stored codes stay, save those of a column caught in mid-write.

        Such a column goes back to its power-up state: it holds neither the old codes nor the new.
        """
        for name, write in self._writes.items():
            if write.held_clk < self.params.write_clk:
                target = self.bank.keys if name == "key" else self.bank.values
                unknown = np.full(write.codes.shape, self.params.dac.levels - 1, dtype=np.intp)
                target.store(write.subtile, write.column, unknown)
        self._writes.clear()
        self.bank.reset()  # a store turns on-time into charge

    # --- writing ------------------------------------------------------------------------------
    def write_key(self, subtile: int, column: int, codes: ArrayLike) -> None:
        """One clock of writing a column of array 1.

        Raises
        ------
        AnalogProtocolError
            Address or codes differ from the last clock's before the column was written.
        TypeError, ValueError
            Address or codes are not of the array's.
        """
        self._write("key", subtile, column, codes, self.params.rows)

    def write_value(self, subtile: int, column: int, codes: ArrayLike) -> None:
        """One clock of writing a column of array 2; raises as ``write_key``."""
        self._write("value", subtile, column, codes, self.params.lanes)

    def _write(self, array: str, subtile: int, column: int, codes: ArrayLike, length: int) -> None:
        raw = np.asarray(codes)
        write = self._writes.get(array)
        same = (
            write is not None
            and write.subtile == subtile
            and write.column == column
            and write.raw == raw.tobytes()
        )
        if write is not None and not same and write.held_clk < self.params.write_clk:
            raise AnalogProtocolError(
                f"{array} write to sub-tile {write.subtile}, column {write.column} changed its "
                f"address or codes after {write.held_clk} of {self.params.write_clk} clocks"
            )
        if write is None or not same:
            if not 0 <= subtile < self.params.subtiles:
                raise ValueError(
                    f"subtile must be in 0..{self.params.subtiles - 1}, not {subtile!r}"
                )
            if not 0 <= column < self.params.columns:
                raise ValueError(f"column must be in 0..{self.params.columns - 1}, not {column!r}")
            checked = check_codes(f"{array} codes", raw, length, self.params.dac.levels - 1)
            write = _Write(subtile, column, raw.tobytes(), checked)
            self._writes[array] = write
        write.held_clk += 1
        if write.held_clk == self.params.write_clk:
            target = self.bank.keys if array == "key" else self.bank.values
            target.store(subtile, column, write.codes)

    def end_write(self, array: str | None = None) -> None:
        """Note that the strobe of "key" or "value" is low; None means both. No write, no effect.

        Raises
        ------
        AnalogProtocolError
            The write was too short: its cells hold neither the old codes nor the new.
        """
        if array is not None and array not in ("key", "value"):
            raise ValueError(f"array must be 'key', 'value' or None, not {array!r}")
        for name in ("key", "value") if array is None else (array,):
            write = self._writes.pop(name, None)
            if write is not None and write.held_clk < self.params.write_clk:
                raise AnalogProtocolError(
                    f"{name} write to sub-tile {write.subtile}, column {write.column} lasted "
                    f"{write.held_clk} of {self.params.write_clk} clocks"
                )

    # --- querying -----------------------------------------------------------------------------
    def reset_scores(self, bank: int = 0) -> None:
        """Discharge one set of array 1's integrators, 0 or 1."""
        self.bank.reset_scores(bank)

    def integrate_scores(self, word_lines: Bools, bank: int = 0) -> None:
        """One clock of Q.K; ``word_lines (rows,)`` says which are on."""
        self._check_bools("word_lines", word_lines, self.params.rows)
        self.bank.integrate_scores(word_lines, bank)

    def reset_outputs(self, bank: int = 0) -> None:
        """Discharge one set of array 2's integrators; the next conversion clock is a first one."""
        self.bank.reset_outputs(bank)

    def convert_scores(
        self, column_mask: Bools, bank: int = 0, *, s_level: int | None = None
    ) -> None:
        """One clock of conversion.

        Parameters
        ----------
        column_mask
            True for columns that take part, ``(window,)``.
        bank
            Set of array 1's integrators that is converted, and of array 2's that is charged.
        s_level
            Level of S_sat, the same in every clock; None is the default one.

        Raises
        ------
        AnalogProtocolError
            The level changed in mid-conversion.
        TypeError, ValueError
            An argument is not of its kind, shape or range.
        """
        self._check_bools("column_mask", column_mask, self.params.window)
        self.bank.convert_scores(column_mask, bank, s_level)

    def phi_clk(self, bank: int = 0, *, s_level: int | None = None) -> NDArray[np.float64]:
        """Phi of every column, masked ones included, of the scores held now; clocks, (window,)."""
        return self.bank.phi_clk(bank, s_level)

    def output_signs_packed(self, bank: int = 0) -> int:
        """Signs the next readout will have, known once conversion is over; packed as pulses are."""
        return pack_bits(self.bank.output_charge(bank) < 0)

    def read_outputs(
        self, bank: int = 0, *, a_level: int | None = None, select: Bools | None = None
    ) -> tuple[Bools, Bools]:
        """One clock of readout: pulses and signs (true is negative), ``(subtiles, lanes)`` each.

        Parameters
        ----------
        bank
            Set of array 2's integrators that is read.
        a_level
            Level of A_sat, the same in every clock; None is the default one.
        select
            True for sub-tiles that may pulse, ``(subtiles,)``; None selects all.

        Raises
        ------
        AnalogProtocolError
            The level changed in mid-readout.
        TypeError, ValueError
            An argument is not of its kind, shape or range.
        """
        if select is not None:
            self._check_bools("select", select, self.params.subtiles)
        return self.bank.read_outputs(bank, a_level, select)

    def read_outputs_packed(
        self, bank: int = 0, *, a_level: int | None = None, select: Bools | None = None
    ) -> tuple[int, int]:
        """One clock of readout as two integers, bit ``subtile * lanes + lane``; as read_outputs."""
        pulses, signs = self.read_outputs(bank, a_level=a_level, select=select)
        if signs is not self._signs:  # the bank makes a new array for every readout
            self._signs = signs
            self._packed_signs = pack_bits(signs)
        return pack_bits(pulses), self._packed_signs

    @staticmethod
    def _check_bools(name: str, bits: Bools, length: int) -> None:
        if not isinstance(bits, np.ndarray) or bits.dtype != np.bool_:
            raise TypeError(f"{name} must be a boolean array, not {bits!r}")
        if bits.shape != (length,):
            raise ValueError(f"{name} must have shape ({length},), not {bits.shape!r}")
