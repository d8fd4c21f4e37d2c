"""Report page, terminal summary and pictures, from synthetic results."""

from __future__ import annotations

import io
import os
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console
from synthetic import OTHERS, area, cosim, energy, store, timing, wave

from sim.figures import draw_area, draw_waveform, wave_phases
from sim.report import COMMANDS, draw_pictures, terminal_summary, write_report

VOID = {"meta", "img", "br", "hr", "link", "input"}


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
    results = {"cosim": cosim(), "area": area(), "timing": timing(), "energy": energy()}
    store(folder, wave=wave(), **results, **OTHERS)
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
        "28 nm is predicted.",
        "The analog part is not ours.",
        "Beside the published system",
        "NVIDIA RTX 4090",
        "shot_accumulator.<lane>",
        "clock tree",
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
    assert len(images) == 7
    for image in images:
        assert (image["src"] or "").startswith("data:image/svg+xml;base64,")
        assert len(image["alt"] or "") > 30
    assert len(result.all("figcaption")) == 7
    assert all("scope" in heading for heading in result.all("th"))
    assert len(result.all("title")) == 1
    assert len(result.all("h1")) == 1
    ids = [attributes["id"] for _, attributes in result.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert any("convert to φ 12 clocks from clock 22" in (image["alt"] or "") for image in images)
    links = {attributes["href"] for attributes in result.all("a")}
    assert links and links <= {f"#{name}" for name in ids}


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


ALONE = ("cosim", "area", "timing", "energy", "mutants", "formal", "bench", "tokens")


@pytest.mark.parametrize("present", ALONE)
def test_each_result_alone(tmp_path: Path, present: str) -> None:
    results = {"cosim": cosim(), "area": area(), "timing": timing(), "energy": energy(), **OTHERS}
    store(tmp_path, **{present: results[present]})
    result = page(tmp_path)
    ids = {attributes.get("id") for _, attributes in result.tags}
    assert {(attributes["href"] or "")[1:] for attributes in result.all("a")} <= ids
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
    moods = [item.get("class") for item in result.all("li")]
    assert moods[0] == "bad" and moods.count("bad") == 2
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
    of_results = {"waveform.png", "waveform.svg", "area.png", "area.svg"}
    assert names == of_results | {"history.png", "history.svg"}
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
