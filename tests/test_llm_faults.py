"""Non-ideal arrays of language models against the array models: same devices, same numbers."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # tests run two at a time

from analog_models.batched import BatchedHead  # noqa: E402
from analog_models.faults import Faults  # noqa: E402
from analog_models.params import AnalogParams  # noqa: E402
from analog_models.presets import resolve_device  # noqa: E402
from sim.llm.arrays import ArrayParams, Shot, counts  # noqa: E402
from sim.llm.faults import KINDS, ArrayFaults  # noqa: E402

FIXED = {
    "cell_gain_sigma": 0.05,
    "cell_offset_sigma_ua": 0.3,
    "score_gain_sigma": 0.04,
    "output_gain_sigma": 0.04,
}
FRESH = {
    "read_noise_ua": 0.3,
    "score_jitter_sigma_clk": 0.2,
    "output_jitter_sigma_clk": 0.3,
}
SHOT = Shot(s_sat_ua=torch.tensor(20.0), a_sat_ua=torch.tensor(11.0))
PARAMS = ArrayParams(window=32, columns=8)


def codes(seed=0, heads=4, queries=9, rows=10, lanes=6):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    q = torch.tensor(rng.integers(0, 16, (1, heads, queries, rows)), dtype=torch.float32)
    k = torch.tensor(rng.integers(0, 8, (1, heads // 2, 32, rows))).repeat_interleave(2, 1)
    v = torch.tensor(rng.integers(0, 8, (1, heads // 2, 32, lanes))).repeat_interleave(2, 1)
    return q, k, v


def head(seed, faults, *, rows=10, lanes=6, s_offset=0.0, a_offset=0.0):
    return BatchedHead(
        AnalogParams(
            subtiles=4, columns=8, rows=rows, lanes=lanes, s_sat_ua=20.0, a_sat_ua=11.0,
            cell="published", offset_seed=seed, score_offset_sigma_clk=s_offset / 20.0,
            output_offset_sigma_counts=a_offset / 11.0,
            faults=dataclasses.replace(faults, seed=seed, noise_seed=seed),
        )
    )  # fmt: skip


def test_devices_are_those_of_the_array_models():
    q, k, v = codes()
    faults = ArrayFaults(
        faults=Faults(seed=3, **FIXED), score_offset_ua_clk=9.0, output_offset_ua_clk=11.0,
        heads=2, layer=5,
    )  # fmt: skip
    # All queries are of the last token, which sees the whole window.
    got, _ = counts(PARAMS, [SHOT], q[:, :, -1:], k, v, first=31, faults=faults)
    ideal, _ = counts(PARAMS, [SHOT], q[:, :, -1:], k, v, first=31)
    differ = 0
    for n in range(4):
        model = head(faults.device_seed(n // 2), faults.faults, s_offset=9.0, a_offset=11.0)
        model.write(k[0, n].numpy(), v[0, n].numpy())
        expected = model.query(q[0, n, -1:].int().numpy()).sums
        assert np.abs(got[0][0, n].numpy() - expected).max() <= 1  # float32 at a boundary
        differ += np.count_nonzero(got[0][0, n].numpy() != expected)
    assert differ <= 1
    assert (got[0] != ideal[0]).double().mean() > 0.3, "faults do nothing: not a test"


def test_empty_subtiles_are_read_as_in_the_array_models():
    q, k, v = codes()
    faults = ArrayFaults(output_offset_ua_clk=30.0, heads=2)
    got, _ = counts(PARAMS, [SHOT], q[:, :, :1], k[:, :, :5], v[:, :, :5], first=4, faults=faults)
    for n in range(4):
        model = head(faults.device_seed(n // 2), faults.faults, a_offset=30.0)
        model.write(k[0, n, :5].numpy(), v[0, n, :5].numpy())
        expected = model.query(q[0, n, :1].int().numpy()).sums
        assert np.array_equal(got[0][0, n].numpy(), expected)


def test_noise_has_the_spread_of_the_array_models():
    q, k, v = codes(heads=2)
    faults = ArrayFaults(faults=Faults(noise_seed=1, **FRESH), heads=1)
    model = head(0, faults.faults)
    model.write(k[0, 0].numpy(), v[0, 0].numpy())
    many = 3000
    expected = model.query(np.repeat(q[0, 0, :1].int().numpy(), many, 0)).sums
    again = q[:, :1, :1].expand(1, 1, many, -1)
    # Every query is of the same token: as many sequences, one query each.
    stacked = again.transpose(0, 2)
    got, _ = counts(
        PARAMS, [SHOT], stacked, k[:, :1].expand(many, -1, -1, -1),
        v[:, :1].expand(many, -1, -1, -1), first=31, faults=faults,
    )  # fmt: skip
    got = got[0][:, 0, 0].numpy()
    # Five standard errors of a mean, of a spread.
    sigma = expected.std(0)
    assert (np.abs(got.mean(0) - expected.mean(0)) < 5 * sigma * (2 / many) ** 0.5).all()
    assert (np.abs(got.std(0) / sigma - 1) < 5 / many**0.5).all()


@pytest.mark.parametrize("decay", (0.0, 1e-3))
def test_without_faults_they_are_the_arrays(decay):
    params = dataclasses.replace(PARAMS, decay_per_token=decay)
    q, k, v = codes(queries=40)
    k, v = (torch.cat([x, x.flip(2)], dim=2)[:, :, :40] for x in (k, v))  # beyond the window
    fixed = torch.tensor([0, 7, 4])
    shots = [SHOT, dataclasses.replace(SHOT, bias=torch.rand(1, 4, 40, 3).mul(15).round())]
    for shot in shots:
        shot = shot if shot.bias is not None else dataclasses.replace(shot, bias=q[..., :3])
        ideal, phi = counts(params, [shot], q, k, v, bias_codes=fixed)
        got, got_phi = counts(
            params, [shot], q, k, v, bias_codes=fixed, faults=ArrayFaults(heads=2)
        )
        assert (ideal[0] - got[0]).abs().max() <= 1
        assert (ideal[0] != got[0]).double().mean() < 1e-2
        torch.testing.assert_close(phi[0], got_phi[0], rtol=1e-4, atol=1e-4)


def test_same_seed_same_counts_and_another_one_others():
    q, k, v = codes()
    device = resolve_device("sky130-tt")

    def run(seed, **how):
        faults = ArrayFaults.of_device(device, heads=2, seed=seed, **how)
        return counts(PARAMS, [SHOT], q, k, v, first=23, faults=faults)[0][0]

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    assert not torch.equal(run(1), run(1, layer=3))
    ideal = counts(PARAMS, [SHOT], q, k, v, first=23)[0][0]
    assert (run(1, spread=0.0) != ideal).double().mean() < 0.02
    for kind in KINDS:
        assert not torch.equal(run(1, spread=20.0, kind=kind), run(1, spread=0.0)), kind


def test_trims_take_out_what_offsets_put_in():
    q, k, v = codes()
    ideal = counts(PARAMS, [SHOT], q, k, v, first=23)[0][0]
    plain = ArrayFaults(output_offset_ua_clk=12.0, heads=2)
    errors = [
        float(
            (counts(PARAMS, [SHOT], q, k, v, first=23, faults=faults)[0][0] - ideal).pow(2).mean()
        )
        for faults in (plain, dataclasses.replace(plain, trimmed=True))
    ]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"heads": 0}, "heads must be in"),
        ({"layer": -1}, "layer must be in"),
        ({"score_offset_ua_clk": -1.0}, "score_offset_ua_clk must be finite and not negative"),
        ({"faults": Faults(line_ohm=1.0)}, "faults.line_ohm must be 0 for language models"),
    ),
)
def test_faults_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        ArrayFaults(**changes)


def test_kinds_and_heads_are_checked():
    with pytest.raises(ValueError, match="kind must be one of cell mismatch"):
        ArrayFaults.of_device(resolve_device("published"), heads=1, kind="age")
    q, k, v = codes()
    with pytest.raises(ValueError, match="heads must divide 4 query heads, not 3"):
        counts(PARAMS, [SHOT], q, k, v, first=23, faults=ArrayFaults(heads=3))
    exact = {"exact": True, "faults": ArrayFaults(heads=2)}
    with pytest.raises(ValueError, match="exact must be false with faults"):
        counts(PARAMS, [SHOT], q, k, v, first=23, **exact)
