"""Generated parts of the documents: written between BEGIN and END markers, checked for drift.

Parts that follow from the code are computed on the spot. Measured figures come from
``docs/measured``, copies of the result files that jobs wrote to ``build/report``; each says which
configuration and which tools it was measured with, and is stale when the configuration changes.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from amaranth.lib.wiring import Component

from analog_models.presets import resolve_device
from hw.layer import Port
from hw.params import HeadParams
from hw.presets import PRESETS
from sim.board_params import board_params, for_simulation
from sim.device_figures import draw_converters, draw_currents, draw_droop
from sim.devices import device_rows
from sim.figures import draw_pipeline, packet_spans
from sim.metrics import METRICS, read_rules
from sim.pipeline import interval_bounds, record_pipeline
from sim.report import write_report
from sim.results import ROOT, write_text_whole
from sim.retention import RetentionStudy
from sim.retention_map import table_header, table_rows
from sim.silicon import keep_libraries
from synth.package import port_groups
from synth.register_files import markdown_table
from synth.verilog import write_verilog

__all__ = ["MEASURED", "stale_documents", "update_documents"]

MEASURED = ROOT / "docs" / "measured"
_PART = re.compile(
    r"(?P<begin><!-- BEGIN (?P<name>[\w-]+) -->\n)(?P<body>.*?)(?P<end><!-- END (?P=name) -->)",
    re.DOTALL,
)
_RESULTS = (
    "cosim",
    "tokens",
    "area",
    "bench",
    "formal",
    "mutants",
    "soak",
    "gates",
    "cosim_all",
    "retention",
    "retention_map",
    "montecarlo",
    "analog_energy",
    "analog_energy_sky130-tt",
    "calibrate",
    "timing",
    "energy",
    "equivalence",
    "llm",
    "llm_adapt",
    "llm_adapted",
    "llm_bench",
    "llm_levers",
    "llm_published",
    "llm_noise",
    "generate_functional",
    "generate_rtl",
    "silicon",
    "fpga",
    "emulation",
    "board_sim",
)
_CORNERS = ("tt", "ss", "ff")
_PICTURES = (
    "montecarlo.png",
    "retention_map.png",
    *("waveform.png", "attention.png", "area.png", "retention.png", "llm.png", "llm_levers.png"),
    *("llm_published.png", "llm_noise.png", "llm_adapt.png"),
    *("floorplan.png", "energy.png", "times.png", "history.png"),
)


def _table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(header)]
    lines.append(["---"] * len(lines[0]))
    lines += [[str(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


@cache
def _interface(name: str) -> dict[str, Any]:
    """What the generator says of a preset."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_verilog(PRESETS[name], Path(folder) / "head.v")
        content: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return content


def _measured(name: str, folder: Path | None = None) -> dict[str, Any]:
    path = (folder or MEASURED) / f"{name}.json"
    if not path.exists():
        raise ValueError(f"docs/measured/{name}.json is missing: run its job, then `make docs`")
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    wanted = result["config_hash"]
    if name in ("cosim", "area", "silicon", "timing", "energy"):
        wanted = PRESETS["default"].config_hash
    elif name == "retention":
        wanted = RetentionStudy().config_hash
    elif name == "emulation":
        wanted = board_params(result["board"]).config_hash
    if result["config_hash"] != wanted:
        raise ValueError(
            f"{path.relative_to(ROOT)} must be of configuration {wanted}, the default, "
            f"not {result['config_hash']!r}: run `make {name}`"
        )
    return result


def _provenance(result: dict[str, Any]) -> str:
    tools = ", ".join(f"{tool} {version}" for tool, version in result["tools"].items())
    day = result["date"].split("T")[0]
    return f"\nConfiguration `{result['config_hash']}`, {day}; {tools}.\n"


def _head_parameters() -> str:
    lines = inspect.getsource(HeadParams).splitlines()
    rows = []
    for line in lines:
        match = re.match(r"    (\w+): (\w+) = (\S+)  #: (.*)", line)
        if match:
            rows.append((f"`{match[1]}`", match[3].strip('"'), match[4]))
    return _table(("parameter", "default", "meaning"), rows)


def _head_ports() -> str:
    rows = [
        (f"`{p['name']}`", p["direction"], p["width"], p["meaning"])
        for p in _interface("default")["ports"]
    ]
    return _table(("port", "direction", "bits", "meaning"), rows)


def _interface_ports(*groups: str) -> Callable[[], str]:
    def part() -> str:
        members = dict(port_groups([Port(**port) for port in _interface("default")["ports"]]))
        rows = [
            (f"`{port.name}`", port.direction, port.width, port.meaning)
            for group in groups
            for port in members[group]
        ]
        return _table(("port", "direction", "bits", "meaning"), rows)

    return part


@cache
def _pipeline() -> dict[str, Any]:
    """Packets without a pause through the default head."""
    return record_pipeline(PRESETS["default"], packets=5)


def _pipeline_clocks() -> str:
    lines = {
        "ana_k_write": "K",
        "ana_v_write": "V",
        "ana_integrate": "integrate",
        "ana_convert": "convert",
        "ana_readout": "count",
        "m_axis": "result beats",
    }
    packets: dict[int, dict[str, str]] = {}
    for span in packet_spans(_pipeline()):
        clocks = f"{span.start}..{span.end - 1}"
        packets.setdefault(span.packet, {})[span.line] = clocks
    rows = [
        (packet + 1, spans["s_axis"], *(spans[line] for line in lines))
        for packet, spans in packets.items()
    ]
    return _table(("packet", "token beats", *lines.values()), rows)


