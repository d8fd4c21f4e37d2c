"""Scaling between nodes, against what the authors of the tables print."""

from __future__ import annotations

import itertools

import pytest

from synth.scaling import (
    GATE_28NM_UM2,
    METHODS,
    NODES_NM,
    TARGET,
    Process,
    ScalingError,
    area_factor,
    delay_factor,
    energy_factor,
    fo4_ps,
    process_of,
)

#: Example of the authors' corrigendum (Section 4.2.1): 65 nm at 1.3 V to 32 nm at 0.9 V.
EXPECTED_EXAMPLE = 0.4571 / 2.604
#: Entries of Table 4, printed to two digits: area at the second node over that at the first.
EXPECTED_AREAS = {
    (180, 130): 0.34,
    (180, 7): 0.0032,
    (130, 32): 0.072,
    (45, 32): 0.46,
    (65, 14): 0.12,
}
#: Rows of Table 2, simulated, nominal voltage: delay in ps, energy in fJ.
EXPECTED_INVERTERS = {45: (10.9, 1.05), 32: (9.8, 0.51)}


def nominal(node_nm: int) -> Process:
    return Process(node_nm=node_nm)


def test_example_of_the_authors():
    source = Process(node_nm=65, voltage_v=1.3)
    factor = energy_factor(source, Process(node_nm=32, voltage_v=0.9))
    assert factor == pytest.approx(EXPECTED_EXAMPLE, rel=3e-4)


@pytest.mark.parametrize(("nodes", "printed"), EXPECTED_AREAS.items())
def test_printed_areas(nodes, printed):
    assert area_factor(*map(nominal, nodes)) == pytest.approx(printed, rel=0.05)


@pytest.mark.parametrize("node_nm", EXPECTED_INVERTERS)
def test_polynomials_are_as_loose_as_documented(node_nm):
    """Within a quarter of what they were fitted to; see docs/scaling.md."""
    delay_ps, energy_fj = EXPECTED_INVERTERS[node_nm]
    assert fo4_ps(nominal(node_nm)) == pytest.approx(delay_ps, rel=0.26)
    ratio = energy_factor(nominal(45), nominal(node_nm))
    assert ratio == pytest.approx(energy_fj / EXPECTED_INVERTERS[45][1], rel=0.06)


FACTORS = {"delay": delay_factor, "energy": energy_factor, "area": area_factor}


@pytest.mark.parametrize("metric", FACTORS)
def test_smaller_nodes_are_smaller_faster_and_need_less(metric):
    bulk = [node for node in NODES_NM if node not in (40, 28, 22)]  # of one table
    for large, small in itertools.pairwise(bulk):
        assert 0 < FACTORS[metric](nominal(large), nominal(small)) < 1, (large, small)
    for large, small in itertools.pairwise(node for node in NODES_NM if node in (32, 28, 22, 14)):
        assert 0 < FACTORS[metric](nominal(large), nominal(small), "published") < 1


@pytest.mark.parametrize("metric", FACTORS)
def test_methods_agree_where_they_share_a_table(metric):
    source, target = Process(node_nm=180, voltage_v=1.8), Process(node_nm=130, voltage_v=1.8)
    factor = FACTORS[metric]
    by = {method: factor(source, target, method) for method in ("polynomials", "published")}
    assert by["polynomials"] == by["published"]
    assert factor(source, source) == 1
    assert factor(TARGET, TARGET) == 1


@pytest.mark.parametrize("metric", FACTORS)
def test_ways_to_28_nm_differ_less_than_documented(metric):
    for source in (Process(node_nm=180, voltage_v=1.8), Process(node_nm=130, voltage_v=1.8)):
        one, other = (FACTORS[metric](source, TARGET, m) for m in ("polynomials", "published"))
        assert 0.5 < one / other < 2


def test_voltage():
    low, high = (Process(node_nm=130, voltage_v=volts) for volts in (1.2, 1.8))
    assert delay_factor(low, high) < 1
    assert 1.5 < energy_factor(low, high) < 1.5**3
    assert area_factor(low, high) == 1


@pytest.mark.parametrize(
    ("library", "node_nm"),
    [
        ("osu018_stdcells", 180),
        ("sky130_fd_sc_hd__tt_025C_1v80", 130),
        ("NangateOpenCellLibrary", 45),
        ("gf180mcu_fd_sc_mcu7t5v0__tt_025C_1v80", 180),
        ("sg13g2_stdcell_typ_1p20V_25C", 130),
    ],
)
def test_nodes_of_libraries(library, node_nm):
    assert process_of(library).node_nm == node_nm


def test_refusals():
    with pytest.raises(ScalingError, match=r"node of library 'my_cells' is not known.*--node-nm"):
        process_of("my_cells", 1.0)
    assert process_of("my_cells", 1.0, node_nm=65) == Process(node_nm=65, voltage_v=1.0)
    with pytest.raises(ScalingError, match=r"node_nm must be one of 180, 130, .*, not 350"):
        Process(node_nm=350)
    with pytest.raises(
        ScalingError, match=r"voltage_v must be in 0\.9\.\.2\.7 at 180 nm.*not 5\.0"
    ):
        process_of("gf180mcu", 5.0)
    with pytest.raises(ScalingError, match=r"must be None at 28 nm.*not 0\.9"):
        Process(node_nm=28, voltage_v=0.9)
    with pytest.raises(ScalingError, match=r"method must be one of \('polynomials', 'published'\)"):
        energy_factor(nominal(180), TARGET, "inverter")
    with pytest.raises(ScalingError, match="DeepScaleTool leads to no node of 16 nm"):
        energy_factor(nominal(180), nominal(16), "published")


def test_constants_are_what_the_documents_say():
    assert set(METHODS) == {"delay", "energy", "area"}
    pitches = 3 * 0.120 * 12 * 0.090  # µm: see docs/scaling.md
    assert GATE_28NM_UM2 > pitches
    assert fo4_ps() == pytest.approx(10.15, abs=0.01)
