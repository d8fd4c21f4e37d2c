"""Currents of an array's levels by the age of their column, where charge leaks."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Signal, Value, signed, unsigned
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from boards.params import EmulatorParams

__all__ = ["LevelCurrents", "current_of", "delayed"]

_TIME_BITS = 24  # of steps of age, after which time begins anew


def delayed(m: Module, value: Value, clocks: int) -> Value:
    """A value so many clocks later."""
    for _ in range(clocks):
        later = Signal.like(value, name="later")
        m.d.sync += later.eq(value)
        value = later
    return value


def current_of(params: EmulatorParams, code: Value, levels: Value | None) -> Value:
    """Current of a level; from ``levels``, packed, or if None the fresh one."""
    shape = signed(params.current_bits)
    if levels is None:
        return Array(Const(current, shape) for current in params.currents)[code]
    count = len(params.currents)
    return Array(
        levels.word_select(level, params.current_bits).as_signed() for level in range(count)
    )[code]


class LevelCurrents(Component):
    """Knows since when each column of an array holds its codes, and what became of its levels.

    Parameters
    ----------
    params
        Emulator parameters, with a leak.

    Members
    -------
    tick : In(1)
        A step of age has passed.
    store : In(1)
        The column ``subtile``, ``column`` is new.
    subtile, column : in
        See above.
    note : In(1)
        What is read from now on is of this time's age.
    read_subtile, read_column : in
        Column whose currents are wanted.
    levels : out
        Currents of all levels at its age, packed, code 0 lowest.

    Timing
    ------
    ``levels`` are those of the column asked for `latency_clk` clocks before.
    """

    latency_clk = 3

    def __init__(self, params: EmulatorParams) -> None:
        self.params = params
        head = params.head
        super().__init__(
            {
                "tick": In(1),
                "store": In(1),
                "subtile": In(head.subtile_bits),
                "column": In(head.column_bits),
                "note": In(1),
                "read_subtile": In(head.subtile_bits),
                "read_column": In(head.column_bits),
                "levels": Out(len(params.currents) * params.current_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build both memories."""
        m = Module()
        p, head = self.params, self.params.head
        oldest = len(p.table) - 1
        mask = (1 << p.current_bits) - 1
        words = [
            sum((current & mask) << p.current_bits * code for code, current in enumerate(currents))
            for currents in p.table
        ]
        m.submodules.table = table = Memory(
            shape=unsigned(len(self.levels)), depth=len(words), init=words
        )
        m.submodules.born = born = Memory(
            shape=unsigned(_TIME_BITS), depth=1 << head.column_bits + head.subtile_bits, init=[]
        )
        store, since, look = born.write_port(), born.read_port(), table.read_port()
        now, seen = Signal(_TIME_BITS), Signal(_TIME_BITS)
        age = Signal(_TIME_BITS)
        with m.If(self.tick):
            m.d.sync += now.eq(now + 1)
        with m.If(self.note):
            m.d.sync += seen.eq(now)
        with m.If(age > oldest):
            m.d.sync += look.addr.eq(oldest)
        with m.Else():
            m.d.sync += look.addr.eq(age)
        m.d.comb += [
            store.addr.eq(Cat(self.column, self.subtile)),
            store.data.eq(now),
            store.en.eq(self.store),
            since.addr.eq(Cat(self.read_column, self.read_subtile)),
            age.eq(seen - since.data),
            self.levels.eq(look.data),
        ]
        return m
