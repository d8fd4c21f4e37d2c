"""Reference of the receiver: a whole token packet, parsed at once, and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hw.packet import SHOT_LSB, TAG_LSB, Command, PacketError, Shot
from hw.params import HeadParams

__all__ = ["Kept", "Parsed", "kept_codes", "parse"]


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """What a token packet says."""

    writes: bool  #: the command appends K and V
    queries: bool  #: an answer is owed, also by a packet that is refused
    flushes: bool  #: the command forgets the window
    tag: int  #: 0 .. 2**tag_bits - 1
    error: PacketError  #: NONE, COMMAND, LENGTH or CODE
    shot: Shot  #: of a query; else, and of a packet that is refused, the plain one
    k: tuple[int, ...] | None  #: ``rows`` codes, 0 .. 2**kv_bits - 1; None if not carried
    v: tuple[int, ...] | None  #: ``lanes`` codes, 0 .. 2**kv_bits - 1; None if not carried
    q: tuple[int, ...] | None  #: ``rows`` codes, 0 .. 2**q_bits - 1; None if not carried


def parse(params: HeadParams, beats: Sequence[int]) -> Parsed:
    """Parse the beats of one packet, the last of which carries TLAST.

    Parameters
    ----------
    params
        The head the packet was sent to.
    beats
        At least one beat, each 0 .. 2**bus_bits - 1.

    Returns
    -------
    Parsed
        Codes and the shot are given only if ``error`` is NONE.

    """
    header, *payload = beats
    number = header % 256
    known = number in {int(command) for command in Command}
    command = Command(number) if known else None
    writes = command is not None and command.writes
    sections: list[tuple[str, int, int]] = []
    if writes:
        sections += [("k", params.rows, params.kv_bits), ("v", params.lanes, params.kv_bits)]
    if command is not None and command.queries:
        sections += [("q", params.rows, params.q_bits)]

    # One long integer per section; each section starts on a beat of its own.
    codes: dict[str, tuple[int, ...]] = {}
    at = 0
    too_wide = False
    for name, count, bits in sections:
        length = -(-count * params.slot_bits // params.bus_bits)
        word = sum(beat << params.bus_bits * i for i, beat in enumerate(payload[at : at + length]))
        slots = [word >> params.slot_bits * i & 2**params.slot_bits - 1 for i in range(count)]
        too_wide |= any(slot >= 2**bits for slot in slots)
        codes[name] = tuple(slots)
        at += length

    tag, shot = header // 2**TAG_LSB % 2**16, header // 2**SHOT_LSB % 256
    # What may be other than zero: the command, the tag, and the shot of a query.
    largest = 2**SHOT_LSB
    if params.shots and command is not None and command.queries:
        largest *= 256
    if command is None or tag >= 2**params.tag_bits or header >= largest:
        error = PacketError.COMMAND
    elif len(payload) != at:
        error = PacketError.LENGTH
    elif too_wide:
        error = PacketError.CODE
    else:
        error = PacketError.NONE
    good = error is PacketError.NONE
    return Parsed(
        writes=writes,
        queries=number // 2 % 2 == 1,
        flushes=command is Command.FLUSH,
        tag=tag % 2**params.tag_bits,
        error=error,
        shot=Shot.from_field(shot) if good else Shot(),
        k=codes.get("k") if good else None,
        v=codes.get("v") if good else None,
        q=codes.get("q") if good else None,
    )


class Kept(NamedTuple):
    """Codes that stay, with the streaming schedule, while other packets come in."""

    v: tuple[int, ...] | None  #: of the packet that was taken last of those carrying V
    q: tuple[int, ...] | None  #: of the packet that was taken last of those carrying Q


def kept_codes(taken: Sequence[Parsed]) -> Kept:
    """V and Q that are in use after these packets have been taken; None if there is none yet.

    A refused packet carries nothing: V and Q of those before it may still be in use.
    """
    values = [packet.v for packet in taken if packet.v is not None]
    queries = [packet.q for packet in taken if packet.q is not None]
    return Kept(v=values[-1] if values else None, q=queries[-1] if queries else None)
