"""Reference of the full-scale detector: lanes with a result of the largest magnitude."""

from __future__ import annotations

from hw.params import HeadParams
from sim.reference.readout import Results

__all__ = ["full_scale_lanes"]


def full_scale_lanes(params: HeadParams, results: Results) -> list[bool]:
    """For each lane, whether the result of any of its sub-tiles has the largest magnitude."""
    return [
        max(abs(result) for result in lane) == params.count_max
        for lane in zip(*results, strict=True)
    ]
