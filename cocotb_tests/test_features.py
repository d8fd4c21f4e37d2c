"""Directed and random tests of what registers control: settings, shots, sinks, ages, refresh."""

from __future__ import annotations

import itertools
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, with_timeout

from cocotb_tests.age_watch import AgeWatch
from cocotb_tests.axil import OKAY, SLVERR, LibraryBus
from cocotb_tests.bench import Bench, load_job
from cocotb_tests.traffic import BOTH, FLUSH, KINDS, QUERY, WRITE, Traffic
from hw.packet import Command, PacketError, Shot
from hw.params import HeadParams
from hw.registers import Access

PARAMS = HeadParams(**load_job()["params"])
PATIENCE_US = 200
#: Time constant, and step of age, with which stored charge changes within a few packets.
LEAK = {"tau_s": 4e-6, "clk_ns": 1.0, "tick_clk": 16}


async def _start(dut: Any, **analog: Any) -> tuple[Bench, Traffic, dict[str, Any]]:
    job = load_job()
    bench = Bench(dut, PARAMS, library=job["library"], **{**job["analog"], **analog})
    await bench.start()
    return bench, Traffic(bench, job["seed"]), job


async def _filled(bench: Bench, traffic: Traffic) -> None:
    """Fill half of the window."""
    for _ in range(max(1, bench.params.window // 2)):
        traffic.good(WRITE)
    await bench.drain()


def _mixed(traffic: Traffic, packets: int) -> None:
    for _ in range(packets):
        if traffic.rng.random() < 0.1:
            traffic.malformed(traffic.rng.choice(KINDS), traffic.rng.choice((WRITE, QUERY, BOTH)))
        else:
            traffic.any_shot(traffic.rng.choices((WRITE, QUERY, BOTH, FLUSH), (8, 8, 8, 1))[0])


# --- registers ------------------------------------------------------------------------------
@cocotb.test()
async def registers_after_reset(dut: Any) -> None:
    """Every register reads as the map says; what is not mapped is refused."""
    bench, _, _ = await _start(dut)
    host = bench.registers
    for register in host.map:
        for entry in {0, register.entries - 1}:
            assert (await host.read_word(register.offset + 4 * entry)).response == OKAY
        if register.count is not None and host.map.at(register.offset + 4 * register.count) is None:
            reading = await host.read_word(register.offset + 4 * register.count)
            assert reading.response == SLVERR
    for counter in host.map.counters:
        if not counter.name.startswith("clocks"):
            assert (await host.read(counter.name))["count"] == 0, counter.name
    assert await host.read("state") == {
        field.name: int(field.name == "idle") for field in host.map["state"].fields
    }
    busy, idle = [(await host.read(f"clocks_{kind}"))["count"] for kind in ("busy", "idle")]
    assert busy == 0 and idle > 0
    assert (await host.read_word(0xFFC)).response == SLVERR


@cocotb.test()
async def random_accesses(dut: Any) -> None:
    """Any word to any address, under traffic: only what the map allows is accepted."""
    bench, traffic, job = await _start(dut)
    rng, host = traffic.rng, bench.registers
    await _filled(bench, traffic)
    if isinstance(bench.bus, LibraryBus):
        bench.bus.stall(job["seed"], 0.3)
    registers = list(host.map)
    refused = 0
    for at in range(4 * job["packets"]):
        if at % 8 == 0:
            traffic.any_shot(rng.choice((WRITE, QUERY, BOTH)))
        register = rng.choice(registers)
        address = register.offset + 4 * rng.randrange(register.entries)
        if rng.random() < 0.1:
            address = rng.randrange(0, 2**12, 4)
        if rng.random() < 0.4:
            await host.read_word(address)
            continue
        word = rng.getrandbits(32)
        if rng.random() < 0.7:  # more likely to be accepted
            word = 0
            for field in register.fields:
                word = field.put(word, rng.randint(field.low, field.high))
        if register.name == "control":
            word |= 1  # or else packets wait for ever
        if register.name in ("command", "trim") and rng.random() < 0.9:
            continue  # counters that are cleared under traffic cannot be told to the last one
        if register.name == "command" or any(f.access is Access.STICKY for f in register.fields):
            await bench.drain()
        if register.name == "trim":
            await bench.drain()
        strobe = rng.choice((0b1111, 0b1111, 0b0001, 0b0011, 0b1100, 0b1000))
        response = await with_timeout(host.write_word(address, word, strobe), PATIENCE_US, "us")
        refused += response == SLVERR
    assert refused > 0
    await bench.drain()
    await bench.check()


@cocotb.test()
async def settings_between_packets(dut: Any) -> None:
    """Phases and levels change under traffic: a packet that has begun keeps the old ones."""
    bench, traffic, job = await _start(dut)
    host, rng = bench.registers, traffic.rng
    bench.stall(job["seed"], 0.2)
    waited = 0
    for _ in range(job["packets"]):
        _mixed(traffic, rng.randint(1, 5))
        await ClockCycles(dut.clk, rng.randint(1, 60))
        before = bench.bridge.clocks
        if rng.random() < 0.5:
            await host.write(
                "phases",
                write_clk=rng.randint(1, PARAMS.write_max_clk),
                guard_clk=rng.randint(1, 3),
            )
        else:
            name = rng.choice(("s_levels", "a_levels"))
            fields = host.map[name].fields
            await host.write(
                name, **{field.name: rng.choice((1, 5, 20, 80, 255)) for field in fields}
            )
        waited += bench.bridge.clocks - before > 8
    assert waited > 0
    await bench.drain()
    await bench.check()


async def _latency(bench: Bench, traffic: Traffic, command: Command) -> int:
    """Clocks from the last beat of a packet that comes alone to the first of its answer."""
    first = bench.channels[0]
    traffic.good(command)
    await bench.sources()
    taken = bench.bridge.clocks
    await with_timeout(bench.answered(), PATIENCE_US, "us")
    await bench.drain()
    assert first.last_answer is not None
    return first.last_answer.clocks[0] - taken


@cocotb.test()
async def phases_last_as_long_as_set(dut: Any) -> None:
    """Latency follows the lengths of writes and guards, from the next packet on."""
    bench, traffic, job = await _start(dut)
    for write_clk in {1, PARAMS.write_clk, PARAMS.write_max_clk}:
        for guard_clk in (1, 2, PARAMS.guard_max_clk):
            await bench.registers.write("phases", write_clk=write_clk, guard_clk=guard_clk)
            guards = 3 * (guard_clk - PARAMS.guard_clk)
            writes = write_clk - PARAMS.write_clk
            for command, expected in (
                (BOTH, job["latency_clk"] + guards + writes),
                (QUERY, job["query_latency_clk"] + guards),
            ):
                latency = await _latency(bench, traffic, command)
                assert latency == expected, f"{command.name}: {latency}, expected {expected}"
    await bench.check()


@cocotb.test()
async def soft_reset_at_any_time(dut: Any) -> None:
    """Packets that have begun are answered, later ones as from reset; results held are not lost."""
    bench, traffic, job = await _start(dut)
    host, rng = bench.registers, traffic.rng
    for _ in range(job["resets"]):
        stopped = rng.random() < 0.3
        for channel in bench.channels:
            channel.sink.pause = stopped
        await host.write("a_levels", level_0=rng.choice((5, 10)))
        _mixed(traffic, 2 if stopped else 6)
        await ClockCycles(dut.clk, rng.randint(1, 100))
        await with_timeout(host.write("command", soft_reset=1), PATIENCE_US, "us")
        for channel in bench.channels:
            channel.sink.pause = False
        _mixed(traffic, 3)
        await bench.drain()
        await bench.check()
        assert (await host.read("a_levels"))["level_0"] == 40


@cocotb.test()
async def nothing_is_taken_unless_enabled(dut: Any) -> None:
    """Packets wait while the head is not enabled, and none is lost."""
    bench, traffic, _ = await _start(dut)
    host = bench.registers
    await host.write("control", enable=0)
    for _ in range(3):
        traffic.good(BOTH)
    await ClockCycles(dut.clk, 200)
    assert bench.oracle.taken == [0] * PARAMS.heads
    assert int(dut.idle.value) == 1
    await host.write("control", enable=1)
    await bench.drain()
    await host.write("control", enable=0)
    await host.write("command", soft_reset=1)
    for _ in range(3):
        traffic.good(BOTH)
    await bench.drain()
    await bench.check()


@cocotb.test()
async def interrupt(dut: Any) -> None:
    """It is high while an event that has happened is enabled."""
    bench, traffic, _ = await _start(dut)
    host = bench.registers
    traffic.malformed("unknown", WRITE)
    await bench.drain()
    assert int(dut.irq.value) == 0
    await host.write("irq_enable", length=1)
    assert int(dut.irq.value) == 0
    await host.write("irq_enable", command=1)
    assert int(dut.irq.value) == 1
    await host.write("sticky", length=1)
    assert int(dut.irq.value) == 1
    await host.write("sticky", command=1)
    assert int(dut.irq.value) == 0
    traffic.malformed("unknown", BOTH)
    await bench.drain()
    assert int(dut.irq.value) == 1
    await bench.check()


@cocotb.test()
async def clocks_are_counted(dut: Any) -> None:
    """Busy and idle clocks add up to all of them."""
    bench, traffic, _ = await _start(dut)
    host = bench.registers
    counts = []
    for _ in range(3):
        traffic.good(BOTH)
        await bench.drain()
        start = bench.bridge.clocks
        busy, idle = [(await host.read(f"clocks_{kind}"))["count"] for kind in ("busy", "idle")]
        between = bench.bridge.clocks - start
        counts.append((bench.bridge.clocks, busy, idle, between))
    for before, after in itertools.pairwise(counts):
        clocks = after[0] - before[0]
        counted = after[1] - before[1] + after[2] - before[2]
        assert abs(clocks - counted) <= after[3] + before[3]
        assert after[1] > before[1]


# --- shots ----------------------------------------------------------------------------------
@cocotb.test(skip=not PARAMS.shots)
async def shots_accumulate(dut: Any) -> None:
    """Any gains, weights, held and accumulated results; refusals and flushes in between."""
    bench, traffic, job = await _start(dut)
    bench.stall(job["seed"], 0.1)
    await _filled(bench, traffic)
    _mixed(traffic, 3 * job["packets"])
    await bench.drain()
    await bench.check()


@cocotb.test(skip=not PARAMS.shots)
async def shots_saturate(dut: Any) -> None:
    """Results stop at the limits of their width, are flagged and counted."""
    bench, traffic, _ = await _start(dut)
    await bench.registers.write("a_levels", level_0=1, level_1=1, level_2=1, level_3=1)
    await bench.registers.write("s_levels", level_0=1, level_1=1, level_2=1, level_3=1)
    await _filled(bench, traffic)
    for _ in range(4):
        traffic.good(QUERY, Shot(shift=3, hold=True))
        for _ in range(6):
            traffic.good(QUERY, Shot(shift=3, accumulate=True, hold=bool(traffic.rng.randrange(2))))
            traffic.good(BOTH, Shot(shift=3, accumulate=True))
        traffic.good(FLUSH)
        traffic.good(QUERY)
        traffic.good(BOTH, Shot(accumulate=True))
    await bench.drain()
    assert bench.sent.saturated > 0
    assert bench.sent.full_scale > 0
    await bench.check()


@cocotb.test(skip=not PARAMS.shots)
async def held_results_need_no_slot(dut: Any) -> None:
    """Held shots are carried out while the result stream is full; their refusals are answered."""
    bench, traffic, _ = await _start(dut)
    await _filled(bench, traffic)
    for channel in bench.channels:
        channel.sink.pause = True
    for _ in range(PARAMS.sender_slots):
        traffic.good(QUERY)
    for _ in range(3):
        traffic.good(QUERY, Shot(hold=True, accumulate=True))
    if PARAMS.streaming:
        await with_timeout(bench.sources(), PATIENCE_US, "us")
        await ClockCycles(dut.clk, 200)
        done = (await bench.registers.read("queries"))["count"]
        assert done == PARAMS.sender_slots + 3
    for channel in bench.channels:
        channel.sink.pause = False
    traffic.good(FLUSH)
    traffic.good(QUERY, Shot(hold=True))
    traffic.good(BOTH, Shot(accumulate=True))
    await bench.drain()
    assert bench.oracle.errors[PacketError.EMPTY] == 1
    await bench.check()


# --- window ---------------------------------------------------------------------------------
@cocotb.test(skip=not PARAMS.sinks)
async def sinks_stay(dut: Any) -> None:
    """Several laps with each number of sinks; a change waits for an empty window."""
    bench, traffic, _ = await _start(dut)
    for sinks in sorted({0, 1, PARAMS.sinks // 2, PARAMS.sinks}):
        await bench.registers.write("sinks", count=sinks)
        traffic.good(FLUSH)
        for at in range(2 * PARAMS.window + 3):
            if at == PARAMS.window // 2:
                await bench.registers.write("sinks", count=PARAMS.sinks - sinks)
            traffic.good(BOTH if at % 3 else WRITE)
            await bench.ahead(4)
        await bench.drain()
        await bench.check()


@cocotb.test(skip=not PARAMS.trim_bits)
async def trims(dut: Any) -> None:
    """Every lane's own offset is subtracted; a soft reset keeps them, a hard reset does not."""
    bench, traffic, _ = await _start(dut)
    host, rng = bench.registers, traffic.rng
    await _filled(bench, traffic)
    half = 2 ** (PARAMS.trim_bits - 1)
    lanes = range(PARAMS.lanes)
    for head in range(PARAMS.heads):
        if PARAMS.heads > 1:
            await host.write("head_select", head=head)
        for lane in lanes:
            offset = rng.choice((-half, half - 1, rng.randrange(-half, half)))
            await host.write("trim", lane, offset=offset)
    for head in range(PARAMS.heads):
        if PARAMS.heads > 1:
            await host.write("head_select", head=head)
        read = [(await host.read("trim", lane))["offset"] for lane in lanes]
        bench.oracle.settle()
        assert read == bench.oracle.heads[head].trims
    for _ in range(10):
        traffic.any_shot(BOTH)
    await bench.drain()
    await host.write("command", soft_reset=1)
    traffic.good(BOTH)
    await bench.drain()
    await bench.check()
    await bench.reset()
    assert (await host.read("trim", 0))["offset"] == 0
    traffic.good(BOTH)
    await bench.drain()
    await bench.check()


# --- self-test ------------------------------------------------------------------------------
@cocotb.test(skip=not PARAMS.self_test)
async def self_test(dut: Any) -> None:
    """Raw sums of each sub-tile, also of an empty window; the shot before stays."""
    bench, traffic, _ = await _start(
        dut, output_offset_sigma_counts=1.0, score_offset_sigma_clk=0.5
    )
    host, rng = bench.registers, traffic.rng
    for fill in (0, PARAMS.window // 2, 1 + PARAMS.window // 2):
        for _ in range(fill):
            traffic.good(WRITE)
        if fill:
            traffic.good(QUERY, traffic.shot(QUERY, accumulate=False))
        await bench.drain()
        await host.write("control", enable=0)
        for _ in range(4):
            queries = []
            for head in range(PARAMS.heads):
                if PARAMS.heads > 1:
                    await host.write("head_select", head=head)
                queries.append(traffic.codes(PARAMS.rows, PARAMS.q_bits))
                for row, code in enumerate(queries[-1]):
                    await host.write("test_q", row, code=code)
            test = {"subtile": rng.randrange(PARAMS.subtiles)}
            if PARAMS.shots:
                test |= traffic.gains()
            await host.write("test", **test)
            await host.write("command", test_start=1)
            await with_timeout(_tested(bench), PATIENCE_US, "us")
            await bench.drain()
            for head, query in enumerate(queries):
                if PARAMS.heads > 1:
                    await host.write("head_select", head=head)
                counts = [
                    (await host.read("test_count", lane))["sum"] for lane in range(PARAMS.lanes)
                ]
                levels = bench.oracle.levels
                result = bench.oracle.heads[head].model.query(
                    query,
                    s_level=levels["s_levels"][test.get("s_gain", 0)],
                    a_level=levels["a_levels"][test.get("a_gain", 0)],
                    subtile=test["subtile"],
                )
                assert counts == result.sums.tolist(), f"{counts}, expected {result.sums}"
        assert await host.write_word(host.map["command"].offset, 0b100) == OKAY
        await with_timeout(_tested(bench), PATIENCE_US, "us")
        await host.write("control", enable=1)
        assert await host.write_word(host.map["command"].offset, 0b100) == SLVERR
        assert await host.write_word(host.map["test_q"].offset, 0) == SLVERR
        if fill:
            traffic.good(QUERY, traffic.shot(QUERY, accumulate=True, hold=False))
        await bench.drain()
        await bench.check()


async def _tested(bench: Bench) -> None:
    while not (await bench.registers.read("state"))["test_done"]:
        pass


# --- ages and refresh -----------------------------------------------------------------------
@cocotb.test(skip=not PARAMS.age_bits)
async def ages(dut: Any) -> None:
    """Mask, stale flag and oldest age against the history of writes, also with sinks."""
    bench, traffic, job = await _start(dut)
    host, rng = bench.registers, traffic.rng
    watch = AgeWatch(bench)
    stale = masked = 0
    for round_ in range(job["resets"]):
        await host.write("age_tick", clocks=rng.choice((15, 40, 90)))
        await host.write("age_budget", ticks=rng.choice((1, 3, 6, 2**PARAMS.age_bits - 1)))
        control = {"enable": 1, "age_mask": round_ % 2}
        if PARAMS.refresh:
            control["refresh_enable"] = int(round_ % 3 == 2)
            await host.write("refresh_period", clocks=64)
        await host.write("control", **control)
        if PARAMS.sinks:
            await host.write("sinks", count=rng.randint(0, PARAMS.sinks))
        if rng.random() < 0.5:
            traffic.good(FLUSH)
        for _ in range(rng.randint(1, 2 * PARAMS.window)):
            traffic.any_shot(rng.choice((BOTH, BOTH, QUERY, WRITE)))
            await bench.ahead(2)
            if rng.random() < 0.2:
                await ClockCycles(dut.clk, rng.randint(1, 300))
            if rng.random() < 0.3:
                stale += await watch.read()
        await bench.drain()
        await bench.check()
    masked = watch.masked
    assert stale > 0
    assert masked > 0
    assert watch.conversions > 0


@cocotb.test(skip=not PARAMS.refresh)
async def refresh_rewrites_what_was_written(dut: Any) -> None:
    """Under continuous traffic results stay, and no packet waits long for a refresh."""
    bench, traffic, job = await _start(dut)
    host = bench.registers
    await host.write("refresh_period", clocks=64)
    await host.write("control", enable=1, refresh_enable=1)
    held: dict[str, dict[int, int]] = {"k": {}, "v": {}}
    rewritten = {"k": 0, "v": 0}

    async def watch() -> None:
        edge = FallingEdge(dut.clk)
        lines = {
            name: (
                getattr(dut, f"ana_{name}_write"),
                getattr(dut.sequencer, f"{name}_refresh"),
                getattr(dut, f"ana_{name}_code"),
            )
            for name in held
        }
        while True:
            await edge
            for name, (strobe, refresh, code) in lines.items():
                if int(strobe.value):
                    column = (
                        int(dut.ana_subtile_select.value).bit_length() * PARAMS.columns
                        + int(dut.ana_column_select.value).bit_length()
                    )
                    if int(refresh.value):
                        rewritten[name] += 1
                        assert held[name][column] == int(code.value), f"{name} of column {column}"
                    else:
                        held[name][column] = int(code.value)

    task = cocotb.start_soon(watch())
    for _ in range(job["laps"] * PARAMS.window + 3):
        traffic.any_shot(traffic.rng.choice((BOTH, BOTH, WRITE, QUERY)))
    await bench.drain()
    for _ in range(job["packets"]):
        traffic.good(traffic.rng.choice((BOTH, QUERY)))
        await ClockCycles(dut.clk, traffic.rng.randint(1, 80))
    await bench.drain()
    delays = set()
    for command, alone in ((BOTH, job["latency_clk"]), (QUERY, job["query_latency_clk"])) * 30:
        await ClockCycles(dut.clk, traffic.rng.randint(1, 40))
        delays.add(await _latency(bench, traffic, command) - alone)
    assert delays - {0} and min(delays) >= 0, f"delays of {sorted(delays)} clocks"
    assert max(delays) <= job["refresh_delay_clk"], f"delays of {sorted(delays)} clocks"
    await host.write("control", enable=1, refresh_enable=0)
    await ClockCycles(dut.clk, 100)
    task.cancel()
    counted = (await host.read("refreshes"))["count"]
    assert counted * PARAMS.write_clk == rewritten["k"] == rewritten["v"]
    assert counted > PARAMS.window
    await bench.check()


@cocotb.test(skip=not PARAMS.refresh)
async def refresh_restores_charge(dut: Any) -> None:
    """Stored charge leaks with time; results are those of columns as old as they are."""
    bench, traffic, job = await _start(dut, **LEAK)
    host = bench.registers
    bench.bridge.refresh_lines = {"key": dut.sequencer.k_refresh, "value": dut.sequencer.v_refresh}
    for enable in (0, 1):
        await host.write("refresh_period", clocks=100)
        await host.write("control", enable=1, refresh_enable=enable)
        for _ in range(2 * PARAMS.window + job["packets"]):
            traffic.any_shot(traffic.rng.choice((BOTH, QUERY, QUERY)))
            await bench.ahead(1)
            await ClockCycles(dut.clk, traffic.rng.choice((1, 1, 50, 200)))
        await bench.drain()
        await bench.check()
    assert (await host.read("refreshes"))["count"] > 10


# --- layers ---------------------------------------------------------------------------------
@cocotb.test(skip=PARAMS.heads == 1)
async def steps_that_do_not_agree(dut: Any) -> None:
    """Packets of a step that differ are refused together; no head is written."""
    bench, traffic, job = await _start(dut)
    await _filled(bench, traffic)
    rng = traffic.rng
    for _ in range(3):  # V of a packet that waits for array 2 must outlive a step that is refused
        traffic.good(BOTH)
        traffic.good(BOTH)
        traffic.mismatched(WRITE, *[FLUSH] * (PARAMS.heads - 1))
        traffic.mismatched(FLUSH, *[WRITE] * (PARAMS.heads - 1))
        traffic.good(WRITE)
        traffic.malformed("short", WRITE)
        traffic.good(QUERY)
    await bench.drain()
    await bench.check()
    bench.stall(job["seed"], 0.2)
    for _ in range(job["packets"]):
        commands = [rng.choice((WRITE, QUERY, BOTH, FLUSH)) for _ in range(PARAMS.heads)]
        traffic.mismatched(*commands)
        traffic.any_shot(rng.choice((BOTH, QUERY, WRITE)))
        if rng.random() < 0.3:
            tags = [traffic.tag() for _ in range(PARAMS.heads)]
            for head, tag in enumerate(tags):
                shot = traffic.shot(QUERY)
                bench.send(QUERY, tag, head=head, shot=shot, **traffic.sections(QUERY))
        if rng.random() < 0.3:
            traffic.malformed(rng.choice(KINDS), rng.choice((WRITE, QUERY, BOTH)))
    await bench.drain()
    assert bench.oracle.errors[PacketError.STEP] > 0
    await bench.check()


@cocotb.test(skip=PARAMS.heads == 1)
async def settings_wait_for_whole_steps(dut: Any) -> None:
    """A setting waits until every head's packet of a step that has begun has come in."""
    bench, traffic, _ = await _start(dut)
    host = bench.registers
    await _filled(bench, traffic)
    for _ in range(3):
        tag = traffic.tag()
        bench.send(BOTH, tag, head=0, **traffic.sections(BOTH))
        await bench.sources()
        write = cocotb.start_soon(host.write("a_levels", level_0=traffic.rng.randint(1, 80)))
        await ClockCycles(dut.clk, 100)
        assert not write.done()
        for head in range(1, PARAMS.heads):
            bench.send(BOTH, tag, head=head, **traffic.sections(BOTH))
        traffic.good(BOTH)
        await with_timeout(write, PATIENCE_US, "us")
        await bench.drain()
        await bench.check()
