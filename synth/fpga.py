"""The job `gaincell fpga`: a board's bitstream, what of the device it takes, its highest clock."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amaranth.build.run import LocalBuildProducts

from boards.targets import BoardTop, Target, target
from sim.board_params import board_params, write_board_result
from sim.results import ROOT, write_text_whole
from synth.yosys import run_yosys

__all__ = ["FpgaError", "find_tool", "measure", "run_fpga"]

_NAME = "top"
_STAGES = {
    "yosys": "synthesis",
    "Packing": "packing",
    "Placing": "placing",
    "Placed": "placing",
    "Creating initial analytic placement": "placing",
    "Routing": "routing",
    "Setting up routing queue": "routing",
    "Running router2": "routing",
}


#: Placements that are tried, if nets cannot be routed or the clock is missed. The first is one that
#: the large board's netlist is known to route from; from the other two it was not routed.
_SEEDS = ("--seed 3", "--seed 2", "--seed 1")
#: Rounds of the router after which no more wires than these may be used twice; a placement that
#: has more is given up, since it was seen to get worse from there on.
_ROUNDS, _WIRES = 40, 150


class FpgaError(RuntimeError):
    """A bitstream could not be built, or misses its clock; says where the log is."""


class _Unroutable(FpgaError):
    """A placement leads nowhere."""


def find_tool(name: str, folder: Path | None = None) -> str:
    """Program of that name: the one that the project installs, else the system's.

    Parameters
    ----------
    name
        Such as ``nextpnr-ecp5``.
    folder
        Where the project's programs are; beside its Python by default.

    Raises
    ------
    FileNotFoundError
        There is neither; the message says how to get it.
    """
    ours = (folder or Path(sys.executable).parent) / f"yowasp-{name}"
    if ours.exists():
        return str(ours)
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(
            f"{name} is missing: `make fpga` installs it, as does "
            "`.venv/bin/pip install -r requirements/fpga.txt`"
        )
    return found


def _number(pattern: str, text: str) -> int:
    """Last number that a pattern finds."""
    found = re.findall(pattern, text)
    if not found:
        raise FpgaError(f"the log of place and route says nothing of {pattern!r}")
    return int(found[-1])


def measure(log: str) -> dict[str, Any]:
    """Figures from a log of nextpnr.

    Raises
    ------
    FpgaError
        It is no whole log.
    """
    clocks = re.findall(r"Max frequency for clock\s+'[^']*': ([\d.]+) MHz \((PASS|FAIL)", log)
    if not clocks:
        raise FpgaError("the log of place and route names no clock")
    if "ICESTORM_LC" in log:
        flip_flops = sum(int(n) for n in re.findall(r"(\d+) LCs used as (?:LUT4 and )?DFF", log))
        logic, block_ram = _number(r"ICESTORM_LC: *(\d+)/", log), r"ICESTORM_RAM: *(\d+)/"
        multipliers = r"ICESTORM_DSP: *(\d+)/"
    else:
        flip_flops = _number(r"Total DFFs: *(\d+)/", log)
        logic, block_ram = _number(r"Total LUT4s: *(\d+)/", log), r"DP16KD: *(\d+)/"
        multipliers = r"MULT18X18D: *(\d+)/"
    return {
        "fmax_mhz": float(clocks[-1][0]),
        "timing_met": clocks[-1][1] == "PASS",
        "logic": logic,
        "flip_flops": flip_flops,
        "block_ram": _number(block_ram, log),
        "multipliers": _number(multipliers, log),
    }


def _place_and_route(
    command: str, folder: Path, tools: dict[str, str], on_stage: Callable[[str], None]
) -> None:
    """Run a command of the build script and watch its log."""
    cache = Path(sys.prefix) / "cache"  # the first run of a tool translates it, which takes a while
    environment = {**os.environ, **tools, "YOWASP_CACHE_DIR": str(cache)}
    process = subprocess.Popen(
        ["sh", "-c", f"exec {command}"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        for line in process.stdout:
            said = [*said[-9:], line]
            round_ = re.match(r"Info: +iter=(\d+) wires=\d+ overused=(\d+)", line)
            if round_:
                number, overused = map(int, round_.groups())
                on_stage(f"routing, {overused:,} wires left")
                if number >= _ROUNDS and overused > _WIRES:
                    raise _Unroutable(f"{overused} wires cannot be routed; see {folder}")
            for start, stage in _STAGES.items():
                if line.startswith(f"Info: {start}"):
                    on_stage(stage)
        status = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        process.stdout.close()
    if status:
        raise FpgaError(f"{command.split()[0]} failed in {folder}:\n{''.join(said)}")


def _load(board: Target, platform: Any, folder: Path) -> None:
    program, package = board.loader
    if shutil.which(program) is None:
        raise FileNotFoundError(
            f"{program} is missing: as root, `apt-get install {package}`; the bitstream is "
            f"{_shown(folder / f'{_NAME}.{board.bitstream}')}"
        )
    try:
        platform.toolchain_program(LocalBuildProducts(folder), _NAME)
    except subprocess.CalledProcessError as error:
        raise FpgaError(
            f"{program} failed with status {error.returncode}: is the board connected?"
        ) from error


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def run_fpga(
    name: str,
    *,
    program: bool = False,
    on_stage: Callable[[str], None] = lambda stage: None,
    report_dir: Path | None = None,
) -> dict[str, Any]:
    """Build a board's bitstream and write ``fpga.json``, which keeps the other boards' rows.

    Parameters
    ----------
    name
        Board.
    program
        Load the bitstream into the board.
    on_stage
        Called with what is going on.
    report_dir
        Folder of the report; ``build/report`` by default.

    Returns
    -------
    dict
        The board's figures.

    Raises
    ------
    ValueError
        No such board.
    FileNotFoundError
        A tool is missing.
    FpgaError
        A tool failed, or the clock is missed with every placement.
    """
    board = target(name)
    params = board_params(name)
    tools = {tool.upper().replace("-", "_"): find_tool(tool) for tool in board.tools}
    folder = ROOT / "build" / "fpga" / name
    begun = time.monotonic()
    on_stage("elaboration")
    platform = board.create_platform()
    plan = platform.build(
        BoardTop(params),
        _NAME,
        do_build=False,
        verbose=True,
        synth_opts=board.synth,
        nextpnr_opts=f"{board.nextpnr} $SEED",
    )
    shutil.rmtree(folder, ignore_errors=True)
    plan.extract(folder)
    on_stage("synthesis")
    run_yosys(f"script {_NAME}.ys", log=folder / f"{_NAME}.rpt", folder=folder)
    script = plan.files[f"{plan.script}.sh"].splitlines()
    commands = [line for line in script if line.startswith('"$') and "$YOSYS" not in line]
    log = ""
    for seed in _SEEDS:
        try:
            for command in commands:
                _place_and_route(command, folder, {**tools, "SEED": seed}, on_stage)
        except _Unroutable:
            if seed == _SEEDS[-1]:
                raise
            continue
        log = (folder / f"{_NAME}.tim").read_text(encoding="utf-8")
        if measure(log)["timing_met"]:
            break
    seconds = time.monotonic() - begun
    figures: dict[str, Any] = {
        "board": name,
        "device": board.title,
        "target_mhz": params.clk_hz / 1e6,
        **measure(log),
        "placement": _SEEDS.index(seed),
        "seconds": round(seconds, 1),
        "logic_of": board.logic,
        "flip_flops_of": board.flip_flops,
        "block_ram_of": board.block_ram,
        "build_hash": params.config_hash,
        "head_hash": params.head.config_hash,
        "window": params.head.window,
        "rows": params.head.rows,
        "lanes": params.head.lanes,
        "query_clk": params.emulator.query_clk,
        "bitstream": _shown(folder / f"{_NAME}.{board.bitstream}"),
    }
    if not figures["timing_met"]:
        raise FpgaError(
            f"{name} runs at {figures['fmax_mhz']:g} MHz, not at {figures['target_mhz']:g}: "
            f"see {folder / f'{_NAME}.tim'}"
        )
    write_text_whole(folder / "build_hash", params.config_hash + "\n")
    tools_used = ["amaranth", "amaranth-boards", "pyosys", *_packages(board)]
    write_board_result("fpga", figures, params.config_hash, tools_used, report_dir=report_dir)
    if program:
        on_stage("loading")
        _load(board, platform, folder)
    return figures


def _packages(board: Target) -> list[str]:
    """Distribution that place and route came from, if it was the project's."""
    ours = (Path(sys.executable).parent / f"yowasp-{board.tools[0]}").exists()
    return [f"yowasp-{board.tools[0]}"] if ours else []
