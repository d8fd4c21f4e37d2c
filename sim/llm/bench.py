"""Speed of the hardware model against the same language model with softmax, in one process."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sim.llm.adaptable import AdaptableLayer
from sim.llm.evaluate import calibration_ids
from sim.llm.mapping import LayerMap
from sim.llm.model import SMOLLM2, LanguageModel
from sim.llm.pipeline import map_model

__all__ = ["EVALUATION_LIMIT", "STEP_LIMIT", "SpeedStudy", "measure_speed"]

STEP_LIMIT = 2.0  #: times the softmax model's training step
EVALUATION_LIMIT = 2.5  #: times the softmax model's evaluation: loss of every token, as perplexity


@dataclass(frozen=True, kw_only=True)
class SpeedStudy:
    """What is timed."""

    model: str = SMOLLM2  #: as `LanguageModel.load` takes it
    contexts: tuple[int, ...] = (256, 1024)  #: tokens of the one sequence
    rounds: int = 3  #: timings of each kind, taken in turn; the fastest counts
    threads: int = 2  #: of PyTorch

    @property
    def config_hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the fields."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _step(model: LanguageModel, ids: Tensor) -> None:
    """Forward and backward pass; every weight gets its gradient."""
    with torch.enable_grad():
        model.model(ids, labels=ids, use_cache=False).loss.backward()
    model.model.zero_grad(set_to_none=True)


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_speed(
    study: SpeedStudy,
    model: LanguageModel | None = None,
    layers: Sequence[Any] | None = None,
    *,
    notice: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Time a training step and an evaluation, with softmax and on the hardware.

    Parameters
    ----------
    study
        What is timed.
    model
        Loaded already, if it is.
    layers
        Its maps, if there are any; else it is mapped on as few tokens as will do.
    notice
        Called with what comes next.

    Returns
    -------
    rows
        ``what, context, softmax_s, hardware_s, ratio, limit``.
    """
    notice = notice or (lambda text: None)
    model = LanguageModel.load(study.model) if model is None else model
    threads = torch.get_num_threads()
    torch.set_num_threads(study.threads)
    try:
        if layers is None:
            notice("mapping")
            layers = map_model(model, calibration_ids(model, 128, 128))
        softmax = model.softmax()
        adaptable = [
            AdaptableLayer(layer) if isinstance(layer, LayerMap) else layer for layer in layers
        ]
        model.model.requires_grad_(True)
        vocabulary, rows = model.model.config.vocab_size, []
        generator = torch.Generator().manual_seed(0)
        for context in study.contexts:
            ids = torch.randint(vocabulary, (1, context), generator=generator)
            for what, limit, work, kinds in (
                ("evaluation", EVALUATION_LIMIT, model.negative_log_likelihood, (softmax, layers)),
                ("training step", STEP_LIMIT, lambda x: _step(model, x), (softmax, adaptable)),
            ):
                notice(f"{what}, context {context}")
                found: list[list[float]] = [[], []]
                for _ in range(study.rounds):
                    for kind, seconds in zip(kinds, found, strict=True):
                        model.attach(kind)
                        seconds.append(_seconds(lambda work=work, ids=ids: work(ids)))
                best = [min(seconds) for seconds in found]
                rows.append(
                    {
                        "what": what,
                        "context": context,
                        "softmax_s": best[0],
                        "hardware_s": best[1],
                        "ratio": best[1] / best[0],
                        "limit": limit,
                    }
                )
        model.model.requires_grad_(False)
        return rows
    finally:
        torch.set_num_threads(threads)
