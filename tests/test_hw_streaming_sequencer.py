"""Streaming sequencer against resource rules on timetables: every output, every clock."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest
from amaranth.hdl import Cat, Module, Value
from amaranth.lib.wiring import Component, In, Out
from test_hw_bench import SMALL, Clocked, elaborated, seeds, simulate

from hw.packet import Command, PacketError
from hw.params import HeadParams
from hw.presets import PRESETS
from hw.streaming_sequencer import StreamingSequencer
from sim.reference.sequencer import LINES, timetable
from sim.reference.streaming_sequencer import GivenAnswer, Offer, Schedule, schedule

W, Q, B, F = Command.WRITE, Command.QUERY, Command.WRITE_QUERY, Command.FLUSH
BANKS = ("scores_bank", "convert_bank", "readout_bank")
REFUSALS = (PacketError.COMMAND, PacketError.LENGTH, PacketError.CODE)


def phases(**fields) -> HeadParams:
    """A head of which only phases, tags and slots matter."""
    small = {"subtiles": 1, "columns": 2, "rows": 1, "lanes": 1, "bus_bits": 32, "tag_bits": 6}
    return HeadParams(**small | fields, schedule="streaming")


#: Phase lengths and slots of every kind.
SHAPES = {
    **{
        name: dataclasses.replace(SMALL[name], schedule="streaming")
        for name in ("tiny", "three-subtiles", "slow-write", "all-one", "long-guard")
    },
    "guard-two": phases(q_bits=3, count_bits=3, write_clk=4, guard_clk=2, result_slots=3),
    "write-as-long-as-integrate": phases(q_bits=3, count_bits=3, write_clk=7, result_slots=2),
    "write-as-long-long-guard": phases(q_bits=2, count_bits=2, write_clk=3, guard_clk=5),
    "long-counts": phases(q_bits=2, count_bits=4, write_clk=2),
    "long-counts-long-write": phases(q_bits=3, count_bits=4, write_clk=7, guard_clk=2),
    "counts-as-long-as-array-1": phases(q_bits=3, count_bits=4, write_clk=7, result_slots=5),
    "short-counts": phases(q_bits=4, count_bits=2, write_clk=4, result_slots=3),
    "one-slot": phases(q_bits=3, count_bits=3, write_clk=3, result_slots=1),
    "two-slots": phases(q_bits=3, count_bits=2, write_clk=5, result_slots=2),
    "three-slots": phases(q_bits=2, count_bits=2, write_clk=2, result_slots=3),
    "sixteen-slots": phases(q_bits=2, count_bits=3, write_clk=1, result_slots=16),
    "one-bit-queries": phases(q_bits=1, count_bits=3, write_clk=1, result_slots=4),
    "one-bit-queries-long-guard": phases(q_bits=1, count_bits=1, write_clk=1, guard_clk=3),
}


def each_shape(*names: str) -> pytest.MarkDecorator:
    chosen = names or tuple(SHAPES)
    return pytest.mark.parametrize("params", [SHAPES[name] for name in chosen], ids=chosen)


@dataclass(frozen=True, kw_only=True)
class Packet:
    """A packet, and how long its source waits before it offers it."""

    command: Command | None
    tag: int = 0
    error: PacketError = PacketError.NONE
    answered: bool | None = None  #: None: as the command says
    gap_clk: int = 0  #: clocks from when it could be offered until it is

    def offer(self, from_clk: int) -> Offer:
        return Offer(
            command=self.command, tag=self.tag, error=self.error, answered=self.answered,
            from_clk=from_clk,
        )  # fmt: skip

    @property
    def payload(self):
        return {
            "writes": int(self.command is not None and self.command.writes),
            "queries": int(self.offer(0).owed),
            "flushes": int(self.command is F),
            "tag": self.tag,
            "error": self.error,
        }


def numbered(params, *what, gap_clk=0) -> list[Packet]:
    """Packets with tags that count up, from commands or packets."""
    made = []
    for n, one in enumerate(what, 1):
        packet = one if isinstance(one, Packet) else Packet(command=one, gap_clk=gap_clk)
        made.append(dataclasses.replace(packet, tag=n % 2**params.tag_bits))
    return made


def random_packets(params, rng, count) -> list[Packet]:
    """Mixes that change now and then: streams of one kind, mixtures, refusals, gaps."""
    packets: list[Packet] = []
    while len(packets) < count:
        commands = rng.choice(((B,), (Q,), (W,), (B, Q), (W, Q), (W, B, Q), (W, Q, B, B, F)))
        refused, longest = rng.choice((0.0, 0.0, 0.3)), rng.choice((0, 0, 1, 3, 40))
        for _ in range(rng.randint(1, 12)):
            tag, gap_clk = rng.randrange(2**params.tag_bits), rng.randint(0, longest)
            command, error, answered = rng.choice(commands), PacketError.NONE, None
            if rng.random() < refused:
                command, error = rng.choice((W, Q, B, F)), rng.choice(REFUSALS)
                if error is PacketError.COMMAND and rng.random() < 0.5:
                    command, answered = None, rng.random() < 0.5
            packets.append(
                Packet(command=command, tag=tag, error=error, answered=answered, gap_clk=gap_clk)
            )
    return packets[:count]


class Flat(Component):
    """The sequencer with its inputs in one vector and its outputs in another: quick to access."""

    def __init__(self, params) -> None:
        self.sequencer = dut = StreamingSequencer(params)
        self.outputs = {name: getattr(dut, name) for name in (*LINES, *BANKS, "failed", "idle")} | {
            "valid": dut.answer.valid,
            "ready": dut.packet.ready,
            "tag": dut.answer.payload.tag,
            "error": dut.answer.payload.error,
        }
        self.widths = {name: len(Value.cast(value)) for name, value in self.outputs.items()}
        packet = Value.cast(dut.packet.payload)
        self.inputs = Cat(dut.packet.valid, dut.empty, dut.sent, packet)
        super().__init__({"drive": In(len(self.inputs)), "seen": Out(sum(self.widths.values()))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.sequencer = self.sequencer
        m.d.comb += [self.inputs.eq(self.drive), self.seen.eq(Cat(*self.outputs.values()))]
        return m


@dataclass
class Rules:
    """What must hold in every clock, whatever the packets."""

    params: HeadParams
    owed: list[int] = field(default_factory=list)  #: tags of answers to come, in order
    outstanding: int = 0  #: queries and refusals that were admitted and have not left
    answered: bool = False  #: an answer was valid in the clock before
    before: dict[str, int] = field(default_factory=dict)

    def clock(self, now: dict[str, int], refused_owed: bool, sent: bool) -> None:
        assert not (now["k_write"] and now["integrate"]), "array 1 is written while read"
        assert not (now["v_write"] and now["convert"]), "array 2 is written while read"
        assert not (now["k_write"] and now["v_write"]), "one set of select lines serves both"
        array_1 = now["integrate"] or now["scores_reset"]
        array_2 = now["convert"] or now["outputs_reset"]
        if array_1 and now["convert"]:
            assert now["scores_bank"] != now["convert_bank"]
        if array_2 and now["readout"]:
            assert now["convert_bank"] != now["readout_bank"]
        assert not (now["counts_clear"] and now["readout"])
        assert now["arm"] == now["scores_reset"]
        assert not (now["flush"] and not now["idle"])
        assert not (now["advance"] and not now["v_write"])
        for phase, strobe, bank in (
            ("integrate", "scores_reset", "scores_bank"),
            ("convert", "outputs_reset", "convert_bank"),
            ("readout", "counts_clear", "readout_bank"),
        ):
            if now[phase]:
                assert self.before[phase] or self.before[strobe], f"{phase} without {strobe}"
                assert now[bank] == self.before[bank], f"{bank} changes during {phase}"
            assert not (now[strobe] and now[phase])
        self.before = now

        assert not (self.answered and now["valid"]), "an answer lasts one clock"
        self.answered = bool(now["valid"])
        if now["valid"]:
            assert self.owed, "an answer that is not owed"
            assert now["tag"] == self.owed.pop(0), "answers keep their order"
        self.outstanding += now["arm"] + refused_owed - sent
        assert 0 <= self.outstanding <= self.params.result_slots


class Recorder:
    """Offers packets, takes results away, applies the rules, and compares with the reference.

    Parameters
    ----------
    clk, params
        The bench.
    leaves
        From an answer to the clocks until its result has left, at least one; results leave in
        order.
    empty
        Noise to be shown as ``empty``; by default it is what a window would say.
    """

    def __init__(
        self,
        clk: Clocked,
        params: HeadParams,
        leaves: Callable[[], int] = lambda: 1,
        empty: Callable[[], bool] | None = None,
    ) -> None:
        self.clk, self.params, self.leaves, self.noise = clk, params, leaves, empty
        self.bits: dict[Packet, int] = {}
        self.restart()

    def restart(self) -> None:
        self.start = self.clk.now
        self.rules = Rules(self.params)
        self.trace: list[dict[str, int]] = []
        self.offers: list[Offer] = []
        self.sent: set[int] = set()
        self.empty: set[int] = set()
        self.leaving: list[int] = []
        self.occupancy = 0

    async def clock(self, packet: Packet | None) -> bool:
        """One clock; true if the packet was taken in it."""
        clk, now = self.clk, len(self.trace)
        empty = self.occupancy == 0 if self.noise is None else self.noise()
        sent = bool(self.leaving) and self.leaving[0] == now
        bits = 0 if packet is None else self.packed(packet)
        clk.set(drive=(packet is not None) | empty << 1 | sent << 2 | bits << 3)
        if empty:
            self.empty.add(now)
        if sent:
            self.sent.add(self.leaving.pop(0))

        seen, word = {}, clk.get("seen")
        for name, width in clk.dut.widths.items():
            seen[name] = word & (1 << width) - 1
            word >>= width
        refused = bool(seen["failed"] and packet is not None and packet.payload["queries"])
        self.rules.clock(seen, refused, sent)
        self.trace.append(seen)
        if seen["valid"]:
            last = self.leaving[-1] if self.leaving else now
            self.leaving.append(max(now + self.leaves(), last + 1))
        if seen["flush"]:
            self.occupancy = 0
        self.occupancy += seen["advance"]
        await clk.edge()
        return bool(packet is not None and seen["ready"])

    def packed(self, packet: Packet) -> int:
        if packet not in self.bits:
            layout = self.clk.dut.sequencer.packet.payload.shape()
            self.bits[packet] = layout.const(packet.payload).as_value().value
        return self.bits[packet]

    async def offer(self, packet: Packet, *, clocks: int | None = None) -> None:
        """Offer a packet until it has been taken, or for so many clocks."""
        for _ in range(packet.gap_clk):
            await self.clock(None)
        if packet.payload["queries"]:
            self.rules.owed.append(packet.tag)
        self.offers.append(packet.offer(len(self.trace)))
        begun = len(self.trace)
        while not await self.clock(packet):
            if clocks is not None and len(self.trace) - begun == clocks:
                return
            assert len(self.trace) - begun < 3000, "the sequencer hangs"

    async def idle(self, clocks: int = 3) -> None:
        """Nothing offered, until nothing is in flight and every result has left, and longer."""
        while clocks:
            await self.clock(None)
            if self.trace[-1]["idle"] and not self.leaving:
                clocks -= 1

    async def through(self, packets: Iterable[Packet]) -> Schedule:
        for packet in packets:
            await self.offer(packet)
        await self.idle()
        assert not self.rules.owed, "every answer that is owed is given"
        assert self.rules.outstanding == 0
        return self.compare()

    def compare(self) -> Schedule:
        """Compare all that has been recorded since the last reset."""
        clocks = len(self.trace)
        expected = schedule(
            self.params, self.offers, clocks=clocks, sent=self.sent, empty=self.empty
        )
        for name in (*LINES, "idle"):
            got = {now for now, seen in enumerate(self.trace) if seen[name]}
            wanted = expected.idle if name == "idle" else expected.lines[name]
            assert got == wanted, f"{name}: differs in clocks {sorted(got ^ wanted)[:8]}"
        for name in BANKS:
            assert tuple(seen[name] for seen in self.trace) == getattr(expected, name), name
        failed = {n: PacketError(seen["failed"]) for n, seen in enumerate(self.trace)}
        assert {n: kind for n, kind in failed.items() if kind} == expected.failed
        ready = tuple(now for now, seen in enumerate(self.trace) if seen["ready"])
        assert ready == expected.taken_clk
        answers = tuple(
            GivenAnswer(now, seen["tag"], PacketError(seen["error"]))
            for now, seen in enumerate(self.trace)
            if seen["valid"]
        )
        assert answers == expected.answers
        return expected


def run(params, packets, *, before=None, **kwargs) -> Schedule:
    """Schedule of packets from an idle sequencer, which has met the reference."""
    found: list[Schedule] = []

    async def bench(clk: Clocked) -> None:
        recorder = Recorder(clk, params, **kwargs)
        found.append(await recorder.through(packets))

    simulate(Flat(params), bench)
    return found[0]


# --- directed ----------------------------------------------------------------------------------
BAD_W, BAD_Q, BAD_F = (Packet(command=c, error=PacketError.CODE) for c in (W, Q, F))
UNKNOWN, UNKNOWN_OWED = (
    Packet(command=None, error=PacketError.COMMAND, answered=owed) for owed in (False, True)
)
SEQUENCES = {
    "both after both": [B] * 7,
    "query after query": [B] + [Q] * 7,
    "write after write": [W] * 6,
    "write after query": [B, Q, W, Q, W, Q, W],
    "query after write": [W, Q, W, Q, W, Q],
    "both after query": [W, Q, B, Q, B, B, Q, Q, B],
    "writes after both": [B, W, W, B, W, W, W, B, Q],
    "flush in mid-stream": [B, B, F, B, B, Q, F, W, F, F, Q, F],
    "empty query": [Q, Q, B, Q, F, Q, B],
    "query right after a pending write": [F, W, Q, Q, F, W, Q],
    "query right after a write that waits": [W, Q, W, Q, F, B, W, Q],
    "refused, no answer": [BAD_W, B, BAD_W, B, BAD_F, BAD_F, Q, UNKNOWN, W, BAD_W, Q, BAD_W, B],
    "refused, with answer": [BAD_Q, B, BAD_Q, B, B, UNKNOWN_OWED, BAD_Q, W, BAD_Q, Q, BAD_Q, F],
}


@each_shape()
@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(params, name):
    """Packets that always wait, with prompt results and with results that leave late."""

    async def bench(clk: Clocked) -> None:
        late = 3 * clk.dut.sequencer.interval_clk
        recorder = Recorder(clk, params)
        for delay in (1, 2, late):
            recorder.leaves = lambda delay=delay: delay
            await clk.reset()
            recorder.restart()
            await recorder.through(numbered(params, *SEQUENCES[name]))

    simulate(Flat(params), bench)


@each_shape()
@pytest.mark.parametrize("answered", (False, True))
@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: error.name)
def test_each_refusal(params, error, answered):
    """Whatever the command, no line moves; an answer that is owed comes after those before it."""
    commands = (Q, B) if answered else (W, F)
    bad = [Packet(command=command, error=error) for command in commands]
    bad.append(Packet(command=None, error=error, answered=answered))
    for one in bad:
        result = run(params, numbered(params, one))
        assert not any(result.lines.values())
        assert result.taken_clk == (0,) and result.failed == {0: error}
        assert result.answers == ((GivenAnswer(1, 1, error),) if answered else ())
        run(params, numbered(params, B, B, one, W, one, one, Q, one, B))


@each_shape("tiny", "all-one", "guard-two", "write-as-long-long-guard", "long-counts",
            "counts-as-long-as-array-1", "short-counts", "one-slot", "two-slots",
            "one-bit-queries", "one-bit-queries-long-guard")  # fmt: skip
@pytest.mark.parametrize("first", (W, Q, B, F), ids=lambda command: command.name)
def test_next_packet_at_every_clock(params, first):
    """The second packet comes at every clock of the first one's life, and of what follows it."""

    async def bench(clk: Clocked) -> None:
        recorder = Recorder(clk, params)
        longest = clk.dut.sequencer.latency_clk + 3
        for second in (W, Q, B, F, BAD_Q):
            for gap_clk in range(0, longest, 1 if longest < 30 else 2):
                await clk.reset()
                recorder.restart()
                recorder.occupancy = 1  # or a query is refused
                last = dataclasses.replace(numbered(params, second)[0], gap_clk=gap_clk)
                await recorder.through([*numbered(params, Q, first), last])

    simulate(Flat(params), bench)


