"""Status: counts what went wrong and what was clipped, and remembers it until cleared."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux
from amaranth.lib.wiring import Component, In, Out

from hw.packet import PacketError
from hw.params import HeadParams

__all__ = ["STICKY_FULL_SCALE", "Status"]

#: Bit of ``sticky`` for lanes at full scale; the bit of an error is its `PacketError` less one.
STICKY_FULL_SCALE = len(PacketError) - 1


class Status(Component):
    """Saturating event counters, and one sticky bit for each.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    failed : In(PacketError)
        Kind of the packet refused in this clock, else NONE.
    full_scale_lanes : in
        Lanes at full scale sent in this clock.
    clear : In(1)
        Forget everything; wins over an event in the same clock.
    command_errors, length_errors, code_errors, empty_errors : out
        Packets refused, by kind.
    full_scale_total : out
        Lanes sent that were at full scale.
    sticky : out
        One bit for each of the counters, in the order above: it has been non-zero.

    Timing
    ------
    Counters and bits follow an event after `latency_clk` clocks.

    """

    latency_clk = 1

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        super().__init__(
            {
                "failed": In(PacketError),
                "full_scale_lanes": In(range(params.lanes_per_beat + 1)),
                "clear": In(1),
                "command_errors": Out(params.event_bits),
                "length_errors": Out(params.event_bits),
                "code_errors": Out(params.event_bits),
                "empty_errors": Out(params.event_bits),
                "full_scale_total": Out(params.event_bits),
                "sticky": Out(len(PacketError)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the counters."""
        m = Module()
        counters = [
            (self.command_errors, self.failed == PacketError.COMMAND),
            (self.length_errors, self.failed == PacketError.LENGTH),
            (self.code_errors, self.failed == PacketError.CODE),
            (self.empty_errors, self.failed == PacketError.EMPTY),
            (self.full_scale_total, self.full_scale_lanes),
        ]
        limit = 2**self.params.event_bits - 1
        for counter, events in counters:
            total = counter + events
            m.d.sync += counter.eq(Mux(total > limit, limit, total))
        happened = Cat(events != 0 for _, events in counters)
        m.d.sync += self.sticky.eq(self.sticky | happened)
        with m.If(self.clear):
            m.d.sync += [counter.eq(0) for counter, _ in counters]
            m.d.sync += self.sticky.eq(0)
        return m
