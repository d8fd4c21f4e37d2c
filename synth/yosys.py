"""Yosys, in a process of its own, so that an error in a script ends the job and not Python."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

__all__ = ["YosysError", "run_yosys", "yosys_version"]


class YosysError(RuntimeError):
    """A Yosys script failed; the message is what Yosys said."""


def yosys_version() -> str:
    """Version of the packaged Yosys."""
    return metadata.version("pyosys")


def run_yosys(
    *commands: str,
    log: Path | None = None,
    folder: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> str:
    """Run Yosys commands in order and return the log.

    Parameters
    ----------
    commands
        Script commands.
    log
        File to keep the log in as well.
    folder
        Folder that relative paths in the commands are of.
    on_line
        Called with every line of the log while Yosys runs.

    Raises
    ------
    YosysError
        A command failed; the message holds the end of the log.

    """
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen(
        [sys.executable, "-m", "synth.yosys"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=root if folder is None else folder,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdin is not None and process.stdout is not None
    lines = []
    try:
        process.stdin.write("\n".join(commands))
        process.stdin.close()
        for line in process.stdout:
            lines.append(line)
            if on_line is not None:
                on_line(line)
        status = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        process.stdout.close()
    text = "".join(lines)
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(text, encoding="utf-8")
    if status:
        raise YosysError("Yosys failed:\n" + "".join(lines[-15:]))
    return text


def _main() -> None:
    from pyosys import libyosys

    design = libyosys.Design()
    for command in sys.stdin.read().splitlines():
        libyosys.run_pass(command, design)


if __name__ == "__main__":
    _main()
