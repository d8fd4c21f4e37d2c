"""Non-idealities: off by default, equal in every speed, and of the statistics they claim."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from scipy import stats

from analog_models import (
    AnalogParams,
    BatchedHead,
    FastHead,
    Faults,
    FunctionalHead,
    SteppedHead,
)
from analog_models.faults import line_transfer
from analog_models.namespace import Library
from analog_models.noise import FastNormal, normal_table

SEED = 20251125
TINY = {"subtiles": 2, "columns": 4, "rows": 4, "lanes": 4, "s_sat_ua": 6.0, "a_sat_ua": 3.0}
#: Every fault on, each large enough to change integers by itself.
EVERY = {
    "cell_gain_sigma": 0.2,
    "cell_offset_sigma_ua": 0.8,
    "dac_sigma_v": 0.05,
    "score_gain_sigma": 0.2,
    "output_gain_sigma": 0.2,
    "read_noise_ua": 0.8,
    "score_jitter_sigma_clk": 1.0,
    "output_jitter_sigma_clk": 0.8,
}
ALL = Faults(
    **EVERY, line_ohm=50.0, cell_out_us=500.0, temperature_c=60.0, current_tc_per_k=-2e-3, seed=5
)
#: One in a million: a test with a sound model fails that often, were its seed drawn anew.
ALPHA = 1e-6


def says(message: str) -> str:
    return re.escape(message)


def codes_of(params: AnalogParams, tokens: int, seed: int = SEED):
    rng = np.random.default_rng(seed)
    q = rng.integers(0, params.q_max + 1, (tokens, params.rows))
    top = params.dac.levels
    return (
        q,
        rng.integers(0, top, (tokens, params.rows)),
        rng.integers(0, top, (tokens, params.lanes)),
    )


def stepped_sums(head: SteppedHead, q, a_level=None):
    """Sums of one query, every clock of every pulse driven."""
    params = head.params
    head.reset_scores()
    for clock in range(params.q_max):
        head.integrate_scores(np.asarray(q) > clock)
    head.reset_outputs()
    for _ in range(params.q_max):
        head.convert_scores(np.ones(params.window, dtype=np.bool_))
    signs_before = head.output_signs_packed()
    sums = np.zeros((params.subtiles, params.lanes), dtype=np.int64)
    for _ in range(params.count_max):
        pulses, signs = head.read_outputs(a_level=a_level)
        sums += np.where(signs, -1, 1) * pulses
    packed = int.from_bytes(np.packbits(signs, bitorder="little").tobytes(), "little")
    assert signs_before == packed
    return sums.sum(axis=0)


def written(params: AnalogParams, k, v):
    """The three exact speeds with the same window."""
    stepped, functional, batched = SteppedHead(params), FunctionalHead(params), BatchedHead(params)
    for token, (k_codes, v_codes) in enumerate(zip(k, v, strict=True)):
        for _ in range(params.write_clk):
            stepped.write_key(*divmod(token, params.columns), k_codes)
            stepped.write_value(*divmod(token, params.columns), v_codes)
        stepped.end_write()
        functional.write(k_codes, v_codes)
    batched.write(k, v, ages=np.arange(len(k))[::-1])
    return stepped, functional, batched


# --- the speeds agree --------------------------------------------------------------------------
@pytest.mark.parametrize(
    "faults",
    [Faults(), ALL, *(Faults(**{name: value}, seed=3) for name, value in EVERY.items())],
    ids=["off", "all", *EVERY],
)
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_speeds_agree(faults, decay):
    """Functional, stepped and batched give the same integers, for every fault and for all."""
    params = AnalogParams(
        **TINY,
        decay_per_token=decay,
        score_offset_sigma_clk=0.5 if faults is ALL else 0.0,
        output_offset_sigma_counts=0.5 if faults is ALL else 0.0,
        offset_seed=2,
        faults=faults,
    )
    q, k, v = codes_of(params, 8)
    stepped, functional, batched = written(params, k, v)
    answers = batched.query(q, a_level=30)
    for i, codes in enumerate(q):
        closed = functional.query(codes, a_level=30)
        assert closed.sums.tolist() == answers.sums[i].tolist()
        assert closed.full_scale.tolist() == answers.full_scale[i].tolist()
        assert stepped_sums(stepped, codes, a_level=30).tolist() == closed.sums.tolist()
    assert np.abs(answers.sums).max() > 3


@pytest.mark.parametrize("name", EVERY)
def test_each_fault_matters_and_is_off_by_default(name):
    ideal = AnalogParams(**TINY)
    assert ideal.faults == Faults() and ideal.key_currents.ideal and ideal.value_currents.ideal
    q, k, v = codes_of(ideal, 8)
    heads = [BatchedHead(ideal)]
    heads += [
        BatchedHead(dataclasses.replace(ideal, faults=Faults(**{name: EVERY[name]}, seed=seed)))
        for seed in (1, 1, 2)
    ]
    if (
        name not in ("cell_gain_sigma", "cell_offset_sigma_ua", "dac_sigma_v")
        and "gain" not in name
    ):
        noise = [
            dataclasses.replace(h.params.faults, noise_seed=h.params.faults.seed) for h in heads
        ]
        heads[1:] = [BatchedHead(dataclasses.replace(ideal, faults=faults)) for faults in noise[1:]]
    for head in heads:
        head.write(k, v)
    sums = [head.query(q).sums for head in heads]
    assert (sums[0] != sums[1]).any(), "the fault changes nothing"
    assert (sums[1] == sums[2]).all(), "the same seed is another device"
    assert (sums[1] != sums[3]).any(), "another seed is the same device"


def test_fresh_noise_differs_between_evaluations_and_repeats():
    params = AnalogParams(**TINY, faults=Faults(read_noise_ua=1.0))
    q, k, v = codes_of(params, 8)
    head = BatchedHead(params)
    head.write(k, v)
    same = np.repeat(q[:1], 20, axis=0)
    first = head.query(same).sums
    assert len({tuple(row) for row in first}) > 1
    second = head.query(same).sums
    head.restart()
    again = np.concatenate([head.query(same[:7]).sums, head.query(same[7:]).sums])
    assert (again == first).all() and (second != first).any()


# --- statistics --------------------------------------------------------------------------------
def interval(sigma: float, n: int) -> tuple[float, float]:
    """Where the standard deviation of n normal numbers lies but once in 1 / ALPHA."""
    low, high = stats.chi2.ppf([ALPHA / 2, 1 - ALPHA / 2], n - 1)
    return sigma * math.sqrt(low / (n - 1)), sigma * math.sqrt(high / (n - 1))


def check_normal(values, sigma: float) -> None:
    """Mean, spread and shape, each at a confidence of 1 - ALPHA."""
    n = values.size
    low, high = interval(sigma, n)
    assert low < values.std(ddof=1) < high
    assert abs(values.mean()) < stats.norm.isf(ALPHA / 2) * sigma / math.sqrt(n)
    assert stats.kstest(values / sigma, "norm").pvalue > ALPHA


def test_spread_of_cells():
    faults = Faults(cell_gain_sigma=0.03, seed=SEED)
    params = AnalogParams(faults=faults)
    codes = np.full((params.window, params.rows), 7)
    fresh = np.zeros(params.window, dtype=np.intp)
    for cells in (params.key_currents, params.value_currents):
        gain = cells.at(fresh, codes) / params.level_currents.fresh[7] - 1.0
        check_normal(gain.ravel(), 0.03)
    assert (params.key_currents.at(fresh, codes) != params.value_currents.at(fresh, codes)).any()
    params = AnalogParams(faults=Faults(cell_offset_sigma_ua=0.2, seed=SEED))
    for level in (0, 4):
        offset = (
            params.key_currents.at(fresh, codes * 0 + level) - params.level_currents.fresh[level]
        )
        check_normal(offset.ravel(), 0.2)


def test_spread_of_dacs_is_one_of_each_line():
    params = AnalogParams(
        cell="linear", rows=256, faults=Faults(dac_sigma_v=0.01, seed=SEED), subtiles=1
    )
    codes = np.full((params.window, params.rows), 4)
    current = params.key_currents.at(np.zeros(params.window, dtype=np.intp), codes)
    assert (current == current[0]).all(), "a line has one DAC for all of its columns"
    error_v = (current[0] - params.level_currents.fresh[4]) / 19.3
    check_normal(error_v, 0.01)


@pytest.mark.parametrize("kind", ["exact", "fast"])
def test_read_noise_adds_up_in_variance(kind):
    """Of a column, over evaluations: sigma * sqrt(sum of the query's clocks), as a charge."""
    params = AnalogParams(subtiles=1, faults=Faults(read_noise_ua=0.5, noise_seed=SEED))
    _, k, v = codes_of(params, 64)
    k[:] = 4
    q = np.tile([3, 5] * 32, (500, 1))
    on_clk = float(q[0].sum())
    if kind == "exact":
        head = BatchedHead(params)
        head.write(k, v)
        phi = head.phi_clk(q[:60])
    else:
        head = FastHead(params)
        head.write(k, v)
        phi = np.asarray(head.phi_clk(q.astype(np.float32)), dtype=np.float64)
    mean = on_clk * params.level_currents.fresh[4] / 80.0
    assert 0 < mean < 15 - 6 * 0.5 * math.sqrt(on_clk) / 80
    check_normal((phi - mean).ravel(), 0.5 * math.sqrt(on_clk) / 80.0)


@pytest.mark.parametrize("kind", ["exact", "fast"])
def test_noise_of_outputs_follows_the_pulses(kind):
    """Of an output's charge: sigma * sqrt(sum of the phi pulses), seen through its counts."""
    sigma = 2.0
    params = AnalogParams(
        subtiles=1, count_bits=8, faults=Faults(read_noise_ua=sigma, noise_seed=SEED)
    )
    phi = np.full((1, 400, 64), 7.5, dtype=np.float32)
    per_count = params.output_converter.charge_per_count
    expected = sigma * math.sqrt(64 * 7.5) / per_count
    v = np.tile([1, 6] * 32, (64, 1)).T
    if kind == "fast":
        head = FastHead(params)
        head.write(np.zeros((64, 64), dtype=int), v)
        counts = np.asarray(head.counts(phi), dtype=np.float64)
    else:
        head = FunctionalHead(params)
        for column in range(64):
            head.write([0] * 64, v[column])
        drive = np.full(64, 7.5)
        charges = [head.charges(drive) for _ in range(400)]
        counts = np.array(charges) / per_count
    centre = counts.mean(axis=(0, 1))
    spread = (counts - centre).ravel()
    if kind == "fast":  # counted, so rounding adds a twelfth
        expected = math.sqrt(expected**2 + 1 / 12)
    low, high = interval(expected, spread.size)
    assert low < spread.std(ddof=1) < high


def test_jitter_of_pulses():
    params = AnalogParams(
        subtiles=1,
        faults=Faults(score_jitter_sigma_clk=0.2, output_jitter_sigma_clk=0.7, noise_seed=SEED),
    )
    sensing = params.sensing
    drawn = np.concatenate([sensing.score_jitter_clk(i) for i in range(100)])
    check_normal(drawn, 0.2)
    check_normal(np.concatenate([sensing.output_jitter_clk(i)[0] for i in range(100)]), 0.7)
    phi = params.score_converter.phi_clk(np.array([-5.0, 0.0, 800.0, 1e9]), np.full(4, 0.5))
    assert phi.tolist() == [0.0, 0.0, 10.5, 15.0]  # no pulse, no jitter; none beyond the longest
    counts = params.output_converter.counts(np.array([-80.0, 80.0, -20.0, 0.0]), np.full(4, -0.6))
    assert counts.tolist() == [-1, 1, 0, 0]  # a pulse does not turn its sign


def test_bulk_noise_is_normal():
    library = Library(np.empty(0, np.float32))
    drawn = FastNormal((SEED,), library).fill(np.empty((1000, 1001), np.float32))
    check_normal(drawn.astype(np.float64).ravel(), 1.0)
    assert abs(np.corrcoef(drawn.ravel()[:-1], drawn.ravel()[1:])[0, 1]) < 5e-3
    again = FastNormal((SEED,), library)
    assert (again.fill(np.empty(999, np.float32)) == drawn.ravel()[:999]).all()
    table = normal_table("float64")
    assert table.var() == pytest.approx(1.0, abs=1e-12) and (np.diff(table) > 0).all()
    steps = np.arange(1, 2**16) / 2**16
    between = stats.norm.cdf((table[1:] + table[:-1]) / 2)
    assert np.abs(between - steps).max() < 2.0**-16


# --- fast model --------------------------------------------------------------------------------
def test_fast_head_counts_as_the_exact_one():
    params = AnalogParams(
        faults=Faults(
            cell_gain_sigma=0.05,
            cell_offset_sigma_ua=0.1,
            dac_sigma_v=0.01,
            score_gain_sigma=0.05,
            output_gain_sigma=0.05,
        ),
        score_offset_sigma_clk=0.3,
        output_offset_sigma_counts=0.6,
    )
    q, k, v = codes_of(params, 700)
    exact, single = BatchedHead(params), FastHead(params, s_level=100, a_level=30)
    double = FastHead(params, like=np.empty(0), s_level=100, a_level=30)
    for head in (exact, single, double):
        head.write(k, v)
    expected = exact.query(q, s_level=100, a_level=30).sums
    assert (single.query(q.astype(np.float32)) != expected).mean() < 1e-3
    assert (double.query(q.astype(np.float64)) != expected).mean() < 1e-3
    phi = np.asarray(single.phi_clk(q.astype(np.float32)))
    wanted = exact.phi_clk(q, s_level=100).reshape(700, 16, 64).transpose(1, 0, 2)
    assert np.abs(phi - wanted).max() < 1e-4
    assert (phi.transpose(1, 0, 2).reshape(700, -1)[:, 700:] == 0).all()


def test_fast_noise_is_that_of_the_exact_head():
    """Variance of the sums under every kind of noise, fast against exact."""
    params = AnalogParams(
        subtiles=2,
        faults=Faults(
            read_noise_ua=0.5,
            score_jitter_sigma_clk=0.3,
            output_jitter_sigma_clk=0.5,
            score_gain_sigma=0.1,
            output_gain_sigma=0.1,
        ),
    )
    q, k, v = codes_of(params, 100)
    same = np.repeat(q[:1], 400, axis=0)
    exact, fast = BatchedHead(params), FastHead(params)
    exact.write(k, v)
    fast.write(k, v)
    a = exact.query(same).sums.astype(float)
    b = np.asarray(fast.query(same.astype(np.float32)), dtype=float)
    for x, y in zip(a.T, b.T, strict=True):
        assert stats.ks_2samp(x, y, method="asymp").pvalue > ALPHA
    ratio = a.var(axis=0).sum() / b.var(axis=0).sum()
    assert 0.9 < ratio < 1.1


def test_fast_head_in_pytorch():
    torch = pytest.importorskip("torch")
    params = AnalogParams(faults=Faults(cell_gain_sigma=0.05), output_offset_sigma_counts=0.6)
    q, k, v = codes_of(params, 600)
    ours, theirs = FastHead(params), FastHead(params, like=torch.empty(0))
    ours.write(k, v)
    theirs.write(torch.as_tensor(k), torch.as_tensor(v))
    got = theirs.query(torch.as_tensor(q, dtype=torch.float32))
    assert isinstance(got, torch.Tensor)
    assert (got.numpy() != ours.query(q.astype(np.float32))).mean() < 1e-3
    noisy = dataclasses.replace(params, faults=Faults(read_noise_ua=0.5, noise_seed=1))
    ours, theirs = FastHead(noisy), FastHead(noisy, like=torch.empty(0))
    for head in (ours, theirs):
        head.write(k, v)
    a = ours.query(q.astype(np.float32))
    b = theirs.query(torch.as_tensor(q, dtype=torch.float32)).numpy()
    assert (a != b).mean() < 1e-3  # the same draws


# --- lines, temperature ------------------------------------------------------------------------
def test_line_resistance_is_a_ladder():
    assert line_transfer(1, 1e3, 1e3)[0] == pytest.approx(0.5)
    assert (line_transfer(5, 0.0, 10.0) == 1.0).all() and (line_transfer(5, 10.0, 0.0) == 1.0).all()
    n, ohm, us = 64, 20.0, 30.0
    # Nodal analysis of the whole ladder, the end held at ground.
    g, load = 1.0 / ohm, us * 1e-6
    matrix = np.diag(np.full(n, 2 * g + load)) - g * (np.eye(n, k=1) + np.eye(n, k=-1))
    matrix[-1, -1] -= g
    current_out = g * np.linalg.solve(matrix, np.eye(n))[0]
    assert line_transfer(n, ohm, us) == pytest.approx(current_out, rel=1e-12)
    params = AnalogParams(subtiles=2, faults=Faults(line_ohm=ohm, cell_out_us=us))
    fresh, codes = np.zeros(128, dtype=np.intp), np.full((128, 64), 7)
    full = params.level_currents.fresh[7]
    assert params.key_currents.at(fresh, codes)[5] / full == pytest.approx(current_out, abs=1e-5)
    for start in (0, 64):  # array 2 sums over the columns of a sub-tile
        column = params.value_currents.at(fresh, codes)[start : start + 64, 9] / full
        assert column == pytest.approx(current_out, abs=1e-5)
    with pytest.raises(ValueError, match=says("cells must be at least 1, not 0")):
        line_transfer(0, 1.0, 1.0)


def test_temperature():
    hot = Faults(
        temperature_c=85.0, tau_activation_ev=0.5, current_tc_per_k=1e-3, read_noise_ua=1.0
    )
    assert hot.current_factor == pytest.approx(1.058)
    assert hot.tau_factor == pytest.approx(
        math.exp(0.5 / 8.617333262e-5 * (1 / 358.15 - 1 / 300.15))
    )
    assert hot.read_sigma_ua == pytest.approx(math.sqrt(358.15 / 300.15))
    cold, warm = AnalogParams(tau_s=5e-3), AnalogParams(tau_s=5e-3, faults=hot)
    ratio = warm.level_currents.decay_per_token / cold.level_currents.decay_per_token
    assert ratio == pytest.approx(1.0 / hot.tau_factor)
    room = Faults(tau_activation_ev=0.5, current_tc_per_k=1e-3)
    assert (room.current_factor, room.tau_factor) == (1.0, 1.0)


# --- errors ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"cell_gain_sigma": -0.1}, ValueError, "cell_gain_sigma must be finite and not negative"),
        ({"read_noise_ua": math.nan}, ValueError, "read_noise_ua must be finite, not nan"),
        ({"dac_sigma_v": "1 mV"}, TypeError, "dac_sigma_v must be a float, not '1 mV'"),
        ({"seed": -1}, ValueError, "seed must be in 0.."),
        ({"noise_seed": 1.5}, TypeError, "noise_seed must be an int, not 1.5"),
        ({"temperature_c": -300.0}, ValueError, "temperature_c must be above -273.15 and at most"),
        ({"tau_activation_ev": -1.0}, ValueError, "tau_activation_ev must be finite and not neg"),
        (
            {"temperature_c": 127.0, "current_tc_per_k": -0.01},
            ValueError,
            "current_tc_per_k must leave a current at 127 °C, not -0.01",
        ),
    ],
)
def test_fault_errors(given, error, message):
    with pytest.raises(error, match=says(message)):
        Faults(**given)


