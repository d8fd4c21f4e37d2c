"""Reference of the streaming sequencer: resource rules on timetables, clock by clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hw.packet import Command, PacketError
from hw.params import HeadParams
from sim.reference.sequencer import LINES, REFRESH_LINES, Label

__all__ = ["GivenAnswer", "Offer", "Schedule", "schedule"]


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One packet, as the sequencer meets it."""

    command: Command | None  #: None if it is unknown
    label: Label = field(default_factory=Label)  #: its tag and shot
    error: PacketError = PacketError.NONE  #: what the receiver found wrong with it
    answered: bool | None = None  #: an answer is owed; by default if the command queries
    from_clk: int = 0  #: offered from this clock on, if the packet before has been taken by then

    @property
    def writes(self) -> bool:
        """It carries K and V."""
        return self.command is not None and self.command.writes

    @property
    def owed(self) -> bool:
        """An answer is owed for it, a valid one or an invalid one."""
        if self.answered is not None:
            return self.answered
        return self.command is not None and self.command.queries


class GivenAnswer(NamedTuple):
    """One answer that the sequencer gives."""

    clk: int  #: the one clock in which it is valid
    label: Label  #: the packet's; a refused one is not held
    error: PacketError  #: NONE if the sums are valid


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What the sequencer does in clocks 0 .. ``clocks`` - 1 after reset."""

    clocks: int  #: length
    #: For each of `LINES` and `REFRESH_LINES`, the clocks in which it is high.
    lines: dict[str, frozenset[int]]
    scores_bank: tuple[int, ...]  #: integrators of array 1 that reset and integration use, by clock
    convert_bank: tuple[int, ...]  #: integrators that a conversion empties and fills, by clock
    readout_bank: tuple[int, ...]  #: integrators that a readout empties, by clock
    taken_clk: tuple[int, ...]  #: clock in which each packet is taken; later ones are not in it
    failed: dict[int, PacketError]  #: kinds of refused packets, by clock
    answers: tuple[GivenAnswer, ...]  #: in order
    idle: frozenset[int]  #: clocks in which nothing is in flight
    converting: Mapping[int, Label]  #: whose conversion it is, or the guard before, by clock
    reading: Mapping[int, Label]  #: whose readout it is, or the guard before, by clock


@dataclass
class _Resource:
    """Something that one packet at a time uses, in spans of clocks that never overlap."""

    spans: list[range] = field(default_factory=list)

    def use(self, first: int, clocks: int) -> range:
        """Reserve a span, and return it."""
        span = range(first, first + clocks)
        assert not self.spans or self.end < first, "used twice"
        self.spans.append(span)
        return span

    @property
    def end(self) -> int:
        """Last clock of all that is reserved; before clock 0 if nothing is."""
        return self.spans[-1][-1] if self.spans else -1

    def used(self, clk: int) -> bool:
        return any(clk in span for span in self.spans[-3:])


def _alternate(clocks: int, changes: Sequence[int], lag: int) -> tuple[int, ...]:
    """Bank by clock: of the phases that end in ``changes``, the parity of those over, less lag."""
    return tuple(max(sum(end < clk for end in changes) - lag, 0) % 2 for clk in range(clocks))


def schedule(
    params: HeadParams,
    packets: Sequence[Offer],
    *,
    clocks: int,
    sent: Collection[int] = (),
    empty: Collection[int] = (),
    refresh: Collection[int] = (),
) -> Schedule:
    """Lead packets through array 1, array 2 and the readout.

    Array 1 serves one packet or refresh at a time: it writes K, and then, for a query, has a guard
    and an integration. Array 2 has a guard and a conversion straight after that, and the readout a
    guard and a count straight after that. A packet is admitted in the first clock in which

    - array 1 is in the last clock of its use, or not in use;
    - if the packet writes: V of the packet before that wrote is written by the end of this clock,
      and no V of a refresh is still being written after it;
    - if a result of it will be sent: fewer than ``result_slots`` of those are between their
      admission and the clock after they have left;
    - if it queries: the readout will be free when the query gets there;
    - no refresh is admitted.

    Its use of array 1 begins a clock later. A packet is taken when K has been written, or at once.
    A flush waits until nothing is in use; so does a refused packet that is owed an answer, and
    gives it a clock later. Other refused packets wait for array 1 only.

    A refresh uses array 1 for a clock more than K. It is admitted as a packet that writes, if it
    is asked for, if V of the refresh before has been written, and if no packet that waited until
    nothing is in use would be admitted.

    V are written in the order in which their K began, each from the second clock after K's last
    one, or as soon as array 2 and the select lines are not in use, and from the second clock after
    the V before.

    Parameters
    ----------
    params
        The head; its ``write_clk`` and ``guard_clk`` are those of the inputs.
    packets
        In the order of arrival.
    clocks
        How long to look.
    sent
        Clocks in which a result leaves.
    empty
        Clocks in which the window is said to hold no token.
    refresh
        Clocks in which a refresh is asked for.

    """
    p = params
    lines: dict[str, set[int]] = {line: set() for line in (*LINES, *REFRESH_LINES)}
    array_1, array_2, readout, values = _Resource(), _Resource(), _Resource(), _Resource()
    flight = _Resource()  # answers that are not part of a span of the readout
    waiting: list[tuple[bool, int]] = []  # V to be written: of a refresh?, from which clock on
    waits: set[int] = set()  # clocks in which a V waits
    refreshing = False  # the V written last is a refresh's
    owed = 0  # slots taken and not given back
    integrated: list[int] = []  # last clocks of integrations
    converted: list[int] = []  # last clocks of conversions
    taken: list[int] = []
    failed: dict[int, PacketError] = {}
    answers: list[GivenAnswer] = []
    converting: dict[int, Label] = {}
    reading: dict[int, Label] = {}

    def pending(kind: bool, clk: int) -> bool:
        """V of a packet, or of a refresh, is still to be written after this clock."""
        return any(own is kind for own, _ in waiting) or (values.end > clk and refreshing is kind)

    def unwritten(clk: int) -> bool:
        """V of a packet whose K has been written is not written before this clock."""
        ready = any(not own and from_clk <= clk for own, from_clk in waiting)
        return ready or (values.end >= clk and not refreshing)

    def quiet(clk: int) -> bool:
        ends = (array_1.end, array_2.end, readout.end, values.end, flight.end)
        return clk > max(ends) and not waiting

    def refusal(packet: Offer, clk: int) -> PacketError:
        """Kind of refusal, were it decided in this clock; a token being written is a token."""
        if packet.error is not PacketError.NONE or packet.command is not Command.QUERY:
            return packet.error
        starved = clk in empty and not unwritten(clk) and not packet.label.probe
        return PacketError.EMPTY if starved else packet.error

    def readout_first(packet: Offer, clk: int) -> int:
        """First clock in which a query admitted now needs the readout."""
        write = p.write_clk if packet.writes else 0
        return clk + 1 + write + p.guard_clk + p.integrate_clk + p.guard_clk + p.convert_clk

    def writable(clk: int) -> bool:
        return not pending(False, clk) and not (refreshing and values.end > clk)

    def needs_quiet(packet: Offer, clk: int) -> bool:
        if refusal(packet, clk) is PacketError.NONE:
            return packet.command is Command.FLUSH
        return packet.owed

    def admitted(packet: Offer, clk: int) -> bool:
        if clk < array_1.end:
            return False
        if needs_quiet(packet, clk):
            return quiet(clk) and (not packet.owed or owed < p.result_slots)
        if refusal(packet, clk) is not PacketError.NONE:
            return True
        if packet.writes and not writable(clk):
            return False
        if not packet.owed:
            return True
        return (packet.label.silent or owed < p.result_slots) and (
            readout_first(packet, clk) > readout.end
        )

    def answer(packet: Offer, clk: int, error: PacketError) -> None:
        label = packet.label
        if error is not PacketError.NONE:
            label = replace(label, hold=0)
        answers.append(GivenAnswer(clk, label, error))
        flight.use(clk, 1)

    def write_k(clk: int, kind: bool) -> range:
        write = range(clk + 1, clk + 1 + p.write_clk)
        lines["k_write"].update(write)
        waiting.append((kind, write[-1] + 1))
        return write

    def carry_out(packet: Offer, clk: int) -> int:
        """Reserve everything for a packet admitted now; return when it is taken."""
        error = refusal(packet, clk)
        if error is not PacketError.NONE:
            failed[clk] = error
            if packet.owed:
                answer(packet, clk + 1, error)
            return clk
        if packet.command is Command.FLUSH:
            lines["flush"].add(clk)
            return clk

        use_1 = p.write_clk * packet.writes + (p.guard_clk + p.integrate_clk) * packet.owed
        span = array_1.use(clk + 1, use_1)
        query = span[p.write_clk * packet.writes :]
        write = write_k(clk, False) if packet.writes else range(0)
        if query:
            for resource, name, strobes, phase_clk, ends, own in (
                (None, "integrate", ("scores_reset", "arm"), p.integrate_clk, integrated, {}),
                (array_2, "convert", ("outputs_reset",), p.convert_clk, converted, converting),
                (readout, "readout", ("counts_clear",), p.readout_clk, [], reading),
            ):
                if resource is not None:
                    query = resource.use(query[-1] + 1, p.guard_clk + phase_clk)
                lines[name].update(query[p.guard_clk :])
                for strobe in strobes:
                    lines[strobe].add(query[p.guard_clk - 1])
                ends.append(query[-1])
                own.update((at, packet.label) for at in query)
            answer(packet, query[-1] + 1, PacketError.NONE)
        return write[-1] if write else clk

    def start_v(clk: int) -> None:
        """Begin to write the V whose turn it is with the next clock, if it can be."""
        nonlocal refreshing
        if not waiting:
            return
        kind, from_clk = waiting[0]
        if clk < from_clk:
            return
        waits.add(clk)
        selects = bool({clk, clk + 1} & lines["k_write"])
        if values.end >= clk or array_2.used(clk + 1) or (kind and selects):
            return
        del waiting[0]
        write = values.use(clk + 1, p.write_clk)
        lines["v_write"].update(write)
        refreshing = kind
        if kind:
            lines["v_read"].add(clk)
            lines["v_refresh"].update(write)
            lines["refreshed"].add(write[-1])
        else:
            lines["advance"].add(write[-1])

    rest = iter(packets)
    packet = next(rest, None)
    at = 0  # first clock in which the packet can be offered
    for clk in range(clocks):
        offered = packet is not None and clk >= max(at, packet.from_clk)
        admits = packet is not None and offered and admitted(packet, clk)
        waited = packet is not None and admits and needs_quiet(packet, clk)
        rewritten = not pending(True, clk) and not (refreshing and values.end == clk)
        asked = clk in refresh and clk >= array_1.end
        if asked and writable(clk) and rewritten and not waited:
            lines["k_read"].add(clk)
            array_1.use(clk + 1, p.write_clk + 1)
            lines["k_refresh"].update(write_k(clk, True))
        elif admits and packet is not None:
            refused = refusal(packet, clk) is not PacketError.NONE
            owed += packet.owed and (refused or not packet.label.silent)
            taken.append(carry_out(packet, clk))
            at = taken[-1] + 1
            packet = next(rest, None)
        start_v(clk)
        owed -= clk in sent

    everything = (array_1, array_2, readout, values, flight)
    in_use = {clk for resource in everything for span in resource.spans for clk in span}
    return Schedule(
        clocks=clocks,
        lines={
            line: frozenset(clk for clk in when if clk < clocks) for line, when in lines.items()
        },
        scores_bank=_alternate(clocks, integrated, 0),
        convert_bank=_alternate(clocks, integrated, 1),
        readout_bank=_alternate(clocks, converted, 1),
        taken_clk=tuple(clk for clk in taken if clk < clocks),
        failed=failed,
        answers=tuple(given for given in answers if given.clk < clocks),
        idle=frozenset(range(clocks)) - in_use - waits,
        converting=converting,
        reading=reading,
    )
