"""Figures printed elsewhere: the published system, graphics processors, and what they must do.

The system is that of N. Leroux et al., "Analog in-memory computing attention mechanism for fast and
energy-efficient large language models", Nature Computational Science 5, 813-824 (2025), arXiv
2409.19315. Some of its figures were read in a digest of the paper; they are marked.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GPUS", "PAPER", "Gpu", "Paper", "least_bytes", "macs_per_token", "operations_per_token"]


@dataclass(frozen=True, kw_only=True)
class Paper:
    """One attention head of the published system: window 1024, head size 64, 28 nm."""

    window: int = 1024  #: tokens
    head_size: int = 64
    latency_ns: float = 65.0  #: one head, one token; how it divides is not published
    qk_pj: float = 1120.0  #: energy of Q.K, per token and head
    phi_v_pj: float = 700.0  #: of phi.V
    digital_pj: float = 4000.0  #: of digital control and routing
    dac_pj: float = 330.0  #: of the DACs that write K and V
    digital_mw: float = 113.7  #: power of the digital part (digest)
    area_mm2: float = 0.5  #: one head, digital part included (digest)
    crossbars_mm2: float = 15.7e-3  #: two crossbars (digest)
    cell_um2: float = 1.0  #: a gain cell, about (digest)
    subtiles: int = 16  #: of 64 tokens
    heads: int = 12  #: of GPT-2 124M, per layer

    @property
    def analog_pj(self) -> float:
        """Both products and the DACs, per token and head."""
        return self.qk_pj + self.phi_v_pj + self.dac_pj

    @property
    def energy_pj(self) -> float:
        """All, per token and head."""
        return self.analog_pj + self.digital_pj

    @property
    def digital_ns(self) -> float:
        """Time that the digital part is charged for: its energy over its power."""
        return self.digital_pj / self.digital_mw

    @property
    def cells_mm2(self) -> float:
        """All gain cells of both arrays of a head, at the printed area of one."""
        return 2 * self.window * self.head_size * self.cell_um2 * 1e-6


PAPER = Paper()


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A graphics processor: what was measured on it, and its public specification.

    Measured is attention of 12 heads, window 1024, batch 64, per token, by the paper. Of one the
    paper prints a ratio to its own system only.
    """

    name: str
    token_us: float | None = None  #: measured
    token_uj: float | None = None  #: measured
    times_latency: float  #: printed ratio to the published system
    times_energy: float  #: printed ratio to the published system
    bandwidth_gb_s: float  #: of its memory
    power_w: float  #: of the board at most
    memory_pj_per_bit: float | None = None  #: of a read of its memory
    source: str


GPUS = (
    Gpu(
        name="NVIDIA RTX 4090",
        token_us=22.4,
        token_uj=7180.0,
        times_latency=300.0,
        times_energy=90000.0,
        bandwidth_gb_s=1008.0,
        power_w=450.0,
        memory_pj_per_bit=7.25,
        source="NVIDIA Ada architecture white paper; GDDR6X: Micron, Ultra-bandwidth solutions",
    ),
    Gpu(
        name="NVIDIA H100 SXM",
        times_latency=100.0,
        times_energy=70000.0,
        bandwidth_gb_s=3350.0,
        power_w=700.0,
        memory_pj_per_bit=3.92,
        source="NVIDIA H100 data sheet; memory as HBM2: M. O'Connor et al., MICRO-50 (2017)",
    ),
    Gpu(
        name="NVIDIA Jetson Nano",
        token_us=489.0,
        token_uj=3250.0,
        times_latency=7000.0,
        times_energy=40000.0,
        bandwidth_gb_s=25.6,
        power_w=10.0,
        source="NVIDIA Jetson Nano data sheet; no figure of its memory's energy is used",
    ),
)


def macs_per_token(window: int, rows: int, lanes: int) -> int:
    """Multiply-accumulates of both products, one head, one token, full window."""
    return window * (rows + lanes)


def operations_per_token(window: int, rows: int, lanes: int) -> int:
    """Operations, of which a multiply-accumulate is two."""
    return 2 * macs_per_token(window, rows, lanes)


def least_bytes(window: int, head_size: int, heads: int, bytes_per_value: int = 2) -> int:
    """Bytes of K and V that one token's attention must read.

    Each sequence has keys and values of its own, so that a batch saves none of it; a value is two
    bytes (fp16). Only the window of one sequence or few, that stays in a cache, escapes.
    """
    return 2 * window * head_size * heads * bytes_per_value
