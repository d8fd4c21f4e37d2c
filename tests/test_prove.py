"""Proofs hold, see seeded bugs, and cannot be had by an environment that does nothing."""

from __future__ import annotations

import dataclasses
import json
from typing import ClassVar

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out

from hw.params import HeadParams
from synth import prove
from synth.prove import (
    READOUT_BUGS,
    READOUT_SIZES,
    ProofError,
    ReadoutMiter,
    prove_readouts,
    run_proofs,
)

READOUT_PROPERTIES = ("equal_ok", "counter_ok", "population_ok", "helper_ok")


def check_evidence(row, bugs) -> None:
    assert [found["name"] for found in row["seeded_bugs"]] == [bug.name for bug in bugs]
    assert all(found["trace_clk"] for found in row["seeded_bugs"])
    assert row["reached_clk"]


def test_readouts_are_proved_equal_and_right():
    result = prove_readouts()
    assert result["proved"]
    assert result["config_hash"] == READOUT_SIZES[0].config_hash
    *proofs, evidence = result["rows"]
    assert [row["depth"] for row in proofs] == [1, 1, 1]
    assert all(row["method"] == "temporal induction from any state" for row in proofs)
    check_evidence(evidence, READOUT_BUGS)
    # A clear, the phase, and the clock in which its result is seen: no shorter trace is complete.
    assert evidence["reached_clk"] == READOUT_SIZES[0].count_max + 2


@pytest.mark.parametrize("bug", READOUT_BUGS[::2], ids=lambda bug: bug.name)
def test_induction_fails_with_a_bug_in_a_readout(bug):
    design = prove._Design.of(ReadoutMiter(READOUT_SIZES[0], bug))
    assert prove._prove(design, READOUT_PROPERTIES) is None


def test_a_bug_that_is_none_is_not_found():
    harmless = dataclasses.replace(READOUT_BUGS[0], name="none", new="sign ^ pulse for")
    design = prove._Design.of(ReadoutMiter(READOUT_SIZES[0], harmless))
    assert prove._find(design, READOUT_PROPERTIES, 4) is None
    assert prove._prove(design, READOUT_PROPERTIES) == 1


def test_a_bug_that_does_not_fit_the_source_is_reported():
    stale = dataclasses.replace(READOUT_BUGS[0], old="no such text")
    with pytest.raises(ProofError, match="does not fit the source of PopulationReadout"):
        prove._component("PopulationReadout", stale)


def test_one_lane_is_refused():
    with pytest.raises(ValueError, match=r"lanes must be in 2\.\.256 for the proof, not 1"):
        prove_readouts(HeadParams(subtiles=3, columns=2, rows=1, lanes=1))


def test_result_file(tmp_path, monkeypatch):
    jobs = prove._readout_jobs(READOUT_SIZES[0])[:1]
    monkeypatch.setattr(prove, "_jobs", lambda *, full: jobs * (1 + full))
    assert len(run_proofs(tmp_path, full=True)) == 2
    rows = run_proofs(tmp_path)
    content = json.loads((tmp_path / "formal.json").read_text(encoding="utf-8"))
    assert content["rows"] == rows and len(rows) == 1
    assert content["config_hash"] == HeadParams().config_hash
    assert {"amaranth", "pyosys"} <= set(content["tools"])
    assert all({"property", "method", "depth", "seconds", "status"} <= set(row) for row in rows)
    assert {row["status"] for row in rows} == {"proved"}


def test_every_block_is_proved_in_short_and_in_full():
    short, full = (prove._jobs(full=which) for which in (False, True))
    assert len(short) < len(full)


def test_a_switch_on_a_probe_is_refused():
    class Switched(Component):
        probes: ClassVar = {"probe_x": ["x"]}

        def __init__(self):
            super().__init__({"probe_x": In(1), "ok": Out(1)})

        def elaborate(self, platform):
            m = Module()
            with m.If(self.probe_x):
                m.d.comb += self.ok.eq(1)
            return m

    with pytest.raises(ProofError, match="Switched must hold no switch on a probe"):
        prove._Design.of(Switched())
