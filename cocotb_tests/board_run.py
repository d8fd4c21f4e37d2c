"""A simulated board at the end of a socket: its serial line, bit by bit, and nothing else of it.

The host's port has a clock of its own, one per cent slower than the board's and in no step with
it. The host says when simulated time passes, and how much, so that a run is the same every time.
"""

from __future__ import annotations

import logging
import socket
import struct
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.queue import Queue
from cocotb.triggers import ClockCycles, Event, FallingEdge, First, Timer

from cocotb_tests.bench import load_job

__all__ = ["ORDER", "Order"]

CLOCK_NS = 2
SLOWER = 1.01  #: bits of the host's port against the board's
ORDER = struct.Struct("<BI")  #: what the host asks for: order, number of bytes or of clocks


class Order:
    """What the host can ask for."""

    WRITE = 0  #: so many bytes follow, for the line
    RUN = 1  #: run until bytes have come and the line is quiet, at most so many clocks


class SerialModel:
    """A host's serial port: ten bits a byte, its own timing, no part of the design.

    Parameters
    ----------
    dut
        The board.
    bit_clk
        Clocks of a bit.
    """

    def __init__(self, dut: Any, bit_clk: int) -> None:
        self._dut, self._bit_ps = dut, round(bit_clk * CLOCK_NS * 1000 * SLOWER)
        self._out: Queue[int] = Queue()
        self._came = Event()
        self.received = bytearray()
        self.broken = 0  #: bytes without a stop bit
        dut.rx.value = 1
        cocotb.start_soon(self._write())
        cocotb.start_soon(self._read())

    def write(self, data: bytes) -> None:
        """Put bytes on the line, as soon as those before have left."""
        for byte in data:
            self._out.put_nowait(byte)

    async def run(self, clocks: int) -> bytes:
        """Bytes that come until the line has been quiet for three bytes' time."""
        left = Timer(clocks * CLOCK_NS, "ns")
        quiet_ps = 30 * self._bit_ps
        while True:
            waited = left if not self.received else Timer(quiet_ps, "ps")
            self._came.clear()
            if await First(self._came.wait(), waited) is waited:
                data = bytes(self.received)
                self.received.clear()
                return data

    async def _write(self) -> None:
        rx = self._dut.rx
        while True:
            frame = await self._out.get() << 1 | 0x200
            level, held = 0, 0
            rx.value = 0
            for bit in range(10):
                if frame >> bit & 1 != level:
                    await Timer(held * self._bit_ps, "ps")
                    level, held = level ^ 1, 0
                    rx.value = level
                held += 1
            await Timer(held * self._bit_ps, "ps")

    async def _read(self) -> None:
        tx = self._dut.tx
        start, bit = FallingEdge(tx), Timer(self._bit_ps, "ps")
        first = Timer(self._bit_ps * 3 // 2, "ps")
        while True:
            await start
            byte = 0
            await first
            for place in range(8):
                byte |= int(tx.value) << place
                await bit
            if int(tx.value):
                self.received.append(byte)
            else:
                self.broken += 1
            self._came.set()


def _take(connection: socket.socket, count: int) -> bytes:
    """So many bytes from the host; fewer if it has gone."""
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            break
        data += more
    return data


@cocotb.test()
async def serve(dut: Any) -> None:
    """Serve one host, which listens at the port that the job names."""
    logging.getLogger("cocotb").setLevel(logging.WARNING)
    job = load_job()
    dut.rst.value = 1
    Clock(dut.clk, CLOCK_NS, unit="ns").start()
    line = SerialModel(dut, job["bit_clk"])
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 20 * job["bit_clk"])  # a line that idles, as after power-up
    await Timer(CLOCK_NS * 300, "ps")
    with socket.create_connection(("127.0.0.1", job["port"])) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            order = _take(connection, ORDER.size)
            if len(order) < ORDER.size:
                break
            what, count = ORDER.unpack(order)
            if what == Order.WRITE:
                line.write(_take(connection, count))
            else:
                data = await line.run(count)
                connection.sendall(len(data).to_bytes(4, "little") + data)
    assert not line.broken, f"{line.broken} bytes had no stop bit"
