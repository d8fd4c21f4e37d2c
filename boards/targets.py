"""Boards that a bitstream can be built for: which head, at which clock, on which pins."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib import io

from boards.board import Board
from boards.params import BoardParams, EmulatorParams
from hw.params import HeadParams
from hw.presets import PRESETS

__all__ = ["TARGETS", "BoardTop", "Target", "target"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A board, and what is put on it."""

    title: str  #: name and device
    platform: tuple[str, str]  #: module of amaranth_boards, and class in it
    reset: str  #: button that resets everything
    tools: tuple[str, ...]  #: place and route, and what packs the bitstream
    loader: tuple[str, str]  #: what loads the bitstream, and the Debian package that has it
    bitstream: str  #: ending of the file
    logic: int  #: look-up tables of the device
    flip_flops: int  #: of the device
    block_ram: int  #: of the device
    head: HeadParams  #: the head
    key_multipliers: int  #: see `EmulatorParams`
    value_multipliers: int  #: see `EmulatorParams`
    clk_hz: int  #: of the board's oscillator
    nextpnr: str = ""  #: further options
    synth: str = ""  #: further options

    def params(self, currents: tuple[int, ...], current_fraction: int) -> BoardParams:
        """What is built, with the currents of a cell's levels."""
        return BoardParams(
            emulator=EmulatorParams(
                head=self.head,
                currents=currents,
                current_fraction=current_fraction,
                key_multipliers=self.key_multipliers,
                value_multipliers=self.value_multipliers,
            ),
            clk_hz=self.clk_hz,
        )

    def create_platform(self) -> Any:
        """Platform of the board, with its reset button."""
        module, name = self.platform
        base = getattr(import_module(f"amaranth_boards.{module}"), name)
        return type(name, (base,), {"default_rst": self.reset})()


TARGETS: dict[str, Target] = {
    # The default head as it would be made, its window in a tenth of the block RAM.
    "ulx3s": Target(
        title="ULX3S, LFE5U-85F",
        platform=("ulx3s", "ULX3S_85F_Platform"),
        reset="button_fire",
        tools=("nextpnr-ecp5", "ecppack"),
        loader=("openFPGALoader", "openfpgaloader"),
        bitstream="bit",
        logic=83640,
        flip_flops=83640,
        block_ram=208,
        head=PRESETS["default"],
        key_multipliers=16,
        value_multipliers=16,
        clk_hz=25_000_000,
        nextpnr="--router router2",  # the other one takes far longer here
    ),
    # What is left of a small device beside the link: a small head without features.
    "icebreaker": Target(
        title="iCEBreaker, iCE40UP5K",
        platform=("icebreaker", "ICEBreakerPlatform"),
        reset="button",
        tools=("nextpnr-ice40", "icepack"),
        loader=("iceprog", "fpga-icestorm"),
        bitstream="bin",
        logic=5280,
        flip_flops=5280,
        block_ram=30,
        head=HeadParams(subtiles=2, columns=16, rows=8, lanes=8, bus_bits=32),
        key_multipliers=2,
        value_multipliers=2,
        clk_hz=12_000_000,
        synth="-dsp",
    ),
}


def target(name: str) -> Target:
    """Board by name.

    Raises
    ------
    ValueError
        No such board; the message lists them.
    """
    try:
        return TARGETS[name]
    except KeyError:
        raise ValueError(f"board must be one of {', '.join(TARGETS)}, not {name!r}") from None


class BoardTop(Elaboratable):
    """A `Board` on the pins of its platform: serial port 0, and as many LEDs as there are.

    The LEDs, from number 0 on: a session is open; busy; interrupt; garbage on the line; alive.
    A board with two shows busy and garbage.
    """

    def __init__(self, params: BoardParams) -> None:
        self.params = params

    def elaborate(self, platform: Any) -> Module:
        """Connect the pins."""
        m = Module()
        m.submodules.board = board = Board(self.params)
        uart = platform.request("uart", 0, dir="-")
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.d.comb += [board.rx.eq(rx.i), tx.o.eq(board.tx)]
        alive = Signal(range(self.params.clk_hz))
        m.d.sync += alive.eq(alive + 1)
        lights = [board.session, board.busy, board.event, board.garbage, alive[-1]]
        numbers = [name[1] for name in platform.resources if name[0] == "led"]
        if len(numbers) < len(lights):
            lights = [board.busy, board.garbage]
        for number, light in zip(sorted(numbers), lights, strict=False):
            led = io.Buffer("o", platform.request("led", number, dir="-"))
            m.submodules[f"led_{number}"] = led
            m.d.comb += led.o.eq(light)
        return m
