"""What is measured of a charge-to-pulse converter, each as decks and figures from their tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spice.converter import Converter, add_bias, add_converter, converter_draws
from spice.netlist import Netlist, pulse_pwl
from spice.ngspice import Deck, Experiment

__all__ = [
    "CONVERTERS_PER_DECK",
    "comparator_noise",
    "pulse_lengths",
    "transfer",
    "transfer_mismatch",
]

Floats = NDArray[np.float64]
Tables = Sequence[tuple[Floats, ...]]

CONVERTERS_PER_DECK = 8  #: of converters with drawn mismatch
_EDGE_NS = 0.1
_RESET_NS = 2.0  # end of reset
_INTEGRATE_NS = 3.0  # start of the cells' pulse
_WAIT_NS = 2.0  # from its end to the start of the source
_AFTER_NS = 2.0
_OPTIONS = ("reltol=1e-3", "abstol=1e-11", "chgtol=1e-16")


def _start(converter: Converter) -> float:
    return _INTEGRATE_NS + converter.longest_ns + _WAIT_NS


def _stop(converter: Converter) -> float:
    return (
        _start(converter)
        + max(converter.lead_ns, converter.sink_lead_ns)
        + converter.longest_ns
        + _AFTER_NS
    )


def _control(netlist: Netlist, converter: Converter, *, negative: bool) -> None:
    """References and the signals of the digital side, for one conversion."""
    c, high = converter, converter.v_logic_v
    start, stop = _start(c), _stop(c)
    netlist.voltage("logic", "vlogic", "0", high)
    netlist.voltage("ref", "vref", "0", c.v_ref_v)
    edge = [(0.0, 1.0), (_RESET_NS, 1.0), (_RESET_NS + _EDGE_NS, 0.0)]
    netlist.voltage("reset", "reset", "0", [(t, high * v) for t, v in edge])
    netlist.voltage("resetb", "resetb", "0", [(t, high * (1 - v)) for t, v in edge])
    on = stop - 0.5 - start
    if negative:
        netlist.voltage("sourceb", "sourceb", "0", high)
        netlist.voltage("sink", "sink", "0", pulse_pwl(0.0, high, start, on, _EDGE_NS))
    else:
        netlist.voltage("sourceb", "sourceb", "0", pulse_pwl(high, 0.0, start, on, _EDGE_NS))
        netlist.voltage("sink", "sink", "0", 0.0)
    netlist.voltage("sign", "sign", "0", high if negative else 0.0)
    netlist.voltage("signb", "signb", "0", 0.0 if negative else high)
    lead = c.sink_lead_ns if negative else c.lead_ns
    gate = pulse_pwl(0.0, high, start + lead, c.longest_ns, _EDGE_NS)
    netlist.voltage("gate", "gate", "0", gate)
    add_bias(netlist, c)


def _charge(netlist: Netlist, converter: Converter, name: str, bl: str, charge_fc: float) -> None:
    """A current that takes the charge from the bit line over the longest pulse."""
    on = charge_fc / converter.longest_ns * 1e-6
    corners = pulse_pwl(0.0, on, _INTEGRATE_NS, converter.longest_ns, _EDGE_NS)
    netlist.current(f"q{name}", bl, "0", corners)


def pulse_lengths(time_ns: Floats, pulses_v: Floats, threshold_v: float) -> Floats:
    """Time that each column of ``pulses_v`` is above the threshold, edges interpolated, in ns."""
    lengths = np.zeros(pulses_v.shape[1])
    for i, course in enumerate(pulses_v.T):
        above = course > threshold_v
        for k in np.flatnonzero(above[1:] != above[:-1]):
            share = (threshold_v - course[k]) / (course[k + 1] - course[k])
            when = time_ns[k] + share * (time_ns[k + 1] - time_ns[k])
            lengths[i] += when if above[k] else -when
        if above[-1]:
            lengths[i] += time_ns[-1]
    return lengths


def _transfer_deck(
    name: str,
    converter: Converter,
    charges_fc: Sequence[float],
    *,
    corner: str,
    temperature_c: float,
    negative: bool = False,
    draws: Sequence[Any] | None = None,
) -> Deck:
    netlist = Netlist(f"converter: {name}")
    _control(netlist, converter, negative=negative)
    for i, charge in enumerate(charges_fc):
        bl = f"bl{i}"
        netlist.voltage(f"s{i}", f"s{i}", "0", converter.v_logic_v)
        add_converter(
            netlist,
            converter,
            str(i),
            bl=bl,
            pulse=f"y{i}",
            supply=f"s{i}",
            draws=None if draws is None else draws[i],
        )
        _charge(netlist, converter, str(i), bl, charge)
    count = range(len(charges_fc))
    vectors = (*(f"v(y{i})" for i in count), *(f"i(vs{i})" for i in count))
    return Deck(
        name=f"converter: {name}",
        circuit=netlist.text(corner=corner, temperature_c=temperature_c, options=_OPTIONS),
        analyses=((f"tran 0.05n {_stop(converter):g}n 0 0.1n", vectors),),
    )


def _read(converter: Converter, table: Floats) -> tuple[Floats, Floats]:
    """Pulse lengths in ns and energies in pJ of one deck."""
    n = (table.shape[1] - 1) // 2
    time = table[:, 0] * 1e9
    lengths = pulse_lengths(time, table[:, 1 : 1 + n], converter.v_logic_v / 2)
    supply = -table[:, 1 + n :] * converter.v_logic_v
    return lengths, np.trapezoid(supply, table[:, 0], axis=0) * 1e12


def transfer(
    converter: Converter, *, corner: str, temperature_c: float, charge_fc: Sequence[float]
) -> Experiment:
    """Pulse length and energy over the charge; negative charge gives a negative length.

    Figures: ``charge_fc``, ``pulse_ns``, ``energy_pj``, all (n,). Energy is what one converter's
    supply gives from reset to the end of conversion; bias and control signals are not in it.
    """
    charges = sorted(charge_fc)
    signs = (False, True) if converter.sink is not None else (False,)
    groups = [(sign, [q for q in charges if len(signs) == 1 or (q < 0) == sign]) for sign in signs]
    groups = [(sign, group) for sign, group in groups if group]
    decks = tuple(
        _transfer_deck(
            f"transfer, {'negative' if negative else 'positive'} charge",
            converter,
            group,
            corner=corner,
            temperature_c=temperature_c,
            negative=negative,
        )
        for negative, group in groups
    )

    def reduce(tables: Tables) -> dict[str, Any]:
        charge, pulse, energy = [], [], []
        for (negative, group), (table,) in zip(groups, tables, strict=True):
            lengths, spent = _read(converter, table)
            charge += group
            pulse += (-lengths if negative else lengths).tolist()
            energy += spent.tolist()
        order = np.argsort(charge)
        return {
            "charge_fc": np.array(charge)[order],
            "pulse_ns": np.array(pulse)[order],
            "energy_pj": np.array(energy)[order],
        }

    return Experiment(name="transfer", decks=decks, reduce=reduce)


def transfer_mismatch(
    converter: Converter,
    *,
    corner: str,
    temperature_c: float,
    converters: int,
    seed: int,
    shares: Sequence[float] = (0.25, 0.75),
    per_deck: int = CONVERTERS_PER_DECK,
) -> Experiment:
    """Pulse lengths of many converters with drawn mismatch, at shares of the saturating charge.

    Figures: ``pulse_ns`` (converters, shares).
    """
    rng = np.random.default_rng((seed, 1))
    charges = [share * converter.saturation_fc for share in shares]
    decks = []
    for first in range(0, converters, per_deck):
        drawn = [
            converter_draws(rng, converter) for _ in range(first, min(first + per_deck, converters))
        ]
        decks.append(
            _transfer_deck(
                f"mismatch, converters from {first}",
                converter,
                charges * len(drawn),
                corner=corner,
                temperature_c=temperature_c,
                draws=[draws for draws in drawn for _ in charges],
            )
        )

    def reduce(tables: Tables) -> dict[str, Any]:
        rows = [_read(converter, table)[0].reshape(-1, len(charges)) for (table,) in tables]
        return {"charge_fc": np.array(charges), "pulse_ns": np.concatenate(rows)}

    return Experiment(name="mismatch of converters", decks=tuple(decks), reduce=reduce)


def comparator_noise(converter: Converter, *, corner: str, temperature_c: float) -> Experiment:
    """Noise of the comparator at its threshold, as voltage at its input.

    Figures: ``noise_v``: root mean square of the second stage's noise over its gain from the
    input, over the bandwidth of both stages.
    """
    netlist = Netlist("converter: noise of the comparator")
    c = converter
    netlist.voltage("logic", "vlogic", "0", c.v_logic_v)
    netlist.voltage("ref", "vref", "0", c.v_ref_v)
    netlist.voltage("reset", "reset", "0", 0.0)
    netlist.voltage("resetb", "resetb", "0", c.v_logic_v)
    netlist.voltage("sourceb", "sourceb", "0", c.v_logic_v)
    netlist.voltage("sink", "sink", "0", 0.0)
    netlist.voltage("sign", "sign", "0", 0.0)
    netlist.voltage("signb", "signb", "0", c.v_logic_v)
    netlist.voltage("gate", "gate", "0", 0.0)
    add_bias(netlist, c)
    # With equal inputs all mirrors carry the same: the output is in the middle of its swing.
    netlist.line(f"vin bl 0 dc {c.v_ref_v:.9g} ac 1")
    add_converter(netlist, c, "0", bl="bl", pulse="y0")
    deck = Deck(
        name="noise of the comparator",
        circuit=netlist.text(corner=corner, temperature_c=temperature_c, options=_OPTIONS),
        analyses=(
            ("noise v(below_0) vin dec 10 10k 100g\nsetplot noise1", ("onoise_spectrum",)),
            ("ac dec 10 10k 100g", ("vdb(below_0)",)),
        ),
    )

    def reduce(tables: Tables) -> dict[str, Any]:
        ((noise, gain),) = tables
        frequency = noise[:, 0]
        out_v = float(np.sqrt(np.trapezoid(noise[:, 1] ** 2, frequency)))
        return {"noise_v": out_v / 10 ** (float(gain[0, 1]) / 20), "gain_db": float(gain[0, 1])}

    return Experiment(name="noise of the comparator", decks=(deck,), reduce=reduce)
