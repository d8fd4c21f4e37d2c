"""Closed forms: one token at a time (`FunctionalHead`) and whole sequences (`attend`)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analog_models.cell import V_MID_V, Cell, PolynomialCell
from analog_models.converter import PHI_GRID, ChargeToPulse, SignedChargeToPulse, check_exact
from analog_models.dac import Dac, LevelCurrents, check_decay
from analog_models.head import check_codes
from analog_models.instance import CellCurrents
from analog_models.params import AnalogParams, check_int
from analog_models.presets import resolve_cell

__all__ = ["Attention", "FunctionalHead", "Result", "attend"]

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]
Bools = NDArray[np.bool_]
Clocks = int | tuple[int, int]


class Result(NamedTuple):
    """What one query gives."""

    sums: NDArray[np.int64]  #: signed counts summed over sub-tiles, ``(lanes,)``
    full_scale: NDArray[np.bool_]  #: whether any sub-tile's count is at its limit, ``(lanes,)``


class _Store:
    """What one array stores, and since when; column by column of the whole window."""

    def __init__(self, params: AnalogParams, cells: CellCurrents) -> None:
        lines = cells.lines
        self._cells = cells
        self._leaks = params.leaks
        self._age_clk = params.age_clk
        self._codes: Codes = np.zeros((params.window, lines), dtype=np.intp)
        self._born: Codes = np.zeros(params.window, dtype=np.intp)
        self._now = -1  # step of age that the currents are of
        self._stale = False
        self._ua = np.zeros((params.window, lines))

    def write(self, column: int, codes: Codes, now_clk: int) -> None:
        """Store a column anew."""
        self._codes[column] = codes
        if self._age_clk:
            self._born[column] = now_clk // self._age_clk
        else:
            self._now += 1
            self._born[column] = self._now
        if self._leaks:
            self._stale = True
        else:
            fresh = np.zeros(1, dtype=np.intp)
            self._ua[column] = self._cells.at(fresh, codes[np.newaxis], column)[0]

    def rewrite(self, column: int, now_clk: int) -> None:
        """Store what a column holds once more."""
        self.write(column, self._codes[column], now_clk)

    def currents_ua(self, now_clk: int) -> Floats:
        """Current of every cell, ``(window, lines)``; columns never written hold anything."""
        if self._age_clk and self._now != now_clk // self._age_clk:
            self._now = now_clk // self._age_clk
            self._stale = True
        if self._stale:
            ages = np.maximum(self._now - self._born, 0)
            self._ua = self._cells.at(ages, self._codes)
            self._stale = False
        return self._ua


class FunctionalHead:
    """One head, token by token; integers equal those of the stepped head, exactly.

    The write pointer runs over columns and wraps; ``flush`` forgets the window and puts the
    pointer back to column 0. With sinks it wraps to column ``sinks`` instead, and the first
    tokens of a sequence stay.

    Where age is time (``params.tau_s``), methods take ``now_clk``, the clock of what they do: of a
    write, the one in which the column takes its codes; of a query, the one in which integrators
    are last reset before it. A pair gives the clocks of array 1 and of array 2; None is the time
    of the last call.

    Each call of `phi_clk` is an evaluation of array 1 and each of `charges` one of array 2, with
    read noise of its own if there is any; a query is one of each.

    Parameters
    ----------
    params
        Shape, widths, cell, converters and faults.
    """

    def __init__(self, params: AnalogParams) -> None:
        if not isinstance(params, AnalogParams):
            raise TypeError(f"params must be AnalogParams, not {params!r}")
        self.params = params
        self._keys = _Store(params, params.key_currents)
        self._values = _Store(params, params.value_currents)
        self._conversions = 0  # of either array, so far: they number the noise
        self._readouts = 0
        self._clk = (0, 0)
        self._pointer = 0
        self._occupancy = 0
        self._sinks = 0
        self._sinks_set = 0

    @property
    def occupancy(self) -> int:
        """Valid tokens in the window."""
        return self._occupancy

    @property
    def pointer(self) -> int:
        """Column of the window that the next token is written to."""
        return self._pointer

    @property
    def valid(self) -> Bools:
        """Columns that hold a token, ``(window,)``."""
        # They are a prefix until the window is full: the pointer goes back only then.
        return np.arange(self.params.window) < self._occupancy

    @property
    def sinks(self) -> int:
        """Tokens at the start of a sequence that are never replaced.

        What is set is taken over while the window is empty, at once or by the next ``flush``.
        """
        return self._sinks_set

    @sinks.setter
    def sinks(self, sinks: int) -> None:
        """Set them; see the property."""
        check_int("sinks", sinks, 0, self.params.window - 1)
        self._sinks_set = sinks
        if not self._occupancy:
            self._sinks = sinks

    def flush(self) -> None:
        """Forget the window."""
        self._occupancy = 0
        self._pointer = 0
        self._sinks = self._sinks_set

    def write(
        self, k_codes: ArrayLike, v_codes: ArrayLike, *, now_clk: Clocks | None = None
    ) -> None:
        """Append a token, which replaces the oldest but the sinks when the window is full.

        Raises
        ------
        TypeError, ValueError
            The codes are no integers, too few or too many, or out of range.
        """
        code_max = self.params.dac.levels - 1
        keys = check_codes("k_codes", k_codes, self.params.rows, code_max)
        values = check_codes("v_codes", v_codes, self.params.lanes, code_max)
        k_clk, v_clk = self._time(now_clk)
        column = self._pointer
        self._keys.write(column, keys, k_clk)
        self._values.write(column, values, v_clk)
        self._occupancy = min(self._occupancy + 1, self.params.window)
        self._pointer = column + 1 if column + 1 < self.params.window else self._sinks

    def rewrite(
        self, column: int, array: str | None = None, *, now_clk: Clocks | None = None
    ) -> None:
        """Refresh a column of array "key" or "value"; None means both. Its charge is restored.

        Raises
        ------
        TypeError, ValueError
            There is no such column or array, or the column holds no token.
        """
        if array is not None and array not in ("key", "value"):
            raise ValueError(f"array must be 'key', 'value' or None, not {array!r}")
        check_int("column", column, 0, self.params.window - 1)
        if column >= self._occupancy:
            raise ValueError(f"column must hold a token to be refreshed, not {column!r}")
        k_clk, v_clk = self._time(now_clk)
        if array != "value":
            self._keys.rewrite(column, k_clk)
        if array != "key":
            self._values.rewrite(column, v_clk)

    def phi_clk(
        self,
        q_codes: ArrayLike,
        *,
        s_level: int | None = None,
        mask: Bools | None = None,
        now_clk: Clocks | None = None,
    ) -> Floats:
        """First half of a query: the phi pulse of every column, in clocks, ``(window,)``.

        Parameters and errors are those of `query`; columns that take no part have no pulse.
        """
        params = self.params
        codes = check_codes("q_codes", q_codes, params.rows, params.q_max)
        if mask is not None:
            if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
                raise TypeError(f"mask must be a boolean array, not {mask!r}")
            if mask.shape != (params.window,):
                raise ValueError(f"mask must have shape ({params.window},), not {mask.shape!r}")
        charge = self._keys.currents_ua(self._time(now_clk)[0]) @ codes.astype(np.float64)
        charge = params.sensing.scores(charge, float(codes.sum()), self._conversions)
        jitter_clk = params.sensing.score_jitter_clk(self._conversions)
        self._conversions += 1
        phi_clk = params.score_converter_of(s_level).phi_clk(charge, jitter_clk)
        phi_clk[self._occupancy :] = 0.0
        if mask is not None:
            phi_clk *= mask
        return phi_clk

    def charges(self, phi_clk: Floats, *, now_clk: Clocks | None = None) -> Floats:
        """Charges that phi pulses collect and the signed converters see, µA·clk.

        Returns
        -------
        charges
            Offsets, gains and noise included, ``(subtiles, lanes)``.
        """
        params = self.params
        currents = self._values.currents_ua(self._time(now_clk)[1])
        on_clk = phi_clk.reshape(params.subtiles, params.columns).sum(axis=1)
        charge: Floats = np.matmul(
            phi_clk.reshape(params.subtiles, 1, params.columns),
            currents.reshape(params.subtiles, params.columns, params.lanes),
        )[:, 0]
        charge = params.sensing.outputs(charge, on_clk, self._readouts)
        self._readouts += 1
        return charge

    def query(
        self,
        q_codes: ArrayLike,
        *,
        s_level: int | None = None,
        a_level: int | None = None,
        subtile: int | None = None,
        mask: Bools | None = None,
        now_clk: Clocks | None = None,
    ) -> Result:
        """Attend over the window.

        Parameters
        ----------
        q_codes
            Query codes, ``(rows,)``.
        s_level, a_level
            Levels of S_sat and A_sat, 1..255; None are the default ones, 80 and 40.
        subtile
            The only one that pulses in the readout, so that its raw counts are seen; None is all.
        mask
            Columns that take part if they hold a token, ``(window,)``; None is all.
        now_clk
            When; see the class.

        Raises
        ------
        TypeError, ValueError
            An argument is not of its kind, shape or range; or the window is empty, which only a
            query of one sub-tile may find: it then shows the converters' offsets.
        """
        codes = check_codes("q_codes", q_codes, self.params.rows, self.params.q_max)
        if subtile is not None:
            check_int("subtile", subtile, 0, self.params.subtiles - 1)
        elif not self._occupancy:
            raise ValueError("occupancy must be at least 1 for a query, not 0")
        converter = self.params.output_converter_of(a_level)
        phi_clk = self.phi_clk(codes, s_level=s_level, mask=mask, now_clk=now_clk)
        jitter_clk = self.params.sensing.output_jitter_clk(self._readouts)
        counts = converter.counts(self.charges(phi_clk), jitter_clk)
        if subtile is not None:
            counts = counts[subtile : subtile + 1]
        return Result(counts.sum(axis=0), (np.abs(counts) == self.params.count_max).any(axis=0))

    def _time(self, now_clk: Clocks | None) -> tuple[int, int]:
        if now_clk is not None:
            pair = now_clk if isinstance(now_clk, tuple) else (now_clk, now_clk)
            if len(pair) != 2:
                raise ValueError(f"now_clk must be a clock or a pair of clocks, not {now_clk!r}")
            for clk in pair:
                check_int("now_clk", clk, 0, 2**62)
            self._clk = pair
        return self._clk


class Attention(NamedTuple):
    """What `attend` gives for a sequence."""

    s_ua: NDArray[Any]  #: scores in µA, ``(tokens, tokens)``; zero where not attended
    phi: NDArray[Any]  #: activations 0..1, ``(tokens, tokens)``; zero where not attended
    out: NDArray[Any]  #: sum over sub-tiles in units of A_sat, ``(tokens, lanes)``


def attend(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    cell: str | Path | Cell = "published",
    window: int | None = None,
    decay_per_token: float = 0.0,
    quantise: bool = True,
    columns: int = 64,
    s_sat_ua: float = 80.0,
    a_sat_ua: float = 40.0,
    q_bits: int = 4,
    kv_bits: int = 3,
    count_bits: int = 4,
    decay_law: str = "voltage",
) -> Attention:
    """Causal sliding-window attention of one head over a whole sequence.

    Token j is stored in column ``j mod window``, hence in sub-tile ``(j mod window) // columns``;
    each sub-tile's result saturates by itself. A token attends to itself.

    Parameters
    ----------
    q
        Queries as fractions of the longest pulse, ``(tokens, rows)`` in 0..1.
    k
        Keys in volts, ``(tokens, rows)`` in 0..0.9.
    v
        Values in volts, ``(tokens, lanes)`` in 0..0.9.
    cell
        A preset's name, a path ending ``.npz``, or a cell.
    window
        Tokens attended to; None means every earlier one.
    decay_per_token
        Share of the stored deviation lost per token of age; 0 is ideal.
    quantise
        Round queries, keys, values and every sub-tile's result to their codes; the integers then
        equal those of `FunctionalHead` and `SteppedHead` exactly, and arrays are float64. If
        false, everything is real-valued, in float32 if all inputs are and else in float64.
    columns
        Tokens of one sub-tile.
    s_sat_ua, a_sat_ua
        Score and output currents that saturate the converters.
    q_bits, kv_bits, count_bits
        Code widths; used if ``quantise``.
    decay_law
        What decays: the stored "voltage" or the whole "current".

    Raises
    ------
    TypeError
        An argument is not of its kind.
    ValueError
        A shape does not fit, or a value is out of its range or not finite.
    """
    if not isinstance(quantise, bool | np.bool_):
        raise TypeError(f"quantise must be a bool, not {quantise!r}")
    check_int("columns", columns, 1, 2**20)
    if window is not None:
        check_int("window", window, 1, 2**40)
    check_decay(decay_per_token, decay_law)
    dac = Dac(bits=kv_bits)
    score_converter = ChargeToPulse(q_bits=q_bits, s_sat_ua=s_sat_ua)
    output_converter = SignedChargeToPulse(q_bits=q_bits, count_bits=count_bits, a_sat_ua=a_sat_ua)
    cell = resolve_cell(cell)
    queries = _matrix("q", q, 0.0, 1.0)
    keys = _matrix("k", k, dac.v_min_v, dac.v_max_v)
    values = _matrix("v", v, dac.v_min_v, dac.v_max_v)
    tokens = queries.shape[0]
    if keys.shape != queries.shape:
        raise ValueError(f"k must have the shape of q, {queries.shape!r}, not {keys.shape!r}")
    if values.shape[0] != tokens:
        raise ValueError(f"v must have {tokens} tokens, as q and k have, not {values.shape[0]!r}")
    plan = _Plan(tokens=tokens, window=min(window or tokens, tokens), columns=columns)
    if quantise:
        currents = LevelCurrents(cell, dac, decay_per_token=decay_per_token, decay_law=decay_law)
        check_exact(
            rows=queries.shape[1],
            columns=min(columns, plan.window),
            q_bits=q_bits,
            i_max_ua=currents.i_max_ua,
        )
        stage = _Exact(score_converter, output_converter)
        codes = np.multiply(queries, float(score_converter.q_max), dtype=np.float64)
        np.rint(codes, out=codes)
        k_codes, v_codes = dac.codes(keys), dac.codes(values)
        if decay_per_token:
            table = currents.table(plan.window)
            terms = [
                _Term(
                    (k_codes == level).astype(np.float64),
                    (v_codes == level).astype(np.float64),
                    np.ascontiguousarray(table[:, level]),
                )
                for level in range(dac.levels)
            ]
        else:
            terms = [
                _Term(np.take(currents.fresh, k_codes), np.take(currents.fresh, v_codes), None)
            ]
        return _run(plan, codes, terms, stage)

    dtype = np.result_type(queries, keys, values)
    dtype = np.dtype(np.float32 if dtype == np.float32 else np.float64)
    queries = queries.astype(dtype, copy=False)
    real = _Real(s_sat_ua, a_sat_ua)
    ages = np.arange(plan.window)
    if not decay_per_token or decay_law == "current":
        weight = np.exp(-decay_per_token * ages).astype(dtype) if decay_per_token else None
        terms = [_Term(_cast(cell, keys, dtype), _cast(cell, values, dtype), weight)]
    elif isinstance(cell, PolynomialCell) and cell.v_mid_v == V_MID_V:
        u_k, u_v = keys - V_MID_V, values - V_MID_V
        terms = [
            _Term(
                (coefficient * u_k**i).astype(dtype),
                (u_v**i * coefficient).astype(dtype),
                np.exp(-i * decay_per_token * ages).astype(dtype),
            )
            for i, coefficient in enumerate(cell.coefficients)
        ]
    else:
        return _by_age(plan, queries, keys, values, cell, decay_per_token, real, dtype)
    return _run(plan, queries, terms, real)


def _cast(cell: Cell, v_store_v: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    return cell.current_ua(v_store_v).astype(dtype, copy=False)


def _matrix(name: str, values: ArrayLike, low: float, high: float) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be real numbers, not dtype {array.dtype.name!r}")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be two-dimensional and not empty, not {array.shape!r}")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    # The comparison is in the input's type: 0.9 as a float32 is the top of a float32's range.
    top, bottom = array.dtype.type(high), array.dtype.type(low)
    if not (array.min() >= bottom and array.max() <= top):  # NaN fails both
        row, column = np.argwhere(~((array >= bottom) & (array <= top)))[0]
        raise ValueError(
            f"{name} must be finite and in {low:g}..{high:g}, "
            f"not {float(array[row, column])!r} at index ({row}, {column})"
        )
    return array


@dataclass(frozen=True)
class _Block:
    """Successive queries that arrive while one sub-tile fills, and the tokens they see."""

    queries: slice
    tokens: slice  #: seen by at least one of the queries; begins and ends with that sub-tile
    edges: list[int]  #: where sub-tiles begin, and the end, counted from ``tokens.start``
    old: int  #: how many tokens at the front are that sub-tile's of the last lap


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Which token is stored where, and who sees it."""

    tokens: int
    window: int
    columns: int

    def blocks(self) -> Iterator[_Block]:
        """Cut the queries into blocks, in order."""
        starts = [
            lap + column
            for lap in range(0, self.tokens, self.window)
            for column in range(0, self.window, self.columns)
            if lap + column < self.tokens
        ]
        first = 0  # index of the oldest sub-tile still seen
        for index, start in enumerate(starts):
            stop = starts[index + 1] if index + 1 < len(starts) else self.tokens
            while starts[first] < start - self.window:
                first += 1
            begin = starts[first]
            old = starts[first + 1] - begin if begin == start - self.window else 0
            edges = [edge - begin for edge in starts[first : index + 1]]
            for low in range(start, stop, _QUERIES):
                high = min(low + _QUERIES, stop)
                yield _Block(slice(low, high), slice(begin, high), [*edges, high - begin], old)


