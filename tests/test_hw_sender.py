"""Sender against the beats of each answer, with stalls on both sides and slots of any number."""

from __future__ import annotations

import dataclasses
import random

import pytest
from test_hw_bench import (
    COMPLETE,
    PARTIAL,
    SMALL,
    Clocked,
    StreamRules,
    every_kind,
    pack,
    seeds,
    simulate,
    small,
    stalls,
)

from hw.packet import Answer, PacketError, answer_beats, parse_answer
from hw.sender import Sender
from sim.reference.sender import Beat, answer_stream
from sim.reference.shot_accumulator import pack_results, result_limits


def random_answer(params, rng):
    """Tag, error, results and flags; results often at the ends of their range."""
    low, high = result_limits(params)
    often = rng.choice((0.0, 0.2, 0.9))
    return (
        rng.randrange(2**params.tag_bits),
        rng.choice([PacketError.NONE] * 4 + list(PacketError)),
        [rng.choice((low, high, -1, 0, rng.randint(low, high))) for _ in range(params.lanes)],
        [rng.random() < often for _ in range(params.lanes)],
        params.shots and rng.random() < often,
    )


def offer(clk: Clocked, params, answer=None, rng=None) -> None:
    """Offer an answer, or none and noise in its place."""
    port = clk.dut.answer
    clk.ctx.set(port.valid, int(answer is not None))
    if answer is None:
        if rng is not None:
            clk.set(
                results=rng.getrandbits(params.lanes * params.result_bits),
                full_scale=rng.getrandbits(params.lanes),
                saturated=rng.getrandbits(params.flag_groups) if params.shots else 0,
            )
        return
    tag, error, results, full, saturated = answer
    clk.ctx.set(port.payload, {"tag": tag, "error": error})
    clk.set(
        results=pack_results(params, results), full_scale=pack(full, 1),
        saturated=saturated and 1 << tag % params.flag_groups,
    )  # fmt: skip


def beat_now(clk: Clocked) -> Beat:
    names = ("m_axis_tdata", "m_axis_tlast", "full_scale_lanes", "saturated_sent")
    data, last, lanes, saturated = clk.get(*names)
    return Beat(data, bool(last), lanes, bool(saturated))


#: A head whose results are several beats, with every number of slots.
SLOTS = {
    n: dataclasses.replace(PARTIAL["bytes-shots"], result_slots=n) for n in (1, 2, 3, 4, 5, 7, 16)
}
each_number_of_slots = pytest.mark.parametrize("params", SLOTS.values(), ids=SLOTS)


@every_kind()
@pytest.mark.parametrize("error", tuple(PacketError), ids=lambda error: error.name)
def test_answer_without_stalls(params, error):
    """Header `latency_clk` clocks after the answer was taken, then a beat per clock."""
    low, high = result_limits(params)
    answer = (
        2**params.tag_bits - 1,
        error,
        [high if lane % 3 else low for lane in range(params.lanes)],
        [lane % 2 == 1 for lane in range(params.lanes)],
        params.shots,
    )
    rng = random.Random(0)

    async def bench(clk: Clocked) -> None:
        for _ in range(2):
            assert clk.get("idle", "m_axis_tvalid") == (1, 0)
            clk.set(m_axis_tready=1)
            offer(clk, params, answer)
            assert clk.ctx.get(clk.dut.answer.ready) == 1
            await clk.edge()
            for beat in answer_stream(params, *answer):
                # The results were copied: the readout may count the next query.
                offer(clk, params, None, rng)
                assert clk.get("m_axis_tvalid", "idle") == (1, 0)
                assert clk.ctx.get(clk.dut.answer.ready) == (params.sender_slots > 1)
                assert beat_now(clk) == beat
                assert clk.get("sent") == beat.last
                await clk.edge()

    simulate(Sender(params), bench)


@every_kind()
def test_full_scale_flag_of_each_lane(params):
    async def bench(clk: Clocked) -> None:
        clk.set(m_axis_tready=1)
        for lane in range(params.lanes):
            flags = [n == lane for n in range(params.lanes)]
            answer = (lane % 2, PacketError.NONE, [0] * params.lanes, flags, False)
            offer(clk, params, answer)
            await clk.edge()
            offer(clk, params)
            beats = []
            while clk.get("m_axis_tvalid"):
                beats.append(beat_now(clk))
                await clk.edge()
            assert beats == answer_stream(params, *answer)
            assert [b.full_scale_lanes for b in beats].index(1) == 1 + lane // params.lanes_per_beat

    simulate(Sender(params), bench)


