"""Shot accumulator against exact sums of weighted, trimmed shots, cut to their width."""

from __future__ import annotations

import random
import re

import pytest
from test_hw_bench import (
    COMPLETE,
    PARTIAL,
    SMALL,
    Clocked,
    elaborated,
    every_kind,
    pack,
    seeds,
    simulate,
    small,
)

from hw.packet import Shot
from hw.shot_accumulator import ShotAccumulator
from sim.reference.readout import pack_sums
from sim.reference.shot_accumulator import (
    ShotResult,
    combine,
    nothing,
    pack_results,
    result_limits,
    unpack_results,
)

with_shots = small(*COMPLETE, "bytes-shots")
with_trim = small(*COMPLETE, "wide-sums-trim")


class Shots:
    """A component under test beside what the reference makes of its inputs."""

    def __init__(self, clk: Clocked, params) -> None:
        self.clk, self.params = clk, params
        self.before = nothing(params)
        self.trims = [0] * params.lanes
        self.full = [False] * params.lanes

    def show(self, sums, shot=None, full=None) -> ShotResult:
        """Show a query's sums and check the results of this very clock."""
        p, clk, shot = self.params, self.clk, shot or Shot()
        full = [False] * p.lanes if full is None else full
        clk.set(sums=pack_sums(p, sums), full_scale=pack(full, 1))
        if p.shots:
            clk.set(answers=1, accumulate=shot.accumulate, shift=shot.shift)
        expected = combine(p, sums, full, shot=shot, trims=self.trims, before=self.before)
        results, flags, saturated = clk.get("results", "result_full_scale", "saturated")
        assert unpack_results(p, results) == list(expected.results)
        assert flags == pack(expected.full_scale, 1)
        assert bool(saturated) == expected.saturated
        return expected

    async def count(self, sums, shot=None, full=None, *, keep=True, clear=False) -> ShotResult:
        """Show sums for a clock in which the shot counts or not, and the one before is cleared."""
        expected = self.show(sums, shot, full)
        if self.params.shots:
            self.clk.set(keep=keep, clear=clear)
        await self.clk.edge()
        if self.params.shots:
            self.clk.set(keep=0, clear=0)
        if clear:
            self.before = nothing(self.params)
        elif keep:
            self.before = expected
        return expected

    async def trim(self, lane, value) -> None:
        self.clk.set(trim_index=lane, trim_write=1, trim_data=value)
        await self.clk.edge()
        self.clk.set(trim_write=0, trim_data=0)
        if lane < self.params.lanes:
            self.trims[lane] = value
            assert self.clk.get("trim_read") == value


def random_sums(params, rng):
    top = params.subtiles * params.count_max
    return [rng.choice((-top, top, 0, rng.randint(-top, top))) for _ in range(params.lanes)]


def random_shot(params, rng):
    """A shot that a head allows; gains and hold are none of the accumulator's business."""
    if not params.shots:
        return Shot()
    return Shot(accumulate=rng.random() < 0.7, shift=rng.randrange(4))


@every_kind()
def test_single_shots(params):
    """Every weight of the largest sums of either sign: nothing is cut, nothing is flagged."""
    top = params.subtiles * params.count_max

    async def bench(clk: Clocked) -> None:
        shots = Shots(clk, params)
        for shift in range(4 if params.shots else 1):
            for value in (top, -top, 1, -1, 0):
                sums = [value if lane % 2 else -value for lane in range(params.lanes)]
                result = await shots.count(sums, Shot(shift=shift))
                assert result.results == tuple(s << shift for s in sums)
                assert not result.saturated

    simulate(ShotAccumulator(params), bench)


@with_shots
@seeds()
def test_sums_that_are_no_answer_count_as_zero(params, seed):
    rng = random.Random(seed)

    async def bench(clk: Clocked) -> None:
        shots = Shots(clk, params)
        for _ in range(60):
            if params.trim_bits:
                await shots.trim(rng.randrange(params.lanes), rng.randrange(-4, 4))
            await shots.count(random_sums(params, rng), random_shot(params, rng))
            shot = random_shot(params, rng)
            expected = shots.show([0] * params.lanes, shot)
            clk.set(answers=0, sums=pack_sums(params, random_sums(params, rng)))
            assert unpack_results(params, clk.get("results")) == list(expected.results)

    simulate(ShotAccumulator(params), bench)


