"""What a simulated preset holds reaches the arrays: levels, droop, transfer, temperature."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from analog_models import AnalogParams, BatchedHead, FastHead, FunctionalHead, SteppedHead
from analog_models.device import Leakage
from analog_models.droop import Droop
from analog_models.of_device import head_of_device
from analog_models.presets import resolve_device
from analog_models.transfer import Transfer

TINY = {"subtiles": 2, "columns": 6, "rows": 12, "lanes": 7, "s_sat_ua": 20.0, "a_sat_ua": 8.0}
CORNERS = ("sky130-tt", "sky130-ss", "sky130-ff")


def codes_of(params: AnalogParams, tokens: int, seed: int):
    rng = np.random.default_rng(seed)
    top = params.dac.levels
    return (
        rng.integers(0, params.q_max + 1, (tokens, params.rows)),
        rng.integers(0, top, (tokens, params.rows)),
        rng.integers(0, top, (tokens, params.lanes)),
    )


def stepped_sums(head: SteppedHead, q):
    params = head.params
    head.reset_scores()
    for clock in range(params.q_max):
        head.integrate_scores(np.asarray(q) > clock)
    head.reset_outputs()
    for _ in range(params.q_max):
        head.convert_scores(np.ones(params.window, dtype=np.bool_))
    sums = np.zeros((params.subtiles, params.lanes), dtype=np.int64)
    for _ in range(params.count_max):
        pulses, signs = head.read_outputs()
        sums += np.where(signs, -1, 1) * pulses
    return sums.sum(axis=0)


@pytest.mark.parametrize("name", CORNERS)
@pytest.mark.parametrize(
    ("temperature_c", "token_s", "spread"),
    [(27.0, None, 0.0), (27.0, None, 1.0), (85.0, 5e-4, 0.0), (60.0, 2e-3, 1.0)],
)
@pytest.mark.parametrize("seed", [3, 20261125])
def test_speeds_agree_on_simulated_devices(name, temperature_c, token_s, spread, seed):
    """Integers of the stepped, the functional and the batched head, everything on, over time."""
    params = head_of_device(
        resolve_device(name),
        spread=spread,
        seed=seed,
        temperature_c=temperature_c,
        token_s=token_s,
        **TINY,
    )
    q, k, v = codes_of(params, params.window, seed)
    period = 0 if token_s is None else 16 * params.tick_clk
    stepped, functional, batched = SteppedHead(params), FunctionalHead(params), BatchedHead(params)
    for token in range(params.window):
        for _ in range(params.write_clk):
            stepped.write_key(*divmod(token, params.columns), k[token])
            stepped.write_value(*divmod(token, params.columns), v[token])
        stepped.end_write()
        functional.write(k[token], v[token], now_clk=token * period)
        stepped.tick(period)
    now = params.window * period
    batched.write(k, v, ages=16 * np.arange(params.window, 0, -1) if period else None)
    answers = batched.query(q)
    for i, codes in enumerate(q):
        closed = functional.query(codes, now_clk=now)
        assert closed.sums.tolist() == answers.sums[i].tolist()
        assert stepped_sums(stepped, codes).tolist() == closed.sums.tolist()
    assert len(np.unique(answers.sums)) > 10


@pytest.mark.parametrize("name", CORNERS)
def test_levels_are_what_a_write_leaves(name):
    device = resolve_device(name)
    cell = device.cell_model()
    real, meant = (head_of_device(device, spread=0.0, systematic=s) for s in (True, False))
    for params, stored in ((real, device.written_v), (meant, device.levels_v)):
        expected = cell.current_ua(np.asarray(stored))
        assert params.level_currents.fresh == pytest.approx(expected, abs=2.0**-17)
    apart = np.abs(real.level_currents.fresh - meant.level_currents.fresh)
    assert apart.max() > 0.05, "it matters"
    finer = head_of_device(device, kv_bits=4, systematic=True)
    assert len(finer.written_v) == 16
    assert finer.written_v[0] == device.written_v[0] and finer.written_v[-1] == device.written_v[-1]


@pytest.mark.parametrize("name", CORNERS)
@pytest.mark.parametrize("temperature_c", [27.0, 85.0])
def test_droop_is_the_table(name, temperature_c):
    """Currents at the table's times are the cell's at the table's voltages."""
    device = resolve_device(name)
    row = device.leakage_at(temperature_c)
    params = head_of_device(
        device,
        spread=0.0,
        temperature_c=temperature_c,
        token_s=row.time_s[1],
        systematic=False,
        **TINY,
    )
    tick_s = params.tick_clk * params.clk_ns * 1e-9
    ages = np.rint(np.asarray(row.time_s) / tick_s).astype(np.intp)
    keep = ages < 20_000
    codes = np.tile(np.arange(8), (keep.sum(), 1))
    got = params.level_currents.at(ages[keep], codes)
    cell = device.cell_model(temperature_c=temperature_c)
    stored = row.droop.stored_v(np.asarray(device.levels_v), ages[keep, np.newaxis] * tick_s)
    assert stored == pytest.approx(np.asarray(row.v_store_v).T[keep], abs=2e-3)
    assert got == pytest.approx(cell.current_ua(stored), abs=2.0**-16)
    # Half a step of the code at the time of retention, not an exponential's third of it.
    moved = np.asarray(device.levels_v) - row.droop.stored_v(device.levels_v, row.retention_s)
    assert moved.max() == pytest.approx(0.06, rel=0.01)
    exponential = np.asarray(device.levels_v) - row.v_rest_v
    apart = moved / moved[-1] - exponential / exponential[-1]
    assert apart.max() > 0.2, "nearly a constant current"


