"""Sequencer: leads one packet at a time through write, integration, conversion and readout."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from hw.packet import GAIN_BITS, SHIFT_BITS, PacketError
from hw.params import HeadParams
from hw.receiver import packet_layout

__all__ = ["Sequencer", "SequencerInterface", "answer_layout", "label_layout"]


def label_layout(params: HeadParams) -> data.StructLayout:
    """What travels with a query through its phases."""
    shot = {
        "accumulate": 1,
        "hold": 1,
        "shift": SHIFT_BITS,
        "s_gain": GAIN_BITS * params.heads,
        "a_gain": GAIN_BITS * params.heads,
    }
    return data.StructLayout(
        {
            "tag": params.tag_bits,
            **(shot if params.shots else {}),
            **({"probe": 1} if params.self_test else {}),
        }
    )


def answer_layout(params: HeadParams) -> data.StructLayout:
    """What is told of an answer; the lanes' sums stand beside it."""
    return data.StructLayout(
        {
            "tag": params.tag_bits,
            **({"accumulate": 1, "hold": 1, "shift": SHIFT_BITS} if params.shots else {}),
            **({"probe": 1} if params.self_test else {}),
            "error": PacketError,
        }
    )


class SequencerInterface(Component):
    """What both schedules share: their members, and the latency of a packet that finds them idle.

    Parameters
    ----------
    params
        Head parameters.
    own
        Members of the schedule's own.

    Members
    -------
    packet : In(stream)
        From the receivers; taken when the packet's codes are no longer needed, or copied.
    probe : In(1)
        Only with ``self_test``: the packet offered is a self-test's query. It runs on an empty
        window as well, and its answer says so.
    write_clk, guard_clk : in
        Clocks of a write and of a guard; they change only while nothing is in flight.
    empty : In(1)
        The window holds no token.
    answer : Out(stream)
        Label and error of an answer; the sums are valid with it.
    advance, flush : Out(1)
        To the window.
    k_write, v_write : Out(1)
        Write strobes of array 1 and array 2.
    refresh : In(1)
        Only with ``refresh``: a column waits to be rewritten.
    k_read, v_read : Out(1)
        Only with ``refresh``: last clock before the rewriting of K, or of V. ``k_read`` takes the
        request.
    k_refresh, v_refresh : Out(1)
        Only with ``refresh``: the write of this clock rewrites a column, its codes those kept.
    refreshed : Out(1)
        Only with ``refresh``: K and V of the column have been rewritten with this clock.
    scores_reset, outputs_reset, counts_clear : Out(1)
        Reset of array 1's integrators, of array 2's, and of the readout.
    arm : Out(1)
        Last clock before integration: the pulse bank's word lines rise with the next edge.
    integrate, convert, readout : Out(1)
        The three phases of a query.
    s_gain, a_gain : out
        Only with ``shots``: gain codes of the query in conversion, from the guard before it on,
        and of the one in readout, from the guard before it on.
    probing : Out(1)
        Only with ``self_test``: the query in readout, or in the guard before, is a self-test's.
    failed : Out(PacketError)
        Kind of the packet refused in this clock, else NONE.
    idle : Out(1)
        Nothing is in flight.

    Timing
    ------
    `latency_clk` and `query_latency_clk`, the same for both schedules; with the phase lengths that
    ``params`` names.
    """

    def __init__(self, params: HeadParams, own: dict[str, object]) -> None:
        self.params = params
        refresh = {
            "refresh": In(1),
            "k_read": Out(1),
            "v_read": Out(1),
            "k_refresh": Out(1),
            "v_refresh": Out(1),
            "refreshed": Out(1),
        }
        gains = {
            "s_gain": Out(GAIN_BITS * params.heads),
            "a_gain": Out(GAIN_BITS * params.heads),
        }
        super().__init__(
            {
                "packet": In(stream.Signature(packet_layout(params, params.heads))),
                "write_clk": In(range(params.write_max_clk + 1)),
                "guard_clk": In(range(params.guard_max_clk + 1)),
                "empty": In(1),
                "answer": Out(stream.Signature(answer_layout(params))),
                "advance": Out(1),
                "flush": Out(1),
                "k_write": Out(1),
                "v_write": Out(1),
                "scores_reset": Out(1),
                "outputs_reset": Out(1),
                "counts_clear": Out(1),
                "arm": Out(1),
                "integrate": Out(1),
                "convert": Out(1),
                "readout": Out(1),
                "failed": Out(PacketError),
                **(refresh if params.refresh else {}),
                **(gains if params.shots else {}),
                **({"probe": In(1), "probing": Out(1)} if params.self_test else {}),
                **own,
            }
        )

    @property
    def query_latency_clk(self) -> int:
        """Clocks from a packet that only queries to its answer."""
        p = self.params
        return 1 + 3 * p.guard_clk + p.integrate_clk + p.convert_clk + p.readout_clk

    @property
    def latency_clk(self) -> int:
        """Clocks from a packet that writes and queries to its answer."""
        return self.params.write_clk + self.query_latency_clk

    @property
    def refresh_delay_clk(self) -> int:
        """Most clocks by which a refresh delays the admission of a packet that queries."""
        return self.params.write_clk + 1 if self.params.refresh else 0

    def _offered(self, m: Module, empty: Value) -> tuple[Signal, Signal]:
        """Error and label of the packet offered; ``empty`` says that it meets no token."""
        packet = self.packet.payload
        error = Signal(PacketError)
        label = Signal(label_layout(self.params))
        # A window that is empty now is not when the query runs, if the packet writes first.
        starved = packet.queries & ~packet.writes & empty
        if self.params.self_test:
            starved &= ~self.probe
        m.d.comb += error.eq(packet.error)
        with m.If((packet.error == PacketError.NONE) & starved):
            m.d.comb += error.eq(PacketError.EMPTY)
        for name in label_layout(self.params).members:
            source = self.probe if name == "probe" else packet[name]
            m.d.comb += label[name].eq(source)
        return error, label

    def _answer(self, label: Signal) -> list:
        """Assignments of a valid answer to the query with that label."""
        answer = self.answer.payload
        kept = [name for name in label_layout(self.params).members if not name.endswith("_gain")]
        return [
            answer.error.eq(PacketError.NONE),
            *(answer[name].eq(label[name]) for name in kept),
        ]

    def _refuse(self, label: Signal, error: Signal) -> list:
        """Assignments of an invalid answer, which is sent even if the result was to be held."""
        assignments = [*self._answer(label), self.answer.payload.error.eq(error)]
        return assignments + ([self.answer.payload.hold.eq(0)] if self.params.shots else [])


