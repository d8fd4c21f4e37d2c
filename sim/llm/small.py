"""Small language models and tasks in which attention is all that counts, to train in minutes.

*Recall*: sixteen facts in a row, each a key with its value in one token, and then every key by
itself, whose value is asked for. Without attention nothing better than chance is possible.
*Letters*: plays, letter by letter. Without attention a letter is guessed from the one before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from sim.text import load_text

__all__ = ["TASKS", "Batch", "Letters", "Recall", "Task"]

#: Token ids, and what is to be predicted at each token, (sequences, tokens); -1 is nothing.
Batch = tuple[Tensor, Tensor]


class Task(Protocol):
    """What a small model is trained on."""

    @property
    def name(self) -> str:
        """As tables and pictures say it."""
        ...

    @property
    def tokens(self) -> int:
        """Of a sequence."""
        ...

    def model(self, seed: int) -> Any:
        """A model of transformers, untrained."""
        ...

    def batch(self, generator: torch.Generator, sequences: int) -> Batch:
        """A batch to train on."""
        ...

    def held_out(self, sequences: int) -> Batch:
        """A batch never trained on, always the same."""
        ...


def _model(vocabulary: int, tokens: int, width: int, heads: int, layers: int, seed: int) -> Any:
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=tokens,
        attention_bias=True,  # scalers' offsets fold into it, and the control's mean outputs
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation="gaincell")


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Associative recall of ``keys`` facts, all keys asked for once."""

    keys: int = 16  #: different keys, and different values
    name: str = "recall"

    @property
    def tokens(self) -> int:
        """Of a sequence: facts, then keys and values in turn."""
        return 3 * self.keys

    def model(self, seed: int) -> Any:
        """Two layers of two heads of size 32."""
        return _model(self.keys * (self.keys + 2), self.tokens, 64, 2, 2, seed)

    def batch(self, generator: torch.Generator, sequences: int) -> Batch:
        """Facts, keys and values drawn anew."""
        keys = self.keys
        drawn = (torch.rand(sequences, keys, generator=generator).argsort(1) for _ in range(2))
        key, asked = drawn
        value = torch.randint(0, keys, (sequences, keys), generator=generator)
        answer = torch.zeros_like(value).scatter_(1, key, value).gather(1, asked)
        turns = torch.stack([keys * keys + asked, keys * (keys + 1) + answer], dim=-1)
        ids = torch.cat([keys * key + value, turns.flatten(1)], dim=1)
        target = torch.full_like(ids, -1)
        target[:, keys::2] = ids[:, keys + 1 :: 2]
        return ids, target

    def held_out(self, sequences: int) -> Batch:
        """Facts of a generator of their own."""
        return self.batch(torch.Generator().manual_seed(2**31), sequences)


@dataclass(frozen=True, kw_only=True)
class Letters:
    """Plays by Shakespeare, letter by letter."""

    tokens: int = 128  #: letters of a sequence
    texts: tuple[str, ...] = ("othello", "twelfth_night", "macbeth", "romeo_and_juliet")
    held_out_text: str = "hamlet"
    load: Callable[[str], str] = load_text
    name: str = "letters"

    @cached_property
    def _letters(self) -> dict[str, int]:
        return {letter: i for i, letter in enumerate(sorted(set(self._text)))}

    @cached_property
    def _text(self) -> str:
        return "\n".join(self.load(name) for name in self.texts)

    @cached_property
    def _ids(self) -> Tensor:
        return self._encoded(self._text)

    def _encoded(self, text: str) -> Tensor:
        known = self._letters
        return torch.tensor([known[letter] for letter in text if letter in known])

    def model(self, seed: int) -> Any:
        """Three layers of two heads of size 64."""
        return _model(len(self._letters), self.tokens, 128, 2, 3, seed)

    @staticmethod
    def _cut(ids: Tensor, starts: Tensor, tokens: int) -> Batch:
        pieces = ids[starts[:, None] + torch.arange(tokens + 1)]
        return pieces[:, :-1].contiguous(), pieces[:, 1:].contiguous()

    def batch(self, generator: torch.Generator, sequences: int) -> Batch:
        """Pieces from anywhere in the texts."""
        top = len(self._ids) - self.tokens
        starts = torch.randint(0, top, (sequences,), generator=generator)
        return self._cut(self._ids, starts, self.tokens)

    def held_out(self, sequences: int) -> Batch:
        """Consecutive pieces of another text."""
        ids = self._encoded(self.load(self.held_out_text))
        starts = torch.arange(sequences) * self.tokens
        return self._cut(ids, starts, self.tokens)


#: The tasks, by name.
TASKS: dict[str, Callable[[], Task]] = {"recall": Recall, "letters": Letters}
