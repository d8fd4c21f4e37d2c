"""Register map: one definition for the hardware, its tests, host software and the documents.

Registers are 32 bits wide at byte offsets that are multiples of four, the same for every head;
what a head's parameters leave out is not mapped, and a field that is left out has no bits. A write
that is refused (`Register.refusal`, or an address that is not mapped) is answered with SLVERR and
changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from hw.params import HeadParams

__all__ = [
    "ADDRESS_BITS",
    "DATA_BITS",
    "EVENTS",
    "IDENTITY",
    "LEVEL_BITS",
    "LEVEL_RESET",
    "VERSION",
    "WAITING_COMMANDS",
    "Access",
    "Field",
    "Register",
    "RegisterMap",
]

ADDRESS_BITS = 12
DATA_BITS = 32
IDENTITY = 0x47434131  #: "GCA1"
VERSION = (1, 0)  #: of the map; a minor step only adds to it
#: Levels of S_sat and A_sat by gain code, in the analog side's units.
LEVEL_RESET = {"s_levels": (80, 160, 40, 20), "a_levels": (40, 80, 160, 20)}
#: Shortest time between two refreshes.
REFRESH_PERIOD_MIN_CLK = 64
#: Commands that, like a setting, are done once the head is quiet.
WAITING_COMMANDS = ("soft_reset", "test_start")
_CLOCK_BITS = 32
LEVEL_BITS = 8  #: of S_sat and A_sat
_BYTE = 8
_BYTES = DATA_BITS // _BYTE


class Access(enum.Enum):
    """What software may do with a field, and when a write takes effect."""

    CONSTANT = enum.auto()  #: read only; follows from the parameters
    STATUS = enum.auto()  #: read only; what the hardware is doing
    SETTING = enum.auto()  #: takes effect once the head is quiet; the write is answered after that
    DIRECT = enum.auto()  #: takes effect at once
    STICKY = enum.auto()  #: set by an event; a one clears it
    COMMAND = enum.auto()  #: a one does something; reads as zero
    WRITE = enum.auto()  #: write only; reads as zero

    @property
    def text(self) -> str:
        """Short form for tables."""
        return _ACCESS_TEXT[self]

    @property
    def readable(self) -> bool:
        """Reads as something else than zero."""
        return self not in (Access.COMMAND, Access.WRITE)

    @property
    def writable(self) -> bool:
        """A write may change it or do something."""
        return self not in (Access.CONSTANT, Access.STATUS)


_ACCESS_TEXT = {
    Access.CONSTANT: "RO",
    Access.STATUS: "RO",
    Access.SETTING: "RW, waits",
    Access.DIRECT: "RW",
    Access.STICKY: "W1C",
    Access.COMMAND: "W1",
    Access.WRITE: "WO",
}


@dataclass(frozen=True, kw_only=True)
class Field:
    """Bits of a register that belong together."""

    name: str  #: name within the register
    lsb: int  #: lowest bit
    width: int  #: bits
    access: Access  #: what software may do
    reset: int = 0  #: value after reset, or the constant
    low: int = 0  #: smallest value that may be written
    high: int = 0  #: largest value that may be written, or that can be read
    signed: bool = False  #: two's complement
    meaning: str  #: one sentence

    @property
    def mask(self) -> int:
        """Its bits within the register."""
        return ((1 << self.width) - 1) << self.lsb

    @property
    def natural(self) -> tuple[int, int]:
        """Smallest and largest value of so many bits."""
        if self.signed:
            return -(1 << self.width - 1), (1 << self.width - 1) - 1
        return 0, (1 << self.width) - 1

    def get(self, word: int) -> int:
        """Value within a register's word."""
        value = (word & self.mask) >> self.lsb
        return value - (1 << self.width) if self.signed and value >> self.width - 1 else value

    def put(self, word: int, value: int) -> int:
        """Word with this field's value replaced."""
        return (word & ~self.mask) | (value << self.lsb & self.mask)


