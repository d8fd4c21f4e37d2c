"""Sweeps, Monte Carlo, retention map, energy: repeatable, resumable, and of the right size."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

import sim.sweep as sweep
from analog_models.energy import level_power_uw, mean_pulse_ns, token_energy
from analog_models.of_device import head_of_device
from analog_models.presets import resolve_device
from sim.analog_energy import PUBLISHED_PJ, run_energy
from sim.retention_map import PUBLISHED_TOKEN_S, RetentionMap, run_map
from sim.sweep import Point, collect, evaluate, grid, run_sweep, summary
from sim.tokens import TokenSource, real_tokens

SMALL = Point(
    subtiles=2, columns=16, cell_gain_sigma=0.05, output_offset_sigma_counts=1.0, read_noise_ua=0.02
)


def test_a_point_repeats_and_depends_on_its_seed():
    row = evaluate(SMALL)
    assert row == evaluate(SMALL)
    other = evaluate(dataclasses.replace(SMALL, seed=1))
    assert other["error_before"] != row["error_before"]
    assert other["config_hash"] != row["config_hash"]
    assert row["error_after"] < row["error_before"], "trims mend what converters' offsets cost"
    assert row["lane_rms_after"] < row["lane_rms_before"]


def test_an_ideal_device_has_no_error():
    row = evaluate(Point(subtiles=2, columns=16, spread=0.0))
    assert row["error_before"] == row["error_after"] == row["max_after"] == 0


def test_leakage_costs_and_refresh_gives_back():
    base = Point(subtiles=4, columns=16, spread=0.0, token_s=1e-4)
    faded, held = (evaluate(dataclasses.replace(base, refresh_s=period)) for period in (None, 2e-4))
    assert faded["error_before"] > 5 * held["error_before"] > 0


def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    points = grid(SMALL, {"columns": (8, 16)}, devices=6)
    whole = run_sweep(points, name="whole", folder=tmp_path, workers=0)
    calls = []

    def some(points):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(len(points))
        return [evaluate(point) for point in points]

    monkeypatch.setattr(sweep, "_evaluate_all", some)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(points, name="killed", folder=tmp_path, workers=0)
    assert len(collect(points, tmp_path / "killed")) == calls[0] < len(points)
    computed = []

    def rest(points):
        computed.extend(points)
        return [evaluate(point) for point in points]

    monkeypatch.setattr(sweep, "_evaluate_all", rest)
    assert run_sweep(points, name="killed", folder=tmp_path, workers=0) == whole
    assert len(computed) == len(points) - calls[0]
    tables = [pq.read_table(tmp_path / f"{name}.parquet") for name in ("whole", "killed")]
    assert tables[0].equals(tables[1])
    assert [row["config_hash"] for row in whole] == [point.config_hash for point in points]


def test_summary_and_grid():
    rows = [{"error_before": e, "error_after": e / 2} for e in (0.1, 0.2, 0.3, 0.4)]
    figures = summary(rows, limit=0.2)
    assert figures["before"]["yield"] == 0.5 and figures["after"]["yield"] == 1.0
    assert figures["before"]["median"] == pytest.approx(0.25)
    with pytest.raises(ValueError, match=r"axis must be one of .* not 'colour'"):
        grid(SMALL, {"colour": (1,)})
    with pytest.raises(ValueError, match="devices must be at least 1, not 0"):
        grid(SMALL, {}, devices=0)
    with pytest.raises(ValueError, match=re.escape("token_s must be positive and finite, not 0")):
        Point(token_s=0)


def test_energy_by_phase(tmp_path):
    rows = {row["operands"]: row for row in run_energy(report_dir=tmp_path)["rows"]}
    for name, value in PUBLISHED_PJ.items():
        assert rows["matched"][name] == pytest.approx(value, rel=0.02)
    assert rows["uniform"]["q_mean_ns"] == pytest.approx(7.5, abs=0.1)
    preset = resolve_device("published")
    power = level_power_uw(preset)
    head = head_of_device(preset)
    assert power == pytest.approx(0.9 * np.abs(head.level_currents.fresh), abs=1e-3)
    one = token_energy(preset, [[15]], [[7]], [[7]], [[7.5]], subtiles=1)
    assert one.integrate_pj == pytest.approx(power[7] * 15e-3)
    assert one.drive_pj == pytest.approx(power[7] * 7.5e-3)
    # Real tokens, pulse by pulse.
    trace = real_tokens(TokenSource(tokens=1024 + 256))
    every = np.einsum("tr,qr->", power[trace.k_codes[:1024]], trace.q_codes[1024:]) * 1e-3
    assert rows["real tokens"]["integrate_pj"] == pytest.approx(every / 256)
    assert rows["real tokens"]["q_mean_ns"] == pytest.approx(trace.q_codes[1024:].mean())
    cells = 1024 * 64
    assert mean_pulse_ns(preset, 1120.0, cells) == pytest.approx(1120e3 / cells / power.mean())
    with pytest.raises(ValueError, match=re.escape("phi_clk must have shape (1, 1)")):
        token_energy(preset, [[15]], [[7]], [[7]], [[7.5, 1.0]], subtiles=1)


def test_retention_map(tmp_path):
    study = RetentionMap()
    assert study.holds_s(5e-3) == pytest.approx(5e-3 * math.log(7 / 6))
    result = run_map(study, report_dir=tmp_path)
    assert (tmp_path / "retention_map.png").stat().st_size > 10_000
    found = {(row["tau_s"], row["window"], row["token_s"]): row for row in result["rows"]}
    published = found[5e-3, 1024, PUBLISHED_TOKEN_S]
    assert published["droop_lsb"] == pytest.approx(3.5 * (1 - math.exp(-1024 * 0.8e-6 / 5e-3)))
    slow = found[5e-3, 1024, 1e-3]
    assert not slow["holds"] and slow["refresh_s"] == study.holds_s(5e-3)
    writes = 1024 * 1e-3 / slow["refresh_s"]
    assert slow["refresh_pj_per_token"] == pytest.approx(330.0 * writes)
    for row in result["rows"]:
        assert row["holds"] == (row["window"] * row["token_s"] <= study.holds_s(row["tau_s"]))
    with pytest.raises(ValueError, match="windows must hold positive values"):
        RetentionMap(windows=())
