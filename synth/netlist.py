"""A design's RTLIL cut into modules: each by itself, what it contains as boxes of the same ports.

Modules that are alike but for their place in the hierarchy become equal, so that what is done to
one of them need not be done to the others: a layer's heads, or the blocks two heads share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Part", "cut"]

_MODULE = re.compile(r"^(?:attribute [^\n]*\n)*module \\(\S+)\n.*?^end$\n?", re.M | re.S)
_CELL = re.compile(r"^  cell \\(\S+) \\(\S+)\n(.*?)^  end$", re.M | re.S)
_PORT = re.compile(r"^  wire [^\n]*\b(?:input|output|inout) \d+[^\n]*$", re.M)
_PORT_NUMBER = re.compile(r"\b(input|output|inout) \d+\b")
_MEMORY = re.compile(r"^  memory (?:width (\d+) )?(?:size (\d+) )?\\\S+$", re.M)
#: Names that Amaranth numbers over the whole design: of ports without a signal of their own, and
#: of modules and instances whose name is taken already.
_NUMBERED_PORT = re.compile(r"\bport\$\d+\$\d+\b")
_SUFFIX = re.compile(r"(?:\$\d+|(?<=\D)_\d+)+$")


@dataclass(frozen=True)
class Part:
    """One module of a design, a design of its own."""

    name: str  #: of the module: that of its instance, without a number
    rtlil: str  #: the module, and a box for each type of module it contains
    boxes: frozenset[str]  #: names of those types
    memory_bits: int  #: bits of its memories, in modules that it contains not counted


@dataclass(frozen=True)
class _Module:
    text: str
    ports: Mapping[str, str]  #: own port names by those of the design

    @classmethod
    def read(cls, text: str) -> _Module:
        ports: dict[str, str] = {}
        for name in _NUMBERED_PORT.findall(text[: text.find("\n  cell ")]):
            ports.setdefault(name, f"port${len(ports)}")
        return cls(text, ports)

    def renamed(self, text: str) -> str:
        return _NUMBERED_PORT.sub(lambda match: self.ports.get(match[0], match[0]), text)


def _plain(name: str) -> str:
    """Name without the number that tells it from its like."""
    return _SUFFIX.sub("", name) or name


def cut(rtlil: str, top: str, name: str) -> dict[tuple[str, ...], Part]:
    """Cut a design into its modules.

    Parameters
    ----------
    rtlil
        The design, as Amaranth writes it.
    top
        Its top module.
    name
        Name for the part that the top module becomes: what connects the others.

    Returns
    -------
    dict
        A part per instance, by the names of the instances above it, the design's order; the top
        is ``()``. Instances of modules that are alike have equal parts.

    """
    modules = {match[1]: _Module.read(match[0]) for match in _MODULE.finditer(rtlil)}
    parts: dict[tuple[str, ...], Part] = {}

    def visit(module: str, path: tuple[str, ...]) -> str:
        """Store the parts of an instance and of all below; return a box of its ports."""
        own, own_name = modules[module], _plain(path[-1]) if path else name
        parts[path] = Part(own_name, "", frozenset(), 0)  # holds the place in the order
        boxes: dict[str, str] = {}

        def cell(match: re.Match[str]) -> str:
            kind, instance, body = match.groups()
            inner = modules.get(kind)
            if inner is None:
                return match[0]
            box = visit(kind, (*path, instance))
            taken = _plain(instance)
            while boxes.setdefault(taken, box) != box:
                taken += "'"
            connections = [
                f"    connect {inner.renamed(port)} {rest}" if word == "connect" else line
                for line in body.splitlines()
                for word, port, rest in [(line.split(maxsplit=2) + [""] * 3)[:3]]
            ]
            return f"  cell \\{taken} \\{instance}\n" + "\n".join(connections) + "\n  end"

        text = _CELL.sub(cell, own.text)
        # Amaranth marks the top; each part is the top of a design of its own here.
        text = own.renamed(text).replace("attribute \\top 1\n", "", 1)
        text = text.replace(f"module \\{module}\n", f"module \\{own_name}\n", 1)
        outlines = [
            f"attribute \\blackbox 1\nmodule \\{kind}\n{ports}\nend\n"
            for kind, ports in boxes.items()
        ]
        memory_bits = sum(
            int(width or 1) * int(size or 1) for width, size in _MEMORY.findall(own.text)
        )
        parts[path] = Part(own_name, "".join(outlines) + text, frozenset(boxes), memory_bits)
        return own.renamed("\n".join(_PORT.findall(own.text)))

    visit(top, ())
    return parts
