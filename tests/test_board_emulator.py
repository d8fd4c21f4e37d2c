"""Emulated arrays: integers against the reference, cycles against a head that never stalls."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from amaranth.hdl import Const, EnableInserter, Module
from amaranth.sim import Simulator

from analog_models import AnalogParams
from boards.emulator import ArrayEmulator
from boards.params import BoardParams, EmulatorParams, Leak
from hw.layer import AttentionLayer
from hw.packet import Command, PacketError, Shot, parse_answer, token_beats
from hw.params import HeadParams
from hw.presets import PRESETS
from sim.board_params import emulator_params, integer_currents, leak_of
from sim.driver.emulated import EmulatedBackend
from sim.driver.errors import Timeout
from sim.emulation import compare
from sim.reference.emulator import ArrayReference
from sim.tokens import TokenSource

#: A head of its own for every way in which the emulator can differ.
HEADS = {
    "streaming, every feature": PRESETS["tiny"],
    "one packet at a time": HeadParams(subtiles=2, columns=4, rows=4, lanes=4, bus_bits=32),
    "sub-tiles and columns no powers of two": HeadParams(
        subtiles=3, columns=3, rows=5, lanes=7, bus_bits=32, schedule="streaming", shots=True
    ),
    "counts of another width": HeadParams(
        subtiles=2, columns=3, rows=4, lanes=3, q_bits=3, kv_bits=2, count_bits=5, write_clk=3,
        guard_clk=2, bus_bits=32, schedule="streaming",
    ),
    "one sub-tile": HeadParams(subtiles=1, columns=5, rows=3, lanes=2, bus_bits=32),
}  # fmt: skip
CONTROL = (
    "ana_k_write", "ana_v_write", "ana_subtile_select", "ana_column_select", "ana_q_pulse",
    "ana_scores_reset", "ana_integrate", "ana_column_mask", "ana_outputs_reset", "ana_convert",
    "ana_readout", "ana_k_code", "ana_v_code", "ana_s_level", "ana_a_level",
    "s_axis_tready", "m_axis_tvalid",
)  # fmt: skip


def each_head():
    return pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())


@dataclass
class Run:
    """What a head did, in its own clocks."""

    cycles: list[tuple[int, ...]]  #: control lines of every clock
    beats: list[tuple[int, int]]  #: results, and whether each ends a packet
    most_clk: int  #: clocks that one of the head's took

    @property
    def packets(self) -> list[list[int]]:
        """Beats of each result packet."""
        packets: list[list[int]] = [[]]
        for beat, last in self.beats:
            packets[-1].append(beat)
            if last:
                packets.append([])
        return packets[:-1]


def packets_of(head: HeadParams, count: int, seed: int) -> list[list[int]]:
    """Packets that write, query, do both, and flush."""
    rng = random.Random(seed)
    packets = []
    for tag in range(count):
        weights = (8, 4, 2, 1) if tag else (1, 0, 0, 0)
        command = rng.choices(
            (Command.WRITE_QUERY, Command.QUERY, Command.WRITE, Command.FLUSH), weights
        )[0]
        codes = {}
        if command.writes:
            codes["k"] = [rng.randrange(2**head.kv_bits) for _ in range(head.rows)]
            codes["v"] = [rng.randrange(2**head.kv_bits) for _ in range(head.lanes)]
        if command.queries:
            codes["q"] = [rng.randrange(2**head.q_bits) for _ in range(head.rows)]
            if head.shots:
                codes["shot"] = Shot(s_gain=rng.randrange(4), a_gain=rng.randrange(4))
        packets.append(token_beats(head, command, tag % 2**head.tag_bits, **codes))
    return packets


def run(head: HeadParams, packets: list[list[int]], params: EmulatorParams | None) -> Run:
    """Packets through a head, with emulated arrays or with arrays that never pulse."""
    layer = AttentionLayer(head)
    top, step = Module(), Const(1)
    if params is None:
        top.submodules.head = layer
    else:
        top.submodules.emulator = emulator = ArrayEmulator(params)
        step = emulator.step
        top.submodules.head = EnableInserter(step)(layer)
        for port in layer.ports:
            if port.name.startswith("ana_"):
                ends = getattr(emulator, port.name), getattr(layer, port.name)
                out = port.direction == "out"
                top.d.comb += ends[0].eq(ends[1]) if out else ends[1].eq(ends[0])
    lines = [getattr(layer, name) for name in CONTROL]
    beats = [(beat, at == len(packet) - 1) for packet in packets for at, beat in enumerate(packet)]
    done = Run([], [], 0)

    async def bench(ctx):
        ctx.set(layer.m_axis_tready, 1)
        at = quiet = since = 0
        while quiet < 100:
            if at < len(beats):
                ctx.set(layer.s_axis_tdata, beats[at][0])
                ctx.set(layer.s_axis_tlast, beats[at][1])
            ctx.set(layer.s_axis_tvalid, at < len(beats))
            _, _, moved, data, last, idle, *now = await ctx.tick().sample(
                step, layer.m_axis_tdata, layer.m_axis_tlast, layer.idle, *lines
            )
            since += 1
            if not moved:
                continue
            done.most_clk, since = max(done.most_clk, since), 0
            done.cycles.append(tuple(now))
            at += int(now[CONTROL.index("s_axis_tready")] and at < len(beats))
            if now[CONTROL.index("m_axis_tvalid")]:
                done.beats.append((data, last))
            quiet = quiet + 1 if idle and at == len(beats) else 0

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return done


def scaled(head: HeadParams, multipliers: int = 3) -> EmulatorParams:
    """Emulated arrays of cells so strong that a small head's results reach full scale."""
    return dataclasses.replace(
        emulator_params(head, multipliers=multipliers),
        currents=tuple(8 * current for current in integer_currents(head)),
    )


