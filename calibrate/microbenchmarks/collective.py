"""Collectives between real processes: as in a relay, all start together and the last one home counts.

On CUDA devices one process a device over NCCL, otherwise local processes over Gloo; under ``torchrun`` the
ranks that it started. Every rank times every block and all agree on the slowest rank's time, so all take the
same decisions without further talk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from calibrate.driver import nvlink_active
from calibrate.environment import Machine, import_torch, nccl_version
from calibrate.measure import Point, StopRule, Timing, Warn, sweep
from calibrate.microbenchmarks.common import Earlier
from calibrate.microbenchmarks.group import Group, first_only, launched_rank, meet
from calibrate.microbenchmarks.ranks import RankError, first_line, spawn
from calibrate.roll_call import account, join
from sim.cost.collective_forms import bus_factor

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "alltoall", "broadcast", "sendrecv")
SMALLEST_BYTES, LEAST_TOP_BYTES = 2**10, 2**20
TOP_BYTES = {"gloo": 2**26, "nccl": 2**32}
"""Largest message, where budget and memory reach that far."""
PROBE_BYTES = 2**22
SECONDS_PER_POINT = 0.2
FEWEST = 6
"""Points of a group that are measured however short the budget: fewer cannot be fitted."""
LAID_OUT = "laid_out"
"""Sole column of what rank 0 tells before the rows of a group: how its points were chosen, for a later sitting."""
RULE = StopRule(block_s=0.005, max_blocks=60, max_calls=400, warm_up_blocks=6)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the ranks do; the same on all of them."""

    machine: Machine
    backend: str
    ranks: int
    local_ranks: int
    """Ranks of one node."""
    budget_s: float
    seed: int
    system: str
    fabric: str
    earlier: Earlier = field(default_factory=Earlier)
    """What an interrupted sitting has read."""


