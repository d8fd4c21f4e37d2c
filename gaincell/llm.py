"""``gaincell llm``: language models on the hardware. Needs the extra ``llm``."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from gaincell import llm_adapt, llm_studies
from sim.results import ROOT, write_result

__all__ = ["app", "generate"]

app = typer.Typer(help="Language models on the hardware.", no_args_is_help=True)
console = Console()

_TOOLS = ("torch", "transformers", "numpy", "scipy")
_MAP = ROOT / "build" / "llm" / "map.safetensors"

Back = StrEnum("Back", {"functional": "functional", "rtl": "rtl"})

ModelArgument = Annotated[
    str, typer.Argument(help="smollm2, a GGUF file, a folder with a checkpoint, or a hub's name.")
]


def _torch() -> None:
    try:
        import torch
        import transformers  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is missing: run `pip install .[llm]`") from error
    torch.manual_seed(0)


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


@app.command("map")
def map_(
    model: ModelArgument = "smollm2",
    tokens: Annotated[int, typer.Option(min=64, max=4096, help="Calibration tokens.")] = 1024,
    context: Annotated[int, typer.Option(min=64, help="Tokens of a sequence.")] = 256,
    shots: Annotated[int, typer.Option(min=1, max=4, help="Passes per query.")] = 2,
    count_bits: Annotated[int, typer.Option(min=1, max=8, help="Bits of a count, no sign.")] = 4,
    quick: Annotated[bool, typer.Option("--quick", help="Every tenth layer, 512 tokens.")] = False,
    out: Annotated[Path, typer.Option(help="File of the map.")] = _MAP,
) -> None:
    """Map a pre-trained model's attention onto the arrays, without training."""
    _torch()
    from sim.llm.evaluate import calibration_ids
    from sim.llm.mapping import LayerMap
    from sim.llm.model import LanguageModel
    from sim.llm.pipeline import map_model, save_map
    from sim.llm.recipe import Recipe

    recipe = Recipe(shots=shots, count_bits=count_bits)
    loaded = LanguageModel.load(model)
    every = 10 if quick else 1
    ids = calibration_ids(loaded, 512 if quick else tokens, context)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("layers", total=len(loaded.layers))
        layers = map_model(
            loaded,
            ids,
            recipe,
            choose=lambda index: index % every == every // 2,
            progress=lambda done, _: progress.update(task, completed=done),
        )
    save_map(out, layers, model)
    table = Table(title="Mapping: share of the output's variance lost on calibration")
    for column in ("layer", "median head", "worst head"):
        table.add_column(column, justify="right")
    for index, layer in enumerate(layers):
        if isinstance(layer, LayerMap):
            worst, median = float(layer.error.max()), float(layer.error.median())
            table.add_row(str(index), f"{median:.3f}", f"{worst:.3f}")
    console.print(table)
    size, group = _head(loaded)
    costs = recipe.host_macs(size, group)
    console.print(
        f"array 1: {recipe.rows(size)} rows, array 2: {recipe.lanes(size)} lanes; "
        f"{recipe.clocks()} clocks and {recipe.host_bytes(size, group)} bytes per query"
    )
    console.print(
        f"host, multiply-accumulates per token and head: {sum(costs.values())} "
        f"({', '.join(f'{name} {macs}' for name, macs in costs.items())}); "
        f"softmax over a window of {recipe.window}: {2 * size * recipe.window}"
    )
    console.print(f"map: {_shown(out)}")


def _head(model: Any) -> tuple[int, int]:
    """Head size, and query heads per key-value head."""
    layer, config = model.layers[0], model.model.config
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return int(layer.head_dim), config.num_attention_heads // kv_heads


