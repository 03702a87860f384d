"""Nodes, networks and limits out of Slurm: each format's small example, and the samples beside the repository."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.importers import hosts
from sim.importers.as_scenario import network_tiers, node_pools
from sim.importers.imported import Imported, Tally, counted
from sim.importers.kinds import Options, import_files
from sim.importers.slurm_nodes import node_state
from sim.importers.slurm_topology import nodes_below
from sim.spec.faults import ScenarioError

Read = Callable[..., Imported]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[08-10,2]x", ["n08x", "n09x", "n10x", "n2x"]),
        ("a,b[1,3],c", ["a", "b1", "b3", "c"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("", []),
    ],
)
def test_host_lists_unfold(text: str, names: list[str]) -> None:
    assert hosts.expand(text) == names


@given(st.integers(0, 10_000), st.integers(0, 300), st.integers(1, 6))
def test_a_range_holds_every_number_with_its_zeros(first: int, more: int, width: int) -> None:
    names = hosts.expand(f"node[{first:0{width}d}-{first + more:0{width}d}]")
    assert [int(name.removeprefix("node")) for name in names] == list(range(first, first + more + 1))
    assert all(len(name) >= 4 + width for name in names)


@pytest.mark.parametrize(
    "text", ["n[1-3", "n1-3]", "n[3-1]", "n[a-b]", "n[1-99999999]", "n[1-2000]m[1-2000]"]
)
def test_a_list_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"brackets|range|more than"):
        hosts.expand(text)


@pytest.mark.parametrize(
    ("flags", "state"),
    [
        ("idle", "up"), ("mixed-", "up"), ("alloc*", "up"), ("IDLE+DRAIN", "drained"), ("drained*", "drained"),
        ("DOWN*+DRAIN", "down"), ("DOWN+NOT_RESPONDING", "down"), ("maint", "maintenance"), ("RESERVED", "up"),
        ("idle~", "powered-down"), ("IDLE+CLOUD+POWERED_DOWN", "powered-down"), ("gone fishing", "unknown"),
    ],
)  # fmt: skip
def test_node_states(flags: str, state: str) -> None:
    assert node_state(flags, "", Tally()) == state


def test_sinfo_tells_a_node_once_per_partition(read: Read) -> None:
    text = (
        "PARTITION|NODELIST|STATE|GRES|CPUS|MEMORY\n"
        "gpu*|n[1-2]|idle|gpu:h100:8(S:0-1)|128|1000000\n"
        "debug|n1|drain|gpu:h100:8(S:0-1)|128|1000000\n"
        "gpu*|n9|mix|gpu:a30:2,gpu:h100:4|64|500000\n"
        "gpu*|n[7-|mix|gpu:2|64|500000\n"
    )
    got = read("sinfo", text)
    first, second, both = got.nodes
    assert (first.name, first.state, first.partitions) == ("n1", "drained", ("gpu", "debug"))
    assert (second.name, second.gpus, second.accelerator, second.state) == ("n2", 8, "h100", "up")
    assert (both.gpus, both.accelerator) == (6, "a30+h100")
    assert list(counted(got.report.skipped)) == ["node list is not readable: brackets do not close in 'n[7-'"]
    pools = node_pools(got.nodes)
    assert [(pool.kind, pool.nodes, pool.in_service) for pool in pools] == [
        ("h100", 2, 1),
        ("a30+h100", 1, 1),
    ]


def test_sinfo_as_it_prints_by_itself_names_no_devices(read: Read) -> None:
    text = (
        "PARTITION AVAIL  TIMELIMIT  NODES  STATE NODELIST\n"
        "gpu*         up 3-00:00:00      2  down* n[1-2]\ngpu*         up 3-00:00:00      4    mix n[3-6]\n"
    )
    got = read("sinfo", text)
    assert [node.state for node in got.nodes] == ["down"] * 2 + ["up"] * 4
    assert [finding.count for finding in got.report.notes] == [2]


def test_sinfo_without_a_header_is_told_by_its_content(read: Read) -> None:
    got = read("sinfo", "a0001   gpu:a100:4(S:0-3),fs:scratch:1   gpu:a100:2(IDX:0-1)   mixed\n")
    (node,) = got.nodes
    assert (node.name, node.gpus, node.state) == ("a0001", 4, "up")
    with pytest.raises(ScenarioError, match="--columns"):
        read("sinfo", "gpu|up|n1|4/0/0/4|gpu:t4:2\n")
    given_columns = Options(("PARTITION", "AVAIL", "NODELIST", "CPUS(A/I/O/T)", "GRES"))
    (node,) = read("sinfo", "gpu|up|n1|4/0/0/4|gpu:t4:2\n", options=given_columns).nodes
    assert (node.gpus, node.cpus, node.partitions) == (2, 4, ("gpu",))


CONF = """
ClusterName=toy
PriorityWeightFairshare=1000  # trailing comment
SchedulerParameters=bf_window=2880,bf_continue
NodeName=DEFAULT CPUs=96 RealMemory=1000000
NodeName=gpu[01-04] Gres=gpu:h100:8 \\
    Feature=rack1 State=UNKNOWN
