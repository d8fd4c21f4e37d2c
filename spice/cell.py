"""The gain cell: six transistors and a capacitor.

::

    wbl --[ write transmission gate: wwl, wwlb ]--+-- store --| C |-- 0
                                                  |
          v_read --[ P, gate = store ]--[ P switch, gate = rwlb ]--+
                                                  |                +-- bl
               0 --[ N, gate = store ]--[ N switch, gate = rwl  ]--+

Both read transistors are of the low-threshold kind and conduct at mid level: what flows out of the
bit line is the difference of two currents, signed, zero where they balance, and rises with the
stored voltage. The switches sit at the bit line. At the rails, where one saves a well, they would
let the channel of the read transistors form and vanish with each pulse, which moves the stored
voltage by up to 0.3 V; here a pulse moves it by a tenth of that, of which 1 to 2 mV stay at most
levels.
The read supply is lower than the logic's. Stored levels far from both logic rails keep the write
transistors well below threshold when off, which is what retention needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from spice.library import Capacitor, Transistor
from spice.netlist import Netlist

__all__ = ["GainCell", "add_cell", "cell_draws"]


@dataclass(frozen=True, kw_only=True)
class GainCell:
    """Sizes and voltages of the cell.

    Raises
    ------
    ValueError
        A size or a voltage is out of its range.
    """

    read_p: Transistor = field(
        default=Transistor(device="pfet_01v8_lvt", w_um=1.68, l_um=1.0)
    )  #: pulls the bit line up
    read_n: Transistor = field(
        default=Transistor(device="nfet_01v8_lvt", w_um=0.42, l_um=1.0)
    )  #: pulls the bit line down
    switch_p: Transistor = field(default=Transistor(device="pfet_01v8", w_um=0.84, l_um=0.15))
    switch_n: Transistor = field(default=Transistor(device="nfet_01v8", w_um=0.42, l_um=0.15))
    write_p: Transistor = field(default=Transistor(device="pfet_01v8_lvt", w_um=0.42, l_um=0.35))
    write_n: Transistor = field(default=Transistor(device="nfet_01v8", w_um=0.42, l_um=0.15))
    storage: Capacitor = field(default=Capacitor(w_um=3.0, l_um=3.0))  #: above the transistors
    v_logic_v: float = 1.8  #: swing of the word lines, and the wells of the write transistors
    v_read_v: float = 1.2  #: supply of the read pair
    v_bl_v: float = 0.6  #: voltage that the converter holds the bit line at
    level_min_v: float = 0.20  #: stored voltage of code 0
    level_max_v: float = 1.04  #: stored voltage of the highest code
    bits: int = 3  #: stored code width

    def __post_init__(self) -> None:
        if not 0 < self.v_read_v <= self.v_logic_v <= 1.95:
            raise ValueError(
                f"v_read_v must be in 0..v_logic_v and v_logic_v at most 1.95, not "
                f"{self.v_read_v!r} and {self.v_logic_v!r}"
            )
        if not 0 < self.v_bl_v < self.v_read_v:
            raise ValueError(f"v_bl_v must be between 0 and v_read_v, not {self.v_bl_v!r}")
        if not 0 <= self.level_min_v < self.level_max_v <= self.v_logic_v:
            raise ValueError(
                f"level_min_v and level_max_v must rise within 0..v_logic_v, not "
                f"{self.level_min_v!r} and {self.level_max_v!r}"
            )
        if not 1 <= self.bits <= 6:
            raise ValueError(f"bits must be in 1..6, not {self.bits!r}")

    @property
    def levels_v(self) -> tuple[float, ...]:
        """Stored voltage of every code, equal steps."""
        top = (1 << self.bits) - 1
        step = (self.level_max_v - self.level_min_v) / top
        return tuple(round(self.level_min_v + code * step, 9) for code in range(top + 1))

    @property
    def half_lsb_v(self) -> float:
        """Half of a step of the stored code."""
        return (self.level_max_v - self.level_min_v) / ((1 << self.bits) - 1) / 2

    @property
    def v_mid_v(self) -> float:
        """Middle of the stored range, where the write bit line rests."""
        return (self.level_min_v + self.level_max_v) / 2


def add_cell(
    netlist: Netlist,
    cell: GainCell,
    name: str,
    *,
    store: str,
    bl: str,
    rwl: str = "rwl",
    rwlb: str = "rwlb",
    wbl: str = "wbl",
    wwl: str = "wwl",
    wwlb: str = "wwlb",
    supply: str = "vread",
    draws: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Add a cell; the wells of its write transistors are at the node ``vlogic``.

    Parameters
    ----------
    netlist
        Circuit that it becomes part of.
    cell
        Sizes.
    name
        Distinguishes it from others.
    store, bl, rwl, rwlb, wbl, wwl, wwlb, supply
        Nodes: storage, bit line, read word lines, write bit line, write word lines, read supply.
    draws
        Mismatch by transistor ("p", "n", "ps", "ns", "wp", "wn") and parameter, in sigmas.
    """
    given = draws or {}
    p, n = f"p_{name}", f"n_{name}"

    def add(key: str, size: Transistor, drain: str, gate: str, source: str, bulk: str) -> None:
        netlist.transistor(f"{key}{name}", size, drain, gate, source, bulk, given.get(key))

    add("p", cell.read_p, p, store, supply, supply)
    add("ps", cell.switch_p, bl, rwlb, p, supply)
    add("n", cell.read_n, n, store, "0", "0")
    add("ns", cell.switch_n, bl, rwl, n, "0")
    add("wp", cell.write_p, store, wwlb, wbl, "vlogic")
    add("wn", cell.write_n, store, wwl, wbl, "0")
    netlist.mim(f"c{name}", cell.storage, store, "0")


def cell_draws(rng: np.random.Generator, cell: GainCell) -> dict[str, dict[str, float]]:
    """Mismatch of one cell: independent standard normal draws of every parameter that varies."""
    sizes = {
        "p": cell.read_p,
        "n": cell.read_n,
        "ps": cell.switch_p,
        "ns": cell.switch_n,
        "wp": cell.write_p,
        "wn": cell.write_n,
    }
    return {key: size.draw(rng) for key, size in sizes.items()}
