"""Proofs of the window: pointer, mask, ages, refresh pointer, and the store of codes.

The method is that of `synth.prove`: a miter holds the design, an environment that can only behave
legally, and a plain specification beside it; each property is proved by induction from any
contents of the design's registers, binding from the first flush on, and some from reset as well.

- *Window and mask.* The specification remembers which columns were written since the flush. Sinks
  are an input that may change in every clock; that those of a sequence stay is proved, not assumed.
- *Ages.* The specification counts the age of every column, in ticks that come at will. No column
  may be past a budget, chosen at will too, without being called stale.
- *Refresh.* The scheduler beside a window, a period chosen at will, and a sequencer that takes and
  ends rewrites when it likes.
- *Code store.* Every word is compared with what was written last.

Sizes are reduced but for the window's. Other sizes differ in the number of sub-tiles, which enter
symmetrically, and in where sinks end: none, within a sub-tile, with one, in the last one, all
columns but one. The sizes cover these, since the number of sinks is any up to the largest. Widths
of ages enter through saturation only.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from hw.params import HeadParams
from hw.presets import preset
from synth import prove
from synth.prove import Bug, Miter, Row
from synth.verilog import component_rtlil
from synth.yosys import run_yosys

__all__ = [
    "AGE_BUGS",
    "AGE_SIZES",
    "FULL_SIZES",
    "REFRESH_BUGS",
    "REFRESH_SIZES",
    "STORE_BUGS",
    "STORE_SIZES",
    "WINDOW_BUGS",
    "WINDOW_SIZES",
    "AgesMiter",
    "CodeStoreMiter",
    "RefreshMiter",
    "WindowMiter",
    "prove_window",
    "window_properties",
]


def _size(subtiles: int, columns: int, sinks: int, **fields: Any) -> HeadParams:
    return HeadParams(
        subtiles=subtiles, columns=columns, sinks=sinks, rows=1, lanes=1, **fields
    )  # fmt: skip


#: Sizes the window and its mask are proved at.
WINDOW_SIZES = (
    _size(3, 5, 0),
    _size(2, 4, 0),
    _size(3, 5, 11, age_bits=2),
    _size(2, 4, 7, age_bits=2),
    _size(1, 3, 2, age_bits=2),
)
#: Large sizes, the window and its mask being simple enough to be proved there too: the default
#: window, bare and with sinks; and with ages, for which a thousand columns are too many.
FULL_SIZES = (
    HeadParams(),
    dataclasses.replace(preset("default"), age_bits=0),
    _size(6, 16, 40, age_bits=8),
)
#: Sizes the ages are proved at.
AGE_SIZES = (
    _size(3, 2, 0, age_bits=3),
    _size(3, 3, 8, age_bits=3, refresh=True),
    _size(2, 4, 5, age_bits=2, refresh=True),
    _size(1, 3, 2, age_bits=3, refresh=True),
    _size(2, 3, 0, age_bits=3, refresh=True),
)
#: Sizes the refresh scheduler is proved at.
REFRESH_SIZES = (_size(3, 3, 4, refresh=True), _size(1, 4, 0, refresh=True))
#: Sizes the code store is proved at.
STORE_SIZES = (
    HeadParams(subtiles=3, columns=3, rows=2, lanes=1, kv_bits=1, refresh=True),
    HeadParams(subtiles=1, columns=3, rows=1, lanes=2, kv_bits=2, refresh=True),
)

#: Bugs that the window's proof must find, at any size.
WINDOW_BUGS = (
    Bug(
        name="window: full one too early",
        component="Window",
        old="self.occupancy == p.window",
        new="self.occupancy == p.window - 1",
    ),
    Bug(
        name="window: a flush leaves the column",
        component="Window",
        old="self.subtile.eq(0), self.column.eq(0), self.occupancy.eq(0)",
        new="self.subtile.eq(0), self.occupancy.eq(0)",
    ),
    Bug(
        name="window: wraps one sub-tile early",
        component="Window",
        old="self.subtile == p.subtiles - 1",
        new="self.subtile == p.subtiles - 2",
    ),
    Bug(
        name="window: last column skipped",
        component="Window",
        old="self.column == p.columns - 1",
        new="self.column == p.columns - 2",
    ),
    Bug(
        name="mask: column under the pointer included",
        component="ColumnMask",
        old="self.column > column",
        new="self.column >= column",
    ),
    Bug(
        name="mask: a full window not honoured",
        component="ColumnMask",
        old="self.full | (self.subtile > subtile)",
        new="self.subtile > subtile",
    ),
)
#: Further ones, with sinks and ages.
SINK_BUGS = (
    Bug(
        name="window: sinks are overwritten",
        component="Window",
        old="[self.subtile.eq(wrap_subtile), self.column.eq(wrap_column)]",
        new="[self.subtile.eq(wrap_subtile)]",
    ),
    Bug(
        name="window: whole sub-tiles of sinks are overwritten",
        component="Window",
        old="[self.subtile.eq(wrap_subtile), self.column.eq(wrap_column)]",
        new="[self.subtile.eq(0), self.column.eq(wrap_column)]",
    ),
    Bug(
        name="window: sinks change during a sequence",
        component="Window",
        old="Mux(self.occupancy == 0, self.sinks, kept)",
        new="Mux(self.occupancy <= 1, self.sinks, kept)",
    ),
    Bug(
        name="mask: a stale sub-tile not masked",
        component="ColumnMask",
        old="whole.eq(valid & ~masked)",
        new="whole.eq(valid)",
    ),
    Bug(
        name="mask: the lap not masked",
        component="ColumnMask",
        old="pointed & ~Mux(self.lap_stale, masked, 0)",
        new="pointed",
    ),
    Bug(
        name="mask: the lap masked with the rest",
        component="ColumnMask",
        old="Mux(self.lap_stale, masked, 0)",
        new="masked",
    ),
    Bug(
        name="mask: the column after the sinks taken for one",
        component="ColumnMask",
        old="self.active_sinks > position",
        new="self.active_sinks >= position",
    ),
    Bug(
        name="mask: sinks masked for ever",
        component="ColumnMask",
        old="self.age_mask & self.sink_stale",
        new="self.sink_stale",
    ),
)
#: Bugs that the ages' proof must find.
AGE_BUGS = (
    Bug(
        name="ages: counters wrap around",
        component="Ages",
        old="tick & ~age.all()",
        new="tick",
    ),
    Bug(
        name="ages: a lap begins with every column",
        component="Ages",
        old="lap_next.eq(Mux(written & first, 0, aged(lap)))",
        new="lap_next.eq(Mux(written, 0, aged(lap)))",
    ),
    Bug(
        name="ages: a sub-tile takes the lap's age one column early",
        component="Ages",
        old="written & ((self.column == p.columns - 1)",
        new="written & ((self.column == p.columns - 2)",
    ),
    Bug(
        name="ages: an age equal to the budget passes for one past it",
        component="Ages",
        old="age > self.budget",
        new="age > self.budget + 1",
    ),
    Bug(
        name="ages: a tick is lost when the lap is taken over",
        component="Ages",
        old="age_next.eq(lap_next),",
        new="age_next.eq(lap & lap_next),",
    ),
    Bug(
        name="ages: held for a clock only",
        component="Ages",
        old="[kept.eq(shown), holding.eq(self.hold & ~self.flush)]",
        new="[kept.eq(now), holding.eq(self.hold & ~self.flush)]",
    ),
    Bug(
        name="ages: the oldest is the youngest",
        component="Ages",
        old="counters[first : first + size]",
        new="counters[first : first + 1]",
    ),
    Bug(
        name="ages: the oldest stays where it was while time passes",
        component="Ages",
        old="events = tick | self.advance | self.flush",
        new="events = self.advance | self.flush",
    ),
)
#: Further ones, with refresh.
SWEEP_BUGS = (
    Bug(
        name="ages: a sweep begins with every column",
        component="Ages",
        old="Mux(self.refreshed & starts, 0, aged(sweep))",
        new="Mux(self.refreshed, 0, aged(sweep))",
    ),
    Bug(
        name="ages: a sub-tile takes the sweep's age with any column",
        component="Ages",
        old="self.refreshed & ~pinned & (last_column | self.refresh_last)",
        new="self.refreshed & ~pinned",
    ),
    Bug(
        name="ages: lap taken though the sweep's is older",
        component="Ages",
        old="group.eq(self.refresh_subtile)",
        new="group.eq(self.subtile)",
    ),
)
#: Further ones, with sinks.
SINK_AGE_BUGS = (
    Bug(
        name="ages: the column after the sinks counts as one",
        component="Ages",
        old="self.occupancy >= (self.active_sinks",
        new="self.occupancy > (self.active_sinks",
    ),
    Bug(
        name="ages: the sinks' age starts with every write",
        component="Ages",
        old="self.flush | (self.occupancy == 0) |",
        new="self.flush | self.advance |",
    ),
    Bug(
        name="ages: the sinks' sweep ends one early",
        component="Ages",
        old="(after == wrap) | self.refresh_last",
        new="(after >= 1)",
    ),
    Bug(
        name="ages: the sinks' sweep begins with every sink",
        component="Ages",
        old="starts.eq(here == 0)",
        new="starts.eq(1)",
    ),
)
#: Bugs that the refresh scheduler's proof must find.
REFRESH_BUGS = (
    Bug(
        name="refresh: the sweep runs past the last valid column",
        component="RefreshScheduler",
        old="next_column == Cat(self.window_column, self.window_subtile)",
        new="0",
    ),
    Bug(
        name="refresh: the sweep of a full window goes on",
        component="RefreshScheduler",
        old="Mux(self.full, end,",
        new="Mux(self.full, 0,",
    ),
    Bug(
        name="refresh: a request outlives its window",
        component="RefreshScheduler",
        old="[elapsed.eq(1), self.request.eq(0)]",
        new="[elapsed.eq(1)]",
    ),
    Bug(
        name="refresh: a flush leaves the pointer",
        component="RefreshScheduler",
        old="self.flush | (self.done & self.last)",
        new="self.done & self.last",
    ),
    Bug(
        name="refresh: the next period is one clock short",
        component="RefreshScheduler",
        old="elapsed.eq(Mux(due, 1, elapsed + 1))",
        new="elapsed.eq(Mux(due, 2, elapsed + 1))",
    ),
    Bug(
        name="refresh: a request is made up for",
        component="RefreshScheduler",
        old="due & ~rewriting",
        new="due & ~rewriting | self.done",
    ),
    Bug(
        name="refresh: asks while a column is rewritten",
        component="RefreshScheduler",
        old="due & ~rewriting",
        new="due",
    ),
    Bug(
        name="refresh: a request is dropped at the end of the period",
        component="RefreshScheduler",
        old="with m.Elif(due & ~rewriting):\n                m.d.sync += self.request.eq(1)",
        new="with m.Elif(due):\n                m.d.sync += self.request.eq(~self.request)",
    ),
)
#: Bugs that the code store's proof must find.
STORE_BUGS = (
    Bug(
        name="store: sub-tiles share their words",
        component="CodeStore",
        old="write_port.addr.eq(write_address)",
        new="write_port.addr.eq(write_address & 3)",
    ),
    Bug(
        name="store: read where it is written",
        component="CodeStore",
        old="read_port.addr.eq(read_address)",
        new="read_port.addr.eq(write_address)",
    ),
    Bug(
        name="store: what was read does not stay",
        component="CodeStore",
        old="read_port.en.eq(read)",
        new="read_port.en.eq(1)",
    ),
    Bug(
        name="store: values kept as keys are written",
        component="CodeStore",
        old='("values", self.v_codes, self.v_write,',
        new='("values", self.v_codes, self.k_write,',
    ),
)


def _implies(condition: Value, conclusion: Value) -> Value:
    return ~condition | conclusion


class _Sequence:
    """What a sequence of writes and flushes makes of the columns, one by one: the specification.

    Attributes
    ----------
    position
        Column written next.
    writes
        Writes since the flush, as far as they matter.
    written
        Columns written since the flush.
    sinks
        Sinks of this sequence.
    """

    def __init__(
        self, m: Module, params: HeadParams, advance: Value, flush: Value, setting: Value
    ) -> None:
        p = self.params = params
        self.position = Signal(range(p.window))
        self.writes = Signal(range(p.window + 1))
        self.written = Signal(p.window)
        self.pointed = Signal(p.window)  #: the column written next, one bit
        m.d.comb += [self.pointed[c].eq(self.position == c) for c in range(p.window)]
        begun_with = Signal(range(p.sinks + 1))
        self.sinks = Signal.like(begun_with)
        m.d.comb += self.sinks.eq(Mux(self.writes == 0, setting, begun_with))
        with m.If(flush):
            m.d.sync += [self.position.eq(0), self.writes.eq(0), self.written.eq(0)]
        with m.Elif(advance):
            m.d.sync += [
                begun_with.eq(self.sinks),
                self.position.eq(Mux(self.position == p.window - 1, self.sinks, self.position + 1)),
                self.writes.eq(Mux(self.writes == p.window, self.writes, self.writes + 1)),
                self.written.eq(self.written | self.pointed),
            ]

    def pinned(self, column: int) -> Value:
        """The column is a sink, once it is written."""
        return self.sinks > column

    def in_lap(self, column: int) -> Value:
        """The pointer is in the column's sub-tile, behind it."""
        p = self.params
        first = column - column % p.columns
        return (self.position > column) & (self.position < first + p.columns)

    @property
    def consistent(self) -> Value:
        """Invariant: a window that is not full has never wrapped, nor a full one left the rest."""
        p = self.params
        full = self.writes == p.window
        return (
            (self.position < p.window)
            & (self.sinks <= p.sinks)
            & (full | (self.writes == self.position))
            & _implies(full, self.position >= self.sinks)
            & Cat(*(bit == (self.writes > c) for c, bit in enumerate(self.written))).all()
        )


