"""Figures of the design that must not get worse unnoticed: a tolerance file, a check, a history.

Clocks and a small head's gates are measured by the check itself. The default head's area, timing
and energy take minutes: of them the last results count, or else those committed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from amaranth.hdl import Fragment
from rich.table import Table

from hw.layer import AttentionLayer
from hw.presets import PRESETS
from sim.results import ROOT, write_text_whole
from synth.area import run_area

__all__ = [
    "METRICS",
    "RULES",
    "Checked",
    "Metric",
    "check_metrics",
    "measure",
    "metrics_table",
    "read_rules",
    "update_rules",
]

#: Values that hold, and those that held before.
RULES = ROOT / "docs" / "measured" / "metrics.json"
#: Head whose gates the check measures itself.
SMALL = "tiny"
#: Library of all metrics.
_LIBRARY = "osu018_stdcells"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure that is watched."""

    name: str
    title: str
    unit: str
    tolerance: float  #: share by which it may be worse
    more_is_better: bool = False

    def limit(self, value: float) -> float:
        """The worst value that passes where ``value`` held."""
        return value * (1 - self.tolerance if self.more_is_better else 1 + self.tolerance)

    def verdict(self, value: float, held: float) -> str:
        """Whether it is "worse" or "better" by more than the tolerance, or "holds"."""
        gain = value - held if self.more_is_better else held - value
        if gain < -self.tolerance * abs(held):
            return "worse"
        return "better" if gain > self.tolerance * abs(held) else "holds"


METRICS = (
    Metric(name="latency_clk", title="latency", unit="clocks", tolerance=0.0),
    Metric(name="interval_clk", title="interval", unit="clocks", tolerance=0.0),
    Metric(name="gates", title="gate equivalents", unit="gates", tolerance=0.02),
    Metric(name="timed_gates", title="gate equivalents, timed", unit="gates", tolerance=0.02),
    Metric(name="fmax_mhz", title="highest clock", unit="MHz", tolerance=0.03, more_is_better=True),
    Metric(name="energy_pj", title="energy per token", unit="pJ", tolerance=0.05),
    Metric(name="small_gates", title=f"gate equivalents, {SMALL}", unit="gates", tolerance=0.02),
)


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A metric's outcome."""

    metric: Metric
    value: float | None  #: None is not measured
    origin: str  #: where it is from
    held: float | None  #: None has no rule yet
    verdict: str  #: "holds", "better", "worse", "new" or "not measured"


def _result(name: str, report: Path) -> tuple[dict[str, Any], str] | None:
    """Last result of the default head on the library of the metrics, and where it was found."""
    for folder in (report, RULES.parent):
        path = folder / f"{name}.json"
        if path.exists():
            result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            of_default = result["config_hash"] == PRESETS["default"].config_hash
            if of_default and result["library"]["name"] == _LIBRARY:
                date = result["date"].split("T")[0]
                return result, f"{folder.name}/{name}.json, {date}"
    return None


def measure(report_dir: Path | None = None) -> dict[str, tuple[float, str]]:
    """Values of all metrics that can be had now, and where each is from."""
    report = report_dir or ROOT / "build" / "report"
    head = AttentionLayer(PRESETS["default"])
    Fragment.get(head, None)  # Amaranth warns of what is never elaborated
    values: dict[str, tuple[float, str]] = {
        "latency_clk": (head.latency_clk, "design"),
        "interval_clk": (head.interval_clk, "design"),
    }
    small = run_area(PRESETS[SMALL], report_dir=ROOT / "build" / "metrics")
    gates = small["readouts"]["population"]["gate_equivalents"]
    values["small_gates"] = gates, f"synthesised now, {small['library']['name']}"
    if found := _result("area", report):
        result, origin = found
        values["gates"] = result["readouts"]["population"]["gate_equivalents"], origin
    if found := _result("timing", report):
        result, origin = found
        values["timed_gates"] = result["gate_equivalents"], origin
        values["fmax_mhz"] = result["fmax_mhz"], origin
    if found := _result("energy", report):
        result, origin = found
        values["energy_pj"] = result["energy_pj"], origin
    return values


def read_rules(rules_file: Path = RULES) -> dict[str, Any]:
    """Values that hold, by metric, and the history of updates."""
    if not rules_file.exists():
        return {"values": {}, "history": []}
    rules: dict[str, Any] = json.loads(rules_file.read_text(encoding="utf-8"))
    return rules


def check_metrics(
    values: Mapping[str, tuple[float, str]], rules: Mapping[str, Any]
) -> list[Checked]:
    """Compare every metric with the value that holds.

    Parameters
    ----------
    values
        As from `measure`.
    rules
        As from `read_rules`.
    """
    rows = []
    for metric in METRICS:
        value, origin = values.get(metric.name, (None, ""))
        held = rules["values"].get(metric.name)
        if value is None:
            verdict = "not measured"
        else:
            verdict = "new" if held is None else metric.verdict(value, held)
        rows.append(Checked(metric=metric, value=value, origin=origin, held=held, verdict=verdict))
    return rows


def update_rules(
    values: Mapping[str, tuple[float, str]], rules_file: Path = RULES
) -> dict[str, Any]:
    """Let measured values hold from now on; a change is added to the history.

    A metric that is not measured keeps its value.
    """
    rules = read_rules(rules_file)
    now = rules["values"] | {name: round(value, 4) for name, (value, _) in values.items()}
    if now != rules["values"]:
        rules["values"] = now
        rules["history"].append(
            {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "config_hash": PRESETS["default"].config_hash,
                "values": dict(now),
            }
        )
        write_text_whole(rules_file, json.dumps(rules, indent=2) + "\n")
    return rules


def metrics_table(rows: list[Checked]) -> Table:
    """Table of a check for the terminal."""
    table = Table(title=f"Metrics of the default head on {_LIBRARY}, in its own node")
    for column in ("metric", "now", "held", "may be", "verdict", "from"):
        justify = "right" if column in ("now", "held", "may be") else "left"
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    styles = {"worse": "bold red", "better": "green", "new": "green", "not measured": "dim"}
    for row in rows:
        metric, held = row.metric, row.held
        table.add_row(
            f"{metric.title}, {metric.unit}",
            "" if row.value is None else f"{row.value:,.6g}",
            "" if held is None else f"{held:,.6g}",
            "" if held is None else f"{metric.limit(held):,.6g}",
            row.verdict,
            row.origin,
            style=styles.get(row.verdict),
        )
    return table
