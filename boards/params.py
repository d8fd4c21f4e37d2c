"""What an FPGA carries: a head, the fixed-point arrays beside it, and the line to the host."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from hw.params import HeadParams

__all__ = ["BoardParams", "EmulatorParams", "Leak"]

_LEVEL_MAX = 255  # of S_sat and A_sat, whose unit is 1 µA


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be in {low}..{high}, not {value!r}")


def _check_currents(name: str, currents: object, levels: int) -> None:
    if not isinstance(currents, tuple):
        raise TypeError(f"{name} must be a tuple of ints, not {currents!r}")
    if len(currents) != levels:
        raise ValueError(f"{name} must hold {levels} levels, not {len(currents)!r}")
    for current in currents:
        _check_int(name, current, -(2**17), 2**17 - 1)


@dataclass(frozen=True, kw_only=True)
class Leak:
    """How the currents of stored levels change with age.

    Raises
    ------
    TypeError
        A field is not of its kind.
    ValueError
        A field is out of its range.
    """

    age_clk: int  #: clocks of the head in a step of age
    currents: tuple[tuple[int, ...], ...]  #: of every level, from the first step on; the last stays

    def __post_init__(self) -> None:
        _check_int("age_clk", self.age_clk, 1, 2**16)
        if not isinstance(self.currents, tuple):
            raise TypeError(f"leak.currents must be a tuple of tuples, not {self.currents!r}")
        _check_int("steps of leak.currents", len(self.currents), 1, 1023)


@dataclass(frozen=True, kw_only=True)
class EmulatorParams:
    """Arrays and converters in integers.

    Currents are multiples of ``2**-current_fraction`` µA and phi is one of ``2**-phi_fraction``
    clock. Everything else follows without rounding: a score charge is exact, phi is its quotient
    by S_sat rounded to nearest, an output charge is exact, and so is its comparison with the
    converter's thresholds.

    Raises
    ------
    TypeError
        A field is not of its kind.
    ValueError
        A field is out of its range.
    """

    head: HeadParams  #: the head whose arrays these are
    currents: tuple[int, ...]  #: current of every level, code 0 first
    current_fraction: int = 8  #: fractional bits of a current in µA
    phi_fraction: int = 8  #: fractional bits of a phi pulse in clocks
    key_multipliers: int = 16  #: rows of a column that are multiplied in one clock
    value_multipliers: int = 16  #: lanes of a column that are multiplied in one clock
    leak: Leak | None = None  #: None is ideal

    def __post_init__(self) -> None:
        if not isinstance(self.head, HeadParams):
            raise TypeError(f"head must be HeadParams, not {self.head!r}")
        if self.head.heads != 1:
            raise ValueError(f"head.heads must be 1 on a board, not {self.head.heads!r}")
        levels = 1 << self.head.kv_bits
        _check_currents("currents", self.currents, levels)
        if not any(self.currents):
            raise ValueError(f"currents must not all be zero, not {self.currents!r}")
        _check_int("current_fraction", self.current_fraction, 0, 14)
        _check_int("phi_fraction", self.phi_fraction, 0, 14)
        if self.leak is not None:
            if not isinstance(self.leak, Leak):
                raise TypeError(f"leak must be Leak or None, not {self.leak!r}")
            for currents in self.leak.currents:
                _check_currents("leak.currents", currents, levels)
        _check_int("key_multipliers", self.key_multipliers, 1, self.head.rows)
        _check_int("value_multipliers", self.value_multipliers, 1, self.head.lanes)

    # --- shape ------------------------------------------------------------------------------
    @property
    def banks(self) -> int:
        """Sets of integrators."""
        return 2 if self.head.streaming else 1

    @property
    def key_groups(self) -> int:
        """Clocks in which a column's rows are multiplied."""
        return -(-self.head.rows // self.key_multipliers)

    @property
    def value_groups(self) -> int:
        """Clocks in which a column's lanes are multiplied."""
        return -(-self.head.lanes // self.value_multipliers)

    @property
    def q_max(self) -> int:
        """Clocks of the longest query pulse, and of the longest phi pulse."""
        return self.head.integrate_clk

    @property
    def table(self) -> tuple[tuple[int, ...], ...]:
        """Currents of every level, by age."""
        return (self.currents, *(self.leak.currents if self.leak else ()))

    @property
    def current_max(self) -> int:
        """Largest magnitude of a current."""
        return max(abs(current) for currents in self.table for current in currents)

    # --- widths -----------------------------------------------------------------------------
    @property
    def current_bits(self) -> int:
        """Bits of a signed current."""
        return self.current_max.bit_length() + 1

    @property
    def score_bits(self) -> int:
        """Bits of a column's signed charge: rows, longest pulse and largest current."""
        return (self.head.rows * self.q_max * self.current_max).bit_length() + 1

    @property
    def phi_max(self) -> int:
        """The longest phi pulse."""
        return self.q_max << self.phi_fraction

    @property
    def phi_bits(self) -> int:
        """Bits of a phi pulse."""
        return self.phi_max.bit_length()

    @property
    def output_bits(self) -> int:
        """Bits of the magnitude of a lane's charge in one sub-tile."""
        return (self.head.columns * self.phi_max * self.current_max).bit_length()

    @property
    def charge_fraction(self) -> int:
        """Fractional bits of a lane's charge in µA·clk."""
        return self.current_fraction + self.phi_fraction

    @property
    def threshold_bits(self) -> int:
        """Bits of the largest threshold that a lane's charge is compared with."""
        largest = (2 * self.head.count_max - 1) * self.q_max * _LEVEL_MAX
        return (largest << self.charge_fraction).bit_length()

    # --- time -------------------------------------------------------------------------------
    @property
    def query_clk(self) -> int:
        """Most clocks that one query costs, those in which the head moves not counted.

        Products of Q.K; a division per column; products of phi.V; a pass over the lanes for the
        signs and one for each clock of the readout.
        """
        head = self.head
        lanes = head.subtiles * self.value_groups
        division = self.head.q_bits + self.phi_fraction + 4
        columns = head.window * (self.key_groups + division + self.value_groups)
        return columns + (lanes + 4) * (1 + head.readout_clk) + 16


@dataclass(frozen=True, kw_only=True)
class BoardParams:
    """A head, its emulated arrays and its serial line, at a clock.

    Raises
    ------
    TypeError
        A field is not of its kind.
    ValueError
        A field is out of its range.
    """

    emulator: EmulatorParams  #: the head and its arrays
    clk_hz: int  #: clock of everything
    baud: int = 1_000_000  #: of the serial line, 8 data bits, no parity, one stop bit
    token_packets: int = 8  #: longest token packets that the board can hold for the head
    result_packets: int = 8  #: result packets that the board can hold for the host

    def __post_init__(self) -> None:
        if not isinstance(self.emulator, EmulatorParams):
            raise TypeError(f"emulator must be EmulatorParams, not {self.emulator!r}")
        _check_int("clk_hz", self.clk_hz, 1_000, 1_000_000_000)
        _check_int("baud", self.baud, 1, self.clk_hz // 3)
        error = abs(self.clk_hz / (self.baud * self.bit_clk) - 1)
        if error > 0.02:
            raise ValueError(
                f"baud must be within 2 % of a whole fraction of clk_hz = {self.clk_hz!r}, "
                f"not {self.baud!r}"
            )
        _check_int("token_packets", self.token_packets, 1, 1024)
        _check_int("result_packets", self.result_packets, 1, 1024)

    @property
    def head(self) -> HeadParams:
        """The head."""
        return self.emulator.head

    @property
    def bit_clk(self) -> int:
        """Clocks of one bit on the serial line."""
        return round(self.clk_hz / self.baud)

    @property
    def ms_clk(self) -> int:
        """Clocks of a millisecond, in which requests say how long they wait."""
        return -(-self.clk_hz // 1000)

    @property
    def bus_bytes(self) -> int:
        """Bytes of a beat."""
        return self.head.bus_bits // 8

    @property
    def frame_bytes(self) -> int:
        """Bytes that are kept of a frame, CRC included: a power of two.

        The longest token packet, and the longest result packet, with what stands before them,
        and room for a token packet that is too long, so that the head refuses it.
        """
        head = self.head
        longest = max(head.token_beats + 2, head.result_beats) * self.bus_bytes
        return 1 << (longest + 16 - 1).bit_length()

    @property
    def token_beats(self) -> int:
        """Beats of token packets that the board can hold."""
        return self.token_packets * self.head.token_beats

    @property
    def result_beats(self) -> int:
        """Beats of result packets that the board can hold."""
        return self.result_packets * self.head.result_beats

    def as_dict(self) -> dict[str, object]:
        """Fields by name, in the order of definition; a leak that is absent has none."""
        fields = dataclasses.asdict(self)
        if self.emulator.leak is None:
            del fields["emulator"]["leak"]
        return fields

    @property
    def config_hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the fields; a bitstream carries it."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]
