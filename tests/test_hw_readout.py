"""Both readouts against the sum of signed pulse lengths, and against each other."""

from __future__ import annotations

import random

import pytest
from amaranth.hdl import Module, Mux
from amaranth.lib.wiring import Component, In, Out
from test_hw_bench import SMALL, Clocked, elaborated, seeds, simulate, small

from hw.params import READOUTS, HeadParams
from hw.readout import CounterReadout, PopulationReadout, Readout, create_readout
from sim.reference.readout import lane_sums, pack_sums, pulses, unpack_sums

#: Shapes for the bulk of the random cases: wide, since all lanes are counted at once.
BULK = {
    "subtiles16-count4": HeadParams(subtiles=16, lanes=256),
    "subtiles5-count3": HeadParams(subtiles=5, lanes=256, count_bits=3),
    "subtiles3-count2": HeadParams(subtiles=3, lanes=256, count_bits=2),
    "subtiles1-count4": HeadParams(subtiles=1, lanes=256),
    "subtiles2-count1": HeadParams(subtiles=2, lanes=256, count_bits=1),
    "subtiles7-count5": HeadParams(subtiles=7, lanes=64, count_bits=5),
}
#: Lane cases of each shape; one case is the signed pulses of all sub-tiles of one lane.
BULK_CASES = {
    "subtiles16-count4": 5120,
    "subtiles5-count3": 30720,
    "subtiles3-count2": 41984,
    "subtiles1-count4": 10240,
    "subtiles2-count1": 10240,
    "subtiles7-count5": 2560,
}


