"""Mutation campaign: whether anything notices when the design is changed in a small way.

*Netlist mutants.* Yosys' ``mutate`` picks places of flattened netlists evenly and builds all
mutants of one into a netlist whose input ``mutsel`` selects one, so that a simulator is built
once. Picks that change nothing, like a constant put where it stands, are left out.
`cocotb_tests.mutant_run` plays one scenario to each, with the original beside it under the same
inputs: it notes whether the specification is broken, and whether any output differs. For one that
breaks nothing and differs in nothing, Yosys then tries to prove that it is equivalent.

*Source mutants.* Constants and operators that must not change unnoticed are changed in a copy of
the sources, one at a time, and the tests of their blocks are run.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cocotb_tests.runner import SIMULATORS, SimulationError, build_simulation, run_simulation
from hw import registers
from hw.layer import AttentionLayer, layer_ports
from hw.params import HeadParams
from hw.presets import preset
from sim.results import ROOT, write_result
from synth.verilog import component_rtlil
from synth.yosys import YosysError, run_yosys

__all__ = [
    "EXPLANATIONS",
    "POOLS",
    "SOURCE_EXPLANATIONS",
    "NetlistMutant",
    "SourceMutant",
    "mutant_params",
    "run_mutants",
    "source_mutants",
]

#: The bench around the mutants.
TOP = "mutant_bench"

#: Netlists that are mutated, by name.
POOLS = {
    "head": "tiny head, streaming",
    "layer": "tiny layer of two heads, streaming",
    "simple": "tiny head, simple schedule",
}

#: Width of the clock counters in what is mutated: as in a head they would saturate after seconds.
CLOCK_BITS = 12

#: Simulations, Yosys jobs or test runs at a time.
PROCESSES = 2
#: Seconds without a result after which a simulation hangs.
HANG_S = 240.0
#: Clocks from power-up in which the bounded comparison looks for a difference.
BOUND_CLK = 4

#: Why a mutant survives that is not proved equivalent, by `NetlistMutant.place`.
EXPLANATIONS = {
    "sequencer: $mux B towards sequencer.answer__payload": (
        "Value after reset of a tag or error that is always written before it is sent."
    ),
    "sequencer: $mux Y towards sequencer.answer__payload": (
        "Weight of a refused answer: nothing is weighted."
    ),
    "sequencer: $dff Q towards sequencer.label_3": (
        "Tag of a self-test's answer, which is not sent."
    ),
    "sequencer: $mux B towards sequencer.guard_v": (
        "Value after reset: the phase ends in the next clock, before any packet can be offered."
    ),
    "sequencer: $dff Q towards sequencer.yields": (
        "Who goes first when a packet and a refresh both wait: either comes soon enough."
    ),
    "receiver: $mux B towards receiver.packet__payload": (
        "Value after reset of a field that is always written before the packet is offered."
    ),
    "receiver: $and Y towards receiver.store": (
        "Codes outside a payload: they are not used before the next payload overwrites them."
    ),
    "receiver: $logic_not A towards receiver.store": (
        "Codes of dropped beats: they are not used before the next payload overwrites them."
    ),
    "receiver: $mux A towards receiver.q_codes": (
        "Q kept when a packet that only writes is taken: no query uses it any more."
    ),
    "receiver: $mux A towards receiver.bad_code": (
        "Kept outside a payload: the next header clears it before it is looked at."
    ),
    "receiver: $mux B towards receiver.bad_code": (
        "Value after reset: the next header clears it before it is looked at."
    ),
    "sender: $ne Y towards sender.answer__ready": (
        "A query is admitted only when there is a slot for its answer, so the sender is ready."
    ),
    "step: $and A towards step.owed": ("The sequencer is ready only for a step that is offered."),
    "step: $or Y towards step.answer__ready": (
        "A query is admitted only when there is a place for its answer, so the sender is ready."
    ),
    "sender: $mux B towards sender.sums": (
        "Value after reset of sums that are always written before they are sent."
    ),
    "sender: $dff Q towards sender.oldest": (
        "With the simple schedule there is one slot, and the number of the oldest stays 0."
    ),
    "refresh: $dff Q towards refresh.rewriting": (
        "A rewriting ends before the shortest period does, so no request comes while it lasts."
    ),
    **{
        f"{block}: {cell} {port} towards {block}.elapsed": (
            "A bit that a timer reaches after more clocks than the scenario waits."
        )
        for block in ("ages", "refresh")
        for cell, port in (("$dff", "Q"), ("$dff", "D"), ("$add", "Y"), ("$mux", "Y"))
    },
    **{
        f"readout: $xor A towards readout.accumulator_{lane}": (
            "A pulse in the clock before the readout, in which none is high."
        )
        for lane in range(4)
    },
}
#: The same for source mutants, by `SourceMutant.place`.
SOURCE_EXPLANATIONS = {
    "hw/readout.py: PopulationReadout._lane_sum: zip(pulses, signs, -> zip(signs, pulses,": (
        "Equivalent: the two are only used in their exclusive or, which is symmetric."
    ),
    "hw/register_bank.py: RegisterBank._refused: > -> >=": (
        "Equivalent: a comparison with the least that the bits can say, which is never less."
    ),
    "hw/register_bank.py: RegisterBank._refused: < -> <=": (
        "Equivalent: a comparison with the most that the bits can say, which is never more."
    ),
    "hw/streaming_sequencer.py: StreamingSequencer.elaborate: > -> >=": (
        "Equivalent: with equal lengths array 1 alone keeps queries that far apart."
    ),
    "hw/streaming_sequencer.py: StreamingSequencer.elaborate: "
    "v_pending & ~refresh_pending & array_2 -> v_pending & array_2": (
        "No reachable difference known: while V waits no K is written, so that a refresh's V, if "
        "one waits, begins in that clock and takes the write."
    ),
}


def mutant_params(pool: str = "head") -> HeadParams:
    """Parameters of what is mutated: tiny, with every feature and counters that soon saturate."""
    changed: dict[str, Any] = {
        "head": {},
        "layer": {"heads": 2},
        "simple": {"schedule": "simple"},
    }[pool]
    return dataclasses.replace(preset("tiny"), event_bits=4, **changed)


# --- netlist ------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class NetlistMutant:
    """One mutant of the netlist."""

    pool: str  #: netlist that it is in
    number: int  #: value of ``mutsel`` that switches it on
    command: str  #: Yosys' mutate command, without the control signal
    mode: str  #: inv, const0, const1, or inverted if another bit is 0 (cnot0) or 1 (cnot1)
    block: str  #: component the cell comes from
    cell: str  #: kind of the cell
    port: str  #: port of the cell that is changed
    bit: int  #: bit of the port
    net: str  #: named net at the port, or the first one that the cell drives

    @property
    def place(self) -> str:
        """Where it is, in words that survive small changes of the design."""
        net = re.sub(r"_\d+\.", ".", self.net)  # of whichever head
        return f"{self.block}: {self.cell} {self.port} towards {net}"

    @property
    def description(self) -> str:
        """Where and what."""
        return f"{self.block}: {self.mode} {self.cell} {self.port}[{self.bit}] towards {self.net}"


class _Netlist:
    """Cells of a flat module and what drives what, read from its RTLIL."""

    def __init__(self, text: str) -> None:
        self.kind: dict[str, str] = {}
        self._outputs: dict[str, list[str]] = {}
        self._readers: dict[str, list[str]] = {}
        self._ports: dict[tuple[str, str], str] = {}
        self._width: dict[str, int] = {}
        cell = None
        for line in text.splitlines():
            words = line.split(maxsplit=2)
            if not words:
                continue
            if words[0] == "wire":
                options = line.split()
                width = options[options.index("width") + 1] if "width" in options else "1"
                self._width[options[-1]] = int(width)
            elif words[0] == "cell":
                cell = words[2]
                self.kind[cell] = words[1]
                self._outputs[cell] = []
            elif words[0] == "end":
                cell = None
            elif words[0] == "connect" and cell is not None:
                self._ports[cell, words[1].lstrip("\\")] = words[2]
                nets = re.findall(r"[$\\][^\s{}]+", words[2])
                if words[1] in ("\\Y", "\\Q"):
                    self._outputs[cell] += nets
                else:
                    for net in nets:
                        self._readers.setdefault(net, []).append(cell)

    def towards(self, cell: str) -> str:
        """First named net on the way out of a cell."""
        seen, front = {cell}, [cell]
        while front:
            following = []
            for here in front:
                for net in self._outputs.get(here, ()):
                    if net.startswith("\\"):
                        return _plain(net)
                    following += [c for c in self._readers.get(net, ()) if c not in seen]
            seen.update(following)
            front = following
        return "nothing"

    def bits(self, cell: str, port: str) -> list[str]:
        """What is at each bit of a port, lowest first: a constant's digit, or a net's bit."""
        bits: list[str] = []
        parts = re.findall(
            r"\d+'[01xzm-]+|[$\\]\S+(?: \[\d+(?::\d+)?\])?|-?\d+", self._ports[cell, port]
        )
        for part in reversed(parts):  # highest first
            if "'" in part and part[0].isdigit():
                width, digits = part.split("'")
                bits += reversed(digits.rjust(int(width), "0"))
                continue
            if part.lstrip("-").isdigit():
                bits += reversed(f"{int(part) % 2**32:032b}")
                continue
            net, _, chosen = part.partition(" [")
            if chosen:
                high, _, low = chosen.rstrip("]").partition(":")
                first, last = int(low or high), int(high)
            else:
                first, last = 0, self._width[net] - 1
            bits += [f"{net}:{at}" for at in range(first, last + 1)]
        return bits

    def changes(self, command: str) -> bool:
        """Whether a mutation changes logic: what it puts is not what stands there.

        What a memory holds at power-up is no logic, and no signal could switch it on.
        """
        options = dict(re.findall(r"-(\w+) (\S+)", command))
        if self.kind[options["cell"]].startswith("$meminit"):
            return False
        bits = self.bits(options["cell"], options["port"])
        mode, here = options["mode"], bits[int(options["portbit"])]
        if mode.startswith("const"):
            return here != mode[-1]
        if mode.startswith("cnot"):
            return bits[int(options["ctrlbit"])] in (mode[-1], "x") or (
                ":" in bits[int(options["ctrlbit"])]
            )
        return True


def _plain(name: str) -> str:
    """Name without the marks of Yosys and of Amaranth's numbering."""
    return re.sub(r"\$\d+", "", name.lstrip("\\"))


