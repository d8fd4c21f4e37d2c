"""Refresh scheduler against a reference that counts clocks and tokens."""

from __future__ import annotations

import itertools
import random

import pytest
from test_hw_bench import Clocked, seeds, simulate

from hw.params import HeadParams
from hw.refresh import RefreshScheduler
from sim.reference.refresh import RefreshRequests

SIZES = {
    f"{subtiles}x{columns}": HeadParams(
        subtiles=subtiles, columns=columns, rows=1, lanes=1, refresh=True
    )
    for subtiles, columns in ((2, 4), (3, 5), (1, 3), (1, 2))
}
sizes = pytest.mark.parametrize("params", SIZES.values(), ids=SIZES)


class Bench:
    """Plays the window and the sequencer."""

    def __init__(self, clk: Clocked, params: HeadParams) -> None:
        self.clk, self.params = clk, params
        self.enable, self.period = True, 4
        self.reset_state()

    def reset_state(self) -> None:
        self.occupancy, self.pointer = 0, 0
        self.rewriting = False
        self.reference = RefreshRequests()

    def drive(self) -> None:
        subtile, column = divmod(self.pointer, self.params.columns)
        self.clk.set(
            enable=self.enable, period=self.period, window_subtile=subtile, window_column=column,
            full=self.occupancy == self.params.window, empty=self.occupancy == 0,
        )  # fmt: skip

    def check(self) -> None:
        reference = self.reference
        assert self.clk.get("request") == reference.request
        at = self.clk.get("subtile") * self.params.columns + self.clk.get("column")
        assert at == reference.column
        if self.occupancy:
            assert at < self.occupancy
            assert self.clk.get("last") == reference.last(self.occupancy)

    async def step(self, *, write=False, flush=False, taken=False, done=False) -> None:
        self.drive()
        self.clk.set(flush=flush, taken=taken, done=done)
        self.check()
        await self.clk.edge()
        self.reference.clock(
            enable=self.enable, period=self.period, occupancy=self.occupancy, flush=flush,
            taken=taken, done=done,
        )  # fmt: skip
        self.rewriting = (self.rewriting or taken) and not done and not flush
        if flush:
            self.occupancy, self.pointer = 0, 0
        elif write:
            self.occupancy = min(self.occupancy + 1, self.params.window)
            self.pointer = (self.pointer + 1) % self.params.window
        self.drive()
        self.clk.set(flush=0, taken=0, done=0)
        self.check()

    async def reset(self) -> None:
        self.clk.set(flush=0, taken=0, done=0)
        await self.clk.reset()
        self.reset_state()
        self.drive()


@sizes
@seeds()
def test_random(params, seed):
    rng = random.Random(seed)

    async def run(clk: Clocked) -> None:
        bench = Bench(clk, params)
        writing, eager = 0.2, 0.5
        for _ in range(1500):
            if rng.random() < 0.02:
                bench.period = rng.choice((1, 2, 3, 7, 20))
            if rng.random() < 0.02:
                bench.enable = rng.random() < 0.8
            if rng.random() < 0.02:
                writing, eager = rng.choice((0, 0.1, 1)), rng.choice((0.05, 0.5, 1))
            if rng.random() < 0.003:
                await bench.reset()
                continue
            request = clk.get("request")
            flush = not bench.rewriting and rng.random() < 0.02
            await bench.step(
                write=rng.random() < writing,
                flush=flush,
                taken=bool(request) and not flush and rng.random() < eager,
                done=bench.rewriting and rng.random() < eager,
            )

    simulate(RefreshScheduler(params), run)


@sizes
def test_sweep(params):
    """Columns in order, one per period, the last valid one followed by column 0."""

    async def run(clk: Clocked) -> None:
        bench = Bench(clk, params)
        bench.period = 5
        columns, clocks = [], []
        for _ in range(max(2, params.window - 1)):
            await bench.step(write=True)
        for clock in range(5 * (2 * params.window + 1)):
            taken = bool(clk.get("request"))
            if taken:
                columns.append(bench.reference.column)
                clocks.append(clock)
            await bench.step(taken=taken, done=bench.rewriting)
        sweep = list(range(bench.occupancy))
        assert columns[: 2 * len(sweep)] == 2 * sweep
        # The first one had been waiting.
        assert {after - before for before, after in itertools.pairwise(clocks[1:])} == {5}

    simulate(RefreshScheduler(params), run)


@sizes
def test_periods_missed_are_not_made_up_for(params):
    async def run(clk: Clocked) -> None:
        bench = Bench(clk, params)
        bench.period = 8
        await bench.step(write=True)
        await bench.step(write=True)
        for clock in range(7):
            assert not clk.get("request"), clock
            await bench.step()
        # It waits through three periods and is rewritten through two more.
        for _ in range(3 * 8):
            assert clk.get("request")
            await bench.step()
        await bench.step(taken=True)
        for _ in range(2 * 8):
            assert not clk.get("request")
            await bench.step()
        await bench.step(done=True)
        waits = 0
        while not clk.get("request"):
            await bench.step()
            waits += 1
        assert 0 < waits < 8
        assert bench.reference.column == 1

    simulate(RefreshScheduler(params), run)


@sizes
@pytest.mark.parametrize("by", ("flush", "enable"))
def test_request_is_withdrawn(params, by):
    async def run(clk: Clocked) -> None:
        bench = Bench(clk, params)
        for _ in range(2):
            await bench.step(write=True)
        while not clk.get("request"):
            await bench.step()
        await bench.step(taken=True)
        await bench.step(done=True)
        assert bench.reference.column == 1
        while not clk.get("request"):
            await bench.step()
        if by == "flush":
            await bench.step(flush=True)
        else:
            bench.enable = False
            await bench.step()
        for _ in range(30):
            assert not clk.get("request")
            await bench.step()
        assert bench.reference.column == (0 if by == "flush" else 1)
        bench.enable = True
        await bench.step(write=True)
        # A whole period later.
        for clock in range(bench.period - (by == "flush") + 1):
            assert bool(clk.get("request")) == (clock >= bench.period - (by != "flush")), clock
            await bench.step()

    simulate(RefreshScheduler(params), run)


def test_every_bit_of_the_period_counts():
    async def run(clk: Clocked) -> None:
        bench = Bench(clk, SIZES["1x2"])
        bench.period = 1 << 31
        await bench.step(write=True)
        for _ in range(500):
            await bench.step()
        bench.period = 300  # has passed
        await bench.step()
        assert clk.get("request")

    simulate(RefreshScheduler(SIZES["1x2"]), run)


def test_latency_clk():
    # One clock: the tests above look before and after each edge.
    assert RefreshScheduler.latency_clk == 1
