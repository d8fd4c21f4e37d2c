"""Report page, terminal summary and pictures, from synthetic results."""

from __future__ import annotations

import io
import json
import os
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sim.figures import draw_area, draw_waveform, wave_phases
from sim.report import COMMANDS, draw_pictures, terminal_summary, write_report

VOID = {"meta", "img", "br", "hr", "link", "input"}
STAMP = {"config_hash": "0123456789ab", "date": "2026-01-02T03:04:05+00:00"}


def cosim(**changes: Any) -> dict[str, Any]:
    return {
        "tokens": 1200,
        "lanes_compared": 76800,
        "mismatches": 0,
        "first_mismatch": None,
        "latency_clk": 55,
        "clocks": 64784,
        "seconds": 5.3,
        "clocks_per_second": 12182.0,
        "tokens_per_second": 225.4,
        "seed": 3,
        "model_layer": 10,
        "model_head": 7,
        "text": "<hamlet> & co",
        "simulator": "verilator",
        "stall_probability": 0.1,
        "time_share": {"model": 0.1, "bridge": 0.2, "rest": 0.7},
        "params": {"subtiles": 16, "readout": "population"},
        "tools": {"python": "3.11.7", "pyosys": "0.70"},
        **STAMP,
        **changes,
    }


def area(**changes: Any) -> dict[str, Any]:
    def head(readout: float) -> dict[str, Any]:
        def row(gates: float) -> dict[str, Any]:
            return {
                "cells": round(gates / 2),
                "area_um2": 24 * gates,
                "gate_equivalents": gates,
                "flip_flops": 7,
            }

        blocks = {"receiver": row(4000.0), "readout": row(readout), "glue": row(1.0)}
        return row(4001.0 + readout) | {"config_hash": "0123456789ab", "blocks": blocks}

    return {
        "library": {
            "name": "some_cells",
            "file": "some.lib",
            "sha256": "ab" * 32,
            "gate_equivalent": "NAND2X1",
            "full_adder": "FAX1",
        },
        "yosys": "0.70",
        "gate_equivalent_um2": 24.0,
        "readouts": {"population": head(15000.0), "counter": head(80000.0)},
        "readout_ratio": 5.333,
        "readout_ratio_target": 4.0,
        "params": {"readout": "population"},
        "tools": {"pyosys": "0.70"},
        **STAMP,
        **changes,
    }


def wave() -> dict[str, Any]:
    def high(start: int, clocks: int) -> list[int]:
        return [int(start <= clock < start + clocks) for clock in range(60)]

    pulses = [max(0, 2 ** (20 - clock) - 1) if 9 <= clock < 20 else 0 for clock in range(60)]
    signals = {
        "s_axis_tvalid": (1, high(0, 4)),
        "s_axis_tlast": (1, high(3, 1)),
        "ana_k_write": (1, high(5, 3)),
        "ana_v_write": (1, high(9, 3)),
        "ana_integrate": (1, high(9, 12)),
        "ana_q_pulse": (64, pulses),
        "ana_convert": (1, high(22, 12)),
        "ana_readout": (1, high(35, 12)),
        "ana_column_mask": (8, [3] * 60),
        "m_axis_tvalid": (1, high(49, 5)),
    }
    return {
        "clock_ns": 1,
        "start": 17,
        "signals": [
            {"name": name, "width": width, "values": values}
            for name, (width, values) in signals.items()
        ],
    }


OTHERS: dict[str, Any] = {
    "tokens": {"tokens": 1200, "rank_correlation": 0.96, "phi_correlation": 0.79, **STAMP},
    "mutants": {
        "count": 200,
        "caught": 199,
        "survived": 1,
        "survivors": [{"description": "xor <a>", "mutation": "mutate -mode inv"}],
        "explanations": {"xor <a>": "equivalent"},
        **STAMP,
    },
    "formal": {
        "rows": [
            {
                "property": "equal",
                "method": "induction",
                "depth": 5,
                "seconds": 1.0,
                "status": "proved",
            }
        ],
        **STAMP,
    },
    "bench": {
        "rows": [
            {"name": "one token", "ours_s": 0.001, "reference_s": 0.002, "ratio": 0.5, "limit": 1.0}
        ],
        **STAMP,
    },
}


