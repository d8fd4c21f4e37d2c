"""Writer against the one column that it should select."""

from __future__ import annotations

from test_hw_bench import SMALL, Clocked, simulate, small

from hw.writer import Writer
from sim.reference.writer import Select, select_lines, selected_columns


@small()
def test_every_column_and_strobe(params):
    async def bench(clk: Clocked) -> None:
        for column in range(params.window):
            subtile, place = divmod(column, params.columns)
            for k_strobe, v_strobe in ((0, 0), (1, 0), (0, 1), (1, 1), (0, 0)):
                clk.set(subtile=subtile, column=place, k_strobe=k_strobe, v_strobe=v_strobe)
                written = column if k_strobe or v_strobe else None
                lines = Select(*clk.get("subtile_select", "column_select"))
                assert lines == select_lines(params, written)
                assert selected_columns(params, lines) == (
                    frozenset() if written is None else {written}
                )
                await clk.edge()

    simulate(Writer(params), bench)


def test_latency_clk():
    # Combinational: the test above sets and reads in one clock.
    assert Writer.latency_clk == 0


def test_reference():
    params = SMALL["tiny"]
    assert select_lines(params, 6) == (0b10, 0b0100)
    assert selected_columns(params, Select(0b11, 0b0100)) == {2, 6}
