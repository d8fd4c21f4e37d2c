"""Whether this system has pseudo-terminals: a root folder changed by hand may lack them."""

from __future__ import annotations

import os

import pytest

__all__ = ["needs_terminals"]


def _available() -> bool:
    try:
        ends = os.openpty()
    except OSError:
        return False
    for end in ends:
        os.close(end)
    return True


needs_terminals = pytest.mark.skipif(not _available(), reason="no pseudo-terminals here")