@cache
def _bounds(params: HeadParams) -> dict[str, int]:
    # Of a layer, all that matters is that there are several heads.
    return interval_bounds(dataclasses.replace(params, heads=min(params.heads, 2)))


def _interval_row(params: HeadParams) -> tuple[object, ...]:
    bounds = _bounds(params)
    interval = max(bounds.values())
    names = ("array 1", "readout", "token beats", "result beats", "result slots")
    binding = " and ".join(name for name in names if bounds[name] == interval)
    return (*(bounds[name] for name in names), interval, binding)


_INTERVAL_HEADER = (
    *("array 1", "readout", "token beats", "result beats", "result slots"),
    *("interval", "what bounds it"),
)


def _interval_bounds() -> str:
    names = ("default", "mapped", "layer12", "head128", "tiny", "slow-write")
    rows = [(f"`{name}`", *_interval_row(PRESETS[name])) for name in names]
    return _table(("preset", *_INTERVAL_HEADER), rows)


def _bus_widths() -> str:
    rows = []
    for name in ("default", "mapped"):
        for bits in (32, 64, 128, 256):
            params = dataclasses.replace(PRESETS[name], bus_bits=bits)
            rows.append((f"{params.rows} x {params.lanes}", bits, *_interval_row(params)))
    return _table(("rows x lanes", "bus bits", *_INTERVAL_HEADER), rows)


def _result_slots() -> str:
    rows = []
    for slots in (1, 2, 3, 4, 6):
        params = dataclasses.replace(PRESETS["default"], result_slots=slots)
        rows.append((slots, _bounds(params)["result slots"], max(_bounds(params).values())))
    return _table(("result slots", "bound by them", "interval"), rows)


def _head_timing() -> str:
    rows = []
    for name, params in PRESETS.items():
        head = _interface(name)
        rows.append(
            (
                f"`{name}`",
                f"{params.window} x {params.rows} x {params.lanes}",
                head["latency_clk"],
                head["query_latency_clk"],
                head["interval_clk"],
                head["token_beats"],
                head["result_beats"],
            )
        )
    header = ("preset", "window x rows x lanes", "write and query", "query only", "interval")
    return _table((*header, "token beats", "result beats"), rows)


def _register_map() -> str:
    complete = dataclasses.replace(PRESETS["default"], heads=2, refresh=True)
    return markdown_table(complete) + f"\nConfiguration `{complete.config_hash}`.\n"


def _cosim() -> str:
    result = _measured("cosim")
    rows = [
        ("real tokens sent", result["tokens"]),
        ("integers compared", result["lanes_compared"]),
        ("mismatches", result["mismatches"]),
        ("latency, last beat in to first beat out", f"{result['latency_clk']} clocks"),
        ("interval between answers", f"{result['interval_clk']:g} clocks"),
        ("speed", f"{result['tokens_per_second']:.0f} tokens/s"),
    ]
    rows += [
        (f"share of time: {part.replace('_', ' ')}", f"{share:.0%}")
        for part, share in result["time_share"].items()
    ]
    source = (
        f"\n{result['model']}, layer {result['model_layer']}, head {result['model_head']}, "
        f"text “{result['text']}”, seed {result['seed']}, {result['simulator']}, "
        f"stalls in {result['stall_probability']:.0%} of clocks."
    )
    return _table(("figure", "value"), rows) + source + _provenance(result)


def _area() -> str:
    result = _measured("area")
    readouts = result["readouts"]
    rows = []
    for block in [*readouts["population"]["blocks"], "whole head"]:
        row: list[str] = [block.replace("_", " ")]
        for head in readouts.values():
            figures = head["blocks"].get(block, head)
            row += [f"{figures['area_um2']:,.0f}", f"{figures['gate_equivalents']:,.0f}"]
        rows.append(row)
    header = ["block"]
    for readout in readouts:
        header += [f"{readout}, µm²", "gates"]
    text = (
        f"\nThe readout block with counters is {result['readout_ratio']:.2f} times the one with a "
        f"population count. A gate is {result['gate_equivalent_um2']:g} µm², the library's "
        f"smallest NAND2; library {result['library']['name']}. Before layout, digital part only."
    )
    return _table(header, rows) + text + _provenance(result)


def _area_variants() -> str:
    result = _measured("area")
    if not result.get("variants"):
        raise ValueError("docs/measured/area.json must hold a comparison: run `make area`")
    rows = []
    for row in result["variants"]:
        compared = ["", "", ""]
        if row["base"]:
            base = f"{row['times']} × {row['base']}" if row["times"] > 1 else row["base"]
            compared = [base, f"{row['difference']:+,.0f}", f"{row['ratio'] - 1:+.1%}"]
        store = f"{row['code_store_bits'] / 1024:,.0f}" if row["code_store_bits"] else ""
        gates = [f"{row['gate_equivalents']:,.0f}", f"{row['per_head']:,.0f}"]
        rows.append([row["name"], *gates, *compared, store])
    header = ("head", "gates", "per head", "compared with", "gates more", "share more")
    return _table((*header, "store, kbit"), rows) + _provenance(result)


#: Rows of the comparison that the first page shows.
_FIRST = ("latency", "interval", "highest clock", "digital", "all")


def _comparison(first: bool = False) -> str:
    result = _measured("silicon")
    rows = []
    for row in result["comparison"]:
        if first and not (
            row["figure"].startswith(_FIRST)
            and row["group"] in ("Time", "Energy per token and head", "Area per head")
        ):
            continue
        number = f"{{:,.{row['digits']}f}}"
        rows.append(
            (
                f"{row['group']}: {row['figure']}, {row['unit']}",
                "" if row["paper"] is None else number.format(row["paper"]),
                "" if row["ours"] is None else number.format(row["ours"]),
                "" if row["ratio"] is None else f"{row['ratio']:.2f}",
                _error(row["error"], row["ours"]),
                row["method"],
            )
        )
    header = ("figure", "published", "ours", "times better", "error", "how")
    return _table(header, rows) + _provenance(result | {"tools": result["measured_with"]})


