"""The mapping of one layer: its pieces, its integers against the array model, its files."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # tests run two at a time
transformers = pytest.importorskip("transformers")

from analog_models import AnalogParams, FunctionalHead  # noqa: E402
from analog_models.presets import resolve_device  # noqa: E402
from sim.llm import evaluate as evaluation  # noqa: E402
from sim.llm.arrays import ArrayParams, counts  # noqa: E402
from sim.llm.evaluate import CASES, EvaluationStudy, evaluate  # noqa: E402
from sim.llm.faults import ArrayFaults  # noqa: E402
from sim.llm.mapping import (  # noqa: E402
    LayerMap,
    _Bias,
    _piecewise,
    balance,
    calibrate,
    compensation,
    joint,
    lost,
    nearest,
    softmax_attention,
)
from sim.llm.model import LanguageModel  # noqa: E402
from sim.llm.pipeline import load_map, map_model, mean_control, save_map  # noqa: E402
from sim.llm.published import match_statistics  # noqa: E402
from sim.llm.recipe import Recipe  # noqa: E402

LEVELS = ArrayParams().levels_ua.float()


def correlated(generator, *shape):
    """Vectors whose elements differ in size and share directions, as a model's do."""
    size = shape[-1]
    mix = torch.randn(size, size, generator=generator) * torch.logspace(0.4, -0.8, size)
    return torch.randn(*shape, generator=generator) @ mix.T / 2


def layer_inputs(seed=3, sequences=3, heads=4, kv_heads=2, tokens=96, size=16):
    print(f"seed {seed}")
    generator = torch.Generator().manual_seed(seed)
    k = correlated(generator, sequences, kv_heads, tokens, size) + 0.5
    q = correlated(generator, sequences, heads, tokens, size)
    v = torch.randn(sequences, kv_heads, tokens, size, generator=generator)
    projection = torch.randn(heads * size, heads * size, generator=generator)
    return q, k, v, projection


# --- pieces ------------------------------------------------------------------------------------
def test_balance_reaches_its_bound_and_changes_no_score():
    generator = torch.Generator().manual_seed(0)
    k, q = (correlated(generator, 500, 8) for _ in range(2))
    c, m = k.T @ k / 500, q.T @ q / 500
    a, inverse = balance(c, m)
    torch.testing.assert_close(a @ inverse, torch.eye(8), rtol=1e-3, atol=1e-3)

    def noise(a, inverse):
        return float(torch.trace(a @ c @ a.T) * torch.trace(inverse.T @ m @ inverse))

    eye = torch.eye(8)
    assert noise(a, inverse) < 0.9 * noise(eye, eye)
    for step in range(20):  # no neighbour is much better: the ridge moves the optimum a little
        nudge = eye + 0.05 * torch.randn(8, 8, generator=generator)
        assert noise(a @ nudge, torch.linalg.inv(nudge) @ inverse) > 0.97 * noise(a, inverse), step


def test_joint_codes_have_less_score_error_than_nearest_ones():
    generator = torch.Generator().manual_seed(1)
    target = 4 * torch.randn(200, 16, generator=generator)
    pulses = correlated(generator, 300, 16) + 0.5
    moment = pulses.T @ pulses / 300

    def error(codes):
        return float((((LEVELS[codes] - target) @ pulses.T) ** 2).mean())

    assert error(joint(target, LEVELS, moment)) < 0.6 * error(nearest(target, LEVELS))


def test_nearest_codes_are_nearest():
    target = torch.linspace(-14, 14, 301)
    expected = (target[:, None] - LEVELS).abs().argmin(1)
    assert torch.equal(nearest(target, LEVELS), expected)


@pytest.mark.parametrize("rows", (0, 1, 8))
def test_compensation_rows_hold_the_negated_half_sum(rows):
    total = torch.linspace(-90, 90, 50)
    codes = compensation(total, rows, LEVELS)
    assert codes.shape == (50, rows)
    if rows == 8:
        assert (LEVELS[codes].sum(-1) + total / 2).abs().max() < 1.8  # half a step of the last row


