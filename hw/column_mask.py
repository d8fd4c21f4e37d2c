"""Column mask: which columns take part in a query, for the charge-to-pulse converters."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from hw.params import HeadParams

__all__ = ["ColumnMask"]


class ColumnMask(Component):
    """Marks the valid columns. No stored level gives zero current, so the others must be masked.

    Columns fill in the pointer's order from a flushed window, so the valid ones are those before
    the pointer, or all of them once the window is full. The mask is formed from one flag per
    sub-tile and one per column position, not from a register per column.

    With ages, columns that are past their budget can be masked as well. That keeps the form of the
    mask: a sub-tile's columns are past it together, but for those that the pointer has rewritten
    in this lap, which are the ones before it. Only the columns that can be sinks, whose age is one
    of their own, are decided one by one.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    subtile, column, full : in
        The window's pointer and whether it is full.
    age_mask : In(1)
        Mask the columns past their budget. Only if ``params.age_bits``, like the next two.
    stale : in
        One bit per sub-tile: its columns are past their budget.
    lap_stale : In(1)
        The columns of the sub-tile under the pointer that are before it are so too.
    active_sinks : in
        Sinks: columns below this. Only if ``params.age_bits`` and ``params.sinks``, like the next.
    sink_stale : In(1)
        The sinks are past their budget.
    mask : out
        One bit per column; bit ``subtile * columns + column``.

    Timing
    ------
    Combinational (`latency_clk` is 0).

    """

    latency_clk = 0

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        ages = {"age_mask": In(1), "stale": In(params.subtiles), "lap_stale": In(1)}
        sinks = {"active_sinks": In(range(params.sinks + 1)), "sink_stale": In(1)}
        super().__init__(
            {
                "subtile": In(params.subtile_bits),
                "column": In(params.column_bits),
                "full": In(1),
                **(ages if params.age_bits else {}),
                **(sinks if params.age_bits and params.sinks else {}),
                "mask": Out(params.window),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the mask."""
        m = Module()
        p = self.params
        valid = Signal(p.subtiles)  # every column of the sub-tile is valid
        pointed = Signal(p.subtiles)  # the columns before the pointer are
        whole = Signal(p.subtiles)  # every column of the sub-tile takes part
        partial = Signal(p.subtiles)  # the columns before the pointer do
        before = Signal(p.columns)  # column positions before the pointer
        for subtile in range(p.subtiles):
            m.d.comb += [
                valid[subtile].eq(self.full | (self.subtile > subtile)),
                pointed[subtile].eq(self.subtile == subtile),
            ]
        for column in range(p.columns):
            m.d.comb += before[column].eq(self.column > column)
        m.d.comb += [whole.eq(valid), partial.eq(pointed)]
        if p.age_bits:
            masked = Signal(p.subtiles)
            m.d.comb += [
                masked.eq(Mux(self.age_mask, self.stale, 0)),
                whole.eq(valid & ~masked),
                partial.eq(pointed & ~Mux(self.lap_stale, masked, 0)),
            ]

        def flag(position: int, whole: Value, partial: Value) -> Value:
            subtile, column = divmod(position, p.columns)
            return whole[subtile] | (partial[subtile] & before[column])

        pinnable = p.sinks if p.age_bits else 0
        for position in range(p.window):
            taken = flag(position, whole, partial)
            if position < pinnable:
                pinned = flag(position, valid, pointed) & ~(self.age_mask & self.sink_stale)
                taken = Mux(self.active_sinks > position, pinned, taken)
            m.d.comb += self.mask[position].eq(taken)
        return m
