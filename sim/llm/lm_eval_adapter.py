"""A model on the hardware for lm-evaluation-harness, under the name ``gaincell``.

Importing this module registers it; it needs the extra ``lm-eval``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from sim.llm.model import SMOLLM2, LanguageModel
from sim.llm.pipeline import load_map

__all__ = ["ATTENTION", "PAPER_TASKS", "GaincellLM"]

#: The tasks that the published system was evaluated on, by their names in the harness: Leroux et
#: al., Nature Computational Science 5, 813-824 (2025).
PAPER_TASKS = (
    "arc_easy",
    "arc_challenge",
    "winogrande",
    "hellaswag",
    "lambada_openai",
    "piqa",
    "wikitext",
)

ATTENTION = ("mapped", "softmax")  #: what the layers can compute


def _stopped(text: str, until: Sequence[str]) -> str:
    """The text up to the first of the marks."""
    ends = [text.index(mark) for mark in until if mark and mark in text]
    return text[: min(ends)] if ends else text


@register_model("gaincell")
class GaincellLM(TemplateLM):
    """A causal language model whose attention runs on the arrays.

    Parameters
    ----------
    pretrained
        The model, as `LanguageModel.load` takes it; or one that is loaded already.
    attention
        "mapped" or "softmax", the model as trained.
    map
        File that ``gaincell llm map`` wrote; needed where attention is mapped.
    context
        Longest context; None is what the model was made for, at most the window of the map.
    batch_size
        Sequences at a time.

    Raises
    ------
    ValueError
        A parameter is out of its range, or the map is of another model.
    FileNotFoundError
        There is no such map.
    """

    def __init__(
        self,
        pretrained: str | LanguageModel = SMOLLM2,
        attention: str = "mapped",
        map: str | Path | None = None,
        context: int | None = None,
        batch_size: int | str | None = 8,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        if attention not in ATTENTION:
            raise ValueError(f"attention must be one of {', '.join(ATTENTION)}, not {attention!r}")
        if device not in (None, "cpu"):
            raise ValueError(f"device must be cpu, not {device!r}")
        self.language_model = (
            pretrained if isinstance(pretrained, LanguageModel) else LanguageModel.load(pretrained)
        )
        self.batch_size = int(batch_size or 8)
        limit = self.language_model.context
        if attention == "mapped":
            if map is None:
                raise ValueError("map must be a file written by `gaincell llm map`, not None")
            layers: list[Any] = list(self.language_model.softmax())
            for index, layer in load_map(Path(map)).items():
                module = self.language_model.layers[index] if index < len(layers) else None
                if module is None or layer.head_size != module.head_dim:
                    raise ValueError(
                        f"{Path(map).name} must be a map of {self.language_model.name}, "
                        "its layers or heads are others"
                    )
                layers[index] = layer
                limit = min(limit, layer.recipe.window)
            self.language_model.attach(layers)
        else:
            self.language_model.attach(self.language_model.softmax())
        if context is not None and not 2 <= int(context) <= limit:
            raise ValueError(f"context must be in 2..{limit}, not {context!r}")
        self.context = limit if context is None else int(context)

    # --- what the harness asks for ----------------------------------------------------------
    @property
    def eot_token_id(self) -> int:
        """Token that ends a text; it stands before one that has no context."""
        config = self.language_model.model.config
        end = config.eos_token_id
        return int(end[0] if isinstance(end, list) else end)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Token ids of a text; special tokens are never added."""
        return self.language_model.encode(string)

    def _batches(self, count: int) -> Iterator[slice]:
        for start in range(0, count, self.batch_size):
            yield slice(start, start + self.batch_size)

    @torch.no_grad()
    def _scores(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether it is the likeliest one."""
        for n, (context, continuation) in enumerate(pairs):
            if not continuation or len(continuation) > self.context:
                raise ValueError(
                    f"continuation must be in 1..{self.context} tokens, not {len(continuation)!r}, "
                    f"at index {n}"
                )
            if not context:
                raise ValueError(f"context must not be empty, at index {n}")
        order = sorted(range(len(pairs)), key=lambda n: -sum(len(part) for part in pairs[n]))
        found: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
        head = self.language_model.model.get_output_embeddings()
        for batch in self._batches(len(order)):
            chosen = order[batch]
            tokens = [(pairs[n][0] + pairs[n][1])[-(self.context + 1) :] for n in chosen]
            longest = max(len(t) for t in tokens) - 1
            # What stands behind a token has no influence on it: shorter ones are filled up there.
            ids = torch.zeros(len(chosen), longest, dtype=torch.long)
            for row, t in enumerate(tokens):
                ids[row, : len(t) - 1] = torch.tensor(t[:-1])
            hidden = self.language_model.run(ids)
            for row, (n, t) in enumerate(zip(chosen, tokens, strict=True)):
                asked = torch.tensor(pairs[n][1])
                last = hidden[row, len(t) - 1 - len(asked) : len(t) - 1]
                logits: Tensor = head(last).float().log_softmax(-1)
                likelihood = logits.gather(1, asked[:, None]).double().sum()
                found[n] = float(likelihood), bool((logits.argmax(-1) == asked).all())
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        found = self._scores([(context, continuation) for _, context, continuation in requests])
        for (strings, _, _), answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", strings, answer)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> Any:
        """Log-likelihood of whole texts, every token predicted once."""
        found = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.context,
                context_len=1,
            )
            pairs = [make_disjoint_window(window) for window in windows]
            found.append(sum(score for score, _ in self._scores(pairs)))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), found[-1])
        return found

    @torch.no_grad()
    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations, up to the first of the marks."""
        found = []
        for context, how in (request.args for request in requests):
            if how.get("do_sample"):
                raise ValueError(f"do_sample must be false, not {how['do_sample']!r}")
            marks = how.get("until") or []
            until = [marks] if isinstance(marks, str) else list(marks)
            wanted = min(int(how.get("max_gen_toks", 128)), self.context - 1)
            ids = self.tok_encode(context)[-(self.context - wanted) :] or [self.prefix_token_id]
            text = self._written(torch.tensor([ids]), wanted, until)
            found.append(text)
            self.cache_hook.add_partial("generate_until", (context, how), text)
        return found

    def _written(self, ids: Tensor, wanted: int, until: Sequence[str]) -> str:
        model, written, past = self.language_model.model, [], None
        for _ in range(wanted):
            answer = model(ids, past_key_values=past, use_cache=True)
            past, token = answer.past_key_values, int(answer.logits[0, -1].argmax())
            if token == self.eot_token_id:
                break
            written.append(token)
            text = self.language_model.decode(written)
            if any(mark and mark in text for mark in until):
                break
            ids = torch.tensor([[token]])
        return _stopped(self.language_model.decode(written), until)
