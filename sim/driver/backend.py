"""What the driver needs of a device, whatever it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["Backend"]


class Backend(Protocol):
    """Packets and registers of one device: a model, a simulation, a board."""

    credit: int  #: answers that may be owed at once; the device has room for as many

    def send_packet(self, head: int, beats: Sequence[int]) -> None:
        """Send a token packet to a head; it may still be under way when this returns.

        Raises
        ------
        LinkError
            An earlier or this packet could not be delivered.
        """

    def deliver(self, timeout_s: float) -> None:
        """Wait until the device has taken every packet that was sent.

        Registers and packets travel apart: a setting that is written after this does not overtake
        them.

        Raises
        ------
        Timeout
            It does not take them in time.
        LinkError
            A packet could not be delivered.
        """

    def receive_packet(self, head: int, timeout_s: float) -> list[int]:
        """Beats of a head's next result packet.

        Raises
        ------
        Timeout
            None came in time.
        LinkError
            The device cannot be reached.
        """

    def read_register(self, address: int) -> int:
        """Value of a 32-bit register.

        Raises
        ------
        RegisterError
            The device refuses it.
        LinkError
            The device cannot be reached.
        """

    def write_register(self, address: int, value: int) -> None:
        """Write a 32-bit register.

        Raises
        ------
        RegisterError
            The device refuses it.
        LinkError
            The device cannot be reached.
        """

    def recover(self) -> None:
        """Start anew after a `LinkError`; answers not yet received are dropped.

        Raises
        ------
        LinkError
            The device cannot be reached.
        """

    def close(self) -> None:
        """Let go of the device; a second time does nothing.

        Raises
        ------
        LinkError
            A packet that was sent could not be delivered.
        """
