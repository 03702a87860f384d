"""What runs on a GPU alone, exercised without one: a stand-in for torch.cuda, and 16-bit steps on a CPU."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest

from calibrate import conditions, driver, environment
from calibrate.environment import Machine
from calibrate.microbenchmarks import collective, copies, group, layer, matmul, power
from calibrate.step_suite import Step

torch = pytest.importorskip("torch", reason="measuring needs torch (extra: calibrate)")
pytestmark = pytest.mark.torch
GPU = Machine("Example GPU", "cuda:0", "hopper", 132, 8e10, 1e3, 2, "torch")


class AsOnCuda(Machine):
    """A CPU that is treated as a device: what is asked of torch is the same, save the clock."""

    __slots__ = ()

    @property
    def is_cuda(self) -> bool:
        return True


ACCELERATED = AsOnCuda("Example", "cpu", "hopper", 1, 8e10, 1e3, 1, "torch")


@pytest.fixture
def fake_cuda(monkeypatch):
    """A current device, and events that note where they were recorded and tick a microsecond each."""
    log = {"current": 0, "recorded": [], "ticks": 0}

    @contextmanager
    def device(name):
        before, log["current"] = log["current"], int(str(name).rpartition(":")[2])
        yield
        log["current"] = before

    @dataclass
    class Event:
        enable_timing: bool = False
        at: int = 0

        def record(self):
            log["ticks"] += 1
            self.at = log["ticks"]
            log["recorded"].append(log["current"])

        def elapsed_time(self, other):
            return (other.at - self.at) * 1e-3

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *sizes, device=None, **how: empty(*sizes, **how))
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    return log


def test_events_are_recorded_on_the_device_that_works(fake_cuda):
    from calibrate.blocks import device_block

    seen = []
    block = device_block(lambda: seen.append(fake_cuda["current"]), "cuda:1", 64)
    assert block(3) == pytest.approx(3e-6), "one tick a call"
    assert seen == [1, 1, 1]
    assert set(fake_cuda["recorded"]) == {1}
    assert fake_cuda["current"] == 0, "and the current device is left as it was"


def test_writes_outlast_the_host_that_enqueues_a_call(fake_cuda):
    """What autograd takes the host must not show between the events: the device is kept busy meanwhile."""
    import time

    from calibrate.blocks import MOST_WRITES, _writes_beside

    def takes(seconds):
        return lambda: time.sleep(seconds)

    assert _writes_beside(takes(0.03), takes(0.01), "cuda:0") in (4, 5, 6), (
        "1.5 x 30 ms over 10 ms, and a busy host"
    )
    assert _writes_beside(lambda: None, takes(0.01), "cuda:0") == 2
    assert _writes_beside(takes(0.1), lambda: None, "cuda:0") == MOST_WRITES


def test_eight_bit_kernels_are_asked_only_for_what_they_take():
    assert matmul._takes("bfloat16", (1, 65, 63))
    assert matmul._takes("fp8", (1, 64, 128))
    assert not matmul._takes("fp8", (1, 72, 128)), "n in sixteens"
    assert not matmul._takes("int8", (16, 64, 128)), "more than 16 rows"


def test_ranks_never_outnumber_the_devices_they_are_named_after(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    told = []
    assert group.ranks_of_node(GPU, 0, told.append) == 2
    assert group.ranks_of_node(GPU, 4, told.append) == 1
    assert told == ["4 ranks at once left out: 2 device(s) here"]
    assert group.ranks_of_node(replace(GPU, device="cpu", devices=1), 0, told.append) == 2, "of a CPU's cores"


def test_a_slice_without_a_meter_is_asked_once(monkeypatch):
    """NVML gives a MIG slice a handle and refuses its power: nvidia-smi is asked next, and then nobody."""
    import types

    def refuse(handle):
        raise RuntimeError("Not Supported")

    nvml = types.SimpleNamespace(
        nvmlInit=lambda: None, nvmlDeviceGetHandleByIndex=lambda index: index, nvmlDeviceGetPowerUsage=refuse
    )
    monkeypatch.setitem(__import__("sys").modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", "")
    assert power.device_meter(GPU) is None


def test_copies_between_devices_are_timed_where_they_come_from(monkeypatch):
    timed_on = {}

    def keep(machine, points, *rest, **more):
        return iter(points)

    def note(machine, columns, call):
        timed_on[columns["op"], columns.get("from")] = machine.device
        return columns

    monkeypatch.setattr(copies, "rows_of", keep)
    monkeypatch.setattr(copies, "point", note)
    rows = list(copies.measure(GPU, 60.0, 0, lambda text: None))
    assert {(row["from"], row["to"]) for row in rows if row["op"] == "peer"} == {(0, 1), (1, 0)}
    assert timed_on["peer", 1] == "cuda:1"
    assert timed_on["host_to_device", None] == "cuda:0"


def test_devices_renumbered_for_torch_keep_the_drivers_name():
    assert driver.driver_id("cuda:1", {}) == "1"
    assert driver.driver_id("cuda:1", {"CUDA_VISIBLE_DEVICES": "4,6"}) == "6"
    assert driver.driver_id("cuda", {"CUDA_VISIBLE_DEVICES": "GPU-8932f937"}) == "GPU-8932f937"


SMI = """#!/bin/sh
case "$*" in
*clocks_throttle*) echo 'Field "clocks_throttle_reasons.active" is not a valid field to query.'; exit 2;;
*old.field*) echo 'Field "old.field" is not a valid field to query.'; exit 2;;
*) echo "0x0000000000000004, [Not Supported], 1980 MHz";;
esac
"""


def test_fields_that_a_driver_renamed_or_dropped_do_not_cost_the_others(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fields = ("clocks.max.sm", "old.field", "ecc.mode.current", "clocks_throttle_reasons.active")
    # the newer name is asked last, where the answer of this driver has the clock
    assert driver.nvidia_smi("cuda:0", fields) == {
        "clocks_max_sm": "0x0000000000000004",
        "clocks_throttle_reasons_active": "1980 MHz",
    }


def test_an_idle_device_is_not_called_slow(monkeypatch):
    monkeypatch.setattr(conditions.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(conditions, "other_processes", lambda machine: 0)
    told = {"clocks_sm": "345 MHz", "clocks_max_sm": "1980 MHz", "clocks_throttle_reasons_active": "0x1"}
    assert not [text for text in conditions.warnings_of(GPU, lambda *asked: told) if "SM clock" in text]
    told["clocks_throttle_reasons_active"] = "0x4"
    assert [text for text in conditions.warnings_of(GPU, lambda *asked: told) if "SM clock" in text]


def test_processes_of_other_containers_do_not_count(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 41\necho 42\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(conditions, "PROCESSES", tmp_path)
    (tmp_path / "41").mkdir()
    assert conditions.other_processes(GPU) == 1


def test_a_rank_with_a_device_of_its_own_takes_that_one():
    one = replace(GPU, devices=1)
    slurm = {"SLURM_PROCID": "3", "RANK": "3"}
    assert collective.own_device(one, slurm)
    assert not collective.own_device(one, {"RANK": "3"}), "torchrun shows every rank all devices"
    assert not collective.own_device(GPU, slurm)


def test_a_device_that_is_not_there_is_one_sentence(tmp_path, capsys):
    from calibrate.__main__ import main

    for device in ("cuda:97", "abacus"):
        assert main(["run", "--device", device, "--out", str(tmp_path / "m.json")]) == 2
        told = capsys.readouterr().err
        assert f"--device {device}: " in told
        assert len(told.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_each_launched_rank_starts_on_its_own_device():
    assert environment.first_device(8, {"LOCAL_RANK": "3"}) == "cuda:3"
    assert environment.first_device(8, {}) == "cuda:0"
    assert environment.first_device(1, {"LOCAL_RANK": "3"}) == "cuda:0", "shown a device of its own"
    assert environment.first_device(0, {"LOCAL_RANK": "3"}) == "cpu"


def test_without_a_meter_there_is_no_power(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    assert power.device_meter(GPU) is None


@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("batch", [1, 3])
def test_products_of_every_format_and_layout_have_the_right_shape(dtype, batch):
    for layout in ("TN", "NN", "NT"):
        made = matmul._plain(torch, ACCELERATED, dtype, (24, 32, 40), layout, batch)()
        assert made.shape == ((3, 24, 32) if batch > 1 else (24, 32))
        assert made.dtype == getattr(torch, matmul.PLAIN[dtype])


def test_narrow_operands_lie_as_their_kernels_want_them(monkeypatch):
    """fp8: the second operand by columns, one fp32 scale each (torch._scaled_mm); int8: more than 16 rows."""
    seen = {}

    def scaled(a, b, *, scale_a, scale_b, out_dtype, use_fast_accum=False):
        seen.update(a=a, b=b, scales=(scale_a, scale_b), out=out_dtype)
        return a

    monkeypatch.setattr(torch, "_scaled_mm", scaled)
    matmul._narrow(torch, ACCELERATED, "fp8", (32, 64, 48))()
    assert seen["a"].shape == (32, 48)
    assert seen["a"].is_contiguous()
    assert seen["b"].shape == (48, 64)
    assert seen["b"].t().is_contiguous()
    assert {seen["a"].dtype, seen["b"].dtype} == {torch.float8_e4m3fn}
    assert all(scale.dtype == torch.float32 and scale.numel() == 1 for scale in seen["scales"])
    assert matmul._narrow(torch, ACCELERATED, "int8", (32, 64, 48))().shape == (32, 64)
    matmul._narrow(torch, replace(ACCELERATED, generation="cdna3"), "fp8", (32, 64, 48))()
    assert {seen["a"].dtype, seen["b"].dtype} == {torch.float8_e4m3fnuz}


@pytest.mark.parametrize(
    "call",
    [layer.Call(1, 16, 32, 4, 2, 64), layer.Call(1, 16, 32, 4, 4, 48, 4, 2)],
    ids=["dense", "experts"],
)
def test_layers_run_in_16_bit_with_fp32_gradients(call):
    from calibrate import networks

    made = []
    real = networks.FlatGradients
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "FlatGradients", lambda weights: made.append(real(weights)) or made[0])
        once = layer.passes(torch, "cpu", call, "bfloat16")
        once()
    assert made[0].values.dtype == torch.float32
    assert made[0].values.abs().sum() > 0
    assert torch.isfinite(made[0].values).all()


@pytest.mark.parametrize(
    "step",
    [
        Step("decoder", 2, 32, 4, 2, 64, 128, 16, 2, "bf16", "full"),
        Step("decoder", 2, 32, 4, 4, 64, 128, 16, 2, "bf16", "none", 4, 2),
        Step("prefill", 2, 32, 4, 2, 64, 128, 16, 2, "bf16"),
        Step("decode", 2, 32, 4, 2, 64, 128, 16, 2, "bf16"),
        Step("cnn", micro_batch=1, precision="bf16"),
    ],
    ids=lambda step: step.name,
)
def test_steps_of_a_gpu_run_in_bf16(step):
    from calibrate.workloads import make

    make(torch, step, "cpu", None).once()
    assert torch.get_default_dtype() == torch.float32, "left as it was"
    if step.workload in ("prefill", "decode"):
        # weights, as built, are never held in fp32
        assert step.needed_bytes < 4.1 * step.parameters + 1e6


@pytest.mark.parametrize("engine", ["torch flash", "torch math"])
def test_attention_kernels_are_chosen_by_name(engine):
    from calibrate.microbenchmarks import attention

    call = attention.Call("fwd", 1, 4, 4, 8, 16)
    made = attention._call(torch, ACCELERATED, "bfloat16", call, engine)()
    assert made.shape == (1, 4, 16, 8)


def test_a_rocm_device_is_described_and_named_without_the_other_vendors_tools(monkeypatch):
    """torch.version.hip set, no CUDA version, no nvidia-smi, properties of an MI300X."""
    import types

    properties = types.SimpleNamespace(
        name="AMD Instinct MI300X", gcnArchName="gfx942:sramecc+:xnack-", major=9, minor=4,
        multi_processor_count=304, total_memory=206e9, L2_cache_size=4 * 2**20,
    )  # fmt: skip
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    here = environment.machine()
    assert (here.generation, here.units, here.devices) == ("cdna3", 304, 8), (
        "not Hopper, whose capability is 9.0"
    )
    told = environment.describe(here)
    assert told["hip"] == "6.4"
    assert "cuda" not in told
    assert collective.find_fabric(here, "nccl", 8, 8) == "xgmi"
    assert power.device_meter(here) is None
    assert [text for text in conditions.warnings_of(here) if "not watched" in text]
