"""Proofs of the simple schedule, and that both schedules give the same answers.

The simple schedule is proved to keep what `synth.prove_schedule` proves of the streaming one:
answers, refusals and window depend on the packets alone and not on time. So the two are equal,
without a bound. They are also compared directly, to a stated depth, so that no reader need believe
this. Environment and method are those of `synth.prove_schedule`.
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
from hw.sender import Sender
from hw.sequencer import answer_layout, label_layout
from hw.step import Step
from synth import prove
from synth.prove import Bug, Row, induction_job, job, refutation_job
from synth.prove_schedule import (
    BUG_CLK,
    SCHEDULE_SIZES,
    SHORTEST,
    Lengths,
    Packets,
    Phase,
    WatchedColumn,
)

__all__ = [
    "EQUALITY_BUGS",
    "EQUALITY_CLK",
    "EQUALITY_SIZE",
    "SIMPLE_BUGS",
    "SIMPLE_PROPERTIES",
    "EqualityMiter",
    "SimpleMiter",
    "simple_names",
    "simple_properties",
]

#: Size at which the two schedules are compared.
EQUALITY_SIZE = dataclasses.replace(
    SHORTEST, tag_bits=1, result_slots=2, shots=True, self_test=True
)
#: Packets and clocks of that comparison, with stalls anywhere and without any.
EQUALITY_CLK = {(2, True): 14, (3, False): 36}

#: What is proved of the simple schedule, by the name of the miter's output.
SIMPLE_PROPERTIES = {
    "same_ok": "the specification of answers, refusals and window that the streaming one keeps",
    "arrays_ok": "no array is written while read; strobes are a packet's or a refresh's",
    "codes_ok": "a column holds the codes given last, and is rewritten with no others",
    "delay_ok": "a refresh delays a packet by a write and a clock at most",
    "time_ok": "idle within a packet's latency; taken within two and a refresh",
}

_REFRESH = {"q_bits": 2, "count_bits": 2, "refresh": True}


def _bug(name: str, old: str, new: str, component: str = "Sequencer", **needs: Any) -> Bug:
    return Bug(name=name, component=component, old=old, new=new, needs=needs)


#: Bugs in the simple schedule, by the property that each violates.
SIMPLE_BUGS: Mapping[str, Sequence[Bug]] = {
    "same_ok": (
        _bug("advance with every integration", "self.v_write.eq(packet.writes),",
             "self.v_write.eq(1),"),
        _bug(
            "the packet is taken when K has been written",
            "with m.If(self.k_write & ~rewriting & last):",
            "with m.If(self.k_write & ~rewriting & last):\n"
            "            m.d.comb += self.packet.ready.eq(1)",
        ),
        _bug("an invalid answer with no error", "*self._refuse(label, error)",
             "*self._answer(label)"),
        _bug("the label of the packet offered", "*self._answer(query)", "*self._answer(label)"),
        _bug("the conversion has the next packet's gain code", "self.s_gain.eq(query.s_gain)",
             "self.s_gain.eq(packet.s_gain)", shots=True),
    ),
    "arrays_ok": (
        _bug("V is written until the conversion", "with m.If(v_done):", "with m.If(0):"),
        _bug(
            "a packet is admitted with a refresh", "admits &= ~self.k_read", "pass", **_REFRESH
        ),
        _bug("a refresh begins when the packet has been taken", "self.idle & self.refresh &",
             "(self.idle | guard_outputs) & self.refresh &", **_REFRESH),
    ),
    "codes_ok": (
        _bug("a refresh ends with the packet's codes", "with m.If(self.refreshed):",
             "with m.If(self.k_refresh):\n                m.d.sync += self.k_refresh.eq(0)\n"
             "            with m.If(self.refreshed):", **_REFRESH | {"q_bits": 3, "write_clk": 2}),
    ),
    "delay_ok": (
        _bug("refreshes let no packet through", "& ~(yields & self.packet.valid)", "",
             **_REFRESH),
    ),
    "time_ok": (
        _bug("the guard after V never ends", "guard_v.eq(0), self.idle.eq(1)", "self.idle.eq(0)"),
    ),
}  # fmt: skip

#: Bugs that the comparison of the two schedules must find.
EQUALITY_BUGS = (
    _bug(
        "streaming: an answer's error is lost",
        "*self._refuse(label, error)",
        "*self._answer(label)",
        component="StreamingSequencer",
    ),
    _bug(
        "simple: a query is refused after a write",
        "self._offered(m, self.empty)",
        "self._offered(m, self.empty | ~self.advance)",
    ),
    _bug("simple: the shot of the packet offered", "*self._answer(query)", "*self._answer(label)"),
)


def simple_names(params: HeadParams) -> list[str]:
    """Properties that a head of this kind has."""
    absent = () if params.refresh else ("codes_ok", "delay_ok")
    return [name for name in SIMPLE_PROPERTIES if name not in absent]


class SimpleMiter(Component):
    """The simple sequencer, a legal environment, and what `ScheduleMiter` proves of the streaming.

    Parameters
    ----------
    params
        Size; its schedule is set to the simple one.
    bug
        Put into the sequencer.

    Members
    -------
    offer, choice, bits, lengths, refresh, columns, answer_ready : in
        Free choices of the environment.
    probe_* : in
        Registers of the sequencer; connected after flattening.
    same_ok : Out(1)
        Per packet taken: one advance if it was accepted and writes, and a flush if it flushes;
        ``failed`` if it was refused; then, before the next packet's, its answer if it is owed one,
        with its label and error, and its gain codes in its phases. Idle: nothing is owed.
    arrays_ok : Out(1)
        K is not written while scores are integrated nor V during a conversion; a refresh's strobes
        follow ``k_read`` and belong to no packet.
    codes_ok, delay_ok : Out(1)
        Only with ``refresh``; as of the streaming schedule.
    time_ok : Out(1)
        Idle, and a packet taken, within so many clocks in which the answer is not kept waiting.
    helper_ok : Out(1)
        Invariant that carries the induction.

    """

    _PHASES = ("guard_scores", "guard_outputs", "guard_counts", "write_v", "guard_v")

    def __init__(self, params: HeadParams, bug: Bug | None = None) -> None:
        self.params = p = dataclasses.replace(params, schedule="simple")
        self.bug = bug
        fixed = max(p.integrate_clk, p.convert_clk, p.readout_clk)
        probed = {phase: 1 for phase in self._PHASES}
        probed["left"] = (max(fixed, p.write_max_clk, p.guard_max_clk) - 1).bit_length()
        probed["query"] = label_layout(p).size
        if p.refresh:
            probed["yields"] = 1
        self._probed = probed
        super().__init__(
            {
                "offer": In(1),
                "choice": In(Packets.choice_bits(p)),
                "bits": In(2),
                "lengths": In(Lengths.choice_bits(p)),
                "refresh": In(1),
                "columns": In(WatchedColumn.choice_bits),
                "answer_ready": In(1),
                **{f"probe_{name}": In(width) for name, width in probed.items()},
                **{name: Out(1) for name in (*simple_names(p), "helper_ok")},
            }
        )

    @property
    def probes(self) -> Mapping[str, Sequence[str]]:
        """Names, after flattening, of what each probe is connected to."""
        return {f"probe_{name}": [f"sequencer.{name}"] for name in self._probed}

    def elaborate(self, platform: object) -> Module:
        """Build the miter."""
        m = Module()
        p = self.params
        dut = m.submodules.sequencer = prove._component("Sequencer", self.bug)(p)
        packets = Packets(m, p, self.offer, self.choice)
        packets.connect(m, dut)
        packet, answer = packets.payload, dut.answer
        stored = Signal()
        with m.If(dut.flush):
            m.d.sync += stored.eq(0)
        with m.Elif(dut.advance):
            m.d.sync += stored.eq(1)
        m.d.comb += [dut.empty.eq(~stored), answer.ready.eq(self.answer_ready)]
        lengths = Lengths(m, dut, packets.valid, self.lengths)
        write, guard, left = lengths.write, lengths.guard, self.probe_left
        k_refresh, v_refresh, k_read, v_read, refreshed = (
            getattr(dut, name) if p.refresh else Const(0)
            for name in ("k_refresh", "v_refresh", "k_read", "v_read", "refreshed")
        )
        if p.refresh:
            m.d.comb += dut.refresh.eq(self.refresh)
        k_own, v_own = dut.k_write & ~k_refresh, dut.v_write & ~v_refresh

        token = Signal()  # a write was accepted since the flush
        error = Signal(PacketError)  # as it must be
        taken, writes, flushes = Signal(), Signal(), Signal()
        m.d.comb += [error.eq(packet.error), taken.eq(packets.valid & dut.packet.ready)]
        starved = packet.queries & ~packet.writes & ~token & ~packets.probe
        with m.If(packets.good & starved):
            m.d.comb += error.eq(PacketError.EMPTY)
        good = error == PacketError.NONE
        accepted = taken & good
        m.d.comb += [writes.eq(accepted & packet.writes), flushes.eq(accepted & packet.flushes)]
        with m.If(flushes):
            m.d.sync += token.eq(0)
        with m.Elif(writes):
            m.d.sync += token.eq(1)

        owed, advanced = Signal(), Signal()
        label, due = packets.labels(m, error)
        owed_label, owed_answer = Signal.like(label), Signal.like(due)
        given = answer.valid & answer.ready
        owes = taken & packet.queries
        with m.If(owes):
            m.d.sync += [owed_answer.eq(due), owed_label.eq(label)]
        m.d.sync += [
            owed.eq((owed & ~given) | owes),
            advanced.eq((advanced | dut.advance) & ~taken),
        ]
        converting = self.probe_guard_outputs | dut.convert
        reading = self.probe_guard_counts | dut.readout
        gains = []
        if p.shots:
            gains += [
                ~converting | (dut.s_gain == owed_label.s_gain),
                ~reading | (dut.a_gain == owed_label.a_gain),
            ]
        if p.self_test:
            gains.append(dut.probing == (reading & owed_label.probe))
        m.d.comb += self.same_ok.eq(
            Cat(
                dut.failed == Mux(taken, error, PacketError.NONE),
                dut.flush == flushes,
                ~dut.advance | ~advanced,
                ~taken | (writes == (advanced | dut.advance)),
                ~answer.valid | (owed & (Value.cast(answer.payload) == Value.cast(owed_answer))),
                ~owed | ~taken,
                ~dut.idle | (~owed & ~advanced),
                *gains,
            ).all()
        )

        # A refresh, and the column watched.
        was_read = Signal()
        m.d.sync += was_read.eq(k_read)
        written = Phase(m, dut.k_write | dut.v_write, write, p.write_max_clk, "write")
        m.d.comb += self.arrays_ok.eq(
            Cat(
                ~(dut.k_write & dut.integrate),
                ~(dut.v_write & dut.convert),
                ~(dut.k_write & v_own) & ~(k_own & dut.v_write),
                (k_refresh == (was_read | (k_refresh & (written.elapsed != 0)))),
                k_refresh == v_refresh,
                k_read == v_read,
                ~k_refresh | (dut.k_write & dut.v_write),
                ~k_read | (dut.idle & ~taken),
                ~(k_own | v_own) | (packets.valid & packet.writes & good),
                refreshed == (k_refresh & written.ends),
            ).all()
        )

        # What a packet's state still takes, this clock included; see `Sequencer`.
        read, convert, integrate = p.readout_clk, p.convert_clk, p.integrate_clk
        query_clk = integrate + 2 * guard + convert + read + 1
        after_scores = Mux(packet.queries, query_clk, write + guard)
        rest = [
            (k_own, guard + after_scores),
            (self.probe_guard_scores, after_scores),
            (dut.integrate, query_clk - integrate),
            (self.probe_write_v, guard),
            (self.probe_guard_v, 0),
            (self.probe_guard_outputs, convert + guard + read + 1),
            (dut.convert, guard + read + 1),
            (self.probe_guard_counts, read + 1),
            (dut.readout, 1),
            *([(k_refresh, 0)] if p.refresh else []),
        ]
        longest = 4 * p.guard_max_clk + 4 * (integrate + read) + 8
        remaining, latency, busy = (
            Signal(range(longest), name=name) for name in ("remaining", "latency", "busy")
        )
        m.d.comb += latency.eq(write + guard + query_clk)
        m.d.comb += remaining.eq(
            sum((Mux(phase, left + 1 + further, 0) for phase, further in rest), answer.valid)
        )
        before = k_own | self.probe_guard_scores
        alone = self.probe_write_v | self.probe_guard_v
        begun = before | dut.integrate | alone  # and not taken
        after = converting | reading
        stalls = answer.valid & ~self.answer_ready
        rewrite_clk = (write + 1) if p.refresh else Const(0)
        patience, bound = (Signal(range(3 * longest), name=name) for name in ("patience", "bound"))
        m.d.comb += bound.eq(2 * latency + rewrite_clk + 2)
        with m.If(dut.idle | stalls):
            m.d.sync += busy.eq(0)
        with m.Elif(busy != latency):
            m.d.sync += busy.eq(busy + 1)
        with m.If(~packets.valid | dut.packet.ready | stalls):
            m.d.sync += patience.eq(0)
        with m.Elif(patience != bound):
            m.d.sync += patience.eq(patience + 1)
        m.d.comb += self.time_ok.eq((dut.idle | (busy != latency)) & (patience != bound))
        yields = self.probe_yields if p.refresh else Const(0)
        # A packet that has not begun waits for the one before, for a refresh, and for a clock.
        to_begin = Mux(
            dut.idle & yields,
            0,
            Mux(k_refresh, remaining, remaining + rewrite_clk),
        )

        def implies(condition: Value, *conclusions: Value) -> Value:
            return ~condition | Cat(*conclusions).all()

        writing = left + write >= integrate  # in an integration
        states = Cat(
            dut.idle,
            dut.k_write,
            dut.integrate,
            dut.convert,
            dut.readout,
            answer.valid,
            *(getattr(self, f"probe_{phase}") for phase in self._PHASES),
        )
        query = self.probe_query
        in_guard = Cat(getattr(self, f"probe_{name}") for name in self._PHASES if "guard" in name)
        kept = data.View(label_layout(p), query)
        due_kept = Cat(
            Const(0, PacketError) if name == "error" else kept[name]
            for name in answer_layout(p).members
        )
        helpers = [
            packets.legal,
            lengths.legal,
            states.any(),
            (states & (states - 1)[: len(states)]) == 0,
            stored == (token | advanced),
            implies(begun, packets.valid, good, ~packet.flushes, ~owed),
            implies(k_own, packet.writes),
            implies(dut.integrate, packet.queries, left < integrate),
            implies(dut.convert, left < convert),
            implies(dut.readout, left < read),
            implies(in_guard.any(), left < guard),
            implies(dut.k_write | self.probe_write_v, left < write),
            implies(alone, packet.writes, ~packet.queries),
            implies(before | self.probe_write_v, ~advanced),
            implies(self.probe_guard_v, advanced),
            implies(dut.integrate, advanced == (packet.writes & ~writing)),
            dut.v_write
            == (k_refresh | self.probe_write_v | (dut.integrate & packet.writes & writing)),
            implies(after | answer.valid, ~advanced, owed),
            implies(begun, query == Value.cast(label)),
            implies(after, query == Value.cast(owed_label), due_kept == Value.cast(owed_answer)),
            implies(answer.valid, Value.cast(answer.payload) == Value.cast(owed_answer)),
            implies(dut.idle | k_refresh, ~owed, ~advanced),
            implies(was_read, k_refresh),
            implies(~dut.idle, busy + remaining <= latency),
            implies(begun, patience + remaining < bound),
            implies(packets.valid & ~begun, patience + to_begin + 1 + latency < bound),
            implies(~packets.waits, patience == 0),
            patience < bound,
        ]
        writes_own = (k_own, self.probe_write_v, dut.integrate & packet.writes & writing, k_refresh)
        for own, elapsed in zip(
            writes_own,
            (write - 1 - left, write - 1 - left, integrate - 1 - left, write - 1 - left),
            strict=True,
        ):
            helpers.append(implies(own, written.elapsed == elapsed))
        helpers.append(implies(~(dut.k_write | dut.v_write), written.elapsed == 0))
        if p.refresh:
            helpers += self._refresh_helpers(m, dut, packets, write, written, begun)
        holds = Signal(len(helpers))
        m.d.comb += [holds.eq(Cat(*helpers)), self.helper_ok.eq(holds.all())]
        return m

    def _refresh_helpers(
        self,
        m: Module,
        dut: Any,
        packets: Packets,
        write: Value,
        written: Phase,
        begun: Value,
    ) -> list[Value]:
        """Properties of a refresh, and what carries their induction."""
        codes = packets.codes(m, self.bits)
        elapsed = written.elapsed
        k_ends = dut.k_write & ~dut.k_refresh & written.ends
        column = WatchedColumn(
            m,
            dut,
            (codes[0], elapsed != 0, k_ends),
            (codes[1], elapsed != 0, dut.advance),
            self.columns,
        )
        lost = Signal(range(self.params.write_max_clk + 3))
        loses = packets.valid & (dut.k_read | dut.k_refresh)
        with m.If(~packets.valid | begun | dut.packet.ready):
            m.d.sync += lost.eq(0)
        with m.Elif(lost != write + 2):
            m.d.sync += lost.eq(lost + loses)
        m.d.comb += [self.codes_ok.eq(column.ok), self.delay_ok.eq(lost <= write + 1)]
        return [
            *column.helpers,
            column.rewriting == dut.k_refresh,
            packets.waits | (lost == 0),
            ~dut.k_refresh | (lost <= elapsed + 1),
            ~(dut.idle & (lost != 0)) | self.probe_yields,
            ~self.probe_yields | dut.idle,
            dut.idle | dut.k_refresh | begun | (lost == 0),
        ]


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
                "choice": In(Packets.choice_bits(params)),
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
        made = Packets(m, p, Const(0), self.choice)
        chosen = Cat(made.probe, made.payload)
        script = Array(Signal(len(chosen), name=f"packet_{i}") for i in range(packets))
        known = Signal(range(packets + 1))
        with m.If((self.offer | flow[0]) & (known != packets)):
            m.d.sync += [script[known].eq(chosen), known.eq(known + 1)]

        def log(name: str, width: int) -> Array:
            return Array(Signal(width, name=f"{name}_{i}") for i in range(packets))

        logs = {"window": log("window", 1), "failed": log("failed", 3)}
        logs["answer"] = log("answer", answer_layout(p).size)
        events: dict[str, list[tuple[Signal, Value, Value]]] = {name: [] for name in logs}
        done = []
        for side, (name, params) in enumerate(
            (("StreamingSequencer", p), ("Sequencer", dataclasses.replace(p, schedule="simple")))
        ):
            dut = prove._component(name, self.bug)(params)
            sender, step = Sender(params), Step(params)
            m.submodules[name.lower()] = dut
            m.submodules[f"step_{side}"] = step
            m.submodules[f"sender_{side}"] = sender
            connect(m, dut.answer, step.answer)
            connect(m, step.replies[0], sender.answer)
            at = Signal(range(packets + 1), name=f"at_{side}")
            waits = Signal(name=f"waits_{side}")
            stored = Signal(name=f"stored_{side}")
            valid = waits | ((at != known) & (self.go | flow)[side])
            m.d.comb += [
                dut.packet.valid.eq(valid),
                Cat(dut.probe, Value.cast(dut.packet.payload)).eq(script[at]),
                dut.write_clk.eq(p.write_clk),
                dut.guard_clk.eq(p.guard_clk),
                dut.empty.eq(~stored),
                step.sent.eq(sender.sent),
                sender.m_axis_tready.eq((self.stream_ready | flow)[side]),
            ]
            if side == 0:
                m.d.comb += dut.sent.eq(step.slot)
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
                & (logs["answer"][0][-len(Const(0, PacketError)) :] == 0)
            ),
        ]
        return m


def _equality_job(packets: int, stalls: bool) -> Callable[[], Row]:
    depth = EQUALITY_CLK[packets, stalls]

    def run() -> tuple[int | None, int, dict[str, Any]]:
        miter = EqualityMiter(EQUALITY_SIZE, packets=packets, stalls=stalls)
        holds = prove._holds(prove._Design.of(miter), "equal_ok", depth)
        return depth if holds else None, depth, {}

    how = "any stalls" if stalls else "no stalls, to the end"
    title = f"both schedules: same answers, window and refusals ({packets} packets, {how})"
    return job(title, "all traces from reset, SAT", run)


def simple_properties(*, full: bool = True) -> list[Callable[[], Row]]:
    """Jobs that prove the simple schedule, and both equal; as `schedule_properties`."""
    sizes = SCHEDULE_SIZES if full else (SCHEDULE_SIZES[1], SCHEDULE_SIZES[-1])
    jobs = [_equality_job(packets, stalls) for packets, stalls in EQUALITY_CLK if full]
    jobs.append(
        induction_job(
            f"simple: {len(SIMPLE_PROPERTIES)} properties, any write and guard "
            f"({len(sizes)} sizes)",
            [lambda params=params: SimpleMiter(params) for params in sizes],
            [(*simple_names(params), "helper_ok") for params in sizes],
        )
    )
    jobs += [
        refutation_job(
            f"simple: {title}",
            lambda bug: SimpleMiter(dataclasses.replace(SHORTEST, **bug.needs), bug),
            SIMPLE_BUGS[name],
            name,
            BUG_CLK,
        )
        for name, title in SIMPLE_PROPERTIES.items()
    ]
    jobs.append(
        refutation_job(
            "both schedules: same answers, window and refusals",
            lambda bug: EqualityMiter(EQUALITY_SIZE, bug),
            EQUALITY_BUGS,
            "equal_ok",
            BUG_CLK,
            lambda: EqualityMiter(EQUALITY_SIZE),
        )
    )
    return jobs
