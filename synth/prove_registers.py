"""Proofs of the register bank: AXI4-Lite under any master, and what each write does.

The miter holds the bank, a master that keeps the rules of AXI4-Lite and does anything else (any
accesses, address and data in any order, any stalls), surroundings that fall quiet and stop being so
at will, and a specification that sees the bus and the active values: it keeps a model of every
stored field, made from the register map, and moves it when a write is accepted.

The method is temporal induction from reset, as in `synth.prove`. What carries it is that a write
that waits is still offered (``helper_ok``), so the number of clocks for which it waits does not
enter. Two sizes are proved, a layer with every feature and a head with none. Shapes enter through
ranges and numbers of entries only, each a comparison with a constant.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from hw.params import HeadParams
from hw.register_bank import SLVERR
from hw.registers import DATA_BITS, IDENTITY, WAITING_COMMANDS, Access, Register, RegisterMap
from synth import prove
from synth.prove import Bug, Row

__all__ = [
    "REGISTER_BUGS",
    "REGISTER_PROPERTIES",
    "REGISTER_SIZES",
    "RegisterMiter",
    "prove_registers",
    "register_properties",
]

_SMALL = {
    "subtiles": 2,
    "columns": 3,
    "rows": 3,
    "lanes": 3,
    "q_bits": 3,
    "write_clk": 2,
    "bus_bits": 32,
}
#: Sizes the bank is proved at: every feature, and none.
REGISTER_SIZES = (
    HeadParams(
        **_SMALL,
        event_bits=4,
        heads=3,
        sinks=2,
        age_bits=3,
        trim_bits=4,
        shots=True,
        refresh=True,
        self_test=True,
    ),
    HeadParams(**_SMALL, event_bits=4),
)
#: Clocks within which each seeded bug shows.
BUG_CLK = 12
#: Clocks for which a write is offered, once it need not wait or is quiet, and not accepted.
WRITE_CLK = 2
#: Clocks from the acceptance of a read's address to its data, neither counted.
READ_CLK = 2

#: What is proved of the bank, by the name of the miter's output.
REGISTER_PROPERTIES = {
    "bus_ok": "B and R: valid held and payload stable until ready, under any stalls",
    "pairs_ok": "a response per address and data, a word per address, in order",
    "outcome_ok": "a write is refused if and only if the map says so; reads answer the address",
    "writes_ok": "fields change as an accepted write says, and by nothing else",
    "boundary_ok": "settings, soft reset and self-test only when quiet and after pausing",
    "range_ok": "no field is ever out of its range",
    "live_ok": f"a write is accepted in {WRITE_CLK + 1} quiet clocks, a read never waits for one",
}

_BANK = "RegisterBank"
#: Properties that the others rest on.
_CARRIERS = ("outcome_ok", "writes_ok")

#: Bugs that the proof must find, by the property that each violates.
REGISTER_BUGS: Mapping[str, Sequence[Bug]] = {
    "bus_ok": (
        Bug(
            name="a response is not held",
            component=_BANK,
            old="with m.Elif(self.s_axil_bready)",
            new="with m.Elif(1)",
        ),
        Bug(
            name="data are not held",
            component=_BANK,
            old="with m.If(self.s_axil_rvalid & self.s_axil_rready)",
            new="with m.If(self.s_axil_rvalid)",
        ),
        Bug(
            name="data are looked up again while they are offered",
            component=_BANK,
            old="with m.If(looked_up):",
            new="with m.If(looked_up | self.s_axil_rvalid):",
        ),
        Bug(
            name="a response changes with the next write",
            component=_BANK,
            old="with m.If(offered):\n            m.d.sync += refusal",
            new="with m.If(self.s_axil_awvalid):\n            m.d.sync += refusal",
        ),
    ),
    "pairs_ok": (
        Bug(
            name="a write is accepted before the response to the last one is taken",
            component=_BANK,
            old="& ~accept & ~self.s_axil_bvalid",
            new="& ~accept",
        ),
        Bug(
            name="a write does not wait for its data",
            component=_BANK,
            old="self.s_axil_awvalid & self.s_axil_wvalid & ~accept",
            new="self.s_axil_awvalid & ~accept",
        ),
        Bug(
            name="an address is accepted while one is looked up",
            component=_BANK,
            old="~reading & ~self.s_axil_rvalid",
            new="~self.s_axil_rvalid",
        ),
    ),
    "outcome_ok": (
        Bug(
            name="upper limits are not looked at",
            component=_BANK,
            old="bad.append(value > field.high)",
            new="pass",
        ),
        Bug(
            name="bits without a field are not looked at",
            component=_BANK,
            old="[(word & strobes & ~Const(owned, DATA_BITS)).any()]",
            new="[]",
        ),
        Bug(
            name="an array is written in parts",
            component=_BANK,
            old="bad += [~_within(register, address), ~self.s_axil_wstrb.all()]",
            new="bad += [~_within(register, address)]",
        ),
        Bug(
            name="an array is written beyond its end",
            component=_BANK,
            old="bad += [~_within(register, address), ~self.s_axil_wstrb.all()]",
            new="bad += [~self.s_axil_wstrb.all()]",
        ),
        Bug(
            name="an address that is not mapped is read",
            component=_BANK,
            old="refused.eq(~mapped),",
            new="refused.eq(0),",
        ),
        Bug(
            name="the next address is looked up",
            component=_BANK,
            old="with m.If(self.s_axil_arvalid & self.s_axil_arready):",
            new="with m.If(self.s_axil_arvalid):",
        ),
        Bug(
            name="the self-test is written while enabled",
            component=_BANK,
            old="bad.append(enabled)",
            new="pass",
        ),
    ),
    "writes_ok": (
        Bug(
            name="strobes are not looked at",
            component=_BANK,
            old="(value & ~strobes[bits]) | (word & strobes)[bits]",
            new="word[bits]",
        ),
        Bug(
            name="a refused write is done",
            component=_BANK,
            old="go.eq(offered & ~refused & (~waits",
            new="go.eq(offered & (~waits",
        ),
        Bug(
            name="a soft reset leaves the settings",
            component=_BANK,
            old="with m.If(self.soft_reset):\n            m.d.sync += self.settings",
            new="with m.If(0):\n            m.d.sync += self.settings",
        ),
        Bug(
            name="a write is done twice",
            component=_BANK,
            old="self.s_axil_awvalid & self.s_axil_wvalid & ~accept & ~self",
            new="self.s_axil_awvalid & self.s_axil_wvalid & ~self",
        ),
    ),
    "boundary_ok": (
        Bug(
            name="a setting does not wait for quiet",
            component=_BANK,
            old="(waiting & self.quiet)",
            new="waiting",
        ),
        Bug(
            name="a setting does not pause first",
            component=_BANK,
            old="(waiting & self.quiet)",
            new="self.quiet",
        ),
        Bug(
            name="a soft reset does not wait",
            component=_BANK,
            old="Cat(waiting).any()",
            new="Const(0)",
        ),
        Bug(
            name="no pause for what is pending",
            component=_BANK,
            old="self.pause.eq(self.pending | ~self.settings.enable)",
            new="self.pause.eq(~self.settings.enable)",
        ),
        Bug(
            name="no pause while switched off",
            component=_BANK,
            old="self.pause.eq(self.pending | ~self.settings.enable)",
            new="self.pause.eq(self.pending)",
        ),
    ),
    "range_ok": (
        Bug(
            name="lower limits are not looked at",
            component=_BANK,
            old="bad.append(value < field.low)",
            new="pass",
        ),
        Bug(
            name="the range is that of the whole word",
            component=_BANK,
            old="value = (now & ~strobes[bits]) | (value & strobes[bits])",
            new="value = now",
        ),
    ),
    "live_ok": (
        Bug(
            name="what waits is forgotten",
            component=_BANK,
            old="waiting.eq(offered & ~refused & waits & ~go)",
            new="waiting.eq(offered & ~refused & waits & ~waiting & ~go)",
        ),
        Bug(
            name="reads wait while something is pending",
            component=_BANK,
            old="self.s_axil_arready.eq(~reading & ~self.s_axil_rvalid)",
            new="self.s_axil_arready.eq(~reading & ~self.s_axil_rvalid & ~self.pending)",
        ),
        Bug(
            name="the next write is not answered before a read",
            component=_BANK,
            old="go.eq(offered & ~refused &",
            new="go.eq(offered & ~self.s_axil_rvalid & ~refused &",
        ),
    ),
}


class _Offer:
    """A channel's master: anything at any time, held until it is taken."""

    def __init__(self, m: Module, offer: Value, choice: Value, ready: Value, name: str) -> None:
        self.waits = Signal(name=f"{name}_waits")
        self.held = Signal(len(choice), name=f"{name}_held")
        self.valid = Signal(name=f"{name}_valid")
        self.payload = Signal(len(choice), name=f"{name}_payload")
        m.d.comb += [
            self.valid.eq(self.waits | offer),
            self.payload.eq(Mux(self.waits, self.held, choice)),
        ]
        m.d.sync += [self.waits.eq(self.valid & ~ready), self.held.eq(self.payload)]