NodeName=old[1-2] Sockets=2 CoresPerSocket=8 ThreadsPerCore=2 CPUs=0 State=DOWN
NodeSet=big Nodes=gpu[01-04]
PartitionName=DEFAULT MaxTime=2-00:00:00
PartitionName=train Nodes=big PriorityTier=10 PreemptMode=REQUEUE
PartitionName=all Nodes=ALL MaxTime=INFINITE
Include other.conf
"""
GRES = "NodeName=old[1-2] Name=gpu Type=v100 File=/dev/nvidia[0-3]\nName=mps Count=100\nAutoDetect=off\n"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_slurm_conf_and_gres_conf_complete_each_other(read: Read, order: tuple[int, int]) -> None:
    got = read("slurm-conf", *((CONF, GRES)[index] for index in order))
    nodes = {node.name: node for node in got.nodes}
    assert sorted(nodes) == ["gpu01", "gpu02", "gpu03", "gpu04", "old1", "old2"]
    assert (nodes["gpu03"].gpus, nodes["gpu03"].cpus, nodes["gpu03"].features) == (8, 96, ("rack1",))
    assert nodes["gpu03"].memory_bytes == 1_000_000 * 2**20
    assert nodes["gpu03"].partitions == ("train", "all")
    assert (nodes["old1"].devices, nodes["old1"].state, nodes["old1"].cpus) == ((("v100", 4),), "down", 32)
    train, everyone = got.quotas
    assert (train.name, train.priority, train.limit_s, train.rules["preemptmode"]) == (
        "train",
        10,
        172800,
        "REQUEUE",
    )
    assert everyone.limit_s is None
    assert got.settings["PriorityWeightFairshare"] == "1000"
    assert got.settings["SchedulerParameters"] == "bf_window=2880,bf_continue"
    assert counted(got.report.notes)["include is not followed: give that file too"] == 1
    assert counted(got.report.skipped)["resource that is no GPU"] == 1


def test_scontrol_over_lines_and_on_one(read: Read) -> None:
    blocks = (
        "NodeName=n1 Arch=x86_64\n   CPUAlloc=3 CPUTot=64 Gres=gpu:a100:8(S:0-1)\n"
        "   OS=Linux 5.14 #1 SMP Mon RealMemory=512\n"
        "   State=MIXED+DRAIN Partitions=a,b\n\n"
        "PartitionName=p MaxTime=1-00:00:00 Nodes=n[1-4] TRES=cpu=8,gres/gpu=32\n"
        "JobId=7 ArrayJobId=5 ArrayTaskId=2 JobName=x\n   JobState=RUNNING RunTime=01:00:00 TimeLimit=UNLIMITED\n"
        "   SubmitTime=2024-01-01T00:00:00 EligibleTime=2024-01-01T00:00:00\n"
        "   StartTime=2024-01-01T00:05:00 EndTime=Unknown\n"
        "   UserId=ana(1001) Account=lab TRES=cpu=8,mem=64G,node=1,gres/gpu=4\n"
    )
    first = read("scontrol", blocks)
    flat = read(
        "scontrol",
        " ".join(blocks.split()).replace(" PartitionName", "\nPartitionName").replace(" JobId", "\nJobId"),
    )
    for got in (first, flat):
        (node,), (quota,), (job,) = got.nodes, got.quotas, got.jobs
        assert (node.gpus, node.state, node.partitions, node.memory_bytes) == (
            8,
            "drained",
            ("a", "b"),
            512 * 2**20,
        )
        assert (quota.ceiling_gpus, quota.limit_s) == (32, 86400)
        assert (job.name, job.gpus, job.user, job.duration_s, job.outcome) == (
            "5_2",
            4,
            "ana",
            3600,
            "running",
        )
    with pytest.raises(ScenarioError, match="Key=Value"):
        read("scontrol", "nothing here\n")


TREE = "SwitchName=core Switches=s[1-2]\nSwitchName=s1 Nodes=n[1-8]\nSwitchName=s2 Nodes=n[9-16]\n"
YAML = """
- topology: t
  tree:
    switches:
      - {switch: core, children: "s[1-2]"}
      - {switch: s1, nodes: "n[1-8]"}
      - {switch: s2, nodes: "n[9-16]"}
