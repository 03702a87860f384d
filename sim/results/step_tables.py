"""The answer of a training step as plain tables: what every face shows and what ``--json`` prints.

A face may choose which table to show and how; it never computes a number that is not here.
"""

from __future__ import annotations

from importlib.metadata import version
from math import isfinite
from typing import Any

from sim.results.pool_tables import peak_flop_per_s, pools_table
from sim.results.step import RunResult, StepResult, Use
from sim.spec.flop_count import Attention
from sim.spec.model import Model
from sim.spec.scenario import as_document
from sim.spec.tasks import task_jobs
from sim.spec.training_flop import training_flop_per_sample
from sim.spec.workload import Training

PARTS = {
    "forward": "forward kernels",
    "backward": "backward kernels",
    "optimizer": "optimizer",
    "tensor communication": "tensor, expert and context messages",
    "pipeline communication": "pipeline messages",
    "data communication": "data-parallel messages",
    "stragglers": "waiting for slower devices",
    "bubble": "pipeline bubble and waiting",
    "loader": "waiting for data",
    "offload": "waiting for the host link",
}
"""Cause in the books -> words for people."""

PHASES = {
    "training": "training steps",
    "security": "confidential mode, watermark",
    "evaluation": "evaluation",
    "checkpoint": "waiting for checkpoints",
    "lost": "work lost to failures",
    "restart": "restarts",
}
"""Phase of a run -> words for people."""


def step_document(result: StepResult) -> dict[str, Any]:
    """Everything about one step, ready for JSON: same scenario, same bytes."""
    scenario, training = result.scenario, result.scenario.training
    assert training is not None  # a StepResult exists only for a training section
    step = result.step_s
    tokens = sum(job.global_batch * job.source_tokens for job in task_jobs(training))
    document: dict[str, Any] = {
        "rackcast": version("rackcast"),
        "scenario": {
            "name": scenario.name,
            "shows": scenario.shows,
            "hash": scenario.content_hash,
            "seed": scenario.seed,
        },
        "step_time_s": step,
        "samples_per_s": training.global_batch / step,
        "tokens_per_s": tokens / step,
        "tokens_per_s_per_device": tokens / step / result.devices,
        "utilisation": _utilisation(result, training),
        "bound_by": _bound_by(result, training),
        "parts": [
            {"cause": cause, "words": PARTS[cause], "seconds": seconds, "share_frac": seconds / step}
            for cause, seconds in result.parts_s.items()
        ],
        "memory": _memory(result),
        "cluster": _cluster(result),
        "tasks": _tasks(training),
        "pools": pools_table(result, training),
        "plan": as_document(training.plan) | {"data": result.data, "micro_batches": result.micro_batches},
        "published": [
            {
                "measured_s": row.step_time_s,
                "predicted_s": step,
                "error_pct": 100 * (step / row.step_time_s - 1),
                "source": row.source,
                "note": row.note,
            }
            for row in scenario.published
        ],
        "streams": _streams(result),
        "kernels": [_use(use) for use in result.uses],
        "overheads": _overheads(result),
        "books": _books(result),
    }
    if result.run is not None:
        document["run"] = _run(result.run)
    return document


def _tasks(training: Training) -> list[dict[str, Any]]:
    """The tasks that share a step, the main model first; empty where there is one."""
    if not training.tasks:
        return []
    names = ("main", *(task.name for task in training.tasks))
    return [
        {"name": name, "model": job.model.name, "samples": job.global_batch}
        for name, job in zip(names, task_jobs(training), strict=True)
    ]


def _utilisation(result: StepResult, training: Training) -> list[dict[str, Any]]:
    """MFU and HFU, each with the convention it follows."""
    if not isinstance(training.model, Model):
        return []
    budget = result.step_s * sum(
        pool.devices * peak_flop_per_s(pool, training.precision) for pool in result.scenario.cluster.pools
    )
    conventions: tuple[tuple[str, str, Attention, bool], ...] = (
        ("MFU", "forward + backward, full attention square (PaLM, Megatron papers)", "full", False),
        ("MFU, causal", "forward + backward, half the attention square (Megatron-LM log)", "causal", False),
        ("HFU", "recomputation included, full attention square", "full", True),
    )
    square, half = (
        training_flop_per_sample(training.model, training, attention, "none")
        for attention in ("full", "causal")
    )
    if square == half:  # nothing attends: convolutions, look-ups
        conventions = (("MFU", "forward + backward", "full", False),)
    rows = []
    for name, convention, attention, hardware in conventions:
        flop = sum(
            job.global_batch * _flop_per_sample(result, job, attention, hardware=hardware)
            for job in task_jobs(training)
        )
        rows.append(
            {
                "name": name,
                "convention": convention,
                "frac": flop / budget,
                "flop_per_step": flop,
                "flop_per_s_per_device": flop / result.step_s / result.devices,
            }
        )
    return rows


