"""The command line: options reach their jobs, and failures are one line."""

from __future__ import annotations

import sys
from pathlib import Path

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
        monkeypatch.setattr(cli, job, lambda job=job, **options: calls.update({job: options}))
    monkeypatch.setattr(sim.report, "draw_pictures", lambda: None)
    options = "--tokens 20 --seed 3 --layer 0 --head 8 --preset tiny --readout counter"
    more = ("--schedule", "streaming", "--set", "rows=9", "--simulator", "icarus")
    assert run(monkeypatch, "demo", *options.split(), *more, "--liberty", "some.lib") == 0
    shape = {"name": "tiny", "schedule": "streaming", "settings": ["rows=9"]}
    source = {"count": 20, "seed": 3, "layer": 0, "head": 8}
    assert calls["verilog"] == {"readout": "counter", **shape}
    assert calls["tokens"] == source
    assert calls["cosim"] == {"readout": "counter", "simulator": "icarus", **source, **shape}
    assert calls["area"] == {"liberty": [Path("some.lib")], **shape}


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

    monkeypatch.setattr(synth.verilog, "write_verilog", interrupted)
    assert run(monkeypatch, "verilog") == 130
    assert "interrupted; results of finished jobs are kept" in capsys.readouterr().err
