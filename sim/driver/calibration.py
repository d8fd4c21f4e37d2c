"""Calibration: measures what the converters of every lane add, and sets the trims against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analog_models import AnalogParams, FunctionalHead
from analog_models.params import A_LEVEL, S_LEVEL

if TYPE_CHECKING:
    from sim.driver.driver import Driver

__all__ = ["METHODS", "CalibrationReport", "Residual", "calibrate"]

METHODS = ("self-test", "packets")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Residual:
    """What is left between sums of the device and ideal ones, in counts.

    Over queries, heads and lanes, but for results at full scale.
    """

    rms: float  #: root of the mean square
    mean_abs: float  #: mean magnitude
    max_abs: int  #: largest magnitude
    lane_rms: float  #: root mean square over lanes of the mean over queries: what a trim can mend

    @classmethod
    def of(cls, differences: Ints, full_scale: NDArray[np.bool_]) -> Residual:
        """Residual of differences that are not of full scale, (queries, heads, lanes) both."""
        kept = differences[~full_scale].astype(np.float64)
        means = _mean(differences, full_scale)
        if not kept.size:
            raise ValueError("some held-out result must be below full scale, not none")
        return cls(
            rms=float(np.sqrt(np.mean(kept**2))),
            mean_abs=float(np.mean(np.abs(kept))),
            max_abs=int(np.abs(kept).max()),
            lane_rms=float(np.sqrt(np.mean(means**2))),
        )


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """What a calibration found and did."""

    method: str  #: "self-test" or "packets"
    tokens: int  #: known tokens in the window
    queries: int  #: queries the offsets are estimated from
    held_out: int  #: other queries, the residual is of
    offsets: Floats  #: estimated offset of every lane in counts, (heads, lanes)
    samples_least: int  #: fewest samples that any sub-tile's or lane's estimate rests on
    trims: Ints  #: as they have been set, (heads, lanes)
    limited: int  #: lanes whose offset is beyond what a trim can be
    full_scale: float  #: share of the held-out results, of lane and query, at full scale
    before: Residual  #: of the held-out queries, without trims
    after: Residual  #: of the same queries, with them


@dataclass(frozen=True)
class _Known:
    """Known tokens, and what ideal converters would make of queries over them."""

    models: list[FunctionalHead]
    levels: dict[str, int]

    def counts(self, queries: Ints, subtile: int | None) -> tuple[Ints, NDArray[np.bool_]]:
        """Ideal sums and whether they are at full scale, (queries, heads, lanes) each."""
        results = [
            [
                model.query(codes, subtile=subtile, **self.levels)  # type: ignore[arg-type]
                for model, codes in zip(self.models, heads, strict=True)
            ]
            for heads in queries
        ]
        return (
            np.array([[result.sums for result in heads] for heads in results]),
            np.array([[result.full_scale for result in heads] for heads in results]),
        )


def _mean(differences: Ints, full_scale: NDArray[np.bool_]) -> Floats:
    """Mean over the queries, (queries, heads, lanes), that are not at full scale; 0 if all are."""
    samples = (~full_scale).sum(axis=0)
    total: Floats = np.where(full_scale, 0, differences).sum(axis=0) / np.maximum(samples, 1)
    return total


def _check_count(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be in {low}..{high}, not {value!r}")


def calibrate(
    driver: Driver,
    ideal: AnalogParams | None = None,
    *,
    method: str | None = None,
    tokens: int | None = None,
    queries: int = 64,
    held_out: int = 64,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> CalibrationReport:
    """Estimate every lane's offset and set the trims.

    The window is filled with known random tokens, their values small. For known random queries
    the device's raw counts are compared with those of ideal converters, per sub-tile where it has
    a self-test and else per lane; results at full scale, which hide an offset, are left out. The
    mean difference of a lane, summed over sub-tiles and rounded, becomes its trim. The residual is
    that of other queries, sent as packets.

    An offset is a charge: in counts it scales with 1 / A_sat, and trims are those of gain code 0.
    The window is left full of the known tokens; flush it before a sequence.

    Parameters
    ----------
    driver
        The device; it must have trims.
    ideal
        The model without offsets; its saturation currents by level and its cell are used. By
        default that of ``driver.params``.
    method
        "self-test" or "packets"; by default the first if the device has it.
    tokens
        Known tokens; by default as many as the window holds.
    queries, held_out
        Queries that offsets are estimated from, and others that the residual is of.
    seed
        Picks tokens and queries.
    progress
        Called with the number of measurements done so far, and of all.

    Raises
    ------
    TypeError, ValueError
        An argument is not of its kind or range, or the device has no trims.
    DriverError
        The device does not do what it is asked.
    """
    p = driver.params
    if not p.trim_bits:
        raise ValueError("trim_bits must be at least 2 on a device that is to be calibrated, not 0")
    method = method or ("self-test" if p.self_test else "packets")
    if method not in METHODS or (method == "self-test" and not p.self_test):
        offered = METHODS if p.self_test else METHODS[1:]
        raise ValueError(f"method must be one of {offered}, not {method!r}")
    tokens = p.window if tokens is None else tokens
    _check_count("tokens", tokens, 1, p.window)
    _check_count("queries", queries, 1, 100_000)
    _check_count("held_out", held_out, 1, 100_000)
    rng = np.random.default_rng(seed)
    known = _fill(driver, ideal or AnalogParams.matching(p), tokens, rng)
    codes = rng.integers(0, 2**p.q_bits, (queries + held_out, p.heads, p.rows))
    codes = (codes * rng.random((len(codes), 1, 1))).astype(np.int64)  # strong and weak ones

    parts = range(p.subtiles) if method == "self-test" else (None,)
    total = len(parts) * queries + 2 * held_out
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    driver.set_trim(_axes(driver, np.zeros((p.heads, p.lanes), dtype=np.int64)))
    offsets = np.zeros((p.heads, p.lanes))
    least = queries
    for part in parts:
        got = []
        for query in codes[:queries]:
            got.append(_measure(driver, query, part))
            step()
        wanted, full = known.counts(codes[:queries], part)
        measured = np.array(got)
        if part is not None:
            full = full | (np.abs(measured) == p.count_max)
        least = min(least, int((~full).sum(axis=0).min()))
        offsets += _mean(measured - wanted, full)

    limit = 1 << p.trim_bits - 1
    trims = np.clip(np.rint(offsets), -limit, limit - 1).astype(np.int64)
    wanted, full = known.counts(codes[queries:], None)
    residuals = []
    for chosen in (np.zeros_like(trims), trims):
        driver.set_trim(_axes(driver, chosen))
        got = []
        for query in codes[queries:]:
            got.append(_measure(driver, query, None))
            step()
        residuals.append(Residual.of(np.array(got) - wanted, full))
    return CalibrationReport(
        method=method,
        tokens=tokens,
        queries=queries,
        held_out=held_out,
        offsets=offsets,
        samples_least=least,
        trims=trims,
        limited=int((np.rint(offsets) != trims).sum()),
        full_scale=float(full.mean()),
        before=residuals[0],
        after=residuals[1],
    )


def _axes(driver: Driver, per_head: Ints) -> Ints:
    """With the axis of heads that the driver wants."""
    return per_head if driver.params.heads > 1 else per_head[0]


def _fill(driver: Driver, ideal: AnalogParams, tokens: int, rng: np.random.Generator) -> _Known:
    """Fill the window of device and models with the same random tokens, all of gain code 0."""
    p = driver.params
    settings: dict[str, Any] = driver.settings()
    levels = {
        "s_level": settings.get("s_levels", (S_LEVEL,))[0],
        "a_level": settings.get("a_levels", (A_LEVEL,))[0],
    }
    known = _Known([FunctionalHead(ideal) for _ in range(p.heads)], levels)
    driver.flush()
    levels_v = 2**p.kv_bits
    middle = (levels_v // 4, levels_v - levels_v // 4)  # small currents: hardly any full scale
    for _ in range(tokens):
        k = rng.integers(0, 2**p.kv_bits, (p.heads, p.rows))
        v = rng.integers(*middle, (p.heads, p.lanes))
        driver.write(_axes(driver, k), _axes(driver, v))
        for head, model in enumerate(known.models):
            model.write(k[head], v[head])
    driver.wait_idle()
    return known


def _measure(driver: Driver, query: Ints, subtile: int | None) -> Ints:
    """Counts of a sub-tile, or sums of all through a packet, (heads, lanes)."""
    codes = _axes(driver, query)
    sums = driver.query(codes) if subtile is None else driver.self_test(codes, subtile)
    return sums.reshape(driver.params.heads, driver.params.lanes)
