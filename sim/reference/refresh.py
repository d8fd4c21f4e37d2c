"""Reference of the refresh scheduler: when a column is asked for, and which."""

from __future__ import annotations

__all__ = ["RefreshRequests"]


class RefreshRequests:
    """Requests of a window of which only the number of tokens is known.

    The valid columns are the first ``occupancy`` ones, numbered ``subtile * columns + column``.
    """

    def __init__(self) -> None:
        self.column = 0  #: column that is asked for
        self.request = False
        self._rewriting = False
        self._clocks = 0  # of the period, that have ended

    def last(self, occupancy: int) -> bool:
        """No valid column follows."""
        return self.column == occupancy - 1

    def clock(
        self,
        *,
        enable: bool,
        period: int,
        occupancy: int,
        flush: bool = False,
        taken: bool = False,
        done: bool = False,
    ) -> None:
        """One clock with these inputs."""
        ends = self._clocks + 1 >= period
        quiet = flush or not occupancy or not enable
        request = not quiet and not taken and (self.request or (ends and not self._rewriting))
        self._clocks = 0 if quiet or ends else self._clocks + 1
        self.request = request
        self._rewriting = (self._rewriting or taken) and not done and not flush
        if flush:
            self.column = 0
        elif done:
            self.column = (self.column + 1) % occupancy
