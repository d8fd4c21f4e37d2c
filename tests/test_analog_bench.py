"""The benchmark: its rows and file. Speed itself is checked by the bench job, not by a test."""

from __future__ import annotations

import json

import pytest

from sim.bench import run_bench


def test_bench_writes_its_rows(tmp_path, capsys):
    rows = run_bench(tmp_path, repeats=3)
    assert [row["name"] for row in rows] == ["attend, quantised", "attend, real-valued"]
    for row in rows:
        assert row["ratio"] == row["ours_s"] / row["reference_s"]
        assert row["limit"] == 3.0
        assert row["ours_s"] > 0
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["rows"] == rows
    assert len(written["config_hash"]) == 12
    assert {"numpy", "scipy", "python"} <= set(written["tools"])
    assert "Measuring attend" in capsys.readouterr().out


def test_bench_errors(tmp_path):
    with pytest.raises(ValueError, match="repeats must be at least 1, not 0"):
        run_bench(tmp_path, repeats=0)
    with pytest.raises(TypeError, match=r"repeats must be an int, not 1\.0"):
        run_bench(tmp_path, repeats=1.0)
    assert not list(tmp_path.iterdir())