@each_shape()
def test_slots_bound_what_is_admitted(params):
    """With a result stream that stands still, no more queries begin than there are slots."""

    async def bench(clk: Clocked) -> None:
        recorder = Recorder(clk, params, leaves=lambda: 10**9)
        packets = numbered(params, *[B] * params.result_slots, Q)
        for packet in packets[:-1]:
            await recorder.offer(packet)
        await recorder.offer(packets[-1], clocks=400)
        expected = recorder.compare()
        assert len(expected.answers) == params.result_slots
        assert len(expected.taken_clk) == params.result_slots
        assert recorder.trace[-1]["idle"], "charge waits for nobody: only the packet waits"
        # As soon as one result leaves, the query is admitted.
        recorder.leaving = [len(recorder.trace), *[10**9] * (params.result_slots - 1)]
        assert not await recorder.clock(packets[-1])
        assert await recorder.clock(packets[-1])
        recorder.compare()

    simulate(Flat(params), bench)


# --- random ------------------------------------------------------------------------------------
def delays(rng) -> Callable[[], int]:
    """Clocks from answer to exit, whose length changes now and then."""
    state = {"left": 0, "longest": 1}

    def delay() -> int:
        if state["left"] == 0:
            state["left"], state["longest"] = rng.randint(1, 12), rng.choice((1, 1, 3, 20, 90))
        state["left"] -= 1
        return rng.randint(1, state["longest"])

    return delay


