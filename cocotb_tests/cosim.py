"""Co-simulation of real tokens: prepares, runs and reports; the host side of `gaincell cosim`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
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
from hw.presets import PRESETS
from sim.attention_map import draw_attention_map
from sim.results import ROOT, write_result, write_text_whole
from sim.tokens import TokenSource, TokenTrace, layer_sources, real_tokens

__all__ = ["run_cosim", "run_every_cosim", "saturation", "traces_of"]

#: First query of the attention picture, and how many; less if the run is shorter.
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


def saturation(params: HeadParams) -> dict[str, float]:
    """Saturation currents, µA: the published ones, less in arrays smaller than the published one.

    Currents scale with the array; in a small one results would otherwise never be near full scale.
    """
    return {
        "s_sat_ua": 80.0 * min(1.0, params.rows / 64),
        "a_sat_ua": 40.0 * min(1.0, params.columns / 64),
    }


def traces_of(params: HeadParams, source: TokenSource) -> list[TokenTrace]:
    """Real tokens for each head: the same ones, as heads of one layer of the model see them."""
    sources = layer_sources(source, params.heads)
    return [
        real_tokens(
            own,
            q_bits=params.q_bits,
            kv_bits=params.kv_bits,
            rows=params.rows,
            lanes=params.lanes,
            also_heads=[other.head for other in sources if other.layer == own.layer],
        )
        for own in sources
    ]


def run_cosim(
    params: HeadParams,
    traces: Sequence[TokenTrace],
    *,
    simulator: str = "verilator",
    stall_probability: float = 0.0,
    decay_per_token: float = 0.0,
    report_dir: Path | None = None,
    on_stage: Callable[[str], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Send every token of a trace through the generated Verilog and the array models.

    Each token is written and queried in one packet; every integer of every lane of its answer is
    compared with the functional model. A head that can refresh does. Writes ``cosim.json``,
    ``wave.json`` and the picture ``attention.png``, whose pulses are those of the first head's
    array model in the run.

    Parameters
    ----------
    params
        Head parameters.
    traces
        Codes of real tokens for each head, equally many.
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
        ``stall_probability`` is out of range, or a head has no trace.
    SimulationError
        The simulation failed or an integer differs; nothing is written then but the figures of
        a run that ended with mismatches.
    """
    if not 0.0 <= stall_probability < 1.0:
        raise ValueError(f"stall_probability must be in 0 <= p < 1, not {stall_probability!r}")
    if len(traces) != params.heads:
        raise ValueError(f"traces must be one for each of {params.heads} heads, not {len(traces)}")
    trace = traces[0]
    report = report_dir or ROOT / "build" / "report"
    stage = on_stage or (lambda _: None)
    stage(f"building for {simulator}")
    folder = prepare_head(params, simulator)
    stage(f"co-simulation on {simulator}")
    with run_folder(f"cosim-{simulator}-{params.config_hash}-") as scratch:
        codes = scratch / "codes.npz"
        names = ("q_codes", "k_codes", "v_codes")
        np.savez(codes, **{name: np.stack([getattr(t, name) for t in traces]) for name in names})
        files = {key: scratch / key for key in ("wave", "progress", "figures", "phi.npy")}
        first, count = PHI_TOKENS
        # Tokens of one context attend to each other.
        context = [*trace.source.starts[1:], len(trace.q_codes)][0]
        count = min(count, context)
        first = max(0, min(first, context - count))
        analog = saturation(params) | {"decay_per_token": decay_per_token}
        job = {
            "params": params.as_dict(),
            "codes": str(codes),
            "seed": trace.source.seed,
            "stall_probability": stall_probability,
            "starts": trace.source.starts,
            "analog": analog,
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
            "analog": analog,
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
        trace.first(first + len(phi)),
        _by_token(phi, first, first + len(phi), params.window),
        window=params.window,
        first=first,
        count=len(phi),
    )
    return figures


def run_every_cosim(
    source: TokenSource,
    *,
    presets: Sequence[str] | None = None,
    simulator: str = "verilator",
    stall_probability: float = 0.1,
    report_dir: Path | None = None,
    on_stage: Callable[[str], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Co-simulate real tokens on every preset; writes ``cosim_all.json`` after each.

    Parameters
    ----------
    source
        Which tokens; the heads of a layer see the same ones.
    presets
        Names; all of them by default, the smallest first.
    simulator, stall_probability, on_stage, on_progress
        As of `run_cosim`.
    report_dir
        Folder of the report; each preset's own files go to a folder in it.

    Yields
    ------
    dict
        Figures of one preset.

    Raises
    ------
    SimulationError
        The simulation of a preset failed; those before it are written.
    """
    report = report_dir or ROOT / "build" / "report"
    stage = on_stage or (lambda _: None)
    names = presets or sorted(PRESETS, key=lambda n: PRESETS[n].heads * PRESETS[n].window)
    figures = (
        "tokens",
        "lanes_compared",
        "mismatches",
        "full_scale_lanes",
        "latency_clk",
        "interval_clk",
        "clocks",
        "seconds",
        "tokens_per_second",
    )
    rows = []
    for name in names:
        params = PRESETS[name]
        result = run_cosim(
            params,
            traces_of(params, source),
            simulator=simulator,
            stall_probability=stall_probability,
            report_dir=report / "cosim" / name,
            on_stage=lambda text, name=name: stage(f"{name}: {text}"),
            on_progress=on_progress,
        )
        row = {"preset": name, "config_hash": params.config_hash, "heads": params.heads}
        rows.append(row | {figure: result[figure] for figure in figures})
        write_result(
            "cosim_all",
            {"rows": rows, "simulator": simulator, "stall_probability": stall_probability},
            config_hash=source.config_hash,
            tools=SIMULATION_TOOLS,
            report_dir=report,
        )
        yield rows[-1]
