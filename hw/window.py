"""Window: where the next token is written, and how many tokens are valid."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out

from hw.params import HeadParams

__all__ = ["Window"]


class Window(Component):
    """Write pointer over sub-tiles and columns, and occupancy.

    The pointer runs over the columns of a sub-tile, then to the next sub-tile, and wraps, so that
    the newest token overwrites the oldest. Occupancy counts to the window's size and stays.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    advance : In(1)
        The column under the pointer has been written.
    flush : In(1)
        Forget every token; wins over ``advance``.
    subtile, column : out
        Column that the next token is written to.
    occupancy : out
        Valid tokens, 0..window.
    full : Out(1)
        Occupancy equals the window.

    Timing
    ------
    Outputs follow ``advance`` and ``flush`` after `latency_clk` clocks.

    """

    latency_clk = 1

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        super().__init__(
            {
                "advance": In(1),
                "flush": In(1),
                "subtile": Out(params.subtile_bits),
                "column": Out(params.column_bits),
                "occupancy": Out(range(params.window + 1)),
                "full": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the window."""
        m = Module()
        p = self.params
        m.d.comb += self.full.eq(self.occupancy == p.window)
        with m.If(self.flush):
            m.d.sync += [self.subtile.eq(0), self.column.eq(0), self.occupancy.eq(0)]
        with m.Elif(self.advance):
            with m.If(~self.full):
                m.d.sync += self.occupancy.eq(self.occupancy + 1)
            with m.If(self.column == p.columns - 1):
                m.d.sync += self.column.eq(0)
                with m.If(self.subtile == p.subtiles - 1):
                    m.d.sync += self.subtile.eq(0)
                with m.Else():
                    m.d.sync += self.subtile.eq(self.subtile + 1)
            with m.Else():
                m.d.sync += self.column.eq(self.column + 1)
        return m