"""


@pytest.mark.parametrize("text", [TREE, YAML])
def test_both_spellings_of_a_tree_are_one_network(read: Read, text: str) -> None:
    got = read("topology", text)
    below = nodes_below(got.switches)
    assert below["core"] == below["s1"] | below["s2"]
    assert [(t.name, t.switches, t.nodes) for t in network_tiers(got.switches)] == [
        ("leaf", 2, 8),
        ("spine", 1, 16),
    ]


def test_blocks_faults_and_rings_in_topologies(read: Read) -> None:
    blocks = read("topology", "BlockName=b1 Nodes=n[1-18]\nBlockName=b2 Nodes=n[19-36]\nBlockSizes=18,36\n")
    assert [(t.name, t.switches, t.nodes) for t in network_tiers(blocks.switches)] == [("block", 2, 18)]
    assert blocks.settings == {"BlockSizes": "18,36"}
    odd = read(
        "topology",
        "SwitchName=a Switches=b,x\nSwitchName=b Switches=a\n"
        "SwitchName=c Nodes=n1\nSwitchName=d Nodes=n1\nSwitchName=c Nodes=n2\n",
    )
    assert counted(odd.report.notes) == {
        "switch below is not described": 1,
        "node stands under two switches": 1,
    }
    assert counted(odd.report.skipped) == {"the same name again": 1}
    assert nodes_below(odd.switches)["a"] == frozenset()
    assert network_tiers(odd.switches)
    with pytest.raises(ScenarioError, match="holds no SwitchName="):
        read("topology", "- nothing: here\n")


def test_sacctmgr_limits(read: Read) -> None:
    qos = (
        "Name|Priority|GraceTime|Preempt|GrpTRES|MaxTRESPU|MaxWall\n"
        "high|100|00:05:00|low|cpu=10,gres/gpu=64|gres/gpu=16|1-00:00:00\nlow|0||||gres/gpu=0|\n"
    )
    high, low = read("sacctmgr", qos).quotas
    assert (high.ceiling_gpus, high.user_ceiling_gpus, high.priority, high.limit_s) == (64, 16, 100, 86400)
    assert high.rules["preempt"] == "low"
    assert (low.ceiling_gpus, low.user_ceiling_gpus) == (None, 0)
    assoc = (
        "Cluster|Account|User|Partition|Share|GrpTRES|ParentName\n"
        "c|root|||1||\nc| lab|||40|gres/gpu=32|root\nc|  lab|ana|gpu|7||\n"
    )
    root, lab, ana = read("sacctmgr", assoc).quotas
    assert (root.kind, lab.kind, lab.parent, lab.ceiling_gpus, lab.weight) == (
        "account",
        "account",
        "root",
        32,
        40,
    )
    assert (ana.kind, ana.name, ana.parent, ana.weight) == ("association", "ana@gpu", "lab", 7)


def _number(value: int) -> dict[str, object]:
    return {"set": True, "infinite": False, "number": value}


def test_json_of_both_generations(read: Read) -> None:
    tres = [("cpu", "", 8), ("mem", "", 2048), ("gres", "gpu:h100", 4)]
    node = {
        "name": "n1",
        "gres": "gpu:h100:8(S:0-1)",
        "state": ["IDLE", "DRAIN"],
        "real_memory": 1024,
        "cpus": 64,
    }
    done_job = {
        "job_id": 9,
        "array": {"job_id": 8, "task_id": _number(3)},
        "state": {"current": ["TIMEOUT"]},
        "user": "ana",
        "time": {"submission": 1709539200, "eligible": 1709539300, "start": 1709539400, "end": 1709543000}
        | {"elapsed": 3600, "limit": _number(60)},
        "tres": {"allocated": [{"type": kind, "name": name, "count": count} for kind, name, count in tres]},
    }
    waiting = {
        "job_id": 10,
        "job_state": ["PENDING"],
        "submit_time": _number(1709539250),
        "start_time": _number(0),
    }
    waiting |= {"time_limit": _number(30), "tres_req_str": "cpu=1,gres/gpu=2"}
    new = {"nodes": [node], "jobs": [done_job, waiting, {"job_id": 0}]}
    got = read("slurm-json", json.dumps(new))
    pending, done = got.jobs
    assert (done.name, done.gpus, done.accelerator, done.duration_s, done.limit_s) == (
        "8_3",
        4,
        "h100",
        3600,
        3600,
    )
    assert (done.outcome, done.memory_bytes, done.submit_s - pending.submit_s) == (
        "timeout",
        2048 * 2**20,
        50,
    )
    assert (pending.gpus, pending.duration_s, pending.recorded_start_s) == (2, 1800, None)
    assert (got.nodes[0].gpus, got.nodes[0].state, got.nodes[0].memory_bytes) == (8, "drained", 2**30)
    assert counted(got.report.skipped) == {"no job id": 1}
    old = {
        "nodes": [{"name": "n1", "gres": "", "state": "idle", "state_flags": ["DRAIN"], "real_memory": 1024}]
    }
    assert read("slurm-json", json.dumps(old)).nodes[0].state == "drained"
    with pytest.raises(ScenarioError, match="is no answer of Slurm"):
        read("slurm-json", "{}")


@pytest.mark.parametrize(
    ("kind", "file", "nodes", "gpus", "switches", "quotas"),
    [
        ("scontrol", "zabbix_scontrol_show_node.txt", 9, 8, 0, 0),
        ("scontrol", "gcm_scontrol-output.txt", 0, 0, 0, 3),
        ("sinfo", "gcm_sinfo-output.txt", 3, 18, 0, 0),
        ("sinfo", "gcm_sinfo-output-for-structured.txt", 10, 80, 0, 0),
        ("sinfo", "osc_sinfo_gres_head.txt", 6, 24, 0, 0),
        ("sinfo", "rivos_sinfo_fallback.txt", 4, 0, 0, 0),
        ("slurm-conf", "pcluster_gpu_partition.conf", 15, 90, 0, 1),
        ("slurm-conf", "pcluster_gpu_gres.conf", 15, 90, 0, 0),
        ("slurm-json", "telegraf_slurmrestd_nodes.json", 3, 0, 0, 0),
        ("slurm-json", "rivos_sinfo_2108.json", 4, 0, 0, 0),
        ("slurm-json", "telegraf_slurmrestd_partitions.json", 0, 0, 0, 1),
        ("sacctmgr", "gcm_sacctmgr-qos.txt", 0, 0, 0, 5),
        ("topology", "topograph_tree_topology.conf", 0, 0, 19, 0),
        ("topology", "topograph_block_topology.conf", 0, 0, 12, 0),
        ("topology", "topograph_combined_topology.yaml", 0, 0, 7, 0),
    ],
)
def test_samples(
    shared: Callable[..., Path], kind: str, file: str, nodes: int, gpus: int, switches: int, quotas: int
) -> None:
    got = import_files(kind, [shared("samples", "slurm", file)])
    found = (len(got.nodes), sum(node.gpus for node in got.nodes), len(got.switches), len(got.quotas))
    assert found == (nodes, gpus, switches, quotas)


def test_samples_of_settings(shared: Callable[..., Path]) -> None:
    config = import_files("scontrol", [shared("samples", "slurm", "gcm_scontrol-show-config-output.txt")])
    assert config.settings["PriorityDecayHalfLife"] == "7-00:00:00"
    assert config.settings["PriorityWeightFairShare"] == "250000"
    diag = import_files("slurm-json", [shared("samples", "slurm", "telegraf_slurmrestd_diag.json")])
    assert any(key.startswith("sdiag.schedule_") for key in diag.settings)
