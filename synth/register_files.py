"""Register map in the forms that others read: SystemRDL, HTML, C header, Python, Markdown.

All come from `hw.registers` alone and are deterministic. PeakRDL makes the HTML from the SystemRDL.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hw.params import HeadParams
from hw.registers import VERSION, Access, Field, Register, RegisterMap
from sim.results import write_text_whole

__all__ = [
    "c_header",
    "markdown_table",
    "python_module",
    "systemrdl",
    "write_html",
    "write_register_files",
]

#: Properties of SystemRDL that say what a field's access is.
_RDL_ACCESS = {
    Access.CONSTANT: "sw = r; hw = na;",
    Access.STATUS: "sw = r; hw = w;",
    Access.SETTING: "sw = rw; hw = r; waits;",
    Access.DIRECT: "sw = rw; hw = r;",
    Access.STICKY: "sw = rw; onwrite = woclr; hw = w; hwset; precedence = hw;",
    Access.COMMAND: "sw = w; hw = r; singlepulse;",
    Access.WRITE: "sw = w; hw = r;",
}


def _title(params: HeadParams) -> str:
    return f"Registers of {params.top}, configuration {params.config_hash}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# --- SystemRDL ----------------------------------------------------------------------------------
def systemrdl(params: HeadParams) -> str:
    """Text of the map in SystemRDL 2.0."""
    major, minor = VERSION
    lines = [
        f"// {_title(params)}.",
        "// Range of what may be written, if the bits could hold more; two's complement; a write",
        "// that is answered once the head is quiet and the value in effect.",
        "property valid_range { type = string; component = field; };",
        "property is_signed { type = boolean; component = field; default = true; };",
        "property waits { type = boolean; component = field; default = true; };",
        "",
        f"addrmap {params.top}_registers {{",
        f"    name = {_quoted(_title(params))};",
        f"    desc = {_quoted(f'Version {major}.{minor} of the map. AXI4-Lite, 32 bits.')};",
        "    default regwidth = 32;",
        "    default accesswidth = 32;",
        "    littleendian;",
        "    lsb0;",
    ]
    for register in RegisterMap(params):
        lines += ["", "    reg {", f"        name = {_quoted(register.name)};"]
        lines.append(f"        desc = {_quoted(register.meaning)};")
        for field in register.fields:
            lines += [
                "        field {",
                f"            desc = {_quoted(field.meaning)};",
                f"            {_RDL_ACCESS[field.access]}",
            ]
            if field.access.writable and (field.low, field.high) != field.natural:
                lines.append(f'            valid_range = "{field.low}..{field.high}";')
            if field.signed:
                lines.append("            is_signed;")
            bits = f"[{field.lsb + field.width - 1}:{field.lsb}]"
            # What hardware alone writes has no value that reset gives it.
            reset = "" if field.access is Access.STATUS else f" = {field.reset:#x}"
            lines.append(f"        }} {field.name}{bits}{reset};")
        array = "" if register.count is None else f"[{register.count}]"
        lines.append(f"    }} {register.name}{array} @ {register.offset:#05x};")
    return "\n".join([*lines, "};", ""])


def write_html(rdl: Path, folder: Path, configuration: str) -> None:
    """Make the HTML pages of a SystemRDL file with PeakRDL, the configuration's hash given."""
    from peakrdl_html import HTMLExporter
    from systemrdl import RDLCompiler

    compiler = RDLCompiler()
    compiler.compile_file(str(rdl))
    exporter = HTMLExporter(extra_doc_properties=["valid_range", "is_signed", "waits"])
    top = compiler.elaborate().top
    exporter.export(top, str(folder), title=top.get_property("name"))
    # The pages hold the time they were made at, to void a browser's cache; the configuration does
    # that too, and the same pages come out each time.
    index = folder / "index.html"
    text = index.read_text(encoding="utf-8")
    (made,) = re.findall(r"BUILD_TS = (\d+);", text)
    index.write_text(text.replace(made, str(int(configuration, 16))), encoding="utf-8")


# --- C and Python -------------------------------------------------------------------------------
def _constants(params: HeadParams) -> Iterator[tuple[Register, list[tuple[str, str]]]]:
    """Names and values of the constants of each register, as both languages write them."""
    for register in RegisterMap(params):
        name = register.name.upper()
        constants = [(f"{name}_OFFSET", f"{register.offset:#05x}")]
        if register.count is not None:
            constants.append((f"{name}_COUNT", f"{register.count}"))
        if any(field.access is not Access.STATUS for field in register.fields):
            constants.append((f"{name}_RESET", f"{register.reset:#010x}"))
        for field in register.fields:
            prefix = f"{name}_{field.name.upper()}"
            constants.append((f"{prefix}_LSB", f"{field.lsb}"))
            constants.append((f"{prefix}_MASK", f"{field.mask:#010x}"))
            if field.access.writable:
                constants.append((f"{prefix}_MIN", f"{field.low}"))
                constants.append((f"{prefix}_MAX", f"{field.high}"))
        yield register, constants


