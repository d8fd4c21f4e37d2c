"""The published algorithm: straight gradients, matching of statistics, stages on small tasks."""

import copy
import dataclasses
import itertools
import json
import math

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # tests run two at a time
transformers = pytest.importorskip("transformers")

from analog_models.faults import Faults  # noqa: E402
from sim.llm import published_study as studies  # noqa: E402
from sim.llm.arrays import ArrayParams  # noqa: E402
from sim.llm.attention import AffineAttention, attach  # noqa: E402
from sim.llm.disturbed import FreshDevices  # noqa: E402
from sim.llm.faults import ArrayFaults  # noqa: E402
from sim.llm.initialise import FIRST_STEP, LAST_STEP, iterate, record  # noqa: E402
from sim.llm.noise import CASES, NoiseStudy, run_noise  # noqa: E402
from sim.llm.published_study import ORDER, PublishedStudy, TaskStudy, run_study  # noqa: E402
from sim.llm.small import Letters, Recall  # noqa: E402
from sim.llm.straight import SCALERS, StraightAttention, _Multiply, _rounded  # noqa: E402
from sim.llm.study_plots import draw_noise, draw_published  # noqa: E402
from sim.results import ROOT  # noqa: E402

CELL = (0.5213636, 13.6122606, -2.6204456, 46.0548378)


def scalers(heads=4, **params):
    def column(low, high):
        return torch.linspace(low, high, heads, dtype=torch.float64)

    return AffineAttention(
        params=ArrayParams(**params), q_scale=column(0.1, 0.3), k_scale=column(0.05, 0.2),
        q_offset=column(0.4, 0.5), k_offset=column(0.4, 0.5), out_scale=column(0.5, 2.0),
        out_offset=column(-1.0, 1.0), s_sat_ua=12.0, a_sat_ua=9.0,
    )  # fmt: skip


# --- straight gradients ------------------------------------------------------------------------
@pytest.mark.parametrize("cell", ("published", "linear"))
@pytest.mark.parametrize("decay", (0.0, 2e-3))
@pytest.mark.parametrize("window", (64, 24))
def test_forward_is_what_the_exact_arrays_give(cell, decay, window):
    start = scalers(window=window, columns=8, cell=cell, decay_per_token=decay)
    q, k, v = (torch.randn(2, heads, 50, 16) for heads in (4, 2, 2))
    expected = start.attend(q, k, v)
    got = StraightAttention(start, 4).attend(q, k, v)
    # A charge within float32's rounding of a boundary, or a code within it, may fall otherwise.
    assert ((got - expected).abs() > 1e-3).double().mean() < 5e-3
    assert got.std() > 0.1, "nothing comes out: not a test"


