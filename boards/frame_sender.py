"""Frames out: COBS between zeros, of bytes that stand in a memory; see docs/link.md."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

__all__ = ["FrameSender"]

_RUN = 254  # longest run of bytes that one code covers


class FrameSender(Component):
    """Sends the bytes 0 to ``length - 1`` of a memory as a frame; the CRC is among them.

    Parameters
    ----------
    frame_bytes
        Most bytes of a frame, a power of two.

    Members
    -------
    start : In(1)
        Begin; ``length`` and the bytes stay while ``busy``.
    length : in
        Bytes of the frame, at least one.
    busy : Out(1)
        A frame is on its way; ``start`` comes while it is low.
    index, byte : out, in
        A byte of the memory, a clock later.
    send : Out(stream.Signature(8))
        Bytes for the line.

    Timing
    ------
    Two clocks for a byte to be looked at for a zero, and two for it to be sent.
    """

    def __init__(self, frame_bytes: int) -> None:
        self.frame_bytes = frame_bytes
        bits = frame_bytes.bit_length() - 1
        super().__init__(
            {
                "start": In(1),
                "length": In(bits + 1),
                "busy": Out(1),
                "index": Out(bits),
                "byte": In(8),
                "send": Out(stream.Signature(8)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the sender."""
        m = Module()
        at = Signal(self.frame_bytes.bit_length())  # begin of a run; then what is sent of it
        ahead = Signal(range(_RUN + 1))  # bytes of the run found; then those still to be sent
        zero = Signal()  # a zero ends the run
        place = Signal(len(at))
        m.d.comb += [
            place.eq(at + ahead),
            self.index.eq(place),
            self.busy.eq(1),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.busy.eq(0)
                m.d.sync += [at.eq(0), ahead.eq(0)]
                with m.If(self.start):
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.comb += self.send.valid.eq(1)
                with m.If(self.send.ready):
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.next = "LOOK"
            with m.State("LOOK"):
                m.d.sync += zero.eq(0)
                with m.If((place == self.length) | (ahead == _RUN)):
                    m.next = "CODE"
                with m.Elif(self.byte == 0):
                    m.d.sync += zero.eq(1)
                    m.next = "CODE"
                with m.Else():
                    m.d.sync += ahead.eq(ahead + 1)
                    m.next = "FETCH"
            with m.State("CODE"):
                m.d.comb += [self.send.valid.eq(1), self.send.payload.eq(ahead + 1)]
                with m.If(self.send.ready):
                    m.next = "REST"
            with m.State("REST"):
                m.d.comb += self.index.eq(at)
                with m.If(ahead != 0):
                    m.next = "BYTE"
                with m.Elif(~zero & (at == self.length)):
                    m.next = "END"
                with m.Else():
                    m.d.sync += at.eq(at + zero)
                    m.next = "FETCH"
            with m.State("BYTE"):
                m.d.comb += [
                    self.index.eq(at),
                    self.send.valid.eq(1),
                    self.send.payload.eq(self.byte),
                ]
                with m.If(self.send.ready):
                    m.d.sync += [at.eq(at + 1), ahead.eq(ahead - 1)]
                    m.next = "REST"
            with m.State("END"):
                m.d.comb += self.send.valid.eq(1)
                with m.If(self.send.ready):
                    m.next = "IDLE"
        return m
