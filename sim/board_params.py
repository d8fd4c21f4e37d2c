"""What is built for a board: its target, and the currents of the published cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analog_models import AnalogParams
from analog_models.dac import level_currents
from boards.params import BoardParams, EmulatorParams, Leak
from boards.targets import TARGETS, target
from hw.params import HeadParams
from sim.results import read_result, write_result

__all__ = [
    "CURRENT_FRACTION",
    "board_params",
    "emulator_params",
    "for_simulation",
    "integer_currents",
    "leak_of",
    "levels_of",
    "write_board_result",
]

CURRENT_FRACTION = 8  #: fractional bits of a current in µA


def integer_currents(head: HeadParams, fraction: int = CURRENT_FRACTION) -> tuple[int, ...]:
    """Current of every level of the published cell, in units of ``2**-fraction`` µA."""
    fresh = AnalogParams.matching(head).level_currents.fresh
    return tuple(round(float(current) * 2**fraction) for current in fresh)


def leak_of(
    head: HeadParams, *, tau_clk: float, age_clk: int, steps: int, fraction: int = CURRENT_FRACTION
) -> Leak:
    """Leak of the published cell.

    Parameters
    ----------
    head
        The head.
    tau_clk
        Time constant of the stored deviation, in clocks of the head.
    age_clk
        Clocks of a step of age.
    steps
        Steps that currents are given for.
    fraction
        Fractional bits of a current in µA.
    """
    analog = AnalogParams.matching(head)
    rows = level_currents(
        analog.level_currents.cell,
        analog.dac,
        range(1, steps + 1),
        decay_per_token=age_clk / tau_clk,
    )
    return Leak(
        age_clk=age_clk,
        currents=tuple(tuple(round(float(i) * 2**fraction) for i in row) for row in rows),
    )


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


def for_simulation(params: BoardParams) -> BoardParams:
    """The same board with a faster line, so that a simulation is not all waiting."""
    return dataclasses.replace(params, clk_hz=1_000_000, baud=250_000)


def levels_of(head: HeadParams) -> dict[str, int]:
    """S_sat and A_sat in µA: 80 and 40, less in arrays smaller than the published one.

    Currents scale with the array; in a small one results would otherwise never be near full scale.
    """
    return {
        "s_level": max(1, round(80 * min(1.0, head.rows / 64))),
        "a_level": max(1, round(40 * min(1.0, head.columns / 64))),
    }


def write_board_result(
    name: str,
    figures: Mapping[str, Any],
    config_hash: str,
    tools: Sequence[str],
    *,
    report_dir: Path | None = None,
) -> None:
    """Write a result file of one board, which keeps the others' figures under ``boards``."""
    try:
        others = read_result(name, report_dir).get("boards", [])
    except FileNotFoundError:
        others = []
    rows = [row for row in others if row["board"] != figures["board"]] + [dict(figures)]
    rows.sort(key=lambda row: list(TARGETS).index(row["board"]))
    write_result(
        name,
        {**figures, "boards": rows},
        config_hash=config_hash,
        tools=tools,
        report_dir=report_dir,
    )
