"""Soak: very many random packets, stalls and resets; the host side of `gaincell soak`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    simulator: str = "verilator",
    report_dir: Path | None = None,
    on_stage: Callable[[str], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Send random packets of every kind through a head and its array model.

    One in a hundred is malformed; stalls of both streams change at random, and so do resets, in
    mid-packet or after everything has been answered. Every answer is compared, and every counter.
    Saturation currents are scaled to the array, so that results reach full scale. Writes
    ``soak.json``.

    Parameters
    ----------
    params
        Head parameters; a small head has more events per second.
    packets
        Packets to send, at least 1.
    seed
        The same packets, stalls and resets for the same seed.
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
        ``packets`` is out of range.
    SimulationError
        An answer or a counter was wrong, or the simulation failed; nothing is written then.
    """
    if packets < 1:
        raise ValueError(f"packets must be at least 1, not {packets!r}")
    stage = on_stage or (lambda _: None)
    stage(f"building for {simulator}")
    folder = prepare_head(params, simulator)
    stage(f"soak on {simulator}")
    with run_folder(f"soak-{simulator}-{params.config_hash}-") as scratch:
        files = {name: scratch / name for name in ("progress", "figures")}
        job = {
            "params": params.as_dict(),
            "seed": seed,
            "packets": packets,
            "analog": {
                "s_sat_ua": 80.0 * params.rows / 64,
                "a_sat_ua": 40.0 * params.columns / 64,
            },
            **{name: str(path) for name, path in files.items()},
        }
        with watched(files["progress"], on_progress):
            run_simulation(folder, simulator, "cocotb_tests.soak_run", job, run_dir=scratch)
        figures: dict[str, Any] = json.loads(files["figures"].read_text(encoding="utf-8"))
    figures |= {"seed": seed, "simulator": simulator, "params": params.as_dict()}
    write_result(
        "soak",
        figures,
        config_hash=params.config_hash,
        tools=SIMULATION_TOOLS,
        report_dir=report_dir,
    )
    return figures
