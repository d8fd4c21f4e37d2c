"""Proofs of the streaming schedule: no array is written while read, nothing is lost or reordered.

The miter holds the streaming sequencer, the sender with its result slots, an environment that can
only behave legally, and a specification that sees nothing but the sequencer's lines. It counts
packets, phases and answers: a query's place in line says which integration, conversion, readout
and answer is its own. The environment: any packets in any order, good and refused, with any gaps,
each held until it is taken; a result stream that stalls at will.

The method is temporal induction from reset. Each property is proved together with an invariant of
the sequencer's registers (``helper_ok``), in which a query's clocks to the end of its readout are
a sum of what its timers hold: queries in flight keep their distance, and V is done before its own
conversion. With it one step is enough, so the number of clocks does not enter the work, and the
default schedule is proved at its full phase lengths.

Other sizes stand for any others:

- *Phase lengths* enter through the start values of down-counters that are compared with zero only.
  What differs is which phase is the longer one: a readout shorter than, as long as and longer than
  integration (which paces queries), the shortest and the longest write, guards of one clock and
  more. The sizes cover each of these, and the invariant is one formula in the lengths.
- *Tags* are copied, never looked at. *Result slots* are a counter compared with zero.
- *Lanes, rows and the window* reach the sequencer through ``empty`` alone, which is what
  `synth.prove_window.WindowMiter` proves of the window: no write since the flush.

That both schedules are equal follows without a bound: the simple one keeps the same specification
of answers, refusals and window, which depends on the packets alone and not on time. The two are
also compared directly, to a stated depth, so that no reader need believe this.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from hw.packet import PacketError
from hw.params import HeadParams
from hw.receiver import packet_layout
from hw.sender import Sender
from synth import prove
from synth.prove import Bug, Row

__all__ = [
    "EQUALITY_BUGS",
    "EQUALITY_CLK",
    "EQUALITY_SIZE",
    "RECEIVER_BUGS",
    "RECEIVER_SIZE",
    "SCHEDULE_BUGS",
    "SCHEDULE_PROPERTIES",
    "SCHEDULE_SIZES",
    "SHORTEST",
    "SIMPLE_BUGS",
    "EqualityMiter",
    "ReceiverMiter",
    "ScheduleMiter",
    "SimpleMiter",
    "schedule_properties",
]


def _size(**fields: int) -> HeadParams:
    return HeadParams(
        subtiles=1, columns=2, rows=1, lanes=1, bus_bits=32, schedule="streaming", **fields
    )


#: Sizes the streaming schedule is proved at, the default one last.
SCHEDULE_SIZES = (
    _size(q_bits=1, count_bits=1, write_clk=1, guard_clk=1, tag_bits=2, result_slots=1),
    _size(q_bits=2, count_bits=2, write_clk=2, guard_clk=1, tag_bits=2, result_slots=2),
    _size(q_bits=2, count_bits=3, write_clk=1, guard_clk=1, tag_bits=2, result_slots=3),
    _size(q_bits=2, count_bits=3, write_clk=3, guard_clk=2, tag_bits=3, result_slots=1),
    _size(q_bits=2, count_bits=2, write_clk=3, guard_clk=1, tag_bits=3, result_slots=3),
    _size(q_bits=2, count_bits=1, write_clk=1, guard_clk=2, tag_bits=2, result_slots=3),
    _size(q_bits=1, count_bits=4, write_clk=1, guard_clk=1, tag_bits=2, result_slots=4),
    _size(),
)
#: Phases of a clock each, in which traces are short.
SHORTEST = SCHEDULE_SIZES[0]
#: Size at which the two schedules are compared.
EQUALITY_SIZE = dataclasses.replace(SHORTEST, tag_bits=1, result_slots=2)
#: Packets and clocks of that comparison, with stalls anywhere and without any.
EQUALITY_CLK = {(2, True): 14, (3, False): 36}
#: Size at which the receiver is looked at: sections of more than a beat.
RECEIVER_SIZE = dataclasses.replace(_size(), rows=9, lanes=10)

#: Clocks within which each seeded bug shows.
BUG_CLK = 20

#: What is proved of the schedule, by the name of the miter's output.
SCHEDULE_PROPERTIES = {
    "arrays_ok": "no array is written while read; a query sees the K and V before it, no others",
    "banks_ok": "integrators: reset, filled and emptied in turn; a query keeps its own",
    "answers_ok": "an answer per query, in order, with its tag and error, and a slot for it",
    "window_ok": "an advance per accepted write, flush when idle, a refused packet does nothing",
    "idle_ok": "idle within the latency of a query when no packet comes",
    "taken_ok": "a packet is taken within a query's latency, a result and a write",
}

_SEQUENCER = "StreamingSequencer"

#: Bugs that the proof must find, by the property that each violates.
SCHEDULE_BUGS: Mapping[str, Sequence[Bug]] = {
    "arrays_ok": (
        Bug(
            name="K is written while scores are integrated",
            component=_SEQUENCER,
            old="free_1 = ~busy_1 | ends_1",
            new="free_1 = ~busy_1 | self.integrate",
        ),
        Bug(
            name="V is written during a conversion",
            component=_SEQUENCER,
            old="~guard_outputs & (~self.convert | last_2)",
            new="~guard_outputs",
        ),
        Bug(
            name="V is written in the guard before a conversion",
            component=_SEQUENCER,
            old="~self.v_write & ~guard_outputs &",
            new="~self.v_write &",
        ),
        Bug(
            name="V waits for the integration to end",
            component=_SEQUENCER,
            old="starts_v = v_pending & ~self.v_write &",
            new="starts_v = v_pending & ~self.v_write & ~self.integrate & ~guard_scores &",
        ),
        Bug(
            name="a write does not wait for V of the one before",
            component=_SEQUENCER,
            old="writable = ~v_pending | v_done",
            new="writable = 1",
        ),
    ),
    "banks_ok": (
        Bug(
            name="a conversion empties the wrong integrators",
            component=_SEQUENCER,
            old="self.convert_bank.eq(self.scores_bank)",
            new="self.convert_bank.eq(~self.scores_bank)",
        ),
        Bug(
            name="scores are integrated on one set",
            component=_SEQUENCER,
            old="self.scores_bank.eq(~self.scores_bank)",
            new="self.scores_bank.eq(self.scores_bank)",
        ),
        Bug(
            name="a readout empties the wrong integrators",
            component=_SEQUENCER,
            old="self.readout_bank.eq(self.convert_bank)",
            new="self.readout_bank.eq(self.scores_bank)",
        ),
        Bug(
            name="scores are reset one phase late",
            component=_SEQUENCER,
            old="self.scores_reset.eq(guard_scores & last_1)",
            new="self.scores_reset.eq(guard_outputs & last_2)",
        ),
        Bug(
            name="counts are cleared with the outputs",
            component=_SEQUENCER,
            old="self.counts_clear.eq(guard_counts & last_3)",
            new="self.counts_clear.eq(guard_outputs & last_2)",
        ),
        Bug(
            name="queries are not paced for a long readout",
            component=_SEQUENCER,
            old="if p.readout_clk > p.integrate_clk:",
            new="if False:",
        ),
    ),
    "answers_ok": (
        Bug(
            name="a tag overtakes its query",
            component=_SEQUENCER,
            old="tags[2].eq(tags[1])",
            new="tags[2].eq(tags[0])",
        ),
        Bug(
            name="an invalid answer overtakes",
            component=_SEQUENCER,
            old="(quiet & (slots != 0))",
            new="(slots != 0)",
        ),
        Bug(
            name="an invalid answer takes no slot",
            component=_SEQUENCER,
            old="m.d.comb += take_slot.eq(1)",
            new="m.d.comb += take_slot.eq(0)",
        ),
        Bug(
            name="a query does not wait for a slot",
            component=_SEQUENCER,
            old="((slots != 0) & paced)",
            new="paced",
        ),
        Bug(
            name="an answer that is not owed",
            component=_SEQUENCER,
            old="with m.If(~packet.queries | (quiet & (slots != 0))):",
            new="with m.If(~packet.queries):\n"
            "                    m.d.sync += answering.eq(1)\n"
            "                with m.If(~packet.queries | (quiet & (slots != 0))):",
        ),
    ),
    "window_ok": (
        Bug(
            name="advance when K has been written",
            component=_SEQUENCER,
            old="self.advance.eq(v_done)",
            new="self.advance.eq(self.k_write & last_1)",
        ),
        Bug(
            name="a flush waits for nothing",
            component=_SEQUENCER,
            old="with m.If(quiet):",
            new="with m.If(1):",
        ),
        Bug(
            name="a flush does not wait for V",
            component=_SEQUENCER,
            old="busy_2 | busy_3 | v_pending)",
            new="busy_2 | busy_3)",
        ),
        Bug(
            name="failed while the packet waits",
            component=_SEQUENCER,
            old="with m.If(~packet.queries | (quiet & (slots != 0))):",
            new="m.d.comb += self.failed.eq(error)\n"
            "                with m.If(~packet.queries | (quiet & (slots != 0))):",
        ),
        Bug(
            name="a query on an empty window is refused though it writes first",
            component=_SEQUENCER,
            old="packet.queries & ~packet.writes & self.empty",
            new="packet.queries & self.empty",
        ),
        Bug(
            name="a refused packet is written",
            component=_SEQUENCER,
            old="with m.If(error != PacketError.NONE):",
            new="with m.If((error != PacketError.NONE) & ~packet.writes):",
        ),
    ),
    "idle_ok": (
        Bug(
            name="V is written for ever",
            component=_SEQUENCER,
            old="self.v_write.eq(0), v_pending.eq(0)",
            new="self.v_write.eq(0), v_pending.eq(1)",
        ),
        Bug(
            name="a guard that never ends",
            component=_SEQUENCER,
            old="guard_counts.eq(0), self.readout.eq(1)",
            new="self.readout.eq(1)",
        ),
    ),
    "taken_ok": (
        Bug(
            name="slots do not come back",
            component=_SEQUENCER,
            old="slots - take_slot + self.sent",
            new="slots - take_slot",
        ),
        Bug(
            name="a write waits for V though none is pending",
            component=_SEQUENCER,
            old="writable = ~v_pending | v_done",
            new="writable = v_done",
        ),
    ),
}

#: Bugs in what the receiver keeps.
RECEIVER_BUGS = (
    Bug(
        name="receiver: a refused packet replaces V",
        component="Receiver",
        old="self.packet.ready & good",
        new="self.packet.ready",
    ),
    Bug(
        name="receiver: V is replaced as it comes in",
        component="Receiver",
        old="(v, p.lanes, p.kv_bits, p.v_beats)",
        new="(self.v_codes, p.lanes, p.kv_bits, p.v_beats)",
    ),
    Bug(
        name="receiver: a packet that only writes replaces Q",
        component="Receiver",
        old="with m.If(held.queries):",
        new="with m.If(1):",
    ),
)

#: Bugs in the simple schedule, against what both keep.
SIMPLE_BUGS = (
    Bug(
        name="simple: advance with every integration",
        component="Sequencer",
        old="self.v_write.eq(packet.writes),",
        new="self.v_write.eq(1),",
    ),
    Bug(
        name="simple: the packet is taken when K has been written",
        component="Sequencer",
        old="with m.If(self.k_write & last):",
        new="with m.If(self.k_write & last):\n            m.d.comb += self.packet.ready.eq(1)",
    ),
    Bug(
        name="simple: an empty query is answered as valid",
        component="Sequencer",
        old="self.answer.payload.error.eq(error),",
        new="self.answer.payload.error.eq(packet.error),",
    ),
)

#: Bugs that the comparison of the two schedules must find.
EQUALITY_BUGS = (
    Bug(
        name="streaming: an answer's error is lost",
        component=_SEQUENCER,
        old="self.answer.payload.error.eq(error),",
        new="self.answer.payload.error.eq(PacketError.NONE),",
    ),
    Bug(
        name="simple: a query is refused after a write",
        component="Sequencer",
        old="starved = packet.queries & ~packet.writes & self.empty",
        new="starved = packet.queries & self.empty",
    ),
)


class _Phase:
    """A line that, once high, stays so for a number of clocks; runs may follow each other."""

    def __init__(self, m: Module, line: Value, clocks: int, name: str) -> None:
        self.line = line
        self.elapsed = Signal(range(clocks + 1), name=f"{name}_elapsed")
        self.starts = Signal(name=f"{name}_starts")
        self.ends = Signal(name=f"{name}_ends")
        m.d.comb += [
            self.starts.eq(line & (self.elapsed == 0)),
            self.ends.eq(line & (self.elapsed == clocks - 1)),
        ]
        m.d.sync += self.elapsed.eq(Mux(line & ~self.ends, self.elapsed + 1, 0))
        self.whole = (self.elapsed == 0) | line


def _good(packet: Any) -> Value:
    """The receiver found nothing wrong with it."""
    return packet.error == PacketError.NONE


class _Packets:
    """Any packets, held until taken; three lines of a miter are the free choices."""

    def __init__(self, m: Module, params: HeadParams, offer: Value, choice: Value) -> None:
        layout = packet_layout(params)
        held = Signal(layout)
        waits = Signal()
        chosen = Signal(layout)
        command, error, tag = choice[:2], choice[2:4], choice[4:]
        self.valid = Signal()
        self.payload = Signal(layout)
        # A command gives one of four patterns; what is refused may be any of them or none.
        good = error == PacketError.NONE
        m.d.comb += [
            chosen.writes.eq((command == 1) | (command == 3)),
            chosen.queries.eq((command == 2) | (command == 3)),
            chosen.flushes.eq((command == 0) & (good | tag[0])),
            chosen.tag.eq(tag),
            chosen.error.eq(error),
            self.valid.eq(waits | offer),
            self.payload.eq(Mux(waits, held, chosen)),
        ]
        self.waits, self._held = waits, held
        # What an induction must be told of the packet held.
        packet = self.payload
        self.legal = (packet.writes | packet.queries | packet.flushes | ~_good(packet)) & ~(
            packet.flushes & (packet.writes | packet.queries)
        )

    def connect(self, m: Module, packet: Any) -> None:
        """Offer them to a sequencer."""
        m.d.comb += [packet.valid.eq(self.valid), packet.payload.eq(self.payload)]
        m.d.sync += [self.waits.eq(self.valid & ~packet.ready), self._held.eq(self.payload)]


def _choice_bits(params: HeadParams) -> int:
    return 4 + params.tag_bits


def _bug_size(bug: Bug) -> HeadParams:
    """Size at which a bug shows: the shortest one that has what it breaks."""
    fields: Mapping[str, Mapping[str, int]] = {
        "K is written while scores are integrated": {"q_bits": 2},
        "V is written during a conversion": {"q_bits": 2},
        "V is written in the guard before a conversion": {"guard_clk": 2},
        "queries are not paced for a long readout": {"count_bits": 2, "result_slots": 3},
        "a query does not wait for a slot": {"result_slots": 1},
        "slots do not come back": {"result_slots": 1},
    }
    return dataclasses.replace(SHORTEST, **{"result_slots": 2, **fields.get(bug.name, {})})


class ScheduleMiter(Component):
    """Streaming sequencer and sender, a legal environment, and the specification.

    The specification numbers accepted writes, K writes and V writes, modulo four; it keeps, for
    each accepted query, how many writes were accepted before it and the integrators it was
    integrated on, and in a line of its own, the answers that are owed. That four is enough, since
    no two numbers compared are ever further apart, is part of what is proved.

    Parameters
    ----------
    params
        Size, with the streaming schedule.
    bug
        Put into the sequencer.

    Members
    -------
    offer, choice, stream_ready : in
        Free choices of the environment.
    probe_* : in
        Registers of sequencer and sender; connected after flattening.
    arrays_ok : Out(1)
        Write strobes never meet the phase that reads their array, last as long as they must, and
        belong to the packet offered or to the V that is pending. While a query is integrated
        exactly the K of the writes before it have been written; while converted, exactly the V.
    banks_ok : Out(1)
        Every phase follows the reset of what it fills, by one clock; a reset never meets a charge
        that is still wanted; a query's conversion and readout use the integrators it was put on,
        which stay the same for the phase; no set is filled while it is emptied; no clear in a
        readout; every phase has its length and belongs to a query.
    answers_ok : Out(1)
        An answer is that of the oldest query that has none, with its tag and error; if valid, its
        readout has ended and no other began since. The sender has room. Idle: none is owed.
    window_ok : Out(1)
        As many advances as accepted writes, one late at most; a flush when nothing is in flight
        and for its packet; ``failed`` for a refused packet when it is taken, and nothing else.
    idle_ok : Out(1)
        Idle after `idle_clk` clocks without a packet.
    taken_ok : Out(1)
        A packet is taken within `taken_clk` clocks in which the result stream does not stall.
    helper_ok : Out(1)
        Invariant that carries the induction.
    interesting : Out(1)
        K is written, and a query is in every stage: needs three slots, and no pacing.

    """

    def __init__(self, params: HeadParams, bug: Bug | None = None) -> None:
        self.params = params
        self.bug = bug
        widths = {name: width for name, (_, width) in self._probed().items()}
        super().__init__(
            {
                "offer": In(1),
                "choice": In(_choice_bits(params)),
                "stream_ready": In(1),
                **{f"probe_{name}": In(width) for name, width in widths.items()},
                **{name: Out(1) for name in (*SCHEDULE_PROPERTIES, "helper_ok", "interesting")},
            }
        )

    @property
    def idle_clk(self) -> int:
        """Clocks without a packet after which the sequencer is idle."""
        p = self.params
        return 3 * p.guard_clk + p.integrate_clk + p.convert_clk + p.readout_clk + 1

    @property
    def taken_clk(self) -> int:
        """Clocks in which a packet is taken, when results leave."""
        # At the worst it waits for idle, then for a slot; K takes its time, and then it is taken.
        return self.idle_clk + self.params.result_beats + self.params.write_clk + 1

    def _probed(self) -> dict[str, tuple[str, int]]:
        """Register and width by the name of the probe."""
        p = self.params

        def left(*phases: int) -> int:
            return (max(*phases, 2) - 1).bit_length()

        guard, write = p.guard_clk, p.write_clk
        probed = {
            name: (f"sequencer.{name}", 1)
            for name in ("guard_scores", "guard_outputs", "guard_counts", "queries", "v_pending")
        }
        probed |= {f"tag_{stage}": (f"sequencer.tag_{stage}", p.tag_bits) for stage in (1, 2, 3)}
        probed |= {
            "left_1": ("sequencer.array_1_left", left(write, guard, p.integrate_clk)),
            "left_2": ("sequencer.array_2_left", left(guard, p.convert_clk)),
            "left_3": ("sequencer.readout_left", left(guard, p.readout_clk)),
            "left_v": ("sequencer.v_left", left(write, 1)),
            "slots": ("sequencer.slots", p.result_slots.bit_length()),
            "held": ("sender.held", p.sender_slots.bit_length()),
            "index": ("sender.index", (p.result_beats - 1).bit_length()),
        }
        if p.readout_clk > p.integrate_clk and self.bug is None:
            probed["spacing"] = ("sequencer.spacing", (guard + p.readout_clk - 1).bit_length())
        return probed

    @property
    def probes(self) -> Mapping[str, Sequence[str]]:
        """Names, after flattening, of what each probe is connected to."""
        return {f"probe_{name}": [target] for name, (target, _) in self._probed().items()}

    def elaborate(self, platform: object) -> Module:
        """Build the miter."""
        m = Module()
        p = self.params
        dut = m.submodules.sequencer = prove._component(_SEQUENCER, self.bug)(p)
        sender = m.submodules.sender = Sender(p)

        # Environment.
        packets = _Packets(m, p, self.offer, self.choice)
        packets.connect(m, dut.packet)
        packet = packets.payload
        stored = Signal()  # the window holds a token
        with m.If(dut.flush):
            m.d.sync += stored.eq(0)
        with m.Elif(dut.advance):
            m.d.sync += stored.eq(1)
        m.d.comb += [
            dut.empty.eq(~stored),
            dut.sent.eq(sender.sent),
            sender.answer.valid.eq(dut.answer.valid),
            sender.answer.payload.eq(dut.answer.payload),
            dut.answer.ready.eq(sender.answer.ready),
            sender.m_axis_tready.eq(self.stream_ready),
        ]

        # Specification: packets and phases, counted.
        k_write = _Phase(m, dut.k_write, p.write_clk, "k_write")
        v_write = _Phase(m, dut.v_write, p.write_clk, "v_write")
        integrate = _Phase(m, dut.integrate, p.integrate_clk, "integrate")
        convert = _Phase(m, dut.convert, p.convert_clk, "convert")
        readout = _Phase(m, dut.readout, p.readout_clk, "readout")
        lines = dut.k_write | dut.v_write | dut.integrate | dut.convert | dut.readout

        token = Signal()  # a write was accepted since the flush
        error = Signal(PacketError)  # as it must be
        taken = Signal()
        accepted = Signal()
        m.d.comb += [
            error.eq(packet.error),
            taken.eq(packets.valid & dut.packet.ready),
            accepted.eq(taken & (error == PacketError.NONE)),
        ]
        starved = packet.queries & ~packet.writes & ~token
        with m.If((packet.error == PacketError.NONE) & starved):
            m.d.comb += error.eq(PacketError.EMPTY)
        writes = Signal()  # an accepted packet that writes is taken
        flushes = Signal()
        queries = Signal()
        owes = Signal()  # a packet that is owed an answer, if only an invalid one, is taken
        m.d.comb += [
            writes.eq(accepted & packet.writes),
            flushes.eq(accepted & packet.flushes),
            queries.eq(accepted & packet.queries),
            owes.eq(taken & packet.queries),
        ]
        with m.If(flushes):
            m.d.sync += token.eq(0)
        with m.Elif(writes):
            m.d.sync += token.eq(1)
        written, written_k, written_v = (
            Signal(2, name=name) for name in ("written", "written_k", "written_v")
        )
        m.d.sync += [
            written.eq(written + writes),
            written_k.eq(written_k + k_write.ends),
            written_v.eq(written_v + v_write.ends),
        ]

        # Accepted queries: which is integrated, converted and read next.
        newest, at_1, at_2, at_3 = (
            Signal(2, name=name) for name in ("newest", "at_1", "at_2", "at_3")
        )
        unread = Signal(3)  # readouts that have ended, their answers not given
        m.d.sync += [
            newest.eq(newest + queries),
            at_1.eq(at_1 + integrate.ends),
            at_2.eq(at_2 + convert.ends),
            at_3.eq(at_3 + readout.ends),
        ]
        before = Array(Signal(2, name=f"before_{i}") for i in range(4))
        scores_of = Array(Signal(name=f"scores_of_{i}") for i in range(4))
        outputs_of = Array(Signal(name=f"outputs_of_{i}") for i in range(4))
        with m.If(queries):
            m.d.sync += before[newest].eq(written + writes)
        with m.If(integrate.starts):
            m.d.sync += scores_of[at_1].eq(dut.scores_bank)
        with m.If(convert.starts):
            m.d.sync += outputs_of[at_2].eq(dut.convert_bank)

        # Charges that are still wanted, by set of integrators.
        scores_full, outputs_full = Signal(2), Signal(2)
        with m.If(integrate.starts):
            m.d.sync += scores_full.bit_select(dut.scores_bank, 1).eq(1)
        with m.If(convert.ends):
            m.d.sync += scores_full.bit_select(dut.convert_bank, 1).eq(0)
        with m.If(convert.starts):
            m.d.sync += outputs_full.bit_select(dut.convert_bank, 1).eq(1)
        with m.If(readout.ends):
            m.d.sync += outputs_full.bit_select(dut.readout_bank, 1).eq(0)
        was_reset, was_armed, was_outputs_reset, was_cleared = (
            Signal(name=name)
            for name in ("was_reset", "was_armed", "was_outputs_reset", "was_cleared")
        )
        was_scores_bank, was_convert_bank = Signal(), Signal()
        m.d.sync += [
            was_reset.eq(dut.scores_reset),
            was_armed.eq(dut.arm),
            was_outputs_reset.eq(dut.outputs_reset),
            was_cleared.eq(dut.counts_clear),
            was_scores_bank.eq(dut.scores_bank),
            was_convert_bank.eq(dut.convert_bank),
        ]

        # Answers owed.
        owed, oldest = Signal(3), Signal(2)
        tag_of = Array(Signal(p.tag_bits, name=f"tag_of_{i}") for i in range(4))
        error_of = Array(Signal(PacketError, name=f"error_of_{i}") for i in range(4))
        answer = dut.answer
        good_answer = answer.valid & (answer.payload.error == PacketError.NONE)
        with m.If(owes):
            last = (oldest + owed)[:2]
            m.d.sync += [tag_of[last].eq(packet.tag), error_of[last].eq(error)]
        m.d.sync += [
            owed.eq(owed + owes - answer.valid),
            oldest.eq(oldest + answer.valid),
            unread.eq(unread + readout.ends - good_answer),
        ]

        offered = packets.valid & packet.writes & (error == PacketError.NONE)
        pending = written != written_v
        in_flight = (owed != 0) | pending | lines
        m.d.comb += [
            self.arrays_ok.eq(
                Cat(
                    ~(dut.k_write & dut.integrate),
                    ~(dut.v_write & dut.convert),
                    ~(dut.k_write & dut.v_write),
                    k_write.whole,
                    v_write.whole,
                    # One pointer serves both arrays: it has moved past every write before.
                    ~dut.k_write | (offered & (written_v == written)),
                    ~dut.v_write | pending,
                    k_write.ends == writes,
                    # The receiver keeps V and Q of the packet taken last, see `ReceiverMiter`.
                    ~(taken & packet.writes & _good(packet)) | ~pending,
                    ~(taken & packet.queries & _good(packet))
                    | ~(dut.arm | (dut.integrate & ~integrate.ends)),
                    ~dut.integrate | (written_k == before[at_1]),
                    ~dut.convert | (written_v == before[at_2]),
                ).all()
            ),
            self.banks_ok.eq(
                Cat(
                    integrate.whole,
                    convert.whole,
                    readout.whole,
                    ~dut.integrate | (at_1 != newest),
                    ~dut.convert | (at_2 != at_1),
                    ~dut.readout | (at_3 != at_2),
                    (was_reset & was_armed & (was_scores_bank == dut.scores_bank))
                    | ~integrate.starts,
                    (was_outputs_reset & (was_convert_bank == dut.convert_bank)) | ~convert.starts,
                    was_cleared | ~readout.starts,
                    # A reset is for a phase, also the other way round.
                    integrate.starts | ~was_reset,
                    integrate.starts | ~was_armed,
                    convert.starts | ~was_outputs_reset,
                    readout.starts | ~was_cleared,
                    ~dut.scores_reset | ~scores_full.bit_select(dut.scores_bank, 1),
                    ~dut.outputs_reset | ~outputs_full.bit_select(dut.convert_bank, 1),
                    ~(dut.counts_clear & dut.readout),
                    ~(dut.integrate & dut.convert) | (dut.scores_bank != dut.convert_bank),
                    ~(dut.convert & dut.readout) | (dut.convert_bank != dut.readout_bank),
                    # The bank lines stay for the phase, and are the query's own.
                    ~(dut.integrate & (integrate.elapsed != 0))
                    | (dut.scores_bank == scores_of[at_1]),
                    ~dut.convert | (dut.convert_bank == scores_of[at_2]),
                    ~(dut.convert & (convert.elapsed != 0))
                    | (dut.convert_bank == outputs_of[at_2]),
                    ~dut.readout | (dut.readout_bank == outputs_of[at_3]),
                ).all()
            ),
            self.answers_ok.eq(
                Cat(
                    ~answer.valid
                    | (
                        (owed != 0)
                        & (answer.payload.tag == tag_of[oldest])
                        & (answer.payload.error == error_of[oldest])
                        & sender.answer.ready
                    ),
                    # The sums are those of the last readout: it is this answer's, and none since.
                    unread == good_answer,
                    ~(good_answer & dut.readout),
                    owed <= 4,
                    ~dut.idle | (owed == 0),
                ).all()
            ),
            self.window_ok.eq(
                Cat(
                    dut.advance == v_write.ends,
                    ~dut.v_write | pending,
                    (written - written_v)[:2] <= 1,
                    ~dut.idle | ~pending,
                    dut.flush == flushes,
                    ~dut.flush | ~in_flight,
                    dut.failed == Mux(taken, error, PacketError.NONE),
                    # Work begins for accepted packets only.
                    ~dut.k_write | offered,
                    k_write.ends == writes,
                    ~dut.integrate | (at_1 != newest),
                ).all()
            ),
        ]

        # Time.
        calm = Signal(range(self.idle_clk + 1))
        patience = Signal(range(self.taken_clk + 1))
        with m.If(packets.valid):
            m.d.sync += calm.eq(0)
        with m.Elif(calm != self.idle_clk):
            m.d.sync += calm.eq(calm + 1)
        with m.If(~packets.valid | dut.packet.ready | ~self.stream_ready):
            m.d.sync += patience.eq(0)
        with m.Elif(patience != self.taken_clk):
            m.d.sync += patience.eq(patience + 1)
        m.d.comb += [
            self.idle_ok.eq((calm != self.idle_clk) | dut.idle),
            self.taken_ok.eq(patience != self.taken_clk),
        ]

        # Invariant.
        guard, write, read = p.guard_clk, p.write_clk, p.readout_clk
        guard_scores, guard_outputs = self.probe_guard_scores, self.probe_guard_outputs
        guard_counts, v_pending = self.probe_guard_counts, self.probe_v_pending
        left_1, left_2, left_3 = self.probe_left_1, self.probe_left_2, self.probe_left_3
        left_v = self.probe_left_v
        in_1 = guard_scores | dut.integrate
        in_2 = guard_outputs | dut.convert
        in_3 = guard_counts | dut.readout
        # Clocks to the end of a stage, this one included, and from there to the readout's end.
        to_1 = left_1 + Mux(
            dut.k_write, 1 + guard + p.integrate_clk, Mux(guard_scores, 1 + p.integrate_clk, 1)
        )
        to_2 = left_2 + Mux(guard_outputs, 1 + p.convert_clk, 1)
        to_3 = left_3 + Mux(guard_counts, 1 + read, 1)
        after_2 = guard + read
        after_1 = guard + p.convert_clk + after_2
        distance = guard + max(p.integrate_clk, read)
        to_v = Mux(dut.v_write, left_v + 1, Mux(in_2, to_2 + write, 1 + write))
        admitted = in_1 | (dut.k_write & self.probe_queries)
        index_3 = (oldest + answer.valid)[:2]
        index_2 = (oldest + answer.valid + in_3)[:2]
        index_1 = (oldest + answer.valid + in_3 + in_2)[:2]

        def implies(condition: Value, *conclusions: Value) -> Value:
            return ~condition | Cat(*conclusions).all()

        def length(phase: _Phase, left: Value, clocks: int) -> Value:
            return Mux(phase.line, phase.elapsed + left == clocks - 1, phase.elapsed == 0)

        helpers = [
            packets.legal,
            # One phase of a stage at a time, each within its length.
            dut.k_write + guard_scores + dut.integrate <= 1,
            ~(guard_outputs & dut.convert),
            ~(guard_counts & dut.readout),
            ~(answer.valid & dut.readout),
            length(k_write, left_1, write),
            length(v_write, left_v, write),
            length(integrate, left_1, p.integrate_clk),
            length(convert, left_2, p.convert_clk),
            length(readout, left_3, read),
            implies(guard_scores, left_1 < guard),
            implies(guard_outputs, left_2 < guard),
            implies(guard_counts, left_3 < guard),
            # Queries keep their distance, and V is done before its own conversion.
            implies(admitted & in_2, to_1 + after_1 >= to_2 + after_2 + distance),
            implies(admitted & in_3, to_1 + after_1 >= to_3 + distance),
            implies(in_2 & in_3, to_2 + after_2 >= to_3 + distance),
            implies(dut.k_write & in_2, to_1 >= to_2 + write),
            implies(dut.k_write, ~v_pending),
            implies(v_pending & in_1, to_v <= to_1),
            implies(v_pending, to_v <= guard + p.integrate_clk),
            implies(dut.v_write, v_pending, ~in_2),
            # The packet whose K is written.
            implies(
                dut.k_write,
                packets.valid,
                packet.writes,
                packet.error == PacketError.NONE,
                self.probe_queries == packet.queries,
                self.probe_tag_1 == packet.tag,
            ),
            # Counts of the specification.
            (newest - at_1)[:2] == in_1,
            (at_1 - at_2)[:2] == in_2,
            (at_2 - at_3)[:2] == in_3,
            owed == in_1 + in_2 + in_3 + answer.valid,
            unread == good_answer,
            written_k == written,
            (written - written_v)[:2] == v_pending,
            token == (stored | v_pending),
            implies(in_1, before[at_1] == written),
            implies(in_2, before[at_2] == written_v),
            implies(in_1, tag_of[index_1] == self.probe_tag_1, error_of[index_1] == 0),
            implies(in_2, tag_of[index_2] == self.probe_tag_2, error_of[index_2] == 0),
            implies(in_3, tag_of[index_3] == self.probe_tag_3, error_of[index_3] == 0),
            implies(
                answer.valid,
                tag_of[oldest] == answer.payload.tag,
                error_of[oldest] == answer.payload.error,
                good_answer | ~(in_1 & in_2 & in_3),
            ),
            # Integrators.
            implies(in_2, dut.convert_bank != dut.scores_bank, scores_of[at_2] == dut.convert_bank),
            implies(in_3, outputs_of[at_3] == dut.readout_bank),
            implies(in_2 & in_3, dut.convert_bank != dut.readout_bank),
            implies(in_3 & ~in_2, dut.scores_bank != dut.readout_bank),
            implies(dut.integrate & (integrate.elapsed != 0), scores_of[at_1] == dut.scores_bank),
            implies(dut.convert & (convert.elapsed != 0), outputs_of[at_2] == dut.convert_bank),
            was_armed == was_reset,
            implies(was_reset, integrate.starts, was_scores_bank == dut.scores_bank),
            implies(integrate.starts, was_reset),
            implies(was_outputs_reset, convert.starts, was_convert_bank == dut.convert_bank),
            implies(convert.starts, was_outputs_reset),
            implies(was_cleared, readout.starts),
            implies(readout.starts, was_cleared),
            # Slots.
            self.probe_slots + self.probe_held + owed + (dut.k_write & self.probe_queries)
            == p.result_slots,
            # Time: what there is to do ends in time.
            implies(calm != 0, ~dut.k_write),
            implies(in_1, to_1 + after_1 + 1 + calm <= self.idle_clk),
            implies(in_2, to_2 + after_2 + 1 + calm <= self.idle_clk),
            implies(in_3, to_3 + 1 + calm <= self.idle_clk),
            implies(answer.valid, 1 + calm <= self.idle_clk),
            implies(v_pending, to_v + calm <= self.idle_clk),
        ]
        # Clocks to idle, then to a free slot, then to the end of K.
        to_idle = Signal(range(4 * self.idle_clk))
        for busy, clocks in (
            (in_1, to_1 + after_1 + 1),
            (in_2, to_2 + after_2 + 1),
            (in_3, to_3 + 1),
            (answer.valid, 1),
            (v_pending, to_v),
        ):
            longer = Signal.like(to_idle)
            m.d.comb += longer.eq(Mux(busy & (clocks > to_idle), clocks, to_idle))
            to_idle = longer
        to_slot = Signal(range(p.result_beats + 1))
        sent_beats = Signal(range(p.result_beats + 1))
        with m.If(~dut.idle | (self.probe_slots == 0)):
            m.d.comb += to_slot.eq(p.result_beats)
        with m.If(dut.idle & (self.probe_slots == 0)):
            m.d.comb += sent_beats.eq(self.probe_index)
        helpers += [
            implies(~packets.waits, patience == 0),
            implies(dut.k_write, patience + left_1 + 1 <= self.taken_clk),
            implies(
                packets.valid & ~dut.k_write,
                patience + to_idle + to_slot + 1 + write <= self.taken_clk + sent_beats,
            ),
        ]
        for bank in range(2):
            helpers += [
                scores_full[bank]
                == (
                    (dut.integrate & (integrate.elapsed != 0) & (dut.scores_bank == bank))
                    | (in_2 & (dut.convert_bank == bank))
                ),
                outputs_full[bank]
                == (
                    (dut.convert & (convert.elapsed != 0) & (dut.convert_bank == bank))
                    | (in_3 & (dut.readout_bank == bank))
                ),
            ]
        if "spacing" in self._probed():
            started = Mux(in_1, to_1 + after_1, Mux(in_2, to_2 + after_2, Mux(in_3, to_3, 0)))
            past = 2 * guard + p.integrate_clk + p.convert_clk + 1
            helpers += [
                self.probe_spacing < guard + read,
                self.probe_spacing + past >= started,
                implies(self.probe_spacing != 0, self.probe_spacing + past == started),
            ]
        holds = Signal(len(helpers))
        m.d.comb += [
            holds.eq(Cat(*helpers)),
            self.helper_ok.eq(holds.all()),
            self.interesting.eq(
                dut.k_write & self.probe_queries & dut.convert & (guard_counts | dut.readout)
            ),
        ]
        return m


class ReceiverMiter(Component):
    """Receiver of the streaming schedule, any stream, and a sequencer that takes when it likes.

    With what `ScheduleMiter` shows of when packets are taken, this says that no code changes while
    it is in use.

    Parameters
    ----------
    params
        Size, with the streaming schedule.
    bug
        Put into the receiver.

    Members
    -------
    data, valid, last, ready : in
        Free choices.
    codes_ok : Out(1)
        K stays while a packet is offered. V and Q change only after a packet was taken in which
        nothing is wrong and that writes, or queries.
    interesting : Out(1)
        V and Q have changed, in the same clock.

    """

    probes: Mapping[str, Sequence[str]] = {}

    def __init__(self, params: HeadParams, bug: Bug | None = None) -> None:
        self.params = params
        self.bug = bug
        super().__init__(
            {
                "data": In(params.bus_bits),
                "valid": In(1),
                "last": In(1),
                "ready": In(1),
                "codes_ok": Out(1),
                "interesting": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the miter."""
        m = Module()
        dut = m.submodules.receiver = prove._component("Receiver", self.bug)(self.params)
        packet = dut.packet
        m.d.comb += [
            dut.s_axis_tdata.eq(self.data),
            dut.s_axis_tvalid.eq(self.valid),
            dut.s_axis_tlast.eq(self.last),
            packet.ready.eq(self.ready),
        ]

        taken = packet.valid & packet.ready & _good(packet.payload)
        stays = {
            "k": (dut.k_codes, ~packet.valid),
            "v": (dut.v_codes, taken & packet.payload.writes),
            "q": (dut.q_codes, taken & packet.payload.queries),
        }
        same = {}
        oks = []
        for name, (codes, may) in stays.items():
            was = Signal.like(codes, name=f"{name}_was")
            might = Signal(name=f"{name}_might")
            m.d.sync += [was.eq(codes), might.eq(may)]
            same[name] = was == codes
            oks.append(might | same[name])
        m.d.comb += [
            self.codes_ok.eq(Cat(*oks).all()),
            self.interesting.eq(~same["v"] & ~same["q"]),
        ]
        return m


