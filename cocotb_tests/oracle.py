"""What every packet must be answered with, from the functional models."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from analog_models.functional import FunctionalHead
from cocotb_tests.bridge import ArrayBridge, Conversion
from hw.packet import Answer, Command, PacketError, Shot
from hw.params import HeadParams
from hw.registers import LEVEL_RESET
from sim.reference.shot_accumulator import ShotResult, combine, nothing

__all__ = ["Expected", "LayerOracle", "Packet"]

Codes = Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Packet:
    """A token packet, and why it is refused if it is malformed."""

    beats: Sequence[int]
    tag: int
    queries: bool  #: an answer is owed, also by a packet that is refused
    command: Command | None = None  #: of a packet that is well-formed
    shot: Shot = field(default_factory=Shot)
    k: Codes | None = None
    v: Codes | None = None
    q: Codes | None = None
    error: PacketError = PacketError.NONE

    @property
    def asks(self) -> tuple[object, ...]:
        """What the packets of a step must have in common."""
        shot = self.shot
        return self.command, self.tag, shot.accumulate, shot.hold, shot.shift


@dataclass(frozen=True)
class Expected:
    """An answer that is owed."""

    answer: Answer
    full_scale: tuple[bool, ...] = ()  #: of each lane


@dataclass
class _Head:
    """One head's own state."""

    model: FunctionalHead
    trims: list[int]
    before: ShotResult
    owed: deque[Expected] = field(default_factory=deque)


