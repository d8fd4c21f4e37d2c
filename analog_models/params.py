"""Parameters of the analog model of one head."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analog_models.cell import V_MID_V, Cell
from analog_models.converter import ChargeToPulse, SignedChargeToPulse, check_exact
from analog_models.dac import Dac, LevelCurrents, check_decay
from analog_models.droop import Droop
from analog_models.faults import Faults
from analog_models.instance import CellCurrents
from analog_models.offsets import charge_offsets, check_sigma
from analog_models.presets import resolve_cell
from analog_models.sensing import Sensing
from analog_models.transfer import Transfer

__all__ = ["A_LEVEL", "LEVEL_MAX", "S_LEVEL", "AnalogParams", "check_int"]

S_LEVEL = 80  #: level whose S_sat is ``s_sat_ua``; used where a query names none
A_LEVEL = 40  #: level whose A_sat is ``a_sat_ua``; used where a query names none
LEVEL_MAX = 255  #: highest level


def check_int(name: str, value: object, low: int, high: int) -> None:
    """Refuse what is no int in ``low..high``.

    Raises
    ------
    TypeError
        ``value`` is no int.
    ValueError
        It is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be in {low}..{high}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class AnalogParams:
    """Shape, code widths, cell and converters of one head.

    Saturation currents are programmable in levels 1..255: a level's S_sat is the level times
    ``s_unit_ua``, so that ``s_sat_ua`` is that of level 80; likewise A_sat, ``a_unit_ua`` and
    ``a_sat_ua`` of level 40. With the defaults a unit is 1 µA.

    Stored charge leaks in one of three ways: by ``decay_per_token``, where age counts the writes of
    an array; with ``tau_s``, where it counts ticks of ``tick_clk`` clocks; or with ``droop``, a law
    of fading from simulation, where it counts ticks as well.

    Raises
    ------
    TypeError
        A field is not of its kind.
    ValueError
        A field is out of its range, or charges would not be exact.
    """

    subtiles: int = 16  #: sub-tiles of the window, each with converters of its own
    columns: int = 64  #: tokens stored in one sub-tile
    rows: int = 64  #: word lines of array 1, one query code each
    lanes: int = 64  #: outputs of array 2, one value code each
    q_bits: int = 4  #: query code width; the pulse of code c lasts c clocks
    kv_bits: int = 3  #: stored code width
    count_bits: int = 4  #: magnitude bits of one sub-tile's result
    write_clk: int = 4  #: clocks to write one column of one array
    s_sat_ua: float = 80.0  #: score current at which phi saturates, at level 80
    a_sat_ua: float = 40.0  #: output current at which a sub-tile's result saturates, at level 40
    cell: str | Path | Cell = "published"  #: preset's name, path ending .npz, or a cell
    decay_per_token: float = 0.0  #: share of the stored deviation lost per token, 0 is ideal
    decay_law: str = "voltage"  #: what decays: the stored "voltage" or the whole "current"
    tau_s: float | None = None  #: time constant of the stored deviation, None is ideal
    droop: Droop | None = None  #: stored voltage over time, instead of ``tau_s``
    clk_ns: float = 1.0  #: length of a clock; used with ``tau_s`` and ``droop``
    tick_clk: int = 1024  #: clocks of one step of age; used with ``tau_s`` and ``droop``
    score_offset_sigma_clk: float = 0.0  #: spread of phi's offset, per column, at level 80
    output_offset_sigma_counts: float = 0.0  #: spread of a result's, per lane, at level 40
    offset_seed: int = 0  #: picks the offsets
    v_min_v: float = 0.0  #: stored voltage of code 0
    v_max_v: float = 0.9  #: stored voltage of the highest code
    v_rest_v: float = V_MID_V  #: stored voltage that leakage leads to
    #: stored voltage of every code once its write has ended; None is equal steps
    written_v: tuple[float, ...] | None = None
    score_transfer: Transfer | None = None  #: of the converters to phi; None is ideal
    output_transfer: Transfer | None = None  #: of the converters to counts; None is ideal
    faults: Faults = field(default_factory=Faults)  #: everything else that is not ideal

    def __post_init__(self) -> None:
        check_int("subtiles", self.subtiles, 1, 256)
        check_int("columns", self.columns, 1, 256)
        check_int("rows", self.rows, 1, 256)
        check_int("lanes", self.lanes, 1, 256)
        check_int("q_bits", self.q_bits, 1, 8)
        check_int("kv_bits", self.kv_bits, 1, 8)
        check_int("count_bits", self.count_bits, 1, 8)
        check_int("write_clk", self.write_clk, 1, 64)
        check_decay(self.decay_per_token, self.decay_law)
        self._check_time()
        check_sigma("score_offset_sigma_clk", self.score_offset_sigma_clk)
        check_sigma("output_offset_sigma_counts", self.output_offset_sigma_counts)
        check_int("offset_seed", self.offset_seed, 0, 2**63 - 1)
        if not isinstance(self.faults, Faults):
            raise TypeError(f"faults must be Faults, not {self.faults!r}")
        if not self.v_min_v <= self.v_rest_v <= self.v_max_v:
            raise ValueError(
                f"v_rest_v must be in {self.v_min_v:g}..{self.v_max_v:g}, not {self.v_rest_v!r}"
            )
        self._check_written()
        _ = self.score_converter, self.output_converter  # they check their own fields
        score_offset, output_offset = self.score_offset, self.output_offset
        check_exact(
            rows=self.rows,
            columns=self.columns,
            q_bits=self.q_bits,
            i_max_ua=max(self.key_currents.i_max_ua, self.value_currents.i_max_ua),
            score_offset=0.0 if score_offset is None else float(np.abs(score_offset).max()),
            output_offset=0.0 if output_offset is None else float(np.abs(output_offset).max()),
        )

    def _check_time(self) -> None:
        for name in ("tau_s", "clk_ns"):
            value = getattr(self, name)
            if value is None and name == "tau_s":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
                raise TypeError(f"{name} must be a float, not {value!r}")
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, not {value!r}")
        check_int("tick_clk", self.tick_clk, 1, 2**32)
        if self.droop is not None:
            if not isinstance(self.droop, Droop):
                raise TypeError(f"droop must be a Droop or None, not {self.droop!r}")
            if self.tau_s is not None:
                raise ValueError(f"tau_s must be None with droop, not {self.tau_s!r}")
        if not self.age_clk:
            return
        if self.decay_per_token:
            raise ValueError(
                "decay_per_token must be 0 with tau_s or droop, for age counts either writes or "
                f"ticks, not {self.decay_per_token!r}"
            )
        if self.tau_s is not None and self._decay_per_tick > 1:
            tau_clk = self.tau_s * self.faults.tau_factor * 1e9 / self.clk_ns
            raise ValueError(
                f"tick_clk must be no longer than tau_s, {tau_clk:g} clocks, not {self.tick_clk!r}"
            )

    def _check_written(self) -> None:
        if self.written_v is None:
            return
        if not isinstance(self.written_v, tuple):
            raise TypeError(f"written_v must be a tuple of floats, not {self.written_v!r}")
        if len(self.written_v) != self.dac.levels:
            raise ValueError(
                f"written_v must hold {self.dac.levels} voltages, one per code, "
                f"not {len(self.written_v)!r}"
            )
        steps = np.diff(np.asarray(self.written_v, dtype=np.float64))
        if not (steps > 0).all():
            raise ValueError(f"written_v must rise strictly, not {self.written_v!r}")

    @classmethod
    def matching(cls, shape: Any, **analog: Any) -> AnalogParams:
        """Parameters with the shape and widths of another object, such as the digital head's.

        Parameters
        ----------
        shape
            Any object with the attributes subtiles, columns, rows, lanes, q_bits, kv_bits,
            count_bits and write_clk.
        analog
            The fields that only the analog side has, and any that are to differ from ``shape``'s.
        """
        names = ("subtiles", "columns", "rows", "lanes", "q_bits", "kv_bits", "count_bits")
        given = {name: getattr(shape, name) for name in (*names, "write_clk")}
        return cls(**{**given, **analog})

    @property
    def window(self) -> int:
        """Tokens the window holds."""
        return self.subtiles * self.columns

    @property
    def q_max(self) -> int:
        """Highest query code; also clocks of a Q.K integration and of a conversion to phi."""
        return (1 << self.q_bits) - 1

    @property
    def count_max(self) -> int:
        """Largest magnitude of one sub-tile's result; also clocks of a readout."""
        return (1 << self.count_bits) - 1

    @cached_property
    def dac(self) -> Dac:
        """The DAC that writes both arrays."""
        return Dac(bits=self.kv_bits, v_min_v=self.v_min_v, v_max_v=self.v_max_v)

    @property
    def _decay_per_tick(self) -> float:
        assert self.tau_s is not None
        return self.tick_clk * self.clk_ns / (self.tau_s * self.faults.tau_factor * 1e9)

    @property
    def leaks(self) -> bool:
        """Stored charge fades."""
        return self.age_clk > 0 or self.decay_per_token > 0

    @property
    def age_clk(self) -> int:
        """Clocks of one step of age; 0 where age counts writes."""
        return 0 if self.tau_s is None and self.droop is None else self.tick_clk

    @cached_property
    def level_currents(self) -> LevelCurrents:
        """Currents of all levels by age, of ideal cells."""
        per_token = self.decay_per_token / self.faults.tau_factor
        return LevelCurrents(
            resolve_cell(self.cell),
            self.dac,
            decay_per_token=per_token if self.tau_s is None else self._decay_per_tick,
            decay_law=self.decay_law,
            v_rest_v=self.v_rest_v,
            written_v=self.written_v,
            droop=self.droop,
            step_s=self.tick_clk * self.clk_ns * 1e-9 / self.faults.tau_factor,
        )

    @cached_property
    def key_currents(self) -> CellCurrents:
        """Currents of array 1's cells, mismatch included."""
        return self._cell_currents("key", self.rows)

    @cached_property
    def value_currents(self) -> CellCurrents:
        """Currents of array 2's cells, mismatch included."""
        return self._cell_currents("value", self.lanes)

    def _cell_currents(self, array: str, lines: int) -> CellCurrents:
        return CellCurrents(
            self.level_currents,
            self.faults,
            array=array,
            subtiles=self.subtiles,
            columns=self.columns,
            lines=lines,
        )

    # --- converters -------------------------------------------------------------------------
    @property
    def s_unit_ua(self) -> float:
        """S_sat of one level."""
        return self.s_sat_ua / S_LEVEL

    @property
    def a_unit_ua(self) -> float:
        """A_sat of one level."""
        return self.a_sat_ua / A_LEVEL

    @property
    def score_converter(self) -> ChargeToPulse:
        """The converter between the two arrays, at level 80."""
        return self.score_converter_of(S_LEVEL)

    @property
    def output_converter(self) -> SignedChargeToPulse:
        """The converter behind array 2, at level 40."""
        return self.output_converter_of(A_LEVEL)

    def score_converter_of(self, level: int | None = None) -> ChargeToPulse:
        """The converter between the two arrays at a level; None is the default one, 80.

        Raises
        ------
        TypeError, ValueError
            ``level`` is no int in 1..255.
        """
        level = S_LEVEL if level is None else level
        check_int("s_level", level, 1, LEVEL_MAX)
        if level not in self._score_converters:
            s_sat_ua = self.s_sat_ua if level == S_LEVEL else _share(self.s_sat_ua, level, S_LEVEL)
            self._score_converters[level] = ChargeToPulse(
                q_bits=self.q_bits, s_sat_ua=s_sat_ua, transfer=self.score_transfer
            )
        return self._score_converters[level]

    def output_converter_of(self, level: int | None = None) -> SignedChargeToPulse:
        """The converter behind array 2 at a level; None is the default one, 40.

        Raises
        ------
        TypeError, ValueError
            ``level`` is no int in 1..255.
        """
        level = A_LEVEL if level is None else level
        check_int("a_level", level, 1, LEVEL_MAX)
        if level not in self._output_converters:
            a_sat_ua = self.a_sat_ua if level == A_LEVEL else _share(self.a_sat_ua, level, A_LEVEL)
            self._output_converters[level] = SignedChargeToPulse(
                q_bits=self.q_bits,
                count_bits=self.count_bits,
                a_sat_ua=a_sat_ua,
                transfer=self.output_transfer,
            )
        return self._output_converters[level]

    @cached_property
    def _score_converters(self) -> dict[int, ChargeToPulse]:
        return {}

    @cached_property
    def _output_converters(self) -> dict[int, SignedChargeToPulse]:
        return {}

    @cached_property
    def score_offset(self) -> NDArray[np.float64] | None:
        """Charge that each column's converter sees too much, µA·clk, ``(window,)``; None is none.

        A charge does not change with the level; the offset of the pulse does.
        """
        sigma = self.score_offset_sigma_clk * self.s_sat_ua
        return charge_offsets(sigma, (self.window,), (self.offset_seed, 0))

    @cached_property
    def output_offset(self) -> NDArray[np.float64] | None:
        """The same of each lane's signed converter, ``(subtiles, lanes)``."""
        sigma = self.output_offset_sigma_counts * self.output_converter.charge_per_count
        return charge_offsets(sigma, (self.subtiles, self.lanes), (self.offset_seed, 1))

    @cached_property
    def sensing(self) -> Sensing:
        """What the converters see of the charges: offsets, gains, noise."""
        return Sensing(
            self.faults,
            score_offset=self.score_offset,
            output_offset=self.output_offset,
            window=self.window,
            subtiles=self.subtiles,
            lanes=self.lanes,
        )


def _share(current_ua: float, level: int, full: int) -> float:
    """Current at a level, rounded once."""
    return float(Fraction(float(current_ua)) * level / full)
