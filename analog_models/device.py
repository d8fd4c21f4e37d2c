"""Device presets: everything the models need to know of a cell and its converters, in one file.

A preset comes from a simulation or from print, and says which. Field names end in their unit;
in JSON every physical quantity also declares it, as ``{"unit": "µA", "value": ...}``, and a file
whose units, fields or tables are not as they must be is refused with a message that names the
field. None means ideal, or not known.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from analog_models.cell import Cell, PolynomialCell, TabulatedCell
from analog_models.dac import Dac

__all__ = [
    "FORMAT",
    "CellCurve",
    "ConverterFigures",
    "DevicePreset",
    "Energy",
    "Leakage",
    "Mismatch",
    "PulseCharge",
    "Residuals",
]

FORMAT = "gaincell-device-1"  #: what a preset's file says it is

Row = tuple[float, ...]
Rows = tuple[Row, ...]


def quantity(
    unit: str,
    *,
    ndim: int = 0,
    low: float = -math.inf,
    above: float = -math.inf,
    rises: bool = False,
    least: int = 1,
    optional: bool = False,
) -> Any:
    """Field of a preset that holds a physical quantity; nested tuples of floats if ndim is not 0.

    Parameters
    ----------
    unit
        Declared in the file, "1" for a ratio.
    ndim
        Nested levels of tuples.
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
        "ndim": ndim,
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


