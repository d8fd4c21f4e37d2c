"""Proofs, unbounded: both readouts give the specified integers.

The schedule's are in `synth.prove_schedule`, the window's in `synth.prove_window`; `run_proofs`
runs them all.

The method is temporal induction with Yosys' own SAT solver. A miter holds the design, an
environment that can only behave legally (so no assumption can contradict another), and a plain
specification counted beside it; each property is a bit that must be 1 in every clock. The base
case starts from *any* contents of the design's registers and the properties bind after the first
clear or flush, so that nothing depends on reset.

Sizes are reduced. That the result carries over to any number of lanes and sub-tiles:

- *Lanes are independent*: `Readout.elaborate` builds each from its own converters' pulses and
  signs and from ``clear`` and ``enable``; no register of one is read by another. Two lanes show
  that the packing of inputs and sums is right.
- *Sub-tiles enter symmetrically*: each through one term of a sum, and the accumulator's start is
  the same multiple of each negative sign. The invariant below is a sum over sub-tiles, so its
  induction step adds one term per sub-tile, whatever their number; three make the adder tree
  uneven.
- *Count width* enters through N = 2**count_bits - 1 only; two widths are proved.

That a proof says something is shown twice: a complete phase with non-zero, unequal results is
reached, and each seeded bug is found as a trace from the start, not as a mere failure to prove.
"""

from __future__ import annotations

import inspect
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out, Signature
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import hw.ages
import hw.code_store
import hw.column_mask
import hw.readout
import hw.receiver
import hw.refresh
import hw.register_bank
import hw.sender
import hw.sequencer
import hw.shot_accumulator
import hw.step
import hw.streaming_sequencer
import hw.window
from hw.ages import Ages
from hw.code_store import CodeStore
from hw.column_mask import ColumnMask
from hw.params import HeadParams
from hw.readout import CounterReadout, PopulationReadout
from hw.receiver import Receiver
from hw.refresh import RefreshScheduler
from hw.register_bank import RegisterBank
from hw.sender import Sender
from hw.sequencer import Sequencer
from hw.shot_accumulator import ShotAccumulator
from hw.step import Step
from hw.streaming_sequencer import StreamingSequencer
from hw.window import Window
from sim.results import write_result
from synth.verilog import component_rtlil
from synth.yosys import run_yosys

__all__ = [
    "READOUT_BUGS",
    "READOUT_SIZES",
    "Bug",
    "Miter",
    "ProofError",
    "ReadoutMiter",
    "induction_job",
    "job",
    "prove_readouts",
    "run_proofs",
]

Row = dict[str, Any]
#: Longest induction tried. Every proof needs a single step, as its invariant is inductive.
MAX_DEPTH = 4

#: Sizes the readouts are proved at.
READOUT_SIZES = tuple(
    HeadParams(subtiles=3, columns=2, rows=1, lanes=2, q_bits=4, count_bits=bits) for bits in (2, 3)
)


class Miter(Protocol):
    """Component whose outputs are properties, one bit each."""

    @property
    def probes(self) -> Mapping[str, Sequence[str]]:
        """Names, after flattening, of what each probe is connected to, least significant first."""

    @property
    def signature(self) -> Signature:
        """Ports."""


class ProofError(RuntimeError):
    """A property could not be proved, or a seeded bug was not found."""


@dataclass(frozen=True, kw_only=True)
class Bug:
    """A bug put into a copy of a component's source, to see the proof fail."""

    name: str  #: what is wrong
    component: str  #: class it is put into
    old: str  #: text that is replaced, once
    new: str  #: what it is replaced by
    needs: Mapping[str, Any] = field(default_factory=dict)  #: of the size at which it shows