@app.command()
def evaluate(
    model: ModelArgument = "smollm2",
    full: Annotated[bool, typer.Option("--full", help="16k tokens a row.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Every tenth layer, one text, 1k tokens.")
    ] = False,
    tokens: Annotated[int, typer.Option(min=256, help="Tokens of each text.")] = 2048,
    adapted: Annotated[
        list[Path] | None,
        typer.Option(help="Adapted parameters, instead of the package's; once per seed."),
    ] = None,
    only: Annotated[str, typer.Option(help="Rows whose names contain this.")] = "",
) -> None:
    """Perplexity on held-out text of every case, beside teacher and control."""
    _torch()
    from gaincell.llm_adapt import kept_adaptations
    from sim.llm.evaluate import CASES, EvaluationStudy
    from sim.llm.evaluate import evaluate as run
    from sim.llm.model import LanguageModel
    from sim.llm.plots import draw_evaluation

    names = tuple(case.name for case in CASES if only in case.name)
    study = EvaluationStudy(model=model, tokens=8192 if full else tokens, cases=names)
    if quick:
        short = [case.name for case in CASES if case.contexts != (256,) or "published" in case.name]
        study = EvaluationStudy(
            model=model, tokens=1024, calibration_tokens=512, every=10, texts=("hamlet",),
            cases=tuple(short),
        )  # fmt: skip
    with console.status("loading") as status:
        loaded = LanguageModel.load(model)
        result = run(
            study,
            loaded,
            notice=lambda text: status.update(text),
            longest=256 if quick else None,
            adapted=kept_adaptations(loaded, adapted or ()),
        )
    name = "_".join(["llm", *only.split()])
    write_result(name, result, config_hash=study.config_hash, tools=_TOOLS)
    picture = draw_evaluation(ROOT / "build" / "report" / f"{name}.png", result)
    table = Table(title=f"Perplexity, {model}, {result['rows'][0]['layers']} layers replaced")
    for column in ("attention", "context", "text", "perplexity", "over teacher", "recovered"):
        table.add_column(column, justify="left" if column in ("attention", "text") else "right")
    for row in result["rows"]:
        table.add_row(
            row["case"] + ("" if row["seed"] is None else f", seed {row['seed']}"),
            str(row["context"]), row["text"], f"{row['perplexity']:.1f}",
            f"{row['ratio']:.2f}", f"{row['recovered']:.1%}",
        )  # fmt: skip
    console.print(table)
    console.print(f"{_shown(picture.with_suffix('.json'))}, {_shown(picture)}")


@app.command()
def levers(
    model: ModelArgument = "smollm2",
    layers: Annotated[str, typer.Option(help="Layers, by commas.")] = "1,4,7,18,23",
) -> None:
    """What each lever of the mapping gives by itself, and what it costs."""
    _torch()
    from sim.llm.levers import measure_levers
    from sim.llm.plots import draw_levers
    from sim.llm.recipe import Recipe

    chosen = tuple(int(layer) for layer in layers.split(","))
    with console.status("loading") as status:
        rows = measure_levers(model, chosen, notice=lambda text: status.update(text))
    write_result(
        "llm_levers",
        {"rows": rows, "layers": list(chosen), "default": dataclasses.asdict(Recipe())},
        config_hash=Recipe().config_hash,
        tools=_TOOLS,
    )
    picture = draw_levers(ROOT / "build" / "report" / "llm_levers.png", rows)
    table = Table(title="Levers: share of the output's variance lost on held-out text")
    for column in ("lever", "error", "clocks", "rows", "lanes", "host MACs", "bytes"):
        table.add_column(column, justify="left" if column == "lever" else "right")
    for row in rows:
        table.add_row(row["lever"], f"{row['error']:.3f}", *(str(row[name]) for name in (
            "clocks", "rows", "lanes", "host_macs", "host_bytes")))  # fmt: skip
    console.print(table)
    console.print(_shown(picture))


llm_adapt.register(app)
llm_studies.register(app)


def generate(
    model: ModelArgument = "smollm2",
    backend: Annotated[
        Back, typer.Option(help="The devices: models, or Verilog in a simulator.")
    ] = Back.functional,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to write.")] = 64,
    layer: Annotated[int, typer.Option(help="Layer whose heads run on devices.")] = 10,
    prompt: Annotated[str | None, typer.Option(help="What the text begins with.")] = None,
    simulator: Annotated[str, typer.Option(help="verilator or icarus.")] = "verilator",
) -> None:
    """Let a language model write text; all heads of one layer run on devices."""
    _torch()
    from sim.llm.device import connect_functional
    from sim.llm.generate import PROMPT
    from sim.llm.generate import generate as run
    from sim.llm.model import LanguageModel

    connect = connect_functional
    if backend is Back.rtl:
        from cocotb_tests.driver_backend import SimulatedBackend

        def connect(params: Any, analog: dict[str, Any]) -> Any:
            return SimulatedBackend(params, simulator=simulator, **analog)

    with console.status("loading") as status:
        result = run(
            LanguageModel.load(model),
            connect,
            layer=layer,
            tokens=tokens,
            prompt=PROMPT if prompt is None else prompt,
            notice=lambda text: status.update(text),
        )
    config_hash = result.pop("config_hash")
    result["backend"] = f"{backend.value}{f', {simulator}' if backend is Back.rtl else ''}"
    write_result(f"generate_{backend.value}", result, config_hash=config_hash, tools=_TOOLS)
    console.print(f"[dim]{result['prompt']}[/dim]{result['text']}", highlight=False)
    console.print(
        f"{tokens} tokens in {result['seconds']:.0f} s; layer {layer}, {result['heads']} heads, "
        f"{result['backend']}; {result['integers']:,} integers from devices; "
        f"build/report/generate_{backend.value}.json"
    )
