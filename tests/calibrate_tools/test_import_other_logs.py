"""SuperBench results and tools, MLPerf logs, torch.profiler traces, and the verb that reads them all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from calibrate.importers import mlperf_log, superbench, torch_profiler
from calibrate.importers.common import Hints, LogError
from calibrate.measurements import from_json, load, to_json

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "samples"
HERE = Path("x.log")


def figures(one) -> dict[tuple[str, object], float]:
    return {(r["quantity"], r.get("device")): r["value"] for r in one.measurements.tables["readings"]}


def test_superbench_results_become_si_readings_node_by_node() -> None:
    lines = [
        {
            "node": f"n{number}",
            "gemm-flops/FP16_TC:0": 280000.0,
            "gemm-flops/FP64:1": 9000.0,
            "mem-bw/H2D_Mem_BW:1": 25.5,
            "kernel-launch/event_time:0": 0.0055,
            "bert_models/pytorch-bert-large/steptime_train_float16": 200.0,
            "nccl-bw/allreduce_1048576_time:0": 100.0,
            "nccl-bw/allreduce_1048576_busbw:0": 15.7,
            "disk/sharpness": 3.0,
            "mem-bw/return_code": number,
        }
        for number in (0, 1)
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    first, second = superbench.read(text, HERE, Hints(gpu="A100", gpus=4))
    assert (first.name, second.name) == ("n0", "n1")
    assert figures(first) == {
        ("matmul fp16 matrix unit", 0): 2.8e14,
        ("matmul fp64", 1): 9e12,
        ("host to device", 1): 25.5e9,
        ("kernel launch, event clock", 0): 5.5e-6,
        ("step of pytorch-bert-large, train float16", None): 0.2,
    }
    (exchange,) = first.measurements.tables["collectives"]
    assert exchange["busbw_gbps"] == pytest.approx(1.5 * 1048576 / 100 / 1e3, rel=1e-4)
    assert any("disk/sharpness" in note for note in first.measurements.warnings)
    assert any("failed with code 1" in note for note in second.measurements.warnings)
    assert from_json(to_json(first.measurements)).tables["readings"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cpu_to_gpu0_by_dma_under_numa0 26.25\n", {("copy cpu to gpu0 by dma under numa0", None): 26.25e9}),
        (
            'STREAM Benchmark\nDevice 0: "Acme"  1 SMs\nSTREAM_ADD_double_gpu_0_buffer_4096_block_128  700.5 90.1\n',
            {("stream add double, block 128", 0): 700.5e9},
        ),
        (
            "nvbandwidth Version: v0.6\n\nRunning host_to_device_memcpy_ce.\nmemcpy CE CPU(row) -> GPU(column)\n"
            "           0         1\n 0    50.5    N/A\n\nSUM host_to_device_memcpy_ce 50.5\n",
            {("host to device memcpy ce, 0 to 0", None): 50.5e9},
        ),
        (
            "   RDMA_Write BW Test\n Device         : mlx5_0\n#bytes #iterations BW peak[MB/sec]\n"
            "65536      2000             23330.56            21167.79                  0.338685\n",
            {("InfiniBand write loopback, 65536 bytes, mlx5_0", None): 21167.79e6},
        ),
    ],
)
def test_raw_outputs_of_its_tools(text: str, expected: dict) -> None:
    (one,) = superbench.read(text, HERE)
    assert figures(one) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"time": "x", "gpu_power_limit:0": 250}', "monitor samples"),
        ('{"Category": "x", "Defective Details": "y"}', "a diagnosis summary"),
        ('{"a": 1}', "no key of the form benchmark/metric:rank"),
        ('{"node": "a", "x/y": 1}\n{"node": "b", "x/', "line 2: cut or malformed JSON"),
        ("nvbandwidth Version: v0.6\n", "cut before its first result"),
        ("hello", "expected SuperBench results or output of"),
    ],
)
def test_what_superbench_did_not_measure_is_refused(text: str, says: str) -> None:
    with pytest.raises(LogError) as caught:
        superbench.read(text, HERE)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def mllog(key: str, value: object = None, at_s: float = 1.6e9, **metadata: object) -> str:
    entry = {"time_ms": round(at_s * 1e3), "event_type": "POINT_IN_TIME", "key": key, "value": value}
    return f":::MLLOG {json.dumps({**entry, 'metadata': metadata})}"


def run_log(*, throughput: float | None = 500.0, epochs: int = 3, platform: str = "2xNVIDIA DGX A100") -> str:
    begin = 1.6e9
    lines = [
        mllog("submission_benchmark", "resnet"),
        mllog("submission_platform", platform),
        mllog("global_batch_size", 100),
        "noise between the lines",
        mllog("run_start", at_s=begin),
        mllog("train_samples", 5000, at_s=begin),
    ]
    for number in range(epochs):
        lines += [
            mllog("epoch_start", at_s=begin + 11 * number),
            mllog("epoch_stop", at_s=begin + 11 * number + 10),
        ]
        if throughput:
            lines.append(mllog("tracked_stats", {"throughput": throughput}))
    return "\n".join([*lines, mllog("run_stop", at_s=begin + 11 * epochs, status="success")])


def test_an_mlperf_run_becomes_a_published_row() -> None:
    one = mlperf_log.read(run_log(), HERE)
    (row,) = one.published
    assert (row["gpu"], row["num_gpus"], row["gpus_per_node"], row["year"]) == ("A100", 16, 8, 2020)
    assert row["step_time_s"] == pytest.approx(100 / 500)
    assert row["time_to_train_s"] == pytest.approx(33)
    assert figures(one) == {("step of resnet", None): 0.2}
    (bare,) = mlperf_log.read(run_log(platform="8xA100_80GB-baseline"), HERE).published
    assert (bare["gpu"], bare["num_gpus"]) == ("A100-80GB", 8)


def test_figures_that_disagree_give_no_step_time() -> None:
    (row,) = mlperf_log.read(run_log(throughput=31.0), HERE).published
    assert row["step_time_s"] == ""
    assert "units unclear" in row["notes"]
    (plan,) = mlperf_log.read(run_log(throughput=None), HERE).published
    assert plan["step_time_s"] == "", "samples told before the run are a plan"
    assert plan["measured_quantity"] == "time_to_train_s"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no :::MLLOG line"),
        (mllog("run_start"), "no run_stop among 1 MLLOG lines"),
        (':::MLLOG {"time_ms": 1', "line 1: cut or malformed"),
    ],
)
def test_cut_mlperf_logs_are_refused(text: str, says: str) -> None:
    with pytest.raises(LogError, match=says):
        mlperf_log.read(text, HERE)


def trace() -> dict:
    """Two steps of a product, an addition and an all-reduce, as Kineto writes them."""
    events = []
    for step in range(2):
        at = 1000.0 * step
        events += [
            {"ph": "X", "cat": "user_annotation", "name": f"ProfilerStep#{step}", "ts": at, "dur": 900.0},
            {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": at + 1, "dur": 9.0}
            | {"args": {"External id": 10 * step + 1, "Input Dims": [[64, 32], [32, 128]]}},
            {"ph": "X", "cat": "cpu_op", "name": "aten::add", "ts": at + 20, "dur": 5.0}
            | {"args": {"External id": 10 * step + 2, "Input Dims": [[4, 256], [4, 256], []]}},
            {"ph": "X", "cat": "kernel", "name": "gemm", "ts": at + 30, "dur": 40.0 + step}
            | {"args": {"External id": 10 * step + 1}},
            {"ph": "X", "cat": "kernel", "name": "add", "ts": at + 80, "dur": 3.0}
            | {"args": {"External id": 10 * step + 2}},
            {"ph": "X", "cat": "kernel", "name": "ncclDevKernel_AllReduce", "ts": at + 90, "dur": 50.0}
            | {
                "args": {"Collective name": "allreduce", "In msg nelems": 1000, "Out msg nelems": 1000}
                | {"Group size": 8, "dtype": "BFloat16"}
            },
        ]
    for event in events:
        if event["cat"] == "cpu_op":
            event["args"]["Input type"] = ["c10::BFloat16", "c10::BFloat16"]
    return {"deviceProperties": [{"name": "Acme X1"}], "traceEvents": [*events, {"ph": "M", "name": "x"}]}


def test_a_profiler_trace_gives_kernels_messages_and_the_step() -> None:
    one = torch_profiler.read(json.dumps(trace()), HERE)
    tables = one.measurements.tables
    (product,) = tables["gemm"]
    assert [product[c] for c in ("gpu", "dtype", "m", "n", "k", "time_us", "repeats")] == (
        ["Acme X1", "bfloat16", 64, 128, 32, 40.5, 2]
    )
    (addition,) = tables["memory"]
    assert [addition[c] for c in ("op", "rows", "cols", "bytes", "time_us")] == ["add", 4, 256, 6144.0, 3.0]
    (message,) = tables["collectives"]
    assert [message[c] for c in ("collective", "gpus", "size_bytes", "time_us")] == [
        "all_reduce",
        8,
        2000,
        50.0,
    ]
    assert figures(one)["step", None] == pytest.approx(900e-6)
    assert figures(one)["kernels of a step", None] == pytest.approx(93.5e-6)
    assert from_json(to_json(one.measurements))


def test_a_trace_without_shapes_or_marks_says_so() -> None:
    bare = trace()
    bare["traceEvents"] = [e for e in bare["traceEvents"] if "Step" not in e["name"]]
    for event in bare["traceEvents"]:
        event.get("args", {}).pop("Input Dims", None)
    one = torch_profiler.read(json.dumps(bare), HERE)
    assert set(one.measurements.tables) == {"collectives"}
    assert [note.split(":")[0] for note in one.measurements.warnings] == [
        "no shapes in the trace",
        "no step marks",
    ]


@pytest.mark.parametrize("text", ['{"traceEvents": [', "{}", '{"traceEvents": []}', "[]", "3"])
def test_strangers_to_the_profiler_are_refused(text: str) -> None:
    with pytest.raises(LogError):
        torch_profiler.read(text, HERE)


PROFILED = """
import sys, torch
from torch.profiler import ProfilerActivity, profile, schedule
layer, x = torch.nn.Linear(64, 128), torch.randn(32, 64)
plan = schedule(wait=0, warmup=1, active=2)
save = lambda recorder: recorder.export_chrome_trace(sys.argv[1])
what = {"activities": [ProfilerActivity.CPU], "record_shapes": True}
with profile(**what, schedule=plan, on_trace_ready=save) as recorder:
    for _ in range(3):
        layer(x)
        recorder.step()
