"""What a campaign measured, as a file beside the preset that was fitted to it.

Every number of a preset follows from these figures, so that anyone can fit again without simulating
and simulate a few again without fitting. Figures are rounded before the fit sees them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["FORMAT", "points_hash", "points_text", "read_points", "rounded"]

FORMAT = "gaincell-points-1"  #: what a file says it is
_DIGITS = 7

Figures = Mapping[str, Mapping[str, Any]]


def rounded(got: Figures) -> dict[str, dict[str, Any]]:
    """Figures by experiment and name, numbers cut to seven digits, as arrays."""

    def cut(value: Any) -> Any:
        return np.vectorize(lambda x: float(f"{x:.{_DIGITS}g}"), otypes=[float])(value)

    return {
        experiment: {name: cut(value) for name, value in figures.items()}
        for experiment, figures in got.items()
    }


def points_text(name: str, got: Figures) -> str:
    """Text of the file: rounded figures of one corner, one figure a line."""
    lines = []
    for experiment in sorted(got):
        figures = [
            f"    {json.dumps(figure)}: {json.dumps(np.asarray(value).tolist())}"
            for figure, value in sorted(got[experiment].items())
        ]
        lines.append(f"  {json.dumps(experiment)}: {{\n" + ",\n".join(figures) + "\n  }")
    head = f'  "format": {json.dumps(FORMAT)},\n  "name": {json.dumps(name)},\n'
    return "{\n" + head + ",\n".join(lines) + "\n}\n"


def points_hash(text: str) -> str:
    """Hash that the preset's provenance holds."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_points(path: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """Figures by experiment and name, and the hash of the file.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is none of this format.
    """
    text = path.read_text(encoding="utf-8")
    content = json.loads(text)
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise ValueError(f"{path.name}: format must be {FORMAT!r}")
    content.pop("name")
    figures = {
        experiment: {name: np.asarray(value) for name, value in own.items()}
        for experiment, own in content.items()
    }
    return figures, points_hash(text)