def _error(error: float | None, value: object = True) -> str:
    if error is None or value is None:
        return ""
    return f"{error:+.0%}" if error else "exact"


def _processors() -> str:
    result = _measured("silicon")
    rows = [
        (
            gpu["name"],
            f"{gpu['measured_us']:,.1f}" + (" (from a ratio)" if gpu["from_ratio"] else ""),
            f"{gpu['times_faster']:,.0f}" if gpu["times_faster"] else "",
            f"{gpu['measured_uj'] / 1e3:,.2f}",
            f"{gpu['times_less_energy']:,.0f}" if gpu["times_less_energy"] else "",
            f"{gpu['least_us']:,.2f}",
            f"{gpu['least_uj'] / 1e3:,.3f}" if gpu["least_uj"] else "",
        )
        for gpu in result["gpus"]
    ]
    header = ("processor", "µs", "ours faster", "mJ", "ours less", "least µs", "least mJ")
    return _table(header, rows) + _provenance(result | {"tools": result["measured_with"]})


def _scaling_errors() -> str:
    result = _measured("silicon")
    rows = [
        (
            row["metric"],
            row["method"],
            row["source"],
            row["target"],
            f"{row['predicted']:,.4g}",
            f"{row['measured']:,.4g}",
            f"{row['error']:+.0%}",
        )
        for row in result["scaling"]
    ]
    header = ("of", "method", "from", "to", "predicted", "measured", "error")
    units = "\nPeriod of the highest clock in ns, switching per token in pJ, area in µm².\n"
    return _table(header, rows) + units


def _scaled() -> str:
    result = _measured("silicon")
    rows = [
        (
            row["metric"],
            row["library"],
            f"**{row['method']}**" if row["chosen"] else row["method"],
            f"{row['own']:,.4g}",
            f"{row['factor']:.4g}",
            f"{row['value']:,.4g}",
            _error(row["error"]),
        )
        for row in result["scaled"]
    ]
    header = ("of", "library", "method", "in its own node", "factor", "at 28 nm", "error")
    return _table(header, rows)


def _heads_at_28nm() -> str:
    result = _measured("silicon")
    rows = [
        (
            f"`{row['head']}`",
            f"{1 / row['period_ns']:.2f}" if row["period_ns"] else "",
            f"{row['energy_pj']:,.0f}" if row["energy_pj"] else "",
            f"{row['area_um2'] / 1e6 / row['heads']:.4f}" if row["area_um2"] else "",
        )
        for row in result["heads"]
    ]
    return _table(("head", "highest clock, GHz", "pJ per token and head", "mm² per head"), rows)


def _metrics() -> str:
    rules = read_rules()
    rows = [
        (
            f"{metric.title}, {metric.unit}",
            f"{rules['values'][metric.name]:,.6g}",
            f"{metric.limit(rules['values'][metric.name]):,.6g}",
        )
        for metric in METRICS
        if metric.name in rules["values"]
    ]
    return _table(("metric", "holds", "may be"), rows)


def _timing() -> str:
    result = _measured("timing")
    rows = []
    for path in result["paths"]:
        names = [name.replace("_", " ") for name in path["blocks"]]
        rows.append(
            (
                path["block"].replace("_", " "),
                f"{path['slack_ps']:,.0f}",
                len(path["stages"]),
                " → ".join(names),
                f"`{path['from']}`",
                f"`{path['to']}`",
            )
        )
    bare, flow = result["no_wires"], result["flow"]
    text = (
        f"\nHighest clock {result['fmax_mhz']:,.0f} MHz with the wires assumed, "
        f"{bare['fmax_mhz']:,.0f} MHz without any, on {result['library']['name']} (FO4 "
        f"{result['library']['fo4_ps']:.0f} ps); slack in ps at the former. Mapped for "
        f"{flow['clock_ps']:,.0f} ps: {result['cells']:,} cells, {result['gate_equivalents']:,.0f} "
        f"gates, {result['flip_flops']:,} flip-flops behind {result['clock_gates']} clock gates. "
        f"OpenSTA {result['opensta']}."
    )
    header = ("ends in", "slack", "cells", "way", "from", "to")
    return _table(header, rows) + text + _provenance(result)


def _energy() -> str:
    result = _measured("energy")
    parts = list(result["parts"])
    blocks = sorted(result["blocks"].items(), key=lambda item: -item[1]["energy_pj"])
    rows = [
        (
            name.replace("_", " "),
            f"{block['energy_pj']:,.1f}",
            *(f"{block['parts'][part]:,.1f}" for part in parts),
        )
        for name, block in (*blocks, ("whole head", result))
    ]
    sample, idle = result["sample"], result["idle"]
    text = (
        f"\npJ per token and head, {result['library']['name']}, {result['tokens']} real tokens, "
        f"one every {result['interval_clk']:g} clocks, in a window that "
        f"{result['window_filled_with']} others filled. Glitches: {result['glitch_share']:.1%}, "
        f"measured over {sample['tokens']} tokens, which differ from all {sample['of_tokens']} by "
        f"{sample['error']:.1%}. Idle: {idle['energy_pj_per_clk']:,.1f} pJ a clock. Every output "
        f"was compared with the source's in {result['compared']['clocks']:,} clocks."
    )
    header = ("block", "all", *(part.replace("_", " ") for part in parts))
    return _table(header, rows) + text + _provenance(result)


