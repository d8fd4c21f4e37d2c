"""Sequencer against its timetable: every control line, every clock."""

from __future__ import annotations

import dataclasses
import itertools
import random
from dataclasses import dataclass, field

import pytest
from test_hw_bench import Clocked, StreamRules, seeds, simulate, stalls

from hw.packet import Command, PacketError
from hw.params import HeadParams
from hw.presets import PRESETS
from hw.sequencer import Sequencer
from sim.reference.sequencer import (
    LINES,
    REFRESH_LINES,
    Label,
    Timetable,
    refresh_timetable,
    timetable,
)

W, Q, B, F = Command.WRITE, Command.QUERY, Command.WRITE_QUERY, Command.FLUSH
REFUSALS = (PacketError.COMMAND, PacketError.LENGTH, PacketError.CODE, PacketError.STEP)


def phases(**fields) -> HeadParams:
    """A head of which only phases and labels matter."""
    small = {"subtiles": 1, "columns": 2, "rows": 1, "lanes": 1, "bus_bits": 32}
    return HeadParams(**small | fields)


#: Phase lengths of every kind, without and with what a head may have.
SHAPES = {
    "default": phases(),
    "complete": phases(shots=True, refresh=True, self_test=True),
    "all-one": phases(q_bits=1, kv_bits=1, count_bits=1, write_clk=1, tag_bits=1),
    "refresh": phases(q_bits=2, count_bits=3, write_clk=1, guard_clk=2, refresh=True),
    "layer": phases(q_bits=2, count_bits=2, write_clk=2, heads=3, shots=True, tag_bits=3),
    "long-guard": phases(q_bits=2, count_bits=1, write_clk=3, guard_clk=6, self_test=True),
}


def each_shape(*names: str) -> pytest.MarkDecorator:
    chosen = names or tuple(SHAPES)
    return pytest.mark.parametrize("params", [SHAPES[name] for name in chosen], ids=chosen)


@dataclass(frozen=True, kw_only=True)
class Packet:
    command: Command | None
    label: Label = field(default_factory=Label)
    error: PacketError = PacketError.NONE
    answered: bool | None = None  #: None: as the command says

    def payload(self, params) -> dict[str, int]:
        command = self.command
        queries = command is not None and command.queries
        return {
            "writes": int(command is not None and command.writes),
            "queries": int(queries if self.answered is None else self.answered),
            "flushes": int(command is F),
            "error": self.error,
            **label_fields(params, self.label),
        }

    def timetable(self, params, empty) -> Timetable:
        return timetable(
            params, self.command, error=self.error, answered=self.answered, empty=empty,
            probe=bool(self.label.probe),
        )  # fmt: skip


def label_fields(params, label: Label, *, gains: bool = True) -> dict[str, int]:
    """What a packet or an answer says of it."""
    names = ["tag"]
    if params.shots:
        names += ["accumulate", "hold", "shift"] + ["s_gain", "a_gain"] * gains
    return {name: getattr(label, name) for name in names}


def random_label(params, rng, *, probe: bool = False) -> Label:
    """Whatever the head can be told of a query."""
    fields = {"tag": rng.randrange(2**params.tag_bits), "probe": int(probe)}
    if params.shots:
        gains = 4**params.heads
        fields |= {
            "accumulate": rng.randrange(2), "hold": rng.randrange(2), "shift": rng.randrange(4),
            "s_gain": rng.randrange(gains), "a_gain": rng.randrange(gains),
        }  # fmt: skip
    return Label(**fields)


def random_packet(params, rng) -> Packet:
    label, error = random_label(params, rng), rng.choice(REFUSALS)
    if params.self_test and rng.random() < 0.1:
        return Packet(command=Q, label=random_label(params, rng, probe=True))
    if rng.random() < 0.75:
        return Packet(command=rng.choice((W, Q, B, B, F)), label=label)
    if error is PacketError.COMMAND and rng.random() < 0.5:
        return Packet(command=None, label=label, error=error, answered=rng.random() < 0.5)
    return Packet(command=rng.choice((W, Q, B, F)), label=label, error=error)


