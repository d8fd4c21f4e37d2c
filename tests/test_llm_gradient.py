"""Gradients through the arrays: the same numbers as without, and those of plain tensors."""

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # tests run two at a time
pytest.importorskip("transformers")

from sim.llm.arrays import ArrayParams, Shot  # noqa: E402
from sim.llm.gradient import Stored, passes, rounded, straight  # noqa: E402
from sim.llm.mapping import compensation, nearest  # noqa: E402

SIZE, TOKENS, COMPENSATION = 8, 70, 3


def case(params, seed=5, heads=4, groups=2):
    """Codes, currents wanted, and shots of a few random heads."""
    print(f"seed {seed}")
    generator = torch.Generator().manual_seed(seed)
    levels = params.levels_ua.float()

    def random(*shape):
        return torch.randn(2, *shape, generator=generator)

    keys, values = (4 * random(groups, TOKENS, SIZE) for _ in range(2))
    pulses = (7.5 + 4 * random(heads, TOKENS, SIZE)).clamp(0, params.q_max)
    k_codes, v_codes = nearest(keys, levels), nearest(values, levels)
    rows = compensation(levels[k_codes].sum(-1), COMPENSATION, levels)
    bias_codes = torch.tensor([0, 7, 4])
    s_sat_ua = torch.tensor([[20.0, 35.0]]).expand(heads, 2).clone()
    bias = torch.randint(0, 16, (2, 2, heads, TOKENS, 3), generator=generator).float()
    shots = [
        Shot(
            s_sat_ua=s_sat_ua[:, n, None, None],
            a_sat_ua=torch.tensor(9.0 + 5 * n).expand(heads, 1, 1),
            bias=bias[n],
        )
        for n in range(2)
    ]
    keys = Stored(codes=torch.cat([k_codes, rows], -1), wanted_ua=keys.requires_grad_())
    values = Stored(
        codes=torch.cat([v_codes, v_codes[..., :1] * 0 + 6], -1), wanted_ua=values.requires_grad_()
    )
    wanted_ua = (bias @ levels[bias_codes] / params.q_max).requires_grad_()
    full = torch.full((2, heads, TOKENS, COMPENSATION), float(params.q_max))
    leaves = [pulses.requires_grad_(), keys.wanted_ua, values.wanted_ua, wanted_ua, s_sat_ua]
    s_sat_ua.requires_grad_()
    q = torch.cat([rounded(pulses), full], -1)
    return shots, q, keys, values, wanted_ua, s_sat_ua, bias_codes, leaves


def by_plain_tensors(params, shots, q, keys, values, wanted_ua, s_sat_ua, bias_codes):
    """The same without tiles, and with gradients by torch itself."""
    levels, per = params.levels_ua.float(), q.shape[1] // keys.codes.shape[1]

    def stored(lines):
        size = lines.wanted_ua.shape[-1]
        currents = levels[lines.codes]
        own = straight(lines.wanted_ua, currents[..., :size])
        return torch.cat([own, currents[..., size:]], -1).repeat_interleave(per, 1)

    k, v = stored(keys), stored(values)
    signed = q[..., :SIZE] - params.q_max / 2
    sums = []
    for n, shot in enumerate(shots):
        found = q.detach() @ k.detach().mT + (shot.bias @ levels[bias_codes])[..., None]
        raw = straight(signed @ k[..., :SIZE].mT + params.q_max * wanted_ua[n][..., None], found)
        phi = (raw / s_sat_ua[:, n, None, None]).clamp(0, params.q_max)
        age = torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)
        phi = phi * ((age >= 0) & (age < params.window))
        gain, top = params.count_max / (params.q_max * shot.a_sat_ua), params.count_max
        total = 0
        for start in range(0, min(params.window, TOKENS), params.columns):
            here = torch.arange(TOKENS) % params.window // params.columns == start // params.columns
            charge = (phi * here) @ v * gain
            total = total + rounded(charge.clamp(-top - 0.4999, top + 0.4999)).clamp(-top, top)
        sums.append(total)
    return torch.stack(sums)


@pytest.mark.parametrize(("window", "columns"), ((1024, 16), (48, 16), (40, 16), (70, 70)))
def test_gradients_are_those_of_plain_tensors(window, columns):
    params = ArrayParams(window=window, columns=columns)
    *known, leaves = case(params)
    shots, q, keys, values, wanted_ua, s_sat_ua, bias_codes = known
    got = passes(
        params, shots, q, keys, values,
        wanted_ua=wanted_ua, s_sat_ua=s_sat_ua, bias_codes=bias_codes,
    )  # fmt: skip
    plain = by_plain_tensors(params, *known)
    assert (got != plain).float().mean() < 1e-3
    weight = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad((got * weight).sum(), leaves, retain_graph=True)
    theirs = torch.autograd.grad((plain * weight).sum(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        assert b.abs().max() > 0.1, "no gradient: not a test"
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3 * float(b.abs().max()))
