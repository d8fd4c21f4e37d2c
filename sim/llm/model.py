"""Language models and texts, for the mapping: loaded, and run with any attention."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sim.llm.attention import LayerAttention, SoftmaxAttention, attach, attention_layers
from sim.smollm2 import SmolLM2, find_weights

__all__ = ["SMOLLM2", "LanguageModel"]

SMOLLM2 = "smollm2"  #: name of the model whose weights come as a package

Progress = Callable[[int, int], None]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].split(". ")[0]


def _check_whole(name: str, model: Any, found: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that lacks weights, which would be random, and a model of another kind.

    Raises
    ------
    ValueError
        The message says which.
    """
    missing = sorted(found["missing_keys"])
    if missing:
        raise ValueError(
            f"{name} must hold all weights of a {type(model).__name__}, {len(missing)} are "
            f"missing, the first is {missing[0]}"
        )
    if not all(getattr(layer, "is_causal", False) for layer in attention_layers(model)):
        raise ValueError(
            f"model must be causal, for a token is written before it is read; "
            f"{type(model).__name__} is not"
        )


@dataclass
class LanguageModel:
    """A causal language model of transformers, with its tokeniser.

    Attributes
    ----------
    name
        What it was loaded by.
    model
        The model, float32, in evaluation mode.
    encode, decode
        Text to token ids, and back.
    """

    name: str
    model: Any
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]

    @classmethod
    def load(cls, name: str = SMOLLM2) -> LanguageModel:
        """Load ``smollm2``, a GGUF file, a folder with a checkpoint, or a name on a hub.

        Raises
        ------
        FileNotFoundError
            There is no such file or folder, and no hub knows the name.
        ValueError
            The file is no GGUF file, or what is in it is no causal language model, or lacks
            weights or a tokeniser.
        ModuleNotFoundError
            The package of the weights is not installed.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging as hub_logging

        hub_logging.disable_progress_bar()
        hub_logging.set_verbosity_error()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        path = find_weights() if name == SMOLLM2 else Path(name)
        options: dict[str, Any] = {"dtype": torch.float32}
        source: Any = name
        if path.suffix == ".gguf":
            if not path.is_file():
                raise FileNotFoundError(f"weights must be a file, there is no {path.name}")
            if path.read_bytes()[:4] != b"GGUF":
                raise ValueError(f"{path.name} must be a GGUF file, its first bytes say otherwise")
            source, options["gguf_file"] = path.parent, path.name
        elif path.exists():
            source = path
        try:
            model, found = AutoModelForCausalLM.from_pretrained(
                source, output_loading_info=True, **options
            )
        except OSError as error:
            if path.is_dir():
                raise FileNotFoundError(f"{name} must hold a checkpoint, it does not") from error
            raise FileNotFoundError(
                f"model must be {SMOLLM2}, a GGUF file, a folder with a checkpoint, or a name "
                f"that a hub within reach knows, not {name!r}"
            ) from error
        except Exception as error:  # whatever the readers of the formats raise
            raise ValueError(
                f"{name} must be a checkpoint of a causal language model: {_first_line(error)}"
            ) from error
        _check_whole(name, model, found)
        if path.suffix == ".gguf":
            tokenizer = SmolLM2(path)
            encode = lambda text: tokenizer.encode(text).tolist()  # noqa: E731
            decode = lambda ids: tokenizer.tokenizer.decode(ids)  # noqa: E731
        else:
            try:
                auto = AutoTokenizer.from_pretrained(source)
            except (OSError, ValueError) as error:
                raise ValueError(f"{name} must hold a tokeniser: {_first_line(error)}") from error
            encode = lambda text: auto.encode(text, add_special_tokens=False)  # noqa: E731
            decode = auto.decode
        return cls(name=name, model=model.eval(), encode=encode, decode=decode)

    @cached_property
    def layers(self) -> list[Any]:
        """Attention modules, by layer."""
        return attention_layers(self.model)

    @property
    def context(self) -> int:
        """Longest context that the model was made for."""
        return int(self.model.config.max_position_embeddings)

    def softmax(self) -> list[LayerAttention]:
        """The model's own attention, by layer."""
        return [SoftmaxAttention(float(layer.scaling)) for layer in self.layers]

    def attach(self, layers: Any) -> None:
        """Let layers compute what is given; see `sim.llm.attention.attach`."""
        attach(self.model, layers)

    @torch.no_grad()
    def run(self, ids: Tensor) -> Tensor:
        """Hidden states behind the last layer, (sequences, tokens, width); no logits."""
        base = self.model.get_submodule(self.model.base_model_prefix)
        hidden: Tensor = base(ids, use_cache=False).last_hidden_state
        return hidden

    @torch.no_grad()
    def negative_log_likelihood(self, ids: Tensor, progress: Progress | None = None) -> Tensor:
        """Loss of every token but the first of each sequence, (sequences, tokens - 1)."""
        head = self.model.get_output_embeddings()
        losses = []
        for n, piece in enumerate(ids):
            logits = head(self.run(piece[None])[0, :-1])
            losses.append(torch.nn.functional.cross_entropy(logits, piece[1:], reduction="none"))
            if progress is not None:
                progress(n + 1, len(ids))
        return torch.stack(losses)

    def pieces(self, text: str, *, tokens: int, context: int, skip: int = 0) -> Tensor:
        """Consecutive pieces of a text as token ids, (pieces, context).

        Raises
        ------
        ValueError
            ``context`` is out of range, or the text too short.
        """
        if not 2 <= context <= self.context:
            raise ValueError(f"context must be in 2..{self.context}, not {context!r}")
        count = tokens // context
        ids = self.encode(text)[skip : skip + count * context]
        if count < 1 or len(ids) < count * context:
            raise ValueError(f"text must have {skip + max(tokens, context)} tokens, it is shorter")
        return torch.tensor(ids).reshape(count, context)
