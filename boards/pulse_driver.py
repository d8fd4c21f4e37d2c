"""Signed converters in integers: signs, and pulses by comparison with a rising threshold."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out

from boards.output_engine import output_word_bits
from boards.params import EmulatorParams
from boards.walk import Walk, index_bits
from hw.registers import LEVEL_BITS

__all__ = ["PulseDriver"]


class PulseDriver(Component):
    """Drives the converters' pulses and signs, which it finds group by group of lanes.

    A pulse that lasts n clocks is high in the k-th clock of a readout if n >= k, which is when
    the charge reaches k - 1/2 counts: a comparison, and no division. A count is a charge of A_sat
    times the longest phi pulse over the largest count.

    Parameters
    ----------
    params
        Emulator parameters.

    Members
    -------
    signs : In(1)
        Find the signs of the charges of ``bank``.
    pulses : In(1)
        Find the pulses of a readout's next clock; of its first one if ``first`` is high.
    clear : In(1)
        No pulse is high any more.
    a_level : in
        A_sat in µA, 1..255.
    select : in
        Sub-tiles whose converters may emit a pulse.
    busy : Out(1)
        A job has begun and not ended; ``signs`` and ``pulses`` come while it is low, and all
        inputs stay meanwhile.
    read_bank, read_subtile, read_group : out
        Lanes whose charges are wanted; ``charges`` are they a clock later.
    charges : in
        As `OutputEngine` has them.
    pulse, sign : out
        Converter outputs; bit ``subtile * lanes + lane``.

    Timing
    ------
    A job takes `job_clk` clocks, in which ``busy`` is high.
    """

    def __init__(self, params: EmulatorParams) -> None:
        self.params = params
        head = params.head
        super().__init__(
            {
                "signs": In(1),
                "pulses": In(1),
                "first": In(1),
                "clear": In(1),
                "bank": In(1),
                "a_level": In(LEVEL_BITS),
                "select": In(head.subtiles),
                "busy": Out(1),
                "read_bank": Out(1),
                "read_subtile": Out(head.subtile_bits),
                "read_group": Out(index_bits(params.value_groups)),
                "charges": In(output_word_bits(params)),
                "pulse": Out(head.subtiles * head.lanes),
                "sign": Out(head.subtiles * head.lanes),
            }
        )

    @property
    def job_clk(self) -> int:
        """Clocks of a job."""
        return self.params.head.subtiles * self.params.value_groups + 1

    def elaborate(self, platform: object) -> Module:
        """Build the driver."""
        m = Module()
        p, head = self.params, self.params.head
        width, groups = p.value_multipliers, p.value_groups
        walking, fetched, signing = Signal(), Signal(), Signal()
        walk = Walk("at", group=groups, subtile=head.subtiles)
        group = Signal.like(walk["group"])
        subtile = Signal.like(walk["subtile"])
        m.d.comb += [
            self.read_bank.eq(self.bank),
            self.read_subtile.eq(walk["subtile"]),
            self.read_group.eq(walk["group"]),
            self.busy.eq(walking | fetched),
        ]
        m.d.sync += [
            fetched.eq(walking),
            group.eq(walk["group"]),
            subtile.eq(walk["subtile"]),
        ]
        with m.If(self.signs | self.pulses):
            m.d.sync += [walking.eq(1), signing.eq(self.signs)]
        with m.If(walking):
            walk.advance(m)
            with m.If(walk.last):
                m.d.sync += walking.eq(0)

        # Twice the charge against odd multiples of a count, both times count_max.
        count = Signal(p.threshold_bits)
        threshold = Signal(p.threshold_bits)
        scaled = head.count_max != p.q_max
        level = (self.a_level << head.q_bits) - self.a_level if scaled else self.a_level
        m.d.comb += count.eq(level << p.charge_fraction)
        with m.If(self.pulses):
            with m.If(self.first):
                m.d.sync += threshold.eq(count)
            with m.Else():
                m.d.sync += threshold.eq(threshold + (count << 1))

        high, negative = [], []
        for unit in range(width):
            word = self.charges.word_select(unit, p.output_bits + 1)
            magnitude = word[: p.output_bits]
            if scaled:
                magnitude = (magnitude << head.count_bits) - magnitude
            high.append((magnitude << 1) >= threshold)
            negative.append(word[p.output_bits])
        high_now, selected = Signal(width), Signal()
        m.d.comb += [
            selected.eq(self.select.bit_select(subtile, 1)),
            high_now.eq(Cat(*high) & selected.replicate(width)),
        ]
        for at in range(head.subtiles):
            for part in range(groups):
                lanes = range(part * width, min((part + 1) * width, head.lanes))
                place = slice(at * head.lanes + lanes.start, at * head.lanes + lanes.stop)
                with m.If(fetched & (subtile == at) & (group == part)):
                    with m.If(signing):
                        m.d.sync += self.sign[place].eq(Cat(*negative))
                    with m.Else():
                        m.d.sync += self.pulse[place].eq(high_now)
        with m.If(self.clear):
            m.d.sync += self.pulse.eq(0)
        return m
