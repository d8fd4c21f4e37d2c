"""Levels, sinks, masks, sub-tile probes, offsets, refresh and leakage in time: two heads agree."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analog_models import (
    A_LEVEL,
    LEVEL_MAX,
    S_LEVEL,
    AnalogParams,
    AnalogProtocolError,
    FunctionalHead,
    SteppedHead,
    unpack_bits,
)
from analog_models.converter import PHI_GRID, check_exact
from analog_models.dac import CURRENT_GRID, level_currents

TINY = {"subtiles": 2, "columns": 4, "rows": 4, "lanes": 4, "s_sat_ua": 6.0, "a_sat_ua": 3.0}
THREE = {"subtiles": 3, "columns": 5, "rows": 7, "lanes": 3, "s_sat_ua": 9.0, "a_sat_ua": 4.0}
#: 1000 clocks of leakage cost a fifth of the charge, so that a step of age shows.
FAST = {"tau_s": 5e-6, "clk_ns": 1.0}


def says(message: str) -> str:
    return re.escape(message)


class Pair:
    """A stepped and a functional head that are asked the same, on one clock."""

    def __init__(self, params: AnalogParams) -> None:
        self.params = params
        self.stepped, self.closed = SteppedHead(params), FunctionalHead(params)

    def _hold(self, array: str, column: int, codes) -> None:
        write = self.stepped.write_key if array == "key" else self.stepped.write_value
        for _ in range(self.params.write_clk):
            self.stepped.tick()
            write(*divmod(column, self.params.columns), codes)
        self.stepped.end_write(array)

    def write(self, k, v) -> None:
        column, clk = self.closed.pointer, []
        for array, codes in (("key", k), ("value", v)):
            self._hold(array, column, codes)
            clk.append(self.stepped.now_clk)
            self.stepped.tick(3)
        self.closed.write(k, v, now_clk=tuple(clk))

    def rewrite(self, column: int, array: str | None = None) -> None:
        bank = self.stepped.bank
        for name, cells in (("key", bank.keys), ("value", bank.values)):
            if array in (None, name):
                self._hold(name, column, cells.codes[column])
                self.closed.rewrite(column, name, now_clk=self.stepped.now_clk)
                assert cells.written_clk == self.stepped.now_clk

    def query(self, q, *, s_level=None, a_level=None, subtile=None, mask=None):
        """Counts of the stepped head, ``(subtiles, lanes)``, once the other has agreed."""
        params, stepped = self.params, self.stepped
        columns = self.closed.valid if mask is None else self.closed.valid & mask
        stepped.tick()
        stepped.reset_scores()
        for clock in range(params.q_max):
            stepped.tick()
            stepped.integrate_scores(np.asarray(q) > clock)
        stepped.tick()
        phi_clk = np.where(columns, stepped.phi_clk(s_level=s_level), 0.0)
        stepped.reset_outputs()
        for _ in range(params.q_max):
            stepped.tick()
            stepped.convert_scores(columns, s_level=s_level)
        select = None if subtile is None else np.arange(params.subtiles) == subtile
        shown = unpack_bits(stepped.output_signs_packed(), params.subtiles * params.lanes)
        counts = np.zeros((params.subtiles, params.lanes), dtype=int)
        for clock in range(params.count_max):
            stepped.tick()
            if clock % 2:
                words = stepped.read_outputs_packed(a_level=a_level, select=select)
                pulses, signs = (unpack_bits(w, counts.size).reshape(counts.shape) for w in words)
            else:
                pulses, signs = stepped.read_outputs(a_level=a_level, select=select)
            assert (signs.ravel() == shown).all()
            counts += np.where(pulses, np.where(signs, -1, 1), 0)
        clk = stepped.bank.keys.read_clk, stepped.bank.values.read_clk
        levels = {"s_level": s_level, "a_level": a_level}
        result = self.closed.query(q, **levels, subtile=subtile, mask=mask, now_clk=clk)
        assert result.sums.tolist() == counts.sum(axis=0).tolist()
        full = (np.abs(counts) == params.count_max).any(axis=0)
        assert result.full_scale.tolist() == full.tolist()
        closed = self.closed.phi_clk(q, s_level=s_level, mask=mask)
        assert (closed == phi_clk).all()
        return counts


def drawn(params: AnalogParams, rng):
    k = rng.integers(0, params.dac.levels, params.rows)
    v = rng.integers(0, params.dac.levels, params.lanes)
    return rng.integers(0, params.q_max + 1, params.rows), k, v


# --- everything at once -------------------------------------------------------------------------
LEVELS = st.none() | st.integers(1, LEVEL_MAX)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_heads_agree_whatever_is_set(data):
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    leak = data.draw(
        st.sampled_from([{}, {"decay_per_token": 0.04}, FAST | {"tick_clk": 64}, FAST])
    )
    params = AnalogParams(
        subtiles=draw(1, 4), columns=draw(1, 4), rows=draw(1, 8), lanes=draw(1, 4),
        q_bits=draw(1, 4), count_bits=draw(1, 4), write_clk=draw(1, 3),
        s_sat_ua=data.draw(st.sampled_from([5.0, 19.3, 80.0])),
        a_sat_ua=data.draw(st.sampled_from([2.0, 7.1, 40.0])),
        score_offset_sigma_clk=data.draw(st.sampled_from([0.0, 0.7])),
        output_offset_sigma_counts=data.draw(st.sampled_from([0.0, 1.3])),
        offset_seed=draw(0, 5), **leak,
    )  # fmt: skip
    pair, rng = Pair(params), np.random.default_rng(draw(0, 1000))
    for _ in range(draw(1, 2 * params.window + 3)):
        q, k, v = drawn(params, rng)
        pair.closed.sinks = draw(0, params.window - 1)
        pair.write(k, v)
        if draw(0, 9) == 0:
            pair.closed.flush()
            pair.write(k, v)
        if draw(0, 2) == 0:
            array = data.draw(st.sampled_from([None, "key", "value"]))
            pair.rewrite(draw(0, pair.closed.occupancy - 1), array)
        if draw(0, 1):
            pair.query(
                q,
                s_level=data.draw(LEVELS),
                a_level=data.draw(LEVELS),
                subtile=data.draw(st.none() | st.integers(0, params.subtiles - 1)),
                mask=data.draw(st.none() | st.just(rng.random(params.window) < 0.6)),
            )


# --- levels -------------------------------------------------------------------------------------
def filled(params: AnalogParams, tokens: int, seed: int = 0):
    """A pair that holds some tokens, and a query."""
    pair, rng = Pair(params), np.random.default_rng(seed)
    for _ in range(tokens):
        q, k, v = drawn(params, rng)
        pair.write(np.where(k > 3, 7, k), v)
    return pair, q


def test_a_level_is_a_saturation_current():
    params = AnalogParams(**THREE)
    assert (params.s_unit_ua, params.a_unit_ua) == (9.0 / 80, 4.0 / 40)
    assert (AnalogParams().s_unit_ua, AnalogParams().a_unit_ua) == (1.0, 1.0)
    assert params.score_converter_of(None) is params.score_converter_of(S_LEVEL)
    assert params.score_converter_of(S_LEVEL) is params.score_converter
    assert params.output_converter_of(A_LEVEL) is params.output_converter
    assert (params.score_converter.s_sat_ua, params.output_converter.a_sat_ua) == (9.0, 4.0)
    for level in range(1, LEVEL_MAX + 1):
        s_sat_ua = params.score_converter_of(level).s_sat_ua
        assert s_sat_ua == pytest.approx(level * 9.0 / 80, rel=1e-15)
        assert params.output_converter_of(level).a_sat_ua == pytest.approx(level / 10, rel=1e-15)
        assert AnalogParams().score_converter_of(level).s_sat_ua == level
        assert AnalogParams().output_converter_of(level).a_sat_ua == level


def test_a_query_takes_its_levels():
    pair, q = filled(AnalogParams(**THREE), 15)
    seen = {}
    for s_level, a_level in ((160, 40), (80, 80), (40, 20), (20, 160), (1, 1), (255, 255)):
        other = AnalogParams(**THREE | {"s_sat_ua": s_level * 0.1125, "a_sat_ua": a_level * 0.1})
        plain, _ = filled(other, 15)
        seen[s_level] = pair.query(q, s_level=s_level, a_level=a_level)
        assert (seen[s_level] == plain.query(q)).all()
    assert (pair.query(q) == pair.query(q, s_level=80, a_level=40)).all()
    assert len({counts.tobytes() for counts in seen.values()}) == len(seen)


@pytest.mark.parametrize("level", [0, 256, -1])
def test_levels_out_of_range(level):
    pair, q = filled(AnalogParams(**TINY), 1)
    with pytest.raises(ValueError, match=says(f"s_level must be in 1..255, not {level}")):
        pair.closed.query(q, s_level=level)
    with pytest.raises(ValueError, match=says(f"a_level must be in 1..255, not {level}")):
        pair.closed.query(q, a_level=level)
    with pytest.raises(ValueError, match=says(f"s_level must be in 1..255, not {level}")):
        pair.stepped.convert_scores(np.ones(8, dtype=bool), s_level=level)
    with pytest.raises(ValueError, match=says(f"a_level must be in 1..255, not {level}")):
        pair.stepped.read_outputs(a_level=level)
    for wrong in (True, 80.0):
        with pytest.raises(TypeError, match=says(f"s_level must be an int, not {wrong!r}")):
            pair.closed.query(q, s_level=wrong)


def test_a_level_that_changes_on_the_way():
    stepped = Pair(AnalogParams(**TINY)).stepped
    everything = np.ones(8, dtype=bool)
    for level in (80, 80, 80):
        stepped.convert_scores(everything, s_level=level)
    message = "S_sat changed from level 80 to 81 after 3 of 15 clocks of a conversion"
    with pytest.raises(AnalogProtocolError, match=says(message)):
        stepped.convert_scores(everything, s_level=81)
    stepped.reset_outputs()
    stepped.convert_scores(everything, s_level=81)  # another conversion
    stepped.read_outputs(a_level=7)
    message = "A_sat changed from level 7 to 40 after 1 of 15 clocks of a readout"
    with pytest.raises(AnalogProtocolError, match=says(message)):
        stepped.read_outputs_packed(a_level=40)


def test_two_overlapped_queries_have_levels_of_their_own():
    """The next query converts at its level while the last one is read at its own."""
    pair, q = filled(AnalogParams(**TINY), 6)
    expected = [pair.query(q, s_level=s, a_level=a) for s, a in ((80, 20), (30, 90))]
    stepped, mask = pair.stepped, pair.closed.valid
    for bank in (0, 1):
        stepped.reset_scores(bank)
        for clock in range(15):
            stepped.integrate_scores(np.asarray(q) > clock, bank)
    stepped.reset_outputs(0)
    for _ in range(15):
        stepped.convert_scores(mask, 0, s_level=80)
    counts = np.zeros((2, 2, 4), dtype=int)
    stepped.reset_outputs(1)
    for _ in range(15):
        stepped.convert_scores(mask, 1, s_level=30)
        pulses, signs = stepped.read_outputs(0, a_level=20)
        counts[0] += np.where(pulses, np.where(signs, -1, 1), 0)
    for _ in range(15):
        pulses, signs = stepped.read_outputs(1, a_level=90)
        counts[1] += np.where(pulses, np.where(signs, -1, 1), 0)
    assert (counts == expected).all()


# --- sinks --------------------------------------------------------------------------------------
@pytest.mark.parametrize("sinks", [0, 1, 3, 7])
def test_the_pointer_spares_the_sinks(sinks):
    head = FunctionalHead(AnalogParams(**TINY))
    head.sinks = sinks
    code = np.zeros(4, dtype=int)
    for token in range(40):
        column = token if token < 8 else sinks + (token - 8) % (8 - sinks)
        assert head.pointer == column
        assert head.occupancy == min(token, 8)
        assert head.valid.tolist() == [i < token for i in range(8)]
        head.write(code, code)


def test_sinks_are_still_attended_to():
    """Against a window that holds the very tokens, put there in the order of their columns."""
    params = AnalogParams(**TINY)
    rng = np.random.default_rng(4)
    tokens = [drawn(params, rng) for _ in range(21)]
    pair, columns = Pair(params), [None] * 8
    pair.closed.sinks = 3
    for token, (q, k, v) in enumerate(tokens):
        columns[token if token < 8 else 3 + (token - 8) % 5] = (k, v)
        pair.write(k, v)
        plain = FunctionalHead(params)
        for stored in columns[: token + 1]:
            plain.write(*stored)
        assert pair.query(q).sum(axis=0).tolist() == plain.query(q).sums.tolist()


def test_sinks_are_taken_over_by_an_empty_window():
    head, code = FunctionalHead(AnalogParams(**TINY)), np.zeros(4, dtype=int)
    head.write(code, code)
    head.sinks = 5
    assert head.sinks == 5
    for _ in range(7):
        head.write(code, code)
    assert head.pointer == 0  # not yet
    head.flush()
    for _ in range(8):
        head.write(code, code)
    assert head.pointer == 5
    head.sinks = 2
    head.sinks = 6
    head.flush()
    for _ in range(8):
        head.write(code, code)
    assert head.pointer == 6


def test_errors_of_sinks():
    head = FunctionalHead(AnalogParams(**TINY))
    with pytest.raises(ValueError, match=says("sinks must be in 0..7, not 8")):
        head.sinks = 8
    with pytest.raises(TypeError, match=says("sinks must be an int, not 1.0")):
        head.sinks = 1.0
    assert head.sinks == 0


# --- masks and probes ---------------------------------------------------------------------------
def test_a_mask_takes_columns_out():
    params = AnalogParams(**TINY)
    pair, q = filled(params, 6)
    assert (pair.query(q) == pair.query(q, mask=np.ones(8, dtype=bool))).all()
    assert (pair.query(q, mask=np.zeros(8, dtype=bool)) == 0).all()
    pair.closed.flush()
    for _ in range(8):
        pair.write([7] * 4, [7] * 4)
    for column in range(8):
        alone = pair.query([15] * 4, mask=np.arange(8) == column)
        assert alone[column // 4].any() and not alone[1 - column // 4].any()
    for mask, error, message in (
        (np.ones(4, dtype=bool), ValueError, "mask must have shape (8,), not (4,)"),
        (np.ones(8), TypeError, "mask must be a boolean array, not array"),
        (255, TypeError, "mask must be a boolean array, not 255"),
    ):
        with pytest.raises(error, match=says(message)):
            pair.closed.query(q, mask=mask)


def test_a_probe_shows_one_subtile():
    params = AnalogParams(**THREE)
    pair, q = filled(params, 12)
    whole = pair.query(q, a_level=10)
    for subtile in range(3):
        counts = pair.query(q, a_level=10, subtile=subtile)
        assert (counts[subtile] == whole[subtile]).all()
        assert not np.delete(counts, subtile, axis=0).any()
    assert (np.count_nonzero(whole, axis=1) > 0).all()
    with pytest.raises(ValueError, match=says("subtile must be in 0..2, not 3")):
        pair.closed.query(q, subtile=3)
    for select, message in ((np.ones(4, dtype=bool), "select must have shape (3,), not (4,)"),):
        with pytest.raises(ValueError, match=says(message)):
            pair.stepped.read_outputs(select=select)


def test_a_selection_acts_clock_by_clock():
    pair, _ = filled(AnalogParams(**TINY), 8)
    stepped = pair.stepped
    pair.query([15] * 4)  # leaves charge behind: every result is positive or negative, none zero
    waves = [stepped.read_outputs(select=np.array([clock < 2, True])) for clock in range(15)]
    high = np.array([pulses for pulses, _ in waves])
    assert high[:2, 0].any() and not high[2:, 0].any()
    assert high[2:, 1].any()


# --- offsets ------------------------------------------------------------------------------------
def test_offsets_are_off_by_default():
    assert AnalogParams().score_offset is None
    assert AnalogParams().output_offset is None
    assert AnalogParams(offset_seed=3).output_offset is None


def test_offsets_are_drawn_from_a_seed():
    params = AnalogParams(score_offset_sigma_clk=0.25, output_offset_sigma_counts=0.5)
    again = dataclasses.replace(params)
    other = dataclasses.replace(params, offset_seed=1)
    # Both converters' offsets, in units of their spread: score charge per clock and per count.
    drawn = {
        "score_offset": (0.25 * 80.0, (1024,)),
        "output_offset": (0.5 * 40.0, (16, 64)),
    }
    normal = []
    for name, (sigma, shape) in drawn.items():
        offsets = getattr(params, name)
        assert offsets.shape == shape
        assert (offsets == getattr(again, name)).all()
        assert (offsets != getattr(other, name)).mean() > 0.99
        assert (offsets * CURRENT_GRID == np.rint(offsets * CURRENT_GRID)).all()
        normal.append(offsets.ravel() / sigma)
        # 1024 draws: mean within 4.9 sigma of the mean, spread likewise; one seed in a million.
        assert abs(normal[-1].mean()) < 4.9 / math.sqrt(1024)
        assert abs(normal[-1].std() - 1) < 4.9 / math.sqrt(2 * 1024)
    assert abs(np.corrcoef(*normal)[0, 1]) < 4.9 / math.sqrt(1024)  # drawn apart


@pytest.mark.parametrize("a_level", [10, 40, 160])
def test_a_probe_of_an_empty_window_shows_the_offsets(a_level):
    params = AnalogParams(**THREE, output_offset_sigma_counts=2.0)
    pair = Pair(params)
    per_count = params.output_converter_of(a_level).charge_per_count
    expected = params.output_converter_of(a_level).counts(params.output_offset)
    assert expected == pytest.approx(np.clip(params.output_offset / per_count, -15, 15), abs=0.5)
    assert expected.any()
    for subtile in range(3):
        counts = pair.query([9] * 7, a_level=a_level, subtile=subtile)
        assert (counts[subtile] == expected[subtile]).all()
    with pytest.raises(ValueError, match=says("occupancy must be at least 1 for a query, not 0")):
        pair.closed.query([9] * 7)


def test_offsets_move_pulses_and_results():
    shape = THREE | {"s_sat_ua": 40.0}
    ideal, q = filled(AnalogParams(**shape), 15)
    params = AnalogParams(**shape, score_offset_sigma_clk=0.5)
    pair, _ = filled(params, 15)
    moved = pair.closed.phi_clk(q) - ideal.closed.phi_clk(q)
    inside = (ideal.closed.phi_clk(q) > 0) & (pair.closed.phi_clk(q) > 0)
    inside &= (ideal.closed.phi_clk(q) < 15) & (pair.closed.phi_clk(q) < 15)
    assert inside.sum() >= 5
    assert moved[inside] == pytest.approx(params.score_offset[inside] / 40.0, abs=1 / PHI_GRID)
    pair.query(q)
    pair, _ = filled(AnalogParams(**shape, output_offset_sigma_counts=3.0), 15)
    assert (pair.query(q) != ideal.query(q)).any()


def test_errors_of_offsets():
    for name in ("score_offset_sigma_clk", "output_offset_sigma_counts"):
        for wrong in (-0.1, math.inf, math.nan):
            message = f"{name} must be finite and not negative, not {wrong!r}"
            with pytest.raises(ValueError, match=says(message)):
                AnalogParams(**{name: wrong})
        with pytest.raises(TypeError, match=says(f"{name} must be a float, not '1'")):
            AnalogParams(**{name: "1"})
    with pytest.raises(ValueError, match=says("offset_seed must be in 0..")):
        AnalogParams(offset_seed=-1)
    shape = {"rows": 10, "columns": 197, "q_bits": 8, "i_max_ua": 10.0}
    check_exact(**shape)
    with pytest.raises(ValueError, match=says("columns must be in 1..185 for exact charges")):
        check_exact(**shape, output_offset=0.1 * 2**53 / CURRENT_GRID / PHI_GRID)
    with pytest.raises(ValueError, match=says("rows must be in 1..0 for exact charges")):
        check_exact(**shape, score_offset=2.0**53 / CURRENT_GRID)


# --- refresh ------------------------------------------------------------------------------------
@pytest.mark.parametrize("array", ["key", "value", None])
@pytest.mark.parametrize("leak", [{"decay_per_token": 0.3}, FAST | {"tick_clk": 200}])
def test_a_refresh_restores_charge(array, leak):
    params = AnalogParams(**TINY, **leak)
    fresh = params.level_currents.fresh
    pair, q = filled(params, 8)
    cells = {"key": pair.stepped.bank.keys, "value": pair.stepped.bank.values}
    pair.stepped.tick(3000)
    before = pair.query(q)
    written = {name: bank.written_clk for name, bank in cells.items()}
    pair.rewrite(2, array)
    pair.query(q)
    for name, bank in cells.items():
        restored = (bank.currents_ua[2] == fresh[bank.codes[2]]).all()
        assert restored == (array in (None, name))
        assert (bank.written_clk > written[name]) == restored
        assert not (bank.currents_ua[1] == fresh[bank.codes[1]]).any()
        assert (bank.ages[2] == 0) == restored
    for column in reversed(range(8)):
        pair.rewrite(column)
    assert (pair.query(q) != before).any()


def test_refreshing_every_column_in_time_undoes_leakage():
    leaky = AnalogParams(**TINY, **FAST, tick_clk=300)
    pair, q = filled(leaky, 8)
    ideal, _ = filled(AnalogParams(**TINY), 8)
    pair.stepped.tick(20_000)
    assert (pair.query(q) != ideal.query(q)).any()
    pair.stepped.tick(-pair.stepped.now_clk % 300)
    for column in range(8):
        pair.rewrite(column)  # 64 clocks in all, within one step of age
    assert (pair.query(q) == ideal.query(q)).all()


def test_a_refresh_without_leakage_changes_nothing():
    pair, q = filled(AnalogParams(**TINY), 5)
    before = pair.query(q)
    for column in (3, 0, 3):
        pair.rewrite(column)
    assert (pair.query(q) == before).all()
    assert (pair.closed.pointer, pair.closed.occupancy) == (5, 5)


def test_writes_back_to_back():
    """No clock without a strobe in between, and both arrays at once with different columns."""
    params = AnalogParams(**TINY, decay_per_token=0.1)
    stepped, rng = SteppedHead(params), np.random.default_rng(2)
    k, v = rng.integers(0, 8, (2, 8, 4))
    for column in range(8):
        for _ in range(4):
            stepped.write_key(*divmod(column, 4), k[column])
            stepped.write_value(*divmod(7 - column, 4), v[column])
    stepped.end_write()
    assert (stepped.bank.keys.codes == k).all()
    assert (stepped.bank.values.codes == v[::-1]).all()
    assert stepped.bank.keys.ages.tolist() == list(range(7, -1, -1))
    assert stepped.bank.values.ages.tolist() == list(range(8))


def test_errors_of_refresh():
    pair, _ = filled(AnalogParams(**TINY), 3)
    with pytest.raises(ValueError, match=says("column must hold a token to be refreshed, not 3")):
        pair.closed.rewrite(3)
    with pytest.raises(ValueError, match=says("column must be in 0..7, not 8")):
        pair.closed.rewrite(8)
    with pytest.raises(ValueError, match=says("array must be 'key', 'value' or None, not 'q'")):
        pair.closed.rewrite(0, "q")


# --- leakage in time ----------------------------------------------------------------------------
def test_charge_fades_with_time():
    """The deviation of the stored voltage from 0.45 V, as exp(-age / tau), in whole steps."""
    params = AnalogParams(**TINY, tau_s=2e-3, clk_ns=2.0, tick_clk=100)
    stepped, codes = SteppedHead(params), np.array([0, 2, 5, 7])
    stepped.tick(250)  # in the third step
    for _ in range(4):
        stepped.write_key(0, 1, codes)
    stepped.end_write()
    assert stepped.bank.keys.written_clk == 250
    dac, cell = params.dac, params.level_currents.cell
    for clocks, steps in ((49, 0), (1, 1), (99, 1), (1, 2), (700_000, 7002), (10**9, 10_007_002)):
        stepped.tick(clocks)
        stepped.reset_scores()
        assert stepped.bank.keys.read_clk == stepped.now_clk
        assert stepped.bank.keys.ages[1] == steps
        faded_v = 0.45 + (dac.levels_v[codes] - 0.45) * math.exp(-steps * 100 * 2e-9 / 2e-3)
        expected = cell.current_ua(faded_v)
        assert stepped.bank.keys.currents_ua[1] == pytest.approx(expected, abs=1 / CURRENT_GRID)


def test_a_read_keeps_the_ages_of_its_start():
    pair, q = filled(AnalogParams(**TINY, **FAST, tick_clk=50), 4)
    stepped = pair.stepped
    stepped.tick(-stepped.now_clk % 50)
    expected = pair.closed.phi_clk(q, now_clk=stepped.now_clk)
    stepped.reset_scores()
    for clock in range(15):
        stepped.integrate_scores(np.asarray(q) > clock)
        stepped.tick(50)
    assert (stepped.phi_clk()[:4] == expected[:4]).all()
    assert (pair.closed.phi_clk(q, now_clk=stepped.now_clk)[:4] != expected[:4]).any()


def test_what_one_bank_holds_does_not_age():
    stepped = filled(AnalogParams(**TINY, **FAST, tick_clk=50), 8)[0].stepped
    lines = np.ones(4, dtype=bool)
    stepped.reset_scores(0)
    stepped.integrate_scores(lines, 0)  # on-time that is not yet charge
    currents = stepped.bank.keys.currents_ua.sum(axis=1)
    stepped.tick(5000)
    stepped.reset_scores(1)
    stepped.integrate_scores(lines, 1)
    assert (stepped.bank.keys.charge(0) == currents).all()
    assert (stepped.bank.keys.charge(1) != currents).any()


def test_steps_of_time_equal_tokens_of_decay():
    """One token per step of age is what `decay_per_token` says."""
    per_token = AnalogParams(**TINY, decay_per_token=0.125)
    timed = AnalogParams(**TINY, tau_s=8e-7, tick_clk=100)
    heads, rng = [FunctionalHead(params) for params in (per_token, timed)], np.random.default_rng(3)
    for token in range(20):
        q, k, v = drawn(timed, rng)
        heads[0].write(k, v)
        heads[1].write(k, v, now_clk=100 * token + 50)
        a, b = (head.query(q) for head in heads)
        assert a.sums.tolist() == b.sums.tolist()
    table = level_currents(timed.level_currents.cell, timed.dac, [3], decay_per_token=0.125)
    assert (timed.level_currents.table(4)[3] == table[0]).all()


def test_time_of_the_last_call_is_kept():
    params = AnalogParams(**TINY, **FAST, tick_clk=10)
    rng = np.random.default_rng(5)
    q, k, v = drawn(params, rng)
    a, b = FunctionalHead(params), FunctionalHead(params)
    a.write(k, v, now_clk=(5, 25))
    b.write(k, v, now_clk=(5, 25))
    a.rewrite(0, "key", now_clk=9000)
    b.rewrite(0, "key", now_clk=(9000, 1))  # array 1's clock alone counts
    sums = [head.query(q, now_clk=(9000, 700)).sums.tolist() for head in (a, b)]
    assert sums[0] == sums[1]
    phi_clk = a.phi_clk(q, now_clk=(20_000, 30_000))
    charges = a.charges(phi_clk)
    assert (a.charges(phi_clk, now_clk=(0, 30_000)) == charges).all()
    assert (a.charges(phi_clk, now_clk=(0, 25)) != charges).any()


def test_errors_of_time():
    for wrong in (0.0, -1.0, math.inf, math.nan):
        for name in ("tau_s", "clk_ns"):
            message = f"{name} must be positive and finite, not {wrong!r}"
            with pytest.raises(ValueError, match=says(message)):
                AnalogParams(**{name: wrong})
    with pytest.raises(TypeError, match=says("tau_s must be a float, not '5 ms'")):
        AnalogParams(tau_s="5 ms")
    with pytest.raises(TypeError, match=says("clk_ns must be a float, not None")):
        AnalogParams(clk_ns=None)
    with pytest.raises(ValueError, match=says("tick_clk must be in 1..4294967296, not 0")):
        AnalogParams(tick_clk=0)
    with pytest.raises(ValueError, match=says("no longer than tau_s, 1000 clocks, not 1001")):
        AnalogParams(tau_s=1e-6, tick_clk=1001)
    AnalogParams(tau_s=1e-6, tick_clk=1000)
    with pytest.raises(ValueError, match=says("decay_per_token must be 0 with tau_s")):
        AnalogParams(tau_s=5e-3, decay_per_token=1e-4)
    head = FunctionalHead(AnalogParams(**TINY, **FAST))
    for wrong, error, message in (
        (-1, ValueError, "now_clk must be in 0.."),
        (1.0, TypeError, "now_clk must be an int, not 1.0"),
        ((1, 2, 3), ValueError, "now_clk must be a clock or a pair of clocks, not (1, 2, 3)"),
    ):
        with pytest.raises(error, match=says(message)):
            head.write([0] * 4, [0] * 4, now_clk=wrong)
    assert head.occupancy == 0


def test_a_shape_may_be_changed_when_matched():
    shape = AnalogParams(**TINY, write_clk=7)
    params = AnalogParams.matching(shape, write_clk=2, tau_s=5e-3)
    assert (params.write_clk, params.rows, params.tau_s) == (2, 4, 5e-3)