class SimpleMiter(Component):
    """The simple sequencer, a legal environment, and what `ScheduleMiter` proves of the streaming.

    What a packet must do depends on the packets before it alone, not on when. As both schedules
    keep that, their answers, refusals and window operations are the same, whatever the packets.

    Parameters
    ----------
    params
        Size; its schedule is set to the simple one.
    bug
        Put into the sequencer.

    Members
    -------
    offer, choice, answer_ready : in
        Free choices of the environment.
    probe_* : in
        Registers of the sequencer; connected after flattening.
    same_ok : Out(1)
        Per packet taken: one advance if it was accepted and writes, and a flush if it flushes;
        ``failed`` if it was refused; then, before the next packet's, its answer if it is owed one,
        with its tag and error. Idle: nothing is owed.
    helper_ok : Out(1)
        Invariant that carries the induction.

    """

    _PHASES = ("guard_scores", "guard_outputs", "guard_counts", "write_v", "guard_v")

    def __init__(self, params: HeadParams, bug: Bug | None = None) -> None:
        self.params = dataclasses.replace(params, schedule="simple")
        self.bug = bug
        p = self.params
        longest = max(p.write_clk, p.guard_clk, p.integrate_clk, p.convert_clk, p.readout_clk, 2)
        super().__init__(
            {
                "offer": In(1),
                "choice": In(_choice_bits(params)),
                "answer_ready": In(1),
                **{f"probe_{phase}": In(1) for phase in self._PHASES},
                "probe_left": In(range(longest)),
                "same_ok": Out(1),
                "helper_ok": Out(1),
            }
        )

    @property
    def probes(self) -> Mapping[str, Sequence[str]]:
        """Names, after flattening, of what each probe is connected to."""
        return {f"probe_{name}": [f"sequencer.{name}"] for name in (*self._PHASES, "left")}

    def elaborate(self, platform: object) -> Module:
        """Build the miter."""
        m = Module()
        p = self.params
        dut = m.submodules.sequencer = prove._component("Sequencer", self.bug)(p)
        packets = _Packets(m, p, self.offer, self.choice)
        packets.connect(m, dut.packet)
        packet, answer = packets.payload, dut.answer
        stored = Signal()
        with m.If(dut.flush):
            m.d.sync += stored.eq(0)
        with m.Elif(dut.advance):
            m.d.sync += stored.eq(1)
        m.d.comb += [dut.empty.eq(~stored), answer.ready.eq(self.answer_ready)]

        token = Signal()  # a write was accepted since the flush
        error = Signal(PacketError)  # as it must be
        taken = Signal()
        writes = Signal()
        flushes = Signal()
        m.d.comb += [error.eq(packet.error), taken.eq(packets.valid & dut.packet.ready)]
        with m.If(_good(packet) & packet.queries & ~packet.writes & ~token):
            m.d.comb += error.eq(PacketError.EMPTY)
        accepted = taken & (error == PacketError.NONE)
        m.d.comb += [writes.eq(accepted & packet.writes), flushes.eq(accepted & packet.flushes)]
        with m.If(flushes):
            m.d.sync += token.eq(0)
        with m.Elif(writes):
            m.d.sync += token.eq(1)

        owed, advanced = Signal(), Signal()
        owed_tag, owed_error = Signal(p.tag_bits), Signal(PacketError)
        given = answer.valid & answer.ready
        owes = taken & packet.queries
        with m.If(owes):
            m.d.sync += [owed_tag.eq(packet.tag), owed_error.eq(error)]
        m.d.sync += [
            owed.eq((owed & ~given) | owes),
            advanced.eq((advanced | dut.advance) & ~taken),
        ]
        m.d.comb += self.same_ok.eq(
            Cat(
                dut.failed == Mux(taken, error, PacketError.NONE),
                dut.flush == flushes,
                ~dut.advance | ~advanced,
                ~taken | (writes == (advanced | dut.advance)),
                ~answer.valid | owed,
                ~answer.valid | (answer.payload.tag == owed_tag),
                ~answer.valid | (answer.payload.error == owed_error),
                ~owed | ~taken,
                ~dut.idle | (~owed & ~advanced),
            ).all()
        )

        before = dut.k_write | self.probe_guard_scores
        alone = self.probe_write_v | self.probe_guard_v
        begun = before | dut.integrate | alone  # and not taken
        after = self.probe_guard_outputs | dut.convert | self.probe_guard_counts | dut.readout
        writing = self.probe_left >= p.integrate_clk - p.write_clk  # in an integration
        states = Cat(
            dut.idle,
            dut.k_write,
            dut.integrate,
            dut.convert,
            dut.readout,
            answer.valid,
            *(getattr(self, f"probe_{phase}") for phase in self._PHASES),
        )
        m.d.comb += self.helper_ok.eq(
            Cat(
                packets.legal,
                states.any(),
                (states & (states - 1)[: len(states)]) == 0,
                stored == (token | advanced),
                ~begun | packets.valid,
                ~begun | (_good(packet) & ~packet.flushes & ~owed),
                ~begun | packet.writes | token,
                ~dut.k_write | packet.writes,
                ~dut.integrate | (packet.queries & (self.probe_left < p.integrate_clk)),
                ~alone | (packet.writes & ~packet.queries),
                ~(before | self.probe_write_v) | ~advanced,
                ~self.probe_guard_v | advanced,
                ~dut.integrate | (advanced == (packet.writes & ~writing)),
                dut.v_write == (self.probe_write_v | (dut.integrate & packet.writes & writing)),
                ~(after | answer.valid) | ~advanced,
                ~begun | ((answer.payload.tag == packet.tag) & (answer.payload.error == 0)),
                ~(after | answer.valid)
                | (owed & (answer.payload.tag == owed_tag) & (answer.payload.error == owed_error)),
                ~after | (owed_error == 0),
            ).all()
        )
        return m


