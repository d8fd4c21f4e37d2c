"""Perplexity of a language model on the hardware, beside its teacher and a control."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sim.llm.activity import measure_activity
from sim.llm.adapted import Adapted
from sim.llm.arrays import ArrayParams
from sim.llm.mapping import LayerMap
from sim.llm.model import SMOLLM2, LanguageModel
from sim.llm.pipeline import learn_layers, map_model, mean_control
from sim.llm.published import match_statistics
from sim.llm.recipe import Recipe
from sim.text import load_text

__all__ = ["CASES", "LEVERS", "Case", "EvaluationStudy", "evaluate"]

CALIBRATION = ("othello", "twelfth_night")  #: never evaluated on
HELD_OUT = ("hamlet", "tempest")  #: never calibrated on
_TRAINED = ("adapted", "control")  # kinds of cases whose layers were adapted
_SKIP = 6000  # tokens at the start of a text that are left out

Notice = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A row: what the layers compute."""

    name: str  #: as the table says it
    #: "softmax", "mean", "published", "mapped", "adapted", or "control": adapted without attention
    kind: str = "mapped"
    recipe: Recipe = field(default_factory=Recipe)  #: levers of a mapped case
    cell: str = "published"  #: cell of a published case
    by_channel: bool = False  #: whether its offsets and outputs are matched by channel
    contexts: tuple[int, ...] = (256,)  #: contexts it is evaluated with
    watched: bool = False  #: whether the result says what its arrays saw


_REAL = {"q_bits": 8, "kv_bits": 8, "count_bits": 8, "joint": False, "token_s": 0.0}

#: The rows, in the order of the table.
CASES: tuple[Case, ...] = (
    Case(name="softmax (teacher)", kind="softmax", contexts=(256, 512, 1024)),
    Case(name="no attention: mean outputs (control)", kind="mean", contexts=(256, 512, 1024)),
    Case(name="published structure, linear cell, matched statistics", kind="published",
         cell="linear"),
    Case(name="published structure, nonlinear cell, matched statistics", kind="published"),
    Case(name="published structure, nonlinear cell, least squares by channel", kind="published",
         by_channel=True),
    Case(name="mapped, one shot, 8 bits throughout, no leakage", recipe=Recipe(shots=1, **_REAL)),
    Case(name="mapped, two shots, 8 bits throughout, no leakage", recipe=Recipe(**_REAL)),
    Case(name="mapped, 4-bit Q, 3-bit K and V, 8-bit results", recipe=Recipe(count_bits=8)),
    Case(name="mapped: all of it", contexts=(256, 512, 1024), watched=True),
    Case(name="mapped and adapted: all of it", kind="adapted", contexts=(256, 512, 1024)),
    Case(name="no attention, adapted as long (control)", kind="control", contexts=(256, 512, 1024)),
    Case(name="mapped, one more bit of result", recipe=Recipe(count_bits=5)),
    Case(name="mapped, one shot", recipe=Recipe(shots=1)),
    Case(name="mapped, three shots", recipe=Recipe(shots=3)),
    Case(name="mapped, sinks in the array", recipe=Recipe(sinks=0)),
)  # fmt: skip

#: One lever at a time, from the default.
LEVERS: dict[str, Recipe] = {
    "default": Recipe(),
    "one shot": Recipe(shots=1),
    "three shots": Recipe(shots=3),
    "four shots": Recipe(shots=4),
    "no sinks on the host": Recipe(sinks=0),
    "four sinks on the host": Recipe(sinks=4),
    "a threshold per head": Recipe(predict=False),
    "thresholds without position": Recipe(position=False),
    "no balance": Recipe(balance=False),
    "key codes one by one": Recipe(joint=False),
    "arrays per query head": Recipe(grouped=False),
    "one norm lane": Recipe(norm_lanes=1),
    "four compensation rows": Recipe(compensation_rows=4),
    "eight bias rows": Recipe(bias_rows=8),
    "sub-tiles of 32": Recipe(columns=32),
    "results of 6 bits": Recipe(count_bits=5),
    "queries of 5 bits": Recipe(q_bits=5),
    "keys and values of 4 bits": Recipe(kv_bits=4),
    "no leakage": Recipe(token_s=0.0),
}


