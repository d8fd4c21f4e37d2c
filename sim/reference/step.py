"""Reference of the step: what the heads' packets ask for together, and what each is answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hw.packet import PacketError, Shot
from sim.reference.receiver import Parsed

__all__ = ["Joined", "Reply", "errors", "join", "replies", "slot_clocks"]


class Joined(NamedTuple):
    """One packet of each head, as the sequencer sees them; if refused, only error and queries."""

    error: PacketError  #: of the first packet that was refused; STEP if the packets only differ
    queries: bool  #: some head is owed an answer
    writes: bool = False  #: every packet carries K and V
    flushes: bool = False  #: every packet forgets the window
    tag: int = 0  #: of every packet
    shots: tuple[Shot, ...] = ()  #: of each head; they differ in nothing but gain codes


class Reply(NamedTuple):
    """What one head is answered."""

    tag: int  #: of its own packet
    error: PacketError  #: NONE if its result is valid


def _request(packet: Parsed) -> tuple[object, ...]:
    """What the packets of a step must have in common."""
    shot = packet.shot
    plain = (shot.accumulate, shot.hold, shot.shift)
    return (packet.writes, packet.queries, packet.flushes, packet.tag, plain)


def errors(packets: Sequence[Parsed]) -> list[PacketError]:
    """Error of each head; all or none of them are NONE."""
    good = [packet for packet in packets if packet.error is PacketError.NONE]
    if len(good) == len(packets) and len({_request(packet) for packet in packets}) == 1:
        return [PacketError.NONE] * len(packets)
    return [packet.error or PacketError.STEP for packet in packets]


def join(packets: Sequence[Parsed]) -> Joined:
    """Join the packets of a step, one per head."""
    queries = any(packet.queries for packet in packets)
    found = errors(packets)
    if any(found):
        others = [error for error in found if error is not PacketError.STEP]
        return Joined((others or found)[0], queries)
    first = packets[0]
    shots = tuple(packet.shot for packet in packets)
    return Joined(PacketError.NONE, queries, first.writes, first.flushes, first.tag, shots)


def replies(packets: Sequence[Parsed], *, empty: bool = False) -> list[Reply | None]:
    """Answer of each head; None if none is owed to it.

    Parameters
    ----------
    packets
        One per head.
    empty
        The packets only query, and the window holds no token.

    """
    found = errors(packets)
    if empty and not any(found):
        found = [PacketError.EMPTY] * len(packets)
    return [
        Reply(packet.tag, error) if packet.queries and (error or not packet.shot.hold) else None
        for packet, error in zip(packets, found, strict=True)
    ]


def slot_clocks(left: Sequence[Sequence[int]]) -> list[int]:
    """Clocks in which a slot is said to be free.

    Parameters
    ----------
    left
        For each head, the clocks in which its part of a step's answer left, or was found to be
        owed to other heads only; in order.

    """
    if len(left) == 1:
        return list(left[0])
    clocks: list[int] = []
    for parts in zip(*left, strict=False):
        clocks.append(max(max(parts) + 1, clocks[-1] + 1 if clocks else 0))
    return clocks