#: Bugs that the readouts' proof must find.
READOUT_BUGS = (
    Bug(
        name="population: a sign inverted",
        component="PopulationReadout",
        old="pulse ^ sign for",
        new="pulse ^ ~sign for",
    ),
    Bug(
        name="counter: a sign inverted",
        component="CounterReadout",
        old="Mux(negative, -count, count)",
        new="Mux(negative ^ (subtile == 0), -count, count)",
    ),
    Bug(
        name="population: accumulator starts one off",
        component="PopulationReadout",
        old="up - (up << self.params.count_bits)",
        new="up - (up << self.params.count_bits) + 1",
    ),
    Bug(
        name="counter: stops one before its maximum",
        component="CounterReadout",
        old="self.enable & pulse",
        new="self.enable & pulse & (count != self.params.count_max - 1)",
    ),
    Bug(
        name="population: one pulse input ignored",
        component="PopulationReadout",
        old="pulse ^ sign for pulse, sign in zip(pulses,",
        new="pulse ^ sign for pulse, sign in zip([0, *pulses[1:]],",
    ),
    Bug(
        name="counter: one pulse input ignored",
        component="CounterReadout",
        old="self.enable & pulse",
        new="self.enable & pulse & (subtile != 2)",
    ),
)

_COMPONENTS = {
    "CounterReadout": (hw.readout, CounterReadout),
    "PopulationReadout": (hw.readout, PopulationReadout),
    "Window": (hw.window, Window),
    "ColumnMask": (hw.column_mask, ColumnMask),
    "Ages": (hw.ages, Ages),
    "RefreshScheduler": (hw.refresh, RefreshScheduler),
    "CodeStore": (hw.code_store, CodeStore),
    "Receiver": (hw.receiver, Receiver),
    "RegisterBank": (hw.register_bank, RegisterBank),
    "Sender": (hw.sender, Sender),
    "ShotAccumulator": (hw.shot_accumulator, ShotAccumulator),
    "Step": (hw.step, Step),
    "Sequencer": (hw.sequencer, Sequencer),
    "StreamingSequencer": (hw.streaming_sequencer, StreamingSequencer),
}


def _component(name: str, bug: Bug | None) -> type:
    """Class of that name, or a copy of it with the bug in it."""
    module, cls = _COMPONENTS[name]
    if bug is None or bug.component != name:
        return cls
    source = inspect.getsource(cls)
    if source.count(bug.old) != 1:
        raise ProofError(f"{bug.name!r} does not fit the source of {name}: {bug.old!r}")
    namespace = dict(vars(module))
    # Constructors name their own class in super(), so the copy must see itself.
    exec(compile(source.replace(bug.old, bug.new), f"<{bug.name}>", "exec"), namespace)
    return namespace[name]


