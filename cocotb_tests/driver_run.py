"""A simulated device that serves the byte-stream protocol: the far end of `SimulatedBackend`.

Frames come over a socket and become transactions of cocotbext-axi's masters. Simulated time passes
only while something is asked for or the device is busy.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from collections import deque
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.queue import Queue
from cocotb.triggers import ClockCycles
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiResp,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)

from analog_models.head import SteppedHead
from analog_models.params import AnalogParams
from cocotb_tests.bench import load_job
from cocotb_tests.bridge import ArrayBridge
from hw.layer import stream_prefixes
from hw.params import HeadParams
from hw.registers import RegisterMap
from sim.driver.byte_stream import join_packets, split_beats
from sim.driver.link import VERSION, DeviceLink, Greeting, Kind, Request, Status

CLOCK_NS = 1
CREDIT = 256
#: Clocks between two looks at the socket.
LOOK_CLK = 8
#: Longest response, in bytes of result packets.
RESULT_BYTES = 8192


class Server:
    """Streams and registers of the simulated device, and the protocol in front of them."""

    def __init__(self, dut: Any, params: HeadParams, analog: dict[str, Any]) -> None:
        self._dut, self._params = dut, params
        self._bus_bytes = params.bus_bits // 8
        self.link = DeviceLink(Greeting(VERSION, self._bus_bytes, params.heads, CREDIT))
        arrays = [
            # The bridge looks at the length of each write, which is a setting.
            SteppedHead(
                AnalogParams.matching(
                    params,
                    **{
                        **analog,
                        "write_clk": 1,
                        "offset_seed": analog.get("offset_seed", 0) + head,
                    },
                )
            )
            for head in range(params.heads)
        ]
        self._bridge = ArrayBridge(dut, params, arrays)
        self._sources, self._sinks = [], []
        for head in range(params.heads):
            tokens, results = stream_prefixes(params, head)
            reset = {"reset": dut.rst, "byte_size": 8}
            bus = AxiStreamBus.from_prefix(dut, tokens)
            self._sources.append(AxiStreamSource(bus, dut.clk, **reset))
            bus = AxiStreamBus.from_prefix(dut, results)
            self._sinks.append(AxiStreamSink(bus, dut.clk, **reset))
        self._registers = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
        self._map = RegisterMap(params)
        self._waiting: deque[list[list[int]]] = deque()
        self._asked: Queue[Request] = Queue()
        self._at_work = False

    async def run(self, connection: socket.socket) -> None:
        """Serve until the host closes the connection."""
        dut = self._dut
        self._connection = connection
        dut.rst.value = 1
        Clock(dut.clk, CLOCK_NS, unit="ns").start()
        cocotb.start_soon(self._bridge.run())
        await ClockCycles(dut.clk, 4)
        dut.rst.value = 0
        await ClockCycles(dut.clk, 2)
        cocotb.start_soon(self._work())
        while True:
            # Nothing to do: wait for the host, and let simulated time stand still.
            wait_s = 0.0 if self._busy else 3600.0
            if select.select([connection], [], [], wait_s)[0]:
                data = connection.recv(65536)
                if not data:
                    return
                requests, out = self.link.feed(data)
                connection.sendall(out)
                for request in requests:
                    self._asked.put_nowait(request)
            await ClockCycles(dut.clk, LOOK_CLK)
            self._bridge.forget()

    @property
    def _quiet(self) -> bool:
        """No result can come any more."""
        return (
            bool(int(self._dut.idle.value))
            and all(source.idle() for source in self._sources)
            and all(sink.idle() for sink in self._sinks)
        )

    @property
    def _busy(self) -> bool:
        return self._at_work or not self._asked.empty() or not self._quiet

    async def _work(self) -> None:
        """Carry requests out, one after the other."""
        while True:
            request = await self._asked.get()
            self._at_work = True
            if request.kind == Kind.OPEN:
                for sink in self._sinks:
                    while not sink.empty():
                        sink.recv_nowait()
            else:
                status, payload = await self._carry_out(request)
                self._connection.sendall(self.link.respond(request, status, payload))
            self._at_work = False

    async def _carry_out(self, request: Request) -> tuple[Status, bytes]:
        kind, body = request.kind, request.body
        if kind == Kind.SEND and body and body[0] < self._params.heads:
            try:
                split_beats(body[1:], self._bus_bytes)
            except ValueError:
                return Status.MALFORMED, b""
            self._sources[body[0]].send_nowait(AxiStreamFrame(body[1:]))
            return Status.OK, b""
        if kind == Kind.RECEIVE and len(body) == 3 and body[0] < self._params.heads:
            return await self._receive(body[0], int.from_bytes(body[1:], "little") / 1000)
        if kind == Kind.DELIVER and len(body) == 2:
            return await self._deliver(int.from_bytes(body, "little") / 1000)
        if kind == Kind.READ and len(body) == 2:
            read = await self._registers.read(int.from_bytes(body, "little"), 4)
            if read.resp != AxiResp.OKAY:
                return Status.REFUSED, b""
            return Status.OK, bytes(read.data)
        if kind == Kind.WRITE and len(body) == 6:
            return await self._write(int.from_bytes(body[:2], "little"), body[2:])
        return Status.MALFORMED, b""

    async def _write(self, address: int, data: bytes) -> tuple[Status, bytes]:
        written = await self._registers.write(address, data)
        if written.resp != AxiResp.OKAY:
            return Status.REFUSED, b""
        found = self._map.at(address)
        values = found[0].values(int.from_bytes(data, "little")) if found else {}
        if "write_clk" in values:
            self._bridge.write_clk = values["write_clk"]
        elif values.get("soft_reset"):
            self._bridge.write_clk = self._params.write_clk
        return Status.OK, b""

    async def _deliver(self, wait_s: float) -> tuple[Status, bytes]:
        """Wait until every packet has been taken."""
        until = time.monotonic() + wait_s
        while not all(source.idle() for source in self._sources):
            if time.monotonic() >= until:
                return Status.NOTHING, b""
            await ClockCycles(self._dut.clk, LOOK_CLK)
        return Status.OK, b""

    async def _receive(self, head: int, wait_s: float) -> tuple[Status, bytes]:
        """As many packets as there are; wait for the first while one can come."""
        sink = self._sinks[head]
        until = time.monotonic() + wait_s
        while sink.empty() and not self._quiet and time.monotonic() < until:
            await ClockCycles(self._dut.clk, LOOK_CLK)
        packets, size = [], 0
        while not sink.empty() and size < RESULT_BYTES:
            data = bytes(sink.recv_nowait().tdata)
            packets.append(split_beats(data, self._bus_bytes))
            size += len(data)
        if not packets:
            return Status.NOTHING, b""
        return Status.OK, join_packets(packets, self._bus_bytes)


@cocotb.test()
async def serve(dut: Any) -> None:
    """Serve one host, which listens at the port that the job names."""
    logging.getLogger("cocotb").setLevel(logging.WARNING)
    job = load_job()
    params = HeadParams(**job["params"])
    server = Server(dut, params, job["analog"])
    with socket.create_connection(("127.0.0.1", job["port"])) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await server.run(connection)
