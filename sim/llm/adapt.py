"""Light adaptation of a mapped model: low-rank updates and small tensors, taught by softmax.

The student is the mapped model, forward pass code for code that of evaluation; the teacher the
model as it came. What is minimised is the divergence of the student's next-token distribution from
the teacher's: no label is ever looked at, so that the student cannot become better at the text
than its teacher is. Learnt are low-rank updates of the projections around attention, the weights of
the norms, and the small tensors of each map.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from analog_models.params import check_int
from sim.llm.adaptable import AdaptableLayer, AdaptableMean
from sim.llm.adapted import Adapted, compress, expand
from sim.llm.attention import MeanAttention, attach, attention_layers
from sim.llm.distil import divergence
from sim.llm.evaluate import HELD_OUT, calibration_ids
from sim.llm.files import write_whole
from sim.llm.lowrank import freeze
from sim.llm.mapping import LayerMap
from sim.llm.model import SMOLLM2, LanguageModel
from sim.llm.pipeline import map_model, mean_control
from sim.llm.recipe import Recipe
from sim.text import available_texts, load_text

__all__ = ["VALIDATION", "AdaptStudy", "adapt"]

VALIDATION = "macbeth"  #: play of the learning curve, neither trained nor evaluated on
_FORMAT = 1  # of checkpoints
_PIECE = 512  # tokens of a validation piece

Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class AdaptStudy:
    """What is learnt, from what.

    Raises
    ------
    TypeError, ValueError
        A field is not of its kind, or out of its range.
    """

    model: str = SMOLLM2  #: as `LanguageModel.load` takes it
    steps: int = 70  #: of the optimiser
    seed: int = 0  #: of pieces of text and of initial updates
    rank: int = 16  #: of the updates
    rate: float = 2e-3  #: highest learning rate of the updates
    map_rate: float = 5e-4  #: highest learning rate of the maps' small tensors and of the norms
    warm_up: int = 10  #: steps until the rate is highest; from there it falls as a cosine does
    contexts: tuple[int, ...] = (256, 512, 1024)  #: lengths of pieces
    shares: tuple[float, ...] = (0.4, 0.35, 0.25)  #: of the steps that have each length
    tokens: int = 512  #: of a batch, at least one piece
    batches: int = 2  #: of a step
    clip: float = 1.0  #: largest norm of a step's gradient
    calibration_tokens: int = 2048  #: of the mapping
    calibration_context: int = 512  #: of the mapping's pieces
    half: bool = True  #: products with the model's weights in bfloat16
    control: bool = False  #: mean outputs in the place of the arrays
    every: int = 1  #: layers that are replaced: each one, or every so many
    recipe: Recipe = field(default_factory=Recipe)  #: of the mapping

    def __post_init__(self) -> None:
        check_int("steps", self.steps, 1, 10**6)
        check_int("seed", self.seed, 0, 2**31)
        check_int("rank", self.rank, 1, 1024)
        check_int("batches", self.batches, 1, 64)
        check_int("every", self.every, 1, 1024)
        if len(self.shares) != len(self.contexts):
            raise ValueError(f"shares must be one per context, not {self.shares!r}")
        for name in ("rate", "map_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")

    @property
    def config_hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the fields."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def texts(self) -> tuple[str, ...]:
        """Texts that are learnt from: those that are not held out."""
        return tuple(t for t in available_texts() if t not in (*HELD_OUT, VALIDATION))

    def rate_of(self, step: int) -> float:
        """Share of the highest learning rate."""
        rise = min(1.0, (step + 1) / self.warm_up)
        return rise * 0.5 * (1 + math.cos(math.pi * step / self.steps))


class _Pieces:
    """Batches of token ids by step, from nothing but the seed."""

    def __init__(self, model: LanguageModel, study: AdaptStudy) -> None:
        self._study = study
        self._texts = [torch.tensor(model.encode(load_text(name))) for name in study.texts]
        self._weights = torch.tensor([float(len(text)) for text in self._texts])

    def of(self, step: int) -> list[Tensor]:
        study = self._study
        random = torch.Generator().manual_seed(study.seed * 1_000_003 + step)
        which = int(torch.multinomial(torch.tensor(study.shares), 1, generator=random))
        context = study.contexts[which]
        batches = []
        for _ in range(study.batches):
            rows = []
            for _ in range(max(1, study.tokens // context)):
                text = self._texts[int(torch.multinomial(self._weights, 1, generator=random))]
                last = max(1, len(text) - context)
                start = int(torch.randint(last, (), generator=random))
                rows.append(text[start : start + context])
            shortest = min(len(row) for row in rows)
            batches.append(torch.stack([row[:shortest] for row in rows]))
        return batches


def _hidden(model: Any, ids: Tensor) -> Tensor:
    base = model.get_submodule(model.base_model_prefix)
    hidden: Tensor = base(ids, use_cache=False).last_hidden_state
    return hidden.flatten(0, 1)


class _Pair:
    """Student and teacher, with one head."""

    def __init__(self, model: LanguageModel, layers: list[Any], study: AdaptStudy) -> None:
        dtype = torch.bfloat16 if study.half else torch.float32
        self.head = model.model.get_output_embeddings().weight.detach().to(dtype)
        self.teacher, self.student = model.model, copy.deepcopy(model.model)
        attach(self.teacher, model.softmax())
        freeze(self.teacher, 0, dtype)
        torch.manual_seed(study.seed)
        self.learnt = freeze(self.student, study.rank, dtype)
        attach(self.student, layers)
        self.maps: dict[str, nn.Parameter] = {}
        for index, layer in enumerate(layers):
            if isinstance(layer, nn.Module):
                named = layer.named_parameters()
                self.maps |= {f"{index}.{name}": parameter for name, parameter in named}

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return {**self.learnt, **self.maps}

    def loss(self, ids: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = _hidden(self.teacher, ids)
        return divergence(_hidden(self.student, ids), wanted, self.head)

    def gradient(self, ids: Tensor) -> tuple[float, list[Tensor | None]]:
        loss = self.loss(ids)
        gradients = torch.autograd.grad(loss, list(self.parameters.values()), allow_unused=True)
        return float(loss.detach()), list(gradients)

    @torch.no_grad()
    def validate(self, ids: Tensor) -> dict[str, float]:
        """Divergence in nats, and perplexity over the teacher's."""
        losses, apart = [], 0.0
        for piece in ids:
            hidden = [_hidden(model, piece[None]) for model in (self.teacher, self.student)]
            apart += float(divergence(hidden[1], hidden[0], self.head)) / len(ids)
            losses.append(
                [
                    float(
                        nn.functional.cross_entropy(
                            (h[:-1].to(self.head.dtype) @ self.head.T).float(), piece[1:]
                        )
                    )
                    for h in hidden
                ]
            )
        teacher, student = torch.tensor(losses).mean(0).tolist()
        return {"divergence": apart, "ratio": math.exp(student - teacher)}


