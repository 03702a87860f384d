"""Any combination of features that passes the checks is answered: a finite step, books that close, memory that adds up.

Each seed draws a scenario from tables of choices; what the checks refuse is taken back until they pass.
"""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

import sim
from sim.results.step_tables import step_document
from sim.spec.checks import micro_batches
from sim.spec.faults import Fault, ScenarioError
from sim.spec.loader import resolve
from sim.spec.scenario import Scenario

MODELS = (
    *("gpt2", "llama-3.1-8b", "mixtral-8x7b", "deepseek-v2-lite", "bert-large", "t5-11b", "whisper-large-v3"),
    *("dit-xl-2", "conformer-l", "resnet-50", "retinanet-r50-fpn", "dlrm-dcnv2"),
    {"base": "llama-3.1-8b", "layers": 5},
    {"base": "mixtral-8x7b", "layers": 6},
    {"sample_flop": "24.6 GFLOP", "parameters": 25.6e6, "efficiency_frac": 0.5},
)
SYSTEMS = ("dgx-h100", "dgx-a100-80gb", "dgx-1v", "dgx-b200")
PLAN: dict[str, tuple[Any, ...]] = {
    "tensor": (2, 4, 8),
    "pipeline": (2, 3, 4, 5),
    "context": (2, 4),
    "context_exchange": ("all-to-all",),
    "expert": (2, 4, 8, 16),
    "expert_nodes": (1, 4),
    "split_experts": (False,),
    "dispatch_once": (True,),
    "overlap_experts": (True,),
    "virtual_stages": (2, 3),
    "schedule": ("gpipe", "zb-h1", "dualpipe"),
    "micro_batch": (2, 4),
    "sequence_parallel": (True,),
    "zero_stage": (1, 2, 3),
    "shard_ranks": (2, 4, 8),
    "recompute": ("selective", "operators", "full"),
    "recompute_layers": (0, 1, 2),
    "flash_attention": (False,),
    "half_gradients": (True,),
    "overlap_gradients": (False,),
    "overlap_parameters": (True,),
    "gradient_buckets": (1, 50),
    "offload_optimizer": (True,),
    "offload_activations": (0.5, 1.0),
    "local_steps": (4, 100),
    "overlap_tensor": (True,),
    "overlap_pipeline": (False,),
    "share_network": (True,),
    "overlap_slowdown_frac": (0.2, 1.0),
    "compression": tuple({"method": name} for name in ("fp16", "fp8", "top-k", "power-sgd", "1-bit")),
    "parameter_server": ({"servers": 1}, {"servers": 4, "asynchronous": True, "staleness": 3}),
}
JOB: dict[str, tuple[Any, ...]] = {
    "optimizer": ("sgd", "momentum", "adafactor", "adam-8bit", "muon"),
    "precision": ("fp32", "fp16", "fp8", "tf32", "fp4"),
    "autocast": (True,),
    "fp8_scaling": ("delayed", "current"),
    "dropout": (True,),
    "fill_frac": (0.7,),
    "document_tokens": (100,),
    "lora_rank": (16,),
    "stack": ("nemo", "torchtitan", "torch-eager", "megatron-deepspeed"),
    "speed_spread_frac": (0.1,),
    "jitter_frac": (0.1,),
    "frames": (2,),
    "tasks": ([{"name": "other", "samples": 8}], [{"name": "other", "samples": 8, "model": "gpt2"}]),
    "loader": (
        {"sample_serial_s": "1 ms"},
        {"sample_bytes": "100 kB", "sample_cpu_s": "5 ms", "hiccup_s": 2.0},
    ),
    "run": (
        {"steps": 100, "evaluate_every": 10, "mean_time_between_failures_s": "1 h"},
        {"tokens": 1e9, "checkpoint_every": 7, "mean_time_between_failures_s": "1 s"},
        {"steps": 9, "security": {"confidential": True, "watermark_samples": 8, "watermark_weights": 1e5}},
    ),
}
KEPT = ("cluster", "training", "model", "pools")
MAX_PASSES = 100


