"""Column mask against the set of columns that hold a token."""

from __future__ import annotations

import pytest
from test_hw_bench import SMALL, Clocked, simulate, small

from hw.column_mask import ColumnMask
from sim.reference.column_mask import column_mask
from sim.reference.window import window_state


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


def test_latency_clk():
    # Combinational: the test above sets and reads in one clock.
    assert ColumnMask.latency_clk == 0


def test_reference():
    params = SMALL["tiny"]
    assert column_mask(params, []) == 0
    assert column_mask(params, [0, 1, 6]) == 0b0100_0011
    assert column_mask(params, range(8)) == 0xFF
    with pytest.raises(ValueError, match=r"column must be in 0\.\.7, not 8$"):
        column_mask(params, [8])
