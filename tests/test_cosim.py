"""The generated Verilog with the array model behind its analog boundary, on real simulators."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from cocotb_tests import cosim, runner
from cocotb_tests.cosim import run_cosim
from cocotb_tests.runner import SimulationError, build_simulation, prepare_head, run_simulation
from cocotb_tests.soak import run_soak
from hw.params import SCHEDULES, HeadParams
from hw.presets import PRESETS
from sim.results import ROOT
from sim.tokens import TokenSource, real_tokens
from synth.verilog import write_verilog

SMALL = sorted(set(PRESETS) - {"default", "streaming"})


def run_head_tests(params: HeadParams, simulator: str, run_dir, decay=0.0, **job) -> None:
    """Run every test of cocotb_tests.test_head; figures of the head come from its JSON.

    Currents scale with the array, and so do the saturation currents here: in a head smaller than
    the published one, results would otherwise never come near full scale.
    """
    folder = prepare_head(params, simulator)
    interface = ROOT / "build" / "sim" / f"head-{params.config_hash}" / "attention_head.json"
    head = json.loads(interface.read_text(encoding="utf-8"))
    content = {
        "params": params.as_dict(),
        "seed": 1,
        "laps": 3,
        "packets": 40,
        "resets": 12,
        "latency_clk": head["latency_clk"],
        "query_latency_clk": head["query_latency_clk"],
        "expected_interval_clk": head["interval_clk"],
        "library_streams": True,
        "analog": {
            "s_sat_ua": 80.0 * params.rows / 64,
            "a_sat_ua": 40.0 * params.columns / 64,
            "decay_per_token": decay,
        },
    }
    run_simulation(folder, simulator, "cocotb_tests.test_head", content | job, run_dir=run_dir)


@pytest.mark.cosim
@pytest.mark.parametrize("name", SMALL)
def test_head_on_icarus(name, tmp_path):
    run_head_tests(PRESETS[name], "icarus", tmp_path)


@pytest.mark.cosim
@pytest.mark.parametrize("name", SMALL)
def test_streaming_head_on_icarus(name, tmp_path):
    params = dataclasses.replace(PRESETS[name], schedule="streaming")
    run_head_tests(params, "icarus", tmp_path, library_streams=False, seed=4)


@pytest.mark.cosim
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_few_result_slots_on_icarus(slots, tmp_path):
    params = dataclasses.replace(PRESETS["tiny"], schedule="streaming", result_slots=slots)
    run_head_tests(params, "icarus", tmp_path, seed=slots)


@pytest.mark.cosim
@pytest.mark.parametrize("seed", [2, 3])
def test_counter_readout_on_icarus(seed, tmp_path):
    params = dataclasses.replace(PRESETS["three-subtiles"], readout="counter")
    run_head_tests(params, "icarus", tmp_path, seed=seed)


@pytest.mark.cosim
def test_leaking_cells_on_icarus(tmp_path):
    run_head_tests(PRESETS["tiny"], "icarus", tmp_path, decay=0.01)


@pytest.mark.cosim
@pytest.mark.parametrize("name", ["tiny", "slow-write"])
def test_our_own_stream_drivers_on_icarus(name, tmp_path):
    run_head_tests(PRESETS[name], "icarus", tmp_path, library_streams=False, seed=5)


@pytest.mark.cosim
def test_counters_saturate_on_icarus(tmp_path):
    run_head_tests(dataclasses.replace(PRESETS["tiny"], event_bits=4), "icarus", tmp_path)


@pytest.mark.cosim
def test_tiny_head_on_verilator(tmp_path):
    run_head_tests(PRESETS["tiny"], "verilator", tmp_path)


@pytest.mark.cosim
@pytest.mark.xdist_group("full-head-on-verilator")  # built once
def test_full_head_on_verilator(tmp_path):
    run_head_tests(PRESETS["default"], "verilator", tmp_path, laps=1, resets=4)


@pytest.mark.cosim
@pytest.mark.xdist_group("full-head-on-verilator")
@pytest.mark.parametrize(("name", "interval"), [("default", 54), ("streaming", 20)])
def test_real_tokens_wrap_the_full_window(name, interval, tmp_path):
    params = PRESETS[name]
    trace = real_tokens(TokenSource(tokens=1100, seed=3, layer=2, head=1))
    figures = run_cosim(params, trace, stall_probability=0.2, report_dir=tmp_path)
    assert figures["tokens"] == 1100
    assert figures["lanes_compared"] == 1100 * params.lanes
    assert figures["mismatches"] == 0
    assert figures["latency_clk"] == 55
    assert figures["interval_clk"] == interval
    written = json.loads((tmp_path / "cosim.json").read_text(encoding="utf-8"))
    assert written["config_hash"] == params.config_hash
    shares = figures["time_share"]
    parts = ["array_model", "bridge", "functional_model", "stream_drivers", "simulator"]
    assert list(shares) == parts
    assert min(shares.values()) > 0
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.cosim
def test_two_runs_at_once_stay_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "ROOT", tmp_path)  # nothing is built yet
    monkeypatch.setattr(cosim, "ROOT", tmp_path)
    params = dataclasses.replace(PRESETS["tiny"], rows=64, lanes=64)
    traces = [real_tokens(TokenSource(tokens=16 + i, layer=2, head=1, seed=i)) for i in range(2)]
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(run_cosim, params, trace, simulator="icarus", report_dir=tmp_path / str(i))
            for i, trace in enumerate(traces)
        ]
        figures = [run.result() for run in runs]
    assert [(f["tokens"], f["seed"], f["mismatches"]) for f in figures] == [(16, 0, 0), (17, 1, 0)]
    assert not list((tmp_path / "build" / "run").iterdir())


@pytest.mark.cosim
def test_a_wrong_expectation_is_noticed(tmp_path):
    with pytest.raises(SimulationError, match=r"1 of 12 tests failed; see .*run\.log"):
        run_head_tests(PRESETS["tiny"], "icarus", tmp_path, latency_clk=54)


@pytest.mark.cosim
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_short_soak_on_icarus(schedule, tmp_path):
    params = dataclasses.replace(PRESETS["tiny"], schedule=schedule)
    figures = run_soak(params, packets=2000, seed=1, simulator="icarus", report_dir=tmp_path)
    assert figures["mismatches"] == 0
    assert figures["malformed"] > 0
    assert figures["resets"] > 0
    written = json.loads((tmp_path / "soak.json").read_text(encoding="utf-8"))
    assert written["config_hash"] == params.config_hash


def test_latency_of_the_default_head(tmp_path):
    verilog = write_verilog(PRESETS["default"], tmp_path / "head.v")
    head = json.loads(verilog.with_suffix(".json").read_text(encoding="utf-8"))
    assert head["latency_clk"] == 55


def test_unknown_simulator(tmp_path):
    verilog = tmp_path / "x.v"
    verilog.write_text("module attention_head; endmodule\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"simulator must be one of .* not 'vcs'"):
        build_simulation(verilog, "vcs")


def test_a_path_with_a_space_is_refused_by_name(tmp_path):
    verilog = tmp_path / "x.v"
    verilog.write_text("module attention_head; endmodule\n", encoding="utf-8")
    with pytest.raises(SimulationError, match="cannot cope with a space in a path"):
        build_simulation(verilog, "verilator", tmp_path / "a b")


def test_verilog_that_does_not_build(tmp_path):
    verilog = tmp_path / "x.v"
    verilog.write_text("module attention_head( endmodule\n", encoding="utf-8")
    with pytest.raises(SimulationError, match=r"icarus could not build .*build\.log"):
        build_simulation(verilog, "icarus", tmp_path)


def test_stall_probability_out_of_range(tmp_path):
    trace = real_tokens(TokenSource(tokens=16, layer=2, head=1))
    with pytest.raises(ValueError, match=r"stall_probability must be in 0 <= p < 1, not 1\.0"):
        run_cosim(PRESETS["default"], trace, stall_probability=1.0, report_dir=tmp_path)
