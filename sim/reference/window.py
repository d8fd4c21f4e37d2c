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


def window_state(params: HeadParams, history: Iterable[Event], *, sinks: int = 0) -> WindowState:
    """State after a history that began with an empty window.

    Parameters
    ----------
    params
        The head; columns are numbered ``subtile * columns + column``.
    history
        Writes and flushes, in order.
    sinks
        First tokens of the sequence that stay, the sequence that the history ends with.

    Raises
    ------
    ValueError
        There are more sinks than the head has.

    """
    if not 0 <= sinks <= params.sinks:
        raise ValueError(f"sinks must be in 0..{params.sinks}, not {sinks!r}")
    written = 0
    for event in history:
        written = 0 if event == "flush" else written + 1

    def column(token: int) -> int:
        return token if token < sinks else sinks + (token - sinks) % (params.window - sinks)

    oldest = max(min(sinks, written), written - (params.window - sinks))
    tokens = (*range(min(sinks, written)), *range(oldest, written))
    return WindowState(next_column=column(written), valid=tuple(column(t) for t in tokens))
