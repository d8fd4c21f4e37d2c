"""Standard-cell libraries: what the synthesis flow must know of a Liberty file, from its content.

No cell name is known beforehand: a NAND gate, a flip-flop and a full adder are recognised by
their functions, so any library works that has them.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sim.results import ROOT, write_text_whole

__all__ = [
    "DEFAULT_LIBERTY",
    "Adder",
    "Cell",
    "ClockGate",
    "Group",
    "LibertyError",
    "Library",
    "evaluate",
    "open_library",
    "parse_liberty",
    "truth_table",
]

#: Library used when none is named: Oklahoma State University's cells for a 0.18 µm process.
DEFAULT_LIBERTY = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")


#: What files that make one library must agree on.
_SHARED = (
    "time_unit",
    "voltage_unit",
    "current_unit",
    "leakage_power_unit",
    "capacitive_load_unit",
    "nom_voltage",
    "slew_lower_threshold_pct_rise",
    "slew_upper_threshold_pct_rise",
    "slew_derate_from_library",
)
_MERGED = ("cell", "lu_table_template", "power_lut_template")


class LibertyError(ValueError):
    """The file is no Liberty library, or lacks what the flow needs; the message says what."""


# --- Syntax -------------------------------------------------------------------------------------

_BLANK = r"(?:\s|/\*.*?\*/|//[^\n]*)*+"
_STRING = r'"(?:[^"\\]|\\.)*+"'
_NAME = re.compile(rf'(?:{_BLANK}[;,])*+{_BLANK}(?:({_STRING}|[^\s{{}}():;,"]++)|(\}}))', re.S)
_COLON = re.compile(rf"{_BLANK}:{_BLANK}", re.S)
_VALUE = re.compile(rf'({_STRING}|(?:{_STRING}|/\*.*?\*/|[^;{{}}\n"])*+);?', re.S)
_ARGUMENTS = re.compile(rf'{_BLANK}\(((?:{_STRING}|[^()"]|\([^()]*\))*+)\){_BLANK}(\{{)?', re.S)
_BRACE = re.compile(rf"{_STRING}|/\*.*?\*/|//[^\n]*|([{{}}])", re.S)
_CONTINUATION = re.compile(r"\\[ \t]*\r?\n")
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)

#: Groups with something the flow needs; everything else (tables, mostly) is skipped.
_KEPT = frozenset(
    "library cell pin bus bundle ff ff_bank latch latch_bank statetable test_cell".split()
)
#: Groups that are large and of no use here, tables wanted or not: the waveforms of other models.
_SKIPPED = frozenset(
    "output_current_rise output_current_fall receiver_capacitance ccsn_first_stage "
    "ccsn_last_stage normalized_driver_waveform test_cell".split()
)


@dataclass
class Group:
    """One group of a Liberty file: ``kind(args) { attributes and groups }``."""

    kind: str
    args: tuple[str, ...]
    attributes: dict[str, str] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)  #: complex attributes
    #: Of the library: kind, name, begin and end in the text of every group in it.
    spans: list[tuple[str, str, int, int]] = field(default_factory=list)

    def all(self, *kinds: str) -> Iterator[Group]:
        """Groups of these kinds, in the order of the file."""
        return (group for group in self.groups if group.kind in kinds)

    def flag(self, name: str) -> bool:
        """Value of a boolean attribute; absent is false."""
        return self.attributes.get(name, "false").lower() in ("true", "1")


def _unquote(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def _arguments(text: str) -> tuple[str, ...]:
    parts = re.findall(rf'(?:{_STRING}|[^,"])+', _COMMENT.sub(" ", text), re.S)
    return tuple(part for part in map(_unquote, parts) if part)


def _unfolded(text: str) -> str:
    """Text with continued lines joined; positions in it are what `Group.spans` tells."""
    return _CONTINUATION.sub(" ", text.lstrip("\ufeff"))


def parse_liberty(text: str, *, tables_of: Set[str] | None = None) -> Group:
    """Library group of a Liberty file's text.

    Tolerated, because libraries in use have them: attributes without a semicolon, semicolons
    after groups, unquoted expressions, lines continued with a backslash, Windows line ends.

    Parameters
    ----------
    text
        The file's content.
    tables_of
        Cells of which everything is read, and no other cell; without it all cells are read, but
        no tables.

    Raises
    ------
    LibertyError
        The text is not a library; the message names the line.
    """
    text = _unfolded(text)
    match = _NAME.match(text)
    opening = _ARGUMENTS.match(text, match.end()) if match else None
    if not match or match[1] != "library" or not opening or not opening[2]:
        raise LibertyError("not a Liberty file: it must begin with a library group")

    def fail(what: str, at: int) -> LibertyError:
        return LibertyError(f"not a Liberty file: {what} in line {text.count(chr(10), 0, at) + 1}")

    def span(kind: str, args: tuple[str, ...]) -> None:
        library.spans.append((kind, args[0] if args else "", start, at))

    library = Group("library", _arguments(opening[1]))
    stack = [library]
    start = at = opening.end()
    while stack:
        match = _NAME.match(text, at)
        if not match:
            raise fail("text or a closing brace is missing", len(text.rstrip()))
        at = match.end()
        if match[2]:
            ended = stack.pop()
            if len(stack) == 1:
                span(ended.kind, ended.args)
            continue
        name = _unquote(match[1])
        if len(stack) == 1:
            start = match.start()
        if colon := _COLON.match(text, at):
            value = _VALUE.match(text, colon.end())
            assert value is not None  # matches the empty string too
            plain = value[1] if value[1].startswith('"') else _COMMENT.sub("", value[1])
            stack[-1].attributes[name] = _unquote(plain)
            at = value.end()
        elif opening := _ARGUMENTS.match(text, at):
            at = opening.end()
            if not opening[2]:
                if tables_of is not None or len(stack) == 1:
                    stack[-1].lists[name] = _arguments(opening[1])
                continue
            kept = name in _KEPT if tables_of is None else name not in _SKIPPED
            if kept and tables_of is not None and name == "cell":
                kept = not tables_of.isdisjoint(_arguments(opening[1]))
            if kept:
                group = Group(name, _arguments(opening[1]))
                stack[-1].groups.append(group)
                stack.append(group)
                continue
            if name == "timing":
                stack[-1].attributes["timing"] = "true"
            depth = 1
            while depth:
                brace = _BRACE.search(text, at)
                if not brace:
                    raise fail("a closing brace is missing", len(text.rstrip()))
                at = brace.end()
                depth += {"{": 1, "}": -1}.get(brace[1], 0)
            if len(stack) == 1:
                span(name, _arguments(opening[1]))
        else:
            raise fail(f"expected ':' or '(' after {name!r}", at)
    return library


# --- Functions ----------------------------------------------------------------------------------

_FUNCTION_TOKEN = re.compile(r"\s*([A-Za-z_][\w.\[\]:]*|[01]|[!'&|*+^()])")


def evaluate(function: str, values: Mapping[str, Any], ones: Any) -> Any:
    """Value of a Liberty function of operands on which ``&``, ``|`` and ``^`` work bit by bit.

    Parameters
    ----------
    function
        The expression, as the file has it.
    values
        Value of each name in it: integers, or arrays of words with a bit per case.
    ones
        The value that is true in every case.

    Raises
    ------
    KeyError
        The expression has a name without a value, or is none.
    """
    tables = {"0": ones ^ ones, "1": ones, **values}
    tokens: list[str] = []
    at, end = 0, len(function.rstrip())
    while at < end:
        match = _FUNCTION_TOKEN.match(function, at)
        if not match:
            raise KeyError(function)
        tokens.append(match[1])
        at = match.end()
    tokens.append("")

    def operand() -> Any:
        token = tokens.pop(0)
        if token == "!":
            return ones ^ operand()
        if token == "(":
            value = alternative()
            if tokens.pop(0) != ")":
                raise KeyError(token)
        else:
            value = tables[token]
        while tokens[0] == "'":
            tokens.pop(0)
            value = value ^ ones
        return value

    def parity() -> Any:
        value = operand()
        while tokens[0] == "^":
            tokens.pop(0)
            value = value ^ operand()
        return value

    def product() -> Any:
        value = parity()
        while tokens[0] not in ("", ")", "+", "|"):  # two operands side by side are a product
            if tokens[0] in ("&", "*"):
                tokens.pop(0)
            value = value & parity()
        return value

    def alternative() -> Any:
        value = product()
        while tokens[0] in ("+", "|"):
            tokens.pop(0)
            value = value | product()
        return value

    try:
        value = alternative()
    except IndexError:
        raise KeyError(function) from None
    if tokens != [""]:
        raise KeyError(function)
    return value


def truth_table(function: str, inputs: tuple[str, ...]) -> int | None:
    """Truth table of a Liberty function: bit ``i`` is the value for input code ``i``.

    Bit ``j`` of the code is the value of ``inputs[j]``. ``None`` if the function is no expression
    of these inputs alone (the output of a flip-flop, say).
    """
    size = 1 << len(inputs)
    values = {name: sum(1 << i for i in range(size) if i >> j & 1) for j, name in enumerate(inputs)}
    try:
        table = evaluate(function, values, (1 << size) - 1)
    except KeyError:
        return None
    return int(table)


# --- Cells --------------------------------------------------------------------------------------

_INVERTER, _BUFFER, _NAND2, _AND2 = 0b01, 0b10, 0b0111, 0b1000
_MAJORITY, _XOR3 = 0b11101000, 0b10010110

#: Cells with these attributes have a function but another purpose than logic.
_SPECIAL = (
    "is_isolation_cell",
    "is_level_shifter",
    "is_clock_isolation_cell",
    "always_on",
    "pad_cell",
    "is_pad",
)
_GATE_PINS = ("clock", "enable", "out", "test", "obs")
#: Module that a clock gate of a latch and an AND gate is.
COMPOSED_GATE = "gaincell_clock_gate"
_SPECIAL_VALUED = ("clock_gating_integrated_cell", "retention_cell", "switch_cell_type")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a library, as far as the flow cares."""

    name: str
    area_um2: float | None  #: None: the library does not say
    usable: bool  #: has an area, and neither ``dont_use`` nor a special purpose forbids it
    inputs: tuple[str, ...]
    tables: dict[str, int]  #: truth table of each output that is a function of the inputs alone
    outputs: int  #: number of outputs
    flip_flop: bool  #: stores a single bit on a clock edge
    plain_flip_flop: bool  #: stores an input as it is: neither scan nor enable
    rising: bool  #: on the clock's rising edge
    timed: bool  #: has timing tables
    clock_gate: ClockGate | None = None  #: if that is its purpose
    latch: tuple[str, str, str, bool] | None = None  #: data, enable, output, transparent if low


