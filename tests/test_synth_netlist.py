"""Cutting a design into modules: whole, self-contained, and equal where modules are alike."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from hw.layer import AttentionLayer, layer_ports
from hw.presets import PRESETS
from synth.netlist import Part, cut
from synth.verilog import component_rtlil
from synth.yosys import run_yosys

TINY = replace(PRESETS["tiny"], refresh=False)
HEADS = 3


class Several(Component):
    """Three heads, alike; a fourth, whose results go nowhere; and a memory."""

    def __init__(self) -> None:
        flows = {"in": In, "out": Out}
        self.ports = layer_ports(TINY)
        signature = {
            f"{port.name}_{head}": flows[port.direction](port.width)
            for port in self.ports
            for head in range(HEADS)
        }
        super().__init__(signature | {"read": Out(8)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for number in range(HEADS + 1):
            m.submodules[f"head_{number}"] = head = AttentionLayer(TINY)
            for port in self.ports:
                inner = getattr(head, port.name)
                if number == HEADS:
                    if port.name == "ana_integrate":
                        m.d.comb += self.read[0].eq(inner)
                    continue
                outer = getattr(self, f"{port.name}_{number}")
                m.d.comb += outer.eq(inner) if port.direction == "out" else inner.eq(outer)
        m.submodules.memory = memory = Memory(shape=7, depth=5, init=[])
        port = memory.read_port()
        m.d.comb += [port.en.eq(1), port.addr.eq(self.s_axis_tdata_0), self.read[1:].eq(port.data)]
        return m


@pytest.fixture(scope="module")
def rtlil() -> str:
    return component_rtlil(Several(), "several")


@pytest.fixture(scope="module")
def parts(rtlil: str) -> dict[tuple[str, ...], Part]:
    return cut(rtlil, "several", "rest")


def test_every_instance_has_a_part(rtlil: str, parts: dict[tuple[str, ...], Part]) -> None:
    assert len(parts) == len(re.findall(r"^module ", rtlil, re.M))
    assert next(iter(parts)) == ()
    assert {path[0] for path in parts if path} == {f"head_{n}" for n in range(HEADS + 1)}
    for path, part in parts.items():
        assert not path or path[:-1] in parts
        assert part.name == {0: "rest", 1: "head"}.get(len(path), part.name)
        assert "$" not in part.name


def test_heads_alike_are_equal(parts: dict[tuple[str, ...], Part]) -> None:
    below = {
        path[1:]: [parts[f"head_{n}", *path[1:]] for n in range(HEADS)]
        for path in parts
        if path and path[0] == "head_0"
    }
    assert len(below) > 5
    for path, alike in below.items():
        assert len(set(alike)) == 1, path
    # The last head's result stream is cut off: its sender is another.
    assert parts["head_3", "sender"] != parts["head_0", "sender"]
    assert parts["head_3", "sequencer"].name == parts["head_0", "sequencer"].name


def test_boxes_of_two_kinds_differ(parts: dict[tuple[str, ...], Part]) -> None:
    rest = parts[()]
    assert rest.boxes == {"head", "head'"}
    assert rest.rtlil.count("attribute \\blackbox 1\n") == 2
    assert len(re.findall(r"^  cell \\head \\head_[012]$", rest.rtlil, re.M)) == HEADS
    assert len(re.findall(r"^  cell \\head' \\head_3$", rest.rtlil, re.M)) == 1


def test_memories_are_counted_where_they_are(parts: dict[tuple[str, ...], Part]) -> None:
    assert parts[()].memory_bits == 7 * 5
    assert sum(part.memory_bits for part in parts.values()) == 7 * 5


def test_parts_are_designs_of_their_own(parts: dict[tuple[str, ...], Part], tmp_path: Path) -> None:
    commands = []
    for number, part in enumerate(dict.fromkeys(parts.values())):
        path = tmp_path / f"{number}.il"
        path.write_text(part.rtlil, encoding="utf-8")
        top = f"hierarchy -check -top {part.name}"
        commands += ["design -reset", f"read_rtlil {path}", top, "proc", "check -assert"]
    run_yosys(*commands)


def test_parts_together_are_the_design(
    rtlil: str, parts: dict[tuple[str, ...], Part], tmp_path: Path
) -> None:
    """Nothing is lost or counted twice: cells before mapping, part by part and in one."""
    whole = len(re.findall(r"^  cell \$", rtlil, re.M))
    assert sum(len(re.findall(r"^  cell \$", p.rtlil, re.M)) for p in parts.values()) == whole
    processes = len(re.findall(r"^  process ", rtlil, re.M))
    assert sum(len(re.findall(r"^  process ", p.rtlil, re.M)) for p in parts.values()) == processes
