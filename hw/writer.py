"""K/V writer: column select lines and DAC codes of the column being written."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out

from hw.params import HeadParams

__all__ = ["Writer"]


class Writer(Component):
    """Selects the column under the write pointer, one-hot, while a write strobe is high.

    The select lines are predecoded, one set over sub-tiles and one over columns of a sub-tile: the
    arrays' write word line is the AND of the two. They are low when nothing is written, so that a
    pointer that moves disturbs no cell.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    subtile, column : in
        The window's pointer; stable while a strobe is high.
    k_strobe, v_strobe : In(1)
        Array 1 or array 2 is being written.
    subtile_select, column_select : out
        One-hot select lines.

    Timing
    ------
    Combinational (`latency_clk` is 0): the lines are high exactly while a strobe is.

    """

    latency_clk = 0

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        super().__init__(
            {
                "subtile": In(params.subtile_bits),
                "column": In(params.column_bits),
                "k_strobe": In(1),
                "v_strobe": In(1),
                "subtile_select": Out(params.subtiles),
                "column_select": Out(params.columns),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the writer."""
        m = Module()
        p = self.params
        writing = self.k_strobe | self.v_strobe
        for subtile in range(p.subtiles):
            m.d.comb += self.subtile_select[subtile].eq(writing & (self.subtile == subtile))
        for column in range(p.columns):
            m.d.comb += self.column_select[column].eq(writing & (self.column == column))
        return m
