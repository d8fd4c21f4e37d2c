"""Reference of the sequencer: the clocks in which each control line is high, as a timetable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hw.packet import Command, PacketError
from hw.params import HeadParams

__all__ = ["LINES", "Timetable", "timetable"]

#: Every control line of one bit that a timetable speaks of.
LINES = (
    "advance",
    "flush",
    "k_write",
    "v_write",
    "scores_reset",
    "outputs_reset",
    "counts_clear",
    "arm",
    "integrate",
    "convert",
    "readout",
)


@dataclass(frozen=True, kw_only=True)
class Timetable:
    """One packet's clocks, counted from the one in which an idle sequencer is offered it (0)."""

    lines: Mapping[str, frozenset[int]]  #: for each of `LINES`, the clocks in which it is high
    taken_clk: int  #: the packet is taken in this clock
    failed: PacketError  #: kind of refusal shown in clock 0
    answer_clk: int | None  #: first clock in which the answer is offered; None if none is owed
    answer_error: PacketError  #: error that the answer carries
    busy_clk: int  #: last clock that is not idle, if the answer is taken at once; 0 if none


def timetable(
    params: HeadParams,
    command: Command | None,
    *,
    error: PacketError = PacketError.NONE,
    answered: bool | None = None,
    empty: bool = False,
) -> Timetable:
    """Timetable of one packet.

    Parameters
    ----------
    params
        The head.
    command
        The packet's command; None if it is unknown.
    error
        What the receiver found wrong with it.
    answered
        An answer is owed; by default if the command queries.
    empty
        The window holds no token in clock 0.

    """
    writes = command is not None and command.writes
    queries = command is not None and command.queries
    owed = queries if answered is None else answered
    refusal = error
    if refusal is PacketError.NONE and command is Command.QUERY and empty:
        refusal = PacketError.EMPTY
    clocks: dict[str, set[int]] = {line: set() for line in LINES}

    def done(taken: int, busy: int, answer: int | None) -> Timetable:
        return Timetable(
            lines={line: frozenset(when) for line, when in clocks.items()},
            taken_clk=taken,
            failed=refusal,
            answer_clk=answer,
            answer_error=refusal,
            busy_clk=busy,
        )

    if refusal is not PacketError.NONE:
        return done(0, int(owed), 1 if owed else None)
    if command is Command.FLUSH:
        clocks["flush"] = {0}
        return done(0, 0, None)

    # Last clock of each phase, in the order of the schedule.
    k_end = params.write_clk if writes else 0
    scores_end = k_end + params.guard_clk
    clocks["k_write"] = set(range(1, k_end + 1))
    clocks["scores_reset"] = {scores_end}
    if writes:
        clocks["v_write"] = {scores_end + 1 + i for i in range(params.write_clk)}
        clocks["advance"] = {scores_end + params.write_clk}
    if not queries:
        end = scores_end + params.write_clk + params.guard_clk
        return done(end, end, None)

    scored = scores_end + params.integrate_clk
    outputs_end = scored + params.guard_clk
    converted = outputs_end + params.convert_clk
    counts_end = converted + params.guard_clk
    counted = counts_end + params.readout_clk
    clocks["arm"] = {scores_end}
    clocks["integrate"] = set(range(scores_end + 1, scored + 1))
    clocks["outputs_reset"] = {outputs_end}
    clocks["convert"] = set(range(outputs_end + 1, converted + 1))
    clocks["counts_clear"] = {counts_end}
    clocks["readout"] = set(range(counts_end + 1, counted + 1))
    return done(scored, counted + 1, counted + 1)
