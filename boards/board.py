"""All that an FPGA carries: serial line, link, head, emulated arrays; nothing of a board's own."""

from __future__ import annotations

from amaranth.hdl import EnableInserter, Module, Signal
from amaranth.lib.wiring import Component, In, Out, connect

from boards.emulator import ArrayEmulator
from boards.link import Link, device_signature
from boards.params import BoardParams
from boards.serial_port import SerialPort
from hw.layer import AttentionLayer

__all__ = ["Board", "HeadWithArrays"]

_HOLD_MS = 64  # an LED shows an event that long


class HeadWithArrays(Component):
    """A head and its emulated arrays, whose clock stalls while they compute.

    Parameters
    ----------
    params
        Board parameters.

    Members
    -------
    device : In(device_signature(params))
        The head's streams and registers.
    idle, irq : Out(1)
        As the head has them.

    Timing
    ------
    The head moves in clocks in which ``device.step`` is high.
    """

    def __init__(self, params: BoardParams) -> None:
        self.params = params
        super().__init__({"device": In(device_signature(params)), "idle": Out(1), "irq": Out(1)})

    def elaborate(self, platform: object) -> Module:
        """Connect both."""
        m = Module()
        m.submodules.emulator = emulator = ArrayEmulator(self.params.emulator)
        head = AttentionLayer(self.params.head)
        m.submodules.head = EnableInserter(emulator.step)(head)
        m.d.comb += self.device.step.eq(emulator.step)
        for port in head.ports:
            ours = getattr(head, port.name)
            if port.name.startswith("ana_"):
                other = getattr(emulator, port.name)
            elif port.name in ("idle", "irq"):
                other = getattr(self, port.name)
            else:
                other = getattr(self.device, port.name)
            m.d.comb += ours.eq(other) if port.direction == "in" else other.eq(ours)
        return m


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
        m.submodules.head = head = HeadWithArrays(params)
        connect(m, link.send, serial.send)
        connect(m, link.device, head.device)
        m.d.comb += [
            serial.rx.eq(self.rx),
            self.tx.eq(serial.tx),
            link.received.eq(serial.received),
            link.valid.eq(serial.valid),
            self.session.eq(link.opened),
            self.event.eq(head.irq),
        ]
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