def test_bias_rows_come_near_the_current_wanted():
    bias = _Bias.of(12, LEVELS)
    wanted = torch.linspace(-70, 25, 400)
    pulses = bias.pulses(wanted, 15)
    assert pulses.min() >= 0 and pulses.max() <= 15 and torch.equal(pulses, pulses.round())
    got = pulses @ LEVELS[bias.codes] / 15
    assert (got - wanted).abs().max() < 0.06
    beyond = bias.pulses(torch.tensor([-500.0, 500.0]), 15) @ LEVELS[bias.codes] / 15
    assert beyond[0] < -70 and beyond[1] > 25


@pytest.mark.parametrize(("shots", "most"), ((1, 0.16), (2, 0.04), (3, 0.02)))
def test_ramps_add_up_to_an_exponential(shots, most):
    x = np.arange(-8, 1.5, 0.1)
    weight = np.exp(-0.5 * (x + 4) ** 2 / 4)
    w, start, length = _piecewise(x, np.exp(x), weight, shots)
    fit = w @ np.clip((x - start[:, None]) / length[:, None], 0, 1)
    error = (weight * (fit - np.exp(x)) ** 2).sum() / (weight * np.exp(2 * x)).sum()
    assert error < most


# --- one layer ---------------------------------------------------------------------------------
def test_a_mapped_layer_comes_near_softmax_on_tokens_it_has_not_seen():
    q, k, v, projection = layer_inputs(sequences=6)
    found = calibrate(q[:4], k[:4], v[:4], projection, scale=0.25, recipe=Recipe(columns=16))
    exact = softmax_attention(q[4:], k[4:], v[4:], 0.25)
    error = lost(found.attend(q[4:], k[4:], v[4:]), exact, projection)
    assert error.median() < 0.5, error  # vectors without structure: the hard case
    assert lost(exact.mean((0, 2), keepdim=True).expand_as(exact), exact, projection).min() > 0.9


def test_more_bits_and_no_leakage_come_nearer():
    q, k, v, projection = layer_inputs()
    coarse = calibrate(q, k, v, projection, scale=0.25, recipe=Recipe())
    fine = Recipe(q_bits=8, kv_bits=8, count_bits=8, joint=False, token_s=0.0, shots=3)
    fine = calibrate(q, k, v, projection, scale=0.25, recipe=fine)
    assert fine.error.median() < 0.75 * coarse.error.median()


@pytest.mark.parametrize("sinks", (0, 1, 3))
def test_newest_tokens_alone_are_as_in_the_whole_sequence(sinks):
    q, k, v, projection = layer_inputs()
    recipe = Recipe(sinks=sinks, columns=16, window=32)
    found = calibrate(q, k, v, projection, scale=0.25, recipe=recipe)
    whole = found.attend(q, k, v, exact=True)
    for token in (0, 2, 40, 95):
        upto = slice(0, token + 1)
        alone = found.attend(q[:, :, token : token + 1], k[:, :, upto], v[:, :, upto], exact=True)
        torch.testing.assert_close(alone[:, :, 0], whole[:, :, token], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("token_s", (0.0, 0.8e-6, 5e-5))
def test_integers_are_those_of_the_functional_head(token_s):
    """Codes, shots and levels of a map, token by token through the array model of one head."""
    q, k, v, projection = layer_inputs(tokens=60)
    recipe = Recipe(window=32, columns=16, token_s=token_s)
    found = calibrate(q, k, v, projection, scale=0.25, recipe=recipe)
    q, k, v = q[:1], k[:1], v[:1]
    sinks, size, head = recipe.sinks, 16, 2
    passes, bias_codes = found.shots(found.threshold(q, k))
    rows = found.full_rows(q)
    keys = found._per_query_head(found.key_codes(k[:, :, sinks:]))[0, head]
    values = found._per_query_head(found.value_codes(v[:, :, sinks:]))[0, head]
    sums, _ = counts(
        recipe.arrays,
        passes,
        rows,
        found._per_query_head(found.key_codes(k[:, :, sinks:])),
        found._per_query_head(found.value_codes(v[:, :, sinks:])),
        bias_codes=bias_codes,
        first=-sinks,
        exact=True,
    )
    array = FunctionalHead(
        AnalogParams(
            subtiles=2,
            columns=16,
            rows=recipe.rows(size),
            lanes=recipe.lanes(size),
            decay_per_token=recipe.arrays.decay_per_token,
        )
    )
    compared = 0
    for token in range(sinks, 60):
        column = torch.cat([keys[token - sinks], bias_codes]).numpy()
        array.write(column, values[token - sinks].numpy())
        for n, shot in enumerate(passes):
            pulses = torch.cat([rows[0, head, token], shot.bias[0, head, token]])
            result = array.query(
                pulses.long().numpy(),
                s_level=int(found.s_sat_ua[head, n]),
                a_level=int(found.a_sat_ua[head, n]),
            )
            assert np.array_equal(result.sums, sums[n][0, head, token].numpy())
            compared += np.count_nonzero(result.sums)
    assert compared > 1000


def test_calibration_needs_more_than_a_few_tokens():
    q, k, v, projection = layer_inputs(tokens=20)
    with pytest.raises(ValueError, match=r"sequences of over 32 tokens, not 20"):
        calibrate(q, k, v, projection, scale=0.25, recipe=Recipe())


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"shots": 5}, r"shots must be in 1..4, not 5"),
        ({"sinks": -1}, "sinks must be in"),
        ({"clip": 0.1}, r"clip must be in 0.5..1, not 0.1"),
        ({"token_s": 1.0}, "token_s must be in"),
        ({"window": 0}, "window must be in"),
    ),
)
def test_recipes_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**changes)