def _sink_setting(m: Module, params: HeadParams, free: Value) -> Value:
    """Any number of sinks that there can be."""
    setting = Signal(range(params.sinks + 1))
    m.d.comb += setting.eq(Mux(free > params.sinks, params.sinks, free))
    return setting


def _free_sinks(params: HeadParams) -> int:
    return max(1, params.sinks.bit_length())


def _connect_window(m: Module, window: Any, block: Any, *names: str) -> None:
    m.d.comb += [getattr(block, name).eq(getattr(window, name)) for name in names]


class WindowMiter(Component):
    """Window and column mask beside a specification that remembers what was written.

    Parameters
    ----------
    params
        Size of the window.
    bug
        Put into one of the two.

    Members
    -------
    advance, flush, sinks : in
        Free choices of the environment, in every clock.
    age_mask, stale, lap_stale, sink_stale : in
        The same; of no effect without ages.
    begun : Out(1)
        A flush has been; its initial value says whether reset counts as one.
    occupancy_ok : Out(1)
        Occupancy is the number of writes since the flush, or the window if that is less.
    pointer_ok : Out(1)
        Sub-tile and column are in range and are the column that the specification writes next:
        the one after the last, or after the window's last the first that is no sink.
    sinks_ok : Out(1)
        The sinks of a sequence stay, and none of them is written twice.
    mask_ok : Out(1)
        A column's mask bit is set if and only if it was written since the flush, and is not
        stale or stale columns are not masked. Which are is said by the sinks' bit for a sink, else
        by the sub-tile's, and by the lap's for those written since the pointer entered it.
    helper_ok : Out(1)
        Invariant that carries the induction.
    interesting : Out(1)
        The window is full, has wrapped and points into the middle; some columns are masked.

    """

    def __init__(self, params: HeadParams, bug: Bug | None = None) -> None:
        self.params = params
        self.bug = bug
        super().__init__(
            {
                "advance": In(1),
                "flush": In(1),
                "sinks": In(_free_sinks(params)),
                "age_mask": In(1),
                "stale": In(params.subtiles),
                "lap_stale": In(1),
                "sink_stale": In(1),
                "begun": Out(1),
                "occupancy_ok": Out(1),
                "pointer_ok": Out(1),
                "sinks_ok": Out(1),
                "mask_ok": Out(1),
                "helper_ok": Out(1),
                "interesting": Out(1),
            }
        )

    probes: Mapping[str, Sequence[str]] = {}

    def elaborate(self, platform: object) -> Module:
        """Build the miter."""
        m = Module()
        p = self.params
        window = m.submodules.window = prove._component("Window", self.bug)(p)
        mask = m.submodules.mask = prove._component("ColumnMask", self.bug)(p)
        setting = _sink_setting(m, p, self.sinks)
        m.d.comb += [window.advance.eq(self.advance), window.flush.eq(self.flush)]
        _connect_window(m, window, mask, "subtile", "column", "full")
        if p.sinks:
            m.d.comb += window.sinks.eq(setting)
        if p.age_bits:
            _connect_window(m, self, mask, "age_mask", "stale", "lap_stale")
            if p.sinks:
                _connect_window(m, window, mask, "active_sinks")
                m.d.comb += mask.sink_stale.eq(self.sink_stale)

        spec = _Sequence(m, p, self.advance, self.flush, setting)
        # Columns that the pointer has written since it entered their sub-tile.
        lap = Signal(p.window)
        leaves = Cat(*spec.pointed[p.columns - 1 :: p.columns])
        with m.If(self.flush):
            m.d.sync += [self.begun.eq(1), lap.eq(0)]
        with m.Elif(self.advance):
            m.d.sync += lap.eq(Mux(leaves.any(), 0, lap | spec.pointed))

        expected = Signal(p.window)
        laps = []
        for column in range(p.window):
            past = self.stale[column // p.columns] & (~lap[column] | self.lap_stale)
            past = Mux(spec.pinned(column), self.sink_stale, past)
            taken = ~(self.age_mask & past) if p.age_bits else Const(1)
            m.d.comb += expected[column].eq(spec.written[column] & taken)
            sink = spec.pinned(column) & spec.written[column]
            if p.age_bits:
                laps.append(sink | (lap[column] == spec.in_lap(column)))
        pointer = window.subtile * p.columns + window.column
        sinks_ok = ~(self.advance & (pointer < spec.sinks) & (spec.written & spec.pointed).any())
        if p.sinks:
            sinks_ok &= (window.active_sinks == spec.sinks) & (
                window.wrap_subtile * p.columns + window.wrap_column == spec.sinks
            )
        m.d.comb += [
            self.occupancy_ok.eq(
                ~self.begun
                | ((window.occupancy == spec.writes) & (window.full == (spec.writes == p.window)))
            ),
            self.pointer_ok.eq(
                ~self.begun
                | (
                    (window.subtile < p.subtiles)
                    & (window.column < p.columns)
                    & (pointer == spec.position)
                )
            ),
            self.sinks_ok.eq(~self.begun | sinks_ok),
            self.mask_ok.eq(~self.begun | (mask.mask == expected)),
            self.helper_ok.eq(~self.begun | (spec.consistent & Cat(*laps, 1).all())),
            self.interesting.eq(
                self.begun
                & window.full
                & (spec.position == p.window // 2)
                & (spec.sinks == p.sinks // 2)
                & (mask.mask.any() & ~mask.mask.all() if p.age_bits else 1)
            ),
        ]
        return m


class AgesMiter(Component):
    """Ages beside a window, and the age of every column.

    The environment writes, flushes and rewrites the column under the refresh pointer, one at a
    time, when it likes; it chooses in every clock whether a tick comes, the budget and whether to
    hold.

    Parameters
    ----------
    params
        Size of the window, with ages.
    bug
        Put into the ages.

    Members
    -------
    advance, flush, sinks, refreshed, ticks, budget, hold : in
        Free choices of the environment, as far as they are legal.
    probe_ages, probe_held, probe_lap, probe_sweep, probe_sink, probe_tick, probe_moved,
    probe_oldest : in
        What is inside the ages; connected after flattening.
    begun : Out(1)
        A flush has been.
    stale_ok : Out(1)
        Every column whose age is past the budget is called stale, unless that is held.
    empty_ok : Out(1)
        No sub-tile without a token is called stale, nor sinks that are not written; some column
        is if and only if the bits say so.
    hold_ok : Out(1)
        What is held is what was shown in the first clock.
    oldest_ok : Out(1)
        No column was older two clocks ago than the oldest age says.
    helper_ok : Out(1)
        Invariants that carry the induction: which counter bounds which columns.
    interesting : Out(1)
        A sub-tile is stale, another is not, and the window is full.

    """

    def __init__(self, params: HeadParams, bug: Bug | None = None) -> None:
        self.params = params
        self.bug = bug
        bits = params.age_bits
        probes = {
            "probe_ages": In(params.subtiles * bits),
            "probe_held": In(params.subtiles),
            "probe_lap": In(bits),
            "probe_tick": In(1),
            "probe_moved": In(2),
            "probe_oldest": In(len(self._oldest_groups()) * bits),
            **({"probe_sweep": In(bits)} if params.refresh else {}),
            **({"probe_sink": In(bits)} if params.sinks else {}),
        }
        super().__init__(
            {
                "advance": In(1),
                "flush": In(1),
                "sinks": In(_free_sinks(params)),
                "refreshed": In(1),
                "ticks": In(1),
                "budget": In(bits),
                "hold": In(1),
                **probes,
                "begun": Out(1),
                "stale_ok": Out(1),
                "empty_ok": Out(1),
                "hold_ok": Out(1),
                "oldest_ok": Out(1),
                "helper_ok": Out(1),
                "interesting": Out(1),
            }
        )

    @property
    def probes(self) -> Mapping[str, Sequence[str]]:
        """Names, after flattening, of what each probe is connected to, least significant first."""
        p = self.params
        return {
            "probe_ages": [f"ages.age_{subtile}" for subtile in range(p.subtiles)],
            "probe_held": ["ages.held"],
            "probe_lap": ["ages.lap"],
            "probe_tick": ["ages.tick"],
            "probe_moved": ["ages.moved"],
            "probe_oldest": [f"ages.oldest_from_{group[0]}" for group in self._oldest_groups()],
            **({"probe_sweep": ["ages.sweep"]} if p.refresh else {}),
            **({"probe_sink": ["ages.sink_age"]} if p.sinks else {}),
        }

    def elaborate(self, platform: object) -> Module:
        """Build the miter."""
        m = Module()
        p = self.params
        window = m.submodules.window = prove._component("Window", None)(p)
        ages = m.submodules.ages = prove._component("Ages", self.bug)(p)
        setting = _sink_setting(m, p, self.sinks)
        shared = ["subtile", "column", "occupancy", "full"]
        if p.sinks:
            shared += ["active_sinks", "wrap_subtile", "wrap_column"]
            m.d.comb += window.sinks.eq(setting)
        _connect_window(m, window, ages, *shared)
        # The pointer does not move during a conversion.
        advance = self.advance & ~self.hold
        for block in (window, ages):
            m.d.comb += [block.advance.eq(advance), block.flush.eq(self.flush)]
        _connect_window(m, self, ages, "budget", "hold")
        # A tick in this clock, or not unless 2**32 clocks have passed without one.
        m.d.comb += ages.age_tick.eq(Mux(self.ticks, 0, -1))

        spec = _Sequence(m, p, advance, self.flush, setting)
        swept = Signal(range(p.window))  # column that is rewritten next
        refreshed = Signal()
        if p.refresh:
            last = swept + 1 == spec.writes
            subtile, column = Signal(p.subtile_bits), Signal(p.column_bits)
            with m.Switch(swept):
                for c in range(p.window):
                    with m.Case(c):
                        m.d.comb += [subtile.eq(c // p.columns), column.eq(c % p.columns)]
            m.d.comb += [
                refreshed.eq(self.refreshed & ~advance & ~self.flush & (spec.writes != 0)),
                ages.refreshed.eq(refreshed),
                ages.refresh_subtile.eq(subtile),
                ages.refresh_column.eq(column),
                ages.refresh_last.eq(last),
            ]
            with m.If(self.flush):
                m.d.sync += swept.eq(0)
            with m.Elif(refreshed):
                m.d.sync += swept.eq(Mux(last, 0, swept + 1))

        limit = (1 << p.age_bits) - 1
        true_ages = [Signal(p.age_bits, name=f"true_age_{c}") for c in range(p.window)]
        for c, age in enumerate(true_ages):
            with m.If((advance & (spec.position == c)) | (refreshed & (swept == c))):
                m.d.sync += age.eq(0)
            with m.Elif(self.probe_tick & (age != limit)):
                m.d.sync += age.eq(age + 1)

        holding = Signal()
        shown = Cat(ages.stale, ages.lap_stale, ages.sink_stale if p.sinks else 0)
        shown_before = Signal(len(shown))
        m.d.sync += [shown_before.eq(shown), holding.eq(self.hold)]
        with m.If(self.flush):
            m.d.sync += [self.begun.eq(1), holding.eq(0)]
        oldest = [Signal(p.age_bits, name=f"oldest_{back}") for back in (1, 2)]  # clocks ago

        stale_ok, bounds, young, of_group = [], [], [], [[] for _ in range(p.subtiles)]
        for c, age in enumerate(true_ages):
            group = c // p.columns
            pinned, written = spec.pinned(c), spec.written[c]
            called = ages.stale[group] & (~spec.in_lap(c) | ages.lap_stale)
            bound = self.probe_ages.word_select(group, p.age_bits)
            if p.sinks:
                called = Mux(pinned, ages.sink_stale, called)
                bounds.append(_implies(written & pinned, age <= self.probe_sink))
            stale_ok.append(_implies(written & (age > self.budget), called))
            bounds += [
                _implies(written & ~pinned, age <= bound),
                _implies(spec.in_lap(c) & ~pinned, age <= self.probe_lap),
            ]
            if p.refresh:
                # Passed by the sweep in the part it is in.
                behind = (swept > c) & Mux(
                    pinned,
                    swept < spec.sinks,
                    swept < (group + 1) * p.columns,
                )
                bounds.append(_implies(behind, age <= self.probe_sweep))
            young.append(Mux(written, age, 0))
            of_group[group].append(written & ~pinned)
        for now, before in zip((_maximum(young), oldest[0]), oldest, strict=True):
            m.d.sync += before.eq(Mux(self.begun, now, 0))
        held = Cat(*(Cat(*columns).any() for columns in of_group))
        sink_stale = ages.sink_stale if p.sinks else Const(0)
        some = Cat(ages.stale, sink_stale).any()
        m.d.comb += [
            self.stale_ok.eq(~self.begun | holding | Cat(*stale_ok).all()),
            self.empty_ok.eq(
                ~self.begun
                | holding
                | (
                    ((ages.stale & ~held) == 0)
                    & _implies(sink_stale, (spec.sinks != 0) & (spec.writes != 0))
                    & (ages.any_stale == some)
                )
            ),
            self.hold_ok.eq(~self.begun | ~holding | (shown == shown_before)),
            self.oldest_ok.eq(~self.begun | (ages.oldest_age >= oldest[1])),
            self.helper_ok.eq(
                ~self.begun
                | (
                    spec.consistent
                    & Cat(*bounds).all()
                    & (self.probe_held == held)
                    & _implies(swept != 0, swept < spec.writes)
                    & (window.occupancy == spec.writes)
                    & (window.subtile * p.columns + window.column == spec.position)
                    & (window.column < p.columns)
                    & self._empty_counters(spec, held)
                    & self._oldest_stages(m, ages.oldest_age, oldest[0])
                    & self._shadow(window, spec)
                )
            ),
            self.interesting.eq(
                self.begun
                & window.full
                & ages.stale.any()
                & (~ages.stale.all() if p.subtiles > 1 else ~ages.lap_stale)
                & (spec.position == p.window - 1)
                & (spec.sinks == p.sinks // 2)
            ),
        ]
        return m

    def _oldest_groups(self) -> list[range]:
        """Counters of each group of which the largest is taken first; the sinks' comes last."""
        counters = self.params.subtiles + bool(self.params.sinks)
        size = math.isqrt(counters - 1) + 1
        return [range(i, min(i + size, counters)) for i in range(0, counters, size)]

    def _oldest_stages(self, m: Module, shown: Value, before: Value) -> Value:
        """Stages whose clock rests hold what they would take."""
        p = self.params
        settled = Signal()  # the stages have seen the first flush
        m.d.sync += settled.eq(self.begun)
        ages = Cat(self.probe_ages, self.probe_sink) if p.sinks else self.probe_ages
        current = [
            _maximum([ages.word_select(counter, p.age_bits) for counter in group])
            for group in self._oldest_groups()
        ]
        largest = [self.probe_oldest.word_select(i, p.age_bits) for i in range(len(current))]
        return (
            (self.probe_moved[0] | (Cat(*largest) == Cat(*current)))
            & (self.probe_moved[1] | ~settled | (shown == _maximum(largest)))
            & (_maximum(largest) >= before)
            & (settled | (self.probe_moved[0] & (before == 0)))
        )

    def _empty_counters(self, spec: _Sequence, held: Value) -> Value:
        """Counters of what holds no token are zero."""
        p = self.params
        zero = [
            held[group] | (self.probe_ages.word_select(group, p.age_bits) == 0)
            for group in range(p.subtiles)
        ]
        if p.sinks:
            zero.append(
                ((spec.sinks != 0) & (spec.writes != 0)) | (self.probe_sink == 0) | ~self.begun
            )
        return Cat(*zero).all()

    def _shadow(self, window: Any, spec: _Sequence) -> Value:
        """The window keeps the sinks that the specification does."""
        return window.active_sinks == spec.sinks if self.params.sinks else Const(1)


def _maximum(values: Sequence[Value]) -> Value:
    largest = values[0]
    for value in values[1:]:
        largest = Mux(value > largest, value, largest)
    return largest


class RefreshMiter(Component):
    """The refresh scheduler beside a window, and a sequencer that takes its time.

    Parameters
    ----------
    params
        Size of the window.
    bug
        Put into the scheduler.

    Members
    -------
    advance, flush, sinks, enable, taken, done, period : in
        Free choices of the environment, as far as they are legal. The period is that of the first
        clock.
    probe_elapsed, probe_rewriting : in
        What is inside the scheduler; connected after flattening.
    begun : Out(1)
        A flush has been.
    pointer_ok : Out(1)
        The refresh pointer is at a valid column, at column 0 if there is none, and runs over the
        valid columns in order.
    request_ok : Out(1)
        No request while the window is empty or a column is being rewritten.
    stays_ok : Out(1)
        A request and its column stay until it is taken, and the column until it is rewritten; but
        for a flush, and for the request being disabled.
    period_ok : Out(1)
        From one request to the next it is a period at least.
    helper_ok : Out(1)
        Invariants that carry the induction.
    interesting : Out(1)
        A second request in the middle of a full window.

    """

    def __init__(self, params: HeadParams, bug: Bug | None = None) -> None:
        self.params = params
        self.bug = bug
        super().__init__(
            {
                "advance": In(1),
                "flush": In(1),
                "sinks": In(_free_sinks(params)),
                "enable": In(1),
                "taken": In(1),
                "done": In(1),
                "period": In(32),
                "probe_elapsed": In(32),
                "probe_rewriting": In(1),
                "begun": Out(1),
                "pointer_ok": Out(1),
                "request_ok": Out(1),
                "stays_ok": Out(1),
                "period_ok": Out(1),
                "helper_ok": Out(1),
                "interesting": Out(1),
            }
        )

    probes: Mapping[str, Sequence[str]] = {
        "probe_elapsed": ["refresh.elapsed"],
        "probe_rewriting": ["refresh.rewriting"],
    }

    def elaborate(self, platform: object) -> Module:
        """Build the miter."""
        m = Module()
        p = self.params
        window = m.submodules.window = prove._component("Window", None)(p)
        dut = m.submodules.refresh = prove._component("RefreshScheduler", self.bug)(p)
        setting = _sink_setting(m, p, self.sinks)
        if p.sinks:
            m.d.comb += window.sinks.eq(setting)

        rewriting = Signal()
        flush = self.flush & (~rewriting | ~self.begun)
        taken = self.taken & dut.request & ~flush
        done = self.done & rewriting
        period = Signal(32)
        with m.If(~self.begun):
            m.d.sync += period.eq(Mux(self.period == 0, 1, self.period))
        m.d.comb += [
            window.advance.eq(self.advance),
            window.flush.eq(flush),
            dut.flush.eq(flush),
            dut.enable.eq(self.enable),
            dut.period.eq(period),
            dut.window_subtile.eq(window.subtile),
            dut.window_column.eq(window.column),
            dut.full.eq(window.full),
            dut.empty.eq(window.occupancy == 0),
            dut.taken.eq(taken),
            dut.done.eq(done),
        ]

        spec = _Sequence(m, p, self.advance, flush, setting)
        swept = Signal(range(p.window))
        since = Signal(32)  # clocks since the last request rose
        asked = Signal()  # it was high in the clock before
        must_stay = Signal()
        rises = dut.request & ~asked
        m.d.sync += [
            asked.eq(dut.request),
            since.eq(Mux(rises, 1, Mux(since.all(), since, since + 1))),
            must_stay.eq(dut.request & ~taken & self.enable),
        ]
        with m.If(flush):
            # Before, there was no request to count from.
            m.d.sync += [self.begun.eq(1), swept.eq(0), rewriting.eq(0), must_stay.eq(0)]
            with m.If(~self.begun):
                m.d.sync += since.eq(-1)
        with m.Else():
            with m.If(done):
                m.d.sync += [
                    swept.eq(Mux(swept + 1 == spec.writes, 0, swept + 1)),
                    rewriting.eq(0),
                ]
            with m.Elif(taken):
                m.d.sync += rewriting.eq(1)

        at = dut.subtile * p.columns + dut.column
        in_range = (dut.subtile < p.subtiles) & (dut.column < p.columns)
        valid = Mux(window.occupancy == 0, at == 0, at < window.occupancy)
        m.d.comb += [
            self.pointer_ok.eq(~self.begun | (in_range & valid & (at == swept))),
            self.request_ok.eq(
                ~self.begun | _implies(dut.request, (spec.writes != 0) & ~rewriting)
            ),
            self.stays_ok.eq(~self.begun | _implies(must_stay, dut.request)),
            self.period_ok.eq(~self.begun | _implies(rises, since >= period)),
            self.helper_ok.eq(
                ~self.begun
                | (
                    spec.consistent
                    & (window.occupancy == spec.writes)
                    & (window.subtile * p.columns + window.column == spec.position)
                    & (window.column < p.columns)
                    & (window.active_sinks == spec.sinks if p.sinks else 1)
                    & (period != 0)
                    & (self.probe_elapsed != 0)
                    & (self.probe_elapsed - 1 <= since)
                    & _implies(rises, self.probe_elapsed == 1)
                    & (self.probe_rewriting == rewriting)
                    & _implies(rewriting, spec.writes != 0)
                    & _implies(swept != 0, swept < spec.writes)
                )
            ),
            self.interesting.eq(
                self.begun & window.full & rises & (swept == 1) & (since == period) & (period == 3)
            ),
        ]
        return m


class CodeStoreMiter(Component):
    """The code store beside words of flip-flops.

    Parameters
    ----------
    params
        Size of the store.
    bug
        Put into it.

    Members
    -------
    write_at, read_at, k_write, v_write, k_read, v_read, k_codes, v_codes : in
        Free choices of the environment; columns within the window, and no read of a column in
        the clock of a write to it.
    probe_keys, probe_values : in
        Words of the store; connected once it is made of flip-flops.
    begun : Out(1)
        A clock has been: what was kept before is not known.
    keys_ok, values_ok : Out(1)
        What was read last of an array is what had been written last to the column.
    helper_ok : Out(1)
        Invariant that carries the induction: every word is what was written last to it.
    interesting : Out(1)
        Words of two columns were read, and they differ.

    """

    def __init__(self, params: HeadParams, bug: Bug | None = None) -> None:
        self.params = params
        self.bug = bug
        k_bits, v_bits = params.rows * params.kv_bits, params.lanes * params.kv_bits
        depth = self.depth = params.subtiles << params.column_bits
        super().__init__(
            {
                "write_at": In(range(depth)),
                "read_at": In(range(depth)),
                "k_write": In(1),
                "v_write": In(1),
                "k_read": In(1),
                "v_read": In(1),
                "k_codes": In(k_bits),
                "v_codes": In(v_bits),
                "probe_keys": In(depth * k_bits),
                "probe_values": In(depth * v_bits),
                "begun": Out(1),
                "keys_ok": Out(1),
                "values_ok": Out(1),
                "helper_ok": Out(1),
                "interesting": Out(1),
            }
        )

    @property
    def probes(self) -> Mapping[str, Sequence[str]]:
        """Names, after flattening, of what each probe is connected to, least significant first."""
        return {
            f"probe_{name}": [f"store.{name}_{word}" for word in range(self.depth)]
            for name in ("keys", "values")
        }

    def elaborate(self, platform: object) -> Module:
        """Build the miter."""
        m = Module()
        p = self.params
        store = m.submodules.store = prove._component("CodeStore", self.bug)(p)
        m.d.comb += [
            Cat(store.column, store.subtile).eq(self.write_at),
            Cat(store.read_column, store.read_subtile).eq(self.read_at),
        ]
        words_ok, differ = [], []
        for array, name in (("k", "keys"), ("v", "values")):
            codes = getattr(self, f"{array}_codes")
            probe = getattr(self, f"probe_{name}")
            out = getattr(store, f"{array}_out")
            write, read = Signal(name=f"{array}_writes"), Signal(name=f"{array}_reads")
            words = [Signal(len(codes), name=f"{name}_{word}") for word in range(self.depth)]
            known = Signal(self.depth, name=f"{name}_known")  # it was written
            expected = Signal(len(codes), name=f"{array}_expected")
            seen = Signal(name=f"{array}_seen")  # what was read last was known
            m.d.comb += [
                write.eq(getattr(self, f"{array}_write") & (self.write_at < self.depth)),
                read.eq(
                    getattr(self, f"{array}_read")
                    & (self.read_at < self.depth)
                    & ~(write & (self.write_at == self.read_at))
                ),
                getattr(store, f"{array}_codes").eq(codes),
                getattr(store, f"{array}_write").eq(write),
                getattr(store, f"{array}_read").eq(read),
            ]
            for at, word in enumerate(words):
                with m.If(write & (self.write_at == at)):
                    m.d.sync += [word.eq(codes), known[at].eq(1)]
                words_ok.append(~known[at] | (probe.word_select(at, len(codes)) == word))
            with m.If(read):
                m.d.sync += [
                    expected.eq(Array(words)[self.read_at]),
                    seen.eq(known.bit_select(self.read_at, 1)),
                ]
            good = ~self.begun | ~seen | (out == expected)
            m.d.comb += getattr(self, f"{name}_ok").eq(good)
            differ.append(seen & (out != 0) & known[-1] & (words[-1] != out))
            with m.If(~self.begun):
                m.d.sync += [known.eq(0), seen.eq(0)]
        m.d.sync += self.begun.eq(1)
        m.d.comb += [
            self.helper_ok.eq(~self.begun | Cat(*words_ok).all()),
            self.interesting.eq(self.begun & Cat(*differ).all()),
        ]
        return m


def _mapped(miter: Miter) -> prove._Design:
    """The miter with its memories made of flip-flops, a wire for each word."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "miter.il", Path(folder) / "mapped.il"
        source.write_text(component_rtlil(miter, "miter"), encoding="utf-8")
        run_yosys(
            f"read_rtlil {source}",
            "hierarchy -top miter",
            "proc -noopt -norom",
            "flatten",
            "memory_map",
            f"write_rtlil {target}",
        )
        text = target.read_text(encoding="utf-8")
    # A word's name must not look like a bit of something.
    text = re.sub(r"(?<=\\store\.)(keys|values)\[(\d+)\]", r"\1_\2", text)
    return prove._Design(rtlil=text, probes=miter.probes)


def _design(miter: Miter) -> prove._Design:
    return _mapped(miter) if isinstance(miter, CodeStoreMiter) else prove._Design.of(miter)


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """A block, what is proved of it, and the sizes and bugs."""

    title: str
    miter: Callable[..., Miter]
    properties: Mapping[str, str]  #: what is proved, by the name of the miter's output
    sizes: Sequence[HeadParams]
    small: Sequence[HeadParams]  #: sizes at which bugs are put in
    bugs: Callable[[HeadParams], Sequence[Bug]]  #: that can be put in at a size
    depth: Callable[[HeadParams], int]  #: clocks within which bugs show


def _window_bugs(params: HeadParams) -> tuple[Bug, ...]:
    return WINDOW_BUGS + (SINK_BUGS if params.sinks >= params.columns else ())


def _age_bugs(params: HeadParams) -> tuple[Bug, ...]:
    if not params.refresh:
        return AGE_BUGS
    return SINK_AGE_BUGS if params.sinks else SWEEP_BUGS


WINDOW = _Subject(
    title="window",
    miter=WindowMiter,
    properties={
        "occupancy_ok": "occupancy",
        "pointer_ok": "pointer",
        "sinks_ok": "sinks stay",
        "mask_ok": "mask shows what was written since the flush and is not stale",
    },
    sizes=WINDOW_SIZES,
    small=(WINDOW_SIZES[0], WINDOW_SIZES[3]),
    bugs=_window_bugs,
    depth=lambda p: p.window + p.columns + 4,
)
AGES = _Subject(
    title="ages",
    miter=AgesMiter,
    properties={
        "stale_ok": "no column past its budget is called fresh",
        "empty_ok": "none without a token stale",
        "hold_ok": "no change in a conversion",
        "oldest_ok": "no column older than the oldest age",
    },
    sizes=AGE_SIZES,
    small=(
        _size(3, 2, 0, age_bits=2),
        _size(1, 3, 2, age_bits=2, refresh=True),
        _size(2, 2, 0, age_bits=2, refresh=True),
    ),
    bugs=_age_bugs,
    depth=lambda p: p.window + 10,
)
REFRESH = _Subject(
    title="refresh",
    miter=RefreshMiter,
    properties={
        "pointer_ok": "pointer passes the valid columns in order",
        "request_ok": "no request on an empty window or during a rewrite",
        "stays_ok": "requests stay until taken",
        "period_ok": "at most one in a period",
    },
    sizes=REFRESH_SIZES,
    small=(_size(1, 2, 1, refresh=True),),
    bugs=lambda _: REFRESH_BUGS,
    depth=lambda p: 3 * p.window + 6,
)
STORE = _Subject(
    title="code store",
    miter=CodeStoreMiter,
    properties={
        "keys_ok": "keys read are those written last",
        "values_ok": "values too",
    },
    sizes=STORE_SIZES,
    small=STORE_SIZES[:1],
    bugs=lambda _: STORE_BUGS,
    depth=lambda _: 8,
)

SUBJECTS = (WINDOW, AGES, REFRESH, STORE)


def _proof_job(
    subject: _Subject, sizes: Sequence[HeadParams], *, from_reset: bool = False
) -> Callable[[], Row]:
    """Job that proves all properties at once, since each is part of the others' invariant."""
    names = [*subject.properties, "helper_ok"]

    def job() -> Row:
        start = time.perf_counter()
        depths = [
            prove._prove(_design(subject.miter(params)), names, from_reset=from_reset)
            for params in sizes
        ]
        proved = None not in depths
        return {
            "property": f"{subject.title}: {', '.join(subject.properties.values())} "
            f"({_sizes(sizes)})",
            "method": f"temporal induction from {'reset' if from_reset else 'any state'}",
            "depth": max(depths) if proved else prove.MAX_DEPTH,
            "seconds": time.perf_counter() - start,
            "status": "proved" if proved else "FAILED",
        }

    return job


def _evidence_job(subject: _Subject, params: HeadParams) -> Callable[[], Row]:
    """Job that shows the proofs not to be vacuous; its depth is the longest trace needed."""
    bugs, depth = subject.bugs(params), subject.depth(params)

    def job() -> Row:
        start = time.perf_counter()
        reached = prove._reach(_design(subject.miter(params)), depth)
        found = [
            (bug, prove._find(_design(subject.miter(params, bug)), [*subject.properties], depth))
            for bug in bugs
        ]
        clocks = [reached, *(clock for _, clock in found)]
        return {
            "property": f"{subject.title}: interesting state reached, {len(bugs)} seeded bugs "
            f"refuted ({_sizes((params,))})",
            "method": "traces from any state, SAT",
            "depth": max((clock for clock in clocks if clock is not None), default=depth),
            "seconds": time.perf_counter() - start,
            "status": "FAILED" if None in clocks else "proved",
            "reached_clk": reached,
            "seeded_bugs": [{"name": bug.name, "trace_clk": clock} for bug, clock in found],
        }

    return job


def _sizes(sizes: Sequence[HeadParams]) -> str:
    if len(sizes) > 1:
        return f"{len(sizes)} sizes"
    params = sizes[0]
    sinks = f", up to {params.sinks} sinks" if params.sinks else ""
    return f"{params.subtiles} sub-tiles of {params.columns} columns{sinks}"


def prove_window(params: HeadParams | None = None) -> dict[str, Any]:
    """Prove the window's pointer and occupancy and the column mask.

    Parameters
    ----------
    params
        Size, by default the first of `WINDOW_SIZES`.

    Returns
    -------
    dict
        ``config_hash``, ``proved``, and ``rows`` as `synth.prove.run_proofs` returns them.

    """
    params = params or WINDOW_SIZES[0]
    rows = [job() for job in (_proof_job(WINDOW, (params,)), _evidence_job(WINDOW, params))]
    return {
        "config_hash": params.config_hash,
        "proved": all(row["status"] == "proved" for row in rows),
        "rows": rows,
    }


def window_properties() -> list[Callable[[], Row]]:
    """Jobs that prove all of the above, to be run by `synth.prove.run_proofs`.

    Returns
    -------
    list
        Functions without arguments, each returning a row.

    """
    jobs = [_proof_job(WINDOW, (params,)) for params in FULL_SIZES]
    for subject in SUBJECTS:
        jobs.append(_proof_job(subject, subject.sizes))
        if subject is WINDOW:
            jobs.append(_proof_job(subject, subject.sizes, from_reset=True))
        jobs += [_evidence_job(subject, params) for params in subject.small]
    return jobs
