"""Reference of the window: the columns that hold a token, from the history of writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hw.params import HeadParams

__all__ = ["Event", "WindowState", "window_state"]

Event = Literal["write", "flush"]


@dataclass(frozen=True, kw_only=True)
class WindowState:
    """The window after some history."""

    next_column: int  #: column that the next token goes to, 0 .. window - 1
    valid: tuple[int, ...]  #: columns that hold a token, oldest first

    @property
    def occupancy(self) -> int:
        """Tokens held, 0 .. window."""
        return len(self.valid)


def window_state(params: HeadParams, history: Iterable[Event]) -> WindowState:
    """State after a history that began with an empty window.

    Parameters
    ----------
    params
        The head; columns are numbered ``subtile * columns + column``.
    history
        Writes and flushes, in order.

    """
    written = 0
    for event in history:
        written = 0 if event == "flush" else written + 1
    oldest = max(0, written - params.window)
    return WindowState(
        next_column=written % params.window,
        valid=tuple(token % params.window for token in range(oldest, written)),
    )
