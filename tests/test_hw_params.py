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
    "guard_clk": (1, 16),
    "bus_bits": (32, 1024),
    "tag_bits": (1, 16),
    "event_bits": (4, 32),
    "result_slots": (1, 16),
}
CHOICES = {"readout": READOUTS, "schedule": SCHEDULES}


def test_every_field_is_tested_here():
    assert [field.name for field in dataclasses.fields(HeadParams)] == [*RANGES, *CHOICES]


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
        # The longest write needs the longest integration; the shortest integration, a short write.
        others = {"q_bits": 8} if name != "q_bits" else {"write_clk": 1}
        assert getattr(HeadParams(**{**others, name: value}), name) == value


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
        ValueError, match=rf"^write_clk must be in 1\.\.{write_clk - 1} .*, not {write_clk}$"
    ):
        HeadParams(q_bits=q_bits, write_clk=write_clk)


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
    }  # fmt: skip
    assert {name: getattr(p, name) for name in figures} == figures


def test_figures_of_a_head_of_many_widths():
    p = PRESETS["slow-write"]
    figures = {
        "window": 12, "integrate_clk": 7, "convert_clk": 7, "readout_clk": 31, "count_max": 31,
        "sum_bits": 8, "slot_bits": 4, "result_slot_bits": 8, "codes_per_beat": 32,
        "lanes_per_beat": 16, "k_beats": 1, "v_beats": 1, "q_beats": 1, "result_beats": 2,
    }  # fmt: skip
    assert {name: getattr(p, name) for name in figures} == figures


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
    )
)
def test_figures_hold_together(p):
    extreme = p.subtiles * p.count_max
    half = 2 ** (p.sum_bits - 1)
    assert -half <= -extreme and extreme < half, "every sum fits"
    assert extreme >= half // 2, "and no bit is wasted"
    assert p.sum_bits <= p.result_slot_bits < p.sum_bits + 8 and p.result_slot_bits % 8 == 0
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
    assert HeadParams().config_hash == "fce291933494"
    assert PRESETS["tiny"].config_hash == "e4bc5ebc6b59"


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
    hashes = {
        dataclasses.replace(base, **{name: value}).config_hash for name, value in other.items()
    }
    assert len(hashes | {base.config_hash}) == len(other) + 1


def test_presets():
    assert PRESETS["default"] == HeadParams()
    assert PRESETS["streaming"] == HeadParams(schedule="streaming")
    assert len({p.config_hash for p in PRESETS.values()}) == len(PRESETS)
    for name, params in PRESETS.items():
        assert preset(name) is params
    with pytest.raises(ValueError, match=r"^preset must be one of \['default', .*, not 'nope'$"):
        preset("nope")


def test_presets_cover_the_shapes_that_must_be_tested():
    heads = {(p.rows, p.lanes) for p in PRESETS.values()}
    assert {(32, 32), (64, 64), (80, 80), (128, 128), (80, 65)} <= heads
    assert any(p.subtiles == 1 for p in PRESETS.values())
    assert any(p.subtiles & (p.subtiles - 1) for p in PRESETS.values())