class ReadoutMiter(Component):
    """Both readouts, a legal environment and the specification.

    The environment: at any time a clear, with no pulse high and any signs; then up to
    ``count_max`` enabled clocks, with any idle clocks in between; signs stay from the clear to the
    end of the phase. Pulses may be any pattern, a wider set than the runs that converters emit.
    Before the first clear and after the phase everything but ``enable`` is free.

    Parameters
    ----------
    params
        Size of the readouts.
    bug
        Put into one of them.

    Members
    -------
    start, go, pulses, signs : in
        Free choices of the environment.
    probe_counts, probe_negatives : in
        The counters and signs inside the counter readout; connected after flattening.
    begun : Out(1)
        A clear has been.
    counter_ok : Out(1)
        The counter readout's sums are the signed pulse lengths, in every clock.
    population_ok : Out(1)
        The population readout's sums are the signed pulse lengths less the enabled clocks still
        to come for each negative sign, in every clock: less nothing once the phase is complete.
    equal_ok : Out(1)
        Both readouts' sums are equal if the phase is complete.
    helper_ok : Out(1)
        Invariants that carry the induction: what is inside the counter readout, and ranges.
    interesting : Out(1)
        A phase is complete and the lanes' sums are non-zero, of different sign and magnitude.

    """

    def __init__(self, params: HeadParams, bug: Bug | None = None) -> None:
        self.params = params
        self.bug = bug
        converters = params.subtiles * params.lanes
        super().__init__(
            {
                "start": In(1),
                "go": In(1),
                "pulses": In(converters),
                "signs": In(converters),
                "probe_counts": In(converters * params.count_bits),
                "probe_negatives": In(converters),
                "begun": Out(1),
                "counter_ok": Out(1),
                "population_ok": Out(1),
                "equal_ok": Out(1),
                "helper_ok": Out(1),
                "interesting": Out(1),
            }
        )

    @property
    def probes(self) -> Mapping[str, Sequence[str]]:
        """Names, after flattening, of what each probe is connected to, least significant first."""
        at = [divmod(i, self.params.lanes) for i in range(self.params.subtiles * self.params.lanes)]
        return {
            "probe_counts": [f"counter.count_{subtile}_{lane}" for subtile, lane in at],
            "probe_negatives": [f"counter.negative_{subtile}_{lane}" for subtile, lane in at],
        }

    def elaborate(self, platform: object) -> Module:
        """Build the miter."""
        m = Module()
        p = self.params
        counter = m.submodules.counter = _component("CounterReadout", self.bug)(p)
        population = m.submodules.population = _component("PopulationReadout", self.bug)(p)

        # Environment.
        elapsed = Signal(range(p.count_max + 1))  # enabled clocks since the clear
        held = Signal(len(self.signs))
        complete = Signal()
        enable = Signal()
        pulse = Signal(len(self.pulses))
        sign = Signal(len(self.signs))
        m.d.comb += [
            complete.eq(self.begun & (elapsed == p.count_max)),
            enable.eq(self.begun & self.go & ~self.start & ~complete),
            pulse.eq(Mux(self.start, 0, self.pulses)),
            sign.eq(Mux(self.start | ~self.begun | complete, self.signs, held)),
        ]
        with m.If(self.start):
            m.d.sync += [self.begun.eq(1), elapsed.eq(0), held.eq(sign)]
        with m.Elif(enable):
            m.d.sync += elapsed.eq(elapsed + 1)
        for readout in (counter, population):
            m.d.comb += [
                readout.pulse.eq(pulse),
                readout.sign.eq(sign),
                readout.clear.eq(self.start),
                readout.enable.eq(enable),
            ]

        # Specification: pulse lengths, counted wide enough never to wrap.
        counter_ok, population_ok, helper_ok, results = [], [], [elapsed <= p.count_max], []
        for lane in range(p.lanes):
            total = Signal(signed(p.sum_bits + 1), name=f"specified_{lane}")
            owed = Signal(signed(p.sum_bits + 1), name=f"owed_{lane}")
            signed_lengths, excesses = [], []
            for subtile in range(p.subtiles):
                i = subtile * p.lanes + lane
                length = Signal(p.count_bits + 1, name=f"length_{subtile}_{lane}")
                with m.If(self.start):
                    m.d.sync += length.eq(0)
                with m.Elif(enable & pulse[i]):
                    m.d.sync += length.eq(length + 1)
                signed_lengths.append(Mux(held[i], -length, length))
                excesses.append(Mux(held[i], p.count_max - elapsed, 0))
                helper_ok += [
                    length <= elapsed,
                    self.probe_counts.word_select(i, p.count_bits) == length,
                    self.probe_negatives[i] == held[i],
                ]
            m.d.comb += [total.eq(sum(signed_lengths)), owed.eq(total - sum(excesses))]
            counter_sum = counter.sums.word_select(lane, p.sum_bits).as_signed()
            population_sum = population.sums.word_select(lane, p.sum_bits).as_signed()
            counter_ok.append(counter_sum == total)
            population_ok.append(population_sum == owed)
            results.append(total)
        m.d.comb += [
            self.counter_ok.eq(~self.begun | Cat(*counter_ok).all()),
            self.population_ok.eq(~self.begun | Cat(*population_ok).all()),
            self.helper_ok.eq(~self.begun | Cat(*helper_ok).all()),
            self.equal_ok.eq(~complete | (counter.sums == population.sums)),
            self.interesting.eq(
                complete
                & (results[0] > 0)
                & (results[1] < 0)
                & (results[0] != -results[1])
                & (counter.sums == population.sums)
            ),
        ]
        return m


