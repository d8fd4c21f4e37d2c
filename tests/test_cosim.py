"""The generated Verilog with array models behind its analog boundary, on real simulators."""

from __future__ import annotations

import dataclasses
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cocotb_tests import cosim, runner
from cocotb_tests.cosim import run_cosim, run_every_cosim, saturation, traces_of
from cocotb_tests.gates import GATE_HEADS, run_gates
from cocotb_tests.runner import SimulationError, build_simulation, prepare_head, run_simulation
from cocotb_tests.soak import run_soak
from hw.params import HeadParams
from hw.presets import PRESETS
from sim.results import ROOT
from sim.tokens import TokenSource
from synth.gates import write_gates
from synth.liberty import DEFAULT_LIBERTY, LibertyError
from synth.verilog import write_verilog

TINY = PRESETS["tiny"]
LAYER = PRESETS["tiny-layer"]
#: No feature at all: what is absent has no port, register or bit.
BARE = {
    "sinks": 0,
    "age_bits": 0,
    "trim_bits": 0,
    "shots": False,
    "refresh": False,
    "self_test": False,
}


def run_tests(
    params: HeadParams,
    simulator: str,
    run_dir: Path,
    module: str = "test_head",
    testcase: str | None = None,
    decay: float = 0.0,
    **job: Any,
) -> None:
    """Run every test of a module of `cocotb_tests`; figures of the head come from its JSON."""
    folder = prepare_head(params, simulator)
    interface = ROOT / "build" / "sim" / f"head-{params.config_hash}" / f"{params.top}.json"
    head = json.loads(interface.read_text(encoding="utf-8"))
    content = {
        "params": params.as_dict(),
        "seed": 1,
        "laps": 2,
        "packets": 15,
        "resets": 6,
        "latency_clk": head["latency_clk"],
        "query_latency_clk": head["query_latency_clk"],
        "expected_interval_clk": head["interval_clk"],
        "refresh_delay_clk": head["refresh_delay_clk"],
        "library": True,
        "analog": saturation(params) | {"decay_per_token": decay},
    }
    name = f"cocotb_tests.{module}"
    run_simulation(folder, simulator, name, content | job, run_dir=run_dir, testcase=testcase)


# --- packets --------------------------------------------------------------------------------
@pytest.mark.cosim
@pytest.mark.parametrize("name", ["tiny", "tiny-layer", "slow-write", "three-subtiles"])
def test_packets_on_icarus(name, tmp_path):
    run_tests(PRESETS[name], "icarus", tmp_path)


@pytest.mark.cosim
def test_packets_of_the_simple_schedule(tmp_path):
    params = dataclasses.replace(LAYER, schedule="simple", readout="counter")
    run_tests(params, "icarus", tmp_path, library=False, seed=4)


@pytest.mark.cosim
def test_packets_of_a_head_without_features(tmp_path):
    run_tests(dataclasses.replace(TINY, **BARE), "icarus", tmp_path, seed=5, decay=0.01)


@pytest.mark.cosim
def test_packets_with_a_single_result_slot(tmp_path):
    params = dataclasses.replace(TINY, result_slots=1, event_bits=4)
    run_tests(params, "icarus", tmp_path, library=False)


@pytest.mark.cosim
def test_a_wrong_expectation_is_noticed(tmp_path):
    with pytest.raises(SimulationError, match=r"1 of 1 tests failed; see .*run\.log"):
        run_tests(TINY, "icarus", tmp_path, testcase="latency_and_interval", latency_clk=54)


# --- registers, and what they control ---------------------------------------------------------
@pytest.mark.cosim
@pytest.mark.parametrize("name", ["tiny", "tiny-layer"])
def test_features_on_icarus(name, tmp_path):
    run_tests(PRESETS[name], "icarus", tmp_path, "test_features")


@pytest.mark.cosim
def test_features_of_a_head_without_any(tmp_path):
    run_tests(dataclasses.replace(TINY, **BARE), "icarus", tmp_path, "test_features")


@pytest.mark.cosim
def test_features_of_the_simple_schedule_on_verilator(tmp_path):
    params = dataclasses.replace(PRESETS["three-subtiles"], schedule="simple")
    run_tests(params, "verilator", tmp_path, "test_features", library=False, seed=3)


# --- real tokens ------------------------------------------------------------------------------
@pytest.mark.cosim
@pytest.mark.xdist_group("full-head-on-verilator")  # built once
def test_real_tokens_wrap_the_full_window(tmp_path):
    params = PRESETS["default"]
    traces = traces_of(params, TokenSource(tokens=1100, seed=3, layer=2, head=1))
    figures = run_cosim(params, traces, stall_probability=0.2, report_dir=tmp_path)
    assert figures["tokens"] == 1100
    assert figures["lanes_compared"] == 1100 * params.lanes
    assert figures["mismatches"] == 0
    assert figures["latency_clk"] == 55
    assert figures["interval_clk"] == 20
    written = json.loads((tmp_path / "cosim.json").read_text(encoding="utf-8"))
    assert written["config_hash"] == params.config_hash
    shares = figures["time_share"]
    parts = ["array_model", "bridge", "functional_model", "stream_drivers", "simulator"]
    assert list(shares) == parts
    assert min(shares.values()) > 0
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.cosim
def test_real_tokens_of_every_kind_of_preset(tmp_path):
    source = TokenSource(tokens=40, layer=2, head=1)
    names = ["tiny", "tiny-layer"]
    rows = list(run_every_cosim(source, presets=names, simulator="icarus", report_dir=tmp_path))
    assert [row["preset"] for row in rows] == names
    assert [row["lanes_compared"] for row in rows] == [40 * 4, 3 * 40 * 4]
    assert [row["mismatches"] for row in rows] == [0, 0]
    assert all(row["full_scale_lanes"] for row in rows)
    written = json.loads((tmp_path / "cosim_all.json").read_text(encoding="utf-8"))
    assert written["rows"] == rows
    for name in names:
        assert (tmp_path / "cosim" / name / "attention.png").exists()


