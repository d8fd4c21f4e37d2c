"""Random packets, stalls, resets and register accesses; the simulated side of `gaincell soak`."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, with_timeout

from cocotb_tests.bench import Bench, load_job
from cocotb_tests.traffic import BOTH, FLUSH, KINDS, QUERY, WRITE, Traffic
from hw.params import HeadParams
from sim.results import write_text_whole

#: Packets queued ahead.
AHEAD = 8
PATIENCE_US = 500
#: Registers that say how the head works, with the fields that the soak keeps as they are.
SETTINGS = {
    "control": {"enable": 1},
    "phases": {},
    "s_levels": {},
    "a_levels": {},
    "sinks": {},
    "age_budget": {},
    "age_tick": {},
    "refresh_period": {},
}
#: Larger values would make the phases too long, or the ticks too rare, to see much of them.
LIMITS = {"guard_clk": 3, "age_tick": 300, "refresh_period": 400}


class Soak:
    """What happens at random besides packets."""

    def __init__(self, bench: Bench, traffic: Traffic) -> None:
        self.bench, self.traffic, self.rng = bench, traffic, traffic.rng
        self.done: Counter[str] = Counter()  #: how often each thing has been done

    async def _host(self, access: Any) -> Any:
        return await with_timeout(access, PATIENCE_US, "us")

    async def settle(self) -> None:
        """Let everything be answered, and compare every counter."""
        await self.bench.drain()
        await self.bench.check()
        self.done["checks"] += 1

    async def configure(self) -> None:
        """Refresh often, if the head can."""
        if self.bench.params.refresh:
            clocks = self.rng.randint(64, LIMITS["refresh_period"])
            await self._host(self.bench.registers.write("refresh_period", clocks=clocks))
            await self._host(self.bench.registers.write("control", enable=1, refresh_enable=1))

    async def hard_reset(self) -> None:
        """Anywhere, or after everything has been compared."""
        if self.rng.random() < 0.5:
            await self.settle()
        else:
            await ClockCycles(self.bench.dut.clk, self.rng.randint(1, 100))
            assert not self.bench.mismatches, self.bench.mismatches[0]
        await self.bench.reset()
        await self.configure()

    async def soft_reset(self) -> None:
        """Through the registers; packets, and results held, are under way."""
        await ClockCycles(self.bench.dut.clk, self.rng.randint(1, 60))
        await self._host(self.bench.registers.write("command", soft_reset=1))
        await self.configure()

    async def read(self) -> None:
        """Read any registers; what software can know is compared."""
        host = self.bench.registers
        for _ in range(self.rng.randint(1, 6)):
            register = self.rng.choice(host.map.registers)
            entry = self.rng.randrange(register.entries)
            await self._host(host.read_word(register.offset + 4 * entry))

    async def bad_access(self) -> None:
        """An access that is refused, or that an unlucky draw lets through without harm."""
        host, rng = self.bench.registers, self.rng
        if rng.random() < 0.5:
            await self._host(host.read_word(rng.randrange(0, 2**12, 4)))
            return
        constants = [r for r in host.map if not r.writable]
        register = rng.choice(constants)
        await self._host(host.write_word(register.offset, rng.getrandbits(32)))
        phases = host.map["phases"]
        await self._host(host.write_word(phases.offset, 0))

    async def setting(self) -> None:
        """Change one register of settings."""
        host, rng = self.bench.registers, self.rng
        name = rng.choice([name for name in SETTINGS if name in host.map])
        values = {}
        for field in host.map[name].fields:
            most = LIMITS.get(field.name, LIMITS.get(name, field.high))
            values[field.name] = rng.randint(field.low, min(field.high, most))
        if name == "control" and rng.random() < 0.7:
            values["refresh_enable"] = 1
        values = {field: values[field] for field in values if field in host.map[name]}
        await self._host(host.write(name, **values | SETTINGS[name]))

    async def clear(self) -> None:
        """Clear counters, or sticky bits; nothing is under way, so that it is known what counts."""
        await self.settle()
        host = self.bench.registers
        if self.rng.random() < 0.5:
            await self._host(host.write("command", clear_counters=1))
        else:
            names = [field.name for field in host.map["sticky"].fields]
            await self._host(host.write("sticky", **{self.rng.choice(names): 1}))

    async def trim(self) -> None:
        """Change a lane's offset; nothing is under way."""
        await self.settle()
        host, p = self.bench.registers, self.bench.params
        half = 2 ** (p.trim_bits - 1)
        if p.heads > 1:
            await self._host(host.write("head_select", head=self.rng.randrange(p.heads)))
        lane, offset = self.rng.randrange(p.lanes), self.rng.randrange(-half, half)
        await self._host(host.write("trim", lane, offset=offset))

    async def self_test(self) -> None:
        """Compare the raw sums of one sub-tile of one head."""
        await self.settle()
        host, p, rng = self.bench.registers, self.bench.params, self.rng
        kept = host.model.words["control"]
        await self._host(host.write("control", enable=0))
        head = rng.randrange(p.heads)
        if p.heads > 1:
            await self._host(host.write("head_select", head=head))
        query = self.traffic.codes(p.rows, p.q_bits)
        for row, code in enumerate(query):
            await self._host(host.write("test_q", row, code=code))
        test = {"subtile": rng.randrange(p.subtiles)}
        if p.shots:
            test |= self.traffic.gains()
        await self._host(host.write("test", **test))
        oracle = self.bench.oracle
        await self._host(host.write("command", test_start=1))
        while not (await self._host(host.read("state")))["test_done"]:
            pass
        await self.bench.drain()
        levels = oracle.levels
        result = oracle.heads[head].model.query(
            query,
            s_level=levels["s_levels"][test.get("s_gain", 0)],
            a_level=levels["a_levels"][test.get("a_gain", 0)],
            subtile=test["subtile"],
            mask=oracle.last_probe if oracle.age_mask else None,
        )
        counts = [
            (await self._host(host.read("test_count", lane)))["sum"] for lane in range(p.lanes)
        ]
        assert counts == result.sums.tolist(), f"{counts}, expected {result.sums}"
        await self._host(host.write_word(host.map["control"].offset, kept))

    def things(self) -> dict[str, tuple[float, Any]]:
        """What happens, and its share of the packets before which it does."""
        p = self.bench.params
        things = {
            "hard_reset": (0.0005, self.hard_reset),
            "soft_reset": (0.001, self.soft_reset),
            "read": (0.004, self.read),
            "bad_access": (0.001, self.bad_access),
            "setting": (0.004, self.setting),
            "clear": (0.0003, self.clear),
        }
        if p.trim_bits:
            things["trim"] = (0.0005, self.trim)
        if p.self_test:
            things["self_test"] = (0.0003, self.self_test)
        return things


