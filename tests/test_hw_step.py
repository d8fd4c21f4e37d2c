"""Step against what packets of several heads ask for together, and what each head is answered."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import random

import pytest
from test_hw_bench import (
    COMPLETE,
    PARTIAL,
    SMALL,
    Clocked,
    StreamRules,
    elaborated,
    pack,
    seeds,
    simulate,
    stalls,
)

from hw.packet import GAIN_BITS, Command, PacketError, Shot
from hw.presets import PRESETS
from hw.step import Step
from sim.reference.receiver import Parsed
from sim.reference.step import Joined, Reply, errors, join, replies, slot_clocks

LAYER = PRESETS["tiny-layer"]
#: One, two and three heads, with and without features, of either schedule.
STEPS = {
    "one-bare": SMALL["tiny"],
    "one": COMPLETE["tiny-complete"],
    "two-bare": dataclasses.replace(SMALL["tiny"], heads=2),
    "two-shots": dataclasses.replace(PARTIAL["bytes-shots"], heads=2, result_slots=2),
    "three": LAYER,
    "three-simple": dataclasses.replace(LAYER, schedule="simple"),
    "three-one-slot": dataclasses.replace(LAYER, result_slots=1, shots=False),
}
REFUSALS = (PacketError.COMMAND, PacketError.LENGTH, PacketError.CODE)


def steps(*names: str) -> pytest.MarkDecorator:
    chosen = names or tuple(STEPS)
    return pytest.mark.parametrize("params", [STEPS[name] for name in chosen], ids=chosen)


several = steps(*(name for name, params in STEPS.items() if params.heads > 1))


def parsed(command, tag=0, shot=None, error=PacketError.NONE) -> Parsed:
    """What a receiver says; the codes are none of the step's business."""
    return Parsed(
        writes=command.writes, queries=command.queries, flushes=command is Command.FLUSH, tag=tag,
        error=error, shot=shot or Shot(), k=None, v=None, q=None,
    )  # fmt: skip


def change(packet, name, value) -> Parsed:
    """Change one field of a packet or of its shot."""
    if name in {field.name for field in dataclasses.fields(Shot)}:
        return dataclasses.replace(packet, shot=dataclasses.replace(packet.shot, **{name: value}))
    return dataclasses.replace(packet, **{name: value})


def common(params) -> dict[str, tuple]:
    """Fields that the packets of a step must agree on, and two values of each."""
    fields = {
        "writes": (False, True), "queries": (False, True), "flushes": (False, True),
        "tag": (0, 2**params.tag_bits - 1),
    }  # fmt: skip
    if params.shots:
        fields |= {"accumulate": (False, True), "hold": (False, True), "shift": (0, 3)}
    return fields


def good_step(params, command, rng) -> list[Parsed]:
    """Packets that agree, gain codes apart."""
    shot = Shot.from_field(rng.getrandbits(8)) if command.queries and params.shots else Shot()
    packet = parsed(command, rng.randrange(2**params.tag_bits), shot)
    if not (command.queries and params.shots):
        return [packet] * params.heads
    return [
        change(change(packet, "s_gain", rng.randrange(4)), "a_gain", rng.randrange(4))
        for _ in range(params.heads)
    ]


def random_step(params, rng) -> list[Parsed]:
    """Packets of which some step in five is refused for each of the reasons that there are."""
    packets = good_step(params, rng.choice(tuple(Command)), rng)
    kind = rng.choice(("good", "good", "good", "differ", "refused"))
    if kind == "differ":
        at = rng.randrange(params.heads)
        name, values = rng.choice(tuple(common(params).items()))
        packets[at] = change(packets[at], name, rng.choice(values))
    elif kind == "refused":
        for at in rng.sample(range(params.heads), rng.randint(1, params.heads)):
            packets[at] = parsed(
                rng.choice(tuple(Command)), rng.randrange(2**params.tag_bits),
                error=rng.choice(REFUSALS),
            )  # fmt: skip
    return packets


