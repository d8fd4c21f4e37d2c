"""Sweeps and Monte Carlo runs: the error of attention of many devices and settings.

A point is one device in one setting. It is computed from its own fields alone, with its own seed,
so that points may run anywhere and in any order; a finished point is a row of a Parquet file whose
name is the point's hash, and a run that was killed computes only what is missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analog_models import AnalogParams, BatchedHead, DevicePreset
from analog_models.of_device import head_of_device
from analog_models.presets import resolve_device
from sim.figures import save_figure
from sim.results import ROOT, write_result

__all__ = ["Point", "collect", "draw_sweep", "evaluate", "grid", "run_sweep", "summary"]

Ints = NDArray[np.int64]

SALT = "sweep-2"  #: part of every hash: changes when a point's figures would
CALIBRATION = 64  #: known queries that trims are estimated from
HELD_OUT = 64  #: other queries, which errors are of
BATCH = 5  #: points of one task: what a kill may lose


@dataclass(frozen=True, kw_only=True)
class Point:
    """One device in one setting.

    Raises
    ------
    TypeError, ValueError
        A field is not of its kind or out of its range.
    """

    device: str = "published"  #: device preset, or path ending .json
    subtiles: int = 16  #: of the window
    columns: int = 64  #: tokens of a sub-tile
    kv_bits: int = 3  #: stored code width
    spread: float = 1.0  #: multiplies mismatch and noise of the preset
    cell_gain_sigma: float | None = None  #: relative, instead of the preset's
    output_offset_sigma_counts: float | None = None  #: instead of the preset's
    read_noise_ua: float | None = None  #: instead of the preset's
    token_s: float | None = None  #: time from one token to the next; None is no leakage
    refresh_s: float | None = None  #: every column is rewritten this often; None is never
    temperature_c: float = 27.0  #: of the device
    seed: int = 0  #: picks the device

    def __post_init__(self) -> None:
        for name in ("token_s", "refresh_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, not {value!r}")
        if not 0 <= self.spread < math.inf:
            raise ValueError(f"spread must be finite and not negative, not {self.spread!r}")

    @property
    def preset(self) -> DevicePreset:
        """The device's preset."""
        return _preset(self.device)

    @property
    def config_hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the fields and of the preset."""
        fields = dataclasses.asdict(self) | {"preset": self.preset.to_json(), "salt": SALT}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def params(self, *, ideal: bool = False) -> AnalogParams:
        """The head; or an ideal one of the same shape, which neither spreads, strays nor leaks."""
        spread = 0.0 if ideal else self.spread
        shape: dict[str, Any] = {name: getattr(self, name) for name in ("subtiles", "columns")}
        shape["kv_bits"] = self.kv_bits
        if self.output_offset_sigma_counts is not None:
            shape["output_offset_sigma_counts"] = spread * self.output_offset_sigma_counts
        params = head_of_device(
            self.preset,
            spread=spread,
            seed=self.seed,
            temperature_c=27.0 if ideal else self.temperature_c,
            systematic=not ideal,
            token_s=None if ideal else self.token_s,
            **shape,
        )
        own = {
            "cell_gain_sigma": self.cell_gain_sigma,
            "read_noise_ua": self.read_noise_ua,
        }
        changes = {name: spread * value for name, value in own.items() if value is not None}
        faults = dataclasses.replace(params.faults, **changes)
        return dataclasses.replace(params, faults=faults)


@cache
def _preset(device: str) -> DevicePreset:
    return resolve_device(device)


def _ages(point: Point, params: AnalogParams) -> Ints | None:
    """Steps of age of every column: oldest first, refreshed columns no older than a round."""
    if point.token_s is None or not params.age_clk:
        return None
    window = params.window
    age_s = np.arange(window)[::-1] * point.token_s
    if point.refresh_s is not None:
        behind = np.arange(window)[::-1] / window * point.refresh_s
        age_s = np.minimum(age_s, behind)
    return (age_s * 1e9 / params.clk_ns / params.age_clk).astype(np.int64)


def evaluate(point: Point) -> dict[str, Any]:
    """Error of one device against an ideal one, before and after its lanes are trimmed.

    Known random tokens fill the window. A lane's trim is the mean difference from the ideal sum
    over the calibration queries, rounded, as the driver's calibration sets it; errors are of other
    queries.

    Returns
    -------
    row
        The point's fields and ``config_hash``; ``error_before`` and ``error_after`` (RMS of the
        sums' differences against the RMS of the ideal sums); ``lane_rms_before`` and ``_after``
        (RMS over lanes of the mean difference, counts); ``max_before`` and ``_after`` (counts);
        ``full_scale`` (share of the results at their limit).
    """
    ideal, device = point.params(ideal=True), point.params()
    # Tokens are the same for all devices of a shape.
    rng = np.random.default_rng((20251125, ideal.window, ideal.kv_bits))
    k, v = (
        rng.integers(0, ideal.dac.levels, (ideal.window, lines))
        for lines in (ideal.rows, ideal.lanes)
    )
    q = rng.integers(0, ideal.q_max + 1, (CALIBRATION + HELD_OUT, ideal.rows))
    wanted, got = BatchedHead(ideal), BatchedHead(device)
    wanted.write(k, v)
    got.write(k, v, ages=_ages(point, device))
    expected, answer = wanted.query(q), got.query(q)
    difference = answer.sums - expected.sums
    trim = np.rint(difference[:CALIBRATION].mean(axis=0)).astype(np.int64)
    held = difference[CALIBRATION:]
    scale = float(np.sqrt(np.mean(expected.sums[CALIBRATION:].astype(np.float64) ** 2)))
    row: dict[str, Any] = dataclasses.asdict(point) | {"config_hash": point.config_hash}
    for name, left in (("before", held), ("after", held - trim)):
        row |= {
            f"error_{name}": float(np.sqrt(np.mean(left.astype(np.float64) ** 2))) / scale,
            f"lane_rms_{name}": float(np.sqrt(np.mean(left.mean(axis=0) ** 2))),
            f"max_{name}": int(np.abs(left).max()),
        }
    return row | {"full_scale": float(answer.full_scale[CALIBRATION:].mean())}


def _evaluate_all(points: Sequence[Point]) -> list[dict[str, Any]]:
    return [evaluate(point) for point in points]


def grid(base: Point, axes: Mapping[str, Sequence[Any]], devices: int = 1) -> list[Point]:
    """Every combination of the values given, each of so many devices.

    Raises
    ------
    ValueError
        There is no such field, or no device.
    """
    names = {field.name for field in dataclasses.fields(Point)} - {"seed"}
    for name in axes:
        if name not in names:
            raise ValueError(f"axis must be one of {', '.join(sorted(names))}, not {name!r}")
    if devices < 1:
        raise ValueError(f"devices must be at least 1, not {devices!r}")
    return [
        dataclasses.replace(base, **dict(zip(axes, values, strict=True)), seed=base.seed + number)
        for values in itertools.product(*axes.values())
        for number in range(devices)
    ]


_TYPES = {
    "str": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "float | None": pa.float64(),
}


def _schema() -> pa.Schema:
    fields = [(field.name, _TYPES[str(field.type)]) for field in dataclasses.fields(Point)]
    figures = [("config_hash", pa.string())]
    for name in ("before", "after"):
        figures += [
            (f"error_{name}", pa.float64()),
            (f"lane_rms_{name}", pa.float64()),
            (f"max_{name}", pa.int64()),
        ]
    return pa.schema([*fields, *figures, ("full_scale", pa.float64())])


def _write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a Parquet file whole or not at all."""
    part = path.with_suffix(".part")
    pq.write_table(pa.Table.from_pylist(list(rows), schema=_schema()), part)
    part.replace(path)


