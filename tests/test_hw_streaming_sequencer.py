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
from test_hw_bench import Clocked, elaborated, seeds, simulate, stalls

from hw.packet import Command, PacketError
from hw.params import HeadParams
from hw.presets import PRESETS
from hw.streaming_sequencer import StreamingSequencer
from sim.reference.sequencer import LINES, REFRESH_LINES, Label, timetable
from sim.reference.streaming_sequencer import GivenAnswer, Offer, Schedule, schedule

W, Q, B, F = Command.WRITE, Command.QUERY, Command.WRITE_QUERY, Command.FLUSH
BANKS = ("scores_bank", "convert_bank", "readout_bank")
REFUSALS = (PacketError.COMMAND, PacketError.LENGTH, PacketError.CODE, PacketError.STEP)


def phases(**fields) -> HeadParams:
    """A head of which only phases, labels and slots matter."""
    small = {"subtiles": 1, "columns": 2, "rows": 1, "lanes": 1, "bus_bits": 32, "tag_bits": 6}
    return HeadParams(**small | fields, schedule="streaming")


#: Phase lengths and slots of every kind, without and with what a head may have.
SHAPES = {
    "complete": phases(shots=True, refresh=True, self_test=True),
    "tight-refresh": phases(q_bits=2, count_bits=2, write_clk=1, result_slots=2, refresh=True),
    "refresh": phases(
        q_bits=3, count_bits=3, write_clk=3, result_slots=3, refresh=True, shots=True, heads=2
    ),
    "long-counts-refresh": phases(
        q_bits=3, count_bits=4, write_clk=2, result_slots=5, refresh=True, self_test=True
    ),
    "long-counts": phases(q_bits=2, count_bits=4, write_clk=3, guard_clk=2),
    "write-as-long": phases(q_bits=3, count_bits=2, write_clk=7, result_slots=3, shots=True),
    "one-slot": phases(q_bits=2, count_bits=2, write_clk=2, result_slots=1, shots=True),
    "sixteen-slots": phases(q_bits=2, count_bits=3, write_clk=1, result_slots=16),
    "all-one": phases(q_bits=1, kv_bits=1, count_bits=1, write_clk=1, result_slots=1),
    "one-bit-queries": phases(q_bits=1, count_bits=3, write_clk=1),
}  # fmt: skip


def each_shape(*names: str) -> pytest.MarkDecorator:
    chosen = names or tuple(SHAPES)
    return pytest.mark.parametrize("params", [SHAPES[name] for name in chosen], ids=chosen)


@dataclass(frozen=True, kw_only=True)
class Packet:
    """A packet, and how long its source waits before it offers it."""

    command: Command | None
    label: Label = field(default_factory=Label)
    error: PacketError = PacketError.NONE
    answered: bool | None = None  #: None: as the command says
    gap_clk: int = 0  #: clocks from when it could be offered until it is

    def offer(self, from_clk: int) -> Offer:
        return Offer(
            command=self.command, label=self.label, error=self.error, answered=self.answered,
            from_clk=from_clk,
        )  # fmt: skip

    @property
    def owed(self) -> bool:
        return self.offer(0).owed

    def payload(self, params) -> dict[str, int]:
        return {
            "writes": int(self.command is not None and self.command.writes),
            "queries": int(self.owed),
            "flushes": int(self.command is F),
            "error": self.error,
            **{name: getattr(self.label, name) for name in label_fields(params)},
        }


def label_fields(params, *, gains: bool = True) -> list[str]:
    shot = ["accumulate", "hold", "shift"] + ["s_gain", "a_gain"] * gains
    return ["tag", *(shot if params.shots else [])]


def random_label(params, rng, *, probe: bool = False, held: float = 0.3) -> Label:
    """Whatever the head can be told of a query."""
    fields = {"tag": rng.randrange(2**params.tag_bits), "probe": int(probe)}
    if params.shots:
        gains = 4**params.heads
        fields |= {
            "accumulate": rng.randrange(2), "hold": int(rng.random() < held),
            "shift": rng.randrange(4), "s_gain": rng.randrange(gains),
            "a_gain": rng.randrange(gains),
        }  # fmt: skip
    return Label(**fields)


def random_settings(params, rng) -> HeadParams:
    """Head with legal phase lengths of any kind: the shortest, the longest, others."""
    write, guard = params.write_max_clk, 5
    return dataclasses.replace(
        params,
        write_clk=rng.choice((1, write, params.write_clk, rng.randint(1, write))),
        guard_clk=rng.choice((1, 1, params.guard_clk, rng.randint(1, guard))),
    )


