"""The register bank's proofs hold, see seeded bugs, and name what they need."""

from __future__ import annotations

import dataclasses

import pytest

from synth import prove, prove_registers
from synth.prove_registers import (
    BUG_CLK,
    REGISTER_BUGS,
    REGISTER_PROPERTIES,
    REGISTER_SIZES,
    RegisterMiter,
    register_properties,
)

ALL = (*REGISTER_PROPERTIES, "helper_ok")
ROW = {"property", "method", "depth", "seconds", "status"}
BARE = REGISTER_SIZES[1]


def find(bug, name, params=BARE):
    design = prove._Design.of(RegisterMiter(params, bug))
    return prove._find(design, (name,), BUG_CLK, from_reset=True)


@pytest.mark.parametrize("params", REGISTER_SIZES, ids=("complete", "bare"))
def test_bank_is_proved_by_one_step(params):
    assert prove._prove(prove._Design.of(RegisterMiter(params)), ALL, from_reset=True) == 1


def test_one_size_has_every_feature_and_one_has_none():
    features = ("sinks", "age_bits", "trim_bits", "shots", "refresh", "self_test")
    complete, bare = ([getattr(size, name) for name in features] for size in REGISTER_SIZES)
    assert all(complete) and not any(bare)
    assert [size.heads > 1 for size in REGISTER_SIZES] == [True, False]


@pytest.mark.parametrize("name", REGISTER_PROPERTIES)
def test_every_property_has_bugs_that_fit(name):
    assert REGISTER_BUGS[name]
    for bug in REGISTER_BUGS[name]:
        prove._component(bug.component, bug)


def test_a_seeded_bug_is_found_from_reset():
    assert find(REGISTER_BUGS["boundary_ok"][1], "boundary_ok")


def test_a_bug_that_is_none_is_not_found():
    harmless = dataclasses.replace(
        REGISTER_BUGS["live_ok"][1],
        name="none",
        new="self.s_axil_arready.eq(~(self.s_axil_rvalid | reading))",
    )
    design = prove._Design.of(RegisterMiter(BARE, harmless))
    assert prove._prove(design, ALL, from_reset=True) == 1


def test_induction_fails_with_a_bug():
    bug = REGISTER_BUGS["range_ok"][0]
    design = prove._Design.of(RegisterMiter(BARE, bug))
    assert prove._prove(design, ("range_ok", "helper_ok"), from_reset=True) is None


def test_rows(monkeypatch):
    bugs = {**REGISTER_BUGS, "pairs_ok": REGISTER_BUGS["pairs_ok"][:1]}
    monkeypatch.setattr(prove_registers, "REGISTER_BUGS", bugs)
    monkeypatch.setattr(prove_registers, "REGISTER_SIZES", (BARE,))
    rows = [job() for job in register_properties(("pairs_ok",), (BARE,))]
    assert all(ROW <= set(row) and row["status"] == "proved" for row in rows)
    assert [bug["name"] for bug in rows[1]["seeded_bugs"]] == [b.name for b in bugs["pairs_ok"]]
    assert rows[1]["reached_clk"]


def test_a_proof_that_fails_is_reported(monkeypatch):
    monkeypatch.setattr(prove_registers, "BUG_CLK", 1)
    bugs = {**REGISTER_BUGS, "live_ok": REGISTER_BUGS["live_ok"][:1]}
    monkeypatch.setattr(prove_registers, "REGISTER_BUGS", bugs)
    monkeypatch.setattr(prove_registers, "REGISTER_SIZES", (BARE,))
    row = register_properties(("live_ok",), (BARE,))[1]()
    assert row["status"] == "FAILED"


def test_every_proof_is_run_by_run_proofs(monkeypatch):
    ours = [lambda: {"property": "ours"}]
    monkeypatch.setattr(prove_registers, "register_properties", lambda: ours)
    assert ours[0] in prove._jobs(full=False)
    assert ours[0] in prove._jobs(full=True)