def random_settings(params, rng) -> HeadParams:
    """Head with legal phase lengths of any kind: the shortest, the longest, others."""
    write, guard = params.write_max_clk, params.guard_max_clk
    return dataclasses.replace(
        params,
        write_clk=rng.choice((1, write, params.write_clk, rng.randint(1, write))),
        guard_clk=rng.choice((1, guard, params.guard_clk, rng.randint(1, guard))),
    )


class Watched:
    """Offers packets and refreshes, and compares with the timetable of the one it is at.

    `empty` is only right in the clock that a packet begins in; else it is noise.
    """

    def __init__(self, clk: Clocked, params, rng: random.Random) -> None:
        self.clk, self.params, self.rng = clk, params, rng
        self.lines = (*LINES, *REFRESH_LINES) if params.refresh else LINES
        self.rules = StreamRules("answer")
        self.restart()

    def restart(self, params: HeadParams | None = None) -> None:
        """Start anew, after reset or while idle; with other phase lengths if given."""
        self.params = params or self.params
        self.table: Timetable | None = None
        self.label = Label()
        self.at = 0
        self.rewritten = False  # a column was, in the clock before
        self.taken_at: list[int] = []  # clocks in which answers were taken
        self.begun_at: list[int] = []
        self.rules.reset()
        self.clk.set(write_clk=self.params.write_clk, guard_clk=self.params.guard_clk)

    def begin(self, packet: Packet | None, empty: bool, refresh: bool) -> None:
        """Choose what an idle sequencer begins with in this clock."""
        if refresh and not (self.rewritten and packet is not None):
            self.table = refresh_timetable(self.params)
        elif packet is not None:
            self.table = packet.timetable(self.params, empty)
            self.label = packet.label
            self.begun_at.append(self.clk.now)
        self.at = 0

    async def clock(self, packet: Packet | None, *, empty=False, ready=True, refresh=False) -> bool:
        """One clock; true if the packet was taken in it."""
        clk, dut, p = self.clk, self.clk.dut, self.params
        clk.ctx.set(dut.packet.valid, int(packet is not None))
        if packet is not None:
            clk.ctx.set(dut.packet.payload, packet.payload(p))
        clk.ctx.set(dut.answer.ready, int(ready))
        if p.refresh:
            clk.set(refresh=refresh)
        if p.self_test:
            clk.set(probe=packet is not None and packet.label.probe)
        idle = self.table is None
        assert clk.get("idle") == idle
        if idle:
            self.begin(packet, empty, refresh)
        clk.set(empty=empty if idle else self.rng.random() < 0.5)
        self.rewritten = False

        table, at = self.table, self.at
        high = {line for line in self.lines if clk.get(line)}
        expected = {line for line in self.lines if table and at in table.lines[line]}
        assert high == expected, f"clock {at} of {table}"
        begins = table is not None and at == 0
        assert PacketError(clk.get("failed")) is (table.failed if begins else PacketError.NONE)
        taken = table is not None and at == table.taken_clk
        if packet is not None:
            assert clk.ctx.get(dut.packet.ready) == taken
        if table is not None and p.shots:
            assert at not in table.converting or clk.get("s_gain") == self.label.s_gain
            assert at not in table.reading or clk.get("a_gain") == self.label.a_gain
        if p.self_test:
            reading = table is not None and at in table.reading
            assert clk.get("probing") == (reading and self.label.probe)
        given = self.answer(ready)
        if table is not None and (given or (table.answer_clk is None and at == table.busy_clk)):
            self.rewritten = at in table.lines["refreshed"]
            self.table = None
        self.at += 1
        await clk.edge()
        return taken

    def answer(self, ready: bool) -> bool:
        """Check the answer offered in this clock, if one is; true if it was taken."""
        clk, dut, table, p = self.clk, self.clk.dut, self.table, self.params
        owes = table is not None and table.answer_clk is not None and self.at >= table.answer_clk
        assert clk.ctx.get(dut.answer.valid) == owes, "valid does not wait for ready"
        payload = clk.ctx.get(dut.answer.payload)
        fields = label_fields(p, self.label, gains=False)
        if p.self_test:
            fields["probe"] = self.label.probe
        shown = {name: payload[name] for name in fields} | {"error": PacketError(payload.error)}
        if owes:
            refused = table.answer_error is not PacketError.NONE
            if refused and p.shots:
                fields["hold"] = 0  # an invalid answer is sent
            assert shown == fields | {"error": table.answer_error}
        given = self.rules.clock(owes, ready, tuple(shown.items()))
        if given:
            self.taken_at.append(clk.now)
        return given

    async def through(self, packet: Packet, *, empty=False, between: Packet | None = None) -> None:
        """One packet from offer to idle; ``between`` is offered from when it was taken."""
        current: Packet | None = packet
        while True:
            if await self.clock(current, empty=empty):
                current = between
            if self.table is None:
                return