@pytest.mark.parametrize("fade", (None, torch.rand(5, 7)))
def test_a_product_has_the_gradient_of_the_linear_cell(fade):
    pulses, u = torch.rand(5, 3, requires_grad=True), torch.randn(7, 3, requires_grad=True)
    weight = torch.randn(5, 7)
    (_Multiply.apply(pulses, u, CELL, fade, True) * weight).sum().backward()
    got = pulses.grad, u.grad
    pulses.grad = u.grad = None
    left = 1.0 if fade is None else fade
    (19.3 * (pulses @ u.T) * left * weight).sum().backward()
    torch.testing.assert_close(got, (pulses.grad, u.grad))

    phi, u = torch.rand(5, 7, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    weight = torch.randn(5, 4)
    (_Multiply.apply(phi, u, CELL, fade, False) * weight).sum().backward()
    got = phi.grad, u.grad
    phi.grad = u.grad = None
    (19.3 * ((phi * left) @ u) * weight).sum().backward()
    torch.testing.assert_close(got, (phi.grad, u.grad))


def test_the_linear_cells_gradient_is_its_own():
    pulses = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    u = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    fade = torch.rand(2, 4, dtype=torch.float64)
    for scores in (True, False):
        other = u if scores else torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
        left = fade if scores else torch.rand(2, 3, dtype=torch.float64)
        assert torch.autograd.gradcheck(
            lambda a, b, left=left, scores=scores: _Multiply.apply(a, b, (0.0, 19.3), left, scores),
            (pulses, other),
        )


def test_quantisers_pass_gradients_and_clips_end_them():
    x = torch.tensor([-0.2, 0.31, 0.77, 1.4], requires_grad=True)
    _rounded(x.clamp(0.0, 1.0), 15).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert _rounded(torch.tensor(0.31), 15).item() == pytest.approx(5 / 15)


def test_every_scaler_is_trained():
    layer = StraightAttention(scalers(window=64, columns=8), 4)
    q, k, v = (torch.randn(2, 4, 20, 16, requires_grad=True) for _ in range(3))
    layer.attend(q, k, v).square().sum().backward()
    assert {n for n, _ in layer.named_parameters()} == {
        f"{name}_{part}" for name in SCALERS for part in ("scale", "offset")
    }
    for name, value in [*layer.named_parameters(), ("q", q), ("k", k), ("v", v)]:
        assert value.grad is not None and value.grad.abs().max() > 0, name
    again = layer.affine()
    assert torch.equal(again.q_scale.float(), layer.q_scale.detach())


def test_fresh_devices_have_the_spreads_they_are_given():
    faults = ArrayFaults(
        faults=Faults(cell_gain_sigma=0.1, cell_offset_sigma_ua=0.5, score_gain_sigma=0.02,
                      read_noise_ua=0.2),
        score_offset_ua_clk=6.0,
    )  # fmt: skip
    devices = FreshDevices(faults, ArrayParams(), torch.Generator().manual_seed(0))
    pulses, current = torch.rand(2, 5, 8), torch.randn(2, 7, 8) * 5
    drawn = torch.stack([devices.scores(pulses, current) for _ in range(4000)])
    ideal = pulses @ current.mT
    square = (pulses**2) @ (0.1**2 * current**2 + 0.5**2).mT  # cells
    square += (6.0 / 15) ** 2 + 0.2**2 * pulses.sum(-1, keepdim=True) / 15  # offset, noise
    square += 0.02**2 * (ideal**2 + square)
    # Five standard errors, of a mean and of a spread.
    assert (drawn.mean(0).abs() < 5 * square.sqrt() / 4000**0.5).all()
    assert ((drawn.std(0) / square.sqrt() - 1).abs() < 5 / (2 * 4000) ** 0.5 * 1.3).all()


def test_disturbed_layers_train_and_differ_from_call_to_call():
    layer = StraightAttention(scalers(window=64, columns=8), 4)
    q, k, v = (torch.randn(2, 4, 20, 16, requires_grad=True) for _ in range(3))
    ideal = layer.attend(q, k, v)
    spreads = ArrayFaults(faults=Faults(cell_gain_sigma=0.1), output_offset_ua_clk=30.0, heads=4)
    layer.disturbance = FreshDevices(spreads, layer.params, torch.Generator().manual_seed(0))
    one, two = layer.attend(q, k, v), layer.attend(q, k, v)
    assert not torch.equal(one, ideal) and not torch.equal(one, two)
    one.square().sum().backward()
    assert all(x.grad is not None and x.grad.abs().max() > 0 for x in (q, k, v))


# --- matching ----------------------------------------------------------------------------------
def two_layers(**params):
    model = Recall(keys=6).model(0)
    layers = [StraightAttention(scalers(2, **params), 2) for _ in range(2)]
    attach(model, layers)
    return model.eval(), layers


def test_statistics_come_to_match_from_layer_to_layer():
    ids, _ = Recall(keys=6).held_out(8)
    model, linear = two_layers(window=18, columns=6, cell="linear")
    run = lambda: model(ids)  # noqa: E731
    targets = record(linear, run)
    assert all(layer.observed is None for layer in linear)
    nonlinear = studies._onto(ArrayParams(window=18, columns=6), linear, model)
    with torch.no_grad():
        for layer in nonlinear:
            layer.k_scale.mul_(0.7)
            layer.v_offset.add_(0.05)
    course = iterate(nonlinear, targets, run, iterations=20)
    assert len(course) == 21
    assert course[0].step == FIRST_STEP and course[-1].step == 0.0
    assert course[-2].step == pytest.approx(LAST_STEP)
    assert all(a.step > b.step for a, b in itertools.pairwise(course))
    assert course[0].deviation > 0.2
    assert course[-1].deviation < 0.01 and course[-1].mean < 0.01
    found = record(nonlinear, run)
    for got, wanted in zip(found, targets, strict=True):
        for name in SCALERS:
            for a, b in zip(got[name], wanted[name], strict=True):
                torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)
    with pytest.raises(ValueError, match="iterations must be at least 1, not 0"):
        iterate(nonlinear, targets, run, iterations=0)


