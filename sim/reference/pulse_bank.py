"""Reference of the query pulse bank: the word line of a row with code c is high for c clocks."""

from __future__ import annotations

from collections.abc import Sequence

from hw.params import HeadParams

__all__ = ["word_lines"]


def word_lines(params: HeadParams, codes: Sequence[int]) -> list[int]:
    """Word lines in each clock of the integration, the first clock first.

    Parameters
    ----------
    params
        The head.
    codes
        One query code per row, 0 .. 2**q_bits - 1.

    Returns
    -------
    list of int
        ``integrate_clk`` vectors of one bit per row.

    """
    columns = [[1] * code + [0] * (params.integrate_clk - code) for code in codes]
    return [
        sum(column[clock] << row for row, column in enumerate(columns))
        for clock in range(params.integrate_clk)
    ]