def numbered(params, *what, gap_clk=0) -> list[Packet]:
    """Packets with tags that count up, from commands or packets."""
    made = []
    for n, one in enumerate(what, 1):
        packet = one if isinstance(one, Packet) else Packet(command=one, gap_clk=gap_clk)
        label = dataclasses.replace(packet.label, tag=n % 2**params.tag_bits)
        made.append(dataclasses.replace(packet, label=label))
    return made


def random_packets(params, rng, count) -> list[Packet]:
    """Mixes that change now and then: streams of one kind, mixtures, refusals, gaps."""
    packets: list[Packet] = []
    while len(packets) < count:
        commands = rng.choice(((B,), (Q,), (W,), (B, Q), (W, Q), (W, B, Q), (W, Q, B, B, F)))
        refused, longest = rng.choice((0.0, 0.0, 0.3)), rng.choice((0, 0, 1, 3, 40))
        probed, held = rng.choice((0.0, 0.3)) * params.self_test, rng.choice((0.0, 0.5, 0.9))
        for _ in range(rng.randint(1, 12)):
            label, gap_clk = random_label(params, rng, held=held), rng.randint(0, longest)
            command, error, answered = rng.choice(commands), PacketError.NONE, None
            if rng.random() < probed:
                command, label = Q, random_label(params, rng, probe=True)
            elif rng.random() < refused:
                command, error = rng.choice((W, Q, B, F)), rng.choice(REFUSALS)
                if error is PacketError.COMMAND and rng.random() < 0.5:
                    command, answered = None, rng.random() < 0.5
            packets.append(
                Packet(
                    command=command, label=label, error=error, answered=answered, gap_clk=gap_clk
                )
            )
    return packets[:count]


class Flat(Component):
    """The sequencer with its inputs in one vector and its outputs in another: quick to access."""

    def __init__(self, params) -> None:
        self.params = params
        self.sequencer = dut = StreamingSequencer(params)
        self.lines = (*LINES, *REFRESH_LINES) if params.refresh else LINES
        names = [*self.lines, *BANKS, "failed", "idle"]
        names += ["s_gain", "a_gain"] * params.shots + ["probing"] * params.self_test
        self.labels = label_fields(params, gains=False) + ["probe"] * params.self_test
        answer = dut.answer.payload
        self.outputs = {name: getattr(dut, name) for name in names} | {
            "valid": dut.answer.valid,
            "ready": dut.packet.ready,
            "error": answer.error,
            **{f"answer_{name}": answer[name] for name in self.labels},
        }
        self.widths = {name: len(Value.cast(value)) for name, value in self.outputs.items()}
        inputs = {"valid": dut.packet.valid, "empty": dut.empty, "sent": dut.sent}
        inputs |= {"write_clk": dut.write_clk, "guard_clk": dut.guard_clk}
        inputs |= {"refresh": dut.refresh} if params.refresh else {}
        inputs |= {"probe": dut.probe} if params.self_test else {}
        inputs |= {"packet": Value.cast(dut.packet.payload)}
        self.at = dict(zip(inputs, itertools.accumulate(
            (len(value) for value in inputs.values()), initial=0), strict=False))  # fmt: skip
        self.inputs = Cat(*inputs.values())
        super().__init__({"drive": In(len(self.inputs)), "seen": Out(sum(self.widths.values()))})

    def word(self, **values: int) -> int:
        """The input vector with these values; what the head has not must be 0."""
        return sum(value << self.at[name] for name, value in values.items() if value)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.sequencer = self.sequencer
        m.d.comb += [self.inputs.eq(self.drive), self.seen.eq(Cat(*self.outputs.values()))]
        return m


@dataclass
class Rules:
    """What must hold in every clock, whatever the packets."""

    answered: bool = False  #: an answer was valid in the clock before
    before: dict[str, int] = field(default_factory=dict)

    def clock(self, now: dict[str, int]) -> None:
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


