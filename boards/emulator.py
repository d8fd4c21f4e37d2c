"""The analog side of a head in an FPGA: it stalls the head's clock while it computes."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from boards.output_engine import OutputEngine
from boards.params import EmulatorParams
from boards.phi_engine import PhiEngine
from boards.pulse_driver import PulseDriver
from boards.score_engine import ScoreEngine
from hw.layer import layer_ports

__all__ = ["ArrayEmulator"]


def _index(m: Module, name: str, one_hot: Value, bits: int) -> Signal:
    """Index of the line that is high."""
    index = Signal(bits, name=name)
    lines = [
        Cat(one_hot[line] for line in range(len(one_hot)) if line >> bit & 1).any()
        if any(line >> bit & 1 for line in range(len(one_hot)))
        else 0
        for bit in range(bits)
    ]
    m.d.comb += index.eq(Cat(*lines))
    return index


class ArrayEmulator(Component):
    """Both arrays and their converters behind a head's analog boundary.

    The head moves only in clocks in which ``step`` is high. In between the emulator does what
    the control lines of the head's present clock ask for, so that the head sees exactly the
    cycles that a chip would:

    =================================== =========================================================
    head's clock                        work
    =================================== =========================================================
    ``integrate`` has fallen            products of Q.K, before the column can be written
    ``k_write``, ``v_write``            the codes are stored
    ``convert`` has risen               phi of every column; products of phi.V
    ``convert`` has fallen              the signs of the outputs
    ``readout`` is high                 the pulses of this clock
    ``readout`` has fallen              all pulses fall
    =================================== =========================================================

    What comes of it is `sim.reference.emulator`, integer by integer.

    Parameters
    ----------
    params
        Emulator parameters.

    Members
    -------
    ana_* :
        As `hw.layer.layer_ports` lists them, their directions turned round.
    step : Out(1)
        The head moves with the next edge.

    Timing
    ------
    A head's clock takes one clock, and more where there is work: of a query at most
    `EmulatorParams.query_clk`, of a write the clocks of a store in each clock of its strobe.
    """

    def __init__(self, params: EmulatorParams) -> None:
        self.params = params
        turned = {"in": Out, "out": In}
        lines = {
            port.name: turned[port.direction](port.width)
            for port in layer_ports(params.head)
            if port.name.startswith("ana_")
        }
        super().__init__({**lines, "step": Out(1)})
        self.scores = ScoreEngine(params)
        self.phi = PhiEngine(params)
        self.outputs = OutputEngine(params)
        self.pulses = PulseDriver(params)

    def elaborate(self, platform: object) -> Module:
        """Build the emulator."""
        m = Module()
        head = self.params.head
        scores, phi, outputs, pulses = self.scores, self.phi, self.outputs, self.pulses
        m.submodules.scores, m.submodules.phi = scores, phi
        m.submodules.outputs, m.submodules.pulses = outputs, pulses
        subtile = _index(m, "subtile", self.ana_subtile_select, head.subtile_bits)
        column = _index(m, "column", self.ana_column_select, head.column_bits)
        banks = (0, 0, 0)
        if head.streaming:
            banks = (self.ana_scores_bank, self.ana_convert_bank, self.ana_readout_bank)

        # What the head's clock before this one was, and which work of this one is done.
        integrating, converting, reading = Signal(), Signal(), Signal()
        scores_bank, convert_bank = Signal(), Signal()
        jobs = ("scores", "key", "value", "phi", "outputs", "signs", "pulses", "fall")
        done = {job: Signal(name=f"{job}_done") for job in jobs}
        with m.If(self.step):
            m.d.sync += [
                integrating.eq(self.ana_integrate),
                converting.eq(self.ana_convert),
                reading.eq(self.ana_readout),
                *(flag.eq(0) for flag in done.values()),
            ]
            with m.If(self.ana_integrate):
                m.d.sync += scores_bank.eq(banks[0])
            with m.If(self.ana_convert):
                m.d.sync += convert_bank.eq(banks[1])

        converts = self.ana_convert & ~converting
        due = {
            "scores": integrating & ~self.ana_integrate,
            "key": self.ana_k_write,
            "value": self.ana_v_write,
            "phi": converts,
            "outputs": converts,
            "signs": converting & ~self.ana_convert,
            "pulses": self.ana_readout,
            "fall": reading & ~self.ana_readout,
        }
        begin = {
            "scores": scores.start,
            "key": scores.store,
            "value": outputs.store,
            "phi": phi.start,
            "outputs": outputs.start,
            "signs": pulses.signs,
            "pulses": pulses.pulses,
            "fall": pulses.clear,
        }
        busy = scores.busy | phi.busy | outputs.busy | pulses.busy
        with m.If(~busy):
            # One job at a time, in this order; the head moves when none is left.
            branch = m.If
            for job in jobs:
                with branch(due[job] & ~done[job]):
                    m.d.comb += begin[job].eq(1)
                    m.d.sync += done[job].eq(1)
                branch = m.Elif
            with m.Else():
                m.d.comb += self.step.eq(1)

        m.d.comb += [
            scores.clear.eq(self.step & self.ana_scores_reset),
            scores.integrate.eq(self.step & self.ana_integrate),
            scores.q_pulse.eq(self.ana_q_pulse),
            scores.subtile.eq(subtile),
            scores.column.eq(column),
            scores.codes.eq(self.ana_k_code),
            scores.bank.eq(scores_bank),
            scores.read_bank.eq(banks[1]),
            scores.read_subtile.eq(phi.subtile),
            scores.read_column.eq(phi.column),
            phi.mask.eq(self.ana_column_mask),
            phi.s_level.eq(self.ana_s_level),
            phi.charge.eq(scores.charge),
            phi.read_subtile.eq(outputs.phi_subtile),
            phi.read_column.eq(outputs.phi_column),
            outputs.subtile.eq(subtile),
            outputs.column.eq(column),
            outputs.codes.eq(self.ana_v_code),
            outputs.bank.eq(banks[1]),
            outputs.phi.eq(phi.phi),
            outputs.read_bank.eq(pulses.read_bank),
            outputs.read_subtile.eq(pulses.read_subtile),
            outputs.read_group.eq(pulses.read_group),
            pulses.charges.eq(outputs.charges),
            pulses.first.eq(~reading),
            pulses.a_level.eq(self.ana_a_level),
            pulses.select.eq(self.ana_readout_select),
            self.ana_out_pulse.eq(pulses.pulse),
            self.ana_out_sign.eq(pulses.sign),
        ]
        if self.params.leak:
            # Age is of the head's time.
            age_clk = self.params.leak.age_clk
            left, tick = Signal(range(age_clk), init=age_clk - 1), Signal()
            m.d.comb += [
                tick.eq(self.step & (left == 0)),
                scores.tick.eq(tick),
                outputs.tick.eq(tick),
                outputs.note.eq(self.step & self.ana_outputs_reset),
            ]
            with m.If(tick):
                m.d.sync += left.eq(age_clk - 1)
            with m.Elif(self.step):
                m.d.sync += left.eq(left - 1)
        with m.If(converting & ~self.ana_convert):
            m.d.comb += pulses.bank.eq(convert_bank)
        with m.Else():
            m.d.comb += pulses.bank.eq(banks[2])
        return m
