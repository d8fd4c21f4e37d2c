"""Register bank: an AXI4-Lite slave with settings, commands, status, counters and an interrupt."""

from __future__ import annotations

from amaranth.hdl import Module, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from hw.packet import PacketError
from hw.params import HeadParams
from hw.registers import ADDRESS_BITS, DATA_BITS, RegisterMap

__all__ = ["AXIL_PORTS", "RegisterBank", "settings_layout"]

#: AXI4-Lite slave: direction and width, by name.
AXIL_PORTS = {
    "s_axil_awaddr": ("in", ADDRESS_BITS),
    "s_axil_awprot": ("in", 3),
    "s_axil_awvalid": ("in", 1),
    "s_axil_awready": ("out", 1),
    "s_axil_wdata": ("in", DATA_BITS),
    "s_axil_wstrb": ("in", DATA_BITS // 8),
    "s_axil_wvalid": ("in", 1),
    "s_axil_wready": ("out", 1),
    "s_axil_bresp": ("out", 2),
    "s_axil_bvalid": ("out", 1),
    "s_axil_bready": ("in", 1),
    "s_axil_araddr": ("in", ADDRESS_BITS),
    "s_axil_arprot": ("in", 3),
    "s_axil_arvalid": ("in", 1),
    "s_axil_arready": ("out", 1),
    "s_axil_rdata": ("out", DATA_BITS),
    "s_axil_rresp": ("out", 2),
    "s_axil_rvalid": ("out", 1),
    "s_axil_rready": ("in", 1),
}


def settings_layout(params: HeadParams) -> data.StructLayout:
    """Active settings. What the parameters leave out has no field.

    ``enable``; ``age_mask`` and ``age_budget``, ``age_tick`` (clocks less one) with ages;
    ``refresh_enable`` and ``refresh_period`` with refresh; ``write_clk``, ``guard_clk``;
    ``s_levels``, ``a_levels`` by gain code, four with shots, else one; ``sinks`` with sinks.
    """
    registers = RegisterMap(params)
    fields: dict[str, object] = {}
    for register in registers:
        if not register.waits:
            continue
        if register.name in ("s_levels", "a_levels"):
            width = register.fields[0].width
            fields[register.name] = data.ArrayLayout(width, len(register.fields))
        elif register.name in ("control", "phases"):
            fields |= {field.name: field.width for field in register.fields}
        else:
            fields[register.name] = register.fields[0].width
    return data.StructLayout(fields)


class RegisterBank(Component):
    """Registers of a head or layer, as `RegisterMap` lists them, behind AXI4-Lite.

    One write and one read are in progress at a time, each independent of the other. The write of
    a setting, a soft reset, and what belongs to the self-test wait at the bus, address and data
    not yet accepted, until the head is quiet, so that no copy of them is needed; ``pause`` keeps
    new packets out meanwhile. No output of the bus depends on an input in the same clock.

    Members of features that the parameters leave out are absent.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    s_axil_* : AXI4-Lite slave, see `AXIL_PORTS`
        ``awprot`` and ``arprot`` are not looked at.
    irq : Out(1)
        An event has happened that is enabled to interrupt.
    settings : Out(settings_layout(params))
        Active settings.
    pause : Out(1)
        The receiver takes no header: something is pending, or ``enable`` is 0.
    pending : Out(1)
        Something waits for ``quiet``; no refresh is begun either.
    quiet : In(1)
        Receiver and sequencer have nothing to do; it stays so while ``pending``. It must not
        depend on ``pause`` in the same clock.
    soft_reset : Out(1)
        Forget everything: in the clock in which settings return to their reset values.
    head_select : out
        Head that arrays are read and written of (heads > 1).
    occupancy, subtile, column : in
        The window's state.
    idle : In(1)
        Nothing is in flight and nothing is held.
    stale : In(1); oldest_age : in
        Some valid column is past its budget; age of the oldest (ages).
    head_latency_clk, head_query_latency_clk : In(16)
        Constants that are shown.
    failed : In(PacketError)
        Kind of the packet or step refused in this clock, else NONE.
    full_scale_lanes, saturated_lanes : in
        Lanes at full scale, and (shots) lanes cut, in this clock, of all heads.
    advance, answered, refreshed : In(1)
        A column was written; a valid query's sums are complete; a column was rewritten (refresh).
    write_index, read_index : Out(8)
        Lane or row of an array that is written, and that is read.
    trim_write : Out(1), trim_data : out, signed, trim_bits; trim_read : in
        Trims: written in this clock; what ``read_index`` reads in the same clock (trims).
    q_write : Out(1), q_data : out, q_bits
        Query of the self-test: written in this clock (self-test).
    count_read : in, signed, sum_bits
        Sum that ``read_index`` reads in the same clock (self-test).
    test_start : Out(1)
        Begin a self-test; the head is quiet and not enabled.
    test_subtile, test_s_gain, test_a_gain : out
        What it looks at; gain codes with shots only.
    test_done : In(1)
        It has ended.

    Timing
    ------
    Data are offered `read_clk` clocks after a read's address is taken. A write's response is
    offered `response_clk` clocks after address and data are there, if it need not wait, and else
    after something has been pending for a clock and the head is quiet. ``irq`` follows an event
    after `latency_clk` clocks.

    """

    latency_clk = 1
    read_clk = 2
    response_clk = 2

    def __init__(self, params: HeadParams) -> None:
        self.params = p = params
        self.registers = RegisterMap(params)
        flows = {"in": In, "out": Out}
        lanes = range(p.heads * p.lanes_per_beat + 1)
        ports: dict[str, object] = {
            **{name: flows[flow](width) for name, (flow, width) in AXIL_PORTS.items()},
            "irq": Out(1),
            "settings": Out(settings_layout(params)),
            "pause": Out(1),
            "pending": Out(1),
            "quiet": In(1),
            "soft_reset": Out(1),
            "occupancy": In(range(p.window + 1)),
            "subtile": In(p.subtile_bits),
            "column": In(p.column_bits),
            "idle": In(1),
            "head_latency_clk": In(16),
            "head_query_latency_clk": In(16),
            "failed": In(PacketError),
            "full_scale_lanes": In(lanes),
            "advance": In(1),
            "answered": In(1),
        }
        if p.heads > 1:
            ports["head_select"] = Out(range(p.heads))
        if p.shots:
            ports["saturated_lanes"] = In(lanes)
        if p.age_bits:
            ports |= {"stale": In(1), "oldest_age": In(p.age_bits)}
        if p.refresh:
            ports["refreshed"] = In(1)
        if p.trim_bits or p.self_test:
            ports |= {"write_index": Out(8), "read_index": Out(8)}
        if p.trim_bits:
            trim = signed(p.trim_bits)
            ports |= {"trim_write": Out(1), "trim_data": Out(trim), "trim_read": In(trim)}
        if p.self_test:
            ports |= {
                "q_write": Out(1),
                "q_data": Out(p.q_bits),
                "count_read": In(signed(p.sum_bits)),
                "test_start": Out(1),
                "test_done": In(1),
                "test_subtile": Out(p.subtile_bits),
            }
            if p.shots:
                ports |= {"test_s_gain": Out(2), "test_a_gain": Out(2)}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        """Build the bank."""
        return Module()
