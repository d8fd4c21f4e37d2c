"""Physics of gain-cell attention in NumPy: cells, arrays, converters, heads."""

from analog_models.batched import BatchedHead, Window
from analog_models.cell import Cell, PolynomialCell, TabulatedCell
from analog_models.converter import ChargeToPulse, SignedChargeToPulse
from analog_models.dac import Dac, LevelCurrents, level_currents
from analog_models.device import DevicePreset
from analog_models.fast import FastHead
from analog_models.faults import Faults
from analog_models.functional import Attention, FunctionalHead, Result, attend
from analog_models.head import AnalogProtocolError, SteppedHead, pack_bits, unpack_bits
from analog_models.params import A_LEVEL, LEVEL_MAX, S_LEVEL, AnalogParams
from analog_models.presets import CELLS, DEVICES, LEVEL_CURRENTS_UA, resolve_cell, resolve_device
from analog_models.subtile import SubTiles

__all__ = [
    "A_LEVEL",
    "CELLS",
    "DEVICES",
    "LEVEL_CURRENTS_UA",
    "LEVEL_MAX",
    "S_LEVEL",
    "AnalogParams",
    "AnalogProtocolError",
    "Attention",
    "BatchedHead",
    "Cell",
    "ChargeToPulse",
    "Dac",
    "DevicePreset",
    "FastHead",
    "Faults",
    "FunctionalHead",
    "LevelCurrents",
    "PolynomialCell",
    "Result",
    "SignedChargeToPulse",
    "SteppedHead",
    "SubTiles",
    "TabulatedCell",
    "Window",
    "attend",
    "level_currents",
    "pack_bits",
    "resolve_cell",
    "resolve_device",
    "unpack_bits",
]
