"""The driver over every back end: the same expectations, whatever the device is made of."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from analog_models import AnalogParams, FunctionalHead
from boards.params import BoardParams
from cocotb_tests.driver_backend import SimulatedBackend
from hw.packet import Answer, Command, answer_beats, token_beats
from hw.params import HeadParams
from hw.presets import PRESETS
from sim.board import loopback_device
from sim.board_params import emulator_params
from sim.driver import (
    AnswerMismatch,
    ByteStreamBackend,
    ByteStreamDevice,
    CallTransport,
    Counters,
    DeviceMismatch,
    Driver,
    DriverError,
    EmptyWindow,
    FunctionalBackend,
    LinkError,
    PacketError,
    PacketRefused,
    RegisterError,
    Shot,
    SocketTransport,
    Timeout,
)
from sim.reference.shot_accumulator import combine, nothing

TINY, LAYER = PRESETS["tiny"], PRESETS["tiny-layer"]
PLAIN = HeadParams(subtiles=2, columns=4, rows=4, lanes=4, bus_bits=32)


def analog(params: HeadParams) -> AnalogParams:
    """Arrays whose saturation currents fit their size."""
    return AnalogParams.matching(
        params, s_sat_ua=80.0 * params.rows / 64, a_sat_ua=40.0 * params.columns / 64
    )


def functional(params: HeadParams) -> FunctionalBackend:
    return FunctionalBackend(params, analog(params))


def looped(params: HeadParams) -> ByteStreamBackend:
    return ByteStreamBackend(CallTransport(device(params).feed), retry_s=0.01)


def device(params: HeadParams) -> ByteStreamDevice:
    return ByteStreamDevice(functional(params), bus_bytes=params.bus_bits // 8, heads=params.heads)


def over_socket(params: HeadParams) -> ByteStreamBackend:
    ours, theirs = socket.socketpair()
    serve = device(params).serve
    threading.Thread(target=serve, args=(SocketTransport(theirs),), daemon=True).start()
    return ByteStreamBackend(SocketTransport(ours))


def board(params: HeadParams) -> ByteStreamBackend:
    """The stand-in of a board, its integers fine enough to be the model's."""
    if params.heads > 1:
        pytest.skip("a board has one head")
    scale = 2**9 * 80.0 / analog(params).s_sat_ua
    currents = analog(params).level_currents.fresh
    emulator = dataclasses.replace(
        emulator_params(params, phi_fraction=14),
        currents=tuple(round(float(current) * scale) for current in currents),
        current_fraction=9,
    )
    stand_in = loopback_device(BoardParams(emulator=emulator, clk_hz=25_000_000))
    return ByteStreamBackend(CallTransport(stand_in.feed), retry_s=0.01)


class Kept:
    """A simulated device that outlives its driver, for simulators are slow to start."""

    def __init__(self, params: HeadParams) -> None:
        self.backend = SimulatedBackend(
            params, s_sat_ua=analog(params).s_sat_ua, a_sat_ua=analog(params).a_sat_ua
        )
        self.close_device = self.backend.close
        self.backend.close = lambda: None


KEPT: dict[HeadParams, Kept] = {}


def simulated(params: HeadParams) -> SimulatedBackend:
    """As fresh as after a hard reset."""
    if params not in KEPT:
        KEPT[params] = Kept(params)
    backend = KEPT[params].backend
    driver = Driver(backend, params)
    driver.recover()
    driver.interrupt_on()
    if params.trim_bits and driver.trim().any():
        driver.set_trim(np.zeros_like(driver.trim()))
    return backend


@pytest.fixture(scope="module", autouse=True)
def simulators():
    """End the simulators that were started."""
    yield
    while KEPT:
        KEPT.popitem()[1].close_device()


MODELS = {
    "functional": functional,
    "byte-stream": looped,
    "socket": over_socket,
    "board": board,
}
MAKERS = MODELS | {"simulated": simulated}
SIMULATED = (pytest.mark.cosim, pytest.mark.xdist_group("driver-simulated"))


def connecting(kind: str) -> Iterator[Callable[[HeadParams], Driver]]:
    """Function that gives a driver of a fresh device; all are closed at the end."""
    drivers: list[Driver] = []

    def make(params: HeadParams) -> Driver:
        drivers.append(Driver(MAKERS[kind](params), params))
        return drivers[-1]

    yield make
    for driver in drivers:
        driver.close()


@pytest.fixture(params=[*MODELS, pytest.param("simulated", marks=SIMULATED)])
def connect(request):
    """Devices of every kind."""
    yield from connecting(request.param)


@pytest.fixture(params=MODELS)
def connect_model(request):
    """Devices of models, whose shape costs nothing."""
    yield from connecting(request.param)


