"""Full-scale detector: which lanes have a sub-tile whose pulse lasted for the whole phase."""

from __future__ import annotations

from amaranth.hdl import Cat, Module
from amaranth.lib.wiring import Component, In, Out

from hw.params import HeadParams

__all__ = ["FullScale"]


class FullScale(Component):
    """Flags lanes in which a sub-tile's result has the largest magnitude, so may be clipped.

    Such a pulse is still high in the phase's last clock, so the flags are those of the last clock
    that was enabled.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    pulse : in
        Converter outputs; bit ``subtile * lanes + lane``.
    enable : In(1)
        High in each clock of the readout phase.
    lanes : out
        One flag per lane.

    Timing
    ------
    The flags are complete `latency_clk` clocks after the last ``enable``.

    """

    latency_clk = 1

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        super().__init__(
            {
                "pulse": In(params.subtiles * params.lanes),
                "enable": In(1),
                "lanes": Out(params.lanes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the detector."""
        m = Module()
        p = self.params
        with m.If(self.enable):
            for lane in range(p.lanes):
                pulses = [self.pulse[subtile * p.lanes + lane] for subtile in range(p.subtiles)]
                m.d.sync += self.lanes[lane].eq(Cat(*pulses).any())
        return m
