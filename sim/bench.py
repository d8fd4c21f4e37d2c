"""Speed of the models, against the plain products that they cannot do without.

Rows of `attend` compare a whole sequence, rows of `FastHead` one window of 16 tiles of 64 x 64
cells that 1024 vectors are multiplied with: array 1 up to phi, array 2 up to the counts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from analog_models import AnalogParams, FastHead, Faults, attend
from sim.results import write_result

__all__ = ["LIMIT", "run_bench"]

LIMIT = 3.0  #: how many times the plain products' time a sequence may take
TILE_LIMIT = 1.25  #: the same for 1024 vectors through 16 tiles without noise
NOISE_LIMIT = 8.0  #: the same with mismatch and read noise …
NOISE_LIMIT_NS = 180.0  #: … and per product of one vector with one tile, if that is stricter
TOKEN_LIMIT_US = 20.0  #: one token through 16 sub-tiles, both products
QUICK = 20  #: repeats of a single token per repeat of the rest
#: Mismatch and noise of the noisy rows; their size does not change the time.
FAULTS = Faults(cell_gain_sigma=0.03, cell_offset_sigma_ua=0.05, read_noise_ua=0.1, seed=1)
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
        "tile_limits": [TILE_LIMIT, NOISE_LIMIT, NOISE_LIMIT_NS, TOKEN_LIMIT_US],
    }


def _tile_jobs() -> dict[str, tuple[Callable[[], object], Callable[[], object], int]]:
    """Model, plain product of the same size, and products of a vector with a tile, by row."""
    params, noisy = AnalogParams(), AnalogParams(faults=FAULTS)
    rng = np.random.default_rng(SEED)
    q = rng.integers(0, params.q_max + 1, (TOKENS, HEAD_SIZE)).astype(np.float32)
    k, v = (rng.integers(0, params.dac.levels, (TOKENS, HEAD_SIZE)) for _ in range(2))
    head, noisy_head = FastHead(params), FastHead(noisy)
    for each in (head, noisy_head):
        each.write(k, v)
    phi = np.array(head.phi_clk(q))
    # Plain products: the same shapes, sub-tiles side by side for array 1 and stacked for array 2.
    wide = rng.random((HEAD_SIZE, params.window), dtype=np.float32)
    stack = rng.random((params.subtiles, params.columns, HEAD_SIZE), dtype=np.float32)
    drive = rng.random((params.subtiles, TOKENS, params.columns), dtype=np.float32)
    one, one_drive = q[:1], np.ascontiguousarray(drive[:, :1])
    tiles = params.subtiles
    first, second = (lambda: q @ wide), (lambda: drive @ stack)
    return {
        "16 tiles, array 1": (lambda: head.phi_clk(q), first, tiles * TOKENS),
        "16 tiles, array 2": (lambda: head.counts(phi), second, tiles * TOKENS),
        "16 tiles, array 1, noise": (lambda: noisy_head.phi_clk(q), first, tiles * TOKENS),
        "16 tiles, array 2, noise": (lambda: noisy_head.counts(phi), second, tiles * TOKENS),
        "one token, both arrays": (
            lambda: head.query(one),
            lambda: (one @ wide, one_drive @ stack),
            2 * tiles,
        ),
    }


def _fastest(seconds: list[float]) -> float:
    """Time of the fastest tenth: a busy neighbour only ever makes a measurement longer."""
    return float(np.quantile(seconds, 0.1))


def _tile_rows(repeats: int, on_repeat: Callable[[], None]) -> list[dict[str, Any]]:
    """Measure the tiles; model and plain product take turns."""
    jobs = _tile_jobs()
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in jobs}
    for repeat in range(-1, repeats):
        for name, (*pair, _) in jobs.items():
            for _ in range(QUICK if name.startswith("one") else 1):
                for job, seconds in zip(pair, times[name], strict=True):
                    start = time.perf_counter()
                    job()
                    if repeat >= 0:  # in the first round caches and BLAS threads warm up
                        seconds.append(time.perf_counter() - start)
        on_repeat()
    rows = []
    for name, (*_, products) in jobs.items():
        ours_s, reference_s = (_fastest(seconds) for seconds in times[name])
        limit = TILE_LIMIT
        if name.endswith("noise"):
            limit = min(NOISE_LIMIT, NOISE_LIMIT_NS * 1e-9 * products / reference_s)
        elif name.startswith("one"):
            limit = TOKEN_LIMIT_US * 1e-6 / reference_s
        rows.append(
            {
                "name": name,
                "ours_s": ours_s,
                "reference_s": reference_s,
                "ratio": ours_s / reference_s,
                "limit": limit,
                "ns_per_product": ours_s * 1e9 / products,
            }
        )
    return rows


def _lightning_row(repeats: int) -> dict[str, Any] | None:
    """The same noisy products in aihwkit-lightning; None if it is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "aihwkit_lightning")):
        return None
    torch = importlib.import_module("torch")
    linear = importlib.import_module("aihwkit_lightning.nn").AnalogLinear
    config = importlib.import_module("aihwkit_lightning.simulator.configs")
    rpu = config.TorchInferenceRPUConfig()
    rpu.mapping.max_input_size = HEAD_SIZE
    rpu.forward.inp_res, rpu.forward.out_noise = 2**4 - 2, 0.04
    rpu.pre_post.input_range.enable = True
    layer = linear(TOKENS, HEAD_SIZE, bias=False, rpu_config=rpu)
    x, weight = torch.rand(TOKENS, TOKENS), torch.rand(TOKENS, HEAD_SIZE)
    ours, plain = [], []
    with torch.no_grad():
        for repeat in range(-1, repeats):
            for job, seconds in ((lambda: layer(x), ours), (lambda: x @ weight, plain)):
                start = time.perf_counter()
                job()
                if repeat >= 0:
                    seconds.append(time.perf_counter() - start)
    products = TOKENS * TOKENS // HEAD_SIZE
    return {
        "name": "aihwkit-lightning, 16 tiles, noise",
        "ours_s": _fastest(ours),
        "reference_s": _fastest(plain),
        "ratio": _fastest(ours) / _fastest(plain),
        "limit": None,
        "ns_per_product": _fastest(ours) * 1e9 / products,
    }


def run_bench(report_dir: Path | None = None, repeats: int = 60) -> list[dict[str, Any]]:
    """Measure the models against their products alone, and write ``bench.json``.

    Model and products take turns in one process, so that what slows the machine slows both. Of
    sequences medians are compared, of tiles, which last a millisecond, the fastest tenth.
    aihwkit-lightning is measured beside them where it is installed.

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
        task = progress.add_task("Measuring", total=2 * repeats + 1)
        for job in jobs.values():  # caches and BLAS threads warm up
            job()
        for _ in range(repeats):
            for name, job in jobs.items():
                start = time.perf_counter()
                job()
                times[name].append(time.perf_counter() - start)
            progress.advance(task)
        tiles = _tile_rows(repeats, lambda: progress.advance(task))

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
    rows += tiles
    lightning = _lightning_row(repeats)
    if lightning is not None:
        rows.append(lightning)
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