@dataclass(frozen=True, kw_only=True)
class Adder:
    """A full adder of a library."""

    name: str
    area_um2: float
    inputs: tuple[str, ...]
    sum: str
    carry: str


def _area(cell: Group) -> float | None:
    try:
        area = float(cell.attributes["area"])
    except (KeyError, ValueError):
        return None
    return area if area > 0 else None


def _cell(group: Group) -> Cell:
    inputs: list[str] = []
    functions: dict[str, str] = {}
    outputs = 0
    for pin in group.all("pin", "bus", "bundle"):
        direction = pin.attributes.get("direction", "").lower()
        if direction == "input":
            inputs += pin.args
        elif direction in ("output", "inout"):
            outputs += len(pin.args)
            if pin.kind == "pin" and direction == "output" and "three_state" not in pin.attributes:
                functions |= dict.fromkeys(pin.args, pin.attributes.get("function", ""))
    storage = list(group.all("ff", "ff_bank", "latch", "latch_bank", "statetable"))
    multi_bit = any(group.all("bus", "bundle", "ff_bank", "latch_bank"))
    flops = [storage[0]] if len(storage) == 1 and storage[0].kind == "ff" else []
    next_state = flops[0].attributes.get("next_state", "") if flops else ""
    clocked_on = flops[0].attributes.get("clocked_on", "") if flops else ""
    special = any(map(group.flag, _SPECIAL)) or any(
        name in group.attributes for name in _SPECIAL_VALUED
    )
    area = _area(group)
    tables = {}
    if not storage and not multi_bit and len(inputs) <= 8:
        for output, function in functions.items():
            table = truth_table(function, tuple(inputs))
            if table is not None:
                tables[output] = table
    return Cell(
        name=group.args[0] if group.args else "",
        area_um2=area,
        usable=area is not None and not special and not group.flag("dont_use"),
        inputs=tuple(inputs),
        tables=tables,
        outputs=outputs,
        flip_flop=bool(flops) and not multi_bit,
        plain_flip_flop=bool(flops)
        and not multi_bit
        and any(truth_table(next_state, (name,)) in (0b10, 0b01) for name in inputs),
        timed=any(pin.flag("timing") for pin in group.all("pin")),
        clock_gate=_clock_gate(group),
        latch=None if multi_bit or special or group.flag("dont_use") else _latch(group),
        rising=any(truth_table(clocked_on, (name,)) == 0b10 for name in inputs),
    )