def collect(points: Iterable[Point], folder: Path) -> list[dict[str, Any]]:
    """Rows that there are for the points, in their order."""
    held: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.parquet")):
        held |= {row["config_hash"]: row for row in pq.read_table(path).to_pylist()}
    hashes = [point.config_hash for point in points]
    return [held[name] for name in hashes if name in held]


def _results(
    tasks: Sequence[Sequence[Point]], scheduler: str | None, workers: int
) -> Iterator[list[dict[str, Any]]]:
    if scheduler is None and workers == 0:
        yield from map(_evaluate_all, tasks)
        return
    from distributed import Client, LocalCluster, as_completed

    if scheduler is None:
        cluster = LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=40
        )
        client = Client(cluster)
    else:
        cluster, client = None, Client(scheduler)
    try:
        futures = client.map(_evaluate_all, tasks, pure=False)
        for future in as_completed(futures):
            yield future.result()
            future.release()
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


def run_sweep(
    points: Sequence[Point],
    *,
    name: str = "sweep",
    folder: Path | None = None,
    scheduler: str | None = None,
    workers: int = 2,
    on_progress: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Compute what is missing of the points, and write ``NAME.parquet`` with all of them.

    Parameters
    ----------
    points
        What to compute.
    name
        Of the table and of its parts' folder.
    folder
        Where to; ``build/sweep`` of this checkout by default.
    scheduler
        Address of a Dask scheduler, ``tcp://…``; None starts workers here.
    workers
        How many of them; 0 computes in this process.
    on_progress
        Told how many points are done, earlier runs' included.

    Returns
    -------
    rows
        One per point, in their order; see `evaluate`.
    """
    folder = ROOT / "build" / "sweep" if folder is None else folder
    parts = folder / name
    parts.mkdir(parents=True, exist_ok=True)
    held = {row["config_hash"] for row in collect(points, parts)}
    missing = [point for point in points if point.config_hash not in held]
    done = len(points) - len(missing)
    if on_progress:
        on_progress(done)
    tasks = [missing[i : i + BATCH] for i in range(0, len(missing), BATCH)]
    for rows in _results(tasks, scheduler, workers):
        _write_table(rows, parts / f"{rows[0]['config_hash']}.parquet")
        done += len(rows)
        if on_progress:
            on_progress(done)
    rows = collect(points, parts)
    _write_table(rows, folder / f"{name}.parquet")
    return rows


def summary(rows: Sequence[Mapping[str, Any]], limit: float = 0.1) -> dict[str, Any]:
    """Distribution of the error before and after trim, and the share of devices within a limit."""
    figures: dict[str, Any] = {"devices": len(rows), "limit": limit}
    for when in ("before", "after"):
        errors = np.array([row[f"error_{when}"] for row in rows])
        figures[when] = {
            "mean": float(errors.mean()),
            "median": float(np.median(errors)),
            "p95": float(np.quantile(errors, 0.95)),
            "p99": float(np.quantile(errors, 0.99)),
            "worst": float(errors.max()),
            "yield": float((errors <= limit).mean()),
        }
    return figures


def draw_sweep(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> tuple[Path, Path]:
    """Draw the distribution of errors before and after trim; returns paths of PNG and SVG."""
    figure = Figure(figsize=(7.0, 4.2), facecolor="white", layout="constrained")
    axis = figure.subplots()
    before, after = (
        np.array([row[f"error_{when}"] for row in rows]) for when in ("before", "after")
    )
    top = max(before.max(), after.max()) * 1.02 or 1.0
    bins = np.linspace(0.0, float(top), 60).tolist()
    axis.hist(before, bins=bins, color="#d9822b", alpha=0.75, label="before trim")
    axis.hist(after, bins=bins, color="#2f7ebc", alpha=0.75, label="after trim")
    axis.set_xlabel("RMS error of attention against an ideal device, relative", fontsize=9)
    axis.set_ylabel("devices", fontsize=9)
    axis.set_title(title, fontsize=9, loc="left")
    axis.spines[["right", "top"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9)
    return save_figure(figure, path, path.stem)


def write_summary(rows: Sequence[Mapping[str, Any]], name: str, limit: float = 0.1) -> Path:
    """Write ``NAME.json`` with the summary, and the picture beside it."""
    figures = summary(rows, limit)
    names = [field.name for field in dataclasses.fields(Point) if field.name != "seed"]
    values = {field: {row[field] for row in rows} for field in names}
    # What all devices have in common; unset fields say nothing.
    figures["setting"] = {
        field: next(iter(own))
        for field, own in values.items()
        if len(own) == 1 and next(iter(own)) is not None
    }
    text = "".join(row["config_hash"] for row in rows)
    config_hash = hashlib.sha256(text.encode()).hexdigest()[:12]
    tools = ["numpy", "pyarrow", "dask"]
    path = write_result(name, figures, config_hash=config_hash, tools=tools)
    draw_sweep(path, rows, f"{len(rows)} devices · configuration {config_hash}")
    return path