@each_shape()
def test_each_command_after_each(params):
    """From idle, and straight after another packet, with any phase lengths."""
    rng = random.Random(1)

    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params, rng)
        for first, second in itertools.product((W, Q, B, F), repeat=2):
            watched.restart(random_settings(params, rng))
            await watched.clock(None)
            following = Packet(command=second, label=random_label(params, rng))
            packet = Packet(command=first, label=random_label(params, rng))
            await watched.through(packet, between=following)
            await watched.through(following)
        for _ in range(3):
            await watched.clock(None)

    simulate(Sequencer(params), bench)


@each_shape()
def test_query_on_empty_window(params):
    """Only a query without a write is refused for it, and a self-test's is not."""

    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params, random.Random(3))
        assert Packet(command=Q).timetable(params, True).failed is PacketError.EMPTY
        hold = Label(tag=1, hold=int(params.shots))
        for command in (Q, B, W, F, Q, Q):
            await watched.through(Packet(command=command, label=hold), empty=True)
        if params.self_test:
            probe = Packet(command=Q, label=Label(probe=1))
            assert probe.timetable(params, True).failed is PacketError.NONE
            await watched.through(probe, empty=True)
            await watched.through(Packet(command=Q), empty=True)

    simulate(Sequencer(params), bench)


@each_shape("complete", "all-one", "layer")
def test_refused_packets_move_no_line(params):
    async def bench(clk: Clocked) -> None:
        watched, rng = Watched(clk, params, random.Random(4)), random.Random(4)
        for error, empty in itertools.product(REFUSALS, (False, True)):
            bad = [Packet(command=command, error=error) for command in (W, Q, B, F)]
            bad += [Packet(command=None, error=error, answered=owed) for owed in (False, True)]
            for packet in bad:
                labelled = dataclasses.replace(packet, label=random_label(params, rng))
                await watched.through(labelled, empty=empty)

    simulate(Sequencer(params), bench)


@each_shape("complete", "all-one")
def test_answer_waits_for_its_receiver(params):
    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params, random.Random(5))
        for command in (B, Q):
            packet = Packet(command=command, label=Label(tag=1))
            while not await watched.clock(packet, ready=False):
                pass
            for _ in range(100):
                await watched.clock(packet, ready=False)
            await watched.clock(packet, ready=True)
            assert watched.table is None

    simulate(Sequencer(params), bench)


@each_shape("complete", "refresh")
def test_refresh_and_packets_take_turns(params):
    """A column is rewritten before a packet that waits, but not two in a row."""

    async def bench(clk: Clocked) -> None:
        watched, packet = Watched(clk, params, random.Random(8)), Packet(command=Q)
        delay = clk.dut.refresh_delay_clk
        for lengths in ({}, {"write_clk": 1}, {"write_clk": params.write_max_clk}):
            watched.restart(dataclasses.replace(params, **lengths))
            for _ in range(3 * params.write_max_clk):  # nothing waits: one after the other
                await watched.clock(None, refresh=True)
            while watched.table is not None:
                await watched.clock(None)
            for _ in range(3):
                start = clk.now
                while not await watched.clock(packet, refresh=True):
                    pass
                while watched.table is not None:
                    await watched.clock(None, refresh=True)
                assert watched.begun_at[-1] - start <= watched.params.write_clk + 1
        assert delay == params.write_clk + 1

    simulate(Sequencer(params), bench)