@dataclass(frozen=True, kw_only=True)
class _Design:
    """A miter, ready for the SAT solver."""

    rtlil: str
    probes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    begins: bool = True  #: properties bind from a clear or flush on, see ``begun``

    @classmethod
    def of(cls, miter: Miter) -> _Design:
        rtlil = component_rtlil(miter, "miter")
        # A multiplexer that a probe controls directly keeps the probe's wire, without a driver.
        if re.search(r"(?m)^\s*switch \\probe_", rtlil):
            raise ProofError(f"{type(miter).__name__} must hold no switch on a probe")
        return cls(
            rtlil=rtlil,
            probes=miter.probes,
            begins="begun" in miter.signature.members,
        )

    def solve(self, *options: str, from_reset: bool = False) -> str:
        """Log of the SAT command with these options."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "miter.il"
            source.write_text(self.rtlil, encoding="utf-8")
            # No optimisation before probes are connected: it would tie other wires to a probe,
            # which a connection leaves behind without a driver.
            commands = [f"read_rtlil {source}", "proc -noopt -norom", "flatten", "cd miter"]
            for probe, targets in self.probes.items():
                commands.append(f"delete -input w:{probe}")
                joined = ",".join(f"\\{target}" for target in reversed(targets))
                commands.append(f"connect -set {probe} {joined}")
            if not from_reset:
                commands.append("setattr -unset init w:*")
            # Reset itself is held off: a clear or flush must do without it.
            always = "-set rst 1'0"
            if self.begins:
                always += f" -set-init begun 1'{int(from_reset)}"
            commands += ["opt_clean", f"sat {always} {' '.join(options)}"]
            return run_yosys(*commands)


def _options(names: Sequence[str]) -> list[str]:
    return [option for name in names for option in ("-prove", name, "1'1")]


def _prove(design: _Design, names: Sequence[str], *, from_reset: bool = False) -> int | None:
    """Length of the induction that proves the properties, None if there is none."""
    log = design.solve(
        "-tempinduct", f"-maxsteps {MAX_DEPTH}", *_options(names), from_reset=from_reset
    )
    if "Induction step proven: SUCCESS!" not in log:
        return None
    return log.count("** Trying induction with length")


def _reach(design: _Design, depth: int, *, from_reset: bool = False) -> int | None:
    """Clocks after which the interesting state is reached, None if not within ``depth``."""
    options = ("-tempinduct-baseonly", f"-maxsteps {depth}", "-prove interesting 1'0")
    return _clocks(design.solve(*options, from_reset=from_reset))


def _find(
    design: _Design, names: Sequence[str], depth: int, *, from_reset: bool = False
) -> int | None:
    """Clocks after which a property is seen to be violated, None if not within ``depth``."""
    options = ("-tempinduct-baseonly", f"-maxsteps {depth}", *_options(names))
    return _clocks(design.solve(*options, from_reset=from_reset))


def _holds(design: _Design, name: str, depth: int) -> bool:
    """The property holds in the first ``depth`` clocks of every trace from reset."""
    log = design.solve(
        "-tempinduct-baseonly", f"-maxsteps {depth}", *_options((name,)), from_reset=True
    )
    return _clocks(log) is None and f"[base case {depth}] Solving" in log


def _clocks(log: str) -> int | None:
    if "model found for base case: FAIL!" not in log:
        return None
    return len(re.findall(r"(?m)^\[base case (\d+)\] Solving", log))


def _proof_job(
    title: str,
    miter: Callable[[], ReadoutMiter],
    names: Sequence[str],
    *,
    from_reset: bool = False,
) -> Callable[[], Row]:
    def job() -> Row:
        start = time.perf_counter()
        depth = _prove(_Design.of(miter()), names, from_reset=from_reset)
        origin = "reset" if from_reset else "any state"
        return {
            "property": title,
            "method": f"temporal induction from {origin}",
            "depth": MAX_DEPTH if depth is None else depth,
            "seconds": time.perf_counter() - start,
            "status": "FAILED" if depth is None else "proved",
        }

    return job


def _evidence_job(
    title: str,
    miter: Callable[[Bug | None], ReadoutMiter],
    bugs: Sequence[Bug],
    names: Sequence[str],
    depth: int,
) -> Callable[[], Row]:
    """Job that shows the proof not to be vacuous; its depth is the longest trace needed."""

    def job() -> Row:
        start = time.perf_counter()
        reached = _reach(_Design.of(miter(None)), depth)
        found = [(bug, _find(_Design.of(miter(bug)), names, depth)) for bug in bugs]
        clocks = [reached, *(clock for _, clock in found)]
        return {
            "property": title,
            "method": "traces from any state, SAT",
            "depth": max((clock for clock in clocks if clock is not None), default=depth),
            "seconds": time.perf_counter() - start,
            "status": "FAILED" if None in clocks else "proved",
            "reached_clk": reached,
            "seeded_bugs": [{"name": bug.name, "trace_clk": clock} for bug, clock in found],
        }

    return job


def job(
    title: str, method: str, run: Callable[[], tuple[int | None, int, dict[str, Any]]]
) -> Callable[[], Row]:
    """Job of one row.

    Parameters
    ----------
    title, method
        Of the row.
    run
        Returns the depth reached if all held, else None; the depth tried; and more for the row.

    """

    def run_job() -> Row:
        start = time.perf_counter()
        depth, tried, more = run()
        return {
            "property": title,
            "method": method,
            "depth": tried if depth is None else depth,
            "seconds": time.perf_counter() - start,
            "status": "FAILED" if depth is None else "proved",
            **more,
        }

    return run_job


def induction_job(
    title: str,
    miters: Sequence[Callable[[], Miter]],
    names: Sequence[Sequence[str]],
    *,
    from_reset: bool = True,
) -> Callable[[], Row]:
    """Job that proves properties of miters, all of a miter's at once."""

    def run() -> tuple[int | None, int, dict[str, Any]]:
        depths = [
            _prove(_Design.of(miter()), own, from_reset=from_reset)
            for miter, own in zip(miters, names, strict=True)
        ]
        reached = [depth for depth in depths if depth is not None]
        return max(reached) if len(reached) == len(depths) else None, MAX_DEPTH, {}

    origin = "reset" if from_reset else "any state"
    return job(title, f"temporal induction from {origin}", run)


