"""Retention study: ages, refresh and mask against plain loops; figures, picture, command."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import sim.docs
import sim.retention
from analog_models import AnalogParams, attend
from analog_models.dac import level_currents
from gaincell import cli
from sim.retention import Policy, RetentionStudy, draw_retention, measure, run_retention
from sim.tokens import TokenSource

TAU_CLK = 1 << 20  # of a fast study: a token per 1024 clocks fades by a thousandth
SMALL = RetentionStudy(
    source=TokenSource(tokens=60, layer=0),
    tau_s=TAU_CLK * 1e-9,
    token_s=(1024e-9, 200 * 1024e-9),
    budgets=(1 / 64, 1 / 8),
    subtiles=3,
    columns=4,
    every=1,
)


def says(message: str) -> str:
    return re.escape(message)


@pytest.fixture(scope="module")
def codes():
    rng = np.random.default_rng(1)
    q = rng.integers(0, 16, (60, 64))
    k, v = rng.integers(0, 8, (2, 60, 64))
    return q, k, np.where(v > 3, 7, v)


@pytest.fixture(scope="module")
def rows(codes):
    return measure(SMALL, *codes)


def row_of(rows, token_s, policy, budget=None):
    (found,) = [
        row
        for row in rows
        if (row["token_s"], row["policy"], row["budget"]) == (token_s, policy, budget)
    ]
    return found


def test_every_comparison_is_made(rows, codes):
    assert len(rows) == 2 * (1 + 2 * 2)
    assert len({(row["token_s"], row["policy"], row["budget"]) for row in rows}) == len(rows)
    done = []
    short = dataclasses.replace(SMALL, token_s=(1e-6,), budgets=(0.5,))
    measure(short, *codes, on_progress=done.append)
    assert done == [1, 2, 3]


def unrounded(params, decay, result, v, window):
    """Outputs in counts, from phi and currents by age, each sub-tile of four limited."""
    ages = range(window)
    currents = level_currents(params.level_currents.cell, params.dac, ages, decay_per_token=decay)
    out = []
    for i in range(window, len(v)):
        charge = np.zeros((window // 4, v.shape[1]))
        for age in ages:
            charge[(i - age) % window // 4] += (
                15 * result.phi[i, i - age] * currents[age, v[i - age]]
            )
        out.append(np.clip(charge / 40, -15, 15).sum(axis=0))
    return np.array(out)


@pytest.mark.parametrize("token_s", SMALL.token_s)
def test_without_a_measure_it_is_decay_by_the_token(rows, codes, token_s):
    """The same figures from the sequence model, where age counts tokens."""
    params = AnalogParams()
    q, k, v = codes
    levels_v = params.dac.levels_v
    window = SMALL.ideal.window
    decay = token_s * 1e9 / TAU_CLK
    both = [
        attend(q / 15, levels_v[k], levels_v[v], window=window, columns=4, decay_per_token=d)
        for d in (0.0, decay)
    ]
    ideal, leaky = both
    full = slice(window, None)
    row = row_of(rows, token_s, "none")
    counts = [np.rint(15 * result.out[full]) for result in both]
    assert row["sums_differ"] == (counts[0] != counts[1]).mean() > 0
    expected = [
        np.corrcoef(a[i - window + 1 : i + 1], b[i - window + 1 : i + 1])[0, 1]
        for i, (a, b) in enumerate(zip(ideal.phi, leaky.phi, strict=True))
        if i >= window
    ]
    assert row["phi_correlation"] == pytest.approx(np.mean(expected), abs=1e-9)
    out = [unrounded(params, *pair, v, window) for pair in zip((0.0, decay), both, strict=True)]
    error = np.sqrt(np.mean((out[1] - out[0]) ** 2) / np.mean(out[0] ** 2))
    assert row["output_error"] == pytest.approx(error, abs=1e-9)
    young = math.floor(math.log(2) / decay) + 1
    assert row["effective_tokens"] == min(young, window)


def test_refresh_holds_the_error_whatever_the_rate(rows):
    slow, fast = SMALL.token_s[1], SMALL.token_s[0]
    tight, loose = (row_of(rows, slow, "refresh", budget) for budget in SMALL.budgets)
    assert (
        tight["output_error"] < loose["output_error"] < row_of(rows, slow, "none")["output_error"]
    )
    assert tight["sums_differ"] < loose["sums_differ"]
    assert tight["effective_tokens"] == loose["effective_tokens"] == 12
    assert tight["phi_correlation"] > loose["phi_correlation"] > 0.98
    # No column is older than 12 tokens at the fast rate, less than the loose budget.
    unneeded = row_of(rows, fast, "refresh", SMALL.budgets[1])
    assert unneeded["output_error"] <= row_of(rows, fast, "none")["output_error"]
    assert tight["period_clk"] == TAU_CLK // 64 // 12
    assert tight["refresh_clk_share"] == pytest.approx(5 / tight["period_clk"])
    assert loose["period_clk"] == TAU_CLK // 8 // 12


def test_refresh_leaves_ages_spread_up_to_the_budget(codes):
    """One column after the other, wherever the scheduler is when a query comes."""
    policy = Policy(kind="refresh", budget=0.5)
    study = dataclasses.replace(SMALL, budgets=(0.5,))
    answers = sim.retention._answer(study, study.leaky, policy, 10**9, codes)
    ages = -np.log(answers.kept)
    assert ages.shape == (48, 12)
    for row, token in zip(ages, range(12, 60), strict=True):
        assert row[token % 12] == 0  # just written
        row[token % 12] = np.nan
        steps = np.diff(row)
        assert (steps > 0).sum() <= 1  # a ramp, youngest last, that begins somewhere
        assert np.nanmax(np.abs(steps[steps < 0] + 0.5 / 12)) < 1e-4
    assert 0 <= np.nanmin(ages) < 0.02 and 0.45 < np.nanmax(ages) <= 0.5
    # A query's mean is off by up to half a period, evenly; 4.9 deviations of the mean of 48.
    assert np.nanmean(ages) == pytest.approx(0.25, abs=4.9 * 0.5 / 12 / math.sqrt(12 * 48) + 0.005)


def test_the_mask_is_that_of_the_ages(codes):
    """A lap's columns of a sub-tile are out once the first of them is past the budget."""
    token_clk, budget = 1024, 6 / 1024
    study = dataclasses.replace(SMALL, budgets=(budget,))
    policy = Policy(kind="mask", budget=budget)
    answers = sim.retention._answer(study, study.leaky, policy, token_clk, codes)
    for at, token in enumerate(range(12, 60)):
        holds = {seen % 12: seen for seen in range(token - 11, token + 1)}
        for column, seen in holds.items():
            first = seen - seen % 4
            kept = answers.kept[at, column] > 0
            assert kept == (token - first <= 6), (token, column)
            assert not (answers.phi_clk[at, column] and not kept)


