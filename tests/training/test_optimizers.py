"""Update rules: bytes counted tensor by tensor, Muon's arithmetic, state that lives in host memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from sim.cost.optimizer import GRADIENT_BYTES, RULES, WEIGHT_BYTES, muon_flop, offloaded_update_s, update_s
from sim.results.step_tables import step_document
from sim.spec.catalog import load_catalog
from sim.spec.loader import loads
from sim.spec.workload import OPTIMIZERS


def test_every_optimizer_a_scenario_may_name_has_a_rule() -> None:
    assert set(OPTIMIZERS) == set(RULES)


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("sgd", 10),
        ("momentum", 14),
        ("adam", 18),
        ("adamw", 18),
        ("adamax", 18),
        ("lamb", 18),
        ("muon", 14),
        ("adam-8bit", 12.03),
    ],
)
def test_bytes_a_parameter_in_mixed_precision(name: str, total: float) -> None:
    """16-bit weight, fp32 gradient, fp32 master and the moments."""
    assert WEIGHT_BYTES + GRADIENT_BYTES + RULES[name].kept_bytes() == pytest.approx(total)


@pytest.mark.parametrize(
    ("name", "moments", "moment_bytes"), [("sgd", 0, 4), ("momentum", 1, 4), ("adam", 2, 4), ("adam-8bit", 2, 1),
                                          ("muon", 1, 4)],
)  # fmt: skip
def test_traffic_is_every_tensor_in_and_out(name: str, moments: int, moment_bytes: int) -> None:
    """Gradient in; master in and out; each moment in and out; 16-bit weight out."""
    assert RULES[name].traffic_bytes == 4 + 8 + 2 * moments * moment_bytes + 2


def test_adafactor_keeps_a_row_and_a_column_a_matrix() -> None:
    rule = RULES["adafactor"]
    rows, columns = 4096, 11008
    assert rule.kept_bytes(rows, columns) * rows * columns == pytest.approx(
        4 * rows * columns + 4 * (rows + columns)
    )
    assert rule.kept_bytes(rows, columns) < RULES["adam"].kept_bytes(rows, columns)
    assert RULES["adam"].kept_bytes(2, 2) == 12


@given(a=st.integers(1, 20_000), b=st.integers(1, 20_000), tokens=st.integers(1, 10**8))
def test_muon_adds_at_most_5_a_over_tokens(a: int, b: int, tokens: int) -> None:
    share = muon_flop(a, b) / (6.0 * a * b * tokens)
    assert share <= 5 * min(a, b) / tokens * (1 + 1e-12)
    assert muon_flop(a, b) == muon_flop(b, a)


def test_muon_on_a_square_matrix() -> None:
    assert muon_flop(1000, 1000) == 5 * 6 * 1000**3
    np.testing.assert_allclose(
        muon_flop([10, 20], [30, 20]), [float(muon_flop(10, 30)), float(muon_flop(20, 20))]
    )


@given(parameters=st.floats(1e6, 1e12), link=st.floats(1e9, 1e12), memory=st.floats(1e9, 1e12))
def test_offloading_takes_the_slower_of_link_and_host_memory(
    parameters: float, link: float, memory: float
) -> None:
    seconds = float(offloaded_update_s(parameters, RULES["adam"], link, memory))
    assert seconds == pytest.approx(max(4 * parameters / link, 30 * parameters / memory))


def test_offloading_is_slower_than_device_memory() -> None:
    on_device = update_s(8e9, RULES["adam"], 3.35e12, 0.85)
    assert offloaded_update_s(8e9, RULES["adam"], 64e9, 5e10) > 10 * on_device


@given(st.sampled_from(sorted(RULES)), st.floats(1e3, 1e12))
def test_time_grows_with_parameters_and_broadcasts(name: str, parameters: float) -> None:
    one, two = (float(update_s(n * parameters, RULES[name], 2e12, 0.85)) for n in (1, 2))
    assert two == pytest.approx(2 * one)
    np.testing.assert_allclose(update_s([parameters, 2 * parameters], RULES[name], 2e12, 0.85), [one, two])


def test_muon_works_on_every_expert_a_rank_holds() -> None:
    """At the bound: two layers more are two times the three matrices of the one expert that lies on each of 8 ranks."""
    text = """
    name = "muon"
    profile = "ideal"
    [[cluster.pools]]
    system = "dgx-h100"
    nodes = 1
    [training]
    model = "mixtral-8x7b"
    sequence = 128
    global_batch = 8
    optimizer = "muon"
    [training.plan]
    expert = 8
    """
    model = load_catalog().model("mixtral-8x7b")
    times = []
    for count in (1, 3):
        told = step_document(sim.run(loads(text, overrides=[f"training.model.layers={count}"])))
        times.append(next(part["seconds"] for part in told["parts"] if part["cause"] == "optimizer"))
    matrices = 3 * float(muon_flop(model.hidden, model.moe_ffn_hidden)) / 989.4e12
    assert times[1] - times[0] > 2 * 0.99 * matrices


@pytest.mark.parametrize("key", ["resnet-50", "dlrm-dcnv2"])
def test_muon_on_a_model_without_a_width_is_finite(key: str) -> None:
    text = 'name="m"\n[[cluster.pools]]\nsystem="dgx-h100"\nnodes=1\n[training]\noptimizer="muon"\nglobal_batch=64\n'
    step_s = [
        sim.run(loads(f'{text}model="{key}"', overrides=[f"training.optimizer={o}"])).step_s
        for o in ("sgd", "muon")
    ]
    assert step_s[0] < step_s[1] < 100 * step_s[0]
