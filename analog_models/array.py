"""Gain-cell arrays, a bank of them in lockstep: stored codes, pulses in, charge out."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from analog_models.instance import CellCurrents

__all__ = ["CellArray", "KeyArray", "ValueArray"]

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]
Bools = NDArray[np.bool_]


class CellArray(ABC):
    """A bank of identical arrays that stores one token per column.

    Charge is linear in on-time while the stored state does not change. On-time is therefore only
    added up clock by clock, and turned into charge when somebody looks or a cell changes; what a
    write during an integration does to the charge comes out as it would on silicon, mixed.

    Cells hold the highest code at power-up, so that an empty column that is not masked shows.

    A column's age counts the array's writes since its own, or steps of ``age_clk`` clocks. In the
    latter case a read takes the ages at which its integrators were last reset: charge fades by
    millionths while a read lasts.

    Parameters
    ----------
    subtiles
        Arrays in the bank.
    columns
        Tokens per array.
    lines
        Cells per token.
    currents
        Currents of the array's cells by code and age.
    age_clk
        Clocks of one step of age; 0 lets age count writes.
    """

    def __init__(
        self,
        *,
        subtiles: int,
        columns: int,
        lines: int,
        currents: CellCurrents,
        age_clk: int = 0,
    ) -> None:
        self.subtiles = subtiles
        self.columns = columns
        self.lines = lines
        self._cells = currents
        tokens = subtiles * columns
        top = currents.levels.dac.levels - 1
        self.codes: Codes = np.full((tokens, lines), top, dtype=np.intp)
        self._age_clk = age_clk
        self._born: Codes = np.zeros(tokens, dtype=np.intp)  # step of age in which it was written
        self._now = -1  # step of age: of the last write, or of the last reset of integrators
        self.now_clk = 0  #: clocks since power-up
        self.written_clk = 0  #: clock in which a column last took its codes
        self.read_clk = 0  #: clock in which integrators were last reset
        self._currents: Floats = currents.at(np.zeros(tokens, dtype=np.intp), self.codes)
        self._stale = False
        self._pending = False
        self._bank = 0
        self._on_clk: Floats  # clocks that each line was on since charge was last collected
        self._charge: Floats  # of both sets of integrators, first axis
        self._driven: Floats  # clocks that all lines were on together, of both sets

    @property
    def ages(self) -> Codes:
        """Age of each column, in writes completed since its own or in steps of time."""
        return np.maximum(self._now - self._born, 0)

    @property
    def currents_ua(self) -> Floats:
        """Current of every cell, ``(subtiles * columns, lines)``."""
        if self._stale:
            self._currents = self._cells.at(self.ages, self.codes)
            self._stale = False
        return self._currents

    def store(self, subtile: int, column: int, codes: Codes) -> None:
        """Put codes into a column, which is new then; if age counts writes, others are older."""
        self.settle()
        token = subtile * self.columns + column
        self.codes[token] = codes
        self.written_clk = self.now_clk
        if self._age_clk:
            self._born[token] = self.now_clk // self._age_clk
        else:
            self._now += 1
            self._born[token] = self._now
        if self._cells.levels.leaks:
            self._stale = True
        else:
            fresh = np.zeros(1, dtype=np.intp)
            self._currents[token] = self._cells.at(fresh, codes[np.newaxis], token)[0]

    def settle(self) -> None:
        """Turn the on-time added up so far into charge."""
        if self._pending:
            self._pending = False
            self._collect()

    def select(self, bank: int) -> None:
        """Let what follows integrate on this one of the two sets of integrators, 0 or 1."""
        if bank != self._bank:
            self.settle()
            self._bank = bank

    def charge(self, bank: int = 0) -> Floats:
        """Charge on one set of integrators in µA·clk; see each array for its shape."""
        self.settle()
        charge: Floats = self._charge[bank]
        return charge

    def driven_clk(self, bank: int = 0) -> Floats:
        """Clocks that the lines were on, summed, since the set was reset; sets the read noise."""
        self.settle()
        return np.asarray(self._driven[bank])

    def reset(self, bank: int = 0) -> None:
        """Discharge one set of integrators and select it; what follows reads at today's ages."""
        self.select(bank)
        self._pending = False
        self.read_clk = self.now_clk
        if self._age_clk and self._now != self.now_clk // self._age_clk:
            self._now = self.now_clk // self._age_clk
            self._stale = True
        self._on_clk[:] = 0.0
        self._charge[bank] = 0.0
        self._driven[bank] = 0.0

    @abstractmethod
    def _collect(self) -> None:
        """Add on-time times current to the charge and clear the on-time."""


class KeyArray(CellArray):
    """Array 1: word lines along the rows drive every column; charge is (subtiles * columns,)."""

    def __init__(
        self,
        *,
        subtiles: int,
        columns: int,
        rows: int,
        currents: CellCurrents,
        age_clk: int = 0,
    ) -> None:
        super().__init__(
            subtiles=subtiles, columns=columns, lines=rows, currents=currents, age_clk=age_clk
        )
        self._on_clk = np.zeros(rows)
        self._charge = np.zeros((2, subtiles * columns))
        self._driven = np.zeros(2)

    def drive(self, word_lines: Bools) -> None:
        """One clock with the word lines given on."""
        self._on_clk += word_lines
        self._pending = True

    def _collect(self) -> None:
        self._charge[self._bank] += self.currents_ua @ self._on_clk
        self._driven[self._bank] += self._on_clk.sum()
        self._on_clk[:] = 0.0


class ValueArray(CellArray):
    """Array 2: phi pulses drive columns; charge is (subtiles, lanes), each array apart."""

    def __init__(
        self,
        *,
        subtiles: int,
        columns: int,
        lanes: int,
        currents: CellCurrents,
        age_clk: int = 0,
    ) -> None:
        super().__init__(
            subtiles=subtiles, columns=columns, lines=lanes, currents=currents, age_clk=age_clk
        )
        self._on_clk = np.zeros(subtiles * columns)
        self._charge = np.zeros((2, subtiles, lanes))
        self._driven = np.zeros((2, subtiles))

    def drive(self, on_clk: Floats) -> None:
        """One clock, of which each column is on for the share given."""
        self._on_clk += on_clk
        self._pending = True

    def _collect(self) -> None:
        on_clk = self._on_clk.reshape(self.subtiles, 1, self.columns)
        currents = self.currents_ua.reshape(self.subtiles, self.columns, self.lines)
        self._charge[self._bank] += np.matmul(on_clk, currents)[:, 0]
        self._driven[self._bank] += on_clk.sum(axis=(1, 2))
        self._on_clk[:] = 0.0
