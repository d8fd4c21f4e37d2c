"""Ages against a reference that remembers when each column was written."""

from __future__ import annotations

import random

import pytest
from test_hw_bench import Clocked, seeds, simulate

from hw.ages import Ages
from hw.params import HeadParams
from sim.reference.ages import TokenAges


def _size(subtiles: int, columns: int, sinks: int, refresh: bool) -> HeadParams:
    return HeadParams(
        subtiles=subtiles, columns=columns, sinks=sinks, refresh=refresh, age_bits=4,
        rows=1, lanes=1,
    )  # fmt: skip


#: Sinks that end within a sub-tile, with one, and before its last column; and none.
SIZES = {
    "plain": _size(3, 3, 0, False),
    "sinks": _size(2, 4, 5, False),
    "refresh": _size(2, 3, 0, True),
    "all": _size(3, 4, 7, True),
    "odd": _size(3, 5, 10, True),
    "one-subtile": _size(1, 4, 3, True),
    "two-columns": _size(1, 2, 1, True),
}
sizes = pytest.mark.parametrize("params", SIZES.values(), ids=SIZES)


class Bench:
    """Drives the ages as a window would, and compares them in every clock."""

    def __init__(self, clk: Clocked, params: HeadParams) -> None:
        self.clk, self.params = clk, params
        self.ages = TokenAges(params)
        self.sinks = 0
        self.age_tick = 0
        self.budget = 3
        self.oldest = [0, 0]  # shown now, and in the next clock

    def drive(self, event: str | None) -> None:
        p, ages = self.params, self.ages
        state = ages.state
        subtile, column = divmod(state.next_column, p.columns)
        self.clk.set(
            age_tick=self.age_tick, budget=self.budget, advance=event == "write",
            flush=event == "flush", subtile=subtile, column=column, occupancy=state.occupancy,
            full=state.occupancy == p.window,
        )  # fmt: skip
        if p.sinks:
            sinks = ages.sinks if state.occupancy else self.sinks
            wrap_subtile, wrap_column = divmod(sinks, p.columns)
            self.clk.set(active_sinks=sinks, wrap_subtile=wrap_subtile, wrap_column=wrap_column)
        if p.refresh:
            subtile, column = divmod(ages.refresh_column, p.columns)
            self.clk.set(
                refreshed=event == "refresh", refresh_subtile=subtile, refresh_column=column,
                refresh_last=ages.refresh_last,
            )  # fmt: skip

    def stale(self) -> tuple[int, int | None, int]:
        """Stale bits, that of the lap if it has any columns, and that of the sinks."""
        p, ages = self.params, self.ages
        lap = ages.lap_bound
        return (
            sum((ages.part_bound(part) > self.budget) << part for part in range(p.subtiles)),
            None if lap is None else int(lap > self.budget),
            int(ages.part_bound(p.subtiles) > self.budget),
        )

    def shown(self) -> tuple[int, int | None, int]:
        """What the hardware says of the same."""
        lap = None if self.ages.lap_bound is None else self.clk.get("lap_stale")
        sinks = self.clk.get("sink_stale") if self.params.sinks else 0
        return self.clk.get("stale"), lap, sinks

    def check(self) -> None:
        ages = self.ages
        assert self.shown() == self.stale()
        assert self.clk.get("any_stale") == bool(ages.stale(self.budget))
        assert self.clk.get("oldest_age") == self.oldest[0]

    async def step(self, event: str | None = None) -> None:
        self.drive(event)
        self.oldest = [self.oldest[1], self.ages.oldest_bound]
        await self.clk.edge()
        self.ages.clock(age_tick=self.age_tick, sinks=self.sinks, event=event)
        self.drive(None)

    async def reset(self) -> None:
        self.drive(None)
        await self.clk.reset()
        self.ages.reset()
        self.oldest = [0, 0]
        self.drive(None)


def random_event(rng: random.Random, bench: Bench, mood: dict) -> str | None:
    ages = bench.ages
    if rng.random() < 0.03:
        mood.update(write=rng.choice((0, 0.1, 0.5, 1)), refresh=rng.choice((0, 0.1, 0.6, 1)))
    if rng.random() < 0.3 / bench.params.window / 4:
        return "flush"
    if rng.random() < mood["write"]:
        return "write"
    if bench.params.refresh and ages.state.occupancy and rng.random() < mood["refresh"]:
        return "refresh"
    return None


@sizes
@seeds()
def test_random_history(params, seed):
    rng = random.Random(seed)

    async def run(clk: Clocked) -> None:
        bench = Bench(clk, params)
        mood = {"write": 0.5, "refresh": 0.3}
        for _ in range(900):
            if rng.random() < 0.02:
                bench.age_tick = rng.choice((0, 1, 2, 5))
            if rng.random() < 0.02:
                bench.budget = rng.choice((0, 1, 3, 6, 14, 15))
            if rng.random() < 0.1:
                bench.sinks = rng.randint(0, params.sinks)
            if rng.random() < 0.005:
                await bench.reset()
            else:
                await bench.step(random_event(rng, bench, mood))
            bench.check()

    simulate(Ages(params), run)