def show(clk: Clocked, params, head, packet, rng=None) -> None:
    """Offer a head's packet, or none and noise in its place."""
    port = clk.dut.packets[head]
    clk.ctx.set(port.valid, int(packet is not None))
    if packet is None:
        packet = random_step(params, rng)[0] if rng is not None else parsed(Command.FLUSH)
    fields = {name: getattr(packet, name) for name in ("writes", "queries", "flushes")}
    fields |= {"tag": packet.tag, "error": packet.error}
    if params.shots:
        shot = packet.shot
        if packet.error and rng is not None:  # the receiver has kept what the header held
            shot = Shot.from_field(rng.getrandbits(8))
        names = ("s_gain", "a_gain", "accumulate", "hold", "shift")
        fields |= {name: int(getattr(shot, name)) for name in names}
    clk.ctx.set(port.payload, fields)


def check_join(clk: Clocked, params, packets) -> None:
    """Check what the sequencer is offered."""
    expected = join(packets)
    payload = clk.ctx.get(clk.dut.packet.payload)
    assert (payload.error, payload.queries) == (expected.error, expected.queries)
    if params.heads > 1:
        assert clk.get("refused") == bool(expected.error)
    if expected.error:
        return
    got = (payload.writes, payload.flushes, payload.tag)
    assert got == (expected.writes, expected.flushes, expected.tag)
    if params.shots:
        first = expected.shots[0]
        got = (payload.accumulate, payload.hold, payload.shift)
        assert got == (first.accumulate, first.hold, first.shift)
        assert payload.s_gain == pack([shot.s_gain for shot in expected.shots], GAIN_BITS)
        assert payload.a_gain == pack([shot.a_gain for shot in expected.shots], GAIN_BITS)


def offer_answer(clk: Clocked, params, packets=None, error=PacketError.NONE, probe=False) -> None:
    """Offer the sequencer's answer to a step, or withdraw it."""
    port = clk.dut.answer
    clk.ctx.set(port.valid, int(packets is not None or probe))
    shot = packets[0].shot if packets else Shot()
    fields = {"tag": packets[0].tag if packets else 0, "error": error}
    if params.shots:
        held = shot.hold and error is PacketError.NONE  # an invalid answer is sent
        fields |= {"accumulate": shot.accumulate, "hold": held, "shift": shot.shift}
    if params.self_test:
        fields["probe"] = probe
    clk.ctx.set(port.payload, fields)


def given(clk: Clocked, params) -> list[Reply | None]:
    """What the senders are offered in this clock."""
    found: list[Reply | None] = []
    for head in range(params.heads):
        port = clk.dut.replies[head]
        payload = clk.ctx.get(port.payload)
        found.append(
            Reply(payload.tag, PacketError(payload.error)) if clk.ctx.get(port.valid) else None
        )
    return found


def senders(clk: Clocked, ready) -> None:
    for port, value in zip(clk.dut.replies, ready, strict=True):
        clk.ctx.set(port.ready, int(value))


async def take(clk: Clocked, params, packets) -> None:
    """Offer a whole step, check it and take it in one clock."""
    for head, packet in enumerate(packets):
        show(clk, params, head, packet)
    clk.ctx.set(clk.dut.packet.ready, 1)
    assert clk.ctx.get(clk.dut.packet.valid)
    check_join(clk, params, packets)
    await clk.edge()
    clk.ctx.set(clk.dut.packet.ready, 0)
    for head in range(params.heads):
        show(clk, params, head, None)


async def answered(clk: Clocked, params, packets, *, empty=False) -> list[Reply | None]:
    """Give the sequencer's answer to the step taken last; return the replies."""
    error = join(packets).error or (PacketError.EMPTY if empty else PacketError.NONE)
    offer_answer(clk, params, packets, error)
    senders(clk, [1] * params.heads)
    assert clk.ctx.get(clk.dut.answer.ready)
    got = given(clk, params)
    assert got == replies(packets, empty=empty)
    assert clk.get("keep") == (error is PacketError.NONE)
    await clk.edge()
    offer_answer(clk, params)
    assert given(clk, params) == [None] * params.heads and not clk.get("keep")
    return got


