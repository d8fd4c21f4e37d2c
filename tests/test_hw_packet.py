"""Token and result packets: round trips, layout, errors."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_hw_bench import HEADS, SMALL

from hw.packet import (
    Answer,
    Command,
    PacketError,
    Shot,
    answer_beats,
    parse_answer,
    payload_beats,
    token_beats,
)
from hw.params import HeadParams
from hw.presets import PRESETS
from sim.reference.receiver import parse

TINY = PRESETS["tiny"]
BARE = SMALL["tiny"]
ALL = st.sampled_from(list(HEADS.values()))
PLAIN = Shot()
SHOTS = st.builds(
    Shot,
    s_gain=st.integers(0, 3),
    a_gain=st.integers(0, 3),
    accumulate=st.booleans(),
    hold=st.booleans(),
    shift=st.integers(0, 3),
)


@st.composite
def tokens(draw):
    """Parameters, command, tag, and the sections and the shot that the command asks for."""
    params, command = draw(ALL), draw(st.sampled_from(Command))

    def codes(count, bits):
        return draw(st.lists(st.integers(0, 2**bits - 1), min_size=count, max_size=count))

    sections = {}
    if command.writes:
        sections["k"] = codes(params.rows, params.kv_bits)
        sections["v"] = codes(params.lanes, params.kv_bits)
    if command.queries:
        sections["q"] = codes(params.rows, params.q_bits)
    shot = draw(SHOTS) if command.queries and params.shots else PLAIN
    return params, command, draw(st.integers(0, 2**params.tag_bits - 1)), sections, shot


@st.composite
def answers(draw):
    params, error = draw(ALL), draw(st.sampled_from(PacketError))
    half = 2 ** (params.result_bits - 1)
    valid = error is PacketError.NONE
    count = params.lanes if valid else 0
    sums = draw(st.lists(st.integers(-half, half - 1), min_size=count, max_size=count))
    return params, Answer(
        tag=draw(st.integers(0, 2**params.tag_bits - 1)),
        error=error,
        full_scale=valid and draw(st.booleans()),
        sums=tuple(sums),
        saturated=valid and draw(st.booleans()),
    )


@settings(deadline=None, derandomize=True)
@given(tokens())
def test_token_round_trip(token):
    params, command, tag, sections, shot = token
    beats = token_beats(params, command, tag, **sections, shot=shot)
    if shot == PLAIN:
        assert beats == token_beats(params, command, tag, **sections)
    assert len(beats) == 1 + payload_beats(params, command)
    assert all(0 <= beat < 2**params.bus_bits for beat in beats)
    parsed = parse(params, beats)
    assert (parsed.error, parsed.tag, parsed.shot) == (PacketError.NONE, tag, shot)
    assert (parsed.writes, parsed.queries) == (command.writes, command.queries)
    assert parsed.flushes == (command is Command.FLUSH)
    got = {"k": parsed.k, "v": parsed.v, "q": parsed.q}
    assert {name: list(codes) for name, codes in got.items() if codes is not None} == sections


@settings(deadline=None, derandomize=True)
@given(answers())
def test_answer_round_trip(case):
    params, answer = case
    beats = answer_beats(params, answer)
    assert len(beats) == (params.result_beats if answer.error is PacketError.NONE else 1)
    assert all(0 <= beat < 2**params.bus_bits for beat in beats)
    assert parse_answer(params, beats) == answer


def test_layout_of_a_token():
    beats = token_beats(
        TINY, Command.WRITE_QUERY, 0xBEEF, k=[1, 2, 3, 4], v=[4, 5, 6, 7], q=[12, 13, 14, 15]
    )
    assert beats == [0x00BEEF03, 0x4321, 0x7654, 0xFEDC]
    assert token_beats(TINY, Command.FLUSH, 1) == [0x0104]
    assert token_beats(TINY, Command.QUERY, 0, q=[0, 0, 0, 1]) == [2, 0x1000]
    assert token_beats(TINY, Command.WRITE, 0, k=[0] * 4, v=[7] * 4) == [1, 0, 0x7777]


def test_layout_of_a_shot():
    """Each field alone, at its largest."""
    fields = {
        "s_gain": (3, 0x03), "a_gain": (3, 0x0C), "accumulate": (True, 0x10), "hold": (True, 0x20),
        "shift": (3, 0xC0),
    }  # fmt: skip
    for name, (value, field) in fields.items():
        shot = Shot(**{name: value})
        assert shot.field == field
        for command in (Command.QUERY, Command.WRITE_QUERY):
            codes = {"k": [0] * 4, "v": [0] * 4} if command.writes else {}
            beats = token_beats(TINY, command, 0xBEEF, **codes, q=[0] * 4, shot=shot)
            assert beats[0] == field << 24 | 0x00BEEF00 | command
    assert PLAIN.field == 0


def test_every_shot_round_trip():
    shots = [Shot.from_field(field) for field in range(256)]
    assert [shot.field for shot in shots] == list(range(256))
    assert len(set(shots)) == 256
    assert all(type(shot.accumulate) is bool and type(shot.hold) is bool for shot in shots)


@pytest.mark.parametrize("name", ("s_gain", "a_gain", "shift"))
def test_shot_number(name):
    for value in (-1, 4, 100):
        with pytest.raises(ValueError, match=rf"^{name} must be in 0\.\.3, not {value}$"):
            Shot(**{name: value})
    for value in (1.0, True, None, "2"):
        message = f"^{name} must be an int, not {re.escape(repr(value))}$"
        with pytest.raises(TypeError, match=message):
            Shot(**{name: value})


@pytest.mark.parametrize("name", ("accumulate", "hold"))
@pytest.mark.parametrize("value", (0, 1, None, "yes"), ids=repr)
def test_shot_switch(name, value):
    with pytest.raises(TypeError, match=f"^{name} must be a bool, not {re.escape(repr(value))}$"):
        Shot(**{name: value})


@pytest.mark.parametrize("command", (Command.WRITE, Command.FLUSH), ids=lambda c: c.name)
@pytest.mark.parametrize("params", (TINY, BARE), ids=("shots", "none"))
def test_shot_of_a_packet_that_does_not_query(params, command):
    codes = {"k": [0] * 4, "v": [0] * 4} if command.writes else {}
    shot = Shot(hold=True)
    of = "" if params.shots else " to a head without shots"
    message = f"shot must be left out of a {command.name} packet{of}, not {shot!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        token_beats(params, command, 0, **codes, shot=shot)
    assert token_beats(params, command, 0, **codes, shot=PLAIN)[0] == command


def test_shot_to_a_head_without():
    shot = Shot(s_gain=1)
    message = f"shot must be left out of a QUERY packet to a head without shots, not {shot!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        token_beats(BARE, Command.QUERY, 0, q=[0] * 4, shot=shot)
    assert token_beats(BARE, Command.QUERY, 0, q=[0] * 4, shot=PLAIN)[0] == 2


def test_sections_start_on_a_beat_of_their_own():
    params = HeadParams(rows=9, lanes=3, bus_bits=32)
    beats = token_beats(params, Command.WRITE_QUERY, 0, k=[7] * 9, v=[1] * 3, q=[15] * 9)
    assert beats == [3, 0x77777777, 0x7, 0x111, 0xFFFFFFFF, 0xF]


def test_layout_of_an_answer():
    good = Answer(tag=0xBEEF, error=PacketError.NONE, full_scale=True, sums=(1, -1, 30, -30))
    assert answer_beats(BARE, good) == [0x00BEEF02, 0xE21EFF01]
    # With shots and trim a result takes ten bits, so two bytes.
    assert answer_beats(TINY, good) == [0x00BEEF02, 0xFFFF0001, 0xFFE2001E]
    bad = Answer(tag=1, error=PacketError.LENGTH, full_scale=False, sums=())
    assert answer_beats(TINY, bad) == [0x02000101]


def test_layout_of_a_saturated_answer():
    answer = Answer(
        tag=1, error=PacketError.NONE, full_scale=False, sums=(511, -512, 0, 1), saturated=True
    )
    assert answer_beats(TINY, answer) == [0x00000104, 0xFE0001FF, 0x00010000]
    assert parse_answer(TINY, answer_beats(TINY, answer)) == answer


@pytest.mark.parametrize("error", PacketError, ids=lambda error: error.name)
def test_answer_of_each_error(error):
    """The header's last byte; a number that is no error's is refused."""
    sums = (0,) * 4 if error is PacketError.NONE else ()
    answer = Answer(tag=7, error=error, full_scale=False, sums=sums)
    beats = answer_beats(TINY, answer)
    assert beats[0] == error << 24 | 0x700 | (error is not PacketError.NONE)
    assert parse_answer(TINY, beats) == answer


def test_commands():
    assert [c for c in Command if c.writes] == [Command.WRITE, Command.WRITE_QUERY]
    assert [c for c in Command if c.queries] == [Command.QUERY, Command.WRITE_QUERY]
    assert all(bool(c & 2) == c.queries for c in Command), "bit 1 says that an answer is owed"


@pytest.mark.parametrize("tag", (-1, 2**16))
def test_tag_out_of_range(tag):
    with pytest.raises(ValueError, match=rf"^tag must be in 0\.\.65535, not {tag}$"):
        token_beats(TINY, Command.FLUSH, tag)
    with pytest.raises(ValueError, match=r"^tag must be in 0\.\.1, not 2$"):
        token_beats(SMALL["all-one"], Command.FLUSH, 2)


@pytest.mark.parametrize("name", ("k", "v", "q"))
@pytest.mark.parametrize("count", (0, 3, 5))
def test_wrong_number_of_codes(name, count):
    sections = {"k": [0] * 4, "v": [0] * 4, "q": [0] * 4} | {name: [0] * count}
    with pytest.raises(ValueError, match=rf"^{name} must hold 4 codes, not {count}$"):
        token_beats(TINY, Command.WRITE_QUERY, 0, **sections)


@pytest.mark.parametrize(
    ("command", "name"),
    ((Command.WRITE, "k"), (Command.WRITE, "v"), (Command.QUERY, "q"), (Command.WRITE_QUERY, "v")),
)
def test_missing_section(command, name):
    sections = {}
    if command.writes:
        sections |= {"k": [0] * 4, "v": [0] * 4}
    if command.queries:
        sections |= {"q": [0] * 4}
    del sections[name]
    with pytest.raises(ValueError, match=rf"^{name} must hold 4 codes, not 'none'$"):
        token_beats(TINY, command, 0, **sections)


@pytest.mark.parametrize(("name", "top"), (("k", 7), ("v", 7), ("q", 15)))
@pytest.mark.parametrize("off", (-1, 1))
def test_code_out_of_range(name, top, off):
    bad = -1 if off < 0 else top + 1
    sections = {"k": [0] * 4, "v": [0] * 4, "q": [0] * 4} | {name: [0, 0, bad, 0]}
    with pytest.raises(ValueError, match=rf"^{name} codes must be in 0\.\.{top}, not {bad}$"):
        token_beats(TINY, Command.WRITE_QUERY, 0, **sections)


@pytest.mark.parametrize(
    ("command", "name"),
    (
        (Command.QUERY, "k"), (Command.QUERY, "v"), (Command.WRITE, "q"),
        (Command.FLUSH, "k"), (Command.FLUSH, "v"), (Command.FLUSH, "q"),
    ),
)  # fmt: skip
def test_section_that_is_not_asked_for(command, name):
    sections = {}
    if command.writes:
        sections |= {"k": [0] * 4, "v": [0] * 4}
    if command.queries:
        sections |= {"q": [0] * 4}
    message = f"{name} must be left out of a {command.name} packet, not [1, 1, 1, 1]"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        token_beats(TINY, command, 0, **sections, **{name: [1] * 4})


@pytest.mark.parametrize("beats", ([0], [0, 0], [0, 0, 0, 0], [0x04000001, 0]), ids=str)
def test_answer_of_the_wrong_length(beats):
    expected = 1 if beats[0] & 1 else 3
    with pytest.raises(
        ValueError, match=rf"^result packet must have {expected} beats, not {len(beats)}$"
    ):
        parse_answer(TINY, beats)


@pytest.mark.parametrize("header", (0x00000001, 0x04000000))
def test_answer_that_contradicts_itself(header):
    with pytest.raises(ValueError, match=rf"must agree, not header {header:#x}$"):
        parse_answer(TINY, [header])


def test_answer_of_an_unknown_error():
    for kind in (6, 255):
        with pytest.raises(ValueError, match=rf"^error kind must be in 0\.\.5, not {kind}$"):
            parse_answer(TINY, [kind << 24 | 1])


def test_answer_without_a_header():
    with pytest.raises(ValueError, match=r"^result packet must have a header, not \[\]$"):
        parse_answer(TINY, [])