"""


@pytest.mark.torch
def test_a_real_trace_of_torch_reads(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs torch (extra: calibrate)")
    path = tmp_path / "t.json"
    # in a process of its own: the profiler of some builds of torch does not survive in a process of many modules
    subprocess.run([sys.executable, "-c", PROFILED, str(path)], check=True, capture_output=True)
    one = torch_profiler.read(path.read_text(), path)
    assert [(r["m"], r["n"], r["k"]) for r in one.measurements.tables["gemm"]] == [(32, 128, 64)]
    assert figures(one)["step", None] > 0


def call(*words: object):
    return CliRunner().invoke(app, ["import", *map(str, words)])


def test_the_verb_keeps_good_logs_and_names_bad_ones(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text(run_log())
    (tmp_path / "bad.txt").write_text("nothing")
    words = ["mlperf-log", tmp_path / "good.txt", tmp_path / "bad.txt", tmp_path / "absent.txt"]
    done = call(*words, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 2
    document = json.loads(done.stdout)
    assert [Path(path).name for path in document["written"]] == ["good.json", "published.csv"]
    assert len(document["refused"]) == 2
    assert "absent.txt: cannot be read" in done.stderr
    assert load(tmp_path / "out" / "good.json").tables["readings"]


def test_several_logs_go_into_one_file_and_the_same_bytes_come_twice(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps(trace()))
    for _ in range(2):
        out = tmp_path / "all.json"
        done = call("torch-profiler", tmp_path / "t.json", tmp_path / "t.json", "--out", out)
        assert done.exit_code == 0, done.output
        assert len(load(out).tables["gemm"]) == 2
    first = out.read_bytes()
    call("torch-profiler", tmp_path / "t.json", tmp_path / "t.json", "--out", out)
    assert out.read_bytes() == first


def test_an_unknown_kind_is_refused_with_the_nearest(tmp_path: Path) -> None:
    done = call("ncl-tests", tmp_path / "x")
    assert done.exit_code == 2
    assert "nearest: nccl-tests" in done.stderr


def test_without_a_place_to_write_it_only_reports(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps(trace()))
    done = call("torch-profiler", tmp_path / "t.json")
    assert done.exit_code == 0, done.output
    assert "1 rows of gemm" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


def test_options_of_the_other_kinds_are_refused_all_at_once(tmp_path: Path) -> None:
    done = call("superbench", tmp_path / "x", "--columns", "a,b", "--fit")
    assert done.exit_code == 2
    assert [line.split(" = ")[0] for line in done.stderr.splitlines()] == ["--columns", "--fit"]
    done = call("swf", tmp_path / "x", "--gpu", "H100", "--nodes", "2")
    assert done.exit_code == 2
    assert [line.split(" = ")[0] for line in done.stderr.splitlines()] == ["--gpu", "--nodes"]


NOT_MEASUREMENTS = {"README.md", "diagnosis_summary.jsonl", "monitor.jsonl", "mpi_pattern.txt"}


@pytest.mark.skipif(not SHARED.exists(), reason="the collected samples are not beside the repository")
@pytest.mark.parametrize(("folder", "reader"), [("superbench", superbench), ("mlperf", mlperf_log)])
def test_every_collected_log_reads_or_is_no_measurement(folder: str, reader) -> None:
    for path in sorted((SHARED / folder).iterdir()):
        text = path.read_text(encoding="utf-8")
        if path.name in NOT_MEASUREMENTS or "ibnetdiscover" in path.name:
            with pytest.raises(LogError):
                reader.read(text, path)
            continue
        found = reader.read(text, path)
        for one in found if isinstance(found, list) else [found]:
            assert one.published or one.measurements.tables["readings"], path.name
            assert from_json(to_json(one.measurements))