@pytest.mark.cosim
def test_tokens_of_two_contexts(tmp_path, monkeypatch):
    monkeypatch.setattr("sim.tokens.CONTEXT", 30)
    traces = traces_of(TINY, TokenSource(tokens=45, layer=0))
    figures = run_cosim(TINY, traces, simulator="icarus", report_dir=tmp_path)
    assert (figures["answers"], figures["mismatches"]) == (45, 0)


@pytest.mark.cosim
def test_two_runs_at_once_stay_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "ROOT", tmp_path)  # nothing is built yet
    monkeypatch.setattr(cosim, "ROOT", tmp_path)
    sources = [TokenSource(tokens=16 + i, layer=2, head=1, seed=i) for i in range(2)]
    traces = [traces_of(TINY, source) for source in sources]
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(run_cosim, TINY, own, simulator="icarus", report_dir=tmp_path / str(i))
            for i, own in enumerate(traces)
        ]
        figures = [run.result() for run in runs]
    assert [(f["tokens"], f["seed"], f["mismatches"]) for f in figures] == [(16, 0, 0), (17, 1, 0)]
    assert not list((tmp_path / "build" / "run").iterdir())


# --- soak -------------------------------------------------------------------------------------
@pytest.mark.cosim
@pytest.mark.parametrize(("params", "packets"), [(TINY, 600), (LAYER, 250)], ids=["head", "layer"])
def test_short_soak_on_icarus(params, packets, tmp_path):
    figures = run_soak(
        params,
        packets=packets,
        processes=2,
        often=10.0,
        seed=1,
        simulator="icarus",
        report_dir=tmp_path,
    )
    assert figures["mismatches"] == 0
    assert figures["malformed"] > 0
    assert figures["packets"] == packets
    assert {"hard_reset", "soft_reset", "read", "setting"} <= set(figures["things"])
    written = json.loads((tmp_path / "soak.json").read_text(encoding="utf-8"))
    assert written["config_hash"] == params.config_hash


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"packets": 1, "processes": 2}, r"packets must be at least 2, one a process, not 1"),
        ({"packets": 1, "processes": 0}, r"processes must be in 1\.\.64, not 0"),
    ],
)
def test_soak_refuses(given, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_soak(TINY, report_dir=tmp_path, **given)


# --- gates ------------------------------------------------------------------------------------
@pytest.mark.cosim
def test_netlists_of_cells_do_what_their_sources_do(tmp_path):
    heads = {name: GATE_HEADS[name] for name in ("tiny", "tiny without features")}
    rows = run_gates(heads, packets=30, seed=1, report_dir=tmp_path)
    assert [row["head"] for row in rows] == list(heads)
    assert [row["mismatches"] for row in rows] == [0, 0]
    assert rows[0]["flip_flops"] > rows[1]["flip_flops"] > 400
    written = json.loads((tmp_path / "gates.json").read_text(encoding="utf-8"))
    assert written["rows"] == rows


@pytest.mark.cosim
def test_a_flip_flop_without_reset_is_noticed(tmp_path, monkeypatch):
    def without_reset(params, path, library):
        write_gates(params, path, library)
        text = path.read_text(encoding="utf-8")
        # The flip-flop that says whether a result waits no longer sees the reset.
        flip_flop = re.compile(r"\.D\(\w+\),(\s*\.Q\(\\sender\.held \[0\]\))")
        changed = flip_flop.sub(r".D(\\sender.held [0]),\1", text)
        assert changed != text
        path.write_text(changed, encoding="utf-8")
        return path

    monkeypatch.setattr("cocotb_tests.gates.write_gates", without_reset)
    heads = {"tiny": GATE_HEADS["tiny without features"]}
    with pytest.raises(SimulationError, match="1 of 1 tests failed"):
        run_gates(heads, packets=1, report_dir=tmp_path)


def test_gates_refuse(tmp_path):
    with pytest.raises(ValueError, match="packets must be at least 1, not 0"):
        run_gates(packets=0, report_dir=tmp_path)
    alone = tmp_path / "cells.lib"
    alone.write_bytes(DEFAULT_LIBERTY.read_bytes())
    with pytest.raises(LibertyError, match=r"cells\.v, which simulates the library's cells"):
        run_gates(liberty=alone, report_dir=tmp_path)


# --- the rest ---------------------------------------------------------------------------------
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


def test_cosim_refuses(tmp_path):
    traces = traces_of(TINY, TokenSource(tokens=16, layer=2, head=1))
    with pytest.raises(ValueError, match=r"stall_probability must be in 0 <= p < 1, not 1\.0"):
        run_cosim(TINY, traces, stall_probability=1.0, report_dir=tmp_path)
    with pytest.raises(ValueError, match=r"traces must be one for each of 3 heads, not 1"):
        run_cosim(LAYER, traces, report_dir=tmp_path)
