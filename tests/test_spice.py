"""Circuits: the committed presets come from the committed circuits, and ngspice still says so."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from analog_models.presets import resolve_device
from spice import cell_measurements as of_cell
from spice import converter_measurements as of_converter
from spice.cell import GainCell
from spice.characterise import FULL, QUICK, decks_hash, experiments, run_campaign
from spice.converter import SCORE_CONVERTER
from spice.library import Transistor, library_text
from spice.netlist import pulse_pwl
from spice.retention import droop, rest_voltage

CELL = GainCell()
AT = {"corner": "tt", "temperature_c": 27.0}
CORNERS = ("tt", "ss", "ff")
needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is missing")


@pytest.mark.parametrize("corner", CORNERS)
def test_committed_presets_come_from_these_decks(corner):
    provenance = resolve_device(f"sky130-{corner}").provenance
    campaign = QUICK if "--quick" in provenance["command"] else FULL
    assert decks_hash(experiments(campaign, corner)) == provenance["decks"]


def assert_alike(got, expected, path="") -> None:
    """Compare presets as read from JSON: every number to a thousandth, all else as it is."""
    if isinstance(expected, dict):
        assert got.keys() == expected.keys(), path
        for name in expected:
            assert_alike(got[name], expected[name], f"{path}.{name}")
    elif isinstance(expected, list):
        assert len(got) == len(expected), path
        for at, item in enumerate(expected):
            assert_alike(got[at], item, f"{path}[{at}]")
    elif isinstance(expected, float):
        assert got == pytest.approx(expected, rel=1e-3, abs=1e-6), path
    else:
        assert got == expected, path


@needs_ngspice
def test_the_campaign_makes_the_committed_preset():
    """Every deck of the typical corner again, and every figure that is made of them."""
    committed = json.loads(resolve_device("sky130-tt").to_json())
    if "--quick" not in committed["provenance"]["command"]:
        pytest.skip("the full campaign is repeated by `make characterise`")
    presets = run_campaign(dataclasses.replace(QUICK, corners=("tt",)), processes=1)
    again = json.loads(presets["sky130-tt"].to_json())
    for one in (again, committed):
        del one["provenance"]["ngspice"]
    assert_alike(again, committed)


@pytest.mark.parametrize("path", ["cell.i_out_ua", "mismatch.gain_sigma", "energy.read_pj_per_ns"])
def test_a_changed_figure_is_seen(path):
    committed = json.loads(resolve_device("sky130-tt").to_json())
    changed = copy.deepcopy(committed)
    part = changed
    for name in path.split("."):
        part = part[name]
    value = part["value"]
    part["value"] = [1.01 * x for x in value] if isinstance(value, list) else 1.01 * value
    with pytest.raises(AssertionError, match=re.escape(path)):
        assert_alike(changed, committed)


@needs_ngspice
@pytest.mark.parametrize("corner", ("ss", "ff"))
def test_a_sample_of_the_table_simulates_to_the_same(corner):
    device = resolve_device(f"sky130-{corner}")
    points = (0, len(device.pulses.v_store_v) // 2, -1)
    lengths = (device.pulses.pulse_ns[0], device.pulses.pulse_ns[-1])
    got = of_cell.pulses(
        CELL,
        corner=corner,
        temperature_c=27.0,
        v_store_v=[device.pulses.v_store_v[i] for i in points],
        pulse_ns=lengths,
    ).run()["charge_fc"]
    expected = [[device.pulses.charge_fc[i][j] for j in (0, -1)] for i in points]
    assert got == pytest.approx(np.array(expected), rel=2e-3, abs=0.02)


@needs_ngspice
def test_converter_clips_at_both_ends_and_follows_between():
    full = SCORE_CONVERTER.saturation_fc
    got = of_converter.transfer(
        SCORE_CONVERTER, charge_fc=[-0.2 * full, 0.5 * full, 1.2 * full], **AT
    ).run()["pulse_ns"]
    assert got[0] == pytest.approx(0.0, abs=0.05)
    assert got[1] == pytest.approx(7.5, abs=0.3)
    assert got[2] == pytest.approx(15.0, abs=0.05)


def test_library_holds_one_bin_and_names_its_draws():
    size = Transistor(device="nfet_01v8", w_um=0.42, l_um=0.15)
    text = library_text([size], "tt")
    assert text.count(".subckt") == text.count(".model") == 1
    assert "AGAUSS" not in text and "mm_vth0=0" in text
    draws = size.draw(np.random.default_rng(0))
    assert sorted(draws) == ["mm_toxe", "mm_voff", "mm_vth0"]
    with pytest.raises(ValueError, match="corner must be one of"):
        library_text([size], "xx")
    with pytest.raises(ValueError, match="must be of a size the PDK has a model for"):
        library_text([Transistor(device="nfet_01v8", w_um=0.01, l_um=0.15)], "tt")


def test_droop_of_a_resistor_is_an_exponential():
    v = np.linspace(0.0, 1.0, 401)
    leak, store = 1e3 * (v - 0.4), np.full_like(v, 20.0)  # 1 pS, 20 fF: 20 ms
    assert rest_voltage(v, leak) == pytest.approx(0.4)
    time = np.array([0.0, 0.01, 0.02, 0.05])
    for start in (0.1, 0.9):
        expected = 0.4 + (start - 0.4) * np.exp(-time / 0.02)
        assert droop(v, leak, store, start, time) == pytest.approx(expected, abs=1e-3)


def test_pulses_are_measured_at_half_height():
    assert pulse_pwl(0.0, 1.8, 2.0, 1.0, 0.2) == [
        (0.0, 0.0), (1.9, 0.0), (2.1, 1.8), (2.9, 1.8), (3.1, 0.0)
    ]  # fmt: skip
    with pytest.raises(ValueError, match="length_ns must be at least"):
        pulse_pwl(0.0, 1.8, 2.0, 0.1, 0.2)
