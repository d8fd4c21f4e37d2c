"""A head as other teams take it: Verilog, FuseSoC core file, port documents, an instantiation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hw.layer import Port
from hw.params import HeadParams
from hw.presets import preset
from sim.pipeline import record_pipeline
from sim.results import ROOT, write_text_whole
from synth.register_files import markdown_table, write_register_files
from synth.verilog import write_verilog

__all__ = ["package_params", "package_version", "port_groups", "wavedrom", "write_package"]

TEMPLATES = ROOT / "packaging"

#: Interfaces by the beginnings of their ports' names, in the order of the documents.
_INTERFACES = (
    ("Token packets, AXI4-Stream", ("s_axis_",)),
    ("Result packets, AXI4-Stream", ("m_axis_",)),
    ("Registers, AXI4-Lite", ("s_axil_",)),
    ("Analog boundary", ("ana_",)),
)
_CONTROL = "Clock, reset and status"


def package_version() -> str:
    """Version of the package, as installed."""
    return metadata.version("gaincell-attention")


def package_params(name: str, fields: Mapping[str, Any]) -> HeadParams:
    """Parameters of a preset, some replaced.

    Raises
    ------
    ValueError
        There is no such preset or parameter, or a value is out of range.
    TypeError
        A value is not of its kind.

    """
    params = preset(name)
    unknown = sorted(set(fields) - set(params.as_dict()))
    if unknown:
        known = ", ".join(params.as_dict())
        raise ValueError(f"a parameter must be preset or one of {known}, not {unknown[0]!r}")
    return replace(params, **fields)


def port_groups(ports: list[Port]) -> list[tuple[str, list[Port]]]:
    """Ports by interface: clock, reset and what belongs to none first."""
    groups: dict[str, list[Port]] = {_CONTROL: []} | {name: [] for name, _ in _INTERFACES}
    for port in ports:
        for name, beginnings in _INTERFACES:
            if port.name.startswith(beginnings):
                groups[name].append(port)
                break
        else:
            groups[_CONTROL].append(port)
    return [(name, members) for name, members in groups.items() if members]


def wavedrom(wave: Mapping[str, Any]) -> str:
    """Recorded signals as WaveDrom's JSON, one line each; of the streams and the boundary."""
    lines = []
    for signal in wave["signals"]:
        text, before = "", None
        for value in signal["values"]:
            text += "." if value == before else str(value)
            before = value
        lines.append(f'    {{"name": {json.dumps(signal["name"])}, "wave": "{text}"}}')
    clocks = len(wave["signals"][0]["values"])
    clock = f'    {{"name": "clk", "wave": "p{"." * (clocks - 1)}"}}'
    signals = ",\n".join([clock, *lines])
    return (
        f'{{\n  "signal": [\n{signals}\n  ],\n  "config": {{"hscale": 0.5, "skin": "narrow"}}\n}}'
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["bits"] = lambda port: f"[{port.width - 1}:0] " if port.width > 1 else ""
    environment.filters["member"] = lambda name: name.removeprefix("ana_")
    return environment


def write_package(params: HeadParams, folder: Path, *, vlnv: str | None = None) -> list[Path]:
    """Write everything that another team needs to build a head in.

    Parameters
    ----------
    params
        The head, or layer.
    folder
        Where to; other files in it are left alone.
    vlnv
        Name of the FuseSoC core; ``gaincell:attention:`` and top module and version by default.

    Returns
    -------
    list of Path
        The files, all written whole; last the folder of the registers' HTML pages.

    """
    top = params.top
    verilog = write_verilog(params, folder / f"{top}.v")
    interface = json.loads(verilog.with_suffix(".json").read_text(encoding="utf-8"))
    groups = port_groups([Port(**port) for port in interface["ports"]])
    outside = [(name, ports) for name, ports in groups if name != "Analog boundary"]
    digital = [
        (name, [port for port in ports if port.name not in ("clk", "rst")])
        for name, ports in outside
    ]
    *registers, pages = write_register_files(params, folder / "registers")
    register_names = [path.relative_to(folder).as_posix() for path in registers]
    documents = [f"{top}.md", f"{top}.json", "LICENSE"]
    documents += [name for name in register_names if not name.endswith(".h")]
    facts = ("latency_clk", "query_latency_clk", "interval_clk", "refresh_delay_clk")
    widths = (
        "token_beats",
        "result_beats",
        "window",
        "slot_bits",
        "codes_per_beat",
        "sum_bits",
        "result_bits",
    )
    spans = ("result_slot_bits", "lanes_per_beat", "integrate_clk", "convert_clk", "readout_clk")
    content = {
        "top": top,
        "heads": params.heads,
        "vlnv": vlnv or f"gaincell:attention:{top}:{package_version()}",
        "config_hash": params.config_hash,
        "parameters": params.as_dict(),
        "derived": {name: interface[name] for name in facts}
        | {name: getattr(params, name) for name in (*widths, *spans)},
        "groups": groups,
        "all": [port for _, ports in groups for port in ports if port.name not in ("clk", "rst")],
        "analog": dict(groups)["Analog boundary"],
        "digital": [(name, ports) for name, ports in digital if ports],
        "documents": documents,
        "headers": [name for name in register_names if name.endswith(".h")],
        "registers": markdown_table(params),
        "wavedrom": wavedrom(record_pipeline(params, packets=3)),
    }
    environment = _environment()
    written = [verilog, verilog.with_suffix(".json")]
    for template, name in (
        ("head.core.j2", f"{top}.core"),
        ("head_pkg.sv.j2", f"{top}_pkg.sv"),
        ("ports.md.j2", f"{top}.md"),
        ("gain_cell_arrays.sv.j2", "gain_cell_arrays.sv"),
        ("example_top.sv.j2", "example_top.sv"),
    ):
        path = folder / name
        write_text_whole(path, environment.get_template(template).render(content))
        written.append(path)
    for source in (ROOT / "LICENSE", ROOT / "synth" / "verilator_waivers.vlt"):
        written.append(Path(shutil.copyfile(source, folder / source.name)))
    return [*written, *registers, pages]