@each_head()
def test_every_answer_is_the_references_and_every_cycle_a_chips(head):
    packets = packets_of(head, 24, seed=1)
    params = scaled(head)
    emulated = run(head, packets, params)
    device = EmulatedBackend(params)
    wanted: list[list[int]] = []
    for packet in packets:
        device.send_packet(0, packet)
        with pytest.raises(Timeout):
            while True:
                wanted.append(device.receive_packet(0, 0.0))
    assert emulated.packets == wanted
    sums = [abs(s) for packet in wanted for s in parse_answer(head, packet).sums]
    assert len(set(sums)) > 6  # more than noise was compared
    free = run(head, packets, None)
    assert emulated.cycles == free.cycles
    # A clock of the head stands for a write, or for a part of a query.
    assert 1 < emulated.most_clk <= params.query_clk


def replayed(params: EmulatorParams, cycles: list[tuple[int, ...]]) -> list[list[int]]:
    """Sums of every query, from the control lines of a head with the simple schedule."""
    head, arrays = params.head, ArrayReference(params)
    clk = params.leak.age_clk
    on, sums = [0] * head.rows, []
    key_time = value_time = 0
    before: dict[str, int] = {}

    def codes(packed: int, count: int) -> list[int]:
        return [packed >> head.kv_bits * i & 2**head.kv_bits - 1 for i in range(count)]

    for number, cycle in enumerate(cycles):
        now, lines = number // clk, dict(zip(CONTROL, cycle, strict=True))
        select = lines["ana_subtile_select"].bit_length() - 1
        column = head.columns * select + lines["ana_column_select"].bit_length() - 1
        if lines["ana_k_write"]:
            arrays.write_key(column, codes(lines["ana_k_code"], head.rows), now)
        if lines["ana_v_write"]:
            arrays.write_value(column, codes(lines["ana_v_code"], head.lanes), now)
        if lines["ana_scores_reset"]:
            on, key_time = [0] * head.rows, now
        if lines["ana_integrate"]:
            on = [time + (lines["ana_q_pulse"] >> row & 1) for row, time in enumerate(on)]
        if lines["ana_outputs_reset"]:
            value_time = now
        if lines["ana_convert"] and not before.get("ana_convert"):
            phis = [
                arrays.phi(arrays.score(at, on, key_time), lines["ana_s_level"])
                * (lines["ana_column_mask"] >> at & 1)
                for at in range(head.window)
            ]
            charges = [
                arrays.output(at, phis[at * head.columns :][: head.columns], value_time)
                for at in range(head.subtiles)
            ]
        if lines["ana_readout"] and not before.get("ana_readout"):
            counts = [[arrays.count(c, lines["ana_a_level"]) for c in row] for row in charges]
            sums.append([sum(lanes) for lanes in zip(*counts, strict=True)])
        before = lines
    return sums


