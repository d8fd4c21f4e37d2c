"""Light adaptation: teaching, checkpoints, files, and the same numbers after merging."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # tests run two at a time
pytest.importorskip("transformers")

from sim.llm import adapt as adaptation  # noqa: E402
from sim.llm import evaluate as evaluation  # noqa: E402
from sim.llm.adapt import AdaptStudy, adapt  # noqa: E402
from sim.llm.adaptable import AdaptableLayer  # noqa: E402
from sim.llm.adapted import DATA, load_adapted  # noqa: E402
from sim.llm.distil import divergence  # noqa: E402
from sim.llm.mapping import calibrate  # noqa: E402
from sim.llm.recipe import Recipe  # noqa: E402
from tests.test_llm_mapping import layer_inputs  # noqa: E402
from tests.test_llm_mapping import model as _model  # noqa: E402

STUDY = {
    "steps": 40, "rank": 4, "contexts": (48,), "shares": (1.0,), "tokens": 96, "warm_up": 2,
    "calibration_tokens": 128, "calibration_context": 64, "half": False,
    "rate": 1e-2, "map_rate": 5e-3,
}  # fmt: skip


@pytest.fixture(autouse=True)
def texts(monkeypatch):
    letters = np.random.default_rng(0).integers(0, 64, 9000)
    text = "".join(chr(64 + letter) for letter in letters)
    for module in (adaptation, evaluation):
        monkeypatch.setattr(module, "load_text", lambda name: text)
    monkeypatch.setattr(adaptation, "available_texts", lambda: ("one", "hamlet", "macbeth"))
    monkeypatch.setattr(adaptation, "_PIECE", 64)


def study(**changes):
    recipe = Recipe(columns=16, sinks=4, position=True)
    return AdaptStudy(**{**STUDY, "recipe": recipe, **changes})


def test_divergence_is_that_of_torch_with_its_gradient():
    generator = torch.Generator().manual_seed(2)
    student, teacher = (torch.randn(300, 16, generator=generator) for _ in range(2))
    head = torch.randn(50, 16, generator=generator)
    student.requires_grad_()
    found = divergence(student, teacher, head)
    wanted = torch.nn.functional.kl_div(
        torch.log_softmax(student @ head.T, -1),
        torch.log_softmax(teacher @ head.T, -1),
        log_target=True,
        reduction="batchmean",
    )
    torch.testing.assert_close(found, wanted)
    ours, theirs = (torch.autograd.grad(x, student)[0] for x in (found, wanted))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("levers", ({}, {"token_s": 0.0}, {"sinks": 4, "position": True}))
def test_training_computes_what_evaluation_computes(levers):
    q, k, v, projection = layer_inputs()
    layer = calibrate(q, k, v, projection, scale=0.25, recipe=Recipe(columns=16, **levers))
    learning = AdaptableLayer(layer)
    with torch.no_grad():
        expected = layer.attend(q, k, v)
    inputs = [x.requires_grad_() for x in (q, k, v)]
    got = learning.attend(*inputs)
    assert torch.equal(got, expected)
    got.square().sum().backward()
    for x in (*inputs, *learning.parameters()):
        assert x.grad is not None and torch.isfinite(x.grad).all() and x.grad.abs().max() > 0


def test_adaptation_teaches(tmp_path):
    found = adapt(study(), tmp_path / "a", model=_model.__wrapped__())
    assert found.curve[-1]["divergence"] < 0.95 * found.curve[0]["divergence"]


def test_adaptation_goes_on_from_its_checkpoint(tmp_path):
    short = study(steps=6)
    straight = adapt(short, tmp_path / "a", model=_model.__wrapped__())
    asked = iter((False, False, False, True))
    adapt(short, tmp_path / "b", model=_model.__wrapped__(), stop=lambda: next(asked))
    resumed = adapt(short, tmp_path / "b", model=_model.__wrapped__())
    assert straight.learnt.keys() == resumed.learnt.keys()
    for name, learnt in straight.learnt.items():
        assert torch.equal(learnt, resumed.learnt[name]), name
    with pytest.raises(ValueError, match="must be a checkpoint of this very study"):
        adapt(study(seed=1), tmp_path / "b", model=_model.__wrapped__())


def test_a_file_holds_the_adapted_model_and_leaves_the_teacher_as_it_was(tmp_path):
    adapted = adapt(study(steps=2), tmp_path / "c", model=_model.__wrapped__())
    path = tmp_path / "adapted.safetensors"
    adapted.save(path)
    model = _model.__wrapped__()
    ids = model.pieces("".join(chr(64 + n % 61) for n in range(300)), tokens=128, context=64)
    model.attach(model.softmax())
    before = model.negative_log_likelihood(ids)
    read = load_adapted(path, model)
    assert read.curve == adapted.curve and read.study["steps"] == 2
    with read.merged(model):
        assert not torch.allclose(model.negative_log_likelihood(ids), before)
    model.attach(model.softmax())
    assert torch.equal(model.negative_log_likelihood(ids), before)
    with pytest.raises(FileNotFoundError, match="run `gaincell llm adapt` first"):
        load_adapted(tmp_path / "none", model)
    (tmp_path / "other").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="must be a file written by"):
        load_adapted(tmp_path / "other", model)


def test_the_control_adapts_too(tmp_path):
    found = adapt(study(control=True, steps=2), tmp_path / "d", model=_model.__wrapped__())
    assert found.layers[0].mean.shape == (4, 8)


def test_the_packages_files_are_small_and_of_the_default_studies():
    files = {control: DATA / f"smollm2{'-control' * control}-1.safetensors" for control in (0, 1)}
    assert sum(path.stat().st_size for path in files.values()) < 12e6
    for control, path in files.items():
        study = AdaptStudy(control=bool(control))
        history = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert history["config_hash"] == study.config_hash
        assert history["curve"][-1]["step"] == study.steps


def test_studies_are_checked():
    with pytest.raises(ValueError, match="shares must be one per context"):
        AdaptStudy(shares=(1.0,))
    with pytest.raises(ValueError, match="rate must be above 0"):
        AdaptStudy(rate=0.0)
