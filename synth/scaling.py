"""Delay, energy and area of a library carried to another technology node, by published tables.

Two sources are used, and their disagreement is part of every scaled figure:

* A. Stillmaker, B. Baas, "Scaling equations for the accurate prediction of CMOS device performance
  from 180 nm to 7 nm", Integration 58, 74-81 (2017): polynomials in the supply voltage of the delay
  and the energy of an inverter that drives four of its kind (Table 5, bulk to 65 nm, then high
  performance), and factors of area (Table 4). Read not in the paper but in two independent public
  transcriptions that agree (nodeScale of UCLA's NanoCAD laboratory; upcycle of the Vertical
  Research Group); checked against the example in the authors' corrigendum.
* S. Sarangi, B. Baas, "DeepScaleTool: a tool for the accurate estimation of technology scaling in
  the deep-submicron era", ISCAS 2021, arXiv 2102.10195: delay, energy and area of nodes from 130 nm
  on, fitted to what foundries published; the values of its workbook, read in a transcription
  (SCARF). It has a 28 nm node, the former has not.

Nothing here knows a node's leakage: it is not scaled. See docs/scaling.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

__all__ = [
    "GATE_28NM_UM2",
    "METHODS",
    "NODES_NM",
    "TARGET",
    "Process",
    "ScalingError",
    "area_factor",
    "delay_factor",
    "energy_factor",
    "fo4_ps",
    "process_of",
]

#: "polynomials" are those of Stillmaker and Baas up to their node before the target, and
#: DeepScaleTool from there; "published" is DeepScaleTool from 130 nm on; "inverter" puts the
#: library's own inverter in the place of its node's (delay only); "gates" counts in gate
#: equivalents (area only).
METHODS = MappingProxyType(
    {
        "delay": ("inverter", "polynomials", "published"),
        "energy": ("polynomials", "published"),
        "area": ("gates", "polynomials", "published"),
    }
)
#: Two-input NAND of a 28 nm library, µm²: the figure that estimators in use take for TSMC's. The
#: published pitches give less: three gate pitches of 120 nm, twelve tracks of 90 nm, 0.389 µm²
#: (WikiChip, "28 nm lithography process", the largest of its three foundries).
GATE_28NM_UM2 = 0.49


class ScalingError(ValueError):
    """A node or a voltage that the published tables do not have; the message says which."""


@dataclass(frozen=True)
class _Node:
    """A row of Stillmaker and Baas: nominal voltage, and factors as polynomials of the voltage."""

    nominal_v: float
    delay_ps: tuple[float, float, float, float]  #: falling powers
    energy_fj: tuple[float, float, float]  #: falling powers
    area: float  #: as that of 7 nm


_TABLE = {
    180: _Node(1.8, (0.0, 97.09, -356.7, 406.5), (0.0, 24.64, -17.98), 320.0),
    130: _Node(1.2, (-76.65, 334.9, -493.4, 275.8), (7.171, -6.709, 2.904), 110.0),
    90: _Node(1.1, (-60.34, 262.5, -384.2, 210.9), (4.762, -4.781, 2.092), 48.0),
    65: _Node(1.1, (-53.3, 230.4, -333.9, 178.6), (3.755, -4.398, 1.975), 25.0),
    45: _Node(1.1, (-501.6, 1567.0, -1619.0, 566.1), (1.018, -0.3107, 0.1539), 17.0),
    32: _Node(0.97, (-1047.0, 2982.0, -2797.0, 873.5), (0.8367, -0.4341, 0.1701), 7.8),
    20: _Node(0.9, (0.0, 34.63, -66.37, 41.15), (0.373, -0.1582, 0.04104), 3.6),
    16: _Node(0.86, (0.0, 24.8, -47.52, 28.87), (0.2958, -0.1241, 0.03024), 3.2),
    14: _Node(0.86, (-40.66, 109.2, -100.6, 35.92), (0.2363, -0.09675, 0.02239), 2.9),
    10: _Node(0.83, (-34.95, 93.65, -85.99, 30.4), (0.2068, -0.09311, 0.02375), 1.7),
    7: _Node(0.8, (-28.58, 76.6, -70.26, 24.69), (0.1776, -0.09097, 0.02447), 1.0),
}
#: DeepScaleTool: delay, energy, area, each relative.
_PUBLISHED = {
    130: (1.96, 2.52, 8.3),
    90: (1.31, 1.51, 3.94),
    65: (1.0, 1.0, 2.04),
    45: (0.81, 0.63, 1.0),
    40: (0.76, 0.55, 0.75),
    32: (0.70, 0.44, 0.49),
    28: (0.67, 0.37, 0.35),
    22: (0.62, 0.30, 0.22),
    14: (0.60, 0.19, 0.08),
    10: (0.57, 0.15, 0.03),
    7: (0.53, 0.11, 0.011),
}
_COLUMN = {"delay": 0, "energy": 1, "area": 2}

#: Nodes that figures can be carried from or to.
NODES_NM = tuple(sorted({*_TABLE, *_PUBLISHED}, reverse=True))
#: A polynomial is trusted in this range of its node's nominal voltage.
_RANGE = (0.5, 1.5)

#: Nodes of libraries, by how their names begin: a Liberty file does not say its node.
_LIBRARIES = {
    "osu018": 180,
    "gf180": 180,
    "tsl18": 180,
    "sky130": 130,
    "sg13": 130,
    "vsclib013": 130,
    "saed90": 90,
    "nangateopencell": 45,
    "freepdk45": 45,
    "gscl45": 45,
    "saed32": 32,
    "asap7": 7,
}


@dataclass(frozen=True, kw_only=True)
class Process:
    """A technology node at a supply voltage.

    Raises
    ------
    ScalingError
        The tables do not have the node, or the voltage is far from its nominal one.
    """

    node_nm: int  #: as the tables name it
    voltage_v: float | None = None  #: None is the node's nominal voltage

    def __post_init__(self) -> None:
        if self.node_nm not in NODES_NM:
            names = ", ".join(map(str, NODES_NM))
            raise ScalingError(f"node_nm must be one of {names}, not {self.node_nm!r}")
        if self.voltage_v is None:
            return
        if self.node_nm not in _TABLE:
            raise ScalingError(
                f"voltage_v must be None at {self.node_nm} nm, whose table is at the nominal "
                f"voltage only, not {self.voltage_v!r}"
            )
        low, high = (round(share * _TABLE[self.node_nm].nominal_v, 6) for share in _RANGE)
        if not low <= self.voltage_v <= high:
            raise ScalingError(
                f"voltage_v must be in {low:g}..{high:g} at {self.node_nm} nm, where the "
                f"polynomials are trusted, not {self.voltage_v!r}"
            )


#: Where the published system is built: 28 nm, at its nominal voltage.
TARGET = Process(node_nm=28)


def process_of(
    library: str, voltage_v: float | None = None, *, node_nm: int | None = None
) -> Process:
    """Process of a library.

    Parameters
    ----------
    library
        Its name, from which the node is known if it is one in use.
    voltage_v
        Supply, V; None is the node's nominal voltage.
    node_nm
        The node, if the name does not tell.

    Raises
    ------
    ScalingError
        The node is not known, or the tables do not have it at that voltage.
    """
    if node_nm is None:
        plain = library.lower().replace("_", "").replace("-", "")
        node_nm = next((n for start, n in _LIBRARIES.items() if plain.startswith(start)), None)
    if node_nm is None:
        raise ScalingError(
            f"the node of library {library!r} is not known, and a Liberty file does not say it: "
            "name it with --node-nm (of make: NODE_NM=)"
        )
    return Process(node_nm=node_nm, voltage_v=voltage_v)


def _at(coefficients: tuple[float, ...], voltage_v: float) -> float:
    value = 0.0
    for coefficient in coefficients:
        value = value * voltage_v + coefficient
    return value


def _polynomial(metric: str, node_nm: int, voltage_v: float | None) -> float:
    node = _TABLE[node_nm]
    if metric == "area":
        return node.area
    coefficients = node.delay_ps if metric == "delay" else node.energy_fj
    return _at(coefficients, node.nominal_v if voltage_v is None else voltage_v)


def _last_before(node_nm: int, table: dict[int, object]) -> int:
    """The smallest node of a table that is not smaller."""
    return min(node for node in table if node >= node_nm)


def _tool(metric: str, source_nm: int, target_nm: int) -> float:
    """Ratio by DeepScaleTool."""
    for node_nm in (source_nm, target_nm):
        if node_nm not in _PUBLISHED:
            raise ScalingError(f"DeepScaleTool has no node of {node_nm} nm")
    column = _COLUMN[metric]
    return _PUBLISHED[target_nm][column] / _PUBLISHED[source_nm][column]


def _factor(metric: str, source: Process, target: Process, method: str) -> float:
    if method not in METHODS[metric]:
        raise ScalingError(f"method must be one of {METHODS[metric]}, not {method!r}")
    if source.node_nm == target.node_nm and source.node_nm not in _TABLE:
        return 1.0
    if source.node_nm not in _TABLE:  # half nodes: by the tool, to the next of the polynomials
        return _tool(metric, source.node_nm, target.node_nm)
    if method == "published":
        # Its table begins at 130 nm and is at nominal voltages: up to there by the polynomials.
        first = max(node for node in _PUBLISHED if node <= source.node_nm)
        if target.node_nm in _PUBLISHED and first >= target.node_nm:
            here = _polynomial(metric, source.node_nm, source.voltage_v)
            there = _polynomial(
                metric, first, target.voltage_v if first == target.node_nm else None
            )
            return there / here * _tool(metric, first, target.node_nm)
        raise ScalingError(f"DeepScaleTool leads to no node of {target.node_nm} nm from there")
    last = _last_before(target.node_nm, dict(_TABLE))
    here = _polynomial(metric, source.node_nm, source.voltage_v)
    there = _polynomial(metric, last, target.voltage_v if last == target.node_nm else None)
    if last == target.node_nm:
        return there / here
    return there / here * _tool(metric, last, target.node_nm)


def delay_factor(source: Process, target: Process = TARGET, method: str = "polynomials") -> float:
    """Delay at ``target`` over that at ``source``.

    Raises
    ------
    ScalingError
        No such method, or it does not lead from one to the other.
    """
    return _factor("delay", source, target, method)


def energy_factor(source: Process, target: Process = TARGET, method: str = "polynomials") -> float:
    """Switching energy at ``target`` over that at ``source``. Leakage is another matter.

    Raises
    ------
    ScalingError
        No such method, or it does not lead from one to the other.
    """
    return _factor("energy", source, target, method)


def area_factor(source: Process, target: Process = TARGET, method: str = "polynomials") -> float:
    """Area at ``target`` over that at ``source``.

    Raises
    ------
    ScalingError
        No such method, or it does not lead from one to the other.
    """
    return _factor("area", source, target, method)


def fo4_ps(process: Process = TARGET) -> float:
    """Delay of an inverter that drives four of its kind, ps, by the polynomials."""
    if process.node_nm in _TABLE:
        return _polynomial("delay", process.node_nm, process.voltage_v)
    last = _last_before(process.node_nm, dict(_TABLE))
    return _polynomial("delay", last, None) * _tool("delay", last, process.node_nm)
