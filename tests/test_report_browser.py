"""The report page in a real browser: wide, narrow, dark, on paper; nothing broken or sticking out.

Needs `make browser`, which CI runs; without a browser these tests are skipped.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from synthetic import OTHERS, area, cosim, energy, store, timing, wave

from sim.report import draw_pictures, write_report
from sim.results import ROOT

BROWSER = next(
    filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser: `make browser` installs one")
#: Where a person finds the pictures that were looked at.
PICTURES = ROOT / "build" / "report" / "seen"


def browse(page: Path, *options: str) -> str:
    assert BROWSER
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
    offline = "--host-resolver-rules=MAP * ~NOTFOUND"
    done = subprocess.run(
        [BROWSER, *flags, offline, *options, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def picture(page: Path, name: str, width: int, height: int, *options: str) -> np.ndarray:
    PICTURES.mkdir(parents=True, exist_ok=True)
    file = PICTURES / f"{name}.png"
    file.unlink(missing_ok=True)
    browse(page, f"--window-size={width},{height}", f"--screenshot={file}", *options)
    pixels = matplotlib.image.imread(file)[..., :3]
    assert pixels.shape == (height, width, 3)
    return pixels


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    results = {"cosim": cosim(), "area": area(), "timing": timing(), "energy": energy()}
    store(folder, wave=wave(), **results, **OTHERS)
    draw_pictures(folder)
    shutil.copyfile(folder / "area.svg", folder / "attention.svg")
    return write_report(folder)


def measured(page: Path, width: int) -> dict[str, int]:
    """What the browser says of the page, asked by a script that is in a copy of it only."""
    script = """<script>addEventListener("load", () => {
      const wide = [...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll")
        && (e.getBoundingClientRect().right > innerWidth + 1
        || (e.matches("li, p, figure") && e.scrollWidth > e.clientWidth + 1))).length;
      const images = [...document.images];
      document.title = ["wide", wide, "images", images.length, "broken",
        images.filter(i => !i.complete || !i.naturalWidth).length, "height",
        document.documentElement.scrollHeight, "anchors",
        [...document.querySelectorAll("a")].filter(
          a => !document.querySelector(a.getAttribute("href"))).length].join(" ");
    });</script>"""
    copy = page.with_name(f"measured-{width}.html")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", script + "</body>"))
    dom = browse(copy, f"--window-size={width},900", "--virtual-time-budget=3000", "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", dom, re.S)
    assert title, dom[:500]
    words = title[1].split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


@pytest.mark.parametrize("width", [1280, 420])
def test_nothing_is_broken_or_sticks_out(page, width):
    found = measured(page, width)
    assert found["images"] >= 6
    assert found["broken"] == 0
    assert found["wide"] == 0
    assert found["anchors"] == 0  # that lead nowhere


def test_page_is_painted_from_top_to_bottom(page):
    height = measured(page, 1280)["height"]
    assert 3000 < height < 20000
    pixels = picture(page, "wide", 1280, height)
    assert pixels[0, 0].min() > 0.95  # a light page
    inked = (pixels.min(axis=2) < 0.6).reshape(height, -1).any(axis=1)
    gaps = np.diff(np.flatnonzero(np.concatenate(([True], inked, [True]))))
    assert gaps.max() < 260, "a stretch of the page is empty"
    colours = {tuple(c) for c in (pixels[::7, ::7] * 15).astype(int).reshape(-1, 3)}
    assert len(colours) > 40  # pictures are there, in colour


def test_narrow_and_dark(page):
    light = picture(page, "narrow", 420, 1600)
    dark = picture(page, "dark", 420, 1600, "--blink-settings=preferredColorScheme=0")
    assert light[2, 2].min() > 0.9
    assert dark[2, 2].max() < 0.2
    # Letters stand out from the page, whichever it is.
    for pixels in (light, dark):
        heading = pixels[:120].max(axis=2)
        assert heading.max() - heading.min() > 0.7


def test_paper(page):
    file = PICTURES / "page.pdf"
    PICTURES.mkdir(parents=True, exist_ok=True)
    browse(page, "--no-pdf-header-footer", f"--print-to-pdf={file}")
    content = file.read_bytes()
    assert content.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 25