class Oracle:
    """What the device must answer, from the models of its heads and the accumulator's reference."""

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        self.heads = [FunctionalHead(analog(params)) for _ in range(params.heads)]
        self.before = [nothing(params)] * params.heads
        self.levels = ((80, 160, 40, 20), (40, 80, 160, 20))
        self.trims = np.zeros((params.heads, params.lanes), dtype=int)

    def write(self, k, v) -> None:
        k, v = (np.reshape(codes, (self.params.heads, -1)) for codes in (k, v))
        for head, model in enumerate(self.heads):
            model.write(k[head], v[head])

    def flush(self) -> None:
        for model in self.heads:
            model.flush()

    def shot(self, q, shot: Shot) -> np.ndarray:
        results = []
        for head, model in enumerate(self.heads):
            raw = model.query(
                np.reshape(q, (self.params.heads, -1))[head],
                s_level=self.levels[0][shot.s_gain],
                a_level=self.levels[1][shot.a_gain],
            )
            self.before[head] = combine(
                self.params,
                raw.sums.tolist(),
                raw.full_scale.tolist(),
                shot=shot,
                trims=self.trims[head].tolist(),
                before=self.before[head],
            )
            results.append(self.before[head].results)
        return np.array(results)

    def query(self, q) -> np.ndarray:
        sums = self.shot(q, Shot())
        return sums if self.params.heads > 1 else sums[0]


class Codes:
    """Random codes of a device."""

    def __init__(self, params: HeadParams, seed: int) -> None:
        self.params, self.rng = params, np.random.default_rng(seed)
        self.axes = (params.heads,) if params.heads > 1 else ()

    def k(self, *more: int) -> np.ndarray:
        return self.rng.integers(0, 2**self.params.kv_bits, (*more, *self.axes, self.params.rows))

    def v(self, *more: int) -> np.ndarray:
        return self.rng.integers(0, 2**self.params.kv_bits, (*more, *self.axes, self.params.lanes))

    def q(self, *more: int) -> np.ndarray:
        return self.rng.integers(0, 2**self.params.q_bits, (*more, *self.axes, self.params.rows))

    def grouped(self, g: int) -> np.ndarray:
        shape = (self.params.heads * g, self.params.rows)
        return self.rng.integers(0, 2**self.params.q_bits, shape)


SHAPES = pytest.mark.parametrize(
    "params", [TINY, LAYER, PLAIN], ids=["tiny", "tiny-layer", "plain"]
)


# --- packets -----------------------------------------------------------------------------------
@SHAPES
def test_random_packets(connect, params):
    driver, oracle, codes = connect(params), Oracle(params), Codes(params, 1)
    written = answered = 0
    for _ in range(60):
        command = codes.rng.choice(["write", "query", "both", "flush"], p=[0.3, 0.3, 0.35, 0.05])
        k, v, q = codes.k(), codes.v(), codes.q()
        if command == "flush":
            driver.flush()
            oracle.flush()
            written = 0
            continue
        if command in ("write", "both"):
            oracle.write(k, v)
            written += 1
        if command == "write":
            driver.write(k, v)
        elif not written:
            with pytest.raises(EmptyWindow):
                driver.query(q)
        else:
            got = driver.query(q) if command == "query" else driver.write_query(k, v, q)
            assert got.tolist() == oracle.query(q).tolist()
            assert got.dtype == np.int64
            answered += 1
        assert driver.status().occupancy == min(written, params.window)
    assert written > params.window and answered > 20


@SHAPES
def test_a_sequence(connect, params):
    driver, oracle, codes = connect(params), Oracle(params), Codes(params, 2)
    tokens = 3 * params.window + 1
    q, k, v = codes.q(tokens), codes.k(tokens), codes.v(tokens)
    seen: list[int] = []
    sums = driver.attend(q, k, v, progress=seen.append)
    expected = []
    for token in range(tokens):
        oracle.write(k[token], v[token])
        expected.append(oracle.query(q[token]))
    assert (sums == np.array(expected)).all()
    assert np.ptp(sums) > 8
    assert seen == list(range(1, tokens + 1))
    # Again, onto the window as it is; and again from its beginning.
    more = driver.attend(q[:3], k[:3], v[:3], restart=False)
    for token in range(3):
        oracle.write(k[token], v[token])
        assert more[token].tolist() == oracle.query(q[token]).tolist()
    assert (driver.attend(q[:9], k[:9], v[:9]) == sums[:9]).all()


