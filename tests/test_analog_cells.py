"""Cells, presets, DAC and converters: constants, curves, grids and error messages."""

from __future__ import annotations

import dataclasses
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analog_models import (
    CELLS,
    LEVEL_CURRENTS_UA,
    AnalogParams,
    Cell,
    ChargeToPulse,
    Dac,
    LevelCurrents,
    PolynomialCell,
    SignedChargeToPulse,
    TabulatedCell,
    level_currents,
    resolve_cell,
)
from analog_models.converter import PHI_GRID, check_exact
from analog_models.dac import CURRENT_GRID

REFERENCE = Path(__file__).parents[1].parent / "shared" / "reference"
GRID = REFERENCE / "cell_iv_grid.npz"
needs_grid = pytest.mark.skipif(not GRID.exists(), reason="published current grid is absent")

# Leroux et al., Nature Computational Science 5, 813-824 (2025), arXiv 2409.19315, and the authors'
# code: third-order fit at Vin = 0.9 V, linear intermediate model, currents of the stored levels.
EXPECTED_CUBIC_UA = (0.5213636, 13.6122606, -2.6204456, 46.0548378)
EXPECTED_LINEAR_UA_PER_V = 19.3
EXPECTED_LEVELS_UA = (-10.15, -5.78, -2.41, -0.30, 1.24, 3.31, 6.36, 9.97)


def says(message: str) -> str:
    return re.escape(message)


# --- cells and presets --------------------------------------------------------------------------
@pytest.mark.parametrize("power", range(4))
def test_published_coefficient(power):
    u = np.linspace(-0.45, 0.45, 9)
    fit = np.polynomial.Polynomial.fit(
        u, CELLS["published"].current_ua(u + 0.45), 3, domain=[-1, 1]
    )
    assert fit.coef[power] == pytest.approx(EXPECTED_CUBIC_UA[power], abs=1e-9)


def test_linear_preset():
    assert CELLS["published-linear"].current_ua([0.45, 0.55, 0.9]) == pytest.approx(
        [0.0, 0.1 * EXPECTED_LINEAR_UA_PER_V, 0.45 * EXPECTED_LINEAR_UA_PER_V], abs=1e-12
    )


def test_levels_preset_meets_the_published_levels():
    assert LEVEL_CURRENTS_UA == EXPECTED_LEVELS_UA
    assert CELLS["published-levels"].current_ua(Dac().levels_v) == pytest.approx(
        EXPECTED_LEVELS_UA, abs=1e-9
    )


def test_polynomial_meets_the_published_levels():
    error = CELLS["published"].current_ua(Dac().levels_v) - EXPECTED_LEVELS_UA
    assert math.sqrt(np.mean(error**2)) <= 0.2


@pytest.mark.parametrize("name", CELLS)
def test_every_preset_is_a_cell_and_resolves(name):
    assert isinstance(CELLS[name], Cell)
    assert resolve_cell(name) is CELLS[name]
    assert resolve_cell(CELLS[name]) is CELLS[name]


def test_resolve_errors(tmp_path):
    with pytest.raises(
        ValueError,
        match=says(
            "cell must be one of published, published-linear, published-levels, linear, or "
            "a path ending .npz, not 'nobody'"
        ),
    ):
        resolve_cell("nobody")
    for wrong in (3, None, PolynomialCell):
        with pytest.raises(TypeError, match=says("or a Cell, not ")):
            resolve_cell(wrong)
    with pytest.raises(FileNotFoundError):
        resolve_cell(str(tmp_path / "absent.npz"))


