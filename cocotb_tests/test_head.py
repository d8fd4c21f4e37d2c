"""Directed and random tests of a head or layer with array models behind its analog boundary."""

from __future__ import annotations

import math
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge

from cocotb_tests.bench import Bench, load_job
from cocotb_tests.traffic import BOTH, FLUSH, QUERY, WRITE, Traffic
from hw.packet import Command, PacketError
from hw.params import HeadParams


async def _start(dut: Any, **analog: Any) -> tuple[Bench, Traffic, dict[str, Any]]:
    job = load_job()
    params = HeadParams(**job["params"])
    bench = Bench(dut, params, library=job["library"], **{**job["analog"], **analog})
    await bench.start()
    return bench, Traffic(bench, job["seed"]), job


@cocotb.test()
async def fill_and_wrap(dut: Any) -> None:
    """From empty, through a full window, around it several times; every token attends to itself."""
    bench, traffic, job = await _start(dut)
    for _ in range(max(job["laps"] * bench.params.window, 8) + 3):
        traffic.good(BOTH)
    await bench.drain()
    await bench.check()
    assert bench.oracle.occupancy == bench.params.window


@cocotb.test()
async def latency_and_interval(dut: Any) -> None:
    """Last beat to first result beat, alone, for both kinds of query; then the interval."""
    bench, traffic, job = await _start(dut)
    # Of several heads, the last one's.
    tokens, results = ("s_axis", "m_axis") if bench.params.heads == 1 else ("s_axis_0", "m_axis_0")
    offered, accepted, ends = (
        getattr(dut, f"{tokens}_{name}") for name in ("tvalid", "tready", "tlast")
    )
    valid, ready, last = (
        getattr(dut, f"{results}_{name}") for name in ("tvalid", "tready", "tlast")
    )
    for command, expected in (
        (BOTH, job["latency_clk"]),
        (QUERY, job["query_latency_clk"]),
        (BOTH, job["latency_clk"]),
    ):
        traffic.good(command)
        taken, clock = None, 0
        while True:
            await FallingEdge(dut.clk)
            clock += 1
            if int(offered.value) & int(accepted.value) & int(ends.value):
                taken = clock
            if int(valid.value):
                break
        assert clock - taken == expected, f"{command.name}: {clock - taken} clocks"
        await bench.drain()
    # Once the pipeline is full. Result slots may free in bunches: the mean over a bunch counts.
    for _ in range(18):
        traffic.good(BOTH)
    headers, clock, inside = [], 0, False
    while len(headers) < 18:
        await FallingEdge(dut.clk)
        clock += 1
        if int(valid.value):
            if not inside:
                headers.append(clock)
            inside = not (int(ready.value) & int(last.value))
    mean = (headers[-1] - headers[-13]) / 12
    assert math.ceil(mean) == job["expected_interval_clk"], f"{mean} clocks"
    await bench.drain()
    await bench.check()


@cocotb.test()
async def kinds_of_packets(dut: Any) -> None:
    """Write-only, query-only, both and flush, mixed at random under random stalls."""
    bench, traffic, job = await _start(dut)
    for probability in (0.0, 0.3, 0.7):
        bench.stall(job["seed"], probability)
        traffic.good(WRITE)
        for _ in range(job["packets"]):
            traffic.any_shot(traffic.rng.choices((WRITE, QUERY, BOTH, FLUSH), (6, 6, 6, 1))[0])
        await bench.drain()
        await bench.check()


@cocotb.test()
async def query_on_empty_window(dut: Any) -> None:
    """It is refused and answered as invalid; write and query together is not empty."""
    bench, traffic, _ = await _start(dut)
    traffic.good(QUERY)
    await bench.drain()
    assert bench.oracle.errors[PacketError.EMPTY] == 1
    traffic.good(BOTH)
    traffic.good(FLUSH)
    traffic.good(QUERY)
    traffic.good(WRITE)
    traffic.good(QUERY)
    await bench.drain()
    await bench.check()
    assert bench.oracle.errors[PacketError.EMPTY] == 2


