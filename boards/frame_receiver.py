"""Frames in: COBS between zeros, CRC-32, and a queue of what was whole; see docs/link.md."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Signal, unsigned
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

__all__ = ["QUEUE", "FrameReceiver"]

QUEUE = 8  #: frames held: as many requests as a host has unanswered at once
_CRC_BYTES = 4
_RUN = 255  # code of a run that no zero follows


class FrameReceiver(Component):
    """Takes bytes as they come and queues the contents of the frames that are whole.

    What is between two zeros is dropped unless its stuffing and its CRC are right, and so is a
    frame for which the queue has no room. Of a content that is too long its first
    ``frame_bytes`` are kept, and its length tells.

    Parameters
    ----------
    frame_bytes
        Bytes kept of a content, a power of two.

    Members
    -------
    received, valid : in
        A byte.
    waiting : Out(1)
        A frame is in the queue.
    length : out
        Bytes of its content; more than ``frame_bytes`` if it is too long.
    index, byte : in, out
        A byte of its content, a clock later.
    take : In(1)
        Drop the frame; the next one stands in its place a clock later.
    rejected : Out(1)
        A stretch of bytes was dropped.

    Timing
    ------
    A frame is in the queue two clocks after the zero that ends it.
    """

    def __init__(self, frame_bytes: int) -> None:
        self.frame_bytes = frame_bytes
        bits = frame_bytes.bit_length() - 1
        super().__init__(
            {
                "received": In(8),
                "valid": In(1),
                "waiting": Out(1),
                "length": Out(bits + 1),
                "index": In(bits),
                "byte": Out(8),
                "take": In(1),
                "rejected": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the receiver."""
        m = Module()
        bits = self.frame_bytes.bit_length() - 1
        m.submodules.crc = crc = CRC32_ISO_HDLC(data_width=8).create()
        m.submodules.bytes = memory = Memory(
            shape=unsigned(8), depth=QUEUE * self.frame_bytes, init=[]
        )
        store, read = memory.write_port(), memory.read_port()
        lengths = Array(Signal(bits + 1, name=f"length_{slot}") for slot in range(QUEUE))
        newest, oldest = Signal(range(QUEUE)), Signal(range(QUEUE))
        held = Signal(range(QUEUE + 1))

        # A byte is the code of a run, which may stand for a zero, or one of the run's.
        count = Signal(bits + 1)  # bytes decoded; stays at its largest value
        run = Signal(8)  # of the present run, still to come
        zero, began = Signal(), Signal()
        overrun = Signal()  # the queue had no room
        put, value = Signal(), Signal(8)
        code = run == 0
        m.d.comb += [
            put.eq(self.valid & (self.received != 0) & (~code | zero)),
            value.eq(0),
            crc.valid.eq(put),
            crc.data.eq(value),
            store.en.eq(put & ~count[bits] & (held != QUEUE)),
            store.addr.eq(Cat(count[:bits], newest)),
            store.data.eq(value),
            self.waiting.eq(held != 0),
            self.length.eq(lengths[oldest]),
            read.addr.eq(Cat(self.index, oldest)),
            self.byte.eq(read.data),
        ]
        with m.If(~code):
            m.d.comb += value.eq(self.received)
        with m.If(put & ~count.all()):
            m.d.sync += count.eq(count + 1)

        ended = Signal()  # by a zero, whose frame is looked at a clock later, CRC included
        m.d.sync += ended.eq(0)
        with m.If(self.valid):
            m.d.sync += overrun.eq(overrun | (held == QUEUE))
            with m.If(self.received == 0):
                m.d.sync += ended.eq(began)
            with m.Elif(code):
                m.d.sync += [
                    run.eq(self.received - 1),
                    zero.eq(self.received != _RUN),
                    began.eq(1),
                ]
            with m.Else():
                m.d.sync += run.eq(run - 1)

        good, accepted = Signal(), Signal()
        m.d.comb += [
            good.eq(code & crc.match_detected & (count > _CRC_BYTES) & ~overrun),
            accepted.eq(ended & good),
            self.rejected.eq(ended & ~good),
        ]
        with m.If(accepted):
            m.d.sync += [
                lengths[newest].eq(count - _CRC_BYTES),
                newest.eq(newest + 1),
            ]
        with m.If(ended):
            m.d.comb += crc.start.eq(1)
            m.d.sync += [count.eq(0), run.eq(0), zero.eq(0), began.eq(0), overrun.eq(0)]
        with m.If(self.take):
            m.d.sync += oldest.eq(oldest + 1)
        m.d.sync += held.eq(held + accepted - self.take)
        return m