def test_polynomial_errors():
    with pytest.raises(TypeError, match=says("coefficients must be a tuple of floats, not [1.0]")):
        PolynomialCell(coefficients=[1.0])
    with pytest.raises(ValueError, match=says("at least one term, not ()")):
        PolynomialCell(coefficients=())
    with pytest.raises(TypeError, match=says("must be floats, not '1'")):
        PolynomialCell(coefficients=("1",))
    with pytest.raises(ValueError, match=says("must be finite, not nan")):
        PolynomialCell(coefficients=(math.nan,))
    with pytest.raises(ValueError, match=says("v_in_v must be None or 0.9 V")):
        CELLS["published"].current_ua(0.3, 0.5)
    assert CELLS["published"].current_ua(0.3, 0.9) == CELLS["published"].current_ua(0.3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        CELLS["published"].v_mid_v = 0.0


# --- tabulated cells ----------------------------------------------------------------------------
@needs_grid
def test_unseen_grid_points():
    with np.load(GRID) as grid:
        v, w, i_ua = grid["vstore_v"], grid["vin_v"], grid["i_out_ua"]
    keep_v = sorted({*range(0, v.size, 2), v.size - 1})
    keep_w = sorted({*range(0, w.size, 2), w.size - 1})
    cell = TabulatedCell(v[keep_v], i_ua[np.ix_(keep_v, keep_w)], w[keep_w])
    unseen = np.ones(i_ua.shape, dtype=bool)
    unseen[np.ix_(keep_v, keep_w)] = False
    error = (cell.current_ua(v[:, None], w[None, :]) - i_ua)[unseen]
    assert unseen.sum() > 900
    assert math.sqrt(np.mean(error**2)) <= 0.05
    full = TabulatedCell(v[keep_v], i_ua[keep_v, -1])
    unseen_v = np.setdiff1d(np.arange(v.size), keep_v)
    error = full.current_ua(v[unseen_v]) - i_ua[unseen_v, -1]
    assert math.sqrt(np.mean(error**2)) <= 0.05


@needs_grid
def test_grid_file_as_a_cell():
    cell = resolve_cell(str(GRID))
    with np.load(GRID) as grid:
        v, w, i_ua = grid["vstore_v"], grid["vin_v"], grid["i_out_ua"]
    assert cell.current_ua(v[:, None], w[None, :]) == pytest.approx(i_ua, abs=1e-9)
    assert cell.current_ua(v) == pytest.approx(i_ua[:, -1], abs=1e-9)  # 0.9 V by default
    fit = CELLS["published"].current_ua(v) - i_ua[:, -1]
    # The fit against the grid it was made for: 0.13 µA RMS, 0.34 µA at most.
    assert math.sqrt(np.mean(fit**2)) == pytest.approx(0.13, abs=0.01)
    assert np.abs(fit).max() == pytest.approx(0.34, abs=0.01)
    assert cell.current_ua(Dac().levels_v) == pytest.approx(EXPECTED_LEVELS_UA, abs=0.006)


def test_spline_between_points():
    v = np.linspace(0, 0.9, 10)
    w = np.linspace(0.5, 0.9, 5)
    curve = TabulatedCell(v, v**3 - v)
    surface = TabulatedCell(v, np.outer(v**3, w**2), w)
    at = np.array([0.123, 0.456, 0.789])
    assert curve.current_ua(at) == pytest.approx(at**3 - at, abs=1e-12)
    assert surface.current_ua(at, 0.66) == pytest.approx(at**3 * 0.66**2, abs=1e-12)
    assert surface.current_ua(at) == pytest.approx(at**3 * 0.9**2, abs=1e-12)
    assert surface.current_ua(at[:, None], w[None]).shape == (3, 5)
    assert repr(surface) == "<TabulatedCell 10 x 5 points>"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0, 0.2, 0.1], [1, 2, 3]), "vstore_v must rise strictly, not 0.2 followed by 0.1"),
        (([0.0, 0.0], [1, 2]), "vstore_v must rise strictly"),
        (([0.0, math.nan], [1, 2]), "vstore_v must be finite, not "),
        (([0.0], [1]), "vstore_v must be one-dimensional with at least two points, not shape (1,)"),
        (([0.0, 0.9], [1, 2, 3]), "i_out_ua must have shape (2,), not (3,)"),
        (([0.0, 0.9], [1, math.inf]), "i_out_ua must be finite, not "),
        (([0.0, 0.9], [[1, 2], [3, 4]], [0.9, 0.5]), "vin_v must rise strictly"),
        (([0.0, 0.9], [[1, 2, 3], [3, 4, 5]], [0.5, 0.9]), "i_out_ua must have shape (2, 2)"),
    ],
)
def test_table_errors(arguments, message):
    with pytest.raises(ValueError, match=says(message)):
        TabulatedCell(*arguments)


def test_outside_the_grid():
    curve = TabulatedCell([0.1, 0.9], [1.0, 2.0])
    with pytest.raises(
        ValueError, match=says("v_store_v must be inside the grid, 0.1..0.9 V, not 0.0")
    ):
        curve.current_ua([0.5, 0.0])
    with pytest.raises(ValueError, match=says("not nan")):
        curve.current_ua(math.nan)
    with pytest.raises(ValueError, match=says("v_in_v must be None or 0.9 V (the table holds no")):
        curve.current_ua(0.5, 0.8)
    surface = TabulatedCell([0.0, 0.9], [[1.0, 2.0], [2.0, 3.0]], [0.5, 0.8])
    with pytest.raises(
        ValueError, match=says("v_in_v must be inside the grid, 0.5..0.8 V, not 0.9")
    ):
        surface.current_ua(0.5)


