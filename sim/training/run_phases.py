"""A run of many steps: training, evaluations, checkpoints, protection, and what failures take back.

Like a long drive: the time at the wheel is the trip, and fuel stops, detours and breakdowns decide when one arrives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.optimizer import RULES, WEIGHT_BYTES
from sim.cost.parameters import complete
from sim.cost.security import (
    SECURITY_PARAMETERS,
    confidential_step_s,
    watermark_regulariser_s,
    watermark_trigger_s,
)
from sim.cost.storage import write_s
from sim.results.step import RunResult
from sim.spec.copies import computes_in
from sim.spec.model import Model
from sim.spec.parameter_count import NotCountable, weights
from sim.spec.profile import Fit
from sim.spec.scenario import Cluster
from sim.spec.tasks import own_weights, task_jobs
from sim.spec.workload import Run, Training
from sim.training.data_parallel import matrix_side
from sim.training.loading import UNMEASURED, file_system, step_wait_s
from sim.training.node_rates import NodeRates, node_rates

Floats = NDArray[np.float64]


def phases_s(
    steps: ArrayLike,
    step_s: ArrayLike,
    *,
    toll_s: ArrayLike = 0.0,
    evaluate_every: ArrayLike = 0,
    evaluation_s: ArrayLike = 0.0,
    checkpoint_every: ArrayLike = 0,
    write_s: ArrayLike = 0.0,
    copy_s: ArrayLike = 0.0,
    asynchronous: ArrayLike = False,
    mean_time_between_failures_s: ArrayLike = float("inf"),
    restart_s: ArrayLike = 0.0,
) -> dict[str, Floats]:
    """Expected seconds of each phase of a run; they add up to its wall time. All arguments broadcast.

    A blocking checkpoint stops training while it is written, an asynchronous one while it is copied to the host, and
    where writing takes longer than the steps between two checkpoints, for the difference. Failures strike at random
    (exponential, not during a restart) and undo the work since the last checkpoint: a segment of L seconds takes
    (M + R)(e^(L/M) - 1) on average (Daly 2006, Future Generation Computer Systems 22(3), with restarts that do not
    fail): R (e^(L/M) - 1) restarting and M (e^(L/M) - 1) - L lost.

    Args:
        toll_s: extra seconds of a step for encryption, confidential computing and watermarks.
        evaluate_every, checkpoint_every: steps between them; 0 = none.
        evaluation_s: one evaluation.
        write_s: writing one checkpoint to storage.
        copy_s: copying it to host memory.
        mean_time_between_failures_s: M, of the whole job; infinite = no failures.
        restart_s: R, from a failure until the job trains again.
    """
    count, every = np.asarray(steps, dtype=float), np.asarray(checkpoint_every, dtype=float)
    training = count * np.asarray(step_s, dtype=float)
    tolls = count * np.asarray(toll_s, dtype=float)
    evaluation = _times(count, evaluate_every) * np.asarray(evaluation_s, dtype=float)
    checkpoints = _times(count, every)
    between = every * (np.asarray(step_s, dtype=float) + np.asarray(toll_s, dtype=float))
    behind = np.maximum(np.asarray(write_s, dtype=float) - between, 0.0) * np.maximum(checkpoints - 1, 0)
    blocking = checkpoints * np.asarray(write_s, dtype=float)
    saving = np.where(asynchronous, checkpoints * np.asarray(copy_s, dtype=float) + behind, blocking)
    busy = training + tolls + evaluation + saving
    mtbf = np.asarray(mean_time_between_failures_s, dtype=float)
    segments = np.where(every > 0, count / np.where(every > 0, every, 1.0), 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        failures = segments * np.expm1(busy / segments / mtbf)
        lost = np.where(np.isinf(mtbf), 0.0, np.maximum(mtbf * failures - busy, 0.0))
    parts = {
        "training": training,
        "security": tolls,
        "evaluation": evaluation,
        "checkpoint": saving,
        "lost": lost,
        "restart": failures * np.asarray(restart_s, dtype=float),
    }
    return {name: np.asarray(seconds) for name, seconds in parts.items()}


def _times(steps: Floats, every: ArrayLike) -> Floats:
    """How often something happens that happens every so many steps; 0 = never."""
    gap = np.asarray(every, dtype=float)
    return np.asarray(np.where(gap > 0, np.floor(steps / np.where(gap > 0, gap, 1.0)), 0.0))


def run_result(
    training: Training,
    cluster: Cluster,
    data: int,
    step_s: float,
    parts_s: Mapping[str, float],
    fits: Sequence[Fit] = (),
) -> RunResult | None:
    """The run that the scenario asks for, None where it asks for none.

    Args:
        data: data-parallel copies.
        parts_s: seconds of a step by cause (an evaluation does the forward share of it).
        fits: what was measured of the node's files, copies and ciphers.
    """
    run = training.run
    if run is None:
        return None
    batch_tokens = sum(job.global_batch * job.sequence for job in task_jobs(training))
    steps = run.steps or math.ceil(run.tokens / batch_tokens)
    size = checkpoint_bytes(training)
    rates = node_rates(fits, cluster.pools[0].accelerator.device())
    tolls = protection_s(training, run, cluster, data, step_s, rates)
    evaluation = evaluation_batch_s(training, cluster, data, step_s, parts_s, fits)

    def phases(how: Run) -> dict[str, float]:
        write, copy = checkpoint_s(training, how, cluster, data, size, rates)
        parts = phases_s(
            steps,
            step_s,
            toll_s=sum(tolls.values()),
            evaluate_every=run.evaluate_every,
            evaluation_s=run.evaluate_batches * evaluation,
            checkpoint_every=run.checkpoint_every,
            write_s=write,
            copy_s=copy,
            asynchronous=run.checkpoint == "asynchronous",
            mean_time_between_failures_s=run.mean_time_between_failures_s or float("inf"),
            restart_s=run.restart_s,
        )
        return {name: float(value) for name, value in parts.items()}

    seconds = phases(run)
    protection = {name: toll * steps for name, toll in tolls.items()}
    if run.security.encrypted_storage:
        plain = phases(replace(run, security=replace(run.security, encrypted_storage=False)))
        protection["encryption at rest: checkpoints"] = seconds["checkpoint"] - plain["checkpoint"]
    write, _ = checkpoint_s(training, run, cluster, data, size, rates)
    return RunResult(steps, steps * batch_tokens, seconds, size, write, protection)


def evaluation_batch_s(
    training: Training,
    cluster: Cluster,
    data: int,
    step_s: float,
    parts_s: Mapping[str, float],
    fits: Sequence[Fit] = (),
) -> float:
    """Seconds to evaluate one global batch: the forward share of the passes, no gradients, no update."""
    passes = parts_s["forward"] + parts_s["backward"]
    share = parts_s["forward"] / passes if passes > 0 else 0.0
    only_training = parts_s["optimizer"] + parts_s["data communication"] + parts_s["loader"]
    seconds = share * (step_s - only_training)
    return seconds + step_wait_s(training, cluster, data, seconds, fits)


def checkpoint_bytes(training: Training) -> float:
    """Bytes of one checkpoint: 16-bit weights and the optimizer's state of every parameter, once."""
    total = 0.0
    for job, brings in zip(task_jobs(training), own_weights(training), strict=True):
        model, side = job.model, matrix_side(job)
        parameters = _parameters(model) if isinstance(model, Model) else model.parameters
        each = WEIGHT_BYTES + float(RULES[training.optimizer].kept_bytes(side, side))
        total += parameters * each if brings else 0.0
    return total


