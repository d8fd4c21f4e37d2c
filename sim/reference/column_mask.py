"""Reference of the column mask: the set of columns that hold a token, as bits."""

from __future__ import annotations

from collections.abc import Iterable

from hw.params import HeadParams

__all__ = ["column_mask"]


def column_mask(params: HeadParams, valid: Iterable[int]) -> int:
    """Mask of the columns that hold a token, one bit each.

    Raises
    ------
    ValueError
        A column is outside the window.

    """
    mask = 0
    for column in valid:
        if not 0 <= column < params.window:
            raise ValueError(f"column must be in 0..{params.window - 1}, not {column!r}")
        mask |= 1 << column
    return mask
