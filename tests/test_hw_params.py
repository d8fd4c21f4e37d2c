"""Head parameters: error messages, derived figures, hash, presets."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.params import READOUTS, SCHEDULES, HeadParams
from hw.presets import PRESETS, preset
from sim.results import ROOT

RANGES = {
    "subtiles": (1, 256),
    "columns": (2, 256),
    "rows": (1, 256),
    "lanes": (1, 256),
    "q_bits": (1, 8),
    "kv_bits": (1, 8),
    "count_bits": (1, 8),
    "write_clk": (1, 64),
    "guard_clk": (1, 15),
    "bus_bits": (32, 1024),
    "tag_bits": (1, 16),
    "event_bits": (4, 32),
    "result_slots": (1, 16),
    "heads": (1, 64),
    "sinks": (0, 64),
    "age_bits": (0, 16),
    "trim_bits": (0, 16),
}
CHOICES = {"readout": READOUTS, "schedule": SCHEDULES}
SWITCHES = ("shots", "refresh", "self_test")
#: What a field needs of others before it can be at an end of its range.
NEEDS = {
    ("q_bits", 1): {"write_clk": 1},
    ("write_clk", 64): {"q_bits": 8},
    ("trim_bits", 16): {"subtiles": 256, "count_bits": 8},
}


def test_every_field_is_tested_here():
    names = [field.name for field in dataclasses.fields(HeadParams)]
    assert names == [*RANGES, *CHOICES, *SWITCHES]


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("value", (1.0, "4", None, True, [4]), ids=repr)
def test_kind(name, value):
    with pytest.raises(TypeError, match=f"^{name} must be an int, not {re.escape(repr(value))}$"):
        HeadParams(**{name: value})


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("end", ("below", "above", "negative", "huge"))
def test_range(name, end):
    low, high = RANGES[name]
    value = {"below": low - 1, "above": high + 1, "negative": -5, "huge": 10**9}[end]
    with pytest.raises(ValueError, match=rf"^{name} must be in {low}\.\.{high}, not {value}$"):
        HeadParams(**{name: value})


@pytest.mark.parametrize("name", RANGES)
def test_ends_of_the_range_are_legal(name):
    for value in RANGES[name]:
        others = NEEDS.get((name, value), {})
        assert getattr(HeadParams(**{**others, name: value}), name) == value


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", (1, 0, None, "yes", [True]), ids=repr)
def test_switch_kind(name, value):
    with pytest.raises(TypeError, match=f"^{name} must be a bool, not {re.escape(repr(value))}$"):
        HeadParams(**{name: value})


@pytest.mark.parametrize("name", SWITCHES)
def test_switches_are_off_by_default(name):
    assert getattr(HeadParams(), name) is False
    assert getattr(HeadParams(**{name: True}), name) is True


@pytest.mark.parametrize("name", ("age_bits", "trim_bits"))
def test_a_counter_of_one_bit_is_no_counter(name):
    with pytest.raises(ValueError, match=rf"^{name} must be 0 \(absent\) or in 2\.\.16, not 1$"):
        HeadParams(**{name: 1})
    assert getattr(HeadParams(**{name: 2}), name) == 2


@pytest.mark.parametrize(
    ("subtiles", "count_bits", "sum_bits"), ((1, 2, 3), (2, 4, 6), (16, 4, 9), (256, 8, 17))
)
def test_trim_is_no_wider_than_a_sum(subtiles, count_bits, sum_bits):
    shape = {"subtiles": subtiles, "count_bits": count_bits}
    widest = min(sum_bits, 16)
    assert HeadParams(**shape, trim_bits=widest).sum_bits == sum_bits
    if widest < 16:
        message = (
            rf"^trim_bits must be 0 \(absent\) or in 2\.\.{sum_bits}, no wider than a sum, "
            rf"not {sum_bits + 1}$"
        )
        with pytest.raises(ValueError, match=message):
            HeadParams(**shape, trim_bits=sum_bits + 1)


def test_sinks_leave_room_for_a_token():
    assert HeadParams(subtiles=2, columns=4, sinks=7).sinks == 7
    message = r"^sinks must be in 0\.\.7, less than the window, not 8$"
    with pytest.raises(ValueError, match=message):
        HeadParams(subtiles=2, columns=4, sinks=8)


@pytest.mark.parametrize("value", (33, 48, 65, 1023))
def test_bus_is_a_power_of_two(value):
    with pytest.raises(ValueError, match=rf"^bus_bits must be a power of two, not {value}$"):
        HeadParams(bus_bits=value)


def test_choices():
    assert READOUTS == ("population", "counter") and SCHEDULES == ("simple", "streaming")
    for name, choices in CHOICES.items():
        assert getattr(HeadParams(), name) == choices[0]
        for choice in choices:
            assert getattr(HeadParams(**{name: choice}), name) == choice


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", ("", "counters", "Population", "Streaming", "simple "))
def test_not_one_of_the_choices(name, value):
    choices = re.escape(str(CHOICES[name]))
    with pytest.raises(ValueError, match=rf"^{name} must be one of {choices}, not {value!r}$"):
        HeadParams(**{name: value})


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", (None, 1, True, ["counter"], b"simple"), ids=repr)
def test_choice_kind(name, value):
    with pytest.raises(TypeError, match=f"^{name} must be a str, not {re.escape(repr(value))}$"):
        HeadParams(**{name: value})


@pytest.mark.parametrize("slots", (1, 3, 16))
def test_schedule_and_slots(slots):
    """The simple schedule waits instead of holding more than one result."""
    simple = HeadParams(result_slots=slots)
    streaming = HeadParams(schedule="streaming", result_slots=slots)
    assert (simple.streaming, simple.sender_slots) == (False, 1)
    assert (streaming.streaming, streaming.sender_slots) == (True, slots)


@pytest.mark.parametrize(("q_bits", "write_clk"), ((1, 2), (2, 4), (4, 16), (5, 32)))
def test_value_write_fits_the_integration(q_bits, write_clk):
    assert HeadParams(q_bits=q_bits, write_clk=write_clk - 1).integrate_clk == write_clk - 1
    with pytest.raises(
        ValueError,
        match=rf"^write_clk must be in 1\.\.{write_clk - 1} \(V is written while Q\.K runs, "
        rf"which lasts 2\*\*q_bits - 1 clocks\), not {write_clk}$",
    ):
        HeadParams(q_bits=q_bits, write_clk=write_clk)


@pytest.mark.parametrize(("q_bits", "longest"), ((2, 1), (3, 3), (4, 7), (5, 15), (8, 127)))
def test_two_value_writes_fit_the_integration_with_refresh(q_bits, longest):
    """V of a rewritten column and V of the packet's own, each after a clock of its own."""
    p = HeadParams(q_bits=q_bits, write_clk=1, refresh=True)
    assert p.write_max_clk == longest
    assert 2 * (longest + 1) > p.integrate_clk >= 2 * longest + 1
    assert HeadParams(q_bits=q_bits, write_clk=min(longest, 64), refresh=True)
    if longest < 64:
        reason = r"two V may be written while Q\.K runs, which lasts 2\*\*q_bits - 1 clocks"
        message = rf"^write_clk must be in 1\.\.{longest} \({reason}\), not {longest + 1}$"
        with pytest.raises(ValueError, match=message):
            HeadParams(q_bits=q_bits, write_clk=longest + 1, refresh=True)


