"""The time of a training step without playing it: one formula for a million plans at once.

Like the timetable beside the railway: it says when the train arrives if nothing unusual happens. Where something does
(:func:`holds` says so) the engine is the one to ask.

The step is a longest path. All paths that matter compute (m v + p - 1) passes of a chunk forward and backward (Huang et
al. 2019; Narayanan et al. 2021, section 2.2) and differ in how many messages lie on them; ``_messages`` counts these.
The counts were derived from the schedules' dependencies and are held to the engine to rounding by a property test.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

SCHEDULES = ("1f1b", "gpipe", "zb-h1")
"""Schedules with a closed form; 1f1b includes interleaving."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Plans:
    """Plans to be timed: numbers or arrays that broadcast together, one entry a plan.

    Every stage takes equally long. Loading is not part of it: add what the loader is late.
    """

    stages: ArrayLike
    micro_batches: ArrayLike
    virtual_stages: ArrayLike = 1
    forward_s: ArrayLike = 0.0
    """One chunk, one micro-batch, tensor-parallel messages included."""
    backward_s: ArrayLike = 0.0
    """As ``forward_s``; recomputation and weight gradient included."""
    weight_s: ArrayLike = 0.0
    """Part of ``backward_s`` that only makes weight gradients."""
    send_s: ArrayLike = 0.0
    """One activation message between neighbouring stages."""
    gradients_s: ArrayLike = 0.0
    """Gradient reduction of one chunk."""
    straggler_s: ArrayLike = 0.0
    """How much later the slowest copy of the model ends its passes."""
    optimizer_s: ArrayLike = 0.0
    parameters_s: ArrayLike = 0.0
    """Gathering updated weights."""
    overlap_gradients: ArrayLike = True
    overlap_pipeline: ArrayLike = True

    def arrays(self) -> dict[str, Floats]:
        """Fields as arrays of floats (flags as 0 and 1)."""
        return {field.name: np.asarray(getattr(self, field.name), dtype=float) for field in fields(self)}


def step_s(plans: Plans, schedule: str = "1f1b") -> Floats:
    """Seconds of one step of each plan; right where :func:`holds`, else too short or too long.

    Raises:
        ValueError: ``schedule`` has no closed form.
    """
    a = plans.arrays()
    total = passes_s(plans, schedule) + a["straggler_s"] + _exposed_gradients_s(a)
    return np.asarray(total + a["optimizer_s"] + a["parameters_s"], dtype=float)


def passes_s(plans: Plans, schedule: str = "1f1b") -> Floats:
    """Seconds from the first forward to the end of the last backward pass.

    Raises:
        ValueError: ``schedule`` has no closed form.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule {schedule!r} has no closed form: expected one of {', '.join(SCHEDULES)}")
    a = plans.arrays()
    p, m, v = a["stages"], a["micro_batches"], a["virtual_stages"]
    forward, backward, send = a["forward_s"], a["backward_s"], a["send_s"]
    if schedule == "zb-h1":  # Qi et al. 2023 (arXiv 2401.10241), Table 2, and its limits where W is long
        weight = a["weight_s"]
        part = backward - weight
        ramp = np.maximum(forward + part - weight, np.maximum(forward, part))
        return np.asarray(m * (forward + backward) + (p - 1) * ramp, dtype=float)
    one = forward + backward
    total = (m * v + p - 1) * one + _messages(a, schedule) * send
    # Interleaving with blocking sends: a path through a middle rank has one pair of passes less, but each of its
    # 2 m v passes sends something.
    through = (m * v + p - 2) * one + (2 * m * v + 2 * p - 5) * send
    through = np.maximum(through, through + np.abs(forward - backward) - send)
    blocked = (a["overlap_pipeline"] == 0) & (v > 1) & (p > 2) & (m > p)
    return np.asarray(np.where(blocked, np.maximum(total, through), total), dtype=float)


def holds(plans: Plans, schedule: str = "1f1b") -> Flags:
    """Whether the closed form is the engine's own answer, plan by plan, within rounding.

    It is not for: chunks of GPipe or ZB-H1; interleaving with fewer micro-batches than stages, or with micro-batches
    that are no multiple of the stages where there are messages or long reductions; a message longer than the pass it
    hides behind; ZB-H1 with messages or with fewer micro-batches than stages. Unequal stages, pairs of passes that
    hide each other's messages (DualPipe), contention, and loading while computing have no place here at all.
    """
    a = plans.arrays()
    p, m, v, send = a["stages"], a["micro_batches"], a["virtual_stages"], a["send_s"]
    silent = (send == 0) | (p == 1)
    if schedule == "zb-h1":
        split = (a["weight_s"] <= a["backward_s"]) & (m >= p) & silent
        return np.asarray((v == 1) & split, dtype=bool)
    short = send <= np.minimum(a["forward_s"], a["backward_s"])
    # a larger last group only sets the chunks' reductions farther apart: no matter while one ends before the next
    apart = (a["overlap_gradients"] == 0) | (a["gradients_s"] <= p * a["backward_s"])
    interleaved = (p > 1) & (m >= p) & ((m % p == 0) | (silent & apart))
    allowed = (v == 1) | (interleaved if schedule == "1f1b" else False)
    return np.asarray((schedule in SCHEDULES) & allowed & (short | silent), dtype=bool)


def _messages(a: dict[str, Floats], schedule: str) -> Floats:
    """Messages on the longest path, of the paths with most passes."""
    p, m, v = a["stages"], a["micro_batches"], a["virtual_stages"]
    overlapped = a["overlap_pipeline"] != 0
    if (
        schedule == "gpipe"
    ):  # down once and up once; a blocking sender also sends what does not travel on the path
        count = np.where(overlapped, 2 * (p - 1), 2 * (p - 1) + 2 * (m - 1))
        return np.asarray(np.where(p > 1, count, 0), dtype=float)
    # 1F1B: the path goes down and up once every p micro-batches; the rest of the last round is travelled half-way.
    rounds, rest = np.divmod(m - 1, p)
    plain = 2 * (p - 1) * (rounds + 1) + 2 * np.maximum(rest - 1, 0)
    plain_blocked = np.where(p == 2, m + 1, 2 * (p - 1) + 2 * (m - 1) - (m > 1))
    # Interleaving: down and up through all p v virtual stages once; blocking, the last rank's sends lie on it.
    chunked = 2 * (p * v - 1)
    chunked_blocked = np.where(m == p, 2 * (v + 1) * p - 4, (2 * v - 1) * m + 2 * p - 3)
    count = np.where(
        v == 1, np.where(overlapped, plain, plain_blocked), np.where(overlapped, chunked, chunked_blocked)
    )
    return np.asarray(np.where(p > 1, count, 0), dtype=float)


def _exposed_gradients_s(a: dict[str, Floats]) -> Floats:
    """Seconds of gradient reduction after the last backward pass of the first rank, which ends last.

    Its chunks end their backwards a round of p micro-batches apart, as the last one travels once around the ranks;
    reductions queue on one network. Without overlap all of them follow the last pass.
    """
    p, v, one = a["stages"], a["virtual_stages"], a["gradients_s"]
    behind = np.maximum(one, v * one - (v - 1) * p * (a["backward_s"] + a["send_s"]))
    return np.asarray(np.where(a["overlap_gradients"] != 0, behind, v * one), dtype=float)
