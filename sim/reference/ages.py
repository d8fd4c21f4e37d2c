"""Reference of the ages: remembers when each column was written, and when each part was begun."""

from __future__ import annotations

from typing import Literal

from hw.params import HeadParams
from sim.reference.window import Event, WindowState, window_state

__all__ = ["TokenAges"]


class TokenAges:
    """Ages of a window's columns, exact ones and the bounds that the hardware keeps.

    A *part* is what shares a counter: a sub-tile's columns that are no sinks, or the sinks. Part
    ``subtiles`` is the sinks'.

    Parameters
    ----------
    params
        The head.

    """

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.now = 0  #: ticks that have been
        self.sinks = 0  #: sinks of this sequence
        self.refresh_column = 0  #: column that is refreshed next
        self._elapsed = 0
        self._clear()

    def _clear(self) -> None:
        self._history: list[Event] = []
        self._written: dict[int, int] = {}  # by column: tick of its last write or rewrite
        self._since: dict[int, int] = {}  # by part: no column was written before this tick
        self._begun = {"write": 0, "refresh": 0}  # tick of the first write to this part
        self._lap: set[int] = set()  # columns written since the pointer entered their part
        self.refresh_column = 0

    def clock(
        self,
        *,
        age_tick: int,
        sinks: int = 0,
        event: Literal["write", "refresh", "flush"] | None = None,
    ) -> None:
        """One clock, in which a column was written or refreshed or the window flushed."""
        if self._elapsed >= age_tick:
            self._elapsed = 0
            self.now += 1
        else:
            self._elapsed += 1
        if not self._written:
            self.sinks = sinks
        if event == "flush":
            self._clear()
        elif event == "write":
            self._write()
        elif event == "refresh":
            self._refresh()

    def _write(self) -> None:
        column = self.state.next_column
        part = self.part(column)
        self._history.append("write")
        if not self.members(part):
            self._since[part] = self.now
        self._written[column] = self.now
        if column == self._columns(part)[0]:
            self._begun["write"] = self.now
            self._lap = set()
        self._lap.add(column)
        if column == self._columns(part)[-1]:
            self._complete(part, "write")
            self._lap = set()

    def _refresh(self) -> None:
        column = self.refresh_column
        part = self.part(column)
        self._written[column] = self.now
        if column == self.members(part)[0]:
            self._begun["refresh"] = self.now
        if column == self.members(part)[-1]:
            self._complete(part, "refresh")
        self.refresh_column = 0 if self.refresh_last else column + 1

    def _complete(self, part: int, kind: str) -> None:
        self._since[part] = max(self._since[part], self._begun[kind])

    @property
    def state(self) -> WindowState:
        """State of the window."""
        return window_state(self.params, self._history, sinks=self.sinks)

    @property
    def refresh_last(self) -> bool:
        """No valid column follows the one that is refreshed next."""
        return self.refresh_column + 1 == self.state.occupancy

    def part(self, column: int) -> int:
        """What a column shares its counter with."""
        return self.params.subtiles if column < self.sinks else column // self.params.columns

    def _columns(self, part: int) -> list[int]:
        return [column for column in range(self.params.window) if self.part(column) == part]

    def members(self, part: int) -> list[int]:
        """Columns of a part that hold a token."""
        return [column for column in self._columns(part) if column in self._written]

    def _saturated(self, age: int) -> int:
        return min(age, (1 << self.params.age_bits) - 1)

    def age(self, column: int) -> int:
        """Age of a column that holds a token, in ticks."""
        return self._saturated(self.now - self._written[column])

    def part_bound(self, part: int) -> int:
        """Bound of the ages of a part's columns, 0 if there are none."""
        return self._saturated(self.now - self._since[part]) if self.members(part) else 0

    @property
    def lap_bound(self) -> int | None:
        """Bound of those written since the pointer entered its sub-tile, None if there are none."""
        if not any(column >= self.sinks for column in self._lap):
            return None
        return self._saturated(self.now - self._begun["write"])

    def bound(self, column: int) -> int:
        """Bound of a column's age."""
        bound = self.part_bound(self.part(column))
        lap = self.lap_bound if column in self._lap and column >= self.sinks else None
        return bound if lap is None else min(bound, lap)

    @property
    def oldest_bound(self) -> int:
        """Largest bound of all columns, 0 if none holds a token."""
        return max(self.part_bound(part) for part in range(self.params.subtiles + 1))

    def stale(self, budget: int) -> set[int]:
        """Columns past the budget, as far as their bounds say."""
        return {column for column in self._written if self.bound(column) > budget}
