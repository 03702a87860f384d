"""Suites of steps that fit the machine, and a few of them really run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.step_suite import Step, Tables, fitted, suite

H100_BYTES = 80e9
TINY = Step("decoder", 2, 64, 4, 2, 96, 128, 32, 2)


def test_the_full_suite_of_a_device_spans_a_tenth_to_ten_billion_parameters():
    steps = suite("full", cuda=True, memory_bytes=H100_BYTES, processes=[1])
    decoders = [step for step in steps if step.workload == "decoder"]
    assert len(decoders) >= 16
    sizes = sorted(step.parameters for step in decoders)
    assert sizes[0] < 0.2e9
    asked = suite("full", cuda=True, memory_bytes=1e15, processes=[1])
    assert max(step.parameters for step in asked if step.workload == "decoder") > 10e9
    assert {step.workload for step in steps} == {"decoder", "cnn", "recommender", "prefill", "decode"}
    assert {step.precision for step in decoders} >= {"bf16", "tf32", "fp32", "fp16"}
    assert {step.recompute for step in decoders} == {"none", "full"}
    assert len({step.seq_len for step in decoders}) >= 4
    assert all(
        step.needed_bytes < H100_BYTES for step in steps if step.workload not in ("cnn", "recommender")
    )


def test_the_quick_suite_of_a_cpu_has_one_and_two_ranks():
    steps = suite("quick", cuda=False, memory_bytes=16e9, processes=[2, 1])
    assert len(steps) >= 8
    assert [step.ranks for step in steps] == sorted(step.ranks for step in steps)
    assert {step.ranks for step in steps} == {1, 2}
    assert len({step.name for step in steps}) == len(steps)
    with pytest.raises(ValueError, match="expected one of smoke, quick, full"):
        suite("long", cuda=False, memory_bytes=16e9, processes=[1])


@given(st.floats(1e8, 1e12), st.integers(0, 100))
def test_a_fitted_step_fits_or_is_as_small_as_it_gets(room_bytes, number):
    steps = suite("full", cuda=True, memory_bytes=1e15, processes=[1])
    step = steps[number % len(steps)]
    found = fitted(step, room_bytes)
    if step.workload in ("cnn", "recommender"):
        assert found == step
        return
    smallest = found.micro_batch == 1 and found.layers == 1
    assert found.needed_bytes <= room_bytes or smallest
    if step.needed_bytes <= room_bytes:
        assert found == step


def test_rows_have_the_columns_of_published_runs():
    columns = replace(TINY, experts=4, topk=2, ranks=2).columns()
    assert columns["global_batch"] == 4
    assert columns["moe_ffn_hidden"] == 96
    assert columns["stack"] == "torch-eager"
    assert columns["dp"] == columns["num_gpus"] == 2


@pytest.mark.torch
class TestRealSteps:
    @pytest.fixture(autouse=True)
    def _torch(self):
        pytest.importorskip("torch", reason="steps need torch (extra: calibrate)")

    @pytest.mark.parametrize("step", [TINY, replace(TINY, experts=4, topk=2)])
    def test_parameters_are_those_of_the_network(self, step):
        from calibrate.networks import Decoder, RmsNorm, Shape

        shape = Shape(step.hidden, step.heads, step.kv_heads, step.ffn_hidden, step.experts, step.topk)
        network = Decoder(shape, step.layers, step.vocab)
        norms = sum(p.numel() for m in network.modules() if isinstance(m, RmsNorm) for p in m.parameters())
        assert sum(p.numel() for p in network.parameters()) - norms == step.parameters

    def test_every_workload_runs_and_gives_a_row(self):
        from calibrate.environment import machine
        from calibrate.steps import LEAST_STEPS, measure

        small = Tables(2, 100, 8, 2, (3, 8), (16, 1))
        steps = [
            TINY,
            replace(TINY, recompute="full"),
            replace(TINY, experts=4, topk=2),
            Step("recommender", micro_batch=8, recommender=small),
            replace(TINY, workload="prefill"),
            replace(TINY, workload="decode"),
        ]
        said = []
        rows = list(measure(machine("cpu"), steps, 0.0, 1, said.append))
        assert said == []
        assert [row["id"] for row in rows] == [step.name for step in steps]
        for row in rows:
            assert 0 < row["best_s"] <= row["low_s"] <= row["step_time_s"] <= row["high_s"]
            assert row["steps"] == LEAST_STEPS

    def test_a_step_that_cannot_run_is_told_and_the_others_go_on(self):
        from calibrate.environment import machine
        from calibrate.steps import measure

        said = []
        odd = replace(TINY, heads=3, kv_heads=3)  # 64 is no multiple of 3
        rows = list(measure(machine("cpu"), [odd, TINY], 0.0, 1, said.append))
        assert [row["id"] for row in rows] == [TINY.name]
        assert len(said) == 1
        assert odd.name in said[0]

    def test_a_layer_learns_with_its_gradients_in_one_buffer(self):
        import torch

        from calibrate.networks import Decoder, FlatGradients, Shape, adam

        torch.manual_seed(0)
        network = Decoder(Shape(32, 2, 1, 48), 1, 64)
        words = torch.randint(0, 64, (2, 9))
        gradients, optimizer = FlatGradients(list(network.parameters())), adam(network.parameters())
        losses = []
        for _ in range(8):
            gradients.clear()
            loss = network.loss(words)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0]
        assert all(p.grad is not None for p in network.parameters())
        assert float(gradients.values.norm()) == pytest.approx(
            float(torch.cat([p.grad.flatten() for p in network.parameters()]).norm()), rel=1e-5
        )

    def test_decoding_a_token_is_the_last_row_of_the_whole_pass(self):
        import torch

        from calibrate.networks import Attention, Shape

        torch.manual_seed(1)
        shape = Shape(32, 4, 2, 48)
        layer = Attention(shape).eval()
        x = torch.randn(2, 5, 32)
        with torch.no_grad():
            whole = layer(x)
            parts = layer.qkv(x).view(2, 5, 8, 8).transpose(1, 2)
            keys, values = parts[:, 4:6].clone(), parts[:, 6:].clone()
            keys[:, :, -1], values[:, :, -1] = 0.0, 0.0  # the token writes its own
            alone = layer(x[:, -1:], (keys, values))
        torch.testing.assert_close(alone[:, 0], whole[:, -1])