class Both(Component):
    """Both readouts on the same pulses."""

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        converters = params.subtiles * params.lanes
        super().__init__(
            {
                "pulse": In(converters),
                "sign": In(converters),
                "clear": In(1),
                "enable": In(1),
                "population": Out(params.lanes * params.sum_bits),
                "counter": Out(params.lanes * params.sum_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name, kind in (("population", PopulationReadout), ("counter", CounterReadout)):
            m.submodules[name] = readout = kind(self.params)
            for member in ("pulse", "sign", "clear", "enable"):
                m.d.comb += getattr(readout, member).eq(getattr(self, member))
            m.d.comb += getattr(self, name).eq(readout.sums)
        return m


def random_results(params, rng):
    """Signed results of one of several kinds: spread, extreme, sparse, or of one sign."""
    top = params.count_max
    kind = rng.randrange(5)
    draw = {
        0: lambda: rng.randint(-top, top),
        1: lambda: rng.choice((-top, top)),
        2: lambda: rng.choice((0, 0, 0, -1, 1, -top, top)),
        3: lambda: rng.randint(0, top),
        4: lambda: -rng.randint(0, top),
    }[kind]
    return [[draw() for _ in range(params.lanes)] for _ in range(params.subtiles)]


async def count(clk: Clocked, params, results, *, before=0, stop=None) -> None:
    """One phase as the sequencer and the converters give it, or its first ``stop`` clocks."""
    wave = pulses(params, results)
    for _ in range(before):
        await clk.edge()
    # The sign is there with `clear`, and no pulse is high.
    clk.set(clear=1, enable=0, sign=wave.sign, pulse=0)
    await clk.edge()
    clk.set(clear=0)
    for clock, vector in enumerate(wave.pulse):
        if clock == stop:
            return
        clk.set(enable=1, pulse=vector)
        await clk.edge()
    clk.set(enable=0)


def check(clk: Clocked, params, results) -> None:
    """Both sums, `latency_clk` clocks after the last enable."""
    expected = pack_sums(params, lane_sums(results))
    for name in READOUTS:
        got = clk.get(name)
        if got != expected:
            assert unpack_sums(params, got) == lane_sums(results), name
    assert clk.get("population") == clk.get("counter")


def constant(params, value):
    return [[value] * params.lanes for _ in range(params.subtiles)]


@small()
def test_ends_of_the_range(params):
    """All sub-tiles at full scale of one sign need every bit of the sum."""
    top = params.count_max

    async def bench(clk: Clocked) -> None:
        for value in (0, top, -top, 1, -1, 0, -top, top, 0):
            results = constant(params, value)
            await count(clk, params, results)
            check(clk, params, results)
            assert unpack_sums(params, clk.get("counter")) == (
                [value * params.subtiles] * params.lanes
            )

    simulate(Both(params), bench)


@small()
def test_each_converter_alone(params):
    """Every length and sign in one sub-tile of one lane changes that lane alone."""
    rng = random.Random(1)
    converters = [(s, lane) for s in range(params.subtiles) for lane in range(params.lanes)]

    async def bench(clk: Clocked) -> None:
        for subtile, lane in rng.sample(converters, min(len(converters), 12)):
            for length in {1, params.count_max, rng.randint(1, params.count_max)}:
                for value in (length, -length):
                    results = constant(params, 0)
                    results[subtile][lane] = value
                    await count(clk, params, results)
                    check(clk, params, results)
                    expected = [value if n == lane else 0 for n in range(params.lanes)]
                    assert unpack_sums(params, clk.get("population")) == expected

    simulate(Both(params), bench)


def test_every_pair_of_results():
    """Two sub-tiles, all 31 x 31 pairs of signed results, a pair per lane."""
    params = HeadParams(subtiles=2, lanes=31)
    top = params.count_max

    async def bench(clk: Clocked) -> None:
        for first in range(-top, top + 1):
            results = [[first] * params.lanes, list(range(-top, top + 1))]
            await count(clk, params, results)
            check(clk, params, results)

    simulate(Both(params), bench)


@pytest.mark.parametrize("name", BULK)
def test_random_lanes(name):
    """More than 10**5 lane cases over the shapes."""
    params, rng = BULK[name], random.Random(name)
    phases = -(-BULK_CASES[name] // params.lanes)

    async def bench(clk: Clocked) -> None:
        for _ in range(phases):
            results = random_results(params, rng)
            await count(clk, params, results)
            check(clk, params, results)

    simulate(Both(params), bench)


def test_random_lanes_are_enough():
    assert BULK.keys() == BULK_CASES.keys()
    assert sum(BULK_CASES.values()) >= 10**5


@small()
@seeds()
def test_sums_stay_until_clear(params, seed):
    """Between phases pulses and signs are noise, and count for nothing."""
    rng = random.Random(seed)
    converters = params.subtiles * params.lanes

    async def bench(clk: Clocked) -> None:
        for _ in range(15):
            results = random_results(params, rng)
            await count(clk, params, results, before=rng.randrange(3))
            check(clk, params, results)
            for _ in range(rng.randrange(6)):
                clk.set(pulse=rng.getrandbits(converters), sign=rng.getrandbits(converters))
                await clk.edge()
                check(clk, params, results)

    simulate(Both(params), bench)


@small()
@seeds()
def test_cleared_in_mid_phase(params, seed):
    """A phase that is cut off leaves nothing in the next, with or without a reset."""
    rng = random.Random(seed)

    async def bench(clk: Clocked) -> None:
        for _ in range(10):
            stop = rng.randint(1, params.readout_clk)
            await count(clk, params, random_results(params, rng), stop=stop)
            if rng.random() < 0.5:
                await clk.reset()
                assert clk.get(*READOUTS) == (0, 0)
            results = random_results(params, rng)
            await count(clk, params, results)
            check(clk, params, results)

    simulate(Both(params), bench)


@pytest.mark.parametrize(
    ("name", "kind"), (("population", PopulationReadout), ("counter", CounterReadout))
)
def test_create_readout(name, kind):
    readout = elaborated(create_readout(HeadParams(readout=name, lanes=2)))
    assert type(readout) is kind
    assert readout.latency_clk == Readout.latency_clk == 1  # as `check` is timed


def test_a_difference_would_be_noticed():
    """The check is one: a readout that is off by one in one case fails it."""

    class Wrong(Both):
        def elaborate(self, platform: object) -> Module:
            m = Module()
            m.submodules.right = right = Both(self.params)
            for member in ("pulse", "sign", "clear", "enable"):
                m.d.comb += getattr(right, member).eq(getattr(self, member))
            wrong = Mux(right.population == 29, 28, right.population)
            m.d.comb += [self.counter.eq(right.counter), self.population.eq(wrong)]
            return m

    params = HeadParams(subtiles=2, lanes=1)

    async def bench(clk: Clocked) -> None:
        await count(clk, params, [[14], [14]])
        check(clk, params, [[14], [14]])
        await count(clk, params, [[14], [15]])
        with pytest.raises(AssertionError, match="population"):
            check(clk, params, [[14], [15]])

    simulate(Wrong(params), bench)


def test_reference():
    params = SMALL["tiny"]
    results = [[1, -2, 15, -15], [3, 2, 15, -15]]
    wave = pulses(params, results)
    assert wave.sign == 0b1000_1010
    assert wave.pulse[0] == 0xFF and wave.pulse[14] == 0b1100_1100
    assert lane_sums(results) == [4, 0, 30, -30]
    assert unpack_sums(params, pack_sums(params, [4, 0, 30, -30])) == [4, 0, 30, -30]
    with pytest.raises(ValueError, match=r"result must be in -15\.\.15, not 16$"):
        pulses(params, [[16] * 4] * 2)