@SHAPES
def test_grouped_queries(connect, params):
    driver, oracle, codes = connect(params), Oracle(params), Codes(params, 3)
    for _ in range(params.window):
        k, v = codes.k(), codes.v()
        driver.write(k, v)
        oracle.write(k, v)
    g = 3
    q = codes.grouped(g)
    expected = [oracle.query(q.reshape(params.heads, g, -1)[:, one]) for one in range(g)]
    got = driver.query(q)
    assert got.shape == (params.heads * g, params.lanes)
    by_pass = got.reshape(params.heads, g, -1).swapaxes(0, 1)
    assert (by_pass.reshape(np.shape(expected)) == expected).all()
    # The token is written once, before the first pass.
    k, v = codes.k(), codes.v()
    oracle.write(k, v)
    expected = [oracle.query(q.reshape(params.heads, g, -1)[:, one]) for one in range(g)]
    by_pass = driver.write_query(k, v, q).reshape(params.heads, g, -1).swapaxes(0, 1)
    assert (by_pass.reshape(np.shape(expected)) == expected).all()
    assert driver.counters().tokens == params.window + 1
    assert driver.counters().queries == 2 * g


@pytest.mark.parametrize("params", [TINY, LAYER], ids=["tiny", "tiny-layer"])
def test_shots(connect, params):
    driver, oracle, codes = connect(params), Oracle(params), Codes(params, 4)
    for _ in range(params.window):
        k, v = codes.k(), codes.v()
        driver.write(k, v)
        oracle.write(k, v)
    heads, rows = params.heads, params.rows
    saturated = 0
    for _ in range(30):
        count = int(codes.rng.integers(1, 5))
        plan = [
            Shot(
                s_gain=int(codes.rng.integers(4)),
                a_gain=int(codes.rng.integers(4)),
                shift=int(codes.rng.integers(4)),
                accumulate=bool(codes.rng.integers(2)),
            )
            for _ in range(count)
        ]
        q = codes.rng.integers(0, 16, (count, heads, rows))
        driver.submit(q, shots=plan)
        result = driver.collect()
        for number, shot in enumerate(plan):
            shot = dataclasses.replace(shot, accumulate=shot.accumulate or number > 0)
            expected = oracle.shot(q[number], shot)
        assert result.sums.tolist() == expected.tolist()
        assert result.full_scale.tolist() == [any(one.full_scale) for one in oracle.before]
        assert result.saturated.tolist() == [one.saturated for one in oracle.before]
        saturated += int(result.saturated.sum())
    assert driver.counters().queries > 30
    assert driver.counters().saturated_total == saturated


def test_the_same_query_in_every_shot(connect):
    driver, codes = connect(TINY), Codes(TINY, 5)
    driver.write(codes.k(), codes.v())
    q = codes.q()
    one = driver.query(q)
    assert one.any()
    assert (
        driver.query(q, shots=[Shot(shift=3), Shot(shift=1), Shot()]).tolist()
        == (11 * one).tolist()
    )
    assert driver.query(q, shots=Shot(accumulate=True)).tolist() == (12 * one).tolist()


def test_many_queries_under_way(connect):
    driver, oracle, codes = connect(LAYER), Oracle(LAYER), Codes(LAYER, 6)
    driver.credit = 5
    expected = []
    for _ in range(25):
        k, v, q = codes.k(), codes.v(), codes.q()
        driver.submit(q, k=k, v=v)
        oracle.write(k, v)
        expected.append(oracle.query(q).tolist())
    assert driver.uncollected == 25
    with pytest.raises(DriverError, match="25 results wait"):
        driver.query(codes.q())
    assert [driver.collect().sums.tolist() for _ in range(25)] == expected
    with pytest.raises(DriverError, match="nothing has been submitted"):
        driver.collect()


def test_a_refused_query_does_not_disturb_others(connect):
    driver, codes = connect(TINY), Codes(TINY, 7)
    q = codes.q()
    driver.submit(q)
    driver.submit(q, k=codes.k(), v=codes.v())
    driver.submit(q, shots=[Shot(), Shot()])
    with pytest.raises(EmptyWindow) as error:
        driver.collect()
    assert error.value.kind is PacketError.EMPTY and error.value.head == 0
    one = driver.collect().sums
    assert driver.collect().sums.tolist() == (2 * one).tolist()
    # Both passes of a shot are refused, and said once.
    driver.flush()
    with pytest.raises(EmptyWindow):
        driver.query(q, shots=[Shot(), Shot()])
    assert driver.write_query(codes.k(), codes.v(), q).shape == (4,)
    assert driver.counters().empty_errors == 3


# --- registers ---------------------------------------------------------------------------------
@SHAPES
def test_identity(connect, params):
    identity = connect(params).identify()
    assert identity.name == "GCA1"
    assert identity.config_hash == params.config_hash[:8]
    assert identity.shape["heads"] == params.heads
    assert identity.shape["lanes"] == params.lanes
    assert identity.latency_clk > identity.query_latency_clk > 0


