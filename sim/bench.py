"""Speed of the sequence model, against the two plain products that it cannot do without."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from analog_models import attend
from sim.results import write_result

__all__ = ["LIMIT", "run_bench"]

LIMIT = 3.0  #: how many times the plain products' time a sequence may take
TOKENS = 1024  #: length of the sequence, one head
HEAD_SIZE = 64  #: rows and lanes
SEED = 20250911  #: of queries, keys and values


def _config(repeats: int) -> dict[str, Any]:
    return {
        "tokens": TOKENS,
        "head_size": HEAD_SIZE,
        "seed": SEED,
        "repeats": repeats,
        "limit": LIMIT,
        "reference": "float32: (tokens, size) @ (size, tokens), (tokens, tokens) @ (tokens, size)",
    }


def run_bench(report_dir: Path | None = None, repeats: int = 60) -> list[dict[str, Any]]:
    """Measure `attend` against its two products alone, and write ``bench.json``.

    Model and products take turns in one process, so that what slows the machine slows both;
    medians are compared.

    Parameters
    ----------
    report_dir
        Folder to write to; ``build/report`` of this checkout by default.
    repeats
        Times that each is measured.

    Raises
    ------
    TypeError
        ``repeats`` is no int.
    ValueError
        ``repeats`` is less than one.
    """
    if isinstance(repeats, bool) or not isinstance(repeats, int):
        raise TypeError(f"repeats must be an int, not {repeats!r}")
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, not {repeats!r}")
    rng = np.random.default_rng(SEED)
    q = rng.random((TOKENS, HEAD_SIZE), dtype=np.float32)
    k, v = (np.float32(0.9) * rng.random((TOKENS, HEAD_SIZE), dtype=np.float32) for _ in range(2))
    weights = rng.random((TOKENS, TOKENS), dtype=np.float32)

    jobs: dict[str, Callable[[], object]] = {
        "reference": lambda: (q @ q.T, weights @ q),
        "attend, quantised": lambda: attend(q, k, v, quantise=True),
        "attend, real-valued": lambda: attend(q, k, v, quantise=False),
    }
    times: dict[str, list[float]] = {name: [] for name in jobs}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("Measuring attend", total=repeats)
        for job in jobs.values():  # caches and BLAS threads warm up
            job()
        for _ in range(repeats):
            for name, job in jobs.items():
                start = time.perf_counter()
                job()
                times[name].append(time.perf_counter() - start)
            progress.advance(task)

    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    reference_s = medians.pop("reference")
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "ours_s": ours_s,
            "reference_s": reference_s,
            "ratio": ours_s / reference_s,
            "limit": LIMIT,
        }
        for name, ours_s in medians.items()
    ]
    tools = ["numpy", "scipy"]
    try:
        metadata.version("gaincell-attention")
    except metadata.PackageNotFoundError:
        pass  # run from a checkout that is not installed
    else:
        tools.append("gaincell-attention")
    text = json.dumps(_config(repeats), sort_keys=True, separators=(",", ":"))
    config_hash = hashlib.sha256(text.encode()).hexdigest()[:12]
    write_result("bench", rows, config_hash=config_hash, tools=tools, report_dir=report_dir)
    return rows
