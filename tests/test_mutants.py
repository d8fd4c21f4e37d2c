"""A short mutation campaign, and what chooses and describes mutants."""

from __future__ import annotations

import json

import pytest

from cocotb_tests.runner import SimulationError
from hw.layer import AttentionLayer
from hw.params import HeadParams
from sim.results import ROOT
from synth import mutants
from synth.mutants import NetlistMutant, mutant_params, run_mutants, source_mutants

SEED = 1


PARTS = ("first", "latency", "fill", "malformed", "every_bit")


@pytest.mark.cosim
def test_short_campaign(tmp_path):
    result = run_mutants(
        12, SEED, "icarus", tmp_path, sources=False, pools=("head",), parts=PARTS, judge=False
    )
    assert result["count"] == 12
    assert result["caught"] + result["survived"] == 12
    assert result["caught"] <= result["compared"]
    # Few parts of the scenario: a share of what all of it catches.
    assert result["share"] >= 0.25, result["survivors"]
    assert len(result["survivors"]) == result["survived"]
    assert {survivor["description"] for survivor in result["survivors"]} == set(
        result["explanations"]
    )
    for figures in (result["by_block"], result["by_pool"]):
        assert sum(part["count"] for part in figures.values()) == 12
    content = json.loads((tmp_path / "mutants.json").read_text(encoding="utf-8"))
    assert content["config_hash"] == mutant_params().config_hash
    assert content["survivors"] == result["survivors"]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return mutants._pools(("head",), 40, SEED, tmp_path_factory.mktemp("netlist"))[0]


def test_mutants_are_described_by_block_and_net(pool):
    listed = pool.mutants
    assert [mutant.number for mutant in listed] == list(range(1, 41))
    blocks = {
        "layer", "receiver", "step", "sequencer", "window", "writer", "column_mask", "ages",
        "refresh", "code_store", "pulse_bank", "readout", "full_scale", "shot_accumulator",
        "sender", "registers",
    }  # fmt: skip
    assert {mutant.block for mutant in listed} <= blocks
    assert len({mutant.block for mutant in listed}) > 5
    assert all(mutant.cell.startswith("$") and mutant.net for mutant in listed)
    assert not any("$" in mutant.net for mutant in listed)
    verilog = pool.verilog.read_text(encoding="utf-8")
    assert "module mutant_bench(" in verilog
    assert "(m_axis_tdata != own_m_axis_tdata) & m_axis_tvalid" in verilog


def test_mutants_are_shared_in_proportion():
    assert mutants._shares([300, 500, 200], 100) == [30, 50, 20]
    assert sum(mutants._shares([311, 507, 263], 500)) == 500
    assert mutants._shares([1, 1000], 10) == [1, 10]


RTLIL = r"""
  wire width 4 \a
  wire width 2 \y
  cell $mux $one
    connect \A { 1'1 \a [2:1] 1'0 }
    connect \B 4'1010
    connect \S \a [3]
    connect \Y \y
  end
  cell $add $two
    connect \A 5
    connect \Y \y [1]
  end
"""


def test_what_changes_nothing_is_no_mutant():
    netlist = mutants._Netlist(RTLIL)
    assert netlist.bits("$one", "A") == ["0", "\\a:1", "\\a:2", "1"]
    assert netlist.bits("$one", "Y") == ["\\y:0", "\\y:1"]
    assert netlist.bits("$two", "A")[:4] == ["1", "0", "1", "0"]
    for cell, port, mode, bit, changes in (
        ("$one", "A", "const0", 0, False),
        ("$one", "A", "const1", 0, True),
        ("$one", "A", "const1", 1, True),
        ("$one", "B", "const1", 3, False),
        ("$one", "B", "inv", 3, True),
        ("$one", "S", "const0", 0, True),
        ("$two", "A", "const0", 2, True),
        ("$two", "A", "const0", 3, False),
        ("$one", "A", "cnot0 -ctrlbit 3", 1, False),
        ("$one", "A", "cnot1 -ctrlbit 3", 1, True),
        ("$one", "A", "cnot1 -ctrlbit 2", 1, True),
    ):
        command = f"mutate -mode {mode} -module m -cell {cell} -port {port} -portbit {bit}"
        assert netlist.changes(command) == changes, command


def mutant(command: str) -> NetlistMutant:
    return NetlistMutant(
        pool="head", number=1, command=command, mode="", block="", cell="", port="", bit=0, net=""
    )


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Smallest of heads, without features: proofs of it are quick."""
    folder = tmp_path_factory.mktemp("bare")
    shape = {"subtiles": 2, "columns": 4, "rows": 1, "lanes": 1, "bus_bits": 32}
    layer = AttentionLayer(HeadParams(**shape, q_bits=2, event_bits=4, write_clk=1))
    flat = mutants._flatten(layer, folder)
    return mutants._Pool(name="head", layer=layer, flat=flat, verilog=flat, mutants=[])


def test_survivors_are_judged(bare):
    pool = bare
    lines = pool.flat.read_text(encoding="utf-8").splitlines()
    # The comparison of the column with its highest value, "greater than 3", is never true.
    cell = next(
        lines[at].split()[2]
        for at in range(len(lines))
        if "cell $gt $flatten\\column_mask" in lines[at]
        and any("connect \\B 2'11" in line for line in lines[at : at + 10])
    )
    command = f"mutate -mode const0 -module attention_head -cell {cell} -port Y -portbit 0"
    same = {"apart": 0, "aside": 0}
    verdict, proved = mutants._explain(pool, mutant(command), same, judge=True)
    assert proved and verdict.startswith("proved equivalent")
    register = next(line.split()[2] for line in lines if "cell $dff $flatten\\window" in line)
    # A constant that drives a net must not be taken for the original.
    for mode in ("const1",):
        command = f"mutate -mode {mode} -module attention_head -cell {register} -port Q -portbit 0"
        verdict, proved = mutants._explain(pool, mutant(command), same, judge=True)
        assert not proved and verdict.startswith("not equivalent")
    assert "comparison" in mutants._explain(pool, mutant(""), {"apart": 7, "aside": 7}, True)[0]
    assert "nothing" in mutants._explain(pool, mutant(""), {"apart": 0, "aside": 7}, True)[0]


def test_source_mutants_are_what_must_not_change():
    listed = source_mutants()
    texts = [mutant.description.split(": ", 1) for mutant in listed]
    paths = {place.split(":")[0] for place, _ in texts}
    assert paths == {
        "analog_models/presets.py", "analog_models/params.py", "analog_models/converter.py",
        "hw/window.py", "hw/column_mask.py", "hw/readout.py", "hw/ages.py", "hw/refresh.py",
        "hw/shot_accumulator.py", "hw/register_bank.py", "hw/streaming_sequencer.py", "hw/step.py",
    }  # fmt: skip
    changes = [change for _, change in texts]
    for change in ("13.6122606 -> -13.6122606", "80.0 -> 80.8", "== -> !=", "> -> >=", "^ -> &"):
        assert change in changes
    assert len(changes) >= 80
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


def test_netlist_must_be_known():
    with pytest.raises(ValueError, match="pools must be of"):
        run_mutants(1, pools=("none",))


def test_simulator_must_be_known():
    with pytest.raises(ValueError, match="simulator must be one of"):
        run_mutants(1, simulator="none")


def test_a_simulation_that_cannot_run_is_reported(tmp_path):
    worker = mutants._Worker(tmp_path / "no-build", "icarus", {}, [1], tmp_path / "run")
    with pytest.raises(SimulationError, match="did not run to its end"):
        while not worker.done:
            worker.poll()