@pytest.mark.parametrize("multipliers", [2, 5])
def test_charge_leaks_with_the_heads_time(multipliers):
    head = HeadParams(subtiles=3, columns=3, rows=5, lanes=4, bus_bits=32)
    leak = leak_of(head, tau_clk=900.0, age_clk=37, steps=40)
    ideal = scaled(head, multipliers)
    strong = tuple(tuple(8 * current for current in row) for row in leak.currents)
    params = dataclasses.replace(ideal, leak=dataclasses.replace(leak, currents=strong))
    packets = packets_of(head, 40, seed=3)
    leaky, fresh = run(head, packets, params), run(head, packets, ideal)
    answers = [parse_answer(head, packet) for packet in leaky.packets]
    got = [list(answer.sums) for answer in answers if answer.error is PacketError.NONE]
    assert got == replayed(params, leaky.cycles)
    assert leaky.packets != fresh.packets
    assert len(leaky.cycles) > 40 * 37  # the oldest step was reached
    assert leaky.most_clk <= params.query_clk


def test_leaking_currents_are_the_cells():
    head = PRESETS["default"]
    leak = leak_of(head, tau_clk=5e6, age_clk=1024, steps=3)
    analog = AnalogParams.matching(head, tau_s=5e-3, clk_ns=1.0, tick_clk=1024)
    for age, row in enumerate(leak.currents, 1):
        wanted = analog.level_currents.at(np.array([age]), np.arange(8)[np.newaxis])[0]
        assert np.abs(np.array(row) - wanted * 2**8).max() <= 0.5


def test_any_number_of_multipliers_gives_the_same():
    head = HEADS["one packet at a time"]
    packets = packets_of(head, 6, seed=2)
    runs = [run(head, packets, scaled(head, multipliers)) for multipliers in (1, 4)]
    assert runs[0].packets == runs[1].packets
    assert runs[0].most_clk > runs[1].most_clk


@pytest.mark.parametrize("s_level", [1, 3, 80, 255])
def test_phi_is_the_nearest(s_level):
    arrays = ArrayReference(emulator_params(PRESETS["default"]))
    p = arrays.params
    for charge in (-5, 0, 1, 127, 128, 1000, 99_999, 15 * s_level * 256 - 1, 15 * s_level * 256):
        exact = Fraction(charge, s_level << p.current_fraction) * 2**p.phi_fraction
        nearest = min(max(0, floor(exact + Fraction(1, 2))), p.phi_max)
        assert arrays.phi(charge, s_level) == nearest


