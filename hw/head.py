"""Attention head: everything digital between the two AXI4-Streams and the analog boundary."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect

from hw.column_mask import ColumnMask
from hw.full_scale import FullScale
from hw.packet import PacketError
from hw.params import HeadParams
from hw.pulse_bank import PulseBank
from hw.readout import create_readout
from hw.receiver import Receiver
from hw.sender import Sender
from hw.sequencer import Sequencer
from hw.status import Status
from hw.streaming_sequencer import StreamingSequencer
from hw.window import Window
from hw.writer import Writer

__all__ = ["AttentionHead", "Port", "head_ports"]


@dataclass(frozen=True, kw_only=True)
class Port:
    """One port of the head."""

    name: str  #: name in the Verilog
    direction: str  #: "in" or "out"
    width: int  #: bits
    signed: bool = False  #: two's complement
    meaning: str  #: one sentence


def head_ports(params: HeadParams) -> tuple[Port, ...]:
    """Every port of the head but clock and reset, by what they belong to."""
    p = params
    converters = p.subtiles * p.lanes

    def port(name: str, direction: str, width: int, meaning: str) -> Port:
        return Port(name=name, direction=direction, width=width, meaning=meaning)

    banks = (
        port("ana_scores_bank", "out", 1, "Score integrators that are reset and integrate."),
        port("ana_convert_bank", "out", 1, "Score integrators emptied, output ones filled."),
        port("ana_readout_bank", "out", 1, "Output integrators emptied by the readout."),
    )
    return (
        port("s_axis_tdata", "in", p.bus_bits, "Token packets, AXI4-Stream."),
        port("s_axis_tvalid", "in", 1, "Token packets: the beat is valid."),
        port("s_axis_tready", "out", 1, "Token packets: the beat is taken."),
        port("s_axis_tlast", "in", 1, "Token packets: last beat of a packet."),
        port("m_axis_tdata", "out", p.bus_bits, "Result packets, AXI4-Stream."),
        port("m_axis_tvalid", "out", 1, "Result packets: the beat is valid."),
        port("m_axis_tready", "in", 1, "Result packets: the beat is taken."),
        port("m_axis_tlast", "out", 1, "Result packets: last beat of a packet."),
        port("ana_k_write", "out", 1, "Array 1: the selected column takes ana_k_code."),
        port("ana_v_write", "out", 1, "Array 2: the selected column takes ana_v_code."),
        port("ana_subtile_select", "out", p.subtiles, "Sub-tile being written, one-hot."),
        port("ana_column_select", "out", p.columns, "Column of it being written, one-hot."),
        port("ana_k_code", "out", p.rows * p.kv_bits, "DAC codes of array 1, row 0 lowest."),
        port("ana_v_code", "out", p.lanes * p.kv_bits, "DAC codes of array 2, lane 0 lowest."),
        port("ana_q_pulse", "out", p.rows, "Word lines of array 1: query pulses."),
        port("ana_scores_reset", "out", 1, "Resets the charge-to-pulse converters' integrators."),
        port("ana_integrate", "out", 1, "Q.K integration runs."),
        port("ana_column_mask", "out", p.window, "Columns that hold a token; others emit nothing."),
        port("ana_outputs_reset", "out", 1, "Resets the signed converters' integrators."),
        port("ana_convert", "out", 1, "Charge-to-pulse converters emit phi, which drives array 2."),
        port("ana_readout", "out", 1, "Signed converters emit their pulses."),
        *(banks if p.streaming else ()),
        port("ana_out_pulse", "in", converters, "Signed converters' pulses, subtile*lanes+lane."),
        port("ana_out_sign", "in", converters, "Their signs, 1 negative; from a clock before."),
        port("status_clear", "in", 1, "Clears the event counters and sticky bits."),
        port("status_sticky", "out", len(PacketError), "Command, length, code, empty, full scale."),
        port("status_command_errors", "out", p.event_bits, "Packets with an unknown command."),
        port("status_length_errors", "out", p.event_bits, "Packets of the wrong length."),
        port("status_code_errors", "out", p.event_bits, "Packets with a code out of range."),
        port("status_empty_errors", "out", p.event_bits, "Queries on an empty window."),
        port("status_full_scale_total", "out", p.event_bits, "Lanes sent that were at full scale."),
        port("status_occupancy", "out", p.window.bit_length(), "Tokens in the window."),
        port("status_idle", "out", 1, "Nothing is in flight."),
    )


class AttentionHead(Component):
    """One attention head, with the simple or the streaming schedule.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    As `head_ports` lists them. Inputs from the analog side are synchronous to the clock: the
    converters' comparators are clocked.

    Timing
    ------
    The first beat of a result is offered `latency_clk` clocks after the last beat of a packet
    that writes and queries was taken (`query_latency_clk` if it only queries), the result stream
    being free. Such packets, always waiting, are answered every `interval_clk` clocks if the
    result stream does not stall.

    """

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        self.ports = head_ports(params)
        flows = {"in": In, "out": Out}
        super().__init__({port.name: flows[port.direction](port.width) for port in self.ports})
        self.receiver = Receiver(params)
        self.sequencer = (StreamingSequencer if params.streaming else Sequencer)(params)
        self.window = Window(params)
        self.writer = Writer(params)
        self.column_mask = ColumnMask(params)
        self.pulse_bank = PulseBank(params)
        self.readout = create_readout(params)
        self.full_scale = FullScale(params)
        self.sender = Sender(params)
        self.status = Status(params)

    @property
    def latency_clk(self) -> int:
        """Clocks from a write-and-query packet's last beat to its first result beat."""
        return self.receiver.latency_clk + self.sequencer.latency_clk + self.sender.latency_clk

    @property
    def query_latency_clk(self) -> int:
        """Clocks from a query-only packet's last beat to its first result beat."""
        blocks = self.receiver.latency_clk + self.sender.latency_clk
        return blocks + self.sequencer.query_latency_clk

    @property
    def interval_clk(self) -> int:
        """Clocks between answers to packets that write and query, streams never stalling.

        The longest of the loops: the schedule; receiving the next packet, which begins when the
        one before was taken; sending an answer; and with the streaming schedule the life of a
        result slot, from admission until the answer has left, over the number of slots.
        """
        p = self.params
        schedule = self.sequencer.interval_clk
        receive = self.receiver.latency_clk + self.sequencer.taken_clk + p.token_beats
        if not p.streaming:
            return max(schedule, receive, self.sender.latency_clk + p.result_beats)
        slot = self.sequencer.latency_clk + self.sender.latency_clk + p.result_beats
        return max(schedule, receive, p.result_beats, -(-slot // p.result_slots))

    def elaborate(self, platform: object) -> Module:
        """Connect the blocks."""
        m = Module()
        p = self.params
        blocks = {
            "receiver": self.receiver,
            "sequencer": self.sequencer,
            "window": self.window,
            "writer": self.writer,
            "column_mask": self.column_mask,
            "pulse_bank": self.pulse_bank,
            "readout": self.readout,
            "full_scale": self.full_scale,
            "sender": self.sender,
            "status": self.status,
        }
        for name, block in blocks.items():
            m.submodules[name] = block
        receiver, sequencer, window = self.receiver, self.sequencer, self.window
        writer, mask, pulses = self.writer, self.column_mask, self.pulse_bank
        readout, full_scale, sender, status = (
            self.readout,
            self.full_scale,
            self.sender,
            self.status,
        )

        if p.streaming:
            m.d.comb += [
                sequencer.sent.eq(sender.sent),
                self.ana_scores_bank.eq(sequencer.scores_bank),
                self.ana_convert_bank.eq(sequencer.convert_bank),
                self.ana_readout_bank.eq(sequencer.readout_bank),
            ]
        connect(m, receiver.packet, sequencer.packet)
        connect(m, sequencer.answer, sender.answer)
        m.d.comb += [
            # Streams.
            receiver.s_axis_tdata.eq(self.s_axis_tdata),
            receiver.s_axis_tvalid.eq(self.s_axis_tvalid),
            receiver.s_axis_tlast.eq(self.s_axis_tlast),
            self.s_axis_tready.eq(receiver.s_axis_tready),
            self.m_axis_tdata.eq(sender.m_axis_tdata),
            self.m_axis_tvalid.eq(sender.m_axis_tvalid),
            self.m_axis_tlast.eq(sender.m_axis_tlast),
            sender.m_axis_tready.eq(self.m_axis_tready),
            # Window, its mask, and writing.
            window.advance.eq(sequencer.advance),
            window.flush.eq(sequencer.flush),
            sequencer.empty.eq(window.occupancy == 0),
            mask.subtile.eq(window.subtile),
            mask.column.eq(window.column),
            mask.full.eq(window.full),
            self.ana_column_mask.eq(mask.mask),
            writer.subtile.eq(window.subtile),
            writer.column.eq(window.column),
            writer.k_strobe.eq(sequencer.k_write),
            writer.v_strobe.eq(sequencer.v_write),
            self.ana_subtile_select.eq(writer.subtile_select),
            self.ana_column_select.eq(writer.column_select),
            self.ana_k_write.eq(sequencer.k_write),
            self.ana_v_write.eq(sequencer.v_write),
            self.ana_k_code.eq(receiver.k_codes),
            self.ana_v_code.eq(receiver.v_codes),
            # A query's phases.
            pulses.codes.eq(receiver.q_codes),
            pulses.arm.eq(sequencer.arm),
            pulses.integrate.eq(sequencer.integrate),
            self.ana_q_pulse.eq(pulses.pulse),
            self.ana_scores_reset.eq(sequencer.scores_reset),
            self.ana_integrate.eq(sequencer.integrate),
            self.ana_outputs_reset.eq(sequencer.outputs_reset),
            self.ana_convert.eq(sequencer.convert),
            self.ana_readout.eq(sequencer.readout),
            readout.pulse.eq(self.ana_out_pulse),
            readout.sign.eq(self.ana_out_sign),
            readout.clear.eq(sequencer.counts_clear),
            readout.enable.eq(sequencer.readout),
            full_scale.pulse.eq(self.ana_out_pulse),
            full_scale.enable.eq(sequencer.readout),
            sender.sums.eq(readout.sums),
            sender.full_scale.eq(full_scale.lanes),
            # Status.
            status.failed.eq(sequencer.failed),
            status.full_scale_lanes.eq(sender.full_scale_lanes),
            status.clear.eq(self.status_clear),
            self.status_sticky.eq(status.sticky),
            self.status_command_errors.eq(status.command_errors),
            self.status_length_errors.eq(status.length_errors),
            self.status_code_errors.eq(status.code_errors),
            self.status_empty_errors.eq(status.empty_errors),
            self.status_full_scale_total.eq(status.full_scale_total),
            self.status_occupancy.eq(window.occupancy),
            self.status_idle.eq(sequencer.idle & sender.idle & ~receiver.packet.valid),
        ]
        return m
