"""Real tokens through a head or layer and array models; the simulated side of `gaincell cosim`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb._gpi_triggers import GPITrigger
from cocotb.triggers import FallingEdge, RisingEdge
from cocotb.utils import get_sim_time

from cocotb_tests.bench import CLOCK_NS, Bench, load_job
from hw.layer import stream_prefixes
from hw.packet import Command
from hw.params import HeadParams
from sim.results import write_text_whole

#: Signals of the waveform picture, in its order; of several heads, the first one's streams.
WAVE_SIGNALS = (
    "s_axis_tvalid",
    "s_axis_tlast",
    "ana_k_write",
    "ana_v_write",
    "ana_scores_reset",
    "ana_integrate",
    "ana_q_pulse",
    "ana_outputs_reset",
    "ana_convert",
    "ana_readout",
    "ana_out_pulse",
    "m_axis_tvalid",
    "m_axis_tlast",
)
#: Packets queued ahead, so that the source never starves and memory stays small.
AHEAD = 8
#: Tokens sent in a row to measure the interval.
IN_A_ROW = 10


class PythonTime:
    """Seconds spent in Python: in whatever the simulator's callbacks start.

    cocotb has no public hook for this. Every callback of the simulator enters Python through one
    method of its trigger, which is wrapped here, for the rest of the process; the version of
    cocotb is pinned.
    """

    def __init__(self) -> None:
        self._sum_s, self._entered = 0.0, time.perf_counter()
        react = GPITrigger._react

        def timed(trigger: GPITrigger) -> None:
            self._entered = time.perf_counter()
            react(trigger)
            self._sum_s += time.perf_counter() - self._entered

        GPITrigger._react = timed

    def seconds(self) -> float:
        """Seconds so far; called in a callback, as all of a test is."""
        return self._sum_s + time.perf_counter() - self._entered


def signal(dut: Any, params: HeadParams, name: str) -> Any:
    """Port by its name in a head of one; of several heads, the first one's."""
    for prefix, of_head in zip(("s_axis", "m_axis"), stream_prefixes(params, 0), strict=True):
        name = name.replace(f"{prefix}_", f"{of_head}_", 1)
    return getattr(dut, name)


async def record_wave(dut: Any, params: HeadParams, path: Path, clocks: int) -> None:
    """Sample the control lines of the packet that comes next, one value per clock."""
    # At a rising edge values are still those of the clock that ends there.
    signals = {name: signal(dut, params, name) for name in WAVE_SIGNALS}
    await RisingEdge(signals["s_axis_tvalid"])
    values: dict[str, list[int]] = {name: [] for name in WAVE_SIGNALS}
    start = int(get_sim_time("ns")) // CLOCK_NS
    for _ in range(clocks):
        await RisingEdge(dut.clk)
        for name, line in signals.items():
            values[name].append(int(line.value))
    wave = {
        "clock_ns": CLOCK_NS,
        "start": start,
        "signals": [
            {"name": name, "width": len(line), "values": values[name]}
            for name, line in signals.items()
        ],
    }
    write_text_whole(path, json.dumps(wave) + "\n")


async def measure_latency(dut: Any, params: HeadParams) -> int:
    """Clocks from the last beat of the packet under way to the first beat of its answer."""
    # The receiver holds one packet: it stops being ready in the clock after the last beat.
    await FallingEdge(signal(dut, params, "s_axis_tready"))
    taken = round(get_sim_time("ps"))
    await RisingEdge(signal(dut, params, "m_axis_tvalid"))
    offered = round(get_sim_time("ps"))
    return (offered - taken) // (1000 * CLOCK_NS) + 1


async def measure_interval(bench: Bench, packets: int) -> float:
    """Clocks between answers of the first head, mean over the packets that are queued."""
    times: list[int] = []
    last = None
    while len(times) < packets:
        await bench.answered()
        answer = bench.channels[0].last_answer
        if answer is not None and answer is not last:
            last = answer
            times.append(answer.clocks[-1])
    return (times[-1] - times[0]) / (packets - 1)


