"""Bench of the block tests (clock-by-clock access, stalls, protocol rules), and its own tests."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from amaranth.hdl import ClockDomain, Fragment, Module, Signal
from amaranth.lib.wiring import Component, In, Out
from amaranth.sim import Simulator

from hw.params import HeadParams
from hw.presets import PRESETS

#: What a head has no feature of.
BARE = {
    "schedule": "simple", "shots": False, "refresh": False, "self_test": False, "sinks": 0,
    "age_bits": 0, "trim_bits": 0,
}  # fmt: skip
#: Small heads of many shapes: presets without their features, and odd ones at the ends of ranges.
SMALL: dict[str, HeadParams] = {
    "tiny": dataclasses.replace(PRESETS["tiny"], **BARE),
    "three-subtiles": dataclasses.replace(PRESETS["three-subtiles"], **BARE),
    "slow-write": dataclasses.replace(PRESETS["slow-write"], **BARE, write_clk=7),
    "all-one": HeadParams(
        subtiles=1, columns=2, rows=1, lanes=1, q_bits=1, kv_bits=1, count_bits=1, write_clk=1,
        bus_bits=32, tag_bits=1, event_bits=4,
    ),
    "long-guard": HeadParams(
        subtiles=2, columns=3, rows=3, lanes=2, q_bits=2, count_bits=1, write_clk=2, guard_clk=6,
        bus_bits=32, tag_bits=3, event_bits=4,
    ),
    "bytes": HeadParams(
        subtiles=5, columns=3, rows=7, lanes=11, q_bits=5, kv_bits=6, count_bits=3, write_clk=31,
        guard_clk=2, bus_bits=32, tag_bits=11, event_bits=5,
    ),
    "wide-sums": HeadParams(
        subtiles=9, columns=2, rows=5, lanes=3, q_bits=2, kv_bits=4, count_bits=6, write_clk=2,
        bus_bits=32, event_bits=4,
    ),
}  # fmt: skip
#: The same with overlapped phases, and slots of several numbers.
STREAMING: dict[str, HeadParams] = {
    f"{name}-streaming": dataclasses.replace(params, schedule="streaming", result_slots=slots)
    for (name, params), slots in zip(SMALL.items(), (4, 3, 2, 1, 4, 5, 16), strict=True)
}
#: Small heads with every feature, of either schedule.
COMPLETE: dict[str, HeadParams] = {
    f"{name}-complete{'' if schedule == 'streaming' else '-simple'}": dataclasses.replace(
        PRESETS[name], schedule=schedule
    )
    for name in ("tiny", "three-subtiles", "slow-write")
    for schedule in ("streaming", "simple")
}
#: Small heads with one feature of those that widen a result.
PARTIAL: dict[str, HeadParams] = {
    "bytes-shots": dataclasses.replace(STREAMING["bytes-streaming"], shots=True),
    "wide-sums-trim": dataclasses.replace(SMALL["wide-sums"], trim_bits=11),
}
HEADS = SMALL | STREAMING | COMPLETE | PARTIAL
SEEDS = (1, 2)


def small(*names: str) -> pytest.MarkDecorator:
    """Parametrise over the small heads with the simple schedule, all of them or those named."""
    chosen = names or tuple(SMALL)
    return pytest.mark.parametrize("params", [HEADS[n] for n in chosen], ids=chosen)


def both_schedules(*names: str) -> pytest.MarkDecorator:
    """Parametrise over the small heads, all of them or those named, with either schedule."""
    chosen = names or tuple(SMALL)
    return small(*chosen, *(f"{name}-streaming" for name in chosen))


def complete(*names: str) -> pytest.MarkDecorator:
    """Parametrise over the small heads with every feature, all of them or those named."""
    return small(*(names or COMPLETE))


def every_kind() -> pytest.MarkDecorator:
    """Parametrise over bare heads, the schedules in turn, and partial and complete ones."""
    bare = [f"{name}{'-streaming' * (i % 2)}" for i, name in enumerate(SMALL)]
    return small(*bare, *COMPLETE, *PARTIAL)


def seeds(*values: int) -> pytest.MarkDecorator:
    """Parametrise over seeds, which the test's name then shows."""
    return pytest.mark.parametrize("seed", values or SEEDS, ids=lambda seed: f"seed{seed}")