# --- packets -----------------------------------------------------------------------------------
@steps()
def test_a_step_needs_a_packet_of_every_head(params):
    async def bench(clk: Clocked) -> None:
        packets = good_step(params, Command.WRITE_QUERY, random.Random(1))
        for offered in itertools.product((False, True), repeat=params.heads):
            for head, packet in enumerate(packets):
                show(clk, params, head, packet if offered[head] else None)
            for ready in (0, 1):
                clk.ctx.set(clk.dut.packet.ready, ready)
                assert clk.ctx.get(clk.dut.packet.valid) == all(offered)
                taken = [clk.ctx.get(port.ready) for port in clk.dut.packets]
                assert taken == [ready and all(offered)] * params.heads
            clk.ctx.set(clk.dut.packet.ready, 0)
            await clk.edge()

    simulate(Step(params), bench)


@steps()
@pytest.mark.parametrize("command", tuple(Command), ids=lambda command: command.name)
def test_packets_that_agree(params, command):
    rng = random.Random(2)

    async def bench(clk: Clocked) -> None:
        for _ in range(20):
            packets = good_step(params, command, rng)
            assert not any(errors(packets))
            await take(clk, params, packets)
            if command.queries:
                got = await answered(clk, params, packets)
                held = packets[0].shot.hold
                assert [reply is None for reply in got] == [held] * params.heads

    simulate(Step(params), bench)


@several
def test_packets_that_differ(params):
    """In any one field of any one head: the step is refused, those that are owed get an answer."""
    rng = random.Random(3)

    async def bench(clk: Clocked) -> None:
        for name, values in common(params).items():
            for head in range(params.heads):
                for value in values:
                    packets = [
                        change(packet, name, values[1 - values.index(value)])
                        for packet in good_step(params, Command.QUERY, rng)
                    ]
                    packets[head] = change(packets[head], name, value)
                    assert errors(packets) == [PacketError.STEP] * params.heads
                    await take(clk, params, packets)
                    got = await answered(clk, params, packets)
                    assert [reply is not None for reply in got] == [p.queries for p in packets]

    simulate(Step(params), bench)


@several
def test_a_head_whose_packet_was_refused(params):
    """It is told why; the others that no write has happened to them either."""
    rng = random.Random(4)

    async def bench(clk: Clocked) -> None:
        for error, head in itertools.product(REFUSALS, range(params.heads)):
            for owed in (False, True):
                packets = good_step(params, Command.WRITE_QUERY, rng)
                command = Command.WRITE_QUERY if owed else Command.WRITE
                packets[head] = parsed(command, 3, error=error)
                await take(clk, params, packets)
                got = await answered(clk, params, packets)
                assert got[head] == (Reply(3, error) if owed else None)
                others = [reply for other, reply in enumerate(got) if other != head]
                assert others == [
                    Reply(packet.tag, PacketError.STEP)
                    for other, packet in enumerate(packets) if other != head
                ]  # fmt: skip

    simulate(Step(params), bench)


@steps("three", "three-simple")
def test_several_refusals(params):
    """The first head's kind is the step's; each head has its own tag and error."""

    async def bench(clk: Clocked) -> None:
        for kinds in itertools.product((PacketError.NONE, *REFUSALS), repeat=params.heads):
            packets = [
                parsed(Command.QUERY, 5 + head if kind else 9, error=kind)
                for head, kind in enumerate(kinds)
            ]
            await take(clk, params, packets)
            got = await answered(clk, params, packets)
            if any(kinds):
                assert join(packets).error is next(kind for kind in kinds if kind)
                assert got == [
                    Reply(5 + head, kind) if kind else Reply(9, PacketError.STEP)
                    for head, kind in enumerate(kinds)
                ]

    simulate(Step(params), bench)


@several
def test_refused_step_that_nobody_is_answered(params):
    async def bench(clk: Clocked) -> None:
        packets = [parsed(Command.WRITE, 1)] * params.heads
        packets[-1] = parsed(Command.FLUSH, 1)
        await take(clk, params, packets)
        assert join(packets) == Joined(PacketError.STEP, queries=False)
        for _ in range(3):
            assert given(clk, params) == [None] * params.heads and not clk.get("slot")
            await clk.edge()

    simulate(Step(params), bench)


