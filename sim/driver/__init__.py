"""Host software: one driver for the functional model, simulated Verilog and boards."""

from hw.packet import PacketError, Shot
from sim.driver.backend import Backend
from sim.driver.byte_stream import ByteStreamBackend, ByteStreamDevice
from sim.driver.driver import Counters, Driver, Identity, Result, Status
from sim.driver.errors import (
    AnswerMismatch,
    DeviceMismatch,
    DriverError,
    EmptyWindow,
    LinkError,
    PacketRefused,
    RegisterError,
    Timeout,
)
from sim.driver.functional import FunctionalBackend
from sim.driver.transport import CallTransport, FileTransport, SocketTransport, Transport

__all__ = [
    "AnswerMismatch",
    "Backend",
    "ByteStreamBackend",
    "ByteStreamDevice",
    "CallTransport",
    "Counters",
    "DeviceMismatch",
    "Driver",
    "DriverError",
    "EmptyWindow",
    "FileTransport",
    "FunctionalBackend",
    "Identity",
    "LinkError",
    "PacketError",
    "PacketRefused",
    "RegisterError",
    "Result",
    "Shot",
    "SocketTransport",
    "Status",
    "Timeout",
    "Transport",
]
