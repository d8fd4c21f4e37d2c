"""Attention layer: heads that share schedule, window and registers; all that is digital of them."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out, connect

from hw.ages import Ages
from hw.code_store import CodeStore
from hw.column_mask import ColumnMask
from hw.full_scale import FullScale
from hw.params import HeadParams
from hw.pulse_bank import PulseBank
from hw.readout import create_readout
from hw.receiver import Receiver
from hw.refresh import RefreshScheduler
from hw.register_bank import AXIL_PORTS, RegisterBank
from hw.registers import LEVEL_BITS
from hw.sender import Sender
from hw.sequencer import Sequencer
from hw.shot_accumulator import ShotAccumulator
from hw.step import Step
from hw.streaming_sequencer import StreamingSequencer
from hw.window import Window
from hw.writer import Writer

__all__ = ["AttentionLayer", "Port", "layer_ports", "stream_prefixes"]


@dataclass(frozen=True, kw_only=True)
class Port:
    """One port of the layer."""

    name: str  #: name in the Verilog
    direction: str  #: "in" or "out"
    width: int  #: bits
    signed: bool = False  #: two's complement
    meaning: str  #: one sentence


def stream_prefixes(params: HeadParams, head: int) -> tuple[str, str]:
    """Prefixes of a head's stream ports, of token packets and of result packets."""
    number = "" if params.heads == 1 else f"_{head}"
    return f"s_axis{number}", f"m_axis{number}"


def layer_ports(params: HeadParams) -> tuple[Port, ...]:
    """Every port but clock and reset, by what they belong to."""
    p = params
    converters = p.heads * p.subtiles * p.lanes
    several = p.heads > 1

    def port(name: str, direction: str, width: int, meaning: str) -> Port:
        return Port(name=name, direction=direction, width=width, meaning=meaning)

    def packed(name: str, direction: str, width: int, meaning: str) -> Port:
        """Return a port of every head, packed."""
        return port(name, direction, p.heads * width, meaning + ", head 0 lowest." * several)

    streams = []
    for head in range(p.heads):
        tokens, results = stream_prefixes(p, head)
        of = f" of head {head}" if several else ""
        streams += [
            port(f"{tokens}_tdata", "in", p.bus_bits, f"Token packets{of}, AXI4-Stream."),
            port(f"{tokens}_tvalid", "in", 1, f"Token packets{of}: the beat is valid."),
            port(f"{tokens}_tready", "out", 1, f"Token packets{of}: the beat is taken."),
            port(f"{tokens}_tlast", "in", 1, f"Token packets{of}: last beat of a packet."),
            port(f"{results}_tdata", "out", p.bus_bits, f"Result packets{of}, AXI4-Stream."),
            port(f"{results}_tvalid", "out", 1, f"Result packets{of}: the beat is valid."),
            port(f"{results}_tready", "in", 1, f"Result packets{of}: the beat is taken."),
            port(f"{results}_tlast", "out", 1, f"Result packets{of}: last beat of a packet."),
        ]
    banks = (
        port("ana_scores_bank", "out", 1, "Score integrators that are reset and integrate."),
        port("ana_convert_bank", "out", 1, "Score integrators emptied, output ones filled."),
        port("ana_readout_bank", "out", 1, "Output integrators emptied by the readout."),
    )
    lines = (
        port("ana_k_write", "out", 1, "Array 1: the selected column takes ana_k_code."),
        port("ana_v_write", "out", 1, "Array 2: the selected column takes ana_v_code."),
        port("ana_subtile_select", "out", p.subtiles, "Sub-tile being written, one-hot."),
        port("ana_column_select", "out", p.columns, "Column of it being written, one-hot."),
        packed("ana_k_code", "out", p.rows * p.kv_bits, "DAC codes of array 1, row 0 lowest"),
        packed("ana_v_code", "out", p.lanes * p.kv_bits, "DAC codes of array 2, lane 0 lowest"),
        packed("ana_q_pulse", "out", p.rows, "Word lines of array 1: query pulses"),
        port("ana_scores_reset", "out", 1, "Resets the charge-to-pulse converters' integrators."),
        port("ana_integrate", "out", 1, "Q.K integration runs."),
        port("ana_column_mask", "out", p.window, "Columns that take part; others emit nothing."),
        packed(
            "ana_s_level", "out", LEVEL_BITS, "S_sat of the conversion, and in the guard before"
        ),
        port("ana_outputs_reset", "out", 1, "Resets the signed converters' integrators."),
        port("ana_convert", "out", 1, "Charge-to-pulse converters emit phi, which drives array 2."),
        packed("ana_a_level", "out", LEVEL_BITS, "A_sat of a readout, and the guard before it"),
        port("ana_readout", "out", 1, "Signed converters emit their pulses."),
        port("ana_readout_select", "out", p.subtiles, "Sub-tiles that do; the others are silent."),
        *(banks if p.streaming else ()),
        port("ana_out_pulse", "in", converters, "Pulses, (head*subtiles+subtile)*lanes+lane."),
        port("ana_out_sign", "in", converters, "Their signs, 1 negative; from a clock before."),
    )
    return (
        *streams,
        *(
            port(name, flow, width, "Registers, AXI4-Lite.")
            for name, (flow, width) in AXIL_PORTS.items()
        ),
        port("irq", "out", 1, "An enabled event has happened."),
        port("idle", "out", 1, "Nothing is in flight, and nothing is held."),
        *(
            port(line.name, line.direction, line.width, line.meaning.rstrip(".") + ".")
            for line in lines
        ),
    )