def test_masks(rows):
    fast, slow = SMALL.token_s
    loose = row_of(rows, fast, "mask", SMALL.budgets[1])
    assert loose == row_of(rows, fast, "none") | {"policy": "mask", "budget": SMALL.budgets[1]}
    gone = row_of(rows, slow, "mask", SMALL.budgets[0])
    assert 0 < gone["effective_tokens"] < 1  # the first of a sub-tile, while it is alone
    assert gone["output_error"] == pytest.approx(1, abs=0.1)


def test_no_leakage_no_error(codes):
    study = dataclasses.replace(SMALL, tau_s=1e6, budgets=(1e-9,))
    for row in measure(study, *codes)[:2]:
        assert row["output_error"] == row["sums_differ"] == 0
        assert row["phi_correlation"] == pytest.approx(1)


def test_a_row_without_spread_correlates_with_nothing():
    a, b = (
        np.array([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]]),
        np.array([[2.0, 3.0, 5.0], [1.0, 2.0, 3.0]]),
    )
    assert sim.retention._mean_correlation(a, b) == pytest.approx(0.5)


# --- settings -----------------------------------------------------------------------------------
def test_errors():
    with pytest.raises(
        ValueError, match=says("tokens must be more than the window's 1024, not 90")
    ):
        RetentionStudy(source=TokenSource(tokens=90))
    with pytest.raises(
        ValueError, match=says("budgets must leave 5 clocks to rewrite each of 1024")
    ):
        RetentionStudy(budgets=(0.0005,))
    with pytest.raises(
        ValueError, match=says("kind must be one of ('none', 'refresh', 'mask'), not")
    ):
        Policy(kind="hope")
    with pytest.raises(ValueError, match=says("budget must be None without a policy, not 0.1")):
        Policy(budget=0.1)
    for wrong in (None, 0.0, -1.0, math.inf):
        with pytest.raises(
            ValueError, match=says(f"budget must be positive and finite, not {wrong}")
        ):
            Policy(kind="mask", budget=wrong)
    assert [str(policy) for policy in SMALL.policies[:2]] == ["nothing", "refresh, 0.015625 tau"]


