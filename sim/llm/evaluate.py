"""Perplexity of a language model on the hardware, beside its teacher and a control."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

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
_SKIP = 6000  # tokens at the start of a text that are left out

Notice = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A row: what the layers compute."""

    name: str  #: as the table says it
    kind: str = "mapped"  #: "softmax", "mean", "published" or "mapped"
    recipe: Recipe = field(default_factory=Recipe)  #: levers of a mapped case
    cell: str = "published"  #: cell of a published case
    contexts: tuple[int, ...] = (256,)  #: contexts it is evaluated with


_REAL = {"q_bits": 8, "kv_bits": 8, "count_bits": 8, "joint": False, "token_s": 0.0}

#: The rows, in the order of the table.
CASES: tuple[Case, ...] = (
    Case(name="softmax (teacher)", kind="softmax", contexts=(256, 512, 1024)),
    Case(name="no attention: mean outputs (control)", kind="mean", contexts=(256, 512, 1024)),
    Case(name="published structure, linear cell, matched statistics", kind="published",
         cell="linear"),
    Case(name="published structure, nonlinear cell, matched statistics", kind="published"),
    Case(name="mapped, one shot, 8 bits throughout, no leakage", recipe=Recipe(shots=1, **_REAL)),
    Case(name="mapped, two shots, 8 bits throughout, no leakage", recipe=Recipe(**_REAL)),
    Case(name="mapped, 4-bit Q, 3-bit K and V, 8-bit results", recipe=Recipe(count_bits=8)),
    Case(name="mapped: all of it", contexts=(256, 512, 1024)),
    Case(name="mapped, one more bit of result", recipe=Recipe(count_bits=5)),
    Case(name="mapped, one shot", recipe=Recipe(shots=1)),
    Case(name="mapped, three shots", recipe=Recipe(shots=3), contexts=(256, 1024)),
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
    calibration_tokens: int = 1024  #: of the calibration texts together, at least one context
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
            lambda layer, q, k, v: match_statistics(layer, q, k, v, params),
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
) -> dict[str, Any]:
    """Evaluate every case on every text and context.

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

    Returns
    -------
    result
        ``rows`` with ``case, layers, trained, context, text, perplexity, teacher, control``,
        ``ratio`` to the teacher, ``recovered`` (share of the gap in log-likelihood between
        control and teacher), ``seconds``; and ``errors`` by layer of the mapped cases.
    """
    model = LanguageModel.load(study.model) if model is None else model
    chosen = [case for case in cases if case.name in study.cases]
    by_context = sorted({context for case in chosen for context in case.contexts})
    by_context = [context for context in by_context if longest is None or context <= longest]
    rows: list[dict[str, Any]] = []
    errors: dict[str, list[float]] = {}
    for context in by_context:
        ids = calibration_ids(model, study.calibration_tokens, context)
        held_out = {
            text: model.pieces(
                load_text(text), tokens=max(study.tokens, context), context=context, skip=_SKIP
            )
            for text in study.texts
        }
        base: dict[str, dict[str, float]] = {}
        todo = [case for case in chosen if context in case.contexts]
        first = [Case(name="teacher", kind="softmax"), Case(name="control", kind="mean")]
        for case in [*first, *todo]:
            kept = {"softmax": "teacher", "mean": "control"}.get(case.kind)
            start = time.monotonic()
            if kept in base and case not in first:
                found, layers = base[kept], []
                start -= base[kept]["seconds"]
            else:
                if notice is not None:
                    notice(f"{case.name}, context {context}")
                layers = _layers(model, case, ids, study.every)
                model.attach(layers)
                found = {text: _perplexity(model, piece) for text, piece in held_out.items()}
                found["seconds"] = time.monotonic() - start
            if case in first:
                base[case.name] = found
                continue
            seconds = time.monotonic() - start
            mapped = [layer for layer in layers if isinstance(layer, LayerMap)]
            if mapped:
                errors[f"{case.name}, context {context}"] = [
                    float(layer.error.median()) for layer in mapped
                ]
            for text in study.texts:
                teacher, control = base["teacher"][text], base["control"][text]
                rows.append(
                    {
                        "case": case.name,
                        "layers": len(range(study.every // 2, len(model.layers), study.every)),
                        "trained": False,
                        "context": context,
                        "text": text,
                        "perplexity": found[text],
                        "teacher": teacher,
                        "control": control,
                        "ratio": found[text] / teacher,
                        "recovered": math.log(control / found[text]) / math.log(control / teacher),
                        "seconds": seconds,
                    }
                )
    return {
        "rows": rows,
        "errors": errors,
        "model": study.model,
        "tokens": study.tokens,
        "calibration_tokens": study.calibration_tokens,
        "default": dataclasses.asdict(Recipe()),
    }
