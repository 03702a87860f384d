"""The step as a whole: conservation, monotony, ideal machines, recomputation and tensor messages by count."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.results.step import StepResult
from sim.results.step_tables import step_document
from sim.spec.device import Device
from sim.spec.flop_count import training_flop_per_token
from sim.spec.loader import loads
from sim.spec.model import Model
from sim.spec.ops import Gemm, Message
from sim.training.layers import embedding, head, transformer_layer


def run(text: str, *changes: str) -> StepResult:
    return sim.run(loads(text, overrides=changes))


def test_the_answer_has_every_table_and_closed_books(small: str) -> None:
    document = step_document(run(small))
    assert abs(document["books"]["difference_frac"]) < 1e-9
    assert sum(part["seconds"] for part in document["parts"]) == pytest.approx(
        document["step_time_s"], rel=1e-9
    )
    assert {row["name"] for row in document["utilisation"]} == {"MFU", "MFU, causal", "HFU"}
    assert document["memory"]["fits"]
    assert document["published"][0]["measured_s"] == 10.0
    assert all(row["leans_on"] for row in document["kernels"])


def test_matrix_products_of_a_layer_do_the_flop_of_the_model(small: str) -> None:
    """All GEMMs and attention of all ranks add up to what the shape says (dense decoder, no recomputation)."""
    text = small.replace('recompute = "selective"', 'recompute = "none"\nflash_attention = false')
    training = loads(text).training
    assert training is not None
    model = training.model
    assert isinstance(model, Model)
    layer, last = transformer_layer(model, training), head(model, training)
    flop = [
        sum(float(op.flop) for op in block.forward + block.backward if isinstance(op, Gemm))
        for block in (layer, last)
    ]
    total = training.plan.tensor * (model.layers * flop[0] + flop[1])
    tokens = training.plan.micro_batch * training.sequence
    assert total == pytest.approx(
        tokens * float(training_flop_per_token(model, training.sequence, "full")), rel=1e-3
    )


@pytest.mark.parametrize(
    ("sequence_parallel", "collectives"),
    [("false", {"all_reduce": 4}), ("true", {"all_gather": 4, "reduce_scatter": 4})],
)
def test_a_layer_exchanges_four_times(
    small: str, sequence_parallel: str, collectives: dict[str, int]
) -> None:
    """Two in forward, two in backward (arXiv 2104.04473, 2.3; 2205.05198, 4.2)."""
    training = loads(small, overrides=[f"training.plan.sequence_parallel={sequence_parallel}"]).training
    assert training is not None
    block = transformer_layer(training.model, training)  # type: ignore[arg-type]
    found = [op.collective for op in block.forward + block.backward if isinstance(op, Message)]
    assert {name: found.count(name) for name in set(found)} == collectives
    sizes = {float(op.message_bytes) for op in block.forward if isinstance(op, Message)}  # type: ignore[arg-type]
    assert sizes == {2.0 * training.plan.micro_batch * training.sequence * 4096}


def test_full_recomputation_does_the_forward_of_the_layers_again(small: str) -> None:
    plain = run(small, "training.plan.recompute=none", "profile=ideal")
    again = run(small, "training.plan.recompute=full", "profile=ideal")
    extra = again.parts_s["backward"] - plain.parts_s["backward"]
    assert 0.9 * plain.parts_s["forward"] < extra < plain.parts_s["forward"]


def test_an_ideal_machine_spends_only_the_lower_bound(small: str) -> None:
    result = run(small, "profile=ideal")
    assert result.parts_s["tensor communication"] == result.parts_s["data communication"] == 0
    document = step_document(result)
    assert all(row["efficiency_frac"] in (None, pytest.approx(1.0)) for row in document["kernels"])
    assert document["step_time_s"] < run(small).step_s


@settings(max_examples=15, deadline=None)
@given(factor=st.sampled_from([2, 3, 4]))
def test_more_batch_takes_longer_and_amortises_the_bubble(factor: int) -> None:
    from pathlib import Path

    text = (Path(__file__).parents[1] / "properties" / "small.toml").read_text()
    one, more = run(text), run(text, f"training.global_batch={64 * factor}")
    assert one.step_s < more.step_s < factor * one.step_s


def test_faster_devices_and_links_never_slow_a_step(small: str) -> None:
    base = run(small).step_s
    assert run(small, 'cluster.pools.0.accelerator.memory_bytes_per_s="4 TB/s"').step_s <= base
    assert run(small, 'cluster.pools.0.system.nic_bytes_per_s="800 Gbit/s"').step_s <= base


def test_cost_does_not_grow_with_data_parallelism(small: str) -> None:
    few = run(small, "cluster.pools.0.nodes=2", "training.global_batch=64")
    many = run(small, "cluster.pools.0.nodes=1024", "training.global_batch=32768")
    assert len(many.timeline.tasks) <= len(few.timeline.tasks) + 8 * few.timeline.ranks


def test_layers_end_to_end_use_only_priced_shapes(small: str) -> None:
    training = loads(small).training
    assert training is not None
    blocks = (
        transformer_layer(training.model, training),
        embedding(training.model, training),
        head(training.model, training),
    )  # type: ignore[arg-type]
    for block in blocks:
        for op in block.forward + block.backward + block.recompute:
            if isinstance(op, Gemm):
                assert min(float(op.m), float(op.n), float(op.k)) >= 1  # type: ignore[arg-type]


def test_device_peak_of_an_unknown_format_is_a_key_error() -> None:
    device = Device("x", "y", {"fp32": 1.0}, 1.0, 1.0, 1.0, 1.0)
    with pytest.raises(KeyError):
        device.peak("fp8")


def test_tensor_messages_beside_products_leave_the_first_chunk_exposed(small: str) -> None:
    alone = run(small, "training.plan.overlap_tensor=false").parts_s["tensor communication"]
    beside = run(small, "training.plan.overlap_tensor=true").parts_s["tensor communication"]
    assert alone / 2 <= beside * (1 + 1e-9)  # two ranks, two chunks
    assert beside < alone
