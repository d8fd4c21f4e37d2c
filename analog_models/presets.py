"""Named cells and devices, each with its source."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from analog_models.cell import V_IN_FULL_V, V_MID_V, Cell, PolynomialCell, TabulatedCell
from analog_models.device import CellCurve, ConverterFigures, DevicePreset, Leakage

__all__ = [
    "CELLS",
    "DEVICES",
    "DEVICE_FOLDER",
    "LEVEL_CURRENTS_UA",
    "resolve_cell",
    "resolve_device",
]

DEVICE_FOLDER = Path(__file__).resolve().parent / "devices"  #: simulated devices, one file each

#: Currents at the eight stored levels, read from the published current grid of the 28 nm cell:
#: Leroux et al., Nature Computational Science 5, 813-824 (2025), arXiv 2409.19315.
LEVEL_CURRENTS_UA = (-10.15, -5.78, -2.41, -0.30, 1.24, 3.31, 6.36, 9.97)

CELLS: dict[str, Cell] = {
    # Third-order fit of the 28 nm cell, its polynomial in Vin folded at 0.9 V: Leroux et al.,
    # Nature Computational Science 5, 813-824 (2025), arXiv 2409.19315, and the authors' code.
    "published": PolynomialCell(coefficients=(0.5213636, 13.6122606, -2.6204456, 46.0548378)),
    # Linear cell that the authors train with before the nonlinear one: same source.
    "published-linear": PolynomialCell(coefficients=(0.0, 19.3)),
    # The eight stored levels themselves, free of the fit's error: same source.
    "published-levels": TabulatedCell(np.linspace(0.0, 0.9, 8), LEVEL_CURRENTS_UA),
}
#: The short name of the linear cell.
CELLS["linear"] = CELLS["published-linear"]


def resolve_cell(cell: str | Path | Cell) -> Cell:
    """Return the cell that a preset's name, a path ending ``.npz`` or a cell itself stands for.

    Raises
    ------
    TypeError
        ``cell`` is none of these.
    ValueError
        No preset has this name.
    """
    if isinstance(cell, str | Path):
        if isinstance(cell, str) and cell in CELLS:
            return CELLS[cell]
        if str(cell).endswith(".npz"):
            return TabulatedCell.from_npz(cell)
        names = ", ".join(CELLS)
        raise ValueError(f"cell must be one of {names}, or a path ending .npz, not {cell!r}")
    if isinstance(cell, Cell) and not isinstance(cell, type):
        return cell
    raise TypeError(f"cell must be a preset's name, a path ending .npz or a Cell, not {cell!r}")


_LEROUX = (
    "Leroux et al., Nature Computational Science 5, 813-824 (2025), arXiv 2409.19315; the "
    "temperature of tau is not published and is put at 27 °C"
)


def _published(name: str, cell: CellCurve) -> DevicePreset:
    return DevicePreset(
        name=name,
        source=_LEROUX,
        supply_v=V_IN_FULL_V,
        lsb_ns=1.0,
        levels_v=tuple(np.linspace(0.0, 0.9, 8).tolist()),
        cell=cell,
        leakage=(Leakage(temperature_c=27.0, v_rest_v=V_MID_V, tau_s=5e-3),),
        score_converter=ConverterFigures(saturation_ua=80.0),
        output_converter=ConverterFigures(saturation_ua=40.0),
    )


#: Devices that come from print. What is not published is None. Simulated ones are files.
DEVICES: dict[str, DevicePreset] = {
    "published": _published(
        "published",
        CellCurve(v_mid_v=V_MID_V, coefficients_ua=(0.5213636, 13.6122606, -2.6204456, 46.0548378)),
    ),
    "published-linear": _published(
        "published-linear", CellCurve(v_mid_v=V_MID_V, coefficients_ua=(0.0, 19.3))
    ),
}


def resolve_device(device: str | Path | DevicePreset) -> DevicePreset:
    """Return the device that a preset's name, a path ending ``.json`` or a preset stands for.

    Raises
    ------
    OSError
        The file cannot be read.
    TypeError
        ``device`` is none of these.
    ValueError
        No preset has this name, or the file is refused.
    """
    if isinstance(device, DevicePreset):
        return device
    if not isinstance(device, str | Path):
        raise TypeError(f"device must be a preset's name, a path or a preset, not {device!r}")
    if isinstance(device, str) and device in DEVICES:
        return DEVICES[device]
    simulated = {path.stem: path for path in sorted(DEVICE_FOLDER.glob("*.json"))}
    if isinstance(device, str) and device in simulated:
        return DevicePreset.load(simulated[device])
    if str(device).endswith(".json"):
        return DevicePreset.load(device)
    names = ", ".join([*DEVICES, *simulated])
    raise ValueError(f"device must be one of {names}, or a path ending .json, not {device!r}")