def _energy_phases() -> str:
    result = _measured("energy")
    rows = [
        (name, f"{result['phase_clk'][name]:g}", f"{pj:,.1f}")
        for name, pj in result["phases"].items()
    ]
    return _table(("phase", "clocks", "pJ above idle"), rows)


def _equivalence() -> str:
    result = _measured("equivalence")
    rows = [
        (row["head"], f"{row['cells']:,}", f"{row['flip_flops']:,}", row["clock_gates"], "proved")
        for row in result["rows"]
    ]
    header = ("head", "cells", "flip-flops", "clock gates", "netlist equals source")
    return _table(header, rows) + _provenance(result)


def _bench() -> str:
    result = _measured("bench")
    rows = [
        (
            row["name"],
            f"{row['ours_s'] * 1e3:.3f} ms",
            f"{row['reference_s'] * 1e3:.3f} ms",
            f"{row['ratio']:.2f}",
            "" if row["limit"] is None else f"{row['limit']:.2f}",
            f"{row['ns_per_product']:.0f} ns" if "ns_per_product" in row else "",
        )
        for row in result["rows"]
    ]
    header = ("measurement", "ours", "reference", "ratio", "limit", "per vector and tile")
    return _table(header, rows) + _provenance(result)


def _montecarlo() -> str:
    result = _measured("montecarlo")
    rows = [
        (
            f"{when} trim",
            *(f"{result[when][key]:.4f}" for key in ("mean", "median", "p95", "p99", "worst")),
            f"{result[when]['yield']:.1%}",
        )
        for when in ("before", "after")
    ]
    good = f"error at most {result['limit']:g}"
    header = (f"{result['devices']} devices", "mean", "median", "95 %", "99 %", "worst", good)
    setting = ", ".join(f"`{name}` {value}" for name, value in result["setting"].items())
    return _table(header, rows) + f"\nDevices: {setting}.\n" + _provenance(result)


def _retention_map() -> str:
    result = _measured("retention_map")
    note = (
        "\nDroop in steps of the code; what does not hold has the refresh energy per token behind "
        "it. \\* is the time per token that the published decay assumes.\n"
    )
    header = [name.replace("*", "\\*") for name in table_header(result)]
    return _table(header, table_rows(result)) + note + _provenance(result)


def _analog_energy() -> str:
    results = [_measured("analog_energy"), _measured("analog_energy_sky130-tt")]
    phases = ("write_pj", "integrate_pj", "convert_pj", "drive_pj", "readout_pj")

    def figures(row: dict[str, Any]) -> list[str]:
        return ["" if row.get(name) is None else f"{row[name]:.0f}" for name in phases]

    rows = [
        (
            f"`{result['device']}`",
            row["operands"],
            f"{row['q_mean_ns']:.2f}",
            f"{row['phi_mean_ns']:.2f}",
            *figures(row),
        )
        for result in results
        for row in result["rows"]
    ]
    rows.append(("as printed", "", "", "", *figures(results[0]["published"])))
    header = ("device", "operands", "mean Q pulse, ns", "mean phi, ns")
    names = ("write and DACs, pJ", "Q.K, pJ", "phi, pJ", "phi.V, pJ", "counts, pJ")
    return _table((*header, *names), rows) + "".join(map(_provenance, results))


def _tokens() -> str:
    result = _measured("tokens")
    meanings = {
        "phi_correlation": "correlation of phi with the softmax weight, mean over queries",
        "rank_correlation": "rank correlation of S with the score, mean over queries",
        "phi_above_zero": "pairs of query and token with a pulse",
        "phi_saturated": "pairs of query and token with the longest pulse",
        "result_saturated": "results of sub-tile and lane at the limit",
        "q_clipped": "query codes at either end",
    }
    rows = [(text, f"{result[name]:.3f}") for name, text in meanings.items()]
    source = (
        f"\nLayer {result['layer']}, head {result['head']}, {result['tokens']} tokens of "
        f"“{result['text']}”, seed {result['seed']}."
    )
    return _table(("figure", "value"), rows) + source + _provenance(result)


def _retention() -> str:
    result = _measured("retention")
    shown = {1e-6: "1 µs", 1e-4: "100 µs", 1e-2: "10 ms"}
    policies = dict.fromkeys((row["policy"], row["budget"]) for row in result["rows"])
    tables = []
    for figures in (("output_error", "effective_tokens"), ("sums_differ", "phi_correlation")):
        header = ["measure", "clocks"]
        for figure in figures:
            header += [f"{figure.replace('_', ' ')}, {time}" for time in shown.values()]
        lines = []
        for policy, budget in policies:
            rows = {
                row["token_s"]: row
                for row in result["rows"]
                if (row["policy"], row["budget"]) == (policy, budget)
            }
            share = rows[1e-6].get("refresh_clk_share")
            line = ["none" if budget is None else f"{policy} at {budget:g} τ"]
            line.append("0" if share is None else f"{share:.1%}")
            for figure in figures:
                number = "{:,.0f}" if figure == "effective_tokens" else "{:.3f}"
                line += [number.format(rows[time][figure]) for time in shown]
            lines.append(line)
        tables.append(_table(header, lines))
    source = (
        f"\n{result['queries']} queries of {result['model']}, layer {result['layer']}, head "
        f"{result['head']}, text “{result['text']}”, seed {result['seed']}; window "
        f"{result['window']}, τ = {result['tau_s'] * 1e3:g} ms."
    )
    return "\n".join(tables) + source + _provenance(result)