@dataclass(frozen=True)
class _Term:
    """One product of a cell current that is a sum of products: f(stored) * g(age)."""

    k: NDArray[Any]
    v: NDArray[Any]
    weight: NDArray[Any] | None  #: by age; None is one throughout

    @cached_property
    def k_by_row(self) -> NDArray[Any]:
        """Transpose of ``k`` in memory, which small products read faster than a view of it.

        Rows are a little longer than needed: a distance of a power of two would let them evict
        each other from the cache.
        """
        tokens, rows = self.k.shape
        transposed = np.empty((rows, tokens + 8), self.k.dtype)[:, :tokens]
        transposed[:] = self.k.T
        return transposed


class _Stage:
    """Elementwise steps between the products, in place wherever possible."""

    def score(self, raw: NDArray[Any], s_ua: NDArray[Any], phi: NDArray[Any]) -> NDArray[Any]:
        """Fill views of the results from the products; return what drives array 2."""
        raise NotImplementedError

    def output(self, raw: NDArray[Any], half: NDArray[Any]) -> NDArray[Any]:
        """Convert the charges of sub-tiles; ``raw`` and ``half`` may be overwritten."""
        raise NotImplementedError

    def finish(self, out: NDArray[Any]) -> None:
        """Bring the sums over sub-tiles to units of A_sat."""