def test_another_configuration_is_refused(connect):
    driver = connect(TINY)
    other = dataclasses.replace(TINY, lanes=5, shots=False)
    with pytest.raises(DeviceMismatch, match=r"lanes is 4, not 5") as error:
        Driver(driver._backend, other)
    assert "shots is 1, not 0" in str(error.value)
    assert TINY.config_hash[:8] in str(error.value) and other.config_hash[:8] in str(error.value)


def test_settings(connect):
    driver = connect(TINY)
    assert driver.settings() == {
        "enable": 1,
        "age_mask": 0,
        "refresh_enable": 0,
        "write_clk": 4,
        "guard_clk": 1,
        "s_levels": (80, 160, 40, 20),
        "a_levels": (40, 80, 160, 20),
        "sinks": 0,
        "age_budget": 15,
        "age_tick_clk": 1024,
        "refresh_period_clk": 1024,
    }
    changes = {
        "write_clk": 2,
        "s_levels": (70, 60, 50, 40),
        "sinks": 2,
        "age_tick_clk": 2**32,
        "age_budget": 3,
    }
    driver.configure(**changes)
    assert changes.items() <= driver.settings().items()
    driver.soft_reset()
    assert driver.settings()["s_levels"] == (80, 160, 40, 20)
    assert not driver.status().pending


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"write_clk": 9}, ValueError, "write_clk must be in 1..7, not 9"),
        ({"guard_clk": 0}, ValueError, "guard_clk must be in 1..15, not 0"),
        ({"guard_clk": 1.0}, TypeError, "guard_clk must be an int, not 1.0"),
        ({"s_levels": (1, 2, 3)}, ValueError, r"s_levels must hold 4 levels, not \(1, 2, 3\)"),
        ({"a_levels": (1, 2, 0, 3)}, ValueError, "a_levels must be in 1..255, not 0"),
        ({"a_levels": 5}, ValueError, "a_levels must hold 4 levels, not 5"),
        ({"sinks": 4}, ValueError, "sinks must be in 0..3, not 4"),
        ({"age_tick_clk": 0}, ValueError, "age_tick_clk must be in 1..4294967296, not 0"),
        ({"refresh_period_clk": 63}, ValueError, "refresh_period_clk must be in 64..4294967295"),
        ({"tempo": 3}, ValueError, "setting must be one of enable, .*, not 'tempo'"),
    ],
)
def test_a_wrong_setting_changes_nothing(connect, settings, error, message):
    driver = connect(TINY)
    before = driver.settings()
    with pytest.raises(error, match=message):
        driver.configure(age_budget=7, **settings)
    assert driver.settings() == before


def test_settings_of_absent_features_are_unknown(connect):
    driver = connect(PLAIN)
    names = ["enable", "write_clk", "guard_clk", "s_levels", "a_levels"]
    assert list(driver.settings()) == names
    for name in ("sinks", "age_budget", "refresh_enable"):
        with pytest.raises(ValueError, match=f"one of {', '.join(names)}, not '{name}'"):
            driver.configure(**{name: 0})
    with pytest.raises(ValueError, match="s_levels must hold 1 levels"):
        driver.configure(s_levels=(80, 160, 40, 20))
    for attempt in (
        lambda: driver.set_trim([0] * 4),
        lambda: driver.self_test([0] * 4, 0),
        lambda: driver.query([1] * 4, shots=Shot(shift=1)),
        lambda: driver.calibrate(),
    ):
        with pytest.raises(ValueError, match="on a device"):
            attempt()


def test_levels_and_gain_codes(connect):
    driver, oracle, codes = connect(TINY), Oracle(TINY), Codes(TINY, 8)
    oracle.levels = ((33, 99, 255, 61), (40, 80, 160, 255))
    driver.configure(s_levels=oracle.levels[0], a_levels=list(oracle.levels[1]))
    for _ in range(3):
        k, v = codes.k(), codes.v()
        driver.write(k, v)
        oracle.write(k, v)
    results = set()
    for s_gain in range(4):
        for a_gain in range(4):
            q, shot = codes.q(), Shot(s_gain=s_gain, a_gain=a_gain)
            got = driver.query(q, shots=shot)
            assert [got.tolist()] == oracle.shot(q, shot).tolist()
            results.add(tuple(got))
    assert len(results) > 8


def test_sinks_stay(connect):
    driver, oracle, codes = connect(TINY), Oracle(TINY), Codes(TINY, 9)
    driver.configure(sinks=2)
    driver.write(codes.k(), codes.v())
    driver.configure(sinks=3)  # not before the window is empty
    driver.flush()
    for model in oracle.heads:
        model.sinks = 3
    oracle.flush()
    for _ in range(2 * TINY.window):
        k, v, q = codes.k(), codes.v(), codes.q()
        oracle.write(k, v)
        assert driver.write_query(k, v, q).tolist() == oracle.query(q).tolist()
    status = driver.status()
    assert TINY.columns * status.subtile + status.column == oracle.heads[0].pointer
    assert status.occupancy == TINY.window


