"""Liberty files and the area flow: recognition by function, errors, sums, determinism."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from rich.console import Console

from hw.layer import AttentionLayer
from hw.params import READOUTS, HeadParams
from hw.presets import PRESETS, preset
from synth.area import (
    GLUE,
    STORE,
    _block,
    _figures,
    _job,
    _synthesise,
    area_table,
    head_parts,
    run_area,
    variant_table,
)
from synth.liberty import DEFAULT_LIBERTY, LibertyError, open_library, parse_liberty, truth_table
from synth.netlist import cut
from synth.variants import VARIANTS, Variant
from synth.verilog import component_rtlil
from synth.yosys import YosysError, run_yosys

SKY130 = Path(__file__).parents[1].parent / "shared" / "liberty" / "sky130hd_tt.lib.gz"
BLOCKS = {
    "receiver",
    "step",
    "sequencer",
    "window",
    "writer",
    "column_mask",
    "ages",
    "refresh",
    STORE,
    "pulse_bank",
    "readout",
    "full_scale",
    "shot_accumulator",
    "sender",
    "registers",
    GLUE,
}
#: A head without features, soon synthesised.
BARE = HeadParams(subtiles=1, columns=2, rows=2, lanes=2, bus_bits=32)

PIN = "pin({0}) {{ direction : input; capacitance : 0.01; }}"
A, B, C = (PIN.format(name) for name in "ABC")


def gate(name: str, area: str, function: str, pins: str, more: str = "") -> str:
    return (
        f"cell ({name}) {{ {area} {more} {pins} "
        f'pin(Y) {{ direction : output; function : "{function}"; }} }}\n'
    )


FLOP = (
    """
