"""Text, written by a model one of whose layers attends through devices."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from sim.llm.device import Connect, DeviceAttention
from sim.llm.evaluate import calibration_ids
from sim.llm.model import LanguageModel
from sim.llm.pipeline import map_model
from sim.llm.recipe import Recipe

__all__ = ["PROMPT", "generate"]

PROMPT = "The best way to understand how a memory works is"  #: what the text goes on from

_CALIBRATION_TOKENS = 1024
_CONTEXT = 256


def generate(
    model: LanguageModel,
    connect: Connect,
    *,
    layer: int = 10,
    tokens: int = 64,
    prompt: str = PROMPT,
    notice: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Write ``tokens`` tokens, always the likeliest; all heads of one layer run on devices.

    Parameters
    ----------
    model
        The model; layers but the one chosen keep softmax.
    connect
        Makes a device, one per key-value head.
    layer
        The layer.
    tokens
        How many to write.
    prompt
        What the text begins with.
    notice
        Called with what is done next.

    Returns
    -------
    result
        ``text``, ``token_ids`` (of the new tokens), ``heads``, ``integers`` that came from the
        devices, ``seconds`` of writing, and what was asked for.

    Raises
    ------
    ValueError
        ``layer`` is out of range, or prompt and text together do not fit the window.
    """
    if not 0 <= layer < len(model.layers):
        raise ValueError(f"layer must be in 0..{len(model.layers) - 1}, not {layer!r}")
    ids = model.encode(prompt)
    if not ids:
        raise ValueError(f"prompt must hold at least one token, not {prompt!r}")
    recipe = Recipe()
    room = recipe.window - len(ids)
    if not 1 <= tokens <= room:
        raise ValueError(f"tokens must be in 1..{room}, the window less the prompt, not {tokens!r}")
    say = notice or (lambda text: None)
    say(f"mapping layer {layer}")
    calibration = calibration_ids(model, _CALIBRATION_TOKENS, _CONTEXT)
    layers = map_model(model, calibration, recipe, choose=lambda index: index == layer)
    say("starting devices")
    device = DeviceAttention(layers[layer], connect, tokens=len(ids) + tokens)
    layers[layer] = device
    model.attach(layers)
    say(f"writing {tokens} tokens")
    start = time.monotonic()
    try:
        with torch.no_grad():
            written = model.model.generate(
                torch.tensor([ids]), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False
            )
    finally:
        device.close()
    new = written[0, len(ids) :].tolist()
    return {
        "text": model.decode(new),
        "token_ids": new,
        "prompt": prompt,
        "model": model.name,
        "layer": layer,
        "heads": device.layer.heads,
        "integers": device.integers,
        "seconds": time.monotonic() - start,
        "device": device.params.as_dict(),
        "config_hash": device.params.config_hash,
    }
