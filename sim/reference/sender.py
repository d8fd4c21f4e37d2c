"""Reference of the sender: the beats of an answer, and the full-scale lanes each carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hw.packet import PacketError
from hw.params import HeadParams

__all__ = ["Beat", "answer_stream"]


class Beat(NamedTuple):
    """One beat of a result packet."""

    data: int  #: TDATA, 0 .. 2**bus_bits - 1
    last: bool  #: TLAST
    full_scale_lanes: int  #: lanes at full scale among those it carries, 0 .. lanes_per_beat
    saturated: bool = False  #: it is the last of a result of which some lane did not fit its width


def answer_stream(
    params: HeadParams,
    tag: int,
    error: PacketError,
    results: Sequence[int] = (),
    full_scale: Sequence[bool] = (),
    saturated: bool = False,
) -> list[Beat]:
    """Beats of one answer.

    Parameters
    ----------
    params
        The head.
    tag
        0 .. 2**tag_bits - 1.
    error
        NONE for a valid answer; what follows is ignored otherwise.
    results
        One signed result per lane.
    full_scale
        One flag per lane.
    saturated
        Some lane's result did not fit its width; ignored of a head without shots.

    """
    # The layout is all whole bytes: flags, tag, error; then the results, little-endian.
    valid = error is PacketError.NONE
    saturated = saturated and valid and params.shots
    flags = (0 if valid else 1) + (2 if valid and any(full_scale) else 0) + (4 if saturated else 0)
    bus_bytes, slot_bytes = params.bus_bits // 8, params.result_slot_bits // 8
    header = bytes([flags]) + tag.to_bytes(2, "little") + bytes([error])
    chunks = [(header, 0)]
    if valid:
        step = bus_bytes // slot_bytes
        for first in range(0, len(results), step):
            some = slice(first, first + step)
            fields = [value.to_bytes(slot_bytes, "little", signed=True) for value in results[some]]
            chunks.append((b"".join(fields), sum(full_scale[some])))
    end = len(chunks) - 1
    return [
        Beat(int.from_bytes(data, "little"), i == end, lanes, saturated and i == end)
        for i, (data, lanes) in enumerate(chunks)
    ]
