"""From a device preset to the parameters of a head."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from analog_models.device import ConverterFigures, DevicePreset
from analog_models.faults import ROOM_C, Faults
from analog_models.params import AnalogParams

__all__ = ["head_of_device"]


def head_of_device(
    device: DevicePreset,
    *,
    spread: float = 1.0,
    seed: int = 0,
    temperature_c: float = ROOM_C,
    systematic: bool = True,
    token_s: float | None = None,
    **shape: Any,
) -> AnalogParams:
    """Parameters of a head made of a device: its cell, voltages, converters, mismatch and noise.

    What the preset does not know is ideal.

    Parameters
    ----------
    device
        The preset.
    spread
        Multiplies every spread and the read noise; 0 is an ideal device.
    seed
        Picks the device and its noise.
    temperature_c
        Of the device.
    systematic
        Whether levels are what a write leaves and converters follow their simulated transfer; if
        not, both are what they are meant to be.
    token_s
        Time from one token to the next, where charge is to fade: by the preset's table if it has
        one, by its time constant if not. Age then counts ticks of a sixteenth of it, unless
        ``tick_clk`` says otherwise. None is no leakage.
    shape
        Other fields of `AnalogParams`.

    Raises
    ------
    TypeError, ValueError
        A field is not of its kind or out of its range, or the device does not say how it leaks.
    """
    mismatch, nothing = device.mismatch, ConverterFigures(saturation_ua=1.0)
    score, output = device.score_converter or nothing, device.output_converter or nothing
    if score is not nothing:
        shape.setdefault("s_sat_ua", score.saturation_ua)
    if output is not nothing:
        shape.setdefault("a_sat_ua", output.saturation_ua)
    bits = shape.get("kv_bits", device.dac().bits)
    dac = dataclasses.replace(device.dac(), bits=bits)
    leak = next(iter(device.leakage), None)
    rest_v = device.cell.v_mid_v if leak is None else leak.v_rest_v
    faults = Faults(
        cell_gain_sigma=spread * (mismatch.gain_sigma if mismatch else 0.0),
        cell_offset_sigma_ua=spread * (mismatch.offset_sigma_ua if mismatch else 0.0),
        score_gain_sigma=spread * (score.gain_sigma or 0.0),
        output_gain_sigma=spread * (output.gain_sigma or 0.0),
        read_noise_ua=spread * (device.read_noise_ua or 0.0),
        score_jitter_sigma_clk=spread * (score.jitter_sigma_ns or 0.0) / device.lsb_ns,
        output_jitter_sigma_clk=spread * (output.jitter_sigma_ns or 0.0) / device.lsb_ns,
        temperature_c=temperature_c,
        seed=seed,
        noise_seed=seed,
    )
    fields: dict[str, Any] = {
        "cell": device.cell_model(temperature_c=temperature_c),
        "v_min_v": dac.v_min_v,
        "v_max_v": dac.v_max_v,
        "v_rest_v": min(max(rest_v, dac.v_min_v), dac.v_max_v),
        "clk_ns": device.lsb_ns,
        "kv_bits": bits,
        "score_offset_sigma_clk": spread * (score.offset_sigma_counts or 0.0),
        "output_offset_sigma_counts": spread * (output.offset_sigma_counts or 0.0),
        "offset_seed": seed,
        "faults": faults,
    }
    if systematic:
        fields["score_transfer"] = score.transfer(device.lsb_ns)
        fields["output_transfer"] = output.transfer(device.lsb_ns)
        if device.written_v is not None:
            written = np.interp(dac.levels_v, device.levels_v, device.written_v)
            fields["written_v"] = tuple(written.tolist())
    if token_s is not None:
        fields |= _leakage(device, temperature_c, token_s)
    return AnalogParams(**(fields | shape))


def _leakage(device: DevicePreset, temperature_c: float, token_s: float) -> dict[str, Any]:
    """Fields of leakage, with steps of age short against a token."""
    leak = device.leakage_at(temperature_c)
    if leak is None:
        raise ValueError(f"device must have leakage for token_s, not {device.name!r}")
    tick_clk = max(round(token_s / 16 * 1e9 / device.lsb_ns), 1)
    law = {"tau_s": leak.tau_s} if leak.droop is None else {"droop": leak.droop}
    return law | {"tick_clk": tick_clk}