def _block(cell: str) -> str:
    """Component that a cell comes from; of several heads, of whichever."""
    found = re.match(r"\$flatten\\([a-z_]+[a-z])(_\d+)?\b", cell)
    return found.group(1) if found else "layer"


def _parse(command: str, number: int, netlist: _Netlist, pool: str) -> NetlistMutant:
    options = dict(re.findall(r"-(\w+) (\S+)", command))
    net = _plain(options["wire"]) if "wire" in options else netlist.towards(options["cell"])
    return NetlistMutant(
        pool=pool,
        number=number,
        command=command,
        mode=options["mode"],
        block=_block(options["cell"]),
        cell=netlist.kind.get(options["cell"], "cell"),
        port=options["port"],
        bit=int(options["portbit"]),
        net=net,
    )


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """A mutated netlist."""

    name: str
    layer: AttentionLayer
    flat: Path  #: RTLIL of the original
    verilog: Path  #: bench of the original and of the netlist with every mutant
    mutants: list[NetlistMutant]

    @property
    def top(self) -> str:
        """Module that is mutated."""
        return self.layer.params.top


@contextlib.contextmanager
def _short_clocks() -> Iterator[None]:
    """Build with clock counters, and lengths of ticks and periods, of `CLOCK_BITS`."""
    before = registers._CLOCK_BITS
    registers._CLOCK_BITS = CLOCK_BITS
    try:
        yield
    finally:
        registers._CLOCK_BITS = before


