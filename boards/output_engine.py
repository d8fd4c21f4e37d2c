"""Array 2 in integers: codes in block RAM, phi pulses, a charge per lane and sub-tile."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from boards.level_currents import LevelCurrents, current_of, delayed
from boards.params import EmulatorParams
from boards.walk import Walk, index_bits

__all__ = ["OutputEngine", "output_word_bits"]


def output_word_bits(params: EmulatorParams) -> int:
    """Bits of a group's charges: sign and magnitude of each."""
    return params.value_multipliers * (params.output_bits + 1)


class OutputEngine(Component):
    """Stores V, and multiplies it with phi when told to.

    A lane's charge in a sub-tile is the sum over its columns of phi and current.
    ``value_multipliers`` lanes are multiplied in a clock, so that a sub-tile takes
    ``value_groups`` clocks for each of its columns.

    Parameters
    ----------
    params
        Emulator parameters.

    Members
    -------
    tick : In(1)
        A step of age has passed.
    note : In(1)
        Columns are as old as they are now.
    store : In(1)
        Take ``codes`` for the column ``subtile``, ``column``; all of them stay while ``busy``.
    start : In(1)
        Multiply, and keep the charges as those of ``bank``.
    busy : Out(1)
        A job has begun and not ended; ``store`` and ``start`` come while it is low.
    phi_subtile, phi_column : out
        Column whose phi is wanted; ``phi`` is it a clock later.
    phi : in
        Its phi.
    read_bank, read_subtile, read_group : in
        Lanes whose charges are wanted.
    charges : out
        Those charges a clock later: of each lane magnitude and, above it, sign (1 negative).

    Timing
    ------
    A store takes `store_clk` clocks and a multiplication `start_clk`, in which ``busy`` is high.
    """

    def __init__(self, params: EmulatorParams) -> None:
        self.params = params
        head = params.head
        super().__init__(
            {
                "tick": In(1),
                "note": In(1),
                "store": In(1),
                "subtile": In(head.subtile_bits),
                "column": In(head.column_bits),
                "codes": In(head.lanes * head.kv_bits),
                "start": In(1),
                "bank": In(1),
                "busy": Out(1),
                "phi_subtile": Out(head.subtile_bits),
                "phi_column": Out(head.column_bits),
                "phi": In(params.phi_bits),
                "read_bank": In(1),
                "read_subtile": In(head.subtile_bits),
                "read_group": In(index_bits(params.value_groups)),
                "charges": Out(output_word_bits(params)),
            }
        )

    @property
    def store_clk(self) -> int:
        """Clocks of a store."""
        return self.params.value_groups

    @property
    def start_clk(self) -> int:
        """Clocks of the multiplication of all columns."""
        return self.params.head.window * self.params.value_groups + 3 + self._ahead_clk

    @property
    def _ahead_clk(self) -> int:
        """Clocks by which a column's age is asked for before its codes and its phi."""
        return LevelCurrents.latency_clk - 1 if self.params.leak else 0

    def elaborate(self, platform: object) -> Module:
        """Build the engine."""
        m = Module()
        p, head = self.params, self.params.head
        width, groups = p.value_multipliers, p.value_groups
        group_bits, bank_bits = index_bits(groups), p.banks - 1
        m.submodules.codes = codes = Memory(
            shape=unsigned(width * head.kv_bits),
            depth=1 << group_bits + head.column_bits + head.subtile_bits,
            init=[],
        )
        m.submodules.charges = charges = Memory(
            shape=unsigned(output_word_bits(p)),
            depth=1 << group_bits + head.subtile_bits + bank_bits,
            init=[],
        )
        store_port, code_port = codes.write_port(), codes.read_port()
        charge_store, charge_port = charges.write_port(), charges.read_port()

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

        # A multiplication: addresses, codes and phi, products, sums.
        walking = Signal()
        walk = Walk("at", column=head.columns, group=groups, subtile=head.subtiles)
        ahead = self._ahead_clk
        subtile, column = (delayed(m, walk[key], ahead) for key in ("subtile", "column"))
        m.d.comb += [
            code_port.addr.eq(Cat(delayed(m, walk["group"], ahead), column, subtile)),
            self.phi_subtile.eq(subtile),
            self.phi_column.eq(column),
        ]
        with m.If(self.start):
            m.d.sync += walking.eq(1)
        with m.If(walking):
            walk.advance(m)
            with m.If(walk.last):
                m.d.sync += walking.eq(0)
        fetched, multiplied, summed = Signal(), Signal(), Signal()
        fetching = delayed(m, walking, ahead)
        fetched_first, fetched_last = Signal(), Signal()
        first, last, whole = Signal(), Signal(), Signal()
        m.d.sync += [
            fetched.eq(fetching),
            fetched_first.eq(column == 0),
            fetched_last.eq(column == head.columns - 1),
            multiplied.eq(fetched),
            first.eq(fetched_first),
            last.eq(fetched_last),
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
                ages.note.eq(self.note),
                ages.store.eq(storing),
                ages.subtile.eq(self.subtile),
                ages.column.eq(self.column),
                ages.read_subtile.eq(walk["subtile"]),
                ages.read_column.eq(walk["column"]),
            ]
        lanes = []
        for unit in range(width):
            product = Signal(signed(p.current_bits + p.phi_bits), name=f"product_{unit}")
            charge = Signal(signed(p.output_bits + 1), name=f"charge_{unit}")
            code = code_port.data.word_select(unit, head.kv_bits)
            m.d.sync += product.eq(current_of(p, code, levels) * self.phi)
            with m.If(multiplied):
                m.d.sync += charge.eq(Mux(first, 0, charge) + product)
            magnitude = Mux(charge < 0, -charge, charge)[: p.output_bits]
            lanes.append(Cat(magnitude, charge < 0))

        written = Walk("written", group=groups, subtile=head.subtiles)
        m.d.comb += [
            charge_store.en.eq(summed & whole),
            charge_store.addr.eq(
                Cat(written["group"], written["subtile"], self.bank if bank_bits else Const(0, 0))
            ),
            charge_store.data.eq(Cat(*lanes)),
            self.busy.eq(storing | under_way | fetched | multiplied | summed),
            charge_port.addr.eq(
                Cat(
                    self.read_group,
                    self.read_subtile,
                    self.read_bank if bank_bits else Const(0, 0),
                )
            ),
            self.charges.eq(charge_port.data),
        ]
        with m.If(charge_store.en):
            written.advance(m)
        return m
