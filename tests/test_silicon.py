"""Silicon figures: scaled, with their errors, beside the published ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic import LIBRARY, PARAMS, area, energy, store, timing

from hw.params import HeadParams
from hw.presets import PRESETS
from sim.published import GPUS, PAPER, least_bytes
from sim.silicon import Measured, build_silicon, keep_libraries, scaling_errors
from synth.scaling import GATE_28NM_UM2, TARGET, Process, energy_factor, fo4_ps

SKY = {
    **LIBRARY,
    "name": "sky130_fd_sc_hd__tt_025C_1v80",
    "gate_equivalent_um2": 3.7536,
    "fo4_ps": 60.0,
}
REQUIRED = (
    "digital_energy_pj_28nm",
    "analog_energy_pj",
    "digital_area_mm2_28nm",
    "fmax_mhz_28nm",
    "latency_clk",
    "interval_clk",
    "scaling_error",
)


def results(**changes: Any) -> dict[str, dict[str, Any]]:
    return {"area": area(**changes), "timing": timing(**changes), "energy": energy(**changes)}


def build(folder: Path, **options: Any) -> dict[str, Any]:
    return build_silicon(folder, libraries_file=folder / "libraries.json", **options)


def add_sky(folder: Path) -> None:
    parts = energy()["parts"] | {"leakage": 100.0}
    of_sky = {"library": SKY}
    store(
        folder,
        **{
            "timing-sky130": timing(period_ps=2500.0, area_um2=2.6e5, **of_sky),
            "energy-sky130": energy(energy_pj=6100.0, parts=parts, **of_sky),
        },
    )


def test_every_figure_by_hand(tmp_path):
    store(tmp_path, **results())
    add_sky(tmp_path)
    silicon = build(tmp_path)
    assert json.loads((tmp_path / "silicon.json").read_text()).keys() >= {*REQUIRED, "date"}
    assert silicon["missing"] == []
    source = Process(node_nm=180, voltage_v=1.8)
    switching = 20000.0 - 500.0
    assert silicon["digital_energy_pj_28nm"] == pytest.approx(
        switching * energy_factor(source, TARGET)
    )
    assert silicon["digital_area_mm2_28nm"] == pytest.approx(1.6e6 / 24 * GATE_28NM_UM2 / 1e6)
    assert silicon["fmax_mhz_28nm"] == pytest.approx(250.0 * 120.0 / fo4_ps())
    assert silicon["analog_energy_pj"] == 1120 + 700 + 330
    errors = {
        (row["metric"], row["method"]): row["error"]
        for row in silicon["scaling"]
        if row["source"] == LIBRARY["name"]
    }
    assert errors["delay", "inverter"] == pytest.approx(4.0 * 60 / 120 / 2.5 - 1)
    assert errors["area", "gates"] == pytest.approx(1.6e6 / 24 * 3.7536 / 2.6e5 - 1)
    at_130 = energy_factor(source, Process(node_nm=130, voltage_v=1.8))
    assert errors["energy", "polynomials"] == pytest.approx(switching * at_130 / 6000.0 - 1)
    figures = silicon["figures"]
    assert figures["digital_energy_pj_28nm"]["error"] == errors["energy", "polynomials"]
    assert figures["fmax_mhz_28nm"]["error"] == pytest.approx(
        1 / (1 + errors["delay", "inverter"]) - 1
    )
    chosen = (("delay", "inverter"), ("energy", "polynomials"), ("area", "gates"))
    assert silicon["scaling_error"] == max(abs(errors[one]) for one in chosen)
    for name in REQUIRED:
        figure = figures[name]
        assert figure["value"] == silicon[name]
        assert figure["method"]
        assert figure["library"] or name.endswith("_clk")
    # How far other methods and libraries lead is said too.
    digital = figures["digital_energy_pj_28nm"]
    assert digital["low"] < digital["value"] <= digital["high"]


def test_clocks_are_the_designs(tmp_path):
    params = PRESETS["default"]
    store(tmp_path, area=area(params=params.as_dict(), config_hash=params.config_hash))
    silicon = build(tmp_path)
    assert (silicon["latency_clk"], silicon["interval_clk"]) == (55, 20)
    assert silicon["config_hash"] == params.config_hash


def test_one_library_alone_has_no_error_unless_another_is_kept(tmp_path):
    store(tmp_path, **results())
    silicon = build(tmp_path)
    assert silicon["scaling_error"] is None and silicon["scaling"] == []
    add_sky(tmp_path)
    both = build(tmp_path)
    keep_libraries(both, tmp_path / "libraries.json")
    for name in ("timing", "energy"):
        (tmp_path / f"{name}-sky130.json").unlink()
    kept = build(tmp_path)
    assert kept["scaling"] == both["scaling"]
    assert kept["figures"] == both["figures"]


def test_another_configuration_is_no_comparison():
    one = Measured(library="osu018", node_nm=180, voltage_v=1.8, config_hash="a", energy_pj=9.0)
    other = Measured(library="sky130", node_nm=130, voltage_v=1.8, config_hash="b", energy_pj=3.0)
    assert scaling_errors([one, other]) == []


def test_a_library_of_unknown_node(tmp_path):
    cells = {**LIBRARY, "name": "my_cells"}
    store(tmp_path, **results(library=cells))
    silicon = build(tmp_path)
    assert silicon["digital_energy_pj_28nm"] is None
    assert "node of library 'my_cells' is not known" in silicon["notes"][0]
    # What needs no node: gates and the library's own inverter.
    assert silicon["digital_area_mm2_28nm"] and silicon["fmax_mhz_28nm"]
    assert build(tmp_path, node_nm=65)["digital_energy_pj_28nm"] is None  # 1.8 V is too much there
    named = build(tmp_path, node_nm=130)
    assert named["digital_energy_pj_28nm"] > 0 and named["notes"] == []
    silent = {name: value for name, value in cells.items() if name != "voltage_v"}
    store(tmp_path, **results(library=silent))
    assert "nominal voltage is assumed" in build(tmp_path, node_nm=130)["notes"][0]


def test_what_is_missing_is_named(tmp_path):
    store(tmp_path, timing=timing())
    silicon = build(tmp_path)
    assert silicon["missing"] == ["make area", "make energy"]
    assert silicon["digital_energy_pj_28nm"] is None
    assert silicon["fmax_mhz_28nm"] > 0
    ours = {(row["group"], row["figure"]): row["ours"] for row in silicon["comparison"]}
    assert ours["Energy per token and head", "digital"] is None
    assert ours["Energy per token and head", "all"] is None
    assert ours["Efficiency", "operations per energy"] is None


def test_every_head_measured_is_shown(tmp_path):
    store(tmp_path, **results())
    bare = PRESETS["streaming"]
    of_bare = {"params": bare.as_dict(), "config_hash": bare.config_hash}
    store(
        tmp_path,
        **{
            "timing-bare": timing(area_um2=8e5, **of_bare),
            "energy-bare": energy(energy_pj=9500.0, **of_bare),
        },
    )
    heads = build(tmp_path)["heads"]
    assert [row["head"] for row in heads] == ["0123456789ab", "streaming"]
    assert heads[0]["energy_pj"] / heads[1]["energy_pj"] == pytest.approx(19500 / 9000)
    assert heads[0]["area_um2"] == pytest.approx(2 * heads[1]["area_um2"])


def test_a_layer_is_counted_per_head(tmp_path):
    layer = {"params": PARAMS | {"heads": 4}, "config_hash": "feed"}
    store(tmp_path, **results(**layer))
    four = build(tmp_path)
    store(tmp_path, **results())
    one = build(tmp_path)
    assert four["digital_area_mm2_28nm"] == pytest.approx(one["digital_area_mm2_28nm"] / 4)
    assert four["digital_energy_pj_28nm"] == one["digital_energy_pj_28nm"]


def test_the_same_figures_again_keep_their_date(tmp_path):
    store(tmp_path, **results())
    build(tmp_path)
    path = tmp_path / "silicon.json"
    old = json.loads(path.read_text()) | {"date": "2001-01-01T00:00:00+00:00"}
    before = json.dumps(old)
    path.write_text(before)
    build(tmp_path)
    assert path.read_text() == before
    store(tmp_path, energy=energy(energy_pj=30000.0))
    build(tmp_path)
    assert path.read_text() != before


def test_our_own_analog_energy_if_it_has_been_measured(tmp_path):
    # As `sim.analog_energy` writes it, for operands of several kinds.
    row = {"write_pj": 100.0, "integrate_pj": 850.0, "convert_pj": 50.0, "drive_pj": 500.0}
    rows = [
        {"operands": "real tokens", **row, "readout_pj": None},
        {"operands": "uniform", **dict.fromkeys(row, 1.0), "readout_pj": 1.0},
    ]
    store(tmp_path, analog_energy={"device": "sky130-tt", "rows": rows}, **results())
    silicon = build(tmp_path)
    assert silicon["analog_energy_pj"] == 1500
    assert silicon["figures"]["analog_energy_pj"]["library"] == "device sky130-tt"
    assert "real tokens" in silicon["figures"]["analog_energy_pj"]["method"]


# --- published figures --------------------------------------------------------------------------


def test_published_figures_add_up():
    assert PAPER.energy_pj == 6150
    assert pytest.approx(35, abs=0.5) == PAPER.digital_ns
    assert pytest.approx(17.1, abs=0.05) == 1e3 * PAPER.qk_pj / (1024 * 64)
    assert pytest.approx(10.7, abs=0.05) == 1e3 * PAPER.phi_v_pj / (1024 * 64)
    for gpu in GPUS:  # printed ratios and printed measurements agree to their one digit
        if gpu.token_us and gpu.token_uj:
            assert gpu.token_us * 1e3 / PAPER.latency_ns == pytest.approx(
                gpu.times_latency, rel=0.16
            )
            assert gpu.token_uj * 1e6 / (12 * PAPER.energy_pj) == pytest.approx(
                gpu.times_energy, rel=0.16
            )


def test_the_least_a_processor_must_do(tmp_path):
    assert least_bytes(1024, 64, 12) == 2 * 1024 * 64 * 12 * 2
    store(tmp_path, **results())
    for row in build(tmp_path)["gpus"]:
        assert row["least_us"] < row["measured_us"]
        assert row["least_uj"] is None or row["least_uj"] < row["measured_uj"]
        assert row["board_uj"] < row["measured_uj"]
    four = build(tmp_path)["gpus"][0]
    assert four["least_us"] == pytest.approx(3.1457 / 1008 * 1e3, rel=1e-3)
    assert four["least_uj"] == pytest.approx(3.1457e6 * 8 * 7.25e-6, rel=1e-3)


def test_rows_of_the_comparison(tmp_path):
    store(tmp_path, **results())
    rows = {(r["group"], r["figure"]): r for r in build(tmp_path)["comparison"]}
    paper = {key: row["paper"] for key, row in rows.items()}
    assert paper["Efficiency", "operations per energy"] == pytest.approx(42.6, abs=0.05)
    assert paper["Efficiency", "operations per time and area"] == pytest.approx(8.07, abs=0.01)
    assert paper["Energy per multiply-accumulate", "all"] == pytest.approx(46.9, abs=0.05)
    for row in rows.values():
        if row["ratio"]:
            assert (row["ratio"] > 1) == (
                (row["ours"] > row["paper"]) == row["more_is_better"]
            ) or row["ratio"] == pytest.approx(1)


def test_params_of_results_of_other_versions(tmp_path):
    """Fields that a head no longer has are left out; those it has got since are as they are."""
    store(tmp_path, area=area(params={"subtiles": 8, "readout": "population", "gone": 1}))
    silicon = build(tmp_path)
    assert silicon["params"] == HeadParams(subtiles=8).as_dict()
    assert silicon["notes"][0].startswith("this head is of 512 x 64 x 64 (window, rows, lanes)")
    assert all(gpu["times_faster"] is None for gpu in silicon["gpus"])
