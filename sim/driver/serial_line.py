"""A serial port, opened so that it changes no byte."""

from __future__ import annotations

import contextlib
import os
import termios
import tty
from pathlib import Path

from sim.driver.errors import LinkError
from sim.driver.transport import FileTransport

__all__ = ["open_serial"]


def open_serial(path: Path | str, baud: int) -> FileTransport:
    """Open a serial port: raw, eight data bits, no parity, one stop bit, no flow control.

    Parameters
    ----------
    path
        The port's device file, such as ``/dev/ttyUSB0``.
    baud
        Bits per second.

    Raises
    ------
    ValueError
        The system knows no such rate.
    LinkError
        There is no such port, it is no terminal, or it may not be opened.
    """
    rate = getattr(termios, f"B{baud}", None)
    if rate is None:
        known = sorted(
            int(name[1:]) for name in dir(termios) if name[1:].isdigit() and name[0] == "B"
        )
        raise ValueError(f"baud must be one of {', '.join(map(str, known[1:]))}, not {baud!r}")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise LinkError(f"port {str(path)!r} cannot be opened: {error.strerror}") from error
    try:
        tty.setraw(descriptor)
        settings = termios.tcgetattr(descriptor)
        settings[2] |= termios.CLOCAL | termios.CREAD
        settings[2] &= ~(termios.CSTOPB | termios.CRTSCTS)
        settings[4] = settings[5] = rate
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)
        termios.tcflush(descriptor, termios.TCIOFLUSH)
        os.set_blocking(descriptor, True)
    except (OSError, termios.error) as error:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise LinkError(f"port {str(path)!r} is no serial port: {error.args[-1]}") from error
    return FileTransport(descriptor)
