"""Window against the history of writes."""

from __future__ import annotations

import random

import pytest
from test_hw_bench import SMALL, Clocked, seeds, simulate, small

from hw.window import Window
from sim.reference.window import window_state


def check(clk: Clocked, params, history) -> None:
    state = window_state(params, history)
    subtile, column, occupancy, full = clk.get("subtile", "column", "occupancy", "full")
    assert divmod(state.next_column, params.columns) == (subtile, column)
    assert occupancy == state.occupancy
    assert full == (state.occupancy == params.window)


@small()
def test_three_laps_then_flush(params):
    async def bench(clk: Clocked) -> None:
        history = []
        check(clk, params, history)
        for _ in range(3 * params.window + 1):
            clk.set(advance=1)
            check(clk, params, history)  # outputs follow after `latency_clk` clocks, not before
            await clk.edge()
            history.append("write")
            check(clk, params, history)
            clk.set(advance=0)
            await clk.edge()
            check(clk, params, history)
        clk.set(flush=1)
        check(clk, params, history)
        await clk.edge()
        clk.set(flush=0)
        check(clk, params, [])

    simulate(Window(params), bench)


@small()
@pytest.mark.parametrize("writes", ("none", "one", "subtile", "last", "full", "wrapped"))
def test_flush_wins_over_advance(params, writes):
    count = {
        "none": 0, "one": 1, "subtile": params.columns, "last": params.window - 1,
        "full": params.window, "wrapped": 2 * params.window - 1,
    }[writes]  # fmt: skip

    async def bench(clk: Clocked) -> None:
        clk.set(advance=1)
        for _ in range(count):
            await clk.edge()
        check(clk, params, ["write"] * count)
        clk.set(flush=1)
        await clk.edge()
        check(clk, params, [])
        clk.set(flush=0)
        await clk.edge()
        check(clk, params, ["write"])

    simulate(Window(params), bench)


@small()
@seeds()
def test_random_history(params, seed):
    rng = random.Random(seed)

    async def bench(clk: Clocked) -> None:
        history = []
        for _ in range(400):
            advance, flush = rng.random() < 0.7, rng.random() < 0.5 / params.window
            clk.set(advance=advance, flush=flush)
            if rng.random() < 0.25 / params.window:
                await clk.reset()
                history = []
            else:
                await clk.edge()
                if flush:
                    history.append("flush")
                elif advance:
                    history.append("write")
            check(clk, params, history)

    simulate(Window(params), bench)


def test_latency_clk():
    # One clock: `test_three_laps_then_flush` looks before and after each edge.
    assert Window.latency_clk == 1


def test_reference_keeps_the_newest():
    params = SMALL["tiny"]
    assert window_state(params, ["write"] * 3).valid == (0, 1, 2)
    assert window_state(params, ["write"] * 10).valid == (2, 3, 4, 5, 6, 7, 0, 1)
    assert window_state(params, ["write"] * 10 + ["flush", "write"]).valid == (0,)