class _Exact(_Stage):
    """Codes and counts, through the converters that every other speed uses."""

    def __init__(self, score: ChargeToPulse, output: SignedChargeToPulse) -> None:
        self._score = score
        self._output = output

    def score(self, raw: Floats, s_ua: Floats, phi: Floats) -> Floats:
        np.divide(raw, float(self._score.q_max), out=s_ua)
        ticks = self._score.phi_ticks(raw, out=raw)
        # The reciprocal still gives 1.0 for the longest pulse, for every q_bits allowed.
        np.multiply(ticks, 1.0 / (self._score.q_max * PHI_GRID), out=phi)
        return ticks

    def output(self, raw: Floats, half: Floats) -> Floats:
        return self._output.round_charge(raw, out=raw, half=half)

    def finish(self, out: Floats) -> None:
        out /= float(self._output.count_max)


class _Real(_Stage):
    """Real numbers."""

    def __init__(self, s_sat_ua: float, a_sat_ua: float) -> None:
        self._s_sat_ua = float(s_sat_ua)
        self._a_sat_ua = float(a_sat_ua)

    def score(self, raw: NDArray[Any], s_ua: NDArray[Any], phi: NDArray[Any]) -> NDArray[Any]:
        np.copyto(s_ua, raw)
        np.multiply(raw, 1.0 / self._s_sat_ua, out=raw)
        np.clip(raw, 0.0, 1.0, out=raw)
        np.copyto(phi, raw)
        return raw

    def output(self, raw: NDArray[Any], half: NDArray[Any]) -> NDArray[Any]:
        raw *= 1.0 / self._a_sat_ua
        return np.clip(raw, -1.0, 1.0, out=raw)


