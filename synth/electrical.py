"""Electrical data of a library's cells: capacitances, delays, energies, leakage.

Everything is in one set of units, whatever the file's are: ns, pF, V, pJ, nW.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import RegularGridInterpolator

from synth.liberty import Group, LibertyError, Library, parse_liberty, truth_table

__all__ = [
    "EDGES",
    "Arc",
    "CellData",
    "Electrical",
    "Pin",
    "PowerArc",
    "Table",
    "read_electrical",
    "units_of",
]

Floats = NDArray[np.float64]

#: What the axes of a table may be: the transition of the input, the load of the output.
_SLEW = ("input_net_transition", "input_transition_time")
_LOAD = ("total_output_net_capacitance", "equal_or_opposite_output_net_capacitance")
_SCALE = {"f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3}
_UNIT = re.compile(r"^\s*([\d.eE+-]*)\s*([fpnumk]?)([a-zA-Z]+)\s*$")
#: Edges of a pin, in the order of arrays.
EDGES = ("rise", "fall")


@dataclass(frozen=True, eq=False)
class Table:
    """A look-up table over input transition and output load; linear between and beyond points."""

    axes: tuple[str, ...]  #: "slew" or "load", in the order of ``values``
    points: tuple[Floats, ...]
    values: Floats

    def at(self, slew_ns: ArrayLike, load_pf: ArrayLike) -> Floats:
        """Values at transitions and loads, which are broadcast."""
        slew, load = np.broadcast_arrays(
            np.asarray(slew_ns, dtype=np.float64), np.asarray(load_pf, dtype=np.float64)
        )
        axes, grid = self._grid
        if grid is None:
            return np.full(slew.shape, float(self.values.flat[0]))
        where = [slew if axis == "slew" else load for axis in axes]
        found: Floats = grid(np.stack(where, axis=-1)).reshape(slew.shape)
        return found

    @cached_property
    def _grid(self) -> tuple[tuple[str, ...], RegularGridInterpolator | None]:
        """Axes with more than one point, and what interpolates over them."""
        kept = [i for i, points in enumerate(self.points) if len(points) > 1]
        index = tuple(slice(None) if i in kept else 0 for i in range(len(self.points)))
        if not kept:
            return (), None
        grid = RegularGridInterpolator(
            [self.points[i] for i in kept], self.values[index], bounds_error=False, fill_value=None
        )
        return tuple(self.axes[i] for i in kept), grid


@dataclass(frozen=True, eq=False)
class Arc:
    """Delay from an input pin to an output pin."""

    related: str
    sense: str  #: "positive_unate", "negative_unate" or "non_unate"
    edge: str  #: of a clock: "rising", "falling"; otherwise empty
    delay: Mapping[str, Table]  #: by edge of the output
    slew: Mapping[str, Table]


@dataclass(frozen=True, eq=False)
class PowerArc:
    """Energy of a transition of a pin, beyond that of its load; pJ."""

    related: tuple[str, ...]  #: pins that cause it; empty for an input's own
    when: str  #: condition, may be empty
    energy: Mapping[str, Table]  #: by edge of the pin


@dataclass(frozen=True, eq=False)
class Pin:
    """One pin of a cell."""

    name: str
    output: bool
    cap_pf: float
    function: str = ""
    max_cap_pf: float | None = None
    arcs: tuple[Arc, ...] = ()
    power: tuple[PowerArc, ...] = ()


@dataclass(frozen=True, eq=False)
class CellData:
    """Electrical data of a cell."""

    name: str
    area_um2: float
    pins: Mapping[str, Pin]
    leakage_nw: float  #: where no condition holds
    leakage_when_nw: tuple[tuple[str, float], ...]
    storage: Mapping[str, str] = field(default_factory=dict)  #: attributes of its ff or latch
    state: str = ""  #: name of what it stores

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input pins."""
        return tuple(pin.name for pin in self.pins.values() if not pin.output)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output pins."""
        return tuple(pin.name for pin in self.pins.values() if pin.output)

    @property
    def inverted_state(self) -> str:
        """Name of the complement of what it stores."""
        return self.storage.get("_complement", "")


@dataclass(frozen=True, eq=False)
class Electrical:
    """Electrical data of the cells of a library that were asked for."""

    library: str
    voltage_v: float
    temperature_c: float | None
    cells: Mapping[str, CellData]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise LibertyError(f"a number must stand where {text!r} does") from None


def _numbers(texts: Sequence[str]) -> Floats:
    parts = [part for text in texts for part in re.split(r"[\s,]+", text.strip()) if part]
    return np.array([_number(part) for part in parts])


@dataclass(frozen=True)
class _Units:
    time: float  #: ns per unit
    cap: float  #: pF per unit
    voltage: float  #: V per unit
    leakage: float | None  #: nW per unit

    @property
    def energy(self) -> float:
        """PJ per unit: that of tables of internal energy is capacitance times voltage squared."""
        return self.cap * self.voltage**2


def _unit(library: Group, name: str, kind: str, base: float) -> float:
    text = library.attributes.get(name)
    if text is None:
        raise LibertyError(f"the library has no {name}")
    match = _UNIT.match(text)
    if not match or match[3].lower() != kind:
        raise LibertyError(f"{name} must be a number of {kind}, not {text!r}")
    return float(match[1] or 1) * _SCALE[match[2].lower()] / base


def _units(library: Group) -> _Units:
    cap = library.lists.get("capacitive_load_unit")
    if cap is None:
        raise LibertyError("the library has no capacitive_load_unit")
    match = _UNIT.match("".join(cap))
    if len(cap) != 2 or not match or match[3].lower() != "f":
        raise LibertyError(f"capacitive_load_unit must be a number and ff or pf, not {cap!r}")
    leakage = "leakage_power_unit" in library.attributes
    return _Units(
        time=_unit(library, "time_unit", "s", 1e-9),
        cap=float(match[1] or 1) * _SCALE[match[2].lower()] / 1e-12,
        voltage=_unit(library, "voltage_unit", "v", 1.0)
        if "voltage_unit" in library.attributes
        else 1.0,
        leakage=_unit(library, "leakage_power_unit", "w", 1e-9) if leakage else None,
    )


class _Reader:
    """Turns groups into data."""

    def __init__(self, library: Group) -> None:
        self.library, self.units = library, _units(library)
        self.templates = {
            group.args[0]: group
            for group in library.all("lu_table_template", "power_lut_template")
            if group.args
        }

    def table(self, group: Group, unit: float) -> Table | None:
        """Table of a group; None if it depends on what is not known here."""
        template = self.templates.get(group.args[0]) if group.args else None
        if "values" not in group.lists:
            return None
        values = _numbers(group.lists["values"])
        if template is None and values.size > 1:
            raise LibertyError(f"table template {' '.join(group.args)} is missing")
        axes, points = [], []
        for i in (1, 2, 3):
            variable = template.attributes.get(f"variable_{i}", "") if template else ""
            given = group.lists.get(f"index_{i}") or (
                template.lists.get(f"index_{i}") if template and variable else None
            )
            if given is None:
                break
            if variable in _SLEW:
                axes.append("slew")
                points.append(_numbers(given) * self.units.time)
            elif variable in _LOAD:
                axes.append("load")
                points.append(_numbers(given) * self.units.cap)
            else:
                return None
        shape = tuple(map(len, points))
        if values.size != int(np.prod(shape)):
            raise LibertyError(
                f"values of a table must be {int(np.prod(shape))}, as its indices are, "
                f"not {values.size}"
            )
        return Table(tuple(axes), tuple(points), values.reshape(shape) * unit)

    def tables(self, group: Group, names: Mapping[str, str], unit: float) -> dict[str, Table]:
        found = {}
        for edge, name in names.items():
            for sub in group.all(name):
                table = self.table(sub, unit)
                if table is not None:
                    found[edge] = table
        return found

    def arcs(self, pin: Group) -> Iterator[Arc]:
        for group in pin.all("timing"):
            kind = group.attributes.get("timing_type", "combinational")
            edge = {"rising_edge": "rising", "falling_edge": "falling"}.get(kind, "")
            if not edge and not kind.startswith("combinational"):
                continue
            unit = self.units.time
            delay = self.tables(group, {e: f"cell_{e}" for e in EDGES}, unit)
            slew = self.tables(group, {e: f"{e}_transition" for e in EDGES}, unit)
            for related in group.attributes.get("related_pin", "").split():
                sense = group.attributes.get("timing_sense", "non_unate")
                if delay.keys() & slew.keys():
                    yield Arc(related, sense, edge, delay, slew)

    def power(self, pin: Group) -> list[PowerArc]:
        found = []
        for group in pin.all("internal_power"):
            names = {edge: f"{edge}_power" for edge in EDGES}
            energy = self.tables(group, names, self.units.energy)
            both = self.tables(group, {"power": "power"}, self.units.energy)
            if both:
                energy = dict.fromkeys(EDGES, both["power"])
            if energy:
                related = tuple(group.attributes.get("related_pin", "").split())
                found.append(PowerArc(related, group.attributes.get("when", ""), energy))
        return found

    def pin(self, cell: Group, group: Group, name: str) -> Pin:
        output = group.attributes.get("direction", "").lower() in ("output", "inout")
        cap = group.attributes.get("capacitance")
        if cap is None:
            edges = [group.attributes.get(f"{edge}_capacitance") for edge in EDGES]
            known = [_number(text) for text in edges if text is not None]
            value = sum(known) / len(known) if known else None
        else:
            value = _number(cap)
        if value is None:
            default = f"default_{'output' if output else 'input'}_pin_cap"
            text = self.library.attributes.get(default, "0" if output else None)
            if text is None:
                raise LibertyError(f"pin {name} of {cell.args[0]} has no capacitance")
            value = _number(text)
        limit = group.attributes.get("max_capacitance")
        return Pin(
            name=name,
            output=output,
            cap_pf=value * self.units.cap,
            function=group.attributes.get("function", group.attributes.get("state_function", "")),
            max_cap_pf=_number(limit) * self.units.cap if limit else None,
            arcs=tuple(self.arcs(group)) if output else (),
            power=tuple(self.power(group)),
        )

    def leakage(self, cell: Group) -> tuple[float, tuple[tuple[str, float], ...]]:
        unit = self.units.leakage
        default = cell.attributes.get("cell_leakage_power")
        when, otherwise = [], []
        for group in cell.all("leakage_power"):
            text = group.attributes.get("value")
            if text is None:
                continue
            if condition := group.attributes.get("when"):
                when.append((condition, _number(text)))
            else:
                otherwise.append(_number(text))
        if default is None and otherwise:
            default = str(sum(otherwise))
        if default is None and when:
            default = str(sum(value for _, value in when) / len(when))
        if default is None:
            default = self.library.attributes.get("default_cell_leakage_power")
        if default is None:
            raise LibertyError(f"cell {cell.args[0]} has no cell_leakage_power")
        if unit is None:
            raise LibertyError("the library has no leakage_power_unit")
        return _number(default) * unit, tuple((c, value * unit) for c, value in when)

    def cell(self, group: Group) -> CellData:
        pins = {
            name: self.pin(group, pin, name)
            for pin in group.all("pin")
            if pin.attributes.get("direction", "").lower() != "internal"
            for name in pin.args
        }
        stores = list(group.all("ff", "latch"))
        storage = dict(stores[0].attributes) if stores else {}
        names = stores[0].args if stores else ()
        if len(names) > 1:
            storage["_complement"] = names[1]
        leakage, when = self.leakage(group)
        return CellData(
            name=group.args[0],
            area_um2=_number(group.attributes.get("area", "0")),
            pins=pins,
            leakage_nw=leakage,
            leakage_when_nw=when,
            storage=storage,
            state=names[0] if names else "",
        )


def read_electrical(library: Library, cells: Sequence[str]) -> Electrical:
    """Read the electrical data of some cells.

    Parameters
    ----------
    library
        The library.
    cells
        Names of its cells.

    Raises
    ------
    LibertyError
        A unit, a capacitance, a table or a leakage is missing, or the voltage is; the message
        says which.
    """
    try:
        return _read(library, cells)
    except LibertyError as error:
        raise LibertyError(f"{library.path.name}: {error}") from None


def units_of(library: Library) -> tuple[float, float]:
    """Units of time and capacitance of the library's file, in ns and pF."""
    units = _units(parse_liberty(library.text(), tables_of=frozenset()))
    return units.time, units.cap


