"""Array 1 in integers: codes in block RAM, query pulses as on-times, a charge per column."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from boards.level_currents import LevelCurrents, current_of, delayed
from boards.params import EmulatorParams
from boards.walk import Walk, index_bits

__all__ = ["ScoreEngine"]


class ScoreEngine(Component):
    """Stores K, counts the clocks that each word line is on, and multiplies when told to.

    A column's charge is the sum over rows of on-time and current. ``key_multipliers`` rows are
    multiplied in a clock, so that a column takes ``key_groups`` clocks.

    Parameters
    ----------
    params
        Emulator parameters.

    Members
    -------
    tick : In(1)
        A step of age has passed.
    clear, integrate : In(1)
        Word lines begin anew, and columns are as old as they are now; the lines of ``q_pulse``
        that are high are on for a clock.
    q_pulse : in
        Word lines, one per row.
    store : In(1)
        Take ``codes`` for the column ``subtile``, ``column``; all of them stay while ``busy``.
    start : In(1)
        Multiply, and keep the charges as those of ``bank``.
    busy : Out(1)
        A job has begun and not ended; ``store`` and ``start`` come while it is low.
    read_bank, read_subtile, read_column : in
        Column whose charge is wanted.
    charge : out
        That charge, in units of a current, a clock later.

    Timing
    ------
    A store takes `store_clk` clocks and a multiplication `start_clk`, in which ``busy`` is high.
    """

    def __init__(self, params: EmulatorParams) -> None:
        self.params = params
        head = params.head
        place = {
            "subtile": In(head.subtile_bits),
            "column": In(head.column_bits),
            "read_subtile": In(head.subtile_bits),
            "read_column": In(head.column_bits),
        }
        super().__init__(
            {
                "tick": In(1),
                "clear": In(1),
                "integrate": In(1),
                "q_pulse": In(head.rows),
                "store": In(1),
                "codes": In(head.rows * head.kv_bits),
                "start": In(1),
                "bank": In(1),
                "busy": Out(1),
                "read_bank": In(1),
                "charge": Out(signed(params.score_bits)),
                **place,
            }
        )

    @property
    def store_clk(self) -> int:
        """Clocks of a store."""
        return self.params.key_groups

    @property
    def start_clk(self) -> int:
        """Clocks of the multiplication of all columns."""
        return self.params.head.window * self.params.key_groups + 3 + self._ahead_clk

    @property
    def _ahead_clk(self) -> int:
        """Clocks by which a column's age is asked for before its codes."""
        return LevelCurrents.latency_clk - 1 if self.params.leak else 0

    def elaborate(self, platform: object) -> Module:
        """Build the engine."""
        m = Module()
        p, head = self.params, self.params.head
        width, groups = p.key_multipliers, p.key_groups
        group_bits, bank_bits = index_bits(groups), p.banks - 1
        place_bits = head.column_bits + head.subtile_bits

        m.submodules.codes = codes = Memory(
            shape=unsigned(width * head.kv_bits), depth=1 << group_bits + place_bits, init=[]
        )
        m.submodules.charges = charges = Memory(
            shape=signed(p.score_bits), depth=1 << place_bits + bank_bits, init=[]
        )
        store_port, code_port = codes.write_port(), codes.read_port()
        charge_store, charge_port = charges.write_port(), charges.read_port()

        # Word lines: how long each was on.
        on = [Signal(head.q_bits, name=f"on_{row}") for row in range(head.rows)]
        for row, time in enumerate(on):
            with m.If(self.clear):
                m.d.sync += time.eq(0)
            with m.Elif(self.integrate & self.q_pulse[row]):
                m.d.sync += time.eq(time + 1)

        # A store, group by group.
        storing, stored = Signal(), Walk("stored", group=groups)
        words = [
            self.codes[group * width * head.kv_bits :][: width * head.kv_bits]
            for group in range(groups)
        ]
        m.d.comb += [
            store_port.en.eq(storing),
            store_port.addr.eq(Cat(stored["group"], self.column, self.subtile)),
            store_port.data.eq(Array(words)[stored["group"]]),
        ]
        with m.If(self.store):
            m.d.sync += storing.eq(1)
        with m.If(storing):
            stored.advance(m)
            with m.If(stored.last):
                m.d.sync += storing.eq(0)

        # A multiplication: an address, codes, products, a sum.
        walking = Signal()
        walk = Walk("at", group=groups, column=head.columns, subtile=head.subtiles)
        ahead = self._ahead_clk
        m.d.comb += code_port.addr.eq(
            delayed(m, Cat(walk["group"], walk["column"], walk["subtile"]), ahead)
        )
        with m.If(self.start):
            m.d.sync += walking.eq(1)
        with m.If(walking):
            walk.advance(m)
            with m.If(walk.last):
                m.d.sync += walking.eq(0)
        fetched, multiplied, summed = Signal(), Signal(), Signal()
        fetched_group = Signal(group_bits)
        first, last, whole = Signal(), Signal(), Signal()
        fetching = delayed(m, walking, ahead)
        m.d.sync += [
            fetched.eq(fetching),
            fetched_group.eq(delayed(m, walk["group"], ahead)),
            multiplied.eq(fetched),
            first.eq(fetched_group == 0),
            last.eq(fetched_group == groups - 1),
            summed.eq(multiplied),
            whole.eq(last),
        ]
        levels = None
        under_way = walking
        if p.leak:
            m.submodules.levels = ages = LevelCurrents(p)
            levels = ages.levels
            under_way = walking | delayed(m, walking, 1) | fetching
            m.d.comb += [
                ages.tick.eq(self.tick),
                ages.note.eq(self.clear),
                ages.store.eq(storing),
                ages.subtile.eq(self.subtile),
                ages.column.eq(self.column),
                ages.read_subtile.eq(walk["subtile"]),
                ages.read_column.eq(walk["column"]),
            ]
        products = []
        for unit in range(width):
            rows = [
                on[row] if row < head.rows else Const(0)
                for row in range(unit, groups * width, width)
            ]
            product = Signal(signed(p.current_bits + head.q_bits), name=f"product_{unit}")
            code = code_port.data.word_select(unit, head.kv_bits)
            m.d.sync += product.eq(current_of(p, code, levels) * Array(rows)[fetched_group])
            products.append(product)
        total = Signal(signed(p.score_bits))
        with m.If(multiplied):
            m.d.sync += total.eq(Mux(first, 0, total) + sum_of(products))

        written = Walk("written", column=head.columns, subtile=head.subtiles)
        m.d.comb += [
            charge_store.en.eq(summed & whole),
            charge_store.addr.eq(
                Cat(written["column"], written["subtile"], self.bank if bank_bits else Const(0, 0))
            ),
            charge_store.data.eq(total),
            self.busy.eq(storing | under_way | fetched | multiplied | summed),
            charge_port.addr.eq(
                Cat(
                    self.read_column,
                    self.read_subtile,
                    self.read_bank if bank_bits else Const(0, 0),
                )
            ),
            self.charge.eq(charge_port.data),
        ]
        with m.If(charge_store.en):
            written.advance(m)
        return m


def sum_of(terms: list) -> Value:
    """Sum as a balanced tree."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return sum_of(terms[:middle]) + sum_of(terms[middle:])
