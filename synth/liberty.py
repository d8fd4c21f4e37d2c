"""Standard-cell libraries: what the synthesis flow must know of a Liberty file, from its content.

No cell name is known beforehand: a NAND gate, a flip-flop and a full adder are recognised by
their functions, so any library works that has them.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sim.results import ROOT, write_text_whole

__all__ = [
    "DEFAULT_LIBERTY",
    "Adder",
    "Cell",
    "Group",
    "LibertyError",
    "Library",
    "open_library",
    "parse_liberty",
    "truth_table",
]

#: Library used when none is named: Oklahoma State University's cells for a 0.18 µm process.
DEFAULT_LIBERTY = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")


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


@dataclass
class Group:
    """One group of a Liberty file: ``kind(args) { attributes and groups }``."""

    kind: str
    args: tuple[str, ...]
    attributes: dict[str, str] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)

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


def parse_liberty(text: str) -> Group:
    """Library group of a Liberty file's text, without the tables.

    Tolerated, because libraries in use have them: attributes without a semicolon, semicolons
    after groups, unquoted expressions, lines continued with a backslash, Windows line ends.

    Raises
    ------
    LibertyError
        The text is not a library; the message names the line.
    """
    text = _CONTINUATION.sub(" ", text.lstrip("\ufeff"))
    match = _NAME.match(text)
    opening = _ARGUMENTS.match(text, match.end()) if match else None
    if not match or match[1] != "library" or not opening or not opening[2]:
        raise LibertyError("not a Liberty file: it must begin with a library group")

    def fail(what: str, at: int) -> LibertyError:
        return LibertyError(f"not a Liberty file: {what} in line {text.count(chr(10), 0, at) + 1}")

    library = Group("library", _arguments(opening[1]))
    stack = [library]
    at = opening.end()
    while stack:
        match = _NAME.match(text, at)
        if not match:
            raise fail("text or a closing brace is missing", len(text.rstrip()))
        at = match.end()
        if match[2]:
            stack.pop()
            continue
        name = _unquote(match[1])
        if colon := _COLON.match(text, at):
            value = _VALUE.match(text, colon.end())
            assert value is not None  # matches the empty string too
            plain = value[1] if value[1].startswith('"') else _COMMENT.sub("", value[1])
            stack[-1].attributes[name] = _unquote(plain)
            at = value.end()
        elif opening := _ARGUMENTS.match(text, at):
            at = opening.end()
            if not opening[2]:
                continue  # complex attribute
            if name in _KEPT:
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
        else:
            raise fail(f"expected ':' or '(' after {name!r}", at)
    return library


# --- Functions ----------------------------------------------------------------------------------

_FUNCTION_TOKEN = re.compile(r"\s*([A-Za-z_][\w.\[\]:]*|[01]|[!'&|*+^()])")


def truth_table(function: str, inputs: tuple[str, ...]) -> int | None:
    """Truth table of a Liberty function: bit ``i`` is the value for input code ``i``.

    Bit ``j`` of the code is the value of ``inputs[j]``. ``None`` if the function is no expression
    of these inputs alone (the output of a flip-flop, say).
    """
    size = 1 << len(inputs)
    ones = (1 << size) - 1
    tables = {"0": 0, "1": ones}
    for j, name in enumerate(inputs):
        tables[name] = sum(1 << i for i in range(size) if i >> j & 1)
    tokens: list[str] = []
    at, end = 0, len(function.rstrip())
    while at < end:
        match = _FUNCTION_TOKEN.match(function, at)
        if not match:
            return None
        tokens.append(match[1])
        at = match.end()
    tokens.append("")

    def operand() -> int:
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
            value ^= ones
        return value

    def parity() -> int:
        value = operand()
        while tokens[0] == "^":
            tokens.pop(0)
            value ^= operand()
        return value

    def product() -> int:
        value = parity()
        while tokens[0] not in ("", ")", "+", "|"):  # two operands side by side are a product
            if tokens[0] in ("&", "*"):
                tokens.pop(0)
            value &= parity()
        return value

    def alternative() -> int:
        value = product()
        while tokens[0] in ("+", "|"):
            tokens.pop(0)
            value |= product()
        return value

    try:
        value = alternative()
    except (KeyError, IndexError):
        return None
    return value if tokens == [""] else None


# --- Cells --------------------------------------------------------------------------------------

_INVERTER, _BUFFER, _NAND2 = 0b01, 0b10, 0b0111
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
class Library:
    """A cell library that the flow can use."""

    name: str  #: as the library calls itself
    path: Path  #: as given
    file: Path  #: the same, unpacked
    sha256: str  #: of the unpacked content
    cells: dict[str, Cell]
    nand2: str  #: smallest plain two-input NAND
    gate_equivalent_um2: float  #: its area
    flip_flop: str  #: smallest plain D flip-flop, on the rising edge if there is one
    full_adder: Adder | None
    forbidden: tuple[str, ...]  #: cells that synthesis must not use

    @property
    def timed(self) -> bool:
        """Whether ABC's default script works: it needs timing tables and a buffer."""
        buffers = [c for c in self.cells.values() if c.usable and _is_gate(c, 1, _BUFFER)]
        return self.cells[self.nand2].timed and any(cell.timed for cell in buffers)

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


def open_library(path: Path | str | None = None, *, cache_dir: Path | None = None) -> Library:
    """Open a Liberty file, plain or compressed with gzip.

    Parameters
    ----------
    path
        The file; `DEFAULT_LIBERTY` if None.
    cache_dir
        Where compressed libraries are unpacked to; ``build/cache`` of this checkout by default.

    Raises
    ------
    LibertyError
        The file is missing, is no library, or lacks a NAND gate, an inverter or a flip-flop with
        an area.
    """
    path = Path(path) if path is not None else DEFAULT_LIBERTY
    content, packed = _read(path)
    sha256 = hashlib.sha256(content).hexdigest()
    text = content.decode("utf-8", errors="replace")
    try:
        library = parse_liberty(text)
    except LibertyError as error:
        raise LibertyError(f"{path.name}: {error}") from None
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
        file=file,
        sha256=sha256,
        cells=cells,
        nand2=min(nands)[1],
        gate_equivalent_um2=min(nands)[0],
        flip_flop=min(flops)[2],
        full_adder=_full_adder(usable),
        forbidden=tuple(cell.name for cell in cells.values() if not cell.usable),
    )
