"""Reference of the status block: saturated totals of events since the last clear."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hw.packet import PacketError
from hw.params import HeadParams
from hw.registers import RegisterMap

__all__ = ["StatusClock", "StatusValues", "status_values"]


class StatusClock(NamedTuple):
    """Inputs of one clock."""

    failed: PacketError = PacketError.NONE  #: kind of the packet or step refused
    full_scale_lanes: int = 0  #: lanes at full scale
    saturated_results: int = 0  #: results sent with a lane that was cut at its limit
    advance: bool = False  #: a column was written
    answered: bool = False  #: a valid query's sums are complete
    refreshed: bool = False  #: a column was rewritten
    idle: bool = False  #: nothing is in flight and nothing is held
    stale: bool = False  #: some valid column is past its budget
    clear: bool = False  #: forget all counts but this clock's
    clear_sticky: frozenset[str] = frozenset()  #: events to forget, but for this clock's


@dataclass(frozen=True, kw_only=True)
class StatusValues:
    """What the block shows."""

    counters: Mapping[str, int]  #: by name, each saturated
    sticky: Mapping[str, bool]  #: by event


_COUNTED: Mapping[str, Callable[[StatusClock], int]] = {
    "tokens": lambda clock: clock.advance,
    "queries": lambda clock: clock.answered,
    "command_errors": lambda clock: clock.failed is PacketError.COMMAND,
    "length_errors": lambda clock: clock.failed is PacketError.LENGTH,
    "code_errors": lambda clock: clock.failed is PacketError.CODE,
    "empty_errors": lambda clock: clock.failed is PacketError.EMPTY,
    "step_errors": lambda clock: clock.failed is PacketError.STEP,
    "full_scale_total": lambda clock: clock.full_scale_lanes,
    "saturated_total": lambda clock: clock.saturated_results,
    "refreshes": lambda clock: clock.refreshed,
    "clocks_busy": lambda clock: not clock.idle,
    "clocks_idle": lambda clock: clock.idle,
}
_EVENT_OF = {"full_scale": "full_scale_total", "saturated": "saturated_total"}


def _happened(event: str, history: Sequence[StatusClock], at: int) -> bool:
    if event == "stale":
        return history[at].stale and not (at and history[at - 1].stale)
    return bool(_COUNTED[_EVENT_OF.get(event, f"{event}_errors")](history[at]))


def status_values(params: HeadParams, history: Sequence[StatusClock]) -> StatusValues:
    """Values after a history that began with a reset."""
    registers = RegisterMap(params)
    clears = [at for at, clock in enumerate(history) if clock.clear]
    counted = history[clears[-1] :] if clears else history
    counters = {
        register.name: min(
            sum(_COUNTED[register.name](clock) for clock in counted),
            register.fields[0].high,
        )
        for register in registers.counters
    }
    sticky = {}
    for event in registers.events:
        clears = [at for at, clock in enumerate(history) if event in clock.clear_sticky]
        start = clears[-1] if clears else 0
        sticky[event] = any(_happened(event, history, at) for at in range(start, len(history)))
    return StatusValues(counters=counters, sticky=sticky)
