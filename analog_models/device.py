"""Device presets: everything the models need to know of a cell and its converters, in one file.

A preset comes from a simulation or from print, and says which. Field names end in their unit;
in JSON every physical quantity also declares it, as ``{"unit": "µA", "value": ...}``, and a file
whose units, fields or tables are not as they must be is refused with a message that names the
field. None means ideal, or not known.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from analog_models.cell import Cell, PolynomialCell, TabulatedCell
from analog_models.dac import Dac
from analog_models.droop import Droop
from analog_models.faults import ROOM_C
from analog_models.quantity import Row, Rows, Section, decode, encode, quantity, text_of
from analog_models.transfer import Transfer

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

FORMAT = "gaincell-device-2"  #: what a preset's file says it is


@dataclass(frozen=True, kw_only=True)
class Residuals(Section):
    """What a fit leaves, over the stored range, against points that it did not see."""

    _path = "residuals."

    polynomial_rms_ua: float | None = quantity("µA", low=0.0, optional=True)  #: root mean square
    polynomial_max_ua: float | None = quantity("µA", low=0.0, optional=True)  #: largest
    table_rms_ua: float | None = quantity("µA", low=0.0, optional=True)  #: root mean square
    table_max_ua: float | None = quantity("µA", low=0.0, optional=True)  #: largest


@dataclass(frozen=True, kw_only=True)
class CellCurve(Section):
    """Output current of a cell; positive is what a higher stored voltage gives more of."""

    _path = "cell."

    v_mid_v: float = quantity("V")  #: stored voltage at which u = v - v_mid_v is zero
    coefficients_ua: Row = quantity("µA/V^i", ndim=1)  #: of u^i, constant first, full input
    v_store_v: Row | None = quantity("V", ndim=1, rises=True, least=2, optional=True)
    """stored voltages of the table, beyond the levels where charge goes"""
    i_out_ua: Row | None = quantity("µA", axes=("v_store_v",), rises=True, least=2, optional=True)
    """current at full input"""
    v_in_v: Row | None = quantity("V", ndim=1, rises=True, least=2, optional=True)
    """input voltages of the grid"""
    grid_ua: Rows | None = quantity("µA", axes=("v_store_v", "v_in_v"), least=2, optional=True)
    """steady current at every stored and input voltage"""
    out_us: float | None = quantity("µS", low=0.0, optional=True)
    """output conductance that loads the line: largest over the levels"""
    tc_ua_per_k: Row | None = quantity("µA/K", axes=("v_store_v",), optional=True)
    """change of the current with temperature, mean from 27 °C to the highest simulated"""

    def _check(self) -> None:
        self._check_both("v_store_v", "i_out_ua")
        self._check_both("v_in_v", "grid_ua")


@dataclass(frozen=True, kw_only=True)
class PulseCharge(Section):
    """Charge that one read pulse delivers, edges included, and what reading does to the cell."""

    _path = "pulses."

    pulse_ns: Row = quantity("ns", ndim=1, above=0.0, rises=True)  #: lengths at half height
    v_store_v: Row = quantity("V", ndim=1, rises=True)  #: stored voltages
    charge_fc: Rows = quantity("fC", axes=("v_store_v", "pulse_ns"))  #: 1 fC is 1 µA·ns
    edge_ns: float | None = quantity("ns", above=0.0, optional=True)  #: rise and fall time
    edge_fc: Row | None = quantity("fC", axes=("v_store_v",), optional=True)
    """charge of a pulse's edges, whatever its length: ``charge = i_out * pulse + edge``"""
    kickback_v: Row | None = quantity("V", axes=("v_store_v",), optional=True)
    """change of the stored voltage while the longest pulse lasts"""
    kickback_kept_v: Row | None = quantity("V", axes=("v_store_v",), optional=True)
    """what of it one pulse leaves behind"""
    reads: int = 0  #: pulses in a row of the next figure
    repeat_v: float | None = quantity("V", low=0.0, optional=True)
    """largest change, over the levels, that all later reads add to the first's"""

    def _check(self) -> None:
        self._check_count("reads")


@dataclass(frozen=True, kw_only=True)
class Mismatch(Section):
    """Spread from cell to cell: ``i = (1 + gain) * curve(v) + offset``, both normal, fixed."""

    _path = "mismatch."

    gain_sigma: float = quantity("1", low=0.0)  #: of the slope, relative
    offset_sigma_ua: float = quantity("µA", low=0.0)  #: of the current
    residual_ua: float | None = quantity("µA", low=0.0, optional=True)
    """root mean square of what gain and offset leave of the drawn cells"""
    cells: int = 0  #: cells drawn; 0 if not from a simulation

    def _check(self) -> None:
        self._check_count("cells")


