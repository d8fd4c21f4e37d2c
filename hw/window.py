"""Window: where the next token is written, and how many tokens are valid."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from hw.params import HeadParams

__all__ = ["Window"]


class Window(Component):
    """Write pointer over sub-tiles and columns, and occupancy.

    The pointer runs over the columns of a sub-tile, then to the next sub-tile, and wraps, so that
    the newest token overwrites the oldest. Occupancy counts to the window's size and stays.

    Sinks are the first tokens of a sequence, which stay: the pointer wraps to the column after
    them. How many there are can change in any clock in which the window is empty; a sequence keeps
    the number it began with, which is that of the clock of its first ``advance``.

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
    sinks : In(range(params.sinks + 1))
        Sinks of the next sequence. Only if ``params.sinks``, like the next two.
    active_sinks : out
        Sinks of this sequence, of the next one if the window is empty: columns 0 ..
        ``active_sinks`` - 1, once they are written.
    wrap_subtile, wrap_column : out
        Column that the pointer wraps to: the first that is no sink.
    subtile, column : out
        Column that the next token is written to.
    occupancy : out
        Valid tokens, 0..window.
    full : Out(1)
        Occupancy equals the window.

    Timing
    ------
    Outputs follow ``advance`` and ``flush`` after `latency_clk` clocks. While the window is empty,
    ``active_sinks`` and the column to wrap to follow ``sinks`` at once.

    """

    latency_clk = 1

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        sinks = {
            "sinks": In(range(params.sinks + 1)),
            "active_sinks": Out(range(params.sinks + 1)),
            "wrap_subtile": Out(params.subtile_bits),
            "wrap_column": Out(params.column_bits),
        }
        super().__init__(
            {
                "advance": In(1),
                "flush": In(1),
                **(sinks if params.sinks else {}),
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
        wrap_subtile, wrap_column = self._wrap(m) if p.sinks else (0, 0)
        m.d.comb += self.full.eq(self.occupancy == p.window)
        with m.If(self.flush):
            m.d.sync += [self.subtile.eq(0), self.column.eq(0), self.occupancy.eq(0)]
        with m.Elif(self.advance):
            with m.If(~self.full):
                m.d.sync += self.occupancy.eq(self.occupancy + 1)
            with m.If(self.column == p.columns - 1):
                m.d.sync += self.column.eq(0)
                with m.If(self.subtile == p.subtiles - 1):
                    m.d.sync += [self.subtile.eq(wrap_subtile), self.column.eq(wrap_column)]
                with m.Else():
                    m.d.sync += self.subtile.eq(self.subtile + 1)
            with m.Else():
                m.d.sync += self.column.eq(self.column + 1)
        return m

    def _wrap(self, m: Module) -> tuple[object, object]:
        """Add the sinks; returns sub-tile and column of the first column that is none."""
        p = self.params
        kept = Signal.like(self.active_sinks)
        m.d.comb += self.active_sinks.eq(Mux(self.occupancy == 0, self.sinks, kept))
        m.d.sync += kept.eq(self.active_sinks)
        if p.columns == 1 << p.column_bits:
            m.d.comb += [
                self.wrap_column.eq(self.active_sinks),
                self.wrap_subtile.eq(self.active_sinks >> p.column_bits),
            ]
        else:
            # A table rather than a divider.
            with m.Switch(self.active_sinks):
                for sinks in range(p.sinks + 1):
                    with m.Case(sinks):
                        subtile, column = divmod(sinks, p.columns)
                        m.d.comb += [self.wrap_subtile.eq(subtile), self.wrap_column.eq(column)]
        return self.wrap_subtile, self.wrap_column