class _Channel:
    """What each head has of its own."""

    def __init__(self, params: HeadParams) -> None:
        self.receiver = Receiver(params)
        self.pulse_bank = PulseBank(params)
        self.readout = create_readout(params)
        self.full_scale = FullScale(params)
        self.shot_accumulator = ShotAccumulator(params)
        self.sender = Sender(params)
        self.code_store = CodeStore(params) if params.refresh else None


class AttentionLayer(Component):
    """Heads behind one schedule, one window and one register bank.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    As `layer_ports` lists them. Inputs from the analog side are synchronous to the clock: the
    converters' comparators are clocked.

    Timing
    ------
    The first beat of a result is offered `latency_clk` clocks after the last beat of a packet
    that writes and queries was taken (`query_latency_clk` if it only queries), the result stream
    being free; of several heads, after the last one's. Such packets, always waiting, are answered
    every `interval_clk` clocks if the result stream does not stall. A refresh delays the admission
    of a packet by at most `refresh_delay_clk`. All with the phase lengths after reset.

    """

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        self.ports = layer_ports(params)
        flows = {"in": In, "out": Out}
        super().__init__({port.name: flows[port.direction](port.width) for port in self.ports})
        self.channels = [_Channel(params) for _ in range(params.heads)]
        self.receiver, self.sender = self.channels[0].receiver, self.channels[0].sender
        self.step = Step(params)
        self.sequencer = (StreamingSequencer if params.streaming else Sequencer)(params)
        self.window = Window(params)
        self.writer = Writer(params)
        self.column_mask = ColumnMask(params)
        self.ages = Ages(params) if params.age_bits else None
        self.refresh = RefreshScheduler(params) if params.refresh else None
        self.registers = RegisterBank(params)

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
    def refresh_delay_clk(self) -> int:
        """Most clocks by which a refresh delays the admission of a packet that queries."""
        return self.sequencer.refresh_delay_clk

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
        several = int(p.heads > 1)  # a slot comes back a clock later
        slot = self.sequencer.latency_clk + self.sender.latency_clk + p.result_beats + several
        return max(schedule, receive, p.result_beats, -(-slot // p.result_slots))

    def elaborate(self, platform: object) -> Module:
        """Connect the blocks."""
        m = Module()
        p = self.params
        shared = {
            "step": self.step,
            "sequencer": self.sequencer,
            "window": self.window,
            "writer": self.writer,
            "column_mask": self.column_mask,
            "ages": self.ages,
            "refresh": self.refresh,
            "registers": self.registers,
        }
        for name, block in shared.items():
            if block is not None:
                m.submodules[name] = block
        for head, channel in enumerate(self.channels):
            number = "" if p.heads == 1 else f"_{head}"
            for name, block in vars(channel).items():
                if block is not None:
                    m.submodules[name + number] = block

        self._schedule(m)
        self._columns(m)
        self._registers(m)
        for head in range(p.heads):
            self._channel(m, head)
        return m

    def _schedule(self, m: Module) -> None:
        """Packets to the sequencer, its lines to the analog side, its answers to the senders."""
        p = self.params
        step, sequencer, registers = self.step, self.sequencer, self.registers
        settings = registers.settings
        connect(m, sequencer.answer, step.answer)
        if p.self_test:
            # A self-test's query stands in for a packet; no packet comes in meanwhile.
            probe = Signal()
            with m.If(registers.test_start):
                m.d.sync += probe.eq(1)
            m.d.comb += [
                sequencer.probe.eq(probe),
                registers.test_done.eq(sequencer.answer.valid & sequencer.answer.payload.probe),
            ]
            with m.If(probe):
                m.d.comb += [
                    sequencer.packet.valid.eq(1),
                    sequencer.packet.payload.queries.eq(1),
                ]
                if p.shots:
                    m.d.comb += [
                        sequencer.packet.payload.s_gain.eq(
                            registers.test_s_gain.replicate(p.heads)
                        ),
                        sequencer.packet.payload.a_gain.eq(
                            registers.test_a_gain.replicate(p.heads)
                        ),
                    ]
                with m.If(sequencer.packet.ready):
                    m.d.sync += probe.eq(0)
            with m.Else():
                connect(m, step.packet, sequencer.packet)
        else:
            connect(m, step.packet, sequencer.packet)
        if p.streaming:
            m.d.comb += [
                sequencer.sent.eq(step.slot),
                self.ana_scores_bank.eq(sequencer.scores_bank),
                self.ana_convert_bank.eq(sequencer.convert_bank),
                self.ana_readout_bank.eq(sequencer.readout_bank),
            ]
        everything = Const(-1, p.subtiles)
        select: Value = everything
        if p.self_test:
            only = Cat(registers.test_subtile == subtile for subtile in range(p.subtiles))
            select = Mux(sequencer.probing, only, everything)
        m.d.comb += [
            sequencer.write_clk.eq(settings.write_clk),
            sequencer.guard_clk.eq(settings.guard_clk),
            sequencer.empty.eq(self.window.occupancy == 0),
            self.ana_k_write.eq(sequencer.k_write),
            self.ana_v_write.eq(sequencer.v_write),
            self.ana_scores_reset.eq(sequencer.scores_reset),
            self.ana_integrate.eq(sequencer.integrate),
            self.ana_outputs_reset.eq(sequencer.outputs_reset),
            self.ana_convert.eq(sequencer.convert),
            self.ana_readout.eq(sequencer.readout),
            self.ana_readout_select.eq(select),
        ]

    def _columns(self, m: Module) -> None:
        """Window, its mask, the ages of its columns, and which column is written."""
        p = self.params
        sequencer, window, writer, mask = self.sequencer, self.window, self.writer, self.column_mask
        registers, settings = self.registers, self.registers.settings
        pointer: tuple[Value, Value] = (window.subtile, window.column)
        m.d.comb += [
            window.advance.eq(sequencer.advance),
            window.flush.eq(sequencer.flush | registers.soft_reset),
            mask.full.eq(window.full),
            self.ana_column_mask.eq(mask.mask),
            writer.k_strobe.eq(sequencer.k_write),
            writer.v_strobe.eq(sequencer.v_write),
            self.ana_subtile_select.eq(writer.subtile_select),
            self.ana_column_select.eq(writer.column_select),
            Cat(mask.subtile, mask.column).eq(Cat(*pointer)),
        ]
        if p.sinks:
            m.d.comb += window.sinks.eq(settings.sinks)
        written = pointer
        if p.refresh:
            refresh = self.refresh
            rewrites = sequencer.k_refresh | sequencer.v_refresh
            written = (
                Mux(rewrites, refresh.subtile, window.subtile),
                Mux(rewrites, refresh.column, window.column),
            )
            m.d.comb += [
                refresh.enable.eq(settings.refresh_enable),
                refresh.period.eq(settings.refresh_period),
                refresh.flush.eq(window.flush),
                Cat(refresh.window_subtile, refresh.window_column).eq(Cat(*pointer)),
                refresh.full.eq(window.full),
                refresh.empty.eq(window.occupancy == 0),
                # Settings are changed, and the window is flushed, when nothing is in flight.
                sequencer.refresh.eq(refresh.request & ~registers.pending),
                refresh.taken.eq(sequencer.k_read),
                refresh.done.eq(sequencer.refreshed),
                registers.refreshed.eq(sequencer.refreshed),
            ]
        m.d.comb += [writer.subtile.eq(written[0]), writer.column.eq(written[1])]
        if p.age_bits:
            ages = self.ages
            m.d.comb += [
                ages.age_tick.eq(settings.age_tick),
                ages.budget.eq(settings.age_budget),
                ages.hold.eq(sequencer.convert),
                ages.advance.eq(window.advance),
                ages.flush.eq(window.flush),
                Cat(ages.subtile, ages.column).eq(Cat(*pointer)),
                ages.occupancy.eq(window.occupancy),
                ages.full.eq(window.full),
                mask.age_mask.eq(settings.age_mask),
                mask.stale.eq(ages.stale),
                mask.lap_stale.eq(ages.lap_stale),
                registers.stale.eq(ages.any_stale),
                registers.oldest_age.eq(ages.oldest_age),
            ]
            if p.sinks:
                m.d.comb += [
                    ages.active_sinks.eq(window.active_sinks),
                    ages.wrap_subtile.eq(window.wrap_subtile),
                    ages.wrap_column.eq(window.wrap_column),
                    mask.active_sinks.eq(window.active_sinks),
                    mask.sink_stale.eq(ages.sink_stale),
                ]
            if p.refresh:
                m.d.comb += [
                    ages.refreshed.eq(sequencer.refreshed),
                    ages.refresh_subtile.eq(self.refresh.subtile),
                    ages.refresh_column.eq(self.refresh.column),
                    ages.refresh_last.eq(self.refresh.last),
                ]

    def _registers(self, m: Module) -> None:
        """Register bank: bus, and what it shows of the rest."""
        p = self.params
        registers, sequencer, window = self.registers, self.sequencer, self.window
        for name, (flow, _) in AXIL_PORTS.items():
            inner, outer = getattr(registers, name), getattr(self, name)
            m.d.comb += inner.eq(outer) if flow == "in" else outer.eq(inner)
        between = Signal()  # no head has begun a step
        quiet = Signal()  # nothing but results that wait to leave
        m.d.comb += [
            between.eq(Cat(channel.receiver.quiet for channel in self.channels).all()),
            # A step that one head has begun comes in to its end.
            *(channel.receiver.pause.eq(registers.pause & between) for channel in self.channels),
            quiet.eq(between & sequencer.idle),
            self.idle.eq(quiet & Cat(channel.sender.idle for channel in self.channels).all()),
            self.irq.eq(registers.irq),
            registers.quiet.eq(quiet & ~sequencer.probe if p.self_test else quiet),
            registers.idle.eq(self.idle),
            registers.head_latency_clk.eq(self.latency_clk),
            registers.head_query_latency_clk.eq(self.query_latency_clk),
            registers.occupancy.eq(window.occupancy),
            registers.subtile.eq(window.subtile),
            registers.column.eq(window.column),
            registers.failed.eq(sequencer.failed),
            registers.advance.eq(sequencer.advance),
            registers.answered.eq(self.step.keep),
            registers.full_scale_lanes.eq(
                sum(channel.sender.full_scale_lanes for channel in self.channels)
            ),
        ]
        if p.shots:
            m.d.comb += registers.saturated_results.eq(
                sum(channel.sender.saturated_sent for channel in self.channels)
            )
        chosen = registers.head_select if p.heads > 1 else Const(0)
        if p.trim_bits:
            trims = Array(channel.shot_accumulator.trim_read for channel in self.channels)
            m.d.comb += registers.trim_read.eq(trims[chosen])
        if p.self_test:
            sums = Array(
                Array(
                    channel.readout.sums.word_select(lane, p.sum_bits) for lane in range(p.lanes)
                )[registers.read_index]
                for channel in self.channels
            )
            m.d.comb += registers.count_read.eq(sums[chosen])

    def _channel(self, m: Module, head: int) -> None:
        """One head's own blocks."""
        p = self.params
        channel = self.channels[head]
        receiver, pulses, readout = channel.receiver, channel.pulse_bank, channel.readout
        full_scale, shots, sender = channel.full_scale, channel.shot_accumulator, channel.sender
        step, sequencer, registers = self.step, self.sequencer, self.registers
        tokens, results = stream_prefixes(p, head)
        connect(m, receiver.packet, step.packets[head])
        if p.heads > 1:
            m.d.comb += receiver.refused.eq(step.refused)
        connect(m, step.replies[head], sender.answer)

        def mine(vector: Value) -> Value:
            """Return this head's part of a packed vector."""
            return vector.word_select(head, len(vector) // p.heads)

        k_codes: Value = receiver.k_codes
        v_codes: Value = receiver.v_codes
        if channel.code_store is not None:
            store = channel.code_store
            k_codes = Mux(sequencer.k_refresh, store.k_out, k_codes)
            v_codes = Mux(sequencer.v_refresh, store.v_out, v_codes)
            m.d.comb += [
                store.subtile.eq(self.window.subtile),
                store.column.eq(self.window.column),
                store.k_write.eq(sequencer.k_write & ~sequencer.k_refresh),
                store.v_write.eq(sequencer.v_write & ~sequencer.v_refresh),
                store.k_codes.eq(receiver.k_codes),
                store.v_codes.eq(receiver.v_codes),
                store.read_subtile.eq(self.refresh.subtile),
                store.read_column.eq(self.refresh.column),
                store.k_read.eq(sequencer.k_read),
                store.v_read.eq(sequencer.v_read),
            ]
        selected = registers.head_select == head if p.heads > 1 else Const(1)
        settings = registers.settings
        s_level, a_level = settings.s_levels[0], settings.a_levels[0]
        if p.shots:
            s_level = settings.s_levels[mine(sequencer.s_gain)]
            a_level = settings.a_levels[mine(sequencer.a_gain)]
            m.d.comb += [
                shots.answers.eq(sequencer.answer.valid),
                shots.accumulate.eq(sequencer.answer.payload.accumulate),
                shots.shift.eq(sequencer.answer.payload.shift),
                shots.keep.eq(step.keep),
                shots.clear.eq(registers.soft_reset),
            ]
        if p.trim_bits:
            m.d.comb += [
                shots.trim_index.eq(
                    Mux(registers.trim_write, registers.write_index, registers.read_index)
                ),
                shots.trim_write.eq(registers.trim_write & selected),
                shots.trim_data.eq(registers.trim_data),
            ]
        if p.self_test:
            m.d.comb += [
                receiver.q_write.eq(registers.q_write & selected),
                receiver.q_index.eq(registers.write_index),
                receiver.q_data.eq(registers.q_data),
            ]
        m.d.comb += [
            # Streams.
            receiver.s_axis_tdata.eq(getattr(self, f"{tokens}_tdata")),
            receiver.s_axis_tvalid.eq(getattr(self, f"{tokens}_tvalid")),
            receiver.s_axis_tlast.eq(getattr(self, f"{tokens}_tlast")),
            getattr(self, f"{tokens}_tready").eq(receiver.s_axis_tready),
            getattr(self, f"{results}_tdata").eq(sender.m_axis_tdata),
            getattr(self, f"{results}_tvalid").eq(sender.m_axis_tvalid),
            getattr(self, f"{results}_tlast").eq(sender.m_axis_tlast),
            sender.m_axis_tready.eq(getattr(self, f"{results}_tready")),
            step.sent[head].eq(sender.sent),
            # Codes, and a query's phases.
            mine(self.ana_k_code).eq(k_codes),
            mine(self.ana_v_code).eq(v_codes),
            pulses.codes.eq(receiver.q_codes),
            pulses.arm.eq(sequencer.arm),
            pulses.integrate.eq(sequencer.integrate),
            mine(self.ana_q_pulse).eq(pulses.pulse),
            mine(self.ana_s_level).eq(s_level),
            mine(self.ana_a_level).eq(a_level),
            readout.pulse.eq(mine(self.ana_out_pulse)),
            readout.sign.eq(mine(self.ana_out_sign)),
            readout.clear.eq(sequencer.counts_clear),
            readout.enable.eq(sequencer.readout),
            full_scale.pulse.eq(mine(self.ana_out_pulse)),
            full_scale.enable.eq(sequencer.readout),
            shots.sums.eq(readout.sums),
            shots.full_scale.eq(full_scale.lanes),
            sender.results.eq(shots.results),
            sender.full_scale.eq(shots.result_full_scale),
            sender.saturated.eq(shots.saturated),
        ]
