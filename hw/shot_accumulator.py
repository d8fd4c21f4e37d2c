"""Shot accumulator: a lane's sum, less its trim and weighted, is added to the shot before."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out

from hw.packet import SHIFT_BITS
from hw.params import HeadParams

__all__ = ["ShotAccumulator"]


class ShotAccumulator(Component):
    """Makes a result of the readout's sums: ((sum - trim) << shift), onto the shot before.

    A result that does not fit its width stops at the limit and is flagged; the flag, like the
    lanes' full-scale flags, stays with what is accumulated on it. The shot before is the last
    that counted, whether its result was sent or held. What the head does not have costs nothing:
    without shots the result is the trimmed sum, without trim the sum itself.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    sums, full_scale : in
        Signed sums and full-scale flags of the lanes, packed.
    results, result_full_scale : out
        Signed results, ``result_bits`` wide per lane, and their flags, packed.
    saturated : out
        For each group of ``flag_lanes`` lanes, whether some lane's result did not fit its width,
        here or in a shot that it is accumulated on.
    answers : In(1)
        Only with ``shots``: the sums are those of a query. Otherwise they count as zero, so that
        what follows them rests while pulses are counted.
    accumulate, shift : in
        Only with ``shots``: of the query that the sums belong to.
    keep : In(1)
        Only with ``shots``: this shot counts; it is the one that the next may be added to.
    clear : In(1)
        Only with ``shots``: forget the shot before; wins over ``keep``.
    trim_index, trim_write, trim_data : in
        Only with ``trim_bits``: set the offset of one lane, signed.
    trim_read : out
        Only with ``trim_bits``: offset of the lane that ``trim_index`` names.

    Timing
    ------
    Results are combinational (`latency_clk` is 0); ``keep`` and trims take effect a clock later.

    """

    latency_clk = 0

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        shots = {
            "answers": In(1),
            "accumulate": In(1),
            "shift": In(SHIFT_BITS),
            "keep": In(1),
            "clear": In(1),
        }
        trims: dict[str, object] = {}
        if params.trim_bits:
            trims = {
                "trim_index": In(range(max(params.lanes, 2))),
                "trim_write": In(1),
                "trim_data": In(signed(params.trim_bits)),
                "trim_read": Out(signed(params.trim_bits)),
            }
        super().__init__(
            {
                "sums": In(params.lanes * params.sum_bits),
                "full_scale": In(params.lanes),
                "results": Out(params.lanes * params.result_bits),
                "result_full_scale": Out(params.lanes),
                "saturated": Out(params.flag_groups),
                **(shots if params.shots else {}),
                **trims,
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build every lane."""
        m = Module()
        p = self.params
        low, high = -(1 << p.result_bits - 1), (1 << p.result_bits - 1) - 1
        results, before, limits, trims = [], [], [], []
        for lane in range(p.lanes):
            shot = self.sums.word_select(lane, p.sum_bits).as_signed()
            if p.shots:
                shot = Mux(self.answers, shot, 0)
            if p.trim_bits:
                trim = Signal(signed(p.trim_bits), name=f"trim_{lane}")
                with m.If(self.trim_write & (self.trim_index == lane)):
                    m.d.sync += trim.eq(self.trim_data)
                trims.append(trim)
                shot = shot - trim
            if p.shots:
                last = Signal(signed(p.result_bits), name=f"last_{lane}")
                total = Signal(signed(p.result_bits + 1), name=f"total_{lane}")
                limit = Signal(name=f"limit_{lane}")
                result = Signal(signed(p.result_bits), name=f"result_{lane}")
                m.d.comb += [
                    total.eq((shot << self.shift) + Mux(self.accumulate, last, 0)),
                    limit.eq(total[-1] != total[-2]),
                    result.eq(Mux(limit, Mux(total[-1], low, high), total)),
                ]
                before.append(last)
                limits.append(limit)
                results.append(result)
            else:
                results.append(shot)  # as wide as a result, with trim or without
        m.d.comb += self.results.eq(Cat(*results))
        if p.trim_bits:
            m.d.comb += self.trim_read.eq(Array(trims)[self.trim_index])
        if not p.shots:
            m.d.comb += [self.result_full_scale.eq(self.full_scale), self.saturated.eq(Const(0))]
            return m

        groups = [
            Cat(*limits[first : first + p.flag_lanes]).any()
            for first in range(0, p.lanes, p.flag_lanes)
        ]
        last_full_scale = Signal(p.lanes)
        last_saturated = Signal(p.flag_groups)
        m.d.comb += [
            self.result_full_scale.eq(
                self.full_scale | (last_full_scale & self.accumulate.replicate(p.lanes))
            ),
            self.saturated.eq(
                Cat(*groups) | (last_saturated & self.accumulate.replicate(p.flag_groups))
            ),
        ]
        with m.If(self.clear):
            m.d.sync += [last.eq(0) for last in before]
            m.d.sync += [last_full_scale.eq(0), last_saturated.eq(0)]
        with m.Elif(self.keep):
            m.d.sync += [last.eq(result) for last, result in zip(before, results, strict=True)]
            m.d.sync += [
                last_full_scale.eq(self.result_full_scale),
                last_saturated.eq(self.saturated),
            ]
        return m
