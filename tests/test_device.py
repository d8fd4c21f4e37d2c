"""Device presets: the format of their files, what is refused, and what simulated ones must hold."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from analog_models.device import DevicePreset
from analog_models.presets import CELLS, DEVICE_FOLDER, DEVICES, resolve_device

SIMULATED = sorted(path.stem for path in DEVICE_FOLDER.glob("*.json"))


def content(name: str = "published") -> dict:
    return json.loads(resolve_device(name).to_json())


def test_the_simulated_devices_are_there():
    assert SIMULATED == ["sky130-ff", "sky130-ss", "sky130-tt"]


@pytest.mark.parametrize("name", [*DEVICES, *SIMULATED])
def test_presets_survive_their_file(name, tmp_path):
    device = resolve_device(name)
    assert device.name == name
    device.save(tmp_path / "device.json")
    assert DevicePreset.load(tmp_path / "device.json") == device
    assert resolve_device(tmp_path / "device.json") == device


@pytest.mark.parametrize("name", DEVICES)
def test_published_presets_are_the_published_cells(name):
    v = np.linspace(0.0, 0.9, 50)
    assert np.array_equal(DEVICES[name].cell_model().current_ua(v), CELLS[name].current_ua(v))


def drop(path, keys):
    for key in keys[:-1]:
        path = path[key]
    del path[keys[-1]]


def put(value):
    def change(path, keys):
        for key in keys[:-1]:
            path = path[key]
        path[keys[-1]] = value

    return change


def swap(path, keys):
    for key in keys:
        path = path[key]
    path[3], path[4] = path[4], path[3]


@pytest.mark.parametrize(
    ("change", "keys", "message"),
    [
        (drop, ("lsb_ns",), r"lsb_ns is missing"),
        (drop, ("leakage", 1, "tau_s"), r"leakage\[1\]\.tau_s is missing"),
        (drop, ("cell", "i_out_ua", "unit"), r"cell\.i_out_ua must be an object of unit"),
        (put("mA"), ("cell", "i_out_ua", "unit"), r"cell\.i_out_ua must be in 'µA', not 'mA'"),
        (put("ms"), ("leakage", 0, "tau_s", "unit"), r"leakage\[0\]\.tau_s must be in 's'"),
        (swap, ("cell", "i_out_ua", "value"), r"cell\.i_out_ua must rise strictly"),
        (swap, ("cell", "v_store_v", "value"), r"cell\.v_store_v must rise strictly"),
        (swap, ("levels_v", "value"), r"levels_v must rise strictly"),
        (put(1.0), ("cell", "tau_s"), r"cell\.tau_s is no field"),
        (
            put(-1.0),
            ("mismatch", "gain_sigma", "value"),
            r"mismatch\.gain_sigma must be at least 0",
        ),
        (put("x"), ("read_noise_ua", "value"), r"read_noise_ua must hold floats, not 'x'"),
        (put(float("nan")), ("write_ns", "value"), r"write_ns must be finite"),
        (
            put(0.0),
            ("score_converter", "saturation_ua", "value"),
            r"score_converter\.saturation_ua must be above 0",
        ),
        (put([1.0]), ("energy", "read_pj_per_ns", "value"), r"energy\.read_pj_per_ns must hold 8"),
        (put("other"), ("format",), r"format must be 'gaincell-device-2', not 'other'"),
    ],
)
def test_bad_presets_are_refused_and_the_field_is_named(change, keys, message, tmp_path):
    bad = copy.deepcopy(content("sky130-tt"))
    change(bad, keys)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(bad), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"^bad\.json: {message}"):
        DevicePreset.load(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_what_is_no_preset_is_refused(text):
    with pytest.raises(ValueError, match="a preset must be"):
        DevicePreset.from_json(text)


def test_unknown_devices_are_refused():
    with pytest.raises(ValueError, match=r"device must be one of published, .*, not 'nothing'"):
        resolve_device("nothing")
    with pytest.raises(TypeError, match="device must be a preset's name, a path or a preset"):
        resolve_device(3)


@pytest.mark.parametrize("name", SIMULATED)
def test_simulated_cells_are_signed_and_monotonic(name):
    device = resolve_device(name)
    fine = np.linspace(device.levels_v[0], device.levels_v[-1], 2001)
    for polynomial in (False, True):
        current = device.cell_model(polynomial=polynomial).current_ua(fine)
        assert current[0] < 0 < current[-1]
        assert (np.diff(current) > 0).all()
    levels = device.cell_model().current_ua(np.asarray(device.levels_v))
    assert (levels[:3] < 0).all() and (levels[5:] > 0).all()


@pytest.mark.parametrize("name", SIMULATED)
def test_simulated_devices_state_their_retention(name):
    rows = resolve_device(name).leakage
    assert [row.temperature_c for row in rows] == [27.0, 85.0]
    assert rows[0].retention_s > rows[1].retention_s > 1e-3
    between = resolve_device(name).leakage_at(50.0)
    assert rows[1].retention_s < between.retention_s < rows[0].retention_s
    half = (rows[0].v_store_v[1][0] - rows[0].v_store_v[0][0]) / 2
    for row in (*rows, between):
        start = np.asarray(resolve_device(name).levels_v)
        moved = np.abs(row.droop.stored_v(start, row.retention_s) - start)
        assert moved.max() == pytest.approx(half, rel=0.01)
    with pytest.raises(ValueError, match=r"temperature_c must be in 27\.\.85"):
        resolve_device(name).leakage_at(100.0)