def _read(library: Library, cells: Sequence[str]) -> Electrical:
    root = parse_liberty(library.text(), tables_of=frozenset(cells))
    reader = _Reader(root)
    found = {group.args[0]: reader.cell(group) for group in root.all("cell")}
    for data in found.values():
        for pin in data.pins.values():
            if pin.output and data.inputs and not pin.arcs and pin.function not in ("0", "1"):
                raise LibertyError(
                    f"pin {pin.name} of {data.name} has no table of delays (cell_rise and "
                    f"rise_transition, or those of falling edges)"
                )
    if found and not any(pin.power for data in found.values() for pin in data.pins.values()):
        raise LibertyError("no cell has a table of internal_power")
    voltage = _voltage(root)
    temperature = root.attributes.get("nom_temperature")
    return Electrical(
        library=library.name,
        voltage_v=voltage * reader.units.voltage,
        temperature_c=float(temperature) if temperature else None,
        cells=found,
    )


def _voltage(root: Group) -> float:
    name = root.attributes.get("default_operating_conditions")
    for group in root.all("operating_conditions"):
        if name in group.args and "voltage" in group.attributes:
            return _number(group.attributes["voltage"])
    if "nom_voltage" in root.attributes:
        return _number(root.attributes["nom_voltage"])
    raise LibertyError(
        "the library has no voltage (nom_voltage, or that of default_operating_conditions)"
    )


def logic(data: CellData, output: str) -> int | None:
    """Truth table of an output over the cell's inputs; None if it is stored."""
    return truth_table(data.pins[output].function, data.inputs)
