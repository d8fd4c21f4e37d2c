"""Ages: how long ago the tokens in the window were written, for charge that fades."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, ValueLike
from amaranth.lib.wiring import Component, In, Out

from hw.params import HeadParams

__all__ = ["Ages"]


class Ages(Component):
    """Age of each sub-tile's oldest column, in ticks, and whether it is past the budget.

    A counter per sub-tile, not per column, so an age is a bound: no valid column of the sub-tile
    is older. Sinks, which stay while the columns around them are rewritten, have a counter of
    their own and are left out of their sub-tile's.

    - The first column written to an empty sub-tile begins its age at zero.
    - When the pointer has rewritten a sub-tile, its age becomes the time since the first of these
      writes, the *lap*. Meanwhile the columns before the pointer are no older than the lap.
    - When a refresh sweep has rewritten a sub-tile's valid columns, or the sinks, their age
      becomes the time since the first of these, unless it is less already.

    A tick comes every ``age_tick`` + 1 clocks, whatever else happens. An age is the number of
    ticks since a write, so it differs from the time by less than a tick either way: columns that
    are called stale are past the budget, or their bound is, and columns that are a tick or more
    past it are called stale. Counters saturate; a budget of all ones is never passed.

    A column's age begins with ``advance`` or ``refreshed``, when its value has been written. Its
    key was written shortly before, within the latency of a packet.

    Parameters
    ----------
    params
        Head parameters, ``age_bits`` not 0.

    Members
    -------
    age_tick : In(32)
        Clocks between ticks, less one.
    budget : in
        Largest age that is not stale, in ticks.
    hold : In(1)
        Keep ``stale``, ``lap_stale`` and ``sink_stale`` as they are in the first clock of this,
        for the length of a conversion. The pointer must not move meanwhile.
    advance, flush : In(1)
        As the window is given them.
    subtile, column, occupancy, full : in
        From the window.
    active_sinks, wrap_subtile, wrap_column : in
        From the window. Only if ``params.sinks``.
    refreshed : In(1)
        The column under the refresh pointer has been rewritten; never together with ``advance``.
        Only if ``params.refresh``, like the next two.
    refresh_subtile, refresh_column : in
        The refresh pointer.
    refresh_last : In(1)
        No valid column follows the one under the refresh pointer.
    stale : out
        One bit per sub-tile: its age is past the budget. Sinks are not meant.
    lap_stale : Out(1)
        The lap is past the budget: with ``stale`` of the sub-tile under the pointer, its columns
        before the pointer are stale too.
    sink_stale : Out(1)
        The sinks' age is past the budget. Only if ``params.sinks``.
    any_stale : Out(1)
        Some valid column is past its budget; not held.
    oldest_age : out
        Largest age in the window, 0 if it is empty; not held.

    Timing
    ------
    Ages follow writes, rewrites and flushes after `latency_clk` clocks, and ``oldest_age`` follows
    ages after two more. The rest is combinational.

    """

    latency_clk = 1

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        sinks = {
            "active_sinks": In(range(params.sinks + 1)),
            "wrap_subtile": In(params.subtile_bits),
            "wrap_column": In(params.column_bits),
        }
        refresh = {
            "refreshed": In(1),
            "refresh_subtile": In(params.subtile_bits),
            "refresh_column": In(params.column_bits),
            "refresh_last": In(1),
        }
        super().__init__(
            {
                "age_tick": In(32),
                "budget": In(params.age_bits),
                "hold": In(1),
                "advance": In(1),
                "flush": In(1),
                "subtile": In(params.subtile_bits),
                "column": In(params.column_bits),
                "occupancy": In(range(params.window + 1)),
                "full": In(1),
                **(sinks if params.sinks else {}),
                **(refresh if params.refresh else {}),
                "stale": Out(params.subtiles),
                "lap_stale": Out(1),
                **({"sink_stale": Out(1)} if params.sinks else {}),
                "any_stale": Out(1),
                "oldest_age": Out(params.age_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the ages."""
        m = Module()
        p = self.params
        ages = [Signal(p.age_bits, name=f"age_{subtile}") for subtile in range(p.subtiles)]
        held = Signal(p.subtiles)  # the sub-tile holds a token that is no sink
        lap = Signal(p.age_bits)  # since the pointer's first write to its sub-tile in this lap
        tick, aged = self._clock(m)

        written = Signal()  # a column that is no sink
        first = Signal()  # the first such column of its sub-tile
        lap_next = Signal(p.age_bits)
        m.d.comb += [
            written.eq(self.advance & (self.occupancy >= (self.active_sinks if p.sinks else 0))),
            first.eq(self.column == self._first_column(self.subtile)),
            lap_next.eq(Mux(written & first, 0, aged(lap))),
        ]
        with m.If(tick | (written & first)):
            m.d.sync += lap.eq(lap_next)

        # A sub-tile's age becomes the lap's, or the sweep's.
        group = Signal(p.subtile_bits)
        takes = Signal()
        age_next = Signal(p.age_bits)
        m.d.comb += [
            group.eq(self.subtile),
            takes.eq(written & ((self.column == p.columns - 1) | (first & ~self.full))),
            age_next.eq(lap_next),
        ]
        swept_sinks: ValueLike = 0
        sweep_next: ValueLike = 0
        younger: ValueLike = 1
        if p.refresh:
            swept, swept_sinks, sweep_next = self._sweep(m, tick, aged)
            with m.If(~self.advance):
                m.d.comb += [
                    group.eq(self.refresh_subtile),
                    takes.eq(swept),
                    age_next.eq(sweep_next),
                ]
            # Either may have begun after the other, which then ended first.
            younger = age_next <= Array(ages)[group]
        for subtile, age in enumerate(ages):
            with m.If(self.flush):
                m.d.sync += [age.eq(0), held[subtile].eq(0)]
            with m.Else():
                with m.If(written & (self.subtile == subtile)):
                    m.d.sync += held[subtile].eq(1)
                with m.If(takes & younger & (group == subtile)):
                    m.d.sync += age.eq(age_next)
                with m.Elif(tick & held[subtile]):
                    m.d.sync += age.eq(aged(age))

        counters = list(ages)
        if p.sinks:
            sink_age = Signal(p.age_bits)  # since the write of column 0
            with m.If(self.flush | (self.occupancy == 0) | (self.active_sinks == 0)):
                m.d.sync += sink_age.eq(0)
            with m.Elif(tick | swept_sinks):
                m.d.sync += sink_age.eq(Mux(swept_sinks, sweep_next, aged(sink_age)))
            counters.append(sink_age)
        self._compare(m, counters, lap)
        self._show_oldest(m, counters, tick)
        return m

    def _clock(self, m: Module) -> tuple[Value, Callable[[Value], Value]]:
        """Add the clock of the ages; returns its tick, and what becomes of an age in this clock."""
        elapsed = Signal(32)
        tick = Signal()
        # A period that is shortened below what has elapsed ends at once.
        m.d.comb += tick.eq(elapsed >= self.age_tick)
        m.d.sync += elapsed.eq(Mux(tick, 0, elapsed + 1))
        return tick, lambda age: (age + (tick & ~age.all()))[: self.params.age_bits]

    def _first_column(self, subtile: Value) -> ValueLike:
        """First column of a sub-tile that is no sink, unless all are."""
        if not self.params.sinks:
            return 0
        return Mux(subtile == self.wrap_subtile, self.wrap_column, 0)

    def _sweep(
        self, m: Module, tick: Value, aged: Callable[[Value], Value]
    ) -> tuple[Value, ValueLike, Value]:
        """Add the sweep's age; returns whether a sub-tile or the sinks take it, and its value."""
        p = self.params
        sweep = Signal(p.age_bits)  # since the first rewrite of this sub-tile, or of the sinks
        sweep_next = Signal(p.age_bits)
        pinned = Signal()  # a sink is rewritten
        starts = Signal()
        swept = Signal()
        swept_sinks = Signal()
        last_column = self.refresh_column == p.columns - 1
        m.d.comb += [
            starts.eq(self.refresh_column == self._first_column(self.refresh_subtile)),
            swept.eq(self.refreshed & ~pinned & (last_column | self.refresh_last)),
            sweep_next.eq(Mux(self.refreshed & starts, 0, aged(sweep))),
        ]
        with m.If(tick | (self.refreshed & starts)):
            m.d.sync += sweep.eq(sweep_next)
        if p.sinks:
            here = Cat(self.refresh_column, self.refresh_subtile)
            wrap = Cat(self.wrap_column, self.wrap_subtile)
            after = Signal(len(here))  # the column after it
            m.d.comb += [
                pinned.eq(here < wrap),
                after.eq(here + 1),
                swept_sinks.eq(self.refreshed & pinned & ((after == wrap) | self.refresh_last)),
            ]
            with m.If(last_column):
                m.d.comb += [
                    after[: p.column_bits].eq(0),
                    after[p.column_bits :].eq(self.refresh_subtile + 1),
                ]
            with m.If(pinned):
                m.d.comb += starts.eq(here == 0)
        return swept, swept_sinks, sweep_next

    def _show_oldest(self, m: Module, counters: Sequence[Value], tick: Value) -> None:
        """Add two stages: the largest of each group, and the largest of these.

        Their clocks run only behind what may have changed an age.
        """
        events = tick | self.advance | self.flush
        if self.params.refresh:
            events |= self.refreshed
        moved = Signal(2)
        m.d.sync += moved.eq(Cat(events, moved))
        size = math.isqrt(len(counters) - 1) + 1
        largest = []
        for first in range(0, len(counters), size):
            group = Signal(self.params.age_bits, name=f"oldest_from_{first}")
            with m.If(moved[0]):
                m.d.sync += group.eq(_largest(m, counters[first : first + size]))
            largest.append(group)
        with m.If(moved[1]):
            m.d.sync += self.oldest_age.eq(_largest(m, largest))

    def _compare(self, m: Module, counters: Sequence[Value], lap: Value) -> None:
        """Add the comparisons with the budget."""
        p = self.params
        now = Signal(len(counters) + 1)
        shown = Signal.like(now)
        kept = Signal.like(now)
        holding = Signal()
        m.d.comb += [
            now.eq(Cat(*(age > self.budget for age in (*counters, lap)))),
            shown.eq(Mux(holding, kept, now)),
            self.stale.eq(shown),
            self.lap_stale.eq(shown[-1]),
            self.any_stale.eq(now[:-1].any()),
        ]
        m.d.sync += [kept.eq(shown), holding.eq(self.hold & ~self.flush)]
        if p.sinks:
            m.d.comb += self.sink_stale.eq(shown[p.subtiles])


def _largest(m: Module, values: Sequence[Value]) -> Value:
    """Largest of the values: bit by bit from the top, those that fall behind drop out."""
    bits = len(values[0])
    largest = Signal(bits)
    leading: Value = Cat(*(True for _ in values))
    for bit in reversed(range(bits)):
        ones = Signal(len(values), name=f"ones_{bit}")
        m.d.comb += [
            ones.eq(leading & Cat(*(value[bit] for value in values))),
            largest[bit].eq(ones.any()),
        ]
        leading = Mux(ones.any(), ones, leading)
    return largest
