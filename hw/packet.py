"""Token and result packets: one definition for the hardware, its tests and host software.

A token packet is a header beat followed by the sections its command asks for, each starting on a
beat of its own, codes in slots from the least significant bit: K, then V (write), then Q (query).

========  =============================================================================
bits      token header
========  =============================================================================
7..0      command, see `Command`; bit 1 set means that an answer is owed
23..8     tag, returned with the answer; bits beyond ``tag_bits`` are zero
31..24    the shot, see `Shot`; zero if the packet has no query or the head no shots
others    zero
========  =============================================================================

========  =============================================================================
bits      shot
========  =============================================================================
25..24    gain code of the charge-to-pulse converters (S_sat)
27..26    gain code of the signed converters (A_sat)
28        accumulate onto the shot before instead of starting from zero
29        hold the result: no answer is owed unless the packet is refused
31..30    weight: the sums are shifted left by this
========  =============================================================================

A result packet is a header beat followed, if the answer is valid, by the lanes' signed sums in
slots of ``result_slot_bits``. An invalid answer is the header alone.

========  =============================================================================
bits      result header
========  =============================================================================
0         invalid
1         at least one sub-tile's result of at least one lane is at full scale
2         at least one lane's result did not fit its width, or a shot below it did not
23..8     tag of the packet that is answered
31..24    why it is invalid, see `PacketError`
others    zero
========  =============================================================================
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from hw.params import HeadParams

__all__ = [
    "Answer",
    "Command",
    "PacketError",
    "Shot",
    "answer_beats",
    "parse_answer",
    "token_beats",
]

TAG_LSB = 8
TAG_FIELD_BITS = 16
SHOT_LSB = 24
GAIN_BITS = 2
SHIFT_BITS = 2
ERROR_LSB = 24


class Command(enum.IntEnum):
    """What a token packet asks for."""

    WRITE = 1  #: append K and V to the window
    QUERY = 2  #: attend with Q over the window
    WRITE_QUERY = 3  #: write, then query: the token attends to itself
    FLUSH = 4  #: forget the window

    @property
    def writes(self) -> bool:
        """The packet carries K and V."""
        return self in (Command.WRITE, Command.WRITE_QUERY)

    @property
    def queries(self) -> bool:
        """The packet carries Q and is answered."""
        return self in (Command.QUERY, Command.WRITE_QUERY)


class PacketError(enum.IntEnum):
    """Why a packet was refused. The first that applies, in this order, is the one reported."""

    NONE = 0
    COMMAND = 1  #: unknown command, or a header bit set that must be zero
    LENGTH = 2  #: fewer or more beats than the command asks for
    CODE = 3  #: a code wider than the hardware's
    EMPTY = 4  #: a query on an empty window
    STEP = 5  #: another head's packet of the step was refused, or asked for something else


@dataclass(frozen=True, kw_only=True)
class Shot:
    """How a query is weighted and converted; a plain query is the default one.

    Raises
    ------
    TypeError
        A field is not of its kind.
    ValueError
        A field is out of its range.

    """

    s_gain: int = 0  #: gain code of the charge-to-pulse converters, 0..3
    a_gain: int = 0  #: gain code of the signed converters, 0..3
    accumulate: bool = False  #: add to the result of the shot before
    hold: bool = False  #: keep the result, send nothing
    shift: int = 0  #: weight 2**shift, shift in 0..3

    def __post_init__(self) -> None:
        for name in ("s_gain", "a_gain", "shift"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, not {value!r}")
            if not 0 <= value <= 3:
                raise ValueError(f"{name} must be in 0..3, not {value!r}")
        for name in ("accumulate", "hold"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be a bool, not {getattr(self, name)!r}")

    @property
    def field(self) -> int:
        """Bits 31..24 of the header."""
        return (
            self.s_gain | self.a_gain << 2 | self.accumulate << 4 | self.hold << 5 | self.shift << 6
        )

    @classmethod
    def from_field(cls, field: int) -> Shot:
        """The shot of bits 31..24 of a header."""
        return cls(
            s_gain=field & 3,
            a_gain=field >> 2 & 3,
            accumulate=bool(field & 16),
            hold=bool(field & 32),
            shift=field >> 6 & 3,
        )


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A parsed result packet."""

    tag: int  #: tag of the packet that is answered
    error: PacketError  #: NONE if the answer is valid
    full_scale: bool  #: some sub-tile's result is at full scale
    sums: tuple[int, ...]  #: one signed result per lane; empty if the answer is invalid
    saturated: bool = False  #: some lane's result did not fit its width


