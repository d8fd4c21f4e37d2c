"""From a head to a netlist of cells that meets a clock: mapped, buffered, with gated clocks.

Every block is mapped by itself and keeps its boundary, or all is flattened first. Outcomes are
kept by content: of the block's RTL, the library, the settings and the version of Yosys.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from hw.layer import AttentionLayer
from hw.params import HeadParams
from sim.results import ROOT, write_text_whole
from synth.electrical import CellData, Electrical, read_electrical, units_of
from synth.liberty import COMPOSED_GATE, LibertyError, Library
from synth.loads import Wires
from synth.netlist import Part, cut
from synth.verilog import component_rtlil
from synth.yosys import run_yosys, yosys_version

__all__ = ["EFFORTS", "GLUE", "HIERARCHIES", "Flow", "Mapped", "fo4_ps", "map_head"]

EFFORTS = ("fast", "normal", "high")
HIERARCHIES = ("kept", "flat")
#: What connects the blocks.
GLUE = "glue"
#: Bits of memory that are built of flip-flops at the most; more would be a macro.
MEMORY_LIMIT = 4096
_PROCESSES = 2
_CLOCK_FO4 = 60
_FORMAT = "1"

_MAP = "strash;&get -n;&fraig -x;&put;scorr;dc2;strash;&get -n;&dch -f;&nf {D};&put;"
#: With fewer than eight behind each or less gain, buffers come in long chains.
_BUFFER = "buffer -c -G 1000 -N 8;"
_SIZE = "upsize -c {D};dnsize -c {D};"
#: ABC's commands by effort: Yosys' own for a library with drive strengths, but with wires, and with
#: buffers as above. Twice, since a gate that is sized up wants its driver sized up.
_ABC = {
    "fast": f"strash;&get -n;&nf {{D}};&put;{_BUFFER}{_SIZE}",
    "normal": f"{_MAP}{_BUFFER}{_SIZE}{_SIZE}",
    "high": f"strash;dch;strash;dc2;{_MAP}{_BUFFER}{_SIZE}{_SIZE}{_SIZE}",
}
#: Wires that ABC sizes for: of a block of so many cells, of so many gate equivalents each.
_TYPICAL_CELLS, _TYPICAL_GATES = 10_000, 2.5
_MOST_FAN_OUT = 64


@dataclass(frozen=True, kw_only=True)
class Flow:
    """How a head is mapped to cells."""

    clock_ps: float | None = None  #: period to map for; 60 FO4 delays of the library if None
    effort: str = "normal"  #: "fast", "normal" or "high"
    hierarchy: str = "kept"  #: "kept": blocks by themselves; "flat": all at once
    clock_gating: bool = True  #: stop the clock of flip-flops that keep their value
    gated_least: int = 4  #: flip-flops behind one clock gate at the least
    wire_ff_per_um: float = 0.2  #: capacitance of wires that gates are sized for

    def __post_init__(self) -> None:
        if self.clock_ps is not None and not self.clock_ps > 0:
            raise ValueError(f"clock_ps must be above 0, not {self.clock_ps!r}")
        for name, choices in (("effort", EFFORTS), ("hierarchy", HIERARCHIES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, not {getattr(self, name)!r}")
        if not self.wire_ff_per_um >= 0:
            raise ValueError(f"wire_ff_per_um must be at least 0, not {self.wire_ff_per_um!r}")
        if self.gated_least < 1:
            raise ValueError(f"gated_least must be at least 1, not {self.gated_least!r}")


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """A head as cells of a library."""

    top: str  #: name of the module
    verilog: Path  #: flat netlist
    json: Path  #: the same, as Yosys writes it
    clock_ps: float  #: period it was mapped for
    key: str  #: hash of everything it depends on


def fo4_ps(library: Library) -> float:
    """Delay of an inverter that drives four of its like, mean of both edges; the fastest one's.

    The transition at its input is that at its output.
    """
    cells = read_electrical(library, library.inverters).cells.values()
    return min(_fo4_ps(data) for data in cells)


def _fo4_ps(data: CellData) -> float:
    (output,) = data.outputs
    load = 4 * data.pins[data.inputs[0]].cap_pf
    arc = data.pins[output].arcs[0]
    slew = {edge: 0.05 for edge in arc.delay}
    for _ in range(20):
        slew = {
            edge: float(arc.slew[edge].at(slew.get(other, slew[edge]), load))
            for edge, other in (("rise", "fall"), ("fall", "rise"))
            if edge in arc.slew
        }
    other = {"rise": "fall", "fall": "rise"}
    delays = [float(arc.delay[e].at(slew.get(other[e], slew[e]), load)) for e in arc.delay]
    return 1000 * sum(delays) / len(delays)


def buffer_of(library: Library) -> str | None:
    """The buffer that is fastest with a load of sixteen inverters; None if there is none."""
    inverter = library.inverters[0]
    names = [name for name in library.buffers if library.cells[name].timed]
    data = read_electrical(library, [*names, inverter]).cells
    load = 16 * data[inverter].pins[data[inverter].inputs[0]].cap_pf

    def delay(name: str) -> float:
        arc = data[name].pins[data[name].outputs[0]].arcs[0]
        own = data[name].pins[data[name].inputs[0]].cap_pf
        return sum(float(t.at(0.1, load)) for t in arc.delay.values()) * (1 + own / load)

    return min(names, key=delay, default=None)


def _adder(library: Library) -> str:
    adder = library.full_adder
    if adder is None:
        return ""
    a, b, c = (f".{pin}({port}[i])" for pin, port in zip(adder.inputs, "ABC", strict=True))
    return f"""(* techmap_celltype = "$fa" *)