def _flatten(layer: AttentionLayer, folder: Path) -> Path:
    """Write the flat netlist; returns its RTLIL."""
    source, flat = folder / "head.il", folder / "flat.il"
    top = layer.params.top
    source.write_text(component_rtlil(layer, top), encoding="utf-8")
    run_yosys(
        f"read_rtlil {source}",
        f"hierarchy -top {top}",
        # Before flattening, so that new cells still carry their block's name; Icarus cannot read
        # Yosys' way of writing parallel multiplexers.
        "proc",
        "pmuxtree",
        "opt_expr",
        "flatten",
        "opt_expr",
        "opt_clean",
        f"write_rtlil {flat}",
    )
    return flat


def _write_netlist(
    name: str, layer: AttentionLayer, count: int, seed: int, folder: Path, flat: Path
) -> _Pool:
    """Choose mutants of a flat netlist and write the Verilog that holds all of them."""
    listing, verilog = folder / "mutants.txt", folder / "mutants.v"
    netlist = _Netlist(flat.read_text(encoding="utf-8"))
    # More than asked for, since some change nothing.
    run_yosys(f"read_rtlil {flat}", f"mutate -list {2 * count + 20} -seed {seed} -o {listing}")
    listed = listing.read_text(encoding="utf-8").splitlines()
    listed = [command for command in listed if netlist.changes(command)]
    commands = sorted(random.Random(seed).sample(listed, count), key=listed.index)
    width = count.bit_length()
    run_yosys(
        f"read_rtlil {flat}",
        *(
            command.replace("mutate ", f"mutate -ctrl mutsel {width} {number} ", 1)
            for number, command in enumerate(commands, 1)
        ),
        "opt_clean",
        f"write_verilog -noattr -norename {verilog}",
    )
    with verilog.open("a", encoding="utf-8") as file:
        file.write(_bench_verilog(layer.params, width))
    mutants = [_parse(command, number, netlist, name) for number, command in enumerate(commands, 1)]
    return _Pool(name=name, layer=layer, flat=flat, verilog=verilog, mutants=mutants)


#: When a port means something, if not always; a port of a stream is named without its prefix.
_MEANT = {
    "tdata": "tvalid",
    "tlast": "tvalid",
    "s_axil_bresp": "s_axil_bvalid",
    "s_axil_rdata": "s_axil_rvalid",
    "s_axil_rresp": "s_axil_rvalid",
    "ana_k_code": "ana_k_write",
    "ana_v_code": "ana_v_write",
    "ana_s_level": "ana_convert",
    "ana_column_mask": "ana_convert",
    "ana_a_level": "ana_readout",
    "ana_readout_select": "ana_readout",
    "ana_scores_bank": "(ana_scores_reset | ana_integrate)",
    "ana_convert_bank": "(ana_outputs_reset | ana_convert)",
    "ana_readout_bank": "ana_readout",
}


