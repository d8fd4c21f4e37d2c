"""Runs of ngspice: a deck and what to print in, arrays out, remembered by content."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Deck", "Experiment", "NgspiceError", "ngspice_version"]

Floats = NDArray[np.float64]
_TIMEOUT_S = 600.0


class NgspiceError(RuntimeError):
    """ngspice is missing, or did not do what the deck says."""


@cache
def ngspice_version() -> str:
    """Version of the program.

    Raises
    ------
    NgspiceError
        It is not installed.
    """
    program = shutil.which("ngspice")
    if program is None:
        raise NgspiceError("ngspice is not installed; `make setup` installs it")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"ngspice-(\S+)", said.stdout)
    if found is None:
        raise NgspiceError(f"ngspice must say its version, not {said.stdout!r}")
    return found.group(1)


@dataclass(frozen=True, kw_only=True)
class Deck:
    """A circuit with its analyses; each writes a table of vectors.

    An analysis is a command of ngspice and the vectors to keep of it; the first column of its
    table is its own scale: time, or what is swept.
    """

    name: str  #: for messages and folders
    circuit: str  #: netlist with models
    analyses: tuple[tuple[str, tuple[str, ...]], ...]  #: (command, vectors) each
    setup: tuple[str, ...] = field(default=())  #: commands before the first analysis

    @cached_property
    def text(self) -> str:
        """The deck as ngspice reads it."""
        commands = list(self.setup)
        for i, (analysis, vectors) in enumerate(self.analyses):
            commands += [analysis, f"wrdata out{i} {' '.join(vectors)}", "destroy all"]
        body = "\n".join(commands)
        # Its own two threads would wait for each other at every time step.
        head = "set noaskquit\nset num_threads=1\nset wr_singlescale\nset numdgt=12"
        return f"{self.circuit}.control\n{head}\n{body}\nquit 0\n.endc\n.end\n"

    @cached_property
    def digest(self) -> str:
        """Hash of the deck and of the program that runs it."""
        content = f"{ngspice_version()}\n{self.text}"
        return hashlib.sha256(content.encode()).hexdigest()[:20]

    def run(self, cache_dir: Path | None = None) -> tuple[Floats, ...]:
        """One array per analysis, ``(points, 1 + vectors)``; from the cache if it is there.

        Raises
        ------
        NgspiceError
            The program is missing, fails, takes ten minutes or leaves a table out.
        """
        kept = None if cache_dir is None else cache_dir / f"{self.digest}.npz"
        if kept is not None and kept.exists():
            with np.load(kept) as archive:
                return tuple(archive[f"out{i}"] for i in range(len(self.analyses)))
        tables = self._simulate()
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=kept.parent, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    np.savez_compressed(file, **{f"out{i}": t for i, t in enumerate(tables)})
                Path(name).replace(kept)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        return tables

    def _simulate(self) -> tuple[Floats, ...]:
        ngspice_version()
        with tempfile.TemporaryDirectory(prefix="ngspice-") as folder:
            deck = Path(folder) / "deck.cir"
            deck.write_text(self.text, encoding="utf-8")
            try:
                done = subprocess.run(
                    ["ngspice", "-n", "-b", "deck.cir"],
                    cwd=folder,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=_TIMEOUT_S,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise NgspiceError(f"{self.name}: no end after {_TIMEOUT_S:g} s") from error
            said = [
                line
                for line in (done.stdout + done.stderr).splitlines()
                if re.search(r"error|fatal|failed|aborted|too small|no such", line, re.IGNORECASE)
            ]
            if any("aborted" in line or "too small" in line for line in said):
                raise NgspiceError(f"{self.name}: {'; '.join(said[:3])}")
            tables = []
            for i, (analysis, vectors) in enumerate(self.analyses):
                path = Path(folder) / f"out{i}"
                if not path.exists():
                    why = "; ".join(said[:3]) or "no message"
                    raise NgspiceError(f"{self.name}: {analysis!r} gave no table: {why}")
                table = np.loadtxt(path, ndmin=2)
                if table.shape[1] != 1 + len(vectors):
                    raise NgspiceError(
                        f"{self.name}: {analysis!r} must give {1 + len(vectors)} columns, "
                        f"not {table.shape[1]}: {'; '.join(said[:3])}"
                    )
                tables.append(table)
        return tuple(tables)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Decks that answer one question, and how their tables become the answer."""

    name: str  #: of what is measured
    decks: tuple[Deck, ...]  #: independent of each other
    reduce: Callable[[Sequence[tuple[Floats, ...]]], dict[str, Any]]  #: tables by deck to figures

    def run(self, cache_dir: Path | None = None) -> dict[str, Any]:
        """The answer, decks run one after the other."""
        return self.reduce([deck.run(cache_dir) for deck in self.decks])
