"""Public traces. Fixtures follow the published schemas (see each reader); their numbers are ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sim.importers.imported import Imported, counted
from sim.importers.kinds import KINDS, Options, import_files
from sim.spec.faults import ScenarioError

Read = Callable[..., Imported]
HELIOS = (
    "job_id,user,vc,gpu_num,cpu_num,node_num,state,submit_time,start_time,end_time,duration,queue\n"
    "11,ua,vcx,4,16,1,FAILED,2020-06-09 18:41:27,2020-06-09 18:42:27,2020-06-09 18:46:36,249,60\n"
    "10,ub,vcy,16,64,2,COMPLETED,2020-06-09 18:41:01,2020-06-09 18:41:01,2020-06-10 04:55:09,36848,0\n"
    "12,ub,vcy,x,64,2,COMPLETED,2020-06-09 18:41:01,2020-06-09 18:41:01,2020-06-10 04:55:09,36848,0\n"
    "13,ub,vcy,1\n"
)
ACME = (
    "job_id,user,node_num,gpu_num,cpu_num,mem_per_pod_GB,shared_mem_per_pod,type,state,submit_time,start_time,end_time,"
    "fail_time,stop_time,duration,queue,gpu_time\n"
    "dlc1,uf,8,64,960,1000,100.0,Pretrain,FAILED,2023-05-17 11:00:58+00:00,2023-05-17 11:01:08+00:00,"
    "2023-05-17 11:01:16+00:00,2023-05-17 11:01:16+00:00,,18,10.0,1152.0\n"
    "dlc2,uf,1,8,96,1000,100.0,Evaluation,CANCELLED,2023-05-17 11:28:42+00:00,,,,,,,\n"
)
PAI_JOBS = (
    "j1,i1,u1,Terminated,1000.0,2000.0\nj2,i2,u2,Failed,900.0,950.0\n"
    "j3,i3,u2,Running,1100.0,\nj4,i4,u1,Terminated,1.0,2.0\n"
)
PAI_TASKS = (
    "j1,ps,1.0,Terminated,1010.0,2000.0,600.0,29.3,,\n"
    "j1,worker,4.0,Terminated,1020.0,2000.0,400.0,10.0,50.0,T4\n"
    "j2,tensorflow,2.0,Failed,905.0,950.0,800.0,20.0,200.0,V100\n"
    "j3,tensorflow,1.0,Running,1110.0,,800.0,20.0,100.0,MISC\n"
)
PAI_MACHINES = "m1,V100,96,512,8\nm2,CPU,96,512,0\n"
OPENB_PODS = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n"
    "p1,88000,327680,8,1000,nan,Burstable,Succeeded,9437497,10769854,9437497\n"
    "p2,4000,15258,1,220,nan,BE,Running,9679175,9973826,9679180\n"
    "p3,16000,32768,1,1000,V100M16|V100M32,LS,Pending,9967058,9968575,\n"
)
OPENB_NODES = "sn,cpu_milli,memory_mib,gpu,model\nn1,32000,262144,0,nan\nn2,96000,786432,8,V100M32\n"


def test_philly_attempts_add_up(histories: Path) -> None:
    got = import_files("philly", [histories / "philly.json"])
    first, last = got.jobs
    assert (first.name, first.gpus, first.duration_s) == ("application_1", 5, 74 + 7200)
    assert (first.recorded_start_s, first.outcome, last.outcome) == (30, "completed", "failed")
    assert counted(got.report.skipped) == {"no attempt is recorded": 1, "run time is not known": 1}


def test_philly_machines(read: Read) -> None:
    got = read("philly", "machineId,number of GPUs,single GPU mem\nm31,8, 24GB\nm32,two, 24GB\n")
    assert [(node.name, node.gpus, node.accelerator) for node in got.nodes] == [("m31", 8, "24GB")]
    assert counted(got.report.skipped) == {"number of devices is not a number": 1}


def test_helios(read: Read) -> None:
    got = read("helios", HELIOS)
    first, second = got.jobs
    assert (first.name, first.gpus, first.queue, first.duration_s, first.outcome) == (
        "10",
        16,
        "vcy",
        36848,
        "completed",
    )
    assert (second.submit_s, second.recorded_start_s, second.outcome, second.cpus) == (26, 86, "failed", 16)
    assert got.origin == "2020-06-09T18:41:01"
    assert counted(got.report.skipped) == {
        "number of devices is not a number": 1,
        "row has another number of cells than the header": 1,
    }


def test_a_simulators_copy_of_helios_counts_from_its_own_start(read: Read) -> None:
    got = read("helios", "job_id,vc,gpu_num,submit_time,duration\n1,a,8,0,60\n2,a,8,30,60\n")
    assert [(job.submit_s, job.duration_s) for job in got.jobs] == [(0, 60), (30, 60)]
    assert got.origin == ""


def test_acme(read: Read) -> None:
    got = read("acme", ACME)
    (job,) = got.jobs
    assert (job.gpus, job.kind, job.duration_s, job.memory_bytes) == (64, "Pretrain", 18, 8e12)
    assert counted(got.report.skipped) == {"never ran (cancelled)": 1}
    # end less start is 8 s where the trace says 18 s
    assert len(got.report.notes) == 1


def test_pai_joins_its_tables(read: Read) -> None:
    got = read("pai", PAI_TASKS, PAI_JOBS, PAI_MACHINES)
    failed, gang = got.jobs
    assert (gang.name, gang.gpus, gang.gpu_share_frac, gang.accelerator) == ("j1", 4, 0.5, "T4")
    assert (gang.submit_s, gang.recorded_start_s, gang.duration_s, gang.cpus) == (100, 110, 990, 6 + 16)
    assert (failed.gpus, failed.gpu_share_frac, failed.outcome) == (4, 1, "failed")
    assert got.origin == "1970-01-01T08:15:00"  # 900 s on a clock of UTC+8, whose hours and weekdays are true
    assert [(node.name, node.gpus, node.accelerator) for node in got.nodes] == [
        ("m1", 8, "V100"),
        ("m2", 0, ""),
    ]
    assert counted(got.report.skipped) == {
        "job without a task: what it asks for is not known": 1,
        "run time is not known": 1,
    }
    with pytest.raises(ScenarioError, match="pai_job_table alone: give pai_task_table too"):
        read("pai", PAI_JOBS)


def test_openb(read: Read) -> None:
    got = read("openb", OPENB_NODES, OPENB_PODS)
    whole, shared_device = got.jobs
    assert (whole.gpus, whole.duration_s, whole.cpus) == (8, 10769854 - 9437497, 88)
    assert (shared_device.gpus, shared_device.gpu_share_frac, shared_device.outcome) == (1, 0.22, "completed")
    assert [(node.gpus, node.accelerator) for node in got.nodes] == [(0, ""), (8, "V100M32")]
    assert counted(got.report.skipped) == {"run time is not known": 1}


def test_requests_of_azure_and_mooncake(read: Read) -> None:
    azure = read(
        "requests",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n"
        "never,1,1\n2023-11-16 18:17:03.5,7,x\n",
    )
    assert [(r.input_tokens, r.output_tokens) for r in azure.requests] == [(4808, 10), (3180, 8)]
    assert azure.requests[1].arrival_s == pytest.approx(0.052)
    assert counted(azure.report.skipped) == {"time or number of tokens is not readable": 2}
    mooncake = read(
        "requests",
        '{"timestamp": 1500, "input_length": 9, "output_length": 2, "hash_ids": [4, 5]}\n[]\n{"timestamp": 0}\n',
    )
    assert mooncake.requests[0].prefix_blocks == (4, 5)
    assert mooncake.report.records == 3


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"sacctmgr"}))
def test_a_file_of_another_kind_is_refused_by_name(read: Read, kind: str) -> None:
    with pytest.raises(ScenarioError, match=r"^file\.txt") as refusal:
        read(kind, "Dear all,\nthe log is not here: please ask again.\n")
    assert len(refusal.value.faults) == 1


def test_an_unknown_kind_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="nearest: helios"):
        import_files("helois", [tmp_path / "x"])


def test_compressed_files_and_missing_ones(tmp_path: Path) -> None:
    import gzip

    packed = gzip.compress((HELIOS * 50).encode())
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) * 3 // 4])
    got = import_files("helios", [tmp_path / "cut.csv.gz"])
    assert "compressed file is cut short or damaged: what could be unpacked was read" in counted(
        got.report.notes
    )
    with pytest.raises(ScenarioError) as refusal:
        import_files("helios", [tmp_path / "a", tmp_path / "b"])
    assert len(refusal.value.faults) == 2


@pytest.mark.parametrize(
    ("kind", "folder", "file", "jobs", "requests"),
    [
        ("schedule", "scheduling", "helios_synth1_16x8_fifo.csv.gz", 6000, 0),
        ("schedule", "scheduling", "lucid_philly-11cb48-2017-11_5x8_fifo.csv.gz", 5763, 0),
        ("schedule", "scheduling", "pyss_sdsc-sp2-a_128_easy.csv.gz", 2500, 0),
        ("openb", "scheduling", "fgd_openb-dev_fgd.csv.gz", 560, 0),
        ("requests", "serving", "trace_azure2023_code.csv.gz", 0, 4409),
        ("requests", "serving", "trace_mooncake_synthetic.csv.gz", 0, 1996),
    ],
)
def test_samples(
    shared: Callable[..., Path], kind: str, folder: str, file: str, jobs: int, requests: int
) -> None:
    got = import_files(kind, [shared(folder, file)], Options(assume_duration_s=1.0))
    assert (len(got.jobs), len(got.requests)) == (jobs, requests)
    assert not got.report.skipped
