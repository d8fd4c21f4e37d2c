"""Every form of the register map says what the map says."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shutil
import subprocess
import types

import pytest
from systemrdl import RDLCompiler
from systemrdl.node import FieldNode
from systemrdl.rdltypes import OnWriteType

from hw.presets import PRESETS
from hw.registers import Access, RegisterMap
from synth.register_files import (
    c_header,
    markdown_table,
    python_module,
    systemrdl,
    write_register_files,
)

HEADS = {name: PRESETS[name] for name in ("default", "simple", "tiny", "tiny-layer", "mapped")}
each_head = pytest.mark.parametrize("params", HEADS.values(), ids=HEADS)


def compiled(params, folder):
    path = folder / "map.rdl"
    path.write_text(systemrdl(params), encoding="utf-8")
    compiler = RDLCompiler()
    compiler.compile_file(str(path))
    return compiler.elaborate().top


def check_access(field, node: FieldNode) -> None:
    assert node.is_sw_readable == (field.access.readable), field.name
    assert node.is_sw_writable == field.access.writable, field.name
    cleared = OnWriteType.woclr if field.access is Access.STICKY else None
    assert node.get_property("onwrite") == cleared
    assert node.get_property("singlepulse") == (field.access is Access.COMMAND)
    assert bool(node.get_property("waits", default=False)) == (field.access is Access.SETTING)
    assert node.is_hw_writable == (field.access in (Access.STATUS, Access.STICKY))


@each_head
def test_systemrdl_read_back_is_the_map(params, tmp_path):
    top = compiled(params, tmp_path)
    registers = RegisterMap(params)
    assert top.inst_name == f"{params.top}_registers"
    assert params.config_hash in top.get_property("name")
    nodes = {node.inst_name: node for node in top.registers()}
    assert list(nodes) == [register.name for register in registers]
    for register in registers:
        node = nodes[register.name]
        assert node.raw_address_offset == register.offset
        assert node.get_property("regwidth") == 32
        assert node.is_array == (register.count is not None)
        if node.is_array:
            assert node.array_dimensions == [register.count] and node.array_stride == 4
        assert node.get_property("desc") == register.meaning
        fields = {child.inst_name: child for child in node.fields()}
        assert list(fields) == [field.name for field in register.fields]
        for field in register.fields:
            child = fields[field.name]
            assert (child.lsb, child.width) == (field.lsb, field.width)
            assert child.get_property("desc") == field.meaning
            reset = None if field.access is Access.STATUS else field.reset
            assert child.get_property("reset") == reset
            assert bool(child.get_property("is_signed", default=False)) == field.signed
            bounded = field.access.writable and (field.low, field.high) != field.natural
            expected = f"{field.low}..{field.high}" if bounded else None
            assert child.get_property("valid_range", default=None) == expected
            check_access(field, child)


def test_a_map_that_overlaps_does_not_compile(tmp_path, capsys):
    text = systemrdl(HEADS["tiny"]).replace("@ 0x004", "@ 0x000")
    path = tmp_path / "map.rdl"
    path.write_text(text, encoding="utf-8")
    compiler = RDLCompiler()
    compiler.compile_file(str(path))
    with pytest.raises(Exception, match=r"."):
        compiler.elaborate()
    assert "overlap" in capsys.readouterr().err


def expected_constants(params) -> dict[str, int]:
    expected = {}
    for register in RegisterMap(params):
        name = register.name.upper()
        expected[f"{name}_OFFSET"] = register.offset
        if register.count is not None:
            expected[f"{name}_COUNT"] = register.count
        if any(field.access is not Access.STATUS for field in register.fields):
            expected[f"{name}_RESET"] = register.reset
        for field in register.fields:
            prefix = f"{name}_{field.name.upper()}"
            expected |= {f"{prefix}_LSB": field.lsb, f"{prefix}_MASK": field.mask}
            if field.access.writable:
                expected |= {f"{prefix}_MIN": field.low, f"{prefix}_MAX": field.high}
    return expected


@each_head
def test_python_constants_are_the_map(params):
    module = types.ModuleType("constants")
    exec(compile(python_module(params), "constants", "exec"), module.__dict__)
    assert module.CONFIGURATION == params.config_hash
    got = {name: value for name, value in vars(module).items() if name.isupper()}
    del got["CONFIGURATION"], got["MAP_VERSION"]
    assert got == expected_constants(params)


@each_head
def test_c_constants_are_the_map(params, tmp_path):
    """By the preprocessor's output, compiled as a translation unit that uses every one."""
    text = c_header(params)
    defined = dict(re.findall(r"(?m)^#define GAINCELL_(\w+) \((-?\w+?)u?\)$", text))
    assert {name: int(value, 0) for name, value in defined.items()} == expected_constants(params)
    assert f'"{params.config_hash}"' in text
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("gcc is not installed")
    (tmp_path / "head.h").write_text(text, encoding="utf-8")
    uses = "\n".join(
        f'_Static_assert(GAINCELL_{name} == {value}{"u" if value > 2**31 - 1 else ""}, "{name}");'
        for name, value in expected_constants(params).items()
    )
    (tmp_path / "use.c").write_text(f'#include "head.h"\n#include "head.h"\n{uses}\n')
    for source in ("use.c", "head.h"):
        subprocess.run(
            [gcc, "-std=c11", "-Wall", "-Wextra", "-Wsign-compare", "-Werror", "-fsyntax-only",
             source],
            cwd=tmp_path, check=True,
        )  # fmt: skip


def test_markdown_says_what_each_field_needs():
    params = dataclasses.replace(PRESETS["layer12"], refresh=True)
    table = markdown_table(params)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len(rows) == 2 + sum(len(register.fields) for register in RegisterMap(params))
    needs = {(row[1], row[3]): row[7] for row in rows}
    assert needs["`trim[64]`", "`offset`"] == "trims"
    assert needs["`head_select`", "`head`"] == "heads"
    assert needs["`phases`", "`write_clk`"] == ""
    assert needs["", "`refresh_enable`"] == "refresh"
    assert needs["`refresh_period`", "`clocks`"] == "refresh"
    assert {row[7] for row in rows} == {
        "needs", "---", "", "heads", "shots", "sinks", "ages", "trims", "refresh", "self-test",
        "shots, self-test",
    }  # fmt: skip


def test_files_are_the_same_at_any_time_and_hold_the_configuration(tmp_path, monkeypatch):
    params = HEADS["tiny"]
    clock = itertools.count(1_800_000_000, 1000)
    monkeypatch.setattr("peakrdl_html.exporter.time", types.SimpleNamespace(time=clock.__next__))
    contents = []
    for name in ("once", "twice"):
        written = write_register_files(params, tmp_path / name)
        assert [path.name for path in written] == [
            "attention_head.rdl", "attention_head.h", "attention_head_registers.py", "html",
        ]  # fmt: skip
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert contents[0] == contents[1]
    for path in written[:3]:
        assert params.config_hash in path.read_text(encoding="utf-8")
    assert (written[3] / "index.html").is_file()
    everything = b"".join(contents[0].values())
    assert everything.count(params.config_hash.encode()) > 3
    assert str(tmp_path).encode() not in everything