#: Queries worked on at once: their scores stay in a core's second-level cache.
_QUERIES = 64


def _run(plan: _Plan, q: NDArray[Any], terms: list[_Term], stage: _Stage) -> Attention:
    """Attend block by block; nothing above the diagonal is computed beyond its own block.

    One thread: two would fight with BLAS's own over the cores, and a busy machine makes that
    far slower than what they save.
    """
    tokens, lanes = plan.tokens, terms[0].v.shape[1]
    # One allocation, zeroed only where nobody attends: pages are what costs here.
    both = np.empty((2, tokens, tokens), q.dtype)
    s_ua, phi = both
    out = np.empty((tokens, lanes), q.dtype)
    # Work space is allocated once: fresh pages cost more than the arithmetic on them.
    scores = np.empty(0, q.dtype)
    charges = np.empty((2, 0), q.dtype)
    for block in plan.blocks():
        low, high = block.queries.start, block.queries.stop
        both[:, block.queries, : block.tokens.start] = 0.0
        both[:, block.queries, block.tokens.stop :] = 0.0
        n, seen, parts = high - low, block.edges[-1], len(block.edges) - 1
        if scores.size < n * seen:
            scores = np.empty(min(plan.window + plan.columns, tokens) * n, q.dtype)
        if charges.shape[1] < parts * n * lanes:
            most = min(plan.window, tokens) // plan.columns + 3
            charges = np.empty((2, most * n * lanes), q.dtype)
        raw = scores[: n * seen].reshape(n, seen)
        _scores(q, terms, block, raw)
        start = block.edges[-2]
        # A query does not see the tokens that arrive after it ...
        recent = raw[:, start:]
        offset = low - (block.tokens.start + start)
        np.copyto(recent, 0.0, where=~np.tri(n, seen - start, offset, dtype=np.bool_))
        if block.old:  # ... nor those that are overwritten by then.
            gone = np.tri(n, block.old, offset, dtype=np.bool_)
            np.copyto(raw[:, : block.old], 0.0, where=gone)
        drive = stage.score(
            raw, s_ua[block.queries, block.tokens], phi[block.queries, block.tokens]
        )
        charge, half = charges[:, : parts * n * lanes].reshape(2, parts, n, lanes)
        _outputs(drive, terms, block, charge, half)
        if block.old and parts > 1:
            # Both laps' tokens share the sub-tile's lines until the last old one is replaced.
            charge[-1] += charge[0]
            charge, half = charge[1:], half[1:]
        np.sum(stage.output(charge, half), axis=0, out=out[block.queries])
    stage.finish(out)
    return Attention(s_ua, phi, out)


