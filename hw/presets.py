"""Named head configurations: the default, the tested shapes, and the ones small enough to prove."""

from __future__ import annotations

from hw.params import HeadParams

__all__ = ["PRESETS", "preset"]

PRESETS: dict[str, HeadParams] = {
    # Window 1024, head size 64: the shape of Leroux et al., Nat. Comput. Sci. 5, 813 (2025), and
    # of GPT-2 124M.
    "default": HeadParams(),
    # The same with overlapped phases.
    "streaming": HeadParams(schedule="streaming"),
    # Smallest head that still has every mechanism: wraps in eight tokens.
    "tiny": HeadParams(subtiles=2, columns=4, rows=4, lanes=4, bus_bits=32),
    # Head sizes of other decoder models, with a small window so that it wraps often.
    "head32": HeadParams(subtiles=2, columns=16, rows=32, lanes=32),
    "head80": HeadParams(subtiles=2, columns=16, rows=80, lanes=80),
    "head128": HeadParams(subtiles=2, columns=16, rows=128, lanes=128),
    # Rows and lanes that differ, both unlike a power of two.
    "rows80-lanes65": HeadParams(subtiles=2, columns=16, rows=80, lanes=65),
    # One sub-tile; and a sub-tile count and column count that are no powers of two.
    "one-subtile": HeadParams(subtiles=1, columns=16, rows=16, lanes=16),
    "three-subtiles": HeadParams(subtiles=3, columns=5, rows=16, lanes=16),
    # Longer writes and guards than the default, counts of another width than query codes, wide bus.
    "slow-write": HeadParams(
        subtiles=3,
        columns=4,
        rows=8,
        lanes=8,
        q_bits=3,
        kv_bits=2,
        count_bits=5,
        write_clk=7,
        guard_clk=3,
        bus_bits=128,
        tag_bits=8,
    ),
}


def preset(name: str) -> HeadParams:
    """Head configuration by name.

    Raises
    ------
    ValueError
        No such preset; the message lists them.

    """
    try:
        return PRESETS[name]
    except KeyError:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}, not {name!r}") from None