@steps()
def test_query_on_an_empty_window(params):
    """The step is good, the sequencer refuses it: every head is told so, also if it would hold."""
    rng = random.Random(5)

    async def bench(clk: Clocked) -> None:
        for _ in range(8):
            packets = good_step(params, Command.QUERY, rng)
            await take(clk, params, packets)
            got = await answered(clk, params, packets, empty=True)
            assert got == [Reply(packet.tag, PacketError.EMPTY) for packet in packets]

    simulate(Step(params), bench)


# --- answers -----------------------------------------------------------------------------------
@steps()
def test_answer_waits_for_every_sender(params):
    """No head is answered before all can be."""

    async def bench(clk: Clocked) -> None:
        packets = good_step(params, Command.WRITE_QUERY, random.Random(6))
        packets = [change(packet, "hold", False) for packet in packets]
        await take(clk, params, packets)
        for ready in itertools.product((0, 1), repeat=params.heads):
            offer_answer(clk, params, packets)
            senders(clk, ready)
            goes = all(ready)
            assert (clk.ctx.get(clk.dut.answer.ready), clk.get("keep")) == (goes, goes)
            if goes or params.heads == 1:  # a single sender's stream is the sequencer's
                assert given(clk, params) == replies(packets)
            else:
                assert given(clk, params) == [None] * params.heads
            offer_answer(clk, params)
            await clk.edge()

    simulate(Step(params), bench)


@steps("one", "two-shots", "three", "three-simple", "three-one-slot")
def test_answers_that_nobody_gets(params):
    """A held one counts as a shot, a self-test's does not; neither waits for a sender."""

    async def bench(clk: Clocked) -> None:
        kinds = ["held"] * params.shots + ["probe"] * params.self_test
        assert kinds
        for kind in kinds:
            shot = Shot(hold=kind == "held")
            packets = [parsed(Command.QUERY, 1, shot)] * params.heads
            for ready in (0, 1):
                senders(clk, [ready] * params.heads)
                offer_answer(clk, params, packets, probe=kind == "probe")
                assert clk.ctx.get(clk.dut.answer.ready)
                assert clk.get("keep") == (kind == "held")
                assert given(clk, params) == [None] * params.heads
                await clk.edge()
                offer_answer(clk, params)
                assert not clk.get("keep", "slot")[1]
                await clk.edge()
                assert not clk.get("slot")

    simulate(Step(params), bench)


@several
def test_slot_comes_back_after_the_last_head(params):
    """Once, a clock after the last head's result has left, in whatever order they leave."""
    heads = params.heads

    async def bench(clk: Clocked) -> None:
        for order in itertools.permutations(range(heads)):
            for pause in (0, 2):
                for head in order:
                    for _ in range(pause):
                        assert not clk.get("slot")
                        await clk.edge()
                    clk.set(sent=1 << head)
                    assert not clk.get("slot")
                    await clk.edge()
                    clk.set(sent=0)
                assert clk.get("slot")
                await clk.edge()
                assert not clk.get("slot")
        clk.set(sent=2**heads - 1)
        for clock in range(4):
            assert clk.get("slot") == (clock > 0)
            await clk.edge()

    simulate(Step(params), bench)


@several
def test_slots_of_heads_far_apart(params):
    """All of one head's results leave before the first of the others'."""

    async def bench(clk: Clocked) -> None:
        for first in range(params.heads):
            clk.set(sent=1 << first)
            for _ in range(params.sender_slots):
                assert not clk.get("slot")
                await clk.edge()
            clk.set(sent=(2**params.heads - 1) & ~(1 << first))
            for clock in range(params.sender_slots):
                assert clk.get("slot") == (clock > 0)
                await clk.edge()
            clk.set(sent=0)
            assert clk.get("slot")
            await clk.edge()
            assert not clk.get("slot")

    simulate(Step(params), bench)


