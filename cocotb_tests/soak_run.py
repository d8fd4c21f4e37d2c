"""Random packets of every kind, good and malformed, stalls and resets; the simulated side."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles

from cocotb_tests.bench import HeadBench, load_job
from cocotb_tests.test_head import BOTH, FLUSH, QUERY, WRITE, Traffic
from hw.params import HeadParams
from sim.results import write_text_whole

#: Packets queued ahead.
AHEAD = 8
KINDS = ("short", "long", "unknown", "reserved", "code")


@cocotb.test()
async def soak(dut: Any) -> None:
    """Every answer is compared; so are the counters, before each reset and at the end."""
    job = load_job()
    params = HeadParams(**job["params"])
    bench = HeadBench(dut, params, library_streams=False, **job["analog"])
    await bench.start()
    traffic = Traffic(bench, job["seed"])
    rng = traffic.rng
    sent = malformed = resets = 0
    start = reported = time.perf_counter()
    progress = Path(job["progress"])
    commands, weights = (WRITE, QUERY, BOTH, FLUSH), (30, 30, 39, 1)
    while sent < job["packets"]:
        if rng.random() < 0.002:
            bench.stall(rng.getrandbits(32), rng.choice((0.0, 0.0, 0.1, 0.5, 0.9)))
        if rng.random() < 0.001:
            if rng.random() < 0.5:
                await bench.drain()
                bench.check()
            else:
                await ClockCycles(dut.clk, rng.randint(1, 100))
                assert not bench.mismatches, bench.mismatches[0]
            await bench.reset()
            resets += 1
        command = rng.choices(commands, weights)[0]
        if rng.random() < 0.01:
            kinds = KINDS if command in (WRITE, BOTH) else KINDS[:-1]
            kind = rng.choice(kinds)
            if command is FLUSH and kind == "short":
                kind = "long"  # a flush has no beat to lack
            traffic.malformed(kind, command)
            malformed += 1
        else:
            traffic.good(command)
        sent += 1
        while len(bench.owed) > AHEAD:
            await bench.answered()
        # Packets that are not answered must not pile up either.
        if sent % 64 == 0:
            await bench.source.wait()
        assert not bench.mismatches, bench.mismatches[0]
        if time.perf_counter() - reported > 0.5:
            reported = time.perf_counter()
            progress.write_text(str(sent), encoding="utf-8")
    await bench.drain()
    bench.check()
    figures = {
        "packets": sent,
        "malformed": malformed,
        "resets": resets,
        "answers": bench.answers,
        "mismatches": len(bench.mismatches),
        "clocks": bench.bridge.clocks,
        "seconds": time.perf_counter() - start,
    }
    write_text_whole(Path(job["figures"]), json.dumps(figures, indent=2) + "\n")
