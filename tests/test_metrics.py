"""Metrics: what is worse fails, what is better is said, what holds is kept."""

from __future__ import annotations

import json
import sys

import pytest

import gaincell.metrics
from gaincell import cli
from hw.presets import PRESETS
from sim.metrics import METRICS, RULES, Metric, check_metrics, read_rules, update_rules
from sim.silicon_figures import draw_history

LESS = Metric(name="gates", title="gates", unit="gates", tolerance=0.02)
MORE = Metric(name="fmax", title="clock", unit="MHz", tolerance=0.03, more_is_better=True)
EXACT = Metric(name="clk", title="latency", unit="clocks", tolerance=0.0)


@pytest.mark.parametrize(
    ("metric", "value", "verdict"),
    [
        (LESS, 102.0, "holds"),
        (LESS, 102.1, "worse"),
        (LESS, 97.0, "better"),
        (MORE, 97.0, "holds"),
        (MORE, 96.9, "worse"),
        (MORE, 104.0, "better"),
        (EXACT, 100, "holds"),
        (EXACT, 101, "worse"),
        (EXACT, 99, "better"),
    ],
)
def test_verdicts(metric, value, verdict):
    assert metric.verdict(value, 100.0) == verdict
    passes = value >= metric.limit(100.0) if metric.more_is_better else value <= metric.limit(100.0)
    assert passes == (verdict != "worse")


def values(**changes: float) -> dict[str, tuple[float, str]]:
    held = {metric.name: 100.0 for metric in METRICS}
    return {name: (value, "here") for name, value in (held | changes).items()}


def test_update_keeps_a_history(tmp_path):
    rules_file = tmp_path / "metrics.json"
    assert {row.verdict for row in check_metrics(values(), read_rules(rules_file))} == {"new"}
    update_rules(values(), rules_file)
    update_rules(values(), rules_file)  # nothing new
    rules = update_rules(values(gates=90.0), rules_file)
    assert [update["values"]["gates"] for update in rules["history"]] == [100.0, 90.0]
    assert rules == read_rules(rules_file)
    found = {r.metric.name: r.verdict for r in check_metrics(values(gates=100.0), rules)}
    assert found.pop("gates") == "worse" and set(found.values()) == {"holds"}
    # What is not measured keeps its value.
    few = {"gates": (80.0, "here")}
    rules = update_rules(few, rules_file)
    assert rules["values"]["latency_clk"] == 100.0
    verdicts = {r.metric.name: r.verdict for r in check_metrics(few, rules)}
    assert verdicts["gates"] == "holds" and verdicts["latency_clk"] == "not measured"
    pictures = draw_history(
        tmp_path / "history", rules["history"], {m.name: m.title for m in METRICS}
    )
    assert all(picture.stat().st_size > 5000 for picture in pictures)


def test_the_command_fails_on_what_is_worse(monkeypatch, tmp_path, capsys):
    rules_file = tmp_path / "metrics.json"
    update_rules(values(), rules_file)
    rules = read_rules(rules_file)
    monkeypatch.setattr(gaincell.metrics, "read_rules", lambda: rules)

    def run(**changes: float) -> int:
        monkeypatch.setattr(gaincell.metrics, "measure", lambda: values(**changes))
        monkeypatch.setattr(sys, "argv", ["gaincell", "metrics"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    assert run() == 0
    assert run(energy_pj=104.0) == 0
    assert run(energy_pj=106.0, fmax_mhz=90.0) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "worse than the tolerance allows: highest clock, energy per token" in said


def test_committed_rules_are_of_the_default_head():
    rules = json.loads(RULES.read_text(encoding="utf-8"))
    assert rules["history"][-1]["values"] == rules["values"]
    assert rules["history"][-1]["config_hash"] == PRESETS["default"].config_hash
    assert set(rules["values"]) <= {metric.name for metric in METRICS}
