"""Silicon figures of a head: measured on libraries, carried to 28 nm, beside the published system.

Measurements are of jobs (`make area`, `make timing`, `make energy`); each library's are kept beside
each other, so that one can be predicted from another: the difference is the error that every scaled
figure carries.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw.packet import Command
from hw.params import HeadParams
from hw.presets import PRESETS
from sim.analog_energy import REAL
from sim.comparison import compare, compare_gpus
from sim.published import PAPER
from sim.reference.layer import head_interval_clk, head_latency_clk
from sim.results import ROOT, write_result, write_text_whole
from synth.scaling import (
    GATE_28NM_UM2,
    METHODS,
    TARGET,
    Process,
    ScalingError,
    area_factor,
    delay_factor,
    energy_factor,
    fo4_ps,
    process_of,
)

__all__ = [
    "CLOCK_NS",
    "LIBRARIES",
    "Measured",
    "build_silicon",
    "keep_libraries",
    "measured_results",
    "scaling_errors",
]

#: Period of the clock that pulses are counted with, as in the published system.
CLOCK_NS = 1.0
#: Results that each library has of its own, and the command that makes them.
JOBS = {"area": "make area", "timing": "make timing", "energy": "make energy"}
#: Measurements of the default head on several libraries, for where only one library is installed.
LIBRARIES = ROOT / "docs" / "measured" / "libraries.json"
#: How the analog part's energy is known if our own model has not run.
AS_PRINTED = "as printed"
#: Nodes that the report carries the figures to, at their nominal voltages.
NODES_NM = (90, 65, 45, 28, 22, 14, 7)
#: The methods whose figures are the report's.
CHOSEN = {"delay": "inverter", "energy": "polynomials", "area": "gates"}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One head on one library, in the library's own node; None is not measured."""

    library: str
    node_nm: int | None
    voltage_v: float | None
    config_hash: str
    heads: int = 1
    gate_um2: float | None = None  #: two-input NAND
    area_um2: float | None = None  #: of the timed netlist, if there is one
    period_ns: float | None = None  #: of the highest clock
    fo4_ps: float | None = None  #: delay of the library's own inverter with four of its kind
    energy_pj: float | None = None  #: switching, per token and head
    leakage_pj: float | None = None  #: per token and head
    date: str = ""

    @property
    def process(self) -> Process:
        """The node and voltage.

        Raises
        ------
        ScalingError
            They are not known, or the tables do not have them.
        """
        return process_of(self.library, self.voltage_v, node_nm=self.node_nm)


def measured_results(report: Path) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """Results of the jobs, by library and configuration hash, then by job.

    A job's last result is ``JOB.json``; what it measured on other libraries and of other heads is
    in files beside it whose names begin with ``JOB-``.
    """
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for job in JOBS:
        for path in (*sorted(report.glob(f"{job}-*.json")), report / f"{job}.json"):
            if path.exists():
                result = json.loads(path.read_text(encoding="utf-8"))
                key = result["library"]["name"], result["config_hash"]
                found.setdefault(key, {})[job] = result
    return found


def _measured(
    library: str, config_hash: str, results: Mapping[str, Mapping[str, Any]], node_nm: int | None
) -> Measured:
    area, timing, energy = (results.get(job, {}) for job in JOBS)
    about = area.get("library", {}) | energy.get("library", {}) | timing.get("library", {})
    head = timing or (area["readouts"][area["params"]["readout"]] if area else {})
    parts = energy.get("parts", {})
    return Measured(
        library=library,
        node_nm=node_nm,
        voltage_v=about.get("voltage_v"),
        config_hash=config_hash,
        heads=next(iter(results.values()))["params"].get("heads", 1),
        gate_um2=about.get("gate_equivalent_um2", area.get("gate_equivalent_um2")),
        area_um2=head.get("area_um2"),
        period_ns=timing["period_ps"] / 1e3 if timing else None,
        fo4_ps=about.get("fo4_ps"),
        energy_pj=energy["energy_pj"] - parts["leakage"] if energy else None,
        leakage_pj=parts["leakage"] if energy else None,
        date=max(result["date"] for result in results.values()),
    )


