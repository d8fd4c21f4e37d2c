"""Code store: a digital copy of the codes in both arrays, from which columns are rewritten."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from hw.params import HeadParams

__all__ = ["CodeStore"]


class CodeStore(Component):
    """Keys and values of one head's window as codes, in a memory each.

    What is written to an array is written here too, and read again when the column is refreshed.
    A column's address is its sub-tile and its column side by side, so a column count that is no
    power of two leaves words unused.

    Parameters
    ----------
    params
        Head parameters.

    Members
    -------
    subtile, column : in
        Column that is written: the window's pointer.
    k_write, v_write : In(1)
        Keep ``k_codes`` or ``v_codes``. May last for as long as the write of the array.
    k_codes, v_codes : in
        Codes, row 0 or lane 0 lowest.
    read_subtile, read_column : in
        Column that is read: the refresh pointer.
    k_read, v_read : In(1)
        Read the codes of the column.
    k_out, v_out : out
        Codes read last.

    Timing
    ------
    Codes follow a read after `latency_clk` clocks and stay until the next one, for as long as the
    column's write lasts. A column must not be read in the clock of a write to it.

    """

    latency_clk = 1

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        k_bits, v_bits = params.rows * params.kv_bits, params.lanes * params.kv_bits
        super().__init__(
            {
                "subtile": In(params.subtile_bits),
                "column": In(params.column_bits),
                "k_write": In(1),
                "v_write": In(1),
                "k_codes": In(k_bits),
                "v_codes": In(v_bits),
                "read_subtile": In(params.subtile_bits),
                "read_column": In(params.column_bits),
                "k_read": In(1),
                "v_read": In(1),
                "k_out": Out(k_bits),
                "v_out": Out(v_bits),
            }
        )

    @property
    def depth(self) -> int:
        """Words of each memory."""
        return self.params.subtiles << self.params.column_bits

    def elaborate(self, platform: object) -> Module:
        """Build the store."""
        m = Module()
        write_address = self._address(self.subtile, self.column)
        read_address = self._address(self.read_subtile, self.read_column)
        for name, codes, write, read, out in (
            ("keys", self.k_codes, self.k_write, self.k_read, self.k_out),
            ("values", self.v_codes, self.v_write, self.v_read, self.v_out),
        ):
            memory = Memory(shape=len(codes), depth=self.depth, init=())
            m.submodules[name] = memory
            write_port = memory.write_port()
            read_port = memory.read_port()
            m.d.comb += [
                write_port.addr.eq(write_address),
                write_port.data.eq(codes),
                write_port.en.eq(write),
                read_port.addr.eq(read_address),
                read_port.en.eq(read),
                out.eq(read_port.data),
            ]
        return m

    def _address(self, subtile: Value, column: Value) -> Value:
        return Cat(column, subtile) if self.params.subtiles > 1 else Cat(column)