def _is_gate(cell: Cell, inputs: int, table: int) -> bool:
    """Whether a cell is a plain gate of this function."""
    gate = len(cell.inputs) == inputs and cell.outputs == 1
    return gate and list(cell.tables.values()) == [table]


def _full_adder(cells: list[Cell]) -> Adder | None:
    """Smallest cell of three inputs whose two outputs are their sum and their carry."""
    found = []
    for cell in cells:
        by_table = {table: output for output, table in cell.tables.items()}
        if len(cell.inputs) == 3 and cell.outputs == 2 and by_table.keys() == {_XOR3, _MAJORITY}:
            assert cell.area_um2 is not None
            found.append(
                Adder(
                    name=cell.name,
                    area_um2=cell.area_um2,
                    inputs=cell.inputs,
                    sum=by_table[_XOR3],
                    carry=by_table[_MAJORITY],
                )
            )
    return min(found, key=lambda adder: (adder.area_um2, adder.name), default=None)


@dataclass(frozen=True, kw_only=True)
class ClockGate:
    """What stops a clock: a cell made for it, or a latch and an AND gate."""

    name: str  #: cell, or ``composed``
    enable: str  #: its pin for the enable
    clock: str
    output: str
    tied: tuple[str, ...] = ()  #: pins that are held low: those for tests
    verilog: str = ""  #: module that is put in place of a composed one