@dataclass(frozen=True, kw_only=True)
class Register:
    """A register, or an array of equal ones at successive words."""

    name: str  #: name within the map
    offset: int  #: byte address, of the first one of an array
    fields: tuple[Field, ...]  #: lowest bits first
    meaning: str  #: one sentence
    count: int | None = None  #: entries of an array; None for a single register

    @property
    def entries(self) -> int:
        """Words it takes."""
        return 1 if self.count is None else self.count

    @property
    def reset(self) -> int:
        """Word after reset; bits that show what the hardware is doing are zero in it."""
        word = 0
        for field in self.fields:
            word = field.put(word, field.reset)
        return word

    @property
    def writable(self) -> bool:
        """Some write to it is accepted."""
        return any(field.access.writable for field in self.fields)

    @property
    def waits(self) -> bool:
        """It holds settings: a write is answered once they are in effect."""
        return any(field.access is Access.SETTING for field in self.fields)

    def __contains__(self, name: str) -> bool:
        return any(field.name == name for field in self.fields)

    def __getitem__(self, name: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        names = [field.name for field in self.fields]
        raise KeyError(f"field of {self.name} must be one of {names}, not {name!r}")

    def word(self, values: Mapping[str, int], base: int | None = None) -> int:
        """Word with these fields' values, the others as in ``base`` or after reset.

        Raises
        ------
        KeyError
            No such field.
        ValueError
            A value is out of its range.

        """
        word = self.reset if base is None else base
        for name, value in values.items():
            field = self[name]
            if not field.low <= value <= field.high:
                raise ValueError(
                    f"{self.name}.{name} must be in {field.low}..{field.high}, not {value!r}"
                )
            word = field.put(word, value)
        return word

    def values(self, word: int) -> dict[str, int]:
        """Values of the fields of a word, by name."""
        return {field.name: field.get(word) for field in self.fields}

    def refusal(self, now: int, data: int, strobe: int = 0b1111) -> str | None:
        """Why a write would be refused, whatever the head is doing; None if it would not.

        Parameters
        ----------
        now
            What the register holds.
        data, strobe
            The write; a byte whose strobe is 0 keeps what the register holds.

        """
        if not self.writable:
            return f"{self.name} is read only"
        lanes = sum(0xFF << _BYTE * byte for byte in range(_BYTES) if strobe >> byte & 1)
        if self.count is not None and strobe != 0b1111:
            return f"an entry of {self.name} is written whole"
        owned = 0
        for field in self.fields:
            owned |= field.mask
        if data & lanes & ~owned:
            return f"{self.name} has no bits {data & lanes & ~owned:#x}"
        word = (now & ~lanes) | (data & lanes)
        for field in self.fields:
            if field.access in (Access.SETTING, Access.DIRECT, Access.WRITE):
                value = field.get(word)
                if not field.low <= value <= field.high:
                    return (
                        f"{self.name}.{field.name} must be in {field.low}..{field.high}, "
                        f"not {value}"
                    )
        return None


#: What is remembered and can interrupt, by bit of ``sticky`` and ``irq_enable``.
EVENTS: Mapping[str, str] = {
    "command": "A packet with an unknown command was refused.",
    "length": "A packet of the wrong length was refused.",
    "code": "A packet with a code out of range was refused.",
    "empty": "A query on an empty window was refused.",
    "step": "A step whose packets do not agree was refused.",
    "full_scale": "A result was sent of which some sub-tile is at full scale.",
    "saturated": "A lane's accumulated result reached the limit of its width.",
    "stale": "Some valid column has passed its age budget.",
}


class RegisterMap:
    """Every register of a head or layer.

    Parameters
    ----------
    params
        Head parameters.

    """

    def __init__(self, params: HeadParams) -> None:
        self.params = params
        self.registers: tuple[Register, ...] = tuple(
            register
            for part in (
                self._identity(),
                self._settings(),
                self._direct(),
                self._status(),
                self._counters(),
                self._arrays(),
            )
            for register in part
            if register.fields and register.entries
        )
        offsets = [register.offset for register in self.registers]
        assert offsets == sorted(set(offsets))

    def __iter__(self) -> Iterator[Register]:
        return iter(self.registers)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Register:
        if name not in self._by_name:
            raise KeyError(f"register must be one of {list(self._by_name)}, not {name!r}")
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Register]:
        return {register.name: register for register in self.registers}

    @cached_property
    def _by_word(self) -> dict[int, tuple[Register, int]]:
        return {
            register.offset // _BYTES + entry: (register, entry)
            for register in self.registers
            for entry in range(register.entries)
        }

    def at(self, address: int) -> tuple[Register, int] | None:
        """Register at a byte address and the entry within it, None if nothing is mapped there.

        The two lowest bits do not matter: an access is to a whole word.
        """
        return self._by_word.get(address // _BYTES)

    @cached_property
    def events(self) -> tuple[str, ...]:
        """Names in `EVENTS` of what can happen to this head."""
        absent = {
            "step": self.params.heads == 1,
            "saturated": not self.params.shots,
            "stale": not self.params.age_bits,
        }
        return tuple(name for name in EVENTS if not absent.get(name, False))

    @cached_property
    def settings(self) -> Mapping[str, tuple[Register, tuple[Field, ...]]]:
        """Where each setting is, by its name in the hardware; several fields make an array."""
        found: dict[str, tuple[Register, tuple[Field, ...]]] = {}
        for register in self.registers:
            if register.name in LEVEL_RESET:
                found[register.name] = (register, register.fields)
            elif register.waits:
                for field in register.fields:
                    shared = register.name in ("control", "phases")
                    found[field.name if shared else register.name] = (register, (field,))
        return found

    @cached_property
    def counters(self) -> tuple[Register, ...]:
        """Registers that count."""
        return tuple(self._counters())

    # --- parts ------------------------------------------------------------------------------
    def _identity(self) -> Iterator[Register]:
        p = self.params

        def constants(
            name: str, offset: int, meaning: str, *fields: tuple[str, int, int, int, str]
        ) -> Register:
            return Register(
                name=name,
                offset=offset,
                meaning=meaning,
                fields=tuple(
                    Field(
                        name=field,
                        lsb=lsb,
                        width=width,
                        access=Access.CONSTANT,
                        reset=value,
                        low=value,
                        high=value,
                        meaning=text,
                    )
                    for field, lsb, width, value, text in fields
                ),
            )

        major, minor = VERSION
        digits = int(p.config_hash[: DATA_BITS // 4], 16)
        yield constants(
            "id", 0x000, "What this is.", ("value", 0, 32, IDENTITY, 'The letters "GCA1".')
        )
        yield constants(
            "version",
            0x004,
            "Version of this map.",
            ("minor", 0, 16, minor, "Counts additions."),
            ("major", 16, 16, major, "Counts changes that old software does not survive."),
        )
        yield constants(
            "config_hash",
            0x008,
            "Configuration, as in every artefact.",
            ("value", 0, 32, digits, "First eight hexadecimal digits of the hash."),
        )
        yield constants(
            "features",
            0x00C,
            "What there is.",
            ("population", 0, 1, int(p.readout == "population"), "Readout: population count."),
            ("streaming", 1, 1, int(p.streaming), "Phases of successive packets overlap."),
            ("shots", 2, 1, int(p.shots), "Gain codes and shots."),
            ("refresh", 3, 1, int(p.refresh), "Columns can be rewritten."),
            ("self_test", 4, 1, int(p.self_test), "Queries and counts through registers."),
        )
        yield constants(
            "shape_window",
            0x010,
            "Shape of the window.",
            ("subtiles", 0, 16, p.subtiles, "Sub-tiles."),
            ("columns", 16, 16, p.columns, "Columns of a sub-tile."),
        )
        yield constants(
            "shape_arrays",
            0x014,
            "Shape of the arrays.",
            ("rows", 0, 16, p.rows, "Word lines of array 1."),
            ("lanes", 16, 16, p.lanes, "Outputs of array 2."),
        )
        yield constants(
            "shape_codes",
            0x018,
            "Widths of codes.",
            ("q_bits", 0, 8, p.q_bits, "Query code."),
            ("kv_bits", 8, 8, p.kv_bits, "Stored code."),
            ("count_bits", 16, 8, p.count_bits, "Magnitude of a sub-tile's result."),
            ("tag_bits", 24, 8, p.tag_bits, "Tag of a packet."),
        )
        yield constants(
            "shape_streams",
            0x01C,
            "Shape of the streams.",
            ("result_bits", 0, 8, p.result_bits, "Bits of one lane of a result."),
            ("heads", 8, 8, p.heads, "Heads, each with streams of its own."),
            ("bus_bits", 16, 16, p.bus_bits, "Width of each stream."),
        )
        yield constants(
            "shape_features",
            0x020,
            "Sizes of what can be left out, 0 if it is.",
            ("sinks", 0, 8, p.sinks, "Most columns that can be pinned."),
            ("age_bits", 8, 8, p.age_bits, "Width of the ages."),
            ("trim_bits", 16, 8, p.trim_bits, "Width of the trims."),
            ("event_bits", 24, 8, p.event_bits, "Width of the event counters."),
        )
        yield constants(
            "limits",
            0x024,
            "Limits of settings, and results held.",
            ("write_max_clk", 0, 8, p.write_max_clk, "Longest write."),
            ("guard_max_clk", 8, 8, p.guard_max_clk, "Longest guard."),
            ("slots", 16, 8, p.sender_slots, "Results between admission and exit."),
        )
        yield constants(
            "lengths",
            0x028,
            "Lengths of the phases that follow from code widths, in clocks.",
            ("integrate_clk", 0, 8, p.integrate_clk, "Q.K integration."),
            ("convert_clk", 8, 8, p.convert_clk, "Conversion to phi pulses."),
            ("readout_clk", 16, 8, p.readout_clk, "Readout."),
        )
        yield self._live(
            "latency",
            0x02C,
            "Clocks from a packet's last beat to its result, at the settings' reset values.",
            ("latency_clk", 0, 16, "Of a packet that writes and queries."),
            ("query_latency_clk", 16, 16, "Of a packet that only queries."),
        )

    def _settings(self) -> Iterator[Register]:
        p = self.params

        def setting(
            name: str, lsb: int, width: int, reset: int, low: int, high: int, meaning: str
        ) -> Field:
            return Field(
                name=name,
                lsb=lsb,
                width=width,
                access=Access.SETTING,
                reset=reset,
                low=low,
                high=high,
                meaning=meaning,
            )

        def flag(name: str, lsb: int, reset: int, meaning: str) -> Field:
            return setting(name, lsb, 1, reset, 0, 1, meaning)

        control = [flag("enable", 0, 1, "Packets are taken.")]
        if p.age_bits:
            control.append(flag("age_mask", 1, 0, "Sub-tiles past their age budget are masked."))
        if p.refresh:
            control.append(flag("refresh_enable", 2, 0, "Columns are rewritten periodically."))
        yield Register(
            name="control", offset=0x040, meaning="What is switched on.", fields=tuple(control)
        )
        write_bits, guard_bits = p.write_max_clk.bit_length(), p.guard_max_clk.bit_length()
        yield Register(
            name="phases",
            offset=0x044,
            meaning="Lengths of the phases that can be set, in clocks.",
            fields=(
                setting("write_clk", 0, write_bits, p.write_clk, 1, p.write_max_clk, "A write."),
                setting("guard_clk", 8, guard_bits, p.guard_clk, 1, p.guard_max_clk, "A guard."),
            ),
        )
        levels = {
            "s_levels": (0x048, "Levels of S_sat, the charge at which phi is longest"),
            "a_levels": (0x04C, "Levels of A_sat, the charge at which a count is largest"),
        }
        for name, (offset, meaning) in levels.items():
            codes = range(4 if p.shots else 1)
            largest = (1 << LEVEL_BITS) - 1
            yield Register(
                name=name,
                offset=offset,
                meaning=f"{meaning}, by gain code.",
                fields=tuple(
                    setting(
                        f"level_{code}",
                        LEVEL_BITS * code,
                        LEVEL_BITS,
                        LEVEL_RESET[name][code],
                        1,
                        largest,
                        f"Level of gain code {code}.",
                    )
                    for code in codes
                ),
            )
        if p.sinks:
            yield Register(
                name="sinks",
                offset=0x050,
                meaning="Columns pinned at the start of a sequence; in force from an empty window.",
                fields=(
                    setting(
                        "count", 0, p.sinks.bit_length(), 0, 0, p.sinks, "Columns never replaced."
                    ),
                ),
            )
        every_clock = (1 << _CLOCK_BITS) - 1
        if p.age_bits:
            oldest = (1 << p.age_bits) - 1
            yield Register(
                name="age_budget",
                offset=0x054,
                meaning="Age beyond which a column is stale.",
                fields=(setting("ticks", 0, p.age_bits, oldest, 0, oldest, "Ticks."),),
            )
            yield Register(
                name="age_tick",
                offset=0x058,
                meaning="Length of a tick.",
                fields=(
                    setting("clocks", 0, _CLOCK_BITS, 1023, 0, every_clock, "Clocks, less one."),
                ),
            )
        if p.refresh:
            yield Register(
                name="refresh_period",
                offset=0x05C,
                meaning="Time from one refreshed column to the next.",
                fields=(
                    setting(
                        "clocks",
                        0,
                        _CLOCK_BITS,
                        1024,
                        REFRESH_PERIOD_MIN_CLK,
                        every_clock,
                        "Clocks.",
                    ),
                ),
            )

    def _direct(self) -> Iterator[Register]:
        p = self.params

        def flags(access: Access, meanings: Mapping[str, str]) -> tuple[Field, ...]:
            return tuple(
                Field(
                    name=name,
                    lsb=list(EVENTS).index(name) if name in EVENTS else lsb,
                    width=1,
                    access=access,
                    high=1,
                    meaning=meaning,
                )
                for lsb, (name, meaning) in enumerate(meanings.items())
            )

        commands = {
            "soft_reset": "Forget window, held result, counters, events; settings as after reset.",
            "clear_counters": "Counters begin again from zero.",
        }
        if p.self_test:
            commands["test_start"] = "Self-test: query one sub-tile. Refused while enabled."
        yield Register(
            name="command",
            offset=0x060,
            meaning="Commands; a soft reset and a self-test wait like a setting.",
            fields=flags(Access.COMMAND, commands),
        )
        events = {name: EVENTS[name] for name in self.events}
        yield Register(
            name="sticky",
            offset=0x064,
            meaning="Events that have happened.",
            fields=flags(Access.STICKY, events),
        )
        yield Register(
            name="irq_enable",
            offset=0x068,
            meaning="Events that interrupt.",
            fields=flags(Access.DIRECT, {name: f"Bit of `sticky.{name}`." for name in events}),
        )

        def direct(name: str, lsb: int, width: int, high: int, meaning: str) -> Field:
            return Field(
                name=name,
                lsb=lsb,
                width=width,
                access=Access.DIRECT,
                high=high,
                meaning=meaning,
            )

        if p.heads > 1:
            bits = (p.heads - 1).bit_length()
            yield Register(
                name="head_select",
                offset=0x06C,
                meaning="Head that the arrays below belong to.",
                fields=(direct("head", 0, bits, p.heads - 1, "Head."),),
            )
        if p.self_test:
            fields = [
                direct("subtile", 0, p.subtile_bits, p.subtiles - 1, "Sub-tile that is looked at.")
            ]
            if p.shots:
                fields += [
                    direct("s_gain", 8, 2, 3, "Gain code of S_sat."),
                    direct("a_gain", 10, 2, 3, "Gain code of A_sat."),
                ]
            yield Register(
                name="test", offset=0x070, meaning="What a self-test does.", fields=tuple(fields)
            )

    def _live(
        self, name: str, offset: int, meaning: str, *fields: tuple[str, int, int, str]
    ) -> Register:
        return Register(
            name=name,
            offset=offset,
            meaning=meaning,
            fields=tuple(
                Field(
                    name=field,
                    lsb=lsb,
                    width=width,
                    access=Access.STATUS,
                    high=(1 << width) - 1,
                    meaning=text,
                )
                for field, lsb, width, text in fields
            ),
        )

    def _status(self) -> Iterator[Register]:
        p = self.params
        state = [
            ("idle", 0, 1, "Nothing is in flight and nothing is held."),
            ("pending", 1, 1, "A setting, a soft reset or a self-test waits."),
        ]
        if p.age_bits:
            state.append(("stale", 2, 1, "Some valid column is past its age budget."))
        if p.self_test:
            state.append(("test_done", 3, 1, "The self-test started last has ended."))
        yield self._live("state", 0x080, "What the head is doing.", *state)
        yield self._live(
            "occupancy",
            0x084,
            "Tokens in the window.",
            ("tokens", 0, p.window.bit_length(), "Tokens."),
        )
        yield self._live(
            "pointer",
            0x088,
            "Column that the next token is written to.",
            ("subtile", 0, p.subtile_bits, "Sub-tile."),
            ("column", 16, p.column_bits, "Column of it."),
        )
        if p.age_bits:
            yield self._live(
                "oldest_age",
                0x08C,
                "Age of the oldest valid column.",
                ("ticks", 0, p.age_bits, "Ticks."),
            )

    def _counters(self) -> Iterator[Register]:
        p = self.params
        kinds = {
            "tokens": (p.event_bits, True, "Columns written."),
            "queries": (p.event_bits, True, "Valid answers, sent or held."),
            "command_errors": (p.event_bits, True, "Packets with an unknown command."),
            "length_errors": (p.event_bits, True, "Packets of the wrong length."),
            "code_errors": (p.event_bits, True, "Packets with a code out of range."),
            "empty_errors": (p.event_bits, True, "Queries on an empty window."),
            "step_errors": (p.event_bits, p.heads > 1, "Steps whose packets did not agree."),
            "full_scale_total": (p.event_bits, True, "Lanes sent that were at full scale."),
            "saturated_total": (p.event_bits, p.shots, "Results sent of which a lane was cut."),
            "refreshes": (p.event_bits, p.refresh, "Columns rewritten."),
            "clocks_busy": (_CLOCK_BITS, True, "Clocks in which something was in flight or held."),
            "clocks_idle": (_CLOCK_BITS, True, "Clocks in which nothing was."),
        }
        for at, (name, (width, present, meaning)) in enumerate(kinds.items()):
            if present:
                yield self._live(name, 0x0C0 + 4 * at, meaning, ("count", 0, width, "Saturates."))

    def _arrays(self) -> Iterator[Register]:
        p = self.params
        if p.trim_bits:
            limit = 1 << p.trim_bits - 1
            yield Register(
                name="trim",
                offset=0x400,
                count=p.lanes,
                meaning="Offset that is subtracted from each lane's sum.",
                fields=(
                    Field(
                        name="offset",
                        lsb=0,
                        width=DATA_BITS,
                        access=Access.DIRECT,
                        low=-limit,
                        high=limit - 1,
                        signed=True,
                        meaning="Offset, sign extended.",
                    ),
                ),
            )
        if p.self_test:
            yield Register(
                name="test_q",
                offset=0x800,
                count=p.rows,
                meaning="Query of the self-test. Refused while enabled; waits like a setting.",
                fields=(
                    Field(
                        name="code",
                        lsb=0,
                        width=p.q_bits,
                        access=Access.WRITE,
                        high=(1 << p.q_bits) - 1,
                        meaning="Query code.",
                    ),
                ),
            )
            yield Register(
                name="test_count",
                offset=0xC00,
                count=p.lanes,
                meaning="Sum of each lane in the last readout, as it was counted.",
                fields=(
                    Field(
                        name="sum",
                        lsb=0,
                        width=DATA_BITS,
                        access=Access.STATUS,
                        low=-(1 << p.sum_bits - 1),
                        high=(1 << p.sum_bits - 1) - 1,
                        signed=True,
                        meaning="Signed sum, sign extended.",
                    ),
                ),
            )
