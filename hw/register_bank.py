"""Register bank: an AXI4-Lite slave with settings, commands, status, counters and an interrupt."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from hw.packet import PacketError
from hw.params import HeadParams
from hw.registers import (
    ADDRESS_BITS,
    DATA_BITS,
    LEVEL_RESET,
    WAITING_COMMANDS,
    Access,
    Register,
    RegisterMap,
)
from hw.status import Status, sticky_layout

__all__ = ["AXIL_PORTS", "OKAY", "SLVERR", "RegisterBank", "settings_layout"]

OKAY, SLVERR = 0b00, 0b10  #: responses
_WORD_LSB = 2  # of an address: an access is to a whole word
_ARRAY_INDEX_BITS = 8

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
    fields: dict[str, object] = {}
    for name, (_, parts) in RegisterMap(params).settings.items():
        width = parts[0].width
        fields[name] = data.ArrayLayout(width, len(parts)) if name in LEVEL_RESET else width
    return data.StructLayout(fields)


def _settings_reset(params: HeadParams) -> dict[str, object]:
    return {
        name: [part.reset for part in parts] if name in LEVEL_RESET else parts[0].reset
        for name, (_, parts) in RegisterMap(params).settings.items()
    }


def _pattern(register: Register) -> int | str:
    """Word addresses of a register, as `Value.matches` takes them."""
    word = register.offset >> _WORD_LSB
    if register.count is None:
        return word
    bits = ADDRESS_BITS - _WORD_LSB - _ARRAY_INDEX_BITS
    return f"{word >> _ARRAY_INDEX_BITS:0{bits}b}" + "-" * _ARRAY_INDEX_BITS


def _within(register: Register, address: Value) -> Value:
    """A word address that fits the pattern is one of the register's."""
    if register.entries == 1 << _ARRAY_INDEX_BITS or register.count is None:
        return Const(1)
    return address[:_ARRAY_INDEX_BITS] < register.entries


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
        Receiver and sequencer have nothing to do. It must come, and stay, while ``pending``.
    soft_reset : Out(1)
        Forget everything: in the clock in which settings return to their reset values. As every
        strobe of the bank it follows from ``quiet`` and the bus's inputs in the same clock.
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
    full_scale_lanes, saturated_results : in
        Lanes at full scale, and (shots) results with a lane cut, sent in this clock by all heads.
    advance, answered, refreshed : In(1)
        A column was written; a valid query's sums are complete; a column was rewritten (refresh).
    write_index, read_index : Out(8)
        Lane or row of an array that is written, and that is read.
    trim_write : Out(1), trim_data : out, signed, trim_bits; trim_read : in
        Trims: written in this clock; what ``read_index`` reads in the same clock, in which it is
        not looked at when ``trim_write`` is 1, so that one port can serve both (trims).
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
    Data are offered `read_clk` clocks after a read's address is taken, or one more. A response is
    offered `response_clk` clocks after address and data are there, if the write need not wait, and
    else after something has been pending for a clock and the head is quiet. ``irq`` follows an
    event after `latency_clk` clocks.

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
            "settings": Out(settings_layout(params), init=_settings_reset(params)),
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
            ports["saturated_results"] = In(lanes)
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

    # --- storage ----------------------------------------------------------------------------
    def _stored(self, irq_enable: data.View) -> dict[tuple[str, str], Value]:
        """Register bits that software writes, by register and field."""
        stored: dict[tuple[str, str], Value] = {}
        for name, (register, parts) in self.registers.settings.items():
            value = self.settings[name]
            for at, part in enumerate(parts):
                stored[register.name, part.name] = value[at] if name in LEVEL_RESET else value
        for name in irq_enable.shape().members:
            stored["irq_enable", name] = irq_enable[name]
        if self.params.heads > 1:
            stored["head_select", "head"] = self.head_select
        if self.params.self_test:
            stored["test", "subtile"] = self.test_subtile
            if self.params.shots:
                stored["test", "s_gain"] = self.test_s_gain
                stored["test", "a_gain"] = self.test_a_gain
        return stored

    def _shown(
        self, status: Status, irq_enable: data.View, test_done: Value
    ) -> dict[tuple[str, str], Value]:
        """What software reads, by register and field; constants and arrays apart."""
        p = self.params
        shown = self._stored(irq_enable) | {
            ("latency", "latency_clk"): self.head_latency_clk,
            ("latency", "query_latency_clk"): self.head_query_latency_clk,
            ("state", "idle"): self.idle,
            ("state", "pending"): self.pending,
            ("occupancy", "tokens"): self.occupancy,
            ("pointer", "subtile"): self.subtile,
            ("pointer", "column"): self.column,
        }
        if p.age_bits:
            shown["state", "stale"] = self.stale
            shown["oldest_age", "ticks"] = self.oldest_age
        if p.self_test:
            shown["state", "test_done"] = test_done
        for register in self.registers.counters:
            shown[register.name, "count"] = getattr(status, register.name)
        for name in status.sticky.shape().members:
            shown["sticky", name] = status.sticky[name]
        return shown

    # --- channels ---------------------------------------------------------------------------
    def _read(self, m: Module, shown: Mapping[tuple[str, str], Value]) -> None:
        """Take an address, look it up in the next clock without a trim write, offer the word."""
        reading = Signal()
        refused = Signal(name="read_refused")
        address = Signal(ADDRESS_BITS - _WORD_LSB, name="read_address")
        word = Signal(DATA_BITS, name="read_word")
        mapped = Signal()
        arrays = {}
        if self.params.trim_bits:
            arrays["trim"] = self.trim_read
        if self.params.self_test:
            arrays["test_count"] = self.count_read
        if arrays:
            m.d.comb += self.read_index.eq(address)
        with m.Switch(address):
            for register in self.registers:
                with m.Case(_pattern(register)):
                    m.d.comb += mapped.eq(_within(register, address))
                    for field in register.fields:
                        bits = word[field.lsb : field.lsb + field.width]
                        if field.access is Access.CONSTANT:
                            m.d.comb += bits.eq(field.reset)
                        elif register.name in arrays:
                            m.d.comb += bits.eq(Mux(mapped, arrays[register.name], 0))
                        elif field.access.readable:
                            m.d.comb += bits.eq(shown[register.name, field.name])
        m.d.comb += [
            self.s_axil_arready.eq(~reading & ~self.s_axil_rvalid),
            self.s_axil_rresp.eq(Mux(refused, SLVERR, OKAY)),
        ]
        with m.If(self.s_axil_arvalid & self.s_axil_arready):
            m.d.sync += [reading.eq(1), address.eq(self.s_axil_araddr[_WORD_LSB:])]
        looked_up = reading & ~self.trim_write if "trim" in arrays else reading
        with m.If(looked_up):
            m.d.sync += [
                reading.eq(0),
                self.s_axil_rvalid.eq(1),
                self.s_axil_rdata.eq(word),
                refused.eq(~mapped),
            ]
        with m.If(self.s_axil_rvalid & self.s_axil_rready):
            m.d.sync += self.s_axil_rvalid.eq(0)

    def _write(self, m: Module, stored: Mapping[tuple[str, str], Value]) -> Callable[[str], Value]:
        """Look at address and data while they are offered, do what they say, then accept them.

        Returns what says that an accepted write to a register is done in this clock.
        """
        address, word = self.s_axil_awaddr[_WORD_LSB:], self.s_axil_wdata
        strobes = Cat(strobe.replicate(8) for strobe in self.s_axil_wstrb)
        offered = Signal()
        refused = Signal()  # what is offered
        waits = Signal()  # until the head is quiet
        go = Signal()  # what is offered is done in this clock
        waiting = Signal()
        accept = Signal()
        refusal = Signal(name="write_refused")
        with m.Switch(address):
            for register in self.registers:
                if register.writable:
                    with m.Case(_pattern(register)):
                        m.d.comb += [
                            refused.eq(self._refused(register, address, stored)),
                            waits.eq(self._waits(register)),
                        ]
                        for field in register.fields:
                            if (register.name, field.name) in stored:
                                bits = slice(field.lsb, field.lsb + field.width)
                                value = stored[register.name, field.name]
                                with m.If(go):
                                    m.d.sync += value.eq(
                                        (value & ~strobes[bits]) | (word & strobes)[bits]
                                    )
            with m.Default():
                m.d.comb += refused.eq(1)
        m.d.comb += [
            offered.eq(self.s_axil_awvalid & self.s_axil_wvalid & ~accept & ~self.s_axil_bvalid),
            go.eq(offered & ~refused & (~waits | (waiting & self.quiet))),
            self.pending.eq(waiting),
            self.s_axil_awready.eq(accept),
            self.s_axil_wready.eq(accept),
            self.s_axil_bresp.eq(Mux(refusal, SLVERR, OKAY)),
        ]
        m.d.sync += [
            waiting.eq(offered & ~refused & waits & ~go),
            accept.eq(offered & (refused | go)),
        ]
        with m.If(offered):
            m.d.sync += refusal.eq(refused)
        with m.If(accept):
            m.d.sync += self.s_axil_bvalid.eq(1)
        with m.Elif(self.s_axil_bready):
            m.d.sync += self.s_axil_bvalid.eq(0)
        return lambda name: go & address.matches(_pattern(self.registers[name]))

    def _waits(self, register: Register) -> Value:
        """A write to the register must wait for the head to be quiet."""
        if register.name == "command":
            waiting = [self._command(name) for name in WAITING_COMMANDS if name in register]
            return Cat(waiting).any()
        return Const(register.waits or register.name == "test_q")

    def _command(self, name: str) -> Value:
        """The word that is offered asks for a command, if it is for the command register."""
        return (
            self.s_axil_wdata[bit := self.registers["command"][name].lsb]
            & (self.s_axil_wstrb[bit // 8])
        )

    def _refused(
        self, register: Register, address: Value, stored: Mapping[tuple[str, str], Value]
    ) -> Value:
        """A write to the register is refused: what `Register.refusal` says, and when."""
        word = self.s_axil_wdata
        strobes = Cat(strobe.replicate(8) for strobe in self.s_axil_wstrb)
        enabled = self.settings.enable
        owned = sum(field.mask for field in register.fields)
        bad: list[Value] = [(word & strobes & ~Const(owned, DATA_BITS)).any()]
        if register.count is not None:
            bad += [~_within(register, address), ~self.s_axil_wstrb.all()]
        if register.name == "test_q":
            bad.append(enabled)
        if register.name == "command" and "test_start" in register:
            bad.append(self._command("test_start") & (self._command("soft_reset") | enabled))
        for field in register.fields:
            bits = slice(field.lsb, field.lsb + field.width)
            value = word[bits]
            if (register.name, field.name) in stored:
                now = stored[register.name, field.name]
                value = (now & ~strobes[bits]) | (value & strobes[bits])
            if field.access in (Access.SETTING, Access.DIRECT, Access.WRITE):
                low, high = field.natural
                value = value.as_signed() if field.signed else value
                if field.low > low:
                    bad.append(value < field.low)
                if field.high < high:
                    bad.append(value > field.high)
        return Cat(bad).any()

    def elaborate(self, platform: object) -> Module:
        """Build the bank."""
        m = Module()
        p = self.params
        status = m.submodules.status = Status(p)
        irq_enable = Signal(sticky_layout(p))
        test_done = Signal()
        done = self._write(m, self._stored(irq_enable))
        self._read(m, self._shown(status, irq_enable, test_done))

        m.d.comb += [
            self.pause.eq(self.pending | ~self.settings.enable),
            self.soft_reset.eq(done("command") & self._command("soft_reset")),
            self.irq.eq((Value.cast(status.sticky) & Value.cast(irq_enable)).any()),
        ]
        with m.If(self.soft_reset):
            m.d.sync += self.settings.eq(settings_layout(p).const(_settings_reset(p)))

        # Events.
        m.d.comb += [
            status.failed.eq(self.failed),
            status.full_scale_lanes.eq(self.full_scale_lanes),
            status.advance.eq(self.advance),
            status.answered.eq(self.answered),
            status.idle.eq(self.idle),
            status.clear.eq(
                done("command") & (self._command("clear_counters") | self._command("soft_reset"))
            ),
        ]
        for field in self.registers["sticky"].fields:
            bit = self.s_axil_wdata[field.lsb] & self.s_axil_wstrb[field.lsb // 8]
            cleared = (done("sticky") & bit) | self.soft_reset
            m.d.comb += status.clear_sticky[field.name].eq(cleared)
        if p.shots:
            m.d.comb += status.saturated_results.eq(self.saturated_results)
        if p.refresh:
            m.d.comb += status.refreshed.eq(self.refreshed)
        if p.age_bits:
            m.d.comb += status.stale.eq(self.stale)

        # Arrays and the self-test.
        if p.trim_bits or p.self_test:
            m.d.comb += self.write_index.eq(self.s_axil_awaddr[_WORD_LSB:])
        if p.trim_bits:
            m.d.comb += [self.trim_write.eq(done("trim")), self.trim_data.eq(self.s_axil_wdata)]
        if p.self_test:
            m.d.comb += [
                self.q_write.eq(done("test_q")),
                self.q_data.eq(self.s_axil_wdata),
                self.test_start.eq(done("command") & self._command("test_start")),
            ]
            with m.If(self.test_start | self.soft_reset):
                m.d.sync += test_done.eq(0)
            with m.Elif(self.test_done):
                m.d.sync += test_done.eq(1)
        return m
