"""Receiver: takes token packets from an AXI4-Stream, checks them and holds one at a time."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from hw.packet import (
    GAIN_BITS,
    SHIFT_BITS,
    SHOT_LSB,
    TAG_FIELD_BITS,
    TAG_LSB,
    Command,
    PacketError,
)
from hw.params import HeadParams

__all__ = ["Receiver", "packet_layout"]


def packet_layout(params: HeadParams, heads: int = 1) -> data.StructLayout:
    """What the sequencer is told of a packet, or of one of each head; codes stand beside it."""
    shot = {
        "accumulate": 1,
        "hold": 1,
        "shift": SHIFT_BITS,
        "s_gain": GAIN_BITS * heads,
        "a_gain": GAIN_BITS * heads,
    }
    return data.StructLayout(
        {
            "writes": 1,
            "queries": 1,
            "flushes": 1,
            "tag": params.tag_bits,
            "error": PacketError,
            **(shot if params.shots else {}),
        }
    )


class Receiver(Component):
    """Checks a token packet beat by beat and keeps its codes until it has been dealt with.

    A packet that is refused (`PacketError`) is offered like any other, with ``error`` set; its
    codes then mean nothing. One packet is held at a time: the stream is ready again in the clock
    after the packet was taken. With the streaming schedule V and Q are copied when the packet is
    taken, so that the next packet can come in while they are still in use.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    s_axis_tdata, s_axis_tvalid, s_axis_tlast : in; s_axis_tready : out
        AXI4-Stream of token packets; every beat is full, so there is no TKEEP.
    pause : In(1)
        No header is taken; a packet that has begun comes in to its end.
    packet : Out(stream)
        The packet's command, tag, shot and error; taken when its codes are no longer needed.
    refused : In(1)
        Only with several heads: the step that the packet offered belongs to is refused.
    quiet : Out(1)
        No packet is coming in or offered; stays while ``pause`` is set.
    q_write, q_index, q_data : in
        Only with ``self_test``: put one code into ``q_codes``, while no packet is in flight.
    k_codes : out
        K of the packet offered, packed, code 0 least significant.
    v_codes, q_codes : out
        V and Q of the packet offered, or with the streaming schedule of the packet taken last.

    Timing
    ------
    A packet is offered `latency_clk` clocks after its last beat was taken.

    """

    latency_clk = 1

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        own = {
            "q_write": In(1),
            "q_index": In(range(max(params.rows, 2))),
            "q_data": In(params.q_bits),
        }
        super().__init__(
            {
                "s_axis_tdata": In(params.bus_bits),
                "s_axis_tvalid": In(1),
                "s_axis_tready": Out(1),
                "s_axis_tlast": In(1),
                "pause": In(1),
                "quiet": Out(1),
                **(own if params.self_test else {}),
                **({"refused": In(1)} if params.heads > 1 else {}),
                "packet": Out(stream.Signature(packet_layout(params))),
                "k_codes": Out(params.rows * params.kv_bits),
                "v_codes": Out(params.lanes * params.kv_bits),
                "q_codes": Out(params.rows * params.q_bits),
            }
        )

    def _sections(self, m: Module) -> list[tuple[Signal, int, int, int]]:
        """Register, codes, code bits and beats of each section, in packet order."""
        p = self.params
        v, q = self.v_codes, self.q_codes
        if p.streaming:
            v, q = Signal.like(self.v_codes, name="v_in"), Signal.like(self.q_codes, name="q_in")
            held = self.packet.payload
            # A refused packet may be dropped while V and Q of an earlier one are in use.
            good = held.error == PacketError.NONE
            if p.heads > 1:
                good &= ~self.refused
            with m.If(self.packet.valid & self.packet.ready & good):
                with m.If(held.writes):
                    m.d.sync += self.v_codes.eq(v)
                with m.If(held.queries):
                    m.d.sync += self.q_codes.eq(q)
        return [
            (self.k_codes, p.rows, p.kv_bits, p.k_beats),
            (v, p.lanes, p.kv_bits, p.v_beats),
            (q, p.rows, p.q_bits, p.q_beats),
        ]

    def elaborate(self, platform: object) -> Module:
        """Build the receiver."""
        m = Module()
        p = self.params
        beat = self.s_axis_tdata
        held = self.packet.payload
        sections = self._sections(m)
        total = sum(beats for *_, beats in sections)
        first_q = total - p.q_beats

        take = Signal()
        index = Signal(range(total))  # beat of the payload, counted as if every section were there
        store = Signal()  # this beat is one of the payload's
        bad_code = Signal()
        bad_code_now = Signal()
        m.d.comb += [
            take.eq(self.s_axis_tvalid & self.s_axis_tready),
        ]

        # Header.
        command = beat[:8]
        known = Signal()
        writes = Signal()
        queries = Signal()
        shot = beat[SHOT_LSB : SHOT_LSB + 8]
        misplaced = shot.any() & ~queries if p.shots else shot.any()
        m.d.comb += [
            known.eq(
                (command >= Command.WRITE)
                & (command <= Command.FLUSH)
                & ~Cat(beat[TAG_LSB + p.tag_bits : SHOT_LSB], beat[SHOT_LSB + 8 :]).any()
                & ~misplaced
            ),
            writes.eq((command == Command.WRITE) | (command == Command.WRITE_QUERY)),
            # Bit 1 says that an answer is owed, also by a packet that is otherwise unknown.
            queries.eq(command[1]),
        ]
        assert TAG_FIELD_BITS >= p.tag_bits

        # The section beats: each code register takes its slots, and says if one is too wide.
        with m.Switch(index):
            at = 0
            for register, count, bits, beats in sections:
                for section_beat in range(beats):
                    first = section_beat * p.codes_per_beat
                    slots = range(min(p.codes_per_beat, count - first))
                    lows = [beat.word_select(slot, p.slot_bits)[:bits] for slot in slots]
                    highs = [beat.word_select(slot, p.slot_bits)[bits:] for slot in slots]
                    with m.Case(at):
                        m.d.comb += bad_code_now.eq(Cat(*highs).any())
                        with m.If(store):
                            m.d.sync += register[first * bits : (first + len(slots)) * bits].eq(
                                Cat(*lows)
                            )
                    at += 1

        final = Signal()  # this payload beat is the last that the command asks for
        m.d.comb += final.eq(index == Mux(held.queries, total - 1, first_q - 1))

        def finish(error: PacketError) -> list:
            return [held.error.eq(error), self.packet.valid.eq(1)]

        with m.FSM(name="state") as fsm:
            at_header = fsm.ongoing("HEADER")
            m.d.comb += [
                store.eq(take & fsm.ongoing("PAYLOAD")),
                self.s_axis_tready.eq(~self.packet.valid & ~(at_header & self.pause)),
                self.quiet.eq(~self.packet.valid & at_header),
            ]
            with m.State("HEADER"), m.If(take):
                m.d.sync += [
                    held.writes.eq(writes),
                    held.queries.eq(queries),
                    held.flushes.eq(command == Command.FLUSH),
                    held.tag.eq(beat[TAG_LSB:]),
                    held.error.eq(PacketError.NONE),
                    bad_code.eq(0),
                    index.eq(Mux(writes, 0, first_q)),
                ]
                if p.shots:
                    m.d.sync += [
                        Cat(held.s_gain, held.a_gain, held.accumulate, held.hold, held.shift).eq(
                            shot
                        )
                    ]
                with m.If(~known):
                    m.d.sync += held.error.eq(PacketError.COMMAND)
                    with m.If(self.s_axis_tlast):
                        m.d.sync += self.packet.valid.eq(1)
                    with m.Else():
                        m.next = "DROP"
                with m.Elif(command == Command.FLUSH):
                    with m.If(self.s_axis_tlast):
                        m.d.sync += self.packet.valid.eq(1)
                    with m.Else():
                        m.d.sync += held.error.eq(PacketError.LENGTH)
                        m.next = "DROP"
                with m.Elif(self.s_axis_tlast):
                    m.d.sync += finish(PacketError.LENGTH)
                with m.Else():
                    m.next = "PAYLOAD"
            with m.State("PAYLOAD"), m.If(take):
                m.d.sync += [index.eq(index + 1), bad_code.eq(bad_code | bad_code_now)]
                with m.If(self.s_axis_tlast):
                    m.d.sync += self.packet.valid.eq(1)
                    with m.If(~final):
                        m.d.sync += held.error.eq(PacketError.LENGTH)
                    with m.Elif(bad_code | bad_code_now):
                        m.d.sync += held.error.eq(PacketError.CODE)
                    m.next = "HEADER"
                with m.Elif(final):
                    m.d.sync += held.error.eq(PacketError.LENGTH)
                    m.next = "DROP"
            with m.State("DROP"), m.If(take & self.s_axis_tlast):
                m.d.sync += self.packet.valid.eq(1)
                m.next = "HEADER"

        with m.If(self.packet.valid & self.packet.ready):
            m.d.sync += self.packet.valid.eq(0)
        if p.self_test:
            for row in range(p.rows):
                with m.If(self.q_write & (self.q_index == row)):
                    m.d.sync += self.q_codes.word_select(row, p.q_bits).eq(self.q_data)
        return m