@several
def test_head_that_is_owed_nothing_does_not_keep_the_slot(params):
    async def bench(clk: Clocked) -> None:
        packets = [parsed(Command.WRITE, 1)] * params.heads
        packets[0] = parsed(Command.WRITE_QUERY, 2)
        for _ in range(3):
            await take(clk, params, packets)
            await answered(clk, params, packets)
            for _ in range(3):
                assert not clk.get("slot")
                await clk.edge()
            clk.set(sent=1)
            await clk.edge()
            clk.set(sent=0)
            assert clk.get("slot")
            await clk.edge()
            assert not clk.get("slot")

    simulate(Step(params), bench)


# --- everything at once ------------------------------------------------------------------------
@steps()
@seeds()
def test_random_steps(params, seed):
    """Heads, sequencer and senders at random, each within its own rules."""
    rng = random.Random(seed)
    count, heads = 120, params.heads
    todo = [random_step(params, rng) for _ in range(count)]

    async def bench(clk: Clocked) -> None:
        offers = [stalls(rng) for _ in range(heads)]
        sends = [stalls(rng) for _ in range(heads)]
        admits, answers = stalls(rng), stalls(rng)
        rules = [StreamRules(f"packets_{head}") for head in range(heads)]
        offered = [False] * heads
        at = 0  # step that comes next
        flight = collections.deque()  # queries whose answers come, the oldest first
        refusal = None  # step whose invalid answer comes next, and whether the window is empty
        free = params.sender_slots
        inside: list[collections.deque] = [collections.deque() for _ in range(heads)]
        left: list[list[int]] = [[] for _ in range(heads)]
        out: list[list[Reply]] = [[] for _ in range(heads)]
        owed: list[list[Reply]] = [[] for _ in range(heads)]
        trying = False
        seen = collections.Counter()
        while at < count or flight or refusal or any(inside):
            assert clk.now < 200 * count, "it hangs"
            # Heads.
            packets = todo[at] if at < count else [None] * heads
            for head in range(heads):
                if at < count and not offered[head] and not offers[head]():
                    offered[head] = True
                    show(clk, params, head, packets[head], rng)
                elif not offered[head]:
                    show(clk, params, head, None, rng)
            # Sequencer, packets.
            empty = False
            may = all(offered) and not refusal and not admits()
            if may:
                joined = join(packets)
                held = packets[0].shot.hold and not joined.error
                empty = joined.queries and not joined.writes and not flight and rng.random() < 0.2
                invalid = joined.queries and bool(joined.error or empty)
                may = not joined.queries or not (
                    (flight and (invalid or not params.streaming))
                    or (params.streaming and free == 0 and (invalid or not held))
                )
            clk.ctx.set(clk.dut.packet.ready, int(may))
            assert clk.ctx.get(clk.dut.packet.valid) == all(offered)
            if all(offered):
                check_join(clk, params, packets)
            # Senders.
            ready = [len(held_by) < params.sender_slots for held_by in inside]
            senders(clk, ready)
            sent = [bool(inside[head]) and not sends[head]() for head in range(heads)]
            clk.set(sent=pack(sent, 1))
            # Sequencer, answers.
            given_now, error = None, PacketError.NONE
            trying = bool(refusal or flight) and (trying or bool(refusal) or not answers())
            probe = params.self_test and not trying and rng.random() < 0.1
            if trying and refusal:
                given_now, is_empty = refusal
                error = join(given_now).error or PacketError.EMPTY
            elif trying:
                given_now, is_empty = flight[0], False
            offer_answer(clk, params, given_now, error, probe)
            silent = probe or (trying and params.shots and given_now[0].shot.hold and not error)
            goes = trying and (silent or all(ready))
            if trying or probe:
                assert clk.ctx.get(clk.dut.answer.ready) == (goes or probe)
                if params.streaming:
                    assert goes or probe, "a slot was free for it"
            assert clk.get("keep") == (goes and not error and not probe)
            expected = replies(given_now, empty=is_empty) if trying else [None] * heads
            for head, reply in enumerate(given(clk, params)):
                if goes or heads == 1:
                    assert reply == expected[head]
                else:
                    assert reply is None
                if goes and reply is not None:
                    inside[head].append(reply)
                    owed[head].append(expected[head])
                elif goes and error:
                    left[head].append(clk.now)
                    seen["passed"] += 1
            # What has left until now, and in this clock.
            for head in range(heads):
                if sent[head]:
                    left[head].append(clk.now)
                    out[head].append(inside[head].popleft())
            slot = clk.get("slot")
            assert slot == (clk.now in slot_clocks(left))
            free += slot
            if goes:
                seen[("silent" if silent else error.name)] += 1
                if refusal:
                    refusal = None
                else:
                    flight.popleft()
                trying = False
            # What is taken with the edge.
            for head, port in enumerate(clk.dut.packets):
                taken = clk.ctx.get(port.ready)
                assert taken == may
                rules[head].clock(offered[head], taken, None)
            if may:
                if joined.queries:
                    takes_slot = params.streaming and (invalid or not held)
                    free -= takes_slot
                    if invalid:
                        refusal = (packets, empty)
                    else:
                        flight.append(packets)
                at, offered = at + 1, [False] * heads
            assert 0 <= free <= params.sender_slots or not params.streaming
            await clk.edge()
        assert out == owed
        assert seen["NONE"] and seen["EMPTY"] and seen["LENGTH"]
        assert bool(seen["STEP"]) == bool(seen["passed"]) == (heads > 1)
        assert bool(seen["silent"]) == params.shots

    simulate(Step(params), bench)


