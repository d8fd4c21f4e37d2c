"""A device made of the functional model: packets and registers of the hardware, without clocks."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analog_models import AnalogParams, FunctionalHead, Result
from hw.packet import (
    SHOT_LSB,
    TAG_LSB,
    Answer,
    Command,
    PacketError,
    Shot,
    answer_beats,
    payload_beats,
)
from hw.params import HeadParams
from hw.registers import Register, RegisterMap
from sim.driver.errors import RegisterError, Timeout
from sim.reference.layer import head_latency_clk

__all__ = ["FunctionalBackend"]

_CREDIT = 4096
_WORD = 2**32

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Packet:
    """What a token packet says."""

    command: Command | None
    tag: int
    shot: Shot
    error: PacketError
    answered: bool  #: an answer is owed if the packet is refused
    codes: dict[str, NDArray[np.intp]]  #: "k", "v" and "q", those the command carries

    @property
    def asks(self) -> tuple[object, ...]:
        """What the packets of a step must have in common."""
        shot = self.shot
        return (self.command, self.tag, shot.accumulate, shot.hold, shot.shift)


class _HeadState:
    """One head: its model, the shot before, and what waits on its streams."""

    def __init__(self, params: HeadParams, model: FunctionalHead) -> None:
        self.model = model
        self.trim = np.zeros(params.lanes, dtype=np.int64)
        self.test_q = np.zeros(params.rows, dtype=np.intp)
        self.test_count = np.zeros(params.lanes, dtype=np.int64)
        self.waiting: deque[Sequence[int]] = deque()
        self.results: deque[list[int]] = deque()
        self.forget(params.lanes)

    def forget(self, lanes: int) -> None:
        """Empty the window, drop the shot before."""
        self.model.flush()
        self.held = np.zeros(lanes, dtype=np.int64)
        self.full_scale = np.zeros(lanes, dtype=np.bool_)
        self.saturated = False


class FunctionalBackend:
    """A head or layer that answers at once.

    What needs a clock stands still: clock counters stay 0, nothing ages and nothing is refreshed.
    A setting takes effect before the next packet. The host takes results at once, so that the
    device is always idle.

    Parameters
    ----------
    params
        Head parameters.
    analog
        Arrays and converters of the first head; the others' offsets are drawn with the seeds that
        follow. Ideal by default.

    Raises
    ------
    ValueError
        ``analog`` has another shape than ``params``.
    """

    credit = _CREDIT

    def __init__(self, params: HeadParams, analog: AnalogParams | None = None) -> None:
        self.params = params
        analog = analog or AnalogParams.matching(params)
        for name in ("subtiles", "columns", "rows", "lanes", "q_bits", "kv_bits", "count_bits"):
            given, wanted = getattr(analog, name), getattr(params, name)
            if given != wanted:
                raise ValueError(f"analog.{name} must be {wanted}, as the head's, not {given!r}")
        self._heads = [
            _HeadState(
                params,
                self._model(dataclasses.replace(analog, offset_seed=analog.offset_seed + head)),
            )
            for head in range(params.heads)
        ]
        self._map = RegisterMap(params)
        self._words = {
            register.name: register.reset for register in self._map if register.count is None
        }
        self._totals = {register.name: 0 for register in self._map.counters}
        self._test_done = False

    def _model(self, analog: AnalogParams) -> FunctionalHead:
        """Model of one head; a device of another kind has others."""
        return FunctionalHead(analog)

    # --- packets ----------------------------------------------------------------------------
    def send_packet(self, head: int, beats: Sequence[int]) -> None:
        """Take a token packet; carry it out if every head has one and packets are taken."""
        if not beats or not all(0 <= beat < 2**self.params.bus_bits for beat in beats):
            raise ValueError(
                f"beats must be one or more of {self.params.bus_bits} bits, not {beats!r}"
            )
        self._heads[head].waiting.append(tuple(beats))
        self._run()

    def deliver(self, timeout_s: float) -> None:
        """Fail if packets wait; they do while none are taken, or a head's packet is missing."""
        waiting = sum(len(head.waiting) for head in self._heads)
        if waiting:
            raise Timeout(f"{waiting} packets have not been taken")

    def receive_packet(self, head: int, timeout_s: float) -> list[int]:
        """Beats of a head's next result packet; there is never anything to wait for."""
        if not self._heads[head].results:
            raise Timeout(f"head {head} has no result packet, and none under way")
        return self._heads[head].results.popleft()

    def recover(self) -> None:
        """Drop the answers that wait."""
        for head in self._heads:
            head.results.clear()

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def _run(self) -> None:
        """Carry out the steps that wait."""
        while self._words["control"] & 1 and all(head.waiting for head in self._heads):
            self._step([self._parse(head.waiting.popleft()) for head in self._heads])

    def _parse(self, beats: Sequence[int]) -> _Packet:
        """What a packet says, and what is wrong with it."""
        p = self.params
        header, payload = beats[0], beats[1:]
        number = header % 256
        known = number in {int(command) for command in Command}
        command = Command(number) if known else None
        queries = command is not None and command.queries
        reserved = header >> TAG_LSB + p.tag_bits << TAG_LSB + p.tag_bits
        shot = Shot()
        if queries and p.shots:
            shot = Shot.from_field(header >> SHOT_LSB & 0xFF)
            reserved &= ~(0xFF << SHOT_LSB)

        codes: dict[str, NDArray[np.intp]] = {}

        def packet(error: PacketError) -> _Packet:
            return _Packet(
                command=command,
                tag=header >> TAG_LSB & 2**p.tag_bits - 1,
                shot=shot,
                error=error,
                answered=bool(number & 2),
                codes=codes,
            )

        if command is None or reserved:
            return packet(PacketError.COMMAND)
        if len(payload) != payload_beats(p, command):
            return packet(PacketError.LENGTH)
        sections = []
        if command.writes:
            sections += [("k", p.rows, p.kv_bits), ("v", p.lanes, p.kv_bits)]
        if queries:
            sections += [("q", p.rows, p.q_bits)]
        at = 0
        for name, count, bits in sections:
            slots = np.array(
                [
                    payload[at + code // p.codes_per_beat] >> code % p.codes_per_beat * p.slot_bits
                    & 2**p.slot_bits - 1
                    for code in range(count)
                ],
                dtype=np.intp,
            )
            if slots.max() >= 2**bits:
                return packet(PacketError.CODE)
            codes[name] = slots
            at += -(-count // p.codes_per_beat)
        return packet(PacketError.NONE)

    def _step(self, packets: list[_Packet]) -> None:
        """Carry out one packet of every head, or refuse all."""
        first = packets[0]
        errors = [packet.error for packet in packets]
        own = [error for error in errors if error is not PacketError.NONE]
        if own or any(packet.asks != first.asks for packet in packets):
            self._refuse(packets, PacketError.STEP, own[0] if own else PacketError.STEP)
            return
        command = first.command
        assert command is not None
        if command is Command.QUERY and not self._heads[0].model.occupancy:
            self._refuse(packets, PacketError.EMPTY, PacketError.EMPTY)
            return
        if command is Command.FLUSH:
            for head in self._heads:
                head.model.flush()
        if command.writes:
            self._count("tokens")
            for head, packet in zip(self._heads, packets, strict=True):
                head.model.write(packet.codes["k"], packet.codes["v"])
        if command.queries:
            self._count("queries")
            for head, packet in zip(self._heads, packets, strict=True):
                self._query(head, packet)

    def _refuse(self, packets: list[_Packet], error: PacketError, counted: PacketError) -> None:
        """Answer what is owed an answer, with a packet's own error or this one."""
        self._count(f"{counted.name.lower()}_errors")
        for head, packet in zip(self._heads, packets, strict=True):
            if packet.answered:
                own = packet.error if packet.error is not PacketError.NONE else error
                answer = Answer(tag=packet.tag, error=own, full_scale=False, sums=())
                head.results.append(answer_beats(self.params, answer))

    def _query(self, head: _HeadState, packet: _Packet) -> None:
        """One shot of a query."""
        shot = packet.shot
        # The self-test uses the registers that a query has filled.
        head.test_q = packet.codes["q"]
        result = self._attend(head, head.test_q, shot.s_gain, shot.a_gain)
        head.test_count = result.sums
        total = (result.sums - head.trim) << shot.shift
        if shot.accumulate:
            total = total + head.held
        limit = 1 << self.params.result_bits - 1
        head.held = np.clip(total, -limit, limit - 1)
        head.full_scale = result.full_scale | (head.full_scale & shot.accumulate)
        cut = bool((head.held != total).any())
        head.saturated = cut or (head.saturated and shot.accumulate)
        if shot.hold:
            return
        self._count("full_scale_total", int(head.full_scale.sum()))
        self._count("saturated_total", int(head.saturated))
        answer = Answer(
            tag=packet.tag,
            error=PacketError.NONE,
            full_scale=bool(head.full_scale.any()),
            sums=tuple(int(value) for value in head.held),
            saturated=head.saturated,
        )
        head.results.append(answer_beats(self.params, answer))

    def _attend(
        self,
        head: _HeadState,
        q_codes: NDArray[np.intp],
        s_gain: int,
        a_gain: int,
        subtile: int | None = None,
    ) -> Result:
        """Pass a query through the arrays, at the levels of its gain codes."""
        return head.model.query(
            q_codes,
            s_level=self._field("s_levels", f"level_{s_gain}"),
            a_level=self._field("a_levels", f"level_{a_gain}"),
            subtile=subtile,
        )

    def _count(self, name: str, events: int = 1) -> None:
        """Count events, and remember that they have happened."""
        if not events or name not in self._totals:
            return
        limit = (1 << self._map[name].fields[0].width) - 1
        self._totals[name] = min(self._totals[name] + events, limit)
        event = name.removesuffix("_errors").removesuffix("_total")
        if event in self._map.events:
            self._words["sticky"] |= self._map["sticky"][event].mask

    # --- registers --------------------------------------------------------------------------
    def read_register(self, address: int) -> int:
        """Value of a register."""
        found = self._map.at(address)
        if found is None:
            raise RegisterError(f"reading register {address:#05x} was refused: none is there")
        register, entry = found
        word = 0
        values = self._values(register, entry)
        for field in register.fields:
            if field.access.readable:
                word = field.put(word, values[field.name])
        return word

    def write_register(self, address: int, value: int) -> None:
        """Write a register; a setting is in effect when this returns."""
        found = self._map.at(address)
        if found is None:
            raise RegisterError(f"writing register {address:#05x} was refused: none is there")
        register, entry = found
        now = self._words.get(register.name, 0)
        refusal = register.refusal(now, value)
        if refusal is None:
            refusal = self._refusal_now(register, value)
        if refusal is not None:
            raise RegisterError(f"writing {value:#x} to register {address:#05x}: {refusal}")
        values = register.values(value)
        if register.name == "command":
            self._command(values)
        elif register.name == "sticky":
            self._words["sticky"] &= ~value
        elif register.name == "trim":
            self._selected.trim[entry] = values["offset"]
        elif register.name == "test_q":
            self._selected.test_q[entry] = values["code"]
        else:
            self._words[register.name] = value
            self._set_sinks()
            self._run()

    def irq(self) -> bool:
        """Level of the interrupt line."""
        return bool(self._words["sticky"] & self._words["irq_enable"])

    @property
    def _selected(self) -> _HeadState:
        """Head that arrays are read and written of."""
        return self._heads[self._words.get("head_select", 0)]

    def _field(self, register: str, field: str) -> int:
        return self._map[register][field].get(self._words[register])

    def _refusal_now(self, register: Register, value: int) -> str | None:
        """Why a write is refused for what the device is doing; None if it is not."""
        values = register.values(value)
        tests = register.name == "test_q" or values.get("test_start")
        if tests and self._words["control"] & 1:
            return f"{register.name} is written for a self-test while packets are not taken"
        if values.get("test_start") and values.get("soft_reset"):
            return "a self-test and a soft reset are not asked for at once"
        return None

    def _values(self, register: Register, entry: int) -> dict[str, int]:
        """Values of a register's fields; those of an array's entry."""
        head, model = self._selected, self._heads[0].model
        column = divmod(model.pointer, self.params.columns)
        live: dict[str, dict[str, int]] = {
            "state": {"idle": 1, "pending": 0, "stale": 0, "test_done": int(self._test_done)},
            "occupancy": {"tokens": model.occupancy},
            "pointer": {"subtile": column[0], "column": column[1]},
            "oldest_age": {"ticks": 0},
            "latency": {
                "latency_clk": head_latency_clk(self.params, Command.WRITE_QUERY),
                "query_latency_clk": head_latency_clk(self.params, Command.QUERY),
            },
            "trim": {"offset": int(head.trim[entry]) if register.name == "trim" else 0},
            "test_count": {"sum": int(head.test_count[entry]) if register.count else 0},
            **{name: {"count": total} for name, total in self._totals.items()},
        }
        if register.name in live:
            return live[register.name]
        return register.values(self._words.get(register.name, register.reset))

    def _command(self, values: dict[str, int]) -> None:
        if values["clear_counters"] or values["soft_reset"]:
            self._totals = dict.fromkeys(self._totals, 0)
        if values["soft_reset"]:
            for register in self._map:
                if register.waits:
                    self._words[register.name] = register.reset
            self._words["sticky"] = 0
            self._test_done = False
            for head in self._heads:
                head.forget(self.params.lanes)
            self._set_sinks()
            self._run()
        if values.get("test_start"):
            self._self_test()

    def _self_test(self) -> None:
        """Raw sums of one sub-tile; neither the result before nor a counter takes notice."""
        test = self._map["test"].values(self._words["test"])
        gains = test.get("s_gain", 0), test.get("a_gain", 0)
        for head in self._heads:
            head.test_count = self._attend(head, head.test_q, *gains, test["subtile"]).sums
        self._test_done = True

    def _set_sinks(self) -> None:
        """Set the models' sinks, which take effect while the window is empty."""
        for head in self._heads:
            head.model.sinks = self._words.get("sinks", 0)