def _weights(term: _Term, block: _Block) -> NDArray[Any]:
    """Weights of a block by age; those of tokens that a query does not see are arbitrary."""
    assert term.weight is not None
    i = np.arange(block.queries.start, block.queries.stop)[:, np.newaxis]
    ages = np.abs(i - np.arange(block.tokens.start, block.tokens.stop))
    weights: NDArray[Any] = np.take(term.weight, ages, mode="clip")
    return weights


def _scores(q: NDArray[Any], terms: list[_Term], block: _Block, out: NDArray[Any]) -> None:
    """Scores of the block's queries against its tokens, all of them."""
    for n, term in enumerate(terms):
        target = out if n == 0 else np.empty_like(out)
        for tokens, parts in _runs(block.edges):
            keys = _split(term.k_by_row[:, block.tokens][:, tokens], parts)
            np.matmul(q[block.queries], keys, out=_split(target[:, tokens], parts))
        if term.weight is not None:
            target *= _weights(term, block)
        if n:
            out += target


def _outputs(
    drive: NDArray[Any],
    terms: list[_Term],
    block: _Block,
    out: NDArray[Any],
    space: NDArray[Any],
) -> None:
    """Charges that the tokens' pulses collect in every sub-tile; ``space`` is scratch."""
    for n, term in enumerate(terms):
        weighted = drive if term.weight is None else drive * _weights(term, block)
        target = out if n == 0 else space
        done = 0
        for tokens, parts in _runs(block.edges):
            values = term.v[block.tokens][tokens]
            np.matmul(
                _split(weighted[:, tokens], parts),
                values.reshape(parts, -1, values.shape[1]),
                out=target[done : done + parts],
            )
            done += parts
        if n:
            out += space


