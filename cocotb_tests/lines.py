"""Fast looks at signals of the design, for what looks at many of them in every clock.

cocotb makes an object of every value that is read, which costs twenty times what the simulator
needs to tell the value. There is no public way around that; the version of cocotb is pinned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["reader", "watcher"]

_BITS = {"0": False, "1": True}


def watcher(handle: Any) -> Callable[[], bool]:
    """Return what looks at a signal of one bit; raises KeyError if it is neither 0 nor 1."""
    get = handle._handle.get_signal_val_binstr
    bits = _BITS
    return lambda: bits[get()]


def reader(handle: Any) -> Callable[[], int]:
    """Return what reads a signal of any width; raises ValueError if a bit is neither 0 nor 1."""
    get = handle._handle.get_signal_val_binstr
    return lambda: int(get(), 2)
