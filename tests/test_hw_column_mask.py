"""Column mask against the set of columns that hold a token."""

from __future__ import annotations

import dataclasses
import random

import pytest
from test_hw_bench import COMPLETE, SMALL, Clocked, elaborated, seeds, simulate, small

from hw.column_mask import ColumnMask
from hw.params import HeadParams
from sim.reference.column_mask import column_mask
from sim.reference.window import window_state

AGED = {
    "tiny": COMPLETE["tiny-complete"],
    "three-subtiles": COMPLETE["three-subtiles-complete"],
    "no-sinks": HeadParams(subtiles=3, columns=3, rows=1, lanes=1, age_bits=2),
    "one-subtile": HeadParams(subtiles=1, columns=4, rows=1, lanes=1, age_bits=2, sinks=3),
    "most": HeadParams(subtiles=2, columns=4, rows=1, lanes=1, age_bits=2, sinks=7),
}
aged = pytest.mark.parametrize("params", AGED.values(), ids=AGED)


@small()
def test_every_state_of_the_window(params):
    """Every occupancy from empty, and every pointer of a full window."""

    async def bench(clk: Clocked) -> None:
        for writes in range(2 * params.window + 1):
            state = window_state(params, ["write"] * writes)
            subtile, column = divmod(state.next_column, params.columns)
            clk.set(subtile=subtile, column=column, full=state.occupancy == params.window)
            assert clk.get("mask") == column_mask(params, state.valid), f"after {writes} writes"
            await clk.edge()

    simulate(ColumnMask(params), bench)


def stale_columns(params, state, bits) -> set[int]:
    """Columns that the stale bits call so."""
    stale, lap_stale, sink_stale, sinks = bits
    pointer = state.next_column
    found = set()
    for column in range(params.window):
        subtile = column // params.columns
        behind = subtile == pointer // params.columns and column < pointer
        if column < sinks:
            past = sink_stale
        else:
            past = stale >> subtile & 1 and (lap_stale or not behind)
        found |= {column} if past else set()
    return found


@aged
@seeds()
def test_stale_columns(params, seed):
    """Any stale bits in every state of the window, masked and not."""
    rng = random.Random(seed)

    async def bench(clk: Clocked) -> None:
        for writes in range(2 * params.window + 1):
            for _ in range(4):
                sinks = rng.randint(0, params.sinks)
                state = window_state(params, ["write"] * writes, sinks=sinks)
                subtile, column = divmod(state.next_column, params.columns)
                clk.set(subtile=subtile, column=column, full=state.occupancy == params.window)
                stale, lap, sink = (rng.getrandbits(n) for n in (params.subtiles, 1, 1))
                clk.set(stale=stale, lap_stale=lap)
                if params.sinks:
                    clk.set(active_sinks=sinks, sink_stale=sink)
                past = stale_columns(params, state, (stale, lap, sink, sinks))
                for age_mask in (0, 1):
                    clk.set(age_mask=age_mask)
                    expected = column_mask(params, state.valid, past if age_mask else ())
                    assert clk.get("mask") == expected, f"after {writes} writes"
                await clk.edge()

    simulate(ColumnMask(params), bench)


def test_without_ages_there_are_no_ports():
    plain = elaborated(ColumnMask(SMALL["all-one"])).signature.members
    assert set(plain) == {"subtile", "column", "full", "mask"}
    pinned = elaborated(
        ColumnMask(dataclasses.replace(SMALL["all-one"], sinks=1))
    ).signature.members
    assert set(pinned) == set(plain)


def test_latency_clk():
    # Combinational: the test above sets and reads in one clock.
    assert ColumnMask.latency_clk == 0


def test_reference():
    params = SMALL["tiny"]
    assert column_mask(params, []) == 0
    assert column_mask(params, [0, 1, 6]) == 0b0100_0011
    assert column_mask(params, range(8)) == 0xFF
    assert column_mask(params, [0, 1, 6], [1, 2]) == 0b0100_0001
    with pytest.raises(ValueError, match=r"column must be in 0\.\.7, not 8$"):
        column_mask(params, [8])
