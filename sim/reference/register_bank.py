"""Reference of the register bank: what each access does to what software can see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hw.params import HeadParams
from hw.registers import WAITING_COMMANDS, Access, Register, RegisterMap

__all__ = ["Effect", "Offer", "RegisterBankModel"]

_WHOLE = 0b1111


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What becomes of a write that is offered."""

    refused: bool  #: it will be answered with an error and change nothing
    waits: bool  #: it will be done once the head is quiet


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a write does besides changing stored fields."""

    commands: frozenset[str] = frozenset()  #: commands that are given
    cleared: frozenset[str] = frozenset()  #: sticky events that are cleared
    array: tuple[str, int, int] | None = None  #: array, index and value that is written


class RegisterBankModel:
    """Stored fields, and the rules of reading and writing.

    Parameters
    ----------
    params
        Head parameters.

    """

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        self.map = RegisterMap(params)
        self.words: dict[str, int] = {}
        self.reset()

    def reset(self) -> None:
        """Hardware reset."""
        self.words = {register.name: register.reset for register in self.map}

    @property
    def settings(self) -> dict[str, tuple[int, ...]]:
        """Active settings, by their name in the hardware."""
        return {
            name: tuple(field.get(self.words[register.name]) for field in fields)
            for name, (register, fields) in self.map.settings.items()
        }

    def _now(self, register: Register) -> int:
        return self.words[register.name] if register.count is None else 0

    def _strobed(self, data: int, strobe: int) -> int:
        return sum(data & 0xFF << 8 * byte for byte in range(4) if strobe >> byte & 1)

    def _commands(self, register: Register, data: int, strobe: int) -> frozenset[str]:
        """Fields of the register that the write puts a one to."""
        word = self._strobed(data, strobe)
        return frozenset(field.name for field in register.fields if word & field.mask)

    def offered(self, address: int, data: int, strobe: int = _WHOLE) -> Offer:
        """Say what will become of a write."""
        found = self.map.at(address)
        if found is None:
            return Offer(refused=True, waits=False)
        register, _ = found
        refused = register.refusal(self._now(register), data, strobe) is not None
        waits = register.waits or register.name == "test_q"
        enabled = bool(self.words["control"] & 1)
        if register.name == "test_q":
            refused |= enabled
        if register.name == "command":
            commands = self._commands(register, data, strobe)
            waits = bool(commands & set(WAITING_COMMANDS))
            if "test_start" in commands:
                refused |= enabled or "soft_reset" in commands
        return Offer(refused=refused, waits=waits and not refused)

    def write(self, address: int, data: int, strobe: int = _WHOLE) -> Effect:
        """Do a write; one that is refused does nothing."""
        found = self.map.at(address)
        if found is None or self.offered(address, data, strobe).refused:
            return Effect()
        register, index = found
        if register.count is not None:
            return Effect(array=(register.name, index, register.fields[0].get(data)))
        if register.name == "sticky":
            return Effect(cleared=self._commands(register, data, strobe))
        if register.name == "command":
            commands = self._commands(register, data, strobe)
            if "soft_reset" in commands:
                self.words |= {r.name: r.reset for r in self.map if r.waits}
            return Effect(commands=commands)
        lanes = self._strobed(0xFFFFFFFF, strobe)
        self.words[register.name] = (self.words[register.name] & ~lanes) | (data & lanes)
        return Effect()

    def read(self, address: int, live: Mapping[tuple[str, str], int]) -> tuple[int, bool]:
        """Word at an address, and whether the read is refused.

        Parameters
        ----------
        address
            Byte address.
        live
            What the hardware shows, by register and field; of arrays the entry in question.

        """
        found = self.map.at(address)
        if found is None:
            return 0, True
        register, _ = found
        word = self.words[register.name]
        for field in register.fields:
            if (register.name, field.name) in live:
                word = field.put(word, live[register.name, field.name])
            elif not field.access.readable:
                word = field.put(word, 0)
            elif field.access in (Access.STATUS, Access.STICKY):
                raise KeyError(f"live must hold {(register.name, field.name)!r}")
        return word, False
