"""Result files: one JSON per job, written whole or not at all, with provenance."""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "read_result", "tool_versions", "write_result", "write_text_whole"]

ROOT = Path(__file__).resolve().parent.parent


def tool_versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of the installed distributions named."""
    versions = {"python": platform.python_version()}
    for package in packages:
        versions[package] = metadata.version(package)
    return versions


def write_text_whole(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` whole: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_result(
    name: str,
    figures: Mapping[str, Any] | Sequence[Any],
    *,
    config_hash: str,
    tools: Sequence[str],
    report_dir: Path | None = None,
) -> Path:
    """Write ``NAME.json``: the figures, and what they were measured with and when.

    Figures of a cell library are kept a second time, in ``NAME-LIBRARY-CONFIG_HASH.json``: what
    was measured on one library, or of one head, is to be compared with the next.

    Parameters
    ----------
    name
        File name without its ending: ``cosim``, ``area``, ``bench`` …
    figures
        A mapping, whose items become the file's own; or a sequence of rows, stored as ``rows``.
    config_hash
        Hash of the configuration the figures belong to.
    tools
        Distributions whose versions are recorded.
    report_dir
        Folder to write to; ``build/report`` of this checkout by default.

    """
    content: dict[str, Any] = dict(figures) if isinstance(figures, Mapping) else {"rows": figures}
    content |= {
        "config_hash": config_hash,
        "tools": tool_versions(*tools),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = (report_dir or ROOT / "build" / "report") / f"{name}.json"
    text = json.dumps(content, indent=2) + "\n"
    library = content.get("library")
    if isinstance(library, dict):
        own = f"{name}-{re.sub(r'[^0-9A-Za-z]+', '-', library['name'])}-{config_hash}.json"
        write_text_whole(path.with_name(own), text)
    write_text_whole(path, text)
    return path


def read_result(name: str, report_dir: Path | None = None) -> dict[str, Any]:
    """Figures of an earlier job.

    Raises
    ------
    FileNotFoundError
        The job has not run; the message names the command that does.

    """
    path = (report_dir or ROOT / "build" / "report") / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `gaincell {name}` first")
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result
