"""What leakage costs a window of real tokens, and what refresh and masking give back.

The charge of a gain cell fades within milliseconds, while a system that runs the other layers too
may need longer than that to fill a window. Real tokens are therefore written at a given time per
token to an array that leaks, and queries are compared with those of an array that does not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from analog_models import AnalogParams, FunctionalHead
from sim.figures import save_figure
from sim.results import write_result
from sim.tokens import TokenSource, real_tokens

__all__ = ["Policy", "RetentionStudy", "draw_retention", "measure", "run_retention"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

POLICIES = ("none", "refresh", "mask")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What is done about fading charge.

    Raises
    ------
    ValueError
        There is no such policy, or the budget is out of its range.
    """

    kind: str = "none"  #: "none", "refresh" (rewrite in time) or "mask" (leave out what is past it)
    budget: float | None = None  #: greatest age as a share of tau; None with "none"

    def __post_init__(self) -> None:
        if self.kind not in POLICIES:
            raise ValueError(f"kind must be one of {POLICIES}, not {self.kind!r}")
        if self.kind == "none":
            if self.budget is not None:
                raise ValueError(f"budget must be None without a policy, not {self.budget!r}")
        elif self.budget is None or not 0 < self.budget < math.inf:
            raise ValueError(f"budget must be positive and finite, not {self.budget!r}")

    def __str__(self) -> str:
        return "nothing" if self.budget is None else f"{self.kind}, {self.budget:g} tau"


@dataclass(frozen=True, kw_only=True)
class RetentionStudy:
    """Which tokens, how fast, and what is done about leakage.

    Raises
    ------
    ValueError
        There are too few tokens to fill the window, or a refresh period is shorter than a write.
    """

    source: TokenSource = field(default_factory=TokenSource)  #: real tokens
    tau_s: float = 5e-3  #: of the 28 nm cell: Leroux et al., Nat. Comput. Sci. 5, 813 (2025)
    clk_ns: float = 1.0  #: length of a clock
    tick_clk: int = 1024  #: step of age, in clocks
    #: times from one token to the next
    token_s: tuple[float, ...] = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    budgets: tuple[float, ...] = (
        0.02,
        0.05,
        0.1,
        0.5,
    )  #: of refresh and of the mask, shares of tau
    guard_clk: int = 1  #: clocks between phases, which a rewrite takes beside its write
    every: int = 4  #: every how many tokens a query is compared
    subtiles: int = 16  #: of the window
    columns: int = 64  #: of a sub-tile
    seed: int = 0  #: picks how far the refresh is when a query comes

    def __post_init__(self) -> None:
        window = self.ideal.window
        if self.source.tokens <= window:
            raise ValueError(
                f"tokens must be more than the window's {window}, not {self.source.tokens!r}"
            )
        for policy in self.policies:
            if policy.kind == "refresh" and self.period_clk(policy) < self.rewrite_clk:
                raise ValueError(
                    f"budgets must leave {self.rewrite_clk} clocks to rewrite each of {window} "
                    f"columns, not {policy.budget!r}"
                )

    @property
    def ideal(self) -> AnalogParams:
        """The head whose charge stays."""
        return AnalogParams(subtiles=self.subtiles, columns=self.columns)

    @property
    def leaky(self) -> AnalogParams:
        """The head whose charge fades."""
        return dataclasses.replace(
            self.ideal, tau_s=self.tau_s, clk_ns=self.clk_ns, tick_clk=self.tick_clk
        )

    @property
    def policies(self) -> list[Policy]:
        """Nothing, and every budget of refresh and of the mask."""
        kinds = ("refresh", "mask")
        limited = [Policy(kind=kind, budget=budget) for kind in kinds for budget in self.budgets]
        return [Policy(), *limited]

    @property
    def rewrite_clk(self) -> int:
        """Clocks that each array is busy with the rewriting of a column."""
        return self.ideal.write_clk + self.guard_clk

    def budget_clk(self, policy: Policy) -> int:
        """Greatest age in clocks."""
        assert policy.budget is not None
        return int(policy.budget * self.tau_s * 1e9 / self.clk_ns)

    def period_clk(self, policy: Policy) -> int:
        """Clocks from one column's refresh to the next column's."""
        return self.budget_clk(policy) // self.ideal.window

    @property
    def config_hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the fields and of the leaky head's."""
        # What is None is ideal, and leaves a hash alone that is older than the field.
        head = {name: x for name, x in dataclasses.asdict(self.leaky).items() if x is not None}
        fields = {**dataclasses.asdict(self), "head": head}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class _Answers(NamedTuple):
    """What queries give, one row each."""

    phi_clk: Floats  #: (queries, window)
    out: Floats  #: sums over sub-tiles before rounding, in counts, (queries, lanes)
    sums: Ints  #: (queries, lanes)
    kept: Floats  #: share of its deviation that each column has, 0 if masked, (queries, window)


