"""Soak: very many random packets, stalls, resets, register accesses; the host side of the job."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cocotb_tests.cosim import saturation
from cocotb_tests.runner import (
    SIMULATION_TOOLS,
    prepare_head,
    run_folder,
    run_simulation,
    watched,
)
from hw.params import HeadParams
from sim.results import write_result

__all__ = ["run_soak"]


def run_soak(
    params: HeadParams,
    *,
    packets: int,
    seed: int = 0,
    processes: int = 1,
    often: float = 1.0,
    simulator: str = "verilator",
    report_dir: Path | None = None,
    on_stage: Callable[[str], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Send random packets of every kind through a head or layer and its array models.

    One in a hundred is malformed; stalls of every stream change at random, and so do hard resets,
    in mid-packet or after everything has been answered. Meanwhile registers are read and written:
    settings change and soft resets come under traffic, columns are refreshed, self-tests run.
    Every answer is compared, and every counter. Writes ``soak.json``.

    Parameters
    ----------
    params
        Parameters of the head or layer; a small one has more events per second.
    packets
        Packets to send to each head, at least 1 in each process.
    seed
        The same packets, stalls, resets and accesses for the same seed and number of processes.
    processes
        Simulations at a time, each with its share of the packets and a seed of its own.
    often
        By how much more often resets and register accesses come; 1 keeps long runs fast.
    simulator
        "verilator" or "icarus".
    report_dir
        Folder of the report; ``build/report`` by default.
    on_stage, on_progress
        Called with what happens next, and with the number of packets sent so far.

    Returns
    -------
    dict
        The figures, as written to ``soak.json``.

    Raises
    ------
    ValueError
        ``packets`` or ``processes`` is out of range.
    SimulationError
        An answer or a register was wrong, or the simulation failed; nothing is written then.
    """
    if not 1 <= processes <= 64:
        raise ValueError(f"processes must be in 1..64, not {processes!r}")
    if packets < processes:
        raise ValueError(f"packets must be at least {processes}, one a process, not {packets!r}")
    stage = on_stage or (lambda _: None)
    stage(f"building for {simulator}")
    folder = prepare_head(params, simulator)
    stage(f"soak on {simulator}")
    sent = [0] * processes

    def run(process: int) -> dict[str, Any]:
        def progress(packets: int) -> None:
            sent[process] = packets
            if on_progress is not None:
                on_progress(sum(sent))

        with run_folder(f"soak-{simulator}-{params.config_hash}-") as scratch:
            files = {name: scratch / name for name in ("progress", "figures")}
            job = {
                "params": params.as_dict(),
                "seed": seed * processes + process,
                "packets": packets * (process + 1) // processes - packets * process // processes,
                "often": often,
                "analog": saturation(params),
                **{name: str(path) for name, path in files.items()},
            }
            with watched(files["progress"], progress):
                run_simulation(folder, simulator, "cocotb_tests.soak_run", job, run_dir=scratch)
            figures: dict[str, Any] = json.loads(files["figures"].read_text(encoding="utf-8"))
            return figures

    start = time.perf_counter()
    with ThreadPoolExecutor(processes) as pool:
        parts = list(pool.map(run, range(processes)))
    things: Counter[str] = Counter()
    for part in parts:
        things.update(part.pop("things"))
    figures: dict[str, Any] = {name: sum(part[name] for part in parts) for name in parts[0]}
    figures |= {
        "resets": things["hard_reset"] + things["soft_reset"],
        "things": dict(sorted(things.items())),
        "seconds": time.perf_counter() - start,
        "processes": processes,
        "seed": seed,
        "simulator": simulator,
        "params": params.as_dict(),
    }
    write_result(
        "soak",
        figures,
        config_hash=params.config_hash,
        tools=SIMULATION_TOOLS,
        report_dir=report_dir,
    )
    return figures
