"""Heads and sequences: the three speeds against each other and against plain loops."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import analog_models.functional as functional
from analog_models import (
    CELLS,
    AnalogParams,
    AnalogProtocolError,
    Dac,
    FunctionalHead,
    SteppedHead,
    TabulatedCell,
    attend,
    pack_bits,
    unpack_bits,
)

VECTORS = Path(__file__).parents[1].parent / "shared" / "reference" / "published_vectors.npz"
needs_vectors = pytest.mark.skipif(not VECTORS.exists(), reason="published vectors are absent")


def says(message: str) -> str:
    return re.escape(message)


def codes_of(params: AnalogParams, tokens: int, seed: int):
    rng = np.random.default_rng(seed)
    q = rng.integers(0, params.q_max + 1, (tokens, params.rows))
    k = rng.integers(0, params.dac.levels, (tokens, params.rows))
    v = rng.integers(0, params.dac.levels, (tokens, params.lanes))
    if seed % 2:  # saturating sequences: alike queries and keys, values at the rails
        k = np.where(k > 2, params.dac.levels - 1, k)
        v = np.where(v % 2, 0, params.dac.levels - 1)
    return q, k, v


def write(head: SteppedHead, token: int, k, v) -> None:
    subtile, column = divmod(token % head.params.window, head.params.columns)
    for _ in range(head.params.write_clk):
        head.write_key(subtile, column, k)
    head.end_write()
    for _ in range(head.params.write_clk):
        head.write_value(subtile, column, v)
    head.end_write()


def integrate(head: SteppedHead, q) -> None:
    head.reset_scores()
    for clock in range(head.params.q_max):
        head.integrate_scores(np.asarray(q) > clock)


def convert(head: SteppedHead, mask) -> None:
    head.reset_outputs()
    for _ in range(head.params.q_max):
        head.convert_scores(mask)


def read(head: SteppedHead):
    """Count pulses as the digital side does; every other clock through the packed form."""
    params = head.params
    counts = np.zeros((params.subtiles, params.lanes), dtype=np.int64)
    for clock in range(params.count_max):
        if clock % 2:
            pulses, signs = (
                unpack_bits(word, params.subtiles * params.lanes).reshape(counts.shape)
                for word in head.read_outputs_packed()
            )
        else:
            pulses, signs = head.read_outputs()
        counts += np.where(pulses, np.where(signs, -1, 1), 0)
    return counts


def occupied(params: AnalogParams, tokens: int):
    return np.arange(params.window) < tokens


def ask(head: SteppedHead, q, tokens: int):
    integrate(head, q)
    convert(head, occupied(head.params, tokens))
    return read(head)


def sequence_of_sums(params: AnalogParams, q, k, v):
    """The same codes through `attend`, back as integers, and its scores."""
    levels_v = params.dac.levels_v
    result = attend(
        q / params.q_max,
        levels_v[k],
        levels_v[v],
        cell=params.cell,
        window=params.window,
        decay_per_token=params.decay_per_token,
        decay_law=params.decay_law,
        columns=params.columns,
        s_sat_ua=params.s_sat_ua,
        a_sat_ua=params.a_sat_ua,
        q_bits=params.q_bits,
        kv_bits=params.kv_bits,
        count_bits=params.count_bits,
    )
    sums = result.out * params.count_max
    assert np.abs(sums - np.rint(sums)).max() < 1e-9
    return np.rint(sums).astype(int), result


def check_all_speeds(params: AnalogParams, tokens: int, seed: int) -> None:
    q, k, v = codes_of(params, tokens, seed)
    stepped, closed = SteppedHead(params), FunctionalHead(params)
    sums, _ = sequence_of_sums(params, q, k, v)
    for token in range(tokens):
        write(stepped, token, k[token], v[token])
        closed.write(k[token], v[token])
        counts = ask(stepped, q[token], token + 1)
        result = closed.query(q[token])
        assert counts.sum(axis=0).tolist() == result.sums.tolist() == sums[token].tolist()
        limit = (np.abs(counts) == params.count_max).any(axis=0)
        assert limit.tolist() == result.full_scale.tolist()


TINY = {"subtiles": 2, "columns": 4, "rows": 4, "lanes": 4}
SHAPES = {
    "tiny": TINY,
    "one-subtile": {"subtiles": 1, "columns": 16, "rows": 16, "lanes": 16},
    "three-subtiles": {"subtiles": 3, "columns": 5, "rows": 16, "lanes": 9},
    "rows-lanes": {"subtiles": 2, "columns": 8, "rows": 80, "lanes": 65},
    "other-widths": {
        "subtiles": 3,
        "columns": 4,
        "rows": 8,
        "lanes": 8,
        "q_bits": 3,
        "kv_bits": 2,
        "count_bits": 5,
        "write_clk": 7,
    },
    "one-token": {"subtiles": 1, "columns": 1, "rows": 3, "lanes": 2},
}


# --- one speed against another ------------------------------------------------------------------
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "decay", [{}, {"decay_per_token": 0.03}, {"decay_per_token": 0.05, "decay_law": "current"}]
)
def test_three_speeds_agree(name, cell, decay):
    params = AnalogParams(**SHAPES[name], cell=cell, s_sat_ua=6.0, a_sat_ua=3.0, **decay)
    for seed in (0, 1):
        check_all_speeds(params, min(3 * params.window + 2, 40), seed)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_three_speeds_agree_on_any_head(data):
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    params = AnalogParams(
        subtiles=draw(1, 5), columns=draw(1, 6), rows=draw(1, 12), lanes=draw(1, 6),
        q_bits=draw(1, 5), kv_bits=draw(1, 4), count_bits=draw(1, 5), write_clk=draw(1, 3),
        s_sat_ua=data.draw(st.sampled_from([0.7, 5.0, 19.3, 80.0])),
        a_sat_ua=data.draw(st.sampled_from([0.3, 2.0, 7.1, 40.0])),
        cell=data.draw(st.sampled_from(sorted(CELLS))),
        decay_per_token=data.draw(st.sampled_from([0.0, 1e-4, 0.2, 1.0])),
        decay_law=data.draw(st.sampled_from(["voltage", "current"])),
    )  # fmt: skip
    check_all_speeds(params, draw(1, 3 * params.window + 2), draw(0, 1000))


def test_default_head_agrees():
    params = AnalogParams()
    tokens = params.window + 150
    q, k, v = codes_of(params, tokens, 4)
    sums, _ = sequence_of_sums(params, q, k, v)
    stepped, closed = SteppedHead(params), FunctionalHead(params)
    for token in range(tokens):
        write(stepped, token, k[token], v[token])
        closed.write(k[token], v[token])
        if token % 97 == 0 or token >= tokens - 3:
            counts = ask(stepped, q[token], token + 1).sum(axis=0)
            assert counts.tolist() == closed.query(q[token]).sums.tolist()
            assert counts.tolist() == sums[token].tolist()
    assert len(np.unique(sums)) > 50


@pytest.mark.parametrize("queries", [1, 7, 64])
def test_block_size_does_not_show(monkeypatch, queries):
    rng = np.random.default_rng(7)
    q, k, v = rng.random((150, 9)), 0.9 * rng.random((150, 9)), 0.9 * rng.random((150, 5))
    kwargs = {"window": 70, "columns": 20, "s_sat_ua": 10.0, "a_sat_ua": 4.0}
    before = attend(q, k, v, **kwargs)
    monkeypatch.setattr(functional, "_QUERIES", queries)
    after = attend(q, k, v, **kwargs)
    for a, b in zip(before, after, strict=True):
        assert (a == b).all()


# --- against loops ------------------------------------------------------------------------------
def loops_exact(params: AnalogParams, q, k, v):
    """The numbers contract in rational arithmetic, token by token and cell by cell."""
    cell, levels_v = CELLS[params.cell], params.dac.levels_v

    def current(code: int, age: int) -> Fraction:
        fade = math.exp(-age * params.decay_per_token)
        if params.decay_law == "current":
            i_ua = fade * float(cell.current_ua(levels_v[code]))
        else:
            i_ua = float(cell.current_ua(0.45 + (levels_v[code] - 0.45) * fade))
        return Fraction(round(i_ua * 2**16), 2**16)

    tokens = len(q)
    scores = np.zeros((tokens, tokens))
    sums = np.zeros((tokens, params.lanes), dtype=int)
    for i in range(tokens):
        charge = {}
        for j in range(max(0, i - params.window + 1), i + 1):
            score = sum(int(a) * current(b, i - j) for a, b in zip(q[i], k[j], strict=True))
            scores[i, j] = float(score) / params.q_max
            share = min(max(score / Fraction(params.s_sat_ua), 0), params.q_max)
            phi = Fraction(round(share * 2**18), 2**18)
            subtile = j % params.window // params.columns
            for lane in range(params.lanes):
                key = subtile, lane
                charge[key] = charge.get(key, 0) + phi * current(v[j, lane], i - j)
        for (_, lane), q_a in charge.items():
            x = q_a * params.count_max / (params.q_max * Fraction(params.a_sat_ua))
            count = min(math.floor(abs(x) + Fraction(1, 2)), params.count_max)
            sums[i, lane] += count if x > 0 else -count
    return scores, sums


@pytest.mark.parametrize("cell", ["published", "published-linear", "published-levels"])
@pytest.mark.parametrize("law", ["voltage", "current"])
@pytest.mark.parametrize("decay", [0.0, 0.04])
def test_quantised_sequence_equals_rational_loops(cell, law, decay):
    params = AnalogParams(
        subtiles=3,
        columns=3,
        rows=5,
        lanes=4,
        s_sat_ua=5.0,
        a_sat_ua=4.0,
        cell=cell,
        decay_per_token=decay,
        decay_law=law,
    )
    q, k, v = codes_of(params, 25, 3)
    scores, expected = loops_exact(params, q, k, v)
    sums, result = sequence_of_sums(params, q, k, v)
    assert (sums == expected).all()
    assert (result.s_ua == scores).all()
    assert result.phi == pytest.approx(np.clip(scores / 5.0, 0, 1), abs=2**-18 / 15)
    assert len(np.unique(sums)) > 8


def loops_real(q, k, v, cell, window, columns, decay, law, s_sat_ua, a_sat_ua):
    tokens = len(q)
    s_ua, phi = np.zeros((tokens, tokens)), np.zeros((tokens, tokens))
    charge = np.zeros((tokens, -(-window // columns), v.shape[1]))
    for i in range(tokens):
        for j in range(max(0, i - window + 1), i + 1):
            fade = math.exp(-(i - j) * decay)
            if law == "current":
                k_ua, v_ua = fade * cell.current_ua(k[j]), fade * cell.current_ua(v[j])
            else:
                k_ua = cell.current_ua(0.45 + (k[j] - 0.45) * fade)
                v_ua = cell.current_ua(0.45 + (v[j] - 0.45) * fade)
            s_ua[i, j] = q[i] @ k_ua
            phi[i, j] = min(max(s_ua[i, j] / s_sat_ua, 0), 1)
            charge[i, j % window // columns] += phi[i, j] * v_ua
    return s_ua, phi, np.clip(charge / a_sat_ua, -1, 1).sum(axis=1)


@pytest.mark.parametrize("cell", ["published", "published-linear", "published-levels"])
@pytest.mark.parametrize(("decay", "law"), [(0.0, "voltage"), (0.03, "voltage"), (0.03, "current")])
@pytest.mark.parametrize(
    ("window", "columns"), [(None, 8), (1, 8), (5, 8), (8, 3), (16, 4), (13, 1)]
)
def test_real_sequence_equals_loops(cell, decay, law, window, columns):
    rng = np.random.default_rng(11)
    q, k, v = rng.random((33, 7)), 0.9 * rng.random((33, 7)), 0.9 * rng.random((33, 6))
    got = attend(
        q,
        k,
        v,
        cell=cell,
        window=window,
        columns=columns,
        decay_per_token=decay,
        decay_law=law,
        quantise=False,
        s_sat_ua=12.0,
        a_sat_ua=6.0,
    )
    expected = loops_real(q, k, v, CELLS[cell], window or 33, columns, decay, law, 12.0, 6.0)
    for name, a, b in zip(got._fields, got, expected, strict=True):
        assert a == pytest.approx(b, abs=1e-10), name


def test_grid_cell_in_a_sequence():
    v_store_v = np.linspace(0, 0.9, 19)
    cell = TabulatedCell(v_store_v, CELLS["published"].current_ua(v_store_v))
    rng = np.random.default_rng(5)
    q, k, v = rng.random((20, 7)), 0.9 * rng.random((20, 7)), 0.9 * rng.random((20, 6))
    for quantise in (False, True):
        kwargs = {"quantise": quantise, "decay_per_token": 0.01, "window": 9, "columns": 4}
        table, fit = attend(q, k, v, cell=cell, **kwargs), attend(q, k, v, **kwargs)
        assert table.s_ua == pytest.approx(fit.s_ua, abs=1e-3)  # a cubic spline of a cubic


@pytest.mark.parametrize("quantise", [True, False])
def test_nothing_leaks_from_what_is_not_attended(quantise):
    rng = np.random.default_rng(1)
    q, k, v = rng.random((90, 8)), 0.9 * rng.random((90, 8)), 0.9 * rng.random((90, 8))
    result = attend(q, k, v, window=20, columns=6, quantise=quantise)
    age = np.arange(90)[:, None] - np.arange(90)[None]
    hidden = (age < 0) | (age >= 20)
    assert (result.s_ua[hidden] == 0).all()
    assert (result.phi[hidden] == 0).all()
    assert (result.s_ua[~hidden] != 0).all()
    assert result.phi.min() >= 0
    assert result.phi.max() <= 1


def test_each_subtile_saturates_by_itself():
    ones = np.ones((8, 40))
    result = attend(
        ones, 0.9 * ones, 0.9 * ones, columns=2, quantise=False, s_sat_ua=1.0, a_sat_ua=5.0
    )
    # phi is 1 everywhere; one token gives 9.97 µA and saturates its sub-tile.
    assert result.out[:, 0].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]


def test_dtypes():
    rng = np.random.default_rng(2)
    q, k, v = rng.random((70, 8)), 0.9 * rng.random((70, 8)), 0.9 * rng.random((70, 8))
    small = [x.astype(np.float32) for x in (q, k, v)]
    for quantise, arrays, dtype in (
        (False, small, np.float32),
        (False, (q, *small[1:]), np.float64),
        (False, (q, k, v), np.float64),
        (True, small, np.float64),
    ):
        assert {x.dtype for x in attend(*arrays, quantise=quantise)} == {np.dtype(dtype)}
    exact, single = attend(q, k, v, quantise=False), attend(*small, quantise=False)
    for a, b in zip(exact, single, strict=True):
        assert b == pytest.approx(a, abs=2e-5)
    for decay_law in ("voltage", "current"):
        kwargs = {"quantise": False, "decay_per_token": 0.01, "decay_law": decay_law}
        a, b = attend(q, k, v, **kwargs), attend(*small, **kwargs)
        assert b.out.dtype == np.float32
        assert b.out == pytest.approx(a.out, abs=2e-5)
    # The top of the range in single precision, and lists of integers.
    full = np.full((2, 3), 0.9, dtype=np.float32)
    assert attend([[1, 0, 1], [0, 1, 1]], full, full).out.shape == (2, 3)


def test_rounding_to_codes():
    rng = np.random.default_rng(3)
    q, k, v = rng.random((30, 8)), 0.9 * rng.random((30, 8)), 0.9 * rng.random((30, 8))
    levels_v = Dac().levels_v
    rounded = np.rint(q * 15) / 15, levels_v[np.rint(k / 0.9 * 7).astype(int)], v
    for a, b in zip(attend(q, k, v), attend(*rounded), strict=True):
        assert (a == b).all()


# --- published vectors --------------------------------------------------------------------------
@needs_vectors
@pytest.mark.parametrize("run", range(6))
def test_published_vectors(run):
    with np.load(VECTORS) as vectors:
        data = {name: vectors[name][run].astype(np.float64) for name in vectors}
    ideal = attend(data["Q"], data["K"], data["V"], quantise=False)
    faded = attend(data["Q"], data["K"], data["V"], quantise=False, decay_law="current",
                   decay_per_token=1e-4)  # fmt: skip
    # Although their description says otherwise, these vectors hold a decay of the current by
    # 1e-4 per token: with it the model meets them thousands of times closer than without.
    assert np.abs(faded.s_ua - data["S"]).max() <= 2e-4
    assert np.abs(faded.phi - data["phi_S"]).max() <= 1e-5
    assert np.abs(faded.out - data["output"]).max() <= 1e-4
    assert 0.1 < np.abs(ideal.s_ua - data["S"]).max() <= 0.44
    assert np.abs(ideal.out - data["output"]).max() <= 0.0076


# --- stepped: pulses and protocol ---------------------------------------------------------------
def tiny_head(**kwargs) -> SteppedHead:
    return SteppedHead(AnalogParams(**TINY, s_sat_ua=6.0, a_sat_ua=3.0, **kwargs))


K7, K0 = np.full(4, 7), np.full(4, 0)
ALL, NONE = np.ones(8, dtype=bool), np.zeros(8, dtype=bool)


def test_masked_columns_give_nothing():
    head = tiny_head()
    write(head, 0, K7, K7)
    integrate(head, [15] * 4)
    convert(head, NONE)
    assert (read(head) == 0).all()
    integrate(head, [15] * 4)
    convert(head, ALL)  # empty columns are at the top level and show
    assert (read(head)[1] == 15).all()


def test_mask_acts_clock_by_clock():
    head = tiny_head()
    write(head, 0, K7, K7)
    only = occupied(head.params, 1)
    integrate(head, [15] * 4)
    head.reset_outputs()
    for clock in range(15):
        head.convert_scores(only if clock < 5 else NONE)
    i_ua = head.params.level_currents.fresh[7]
    assert head.bank.values.charge()[0].tolist() == [5 * i_ua] * 4


def test_pulses_are_high_first_and_signed():
    head = tiny_head()
    write(head, 0, K7, np.array([0, 3, 4, 7]))
    integrate(head, [1, 2, 0, 1])
    convert(head, occupied(head.params, 1))
    waves = np.array([head.read_outputs()[0] for _ in range(15)])
    assert (np.diff(waves.astype(int), axis=0) <= 0).all()
    integrate(head, [1, 2, 0, 1])
    convert(head, occupied(head.params, 1))
    _, signs = head.read_outputs()
    assert signs[0].tolist() == [True, True, False, False]


def test_integrators_add_until_reset():
    head = tiny_head()
    write(head, 0, K7, K7)
    i_ua = head.params.level_currents.fresh[7]
    line = np.array([True, False, False, False])
    head.reset_scores()
    head.integrate_scores(line)
    assert head.bank.keys.charge()[0] == i_ua
    head.integrate_scores(line)
    assert head.bank.keys.charge()[0] == 2 * i_ua
    head.reset_scores()
    assert head.bank.keys.charge()[0] == 0


def test_sample_survives_the_next_integration():
    """Ping-pong: integrators are reset and reused while their sample is still converted."""
    params = AnalogParams(**SHAPES["three-subtiles"], s_sat_ua=6.0, a_sat_ua=3.0)
    q, k, v = codes_of(params, 15, 5)
    plain, pipelined = SteppedHead(params), SteppedHead(params)
    for token in range(15):
        for head in (plain, pipelined):
            write(head, token, k[token], v[token])
    mask = occupied(params, 15)
    expected = [ask(plain, q[i], 15) for i in range(4)]
    got = []
    for i in range(6):  # stage i: integrate i, convert i-1, read i-2, all in the same clocks
        counts = np.zeros((params.subtiles, params.lanes), dtype=int)
        for clock in range(15):
            if 2 <= i:
                pulses, signs = pipelined.read_outputs()
                counts += np.where(pulses, np.where(signs, -1, 1), 0)
            if clock == 0 and 1 <= i:
                pipelined.reset_outputs()
            if 1 <= i <= 4:
                pipelined.convert_scores(mask)
            if clock == 0:
                pipelined.reset_scores()
            if i < 4:
                pipelined.integrate_scores(q[i] > clock)
        if 2 <= i:
            got.append(counts)
    for a, b in zip(got, expected, strict=True):
        assert (a == b).all()


# --- stepped: two sets of integrators -----------------------------------------------------------
def overlapped(head: SteppedHead, queries, mask, rng, gap_clk: int = 1):
    """Counts of queries whose phases overlap, as the streaming schedule has them.

    Query n integrates on set n % 2 while n - 1 is converted and n - 2 is read, clock by clock; the
    calls of a clock come in any order.
    """
    params = head.params
    phase = gap_clk + max(params.q_max, params.count_max)
    counts = np.zeros((len(queries), params.subtiles, params.lanes), dtype=int)

    def integrate_stage(n: int, clock: int) -> None:
        if clock == gap_clk - 1:
            head.reset_scores(n % 2)
        elif 0 <= clock - gap_clk < params.q_max:
            head.integrate_scores(np.asarray(queries[n]) > clock - gap_clk, n % 2)

    def convert_stage(n: int, clock: int) -> None:
        if clock == gap_clk - 1:
            head.reset_outputs(n % 2)
        elif 0 <= clock - gap_clk < params.q_max:
            head.convert_scores(mask, n % 2)

    def read_stage(n: int, clock: int) -> None:
        if 0 <= clock - gap_clk < params.count_max:
            pulses, signs = head.read_outputs(n % 2)
            counts[n] += np.where(pulses, np.where(signs, -1, 1), 0)

    stages = (integrate_stage, convert_stage, read_stage)
    for step in range(len(queries) + 2):
        for clock in range(phase):
            for behind in rng.permutation(3):
                if 0 <= step - behind < len(queries):
                    stages[behind](step - behind, clock)
    return counts


@pytest.mark.parametrize("gap_clk", [1, 3])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_overlapped_phases_on_two_banks(name, decay, gap_clk):
    """The same integers as one phase after another, on one set of integrators or on either."""
    params = AnalogParams(**SHAPES[name], s_sat_ua=6.0, a_sat_ua=3.0, decay_per_token=decay)
    tokens = min(2 * params.window + 1, 25)
    q, k, v = codes_of(params, tokens, 6)
    heads = SteppedHead(params), SteppedHead(params)
    for token in range(tokens):
        for head in heads:
            write(head, token, k[token], v[token])
    mask = occupied(params, tokens)
    expected = np.array([ask(heads[0], one, tokens) for one in q])
    got = overlapped(heads[1], q, mask, np.random.default_rng(8), gap_clk)
    assert (got == expected).all()
    assert len(np.unique(expected)) > 3


def charges(head: SteppedHead, array: str, bank: int):
    cells = head.bank.keys if array == "key" else head.bank.values
    return cells.charge(bank).copy()


@pytest.mark.parametrize("looked_at", [False, True])
@pytest.mark.parametrize("bank", [0, 1])
@pytest.mark.parametrize("array", ["key", "value"])
def test_reset_of_one_bank_leaves_the_other(array, bank, looked_at):
    """Whether its charge has been settled or is on-time that is still to be counted."""
    head, other = tiny_head(), 1 - bank
    write(head, 0, K7, np.array([0, 3, 4, 7]))
    lines = np.array([True, True, False, False])
    for one in (0, 1):
        head.reset_scores(one)
        for _ in range(3 + one):
            head.integrate_scores(lines, one)
        head.reset_outputs(one)
        for _ in range(2 + one):
            head.convert_scores(ALL, one)
    reset = head.reset_scores if array == "key" else head.reset_outputs
    arrays = ("key", "value")
    twin = [charges(head, name, other) for name in arrays] if looked_at else None
    held = charges(head, "value" if array == "key" else "key", bank) if looked_at else None
    reset(bank)
    assert (charges(head, array, bank) == 0).all()
    fresh = head.params.level_currents.fresh
    assert charges(head, "key", other)[0] == (3 + other) * 2 * fresh[7]
    assert (charges(head, "value", other) != 0).any()
    if looked_at:
        for name, charge in zip(arrays, twin, strict=True):
            assert (charges(head, name, other) == charge).all()
        untouched = "value" if array == "key" else "key"
        assert (charges(head, untouched, bank) == held).all()


def test_each_bank_integrates_its_own():
    """Clocks that take turns: each set gets what was on while it was selected."""
    head = tiny_head()
    write(head, 0, K7, K7)
    i_ua = head.params.level_currents.fresh[7]
    lines = [np.array([True, False, False, False]), np.array([True, True, True, False])]
    for bank in (0, 1):
        head.reset_scores(bank)
    for clock in range(10):
        for bank in (0, 1):
            if clock % 3 or bank:
                head.integrate_scores(lines[bank], bank)
    assert charges(head, "key", 0)[0] == 6 * i_ua
    assert charges(head, "key", 1)[0] == 30 * i_ua
    # A set that rests keeps its charge while a cell is rewritten and the other set goes on.
    for _ in range(4):
        head.integrate_scores(lines[0], 0)
        head.write_key(0, 0, K0)
    head.end_write()
    head.integrate_scores(lines[0], 0)
    i_0_ua = head.params.level_currents.fresh[0]
    assert charges(head, "key", 0)[0] == 10 * i_ua + i_0_ua
    assert charges(head, "key", 1)[0] == 30 * i_ua


def test_what_a_bank_shows():
    """Phi, signs and pulses of either set, while the other holds the opposite."""
    head = tiny_head()
    top = head.params.q_max
    write(head, 0, K7, np.array([0, 0, 7, 7]))
    write(head, 1, K7, np.array([7, 7, 0, 0]))
    for bank, codes in ((0, [15] * 4), (1, [1, 0, 0, 0])):
        head.reset_scores(bank)
        for clock in range(top):
            head.integrate_scores(np.array(codes) > clock, bank)
    assert head.phi_clk(0)[0] == top > head.phi_clk(1)[0] > 0
    for bank in (0, 1):
        head.reset_outputs(bank)
    for bank in (0, 1):  # the call selects the set, not the reset before it
        for _ in range(top):
            head.convert_scores(np.arange(8) == bank, bank)
    signs = [0b0011, 0b1100]
    assert [head.output_signs_packed(bank) for bank in (0, 1)] == signs
    pulses = {}
    for bank in (1, 0):
        words = [head.read_outputs_packed(bank) for _ in range(head.params.count_max)]
        assert {sign for _, sign in words} == {signs[bank]}
        pulses[bank] = [word.bit_count() for word, _ in words]
    assert sum(pulses[0]) == 4 * 15 > sum(pulses[1]) > 0


def test_reset_discharges_both_banks():
    head = tiny_head()
    write(head, 0, K7, K7)
    for bank in (0, 1):
        head.reset_scores(bank)
        head.integrate_scores(np.ones(4, dtype=bool), bank)
        head.reset_outputs(bank)
        head.convert_scores(ALL, bank)
    head.reset()
    for bank in (0, 1):
        for array in ("key", "value"):
            assert (charges(head, array, bank) == 0).all()


# --- stepped: writes ----------------------------------------------------------------------------
@pytest.mark.parametrize("array", ["key", "value"])
def test_a_write_during_an_integration_mixes(array):
    head = tiny_head()
    fresh = head.params.level_currents.fresh
    write(head, 0, K7, K7)
    if array == "key":
        head.reset_scores()
        for clock in range(15):
            head.integrate_scores(np.ones(4, dtype=bool))
            if clock < 4:
                head.write_key(0, 0, K0)
        head.end_write()
        # The cells change in the fourth clock of the write, after that clock's charge.
        assert head.bank.keys.charge()[0] == 4 * (4 * fresh[7] + 11 * fresh[0])
        assert head.bank.keys.charge()[1] == 4 * 15 * fresh[7]
    else:
        integrate(head, [15] * 4)
        head.reset_outputs()
        for clock in range(15):
            head.convert_scores(occupied(head.params, 1))
            if clock < 4:
                head.write_value(0, 0, K0)
        head.end_write()
        assert head.bank.values.charge()[0].tolist() == [4 * fresh[7] + 11 * fresh[0]] * 4


def test_write_takes_effect_in_its_last_clock():
    head = tiny_head(write_clk=3)
    for clock in range(1, 6):
        head.write_key(1, 2, K0)
        assert (head.bank.keys.codes[6] == 0).all() == (clock >= 3)
    head.end_write()
    assert head.bank.keys.ages.tolist() == [0] * 8
    head.end_write()  # nothing in progress


def test_short_write():
    for write_some, array in ((SteppedHead.write_key, "key"), (SteppedHead.write_value, "value")):
        head = tiny_head()
        for _ in range(3):
            write_some(head, 1, 2, K0)
        head.end_write("value" if array == "key" else "key")
        with pytest.raises(
            AnalogProtocolError,
            match=says(f"{array} write to sub-tile 1, column 2 lasted 3 of 4 clocks"),
        ):
            head.end_write(array)


@pytest.mark.parametrize("changed", [(0, 2, K0), (1, 3, K0), (1, 2, K7)])
def test_write_that_changes(changed):
    head = tiny_head()
    head.write_key(1, 2, K0)
    with pytest.raises(
        AnalogProtocolError,
        match=says(
            "key write to sub-tile 1, column 2 changed its address or codes after 1 of 4 clocks"
        ),
    ):
        head.write_key(*changed)
    head = tiny_head(write_clk=1)  # a finished write may be followed at once
    head.write_key(1, 2, K0)
    head.write_key(*changed)
    head.end_write()


def test_reset_in_mid_write_and_mid_phase():
    head, params = tiny_head(), AnalogParams(**TINY, s_sat_ua=6.0, a_sat_ua=3.0)
    for token in range(8):
        write(head, token, K0 + 3, K0 + 3)
    head.write_key(0, 1, K0)
    head.integrate_scores(np.ones(4, dtype=bool))
    head.convert_scores(ALL)
    head.read_outputs()
    head.reset()
    assert (head.bank.keys.codes[1] == 7).all()  # neither old nor new
    assert (head.bank.keys.codes[0] == 3).all()
    assert (head.bank.keys.charge() == 0).all()
    assert (head.bank.values.charge() == 0).all()
    closed = FunctionalHead(params)
    write(head, 0, K7, K7)
    closed.write(K7, K7)
    assert (
        ask(head, [3, 1, 0, 2], 1).sum(axis=0).tolist() == closed.query([3, 1, 0, 2]).sums.tolist()
    )


def test_stepped_errors():
    head = tiny_head()
    with pytest.raises(TypeError, match=says("params must be AnalogParams, not {}")):
        SteppedHead({})
    with pytest.raises(ValueError, match=says("subtile must be in 0..1, not 2")):
        head.write_key(2, 0, K0)
    with pytest.raises(ValueError, match=says("column must be in 0..3, not -1")):
        head.write_value(0, -1, K0)
    with pytest.raises(ValueError, match=says("key codes must have shape (4,), not (3,)")):
        head.write_key(0, 0, K0[:3])
    with pytest.raises(ValueError, match=says("value codes must be in 0..7, not 8 at index 2")):
        head.write_value(0, 0, [0, 1, 8, 2])
    with pytest.raises(TypeError, match=says("key codes must be integers, not dtype 'float64'")):
        head.write_key(0, 0, K0 * 1.0)
    with pytest.raises(TypeError, match=says("word_lines must be a boolean array, not ")):
        head.integrate_scores(K0)
    with pytest.raises(ValueError, match=says("word_lines must have shape (4,), not (8,)")):
        head.integrate_scores(ALL)
    with pytest.raises(ValueError, match=says("column_mask must have shape (8,), not (4,)")):
        head.convert_scores(ALL[:4])
    with pytest.raises(ValueError, match=says("array must be 'key', 'value' or None, not 'both'")):
        head.end_write("both")


@given(st.integers(1, 200), st.data())
def test_packing(width, data):
    value = data.draw(st.integers(0, 2**width - 1))
    bits = unpack_bits(value, width)
    assert bits.tolist() == [bool(value >> i & 1) for i in range(width)]
    assert pack_bits(bits) == value


def test_packed_readout_has_lane_first():
    head = tiny_head()
    write(head, 4, K7, np.array([0, 7, 0, 7]))
    integrate(head, [15] * 4)
    mask = NONE.copy()
    mask[4] = True
    convert(head, mask)
    pulses, signs = head.read_outputs_packed()
    assert (pulses, signs) == (0b1111_0000, 0b0101_0000)


# --- functional ---------------------------------------------------------------------------------
def test_window_wraps_and_flush_forgets():
    params = AnalogParams(**TINY, s_sat_ua=6.0, a_sat_ua=3.0)
    q, k, v = codes_of(params, 30, 9)
    head, fresh = FunctionalHead(params), FunctionalHead(params)
    assert head.occupancy == 0
    for token in range(11):
        head.write(k[token], v[token])
        assert head.occupancy == min(token + 1, 8)
        assert head.pointer == (token + 1) % 8
    head.flush()
    assert (head.occupancy, head.pointer) == (0, 0)
    with pytest.raises(ValueError, match=says("occupancy must be at least 1 for a query, not 0")):
        head.query(q[0])
    for token in range(11, 15):
        head.write(k[token], v[token])
        fresh.write(k[token], v[token])
        assert head.query(q[token]).sums.tolist() == fresh.query(q[token]).sums.tolist()


def test_full_scale_is_any_subtile_at_its_limit():
    head = FunctionalHead(AnalogParams(**TINY, s_sat_ua=6.0, a_sat_ua=3.0))
    for _ in range(4):
        head.write(K7, [0, 7, 4, 3])
    for _ in range(4):
        head.write(K7, [7, 0, 4, 3])
    result = head.query([15] * 4)
    assert result.full_scale.tolist() == [True, True, True, False]
    assert result.sums.tolist()[:3] == [0, 0, 30]  # opposite sub-tiles at their limits cancel


def test_functional_errors():
    head = FunctionalHead(AnalogParams(**TINY))
    with pytest.raises(TypeError, match=says("params must be AnalogParams, not None")):
        FunctionalHead(None)
    with pytest.raises(ValueError, match=says("k_codes must be in 0..7, not 9 at index 3")):
        head.write([0, 1, 2, 9], K0)
    with pytest.raises(ValueError, match=says("v_codes must have shape (4,), not (2, 2)")):
        head.write(K0, [[0, 1], [2, 3]])
    assert head.occupancy == 0
    with pytest.raises(ValueError, match=says("q_codes must be in 0..15, not -1 at index 0")):
        head.query([-1, 0, 0, 0])
    with pytest.raises(TypeError, match=says("q_codes must be integers, not dtype 'bool'")):
        head.query([True] * 4)


# --- attend's errors ----------------------------------------------------------------------------
GOOD = np.full((3, 2), 0.5)


def changed(value: float, shape=(3, 2)):
    array = np.full(shape, 0.5)
    array[1, 0] = value
    return array


@pytest.mark.parametrize(
    ("arguments", "kwargs", "error", "message"),
    [
        ((changed(1.5), GOOD, GOOD), {}, ValueError,
         "q must be finite and in 0..1, not 1.5 at index (1, 0)"),
        ((GOOD, changed(-0.1), GOOD), {}, ValueError,
         "k must be finite and in 0..0.9, not -0.1 at index (1, 0)"),
        ((GOOD, GOOD, changed(math.nan)), {}, ValueError,
         "v must be finite and in 0..0.9, not nan at index (1, 0)"),
        ((GOOD, GOOD, changed(math.inf)), {}, ValueError,
         "v must be finite and in 0..0.9, not inf at index (1, 0)"),
        ((GOOD[0], GOOD, GOOD), {}, ValueError,
         "q must be two-dimensional and not empty, not (2,)"),
        ((GOOD[:0], GOOD, GOOD), {}, ValueError,
         "q must be two-dimensional and not empty, not (0, 2)"),
        ((GOOD, GOOD[:2], GOOD), {}, ValueError, "k must have the shape of q, (3, 2), not (2, 2)"),
        ((GOOD, GOOD, GOOD[:2]), {}, ValueError, "v must have 3 tokens, as q and k have, not 2"),
        ((GOOD * 1j, GOOD, GOOD), {}, TypeError, "q must be real numbers, not dtype 'complex128'"),
        ((GOOD, [["a"]], GOOD), {}, TypeError, "k must be real numbers, not dtype 'str"),
        ((GOOD,) * 3, {"window": 0}, ValueError, "window must be in 1.."),
        ((GOOD,) * 3, {"window": 2.0}, TypeError, "window must be an int, not 2.0"),
        ((GOOD,) * 3, {"columns": 0}, ValueError, "columns must be in 1.."),
        ((GOOD,) * 3, {"cell": "none"}, ValueError, "cell must be one of published, "),
        ((GOOD,) * 3, {"decay_per_token": -1}, ValueError, "decay_per_token must be in 0..1, not"),
        ((GOOD,) * 3, {"decay_law": "x"}, ValueError, "decay_law must be one of "),
        ((GOOD,) * 3, {"quantise": 1}, TypeError, "quantise must be a bool, not 1"),
        ((GOOD,) * 3, {"q_bits": 9}, ValueError, "q_bits must be in 1..8, not 9"),
        ((GOOD,) * 3, {"kv_bits": 0}, ValueError, "bits must be in 1..8, not 0"),
        ((GOOD,) * 3, {"count_bits": "4"}, TypeError, "count_bits must be an int, not '4'"),
        ((GOOD,) * 3, {"s_sat_ua": -1.0}, ValueError, "s_sat_ua must be positive and finite"),
        ((GOOD,) * 3, {"a_sat_ua": math.nan}, ValueError, "a_sat_ua must be positive and finite"),
    ],
)  # fmt: skip
def test_attend_errors(arguments, kwargs, error, message):
    for quantise in (True, False):
        with pytest.raises(error, match=says(message)):
            attend(*arguments, **{"quantise": quantise} | kwargs)


def test_attend_refuses_what_is_not_exact():
    many = np.full((300, 2), 0.5)
    with pytest.raises(ValueError, match=says("columns must be in 1..197 for exact charges")):
        attend(many, many, many, columns=300, q_bits=8)
    attend(many, many, many, columns=300, q_bits=8, window=190)


def test_inputs_are_left_alone():
    arrays = [np.random.default_rng(6).random((70, 8)) * 0.9 for _ in range(3)]
    copies = [array.copy() for array in arrays]
    for quantise in (True, False):
        attend(*arrays, quantise=quantise, window=20)
    for array, copy in zip(arrays, copies, strict=True):
        assert (array == copy).all()


def test_example_of_the_documentation(capsys):
    page = Path(__file__).parents[1] / "docs" / "blocks" / "analog_models.md"
    code = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    exec(compile(code, page.name, "exec"), {})
    assert capsys.readouterr().out == "(200, 200) True (200, 64)\nTrue\n"
