"""The job `gaincell calibrate`: a device of models whose converters have offsets, calibrated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analog_models import AnalogParams
from hw.params import HeadParams
from sim.driver.backend import Backend
from sim.driver.calibration import CalibrationReport
from sim.driver.driver import Driver
from sim.driver.functional import FunctionalBackend
from sim.results import write_result

__all__ = ["Connect", "calibration_figures", "run_calibrate", "sized"]


def sized(params: HeadParams, **more: Any) -> AnalogParams:
    """Arrays of a head's shape; saturation currents scale with it, 80 and 40 µA by default."""
    return AnalogParams.matching(
        params, s_sat_ua=80.0 * params.rows / 64, a_sat_ua=40.0 * params.columns / 64, **more
    )


#: Gives a device, and a few words of what it is.
Connect = Callable[[HeadParams, dict[str, Any]], tuple[Backend, str]]


def _functional(params: HeadParams, analog: dict[str, Any]) -> tuple[Backend, str]:
    arrays = AnalogParams.matching(params, **analog)
    return FunctionalBackend(params, arrays), "functional model"


def calibration_figures(report: CalibrationReport) -> dict[str, Any]:
    """Figures of a calibration, as a result file holds them."""
    figures = dataclasses.asdict(report)
    return figures | {name: figures[name].tolist() for name in ("offsets", "trims")}


def run_calibrate(
    params: HeadParams,
    *,
    sigma: float = 0.6,
    seed: int = 0,
    queries: int = 64,
    held_out: int = 64,
    method: str | None = None,
    report_dir: Path | None = None,
    connect: Connect | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Calibrate a device whose converters have offsets and write ``calibrate.json``.

    Parameters
    ----------
    params
        Head parameters.
    sigma
        Spread of the signed converters' offsets, in counts of one sub-tile.
    seed
        Picks offsets, tokens and queries.
    queries, held_out, method, progress
        As `sim.driver.calibration.calibrate` has them.
    report_dir
        Folder of the report; ``build/report`` by default.
    connect
        Gives a device, and what it is, for head parameters and fields of `AnalogParams`; the
        functional model by default.

    Returns
    -------
    dict
        The figures, as written.

    Raises
    ------
    TypeError, ValueError
        An argument is not of its kind or range, or the device has no trims.
    """
    s_sat_ua, a_sat_ua = sized(params).s_sat_ua, sized(params).a_sat_ua
    backend, device = (connect or _functional)(
        params,
        {
            "s_sat_ua": s_sat_ua,
            "a_sat_ua": a_sat_ua,
            "output_offset_sigma_counts": sigma,
            "offset_seed": seed,
        },
    )
    with Driver(backend, params) as driver:
        report = driver.calibrate(
            sized(params),
            method=method,
            queries=queries,
            held_out=held_out,
            seed=seed,
            progress=progress,
        )
    figures = calibration_figures(report) | {
        "device": device,
        "sigma_counts": sigma,
        "seed": seed,
        "params": params.as_dict(),
    }
    write_result(
        "calibrate",
        figures,
        config_hash=params.config_hash,
        tools=["numpy"],
        report_dir=report_dir,
    )
    return figures
