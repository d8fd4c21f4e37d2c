"""Step: one packet of the heads' packets, and an answer for each head of the sequencer's answer."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from hw.packet import PacketError
from hw.params import HeadParams
from hw.receiver import packet_layout
from hw.sender import reply_layout
from hw.sequencer import answer_layout

__all__ = ["Step"]


class Step(Component):
    """Lets heads share a sequencer: a step is one packet of each head, taken together.

    The packets of a step must ask for the same: command, tag and shot, gain codes apart. If they
    differ, or one of them was refused, the whole step is: no head is written, so that the heads'
    windows stay one. Each head that is owed an answer then gets one with its own packet's tag and
    error, or `PacketError.STEP` if its own packet was good. With a single head there is no logic.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    packets : In(stream), one per head
        From the receivers.
    refused : Out(1)
        Only with several heads: the step that is offered is refused.
    packet : Out(stream)
        To the sequencer; of a refused step, ``queries`` says that some head is owed an answer.
    answer : In(stream)
        From the sequencer.
    replies : Out(stream), one per head
        To the senders, at the same time: with several heads, when every sender is ready.
    keep : Out(1)
        A valid answer is taken in this clock, sent or held: its shot counts.
    sent : In(heads)
        A head's result has left.
    slot : Out(1)
        A result of every head that is owed one has left: its slot is free.

    Timing
    ------
    Packets and answers pass combinationally (`latency_clk` is 0). ``slot`` follows ``sent`` after
    a clock if there are several heads.

    """

    latency_clk = 0

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        heads = params.heads
        super().__init__(
            {
                "packets": In(stream.Signature(packet_layout(params))).array(heads),
                "packet": Out(stream.Signature(packet_layout(params, heads))),
                "answer": In(stream.Signature(answer_layout(params))),
                "replies": Out(stream.Signature(reply_layout(params))).array(heads),
                "keep": Out(1),
                "sent": In(heads),
                **({"refused": Out(1)} if heads > 1 else {}),
                "slot": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the join of packets and the fork of answers."""
        m = Module()
        p = self.params
        packets = [packet.payload for packet in self.packets]
        first = packets[0]
        answer = self.answer.payload
        valid_answer = answer.error == PacketError.NONE
        probe = answer.probe if p.self_test else Const(0)
        silent = probe | (answer.hold if p.shots else Const(0))

        takes = self.packet.valid & self.packet.ready
        m.d.comb += [
            self.packet.valid.eq(Cat(packet.valid for packet in self.packets).all()),
            Cat(packet.ready for packet in self.packets).eq(takes.replicate(p.heads)),
        ]
        whole = self.packet.payload
        for name in ("writes", "flushes", "tag", *(("accumulate", "hold", "shift") * p.shots)):
            m.d.comb += whole[name].eq(first[name])
        if p.shots:
            for name in ("s_gain", "a_gain"):
                m.d.comb += whole[name].eq(Cat(packet[name] for packet in packets))

        ready = Cat(reply.ready for reply in self.replies).all()
        goes = self.answer.valid & ready & ~silent
        m.d.comb += [
            self.answer.ready.eq(silent | ready),
            self.keep.eq(
                self.answer.valid & self.answer.ready & valid_answer & ~probe,
            ),
        ]

        if p.heads == 1:
            reply = self.replies[0]
            m.d.comb += [
                whole.queries.eq(first.queries),
                whole.error.eq(first.error),
                reply.valid.eq(self.answer.valid & ~silent),
                reply.payload.tag.eq(answer.tag),
                reply.payload.error.eq(answer.error),
                self.slot.eq(self.sent),
            ]
            return m

        # What every head must ask for alike.
        common = ["writes", "queries", "flushes", "tag"]
        common += ["accumulate", "hold", "shift"] if p.shots else []
        differs = Signal()
        m.d.comb += [
            differs.eq(
                Cat(packet[name] != first[name] for packet in packets[1:] for name in common).any()
            ),
            self.refused.eq(
                differs | Cat(packet.error != PacketError.NONE for packet in packets).any()
            ),
            whole.queries.eq(Cat(packet.queries for packet in packets).any()),
        ]
        # The step's error is that of the first head whose own packet was refused.
        with m.If(self.refused):
            m.d.comb += whole.error.eq(PacketError.STEP)
        for packet in reversed(packets):
            with m.If(packet.error != PacketError.NONE):
                m.d.comb += whole.error.eq(packet.error)

        unclaimed = []  # heads whose results have left, but not yet those of every head
        for head, (packet, reply) in enumerate(zip(packets, self.replies, strict=True)):
            # Of the step taken last; an invalid answer comes before the next is taken.
            owed = Signal(name=f"owed_{head}")
            tag = Signal(p.tag_bits, name=f"tag_{head}")
            error = Signal(PacketError, name=f"error_{head}")
            with m.If(takes):
                m.d.sync += [owed.eq(packet.queries), tag.eq(packet.tag)]
                with m.If(self.refused & (packet.error == PacketError.NONE)):
                    m.d.sync += error.eq(PacketError.STEP)
                with m.Else():
                    m.d.sync += error.eq(packet.error)
            m.d.comb += [
                reply.valid.eq(goes & (valid_answer | owed)),
                reply.payload.tag.eq(Mux(valid_answer, answer.tag, tag)),
                # An empty window is found by the sequencer, of a step that was good.
                reply.payload.error.eq(
                    Mux(valid_answer | (error == PacketError.NONE), answer.error, error)
                ),
            ]
            left = Signal(range(p.sender_slots + 1), name=f"left_{head}")
            passes = goes & ~valid_answer & ~owed
            m.d.sync += left.eq(left + self.sent[head] + passes - self.slot)
            unclaimed.append(left != 0)
        m.d.comb += self.slot.eq(Cat(*unclaimed).all())
        return m
