"""Ranks that measure together: like rowers in one boat, they start on one call and the slowest sets the time.

:func:`meet` brings the processes of a run together (NCCL on CUDA devices, else Gloo); a :class:`Group` times blocks
so that every rank sees the same seconds and takes the same decisions without further talk.
"""

from __future__ import annotations

import datetime
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from calibrate.environment import Machine, import_torch, keep_freed_memory
from calibrate.measure import Block, Warn
from calibrate.microbenchmarks.common import Earlier
from calibrate.microbenchmarks.ranks import SILENCE_S


@dataclass(slots=True)
class AgreedClock:
    """Seconds since the start on the slowest rank, as of the last block: equal on every rank."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(frozen=True, slots=True)
class Group:
    """The ranks that take part, as one of them sees it."""

    torch: Any
    handle: Any
    size: int
    device: str
    begin_s: float
    clock: AgreedClock

    def agree(self, *values: float) -> list[float]:
        """The largest of each value over the ranks; also a barrier."""
        shared = self.torch.tensor(values, dtype=self.torch.float64, device=self.device)
        self.torch.distributed.all_reduce(shared, self.torch.distributed.ReduceOp.MAX, group=self.handle)
        return [float(value) for value in shared.cpu()]

    def block(self, call: Callable[[], Any], *, computes: bool = False) -> Block:
        """Blocks that start together and last as long as on the slowest rank.

        ``computes``: the call only computes, so that one thread of a CPU is timed by its processor time
        (:func:`calibrate.blocks.processor_block`); messages have only the wall clock.
        """
        processor = computes and self.device == "cpu" and self.torch.get_num_threads() == 1
        now = time.process_time if processor else time.perf_counter

        def run(calls: int) -> float:
            self.agree(0.0)
            begin = now()
            for _ in range(calls):
                call()
            if self.device != "cpu":
                self.torch.cuda.synchronize(self.device)
            took_s, self.clock.now_s = self.agree(now() - begin, time.perf_counter() - self.begin_s)
            return took_s

        return run


@dataclass(frozen=True, slots=True)
class Plan:
    """What the ranks of one node measure together; the same on all of them."""

    machine: Machine
    ranks: int
    budget_s: float
    seed: int
    earlier: Earlier = field(default_factory=Earlier)
    """What an interrupted sitting has read."""


def ranks_of_node(machine: Machine, processes: int, warn: Warn) -> int:
    """Ranks that a part starts on this node: one a device, or two on a CPU; 1 where there is nothing to start.

    More ranks than devices would have to compute elsewhere, under the device's name, so there are none.
    """
    ranks = processes or (machine.devices if machine.is_cuda else 2)
    if launched_rank() is not None:
        return 1
    if machine.is_cuda and ranks > machine.devices:
        warn(f"{ranks} ranks at once left out: {machine.devices} device(s) here")
        return 1
    return ranks


@contextmanager
def meet_in_node(machine: Machine, ranks: int, rank: int, meeting: str, budget_s: float) -> Iterator[Group]:
    """:func:`meet` for ranks of one node that compute: each on a device of its own, or on its share of the CPU."""
    backend, device = ("nccl", f"cuda:{rank}") if machine.is_cuda else ("gloo", "cpu")
    with meet(
        backend, rank, ranks, meeting, device=device, threads=machine.units, budget_s=budget_s
    ) as group:
        yield group


def first_only(rank: int, warn: Warn) -> Warn:
    """``warn`` on rank 0; the others have nothing to add."""
    return warn if rank == 0 else _mute


def _mute(text: str) -> None:
    del text


def launched_rank() -> int | None:
    """This process's rank when ``torchrun`` started it."""
    return int(os.environ["RANK"]) if {"RANK", "WORLD_SIZE"} <= os.environ.keys() else None


@contextmanager
def meet(
    backend: str, rank: int, ranks: int, meeting: str, *, device: str, threads: int, budget_s: float
) -> Iterator[Group]:
    """The group of all ``ranks``, from the moment they have met until this rank leaves.

    Args:
        backend: ``nccl`` or ``gloo``.
        rank: of this process.
        ranks: in all.
        meeting: where to meet, as ``torch.distributed`` takes it.
        device: torch device of this rank.
        threads: CPU threads of this rank, where it computes there.
        budget_s: how long the work may take; ranks that wait are patient for longer than that.
    """
    torch = import_torch()
    dist = torch.distributed
    warnings.simplefilter("ignore", FutureWarning)  # newer torch renames collectives; both names work
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(threads)
        keep_freed_memory()
    timeout = datetime.timedelta(seconds=SILENCE_S + budget_s)
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=ranks, timeout=timeout)
    try:
        group = Group(torch, None, ranks, device, time.perf_counter(), AgreedClock())
        yield group
        group.agree(0.0)
    finally:
        dist.destroy_process_group()
