"""The driver's back end of simulated Verilog: a simulator process at the end of a socket."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from cocotb_tests.runner import ROOT, SimulationError, prepare_head, run_simulation
from hw.params import HeadParams
from sim.driver.byte_stream import ByteStreamBackend
from sim.driver.calibrate_job import Connect
from sim.driver.transport import SocketTransport

__all__ = ["SimulatedBackend", "connect_simulated"]

_START_S = 60.0  # in which a simulator that has been built starts


def connect_simulated(simulator: str) -> Connect:
    """Give devices in a simulator to `sim.driver.calibrate_job.run_calibrate`."""
    return lambda params, analog: (
        SimulatedBackend(params, simulator=simulator, **analog),
        f"Verilog and array models on {simulator}",
    )


class SimulatedBackend(ByteStreamBackend):
    """Generated Verilog and stepped array models in a simulator of their own.

    Parameters
    ----------
    params
        Head parameters.
    simulator
        "verilator" or "icarus".
    run_dir
        Folder of the run's log; one of its own, removed when nothing failed, by default.
    analog
        Fields of `analog_models.AnalogParams` that the head's parameters do not give; offsets of
        further heads are drawn with the seeds that follow.

    Raises
    ------
    SimulationError
        The simulator cannot be built or does not start.
    """

    def __init__(
        self,
        params: HeadParams,
        *,
        simulator: str = "icarus",
        run_dir: Path | None = None,
        **analog: Any,
    ) -> None:
        folder = prepare_head(params, simulator)
        self._own_dir = run_dir is None
        if run_dir is None:
            parent = ROOT / "build" / "run"
            parent.mkdir(parents=True, exist_ok=True)
            run_dir = Path(tempfile.mkdtemp(dir=parent, prefix=f"driver-{params.config_hash}-"))
        self._run_dir = run_dir
        self._failure: BaseException | None = None
        with socket.create_server(("127.0.0.1", 0)) as listener:
            job = {
                "params": params.as_dict(),
                "analog": analog,
                "port": listener.getsockname()[1],
            }

            def run() -> None:
                try:
                    run_simulation(
                        folder, simulator, "cocotb_tests.driver_run", job, run_dir=run_dir
                    )
                except BaseException as error:
                    self._failure = error

            self._thread = threading.Thread(target=run, daemon=True)
            self._thread.start()
            connection = self._accept(listener)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A simulator is slow, but loses nothing.
        super().__init__(SocketTransport(connection), retries=20, retry_s=2.0)

    def _accept(self, listener: socket.socket) -> socket.socket:
        listener.settimeout(0.2)
        until = time.monotonic() + _START_S
        while time.monotonic() < until and self._thread.is_alive():
            try:
                return listener.accept()[0]
            except TimeoutError:
                continue
        raise SimulationError(
            f"the simulator did not start; see {self._run_dir / 'run.log'}"
        ) from self._failure

    def close(self) -> None:
        """End the simulation.

        Raises
        ------
        SimulationError
            It failed, at whatever time; the message says where its log is.
        LinkError
            A packet that was sent could not be delivered.
        """
        try:
            super().close()
        finally:
            self._thread.join(_START_S)
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure
            if self._own_dir and not self._thread.is_alive():
                shutil.rmtree(self._run_dir, ignore_errors=True)
