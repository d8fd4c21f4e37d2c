"""``gaincell llm published``, ``noise`` and ``tasks``. Need the extra ``llm``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sim.results import ROOT, write_result

__all__ = ["register"]

console = Console()

_TOOLS = ("torch", "transformers", "numpy", "scipy")
_REPORT = ROOT / "build" / "report"
_MAP = ROOT / "build" / "llm" / "map.safetensors"


def _seed() -> None:
    try:
        import torch
        import transformers  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is missing: run `pip install .[llm]`") from error
    torch.manual_seed(0)


def _columns(table: Table, names: tuple[str, ...], left: tuple[str, ...]) -> None:
    for name in names:
        table.add_column(name, justify="left" if name in left else "right")


def published(
    quick: Annotated[
        bool, typer.Option("--quick", help="Recall alone, one seed, few steps.")
    ] = False,
) -> None:
    """The published algorithm on small models, stage by stage, with its learning curves."""
    _seed()
    from sim.llm.published_study import PublishedStudy, run_study
    from sim.llm.study_plots import draw_published

    study = PublishedStudy.quick() if quick else PublishedStudy()
    with console.status("training") as status:
        result = run_study(study, notice=lambda text: status.update(text))
    write_result("llm_published", result, config_hash=study.config_hash, tools=_TOOLS)
    picture = draw_published(_REPORT / "llm_published.png", result)
    table = Table(title="The published algorithm: held-out text")
    _columns(
        table,
        ("task", "model", "steps", "perplexity", "accuracy", "share of the gap"),
        ("task", "model"),
    )
    for row in result["rows"]:
        table.add_row(
            row["task"], row["case"], str(row["steps"]), f"{row['perplexity']:.3f}",
            f"{row['accuracy']:.1%}", f"{row['recovered']:.1%}",
        )  # fmt: skip
    console.print(table)
    console.print(f"{result['seconds']:.0f} s; build/report/llm_published.json, {picture.name}")


def noise(
    model: Annotated[
        str, typer.Argument(help="smollm2, a GGUF file, a folder, or a hub's name.")
    ] = "smollm2",
    device: Annotated[str, typer.Option(help="Preset with the spreads.")] = "sky130-tt",
    quick: Annotated[
        bool, typer.Option("--quick", help="Every tenth layer, one set of arrays, 512 tokens.")
    ] = False,
) -> None:
    """Perplexity of a mapped model on arrays with mismatch, noise and offsets."""
    _seed()
    from sim.llm.noise import NoiseStudy, run_noise
    from sim.llm.study_plots import draw_noise

    study = (NoiseStudy.quick if quick else NoiseStudy)(model=model, device=device)
    with console.status("loading") as status:
        result = run_noise(study, notice=lambda text: status.update(text))
    write_result("llm_noise", result, config_hash=study.config_hash, tools=_TOOLS)
    picture = draw_noise(_REPORT / "llm_noise.png", result)
    table = Table(title=f"Perplexity, {model}, {result['layers']} layers, spreads of {device}")
    _columns(
        table, ("not ideal", "times", "devices", "perplexity", "over ideal", "share of the gap"),
        ("not ideal",),
    )  # fmt: skip
    for row in result["rows"]:
        table.add_row(
            row["case"], f"{row['factor']:g}", str(row["seed"]), f"{row['perplexity']:.1f}",
            f"{row['ratio']:.3f}", f"{row['recovered']:.1%}",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"teacher {result['teacher']:.1f}, control {result['control']:.1f}, ideal arrays "
        f"{result['ideal']:.1f}; {result['seconds']:.0f} s; build/report/llm_noise.json, "
        f"{picture.name}"
    )


def tasks(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Tasks of lm-evaluation-harness; the published ones if left out."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="smollm2, a GGUF file, a folder, or a hub's name.")
    ] = "smollm2",
    attention: Annotated[str, typer.Option(help="mapped, or softmax.")] = "mapped",
    map_file: Annotated[Path, typer.Option("--map", help="File of `gaincell llm map`.")] = _MAP,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each task.")] = None,
    include: Annotated[Path | None, typer.Option(help="Folder of your own tasks.")] = None,
) -> None:
    """Tasks of lm-evaluation-harness on the hardware; data sets come from where it gets them."""
    _seed()
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is missing: run `pip install .[lm-eval]`") from error
    from sim.llm.lm_eval_adapter import PAPER_TASKS, GaincellLM

    wanted = list(names or PAPER_TASKS)
    manager = TaskManager(include_path=None if include is None else str(include))
    for name in wanted:
        if name not in manager.all_tasks:
            raise ValueError(f"task must be one that the harness knows, not {name!r}")
    found = simple_evaluate(
        model=GaincellLM(pretrained=model, attention=attention, map=map_file),
        tasks=wanted,
        task_manager=manager,
        limit=limit,
        log_samples=False,
    )
    table = Table(title=f"{model}, {attention}")
    _columns(table, ("task", "metric", "value"), ("task", "metric"))
    rows = []
    for task, figures in found["results"].items():
        for metric, value in figures.items():
            if isinstance(value, float) and "stderr" not in metric:
                name = metric.removesuffix(",none")
                rows.append({"task": task, "metric": name, "value": value})
                table.add_row(task, name, f"{value:.4g}")
    write_result(
        "llm_tasks",
        {"rows": rows, "model": model, "attention": attention, "limit": limit},
        config_hash=hashlib.sha256(
            json.dumps([model, attention, wanted, limit]).encode()
        ).hexdigest()[:12],
        tools=(*_TOOLS, "lm_eval"),
    )
    console.print(table)
    console.print("build/report/llm_tasks.json")


def register(app: typer.Typer) -> None:
    """Add these commands to ``gaincell llm``."""
    for command in (published, noise, tasks):
        app.command()(command)
