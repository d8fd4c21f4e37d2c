"""Charge-to-pulse converters in integers: a HardSigmoid by long division."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from boards.params import EmulatorParams
from boards.walk import Walk
from hw.registers import LEVEL_BITS

__all__ = ["PhiEngine"]


class PhiEngine(Component):
    """Turns the charge of every column into the length of its phi pulse.

    ``phi = charge / S_sat``, rounded to nearest, zero for a charge that is not positive and for a
    column outside the mask, and at most the longest pulse. One quotient bit is found in a clock.

    Parameters
    ----------
    params
        Emulator parameters.

    Members
    -------
    start : In(1)
        Convert; ``mask`` and ``s_level`` stay while ``busy``.
    mask : in
        Columns that take part.
    s_level : in
        S_sat in µA, 1..255.
    busy : Out(1)
        A conversion has begun and not ended.
    subtile, column : out
        Column whose charge is wanted; ``charge`` is it a clock later.
    charge : in
        Its charge.
    read_subtile, read_column : in
        Column whose phi is wanted.
    phi : out
        That phi, in units of ``2**-phi_fraction`` clock, a clock later.

    Timing
    ------
    A column takes three clocks, and `divide_clk` more if it is divided; that many clocks
    ``busy`` is high.
    """

    def __init__(self, params: EmulatorParams) -> None:
        self.params = params
        head = params.head
        super().__init__(
            {
                "start": In(1),
                "mask": In(head.window),
                "s_level": In(LEVEL_BITS),
                "busy": Out(1),
                "subtile": Out(head.subtile_bits),
                "column": Out(head.column_bits),
                "charge": In(signed(params.score_bits)),
                "read_subtile": In(head.subtile_bits),
                "read_column": In(head.column_bits),
                "phi": Out(params.phi_bits),
            }
        )

    @property
    def divide_clk(self) -> int:
        """Clocks of a division: the bits of phi, and one to round by."""
        return self.params.head.q_bits + self.params.phi_fraction + 1

    def elaborate(self, platform: object) -> Module:
        """Build the engine."""
        m = Module()
        p, head = self.params, self.params.head
        place_bits = head.column_bits + head.subtile_bits
        m.submodules.phis = phis = Memory(
            shape=unsigned(p.phi_bits), depth=1 << place_bits, init=[]
        )
        store, read = phis.write_port(), phis.read_port()
        walk = Walk("at", column=head.columns, subtile=head.subtiles)
        position = Signal(range(head.window))
        m.d.comb += [
            self.subtile.eq(walk["subtile"]),
            self.column.eq(walk["column"]),
            store.addr.eq(Cat(self.column, self.subtile)),
            read.addr.eq(Cat(self.read_column, self.read_subtile)),
            self.phi.eq(read.data),
        ]

        # Charge and divisor in units of a current; the quotient's first bit weighs 2**(q_bits-1).
        divisor = Signal(LEVEL_BITS + p.current_fraction)
        aligned = divisor << head.q_bits - 1
        remainder = Signal(len(divisor) + head.q_bits + 1)
        quotient = Signal(self.divide_clk)
        left = Signal(range(self.divide_clk))
        fits = Signal()
        after = Signal.like(remainder)
        taking_part = Signal()
        m.d.comb += [
            divisor.eq(self.s_level << p.current_fraction),
            fits.eq(remainder >= aligned),
            after.eq(Mux(fits, remainder - aligned, remainder)),
        ]

        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += self.busy.eq(1)
                m.d.sync += taking_part.eq(self.mask.bit_select(position, 1))
                m.next = "LOAD"
            with m.State("LOAD"):
                m.d.comb += self.busy.eq(1)
                m.d.sync += [
                    remainder.eq(self.charge),
                    quotient.eq(0),
                    left.eq(self.divide_clk - 1),
                ]
                m.next = "STORE"
                with m.If(~taking_part | (self.charge <= 0)):
                    pass
                with m.Elif(self.charge >= (divisor << head.q_bits) - divisor):
                    m.d.sync += quotient.eq(p.phi_max << 1)
                with m.Else():
                    m.next = "DIVIDE"
            with m.State("DIVIDE"):
                m.d.comb += self.busy.eq(1)
                m.d.sync += [
                    remainder.eq(after << 1),
                    quotient.eq(Cat(fits, quotient)),
                    left.eq(left - 1),
                ]
                with m.If(left == 0):
                    m.next = "STORE"
            with m.State("STORE"):
                m.d.comb += [
                    self.busy.eq(1),
                    store.en.eq(1),
                    store.data.eq((quotient + Const(1)) >> 1),
                ]
                walk.advance(m)
                m.d.sync += position.eq(position + 1)
                m.next = "FETCH"
                with m.If(walk.last):
                    m.d.sync += position.eq(0)
                    m.next = "IDLE"
        return m
