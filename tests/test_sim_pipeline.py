"""Recording of overlapping tokens: latency and interval are the head's, phases as stated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hw.layer import AttentionLayer
from hw.params import HeadParams
from hw.presets import PRESETS
from sim.figures import Span, draw_pipeline, packet_spans
from sim.pipeline import interval_bounds, record_pipeline
from synth.verilog import component_rtlil

PACKETS = 4
TINY = PRESETS["tiny"]
#: Bound by array 1, the readout, result beats, token beats, result slots; and one at a time.
SHAPES = {
    "array 1": replace(TINY, refresh=False),
    "readout": replace(TINY, q_bits=2, count_bits=4, write_clk=1),
    "result beats": replace(TINY, lanes=48, rows=1, result_slots=8, refresh=False),
    "token beats": replace(TINY, rows=64, lanes=4, result_slots=8, refresh=False),
    "result slots": replace(TINY, result_slots=2, refresh=False),
    "schedule": replace(TINY, schedule="simple", refresh=False),
}


def facts(params: HeadParams) -> AttentionLayer:
    layer = AttentionLayer(params)
    component_rtlil(layer, "layer")  # Amaranth warns of what is never elaborated
    return layer


@pytest.fixture(scope="module", params=SHAPES.items(), ids=lambda item: item[0])
def recorded(request: pytest.FixtureRequest) -> tuple[str, HeadParams, Mapping[str, Any]]:
    bound, params = request.param
    return bound, params, record_pipeline(params, packets=PACKETS)


def of(spans: list[Span], line: str) -> list[Span]:
    return [span for span in spans if span.line == line]


def test_latency_and_interval_are_the_head_s(
    recorded: tuple[str, HeadParams, Mapping[str, Any]],
) -> None:
    bound, params, wave = recorded
    layer, spans = facts(params), packet_spans(wave)
    tokens, results = of(spans, "s_axis"), of(spans, "m_axis")
    assert [span.packet for span in results] == list(range(PACKETS))
    assert results[0].start - (tokens[0].end - 1) == layer.latency_clk
    # Two slots make answers come in pairs: the interval is a mean of two.
    assert math.ceil((results[-1].start - results[-3].start) / 2) == layer.interval_clk
    bounds = interval_bounds(params)
    assert max(bounds.values()) == bounds[bound] == layer.interval_clk
    assert sorted(bounds.values())[-2] < bounds[bound], "another bound is as tight"


def test_phases_are_as_long_as_stated(
    recorded: tuple[str, HeadParams, Mapping[str, Any]],
) -> None:
    _, p, wave = recorded
    lengths = {
        "s_axis": p.token_beats,
        "ana_k_write": p.write_clk,
        "ana_v_write": p.write_clk,
        "ana_integrate": p.integrate_clk,
        "ana_convert": p.convert_clk,
        "ana_readout": p.readout_clk,
        "m_axis": p.result_beats,
    }
    spans = packet_spans(wave)
    for line, clocks in lengths.items():
        assert [span.clocks for span in of(spans, line)] == [clocks] * PACKETS, line


def test_bounds_of_a_layer() -> None:
    layer = PRESETS["tiny-layer"]
    assert max(interval_bounds(layer).values()) == facts(layer).interval_clk


def test_picture_is_drawn_and_deterministic(tmp_path: Path) -> None:
    wave = record_pipeline(SHAPES["array 1"], packets=2)
    one, other = (draw_pipeline(tmp_path / name, wave) for name in ("one", "other"))
    assert [path.suffix for path in one] == [".png", ".svg"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    assert wave == record_pipeline(SHAPES["array 1"], packets=2)


def test_no_packet_no_picture(tmp_path: Path) -> None:
    wave = record_pipeline(SHAPES["array 1"], packets=1)
    signals = [signal for signal in wave["signals"] if not signal["name"].startswith("m_axis")]
    with pytest.raises(ValueError, match="at least one packet"):
        draw_pipeline(tmp_path / "none", wave | {"signals": signals})