@dataclass(frozen=True, kw_only=True)
class Library:
    """A cell library that the flow can use."""

    name: str  #: as the library calls itself
    path: Path  #: as given; of several files the first
    files: tuple[Path, ...]  #: all that were given
    file: Path  #: all of it in one file, unpacked
    sha256: str  #: of that file's content
    cells: dict[str, Cell]
    nand2: str  #: smallest plain two-input NAND
    gate_equivalent_um2: float  #: its area
    flip_flop: str  #: smallest plain D flip-flop, on the rising edge if there is one
    full_adder: Adder | None
    clock_gate: ClockGate | None
    forbidden: tuple[str, ...]  #: cells that synthesis must not use

    @property
    def inverters(self) -> tuple[str, ...]:
        """Plain inverters, the smallest first."""
        return self._gates(1, _INVERTER)

    @property
    def buffers(self) -> tuple[str, ...]:
        """Plain buffers, the smallest first; cells meant to delay are among them."""
        return self._gates(1, _BUFFER)

    def _gates(self, inputs: int, table: int) -> tuple[str, ...]:
        cells = [c for c in self.cells.values() if c.usable and _is_gate(c, inputs, table)]
        return tuple(cell.name for cell in sorted(cells, key=lambda c: (c.area_um2 or 0, c.name)))

    def text(self) -> str:
        """Content of the library."""
        return self.file.read_text(encoding="utf-8", errors="replace")

    @property
    def timed(self) -> bool:
        """Whether ABC's default script works: it needs timing tables and a buffer."""
        timed = any(self.cells[name].timed for name in self.buffers)
        return self.cells[self.nand2].timed and timed

    def genlib(self) -> str:
        """Usable gates as a genlib: functions and areas alone, for libraries not `timed`."""
        lines = [f"GATE _const{bit}_ 0 Y=CONST{bit};" for bit in (0, 1)]  # wires, to Yosys
        for cell in self.cells.values():
            if not cell.usable or len(cell.tables) != 1 or cell.outputs != 1:
                continue
            ((output, table),) = cell.tables.items()
            terms = [
                "*".join(
                    name if code >> j & 1 else f"!{name}" for j, name in enumerate(cell.inputs)
                )
                for code in range(1 << len(cell.inputs))
                if table >> code & 1
            ]
            if cell.inputs and 0 < len(terms) < 1 << len(cell.inputs):
                lines.append(f"GATE {cell.name} {cell.area_um2} {output}={'+'.join(terms)};")
                lines.append("PIN * UNKNOWN 1 999 1 0 1 0")
        return "\n".join(lines) + "\n"


def _clock_gate(group: Group) -> ClockGate | None:
    """Roles of the pins, if the cell gates a clock that is low while it is stopped."""
    kind = group.attributes.get("clock_gating_integrated_cell", "")
    if not kind.startswith("latch_posedge"):
        return None
    pins: dict[str, list[str]] = {role: [] for role in _GATE_PINS}
    for pin in group.all("pin"):
        for role in _GATE_PINS:
            if pin.flag(f"clock_gate_{role}_pin"):
                pins[role] += pin.args
    if not all(len(pins[role]) == 1 for role in ("clock", "enable", "out")):
        return None
    (clock,), (enable,), (output,) = pins["clock"], pins["enable"], pins["out"]
    tied = (*pins["test"], *pins["obs"])
    return ClockGate(name=group.args[0], enable=enable, clock=clock, output=output, tied=tied)


