"""The hardware as an attention of transformers: tiny random models of both families."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # tests run two at a time
transformers = pytest.importorskip("transformers")

from analog_models import attend  # noqa: E402
from sim.llm.arrays import ArrayParams, Statistics  # noqa: E402
from sim.llm.attention import (  # noqa: E402
    AffineAttention,
    MeanAttention,
    SoftmaxAttention,
    attach,
    attention_layers,
    output_projection,
)
from sim.llm.mapping import softmax_attention  # noqa: E402

SMALL = {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 63, "pad_token_id": 63}


def tiny(family, heads=4, kv_heads=2, size=16):
    torch.manual_seed(1)
    if family == "gpt2":
        config = transformers.GPT2Config(
            n_embd=heads * size, n_head=heads, n_layer=2, n_positions=256, **SMALL
        )
    else:
        config = transformers.LlamaConfig(
            hidden_size=heads * size,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            max_position_embeddings=256,
            initializer_range=0.5,
            **SMALL,
        )
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="gaincell")
    return model.eval()


class Recorder:
    """Wraps what a layer computes and keeps what went in and what the counters gave."""

    def __init__(self, layer):
        self.layer, self.calls = layer, []

    def attend(self, q, k, v):
        self.calls.append((q, k, v, self.layer.sums(q, k, v)))
        return self.layer.attend(q, k, v)


def tokens(count, seed=0, batch=2):
    print(f"seed {seed}")
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 60, (batch, count)))


@pytest.mark.parametrize("family", ("gpt2", "llama"))
@pytest.mark.parametrize("cell", ("published", "linear"))
@pytest.mark.parametrize("decay", (0.0, 1e-3))
def test_codes_are_those_of_the_array_models(family, cell, decay):
    model = tiny(family)
    params = ArrayParams(window=48, columns=16, cell=cell, decay_per_token=decay)
    layers = [
        Recorder(AffineAttention(params=params, s_sat_ua=12.0, a_sat_ua=9.0)) for _ in range(2)
    ]
    attach(model, layers)
    with torch.no_grad():
        model(tokens(70))
    for recorder in layers:
        ((q, k, v, sums),) = recorder.calls
        pulses, keys, values = (x.numpy() for x in recorder.layer.inputs(q, k, v))
        for sequence in range(q.shape[0]):
            for head in range(q.shape[1]):
                expected = attend(
                    pulses[sequence, head],
                    keys[sequence, head],
                    values[sequence, head],
                    cell=cell,
                    window=48,
                    columns=16,
                    decay_per_token=decay,
                    s_sat_ua=12.0,
                    a_sat_ua=9.0,
                )
                assert np.array_equal(sums[sequence, head].numpy(), np.rint(expected.out * 15))
        assert len(np.unique(sums)) > 10, "hardly any count: not a test"


@pytest.mark.parametrize("family", ("gpt2", "llama"))
def test_generation_with_cache_is_one_shot_evaluation_and_the_window_slides(family):
    model = tiny(family)
    layer = AffineAttention(
        params=ArrayParams(window=24, columns=8, decay_per_token=1e-3), s_sat_ua=12.0, a_sat_ua=9.0
    )
    attach(model, [layer, layer])
    start = tokens(10, batch=1)
    got = model.generate(
        start, max_new_tokens=40, min_new_tokens=40, do_sample=False, use_cache=True,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    with torch.no_grad():
        whole = model(got.sequences[:, :-1], use_cache=False).logits[:, 9:]
    assert got.sequences.shape[1] == 50
    torch.testing.assert_close(torch.stack(got.logits, dim=1), whole, rtol=1e-4, atol=1e-4)
    assert torch.equal(whole.argmax(-1), got.sequences[:, 10:])
    # What left the window has no influence through these layers.
    other = dataclasses.replace(layer, params=dataclasses.replace(layer.params, window=1024))
    attach(model, [other, other])
    with torch.no_grad():
        longer = model(got.sequences[:, :-1], use_cache=False).logits[:, 9:]
    assert torch.allclose(longer[:, :10], whole[:, :10])
    assert not torch.allclose(longer[:, -1], whole[:, -1])


def test_softmax_choice_equals_the_model_as_it_was():
    model = tiny("llama")
    ids = tokens(33)
    with torch.no_grad():
        attach(model, [SoftmaxAttention(16**-0.5)] * 2)
        got = model(ids).logits
        model.set_attn_implementation("eager")
        torch.testing.assert_close(got, model(ids).logits, rtol=1e-4, atol=1e-4)


def test_layers_are_chosen_one_by_one():
    model = tiny("llama")
    ids = tokens(20)
    mean = MeanAttention(torch.zeros(4, 16))
    with torch.no_grad():
        attach(model, [SoftmaxAttention(0.25), SoftmaxAttention(0.25)])
        before = model(ids).logits
        attach(model, {1: mean})
        one = model(ids).logits
        attach(model, {0: mean})
        both = model(ids).logits
    assert not torch.allclose(before, one) and not torch.allclose(one, both)


def test_without_a_choice_a_layer_is_the_nonlinear_cell_with_default_scalers():
    model = tiny("gpt2")
    ids = tokens(12)
    with torch.no_grad():
        default = model(ids).logits
        attach(model, [AffineAttention(), AffineAttention()])
        assert torch.equal(model(ids).logits, default)


def test_newest_queries_of_softmax_are_those_of_the_whole_sequence():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, heads, 9, 8) for heads in (4, 2, 2))
    whole = softmax_attention(q, k, v, 0.3)
    torch.testing.assert_close(softmax_attention(q[:, :, 6:], k, v, 0.3), whole[:, :, 6:])


def test_statistics_come_from_every_layer():
    seen = Statistics()
    layer = AffineAttention(s_sat_ua=12.0, a_sat_ua=9.0)
    q, k, v = (torch.randn(1, heads, 9, 8) for heads in (4, 2, 2))
    layer.sums(q, k, v, statistics=seen)
    assert seen.pairs.tolist() == [45] * 4


def test_output_projections_are_seen_alike_in_both_families():
    for family in ("gpt2", "llama"):
        model = tiny(family)
        layer = attention_layers(model)[0]
        x = torch.randn(3, 64)
        projection = layer.c_proj if family == "gpt2" else layer.o_proj
        bias = getattr(projection, "bias", None)
        expected = projection(x) - (0 if bias is None else bias)
        torch.testing.assert_close(x @ output_projection(layer).T, expected)


# --- errors ------------------------------------------------------------------------------------
def test_non_causal_model_is_refused():
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        vocab_size=64, attn_implementation="gaincell",
    )  # fmt: skip
    model = transformers.BertModel(config).eval()
    model.set_attn_implementation("gaincell")
    with pytest.raises(ValueError, match="model must be causal"):
        model(tokens(5))


def test_head_size_that_does_not_fit_is_refused():
    model = tiny("gpt2", heads=1, size=320)
    with pytest.raises(ValueError, match=r"head size must be in 1..256, not 320"):
        model(tokens(5))


def test_padding_is_refused():
    model = tiny("llama")
    mask = torch.ones(2, 5, dtype=torch.long)
    model(tokens(5), attention_mask=mask)
    mask[0, 0] = 0
    with pytest.raises(ValueError, match="attention_mask must be all ones"):
        model(tokens(5), attention_mask=mask)


def test_context_beyond_a_window_that_does_not_slide_is_refused():
    model = tiny("llama")
    attach(model, [AffineAttention(params=ArrayParams(window=8, columns=8), slide=False)] * 2)
    model(tokens(8))
    with pytest.raises(ValueError, match=r"context must be in 1..8, the window, not 9"):
        model(tokens(9))


def test_wrong_layers_are_refused():
    model = tiny("llama")
    with pytest.raises(ValueError, match=r"layer must be in 0..1, not 2"):
        attach(model, {2: None})
    with pytest.raises(ValueError, match="layers must be 2"):
        attach(model, [None])
    with pytest.raises(ValueError, match="model must be of the GPT-2 or Llama family"):
        attach(torch.nn.Linear(2, 2), [])