@cocotb.test()
async def real_tokens(dut: Any) -> None:
    """Every token is written and queried; every integer of every lane is compared."""
    python_time = PythonTime()
    job = load_job()
    params = HeadParams(**job["params"])
    traces = np.load(job["codes"])  # (heads, tokens, codes)
    q, k, v = (traces[name].tolist() for name in ("q_codes", "k_codes", "v_codes"))
    tokens, starts = len(q[0]), set(job["starts"]) - {0}
    bench = Bench(dut, params, library=False, **job["analog"])
    bench.bridge.keep_phi = range(job["phi_first"], job["phi_first"] + job["phi_count"])
    await bench.start()
    if params.refresh:
        control = {"enable": 1, "refresh_enable": 1}
        await bench.registers.write("control", **control)

    tag_limit = 2**params.tag_bits

    def send(token: int) -> None:
        for head in range(params.heads):
            if token in starts:  # of a text of its own
                bench.send(Command.FLUSH, 0, head=head)
            codes = {"k": k[head][token], "v": v[head][token], "q": q[head][token]}
            bench.send(Command.WRITE_QUERY, token % tag_limit, head=head, **codes)

    if job["stall_probability"]:
        bench.stall(job["seed"], job["stall_probability"])
    progress = Path(job["progress"])
    clocks, start = bench.bridge.clocks, time.perf_counter()
    python_s = python_time.seconds()
    reported = start
    in_a_row = range(tokens - 1 - IN_A_ROW, tokens - 1)
    for token in range(in_a_row.start):
        await bench.ahead(AHEAD)
        send(token)
        if time.perf_counter() - reported > 0.5:
            reported = time.perf_counter()
            progress.write_text(str(bench.answers // params.heads), encoding="utf-8")
    await bench.drain()
    python_s = python_time.seconds() - python_s
    seconds = time.perf_counter() - start
    clocks = bench.bridge.clocks - clocks

    # The last tokens, no stream stalling: some in a row for the interval, then one alone for its
    # latency and its waveform.
    bench.go()
    if params.refresh:
        await bench.registers.write("control", enable=1, refresh_enable=0)
    for token in in_a_row:
        send(token)
    interval = await measure_interval(bench, len(in_a_row))
    await bench.drain()
    wave = cocotb.start_soon(record_wave(dut, params, Path(job["wave"]), job["wave_clocks"]))
    send(tokens - 1)
    latency = await measure_latency(dut, params)
    await wave
    await bench.drain()
    np.save(job["phi"], np.array(bench.bridge.phi))
    progress.write_text(str(tokens), encoding="utf-8")

    parts_s = {
        "array_model": bench.bridge.model_s,
        "bridge": bench.bridge.bridge_s,
        "functional_model": bench.oracle_s,
    }
    # What is left of Python: drivers, scoreboard, and cocotb's own scheduling of all of it.
    parts_s["stream_drivers"] = python_s - sum(parts_s.values())
    parts_s["simulator"] = seconds - python_s
    shares = {part: part_s / seconds for part, part_s in parts_s.items()}
    figures = {
        "tokens": tokens,
        "answers": bench.answers,
        "lanes_compared": bench.lanes_compared,
        "mismatches": len(bench.mismatches),
        "first_mismatch": bench.mismatches[0] if bench.mismatches else None,
        "latency_clk": latency,
        "interval_clk": interval,
        "clocks": clocks,
        "seconds": seconds,
        "clocks_per_second": clocks / seconds,
        "tokens_per_second": in_a_row.start / seconds,
        "full_scale_lanes": bench.sent.full_scale,
        "time_share": shares,
    }
    write_text_whole(Path(job["figures"]), json.dumps(figures, indent=2) + "\n")
    await bench.check()
    wanted = tokens * params.heads
    assert bench.answers == wanted, f"{bench.answers} answers to {wanted} packets"
