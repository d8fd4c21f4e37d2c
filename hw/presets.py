"""Named head configurations: the default, the tested shapes, and the ones small enough to prove."""

from __future__ import annotations

from typing import Any

from hw.params import HeadParams

__all__ = ["PRESETS", "preset"]


def _complete(**fields: Any) -> HeadParams:
    """Overlapped phases and every feature but refresh, whose store of codes is larger than all."""
    features = {"schedule": "streaming", "shots": True, "self_test": True, "sinks": 64}
    return HeadParams(**{**features, "age_bits": 8, "trim_bits": 8, **fields})


def _small(**fields: Any) -> HeadParams:
    """A small window, so that it wraps often, with every feature."""
    return _complete(**{"sinks": 3, "trim_bits": 5, "refresh": True, **fields})


PRESETS: dict[str, HeadParams] = {
    # Window 1024, head size 64: the shape of Leroux et al., Nat. Comput. Sci. 5, 813 (2025), and
    # of GPT-2 124M.
    "default": _complete(),
    # The same and a digital copy of the codes, from which fading columns are rewritten.
    "refresh": _complete(refresh=True),
    # The same shape with no feature at all: overlapped phases, and one packet at a time.
    "streaming": HeadParams(schedule="streaming"),
    "simple": HeadParams(),
    # A pre-trained model mapped without training: compensation and bias rows, a normaliser lane.
    "mapped": _complete(rows=80, lanes=65, bus_bits=128),
    # The heads of a GPT-2 124M layer; the key/value groups of a SmolLM2-135M layer, of which each
    # serves three query heads.
    "layer12": _complete(heads=12),
    "groups3": _complete(heads=3),
    # Smallest head that still has every mechanism: wraps in eight tokens. And a layer of it.
    "tiny": _small(subtiles=2, columns=4, rows=4, lanes=4, bus_bits=32, age_bits=4),
    "tiny-layer": _small(subtiles=2, columns=4, rows=4, lanes=4, bus_bits=32, age_bits=4, heads=3),
    # Head sizes of other decoder models.
    "head32": _small(subtiles=2, columns=16, rows=32, lanes=32),
    "head80": _small(subtiles=2, columns=16, rows=80, lanes=80, bus_bits=128),
    "head128": _small(subtiles=2, columns=16, rows=128, lanes=128, bus_bits=128),
    # Rows and lanes that differ, both unlike a power of two.
    "rows80-lanes65": _small(subtiles=2, columns=16, rows=80, lanes=65, bus_bits=128),
    # One sub-tile; and a sub-tile count and column count that are no powers of two.
    "one-subtile": _small(subtiles=1, columns=16, rows=16, lanes=16),
    "three-subtiles": _small(subtiles=3, columns=5, rows=16, lanes=16, sinks=7),
    # Longer writes and guards than the default, counts of another width than query codes, wide bus.
    "slow-write": _small(
        subtiles=3,
        columns=4,
        rows=8,
        lanes=8,
        q_bits=3,
        kv_bits=2,
        count_bits=5,
        write_clk=3,
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