@small(*COMPLETE, *PARTIAL)
def test_saturated_flag(params):
    """Of a valid answer: in the header, and once, when the result has left."""

    async def bench(clk: Clocked) -> None:
        clk.set(m_axis_tready=1)
        for error in (PacketError.NONE, PacketError.STEP):
            for saturated in (False, True, False):
                answer = (1, error, [3] * params.lanes, [False] * params.lanes, saturated)
                offer(clk, params, answer)
                await clk.edge()
                offer(clk, params)
                clk.set(saturated=int(not saturated))  # of the next query
                beats = []
                while clk.get("m_axis_tvalid"):
                    beats.append(beat_now(clk))
                    await clk.edge()
                assert beats == answer_stream(params, *answer)
                flagged = saturated and error is PacketError.NONE and params.shots
                assert beats[0].data >> 2 & 1 == flagged
                assert [beat.saturated for beat in beats] == [False] * (len(beats) - 1) + [flagged]

    simulate(Sender(params), bench)


async def check_random(clk: Clocked, params, rng, count) -> None:
    """Answers and stalls at random, against a queue of the beats that are owed."""
    answers = [random_answer(params, rng) for _ in range(count)]
    rules = StreamRules("m_axis")
    offer_stall, take_stall = stalls(rng), stalls(rng)
    given, owed, offered = 0, [], False
    fullest = 0
    start = clk.now
    while given < len(answers) or owed:
        offered = given < len(answers) and (offered or not offer_stall())
        offer(clk, params, answers[given] if offered else None, rng)
        ready = not take_stall()
        clk.set(m_axis_tready=ready)
        # The packets that have not left, of which the first may be on its way.
        valid, held = clk.get("m_axis_tvalid"), sum(beat.last for beat in owed)
        fullest = max(fullest, held)
        assert valid == bool(owed), "valid while and only while beats are owed"
        assert clk.get("idle") == (not owed)
        assert clk.ctx.get(clk.dut.answer.ready) == (held < params.sender_slots)
        data, last, lanes, saturated = beat_now(clk)
        if valid:
            assert (data, last) == owed[0][:2], "answers leave in order"
        # Lanes are counted once, when the beat leaves; so are a packet and its saturation.
        assert (lanes, saturated) == (owed[0][2:] if valid and ready else (0, False))
        assert clk.get("sent") == (valid and ready and last)
        if rules.clock(valid, ready, (data, last)):
            owed.pop(0)
        if offered and held < params.sender_slots:
            owed += answer_stream(params, *answers[given])
            given, offered = given + 1, False
        await clk.edge()
        assert clk.now - start < 600 * count, "the sender hangs"
    offer(clk, params, None, rng)
    assert fullest == min(params.sender_slots, count)


@every_kind()
@seeds()
def test_random_answers_and_stalls(params, seed):
    rng = random.Random(seed)

    async def bench(clk: Clocked) -> None:
        await check_random(clk, params, rng, 60)

    simulate(Sender(params), bench)


@each_number_of_slots
@seeds()
def test_random_answers_with_any_number_of_slots(params, seed):
    """Enough answers to go around the slots many times, at every fill."""
    rng = random.Random(seed)

    async def bench(clk: Clocked) -> None:
        await check_random(clk, params, rng, 150)

    simulate(Sender(params), bench)


@each_number_of_slots
def test_full_sender_takes_no_more(params):
    """As many answers as fit, and one that waits until the first has left."""
    rng = random.Random(7)

    async def bench(clk: Clocked) -> None:
        for _ in range(3):
            *fit, last = [random_answer(params, rng) for _ in range(params.sender_slots + 1)]
            clk.set(m_axis_tready=0)
            for answer in fit:
                offer(clk, params, answer)
                assert clk.ctx.get(clk.dut.answer.ready) == 1
                await clk.edge()
            offer(clk, params, last)
            for _ in range(10):
                assert clk.ctx.get(clk.dut.answer.ready) == 0
                assert clk.get("m_axis_tvalid", "sent", "idle") == (1, 0, 0)
                await clk.edge()
            clk.set(m_axis_tready=1)
            beats = [beat for answer in (*fit, last) for beat in answer_stream(params, *answer)]
            packets = 0  # that have left
            while beats:
                # The slot of the first is free in the clock after its last beat.
                assert clk.ctx.get(clk.dut.answer.ready) == (packets > 0)
                taken = packets > 0
                if clk.get("m_axis_tvalid"):
                    assert beat_now(clk) == beats[0]
                    packets += beats.pop(0).last
                else:
                    assert taken and params.sender_slots == 1, "a gap, since nothing was held"
                await clk.edge()
                if taken:
                    break
            offer(clk, params, None, rng)
            for beat in beats:
                assert beat_now(clk) == beat
                await clk.edge()
            assert clk.get("idle", "m_axis_tvalid") == (1, 0)

    simulate(Sender(params), bench)


