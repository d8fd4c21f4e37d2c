"""Co-simulation of real tokens: prepares, runs and reports; the host side of `gaincell cosim`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocotb_tests.runner import (
    SIMULATION_TOOLS,
    SimulationError,
    prepare_head,
    run_folder,
    run_simulation,
    watched,
)
from hw.params import HeadParams
from sim.attention_map import draw_attention_map
from sim.results import ROOT, write_result, write_text_whole
from sim.tokens import TokenTrace

__all__ = ["run_cosim"]

#: First query of the attention picture, and how many; moved forward if the run is shorter.
PHI_TOKENS = (600, 48)


def _by_token(
    phi: NDArray[np.float64], first: int, tokens: int, window: int
) -> NDArray[np.float64]:
    """Phi of the queries from ``first`` on, by token instead of by column; (tokens, tokens)."""
    by_token = np.zeros((tokens, tokens))
    for query, columns in enumerate(phi, start=first):
        seen = np.arange(max(0, query - window + 1), query + 1)
        by_token[query, seen] = columns[seen % window]
    return by_token


def run_cosim(
    params: HeadParams,
    trace: TokenTrace,
    *,
    simulator: str = "verilator",
    stall_probability: float = 0.0,
    decay_per_token: float = 0.0,
    report_dir: Path | None = None,
    on_stage: Callable[[str], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Send every token of a trace through the generated Verilog and the array model.

    Each token is written and queried in one packet; every integer of every lane of its answer is
    compared with the functional model. Writes ``cosim.json``, ``wave.json`` and
    the picture ``attention.png``, whose pulses are those of the array model in the run.

    Parameters
    ----------
    params
        Head parameters.
    trace
        Codes of real tokens, at least one.
    simulator
        "verilator" or "icarus".
    stall_probability
        Share of clocks, 0 <= p < 1, in which either stream stalls.
    decay_per_token
        Share of the stored deviation lost per token.
    report_dir
        Folder of the report; ``build/report`` by default.
    on_stage
        Called with what happens next, in a few words.
    on_progress
        Called with the number of tokens answered so far.

    Returns
    -------
    dict
        The figures, as written to ``cosim.json``.

    Raises
    ------
    ValueError
        ``stall_probability`` is out of range.
    SimulationError
        The simulation failed or an integer differs; nothing is written then but the figures of
        a run that ended with mismatches.
    """
    if not 0.0 <= stall_probability < 1.0:
        raise ValueError(f"stall_probability must be in 0 <= p < 1, not {stall_probability!r}")
    report = report_dir or ROOT / "build" / "report"
    stage = on_stage or (lambda _: None)
    stage(f"building for {simulator}")
    folder = prepare_head(params, simulator)
    stage(f"co-simulation on {simulator}")
    with run_folder(f"cosim-{simulator}-{params.config_hash}-") as scratch:
        codes = scratch / "codes.npz"
        np.savez(codes, q_codes=trace.q_codes, k_codes=trace.k_codes, v_codes=trace.v_codes)
        files = {key: scratch / key for key in ("wave", "progress", "figures", "phi.npy")}
        first, count = PHI_TOKENS
        first = max(0, min(first, len(trace.q_codes) - count))
        job = {
            "params": params.as_dict(),
            "codes": str(codes),
            "seed": trace.source.seed,
            "stall_probability": stall_probability,
            "decay_per_token": decay_per_token,
            "wave_clocks": 92,
            "phi_first": first,
            "phi_count": count,
            **{path.stem: str(path) for path in files.values()},
        }
        failure: SimulationError | None = None
        try:
            with watched(files["progress"], on_progress):
                run_simulation(folder, simulator, "cocotb_tests.cosim_run", job, run_dir=scratch)
        except SimulationError as error:
            failure = error
            if not files["figures"].exists():
                raise
        figures = json.loads(files["figures"].read_text(encoding="utf-8"))
        wave = files["wave"].read_text(encoding="utf-8")
        phi = np.load(files["phi.npy"])
        figures |= {
            "seed": trace.source.seed,
            "model": "SmolLM2-135M-Instruct",
            "model_layer": trace.source.layer,
            "model_head": trace.source.head,
            "text": trace.source.text,
            "simulator": simulator,
            "stall_probability": stall_probability,
            "decay_per_token": decay_per_token,
            "params": params.as_dict(),
        }
        write_result(
            "cosim",
            figures,
            config_hash=params.config_hash,
            tools=SIMULATION_TOOLS,
            report_dir=report,
        )
        write_text_whole(report / "wave.json", wave)
        if failure is not None:
            raise failure
    draw_attention_map(
        report / "attention.png",
        trace,
        _by_token(phi, first, len(trace.q_codes), params.window),
        window=params.window,
        first=first,
        count=len(phi),
    )
    return figures