def _mutants() -> str:
    result = _measured("mutants")
    sources = result["source_mutants"]
    pools = list(result["by_pool"].values())
    rows = [
        (
            name,
            figures["count"],
            figures["caught"],
            f"{figures['caught'] / figures['count']:.1%}",
            figures.get("compared", ""),
        )
        for name, figures in (
            *((pool["netlist"], pool) for pool in pools),
            ("**netlists together**", result),
            ("sources", sources),
        )
    ]
    header = ("mutants of the", "put in", "caught", "share", "with the original compared")
    text = _table(header, rows)
    live = result["count"] - result["equivalent"]
    text += (
        f"\nOf the {result['survived']} survivors {result['equivalent']} are proved to be "
        f"equivalent; of the {live} others {result['caught'] / live:.1%} are caught. The campaign "
        f"took {result['seconds'] / 60:.0f} minutes, of sources {sources['seconds'] / 60:.0f}.\n"
    )
    blocks = [
        (f"`{name}`", figures["count"], figures["caught"])
        for name, figures in result["by_block"].items()
    ]
    text += "\n" + _table(("block", "put in", "caught"), blocks)
    survivors = [
        (f"`{mutant}`", why)
        for figures in (result, sources)
        for mutant, why in figures["explanations"].items()
    ]
    if survivors:
        text += "\n" + _table(("survivor", "why"), survivors)
    return text + f"\nSeed {result['seed']}, {result['simulator']}." + _provenance(result)


def _soak() -> str:
    result = _measured("soak")
    names = ("packets", "malformed", "resets", "answers", "mismatches", "clocks")
    rows = [(name, f"{result[name]:,}") for name in names]
    rows += [
        (f"times: {name.replace('_', ' ')}", f"{count:,}")
        for name, count in result["things"].items()
    ]
    rows.append(("time", f"{result['seconds']:.0f} s"))
    rows.append(("processor time", f"{result['cpu_seconds']:.0f} s"))
    how = (
        f"\n{result['params']['schedule'].capitalize()} schedule, seed {result['seed']}, "
        f"{result['processes']} simulations at a time, {result['simulator']}."
    )
    return _table(("figure", "value"), rows) + how + _provenance(result)


def _gates() -> str:
    result = _measured("gates")
    columns = ("cells", "flip_flops", "packets", "lanes_compared", "mismatches", "clocks")
    rows = [(row["head"], *(f"{row[name]:,}" for name in columns)) for row in result["rows"]]
    header = ("head", "cells", "flip-flops", "packets", "integers", "mismatches", "clocks")
    how = f"\nCells of {result['library']}, seed {result['seed']}, {result['simulator']}."
    return _table(header, rows) + how + _provenance(result)


def _cosim_all() -> str:
    result = _measured("cosim_all")
    rows = [
        (
            f"`{row['preset']}`",
            row["heads"],
            f"{row['tokens']:,}",
            f"{row['lanes_compared']:,}",
            row["mismatches"],
            f"{row['interval_clk']:g}",
            f"{row['tokens_per_second']:.0f}",
        )
        for row in result["rows"]
    ]
    header = ("preset", "heads", "tokens", "integers", "mismatches", "interval", "tokens/s")
    how = f"\nStreams stall in {result['stall_probability']:.0%} of clocks; {result['simulator']}."
    return _table(header, rows) + how + _provenance(result)


def _calibrate() -> str:
    result = _measured("calibrate")
    meanings = {
        "lane_rms": "offset of a lane, root mean square over lanes",
        "rms": "difference of a sum, root mean square",
        "mean_abs": "difference of a sum, mean magnitude",
        "max_abs": "difference of a sum, largest",
    }
    rows = [
        (text, f"{result['before'][name]:.3g}", f"{result['after'][name]:.3g}")
        for name, text in meanings.items()
    ]
    lanes = len(result["trims"]) * len(result["trims"][0])
    how = (
        f"\nIn counts, against ideal converters. Offsets of {result['sigma_counts']:g} counts "
        f"(standard deviation) per sub-tile and lane, seed {result['seed']}; {lanes} lanes; "
        f"estimated from {result['queries']} queries over {result['tokens']} known tokens "
        f"({result['method']}), checked on {result['held_out']} others; {result['device']}."
    )
    return _table(("what", "before", "after"), rows) + how + _provenance(result)


def _llm() -> str:
    result = _measured("llm")
    how = (
        f"\n{result['model']}, {result['rows'][0]['layers']} layers replaced; "
        f"texts {_llm_texts(result)}, {result['tokens']} tokens each; mapped on "
        f"{result['calibration_tokens']} tokens of other texts.\n"
    )
    return _llm_rows(result) + how + _provenance(result)


def _llm_adapt() -> str:
    run = _measured("llm_adapt")
    study = run["study"]
    rows = [
        (f"{point['step']:.0f}", f"{point['divergence']:.3f}", f"{point['ratio']:.2f}")
        for point in run["curve"]
        if point["step"] % 20 == 0 or point["step"] == study["steps"]
    ]
    how = (
        f"\n{study['steps']} steps of {study['batches']} batches, about "
        f"{study['tokens']} tokens each, rank {study['rank']}, seed {study['seed']}, "
        f"{run['seconds'] / 60:.0f} minutes on two "
        f"shared cores; {run['bytes'] / 1e6:.1f} MB. On a play that is neither trained nor "
        "evaluated on.\n"
    )
    header = ("step", "divergence, nats per token", "perplexity over the teacher's")
    return _table(header, rows) + how + _provenance(run)


def _llm_seeds() -> str:
    result = _measured("llm_adapted")
    how = f"\nTexts {_llm_texts(result)}, {result['tokens']} tokens each.\n"
    return _llm_rows(result) + how + _provenance(result)