@each_shape()
@seeds(1, 2, 3)
def test_random_packets(params, seed):
    rng = random.Random(seed)
    run(params, random_packets(params, rng, 80), leaves=delays(rng))


@each_shape()
@seeds()
def test_random_packets_with_a_window_that_lies(params, seed):
    """``empty`` counts only in the clock in which it decides; in others it is noise."""
    rng = random.Random(seed)
    often = rng.choice((0.1, 0.5, 0.9))
    run(
        params,
        random_packets(params, rng, 60),
        leaves=delays(rng),
        empty=lambda: rng.random() < often,
    )


# --- reset -------------------------------------------------------------------------------------
@each_shape()
def test_reset_in_every_clock(params):
    """Cut a mixed stream off after 0, 1, 2, ... clocks; what follows starts from nothing."""
    stream = numbered(params, B, B, Q, W, B, BAD_Q, Q)
    after = numbered(params, Q, B, Q)
    length = run(params, stream).clocks

    async def bench(clk: Clocked) -> None:
        recorder = Recorder(clk, params)
        for stop in range(1, length, 1 if length < 80 else 3):
            for packet in stream:
                await recorder.offer(packet, clocks=stop - len(recorder.trace))
                if len(recorder.trace) == stop:
                    break
            while len(recorder.trace) < stop:
                await recorder.clock(None)
            recorder.compare()
            await clk.reset()
            recorder.restart()
            result = await recorder.through(after)
            assert result.failed == {0: PacketError.EMPTY}
            await clk.reset()
            recorder.restart()

    simulate(Flat(params), bench)


