"""The only contact between the simulated design and the analog model."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from cocotb.triggers import FallingEdge
from numpy.typing import NDArray

from analog_models.head import SteppedHead, unpack_bits
from hw.params import HeadParams

__all__ = ["ArrayBridge", "unpack_codes"]


def unpack_codes(packed: int, count: int, bits: int) -> NDArray[np.uint8]:
    """Codes of a packed vector, least significant first; shape (count,)."""
    weights = (1 << np.arange(bits)).astype(np.uint8)
    return (unpack_bits(packed, count * bits).reshape(count, bits) @ weights).astype(np.uint8)


class ArrayBridge:
    """Steps the analog model with the head's control lines, once per clock.

    The head's outputs are flip-flops or settle from them, so they are read at the falling edge;
    what the model answers is there well before the rising edge that samples it.

    Parameters
    ----------
    dut
        The simulated head.
    params
        Its parameters.
    array
        The model behind its analog boundary.

    """

    def __init__(self, dut: Any, params: HeadParams, array: SteppedHead) -> None:
        self._params, self._array = params, array
        self._clk, self._rst = dut.clk, dut.rst
        self._k_write, self._v_write = dut.ana_k_write, dut.ana_v_write
        self._subtile, self._column = dut.ana_subtile_select, dut.ana_column_select
        self._k_code, self._v_code = dut.ana_k_code, dut.ana_v_code
        self._q_pulse, self._mask = dut.ana_q_pulse, dut.ana_column_mask
        self._scores_reset, self._integrate = dut.ana_scores_reset, dut.ana_integrate
        self._outputs_reset, self._convert = dut.ana_outputs_reset, dut.ana_convert
        self._readout = dut.ana_readout
        self._scores_bank = self._convert_bank = self._readout_bank = None
        if params.streaming:
            self._scores_bank, self._convert_bank = dut.ana_scores_bank, dut.ana_convert_bank
            self._readout_bank = dut.ana_readout_bank
        self._signs_bank = 0
        self._pulse, self._sign = dut.ana_out_pulse, dut.ana_out_sign
        self._writing: dict[str, tuple[int, int, int, NDArray[np.uint8]] | None] = {}
        self._converting = self._reading = False
        self.model_s = 0.0  #: seconds spent in the model
        self.bridge_s = 0.0  #: seconds spent in the bridge, the model's not included
        self.queries = 0  #: conversions begun
        self.keep_phi = range(0)  #: queries whose phi is kept
        self.phi: list[NDArray[np.float64]] = []  #: phi of each of them, 0..1, (window,)
        self.clocks = 0  #: clocks seen

    def _call(self, method: Any, *args: Any) -> Any:
        start = time.perf_counter()
        result = method(*args)
        self.model_s += time.perf_counter() - start
        return result

    def _write(self, name: str, strobe: Any, code: Any, count: int, write: Any) -> None:
        """Hold or end a write of one array; decode its address and codes when they change."""
        held = self._writing.get(name)
        if int(strobe.value):
            raw = (int(self._subtile.value), int(self._column.value), int(code.value))
            if held is None or held[:3] != raw:
                held = (*raw, unpack_codes(raw[2], count, self._params.kv_bits))
                self._writing[name] = held
            for select in raw[:2]:
                if select.bit_count() != 1:
                    raise AssertionError(f"{name}: select lines must be one-hot, not {select:#x}")
            address = (raw[0].bit_length() - 1, raw[1].bit_length() - 1)
            self._call(write, *address, held[3])
        elif held is not None:
            self._writing[name] = None
            self._call(self._array.end_write, name)

    @staticmethod
    def _bank(line: Any) -> int:
        """Integrators that a bank line selects; the simple schedule has one set only."""
        return 0 if line is None else int(line.value)

    def step(self) -> None:
        """Pass one clock's control lines to the model and its pulses back."""
        p, array = self._params, self._array
        if int(self._rst.value):
            # A write cut off by reset leaves a column that the empty window masks.
            self._writing.clear()
            self._call(array.reset)
        else:
            self._write("key", self._k_write, self._k_code, p.rows, array.write_key)
            self._write("value", self._v_write, self._v_code, p.lanes, array.write_value)
        if int(self._scores_reset.value):
            self._call(array.reset_scores, self._bank(self._scores_bank))
        if int(self._integrate.value):
            pulses = unpack_bits(int(self._q_pulse.value), p.rows)
            self._call(array.integrate_scores, pulses, self._bank(self._scores_bank))
        if int(self._outputs_reset.value):
            self._call(array.reset_outputs, self._bank(self._convert_bank))
        if int(self._convert.value):
            bank = self._bank(self._convert_bank)
            mask = unpack_bits(int(self._mask.value), p.window)
            if not self._converting:
                self._converting = True
                if self.queries in self.keep_phi:
                    self.phi.append(np.where(mask, array.phi_clk(bank), 0.0) / p.convert_clk)
                self.queries += 1
            self._call(array.convert_scores, mask, bank)
            self._signs_bank = bank
        elif self._converting:
            # The converters decide their signs as soon as the charge is complete.
            self._converting = False
            self._sign.value = self._call(array.output_signs_packed, self._signs_bank)
        if int(self._readout.value):
            bank = self._bank(self._readout_bank)
            self._pulse.value, self._sign.value = self._call(array.read_outputs_packed, bank)
            self._reading = True
        elif self._reading:
            self._reading = False
            self._pulse.value = 0

    async def run(self) -> None:
        """Step at every falling edge, for ever."""
        self._pulse.value = 0
        self._sign.value = 0
        edge = FallingEdge(self._clk)
        while True:
            await edge
            start, model = time.perf_counter(), self.model_s
            self.step()
            self.clocks += 1
            self.bridge_s += time.perf_counter() - start - (self.model_s - model)
