"""Proofs of both streams and of the step: receiver, sender, and what joins several heads.

- *Receiver*: any beats, any gaps, packets taken when the environment likes. A specification of its
  own counts the beats of a packet and says what is wrong with it. What a packet with an error does
  beyond the receiver, which is nothing, is proved with the schedules.
- *Sender*: any answers, any stalls. The specification is a queue of whole packets.
- *Step*: two or three heads, each with any packets and a sender that stalls at will, and what any
  schedule may do: take a step when a slot is free for it, answer steps in order, an invalid answer
  when nothing else is in flight and before the next step.

The method is temporal induction from reset. Sizes are small; numbers of beats, lanes and codes
enter through comparisons with constants only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from hw.packet import ERROR_LSB, SHOT_LSB, TAG_LSB, Command, PacketError
from hw.params import HeadParams
from hw.receiver import packet_layout
from hw.sender import Sender, reply_layout
from synth import prove
from synth.prove import Bug, Row, induction_job, refutation_job

__all__ = [
    "RECEIVER_BUGS",
    "RECEIVER_PROPERTIES",
    "RECEIVER_SIZES",
    "SENDER_BUGS",
    "SENDER_PROPERTIES",
    "SENDER_SIZES",
    "STEP_BUGS",
    "STEP_PROPERTIES",
    "STEP_SIZES",
    "ReceiverStreamMiter",
    "SenderMiter",
    "StepMiter",
    "stream_properties",
]


def _size(**fields: Any) -> HeadParams:
    small = {"subtiles": 2, "columns": 2, "rows": 9, "lanes": 10, "bus_bits": 32, "tag_bits": 3}
    return HeadParams(**{**small, "q_bits": 3, "kv_bits": 2, "write_clk": 2, **fields})


#: Sizes of each: sections of two beats; results of three; two heads and three.
RECEIVER_SIZES = (_size(shots=True, schedule="streaming"), _size())
SENDER_SIZES = (
    _size(lanes=5, rows=1, shots=True, schedule="streaming", result_slots=3),
    _size(lanes=5, rows=1),
)
STEP_SIZES = tuple(
    _size(rows=1, lanes=1, tag_bits=2, heads=heads, result_slots=2, schedule="streaming", **fields)
    for heads, fields in ((2, {"shots": True}), (3, {}))
)
#: Clocks within which each seeded bug shows.
BUG_CLK = 14

#: What is proved, by the name of the miter's output.
RECEIVER_PROPERTIES = {
    "packet_ok": "a packet is offered until taken and does not change; no beat is taken meanwhile",
    "pause_ok": "no header is taken in a pause; quiet stays; a packet that has begun comes in",
    "error_ok": "one packet per TLAST, with its header's fields and what is wrong with it",
}
SENDER_PROPERTIES = {
    "hold_ok": "TVALID until TREADY, TDATA and TLAST stable meanwhile",
    "beats_ok": "answers in order: header and all lanes if valid, header alone if not; TLAST",
    "room_ok": "an answer is taken if and only if a slot is free; idle if none is held",
}
STEP_PROPERTIES = {
    "together_ok": "packets of a step are taken together, and refused together",
    "replies_ok": "a reply per head that is owed one, in order, its own; none is lost",
    "slots_ok": "a slot is given back once per step, when every head's result has left",
}

#: Bugs that the proofs must find, by the property that each violates.
RECEIVER_BUGS: Mapping[str, Sequence[Bug]] = {
    "packet_ok": (
        Bug(name="a beat is taken while a packet waits", component="Receiver",
            old="self.s_axis_tready.eq(~self.packet.valid & ", new="self.s_axis_tready.eq("),
        Bug(name="a packet is not held", component="Receiver",
            old="with m.If(self.packet.valid & self.packet.ready):",
            new="with m.If(self.packet.valid):"),
    ),
    "pause_ok": (
        Bug(name="a pause stops a packet that has begun", component="Receiver",
            old="~(at_header & self.pause)", new="~self.pause"),
        Bug(name="a header is taken in a pause", component="Receiver",
            old="~(at_header & self.pause)", new="1"),
    ),
    "error_ok": (
        Bug(name="a packet that is too long passes", component="Receiver",
            old="with m.Elif(final):\n                    m.d.sync += held.error.eq("
            "PacketError.LENGTH)",
            new="with m.Elif(final):\n                    pass"),
        Bug(name="a wide code in the last beat passes", component="Receiver",
            old="with m.Elif(bad_code | bad_code_now):", new="with m.Elif(bad_code):"),
        Bug(name="a wide code of the packet before is remembered", component="Receiver",
            old="bad_code.eq(0),", new="bad_code.eq(bad_code),"),
        Bug(name="any header bits pass", component="Receiver",
            old="& ~misplaced", new=""),
    ),
}  # fmt: skip
SENDER_BUGS: Mapping[str, Sequence[Bug]] = {
    "hold_ok": (
        Bug(name="beats do not wait", component="Sender",
            old="with m.Elif(leaves):", new="with m.Elif(self.m_axis_tvalid):"),
        Bug(name="an answer is put where one leaves", component="Sender",
            old="with m.If(takes & (newest == slot)):", new="with m.If(takes & (oldest == slot)):"),
    ),
    "beats_ok": (
        Bug(name="last a beat early", component="Sender",
            old="index == p.result_beats - 1", new="index == p.result_beats - 2"),
        Bug(name="an invalid answer has lanes", component="Sender",
            old="invalid | (index", new="(index"),
        Bug(name="newest first", component="Sender",
            old="answer.eq(Array(answers)[oldest])", new="answer.eq(Array(answers)[newest])"),
    ),
    "room_ok": (
        Bug(name="an answer too many", component="Sender",
            old="self.answer.ready.eq(held != slots)", new="self.answer.ready.eq(1)"),
        Bug(name="one slot fewer", component="Sender",
            old="held + takes - self.sent", new="held + takes - (self.sent & (held != slots))"),
    ),
}  # fmt: skip
STEP_BUGS: Mapping[str, Sequence[Bug]] = {
    "together_ok": (
        Bug(name="one head's packet is enough", component="Step",
            old="Cat(packet.valid for packet in self.packets).all()",
            new="Cat(packet.valid for packet in self.packets).any()"),
        Bug(name="heads that differ are not refused", component="Step",
            old="differs | Cat(packet.error", new="Cat(packet.error"),
    ),
    "replies_ok": (
        Bug(name="a head's own error is lost", component="Step",
            old="m.d.sync += error.eq(packet.error)",
            new="m.d.sync += error.eq(PacketError.STEP)"),
        Bug(name="every head is answered", component="Step",
            old="(valid_answer | owed)", new="1"),
        Bug(name="the tag of the step taken last", component="Step",
            old="Mux(valid_answer, answer.tag, tag)", new="tag"),
        Bug(name="a held result is sent", component="Step",
            old="silent = probe | (answer.hold if p.shots else Const(0))",
            new="silent = probe | Const(0)"),
    ),
    "slots_ok": (
        Bug(name="a slot per head", component="Step",
            old="self.slot.eq(Cat(*unclaimed).all())", new="self.slot.eq(Cat(*unclaimed).any())"),
        Bug(name="a head that is owed nothing holds the slot", component="Step",
            old="goes & ~valid_answer & ~owed", new="Const(0)"),
    ),
}  # fmt: skip


def _implies(condition: Value, *conclusions: Value) -> Value:
    return ~condition | Cat(*conclusions).all()


class ReceiverStreamMiter(Component):
    """Receiver, any stream, and a specification of packets.

    Parameters
    ----------
    params
        Size.
    bug
        Put into the receiver.

    Members
    -------
    data, valid, last, pause, ready : in
        Free choices.
    probe_index, probe_state, probe_bad_code : in
        Registers of the receiver; connected after flattening.
    packet_ok, pause_ok, error_ok : Out(1)
        See `RECEIVER_PROPERTIES`.
    helper_ok : Out(1)
        Invariant that carries the induction.
    interesting : Out(1)
        A good packet that writes and queries is offered.

    """

    def __init__(self, params: HeadParams, bug: Bug | None = None) -> None:
        self.params = params
        self.bug = bug
        total = params.k_beats + params.v_beats + params.q_beats
        self._total = total
        super().__init__(
            {
                "data": In(params.bus_bits),
                "valid": In(1),
                "last": In(1),
                "pause": In(1),
                "ready": In(1),
                "probe_index": In(range(total)),
                "probe_state": In(2),
                "probe_bad_code": In(1),
                **{name: Out(1) for name in (*RECEIVER_PROPERTIES, "helper_ok", "interesting")},
            }
        )

    @property
    def probes(self) -> Mapping[str, Sequence[str]]:
        """Names, after flattening, of what each probe is connected to."""
        return {
            "probe_index": ["receiver.index"],
            "probe_state": ["receiver.state_state"],
            "probe_bad_code": ["receiver.bad_code"],
        }

    def _wide(self, section: int) -> Value:
        """Some code of a beat, whose place in the packet counts all sections, is too wide."""
        p = self.params
        at, wide = 0, []
        for count, bits, beats in (
            (p.rows, p.kv_bits, p.k_beats),
            (p.lanes, p.kv_bits, p.v_beats),
            (p.rows, p.q_bits, p.q_beats),
        ):
            for beat in range(beats):
                if at == section:
                    slots = range(min(p.codes_per_beat, count - beat * p.codes_per_beat))
                    wide = [self.data.word_select(slot, p.slot_bits)[bits:] for slot in slots]
                at += 1
        return Cat(*wide).any()

    def elaborate(self, platform: object) -> Module:
        """Build the miter."""
        m = Module()
        p = self.params
        dut = m.submodules.receiver = prove._component("Receiver", self.bug)(p)
        packet = dut.packet
        m.d.comb += [
            dut.s_axis_tdata.eq(self.data),
            dut.s_axis_tvalid.eq(self.valid),
            dut.s_axis_tlast.eq(self.last),
            dut.pause.eq(self.pause),
            packet.ready.eq(self.ready),
        ]
        takes = self.valid & dut.s_axis_tready
        begun = Signal()  # a header was taken, the last beat not yet
        due = Signal()  # a packet is complete and not taken
        header = Signal(32)
        beats = Signal(range(self._total + 2))  # after the header, as far as they matter
        wide = Signal()
        with m.If(takes):
            m.d.sync += [begun.eq(~self.last), due.eq(self.last)]
        with m.Elif(self.ready):
            m.d.sync += due.eq(0)
        command, shot = header[:8], header[SHOT_LSB:]
        writes = (command == Command.WRITE) | (command == Command.WRITE_QUERY)
        queries = command[1]
        first = Mux(writes, 0, self._total - p.q_beats)
        place = first + beats
        with m.If(takes & ~begun):
            m.d.sync += [header.eq(self.data), beats.eq(0), wide.eq(0)]
        with m.Elif(takes):
            m.d.sync += beats.eq(Mux(beats == self._total + 1, beats, beats + 1))
            now = Cat((place == i) & self._wide(i) for i in range(self._total)).any()
            m.d.sync += wide.eq(wide | now)
        known = (
            (command >= Command.WRITE)
            & (command <= Command.FLUSH)
            & ~header[TAG_LSB + p.tag_bits : SHOT_LSB].any()
            & ~(shot.any() & ~queries if p.shots else shot.any())
        )
        wanted = Mux(writes, p.k_beats + p.v_beats, 0) + Mux(queries, p.q_beats, 0)
        error = Mux(
            ~known,
            PacketError.COMMAND,
            Mux(beats != wanted, PacketError.LENGTH, Mux(wide, PacketError.CODE, PacketError.NONE)),
        )
        fields = packet.payload
        shots = (
            [
                Cat(fields.s_gain, fields.a_gain, fields.accumulate, fields.hold, fields.shift)
                == shot
            ]
            if p.shots
            else []
        )
        told = Cat(
            fields.writes == writes,
            fields.queries == queries,
            fields.flushes == (command == Command.FLUSH),
            fields.tag == header[TAG_LSB:][: p.tag_bits],
            *shots,
        ).all()

        waited = Signal()
        was = Signal(packet_layout(p).size)
        m.d.sync += [waited.eq(packet.valid & ~self.ready), was.eq(Value.cast(fields))]
        was_quiet = Signal()
        m.d.sync += was_quiet.eq(dut.quiet & self.pause)
        m.d.comb += [
            self.packet_ok.eq(
                Cat(
                    ~waited | (packet.valid & (was == Value.cast(fields))),
                    ~(packet.valid & dut.s_axis_tready),
                ).all()
            ),
            self.pause_ok.eq(
                Cat(
                    ~(self.pause & ~begun & dut.s_axis_tready),
                    ~begun | dut.s_axis_tready,
                    dut.quiet == ~(begun | packet.valid),
                    ~was_quiet | dut.quiet,
                ).all()
            ),
            self.error_ok.eq((packet.valid == due) & _implies(due, told, fields.error == error)),
        ]
        at_header, at_payload, dropping = (self.probe_state == i for i in range(3))
        m.d.comb += [
            self.helper_ok.eq(
                Cat(
                    ~(begun & due),
                    packet.valid == due,
                    self.probe_state != 3,
                    at_header == ~begun,
                    _implies(begun, told),
                    _implies(
                        at_payload,
                        known,
                        writes | queries,
                        self.probe_index == place,
                        beats < wanted,
                        self.probe_bad_code == wide,
                        fields.error == PacketError.NONE,
                    ),
                    _implies(
                        dropping,
                        fields.error == Mux(known, PacketError.LENGTH, PacketError.COMMAND),
                        # One more beat at the least, so the packet will be too long.
                        ~known | (beats >= wanted),
                    ),
                    _implies(due, told, fields.error == error),
                    _implies(waited, was == Value.cast(fields), due),
                    _implies(was_quiet, ~begun, ~due),
                ).all()
            ),
            self.interesting.eq(
                due & (fields.error == PacketError.NONE) & fields.writes & fields.queries
            ),
        ]
        return m


class SenderMiter(Component):
    """Sender, any answers, a result stream that stalls at will, and a queue of packets.

    Parameters
    ----------
    params
        Size.
    bug
        Put into the sender.

    Members
    -------
    offer, answer, results, full_scale, saturated, ready : in
        Free choices.
    probe_* : in
        Registers of the sender; connected after flattening.
    hold_ok, beats_ok, room_ok : Out(1)
        See `SENDER_PROPERTIES`.
    helper_ok : Out(1)
        Invariant that carries the induction.
    interesting : Out(1)
        Every slot is held, and a valid answer's last beat leaves.

    """

    def __init__(self, params: HeadParams, bug: Bug | None = None) -> None:
        self.params = p = params
        self.bug = bug
        slots = p.sender_slots
        probed = {
            "newest": (max(slots, 2) - 1).bit_length(),
            "oldest": (max(slots, 2) - 1).bit_length(),
            "held": slots.bit_length(),
            "index": (p.result_beats - 1).bit_length(),
        }
        for slot in range(slots):
            probed |= {
                f"answer_{slot}": reply_layout(p).size,
                f"results_{slot}": p.lanes * p.result_bits,
                f"full_scale_{slot}": p.lanes,
            }
            if p.shots:
                probed[f"saturated_{slot}"] = p.flag_groups
        self._probed = probed
        super().__init__(
            {
                "offer": In(1),
                "answer": In(reply_layout(p).size),
                "results": In(p.lanes * p.result_bits),
                "full_scale": In(p.lanes),
                "saturated": In(p.flag_groups),
                "ready": In(1),
                **{f"probe_{name}": In(width) for name, width in probed.items()},
                **{name: Out(1) for name in (*SENDER_PROPERTIES, "helper_ok", "interesting")},
            }
        )

    @property
    def probes(self) -> Mapping[str, Sequence[str]]:
        """Names, after flattening, of what each probe is connected to."""
        return {f"probe_{name}": [f"sender.{name}"] for name in self._probed}

    def _packet(self, answer: Any, results: Value, full_scale: Value, saturated: Value) -> Value:
        """Beats of a whole packet, header lowest."""
        p = self.params
        invalid = answer.error != PacketError.NONE
        header = Cat(
            invalid,
            full_scale.any() & ~invalid,
            (saturated.any() if p.shots else Const(0)) & ~invalid,
            Const(0, TAG_LSB - 3),
            answer.tag,
            Const(0, ERROR_LSB - TAG_LSB - p.tag_bits),
            answer.error,
        )
        beats = [Cat(header, Const(0, p.bus_bits))[: p.bus_bits]]
        for first in range(0, p.lanes, p.lanes_per_beat):
            slots = []
            for lane in range(first, min(first + p.lanes_per_beat, p.lanes)):
                value = results.word_select(lane, p.result_bits)
                sign = value[-1].replicate(p.result_slot_bits)
                slots.append(Cat(value, sign)[: p.result_slot_bits])
            beats.append(Cat(*slots, Const(0, p.bus_bits))[: p.bus_bits])
        return Cat(*beats)

    def elaborate(self, platform: object) -> Module:
        """Build the miter."""
        m = Module()
        p = self.params
        slots = p.sender_slots
        dut = m.submodules.sender = prove._component("Sender", self.bug)(p)
        m.d.comb += [
            dut.answer.valid.eq(self.offer),
            Value.cast(dut.answer.payload).eq(self.answer),
            dut.results.eq(self.results),
            dut.full_scale.eq(self.full_scale),
            dut.saturated.eq(self.saturated),
            dut.m_axis_tready.eq(self.ready),
        ]
        takes = dut.answer.valid & dut.answer.ready
        packet = Signal(p.bus_bits * p.result_beats)
        m.d.comb += packet.eq(
            self._packet(dut.answer.payload, self.results, self.full_scale, self.saturated)
        )
        # The queue, its oldest first; a packet is whole.
        queue = [Signal.like(packet, name=f"queue_{i}") for i in range(slots)]
        held = Signal(range(slots + 1))
        beat = Signal(range(p.result_beats))
        invalid = queue[0][0]
        last = invalid | (beat == p.result_beats - 1)
        leaves = (held != 0) & self.ready
        gone = leaves & last
        for i, own in enumerate(queue):
            after = queue[i + 1] if i + 1 < slots else own
            with m.If(takes & (held == i + gone)):
                m.d.sync += own.eq(packet)
            with m.Elif(gone):
                m.d.sync += own.eq(after)
        m.d.sync += held.eq(held + takes - gone)
        with m.If(leaves):
            m.d.sync += beat.eq(Mux(last, 0, beat + 1))

        waited, was = Signal(), Signal(p.bus_bits + 1)
        now = Cat(dut.m_axis_tdata, dut.m_axis_tlast)
        m.d.sync += [waited.eq(dut.m_axis_tvalid & ~self.ready), was.eq(now)]
        valid = dut.m_axis_tvalid
        m.d.comb += [
            self.hold_ok.eq(~waited | (valid & (was == now))),
            self.beats_ok.eq(
                Cat(
                    valid == (held != 0),
                    ~valid | (dut.m_axis_tdata == queue[0].word_select(beat, p.bus_bits)),
                    ~valid | (dut.m_axis_tlast == last),
                    dut.sent == gone,
                ).all()
            ),
            self.room_ok.eq((dut.answer.ready == (held != slots)) & (dut.idle == (held == 0))),
        ]
        # Slot by slot: the queue's n-th entry is the n-th from the oldest on.
        same = []
        for i in range(slots):
            for slot in range(slots):
                answer = Signal(reply_layout(p), name=f"kept_{i}_{slot}")
                m.d.comb += Value.cast(answer).eq(getattr(self, f"probe_answer_{slot}"))
                saturated = getattr(self, f"probe_saturated_{slot}") if p.shots else Const(0)
                kept = self._packet(
                    answer,
                    getattr(self, f"probe_results_{slot}"),
                    getattr(self, f"probe_full_scale_{slot}"),
                    saturated,
                )
                header = slice(0, p.bus_bits)
                equal = (kept[header] == queue[i][header]) & (queue[i][0] | (kept == queue[i]))
                at = (slot - i) % slots
                same.append(_implies((held > i) & (self.probe_oldest == at), equal))
        end = self.probe_oldest + self.probe_held
        m.d.comb += [
            self.helper_ok.eq(
                Cat(
                    self.probe_held == held,
                    held <= slots,
                    self.probe_index == beat,
                    beat < p.result_beats,
                    _implies(held == 0, beat == 0),
                    _implies(invalid & (held != 0), beat == 0),
                    self.probe_oldest < slots,
                    self.probe_newest == Mux(end >= slots, end - slots, end),
                    _implies(waited, held != 0, was == now),
                    *same,
                ).all()
            ),
            self.interesting.eq((held == slots) & gone & ~invalid),
        ]
        return m


class StepMiter(Component):
    """Step, packets of every head, senders that stall at will, and what a schedule may do.

    Parameters
    ----------
    params
        Size, with several heads.
    bug
        Put into the step.

    Members
    -------
    offers, choices, take, give, empty, ready : in
        Free choices: each head's packets, when a step is taken, when the oldest is answered,
        whether a query meets an empty window, and when each head's results leave.
    probe_* : in
        Registers of step and senders; connected after flattening.
    together_ok, replies_ok, slots_ok : Out(1)
        See `STEP_PROPERTIES`.
    helper_ok : Out(1)
        Invariant that carries the induction.
    interesting : Out(1)
        One head's result has left, another's not; and a slot is free.

    """

    def __init__(self, params: HeadParams, bug: Bug | None = None) -> None:
        self.params = p = params
        self.bug = bug
        self._choice_bits = packet_layout(p).size
        probed = {}
        for head in range(p.heads):
            probed |= {
                f"left_{head}": (f"step.left_{head}", p.sender_slots.bit_length()),
                f"owed_{head}": (f"step.owed_{head}", 1),
                f"tag_{head}": (f"step.tag_{head}", p.tag_bits),
                f"error_{head}": (f"step.error_{head}", len(Const(0, PacketError))),
                f"held_{head}": (f"sender_{head}.held", p.sender_slots.bit_length()),
            }
        self._probed = probed
        super().__init__(
            {
                "offers": In(p.heads),
                "choices": In(p.heads * self._choice_bits),
                "take": In(1),
                "give": In(1),
                "empty": In(1),
                "ready": In(p.heads),
                **{f"probe_{name}": In(width) for name, (_, width) in probed.items()},
                **{name: Out(1) for name in (*STEP_PROPERTIES, "helper_ok", "interesting")},
            }
        )

    @property
    def probes(self) -> Mapping[str, Sequence[str]]:
        """Names, after flattening, of what each probe is connected to."""
        return {f"probe_{name}": [target] for name, (target, _) in self._probed.items()}

    def elaborate(self, platform: object) -> Module:
        """Build the miter."""
        m = Module()
        p = self.params
        slots = p.sender_slots
        dut = m.submodules.step = prove._component("Step", self.bug)(p)
        senders, packets = [], []
        for head in range(p.heads):
            sender = m.submodules[f"sender_{head}"] = Sender(p)
            reply, packet = dut.replies[head], dut.packets[head]
            held, waits = Signal(packet_layout(p), name=f"held_{head}"), Signal(name=f"w_{head}")
            choice = self.choices.word_select(head, self._choice_bits)
            m.d.comb += [
                sender.answer.valid.eq(reply.valid),
                sender.answer.payload.eq(reply.payload),
                reply.ready.eq(sender.answer.ready),
                sender.m_axis_tready.eq(self.ready[head]),
                dut.sent[head].eq(sender.sent),
                packet.valid.eq(waits | self.offers[head]),
                Value.cast(packet.payload).eq(Mux(waits, Value.cast(held), choice)),
            ]
            m.d.sync += [
                waits.eq(packet.valid & ~packet.ready),
                held.eq(packet.payload),
            ]
            senders.append(sender)
            packets.append(packet.payload)

        # What a schedule may do: slots, valid answers to come, and one invalid answer.
        whole = dut.packet.payload
        free = Signal(range(slots + 1), init=slots)
        line = [
            Signal(p.tag_bits + 1, name=f"line_{i}") for i in range(slots + 1)
        ]  # tag and hold, the oldest first
        pending = Signal(range(slots + 2))
        refusing, refusal, refused_tag = Signal(), Signal(PacketError), Signal(p.tag_bits)
        hold = whole.hold if p.shots else Const(0)
        error = Signal(PacketError)
        m.d.comb += error.eq(whole.error)
        with m.If((whole.error == PacketError.NONE) & self.empty & whole.queries):
            m.d.comb += error.eq(PacketError.EMPTY)
        good = error == PacketError.NONE
        may = Mux(
            whole.queries,
            Mux(good, (hold | (free != 0)) & (pending != slots + 1), (free != 0) & (pending == 0)),
            1,
        )
        takes = Signal()
        m.d.comb += [
            dut.packet.ready.eq(dut.packet.valid & self.take & may),
            takes.eq(dut.packet.valid & dut.packet.ready),
        ]
        owes = takes & whole.queries
        gives = Signal()
        answer = dut.answer.payload
        m.d.comb += [
            gives.eq(~refusing & self.give & (pending != 0)),
            dut.answer.valid.eq(gives | refusing),
            answer.tag.eq(Mux(refusing, refused_tag, line[0][: p.tag_bits])),
            answer.error.eq(Mux(refusing, refusal, PacketError.NONE)),
        ]
        held_result = line[0][-1] & ~refusing
        if p.shots:
            m.d.comb += answer.hold.eq(held_result)
        for i, own in enumerate(line):
            after = line[i + 1] if i + 1 < len(line) else own
            with m.If(owes & good & (pending == i + gives)):
                m.d.sync += own.eq(Cat(whole.tag, hold))
            with m.Elif(gives):
                m.d.sync += own.eq(after)
        takes_slot = owes & ~(good & hold)
        m.d.sync += [
            pending.eq(pending + (owes & good) - gives),
            free.eq(free - takes_slot + dut.slot),
            refusing.eq(owes & ~good),
        ]
        with m.If(owes):
            m.d.sync += [refusal.eq(error), refused_tag.eq(whole.tag)]

        # Of each head: what its own packet of the step taken last must be answered with.
        names = ("writes", "queries", "flushes", "tag")
        names += ("accumulate", "hold", "shift") * p.shots
        alike = Cat(one[name] == packets[0][name] for one in packets[1:] for name in names).all()
        bad = ~alike | Cat(one.error != PacketError.NONE for one in packets).any()
        together = [
            takes == Cat(packet.ready for packet in dut.packets).any(),
            Cat(packet.ready for packet in dut.packets).all() | ~takes,
            ~takes | Cat(packet.valid for packet in dut.packets).all(),
            ~dut.packet.valid | ((whole.error != PacketError.NONE) == bad),
            ~dut.packet.valid | bad | Cat(whole[n] == packets[0][n] for n in names).all(),
            ~dut.packet.valid | (whole.queries == Cat(one.queries for one in packets).any()),
            ~dut.packet.valid | (dut.refused == bad),
        ]
        replies, helpers = [], [free <= slots, pending <= slots + 1, ~refusing | (pending == 0)]
        if not p.shots:
            helpers += [~own[-1] for own in line]
        sendable = sum(((pending > i) & ~own[-1] for i, own in enumerate(line)), start=Const(0, 4))
        for head, one in enumerate(packets):
            owed, own_tag = Signal(name=f"due_{head}"), Signal(p.tag_bits, name=f"due_tag_{head}")
            own_error = Signal(PacketError, name=f"due_error_{head}")
            with m.If(takes):
                m.d.sync += [
                    owed.eq(one.queries),
                    own_tag.eq(one.tag),
                    own_error.eq(
                        Mux(
                            one.error != PacketError.NONE,
                            one.error,
                            Mux(bad, PacketError.STEP, error),
                        )
                    ),
                ]
            reply = dut.replies[head]
            expected = Mux(refusing, owed, gives & ~held_result)
            replies += [
                reply.valid == expected,
                ~reply.valid | reply.ready,
                ~reply.valid | (reply.payload.tag == Mux(refusing, own_tag, line[0][: p.tag_bits])),
                ~reply.valid | (reply.payload.error == Mux(refusing, own_error, PacketError.NONE)),
            ]
            left, held = (getattr(self, f"probe_{name}_{head}") for name in ("left", "held"))
            own = getattr(self, f"probe_error_{head}")
            helpers += [
                free + sendable + refusing + left + held == slots,
                held <= slots,
                left <= slots,
                _implies(
                    refusing,
                    getattr(self, f"probe_owed_{head}") == owed,
                    getattr(self, f"probe_tag_{head}") == own_tag,
                    Mux(own == PacketError.NONE, refusal, own) == own_error,
                    refusal != PacketError.NONE,
                ),
            ]
        replies += [
            ~dut.answer.valid | dut.answer.ready,
            dut.keep == gives,
        ]
        lefts = [getattr(self, f"probe_left_{head}") for head in range(p.heads)]
        holds = [getattr(self, f"probe_held_{head}") for head in range(p.heads)]
        # Slots in use are those of results that are to come or that some head has not sent.
        most = Const(0, 4)
        for held in holds:
            most = Mux(held > most, held, most)
        m.d.comb += [
            self.together_ok.eq(Cat(*together).all()),
            self.replies_ok.eq(Cat(*replies).all()),
            self.slots_ok.eq(
                Cat(
                    free <= slots,
                    ~dut.slot | (free != slots),
                    # A clock after every head's result has left, the slot is free.
                    free + sendable + refusing + most + dut.slot >= slots,
                    free + sendable + refusing + most <= slots,
                ).all()
            ),
            self.helper_ok.eq(Cat(*helpers).all()),
            self.interesting.eq((free != 0) & (lefts[0] != 0) & (holds[1] != 0)),
        ]
        return m


def _names(params: HeadParams) -> str:
    return f"{params.heads} heads" if params.heads > 1 else params.schedule


def stream_properties(*, full: bool = True) -> list[Callable[[], Row]]:
    """Jobs of streams and step, to be run by `synth.prove.run_proofs`.

    Parameters
    ----------
    full
        Every size; else one of each.

    """
    jobs = []
    for block, miter, sizes, properties, bugs in (
        ("receiver", ReceiverStreamMiter, RECEIVER_SIZES, RECEIVER_PROPERTIES, RECEIVER_BUGS),
        ("sender", SenderMiter, SENDER_SIZES, SENDER_PROPERTIES, SENDER_BUGS),
        ("step", StepMiter, STEP_SIZES, STEP_PROPERTIES, STEP_BUGS),
    ):
        for params in sizes if full else sizes[:1]:
            jobs.append(
                induction_job(
                    f"{block}: {len(properties)} properties ({_names(params)})",
                    [lambda miter=miter, params=params: miter(params)],
                    [(*properties, "helper_ok")],
                )
            )
        for at, (name, title) in enumerate(properties.items()):
            reach = (lambda miter=miter, params=sizes[0]: miter(params)) if at == 0 else None
            jobs.append(
                refutation_job(
                    f"{block}: {title}",
                    lambda bug, miter=miter, params=sizes[0]: miter(params, bug),
                    bugs[name],
                    name,
                    BUG_CLK,
                    reach,
                )
            )
    return jobs