module map_full_adder (A, B, C, X, Y);
  parameter WIDTH = 1;
  input [WIDTH-1:0] A, B, C;
  output [WIDTH-1:0] X, Y;
  genvar i;
  generate for (i = 0; i < WIDTH; i = i + 1) begin : bits
    {adder.name} adder ({a}, {b}, {c}, .{adder.carry}(X[i]), .{adder.sum}(Y[i]));
  end endgenerate
endmodule
"""


def _enables() -> str:
    """Verilog by which a flip-flop's reset joins its enable, so that its clock can be stopped.

    Yosys names them by polarity of clock, reset, value after reset, and enable; a letter C says
    that the enable goes before the reset.
    """
    modules = []
    for first, r, value, e in product(("", "C"), "PN", "01", "PN"):
        reset, enable = ("R" if r == "P" else "~R"), ("E" if e == "P" else "~E")
        data = f"D & ~({reset})" if value == "0" else f"D | ({reset})"
        open_ = enable if first else f"({enable}) | ({reset})"
        kind = f"$_SDFF{'CE' if first else 'E'}_P{r}{value}{e}_"
        modules.append(
            f"module \\{kind} (input D, C, R, E, output Q);\n"
            f"  \\$_DFFE_PP_ flip_flop (.D({data}), .C(C), .E({open_}), .Q(Q));\nendmodule\n"
        )
    return "".join(modules)


class _Mapper:
    """Maps blocks of one library with one set of settings."""

    def __init__(self, library: Library, flow: Flow) -> None:
        if not library.timed:
            raise LibertyError(
                f"{library.path.name}: no timing tables, or no buffer: the netlist cannot be timed"
            )
        self.library, self.flow = library, flow
        self.clock_ps = round(flow.clock_ps or _CLOCK_FO4 * fo4_ps(library), 1)
        driver = buffer_of(library)
        inverter = library.inverters[0]
        data = read_electrical(library, [inverter]).cells[inverter]
        load_ff = 4000 * data.pins[data.inputs[0]].cap_pf
        self.constraints = f"set_driving_cell {driver}\nset_load {load_ff:.3f}\n"
        self.gate = library.clock_gate if flow.clock_gating else None
        self.wires_pf = Wires(cap_ff_per_um=flow.wire_ff_per_um).connection_pf(
            _TYPICAL_CELLS, _TYPICAL_CELLS * _TYPICAL_GATES * library.gate_equivalent_um2
        )

    @property
    def target_ps(self) -> float:
        """Delay that ABC is to reach: a path may cross two blocks, which know not of each other."""
        return self.clock_ps / (2 if self.flow.hierarchy == "kept" else 1)

    def library_with_wires(self) -> str:
        """The library's text with a table of wires for ABC, which knows no other way."""
        text = self.library.text()
        text = re.sub(r"default_wire_load\w*\s*:\s*[^;\n]*;", "", text)
        unit = units_of(self.library)[1]
        lengths = (
            f"fanout_length ({n}, {n * self.wires_pf / unit:.6g});"
            for n in range(1, _MOST_FAN_OUT + 1)
        )
        table = (
            f'wire_load ("connections") {{ resistance : 0; capacitance : 1; area : 0; '
            f"slope : {self.wires_pf / unit:.6g}; {' '.join(lengths)} }} "
            'default_wire_load : "connections";'
        )
        head = re.match(r"(?:\s|/\*.*?\*/|//[^\n]*)*library\s*\([^)]*\)\s*\{", text, re.S)
        assert head is not None  # it has been parsed
        return f"{text[: head.end()]}\n{table}\n{text[head.end() :]}"

    def script(self, top: str, full_adder: bool) -> list[str]:
        """Commands from a module to cells; files are in the folder ``@``."""
        flow, gate = self.flow, self.gate
        forbidden = " ".join(f"-dont_use {cell}" for cell in self.library.forbidden)
        abc = _ABC[flow.effort].replace(" ", ",")
        commands = [
            f"hierarchy -check -top {top}",
            "proc",
            *(["flatten"] if flow.hierarchy == "flat" else []),
            "check -assert",
            "memory_collect",
            "memory_map",
            # Nothing says what a flip-flop holds at power-up: what counts, the reset makes known.
            "setattr -unset init w:*",
            f"synth -top {top} -noabc -nofsm",
            "opt_clean -purge",
            "setattr -unset init w:*",
        ]
        if gate is not None:
            cell = COMPOSED_GATE if gate.verilog else gate.name
            tied = "".join(f" -tie_lo {pin}" for pin in gate.tied)
            commands += [
                "techmap -map @/enables.v",
                "simplemap",
                "opt_expr",
                "opt_merge",
                "opt_clean",
                f"clockgate -pos {cell} {gate.enable}:{gate.clock}:{gate.output}{tied} "
                f"-min_net_size {flow.gated_least}",
            ]
            if gate.verilog:
                commands += ["read_verilog @/gate.v", f"hierarchy -top {top}", "flatten"]
        if full_adder:
            commands += ["extract_fa -fa", "techmap -map @/adder.v", "simplemap", "opt_clean"]
        return [
            *commands,
            f"dfflibmap -liberty @/library.lib {forbidden}",
            f"abc -liberty @/wires.lib {forbidden} -constr @/constraints "
            f"-D {self.target_ps:.0f} -script +{abc}",
            "opt_clean -purge",
            "rename -enumerate",
        ]

    def key(self, rtlil: str) -> str:
        """Hash of everything that the outcome depends on."""
        gate = self.gate.verilog if self.gate else ""
        scripts = [self.script("", adder) for adder in self.adders]
        parts = (rtlil, self.library.sha256, json.dumps(scripts), gate, self.constraints)
        parts += (_adder(self.library), yosys_version(), f"{self.wires_pf:.6g}", _FORMAT)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @cached_property
    def with_wires(self) -> str:
        """As of `library_with_wires`, made once."""
        return self.library_with_wires()

    @property
    def adders(self) -> tuple[bool, ...]:
        """Scripts tried: without full adders of the library, and with them."""
        if self.library.full_adder is None or self.flow.effort == "fast":
            return (False,)
        return (False, True)

    def map(self, part: Part, cache_dir: Path) -> Path:
        """Map a module; returns RTLIL of its cells."""
        kept = cache_dir / f"cells-{self.key(part.rtlil)[:32]}.il"
        if kept.exists():
            return kept
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "library.lib").symlink_to(self.library.file)
            (folder / "wires.lib").write_text(self.with_wires, encoding="utf-8")
            (folder / "module.il").write_text(part.rtlil, encoding="utf-8")
            (folder / "constraints").write_text(self.constraints, encoding="utf-8")
            (folder / "adder.v").write_text(_adder(self.library), encoding="utf-8")
            if self.gate:
                (folder / "enables.v").write_text(_enables(), encoding="utf-8")
                (folder / "gate.v").write_text(self.gate.verilog, encoding="utf-8")
            outcomes = []
            for adder in self.adders:
                target, stat = folder / f"{adder}.il", folder / f"{adder}.json"
                commands = [c.replace("@", str(folder)) for c in self.script(part.name, adder)]
                run_yosys(
                    f"read_rtlil {folder}/module.il",
                    *commands,
                    f"tee -q -o {stat} stat -liberty {folder}/library.lib -json",
                    f"write_rtlil {target}",
                )
                modules = json.loads(stat.read_text(encoding="utf-8"))["modules"]
                outcomes.append((float(modules[f"\\{part.name}"].get("area", 0.0)), target))
            text = min(outcomes)[1].read_text(encoding="utf-8")
        write_text_whole(kept, text)
        return kept


