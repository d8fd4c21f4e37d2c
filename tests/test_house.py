"""House rules that a machine can check: import directions, companions, docstrings, no paths."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.results import ROOT

PACKAGES = ("analog_models", "boards", "hw", "sim", "synth", "cocotb_tests", "gaincell", "spice")
#: Own packages, and what comes from outside but belongs to one side of the boundary.
OWN = set(PACKAGES)
COCOTB = {"cocotb", "cocotb_tools", "cocotb_bus", "cocotbext"}


def files(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(tree: ast.AST) -> set[str]:
    """Full names of all modules that are imported anywhere in a file, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute in this house"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name | ast.Attribute)
            and (node.func.id if isinstance(node.func, ast.Name) else node.func.attr)
            in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names.add(str(node.args[0].value))
    return names


def packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def each_file(*of: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", files(*of), ids=name_of)


# --- directions --------------------------------------------------------------------------------
@each_file("analog_models")
def test_models_import_numpy_and_scipy_only(path):
    allowed = set(sys.stdlib_module_names) | {"numpy", "scipy", "analog_models"}
    assert packages(imported(parse(path))) <= allowed


@each_file("hw")
def test_hardware_imports_no_model_and_no_simulator(path):
    allowed = set(sys.stdlib_module_names) | {"amaranth", "hw"}
    forbidden = {"numpy", "scipy", "torch", *COCOTB, *OWN} - {"hw"}
    got = packages(imported(parse(path)))
    assert not got & forbidden
    assert got <= allowed | {"amaranth_boards"}


@each_file("boards")
def test_boards_import_hardware_only(path):
    allowed = set(sys.stdlib_module_names) | {"amaranth", "amaranth_boards", "hw", "boards"}
    assert packages(imported(parse(path))) <= allowed


@each_file("sim")
def test_sim_imports_no_simulator(path):
    assert not packages(imported(parse(path))) & (COCOTB | {"cocotb_tests"})


@each_file("spice")
def test_circuits_know_the_models_and_no_digital_side(path):
    allowed = set(sys.stdlib_module_names) | {"numpy", "scipy", "analog_models", "spice"}
    assert packages(imported(parse(path))) <= allowed


@each_file("sim/reference")
def test_references_are_software_of_their_own(path):
    names = imported(parse(path))
    assert packages(names) <= set(sys.stdlib_module_names) | {"boards", "hw", "sim"}
    from_boards = {name for name in names if name.split(".")[0] == "boards"}
    assert all(name.startswith("boards.params") for name in from_boards), from_boards
    from_hw = {name for name in names if name.split(".")[0] == "hw"}
    assert all(name.startswith(("hw.params", "hw.packet", "hw.registers")) for name in from_hw), (
        from_hw
    )
    from_sim = {name for name in names if name.split(".")[0] == "sim"}
    assert all(name.startswith("sim.reference.") for name in from_sim), from_sim


@pytest.mark.parametrize("module", ("boards.params", "hw.params", "hw.packet", "hw.registers"))
def test_what_references_may_import_is_pure_software(module):
    path = ROOT / (module.replace(".", "/") + ".py")
    assert packages(imported(parse(path))) <= set(sys.stdlib_module_names) | {"hw"}
    from_hw = {name for name in imported(parse(path)) if name.startswith("hw.")}
    assert all(name.startswith("hw.params") for name in from_hw)


@each_file(*PACKAGES, "tests")
def test_models_meet_a_simulator_in_cocotb_tests_only(path):
    got = packages(imported(parse(path)))
    if path.relative_to(ROOT).parts[0] != "cocotb_tests":
        assert not ("analog_models" in got and got & COCOTB)


def test_imports_are_found_wherever_they_stand():
    tree = ast.parse(
        "import a.b as c\nfrom d.e import f\ndef g():\n    import h\n    import_module('i.j')\n"
        "    importlib.import_module('k')\n"
    )
    assert imported(tree) == {"a.b", "d.e", "d.e.f", "h", "i.j", "k"}


# --- companions --------------------------------------------------------------------------------
def components(package: str = "hw") -> Iterator[tuple[str, ast.ClassDef]]:
    """Module name and class of every direct subclass of ``wiring.Component`` in a package."""
    for path in files(package):
        for node in parse(path).body:
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).split(".")[-1] for base in node.bases}
                if "Component" in bases:
                    yield path.stem, node


BLOCKS = sorted({name for name, _ in components()})


def test_components_are_found():
    assert {"layer", "readout", "receiver", "sequencer", "window"} <= set(BLOCKS)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    "companion", ("sim/reference/{}.py", "tests/test_hw_{}.py", "docs/blocks/{}.md")
)
def test_companions(block, companion):
    path = ROOT / companion.format(block)
    assert path.is_file(), f"{companion.format(block)} is missing"
    assert path.read_text(encoding="utf-8").strip(), f"{companion.format(block)} is empty"