def _llm_bench() -> str:
    result = _measured("llm_bench")
    rows = [
        (
            row["what"],
            row["context"],
            f"{row['softmax_s']:.2f} s",
            f"{row['hardware_s']:.2f} s",
            f"{row['ratio']:.2f}",
            f"{row['limit']:.1f}",
        )
        for row in result["rows"]
    ]
    how = (
        f"\nOne sequence, {result['threads']} threads, the fastest of {result['rounds']} in turn.\n"
    )
    header = ("what", "context", "softmax", "hardware model", "ratio", "at most")
    return _table(header, rows) + how + _provenance(result)


def _llm_texts(result: dict[str, Any]) -> str:
    return " / ".join(dict.fromkeys(row["text"] for row in result["rows"]))


def _llm_rows(result: dict[str, Any]) -> str:
    rows = []
    texts = list(dict.fromkeys(row["text"] for row in result["rows"]))
    keys = [(row["case"], row["seed"], row["context"]) for row in result["rows"]]
    for case, seed, context in dict.fromkeys(keys):
        by_text = {
            row["text"]: row
            for row, key in zip(result["rows"], keys, strict=True)
            if key == (case, seed, context)
        }
        cells = [f"{by_text[text]['perplexity']:.1f}" for text in texts]
        ratios = [f"{by_text[text]['ratio']:.2f}" for text in texts]
        shares = [f"{by_text[text]['recovered']:.0%}" for text in texts]
        name = case if seed is None else f"{case}, seed {seed}"
        rows.append((name, context, " / ".join(cells), " / ".join(ratios), " / ".join(shares)))
    header = ("attention", "context", "perplexity", "over the teacher's", "share of the gap")
    return _table(header, rows)


#: What `sim.llm.activity` measures, in words.
_ACTIVITY = {
    "active": "pulses of pairs seen that are longer than nothing",
    "saturated": "pulses of full length",
    "mean_pulse": "mean pulse, in units of the longest",
    "full_scale": "sub-tile results at full scale",
    "q_clipped": "elements of queries clipped",
    "k_clipped": "elements of keys clipped",
    "v_clipped": "elements of values clipped",
}