@pytest.mark.parametrize("params", [TINY, LAYER], ids=["tiny", "tiny-layer"])
def test_trims(connect, params):
    driver, oracle, codes = connect(params), Oracle(params), Codes(params, 10)
    axes = (params.heads, params.lanes) if params.heads > 1 else (params.lanes,)
    limit = 2 ** (params.trim_bits - 1)
    trims = codes.rng.integers(-limit, limit, axes)
    trims.flat[:2] = -limit, limit - 1
    assert not driver.trim().any()
    driver.set_trim(trims)
    assert driver.trim().tolist() == trims.tolist()
    oracle.trims = trims.reshape(params.heads, params.lanes)
    k, v, q = codes.k(), codes.v(), codes.q()
    oracle.write(k, v)
    assert driver.write_query(k, v, q).tolist() == oracle.query(q).tolist()
    driver.soft_reset()
    assert driver.trim().tolist() == trims.tolist(), "a trim is no setting"
    with pytest.raises(ValueError, match=f"trims must be in -{limit}..{limit - 1}, not {limit}"):
        driver.set_trim(np.full(axes, limit))
    with pytest.raises(ValueError, match="trims must have shape"):
        driver.set_trim(trims[..., :-1])


@pytest.mark.parametrize("params", [TINY, LAYER], ids=["tiny", "tiny-layer"])
def test_self_test(connect, params):
    driver, oracle, codes = connect(params), Oracle(params), Codes(params, 11)
    for _ in range(params.window):
        k, v = codes.k(), codes.v()
        driver.write(k, v)
        oracle.write(k, v)
    held = driver.query(codes.q())
    trims = np.full((params.heads, params.lanes), 2)
    driver.set_trim(trims if params.heads > 1 else trims[0])
    counters = driver.counters()
    seen = False
    for subtile in range(params.subtiles):
        for s_gain, a_gain in ((0, 0), (3, 1)):
            q = codes.q()
            got = driver.self_test(q, subtile, s_gain=s_gain, a_gain=a_gain)
            raw = [
                model.query(
                    codes_of_head,
                    s_level=oracle.levels[0][s_gain],
                    a_level=oracle.levels[1][a_gain],
                    subtile=subtile,
                ).sums
                for model, codes_of_head in zip(
                    oracle.heads, np.reshape(q, (params.heads, -1)), strict=True
                )
            ]
            assert got.reshape(params.heads, -1).tolist() == np.array(raw).tolist()
            seen |= got.any()
    assert seen
    after = driver.counters()
    assert (after.queries, after.tokens) == (counters.queries, counters.tokens)
    assert driver.settings()["enable"] == 1
    # The result before is still there to be accumulated onto.
    nothing_q = np.zeros_like(codes.q())
    got = driver.query(nothing_q, shots=Shot(accumulate=True))
    oracle.trims = trims
    oracle.before = [
        nothing(params)._replace(results=tuple(row))
        for row in held.reshape(params.heads, -1).tolist()
    ]
    expected = oracle.shot(nothing_q, Shot(accumulate=True))
    assert got.reshape(params.heads, -1).tolist() == expected.tolist()


def test_an_argument_of_the_self_test_is_checked(connect):
    driver = connect(TINY)
    with pytest.raises(ValueError, match=r"test.subtile must be in 0..1, not 2"):
        driver.self_test([0] * 4, 2)
    with pytest.raises(ValueError, match=r"q_codes must be in 0..15, not 16"):
        driver.self_test([16] * 4, 0)
    with pytest.raises(ValueError, match=r"test.a_gain must be in 0..3, not 4"):
        driver.self_test([1] * 4, 0, a_gain=4)


def test_events_and_interrupt(connect):
    driver, codes = connect(TINY), Codes(TINY, 12)
    assert driver.events() == frozenset() and not driver.irq
    driver.interrupt_on("empty", "saturated")
    with pytest.raises(EmptyWindow):
        driver.query(codes.q())
    assert driver.events() == {"empty"} and driver.irq
    driver.interrupt_on("saturated")
    assert not driver.irq
    driver.interrupt_on("empty")
    driver.clear_events("code", "length")
    assert driver.irq
    driver.clear_events("empty")
    assert driver.events() == frozenset() and not driver.irq
    with pytest.raises(ValueError, match=r"event must be one of command, .*, not 'fire'"):
        driver.interrupt_on("fire")
    with pytest.raises(EmptyWindow):
        driver.query(codes.q())
    driver.interrupt_on()
    assert driver.events() and not driver.irq
    driver.clear_events()
    assert not driver.events()
    assert driver.counters().empty_errors == 2
    driver.clear_counters()
    assert driver.counters().refused == 0


