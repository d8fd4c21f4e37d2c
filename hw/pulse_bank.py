"""Query pulse bank: one pulse-width-modulated word line per row of array 1."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from hw.params import HeadParams

__all__ = ["PulseBank"]


class PulseBank(Component):
    """Drives each word line for as many clocks as its query code says.

    All pulses start together and each is one run of clocks; word lines come straight from
    flip-flops, so they have no glitches.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    codes : in
        Query codes, packed; stable from ``arm`` to the end of ``integrate``.
    arm : In(1)
        High in the clock before the phase.
    integrate : In(1)
        High in each of the phase's ``integrate_clk`` clocks.
    pulse : out
        Word lines.

    Timing
    ------
    The word lines rise `latency_clk` clocks after ``arm``, that is, with ``integrate``.

    """

    latency_clk = 1

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        super().__init__(
            {
                "codes": In(params.rows * params.q_bits),
                "arm": In(1),
                "integrate": In(1),
                "pulse": Out(params.rows),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the pulse bank."""
        m = Module()
        p = self.params
        elapsed = Signal(p.q_bits)  # clocks of the phase that end with the next edge
        with m.If(self.arm | self.integrate):
            m.d.sync += elapsed.eq(elapsed + 1)
            for row in range(p.rows):
                m.d.sync += self.pulse[row].eq(self.codes.word_select(row, p.q_bits) > elapsed)
        with m.Else():
            m.d.sync += elapsed.eq(0)
        return m
