"""Readout: signed pulses of every sub-tile and lane become one signed sum per lane.

Two implementations behind one interface give the same integers; see docs/blocks/readout.md.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out

from hw.params import HeadParams

__all__ = ["CounterReadout", "PopulationReadout", "Readout", "create_readout"]


def _popcount(bits: list) -> object:
    """Sum of single bits, as a balanced tree so that widths stay minimal."""
    if len(bits) == 1:
        return bits[0]
    middle = len(bits) // 2
    return _popcount(bits[:middle]) + _popcount(bits[middle:])


class Readout(Component):
    """Interface of both readouts.

    A sub-tile's converter decides its sign before it discharges, so ``sign`` (1: negative) is
    valid with ``clear``, the clock before the phase, and does not change until the phase ends.
    It then holds ``pulse`` high for as many clocks as the result's magnitude. No pulse is high
    with ``clear``.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    pulse, sign : in
        Converter outputs; bit ``subtile * lanes + lane``.
    clear : In(1)
        Forget the last result and note the signs; high in the clock before the phase.
    enable : In(1)
        High in each of the phase's ``readout_clk`` clocks.
    sums : out
        Signed sum over sub-tiles, ``sum_bits`` wide per lane, packed, lane 0 least significant.

    Timing
    ------
    ``sums`` is complete `latency_clk` clocks after the last ``enable`` and stays until ``clear``.

    """

    latency_clk = 1

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        converters = params.subtiles * params.lanes
        super().__init__(
            {
                "pulse": In(converters),
                "sign": In(converters),
                "clear": In(1),
                "enable": In(1),
                "sums": Out(params.lanes * params.sum_bits),
            }
        )

    def _lane_sum(self, m: Module, lane: int, pulses: list, signs: list) -> object:
        """Hardware of one lane; returns its sum."""
        raise NotImplementedError

    def elaborate(self, platform: object) -> Module:
        """Build every lane."""
        m = Module()
        p = self.params
        sums = []
        for lane in range(p.lanes):
            at = [subtile * p.lanes + lane for subtile in range(p.subtiles)]
            total = Signal(signed(p.sum_bits), name=f"sum_{lane}")
            m.d.comb += total.eq(
                self._lane_sum(m, lane, [self.pulse[i] for i in at], [self.sign[i] for i in at])
            )
            sums.append(total)
        m.d.comb += self.sums.eq(Cat(*sums))
        return m


class CounterReadout(Readout):
    """The published way: a counter and a sign per sub-tile and lane, then an adder tree."""

    def _lane_sum(self, m: Module, lane: int, pulses: list, signs: list) -> object:
        results = []
        for subtile, (pulse, sign) in enumerate(zip(pulses, signs, strict=True)):
            count = Signal(self.params.count_bits, name=f"count_{subtile}_{lane}")
            negative = Signal(name=f"negative_{subtile}_{lane}")
            with m.If(self.clear):
                m.d.sync += [count.eq(0), negative.eq(sign)]
            with m.Elif(self.enable & pulse):
                m.d.sync += count.eq(count + 1)
            results.append(Mux(negative, -count, count))
        return _popcount(results)


class PopulationReadout(Readout):
    """The number of pulses that are high is added to one accumulator per lane, each clock.

    The sum over sub-tiles of pulse lengths is the sum over clocks of pulses that are high. To
    count a negative pulse down without a second population count, its input is inverted: over
    the N clocks of the phase it then adds N - length instead of -length. The excess is N for each
    negative sign, known before the phase begins, when the inverted inputs are the signs
    themselves: the accumulator starts at -N times their number, N = 2**count_bits - 1.
    """

    def _lane_sum(self, m: Module, lane: int, pulses: list, signs: list) -> object:
        up = _popcount([pulse ^ sign for pulse, sign in zip(pulses, signs, strict=True)])
        total = Signal(signed(self.params.sum_bits), name=f"accumulator_{lane}")
        with m.If(self.clear):
            m.d.sync += total.eq(up - (up << self.params.count_bits))
        with m.Elif(self.enable):
            m.d.sync += total.eq(total + up)
        return total


def create_readout(params: HeadParams) -> Readout:
    """Build the readout that ``params.readout`` names."""
    return {"population": PopulationReadout, "counter": CounterReadout}[params.readout](params)