@every_kind()
@seeds()
def test_random_shots(params, seed):
    rng = random.Random(seed)

    async def bench(clk: Clocked) -> None:
        shots = Shots(clk, params)
        half = 2**params.trim_bits // 2
        for _ in range(150):
            if params.trim_bits and rng.random() < 0.3:
                await shots.trim(
                    rng.randrange(params.lanes), rng.choice((-half, half - 1, rng.randrange(half)))
                )
            await shots.count(
                random_sums(params, rng),
                random_shot(params, rng),
                [rng.random() < 0.2 for _ in range(params.lanes)],
                keep=rng.random() < 0.8,
                clear=rng.random() < 0.1,
            )

    simulate(ShotAccumulator(params), bench)


@with_shots
@pytest.mark.parametrize("sign", (1, -1), ids=("up", "down"))
def test_saturation(params, sign):
    """One lane runs into its limit and stays; the flag outlives the limit, not the accumulation."""
    top = params.subtiles * params.count_max

    async def bench(clk: Clocked) -> None:
        shots = Shots(clk, params)
        limit = result_limits(params)[sign > 0]
        for lane in range(params.lanes):
            push = [sign * top if n == lane else 0 for n in range(params.lanes)]
            result = await shots.count(push, Shot(shift=3))
            steps = 1
            while not result.saturated:
                result = await shots.count(push, Shot(accumulate=True, shift=3))
                steps += 1
                assert steps < 10, "it never saturates"
            assert steps > 2, "two of the largest shots fit"
            assert result.results == tuple(limit if n == lane else 0 for n in range(params.lanes))
            # At the limit and further beyond it.
            assert await shots.count(push, Shot(accumulate=True)) == result
            # Off the limit again: the result is in range, but not what it ought to be.
            back = await shots.count([-value for value in push], Shot(accumulate=True))
            assert back.saturated and abs(back.results[lane]) < abs(limit)
            # The next one that starts afresh is in order.
            assert not (await shots.count(push)).saturated

    simulate(ShotAccumulator(params), bench)


@with_shots
@pytest.mark.parametrize("sign", (1, -1), ids=("up", "down"))
def test_a_result_at_its_limit_fits(params, sign):
    """The flag says that something was cut, not that the result is large."""
    top = params.subtiles * params.count_max

    async def bench(clk: Clocked) -> None:
        shots = Shots(clk, params)
        limit = result_limits(params)[sign > 0]
        left, first = abs(limit), True
        while left:
            shift = next(shift for shift in (3, 2, 1, 0) if left >= 1 << shift)
            step = min(left >> shift, top)
            left -= step << shift
            shot = Shot(accumulate=not first, shift=shift)
            result = await shots.count([sign * step] * params.lanes, shot)
            assert not result.saturated
            first = False
        assert set(result.results) == {limit}
        # One more is one too many.
        result = await shots.count([sign] * params.lanes, Shot(accumulate=True))
        assert result.saturated and set(result.results) == {limit}

    simulate(ShotAccumulator(params), bench)


@with_shots
def test_full_scale_flags_of_all_shots(params):
    """A lane's flag stays with what is accumulated on it, and with nothing else."""

    async def bench(clk: Clocked) -> None:
        shots = Shots(clk, params)
        zeros = [0] * params.lanes
        for lane in range(params.lanes):
            flags = [n == lane for n in range(params.lanes)]
            await shots.count(zeros, full=flags)
            assert (await shots.count(zeros, Shot(accumulate=True))).full_scale == tuple(flags)
            assert (await shots.count(zeros, Shot(accumulate=True))).full_scale == tuple(flags)
            assert not any((await shots.count(zeros)).full_scale)
            assert not any((await shots.count(zeros, Shot(accumulate=True))).full_scale)

    simulate(ShotAccumulator(params), bench)


