"""A mapped layer on devices: the driver's packets and registers instead of tensors.

One device per key-value head. Its query heads take turns: their levels are set, then their shots
are played and accumulated on the device, shifted by the ratio of their weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from analog_models import AnalogParams
from hw.params import HeadParams
from sim.driver import Backend, Driver, FunctionalBackend, Shot
from sim.llm.mapping import LayerMap

__all__ = ["Connect", "DeviceAttention", "connect_functional"]

#: Makes a device: head parameters and the analog fields that they do not give.
Connect = Callable[[HeadParams, dict[str, Any]], Backend]


def connect_functional(params: HeadParams, analog: dict[str, Any]) -> Backend:
    """Make a device of the functional model."""
    return FunctionalBackend(params, AnalogParams.matching(params, **analog))


class DeviceAttention:
    """Attention of one layer, through devices; one sequence at a time.

    Parameters
    ----------
    layer
        The map; key-value heads must be those of the model (``grouped``).
    connect
        Makes a device.
    tokens
        Most tokens of a sequence: what the devices' windows hold.
    timeout_s
        Time after which an answer is given up.

    Raises
    ------
    ValueError
        ``tokens`` is more than the window of the map.
    """

    def __init__(
        self, layer: LayerMap, connect: Connect, *, tokens: int, timeout_s: float = 60.0
    ) -> None:
        recipe = layer.recipe
        if not 1 <= tokens <= recipe.window:
            raise ValueError(f"tokens must be in 1..{recipe.window}, the window, not {tokens!r}")
        self.layer = layer
        self.integers = 0  #: sums received so far
        self.params = HeadParams(
            subtiles=-(-tokens // recipe.columns),
            columns=recipe.columns,
            rows=recipe.rows(layer.head_size),
            lanes=recipe.lanes(layer.head_size),
            q_bits=recipe.q_bits,
            kv_bits=recipe.kv_bits,
            count_bits=recipe.count_bits,
            schedule="streaming",
            shots=True,
        )
        analog = {"decay_per_token": recipe.arrays.decay_per_token}
        self._written = 0
        self._drivers: list[Driver] = []
        try:
            for _ in range(len(layer.key_mean)):
                device = connect(self.params, analog)
                self._drivers.append(Driver(device, self.params, timeout_s=timeout_s))
        except BaseException:
            self.close()
            raise
        unit = layer.a_sat_ua * layer.shot_weight / recipe.arrays.count_max
        least = unit.min(1, keepdim=True).values
        self._shift = torch.round(torch.log2(unit / least)).long()
        self._unit = least[:, 0]

    def close(self) -> None:
        """Close the devices."""
        for driver in self._drivers:
            driver.close()
        self._drivers = []

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the newest tokens, one after the other; the first tokens start anew."""
        layer, (newest, tokens) = self.layer, (q.shape[-2], k.shape[-2])
        if q.shape[0] != 1:
            raise ValueError(f"batch must be 1, one sequence at a time, not {q.shape[0]!r}")
        if tokens == newest:
            self._written = 0
            for driver in self._drivers:
                driver.flush()
        sinks = layer.recipe.sinks
        threshold = layer.threshold(q, k)
        passes, bias_codes = layer.shots(threshold)
        rows = layer.full_rows(q)
        # What is written already is not encoded again.
        first = sinks + self._written
        k_codes = layer.key_codes(k[..., first:, :])[0]
        v_codes = layer.value_codes(v[..., first:, :])[0]
        total = torch.zeros(1, layer.heads, newest, v_codes.shape[-1])
        for n, token in enumerate(range(tokens - newest, tokens)):
            if token < sinks:
                continue
            for g, driver in enumerate(self._drivers):
                column = torch.cat([k_codes[g, token - first], bias_codes])
                driver.write(column.numpy(), v_codes[g, token - first].numpy())
            self._written += 1
            for h in range(layer.heads):
                pulses = [torch.cat([rows[0, h, n], shot.bias[0, h, n]]) for shot in passes]
                total[0, h, n] = self._query(h, torch.stack(pulses)) * self._unit[h]
        return layer.decode(total, threshold, q, k, v)

    def _query(self, head: int, pulses: Tensor) -> Tensor:
        layer = self.layer
        driver = self._drivers[head * len(self._drivers) // layer.heads]
        spare = 4 - layer.recipe.shots
        driver.configure(
            s_levels=[*layer.s_sat_ua[head].int().tolist(), *[80] * spare],
            a_levels=[*layer.a_sat_ua[head].int().tolist(), *[40] * spare],
        )
        shots = [
            Shot(s_gain=n, a_gain=n, shift=int(shift)) for n, shift in enumerate(self._shift[head])
        ]
        sums = driver.query(pulses.long().numpy()[:, None], shots=shots)[0]
        self.integers += sums.size
        return torch.from_numpy(sums).float()