class Clocked:
    """Drives a component clock by clock: inputs, settled outputs, then the edge."""

    def __init__(self, ctx: Any, dut: Any, rst: Signal) -> None:
        self.ctx, self.dut, self.rst = ctx, dut, rst
        self.now = 0  #: clocks that have ended

    def set(self, **inputs: Any) -> None:
        for name, value in inputs.items():
            self.ctx.set(getattr(self.dut, name), value)

    def get(self, *names: str) -> Any:
        values = tuple(self.ctx.get(getattr(self.dut, name)) for name in names)
        return values[0] if len(values) == 1 else values

    async def edge(self) -> None:
        await self.ctx.tick()
        self.now += 1

    async def reset(self) -> None:
        """One clock of reset."""
        self.ctx.set(self.rst, 1)
        await self.edge()
        self.ctx.set(self.rst, 0)


def simulate(dut: Component, bench: Callable[[Clocked], Awaitable[None]]) -> None:
    """Run a bench on a component, in a clock domain with a synchronous reset."""
    domain = ClockDomain("sync")
    top = Module()
    top.domains += domain
    top.submodules.dut = dut
    # A block without registers still needs a clock for the bench to count by.
    top.d.sync += Signal(name="keep_clock").eq(1)
    simulator = Simulator(top)
    simulator.add_clock(1e-9)

    async def testbench(ctx: Any) -> None:
        await bench(Clocked(ctx, dut, domain.rst))

    simulator.add_testbench(testbench)
    simulator.run()


def elaborated(dut: Any) -> Any:
    """Elaborate a component of which only the attributes are wanted, or Amaranth warns."""
    Fragment.get(dut, None)
    return dut


def stalls(rng: random.Random) -> Callable[[], bool]:
    """Stall source whose probability changes now and then: none, some, nearly always."""
    state = {"left": 0, "probability": 0.0}

    def stall() -> bool:
        if state["left"] == 0:
            state["left"] = rng.randint(3, 40)
            state["probability"] = rng.choice((0.0, 0.2, 0.5, 0.9))
        state["left"] -= 1
        return rng.random() < state["probability"]

    return stall


class StreamRules:
    """Checks what a sender owes: valid stays until ready, and the payload with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._waiting: Any = None

    def clock(self, valid: int, ready: int, payload: Any) -> bool:
        """Check one clock; true if there was a transfer."""
        if self._waiting is not None:
            assert valid, f"{self.name}: valid dropped before ready"
            assert payload == self._waiting, f"{self.name}: payload changed while waiting"
        self._waiting = payload if valid and not ready else None
        return bool(valid and ready)

    def reset(self) -> None:
        self._waiting = None


def pack(codes: Sequence[int], bits: int) -> int:
    """Pack codes, the first least significant."""
    return sum(code << bits * i for i, code in enumerate(codes))


# --- the bench itself --------------------------------------------------------------------------
class _Register(Component):
    def __init__(self) -> None:
        super().__init__({"d": In(4), "q": Out(4), "n": Out(4)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.q.eq(self.d)
        m.d.comb += self.n.eq(~self.d)
        return m


def test_clocked_sees_outputs_of_the_clock_its_inputs_are_in():
    async def bench(clk: Clocked) -> None:
        clk.set(d=5)
        assert clk.get("q", "n") == (0, 10)
        await clk.edge()
        assert clk.get("q") == 5
        await clk.reset()
        assert clk.get("q", "n") == (0, 10)
        assert clk.now == 2

    simulate(_Register(), bench)


def test_stream_rules_reject_a_dropped_valid():
    rules = StreamRules("s")
    assert not rules.clock(1, 0, "a")
    with pytest.raises(AssertionError, match="valid dropped"):
        rules.clock(0, 1, "a")


def test_stream_rules_reject_a_changed_payload():
    rules = StreamRules("s")
    rules.clock(1, 0, "a")
    with pytest.raises(AssertionError, match="payload changed"):
        rules.clock(1, 1, "b")


def test_stream_rules_accept_transfers_and_idle_clocks():
    rules = StreamRules("s")
    assert [rules.clock(*c) for c in ((0, 1, 1), (1, 0, 2), (1, 1, 2), (1, 1, 3), (0, 0, 4))] == [
        False, False, True, True, False,
    ]  # fmt: skip
