"""Register bank against its reference: every access, any stalls, settings that wait."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from test_hw_bench import SMALL, Clocked, StreamRules, elaborated, seeds, simulate, stalls

from hw.packet import PacketError
from hw.presets import PRESETS
from hw.register_bank import OKAY, SLVERR, RegisterBank
from hw.registers import RegisterMap
from sim.reference.register_bank import Effect, RegisterBankModel
from sim.reference.status import StatusClock, status_values

HEADS = {
    "tiny": PRESETS["tiny"],
    "tiny-layer": PRESETS["tiny-layer"],
    "three-subtiles": PRESETS["three-subtiles"],
    "all-one": SMALL["all-one"],
    "bytes": SMALL["bytes"],
}
BUS_OUTPUTS = (
    "s_axil_awready", "s_axil_wready", "s_axil_bresp", "s_axil_bvalid", "s_axil_arready",
    "s_axil_rdata", "s_axil_rresp", "s_axil_rvalid", "irq", "pause", "pending",
)  # fmt: skip
COMMANDS = ("soft_reset", "test_start")


def heads(*names: str) -> pytest.MarkDecorator:
    chosen = names or tuple(HEADS)
    return pytest.mark.parametrize("params", [HEADS[n] for n in chosen], ids=chosen)


class Bank:
    """Drives every input of the bank, and compares every output in every clock.

    Writes and reads are queued; each channel is stalled at will. The surroundings are busy at
    will, but fall quiet while something is pending, as the bank may expect.
    """

    def __init__(
        self, clk: Clocked, params, stall: Callable[[], bool] = lambda: False, seed: int = 0
    ) -> None:
        self.clk, self.params, self.stall = clk, params, stall
        self.model = RegisterBankModel(params)
        self.rng = random.Random(seed)
        self.live: dict[tuple[str, str], int] = {}
        self.trims = [self.rng.randrange(-2, 2) for _ in range(256)]
        self.counts = [self.rng.randrange(-2, 2) for _ in range(256)]
        self.restart()

    def restart(self) -> None:
        """After a reset of the hardware."""
        self.model.reset()
        self.history: list[StatusClock] = []
        self.aw: list[int] = []  # addresses, and data, that are still to be accepted
        self.w: list[tuple[int, int]] = []
        self.ar: list[int] = []
        self.responses: list[int] = []  # that are owed
        self.answers: list[tuple[int, int]] = []
        self.got_b: list[int] = []
        self.got_r: list[tuple[int, int]] = []
        self.valid = {"aw": False, "w": False, "ar": False}
        self.rules = {"b": StreamRules("B"), "r": StreamRules("R")}
        self.last = {"quiet": 0, "pending": 0, "strobes": Effect(), "reading": None, "shown": 0}
        self.busy = 0
        self.settings_seen = self.model.settings
        self.test_done = False
        self.rises = {"b": False, "r": False}

    # --- what is asked for --------------------------------------------------------------------
    def write(self, address: int, data: int, strobe: int = 0b1111) -> None:
        self.aw.append(address)
        self.w.append((data & 0xFFFFFFFF, strobe))

    def read(self, address: int) -> None:
        self.ar.append(address)

    @property
    def open(self) -> bool:
        waiting = self.aw or self.w or self.ar or self.responses or self.answers
        return bool(waiting or self.last["reading"] is not None)

    async def settle(self, limit: int = 200, **events) -> None:
        for _ in range(limit):
            if not self.open:
                return
            await self.clock(**events)
        raise AssertionError("an access was not answered")

    # --- one clock ----------------------------------------------------------------------------
    def _inputs(self, events: dict) -> StatusClock:
        clk, names = self.clk, self.clk.dut.signature.members
        for name, queue in (("aw", self.aw), ("w", self.w), ("ar", self.ar)):
            self.valid[name] = bool(queue) and (self.valid[name] or not self.stall())
        data, strobe = self.w[0] if self.w else (self.rng.getrandbits(32), 0b1111)
        clk.set(
            s_axil_awvalid=self.valid["aw"],
            s_axil_awaddr=self.aw[0] if self.aw else self.rng.getrandbits(12),
            s_axil_wvalid=self.valid["w"],
            s_axil_wdata=data,
            s_axil_wstrb=strobe,
            s_axil_arvalid=self.valid["ar"],
            s_axil_araddr=self.ar[0] if self.ar else self.rng.getrandbits(12),
            s_axil_bready=not self.stall(),
            s_axil_rready=not self.stall(),
        )
        kinds = [name for name in StatusClock._fields if name in names]
        event = StatusClock(**{name: events[name] for name in kinds if name in events})
        clk.set(**{name: getattr(event, name) for name in kinds})
        for name in ("occupancy", "subtile", "column", "oldest_age", "head_latency_clk"):
            if name in names and name in events:
                clk.set(**{name: events[name]})
        clk.set(quiet=self.busy == 0)
        if "test_done" in names:
            clk.set(test_done=events.get("test_done", False))
        return event

    def _live(self, address: int, event: StatusClock, events: dict) -> dict:
        """What the hardware shows at an address in this clock."""
        found = self.model.map.at(address)
        if found is None:
            return {}
        register, index = found
        if register.name in ("sticky", *(counter.name for counter in self.model.map.counters)):
            values = status_values(self.params, self.history)
            live = {(name, "count"): value for name, value in values.counters.items()}
            return live | {("sticky", name): value for name, value in values.sticky.items()}
        return {
            ("latency", "latency_clk"): events.get("head_latency_clk", 0),
            ("latency", "query_latency_clk"): 0,
            ("state", "idle"): event.idle,
            ("state", "pending"): self.clk.get("pending"),
            ("state", "stale"): event.stale,
            ("state", "test_done"): self.test_done,
            ("occupancy", "tokens"): events.get("occupancy", 0),
            ("pointer", "subtile"): events.get("subtile", 0),
            ("pointer", "column"): events.get("column", 0),
            ("oldest_age", "ticks"): events.get("oldest_age", 0),
            ("trim", "offset"): self.trims[index],
            ("test_count", "sum"): self.counts[index],
        }

    def _strobes(self) -> Effect:
        """What the bank asks the surroundings to do in this clock."""
        clk, names = self.clk, self.clk.dut.signature.members
        commands = {name for name in COMMANDS if name in names and clk.get(name)}
        array = None
        if "trim_write" in names and clk.get("trim_write"):
            array = ("trim", *clk.get("write_index", "trim_data"))
        if "q_write" in names and clk.get("q_write"):
            array = ("test_q", *clk.get("write_index", "q_data"))
        return Effect(commands=frozenset(commands), array=array)

    def _accepted(self) -> None:
        """Address and data are accepted: in the clock before, the write was done."""
        clk, last = self.clk, self.last
        assert self.valid["aw"] and self.valid["w"], "accepted before both were there"
        address, (data, strobe) = self.aw.pop(0), self.w.pop(0)
        self.valid["aw"] = self.valid["w"] = False
        offer = self.model.offered(address, data, strobe)
        if offer.waits:
            assert last["quiet"] and last["pending"], "it did not wait"
        effect = self.model.write(address, data, strobe)
        strobes = last["strobes"]
        assert strobes.array == effect.array
        assert strobes.commands == effect.commands & set(COMMANDS)
        if effect.array and effect.array[0] == "trim":
            self.trims[effect.array[1]] = effect.array[2]
        cleared = effect.cleared
        if "soft_reset" in effect.commands:
            cleared = frozenset(self.model.map.events)
        if effect.commands & {"soft_reset", "test_start"}:
            self.test_done = False
        forget = bool(effect.commands & {"soft_reset", "clear_counters"})
        self.history[-1] = self.history[-1]._replace(clear=forget, clear_sticky=cleared)
        self.responses.append(SLVERR if offer.refused else OKAY)
        assert clk.get("s_axil_bvalid") == 0, "answered before it was accepted"

    async def clock(self, **events) -> None:
        clk, last, names = self.clk, self.last, self.clk.dut.signature.members
        held = clk.get(*BUS_OUTPUTS)
        event = self._inputs(events)
        assert clk.get(*BUS_OUTPUTS) == held, "an output of the bus depends on an input"

        ready = clk.get("s_axil_awready")
        assert clk.get("s_axil_wready") == ready
        waited = len(self.responses)
        if ready:
            self._accepted()
        else:
            assert last["strobes"] == Effect(), "done but not accepted"
        # What software has stored.
        settings = self.model.settings
        for name, values in settings.items():
            view = clk.ctx.get(getattr(clk.dut.settings, name))
            assert (tuple(view) if len(values) > 1 or "levels" in name else (view,)) == values
        if settings != self.settings_seen:
            assert last["quiet"] and last["pending"]
            self.settings_seen = settings
        words = self.model.words
        assert clk.get("pause") == (clk.get("pending") or not settings["enable"][0])
        if "head_select" in names:
            assert clk.get("head_select") == words["head_select"]
        if "test_subtile" in names:
            shown = self.model.map["test"].values(words["test"])
            assert {name: clk.get(f"test_{name}") for name in shown} == shown
        if clk.now % 4 == 0:
            sticky = status_values(self.params, self.history).sticky
            enabled = self.model.map["irq_enable"].values(words["irq_enable"])
            assert clk.get("irq") == any(enabled[name] and sticky[name] for name in sticky)

        # Responses: each a clock after its acceptance, and until it is taken.
        bvalid, bready = clk.get("s_axil_bvalid"), bool(clk.ctx.get(clk.dut.s_axil_bready))
        assert bvalid == bool(waited), "a response too many, or too late"
        if self.rules["b"].clock(bvalid, bready, clk.get("s_axil_bresp")):
            assert clk.get("s_axil_bresp") == self.responses[0]
            self.got_b.append(self.responses.pop(0))
        # Reads: looked up in the first clock after the address was taken without a trim write.
        rvalid, rready = clk.get("s_axil_rvalid"), bool(clk.ctx.get(clk.dut.s_axil_rready))
        assert rvalid == bool(self.answers), "data too many, or too late"
        if self.rules["r"].clock(rvalid, rready, clk.get("s_axil_rdata", "s_axil_rresp")):
            assert clk.get("s_axil_rdata", "s_axil_rresp") == self.answers[0]
            self.got_r.append(self.answers.pop(0))
        if last["reading"] is not None and not ("trim_write" in names and clk.get("trim_write")):
            address = last["reading"]
            index = clk.get("read_index") if "read_index" in names else 0
            if "trim_read" in names:
                clk.set(trim_read=self.trims[index])
            if "count_read" in names:
                clk.set(count_read=self.counts[index])
            word, refused = self.model.read(address, self._live(address, event, events))
            self.answers.append((word, SLVERR if refused else OKAY))
            last["reading"] = None
        if self.valid["ar"] and clk.get("s_axil_arready"):
            last["reading"] = self.ar.pop(0)
            self.valid["ar"] = False

        if events.get("test_done"):
            self.test_done = True
        last |= {"quiet": self.busy == 0, "pending": clk.get("pending"), "strobes": self._strobes()}
        if last["strobes"].commands:
            assert "test_start" not in last["strobes"].commands or not settings["enable"][0]
        await clk.edge()
        self.history.append(event)
        self.busy = max(0, self.busy - 1)


def random_events(rng: random.Random, params) -> dict:
    lanes = params.heads * params.lanes_per_beat
    return {
        "failed": rng.choice((PacketError.NONE, PacketError.NONE, *PacketError)),
        "full_scale_lanes": rng.choice((0, 0, rng.randint(0, lanes))),
        "saturated_results": rng.choice((0, 0, rng.randint(0, lanes))),
        "advance": rng.random() < 0.3,
        "answered": rng.random() < 0.3,
        "refreshed": rng.random() < 0.1,
        "idle": rng.random() < 0.5,
        "stale": rng.random() < 0.3,
        "occupancy": rng.randint(0, params.window),
        "subtile": rng.randrange(params.subtiles),
        "column": rng.randrange(params.columns),
        "oldest_age": rng.getrandbits(params.age_bits) if params.age_bits else 0,
        "test_done": rng.random() < 0.1,
    }


def random_write(rng: random.Random, registers: RegisterMap) -> tuple[int, int, int]:
    """Address, data and strobes, mostly of what can be written and will be accepted."""
    if rng.random() < 0.1:
        return rng.randrange(0, 4096), rng.getrandbits(32), 0b1111
    register = rng.choice([r for r in registers if r.writable or rng.random() < 0.1])
    word = 0
    for field in register.fields:
        ends = (field.low, field.high, field.low - 1, field.high + 1)
        anything = rng.randint(field.low, field.high)
        word = field.put(word, rng.choice((anything, anything, anything, *ends)))
    if register.name == "control" and rng.random() < 0.5:
        word &= ~1  # or the self-test would hardly ever run
    if register.name == "command":
        word = rng.choice((0, 1, 2, 4, 4, 4, 6, 5))
    if rng.random() < 0.1:
        word |= 1 << rng.randrange(32)
    strobe = 0b1111 if rng.random() < 0.8 else rng.getrandbits(4)
    return (
        register.offset + 4 * rng.randrange(register.entries) + rng.choice((0, 0, 3)),
        word,
        strobe,
    )


@heads()
@seeds()
def test_random_traffic(params, seed):
    rng = random.Random(seed)
    registers = RegisterMap(params)
    addresses = [r.offset + 4 * entry for r in registers for entry in range(r.entries)]

    async def bench(clk: Clocked) -> None:
        bank = Bank(clk, params, stalls(rng), seed)
        for now in range(500):
            if len(bank.aw) < 2 and rng.random() < 0.5:
                bank.write(*random_write(rng, registers))
            if len(bank.ar) < 2 and rng.random() < 0.5:
                bank.read(rng.choice((rng.choice(addresses), rng.choice(addresses), now * 8)))
            if not bank.clk.get("pending") and rng.random() < 0.05:
                bank.busy = rng.randint(1, 12)
            await bank.clock(**random_events(rng, params))
            if rng.random() < 0.003:
                await clk.reset()
                bank.restart()
        bank.stall = lambda: False
        await bank.settle()

    simulate(RegisterBank(params), bench)


@heads("tiny-layer", "all-one")
def test_every_register_reads_as_after_reset_and_what_is_beside_is_refused(params):
    registers = RegisterMap(params)
    mapped = {r.offset + 4 * entry for r in registers for entry in range(r.entries)}
    addresses = sorted({a for m in mapped for a in (m - 4, m, m + 4) if 0 <= a < 4096} | {0xFFC})

    async def bench(clk: Clocked) -> None:
        bank = Bank(clk, params)
        bank.trims = bank.counts = [-1] * 256
        for address in addresses:
            bank.read(address)
            while bank.open:
                await bank.clock(idle=True)
            found = registers.at(address)
            expected = SLVERR if found is None else OKAY
            word, response = bank.got_r.pop()
            assert response == expected
            if found is None:
                assert word == 0
            elif found[0].name in ("trim", "test_count"):
                assert word == 0xFFFFFFFF
            elif not found[0].name.startswith(("clocks", "state")):
                assert word == found[0].reset

    simulate(RegisterBank(params), bench)


def test_writes_beside_registers_and_to_read_only_ones_are_refused():
    params = HEADS["tiny"]
    registers = RegisterMap(params)
    beside = {r.offset + 4 * r.entries for r in registers} | {0, 0x0C0, 0xC00, 0xFFC}

    async def bench(clk: Clocked) -> None:
        bank = Bank(clk, params)
        for address in sorted(beside):
            found = registers.at(address)
            if found is None or not found[0].writable:
                bank.write(address, 0)
                await bank.settle()
        assert set(bank.got_b) == {SLVERR} and len(bank.got_b) > 20

    simulate(RegisterBank(params), bench)


@heads("tiny", "all-one")
def test_a_setting_waits_at_the_bus_while_reads_go_on(params):
    async def bench(clk: Clocked) -> None:
        bank = Bank(clk, params)
        bank.busy = 20
        bank.write(0x044, 0x201 if params.write_max_clk < 2 else 0x202)
        bank.read(0x044)
        bank.read(0x080)
        for _ in range(20):
            await bank.clock()
        assert bank.got_b == []
        assert bank.got_r == [(bank.model.map["phases"].reset, OKAY), (0b10, OKAY)]
        assert clk.get("pause", "pending") == (1, 1)
        await bank.settle()
        assert bank.got_b == [OKAY]
        assert clk.get("pause", "pending") == (0, 0)
        assert clk.ctx.get(clk.dut.settings.guard_clk) == 2

    simulate(RegisterBank(params), bench)


@heads("tiny")
def test_responses_and_data_come_in_their_time(params):
    """Immediate write, waiting write, read, as the class says."""

    async def bench(clk: Clocked) -> None:
        bank = Bank(clk, params)
        for address, data, expected in (
            (0x068, 1, RegisterBank.response_clk),
            (0x000, 1, RegisterBank.response_clk),
            (0x050, 1, RegisterBank.response_clk + 1),
        ):
            start = clk.now
            bank.write(address, data)
            while not clk.get("s_axil_bvalid"):
                await bank.clock()
            assert clk.now - start == expected
            await bank.settle()
        start = clk.now
        bank.read(0x068)
        while not clk.get("s_axil_rvalid"):
            await bank.clock()
        assert clk.now - start == RegisterBank.read_clk
        await bank.settle()
        await bank.clock(failed=PacketError.COMMAND)
        assert clk.get("irq")
        assert RegisterBank.latency_clk == 1

    simulate(RegisterBank(params), bench)


@pytest.mark.parametrize("first", ("address", "data"))
def test_address_and_data_are_accepted_together(first):
    async def bench(clk: Clocked) -> None:
        bank = Bank(clk, HEADS["tiny"])
        bank.write(0x068, 1)
        late = "w" if first == "address" else "aw"
        queue = getattr(bank, late)
        setattr(bank, late, [])
        for _ in range(5):
            await bank.clock()
            assert clk.get("s_axil_awready", "s_axil_wready", "s_axil_bvalid") == (0, 0, 0)
        setattr(bank, late, queue)
        await bank.settle()
        assert bank.got_b == [OKAY]

    simulate(RegisterBank(HEADS["tiny"]), bench)


def test_partial_writes_keep_the_other_bytes():
    params = HEADS["tiny"]

    async def bench(clk: Clocked) -> None:
        bank = Bank(clk, params)
        bank.write(0x048, 0x11223344)
        bank.write(0x048, 0xAABBCCDD, 0b0101)
        bank.write(0x048, 0x00BB00DD, 0b1000)  # a level of zero: refused, and nothing changes
        bank.write(0x048, 0, 0)
        bank.read(0x048)
        await bank.settle()
        bank.read(0x048)
        await bank.settle()
        assert bank.got_b == [OKAY, OKAY, SLVERR, OKAY]
        assert bank.got_r[-1] == (0x11BB33DD, OKAY)

    simulate(RegisterBank(params), bench)


def test_self_test_is_refused_while_enabled_and_waits_otherwise():
    params = HEADS["tiny"]

    async def bench(clk: Clocked) -> None:
        bank = Bank(clk, params)
        for address, data in ((0x800, 3), (0x060, 4)):
            bank.write(address, data)
        await bank.settle()
        assert bank.got_b == [SLVERR, SLVERR]
        bank.got_b.clear()
        bank.write(0x040, 0)
        await bank.settle()
        assert clk.get("pause", "pending") == (1, 0)
        bank.busy = 10
        bank.write(0x804, 3)
        for _ in range(10):
            await bank.clock()
        assert clk.get("pending") == 1
        bank.write(0x070, 0x401 if params.subtiles > 1 else 0x400)
        bank.write(0x060, 4)
        bank.write(0x060, 5)  # with a soft reset it would start while enabled
        await bank.settle()
        await bank.clock(test_done=True)
        bank.read(0x080)
        await bank.settle()
        assert bank.got_b == [OKAY, OKAY, OKAY, OKAY, SLVERR]
        assert bank.got_r == [(0b1000, OKAY)]
        for command, left in ((4, 0b0000), (0, 0b1000), (1, 0b0000)):  # test_start, none, reset
            bank.write(0x060, command)
            await bank.settle()
            if command == 0:
                await bank.clock(test_done=True)
            bank.read(0x080)
            await bank.settle()
            assert bank.got_r[-1] == (left, OKAY)

    simulate(RegisterBank(params), bench)


def test_soft_reset_puts_settings_back_and_forgets():
    params = HEADS["tiny-layer"]

    async def bench(clk: Clocked) -> None:
        bank = Bank(clk, params)
        for address, data in ((0x040, 0), (0x044, 0x303), (0x050, 2), (0x068, 0xFF), (0x06C, 2)):
            bank.write(address, data)
        await bank.settle()
        await bank.clock(failed=PacketError.STEP, advance=True)
        await bank.clock()
        assert clk.get("irq", "pause") == (1, 1)
        bank.busy = 4
        bank.write(0x060, 1)
        await bank.settle(failed=PacketError.NONE)
        assert clk.get("irq", "pause") == (0, 0)
        for address in (0x040, 0x044, 0x050, 0x068, 0x06C, 0x064, 0x0C0, 0x0D8):
            bank.read(address)
        await bank.settle()
        expected = [bank.model.map[n].reset for n in ("control", "phases", "sinks")]
        assert [word for word, _ in bank.got_r] == [*expected, 0xFF, 2, 0, 0, 0]

    simulate(RegisterBank(params), bench)


def test_an_event_in_the_clock_of_its_clear_is_kept():
    params = HEADS["tiny"]

    async def bench(clk: Clocked) -> None:
        bank = Bank(clk, params)
        bank.write(0x068, 1)
        await bank.settle()
        for failed, expected in ((PacketError.COMMAND, 1), (PacketError.NONE, 0)):
            await bank.clock(failed=PacketError.COMMAND)
            bank.write(0x064, 1)
            await bank.clock(failed=failed)  # offered and done
            assert clk.get("irq") == expected
            await bank.settle()
        await bank.clock(failed=PacketError.COMMAND)
        bank.write(0x064, 1, 0b1110)  # not this byte
        await bank.settle()
        assert clk.get("irq") == 1
        bank.write(0x060, 2)
        await bank.clock(advance=True)
        await bank.settle()
        bank.read(0x0C0)
        await bank.settle()
        assert bank.got_r == [(1, OKAY)]

    simulate(RegisterBank(params), bench)


def test_reset_drops_what_is_under_way():
    params = HEADS["tiny"]

    async def bench(clk: Clocked) -> None:
        for clocks in range(5):
            bank = Bank(clk, params)
            bank.write(0x050, 2)
            bank.read(0x000)
            for _ in range(clocks):
                await bank.clock()
            await clk.reset()
            clk.set(s_axil_awvalid=0, s_axil_wvalid=0, s_axil_arvalid=0)
            assert clk.get("s_axil_bvalid", "s_axil_rvalid", "pending", "pause") == (0, 0, 0, 0)
            bank.restart()
            bank.read(0x050)
            await bank.settle()
            assert bank.got_r == [(0, OKAY)]

    simulate(RegisterBank(params), bench)


def test_members_of_absent_features_are_absent():
    ports = set(elaborated(RegisterBank(HEADS["all-one"])).signature.members)
    assert not ports & {
        "head_select", "saturated_results", "stale", "oldest_age", "refreshed", "write_index",
        "read_index", "trim_write", "q_write", "test_start", "test_subtile",
    }  # fmt: skip


def test_reference():
    model = RegisterBankModel(HEADS["tiny"])
    assert model.offered(0x044, 0x101).waits and not model.offered(0x044, 0x101).refused
    assert model.offered(0x044, 0x100).refused and not model.offered(0x044, 0x100).waits
    assert model.offered(0x030, 0).refused
    model.write(0x044, 0x101)
    assert model.settings["write_clk"] == (1,)
    assert model.write(0x060, 3).commands == {"soft_reset", "clear_counters"}
    assert model.settings["write_clk"] == (HEADS["tiny"].write_clk,)
    assert model.write(0x404, 0xFFFFFFFF).array == ("trim", 1, -1)
    assert model.write(0x064, 0b101).cleared == {"command", "code"}
    assert model.read(0x404, {("trim", "offset"): -2}) == (0xFFFFFFFE, False)
    with pytest.raises(KeyError, match="live must hold"):
        model.read(0x0C0, {})
