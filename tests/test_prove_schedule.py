"""The streaming schedule's proofs hold, see seeded bugs, and name what they need."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from hw.params import HeadParams
from hw.streaming_sequencer import StreamingSequencer
from synth import prove, prove_schedule
from synth.prove import ProofError
from synth.prove_schedule import (
    EQUALITY_BUGS,
    EQUALITY_SIZE,
    RECEIVER_BUGS,
    RECEIVER_SIZE,
    SCHEDULE_BUGS,
    SCHEDULE_PROPERTIES,
    SCHEDULE_SIZES,
    SHORTEST,
    SIMPLE_BUGS,
    EqualityMiter,
    ReceiverMiter,
    ScheduleMiter,
    SimpleMiter,
    schedule_properties,
)
from synth.verilog import component_rtlil

ALL = (*SCHEDULE_PROPERTIES, "helper_ok")
ROW = {"property", "method", "depth", "seconds", "status"}


def find(miter, name, depth=10):
    return prove._find(prove._Design.of(miter), (name,), depth, from_reset=True)


@pytest.mark.parametrize("params", (SCHEDULE_SIZES[2], SCHEDULE_SIZES[-1]), ids=("long", "default"))
def test_schedule_is_proved_by_one_step(params):
    assert prove._prove(prove._Design.of(ScheduleMiter(params)), ALL, from_reset=True) == 1


def test_sizes_have_the_default_phases_and_each_order_of_lengths():
    default = HeadParams()
    last = SCHEDULE_SIZES[-1]
    for field in ("q_bits", "count_bits", "write_clk", "guard_clk", "tag_bits", "result_slots"):
        assert getattr(last, field) == getattr(default, field)
    longer = [params.readout_clk - params.integrate_clk for params in SCHEDULE_SIZES]
    assert min(longer) < 0 < max(longer) and 0 in longer
    assert any(params.write_clk == params.integrate_clk > 1 for params in SCHEDULE_SIZES)
    assert any(params.write_clk < params.guard_clk for params in SCHEDULE_SIZES)
    assert {params.result_slots for params in SCHEDULE_SIZES} >= {1, 2, 3, 4}


def test_bound_on_time_is_the_latency_of_a_query():
    for params in SCHEDULE_SIZES:
        miter, sequencer = ScheduleMiter(params), StreamingSequencer(params)
        # Amaranth warns of components that nobody elaborates.
        component_rtlil(miter, "miter"), component_rtlil(sequencer, "sequencer")
        assert miter.idle_clk == sequencer.query_latency_clk
        assert miter.taken_clk == sequencer.latency_clk + params.result_beats + 1


@pytest.mark.parametrize("name", SCHEDULE_PROPERTIES)
def test_every_property_has_bugs_that_fit(name):
    assert SCHEDULE_BUGS[name]
    for bug in SCHEDULE_BUGS[name]:
        prove._component(bug.component, bug)


@pytest.mark.parametrize("name", ("arrays_ok", "banks_ok", "answers_ok", "window_ok"))
def test_a_seeded_bug_is_found_from_reset(name):
    bug = SCHEDULE_BUGS[name][-1]
    assert find(ScheduleMiter(prove_schedule._bug_size(bug), bug), name)


@pytest.mark.parametrize("name", SCHEDULE_PROPERTIES)
def test_induction_fails_with_a_bug(name):
    bug = SCHEDULE_BUGS[name][0]
    design = prove._Design.of(ScheduleMiter(prove_schedule._bug_size(bug), bug))
    assert prove._prove(design, (name, "helper_ok"), from_reset=True) is None


def test_a_bug_that_is_none_is_not_found():
    harmless = dataclasses.replace(
        SCHEDULE_BUGS["arrays_ok"][-1], name="none", new="writable = v_done | ~v_pending"
    )
    design = prove._Design.of(ScheduleMiter(SHORTEST, harmless))
    assert prove._prove(design, ALL, from_reset=True) == 1


def test_environment_lets_every_stage_work_at_once():
    miter = ScheduleMiter(dataclasses.replace(SHORTEST, result_slots=3))
    assert prove._reach(prove._Design.of(miter), 10, from_reset=True)


def test_receiver_keeps_codes():
    design = prove._Design.of(ReceiverMiter(RECEIVER_SIZE))
    assert prove._prove(design, ("codes_ok",), from_reset=True) == 1
    assert find(ReceiverMiter(RECEIVER_SIZE, RECEIVER_BUGS[0]), "codes_ok")


def test_simple_schedule_keeps_the_same_specification():
    design = prove._Design.of(SimpleMiter(SCHEDULE_SIZES[-1]))
    assert prove._prove(design, ("same_ok", "helper_ok"), from_reset=True) == 1
    for bug in SIMPLE_BUGS:
        assert find(SimpleMiter(SHORTEST, bug), "same_ok", 16), bug.name


def test_schedules_are_equal_and_a_difference_is_found():
    design = prove._Design.of(EqualityMiter(EQUALITY_SIZE, packets=2))
    assert prove._holds(design, "equal_ok", 8)
    for bug in EQUALITY_BUGS:
        assert find(EqualityMiter(EQUALITY_SIZE, bug), "equal_ok"), bug.name


def test_a_property_that_fails_is_not_held():
    design = prove._Design.of(EqualityMiter(EQUALITY_SIZE, EQUALITY_BUGS[0]))
    assert not prove._holds(design, "equal_ok", 6)


def test_rows():
    proofs = schedule_properties(("window_ok",), (SHORTEST,))
    rows = [job() for job in proofs[2:5]]
    assert all(ROW <= set(row) and row["status"] == "proved" for row in rows)
    found = rows[-1]["seeded_bugs"]
    assert [bug["name"] for bug in found] == [bug.name for bug in SCHEDULE_BUGS["window_ok"]]
    assert all(bug["trace_clk"] for bug in found)
    assert rows[-1]["reached_clk"]


def test_a_proof_that_fails_is_reported(monkeypatch):
    monkeypatch.setattr(prove_schedule, "BUG_CLK", 1)
    row = schedule_properties(("idle_ok",), (SHORTEST,))[4]()
    assert row["status"] == "FAILED"
    assert row["depth"] == 1


def test_a_bug_that_does_not_fit_is_reported():
    stale = dataclasses.replace(SCHEDULE_BUGS["banks_ok"][0], old="no such text")
    with pytest.raises(ProofError, match="does not fit the source of StreamingSequencer"):
        prove._component("StreamingSequencer", stale)


def test_every_proof_is_run_by_run_proofs():
    assert "schedule_properties()" in inspect.getsource(prove.run_proofs)
