"""Memory against the published table and against sums worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.spec.catalog import load_catalog
from sim.spec.loader import loads
from sim.spec.parallelism import ParameterServer, Plan
from sim.spec.parameter_count import weights
from sim.spec.workload import Training
from sim.training.layers import layers_by_rank, network, transformer_layer
from sim.training.memory import memory_use
from sim.training.weights import held_parameters

GPT3 = load_catalog().model("gpt3-175b")
MIB = 2**20


def job(**plan: object) -> Training:
    return Training(
        model=GPT3,
        global_batch=8,
        sequence=2048,
        optimizer="adam",
        precision="fp16",
        dropout=True,
        plan=Plan(flash_attention=False, **plan),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("plan", "mib"),
    [
        ({}, 2736),
        ({"tensor": 8}, 552),
        ({"tensor": 8, "sequence_parallel": True}, 342),
        ({"tensor": 8, "recompute": "selective"}, 312),
        ({"tensor": 8, "sequence_parallel": True, "recompute": "selective"}, 102),
        ({"tensor": 8, "recompute": "full"}, 48),
    ],
)
def test_activations_of_a_layer_equal_korthikanti_table_2(plan: dict[str, object], mib: float) -> None:
    """Bytes a layer for 175B, s 2048, b 1, t 8 (arXiv 2205.05198, Table 2)."""
    assert transformer_layer(GPT3, job(**plan)).kept_bytes / MIB == pytest.approx(mib, rel=1e-12)


def test_flash_attention_keeps_only_the_log_sum_exp() -> None:
    plain = job(tensor=8, sequence_parallel=True, recompute="selective")
    flash = replace(plain, plan=replace(plain.plan, flash_attention=True, recompute="none"))
    extra = transformer_layer(GPT3, flash).kept_bytes - transformer_layer(GPT3, plain).kept_bytes
    assert extra == pytest.approx(4 * 96 * 2048 / 8)


def test_adam_takes_18_bytes_a_parameter_and_zero_1_shards_12_of_them() -> None:
    one, more = job(tensor=8, pipeline=8), job(tensor=8, pipeline=8, zero_stage=1)
    alone = memory_use(network(GPT3, one), one, 8, 1, 80e9)[3]
    shared = memory_use(network(GPT3, more), more, 8, 4, 80e9)[3]
    parameters = alone.parts_bytes["weights"] / 2
    state = sum(alone.parts_bytes[name] for name in ("weights", "gradients", "optimizer state"))
    assert state == pytest.approx(18 * parameters)
    assert shared.parts_bytes["optimizer state"] == pytest.approx(12 * parameters / 4)


def test_the_ranks_hold_the_whole_model() -> None:
    plan = Plan(pipeline=8)
    ranks = network(GPT3, job(pipeline=8)).chunks(plan)
    held = sum(held_parameters(block for chunk in rank for block in chunk).dense for rank in ranks)
    copy = weights(GPT3).embedding  # tied weights live on the first and on the last rank
    assert held == pytest.approx(weights(GPT3).total + copy)


@settings(max_examples=200, deadline=None)
@given(layers=st.integers(1, 200), stages=st.integers(1, 16), chunks=st.integers(1, 4))
def test_layers_are_dealt_out_evenly_and_completely(layers: int, stages: int, chunks: int) -> None:
    dealt = [count for rank in layers_by_rank(layers, stages, chunks) for count in rank]
    assert sum(dealt) == layers
    assert max(dealt) - min(dealt) <= 1


def test_less_memory_with_more_sharding(small: str) -> None:
    training = loads(small).training
    assert training is not None
    jobs = [replace(training, plan=replace(training.plan, zero_stage=stage)) for stage in (0, 1)]
    totals = [memory_use(network(one.model, one), one, 8, 2, 80e9)[0].total_bytes for one in jobs]  # type: ignore[arg-type]
    assert totals[1] < totals[0]


@pytest.mark.parametrize("key", ["llama-3-70b", "mixtral-8x7b"])
def test_frozen_weights_are_shared_out_and_gathered_as_trained_ones(key: str) -> None:
    """ZeRO 3 over 8 ranks holds an eighth of all 16-bit weights, and two whole layers at a time (FSDP's limit)."""
    model = load_catalog().model(key)
    one = Training(model=model, global_batch=8, sequence=128, lora_rank=16, plan=Plan(zero_stage=3))
    parts = memory_use(network(model, one), one, 1, 8, 80e9)[0].parts_bytes
    every = weights(model).total
    assert parts["weights"] == pytest.approx(2 * every / 8, rel=0.02)
    assert parts["unsharded layers"] == pytest.approx(2 * 2 * every / model.layers, rel=0.05)


def test_experts_that_are_spread_are_not_shared_out_again() -> None:
    """With expert parallel 8 over 8 ranks each expert lies once: ZeRO 3 has nothing to share out of it."""
    model = load_catalog().model("mixtral-8x7b")
    jobs = [
        Training(model=model, global_batch=8, sequence=128, lora_rank=rank, plan=Plan(zero_stage=3, expert=8))
        for rank in (0, 1)
    ]
    held = [memory_use(network(model, one), one, 1, 8, 80e9)[0].parts_bytes["weights"] for one in jobs]
    assert held[1] == pytest.approx(held[0], rel=0.01)


def test_servers_keep_the_state_of_fp32_weights_too() -> None:
    model = load_catalog().model("gpt2")
    served = Plan(parameter_server=ParameterServer())
    one = Training(model=model, global_batch=8, sequence=128, precision="bf16", autocast=True, plan=served)
    parts = memory_use(network(model, one), one, 1, 8, 80e9)[0].parts_bytes
    assert parts["optimizer state"] == 0.0
    assert parts["weights"] == 2 * parts["cast weights"]
