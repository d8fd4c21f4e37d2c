"""Netlists from Python: parts are added one by one, sizes become a library, text comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spice.library import Capacitor, Transistor, library_text

__all__ = ["Netlist", "pulse_pwl"]

Points = Sequence[tuple[float, float]]


def pulse_pwl(
    off_v: float, on_v: float, start_ns: float, length_ns: float, edge_ns: float
) -> list[tuple[float, float]]:
    """Corners, in (ns, V), of a pulse whose length is measured at half of its height."""
    half = edge_ns / 2
    stop = start_ns + length_ns
    if length_ns < edge_ns:
        raise ValueError(f"length_ns must be at least the edges' {edge_ns} ns, not {length_ns!r}")
    return [
        (0.0, off_v),
        (start_ns - half, off_v),
        (start_ns + half, on_v),
        (stop - half, on_v),
        (stop + half, off_v),
    ]


class Netlist:
    """A circuit: node names are strings, "0" is ground; sizes in µm, times in ns, volts, farads.

    Parameters
    ----------
    title
        First line of the deck.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.used: set[Transistor | Capacitor] = set()
        self._lines: list[str] = []

    def transistor(
        self,
        name: str,
        size: Transistor,
        drain: str,
        gate: str,
        source: str,
        bulk: str,
        draws: Mapping[str, float] | None = None,
    ) -> None:
        """Add a transistor; ``draws`` are mismatches in standard deviations, by parameter."""
        self.used.add(size)
        given = "".join(f" {key}={value:.6g}" for key, value in (draws or {}).items())
        self._lines.append(f"x{name} {drain} {gate} {source} {bulk} {size.name}{given}")

    def mim(self, name: str, size: Capacitor, plus: str, minus: str, draw: float = 0.0) -> None:
        """Add a MIM capacitor; ``draw`` is its mismatch in standard deviations."""
        self.used.add(size)
        given = f" mm_c={draw:.6g}" if draw else ""
        self._lines.append(f"x{name} {plus} {minus} {size.name}{given}")

    def capacitor(self, name: str, plus: str, minus: str, value_f: float) -> None:
        """Add an ideal capacitor, in farads."""
        self._lines.append(f"c{name} {plus} {minus} {value_f:.6g}")

    def resistor(self, name: str, plus: str, minus: str, value_ohm: float) -> None:
        """Add an ideal resistor, in ohms."""
        self._lines.append(f"r{name} {plus} {minus} {value_ohm:.6g}")

    def voltage(self, name: str, plus: str, minus: str, value: float | Points) -> None:
        """Add a voltage source: volts, or corners of its course in (ns, V)."""
        self._source("v", name, plus, minus, value)

    def current(self, name: str, plus: str, minus: str, value: float | Points) -> None:
        """Add a current source from plus through itself to minus: amperes, or (ns, A)."""
        self._source("i", name, plus, minus, value)

    def _source(self, kind: str, name: str, plus: str, minus: str, value: float | Points) -> None:
        if isinstance(value, int | float):
            course = f"dc {value:.9g}"
        else:
            corners = " ".join(f"{time:.9g}n {level:.9g}" for time, level in value)
            course = f"dc {value[0][1]:.9g} pwl({corners})"
        self._lines.append(f"{kind}{name} {plus} {minus} {course}")

    def line(self, text: str) -> None:
        """Add a line as it is: a behavioural source, an initial condition, a measurement."""
        self._lines.append(text)

    def text(
        self, *, corner: str = "tt", temperature_c: float = 27.0, options: Sequence[str] = ()
    ) -> str:
        """The circuit as a deck, models included, without an analysis."""
        return "\n".join(
            [
                f"* {self.title}",
                library_text(self.used, corner).rstrip(),
                *(f".option {option}" for option in options),
                f".temp {temperature_c:g}",
                *self._lines,
                "",
            ]
        )
