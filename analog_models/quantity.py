"""Sections of a preset's file: quantities with units, checked, and their JSON.

A section is a frozen dataclass. Each of its physical quantities is declared once, as a `quantity`
that says unit, range and axes; checks, error messages and the file's form follow from that.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

import numpy as np

__all__ = ["Row", "Rows", "Section", "decode", "encode", "quantity", "text_of"]

Row = tuple[float, ...]
Rows = tuple[Row, ...]
Kind = TypeVar("Kind", bound="Section")


def quantity(
    unit: str,
    *,
    ndim: int = 0,
    axes: tuple[str, ...] = (),
    low: float = -math.inf,
    above: float = -math.inf,
    rises: bool = False,
    least: int = 1,
    optional: bool = False,
) -> Any:
    """Field of a section that holds a physical quantity; nested tuples of floats if ndim is not 0.

    Parameters
    ----------
    unit
        Declared in the file, "1" for a ratio.
    ndim
        Nested levels of tuples; as many as axes where these are given.
    axes
        Fields of the same section whose values it is over, slowest first. It cannot be given
        without them.
    low, above
        Smallest legal value, or the value that all must exceed.
    rises
        Values rise strictly.
    least
        Fewest values along each axis.
    optional
        None is legal, and the default.
    """
    metadata = {
        "unit": unit,
        "ndim": len(axes) or ndim,
        "axes": axes,
        "low": low,
        "above": above,
        "rises": rises,
        "least": least,
        "optional": optional,
    }
    return field(default=None, metadata=metadata) if optional else field(metadata=metadata)


def _numbers(value: Any, ndim: int, path: str) -> Iterator[float]:
    if ndim == 0:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{path} must hold floats, not {value!r}")
        if not math.isfinite(value):
            raise ValueError(f"{path} must be finite, not {value!r}")
        yield float(value)
        return
    if not isinstance(value, tuple):
        raise TypeError(f"{path} must be a tuple of {ndim} dimension(s), not {value!r}")
    for item in value:
        yield from _numbers(item, ndim - 1, path)


def _check_quantity(value: Any, rule: Mapping[str, Any], path: str) -> None:
    if value is None:
        if not rule["optional"]:
            raise ValueError(f"{path} must be given, not None")
        return
    numbers = list(_numbers(value, rule["ndim"], path))
    if rule["ndim"]:
        shape, part = [], value
        for _ in range(rule["ndim"]):
            shape.append(len(part))
            part = part[0] if part else ()
        if min(shape) < rule["least"]:
            raise ValueError(
                f"{path} must hold at least {rule['least']} values, not shape {tuple(shape)!r}"
            )
        if rule["ndim"] == 2 and len({len(row) for row in value}) > 1:
            raise ValueError(
                f"{path} must have rows of one length, not {[len(row) for row in value]!r}"
            )
    for number in numbers:
        if number < rule["low"]:
            raise ValueError(f"{path} must be at least {rule['low']:g}, not {number!r}")
        if number <= rule["above"] and rule["above"] > -math.inf:
            raise ValueError(f"{path} must be above {rule['above']:g}, not {number!r}")
    if rule["rises"]:
        for i, (first, second) in enumerate(itertools.pairwise(numbers)):
            if second <= first:
                raise ValueError(
                    f"{path} must rise strictly, not {first!r} followed by {second!r} at index {i}"
                )


@dataclass(frozen=True, kw_only=True)
class Section:
    """Part of a preset; every quantity is checked on construction.

    A subclass declares its fields, and in ``_check`` what joins several of them.

    Raises
    ------
    TypeError, ValueError
        A field is not of its kind or out of its range, of whatever section.
    """

    _path: ClassVar[str] = ""  # before a field's name in messages

    def __post_init__(self) -> None:
        items = [item for item in dataclasses.fields(self) if "unit" in item.metadata]
        for item in items:
            _check_quantity(getattr(self, item.name), item.metadata, self._path + item.name)
        for item in items:
            self._check_axes(item.name, item.metadata["axes"])
        self._check()

    def _check(self) -> None:
        pass

    def _check_axes(self, name: str, axes: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value is None or not axes:
            return
        for axis in axes:
            if getattr(self, axis) is None:
                raise ValueError(f"{self._path}{axis} must be given with {self._path}{name}")
        shape = tuple(len(getattr(self, axis)) for axis in axes)
        if np.shape(value) != shape:
            of = ", ".join(self._path + axis for axis in axes)
            raise ValueError(
                f"{self._path}{name} must have shape {shape}, that of {of}, not {np.shape(value)!r}"
            )

    def _check_both(self, first: str, second: str) -> None:
        if (getattr(self, first) is None) != (getattr(self, second) is None):
            raise ValueError(
                f"{self._path}{first} and {self._path}{second} must be given both or not at all"
            )

    def _check_count(self, name: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{self._path}{name} must be an int, not {value!r}")
        if value < 0:
            raise ValueError(f"{self._path}{name} must not be negative, not {value!r}")


def encode(section: Section) -> dict[str, Any]:
    """Content of a section's JSON: every quantity an object of unit and value."""
    content: dict[str, Any] = {}
    for item in dataclasses.fields(section):
        value = getattr(section, item.name)
        if "unit" in item.metadata:
            content[item.name] = {"unit": item.metadata["unit"], "value": value}
        elif isinstance(value, Section):
            content[item.name] = encode(value)
        elif isinstance(value, tuple):
            content[item.name] = [encode(row) for row in value]
        elif isinstance(value, Mapping):
            content[item.name] = dict(value)
        else:
            content[item.name] = value
    return content


