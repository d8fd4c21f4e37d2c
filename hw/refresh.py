"""Refresh: which column is rewritten next, and when."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from hw.params import HeadParams

__all__ = ["RefreshScheduler"]


class RefreshScheduler(Component):
    """Asks for one valid column after the other to be rewritten, one in every period.

    The refresh pointer runs over the valid columns, sinks included, in the order of columns: from
    0 to the last valid one, then from 0 again. A request waits until the sequencer has time for
    it. A period that ends while a request waits, or while its column is being rewritten, asks for
    nothing: requests do not pile up, and periods missed are not made up for.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    enable : In(1)
        Ask. Without it a waiting request is withdrawn, and a rewrite that has begun is finished.
    period : In(32)
        Clocks from one request to the next, at least; 1 or more.
    flush : In(1)
        The window is flushed: the request is withdrawn and the pointer returns to column 0. No
        rewrite may be under way, nor be taken in this clock.
    window_subtile, window_column, full : in
        The window's pointer, and whether it is full.
    empty : In(1)
        The window holds no token: nothing is asked for, and no period runs.
    request : Out(1)
        The column under the refresh pointer is to be rewritten. Stays until ``taken``.
    taken : In(1)
        The sequencer has begun to rewrite the column: key, then value.
    done : In(1)
        The column's value has been rewritten; the pointer moves on.
    subtile, column : out
        The refresh pointer; stable from ``request`` to ``done``.
    last : Out(1)
        No valid column follows the one under the pointer: it returns to column 0.

    Timing
    ------
    The first request comes ``period`` clocks after the first token was written, and the others in
    multiples of ``period`` from it. Outputs follow inputs after `latency_clk` clocks, but for
    ``last``, which is combinational in the window's pointer.

    """

    latency_clk = 1

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        super().__init__(
            {
                "enable": In(1),
                "period": In(32),
                "flush": In(1),
                "window_subtile": In(params.subtile_bits),
                "window_column": In(params.column_bits),
                "full": In(1),
                "empty": In(1),
                "request": Out(1),
                "taken": In(1),
                "done": In(1),
                "subtile": Out(params.subtile_bits),
                "column": Out(params.column_bits),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the scheduler."""
        m = Module()
        p = self.params
        elapsed = Signal(32, init=1)  # clocks of the period, this one included
        due = Signal()
        rewriting = Signal()
        m.d.comb += due.eq(elapsed >= self.period)
        with m.If(self.flush | self.empty | ~self.enable):
            m.d.sync += [elapsed.eq(1), self.request.eq(0)]
        with m.Else():
            m.d.sync += elapsed.eq(Mux(due, 1, elapsed + 1))
            with m.If(self.taken):
                m.d.sync += self.request.eq(0)
            with m.Elif(due & ~rewriting):
                m.d.sync += self.request.eq(1)

        with m.If(self.flush | self.done):
            m.d.sync += rewriting.eq(0)
        with m.Elif(self.taken):
            m.d.sync += rewriting.eq(1)

        # The column after this one, if there is one.
        subtile = Signal(p.subtile_bits)
        column = Signal(p.column_bits)
        with m.If(self.column == p.columns - 1):
            m.d.comb += [subtile.eq(self.subtile + 1), column.eq(0)]
        with m.Else():
            m.d.comb += [subtile.eq(self.subtile), column.eq(self.column + 1)]
        end = (self.subtile == p.subtiles - 1) & (self.column == p.columns - 1)
        next_column = Cat(column, subtile)
        m.d.comb += self.last.eq(
            Mux(self.full, end, next_column == Cat(self.window_column, self.window_subtile))
        )
        with m.If(self.flush | (self.done & self.last)):
            m.d.sync += [self.subtile.eq(0), self.column.eq(0)]
        with m.Elif(self.done):
            m.d.sync += [self.subtile.eq(subtile), self.column.eq(column)]
        return m
