"""Reference of the sequencer: the clocks in which each control line is high, as a timetable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hw.packet import Command, PacketError
from hw.params import HeadParams

__all__ = ["LINES", "REFRESH_LINES", "Label", "Timetable", "refresh_timetable", "timetable"]

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
#: Those that only a head with refresh has.
REFRESH_LINES = ("k_read", "v_read", "k_refresh", "v_refresh", "refreshed")


@dataclass(frozen=True, kw_only=True)
class Label:
    """What travels with a query through its phases."""

    tag: int = 0  #: 0 .. 2**tag_bits - 1
    accumulate: int = 0  #: to be added to the shot before
    hold: int = 0  #: not to be sent
    shift: int = 0  #: weight 2**shift
    s_gain: int = 0  #: gain codes of the conversion, packed by head
    a_gain: int = 0  #: gain codes of the readout, packed by head
    probe: int = 0  #: it is a self-test's

    @property
    def silent(self) -> bool:
        """A valid answer is not sent."""
        return bool(self.hold or self.probe)


@dataclass(frozen=True, kw_only=True)
class Timetable:
    """One packet's clocks, counted from the one in which an idle sequencer is offered it (0)."""

    #: For each of `LINES` and `REFRESH_LINES`, the clocks in which it is high.
    lines: Mapping[str, frozenset[int]]
    taken_clk: int  #: the packet is taken in this clock
    failed: PacketError  #: kind of refusal shown in clock 0
    answer_clk: int | None  #: first clock in which the answer is offered; None if none is owed
    answer_error: PacketError  #: error that the answer carries
    busy_clk: int  #: last clock that is not idle, if the answer is taken at once; 0 if none
    #: Clocks in which gain codes must be the query's: of the conversion and of the readout, each
    #: with the guard before it.
    converting: frozenset[int] = frozenset()
    reading: frozenset[int] = frozenset()


def _lines(**clocks: set[int]) -> dict[str, frozenset[int]]:
    return {line: frozenset(clocks.get(line, ())) for line in (*LINES, *REFRESH_LINES)}


def refresh_timetable(params: HeadParams) -> Timetable:
    """Timetable of the rewriting of a column, from the clock of the request."""
    writes = set(range(1, params.write_clk + 1))
    return Timetable(
        lines=_lines(
            k_read={0},
            v_read={0},
            k_write=writes,
            v_write=writes,
            k_refresh=writes,
            v_refresh=writes,
            refreshed={params.write_clk},
        ),
        taken_clk=-1,
        failed=PacketError.NONE,
        answer_clk=None,
        answer_error=PacketError.NONE,
        busy_clk=params.write_clk,
    )


def timetable(
    params: HeadParams,
    command: Command | None,
    *,
    error: PacketError = PacketError.NONE,
    answered: bool | None = None,
    empty: bool = False,
    probe: bool = False,
) -> Timetable:
    """Timetable of one packet.

    Parameters
    ----------
    params
        The head; its ``write_clk`` and ``guard_clk`` are those of the inputs.
    command
        The packet's command; None if it is unknown.
    error
        What the receiver found wrong with it.
    answered
        An answer is owed; by default if the command queries.
    empty
        The window holds no token in clock 0.
    probe
        The packet is a self-test's query, to which an empty window is as good as another.

    """
    writes = command is not None and command.writes
    queries = command is not None and command.queries
    owed = queries if answered is None else answered
    refusal = error
    if refusal is PacketError.NONE and command is Command.QUERY and empty and not probe:
        refusal = PacketError.EMPTY
    clocks: dict[str, set[int]] = {line: set() for line in LINES}

    converting: set[int] = set()
    reading: set[int] = set()

    def done(taken: int, busy: int, answer: int | None) -> Timetable:
        return Timetable(
            lines=_lines(**clocks),
            converting=frozenset(converting),
            reading=frozenset(reading),
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
    converting.update(range(scored + 1, converted + 1))
    reading.update(range(converted + 1, counted + 1))
    return done(scored, counted + 1, counted + 1)