# --- tasks -------------------------------------------------------------------------------------
def test_answers_of_recall_are_those_of_the_facts():
    task = Recall(keys=7)
    ids, target = task.batch(torch.Generator().manual_seed(0), 5)
    assert ids.shape == (5, 21) == target.shape
    for row, wanted in zip(ids.tolist(), target.tolist(), strict=True):
        facts = {fact // 7: fact % 7 for fact in row[:7]}
        assert sorted(facts) == list(range(7))
        assert sorted(row[7::2]) == list(range(49, 56)), "a key is not asked for once"
        for place, token in enumerate(row):
            if place >= 7 and place % 2 == 1:
                assert wanted[place] == 56 + facts[token - 49] == row[place + 1]
            else:
                assert wanted[place] == -1
    assert torch.equal(task.held_out(4)[0], task.held_out(4)[0])


def test_letters_are_those_of_the_texts():
    texts = {"a": "to be or not to be, " * 20, "b": "be not to or " * 20, "c": "orb tone? " * 20}
    task = Letters(tokens=8, texts=("a", "b"), held_out_text="c", load=texts.__getitem__)
    ids, target = task.batch(torch.Generator().manual_seed(0), 3)
    assert torch.equal(ids[:, 1:], target[:, :-1])
    held, _ = task.held_out(2)
    letters = {i: letter for letter, i in task._letters.items()}
    assert "".join(letters[int(i)] for i in held.flatten()) == "orb tone orb ton"


def test_hardware_learns_what_cannot_be_known_without_attention(monkeypatch):
    monkeypatch.setitem(studies.TASKS, "recall", lambda: Recall(keys=5))
    how = TaskStudy(
        task="recall", teacher_steps=150, linear_steps=60, nonlinear_steps=15, sequences=32,
        window=15, columns=5,
    )  # fmt: skip
    run = studies._Run(PublishedStudy(tasks=(how,), seeds=(0,), held_out=48), how, print)
    teacher = run.task.model(0)
    studies._softmax(teacher)
    run.train("softmax", teacher, (), steps=150, seed=0, rate=5e-3)
    before = copy.deepcopy(teacher.state_dict())
    run.adapt(teacher, 0)
    loss = {row["case"]: row["loss"] for row in run.rows}
    assert loss["nonlinear cell, matched and fine-tuned"] < 0.7 * math.log(5)
    assert loss["linear cell, fine-tuned"] < loss["linear cell, matched to the teacher"]
    assert all(torch.equal(before[n], x) for n, x in teacher.state_dict().items())


def test_a_study_has_all_stages_and_its_controls(monkeypatch, tmp_path):
    monkeypatch.setitem(studies.TASKS, "recall", lambda: Recall(keys=4))
    how = TaskStudy(
        task="recall", teacher_steps=4, linear_steps=3, nonlinear_steps=2, sequences=4, window=12,
        columns=4,
    )  # fmt: skip
    study = PublishedStudy(tasks=(how,), seeds=(0, 1), iterations=2, calibration=4, held_out=8)
    seen = []
    result = run_study(study, notice=seen.append)
    json.dumps(result)
    rows = {row["case"]: row for row in result["rows"]}
    assert tuple(rows) == ORDER
    assert rows["softmax, trained as long"]["recovered"] == pytest.approx(1.0)
    assert rows["no attention, trained as long (control)"]["recovered"] == pytest.approx(0.0)
    assert len(rows["nonlinear cell, matched and fine-tuned"]["losses"]) == 2
    lengths = {rows[case]["steps"] for case in ORDER if "as long" in case or "fine-tuned w" in case}
    assert lengths == {5}
    assert {c["seed"] for c in result["matching"]} == {0, 1}
    assert [row["factor"] for row in result["noise"]] == [0.0, 1.0, 2.0, 4.0] * 2
    assert len({tuple(row["losses"]) for row in result["noise"]}) == 8, "devices change nothing"
    assert any("not matched" in text for text in seen)
    assert draw_published(tmp_path / "a.png", result).stat().st_size > 10_000
    again = run_study(study)
    assert [row["loss"] for row in again["rows"]] == [row["loss"] for row in result["rows"]]
    assert study.config_hash != dataclasses.replace(study, iterations=3).config_hash


def test_studies_are_checked():
    with pytest.raises(ValueError, match="task must be one of recall, letters, not 'chess'"):
        TaskStudy(task="chess", teacher_steps=1, linear_steps=1, nonlinear_steps=1)
    with pytest.raises(ValueError, match="linear_steps must be in"):
        TaskStudy(task="recall", teacher_steps=1, linear_steps=0, nonlinear_steps=1)
    with pytest.raises(ValueError, match="cell must be a polynomial"):
        StraightAttention(AffineAttention(params=ArrayParams(cell="published-levels")), 2)
    layer = StraightAttention(scalers(window=8, columns=8), 4)
    q, k = torch.randn(1, 4, 1, 8), torch.randn(1, 4, 3, 8)
    with pytest.raises(ValueError, match="queries must be 3, as the tokens are, not 1"):
        layer.attend(q, k, k)


def test_fresh_devices_have_no_trims():
    with pytest.raises(ValueError, match="spreads must not be trimmed"):
        FreshDevices(ArrayFaults(trimmed=True), ArrayParams(), torch.Generator())


# --- noise -------------------------------------------------------------------------------------
def test_every_case_of_noise_changes_the_model_and_none_at_factor_zero(monkeypatch, tmp_path):
    from sim.llm import evaluate as evaluation
    from sim.llm import noise
    from sim.llm.recipe import Recipe
    from tests.test_llm_mapping import model as tiny

    text = "".join(chr(64 + n) for n in torch.arange(9000).remainder(61).tolist())
    for module in (noise, evaluation):
        monkeypatch.setattr(module, "load_text", lambda name: text)
    study = NoiseStudy(
        factors=(0.0, 8.0), devices=1, every=1, tokens=64, context=64, calibration_tokens=128,
        cases=("cell mismatch", "output offset", "output offset, trimmed", *list(CASES)[-3:]),
        recipe=Recipe(window=64, columns=16),
    )  # fmt: skip
    result = run_noise(study, tiny.__wrapped__())
    json.dumps(result)
    assert result["layers"] == 2
    change = {(row["case"], row["factor"]): abs(math.log(row["ratio"])) for row in result["rows"]}
    for case in study.cases:
        assert change[case, 0.0] < 1e-3, case
        assert change[case, 8.0] > 1e-2, case
    # As the file of the preset says it, read by other means.
    preset = json.loads((ROOT / "analog_models" / "devices" / "sky130-tt.json").read_text("utf-8"))
    for name in ("gain_sigma", "offset_sigma_ua"):
        assert result["figures"][f"cell_{name}"] == preset["mismatch"][name]["value"]
    assert draw_noise(tmp_path / "b.png", result).stat().st_size > 10_000


def test_noise_studies_are_checked():
    with pytest.raises(ValueError, match="case must be one of cell mismatch"):
        NoiseStudy(cases=("age",))
    with pytest.raises(ValueError, match="factor must be finite and not negative, not -1"):
        NoiseStudy(factors=(-1.0,))
    with pytest.raises(ValueError, match="device must be one of"):
        NoiseStudy(device="nobody's")
    assert set(NoiseStudy.quick().cases) < set(CASES)
