"""Pulse bank: the word line of a row with code c is high for the first c clocks of the phase."""

from __future__ import annotations

import random

import pytest
from test_hw_bench import SMALL, Clocked, pack, seeds, simulate, small

from hw.pulse_bank import PulseBank
from sim.reference.pulse_bank import word_lines


async def phase(clk: Clocked, params, codes, *, stop: int | None = None) -> None:
    """Arm, integrate, check every clock; ``stop`` clocks into the phase leave off."""
    clk.set(codes=pack(codes, params.q_bits), arm=1, integrate=0)
    assert clk.get("pulse") == 0, "word lines rise one clock after arm, no earlier"
    await clk.edge()
    clk.set(arm=0, integrate=1)
    for clock, lines in enumerate(word_lines(params, codes)):
        if clock == stop:
            return
        assert clk.get("pulse") == lines, f"clock {clock} of {codes}"
        await clk.edge()
    # The codes may change as soon as the phase is over.
    clk.set(integrate=0, codes=2 ** (params.rows * params.q_bits) - 1)
    assert clk.get("pulse") == 0
    await clk.edge()
    assert clk.get("pulse") == 0


def random_codes(params, rng):
    top = 2**params.q_bits - 1
    kind = rng.randrange(3)
    if kind == 0:
        return [rng.choice((0, top)) for _ in range(params.rows)]
    return [rng.randint(0, top) for _ in range(params.rows)]


@small()
def test_every_code_in_every_row(params):
    async def bench(clk: Clocked) -> None:
        levels = 2**params.q_bits
        for shift in range(levels):
            await phase(clk, params, [(row + shift) % levels for row in range(params.rows)])

    simulate(PulseBank(params), bench)


@small()
@seeds()
def test_random_codes_and_pauses(params, seed):
    rng = random.Random(seed)

    async def bench(clk: Clocked) -> None:
        for _ in range(20):
            await phase(clk, params, random_codes(params, rng))
            for _ in range(rng.randrange(3)):
                clk.set(codes=rng.getrandbits(params.rows * params.q_bits))
                assert clk.get("pulse") == 0
                await clk.edge()

    simulate(PulseBank(params), bench)


@small()
def test_next_phase_may_be_armed_right_after_a_clock_of_rest(params):
    async def bench(clk: Clocked) -> None:
        ones, full = [1] * params.rows, [2**params.q_bits - 1] * params.rows
        for codes in (full, full, ones, full):
            clk.set(codes=pack(codes, params.q_bits), arm=1, integrate=0)
            await clk.edge()
            clk.set(arm=0, integrate=1)
            for lines in word_lines(params, codes):
                assert clk.get("pulse") == lines
                await clk.edge()

            clk.set(integrate=0)
            await clk.edge()

    simulate(PulseBank(params), bench)


@small()
@seeds()
def test_reset_in_mid_phase(params, seed):
    rng = random.Random(seed)

    async def bench(clk: Clocked) -> None:
        for _ in range(8):
            stop = rng.randrange(params.integrate_clk)
            await phase(clk, params, random_codes(params, rng), stop=stop)
            await clk.reset()
            clk.set(integrate=0)
            assert clk.get("pulse") == 0
            await phase(clk, params, random_codes(params, rng))

    simulate(PulseBank(params), bench)


def test_latency_clk():
    # `phase` sees low lines with arm and the first pulse in the next clock.
    assert PulseBank.latency_clk == 1


@pytest.mark.parametrize("code", (0, 1, 14, 15))
def test_reference(code):
    lines = word_lines(SMALL["tiny"], [0, code, 0, 15])
    assert len(lines) == 15
    assert sum(line >> 1 & 1 for line in lines) == code
    assert all(line & 0b101 == 0 and line >> 3 == 1 for line in lines)
