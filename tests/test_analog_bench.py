"""The benchmark: its rows and file. Speed itself is checked by the bench job, not by a test."""

from __future__ import annotations

import json

import pytest

from sim.bench import run_bench


def test_bench_writes_its_rows(tmp_path, capsys):
    rows = run_bench(tmp_path, repeats=3)
    tiles = [
        "16 tiles, array 1",
        "16 tiles, array 2",
        "16 tiles, array 1, noise",
        "16 tiles, array 2, noise",
        "one token, both arrays",
    ]
    names = [row["name"] for row in rows if not row["name"].startswith("aihwkit")]
    assert names == ["attend, quantised", "attend, real-valued", *tiles]
    for row in rows:
        assert row["ratio"] == row["ours_s"] / row["reference_s"]
        assert row["ours_s"] > 0
    assert [row["limit"] for row in rows[:4]] == [3.0, 3.0, 1.25, 1.25]
    for row in rows[4:6]:
        limit_s = min(8 * row["reference_s"], 180e-9 * 16 * 1024)
        assert row["limit"] * row["reference_s"] == pytest.approx(limit_s)
    assert rows[6]["limit"] * rows[6]["reference_s"] == pytest.approx(20e-6)
    assert rows[6]["ns_per_product"] == pytest.approx(rows[6]["ours_s"] * 1e9 / 32)
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["rows"] == rows
    assert len(written["config_hash"]) == 12
    assert {"numpy", "scipy", "python"} <= set(written["tools"])
    assert "Measuring" in capsys.readouterr().out


def test_bench_errors(tmp_path):
    with pytest.raises(ValueError, match="repeats must be at least 1, not 0"):
        run_bench(tmp_path, repeats=0)
    with pytest.raises(TypeError, match=r"repeats must be an int, not 1\.0"):
        run_bench(tmp_path, repeats=1.0)
    assert not list(tmp_path.iterdir())
