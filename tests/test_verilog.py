"""The generated Verilog: deterministic, without paths, its ports golden, fit for every simulator.

After a change of ports that is meant, rewrite the golden files from the root of the checkout::

    python -m tests.test_verilog

and look at what changed in them before committing them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from hw.layer import AttentionLayer, layer_ports
from hw.params import READOUTS, SCHEDULES, HeadParams
from hw.presets import PRESETS
from sim.results import ROOT
from synth.verilog import component_rtlil, interface_json, write_verilog
from synth.yosys import YosysError, run_yosys

#: Presets whose ports are golden, by top module.
GOLDEN = {
    "attention_head": ("default", "streaming", "refresh"),
    "attention_layer": ("layer12",),
}


def golden_file(top: str) -> Path:
    return Path(__file__).parent / "golden" / f"{top}_ports.json"


def verilog_ports(text: str, top: str) -> list[dict[str, object]]:
    """Name, direction and width of the top module's ports, in the order of its header."""
    module = re.search(rf"^module {top}\((.*?)\);$(.*?)^endmodule", text, re.S | re.M)
    assert module, f"no module {top}"
    order = [name.strip() for name in module[1].split(",")]
    declared: dict[str, tuple[str, int]] = {}
    for direction, high, low, name in re.findall(
        r"^\s*(input|output|inout)\s+(?:\[(\d+):(\d+)\]\s+)?(\S+?)\s*;$", module[2], re.M
    ):
        assert name not in declared
        declared[name] = (direction, int(high) - int(low) + 1 if high else 1)
    assert sorted(order) == sorted(declared)
    return [
        {
            "name": name,
            "direction": declared[name][0].removesuffix("put"),
            "width": declared[name][1],
        }
        for name in order
    ]


