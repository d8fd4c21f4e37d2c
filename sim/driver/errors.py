"""What can go wrong between a host and a device; every failure of the driver is one of these."""

from __future__ import annotations

from hw.packet import PacketError

__all__ = [
    "AnswerMismatch",
    "DeviceMismatch",
    "DriverError",
    "EmptyWindow",
    "LinkError",
    "PacketRefused",
    "RegisterError",
    "Timeout",
]


class DriverError(RuntimeError):
    """A device did not do what it was asked."""


class DeviceMismatch(DriverError):
    """The device is none of ours, or has another configuration than the driver's."""


class PacketRefused(DriverError):
    """The device answered that it has refused a packet.

    Parameters
    ----------
    kind
        Why.
    tag
        Tag of the packet.
    head
        Head that it was sent to.
    """

    def __init__(self, kind: PacketError, *, tag: int, head: int) -> None:
        super().__init__(f"head {head} refused packet {tag}: {kind.name}")
        self.kind, self.tag, self.head = kind, tag, head


class EmptyWindow(PacketRefused):
    """A query found no token in the window."""

    def __init__(self, *, tag: int, head: int) -> None:
        super().__init__(PacketError.EMPTY, tag=tag, head=head)


class AnswerMismatch(DriverError):
    """An answer came that is not owed, out of order, or that is no result packet."""


class Timeout(DriverError):
    """Nothing came in time."""


class RegisterError(DriverError):
    """The device refused a register access: no such register, read-only, or out of range."""


class LinkError(DriverError):
    """The byte stream lost or garbled what could not be repeated often enough."""