def _check_count(path: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{path} must be an int, not {value!r}")
    if value < 0:
        raise ValueError(f"{path} must not be negative, not {value!r}")


class _Section:
    """Checks of every quantity on construction; a subclass adds those that join several."""

    _path = ""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            if "unit" in item.metadata:
                _check_quantity(getattr(self, item.name), item.metadata, self._path + item.name)
        self._check()

    def _check(self) -> None:
        pass

    def _check_shape(self, name: str, shape: tuple[int, ...], axes: str) -> None:
        value = getattr(self, name)
        got = np.shape(value)
        if value is not None and got != shape:
            raise ValueError(
                f"{self._path}{name} must have shape {shape}, that of {axes}, not {got!r}"
            )


@dataclass(frozen=True, kw_only=True)
class Residuals(_Section):
    """What a fit leaves, over the stored range, against points that it did not see.

    Raises
    ------
    TypeError, ValueError
        A field is not of its kind or out of its range.
    """

    _path = "residuals."

    polynomial_rms_ua: float | None = quantity("µA", low=0.0, optional=True)  #: root mean square
    polynomial_max_ua: float | None = quantity("µA", low=0.0, optional=True)  #: largest
    table_rms_ua: float | None = quantity("µA", low=0.0, optional=True)  #: root mean square
    table_max_ua: float | None = quantity("µA", low=0.0, optional=True)  #: largest


@dataclass(frozen=True, kw_only=True)
class CellCurve(_Section):
    """Output current of a cell; positive is what a higher stored voltage gives more of.

    Raises
    ------
    TypeError, ValueError
        A field is not of its kind or out of its range.
    """

    _path = "cell."

    v_mid_v: float = quantity("V")  #: stored voltage at which u = v - v_mid_v is zero
    coefficients_ua: Row = quantity("µA/V^i", ndim=1)  #: of u^i, constant first, full input
    v_store_v: Row | None = quantity("V", ndim=1, rises=True, least=2, optional=True)
    """stored voltages of the table"""
    i_out_ua: Row | None = quantity("µA", ndim=1, rises=True, least=2, optional=True)
    """current at full input, ``(v_store,)``"""
    v_in_v: Row | None = quantity("V", ndim=1, rises=True, least=2, optional=True)
    """input voltages of the grid"""
    grid_ua: Rows | None = quantity("µA", ndim=2, least=2, optional=True)
    """current at every stored and input voltage, ``(v_store, v_in)``"""
    out_us: float | None = quantity("µS", low=0.0, optional=True)
    """output conductance that loads the line: largest over the levels"""
    tc_per_k: float | None = quantity("1/K", optional=True)
    """change of the current with temperature, relative to that at 27 °C"""
    tc_ua_per_k: float | None = quantity("µA/K", optional=True)
    """change with temperature that does not follow the current: its zero moves"""

    def _check(self) -> None:
        if (self.v_store_v is None) != (self.i_out_ua is None):
            raise ValueError("cell.v_store_v and cell.i_out_ua must be given both or not at all")
        if self.v_store_v is not None:
            self._check_shape("i_out_ua", (len(self.v_store_v),), "cell.v_store_v")
        if (self.v_in_v is None) != (self.grid_ua is None):
            raise ValueError("cell.v_in_v and cell.grid_ua must be given both or not at all")
        if self.v_in_v is not None:
            if self.v_store_v is None:
                raise ValueError("cell.v_store_v must be given with cell.grid_ua, not None")
            self._check_shape(
                "grid_ua", (len(self.v_store_v), len(self.v_in_v)), "cell.v_store_v, cell.v_in_v"
            )


@dataclass(frozen=True, kw_only=True)
class PulseCharge(_Section):
    """Charge that one read pulse delivers, edges included.

    Raises
    ------
    TypeError, ValueError
        A field is not of its kind or out of its range.
    """

    _path = "pulses."

    pulse_ns: Row = quantity("ns", ndim=1, above=0.0, rises=True)  #: lengths at half height
    v_store_v: Row = quantity("V", ndim=1, rises=True)  #: stored voltages
    charge_fc: Rows = quantity("fC", ndim=2)  #: ``(v_store, pulse)``; 1 fC is 1 µA·ns
    edge_ns: float | None = quantity("ns", above=0.0, optional=True)  #: rise and fall time
    edge_fc: Row | None = quantity("fC", ndim=1, optional=True)
    """charge of a pulse's edges, whatever its length: ``charge = i_out * pulse + edge``"""
    kickback_v: Row | None = quantity("V", ndim=1, optional=True)
    """change of the stored voltage while the longest pulse lasts, ``(v_store,)``"""
    kickback_kept_v: Row | None = quantity("V", ndim=1, optional=True)
    """what of it one pulse leaves behind, ``(v_store,)``"""

    def _check(self) -> None:
        stored = len(self.v_store_v)
        self._check_shape(
            "charge_fc", (stored, len(self.pulse_ns)), "pulses.v_store_v, pulses.pulse_ns"
        )
        self._check_shape("edge_fc", (stored,), "pulses.v_store_v")
        self._check_shape("kickback_v", (stored,), "pulses.v_store_v")
        self._check_shape("kickback_kept_v", (stored,), "pulses.v_store_v")


@dataclass(frozen=True, kw_only=True)
class Mismatch(_Section):
    """Spread from cell to cell: ``i = (1 + gain) * curve(v) + offset``, both normal, fixed.

    Raises
    ------
    TypeError, ValueError
        A field is not of its kind or out of its range.
    """

    _path = "mismatch."

    gain_sigma: float = quantity("1", low=0.0)  #: of the slope, relative
    offset_sigma_ua: float = quantity("µA", low=0.0)  #: of the current
    residual_ua: float | None = quantity("µA", low=0.0, optional=True)
    """root mean square of what gain and offset leave of the drawn cells"""
    cells: int = 0  #: cells drawn; 0 if not from a simulation

    def _check(self) -> None:
        _check_count("mismatch.cells", self.cells)


@dataclass(frozen=True, kw_only=True)
class Leakage(_Section):
    """How the stored voltage fades at one temperature, nothing selected.

    Raises
    ------
    TypeError, ValueError
        A field is not of its kind or out of its range.
    """

    _path = "leakage."

    temperature_c: float = quantity("°C", above=-273.15)
    v_rest_v: float = quantity("V")  #: voltage that the cell leaks towards
    tau_s: float = quantity("s", above=0.0)  #: time constant of the deviation from it
    tau_error_v: float | None = quantity("V", low=0.0, optional=True)
    """largest error of the exponential while no level has moved by more than half a step"""
    retention_s: float | None = quantity("s", above=0.0, optional=True)
    """until the fastest level has moved by half a step of the stored code"""
    time_s: Row | None = quantity("s", ndim=1, low=0.0, rises=True, least=2, optional=True)
    """times of the table"""
    v_store_v: Rows | None = quantity("V", ndim=2, optional=True)
    """stored voltage, ``(levels, time)``"""

    def _check(self) -> None:
        if (self.time_s is None) != (self.v_store_v is None):
            raise ValueError("leakage.time_s and leakage.v_store_v must be given both or neither")
        if self.time_s is not None and self.v_store_v is not None:
            shape = (len(self.v_store_v), len(self.time_s))
            self._check_shape("v_store_v", shape, "levels_v, leakage.time_s")


@dataclass(frozen=True, kw_only=True)
class ConverterFigures(_Section):
    """One kind of charge-to-pulse converter. A count is one step of its longest pulse.

    Raises
    ------
    TypeError, ValueError
        A field is not of its kind or out of its range.
    """

    _path = "converter."

    converters: int = 0  #: converters drawn; 0 if not from a simulation
    saturation_ua: float = quantity("µA", above=0.0)
    """mean current over the longest pulse in, that gives the longest pulse out"""
    offset_sigma_counts: float | None = quantity("1", low=0.0, optional=True)
    """spread of the offset from converter to converter, fixed"""
    gain_sigma: float | None = quantity("1", low=0.0, optional=True)  #: of the slope, relative
    jitter_sigma_ns: float | None = quantity("ns", low=0.0, optional=True)
    """of a pulse's end, fresh with every conversion"""
    delay_ns: float | None = quantity("ns", low=0.0, optional=True)
    """from the crossing to the end of the pulse, systematic; a digital side subtracts it"""
    charge_fc: Row | None = quantity("fC", ndim=1, rises=True, least=2, optional=True)
    """charges of the transfer table"""
    pulse_ns: Row | None = quantity("ns", ndim=1, least=2, optional=True)
    """pulse lengths, ``(charge,)``; negative for negative charge"""
    nonlinearity_counts: float | None = quantity("1", low=0.0, optional=True)
    """largest deviation of the table from ideal, between zero charge and saturation"""

    def _check(self) -> None:
        _check_count("converter.converters", self.converters)
        if (self.charge_fc is None) != (self.pulse_ns is None):
            raise ValueError("converter.charge_fc and converter.pulse_ns must be given both or not")
        if self.charge_fc is not None and self.pulse_ns is not None:
            self._check_shape("pulse_ns", (len(self.charge_fc),), "converter.charge_fc")
            for i, (first, second) in enumerate(itertools.pairwise(self.pulse_ns)):
                if second < first:
                    raise ValueError(
                        f"converter.pulse_ns must not fall, not {first!r} followed by "
                        f"{second!r} at index {i}"
                    )


@dataclass(frozen=True, kw_only=True)
class Energy(_Section):
    """Energy drawn from the supplies; None is not known.

    Raises
    ------
    TypeError, ValueError
        A field is not of its kind or out of its range.
    """

    _path = "energy."

    write_pj: float | None = quantity("pJ", low=0.0, optional=True)
    """one cell, one write, mean over all pairs of old and new level, word line included"""
    read_pj_per_ns: Row | None = quantity("pJ/ns", ndim=1, low=0.0, optional=True)
    """one cell, per time that its input is on, ``(levels,)``"""
    read_edge_pj: float | None = quantity("pJ", low=0.0, optional=True)
    """one cell, per pulse whatever its length: gates of the input"""
    conversion_pj: float | None = quantity("pJ", low=0.0, optional=True)
    """one conversion to phi, at half of its longest pulse"""
    output_conversion_pj: float | None = quantity("pJ", low=0.0, optional=True)
    """one conversion to counts, likewise"""


@dataclass(frozen=True, kw_only=True)
class DevicePreset(_Section):
    """A cell, what it does wrong, and its converters.

    Raises
    ------
    TypeError
        A field is not of its kind.
    ValueError
        A field is out of its range; tables do not fit each other.
    """

    name: str
    source: str  #: where the figures come from, in words
    supply_v: float = quantity("V", above=0.0)
    lsb_ns: float = quantity("ns", above=0.0)  #: time base: pulse length of one query code
    levels_v: Row = quantity("V", ndim=1, rises=True, least=2)  #: stored voltages of the codes
    cell: CellCurve
    residuals: Residuals = Residuals()
    pulses: PulseCharge | None = None
    mismatch: Mismatch | None = None
    read_noise_ua: float | None = quantity("µA", low=0.0, optional=True)
    """RMS of one driven cell's current, mean over one LSB; fresh with every read, white: the
    noise charge grows with the root of the pulse length"""
    write_ns: float | None = quantity("ns", above=0.0, optional=True)
    """until the slowest level is within half a step of the stored code"""
    written_v: Row | None = quantity("V", ndim=1, optional=True)
    """stored voltage of each level once its write has ended: what the write's edge leaves"""
    leakage: tuple[Leakage, ...] = ()  #: one per temperature, rising
    score_converter: ConverterFigures | None = None  #: between the arrays: phi
    output_converter: ConverterFigures | None = None  #: behind array 2: signed counts
    energy: Energy = Energy()
    provenance: Mapping[str, str] = field(default_factory=dict)
    """versions of tools, hash of the decks: what it takes to make the figures again"""

    def _check(self) -> None:
        for name in ("name", "source"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a str, not {value!r}")
            if not value:
                raise ValueError(f"{name} must not be empty, not {value!r}")
        for key, value in self.provenance.items():
            if not isinstance(value, str):
                raise TypeError(f"provenance.{key} must be a str, not {value!r}")
        for hint in ("cell", "residuals", "energy"):
            if not isinstance(getattr(self, hint), _Section):
                raise TypeError(f"{hint} must be a section, not {getattr(self, hint)!r}")
        steps = np.diff(self.levels_v)
        if not np.allclose(steps, steps.mean(), rtol=1e-6, atol=0.0):
            raise ValueError(f"levels_v must have equal steps, not {self.levels_v!r}")
        bits = math.log2(len(self.levels_v))
        if bits != int(bits):
            raise ValueError(
                f"levels_v must hold a power of two of levels, not {len(self.levels_v)!r}"
            )
        self._check_shape("written_v", (len(self.levels_v),), "levels_v")
        table = self.cell.v_store_v
        margin = 1e-9
        if table is not None and not (
            table[0] <= self.levels_v[0] + margin and self.levels_v[-1] <= table[-1] + margin
        ):
            raise ValueError(
                f"cell.v_store_v must span levels_v, {self.levels_v[0]:g}..{self.levels_v[-1]:g} V,"
                f" not {table[0]:g}..{table[-1]:g} V"
            )
        temperatures = [row.temperature_c for row in self.leakage]
        if temperatures != sorted(set(temperatures)):
            raise ValueError(f"leakage.temperature_c must rise strictly, not {temperatures!r}")
        for row in self.leakage:
            if row.v_store_v is not None and len(row.v_store_v) != len(self.levels_v):
                raise ValueError(
                    f"leakage.v_store_v must have {len(self.levels_v)} rows, one per level, "
                    f"not {len(row.v_store_v)!r}"
                )
        if self.energy.read_pj_per_ns is not None:
            if len(self.energy.read_pj_per_ns) != len(self.levels_v):
                raise ValueError(
                    f"energy.read_pj_per_ns must hold {len(self.levels_v)} values, one per level, "
                    f"not {len(self.energy.read_pj_per_ns)!r}"
                )

    # --- what the models take from it -------------------------------------------------------
    def cell_model(self, *, polynomial: bool = False) -> Cell:
        """The cell as a model: its table where there is one, or else (or if asked) its fit."""
        if self.cell.v_store_v is None or self.cell.i_out_ua is None or polynomial:
            return PolynomialCell(coefficients=self.cell.coefficients_ua, v_mid_v=self.cell.v_mid_v)
        return TabulatedCell(self.cell.v_store_v, self.cell.i_out_ua)

    def dac(self) -> Dac:
        """The DAC that writes the levels."""
        return Dac(
            bits=int(math.log2(len(self.levels_v))),
            v_min_v=self.levels_v[0],
            v_max_v=self.levels_v[-1],
        )

    def leakage_at(self, temperature_c: float) -> Leakage | None:
        """Leakage at a temperature; None if the device is ideal in this respect.

        Between temperatures the logarithm of tau is linear in 1/T, and the rest voltage in T.

        Raises
        ------
        ValueError
            The preset says nothing about this temperature.
        """
        if not self.leakage:
            return None
        for row in self.leakage:
            if row.temperature_c == temperature_c:
                return row
        if not self.leakage[0].temperature_c < temperature_c < self.leakage[-1].temperature_c:
            raise ValueError(
                f"temperature_c must be in {self.leakage[0].temperature_c:g}.."
                f"{self.leakage[-1].temperature_c:g} °C for {self.name}, not {temperature_c!r}"
            )
        hot = next(i for i, row in enumerate(self.leakage) if row.temperature_c > temperature_c)
        low, high = self.leakage[hot - 1], self.leakage[hot]
        ends = np.array([low.temperature_c, high.temperature_c])
        kelvin = ends + 273.15
        share = float(
            (1 / (temperature_c + 273.15) - 1 / kelvin[0]) / (1 / kelvin[1] - 1 / kelvin[0])
        )

        def between(first: float, second: float) -> float:
            return math.exp((1 - share) * math.log(first) + share * math.log(second))

        retention = None
        if low.retention_s is not None and high.retention_s is not None:
            retention = between(low.retention_s, high.retention_s)
        return Leakage(
            temperature_c=temperature_c,
            v_rest_v=float(np.interp(temperature_c, ends, [low.v_rest_v, high.v_rest_v])),
            tau_s=between(low.tau_s, high.tau_s),
            retention_s=retention,
        )

    # --- files --------------------------------------------------------------------------------
    def to_json(self) -> str:
        """The preset as text of a JSON file; deterministic."""
        return _text({"format": FORMAT, **_encode(self)}) + "\n"

    @classmethod
    def from_json(cls, text: str) -> DevicePreset:
        """Read what ``to_json`` wrote.

        Raises
        ------
        ValueError
            It is no JSON of this format; a field is missing, unknown, of another unit, not of its
            kind or out of its range. The message names the field.
        """
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"a preset must be JSON: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"a preset must be a JSON object, not {type(content).__name__}")
        found = content.pop("format", None)
        if found != FORMAT:
            raise ValueError(f"format must be {FORMAT!r}, not {found!r}")
        preset: DevicePreset = _decode(cls, content, "")
        return preset

    def save(self, path: str | Path) -> None:
        """Write the preset to a file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> DevicePreset:
        """Read a preset from a file.

        Raises
        ------
        OSError
            The file cannot be read.
        ValueError
            It is refused; the message names the file and the field.
        """
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{Path(path).name}: a preset must be UTF-8: {error}") from error
        except ValueError as error:
            raise ValueError(f"{Path(path).name}: {error}") from error


def _encode(section: Any) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for item in dataclasses.fields(section):
        value = getattr(section, item.name)
        if "unit" in item.metadata:
            content[item.name] = {"unit": item.metadata["unit"], "value": value}
        elif isinstance(value, _Section):
            content[item.name] = _encode(value)
        elif isinstance(value, tuple):
            content[item.name] = [_encode(row) for row in value]
        elif isinstance(value, Mapping):
            content[item.name] = dict(value)
        else:
            content[item.name] = value
    return content


def _text(content: Any, indent: str = "") -> str:
    """JSON with one quantity per line."""
    if isinstance(content, dict) and set(content) != {"unit", "value"}:
        inner = indent + "  "
        items = [f"{inner}{json.dumps(key)}: {_text(v, inner)}" for key, v in content.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}" if items else "{}"
    if isinstance(content, list):
        return f"[{', '.join(_text(item, indent) for item in content)}]"
    return json.dumps(content, ensure_ascii=False)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _section_of(hint: Any) -> type | None:
    """The section that a field's type names, alone, or None, or in a tuple."""
    for kind in (hint, *get_args(hint)):
        if isinstance(kind, type) and not isinstance(kind, types.GenericAlias):
            if issubclass(kind, _Section):
                return kind
    return None


def _decode(kind: type, content: Any, path: str) -> Any:
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
                _decode(section, row, f"{where}[{i}].") for i, row in enumerate(value)
            )
        elif value is None and type(None) in get_args(hints[name]):
            given[name] = None
        else:
            given[name] = _decode(section, value, f"{where}.")
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        own = getattr(kind, "_path", "")
        message = str(error)
        if own and path:  # say which of several converters or temperatures it is
            message = message.replace(own, path)
        raise ValueError(message) from error
