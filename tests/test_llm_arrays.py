"""The arrays in PyTorch against the array models: every count, bit for bit."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # tests run two at a time

from analog_models import attend  # noqa: E402
from sim.llm.arrays import ArrayParams, Shot, Statistics, counts  # noqa: E402

LEVELS_V = np.linspace(0.0, 0.9, 8)


def random_codes(seed, tokens, rows, lanes):
    rng = np.random.default_rng(seed)
    print(f"seed {seed}")
    q = torch.tensor(rng.integers(0, 16, (tokens, rows)), dtype=torch.float64)
    k = torch.tensor(rng.integers(0, 8, (tokens, rows)))
    v = torch.tensor(rng.integers(0, 8, (tokens, lanes)))
    return q, k, v


def by_array_models(params, q, k, v, s_sat_ua, a_sat_ua):
    out = attend(
        q.numpy() / 15,
        LEVELS_V[k.numpy()],
        LEVELS_V[v.numpy()],
        cell=params.cell,
        window=params.window,
        columns=params.columns,
        decay_per_token=params.decay_per_token,
        s_sat_ua=s_sat_ua,
        a_sat_ua=a_sat_ua,
    )
    return np.rint(out.out * 15).astype(int), out.phi


def one_shot(s_sat_ua, a_sat_ua):
    return [Shot(s_sat_ua=torch.tensor(s_sat_ua), a_sat_ua=torch.tensor(a_sat_ua))]


@pytest.mark.parametrize("decay", (0.0, 1.6e-4, 0.02))
@pytest.mark.parametrize(("window", "columns"), ((1024, 64), (48, 16), (40, 16), (7, 3)))
@pytest.mark.parametrize("cell", ("published", "linear"))
def test_exact_counts_are_those_of_the_array_models(decay, window, columns, cell):
    params = ArrayParams(window=window, columns=columns, cell=cell, decay_per_token=decay)
    q, k, v = random_codes(window + columns, 100, 12, 5)
    (sums,), (phi,) = counts(params, one_shot(20.0, 11.0), q, k, v, exact=True)
    expected, pulses = by_array_models(params, q, k, v, 20.0, 11.0)
    assert np.array_equal(sums.numpy(), expected)
    assert np.abs(expected).max() > 15, "nothing but small counts: not a test"
    np.testing.assert_allclose(phi.numpy(), pulses.sum(1), rtol=1e-12)


@pytest.mark.parametrize("decay", (0.0, 1.6e-4))
def test_fast_counts_differ_at_boundaries_only(decay):
    params = ArrayParams(window=96, columns=32, decay_per_token=decay)
    q, k, v = random_codes(5, 200, 64, 64)
    (exact,), _ = counts(params, one_shot(80.0, 40.0), q, k, v, exact=True)
    (fast,), _ = counts(params, one_shot(80.0, 40.0), q, k, v)
    different = (exact != fast.double()).double().mean()
    assert different < 1e-3
    assert (exact - fast).abs().max() <= 1


def test_newest_tokens_alone_give_the_same_as_the_whole_sequence():
    params = ArrayParams(window=24, columns=8, decay_per_token=1e-3)
    q, k, v = random_codes(6, 50, 8, 4)
    (whole,), _ = counts(params, one_shot(20.0, 11.0), q, k, v, exact=True)
    for token in (0, 7, 8, 23, 24, 49):
        (alone,), _ = counts(
            params,
            one_shot(20.0, 11.0),
            q[token : token + 1],
            k[: token + 1],
            v[: token + 1],
            first=token,
            exact=True,
        )
        assert torch.equal(alone[0], whole[token])


@pytest.mark.parametrize("exact", (False, True))
@pytest.mark.parametrize("decay", (0.0, 1.6e-4))
def test_bias_rows_are_rows_like_any_other(decay, exact):
    params = ArrayParams(window=32, columns=8, decay_per_token=decay)
    q, k, v = random_codes(7, 40, 10, 4)
    fixed = torch.tensor([0, 7, 4])
    k[:, 7:] = fixed
    shot = one_shot(20.0, 11.0)[0]
    (whole,), _ = counts(params, [shot], q, k, v, exact=exact)
    split = Shot(s_sat_ua=shot.s_sat_ua, a_sat_ua=shot.a_sat_ua, bias=q[:, 7:])
    (apart,), _ = counts(params, [split], q[:, :7], k[:, :7], v, bias_codes=fixed, exact=exact)
    difference = (whole - apart).abs()
    assert difference.max() <= (0 if exact else 1)
    assert (difference > 0).double().mean() < 1e-2


def test_statistics_count_what_converters_saw():
    params = ArrayParams(window=16, columns=8)
    q, k, v = random_codes(8, 20, 6, 3)
    seen = Statistics()
    (_,), _ = counts(params, one_shot(20.0, 0.5), q, k, v, exact=True, statistics=seen)
    _, phi = by_array_models(params, q, k, v, 20.0, 0.5)
    pairs = sum(min(token + 1, 16) for token in range(20))
    assert seen.pairs == pairs
    assert seen.active == np.count_nonzero(phi)
    assert seen.saturated == np.count_nonzero(phi == 1.0)
    assert 0 < seen.shares()["full_scale"] <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"window": 0}, "window must be in"),
        ({"q_bits": 9}, "q_bits must be in"),
        ({"decay_per_token": 2.0}, "decay_per_token must be in"),
        ({"cell": "nobody's"}, "cell must be one of"),
    ),
)
def test_parameters_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        ArrayParams(**changes)
