"""One job of a many-user cluster, as its owner hands it in.

A ``Job`` is the slip in the queue: what it asks for, how long it would run if nothing went wrong, and who wants it.
What becomes of it (waits, starts, restarts) stands in the log, never here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Job:
    """One gang of devices for one duration.

    All ``gpus`` are given together and held from start to end. ``duration_s`` is the truth that only the engine (and a
    policy said to be clairvoyant) may look at; ``limit_s`` is what the owner told the scheduler.
    """

    name: str
    submit_s: float
    """When it joins the queue (for a job that waits for others: when it became eligible)."""
    gpus: int
    """Devices of the gang; 0 = a job of CPU cores alone."""
    duration_s: float
    """Useful work, as time on the devices asked for, without failures, checkpoints and other people's traffic."""
    limit_s: float | None = None
    """Time limit given by the owner; none = none given."""
    user: str = ""
    queue: str = ""
    """Account, partition, virtual cluster or namespace whose quota it uses."""
    priority: float = 0.0
    """Larger goes first."""
    accelerator: str = ""
    """Kind of device it must have; empty = any."""
    gpu_share_frac: float = 1.0
    """Share of each device; below 1 it may share a device with others."""
    network_frac: float = 0.0
    """Share of its time that it spends on messages between nodes which nothing hides, alone at full bandwidth."""
    cpus: float = 0.0
    memory_bytes: float = 0.0
    min_gpus: int | None = None
    """Fewest devices it can go on with, where it may shrink; none = the gang is rigid."""
    max_gpus: int | None = None
    """Most devices it can use, where it may grow."""
    deadline_s: float | None = None
    preemptible: bool = True
    kind: str = ""
    """What it is for tables: training, trial, evaluation, serving, notebook ..."""
    outcome: str = "completed"
    """How it ended in the history it comes from: completed, failed, cancelled, timeout, node-fail."""
    recorded_start_s: float | None = None
    """When it started in the history it comes from."""