def test_errors_of_heads():
    params = AnalogParams(**TINY)
    with pytest.raises(TypeError, match=says("faults must be Faults, not 3")):
        AnalogParams(faults=3)
    with pytest.raises(ValueError, match=says("v_rest_v must be in 0..0.9, not 1.0")):
        AnalogParams(v_rest_v=1.0)
    with pytest.raises(ValueError, match=says("columns must be in 1..")):
        AnalogParams(faults=Faults(cell_offset_sigma_ua=1e7))
    for kind in (BatchedHead, FastHead):
        with pytest.raises(TypeError, match=says("params must be AnalogParams, not 1")):
            kind(1)
    head = BatchedHead(params)
    with pytest.raises(ValueError, match=says("the window must hold at least 1 token")):
        head.query([[0] * 4])
    with pytest.raises(ValueError, match=says("k_codes must be at most 8 tokens, not 9")):
        head.write(np.zeros((9, 4), int), np.zeros((9, 4), int))
    with pytest.raises(ValueError, match=says("v_codes must be 2 tokens, as k_codes, not 1")):
        head.write(np.zeros((2, 4), int), np.zeros((1, 4), int))
    with pytest.raises(ValueError, match=says("k_codes must be in 0..7, not 8 at index (0, 1)")):
        head.write([[0, 8, 0, 0]], [[0] * 4])
    with pytest.raises(ValueError, match=says("ages must be 1 steps, none negative, not [-1]")):
        head.write([[0] * 4], [[0] * 4], ages=[-1])
    head.write([[0] * 4], [[0] * 4])
    with pytest.raises(TypeError, match=says("q_codes must be integers, not dtype 'float64'")):
        head.query([[0.5] * 4])
    fast = FastHead(params)
    with pytest.raises(ValueError, match=says("the window must be written before a query")):
        fast.query(np.zeros((1, 4), np.float32))
    fast.write([[0] * 4], [[0] * 4])
    with pytest.raises(ValueError, match=says("q must have shape (n, 4), not (1, 3)")):
        fast.query(np.zeros((1, 3), np.float32))
    with pytest.raises(TypeError, match=says("like must be a NumPy array or a PyTorch tensor")):
        FastHead(params, like="torch")
    with pytest.raises(TypeError, match=says("like must hold floats, not dtype int64")):
        FastHead(params, like=np.zeros(1, np.int64))
