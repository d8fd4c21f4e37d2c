"""Reference of the code store: what was written last to each column of each array."""

from __future__ import annotations

__all__ = ["CodeCopy"]


class CodeCopy:
    """Codes of one array, packed, by sub-tile and column; and the ones read last."""

    def __init__(self) -> None:
        self._codes: dict[tuple[int, int], int] = {}
        self.out: int | None = None  #: None if the column was never written, or none was read

    def write(self, subtile: int, column: int, codes: int) -> None:
        """Keep a column's codes."""
        self._codes[subtile, column] = codes

    def read(self, subtile: int, column: int) -> None:
        """Read a column's codes."""
        self.out = self._codes.get((subtile, column))