def test_npz_errors(tmp_path):
    path = tmp_path / "grid.npz"
    good = {"vstore_v": [0.0, 0.9], "vin_v": [0.5, 0.9], "i_out_ua": [[1.0, 2.0], [3.0, 4.0]]}
    np.savez(path, **good)
    assert TabulatedCell.from_npz(path).current_ua(0.9) == pytest.approx(4.0)
    for key in good:
        np.savez(path, **{name: value for name, value in good.items() if name != key})
        with pytest.raises(ValueError, match=rf"grid\.npz must hold .* {key} is missing"):
            TabulatedCell.from_npz(path)
    np.savez(path, **(good | {"vin_v": [0.9, 0.5]}))
    with pytest.raises(ValueError, match=r"grid\.npz: vin_v must rise strictly"):
        TabulatedCell.from_npz(path)
    path.write_text("no archive")
    with pytest.raises(ValueError, match=r"grid\.npz must be a NumPy \.npz archive"):
        TabulatedCell.from_npz(path)


# --- DAC ----------------------------------------------------------------------------------------
def test_dac_levels_and_codes():
    dac = Dac()
    assert dac.levels_v == pytest.approx([i * 0.9 / 7 for i in range(8)])
    assert dac.codes(dac.levels_v).tolist() == list(range(8))
    assert dac.codes([0.063, 0.065, 0.9, 1.2, -0.1]).tolist() == [0, 1, 7, 7, 0]
    assert Dac(bits=1).levels_v.tolist() == [0.0, 0.9]


def test_dac_errors():
    with pytest.raises(TypeError, match=says("bits must be an int, not 3.0")):
        Dac(bits=3.0)
    with pytest.raises(ValueError, match=says("bits must be in 1..8, not 0")):
        Dac(bits=0)
    with pytest.raises(ValueError, match=says("v_max_v must be finite and above v_min_v")):
        Dac(v_max_v=0.0)


def test_level_currents_lie_on_the_grid_and_decay():
    cell, dac = CELLS["published"], Dac()
    table = level_currents(cell, dac, [0, 10, 10**9], decay_per_token=0.01)
    scaled = table * CURRENT_GRID
    assert (scaled == np.rint(scaled)).all()
    half_step = 0.5 / CURRENT_GRID
    assert np.abs(table[0] - cell.current_ua(dac.levels_v)).max() <= half_step
    faded = 0.45 + (dac.levels_v - 0.45) * math.exp(-0.1)
    assert np.abs(table[1] - cell.current_ua(faded)).max() <= half_step * 1.01
    assert table[2] == pytest.approx(EXPECTED_CUBIC_UA[0], abs=half_step)
    current = level_currents(cell, dac, [0, 10], decay_per_token=0.01, decay_law="current")
    assert current[1] == pytest.approx(current[0] * math.exp(-0.1), abs=2 * half_step)


def test_table_does_not_depend_on_who_asks_first():
    one, many = (LevelCurrents(CELLS["published"], Dac(), decay_per_token=1e-3) for _ in range(2))
    for ages in range(1, 5000, 37):
        many.table(ages)
    assert (one.table(4096)[:4096] == many.table(4096)[:4096]).all()
    codes = np.arange(8)[np.newaxis].repeat(3, axis=0)
    ages = np.array([0, 5, 10**9])
    expected = level_currents(CELLS["published"], Dac(), ages, decay_per_token=1e-3)
    assert (one.at(ages, codes) == expected).all()


def test_decay_errors():
    cell, dac = CELLS["published"], Dac()
    with pytest.raises(ValueError, match=says("decay_per_token must be in 0..1, not -1.0")):
        LevelCurrents(cell, dac, decay_per_token=-1.0)
    with pytest.raises(ValueError, match=says("decay_per_token must be in 0..1, not nan")):
        LevelCurrents(cell, dac, decay_per_token=math.nan)
    with pytest.raises(TypeError, match=says("decay_per_token must be a float, not '1'")):
        LevelCurrents(cell, dac, decay_per_token="1")
    with pytest.raises(ValueError, match=says("decay_law must be one of ('voltage', 'current')")):
        LevelCurrents(cell, dac, decay_law="both")


def test_a_cell_without_current_is_refused():
    class Broken:
        def current_ua(self, v_store_v, v_in_v=None):
            return np.full(np.shape(v_store_v), math.nan)

    with pytest.raises(
        ValueError, match=says("cell must give finite currents over 0..0.9 V, not <")
    ):
        LevelCurrents(Broken(), Dac())


# --- converters ---------------------------------------------------------------------------------
def test_score_converter_is_a_hard_sigmoid():
    converter = ChargeToPulse()
    charge = np.array([-5.0, 0.0, 40.0, 80.0 * 15, 1e6])
    assert converter.phi_clk(charge).tolist() == [0.0, 0.0, 0.5, 15.0, 15.0]
    # Charges lie on the current grid; pulses round to theirs, ties to even.
    exact = Fraction(11, CURRENT_GRID) / 80 * PHI_GRID
    assert converter.phi_ticks(np.array([11 / CURRENT_GRID])) == round(exact)
    tie = Fraction(10, CURRENT_GRID) / 80 * PHI_GRID
    assert tie == Fraction(1, 2)
    assert converter.phi_ticks(np.array([10 / CURRENT_GRID, 30 / CURRENT_GRID])).tolist() == [0, 2]


