"""The command line: options reach their jobs, and failures are one line."""

from __future__ import annotations

import sys

import pytest

import sim.report
import synth.verilog
from gaincell import cli


def run(monkeypatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gaincell", *args])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_the_main_job_passes_every_option_on(monkeypatch):
    calls = {}
    for job in ("verilog", "tokens", "cosim", "area", "report"):
        monkeypatch.setattr(cli, job, lambda *args, job=job: calls.update({job: args}))
    monkeypatch.setattr(sim.report, "draw_pictures", lambda: None)
    options = "--tokens 20 --seed 3 --layer 0 --head 8 --preset tiny --readout counter"
    more = ("--set", "rows=9", "--simulator", "icarus", "--liberty", "some.lib")
    assert run(monkeypatch, "demo", *options.split(), *more) == 0
    assert calls["verilog"] == ("tiny", "counter", ["rows=9"])
    assert calls["tokens"] == (20, 3, 0, 8)
    assert calls["cosim"] == (20, 3, 0, 8, "tiny", "counter", ["rows=9"], "icarus")
    assert [str(arg) for arg in calls["area"]] == ["tiny", "['rows=9']", "some.lib"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rows", "--set rows must be a whole number, not ''"),
        ("rows=-5", "--set rows must be a whole number, not '-5'"),
        ("rows=0", "rows must be in 1..256, not 0"),
        ("rowz=5", "not 'rowz'"),
    ],
)
def test_a_wrong_setting_is_one_line(setting, message, monkeypatch, capsys):
    assert run(monkeypatch, "verilog", "--set", setting) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert error.startswith("error: ") and error.endswith(message)


def test_an_interrupt_is_said(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(synth.verilog, "write_head_verilog", interrupted)
    assert run(monkeypatch, "verilog") == 130
    assert "interrupted; results of finished jobs are kept" in capsys.readouterr().err