def _stable(m: Module, valid: Value, ready: Value, payload: Value, name: str) -> Value:
    """The rule of a channel that the bank drives."""
    waited = Signal(name=f"{name}_waited")
    before = Signal(len(payload), name=f"{name}_before")
    m.d.sync += [waited.eq(valid & ~ready), before.eq(payload)]
    return ~waited | (valid & (payload == before))


class RegisterMiter(Component):
    """Register bank, a legal master and surroundings, and the specification.

    Parameters
    ----------
    params
        Size of the head.
    bug
        Put into the bank.

    Members
    -------
    aw_offer, w_offer, ar_offer, aw_choice, w_choice, ar_choice, bready, rready, quiet : in
        Free choices of master and surroundings, in every clock.
    probe_reading, probe_address, probe_irq_enable : in
        Registers inside the bank; connected after flattening.
    bus_ok, pairs_ok, outcome_ok, writes_ok, boundary_ok, range_ok, live_ok : Out(1)
        See `REGISTER_PROPERTIES`.
    helper_ok : Out(1)
        Invariant that carries the induction.
    interesting : Out(1)
        A setting other than the reset value has just become active, a word is owed, a read waits.

    """

    def __init__(self, params: HeadParams, bug: Bug | None = None) -> None:
        self.params = params
        self.bug = bug
        self.map = RegisterMap(params)
        free = {"aw_offer": 1, "w_offer": 1, "ar_offer": 1, "bready": 1, "rready": 1, "quiet": 1}
        free |= {"aw_choice": 12, "w_choice": DATA_BITS + 4, "ar_choice": 12}
        probes = {
            "probe_reading": 1,
            "probe_address": 10,
            "probe_irq_enable": len(self.map.events),
        }
        super().__init__(
            {
                **{name: In(width) for name, width in (free | probes).items()},
                **{name: Out(1) for name in REGISTER_PROPERTIES},
                "helper_ok": Out(1),
                "interesting": Out(1),
            }
        )

    probes: Mapping[str, Sequence[str]] = {
        "probe_reading": ["bank.reading"],
        "probe_address": ["bank.read_address"],
        "probe_irq_enable": ["bank.irq_enable"],
    }

    # --- specification ------------------------------------------------------------------------
    def _active(self, bank: Any) -> dict[tuple[str, str], Value]:
        """Stored fields, where the bank shows them."""
        active: dict[tuple[str, str], Value] = {}
        for name, (register, fields) in self.map.settings.items():
            for at, field in enumerate(fields):
                value = bank.settings[name]
                active[register.name, field.name] = value[at] if "levels" in name else value
        for at, name in enumerate(self.map.events):
            active["irq_enable", name] = self.probe_irq_enable[at]
        if self.params.heads > 1:
            active["head_select", "head"] = bank.head_select
        if self.params.self_test:
            for field in self.map["test"].fields:
                active["test", field.name] = getattr(bank, f"test_{field.name}")
        return active

    def _chosen(self, register: Register, address: Value) -> Value:
        words = [register.offset // 4 + entry for entry in range(register.entries)]
        return Cat(address[2:] == word for word in words).any()

    def _merged(
        self, register: Register, model: Mapping[tuple[str, str], Value], data: Value, strobe: Value
    ) -> Value:
        """Word that the register would hold."""
        now: list[Value] = [Const(0, 1)] * DATA_BITS
        for field in register.fields:
            if (register.name, field.name) in model:
                for bit in range(field.width):
                    now[field.lsb + bit] = model[register.name, field.name][bit]
        return Cat(Mux(strobe[bit // 8], data[bit], now[bit]) for bit in range(DATA_BITS))

    def _accepts(
        self, register: Register, model: Mapping[tuple[str, str], Value], data: Value, strobe: Value
    ) -> Value:
        """A write to the register is one that the map allows."""
        merged = self._merged(register, model, data, strobe)
        enabled = model["control", "enable"]
        owned = {bit for f in register.fields for bit in range(f.lsb, f.lsb + f.width)}
        foreign = Cat(
            data[bit] & strobe[bit // 8] for bit in range(DATA_BITS) if bit not in owned
        ).any()
        allowed = [Const(register.writable, 1), ~foreign]
        for field in register.fields:
            value = merged[field.lsb : field.lsb + field.width]
            if field.access in (Access.SETTING, Access.DIRECT, Access.WRITE):
                value = value.as_signed() if field.signed else value
                allowed += [value >= field.low, value <= field.high]
        if register.count is not None:
            allowed.append(strobe == 0b1111)
        if register.name == "test_q":
            allowed.append(~enabled)
        if register.name == "command":
            given = {f.name: data[f.lsb] & strobe[0] for f in register.fields}
            if "test_start" in given:
                allowed.append(~given["test_start"] | ~(enabled | given["soft_reset"]))
        return Cat(allowed).all()

    def _waits(self, register: Register, data: Value, strobe: Value) -> Value:
        if register.name == "command":
            bits = [f.lsb for f in register.fields if f.name in WAITING_COMMANDS]
            return Cat(data[bit] & strobe[0] for bit in bits).any()
        return Const(register.waits or register.name == "test_q", 1)

    def elaborate(self, platform: object) -> Module:
        """Build the miter."""
        m = Module()
        p = self.params
        bank = m.submodules.bank = prove._component(_BANK, self.bug)(p)
        aw = _Offer(m, self.aw_offer, self.aw_choice, bank.s_axil_awready, "aw")
        w = _Offer(m, self.w_offer, self.w_choice, bank.s_axil_wready, "w")
        ar = _Offer(m, self.ar_offer, self.ar_choice, bank.s_axil_arready, "ar")
        data, strobe = w.payload[:DATA_BITS], w.payload[DATA_BITS:]
        m.d.comb += [
            bank.s_axil_awvalid.eq(aw.valid),
            bank.s_axil_awaddr.eq(aw.payload),
            bank.s_axil_wvalid.eq(w.valid),
            bank.s_axil_wdata.eq(data),
            bank.s_axil_wstrb.eq(strobe),
            bank.s_axil_arvalid.eq(ar.valid),
            bank.s_axil_araddr.eq(ar.payload),
            bank.s_axil_bready.eq(self.bready),
            bank.s_axil_rready.eq(self.rready),
            bank.quiet.eq(self.quiet),
        ]
        accepts = Signal()
        m.d.comb += accepts.eq(bank.s_axil_awready)
        refused_now = bank.s_axil_bresp == SLVERR  # the outcome is there with the acceptance
        active = self._active(bank)

        # A model of what is stored moves when a write is accepted: it was done a clock before.
        model: dict[tuple[str, str], Signal] = {}
        expected: dict[tuple[str, str], Value] = {}
        for register in self.map:
            for field in register.fields:
                key = (register.name, field.name)
                if key in active:
                    name = f"model_{register.name}_{field.name}"
                    model[key] = Signal(field.width, init=field.reset, name=name)
        allowed, waits = Signal(), Signal()
        commands = self.map["command"]
        resets = self._chosen(commands, aw.payload) & data[commands["soft_reset"].lsb] & strobe[0]
        for register in self.map:
            if not register.writable:
                continue
            merged = self._merged(register, model, data, strobe)
            with m.If(self._chosen(register, aw.payload)):
                m.d.comb += [
                    allowed.eq(self._accepts(register, model, data, strobe)),
                    waits.eq(self._waits(register, data, strobe)),
                ]
            for field in register.fields:
                key = (register.name, field.name)
                if key not in model:
                    continue
                done = accepts & ~refused_now
                after = Signal.like(model[key], name=f"after_{register.name}_{field.name}")
                m.d.comb += after.eq(model[key])
                with m.If(done & self._chosen(register, aw.payload)):
                    m.d.comb += after.eq(merged[field.lsb : field.lsb + field.width])
                if field.access is Access.SETTING:
                    with m.If(done & resets):
                        m.d.comb += after.eq(field.reset)
                m.d.sync += model[key].eq(after)
                expected[key] = after

        # What happened in the clock before.
        quiet_before, pending_before, strobes_before = Signal(), Signal(), Signal()
        quick_before = Signal()  # a strobe that needs no quiet
        settled = [key for key in model if self.map[key[0]].waits]
        strobes = bank.soft_reset
        quick = Const(0)
        if p.self_test:
            strobes = strobes | bank.test_start | bank.q_write
        if p.trim_bits:
            quick = bank.trim_write
        m.d.sync += [
            quiet_before.eq(self.quiet),
            pending_before.eq(bank.pending),
            strobes_before.eq(strobes),
            quick_before.eq(quick),
        ]

        # Responses and words that are owed.
        owes_b, owes_r = Signal(), Signal()
        owed_refusal = Signal()
        address = Signal(12)
        accepted_before = Signal()
        m.d.sync += accepted_before.eq(accepts)
        with m.If(accepts):
            m.d.sync += [owes_b.eq(1), owed_refusal.eq(~allowed)]
        with m.Elif(bank.s_axil_bvalid & self.bready):
            m.d.sync += owes_b.eq(0)
        takes = ar.valid & bank.s_axil_arready
        with m.If(takes):
            m.d.sync += [owes_r.eq(1), address.eq(ar.payload)]
        with m.Elif(bank.s_axil_rvalid & self.rready):
            m.d.sync += owes_r.eq(0)
        mapped = Cat(self._chosen(register, address) for register in self.map).any()
        word = bank.s_axil_rdata
        phases = self.map["phases"]
        phases_before = Signal(DATA_BITS, init=phases.reset)
        now = self._merged(phases, active, Const(0, DATA_BITS), Const(0, 4))
        with m.If(~bank.s_axil_rvalid):
            m.d.sync += phases_before.eq(now)
        read_ok = (bank.s_axil_rresp == Mux(mapped, 0, SLVERR)) & (mapped | (word == 0))
        read_ok &= ~self._chosen(self.map["id"], address) | (word == IDENTITY)
        read_ok &= ~self._chosen(phases, address) | (word == phases_before)

        # Time.
        offered = aw.valid & w.valid & ~accepts & ~bank.s_axil_bvalid
        write_wait, read_wait = Signal(range(WRITE_CLK + 2)), Signal(range(READ_CLK + 2))
        free = self.quiet | ~waits | ~allowed
        with m.If(~offered):
            m.d.sync += write_wait.eq(0)
        with m.Elif(free & (write_wait <= WRITE_CLK)):
            m.d.sync += write_wait.eq(write_wait + 1)
        with m.If(~owes_r | bank.s_axil_rvalid):
            m.d.sync += read_wait.eq(0)
        with m.Elif(read_wait <= READ_CLK):
            m.d.sync += read_wait.eq(read_wait + 1)

        bvalid, rvalid = bank.s_axil_bvalid, bank.s_axil_rvalid
        ranges = []
        for key, value in active.items():
            field = self.map[key[0]][key[1]]
            ranges.append((value >= field.low) & (value <= field.high))
        m.d.comb += [
            self.bus_ok.eq(
                _stable(m, bvalid, self.bready, bank.s_axil_bresp, "b")
                & _stable(m, rvalid, self.rready, Cat(word, bank.s_axil_rresp), "r")
            ),
            self.pairs_ok.eq(
                (bank.s_axil_wready == accepts)
                & (~accepts | (aw.valid & w.valid & ~owes_b & ~bvalid))
                & (~bvalid | owes_b)
                & (~accepted_before | bvalid)
                & (~rvalid | owes_r)
                & (~takes | ~owes_r)
            ),
            self.outcome_ok.eq(
                (~accepts | (refused_now == ~allowed))
                & (~bvalid | ((bank.s_axil_bresp == SLVERR) == owed_refusal))
                & (~rvalid | read_ok)
            ),
            self.writes_ok.eq(
                Cat(active[key] == expected[key] for key in model).all()
                & (accepts | ~(strobes_before | quick_before))
                & (~refused_now | ~accepts | ~(strobes_before | quick_before))
            ),
            self.boundary_ok.eq(
                (
                    (quiet_before & pending_before)
                    | (Cat(active[key] == model[key] for key in settled).all() & ~strobes_before)
                )
                & (bank.pause == (bank.pending | ~bank.settings.enable))
            ),
            self.range_ok.eq(Cat(ranges).all()),
            self.live_ok.eq(
                (write_wait <= WRITE_CLK)
                & (read_wait <= READ_CLK)
                & (~ar.valid | bank.s_axil_arready | owes_r)
                & (~owes_b | bvalid)
            ),
            self.helper_ok.eq(
                (~bank.pending | (aw.waits & w.waits & allowed & waits & ~accepts & ~bvalid))
                & ~(accepts & ~(aw.waits & w.waits))
                & (owes_b == bvalid)
                & (owes_r == (self.probe_reading | rvalid))
                & ~(self.probe_reading & rvalid)
                & (~self.probe_reading | (self.probe_address == address[2:]))
                & (~offered | bank.pending | (write_wait == 0))
                & (~bank.pending | (write_wait <= 1))
                & (~accepts | (write_wait <= 2))
                & (
                    ~self.probe_reading
                    | (read_wait == 0)
                    | ((read_wait == 1) & quick_before & accepts)
                )
            ),
            self.interesting.eq(
                accepted_before
                & ~owed_refusal
                & owes_r
                & ar.valid
                & (model["phases", "guard_clk"] == 9)
            ),
        ]
        return m


def _job(title: str, method: str, run: Callable[[], tuple[int | None, int, dict[str, Any]]]):
    """Job of one row; ``run`` returns the depth reached if it held, the depth tried, and more."""

    def job() -> Row:
        start = time.perf_counter()
        depth, tried, more = run()
        return {
            "property": f"registers: {title}",
            "method": method,
            "depth": tried if depth is None else depth,
            "seconds": time.perf_counter() - start,
            "status": "FAILED" if depth is None else "proved",
            **more,
        }

    return job


def _induction_job(name: str, sizes: Sequence[HeadParams]) -> Callable[[], Row]:
    def run() -> tuple[int | None, int, dict[str, Any]]:
        depths = [
            prove._prove(
                prove._Design.of(RegisterMiter(params)),
                tuple(dict.fromkeys((name, *_CARRIERS, "helper_ok"))),
                from_reset=True,
            )
            for params in sizes
        ]
        return None if None in depths else max(depths), prove.MAX_DEPTH, {}

    title = f"{REGISTER_PROPERTIES[name]} ({len(sizes)} sizes)"
    return _job(title, "temporal induction from reset", run)


def _refutation_job(name: str, reach: bool) -> Callable[[], Row]:
    """Job that finds each bug as a trace, and the interesting state if asked to."""
    bugs, params = REGISTER_BUGS[name], REGISTER_SIZES[0]

    def run() -> tuple[int | None, int, dict[str, Any]]:
        found = [
            (
                bug,
                prove._find(
                    prove._Design.of(RegisterMiter(params, bug)), (name,), BUG_CLK, from_reset=True
                ),
            )
            for bug in bugs
        ]
        more: dict[str, Any] = {
            "seeded_bugs": [{"name": bug.name, "trace_clk": clock} for bug, clock in found]
        }
        clocks = [clock for _, clock in found]
        if reach:
            design = prove._Design.of(RegisterMiter(params))
            clocks.append(prove._reach(design, BUG_CLK, from_reset=True))
            more["reached_clk"] = clocks[-1]
        return None if None in clocks else max(clocks), BUG_CLK, more

    title = f"seeded bugs refuted, {len(bugs)}: {REGISTER_PROPERTIES[name]}"
    return _job(title, "traces from reset, SAT", run)


def register_properties(
    names: Sequence[str] = tuple(REGISTER_PROPERTIES),
    sizes: Sequence[HeadParams] = REGISTER_SIZES,
) -> list[Callable[[], Row]]:
    """Jobs that prove the properties, then refute each one's bugs; each gives a row."""
    return [
        *(_induction_job(name, sizes) for name in names),
        *(_refutation_job(name, at == 0) for at, name in enumerate(names)),
    ]


def prove_registers(names: Sequence[str] = tuple(REGISTER_PROPERTIES)) -> dict[str, Any]:
    """Prove the register bank.

    Returns
    -------
    dict
        ``config_hash``, ``proved``, and ``rows`` as `synth.prove.run_proofs` returns them.

    """
    return prove._outcome(REGISTER_SIZES[0], register_properties(names))