def _answer(
    study: RetentionStudy,
    params: AnalogParams,
    policy: Policy,
    token_clk: int,
    codes: tuple[NDArray[np.generic], ...],
) -> _Answers:
    """Write every token at its time and ask the chosen ones' queries.

    Where the refresh is when a query comes is drawn at random, so that no chance ratio of the time
    per token and the period shows.
    """
    head, window, rng = FunctionalHead(params), params.window, np.random.default_rng(study.seed)
    converter = params.output_converter
    column = np.arange(window)
    written_clk = np.zeros(window, dtype=np.int64)
    rows: list[tuple[Any, ...]] = []
    for token, (q, k, v) in enumerate(zip(*codes, strict=True)):
        now_clk = token * token_clk
        written_clk[token % window] = now_clk
        head.write(k, v, now_clk=now_clk)
        if token < window or token % study.every:
            continue
        born_clk, mask = written_clk, np.ones(window, dtype=np.bool_)
        if policy.kind == "refresh":
            # One column in every period, one after the other.
            period_clk = study.period_clk(policy)
            phase = int(rng.integers(period_clk * window))
            behind = (phase // period_clk - column) % window * period_clk + phase % period_clk
            born_clk = np.maximum(written_clk, now_clk - behind)
            for each in range(window):
                head.rewrite(each, now_clk=int(born_clk[each]))
        elif policy.kind == "mask":
            # One age per sub-tile, that of the column which a lap writes first.
            tokens = token - (token - column) % window
            first_clk = tokens // params.columns * params.columns * token_clk
            mask = now_clk - first_clk <= study.budget_clk(policy)
        phi_clk = head.phi_clk(q, mask=mask, now_clk=now_clk)
        charges = head.charges(phi_clk)
        limit = float(params.count_max)
        out = np.clip(charges / converter.charge_per_count, -limit, limit).sum(axis=0)
        tau_clk = study.tau_s * 1e9 / study.clk_ns
        kept = np.exp((born_clk - now_clk) / tau_clk) * mask
        rows.append((phi_clk, out, converter.counts(charges).sum(axis=0), kept))
    return _Answers(*(np.array(values) for values in zip(*rows, strict=True)))


def _mean_correlation(a: Floats, b: Floats) -> float:
    """Correlation of rows, mean over them; a row without spread has none, and counts as 0."""
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    spread = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    product = (a * b).sum(axis=1)
    return float(np.divide(product, spread, out=np.zeros_like(spread), where=spread > 0).mean())


def measure(
    study: RetentionStudy,
    q_codes: ArrayLike,
    k_codes: ArrayLike,
    v_codes: ArrayLike,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Compare a leaky head with an ideal one, for every time per token and every policy.

    Parameters
    ----------
    study
        What to compare.
    q_codes, k_codes, v_codes
        Codes, one row per token.
    on_progress
        Told how many of the comparisons are done.

    Returns
    -------
    rows
        Per comparison: ``token_s``, ``policy``, ``budget`` (share of tau); ``output_error`` (RMS
        of what leakage adds to the outputs, against the RMS of the outputs), ``sums_differ``
        (share of the integers that are others), ``phi_correlation`` (of a query's phi with the
        ideal ones, mean over queries), ``effective_tokens`` (columns that take part with more than
        half of their stored deviation, mean); and for refresh ``period_clk`` and
        ``refresh_clk_share``, the share of each array's clocks that it takes.
    """
    codes = tuple(np.asarray(array) for array in (q_codes, k_codes, v_codes))
    ideal = study.ideal
    shapes = dict(zip(("rows", "lanes"), (codes[1].shape[1], codes[2].shape[1]), strict=True))
    ideal, leaky = (dataclasses.replace(params, **shapes) for params in (ideal, study.leaky))
    expected = _answer(study, ideal, Policy(), 1, codes)
    rows = []
    for token_s in study.token_s:
        for policy in study.policies:
            token_clk = round(token_s * 1e9 / study.clk_ns)
            got = _answer(study, leaky, policy, token_clk, codes)
            error = np.mean((got.out - expected.out) ** 2) / np.mean(expected.out**2)
            row = {
                "token_s": token_s,
                "policy": policy.kind,
                "budget": policy.budget,
                "output_error": float(np.sqrt(error)),
                "sums_differ": float((got.sums != expected.sums).mean()),
                "phi_correlation": _mean_correlation(got.phi_clk, expected.phi_clk),
                "effective_tokens": float((got.kept > 0.5).sum(axis=1).mean()),
            }
            if policy.kind == "refresh":
                period_clk = study.period_clk(policy)
                row["period_clk"] = period_clk
                row["refresh_clk_share"] = study.rewrite_clk / period_clk
            rows.append(row)
            if on_progress:
                on_progress(len(rows))
    return rows


def run_retention(
    study: RetentionStudy | None = None,
    *,
    report_dir: Path | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Measure on real tokens, write ``retention.json`` and draw ``retention.png``.

    Parameters
    ----------
    study
        What to compare; the defaults of `RetentionStudy` if left out.
    report_dir
        Folder to write to; ``build/report`` of this checkout by default.
    on_progress
        Told how many of the comparisons are done.
    """
    study = RetentionStudy() if study is None else study
    trace = real_tokens(study.source)
    rows = measure(study, trace.q_codes, trace.k_codes, trace.v_codes, on_progress=on_progress)
    figures = {
        **dataclasses.asdict(study.source),
        "model": "SmolLM2-135M-Instruct",
        "tau_s": study.tau_s,
        "clk_ns": study.clk_ns,
        "window": study.ideal.window,
        "queries": len(range(study.ideal.window, study.source.tokens, study.every)),
        "rows": rows,
    }
    config_hash = study.config_hash
    path = write_result(
        "retention",
        figures,
        config_hash=config_hash,
        tools=["numpy", "matplotlib"],
        report_dir=report_dir,
    )
    draw_retention(path, figures | {"config_hash": config_hash})
    return figures


#: Colour by budget, from tight to loose, and line by policy.
_COLOURS = ("#2f7ebc", "#3a9a6b", "#d9822b", "#8a5fb0", "#c9a227")
_LINES = {"none": "-", "refresh": "-", "mask": ":"}
_INK, _MUTED = "#1b1b1f", "#5b5f66"


def draw_retention(path: Path, result: Mapping[str, Any]) -> tuple[Path, Path]:
    """Draw error and effective window over the time per token, as PNG and as SVG.

    Parameters
    ----------
    path
        File to write; its ending is replaced by ``.png`` and ``.svg``.
    result
        What `run_retention` returned or wrote.

    Returns
    -------
    png, svg
        Paths of the two files.
    """
    budgets = sorted({row["budget"] for row in result["rows"] if row["budget"] is not None})
    curves: dict[tuple[str, float | None], list[Mapping[str, Any]]] = {}
    for row in result["rows"]:
        curves.setdefault((row["policy"], row["budget"]), []).append(row)
    figure = Figure(figsize=(11.0, 4.6), facecolor="white", layout="constrained")
    error, window = figure.subplots(1, 2)
    for (policy, budget), rows in curves.items():
        times = [row["token_s"] for row in rows]
        label = "no measure" if budget is None else f"{policy} at {budget:g} τ"
        if "refresh_clk_share" in rows[0]:
            label += f": {rows[0]['refresh_clk_share']:.1%} of the clocks"
        colour = _INK
        if budget is not None:
            colour = _COLOURS[budgets.index(budget) % len(_COLOURS)]
        look = {"color": colour, "ls": _LINES[policy], "lw": 1.8, "marker": "o", "ms": 3.5}
        error.plot(times, [row["output_error"] for row in rows], label=label, **look)
        window.plot(times, [row["effective_tokens"] for row in rows], **look)
    error.set_yscale("log")
    error.set_title("Error of the outputs against no leakage (RMS)", fontsize=11, loc="left")
    window.set_title(
        "Columns with more than half of their stored deviation", fontsize=11, loc="left"
    )
    window.set_ylim(0, result["window"] * 1.05)
    for axis in (error, window):
        axis.set_xscale("log")
        axis.set_xlabel("time per token, s", fontsize=9, color=_MUTED)
        axis.grid(which="major", color="0.9", lw=0.7)
        axis.spines[["right", "top"]].set_visible(False)
        axis.tick_params(labelsize=8.5, colors=_MUTED)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
    figure.suptitle(
        f"Retention: window {result['window']}, τ = {result['tau_s'] * 1e3:g} ms, "
        f"{result['queries']} queries of real tokens · configuration {result['config_hash']}",
        fontsize=9,
        color=_MUTED,
    )
    return save_figure(figure, path, "retention")
