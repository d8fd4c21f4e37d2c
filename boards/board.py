"""All that an FPGA carries: serial line, link, head, emulated arrays; nothing of a board's own."""

from __future__ import annotations

from amaranth.hdl import EnableInserter, Module, Signal
from amaranth.lib.wiring import Component, In, Out, connect

from boards.emulator import ArrayEmulator
from boards.link import Link
from boards.params import BoardParams
from boards.serial_port import SerialPort
from hw.layer import AttentionLayer
from hw.register_bank import AXIL_PORTS

__all__ = ["Board"]

_HOLD_MS = 64  # an LED shows an event that long


class Board(Component):
    """A head that a host talks to over a serial line, its arrays emulated.

    Parameters
    ----------
    params
        Board parameters.

    Members
    -------
    rx, tx : In(1), Out(1)
        Serial line.
    session : Out(1)
        A host has opened a session.
    busy : Out(1)
        The head is not idle, or was not a moment ago.
    event : Out(1)
        The head's interrupt.
    garbage : Out(1)
        Bytes that were no frame have come, or had a moment ago.

    Timing
    ------
    The head moves in clocks in which its emulated arrays have nothing to compute.
    """

    def __init__(self, params: BoardParams) -> None:
        self.params = params
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "session": Out(1),
                "busy": Out(1),
                "event": Out(1),
                "garbage": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Connect the parts."""
        m = Module()
        params = self.params
        m.submodules.serial = serial = SerialPort(params.bit_clk)
        m.submodules.link = link = Link(params)
        m.submodules.emulator = emulator = ArrayEmulator(params.emulator)
        head = AttentionLayer(params.head)
        m.submodules.head = EnableInserter(emulator.step)(head)
        connect(m, link.send, serial.send)
        m.d.comb += [
            serial.rx.eq(self.rx),
            self.tx.eq(serial.tx),
            link.received.eq(serial.received),
            link.valid.eq(serial.valid),
            link.step.eq(emulator.step),
            head.s_axis_tdata.eq(link.tokens_tdata),
            head.s_axis_tvalid.eq(link.tokens_tvalid),
            head.s_axis_tlast.eq(link.tokens_tlast),
            link.tokens_tready.eq(head.s_axis_tready),
            link.results_tdata.eq(head.m_axis_tdata),
            link.results_tvalid.eq(head.m_axis_tvalid),
            link.results_tlast.eq(head.m_axis_tlast),
            head.m_axis_tready.eq(link.results_tready),
            self.session.eq(link.opened),
            self.event.eq(head.irq),
        ]
        for name, (flow, _) in AXIL_PORTS.items():
            ends = getattr(head, name), getattr(link, name)
            m.d.comb += ends[0].eq(ends[1]) if flow == "in" else ends[1].eq(ends[0])
        for port in head.ports:
            if port.name.startswith("ana_"):
                ends = getattr(emulator, port.name), getattr(head, port.name)
                m.d.comb += ends[0].eq(ends[1]) if port.direction == "out" else ends[1].eq(ends[0])
        for name, light, event in (
            ("busy", self.busy, ~head.idle),
            ("garbage", self.garbage, link.rejected),
        ):
            left = Signal(range(_HOLD_MS * params.ms_clk), name=f"{name}_left")
            m.d.comb += light.eq(left != 0)
            with m.If(event):
                m.d.sync += left.eq(_HOLD_MS * params.ms_clk - 1)
            with m.Elif(left != 0):
                m.d.sync += left.eq(left - 1)
        return m
