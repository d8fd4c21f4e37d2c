"""Proofs of the window's blocks hold, and fail with the seeded bugs."""

from __future__ import annotations

import pytest

from hw.params import HeadParams
from synth import prove, prove_window
from synth.prove_window import WINDOW, WINDOW_BUGS, WINDOW_SIZES

SUBJECTS = {subject.title: subject for subject in prove_window.SUBJECTS}
each_size = pytest.mark.parametrize(
    ("subject", "params"),
    [
        pytest.param(s, p, id=f"{s.title}-{p.subtiles}x{p.columns}-{p.sinks}")
        for s in SUBJECTS.values()
        for p in s.sizes
    ],
)


def names(subject) -> list[str]:
    return [*subject.properties, "helper_ok"]


@each_size
def test_proved_by_a_single_step(subject, params):
    """All properties at once; each by itself, as in the report, is implied."""
    design = prove_window._design(subject.miter(params))
    assert prove._prove(design, names(subject)) == 1


def test_window_is_proved_from_reset():
    design = prove_window._design(WINDOW.miter(WINDOW_SIZES[3]))
    assert prove._prove(design, names(WINDOW), from_reset=True) == 1


def test_window_is_proved_at_its_full_size():
    design = prove_window._design(WINDOW.miter(HeadParams()))
    assert prove._prove(design, names(WINDOW)) == 1


@pytest.mark.parametrize(
    ("subject", "params"),
    [
        pytest.param(s, p, id=f"{s.title}-{p.subtiles}x{p.columns}-{p.sinks}")
        for s in SUBJECTS.values()
        for p in s.small[-3:]
        if s is not WINDOW or p.sinks
    ],
)
def test_seeded_bugs_are_found(subject, params):
    row = prove_window._evidence_job(subject, params)()
    assert row["status"] == "proved"
    assert [found["name"] for found in row["seeded_bugs"]] == [b.name for b in subject.bugs(params)]
    assert all(found["trace_clk"] for found in row["seeded_bugs"])
    assert row["reached_clk"]


@pytest.mark.parametrize(
    ("subject", "params", "bug"),
    [
        pytest.param(s, s.small[-1], bug, id=bug.name)
        for s in SUBJECTS.values()
        for bug in s.bugs(s.small[-1])[::3]
    ],
)
def test_induction_fails_with_a_bug(subject, params, bug):
    design = prove_window._design(subject.miter(params, bug))
    assert prove._prove(design, names(subject)) is None


def test_result_of_the_window():
    result = prove_window.prove_window(WINDOW_SIZES[1])
    assert result["proved"]
    assert result["config_hash"] == WINDOW_SIZES[1].config_hash
    proof, evidence = result["rows"]
    assert proof["method"] == "temporal induction from any state"
    for row in (proof, evidence):
        assert row["property"].endswith("(2 sub-tiles of 4 columns)")
    assert len(evidence["seeded_bugs"]) == len(WINDOW_BUGS)


def test_a_property_that_does_not_hold_is_reported(monkeypatch):
    """With a bug in the component itself rather than in a copy of it."""
    component = prove._component
    monkeypatch.setattr(
        prove, "_component", lambda name, bug: component(name, bug or WINDOW_BUGS[0])
        if name == "Window" else component(name, bug),
    )  # fmt: skip
    row = prove_window._proof_job(WINDOW, WINDOW_SIZES[1:2])()
    assert row["status"] == "FAILED"


def test_every_subject_has_its_jobs():
    jobs = prove_window.window_properties()
    evidence = sum(len(subject.small) for subject in SUBJECTS.values())
    assert len(jobs) == len(prove_window.FULL_SIZES) + len(SUBJECTS) + 1 + evidence