def measure(
    machine: Machine,
    budget_s: float,
    seed: int,
    warn: Warn,
    *,
    processes: int = 0,
    system: str = "",
    fabric: str = "",
    earlier: Earlier | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of table ``collectives``, for every group size that is a power of two and for all ranks.

    Args:
        machine: device under test.
        budget_s: seconds from the moment the ranks have met; starting them comes on top.
        seed: of the order of points.
        warn: told what could not be measured.
        processes: ranks to start; 0 = one a CUDA device, else two.
        system: name of the node or cluster for the rows.
        fabric: link kind for the rows; "" = found out.
        earlier: what an interrupted sitting has read; only where this process starts the ranks, since those that
            others started do not know of it.

    Raises:
        RankError: a rank died, failed or fell silent.
    """
    launched, earlier = launched_rank() is not None, earlier or Earlier()
    ranks = processes or (machine.devices if machine.is_cuda else 2)
    if launched:
        ranks = int(os.environ["WORLD_SIZE"])
    local = int(os.environ.get("LOCAL_WORLD_SIZE", ranks)) if launched else ranks
    if ranks < 2:
        warn("collectives: only one device, so there is nothing to exchange")
        return
    backend = "nccl" if machine.is_cuda and (local <= machine.devices or own_device(machine)) else "gloo"
    plan = Plan(
        machine,
        backend,
        ranks,
        local,
        budget_s,
        seed,
        system or f"{machine.gpu}, {-(-ranks // local)} x {local}",
        fabric or find_fabric(machine, backend, ranks, local),
        Earlier() if launched else earlier,
    )
    for row in _launched(plan, warn) if launched else spawn(ranks, rank_rows, plan, warn):
        if LAID_OUT in row:
            earlier.rates.update(row[LAID_OUT])
        else:
            yield row


def _launched(plan: Plan, warn: Warn) -> Iterator[dict[str, Any]]:
    """As one of the ranks that ``torchrun`` or ``srun`` started.

    Raises:
        RankError: this rank failed; rank 0 names those that have fallen.
    """
    rank = int(os.environ["RANK"])
    roll = join(import_torch())
    try:
        yield from rank_rows(plan, rank, "env://", warn)
    except RuntimeError as fault:
        if rank and roll:
            roll.leave()  # another rank fell, this one goes of its own will
        fallen = account(roll) if rank == 0 else ""
        raise RankError(f"rank {rank} failed: {first_line(fault)}{fallen}") from None
    if roll:
        roll.leave()


def own_device(machine: Machine, variables: Mapping[str, str] = os.environ) -> bool:
    """Whether the batch system shows each rank a device of its own (``srun --gpus-per-task=1``), as its number 0."""
    return machine.devices == 1 and "SLURM_PROCID" in variables and "RANK" in variables


def find_fabric(machine: Machine, backend: str, ranks: int, local_ranks: int) -> str:
    """``gloo`` between local processes; in a node of devices what the driver shows; "" between nodes."""
    if ranks > local_ranks:
        return ""
    if backend == "gloo":
        return "gloo"
    if machine.generation.startswith("cdna"):
        return "xgmi"
    return "nvlink" if nvlink_active() else "pcie"


def group_sizes(ranks: int) -> list[int]:
    """Powers of two below ``ranks``, then all: one group size does not tell the time of another."""
    return [2**power for power in range(1, ranks.bit_length()) if 2**power < ranks] + [ranks]


def message_sizes(points: int, top_bytes: float) -> list[int]:
    """About ``points`` sizes from 1 KiB to ``top_bytes``: powers of two, evenly spaced in the exponent."""
    low, high = (int(size).bit_length() - 1 for size in (SMALLEST_BYTES, max(top_bytes, LEAST_TOP_BYTES)))
    count = max(2, min(points, high - low + 1))
    return sorted({2 ** round(low + (high - low) * step / (count - 1)) for step in range(count)})


def rank_rows(plan: Plan, rank: int, meeting: str, warn: Warn) -> Iterator[dict[str, Any]]:
    """Measure as one rank; only rank 0 yields rows and warns."""
    number = 0 if own_device(plan.machine) else rank % plan.local_ranks
    device = f"cuda:{number}" if plan.backend == "nccl" else "cpu"
    # ranks outside a group wait for it to finish, so longer than it may take
    with meet(
        plan.backend,
        rank,
        plan.ranks,
        meeting,
        device=device,
        threads=plan.machine.units,
        budget_s=plan.budget_s,
    ) as everyone:
        clock, sizes = everyone.clock, group_sizes(plan.ranks)
        for number, size in enumerate(sizes):
            handle = everyone.torch.distributed.new_group(list(range(size)))
            spent_s = time.perf_counter() - everyone.begin_s
            clock.now_s, left_s = everyone.agree(spent_s, max(plan.budget_s - spent_s, 0.0))
            share_s = left_s / (len(sizes) - number)
            if rank < size:
                group = replace(everyone, handle=handle, size=size)
                rows = _group_rows(plan, group, share_s, first_only(rank, warn))
                yield from (row for row in rows if rank == 0)


def _group_rows(plan: Plan, group: Group, budget_s: float, warn: Warn) -> Iterator[dict[str, Any]]:
    begin_s = group.clock()
    names = [name for name in COLLECTIVES if _works(group, name, warn)]
    if not names:
        return
    earlier = replace(plan.earlier, rows=[row for row in plan.earlier.rows if row["gpus"] == group.size])
    each_name, top_name = f"sizes of {group.size} ranks", f"largest bytes of {group.size} ranks"
    rates = dict(earlier.rates)
    if not {each_name, top_name} <= rates.keys():
        per_s = _probe_bytes_per_s(group, names[0])
        left_s = budget_s - (group.clock() - begin_s)
        each = max(2, int(left_s / len(names) / SECONDS_PER_POINT))
        # warm-up and six blocks must fit a point's share
        cap_bytes = per_s * left_s / (each * len(names)) / 8
        top_bytes = min(cap_bytes, TOP_BYTES[plan.backend], plan.machine.memory_bytes / 8)
        rates = {each_name: each, top_name: top_bytes}
        yield {LAID_OUT: rates}
    sizes = message_sizes(int(rates[each_name]), rates[top_name])
    every = [_point(group, name, size) for name in names for size in sizes]
    points, budget_s, least = earlier.left(every, budget_s - (group.clock() - begin_s), FEWEST)
    if not points:
        return
    sentinel = _point(group, names[0], sizes[len(sizes) // 2])
    for point, timing in sweep(
        points,
        budget_s,
        plan.seed,
        warn,
        sentinel=sentinel,
        rule=RULE,
        clock=group.clock,
        sentinel_visits=3,
        least=least,
    ):
        yield _row(plan, group, point, timing)


def _row(plan: Plan, group: Group, point: Point, timing: Timing) -> dict[str, Any]:
    collective, size_bytes = point.columns["collective"], point.columns["size_bytes"]
    algbw_gbps = size_bytes / timing.median_s / 1e9
    return {
        "system": plan.system,
        **plan.machine.columns,
        "nodes": -(-group.size // plan.local_ranks),
        "gpus": group.size,
        "fabric": plan.fabric,
        "nccl_version": nccl_version(group.torch) if plan.backend == "nccl" else "",
        "algorithm": "",
        "engine": plan.backend,
        "collective": collective,
        "size_bytes": size_bytes,
        **timing.columns(),
        "algbw_gbps": round(algbw_gbps, 4),
        "busbw_gbps": round(algbw_gbps * float(bus_factor(collective, group.size)), 4),
    }


def _point(group: Group, collective: str, size_bytes: int) -> Point:
    columns = {"collective": collective, "size_bytes": size_bytes}
    return Point(columns, lambda: group.block(_call(group, collective, size_bytes)))


def _works(group: Group, collective: str, warn: Warn) -> bool:
    """Whether the backend has it; agreed, because a rank that goes on alone would wait for ever."""
    fault = ""
    try:
        _call(group, collective, SMALLEST_BYTES)()
    except (RuntimeError, NotImplementedError, AttributeError, ValueError) as refused:
        fault = first_line(refused)
    if group.agree(float(bool(fault)))[0]:
        warn(f"collectives: {collective} left out, not offered here ({fault or 'another rank refused'})")
        return False
    return True


def _probe_bytes_per_s(group: Group, collective: str) -> float:
    block = group.block(_call(group, collective, PROBE_BYTES))
    block(1)
    return PROBE_BYTES / max(block(2) / 2, 1e-9)


def _call(group: Group, collective: str, size_bytes: int) -> Callable[[], Any]:
    """One call on float32 buffers; ``size_bytes`` is the whole buffer, as nccl-tests counts."""
    torch, dist, handle = group.torch, group.torch.distributed, group.handle
    share = max(1, size_bytes // 4 // group.size)
    whole = torch.ones(share * group.size, device=group.device)
    part = torch.ones(share, device=group.device)
    if collective == "all_reduce":
        return lambda: dist.all_reduce(whole, dist.ReduceOp.MAX, group=handle)  # MAX: ones stay ones
    if collective == "all_gather":
        return lambda: dist.all_gather_into_tensor(whole, part, group=handle)
    if collective == "reduce_scatter":
        return lambda: dist.reduce_scatter_tensor(part, whole, group=handle)
    if collective == "alltoall":
        other = torch.empty_like(whole)
        return lambda: dist.all_to_all_single(other, whole, group=handle)
    if (
        collective == "sendrecv"
    ):  # as nccl-tests: every rank sends to the next and receives from the one before
        other, rank = torch.empty_like(whole), dist.get_rank()
        after, before = (rank + 1) % group.size, (rank - 1) % group.size

        def pass_on() -> None:
            both = [
                dist.P2POp(dist.isend, whole, after, handle),
                dist.P2POp(dist.irecv, other, before, handle),
            ]
            for work in dist.batch_isend_irecv(both):
                work.wait()

        return pass_on
    return lambda: dist.broadcast(whole, 0, group=handle)