def refutation_job(
    title: str,
    miter: Callable[[Bug], Miter],
    bugs: Sequence[Bug],
    name: str,
    depth: int,
    reach: Callable[[], Miter] | None = None,
) -> Callable[[], Row]:
    """Job that finds each bug as a trace from reset, and the interesting state if asked to."""

    def run() -> tuple[int | None, int, dict[str, Any]]:
        found = [
            (bug, _find(_Design.of(miter(bug)), (name,), depth, from_reset=True)) for bug in bugs
        ]
        more: dict[str, Any] = {
            "seeded_bugs": [{"name": bug.name, "trace_clk": clock} for bug, clock in found]
        }
        clocks = [clock for _, clock in found]
        if reach is not None:
            clocks.append(_reach(_Design.of(reach()), depth, from_reset=True))
            more["reached_clk"] = clocks[-1]
        seen = [clock for clock in clocks if clock is not None]
        return max(seen) if len(seen) == len(clocks) else None, depth, more

    number = "1 seeded bug" if len(bugs) == 1 else f"{len(bugs)} seeded bugs"
    return job(f"{title}: {number} refuted", "traces from reset, SAT", run)


def _readout_jobs(params: HeadParams) -> list[Callable[[], Row]]:
    size = f"{params.subtiles} sub-tiles, {params.lanes} lanes, {params.count_bits} bits"
    jobs = [
        _proof_job(f"{title} ({size})", lambda: ReadoutMiter(params), names)
        for title, names in (
            ("counter readout = signed pulse lengths", ("counter_ok", "helper_ok")),
            ("population readout = signed pulse lengths", ("population_ok", "helper_ok")),
            (
                "population readout = counter readout",
                ("equal_ok", "counter_ok", "population_ok", "helper_ok"),
            ),
        )
    ]
    # A clear, the whole phase, and the clock in which the result is seen.
    jobs.append(
        _evidence_job(
            f"readouts: full phase reached, {len(READOUT_BUGS)} seeded bugs refuted ({size})",
            lambda bug: ReadoutMiter(params, bug),
            READOUT_BUGS,
            ("equal_ok",),
            params.count_max + 3,
        )
    )
    return jobs