class EqualityMiter(Component):
    """The simple and the streaming sequencer, fed the same packets, each with a sender.

    Each takes its packets when it likes, with gaps of its own, and its results leave when the
    environment likes. What comes first, of either, is written to a log; the other must follow it.

    Parameters
    ----------
    params
        Size, with the streaming schedule.
    bug
        Put into one of the two.
    packets
        Number of packets.
    stalls
        False: packets are always waiting, and results always leave.

    Members
    -------
    offer, choice, go, stream_ready : in
        Free choices: the next packet, and of each sequencer.
    equal_ok : Out(1)
        The sequences of window operations (advance, flush), of refusals, and of answers with tag
        and error are the same, as far as both go; they go equally far once both are idle.
    interesting : Out(1)
        Every packet has been dealt with: a write, a query with a valid answer and an invalid one.

    """

    probes: Mapping[str, Sequence[str]] = {}

    def __init__(
        self,
        params: HeadParams,
        bug: Bug | None = None,
        *,
        packets: int = 3,
        stalls: bool = True,
    ) -> None:
        self.params = params
        self.bug = bug
        self.packets = packets
        self.stalls = stalls
        super().__init__(
            {
                "offer": In(1),
                "choice": In(_choice_bits(params)),
                "go": In(2),
                "stream_ready": In(2),
                "equal_ok": Out(1),
                "interesting": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the miter."""
        m = Module()
        p = self.params
        packets = self.packets
        flow = Const(0 if self.stalls else 0b11, 2)
        # Packets, as they are made up.
        chosen = _Packets(m, p, Const(0), self.choice).payload
        script = Array(Signal(packet_layout(p), name=f"packet_{i}") for i in range(packets))
        known = Signal(range(packets + 1))
        with m.If((self.offer | flow[0]) & (known != packets)):
            m.d.sync += [script[known].eq(chosen), known.eq(known + 1)]

        def log(name: str, width: int) -> Array:
            return Array(Signal(width, name=f"{name}_{i}") for i in range(packets))

        logs = {"window": log("window", 1), "failed": log("failed", 3)}
        logs["answer"] = log("answer", p.tag_bits + 3)
        events: dict[str, list[tuple[Signal, Value, Value]]] = {name: [] for name in logs}
        done = []
        for side, (name, params) in enumerate(
            ((_SEQUENCER, p), ("Sequencer", dataclasses.replace(p, schedule="simple")))
        ):
            dut = prove._component(name, self.bug)(params)
            sender = Sender(params)
            m.submodules[name.lower()] = dut
            m.submodules[f"sender_{side}"] = sender
            at = Signal(range(packets + 1), name=f"at_{side}")
            waits = Signal(name=f"waits_{side}")
            stored = Signal(name=f"stored_{side}")
            valid = waits | ((at != known) & (self.go | flow)[side])
            m.d.comb += [
                dut.packet.valid.eq(valid),
                dut.packet.payload.eq(script[at]),
                dut.empty.eq(~stored),
                sender.answer.valid.eq(dut.answer.valid),
                sender.answer.payload.eq(dut.answer.payload),
                dut.answer.ready.eq(sender.answer.ready),
                sender.m_axis_tready.eq((self.stream_ready | flow)[side]),
            ]
            if side == 0:
                m.d.comb += dut.sent.eq(sender.sent)
            m.d.sync += [
                waits.eq(valid & ~dut.packet.ready),
                at.eq(at + (valid & dut.packet.ready)),
            ]
            with m.If(dut.flush):
                m.d.sync += stored.eq(0)
            with m.Elif(dut.advance):
                m.d.sync += stored.eq(1)
            answer = dut.answer
            for event, happens, value in (
                ("window", dut.advance | dut.flush, dut.flush),
                ("failed", dut.failed != PacketError.NONE, dut.failed),
                ("answer", answer.valid & answer.ready, answer.payload),
            ):
                count = Signal(range(packets + 2), name=f"{event}_count_{side}")
                m.d.sync += count.eq(count + happens)
                events[event].append((count, happens, Value.cast(value)))
            done.append((at == packets) & dut.idle)

        both_done = done[0] & done[1]
        oks = []
        for event, ((count_a, happens_a, value_a), (count_b, happens_b, value_b)) in events.items():
            entries = logs[event]
            for mine, other in (
                ((count_a, happens_a, value_a), (count_b, happens_b, value_b)),
                ((count_b, happens_b, value_b), (count_a, happens_a, value_a)),
            ):
                count, happens, value = mine
                with m.If(happens & (count >= other[0])):
                    m.d.sync += entries[count].eq(value)
                oks.append(~(happens & (count < other[0])) | (entries[count] == value))
            oks += [
                ~(happens_a & happens_b & (count_a == count_b)) | (value_a == value_b),
                ~both_done | (count_a == count_b),
                (count_a <= packets) & (count_b <= packets),
            ]
        m.d.comb += [
            self.equal_ok.eq(Cat(*oks).all()),
            self.interesting.eq(
                both_done
                & (events["window"][0][0] != 0)
                & (events["failed"][0][0] != 0)
                & (events["answer"][0][0] == 2)
                & (logs["answer"][0][p.tag_bits :] == 0)
            ),
        ]
        return m


def _job(title: str, method: str, run: Callable[[], tuple[int | None, int, dict[str, Any]]]):
    """Job of one row; ``run`` returns the depth reached if it held, the depth tried, and more."""

    def job() -> Row:
        start = time.perf_counter()
        depth, tried, more = run()
        return {
            "property": f"streaming: {title}",
            "method": method,
            "depth": tried if depth is None else depth,
            "seconds": time.perf_counter() - start,
            "status": "FAILED" if depth is None else "proved",
            **more,
        }

    return job


def _induction_job(name: str, sizes: Sequence[HeadParams]) -> Callable[[], Row]:
    def run() -> tuple[int | None, int, dict[str, Any]]:
        depths = [
            prove._prove(
                prove._Design.of(ScheduleMiter(params)), (name, "helper_ok"), from_reset=True
            )
            for params in sizes
        ]
        return None if None in depths else max(depths), prove.MAX_DEPTH, {}

    title = f"{SCHEDULE_PROPERTIES[name]} ({len(sizes)} sizes)"
    return _job(title, "temporal induction from reset", run)


def _refutation_job(
    title: str,
    miter: Callable[[Bug | None], prove.Miter],
    bugs: Sequence[Bug],
    name: str,
    depth: int,
    reach: Callable[[], prove.Miter] | None = None,
) -> Callable[[], Row]:
    """Job that finds each bug, and the interesting state if asked to; see `run_proofs`."""

    def run() -> tuple[int | None, int, dict[str, Any]]:
        found = [
            (bug, prove._find(prove._Design.of(miter(bug)), (name,), depth, from_reset=True))
            for bug in bugs
        ]
        more: dict[str, Any] = {
            "seeded_bugs": [{"name": bug.name, "trace_clk": clock} for bug, clock in found]
        }
        clocks = [clock for _, clock in found]
        if reach is not None:
            clocks.append(prove._reach(prove._Design.of(reach()), depth, from_reset=True))
            more["reached_clk"] = clocks[-1]
        return None if None in clocks else max(clocks), depth, more

    return _job(title, "traces from reset, SAT", run)


def _receiver_job() -> Callable[[], Row]:
    def run() -> tuple[int | None, int, dict[str, Any]]:
        design = prove._Design.of(ReceiverMiter(RECEIVER_SIZE))
        return prove._prove(design, ("codes_ok",), from_reset=True), prove.MAX_DEPTH, {}

    title = "K, V and Q codes stay while they are in use (9 rows, 10 lanes)"
    return _job(title, "temporal induction from reset", run)


def _equality_job(packets: int, stalls: bool) -> Callable[[], Row]:
    depth = EQUALITY_CLK[packets, stalls]

    def run() -> tuple[int | None, int, dict[str, Any]]:
        miter = EqualityMiter(EQUALITY_SIZE, packets=packets, stalls=stalls)
        holds = prove._holds(prove._Design.of(miter), "equal_ok", depth)
        return depth if holds else None, depth, {}

    how = "any stalls" if stalls else "no stalls, to the end"
    title = f"same answers, window and refusals as the simple schedule ({packets} packets, {how})"
    return _job(title, "all traces from reset, SAT", run)


def _simple_job(sizes: Sequence[HeadParams]) -> Callable[[], Row]:
    def run() -> tuple[int | None, int, dict[str, Any]]:
        depths = [
            prove._prove(
                prove._Design.of(SimpleMiter(params)), ("same_ok", "helper_ok"), from_reset=True
            )
            for params in sizes
        ]
        return None if None in depths else max(depths), prove.MAX_DEPTH, {}

    title = f"the simple schedule keeps the same specification ({len(sizes)} sizes)"
    return _job(title, "temporal induction from reset", run)


def schedule_properties(
    names: Sequence[str] = tuple(SCHEDULE_PROPERTIES),
    sizes: Sequence[HeadParams] = SCHEDULE_SIZES,
) -> list[Callable[[], Row]]:
    """Jobs that prove the streaming schedule, to be run by `synth.prove.run_proofs`.

    Parameters
    ----------
    names
        Properties of the sequencer, of `SCHEDULE_PROPERTIES`.
    sizes
        Sizes they are proved at.

    Returns
    -------
    list
        Functions without arguments, each returning a row.

    """
    # The longest first.
    jobs = [_equality_job(packets, stalls) for packets, stalls in EQUALITY_CLK]
    jobs.append(_simple_job(sizes))
    jobs += [_induction_job(name, sizes) for name in names]
    jobs += [
        _refutation_job(
            f"seeded bugs refuted, {len(SCHEDULE_BUGS[name])}: {SCHEDULE_PROPERTIES[name]}",
            lambda bug: ScheduleMiter(_bug_size(bug), bug),
            SCHEDULE_BUGS[name],
            name,
            BUG_CLK,
            # Once is enough to show that the environment does something.
            (lambda: ScheduleMiter(dataclasses.replace(SHORTEST, result_slots=3)))
            if i == 0
            else None,
        )
        for i, name in enumerate(names)
    ]
    jobs += [
        _receiver_job(),
        _refutation_job(
            f"seeded bugs refuted, {len(RECEIVER_BUGS)}: K, V and Q codes stay",
            lambda bug: ReceiverMiter(RECEIVER_SIZE, bug),
            RECEIVER_BUGS,
            "codes_ok",
            BUG_CLK,
            lambda: ReceiverMiter(RECEIVER_SIZE),
        ),
        _refutation_job(
            f"seeded bugs refuted, {len(EQUALITY_BUGS)}: same as the simple schedule",
            lambda bug: EqualityMiter(EQUALITY_SIZE, bug),
            EQUALITY_BUGS,
            "equal_ok",
            BUG_CLK,
            lambda: EqualityMiter(EQUALITY_SIZE),
        ),
        _refutation_job(
            f"seeded bugs refuted, {len(SIMPLE_BUGS)}: the simple schedule's specification",
            lambda bug: SimpleMiter(SHORTEST, bug),
            SIMPLE_BUGS,
            "same_ok",
            BUG_CLK,
        ),
    ]
    return jobs