def test_refresh_needs_an_integration_of_three_clocks():
    message = r"^q_bits must be in 2\.\.8 with refresh, not 1$"
    with pytest.raises(ValueError, match=message):
        HeadParams(q_bits=1, write_clk=1, refresh=True)


def test_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        HeadParams().rows = 3
    with pytest.raises(TypeError):
        HeadParams(16)
    assert HeadParams() == HeadParams() and hash(HeadParams()) == hash(HeadParams())


def test_figures_of_the_default():
    p = HeadParams()
    figures = {
        "window": 1024, "integrate_clk": 15, "convert_clk": 15, "readout_clk": 15,
        "count_max": 15, "sum_bits": 9, "slot_bits": 4, "result_slot_bits": 16,
        "codes_per_beat": 16, "lanes_per_beat": 4, "k_beats": 4, "v_beats": 4, "q_beats": 4,
        "token_beats": 13, "result_beats": 17, "streaming": False, "sender_slots": 1,
        "subtile_bits": 4, "column_bits": 6, "write_max_clk": 15, "guard_max_clk": 15,
        "result_bits": 9, "top": "attention_head",
    }  # fmt: skip
    assert {name: getattr(p, name) for name in figures} == figures


def test_figures_of_a_head_of_many_widths():
    p = PRESETS["slow-write"]
    figures = {
        "window": 12, "integrate_clk": 7, "convert_clk": 7, "readout_clk": 31, "count_max": 31,
        "sum_bits": 8, "slot_bits": 4, "result_slot_bits": 16, "codes_per_beat": 32,
        "lanes_per_beat": 8, "k_beats": 1, "v_beats": 1, "q_beats": 1, "result_beats": 2,
        "subtile_bits": 2, "column_bits": 2, "write_max_clk": 3, "result_bits": 12,
        "streaming": True, "sender_slots": 4,
    }  # fmt: skip
    assert {name: getattr(p, name) for name in figures} == figures