def drawn(dice: random.Random) -> dict[str, Any]:
    """A scenario's tables, of which many do not go together."""
    plan = {name: dice.choice(values) for name, values in PLAN.items() if dice.random() < 0.25}
    job = {name: dice.choice(values) for name, values in JOB.items() if dice.random() < 0.2}
    pools = [
        {"name": f"p{number}", "system": dice.choice(SYSTEMS), "nodes": dice.choice((1, 2, 4))}
        for number in range(1 + (dice.random() < 0.25))
    ]
    stages = plan.get("pipeline", 1)
    if len(pools) == 2 and stages > 1 and dice.random() < 0.5:
        plan["stages"] = ["p0", *["p1"] * (stages - 1)]
        pools[1]["nodes"] = pools[0]["nodes"] * (stages - 1)
    job |= {
        "model": dice.choice(MODELS),
        "global_batch": 16,
        "sequence": dice.choice((128, 2048)),
        "plan": plan,
    }
    storage = {"read_bytes_per_s": "20 GB/s", "write_bytes_per_s": "10 GB/s"}
    return {
        "name": "drawn",
        "cluster": {"pools": pools, "storage": storage},
        "training": json.loads(json.dumps(job)),
    }


def settled(document: dict[str, Any]) -> Scenario:
    """The scenario once what the checks refuse is taken back, one round of faults after another."""
    for _ in range(20):
        try:
            return resolve(document)
        except ScenarioError as error:
            for fault in error.faults:
                take_back(document, fault)
    return resolve(document)


def take_back(document: dict[str, Any], fault: Fault) -> None:
    """Mend the batch, the length of texts, or drop the key that a fault names; else the first degree of the plan."""
    job = document["training"]
    parts = fault.path.split(" ")[0].split(".")
    if parts[-1] == "global_batch":
        job["global_batch"] = int(fault.expected.rpartition("nearest is ")[2].replace(",", "") or 64)
        return
    mended = {"target_sequence": 60, "precision": "fp16"}
    if parts[-1] in mended:
        job[parts[-1]] = mended[parts[-1]]
        return
    if parts[-1] == "sequence":
        job["sequence"] = 128 if job["sequence"] == 1 else 1
        return
    if "tasks" in parts:
        job.pop("tasks", None)
        return
    here: Any = document
    for part in parts[:-1]:
        here = here.get(part, {}) if isinstance(here, dict) else here[int(part)]
    if isinstance(here, dict) and parts[-1] in here and parts[-1] not in (*KEPT, "plan", "nodes"):
        del here[parts[-1]]
        return
    plan = job["plan"]
    degrees = ("tensor", "context", "expert", "stages", "pipeline", "sequence_parallel")
    plan.pop(next((name for name in degrees if name in plan), next(iter(plan), "")), None)


@pytest.mark.parametrize("half_dozen", range(10))
def test_features_go_together(half_dozen: int) -> None:
    played = 0
    for seed in range(6 * half_dozen, 6 * half_dozen + 6):
        scenario = settled(drawn(random.Random(seed)))
        job = scenario.training
        assert job is not None
        if micro_batches(scenario.cluster, job) * job.plan.pipeline * job.plan.virtual_stages > MAX_PASSES:
            continue
        played += 1
        told = step_document(sim.run(scenario))
        json.dumps(told, allow_nan=False)
        assert math.isfinite(told["step_time_s"])
        assert told["step_time_s"] > 0
        assert abs(told["books"]["difference_frac"]) < 1e-9
        assert math.isclose(sum(part["share_frac"] for part in told["parts"]), 1.0, rel_tol=1e-6)
        for rank in (told["memory"] or {}).get("ranks", []):
            assert min(rank["parts_bytes"].values()) >= 0
            assert math.isclose(sum(rank["parts_bytes"].values()), rank["total_bytes"], rel_tol=1e-9)
    assert played >= 3