def _factor(metric: str, source: Measured, target: Process, method: str) -> float:
    """What a figure in the library's own node is to be multiplied by."""
    if method == "inverter":
        if source.fo4_ps is None:
            raise ScalingError(f"{source.library}: delay of its inverter is not known")
        return fo4_ps(target) / source.fo4_ps
    if method == "gates":
        if source.gate_um2 is None:
            raise ScalingError(f"{source.library}: area of its NAND is not known")
        at_28 = GATE_28NM_UM2 / source.gate_um2
        return at_28 if target == TARGET else at_28 * area_factor(TARGET, target, "published")
    factor = {"delay": delay_factor, "energy": energy_factor, "area": area_factor}[metric]
    return factor(source.process, target, method)


_VALUE = {"delay": "period_ns", "energy": "energy_pj", "area": "area_um2"}


def _between(metric: str, source: Measured, other: Measured, method: str) -> float:
    """Factor from one library to another, which has an inverter and a NAND of its own."""
    if method == "inverter":
        if source.fo4_ps is None or other.fo4_ps is None:
            raise ScalingError("delay of an inverter is not known")
        return other.fo4_ps / source.fo4_ps
    if method == "gates":
        if source.gate_um2 is None or other.gate_um2 is None:
            raise ScalingError("area of a NAND is not known")
        return other.gate_um2 / source.gate_um2
    return _factor(metric, source, other.process, method)


def scaling_errors(libraries: Sequence[Measured]) -> list[dict[str, Any]]:
    """Each library's figures predicted from each other's, older node to newer, by every method.

    Returns
    -------
    list of dict
        ``source`` and ``target`` (libraries), ``metric``, ``method``, ``predicted``, ``measured``,
        ``error`` (predicted over measured, less one).
    """
    rows = []
    for source in libraries:
        for other in libraries:
            if source.config_hash != other.config_hash:
                continue
            try:
                if source.process.node_nm <= other.process.node_nm:
                    continue
            except ScalingError:
                continue
            for metric, methods in METHODS.items():
                value, measured = (getattr(one, _VALUE[metric]) for one in (source, other))
                for method in methods if value and measured else ():
                    try:
                        predicted = value * _between(metric, source, other, method)
                    except ScalingError:
                        continue
                    rows.append(
                        {
                            "source": source.library,
                            "target": other.library,
                            "metric": metric,
                            "method": method,
                            "predicted": predicted,
                            "measured": measured,
                            "error": predicted / measured - 1,
                        }
                    )
    return rows


