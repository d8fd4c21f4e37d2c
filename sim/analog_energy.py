"""Analog energy of a token: of real tokens, and of operands chosen beside the published figures."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from analog_models import AnalogParams, BatchedHead
from analog_models.device import DevicePreset
from analog_models.energy import PUBLISHED_DAC_PJ, mean_pulse_ns, token_energy
from analog_models.of_device import head_of_device
from analog_models.presets import resolve_device
from sim.results import write_result
from sim.tokens import TokenSource, real_tokens

__all__ = ["PUBLISHED_PJ", "REAL", "run_energy"]

REAL = "real tokens"  #: operands of a language model, those that a figure of ours is of
QUERIES = 256  #: of each kind of operands

#: Leroux et al., Nat. Comput. Sci. 5, 813-824 (2025): one head of 1024 x 64, one token.
PUBLISHED_PJ = {"integrate_pj": 1120.0, "drive_pj": 700.0, "write_pj": PUBLISHED_DAC_PJ}


def run_energy(device: str = "published", *, report_dir: Path | None = None) -> dict[str, Any]:
    """Write ``analog_energy.json``: energy by phase for operands of several kinds.

    Of other devices than the published one the file is ``analog_energy_DEVICE.json``.

    Real tokens: a window that real tokens of a language model filled, and the queries of the tokens
    after them; this is the figure that is predicted. Uniform: every query code and every level
    equally often. Matched: levels as before, query codes scaled and phi pulses drawn so that their
    means are those at which the published energies of the two products come out: solved from the
    published figures, it says what they imply and confirms nothing.

    Parameters
    ----------
    device
        Preset's name or path.
    report_dir
        Folder to write to; ``build/report`` of this checkout by default.
    """
    preset = resolve_device(device)
    params = head_of_device(preset, spread=0.0)
    rng = np.random.default_rng(20251125)
    k, v = (
        rng.integers(0, params.dac.levels, (params.window, n)) for n in (params.rows, params.lanes)
    )
    q = rng.integers(0, params.q_max + 1, (QUERIES, params.rows))
    head = BatchedHead(params)
    head.write(k, v)
    shape = {"subtiles": params.subtiles}
    rows = [_real_row(preset, params)]
    phi = head.phi_clk(q)
    uniform = token_energy(preset, q, k, v, phi, **shape)
    rows.append(_row("uniform", uniform, q, phi, preset.lsb_ns))
    if preset.name == "published":
        cells = params.window * params.rows
        means = [
            mean_pulse_ns(preset, PUBLISHED_PJ[name], cells) / preset.lsb_ns
            for name in ("integrate_pj", "drive_pj")
        ]
        # Binomial codes: means and spreads of pulses that are mostly short.
        q = rng.binomial(params.q_max, means[0] / params.q_max, q.shape)
        phi = rng.binomial(params.q_max, means[1] / params.q_max, (len(q), params.window))
        matched = token_energy(preset, q, k, v, phi, **shape)
        rows.append(_row("matched", matched, q, phi, preset.lsb_ns))
    figures = {"device": preset.name, "published": PUBLISHED_PJ, "rows": rows}
    text = json.dumps([preset.to_json(), dataclasses.asdict(uniform)], sort_keys=True)
    config_hash = hashlib.sha256(text.encode()).hexdigest()[:12]
    name = "analog_energy" if preset.name == "published" else f"analog_energy_{preset.name}"
    write_result(name, figures, config_hash=config_hash, tools=["numpy"], report_dir=report_dir)
    return figures


def _real_row(preset: DevicePreset, params: AnalogParams) -> dict[str, Any]:
    """Energy of real queries in a window that the tokens before them filled."""
    trace = real_tokens(
        TokenSource(tokens=params.window + QUERIES),
        rows=params.rows,
        lanes=params.lanes,
        level_currents_ua=preset.cell_model().current_ua(np.asarray(preset.levels_v)),
    )
    k, v = trace.k_codes[: params.window], trace.v_codes[: params.window]
    q = trace.q_codes[params.window :]
    head = BatchedHead(params)
    head.write(k, v)
    phi = head.phi_clk(q)
    energy = token_energy(preset, q, k, v, phi, subtiles=params.subtiles)
    return _row(REAL, energy, q, phi, preset.lsb_ns)


def _row(name: str, energy: Any, q: Any, phi: Any, lsb_ns: float) -> dict[str, Any]:
    return {
        "operands": name,
        "q_mean_ns": float(np.mean(q)) * lsb_ns,
        "phi_mean_ns": float(np.mean(phi)) * lsb_ns,
        **dataclasses.asdict(energy),
    }
