"""The driver's serial line to a simulated board: a simulator process at the end of a socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boards.board import Board
from boards.params import BoardParams
from cocotb_tests.board_run import ORDER, Order
from cocotb_tests.runner import ROOT, SimulationError, build_simulation, run_folder, run_simulation
from sim.driver.errors import LinkError
from synth.verilog import write_component

__all__ = ["SimulatedLine", "prepare_board", "simulated_board"]

_START_S = 60.0  # in which a simulator that has been built starts


def prepare_board(params: BoardParams, simulator: str) -> Path:
    """Generate a board's Verilog and build it; returns the build folder."""
    root = ROOT / "build" / "sim"
    verilog = root / f"board-{params.config_hash}" / "board.v"
    write_component(
        Board(params), "board", verilog, title=f"board, configuration {params.config_hash}"
    )
    return build_simulation(verilog, simulator, root, top="board")


class SimulatedLine:
    """Serial line of a simulated board, as a `sim.driver.Transport`.

    Simulated time passes only while something is read: until bytes have come and the line is
    quiet, or for ``patience_clk``. The time-outs of whoever reads are of another clock, and are
    not looked at.

    Parameters
    ----------
    connection
        Socket to the simulator; `close` closes it.
    patience_clk
        Clocks after which nothing has come.
    """

    def __init__(self, connection: socket.socket, patience_clk: int) -> None:
        self._socket, self.patience_clk = connection, patience_clk
        self.bytes = 0  #: sent and received

    def read(self, timeout_s: float) -> bytes:
        """Bytes that have come."""
        try:
            self._socket.sendall(ORDER.pack(Order.RUN, self.patience_clk))
            count = int.from_bytes(self._take(4), "little")
            self.bytes += count
            return self._take(count)
        except OSError as error:
            raise LinkError(f"the simulator has gone: {error}") from error

    def _take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            if not more:
                raise LinkError("the simulator has gone")
            data += more
        return data

    def write(self, data: bytes) -> None:
        """Send bytes; they leave while something is read."""
        self.bytes += len(data)
        try:
            self._socket.sendall(ORDER.pack(Order.WRITE, len(data)) + data)
        except OSError as error:
            raise LinkError(f"the simulator has gone: {error}") from error

    def close(self) -> None:
        """End the simulation."""
        self._socket.close()


@contextmanager
def simulated_board(
    params: BoardParams, *, simulator: str = "verilator", patience_clk: int = 20_000
) -> Iterator[SimulatedLine]:
    """Run a simulated board as long as the block lasts.

    Raises
    ------
    SimulationError
        The simulator cannot be built, does not start, or its serial line broke the rules.
    """
    folder = prepare_board(params, simulator)
    failures: list[BaseException] = []
    with run_folder(f"board-{params.config_hash}-") as run_dir:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            job = {"bit_clk": params.bit_clk, "port": listener.getsockname()[1]}

            def run() -> None:
                try:
                    run_simulation(
                        folder, simulator, "cocotb_tests.board_run", job, run_dir=run_dir
                    )
                except BaseException as error:
                    failures.append(error)

            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            listener.settimeout(0.2)
            until = time.monotonic() + _START_S
            connection = None
            while connection is None and time.monotonic() < until and thread.is_alive():
                try:
                    connection = listener.accept()[0]
                except TimeoutError:
                    continue
        if connection is None:
            raise SimulationError(f"the simulator did not start; see {run_dir / 'run.log'}")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line = SimulatedLine(connection, patience_clk)
        try:
            yield line
        finally:
            line.close()
            thread.join(_START_S)
        if failures:
            raise failures[0]
