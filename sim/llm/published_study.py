"""The published algorithm, stage by stage, on small models that are nothing without attention.

1. A softmax model is trained: the teacher.
2. Its weights go into the linear hardware model, whose scalers are matched to statistics, and all
   of it is fine-tuned.
3. Weights and scalers go into the nonlinear model; scalers are iterated until statistics match.
4. The nonlinear model is fine-tuned briefly.

5. It is fine-tuned a little more, once as before and once on devices with mismatch, noise and
   offsets, others in every step; both are then put on devices that neither has seen.

Beside it, each trained for as many steps as 2 and 4 together: the teacher itself, a control whose
attention gives every token the mean output, the nonlinear model from random weights, and the
nonlinear model put straight behind the teacher.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from analog_models.params import check_int
from analog_models.presets import resolve_device
from sim.llm.arrays import ArrayParams
from sim.llm.attention import (
    MeanAttention,
    SoftmaxAttention,
    attach,
    attention_layers,
)
from sim.llm.disturbed import FreshDevices
from sim.llm.faults import ArrayFaults
from sim.llm.initialise import iterate, record
from sim.llm.mapping import softmax_attention
from sim.llm.published import match_statistics
from sim.llm.small import TASKS, Batch, Task
from sim.llm.straight import StraightAttention

__all__ = ["PublishedStudy", "TaskStudy", "run_study"]

Notice = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TaskStudy:
    """How long what is trained on one task.

    Raises
    ------
    TypeError, ValueError
        A field is not of its kind or out of its range.
    """

    task: str  #: name of `TASKS`
    teacher_steps: int  #: of the softmax model
    linear_steps: int  #: of the linear hardware model
    nonlinear_steps: int  #: of the nonlinear one, after matching
    sequences: int = 16  #: of a training batch
    teacher_rate: float = 3e-3  #: learning rate of the teacher
    rate: float = 2e-3  #: learning rate of the other stages
    window: int = 64  #: tokens a head holds
    columns: int = 16  #: tokens of one sub-tile
    token_s: float = 0.8e-6  #: seconds per token, against 5 ms of retention; 0 is no leakage

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, not {self.task!r}")
        for name in ("teacher_steps", "linear_steps", "nonlinear_steps", "sequences"):
            check_int(name, getattr(self, name), 1, 10**6)
        _ = self.arrays("linear")  # checks the rest

    def arrays(self, cell: str) -> ArrayParams:
        """Widths and physics; those of the published system but for window and sub-tile."""
        return ArrayParams(
            window=self.window,
            columns=self.columns,
            cell=cell,
            decay_per_token=self.token_s / 5e-3,
        )


@dataclass(frozen=True, kw_only=True)
class PublishedStudy:
    """All tasks, and what they have in common."""

    tasks: tuple[TaskStudy, ...] = (
        TaskStudy(task="recall", teacher_steps=400, linear_steps=200, nonlinear_steps=80),
        TaskStudy(
            task="letters", teacher_steps=900, linear_steps=200, nonlinear_steps=80, sequences=8
        ),
    )
    seeds: tuple[int, ...] = (0, 1, 2)  #: of the trained stages; the teacher's is the first
    iterations: int = 20  #: of matching
    calibration: int = 16  #: sequences that statistics are taken from
    held_out: int = 96  #: sequences that are evaluated
    watched: int = 24  #: of those, the ones for learning curves and for devices
    device: str = "sky130-tt"  #: preset with the spreads and noise of devices
    factors: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0)  #: of its spreads, on evaluation
    trained_factor: float = 2.0  #: of its spreads, in training

    @classmethod
    def quick(cls) -> PublishedStudy:
        """One task, one seed, a few steps."""
        recall = TaskStudy(task="recall", teacher_steps=250, linear_steps=120, nonlinear_steps=40)
        return cls(tasks=(recall,), seeds=(0,), held_out=48)

    @property
    def config_hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the fields."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


# --- pieces -------------------------------------------------------------------------------------
def _loss(model: Any, batch: Batch) -> Tensor:
    ids, target = batch
    logits = model(ids).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-1)


@torch.no_grad()
def _evaluate(model: Any, batch: Batch, pieces: int = 16) -> dict[str, float]:
    """Loss in nats and share of right answers, over all that is to be predicted."""
    loss, right, count = 0.0, 0.0, 0
    for ids, target in zip(*(x.split(pieces) for x in batch), strict=True):
        logits, asked = model(ids).logits, target >= 0
        loss += float(nn.functional.cross_entropy(logits[asked], target[asked], reduction="sum"))
        right += float((logits.argmax(-1) == target)[asked].sum())
        count += int(asked.sum())
    return {"loss": loss / count, "accuracy": right / count}


def _train(
    model: Any,
    scalers: Iterable[nn.Parameter],
    task: Task,
    *,
    steps: int,
    sequences: int,
    rate: float,
    seed: int,
    watch: Callable[[int], None],
) -> None:
    """AdamW, a short warm-up, and a rate that falls to nothing."""
    generator = torch.Generator().manual_seed(seed)
    groups = [
        {"params": list(model.parameters())},
        {"params": list(scalers), "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    every, warm = max(steps // 10, 1), min(20, max(steps // 5, 1))
    everything = [p for group in groups for p in group["params"]]
    watch(0)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min((step + 1) / warm, math.sqrt(1 - step / steps))
        optimiser.zero_grad()
        _loss(model, task.batch(generator, sequences)).backward()
        nn.utils.clip_grad_norm_(everything, 1.0)
        optimiser.step()
        if (step + 1) % every == 0 or step + 1 == steps:
            watch(step + 1)


class _Keeper:
    """Computes softmax and keeps what went in."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.kept: list[Tensor] = []

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.kept = [q, k, v]
        return softmax_attention(q, k, v, self.scale)


