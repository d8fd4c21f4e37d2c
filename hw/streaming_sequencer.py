"""Streaming sequencer: phases of successive packets overlap."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib.wiring import In, Out

from hw.packet import PacketError
from hw.params import HeadParams
from hw.sequencer import SequencerInterface, label_layout

__all__ = ["StreamingSequencer"]


class StreamingSequencer(SequencerInterface):
    """The overlapped schedule: three stages, each working on a packet of its own.

    ============ ================================= ============================================
    stage        clocks of a query                 what happens
    ============ ================================= ============================================
    array 1      (write), guard, integrate         K is written, then query pulses run
    array 2      guard, convert                    phi pulses drive array 2
    readout      guard, readout                    result pulses are counted
    ============ ================================= ============================================

    A query moves from stage to stage without waiting: it is admitted only when a result slot is
    free for it, so no charge waits for anybody. V is written when array 2 is not in use: after the
    conversion of the query before, and before that of the packet's own query or of any later one.
    The next packet that writes is admitted when V has been written, so one write pointer serves
    both arrays, and the column mask of a conversion is that of its query.

    Scores and outputs are integrated on two sets of integrators in turn: a query's scores are
    reset and integrated while the scores of the query before are still being converted, and the
    same holds for the outputs. The bank lines say which set a phase uses.

    A refresh is admitted as a packet is, and before one that waits, save one that has waited for
    all to be quiet when it is. It writes K in array 1's stage; its V follows when array 2 is not
    in use, before the V of any packet admitted later. No refresh is admitted until the V of the
    one before has been written, so packets and refreshes that both wait take turns.

    Parameters
    ----------
    params
        Head parameters, ``schedule="streaming"``.

    Members
    -------
    As `SequencerInterface` lists them, and these. ``packet`` is taken when K has been written, or
    at once; ``answer`` is always taken at once. ``k_write`` and ``v_write`` are never both high.

    sent : In(1)
        A result has left the sender, and its slot is free.
    scores_bank, convert_bank, readout_bank : Out(1)
        Integrators that ``scores_reset`` and ``integrate`` use; integrators that ``convert``
        empties, in array 1, and that it and ``outputs_reset`` use, in array 2; integrators that
        ``readout`` empties.

    Timing
    ------
    The answer is offered `latency_clk` clocks after a packet that writes and queries was offered
    to an idle sequencer, `query_latency_clk` after one that only queries. Packets that write and
    query follow each other every `interval_clk` clocks.
    """

    def __init__(self, params: HeadParams) -> None:
        super().__init__(
            params,
            {
                "sent": In(1),
                "scores_bank": Out(1),
                "convert_bank": Out(1),
                "readout_bank": Out(1),
                "idle": Out(1),
            },
        )

    @property
    def taken_clk(self) -> int:
        """Clocks from a packet that writes and queries being offered to its being taken."""
        return self.params.write_clk

    @property
    def interval_clk(self) -> int:
        """Clocks between answers when such packets always wait and results leave in time."""
        p = self.params
        array_1 = p.write_clk + p.guard_clk + p.integrate_clk
        return max(array_1, p.guard_clk + p.readout_clk)

    def elaborate(self, platform: object) -> Module:
        """Build the sequencer."""
        m = Module()
        p = self.params
        packet = self.packet.payload

        def timer(name: str, *phases: int) -> tuple[Signal, Signal]:
            """Return a down-counter for the phases given, and whether its phase ends now."""
            left = Signal(range(max(*phases, 2)), name=f"{name}_left")
            last = Signal(name=f"{name}_last")
            m.d.comb += last.eq(left == 0)
            with m.If(~last):
                m.d.sync += left.eq(left - 1)
            return left, last

        left_1, last_1 = timer("array_1", p.write_max_clk, p.guard_max_clk, p.integrate_clk)
        left_2, last_2 = timer("array_2", p.guard_max_clk, p.convert_clk)
        left_3, last_3 = timer("readout", p.guard_max_clk, p.readout_clk)
        left_v, last_v = timer("v", p.write_max_clk, 1)

        # One flip-flop per phase; at most one of each stage is set.
        guard_scores = Signal()
        guard_outputs = Signal()
        guard_counts = Signal()
        answering = Signal()
        queries = Signal()  # the packet in stage 1 queries
        labels = [Signal(label_layout(p), name=f"label_{stage}") for stage in (1, 2, 3)]
        v_pending = Signal()  # V of a packet that was taken has not been written yet
        slots = Signal(range(p.result_slots + 1), init=p.result_slots)  # free ones
        # The same of a refresh; absent, they are constants.
        k_refresh, v_refresh, refresh_pending = Const(0), Const(0), Const(0)
        if p.refresh:
            k_refresh, v_refresh = self.k_refresh, self.v_refresh
            refresh_pending = Signal()

        v_done = self.v_write & last_v
        ends_1 = self.integrate & last_1
        busy_1 = self.k_write | guard_scores | self.integrate
        busy_2 = guard_outputs | self.convert
        busy_3 = guard_counts | self.readout | answering

        # Stage 1 may begin with a packet in the last clock of the one before.
        free_1 = ~busy_1 | ends_1
        quiet = ~(busy_1 | busy_2 | busy_3 | v_pending | refresh_pending)
        writable = (~v_pending | (v_done & ~v_refresh)) & (~self.v_write | v_done)
        error, label = self._offered(m, self.empty & ~v_pending)
        held = packet.hold if p.shots else Const(0)
        if p.self_test:
            held |= self.probe

        # Queries as close as array 1 lets them come are guard + integrate clocks apart, more if
        # the second writes. The readout needs guard + readout: if that is longer, they must wait.
        starts_guard = Signal()
        paced: object = 1
        if p.readout_clk > p.integrate_clk:
            spacing = Signal(range(p.guard_max_clk + p.readout_clk))
            with m.If(starts_guard):
                m.d.sync += spacing.eq(self.guard_clk + (p.readout_clk - 1))
            with m.Elif(spacing != 0):
                m.d.sync += spacing.eq(spacing - 1)
            paced = spacing <= Mux(packet.writes, self.write_clk, 0)

        take_slot = Signal()
        admits_write = Signal()  # K of a packet is written from the next clock on
        starts_k = admits_write
        offered = self.packet.valid & free_1
        refused = error != PacketError.NONE
        if p.refresh:
            # A packet that must wait until all is quiet is not kept waiting when it is.
            yields = (
                self.packet.valid
                & quiet
                & Mux(refused, packet.queries & (slots != 0), packet.flushes)
            )
            m.d.comb += self.k_read.eq(
                self.refresh & free_1 & writable & ~refresh_pending & ~yields
            )
            starts_k = admits_write | self.k_read
            offered &= ~self.k_read
            with m.If(self.k_read):
                m.d.sync += [
                    self.k_write.eq(1),
                    self.k_refresh.eq(1),
                    left_1.eq(self.write_clk - 1),
                ]
        m.d.sync += answering.eq(0)  # always taken at once; set again below
        with m.If(offered):
            with m.If(refused):
                # An invalid answer keeps its place: it waits for those before it.
                with m.If(~packet.queries | (quiet & (slots != 0))):
                    m.d.comb += [self.failed.eq(error), self.packet.ready.eq(1)]
                    with m.If(packet.queries):
                        m.d.comb += take_slot.eq(1)
                        m.d.sync += [answering.eq(1), *self._refuse(label, error)]
            with m.Elif(packet.flushes):
                with m.If(quiet):
                    m.d.comb += [self.flush.eq(1), self.packet.ready.eq(1)]
            with m.Elif(
                (~packet.writes | writable) & (~packet.queries | (((slots != 0) | held) & paced))
            ):
                m.d.comb += take_slot.eq(packet.queries & ~held)
                m.d.sync += [queries.eq(packet.queries), labels[0].eq(label)]
                with m.If(packet.writes):
                    m.d.comb += admits_write.eq(1)
                    m.d.sync += [self.k_write.eq(1), left_1.eq(self.write_clk - 1)]
                with m.Else():
                    m.d.comb += [self.packet.ready.eq(1), starts_guard.eq(1)]
                    m.d.sync += [guard_scores.eq(1), left_1.eq(self.guard_clk - 1)]

        # Stage 1: array 1.
        with m.If(self.k_write & last_1):
            m.d.sync += self.k_write.eq(0)
        with m.If(self.k_write & last_1 & ~k_refresh):
            m.d.comb += self.packet.ready.eq(1)
            m.d.sync += v_pending.eq(1)
            with m.If(queries):
                m.d.comb += starts_guard.eq(1)
                m.d.sync += [guard_scores.eq(1), left_1.eq(self.guard_clk - 1)]
        with m.If(guard_scores & last_1):
            m.d.sync += [
                guard_scores.eq(0),
                self.integrate.eq(1),
                left_1.eq(p.integrate_clk - 1),
            ]
        m.d.comb += [
            self.scores_reset.eq(guard_scores & last_1),
            self.arm.eq(guard_scores & last_1),
        ]
        with m.If(ends_1):
            m.d.sync += [
                self.integrate.eq(0),
                self.scores_bank.eq(~self.scores_bank),
                self.convert_bank.eq(self.scores_bank),
                labels[1].eq(labels[0]),
                guard_outputs.eq(1),
                left_2.eq(self.guard_clk - 1),
            ]

        # V, whenever array 2 is not in use; a refresh's first.
        array_2_free = ~self.v_write & ~guard_outputs & (~self.convert | last_2)
        starts_v = v_pending & array_2_free
        if p.refresh:
            m.d.comb += self.v_read.eq(refresh_pending & array_2_free & ~self.k_write & ~starts_k)
            starts_v = (v_pending & ~refresh_pending & array_2_free) | self.v_read
            m.d.comb += self.refreshed.eq(v_done & v_refresh)
            with m.If(self.k_write & last_1 & k_refresh):
                m.d.sync += [self.k_refresh.eq(0), refresh_pending.eq(1)]
            with m.If(self.v_read):
                m.d.sync += self.v_refresh.eq(1)
            with m.If(self.refreshed):
                m.d.sync += [self.v_refresh.eq(0), refresh_pending.eq(0)]
        with m.If(starts_v):
            m.d.sync += [self.v_write.eq(1), left_v.eq(self.write_clk - 1)]
        with m.If(v_done):
            m.d.sync += self.v_write.eq(0)
        with m.If(v_done & ~v_refresh):
            m.d.comb += self.advance.eq(1)
            m.d.sync += v_pending.eq(0)

        # Stage 2: array 2.
        with m.If(guard_outputs & last_2):
            m.d.sync += [guard_outputs.eq(0), self.convert.eq(1), left_2.eq(p.convert_clk - 1)]
        m.d.comb += self.outputs_reset.eq(guard_outputs & last_2)
        with m.If(self.convert & last_2):
            m.d.sync += [
                self.convert.eq(0),
                self.readout_bank.eq(self.convert_bank),
                labels[2].eq(labels[1]),
                guard_counts.eq(1),
                left_3.eq(self.guard_clk - 1),
            ]

        # Stage 3: readout. The slot for the result was taken when the query was admitted.
        with m.If(guard_counts & last_3):
            m.d.sync += [guard_counts.eq(0), self.readout.eq(1), left_3.eq(p.readout_clk - 1)]
        m.d.comb += self.counts_clear.eq(guard_counts & last_3)
        with m.If(self.readout & last_3):
            m.d.sync += [self.readout.eq(0), answering.eq(1), *self._answer(labels[2])]
        m.d.comb += self.answer.valid.eq(answering)
        if p.shots:
            m.d.comb += [self.s_gain.eq(labels[1].s_gain), self.a_gain.eq(labels[2].a_gain)]
        if p.self_test:
            m.d.comb += self.probing.eq(labels[2].probe & (guard_counts | self.readout))

        m.d.sync += slots.eq(slots - take_slot + self.sent)
        m.d.comb += self.idle.eq(quiet)
        return m
