"""Reference of the readout: per lane, the sum over sub-tiles of signed pulse lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hw.params import HeadParams

__all__ = ["Pulses", "Results", "lane_sums", "pack_sums", "pulses", "unpack_sums"]

#: Signed result of every sub-tile and lane, ``[subtile][lane]``, each -count_max .. count_max.
Results = Sequence[Sequence[int]]


class Pulses(NamedTuple):
    """Converter outputs; bit ``subtile * lanes + lane``."""

    sign: int  #: 1 for negative; constant from the clock before the phase to its end
    pulse: tuple[int, ...]  #: one vector for each of the phase's ``readout_clk`` clocks


def pulses(params: HeadParams, results: Results) -> Pulses:
    """Waveforms that carry the given results: a pulse of length abs(result) from the first clock.

    Raises
    ------
    ValueError
        A result is out of range.

    """
    flat = [result for subtile in results for result in subtile]
    for result in flat:
        if not -params.count_max <= result <= params.count_max:
            raise ValueError(
                f"result must be in {-params.count_max}..{params.count_max}, not {result!r}"
            )
    sign = sum((result < 0) << at for at, result in enumerate(flat))
    clocks = tuple(
        sum((abs(result) > clock) << at for at, result in enumerate(flat))
        for clock in range(params.readout_clk)
    )
    return Pulses(sign, clocks)


def lane_sums(results: Results) -> list[int]:
    """Sum of each lane over the sub-tiles."""
    return [sum(lane) for lane in zip(*results, strict=True)]


def pack_sums(params: HeadParams, sums: Sequence[int]) -> int:
    """Sums as a vector of two's complement fields of ``sum_bits``, lane 0 least significant."""
    return sum(value % 2**params.sum_bits << params.sum_bits * i for i, value in enumerate(sums))


def unpack_sums(params: HeadParams, packed: int) -> list[int]:
    """Signed sums of a vector as `pack_sums` makes it."""
    half = 2 ** (params.sum_bits - 1)
    fields = (packed >> params.sum_bits * lane for lane in range(params.lanes))
    return [(field + half) % (2 * half) - half for field in fields]
