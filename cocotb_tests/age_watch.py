"""Ages, stale flag and mask of a running head, against the history of its writes."""

from __future__ import annotations

from collections import deque
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge

from cocotb_tests.bench import Bench
from sim.reference.ages import TokenAges

__all__ = ["AgeWatch"]

#: Clocks within which a register read looks at what it reads.
_READ_CLK = 12


class AgeWatch:
    """Follows the writes of a head clock by clock, and checks the mask of every conversion.

    Parameters
    ----------
    bench
        The bench, just started; no packet has been sent.

    """

    def __init__(self, bench: Bench) -> None:
        self._bench, self._ages = bench, TokenAges(bench.params)
        self.conversions = 0  #: conversions whose mask was checked
        self.masked = 0  #: of them, those in which a column was too old
        self._seen: deque[tuple[int, bool]] = deque(maxlen=_READ_CLK)
        # The bench starts with the clock after reset.
        cocotb.start_soon(self._run())

    def _setting(self, name: str, field: str) -> int:
        model = self._bench.registers.model
        if name not in model.map or field not in model.map[name]:
            return 0
        return model.map[name][field].get(model.words[name])

    async def _run(self) -> None:
        bench, dut, ages = self._bench, self._bench.dut, self._ages
        p = bench.params
        edge = FallingEdge(dut.clk)
        lines: dict[str, Any] = {"flush": dut.window.flush, "write": dut.window.advance}
        if p.refresh:
            lines["refresh"] = dut.sequencer.refreshed
        converting = 0
        # Ticks are counted from the reset on.
        ages._elapsed = None
        while True:
            await edge
            if ages._elapsed is None:
                ages._elapsed = int(dut.ages.elapsed.value)
            budget = self._setting("age_budget", "ticks")
            stale = ages.stale(budget)
            self._seen.append((ages.oldest_bound, bool(stale)))
            before, converting = converting, int(dut.ana_convert.value)
            if converting and not before:
                self._check(stale if self._setting("control", "age_mask") else set())
            events = [name for name, line in lines.items() if int(line.value)]
            ages.clock(
                age_tick=self._setting("age_tick", "clocks"),
                sinks=self._setting("sinks", "count"),
                event=events[0] if events else None,
            )

    def _check(self, stale: set[int]) -> None:
        window = self._bench.params.window
        raw = int(self._bench.dut.ana_column_mask.value)
        mask = {column for column in range(window) if raw >> column & 1}
        expected = set(self._ages.state.valid) - stale
        assert mask == expected, f"mask {sorted(mask)}, expected {sorted(expected)}"
        self.conversions += 1
        self.masked += bool(stale)

    async def read(self) -> bool:
        """Read age and flag; they are what they were within the last clocks."""
        host = self._bench.registers
        age = (await host.read("oldest_age"))["ticks"]
        seen = {bound for bound, _ in self._seen}
        assert age in seen, f"oldest age {age}, expected one of {sorted(seen)}"
        stale = bool((await host.read("state"))["stale"])
        assert stale in {flag for _, flag in self._seen}, f"stale {stale}"
        return stale