class Recorder:
    """Offers packets, takes results away, applies the rules, and compares with the reference.

    Parameters
    ----------
    clk
        The bench.
    leaves
        From an answer to the clocks until its result has left, at least one; results leave in
        order.
    empty
        Noise to be shown as ``empty``; by default it is what a window would say.
    refresh
        Whether a refresh is asked for, asked in every clock.
    """

    def __init__(
        self,
        clk: Clocked,
        leaves: Callable[[], int] = lambda: 1,
        empty: Callable[[], bool] | None = None,
        refresh: Callable[[], bool] = lambda: False,
    ) -> None:
        self.clk, self.leaves, self.noise, self.asks = clk, leaves, empty, refresh
        self.bits: dict[Packet, int] = {}
        self.restart(clk.dut.params)

    def restart(self, params: HeadParams | None = None) -> None:
        """Begin to record, straight after reset; with other phase lengths if given."""
        self.params = params or self.clk.dut.params
        self.lengths = self.clk.dut.word(
            write_clk=self.params.write_clk, guard_clk=self.params.guard_clk
        )
        self.start = self.clk.now
        self.rules = Rules()
        self.trace: list[dict[str, int]] = []
        self.offers: list[Offer] = []
        self.sent: set[int] = set()
        self.empty: set[int] = set()
        self.refresh: set[int] = set()
        self.leaving: list[int] = []
        self.occupancy = 0

    async def reset(self, params: HeadParams | None = None) -> None:
        await self.clk.reset()
        self.restart(params)

    async def clock(self, packet: Packet | None) -> bool:
        """One clock; true if the packet was taken in it."""
        clk, now = self.clk, len(self.trace)
        empty = self.occupancy == 0 if self.noise is None else self.noise()
        sent = bool(self.leaving) and self.leaving[0] == now
        refresh = self.params.refresh and self.asks()
        word = clk.dut.word(valid=packet is not None, empty=empty, sent=sent, refresh=refresh)
        clk.set(drive=word | self.lengths | (0 if packet is None else self.packed(packet)))
        if empty:
            self.empty.add(now)
        if sent:
            self.sent.add(self.leaving.pop(0))
        if refresh:
            self.refresh.add(now)

        seen, word = {}, clk.get("seen")
        for name, width in clk.dut.widths.items():
            seen[name] = word & (1 << width) - 1
            word >>= width
        self.rules.clock(seen)
        self.trace.append(seen)
        if seen["valid"] and not (seen.get("answer_hold", 0) or seen.get("answer_probe", 0)):
            last = self.leaving[-1] if self.leaving else now
            self.leaving.append(max(now + self.leaves(), last + 1))
            assert len(self.leaving) <= self.params.result_slots, "the sender overflows"
        if seen["flush"]:
            self.occupancy = 0
        self.occupancy += seen["advance"]
        await clk.edge()
        return bool(packet is not None and seen["ready"])

    def packed(self, packet: Packet) -> int:
        if packet not in self.bits:
            layout = self.clk.dut.sequencer.packet.payload.shape()
            bits = layout.const(packet.payload(self.params)).as_value().value
            self.bits[packet] = self.clk.dut.word(packet=bits, probe=packet.label.probe)
        return self.bits[packet]

    async def offer(self, packet: Packet, *, clocks: int | None = None) -> None:
        """Offer a packet until it has been taken, or for so many clocks."""
        for _ in range(packet.gap_clk):
            await self.clock(None)
        self.offers.append(packet.offer(len(self.trace)))
        begun = len(self.trace)
        while not await self.clock(packet):
            if clocks is not None and len(self.trace) - begun == clocks:
                return
            assert len(self.trace) - begun < 3000, "the sequencer hangs"

    async def idle(self, clocks: int = 3) -> None:
        """Nothing offered, until nothing is in flight and every result has left, and longer."""
        asks, self.asks = self.asks, lambda: False
        while clocks:
            await self.clock(None)
            if self.trace[-1]["idle"] and not self.leaving:
                clocks -= 1
        self.asks = asks

    async def through(self, packets: Iterable[Packet]) -> Schedule:
        for packet in packets:
            await self.offer(packet)
        await self.idle()
        result = self.compare()
        assert len(result.answers) == sum(packet.owed for packet in packets)
        return result

    def compare(self) -> Schedule:
        """Compare all that has been recorded since the last reset."""
        clocks, trace = len(self.trace), self.trace
        expected = schedule(
            self.params, self.offers, clocks=clocks, sent=self.sent, empty=self.empty,
            refresh=self.refresh,
        )  # fmt: skip
        for name in (*self.clk.dut.lines, "idle"):
            got = {now for now, seen in enumerate(trace) if seen[name]}
            wanted = expected.idle if name == "idle" else expected.lines[name]
            assert got == wanted, f"{name}: differs in clocks {sorted(got ^ wanted)[:8]}"
        for name in BANKS:
            assert tuple(seen[name] for seen in trace) == getattr(expected, name), name
        failed = {n: PacketError(seen["failed"]) for n, seen in enumerate(trace)}
        assert {n: kind for n, kind in failed.items() if kind} == expected.failed
        ready = tuple(now for now, seen in enumerate(trace) if seen["ready"])
        assert ready == expected.taken_clk
        labels = self.clk.dut.labels
        answers = [
            (n, [seen[f"answer_{name}"] for name in labels], PacketError(seen["error"]))
            for n, seen in enumerate(trace)
            if seen["valid"]
        ]
        assert answers == [
            (clk, [getattr(label, name) for name in labels], error)
            for clk, label, error in expected.answers
        ]
        for line, phase in (("s_gain", expected.converting), ("a_gain", expected.reading)):
            if self.params.shots:
                for now, label in phase.items():
                    assert now >= clocks or trace[now][line] == getattr(label, line), line
        if self.params.self_test:
            probing = {now for now, seen in enumerate(trace) if seen["probing"]}
            reading = expected.reading.items()
            assert probing == {now for now, label in reading if label.probe and now < clocks}
        return expected