@several
def test_reset(params):
    """Results that some heads have sent are forgotten."""

    async def bench(clk: Clocked) -> None:
        for sent in range(1, 2**params.heads - 1):
            clk.set(sent=sent)
            await clk.edge()
            clk.set(sent=0)
            await clk.reset()
            clk.set(sent=(2**params.heads - 1) & ~sent)
            await clk.edge()
            clk.set(sent=0)
            for _ in range(2):
                assert not clk.get("slot")
                await clk.edge()
            await clk.reset()

    simulate(Step(params), bench)


def test_latency_clk():
    # `take` and `answered` see packets and answers pass in the clock in which they are offered.
    assert Step.latency_clk == 0


@steps()
def test_shape(params):
    step = elaborated(Step(params))
    assert len(step.packets) == len(step.replies) == len(step.sent) == params.heads
    members = set(step.packet.payload.shape().members)
    assert ("accumulate" in members) == ("hold" in members) == params.shots
    if params.shots:
        assert len(step.packet.payload.s_gain) == GAIN_BITS * params.heads


# --- reference ---------------------------------------------------------------------------------
def test_reference():
    one, other = Shot(s_gain=1, shift=2), Shot(a_gain=3, shift=2)
    good = [parsed(Command.QUERY, 7, one), parsed(Command.QUERY, 7, other)]
    assert join(good) == Joined(PacketError.NONE, True, False, False, 7, (one, other))
    assert replies(good) == [Reply(7, PacketError.NONE)] * 2
    assert replies(good, empty=True) == [Reply(7, PacketError.EMPTY)] * 2
    held = [change(packet, "hold", True) for packet in good]
    assert replies(held) == [None, None]
    assert replies(held, empty=True) == [Reply(7, PacketError.EMPTY)] * 2

    differ = [good[0], change(good[1], "tag", 8)]
    assert join(differ) == Joined(PacketError.STEP, True)
    assert replies(differ) == [Reply(7, PacketError.STEP), Reply(8, PacketError.STEP)]
    refused = [parsed(Command.WRITE, 1), parsed(Command.WRITE, 2, error=PacketError.CODE)]
    assert join(refused) == Joined(PacketError.CODE, False)
    assert replies(refused) == [None, None]
    assert join([parsed(Command.WRITE, 1)]) == Joined(
        PacketError.NONE, False, True, False, 1, (Shot(),)
    )


def test_reference_of_slots():
    assert slot_clocks([[3, 5]]) == [3, 5]
    assert slot_clocks([[3, 5], [4, 4, 9]]) == [5, 6]
    assert slot_clocks([[3, 4, 5], [9, 9], [1, 2, 3]]) == [10, 11]
