"""From a device preset to the parameters of a head."""

from __future__ import annotations

from typing import Any

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
    **shape: Any,
) -> AnalogParams:
    """Parameters of a head made of a device: its cell, voltages, converters, mismatch and noise.

    What the preset does not know is ideal. Leakage stays off unless ``tau_s`` is given, which also
    needs to know how long tokens take.

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
    shape
        Other fields of `AnalogParams`.

    Raises
    ------
    TypeError, ValueError
        A field is not of its kind or out of its range.
    """
    mismatch, nothing = device.mismatch, ConverterFigures(saturation_ua=1.0)
    score, output = device.score_converter or nothing, device.output_converter or nothing
    if score is not nothing:
        shape.setdefault("s_sat_ua", score.saturation_ua)
    if output is not nothing:
        shape.setdefault("a_sat_ua", output.saturation_ua)
    dac = device.dac()
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
        current_tc_per_k=device.cell.tc_per_k or 0.0,
        seed=seed,
        noise_seed=seed,
    )
    fields: dict[str, Any] = {
        "cell": device.cell_model(),
        "v_min_v": dac.v_min_v,
        "v_max_v": dac.v_max_v,
        "v_rest_v": min(max(rest_v, dac.v_min_v), dac.v_max_v),
        "clk_ns": device.lsb_ns,
        "kv_bits": dac.bits,
        "score_offset_sigma_clk": spread * (score.offset_sigma_counts or 0.0),
        "output_offset_sigma_counts": spread * (output.offset_sigma_counts or 0.0),
        "offset_seed": seed,
        "faults": faults,
    }
    return AnalogParams(**(fields | shape))
