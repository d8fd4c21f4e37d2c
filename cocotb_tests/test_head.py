"""Directed and random tests of one head with the array model behind its analog boundary."""

from __future__ import annotations

import math
import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge

from cocotb_tests.bench import HeadBench, load_job
from hw.packet import Command, PacketError, token_beats
from hw.params import HeadParams

WRITE, QUERY, BOTH, FLUSH = Command.WRITE, Command.QUERY, Command.WRITE_QUERY, Command.FLUSH


class Traffic:
    """Random well-formed and malformed packets; the same for the same seed."""

    def __init__(self, bench: HeadBench, seed: int) -> None:
        self.bench, self.params = bench, bench.params
        self.rng = random.Random(seed)

    def tag(self) -> int:
        return self.rng.randrange(2**self.params.tag_bits)

    def codes(self, count: int, bits: int) -> list[int]:
        """Codes of one of several kinds: spread, extreme, or constant."""
        top = 2**bits - 1
        kind = self.rng.randrange(4)
        if kind == 0:
            return [self.rng.choice((0, top)) for _ in range(count)]
        if kind == 1:
            return [self.rng.choice((0, top))] * count
        return [self.rng.randint(0, top) for _ in range(count)]

    def sections(self, command: Command) -> dict[str, list[int]]:
        p = self.params
        sections = {}
        if command.writes:
            sections["k"] = self.codes(p.rows, p.kv_bits)
            sections["v"] = self.codes(p.lanes, p.kv_bits)
        if command.queries:
            sections["q"] = self.codes(p.rows, p.q_bits)
        return sections

    def good(self, command: Command) -> None:
        self.bench.send(command, self.tag(), **self.sections(command))

    def malformed(self, kind: PacketError | str, command: Command) -> None:
        """Queue a packet that is wrong in one way."""
        p, rng = self.params, self.rng
        beats = token_beats(p, command, self.tag(), **self.sections(command))
        error = PacketError.LENGTH
        if kind == "short":
            beats = beats[: rng.randint(1, len(beats) - 1)]
        elif kind == "long":
            beats += [rng.getrandbits(p.bus_bits) for _ in range(rng.randint(1, 3))]
        elif kind == "unknown":
            unknown = rng.choice([0, 5, 6, 7, 8, 16, 128, 0xFF, 0x82])
            beats = [beats[0] & ~0xFF | unknown, *beats[1 : rng.randint(1, len(beats))]]
            error = PacketError.COMMAND
        elif kind == "reserved":
            free = [8 + p.tag_bits, p.bus_bits - 1, rng.randrange(8 + p.tag_bits, p.bus_bits)]
            beats[0] |= 1 << rng.choice(free)
            error = PacketError.COMMAND
        elif kind == "code":
            # A bit above a code's width, in a slot that holds a code.
            sections = [(p.kv_bits, p.rows), (p.kv_bits, p.lanes), (p.q_bits, p.rows)]
            wanted = [command.writes, command.writes, command.queries]
            at, places = 1, []
            for (bits, count), is_there in zip(sections, wanted, strict=True):
                if is_there:
                    for slot in range(count):
                        beat, place = divmod(slot, p.codes_per_beat)
                        for bit in range(bits, p.slot_bits):
                            places.append((at + beat, place * p.slot_bits + bit))
                    at += -(-count // p.codes_per_beat)
            beat, bit = rng.choice(places)
            beats[beat] |= 1 << bit
            error = PacketError.CODE
        self.bench.send_refused(beats, error)


async def _start(dut: Any) -> tuple[HeadBench, Traffic, dict[str, Any]]:
    job = load_job()
    bench = HeadBench(
        dut,
        HeadParams(**job["params"]),
        library_streams=job["library_streams"],
        **job["analog"],
    )
    await bench.start()
    return bench, Traffic(bench, job["seed"]), job


@cocotb.test()
async def fill_and_wrap(dut: Any) -> None:
    """From empty, through a full window, around it several times; every token attends to itself."""
    bench, traffic, job = await _start(dut)
    for _ in range(max(job["laps"] * bench.params.window, 8) + 3):
        traffic.good(BOTH)
    await bench.drain()
    bench.check()
    assert bench.oracle.model.occupancy == bench.params.window


@cocotb.test()
async def latency_and_interval(dut: Any) -> None:
    """Last beat to first result beat, alone, for both kinds of query; then the interval."""
    bench, traffic, job = await _start(dut)
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
            if int(dut.s_axis_tvalid.value) & int(dut.s_axis_tready.value):
                if int(dut.s_axis_tlast.value):
                    taken = clock
            if int(dut.m_axis_tvalid.value):
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
        if int(dut.m_axis_tvalid.value):
            if not inside:
                headers.append(clock)
            inside = not (int(dut.m_axis_tready.value) & int(dut.m_axis_tlast.value))
    mean = (headers[-1] - headers[-13]) / 12
    assert math.ceil(mean) == job["expected_interval_clk"], f"{mean} clocks"
    await bench.drain()
    bench.check()


@cocotb.test()
async def kinds_of_packets(dut: Any) -> None:
    """Write-only, query-only, both and flush, mixed at random under random stalls."""
    bench, traffic, job = await _start(dut)
    for probability in (0.0, 0.3, 0.7):
        bench.stall(job["seed"], probability)
        traffic.good(WRITE)
        for _ in range(job["packets"]):
            traffic.good(traffic.rng.choices((WRITE, QUERY, BOTH, FLUSH), (6, 6, 6, 1))[0])
        await bench.drain()
        bench.check()


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
    bench.check()
    assert bench.oracle.errors[PacketError.EMPTY] == 2


async def _malformed(dut: Any, kind: str, commands: tuple[Command, ...]) -> None:
    bench, traffic, job = await _start(dut)
    bench.stall(job["seed"], 0.2)
    for _ in range(3):
        traffic.good(BOTH)
    await bench.drain()
    pointer = int(dut.status_occupancy.value)
    for _ in range(4):
        for command in commands:
            traffic.malformed(kind, command)
    await bench.drain()
    bench.check()
    assert int(dut.status_occupancy.value) == pointer
    for _ in range(3):
        traffic.good(BOTH)
        for command in commands:
            traffic.malformed(kind, command)
        traffic.good(QUERY)
    await bench.drain()
    bench.check()


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
    params = HeadParams(**load_job()["params"])
    commands = [BOTH, WRITE]
    if params.slot_bits > params.q_bits:
        commands.append(QUERY)
    await _malformed(dut, "code", tuple(commands))


@cocotb.test()
async def status_clears_and_saturates(dut: Any) -> None:
    """Counters stop at their limit, and a clear forgets them and the sticky bits."""
    bench, traffic, _ = await _start(dut)
    for _ in range(min(2**bench.params.event_bits + 3, 40)):
        traffic.malformed("unknown", WRITE)
    traffic.good(QUERY)
    await bench.drain()
    bench.check()
    dut.status_clear.value = 1
    await ClockCycles(dut.clk, 1)
    dut.status_clear.value = 0
    await ClockCycles(dut.clk, 2)
    bench.oracle.errors = dict.fromkeys(PacketError, 0)
    bench.oracle.full_scale_lanes = 0
    bench.check()


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
        assert int(dut.status_occupancy.value) == 0
        assert int(dut.status_idle.value) == 1
        traffic.good(QUERY)
        for _ in range(3):
            traffic.good(BOTH)
        await bench.drain()
        bench.check()


@cocotb.test()
async def back_pressure_holds_results(dut: Any) -> None:
    """A receiver that stops loses nothing, and the stream's payload stays while it waits."""
    bench, traffic, _ = await _start(dut)
    bench.sink.pause = True
    for _ in range(5):
        traffic.good(BOTH)
    await ClockCycles(dut.clk, 6 * 80)
    assert int(dut.m_axis_tvalid.value) == 1
    held = int(dut.m_axis_tdata.value)
    await ClockCycles(dut.clk, 50)
    await RisingEdge(dut.clk)
    assert int(dut.m_axis_tdata.value) == held
    assert bench.answers == 0
    bench.sink.pause = False
    await bench.drain()
    bench.check()