@with_shots
def test_what_counts(params):
    """Only with ``keep``; ``clear`` wins over it, and the results of its clock are still whole."""

    async def bench(clk: Clocked) -> None:
        shots = Shots(clk, params)
        onto = Shot(accumulate=True)
        ones, fives = [1] * params.lanes, [5] * params.lanes
        full = [True] * params.lanes
        for clear, keep, expected in (
            (False, False, 1), (False, True, 6), (True, False, 0), (True, True, 0),
        ):  # fmt: skip
            await shots.count(ones, full=[False] * params.lanes)
            shown = await shots.count(fives, onto, full, keep=keep, clear=clear)
            assert set(shown.results) == {6}
            after = shots.show([0] * params.lanes, onto)
            assert set(after.results) == {expected}
            assert after.full_scale == tuple([expected == 6] * params.lanes)
        # Sums that nobody keeps pass by without a trace.
        await shots.count(ones)
        for _ in range(5):
            await shots.count(fives, onto, full, keep=False)
        assert set(shots.show([0] * params.lanes, onto).results) == {1}

    simulate(ShotAccumulator(params), bench)


@with_shots
def test_clear_forgets_saturation(params):
    top = params.subtiles * params.count_max

    async def bench(clk: Clocked) -> None:
        shots = Shots(clk, params)
        for _ in range(4):
            await shots.count([top] * params.lanes, Shot(accumulate=True, shift=3))
        assert shots.before.saturated
        await shots.count([0] * params.lanes, keep=False, clear=True)
        assert not shots.show([0] * params.lanes, Shot(accumulate=True)).saturated

    simulate(ShotAccumulator(params), bench)


@with_trim
def test_trim_of_each_lane(params):
    """A lane's offset is set and read back alone, and subtracted before the weight."""
    half = 2**params.trim_bits // 2
    rng = random.Random(5)

    async def bench(clk: Clocked) -> None:
        shots = Shots(clk, params)
        for value in (-half, half - 1, 1, -1):
            for lane in rng.sample(range(params.lanes), params.lanes):
                await shots.trim(lane, value if lane % 2 else -1 - value)
                for other in range(params.lanes):
                    clk.set(trim_index=other, trim_data=7 % half)  # without a write
                    assert clk.get("trim_read") == shots.trims[other]
                sums = random_sums(params, rng)
                for shift in (0, 3) if params.shots else (0,):
                    result = await shots.count(sums, Shot(shift=shift))
                    assert result.results[lane] == (sums[lane] - shots.trims[lane]) * 2**shift
                    assert not result.saturated

    simulate(ShotAccumulator(params), bench)


@small("wide-sums-trim")
def test_trim_of_no_lane(params):
    """An index beyond the lanes sets nothing."""
    assert params.lanes == 3

    async def bench(clk: Clocked) -> None:
        shots = Shots(clk, params)
        await shots.trim(3, 5)
        shots.show([0] * params.lanes)

    simulate(ShotAccumulator(params), bench)


@small(*COMPLETE)
def test_a_trim_set_between_shots_does_not_touch_the_one_before(params):
    async def bench(clk: Clocked) -> None:
        shots = Shots(clk, params)
        await shots.count([3] * params.lanes, Shot(shift=1))
        await shots.trim(0, 2)
        result = await shots.count([3] * params.lanes, Shot(accumulate=True, shift=2))
        assert result.results[:2] == (6 + 4, 6 + 12)
        # What counts and what is set in the same clock do not meet: the old offset applied.
        clk.set(trim_index=0, trim_write=1, trim_data=-1)
        await shots.count([1] * params.lanes)
        clk.set(trim_write=0)
        shots.trims[0] = -1
        assert shots.show([0] * params.lanes, Shot(accumulate=True)).results[:2] == (-1 + 1, 1)

    simulate(ShotAccumulator(params), bench)


