"""Emulated arrays and converters: the integers of `boards.emulator`, computed from scratch."""

from __future__ import annotations

from collections.abc import Sequence

from boards.params import EmulatorParams

__all__ = ["ArrayReference"]


class ArrayReference:
    """Both arrays of one head in integers; columns are numbered through the window.

    Where charge leaks, ``now`` is the time in steps of age: of a write, when the column takes its
    codes; of a charge, when the integrators are last reset before it.

    Parameters
    ----------
    params
        Emulator parameters.
    """

    def __init__(self, params: EmulatorParams) -> None:
        self.params = params
        head = params.head
        # Codes and birth of every column.
        self._keys = [([0] * head.rows, 0) for _ in range(head.window)]
        self._values = [([0] * head.lanes, 0) for _ in range(head.window)]

    def write_key(self, column: int, codes: Sequence[int], now: int = 0) -> None:
        """Store a column of array 1."""
        self._keys[column] = (list(codes), now)

    def write_value(self, column: int, codes: Sequence[int], now: int = 0) -> None:
        """Store a column of array 2."""
        self._values[column] = (list(codes), now)

    def _currents(self, born: int, now: int) -> tuple[int, ...]:
        """Currents of all levels of a column."""
        table = self.params.table
        return table[min(now - born, len(table) - 1)]

    def score(self, column: int, q_codes: Sequence[int], now: int = 0) -> int:
        """Charge of a column, in units of a current times a clock."""
        codes, born = self._keys[column]
        currents = self._currents(born, now)
        return sum(q * currents[code] for q, code in zip(q_codes, codes, strict=True))

    def phi(self, charge: int, s_level: int) -> int:
        """Pulse of a column, in units of 2**-phi_fraction clock: nearest, halves upwards."""
        p = self.params
        s_sat = s_level << p.current_fraction
        if charge <= 0:
            return 0
        return min(((charge << p.phi_fraction + 1) // s_sat + 1) >> 1, p.phi_max)

    def output(self, subtile: int, phis: Sequence[int], now: int = 0) -> list[int]:
        """Charges of a sub-tile's lanes from the phi pulses of its columns."""
        head = self.params.head
        at = subtile * head.columns
        charges = [0] * head.lanes
        for column, phi in enumerate(phis, at):
            if phi:
                codes, born = self._values[column]
                steps = [phi * current for current in self._currents(born, now)]
                charges = [
                    charge + steps[code] for charge, code in zip(charges, codes, strict=True)
                ]
        return charges

    def count(self, charge: int, a_level: int) -> int:
        """Signed count of a lane's charge: nearest, halves away from zero."""
        p, head = self.params, self.params.head
        twice = 2 * abs(charge) * head.count_max
        full = (p.q_max * a_level) << p.charge_fraction  # times count_max
        count = min((twice + full) // (2 * full), head.count_max)
        return -count if charge < 0 else count

    def query(
        self, q_codes: Sequence[int], mask: Sequence[bool], *, s_level: int, a_level: int
    ) -> list[list[int]]:
        """Signed counts of every lane, sub-tile by sub-tile.

        Parameters
        ----------
        q_codes
            Clocks that each word line is on.
        mask
            Columns that take part.
        s_level, a_level
            S_sat and A_sat in µA, 1..255.
        """
        head = self.params.head
        phis = [
            self.phi(self.score(column, q_codes), s_level) if taking_part else 0
            for column, taking_part in enumerate(mask)
        ]
        return [
            [
                self.count(charge, a_level)
                for charge in self.output(
                    subtile, phis[subtile * head.columns : (subtile + 1) * head.columns]
                )
            ]
            for subtile in range(head.subtiles)
        ]