def test_soft_reset_forgets(connect):
    driver, codes = connect(TINY), Codes(TINY, 13)
    driver.attend(codes.q(10), codes.k(10), codes.v(10))
    driver.submit(codes.q())  # its answer can still be collected
    driver.soft_reset()
    assert driver.collect().sums.shape == (4,)
    driver.wait_idle()
    status, counters = driver.status(), driver.counters()
    assert (status.occupancy, status.subtile, status.column) == (0, 0, 0)
    assert counters.tokens == counters.queries == counters.refused == 0
    with pytest.raises(EmptyWindow):
        driver.query(codes.q())
    # No shot is left that could be accumulated onto.
    k, v, q = codes.k(), codes.v(), codes.q()
    assert (
        driver.write_query(k, v, q, shots=Shot(accumulate=True)).tolist()
        == driver.query(q).tolist()
    )


def test_counters(connect):
    driver, codes = connect(TINY), Codes(TINY, 14)
    driver.attend(codes.q(10), codes.k(10), codes.v(10))
    driver.write(codes.k(), codes.v())
    driver.wait_idle()
    counters = driver.counters()
    assert isinstance(counters, Counters)
    assert (counters.tokens, counters.queries, counters.refused) == (11, 10, 0)


# --- what a host may do wrong ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("do", "error", "message"),
    [
        (lambda d: d.write([0] * 3, [0] * 4), ValueError, r"k must have shape \(4,\), not \(3,\)"),
        (lambda d: d.write([0] * 4, [8] * 4), ValueError, r"v must be in 0..7, not 8"),
        (lambda d: d.write([0.0] * 4, [0] * 4), TypeError, "k must be integers"),
        (lambda d: d.query([-1] * 4), ValueError, r"q must be in 0..15, not -1"),
        (lambda d: d.query([[0] * 5]), ValueError, r"q must have shape \(rows,\), .*not \(1, 5\)"),
        (lambda d: d.query([True] * 4), TypeError, "q must be integers, not dtype 'bool'"),
        (lambda d: d.query([1] * 4, shots=[]), TypeError, "shots must be a Shot or a sequence"),
        (
            lambda d: d.query([1] * 4, shots=Shot(hold=True)),
            ValueError,
            "shots must not ask for hold",
        ),
        (
            lambda d: d.query(np.zeros((3, 1, 4), int), shots=[Shot(), Shot()]),
            ValueError,
            r"2 shots, not \(3, 1, 4\)",
        ),
        (lambda d: d.submit([1] * 4, k=[0] * 4), ValueError, "k and v must be given together"),
        (lambda d: d.attend([], [], []), ValueError, "one or more tokens"),
        (
            lambda d: d.attend([[1] * 4] * 2, [[1] * 4], [[1] * 4]),
            ValueError,
            "as many each, not 2, 1 and 1",
        ),
    ],
)
def test_wrong_arguments_send_nothing(connect, do, error, message):
    driver = connect(TINY)
    with pytest.raises(error, match=message):
        do(driver)
    assert driver.counters().refused == 0
    assert driver.status().occupancy == 0
    with pytest.raises(EmptyWindow):
        driver.query([1] * 4)


def test_queries_of_a_layer_come_in_whole_groups(connect):
    driver = connect(LAYER)
    for shape in ((4,), (4, 4), (3, 5), (0, 4)):
        with pytest.raises(ValueError, match=r"q must have shape \(heads \* g, rows\)"):
            driver.query(np.ones(shape, dtype=int))
    with pytest.raises(ValueError, match=r"k must have shape \(3, 4\), not \(4,\)"):
        driver.write([0] * 4, [0] * 4)


def test_registers_refuse(connect):
    driver = connect(TINY)
    backend = driver._backend
    id_, control = driver.registers["id"].offset, driver.registers["control"].offset
    with pytest.raises(RegisterError):
        backend.write_register(id_, 0)
    with pytest.raises(RegisterError):
        backend.write_register(control, 1 << 20)
    with pytest.raises(RegisterError):
        backend.read_register(0x3F0)
    with pytest.raises(RegisterError):
        backend.write_register(0x3F0, 0)
    with pytest.raises(RegisterError):  # packets are taken
        driver.write_fields("test_q", 0, code=1)
    with pytest.raises(ValueError, match=r"phases.write_clk must be in 1..7, not 0"):
        driver.write_fields("phases", write_clk=0)
    assert driver.settings()["enable"] == 1


