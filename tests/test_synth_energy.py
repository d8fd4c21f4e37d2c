"""Energy, timing and simulation of netlists: circuits whose answer is known by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cells as hand
import numpy as np
import pytest

from cocotb_tests.energy import run_energy
from cocotb_tests.record import Plan
from hw.params import HeadParams
from hw.presets import PRESETS
from sim.pipeline import interval_bounds
from synth.activity import PHASES, NetlistError, Recording, simulate, transitions_with_delays
from synth.electrical import read_electrical
from synth.equivalence import EquivalenceError, functional_verilog, prove_netlist
from synth.flow import Flow, fo4_ps, map_head
from synth.gate_graph import GateGraph, read_graph
from synth.liberty import LibertyError, Library, open_library
from synth.loads import Wires, find_loads, transitions
from synth.power import EnergyModel, statistics
from synth.sta import run_sta
from synth.timing import conditions_of, run_timing

CLOCKS = 64
V2 = hand.VOLTAGE_V**2
#: A head without features, soon mapped.
BARE = HeadParams(subtiles=1, columns=2, rows=2, lanes=2, bus_bits=32)
NO_WIRES = Wires(cap_ff_per_um=0.0)

Cells = dict[str, tuple[str, dict[str, str]]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    path = tmp_path_factory.mktemp("library") / "hand.lib"
    path.write_text(hand.library(), encoding="utf-8")
    return open_library(path)


def graph_of(
    folder: Path, library: Library, cells: Cells, inputs: str, outputs: str = ""
) -> GateGraph:
    """A netlist of cells: kind and net at each pin, by name."""
    numbers: dict[str, int | str] = {"0": "0", "1": "1"}

    def net(name: str) -> int | str:
        return numbers.setdefault(name, len(numbers))

    ports = {name: {"direction": "input", "bits": [net(name)]} for name in inputs.split()}
    ports |= {name: {"direction": "output", "bits": [net(name)]} for name in outputs.split()}
    module = {
        "ports": ports,
        "cells": {
            name: {"type": kind, "connections": {pin: [net(at)] for pin, at in pins.items()}}
            for name, (kind, pins) in cells.items()
        },
        "netnames": {n: {"bits": [b], "hide_name": 0} for n, b in numbers.items() if n not in "01"},
    }
    path = folder / "netlist.json"
    path.write_text(json.dumps({"modules": {"top": module}}), encoding="utf-8")
    return read_graph(path, library, top="top")


def recording(**lines: list[int]) -> Recording:
    """Values of ports of one bit, by clock."""
    values = {name: np.array(bits, np.uint8)[:, None] for name, bits in lines.items()}
    return Recording(values=values, warm=0, stream=0, alone=0, key="")


def measured(
    graph: GateGraph, library: Library, output_pf: float = 0.0, **lines: list[int]
) -> tuple[dict[str, float], EnergyModel]:
    """Energy by part over all clocks but the first, in which nothing is before."""
    found = recording(rst=[0] * (CLOCKS + 1), **lines)
    history = simulate(graph, found)
    conditions = replace(conditions_of(library, NO_WIRES), output_pf=output_pf)
    loads = find_loads(graph, conditions.wires, output_pf)
    slews = transitions(graph, loads, conditions.slew_ns)
    clocks = range(1, CLOCKS + 1)
    model = EnergyModel(graph, loads, slews, conditions, statistics(history, clocks))
    energy = model.by_clock(history, clocks).sum(axis=0)
    parts: dict[str, float] = {}
    for block in model.parts(energy).values():
        for part, pj in block.items():
            parts[part] = parts.get(part, 0.0) + pj
    return parts, model


# --- circuits with a known answer --------------------------------------------------------------
def test_inverter_chain(tmp_path, library):
    nets = ["a", *(f"n{at}" for at in range(4)), "z"]
    chain: Cells = {f"chain.{at}": ("TURN", {"A": nets[at], "Z": nets[at + 1]}) for at in range(5)}
    graph = graph_of(tmp_path, library, chain, "clk rst a", "z")
    load_pf = 0.037
    toggling = [at % 2 for at in range(CLOCKS + 1)]
    parts, model = measured(graph, library, load_pf, a=toggling)
    pairs = CLOCKS / 2  # of a transition to 1 and one to 0, of every net
    assert parts["internal"] == pytest.approx(pairs * 5 * (hand.RISE_PJ + hand.FALL_PJ))
    assert parts["pins"] == pytest.approx(pairs * (5 * hand.CAP_PF + load_pf) * V2)
    assert parts["wires"] == parts["clock_pins"] == parts["clock_tree"] == 0
    # Each input is high half of the time.
    mean_nw = (hand.LEAKAGE_NW + hand.LEAKAGE_HIGH_NW) / 2
    assert model.leakage_nw.sum() == pytest.approx(5 * mean_nw)


def test_counter(tmp_path, library):
    counter: Cells = {
        "turn": ("TURN", {"A": "q0", "Z": "d0"}),
        "differ1": ("DIFFER", {"A": "q1", "B": "q0", "Z": "d1"}),
        "both": ("BOTH", {"A": "q1", "B": "q0", "Z": "c"}),
        "differ2": ("DIFFER", {"A": "q2", "B": "c", "Z": "d2"}),
        **{f"q{at}": ("KEEP", {"P": "clk", "X": f"d{at}", "Z": f"q{at}"}) for at in range(3)},
    }
    graph = graph_of(tmp_path, library, counter, "clk rst")
    parts, _ = measured(graph, library)
    # Transitions in 64 clocks, by hand, and pins that each net loads its driver with.
    toggles = {"q0": 64, "q1": 32, "q2": 16, "d0": 64, "d1": 32, "d2": 16, "c": 32}
    pins = {"q0": 3, "q1": 2, "q2": 1, "d0": 1, "d1": 1, "d2": 1, "c": 1}
    inside = sum(toggles.values()) * (hand.RISE_PJ + hand.FALL_PJ) / 2
    inputs = (64 + 32 + 16) * (hand.INPUT_RISE_PJ + hand.INPUT_FALL_PJ) / 2
    load = sum(toggles[net] * pins[net] for net in toggles) * hand.CAP_PF * V2 / 2
    clock = CLOCKS * 3 * (hand.CLOCK_RISE_PJ + hand.CLOCK_FALL_PJ + hand.CAP_PF * V2)
    assert parts["internal"] == pytest.approx(inside + inputs)
    assert parts["pins"] == pytest.approx(load)
    assert parts["clock_pins"] == pytest.approx(clock)


def test_clock_gated_register(tmp_path, library):
    gated: Cells = {"stop": ("STOP", {"P": "clk", "E": "open", "Z": "gclk"})}
    gated |= {f"q{at}": ("KEEP", {"P": "gclk", "X": "0", "Z": f"q{at}"}) for at in range(8)}
    graph = graph_of(tmp_path, library, gated, "clk rst open")
    opened = [int(at % 4 == 0) for at in range(CLOCKS + 1)]
    parts, _ = measured(graph, library, open=opened)
    passed = CLOCKS / 4  # a pulse follows each clock in which the gate is open
    gate = CLOCKS * (0.010 + 0.020 + hand.CAP_PF * V2) + passed * (hand.RISE_PJ + hand.FALL_PJ)
    flops = passed * 8 * (hand.CLOCK_RISE_PJ + hand.CLOCK_FALL_PJ + hand.CAP_PF * V2)
    assert parts["clock_pins"] == pytest.approx(gate + flops)
    assert parts["pins"] == pytest.approx(CLOCKS / 2 * hand.CAP_PF * V2 / 2)


def test_gated_register_keeps_its_value(tmp_path, library):
    gated: Cells = {
        "stop": ("STOP", {"P": "clk", "E": "open", "Z": "gclk"}),
        "q": ("KEEP", {"P": "gclk", "X": "d", "Z": "q"}),
    }
    graph = graph_of(tmp_path, library, gated, "clk rst open d", "q")
    found = recording(
        rst=[0] * 6, open=[0, 1, 0, 1, 0, 0], d=[1, 1, 0, 0, 1, 1], q=[0, 0, 1, 1, 0, 0]
    )
    simulate(graph, found)
    wrong = replace(found, values=found.values | {"q": 1 - found.values["q"]})
    with pytest.raises(NetlistError, match="differ at q in clock 0"):
        simulate(graph, wrong)


def test_against_the_tables_of_osu018_by_hand(tmp_path):
    # Two INVX1 with input transition 0.06 ns and 12.5 fF behind: points of the library's tables,
    # and lines between or beyond them, worked out on paper.
    library = open_library()
    cells: Cells = {
        "first": ("INVX1", {"A": "a", "Y": "b"}),
        "second": ("INVX1", {"A": "b", "Y": "z"}),
    }
    graph = graph_of(tmp_path, library, cells, "clk rst a", "z")
    history = simulate(graph, recording(rst=[0] * 9, a=[at % 2 for at in range(9)]))
    conditions = replace(conditions_of(library, NO_WIRES), slew_ns=0.06, output_pf=0.0125)
    loads = find_loads(graph, NO_WIRES, 0.0125)
    slews = transitions(graph, loads, 0.06)
    model = EnergyModel(graph, loads, slews, conditions, statistics(history, range(1, 9)))
    energy = model.by_clock(history, range(1, 9)).sum()
    pin_pf = 0.00932456
    first = 0.0091173 + 0.0233301  # at 9.32 fF, between 5 and 12.5 fF
    second = 0.0096797 + 0.0221407  # at a transition of 0.0375 ns, beyond 0.06 ns
    load = (2 * pin_pf + 0.0125) * 1.8**2
    assert energy == pytest.approx(4 * (first + second + load), rel=0.001)


# --- simulation with delays --------------------------------------------------------------------
def test_glitch_is_counted_and_short_one_is_swallowed(tmp_path, library):
    late: Cells = {
        **{f"late{at}": ("TURN", {"A": f"n{at}", "Z": f"n{at + 1}"}) for at in range(4)},
        "differ": ("DIFFER", {"A": "n0", "B": "n4", "Z": "z"}),
    }
    graph = graph_of(tmp_path, library, late, "clk rst n0")
    history = simulate(graph, recording(rst=[0] * 3, n0=[0, 1, 1]))
    slews = transitions(graph, find_loads(graph, NO_WIRES, 0.0), 0.05)
    z = next(net for net, name in graph.net_names.items() if name == "z")
    moved = transitions_with_delays(history, range(1, 3), slews, tick_ns=0.01)
    assert moved[z] == 2  # n0 and n4 are equal before and after
    slow = replace(slews, rows=np.where(graph.rows.outputs == z, 1.0, slews.rows))
    moved = transitions_with_delays(history, range(1, 3), slow, tick_ns=0.01)
    assert moved[z] == 0


# --- libraries ---------------------------------------------------------------------------------
def test_units_make_no_difference(tmp_path, library):
    path = tmp_path / "ps.lib"
    text = hand.library(time=("1ps", 1e3), cap=("1,ff", 1e3))
    path.write_text(text, encoding="utf-8")
    other = open_library(path)
    assert fo4_ps(other) == pytest.approx(fo4_ps(library))
    assert fo4_ps(library) == pytest.approx(1000 * (hand.DELAY_NS + 2 * 0.04))
    found = [read_electrical(lib, ["TURN", "STOP"]).cells for lib in (library, other)]
    for one, same in zip(*(f.values() for f in found), strict=True):
        for pin in one.pins:
            assert one.pins[pin].cap_pf == pytest.approx(same.pins[pin].cap_pf)
            for arc, twin in zip(one.pins[pin].power, same.pins[pin].power, strict=True):
                pair = (a.energy["fall"].at(0.1, 0.03) for a in (arc, twin))
                assert float(next(pair)) == pytest.approx(float(next(pair)))


def test_unseen_library_in_two_files_maps_and_times(tmp_path, library):
    text = hand.library(time=("1ps", 1e3), cap=("1,ff", 1e3))
    at = text.index("cell (BOTH)")
    head = text[: text.index("cell (TURN)")]
    first, second = tmp_path / "first.lib", tmp_path / "second.lib"
    first.write_text(text[:at] + "}\n", encoding="utf-8")
    second.write_text(head + text[at:], encoding="utf-8")
    result = run_timing(
        BARE,
        liberty=[first, second],
        flow=Flow(effort="fast"),
        report_dir=tmp_path,
        cache_dir=tmp_path / "cache",
    )
    assert result["clock_gates"] > 0 and result["library"]["clock_gate"] == "STOP"
    assert result["fmax_mhz"] < result["no_wires"]["fmax_mhz"]
    assert result["blocks"]["registers"]["flip_flops"] > 0
    netlist = (tmp_path / "cache" / f"netlist-{result['netlist']}.json").read_text()
    used = {cell["type"] for cell in json.loads(netlist)["modules"][BARE.top]["cells"].values()}
    assert not used & {"KEEP_TESTED", "KEEP_TWO"}
    with pytest.raises(LibertyError, match="time_unit of several files must be the same"):
        second.write_text(hand.library(), encoding="utf-8")
        open_library([first, second])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('time_unit : "1ns";', "", "no time_unit"),
        ('time_unit : "1ns";', 'time_unit : "1parsec";', "time_unit must be a number of s"),
        ("capacitive_load_unit (1,pf);", "", "no capacitive_load_unit"),
        ("nom_voltage : 2.0;", "", "no voltage"),
        ("capacitance : 0.01;", "", "pin A of TURN has no capacitance"),
        ("cell_leakage_power : 3.0;", "", "no cell_leakage_power"),
        ('leakage_power_unit : "1nW";', "", "no leakage_power_unit"),
        ("internal_power ()", "other ()", "no cell has a table of internal_power"),
        ("timing ()", "other ()", "no table of delays"),
        ("lu_table_template (both)", "lu_table_template (other)", "table template"),
    ],
)
def test_what_a_library_lacks_is_named(tmp_path, old, new, message):
    path = tmp_path / "lacking.lib"
    text = hand.library()
    assert old in text
    lists = "leakage_power" in old
    if lists:
        text = text.replace("leakage_power () {", "leakage_power_of () {")
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(LibertyError, match=f"lacking.lib.*{message}"):
        read_electrical(open_library(path), ["TURN", "KEEP"])


# --- whole heads -------------------------------------------------------------------------------
def test_arrivals_are_those_of_opensta(tmp_path):
    library = open_library()
    mapped = map_head(BARE, library, Flow(effort="fast", clock_gating=False))
    graph = read_graph(mapped.json, library, top=mapped.top)
    loads = find_loads(graph, Wires(), 0.02)
    ends, paths = run_sta(
        graph,
        library,
        top=mapped.top,
        period_ns=20.0,
        slew_ns=0.1,
        output_pf=0.02,
        loads=loads,
        worst_of=["registers"],
    )
    slews = transitions(graph, loads, 0.1)
    assert len(paths[0].stages) > 5
    for stage in paths[0].stages[2:]:
        kind = graph.kinds[stage.cell]
        at = kind.names.index(stage.instance)
        nets = [int(kind.pins[pin][at]) for pin in kind.data.outputs]
        errors = np.abs(1000 * slews.arrival[:, nets] / stage.arrival_ps - 1)
        assert errors.min() < 0.005
    assert ends[0].slack_ps == min(end.slack_ps for end in ends)


def test_energy_of_real_tokens(tmp_path):
    params, plan = PRESETS["tiny"], Plan(fill=8, warm=2, stream=6, idle=40, alone=2)
    stages: list[str] = []

    def run(folder: str, **options: Path) -> dict[str, Any]:
        return run_energy(
            params,
            flow=Flow(effort="fast"),
            plan=plan,
            report_dir=tmp_path / folder,
            on_stage=stages.append,
            **options,
        )

    result = run("first", cache_dir=tmp_path / "cache")
    assert result["compared"]["clocks"] > 300 and result["compared"]["differences"] == 0
    assert result["interval_clk"] == max(interval_bounds(params).values())
    blocks = result["blocks"].values()
    assert sum(block["energy_pj"] for block in blocks) == pytest.approx(result["energy_pj"])
    assert sum(result["parts"].values()) == pytest.approx(result["energy_pj"])
    assert sum(result["by_clock_pj"]) == pytest.approx(result["sample"]["of_energy_pj"], rel=1e-3)
    assert set(result["phases"]) == {*PHASES, "between"}
    assert result["phase_clk"]["score"] == params.integrate_clk
    assert all(pj > 0 for name, pj in result["phases"].items() if name != "write")
    busy_mw = result["power_mw"]
    assert 0 < result["idle"]["leakage_mw"] < result["idle"]["power_mw"] < busy_mw
    # What is kept is found, and without it the same comes out.
    stages.clear()
    assert run("second", cache_dir=tmp_path / "cache") == result
    assert not any("netlist" in stage for stage in stages)
    for kept in (tmp_path / "cache").glob("*.json"):
        if kept.name.startswith(("energy", "timing", "netlist")):
            kept.unlink()
    assert run("third", cache_dir=tmp_path / "cache") == result


def test_netlist_is_proved_equal_and_a_wrong_one_is_not(tmp_path, monkeypatch):
    flow = Flow(effort="fast")
    figures = prove_netlist(BARE, flow=flow, cache_dir=None)
    assert figures["clock_gates"] > 0

    def wrong(graph: GateGraph, top: str) -> str:
        text = functional_verilog(graph, top)
        return text.replace("if (n", "if (~n", 1)

    monkeypatch.setattr("synth.equivalence.functional_verilog", wrong)
    with pytest.raises(EquivalenceError, match="not proved equal"):
        prove_netlist(BARE, flow=flow, cache_dir=None)