@each_number_of_slots
def test_several_held_answers_follow_each_other_without_a_gap(params):
    rng = random.Random(8)

    async def bench(clk: Clocked) -> None:
        answers = [random_answer(params, rng) for _ in range(params.sender_slots)]
        for answer in answers:
            offer(clk, params, answer)
            await clk.edge()
        offer(clk, params, None, rng)
        clk.set(m_axis_tready=1)
        for answer in answers:
            for beat in answer_stream(params, *answer):
                assert clk.get("m_axis_tvalid") == 1
                assert beat_now(clk) == beat
                await clk.edge()
        assert clk.get("idle") == 1

    simulate(Sender(params), bench)


@every_kind()
@seeds()
def test_reset_in_mid_packet(params, seed):
    """One answer or several are held, and the first is on its way; nothing of them stays."""
    rng = random.Random(seed)

    async def bench(clk: Clocked) -> None:
        for _ in range(20):
            for cut in (True, False):
                clk.set(m_axis_tready=0)
                answers = [
                    random_answer(params, rng) for _ in range(rng.randint(1, params.sender_slots))
                ]
                for answer in answers:
                    offer(clk, params, answer)
                    await clk.edge()
                offer(clk, params, None, rng)
                clk.set(m_axis_tready=1)
                beats = [beat for answer in answers for beat in answer_stream(params, *answer)]
                for beat in beats[: rng.randint(0, len(beats))] if cut else beats:
                    assert beat_now(clk) == beat
                    await clk.edge()
                if cut:
                    await clk.reset()
                assert clk.get("m_axis_tvalid", "idle", "sent") == (0, 1, 0)
                assert clk.ctx.get(clk.dut.answer.ready) == 1

    simulate(Sender(params), bench)


def test_latency_clk():
    # `test_answer_without_stalls` sees the header in the clock after the answer was taken.
    assert Sender.latency_clk == 1


@every_kind()
@seeds()
def test_reference_and_host_software_agree(params, seed):
    rng = random.Random(seed)
    for _ in range(50):
        tag, error, results, full, saturated = random_answer(params, rng)
        valid = error is PacketError.NONE
        answer = Answer(
            tag=tag, error=error, full_scale=valid and any(full),
            sums=tuple(results) if valid else (), saturated=valid and saturated,
        )  # fmt: skip
        beats = answer_stream(params, tag, error, results, full, saturated)
        assert parse_answer(params, [beat.data for beat in beats]) == answer
        assert [beat.data for beat in beats] == answer_beats(params, answer)
        assert [beat.last for beat in beats] == [False] * (len(beats) - 1) + [True]
        assert sum(beat.full_scale_lanes for beat in beats) == (sum(full) if valid else 0)
        assert sum(beat.saturated for beat in beats) == (valid and saturated)


def test_reference():
    beats = answer_stream(
        SMALL["tiny"], 0xABCD, PacketError.NONE, [1, -1, 2, -30], [True, False, True, False]
    )
    assert beats == [
        Beat(0x00ABCD02, False, 0), Beat(0xE202FF01, True, 2),
    ]  # fmt: skip
    assert answer_stream(SMALL["tiny"], 1, PacketError.EMPTY) == [Beat(0x04000101, True, 0)]
    # Ten bits a result: two bytes.
    assert answer_stream(
        COMPLETE["tiny-complete"], 0xABCD, PacketError.NONE, [511, -512, 2, -30], [False] * 4, True
    ) == [
        Beat(0x00ABCD04, False, 0), Beat(0xFE0001FF, False, 0), Beat(0xFFE20002, True, 0, True),
    ]  # fmt: skip
