"""The adapter for lm-evaluation-harness, with the harness itself, on a task made here."""

import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # tests run two at a time
transformers = pytest.importorskip("transformers")
pytest.importorskip("lm_eval", reason="needs `pip install .[lm-eval]`")

from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.api.registry import get_model  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from sim.llm.lm_eval_adapter import PAPER_TASKS, GaincellLM  # noqa: E402
from sim.llm.model import LanguageModel  # noqa: E402
from sim.llm.pipeline import map_model, save_map  # noqa: E402
from sim.llm.recipe import Recipe  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of the harness and what it brings along


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(2)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=128, max_position_embeddings=128,
        initializer_range=0.3, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    return LanguageModel(
        name="tiny",
        model=transformers.AutoModelForCausalLM.from_config(config).eval(),
        encode=lambda text: list(text.encode("ascii")),
        decode=lambda ids: bytes(ids).decode("ascii"),
    )


@pytest.fixture(scope="module")
def mapped(model, tmp_path_factory):
    ids = torch.randint(32, 127, (2, 64), generator=torch.Generator().manual_seed(3))
    path = tmp_path_factory.mktemp("map") / "map.safetensors"
    save_map(path, map_model(model, ids, Recipe(window=96, columns=32)), "tiny")
    return path


def likelihood(model, context, continuation):
    """By the model as it is now, one pair by itself."""
    ids = torch.tensor([list((context + continuation).encode())])
    with torch.no_grad():
        logits = model.model(ids[:, :-1], use_cache=False).logits[0].log_softmax(-1)
    asked = ids[0, len(context) :]
    last = logits[len(context) - 1 :]
    return float(last.gather(1, asked[:, None]).sum()), bool((last.argmax(-1) == asked).all())


class Request:
    def __init__(self, *args):
        self.args = args


@pytest.mark.parametrize("attention", ("softmax", "mapped"))
def test_likelihoods_are_the_models_own_whatever_shares_the_batch(model, mapped, attention):
    adapter = GaincellLM(pretrained=model, attention=attention, map=mapped, batch_size=3)
    pairs = [("abc", "d"), ("a longer context, of some words", " and more"), ("q", "xyz")] * 2
    got = adapter.loglikelihood([Request(*pair) for pair in pairs], disable_tqdm=True)
    for pair, (score, greedy) in zip(pairs, got, strict=True):
        expected = likelihood(model, *pair)
        assert score == pytest.approx(expected[0], rel=1e-3, abs=1e-3)
        assert greedy == expected[1]


def test_rolling_likelihood_counts_every_token_once(model, mapped):
    adapter = GaincellLM(pretrained=model, map=mapped, context=32)
    text = "".join(chr(c) for c in np.random.default_rng(0).integers(97, 122, 75))
    (got,) = adapter.loglikelihood_rolling([Request(text)])
    expected = 0.0  # pieces of 32, the last one reaching back
    expected += likelihood(model, "\x01", text[:32])[0]
    expected += likelihood(model, text[31:32], text[32:64])[0]
    expected += likelihood(model, text[42:64], text[64:])[0]
    assert got == pytest.approx(expected, rel=1e-3)


def test_generation_is_the_likeliest_text_up_to_a_mark(model, mapped):
    adapter = GaincellLM(pretrained=model, map=mapped)
    how = {"until": [], "max_gen_toks": 12}
    try:
        (text,) = adapter.generate_until([Request("start", how)])
    except UnicodeDecodeError:
        pytest.fail("the tiny model wrote no ASCII")
    ids = list(b"start")
    for letter in text:
        with torch.no_grad():
            logits = model.model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        assert int(logits.argmax()) == ord(letter)
        ids.append(ord(letter))
    assert 1 <= len(text) <= 12
    (cut,) = adapter.generate_until([Request("start", how | {"until": [text[1]]})])
    assert cut == text[: text.index(text[1])]


def test_the_harness_runs_a_task(model, mapped, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"ask": f"{a} and", "choices": [" this", " that"], "right": a % 2} for a in range(6)]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows))
    task = tmp_path / "tasks" / "tiny.yaml"
    task.parent.mkdir()
    task.write_text(
        f"""
task: tiny_choice
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{ask}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: right
target_delimiter: ""
metric_list:
  - metric: acc
"""
    )
    assert get_model("gaincell") is GaincellLM
    adapter = GaincellLM(pretrained=model, map=mapped)
    found = simple_evaluate(
        model=adapter,
        tasks=["tiny_choice"],
        task_manager=TaskManager(include_path=str(task.parent), include_defaults=False),
        bootstrap_iters=0,
    )
    right = 0
    for row in rows:
        scores = [likelihood(model, row["ask"], choice)[0] for choice in row["choices"]]
        right += int(np.argmax(scores) == row["right"])
    assert found["results"]["tiny_choice"]["acc,none"] == pytest.approx(right / 6)


def test_the_harness_knows_the_papers_tasks():
    known = TaskManager().all_tasks
    assert set(PAPER_TASKS) <= set(known)
    assert len(PAPER_TASKS) == 7


def test_errors_are_clear(model, mapped, tmp_path):
    with pytest.raises(ValueError, match="attention must be one of mapped, softmax, not 'none'"):
        GaincellLM(pretrained=model, attention="none")
    with pytest.raises(ValueError, match="map must be a file written by `gaincell llm map`"):
        GaincellLM(pretrained=model)
    with pytest.raises(FileNotFoundError, match="run `gaincell llm map` first"):
        GaincellLM(pretrained=model, map=tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match=r"context must be in 2..96, not 97"):
        GaincellLM(pretrained=model, map=mapped, context=97)
    with pytest.raises(ValueError, match="device must be cpu, not 'cuda'"):
        GaincellLM(pretrained=model, map=mapped, device="cuda")
    other = LanguageModel(
        name="other",
        model=transformers.AutoModelForCausalLM.from_config(
            transformers.LlamaConfig(
                hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
                vocab_size=128,
            )
        ),
        encode=model.encode,
        decode=model.decode,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"map.safetensors must be a map of other"):
        GaincellLM(pretrained=other, map=mapped)
    adapter = GaincellLM(pretrained=model, map=mapped, context=8)
    with pytest.raises(ValueError, match=r"continuation must be in 1..8 tokens, not 9"):
        adapter.loglikelihood([Request("a", "bcdefghij")], disable_tqdm=True)
    assert math.isfinite(adapter.loglikelihood([Request("a", "b")], disable_tqdm=True)[0][0])
