"""Serial line: bytes in and out, eight data bits, no parity, one stop bit."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import Component, In, Out

__all__ = ["SerialPort"]

_FRAME_BITS = 10  # start, data, stop


class SerialPort(Component):
    """Receiver and transmitter of a serial line.

    A byte whose stop bit is not high is no byte: it is dropped, and the receiver looks for the
    next falling edge once the line is high again.

    Parameters
    ----------
    bit_clk
        Clocks of a bit, at least 3; `BoardParams` sees to it.

    Members
    -------
    rx, tx : In(1), Out(1)
        The line, high when idle; ``rx`` need not be synchronous.
    received, valid : out
        A byte has come; ``valid`` is high for one clock.
    send : In(stream.Signature(8))
        Bytes to send.

    Timing
    ------
    A byte takes ``10 * bit_clk`` clocks. Bits are sampled in their middle.
    """

    def __init__(self, bit_clk: int) -> None:
        self.bit_clk = bit_clk
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "received": Out(8),
                "valid": Out(1),
                "send": In(stream.Signature(8)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build both directions."""
        m = Module()
        line = Signal(init=1)
        m.submodules.line = FFSynchronizer(self.rx, line, init=1)

        bits, left, wait = Signal(8), Signal(range(_FRAME_BITS)), Signal(range(self.bit_clk))
        m.d.sync += self.valid.eq(0)
        with m.FSM(name="receiver"):
            with m.State("IDLE"):
                m.d.sync += [wait.eq(self.bit_clk // 2 - 1), left.eq(_FRAME_BITS - 1)]
                with m.If(~line):
                    m.next = "BITS"
            with m.State("BITS"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.sync += [wait.eq(self.bit_clk - 1), left.eq(left - 1)]
                    with m.If(left == 0):
                        # The next start bit may follow before the line is looked at again.
                        m.d.sync += [self.received.eq(bits), self.valid.eq(line)]
                        m.next = "IDLE"
                        with m.If(~line):
                            m.next = "HIGH"
                    with m.Elif(left == _FRAME_BITS - 1):
                        with m.If(line):  # too short for a start bit
                            m.next = "IDLE"
                    with m.Else():
                        m.d.sync += bits.eq(Cat(bits[1:], line))
            with m.State("HIGH"):
                with m.If(line):
                    m.next = "IDLE"

        frame = Signal(_FRAME_BITS - 1, init=-1)
        sending, ticks = Signal(range(_FRAME_BITS + 1)), Signal(range(self.bit_clk))
        m.d.comb += [self.tx.eq(frame[0]), self.send.ready.eq(sending == 0)]
        with m.If(sending == 0):
            with m.If(self.send.valid):
                m.d.sync += [
                    frame.eq(self.send.payload << 1),
                    sending.eq(_FRAME_BITS),
                    ticks.eq(self.bit_clk - 1),
                ]
        with m.Else():
            m.d.sync += ticks.eq(ticks - 1)
            with m.If(ticks == 0):
                m.d.sync += [
                    frame.eq(Cat(frame[1:], 1)),
                    sending.eq(sending - 1),
                    ticks.eq(self.bit_clk - 1),
                ]
        return m
