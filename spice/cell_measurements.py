"""What is measured of a gain cell, each as decks and the figures that come out of their tables.

Many cells stand in one deck, each with a storage node and a bit line of its own, so that one run
gives a whole table. Currents are positive into the cell: what it takes from the bit line.
Stored voltages start from ``.ic`` and the operating point that follows from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spice.cell import GainCell, add_cell, cell_draws
from spice.netlist import Netlist, pulse_pwl
from spice.ngspice import Deck, Experiment

__all__ = [
    "CELLS_PER_DECK",
    "EDGE_NS",
    "curve",
    "leakage",
    "mismatch",
    "noise",
    "output_conductance",
    "pulses",
    "reads",
    "writes",
]

Floats = NDArray[np.float64]
Tables = Sequence[tuple[Floats, ...]]

CELLS_PER_DECK = 50  #: of cells with drawn mismatch
EDGE_NS = 0.2  #: rise and fall of word lines
_START_NS = 2.0  # of a pulse
_SETTLE_NS = 6.0  # after a pulse
_FINE = ("reltol=1e-4", "abstol=1e-15", "chgtol=1e-18", "gmin=1e-15")
_FINEST = ("reltol=1e-5", "abstol=1e-15", "chgtol=1e-19", "gmin=1e-16")  # charge must not drift
_QUIET = ("gmin=1e-20", "abstol=1e-20", "reltol=1e-4")  # nothing but the devices may leak


def _supplies(netlist: Netlist, cell: GainCell) -> None:
    netlist.voltage("read", "vread", "0", cell.v_read_v)
    netlist.voltage("logic", "vlogic", "0", cell.v_logic_v)
    netlist.voltage("wbl", "wbl", "0", cell.v_mid_v)


def _word_lines(netlist: Netlist, cell: GainCell, *, read: bool, write: bool = False) -> None:
    high = cell.v_logic_v
    for name, on in (("rwl", read), ("wwl", write)):
        netlist.voltage(name, name, "0", high if on else 0.0)
        netlist.voltage(f"{name}b", f"{name}b", "0", 0.0 if on else high)


def curve(
    cell: GainCell,
    *,
    corner: str,
    temperature_c: float,
    v_store_v: tuple[float, float, float],
    v_in_v: Sequence[float],
) -> Experiment:
    """Steady current over the stored voltage, at each voltage of the read word line.

    ``v_store_v`` is the first voltage, the last and the step.

    Figures: ``v_store_v`` (n,), ``v_in_v`` (m,), ``i_ua`` and ``i_read_ua``, the current from the
    read supply, (n, m).
    """
    netlist = Netlist("cell: current over stored and input voltage")
    _supplies(netlist, cell)
    _word_lines(netlist, cell, read=False)
    for i, v_in in enumerate(v_in_v):
        netlist.voltage(f"bl{i}", f"bl{i}", "0", cell.v_bl_v)
        netlist.voltage(f"r{i}", f"rwl{i}", "0", v_in)
        netlist.voltage(f"rb{i}", f"rwlb{i}", "0", cell.v_logic_v - v_in)
        add_cell(netlist, cell, str(i), store="store", bl=f"bl{i}", rwl=f"rwl{i}", rwlb=f"rwlb{i}")
    netlist.voltage("store", "store", "0", cell.level_min_v)
    vectors = tuple(f"i(vbl{i})" for i in range(len(v_in_v)))
    low, high, step = v_store_v
    # Half a step more: rounding must not drop the last.
    analysis = f"dc vstore {low:.6g} {high + step / 2:.6g} {step:.9g}"
    deck = Deck(
        name="curve",
        circuit=netlist.text(corner=corner, temperature_c=temperature_c, options=_FINE),
        analyses=((analysis, vectors),),
    )

    def reduce(tables: Tables) -> dict[str, Any]:
        table = tables[0][0]
        return {
            "v_store_v": table[:, 0],
            "v_in_v": np.asarray(v_in_v, dtype=np.float64),
            "i_ua": -1e6 * table[:, 1:],
        }

    return Experiment(name="current", decks=(deck,), reduce=reduce)


def pulses(
    cell: GainCell,
    *,
    corner: str,
    temperature_c: float,
    v_store_v: Sequence[float],
    pulse_ns: Sequence[float],
) -> Experiment:
    """Charge of one read pulse, what it does to the stored voltage, and what it takes to drive it.

    Figures: ``charge_fc``, ``energy_pj`` (n, pulses): what the cell draws from read supply and bit
    line; ``word_line_pj`` (pulses,): what both word lines take from the logic supply as they
    rise, per cell; ``kickback_v`` and
    ``kickback_kept_v`` (n,): change of the stored voltage late in the longest pulse, and after it.
    """
    stop = _START_NS + max(pulse_ns) + _SETTLE_NS
    decks = []
    for length in pulse_ns:
        netlist = Netlist(f"cell: read pulse of {length:g} ns")
        _supplies(netlist, cell)
        low, high = 0.0, cell.v_logic_v
        netlist.voltage("rwl", "rwl", "0", pulse_pwl(low, high, _START_NS, length, EDGE_NS))
        netlist.voltage("rwlb", "rwlb", "0", pulse_pwl(high, low, _START_NS, length, EDGE_NS))
        netlist.voltage("wwl", "wwl", "0", low)
        netlist.voltage("wwlb", "wwlb", "0", high)
        for i, v_store in enumerate(v_store_v):
            netlist.voltage(f"bl{i}", f"bl{i}", "0", cell.v_bl_v)
            netlist.voltage(f"r{i}", f"r{i}", "0", cell.v_read_v)
            add_cell(netlist, cell, str(i), store=f"s{i}", bl=f"bl{i}", supply=f"r{i}")
            netlist.line(f".ic v(s{i})={v_store:.9g}")
        count = range(len(v_store_v))
        vectors = (
            *(f"i(vbl{i})" for i in count),
            *(f"i(vr{i})" for i in count),
            *(f"v(s{i})" for i in count),
            *("i(vrwl)", "i(vrwlb)"),
        )
        decks.append(
            Deck(
                name=f"pulse of {length:g} ns",
                circuit=netlist.text(corner=corner, temperature_c=temperature_c, options=_FINE),
                analyses=((f"tran 0.02n {stop:g}n 0 0.05n", vectors),),
            )
        )

    def reduce(tables: Tables) -> dict[str, Any]:
        n = len(v_store_v)
        charge, energy, word_line = [], [], []
        for length, (table,) in zip(pulse_ns, tables, strict=True):
            time, bl, supply = table[:, 0], -table[:, 1 : 1 + n], -table[:, 1 + n : 1 + 2 * n]
            charge.append(np.trapezoid(bl, time, axis=0) * 1e15)
            power = bl * cell.v_bl_v + supply * cell.v_read_v
            energy.append(np.trapezoid(power, time, axis=0) * 1e12)
            lines = -table[:, 1 + 3 * n :]
            middle = (_START_NS + length / 2) * 1e-9
            up = np.trapezoid(np.where(time < middle, lines[:, 0], 0.0), time)
            up += np.trapezoid(np.where(time < middle, 0.0, lines[:, 1]), time)
            word_line.append(up * cell.v_logic_v * 1e12 / n)
        longest = int(np.argmax(pulse_ns))
        time = tables[longest][0][:, 0] * 1e9
        stored = tables[longest][0][:, 1 + 2 * n : 1 + 3 * n]
        late = _START_NS + pulse_ns[longest] - 2 * EDGE_NS

        def at(when: float) -> Floats:
            return np.array([np.interp(when, time, stored[:, i]) for i in range(n)])

        before = at(_START_NS / 2)
        return {
            "charge_fc": np.array(charge).T,
            "energy_pj": np.array(energy).T,
            "word_line_pj": np.array(word_line),
            "kickback_v": at(late) - before,
            "kickback_kept_v": at(stop - 0.5) - before,
        }

    return Experiment(name="charge of pulses", decks=tuple(decks), reduce=reduce)


def reads(
    cell: GainCell, *, corner: str, temperature_c: float, pulse_ns: float, number: int
) -> Experiment:
    """What many reads in a row, each of the pulse length given, do to every stored level.

    Figures: ``kept_v`` (levels, number): change of the stored voltage after each read.
    """
    period = pulse_ns + _SETTLE_NS
    stop = _START_NS + number * period
    netlist = Netlist(f"cell: {number} read pulses")
    _supplies(netlist, cell)

    def train(off_v: float, on_v: float) -> list[tuple[float, float]]:
        corners = [(0.0, off_v)]
        for k in range(number):
            start = _START_NS + k * period
            corners += pulse_pwl(off_v, on_v, start, pulse_ns, EDGE_NS)[1:]
        return corners

    netlist.voltage("rwl", "rwl", "0", train(0.0, cell.v_logic_v))
    netlist.voltage("rwlb", "rwlb", "0", train(cell.v_logic_v, 0.0))
    netlist.voltage("wwl", "wwl", "0", 0.0)
    netlist.voltage("wwlb", "wwlb", "0", cell.v_logic_v)
    netlist.voltage("bl", "bl", "0", cell.v_bl_v)
    for code, level in enumerate(cell.levels_v):
        add_cell(netlist, cell, str(code), store=f"s{code}", bl="bl")
        netlist.line(f".ic v(s{code})={level:.9g}")
    count = range(len(cell.levels_v))
    deck = Deck(
        name=f"{number} reads",
        circuit=netlist.text(corner=corner, temperature_c=temperature_c, options=_FINEST),
        analyses=((f"tran 0.02n {stop:g}n 0 0.05n", tuple(f"v(s{i})" for i in count)),),
    )

    def reduce(tables: Tables) -> dict[str, Any]:
        ((table,),) = tables
        ends = _START_NS + np.arange(1, number + 1) * period - 0.5
        when = np.concatenate([[_START_NS / 2], ends])
        stored = np.array([np.interp(when, table[:, 0] * 1e9, table[:, 1 + i]) for i in count])
        return {"kept_v": stored[:, 1:] - stored[:, :1]}

    return Experiment(name="reads", decks=(deck,), reduce=reduce)


def writes(
    cell: GainCell,
    *,
    corner: str,
    temperature_c: float,
    window_ns: float,
    codes: Sequence[int] | None = None,
) -> Experiment:
    """Every level, or those of ``codes``, written over every level.

    Figures: ``write_ns`` (levels, codes), old by new: from the word line's half height until the
    stored voltage stays within half a step of the level; ``written_v``: what is stored when
    the word line is low again, starting from the old level, same shape; ``energy_pj``: what write
    bit line and write word lines take from the logic supply, same shape.
    """
    levels = cell.levels_v
    written = range(len(levels)) if codes is None else codes
    stop = _START_NS + window_ns + _SETTLE_NS
    decks = []
    for new in written:
        level = levels[new]
        netlist = Netlist(f"cell: write of code {new}")
        netlist.voltage("read", "vread", "0", cell.v_read_v)
        netlist.voltage("logic", "vlogic", "0", cell.v_logic_v)
        netlist.voltage("rwl", "rwl", "0", 0.0)
        netlist.voltage("rwlb", "rwlb", "0", cell.v_logic_v)
        netlist.voltage("bl", "bl", "0", cell.v_bl_v)
        high = cell.v_logic_v
        netlist.voltage("wwl", "wwl", "0", pulse_pwl(0.0, high, _START_NS, window_ns, EDGE_NS))
        netlist.voltage("wwlb", "wwlb", "0", pulse_pwl(high, 0.0, _START_NS, window_ns, EDGE_NS))
        for old, start in enumerate(levels):
            # The bit line is at its level before the word line rises, and rests at mid level later.
            course = [
                (0.0, cell.v_mid_v),
                (0.5, cell.v_mid_v),
                (0.5 + EDGE_NS, level),
                (stop - 2.0, level),
                (stop - 2.0 + EDGE_NS, cell.v_mid_v),
            ]
            netlist.voltage(f"w{old}", f"w{old}", "0", course)
            add_cell(netlist, cell, str(old), store=f"s{old}", bl="bl", wbl=f"w{old}")
            netlist.line(f".ic v(s{old})={start:.9g}")
        count = range(len(levels))
        vectors = (
            *(f"v(s{i})" for i in count),
            *(f"i(vw{i})" for i in count),
            *("i(vwwl)", "i(vwwlb)"),
        )
        decks.append(
            Deck(
                name=f"write of code {new}",
                circuit=netlist.text(corner=corner, temperature_c=temperature_c, options=_FINE),
                analyses=((f"tran 0.02n {stop:g}n 0 0.05n", vectors),),
            )
        )

    def reduce(tables: Tables) -> dict[str, Any]:
        n = len(levels)
        needed, stored, energy = (np.zeros((n, len(written))) for _ in range(3))
        for at, (new, (table,)) in enumerate(zip(written, tables, strict=True)):
            time = table[:, 0] * 1e9
            lines = -table[:, 1 + 2 * n :]
            opens = time < _START_NS + window_ns / 2
            up = np.trapezoid(np.where(opens, lines[:, 0], 0.0), table[:, 0])
            up += np.trapezoid(np.where(opens, 0.0, lines[:, 1]), table[:, 0])
            shared = up * cell.v_logic_v / n
            closed = time > _START_NS + window_ns - EDGE_NS / 2
            for old in range(n):
                store = table[:, 1 + old]
                outside = (np.abs(store - levels[new]) > cell.half_lsb_v) & ~closed
                inside = np.flatnonzero(outside & (time > _START_NS))
                if inside.size:
                    last = min(int(inside[-1]) + 1, time.size - 1)
                    needed[old, at] = time[last] - _START_NS
                stored[old, at] = np.interp(stop - 0.5, time, store)
                taken = np.maximum(-table[:, 1 + n + old], 0.0)
                own = np.trapezoid(taken, table[:, 0]) * cell.v_logic_v
                energy[old, at] = (own + shared) * 1e12
        return {"write_ns": needed, "written_v": stored, "energy_pj": energy}

    return Experiment(name="writes", decks=tuple(decks), reduce=reduce)


def leakage(cell: GainCell, *, corner: str, temperature_c: float, step_v: float) -> Experiment:
    """Current out of an unselected storage node, and its capacitance, over its voltage.

    The write bit line rests at mid level. The node is held by a source: its steady current is the
    leakage, and on a fast ramp its current is capacitance times slope. Both together give the
    stored voltage over any time without a simulation that long.

    Figures: ``v_store_v``, ``leak_fa`` out of the node, ``store_ff``, all (n,).
    """
    low, high = 0.0, min(cell.level_max_v + 0.1, cell.v_logic_v)
    steady = Netlist("cell: leakage of the storage node")
    _supplies(steady, cell)
    _word_lines(steady, cell, read=False)
    steady.voltage("bl", "bl", "0", cell.v_bl_v)
    add_cell(steady, cell, "0", store="store", bl="bl")
    steady.voltage("store", "store", "0", low)
    ramp_ns = 1000.0
    moving = Netlist("cell: capacitance of the storage node")
    _supplies(moving, cell)
    _word_lines(moving, cell, read=False)
    moving.voltage("bl", "bl", "0", cell.v_bl_v)
    add_cell(moving, cell, "0", store="store", bl="bl")
    moving.voltage("store", "store", "0", [(0.0, low), (10.0, low), (10.0 + ramp_ns, high)])
    at = {"corner": corner, "temperature_c": temperature_c}
    decks = (
        Deck(
            name=f"leakage at {temperature_c:g} °C",
            circuit=steady.text(options=_QUIET, **at),  # type: ignore[arg-type]
            analyses=((f"dc vstore {low:.6g} {high:.6g} {step_v:.9g}", ("i(vstore)",)),),
        ),
        Deck(
            name=f"capacitance at {temperature_c:g} °C",
            circuit=moving.text(options=_FINE, **at),  # type: ignore[arg-type]
            analyses=((f"tran 1n {10 + ramp_ns:g}n 0 2n", ("v(store)", "i(vstore)")),),
        ),
    )

    def reduce(tables: Tables) -> dict[str, Any]:
        (held,), (ramp,) = tables
        slope = (high - low) / (ramp_ns * 1e-9)
        inside = ramp[:, 0] > 20e-9
        ramp = ramp[inside]
        store_ff = np.interp(held[:, 0], ramp[:, 1], -ramp[:, 2] / slope * 1e15)
        return {"v_store_v": held[:, 0], "leak_fa": -held[:, 1] * 1e15, "store_ff": store_ff}

    return Experiment(name="leakage", decks=decks, reduce=reduce)


def mismatch(
    cell: GainCell,
    *,
    corner: str,
    temperature_c: float,
    cells: int,
    seed: int,
    per_deck: int = CELLS_PER_DECK,
) -> Experiment:
    """Steady current of many cells with drawn mismatch, at the stored levels.

    Figures: ``i_ua`` (cells, levels).
    """
    levels = cell.levels_v
    rng = np.random.default_rng((seed, 0))
    decks = []
    for first in range(0, cells, per_deck):
        netlist = Netlist(f"cell: mismatch, cells from {first}")
        _supplies(netlist, cell)
        _word_lines(netlist, cell, read=True)
        netlist.voltage("store", "store", "0", levels[0])
        count = range(first, min(first + per_deck, cells))
        for i in count:
            netlist.voltage(f"bl{i}", f"bl{i}", "0", cell.v_bl_v)
            add_cell(netlist, cell, str(i), store="store", bl=f"bl{i}", draws=cell_draws(rng, cell))
        step = (levels[-1] - levels[0]) / (len(levels) - 1)
        # One point more than the levels: rounding must not drop the last.
        analysis = f"dc vstore {levels[0]:.9g} {levels[-1] + step / 2:.9g} {step:.12g}"
        decks.append(
            Deck(
                name=f"mismatch of cells from {first}",
                circuit=netlist.text(corner=corner, temperature_c=temperature_c, options=_FINE),
                analyses=((analysis, tuple(f"i(vbl{i})" for i in count)),),
            )
        )

    def reduce(tables: Tables) -> dict[str, Any]:
        rows = [-1e6 * table[: len(levels), 1:].T for (table,) in tables]
        return {"i_ua": np.concatenate(rows)}

    return Experiment(name="mismatch", decks=tuple(decks), reduce=reduce)


def noise(
    cell: GainCell, *, corner: str, temperature_c: float, codes: Sequence[int] | None = None
) -> Experiment:
    """Noise of the current at every level, or those of ``codes``.

    Figures: ``frequency_hz`` (n,), ``density_a2_hz`` (codes, n).
    """
    decks = []
    for code in range(len(cell.levels_v)) if codes is None else codes:
        level = cell.levels_v[code]
        netlist = Netlist(f"cell: noise of code {code}")
        _supplies(netlist, cell)
        _word_lines(netlist, cell, read=True)
        netlist.line(f"vstore store 0 dc {level:.9g} ac 1")
        netlist.voltage("bl", "bl", "0", cell.v_bl_v)
        netlist.line("hout out 0 vbl 1")
        add_cell(netlist, cell, "0", store="store", bl="bl")
        decks.append(
            Deck(
                name=f"noise of code {code}",
                circuit=netlist.text(corner=corner, temperature_c=temperature_c, options=_FINE),
                analyses=(
                    ("noise v(out) vstore dec 10 1 100g\nsetplot noise1", ("onoise_spectrum",)),
                ),
            )
        )

    def reduce(tables: Tables) -> dict[str, Any]:
        return {
            "frequency_hz": tables[0][0][:, 0],
            "density_a2_hz": np.array([table[:, 1] ** 2 for (table,) in tables]),
        }

    return Experiment(name="noise", decks=tuple(decks), reduce=reduce)


def output_conductance(
    cell: GainCell, *, corner: str, temperature_c: float, swing_v: float
) -> Experiment:
    """Slope of the current over the bit line's voltage at every level.

    Figures: ``out_us`` (levels,): mean slope over plus and minus the swing.
    """
    netlist = Netlist("cell: output conductance")
    _supplies(netlist, cell)
    _word_lines(netlist, cell, read=True)
    netlist.voltage("common", "common", "0", cell.v_bl_v)
    for code, level in enumerate(cell.levels_v):
        netlist.voltage(f"s{code}", f"s{code}", "0", level)
        netlist.voltage(f"bl{code}", f"bl{code}", "common", 0.0)
        add_cell(netlist, cell, str(code), store=f"s{code}", bl=f"bl{code}")
    low, high = cell.v_bl_v - swing_v, cell.v_bl_v + swing_v
    deck = Deck(
        name="output conductance",
        circuit=netlist.text(corner=corner, temperature_c=temperature_c, options=_FINE),
        analyses=(
            (
                f"dc vcommon {low:.6g} {high:.6g} {swing_v / 10:.6g}",
                tuple(f"i(vbl{code})" for code in range(len(cell.levels_v))),
            ),
        ),
    )

    def reduce(tables: Tables) -> dict[str, Any]:
        table = tables[0][0]
        slopes = np.polyfit(table[:, 0], -1e6 * table[:, 1:], 1)[0]
        return {"out_us": slopes}

    return Experiment(name="output conductance", decks=(deck,), reduce=reduce)
