"""Status against the saturated totals of its events."""

from __future__ import annotations

import random

import pytest
from test_hw_bench import SMALL, Clocked, elaborated, seeds, simulate

from hw.packet import PacketError
from hw.params import HeadParams
from hw.presets import PRESETS
from hw.registers import RegisterMap
from hw.status import Status
from sim.reference.status import StatusClock, status_values

HEADS = {
    "tiny": PRESETS["tiny"],
    "tiny-layer": PRESETS["tiny-layer"],
    "all-one": SMALL["all-one"],
    "bytes": SMALL["bytes"],
    "narrow-layer": HeadParams(
        subtiles=1, columns=2, rows=1, lanes=1, bus_bits=64, event_bits=4, heads=9, shots=True
    ),
}
ERRORS = [kind for kind in PacketError if kind is not PacketError.NONE]


def heads(*names: str) -> pytest.MarkDecorator:
    chosen = names or tuple(HEADS)
    return pytest.mark.parametrize("params", [HEADS[n] for n in chosen], ids=chosen)


class Watched:
    """Feeds events and compares every output before and after each."""

    def __init__(self, clk: Clocked, params) -> None:
        self.clk, self.params, self.history = clk, params, []
        self.inputs = [name for name in StatusClock._fields if hasattr(clk.dut, name)]

    def check(self) -> None:
        values = status_values(self.params, self.history)
        for name, value in values.counters.items():
            assert self.clk.get(name) == value, name
        for name, value in values.sticky.items():
            assert self.clk.ctx.get(self.clk.dut.sticky[name]) == value, name

    def drive(self, **fields) -> StatusClock:
        event = StatusClock(**fields)
        for name in self.inputs:
            if name != "clear_sticky":
                self.clk.set(**{name: getattr(event, name)})
        cleared = self.clk.dut.clear_sticky
        for name in cleared.shape().members:
            self.clk.ctx.set(cleared[name], name in event.clear_sticky)
        return event

    async def feed(self, **fields) -> None:
        event = self.drive(**fields)
        self.check()  # nothing before the edge: `latency_clk` is 1
        await self.clk.edge()
        self.history.append(event)
        self.check()


def events(params) -> tuple[str, ...]:
    return RegisterMap(params).events


@heads()
def test_each_error_counts_and_sticks_alone(params):
    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params)
        await clk.reset()
        for kind in ERRORS:
            await watched.feed(failed=kind)
            await watched.feed(clear=True, clear_sticky=frozenset(clk.dut.sticky.shape().members))

    simulate(Status(params), bench)


@heads()
def test_saturates(params):
    """From just below the limit, by steps of one and of many."""
    limit = 2**params.event_bits - 1

    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params)
        most = params.heads * params.lanes_per_beat
        for lanes in {1, most - 1, most} - {0}:
            if limit // lanes > 300:
                continue
            await watched.feed(clear=True)
            fast = max(0, limit // lanes - 1)
            event = watched.drive(full_scale_lanes=lanes, advance=True)
            for _ in range(fast):
                await clk.edge()
            watched.history += [event] * fast
            for _ in range(4):
                await watched.feed(full_scale_lanes=lanes, advance=True)
            assert clk.get("full_scale_total") == limit
            # A saturated counter begins again with what happens in the clock of the clear.
            await watched.feed(clear=True, full_scale_lanes=1)
            assert clk.get("full_scale_total") == 1

    simulate(Status(params), bench)


def test_wide_counters_saturate_too():
    """Of the clock counters only the carry matters; they are set, not counted, to their limit."""

    async def bench(clk: Clocked) -> None:
        clk.ctx.set(clk.dut.clocks_idle, 2**32 - 2)
        clk.set(idle=1)
        for expected in (2**32 - 2, 2**32 - 1, 2**32 - 1):
            assert clk.get("clocks_idle") == expected
            await clk.edge()
        clk.set(idle=0)
        await clk.edge()
        assert clk.get("clocks_idle") == 2**32 - 1

    simulate(Status(HEADS["tiny"]), bench)


@heads("tiny-layer", "all-one")
def test_an_event_in_the_clock_of_a_clear_is_kept(params):
    every = frozenset(events(params))

    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params)
        for kind in ERRORS:
            await watched.feed(failed=kind, full_scale_lanes=1, saturated_results=1, stale=True)
            await watched.feed(failed=kind, full_scale_lanes=1, clear=True, clear_sticky=every)
            assert clk.get("full_scale_total") == 1
            assert clk.ctx.get(clk.dut.sticky.full_scale) == 1
            await watched.feed(clear=True, clear_sticky=every)
            assert clk.ctx.get(clk.dut.sticky.as_value()) == 0

    simulate(Status(params), bench)


def test_stale_sticks_when_it_rises():
    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, HEADS["tiny"])
        await watched.feed(stale=True)
        await watched.feed(stale=True, clear_sticky=frozenset({"stale"}))
        assert clk.ctx.get(clk.dut.sticky.stale) == 0
        await watched.feed(stale=False)
        await watched.feed(stale=True)
        assert clk.ctx.get(clk.dut.sticky.stale) == 1

    simulate(Status(HEADS["tiny"]), bench)


@heads()
@seeds()
def test_random_events(params, seed):
    rng = random.Random(seed)
    every = events(params)

    async def bench(clk: Clocked) -> None:
        watched = Watched(clk, params)
        lanes = params.heads * params.lanes_per_beat
        for _ in range(120):
            await watched.feed(
                failed=rng.choice([PacketError.NONE, *PacketError]),
                full_scale_lanes=rng.choice((0, rng.randint(0, lanes))),
                saturated_results=rng.choice((0, rng.randint(0, lanes))),
                advance=rng.random() < 0.5,
                answered=rng.random() < 0.5,
                refreshed=rng.random() < 0.3,
                idle=rng.random() < 0.5,
                stale=rng.random() < 0.5,
                clear=rng.random() < 0.03,
                clear_sticky=frozenset(name for name in every if rng.random() < 0.1),
            )
            if rng.random() < 0.02:
                await clk.reset()
                watched.history.clear()
                watched.drive()
                watched.check()

    simulate(Status(params), bench)


def test_latency_clk():
    # `Watched.feed` looks before and after each edge.
    assert Status.latency_clk == 1


def test_members_of_absent_features_are_absent():
    ports = set(elaborated(Status(SMALL["all-one"])).signature.members)
    assert not ports & {"saturated_results", "refreshed", "stale", "step_errors", "refreshes"}
    assert events(SMALL["all-one"]) == ("command", "length", "code", "empty", "full_scale")


def test_reference():
    params = SMALL["all-one"]
    history = [StatusClock(failed=PacketError.EMPTY)] * 20 + [StatusClock(full_scale_lanes=1)]
    values = status_values(params, history)
    assert (values.counters["empty_errors"], values.counters["full_scale_total"]) == (15, 1)
    assert [name for name, set_ in values.sticky.items() if set_] == ["empty", "full_scale"]
    cleared = status_values(params, [*history, StatusClock(clear=True, idle=True)])
    assert cleared.counters == dict.fromkeys(cleared.counters, 0) | {"clocks_idle": 1}
    assert cleared.sticky == values.sticky