def run(params, packets, **kwargs) -> Schedule:
    """Schedule of packets from an idle sequencer, which has met the reference."""
    found: list[Schedule] = []

    async def bench(clk: Clocked) -> None:
        found.append(await Recorder(clk, **kwargs).through(packets))

    simulate(Flat(params), bench)
    return found[0]


# --- directed ----------------------------------------------------------------------------------
BAD_W, BAD_Q, BAD_F = (Packet(command=c, error=PacketError.CODE) for c in (W, Q, F))
UNKNOWN, UNKNOWN_OWED = (
    Packet(command=None, error=PacketError.COMMAND, answered=owed) for owed in (False, True)
)
SEQUENCES = {
    "both after both": [B] * 6,
    "query after query": [B] + [Q] * 6,
    "writes after both": [B, W, W, B, W, W, W, B, Q],
    "write after query": [B, Q, W, Q, W, Q, W],
    "both after query": [W, Q, B, Q, B, B, Q, Q, B],
    "flush in mid-stream": [Q, Q, B, B, F, B, B, Q, F, W, F, F, Q, F],
    "query right after a pending write": [F, W, Q, Q, F, W, Q, F, B, W, Q],
    "refused, no answer": [BAD_W, B, BAD_W, B, BAD_F, BAD_F, Q, UNKNOWN, W, BAD_W, Q, BAD_W, B],
    "refused, with answer": [BAD_Q, B, BAD_Q, B, B, UNKNOWN_OWED, BAD_Q, W, BAD_Q, Q, BAD_Q, F],
}


@each_shape()
@pytest.mark.parametrize("refreshed", (False, True), ids=("packets", "refresh"))
def test_sequences(params, refreshed):
    """Packets that always wait, prompt results and late ones, with and without refresh."""
    if refreshed and not params.refresh:
        pytest.skip("head without refresh")
    rng = random.Random(1)

    async def bench(clk: Clocked) -> None:
        recorder = Recorder(clk, refresh=lambda: refreshed)
        late = itertools.cycle((False, True))
        for sequence in SEQUENCES.values():
            for settings in (params, random_settings(params, rng)):
                await recorder.reset(settings)
                delay = clk.dut.sequencer.interval_clk * 3 if next(late) else rng.randint(1, 2)
                recorder.leaves = lambda delay=delay: delay
                await recorder.through(numbered(params, *sequence))

    simulate(Flat(params), bench)


@each_shape("refresh", "all-one")
def test_each_refusal(params):
    """Whatever the command, no line moves; an answer that is owed comes after those before it."""
    held = Label(tag=1, hold=int(params.shots))

    async def bench(clk: Clocked) -> None:
        recorder = Recorder(clk)
        for error, answered in itertools.product(REFUSALS, (False, True)):
            bad = [Packet(command=c, error=error) for c in ((Q, B) if answered else (W, F))]
            bad.append(Packet(command=None, error=error, answered=answered))
            for one in bad:
                await recorder.reset()
                result = await recorder.through([dataclasses.replace(one, label=held)])
                assert not any(result.lines.values())
                assert result.taken_clk == (0,) and result.failed == {0: error}
                answer = GivenAnswer(1, dataclasses.replace(held, hold=0), error)
                assert result.answers == ((answer,) if answered else ())

    simulate(Flat(params), bench)