def store(folder: Path, **results: dict[str, Any]) -> None:
    for name, result in results.items():
        (folder / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")


class Page(HTMLParser):
    """Checks that tags are balanced and collects what a test asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u202f", " ").split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(folder: Path) -> Page:
    path = write_report(folder)
    assert path == folder / "index.html"
    return Page(path.read_text(encoding="utf-8"))


def shown(renderable: object, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(renderable)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    store(folder, cosim=cosim(), area=area(), wave=wave(), **OTHERS)
    draw_pictures(folder)
    shutil.copyfile(folder / "area.svg", folder / "attention.svg")
    return folder


def test_full_page(full: Path) -> None:
    result = page(full)
    for words in (
        "1 200 real tokens of “<hamlet> & co”",
        "layer 10, head 7",
        "Verilator (seed 3",
        "0 mismatches in 76 800 integers",
        "55 clocks",
        "225 /s",
        "5.3×",
        "(target: 4, met)",
        "199 of 200 mutants",
        "xor <a>",
        "proved",
        "one token",
        "Pre-layout.",
        "Digital part only.",
        "1 GHz is assumed, not timed.",
        "0123456789ab",
        "pyosys 0.70",
        "2026-01-02",
    ):
        assert words in result.text, words
    assert "Not run yet" not in result.text
    assert "No picture yet" not in result.text


def test_page_is_one_file_and_accessible(full: Path) -> None:
    result = page(full)
    assert result.all("html") == [{"lang": "en"}]
    assert not result.all("script")
    assert not result.all("link")
    images = result.all("img")
    assert len(images) == 3
    for image in images:
        assert (image["src"] or "").startswith("data:image/svg+xml;base64,")
        assert len(image["alt"] or "") > 30
    assert len(result.all("figcaption")) == 3
    assert all("scope" in heading for heading in result.all("th"))
    assert len(result.all("title")) == 1
    assert len(result.all("h1")) == 1
    ids = [attributes["id"] for _, attributes in result.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "convert to φ 12 clocks from clock 22" in (images[0]["alt"] or "")


def test_page_is_deterministic(full: Path) -> None:
    before = (write_report(full)).read_bytes()
    assert write_report(full).read_bytes() == before


def test_empty_folder_says_what_to_run(tmp_path: Path) -> None:
    result = page(tmp_path)
    for name in ("cosim", "area", "mutants", "formal", "bench"):
        assert COMMANDS[name] in result.text
    assert result.text.count("Not run yet") == 5
    assert result.text.count("No picture yet") == 2
    text = shown(terminal_summary(tmp_path))
    for command in COMMANDS.values():
        assert command in text


@pytest.mark.parametrize("present", ["cosim", "area", "mutants", "formal", "bench", "tokens"])
def test_each_result_alone(tmp_path: Path, present: str) -> None:
    store(tmp_path, **{present: {"cosim": cosim(), "area": area(), **OTHERS}[present]})
    result = page(tmp_path)
    assert "0123456789ab" in result.text
    shown(terminal_summary(tmp_path))


def test_mismatches_and_missed_target_stand_out(tmp_path: Path) -> None:
    wrong = {"token": 5, "lane": 2, "expected": 1, "got": "<2>"}
    store(
        tmp_path,
        cosim=cosim(mismatches=3, first_mismatch=wrong, config_hash="ffff"),
        area=area(readout_ratio=3.2),
    )
    result = page(tmp_path)
    assert "3 integers differ." in result.text
    assert "<2>" in result.text
    assert "missed" in result.text
    assert "These figures are of configuration 0123456789ab" in result.text
    assert [item.get("class") for item in result.all("li")][:4] == ["bad", None, None, "bad"]
    assert "ffff" in shown(terminal_summary(tmp_path))


def test_damaged_result(tmp_path: Path) -> None:
    (tmp_path / "cosim.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"cosim\.json is no valid JSON"):
        write_report(tmp_path)
    (tmp_path / "cosim.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match=r"cosim\.json must hold a JSON object, not 'list'"):
        write_report(tmp_path)


def test_terminal_summary(full: Path) -> None:
    text = " ".join(shown(terminal_summary(full), 160).replace("\u202f", " ").split())
    for words in ("1 200 real tokens", "76 800", "55 clocks", "225 /s", "5.3×", "70 %"):
        assert words in text, words
    assert "not run" not in text


# --- pictures -----------------------------------------------------------------------------------


def test_pictures_are_drawn_again_only_when_older(tmp_path: Path) -> None:
    store(tmp_path, area=area(), wave=wave())
    names = {path.name for path in draw_pictures(tmp_path)}
    assert names == {"waveform.png", "waveform.svg", "area.png", "area.svg"}
    assert draw_pictures(tmp_path) == []
    later = (tmp_path / "area.svg").stat().st_mtime + 10
    os.utime(tmp_path / "area.json", (later, later))
    assert {path.name for path in draw_pictures(tmp_path)} == {"area.png", "area.svg"}


def test_pictures_are_deterministic(tmp_path: Path) -> None:
    for draw, content in ((draw_area, area()), (draw_waveform, wave())):
        first = [path.read_bytes() for path in draw(tmp_path / "a.svg", content)]
        second = [path.read_bytes() for path in draw(tmp_path / "b.svg", content)]
        assert first == second
        assert b"<dc:date>" not in first[1]


def test_phases_of_a_recording() -> None:
    phases = {phase.title: (phase.start, phase.clocks) for phase in wave_phases(wave())}
    assert phases == {
        "token beats": (0, 4),
        "write K": (5, 3),
        "write V": (9, 3),
        "integrate Q·K": (9, 12),
        "convert to φ": (22, 12),
        "read out": (35, 12),
        "result beats": (49, 5),
    }
    assert all(phase.complete for phase in wave_phases(wave()))


def test_recording_that_ends_early() -> None:
    cut = wave()
    for signal in cut["signals"]:
        signal["values"] = signal["values"][:40]
    assert [p.title for p in wave_phases(cut) if not p.complete] == ["read out"]


def test_signals_of_unequal_length(tmp_path: Path) -> None:
    uneven = wave()
    uneven["signals"][0]["values"].pop()
    with pytest.raises(ValueError, match=r"same number of clocks, not \[59, 60\]"):
        draw_waveform(tmp_path / "a.svg", uneven)


def test_comparison_of_heads_is_shown_if_there_is_one(tmp_path):
    row = {
        "name": "with trim", "base": "bare", "times": 2, "heads": 1, "gate_equivalents": 9876.0,
        "per_head": 9876.0, "difference": 1234.0, "ratio": 1.125, "code_store_bits": 384 * 1024,
    }  # fmt: skip
    store(tmp_path, area=area(variants=[row]))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    for text in ("with trim", "9\u202f876", "1\u202f234", "12.5", "2 × bare", "384"):
        assert text in page, text
    store(tmp_path, area=area(variants=[]))
    assert "What features cost" not in write_report(tmp_path).read_text(encoding="utf-8")
