"""Slurm's priority/multifactor: points for having waited, for having had little, for size, partition and QOS.

Like a housing office that adds up points and serves the largest sum; who does not fit gets a date, and others may slip
in before it. Formulas: slurm.schedmd.com/priority_multifactor.html, /fair_tree.html and /classic_fair_share.html.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.cluster.policies.easy import Promise, promise
from sim.cluster.policy import Decision, Decisions, Policy, Start, View
from sim.cluster.state import JobState
from sim.spec.scheduling import Account, MultifactorWeights

ROOT = ""


@dataclass(frozen=True, slots=True)
class Association:
    """A place in the tree: an account, or a user within one."""

    name: str
    parent: str = ROOT
    shares: float = 1.0
    used_gpu_s: float = 0.0
    """Of users; accounts have what is below them."""
    user: bool = False


class _Tree:
    """Children and usage of every account."""

    def __init__(self, known: Sequence[Association]) -> None:
        self.children: dict[str, list[Association]] = {}
        for one in known:
            self.children.setdefault(one.parent, []).append(one)
        self.users = sum(one.user for one in known)
        self.used: dict[str, float] = {}
        self.norm: dict[str, tuple[float, float]] = {}
        """Name -> shares and usage, each over those of itself and its siblings."""
        self._add_up(ROOT)

    def _add_up(self, account: str) -> float:
        children = self.children.get(account, [])
        used = [one.used_gpu_s if one.user else self._add_up(one.name) for one in children]
        shares, total = sum(one.shares for one in children), sum(used)
        for one, mine in zip(children, used, strict=True):
            self.used[one.name] = mine
            self.norm[one.name] = (
                one.shares / shares if shares else 0.0,
                mine / total if total else 0.0,
            )
        return total

    def level(self, one: Association) -> float:
        """Level Fairshare S / U: infinite where nothing was used, 0 without shares."""
        share, used = self.norm[one.name]
        return 0.0 if not share else math.inf if not used else share / used


def fair_tree(known: Sequence[Association]) -> dict[str, float]:
    """Fair-share factor of every user: rank / number of users, the tree walked from the largest Level Fairshare down.

    Ties: siblings of the same level share a rank, a user's rank goes to the first of an account that ties with it, and
    accounts that tie are merged (slurm.schedmd.com/fair_tree.html). Names must be unique.
    """
    tree = _Tree(known)
    found: dict[str, float] = {}

    def walk(siblings: list[Association], rank: int, left: int, tied: bool) -> tuple[int, int]:
        """Rank last given and users left; ``tied``: the first of them takes the rank last given."""
        order = sorted(siblings, key=lambda one: (-tree.level(one), not one.user, one.name))
        before: float | None = None
        at = 0
        while at < len(order):
            one = order[at]
            level = tree.level(one)
            same = tied if before is None else level == before
            if one.user:
                rank = rank if same else left
                found[one.name] = rank / tree.users
                left -= 1
                at += 1
            else:
                merged = [other for other in order[at:] if tree.level(other) == level]
                below = [child for other in merged for child in tree.children.get(other.name, [])]
                rank, left = walk(below, rank, left, same)
                at += len(merged)
            before = level
        return rank, left

    walk(tree.children.get(ROOT, []), tree.users, tree.users, False)
    return found


def classic(known: Sequence[Association], dampening: float = 1.0) -> dict[str, float]:
    """Fair-share factor of every user, 2^(-(U_E / S) / d), with effective usage
    ``U_E = U + (U_E,parent - U) S_child / S_all_siblings`` below the first tier and S the product of shares down the
    tree (slurm.schedmd.com/classic_fair_share.html; d = FairShareDampeningFactor)."""
    tree = _Tree(known)
    total = sum(tree.used[one.name] for one in tree.children.get(ROOT, []))
    found: dict[str, float] = {}

    def walk(account: str, above_share: float, above_used: float | None) -> None:
        for one in tree.children.get(account, []):
            share = tree.norm[one.name][0]
            used = tree.used[one.name] / total if total else 0.0
            effective = used if above_used is None else used + (above_used - used) * share
            whole = above_share * share
            if one.user:
                found[one.name] = 2.0 ** (-effective / whole / dampening) if whole else 0.0
            else:
                walk(one.name, whole, effective)

    walk(ROOT, 1.0, None)
    return found


def age_factor(waited_s: float, max_age_s: float) -> float:
    """Share of ``PriorityMaxAge`` that a job has waited, at most 1."""
    return min(max(waited_s, 0.0) / max_age_s, 1.0)


def size_factor(gpus: float, total_gpus: float, favor_small: bool = False) -> float:
    """1 for a job of the whole machine, or of one device where small jobs are favoured (devices, where Slurm counts
    nodes and CPUs: assumed)."""
    if not total_gpus:
        return 0.0
    return min(max((total_gpus - gpus + 1) if favor_small else gpus, 0.0) / total_gpus, 1.0)


def user_of(queue: str, user: str) -> str:
    """Name of a user within an account."""
    return f"{queue}\x1f{user}"


@dataclass(frozen=True)
class Multifactor(Policy):
    """Largest sum of weighted factors first, ties by submission; the head that does not fit is promised its start by
    the limits of running jobs, and the next ones, in the same order, start where they do not put it off (sched/backfill
    plans all it tests; here one promise is kept, as EASY does).

    A job's queue is its account and its partition, its user the association below it, its priority that of its QOS.
    Users count once they have handed in a job (Slurm ranks those that never did, too).
    """

    knobs: MultifactorWeights = field(default_factory=MultifactorWeights)
    accounts: Mapping[str, Account] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    """Raw shares by user, the same in every account; 1 where none are given."""
    half_life_s: float = math.inf
    """PriorityDecayHalfLife; Slurm's own default is 7 days."""
    name: str = "multifactor"
    metered: bool = True

    @property
    def running_key(self) -> Callable[[JobState], Any]:
        """By limits."""
        return lambda state: state.limit_end_s

    def group(self, state: JobState) -> str:
        """The user within the account."""
        return user_of(state.job.queue, state.job.user)

    def associations(self, view: View) -> list[Association]:
        """The tree as far as it is known now."""
        known = {one.name: Association(one.name, one.parent, one.shares) for one in self.accounts.values()}
        users: dict[str, Association] = {}
        for name in [*view.usage.groups, *(state.group for state in view.waiting)]:
            if name in users:
                continue
            queue, _, user = name.partition("\x1f")
            if queue != ROOT:
                known.setdefault(queue, Association(queue))
            used = view.usage.used_gpu_s(name, view.now_s)
            users[name] = Association(name, queue, self.weights.get(user, 1.0), used, user=True)
        return [*known.values(), *users.values()]

    def fair_shares(self, view: View) -> Mapping[str, float]:
        """Factor by user, found anew once in a ``calc_period_s`` and when somebody new comes."""
        memory = view.memory
        since_s, found = memory.get("fair_shares", (-math.inf, {}))
        fresh = view.now_s - since_s < self.knobs.calc_period_s
        if not fresh or any(state.group not in found for state in view.waiting):
            known = self.associations(view)
            found = fair_tree(known) if self.knobs.algorithm == "fair-tree" else classic(known)
            memory["fair_shares"] = (view.now_s, found)
        return found  # type: ignore[no-any-return]

    def points(self, state: JobState, view: View, fair_share: float) -> float:
        """The job's priority: the weighted sum of its factors."""
        knobs, job = self.knobs, state.job
        highest = max((one.partition_priority for one in self.accounts.values()), default=0.0)
        account = self.accounts.get(job.queue)
        partition = account.partition_priority / highest if account and highest else 0.0
        return (
            knobs.age * age_factor(view.now_s - state.since_s, knobs.max_age_s)
            + knobs.fair_share * fair_share
            + knobs.job_size * size_factor(job.gpus, view.total_gpus, knobs.favor_small)
            + knobs.partition * partition
            + knobs.qos * min(max(job.priority / knobs.qos_highest, 0.0), 1.0)
        )

    def decide(self, view: View) -> Decisions:
        """Heads in order of points, then backfill."""
        shares = self.fair_shares(view)
        order = sorted(
            view.waiting, key=lambda state: (-self.points(state, view, shares[state.group]), state.number)
        )
        for place, state in enumerate(order):
            if not (yield Start(state)):
                rest = order[place + 1 : place + 1 + self.knobs.backfill_tests]
                yield from _backfill(view, rest, promise(view, state))
                return


def _backfill(view: View, rest: Sequence[JobState], promised: Promise) -> Generator[Decision, bool, None]:
    extra = promised.extra_gpus
    for state in rest:
        if view.free_gpus <= 0:
            return
        short = view.now_s + state.limit_left_s <= promised.shadow_s
        if state.gpus > view.free_gpus or not (short or state.gpus <= extra):
            continue
        if (yield Start(state)) and not short:
            extra -= state.gpus