async def _malformed(dut: Any, kind: str, commands: tuple[Command, ...]) -> None:
    bench, traffic, job = await _start(dut)
    bench.stall(job["seed"], 0.2)
    for _ in range(3):
        traffic.good(BOTH)
    await bench.drain()
    for _ in range(4):
        for command in commands:
            traffic.malformed(kind, command)
    await bench.drain()
    await bench.check()
    assert bench.oracle.occupancy == min(3, bench.params.window)
    for _ in range(3):
        traffic.good(BOTH)
        for command in commands:
            traffic.malformed(kind, command)
        traffic.good(QUERY)
    await bench.drain()
    await bench.check()


@cocotb.test()
async def packet_too_short(dut: Any) -> None:
    """TLAST comes early, at any beat from the header on."""
    await _malformed(dut, "short", (WRITE, QUERY, BOTH))


@cocotb.test()
async def packet_too_long(dut: Any) -> None:
    """TLAST comes late; the rest is dropped."""
    await _malformed(dut, "long", (WRITE, QUERY, BOTH, FLUSH))


@cocotb.test()
async def unknown_command(dut: Any) -> None:
    """A command that does not exist, at any length; bit 1 of it still asks for an answer."""
    await _malformed(dut, "unknown", (WRITE, QUERY, BOTH))


@cocotb.test()
async def reserved_header_bit(dut: Any) -> None:
    """A header bit that must be zero is set."""
    await _malformed(dut, "reserved", (WRITE, QUERY, BOTH, FLUSH))


@cocotb.test()
async def code_out_of_range(dut: Any) -> None:
    """A slot holds a code wider than the hardware's."""
    await _malformed(dut, "code", (BOTH, WRITE, QUERY))


@cocotb.test()
async def counters_clear_and_saturate(dut: Any) -> None:
    """Counters stop at their limit; a command clears them, writes of ones the sticky bits."""
    bench, traffic, _ = await _start(dut)
    for _ in range(min(2**bench.params.event_bits + 3, 40)):
        traffic.malformed("unknown", WRITE)
    traffic.good(QUERY)
    await bench.drain()
    await bench.check()
    await bench.registers.write("command", clear_counters=1)
    await bench.check()
    await bench.registers.write("sticky", command=1)
    await bench.check()
    await bench.registers.write("sticky", empty=1, length=1)
    await bench.check()
    assert not bench.oracle.events
    traffic.good(BOTH)
    await bench.drain()
    await bench.check()


@cocotb.test()
async def reset_at_any_time(dut: Any) -> None:
    """Reset in mid-packet and in every phase; the next packets are answered as from power-up."""
    bench, traffic, job = await _start(dut)
    length = job["latency_clk"] + 40
    for _ in range(job["resets"]):
        traffic.good(BOTH)
        traffic.good(BOTH)
        await ClockCycles(dut.clk, traffic.rng.randint(1, length))
        await bench.reset()
        assert int(dut.idle.value) == 1
        assert (await bench.registers.read("occupancy"))["tokens"] == 0
        traffic.good(QUERY)
        for _ in range(3):
            traffic.good(BOTH)
        await bench.drain()
        await bench.check()


@cocotb.test()
async def back_pressure_holds_results(dut: Any) -> None:
    """A receiver that stops loses nothing, and the stream's payload stays while it waits."""
    bench, traffic, _ = await _start(dut)
    valid, data = (
        (dut.m_axis_tvalid, dut.m_axis_tdata)
        if bench.params.heads == 1
        else (dut.m_axis_0_tvalid, dut.m_axis_0_tdata)
    )
    for channel in bench.channels:
        channel.sink.pause = True
    for _ in range(5):
        traffic.good(BOTH)
    await ClockCycles(dut.clk, 6 * 80)
    assert int(valid.value) == 1
    held = int(data.value)
    await ClockCycles(dut.clk, 50)
    await RisingEdge(dut.clk)
    assert int(data.value) == held
    assert bench.answers == 0
    for channel in bench.channels:
        channel.sink.pause = False
    await bench.drain()
    await bench.check()
