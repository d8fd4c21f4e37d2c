"""Reference of the status block: saturated totals of the events since the last clear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hw.packet import PacketError
from hw.params import HeadParams

__all__ = ["StatusClock", "StatusValues", "status_values"]


class StatusClock(NamedTuple):
    """Inputs of one clock."""

    failed: PacketError = PacketError.NONE  #: kind of the packet refused
    full_scale_lanes: int = 0  #: 0 .. lanes_per_beat
    clear: bool = False  #: forget everything, this clock's events too


@dataclass(frozen=True, kw_only=True)
class StatusValues:
    """Counters, each 0 .. 2**event_bits - 1, and their sticky bits."""

    command_errors: int  #: packets with an unknown command
    length_errors: int  #: packets of the wrong length
    code_errors: int  #: packets with a code out of range
    empty_errors: int  #: queries on an empty window
    full_scale_total: int  #: lanes sent that were at full scale
    sticky: int  #: bit i: the i-th counter, in the order above, has counted


def status_values(params: HeadParams, history: Sequence[StatusClock]) -> StatusValues:
    """Values after a history that began with a reset."""
    clears = [clock for clock, inputs in enumerate(history) if inputs.clear]
    counted = history[clears[-1] + 1 :] if clears else history
    kinds = (PacketError.COMMAND, PacketError.LENGTH, PacketError.CODE, PacketError.EMPTY)
    totals = [sum(inputs.failed is kind for inputs in counted) for kind in kinds]
    totals.append(sum(inputs.full_scale_lanes for inputs in counted))
    shown = [min(total, 2**params.event_bits - 1) for total in totals]
    return StatusValues(
        command_errors=shown[0],
        length_errors=shown[1],
        code_errors=shown[2],
        empty_errors=shown[3],
        full_scale_total=shown[4],
        sticky=sum((total > 0) << bit for bit, total in enumerate(totals)),
    )
