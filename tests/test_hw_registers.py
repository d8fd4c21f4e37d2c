"""The register map is consistent for every head, and says what it refuses."""

from __future__ import annotations

import pytest
from test_hw_bench import SMALL

from hw.presets import PRESETS
from hw.registers import ADDRESS_BITS, EVENTS, Access, Field, Register, RegisterMap

HEADS = PRESETS | SMALL
MAPS = {name: RegisterMap(params) for name, params in HEADS.items()}
each_map = pytest.mark.parametrize("registers", MAPS.values(), ids=MAPS)


@each_map
def test_fields_fit_and_do_not_overlap(registers):
    for register in registers:
        taken = 0
        for field in register.fields:
            assert field.width > 0 and not field.mask & taken, (register.name, field.name)
            taken |= field.mask
            low, high = field.natural
            assert low <= field.low <= field.high <= high, (register.name, field.name)
            assert field.low <= field.reset <= field.high, (register.name, field.name)
        assert taken < 2**32
        assert [field.lsb for field in register.fields] == sorted(f.lsb for f in register.fields)


@each_map
def test_addresses_lead_to_their_registers(registers):
    seen = set()
    for register in registers:
        assert register.offset % 4 == 0
        for entry in range(register.entries):
            address = register.offset + 4 * entry
            assert address < 2**ADDRESS_BITS and address not in seen
            seen.add(address)
            assert registers.at(address) == registers.at(address + 3) == (register, entry)
    assert registers.at(0xFFC if registers.params.lanes < 256 else 0x3FC) is None
    assert registers.at(0x030) is None


def test_a_register_is_at_the_same_place_in_every_head():
    places = {}
    for registers in MAPS.values():
        for register in registers:
            assert places.setdefault(register.name, register.offset) == register.offset
            for field in register.fields:
                key = (register.name, field.name)
                assert places.setdefault(key, field.lsb) == field.lsb


@each_map
def test_one_kind_of_access_to_a_register_that_holds_settings(registers):
    for register in registers:
        kinds = {field.access for field in register.fields}
        assert len(kinds) == 1, register.name
        assert register.waits == (kinds == {Access.SETTING})


def test_features_that_are_absent_have_no_registers():
    bare, full = RegisterMap(PRESETS["simple"]), RegisterMap(PRESETS["tiny-layer"])
    absent = {register.name for register in full} - {register.name for register in bare}
    assert absent == {
        "sinks", "age_budget", "age_tick", "refresh_period", "head_select", "test", "oldest_age",
        "step_errors", "saturated_total", "refreshes", "trim", "test_q", "test_count",
    }  # fmt: skip
    assert [field.name for field in bare["control"].fields] == ["enable"]
    assert [field.name for field in bare["s_levels"].fields] == ["level_0"]
    assert [field.name for field in bare["command"].fields] == ["soft_reset", "clear_counters"]
    assert bare.events == ("command", "length", "code", "empty", "full_scale")
    assert full.events == tuple(EVENTS)


def test_settings_by_name():
    settings = RegisterMap(PRESETS["tiny"]).settings
    assert list(settings) == [
        "enable", "age_mask", "refresh_enable", "write_clk", "guard_clk", "s_levels", "a_levels",
        "sinks", "age_budget", "age_tick", "refresh_period",
    ]  # fmt: skip
    assert [field.reset for field in settings["s_levels"][1]] == [80, 160, 40, 20]
    assert [field.reset for field in settings["a_levels"][1]] == [40, 80, 160, 20]


def test_identity_says_the_parameters():
    for name, registers in MAPS.items():
        params = HEADS[name]
        assert registers["id"].reset == 0x47434131
        assert f"{registers['config_hash'].reset:08x}" == params.config_hash[:8]
        shape = registers["shape_streams"].values(registers["shape_streams"].reset)
        assert shape == {
            "result_bits": params.result_bits, "heads": params.heads, "bus_bits": params.bus_bits,
        }  # fmt: skip


def test_words_and_values():
    phases = RegisterMap(PRESETS["default"])["phases"]
    assert phases.reset == 0x104
    assert phases.word({"write_clk": 15}) == 0x10F
    assert phases.word({"guard_clk": 2}, base=0x10F) == 0x20F
    assert phases.values(0x20F) == {"write_clk": 15, "guard_clk": 2}
    with pytest.raises(ValueError, match=r"phases.write_clk must be in 1..15, not 16"):
        phases.word({"write_clk": 16})
    with pytest.raises(KeyError, match=r"field of phases must be one of .*, not 'write'"):
        phases.word({"write": 1})
    with pytest.raises(KeyError, match=r"register must be one of .*, not 'phase'"):
        RegisterMap(PRESETS["default"])["phase"]


def test_signed_fields():
    trim = RegisterMap(PRESETS["default"])["trim"].fields[0]
    assert trim.get(trim.put(0, -3)) == -3
    assert (trim.low, trim.high) == (-128, 127)


@pytest.mark.parametrize(
    ("name", "now", "data", "strobe", "reason"),
    [
        ("phases", 0x104, 0x10F, 0xF, None),
        ("phases", 0x104, 0x100, 0xF, "phases.write_clk must be in 1..15, not 0"),
        ("phases", 0x104, 0x000, 0xE, "phases.guard_clk must be in 1..15, not 0"),
        ("phases", 0x104, 0x002, 0x1, None),
        ("phases", 0x104, 0xFFFF0002, 0x1, None),
        ("phases", 0x104, 0x10104, 0xF, "phases has no bits 0x10000"),
        ("control", 1, 4, 0xF, "control has no bits 0x4"),
        ("id", 0, 0, 0xF, "id is read only"),
        ("trim", 0, 0x7F, 0xF, None),
        ("trim", 0, 0xFFFFFF80, 0xF, None),
        ("trim", 0, 0x80, 0xF, "trim.offset must be in -128..127, not 128"),
        ("trim", 0, 0x7F, 0x1, "an entry of trim is written whole"),
        ("sinks", 0, 65, 0xF, "sinks.count must be in 0..64, not 65"),
        ("sinks", 0, 128, 0xF, "sinks has no bits 0x80"),
        ("test_count", 0, 0, 0xF, "test_count is read only"),
        ("sticky", 0, 0xEF, 0xF, None),
        ("sticky", 0, 0x10, 0xF, "sticky has no bits 0x10"),
    ],
)
def test_refusals(name, now, data, strobe, reason):
    assert RegisterMap(PRESETS["default"])[name].refusal(now, data, strobe) == reason


def test_an_overlap_would_be_seen():
    fields = tuple(
        Field(name=name, lsb=lsb, width=4, access=Access.DIRECT, high=15, meaning=".")
        for name, lsb in (("a", 0), ("b", 3))
    )
    register = Register(name="r", offset=0, fields=fields, meaning=".")
    with pytest.raises(AssertionError):
        test_fields_fit_and_do_not_overlap([register])
