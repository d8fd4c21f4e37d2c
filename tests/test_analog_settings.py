"""Levels, sinks, masks, sub-tile probes, offsets, refresh and leakage in time: two heads agree."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from analog_models import (
    LEVEL_MAX,
    AnalogParams,
    FunctionalHead,
    SteppedHead,
    unpack_bits,
)

TINY = {"subtiles": 2, "columns": 4, "rows": 4, "lanes": 4, "s_sat_ua": 6.0, "a_sat_ua": 3.0}
THREE = {"subtiles": 3, "columns": 5, "rows": 7, "lanes": 3, "s_sat_ua": 9.0, "a_sat_ua": 4.0}
#: 1000 clocks of leakage cost a fifth of the charge, so that a step of age shows.
FAST = {"tau_s": 5e-6, "clk_ns": 1.0}


def says(message: str) -> str:
    return re.escape(message)


class Pair:
    """A stepped and a functional head that are asked the same, on one clock."""

    def __init__(self, params: AnalogParams) -> None:
        self.params = params
        self.stepped, self.closed = SteppedHead(params), FunctionalHead(params)

    def _hold(self, array: str, column: int, codes) -> None:
        write = self.stepped.write_key if array == "key" else self.stepped.write_value
        for _ in range(self.params.write_clk):
            self.stepped.tick()
            write(*divmod(column, self.params.columns), codes)
        self.stepped.end_write(array)

    def write(self, k, v) -> None:
        column, clk = self.closed.pointer, []
        for array, codes in (("key", k), ("value", v)):
            self._hold(array, column, codes)
            clk.append(self.stepped.now_clk)
            self.stepped.tick(3)
        self.closed.write(k, v, now_clk=tuple(clk))

    def rewrite(self, column: int, array: str | None = None) -> None:
        bank = self.stepped.bank
        for name, cells in (("key", bank.keys), ("value", bank.values)):
            if array in (None, name):
                self._hold(name, column, cells.codes[column])
                self.closed.rewrite(column, name, now_clk=self.stepped.now_clk)
                assert cells.written_clk == self.stepped.now_clk

    def query(self, q, *, s_level=None, a_level=None, subtile=None, mask=None):
        """Counts of the stepped head, ``(subtiles, lanes)``, once the other has agreed."""
        params, stepped = self.params, self.stepped
        columns = self.closed.valid if mask is None else self.closed.valid & mask
        stepped.tick()
        stepped.reset_scores()
        for clock in range(params.q_max):
            stepped.tick()
            stepped.integrate_scores(np.asarray(q) > clock)
        stepped.tick()
        phi_clk = np.where(columns, stepped.phi_clk(s_level=s_level), 0.0)
        stepped.reset_outputs()
        for _ in range(params.q_max):
            stepped.tick()
            stepped.convert_scores(columns, s_level=s_level)
        select = None if subtile is None else np.arange(params.subtiles) == subtile
        shown = unpack_bits(stepped.output_signs_packed(), params.subtiles * params.lanes)
        counts = np.zeros((params.subtiles, params.lanes), dtype=int)
        for clock in range(params.count_max):
            stepped.tick()
            if clock % 2:
                words = stepped.read_outputs_packed(a_level=a_level, select=select)
                pulses, signs = (unpack_bits(w, counts.size).reshape(counts.shape) for w in words)
            else:
                pulses, signs = stepped.read_outputs(a_level=a_level, select=select)
            assert (signs.ravel() == shown).all()
            counts += np.where(pulses, np.where(signs, -1, 1), 0)
        clk = stepped.bank.keys.read_clk, stepped.bank.values.read_clk
        levels = {"s_level": s_level, "a_level": a_level}
        result = self.closed.query(q, **levels, subtile=subtile, mask=mask, now_clk=clk)
        assert result.sums.tolist() == counts.sum(axis=0).tolist()
        full = (np.abs(counts) == params.count_max).any(axis=0)
        assert result.full_scale.tolist() == full.tolist()
        closed = self.closed.phi_clk(q, s_level=s_level, mask=mask)
        assert (closed == phi_clk).all()
        return counts


def drawn(params: AnalogParams, rng):
    k = rng.integers(0, params.dac.levels, params.rows)
    v = rng.integers(0, params.dac.levels, params.lanes)
    return rng.integers(0, params.q_max + 1, params.rows), k, v


# --- everything at once -------------------------------------------------------------------------
LEVELS = st.none() | st.integers(1, LEVEL_MAX)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_heads_agree_whatever_is_set(data):
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    leak = data.draw(
        st.sampled_from([{}, {"decay_per_token": 0.04}, FAST | {"tick_clk": 64}, FAST])
    )
    params = AnalogParams(
        subtiles=draw(1, 4), columns=draw(1, 4), rows=draw(1, 8), lanes=draw(1, 4),
        q_bits=draw(1, 4), count_bits=draw(1, 4), write_clk=draw(1, 3),
        s_sat_ua=data.draw(st.sampled_from([5.0, 19.3, 80.0])),
        a_sat_ua=data.draw(st.sampled_from([2.0, 7.1, 40.0])),
        score_offset_sigma_clk=data.draw(st.sampled_from([0.0, 0.7])),
        output_offset_sigma_counts=data.draw(st.sampled_from([0.0, 1.3])),
        offset_seed=draw(0, 5), **leak,
    )  # fmt: skip
    pair, rng = Pair(params), np.random.default_rng(draw(0, 1000))
    for _ in range(draw(1, 2 * params.window + 3)):
        q, k, v = drawn(params, rng)
        pair.closed.sinks = draw(0, params.window - 1)
        pair.write(k, v)
        if draw(0, 9) == 0:
            pair.closed.flush()
            pair.write(k, v)
        if draw(0, 2) == 0:
            array = data.draw(st.sampled_from([None, "key", "value"]))
            pair.rewrite(draw(0, pair.closed.occupancy - 1), array)
        if draw(0, 1):
            pair.query(
                q,
                s_level=data.draw(LEVELS),
                a_level=data.draw(LEVELS),
                subtile=data.draw(st.none() | st.integers(0, params.subtiles - 1)),
                mask=data.draw(st.none() | st.just(rng.random(params.window) < 0.6)),
            )