def _optimiser(pair: _Pair, study: AdaptStudy) -> Any:
    updates = [p for name, p in pair.learnt.items() if name.endswith((".up", ".down"))]
    others = [p for name, p in pair.learnt.items() if not name.endswith((".up", ".down"))]
    groups = [
        {"params": updates, "lr": study.rate, "highest": study.rate},
        {"params": [*others, *pair.maps.values()], "lr": study.map_rate, "highest": study.map_rate},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)


# --- checkpoints --------------------------------------------------------------------------------
def _read(path: Path, study: AdaptStudy) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            state = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except Exception as error:
        raise ValueError(f"{path.name} must be a checkpoint of `gaincell llm adapt`") from error
    if state["format"] != _FORMAT or state["config_hash"] != study.config_hash:
        raise ValueError(
            f"{path.name} must be a checkpoint of this very study ({study.config_hash}), not of "
            f"{state['config_hash']}: name another one, or remove it"
        )
    return tensors, state


def _start(model: LanguageModel, study: AdaptStudy) -> list[Any]:
    ids = calibration_ids(model, study.calibration_tokens, study.calibration_context)

    def choose(index: int) -> bool:
        return index % study.every == study.every // 2

    if study.control:
        return mean_control(model, ids, choose=choose)
    return map_model(model, ids, study.recipe, choose=choose)


