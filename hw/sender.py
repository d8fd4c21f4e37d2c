"""Sender: turns an answer and the lanes' results into a result packet on an AXI4-Stream."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from hw.packet import ERROR_LSB, TAG_LSB, PacketError
from hw.params import HeadParams

__all__ = ["Sender", "reply_layout"]


def reply_layout(params: HeadParams) -> data.StructLayout:
    """What the sender is told of an answer; the lanes' results stand beside it."""
    return data.StructLayout({"tag": params.tag_bits, "error": PacketError})


class Sender(Component):
    """Copies the results when it takes an answer, so that the readout is free for the next query.

    It holds as many answers as ``sender_slots`` says and sends them in order.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    answer : In(stream)
        Tag and error; taken when a slot is free.
    results, full_scale, saturated : in
        Signed results and full-scale flags of the lanes, packed, and for each group of
        ``flag_lanes`` lanes whether some lane's result did not fit its width; sampled when an
        answer is taken. Without ``shots`` every result fits, and ``saturated`` is ignored.
    m_axis_tdata, m_axis_tvalid, m_axis_tlast : out; m_axis_tready : in
        AXI4-Stream of result packets; every beat is full, so there is no TKEEP.
    full_scale_lanes : out
        Lanes at full scale in the beat that leaves in this clock, else 0.
    saturated_sent : Out(1)
        A result with ``saturated`` leaves, with its last beat, in this clock.
    sent : Out(1)
        The last beat of a packet leaves in this clock.
    idle : Out(1)
        No packet is waiting to leave.

    Timing
    ------
    The header is offered `latency_clk` clocks after the answer was taken, then a beat per clock.

    """

    latency_clk = 1

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        super().__init__(
            {
                "answer": In(stream.Signature(reply_layout(params))),
                "results": In(params.lanes * params.result_bits),
                "full_scale": In(params.lanes),
                "saturated": In(params.flag_groups),
                "m_axis_tdata": Out(params.bus_bits),
                "m_axis_tvalid": Out(1),
                "m_axis_tready": In(1),
                "m_axis_tlast": Out(1),
                "full_scale_lanes": Out(range(params.lanes_per_beat + 1)),
                "saturated_sent": Out(1),
                "sent": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the sender."""
        m = Module()
        p = self.params
        slots = p.sender_slots
        newest = Signal(range(max(slots, 2)))  # slot that takes the next answer
        oldest = Signal(range(max(slots, 2)))  # slot that leaves now
        held = Signal(range(slots + 1))
        index = Signal(range(p.result_beats))  # beat that leaves now

        takes = self.answer.valid & self.answer.ready
        leaves = self.m_axis_tvalid & self.m_axis_tready
        m.d.comb += [
            self.answer.ready.eq(held != slots),
            self.m_axis_tvalid.eq(held != 0),
            self.idle.eq(held == 0),
            self.sent.eq(leaves & self.m_axis_tlast),
        ]

        def next_slot(slot: Signal) -> object:
            return Mux(slot == slots - 1, 0, slot + 1) if slots > 1 else 0

        # What a slot holds of a valid answer.
        kept = {"results": self.results, "full_scale": self.full_scale}
        if p.shots:
            kept["saturated"] = self.saturated
        answers: list[Signal] = []
        slots_of: dict[str, list[Signal]] = {name: [] for name in kept}
        for slot in range(slots):
            slot_answer = Signal(reply_layout(p), name=f"answer_{slot}")
            answers.append(slot_answer)
            copies = {name: Signal.like(own, name=f"{name}_{slot}") for name, own in kept.items()}
            with m.If(takes & (newest == slot)):
                m.d.sync += slot_answer.eq(self.answer.payload)
                with m.If(self.answer.payload.error == PacketError.NONE):
                    m.d.sync += [copies[name].eq(own) for name, own in kept.items()]
            for name, copy in copies.items():
                slots_of[name].append(copy)
        answer = Signal(reply_layout(p))
        results = Signal(p.lanes * p.result_bits)
        full_scale = Signal(p.lanes)
        saturated = Signal()
        m.d.comb += [
            answer.eq(Array(answers)[oldest]),
            results.eq(Array(slots_of["results"])[oldest]),
            full_scale.eq(Array(slots_of["full_scale"])[oldest]),
        ]
        if p.shots:
            m.d.comb += saturated.eq(Array(slots_of["saturated"])[oldest].any())
        invalid = answer.error != PacketError.NONE

        m.d.comb += self.m_axis_tlast.eq(invalid | (index == p.result_beats - 1))
        with m.If(takes):
            m.d.sync += newest.eq(next_slot(newest))
        with m.If(self.sent):
            m.d.sync += [oldest.eq(next_slot(oldest)), index.eq(0)]
        with m.Elif(leaves):
            m.d.sync += index.eq(index + 1)
        m.d.sync += held.eq(held + takes - self.sent)

        header = Signal(p.bus_bits)
        m.d.comb += [
            header[0].eq(invalid),
            header[1].eq(full_scale.any() & ~invalid),
            header[2].eq(saturated & ~invalid),
            self.saturated_sent.eq(self.sent & saturated & ~invalid),
            header[TAG_LSB:ERROR_LSB].eq(answer.tag),
            header[ERROR_LSB : ERROR_LSB + 8].eq(answer.error),
        ]
        # Each beat is assigned whole: a bit that no case assigns would become a process without
        # inputs, which some simulators never run.
        with m.Switch(index):
            with m.Case(0):
                m.d.comb += self.m_axis_tdata.eq(header)
            for beat in range(1, p.result_beats):
                first = (beat - 1) * p.lanes_per_beat
                lanes = range(first, min(first + p.lanes_per_beat, p.lanes))
                values = [results.word_select(lane, p.result_bits).as_signed() for lane in lanes]
                slots = [
                    Cat(value, value[-1].replicate(p.result_slot_bits))[: p.result_slot_bits]
                    for value in values
                ]
                with m.Case(beat):
                    m.d.comb += self.m_axis_tdata.eq(Cat(*slots))
                    with m.If(leaves):
                        m.d.comb += self.full_scale_lanes.eq(
                            sum(full_scale[lane] for lane in lanes)
                        )
        return m