# --- figures -----------------------------------------------------------------------------------
@each_shape()
@pytest.mark.parametrize("command", (B, Q), ids=lambda command: command.name)
def test_latency(params, command):
    """The first packet takes as long as with the simple schedule."""
    dut = elaborated(StreamingSequencer(params))
    result = run(params, numbered(params, command), empty=lambda: False)
    (answer,) = result.answers
    simple = timetable(dataclasses.replace(params, schedule="simple"), command)
    assert answer.clk == (dut.latency_clk if command is B else dut.query_latency_clk)
    assert answer.clk == simple.answer_clk
    assert result.taken_clk == ((dut.taken_clk if command is B else 0),)


@each_shape()
def test_interval(params):
    """Packets that wait, or come as late as the schedule lets them; and slots enough."""
    params = dataclasses.replace(params, result_slots=16)
    dut = elaborated(StreamingSequencer(params))
    latest = dut.interval_clk - params.write_clk - 1
    for gap_clk, late in ((0, 0), (latest, 0), (latest + 1, 1)):
        result = run(params, numbered(params, *[B] * 12, gap_clk=gap_clk))
        clocks = [answer.clk for answer in result.answers]
        assert {b - a for a, b in itertools.pairwise(clocks)} == {dut.interval_clk + late}


@each_shape()
def test_interval_of_queries(params):
    """Queries alone are as close as array 1 and the readout let them be."""
    params = dataclasses.replace(params, result_slots=16)
    result = run(params, numbered(params, *[Q] * 12), empty=lambda: False)
    clocks = [answer.clk for answer in result.answers]
    interval = params.guard_clk + max(params.integrate_clk, params.readout_clk)
    assert {b - a for a, b in itertools.pairwise(clocks)} == {interval}