def _scaled(
    libraries: Sequence[Measured], errors: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Every metric at 28 nm from every library by every method."""
    rows = []
    for metric, methods in METHODS.items():
        for one in libraries:
            value = getattr(one, _VALUE[metric])
            for method in methods if value else ():
                try:
                    factor = _factor(metric, one, TARGET, method)
                except ScalingError:
                    continue
                known = [
                    row["error"]
                    for row in errors
                    if (row["metric"], row["method"]) == (metric, method)
                    and one.library in (row["source"], row["target"])
                ]
                rows.append(
                    {
                        "metric": metric,
                        "method": method,
                        "library": one.library,
                        "own": value,
                        "factor": factor,
                        "value": value * factor,
                        "error": max(known, key=abs, default=None),
                        "chosen": CHOSEN[metric] == method,
                    }
                )
    return rows


def _nodes(own: Measured) -> list[dict[str, Any]]:
    """The head of one library at several nodes, each at its nominal voltage."""
    rows = []
    for node_nm in NODES_NM:
        row: dict[str, Any] = {"node_nm": node_nm}
        for metric, method in CHOSEN.items():
            value = getattr(own, _VALUE[metric])
            try:
                factor = _factor(metric, own, Process(node_nm=node_nm), method)
            except ScalingError:
                factor = None
            row[_VALUE[metric]] = value * factor if value and factor else None
        rows.append(row)
    return rows


def _shape_notes(params: HeadParams) -> list[str]:
    """That a head is not of the published shape."""
    shape = params.window, params.rows, params.lanes
    published = PAPER.window, PAPER.head_size, PAPER.head_size
    if shape == published:
        return []
    ours, theirs = (" x ".join(map(str, one)) for one in (shape, published))
    return [f"this head is of {ours} (window, rows, lanes), the published one of {theirs}"]


def _notes(own: Measured) -> list[str]:
    """What keeps a library's figures from being scaled, or makes them less certain."""
    notes = []
    if own.voltage_v is None and (own.period_ns or own.energy_pj):
        notes.append(f"{own.library} states no supply: its node's nominal voltage is assumed")
    try:
        _ = own.process
    except ScalingError as error:
        notes.append(str(error))
    return notes


def _heads(measured: Iterable[Measured], own: str) -> list[dict[str, Any]]:
    """Every head measured on one library, at 28 nm by the chosen methods, the largest first."""
    names = {params.config_hash: name for name, params in PRESETS.items()}
    rows = []
    for one in measured:
        if one.library != own:
            continue
        row: dict[str, Any] = {
            "head": names.get(one.config_hash, one.config_hash),
            "heads": one.heads,
            "config_hash": one.config_hash,
        }
        for metric, method in CHOSEN.items():
            value = getattr(one, _VALUE[metric])
            try:
                row[_VALUE[metric]] = value and value * _factor(metric, one, TARGET, method)
            except ScalingError:
                row[_VALUE[metric]] = None
        rows.append(row)
    return sorted(rows, key=lambda row: -(row["area_um2"] or 0.0))


def _figure(rows: Iterable[Mapping[str, Any]], metric: str, own: str) -> dict[str, Any]:
    """The chosen scaled figure of a metric, and how far the other methods and libraries are."""
    rows = [row for row in rows if row["metric"] == metric]
    chosen = next((r for r in rows if r["chosen"] and r["library"] == own), None)
    if chosen is None:
        return {"value": None, "library": own, "method": CHOSEN[metric], "error": None}
    values = [row["value"] for row in rows]
    return {
        "value": chosen["value"],
        "library": own,
        "method": chosen["method"],
        "error": chosen["error"],
        "low": min(values),
        "high": max(values),
    }


def _analog(report: Path) -> dict[str, Any]:
    """Energy of the analog part: of our own model if it has run, else as published."""
    path = report / "analog_energy.json"
    if path.exists():
        result = json.loads(path.read_text(encoding="utf-8"))
        row = next(row for row in result["rows"] if row["operands"] == REAL)
        return {
            "qk_pj": row["integrate_pj"] + (row["convert_pj"] or 0.0),
            "phi_v_pj": row["drive_pj"] + (row["readout_pj"] or 0.0),
            "dac_pj": row["write_pj"],
            "method": "current x voltage x time of the pulses of real tokens; write as printed"
            if result["device"].startswith("published")
            else "current x voltage x time of the pulses of real tokens",
            "library": f"device {result['device']}",
        }
    return {
        "qk_pj": PAPER.qk_pj,
        "phi_v_pj": PAPER.phi_v_pj,
        "dac_pj": PAPER.dac_pj,
        "method": AS_PRINTED,
        "library": "published 28 nm cell",
    }


def build_silicon(
    report_dir: Path | None = None,
    *,
    node_nm: int | None = None,
    libraries_file: Path | None = None,
) -> dict[str, Any]:
    """Gather what was measured, scale it, compare it and write ``silicon.json``.

    What has not been measured is None; ``missing`` names the commands that measure it.

    Parameters
    ----------
    report_dir
        Folder of the results; ``build/report`` by default.
    node_nm
        Node of the library of the last run, if its name does not tell.
    libraries_file
        Measurements of other libraries to compare with; those of the repository by default.

    Returns
    -------
    dict
        The figures, as in ``silicon.json``.
    """
    report = report_dir or ROOT / "build" / "report"
    results = measured_results(report)
    params, config_hash, own = _shown(report, results)
    file = libraries_file or LIBRARIES
    kept = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    measured = {(row["library"], row["config_hash"]): Measured(**row) for row in kept}
    for key, by_job in results.items():
        measured[key] = _measured(*key, by_job, node_nm if key[0] == own else None)
    errors = scaling_errors(list(measured.values()))
    ours = [one for one in measured.values() if one.config_hash == config_hash]
    ours.sort(key=lambda one: one.library != own)  # the library of the last run first
    scaled = _scaled(ours, errors)
    mine = measured.get((own, config_hash))

    analog = _analog(report)
    analog_pj = analog["qk_pj"] + analog["phi_v_pj"] + analog["dac_pj"]
    energy, area, delay = (_figure(scaled, metric, own) for metric in ("energy", "area", "delay"))
    counted = "counted in the design; tests and co-simulation hold it"
    figures: dict[str, dict[str, Any]] = {
        "digital_energy_pj_28nm": energy | {"unit": "pJ per token and head"},
        "analog_energy_pj": {
            "value": analog_pj,
            "library": analog["library"],
            "method": analog["method"],
            "error": None,
            "unit": "pJ per token and head",
        },
        "digital_area_mm2_28nm": _times(area, 1e-6 / params.heads) | {"unit": "mm² per head"},
        "fmax_mhz_28nm": _inverse(delay) | {"unit": "MHz"},
        "latency_clk": {
            "value": head_latency_clk(params, Command.WRITE_QUERY),
            "library": None,
            "method": counted,
            "error": 0.0,
            "unit": "clocks",
        },
        "interval_clk": {
            "value": head_interval_clk(params),
            "library": None,
            "method": counted,
            "error": 0.0,
            "unit": "clocks",
        },
    }
    by_metric = {
        metric: max(
            (row["error"] for row in errors if (row["metric"], row["method"]) == (metric, method)),
            key=abs,
            default=None,
        )
        for metric, method in CHOSEN.items()
    }
    figures["scaling_error"] = {
        "value": max((abs(e) for e in by_metric.values() if e is not None), default=None),
        "by_metric": by_metric,
        "library": ", ".join(dict.fromkeys(f"{r['source']} to {r['target']}" for r in errors)),
        "method": "one library predicted from another",
        "error": None,
        "unit": "share; the largest of the three metrics",
    }
    result: dict[str, Any] = {
        **{name: figure["value"] for name, figure in figures.items()},
        "figures": figures,
        "analog": analog,
        "scaled": scaled,
        "scaling": errors,
        "nodes": _nodes(mine) if mine else [],
        "heads": _heads(measured.values(), own),
        "libraries": [dataclasses.asdict(one) for one in ours],
        "notes": [*_shape_notes(params), *(_notes(mine) if mine else [])],
        "clock_ns": CLOCK_NS,
        "config_hash": config_hash,
        "params": params.as_dict(),
        "missing": [
            command
            for job, command in JOBS.items()
            if job not in results.get((own, config_hash), {})
        ],
    }
    result["comparison"] = compare(params, figures, analog, CLOCK_NS)
    result["gpus"] = compare_gpus(None if _shape_notes(params) else figures, CLOCK_NS)
    tools: dict[str, str] = {}
    for by_job in results.values():
        for one in by_job.values():
            tools |= one["tools"]
    result["measured_with"] = tools
    _write(result, report)
    return result


def keep_libraries(silicon: Mapping[str, Any], libraries_file: Path = LIBRARIES) -> None:
    """Keep the measurements of all libraries, for where only one of them is installed."""
    rows = sorted(silicon["libraries"], key=lambda row: row["library"])
    write_text_whole(libraries_file, json.dumps({"rows": rows}, indent=2) + "\n")


def _write(result: Mapping[str, Any], report: Path) -> None:
    """Write ``silicon.json``, unless it says the same already: then it keeps its date."""
    path = report / "silicon.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if json.loads(json.dumps(result)).items() <= before.items():
            return
    write_result(
        "silicon",
        result,
        config_hash=result["config_hash"],
        tools=["amaranth"],
        report_dir=report,
    )


def _shown(
    report: Path, results: Mapping[tuple[str, str], Mapping[str, Mapping[str, Any]]]
) -> tuple[HeadParams, str, str]:
    """Head, configuration hash and library of the report.

    The default head's, if it has been measured, else the last run's; and the library that most is
    measured on.
    """
    params = PRESETS["default"]
    config_hash = params.config_hash
    last = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in (report / f"{job}.json" for job in JOBS)
        if path.exists()
    ]
    if last and all(measured != config_hash for _, measured in results):
        config_hash, params = last[0]["config_hash"], _params(last[0]["params"])
    names = [result["library"]["name"] for result in last]
    names += [library for library, _ in results]
    of_head = [name for name in names if (name, config_hash) in results]
    own = max(of_head, key=lambda name: len(results[name, config_hash]), default="")
    return params, config_hash, own


def _params(fields: Mapping[str, Any]) -> HeadParams:
    known = {field.name for field in dataclasses.fields(HeadParams)}
    return HeadParams(**{name: value for name, value in fields.items() if name in known})


def _times(figure: Mapping[str, Any], factor: float) -> dict[str, Any]:
    scaled = dict(figure)
    for name in ("value", "low", "high"):
        if scaled.get(name) is not None:
            scaled[name] *= factor
    return scaled


def _inverse(figure: Mapping[str, Any]) -> dict[str, Any]:
    """A clock in MHz from a period in ns, its error and its range."""
    turned = dict(figure)
    if figure["value"] is None:
        return turned
    turned |= {"value": 1e3 / figure["value"]}
    turned |= {"low": 1e3 / figure["high"], "high": 1e3 / figure["low"]}
    if figure["error"] is not None:
        turned["error"] = 1 / (1 + figure["error"]) - 1
    return turned
