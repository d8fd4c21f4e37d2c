"""A session of the driver with a simulated board, over a line that may be bad; `board simulate`."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boards.params import BoardParams
from cocotb_tests.board_backend import simulated_board
from cocotb_tests.runner import SIMULATION_TOOLS
from sim.board import connect_board
from sim.board_params import board_params, levels_of
from sim.driver.driver import Driver
from sim.driver.emulated import EmulatedBackend
from sim.driver.errors import DriverError
from sim.driver.transport import Transport
from sim.results import write_result
from sim.tokens import TokenSource, real_tokens

__all__ = ["BadLine", "for_simulation", "run_lossy", "run_session", "simulate_board"]

Codes = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  #: q, k and v of every token
#: Clocks of a bit; few, so that not all simulated time is the line's.
BIT_CLK = 4


class BadLine:
    """A transport that changes bytes in both directions.

    Parameters
    ----------
    line
        The transport beneath.
    share
        Of bytes that are changed.
    seed
        Picks them.
    """

    def __init__(self, line: Transport, share: float, seed: int) -> None:
        self._line, self.share = line, share
        self._random = random.Random(seed)
        self.changed = 0  #: bytes

    def _spoilt(self, data: bytes) -> bytes:
        out = bytearray(data)
        for at in range(len(out)):
            if self._random.random() < self.share:
                out[at] ^= self._random.randrange(1, 256)
                self.changed += 1
        return bytes(out)

    def read(self, timeout_s: float) -> bytes:
        """Bytes that have come."""
        return self._spoilt(self._line.read(timeout_s))

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._line.write(self._spoilt(data))

    def close(self) -> None:
        """Close the line beneath."""
        self._line.close()


def for_simulation(params: BoardParams) -> BoardParams:
    """The same board with a faster line, so that a simulation is not all waiting."""
    return dataclasses.replace(params, clk_hz=1_000_000, baud=1_000_000 // BIT_CLK)


def _configure(driver: Driver) -> None:
    """Levels that fit the head's size."""
    head = driver.params
    levels, several = levels_of(head), 4 if head.shots else 1
    driver.configure(
        s_levels=(levels["s_level"],) * several, a_levels=(levels["a_level"],) * several
    )


def run_session(
    params: BoardParams,
    line: Transport,
    codes: Codes,
    *,
    on_progress: Callable[[int], None] | None = None,
    **link: Any,
) -> dict[str, Any]:
    """Configure, half of the tokens, status, flush, the other half; compare every integer.

    Parameters
    ----------
    params
        The board's.
    line
        Serial line to it.
    codes
        Of the tokens.
    on_progress
        Called with the number of tokens answered.
    link
        As `sim.driver.ByteStreamBackend` has them.
    """
    backend = connect_board(params, line, **link)
    half = len(codes[0]) // 2
    compared = mismatches = largest = 0
    begun = time.monotonic()
    reference = Driver(EmulatedBackend(params.emulator), params.head)
    with Driver(backend, params.head, timeout_s=3600.0) as driver:
        for device in (driver, reference):
            _configure(device)
        for part in (slice(0, half), slice(half, 2 * half)):
            got, wanted = (
                device.attend(
                    *(of[part] for of in codes),
                    restart=False,
                    progress=None
                    if on_progress is None or device is reference
                    else lambda done, start=part.start: on_progress(start + done),
                )
                for device in (driver, reference)
            )
            compared += got.size
            mismatches += int((got != wanted).sum())
            largest = max(largest, int(np.abs(wanted).max()))
            driver.wait_idle()
            seen = {device: (device.status(), device.counters()) for device in (driver, reference)}
            statuses = [seen[device][0].occupancy for device in (driver, reference)]
            counters = [seen[device][1].tokens for device in (driver, reference)]
            if statuses[0] != statuses[1] or counters[0] != counters[1]:
                mismatches += 1
            for device in (driver, reference):
                device.flush()
        driver.wait_idle()
        emptied = driver.status().occupancy == 0
    return {
        "tokens": 2 * half,
        "integers_compared": compared,
        "mismatches": mismatches,
        "largest_result": largest,
        "window_empty_after_flush": emptied,
        "repeated": backend.link.repeated,
        "rejected": backend.link.rejected,
        "seconds": time.monotonic() - begun,
    }


def run_lossy(params: BoardParams, line: BadLine, codes: Codes) -> dict[str, Any]:
    """Send tokens without ever repeating a request: each is answered rightly or is an error.

    After an error host and board are brought in step again, over a line that is good meanwhile.
    """
    share, line.share = line.share, 0.0
    backend = connect_board(params, line, retries=0)
    reference = Driver(EmulatedBackend(params.emulator), params.head)
    good = reported = wrong = 0
    with Driver(backend, params.head, timeout_s=3600.0) as driver:
        for device in (driver, reference):
            _configure(device)
        for q, k, v in zip(*codes, strict=True):
            line.share = share
            try:
                got = driver.write_query(k, v, q)
            except DriverError:
                reported += 1
                line.share = 0.0
                for device in (driver, reference):
                    device.recover()
                    _configure(device)
                continue
            if (got == reference.write_query(k, v, q)).all():
                good += 1
            else:
                wrong += 1
        line.share = 0.0
    return {
        "tokens": len(codes[0]),
        "answered": good,
        "reported": reported,
        "wrong": wrong,
        "bytes_changed": line.changed,
    }


def simulate_board(
    name: str,
    source: TokenSource,
    *,
    simulator: str = "verilator",
    share: float = 0.01,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_progress: Callable[[int], None] | None = None,
    report_dir: Path | None = None,
) -> dict[str, Any]:
    """Simulate a board's top level with real tokens and write ``board_sim.json``.

    A session over a good line; one over a bad line with repetition; tokens over a bad line
    without it.

    Raises
    ------
    ValueError
        No such board.
    SimulationError
        The simulator failed.
    """
    params = for_simulation(board_params(name))
    head = params.head
    trace = real_tokens(
        source, q_bits=head.q_bits, kv_bits=head.kv_bits, rows=head.rows, lanes=head.lanes
    )
    codes = (trace.q_codes, trace.k_codes, trace.v_codes)
    patience_clk = 8 * (params.emulator.query_clk + 20 * BIT_CLK * params.frame_bytes)
    on_stage("building the simulation")
    with simulated_board(params, simulator=simulator, patience_clk=patience_clk) as line:
        on_stage("session")
        session = run_session(params, line, codes, on_progress=on_progress)
        good_bytes = line.bytes
    with simulated_board(params, simulator=simulator, patience_clk=patience_clk) as line:
        on_stage(f"session, {share:.0%} of bytes changed")
        bad = BadLine(line, share, source.seed)
        repeated = run_session(params, bad, codes, on_progress=on_progress, retries=50)
        repeated["bytes_changed"] = bad.changed
    with simulated_board(params, simulator=simulator, patience_clk=patience_clk) as line:
        on_stage("without repetition")
        lossy = run_lossy(params, BadLine(line, share, source.seed), codes)
    figures = {
        "board": name,
        "simulator": simulator,
        **session,
        "bytes": good_bytes,
        "share_changed": share,
        "with_repetition": repeated,
        "without_repetition": lossy,
        "text": source.text,
        "seed": source.seed,
    }
    write_result(
        "board_sim",
        figures,
        config_hash=params.config_hash,
        tools=SIMULATION_TOOLS,
        report_dir=report_dir,
    )
    return figures