def test_figures_of_the_preset():
    dut = elaborated(StreamingSequencer(PRESETS["streaming"]))
    figures = (dut.latency_clk, dut.query_latency_clk, dut.taken_clk, dut.interval_clk)
    assert figures == (53, 49, 4, 20)


# --- the reference -----------------------------------------------------------------------------
def spans(when: Iterable[int]) -> list[tuple[int, int]]:
    """First and last clock of each run."""
    runs: list[list[int]] = []
    for clk in sorted(when):
        if runs and runs[-1][-1] == clk - 1:
            runs[-1].append(clk)
        else:
            runs.append([clk])
    return [(one[0], one[-1]) for one in runs]


def test_reference_of_the_streaming_head():
    """The timetable of two packets that write and query, by hand; see the page of the block."""
    result = schedule(PRESETS["streaming"], [Offer(command=B, tag=tag) for tag in (7, 9)],
                      clocks=90, sent=[54, 80])  # fmt: skip
    assert {line: spans(when) for line, when in result.lines.items()} == {
        "k_write": [(1, 4), (21, 24)],
        "v_write": [(6, 9), (37, 40)],
        "advance": [(9, 9), (40, 40)],
        "scores_reset": [(5, 5), (25, 25)], "arm": [(5, 5), (25, 25)],
        "integrate": [(6, 20), (26, 40)],
        "outputs_reset": [(21, 21), (41, 41)],
        "convert": [(22, 36), (42, 56)],
        "counts_clear": [(37, 37), (57, 57)],
        "readout": [(38, 52), (58, 72)],
        "flush": [],
    }  # fmt: skip
    assert result.taken_clk == (4, 24)
    assert result.answers == ((53, 7, PacketError.NONE), (73, 9, PacketError.NONE))
    assert spans(result.idle) == [(0, 0), (74, 89)]
    ones = {bank: spans(i for i in range(90) if getattr(result, bank)[i]) for bank in BANKS}
    assert ones == {
        "scores_bank": [(21, 40)], "convert_bank": [(41, 89)], "readout_bank": [(57, 89)],
    }  # fmt: skip


def test_reference_refuses_and_waits():
    params = SHAPES["one-bit-queries"]  # every phase is a clock long, but for the readout's seven
    bad = PacketError.LENGTH
    packets = [
        Offer(command=Q),
        Offer(command=W, error=bad),
        Offer(command=W),
        Offer(command=B, tag=1),
        Offer(command=Q, error=bad, tag=2),
        Offer(command=F),
    ]
    result = schedule(params, packets, clocks=60, empty=range(7))
    assert result.failed == {0: PacketError.EMPTY, 1: bad, 20: bad}
    # The first write begins at once, the second with V of the first, the rest when all is quiet.
    assert result.lines["k_write"] == {3, 6} and result.lines["v_write"] == {5, 8}
    assert result.taken_clk == (0, 1, 3, 6, 20, 22)
    assert result.answers == ((1, 0, PacketError.EMPTY), (19, 1, PacketError.NONE), (21, 2, bad))
    assert result.lines["flush"] == {22}
