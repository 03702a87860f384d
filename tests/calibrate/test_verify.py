"""Measured steps beside predictions: what a row becomes, and what the verb says and refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest
from typer.testing import CliRunner

from app.cli.calibrate import app
from calibrate.step_suite import Step, suite
from sim.cost.optimizer import RULES, update_s
from sim.spec.catalog import load_catalog
from sim.spec.device import Device
from sim.spec.profile import Constant, Fit, Profile
from sim.training.overheads import overheads
from sim.validation.verify import predict_row, serving_ops, validate_steps

CORE = Device(
    "core", "cpu", {"fp32": 1e11}, 16e9, 2e10, 1, 3.2e7, host_bytes_per_s=2e9, scale_up_bytes_per_s=2e9
)
DEVICES = {"Core": CORE}
DECODER = Step("decoder", 2, 256, 4, 2, 512, 1024, 128, 2)


def row(step, **others):
    return step.columns() | {"gpu": "Core", "step_time_s": 1.0} | others


def stack(ranks="1", network="transformer", **values):
    key = {"stack": "torch-eager", "generation": "cpu", "ranks": ranks, "network": network}
    return Fit("stack", key, {n: Constant(v, "1", "measured", "test", v, v) for n, v in values.items()})


def predicted(step, *fits):
    return predict_row(row(step), fits, load_catalog(), DEVICES)


def test_a_step_takes_at_least_its_arithmetic_and_scales_with_the_measured_factor():
    tokens = DECODER.micro_batch * DECODER.seq_len
    products = DECODER.parameters - DECODER.vocab * DECODER.hidden  # the embedding is looked up
    one = predicted(DECODER, stack(kernel_factor=1.0, optimizer_bandwidth_frac=1.0))
    assert one > 6 * products * tokens / 1e11
    update = float(update_s(1.0, RULES["adamw"], 2e10, 1.0)) * DECODER.parameters
    double = predicted(DECODER, stack(kernel_factor=2.0, optimizer_bandwidth_frac=1.0))
    assert double - update == pytest.approx(2 * (one - update), rel=0.01)


def test_ranks_that_slow_each_other_are_priced_as_they_were_measured():
    two = replace(DECODER, ranks=2)
    fits = [stack("1", kernel_factor=1.0), stack("2", kernel_factor=1.5)]
    alone, both = predicted(DECODER, *fits), predicted(two, *fits)
    message = 2 * (2 - 1) / 2 * 4 * DECODER.parameters / 2e9
    assert both - 1.4 * alone > 0.9 * message
    assert both < 1.5 * alone + 3 * message


def test_networks_of_convolutions_have_their_own_factor():
    cnn = Step("cnn", micro_batch=1)
    plain = predicted(cnn, stack(kernel_factor=1.0), stack(network="convolutional", kernel_factor=1.0))
    slow = predicted(cnn, stack(kernel_factor=1.0), stack(network="convolutional", kernel_factor=1.5))
    assert 1.4 < slow / plain < 1.5
    assert plain > 3 * 2 * 4.0e9 / 1e11, "ResNet-50: about 4 G multiply-adds an image, three passes"


def test_decode_streams_weights_and_cache_and_prefill_computes():
    sizes = {"layers": 4, "hidden": 512, "heads": 8, "kv_heads": 8, "ffn_hidden": 1024, "vocab": 4096}
    decode = Step("decode", *sizes.values(), 2048, 1)
    weights = 4 * (decode.parameters - decode.vocab * decode.hidden)
    cache = 4 * 2 * 4 * 512 * 2048
    assert predicted(decode) > (weights + cache) / 2e10 / 2, "a cache may double the rate"
    longer = Step("decode", *sizes.values(), 8192, 1)
    assert predicted(longer) > predicted(decode)
    prefill = Step("prefill", *sizes.values(), 2048, 1)
    assert predicted(prefill) > 2 * 2048 * (weights / 4 - 4096 * 512) / 1e11
    assert len(serving_ops(row(prefill))) == len(serving_ops(row(decode))) == 4 * 10 + 3


def test_rows_that_cannot_be_predicted_are_skipped_with_the_reason(tmp_path):
    rows = pd.DataFrame(
        [
            row(DECODER),
            row(DECODER, gpu="Abacus 2000"),
            row(DECODER, heads=5),
            row(Step("recommender", micro_batch=64)),
        ]
    )
    rows.to_csv(tmp_path / "rows.csv", index=False)
    table = validate_steps(pd.read_csv(tmp_path / "rows.csv"), (), load_catalog(), DEVICES)
    assert list(table["skipped"] == "") == [True, False, False, True]
    assert "Abacus 2000" in table["skipped"][1]
    done = table[table["skipped"] == ""]
    assert done["error_pct"].to_list() == pytest.approx((100 * (done["predicted"] - 1)).to_list())


def test_a_measured_launch_serves_a_stack_that_does_not_know_it():
    launch = Fit(
        "launch", {"generation": "hopper"}, {"eager_host_s": Constant(3e-6, "s", "measured", "test")}
    )
    assert overheads([launch], "torch-eager", "hopper").host_s == 3e-6
    assert overheads([launch], "torch-eager", "ampere").host_s != 3e-6
    own = Fit(
        "stack",
        {"stack": "torch-eager", "generation": "hopper"},
        {"host_s": Constant(9e-6, "s", "fitted", "test")},
    )
    assert overheads([launch, own], "torch-eager", "hopper").host_s == 9e-6


def test_the_full_suite_of_a_gpu_is_predicted_from_what_ships():
    from app.cli.verify import _compared

    steps = suite("full", cuda=True, memory_bytes=80e9, processes=[1])
    rows = [row(step, gpu="NVIDIA H100 80GB HBM3") for step in steps]
    table = _compared(rows, Profile("none", ()))
    assert set(table["skipped"]) == {""}
    by_id = dict(zip(table["id"], table["predicted"], strict=True))
    for step in steps:
        if step.workload != "decoder" or step.experts:
            continue
        peak = {"bf16": 989e12, "fp16": 989e12, "tf32": 495e12, "fp32": 67e12}[step.precision]
        flop = 6 * (step.parameters - step.vocab * step.hidden) * step.micro_batch * step.seq_len
        assert 0.02 < flop / peak / by_id[step.name] < 1, step.name


class TestVerb:
    @pytest.fixture(autouse=True)
    def _torch(self):
        pytest.importorskip("torch", reason="verify needs torch (extra: calibrate)")

    def test_the_list_is_one_document(self):
        answer = CliRunner().invoke(app, ["verify", "--list", "--json", "--processes", "1,2"])
        assert answer.exit_code == 0, answer.output
        names = [step["id"] for step in json.loads(answer.stdout)["steps"]]
        assert len(names) >= 8
        assert any(name.endswith("-x2") for name in names)

    def test_every_bad_option_is_named_at_once(self):
        words = ["verify", "--budget", "soon", "--processes", "one", "--suite", "long"]
        answer = CliRunner().invoke(app, words)
        assert answer.exit_code == 2
        starts = [line.split(":")[0] for line in answer.stderr.splitlines()]
        assert starts == ["--budget", "--processes", "--suite"]

    def test_a_profile_that_is_none_is_refused(self, tmp_path):
        (tmp_path / "p.json").write_text("{}")
        for name, says in (("p.json", "expected a profile"), ("absent.json", "cannot be read")):
            answer = CliRunner().invoke(app, ["verify", "--profile", str(tmp_path / name)])
            assert answer.exit_code == 2
            assert says in answer.stderr
