"""Full-scale detector: lanes in which some sub-tile's pulse lasts for the whole phase."""

from __future__ import annotations

import random

import pytest
from test_hw_bench import SMALL, Clocked, seeds, simulate, small

from hw.full_scale import FullScale
from sim.reference.full_scale import full_scale_lanes
from sim.reference.readout import pulses


async def phase(clk: Clocked, params, results, noise: int = 0) -> None:
    clk.set(enable=1)
    for vector in pulses(params, results).pulse:
        clk.set(pulse=vector)
        await clk.edge()
    expected = sum(flag << lane for lane, flag in enumerate(full_scale_lanes(params, results)))
    clk.set(enable=0, pulse=noise)
    assert clk.get("lanes") == expected
    await clk.edge()
    assert clk.get("lanes") == expected, "the flags stay until the next phase"


@small()
@pytest.mark.parametrize("sign", (1, -1))
def test_one_subtile_at_full_scale_the_others_just_below(params, sign):
    async def bench(clk: Clocked) -> None:
        for subtile in range(params.subtiles):
            for lane in range(params.lanes):
                results = [
                    [params.count_max - 1 if s != subtile or n != lane else sign * params.count_max
                     for n in range(params.lanes)]
                    for s in range(params.subtiles)
                ]  # fmt: skip
                await phase(clk, params, results)

    simulate(FullScale(params), bench)


@small()
@seeds()
def test_random(params, seed):
    rng = random.Random(seed)
    top = params.count_max

    async def bench(clk: Clocked) -> None:
        for _ in range(60):
            often = rng.choice((0.02, 0.3, 0.9))
            results = [
                [
                    rng.choice((-top, top))
                    if rng.random() < often
                    else rng.randint(1 - top, top - 1)
                    for _ in range(params.lanes)
                ]
                for _ in range(params.subtiles)
            ]
            noise = rng.getrandbits(params.subtiles * params.lanes)
            await phase(clk, params, results, noise)

    simulate(FullScale(params), bench)


def test_reset_forgets():
    params = SMALL["tiny"]

    async def bench(clk: Clocked) -> None:
        full = [[params.count_max] * params.lanes] * params.subtiles
        await phase(clk, params, full)
        await clk.reset()
        assert clk.get("lanes") == 0
        await phase(clk, params, full)

    simulate(FullScale(params), bench)


def test_latency_clk():
    # `phase` reads the flags in the clock after the last enable.
    assert FullScale.latency_clk == 1