def _runs(edges: list[int]) -> Iterator[tuple[slice, int]]:
    """Runs of equally wide sub-tiles: their tokens, and how many sub-tiles.

    A run is one stack of products as small as a sub-tile, which BLAS does not spread over
    threads; waiting for its threads again and again is what hurts on a busy machine.
    """
    widths = np.diff(edges)
    cuts = [0, *(np.flatnonzero(np.diff(widths)) + 1), len(widths)]
    for first, last in itertools.pairwise(cuts):
        yield slice(edges[first], edges[last]), int(last - first)


def _split(matrix: NDArray[Any], parts: int) -> NDArray[Any]:
    """View of ``(n, parts * width)`` as ``(parts, n, width)``."""
    n, width = matrix.shape[0], matrix.shape[1] // parts
    row, column = matrix.strides
    shape, strides = (parts, n, width), (width * column, row, column)
    return np.lib.stride_tricks.as_strided(matrix, shape, strides)


def _by_age(
    plan: _Plan,
    q: NDArray[Any],
    k: NDArray[Any],
    v: NDArray[Any],
    cell: Cell,
    decay_per_token: float,
    stage: _Real,
    dtype: np.dtype[Any],
) -> Attention:
    """Attend one age at a time, for a cell whose curve does not split into powers of u."""
    tokens = plan.tokens
    s_ua = np.zeros((tokens, tokens), dtype)
    phi = np.zeros((tokens, tokens), dtype)
    subtile = np.arange(tokens) % plan.window // plan.columns
    charge = np.zeros((int(subtile.max()) + 1, tokens, v.shape[1]), dtype)
    for age in range(plan.window):
        fade = np.exp(-decay_per_token * age)
        stored = np.arange(tokens - age)
        asking = stored + age
        k_ua = _cast(cell, V_MID_V + (k[: tokens - age] - V_MID_V) * fade, dtype)
        v_ua = _cast(cell, V_MID_V + (v[: tokens - age] - V_MID_V) * fade, dtype)
        score = np.einsum("ij,ij->i", q[age:], k_ua)
        score_view, phi_view = np.empty_like(score), np.empty_like(score)
        drive = stage.score(score, score_view, phi_view)
        s_ua[asking, stored] = score_view
        phi[asking, stored] = phi_view
        charge[subtile[: tokens - age], asking] += drive[:, np.newaxis] * v_ua
    out = np.zeros((tokens, v.shape[1]), dtype)
    for part in charge:
        out += stage.output(part, part)
    stage.finish(out)
    return Attention(s_ua, phi, out)