def test_droop_between_its_courses():
    droop = Droop(time_s=(0.0, 1.0, 3.0), v_store_v=((0.2, 0.1, 0.0), (0.6, 0.5, 0.2)))
    assert droop.stored_v(0.4, 0.5) == pytest.approx(0.35)
    assert droop.stored_v(0.2, [0.0, 2.0, 9.0]) == pytest.approx([0.2, 0.05, 0.0])
    assert droop.stored_v(0.7, 1.0) == pytest.approx(0.6)
    assert droop.range_v == (0.0, 0.6) and droop.end_s == 3.0


def test_temperature_moves_currents_as_simulated():
    """Gain and shift with temperature give the currents that were simulated at 85 °C."""
    from analog_models.presets import DEVICE_FOLDER
    from spice.check import points_path
    from spice.points import read_points

    for name in CORNERS:
        device = resolve_device(name)
        points, _ = read_points(points_path(DEVICE_FOLDER / f"{name}.json"))
        cold, hot = points["curve"]["i_ua"][:, -1], points["hot curve"]["i_ua"][:, -1]
        at = np.isin(points["curve"]["v_store_v"].round(3), np.round(device.levels_v, 3))
        assert at.sum() == 8
        warm, room = (
            head_of_device(device, spread=0.0, systematic=False, temperature_c=t, **TINY)
            for t in (85.0, 27.0)
        )
        codes = np.tile(np.arange(8), (1, 2))[:, : TINY["rows"]]
        fresh = np.zeros(1, dtype=np.intp)
        moved = (
            warm.key_currents.at(fresh, codes, 0)[0, :8]
            - room.key_currents.at(fresh, codes, 0)[0, :8]
        )
        assert moved == pytest.approx((hot - cold)[at], abs=2e-3)
        assert np.abs(moved).max() > 0.5


def test_transfer_is_the_table():
    device = resolve_device("sky130-ss")
    params = head_of_device(device, spread=0.0)
    figures = device.score_converter
    charge = np.asarray(figures.charge_fc) / device.lsb_ns  # µA·clk
    got = params.score_converter.phi_clk(charge)
    assert got == pytest.approx(np.clip(figures.pulse_ns, 0.0, 15.0), abs=1e-5)
    figures = device.output_converter
    charge = np.asarray(figures.charge_fc) / device.lsb_ns
    counts = params.output_converter.counts(charge)
    nearest = np.sign(figures.pulse_ns) * np.floor(np.abs(figures.pulse_ns) + 0.5)
    assert counts.tolist() == np.clip(nearest, -15, 15).astype(int).tolist()
    assert params.score_converter_of(40).phi_clk(np.array([600.0])) == pytest.approx(
        params.score_converter.phi_clk(np.array([1200.0]))
    )


