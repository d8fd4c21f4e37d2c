"""Reference of the shot accumulator: a shot's sums, trimmed, weighted, on top of those before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hw.packet import Shot
from hw.params import HeadParams

__all__ = ["ShotResult", "combine", "nothing", "pack_results", "result_limits", "unpack_results"]


class ShotResult(NamedTuple):
    """What a query gives, and what the next shot may be accumulated onto."""

    results: tuple[int, ...]  #: one signed result per lane, ``result_bits`` wide
    full_scale: tuple[bool, ...]  #: per lane, also of the shots that this one is accumulated onto
    saturated: bool  #: some lane did not fit its width, here or in a shot accumulated onto


def nothing(params: HeadParams) -> ShotResult:
    """Return what a shot is accumulated onto if none has counted since reset."""
    return ShotResult((0,) * params.lanes, (False,) * params.lanes, False)


def result_limits(params: HeadParams) -> tuple[int, int]:
    """Smallest and largest result of a lane."""
    half = 2 ** (params.result_bits - 1)
    return -half, half - 1


def combine(
    params: HeadParams,
    sums: Sequence[int],
    full_scale: Sequence[bool],
    *,
    shot: Shot | None = None,
    trims: Sequence[int] | None = None,
    before: ShotResult | None = None,
) -> ShotResult:
    """Result of one valid query.

    It becomes ``before`` of the next, sent or held, unless the query is a self-test's. A refused
    query changes nothing, and a flush neither; after a reset there is no shot before.

    Parameters
    ----------
    params
        The head.
    sums
        Sum of each lane over the sub-tiles.
    full_scale
        For each lane, whether some sub-tile's result has the largest magnitude.
    shot
        How the query is weighted; the plain one by default, and always of a head without shots.
    trims
        Offset of each lane; none by default, and always of a head without trim.
    before
        The last query's result; `nothing` by default.

    Raises
    ------
    ValueError
        A lane's sum, flag or offset is missing or out of range.

    """
    shot = shot or Shot()
    before = before or nothing(params)
    offsets = [0] * params.lanes if trims is None else list(trims)
    largest = params.subtiles * params.count_max
    for name, given in (("sums", sums), ("full_scale", full_scale), ("trims", offsets)):
        if len(given) != params.lanes:
            raise ValueError(f"{name} must hold {params.lanes} lanes, not {len(given)!r}")
    for value in sums:
        if abs(value) > largest:
            raise ValueError(f"sums must be in {-largest}..{largest}, not {value!r}")
    half = 2**params.trim_bits // 2
    for value in offsets:
        if value != 0 and not -half <= value < half:
            raise ValueError(f"trims must be in {-half}..{max(half - 1, 0)}, not {value!r}")
    if shot != Shot() and not params.shots:
        raise ValueError(f"shot must be the plain one of a head without shots, not {shot!r}")

    base, flags, stuck = before if shot.accumulate else nothing(params)
    low, high = result_limits(params)
    exact = [
        (value - offset) * 2**shot.shift + last
        for value, offset, last in zip(sums, offsets, base, strict=True)
    ]
    results = tuple(sorted((low, value, high))[1] for value in exact)
    return ShotResult(
        results=results,
        full_scale=tuple(a or b for a, b in zip(full_scale, flags, strict=True)),
        saturated=stuck or results != tuple(exact),
    )


def pack_results(params: HeadParams, results: Sequence[int]) -> int:
    """Results as a vector of two's complement fields of ``result_bits``, lane 0 lowest."""
    bits = params.result_bits
    return sum(value % 2**bits << bits * lane for lane, value in enumerate(results))


def unpack_results(params: HeadParams, packed: int) -> list[int]:
    """Signed results of a vector as `pack_results` makes it."""
    low, high = result_limits(params)
    fields = (packed >> params.result_bits * lane for lane in range(params.lanes))
    return [(field - low) % (high - low + 1) + low for field in fields]
