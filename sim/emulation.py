"""The job `gaincell board compare`: emulated integers against the real-valued model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from analog_models import AnalogParams, FunctionalHead
from boards.params import EmulatorParams
from sim.board_params import board_params, levels_of
from sim.driver.emulated import EmulatedHead
from sim.results import write_result
from sim.tokens import TokenSource, real_tokens

__all__ = ["compare", "run_compare"]


def compare(
    params: EmulatorParams,
    source: TokenSource,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Distance of the emulated counts from the real-valued model's, on real tokens.

    Every token is written and queried; every count of a sub-tile that holds a token is compared.

    Returns
    -------
    dict
        Counts compared; how often each difference occurs; shares that are equal and within one.
    """
    head = params.head
    trace = real_tokens(
        source, q_bits=head.q_bits, kv_bits=head.kv_bits, rows=head.rows, lanes=head.lanes
    )
    levels = levels_of(head)
    analog = AnalogParams.matching(head)
    emulated, real = EmulatedHead(params), FunctionalHead(analog)
    converter = analog.output_converter_of(levels["a_level"])
    differences: dict[int, int] = {}
    sums_equal = sums = 0
    for token in range(len(trace.q_codes)):
        q, k, v = trace.q_codes[token], trace.k_codes[token], trace.v_codes[token]
        for model in (emulated, real):
            model.write(k, v)
        got = emulated.counts(q, **levels)
        wanted = converter.counts(real.charges(real.phi_clk(q, s_level=levels["s_level"])))
        filled = -(-emulated.occupancy // head.columns)
        values, times = np.unique((got - wanted)[:filled], return_counts=True)
        for value, count in zip(values.tolist(), times.tolist(), strict=True):
            differences[value] = differences.get(value, 0) + count
        sums_equal += int((got.sum(axis=0) == wanted.sum(axis=0)).sum())
        sums += head.lanes
        if on_progress is not None:
            on_progress(token + 1)
    compared = sum(differences.values())
    within = sum(times for value, times in differences.items() if abs(value) <= 1)
    return {
        "tokens": len(trace.q_codes),
        "counts_compared": compared,
        "differences": {str(value): differences[value] for value in sorted(differences)},
        "share_equal": differences.get(0, 0) / compared,
        "share_within_one": within / compared,
        "share_of_sums_equal": sums_equal / sums,
        "current_fraction": params.current_fraction,
        "phi_fraction": params.phi_fraction,
        **levels,
    }


def run_compare(
    name: str,
    source: TokenSource,
    *,
    on_progress: Callable[[int], None] | None = None,
    report_dir: Path | None = None,
) -> dict[str, Any]:
    """Compare a board's emulated arrays with the model and write ``emulation.json``.

    Raises
    ------
    ValueError
        No such board.
    """
    params = board_params(name)
    figures = compare(params.emulator, source, on_progress=on_progress) | {
        "board": name,
        "text": source.text,
        "seed": source.seed,
        "model_layer": source.layer,
        "model_head": source.head,
    }
    write_result(
        "emulation",
        figures,
        config_hash=params.config_hash,
        tools=["numpy"],
        report_dir=report_dir,
    )
    return figures