cell (STORE1) { area : 20
  ff (IQ, IQN) { next_state : "B" clocked_on : "A" }
"""
    + f'{A} {B} pin(Y) {{ direction : output; function : "IQ"; }} }}\n'
)

#: Odd on purpose: names that say nothing, semicolons missing, comments, cells to stay away from.
MINI = (
    """/* a library { with a brace in a comment */
library ("mini lib") {
  define(x, cell, string); // a line { comment
  time_unit : "1ns"; nom_voltage : 1.8
  lu_table_template(t) { variable_1 : a; index_1 ("1, 2, \\
    3"); };
  input_voltage(d) { vil : 0.3 * VDD ; vih : VDD - 0.5 }
"""
    + gate("G0", "area : 4.0;", "!A", A)
    + gate("BIG_NAND", "area : 9.5;", "(A * B)'", A + B)
    + gate("G1", "area : 6.25;", "!A + B'", A + B)
    + gate("NO_AREA_NAND", "", "(A B)'", A + B)
    + gate("NO_USE_NAND", "area : 1;", "!(A & B)", A + B, "dont_use : true;")
    + gate("ISOLATION", "area : 2;", "!(A & B)", A + B, 'is_isolation_cell : "true";')
    + gate("NAND_WITH_THREE", "area : 3;", "!(A & B)", A + B + C)
    + gate("AND_LIKE", "area : 3;", "!(A | B)", A + B)
    + FLOP
    + """cell (SCAN) { area : 5;
  ff (IQ, IQN) { next_state : "(A & !C) | (B & C)"; clocked_on : "D"; }
  test_cell () { ff (IQ, IQN) { next_state : "A"; clocked_on : "D"; } } }
cell (PAIR) { area : 6; ff_bank (IQ, IQN, 2) { next_state : "A"; clocked_on : "B"; }
  bundle (A) { members (A0, A1); direction : input; } }
"""
    + f'cell (ADD) {{ area : 30; {A} {B} {C} pin(S) {{ direction : output; function : "A ^ B ^ C"; '
    'timing () { values ("{"); } } pin(K) { direction : output; '
    'function : "(A B) | C (A ^ B)"; } }\n}\n'
)


def write(folder: Path, text: str, name: str = "mini.lib") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "function",
    ["!(A & B)", "!(A B)", "(A B)'", "(A*B)'", "A' + B'", "!A|!B", "(!A) | B'", "(A ^ 1) + !B"],
)
def test_nand_in_every_spelling(function: str) -> None:
    assert truth_table(function, ("A", "B")) == 0b0111


@pytest.mark.parametrize(
    ("function", "table"),
    [
        ("A^B^C", 0b10010110),
        ("A & B | C", 0b11111000),
        ("A + B C", 0b11101010),  # a product binds closer than a sum
        ("A ^ B C", 0b01100000),  # and parity closer than a product
        ("!A'", 0b10101010),
        ("1", 0b11111111),
        ("IQ", None),
        ("A &", None),
        ("(A", None),
        ("A ) B", None),
        ("A = B", None),
        ("", None),
    ],
)
def test_truth_table(function: str, table: int | None) -> None:
    assert truth_table(function, ("A", "B", "C")) == table


def test_mini_library(tmp_path: Path) -> None:
    library = open_library(write(tmp_path, MINI))
    assert library.name == "mini lib"
    assert (library.nand2, library.gate_equivalent_um2) == ("G1", 6.25)
    assert library.flip_flop == "STORE1"
    assert library.full_adder is not None
    assert library.full_adder.name == "ADD"
    assert (library.full_adder.sum, library.full_adder.carry) == ("S", "K")
    assert set(library.forbidden) == {"NO_AREA_NAND", "NO_USE_NAND", "ISOLATION"}
    assert library.cells["SCAN"].flip_flop
    assert not library.cells["SCAN"].plain_flip_flop
    assert not library.cells["PAIR"].flip_flop


def test_tables_are_skipped_but_attributes_kept() -> None:
    library = parse_liberty(MINI)
    assert library.attributes["nom_voltage"] == "1.8"
    assert [cell.args[0] for cell in library.all("cell")][:2] == ["G0", "BIG_NAND"]


def test_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "mini.lib"
    path.write_bytes(MINI.replace("\n", "\r\n").encode())
    assert open_library(path).nand2 == "G1"


def test_compressed_library_is_unpacked_by_content(tmp_path: Path) -> None:
    plain = open_library(write(tmp_path, MINI))
    packed = tmp_path / "mini.lib.gz"
    packed.write_bytes(gzip.compress(MINI.encode()))
    library = open_library(packed, cache_dir=tmp_path / "cache")
    assert library.sha256 == plain.sha256
    assert library.file.read_text(encoding="utf-8") == MINI
    assert library.file.parent == tmp_path / "cache"
    assert open_library(packed, cache_dir=tmp_path / "cache").file == library.file


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(LibertyError, match=r"absent\.lib is missing.*qflow-tech-osu018"):
        open_library(tmp_path / "absent.lib")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with a library group"),
        ("module x; endmodule", "must begin with a library group"),
        ("library (x) { cell (y) { area : 1; ", "brace is missing in line 1"),
        ("library (x) {\n cell (y) { timing () { ", "brace is missing in line 2"),
        ("library (x) {\n cell\n}", "expected ':' or '\\(' after 'cell' in line 2"),
        (MINI.replace("area : 6.25;", "").replace("area : 9.5;", "area : 0;"), "no two-input NAND"),
        (
            MINI.replace("STORE1", "STORE1) { dont_use : true; } cell(X").replace("ff (", "fx ("),
            "no D flip-flop",
        ),
    ],
)
def test_errors_name_what_is_missing(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LibertyError, match=message) as caught:
        open_library(write(tmp_path, text))
    assert "mini.lib" in str(caught.value)


def test_damaged_archive(tmp_path: Path) -> None:
    path = tmp_path / "mini.lib.gz"
    path.write_bytes(gzip.compress(MINI.encode())[:-20])
    with pytest.raises(LibertyError, match="cannot be unpacked"):
        open_library(path)


def test_default_library() -> None:
    library = open_library()
    assert library.name == "osu018_stdcells"
    assert (library.nand2, library.gate_equivalent_um2) == ("NAND2X1", 24.0)
    assert library.flip_flop == "DFFPOSX1"
    assert library.full_adder is not None
    assert library.full_adder.name == "FAX1"


@pytest.mark.skipif(not SKY130.exists(), reason="no sky130 library beside the checkout")
def test_sky130(tmp_path: Path) -> None:
    library = open_library(SKY130, cache_dir=tmp_path)
    assert library.nand2 == "sky130_fd_sc_hd__nand2_1"
    assert library.gate_equivalent_um2 == pytest.approx(3.7536)
    assert library.flip_flop == "sky130_fd_sc_hd__dfxtp_1"
    assert library.full_adder is not None
    assert library.full_adder.name == "sky130_fd_sc_hd__fa_1"


# --- area ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    folder = tmp_path_factory.mktemp("area")
    return run_area(preset("tiny"), report_dir=folder, cache_dir=None), folder


def test_blocks_add_up(tiny: tuple[dict, Path]) -> None:
    result, _ = tiny
    assert set(result["readouts"]) == set(READOUTS)
    for head in result["readouts"].values():
        assert set(head["blocks"]) == BLOCKS
        for figure in ("cells", "flip_flops", "area_um2"):
            total = sum(block[figure] for block in head["blocks"].values())
            assert head[figure] == pytest.approx(total, abs=1e-6)
        assert head["gate_equivalents"] == pytest.approx(
            head["area_um2"] / result["gate_equivalent_um2"], abs=0.05
        )
    population, counter = (result["readouts"][name]["blocks"] for name in READOUTS)
    # The registers hold the configuration's hash.
    differ = {b for b in BLOCKS if population[b] != counter[b]}
    assert "readout" in differ <= {"readout", "registers"}


def test_the_store_is_bits_and_no_flip_flops(tiny: tuple[dict, Path]) -> None:
    p = preset("tiny")
    assert p.refresh
    for head in tiny[0]["readouts"].values():
        assert head["code_store_bits"] == p.window * (p.rows + p.lanes) * p.kv_bits
        assert head["blocks"][STORE]["flip_flops"] == 0


def test_readout_flip_flops_are_the_design_s(tiny: tuple[dict, Path]) -> None:
    p = preset("tiny")
    population, counter = (
        tiny[0]["readouts"][name]["blocks"]["readout"]["flip_flops"] for name in READOUTS
    )
    assert population == p.lanes * p.sum_bits
    assert counter == p.subtiles * p.lanes * (p.count_bits + 1)


def test_ratio_and_provenance(tiny: tuple[dict, Path]) -> None:
    result, folder = tiny
    population, counter = (
        result["readouts"][name]["blocks"]["readout"]["area_um2"] for name in READOUTS
    )
    assert result["readout_ratio"] == pytest.approx(counter / population, abs=1e-3)
    assert result["readout_ratio"] > 1.5  # two sub-tiles only: little to save
    assert result["readout_ratio_target"] is None
    stored = json.loads((folder / "area.json").read_text(encoding="utf-8"))
    assert {key: stored[key] for key in result} == result
    assert stored["config_hash"] == preset("tiny").config_hash
    assert stored["library"]["file"] == DEFAULT_LIBERTY.name
    assert str(Path.cwd()) not in json.dumps(stored)


def test_deterministic_and_cached(tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    cache = tmp_path / "cache"
    again = run_area(
        BARE,
        report_dir=tmp_path,
        cache_dir=cache,
        on_progress=lambda done, total, block: calls.append((done, total, block)),
    )
    assert again == run_area(BARE, report_dir=tmp_path, cache_dir=None)
    assert calls[-1][0] == calls[-1][1]
    kept = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert run_area(BARE, report_dir=tmp_path, cache_dir=cache) == again
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == kept


def test_sum_equals_the_whole_hierarchy(tmp_path: Path) -> None:
    """Blocks one by one take the area of the head in one run, hierarchy kept."""
    text = DEFAULT_LIBERTY.read_text(encoding="utf-8")
    library = write(tmp_path, text.replace("cell (FAX1) {", "cell (FAX1) {\n  dont_use : true;"))
    params = HeadParams(subtiles=2, columns=4, rows=4, lanes=4, bus_bits=32, schedule="streaming")
    result = run_area(params, liberty=library, report_dir=tmp_path, cache_dir=None)
    assert result["library"]["full_adder"] is None
    source, statistics = tmp_path / "head.il", tmp_path / "stat.json"
    source.write_text(component_rtlil(AttentionLayer(params), params.top), encoding="utf-8")
    run_yosys(
        f"read_rtlil {source}",
        f"synth -top {params.top} -noabc",
        "opt_clean -purge",
        f"dfflibmap -liberty {library} -dont_use FAX1",
        f"abc -liberty {library} -dont_use FAX1",
        "opt_clean",
        f"tee -q -o {statistics} stat -liberty {library} -json",
    )
    whole = json.loads(statistics.read_text(encoding="utf-8"))["design"]
    head = result["readouts"][params.readout]
    kinds = whole["num_cells_by_type"]
    assert sum(n for kind, n in kinds.items() if kind.startswith("DFF")) == head["flip_flops"]
    # ABC visits gates in the order of names that are numbered over the design: hence not equal.
    assert float(whole["area"]) == pytest.approx(head["area_um2"], rel=0.01)


# --- variants -----------------------------------------------------------------------------------


def test_variants_compare_heads(tmp_path: Path) -> None:
    bare = Variant(name="bare", params=BARE)
    wide = Variant(name="wide", params=replace(BARE, lanes=3), base="bare")
    many = Variant(name="many", params=BARE, base="bare", times=4)
    result = run_area(BARE, report_dir=tmp_path, cache_dir=None, variants=(bare, wide, many))
    rows = {row["name"]: row for row in result["variants"]}
    assert list(rows) == ["bare", "wide", "many"]
    own = result["readouts"][BARE.readout]
    for name in ("cells", "area_um2", "gate_equivalents", "flip_flops", "config_hash"):
        assert rows["bare"][name] == own[name]
    assert rows["bare"]["base"] is rows["bare"]["difference"] is rows["bare"]["ratio"] is None
    assert rows["bare"]["per_head"] == own["gate_equivalents"]
    assert rows["wide"]["config_hash"] == wide.params.config_hash
    more = rows["wide"]["area_um2"] - rows["bare"]["area_um2"]
    assert more > 0
    assert rows["wide"]["difference"] == round(more / result["gate_equivalent_um2"], 1)
    assert rows["wide"]["ratio"] == round(1 + more / rows["bare"]["area_um2"], 4)
    assert rows["many"]["ratio"] == 0.25
    assert rows["many"]["code_store_bits"] == 0

    console = Console(width=100, file=io.StringIO())
    console.print(variant_table(result))
    lines = console.file.getvalue().splitlines()
    (line,) = (line for line in lines if line.strip().startswith("wide"))
    assert f"{more / result['gate_equivalent_um2']:+,.0f}" in line
    (line,) = (line for line in lines if line.strip().startswith("many"))
    assert "4 × bare" in line
    assert "-75.0%" in line


def test_kept_outcomes_need_no_elaboration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    first = run_area(BARE, report_dir=tmp_path, cache_dir=cache)

    def elaborated(params: HeadParams) -> None:
        raise AssertionError(params)

    monkeypatch.setattr("synth.area.head_parts", elaborated)
    assert run_area(BARE, report_dir=tmp_path, cache_dir=cache) == first
    next(cache.glob("area-*")).unlink()
    with pytest.raises(AssertionError, match="HeadParams"):
        run_area(BARE, report_dir=tmp_path, cache_dir=cache)


def test_the_comparison() -> None:
    names = [variant.name for variant in VARIANTS]
    assert len(set(names)) == len(names)
    assert len({variant.params for variant in VARIANTS}) == len(names)
    by_name = {variant.name: variant for variant in VARIANTS}
    for at, variant in enumerate(VARIANTS):
        assert variant.base is None or variant.base in names[:at]
    default = PRESETS["default"]
    assert by_name["complete"].params == default
    layer = by_name[f"layer of {PRESETS['layer12'].heads}"]
    assert (layer.base, layer.times) == ("complete", layer.params.heads)
    assert replace(layer.params, heads=1) == default
    features = [variant.params for variant in VARIANTS if variant.name.startswith("with ")]
    differences = [
        {
            name
            for name, value in p.as_dict().items()
            if value != PRESETS["streaming"].as_dict()[name]
        }
        for p in features
    ]
    assert all(len(changed) == 1 for changed in differences)
    assert set().union(*differences) == {
        "shots", "sinks", "trim_bits", "age_bits", "self_test", "refresh",
    }  # fmt: skip


class Store(Component):
    """A memory with logic at its ports."""

    def __init__(self) -> None:
        super().__init__(
            {"address": In(4), "mask": In(4), "data": In(8), "write": In(1), "read": Out(8)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=16, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.addr.eq(self.address ^ self.mask),
            write.data.eq(self.data),
            write.en.eq(self.write),
            read.addr.eq(self.address),
            read.en.eq(1),
        ]
        m.d.sync += self.read.eq(read.data)
        return m


def test_a_store_s_memory_is_counted_in_bits() -> None:
    library = open_library()
    (part,) = cut(component_rtlil(Store(), "top"), "top", "store").values()
    mapped = _synthesise(_job("another", part), library, None)
    apart = _job(STORE, part)
    assert apart.store_bits == 16 * 8
    assert mapped["flip_flops"] >= 16 * 8
    figures = _synthesise(apart, library, None)
    assert figures["flip_flops"] == 8
    assert 4 <= figures["cells"] - 8 < 40  # the address, the register's reset


def test_blocks_are_what_is_below_the_top() -> None:
    parts = head_parts(preset("tiny"))
    assert {_block(path, parts) for path in parts} == BLOCKS


@pytest.mark.skipif(not SKY130.exists(), reason="no sky130 library beside the checkout")
def test_area_on_sky130(tmp_path: Path) -> None:
    result = run_area(BARE, liberty=SKY130, report_dir=tmp_path)
    assert result["readout_ratio"] > 1
    assert result["library"]["file"] == SKY130.name


#: The least that a head can be built of, without timing; and cells that must not be used.
SMALL = (
    "library (small) {\n"
    + gate("G0", "area : 4.0;", "!A", A)
    + gate("G1", "area : 6.25;", "!(A & B)", A + B)
    + gate("NO_AREA_NOR", "", "!(A | B)", A + B)
    + gate("NO_USE_NOR", "area : 1;", "!(A | B)", A + B, "dont_use : true;")
    + FLOP.replace(": 20\n", ": 20;\n").replace('"B" clocked_on : "A"', '"B"; clocked_on : "A";')
    + "}\n"
)


def test_a_library_of_two_gates(tmp_path: Path) -> None:
    library = write(tmp_path, SMALL)
    result = run_area(BARE, liberty=library, report_dir=tmp_path, cache_dir=None)
    assert result["library"]["gate_equivalent"] == "G1"
    for head in result["readouts"].values():
        flops = head["flip_flops"]
        assert head["area_um2"] > 20 * flops + 4 * (head["cells"] - flops)
    assert result["readout_ratio"] > 1


def test_no_inverter(tmp_path: Path) -> None:
    with pytest.raises(LibertyError, match="no inverter"):
        open_library(write(tmp_path, SMALL.replace('"!A"', '"A"')))


def test_cells_that_cannot_be_mapped_are_named(tmp_path: Path) -> None:
    library = open_library(write(tmp_path, SMALL))
    with pytest.raises(YosysError, match=r"window: 3 cells of type \$_DFF_P_ .* small"):
        _figures({"G1": 2, "$_DFF_P_": 3}, library, "window", frozenset())
    assert _figures({"G1": 2, "box": 1}, library, GLUE, frozenset({"box"})) == {
        "cells": 2,
        "area_um2": 12.5,
        "gate_equivalents": 2.0,
        "flip_flops": 0,
    }


def test_table_fits_a_terminal(tiny: tuple[dict, Path]) -> None:
    console = Console(width=80, file=io.StringIO())
    console.print(area_table(tiny[0]))
    text = console.file.getvalue()
    assert "…" not in text
    for block in BLOCKS:
        assert block in text
    assert tiny[0]["config_hash"] in text