class Sequencer(SequencerInterface):
    """The unpipelined schedule: a packet's phases follow each other, the next packet waits.

    ============= ======================= ==================================================
    phase         clocks                  what happens
    ============= ======================= ==================================================
    write K       ``write_clk``           K into array 1 (packets that write)
    guard         ``guard_clk``           scores reset in the last clock
    integrate     ``integrate_clk``       query pulses; V into array 2 meanwhile
    guard         ``guard_clk``           output integrators reset in the last clock
    convert       ``convert_clk``         phi pulses drive array 2
    guard         ``guard_clk``           counts cleared in the last clock
    readout       ``readout_clk``         result pulses are counted
    answer        1, or until taken       sums handed to the sender
    ============= ======================= ==================================================

    A packet that only writes replaces everything after the first guard by *write V* and a guard.
    A column is rewritten in both arrays at once, when no packet is being dealt with; packets and
    refreshes that both wait take turns.
    Each phase is one flip-flop that drives its control line, so no line has glitches. No charge
    waits for anybody: a query that has begun runs through to its integer sums, whatever the
    result stream's receiver does.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    As `SequencerInterface` lists them. ``packet`` is taken when its codes are no longer needed.

    Timing
    ------
    The answer is offered `latency_clk` clocks after a packet that writes and queries, and
    `query_latency_clk` after one that only queries; a packet that writes and queries is taken
    after `taken_clk`. Such packets follow each other every `interval_clk` clocks.

    """

    def __init__(self, params: HeadParams) -> None:
        super().__init__(params, {"idle": Out(1, init=1)})

    @property
    def taken_clk(self) -> int:
        """Clocks from a packet that writes and queries being offered to its being taken."""
        p = self.params
        return p.write_clk + p.guard_clk + p.integrate_clk

    @property
    def interval_clk(self) -> int:
        """Clocks between answers when such packets are always waiting and answers taken at once."""
        return self.latency_clk + 1

    def elaborate(self, platform: object) -> Module:
        """Build the sequencer."""
        m = Module()
        p = self.params
        packet = self.packet.payload
        fixed = max(p.integrate_clk, p.convert_clk, p.readout_clk)
        left = Signal(range(max(fixed, p.write_max_clk, p.guard_max_clk)))  # after this clock
        last = Signal()
        m.d.comb += last.eq(left == 0)

        # One flip-flop per phase, exactly one of them set.
        guard_scores = Signal()
        guard_outputs = Signal()
        guard_counts = Signal()
        write_v = Signal()  # of a packet that only writes
        guard_v = Signal()
        answering = Signal()

        def enter(phase: Signal, clocks: Value | int = 1) -> list:
            return [phase.eq(1), left.eq(clocks - 1)]

        with m.If(~last):
            m.d.sync += left.eq(left - 1)

        error, label = self._offered(m, self.empty)
        query = Signal.like(label)  # the one that runs
        m.d.comb += [
            self.answer.valid.eq(answering),
            self.scores_reset.eq(guard_scores & last),
            self.arm.eq(guard_scores & last & packet.queries),
            self.outputs_reset.eq(guard_outputs & last),
            self.counts_clear.eq(guard_counts & last),
        ]
        if p.shots:
            m.d.comb += [self.s_gain.eq(query.s_gain), self.a_gain.eq(query.a_gain)]
        if p.self_test:
            m.d.comb += self.probing.eq(query.probe & (guard_counts | self.readout))

        rewriting = Const(0)
        admits = self.idle & self.packet.valid
        if p.refresh:
            rewriting = self.k_refresh
            yields = Signal()  # a column was rewritten just now: a packet goes first
            m.d.sync += yields.eq(self.refreshed)
            m.d.comb += [
                self.k_read.eq(self.idle & self.refresh & ~(yields & self.packet.valid)),
                self.v_read.eq(self.k_read),
                self.v_refresh.eq(self.k_refresh),
                self.refreshed.eq(self.k_refresh & last),
            ]
            admits &= ~self.k_read
            with m.If(self.k_read):
                m.d.sync += [
                    self.idle.eq(0),
                    self.k_refresh.eq(1),
                    self.v_write.eq(1),
                    *enter(self.k_write, self.write_clk),
                ]
            with m.If(self.refreshed):
                m.d.sync += [
                    self.idle.eq(1),
                    self.k_refresh.eq(0),
                    self.k_write.eq(0),
                    self.v_write.eq(0),
                ]

        with m.If(admits):
            m.d.sync += query.eq(label)
            with m.If(error != PacketError.NONE):
                m.d.comb += [self.failed.eq(error), self.packet.ready.eq(1)]
                with m.If(packet.queries):
                    m.d.sync += [
                        self.idle.eq(0),
                        *enter(answering),
                        *self._refuse(label, error),
                    ]
            with m.Elif(packet.flushes):
                m.d.comb += [self.flush.eq(1), self.packet.ready.eq(1)]
            with m.Elif(packet.writes):
                m.d.sync += [self.idle.eq(0), *enter(self.k_write, self.write_clk)]
            with m.Else():
                m.d.sync += [self.idle.eq(0), *enter(guard_scores, self.guard_clk)]

        with m.If(self.k_write & ~rewriting & last):
            m.d.sync += [self.k_write.eq(0), *enter(guard_scores, self.guard_clk)]

        with m.If(guard_scores & last):
            m.d.sync += guard_scores.eq(0)
            with m.If(packet.queries):
                m.d.sync += [
                    *enter(self.integrate, p.integrate_clk),
                    self.v_write.eq(packet.writes),
                ]
            with m.Else():
                m.d.sync += [*enter(write_v, self.write_clk), self.v_write.eq(1)]

        # V is written from the start of the integration, or in a phase of its own.
        v_done = self.v_write & (
            (write_v & last) | (self.integrate & (left + self.write_clk == p.integrate_clk))
        )
        m.d.comb += self.advance.eq(v_done)
        with m.If(v_done):
            m.d.sync += self.v_write.eq(0)

        with m.If(write_v & last):
            m.d.sync += [write_v.eq(0), *enter(guard_v, self.guard_clk)]
        with m.If(guard_v & last):
            m.d.comb += self.packet.ready.eq(1)
            m.d.sync += [guard_v.eq(0), self.idle.eq(1)]

        with m.If(self.integrate & last):
            m.d.comb += self.packet.ready.eq(1)
            m.d.sync += [self.integrate.eq(0), *enter(guard_outputs, self.guard_clk)]
        with m.If(guard_outputs & last):
            m.d.sync += [guard_outputs.eq(0), *enter(self.convert, p.convert_clk)]
        with m.If(self.convert & last):
            m.d.sync += [self.convert.eq(0), *enter(guard_counts, self.guard_clk)]
        with m.If(guard_counts & last):
            m.d.sync += [guard_counts.eq(0), *enter(self.readout, p.readout_clk)]
        with m.If(self.readout & last):
            m.d.sync += [self.readout.eq(0), *enter(answering), *self._answer(query)]
        with m.If(answering & self.answer.ready):
            m.d.sync += [answering.eq(0), self.idle.eq(1)]
        return m