def test_counts_round_half_away_from_zero_and_stop_at_the_limit():
    arrays = ArrayReference(emulator_params(PRESETS["default"]))
    count = 40 << arrays.params.charge_fraction
    for tenths, wanted in ((0, 0), (4, 0), (5, 1), (14, 1), (15, 2), (149, 15), (900, 15)):
        charge = -(-count * tenths // 10)
        assert arrays.count(charge, 40) == wanted
        assert arrays.count(-charge, 40) == -wanted
    assert arrays.count(count // 2 - 1, 40) == 0


def test_real_tokens_are_within_one_count():
    figures = compare(emulator_params(PRESETS["default"]), TokenSource(tokens=70))
    assert figures["counts_compared"] == sum(64 * (1 + token // 64) for token in range(70))
    assert figures["share_within_one"] >= 0.99
    assert figures["share_equal"] > 0.99
    # Coarser arithmetic is further away: the comparison can tell.
    coarse = compare(emulator_params(PRESETS["default"], phi_fraction=0), TokenSource(tokens=24))
    assert coarse["share_equal"] < figures["share_equal"]


def test_widths_hold_the_largest_charges():
    """The worst codes, at every row and column, in the reference's unbounded integers."""
    params = scaled(HEADS["sub-tiles and columns no powers of two"])
    head, arrays = params.head, ArrayReference(params)
    worst = max(range(2**head.kv_bits), key=lambda code: abs(params.currents[code]))
    for column in range(head.window):
        arrays.write_key(column, [worst] * head.rows)
        arrays.write_value(column, [worst] * head.lanes)
    score = arrays.score(0, [params.q_max] * head.rows)
    assert abs(score) < 1 << params.score_bits - 1 <= 2 * abs(score)
    charge = arrays.output(0, [params.phi_max] * head.columns)[0]
    assert abs(charge) < 1 << params.output_bits <= 2 * abs(charge)


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("head", 1, TypeError, "head must be HeadParams, not 1"),
        ("head", PRESETS["tiny-layer"], ValueError, "head.heads must be 1 on a board, not 3"),
        ("currents", [1], TypeError, "currents must be a tuple of ints, not \\[1\\]"),
        ("currents", (1, 2), ValueError, "currents must hold 8 levels, not 2"),
        ("currents", (0,) * 8, ValueError, "currents must not all be zero"),
        ("currents", (2**17,) * 8, ValueError, "currents must be in -131072..131071, not 131072"),
        ("currents", (1.0,) * 8, TypeError, "currents must be an int, not 1.0"),
        ("leak", 1, TypeError, "leak must be Leak or None, not 1"),
        ("leak", Leak(age_clk=1, currents=((1,),)), ValueError, "leak.currents must hold 8 levels"),
        ("phi_fraction", 15, ValueError, "phi_fraction must be in 0..14, not 15"),
        ("current_fraction", True, TypeError, "current_fraction must be an int, not True"),
        ("key_multipliers", 5, ValueError, "key_multipliers must be in 1..4, not 5"),
        ("value_multipliers", 0, ValueError, "value_multipliers must be in 1..4, not 0"),
    ],
)
def test_emulator_parameters_are_checked(field, value, error, message):
    with pytest.raises(error, match=message):
        dataclasses.replace(emulator_params(PRESETS["tiny"]), **{field: value})


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("emulator", 1, TypeError, "emulator must be EmulatorParams, not 1"),
        ("clk_hz", 0, ValueError, "clk_hz must be in 1000..1000000000, not 0"),
        ("baud", 9_000_000, ValueError, "baud must be in 1..8333333, not 9000000"),
        ("baud", 7_000_000, ValueError, "baud must be within 2 % of a whole fraction of clk_hz"),
        ("token_packets", 0, ValueError, "token_packets must be in 1..1024, not 0"),
        ("result_packets", 2.0, TypeError, "result_packets must be an int, not 2.0"),
    ],
)
def test_board_parameters_are_checked(field, value, error, message):
    board = BoardParams(emulator=emulator_params(PRESETS["tiny"]), clk_hz=25_000_000)
    with pytest.raises(error, match=message):
        dataclasses.replace(board, **{field: value})


def test_leaks_are_checked():
    with pytest.raises(ValueError, match=r"age_clk must be in 1..65536, not 0"):
        Leak(age_clk=0, currents=((1,),))
    with pytest.raises(ValueError, match=r"steps of leak.currents must be in 1..1023, not 0"):
        Leak(age_clk=1, currents=())
    with pytest.raises(TypeError, match=r"leak.currents must be a tuple of tuples, not 1"):
        Leak(age_clk=1, currents=1)


def test_every_parameter_changes_the_hash():
    board = BoardParams(emulator=emulator_params(PRESETS["tiny"]), clk_hz=25_000_000)
    others = [
        dataclasses.replace(board, baud=500_000),
        dataclasses.replace(board, emulator=scaled(PRESETS["tiny"])),
        dataclasses.replace(board, result_packets=9),
        dataclasses.replace(
            board,
            emulator=dataclasses.replace(
                board.emulator, leak=Leak(age_clk=1, currents=(board.emulator.currents,))
            ),
        ),
    ]
    assert len({other.config_hash for other in (board, *others)}) == 5
    assert "leak" not in board.as_dict()["emulator"]  # what is absent changes no hash
