"""Emulated arrays and converters: the integers of `boards.emulator`, computed from scratch."""

from __future__ import annotations

from collections.abc import Sequence

from boards.params import EmulatorParams

__all__ = ["ArrayReference"]


class ArrayReference:
    """Both arrays of one head in integers; columns are numbered through the window.

    Parameters
    ----------
    params
        Emulator parameters.
    """

    def __init__(self, params: EmulatorParams) -> None:
        self.params = params
        head = params.head
        #: Current of every cell, column by column, in units of 2**-current_fraction µA.
        self._keys = [[params.currents[0]] * head.rows for _ in range(head.window)]
        self._values = [[params.currents[0]] * head.lanes for _ in range(head.window)]

    def write_key(self, column: int, codes: Sequence[int]) -> None:
        """Store a column of array 1."""
        self._keys[column] = [self.params.currents[code] for code in codes]

    def write_value(self, column: int, codes: Sequence[int]) -> None:
        """Store a column of array 2."""
        self._values[column] = [self.params.currents[code] for code in codes]

    def score(self, column: int, q_codes: Sequence[int]) -> int:
        """Charge of a column, in units of a current times a clock."""
        return sum(map(int.__mul__, q_codes, self._keys[column]))

    def phi(self, charge: int, s_level: int) -> int:
        """Pulse of a column, in units of 2**-phi_fraction clock: nearest, halves upwards."""
        p = self.params
        s_sat = s_level << p.current_fraction
        if charge <= 0:
            return 0
        return min(((charge << p.phi_fraction + 1) // s_sat + 1) >> 1, p.phi_max)

    def output(self, subtile: int, phis: Sequence[int]) -> list[int]:
        """Charges of a sub-tile's lanes from the phi pulses of its columns."""
        head = self.params.head
        at = subtile * head.columns
        charges = [0] * head.lanes
        for column, phi in enumerate(phis, at):
            if phi:
                currents = self._values[column]
                charges = [
                    charge + phi * current
                    for charge, current in zip(charges, currents, strict=True)
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
