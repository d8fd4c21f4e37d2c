"""Heads whose areas are compared: what each feature, the shape and sharing cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hw.params import HeadParams
from hw.presets import PRESETS

__all__ = ["VARIANTS", "Variant"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the comparison."""

    name: str
    params: HeadParams
    base: str | None = None  #: row that it is compared with; None for the first
    times: int = 1  #: how many of that one


def _variants() -> tuple[Variant, ...]:
    streaming, default = PRESETS["streaming"], PRESETS["default"]
    layer, whole = PRESETS["layer12"], "complete"
    features: dict[str, dict[str, int | bool]] = {
        "shots": {"shots": default.shots},
        "sinks": {"sinks": default.sinks},
        "trim": {"trim_bits": default.trim_bits},
        "ages": {"age_bits": default.age_bits},
        "self-test": {"self_test": default.self_test},
        "refresh": {"refresh": True},
    }
    mapped = PRESETS["mapped"]
    return (
        Variant(name="simple", params=PRESETS["simple"]),
        Variant(name="streaming", params=streaming, base="simple"),
        *(
            Variant(name=f"with {name}", params=replace(streaming, **fields), base="streaming")
            for name, fields in features.items()
        ),
        Variant(name=whole, params=default, base="streaming"),
        Variant(name=f"{whole}, refresh", params=PRESETS["refresh"], base=whole),
        Variant(name=f"{whole}, {mapped.rows} x {mapped.lanes}", params=mapped, base=whole),
        Variant(name=f"layer of {layer.heads}", params=layer, base=whole, times=layer.heads),
    )


#: The comparison of `make area`: features one by one on the streaming head without any, then all
#: but refresh on one head, which is the default; its shape; its sharing.
VARIANTS = _variants()