def map_head(
    params: HeadParams,
    library: Library,
    flow: Flow | None = None,
    *,
    cache_dir: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Mapped:
    """Map a head to cells; what was mapped before is read back.

    Parameters
    ----------
    params
        The head.
    library
        Its cells.
    flow
        How; the defaults of `Flow` if None.
    cache_dir
        Where outcomes are kept; ``build/cache`` of this checkout by default.
    on_progress
        Called with blocks done and blocks in all.

    Raises
    ------
    LibertyError
        The library lacks something.
    ValueError
        The head has a memory that would be a macro: no library of cells has one.
    YosysError
        A script failed.
    """
    flow = flow or Flow()
    cache = cache_dir or ROOT / "build" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    rtlil = component_rtlil(AttentionLayer(params), params.top)
    mapper = _Mapper(library, flow)
    key = mapper.key(rtlil)[:32]
    mapped = Mapped(
        top=params.top,
        verilog=cache / f"netlist-{key}.v",
        json=cache / f"netlist-{key}.json",
        clock_ps=mapper.clock_ps,
        key=key,
    )
    if mapped.verilog.exists() and mapped.json.exists():
        return mapped
    if flow.hierarchy == "kept":
        parts = cut(rtlil, params.top, params.top)
    else:
        parts = {(): Part(params.top, rtlil, frozenset(), 0)}
        bits = sum(part.memory_bits for part in cut(rtlil, params.top, params.top).values())
        _check_memory(bits)
    _check_memory(sum(part.memory_bits for part in parts.values()))
    unique = {part.rtlil: part for part in parts.values()}
    files: dict[str, Path] = {}
    with ThreadPoolExecutor(_PROCESSES) as pool:
        # The longest first, so that no process is left with it at the end.
        longest = sorted(unique.values(), key=lambda part: -len(part.rtlil))
        futures = {pool.submit(mapper.map, part, cache): part for part in longest}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                files[futures[future].rtlil] = future.result()
                if on_progress:
                    on_progress(done, len(futures))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _link(mapped, [(path, files[part.rtlil], part) for path, part in parts.items()], library)
    return mapped


def _check_memory(bits: int) -> None:
    if bits > MEMORY_LIMIT:
        raise ValueError(
            f"the head's memories must have at most {MEMORY_LIMIT} bits, not {bits}: more would be "
            f"a memory macro, which a library of cells does not have; leave refresh out"
        )


def _link(
    mapped: Mapped, modules: Sequence[tuple[tuple[str, ...], Path, Part]], library: Library
) -> None:
    """Put mapped modules together; the names of cells begin with the path to their module."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, (path, file, part) in enumerate(modules):
            text = file.read_text(encoding="utf-8")
            (folder / f"{number}.il").write_text(
                _instance(text, path, part, mapped.top), encoding="utf-8"
            )
        verilog, netlist = folder / "head.v", folder / "head.json"
        run_yosys(
            *(f"read_rtlil {folder}/{number}.il" for number in range(len(modules))),
            f"read_liberty -lib -ignore_miss_func {library.file}",
            f"hierarchy -check -top {mapped.top}",
            "flatten",
            "opt_clean -purge",
            "check -mapped -assert",
            f"write_json {netlist}",
            f"write_verilog -noattr -noexpr -nohex -norename {verilog}",
        )
        text = verilog.read_text(encoding="utf-8")
        title = f"// {mapped.top}, cells of {library.name}\n"
        write_text_whole(mapped.json, netlist.read_text(encoding="utf-8"))
        write_text_whole(mapped.verilog, title + text[text.index("\n") + 1 :])


_BOX = re.compile(r"^(?:attribute [^\n]*\n)*module \\(\S+)\n.*?^end$\n?", re.M | re.S)


def _instance(text: str, path: tuple[str, ...], part: Part, top: str) -> str:
    """RTLIL of one instance's module, with names of its own for it and for what it contains."""

    def module(match: re.Match[str]) -> str:
        if match[1] != part.name:
            return ""  # a box
        name = _unique(path) if path else top
        own = match[0].replace(f"module \\{part.name}\n", f"module \\{name}\n", 1)

        def cell(found: re.Match[str]) -> str:
            kind, instance = found.groups()
            if kind not in part.boxes:
                return found[0]
            return f"  cell \\{_unique((*path, instance))} \\{instance}\n"

        return re.sub(r"^  cell \\(\S+) \\(\S+)\n", cell, own, flags=re.M)

    return _BOX.sub(module, text)


def _unique(path: tuple[str, ...]) -> str:
    return "$".join(("block", *path))


def electrical_of(library: Library, netlist: dict[str, Any]) -> Electrical:
    """Electrical data of the cells that a netlist, as Yosys writes it, is made of."""
    kinds = {c["type"] for m in netlist["modules"].values() for c in m["cells"].values()}
    return read_electrical(library, sorted(kinds & library.cells.keys()))