@pytest.mark.parametrize("name", CORNERS)
def test_fast_head_follows_the_transfer(name):
    params = head_of_device(resolve_device(name), spread=0.0, subtiles=4)
    ideal = head_of_device(resolve_device(name), spread=0.0, subtiles=4, systematic=False)
    q, k, v = codes_of(params, 200, 9)
    exact, fast, other = BatchedHead(params), FastHead(params), BatchedHead(ideal)
    for head in (exact, fast, other):
        head.write(k, v)
    expected, got = exact.query(q).sums, np.asarray(fast.query(q.astype(np.float32)))
    assert (got != expected).mean() < 0.02 and np.abs(got - expected).max() <= 1
    assert (other.query(q).sums != expected).mean() > 0.1


def test_fast_head_follows_the_transfer_in_pytorch():
    torch = pytest.importorskip("torch")
    params = head_of_device(resolve_device("sky130-tt"), spread=0.0, subtiles=4)
    q, k, v = codes_of(params, 200, 9)
    ours, theirs = FastHead(params), FastHead(params, like=torch.empty(0))
    ours.write(k, v)
    theirs.write(k, v)
    got = theirs.query(torch.as_tensor(q, dtype=torch.float32)).numpy()
    assert (got != ours.query(q.astype(np.float32))).mean() < 1e-3


TABLE = Droop(time_s=(0.0, 1.0), v_store_v=((0.0, 0.0), (0.9, 0.8)))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"droop": 3}, TypeError, "droop must be a Droop or None, not 3"),
        ({"droop": TABLE, "tau_s": 1.0}, ValueError, "tau_s must be None with droop, not 1.0"),
        ({"droop": TABLE, "decay_per_token": 0.1}, ValueError, "decay_per_token must be 0 with"),
        ({"written_v": [0.1]}, TypeError, "written_v must be a tuple of floats"),
        ({"written_v": (0.0, 0.1)}, ValueError, "written_v must hold 8 voltages, one per code"),
        ({"written_v": (0.0,) * 8}, ValueError, "written_v must rise strictly"),
        ({"score_transfer": 3}, TypeError, "transfer must be a Transfer or None, not 3"),
        (
            {"output_transfer": Transfer(charge=(0.0, 3.0), pulse=(0.0, 3.0))},
            ValueError,
            "transfer must span the charges of all pulses, 0..15 counts, not 0.0..3.0",
        ),
    ],
)
def test_what_heads_refuse(given, error, message):
    with pytest.raises(error, match=re.escape(message)):
        AnalogParams(**given)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Droop(time_s=(1.0, 2.0), v_store_v=((0, 0), (1, 1))), "time_s must rise strictly"),
        (lambda: Droop(time_s=(0.0, 1.0), v_store_v=((0.0,), (1.0,))), "v_store_v must have shape"),
        (
            lambda: Droop(time_s=(0.0, 1.0), v_store_v=((0.0, 0.5), (1.0, 0.4))),
            "v_store_v must hold courses that do not cross, not 0.5 above 0.4 at index (0, 1)",
        ),
        (
            lambda: Droop(time_s=(0.0, 1.0), v_store_v=((1.0, 0.5), (0.5, 0.5))),
            "v_store_v must start rising strictly",
        ),
        (lambda: Transfer(charge=(0.0, 0.0), pulse=(0.0, 1.0)), "charge must rise strictly"),
        (lambda: Transfer(charge=(0.0, 1.0), pulse=(0.0,)), "pulse must have shape (2,)"),
        (lambda: Transfer(charge=(0.0, 1.0), pulse=(1.0, 0.0)), "pulse must be finite and must"),
        (
            lambda: Leakage(temperature_c=27.0, v_rest_v=0.0),
            "leakage.tau_s must be given where there is no leakage.time_s",
        ),
    ],
)
def test_what_tables_refuse(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_a_device_without_leakage_does_not_fade():
    device = dataclasses.replace(resolve_device("published"), leakage=())
    with pytest.raises(ValueError, match="device must have leakage for token_s, not 'published'"):
        head_of_device(device, token_s=1e-6)
    fading = head_of_device(resolve_device("published"), token_s=1e-6)
    assert fading.tau_s == 5e-3 and fading.droop is None and fading.tick_clk == 62