def _outcome(params: HeadParams, jobs: Sequence[Callable[[], Row]]) -> dict[str, Any]:
    rows = [job() for job in jobs]
    return {
        "config_hash": params.config_hash,
        "proved": all(row["status"] == "proved" for row in rows),
        "rows": rows,
    }


def prove_readouts(params: HeadParams | None = None) -> dict[str, Any]:
    """Prove that both readouts give the signed sums of pulse lengths, and so are equal.

    Parameters
    ----------
    params
        Size, by default the smallest of `READOUT_SIZES`. Time grows steeply with the sum's
        width; at least two lanes.

    Returns
    -------
    dict
        ``config_hash``, ``proved``, and ``rows`` as `run_proofs` returns them.

    """
    params = params or READOUT_SIZES[0]
    if params.lanes < 2:
        raise ValueError(f"lanes must be in 2..256 for the proof, not {params.lanes!r}")
    return _outcome(params, _readout_jobs(params))


def _jobs(*, full: bool) -> list[Callable[[], Row]]:
    # Which import this module.
    from synth.prove_registers import register_properties
    from synth.prove_schedule import schedule_properties
    from synth.prove_shots import shot_properties
    from synth.prove_simple import simple_properties
    from synth.prove_streams import stream_properties
    from synth.prove_window import window_properties

    readouts = READOUT_SIZES if full else READOUT_SIZES[:1]
    return [
        *schedule_properties(full=full),
        *simple_properties(full=full),
        *register_properties(),
        *window_properties(),
        *stream_properties(full=full),
        *shot_properties(full=full),
        *(job for params in readouts for job in _readout_jobs(params)),
    ]


def run_proofs(report_dir: Path | None = None, *, full: bool = False) -> list[Row]:
    """Run the proofs and write ``formal.json``.

    Parameters
    ----------
    report_dir
        Folder of the report, by default that of all reports.
    full
        Every size, every seeded bug and the direct comparison of both schedules; else the sizes
        and bugs that a person has the patience for.

    Returns
    -------
    list of dict
        Per property: ``property``, ``method``, ``depth``, ``seconds`` and ``status``, which is
        "proved" or "FAILED". Rows that show that proofs are not vacuous also say how many clocks
        it took to reach the state in question (``reached_clk``) and to refute each seeded bug
        (``seeded_bugs``); there, "proved" says that all of that was done.

    """
    default = HeadParams()
    jobs = _jobs(full=full)
    columns = (TextColumn("proofs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress, ThreadPoolExecutor(2) as pool:
        task = progress.add_task("proofs", total=len(jobs))
        futures = [pool.submit(job) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
                progress.advance(task)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        rows = [future.result() for future in futures]
    write_result(
        "formal",
        rows,
        config_hash=default.config_hash,
        tools=("amaranth", "pyosys"),
        report_dir=report_dir,
    )
    return rows