async def mix(
    bench: Bench,
    traffic: Traffic,
    packets: int,
    *,
    often: float = 1.0,
    on_progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Send random packets and do random things between them; compare everything at the end.

    Parameters
    ----------
    bench, traffic
        A bench that was just started.
    packets
        Packets to send to each head.
    often
        By how much more often than in a long run things are done.
    on_progress
        Called with the number of packets sent so far.

    Returns
    -------
    dict
        Packets sent and malformed, and how often each thing was done.

    """
    params, rng = bench.params, traffic.rng
    soaking = Soak(bench, traffic)
    await soaking.configure()
    things = soaking.things()
    names, shares = list(things), [often * share for share, _ in things.values()]
    sent = malformed = 0
    commands, weights = (WRITE, QUERY, BOTH, FLUSH), (30, 30, 39, 1)
    while sent < packets:
        if rng.random() < 0.002 * often:
            bench.stall(rng.getrandbits(32), rng.choice((0.0, 0.0, 0.1, 0.5, 0.9)))
        if rng.random() < sum(shares):
            name = rng.choices(names, shares)[0]
            await things[name][1]()
            soaking.done[name] += 1
        command = rng.choices(commands, weights)[0]
        if rng.random() < 0.01:
            traffic.malformed(rng.choice(KINDS), command)
            malformed += 1
        elif params.heads > 1 and rng.random() < 0.01:
            traffic.mismatched(*rng.choices(commands, weights, k=params.heads))
        else:
            traffic.any_shot(command)
        sent += 1
        await bench.ahead(AHEAD)
        assert not bench.mismatches, bench.mismatches[0]
        on_progress(sent)
    await soaking.settle()
    things_done = dict(sorted(soaking.done.items()))
    return {"packets": sent, "malformed": malformed, "things": things_done}


@cocotb.test()
async def soak(dut: Any) -> None:
    """Every answer is compared; so are the counters, now and then and at the end."""
    job = load_job()
    bench = Bench(dut, HeadParams(**job["params"]), library=False, **job["analog"])
    await bench.start()
    path = Path(job["progress"])
    start = reported = time.perf_counter()
    cpu = time.process_time()

    def progress(sent: int) -> None:
        nonlocal reported
        if time.perf_counter() - reported > 0.5:
            reported = time.perf_counter()
            path.write_text(str(sent), encoding="utf-8")

    traffic = Traffic(bench, job["seed"])
    share = {"often": job["often"], "on_progress": progress}
    figures = await mix(bench, traffic, job["packets"], **share) | {
        "answers": bench.answers,
        "lanes_compared": bench.lanes_compared,
        "mismatches": len(bench.mismatches),
        "clocks": bench.bridge.clocks,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
    }
    write_text_whole(Path(job["figures"]), json.dumps(figures, indent=2) + "\n")