def _flop_per_sample(result: StepResult, job: Training, attention: Attention, *, hardware: bool) -> float:
    """FLOP of one sample of the model; with ``hardware`` what is recomputed too."""
    if not isinstance(job.model, Model):
        return 0.0
    once = training_flop_per_sample(job.model, job, attention, "none")
    if not hardware:
        return once
    again = training_flop_per_sample(job.model, job, attention, job.plan.recompute)
    return once + (again - once) * _recomputed_frac(result, job)


def _recomputed_frac(result: StepResult, training: Training) -> float:
    """Share of the layers that recomputation applies to."""
    plan = training.plan
    if plan.recompute_layers is None:
        return 1.0
    again = sum(min(plan.recompute_layers * plan.virtual_stages, stage.layers) for stage in result.stages)
    return again / max(sum(stage.layers for stage in result.stages), 1)


def _bound_by(result: StepResult, training: Training) -> str:
    parts = dict(result.parts_s)
    compute = parts.pop("forward") + parts.pop("backward")
    worst = max(parts, key=lambda cause: parts[cause])
    if compute < parts[worst]:
        return PARTS[worst]
    rows = pools_table(result, training)
    return f"compute on {max(rows, key=lambda row: row['busy_frac'])['pool']}" if rows else "compute"


def _memory(result: StepResult) -> dict[str, Any]:
    if not result.memory:
        return {"fits": True, "ranks": [], "worst_rank": None}
    worst = max(result.memory, key=lambda use: use.total_bytes / use.usable_bytes)
    return {
        "fits": all(use.fits for use in result.memory),
        "capacity_bytes": worst.capacity_bytes,
        "usable_bytes": worst.usable_bytes,
        "usable_frac": worst.usable_bytes / worst.capacity_bytes,
        "worst_rank": worst.rank,
        "worst_pool": worst.pool,
        "worst_total_bytes": worst.total_bytes,
        "binding_part": worst.largest_part,
        "ranks": [
            {
                "rank": use.rank,
                "pool": use.pool,
                "total_bytes": use.total_bytes,
                "usable_bytes": use.usable_bytes,
                "parts_bytes": dict(use.parts_bytes),
            }
            for use in result.memory
        ],
    }


def _cluster(result: StepResult) -> dict[str, Any]:
    pools = result.scenario.cluster.pools
    return {
        "devices": result.devices,
        "nodes": sum(pool.nodes for pool in pools),
        "system": " + ".join(dict.fromkeys(pool.system.name for pool in pools)),
        "accelerator": " + ".join(dict.fromkeys(pool.accelerator.name for pool in pools)),
    }


def _run(run: RunResult) -> dict[str, Any]:
    """The run as a table; what never ends has no duration."""
    ends = isfinite(run.wall_s)
    return {
        "steps": run.steps,
        "tokens": run.tokens,
        "wall_s": run.wall_s if ends else None,
        "days": run.wall_s / 86400 if ends else None,
        "goodput_frac": run.goodput_frac if ends else 0.0,
        "checkpoint_bytes": run.checkpoint_bytes,
        "checkpoint_write_s": run.checkpoint_write_s,
        "protection": [
            {"words": words, "seconds": seconds, "share_frac": seconds / run.wall_s}
            for words, seconds in run.protection_s.items()
            if ends
        ],
        "phases": [
            {
                "phase": phase,
                "words": PHASES[phase],
                "seconds": seconds if isfinite(seconds) else None,
                "share_frac": seconds / run.wall_s if ends else None,
            }
            for phase, seconds in run.phases_s.items()
        ],
    }


def _streams(result: StepResult) -> list[dict[str, Any]]:
    """Busy share of each stream, averaged over pipeline ranks."""
    shares: dict[str, float] = {}
    whole_s = result.step_s * result.timeline.ranks
    for (_, stream), seconds in result.timeline.busy_s().items():
        shares[stream] = shares.get(stream, 0.0) + seconds / whole_s
    return [{"stream": stream, "busy_frac": share} for stream, share in shares.items()]


def _use(use: Use) -> dict[str, Any]:
    error = use.fit.error if use.fit else None
    return {
        "name": f"{use.name} ({use.part})" if use.part else use.name,
        "seconds": use.seconds,
        "lower_bound_s": use.lower_bound_s,
        "efficiency_frac": use.lower_bound_s / use.seconds if use.seconds > 0 else None,
        "roof": use.roof,
        "leans_on": use.leans_on,
        "calibration": dict(use.fit.key) if use.fit else None,
        "median_error_pct": error.median_ape if error else None,
        "source": next(iter(use.fit.parameters.values())).source if use.fit and use.fit.parameters else None,
    }


def _overheads(result: StepResult) -> list[dict[str, Any]]:
    return [{"name": name} | as_document(constant) for name, constant in result.overheads.items()]


def _books(result: StepResult) -> dict[str, float]:
    """Device-seconds owned against device-seconds booked; the difference is rounding."""
    owned = result.step_s * result.devices
    booked = sum(result.parts_s.values()) * result.devices
    return {"owned_device_s": owned, "booked_device_s": booked, "difference_frac": (booked - owned) / owned}