def _latch(group: Group) -> tuple[str, str, str, bool] | None:
    """Pins of a plain latch: data, enable, output, and whether it is transparent when low."""
    latches = list(group.all("latch", "ff", "statetable", "ff_bank", "latch_bank"))
    pins = list(group.all("pin"))
    if len(latches) != 1 or latches[0].kind != "latch" or len(pins) != 3:
        return None
    inputs = tuple(p.args[0] for p in pins if p.attributes.get("direction") == "input")
    state = latches[0].args[0] if latches[0].args else ""
    outputs = [p.args[0] for p in pins if p.attributes.get("function") == state]
    attributes = latches[0].attributes
    if len(inputs) != 2 or len(outputs) != 1 or attributes.keys() != {"data_in", "enable"}:
        return None
    data = [n for n in inputs if truth_table(attributes["data_in"], (n,)) == _BUFFER]
    high = [n for n in inputs if truth_table(attributes["enable"], (n,)) == _BUFFER]
    low = [n for n in inputs if truth_table(attributes["enable"], (n,)) == _INVERTER]
    if len(data) != 1 or len(high + low) != 1:
        return None
    return data[0], (high + low)[0], outputs[0], bool(low)


def _composed_gate(cells: list[Cell]) -> ClockGate | None:
    """Gate of the library's smallest latch and AND gate, for a library without a cell for it.

    A latch needs no area of its own here: some libraries do not state it.
    """

    def smallest(found: list[Cell]) -> Cell | None:
        return min(found, key=lambda cell: (cell.area_um2 or 0.0, cell.name), default=None)

    latch = smallest([cell for cell in cells if cell.latch])
    both = smallest([cell for cell in cells if cell.usable and _is_gate(cell, 2, _AND2)])
    inverter = smallest([cell for cell in cells if cell.usable and _is_gate(cell, 1, _INVERTER)])
    if latch is None or latch.latch is None or both is None or inverter is None:
        return None
    data, enable, output, low = latch.latch

    def instance(cell: Cell, name: str, inputs: tuple[str, ...], wire: str) -> str:
        pins = [f".{pin}({net})" for pin, net in zip(cell.inputs, inputs, strict=True)]
        return f"  {cell.name} {name} ({', '.join(pins)}, .{next(iter(cell.tables))}({wire}));"

    return ClockGate(
        name="composed",
        enable="EN",
        clock="CLK",
        output="GCLK",
        verilog="\n".join(
            [
                f"module {COMPOSED_GATE} (input EN, input CLK, output GCLK);",
                "  wire open, held;",
                "  assign open = CLK;" if low else instance(inverter, "inverter", ("CLK",), "open"),
                f"  {latch.name} latch (.{data}(EN), .{enable}(open), .{output}(held));",
                instance(both, "gate", ("CLK", "held"), "GCLK"),
                "endmodule\n",
            ]
        ),
    )


def _read(path: Path) -> tuple[bytes, bool]:
    if not path.is_file():
        hint = ""
        if path == DEFAULT_LIBERTY:
            hint = " (the default library; Debian's package qflow-tech-osu018 provides it)"
        else:
            hint = f" (without one named, {DEFAULT_LIBERTY} of Debian's qflow-tech-osu018 is used)"
        raise LibertyError(f"Liberty file {path} is missing{hint}")
    content = path.read_bytes()
    if content[:2] != b"\x1f\x8b":
        return content, False
    try:
        return gzip.decompress(content), True
    except (OSError, EOFError, zlib.error) as error:
        raise LibertyError(f"Liberty file {path} cannot be unpacked: {error}") from None


