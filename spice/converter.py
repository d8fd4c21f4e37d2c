"""The charge-to-pulse converter: a capacitor, a current source, a comparator, a gate.

The capacitor is the integrator: it hangs on the bit line, which a switch has set to the reference
before. Charge that the cells have taken moves the bit line; a current source then moves it back at
a fixed slope, and the time until it crosses the reference is the pulse. Positive charge is charge
that cells took: the bit line is low and a source pulls it up. The signed converter has a sink too,
for charge that cells gave; which of both is switched on follows from the comparator when
conversion starts, a decision of the digital side.

The comparator is late by a few nanoseconds, whatever the charge. The source therefore starts
``lead_ns`` before the gate that lets the pulse out opens; the gate stays open for the longest pulse
and clips all that is longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from spice.library import Capacitor, Transistor
from spice.netlist import Netlist

__all__ = ["OUTPUT_CONVERTER", "SCORE_CONVERTER", "Converter", "add_converter", "converter_draws"]


_DECOUPLING_F = 1e-9  # of each bias line


def _p(w_um: float, l_um: float) -> Transistor:
    return Transistor(device="pfet_01v8", w_um=w_um, l_um=l_um)


def _n(w_um: float, l_um: float) -> Transistor:
    return Transistor(device="nfet_01v8", w_um=w_um, l_um=l_um)


@dataclass(frozen=True, kw_only=True)
class Converter:
    """Sizes, currents and times of a converter.

    Raises
    ------
    ValueError
        A figure is not positive.
    """

    integrator: Capacitor = field(default=Capacitor(w_um=50.0, l_um=50.0))  #: on the bit line
    saturation_ua: float = 80.0  #: of the source: mean current in that gives the longest pulse
    source: Transistor = field(default_factory=lambda: _p(40.0, 0.5))  #: pulls the bit line up
    source_switch: Transistor = field(default_factory=lambda: _p(20.0, 0.15))
    sink: Transistor | None = None  #: pulls it down; None where negative charge gives no pulse
    sink_switch: Transistor = field(default_factory=lambda: _n(10.0, 0.15))
    reset_n: Transistor = field(default_factory=lambda: _n(4.0, 0.15))
    reset_p: Transistor = field(default_factory=lambda: _p(4.0, 0.15))
    pair: Transistor = field(
        default=Transistor(device="pfet_01v8_lvt", w_um=40.0, l_um=0.6)
    )  #: input of the comparator, a symmetrical amplifier
    tail: Transistor = field(default_factory=lambda: _p(20.0, 0.5))
    load: Transistor = field(default_factory=lambda: _n(4.0, 0.6))  #: both mirrors of the pair
    top: Transistor = field(default_factory=lambda: _p(6.0, 0.4))  #: mirror at the supply
    tail_ua: float = 40.0  #: bias of the comparator
    v_logic_v: float = 1.8  #: supply
    v_ref_v: float = 0.6  #: of the bit line
    lsb_ns: float = 1.0  #: one count
    count_max: int = 15  #: longest pulse, in counts, in and out
    lead_ns: float = 1.9  #: from the source's start to the opening of the gate
    sink_lead_ns: float = 2.3  #: the same of the sink

    def __post_init__(self) -> None:
        for name in (
            "saturation_ua",
            "tail_ua",
            "v_logic_v",
            "v_ref_v",
            "lsb_ns",
            "lead_ns",
            "sink_lead_ns",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)!r}")
        if self.count_max < 1:
            raise ValueError(f"count_max must be positive, not {self.count_max!r}")

    @property
    def longest_ns(self) -> float:
        """Longest pulse."""
        return self.count_max * self.lsb_ns

    @property
    def saturation_fc(self) -> float:
        """Charge that gives the longest pulse; 1 µA·ns is 1 fC."""
        return self.saturation_ua * self.longest_ns


#: Between the arrays: phi, no pulse for negative charge.
SCORE_CONVERTER = Converter()
#: Behind array 2: half the current, half the capacitor, both signs.
OUTPUT_CONVERTER = Converter(
    integrator=Capacitor(w_um=50.0, l_um=25.0),
    saturation_ua=40.0,
    source=_p(20.0, 0.5),
    source_switch=_p(10.0, 0.15),
    sink=_n(8.0, 0.5),
    sink_switch=_n(5.0, 0.15),
    lead_ns=2.0,
)

#: Parts of one converter that have mismatch of their own; the bias is shared.
_PARTS = {
    "source": "source",
    "sink": "sink",
    "in": "pair",
    "ref": "pair",
    "la": "load",
    "lb": "load",
    "ma": "load",
    "mb": "load",
    "ta": "top",
    "tb": "top",
    "tail": "tail",
}


def converter_draws(rng: np.random.Generator, converter: Converter) -> dict[str, dict[str, float]]:
    """Mismatch of one converter: independent standard normal draws, in sigmas, by part."""
    sizes = {part: getattr(converter, name) for part, name in _PARTS.items()}
    draws = {part: size.draw(rng) for part, size in sizes.items() if size is not None}
    draws["c"] = {"mm_c": float(rng.standard_normal())}
    return draws


def add_bias(netlist: Netlist, converter: Converter) -> None:
    """Add the bias lines that all converters of a chip share: ideal currents, decoupled lines.

    Without decoupling the first converters that switch would move the lines for all.
    """
    c = converter
    for line, rail in (("btail", "vlogic"), ("bsource", "vlogic"), ("bsink", "0")):
        if line != "bsink" or c.sink is not None:
            netlist.capacitor(line, line, rail, _DECOUPLING_F)
    netlist.current("btail", "btail", "0", c.tail_ua * 1e-6)
    netlist.transistor("btail", c.tail, "btail", "btail", "vlogic", "vlogic")
    # The reference carries a switch like the source's, so that both drop the same.
    netlist.current("bsource", "bsource", "0", c.saturation_ua * 1e-6)
    netlist.transistor("bsource", c.source, "bsource", "bsource", "bsource_s", "vlogic")
    netlist.transistor("bsources", c.source_switch, "bsource_s", "0", "vlogic", "vlogic")
    if c.sink is not None:
        netlist.current("bsink", "vlogic", "bsink", c.saturation_ua * 1e-6)
        netlist.transistor("bsink", c.sink, "bsink", "bsink", "bsink_s", "0")
        netlist.transistor("bsinks", c.sink_switch, "bsink_s", "vlogic", "0", "0")


def add_converter(
    netlist: Netlist,
    converter: Converter,
    name: str,
    *,
    bl: str,
    pulse: str,
    supply: str = "vlogic",
    draws: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Add a converter; bias comes from ``add_bias``.

    Parameters
    ----------
    netlist
        Circuit that it becomes part of.
    converter
        Sizes.
    name
        Distinguishes it from others.
    bl
        Node of the bit line.
    pulse
        Node that is high while the comparator says that charge is left and the gate is open.
    supply
        Node of its own supply.
    draws
        Mismatch by part and parameter, in sigmas; see ``converter_draws``.

    Shared nodes are ``vref``, ``reset`` and ``resetb``, ``sourceb`` (low: source on), ``sink``
    (high: sink on), ``gate`` and, with a sink, ``sign`` (high: charge is negative).
    """
    c, given = converter, draws or {}

    def node(of: str) -> str:
        return f"{of}_{name}"

    def add(part: str, size: Transistor, d: str, g: str, s: str, b: str) -> None:
        netlist.transistor(f"{part}{name}", size, d, g, s, b, given.get(part))

    netlist.mim(f"c{name}", c.integrator, bl, "0", given.get("c", {}).get("mm_c", 0.0))
    add("rn", c.reset_n, bl, "reset", "vref", "0")
    add("rp", c.reset_p, bl, "resetb", "vref", supply)
    add("source", c.source, bl, "bsource", node("ss"), supply)
    add("sources", c.source_switch, node("ss"), "sourceb", supply, supply)
    if c.sink is not None:
        add("sink", c.sink, bl, "bsink", node("sk"), "0")
        add("sinks", c.sink_switch, node("sk"), "sink", "0", "0")
    # Comparator: its output is high while the bit line is below the reference.
    add("tail", c.tail, node("t"), "btail", supply, supply)
    add("in", c.pair, node("a"), bl, node("t"), supply)
    add("ref", c.pair, node("b"), "vref", node("t"), supply)
    add("la", c.load, node("a"), node("a"), "0", "0")
    add("lb", c.load, node("b"), node("b"), "0", "0")
    add("ma", c.load, node("m"), node("a"), "0", "0")
    add("mb", c.load, node("below"), node("b"), "0", "0")
    add("ta", c.top, node("m"), node("m"), supply, supply)
    add("tb", c.top, node("below"), node("m"), supply, supply)
    p, n = _p(1.26, 0.15), _n(0.65, 0.15)

    def inverter(part: str, into: str, out: str) -> None:
        add(f"{part}p", p, out, into, supply, supply)
        add(f"{part}n", n, out, into, "0", "0")

    def nand(part: str, first: str, second: str, out: str) -> None:
        add(f"{part}pa", p, out, first, supply, supply)
        add(f"{part}pb", p, out, second, supply, supply)
        add(f"{part}na", n, out, first, node(part), "0")
        add(f"{part}nb", n, node(part), second, "0", "0")

    inverter("i1", node("below"), node("above"))
    inverter("i2", node("above"), node("low"))
    if c.sink is None:
        left = node("low")
    else:  # charge is left while below and the sign say different things: an exclusive or
        nand("x1", node("low"), "signb", node("xa"))
        nand("x2", node("above"), "sign", node("xb"))
        nand("x3", node("xa"), node("xb"), node("left"))
        left = node("left")
    nand("g", left, "gate", node("pulseb"))
    inverter("o", node("pulseb"), pulse)