@each_shape("tight-refresh", "all-one", "one-slot")
def test_next_packet_at_every_clock(params):
    """The second packet comes at every clock of the first one's life, and of what follows it."""

    async def bench(clk: Clocked) -> None:
        recorder = Recorder(clk)
        longest = clk.dut.sequencer.latency_clk + 3
        for first, second in itertools.product((W, Q, B, F), (W, B, F, BAD_Q)):
            for gap_clk in range(0, longest, 2):
                await recorder.reset()
                recorder.occupancy = 1  # or a query is refused
                at = gap_clk + (second is B)  # every clock, of the one or of the other
                last = dataclasses.replace(numbered(params, second)[0], gap_clk=at)
                await recorder.through([*numbered(params, Q, first), last])

    simulate(Flat(params), bench)


@each_shape("tight-refresh", "refresh")
def test_refresh_at_every_clock(params):
    """A refresh comes at every clock of a stream of packets, once, with short and long writes."""
    stream = numbered(params, B, B, W, Q, Q, F, W, B, BAD_Q)
    longest = {name: getattr(params, f"{name}_max_clk") for name in ("write",)}

    async def bench(clk: Clocked) -> None:
        for write_clk in {1, longest["write"]}:
            recorder = Recorder(clk)
            settings = dataclasses.replace(params, write_clk=write_clk)
            await recorder.reset(settings)
            length = (await recorder.through(stream)).clocks
            for at in range(0, length - 20, 3):
                await recorder.reset(settings)
                recorder.asks = lambda at=at, recorder=recorder: len(recorder.trace) == at
                await recorder.through(stream)

    simulate(Flat(params), bench)


@each_shape()
def test_slots_bound_what_is_admitted(params):
    """With a result stream that stands still, no more queries begin than there are slots."""

    async def bench(clk: Clocked) -> None:
        recorder = Recorder(clk, leaves=lambda: 10**9)
        packets = numbered(params, *[B] * params.result_slots, Q)
        for packet in packets[:-1]:
            await recorder.offer(packet)
        await recorder.offer(packets[-1], clocks=120)
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


@each_shape("one-slot", "refresh")
def test_queries_that_send_nothing_need_no_slot(params):
    async def bench(clk: Clocked) -> None:
        recorder = Recorder(clk, leaves=lambda: 10**9)
        held = Packet(command=Q, label=Label(hold=1))
        sent = numbered(params, *[B] * params.result_slots)
        for packet in [*sent, *numbered(params, held, held, held)]:
            await recorder.offer(packet)
        for _ in range(60):
            await recorder.clock(None)
        assert len(recorder.compare().answers) == params.result_slots + 3

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
@seeds()
def test_random_packets(params, seed):
    rng = random.Random(seed)
    stall = stalls(rng)

    async def bench(clk: Clocked) -> None:
        recorder = Recorder(clk, leaves=delays(rng), refresh=lambda: not stall())
        for _ in range(3):
            await recorder.reset(random_settings(params, rng))
            await recorder.through(random_packets(params, rng, 25))

    simulate(Flat(params), bench)


@each_shape("complete", "long-counts", "tight-refresh", "all-one")
@seeds()
def test_random_packets_with_a_window_that_lies(params, seed):
    """``empty`` counts only in the clock in which it decides; in others it is noise."""
    rng = random.Random(seed)
    often = rng.choice((0.1, 0.5, 0.9))
    packets = random_packets(params, rng, 40)
    run(params, packets, leaves=delays(rng), empty=lambda: rng.random() < often,
        refresh=lambda: rng.random() < 0.1)  # fmt: skip


# --- reset -------------------------------------------------------------------------------------
@each_shape("tight-refresh", "all-one")
def test_reset_in_every_clock(params):
    """Cut a mixed stream off after 0, 1, 2, ... clocks; what follows starts from nothing."""
    stream = numbered(params, B, Q, W, B, BAD_Q)
    after = numbered(params, Q, B)
    length = run(params, stream).clocks

    async def bench(clk: Clocked) -> None:
        recorder = Recorder(clk, refresh=lambda: len(recorder.trace) % 5 == 0)
        for stop in range(1, length):
            for packet in stream:
                await recorder.offer(packet, clocks=stop - len(recorder.trace))
                if len(recorder.trace) == stop:
                    break
            while len(recorder.trace) < stop:
                await recorder.clock(None)
            recorder.compare()
            await recorder.reset()
            result = await recorder.through(after)
            assert PacketError.EMPTY in result.failed.values()
            await recorder.reset()

    simulate(Flat(params), bench)


