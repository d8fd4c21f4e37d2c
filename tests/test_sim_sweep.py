"""Sweeps, Monte Carlo, retention map, energy: repeatable, resumable, and of the right size."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

import sim.sweep as sweep
from analog_models.energy import level_power_uw, mean_pulse_ns, token_energy
from analog_models.of_device import head_of_device
from analog_models.presets import resolve_device
from sim.analog_energy import PUBLISHED_PJ, run_energy
from sim.retention_map import PUBLISHED_TOKEN_S, RetentionMap, run_map, table_rows
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


_RUN = """
import sys
from pathlib import Path
from sim.sweep import Point, grid, run_sweep
points = grid(Point(device="sky130-tt", subtiles=2, columns=16), {}, devices=60)
run_sweep(points, name="killed", folder=Path(sys.argv[1]), workers=0)
"""


def test_a_run_that_is_killed_for_good_goes_on(tmp_path):
    """SIGKILL in mid-run; what is there stays, the rest follows, and the table is the same."""
    points = grid(Point(device="sky130-tt", subtiles=2, columns=16), {}, devices=60)
    process = subprocess.Popen([sys.executable, "-c", _RUN, str(tmp_path)])
    deadline = time.monotonic() + 60
    while not collect(points, tmp_path / "killed") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    held = collect(points, tmp_path / "killed")
    assert 0 < len(held) < len(points)
    assert not (tmp_path / "killed.parquet").exists()
    rows = run_sweep(points, name="killed", folder=tmp_path, workers=0)
    assert rows == run_sweep(points, name="whole", folder=tmp_path, workers=0)
    assert [row for row in rows if row["config_hash"] in {h["config_hash"] for h in held}] == held
    tables = [pq.read_table(tmp_path / f"{name}.parquet") for name in ("whole", "killed")]
    assert tables[0].equals(tables[1])


def test_a_cluster_gives_the_same(tmp_path):
    """A scheduler and a worker of their own, as `dask` starts them, and the same rows."""
    points = grid(SMALL, {"columns": (8, 16)}, devices=3)
    file = tmp_path / "scheduler.json"
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    commands = (
        ["scheduler", "--host", "127.0.0.1", "--port", "0", *common],
        ["worker", "--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path), *common],
    )
    processes = []
    try:
        for command in commands:
            log = (tmp_path / f"{command[0]}.log").open("w")
            line = [sys.executable, "-m", "dask", *command]
            processes.append(subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT))
            log.close()
            deadline = time.monotonic() + 60
            while not file.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        assert address.startswith("tcp://127.0.0.1:")
        rows = run_sweep(points, name="cluster", folder=tmp_path, scheduler=address)
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(timeout=30)
    assert rows == run_sweep(points, name="here", folder=tmp_path, workers=0)
    assert "Registered to" in (tmp_path / "worker.log").read_text()


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
    laws = {law.name: law for law in study.laws()}
    fast = laws["τ = 0.005 s"]
    assert fast.holds_s == pytest.approx(5e-3 * math.log(7 / 6))
    result = run_map(study, report_dir=tmp_path)
    assert (tmp_path / "retention_map.png").stat().st_size > 10_000
    found = {(row["law"], row["window"], row["token_s"]): row for row in result["rows"]}
    assert len(found) == len(result["rows"]) == 6 * 4 * 5
    published = found[fast.name, 1024, PUBLISHED_TOKEN_S]
    assert published["droop_lsb"] == pytest.approx(3.5 * (1 - math.exp(-1024 * 0.8e-6 / 5e-3)))
    slow = found[fast.name, 1024, 1e-3]
    assert not slow["holds"] and slow["refresh_s"] == fast.holds_s
    writes = 1024 * 1e-3 / slow["refresh_s"]
    assert slow["refresh_pj_per_token"] == pytest.approx(330.0 * writes)
    for row in result["rows"]:
        law = laws[row["law"]]
        assert row["holds"] == (row["window"] * row["token_s"] <= law.holds_s)
        assert row["holds"] == (row["droop_lsb"] <= 0.5)
    assert len(table_rows(result)) == 24
    with pytest.raises(ValueError, match="windows must hold positive values"):
        RetentionMap(windows=())
    with pytest.raises(ValueError, match="devices must hold tables and energies of writes"):
        RetentionMap(devices=("published",))


@pytest.mark.parametrize("temperature_c", [27.0, 85.0])
def test_retention_of_the_simulated_device(temperature_c):
    """Half a step lost at the preset's retention, by the fastest level; a write's energy a cell."""
    device = resolve_device("sky130-tt")
    study = RetentionMap(tau_s=(1.0,), temperatures_c=(temperature_c,))
    law = study.laws()[-1]
    leak = device.leakage_at(temperature_c)
    assert law.holds_s == leak.retention_s
    assert law.droop_lsb(leak.retention_s) == pytest.approx(0.5, rel=0.01)
    assert law.droop_lsb([0.0, 1e9]).tolist() == [
        0.0,
        pytest.approx((1.04 - leak.v_rest_v) / 0.12, rel=0.01),
    ]
    assert law.rewrite_pj == pytest.approx(128 * device.energy.write_pj)


def test_energy_of_a_simulated_device(tmp_path):
    """Every phase is known, and the products' are the sum over cells of simulated power."""
    result = run_energy("sky130-tt", report_dir=tmp_path)
    assert (tmp_path / "analog_energy_sky130-tt.json").exists()
    device = resolve_device("sky130-tt")
    rows = {row["operands"]: row for row in result["rows"]}
    assert list(rows) == ["real tokens", "uniform"]
    for row in rows.values():
        assert min(value for name, value in row.items() if name != "operands") > 0
        assert row["write_pj"] == pytest.approx(128 * device.energy.write_pj)
        assert row["convert_pj"] == pytest.approx(1024 * device.energy.conversion_pj)
    # Uniform operands: mean pulse times mean power of all levels, and the gates' edges.
    per_cell = rows["uniform"]["integrate_pj"] / (1024 * 64)
    mean = np.mean(device.energy.read_pj_per_ns) * rows["uniform"]["q_mean_ns"]
    assert per_cell == pytest.approx(mean + device.energy.read_edge_pj * 15 / 16, rel=0.02)
