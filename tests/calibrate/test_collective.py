"""Collectives between real processes, and what happens when one of them dies."""

from __future__ import annotations

import os
import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.environment import Machine
from calibrate.measurements import table_faults
from calibrate.microbenchmarks import collective, ranks
from calibrate.microbenchmarks.common import Earlier

CPU = Machine("Example CPU", "cpu", "cpu", 2, 4e9, 3e7, 1, "torch")


def echo(plan, rank, meeting, warn):
    """A rank without torch: says who it is."""
    warn(f"rank {rank} here")
    yield {"rank": rank, "plan": plan, "meeting": meeting}


def die(plan, rank, meeting, warn):
    """Rank 1 is killed after its first row; the others wait as ranks of a collective would."""
    yield {"rank": rank}
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def leave(plan, rank, meeting, warn):
    """Rank 0 ends the process behind Python's back."""
    if rank == 0:
        os._exit(3)
    time.sleep(60)
    yield {}


def fail(plan, rank, meeting, warn):
    """An error inside a rank."""
    if rank == 1:
        raise RuntimeError("no such interface: eth7\nand much more")
    time.sleep(60)
    yield {}


def hang(plan, rank, meeting, warn):
    """No word, ever."""
    time.sleep(60)
    yield {}


def test_ranks_report_through_their_pipes():
    said = []
    rows = list(ranks.spawn(3, echo, "plan", said.append))
    assert sorted(row["rank"] for row in rows) == [0, 1, 2]
    assert len({row["meeting"] for row in rows}) == 1
    assert sorted(said) == [f"rank {rank} here" for rank in range(3)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (die, r"rank 1 \(process \d+\) was killed by SIGKILL after \d rows; the other ranks were ended"),
        (leave, r"rank 0 \(process \d+\) exited with code 3 after 0 rows"),
        (fail, r"rank 1 failed: no such interface: eth7$"),
    ],
)
def test_a_rank_that_ends_badly_is_one_sentence_and_no_hang(body, message):
    begin = time.monotonic()
    with pytest.raises(ranks.RankError, match=message):
        list(ranks.spawn(2, body, None, lambda text: None))
    assert time.monotonic() - begin < 30, "the other rank sleeps for a minute: nobody waited for it"


def test_silent_ranks_are_given_up():
    with pytest.raises(ranks.RankError, match="no rank has reported for 0 s, after 0 rows"):
        list(ranks.spawn(2, hang, None, lambda text: None, silence_s=0.4))


def test_a_reader_that_stops_early_leaves_no_process():
    import multiprocessing

    rows = ranks.spawn(2, die, None, lambda text: None)
    next(rows)
    rows.close()
    assert [child.name for child in multiprocessing.active_children() if child.name.startswith("rank")] == []


@given(st.integers(2, 600))
def test_group_sizes_are_powers_of_two_and_all(count):
    sizes = collective.group_sizes(count)
    assert sizes[-1] == count
    assert sizes == sorted(set(sizes))
    assert all(size & (size - 1) == 0 for size in sizes[:-1])


@given(st.integers(1, 100), st.floats(1.0, 2.0**34))
def test_message_sizes_are_powers_of_two_from_1_kib_up(points, top_bytes):
    sizes = collective.message_sizes(points, top_bytes)
    assert sizes[0] == collective.SMALLEST_BYTES
    assert 2 <= len(sizes) <= max(points, 2)
    assert all(size & (size - 1) == 0 for size in sizes)
    assert (
        max(collective.LEAST_TOP_BYTES, top_bytes) / 2
        < sizes[-1]
        <= max(collective.LEAST_TOP_BYTES, top_bytes)
    )


def test_fabric_is_named_only_where_it_is_known(monkeypatch):
    gpu = Machine("GPU", "cuda:0", "hopper", 132, 8e10, 5e7, 8, "torch")
    amd = Machine("GPU", "cuda:0", "cdna3", 304, 2e11, 2e8, 8, "torch")
    monkeypatch.setattr(collective, "nvlink_active", lambda: True)
    assert collective.find_fabric(CPU, "gloo", 2, 2) == "gloo"
    assert collective.find_fabric(gpu, "nccl", 8, 8) == "nvlink"
    assert collective.find_fabric(amd, "nccl", 8, 8) == "xgmi"
    assert collective.find_fabric(gpu, "nccl", 16, 8) == ""
    monkeypatch.setattr(collective, "nvlink_active", lambda: False)
    assert collective.find_fabric(gpu, "nccl", 8, 8) == "pcie"


def test_one_rank_has_nobody_to_talk_to(monkeypatch):
    said = []
    alone = Machine("GPU", "cuda:0", "hopper", 132, 8e10, 5e7, 1, "torch")
    assert list(collective.measure(alone, 1.0, 0, said.append)) == []
    assert "nothing to exchange" in said[0]


@pytest.mark.torch
def test_two_real_processes_over_gloo():
    pytest.importorskip("torch", reason="collectives need torch (extra: calibrate)")
    said = []
    for budget_s in (1.5, 6.0, 24.0):  # a busy machine may need more than one second to come round
        rows = list(collective.measure(CPU, budget_s, 0, said.append, system="here"))
        reduced = [row for row in rows if row["collective"] == "all_reduce"]
        if reduced:
            break
    assert reduced, said
    assert table_faults({"collectives": rows}) == []
    assert {(row["gpus"], row["nodes"], row["fabric"], row["system"]) for row in rows} == {
        (2, 1, "gloo", "here")
    }
    for row in reduced:
        assert row["busbw_gbps"] == pytest.approx(row["algbw_gbps"], abs=2e-4), (
            "2 (n - 1) / n = 1 for two ranks"
        )
        assert row["algbw_gbps"] == pytest.approx(row["size_bytes"] / row["time_us"] / 1e3, abs=2e-4)


@pytest.mark.torch
def test_a_later_sitting_measures_only_what_an_earlier_one_left():
    pytest.importorskip("torch", reason="collectives need torch (extra: calibrate)")
    rates = {"sizes of 2 ranks": 2.0, "largest bytes of 2 ranks": 2.0**20}
    first = list(collective.measure(CPU, 8.0, 0, lambda text: None, earlier=Earlier((), dict(rates))))
    kept = first[::2]
    later = list(collective.measure(CPU, 8.0, 0, lambda text: None, earlier=Earlier(kept, dict(rates))))

    def points(rows):
        return sorted((row["collective"], row["size_bytes"]) for row in rows)

    assert points(later) == points(first[1::2])
    assert {size for _, size in points(first)} == {2**10, 2**20}