@pytest.mark.parametrize("trim_bits", (0, 5))
@pytest.mark.parametrize("shots", (False, True))
def test_results_are_wide_enough(shots, trim_bits):
    """A single shot of any weight is never cut, nor are two of the largest without trims."""
    p = HeadParams(subtiles=4, shots=shots, trim_bits=trim_bits)
    most, weight = p.subtiles * p.count_max, 8 if shots else 1
    assert p.sum_bits == 7
    assert p.result_bits == (11 if shots else 8 if trim_bits else 7)
    assert weight * (most + 2**trim_bits // 2) < 2 ** (p.result_bits - 1)
    assert not shots or 2 * weight * most < 2 ** (p.result_bits - 1)


def test_a_window_of_one_subtile_still_has_an_index():
    assert HeadParams(subtiles=1).subtile_bits == 1
    assert HeadParams(subtiles=3, columns=5).subtile_bits == 2
    assert HeadParams(subtiles=3, columns=5).column_bits == 3


def test_top_module():
    assert {PRESETS[name].top for name in ("default", "refresh", "tiny")} == {"attention_head"}
    assert {PRESETS[name].top for name in ("layer12", "groups3")} == {"attention_layer"}


@settings(deadline=None, derandomize=True)
@given(
    st.builds(
        HeadParams,
        subtiles=st.integers(1, 256),
        lanes=st.integers(1, 256),
        rows=st.integers(1, 256),
        q_bits=st.integers(3, 8),
        kv_bits=st.integers(1, 8),
        count_bits=st.integers(1, 8),
        bus_bits=st.sampled_from([32, 64, 128, 256, 512, 1024]),
        result_slots=st.integers(1, 16),
        readout=st.sampled_from(READOUTS),
        schedule=st.sampled_from(SCHEDULES),
        write_clk=st.just(1),
        trim_bits=st.sampled_from([0, 2]),
        shots=st.booleans(),
        refresh=st.booleans(),
        self_test=st.booleans(),
    )
)
def test_figures_hold_together(p):
    assert 1 <= p.write_max_clk <= p.integrate_clk
    assert p.sum_bits <= p.result_bits <= p.result_slot_bits < p.result_bits + 8
    assert p.result_slot_bits % 8 == 0
    assert p.lanes_per_beat >= 1
    extreme = p.subtiles * p.count_max
    half = 2 ** (p.sum_bits - 1)
    assert -half <= -extreme and extreme < half, "every sum fits"
    assert extreme >= half // 2, "and no bit is wasted"
    assert max(p.q_bits, p.kv_bits) <= p.slot_bits
    for codes, beats, per_beat in (
        (p.rows, p.k_beats, p.codes_per_beat),
        (p.lanes, p.v_beats, p.codes_per_beat),
        (p.rows, p.q_beats, p.codes_per_beat),
        (p.lanes, p.result_beats - 1, p.lanes_per_beat),
    ):
        assert (beats - 1) * per_beat < codes <= beats * per_beat
    assert HeadParams(**p.as_dict()) == p
    assert HeadParams(**json.loads(json.dumps(p.as_dict()))).config_hash == p.config_hash


def test_config_hash_is_stable():
    # A change here means that artefacts of before can no longer be told apart from new ones.
    assert HeadParams().config_hash == "25c3c5fee683"
    assert PRESETS["default"].config_hash == "36431d079b27"
    assert PRESETS["tiny"].config_hash == "8dff7a247020"


def test_config_hash_in_another_process():
    command = "from hw.params import HeadParams; print(HeadParams().config_hash)"
    for hash_seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", command],
            cwd=ROOT, env={"PYTHONHASHSEED": hash_seed}, text=True, capture_output=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == HeadParams().config_hash


def test_config_hash_tells_every_field():
    base = HeadParams()
    other = {name: high for name, (_, high) in RANGES.items()}
    other |= {"write_clk": 5, "tag_bits": 15, "readout": "counter", "schedule": "streaming"}
    other |= {"trim_bits": 9, **dict.fromkeys(SWITCHES, True)}
    hashes = {
        dataclasses.replace(base, **{name: value}).config_hash for name, value in other.items()
    }
    assert len(hashes | {base.config_hash}) == len(other) + 1


def test_presets():
    assert len({p.config_hash for p in PRESETS.values()}) == len(PRESETS)
    for name, params in PRESETS.items():
        assert preset(name) is params
    with pytest.raises(ValueError, match=r"^preset must be one of \['default', .*, not 'nope'$"):
        preset("nope")


def test_presets_that_others_are_measured_against():
    """The default head is the bare one with features; its shape stays the published one."""
    assert PRESETS["simple"] == HeadParams()
    assert PRESETS["streaming"] == HeadParams(schedule="streaming")
    features = {
        "schedule": "streaming", "shots": True, "self_test": True, "sinks": 64, "age_bits": 8,
        "trim_bits": 8,
    }  # fmt: skip
    assert PRESETS["default"] == HeadParams(**features)
    assert PRESETS["refresh"] == HeadParams(**features, refresh=True)
    assert PRESETS["layer12"] == HeadParams(**features, heads=12)
    assert PRESETS["groups3"] == HeadParams(**features, heads=3)
    mapped = PRESETS["mapped"]
    assert (mapped.rows, mapped.lanes, mapped.window) == (80, 65, 1024)
    assert dataclasses.replace(PRESETS["tiny-layer"], heads=1) == PRESETS["tiny"]


def test_presets_cover_the_shapes_that_must_be_tested():
    shapes = {(p.rows, p.lanes) for p in PRESETS.values()}
    assert {(32, 32), (64, 64), (80, 80), (128, 128), (80, 65)} <= shapes
    assert any(p.subtiles == 1 for p in PRESETS.values())
    assert any(p.subtiles & (p.subtiles - 1) for p in PRESETS.values())
    assert {p.heads for p in PRESETS.values()} == {1, 3, 12}
    assert {p.schedule for p in PRESETS.values()} == set(SCHEDULES)


@pytest.mark.parametrize(
    "name", ("shots", "refresh", "self_test", "sinks", "age_bits", "trim_bits")
)
def test_presets_have_and_lack_each_feature(name):
    assert {bool(getattr(p, name)) for p in PRESETS.values()} == {False, True}