def c_header(params: HeadParams) -> str:
    """Text of a C header that needs no other."""
    guard = f"{params.top.upper()}_REGISTERS_H"
    major, minor = VERSION
    lines = [
        f"/* {_title(params)}. Offsets are in bytes. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        f'#define GAINCELL_CONFIGURATION "{params.config_hash}"',
        f"#define GAINCELL_MAP_VERSION {(major << 16) | minor:#010x}u",
    ]
    for register, constants in _constants(params):
        lines += ["", f"/* {register.name}: {register.meaning} */"]
        for name, value in constants:
            suffix = "" if value.startswith("-") or name.endswith("_LSB") else "u"
            # A range below zero is one of signed numbers.
            if name.endswith("_MAX") and register.fields[0].signed:
                suffix = ""
            lines.append(f"#define GAINCELL_{name} ({value}{suffix})")
    return "\n".join([*lines, "", f"#endif /* {guard} */", ""])


def python_module(params: HeadParams) -> str:
    """Text of a Python module of constants, under the names of the C header without prefix."""
    lines = [
        f'"""{_title(params)}. Offsets are in bytes."""',
        "",
        f'CONFIGURATION = "{params.config_hash}"',
        f"MAP_VERSION = {VERSION}",
    ]
    for register, constants in _constants(params):
        lines += ["", f"# {register.name}: {register.meaning}"]
        lines += [f"{name} = {value}" for name, value in constants]
    return "\n".join([*lines, ""])


# --- documents ----------------------------------------------------------------------------------
#: Features, and what is changed to leave them out.
_FEATURES: dict[str, dict[str, Any]] = {
    "heads": {"heads": 1},
    "shots": {"shots": False},
    "sinks": {"sinks": 0},
    "ages": {"age_bits": 0},
    "trims": {"trim_bits": 0},
    "refresh": {"refresh": False},
    "self-test": {"self_test": False},
}


def _needs(params: HeadParams) -> dict[tuple[str, str], str]:
    """Feature that each field needs, if any."""
    needs: dict[tuple[str, str], str] = {}
    for feature, change in _FEATURES.items():
        less = RegisterMap(dataclasses.replace(params, **change))
        for register in RegisterMap(params):
            for field in register.fields:
                if register.name not in less or field.name not in less[register.name]:
                    key = (register.name, field.name)
                    needs[key] = f"{needs[key]}, {feature}" if key in needs else feature
    return needs


def _reset_text(register: Register, field: Field) -> str:
    if field.access in (Access.STATUS, Access.COMMAND, Access.WRITE):
        return ""
    wide = register.name in ("id", "config_hash")
    return f"`{field.reset:#x}`" if wide else f"{field.reset}"


def markdown_table(params: HeadParams) -> str:
    """Table of every field, and the feature without which it is absent."""
    header = "offset | register | bits | field | access | reset | range | needs | meaning"
    lines = [f"| {header} |", f"| {' | '.join(['---'] * 9)} |"]
    needs = _needs(params)
    for register in RegisterMap(params):
        entries = "" if register.count is None else f"[{register.count}]"
        for at, field in enumerate(register.fields):
            high = field.lsb + field.width - 1
            bits = f"{high}..{field.lsb}" if field.width > 1 else f"{field.lsb}"
            bounded = field.access.writable and (field.low, field.high) != field.natural
            cells = (
                f"`{register.offset:#05x}`" if at == 0 else "",
                f"`{register.name}{entries}`" if at == 0 else "",
                bits,
                f"`{field.name}`",
                field.access.text,
                _reset_text(register, field),
                f"{field.low}..{field.high}" if bounded else "",
                needs.get((register.name, field.name), ""),
                f"{register.meaning} {field.meaning}" if at == 0 else field.meaning,
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


# --- files --------------------------------------------------------------------------------------
def write_register_files(params: HeadParams, folder: Path) -> list[Path]:
    """Write SystemRDL, C header, Python module and HTML.

    Returns
    -------
    list of Path
        The files, and the folder of the HTML.

    """
    top = params.top
    texts = {
        f"{top}.rdl": systemrdl(params),
        f"{top}.h": c_header(params),
        f"{top}_registers.py": python_module(params),
    }
    for name, text in texts.items():
        write_text_whole(folder / name, text)
    pages = folder / "html"
    with tempfile.TemporaryDirectory() as scratch:
        # PeakRDL names the source's folder in its messages only.
        rdl = Path(scratch) / f"{top}.rdl"
        rdl.write_text(texts[f"{top}.rdl"], encoding="utf-8")
        write_html(rdl, pages, params.config_hash)
    return [*(folder / name for name in texts), pages]
