"""A mapped language model on arrays that are not ideal: perplexity against spread and noise.

The map is made for ideal arrays of the published cell. Spreads and noise are those of a simulated
device times a factor; the currents stay the ones mapped for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from analog_models.params import check_int
from analog_models.presets import resolve_device
from sim.llm.attention import output_projection
from sim.llm.evaluate import calibration_ids
from sim.llm.faults import KINDS, ArrayFaults
from sim.llm.mapping import LayerMap, calibrate
from sim.llm.model import SMOLLM2, LanguageModel
from sim.llm.pipeline import learn_layers, map_model, mean_control
from sim.llm.recipe import Recipe
from sim.text import load_text

__all__ = ["CASES", "FaultyMap", "NoiseStudy", "run_noise"]

_SKIP = 6000  # tokens at the start of a text that are left out

_OTHERS = 1000  # seed of the devices that a map is made with, if it is made with any

#: Curves: what is not ideal (None is everything), whether output offsets are trimmed, and whether
#: the map is made on other devices of the same spreads instead of ideal ones.
CASES: dict[str, tuple[str | None, bool, bool]] = {
    **{kind: (kind, False, False) for kind in KINDS},
    "output offset, trimmed": ("output offset", True, False),
    "all of it": (None, False, False),
    "all of it, trimmed": (None, True, False),
    "all of it, mapped on such devices": (None, False, True),
    "all of it, trimmed, mapped on such devices": (None, True, True),
}


@dataclass(frozen=True)
class FaultyMap:
    """A mapped layer on arrays of its own that are not ideal."""

    layer: LayerMap
    faults: ArrayFaults

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the newest tokens over all."""
        return self.layer.attend(q, k, v, faults=self.faults)


@dataclass(frozen=True, kw_only=True)
class NoiseStudy:
    """What is evaluated, on what.

    Raises
    ------
    TypeError, ValueError
        A field is not of its kind or out of its range.
    """

    model: str = SMOLLM2  #: as `LanguageModel.load` takes it
    device: str = "sky130-tt"  #: preset whose spreads and noise are taken
    factors: tuple[float, ...] = (1.0, 2.0, 4.0)  #: of all spreads and noise
    cases: tuple[str, ...] = tuple(CASES)  #: curves
    devices: int = 2  #: sets of arrays that are drawn
    every: int = 3  #: layers that are replaced: each one, or every so many
    text: str = "hamlet"  #: held out
    tokens: int = 512  #: of the text
    context: int = 256  #: tokens of a sequence
    calibration_tokens: int = 1024  #: of other texts
    recipe: Recipe = dataclasses.field(default_factory=Recipe)  #: levers of the mapping

    def __post_init__(self) -> None:
        for name in ("devices", "every", "tokens", "context", "calibration_tokens"):
            check_int(name, getattr(self, name), 1, 2**20)
        for case in self.cases:
            if case not in CASES:
                raise ValueError(f"case must be one of {', '.join(CASES)}, not {case!r}")
        for factor in self.factors:
            if not 0 <= factor < math.inf:
                raise ValueError(f"factor must be finite and not negative, not {factor!r}")
        resolve_device(self.device)

    @classmethod
    def quick(cls, **how: Any) -> NoiseStudy:
        """Every tenth layer, one set of arrays, half a thousand tokens."""
        return cls(
            every=10, devices=1, tokens=512, calibration_tokens=512, factors=(1.0, 4.0),
            cases=("cell mismatch", *list(CASES)[-3:]), **how,
        )  # fmt: skip

    @property
    def config_hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the fields."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _mapped_on(
    model: LanguageModel,
    ids: Tensor,
    recipe: Recipe,
    choose: Callable[[int], bool],
    devices: Callable[..., ArrayFaults],
) -> list[Any]:
    """Maps made on arrays that are not ideal, layer after layer."""

    def learn(module: Any, q: Tensor, k: Tensor, v: Tensor) -> FaultyMap:
        faults = devices(layer=int(module.layer_idx))
        layer = calibrate(
            q, k, v, output_projection(module), scale=float(module.scaling), recipe=recipe,
            faults=faults,
        )  # fmt: skip
        return FaultyMap(layer, faults)

    found = learn_layers(model, ids, learn, choose=choose)
    return [x.layer if isinstance(x, FaultyMap) else x for x in found]


def run_noise(
    study: NoiseStudy,
    model: LanguageModel | None = None,
    *,
    notice: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Evaluate every case at every factor, on several sets of arrays.

    Parameters
    ----------
    study
        What, on what.
    model
        Loaded already, if it is.
    notice
        Called with the name of each case before it starts.

    Returns
    -------
    result
        ``rows`` with ``case, factor, seed, perplexity, ratio`` (to the ideal arrays') and
        ``recovered`` (share of the gap in log-likelihood between control and teacher);
        ``teacher, control, ideal`` (perplexities), ``figures`` of the device at factor 1.
    """
    notice = notice or (lambda text: None)
    start = time.monotonic()
    model = LanguageModel.load(study.model) if model is None else model
    device = resolve_device(study.device)
    held_out = model.pieces(
        load_text(study.text), tokens=study.tokens, context=study.context, skip=_SKIP
    )

    def choose(index: int) -> bool:
        return index % study.every == study.every // 2

    def loss() -> float:
        return float(model.negative_log_likelihood(held_out).double().mean())

    notice("mapping")
    ids = calibration_ids(model, study.calibration_tokens, study.context)
    layers = map_model(model, ids, study.recipe, choose=choose)
    model.attach(layers)
    ideal = loss()
    model.attach(mean_control(model, ids, choose=choose))
    control = loss()
    model.attach(model.softmax())
    teacher = loss()

    config = model.model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    if not study.recipe.grouped:
        heads = config.num_attention_heads
    rows: list[dict[str, Any]] = []
    for case in study.cases:
        kind, trimmed, aware = CASES[case]

        devices = partial(ArrayFaults.of_device, device, heads=heads, kind=kind, trimmed=trimmed)
        for factor in study.factors:
            maps = layers
            if aware:
                notice(f"{case}, {factor:g} times, mapping")
                others = partial(devices, spread=factor, seed=_OTHERS)
                maps = _mapped_on(model, ids, study.recipe, choose, others)
            for seed in range(study.devices):
                notice(f"{case}, {factor:g} times, devices {seed}")
                faulty = [
                    FaultyMap(layer, devices(layer=index, spread=factor, seed=seed))
                    if isinstance(layer, LayerMap)
                    else layer
                    for index, layer in enumerate(maps)
                ]
                model.attach(faulty)
                found = loss()
                rows.append(
                    {
                        "case": case,
                        "factor": factor,
                        "seed": seed,
                        "perplexity": math.exp(min(found, 100.0)),
                        "ratio": math.exp(min(found - ideal, 100.0)),
                        "recovered": (control - found) / (control - teacher),
                    }
                )
    one = ArrayFaults.of_device(device, heads=1)
    return {
        "rows": rows,
        "teacher": math.exp(teacher),
        "control": math.exp(control),
        "ideal": math.exp(ideal),
        "ideal_recovered": (control - ideal) / (control - teacher),
        "layers": sum(isinstance(layer, LayerMap) for layer in layers),
        "figures": {
            **{
                name: getattr(one.faults, name)
                for names in KINDS.values()
                for name in names
                if hasattr(one.faults, name)
            },
            "score_offset_ua_clk": one.score_offset_ua_clk,
            "output_offset_ua_clk": one.output_offset_ua_clk,
        },
        "study": dataclasses.asdict(study),
        "seconds": time.monotonic() - start,
    }
