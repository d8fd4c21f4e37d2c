"""Responses out: composed with their CRC, kept so that they can be repeated, and sent."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Signal, unsigned
from amaranth.lib import stream
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from boards.frame_receiver import QUEUE
from boards.frame_sender import FrameSender
from boards.params import BoardParams

__all__ = ["FIXED_BYTES", "SLOTS", "Responder"]

SLOTS = QUEUE + 1  #: the last responses, and one that is never repeated
FIXED_BYTES = 14  #: most bytes before a result packet's beats
_CRC_BYTES = 4


class Responder(Component):
    """Puts a response into its slot and sends it, or sends once more what is in a slot.

    Parameters
    ----------
    params
        Board parameters.

    Members
    -------
    start : In(1)
        Compose: the first ``length`` bytes of ``fixed``, then the beats of a result packet if
        ``packet`` is high; and send. All inputs stay while ``busy``.
    repeat : In(1)
        Send what ``slot`` holds.
    slot, fixed, length, packet : in
        See above; ``length`` is 1..`FIXED_BYTES`.
    busy : Out(1)
        A response is being composed or sent.
    composing : Out(1)
        It is being composed.
    beats : In(stream.Signature)
        Result packets: beat and, above it, whether it is a packet's last.
    send : Out(stream.Signature(8))
        Bytes for the line.

    Timing
    ------
    A byte takes a clock to be composed.
    """

    def __init__(self, params: BoardParams) -> None:
        self.params = params
        super().__init__(
            {
                "start": In(1),
                "repeat": In(1),
                "slot": In(range(SLOTS)),
                "fixed": In(8 * FIXED_BYTES),
                "length": In(range(FIXED_BYTES + 1)),
                "packet": In(1),
                "busy": Out(1),
                "composing": Out(1),
                "beats": In(stream.Signature(params.head.bus_bits + 1)),
                "send": Out(stream.Signature(8)),
            }
        )
        self.sender = FrameSender(params.frame_bytes)

    def elaborate(self, platform: object) -> Module:
        """Build the responder."""
        m = Module()
        p, sender = self.params, self.sender
        bits = p.frame_bytes.bit_length() - 1
        m.submodules.sender = sender
        m.submodules.crc = crc = CRC32_ISO_HDLC(data_width=8).create()
        m.submodules.bytes = memory = Memory(
            shape=unsigned(8), depth=SLOTS * p.frame_bytes, init=[]
        )
        store, read = memory.write_port(), memory.read_port()
        lengths = Array(Signal(bits + 1, name=f"length_{slot}") for slot in range(SLOTS))
        index = Signal(bits + 1)
        part = Signal(range(max(p.bus_bytes, _CRC_BYTES)))
        byte, put = Signal(8), Signal()
        beat, last = self.beats.payload[:-1], self.beats.payload[-1]
        connect(m, sender.send, flipped(self.send))
        m.d.comb += [
            store.addr.eq(Cat(index[:bits], self.slot)),
            store.data.eq(byte),
            store.en.eq(put),
            read.addr.eq(Cat(sender.index, self.slot)),
            sender.byte.eq(read.data),
            sender.length.eq(lengths[self.slot]),
            crc.data.eq(byte),
        ]
        with m.If(put):
            m.d.sync += index.eq(index + 1)

        with m.FSM() as fsm:
            m.d.comb += self.composing.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.sync += [index.eq(0), part.eq(0)]
                with m.If(self.start):
                    m.d.comb += crc.start.eq(1)
                    m.next = "FIXED"
                with m.Elif(self.repeat):
                    m.d.comb += sender.start.eq(1)
            with m.State("FIXED"):
                m.d.comb += [
                    byte.eq(self.fixed.word_select(index[:4], 8)),
                    put.eq(1),
                    crc.valid.eq(1),
                ]
                with m.If(index == self.length - 1):
                    m.next = "CRC"
                    with m.If(self.packet):
                        m.next = "BEATS"
            with m.State("BEATS"):
                m.d.comb += [
                    byte.eq(beat.word_select(part, 8)),
                    put.eq(self.beats.valid),
                    crc.valid.eq(put),
                ]
                with m.If(put):
                    m.d.sync += part.eq(part + 1)
                    with m.If(part == p.bus_bytes - 1):
                        m.d.comb += self.beats.ready.eq(1)
                        m.d.sync += part.eq(0)
                        with m.If(last):
                            m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [byte.eq(crc.crc.word_select(part[:2], 8)), put.eq(1)]
                m.d.sync += part.eq(part + 1)
                with m.If(part == _CRC_BYTES - 1):
                    m.d.sync += lengths[self.slot].eq(index + 1)
                    m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += sender.start.eq(1)
                m.next = "IDLE"
        m.d.comb += self.busy.eq(self.composing | sender.busy)
        return m
