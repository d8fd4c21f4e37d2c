"""The levers of the mapping, and what each costs in clocks, rows, lanes and on the host."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from analog_models.params import check_int
from sim.llm.arrays import ArrayParams

__all__ = ["TOKEN_S", "Recipe"]

#: Seconds per token that the published accuracy assumes, and time constant of the 28 nm cell:
#: Leroux et al., Nature Computational Science 5, 813-824 (2025).
TOKEN_S, TAU_S = 0.8e-6, 5e-3


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a pre-trained model's attention is laid onto the arrays.

    Raises
    ------
    TypeError
        A field is not of its kind.
    ValueError
        A field is out of its range.
    """

    shots: int = 2  #: passes per query: pieces of the piecewise-linear exponential
    sinks: int = 1  #: first tokens of a sequence that the host attends to by itself
    compensation_rows: int = 8  #: rows at full width that make unsigned queries signed
    bias_rows: int = 12  #: rows of fixed codes that set each query's threshold
    norm_lanes: int = 4  #: lanes of fixed codes that return the sum of phi
    grouped: bool = True  #: query heads of a group share their key-value head's arrays
    balance: bool = True  #: equalise queries against keys, values against the output projection
    joint: bool = True  #: choose the key codes of a column together, not each by itself
    predict: bool = True  #: a threshold per query from what the host knows, not one per head
    position: bool = True  #: predict it from the query's position, too
    clip: float = 0.995  #: quantile of magnitudes at which queries, keys and values clip
    window: int = 1024  #: tokens a head holds
    columns: int = 64  #: tokens of one sub-tile
    q_bits: int = 4  #: width of query codes
    kv_bits: int = 3  #: width of stored codes
    count_bits: int = 4  #: magnitude bits of one sub-tile's result
    token_s: float = TOKEN_S  #: seconds per token, against 5 ms of retention; 0 is no leakage

    def __post_init__(self) -> None:
        check_int("shots", self.shots, 1, 4)
        check_int("sinks", self.sinks, 0, 64)
        check_int("compensation_rows", self.compensation_rows, 0, 64)
        check_int("bias_rows", self.bias_rows, 3, 64)
        check_int("norm_lanes", self.norm_lanes, 1, 16)
        if not 0.5 <= self.clip <= 1.0:
            raise ValueError(f"clip must be in 0.5..1, not {self.clip!r}")
        if not 0 <= self.token_s < TAU_S:
            raise ValueError(f"token_s must be in 0..{TAU_S:g}, not {self.token_s!r}")
        _ = self.arrays  # checks the rest

    @property
    def arrays(self) -> ArrayParams:
        """Widths and physics of the arrays."""
        return ArrayParams(
            window=self.window,
            columns=self.columns,
            q_bits=self.q_bits,
            kv_bits=self.kv_bits,
            count_bits=self.count_bits,
            decay_per_token=self.token_s / TAU_S,
        )

    def rows(self, head_size: int) -> int:
        """Word lines of array 1."""
        return head_size + self.compensation_rows + self.bias_rows

    def lanes(self, head_size: int) -> int:
        """Outputs of array 2."""
        return head_size + self.norm_lanes

    def clocks(self) -> int:
        """Clocks per query of a pipelined head: write, one read per shot, guards."""
        read = (1 << self.q_bits) + (1 << self.count_bits) - (1 << 4)
        return 4 + self.shots * max(read, 1 << self.q_bits)

    def host_macs(self, head_size: int, group: int = 1) -> dict[str, int]:
        """Multiply-accumulates of the host per token and query head, by task.

        What turns values into lanes and back is folded into the projections around it.
        """
        share = group if self.grouped else 1
        macs = {
            "rotate query": head_size**2,
            "rotate key": head_size**2 // share,
            "threshold": 3 * head_size if self.predict else head_size,
            "sinks": 2 * self.sinks * head_size,
            "scale and divide": self.shots * self.lanes(head_size),
        }
        if self.joint:
            macs["choose key codes"] = 3 * head_size**2 // share
        return macs

    def host_bytes(self, head_size: int, group: int = 1) -> int:
        """Bytes between host and head per token and query head: packets of the default format."""
        share = group if self.grouped else 1
        write = 8 + self.rows(head_size) + self.lanes(head_size)
        query = self.shots * (8 + self.rows(head_size))
        results = self.shots * (8 + 2 * self.lanes(head_size))
        return write // share + query + results

    @property
    def config_hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the fields."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]
