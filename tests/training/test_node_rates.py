"""What a user's profile knows of a node beside its kernels, and the predictions that it changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import sim
from sim.cost.compression import COMPRESSION_PARAMETERS
from sim.cost.security import SECURITY_PARAMETERS
from sim.results.step import StepResult
from sim.results.step_tables import step_document
from sim.spec.loader import loads
from sim.spec.profile import Constant, Fit, Profile, to_json
from sim.spec.profiles import fits_for
from sim.training.node_rates import NodeRates, node_rates
from sim.training.step import predict_step

A100 = {"accelerator": "a100-sxm4-80gb", "generation": "ampere"}
DATA = """
[cluster.storage]
read_bytes_per_s = "10 GB/s"
write_bytes_per_s = "10 GB/s"
[training.loader]
sample_bytes = "110 kB"
sample_device_bytes = "600 kB"
workers = 1
prefetch = 2
[training.run]
steps = 1000
checkpoint_every = 100
checkpoint = "asynchronous"
"""


def job(extra: str = "", model: str = "bert-large", plan: str = "", optimizer: str = "adamw") -> str:
    """A small job on one node, data parallel."""
    sequence = "" if model == "resnet-50" else "sequence = 512"
    return f"""
name = "small"
[[cluster.pools]]
system = "dgx-a100-80gb"
nodes = 1
[training]
model = "{model}"
{sequence}
global_batch = 256
optimizer = "{optimizer}"
precision = "bf16"
[training.plan]
micro_batch = 32
{plan}
{extra}
"""


def fit(op: str, name: str, value: float, unit: str = "1", **key: str) -> Fit:
    constant = Constant(value, unit, "measured", "this node", 0.9 * value, 1.1 * value)
    return Fit(op, A100 | key, {name: constant})


def run(text: str, *fits: Fit) -> StepResult:
    return predict_step(loads(text), (*fits, *fits_for("shipped")))


def waits(result: StepResult) -> float:
    return result.parts_s["loader"]


def leaned_on(result: StepResult, name: str) -> bool:
    """Whether the constant is among the sources that ``run`` tells."""
    rows = {row["name"]: row for row in step_document(result)["overheads"]}
    return name in rows and rows[name]["source"] == "this node"


def test_a_slow_host_link_holds_up_the_data() -> None:
    slow = fit("copies", "bytes_per_s", 1e7, "byte/s", of="host_to_device", pinned="1")
    plain, slowed = run(job(DATA)), run(job(DATA), slow)
    samples = 256 / 8
    assert waits(slowed) == pytest.approx(samples * 6e5 / 1e7 - (slowed.step_s - waits(slowed)), rel=0.02)
    assert waits(plain) == 0
    assert leaned_on(slowed, "host_to_device_bytes_per_s")
    pageable = replace(slow, key=slow.key | {"pinned": "0"})
    assert run(job(DATA), pageable).step_s == plain.step_s, "pageable copies are not what loaders make"


def test_checkpoints_are_copied_and_written_at_the_measured_rates() -> None:
    down = fit("copies", "bytes_per_s", 1e9, "byte/s", of="device_to_host", pinned="1")
    written = fit("storage", "bytes_per_s", 1e8, "byte/s", of="checkpoint", engine="posix")
    plain, copied, slow = run(job(DATA)), run(job(DATA), down), run(job(DATA), written)
    assert plain.run is not None
    assert copied.run is not None
    assert slow.run is not None
    size = plain.run.checkpoint_bytes
    assert copied.run.phases_s["checkpoint"] == pytest.approx(10 * size / 1e9, rel=0.01)
    assert slow.run.checkpoint_write_s == pytest.approx(size / 1e8, rel=0.01)
    assert leaned_on(copied, "device_to_host_bytes_per_s")
    assert leaned_on(slow, "client_write_bytes_per_s")


def test_files_are_read_as_fast_as_a_node_was_seen_to_read() -> None:
    slow = fit("storage", "bytes_per_s", 1e7, "byte/s", of="read", engine="posix")
    result = run(job(DATA), slow)
    assert waits(result) > 0
    assert leaned_on(result, "client_read_bytes_per_s")
    bare = job("[training.loader]\nsample_bytes = 110e3")
    assert waits(run(bare, slow)) == 0, "a cluster without named storage reads without limit"


def test_pictures_take_the_measured_time_to_decode_where_the_scenario_states_none() -> None:
    slow = fit("loader", "bytes_per_s", 1e6, "byte/s", of="decode", engine="pillow jpeg")
    pictures = job(DATA, model="resnet-50")
    result = run(pictures, slow)
    each_s = 256 / 8 * 110e3 / 1e6
    assert result.step_s == pytest.approx(each_s, rel=0.02)
    assert leaned_on(result, "decode_bytes_per_s")
    stated = pictures.replace("workers = 1", 'workers = 1\nsample_cpu_s = "1 us"')
    assert run(stated, slow).step_s == run(stated).step_s
    assert run(job(DATA), slow).step_s == run(job(DATA)).step_s, "text is not decoded"
    stand_in = replace(slow, key=slow.key | {"engine": "zlib"})
    assert run(pictures, stand_in).step_s == run(pictures).step_s


def test_kernels_beside_messages_are_slowed_as_measured_unless_the_plan_says() -> None:
    slower = fit("overlap", "overlap_slowdown_frac", 0.5, ranks="8")
    text = job(plan="overlap_gradients = true\ngradient_buckets = 8")
    plain, slowed = run(text), run(text, slower)
    stated = run(text.replace("overlap_gradients", "overlap_slowdown_frac = 0.5\noverlap_gradients"))
    assert slowed.step_s == stated.step_s > plain.step_s
    assert leaned_on(slowed, "overlap_slowdown_frac")
    assert not leaned_on(run(job(plan="overlap_slowdown_frac = 0.1"), slower), "overlap_slowdown_frac")


@pytest.mark.parametrize("method", ["fp16", "top-k", "power-sgd", "1-bit", "fp8"])
def test_compression_takes_its_measured_time(method: str) -> None:
    text = job(f'[training.plan.compression]\nmethod = "{method}"\nkeep_frac = 0.01\nrank = 4')
    one, ten = (run(text, fit("compression", "packing_ratio", ratio, of=method)) for ratio in (1.0, 10.0))
    assert run(text).step_s == one.step_s
    assert ten.parts_s["data communication"] > one.parts_s["data communication"]
    other = run(text, fit("compression", "packing_ratio", 10.0, of="another"))
    assert other.step_s == one.step_s
    assert {p.name for p in COMPRESSION_PARAMETERS} >= {"memory_frac", "matrix_frac"}


def test_confidential_copies_go_at_the_pace_of_the_measured_cipher() -> None:
    text = job(DATA + "security = { confidential = true }\n")
    assumed = next(p.start for p in SECURITY_PARAMETERS if p.name == "bounce_bytes_per_s")
    cipher = fit("security", "bytes_per_s", assumed / 10, "byte/s", of="encrypt", engine="aes-256-gcm")
    plain, slow = run(text), run(text, cipher)
    assert plain.run is not None
    assert slow.run is not None
    name, sent = "confidential mode", 256 / 8 * 6e5
    more = (slow.run.protection_s[name] - plain.run.protection_s[name]) / slow.run.steps
    assert more == pytest.approx(9 * sent / assumed, rel=1e-6)
    assert leaned_on(slow, "host_aes_bytes_per_s")
    hashed = replace(cipher, key=cipher.key | {"engine": "sha256"})
    assert run(text, hashed).run == plain.run, "a hash that stood in for the cipher tells nothing of it"


@pytest.mark.parametrize("rule", ["lamb", "sgd", "adamax"])
def test_each_update_rule_has_its_own_share_of_the_bandwidth(rule: str) -> None:
    own = fit("optimizer", "optimizer_bandwidth_frac", 0.2, rule=rule, kind="foreach", ranks="1")
    text = job(optimizer=rule)
    plain, slow = run(text), run(text, own)
    assumed = plain.overheads["optimizer_bandwidth_frac"].value
    assert slow.parts_s["optimizer"] == pytest.approx(plain.parts_s["optimizer"] * assumed / 0.2)
    assert leaned_on(slow, "optimizer_bandwidth_frac")
    assert run(job(optimizer="momentum"), own).step_s == run(job(optimizer="momentum")).step_s


def test_offloaded_state_and_activations_cross_the_measured_link() -> None:
    link = [
        fit("copies", "bytes_per_s", 2e9, "byte/s", of=of, pinned="1")
        for of in ("host_to_device", "device_to_host")
    ]
    for plan in ("offload_optimizer = true", "offload_activations = 1.0"):
        plain, slow = run(job(plan=plan)), run(job(plan=plan), *link)
        assert slow.step_s > plain.step_s, plan
        assert leaned_on(slow, "device_to_host_bytes_per_s")


def test_what_was_measured_elsewhere_changes_nothing_here() -> None:
    slow = fit("copies", "bytes_per_s", 1e7, "byte/s", of="host_to_device", pinned="1")
    elsewhere = replace(slow, key=slow.key | {"accelerator": "h100-sxm"})
    assert run(job(DATA), elsewhere).step_s == run(job(DATA)).step_s
    assert node_rates((), loads(job()).cluster.pools[0].accelerator.device()) == NodeRates()


def test_a_profile_file_does_all_this(tmp_path: Path) -> None:
    slow = fit("copies", "bytes_per_s", 1e7, "byte/s", of="host_to_device", pinned="1")
    (tmp_path / "mine.json").write_text(to_json(Profile("mine", (slow,))), encoding="utf-8")
    scenario = replace(loads(job(DATA)), profile=str(tmp_path / "mine.json"))
    result = sim.run(scenario)
    assert result.step_s == run(job(DATA), slow).step_s