@given(st.integers(-(2**44), 2**44), st.sampled_from([(4, 4), (3, 5), (2, 1), (6, 3)]))
def test_counting_clocks_rounds_to_nearest(ticks, bits):
    q_bits, count_bits = bits
    converter = SignedChargeToPulse(q_bits=q_bits, count_bits=count_bits)
    charge = np.array([float(Fraction(ticks, CURRENT_GRID * PHI_GRID))])
    length = converter.length_clk(charge)
    seen = sum(int(converter.high(length, t)[0]) for t in range(1, converter.count_max + 1))
    count = int(converter.counts(charge)[0])
    assert abs(count) == seen
    assert count == 0 or (count < 0) == (ticks < 0)
    quotient = Fraction(float(charge[0] / converter.charge_per_count))
    assert seen == min(math.floor(abs(quotient) + Fraction(1, 2)), converter.count_max)
    if converter.charge_per_count == 40.0:
        true = abs(Fraction(ticks, CURRENT_GRID * PHI_GRID)) / 40
        assert seen == min(math.floor(true + Fraction(1, 2)), 15)


def test_counts_at_ties_and_limits():
    converter = SignedChargeToPulse()
    charge = np.array([0.5, 1.5, 14.5, 0.49999, 15.0, 99.0]) * 40
    assert converter.counts(charge).tolist() == [1, 2, 15, 0, 15, 15]
    assert converter.counts(-charge).tolist() == [-1, -2, -15, 0, -15, -15]


def test_converter_errors():
    with pytest.raises(TypeError, match=says("q_bits must be an int, not True")):
        ChargeToPulse(q_bits=True)
    with pytest.raises(ValueError, match=says("q_bits must be in 1..8, not 9")):
        SignedChargeToPulse(q_bits=9)
    with pytest.raises(ValueError, match=says("count_bits must be in 1..8, not 0")):
        SignedChargeToPulse(count_bits=0)
    with pytest.raises(ValueError, match=says("s_sat_ua must be positive and finite, not 0")):
        ChargeToPulse(s_sat_ua=0)
    with pytest.raises(ValueError, match=says("a_sat_ua must be positive and finite, not inf")):
        SignedChargeToPulse(a_sat_ua=math.inf)
    with pytest.raises(TypeError, match=says("a_sat_ua must be a float, not '40'")):
        SignedChargeToPulse(a_sat_ua="40")


# --- exactness and parameters -------------------------------------------------------------------
def test_what_would_not_be_exact_is_refused():
    with pytest.raises(ValueError, match=says("columns must be in 1..197 for exact charges")):
        AnalogParams(columns=256, q_bits=8)
    AnalogParams(columns=197, q_bits=8)
    with pytest.raises(ValueError, match=r"rows must be in 1\.\..* not 1000000000"):
        check_exact(rows=10**9, columns=1, q_bits=8, i_max_ua=10.0)
    strong = PolynomialCell(coefficients=(0.0, 1e6))
    with pytest.raises(ValueError, match=says("columns must be in 1..")):
        AnalogParams(cell=strong)


@pytest.mark.parametrize(
    ("field", "high"),
    [
        ("subtiles", 256),
        ("columns", 256),
        ("rows", 256),
        ("lanes", 256),
        ("q_bits", 8),
        ("kv_bits", 8),
        ("count_bits", 8),
        ("write_clk", 64),
    ],
)
def test_parameter_errors(field, high):
    for wrong in (0, high + 1):
        with pytest.raises(ValueError, match=says(f"{field} must be in 1..{high}, not {wrong}")):
            AnalogParams(**{field: wrong})
    for wrong in (1.0, True, "1"):
        with pytest.raises(TypeError, match=says(f"{field} must be an int, not {wrong!r}")):
            AnalogParams(**{field: wrong})


def test_parameters_match_a_shape():
    shape = AnalogParams(
        subtiles=3, columns=5, rows=7, lanes=9, q_bits=3, kv_bits=2, count_bits=5, write_clk=2
    )
    params = AnalogParams.matching(shape, s_sat_ua=20.0)
    assert params == dataclasses.replace(shape, s_sat_ua=20.0)
    assert (params.window, params.q_max, params.count_max) == (15, 7, 31)
    with pytest.raises(TypeError):
        AnalogParams(16)


def test_linear_is_short_for_the_published_linear_cell():
    assert resolve_cell("linear") is resolve_cell("published-linear")