def _bench_verilog(params: HeadParams, width: int) -> str:
    """Verilog of the mutated netlist, the original beside it under the same inputs.

    ``differs`` is not 0 when an output differs: bit 0 if it means something in that clock.
    """
    ports = layer_ports(params)
    inputs = ["clk", "rst", *(port.name for port in ports if port.direction == "in")]
    outputs = [port for port in ports if port.direction == "out"]

    def vector(width: int) -> str:
        return f"[{width - 1}:0] " if width > 1 else ""

    names = ["clk", "rst", "mutsel", "differs", *(port.name for port in ports)]
    # The style of the netlist's own modules.
    lines = [f"module {TOP}({', '.join(names)});", "  input clk;", "  input rst;"]
    lines += [f"  input {vector(width)}mutsel;", "  output [1:0] differs;"]
    lines += [f"  {port.direction}put {vector(port.width)}{port.name};" for port in ports]
    lines += [f"  wire {vector(port.width)}own_{port.name};" for port in outputs]
    for instance, prefix, select in (("mutant", "", "mutsel"), ("original", "own_", f"{width}'d0")):
        pins = [f".{name}({name})" for name in inputs]
        pins += [f".{port.name}({prefix}{port.name})" for port in outputs]
        lines.append(f"  {params.top} {instance}({', '.join(pins)}, .mutsel({select}));")
    meant, other = [], []
    for port in outputs:
        unlike = f"({port.name} != own_{port.name})"
        stream, _, kind = port.name.rpartition("_")
        when = _MEANT.get(port.name) or _MEANT.get(kind)
        if when == "tvalid":
            when = f"{stream}_{when}"
        (other if when else meant).append(unlike)
        if when:
            meant.append(f"({unlike} & {when})")
    lines += [
        f"  assign differs[0] = ~rst & ({' | '.join(meant)});",
        f"  assign differs[1] = ~rst & ({' | '.join(other)});",
        "endmodule",
        "",
    ]
    return "\n".join(lines)


# --- equivalence --------------------------------------------------------------------------------
def _judge_survivor(pool: _Pool, mutant: NetlistMutant) -> str:
    """What Yosys says of a mutant that no simulation told from the original."""
    # Switched on by a multiplexer: a constant that drives a net would be taken for nothing.
    change = mutant.command.replace(f"-module {pool.top}", "-module gate")
    pair = [
        f"read_rtlil {pool.flat}",
        "memory_map",
        f"copy {pool.top} gate",
        change.replace("mutate ", "mutate -ctrl mutsel 1 1 ", 1),
        f"rename {pool.top} gold",
        "delete -input gate/w:mutsel",
        "cd gate",
        "connect -set mutsel 1'1",
        "cd ..",
    ]
    # With undefined values as values of their own, and without: a comparison whose other bits
    # already differ says 0 of a bit that is undefined, and of its inverse may say nothing.
    for values, option in (("", "-undef"), (" of zeros and ones", "")):
        log = run_yosys(
            *pair,
            "equiv_make gold gate equiv",
            "hierarchy -top equiv",
            "cd equiv",
            # Points of comparison that the change reaches without passing another one. The logic
            # of all others is the same, so that all are equal if these follow from the others.
            "select -set cone c:*mutate.cc* %co*:-$equiv",
            "select -set reached @cone %co2 t:$equiv %i",
            f"equiv_simple {option} @reached",
            "equiv_status @reached",
        )
        if "Equivalence successfully proven" in log:
            return f"proved equivalent: no state and no input{values} can tell it from the original"
    try:
        log = run_yosys(
            *pair,
            "miter -equiv -flatten -make_outputs gold gate miter",
            "hierarchy -top miter",
            f"sat -tempinduct-baseonly -maxsteps {BOUND_CLK} -timeout 20 -prove trigger 1'0 miter",
        )
    except YosysError:
        return "not proved equivalent"
    if "model found for base case" in log:
        clocks = len(re.findall(r"(?m)^\[base case \d+\] Solving", log))
        return f"not equivalent: some input shows a difference after {clocks} clocks"
    if "TIMEOUT" in log.upper().replace("-TIMEOUT", ""):
        return "not proved equivalent"
    return f"no difference for any input within {BOUND_CLK} clocks from power-up"


def _explain(
    pool: _Pool, mutant: NetlistMutant, outcome: dict[str, Any], judge: bool
) -> tuple[str, bool]:
    """What is known of a survivor, and whether it is proved equivalent."""
    if outcome["apart"]:
        verdict = "only the comparison with the original sees it"
    elif outcome["aside"]:
        verdict = "only ports that mean nothing at that time differ from the original's"
    else:
        verdict = _judge_survivor(pool, mutant) if judge else "not judged"
    if verdict.startswith("proved"):
        return verdict, True
    if mutant.place in EXPLANATIONS:
        verdict = f"{EXPLANATIONS[mutant.place]} ({verdict})"
    return verdict, False


