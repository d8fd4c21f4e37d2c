"""Calibration finds the offsets that were put in, and its trims take them out."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from analog_models import AnalogParams, FunctionalHead
from hw.presets import PRESETS
from sim.driver import Driver, FunctionalBackend
from sim.driver.calibration import METHODS, Residual

TINY, LAYER = PRESETS["tiny"], PRESETS["tiny-layer"]
SMALL = PRESETS["three-subtiles"]


def analog(params, **more) -> AnalogParams:
    s_sat_ua, a_sat_ua = 80.0 * params.rows / 64, 40.0 * params.columns / 64
    return AnalogParams.matching(params, s_sat_ua=s_sat_ua, a_sat_ua=a_sat_ua, **more)


def device(params, sigma: float, seed: int = 0) -> Driver:
    model = analog(params, output_offset_sigma_counts=sigma, offset_seed=seed)
    return Driver(FunctionalBackend(params, model), params)


def put_in(params, sigma: float, seed: int = 0) -> np.ndarray:
    """Offset of each lane in counts, summed over sub-tiles, (heads, lanes)."""
    models = [
        analog(params, output_offset_sigma_counts=sigma, offset_seed=seed + head)
        for head in range(params.heads)
    ]
    charges = [model.output_offset.sum(axis=0) for model in models]
    return np.array(charges) / models[0].output_converter.charge_per_count


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("params", [TINY, LAYER, SMALL], ids=["tiny", "layer", "small"])
def test_the_offsets_put_in_are_found(params, method):
    before, after = [], []
    for seed in range(3):
        with device(params, 0.6, seed) as driver:
            report = driver.calibrate(analog(params), method=method, queries=100, held_out=50)
            trims = driver.trim().reshape(params.heads, params.lanes)
        offsets = put_in(params, 0.6, seed)
        # A mean of 100 roundings, less those at full scale, of as many sub-tiles.
        error = report.offsets - offsets
        assert np.abs(error).max() < 0.5
        assert np.sqrt(np.mean(error**2)) < 0.25
        assert report.trims.tolist() == trims.tolist() == np.rint(report.offsets).tolist()
        assert report.limited == 0
        assert report.samples_least >= 20
        assert report.before.lane_rms == pytest.approx(np.sqrt(np.mean(offsets**2)), rel=0.2)
        assert report.after.rms < report.before.rms
        before.append(report.before.lane_rms**2)
        after.append(report.after.lane_rms**2)
    assert sum(after) < sum(before) / 2
    assert max(after) < 0.6**2, "half a count of rounding at most, and the estimate's own error"


def test_the_default_head():
    params = PRESETS["default"]
    with device(params, 0.6) as driver:
        done = []
        report = driver.calibrate(
            method="packets", queries=24, held_out=24, progress=lambda *at: done.append(at)
        )
    assert done == [(number, 72) for number in range(1, 73)]
    assert report.tokens == params.window
    assert report.full_scale < 0.05
    assert report.after.lane_rms < report.before.lane_rms / 3
    assert report.after.rms < 0.75 * report.before.rms
    assert report.after.mean_abs < report.before.mean_abs


def test_without_offsets_nothing_is_trimmed():
    with device(SMALL, 0.0) as driver:
        report = driver.calibrate(analog(SMALL), queries=20, held_out=20)
    assert report.method == "self-test"
    assert not report.offsets.any() and not report.trims.any()
    nothing = Residual(rms=0.0, mean_abs=0.0, max_abs=0, lane_rms=0.0)
    assert report.before == report.after == nothing


def test_an_old_trim_does_not_matter():
    reports = []
    for trim in (0, 9):
        with device(TINY, 0.6) as driver:
            driver.set_trim([trim] * TINY.lanes)
            reports.append(driver.calibrate(analog(TINY), method="packets", seed=3))
    assert reports[0].trims.tolist() == reports[1].trims.tolist()
    assert reports[0].before == reports[1].before


def test_a_trim_that_is_too_narrow_is_said():
    params = dataclasses.replace(SMALL, trim_bits=2)
    with device(params, 3.0) as driver:
        report = driver.calibrate(analog(params), queries=40, held_out=20)
    assert report.limited > 0
    assert report.trims.min() == -2 and report.trims.max() == 1
    assert report.limited == (np.rint(report.offsets) != report.trims).sum()


def test_levels_that_are_set_are_those_of_the_ideal():
    with device(SMALL, 0.0) as driver:
        driver.configure(s_levels=(60, 1, 1, 1), a_levels=(55, 1, 1, 1))
        report = driver.calibrate(analog(SMALL), queries=20, held_out=20)
        assert report.before.max_abs == 0
        ideal = FunctionalHead(analog(SMALL))
        assert driver.status().occupancy == ideal.params.window


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "magic"}, ValueError, "method must be one of .*, not 'magic'"),
        ({"tokens": 9}, ValueError, "tokens must be in 1..8, not 9"),
        ({"queries": 0}, ValueError, "queries must be in 1..100000, not 0"),
        ({"held_out": 1.0}, TypeError, "held_out must be an int, not 1.0"),
    ],
)
def test_arguments(options, error, message):
    with device(TINY, 0.0) as driver, pytest.raises(error, match=message):
        driver.calibrate(analog(TINY), **options)


def test_without_a_self_test_packets_are_used():
    params = dataclasses.replace(TINY, self_test=False)
    with device(params, 0.6) as driver:
        with pytest.raises(ValueError, match=r"one of \('packets',\), not 'self-test'"):
            driver.calibrate(analog(params), method="self-test")
        assert driver.calibrate(analog(params), queries=9, held_out=9).method == "packets"


def test_without_trims_there_is_nothing_to_calibrate():
    params = dataclasses.replace(TINY, trim_bits=0)
    with device(params, 0.6) as driver, pytest.raises(ValueError, match="trim_bits must be"):
        driver.calibrate()


def test_the_job_writes_what_it_found(tmp_path):
    from sim.driver.calibrate_job import run_calibrate

    figures = run_calibrate(SMALL, sigma=0.6, queries=20, held_out=20, report_dir=tmp_path)
    written = json.loads((tmp_path / "calibrate.json").read_text(encoding="utf-8"))
    assert figures.items() <= written.items()
    assert written["config_hash"] == SMALL.config_hash
    assert written["after"]["lane_rms"] < written["before"]["lane_rms"]
    assert len(written["trims"][0]) == SMALL.lanes


@pytest.mark.cosim
@pytest.mark.xdist_group("driver-simulated")
def test_the_simulated_device_gives_the_same_report(tmp_path):
    from cocotb_tests.driver_backend import connect_simulated
    from sim.driver.calibrate_job import run_calibrate

    # Well above the half count that a trim cannot mend: two sub-tiles, few queries.
    options = {"sigma": 1.5, "seed": 4, "queries": 24, "held_out": 24, "report_dir": tmp_path}
    model = run_calibrate(TINY, **options)
    simulated = run_calibrate(TINY, connect=connect_simulated("icarus"), **options)
    assert model.pop("device") != simulated.pop("device")
    assert simulated == model
    assert model["after"]["rms"] < model["before"]["rms"]


@pytest.mark.cosim
@pytest.mark.xdist_group("driver-simulated")
def test_a_simulator_that_fails_is_said_to():
    from cocotb_tests.driver_backend import SimulatedBackend
    from cocotb_tests.runner import SimulationError

    with pytest.raises(SimulationError, match=r"did not start|tests failed"):
        SimulatedBackend(TINY, no_such_field=1)