@every_kind()
def test_reset(params):
    """Nothing is left: no shot before, no flag, no offset."""
    rng = random.Random(6)
    top = params.subtiles * params.count_max

    async def bench(clk: Clocked) -> None:
        for _ in range(3):
            shots = Shots(clk, params)
            onto = Shot(accumulate=params.shots)
            shots.show([0] * params.lanes, onto)
            for lane in range(params.lanes) if params.trim_bits else ():
                await shots.trim(lane, rng.choice((1, -1)))
            for _ in range(4):
                shot = Shot(accumulate=params.shots, shift=3 if params.shots else 0)
                await shots.count([top] * params.lanes, shot, [True] * params.lanes)
            await clk.reset()

    simulate(ShotAccumulator(params), bench)


def test_latency_clk():
    # `Shots.show` sees results in the clock of their sums.
    assert ShotAccumulator.latency_clk == 0


@every_kind()
def test_features_that_are_absent_have_no_port(params):
    block = elaborated(ShotAccumulator(params))
    for name in ("accumulate", "shift", "keep", "clear"):
        assert hasattr(block, name) == params.shots
    for name in ("trim_index", "trim_write", "trim_data", "trim_read"):
        assert hasattr(block, name) == bool(params.trim_bits)
    assert len(block.results) == params.lanes * params.result_bits


# --- reference ---------------------------------------------------------------------------------
def test_reference():
    params = COMPLETE["tiny-complete"]
    assert (params.sum_bits, params.result_bits, params.trim_bits) == (6, 10, 5)
    first = combine(
        params, [30, -30, 1, 0], [True, False, False, False],
        shot=Shot(shift=3, hold=True), trims=[-16, 15, 0, 1],
    )  # fmt: skip
    assert first == ShotResult((368, -360, 8, -8), (True, False, False, False), False)
    second = combine(
        params, [30, -30, 1, 0], [False, False, True, False],
        shot=Shot(accumulate=True, shift=3), before=first,
    )  # fmt: skip
    assert second == ShotResult((511, -512, 16, -8), (True, False, True, False), True)
    third = combine(params, [-1] * 4, [False] * 4, shot=Shot(accumulate=True), before=second)
    assert third == ShotResult((510, -512, 15, -9), (True, False, True, False), True)
    plain = combine(params, [30, -30, 1, 0], [False] * 4, before=third)
    assert plain == ShotResult((30, -30, 1, 0), (False,) * 4, False)


def test_reference_of_packed_results():
    params = COMPLETE["tiny-complete"]
    assert pack_results(params, [1, -1, 511, -512]) == 1 | 0x3FF << 10 | 0x1FF << 20 | 0x200 << 30
    rng = random.Random(7)
    low, high = result_limits(params)
    for _ in range(50):
        results = [rng.randint(low, high) for _ in range(params.lanes)]
        assert unpack_results(params, pack_results(params, results)) == results


def test_reference_errors():
    params, bare = COMPLETE["tiny-complete"], SMALL["tiny"]
    none, zeros = [False] * 4, [0] * 4
    shot = Shot(shift=1)
    for message, of, sums, full, options in (
        ("sums must hold 4 lanes, not 3", params, [0] * 3, none, {}),
        ("full_scale must hold 4 lanes, not 5", params, zeros, [True] * 5, {}),
        ("trims must hold 4 lanes, not 0", params, zeros, none, {"trims": []}),
        ("sums must be in -30..30, not 31", params, [0, 31, 0, 0], none, {}),
        ("trims must be in -16..15, not -17", params, zeros, none, {"trims": [0, 0, 0, -17]}),
        ("trims must be in -16..15, not 16", params, zeros, none, {"trims": [16, 0, 0, 0]}),
        ("trims must be in 0..0, not 1", bare, zeros, none, {"trims": [1, 0, 0, 0]}),
        (
            f"shot must be the plain one of a head without shots, not {shot!r}",
            bare, zeros, none, {"shot": shot},
        ),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            combine(of, sums, full, **options)
    assert combine(bare, zeros, none, trims=zeros) == nothing(bare)
    assert PARTIAL["bytes-shots"].trim_bits == 0
