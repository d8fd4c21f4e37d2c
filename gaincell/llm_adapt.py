"""``gaincell llm adapt`` and ``bench``: training on the hardware model, and its speed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sim.results import ROOT, write_result

__all__ = ["kept_adaptations", "register"]

console = Console()

_TOOLS = ("torch", "transformers", "safetensors", "numpy", "scipy")
_FOLDER = ROOT / "build" / "llm"

ModelArgument = Annotated[
    str, typer.Argument(help="smollm2, a GGUF file, a folder with a checkpoint, or a hub's name.")
]


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def kept_adaptations(model: Any, given: Sequence[Path] = ()) -> dict[str, list[Any]]:
    """Adapted models by kind: those of the package, or those in the files given."""
    from sim.llm.adapted import DATA, load_adapted

    kept = [DATA / f"{model.name}{suffix}-1.safetensors" for suffix in ("", "-control")]
    found: dict[str, list[Any]] = {}
    for path in given or [path for path in kept if path.is_file()]:
        adapted = load_adapted(path, model)
        found.setdefault("control" if adapted.study["control"] else "adapted", []).append(adapted)
    return found


def adapt(
    model: ModelArgument = "smollm2",
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the optimiser.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of texts and initial updates.")] = 0,
    rank: Annotated[int | None, typer.Option(min=1, help="Of the updates.")] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Mean outputs in the place of the arrays.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Every tenth layer, short pieces, four steps.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Batches at a time.")] = 2,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Where training goes on from, and saves to.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File of the adapted parameters.")] = None,
) -> None:
    """Adapt a mapped model lightly: low-rank updates, taught by the softmax model."""
    from gaincell.llm import _torch

    _torch()
    from sim.llm.adapt import AdaptStudy
    from sim.llm.adapt import adapt as run
    from sim.llm.plots import draw_curve

    chosen: dict[str, Any] = {"model": model, "seed": seed, "control": control}
    if quick:
        chosen |= {
            "steps": 4, "every": 10, "contexts": (128,), "shares": (1.0,), "tokens": 128,
            "calibration_tokens": 256, "calibration_context": 128, "rank": 4,
        }  # fmt: skip
    chosen |= {
        name: value for name, value in (("steps", steps), ("rank", rank)) if value is not None
    }
    study = AdaptStudy(**chosen)
    saved = checkpoint or _FOLDER / f"adapt-{study.config_hash}.safetensors"
    kind = "-control" if control else ""
    target = out or _FOLDER / f"adapted{kind}.safetensors"
    console.print(f"checkpoint: {_shown(saved)}; interrupted, the same command goes on from there")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn(), TextColumn("{task.fields[news]}"))  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("mapping", total=study.steps, news="")

        def show(done: int, _: int, figures: dict[str, float]) -> None:
            news = "  ".join(
                f"{name} {figures[name]:.3f}"
                for name in ("loss", "divergence", "ratio")
                if name in figures
            )
            progress.update(task, completed=done, news=news, description="training")

        adapted = run(study, saved, workers=workers, progress=show)
    adapted.save(target)
    write_result(
        f"llm_adapt{kind.replace('-', '_')}",
        {
            "study": adapted.study,
            "texts": list(study.texts),
            "curve": adapted.curve,
            "seconds": adapted.seconds,
            "bytes": target.stat().st_size,
        },
        config_hash=study.config_hash,
        tools=_TOOLS,
    )
    picture = draw_curve(
        ROOT / "build" / "report" / f"llm_adapt{kind.replace('-', '_')}.png", adapted.curve
    )
    table = Table(title="Learning curve, on a play that is neither trained nor evaluated on")
    for column in ("step", "divergence, nats", "perplexity over teacher"):
        table.add_column(column, justify="right")
    for point in adapted.curve:
        table.add_row(f"{point['step']:.0f}", f"{point['divergence']:.4f}", f"{point['ratio']:.3f}")
    console.print(table)
    console.print(
        f"{_shown(target)}: {target.stat().st_size / 1e6:.1f} MB in {adapted.seconds / 60:.0f} "
        f"minutes of training; curve: {_shown(picture)}"
    )


def bench(
    model: ModelArgument = "smollm2",
    rounds: Annotated[int, typer.Option(min=1, help="Timings of each kind.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Of PyTorch.")] = 2,
) -> None:
    """Time a training step and an evaluation against the same model with softmax."""
    from gaincell.llm import _torch

    _torch()
    from sim.llm.bench import SpeedStudy, measure_speed
    from sim.llm.model import LanguageModel

    study = SpeedStudy(model=model, rounds=rounds, threads=threads)
    with console.status("loading") as status:
        loaded = LanguageModel.load(model)
        kept = kept_adaptations(loaded)
        rows = measure_speed(
            study,
            loaded,
            kept["adapted"][0].layers if "adapted" in kept else None,
            notice=lambda text: status.update(text),
        )
    write_result(
        "llm_bench",
        {"rows": rows, "threads": threads, "rounds": rounds},
        config_hash=study.config_hash,
        tools=_TOOLS,
    )
    table = Table(title=f"Hardware model over softmax model, {model}, {threads} threads")
    for column in ("what", "context", "softmax, s", "hardware, s", "ratio", "at most", ""):
        table.add_column(column, justify="left" if column in ("what", "") else "right")
    for row in rows:
        kept_to = row["ratio"] <= row["limit"]
        table.add_row(
            row["what"], str(row["context"]), f"{row['softmax_s']:.2f}",
            f"{row['hardware_s']:.2f}", f"{row['ratio']:.2f}", f"{row['limit']:.1f}",
            "[green]ok[/green]" if kept_to else "[red]above[/red]",
        )  # fmt: skip
    console.print(table)
    console.print("build/report/llm_bench.json")
    if any(row["ratio"] > row["limit"] for row in rows):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the commands to ``gaincell llm``."""
    app.command()(adapt)
    app.command()(bench)