# --- figures -----------------------------------------------------------------------------------
@each_shape()
def test_figures(params):
    """Latency, interval and delay by a refresh are those that the sequencer names."""
    params = dataclasses.replace(params, result_slots=16)
    dut = elaborated(StreamingSequencer(params))
    simple = dataclasses.replace(params, schedule="simple")
    latest = dut.interval_clk - params.write_clk - 1
    queries = params.guard_clk + max(params.integrate_clk, params.readout_clk)

    async def bench(clk: Clocked) -> None:
        recorder = Recorder(clk, empty=lambda: False)
        # The first packet takes as long as with the simple schedule.
        for command, clocks, taken in (
            (B, dut.latency_clk, dut.taken_clk), (Q, dut.query_latency_clk, 0),
        ):  # fmt: skip
            await recorder.reset()
            result = await recorder.through(numbered(params, command))
            assert result.answers[0].clk == clocks == timetable(simple, command).answer_clk
            assert result.taken_clk == (taken,)
        # Packets that wait, or come as late as the schedule lets them.
        for command, gap_clk, interval in (
            (B, 0, dut.interval_clk), (B, latest, dut.interval_clk),
            (B, latest + 1, dut.interval_clk + 1), (Q, 0, queries),
        ):  # fmt: skip
            await recorder.reset()
            result = await recorder.through(numbered(params, *[command] * 6, gap_clk=gap_clk))
            clocks = [answer.clk for answer in result.answers]
            assert {b - a for a, b in itertools.pairwise(clocks)} == {interval}
        if params.refresh:
            recorder.asks = lambda: not recorder.trace
            for command in (B, Q):
                await recorder.reset()
                result = await recorder.through(numbered(params, command))
                (answer,) = result.answers
                own = dut.latency_clk if command is B else dut.query_latency_clk
                assert answer.clk - own == dut.refresh_delay_clk == params.write_clk + 1
        else:
            assert dut.refresh_delay_clk == 0

    simulate(Flat(params), bench)


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
    packets = [Offer(command=B, label=Label(tag=tag)) for tag in (7, 9)]
    result = schedule(PRESETS["streaming"], packets, clocks=90, sent=[54, 80])
    assert {line: spans(result.lines[line]) for line in LINES} == {
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
    assert not any(result.lines[line] for line in REFRESH_LINES)
    assert result.taken_clk == (4, 24)
    assert [(answer.clk, answer.label.tag) for answer in result.answers] == [(53, 7), (73, 9)]
    assert spans(result.idle) == [(0, 0), (74, 89)]
    ones = {bank: spans(i for i in range(90) if getattr(result, bank)[i]) for bank in BANKS}
    assert ones == {
        "scores_bank": [(21, 40)], "convert_bank": [(41, 89)], "readout_bank": [(57, 89)],
    }  # fmt: skip


def test_reference_of_a_refresh():
    """Between two packets that write and query: K before the second one's, V before its V."""
    packets = [Offer(command=B), Offer(command=B)]
    result = schedule(PRESETS["refresh"], packets, clocks=110, refresh=range(20, 22))
    lines = {line: spans(result.lines[line]) for line in ("k_write", "v_write", *REFRESH_LINES)}
    assert lines == {
        "k_write": [(1, 4), (21, 24), (26, 29)], "k_read": [(20, 20)], "k_refresh": [(21, 24)],
        "v_write": [(6, 9), (37, 40), (42, 45)], "v_read": [(36, 36)], "v_refresh": [(37, 40)],
        "refreshed": [(40, 40)],
    }  # fmt: skip
    assert [answer.clk for answer in result.answers] == [53, 78]


def test_reference_refuses_and_waits():
    params = SHAPES["one-bit-queries"]  # every phase is a clock long, but for the readout's seven
    bad = PacketError.LENGTH
    one, two = Label(tag=1), Label(tag=2)
    packets = [
        Offer(command=Q),
        Offer(command=W, error=bad),
        Offer(command=W),
        Offer(command=B, label=one),
        Offer(command=Q, error=bad, label=two),
        Offer(command=F),
    ]
    result = schedule(params, packets, clocks=60, empty=range(7))
    assert result.failed == {0: PacketError.EMPTY, 1: bad, 20: bad}
    # The first write begins at once, the second with V of the first, the rest when all is quiet.
    assert result.lines["k_write"] == {3, 6} and result.lines["v_write"] == {5, 8}
    assert result.taken_clk == (0, 1, 3, 6, 20, 22)
    assert result.answers == (
        (1, Label(), PacketError.EMPTY), (19, one, PacketError.NONE), (21, two, bad),
    )  # fmt: skip
    assert result.lines["flush"] == {22}