@dataclass(frozen=True, kw_only=True)
class Leakage(Section):
    """How the stored voltage fades at one temperature, nothing selected.

    An exponential, as published, or a table, as simulated.
    """

    _path = "leakage."

    temperature_c: float = quantity("°C", above=-273.15)
    v_rest_v: float = quantity("V")  #: voltage that the cell leaks towards
    tau_s: float | None = quantity("s", above=0.0, optional=True)
    """time constant of the deviation from it"""
    retention_s: float | None = quantity("s", above=0.0, optional=True)
    """until the fastest level has moved by half a step of the stored code"""
    time_s: Row | None = quantity("s", ndim=1, low=0.0, rises=True, least=2, optional=True)
    """times of the table, from zero"""
    v_store_v: Rows | None = quantity("V", ndim=2, least=2, optional=True)
    """stored voltage, ``(levels, time)``"""

    def _check(self) -> None:
        self._check_both("time_s", "v_store_v")
        if self.tau_s is None and self.time_s is None:
            raise ValueError("leakage.tau_s must be given where there is no leakage.time_s")
        try:
            _ = self.droop
        except ValueError as error:
            raise ValueError(f"leakage.{error}") from error

    @property
    def droop(self) -> Droop | None:
        """The table as a law of fading; None if there is none."""
        if self.time_s is None or self.v_store_v is None:
            return None
        return Droop(time_s=self.time_s, v_store_v=self.v_store_v)


@dataclass(frozen=True, kw_only=True)
class ConverterFigures(Section):
    """One kind of charge-to-pulse converter. A count is one step of its longest pulse."""

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
    pulse_ns: Row | None = quantity("ns", axes=("charge_fc",), least=2, optional=True)
    """pulse lengths, negative for negative charge"""
    nonlinearity_counts: float | None = quantity("1", low=0.0, optional=True)
    """largest deviation of the table from ideal, clipping included"""

    def _check(self) -> None:
        self._check_count("converters")
        self._check_both("charge_fc", "pulse_ns")
        for i, (first, second) in enumerate(itertools.pairwise(self.pulse_ns or ())):
            if second < first:
                raise ValueError(
                    f"converter.pulse_ns must not fall, not {first!r} followed by "
                    f"{second!r} at index {i}"
                )

    def transfer(self, lsb_ns: float) -> Transfer | None:
        """The table in counts; None if there is none.

        Parameters
        ----------
        lsb_ns
            Time base: length of one count.
        """
        if self.charge_fc is None or self.pulse_ns is None:
            return None
        per_count_fc = self.saturation_ua * lsb_ns
        return Transfer(
            charge=tuple(charge / per_count_fc for charge in self.charge_fc),
            pulse=tuple(pulse / lsb_ns for pulse in self.pulse_ns),
        )


@dataclass(frozen=True, kw_only=True)
class Energy(Section):
    """Energy drawn from the supplies; None is not known."""

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
class DevicePreset(Section):
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
    written_v: Row | None = quantity("V", axes=("levels_v",), rises=True, optional=True)
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
            if not isinstance(getattr(self, hint), Section):
                raise TypeError(f"{hint} must be a section, not {getattr(self, hint)!r}")
        steps = np.diff(self.levels_v)
        if not np.allclose(steps, steps.mean(), rtol=1e-6, atol=0.0):
            raise ValueError(f"levels_v must have equal steps, not {self.levels_v!r}")
        bits = math.log2(len(self.levels_v))
        if bits != int(bits):
            raise ValueError(
                f"levels_v must hold a power of two of levels, not {len(self.levels_v)!r}"
            )
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
    def cell_model(self, *, polynomial: bool = False, temperature_c: float = ROOM_C) -> Cell:
        """The cell as a model: its table where there is one, or else (or if asked) its fit.

        A table follows the temperature as far as the preset says how; a fit is of 27 °C.
        """
        if self.cell.v_store_v is None or self.cell.i_out_ua is None or polynomial:
            return PolynomialCell(coefficients=self.cell.coefficients_ua, v_mid_v=self.cell.v_mid_v)
        current = np.asarray(self.cell.i_out_ua)
        if self.cell.tc_ua_per_k is not None:
            current = current + np.asarray(self.cell.tc_ua_per_k) * (temperature_c - ROOM_C)
        return TabulatedCell(self.cell.v_store_v, current)

    def dac(self) -> Dac:
        """The DAC that writes the levels."""
        return Dac(
            bits=int(math.log2(len(self.levels_v))),
            v_min_v=self.levels_v[0],
            v_max_v=self.levels_v[-1],
        )

    def leakage_at(self, temperature_c: float) -> Leakage | None:
        """Leakage at a temperature; None if the device is ideal in this respect.

        Between temperatures the logarithm of every time is linear in 1/T, and the rest voltage in
        T; a table is that of the lower temperature, faster.

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

        def between(first: float | None, second: float | None) -> float | None:
            if first is None or second is None:
                return None
            return math.exp((1 - share) * math.log(first) + share * math.log(second))

        retention_s = between(low.retention_s, high.retention_s)
        time_s = None
        if low.time_s is not None and low.retention_s is not None and retention_s is not None:
            time_s = tuple(time * retention_s / low.retention_s for time in low.time_s)
        return Leakage(
            temperature_c=temperature_c,
            v_rest_v=float(np.interp(temperature_c, ends, [low.v_rest_v, high.v_rest_v])),
            tau_s=between(low.tau_s, high.tau_s),
            retention_s=retention_s,
            time_s=time_s,
            v_store_v=None if time_s is None else low.v_store_v,
        )

    # --- files --------------------------------------------------------------------------------
    def to_json(self) -> str:
        """The preset as text of a JSON file; deterministic."""
        return text_of({"format": FORMAT, **encode(self)}) + "\n"

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
        return decode(cls, content)

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