def _softmax(model: Any) -> None:
    attach(model, [SoftmaxAttention(float(x.scaling)) for x in attention_layers(model)])


def _scalers(layers: Sequence[StraightAttention]) -> list[nn.Parameter]:
    return [value for layer in layers for value in layer.parameters()]


def _attached(model: Any) -> list[Any]:
    """What the layers of a model compute."""
    return [getattr(layer, "gaincell_attention", None) for layer in attention_layers(model)]


def _onto(
    params: ArrayParams, layers: Sequence[StraightAttention], model: Any
) -> list[StraightAttention]:
    """The same scalers on other arrays, attached to a model."""
    moved = [
        StraightAttention(dataclasses.replace(layer.affine(), params=params), len(layer.q_scale))
        for layer in layers
    ]
    attach(model, moved)
    return moved


# --- one task -----------------------------------------------------------------------------------
@dataclass
class _Run:
    """One task: what is measured on the way."""

    study: PublishedStudy
    how: TaskStudy
    notice: Notice
    rows: list[dict[str, Any]] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    matching: list[dict[str, Any]] = field(default_factory=list)
    noise: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.task = TASKS[self.how.task]()
        self.held_out = self.task.held_out(self.study.held_out)
        self.watched: Batch = tuple(x[: self.study.watched] for x in self.held_out)  # type: ignore[assignment]
        self.calibration = self.task.batch(
            torch.Generator().manual_seed(2**30), self.study.calibration
        )

    def measure(self, case: str, model: Any, *, steps: int, seed: int | None) -> None:
        """Add a row; hardware is evaluated on the exact arrays."""
        slots = _attached(model)
        attach(model, [x.affine() if isinstance(x, StraightAttention) else x for x in slots])
        found = _evaluate(model.eval(), self.held_out)
        attach(model, slots)
        self.rows.append(
            {"task": self.how.task, "case": case, "steps": steps, "seed": seed, **found}
        )

    def train(
        self,
        name: str,
        model: Any,
        scalers: Sequence[nn.Parameter],
        *,
        steps: int,
        seed: int,
        rate: float | None = None,
        after: int = 0,
    ) -> None:
        """Train, and draw the learning curve."""
        self.notice(f"{self.how.task}, {name}, seed {seed}")
        curve: list[tuple[int, float]] = []

        def watch(step: int) -> None:
            curve.append((after + step, _evaluate(model, self.watched)["loss"]))

        _train(
            model,
            scalers,
            self.task,
            steps=steps,
            sequences=self.how.sequences,
            rate=self.how.rate if rate is None else rate,
            seed=seed,
            watch=watch,
        )
        self.curves.append({"task": self.how.task, "name": name, "seed": seed, "points": curve})

    def match_teacher(self, model: Any, params: ArrayParams) -> list[StraightAttention]:
        """Scalers by the softmax model's own statistics, layer by layer."""
        keepers = [_Keeper(float(x.scaling)) for x in attention_layers(model)]
        attach(model, keepers)
        with torch.no_grad():
            model(self.calibration[0])
        heads = model.config.num_attention_heads
        found = [
            StraightAttention(match_statistics(x, *keeper.kept, params), heads)
            for x, keeper in zip(attention_layers(model), keepers, strict=True)
        ]
        attach(model, found)
        return found

    def means(self, model: Any) -> None:
        """Let every layer give its mean softmax output."""
        keepers = [_Keeper(float(x.scaling)) for x in attention_layers(model)]
        attach(model, keepers)
        with torch.no_grad():
            model(self.calibration[0])
        means = [softmax_attention(*x.kept, x.scale).mean((0, 2)) for x in keepers]
        attach(model, [MeanAttention(mean) for mean in means])

    def run(self) -> None:
        """Teacher, then every seed."""
        how, first = self.how, self.study.seeds[0]
        teacher = self.task.model(first)
        _softmax(teacher)
        self.train(
            "softmax", teacher, (), steps=how.teacher_steps, seed=1000 + first,
            rate=how.teacher_rate,
        )  # fmt: skip
        self.measure("softmax (teacher)", teacher, steps=how.teacher_steps, seed=None)
        for seed in self.study.seeds:
            self.adapt(teacher, seed)
            self.compare(teacher, seed)

    def adapt(self, teacher: Any, seed: int) -> None:
        """The published algorithm, from the teacher on."""
        how, once = self.how, seed == self.study.seeds[0]
        linear, nonlinear = how.arrays("linear"), how.arrays("published")
        model = copy.deepcopy(teacher)
        layers = self.match_teacher(model, linear)
        if once:
            self.measure("linear cell, matched to the teacher", model, steps=0, seed=None)
        self.train("linear cell", model, _scalers(layers), steps=how.linear_steps, seed=seed)
        self.measure("linear cell, fine-tuned", model, steps=how.linear_steps, seed=seed)

        def run() -> None:
            with torch.no_grad():
                model(self.calibration[0])

        targets = record(layers, run)
        unmatched, moved = copy.deepcopy(model), layers
        layers = _onto(nonlinear, moved, model)
        self.measure("nonlinear cell, scalers of the linear", model, steps=how.linear_steps,
                     seed=seed)  # fmt: skip
        course = iterate(layers, targets, run, iterations=self.study.iterations)
        self.matching.append(
            {
                "task": how.task,
                "seed": seed,
                "course": [dataclasses.asdict(each) for each in course],
            }
        )
        self.measure("nonlinear cell, statistics matched", model, steps=how.linear_steps, seed=seed)
        more = {"steps": how.nonlinear_steps, "seed": 100 + seed, "after": how.linear_steps}
        total = how.linear_steps + how.nonlinear_steps
        self.train("nonlinear cell, matched", model, _scalers(layers), **more)
        self.measure("nonlinear cell, matched and fine-tuned", model, steps=total, seed=seed)
        self.harden(model, seed)
        layers = _onto(nonlinear, moved, unmatched)
        self.train("nonlinear cell, not matched", unmatched, _scalers(layers), **more)
        self.measure("nonlinear cell, fine-tuned without matching", unmatched, steps=total,
                     seed=seed)  # fmt: skip

    def harden(self, adapted: Any, seed: int) -> None:
        """A little more training, with and without devices that are not ideal."""
        how, study = self.how, self.study
        devices = partial(ArrayFaults.of_device, resolve_device(study.device))
        for case in ("fine-tuned further", "fine-tuned on other devices in every step"):
            model = copy.deepcopy(adapted)
            layers = _attached(model)
            for index, layer in enumerate(layers):
                if case != "fine-tuned further":
                    layer.disturbance = FreshDevices(
                        devices(heads=len(layer.q_scale), spread=study.trained_factor),
                        layer.params,
                        torch.Generator().manual_seed(seed * 1000 + index),
                    )
            self.train(
                f"nonlinear cell, {case}", model, _scalers(layers), steps=how.nonlinear_steps,
                seed=200 + seed, after=how.linear_steps + how.nonlinear_steps,
            )  # fmt: skip
            for factor in study.factors:
                faulty = [
                    dataclasses.replace(
                        layer.affine(),
                        faults=devices(
                            heads=len(layer.q_scale), layer=index, spread=factor, seed=100 + seed
                        ),
                    )
                    for index, layer in enumerate(layers)
                ]
                attach(model, faulty)
                found = _evaluate(model, self.watched)
                self.noise.append(
                    {"task": how.task, "case": case, "factor": factor, "seed": seed, **found}
                )

    def compare(self, teacher: Any, seed: int) -> None:
        """What the same number of steps does without the algorithm."""
        how, once = self.how, seed == self.study.seeds[0]
        total, nonlinear = how.linear_steps + how.nonlinear_steps, how.arrays("published")
        model = copy.deepcopy(teacher)
        _softmax(model)
        self.train("softmax, further", model, (), steps=total, seed=seed)
        self.measure("softmax, trained as long", model, steps=total, seed=seed)
        model = copy.deepcopy(teacher)
        self.means(model)
        if once:
            self.measure("no attention: mean outputs", model, steps=0, seed=None)
        self.train("no attention", model, (), steps=total, seed=seed)
        self.measure("no attention, trained as long (control)", model, steps=total, seed=seed)
        model = copy.deepcopy(teacher)
        layers = self.match_teacher(model, nonlinear)
        if once:
            self.measure("nonlinear cell, matched to the teacher", model, steps=0, seed=None)
        name = "nonlinear cell, no linear stage"
        self.train(name, model, _scalers(layers), steps=total, seed=seed)
        self.measure(f"{name}, trained as long", model, steps=total, seed=seed)
        if once:
            model = self.task.model(10 + seed)
            layers = self.match_teacher(model, nonlinear)
            self.train("nonlinear cell, from random weights", model, _scalers(layers), steps=total,
                       seed=seed, rate=how.teacher_rate)  # fmt: skip
            self.measure("nonlinear cell, from random weights", model, steps=total, seed=None)


