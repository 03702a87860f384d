"""What survives an interruption: closed forms against playing every bookmark, and from plan and wires to times."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster.failures.checkpoints import SavedState, recovery_for
from sim.cluster.recovery import NEVER, MemoryTier, Progress, Recovery
from sim.cost.goodput import goodput_two_tier_frac, optimal_interval_s
from sim.cost.storage import Storage
from sim.spec.reliability import Checkpointing


def played(recovery: Recovery, ran: float, phase: float) -> tuple[Progress, float]:
    """Bookmark after bookmark, from the last durable one: the slow way."""
    tier = recovery.memory
    step = tier.interval_s if tier else recovery.interval_s
    each = round(recovery.interval_s / step)
    clock = useful = memory = 0.0
    done = round(phase / step)
    writes = []  # (time durable, work)

    while clock < ran:
        work = min(step, ran - clock)
        useful, clock = useful + work, clock + work
        if work < step:
            break
        done += 1
        if tier:
            clock += tier.stall_s
            if clock <= ran:
                memory = useful
        if done == each:
            writes.append((clock + recovery.durable_s, useful))
            clock += recovery.stall_s
            done = 0
    saved = max((work for at, work in writes if at <= ran), default=0.0)
    return Progress(useful, saved, ran - useful, 0.0), memory


times = st.integers(1, 50).map(float)


@given(times, times, st.integers(0, 40), st.integers(0, 2000))
def test_blocking_and_asynchronous_bookmarks_are_those_of_playing_them(
    interval: float, stall: float, late: int, ran: int
) -> None:
    recovery = Recovery(interval, stall, stall + late, 7.0)
    got = recovery.progress(ran + 0.5)
    assert got == pytest.approx(played(recovery, ran + 0.5, 0.0)[0])
    whole = recovery.progress(ran + 0.5, restarted=True)
    assert sum((whole.useful_s, whole.checkpoint_s, whole.restart_s)) == pytest.approx(ran + 0.5)


@given(st.integers(1, 6), times, st.integers(0, 9), times, st.integers(0, 5), st.integers(0, 2000))
def test_two_tiers_are_those_of_playing_them(
    each: int, step: float, snap: int, write: float, begun: int, ran: int
) -> None:
    recovery = Recovery(each * step, write, write, 7.0, memory=MemoryTier(step, float(snap)))
    phase = min(begun, each - 1) * step
    expected, in_memory = played(recovery, ran + 0.5, phase)
    assert recovery.progress(ran + 0.5, phase_s=phase) == pytest.approx(expected)
    assert recovery.in_memory_s(ran + 0.5, phase_s=phase) == pytest.approx(in_memory)
    assert in_memory >= expected.durable_s


@given(st.integers(1, 6), times, st.integers(0, 9), times, st.integers(0, 5), st.integers(1, 2000))
def test_the_wall_time_of_work_is_when_it_is_done(
    each: int, step: float, snap: int, write: float, begun: int, work: int
) -> None:
    tier = Recovery(each * step, write, write, 7.0, memory=MemoryTier(step, float(snap)))
    for recovery, phase in ((tier, min(begun, each - 1) * step), (Recovery(step, write, write, 7.0), 0.0)):
        wall = recovery.wall_s(float(work), phase_s=phase)
        assert recovery.progress(wall, phase_s=phase).useful_s == pytest.approx(work)
        assert recovery.progress(wall - 0.25, phase_s=phase).useful_s == pytest.approx(work - 0.25)
        assert recovery.wall_s(float(work), restarted=True, phase_s=phase) == pytest.approx(wall + 7)


def test_without_checkpoints_nothing_lasts() -> None:
    assert NEVER.progress(100.0) == Progress(100.0, 0.0, 0.0, 0.0)
    assert NEVER.wall_s(100.0) == 100


def test_a_silent_error_is_found_by_the_next_check_and_not_while_writing() -> None:
    recovery = Recovery(100.0, 15.0, 15.0, verify_s=5.0)
    assert recovery.undetected_s(30.0) == pytest.approx(75)
    assert recovery.undetected_s(107.0) is None
    assert recovery.undetected_s(115.0 + 30.0) == pytest.approx(75)


TERABYTES = 12e12
STATE = SavedState(TERABYTES, 100, Storage(1e12, 5e11), host_bytes_per_s=1e10, peer_bytes_per_s=2e10)


def test_a_blocking_plan() -> None:
    """12 TB at 0.5 TB/s: 24 s to write, 12 s to load."""
    plan = Checkpointing(requeue_s=60.0, warm_up_s=30.0)
    got = recovery_for(plan, STATE, 6000.0)
    assert (got.stall_s, got.durable_s, got.restart_s) == pytest.approx((24, 24, 102))
    assert got.interval_s == pytest.approx(float(optimal_interval_s(6000.0, 24.0)))


def test_an_asynchronous_plan_stalls_for_the_copy_and_never_overtakes_its_own_write() -> None:
    fast = recovery_for(Checkpointing("asynchronous"), STATE, 6000.0)
    assert (fast.stall_s, fast.durable_s) == pytest.approx((12, 36))
    often = recovery_for(Checkpointing("asynchronous", "fixed", 1.0), STATE, 6000.0)
    assert often.cycle_s >= often.durable_s
    assert often.interval_s == pytest.approx(24)


def test_jobs_that_write_at_once_share_the_storage() -> None:
    shared = SavedState(TERABYTES, 100, Storage(1e12, 5e11), jobs_at_once=4)
    assert recovery_for(Checkpointing(), shared, 6000.0).stall_s == pytest.approx(96)


def test_rules_of_the_interval() -> None:
    young, daly, best = (
        recovery_for(Checkpointing(rule=rule), STATE, 6000.0) for rule in ("young", "daly", "optimal")
    )
    assert young.interval_s == pytest.approx(math.sqrt(2 * 24 * 6000))
    assert daly.interval_s == pytest.approx(best.interval_s, rel=1e-4)
    assert recovery_for(Checkpointing("none"), STATE, 6000.0).interval_s == math.inf


@pytest.mark.parametrize("mean", [3000.0, 6500.0, 50_000.0])
def test_the_durable_interval_beside_snapshots_is_almost_the_best(mean: float) -> None:
    """Against trying every whole number of snapshots in the exact two-tier form."""
    plan = Checkpointing(memory_interval_s=60.0, requeue_s=60.0)
    got = recovery_for(plan, STATE, mean, memory_frac=0.8)
    assert got.memory is not None

    def goodput(every: int) -> float:
        down = {"memory_down_s": got.memory.restart_s, "durable_down_s": got.restart_s}
        return goodput_two_tier_frac(
            mean, 60.0, got.memory.stall_s, got.stall_s, every, memory_frac=0.8, **down
        )

    assert goodput(round(got.interval_s / 60)) > max(map(goodput, range(1, 200))) * 0.9995
