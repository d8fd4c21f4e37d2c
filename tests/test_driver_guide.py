"""The examples of the programmer's guide run, in order, as they stand."""

from __future__ import annotations

import re

from sim.results import ROOT

GUIDE = ROOT / "docs" / "programmers_guide.md"


def test_the_examples_run(capsys):
    text = GUIDE.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    assert len(blocks) >= 10
    names: dict[str, object] = {}
    for block in blocks:
        # Empty lines in front, so that a failure names the line of the guide.
        lines = "\n" * text.count("\n", 0, block.start(1))
        exec(compile(lines + block[1], str(GUIDE), "exec"), names)
    printed = capsys.readouterr().out
    assert "write_clk must be in 1..7, not 99" in printed
    assert re.search(r"head 0 refused packet \d+: EMPTY", printed)
