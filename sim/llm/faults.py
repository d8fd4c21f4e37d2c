"""Non-ideal arrays of a layer: mismatch that stays, noise that is fresh, offsets of converters.

The formulas and the fixed draws are those of `analog_models`: device number n here is the head
there whose seed is n. Noise comes from a stream of its own, seeded, and so repeats from run to
run. In float32; the path without faults, in `sim.llm.arrays`, is not touched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analog_models.cell import V_MID_V, PolynomialCell
from analog_models.dac import Dac
from analog_models.device import DevicePreset
from analog_models.faults import Faults
from analog_models.instance import ARRAY_STREAMS
from analog_models.of_device import head_of_device
from analog_models.offsets import charge_offsets
from analog_models.params import check_int
from analog_models.presets import resolve_cell
from analog_models.sensing import Sensing
from sim.llm.arrays import ArrayParams, Shot

__all__ = ["KINDS", "ArrayFaults"]

#: Groups of non-idealities: fields that stay when only that group is looked at.
KINDS: dict[str, tuple[str, ...]] = {
    "cell mismatch": ("cell_gain_sigma", "cell_offset_sigma_ua"),
    "converter gain": ("score_gain_sigma", "output_gain_sigma"),
    "read noise and jitter": (
        "read_noise_ua",
        "score_jitter_sigma_clk",
        "output_jitter_sigma_clk",
    ),
    "score offset": ("score_offset_ua_clk",),
    "output offset": ("output_offset_ua_clk",),
}

_DEVICES_OF_LAYER = 256  # seeds are this far apart from layer to layer
_DEVICES_OF_MODEL = 2**20
_UNSUPPORTED = ("dac_sigma_v", "line_ohm", "cell_out_us", "current_tc_per_k")


@dataclass(frozen=True, kw_only=True)
class ArrayFaults:
    """What the arrays and converters of one layer do wrong.

    Raises
    ------
    TypeError, ValueError
        A field is out of its range, or ``faults`` has what is not modelled here.
    """

    faults: Faults = dataclasses.field(default_factory=Faults)  #: of cells and converters
    score_offset_ua_clk: float = 0.0  #: spread of what each column's converter sees too much
    output_offset_ua_clk: float = 0.0  #: of what each lane's converter of a sub-tile does
    heads: int = 1  #: arrays of the layer: one set per key-value head
    layer: int = 0  #: index of the layer: picks the devices
    trimmed: bool = False  #: what output offsets add to each lane's sum is subtracted, in counts

    def __post_init__(self) -> None:
        check_int("heads", self.heads, 1, _DEVICES_OF_LAYER)
        check_int("layer", self.layer, 0, _DEVICES_OF_MODEL // _DEVICES_OF_LAYER - 1)
        for name in ("score_offset_ua_clk", "output_offset_ua_clk"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(
                    f"{name} must be finite and not negative, not {getattr(self, name)!r}"
                )
        for name in _UNSUPPORTED:
            if getattr(self.faults, name):
                raise ValueError(
                    f"faults.{name} must be 0 for language models, not "
                    f"{getattr(self.faults, name)!r}"
                )

    @classmethod
    def of_device(
        cls,
        device: DevicePreset,
        *,
        heads: int,
        layer: int = 0,
        spread: float = 1.0,
        seed: int = 0,
        kind: str | None = None,
        trimmed: bool = False,
    ) -> ArrayFaults:
        """Figures of a device preset.

        Parameters
        ----------
        device
            The preset; what it does not know is ideal.
        heads, layer
            Of the model.
        spread
            Multiplies every spread and all noise.
        seed
            Picks the devices and their noise.
        kind
            One of `KINDS`; None is all of them.
        trimmed
            Output offsets are trimmed.

        Raises
        ------
        ValueError
            There is no such kind.
        """
        if kind is not None and kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
        head = head_of_device(device, spread=spread, seed=seed)
        kept = [name for group, names in KINDS.items() if kind in (None, group) for name in names]
        offsets = {
            "score_offset_ua_clk": head.score_offset_sigma_clk * head.s_sat_ua,
            "output_offset_ua_clk": head.output_offset_sigma_counts
            * head.output_converter.charge_per_count,
        }
        names = {field.name for field in dataclasses.fields(Faults)} & set(kept)
        return cls(
            faults=Faults(
                seed=seed,
                noise_seed=seed,
                **{name: getattr(head.faults, name) for name in names},
            ),
            **{name: value for name, value in offsets.items() if name in kept},
            heads=heads,
            layer=layer,
            trimmed=trimmed,
        )

    def device_seed(self, head: int) -> int:
        """Seed of the `analog_models` head that has this head's mismatch."""
        return (
            self.faults.seed * _DEVICES_OF_MODEL + self.layer * _DEVICES_OF_LAYER + head
        ) % 2**63

    @cached_property
    def _noise(self) -> torch.Generator:
        seed = (self.faults.noise_seed * _DEVICES_OF_MODEL + self.layer) % 2**63
        return torch.Generator().manual_seed(seed)

    def _fresh(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self._noise)

    # --- fixed draws ----------------------------------------------------------------------------
    @cached_property
    def _drawn(self) -> dict[Any, tuple[Tensor | None, Tensor | None]]:
        return {}

    def _of_heads(self, sigma: float, shape: tuple[int, ...], stream: int) -> Tensor | None:
        if not sigma:
            return None
        drawn = [
            sigma * np.random.default_rng((self.device_seed(head), stream)).standard_normal(shape)
            for head in range(self.heads)
        ]
        return torch.tensor(np.stack(drawn), dtype=torch.float32)

    def cells(self, array: str, window: int, lines: int) -> tuple[Tensor | None, Tensor | None]:
        """Gain less one and offset in µA of each cell, (heads, window, lines); None is ideal."""
        stream, shape = ARRAY_STREAMS[array], (window, lines)
        if (array, shape) not in self._drawn:
            self._drawn[array, shape] = (
                self._of_heads(self.faults.cell_gain_sigma, shape, stream),
                self._of_heads(self.faults.cell_offset_sigma_ua, shape, stream + 1),
            )
        gain, offset = self._drawn[array, shape]
        return gain, offset

    def converters(self, window: int, subtiles: int, lanes: int) -> dict[str, Tensor | None]:
        """Offsets in µA·clk and gains: of columns, (heads, window); of lanes, (…, subtiles, lanes).

        None is ideal.
        """
        found: dict[str, list[NDArray[np.float64] | None]] = {
            name: [] for name in ("score_offset", "output_offset", "score_gain", "output_gain")
        }
        for head in range(self.heads):
            seed = self.device_seed(head)
            sensing = Sensing(
                dataclasses.replace(self.faults, seed=seed),
                score_offset=charge_offsets(self.score_offset_ua_clk, (window,), (seed, 0)),
                output_offset=charge_offsets(
                    self.output_offset_ua_clk, (subtiles, lanes), (seed, 1)
                ),
                window=window,
                subtiles=subtiles,
                lanes=lanes,
            )
            for name, values in found.items():
                values.append(getattr(sensing, name))
        return {
            name: None
            if values[0] is None
            else torch.tensor(np.stack([v for v in values if v is not None]), dtype=torch.float32)
            for name, values in found.items()
        }

    # --- a layer at work ------------------------------------------------------------------------
    def counts(
        self,
        params: ArrayParams,
        shots: Sequence[Shot],
        q_codes: Tensor,
        k_codes: Tensor,
        v_codes: Tensor,
        *,
        bias_codes: Tensor | None = None,
        first: int = 0,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What `sim.llm.arrays.counts` gives, on these devices.

        Empty sub-tiles are read too: their converters have offsets.

        Raises
        ------
        ValueError
            Query heads do not divide among ``heads``, or the cell is no polynomial and leaks.
        """
        query_heads, queries, lanes = q_codes.shape[-3], q_codes.shape[-2], v_codes.shape[-1]
        if query_heads % self.heads:
            raise ValueError(f"heads must divide {query_heads} query heads, not {self.heads!r}")
        fixed = torch.zeros(0, dtype=torch.long) if bias_codes is None else bias_codes
        per = query_heads // self.heads
        rows = k_codes.shape[-1] + len(fixed)
        stored = torch.cat([k_codes, fixed.expand(*k_codes.shape[:-1], -1)], dim=-1)
        key = _Array(params, stored, self.cells("key", params.window, rows), per, first, queries)
        value = _Array(
            params, v_codes, self.cells("value", params.window, lanes), per, first, queries
        )
        subtiles = -(-params.window // params.columns)
        columns = torch.arange(k_codes.shape[-2]) % params.window
        seen_by = {
            name: None if x is None else x.repeat_interleave(per, 0)
            for name, x in self.converters(params.window, subtiles, lanes).items()
        }
        age = (first + torch.arange(queries))[:, None] - torch.arange(k_codes.shape[-2])
        seen = (age >= 0) & (age < params.window)
        sums, phis = [], []
        for shot in shots:
            pulses = q_codes.float()
            bias = shot.bias
            if bias is None:
                bias = torch.zeros(*pulses.shape[:-1], len(fixed))
            pulses = torch.cat([pulses, bias.float()], dim=-1)
            charge = self._seen_by_converter(
                key.scores(pulses), pulses.sum(-1, keepdim=True), "score", seen_by, columns
            )
            phi = (charge / shot.s_sat_ua).clamp_(0.0, params.q_max)
            if jitter := self.faults.score_jitter_sigma_clk:
                phi += jitter * self._fresh(phi) * (phi > 0)
                phi.clamp_(0.0, params.q_max)
            phi *= seen
            per_count = params.q_max * shot.a_sat_ua / params.count_max
            total: Any = 0.0
            for subtile in range(subtiles):
                held = torch.nonzero(columns // params.columns == subtile)[:, 0]
                drive = phi[..., held]
                charge = self._seen_by_converter(
                    value.charges(drive, held),
                    drive.sum(-1, keepdim=True),
                    "output",
                    seen_by,
                    subtile,
                )
                length = charge / per_count
                if jitter := self.faults.output_jitter_sigma_clk:
                    longer = (length.abs() + jitter * self._fresh(length)).clamp_(min=0.0)
                    length = torch.where(length < 0, -longer, longer)
                total = total + length.round_().clamp_(-params.count_max, params.count_max)
            if self.trimmed and (offset := seen_by["output_offset"]) is not None:
                total = total - torch.round(offset.sum(-2)[:, None] / per_count)
            sums.append(total)
            phis.append(phi.sum(-1) / params.q_max)
        return sums, phis

    def _seen_by_converter(
        self,
        charge: Tensor,
        on_clk: Tensor,
        stage: str,
        seen_by: dict[str, Tensor | None],
        which: Tensor | int,
    ) -> Tensor:
        """(charge + offset + noise) * gain, as `analog_models.sensing` has it."""
        offset, gain = (seen_by[f"{stage}_{what}"] for what in ("offset", "gain"))
        if offset is not None:
            charge = charge + offset[:, which][:, None]
        if sigma_ua := self.faults.read_sigma_ua:
            charge = charge + sigma_ua * on_clk.clamp(min=0).sqrt() * self._fresh(charge)
        if gain is not None:
            charge = charge * gain[:, which][:, None]
        return charge


class _Array:
    """Currents of one array, cell by cell: powers of what leaks, and what does not.

    A current is ``I(u) (1 + gain) + offset``. The constant of the cell's polynomial and the offset
    do not leak; power i of the stored deviation u fades with i times the rate.
    """

    def __init__(
        self,
        params: ArrayParams,
        codes: Tensor,
        cells: tuple[Tensor | None, Tensor | None],
        per: int,
        first: int,
        queries: int,
    ) -> None:
        place = torch.arange(codes.shape[-2]) % params.window
        gain, offset = (None if x is None else x[:, place].repeat_interleave(per, 0) for x in cells)
        scale: Any = 1.0 if gain is None else 1.0 + gain
        self.parts: list[tuple[float, Tensor]] = []  # rate of fading, currents
        if not params.decay_per_token:
            current = params.levels_ua.float()[codes] * scale
            self.parts = [(0.0, current if offset is None else current + offset)]
        else:
            cell = resolve_cell(params.cell)
            if not isinstance(cell, PolynomialCell) or cell.v_mid_v != V_MID_V:
                raise ValueError(
                    f"cell must be a polynomial around {V_MID_V} V where charge leaks, "
                    f"not {params.cell!r}"
                )
            u = torch.tensor(Dac(bits=params.kv_bits).levels_v - V_MID_V, dtype=torch.float32)
            for power, c in enumerate(cell.coefficients):
                current = (c * u**power)[codes] * scale
                if power == 0 and offset is not None:
                    current = current + offset
                self.parts.append((power * params.decay_per_token, current))
        age = (first + torch.arange(queries))[:, None] - torch.arange(codes.shape[-2])
        self.age = age.clamp(min=0).float()

    def scores(self, pulses: Tensor) -> Tensor:
        """Charge of every column, (..., queries, tokens) in µA·clk."""
        total: Any = 0.0
        for rate, current in self.parts:
            part = pulses @ current.transpose(-1, -2)
            total = total + (part * torch.exp(-rate * self.age) if rate else part)
        return torch.as_tensor(total)

    def charges(self, drive: Tensor, held: Tensor) -> Tensor:
        """Charge of every lane of one sub-tile, whose tokens are given."""
        total: Any = 0.0
        for rate, current in self.parts:
            left = drive * torch.exp(-rate * self.age[:, held]) if rate else drive
            total = total + left @ current[..., held, :]
        return torch.as_tensor(total)