def text_of(content: Any, indent: str = "") -> str:
    """JSON with one quantity per line."""
    if isinstance(content, dict) and set(content) != {"unit", "value"}:
        inner = indent + "  "
        items = [f"{inner}{json.dumps(key)}: {text_of(v, inner)}" for key, v in content.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}" if items else "{}"
    if isinstance(content, list):
        return f"[{', '.join(text_of(item, indent) for item in content)}]"
    return json.dumps(content, ensure_ascii=False)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _section_of(hint: Any) -> type[Section] | None:
    """The section that a field's type names, alone, or None, or in a tuple."""
    for kind in (hint, *get_args(hint)):
        if isinstance(kind, type) and not isinstance(kind, types.GenericAlias):
            if issubclass(kind, Section):
                return kind
    return None


def decode(kind: type[Kind], content: Any, path: str = "") -> Kind:
    """A section from what `encode` made of one.

    Parameters
    ----------
    kind
        Its class.
    content
        What the JSON holds.
    path
        Before names of fields in messages, with a dot at its end.

    Raises
    ------
    ValueError
        A field is missing, unknown, of another unit, not of its kind or out of its range; the
        message names it.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{path.rstrip('.') or 'preset'} must be an object, not {content!r}")
    items = {item.name: item for item in dataclasses.fields(kind)}
    for name in items:
        if name not in content:
            raise ValueError(f"{path}{name} is missing")
    for name in content:
        if name not in items:
            raise ValueError(f"{path}{name} is no field of a preset")
    hints = get_type_hints(kind)
    given: dict[str, Any] = {}
    for name, item in items.items():
        value, where = content[name], path + name
        section = _section_of(hints[name])
        if "unit" in item.metadata:
            unit = item.metadata["unit"]
            if not isinstance(value, dict) or set(value) != {"unit", "value"}:
                raise ValueError(f"{where} must be an object of unit and value, not {value!r}")
            if value["unit"] != unit:
                raise ValueError(f"{where} must be in {unit!r}, not {value['unit']!r}")
            given[name] = _tuples(value["value"])
        elif section is None:
            given[name] = value
        elif str(hints[name]).startswith("tuple"):
            if not isinstance(value, list):
                raise ValueError(f"{where} must be a list, not {value!r}")
            given[name] = tuple(
                decode(section, row, f"{where}[{i}].") for i, row in enumerate(value)
            )
        elif value is None and type(None) in get_args(hints[name]):
            given[name] = None
        else:
            given[name] = decode(section, value, f"{where}.")
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        own, message = kind._path, str(error)
        if own and path:  # say which of several converters or temperatures it is
            message = message.replace(own, path)
        raise ValueError(message) from error
