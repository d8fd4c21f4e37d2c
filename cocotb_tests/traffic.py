"""Random packets, good and malformed, for every head; the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

from cocotb_tests.bench import Bench
from hw.packet import SHOT_LSB, TAG_FIELD_BITS, TAG_LSB, Command, PacketError, Shot, token_beats

__all__ = ["BOTH", "FLUSH", "KINDS", "QUERY", "WRITE", "Traffic"]

WRITE, QUERY, BOTH, FLUSH = Command.WRITE, Command.QUERY, Command.WRITE_QUERY, Command.FLUSH
#: Ways in which a packet can be malformed.
KINDS = ("short", "long", "unknown", "reserved", "code")


class Traffic:
    """Queues random packets on a bench."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench, self.params = bench, bench.params
        self.rng = random.Random(seed)

    def tag(self) -> int:
        """Any tag."""
        return self.rng.randrange(2**self.params.tag_bits)

    def codes(self, count: int, bits: int) -> list[int]:
        """Codes of one of several kinds: spread, extreme, or constant."""
        top = 2**bits - 1
        kind = self.rng.randrange(4)
        if kind == 0:
            return [self.rng.choice((0, top)) for _ in range(count)]
        if kind == 1:
            return [self.rng.choice((0, top))] * count
        return [self.rng.randint(0, top) for _ in range(count)]

    def sections(self, command: Command) -> dict[str, list[int]]:
        """Codes that the command asks for."""
        p = self.params
        sections = {}
        if command.writes:
            sections["k"] = self.codes(p.rows, p.kv_bits)
            sections["v"] = self.codes(p.lanes, p.kv_bits)
        if command.queries:
            sections["q"] = self.codes(p.rows, p.q_bits)
        return sections

    def gains(self) -> dict[str, int]:
        """Gain codes."""
        return {"s_gain": self.rng.randrange(4), "a_gain": self.rng.randrange(4)}

    def shot(self, command: Command, **fields: int | bool) -> Shot | None:
        """Any shot with the fields given, if the command and the head have a use for one."""
        if not (command.queries and self.params.shots):
            return None
        rng = self.rng
        drawn = {
            "accumulate": rng.random() < 0.5,
            "hold": rng.random() < 0.3,
            "shift": rng.randrange(4),
            **self.gains(),
        }
        return Shot(**{**drawn, **fields})

    def good(self, command: Command, shot: Shot | None = None) -> None:
        """Queue a well-formed step; with several heads each has gain codes of its own."""
        tag = self.tag()
        for head in range(self.params.heads):
            self.bench.send(command, tag, head=head, shot=shot, **self.sections(command))
            if shot is not None:
                shot = Shot(**{**vars(shot), **self.gains()})

    def any_shot(self, command: Command) -> None:
        """Queue a well-formed step with a random shot."""
        self.good(command, self.shot(command))

    def malformed(self, kind: str, command: Command) -> None:
        """Queue a step of which one packet, or every one, is wrong in one way."""
        heads, tag = range(self.params.heads), self.tag()
        wrong = set(heads) if self.rng.random() < 0.3 else {self.rng.choice(heads)}
        for head in heads:
            if head in wrong:
                beats, error = self.wrong(kind, command, tag)
                self.bench.send_refused(beats, error, head=head)
            else:
                self.bench.send(command, tag, head=head, **self.sections(command))

    def mismatched(self, *commands: Command) -> None:
        """Queue a step whose packets are good, each for itself; one command for each head."""
        tag = self.tag()
        for head, command in enumerate(commands):
            self.bench.send(command, tag, head=head, **self.sections(command))

    def wrong(self, kind: str, command: Command, tag: int) -> tuple[Sequence[int], PacketError]:
        """Beats that are wrong in one way, and how they are refused."""
        p, rng = self.params, self.rng
        beats = token_beats(p, command, tag, **self.sections(command))
        if kind == "short" and len(beats) > 1:
            return beats[: rng.randint(1, len(beats) - 1)], PacketError.LENGTH
        if kind in ("short", "long"):
            extra = [rng.getrandbits(p.bus_bits) for _ in range(rng.randint(1, 3))]
            return beats + extra, PacketError.LENGTH
        if kind == "reserved":
            free = [*range(TAG_LSB + p.tag_bits, TAG_LSB + TAG_FIELD_BITS)]
            free += range(SHOT_LSB + 8, p.bus_bits)
            if not (p.shots and command.queries):
                free += range(SHOT_LSB, SHOT_LSB + 8)
            if free:
                beats[0] |= 1 << rng.choice([*free, free[0], free[-1]])
                return beats, PacketError.COMMAND
        if kind == "code":
            places = self._above_codes(command)
            if places:
                beat, bit = rng.choice(places)
                beats[beat] |= 1 << bit
                return beats, PacketError.CODE
        unknown = rng.choice([0, 5, 6, 7, 8, 16, 128, 0xFF, 0x82])
        header = beats[0] & ~0xFF | unknown
        return [header, *beats[1 : rng.randint(1, len(beats))]], PacketError.COMMAND

    def _above_codes(self, command: Command) -> list[tuple[int, int]]:
        """Beat and bit of every bit above a code's width, in slots that hold a code."""
        p = self.params
        sections = [(p.kv_bits, p.rows), (p.kv_bits, p.lanes), (p.q_bits, p.rows)]
        wanted = [command.writes, command.writes, command.queries]
        at, places = 1, []
        for (bits, count), is_there in zip(sections, wanted, strict=True):
            if is_there:
                for slot in range(count):
                    beat, place = divmod(slot, p.codes_per_beat)
                    for bit in range(bits, p.slot_bits):
                        places.append((at + beat, place * p.slot_bits + bit))
                at += -(-count // p.codes_per_beat)
        return places
