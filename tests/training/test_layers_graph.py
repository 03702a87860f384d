"""Convolutional networks and recommenders: published counts, published arithmetic, and ops that do just that."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import sim
from sim.cost.kernels.convolution import Convolution, conv_as_gemm
from sim.results.step_tables import step_document
from sim.spec.catalog import load_catalog
from sim.spec.conformer import conformers
from sim.spec.layer_graph import LayerGraphError, graph_from, layer_graphs
from sim.spec.ops import Block, Conv, Gemm, Lookup, Message
from sim.spec.parallelism import Plan
from sim.spec.recommender import recommender_from, recommenders
from sim.spec.workload import Training
from sim.training.layers import network
from sim.training.weights import held_parameters

CATALOG = load_catalog()
GRAPHS = layer_graphs()
SCENARIOS = sorted(
    path
    for path in (Path(__file__).parents[2] / "scenarios").glob("*.toml")
    if not path.name.startswith(("cluster-", "plan-"))
)
MULTIPLY_ADDS = {"resnet-50": 4.09e9, "resnet-152": 11.51e9, "vgg-16": 15.47e9, "retinanet-r50-fpn": 151.54e9}
"""Of one image, from the model table of torchvision, as the catalogue notes them."""


def job(key: str, micro_batch: int = 4, frames: int = 1, **plan: object) -> Training:
    return Training(
        model=CATALOG.model(key),
        global_batch=64,
        frames=frames,
        plan=Plan(micro_batch=micro_batch, **plan),  # type: ignore[arg-type]
    )


def flop(op: object) -> float:
    if isinstance(op, Gemm):
        return float(op.flop)  # type: ignore[arg-type]
    if isinstance(op, Conv):
        shape = Convolution(
            op.batch,
            op.in_channels,
            op.out_channels,
            op.size,
            op.kernel,
            op.stride,
            op.padding,
            groups=op.groups,
        )
        return float(conv_as_gemm(shape, op.phase).flop)
    return 0.0


def blocks_of(key: str, **changes: object) -> tuple[Block, ...]:
    return network(CATALOG.model(key), job(key, **changes)).blocks  # type: ignore[arg-type]


@pytest.mark.parametrize("key", sorted(GRAPHS))
def test_parameters_of_a_graph_are_the_published_count(key: str) -> None:
    assert GRAPHS[key].parameters == CATALOG.model(key).params_total
    assert held_parameters(blocks_of(key)).dense == CATALOG.model(key).params_total


@pytest.mark.parametrize("key", sorted(MULTIPLY_ADDS))
def test_arithmetic_of_a_graph_is_the_published_one(key: str) -> None:
    assert GRAPHS[key].flop / 2 == pytest.approx(MULTIPLY_ADDS[key], rel=1e-3)


@pytest.mark.parametrize("key", sorted(GRAPHS))
def test_ops_do_the_arithmetic_of_the_graph(key: str) -> None:
    """Forward once, backward twice, but for the gradient of the pixels."""
    blocks = blocks_of(key)
    forward = sum(flop(op) for block in blocks for op in block.forward)
    backward = sum(flop(op) for block in blocks for op in block.backward)
    first = GRAPHS[key].units[0].flop
    assert forward == pytest.approx(4 * GRAPHS[key].flop, rel=1e-9)
    assert backward == pytest.approx(4 * (2 * GRAPHS[key].flop - first), rel=1e-9)


@pytest.mark.parametrize("key", sorted(GRAPHS))
def test_sizes_of_the_graph_are_those_of_the_convolutions(key: str) -> None:
    for unit in GRAPHS[key].units:
        if unit.kind == "conv":
            sides = len(unit.size)
            shape = Convolution(
                1, unit.in_channels, unit.out_channels, unit.size, (unit.kernel,) * sides, (unit.stride,) * sides,
                (unit.padding,) * sides,
            )  # fmt: skip
            assert tuple(int(n) for n in shape.out_size) == unit.out_size


def test_frames_of_a_sample_are_images() -> None:
    one, eight = (blocks_of("retinanet-r50-fpn", frames=n) for n in (1, 8))
    few, many = (sum(flop(op) for block in blocks for op in block.forward) for blocks in (one, eight))
    assert many == pytest.approx(8 * few)
    assert sum(b.kept_bytes for b in eight) == pytest.approx(8 * sum(b.kept_bytes for b in one))


def test_a_u_net_goes_down_and_up_again() -> None:
    graph = GRAPHS["unet3d-mlperf"]
    sides = [unit.size[0] for unit in graph.units]
    assert min(sides) == 4
    assert graph.units[-1].out_size == (128, 128, 128)
    joined = [unit.in_channels for unit in graph.units if unit.stage == "up1" and unit.kind == "conv"]
    assert joined == [64, 32]


def test_recomputation_keeps_only_the_ends_of_stages() -> None:
    plain, again = (sum(b.kept_bytes for b in blocks_of("resnet-50", recompute=r)) for r in ("none", "full"))
    assert again < plain / 3


def test_graphs_with_faults_are_refused() -> None:
    table = {"source": "x", "input": [3, 8, 8], "norm": "batch"}
    columns = ["name", "kind", "channels", "kernel", "stride", "from"]
    with pytest.raises(LayerGraphError, match="no stage before it is called 'b'"):
        graph_from("g", table | {"stages": [columns, ["a", "conv", 8, 3, 1, "b"]]})
    with pytest.raises(LayerGraphError, match="kind 'wave'"):
        graph_from("g", table | {"stages": [columns, ["a", "wave", 8, 3, 1, ""]]})
    with pytest.raises(ValueError, match="2 tables"):
        recommender_from("r", {"rows": [1, 2], "lookups": [1]})


def test_the_recommender_has_the_published_parameters() -> None:
    shape = recommenders()["dlrm-dcnv2"]
    assert shape.table_parameters + shape.dense_parameters == CATALOG.model("dlrm-dcnv2").params_total
    blocks = blocks_of("dlrm-dcnv2")
    assert held_parameters(blocks).dense == shape.dense_parameters
    assert blocks[0].table_bytes == 4 * sum(shape.rows) * (128 + 1)


@pytest.mark.parametrize("ranks", [2, 8])
def test_tables_are_shared_and_pooled_rows_cross_the_network_twice(ranks: int) -> None:
    alone, shared = (
        blocks_of("dlrm-dcnv2", micro_batch=512),
        blocks_of("dlrm-dcnv2", micro_batch=512, expert=ranks),
    )
    assert shared[0].table_bytes == pytest.approx(alone[0].table_bytes / ranks)
    (there,) = (op for op in shared[0].forward if isinstance(op, Message))
    (back,) = (op for op in shared[0].backward if isinstance(op, Message))
    assert there.message_bytes == back.message_bytes == 2 * 512 * 26 * 128
    found = [op.lookups for op in shared[0].forward if isinstance(op, Lookup)]
    assert found == [512 * 214]


def test_dense_parts_of_the_recommender_do_the_arithmetic_of_the_shape() -> None:
    blocks = blocks_of("dlrm-dcnv2", micro_batch=512)
    total = sum(flop(op) for block in blocks for op in block.forward + block.backward)
    assert total == pytest.approx(3 * 512 * recommenders()["dlrm-dcnv2"].flop, rel=1e-9)


@pytest.mark.parametrize("key", ["conformer-s", "conformer-m", "conformer-l"])
def test_a_conformer_holds_and_does_what_its_table_says(key: str) -> None:
    model, shape = CATALOG.model(key), conformers()[key]
    assert shape.parameters(model) == pytest.approx(model.params_total, rel=model.tolerance_frac)
    training = Training(
        model=model, global_batch=8, sequence=400, target_sequence=60, plan=Plan(flash_attention=False)
    )
    blocks = network(model, training).blocks
    assert held_parameters(blocks).dense == shape.parameters(model)
    work = sum(flop(op) for block in blocks for op in block.forward)
    assert work == pytest.approx(shape.flop(model, 400, 60), rel=5e-3)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_worked_scenario_runs_and_fits(path: Path) -> None:
    scenario = sim.load(path)
    document = step_document(sim.run(scenario))
    assert scenario.shows.endswith(".")
    assert math.isfinite(document["step_time_s"])
    assert abs(document["books"]["difference_frac"]) < 1e-9
    assert document["memory"]["fits"]
    assert all(0 < row["frac"] < 1 for row in document["utilisation"])
