"""Records every port of a head while real tokens pass through it; the simulated side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from cocotb_tests.bench import Bench, load_job
from cocotb_tests.lines import reader
from hw.layer import layer_ports
from hw.packet import Command
from hw.params import HeadParams

#: Packets queued ahead, so that the source never starves.
AHEAD = 8
#: Clocks in which a token alone in the head is long done.
_ALONE_CLK = 160


async def _record(dut: Any, values: dict[str, list[int]]) -> None:
    """Sample every port, as it is when a clock ends."""
    ports = [(reader(getattr(dut, name)), kept) for name, kept in values.items()]
    edge = RisingEdge(dut.clk)
    while True:
        await edge
        for read, kept in ports:
            kept.append(read())


@cocotb.test()
async def real_tokens(dut: Any) -> None:
    """Fill the window, stream tokens, rest, then send some one at a time."""
    job = load_job()
    params = HeadParams(**job["params"])
    traces = np.load(job["codes"])
    q, k, v = (traces[name].tolist() for name in ("q_codes", "k_codes", "v_codes"))
    values: dict[str, list[int]] = {"rst": []}
    values |= {port.name: [] for port in layer_ports(params)}
    bench = Bench(dut, params, library=False, **job["analog"])
    cocotb.start_soon(_record(dut, values))
    await bench.start()
    token = 0

    async def send(command: Command) -> None:
        nonlocal token
        await bench.ahead(AHEAD)
        for head in range(params.heads):
            codes = {"k": k[head][token], "v": v[head][token]}
            if command.queries:
                codes["q"] = q[head][token]
            bench.send(command, token % 2**params.tag_bits, head=head, **codes)
        token += 1

    for _ in range(job["fill"]):
        await send(Command.WRITE)
    for _ in range(job["stream"]):
        await send(Command.WRITE_QUERY)
    await bench.drain()
    await ClockCycles(dut.clk, job["idle"])
    for _ in range(job["alone"]):
        await send(Command.WRITE_QUERY)
        await bench.drain()
        await ClockCycles(dut.clk, _ALONE_CLK)
    await bench.check()
    assert not bench.mismatches, bench.mismatches[0]
    sizes = {port.name: -(-port.width // 8) for port in layer_ports(params)} | {"rst": 1}
    arrays = {
        name: np.frombuffer(
            b"".join(value.to_bytes(sizes[name], "little") for value in kept), np.uint8
        ).reshape(-1, sizes[name])
        for name, kept in values.items()
    }
    with Path(job["ports"]).open("wb") as file:
        np.savez_compressed(file, **arrays)
