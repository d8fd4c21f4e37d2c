"""Recording of overlapping tokens: packets without a pause, the lines of the boundary by clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from amaranth.hdl import Fragment
from amaranth.sim import Simulator, SimulatorContext

from hw.layer import AttentionLayer
from hw.packet import Command, token_beats
from hw.params import HeadParams

__all__ = ["RECORDED", "interval_bounds", "record_pipeline"]

#: What is recorded; banks only of a streaming head.
RECORDED = (
    "s_axis_tvalid",
    "s_axis_tready",
    "s_axis_tlast",
    "ana_k_write",
    "ana_v_write",
    "ana_scores_reset",
    "ana_integrate",
    "ana_scores_bank",
    "ana_outputs_reset",
    "ana_convert",
    "ana_convert_bank",
    "ana_readout",
    "ana_readout_bank",
    "m_axis_tvalid",
    "m_axis_tready",
    "m_axis_tlast",
)
_CLOCK_NS = 1.0


def _small(params: HeadParams, heads: int = 1) -> HeadParams:
    """The same phases and packets; fewer columns, which neither depends on."""
    columns = 2
    sinks = min(params.sinks, params.subtiles * columns - 1)
    return replace(params, columns=columns, heads=heads, sinks=sinks)


def record_pipeline(params: HeadParams, *, packets: int) -> dict[str, Any]:
    """Record the lines of the boundary while packets that write and query follow each other.

    The result stream never stalls. The recording ends a clock after the last answer.

    Parameters
    ----------
    params
        The head, or layer, whose phases and packets are shown.
    packets
        How many packets are sent.

    Returns
    -------
    dict
        ``clock_ns``, the ``start`` in clocks, and ``signals``, each with ``name``, ``width`` and a
        value per clock: what `sim.figures` draws.

    """
    small = _small(params)
    head = AttentionLayer(small)
    names = [name for name in RECORDED if hasattr(head, name)]
    values: dict[str, list[int]] = {name: [] for name in names}
    q = [(row + 1) % (1 << small.q_bits) for row in range(small.rows)]
    k = [row % (1 << small.kv_bits) for row in range(small.rows)]
    v = [lane % (1 << small.kv_bits) for lane in range(small.lanes)]
    beats = token_beats(small, Command.WRITE_QUERY, 0, k=k, v=v, q=q)
    stream = [(beat, beat_no == len(beats) - 1) for beat_no, beat in enumerate(beats)] * packets

    async def bench(ctx: SimulatorContext) -> None:
        ctx.set(head.m_axis_tready, 1)
        sent = answered = 0
        while answered < packets:
            data, last = stream[sent] if sent < len(stream) else (0, False)
            ctx.set(head.s_axis_tvalid, sent < len(stream))
            ctx.set(head.s_axis_tdata, data)
            ctx.set(head.s_axis_tlast, last)
            for name in names:
                values[name].append(int(ctx.get(getattr(head, name))))
            sent += ctx.get(head.s_axis_tvalid) & ctx.get(head.s_axis_tready)
            answered += ctx.get(head.m_axis_tvalid) & ctx.get(head.m_axis_tlast)
            await ctx.tick()
        for name in names:
            values[name].append(int(ctx.get(getattr(head, name))))

    simulator = Simulator(head)
    simulator.add_clock(_CLOCK_NS * 1e-9)
    simulator.add_testbench(bench)
    simulator.run()
    return {
        "clock_ns": _CLOCK_NS,
        "start": 0,
        "signals": [{"name": name, "width": 1, "values": values[name]} for name in names],
    }


def interval_bounds(params: HeadParams) -> dict[str, int]:
    """Clocks that each loop leaves between packets that write and query, by what it goes through.

    The longest is the interval, `hw.layer.AttentionLayer.interval_clk`.
    """
    p = _small(params, heads=params.heads)
    layer = AttentionLayer(p)
    Fragment.get(layer, None)  # Amaranth warns of what is never elaborated
    sequencer, sender = layer.sequencer, layer.sender
    receive = layer.receiver.latency_clk + sequencer.taken_clk + p.token_beats
    if not p.streaming:
        return {
            "schedule": sequencer.interval_clk,
            "token beats": receive,
            "result beats": sender.latency_clk + p.result_beats,
        }
    life = sequencer.latency_clk + sender.latency_clk + p.result_beats + (p.heads > 1)
    return {
        "array 1": p.write_clk + p.guard_clk + p.integrate_clk,
        "readout": p.guard_clk + p.readout_clk,
        "token beats": receive,
        "result beats": p.result_beats,
        "result slots": -(-life // p.result_slots),
    }
