"""Reference of the layer: packets in, answers out, with any integer function as the array."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

from hw.packet import Command, PacketError
from hw.params import HeadParams
from hw.registers import LEVEL_RESET
from sim.reference.full_scale import full_scale_lanes
from sim.reference.readout import Results, lane_sums
from sim.reference.receiver import Parsed, parse
from sim.reference.sender import Beat, answer_stream
from sim.reference.sequencer import timetable
from sim.reference.shot_accumulator import combine, nothing
from sim.reference.status import StatusClock, StatusValues, status_values
from sim.reference.streaming_sequencer import Offer, schedule
from sim.reference.window import Event, WindowState, window_state

__all__ = [
    "ArrayFunction",
    "LayerReference",
    "Levels",
    "Outcome",
    "Stored",
    "head_interval_clk",
    "head_latency_clk",
]


class Stored(NamedTuple):
    """One token of the window."""

    k: tuple[int, ...]  #: ``rows`` codes, 0 .. 2**kv_bits - 1
    v: tuple[int, ...]  #: ``lanes`` codes, 0 .. 2**kv_bits - 1


class Levels(NamedTuple):
    """What a query sets the converters to."""

    s: int  #: S_sat, in the analog side's units
    a: int  #: A_sat


#: The arrays and converters: from the token in each valid column, the query's codes and the levels
#: to the signed result of every sub-tile and lane, ``[subtile][lane]``.
ArrayFunction = Callable[[dict[int, Stored], tuple[int, ...], Levels], Results]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What becomes of one head's packet."""

    error: PacketError  #: NONE if it was carried out
    answer: tuple[Beat, ...]  #: beats of its answer; empty if none is owed


class _Head:
    """What one head of a layer remembers."""

    def __init__(self, params: HeadParams) -> None:
        self.cells: dict[int, Stored] = {}
        self.before = nothing(params)
        self.trims = [0] * params.lanes


class LayerReference:
    """Bookkeeping of a head, or of a layer's heads, step by step.

    Parameters
    ----------
    params
        The layer.
    array
        What the analog side computes; the same function for every head.

    """

    def __init__(self, params: HeadParams, array: ArrayFunction) -> None:
        self.params, self._array = params, array
        self._heads = [_Head(params) for _ in range(params.heads)]
        self.soft_reset()

    def soft_reset(self) -> None:
        """Forget tokens, shots, counts and settings; trims stay."""
        self.sinks = 0  #: of the next sequence, as the register says
        self.levels = (LEVEL_RESET["s_levels"], LEVEL_RESET["a_levels"])  #: by gain code
        self._active_sinks = 0
        self._history: list[Event] = []
        self._events: list[StatusClock] = []
        for head in self._heads:
            head.before = nothing(self.params)

    @property
    def valid(self) -> tuple[int, ...]:
        """Columns that hold a token, oldest first."""
        return self._window.valid

    @property
    def status(self) -> StatusValues:
        """Event counters, once every answer has left; those of clocks mean nothing."""
        return status_values(self.params, self._events)

    @property
    def _window(self) -> WindowState:
        return window_state(self.params, self._history, sinks=self._active_sinks)

    def trim(self, head: int, lane: int, offset: int) -> None:
        """Set a lane's offset."""
        self._heads[head].trims[lane] = offset

    def clear_counters(self) -> None:
        """Forget what was counted; sticky bits stay."""
        self._events.append(StatusClock(clear=True))

    def packet(self, beats: Sequence[int]) -> Outcome:
        """Carry out one packet of a single head, well-formed or not."""
        return self.step([beats])[0]

    def step(self, packets: Sequence[Sequence[int]]) -> tuple[Outcome, ...]:
        """Carry out one packet of each head, well-formed or not."""
        p = self.params
        parsed = [parse(p, beats) for beats in packets]
        wanted = [
            (one.writes, one.queries, one.flushes, one.tag, replace(one.shot, s_gain=0, a_gain=0))
            for one in parsed
        ]
        error = next((one.error for one in parsed if one.error is not PacketError.NONE), None)
        if error is None and any(other != wanted[0] for other in wanted):
            error = PacketError.STEP
        if error is not None:
            self._events.append(StatusClock(failed=error))
            return tuple(
                self._refused(one, PacketError.STEP if one.error is PacketError.NONE else one.error)
                for one in parsed
            )

        first = parsed[0]
        if not self.valid:
            self._active_sinks = self.sinks
        if first.flushes:
            self._history.append("flush")
            self._active_sinks = self.sinks
        if first.writes:
            column = self._window.next_column
            for head, one in zip(self._heads, parsed, strict=True):
                assert one.k is not None and one.v is not None
                head.cells[column] = Stored(one.k, one.v)
            self._history.append("write")
            self._events.append(StatusClock(advance=True))
        if not first.queries:
            return tuple(Outcome(error=PacketError.NONE, answer=()) for _ in parsed)
        if not self.valid:
            self._events.append(StatusClock(failed=PacketError.EMPTY))
            return tuple(self._refused(one, PacketError.EMPTY) for one in parsed)
        self._events.append(StatusClock(answered=True))
        return tuple(self._answer(*pair) for pair in zip(self._heads, parsed, strict=True))

    def _refused(self, one: Parsed, error: PacketError) -> Outcome:
        answer = answer_stream(self.params, one.tag, error) if one.queries else []
        return Outcome(error=error, answer=tuple(answer))

    def _answer(self, head: _Head, one: Parsed) -> Outcome:
        p = self.params
        assert one.q is not None
        levels = Levels(self.levels[0][one.shot.s_gain], self.levels[1][one.shot.a_gain])
        results = self._array({at: head.cells[at] for at in self.valid}, one.q, levels)
        head.before = combine(
            p,
            lane_sums(results),
            full_scale_lanes(p, results),
            shot=one.shot,
            trims=head.trims,
            before=head.before,
        )
        if one.shot.hold:
            return Outcome(error=PacketError.NONE, answer=())
        answer = answer_stream(
            p,
            one.tag,
            PacketError.NONE,
            head.before.results,
            head.before.full_scale,
            saturated=head.before.saturated,
        )
        self._events += [StatusClock(full_scale_lanes=beat.full_scale_lanes) for beat in answer]
        self._events.append(StatusClock(saturated_results=int(head.before.saturated)))
        return Outcome(error=PacketError.NONE, answer=tuple(answer))


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
    last_beats: list[int] = []
    sent: list[int] = []  # a clock later if it must have left of several heads
    taken_clk = -1
    for _ in range(bunches * params.result_slots + 1):
        offered_clk = taken_clk + params.token_beats + 1
        packets.append(Offer(command=Command.WRITE_QUERY, from_clk=offered_clk))
        # Long enough to hold one more packet, whatever it waits for.
        clocks = max([offered_clk, *last_beats[-1:]]) + 2 * head_latency_clk(
            params, Command.WRITE_QUERY
        )
        table = schedule(params, packets, clocks=clocks, sent=sent)
        taken_clk = table.taken_clk[-1]
        headers.append(max([table.answers[-1].clk, *last_beats[-1:]]) + 1)
        last_beats.append(headers[-1] + params.result_beats - 1)
        sent.append(last_beats[-1] + int(params.heads > 1))
    return Fraction(headers[-1] - headers[-1 - params.result_slots], params.result_slots)