def _llm_activity() -> str:
    activity = _measured("llm")["activity"]
    rows = []
    for name, words in _ACTIVITY.items():
        shares = [
            (x, layer["layer"], head) for layer in activity for head, x in enumerate(layer[name])
        ]
        least, middle, most = (sorted(shares)[at] for at in (0, len(shares) // 2, -1))
        ends = [f"{x:.1%} (layer {layer}, head {head})" for x, layer, head in (least, most)]
        rows.append((words, ends[0], f"{middle[0]:.1%}", ends[1]))
    return _table(("share", "least", "median", "most"), rows)


def _llm_levers() -> str:
    result = _measured("llm_levers")
    rows = [
        (
            row["lever"],
            f"{row['error']:.3f}",
            row["clocks"],
            row["rows"],
            row["lanes"],
            f"{row['host_macs']:,}",
            row["host_bytes"],
        )
        for row in result["rows"]
    ]
    header = ("lever", "error", "clocks", "rows", "lanes", "host MACs", "bytes")
    layers = ", ".join(str(layer) for layer in result["layers"])
    return _table(header, rows) + f"\nLayers {layers}.\n" + _provenance(result)


def _llm_published() -> str:
    result = _measured("llm_published")
    rows = []
    for row in result["rows"]:
        shares = [f"{row[name]:.0%}" for name in ("recovered_least", "recovered_most")]
        spread = f" ({' to '.join(shares)})" if len(row["losses"]) > 1 else ""
        rows.append(
            (
                row["task"],
                row["case"],
                row["steps"],
                f"{row['loss']:.3f}",
                f"{row['perplexity']:.2f}",
                f"{row['accuracy']:.1%}",
                f"{row['recovered']:.0%}{spread}",
            )
        )
    header = ("task", "attention", "steps", "loss", "perplexity", "right", "share of the gap")
    seeds = len(result["seeds"])
    steps = ", ".join(
        f"{each['task']} {each['teacher_steps']}" for each in result["study"]["tasks"]
    )
    how = (
        f"\nLoss in nats per prediction on held-out data; rows with a range are means of {seeds} "
        f"seeds (least to most). The teacher's own steps: {steps}. "
        f"{result['seconds']:.0f} s for everything.\n"
    )
    return _table(header, rows) + how + _provenance(result)


def _llm_published_noise() -> str:
    result = _measured("llm_published")
    factors = result["study"]["factors"]
    rows = []
    for task, case in dict.fromkeys((row["task"], row["case"]) for row in result["noise"]):
        of_case = [r for r in result["noise"] if (r["task"], r["case"]) == (task, case)]
        shares = [
            f"{r['recovered']:.0%} ({r['recovered_least']:.0%} to {r['recovered_most']:.0%})"
            for r in of_case
        ]
        rows.append((task, case, *shares))
    return _table(("task", "nonlinear cell", *(f"x {factor:g}" for factor in factors)), rows)


def _llm_noise() -> str:
    result = _measured("llm_noise")
    study = result["study"]
    rows = []
    for case in study["cases"]:
        cells = []
        for factor in study["factors"]:
            found = [r for r in result["rows"] if (r["case"], r["factor"]) == (case, factor)]
            ratios = [f"{row['ratio']:.2f}" if row["ratio"] < 100 else "> 100" for row in found]
            recovered = sum(row["recovered"] for row in found) / len(found)
            share = f" ({recovered:.0%})" if recovered > -1 else ""
            cells.append(" / ".join(ratios) + share)
        rows.append((case, *cells))
    header = ("not ideal", *(f"x {factor:g}" for factor in study["factors"]))
    figures = result["figures"]
    how = (
        f"\nPerplexity over the ideal arrays', one value per set of devices, and the share of the "
        f"gap of log-likelihood. {study['model']}, {result['layers']} layers mapped; teacher "
        f"{result['teacher']:.1f}, ideal arrays {result['ideal']:.1f} "
        f"({result['ideal_recovered']:.0%}), no attention in those layers {result['control']:.1f}; "
        f"{study['tokens']} tokens of {study['text']}, context {study['context']}. Figures of "
        f"`{study['device']}`: cell {figures['cell_gain_sigma']:.1%} and "
        f"{figures['cell_offset_sigma_ua']:.2f} µA, read noise {figures['read_noise_ua']:.3f} µA, "
        f"converters' gain {figures['score_gain_sigma']:.1%} and "
        f"{figures['output_gain_sigma']:.1%}, offset {figures['score_offset_ua_clk']:.0f} and "
        f"{figures['output_offset_ua_clk']:.0f} µA·clk.\n"
    )
    return _table(header, rows) + how + _provenance(result)


def _generate() -> str:
    runs = [_measured(f"generate_{backend}") for backend in ("functional", "rtl")]
    rows = [
        (
            f"`gaincell generate --backend {name}`",
            len(run["token_ids"]),
            f"{run['integers']:,}",
            f"{run['seconds']:.0f} s",
        )
        for name, run in zip(("functional", "rtl"), runs, strict=True)
    ]
    same = runs[0]["token_ids"] == runs[1]["token_ids"]
    text = runs[1]["text"].strip().replace("\n", "\n> ")
    return (
        _table(("command", "tokens", "integers from devices", "time"), rows)
        + f"\nLayer {runs[1]['layer']}, {runs[1]['heads']} heads; {runs[1]['backend']}. "
        + f"The two back ends wrote {'the same tokens' if same else 'different tokens'}. "
        + f"After “{runs[1]['prompt']}”:\n\n> {text}\n"
        + _provenance(runs[1])
    )


def _formal() -> str:
    result = _measured("formal")
    rows = [
        (row["property"], row["method"], row["depth"], f"{row['seconds']:.1f} s", row["status"])
        for row in result["rows"]
    ]
    return _table(("property", "method", "depth", "time", "status"), rows) + _provenance(result)


def _fpga() -> str:
    result = _measured("fpga")
    for row in result["boards"]:
        wanted = board_params(row["board"]).config_hash
        if row["build_hash"] != wanted:
            raise ValueError(
                f"docs/measured/fpga.json must be of build {wanted} of {row['board']}, "
                f"not {row['build_hash']!r}: run `make fpga BOARD={row['board']}`"
            )
    shares = ("logic", "flip_flops", "block_ram")
    rows = [
        (
            f"`{row['board']}`",
            row["device"],
            f"{row['window']} x {row['rows']} x {row['lanes']}",
            f"{row['target_mhz']:g} MHz",
            f"{row['fmax_mhz']:.1f} MHz",
            *(f"{row[name]:,}, {row[name] / row[f'{name}_of']:.0%}" for name in shares),
            row["multipliers"],
            f"{row['seconds']:.0f} s",
        )
        for row in result["boards"]
    ]
    header = ("board", "device", "window x rows x lanes", "clock", "highest", "logic")
    header += ("flip-flops", "block RAM", "multipliers", "build")
    return _table(header, rows) + _provenance(result)


def _emulation() -> str:
    result = _measured("emulation")
    compared = result["counts_compared"]
    rows = [
        (f"{int(difference):+d}", f"{times:,}", f"{times / compared:.4%}")
        for difference, times in result["differences"].items()
    ]
    rows.append(("within one", "", f"{result['share_within_one']:.4%}"))
    how = (
        f"\nDifference of a sub-tile's counts from the real-valued model's, in counts; "
        f"{compared:,} counts of {result['tokens']:,} tokens of “{result['text']}”, layer "
        f"{result['model_layer']}, head {result['model_head']}, on `{result['board']}`; "
        f"{result['share_of_sums_equal']:.2%} of the sums over sub-tiles are equal."
    )
    return _table(("difference", "counts", "share"), rows) + how + _provenance(result)


def _board_sim() -> str:
    result = _measured("board_sim")
    for row in result["boards"]:
        wanted = for_simulation(board_params(row["board"])).config_hash
        if row["build_hash"] != wanted:
            raise ValueError(
                f"docs/measured/board_sim.json must be of build {wanted} of {row['board']}, "
                f"not {row['build_hash']!r}: run `make board-sim`"
            )
    names = {
        "tokens": "tokens",
        "integers_compared": "integers compared",
        "mismatches": "mismatches",
        "bytes": "bytes on the line",
        "with_repetition/mismatches": "1 % of bytes changed: mismatches",
        "with_repetition/repeated": "requests repeated",
        "without_repetition/answered": "without repetition: tokens answered",
        "without_repetition/reported": "tokens reported lost",
        "without_repetition/wrong": "wrong answers accepted",
    }
    rows = []
    for path, meaning in names.items():
        *outer, name = path.split("/")
        parts = [row.get(outer[0]) if outer else row for row in result["boards"]]
        rows.append((meaning, *(f"{part[name]:,}" if part else "-" for part in parts)))
    header = ("configure, tokens, status, flush, tokens", *(r["board"] for r in result["boards"]))
    how = f"\nReal tokens, {result['simulator']}, seed {result['seed']}."
    return _table(header, rows) + how + _provenance(result)


def _block_interface(module: str, name: str) -> Callable[[], str]:
    def part() -> str:
        doc = inspect.getdoc(getattr(importlib.import_module(f"hw.{module}"), name)) or ""
        return f"```text\n{name}\n\n{doc}\n```\n"

    return part


def _devices() -> str:
    presets = [resolve_device(f"sky130-{corner}") for corner in _CORNERS]
    header = ("figure", *(f"`{preset.name}`" for preset in presets))
    made = presets[0].provenance
    tools = f"ngspice {made['ngspice']}, sky130 {made['sky130']}, seed {made['seed']}"
    drawn = presets[0].mismatch.cells, presets[0].score_converter.converters
    return _table(header, device_rows(presets)) + (
        f"\n`{made['command']}`; {tools}; {drawn[0]} cells and {drawn[1]} converters of each kind "
        f"drawn for mismatch. Decks of tt: `{made['decks']}`.\n"
    )


def _parts() -> dict[str, Callable[[], str]]:
    parts: dict[str, Callable[[], str]] = {
        "head-parameters": _head_parameters,
        "head-ports": _head_ports,
        "control-ports": _interface_ports("Clock, reset and status"),
        "stream-ports": _interface_ports(
            "Token packets, AXI4-Stream", "Result packets, AXI4-Stream"
        ),
        "analog-ports": _interface_ports("Analog boundary"),
        "pipeline-clocks": _pipeline_clocks,
        "interval-bounds": _interval_bounds,
        "bus-widths": _bus_widths,
        "result-slots": _result_slots,
        "head-timing": _head_timing,
        "register-map": _register_map,
        "cosim-figures": _cosim,
        "analog-bench": _bench,
        "montecarlo": _montecarlo,
        "retention-map": _retention_map,
        "analog-energy": _analog_energy,
        "area-blocks": _area,
        "area-variants": _area_variants,
        "published-and-ours": _comparison,
        "published-and-ours-first": lambda: _comparison(first=True),
        "processors": _processors,
        "scaling-errors": _scaling_errors,
        "scaled": _scaled,
        "heads-at-28nm": _heads_at_28nm,
        "metrics": _metrics,
        "timing": _timing,
        "energy": _energy,
        "energy-phases": _energy_phases,
        "equivalence": _equivalence,
        "formal": _formal,
        "mutants": _mutants,
        "retention": _retention,
        "soak": _soak,
        "gates": _gates,
        "cosim-all": _cosim_all,
        "calibrate": _calibrate,
        "fpga": _fpga,
        "emulation": _emulation,
        "board-sim": _board_sim,
        "tokens-figures": _tokens,
        "devices": _devices,
        "llm": _llm,
        "llm-activity": _llm_activity,
        "llm-adapt": _llm_adapt,
        "llm-seeds": _llm_seeds,
        "llm-bench": _llm_bench,
        "llm-levers": _llm_levers,
        "llm-published": _llm_published,
        "llm-published-noise": _llm_published_noise,
        "llm-noise": _llm_noise,
        "generate": _generate,
    }
    for path in sorted((ROOT / "hw").glob("*.py")):
        module = importlib.import_module(f"hw.{path.stem}")
        for name, value in vars(module).items():
            defined = inspect.isclass(value) and value.__module__ == module.__name__
            if defined and issubclass(value, Component):
                parts[f"interface-{name}"] = _block_interface(path.stem, name)
    return parts


def _documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _render(text: str, parts: dict[str, Callable[[], str]]) -> tuple[str, list[str]]:
    """Return the text with every part as it should be, and the names of the parts that differ."""
    stale: list[str] = []

    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in parts:
            raise ValueError(f"generated part must be one of {sorted(parts)}, not {name!r}")
        body = parts[name]()
        if body != match["body"]:
            stale.append(name)
        return f"{match['begin']}{body}{match['end']}"

    return _PART.sub(replace, text), stale


def update_documents() -> list[Path]:
    """Copy new results and pictures beside the documents and rewrite their generated parts.

    Returns
    -------
    list of Path
        The documents that changed.

    Raises
    ------
    ValueError
        A result is of another configuration than the default head's; nothing is changed then.
    """
    report = ROOT / "build" / "report"
    if report.exists():
        write_report(report)  # silicon.json and pictures follow from other results
    found = [name for name in _RESULTS if (report / f"{name}.json").exists()]
    for name in found:  # before anything is overwritten
        _measured(name, report)
    for name in found:
        MEASURED.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(report / f"{name}.json", MEASURED / f"{name}.json")
    if "silicon" in found:
        keep_libraries(_measured("silicon", report))
    for name in _PICTURES:
        if (report / name).exists():
            (ROOT / "docs" / "images").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(report / name, ROOT / "docs" / "images" / name)
    images = ROOT / "docs" / "images"
    draw_pipeline(images / "pipeline", _pipeline())[1].unlink()
    corners = [resolve_device(f"sky130-{corner}") for corner in _CORNERS]
    draw_currents(images / "cell_current", corners)[1].unlink()
    draw_droop(images / "cell_droop", corners[0])[1].unlink()
    draw_converters(images / "converter_transfer", corners)[1].unlink()
    parts, changed = _parts(), []
    for path in _documents():
        before = path.read_text(encoding="utf-8")
        after, _ = _render(before, parts)
        if after != before:
            write_text_whole(path, after)
            changed.append(path)
    return changed


def stale_documents() -> list[tuple[Path, str]]:
    """Documents and parts that are not what their command gives today.

    Raises
    ------
    ValueError
        A document names an unknown part, or a measured figure is of another configuration.
    """
    parts = _parts()
    return [
        (path, name)
        for path in _documents()
        for name in _render(path.read_text(encoding="utf-8"), parts)[1]
    ]