#: Cases of a task in the order of the table.
ORDER = (
    "softmax (teacher)",
    "softmax, trained as long",
    "no attention: mean outputs",
    "no attention, trained as long (control)",
    "linear cell, matched to the teacher",
    "linear cell, fine-tuned",
    "nonlinear cell, scalers of the linear",
    "nonlinear cell, statistics matched",
    "nonlinear cell, matched and fine-tuned",
    "nonlinear cell, fine-tuned without matching",
    "nonlinear cell, matched to the teacher",
    "nonlinear cell, no linear stage, trained as long",
    "nonlinear cell, from random weights",
)


def _summary(rows: Sequence[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    """A row per case: means over seeds, and the share of the gap of log-likelihood."""

    def losses(case: str) -> list[float]:
        return [row["loss"] for row in rows if (row["task"], row["case"]) == (task, case)]

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    top = mean(losses("softmax, trained as long"))
    control = mean(losses("no attention, trained as long (control)"))
    found = []
    for case in ORDER:
        of_case = [row for row in rows if (row["task"], row["case"]) == (task, case)]
        loss = losses(case)
        recovered = [(control - value) / (control - top) for value in loss]
        found.append(
            {
                "task": task,
                "case": case,
                "steps": of_case[0]["steps"],
                "trained": of_case[0]["steps"] > 0,
                "losses": loss,
                "loss": mean(loss),
                "perplexity": math.exp(mean(loss)),
                "accuracy": mean([row["accuracy"] for row in of_case]),
                "recovered": mean(recovered),
                "recovered_least": min(recovered),
                "recovered_most": max(recovered),
            }
        )
    return found


def _hardened(
    noise: Sequence[dict[str, Any]], curves: Sequence[dict[str, Any]], task: str
) -> list[dict[str, Any]]:
    """A row per case and factor: means over seeds; the gap is that of the same sequences."""

    def last(name: str) -> float:
        ends = [c["points"][-1][1] for c in curves if (c["task"], c["name"]) == (task, name)]
        return float(sum(ends) / len(ends))

    top, control = last("softmax, further"), last("no attention")
    found = []
    for case, factor in dict.fromkeys((row["case"], row["factor"]) for row in noise):
        losses = [row["loss"] for row in noise if (row["case"], row["factor"]) == (case, factor)]
        recovered = [(control - value) / (control - top) for value in losses]
        found.append(
            {
                "task": task,
                "case": case,
                "factor": factor,
                "losses": losses,
                "recovered": sum(recovered) / len(recovered),
                "recovered_least": min(recovered),
                "recovered_most": max(recovered),
            }
        )
    return found


def run_study(study: PublishedStudy, *, notice: Notice | None = None) -> dict[str, Any]:
    """Run every task.

    Parameters
    ----------
    study
        What.
    notice
        Called with the name of each stage before it starts.

    Returns
    -------
    result
        ``rows`` by task and case (loss in nats per token over the held-out text, perplexity,
        accuracy, share of the gap between control and teacher, both trained as long), ``curves``
        (held-out loss over steps), ``matching`` (largest deviations by iteration), ``noise`` (loss
        and share of the gap on devices, by factor of their spreads), ``seconds``.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small tensors gain nothing from more, and sums keep their order
    start, summary = time.monotonic(), []
    curves: list[dict[str, Any]] = []
    matching: list[dict[str, Any]] = []
    noise: list[dict[str, Any]] = []
    try:
        for how in study.tasks:
            run = _Run(study, how, notice or (lambda text: None))
            run.run()
            summary += _summary(run.rows, how.task)
            curves += run.curves
            matching += run.matching
            noise += _hardened(run.noise, curves, how.task)
    finally:
        torch.set_num_threads(threads)
    return {
        "rows": summary,
        "curves": curves,
        "matching": matching,
        "noise": noise,
        "seeds": list(study.seeds),
        "study": dataclasses.asdict(study),
        "seconds": time.monotonic() - start,
    }