def _merged(texts: Mapping[Path, str]) -> str:
    """One library of several files, that of the first with the cells of the others.

    Raises
    ------
    LibertyError
        Units, thresholds or templates of one contradict those of another, or a cell is in two.
    """
    texts = {path: _unfolded(text) for path, text in texts.items()}
    (first, text), *others = texts.items()
    base = parse_liberty(text)
    known = {
        (kind, name): " ".join(text[start:end].split()) for kind, name, start, end in base.spans
    }
    added = []
    for path, other_text in others:
        other = parse_liberty(other_text)
        for name in _SHARED:
            values = [_shared(library, name) for library in (base, other)]
            if values[0] != values[1]:
                raise LibertyError(
                    f"{name} of several files must be the same, not {values[0]!r} in {first.name} "
                    f"and {values[1]!r} in {path.name}"
                )
        for kind, name, start, end in other.spans:
            if kind not in _MERGED:
                continue
            same = known.setdefault((kind, name), "")
            content = other_text[start:end]
            if same == " ".join(content.split()):
                continue
            if same:
                raise LibertyError(f"{kind} {name} of {path.name} is another in a file before it")
            known[kind, name] = " ".join(content.split())
            added.append(content)
    templates = [part for part in added if not part.lstrip(" ;\n").startswith("cell")]
    cells = [part for part in added if part.lstrip(" ;\n").startswith("cell")]
    before = min((at for kind, _, at, _ in base.spans if kind == "cell"), default=len(text) - 1)
    end = text.rindex("}")
    return "\n".join([text[:before], *templates, text[before:end], *cells, "}"])


def _shared(library: Group, name: str) -> tuple[str, ...]:
    value = library.lists.get(name) or (library.attributes.get(name, "").lower(),)
    return tuple(
        f"{float(part):g}" if re.fullmatch(r"[\d.eE+-]+", part) else part.lower() for part in value
    )


def open_library(
    path: Path | str | Sequence[Path | str] | None = None, *, cache_dir: Path | None = None
) -> Library:
    """Open a Liberty file, plain or compressed with gzip, or several that make one library.

    Parameters
    ----------
    path
        The file or files; `DEFAULT_LIBERTY` if None.
    cache_dir
        Where what is compressed or in several files is put together; ``build/cache`` of this
        checkout by default.

    Raises
    ------
    LibertyError
        A file is missing, is no library, contradicts another, or there is no NAND gate, inverter
        or flip-flop with an area.
    """
    if path is None or not path:
        path = DEFAULT_LIBERTY
    paths = [Path(p) for p in ([path] if isinstance(path, Path | str) else path)]
    path = paths[0]
    packed = len(paths) > 1
    texts: dict[Path, str] = {}
    for each in paths:
        content, compressed = _read(each)
        packed |= compressed
        texts[each] = content.decode("utf-8", errors="replace")
        try:
            library = parse_liberty(texts[each])
        except LibertyError as error:
            raise LibertyError(f"{each.name}: {error}") from None
    text = texts[path]
    if len(texts) > 1:
        text = _merged(texts)
        library = parse_liberty(text)
    sha256 = hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()
    if len(texts) == 1:
        sha256 = hashlib.sha256(content).hexdigest()
    cells = {cell.name: cell for cell in map(_cell, library.all("cell"))}
    usable = [cell for cell in cells.values() if cell.usable]

    nands = [(cell.area_um2 or 0.0, cell.name) for cell in usable if _is_gate(cell, 2, _NAND2)]
    if not nands:
        raise LibertyError(
            f"{path.name}: no two-input NAND cell with an area; it is the gate equivalent that "
            f"areas are counted in"
        )
    if not any(_is_gate(cell, 1, _INVERTER) for cell in usable):
        raise LibertyError(f"{path.name}: no inverter cell with an area")
    flops = [
        (not cell.rising, cell.area_um2 or 0.0, cell.name)
        for cell in usable
        if cell.plain_flip_flop
    ]
    if not flops:
        raise LibertyError(f"{path.name}: no D flip-flop cell with an area (a plain ff group)")

    file = path.resolve()
    if packed:
        file = (cache_dir or ROOT / "build" / "cache") / f"liberty-{sha256[:16]}.lib"
        if not file.exists():
            write_text_whole(file, text)
    return Library(
        name=library.args[0] if library.args else path.name,
        path=path,
        files=tuple(paths),
        file=file,
        sha256=sha256,
        cells=cells,
        nand2=min(nands)[1],
        gate_equivalent_um2=min(nands)[0],
        flip_flop=min(flops)[2],
        full_adder=_full_adder(usable),
        clock_gate=min(
            (cell.clock_gate for cell in cells.values() if cell.clock_gate),
            key=lambda gate: (len(gate.tied), cells[gate.name].area_um2 or 0.0, gate.name),
            default=_composed_gate(list(cells.values())),
        ),
        forbidden=tuple(cell.name for cell in cells.values() if not cell.usable),
    )
