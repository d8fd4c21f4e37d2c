"""Reference of the K/V writer: the column that is written, and the lines that select it."""

from __future__ import annotations

from typing import NamedTuple

from hw.params import HeadParams

__all__ = ["Select", "select_lines", "selected_columns"]


class Select(NamedTuple):
    """Select lines."""

    subtiles: int  #: one bit per sub-tile
    columns: int  #: one bit per column of a sub-tile


def select_lines(params: HeadParams, column: int | None) -> Select:
    """Lines that select a column of the window, 0 .. window - 1, or none."""
    if column is None:
        return Select(0, 0)
    subtile, place = divmod(column, params.columns)
    return Select(2**subtile, 2**place)


def selected_columns(params: HeadParams, select: Select) -> frozenset[int]:
    """Columns of the window whose write word line, the AND of two select lines, is high."""
    return frozenset(
        column
        for column in range(params.window)
        if select.subtiles >> column // params.columns & 1
        and select.columns >> column % params.columns & 1
    )