@dataclass(frozen=True, kw_only=True)
class EvaluationStudy:
    """What is evaluated, on what.

    Raises
    ------
    ValueError
        A field is out of its range.
    """

    model: str = SMOLLM2  #: as `LanguageModel.load` takes it
    cases: tuple[str, ...] = tuple(case.name for case in CASES)  #: names of rows
    texts: tuple[str, ...] = HELD_OUT  #: held-out texts
    tokens: int = 2048  #: of each text
    calibration_tokens: int = 2048  #: of the calibration texts together, at least one piece
    calibration_context: int = 512  #: tokens of a piece of calibration text
    every: int = 1  #: layers that are replaced: each one, or every so many

    def __post_init__(self) -> None:
        known = [case.name for case in CASES]
        for name in self.cases:
            if name not in known:
                raise ValueError(f"case must be one of {known}, not {name!r}")
        if self.every < 1:
            raise ValueError(f"every must be at least 1, not {self.every!r}")

    @property
    def config_hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the fields and recipes."""
        content = [dataclasses.asdict(self), [dataclasses.asdict(case) for case in CASES]]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def calibration_ids(model: LanguageModel, tokens: int, context: int) -> Tensor:
    """Calibration text as token ids, (sequences, context); texts take turns."""
    texts = CALIBRATION if tokens >= 2 * context else CALIBRATION[:1]
    share = max(context, tokens // len(texts))
    parts = [
        model.pieces(load_text(text), tokens=share, context=context, skip=2000) for text in texts
    ]
    return torch.cat(parts)


def _layers(model: LanguageModel, case: Case, ids: Tensor, every: int) -> list[Any]:
    def choose(index: int) -> bool:
        return index % every == every // 2

    if case.kind == "softmax":
        return list(model.softmax())
    if case.kind == "mean":
        return mean_control(model, ids, choose=choose)
    if case.kind == "published":
        params = ArrayParams(cell=case.cell)
        return learn_layers(
            model,
            ids[:1],
            lambda layer, q, k, v: match_statistics(
                layer, q, k, v, params, by_channel=case.by_channel
            ),
            choose=choose,
        )
    return map_model(model, ids, case.recipe, choose=choose)


def _perplexity(model: LanguageModel, ids: Tensor) -> float:
    loss = float(model.negative_log_likelihood(ids).double().mean())
    return math.exp(min(loss, 100.0))


def evaluate(
    study: EvaluationStudy,
    model: LanguageModel | None = None,
    *,
    notice: Notice | None = None,
    longest: int | None = None,
    cases: Sequence[Case] = CASES,
    adapted: Mapping[str, Sequence[Adapted]] | None = None,
) -> dict[str, Any]:
    """Evaluate every case on every text and context; a case is mapped once for all of them.

    Parameters
    ----------
    study
        What, on what.
    model
        Loaded already, if it is.
    notice
        Called with the name of each case and context before it starts.
    longest
        Longest context; None is every one that a case asks for.
    cases
        The rows that ``study.cases`` picks from.
    adapted
        Adapted models of the kinds "adapted" and "control", one a seed; without them, those rows
        are left out.

    Returns
    -------
    result
        ``rows`` with ``case, layers, trained, seed, context, text, perplexity, teacher, control``,
        ``ratio`` to the teacher, ``recovered`` (share of the gap in log-likelihood between
        control and teacher), ``seconds``; ``errors`` by layer of the mapped cases; ``activity`` of
        the watched case's arrays, by layer and head, as `measure_activity` gives it.

    Raises
    ------
    ValueError
        Two adapted models of one kind have the same seed.
    """
    model = LanguageModel.load(study.model) if model is None else model
    adapted = {} if adapted is None or study.every != 1 else adapted
    for kind, each in adapted.items():
        seeds = [one.study["seed"] for one in each]
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"models of kind {kind!r} must have one seed each, not {seeds}")
    chosen = [case for case in cases if case.name in study.cases]
    chosen = [case for case in chosen if case.kind not in _TRAINED or case.kind in adapted]
    contexts = sorted({context for case in chosen for context in case.contexts})
    contexts = [context for context in contexts if longest is None or context <= longest]
    piece = min(study.calibration_context, contexts[-1])
    ids = calibration_ids(model, study.calibration_tokens, piece)
    held_out = {
        (context, text): model.pieces(
            load_text(text), tokens=max(study.tokens, context), context=context, skip=_SKIP
        )
        for context in contexts
        for text in study.texts
    }
    first = {
        "softmax": Case(name="teacher", kind="softmax", contexts=tuple(contexts)),
        "mean": Case(name="control", kind="mean", contexts=tuple(contexts)),
    }
    found: dict[tuple[str, int | None, int, str], tuple[float, float]] = {}
    errors: dict[str, list[float]] = {}
    activity: list[dict[str, Any]] = []

    def measure(case: Case, learnt: Adapted | None = None) -> None:
        start = time.monotonic()
        seed = None if learnt is None else int(learnt.study["seed"])
        name = case.name if seed is None else f"{case.name}, seed {seed}"
        if notice is not None:
            notice(name)
        layers = _layers(model, case, ids, study.every) if learnt is None else learnt.layers
        seconds = time.monotonic() - start
        model.attach(layers)
        mapped = [layer for layer in layers if isinstance(layer, LayerMap)]
        if mapped and learnt is None:
            errors[case.name] = [float(layer.error.median()) for layer in mapped]
        for context in contexts:
            if context not in case.contexts:
                continue
            start = time.monotonic()
            if notice is not None:
                notice(f"{name}, context {context}")
            values = [_perplexity(model, held_out[context, text]) for text in study.texts]
            spent = seconds + time.monotonic() - start
            for text, value in zip(study.texts, values, strict=True):
                found[case.name, seed, context, text] = value, spent
        if mapped and case.watched:
            activity.extend(measure_activity(model, layers, held_out[contexts[-1], study.texts[0]]))

    for case in first.values():
        measure(case)
    for case in chosen:
        if case.kind in _TRAINED:
            for learnt in adapted[case.kind]:
                with learnt.merged(model):
                    measure(case, learnt)
        elif case.kind not in first:
            measure(case)
    rows: list[dict[str, Any]] = []
    for context in contexts:
        for case in chosen:
            if context not in case.contexts:
                continue
            trained = case.kind in _TRAINED
            seeds = [one.study["seed"] for one in adapted[case.kind]] if trained else [None]
            for seed, text in itertools.product(seeds, study.texts):
                value, seconds = found[first.get(case.kind, case).name, seed, context, text]
                teacher, control = (
                    found[name, None, context, text][0] for name in ("teacher", "control")
                )
                rows.append(
                    {
                        "case": case.name,
                        "layers": len(range(study.every // 2, len(model.layers), study.every)),
                        "trained": trained,
                        "seed": seed,
                        "context": context,
                        "text": text,
                        "perplexity": value,
                        "teacher": teacher,
                        "control": control,
                        "ratio": value / teacher,
                        "recovered": math.log(control / value) / math.log(control / teacher),
                        "seconds": seconds,
                    }
                )
    return {
        "rows": rows,
        "errors": errors,
        "activity": activity,
        "model": study.model,
        "tokens": study.tokens,
        "calibration_tokens": study.calibration_tokens,
        "calibration_context": piece,
        "adapted": {kind: [one.config_hash for one in each] for kind, each in adapted.items()},
        "default": dataclasses.asdict(Recipe()),
    }
