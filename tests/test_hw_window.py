"""Window against the history of writes."""

from __future__ import annotations

import random

import pytest
from test_hw_bench import COMPLETE, SMALL, Clocked, elaborated, seeds, simulate, small

from hw.params import HeadParams
from hw.window import Window
from sim.reference.window import window_state

#: Sinks up to a part of a sub-tile, a sub-tile, several, and all columns but one.
PINNING = {
    "tiny": COMPLETE["tiny-complete"],
    "three-subtiles": COMPLETE["three-subtiles-complete"],
    "most": HeadParams(subtiles=2, columns=4, rows=1, lanes=1, sinks=7),
    "most-odd": HeadParams(subtiles=3, columns=3, rows=1, lanes=1, sinks=8),
    "one-subtile": HeadParams(subtiles=1, columns=5, rows=1, lanes=1, sinks=4),
    "two-columns": HeadParams(subtiles=1, columns=2, rows=1, lanes=1, sinks=1),
}
pinning = pytest.mark.parametrize("params", PINNING.values(), ids=PINNING)


def check(clk: Clocked, params, history, sinks=0) -> None:
    state = window_state(params, history, sinks=sinks)
    subtile, column, occupancy, full = clk.get("subtile", "column", "occupancy", "full")
    assert divmod(state.next_column, params.columns) == (subtile, column)
    assert occupancy == state.occupancy
    assert full == (state.occupancy == params.window)
    if params.sinks:
        assert clk.get("active_sinks") == sinks
        assert clk.get("wrap_subtile", "wrap_column") == divmod(sinks, params.columns)


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


@pinning
def test_every_count_of_sinks(params):
    """Two laps and more with each count, flushed in between."""

    async def bench(clk: Clocked) -> None:
        for sinks in range(params.sinks + 1):
            clk.set(sinks=sinks)
            check(clk, params, [], sinks)  # at once, since the window is empty
            clk.set(advance=1)
            history = []
            for _ in range(2 * params.window + 1):
                await clk.edge()
                history.append("write")
                clk.set(sinks=(sinks + len(history)) % (params.sinks + 1))  # too late
                check(clk, params, history, sinks)
            clk.set(advance=0, flush=1)
            await clk.edge()
            clk.set(flush=0)

    simulate(Window(params), bench)


@pinning
@seeds()
def test_random_sinks(params, seed):
    """A sequence keeps the sinks of its first write's clock."""
    rng = random.Random(seed)

    async def bench(clk: Clocked) -> None:
        history, sinks = [], 0
        for _ in range(600):
            advance, flush = rng.random() < 0.8, rng.random() < 0.3 / params.window
            setting = rng.randint(0, params.sinks)
            if not history:
                sinks = setting
            clk.set(advance=advance, flush=flush, sinks=setting)
            check(clk, params, history, sinks)
            if rng.random() < 0.2 / params.window:
                await clk.reset()
                history = []
            else:
                await clk.edge()
                history = [] if flush else [*history, "write"] if advance else history

    simulate(Window(params), bench)


def test_without_sinks_there_are_no_ports():
    plain = elaborated(Window(SMALL["all-one"])).signature.members
    assert set(plain) == {"advance", "flush", "subtile", "column", "occupancy", "full"}
    pinned = elaborated(Window(COMPLETE["tiny-complete"])).signature.members
    assert set(pinned) - set(plain) == {"sinks", "active_sinks", "wrap_subtile", "wrap_column"}


def test_latency_clk():
    # One clock: `test_three_laps_then_flush` looks before and after each edge.
    assert Window.latency_clk == 1


def test_reference_keeps_the_newest():
    params = SMALL["tiny"]
    assert window_state(params, ["write"] * 3).valid == (0, 1, 2)
    assert window_state(params, ["write"] * 10).valid == (2, 3, 4, 5, 6, 7, 0, 1)
    assert window_state(params, ["write"] * 10 + ["flush", "write"]).valid == (0,)


def test_reference_keeps_the_sinks():
    params = COMPLETE["tiny-complete"]
    assert window_state(params, ["write"] * 2, sinks=3).valid == (0, 1)
    state = window_state(params, ["write"] * 10, sinks=3)
    assert (state.valid, state.next_column) == ((0, 1, 2, 5, 6, 7, 3, 4), 5)
    assert window_state(params, ["write"] * 8, sinks=3).next_column == 3
    with pytest.raises(ValueError, match=r"^sinks must be in 0\.\.3, not 4$"):
        window_state(params, [], sinks=4)