def adapt(
    study: AdaptStudy,
    checkpoint: Path,
    *,
    model: LanguageModel | None = None,
    workers: int = 2,
    validate_every: int = 20,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Adapted:
    """Map a model and adapt it, or go on from where a checkpoint says.

    Parameters
    ----------
    study
        What, from what.
    checkpoint
        File that is read if it exists, and written every so many steps.
    model
        Loaded already, if it is; it is the teacher, and changed.
    workers
        Batches computed at a time, each on one thread; changes no number.
    validate_every
        Steps between points of the learning curve, and checkpoints.
    progress
        Called with the steps done, the steps in all and the newest figures.
    stop
        Asked before each step; a true answer ends training early, after a checkpoint.

    Raises
    ------
    ValueError
        The checkpoint is of another study.
    """
    known = _read(checkpoint, study) if checkpoint.is_file() else None
    model = LanguageModel.load(study.model) if model is None else model
    torch.set_num_threads(1)
    begun = time.monotonic()
    if known is None:
        mapped = _start(model, study)
        curve: list[dict[str, float]] = []
        step, seconds = 0, 0.0
    else:
        tensors, state = known
        mapped = expand(tensors, state["scales"], study.recipe, model.softmax())
        curve, step, seconds = state["curve"], state["step"], state["seconds"]
    compact, scales = compress(mapped)
    if known is None:  # what is learnt has to stand on what the file will hold
        mapped = expand(compact, scales, study.recipe, model.softmax())
    pair = _Pair(model, [adaptable(layer) for layer in mapped], study)
    optimiser = _optimiser(pair, study)
    if known is not None:
        _restore(pair, optimiser, known[0])
    pieces = _Pieces(model, study)
    checked = model.pieces(load_text(VALIDATION), tokens=4 * _PIECE, context=_PIECE, skip=2000)

    def save() -> None:
        state = {
            "format": _FORMAT,
            "config_hash": study.config_hash,
            "step": step,
            "seconds": seconds + time.monotonic() - begun,
            "curve": curve,
            "scales": scales,
        }
        content = {**compact, **_state(pair, optimiser)}
        write_whole(checkpoint, content, {"state": json.dumps(state)})

    with ThreadPoolExecutor(workers) as pool:
        while True:
            if step % validate_every == 0 or step == study.steps:
                if not curve or curve[-1]["step"] < step:
                    point = {"step": float(step), **pair.validate(checked)}
                    point["seconds"] = seconds + time.monotonic() - begun
                    curve.append(point)
                    save()
                if progress is not None:
                    progress(step, study.steps, curve[-1])
            if step == study.steps or stop():
                break
            found = list(pool.map(pair.gradient, pieces.of(step)))
            for n, parameter in enumerate(pair.parameters.values()):
                parts = [grads[n] for _, grads in found if grads[n] is not None]
                parameter.grad = sum(parts[1:], start=parts[0]) / len(found) if parts else None
            for group in optimiser.param_groups:
                group["lr"] = group["highest"] * study.rate_of(step)
            norm = nn.utils.clip_grad_norm_(pair.parameters.values(), study.clip)
            optimiser.step()
            step += 1
            if progress is not None:
                loss = sum(loss for loss, _ in found) / len(found)
                progress(step, study.steps, {"loss": loss, "norm": float(norm)})
    save()
    layers = [layer.map() if isinstance(layer, nn.Module) else layer for layer in _attached(pair)]
    return Adapted(
        study=dataclasses.asdict(study),
        config_hash=study.config_hash,
        curve=curve,
        seconds=seconds + time.monotonic() - begun,
        layers=[_detached(layer) for layer in layers],
        learnt={name: p.detach() for name, p in pair.learnt.items()},
    )


def adaptable(layer: Any) -> Any:
    """A layer that learns, for one that can."""
    if isinstance(layer, LayerMap):
        return AdaptableLayer(layer)
    return AdaptableMean(layer) if isinstance(layer, MeanAttention) else layer


def _attached(pair: _Pair) -> Iterator[Any]:
    for layer in attention_layers(pair.student):
        yield layer.gaincell_attention


def _detached(layer: Any) -> Any:
    if not dataclasses.is_dataclass(layer):
        return layer
    tensors = {
        f.name: getattr(layer, f.name).detach()
        for f in dataclasses.fields(layer)
        if isinstance(getattr(layer, f.name), Tensor)
    }
    return dataclasses.replace(layer, **tensors)  # type: ignore[type-var]


def _state(pair: _Pair, optimiser: Any) -> dict[str, Tensor]:
    content: dict[str, Tensor] = {}
    for name, parameter in pair.parameters.items():
        content[f"value/{name}"] = parameter
        for part, tensor in optimiser.state.get(parameter, {}).items():
            content[f"{part}/{name}"] = tensor
    return content


def _restore(pair: _Pair, optimiser: Any, tensors: dict[str, Tensor]) -> None:
    for name, parameter in pair.parameters.items():
        parameter.data.copy_(tensors[f"value/{name}"])
        parts = ("step", "exp_avg", "exp_avg_sq")
        if f"step/{name}" in tensors:
            optimiser.state[parameter] = {part: tensors[f"{part}/{name}"] for part in parts}