def _parameters(model: Model) -> float:
    """Weights of a model; as published where its shape does not tell (convolutions, embedding tables)."""
    try:
        return float(weights(model).total)
    except NotCountable:
        return float(model.params_total)


def checkpoint_s(
    training: Training,
    run: Run,
    cluster: Cluster,
    data: int,
    size_bytes: float,
    rates: NodeRates = UNMEASURED,
) -> tuple[float, float]:
    """Seconds to write a checkpoint to storage, and to copy it to host memory.

    One copy of the model writes, or under ZeRO every rank its shard; the devices of a node write as one client.
    """
    plan, pool = training.plan, cluster.pools[0]
    writers = plan.model_ranks * ((plan.shard_ranks or data) if plan.zero_stage else 1)
    nodes = max(min(math.ceil(writers / pool.system.gpus_per_node), pool.nodes), 1)
    storage = file_system(cluster, encrypted=run.security.encrypted_storage, rates=rates)
    measured = rates.device_to_host_bytes_per_s
    copy = size_bytes / writers / (measured.value if measured else pool.accelerator.host_link_bytes_per_s)
    return float(write_s(storage, size_bytes / nodes, nodes)), copy


def protection_s(
    training: Training, run: Run, cluster: Cluster, data: int, step_s: float, rates: NodeRates = UNMEASURED
) -> dict[str, float]:
    """Seconds that each kind of protection adds to a step: confidential mode, trigger samples, marked weights.

    The bounce buffer of confidential mode goes at the pace of one core that encrypts, where that was measured.
    """
    wanted, loader = run.security, training.loader
    cipher = rates.host_aes_bytes_per_s
    known = complete(SECURITY_PARAMETERS, {"bounce_bytes_per_s": cipher.value} if cipher else {})
    device = cluster.pools[0].accelerator.device()
    parts = {}
    if wanted.confidential:
        sent = (loader.sample_device_bytes if loader else 0.0) * training.global_batch / data
        crossings = 2 * training.global_batch / (data * training.plan.micro_batch)  # batch down, loss up
        names = ("compute_frac", "crossing_s", "bounce_bytes_per_s")
        guarded = confidential_step_s(step_s, sent, crossings, **{name: known[name] for name in names})
        parts["confidential mode"] = float(guarded) - step_s
    if wanted.watermark_samples:
        extra = watermark_trigger_s(step_s, wanted.watermark_samples, training.global_batch)
        parts["watermark: trigger samples"] = float(extra)
    if wanted.watermark_weights > 0:
        rate = device.peak(computes_in(cluster.pools[0], training.precision) or training.precision)
        bits = wanted.watermark_bits
        marked = watermark_regulariser_s(wanted.watermark_weights, bits, device.memory_bytes_per_s, rate)
        parts["watermark: marked weights"] = float(marked)
    return parts
