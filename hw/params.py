"""Parameters of an attention head, or layer of heads, and every figure derived from them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass

__all__ = ["READOUTS", "SCHEDULES", "HeadParams"]

READOUTS = ("population", "counter")
SCHEDULES = ("simple", "streaming")
#: Bits that a result is wider than a sum: shifts by up to 3, and one more for the sum of shots.
SHOT_BITS = 4


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be in {low}..{high}, not {value!r}")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {value!r}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, not {value!r}")


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {value!r}")


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True, kw_only=True)
class HeadParams:
    """Shape, code widths and phase lengths of one attention head.

    The window holds ``subtiles * columns`` tokens. Array 1 (keys) has ``rows`` word lines and
    array 2 (values) has ``lanes`` outputs; neither need equal a model's head size. What a feature
    that is absent (0 or False) would need costs no gate.

    Raises
    ------
    TypeError
        A field is not of its kind.
    ValueError
        A field is out of its range, or two fields contradict each other.

    """

    subtiles: int = 16  #: sub-tiles of the window, each with converters of its own
    columns: int = 64  #: tokens stored in one sub-tile
    rows: int = 64  #: word lines of array 1, one query code each
    lanes: int = 64  #: outputs of array 2, one value code each
    q_bits: int = 4  #: query code width; the pulse of code c lasts c clocks
    kv_bits: int = 3  #: stored code width
    count_bits: int = 4  #: magnitude bits of one sub-tile's result
    write_clk: int = 4  #: clocks to write one column of one array
    guard_clk: int = 1  #: clocks between phases, in which integrators are reset
    bus_bits: int = 64  #: width of both AXI4-Streams
    tag_bits: int = 16  #: width of the tag that travels with each packet
    event_bits: int = 16  #: width of the saturating event counters
    result_slots: int = 4  #: results the streaming schedule may have between admission and exit
    heads: int = 1  #: heads that share sequencer, window and registers, each with its own streams
    sinks: int = 0  #: most columns that can be pinned at the start of a sequence; 0 for none
    age_bits: int = 0  #: width of the age counters, one per sub-tile; 0 for none
    trim_bits: int = 0  #: width of the offset subtracted from each lane's sum; 0 for none
    readout: str = "population"  #: "population" (population count) or "counter" (one per pulse)
    schedule: str = "simple"  #: "simple" (one packet at a time) or "streaming" (overlapped)
    shots: bool = False  #: gain codes per query; shots that accumulate with a weight
    refresh: bool = False  #: a digital copy of the codes, from which columns are rewritten
    self_test: bool = False  #: queries and raw counts of one sub-tile through registers

    def __post_init__(self) -> None:
        _check_int("subtiles", self.subtiles, 1, 256)
        _check_int("columns", self.columns, 2, 256)
        _check_int("rows", self.rows, 1, 256)
        _check_int("lanes", self.lanes, 1, 256)
        _check_int("q_bits", self.q_bits, 1, 8)
        _check_int("kv_bits", self.kv_bits, 1, 8)
        _check_int("count_bits", self.count_bits, 1, 8)
        _check_int("write_clk", self.write_clk, 1, 64)
        _check_int("guard_clk", self.guard_clk, 1, 15)
        _check_int("bus_bits", self.bus_bits, 32, 1024)
        _check_int("tag_bits", self.tag_bits, 1, 16)
        _check_int("event_bits", self.event_bits, 4, 32)
        if self.bus_bits & (self.bus_bits - 1):
            raise ValueError(f"bus_bits must be a power of two, not {self.bus_bits!r}")
        _check_int("result_slots", self.result_slots, 1, 16)
        _check_choice("readout", self.readout, READOUTS)
        _check_choice("schedule", self.schedule, SCHEDULES)
        _check_int("heads", self.heads, 1, 64)
        _check_int("sinks", self.sinks, 0, 64)
        _check_int("age_bits", self.age_bits, 0, 16)
        _check_int("trim_bits", self.trim_bits, 0, 16)
        for name in ("shots", "refresh", "self_test"):
            _check_bool(name, getattr(self, name))
        for name in ("age_bits", "trim_bits"):
            if getattr(self, name) == 1:
                raise ValueError(f"{name} must be 0 (absent) or in 2..16, not 1")
        if self.trim_bits > self.sum_bits:
            raise ValueError(
                f"trim_bits must be 0 (absent) or in 2..{self.sum_bits}, no wider than a sum, "
                f"not {self.trim_bits!r}"
            )
        if self.sinks >= self.window:
            raise ValueError(
                f"sinks must be in 0..{self.window - 1}, less than the window, not {self.sinks!r}"
            )
        if not self.write_max_clk:
            raise ValueError(f"q_bits must be in 2..8 with refresh, not {self.q_bits!r}")
        if self.write_clk > self.write_max_clk:
            reason = (
                "two V may be written while Q.K runs, which lasts"
                if self.refresh
                else "V is written while Q.K runs, which lasts"
            )
            raise ValueError(
                f"write_clk must be in 1..{self.write_max_clk} ({reason} 2**q_bits - 1 clocks), "
                f"not {self.write_clk!r}"
            )

    # --- window -----------------------------------------------------------------------------
    @property
    def window(self) -> int:
        """Tokens the window holds."""
        return self.subtiles * self.columns

    @property
    def subtile_bits(self) -> int:
        """Bits of a sub-tile's index; at least one, since not every tool knows empty vectors."""
        return max(1, (self.subtiles - 1).bit_length())

    @property
    def column_bits(self) -> int:
        """Bits of a column's index within its sub-tile."""
        return (self.columns - 1).bit_length()

    # --- phases -----------------------------------------------------------------------------
    @property
    def integrate_clk(self) -> int:
        """Clocks of Q.K integration: the longest query pulse."""
        return (1 << self.q_bits) - 1

    @property
    def write_max_clk(self) -> int:
        """Longest write that can be set: V's ends before the conversion of its own query.

        With refresh another column's V may be written before it, each after a clock of its own.
        """
        return (self.integrate_clk - 1) // 2 if self.refresh else self.integrate_clk

    @property
    def guard_max_clk(self) -> int:
        """Longest guard that can be set."""
        return 15

    @property
    def convert_clk(self) -> int:
        """Clocks of the conversion to phi pulses, which drive array 2: the longest phi pulse."""
        return (1 << self.q_bits) - 1

    @property
    def readout_clk(self) -> int:
        """Clocks of the conversion to counted pulses: the largest count."""
        return (1 << self.count_bits) - 1

    @property
    def count_max(self) -> int:
        """Largest magnitude of one sub-tile's result."""
        return (1 << self.count_bits) - 1

    @property
    def sum_bits(self) -> int:
        """Bits of the signed sum of all sub-tiles' results: nothing is lost."""
        return (self.subtiles * self.count_max).bit_length() + 1

    @property
    def result_bits(self) -> int:
        """Bits of one lane of a result.

        With shots there is room for one of the largest weight, 8, or for two without trims.
        """
        return self.sum_bits + SHOT_BITS if self.shots else self.sum_bits + bool(self.trim_bits)

    @property
    def flag_groups(self) -> int:
        """Groups of lanes whose results share a flag of saturation until the result is sent."""
        return _ceil_div(self.lanes, self.flag_lanes)

    @property
    def flag_lanes(self) -> int:
        """Lanes of such a group: as many as there are groups, about."""
        return math.isqrt(self.lanes - 1) + 1

    # --- packets ----------------------------------------------------------------------------
    @property
    def slot_bits(self) -> int:
        """Bits a code takes in a packet: whole nibbles up to four bits, else whole bytes."""
        return 4 if max(self.q_bits, self.kv_bits) <= 4 else 8

    @property
    def result_slot_bits(self) -> int:
        """Bits a lane takes in a result packet."""
        return 8 * _ceil_div(self.result_bits, 8)

    @property
    def codes_per_beat(self) -> int:
        """Codes in one beat of a token packet."""
        return self.bus_bits // self.slot_bits

    @property
    def lanes_per_beat(self) -> int:
        """Lanes in one beat of a result packet."""
        return self.bus_bits // self.result_slot_bits

    @property
    def k_beats(self) -> int:
        """Beats of the key section of a token packet."""
        return _ceil_div(self.rows, self.codes_per_beat)

    @property
    def v_beats(self) -> int:
        """Beats of the value section of a token packet."""
        return _ceil_div(self.lanes, self.codes_per_beat)

    @property
    def q_beats(self) -> int:
        """Beats of the query section of a token packet."""
        return self.k_beats

    @property
    def token_beats(self) -> int:
        """Beats of a packet that writes and queries, header included."""
        return 1 + self.k_beats + self.v_beats + self.q_beats

    @property
    def result_beats(self) -> int:
        """Beats of a valid result packet, header included."""
        return 1 + _ceil_div(self.lanes, self.lanes_per_beat)

    # --- schedule ---------------------------------------------------------------------------
    @property
    def streaming(self) -> bool:
        """Phases of successive packets overlap."""
        return self.schedule == "streaming"

    @property
    def sender_slots(self) -> int:
        """Results the sender can hold; the simple schedule waits instead of holding more."""
        return self.result_slots if self.streaming else 1

    # --- provenance -------------------------------------------------------------------------
    @property
    def top(self) -> str:
        """Name of the top-level module."""
        return "attention_head" if self.heads == 1 else "attention_layer"

    def as_dict(self) -> dict[str, int | str | bool]:
        """Fields by name, in the order of definition."""
        return dataclasses.asdict(self)

    @property
    def config_hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the fields; every artefact carries it."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]
