"""The schedules' proofs hold, see seeded bugs, and name what they need."""

from __future__ import annotations

import dataclasses

import pytest

from hw.params import HeadParams
from hw.presets import PRESETS
from synth import prove, prove_schedule
from synth.prove import ProofError
from synth.prove_schedule import (
    RECEIVER_BUGS,
    RECEIVER_SIZES,
    SCHEDULE_BUGS,
    SCHEDULE_PROPERTIES,
    SCHEDULE_SIZES,
    SHORTEST,
    ReceiverMiter,
    ScheduleMiter,
    schedule_names,
    schedule_properties,
)
from synth.prove_simple import (
    EQUALITY_BUGS,
    EQUALITY_SIZE,
    SIMPLE_BUGS,
    SIMPLE_PROPERTIES,
    EqualityMiter,
    SimpleMiter,
    simple_names,
    simple_properties,
)

ROW = {"property", "method", "depth", "seconds", "status"}


def proves(miter, names) -> int | None:
    return prove._prove(prove._Design.of(miter), (*names, "helper_ok"), from_reset=True)


def find(miter, name, depth=10):
    return prove._find(prove._Design.of(miter), (name,), depth, from_reset=True)


def bug_size(bug):
    return prove_schedule._bug_size(bug)


def test_schedule_with_refresh_is_proved_by_one_step():
    params = SCHEDULE_SIZES[3]
    assert params.refresh and params.shots and params.self_test
    assert proves(ScheduleMiter(params), schedule_names(params)) == 1


def test_sizes_have_the_default_phases_and_each_order_of_lengths():
    last, default = SCHEDULE_SIZES[-1], PRESETS["refresh"]
    for field in ("q_bits", "count_bits", "tag_bits", "result_slots", "shots", "refresh"):
        assert getattr(last, field) == getattr(default, field)
    for refresh in (False, True):
        longer = [
            params.readout_clk - params.integrate_clk
            for params in SCHEDULE_SIZES
            if params.refresh is refresh
        ]
        assert 0 in longer and max(longer) > 0
    assert any(params.readout_clk < params.integrate_clk for params in SCHEDULE_SIZES)
    assert {params.result_slots for params in SCHEDULE_SIZES} >= {1, 2, 3, 4}


def test_absent_features_have_no_properties():
    assert set(SCHEDULE_PROPERTIES) - set(schedule_names(SHORTEST)) == {
        "labels_ok", "codes_ok", "delay_ok",
    }  # fmt: skip
    assert set(SIMPLE_PROPERTIES) - set(simple_names(HeadParams())) == {"codes_ok", "delay_ok"}


@pytest.mark.parametrize("name", SCHEDULE_PROPERTIES)
def test_every_property_has_bugs_that_fit(name):
    assert SCHEDULE_BUGS[name]
    for bug in SCHEDULE_BUGS[name]:
        prove._component(bug.component, bug)
        assert name in schedule_names(bug_size(bug))


@pytest.mark.parametrize("name", ("arrays_ok", "labels_ok", "codes_ok", "delay_ok"))
def test_a_seeded_bug_is_found_from_reset(name):
    bug = SCHEDULE_BUGS[name][0]
    assert find(ScheduleMiter(bug_size(bug), bug), name)


@pytest.mark.parametrize("name", ("banks_ok", "answers_ok", "window_ok", "idle_ok", "taken_ok"))
def test_induction_fails_with_a_bug(name, monkeypatch):
    monkeypatch.setattr(prove, "MAX_DEPTH", 1)  # by a step, as the proof holds
    bug = SCHEDULE_BUGS[name][0]
    assert proves(ScheduleMiter(bug_size(bug), bug), (name,)) is None


def test_a_bug_that_is_none_is_not_found():
    harmless = dataclasses.replace(
        SCHEDULE_BUGS["arrays_ok"][0], name="none", new="free_1 = ends_1 | ~busy_1", needs={}
    )
    miter = ScheduleMiter(dataclasses.replace(SHORTEST, tag_bits=1), harmless)
    assert proves(miter, schedule_names(SHORTEST)) == 1


def test_environment_lets_every_stage_work_at_once():
    miter = ScheduleMiter(dataclasses.replace(SHORTEST, result_slots=3))
    assert prove._reach(prove._Design.of(miter), 10, from_reset=True)


def test_receiver_keeps_codes():
    for params in RECEIVER_SIZES:
        design = prove._Design.of(ReceiverMiter(params))
        assert prove._prove(design, ("codes_ok",), from_reset=True) == 1
    assert find(ReceiverMiter(RECEIVER_SIZES[-1], RECEIVER_BUGS[0]), "codes_ok")


def test_simple_schedule_is_proved_by_one_step():
    for params in SCHEDULE_SIZES[0:4:3]:
        assert proves(SimpleMiter(params), simple_names(params)) == 1


@pytest.mark.parametrize("name", SIMPLE_PROPERTIES)
def test_a_bug_in_the_simple_schedule_is_found(name):
    bug = SIMPLE_BUGS[name][0]
    params = dataclasses.replace(SHORTEST, **bug.needs)
    assert find(SimpleMiter(params, bug), name, 16)


def test_schedules_are_equal_and_a_difference_is_found():
    design = prove._Design.of(EqualityMiter(EQUALITY_SIZE, packets=2))
    assert prove._holds(design, "equal_ok", 6)
    bug = EQUALITY_BUGS[0]
    assert find(EqualityMiter(EQUALITY_SIZE, bug), "equal_ok"), bug.name
    assert not prove._holds(prove._Design.of(EqualityMiter(EQUALITY_SIZE, bug)), "equal_ok", 6)


def window_job():
    """Job that refutes the bugs of one property; the last two are the receiver's."""
    at = list(SCHEDULE_PROPERTIES).index("window_ok") - len(SCHEDULE_PROPERTIES) - 2
    return schedule_properties(full=False)[at]


def test_rows():
    row = window_job()()
    assert ROW <= set(row) and row["status"] == "proved"
    assert SCHEDULE_PROPERTIES["window_ok"] in row["property"]
    found = [bug["name"] for bug in row["seeded_bugs"]]
    assert found == [bug.name for bug in SCHEDULE_BUGS["window_ok"][-2:]]
    assert all(bug["trace_clk"] for bug in row["seeded_bugs"])


def test_a_proof_that_fails_is_reported(monkeypatch):
    monkeypatch.setattr(prove_schedule, "BUG_CLK", 1)
    row = window_job()()
    assert row["status"] == "FAILED"
    assert row["depth"] == 1


def test_a_bug_that_does_not_fit_is_reported():
    stale = dataclasses.replace(SCHEDULE_BUGS["banks_ok"][0], old="no such text")
    with pytest.raises(ProofError, match="does not fit the source of StreamingSequencer"):
        prove._component("StreamingSequencer", stale)


def test_full_has_more_than_short():
    for properties in (schedule_properties, simple_properties):
        assert len(properties(full=True)) > len(properties(full=False))