def constant_processes(text: str) -> list[str]:
    """Combinational processes that read no signal: Icarus would never run them."""
    found = []
    for header, body in re.findall(r"^  (always @\*)(.*?)(?=^  \S|^endmodule)", text, re.S | re.M):
        # Yosys gives each process a read of a signal that never changes; it triggers nothing.
        body = re.sub(r"if \(\\\S*verilog_backend\S*\s*\)\s*begin\s*end", "", body)
        read = " ".join(re.findall(r"(?:if|casez?|casex)\s*\((.*?)\)\s*(?:begin)?$", body, re.M))
        read += " ".join(re.findall(r"<?=(.*?);", body, re.S))
        if not re.search(r"\\\S|(?<!['\w$])[A-Za-z_]", re.sub(r"\d*'s?[bodh][\w?]+", "", read)):
            found.append(header + body)
    return found


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    """Verilog file of a preset, generated once, by whichever worker is the first to need it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "verilog"

    def get(name: str) -> Path:
        path = folder / name / f"{PRESETS[name].top}.v"
        written = path.with_suffix(".json").exists()  # the last of the two, and whole
        return path if written else write_verilog(PRESETS[name], path)

    return get


# The three groups are the twelve heads' layer with fewer heads.
every_preset = pytest.mark.parametrize("name", [name for name in PRESETS if name != "groups3"])


# --- determinism, paths ------------------------------------------------------------------------
GENERATE = (
    "import sys; from pathlib import Path; from hw.presets import PRESETS;"
    "from synth.verilog import write_verilog;"
    "[write_verilog(PRESETS[n], Path(sys.argv[1]) / n / 'h.v') for n in sys.argv[2:]]"
)


@pytest.mark.parametrize("names", (("streaming", "tiny-layer", "slow-write"),), ids="-".join)
def test_two_processes_write_the_same_bytes(names, tmp_path, monkeypatch):
    for hash_seed in ("1", "4711"):
        monkeypatch.setenv("PYTHONHASHSEED", hash_seed)
        folder = tmp_path / f"seed{hash_seed}"
        subprocess.run([sys.executable, "-c", GENERATE, folder, *names], cwd=ROOT, check=True)
    for name in names:
        for file in ("h.v", "h.json"):
            one, other = (tmp_path / f"seed{seed}" / name / file for seed in ("1", "4711"))
            assert one.read_bytes() == other.read_bytes(), f"{name}/{file}"


@every_preset
def test_no_absolute_path(name, generated):
    path = generated(name)
    for text in (path.read_text(encoding="utf-8"), path.with_suffix(".json").read_text()):
        assert str(ROOT) not in text
        assert tempfile.gettempdir() not in text
        assert sys.prefix not in text
        # Division is no operator of ours, so a slash is a comment or a path.
        assert not re.search(r"(?<![/*])/(?![/*])", text)
        assert ".py" not in text, "no source locations"


@every_preset
def test_carries_its_configuration(name, generated):
    path, params = generated(name), PRESETS[name]
    title = path.read_text(encoding="utf-8").splitlines()[0]
    assert title.startswith(f"// {params.top}, configuration {params.config_hash}: {{")
    assert HeadParams(**json.loads(title.partition(": ")[2])) == params
    interface = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert interface["module"] == params.top
    assert interface["config_hash"] == params.config_hash
    assert HeadParams(**interface["parameters"]) == params


# --- ports -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("top", "name"), [(top, name) for top, names in GOLDEN.items() for name in names]
)
def test_ports_are_golden(top, name, generated):
    golden = json.loads(golden_file(top).read_text(encoding="utf-8"))
    ports = verilog_ports(generated(name).read_text(encoding="utf-8"), top)
    assert ports == golden[name], "see the top of this file if the change is meant"


@pytest.mark.parametrize("top", GOLDEN)
def test_golden_file_holds_nothing_else(top):
    assert sorted(json.loads(golden_file(top).read_text("utf-8"))) == sorted(GOLDEN[top])


def by_name(params: HeadParams) -> dict[str, tuple[str, int]]:
    return {port.name: (port.direction, port.width) for port in layer_ports(params)}


def test_streaming_adds_the_banks_only():
    """A design around the simple head takes the streaming one by connecting three more lines."""
    simple, streaming = by_name(PRESETS["simple"]), by_name(PRESETS["streaming"])
    banks = ("ana_scores_bank", "ana_convert_bank", "ana_readout_bank")
    assert streaming == simple | dict.fromkeys(banks, ("out", 1))


def test_features_add_no_port():
    """What a head has of sinks, ages, shots, trims, refresh and self-test is behind registers."""
    assert by_name(PRESETS["streaming"]) == by_name(PRESETS["default"])
    assert by_name(PRESETS["default"]) == by_name(PRESETS["refresh"])


def test_a_layer_has_streams_for_each_head():
    """And one schedule: of the analog side, only what carries codes, pulses and levels widens."""
    head, layer = by_name(PRESETS["default"]), by_name(PRESETS["layer12"])
    streams = {name for name in head if "_axis_" in name}
    assert len(streams) == 8
    each = {
        re.sub("_axis_", f"_axis_{n}_", name): head[name] for name in streams for n in range(12)
    }
    assert {name: port for name, port in layer.items() if "_axis_" in name} == each
    wide = {name for name in head.keys() - streams if layer[name] != head[name]}
    assert wide == {
        "ana_k_code", "ana_v_code", "ana_q_pulse", "ana_s_level", "ana_a_level", "ana_out_pulse",
        "ana_out_sign",
    }  # fmt: skip
    assert all(layer[name] == (head[name][0], 12 * head[name][1]) for name in wide)


@every_preset
def test_json_agrees_with_the_verilog(name, generated):
    path = generated(name)
    interface = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    stated = {port["name"]: (port["direction"], port["width"]) for port in interface["ports"]}
    actual = {
        port["name"]: (port["direction"], port["width"])
        for port in verilog_ports(path.read_text(encoding="utf-8"), PRESETS[name].top)
    }
    assert len(stated) == len(interface["ports"])
    assert stated == actual
    assert all(port["meaning"].endswith(".") for port in interface["ports"])
    assert stated.keys() - {"clk", "rst"} == {port.name for port in layer_ports(PRESETS[name])}


@pytest.mark.parametrize(
    ("name", "heads", "interval_clk"),
    (("simple", 1, 54), ("simple", 2, 54), ("streaming", 1, 20), ("streaming", 2, 20)),
)
def test_json_figures(name, heads, interval_clk):
    layer = AttentionLayer(replace(PRESETS[name], heads=heads))
    component_rtlil(layer, "top")
    interface = json.loads(interface_json(layer))
    names = ("latency_clk", "query_latency_clk", "interval_clk", "refresh_delay_clk")
    assert [interface[name] for name in names] == [55, 51, interval_clk, 0]
    assert (interface["token_beats"], interface["result_beats"]) == (13, 17)
    assert interface["ports"][2] == asdict(layer.ports[0])


# --- fit for simulators ------------------------------------------------------------------------
@every_preset
def test_no_process_of_constants(name, generated):
    assert constant_processes(generated(name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", ("tiny", "three-subtiles"))
def test_no_process_of_constants_with_counters(name, tmp_path):
    params = replace(PRESETS[name], readout="counter")
    text = write_verilog(params, tmp_path / "h.v").read_text(encoding="utf-8")
    assert constant_processes(text) == []


def test_processes_of_constants_are_found():
    trigger = "    if (\\$auto$verilog_backend.cc:2505:dump_module$3 ) begin end\n"
    process = "module m;\n  always @* begin\n{}  end\nendmodule\n"
    for body in ("    \\$5  = 4'h0;\n", "    x[1:0] = 2'b1x;\n    x [2] = 1'h1;\n"):
        assert len(constant_processes(process.format(trigger + body))) == 1, body
    for body in (
        "    \\$5  = \\$4 ;\n",
        "    x = 4'h0;\n    if (enable) begin\n      x = 4'h1;\n    end\n",
        "    x = 4'h0;\n    casez (index)\n      2'h0:\n        x = 4'h1;\n    endcase\n",
        "    x = { 3'h0, y };\n",
    ):
        assert constant_processes(process.format(trigger + body)) == [], body
    both = process.format(trigger + "    x = 1'h0;\n").replace(
        "endmodule", "  always @* begin\n    z = y;\n  end\nendmodule"
    )
    assert len(constant_processes(both)) == 1


def test_yosys_check_is_an_error(tmp_path):
    """What `write_verilog` relies on: a design with a loop does not pass."""
    looped = tmp_path / "loop.il"
    looped.write_text(
        "module \\m\n  wire output 1 \\y\n  cell $not \\c\n    parameter \\A_SIGNED 0\n"
        "    parameter \\A_WIDTH 1\n    parameter \\Y_WIDTH 1\n    connect \\A \\y\n"
        "    connect \\Y \\y\n  end\nend\n",
        encoding="utf-8",
    )
    with pytest.raises(YosysError, match=r"logic loop|Found 1 problems"):
        run_yosys(f"read_rtlil {looped}", "check -assert")


small_heads = st.builds(
    dict,
    subtiles=st.integers(1, 5),
    columns=st.integers(2, 6),
    rows=st.integers(1, 9),
    lanes=st.integers(1, 9),
    q_bits=st.integers(1, 8),
    kv_bits=st.integers(1, 8),
    count_bits=st.integers(1, 8),
    write_clk=st.integers(1, 8),
    guard_clk=st.integers(1, 3),
    bus_bits=st.sampled_from([32, 64, 128]),
    tag_bits=st.integers(1, 16),
    event_bits=st.integers(4, 32),
    result_slots=st.integers(1, 5),
    heads=st.integers(1, 3),
    sinks=st.integers(0, 1),
    age_bits=st.sampled_from([0, 2, 5]),
    trim_bits=st.sampled_from([0, 2]),
    readout=st.sampled_from(READOUTS),
    schedule=st.sampled_from(SCHEDULES),
    shots=st.booleans(),
    refresh=st.booleans(),
    self_test=st.booleans(),
)
SMALLEST = {
    "subtiles": 1, "columns": 2, "rows": 1, "lanes": 1, "q_bits": 1, "kv_bits": 1, "count_bits": 1,
    "write_clk": 1, "bus_bits": 32, "tag_bits": 1, "event_bits": 4,
}  # fmt: skip


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@example(SMALLEST)
@example(SMALLEST | {"readout": "counter", "subtiles": 3})
@example(SMALLEST | {"schedule": "streaming", "result_slots": 1})
@example(SMALLEST | {"schedule": "streaming", "result_slots": 3, "lanes": 7, "count_bits": 3})
@example(SMALLEST | {"heads": 2, "shots": True, "self_test": True, "age_bits": 2, "sinks": 1})
@example(SMALLEST | {"q_bits": 2, "refresh": True, "trim_bits": 2})
@example(SMALLEST | {"q_bits": 2, "refresh": True, "schedule": "streaming", "age_bits": 2})
@given(small_heads)
def test_any_small_head_passes_the_check(fields):
    try:
        params = HeadParams(**fields)
    except ValueError:
        assume(False)
    with tempfile.TemporaryDirectory() as folder:
        path = write_verilog(params, Path(folder) / "h.v")
        text = path.read_text(encoding="utf-8")
    assert constant_processes(text) == []
    widths = {port["name"]: port["width"] for port in verilog_ports(text, params.top)}
    assert widths == {"clk": 1, "rst": 1} | {port.name: port.width for port in layer_ports(params)}


def write_golden() -> None:
    """Rewrite the golden files."""
    for top, names in GOLDEN.items():
        ports = {}
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                path = write_verilog(PRESETS[name], Path(folder) / "h.v")
                ports[name] = verilog_ports(path.read_text(encoding="utf-8"), top)
        lines = [
            f'  "{name}": [\n' + ",\n".join(f"    {json.dumps(port)}" for port in rows) + "\n  ]"
            for name, rows in ports.items()
        ]
        golden_file(top).parent.mkdir(exist_ok=True)
        golden_file(top).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write_golden()
