"""Code store against what was written last to each column."""

from __future__ import annotations

import dataclasses
import random

import pytest
from test_hw_bench import HEADS, Clocked, elaborated, seeds, simulate

from hw.code_store import CodeStore
from hw.params import HeadParams
from sim.reference.code_store import CodeCopy

SIZES = {
    **{name: HEADS[f"{name}-complete"] for name in ("tiny", "three-subtiles", "slow-write")},
    "one-subtile": HeadParams(subtiles=1, columns=5, rows=3, lanes=2, refresh=True),
    "rows-and-lanes": HeadParams(subtiles=2, columns=3, rows=5, lanes=1, kv_bits=2, refresh=True),
}
sizes = pytest.mark.parametrize("params", SIZES.values(), ids=SIZES)
WIDTHS = {"k": "rows", "v": "lanes"}


@sizes
@seeds()
def test_random(params, seed):
    rng = random.Random(seed)
    columns = [(s, c) for s in range(params.subtiles) for c in range(params.columns)]

    async def bench(clk: Clocked) -> None:
        copies = {array: CodeCopy() for array in WIDTHS}
        for _ in range(500):
            (subtile, column), (read_subtile, read_column) = (
                rng.choice(columns),
                (rng.choice(columns)),
            )
            clk.set(
                subtile=subtile, column=column, read_subtile=read_subtile, read_column=read_column
            )
            for array, copy in copies.items():
                bits = getattr(params, WIDTHS[array]) * params.kv_bits
                codes = rng.getrandbits(bits)
                write, read = rng.random() < 0.3, rng.random() < 0.3
                read = read and not (write and (subtile, column) == (read_subtile, read_column))
                clk.set(**{f"{array}_codes": codes, f"{array}_write": write, f"{array}_read": read})
                if read:
                    copy.read(read_subtile, read_column)
                if write:
                    copy.write(subtile, column, codes)
            await clk.edge()
            for array, copy in copies.items():
                if copy.out is not None:
                    assert clk.get(f"{array}_out") == copy.out

    simulate(CodeStore(params), bench)


@sizes
def test_every_column_keeps_its_own(params):
    """Every bit of every word, and reset forgets no code."""
    rng = random.Random(5)

    async def bench(clk: Clocked) -> None:
        columns = [(s, c) for s in range(params.subtiles) for c in range(params.columns)]
        for invert in (False, True):
            copies = {array: CodeCopy() for array in WIDTHS}
            if not invert:
                patterns = {at: rng.getrandbits(300) for at in columns}
            for at in columns:
                for array, copy in copies.items():
                    bits = getattr(params, WIDTHS[array]) * params.kv_bits
                    mask = (1 << bits) - 1
                    copy.write(*at, (patterns[at] ^ -invert) >> (array == "v") & mask)
                    copy.read(*at)
                    clk.set(**{f"{array}_codes": copy.out, f"{array}_write": 1})
                clk.set(subtile=at[0], column=at[1])
                await clk.edge()
            clk.set(k_write=0, v_write=0)
            await clk.reset()
            for at in reversed(columns):
                clk.set(read_subtile=at[0], read_column=at[1], k_read=1, v_read=1)
                await clk.edge()
                for array, copy in copies.items():
                    copy.read(*at)
                    assert clk.get(f"{array}_out") == copy.out
            # What was read stays.
            clk.set(read_subtile=columns[-1][0], read_column=columns[-1][1], k_read=0, v_read=0)
            await clk.edge()
            assert clk.get("k_out", "v_out") == (copies["k"].out, copies["v"].out)

    simulate(CodeStore(params), bench)


@pytest.mark.parametrize(
    ("subtiles", "columns", "depth"), ((2, 4, 8), (3, 5, 24), (1, 5, 8), (16, 64, 1024))
)
def test_depth(subtiles, columns, depth):
    params = dataclasses.replace(SIZES["one-subtile"], subtiles=subtiles, columns=columns)
    assert elaborated(CodeStore(params)).depth == depth


def test_latency_clk():
    # One clock: the tests above look after each edge.
    assert CodeStore.latency_clk == 1
