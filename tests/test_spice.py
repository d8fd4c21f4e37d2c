"""Circuits: the committed presets come from the committed circuits, and ngspice still says so."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil

import numpy as np
import pytest

from analog_models.device import DevicePreset
from analog_models.presets import DEVICE_FOLDER, resolve_device
from gaincell.physics import characterise
from spice import converter_measurements as of_converter
from spice.characterise import FULL, QUICK, experiments, run_campaign
from spice.check import points_path, refit, sample
from spice.converter import SCORE_CONVERTER
from spice.library import Transistor, library_text
from spice.netlist import pulse_pwl
from spice.ngspice import Deck
from spice.retention import droop, rest_voltage

AT = {"corner": "tt", "temperature_c": 27.0}
CORNERS = ("tt", "ss", "ff")
_OF_CONVERTERS = ("transfer", "mismatch", "noise")
needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is missing")


@pytest.mark.parametrize("corner", CORNERS)
def test_committed_presets_are_the_fit_of_the_committed_points(corner):
    """Every number, to the last digit; the decks' hash says that the circuits are today's."""
    path = DEVICE_FOLDER / f"sky130-{corner}.json"
    held, again = refit(path)
    assert again.to_json() == path.read_text(encoding="utf-8")
    assert again == held
    assert held.provenance["command"] == FULL.command


def numbers(content, path=()):
    """Where every number of a JSON file is."""
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            yield from numbers(value, (*path, key))
    elif isinstance(content, int | float):
        yield path


@pytest.mark.parametrize("file", ["preset", "points"])
def test_an_edited_number_is_seen(file, tmp_path, seed=20261125):
    """Any number of the preset, or of the points that it is fitted to, by 3 parts in 100,000."""
    paths = {"preset": tmp_path / "sky130-tt.json", "points": tmp_path / "points/sky130-tt.json"}
    committed = DEVICE_FOLDER / "sky130-tt.json"
    paths["points"].parent.mkdir()
    texts = {"preset": committed.read_text(), "points": points_path(committed).read_text()}
    for name, text in texts.items():
        paths[name].write_text(text)
    _, fitted = refit(committed)
    content = json.loads(texts[file])
    places = list(numbers(content))
    rng = np.random.default_rng(seed)
    edited = rng.choice(len(places), 200 if file == "preset" else 3, replace=False)
    for place in (places[i] for i in edited):
        changed = copy.deepcopy(content)
        part = changed
        for key in place[:-1]:
            part = part[key]
        old = part[place[-1]]
        part[place[-1]] = old + 1 if isinstance(old, int) else old * (1 + 3e-5) + 1e-12
        text = json.dumps(changed)
        if file == "preset":
            try:
                assert DevicePreset.from_json(text) != fitted, f"seed {seed}: {place}"
            except ValueError:
                continue  # refused, which is as good
        else:
            paths[file].write_text(text)
            held, again = refit(paths["preset"])
            assert held != again, f"seed {seed}: {place}"


@needs_ngspice
@pytest.mark.parametrize(
    ("corner", "seed", "converters"), [("tt", 1, True), ("ss", 2, False), ("ff", 3, False)]
)
def test_a_sample_of_the_points_simulates_to_the_same(corner, seed, converters):
    """Some of every experiment: curves, pulses, writes, noise, leakage, drawn cells, converters."""
    path = DEVICE_FOLDER / f"sky130-{corner}.json"
    rows = list(sample(path, seed=seed, converters=converters))
    seen = {row.figure.split(":")[0] for row in rows}
    assert {name for name in experiments(FULL, corner) if name not in seen} <= {
        "unseen",
        *(() if converters else (f"{a} {b}" for a in ("score", "output") for b in _OF_CONVERTERS)),
    }
    assert [row for row in rows if not row.alike] == []


@needs_ngspice
def test_a_killed_campaign_goes_on_and_makes_the_same(tmp_path, monkeypatch):
    campaign = dataclasses.replace(QUICK, corners=("tt",), pulse_ns=(8.0, 15.0), converters=4)
    simulated = []
    simulate = Deck._simulate

    def some(deck):
        simulated.append(deck.name)
        if len(simulated) == 12:
            raise KeyboardInterrupt
        return simulate(deck)

    monkeypatch.setattr(Deck, "_simulate", some)
    with pytest.raises(KeyboardInterrupt):
        run_campaign(campaign, processes=1, cache_dir=tmp_path)
    held = len(list(tmp_path.glob("*.npz")))
    first = run_campaign(campaign, processes=1, cache_dir=tmp_path)
    total = sum(len(each.decks) for each in experiments(campaign, "tt").values())
    assert 11 <= held and len(simulated) == total + 1, "only what was missing is simulated"
    assert run_campaign(campaign, processes=1, cache_dir=tmp_path) == first
    assert len(simulated) == total + 1
    # Another campaign's preset is of the same circuit: figures agree where draws do not matter.
    quick, full = first["sky130-tt"].preset, resolve_device("sky130-tt")
    assert quick.cell.i_out_ua == pytest.approx(full.cell.i_out_ua, abs=0.01)
    assert quick.leakage[0].retention_s == pytest.approx(full.leakage[0].retention_s, rel=0.01)
    assert quick.mismatch.gain_sigma == pytest.approx(full.mismatch.gain_sigma, rel=0.4)


def test_quick_presets_do_not_replace_the_committed_ones():
    with pytest.raises(ValueError, match="out must not be the committed presets' folder"):
        characterise(quick=True, out=DEVICE_FOLDER)


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
