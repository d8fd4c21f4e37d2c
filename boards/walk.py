"""Nested counters: the order in which an engine visits groups, columns and sub-tiles."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, Value

__all__ = ["Walk", "index_bits"]


def index_bits(count: int) -> int:
    """Bits of an index into so many things; none for one."""
    return (count - 1).bit_length()


class Walk:
    """Counters of which each advances when the one before it wraps.

    Parameters
    ----------
    name
        What the signals are called after.
    limits
        Counts by name, the fastest first.
    """

    def __init__(self, name: str, **limits: int) -> None:
        self._limits = limits
        self._at = {
            key: Signal(index_bits(limit), name=f"{name}_{key}") for key, limit in limits.items()
        }

    def __getitem__(self, key: str) -> Signal:
        """The counter of that name."""
        return self._at[key]

    def at_end(self, key: str) -> Value:
        """A counter has its last value."""
        return self._at[key] == self._limits[key] - 1

    @property
    def last(self) -> Value:
        """Every counter has."""
        last: Value = self.at_end(next(iter(self._limits)))
        for key in list(self._limits)[1:]:
            last &= self.at_end(key)
        return last

    def advance(self, m: Module) -> None:
        """Go on with the next clock; after the last place comes the first."""
        carry: Value | None = None
        for key, counter in self._at.items():
            end = self.at_end(key)
            step = [counter.eq(counter + 1)]
            with m.If(1 if carry is None else carry):
                with m.If(end):
                    m.d.sync += counter.eq(0)
                with m.Else():
                    m.d.sync += step
            carry = end if carry is None else carry & end
