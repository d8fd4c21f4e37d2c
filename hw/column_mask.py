"""Column mask: which columns hold a token, for the charge-to-pulse converters."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from hw.params import HeadParams

__all__ = ["ColumnMask"]


class ColumnMask(Component):
    """Marks the valid columns. No stored level gives zero current, so the others must be masked.

    Columns fill in the pointer's order from a flushed window, so the valid ones are those before
    the pointer, or all of them once the window is full. The mask is formed from one flag per
    sub-tile and one per column position, not from a register per column.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    subtile, column, full : in
        The window's pointer and whether it is full.
    mask : out
        One bit per column; bit ``subtile * columns + column``.

    Timing
    ------
    Combinational (`latency_clk` is 0).

    """

    latency_clk = 0

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        super().__init__(
            {
                "subtile": In(params.subtile_bits),
                "column": In(params.column_bits),
                "full": In(1),
                "mask": Out(params.window),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the mask."""
        m = Module()
        p = self.params
        whole = Signal(p.subtiles)  # every column of the sub-tile is valid
        partial = Signal(p.subtiles)  # the columns before the pointer are
        before = Signal(p.columns)  # column positions before the pointer
        for subtile in range(p.subtiles):
            m.d.comb += [
                whole[subtile].eq(self.full | (self.subtile > subtile)),
                partial[subtile].eq(self.subtile == subtile),
            ]
        for column in range(p.columns):
            m.d.comb += before[column].eq(self.column > column)
        for subtile in range(p.subtiles):
            for column in range(p.columns):
                m.d.comb += self.mask[subtile * p.columns + column].eq(
                    whole[subtile] | (partial[subtile] & before[column])
                )
        return m
