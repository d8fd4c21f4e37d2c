"""Reference of the column mask: the set of columns that take part in a query, as bits."""

from __future__ import annotations

from collections.abc import Iterable

from hw.params import HeadParams

__all__ = ["column_mask"]


def column_mask(params: HeadParams, valid: Iterable[int], stale: Iterable[int] = ()) -> int:
    """Mask of the columns that hold a token, but for the stale ones, one bit each.

    Raises
    ------
    ValueError
        A column is outside the window.

    """
    valid, stale = set(valid), set(stale)
    for column in sorted(valid | stale):
        if not 0 <= column < params.window:
            raise ValueError(f"column must be in 0..{params.window - 1}, not {column!r}")
    return sum(1 << column for column in valid - stale)
