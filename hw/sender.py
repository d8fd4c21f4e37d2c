"""Sender: turns an answer and the lanes' sums into a result packet on an AXI4-Stream."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from hw.packet import ERROR_LSB, TAG_LSB, PacketError
from hw.params import HeadParams
from hw.sequencer import answer_layout

__all__ = ["Sender"]


class Sender(Component):
    """Copies the sums when it takes an answer, so that the readout is free for the next query.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    answer : In(stream)
        Tag and error; taken when the last packet has left.
    sums, full_scale : in
        Signed sums and full-scale flags of the lanes, packed; sampled when an answer is taken.
    m_axis_tdata, m_axis_tvalid, m_axis_tlast : out; m_axis_tready : in
        AXI4-Stream of result packets; every beat is full, so there is no TKEEP.
    full_scale_lanes : out
        Lanes at full scale in the beat that leaves in this clock, else 0.
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
                "answer": In(stream.Signature(answer_layout(params))),
                "sums": In(params.lanes * params.sum_bits),
                "full_scale": In(params.lanes),
                "m_axis_tdata": Out(params.bus_bits),
                "m_axis_tvalid": Out(1),
                "m_axis_tready": In(1),
                "m_axis_tlast": Out(1),
                "full_scale_lanes": Out(range(params.lanes_per_beat + 1)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the sender."""
        m = Module()
        p = self.params
        answer = Signal(answer_layout(p))
        sums = Signal(p.lanes * p.sum_bits)
        full_scale = Signal(p.lanes)
        index = Signal(range(p.result_beats))
        invalid = answer.error != PacketError.NONE

        m.d.comb += [self.answer.ready.eq(~self.m_axis_tvalid), self.idle.eq(~self.m_axis_tvalid)]
        with m.If(self.answer.valid & self.answer.ready):
            m.d.sync += [
                answer.eq(self.answer.payload),
                self.m_axis_tvalid.eq(1),
                index.eq(0),
            ]
            with m.If(self.answer.payload.error == PacketError.NONE):
                m.d.sync += [sums.eq(self.sums), full_scale.eq(self.full_scale)]

        leaves = self.m_axis_tvalid & self.m_axis_tready
        m.d.comb += self.m_axis_tlast.eq(invalid | (index == p.result_beats - 1))
        with m.If(leaves):
            m.d.sync += index.eq(index + 1)
            with m.If(self.m_axis_tlast):
                m.d.sync += self.m_axis_tvalid.eq(0)

        header = Signal(p.bus_bits)
        m.d.comb += [
            header[0].eq(invalid),
            header[1].eq(full_scale.any() & ~invalid),
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
                values = [sums.word_select(lane, p.sum_bits).as_signed() for lane in lanes]
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
