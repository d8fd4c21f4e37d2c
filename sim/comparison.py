"""Published figures and ours, row by row; and graphics processors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hw.params import HeadParams
from sim.published import GPUS, PAPER, least_bytes, macs_per_token, operations_per_token

__all__ = ["Row", "compare", "compare_gpus"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure, published and ours; None is not known."""

    group: str
    figure: str
    unit: str
    paper: float | None
    ours: float | None
    method: str  #: how ours is known
    origins: tuple[str, ...]  #: results that ours is from
    error: float | None = None  #: of the method, as a share; 0 is exact
    digits: int = 0  #: decimals shown
    more_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times better ours is."""
        if not self.paper or not self.ours:
            return None
        return self.ours / self.paper if self.more_is_better else self.paper / self.ours

    def as_dict(self) -> dict[str, Any]:
        """Fields and ratio."""
        fields = dataclasses.asdict(self)
        return fields | {"origins": list(self.origins), "ratio": self.ratio}


def compare(
    params: HeadParams,
    figures: Mapping[str, Mapping[str, Any]],
    analog: Mapping[str, Any],
    clock_ns: float,
) -> list[dict[str, Any]]:
    """The published figures and ours.

    Parameters
    ----------
    params
        The head.
    figures
        Those of `sim.silicon.build_silicon`: ``value``, ``method``, ``library``, ``error`` of each.
    analog
        ``qk_pj``, ``phi_v_pj`` and ``dac_pj`` of ours, and the ``method``.
    clock_ns
        Clock that pulses are counted with.

    Returns
    -------
    list of dict
        Rows, see `Row`.
    """
    energy, area = figures["digital_energy_pj_28nm"], figures["digital_area_mm2_28nm"]
    fmax = figures["fmax_mhz_28nm"]
    macs = macs_per_token(params.window, params.rows, params.lanes)
    paper_macs = macs_per_token(PAPER.window, PAPER.head_size, PAPER.head_size)
    ops = operations_per_token(params.window, params.rows, params.lanes)
    interval_ns = figures["interval_clk"]["value"] * clock_ns
    total = share = whole = None
    if energy["value"] is not None:
        total = figures["analog_energy_pj"]["value"] + energy["value"]
        if energy["error"] is not None:  # of the digital part alone
            share = energy["error"] * energy["value"] / total
    if area["value"] is not None:
        whole = PAPER.area_mm2 + area["value"]
    counted, printed = figures["latency_clk"]["method"], analog["method"]

    def scaled(figure: Mapping[str, Any]) -> str:
        return f"{figure['method']}, from {figure['library']}"

    def time(**fields: Any) -> Row:
        return Row(group="Time", **fields)

    def token(**fields: Any) -> Row:
        return Row(group="Energy per token and head", unit="pJ", **fields)

    def mac(**fields: Any) -> Row:
        return Row(group="Energy per multiply-accumulate", unit="fJ", digits=1, **fields)

    def space(**fields: Any) -> Row:
        of = {"group": "Area per head", "unit": "mm²", "origins": ("timing", "area")}
        return Row(digits=4, **of, **fields)

    def efficiency(**fields: Any) -> Row:
        return Row(group="Efficiency", digits=1, more_is_better=True, **fields)

    of_arrays: dict[str, Any] = {"method": printed, "origins": ("published",)}
    of_clocks: dict[str, Any] = {"unit": "ns", "origins": ("design",), "error": 0.0}
    of_sums: dict[str, Any] = {"method": "sum", "origins": ("energy", "published"), "error": share}
    rows = (
        time(
            figure="latency, one head, one token",
            paper=PAPER.latency_ns,
            ours=figures["latency_clk"]["value"] * clock_ns,
            method=counted,
            **of_clocks,
        ),
        time(
            figure="interval between tokens",
            paper=PAPER.latency_ns,
            ours=interval_ns,
            method=f"{counted}; published: one token at a time",
            **of_clocks,
        ),
        time(
            figure="highest clock of the digital part",
            unit="MHz",
            paper=None,
            ours=fmax["value"],
            method=f"timed; {scaled(fmax)}",
            error=fmax["error"],
            origins=("timing",),
        ),
        token(figure="Q·K", paper=PAPER.qk_pj, ours=analog["qk_pj"], **of_arrays),
        token(figure="φ·V", paper=PAPER.phi_v_pj, ours=analog["phi_v_pj"], **of_arrays),
        token(figure="DACs", paper=PAPER.dac_pj, ours=analog["dac_pj"], **of_arrays),
        token(
            figure="digital",
            paper=PAPER.digital_pj,
            ours=energy["value"],
            method=f"switching of real tokens; {scaled(energy)}",
            error=energy["error"],
            origins=("energy",),
        ),
        token(figure="all", paper=PAPER.energy_pj, ours=total, **of_sums),
        mac(
            figure="Q·K, arrays",
            paper=2e3 * PAPER.qk_pj / paper_macs,
            ours=1e3 * analog["qk_pj"] / (params.window * params.rows),
            **of_arrays,
        ),
        mac(
            figure="φ·V, arrays",
            paper=2e3 * PAPER.phi_v_pj / paper_macs,
            ours=1e3 * analog["phi_v_pj"] / (params.window * params.lanes),
            **of_arrays,
        ),
        mac(
            figure="all",
            paper=1e3 * PAPER.energy_pj / paper_macs,
            ours=None if total is None else 1e3 * total / macs,
            **of_sums,
        ),
        space(
            figure="digital part",
            paper=None,
            ours=area["value"],
            method=f"{scaled(area)}; published in the sum only",
            error=area["error"],
        ),
        space(
            figure="all, at most",
            paper=PAPER.area_mm2,
            ours=whole,
            method="the published head, its own digital part included, and ours",
            error=None if area["error"] is None else area["error"] * area["value"] / whole,
        ),
        efficiency(
            figure="operations per energy",
            unit="TOPS/W",
            paper=2 * paper_macs / PAPER.energy_pj,
            ours=None if total is None else ops / total,
            method="two operations per multiply-accumulate",
            error=None if share is None else 1 / (1 + share) - 1,
            origins=("energy", "published"),
        ),
        efficiency(
            figure="operations per time and area",
            unit="TOPS/mm²",
            paper=2 * paper_macs / PAPER.latency_ns / 1e3 / PAPER.area_mm2,
            ours=None if whole is None else ops / interval_ns / 1e3 / whole,
            method="a token per interval; published: one at a time",
            error=None if area["error"] is None else -area["error"] * area["value"] / whole,
            origins=("design", "timing", "published"),
        ),
    )
    return [row.as_dict() for row in rows]


def compare_gpus(
    figures: Mapping[str, Mapping[str, Any]] | None, clock_ns: float
) -> list[dict[str, Any]]:
    """GPT-2's heads of a layer: measured on processors, the least these must do, and ours.

    Parameters
    ----------
    figures
        Those of `sim.silicon.build_silicon`; None for a head that does not do the same.
    clock_ns
        Clock that pulses are counted with.

    Returns
    -------
    list of dict
        By processor: ``measured_us``, ``measured_uj`` and whether they are from a printed ratio;
        ``least_us`` and ``least_uj`` (None without a figure of its memory), ``board_uj`` at full
        power in that time; how many times ours is faster and needs less energy than either.
    """
    own_ns = own_uj = None
    if figures is not None:
        own_ns = figures["latency_clk"]["value"] * clock_ns
        digital_pj = figures["digital_energy_pj_28nm"]["value"]
        if digital_pj is not None:
            own_uj = PAPER.heads * (figures["analog_energy_pj"]["value"] + digital_pj) / 1e6
    moved = least_bytes(PAPER.window, PAPER.head_size, PAPER.heads)
    rows = []
    for gpu in GPUS:
        measured_us = gpu.token_us or gpu.times_latency * PAPER.latency_ns / 1e3
        measured_uj = gpu.token_uj or gpu.times_energy * PAPER.heads * PAPER.energy_pj / 1e6
        least_us = moved / gpu.bandwidth_gb_s / 1e3
        least_uj = None
        if gpu.memory_pj_per_bit is not None:
            least_uj = 8 * moved * gpu.memory_pj_per_bit / 1e6
        rows.append(
            {
                "name": gpu.name,
                "measured_us": measured_us,
                "measured_uj": measured_uj,
                "from_ratio": gpu.token_us is None,
                "least_mbyte": moved / 1e6,
                "least_us": least_us,
                "least_uj": least_uj,
                "board_uj": gpu.power_w * least_us,
                "times_faster": own_ns and 1e3 * measured_us / own_ns,
                "times_less_energy": own_uj and measured_uj / own_uj,
                "times_faster_least": own_ns and 1e3 * least_us / own_ns,
                "times_less_energy_least": own_uj and least_uj and least_uj / own_uj,
                "source": gpu.source,
            }
        )
    return rows
