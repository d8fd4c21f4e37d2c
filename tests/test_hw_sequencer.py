"""Sequencer against its timetable: every control line, every clock."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import pytest
from test_hw_bench import SMALL, Clocked, StreamRules, seeds, simulate, small, stalls

from hw.packet import Command, PacketError
from hw.presets import PRESETS
from hw.sequencer import Sequencer
from sim.reference.sequencer import LINES, Timetable, timetable

W, Q, B, F = Command.WRITE, Command.QUERY, Command.WRITE_QUERY, Command.FLUSH


@dataclass(frozen=True, kw_only=True)
class Packet:
    command: Command | None
    tag: int = 0
    error: PacketError = PacketError.NONE
    answered: bool | None = None  #: None: as the command says

    @property
    def payload(self):
        command = self.command
        queries = command is not None and command.queries
        return {
            "writes": int(command is not None and command.writes),
            "queries": int(queries if self.answered is None else self.answered),
            "flushes": int(command is F),
            "tag": self.tag,
            "error": self.error,
        }

    def timetable(self, params, empty) -> Timetable:
        return timetable(
            params, self.command, error=self.error, answered=self.answered, empty=empty
        )


def random_packet(params, rng) -> Packet:
    tag = rng.randrange(2**params.tag_bits)
    error = rng.choice((PacketError.COMMAND, PacketError.LENGTH, PacketError.CODE))
    if rng.random() < 0.75:
        return Packet(command=rng.choice((W, Q, B, B, F)), tag=tag)
    if error is PacketError.COMMAND and rng.random() < 0.5:
        return Packet(command=None, tag=tag, error=error, answered=rng.random() < 0.5)
    return Packet(command=rng.choice((W, Q, B, F)), tag=tag, error=error)


class Watched:
    """Offers packets and compares the sequencer with the timetable of the one it is at.

    `empty` is only right in the clock that a packet begins in; else it is noise.
    """

    def __init__(self, clk: Clocked, params, rng: random.Random) -> None:
        self.clk, self.params, self.rng = clk, params, rng
        self.rules = StreamRules("answer")
        self.restart()

    def restart(self) -> None:
        self.table: Timetable | None = None
        self.tag = self.at = 0
        self.taken_at: list[int] = []  # clocks in which answers were taken
        self.begun_at: list[int] = []
        self.rules.reset()

    async def clock(self, packet: Packet | None, *, empty=False, ready=True) -> bool:
        """One clock; true if the packet was taken in it."""
        clk, dut = self.clk, self.clk.dut
        clk.ctx.set(dut.packet.valid, int(packet is not None))
        if packet is not None:
            clk.ctx.set(dut.packet.payload, packet.payload)
        clk.ctx.set(dut.answer.ready, int(ready))
        idle = self.table is None
        assert clk.get("idle") == idle
        if idle and packet is not None:
            self.table, self.at = packet.timetable(self.params, empty), 0
            self.tag = packet.tag
            self.begun_at.append(clk.now)
        clk.set(empty=empty if idle else self.rng.random() < 0.5)

        table, at = self.table, self.at
        high = {line for line in LINES if clk.get(line)}
        expected = {line for line in LINES if table and at in table.lines[line]}
        assert high == expected, f"clock {at} of {table}"
        begins = table is not None and at == 0
        assert PacketError(clk.get("failed")) is (table.failed if begins else PacketError.NONE)
        taken = table is not None and at == table.taken_clk
        if packet is not None:
            assert clk.ctx.get(dut.packet.ready) == taken
        owes = table is not None and table.answer_clk is not None and at >= table.answer_clk
        assert clk.ctx.get(dut.answer.valid) == owes, "valid does not wait for ready"
        payload = clk.ctx.get(dut.answer.payload)
        given = self.rules.clock(owes, ready, (payload.tag, payload.error))
        if owes:
            assert payload.tag == self.tag
            assert PacketError(payload.error) is table.answer_error
        if given:
            self.taken_at.append(clk.now)
        if table is not None and (given or (table.answer_clk is None and at == table.busy_clk)):
            self.table = None
        self.at += 1
        await clk.edge()
        return taken

    async def through(self, packet: Packet, *, empty=False, between: Packet | None = None) -> None:
        """One packet from offer to idle; ``between`` is offered from when it was taken."""
        current: Packet | None = packet
        while True:
            if await self.clock(current, empty=empty):
                current = between
            if self.table is None:
                return


@small()
@pytest.mark.parametrize("command", (W, Q, B, F), ids=lambda command: command.name)
def test_each_command_from_idle(params, command):
    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params, random.Random(1))
        for tag in (1, 0, 2**params.tag_bits - 1):
            await watched.clock(None)
            await watched.through(Packet(command=command, tag=tag))
        for _ in range(3):
            await watched.clock(None)

    simulate(Sequencer(params), bench)


@small()
@pytest.mark.parametrize("second", (W, Q, B, F), ids=lambda command: command.name)
@pytest.mark.parametrize("first", (W, Q, B, F), ids=lambda command: command.name)
def test_next_packet_waits_and_begins_when_idle(params, first, second):
    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params, random.Random(2))
        following = Packet(command=second, tag=1)
        await watched.through(Packet(command=first), between=following)
        await watched.through(following)

    simulate(Sequencer(params), bench)


@small()
def test_query_on_empty_window(params):
    """Only a query without a write is refused for it."""

    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params, random.Random(3))
        assert Packet(command=Q).timetable(params, True).failed is PacketError.EMPTY
        for command in (Q, B, W, F, Q, Q):
            await watched.through(Packet(command=command, tag=1), empty=True)

    simulate(Sequencer(params), bench)


@small()
@pytest.mark.parametrize("error", (PacketError.COMMAND, PacketError.LENGTH, PacketError.CODE),
                         ids=lambda error: error.name)  # fmt: skip
def test_refused_packets_move_no_line(params, error):
    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params, random.Random(4))
        for empty in (False, True):
            for command in (W, Q, B, F):
                await watched.through(Packet(command=command, tag=1, error=error), empty=empty)
            for answered in (False, True):
                unknown = Packet(command=None, error=error, answered=answered)
                await watched.through(unknown, empty=empty)

    simulate(Sequencer(params), bench)


@small()
def test_answer_waits_for_its_receiver(params):
    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params, random.Random(5))
        for command in (B, Q):
            packet = Packet(command=command, tag=1)
            while not await watched.clock(packet, ready=False):
                pass
            for _ in range(200):
                await watched.clock(packet, ready=False)
            await watched.clock(packet, ready=True)
            assert watched.table is None

    simulate(Sequencer(params), bench)


@small()
@seeds()
def test_random_packets_and_stalls(params, seed):
    rng = random.Random(seed)

    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params, rng)
        offer_stall, take_stall = stalls(rng), stalls(rng)
        packet = None
        for _ in range(1500):
            if packet is None and not offer_stall():
                packet = random_packet(params, rng)
            if await watched.clock(packet, empty=rng.random() < 0.3, ready=not take_stall()):
                packet = None

    simulate(Sequencer(params), bench)


@small()
@seeds()
def test_reset_in_every_phase(params, seed):
    rng = random.Random(seed)

    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params, rng)
        for _ in range(25):
            packet = Packet(command=rng.choice((W, Q, B)), tag=1)
            table = packet.timetable(params, False)
            current = packet
            for _ in range(rng.randint(1, table.busy_clk + 1)):
                if await watched.clock(current):
                    current = None
            await clk.reset()
            watched.restart()
            await watched.through(Packet(command=rng.choice((W, Q, B))))

    simulate(Sequencer(params), bench)


@small(*SMALL)
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


@pytest.mark.parametrize("name", [name for name, p in PRESETS.items() if not p.streaming])
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
    table = timetable(PRESETS["default"], B)
    spans = {
        line: (min(when), max(when)) for line, when in table.lines.items() if when
    }  # fmt: skip
    assert spans == {
        "k_write": (1, 4), "scores_reset": (5, 5), "arm": (5, 5), "integrate": (6, 20),
        "v_write": (6, 9), "advance": (9, 9), "outputs_reset": (21, 21), "convert": (22, 36),
        "counts_clear": (37, 37), "readout": (38, 52),
    }  # fmt: skip
    assert (table.taken_clk, table.answer_clk, table.busy_clk) == (20, 53, 53)
