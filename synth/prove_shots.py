"""Proof of the shot accumulator: its results are the exact ones, or the limit of their width.

The miter holds the accumulator and the same arithmetic in numbers wide enough for any input, and
each may take any input in every clock: sums, weights, trims, shots that count or not, and clears.
Sums, trims and results have their full widths; lanes are independent, and two show that the packing
is right. The method is temporal induction from reset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out

from hw.packet import SHIFT_BITS
from hw.params import HeadParams
from synth import prove
from synth.prove import Bug, Row, induction_job, refutation_job

__all__ = ["SHOT_BUGS", "SHOT_PROPERTIES", "SHOT_SIZES", "ShotMiter", "shot_properties"]

#: Sizes: every feature, at the widths of the default head; shots or trims alone; neither.
SHOT_SIZES = tuple(
    HeadParams(columns=2, rows=1, lanes=2, **fields)
    for fields in ({"shots": True, "trim_bits": 8}, {"shots": True}, {"trim_bits": 9}, {})
)
#: Clocks within which each seeded bug shows.
BUG_CLK = 6

#: What is proved of the accumulator, by the name of the miter's output.
SHOT_PROPERTIES = {
    "results_ok": "a result is the exact sum of shots, or the limit that it passes",
    "flags_ok": "saturation is flagged, with full scale, and stays with what is added to it",
}

_UNIT = "ShotAccumulator"
#: Bugs that the proof must find, by the property that each violates.
SHOT_BUGS: Mapping[str, Sequence[Bug]] = {
    "results_ok": (
        Bug(name="no limit", component=_UNIT, old="Mux(limit, Mux(total[-1], low, high), total)",
            new="total"),
        Bug(name="one bit too narrow", component=_UNIT,
            old="Signal(signed(p.result_bits + 1), name=f\"total_{lane}\")",
            new="Signal(signed(p.result_bits), name=f\"total_{lane}\")"),
        Bug(name="a trim is added", component=_UNIT, old="shot = shot - trim",
            new="shot = shot + trim"),
        Bug(name="a shot that does not count is kept", component=_UNIT,
            old="with m.Elif(self.keep):", new="with m.Else():"),
        Bug(name="sums count before they are complete", component=_UNIT,
            old="Mux(self.answers, shot, 0)", new="shot"),
        Bug(name="the shot before is added always", component=_UNIT,
            old="Mux(self.accumulate, last, 0)", new="last"),
    ),
    "flags_ok": (
        Bug(name="saturation is forgotten", component=_UNIT,
            old="last_saturated & self.accumulate.replicate(p.flag_groups)", new="0"),
        Bug(name="full scale of the shot before stays", component=_UNIT,
            old="last_full_scale & self.accumulate.replicate(p.lanes)", new="last_full_scale"),
    ),
}  # fmt: skip


class ShotMiter(Component):
    """The shot accumulator, any inputs, and the exact arithmetic.

    Parameters
    ----------
    params
        Size.
    bug
        Put into the accumulator.

    Members
    -------
    sums, full_scale, controls, trims : in
        Free choices of the environment.
    probe_* : in
        Registers of the accumulator; connected after flattening.
    results_ok, flags_ok : Out(1)
        See `SHOT_PROPERTIES`.
    helper_ok : Out(1)
        Invariant that carries the induction: what is kept is what was specified.
    interesting : Out(1)
        A result at each limit.

    """

    def __init__(self, params: HeadParams, bug: Bug | None = None) -> None:
        self.params = p = params
        self.bug = bug
        widths = {}
        for lane in range(p.lanes):
            if p.shots:
                widths[f"last_{lane}"] = p.result_bits
            if p.trim_bits:
                widths[f"trim_{lane}"] = p.trim_bits
        if p.shots:
            widths |= {"last_full_scale": p.lanes, "last_saturated": p.flag_groups}
        self._probed = widths
        super().__init__(
            {
                "sums": In(p.lanes * p.sum_bits),
                "full_scale": In(p.lanes),
                "controls": In(SHIFT_BITS + 4),
                "trims": In(p.lanes.bit_length() + 1 + p.trim_bits),
                **{f"probe_{name}": In(width) for name, width in widths.items()},
                **{name: Out(1) for name in (*SHOT_PROPERTIES, "helper_ok", "interesting")},
            }
        )

    @property
    def probes(self) -> Mapping[str, Sequence[str]]:
        """Names, after flattening, of what each probe is connected to."""
        return {f"probe_{name}": [f"accumulator.{name}"] for name in self._probed}

    def elaborate(self, platform: object) -> Module:
        """Build the miter."""
        m = Module()
        p = self.params
        dut = m.submodules.accumulator = prove._component(_UNIT, self.bug)(p)
        shift, answers, accumulate, keep, clear = (
            self.controls[:SHIFT_BITS],
            self.controls[-4],
            self.controls[-3],
            self.controls[-2],
            self.controls[-1],
        )
        m.d.comb += [dut.sums.eq(self.sums), dut.full_scale.eq(self.full_scale)]
        if p.shots:
            m.d.comb += [
                dut.shift.eq(shift),
                dut.answers.eq(answers),
                dut.accumulate.eq(accumulate),
                dut.keep.eq(keep),
                dut.clear.eq(clear),
            ]
        else:
            shift, answers, accumulate, keep = Const(0), Const(1), Const(0), Const(0)
        trims = Array(Signal(signed(max(p.trim_bits, 1)), name=f"trim_{i}") for i in range(p.lanes))
        if p.trim_bits:
            index = self.trims[: len(dut.trim_index)]
            write = self.trims[p.lanes.bit_length()] & (index < p.lanes)
            data = self.trims[-p.trim_bits :].as_signed()
            m.d.comb += [
                dut.trim_index.eq(index),
                dut.trim_write.eq(write),
                dut.trim_data.eq(data),
            ]
            for lane in range(p.lanes):
                with m.If(write & (index == lane)):
                    m.d.sync += trims[lane].eq(data)

        low, high = -(1 << p.result_bits - 1), (1 << p.result_bits - 1) - 1
        wide = p.result_bits + p.sum_bits
        results_ok, flags, helpers, exacts = [], [], [], []
        for lane in range(p.lanes):
            before = Signal(signed(p.result_bits), name=f"before_{lane}")
            exact = Signal(signed(wide), name=f"exact_{lane}")
            limited = Signal(signed(p.result_bits), name=f"limited_{lane}")
            counted = self.sums.word_select(lane, p.sum_bits).as_signed()
            shot = Mux(answers, counted, 0) - trims[lane]
            m.d.comb += [
                exact.eq(shot * (1 << shift) + Mux(accumulate, before, 0)),
                limited.eq(Mux(exact < low, low, Mux(exact > high, high, exact))),
            ]
            if p.shots:
                with m.If(clear):
                    m.d.sync += before.eq(0)
                with m.Elif(keep):
                    m.d.sync += before.eq(limited)
                helpers.append(getattr(self, f"probe_last_{lane}").as_signed() == before)
            if p.trim_bits:
                helpers.append(getattr(self, f"probe_trim_{lane}").as_signed() == trims[lane])
            result = dut.results.word_select(lane, p.result_bits).as_signed()
            results_ok.append(result == limited)
            flags.append(exact != limited)
            exacts.append(exact)
        # Without a register there would be no clock domain to prove in.
        begun = Signal(name="clocked")
        m.d.sync += begun.eq(1)
        full_before, saturated_before = Signal(p.lanes), Signal(p.flag_groups)
        full = self.full_scale | Mux(accumulate, full_before, 0)
        groups = [flags[i : i + p.flag_lanes] for i in range(0, p.lanes, p.flag_lanes)]
        saturated = Cat(*(Cat(*group).any() for group in groups))
        saturated |= Mux(accumulate, saturated_before, 0)
        if p.shots:
            with m.If(clear):
                m.d.sync += [full_before.eq(0), saturated_before.eq(0)]
            with m.Elif(keep):
                m.d.sync += [full_before.eq(full), saturated_before.eq(saturated)]
            helpers += [
                self.probe_last_full_scale == full_before,
                self.probe_last_saturated == saturated_before,
            ]
        m.d.comb += [
            self.results_ok.eq(Cat(*results_ok).all()),
            self.flags_ok.eq((dut.result_full_scale == full) & (dut.saturated == saturated)),
            self.helper_ok.eq(Cat(Const(1), *helpers).all()),
            self.interesting.eq((exacts[0] > high) & (exacts[1] < low)),
        ]
        return m


def shot_properties(*, full: bool = True) -> list[Callable[[], Row]]:
    """Jobs of the shot accumulator, to be run by `synth.prove.run_proofs`."""
    sizes = SHOT_SIZES if full else SHOT_SIZES[:1]
    names = (*SHOT_PROPERTIES, "helper_ok")
    jobs = [
        induction_job(
            f"shots: {SHOT_PROPERTIES['results_ok']}; flags (heads with and without, full widths)"
            if full
            else f"shots: {SHOT_PROPERTIES['results_ok']}; flags (full widths)",
            [lambda params=params: ShotMiter(params) for params in sizes],
            [names] * len(sizes),
        )
    ]
    jobs += [
        refutation_job(
            f"shots: {title}",
            lambda bug: ShotMiter(SHOT_SIZES[0], bug),
            SHOT_BUGS[name],
            name,
            BUG_CLK,
            (lambda: ShotMiter(SHOT_SIZES[0])) if name == "results_ok" else None,
        )
        for name, title in SHOT_PROPERTIES.items()
    ]
    return jobs