def payload_beats(params: HeadParams, command: Command) -> int:
    """Beats that follow the header of a well-formed packet."""
    beats = 0
    if command.writes:
        beats += params.k_beats + params.v_beats
    if command.queries:
        beats += params.q_beats
    return beats


def _section(codes: Sequence[int], slot_bits: int, bus_bits: int) -> list[int]:
    per_beat = bus_bits // slot_bits
    return [
        sum(int(code) << slot_bits * slot for slot, code in enumerate(codes[at : at + per_beat]))
        for at in range(0, len(codes), per_beat)
    ]


def _check_codes(name: str, codes: Sequence[int] | None, count: int, bits: int) -> Sequence[int]:
    if codes is None or len(codes) != count:
        given = "none" if codes is None else len(codes)
        raise ValueError(f"{name} must hold {count} codes, not {given!r}")
    for code in codes:
        if not 0 <= code < 2**bits:
            raise ValueError(f"{name} codes must be in 0..{2**bits - 1}, not {code!r}")
    return codes


def token_beats(
    params: HeadParams,
    command: Command,
    tag: int,
    *,
    k: Sequence[int] | None = None,
    v: Sequence[int] | None = None,
    q: Sequence[int] | None = None,
    shot: Shot | None = None,
) -> list[int]:
    """Beats of a token packet.

    Parameters
    ----------
    params
        The head the packet is for.
    command
        What the packet asks for.
    tag
        0 .. 2**tag_bits - 1.
    k, v, q
        Codes, ``rows``, ``lanes`` and ``rows`` of them; those the command does not ask for must
        be left out.
    shot
        Gains, weight and what becomes of the result, of a packet that queries; the plain one by
        default.

    Raises
    ------
    ValueError
        A tag or code is out of range, or sections do not fit the command, or a shot is given that
        the command or the head has no use for.

    """
    if shot is not None and shot != Shot() and not (command.queries and params.shots):
        raise ValueError(
            f"shot must be left out of a {command.name} packet"
            + ("" if params.shots else " to a head without shots")
            + f", not {shot!r}"
        )
    if not 0 <= tag < 2**params.tag_bits:
        raise ValueError(f"tag must be in 0..{2**params.tag_bits - 1}, not {tag!r}")
    beats = [int(command) | tag << TAG_LSB | (shot or Shot()).field << SHOT_LSB]
    sections = (
        ("k", k, params.rows, params.kv_bits, command.writes),
        ("v", v, params.lanes, params.kv_bits, command.writes),
        ("q", q, params.rows, params.q_bits, command.queries),
    )
    for name, codes, count, bits, wanted in sections:
        if wanted:
            checked = _check_codes(name, codes, count, bits)
            beats += _section(checked, params.slot_bits, params.bus_bits)
        elif codes is not None:
            raise ValueError(f"{name} must be left out of a {command.name} packet, not {codes!r}")
    return beats


def answer_beats(params: HeadParams, answer: Answer) -> list[int]:
    """Beats of a result packet."""
    invalid = answer.error is not PacketError.NONE
    header = int(invalid) | int(answer.full_scale) << 1 | int(answer.saturated) << 2
    beats = [header | answer.tag << TAG_LSB | int(answer.error) << ERROR_LSB]
    if invalid:
        return beats
    slot = params.result_slot_bits
    return beats + _section([s % 2**slot for s in answer.sums], slot, params.bus_bits)


def parse_answer(params: HeadParams, beats: Sequence[int]) -> Answer:
    """Parse the beats of a result packet.

    Raises
    ------
    ValueError
        The packet has the wrong length or an unknown error kind.

    """
    if not beats:
        raise ValueError(f"result packet must have a header, not {beats!r}")
    header = beats[0]
    kind = header >> ERROR_LSB & 0xFF
    if kind not in set(PacketError):
        raise ValueError(f"error kind must be in 0..{max(PacketError)}, not {kind!r}")
    error = PacketError(kind)
    if bool(header & 1) != (error is not PacketError.NONE):
        raise ValueError(f"invalid flag and error kind must agree, not header {header:#x}")
    expected = 1 if header & 1 else params.result_beats
    if len(beats) != expected:
        raise ValueError(f"result packet must have {expected} beats, not {len(beats)!r}")
    slot, sums = params.result_slot_bits, []
    if not header & 1:
        for lane in range(params.lanes):
            beat, at = divmod(lane, params.lanes_per_beat)
            value = beats[1 + beat] >> slot * at & (2**slot - 1)
            sums.append(value - (value >> slot - 1 << slot))
    return Answer(
        tag=header >> TAG_LSB & (2**TAG_FIELD_BITS - 1),
        error=error,
        full_scale=bool(header & 2),
        sums=tuple(sums),
        saturated=bool(header & 4),
    )