def raw(params: HeadParams, command: Command, tag: int, seed: int = 0, **change) -> list[int]:
    """Beats of a packet as the driver would not send it."""
    codes = Codes(dataclasses.replace(params, heads=1), seed)
    given = {"k": codes.k(), "v": codes.v(), "q": codes.q()}
    wanted = {"k": command.writes, "v": command.writes, "q": command.queries}
    beats = token_beats(
        params, command, tag, **{n: given[n].tolist() for n in wanted if wanted[n]}, **change
    )
    return beats


def test_refused_packets_are_told_apart(connect):
    driver = connect(TINY)
    codes = Codes(TINY, 15)
    driver.write(codes.k(), codes.v())
    good = raw(TINY, Command.QUERY, 0)
    bad = {
        PacketError.COMMAND: [good[0] & ~0xFF | 0x82, *good[1:]],
        PacketError.LENGTH: [*good, 0],
        PacketError.CODE: [raw(TINY, Command.WRITE_QUERY, 0)[0], 0xFFFF, *good[1:], *good[1:]],
    }
    for kind, beats in bad.items():
        # The driver believes that it has sent a query of its own, and this one went instead.
        sent, driver._backend.send_packet = driver._backend.send_packet, lambda head, beats: None
        driver.submit(codes.q())
        driver._backend.send_packet = sent
        tag = driver._steps[0].tag
        driver._backend.send_packet(0, [beats[0] | tag << 8, *beats[1:]])
        with pytest.raises(PacketRefused, match=f"packet {tag}: {kind.name}") as error:
            driver.collect()
        assert error.value.kind is kind
        assert not isinstance(error.value, EmptyWindow)
    assert driver.query(codes.q()).shape == (4,)
    counters = driver.counters()
    assert (counters.command_errors, counters.length_errors, counters.code_errors) == (1, 1, 1)
    assert driver.events() >= {"command", "length", "code"}


def test_a_step_is_refused_as_a_whole(connect):
    driver, codes = connect(LAYER), Codes(LAYER, 16)
    driver.write(codes.k(), codes.v())
    good = [raw(LAYER, Command.WRITE_QUERY, 1, seed) for seed in range(3)]
    late = raw(LAYER, Command.WRITE_QUERY, 2)
    short = good[1][:-1]
    for packets, errors, counted in (
        ([good[0], short, good[2]], ["STEP", "LENGTH", "STEP"], "length_errors"),
        ([good[0], good[1], late], ["STEP", "STEP", "STEP"], "step_errors"),
    ):
        for head, beats in enumerate(packets):
            driver._backend.send_packet(head, beats)
        for head, error in enumerate(errors):
            header, *rest = driver._backend.receive_packet(head, 1.0)
            assert not rest
            assert header == 1 | (packets[head][0] & 0xFFFF00) | PacketError[error] << 24
        assert getattr(driver.counters(), counted) == 1
    assert driver.counters().tokens == 1
    assert driver.query(codes.q()).shape == (3, 4)


# --- answers that are not as they must be ------------------------------------------------------
class Tampered(FunctionalBackend):
    """A device whose result packets pass through a function first."""

    def __init__(self, params: HeadParams, change) -> None:
        super().__init__(params, analog(params))
        self.change = change

    def receive_packet(self, head: int, timeout_s: float) -> list[int]:
        return self.change(super().receive_packet(head, timeout_s))


def test_a_wrong_answer_is_none():
    answer = Answer(tag=9, error=PacketError.NONE, full_scale=False, sums=(1, 2, 3, 4))
    codes = Codes(TINY, 17)
    for change, message in (
        (lambda beats: answer_beats(TINY, answer), "packet 1 is answered next, not 9"),
        (lambda beats: beats[:-1], "head 0: result packet must have 3 beats, not 2"),
        (lambda beats: [beats[0] | 0x77 << 24], "error kind must be in 0..5, not 119"),
        (lambda beats: [], "result packet must have a header"),
    ):
        with Driver(Tampered(TINY, change), TINY) as driver:
            driver.write(codes.k(), codes.v())
            with pytest.raises(AnswerMismatch, match=message):
                driver.query(codes.q())
            with pytest.raises(DriverError, match=r"out of step, recover first: .*"):
                driver.query(codes.q())
            with pytest.raises(DriverError, match="out of step"):
                driver.write(codes.k(), codes.v())
            driver._backend.change = lambda beats: beats
            driver.recover()
            assert driver.status().occupancy == 0
            driver.write_query(codes.k(), codes.v(), codes.q())


def test_heads_that_answer_different_packets():
    heads = iter(range(9))

    def change(beats: list[int]) -> list[int]:
        return [beats[0] ^ (next(heads) == 1) << 8, *beats[1:]]

    with Driver(Tampered(LAYER, change), LAYER) as driver:
        codes = Codes(LAYER, 18)
        with pytest.raises(AnswerMismatch, match=r"same packet, not \[0, 1\]"):
            driver.write_query(codes.k(), codes.v(), codes.q())