# --- simulation ---------------------------------------------------------------------------------
class _Worker:
    """A simulation in a process group of its own, started again after a mutant that ended it."""

    def __init__(
        self, folder: Path, simulator: str, job: dict[str, Any], numbers: Sequence[int], run: Path
    ) -> None:
        self._folder, self._simulator, self._job, self._run = folder, simulator, job, run
        self._left = list(numbers)
        self.outcomes: dict[int, dict[str, Any]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._results = run / "results.jsonl"
        self.done = not self._left

    def _start(self) -> None:
        self._run.mkdir(parents=True, exist_ok=True)
        self._results.write_text("", encoding="utf-8")
        # The unmutated head must pass, first and last.
        numbers = [0, *self._left, 0]
        file = self._run / "worker.json"
        file.write_text(
            json.dumps(
                {
                    "folder": str(self._folder),
                    "simulator": self._simulator,
                    "run_dir": str(self._run),
                    "job": {**self._job, "mutants": numbers, "results": str(self._results)},
                }
            ),
            encoding="utf-8",
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "synth.mutants", str(file)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._changed, self._size = time.monotonic(), 0

    def stop(self) -> None:
        """End the simulation and everything it started."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _lines(self) -> list[dict[str, Any]]:
        text = self._results.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if len(text) != self._size:
            self._changed, self._size = time.monotonic(), len(text)
        return [json.loads(line) for line in whole.splitlines()]

    def poll(self) -> None:
        """Take in results; start, restart or finish."""
        if self.done:
            return
        if self._process is None:
            self._start()
            return
        ended = self._process.poll() is not None
        lines = self._lines()
        for line in lines:
            if line.get("mutant", 0):
                self.outcomes[line["mutant"]] = line
            elif line.get("caught") or line.get("apart"):
                raise SimulationError(f"the unmutated head fails: {line}")
        if ended and self._process.returncode == 0:
            self.done = True
            return
        hung = time.monotonic() - self._changed > HANG_S
        if not ended and not hung:
            return
        self.stop()
        running = lines[-1].get("started", 0) if lines else 0
        if not running:
            log = self._run / "run.log"
            raise SimulationError(f"the campaign's simulation did not run to its end; see {log}")
        why = "the simulation hangs" if hung else "the simulation ends"
        self.outcomes[running] = {"caught": why, "apart": 1, "aside": 1}
        self._left = [number for number in self._left if number not in self.outcomes]
        # If none is left, the unmutated head is still judged once more.
        self._process = None


def _simulate(
    pool: _Pool,
    build: Path,
    simulator: str,
    seed: int,
    parts: Sequence[str],
    folder: Path,
    on_count: Callable[[int], None],
) -> dict[int, dict[str, Any]]:
    """Judge every mutant of a pool; by number, what became of it."""
    layer = pool.layer
    job = {
        "params": layer.params.as_dict(),
        "seed": seed + 1,
        "latency_clk": layer.latency_clk,
        "query_latency_clk": layer.query_latency_clk,
        "parts": list(parts),
        "clock_bits": CLOCK_BITS,
    }
    numbers = [mutant.number for mutant in pool.mutants]
    workers = [
        _Worker(build, simulator, job, numbers[at::PROCESSES], folder / f"run{at}")
        for at in range(PROCESSES)
    ]
    try:
        while not all(worker.done for worker in workers):
            for worker in workers:
                worker.poll()
            on_count(sum(len(worker.outcomes) for worker in workers))
            time.sleep(0.1)
    finally:
        for worker in workers:
            worker.stop()
    outcomes = {number: line for worker in workers for number, line in worker.outcomes.items()}
    missing = set(numbers) - set(outcomes)
    if missing:
        raise SimulationError(f"no result for mutants {sorted(missing)}")
    return outcomes


# --- source -------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class SourceMutant:
    """One change of a source file."""

    path: str  #: file, from the checkout's root
    line: int  #: line that is changed
    start: int  #: first character of the file that is replaced
    end: int  #: character behind the last one
    old: str  #: text that is replaced
    new: str  #: what it is replaced by
    function: str  #: class and function that it stands in
    tests: str  #: pattern of the test files that must notice

    @property
    def place(self) -> str:
        """Where it is, in words that survive changes elsewhere in the file."""
        return f"{self.path}: {self.function}: {self.old} -> {self.new}"

    @property
    def description(self) -> str:
        """Where and what."""
        return f"{self.path}:{self.line}: {self.old} -> {self.new}"


_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Lt: "<=",
    ast.LtE: "<",
}
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.BitXor: "&",
    ast.BitAnd: "|",
    ast.LShift: ">>",
}
_TEXT = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Add: "+",
    ast.Sub: "-",
    ast.BitXor: "^",
    ast.BitAnd: "&",
    ast.LShift: "<<",
}


class _Source:
    """A source file, its syntax tree, and positions in characters."""

    def __init__(self, path: str, tests: str) -> None:
        self.path, self._tests = path, tests
        self.text = (ROOT / path).read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)
        self._lines = [0]
        for line in self.text.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self._raw = self.text.splitlines(keepends=True)

    def at(self, line: int, byte: int) -> int:
        """Character of the file at a position of the syntax tree."""
        return self._lines[line - 1] + len(self._raw[line - 1].encode()[:byte].decode())

    def _around(self, line: int) -> list[str]:
        """Names of the classes and functions around a line, outermost first."""
        return [
            node.name
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
            and node.lineno <= line <= (node.end_lineno or 0)
        ]

    def replace(self, start: int, end: int, new: str) -> SourceMutant:
        line = self.text.count("\n", 0, start) + 1
        return SourceMutant(
            path=self.path,
            line=line,
            start=start,
            end=end,
            old=self.text[start:end],
            new=new,
            function=".".join(self._around(line)),
            tests=self._tests,
        )

    def node(self, node: ast.expr, new: str) -> SourceMutant:
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = self.at(node.lineno, node.col_offset)
        return self.replace(start, self.at(node.end_lineno, node.end_col_offset), new)

    def between(self, left: ast.expr, right: ast.expr, old: str, new: str) -> SourceMutant:
        """Mutant of the operator between two operands."""
        assert left.end_lineno is not None and left.end_col_offset is not None
        first = self.at(left.end_lineno, left.end_col_offset)
        last = self.at(right.lineno, right.col_offset)
        start = self.text.index(old, first, last)
        return self.replace(start, start + len(old), new)

    def comparisons(self, *functions: str) -> Iterator[SourceMutant]:
        """Every comparison operator, or every one in functions of these names."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Compare):
                if functions and not set(functions) & set(self._around(node.lineno)):
                    continue
                operands = [node.left, *node.comparators]
                for left, kind, right in zip(operands, node.ops, operands[1:], strict=False):
                    if type(kind) in _COMPARISONS:
                        yield self.between(left, right, _TEXT[type(kind)], _COMPARISONS[type(kind)])

    def operators(self, functions: Sequence[str]) -> Iterator[SourceMutant]:
        """Every sum, difference, bitwise operator and sign in functions of these names."""
        for function in ast.walk(self.tree):
            if isinstance(function, ast.FunctionDef) and function.name in functions:
                for node in ast.walk(function):
                    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
                        old, new = _TEXT[type(node.op)], _OPERATORS[type(node.op)]
                        yield self.between(node.left, node.right, old, new)
                    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
                        yield self.node(node, ast.unparse(node.operand))

    def exchanges(self, old: str, new: str) -> Iterator[SourceMutant]:
        """Every place where a text stands."""
        for found in re.finditer(re.escape(old), self.text):
            yield self.replace(found.start(), found.end(), new)

    def coefficients(self) -> Iterator[SourceMutant]:
        """Each coefficient of each polynomial cell: a hundredth more, and the other sign."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.keyword) and node.arg == "coefficients":
                assert isinstance(node.value, ast.Tuple)
                for element in node.value.elts:
                    value = ast.literal_eval(element)
                    if value:
                        yield self.node(element, repr(value * 1.01))
                        yield self.node(element, repr(-value))

    def defaults(self, *names: str) -> Iterator[SourceMutant]:
        """Defaults of the fields named: a hundredth more."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                if node.target.id in names and node.value is not None:
                    yield self.node(node.value, repr(ast.literal_eval(node.value) * 1.01))


def source_mutants() -> list[SourceMutant]:
    """Every source mutant, in a fixed order."""
    analog = "tests/test_analog_*.py"
    readout = _Source("hw/readout.py", "tests/test_hw_readout.py")
    shots = _Source("hw/shot_accumulator.py", "tests/test_hw_shot_accumulator.py")
    bank = _Source("hw/register_bank.py", "tests/test_hw_register_bank.py")
    streaming = _Source("hw/streaming_sequencer.py", "tests/test_hw_streaming_sequencer.py")
    return [
        *_Source("analog_models/presets.py", analog).coefficients(),
        *_Source("analog_models/params.py", analog).defaults("s_sat_ua", "a_sat_ua"),
        *_Source("analog_models/converter.py", analog).defaults("s_sat_ua", "a_sat_ua"),
        *_Source("hw/window.py", "tests/test_hw_window.py").comparisons(),
        *_Source("hw/column_mask.py", "tests/test_hw_column_mask.py").comparisons(),
        *readout.operators(("_popcount", "_lane_sum")),
        *readout.exchanges("zip(pulses, signs,", "zip(signs, pulses,"),
        *_Source("hw/ages.py", "tests/test_hw_ages.py").comparisons(),
        *_Source("hw/refresh.py", "tests/test_hw_refresh.py").comparisons(),
        *shots.comparisons("elaborate"),
        *shots.exchanges("shot - trim", "shot + trim"),
        *shots.exchanges("<< self.shift", ">> self.shift"),
        *shots.exchanges("Mux(total[-1], low, high)", "Mux(total[-1], high, low)"),
        *bank.comparisons("_within", "_refused"),
        *bank.exchanges("bad += [~_within(register, address), ", "bad += ["),
        *bank.exchanges("waiting & self.quiet", "waiting"),
        *bank.exchanges("self.pending | ~self.settings.enable", "self.pending"),
        *streaming.comparisons("elaborate"),
        *streaming.exchanges(" & ~refresh_pending & ~yields", " & ~yields"),
        *streaming.exchanges(" & ~refresh_pending & ~yields", " & ~refresh_pending"),
        *streaming.exchanges(
            "array_2_free & ~self.k_write & ~starts_k", "array_2_free & ~starts_k"
        ),
        *streaming.exchanges(
            "array_2_free & ~self.k_write & ~starts_k", "array_2_free & ~self.k_write"
        ),
        *streaming.exchanges("(v_done & ~v_refresh)", "v_done"),
        *streaming.exchanges("v_pending & ~refresh_pending & array_2", "v_pending & array_2"),
        *_Source("hw/step.py", "tests/test_hw_step.py").comparisons("elaborate"),
    ]


#: Sources, and what tests read beside them.
_FOLDERS = ("analog_models", "hw", "sim", "synth", "cocotb_tests", "gaincell", "tests", "docs")


def _test_run(folder: Path, pattern: str) -> tuple[bool, str] | None:
    """Whether the matching tests pass in a copy, and what pytest said; None if there are none."""
    files = sorted(str(path.relative_to(folder)) for path in folder.glob(pattern))
    if not files:
        return None
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    # 1: tests failed; 2: interrupted, as by a module that cannot be imported.
    if run.returncode not in (0, 1, 2):
        raise RuntimeError(f"pytest ended with {run.returncode}:\n{run.stdout[-2000:]}")
    return run.returncode == 0, run.stdout[-2000:]


def _run_source_mutants(
    mutants: Sequence[SourceMutant], on_count: Callable[[int], None]
) -> dict[str, Any]:
    """Apply each mutant to a copy of the sources and run its tests."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        copies = [Path(name) / str(at) for at in range(PROCESSES)]
        for copy in copies:
            for folder in _FOLDERS:
                if (ROOT / folder).exists():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
            shutil.copy(ROOT / "pyproject.toml", copy / "pyproject.toml")
        patterns = sorted({mutant.tests for mutant in mutants})
        with ThreadPoolExecutor(PROCESSES) as pool:
            baseline = list(pool.map(lambda pattern: _test_run(copies[0], pattern), patterns))
        for pattern, outcome in zip(patterns, baseline, strict=True):
            if outcome is not None and not outcome[0]:
                raise RuntimeError(f"{pattern} fails on the unmutated sources:\n{outcome[1]}")

        done: list[bool] = []
        stop = threading.Event()

        def work(at: int) -> list[bool | None]:
            outcomes: list[bool | None] = []
            for mutant in mutants[at::PROCESSES]:
                if stop.is_set():
                    break
                path = copies[at] / mutant.path
                text = path.read_text(encoding="utf-8")
                assert text[mutant.start : mutant.end] == mutant.old
                path.write_text(
                    text[: mutant.start] + mutant.new + text[mutant.end :], encoding="utf-8"
                )
                outcome = _test_run(copies[at], mutant.tests)
                path.write_text(text, encoding="utf-8")
                outcomes.append(None if outcome is None else outcome[0])
                done.append(True)
                on_count(len(done))
            return outcomes

        with ThreadPoolExecutor(PROCESSES) as pool:
            try:
                outcomes = list(pool.map(work, range(PROCESSES)))
            except BaseException:
                stop.set()  # the pool waits for the mutants under way and for no others
                raise
    survived = [
        mutant
        for at, results in enumerate(outcomes)
        for mutant, passed in zip(mutants[at::PROCESSES], results, strict=True)
        if passed
    ]
    untested = [
        pattern for pattern, outcome in zip(patterns, baseline, strict=True) if outcome is None
    ]
    judged = sum(passed is not None for results in outcomes for passed in results)
    return {
        "count": judged,
        "caught": judged - len(survived),
        "survived": len(survived),
        "share": (judged - len(survived)) / judged if judged else None,
        "seconds": time.perf_counter() - start,
        "survivors": [mutant.description for mutant in survived],
        "explanations": {
            mutant.description: SOURCE_EXPLANATIONS[mutant.place]
            for mutant in survived
            if mutant.place in SOURCE_EXPLANATIONS
        },
        "missing_tests": untested,
    }


# --- the campaign -------------------------------------------------------------------------------
def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """Split a count in proportion to sizes; every part gets at least one."""
    ends = [round(count * sum(sizes[: at + 1]) / sum(sizes)) for at in range(len(sizes))]
    return [max(1, end - start) for start, end in zip([0, *ends], ends, strict=False)]


def _pools(names: Sequence[str], count: int, seed: int, folder: Path) -> list[_Pool]:
    """Netlists, each with mutants in proportion to its cells."""
    flats: dict[str, tuple[AttentionLayer, Path]] = {}
    for name in names:
        (folder / name).mkdir()
        with _short_clocks():
            layer = AttentionLayer(mutant_params(name))
            flats[name] = layer, _flatten(layer, folder / name)
    sizes = [flat.read_text(encoding="utf-8").count("\n  cell ") for _, flat in flats.values()]
    return [
        _write_netlist(name, layer, share, seed, folder / name, flat)
        for (name, (layer, flat)), share in zip(flats.items(), _shares(sizes, count), strict=True)
    ]


def _figures(mutants: Sequence[tuple[NetlistMutant, dict[str, Any]]]) -> dict[str, int]:
    return {
        "count": len(mutants),
        "caught": sum(outcome["caught"] is not None for _, outcome in mutants),
        "compared": sum(
            outcome["caught"] is not None or outcome["apart"] > 0 for _, outcome in mutants
        ),
    }


def run_mutants(
    count: int = 500,
    seed: int = 0,
    simulator: str = "verilator",
    report_dir: Path | None = None,
    *,
    sources: bool = True,
    pools: Sequence[str] = POOLS,
    parts: Sequence[str] = (),
    judge: bool = True,
) -> dict[str, Any]:
    """Run the campaign and write ``mutants.json``.

    Parameters
    ----------
    count
        Netlist mutants.
    seed
        Of their choice, and of the scenario's random packets.
    simulator
        "verilator", or "icarus", which is faster for a few mutants and a few parts.
    report_dir
        Folder of the report; ``build/report`` by default.
    sources
        Run the source mutants, too.
    pools
        Netlists, of `POOLS`, that share the mutants in proportion to their cells.
    parts
        Parts of the scenario; all by default.
    judge
        Compare survivors with the original by proof.

    Returns
    -------
    dict
        ``count``; ``caught``, by the specification alone, and the ``share`` of it; ``compared``,
        caught by it or by the comparison with the original, and ``share_compared``;
        ``equivalent``, survivors that are proved to be; ``survived``, ``seconds``; ``survivors``,
        each with its description and Yosys' command; ``explanations`` by description, what is
        known of each survivor; ``by_pool`` and ``by_block``; and ``source_mutants``.

    Raises
    ------
    ValueError
        ``count`` is not positive, or the simulator or a netlist is unknown.
    SimulationError
        The unmutated head fails, or the simulation could not be built or run.

    """
    if count < 1:
        raise ValueError(f"count must be in 1.., not {count!r}")
    if simulator not in SIMULATORS:
        raise ValueError(f"simulator must be one of {SIMULATORS}, not {simulator!r}")
    for pool_name in pools:
        if pool_name not in POOLS:
            raise ValueError(f"pools must be of {tuple(POOLS)}, not {pool_name!r}")
    start = time.perf_counter()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    judged: list[tuple[NetlistMutant, dict[str, Any]]] = []
    explained: dict[tuple[str, int], tuple[str, bool]] = {}
    with tempfile.TemporaryDirectory() as name, Progress(*columns) as progress:
        folder = Path(name)
        netlists = _pools(pools, count, seed, folder)
        with ThreadPoolExecutor(PROCESSES) as executor:
            builds = list(
                executor.map(
                    lambda pool: build_simulation(
                        pool.verilog, simulator, ROOT / "build" / "sim", top=TOP
                    ),
                    netlists,
                )
            )
        for pool, build in zip(netlists, builds, strict=True):
            task = progress.add_task(f"mutants: {POOLS[pool.name]}", total=len(pool.mutants))
            outcomes = _simulate(
                pool,
                build,
                simulator,
                seed,
                parts,
                folder / pool.name,
                lambda done, task=task: progress.update(task, completed=done),  # type: ignore[misc]
            )
            judged += [(mutant, outcomes[mutant.number]) for mutant in pool.mutants]
        survivors = [(mutant, outcome) for mutant, outcome in judged if outcome["caught"] is None]
        task = progress.add_task("survivors", total=len(survivors))
        of_name = {pool.name: pool for pool in netlists}
        with ThreadPoolExecutor(PROCESSES) as executor:
            futures = {
                executor.submit(_explain, of_name[mutant.pool], mutant, outcome, judge): mutant
                for mutant, outcome in survivors
            }
            for future in as_completed(futures):
                mutant = futures[future]
                explained[mutant.pool, mutant.number] = future.result()
                progress.advance(task)
        seconds = time.perf_counter() - start
        source_figures = None
        if sources:
            listed = source_mutants()
            task = progress.add_task("source mutants", total=len(listed))
            source_figures = _run_source_mutants(
                listed, lambda done: progress.update(task, completed=done)
            )

    explanations: dict[str, str] = {}
    for mutant, _ in survivors:
        verdict, _ = explained[mutant.pool, mutant.number]
        known = explanations.get(mutant.description)
        if known not in (None, verdict):
            verdict = f"{known}; another at the same place: {verdict}"
        explanations[mutant.description] = verdict
    figures = _figures(judged)
    by_block = {
        block: _figures([pair for pair in judged if pair[0].block == block])
        for block in sorted({mutant.block for mutant, _ in judged})
    }
    by_pool = {
        pool.name: _figures([pair for pair in judged if pair[0].pool == pool.name])
        | {"netlist": POOLS[pool.name], "config_hash": pool.layer.params.config_hash}
        for pool in netlists
    }
    result: dict[str, Any] = {
        **figures,
        "survived": len(survivors),
        "equivalent": sum(proved for _, proved in explained.values()),
        "share": figures["caught"] / figures["count"],
        "share_compared": figures["compared"] / figures["count"],
        "seconds": seconds,
        "seed": seed,
        "simulator": simulator,
        "survivors": [
            {
                "description": mutant.description,
                "netlist": mutant.pool,
                "mutation": mutant.command,
                "apart": outcome["apart"],
            }
            for mutant, outcome in survivors
        ],
        "explanations": explanations,
        "by_pool": by_pool,
        "by_block": by_block,
        "source_mutants": source_figures,
    }
    config_hash = mutant_params().config_hash
    write_result(
        "mutants",
        result,
        config_hash=config_hash,
        tools=("amaranth", "cocotb", "pyosys", "verilator"),
        report_dir=report_dir,
    )
    return {**result, "config_hash": config_hash}


def _main() -> None:
    """Run one simulation, in a process that can be stopped with all it started."""
    work = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    run_simulation(
        Path(work["folder"]),
        work["simulator"],
        "cocotb_tests.mutant_run",
        work["job"],
        run_dir=Path(work["run_dir"]),
    )


if __name__ == "__main__":
    _main()
