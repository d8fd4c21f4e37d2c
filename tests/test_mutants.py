"""A short mutation campaign, and what chooses and describes mutants."""

from __future__ import annotations

import json

import pytest

from cocotb_tests.runner import SimulationError
from hw.layer import AttentionLayer
from sim.results import ROOT
from synth import mutants
from synth.mutants import NetlistMutant, mutant_params, run_mutants, source_mutants

SEED = 1


@pytest.mark.cosim
def test_short_campaign(tmp_path):
    result = run_mutants(24, SEED, "icarus", tmp_path, sources=False)
    assert result["count"] == 24
    assert result["caught"] + result["survived"] == 24
    assert result["share"] >= 0.9, result["survivors"]
    assert len(result["survivors"]) == result["survived"]
    assert {survivor["description"] for survivor in result["survivors"]} == set(
        result["explanations"]
    )
    assert not any(text.startswith("not equiv") for text in result["explanations"].values())
    assert sum(block["count"] for block in result["by_block"].values()) == 24
    content = json.loads((tmp_path / "mutants.json").read_text(encoding="utf-8"))
    assert content["config_hash"] == mutant_params().config_hash
    assert content["survivors"] == result["survivors"]


@pytest.fixture(scope="module")
def netlist(tmp_path_factory):
    return mutants._write_netlist(
        AttentionLayer(mutant_params()), 40, SEED, tmp_path_factory.mktemp("netlist")
    )


def test_mutants_are_described_by_block_and_net(netlist):
    _, verilog, listed = netlist
    assert [mutant.number for mutant in listed] == list(range(1, 41))
    blocks = {
        "attention_head", "receiver", "sequencer", "window", "writer", "column_mask",
        "pulse_bank", "readout", "full_scale", "sender", "status",
    }  # fmt: skip
    assert {mutant.block for mutant in listed} <= blocks
    assert len({mutant.block for mutant in listed}) > 3
    assert all(mutant.cell.startswith("$") and mutant.net for mutant in listed)
    assert not any("$" in mutant.net for mutant in listed)
    assert "mutsel" in verilog.read_text(encoding="utf-8")


def mutant(command: str) -> NetlistMutant:
    return NetlistMutant(
        number=1, command=command, mode="", block="", cell="", port="", bit=0, net=""
    )


def test_survivors_are_judged(netlist):
    flat = netlist[0]
    lines = flat.read_text(encoding="utf-8").splitlines()
    # The comparison of the column with its highest value, "greater than 3", is never true.
    cell = next(
        lines[at].split()[2]
        for at in range(len(lines))
        if "cell $gt $flatten\\column_mask" in lines[at]
        and any("connect \\B 2'11" in line for line in lines[at : at + 10])
    )
    command = f"mutate -mode const0 -module attention_head -cell {cell} -port Y -portbit 0"
    assert mutants._judge_survivor(flat, mutant(command)).startswith("proved equivalent")
    register = next(line.split()[2] for line in lines if "cell $dff $flatten\\window" in line)
    command = f"mutate -mode inv -module attention_head -cell {register} -port Q -portbit 0"
    assert mutants._judge_survivor(flat, mutant(command)).startswith("not equivalent")


def test_source_mutants_are_what_must_not_change():
    listed = source_mutants()
    texts = [mutant.description.split(": ", 1) for mutant in listed]
    paths = {place.split(":")[0] for place, _ in texts}
    assert paths == {
        "analog_models/presets.py", "analog_models/params.py", "analog_models/converter.py",
        "hw/window.py", "hw/column_mask.py", "hw/readout.py",
    }  # fmt: skip
    changes = [change for _, change in texts]
    for change in ("13.6122606 -> -13.6122606", "80.0 -> 80.8", "== -> !=", "> -> >=", "^ -> &"):
        assert change in changes
    assert len(changes) >= 25
    for each in listed:
        text = (ROOT / each.path).read_text(encoding="utf-8")
        assert text[each.start : each.end] == each.old
        compile(text[: each.start] + each.new + text[each.end :], each.path, "exec")


def test_a_source_mutant_is_caught_and_an_equivalent_one_explained():
    listed = [m for m in source_mutants() if m.path == "hw/column_mask.py"]
    counts = []
    result = mutants._run_source_mutants(listed[:2], counts.append)
    assert result["count"] == result["caught"] == 2
    assert counts == [1, 2]
    places = {mutant.place for mutant in source_mutants()}
    assert set(mutants.SOURCE_EXPLANATIONS) <= places


def test_source_mutants_without_tests_are_not_counted():
    listed = [m for m in source_mutants() if m.path == "hw/window.py"][:1]
    orphan = [type(m)(**{**vars(m), "tests": "tests/no_such_*.py"}) for m in listed]
    result = mutants._run_source_mutants(orphan, lambda done: None)
    assert result["count"] == 0 and result["share"] is None
    assert result["missing_tests"] == ["tests/no_such_*.py"]


@pytest.mark.parametrize("count", (0, -3))
def test_count_must_be_positive(count):
    with pytest.raises(ValueError, match=f"count must be in 1.., not {count}"):
        run_mutants(count)


def test_simulator_must_be_known():
    with pytest.raises(ValueError, match="simulator must be one of"):
        run_mutants(1, simulator="none")


def test_a_simulation_that_cannot_run_is_reported(tmp_path):
    worker = mutants._Worker(tmp_path / "no-build", "icarus", {}, [1], tmp_path / "run")
    with pytest.raises(SimulationError, match="did not run to its end"):
        while not worker.done:
            worker.poll()