def test_an_answer_that_is_not_owed(connect):
    driver, codes = connect(TINY), Codes(TINY, 19)
    driver.write(codes.k(), codes.v())
    driver._backend.send_packet(0, raw(TINY, Command.QUERY, 77))
    with pytest.raises(AnswerMismatch, match="packet 1 is answered next, not 77"):
        driver.query(codes.q())
    driver.recover()
    with pytest.raises(EmptyWindow):
        driver.query(codes.q())


def test_an_answer_that_does_not_come_can_be_asked_for_again(connect):
    driver, codes = connect(TINY), Codes(TINY, 20)
    driver.write(codes.k(), codes.v())
    expected = driver.query(q := codes.q())
    driver.configure(enable=0)  # packets are not taken
    driver.submit(q)
    for _ in range(2):
        with pytest.raises(Timeout, match="head 0"):
            driver.collect(timeout_s=0.02)
    driver.configure(enable=1)
    assert driver.collect().sums.tolist() == expected.tolist()


def test_tags_come_around(connect_model):
    params = dataclasses.replace(TINY, tag_bits=2)
    driver, oracle, codes = connect_model(params), Oracle(params), Codes(params, 21)
    assert driver.credit == 4
    plan = [Shot(), Shot(shift=1), Shot(shift=2)]
    expected = []
    for _ in range(9):
        k, v, q = codes.k(), codes.v(), codes.q()
        driver.submit(q, k=k, v=v, shots=plan)
        oracle.write(k, v)
        for number, shot in enumerate(plan):
            sums = oracle.shot(q, dataclasses.replace(shot, accumulate=number > 0))
        expected.append(sums[0].tolist())
    assert [driver.collect().sums.tolist() for _ in range(9)] == expected
    with pytest.raises(ValueError, match="shots must be at most 3, fewer than tags, not 4"):
        driver.query(codes.q(), shots=[Shot()] * 4)


# --- the driver itself -------------------------------------------------------------------------
def test_a_driver_closes_its_device():
    closed = []

    class Watched(FunctionalBackend):
        def close(self) -> None:
            closed.append(self.params)

    with pytest.raises(ZeroDivisionError), Driver(Watched(TINY), TINY):
        raise ZeroDivisionError
    assert closed == [TINY]
    with pytest.raises(DeviceMismatch):
        Driver(Watched(LAYER), TINY)
    assert closed == [TINY, LAYER]


def test_what_is_no_head_is_refused():
    class Memory(FunctionalBackend):
        def read_register(self, address: int) -> int:
            return 0xDEADBEEF

    with pytest.raises(DeviceMismatch, match="identity must be 0x47434131, not 0xdeadbeef"):
        Driver(Memory(TINY), TINY)

    class Newer(FunctionalBackend):
        def read_register(self, address: int) -> int:
            return 9 << 16 if address == 4 else super().read_register(address)

    with pytest.raises(DeviceMismatch, match=r"must be of version 1, not 9\.0"):
        Driver(Newer(TINY), TINY)

    class Mute(FunctionalBackend):
        def read_register(self, address: int) -> int:
            raise RegisterError("reading was refused")

    with pytest.raises(DeviceMismatch, match="no identity"):
        Driver(Mute(TINY), TINY)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"credit": 0}, ValueError, "credit must be at least 1, not 0"),
        ({"credit": 1.5}, TypeError, "credit must be an int or None, not 1.5"),
        ({"params": None}, TypeError, "params must be HeadParams, not None"),
    ],
)
def test_arguments_of_the_driver(arguments, error, message):
    with pytest.raises(error, match=message):
        Driver(FunctionalBackend(TINY), **{"params": TINY, **arguments})


def test_the_models_must_have_the_heads_shape():
    with pytest.raises(ValueError, match=r"analog.lanes must be 4, as the head's, not 64"):
        FunctionalBackend(TINY, AnalogParams.matching(dataclasses.replace(TINY, lanes=64)))


def test_a_link_that_breaks_is_said_and_recovers():
    served = device(TINY)
    cut = False

    def feed(data: bytes) -> bytes:
        return b"" if cut else served.feed(data)

    codes = Codes(TINY, 22)
    backend = ByteStreamBackend(CallTransport(feed), retries=2, retry_s=0.01)
    with Driver(backend, TINY) as driver:
        driver.write(codes.k(), codes.v())
        cut = True
        with pytest.raises(LinkError, match="no response to"):
            driver.query(codes.q())
        with pytest.raises(DriverError, match="recover"):
            driver.query(codes.q())
        with pytest.raises(LinkError):
            driver.recover()
        cut = False
        driver.recover()
        with pytest.raises(EmptyWindow):
            driver.query(codes.q())