def test_prices_follow_the_levers():
    base = Recipe()
    assert base.rows(64) == 84 and base.lanes(64) == 68
    assert base.clocks() == 36
    assert Recipe(shots=3).clocks() == 52
    assert sum(base.host_macs(64, 3).values()) < 0.1 * 2 * 64 * 1024
    assert base.host_bytes(64) > base.host_bytes(64, 3)
    assert base.config_hash != Recipe(shots=3).config_hash


# --- a whole model -----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def model():
    torch.manual_seed(2)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, vocab_size=64, initializer_range=0.4,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    loaded = transformers.AutoModelForCausalLM.from_config(config).eval()
    return LanguageModel(
        name="tiny",
        model=loaded,
        encode=lambda text: [ord(letter) % 64 for letter in text],
        decode=lambda ids: "".join(chr(64 + token) for token in ids),
    )


def test_layers_are_mapped_in_order_and_kept_in_a_file(model, tmp_path):
    ids = torch.randint(0, 64, (2, 64), generator=torch.Generator().manual_seed(4))
    seen = []
    layers = map_model(model, ids, Recipe(columns=16), progress=lambda *step: seen.append(step))
    assert seen == [(1, 2), (2, 2)]
    assert all(isinstance(layer, LayerMap) for layer in layers)
    path = tmp_path / "map.safetensors"
    save_map(path, layers, "tiny")
    read = load_map(path)
    model.attach(layers)
    before = model.negative_log_likelihood(ids)
    model.attach(read)
    assert torch.equal(model.negative_log_likelihood(ids), before)
    assert read[0].recipe == layers[0].recipe
    with pytest.raises(FileNotFoundError, match="run `gaincell llm map` first"):
        load_map(tmp_path / "none.safetensors")
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="must be a map written by"):
        load_map(other)


def test_layers_not_chosen_keep_softmax(model):
    ids = torch.randint(0, 64, (2, 64), generator=torch.Generator().manual_seed(4))
    layers = map_model(model, ids, Recipe(columns=16), choose=lambda index: index == 1)
    assert [type(layer).__name__ for layer in layers] == ["SoftmaxAttention", "LayerMap"]
    control = mean_control(model, ids)
    assert control[0].mean.shape == (4, 8)


def test_evaluation_has_a_row_per_case_text_and_context(model, monkeypatch):
    letters = np.random.default_rng(0).integers(0, 64, 9000)
    text = "".join(chr(64 + letter) for letter in letters)
    monkeypatch.setattr(evaluation, "load_text", lambda name: text)
    small = {"columns": 16}
    cases = [
        dataclasses.replace(case, contexts=(64,), recipe=dataclasses.replace(case.recipe, **small))
        for case in CASES
        if case.kind in ("softmax", "mean", "published")
        or case.name in ("mapped: all of it", "mapped, one shot")
    ]
    study = EvaluationStudy(
        cases=tuple(case.name for case in cases), tokens=128, calibration_tokens=128
    )
    result = evaluate(study, model, cases=cases)
    rows = result["rows"]
    assert len(rows) == 2 * len(cases)
    wanted = {"case", "layers", "trained", "context", "text", "perplexity", "teacher", "control"}
    assert all(wanted <= set(row) for row in rows)
    assert all(row["ratio"] == 1.0 for row in rows if "teacher" in row["case"])
    assert all(row["recovered"] == 0.0 for row in rows if "control" in row["case"])
    assert all(row["layers"] == 2 and np.isfinite(row["perplexity"]) for row in rows)
    assert [layer["layer"] for layer in result["activity"]] == [0, 1]
    for layer in result["activity"]:
        assert len(layer["active"]) == len(layer["q_clipped"]) == 4
        assert len(layer["k_clipped"]) == len(layer["v_clipped"]) == 2
        for share in ("active", "saturated", "full_scale", "q_clipped", "v_clipped"):
            assert all(0 <= x <= 1 for x in layer[share]), share
        assert all(s <= m <= a for s, m, a in zip(
            layer["saturated"], layer["mean_pulse"], layer["active"], strict=True))  # fmt: skip
    json.dumps(result)