@pytest.mark.parametrize("block", BLOCKS)
def test_block_test_uses_its_block_and_its_reference(block):
    names = imported(parse(ROOT / f"tests/test_hw_{block}.py"))
    assert {f"hw.{block}", f"sim.reference.{block}"} <= names


BOARD_PARTS = sorted({name for name, _ in components("boards")})
#: Parts of a board that are tested together, and against which reference.
BOARD_TESTS = {
    "test_board_emulator": (
        "sim.reference.emulator",
        {
            "emulator",
            "score_engine",
            "phi_engine",
            "output_engine",
            "pulse_driver",
            "level_currents",
        },
    ),
    "test_board_link": (
        "sim.driver.link",
        {"board", "serial_port", "frame_receiver", "frame_sender", "responder", "link"},
    ),
}


def test_parts_of_a_board_have_a_test_a_reference_and_a_page():
    assert set(BOARD_PARTS) == set().union(*(parts for _, parts in BOARD_TESTS.values()))
    page = (ROOT / "docs/boards.md").read_text(encoding="utf-8")
    for test, (reference, parts) in BOARD_TESTS.items():
        names = imported(parse(ROOT / f"tests/{test}.py"))
        assert reference in names and names & {f"boards.{part}" for part in parts}
        assert all(f"boards/{part}.py" in page for part in parts)


# --- docstrings --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("block", "node"),
    [
        pytest.param(*item, id=item[1].name)
        for package in ("hw", "boards")
        for item in components(package)
    ],
)
def test_component_docstring_has_its_sections(block, node):
    lines = (ast.get_docstring(node) or "").splitlines()
    sections = [
        title
        for title, rule in zip(lines, [*lines[1:], ""], strict=True)
        if rule and set(rule) == {"-"} and len(rule) == len(title)
    ]
    assert lines and lines[0].endswith((".", ":")), "the first line says what it does"
    wanted = ["Parameters", "Members", "Timing"]
    assert [title for title in sections if title in wanted] == wanted


def undocumented(tree: ast.Module) -> list[str]:
    """Public classes, functions and methods without a docstring."""
    missing = [] if ast.get_docstring(tree) else ["the module"]

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                missing.append(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")

    visit(tree.body, "")
    return missing


@each_file("analog_models", "boards", "hw", "sim", "spice", "synth")
def test_public_names_have_docstrings(path):
    assert undocumented(parse(path)) == []


def test_missing_docstrings_are_found():
    tree = ast.parse(
        '"""."""\nclass A:\n    """."""\n    def f(self): ...\n    def _g(self): ...\n'
    )
    assert undocumented(tree) == ["A.f"]
    assert undocumented(ast.parse("async def f(): ...")) == ["the module", "f"]


# --- tracked files -----------------------------------------------------------------------------
#: A path that exists on one machine only. `/usr/bin/env` and such are the same on all.
MACHINE_PATH = re.compile(
    r"(?<![\w.~/$}>-])/(?:home|root|Users|tmp|work|workspace|mnt|srv|scratch)/\w"
    r"|\b[A-Z]:\\\\?(?:Users|home)\b"
)
#: Package registries and mirrors: what a build fetches is settled by the tools, not by a file.
REGISTRY = re.compile(
    "|".join(
        re.escape(".".join(host))
        for host in (
            ("pypi", "org"), ("pythonhosted", "org"), ("registry", "npmjs"), ("crates", "io"),
            ("conda", "anaconda"), ("deb", "debian"), ("proxy", "golang"),
        )
    )
    + "|--(?:extra-)?index" + "-url|[Aa]rtifactory"
)  # fmt: skip


def tracked() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(
        [git, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]  # one may be deleted but not committed


def findings(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or other data
        found += [
            f"{name_of(path)}:{text.count(chr(10), 0, match.start()) + 1}: {match.group()}"
            for match in pattern.finditer(text)
        ]
    return found


def test_tracked_files_hold_no_machine_path():
    assert findings(MACHINE_PATH) == []


def test_tracked_files_name_no_package_registry():
    assert findings(REGISTRY) == []


def test_machine_paths_and_registries_are_found():
    sep = "/"
    for text in (f"{sep}home{sep}ann", f'"{sep}tmp{sep}x"', f"cd {sep}work{sep}main"):
        assert MACHINE_PATH.search(text), text
    for text in ("#!/usr/bin/env", f"docs{sep}work{sep}x", f"build{sep}tmp{sep}x", "./home/x"):
        assert not MACHINE_PATH.search(text), text
    assert REGISTRY.search("https://" + ".".join(("pypi", "org")) + "/simple")
