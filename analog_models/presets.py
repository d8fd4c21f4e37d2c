"""Named cells, each with its source."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from analog_models.cell import Cell, PolynomialCell, TabulatedCell

__all__ = ["CELLS", "LEVEL_CURRENTS_UA", "resolve_cell"]

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
