"""Proofs of the streaming schedule: no array is written while read, nothing is lost or reordered.

The miter holds the streaming sequencer, the step and the sender with its result slots, an
environment that can only behave legally, and a specification that sees nothing but the sequencer's
lines. It counts packets, phases and answers: a query's place in line says which integration,
conversion, readout and answer is its own. The environment: any packets in any order, good and
refused, sent and held, and self-tests, with any gaps, each held until it is taken; any phase
lengths, which change whenever nothing is in flight; requests for a refresh at any time; a result
stream that stalls at will.

The method is temporal induction from reset. Each property is proved together with an invariant of
the sequencer's registers (``helper_ok``), in which a query's clocks to the end of its readout are
a sum of what its timers hold: queries in flight keep their distance, V is done before its own
conversion, and V of a refresh before that. With it one step is enough, so the number of clocks
does not enter the work.

Lengths of a write and of a guard are inputs, and any that the registers allow are proved at once.
Other sizes stand for any others:

- *Integration, conversion and readout* enter through the start values of down-counters that are
  compared with zero only. What differs is which is the longer one: a readout shorter than, as long
  as and longer than integration (which paces queries). The sizes cover each, and the invariant is
  one formula in the lengths.
- *Labels* are copied; but for ``hold`` and ``probe`` nothing looks at them. *Result slots* are a
  counter compared with zero.
- *Lanes, rows and the window* reach the sequencer through ``empty`` alone, which is what
  `synth.prove_window` proves of the window: no write since the flush. *Heads* share the sequencer;
  `synth.prove_streams` proves what joins them.
- *Columns* reach a refresh through the two pointers; one column, whichever it is, is watched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect

from hw.packet import PacketError
from hw.params import HeadParams
from hw.receiver import packet_layout
from hw.sender import Sender
from hw.sequencer import answer_layout, label_layout
from hw.step import Step
from synth import prove
from synth.prove import Bug, Row, induction_job, refutation_job

__all__ = [
    "BUG_CLK",
    "RECEIVER_BUGS",
    "RECEIVER_SIZES",
    "SCHEDULE_BUGS",
    "SCHEDULE_PROPERTIES",
    "SCHEDULE_SIZES",
    "SHORTEST",
    "Lengths",
    "Packets",
    "Phase",
    "ReceiverMiter",
    "ScheduleMiter",
    "WatchedColumn",
    "schedule_names",
    "schedule_properties",
]


def _size(**fields: Any) -> HeadParams:
    return HeadParams(
        subtiles=1, columns=2, rows=1, lanes=1, bus_bits=32, schedule="streaming", **fields
    )


def _complete(**fields: Any) -> HeadParams:
    return _size(**{"shots": True, "refresh": True, "self_test": True, **fields})


#: Sizes the streaming schedule is proved at, the default one last.
SCHEDULE_SIZES = (
    _size(q_bits=1, count_bits=1, write_clk=1, tag_bits=2, result_slots=1),
    _size(q_bits=2, count_bits=2, write_clk=2, tag_bits=2, result_slots=2, shots=True),
    _size(q_bits=1, count_bits=4, write_clk=1, tag_bits=2, result_slots=4, self_test=True),
    _complete(q_bits=2, count_bits=2, write_clk=1, tag_bits=2, result_slots=3),
    _complete(q_bits=2, count_bits=3, write_clk=1, tag_bits=2, result_slots=2),
    _complete(q_bits=3, count_bits=2, write_clk=2, tag_bits=2, result_slots=1),
    _complete(),
)
#: Phases of a clock each, in which traces are short.
SHORTEST = SCHEDULE_SIZES[0]

#: What is proved of the schedule, by the name of the miter's output.
SCHEDULE_PROPERTIES = {
    "arrays_ok": "no array is written while read; a query sees the K and V before it, no others",
    "banks_ok": "integrators: reset, filled and emptied in turn; a query keeps its own",
    "answers_ok": "an answer per query, in order, with its label and error, and room for it",
    "labels_ok": "gain codes of conversion and readout are the query's; so is the self-test's mark",
    "window_ok": "an advance per accepted write, flush when idle, a refused packet does nothing",
    "codes_ok": "a column holds the codes given last, and is rewritten with no others",
    "delay_ok": "a refresh delays a packet that queries by a write and a clock at most",
    "idle_ok": "idle within the latency of a query when no packet and no refresh comes",
    "taken_ok": "a packet is taken within a query's latency, a result, a refresh and a write",
}
#: Members of the label that a sequencer acts upon, beside the command.
_COMMAND = ("writes", "queries", "flushes", "error")

_SEQUENCER = "StreamingSequencer"


def schedule_names(params: HeadParams) -> list[str]:
    """Properties that a head of this kind has."""
    absent = {
        "labels_ok": not (params.shots or params.self_test),
        "codes_ok": not params.refresh,
        "delay_ok": not params.refresh,
    }
    return [name for name in SCHEDULE_PROPERTIES if not absent.get(name, False)]


#: Sizes at which the receiver is looked at: sections of more than a beat.
RECEIVER_SIZES = tuple(
    dataclasses.replace(_size(), rows=9, lanes=10, heads=heads) for heads in (1, 2)
)
#: Clocks within which each seeded bug shows.
BUG_CLK = 32

_REFRESH = {"q_bits": 2, "count_bits": 2, "refresh": True}


def _bug(name: str, old: str, new: str, **needs: Any) -> Bug:
    return Bug(name=name, component=_SEQUENCER, old=old, new=new, needs=needs)


_WRITABLE = "writable = (~v_pending | (v_done & ~v_refresh)) & (~self.v_write | v_done)"
_OWED = "with m.If(~packet.queries | (quiet & (slots != 0))):"
#: Bugs that the proof must find, by the property that each violates.
SCHEDULE_BUGS: Mapping[str, Sequence[Bug]] = {
    "arrays_ok": (
        _bug(
            "K is written while scores are integrated",
            "free_1 = ~busy_1 | ends_1",
            "free_1 = ~busy_1 | self.integrate",
            q_bits=2,
        ),
        _bug(
            "V is written during a conversion",
            "~guard_outputs & (~self.convert | last_2)",
            "~guard_outputs",
            q_bits=2,
        ),
        _bug(
            "V is written in the guard before a conversion",
            "~self.v_write & ~guard_outputs &",
            "~self.v_write &",
            guard_clk=2,
        ),
        _bug(
            "V waits for the integration to end",
            "starts_v = v_pending & array_2_free",
            "starts_v = v_pending & array_2_free & ~self.integrate & ~guard_scores",
        ),
        _bug("a write does not wait for V of the one before", _WRITABLE, "writable = Const(1)"),
        _bug(
            "K is written while V of a refresh is",
            " & (~self.v_write | v_done)",
            "",
            **_REFRESH | {"q_bits": 3, "write_clk": 2},
        ),
        _bug(
            "V of a refresh begins with K of a packet",
            "& ~self.k_write & ~starts_k",
            "& ~self.k_write",
            **_REFRESH,
        ),
        _bug(
            "a refresh does not wait for V of a packet",
            "self.refresh & free_1 & writable &",
            "self.refresh & free_1 &",
            **_REFRESH,
        ),
        _bug(
            "V of a refresh waits for the integration to end",
            "refresh_pending & array_2_free &",
            "refresh_pending & array_2_free & ~self.integrate & ~guard_scores &",
            **_REFRESH,
        ),
        _bug(
            "a refresh does not wait for the one before",
            "writable & ~refresh_pending & ~yields",
            "writable & ~yields",
            **_REFRESH,
        ),
    ),
    "banks_ok": (
        _bug(
            "a conversion empties the wrong integrators",
            "self.convert_bank.eq(self.scores_bank)",
            "self.convert_bank.eq(~self.scores_bank)",
        ),
        _bug(
            "scores are integrated on one set",
            "self.scores_bank.eq(~self.scores_bank)",
            "self.scores_bank.eq(self.scores_bank)",
        ),
        _bug(
            "a readout empties the wrong integrators",
            "self.readout_bank.eq(self.convert_bank)",
            "self.readout_bank.eq(self.scores_bank)",
        ),
        _bug(
            "scores are reset one phase late",
            "self.scores_reset.eq(guard_scores & last_1)",
            "self.scores_reset.eq(guard_outputs & last_2)",
        ),
        _bug(
            "counts are cleared with the outputs",
            "self.counts_clear.eq(guard_counts & last_3)",
            "self.counts_clear.eq(guard_outputs & last_2)",
        ),
        _bug(
            "queries are not paced for a long readout",
            "if p.readout_clk > p.integrate_clk:",
            "if False:",
            count_bits=2,
            result_slots=3,
        ),
        _bug(
            "outputs are reset as they begin to fill",
            "self.outputs_reset.eq(guard_outputs & last_2)",
            "self.outputs_reset.eq(self.convert & (left_2 == p.convert_clk - 1))",
        ),
    ),
    "answers_ok": (
        _bug(
            "a label overtakes its query",
            "labels[2].eq(labels[1])",
            "labels[2].eq(labels[0])",
        ),
        _bug("an invalid answer overtakes", "(quiet & (slots != 0))", "(slots != 0)"),
        _bug(
            "an invalid answer takes no slot",
            "m.d.comb += take_slot.eq(1)",
            "m.d.comb += take_slot.eq(0)",
        ),
        _bug(
            "a query does not wait for a slot",
            "(((slots != 0) | held) & paced)",
            "paced",
            result_slots=1,
        ),
        _bug(
            "an answer that is not owed",
            _OWED,
            "with m.If(~packet.queries):\n"
            "                    m.d.sync += answering.eq(1)\n"
            f"                {_OWED}",
        ),
        _bug(
            "a refused query is held",
            "*self._refuse(label, error)",
            "*self._answer(label), self.answer.payload.error.eq(error)",
            shots=True,
        ),
    ),
    "labels_ok": (
        _bug(
            "the conversion has the next query's gain code",
            "self.s_gain.eq(labels[1].s_gain)",
            "self.s_gain.eq(labels[0].s_gain)",
            shots=True,
        ),
        _bug(
            "the readout has the next query's gain code",
            "self.a_gain.eq(labels[2].a_gain)",
            "self.a_gain.eq(labels[1].a_gain)",
            shots=True,
        ),
        _bug(
            "a self-test is marked too late",
            "labels[2].probe & (guard_counts | self.readout)",
            "labels[2].probe & self.readout",
            self_test=True,
        ),
    ),
    "window_ok": (
        _bug(
            "advance when K has been written",
            "with m.If(v_done & ~v_refresh):\n            m.d.comb += self.advance.eq(1)",
            "m.d.comb += self.advance.eq(self.k_write & last_1)\n"
            "        with m.If(v_done & ~v_refresh):",
        ),
        _bug(
            "a refresh moves the window on",
            "with m.If(v_done & ~v_refresh):",
            "with m.If(v_done):",
            **_REFRESH,
        ),
        _bug("a flush waits for nothing", "with m.If(quiet):", "with m.If(1):"),
        _bug("a flush does not wait for V", "busy_3 | v_pending |", "busy_3 |"),
        _bug(
            "a flush does not wait for a refresh",
            "v_pending | refresh_pending)",
            "v_pending)",
            **_REFRESH,
        ),
        _bug(
            "failed while the packet waits",
            _OWED,
            f"m.d.comb += self.failed.eq(error)\n                {_OWED}",
        ),
        _bug(
            "a refused packet is written",
            "with m.If(refused):",
            "with m.If(refused & ~packet.writes):",
        ),
    ),
    "codes_ok": (
        _bug(
            "a refresh ends with the packet's K",
            "with m.If(self.k_write & last_1 & k_refresh):",
            "with m.If(self.k_write & k_refresh):",
            **_REFRESH | {"q_bits": 3, "write_clk": 2},
        ),
        _bug(
            "a refresh ends with the packet's V",
            "with m.If(self.refreshed):",
            "with m.If(self.v_write & v_refresh):",
            **_REFRESH | {"q_bits": 3, "write_clk": 2},
        ),
    ),
    "delay_ok": (
        _bug(
            "a packet that writes waits for V of a refresh",
            _WRITABLE,
            f"{_WRITABLE} & ~refresh_pending",
            **_REFRESH,
        ),
        _bug(
            "a query waits for V of a refresh",
            "with m.Elif(\n                (~packet.writes | writable)",
            "with m.Elif(\n                (~packet.writes | writable) & ~refresh_pending",
            **_REFRESH,
        ),
    ),
    "idle_ok": (
        _bug("V is written for ever", "m.d.sync += v_pending.eq(0)", "m.d.sync += v_pending.eq(1)"),
        _bug(
            "a guard that never ends",
            "guard_counts.eq(0), self.readout.eq(1)",
            "self.readout.eq(1)",
        ),
        _bug(
            "a refresh that never ends",
            "refresh_pending.eq(0)]",
            "refresh_pending.eq(1)]",
            **_REFRESH,
        ),
    ),
    "taken_ok": (
        _bug(
            "slots do not come back",
            "slots - take_slot + self.sent",
            "slots - take_slot",
            result_slots=1,
        ),
        _bug("a write waits for V though none is pending", _WRITABLE, "writable = v_done"),
        _bug(
            "a held result takes a slot",
            "take_slot.eq(packet.queries & ~held)",
            "take_slot.eq(packet.queries)",
            result_slots=1,
            shots=True,
        ),
        _bug(
            "refreshes let no flush through",
            "& ~refresh_pending & ~yields",
            "& ~refresh_pending",
            **_REFRESH,
        ),
    ),
}


def _bug_size(bug: Bug) -> HeadParams:
    """Size at which a bug shows: the shortest one that has what it breaks."""
    return dataclasses.replace(SHORTEST, **{"tag_bits": 1, "result_slots": 2, **bug.needs})


#: Bugs in what the receiver keeps.
RECEIVER_BUGS = (
    Bug(
        name="receiver: a refused packet replaces V",
        component="Receiver",
        old="self.packet.ready & good",
        new="self.packet.ready",
    ),
    Bug(
        name="receiver: a refused step replaces V",
        component="Receiver",
        old="good &= ~self.refused",
        new="pass",
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


class Phase:
    """A line that, once high, stays so for a number of clocks; runs may follow each other."""

    def __init__(
        self, m: Module, line: Value, clocks: Value | int, longest: int, name: str
    ) -> None:
        self.line = line
        self.elapsed = Signal(range(longest + 1), name=f"{name}_elapsed")
        self.starts = Signal(name=f"{name}_starts")
        self.ends = Signal(name=f"{name}_ends")
        m.d.comb += [
            self.starts.eq(line & (self.elapsed == 0)),
            self.ends.eq(line & (self.elapsed + 1 == clocks)),
        ]
        m.d.sync += self.elapsed.eq(Mux(line & ~self.ends, self.elapsed + 1, 0))
        self.whole = (self.elapsed == 0) | line


def _good(packet: Any) -> Value:
    """The receiver found nothing wrong with it."""
    return packet.error == PacketError.NONE


def _silent(label: Any) -> Value:
    """The result of a query with that label, or answer, is not sent."""
    names = set(label.shape().members) & {"hold", "probe"}
    return Cat(label[name] for name in sorted(names)).any() if names else Const(0)


class Packets:
    """Any packets, held until taken; two lines of a miter are the free choices.

    A self-test's query is one of them, with ``probe`` set.
    """

    def __init__(self, m: Module, params: HeadParams, offer: Value, choice: Value) -> None:
        layout = packet_layout(params)
        held, held_probe = Signal(layout), Signal(name="held_probe")
        chosen, chosen_probe = Signal(layout), Signal(name="chosen_probe")
        waits = Signal(name="waits")
        self.valid = Signal(name="offered")
        self.payload = Signal(layout, name="packet")
        self.probe = Signal(name="probe")
        command, kind = choice[:2], choice[2:5]
        error = Mux(kind > PacketError.STEP, PacketError.STEP, kind)
        labels = [name for name in layout.members if name not in _COMMAND]
        good = error == PacketError.NONE
        m.d.comb += [
            # A command gives one of four patterns; what is refused may be any of them or none.
            chosen.writes.eq((command == 1) | (command == 3)),
            chosen.queries.eq((command == 2) | (command == 3)),
            chosen.flushes.eq((command == 0) & (good | chosen.tag[0])),
            chosen.error.eq(error),
            Cat(chosen[name] for name in labels).eq(choice[5:]),
            self.valid.eq(waits | offer),
            self.payload.eq(Mux(waits, held, chosen)),
        ]
        if params.self_test:
            m.d.comb += [
                chosen_probe.eq(choice[-1] & good & (command == 2)),
                self.probe.eq(Mux(waits, held_probe, chosen_probe)),
            ]
        self.waits, self._params = waits, params
        self._held = (held, held_probe)
        # What an induction must be told of the packet held.
        packet = self.payload
        self.legal = Cat(
            packet.writes | packet.queries | packet.flushes | ~self.good,
            ~(packet.flushes & (packet.writes | packet.queries)),
            packet.error <= PacketError.STEP,
            ~self.probe | (packet.queries & ~packet.writes & self.good),
        ).all()

    @property
    def good(self) -> Value:
        """The receiver found nothing wrong with the packet offered."""
        return _good(self.payload)

    @staticmethod
    def choice_bits(params: HeadParams) -> int:
        """Width of the choice."""
        layout = packet_layout(params)
        labels = sum(layout[name].width for name in layout.members if name not in _COMMAND)
        return 5 + labels + params.self_test

    def labels(self, m: Module, error: Value) -> tuple[Any, Any]:
        """Label of the packet offered, and what its answer must say, with that error."""
        packet, params = self.payload, self._params
        label = Signal(label_layout(params), name="label")
        due = Signal(answer_layout(params), name="due")
        for own in (label, due):
            for name in own.shape().members:
                source = {"probe": self.probe, "error": error}.get(name)
                m.d.comb += own[name].eq(packet[name] if source is None else source)
        if params.shots:
            with m.If(error != PacketError.NONE):
                m.d.comb += due.hold.eq(0)
        return label, due

    def codes(self, m: Module, bits: Value) -> Value:
        """A bit of K and one of V of the packet offered."""
        held, offered = Signal(2, name="held_codes"), Signal(2, name="codes")
        m.d.comb += offered.eq(Mux(self.waits, held, bits))
        m.d.sync += held.eq(offered)
        return offered

    def connect(self, m: Module, dut: Any) -> None:
        """Offer them to a sequencer."""
        packet = dut.packet
        m.d.comb += [packet.valid.eq(self.valid), packet.payload.eq(self.payload)]
        if dut.params.self_test:
            m.d.comb += dut.probe.eq(self.probe)
        held, held_probe = self._held
        m.d.sync += [
            self.waits.eq(self.valid & ~packet.ready),
            held.eq(self.payload),
            held_probe.eq(self.probe),
        ]


class Lengths:
    """Phase lengths: any legal ones, which change while nothing is in flight and nothing begins."""

    def __init__(self, m: Module, dut: Any, valid: Value, choice: Value) -> None:
        p = dut.params
        self.write = Signal.like(dut.write_clk, name="write", init=p.write_clk)
        self.guard = Signal.like(dut.guard_clk, name="guard", init=p.guard_clk)
        begins = valid | (dut.k_read if p.refresh else 0)
        legal = []
        for own, offered, longest in (
            (self.write, choice[: len(self.write)], p.write_max_clk),
            (self.guard, choice[len(self.write) :], p.guard_max_clk),
        ):
            with m.If(dut.idle & ~begins & (offered != 0) & (offered <= longest)):
                m.d.sync += own.eq(offered)
            legal += [own != 0, own <= longest]
        m.d.comb += [dut.write_clk.eq(self.write), dut.guard_clk.eq(self.guard)]
        self.legal = Cat(*legal).all()

    @staticmethod
    def choice_bits(params: HeadParams) -> int:
        """Width of the choice."""
        return params.write_max_clk.bit_length() + params.guard_max_clk.bit_length()


class WatchedColumn:
    """One column of the window: what packets gave it, the arrays hold and the code store keeps.

    Window and refresh pointer meet the column at any time that the blocks they stand for allow;
    codes are a bit each, as nothing looks at them.

    Parameters
    ----------
    m, dut
        The miter, and its sequencer.
    k, v
        Bit of K of the packet offered, of V of the packet that is written; whether the write of it
        has begun a clock ago or earlier; and whether it is complete with this clock.
    choice
        Free: pointers that move on, and what other columns hold.
    """

    choice_bits = 4

    def __init__(
        self,
        m: Module,
        dut: Any,
        k: tuple[Value, Value, Value],
        v: tuple[Value, Value, Value],
        choice: Value,
    ) -> None:
        here, refreshed_here = Signal(name="here"), Signal(name="refreshed_here")
        self.rewriting = rewriting = Signal(name="rewriting")  # a refresh has begun
        with m.If(dut.k_read):
            m.d.sync += rewriting.eq(1)
        with m.Elif(dut.refreshed):
            m.d.sync += rewriting.eq(0)
        with m.If(dut.advance | dut.flush):
            m.d.sync += here.eq(choice[0])
        with m.If(dut.refreshed | ~(rewriting | dut.k_read)):
            m.d.sync += refreshed_here.eq(choice[1])
        oks, self.helpers = [], []
        for array, (bit, begun, done), other in (("k", k, choice[2]), ("v", v, choice[3])):
            write, read, refreshes = (
                getattr(dut, f"{array}_{what}") for what in ("write", "read", "refresh")
            )
            given, held, kept, out = (
                Signal(name=f"{array}_{what}") for what in ("given", "held", "kept", "out")
            )
            writes = write & ~refreshes & here
            rewrites = write & refreshes & refreshed_here
            with m.If(writes):
                m.d.sync += [kept.eq(bit), held.eq(bit)]
            with m.Elif(rewrites):
                m.d.sync += held.eq(out)
            with m.If(read):
                m.d.sync += out.eq(Mux(refreshed_here, Mux(writes, bit, kept), other))
            with m.If(done & here):
                m.d.sync += given.eq(bit)
            # The array holds what was given last, and is rewritten with nothing else.
            oks += [writes | (held == given), ~rewrites | (out == given)]
            self.helpers += [
                Mux(writes & begun, (kept == bit) & (held == bit), kept == given),
                (writes & begun) | (held == given),
            ]
        self.ok = Cat(*oks).all()


class ScheduleMiter(Component):
    """Streaming sequencer, step and sender, a legal environment, and the specification.

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
    offer, choice, bits, lengths, refresh, columns, stream_ready : in
        Free choices of the environment: packets, their codes, phase lengths, requests for a
        refresh, which columns are meant, and when the result stream moves.
    probe_* : in
        Registers of sequencer and sender; connected after flattening.
    arrays_ok : Out(1)
        Write strobes never meet the phase that reads their array, last as long as they must, and
        belong to the packet offered or to the V that is pending. While a query is integrated
        exactly the K of the writes before it have been written; while converted, exactly the V. A
        refresh writes K and then V, each after the clock of its read, and one at a time.
    banks_ok : Out(1)
        Every phase follows the reset of what it fills, by one clock; a reset never meets a charge
        that is still wanted; a query's conversion and readout use the integrators it was put on,
        which stay the same for the phase; no set is filled while it is emptied; no clear in a
        readout; every phase has its length and belongs to a query.
    answers_ok : Out(1)
        An answer is that of the oldest query that has none, with its label and error; if valid,
        its readout has ended and no other began since. If it is to be sent, the sender has room.
        Idle: none is owed.
    labels_ok : Out(1)
        Only with ``shots`` or ``self_test``: from the end of its integration to that of its
        conversion the gain code is the query's, and so in its readout, with the self-test's mark.
    window_ok : Out(1)
        As many advances as accepted writes, one late at most; a flush when nothing is in flight
        and for its packet; ``failed`` for a refused packet when it is taken, and nothing else.
    codes_ok, delay_ok : Out(1)
        Only with ``refresh``: see `WatchedColumn`; of the clocks that a packet that queries is
        offered, each refresh costs it no more than a write and one.
    idle_ok : Out(1)
        Idle a query's latency after the last packet and the last refresh that began.
    taken_ok : Out(1)
        A packet is taken within a number of clocks in which the result stream does not stall.
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
                "choice": In(Packets.choice_bits(params)),
                "bits": In(2),
                "lengths": In(Lengths.choice_bits(params)),
                "refresh": In(1),
                "columns": In(WatchedColumn.choice_bits),
                "stream_ready": In(1),
                **{f"probe_{name}": In(width) for name, width in widths.items()},
                **{name: Out(1) for name in (*schedule_names(params), "helper_ok", "interesting")},
            }
        )

    def _probed(self) -> dict[str, tuple[str, int]]:
        """Register and width by the name of the probe."""
        p = self.params

        def left(*phases: int) -> int:
            return (max(*phases, 2) - 1).bit_length()

        guard, write = p.guard_max_clk, p.write_max_clk
        names = ["guard_scores", "guard_outputs", "guard_counts", "queries", "v_pending"]
        names += ["refresh_pending"] * p.refresh
        probed = {name: (f"sequencer.{name}", 1) for name in names}
        label = label_layout(p).size
        probed |= {f"label_{stage}": (f"sequencer.label_{stage}", label) for stage in (1, 2, 3)}
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
            width = (guard + p.readout_clk - 1).bit_length()
            probed["spacing"] = ("sequencer.spacing", width)
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

        step = m.submodules.step = Step(p)

        # Environment.
        packets = Packets(m, p, self.offer, self.choice)
        packets.connect(m, dut)
        packet = packets.payload
        stored = Signal()  # the window holds a token
        with m.If(dut.flush):
            m.d.sync += stored.eq(0)
        with m.Elif(dut.advance):
            m.d.sync += stored.eq(1)
        connect(m, dut.answer, step.answer)
        connect(m, step.replies[0], sender.answer)
        m.d.comb += [
            dut.empty.eq(~stored),
            step.sent.eq(sender.sent),
            dut.sent.eq(step.slot),
            sender.m_axis_tready.eq(self.stream_ready),
        ]
        lengths = Lengths(m, dut, packets.valid, self.lengths)
        write, guard, read = lengths.write, lengths.guard, p.readout_clk
        k_refresh, v_refresh, k_read, v_read, refreshed = (
            getattr(dut, name) if p.refresh else Const(0)
            for name in ("k_refresh", "v_refresh", "k_read", "v_read", "refreshed")
        )
        if p.refresh:
            m.d.comb += dut.refresh.eq(self.refresh)

        # Specification: packets and phases, counted.
        k_write = Phase(m, dut.k_write, write, p.write_max_clk, "k_write")
        v_write = Phase(m, dut.v_write, write, p.write_max_clk, "v_write")
        integrate = Phase(m, dut.integrate, p.integrate_clk, p.integrate_clk, "integrate")
        convert = Phase(m, dut.convert, p.convert_clk, p.convert_clk, "convert")
        readout = Phase(m, dut.readout, read, read, "readout")
        lines = dut.k_write | dut.v_write | dut.integrate | dut.convert | dut.readout
        # Of packets, not of refreshes.
        k_own, v_own = dut.k_write & ~k_refresh, dut.v_write & ~v_refresh
        k_own_ends, v_own_ends = k_write.ends & ~k_refresh, v_write.ends & ~v_refresh

        token = Signal()  # a write was accepted since the flush
        error = Signal(PacketError)  # as it must be
        taken = Signal()
        accepted = Signal()
        m.d.comb += [
            error.eq(packet.error),
            taken.eq(packets.valid & dut.packet.ready),
            accepted.eq(taken & (error == PacketError.NONE)),
        ]
        starved = packet.queries & ~packet.writes & ~token & ~packets.probe
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
            written_k.eq(written_k + k_own_ends),
            written_v.eq(written_v + v_own_ends),
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

        # Answers owed, with the labels they must have; labels of queries in flight, with gains.
        owed, oldest = Signal(3), Signal(2)
        answer = dut.answer
        given = Value.cast(answer.payload)
        label, due = packets.labels(m, error)
        due_of = Array(Signal(due.shape().size, name=f"due_of_{i}") for i in range(4))
        label_of = Array(Signal(label.shape().size, name=f"label_of_{i}") for i in range(4))
        good_answer = answer.valid & _good(answer.payload)
        with m.If(owes):
            m.d.sync += due_of[(oldest + owed)[:2]].eq(due)
        with m.If(queries):
            m.d.sync += label_of[newest].eq(label)
        m.d.sync += [
            owed.eq(owed + owes - answer.valid),
            oldest.eq(oldest + answer.valid),
            unread.eq(unread + readout.ends - good_answer),
        ]
        silent = _silent(answer.payload)
        # A query is in conversion from the end of its integration, in readout from there on.
        converting, reading = Signal(), Signal()
        with m.If(integrate.ends | convert.ends):
            m.d.sync += converting.eq(integrate.ends)
        with m.If(convert.ends | readout.ends):
            m.d.sync += reading.eq(convert.ends)
        in_conversion, in_readout = Signal(label.shape()), Signal(label.shape())
        m.d.comb += [
            Value.cast(in_conversion).eq(label_of[at_2]),
            Value.cast(in_readout).eq(label_of[at_3]),
        ]

        offered = packets.valid & packet.writes & (error == PacketError.NONE)
        pending = written != written_v
        rewriting = Signal()  # a refresh has begun and not ended
        if p.refresh:
            codes, v_bit = packets.codes(m, self.bits), Signal()
            with m.If(writes):  # as the receiver keeps it
                m.d.sync += v_bit.eq(codes[1])
            column = WatchedColumn(
                m,
                dut,
                (codes[0], k_write.elapsed != 0, writes),
                (v_bit, v_write.elapsed != 0, dut.advance),
                self.columns,
            )
            m.d.comb += [rewriting.eq(column.rewriting), self.codes_ok.eq(column.ok)]
        lines_1 = dut.k_write | (dut.integrate & ~integrate.ends) | dut.arm
        was_k_read, was_v_read = Signal(), Signal()
        m.d.sync += [was_k_read.eq(k_read), was_v_read.eq(v_read)]
        in_flight = (owed != 0) | pending | lines | rewriting
        m.d.comb += [
            self.arrays_ok.eq(
                Cat(
                    ~(dut.k_write & dut.integrate),
                    ~(dut.v_write & dut.convert),
                    ~(dut.k_write & dut.v_write),
                    k_write.whole,
                    v_write.whole,
                    # One pointer serves both arrays: it has moved past every write before.
                    ~k_own | (offered & (written_v == written)),
                    ~v_own | pending,
                    k_own_ends == writes,
                    # A refresh writes K and then V, after the clock in which they are read.
                    ~(k_read & (rewriting | lines_1)),
                    ~(v_read & ~rewriting),
                    (dut.k_write & k_refresh & (k_write.elapsed == 0)) == was_k_read,
                    (dut.v_write & v_refresh & (v_write.elapsed == 0)) == was_v_read,
                    ~k_refresh | dut.k_write,
                    ~v_refresh | dut.v_write,
                    refreshed == (v_write.ends & v_refresh),
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
                        & (given == due_of[oldest])
                        & (silent | sender.answer.ready)
                        & answer.ready
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
                    dut.advance == v_own_ends,
                    ~v_own | pending,
                    (written - written_v)[:2] <= 1,
                    ~dut.idle | ~(pending | rewriting),
                    dut.flush == flushes,
                    ~dut.flush | ~in_flight,
                    dut.failed == Mux(taken, error, PacketError.NONE),
                    # Work begins for accepted packets only.
                    ~k_own | offered,
                    k_own_ends == writes,
                    ~dut.integrate | (at_1 != newest),
                ).all()
            ),
        ]

        gains = [Const(1)]
        if p.shots:
            gains += [
                ~converting | (dut.s_gain == in_conversion.s_gain),
                ~reading | (dut.a_gain == in_readout.a_gain),
            ]
        if p.self_test:
            gains.append(dut.probing == (reading & in_readout.probe))
        if p.shots or p.self_test:
            m.d.comb += self.labels_ok.eq(Cat(*gains).all())

        # Time, in bounds that follow the phase lengths.
        longest = 3 * p.guard_max_clk + p.integrate_clk + p.convert_clk + read + 1
        idle_clk = Signal(range(longest + 1))
        rewrite_clk = Signal(range(2 * p.write_max_clk + 3))  # of a refresh, when array 2 is free
        taken_clk = Signal(range(longest + p.result_beats + 3 * p.write_max_clk + 4))
        m.d.comb += [
            idle_clk.eq(3 * guard + p.integrate_clk + p.convert_clk + read + 1),
            rewrite_clk.eq((2 * write + 2) if p.refresh else 0),
            # At the worst a packet waits for idle, then for a slot, then for a refresh; K takes
            # its time, and then it is taken.
            taken_clk.eq(idle_clk + p.result_beats + rewrite_clk + write + 1),
        ]
        calm = Signal(range(longest + 1))
        patience = Signal.like(taken_clk)
        with m.If(packets.valid | k_read):
            m.d.sync += calm.eq(0)
        with m.Elif(calm != idle_clk):
            m.d.sync += calm.eq(calm + 1)
        with m.If(~packets.valid | dut.packet.ready | ~self.stream_ready):
            m.d.sync += patience.eq(0)
        with m.Elif(patience != taken_clk):
            m.d.sync += patience.eq(patience + 1)
        m.d.comb += [
            self.idle_ok.eq((calm != idle_clk) | dut.idle),
            self.taken_ok.eq(patience != taken_clk),
        ]

        # Invariant.
        guard_scores, guard_outputs = self.probe_guard_scores, self.probe_guard_outputs
        guard_counts, v_pending = self.probe_guard_counts, self.probe_v_pending
        left_1, left_2, left_3 = self.probe_left_1, self.probe_left_2, self.probe_left_3
        left_v = self.probe_left_v
        in_1 = guard_scores | dut.integrate
        in_2 = guard_outputs | dut.convert
        in_3 = guard_counts | dut.readout
        # Clocks to the end of a stage, this one included, and from there to the readout's end.
        to_1 = left_1 + Mux(
            k_own, 1 + guard + p.integrate_clk, Mux(guard_scores, 1 + p.integrate_clk, 1)
        )
        to_2 = left_2 + Mux(guard_outputs, 1 + p.convert_clk, 1)
        to_3 = left_3 + Mux(guard_counts, 1 + read, 1)
        after_2 = guard + read
        after_1 = guard + p.convert_clk + after_2
        distance = guard + Mux(p.integrate_clk > Const(read), p.integrate_clk, read)
        # Clocks to the end of V, of a refresh and of a packet, if they are to be written.
        refresh_pending = self.probe_refresh_pending if p.refresh else Const(0)
        from_2 = Mux(in_2, to_2, 1)
        from_k = Mux(dut.k_write, left_1 + 2, 1)
        to_rv = Mux(v_refresh, left_v + 1, Mux(from_2 > from_k, from_2, from_k) + write)
        to_v = Mux(
            refresh_pending,
            to_rv + 1 + write,
            Mux(dut.v_write, left_v + 1, from_2 + write),
        )
        admitted = in_1 | (k_own & self.probe_queries)
        index_3 = (oldest + answer.valid)[:2]
        index_2 = (oldest + answer.valid + in_3)[:2]
        index_1 = (oldest + answer.valid + in_3 + in_2)[:2]

        def implies(condition: Value, *conclusions: Value) -> Value:
            return ~condition | Cat(*conclusions).all()

        def length(phase: Phase, left: Value, clocks: Value | int) -> Value:
            return Mux(phase.line, phase.elapsed + left == clocks - 1, phase.elapsed == 0)

        labels = [
            data.View(label_layout(p), getattr(self, f"probe_label_{stage}")) for stage in (1, 2, 3)
        ]
        due_1, due_2, due_3 = (
            Cat(
                Const(0, PacketError) if name == "error" else own[name]
                for name in answer_layout(p).members
            )
            for own in labels
        )
        sent_1, sent_2, sent_3 = (~_silent(own) for own in labels)

        helpers = [
            packets.legal,
            lengths.legal,
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
            implies(k_own & in_2, to_1 >= to_2 + write),
            implies(dut.k_write, ~v_pending, ~dut.v_write),
            implies(v_pending & in_1, to_v <= to_1),
            implies(v_pending, to_v <= guard + p.integrate_clk),
            implies(dut.v_write, Mux(v_refresh, refresh_pending, v_pending), ~in_2),
            # V of a refresh as well, and before that of a packet admitted later.
            ~k_refresh | dut.k_write,
            ~v_refresh | dut.v_write,
            ~(refresh_pending & v_own),
            implies(k_refresh, ~refresh_pending),
            implies(k_refresh & in_2, to_2 + write <= guard + p.convert_clk + left_1 + 1),
            implies(refresh_pending & in_1, to_rv <= to_1),
            implies(
                refresh_pending & k_own & in_2, to_2 + 2 * write <= guard + p.convert_clk + left_1
            ),
            implies(refresh_pending & k_own & self.probe_queries, to_rv + 1 + write <= to_1),
            implies(refresh_pending & in_2 & ~k_own & ~in_1, to_2 + write <= guard + p.convert_clk),
            # The packet whose K is written.
            implies(
                k_own,
                packets.valid,
                packet.writes,
                packet.error == PacketError.NONE,
                self.probe_queries == packet.queries,
                self.probe_label_1 == Value.cast(label),
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
            implies(in_1, due_of[index_1] == due_1, label_of[at_1] == self.probe_label_1),
            implies(in_2, due_of[index_2] == due_2, label_of[at_2] == self.probe_label_2),
            implies(in_3, due_of[index_3] == due_3, label_of[at_3] == self.probe_label_3),
            implies(answer.valid, due_of[oldest] == given, good_answer | ~(in_1 & in_2 & in_3)),
            converting == in_2,
            reading == in_3,
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
            self.probe_slots
            + self.probe_held
            + (in_1 & sent_1)
            + (in_2 & sent_2)
            + (in_3 & sent_3)
            + (answer.valid & ~silent)
            + (k_own & self.probe_queries & sent_1)
            == p.result_slots,
            # Time: what there is to do ends in time.
            implies(calm != 0, ~k_own),
            implies(in_1, to_1 + after_1 + 1 + calm <= idle_clk),
            implies(in_2, to_2 + after_2 + 1 + calm <= idle_clk),
            implies(in_3, to_3 + 1 + calm <= idle_clk),
            implies(answer.valid, 1 + calm <= idle_clk),
            implies(v_pending, to_v + calm <= idle_clk),
            implies(rewriting, to_rv + calm <= idle_clk),
            rewriting == (k_refresh | refresh_pending),
            was_k_read == (k_refresh & (k_write.elapsed == 0)),
            was_v_read == (v_refresh & (v_write.elapsed == 0)),
        ]
        if p.refresh:
            helpers += column.helpers
        # Clocks to the end of what is in flight but a refresh, then to a free slot, then to the
        # end of a refresh, then to that of K.
        to_idle = Signal(range(4 * longest))
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
        done = ~(in_1 | in_2 | in_3 | answer.valid | v_pending)
        to_slot = Signal(range(p.result_beats + 1))
        sent_beats = Signal(range(p.result_beats + 1))
        to_refresh = Signal.like(rewrite_clk)
        m.d.comb += to_refresh.eq(rewrite_clk)
        with m.If(~done | (self.probe_slots == 0)):
            m.d.comb += to_slot.eq(p.result_beats)
            with m.If(done):
                m.d.comb += sent_beats.eq(self.probe_index)
        with m.Elif(rewriting):
            m.d.comb += to_refresh.eq(to_rv)
        with m.Elif(Mux(error == PacketError.NONE, packet.flushes, packet.queries)):
            m.d.comb += to_refresh.eq(0)  # a refresh lets it through
        helpers += [
            implies(~packets.waits, patience == 0),
            implies(k_own, patience + left_1 + 1 <= taken_clk),
            implies(
                packets.valid & ~k_own,
                patience + to_idle + to_slot + to_refresh + 1 + write <= taken_clk + sent_beats,
            ),
        ]
        if p.refresh:
            # Clocks that the refresh under way has cost a packet that queries, were it not for
            # that admitted.
            spacing = self.probe_spacing if "spacing" in self._probed() else Const(0)
            room = (self.probe_slots != 0) | _silent(label)
            paced = spacing <= Mux(packet.writes, write, 0)
            free = ~in_1 | integrate.ends
            good = error == PacketError.NONE
            wants = packets.valid & packet.queries & good & ~k_own & free & room & paced
            lines_in_use = k_refresh | v_refresh | k_read | v_read
            loses = wants & (lines_in_use | (~packet.writes & rewriting))
            lost = Signal(range(p.write_max_clk + 3))
            with m.If(~packets.valid | dut.packet.ready):
                m.d.sync += lost.eq(0)
            with m.Elif(k_read):
                m.d.sync += lost.eq(loses)
            with m.Elif(lost != write + 2):
                m.d.sync += lost.eq(lost + loses)
            m.d.comb += self.delay_ok.eq(lost <= write + 1)
            helpers += [
                implies(~packets.waits, lost == 0),
                implies(k_refresh, lost <= k_write.elapsed + 1),
                implies(v_refresh, lost <= v_write.elapsed + 1),
                implies(k_refresh & (lost != 0), wants),
                implies(
                    refresh_pending & ~v_refresh & ~k_own & (lost != 0), wants, ~v_pending, ~in_1
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
                implies(dut.idle, self.probe_spacing == 0),
                self.probe_spacing + past >= started,
                implies(self.probe_spacing != 0, self.probe_spacing + past == started),
            ]
        holds = Signal(len(helpers))
        m.d.comb += [
            holds.eq(Cat(*helpers)),
            self.helper_ok.eq(holds.all()),
            self.interesting.eq(
                k_own & self.probe_queries & dut.convert & (guard_counts | dut.readout)
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
    data, valid, last, ready, refused : in
        Free choices; the last, whether the step that the packet belongs to is refused.
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
                "refused": In(1),
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
        if self.params.heads > 1:
            m.d.comb += dut.refused.eq(self.refused)
            taken &= ~self.refused
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


def _size_text(params: HeadParams) -> str:
    features = [name for name in ("shots", "refresh", "self_test") if getattr(params, name)]
    return ", ".join(
        [
            f"{params.q_bits}-bit queries",
            f"{params.count_bits}-bit counts",
            f"{params.result_slots} slots",
            *(name.replace("_", "-") for name in features),
        ]
    )


def schedule_properties(*, full: bool = True) -> list[Callable[[], Row]]:
    """Jobs that prove the streaming schedule, to be run by `synth.prove.run_proofs`.

    Parameters
    ----------
    full
        Every size and every seeded bug; else some of them.

    Returns
    -------
    list
        Functions without arguments, each returning a row. First the proofs, all properties of a
        size at once; then, for each property, that bugs which violate it are found.

    """
    sizes = SCHEDULE_SIZES if full else (*SCHEDULE_SIZES[1:4:2], SCHEDULE_SIZES[-1])
    jobs = []
    for params in reversed(sizes):
        names = schedule_names(params)
        jobs.append(
            induction_job(
                f"streaming: {len(names)} properties, any write and guard ({_size_text(params)})",
                [lambda params=params: ScheduleMiter(params)],
                [(*names, "helper_ok")],
            )
        )
    for name, title in SCHEDULE_PROPERTIES.items():
        bugs = SCHEDULE_BUGS[name]
        jobs.append(
            refutation_job(
                f"streaming: {title}",
                lambda bug: ScheduleMiter(_bug_size(bug), bug),
                bugs if full else bugs[-2:],
                name,
                BUG_CLK,
                # Once is enough to show that the environment does something.
                (lambda: ScheduleMiter(dataclasses.replace(SHORTEST, result_slots=3)))
                if name == "arrays_ok"
                else None,
            )
        )
    title = "streaming: K, V and Q codes stay while they are in use"
    jobs += [
        induction_job(
            f"{title} (9 rows, 10 lanes; a head, and one of two)",
            [lambda params=params: ReceiverMiter(params) for params in RECEIVER_SIZES],
            [("codes_ok",)] * len(RECEIVER_SIZES),
        ),
        refutation_job(
            title,
            lambda bug: ReceiverMiter(RECEIVER_SIZES[-1], bug),
            RECEIVER_BUGS,
            "codes_ok",
            BUG_CLK,
            lambda: ReceiverMiter(RECEIVER_SIZES[-1]),
        ),
    ]
    return jobs
