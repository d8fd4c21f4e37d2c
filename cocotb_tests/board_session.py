"""A session of the driver with a simulated board, over a line that may be bad; `board simulate`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boards.params import BoardParams
from cocotb_tests.board_backend import prepare_board, simulated_board
from cocotb_tests.runner import SIMULATION_TOOLS
from sim.board import connect_board
from sim.board_params import board_params, for_simulation, levels_of, write_board_result
from sim.driver.driver import Driver
from sim.driver.emulated import EmulatedBackend
from sim.driver.errors import DriverError
from sim.driver.transport import Transport
from sim.tokens import TokenSource, real_tokens

__all__ = ["BadLine", "run_lossy", "run_session", "simulate_board"]

Codes = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  #: q, k and v of every token


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


def run_lossy(
    params: BoardParams,
    line: BadLine,
    codes: Codes,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
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
        for token, (q, k, v) in enumerate(zip(*codes, strict=True)):
            if on_progress is not None:
                on_progress(token)
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
    """Simulate a board's top level with real tokens; ``board_sim.json`` keeps other boards' rows.

    A session over a good line; if any bytes are to be changed, one over a bad line with
    repetition, and tokens over a bad line without it.

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
    patience_clk = 2 * params.emulator.query_clk + 40 * params.bit_clk * params.frame_bytes
    simulated = partial(simulated_board, params, simulator=simulator, patience_clk=patience_clk)
    on_stage("building the simulation")
    prepare_board(params, simulator)
    on_stage("session")
    with simulated() as line:
        session = run_session(params, line, codes, on_progress=on_progress)
        session["bytes"] = line.bytes
    figures: dict[str, Any] = {
        "board": name,
        "build_hash": params.config_hash,
        "simulator": simulator,
        **session,
        "share_changed": share,
        "text": source.text,
        "seed": source.seed,
    }
    if share:
        on_stage(f"session, {share:.0%} of bytes changed")
        with simulated() as line:
            bad = BadLine(line, share, source.seed)
            repeated = run_session(params, bad, codes, on_progress=on_progress, retries=50)
        figures["with_repetition"] = repeated | {"bytes_changed": bad.changed}
        on_stage("without repetition")
        with simulated() as line:
            bad = BadLine(line, share, source.seed)
            figures["without_repetition"] = run_lossy(params, bad, codes, on_progress=on_progress)
    write_board_result(
        "board_sim", figures, params.config_hash, SIMULATION_TOOLS, report_dir=report_dir
    )
    return figures
