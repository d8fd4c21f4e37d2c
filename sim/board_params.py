"""What is built for a board: its target, and the currents of the published cell."""

from __future__ import annotations

from analog_models import AnalogParams
from boards.params import BoardParams, EmulatorParams
from boards.targets import target
from hw.params import HeadParams

__all__ = ["CURRENT_FRACTION", "board_params", "emulator_params", "integer_currents", "levels_of"]

CURRENT_FRACTION = 8  #: fractional bits of a current in µA


def integer_currents(head: HeadParams, fraction: int = CURRENT_FRACTION) -> tuple[int, ...]:
    """Current of every level of the published cell, in units of ``2**-fraction`` µA."""
    fresh = AnalogParams.matching(head).level_currents.fresh
    return tuple(round(float(current) * 2**fraction) for current in fresh)


def emulator_params(
    head: HeadParams, *, multipliers: int = 16, phi_fraction: int = 8
) -> EmulatorParams:
    """Emulated arrays of a head, with so many multipliers for each array, if it can use them."""
    return EmulatorParams(
        head=head,
        currents=integer_currents(head),
        current_fraction=CURRENT_FRACTION,
        phi_fraction=phi_fraction,
        key_multipliers=min(multipliers, head.rows),
        value_multipliers=min(multipliers, head.lanes),
    )


def board_params(name: str) -> BoardParams:
    """What is built for a board.

    Raises
    ------
    ValueError
        No such board; the message lists them.
    """
    board = target(name)
    return board.params(integer_currents(board.head), CURRENT_FRACTION)


def levels_of(head: HeadParams) -> dict[str, int]:
    """S_sat and A_sat in µA: 80 and 40, less in arrays smaller than the published one.

    Currents scale with the array; in a small one results would otherwise never be near full scale.
    """
    return {
        "s_level": max(1, round(80 * min(1.0, head.rows / 64))),
        "a_level": max(1, round(40 * min(1.0, head.columns / 64))),
    }
