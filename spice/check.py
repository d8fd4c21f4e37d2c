"""Checks of the committed presets: fit the committed points again, simulate a sample of them again.

A preset that was edited by hand fails the first, points that no circuit gives fail the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analog_models.device import DevicePreset
from spice import cell_measurements as of_cell
from spice import converter_measurements as of_converter
from spice.characterise import (
    FULL,
    HOT_C,
    QUICK,
    ROOM_C,
    WRITE_WINDOW_NS,
    Campaign,
    decks_hash,
    experiments,
    fit_preset,
)
from spice.ngspice import Experiment
from spice.points import read_points

__all__ = ["Compared", "campaign_of", "points_path", "refit", "sample"]

Floats = NDArray[np.float64]


def points_path(preset: Path) -> Path:
    """File of the points that a preset's file was fitted to."""
    return preset.parent / "points" / preset.name


def campaign_of(preset: DevicePreset) -> Campaign:
    """Campaign that the preset says it comes from.

    Raises
    ------
    ValueError
        There is no such campaign.
    """
    command = preset.provenance.get("command")
    for campaign in (FULL, QUICK):
        if campaign.command == command:
            return campaign
    raise ValueError(f"provenance.command must be of a campaign, not {command!r}")


def _corner(preset: DevicePreset) -> str:
    return preset.name.rpartition("-")[2]


def refit(path: Path) -> tuple[DevicePreset, DevicePreset]:
    """The preset of a file, and what its points and today's circuits make; equal if all is well.

    Only the versions of ngspice and of the models are taken over from the file.
    """
    held = DevicePreset.load(path)
    campaign, corner = campaign_of(held), _corner(held)
    got, digest = read_points(points_path(path))
    provenance = {
        "command": campaign.command,
        "ngspice": held.provenance["ngspice"],
        "sky130": held.provenance["sky130"],
        "decks": decks_hash(experiments(campaign, corner)),
        "points": digest,
        "seed": str(campaign.seed),
    }
    return held, fit_preset(campaign, corner, got, provenance)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One figure of a sample."""

    figure: str  #: experiment and figure
    numbers: int  #: how many were compared
    error: float  #: largest difference, against the largest of the stored values
    limit: float  #: what the error may be

    @property
    def alike(self) -> bool:
        """Whether it may."""
        return self.error <= self.limit


def _part(experiment: Experiment, rng: np.random.Generator) -> tuple[Experiment, int]:
    """One deck of an experiment, whose tables stand one below the other, and its number."""
    deck = int(rng.integers(len(experiment.decks)))
    decks = (experiment.decks[deck],)
    return Experiment(name=experiment.name, decks=decks, reduce=experiment.reduce), deck


def sample(path: Path, *, seed: int = 0, converters: bool = True) -> Iterator[Compared]:
    """Simulate a sample of the points of every experiment again, a few seconds' worth.

    Parameters
    ----------
    path
        File of the preset.
    seed
        Picks the sample.
    converters
        Whether those of converters, most of the time, are among them.

    Yields
    ------
    compared
        Each figure as soon as it has been simulated.

    Raises
    ------
    NgspiceError
        ngspice or the models are missing, or a simulation fails.
    """
    preset = DevicePreset.load(path)
    campaign, corner = campaign_of(preset), _corner(preset)
    held, _ = read_points(points_path(path))
    planned = experiments(campaign, corner)
    rng = np.random.default_rng(seed)
    cell = campaign.cell
    at: dict[str, Any] = {"corner": corner, "temperature_c": ROOM_C}

    def pick(count: int, most: int) -> list[int]:
        return sorted(rng.choice(most, min(count, most), replace=False).tolist())

    def compared(name: str, figure: str, again: Floats, stored: Floats) -> Compared:
        scale = max(float(np.abs(held[name][figure]).max()), 1e-30)
        error = float(np.abs(np.asarray(again) - stored).max()) / scale
        return Compared(figure=f"{name}: {figure}", numbers=stored.size, error=error, limit=2e-3)

    def all_of(
        name: str,
        again: dict[str, Any],
        part: Callable[[str, Floats], Floats] = lambda _, stored: stored,
    ) -> Iterator[Compared]:
        for figure, value in again.items():
            yield compared(name, figure, value, part(figure, np.asarray(held[name][figure])))

    leaks = (f"leakage {temperature_c:g}" for temperature_c in (ROOM_C, HOT_C))
    kinds = ("score", "output") if converters else ()
    transfers = (f"{kind} {what}" for what in ("noise", "transfer") for kind in kinds)
    for name in ("curve", "hot curve", "output conductance", *leaks, *transfers):
        yield from all_of(name, planned[name].run())

    lengths = [*pick(1, len(campaign.pulse_ns) - 1), len(campaign.pulse_ns) - 1]
    again = of_cell.pulses(
        cell,
        v_store_v=campaign.table_v.tolist(),
        pulse_ns=[campaign.pulse_ns[i] for i in lengths],
        **at,
    ).run()
    # Kickback is of the longest pulse, which is in every sample.
    yield from all_of(
        "pulses",
        again,
        lambda figure, stored: stored if "kickback" in figure else stored[..., lengths],
    )

    new = pick(1, len(cell.levels_v))
    again = of_cell.writes(cell, window_ns=WRITE_WINDOW_NS, codes=new, **at).run()
    yield from all_of("writes", again, lambda _, stored: stored[:, new])

    code = pick(1, len(cell.levels_v))
    again = of_cell.noise(cell, codes=code, **at).run()
    yield from all_of(
        "noise", again, lambda figure, stored: stored[code] if stored.ndim == 2 else stored
    )

    again = of_cell.reads(cell, pulse_ns=campaign.pulse_ns[-1], number=2, **at).run()
    yield from all_of("reads", again, lambda _, stored: stored[:, :2])

    part, deck = _part(planned["mismatch"], rng)
    drawn = part.run()["i_ua"]
    first = deck * of_cell.CELLS_PER_DECK
    stored = held["mismatch"]["i_ua"][first : first + len(drawn)]
    yield compared("mismatch", "i_ua", drawn, stored)

    for kind in kinds:
        name = f"{kind} mismatch"
        part, deck = _part(planned[name], rng)
        drawn = part.run()["pulse_ns"]
        first = deck * of_converter.CONVERTERS_PER_DECK
        stored = held[name]["pulse_ns"][first : first + len(drawn)]
        yield compared(name, "pulse_ns", drawn, stored)
