"""Parameters of the analog model of one head."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from analog_models.cell import Cell
from analog_models.converter import ChargeToPulse, SignedChargeToPulse, check_exact
from analog_models.dac import Dac, LevelCurrents, check_decay
from analog_models.presets import resolve_cell

__all__ = ["AnalogParams", "check_int"]


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
    s_sat_ua: float = 80.0  #: score current at which phi saturates
    a_sat_ua: float = 40.0  #: output current at which a sub-tile's result saturates
    cell: str | Path | Cell = "published"  #: preset's name, path ending .npz, or a cell
    decay_per_token: float = 0.0  #: share of the stored deviation lost per token, 0 is ideal
    decay_law: str = "voltage"  #: what decays: the stored "voltage" or the whole "current"

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
        _ = self.score_converter, self.output_converter  # they check their own fields
        check_exact(
            rows=self.rows,
            columns=self.columns,
            q_bits=self.q_bits,
            i_max_ua=self.level_currents.i_max_ua,
        )

    @classmethod
    def matching(cls, shape: Any, **analog: Any) -> AnalogParams:
        """Parameters with the shape and widths of another object, such as the digital head's.

        Parameters
        ----------
        shape
            Any object with the attributes subtiles, columns, rows, lanes, q_bits, kv_bits,
            count_bits and write_clk.
        analog
            The fields that only the analog side has.
        """
        names = ("subtiles", "columns", "rows", "lanes", "q_bits", "kv_bits", "count_bits")
        return cls(**{name: getattr(shape, name) for name in (*names, "write_clk")}, **analog)

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
        return Dac(bits=self.kv_bits)

    @cached_property
    def level_currents(self) -> LevelCurrents:
        """Currents of all levels by age."""
        return LevelCurrents(
            resolve_cell(self.cell),
            self.dac,
            decay_per_token=self.decay_per_token,
            decay_law=self.decay_law,
        )

    @cached_property
    def score_converter(self) -> ChargeToPulse:
        """The converter between the two arrays."""
        return ChargeToPulse(q_bits=self.q_bits, s_sat_ua=self.s_sat_ua)

    @cached_property
    def output_converter(self) -> SignedChargeToPulse:
        """The converter behind array 2."""
        return SignedChargeToPulse(
            q_bits=self.q_bits, count_bits=self.count_bits, a_sat_ua=self.a_sat_ua
        )
