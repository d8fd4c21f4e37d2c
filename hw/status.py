"""Status: counts what was done, what went wrong and what was clipped, and remembers it."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from hw.packet import PacketError
from hw.params import HeadParams
from hw.registers import RegisterMap

__all__ = ["Status", "sticky_layout"]


def sticky_layout(params: HeadParams) -> data.StructLayout:
    """One bit for each event that can happen, by its name in `hw.registers.EVENTS`."""
    return data.StructLayout(dict.fromkeys(RegisterMap(params).events, 1))


def _more(counter: Value, events: Value) -> Value:
    """Counter and events, or the counter's largest value if they come to more.

    Events come late in the clock: they go through as many bits as they have, and then choose.
    """
    bits = min(len(events), len(counter))
    low = counter[:bits] + events
    high = counter[bits:]
    carry = low[bits:].any()
    full = high.all() if len(high) else Const(1)
    return Cat(
        low[:bits] | (carry & full).replicate(bits),
        Mux(carry & ~full, high + 1, high)[: len(high)],
    )


class Status(Component):
    """Saturating counters, and a sticky bit for each kind of event that software may wait for.

    Members of features that the parameters leave out are absent, and so are their bits.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    failed : In(PacketError)
        Kind of the packet or step refused in this clock, else NONE.
    full_scale_lanes, saturated_results : in
        Lanes at full scale, and (shots) results with a lane cut at its limit, sent in this clock.
    advance, answered, refreshed : In(1)
        A column was written; a valid query's sums are complete; a column was rewritten (refresh).
    idle : In(1)
        Nothing is in flight and nothing is held.
    stale : In(1)
        Some valid column is past its budget (ages). Its rise is the event.
    clear : In(1)
        Counters begin again from zero. What happens in the same clock counts.
    clear_sticky : In(sticky_layout(params))
        Sticky bits that are cleared. What happens in the same clock sticks.
    tokens, queries, refreshes : out
        Columns written, valid answers, columns rewritten.
    command_errors, length_errors, code_errors, empty_errors, step_errors : out
        Packets or (heads > 1) steps refused, by kind.
    full_scale_total, saturated_total : out
        Lanes.
    clocks_busy, clocks_idle : out
        Clocks.
    sticky : Out(sticky_layout(params))
        What has happened.

    Timing
    ------
    Counters and bits follow an event after `latency_clk` clocks.

    """

    latency_clk = 1

    def __init__(self, params: HeadParams) -> None:
        self.params = p = params
        lanes = range(p.heads * p.lanes_per_beat + 1)
        ports: dict[str, object] = {
            "failed": In(PacketError),
            "full_scale_lanes": In(lanes),
            "advance": In(1),
            "answered": In(1),
            "idle": In(1),
            "clear": In(1),
            "clear_sticky": In(sticky_layout(p)),
            "sticky": Out(sticky_layout(p)),
        }
        if p.shots:
            ports["saturated_results"] = In(lanes)
        if p.refresh:
            ports["refreshed"] = In(1)
        if p.age_bits:
            ports["stale"] = In(1)
        for register in RegisterMap(p).counters:
            ports[register.name] = Out(register.fields[0].width)
        super().__init__(ports)

    def _counted(self) -> dict[str, Value]:
        """What each counter counts."""
        p = self.params
        counted: dict[str, Value] = {
            "tokens": self.advance,
            "queries": self.answered,
            "command_errors": self.failed == PacketError.COMMAND,
            "length_errors": self.failed == PacketError.LENGTH,
            "code_errors": self.failed == PacketError.CODE,
            "empty_errors": self.failed == PacketError.EMPTY,
            "full_scale_total": self.full_scale_lanes,
            "clocks_busy": ~self.idle,
            "clocks_idle": self.idle,
        }
        if p.heads > 1:
            counted["step_errors"] = self.failed == PacketError.STEP
        if p.shots:
            counted["saturated_total"] = self.saturated_results
        if p.refresh:
            counted["refreshes"] = self.refreshed
        return counted

    def elaborate(self, platform: object) -> Module:
        """Build the counters."""
        m = Module()
        counted = self._counted()
        for name, events in counted.items():
            counter = getattr(self, name)
            anew, more = (_more(base, events) for base in (Const(0, len(counter)), counter))
            # The clock of a counter runs only when it may change.
            with m.If(self.clear | events.any()):
                m.d.sync += counter.eq(Mux(self.clear, anew, more))

        happened = {
            "command": counted["command_errors"],
            "length": counted["length_errors"],
            "code": counted["code_errors"],
            "empty": counted["empty_errors"],
            "step": counted.get("step_errors"),
            "full_scale": self.full_scale_lanes.any(),
        }
        if self.params.shots:
            happened["saturated"] = self.saturated_results.any()
        if self.params.age_bits:
            before = Signal(name="stale_before")
            m.d.sync += before.eq(self.stale)
            happened["stale"] = self.stale & ~before
        for name in self.sticky.shape().members:
            bit = self.sticky[name]
            m.d.sync += bit.eq((bit & ~self.clear_sticky[name]) | happened[name])
        return m