class LayerOracle:
    """Carries out steps, one packet of each head, and what settings do between them.

    It lags behind the hardware: a step is carried out when an answer asks for it, or when
    everything has been answered. By then it is known what its queries met in the arrays.

    Parameters
    ----------
    params
        Parameters of the head or layer.
    models
        The functional model of each head.
    bridge
        Knows which columns took part in each conversion.

    """

    def __init__(
        self, params: HeadParams, models: Sequence[FunctionalHead], bridge: ArrayBridge
    ) -> None:
        self.params, self._bridge = params, bridge
        self.heads = [_Head(model, [0] * params.lanes, nothing(params)) for model in models]
        #: Between packets: how many steps come before it, and what it does.
        self._between: deque[tuple[int, Callable[[], None]]] = deque()
        self._steps: deque[tuple[Packet, ...]] = deque()
        self._done = 0  # steps carried out
        self.last_probe: np.ndarray | None = None  #: columns that took part in the last self-test
        self.reset()

    # --- state ------------------------------------------------------------------------------
    def reset(self) -> None:
        """Hard reset: everything is forgotten."""
        self._between.clear()
        self._steps.clear()
        self._done = 0
        self.taken = [0] * len(self.heads)  #: packets taken, of each head
        self._waiting: list[deque[Packet]] = [deque() for _ in self.heads]
        for head in self.heads:
            head.trims = [0] * self.params.lanes
            head.owed.clear()
        self.soft_reset()

    def soft_reset(self) -> None:
        """Window, held results, counters and settings; trims stay."""
        self.levels = {name: list(levels) for name, levels in LEVEL_RESET.items()}
        self.age_mask = False
        self.clear_counters()
        self.events: set[str] = set()  #: sticky bits of refusals
        for head in self.heads:
            head.before = nothing(self.params)
            head.model.sinks = 0
            head.model.flush()

    def clear_counters(self) -> None:
        """Begin counting from zero."""
        self.errors = dict.fromkeys(PacketError, 0)
        self.tokens = self.queries = 0

    @property
    def occupancy(self) -> int:
        """Tokens in the window."""
        return self.heads[0].model.occupancy

    # --- what happens, in its order -----------------------------------------------------------
    def take(self, head: int, packet: Packet) -> None:
        """Note that a head's packet has begun to come in."""
        self.taken[head] += 1
        self._waiting[head].append(packet)
        while all(self._waiting):
            self._steps.append(tuple(waiting.popleft() for waiting in self._waiting))

    def between(self, action: Callable[[], None]) -> None:
        """Note what happens once the packets that have begun to come in are done with."""
        self._between.append((max(self.taken), action))

    # --- carrying out -------------------------------------------------------------------------
    def answer(self, head: int) -> Expected | None:
        """Next answer that a head owes; None if it owes none."""
        owed = self.heads[head].owed
        while not owed and self._steps:
            self._step()
        return owed.popleft() if owed else None

    def settle(self) -> None:
        """Carry out everything that has been taken."""
        while self._steps:
            self._step()
        self._do_between()

    @property
    def missing(self) -> int:
        """Answers that have not come, of what has been carried out."""
        return sum(len(head.owed) for head in self.heads)

    def _do_between(self) -> None:
        while self._between and self._between[0][0] <= self._done:
            self._between.popleft()[1]()

    def _step(self) -> None:
        self._do_between()
        packets = self._steps.popleft()
        self._done += 1
        first = packets[0]
        error = next((packet.error for packet in packets if packet.error), PacketError.NONE)
        if not error and any(packet.asks != first.asks for packet in packets):
            error = PacketError.STEP
        if error:
            self._refuse(packets, error)
            return
        assert first.command is not None
        if first.command is Command.FLUSH:
            for head in self.heads:
                head.model.flush()
        if first.command.writes:
            self.tokens += 1
            clk = self._written() if self._timed else None
            for head, packet in zip(self.heads, packets, strict=True):
                assert packet.k is not None and packet.v is not None
                head.model.write(packet.k, packet.v, now_clk=clk)
        if not first.command.queries:
            return
        if self.occupancy == 0:
            self._refuse(packets, PacketError.EMPTY)
            return
        self.queries += 1
        conversion = self.conversion()
        for head, packet in zip(self.heads, packets, strict=True):
            self._query(head, packet, conversion)

    def _refuse(self, packets: Sequence[Packet], error: PacketError) -> None:
        """Refuse a step: a packet that is good itself is answered with what is wrong with it."""
        self.errors[error] += 1
        self.events.add(error.name.lower())
        own = PacketError.EMPTY if error is PacketError.EMPTY else PacketError.STEP
        for head, packet in zip(self.heads, packets, strict=True):
            if packet.queries:
                told = packet.error or own
                head.owed.append(
                    Expected(Answer(tag=packet.tag, error=told, full_scale=False, sums=()))
                )

    def _query(self, head: _Head, packet: Packet, conversion: Conversion) -> None:
        shot = packet.shot
        assert packet.q is not None
        result = head.model.query(
            packet.q,
            s_level=self.levels["s_levels"][shot.s_gain],
            a_level=self.levels["a_levels"][shot.a_gain],
            mask=conversion.mask if self.age_mask else None,
            now_clk=(conversion.scores_clk, conversion.outputs_clk) if self._timed else None,
        )
        combined = combine(
            self.params,
            result.sums.tolist(),
            result.full_scale.tolist(),
            shot=shot,
            trims=head.trims,
            before=head.before,
        )
        head.before = combined
        if not shot.hold:
            answer = Answer(
                tag=packet.tag,
                error=PacketError.NONE,
                full_scale=any(combined.full_scale),
                sums=combined.results,
                saturated=combined.saturated,
            )
            head.owed.append(Expected(answer, combined.full_scale))

    def probe(self) -> None:
        """Carry a self-test out."""
        self.last_probe = self.conversion().mask

    # --- what the arrays were seen to do ------------------------------------------------------
    @property
    def _timed(self) -> bool:
        return self.heads[0].model.params.age_clk > 0

    def conversion(self) -> Conversion:
        """What the next query met; columns that no age masks take part if they hold a token."""
        conversion = self._bridge.conversions.popleft()
        if self._timed:
            self._rewritten(conversion)
        valid = np.arange(self.params.window) < self.occupancy
        seen = conversion.mask
        wrong = (seen & ~valid) if self.age_mask else (seen ^ valid)
        assert not wrong.any(), f"columns {np.flatnonzero(wrong)} must not be masked as they are"
        return conversion

    def _written(self) -> tuple[int, int]:
        """Clocks in which the next token's K and V were stored."""
        clocks = []
        for name in ("key", "value"):
            writes = self._bridge.writes[name]
            self._rewrite_before(name, None)
            column, clk, _ = writes.popleft()
            assert column == self.heads[0].model.pointer, f"{name}: column {column} was written"
            clocks.append(clk)
        return clocks[0], clocks[1]

    def _rewritten(self, conversion: Conversion) -> None:
        """Rewrite what was rewritten before the query."""
        self._rewrite_before("key", conversion.scores_clk)
        self._rewrite_before("value", conversion.outputs_clk)

    def _rewrite_before(self, name: str, clk: int | None) -> None:
        writes = self._bridge.writes[name]
        while writes and writes[0][2] and (clk is None or writes[0][1] < clk):
            column, at, _ = writes.popleft()
            for head in self.heads:
                head.model.rewrite(column, name, now_clk=(at, at))
