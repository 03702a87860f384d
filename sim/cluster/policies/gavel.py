"""Unlike devices shared by rounds: every job gets its turn on the fast ones, in proportion to what it gains there.

Gavel (Narayanan et al., OSDI 2020): a linear program gives X[m, j], the share of time that job m should spend on pool
j; each round the jobs with the largest X / (rounds already got) run. Objective: the smallest normalised throughput as
large as can be (section 4.1), max min over m of (sum_j X[m,j] T[m,j]) gpus_m / (weight_m x the job's throughput when
pools are shared equally), subject to sum_j X[m,j] <= 1 and sum_m X[m,j] gpus_m <= devices of pool j.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from sim.cluster.nodes import Pool
from sim.cluster.policy import Decision, Decisions, Policy, Preempt, Start, View, Wake
from sim.cluster.state import JobState

Floats = NDArray[np.float64]
MOST_JOBS = 256
"""Jobs in the linear program, oldest first (assumed: those behind would get next to nothing)."""


def max_min_shares(speed: Floats, gpus: Floats, weight: Floats, devices: Floats) -> Floats:
    """X, shape (jobs, pools): share of time of each job on each pool.

    Args:
        speed: shape (jobs, pools), throughput of a job there; 0 = it cannot run there.
        gpus: shape (jobs,), devices of each gang.
        weight: shape (jobs,), above 0.
        devices: shape (pools,).

    Raises:
        ValueError: the program has no solution (never, with finite numbers).
    """
    jobs, pools = speed.shape
    equal = np.maximum((speed * (devices / devices.sum())).sum(axis=1), 1e-12)
    gain = speed * (gpus / (weight * equal))[:, None]
    count = jobs * pools
    cost = np.zeros(count + 1)
    cost[-1] = -1.0  # the smallest normalised throughput, as large as can be
    cost[:count] = (
        -1e-6 * (gain / max(float(gain.max()), 1e-12)).ravel()
    )  # then the sum: no device idle for nothing
    rows: list[Floats] = []
    bounds: list[float] = []
    for job in range(jobs):
        fair, time = np.zeros(count + 1), np.zeros(count + 1)
        fair[job * pools : (job + 1) * pools], fair[-1] = -gain[job], 1.0
        time[job * pools : (job + 1) * pools] = 1.0
        rows += [fair, time]
        bounds += [0.0, 1.0]
    for pool in range(pools):
        held = np.zeros(count + 1)
        held[pool:count:pools] = gpus
        rows.append(held)
        bounds.append(float(devices[pool]))
    most = [(0.0, 1.0 if rate > 0 else 0.0) for rate in speed.ravel()]
    found = linprog(cost, A_ub=np.array(rows), b_ub=bounds, bounds=[*most, (0.0, None)], method="highs")
    if found.x is None:
        raise ValueError(f"no allocation: {found.message}")
    shares: Floats = np.asarray(found.x[:count]).reshape(jobs, pools)
    return shares


@dataclass(frozen=True)
class Gavel(Policy):
    """Max-min fair over unlike pools, in rounds; jobs that cannot be preempted keep what they have. Between rounds
    nobody is moved, and free devices go to the oldest jobs that fit."""

    weights: Mapping[str, float] = field(default_factory=dict)
    """By queue; queues without one have 1."""
    round_s: float = 360.0
    """Of the paper."""
    name: str = "gavel"
    idle_passes: bool = True

    def decide(self, view: View) -> Decisions:
        """A round, or the time between two."""
        memory, now = view.memory, view.now_s
        pools = self._pools(view)
        self._count_time(view)
        due_s = memory.get("due_s", now)
        if now >= due_s:
            memory["due_s"] = due_s = now + self.round_s
            yield from self._round(view, pools)
        after = view.waiting.after(None, view.free_gpus)
        while after is not None:
            yield Start(after)
            after = view.waiting.after(after, view.free_gpus)
        if view.waiting.size or len({pool.speed for pool in pools}) > 1:
            yield Wake(due_s)

    def _pools(self, view: View) -> Sequence[Pool]:
        return getattr(view.ground, "pools", None) or (Pool(1, max(int(view.total_gpus), 1)),)

    def _count_time(self, view: View) -> None:
        """Note the time that each job has had on each pool until now (jobs that are through are forgotten)."""
        memory, now = view.memory, view.now_s
        got: dict[tuple[int, int], float] = memory.get("got", {})
        here = {state.number for state in view.waiting} | {state.number for state in view.running}
        kept = {pair: time_s for pair, time_s in got.items() if pair[0] in here}
        last_s = memory.get("last_s", now)
        for state in view.running:
            pair = (state.number, state.placed.pool)
            kept[pair] = kept.get(pair, 0.0) + now - max(state.since_s, last_s)
        memory["got"], memory["last_s"] = kept, now

    def _round(self, view: View, pools: Sequence[Pool]) -> Generator[Decision, bool, None]:
        memory = view.memory
        everybody = sorted([*view.running, *view.waiting], key=lambda state: state.number)
        fixed = [state for state in everybody if state.running and not state.job.preemptible]
        states = [state for state in everybody if state not in fixed and state.gpus][:MOST_JOBS]
        if not states:
            return
        devices = np.array([float(pool.nodes * pool.gpus_per_node) for pool in pools])
        for state in fixed:
            devices[state.placed.pool] = max(devices[state.placed.pool] - state.gpus, 0.0)
        if not devices.sum():
            return
        speed = np.array([[self.speed(state, pool) for pool in pools] for state in states])
        speed *= np.array([[state.gpus <= held for held in devices] for state in states])
        weight = np.array([self.weights.get(state.job.queue, 1.0) for state in states])
        shares = max_min_shares(speed, np.array([float(state.gpus) for state in states]), weight, devices)
        got = memory["got"]
        order = sorted(
            (-shares[m, j] / (got.get((state.number, j), 0.0) / self.round_s + 1.0), state.number, m, j)
            for m, state in enumerate(states)
            for j in range(len(pools))
            if shares[m, j] > 1e-9
        )
        left = devices.copy()
        chosen: dict[int, int] = {}
        for _, _, m, j in order:
            if m not in chosen and states[m].gpus <= left[j]:
                chosen[m] = j
                left[j] -= states[m].gpus
        for m, state in enumerate(states):
            if state.running and chosen.get(m) != state.placed.pool:
                yield Preempt(state)
        for m, j in sorted(chosen.items()):
            if states[m].waits:
                yield Start(states[m], pool=j)

    def speed(self, state: JobState, pool: Pool) -> float:
        """Throughput of a job on a pool: the pool's speed, 0 where the job needs other devices."""
        wanted = state.job.accelerator
        return pool.speed if not wanted or wanted == pool.accelerator else 0.0