def test_adapted_models_of_one_kind_have_a_seed_each(model):
    twice = [SimpleNamespace(study={"seed": 3})] * 2
    with pytest.raises(ValueError, match=r"kind 'adapted' must have one seed each, not \[3, 3\]"):
        evaluate(EvaluationStudy(), model, adapted={"adapted": twice})


@pytest.mark.parametrize("sinks", (1, 3))
def test_queries_that_see_only_sinks_are_exact(sinks):
    q, k, v, projection = layer_inputs()
    layer = calibrate(q, k, v, projection, scale=0.35, recipe=Recipe(columns=16, sinks=sinks))
    exact = softmax_attention(q, k, v, layer.scale)
    out = layer.attend(q, k, v)
    torch.testing.assert_close(out[:, :, :sinks], exact[:, :, :sinks], rtol=1e-4, atol=1e-5)
    faults = ArrayFaults.of_device(resolve_device("sky130-tt"), heads=2)
    out_of_devices = layer.attend(q, k, v, faults=faults)
    torch.testing.assert_close(
        out_of_devices[:, :, :sinks], exact[:, :, :sinks], rtol=1e-4, atol=1e-5
    )
    # However far a sink's score lies below the threshold, alone it is everything.
    top = layer.top.clone()
    top[:, 0] += 200.0
    far = dataclasses.replace(layer, top=top).attend(q[:, :, :1], k[:, :, :1], v[:, :, :1])
    torch.testing.assert_close(far, exact[:, :, :1], rtol=1e-4, atol=1e-5)
    newest = layer.attend(q[:, :, -1:], k, v)
    torch.testing.assert_close(newest, out[:, :, -1:], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(out[:, :, sinks:], exact[:, :, sinks:], rtol=1e-4, atol=1e-5)


def test_the_published_structure_by_channel_comes_nearer_than_by_head():
    q, k, v, projection = layer_inputs()
    layer, exact = SimpleNamespace(scaling=0.35), softmax_attention(q, k, v, 0.35)
    by_head, by_channel = (
        match_statistics(layer, q, k, v, ArrayParams(columns=16), by_channel=by_channel)
        for by_channel in (False, True)
    )
    assert by_channel.k_offset.shape == by_channel.out_scale.shape == (4, 16)
    # Means agree by head or by channel, and least squares loses no more than the mean does.
    dims = ((0, 2, 3), (0, 2))
    for found, dim in zip((by_head, by_channel), dims, strict=True):
        torch.testing.assert_close(
            found.attend(q, k, v).mean(dim), exact.mean(dim), rtol=1e-4, atol=1e-5
        )
    shares = [lost(found.attend(q, k, v), exact, projection) for found in (by_head, by_channel)]
    assert (shares[1] < shares[0]).all() and (shares[1] <= 1.01).all()


def test_errors_of_models_and_texts_are_clear(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no lost\.gguf"):
        LanguageModel.load(str(tmp_path / "lost.gguf"))
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"text")
    with pytest.raises(ValueError, match=r"wrong\.gguf must be a GGUF file"):
        LanguageModel.load(str(wrong))
    with pytest.raises(ValueError, match=r"context must be in 2..128, not 200"):
        model.pieces("a", tokens=200, context=200)
    with pytest.raises(ValueError, match="text must have 64 tokens"):
        model.pieces("a", tokens=64, context=64)
    with pytest.raises(ValueError, match="case must be one of"):
        EvaluationStudy(cases=("none",))
