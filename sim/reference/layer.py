"""Reference of the head: packets in, answers out, with any integer function as the array."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from hw.packet import Command, PacketError
from hw.params import HeadParams
from sim.reference.full_scale import full_scale_lanes
from sim.reference.readout import Results, lane_sums
from sim.reference.receiver import parse
from sim.reference.sender import Beat, answer_stream
from sim.reference.sequencer import timetable
from sim.reference.status import StatusClock, StatusValues, status_values
from sim.reference.streaming_sequencer import Offer, schedule
from sim.reference.window import Event, window_state

__all__ = [
    "ArrayFunction",
    "HeadReference",
    "Outcome",
    "Stored",
    "head_interval_clk",
    "head_latency_clk",
]


class Stored(NamedTuple):
    """One token of the window."""

    k: tuple[int, ...]  #: ``rows`` codes, 0 .. 2**kv_bits - 1
    v: tuple[int, ...]  #: ``lanes`` codes, 0 .. 2**kv_bits - 1


#: The arrays and converters: from the token in each valid column and the query's codes to the
#: signed result of every sub-tile and lane, ``[subtile][lane]``.
ArrayFunction = Callable[[dict[int, Stored], tuple[int, ...]], Results]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What becomes of one packet."""

    error: PacketError  #: NONE if it was carried out
    answer: tuple[Beat, ...]  #: beats of its answer; empty if none is owed


class HeadReference:
    """Bookkeeping of one head, packet by packet.

    Parameters
    ----------
    params
        The head.
    array
        What the analog side computes.

    """

    def __init__(self, params: HeadParams, array: ArrayFunction) -> None:
        self.params, self._array = params, array
        self._history: list[Event] = []
        self._cells: dict[int, Stored] = {}
        self._events: list[StatusClock] = []

    @property
    def valid(self) -> tuple[int, ...]:
        """Columns that hold a token, oldest first."""
        return window_state(self.params, self._history).valid

    @property
    def status(self) -> StatusValues:
        """Event counters, once every answer has left."""
        return status_values(self.params, self._events)

    def packet(self, beats: Sequence[int]) -> Outcome:
        """Carry out one packet, well-formed or not."""
        p = self.params
        parsed = parse(p, beats)
        error = parsed.error
        if error is PacketError.NONE:
            if parsed.flushes:
                self._history.append("flush")
            if parsed.k is not None and parsed.v is not None:
                column = window_state(p, self._history).next_column
                self._cells[column] = Stored(parsed.k, parsed.v)
                self._history.append("write")
            if parsed.queries and not self.valid:
                error = PacketError.EMPTY
        self._events.append(StatusClock(failed=error))
        answer: list[Beat] = []
        if error is PacketError.NONE and parsed.q is not None:
            results = self._array({at: self._cells[at] for at in self.valid}, parsed.q)
            full = full_scale_lanes(p, results)
            answer = answer_stream(p, parsed.tag, error, lane_sums(results), full)
        elif parsed.queries:
            answer = answer_stream(p, parsed.tag, error)
        self._events += [StatusClock(full_scale_lanes=beat.full_scale_lanes) for beat in answer]
        return Outcome(error=error, answer=tuple(answer))


def head_latency_clk(params: HeadParams, command: Command) -> int:
    """Clocks from a querying packet's last beat to its first result beat, nothing in the way.

    Raises
    ------
    ValueError
        The command is not answered.

    """
    answer_clk = timetable(params, command).answer_clk
    if answer_clk is None:
        raise ValueError(f"command must be one that queries, not {command!r}")
    # A clock into the receiver's registers, a clock into the sender's.
    return 1 + answer_clk + 1


def head_interval_clk(params: HeadParams) -> int:
    """Clocks between answers to packets that write and query, never stalled from outside.

    With the simple schedule the longest of three loops: the schedule of one packet; receiving a
    packet, which begins when the one before was taken, and leading it to where it is taken; and
    sending an answer. With the streaming schedule it is read off a timetable of many packets; if
    they come in bunches, as many as there are result slots, it is their mean, rounded up.
    """
    if params.streaming:
        return math.ceil(_streaming_interval_clk(params))
    table = timetable(params, Command.WRITE_QUERY)
    return max(
        table.busy_clk + 1,
        1 + table.taken_clk + params.token_beats,
        1 + params.result_beats,
    )


def _streaming_interval_clk(params: HeadParams) -> Fraction:
    """Mean interval of the headers once the pipeline is full: packet by packet, with both streams.

    A packet's first beat is taken in the clock after the packet before was taken. The header of an
    answer follows the answer, or the last beat of the answer before, by a clock.
    """
    bunches = 3 if params.result_slots > 4 else 6
    packets: list[Offer] = []
    headers: list[int] = []
    sent: list[int] = []
    taken_clk = -1
    for _ in range(bunches * params.result_slots + 1):
        offered_clk = taken_clk + params.token_beats + 1
        packets.append(Offer(command=Command.WRITE_QUERY, from_clk=offered_clk))
        # Long enough to hold one more packet, whatever it waits for.
        clocks = max([offered_clk, *sent[-1:]]) + 2 * head_latency_clk(params, Command.WRITE_QUERY)
        table = schedule(params, packets, clocks=clocks, sent=sent)
        taken_clk = table.taken_clk[-1]
        headers.append(max([table.answers[-1].clk, *sent[-1:]]) + 1)
        sent.append(headers[-1] + params.result_beats - 1)
    return Fraction(headers[-1] - headers[-1 - params.result_slots], params.result_slots)
