"""The register bank from the bus's side: two AXI4-Lite drivers, and a model of what they see.

The driver of cocotbext-axi was written by others; tests use it. Ours sleeps while nothing happens
and is for long runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import cocotb
from cocotb.triggers import Lock, RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster

from cocotb_tests.streams import pauses
from hw.params import HeadParams
from hw.registers import Access, Register, RegisterMap

__all__ = ["OKAY", "SLVERR", "EventBus", "LibraryBus", "Reading", "RegisterHost", "RegisterModel"]

OKAY, SLVERR = 0b00, 0b10
PREFIX = "s_axil"
ALL_BYTES = 0b1111


class Reading(NamedTuple):
    """What a read gives."""

    response: int
    word: int


class Bus(Protocol):
    """Carries accesses out, one write and one read at a time."""

    async def write(self, address: int, word: int, strobe: int) -> int:
        """Write; return the response."""

    async def read(self, address: int) -> Reading:
        """Read."""


class LibraryBus:
    """AXI4-Lite master of cocotbext-axi."""

    def __init__(self, dut: Any) -> None:
        self._driver = AxiLiteMaster(AxiLiteBus.from_prefix(dut, PREFIX), dut.clk, dut.rst)
        for part in (self._driver.write_if, self._driver.read_if):
            part.log.setLevel("WARNING")

    def stall(self, seed: int, probability: float) -> None:
        """Stall each channel by itself in that share of clocks, so that none waits for another."""
        write, read = self._driver.write_if, self._driver.read_if
        channels = (write.aw_channel, write.w_channel, write.b_channel)
        for at, channel in enumerate((*channels, read.ar_channel, read.r_channel)):
            channel.set_pause_generator(pauses(seed + at, probability))

    async def write(self, address: int, word: int, strobe: int) -> int:
        """Write; strobed bytes must be next to each other."""
        lanes = [byte for byte in range(4) if strobe >> byte & 1]
        assert lanes == list(range(lanes[0], lanes[-1] + 1)), "one run of bytes"
        data = word.to_bytes(4, "little")[lanes[0] : lanes[-1] + 1]
        response = await self._driver.write(address + lanes[0], data)
        return int(response.resp)

    async def read(self, address: int) -> Reading:
        """Read."""
        response = await self._driver.read(address, 4)
        return Reading(int(response.resp), int.from_bytes(response.data, "little"))


class EventBus:
    """AXI4-Lite master that sleeps while it waits."""

    def __init__(self, dut: Any) -> None:
        self._edge = RisingEdge(dut.clk)
        signals = ("awaddr", "awprot", "awvalid", "awready", "wdata", "wstrb", "wvalid")
        signals += ("bresp", "bvalid", "bready", "araddr", "arprot", "arvalid", "arready")
        signals += ("rdata", "rresp", "rvalid", "rready")
        self._of = {name: getattr(dut, f"{PREFIX}_{name}") for name in signals}
        self._write_lock, self._read_lock = Lock(), Lock()
        self.clear()

    def clear(self) -> None:
        """Withdraw everything; called in reset, when no access is under way."""
        for name in ("awaddr", "awprot", "awvalid", "wdata", "wstrb", "wvalid"):
            self._of[name].value = 0
        for name in ("araddr", "arprot", "arvalid", "bready", "rready"):
            self._of[name].value = 0

    async def _until(self, name: str) -> None:
        """Wait for the clock edge at which a line is high."""
        line = self._of[name]
        await self._edge
        while not int(line.value):
            await RisingEdge(line)
            await self._edge

    async def write(self, address: int, word: int, strobe: int) -> int:
        """Write; the bank takes address and data together."""
        of = self._of
        async with self._write_lock:
            of["awaddr"].value, of["wdata"].value, of["wstrb"].value = address, word, strobe
            of["awvalid"].value = of["wvalid"].value = of["bready"].value = 1
            await self._until("awready")
            of["awvalid"].value = of["wvalid"].value = 0
            await self._until("bvalid")
            of["bready"].value = 0
            return int(of["bresp"].value)

    async def read(self, address: int) -> Reading:
        """Read."""
        of = self._of
        async with self._read_lock:
            of["araddr"].value = address
            of["arvalid"].value = of["rready"].value = 1
            await self._until("arready")
            of["arvalid"].value = 0
            await self._until("rvalid")
            of["rready"].value = 0
            return Reading(int(of["rresp"].value), int(of["rdata"].value))


@dataclass(frozen=True)
class Done:
    """What a write did."""

    register: Register
    entry: int
    values: dict[str, int]  #: of its fields: what it holds now, or of commands what was asked for


class RegisterModel:
    """What software can know of the registers: those it writes, and which accesses are refused.

    Parameters
    ----------
    params
        Head parameters.

    """

    def __init__(self, params: HeadParams) -> None:
        self.map = RegisterMap(params)
        self.reset()

    def reset(self) -> None:
        """Hard reset."""
        self.words = {register.name: register.reset for register in self.map}
        self.arrays: dict[tuple[str, int], int] = {}

    def soft_reset(self) -> None:
        """Settings return to their values after reset; what is not a setting stays."""
        for register in self.map:
            if register.waits:
                self.words[register.name] = register.reset

    @property
    def enabled(self) -> bool:
        """Packets are taken."""
        return bool(self.map["control"]["enable"].get(self.words["control"]))

    def write(self, address: int, word: int, strobe: int) -> Done | None:
        """Carry a write out; None if it is refused."""
        found = self.map.at(address)
        if found is None:
            return None
        register, entry = found
        name = register.name
        now = self.words[name]
        if register.refusal(now, word, strobe) is not None:
            return None
        lanes = sum(0xFF << 8 * byte for byte in range(4) if strobe >> byte & 1)
        asked = register.values(word & lanes)
        if name == "command":
            asks = asked.get("test_start", 0)
            if asks and (asked["soft_reset"] or self.enabled):
                return None
            return Done(register, entry, asked)
        if name == "sticky":
            return Done(register, entry, asked)
        if name == "test_q":
            return None if self.enabled else Done(register, entry, asked)
        if register.count is not None:
            self.arrays[name, entry] = word
            return Done(register, entry, asked)
        self.words[name] = (now & ~lanes) | (word & lanes)
        return Done(register, entry, register.values(self.words[name]))

    def expected(self, address: int) -> Reading | None:
        """What a read must give; None if only the hardware knows."""
        found = self.map.at(address)
        if found is None:
            return Reading(SLVERR, 0)
        register, _ = found
        kinds = {field.access for field in register.fields}
        if kinds & {Access.STATUS, Access.STICKY}:
            return None
        if not any(access.readable for access in kinds):
            return Reading(OKAY, 0)
        if register.count is not None:
            return None  # of the head that is selected
        return Reading(OKAY, self.words[register.name])


class RegisterHost:
    """Registers by name; every response, and every word that software can know, is checked.

    Parameters
    ----------
    dut
        The simulated head or layer.
    params
        Its parameters.
    bus
        Driver of the bus.
    on_done
        Called with a write in the clock in which it has taken effect.

    """

    def __init__(
        self, dut: Any, params: HeadParams, bus: Bus, on_done: Callable[[Done], None]
    ) -> None:
        self._dut, self._bus, self._on_done = dut, bus, on_done
        self.model = RegisterModel(params)
        self.map = self.model.map
        self._responses: list[int] = []
        self._head = (0, 0)  # selected by what was written last
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        """Note a write when it is accepted: it took effect with the clock edge before."""
        dut = self._dut
        edge = RisingEdge(dut.s_axil_awready)
        while True:
            await edge
            done = self.model.write(
                int(dut.s_axil_awaddr.value),
                int(dut.s_axil_wdata.value),
                int(dut.s_axil_wstrb.value),
            )
            self._responses.append(SLVERR if done is None else OKAY)
            if done is not None:
                self._on_done(done)

    async def write_word(self, address: int, word: int, strobe: int = ALL_BYTES) -> int:
        """Write any word to any address; return the response, which is checked."""
        response = await self._bus.write(address, word, strobe)
        expected = self._responses.pop(0)
        assert response == expected, (
            f"write of {word:#x}, bytes {strobe:#x}, to {address:#x} answered {response}, "
            f"expected {expected}"
        )
        return response

    async def read_word(self, address: int) -> Reading:
        """Read any address; response and word are checked as far as software can know them."""
        before = self.model.expected(address)
        reading = await self._bus.read(address)
        after = self.model.expected(address)
        if before == after and after is not None:  # nothing was written meanwhile
            assert reading == after, f"read of {address:#x} gave {reading}, expected {after}"
        found = self.map.at(address)
        if found is not None:
            owned = sum(field.mask for field in found[0].fields)
            assert not reading.word & ~owned, (
                f"{found[0].name} has no bits {reading.word & ~owned:#x}"
            )
        return reading

    async def write(self, name: str, entry: int = 0, **values: int) -> None:
        """Write fields of a register, the others as they are; must not be refused."""
        register = self.map[name]
        base = None
        if register.count is None and any(field.access.readable for field in register.fields):
            base = 0 if name == "sticky" else self.model.words[name]
        word = register.word(values, base) if values else 0
        response = await self.write_word(register.offset + 4 * entry, word)
        assert response == OKAY, f"write to {name} was refused"

    async def read(self, name: str, entry: int = 0) -> dict[str, int]:
        """Fields of a register, by name."""
        register = self.map[name]
        response, word = await self.read_word(register.offset + 4 * entry)
        assert response == OKAY, f"read of {name} was refused"
        return register.values(word)
