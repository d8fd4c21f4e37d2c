"""Reference of the streaming sequencer: resource rules on timetables, packet by packet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hw.packet import Command, PacketError
from hw.params import HeadParams
from sim.reference.sequencer import LINES

__all__ = ["GivenAnswer", "Offer", "Schedule", "schedule"]


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One packet, as the sequencer meets it."""

    command: Command | None  #: None if it is unknown
    tag: int = 0  #: 0 .. 2**tag_bits - 1
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
    tag: int  #: the packet's
    error: PacketError  #: NONE if the sums are valid


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What the sequencer does in clocks 0 .. ``clocks`` - 1 after reset."""

    clocks: int  #: length
    lines: dict[str, frozenset[int]]  #: for each of `LINES`, the clocks in which it is high
    scores_bank: tuple[int, ...]  #: integrators of array 1 that reset and integration use, by clock
    convert_bank: tuple[int, ...]  #: integrators that a conversion empties and fills, by clock
    readout_bank: tuple[int, ...]  #: integrators that a readout empties, by clock
    taken_clk: tuple[int, ...]  #: clock in which each packet is taken; later ones are not in it
    failed: dict[int, PacketError]  #: kinds of refused packets, by clock
    answers: tuple[GivenAnswer, ...]  #: in order
    idle: frozenset[int]  #: clocks in which nothing is in flight


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
) -> Schedule:
    """Lead packets through array 1, array 2 and the readout.

    Array 1 serves one packet at a time: it writes K, and then, for a query, has a guard and an
    integration. Array 2 has a guard and a conversion straight after that, and the readout a guard
    and a count straight after that. A packet is admitted in the first clock in which

    - array 1 is in the last clock of its use, or not in use;
    - if the packet writes: V of the packet before that wrote is written by the end of this clock;
    - if it is to be answered: fewer than ``result_slots`` answers are between their admission and
      the clock after they have left;
    - if it queries: the readout will be free when the query gets there.

    Its use of array 1 begins a clock later. V is written from the second clock after K's last
    one, or as soon as array 2 is not in use. A packet is taken when K has been written, or at
    once. A flush waits until nothing is in use; so does a refused packet that is owed an answer,
    and gives it a clock later. Other refused packets wait for array 1 only.

    Parameters
    ----------
    params
        The head.
    packets
        In the order of arrival.
    clocks
        How long to look.
    sent
        Clocks in which a result leaves.
    empty
        Clocks in which the window is said to hold no token.

    """
    p = params
    lines: dict[str, set[int]] = {line: set() for line in LINES}
    array_1, array_2, readout, values = _Resource(), _Resource(), _Resource(), _Resource()
    flight = _Resource()  # answers that are not part of a span of the readout
    busy: list[range] = []  # V waiting for array 2
    owed_from: list[int] = []  # clocks in which slots were taken
    integrated: list[int] = []  # last clocks of integrations
    converted: list[int] = []  # last clocks of conversions
    taken: list[int] = []
    failed: dict[int, PacketError] = {}
    answers: list[GivenAnswer] = []

    def quiet(clk: int) -> bool:
        return clk > max(array_1.end, array_2.end, readout.end, values.end, flight.end)

    def slot_free(clk: int) -> bool:
        gone = sum(leaves < clk for leaves in sent)
        return len(owed_from) - gone < p.result_slots

    def refusal(packet: Offer, clk: int) -> PacketError:
        """Kind of refusal, were it decided in this clock; a token being written is a token."""
        if packet.error is PacketError.NONE and packet.command is Command.QUERY:
            if clk in empty and clk > values.end:
                return PacketError.EMPTY
        return packet.error

    def readout_first(packet: Offer, clk: int) -> int:
        """First clock in which a query admitted now needs the readout."""
        write = p.write_clk if packet.writes else 0
        return clk + 1 + write + p.guard_clk + p.integrate_clk + p.guard_clk + p.convert_clk

    def admitted(packet: Offer, clk: int) -> bool:
        if clk < array_1.end:
            return False
        if refusal(packet, clk) is not PacketError.NONE:
            return not packet.owed or (quiet(clk) and slot_free(clk))
        if packet.command is Command.FLUSH:
            return quiet(clk)
        if packet.writes and clk < values.end:
            return False
        return not packet.owed or (slot_free(clk) and readout_first(packet, clk) > readout.end)

    def answer(packet: Offer, clk: int, error: PacketError) -> None:
        answers.append(GivenAnswer(clk, packet.tag, error))
        flight.use(clk, 1)

    def carry_out(packet: Offer, clk: int) -> int:
        """Reserve everything for a packet admitted now; return when it is taken."""
        error = refusal(packet, clk)
        if packet.owed:
            owed_from.append(clk)
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
        write, query = span[: p.write_clk * packet.writes], span[p.write_clk * packet.writes :]
        if write:
            lines["k_write"].update(write)
            first = write[-1] + 2
            while array_2.used(first):
                first += 1
            write_v = values.use(first, p.write_clk)
            lines["v_write"].update(write_v)
            lines["advance"].add(write_v[-1])
            busy.append(range(write[-1] + 1, first))
        if query:
            for resource, name, strobes, phase_clk, ends in (
                (None, "integrate", ("scores_reset", "arm"), p.integrate_clk, integrated),
                (array_2, "convert", ("outputs_reset",), p.convert_clk, converted),
                (readout, "readout", ("counts_clear",), p.readout_clk, []),
            ):
                if resource is not None:
                    query = resource.use(query[-1] + 1, p.guard_clk + phase_clk)
                lines[name].update(query[p.guard_clk :])
                for strobe in strobes:
                    lines[strobe].add(query[p.guard_clk - 1])
                ends.append(query[-1])
            answer(packet, query[-1] + 1, PacketError.NONE)
        return write[-1] if write else clk

    at = 0  # first clock in which the packet can be offered
    for packet in packets:
        clk = max(at, packet.from_clk)
        while clk < clocks and not admitted(packet, clk):
            clk += 1
        if clk >= clocks:
            break
        taken_clk = carry_out(packet, clk)
        taken.append(taken_clk)
        at = taken_clk + 1

    everything = (array_1, array_2, readout, values, flight)
    in_use = {clk for resource in everything for span in resource.spans for clk in span}
    in_use.update(clk for span in busy for clk in span)
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
        idle=frozenset(range(clocks)) - in_use,
    )
