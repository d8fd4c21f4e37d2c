"""Status against the saturated totals of its events."""

from __future__ import annotations

import random
from dataclasses import asdict

import pytest
from test_hw_bench import SMALL, Clocked, seeds, simulate, small

from hw.packet import PacketError
from hw.status import STICKY_FULL_SCALE, Status
from sim.reference.status import StatusClock, status_values

ERRORS = [kind for kind in PacketError if kind is not PacketError.NONE]
COUNTER = {
    PacketError.COMMAND: "command_errors",
    PacketError.LENGTH: "length_errors",
    PacketError.CODE: "code_errors",
    PacketError.EMPTY: "empty_errors",
}


class Watched:
    """Feeds events and compares every output after each."""

    def __init__(self, clk: Clocked, params) -> None:
        self.clk, self.params, self.history = clk, params, []

    def check(self) -> None:
        for name, value in asdict(status_values(self.params, self.history)).items():
            assert self.clk.get(name) == value, name

    async def feed(self, **fields) -> None:
        event = StatusClock(**fields)
        self.clk.set(
            failed=event.failed, full_scale_lanes=event.full_scale_lanes, clear=event.clear
        )
        self.check()  # nothing before the edge: `latency_clk` is 1
        await self.clk.edge()
        self.history.append(event)
        self.check()


@small()
@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.name)
def test_each_error_counts_in_its_counter_and_sticks(params, kind):
    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params)
        await watched.feed(failed=kind)
        await watched.feed()
        assert clk.get("sticky") == 1 << (kind - 1)
        assert [clk.get(name) for name in COUNTER.values()] == [k is kind for k in COUNTER]

    simulate(Status(params), bench)


@small()
def test_saturates(params):
    """From just below the limit, by steps of one and of many."""

    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params)
        limit = 2**params.event_bits - 1
        if params.event_bits <= 5:
            for _ in range(limit + 2):
                await watched.feed(failed=PacketError.CODE)
            assert clk.get("code_errors") == limit
        for lanes in {1, params.lanes_per_beat - 1, params.lanes_per_beat} - {0}:
            await watched.feed(clear=True)
            clk.set(failed=0, full_scale_lanes=lanes, clear=0)
            fast = limit // lanes - 1
            if params.event_bits > 10:
                continue
            for _ in range(fast):
                await clk.edge()
            watched.history += [StatusClock(full_scale_lanes=lanes)] * fast
            for _ in range(4):
                await watched.feed(full_scale_lanes=lanes)
            assert clk.get("full_scale_total") == limit
            assert clk.get("sticky") == 1 << STICKY_FULL_SCALE
        # A saturated counter begins again from a clear.
        await watched.feed(clear=True)
        await watched.feed(full_scale_lanes=1)
        assert clk.get("full_scale_total") == 1

    simulate(Status(params), bench)


@small()
@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.name)
def test_clear_wins_over_events(params, kind):
    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params)
        await watched.feed(failed=kind, full_scale_lanes=1)
        await watched.feed(failed=kind, full_scale_lanes=1, clear=True)
        assert clk.get("sticky") == 0

    simulate(Status(params), bench)


@small()
@seeds()
def test_random_events(params, seed):
    rng = random.Random(seed)

    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params)
        for _ in range(300):
            await watched.feed(
                failed=rng.choice([PacketError.NONE, *PacketError]),
                full_scale_lanes=rng.choice((0, rng.randint(0, params.lanes_per_beat))),
                clear=rng.random() < 0.01,
            )
            if rng.random() < 0.01:
                await clk.reset()
                watched.history.clear()
                watched.check()

    simulate(Status(params), bench)


def test_latency_clk():
    # `Watched.feed` looks before and after each edge.
    assert Status.latency_clk == 1


def test_reference():
    params = SMALL["all-one"]
    history = [StatusClock(failed=PacketError.EMPTY)] * 20 + [StatusClock(full_scale_lanes=1)]
    values = status_values(params, history)
    assert (values.empty_errors, values.full_scale_total, values.sticky) == (15, 1, 0b11000)
    assert status_values(params, [*history, StatusClock(clear=True)]).sticky == 0
