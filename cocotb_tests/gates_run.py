"""Random packets and register accesses, every output looked at; of a netlist and of its source."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, Timer

from cocotb_tests.bench import CLOCK_NS, Bench, load_job
from cocotb_tests.soak_run import mix
from cocotb_tests.streams import Received
from cocotb_tests.traffic import Traffic
from hw.layer import layer_ports, stream_prefixes
from hw.params import HeadParams
from sim.results import write_text_whole

#: How much more often than in a soak resets and register accesses come.
OFTEN = 10.0


class GatesBench(Bench):
    """A bench that makes a digest of all answers, and the clocks in which their beats left."""

    def __init__(self, dut: Any, params: HeadParams, **analog: Any) -> None:
        super().__init__(dut, params, library=False, **analog)
        self._digests = [hashlib.sha256() for _ in range(params.heads)]

    @property
    def digest(self) -> str:
        """Digest so far; in which order heads answer within a clock makes no difference."""
        return hashlib.sha256(b"".join(own.digest() for own in self._digests)).hexdigest()

    def _compare(self, head: int, received: Received) -> None:
        self._digests[head].update(repr(received).encode())
        super()._compare(head, received)


def strobes(params: HeadParams) -> dict[str, str]:
    """Outputs that mean something only while another one is high, by name."""
    found = {"ana_k_code": "ana_k_write", "ana_v_code": "ana_v_write"}
    for head in range(params.heads):
        results = stream_prefixes(params, head)[1]
        found |= {f"{results}_{name}": f"{results}_tvalid" for name in ("tdata", "tlast")}
    found |= {f"s_axil_{name}": "s_axil_rvalid" for name in ("rdata", "rresp")}
    return found | {"s_axil_bresp": "s_axil_bvalid"}


class Outputs:
    """Looks at every output that means something; each must be 0 or 1."""

    def __init__(self, dut: Any, params: HeadParams) -> None:
        outputs = [port.name for port in layer_ports(params) if port.direction == "out"]
        self._strobes = strobes(params)
        self._looks = {name: getattr(dut, name)._handle.get_signal_val_binstr for name in outputs}
        self._known = re.compile("[01]+").fullmatch

    def unknown(self) -> dict[str, str]:
        """Outputs that are not known, by name, with what they are."""
        values = {name: look() for name, look in self._looks.items()}
        return {
            name: value
            for name, value in values.items()
            if not self._known(value) and values.get(self._strobes.get(name, ""), "1") != "0"
        }

    async def watch(self, clk: Any) -> None:
        """Look in every clock."""
        edge = FallingEdge(clk)
        while True:
            await edge
            unknown = self.unknown()
            assert not unknown, f"outputs must be known after reset, not {unknown}"


async def power_up(dut: Any, params: HeadParams) -> None:
    """Reset for two clocks, the least there is, with nothing known before."""
    for port in layer_ports(params):
        if port.direction == "in":
            getattr(dut, port.name).value = 0
    dut.rst.value = 1
    for level in (0, 1, 0, 1, 0):
        dut.clk.value = level
        await Timer(CLOCK_NS, "ns")
    dut.rst.value = 0
    await Timer(CLOCK_NS, "ns")


@cocotb.test()
async def random_packets(dut: Any) -> None:
    """Answers are compared with the functional models, and told apart by a digest."""
    job = load_job()
    params = HeadParams(**job["params"])
    outputs = Outputs(dut, params)
    await Timer(1, "ps")
    unknown = len(outputs.unknown()) > 0
    await power_up(dut, params)
    assert not outputs.unknown(), f"a reset must make outputs known, not {outputs.unknown()}"
    start = time.perf_counter()
    bench = GatesBench(dut, params, **job["analog"])
    cocotb.start_soon(outputs.watch(dut.clk))
    await bench.start()
    figures = await mix(bench, Traffic(bench, job["seed"]), job["packets"], often=OFTEN) | {
        "answers": bench.answers,
        "lanes_compared": bench.lanes_compared,
        "mismatches": len(bench.mismatches),
        "clocks": bench.bridge.clocks,
        "digest": bench.digest,
        "unknown_at_power_up": unknown,
        "seconds": time.perf_counter() - start,
    }
    write_text_whole(Path(job["figures"]), json.dumps(figures, indent=2) + "\n")
