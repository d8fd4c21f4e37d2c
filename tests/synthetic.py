"""Synthetic results of every job, as the jobs write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hw.params import HeadParams

STAMP = {"config_hash": "0123456789ab", "date": "2026-01-02T03:04:05+00:00"}
PARAMS = HeadParams(schedule="streaming").as_dict()


def cosim(**changes: Any) -> dict[str, Any]:
    return {
        "tokens": 1200,
        "lanes_compared": 76800,
        "mismatches": 0,
        "first_mismatch": None,
        "latency_clk": 55,
        "clocks": 64784,
        "seconds": 5.3,
        "clocks_per_second": 12182.0,
        "tokens_per_second": 225.4,
        "seed": 3,
        "model_layer": 10,
        "model_head": 7,
        "text": "<hamlet> & co",
        "simulator": "verilator",
        "stall_probability": 0.1,
        "time_share": {"model": 0.1, "bridge": 0.2, "rest": 0.7},
        "params": PARAMS,
        "tools": {"python": "3.11.7", "pyosys": "0.70"},
        **STAMP,
        **changes,
    }


def area(**changes: Any) -> dict[str, Any]:
    def head(readout: float) -> dict[str, Any]:
        def row(gates: float) -> dict[str, Any]:
            return {
                "cells": round(gates / 2),
                "area_um2": 24 * gates,
                "gate_equivalents": gates,
                "flip_flops": 7,
            }

        blocks = {"receiver": row(4000.0), "readout": row(readout), "glue": row(1.0)}
        return row(4001.0 + readout) | {"config_hash": "0123456789ab", "blocks": blocks}

    return {
        "library": {
            "name": "osu018_stdcells",
            "file": "some.lib",
            "sha256": "ab" * 32,
            "gate_equivalent": "NAND2X1",
            "full_adder": "FAX1",
        },
        "yosys": "0.70",
        "gate_equivalent_um2": 24.0,
        "readouts": {"population": head(15000.0), "counter": head(80000.0)},
        "readout_ratio": 5.333,
        "readout_ratio_target": 4.0,
        "params": PARAMS,
        "tools": {"pyosys": "0.70"},
        **STAMP,
        **changes,
    }


LIBRARY = {
    "name": "osu018_stdcells",
    "files": ["some.lib"],
    "sha256": "ab" * 32,
    "voltage_v": 1.8,
    "temperature_c": 25.0,
    "gate_equivalent": "NAND2X1",
    "gate_equivalent_um2": 24.0,
    "clock_gate": None,
    "fo4_ps": 120.0,
}


def timing(**changes: Any) -> dict[str, Any]:
    """As `make timing` writes it."""
    path = {
        "from": "readout.sum[3]",
        "to": "shot_accumulator.<lane>",
        "blocks": ["readout", "shot_accumulator"],
        "delay_ps": 3900.0,
        "slack_ps": -1.0,
        "stages": [{"cell": "NAND2X1", "instance": f"readout.{n}"} for n in range(21)],
    }
    blocks = {
        name: {"cells": 9, "area_um2": um2, "gate_equivalents": um2 / 24, "slack_ps": 10.0}
        for name, um2 in (("receiver", 1.1e6), ("readout", 0.4e6), ("glue", 0.1e6))
    }
    return {
        "library": LIBRARY,
        "flow": {"clock_ps": 3600.0, "effort": "normal", "hierarchy": "kept"},
        "area_um2": 1.6e6,
        "gate_equivalents": 1.6e6 / 24,
        "cells": 40000,
        "flip_flops": 7000,
        "clock_gates": 0,
        "blocks": blocks | {"ports": {"slack_ps": 3000.0}},
        "fmax_mhz": 250.0,
        "period_ps": 4000.0,
        "slack_ps": -400.0,
        "no_wires": {"fmax_mhz": 300.0, "period_ps": 3333.0, "slack_ps": 267.0},
        "paths": [path],
        "assumptions": {"wires": {"rent": 0.6, "model": "<Donath>"}, "inputs": "at once"},
        "params": PARAMS,
        "tools": {"pyosys": "0.70"},
        **STAMP,
        **changes,
    }


def energy(**changes: Any) -> dict[str, Any]:
    """As `make energy` writes it."""
    parts = {
        "clock_tree": 2000.0,
        "clock_pins": 6000.0,
        "internal": 5000.0,
        "pins": 3000.0,
        "wires": 2500.0,
        "glitches": 1000.0,
        "leakage": 500.0,
    }
    return {
        "library": LIBRARY,
        "flow": {},
        "clock_mhz": 250.0,
        "tokens": 64,
        "clocks": 1280,
        "interval_clk": 20.0,
        "energy_pj": 20000.0,
        "parts": parts,
        "blocks": {"receiver": {"energy_pj": 12000.0}, "readout": {"energy_pj": 8000.0}},
        "phases": {"receive": 900.0, "write": 700.0, "score": 2000.0, "send": 1500.0},
        "idle": {"power_mw": 3.2, "leakage_mw": 0.12, "energy_pj_per_clk": 12.8},
        "sample": {"tokens": 512, "energy_pj": 20200.0, "error": 0.0099},
        "assumptions": {"clock_tree": "a buffer for 20 flip-flops"},
        "params": PARAMS,
        "tools": {"pyosys": "0.70", "verilator": "5.48.0"},
        **STAMP,
        **changes,
    }


def wave() -> dict[str, Any]:
    def high(start: int, clocks: int) -> list[int]:
        return [int(start <= clock < start + clocks) for clock in range(60)]

    pulses = [max(0, 2 ** (20 - clock) - 1) if 9 <= clock < 20 else 0 for clock in range(60)]
    signals = {
        "s_axis_tvalid": (1, high(0, 4)),
        "s_axis_tlast": (1, high(3, 1)),
        "ana_k_write": (1, high(5, 3)),
        "ana_v_write": (1, high(9, 3)),
        "ana_integrate": (1, high(9, 12)),
        "ana_q_pulse": (64, pulses),
        "ana_convert": (1, high(22, 12)),
        "ana_readout": (1, high(35, 12)),
        "ana_column_mask": (8, [3] * 60),
        "m_axis_tvalid": (1, high(49, 5)),
    }
    return {
        "clock_ns": 1,
        "start": 17,
        "signals": [
            {"name": name, "width": width, "values": values}
            for name, (width, values) in signals.items()
        ],
    }


OTHERS: dict[str, Any] = {
    "tokens": {"tokens": 1200, "rank_correlation": 0.96, "phi_correlation": 0.79, **STAMP},
    "mutants": {
        "count": 200,
        "caught": 199,
        "survived": 1,
        "survivors": [{"description": "xor <a>", "mutation": "mutate -mode inv"}],
        "explanations": {"xor <a>": "equivalent"},
        **STAMP,
    },
    "formal": {
        "rows": [
            {
                "property": "equal",
                "method": "induction",
                "depth": 5,
                "seconds": 1.0,
                "status": "proved",
            }
        ],
        **STAMP,
    },
    "bench": {
        "rows": [
            {"name": "one token", "ours_s": 0.001, "reference_s": 0.002, "ratio": 0.5, "limit": 1.0}
        ],
        **STAMP,
    },
}


def store(folder: Path, **results: dict[str, Any]) -> None:
    for name, result in results.items():
        (folder / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