def test_hash_tells_studies_apart():
    hashes = {SMALL.config_hash}
    for changes in ({"seed": 1}, {"every": 2}, {"guard_clk": 2}, {"tau_s": 1.0}, {"columns": 5}):
        hashes.add(dataclasses.replace(SMALL, **changes).config_hash)
    assert len(hashes) == 6
    assert dataclasses.replace(SMALL).config_hash in hashes


# --- the job ------------------------------------------------------------------------------------
@pytest.fixture
def fake_tokens(monkeypatch, codes):
    q, k, v = codes
    trace = SimpleNamespace(q_codes=q, k_codes=k, v_codes=v)
    monkeypatch.setattr(sim.retention, "real_tokens", lambda source: trace)


def test_the_job_writes_figures_and_picture(fake_tokens, tmp_path, rows):
    figures = run_retention(SMALL, report_dir=tmp_path)
    assert figures["rows"] == rows
    assert (figures["window"], figures["queries"], figures["text"]) == (12, 48, "hamlet")
    written = json.loads((tmp_path / "retention.json").read_text())
    assert written["config_hash"] == SMALL.config_hash
    assert {"python", "numpy", "matplotlib"} == set(written["tools"])
    assert written["rows"] == rows and written["date"]
    picture = (tmp_path / "retention.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert (tmp_path / "retention.svg").stat().st_size > 10_000
    again = draw_retention(tmp_path / "again.png", written)[0]
    assert again.read_bytes() == picture


def test_the_command(monkeypatch, capsys):
    seen = {}

    def fake(study, on_progress):
        seen["study"] = study
        on_progress(1)
        figures = {"output_error": 0.25, "sums_differ": 0.5, "phi_correlation": 0.75}
        rows = [
            {"token_s": token_s, "policy": policy.kind, "budget": policy.budget, **figures}
            | {"effective_tokens": 17.0}
            | ({"refresh_clk_share": 0.03} if policy.kind == "refresh" else {})
            for token_s in study.token_s
            for policy in study.policies
        ]
        return {"rows": rows}

    monkeypatch.setattr(sim.retention, "run_retention", fake)
    options = "retention --tokens 1100 --seed 2 --layer 3 --head 4".split()
    monkeypatch.setattr(sys, "argv", ["gaincell", *options])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert seen["study"].source == TokenSource(tokens=1100, seed=2, layer=3, head=4)
    shown = capsys.readouterr().out
    for text in ("refresh at 0.05 tau", "3.0%", "0.250", "50.0%", "0.750", "17"):
        assert text in shown
    monkeypatch.setattr(sys, "argv", ["gaincell", "retention", "--tokens", "1000"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    assert "tokens must be more than the window's 1024" in capsys.readouterr().err


def test_the_page_shows_the_default_study():
    text = sim.docs._retention()
    assert RetentionStudy().config_hash in text
    assert "refresh at 0.05 τ | 2.0%" in text


def test_figures_of_another_study_are_refused(monkeypatch, tmp_path):
    figures = {"config_hash": "0" * 12}
    monkeypatch.setattr(sim.docs, "ROOT", tmp_path)
    (tmp_path / "retention.json").write_text(json.dumps(figures))
    with pytest.raises(ValueError, match="run `make retention`"):
        sim.docs._measured("retention", tmp_path)