@sizes
@seeds()
def test_reference_is_never_optimistic(params, seed):
    """And without refresh a sub-tile's age is that of its oldest column, but for the pointer's."""
    rng = random.Random(seed)
    ages = TokenAges(params)
    for _ in range(600):
        event = "flush" if rng.random() < 0.3 / params.window else rng.choice(("write", None))
        if event is None and params.refresh and ages.state.occupancy and rng.random() < 0.7:
            event = "refresh"
        ages.clock(age_tick=rng.choice((0, 3)), sinks=params.sinks, event=event)
        for part in range(params.subtiles + 1):
            members = ages.members(part)
            assert all(ages.age(column) <= ages.bound(column) for column in members)
            if not params.refresh and members and part != ages.part(ages.state.next_column):
                assert max(map(ages.age, members)) == ages.part_bound(part)


@sizes
def test_a_budget_is_passed_to_the_clock(params):
    """Written in some clock of a tick, columns are stale when budget + 1 ticks have come."""

    async def run(clk: Clocked) -> None:
        bench = Bench(clk, params)
        bench.age_tick, bench.budget = 4, 2
        for early in range(5):
            await bench.reset()
            for _ in range(early):
                await bench.step()
            await bench.step("write")
            fresh = 0
            while not clk.get("any_stale"):
                await bench.step()
                fresh += 1
            # A tick comes every fifth clock. Past the budget, less than a tick past it.
            assert 2 * 5 < fresh <= 3 * 5
            assert fresh == 3 * 5 - (early + 1) % 5
            bench.check()

    simulate(Ages(params), run)


@sizes
def test_counters_saturate(params):
    async def run(clk: Clocked) -> None:
        bench = Bench(clk, params)
        bench.sinks = params.sinks
        await bench.step()
        for _ in range(params.window):
            await bench.step("write")
        for _ in range(40):
            for bench.budget in (15, 14):
                bench.drive(None)
                bench.check()
            await bench.step()
        assert clk.get("oldest_age") == 15
        assert clk.get("stale") == bench.stale()[0] != 0

    simulate(Ages(params), run)


@sizes
def test_stale_is_held(params):
    """From the first clock of a conversion to its end, whatever comes; not the status."""

    async def run(clk: Clocked) -> None:
        bench = Bench(clk, params)
        bench.sinks, bench.age_tick = params.sinks, 9999
        await bench.step()
        for _ in range(params.window + 1):
            await bench.step("write")
        bench.age_tick = 0
        bench.drive(None)
        clk.set(hold=1)
        assert not clk.get("any_stale")
        for clock in range(20):
            assert clk.get("stale") == clk.get("lap_stale") == 0, clock
            assert clk.get("any_stale") == bool(bench.ages.stale(bench.budget))
            await bench.step()
        assert clk.get("any_stale")
        clk.set(hold=0)
        await bench.step()
        bench.check()
        assert clk.get("stale")
        # In its first clock it shows that clock's, a write just before it included.
        await bench.step("write")
        clk.set(hold=1)
        bench.check()
        shown = bench.shown()
        await bench.step()
        bench.budget = 15
        for _ in range(params.window):
            bench.drive(None)
            assert bench.shown() == shown != bench.stale()
            await bench.step("refresh" if params.refresh else None)
        clk.set(hold=0)
        await bench.step()
        bench.check()
        # A flush ends it.
        bench.budget = 3
        clk.set(hold=1)
        await bench.step()
        await bench.step("flush")
        bench.check()

    simulate(Ages(params), run)


def test_every_bit_of_the_tick_counts():
    params = SIZES["plain"]

    async def run(clk: Clocked) -> None:
        bench = Bench(clk, params)
        bench.age_tick = 1 << 31
        await bench.step("write")
        for _ in range(300):
            await bench.step()
        assert clk.get("oldest_age") == 0
        # A tick that is shortened below what has elapsed ends at once.
        bench.age_tick = 99
        for _ in range(3):
            await bench.step()
        assert clk.get("oldest_age") == 1
        for _ in range(99):
            bench.check()
            await bench.step()
        assert clk.get("oldest_age") == 1
        await bench.step()
        assert clk.get("oldest_age") == 2

    simulate(Ages(params), run)


def test_age_of_a_lap():
    """Of a sub-tile being rewritten, the part behind the pointer is young, the rest is not."""
    params = SIZES["plain"]

    async def run(clk: Clocked) -> None:
        bench = Bench(clk, params)
        bench.age_tick, bench.budget = 0, 9
        for _ in range(params.window):
            await bench.step("write")
        for _ in range(3):
            await bench.step()
        # Sub-tile 0 was begun eleven ticks ago, its first column is written anew.
        await bench.step("write")
        assert clk.get("stale", "lap_stale") == (0b001, 0)
        await bench.step("write")
        await bench.step("write")
        # With its last column it is as old as the lap, two ticks; the next one is stale meanwhile.
        assert clk.get("stale") == 0b010
        assert bench.ages.part_bound(0) == 2
        await bench.step("flush")
        assert clk.get("stale", "any_stale") == (0, 0)
        bench.check()

    simulate(Ages(params), run)


def test_latency_clk():
    # One clock: every test above looks after each edge.
    assert Ages.latency_clk == 1