@each_shape()
@seeds()
def test_random_packets_and_stalls(params, seed):
    rng = random.Random(seed)

    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params, rng)
        offer_stall, take_stall = stalls(rng), stalls(rng)
        refresh_stall, packet, refresh = stalls(rng), None, False
        for _ in range(800):
            if not (watched.table or packet or watched.rewritten) and rng.random() < 0.3:
                watched.restart(random_settings(params, rng))
            if packet is None and not offer_stall():
                packet = random_packet(params, rng)
            refresh = params.refresh and not refresh_stall()
            empty, ready = rng.random() < 0.3, not take_stall()
            if await watched.clock(packet, empty=empty, ready=ready, refresh=refresh):
                packet = None

    simulate(Sequencer(params), bench)


@each_shape("complete", "all-one")
def test_reset_in_every_phase(params):
    rng = random.Random(2)

    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params, rng)
        for n in range(25):
            packet = Packet(command=rng.choice((W, Q, B)), label=Label(tag=1))
            table = packet.timetable(watched.params, False)
            current = packet
            for _ in range(rng.randint(1, table.busy_clk + 1)):
                if await watched.clock(current, refresh=params.refresh and n % 5 == 0):
                    current = None
            await clk.reset()
            watched.restart(random_settings(params, rng))
            await watched.through(Packet(command=rng.choice((W, Q, B))))

    simulate(Sequencer(params), bench)


@each_shape()
def test_latency_and_interval(params):
    dut = Sequencer(params)

    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params, random.Random(6))
        packet = Packet(command=B)
        for _ in range(4):
            await watched.through(packet, between=packet)
        assert [t - b for b, t in zip(watched.begun_at, watched.taken_at, strict=True)] == (
            [dut.latency_clk] * 4
        )
        ends = watched.taken_at
        assert [b - a for a, b in itertools.pairwise(ends)] == [dut.interval_clk] * 3
        watched.restart()
        query = Packet(command=Q)
        await watched.through(query)
        assert watched.taken_at[0] - watched.begun_at[0] == dut.query_latency_clk

    simulate(dut, bench)


@pytest.mark.parametrize("name", PRESETS)
def test_no_array_is_written_while_read(name):
    params = PRESETS[name]
    for command in (W, Q, B):
        lines = timetable(params, command).lines
        # Array 1 is read in `integrate`, array 2 in `convert`.
        assert not lines["k_write"] & lines["integrate"]
        assert not lines["v_write"] & lines["convert"]
        assert not lines["k_write"] & lines["v_write"], "one set of select lines serves both"
        assert len(lines["advance"]) == command.writes
        if command.writes:
            assert max(lines["v_write"]) == max(lines["advance"])
            assert len(lines["k_write"]) == len(lines["v_write"]) == params.write_clk


def test_reference_of_the_default_head():
    table = timetable(PRESETS["simple"], B)
    spans = {
        line: (min(when), max(when)) for line, when in table.lines.items() if when
    }  # fmt: skip
    assert spans == {
        "k_write": (1, 4), "scores_reset": (5, 5), "arm": (5, 5), "integrate": (6, 20),
        "v_write": (6, 9), "advance": (9, 9), "outputs_reset": (21, 21), "convert": (22, 36),
        "counts_clear": (37, 37), "readout": (38, 52),
    }  # fmt: skip
    assert (table.taken_clk, table.answer_clk, table.busy_clk) == (20, 53, 53)
    assert table.converting == set(range(21, 37)) and table.reading == set(range(37, 53))


def test_reference_of_a_refresh():
    table = refresh_timetable(PRESETS["refresh"])
    assert table.lines["k_read"] == table.lines["v_read"] == {0}
    for line in ("k_write", "v_write", "k_refresh", "v_refresh"):
        assert table.lines[line] == {1, 2, 3, 4}
    assert table.lines["refreshed"] == {4} and table.busy_clk == 4
    assert not table.lines["advance"]
