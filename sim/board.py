"""Boards at a serial line: real tokens through them, and a stand-in that needs no board."""

from __future__ import annotations

import os
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from analog_models import AnalogParams, FunctionalHead
from boards.params import BoardParams
from sim.board_params import board_params, levels_of
from sim.driver.byte_stream import ByteStreamBackend, ByteStreamDevice
from sim.driver.driver import Driver
from sim.driver.emulated import EmulatedBackend, EmulatedHead
from sim.driver.errors import DeviceMismatch
from sim.driver.serial_line import open_serial
from sim.driver.transport import FileTransport, Transport
from sim.results import write_result
from sim.tokens import TokenSource, real_tokens

__all__ = ["connect_board", "loopback", "loopback_device", "loopback_port", "run_board"]


def connect_board(params: BoardParams, transport: Transport, **link: Any) -> ByteStreamBackend:
    """Open a session with a board, and refuse one that was built from something else.

    Parameters
    ----------
    params
        What the board must have been built from.
    transport
        The line to it.
    link
        As `ByteStreamBackend` has them.

    Raises
    ------
    DeviceMismatch
        It was built from another configuration, or is no board.
    LinkError
        It does not respond.
    """
    backend = ByteStreamBackend(transport, **link)
    try:
        build = backend.build()
        if build != params.config_hash:
            what = f"configuration {build}" if build else "something that is no board"
            raise DeviceMismatch(
                f"the board's bitstream must be of configuration {params.config_hash}, "
                f"not of {what}: build and load it with `make fpga BOARD=... PROGRAM=1`"
            )
    except BaseException:
        backend.close()
        raise
    return backend


def loopback_device(params: BoardParams) -> ByteStreamDevice:
    """A device that answers as a board of these parameters does, at once."""
    backend = EmulatedBackend(params.emulator)
    backend.credit = params.result_packets
    return ByteStreamDevice(backend, bus_bytes=params.bus_bytes, build=params.config_hash, most=1)


@contextmanager
def loopback_port(params: BoardParams) -> Iterator[str]:
    """A pseudo-terminal that a board seems to be at, as long as the block lasts; gives its path."""
    ours, theirs = os.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    device = loopback_device(params)
    thread = threading.Thread(target=device.serve, args=(FileTransport(ours),), daemon=True)
    thread.start()
    try:
        yield os.ttyname(theirs)
    finally:
        os.close(theirs)
        thread.join(1.0)


def loopback(name: str, on_port: Callable[[str], None]) -> None:
    """Stand in for a board at a pseudo-terminal, until interrupted.

    Raises
    ------
    ValueError
        No such board.
    """
    with loopback_port(board_params(name)) as port:
        on_port(port)
        while True:
            time.sleep(3600.0)


def run_board(
    name: str,
    port: str,
    source: TokenSource,
    *,
    on_progress: Callable[[int], None] | None = None,
    report_dir: Path | None = None,
) -> dict[str, Any]:
    """Send real tokens through a board, compare every integer, write ``board.json``.

    The integers must be those of the emulator's reference; how far they are from the real-valued
    model is reported.

    Parameters
    ----------
    name
        Board that is connected.
    port
        Its serial port.
    source
        Which tokens.
    on_progress
        Called with the number of tokens answered.
    report_dir
        Folder of the report; ``build/report`` by default.

    Raises
    ------
    ValueError
        No such board, or no such baud rate.
    DeviceMismatch
        Its bitstream is of another configuration.
    LinkError
        The port cannot be opened, or the board does not respond.
    """
    params = board_params(name)
    head = params.head
    # The port first: reading the language model takes longer than to see that there is none.
    transport = open_serial(port, params.baud)
    backend = connect_board(params, transport)
    levels = levels_of(head)
    with Driver(backend, head) as driver:
        trace = real_tokens(
            source, q_bits=head.q_bits, kv_bits=head.kv_bits, rows=head.rows, lanes=head.lanes
        )
        driver.recover()
        several = 4 if head.shots else 1
        driver.configure(
            s_levels=(levels["s_level"],) * several, a_levels=(levels["a_level"],) * several
        )
        begun = time.monotonic()
        got = driver.attend(trace.q_codes, trace.k_codes, trace.v_codes, progress=on_progress)
        seconds = time.monotonic() - begun
        status, counters = driver.status(), driver.counters()
    emulated = EmulatedHead(params.emulator)
    real = FunctionalHead(AnalogParams.matching(head))
    mismatches = 0
    distance: list[int] = []
    for token, sums in enumerate(got):
        for model in (emulated, real):
            model.write(trace.k_codes[token], trace.v_codes[token])
        q = trace.q_codes[token]
        mismatches += int((sums != emulated.query(q, **levels).sums).sum())
        distance += np.abs(sums - real.query(q, **levels).sums).tolist()
    figures = {
        "board": name,
        "port": Path(port).name,
        "tokens": len(got),
        "integers_compared": int(got.size),
        "mismatches": mismatches,
        "share_of_sums_equal": distance.count(0) / len(distance),
        "largest_distance": max(distance),
        "seconds": seconds,
        "tokens_per_second": len(got) / seconds,
        "repeated": backend.link.repeated,
        "rejected": backend.link.rejected,
        "occupancy": status.occupancy,
        "refused": counters.refused,
    }
    write_result(
        "board", figures, config_hash=params.config_hash, tools=["numpy"], report_dir=report_dir
    )
    return figures
