"""The only contact between the simulated design and the analog model."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cocotb.triggers import FallingEdge
from numpy.typing import NDArray

from analog_models.head import SteppedHead, unpack_bits
from cocotb_tests.lines import reader, watcher
from hw.params import HeadParams
from hw.registers import LEVEL_BITS

__all__ = ["ArrayBridge", "Conversion", "unpack_codes"]


def unpack_codes(packed: int, count: int, bits: int) -> NDArray[np.uint8]:
    """Codes of a packed vector, least significant first; shape (count,)."""
    weights = (1 << np.arange(bits)).astype(np.uint8)
    return (unpack_bits(packed, count * bits).reshape(count, bits) @ weights).astype(np.uint8)


@dataclass(frozen=True)
class Conversion:
    """What a query met in the arrays."""

    mask: NDArray[np.bool_]  #: columns that took part, (window,)
    scores_clk: int  #: clock in which array 1's integrators were reset
    outputs_clk: int  #: clock in which array 2's were


@dataclass
class _Write:
    """A write in progress."""

    raw: tuple[int, int, int]  #: select lines and codes, as they are on the wires
    codes: list[NDArray[np.uint8]]  #: of each head
    clocks: int = 0


def _first() -> int:
    return 0


class ArrayBridge:
    """Steps the analog models with the control lines, once per clock.

    The design's outputs are flip-flops or settle from them, so they are read at the falling edge;
    what the models answer is there well before the rising edge that samples it.

    Parameters
    ----------
    dut
        The simulated head or layer.
    params
        Its parameters.
    arrays
        The model behind each head's analog boundary.

    """

    def __init__(self, dut: Any, params: HeadParams, arrays: Sequence[SteppedHead]) -> None:
        self._params, self._arrays = params, tuple(arrays)
        self._clk = dut.clk
        self._rst, self._convert = watcher(dut.rst), watcher(dut.ana_convert)
        self._k_write, self._v_write = watcher(dut.ana_k_write), watcher(dut.ana_v_write)
        self._subtile, self._column = reader(dut.ana_subtile_select), reader(dut.ana_column_select)
        self._k_code, self._v_code = reader(dut.ana_k_code), reader(dut.ana_v_code)
        self._q_pulse, self._mask = reader(dut.ana_q_pulse), reader(dut.ana_column_mask)
        self._scores_reset, self._integrate = (
            watcher(dut.ana_scores_reset),
            watcher(dut.ana_integrate),
        )
        self._outputs_reset, self._readout = (
            watcher(dut.ana_outputs_reset),
            watcher(dut.ana_readout),
        )
        self._select = reader(dut.ana_readout_select)
        self._s_level, self._a_level = reader(dut.ana_s_level), reader(dut.ana_a_level)
        # The simple schedule has one set of integrators only.
        self._scores_bank = self._convert_bank = self._readout_bank = _first
        if params.streaming:
            self._scores_bank, self._convert_bank, self._readout_bank = (
                reader(dut.ana_scores_bank),
                reader(dut.ana_convert_bank),
                reader(dut.ana_readout_bank),
            )
        self._signs_bank = 0
        self._pulse, self._sign = dut.ana_out_pulse, dut.ana_out_sign
        self._driven = {self._pulse: 0, self._sign: 0}
        self._writing: dict[str, _Write | None] = {}
        self._converting = self._reading = False
        self._timed = self._arrays[0].params.age_clk > 0
        self._mask_raw, self._mask_bits = 0, np.zeros(params.window, np.bool_)
        self.write_clk = params.write_clk  #: clocks that each write must last
        #: Lines that say, by array, that a write rewrites a column; for models that leak in time.
        self.refresh_lines: dict[str, Any] = {}
        self.conversions: deque[Conversion] = deque()  #: not yet looked at, oldest first
        #: Columns written and not yet looked at: column, clock, and whether it was rewritten.
        self.writes: dict[str, deque[tuple[int, int, bool]]] = {"key": deque(), "value": deque()}
        self._scores_clk, self._outputs_clk = [0, 0], 0
        self.model_s = 0.0  #: seconds spent in the models
        self.bridge_s = 0.0  #: seconds spent in the bridge, the models' not included
        self.queries = 0  #: conversions begun
        self.keep_phi = range(0)  #: queries whose phi is kept
        self.phi: list[NDArray[np.float64]] = []  #: phi of each in the first head, 0..1, (window,)
        self.clocks = 0  #: clocks seen

    def _of_heads(self, packed: int, bits: int) -> list[int]:
        """Each head's part of a packed vector."""
        mask = (1 << bits) - 1
        return [packed >> bits * head & mask for head in range(len(self._arrays))]

    # --- writes -----------------------------------------------------------------------------
    def _write(
        self, name: str, strobe: Callable[[], bool], code: Callable[[], int], count: int
    ) -> None:
        """Hold or end a write of one array; decode its address and codes when they change."""
        held = self._writing.get(name)
        if not strobe():
            if held is not None:
                self._end_write(name, held)
                self._writing[name] = None
            return
        raw = (self._subtile(), self._column(), code())
        if held is None or held.raw != raw:
            if held is not None:
                self._end_write(name, held)
            for select in raw[:2]:
                if select.bit_count() != 1:
                    raise AssertionError(f"{name}: select lines must be one-hot, not {select:#x}")
            bits = self._params.kv_bits
            parts = self._of_heads(raw[2], count * bits)
            held = _Write(raw, [unpack_codes(part, count, bits) for part in parts])
            self._writing[name] = held
            column = self._params.columns * (raw[0].bit_length() - 1) + raw[1].bit_length() - 1
            if self._timed:
                rewritten = bool(int(self.refresh_lines[name].value))
                self.writes[name].append((column, self._arrays[0].now_clk, rewritten))
        held.clocks += 1
        subtile, column = raw[0].bit_length() - 1, raw[1].bit_length() - 1
        start = time.perf_counter()
        for array, codes in zip(self._arrays, held.codes, strict=True):
            write = array.write_key if name == "key" else array.write_value
            write(subtile, column, codes)
        self.model_s += time.perf_counter() - start

    def _end_write(self, name: str, held: _Write) -> None:
        for array in self._arrays:
            array.end_write(name)
        # Two writes of the same codes to the same column may follow each other at once.
        if held.clocks == 0 or held.clocks % self.write_clk:
            raise AssertionError(
                f"{name} write must last {self.write_clk} clocks, not {held.clocks}"
            )

    # --- phases -----------------------------------------------------------------------------
    def _columns(self) -> NDArray[np.bool_]:
        raw = self._mask()
        if raw != self._mask_raw:
            self._mask_raw, self._mask_bits = raw, unpack_bits(raw, self._params.window)
        return self._mask_bits

    def _convert_clock(self) -> None:
        p = self._params
        bank = self._convert_bank()
        mask = self._columns()
        levels = self._of_heads(self._s_level(), LEVEL_BITS)
        if not self._converting:
            self._converting = True
            if self.queries in self.keep_phi:
                phi = self._arrays[0].phi_clk(bank, s_level=levels[0])
                self.phi.append(np.where(mask, phi, 0.0) / p.convert_clk)
            self.queries += 1
            self.conversions.append(Conversion(mask, self._scores_clk[bank], self._outputs_clk))
        start = time.perf_counter()
        for array, level in zip(self._arrays, levels, strict=True):
            array.convert_scores(mask, bank, s_level=level)
        self.model_s += time.perf_counter() - start
        self._signs_bank = bank

    def _packed(self, parts: Sequence[int]) -> int:
        width = self._params.subtiles * self._params.lanes
        return sum(part << width * head for head, part in enumerate(parts))

    def _readout_clock(self) -> None:
        p = self._params
        bank = self._readout_bank()
        levels = self._of_heads(self._a_level(), LEVEL_BITS)
        select = self._select()
        chosen = None if select == 2**p.subtiles - 1 else unpack_bits(select, p.subtiles)
        start = time.perf_counter()
        packed = [
            array.read_outputs_packed(bank, a_level=level, select=chosen)
            for array, level in zip(self._arrays, levels, strict=True)
        ]
        self.model_s += time.perf_counter() - start
        self._answer([pulses for pulses, _ in packed], [signs for _, signs in packed])
        self._reading = True

    def _answer(self, pulses: Sequence[int] | None, signs: Sequence[int] | None = None) -> None:
        """Drive what the converters say; a write costs more than the comparison."""
        for drive, parts in ((self._pulse, pulses), (self._sign, signs)):
            if parts is not None:
                packed = self._packed(parts)
                if packed != self._driven[drive]:
                    self._driven[drive] = packed
                    drive.value = packed

    def step(self) -> None:
        """Pass one clock's control lines to the models and their pulses back."""
        p, arrays = self._params, self._arrays
        if self._rst():
            # A write cut off by reset leaves a column that the empty window masks. Lines are not
            # known in the first clock of a reset at power-up.
            self._writing.clear()
            self._converting = self._reading = False
            for array in arrays:
                array.reset()
            self._answer([0] * len(arrays))
            return
        self._write("key", self._k_write, self._k_code, p.rows)
        self._write("value", self._v_write, self._v_code, p.lanes)
        if self._scores_reset():
            # Another query's integration begins before this one's conversion does.
            bank = self._scores_bank()
            for array in arrays:
                array.reset_scores(bank)
            self._scores_clk[bank] = arrays[0].now_clk
        if self._integrate():
            bank = self._scores_bank()
            parts = self._of_heads(self._q_pulse(), p.rows)
            start = time.perf_counter()
            for array, part in zip(arrays, parts, strict=True):
                array.integrate_scores(unpack_bits(part, p.rows), bank)
            self.model_s += time.perf_counter() - start
        if self._outputs_reset():
            bank = self._convert_bank()
            for array in arrays:
                array.reset_outputs(bank)
            self._outputs_clk = arrays[0].now_clk
        if self._convert():
            self._convert_clock()
        elif self._converting:
            # The converters decide their signs as soon as the charge is complete.
            self._converting = False
            signs = [array.output_signs_packed(self._signs_bank) for array in arrays]
            self._answer(None, signs)
        if self._readout():
            self._readout_clock()
        elif self._reading:
            self._reading = False
            self._answer([0] * len(arrays))
        if self._timed:
            for array in arrays:
                array.tick()

    def forget(self) -> None:
        """Forget what has not been looked at; called while the head is in reset."""
        self.conversions.clear()
        for writes in self.writes.values():
            writes.clear()

    async def run(self) -> None:
        """Step at every falling edge, for ever."""
        for drive in self._driven:
            drive.value = 0
        edge = FallingEdge(self._clk)
        while True:
            await edge
            start, model = time.perf_counter(), self.model_s
            self.step()
            self.clocks += 1
            self.bridge_s += time.perf_counter() - start - (self.model_s - model)
