"""What a user can get wrong with a language model: one clear message each."""

import shutil
import sys

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # tests run two at a time
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from gaincell.cli import main  # noqa: E402
from sim import smollm2  # noqa: E402
from sim.llm import evaluate as evaluation  # noqa: E402
from sim.llm.arrays import ArrayParams  # noqa: E402
from sim.llm.attention import AffineAttention, attach  # noqa: E402
from sim.llm.model import LanguageModel  # noqa: E402
from sim.llm.pipeline import map_model  # noqa: E402
from sim.llm.recipe import Recipe  # noqa: E402


def tiny(size=8, context=64):
    config = transformers.LlamaConfig(
        hidden_size=2 * size, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, vocab_size=64, max_position_embeddings=context,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "whole"
    transformers.utils.logging.disable_progress_bar()
    tiny().save_pretrained(path)
    return path


@pytest.fixture
def broken(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "broken")


def test_weights_that_are_missing_are_never_random(broken):
    file = broken / "model.safetensors"
    weights = load_file(file)
    weights.pop("model.layers.0.self_attn.q_proj.weight")
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"must hold all weights of a LlamaForCausalLM, 1 are missing.*q_proj"
    ):
        LanguageModel.load(str(broken))


def test_a_folder_without_weights_is_refused(broken):
    (broken / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="broken must hold a checkpoint, it does not"):
        LanguageModel.load(str(broken))


def test_a_folder_without_a_tokeniser_is_refused(folder):
    with pytest.raises(ValueError, match="whole must hold a tokeniser"):
        LanguageModel.load(str(folder))


def test_wrong_files_are_refused(broken, tmp_path):
    (broken / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="must be a checkpoint of a causal language model"):
        LanguageModel.load(str(broken))
    (broken / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="must be a checkpoint of a causal language model"):
        LanguageModel.load(str(broken))
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(ValueError, match=r"cut\.gguf must be a checkpoint of a causal"):
        LanguageModel.load(str(cut))


def test_a_model_that_is_not_causal_is_refused(tmp_path):
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        vocab_size=64,
    )  # fmt: skip
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"model must be causal.*BertLMHeadModel is not"):
        LanguageModel.load(str(tmp_path))


def test_heads_that_do_not_fit_a_map_are_refused():
    model = LanguageModel(name="wide", model=tiny(size=240), encode=list, decode=str)
    with pytest.raises(
        ValueError,
        match=r"head size must be in 1..236 for a map with 20 rows and 4 lanes of its own, not 240",
    ):
        map_model(model, torch.zeros(1, 64, dtype=torch.long), Recipe())


def test_a_context_beyond_what_the_model_was_made_for_is_refused():
    model = LanguageModel(name="short", model=tiny(), encode=lambda text: [1] * 999, decode=str)
    with pytest.raises(ValueError, match=r"context must be in 2..64, not 128"):
        model.pieces("", tokens=512, context=128)
    attach(model.model, [AffineAttention(params=ArrayParams(window=16, columns=8), slide=False)])
    with pytest.raises(ValueError, match=r"context must be in 1..16, the window, not 32"):
        model.run(torch.zeros(1, 32, dtype=torch.long))


@pytest.mark.parametrize(
    ("model", "message"),
    (
        ("lost.gguf", "weights must be a file, there is no lost.gguf"),
        ("nowhere/nothing", "model must be smollm2, a GGUF file, a folder with a checkpoint"),
    ),
)
def test_the_command_says_it_in_one_line(monkeypatch, capsys, model, message):
    monkeypatch.setattr(sys, "argv", ["gaincell", "llm", "map", model])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    printed = " ".join(capsys.readouterr().err.split())
    assert printed.startswith("error: ") and message in printed
    assert "Traceback" not in printed


def test_missing_packages_are_named_with_what_installs_them(monkeypatch, capsys):
    def missing(name):
        raise smollm2.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(smollm2.metadata, "files", missing)
    monkeypatch.setattr(sys, "argv", ["gaincell", "llm", "evaluate"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    printed = " ".join(capsys.readouterr().err.split())
    assert "the language model is not installed: run `pip install" in printed
    with pytest.raises(ModuleNotFoundError, match="the play texts are not installed: run `pip"):
        evaluation.load_text("hamlet")
