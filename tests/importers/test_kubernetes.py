"""kubectl exports and the queues of Kueue, Volcano and KAI.

The fixtures are written from the API references (Kubernetes v1, kueue.x-k8s.io/v1beta2, batch.volcano.sh/v1alpha1,
scheduling.run.ai/v2); the samples beside the repository are the projects' own examples.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sim.importers.as_scenario import network_tiers, node_pools
from sim.importers.imported import Imported, counted
from sim.importers.kinds import Options, import_files
from sim.importers.kubernetes_values import pod_needs, quantity
from sim.spec.faults import ScenarioError

Read = Callable[..., Imported]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", 0.5),
        ("1Gi", 2**30),
        ("2e3", 2000),
        ("1k", 1000),
        (4, 4),
        ("1.5Ti", 1.5 * 2**40),
        ("x", None),
        (True, None),
    ],
)
def test_quantities(text: object, value: float | None) -> None:
    assert quantity(text) == value


def test_a_pod_needs_the_larger_of_its_containers_and_any_init_container() -> None:
    def container(cpu: str, gpu: int) -> dict[str, object]:
        return {"resources": {"requests": {"cpu": cpu}, "limits": {"nvidia.com/gpu": gpu}}}

    spec = {"containers": [container("1", 2), container("500m", 2)], "initContainers": [container("4", 1)]}
    needs = pod_needs({"spec": {**spec, "overhead": {"cpu": "250m"}}})
    assert (needs.gpus, needs.cpus, needs.share_frac) == (4, 4.25, 1)
    mig = pod_needs({"spec": {"containers": [{"resources": {"limits": {"nvidia.com/mig-3g.40gb": 1}}}]}})
    assert (mig.gpus, mig.kind, mig.share_frac) == (1, "3g.40gb", pytest.approx(3 / 7))
    assert pod_needs({"spec": {"containers": "none"}}).gpus == 0


def test_nodes_and_pods_of_an_export(histories: Path) -> None:
    got = import_files("kubernetes", [histories / "kubectl.json"])
    nodes = {node.name: node for node in got.nodes}
    assert {name: (node.gpus, node.state) for name, node in nodes.items()} == {
        "gpu-a": (8, "up"),
        "gpu-b": (8, "drained"),  # allocatable 0: unhealthy devices are still there
        "mig-c": (7, "down"),
    }
    assert nodes["gpu-a"].place == ("b1", "r1")
    assert [(tier.name, tier.switches, tier.nodes) for tier in network_tiers((), got.nodes)] == [
        ("leaf", 2, 1),
        ("spine", 1, 2),
    ]
    jobs = {job.name: job for job in got.jobs}
    ddp = jobs["ml/ddp"]  # two pods are one gang; the PyTorchJob says less
    assert (ddp.gpus, ddp.cpus, ddp.queue, ddp.priority, ddp.outcome) == (8, 16.5, "team-a", 100, "completed")
    assert ddp.recorded_start_s is not None
    assert (ddp.recorded_start_s - ddp.submit_s, ddp.duration_s) == (360, 3600)  # the last pod's start
    assert (jobs["ml/notebook"].gpu_share_frac, jobs["ml/notebook"].outcome) == (0.5, "running")
    assert jobs["serve/chat-7d9-x"].kind == "serving"
    assert counted(got.report.skipped) == {
        "ConfigMap is not used": 1,
        "pod of the node itself (DaemonSet or static)": 1,
        "told better by another object of the same work": 1,
    }
    assert node_pools(got.nodes)[0].nodes == 2


def test_kueue_objects(histories: Path) -> None:
    got = import_files("kueue", [histories / "kueue.yaml"])
    cohort, h100, a100, local = got.quotas
    assert (cohort.kind, cohort.parent, cohort.weight) == ("cohort", "company", 2)
    assert (h100.parent, h100.flavor, h100.nominal_gpus) == ("lab", "h100", 64)
    assert (h100.borrow_limit_gpus, h100.lend_limit_gpus, h100.weight) == (32, 16, 0.5)
    assert h100.rules["reclaimWithinCohort"] == "Any"
    assert h100.rules["borrowWithinCohort.policy"] == "LowerPriority"
    assert (a100.nominal_gpus, a100.borrow_limit_gpus) == (0, None)
    assert (local.kind, local.parent) == ("local queue", "vision")
    tuned, planned = got.jobs
    assert (tuned.name, tuned.gpus, tuned.min_gpus, tuned.queue) == ("ml/fine-tune", 32, 16, "vision")
    assert (tuned.recorded_start_s, tuned.duration_s, tuned.priority) == (1860, 7200, 1000)
    assert (planned.gpus, planned.duration_s, planned.outcome, planned.priority) == (
        16,
        3600,
        "pending",
        1000,
    )
    assert counted(got.report.skipped)["document is not YAML: while parsing a block mapping"] == 1
    assert got.report.records == 10


VOLCANO = """
apiVersion: scheduling.volcano.sh/v1beta1
kind: Queue
metadata: {name: research}
spec:
  weight: 3
  reclaimable: true
  parent: root
  capability: {cpu: 100, nvidia.com/gpu: 32}
  deserved: {nvidia.com/gpu: "16"}
  guarantee: {resource: {nvidia.com/gpu: 8}}
---
apiVersion: batch.volcano.sh/v1alpha1
kind: Job
metadata: {name: mpi}
spec:
  minAvailable: 3
  queue: research
  tasks:
  - {name: launcher, replicas: 1, template: {spec: {containers: [{name: c}]}}}
  - {name: worker, replicas: 4, template: {spec: {containers: [{name: c, resources: {limits: {nvidia.com/gpu: 8}}}]}}}
---
apiVersion: topology.volcano.sh/v1alpha1
kind: HyperNode
metadata: {name: s0}
spec:
  tier: 1
  members:
  - {type: Node, selector: {exactMatch: {name: n1}}}
  - {type: Node, selector: {exactMatch: {name: n2}}}
"""
KAI = """
apiVersion: scheduling.run.ai/v2
kind: Queue
metadata: {name: team}
spec:
  parentQueue: department
  priority: 50
  resources: {gpu: {quota: 8, limit: -1, overQuotaWeight: 2}, cpu: {quota: -1, limit: -1}}
"""


def test_volcano_and_kai_queues(read: Read) -> None:
    got = read("volcano", VOLCANO)
    (queue,) = got.quotas
    assert (queue.nominal_gpus, queue.ceiling_gpus, queue.weight, queue.parent) == (16, 32, 3, "root")
    assert queue.rules == {"reclaimable": "true", "guarantee_gpus": "8"}
    assert got.switches[0].nodes == ("n1", "n2")
    group = "apiVersion: scheduling.volcano.sh/v1beta1\nkind: PodGroup\n"
    group += "metadata: {name: g, ownerReferences: [{name: mpi}]}\n"
    group += 'spec: {minMember: 3, queue: research, minResources: {nvidia.com/gpu: "16"}}\n'
    alone, beside = (
        read("volcano", text, options=Options(assume_duration_s=60.0))
        for text in (group, f"{VOLCANO}---\n{group}")
    )
    assert [(job.name, job.gpus, job.queue) for job in alone.jobs] == [("default/mpi", 16, "research")]
    assert [job.gpus for job in beside.jobs] == [32]
    assert counted(beside.report.skipped) == {"told better by another object of the same work": 1}
    (team,) = read("kai", KAI).quotas
    assert (team.nominal_gpus, team.ceiling_gpus, team.weight) == (8, None, 2)
    assert (team.parent, team.priority) == ("department", 50)


def test_a_job_that_tells_no_run_time_needs_an_assumed_one(read: Read) -> None:
    untold = read("volcano", VOLCANO)
    assert not untold.jobs
    assert list(counted(untold.report.skipped)) == [
        "tells what it asks for, not how long it runs (--assume-duration gives that)"
    ]
    (job,) = read("volcano", VOLCANO, options=Options(assume_duration_s=600.0)).jobs
    assert (job.gpus, job.queue, job.duration_s, job.submit_s) == (32, "research", 600, 0)


def test_retries_of_a_pod_are_jobs_of_their_own(read: Read) -> None:
    def pod(name: str, created: str, ended: str, phase: str) -> dict[str, object]:
        labels = {"batch.kubernetes.io/job-name": "retried"}
        container = {"resources": {"limits": {"nvidia.com/gpu": 4}}}
        state = {"state": {"terminated": {"finishedAt": f"2024-03-04T{ended}Z"}}}
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": f"2024-03-04T{created}Z"}
        return {
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels, "creationTimestamp": f"2024-03-04T{created}Z"},
            "spec": {"containers": [container]},
            "status": {"phase": phase, "conditions": [scheduled], "containerStatuses": [state]},
        }

    pods = [
        pod("a", "08:00:00", "09:00:00", "Failed"),
        pod("b", "08:00:01", "09:00:30", "Failed"),  # beside a
        pod("c", "09:01:00", "10:01:00", "Succeeded"),  # after both had ended
    ]
    first, second = read("kubernetes", json.dumps(pods)).jobs
    assert (first.name, first.gpus, first.outcome) == ("default/retried", 8, "failed")
    assert (second.name, second.gpus, second.outcome, second.duration_s) == (
        "default/retried#2",
        4,
        "completed",
        3600,
    )


def test_lists_and_json_are_the_same_objects(read: Read) -> None:
    pod = {
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": [{"resources": {"limits": {"amd.com/gpu": 2}}}]},
    }
    forms = [
        json.dumps({"apiVersion": "v1", **pod}),
        json.dumps({"kind": "PodList", "items": [{**pod, "kind": "Pod"}]}),
        json.dumps([pod]),
        "kind: List\nitems: [" + json.dumps(pod) + "]",
    ]
    found = [read("kubernetes", form, options=Options(assume_duration_s=1.0)).jobs for form in forms]
    assert found[0][0].gpus == 2
    assert all(jobs == found[0] for jobs in found)


def test_what_is_no_object_is_refused(read: Read) -> None:
    with pytest.raises(ScenarioError, match="holds no Kubernetes object"):
        read("kubernetes", "a: 1\nb: 2\n")


@pytest.mark.parametrize(
    ("file", "jobs", "gpus", "quotas"),
    [
        ("kai_batch-job.yaml", 1, 2, 0),
        ("kai_jobs.yaml", 2, 16, 0),
        ("kai_pytorch-job.yaml", 1, 3, 0),
        ("kueue_sample-leaderworkerset-tas.yaml", 1, 4, 0),
        ("kueue_sample-gpu-queues.yaml", 0, 0, 2),
        ("kueue_01-cluster-queues.yaml", 0, 0, 4),
        ("volcano_mindspore-gpu.yaml", 1, 2, 0),
        ("volcano_queues.yaml", 0, 0, 4),
        ("volcano_minAvailable-webhook-deny.yaml", 0, 0, 0),
        ("volcano_duplicatedTaskName-webhook-deny.yaml", 0, 0, 0),
    ],
)
def test_samples(shared: Callable[..., Path], file: str, jobs: int, gpus: int, quotas: int) -> None:
    got = import_files("kubernetes", [shared("samples", "kubernetes", file)], Options(assume_duration_s=60.0))
    assert (len(got.jobs), sum(job.gpus for job in got.jobs), len(got.quotas)) == (jobs, gpus, quotas)
    if "deny" in file:
        assert all(reason.startswith("Volcano refuses it") for reason in counted(got.report.skipped))


KUEUE_QUOTAS = """
apiVersion: kueue.x-k8s.io/v1beta1
kind: ClusterQueue
metadata: {name: team-a}
spec:
  cohort: everybody
  preemption: {reclaimWithinCohort: Any, withinClusterQueue: LowerPriority}
  resourceGroups:
  - coveredResources: [nvidia.com/gpu]
    flavors:
    - name: h100
      resources: [{name: nvidia.com/gpu, nominalQuota: 16, borrowingLimit: 8, lendingLimit: 4}]
---
apiVersion: scheduling.volcano.sh/v1beta1
kind: Queue
metadata: {name: team-b}
spec:
  deserved: {nvidia.com/gpu: 8}
  capability: {nvidia.com/gpu: 12}
  guarantee: {resource: {nvidia.com/gpu: 2}}
"""


def test_queues_become_quotas_of_the_policy(read: Read) -> None:
    from sim.importers.as_scenario import to_scenario
    from sim.spec.loader import loads

    text = to_scenario(read("kueue", KUEUE_QUOTAS), {})
    rest = (
        '[[cluster.pools]]\nsystem = "dgx-h100"\nnodes = 4\n[[jobs.services]]\nname = "s"\nqueue = "team-a"\n'
    )
    rules = {rule.name: rule for rule in loads(text + rest).policy.quotas}
    a, b = rules["team-a"], rules["team-b"]
    assert (a.parent, a.nominal_gpus, a.borrow_limit_gpus, a.lend_limit_gpus) == ("everybody", 16, 8, 4)
    assert (a.reclaim, a.within) == ("any", "lower-priority")
    assert (b.nominal_gpus, b.ceiling_gpus, b.lend_limit_gpus) == (8, 12, 6), "the guarantee is never lent"
    assert rules["everybody"].nominal_gpus == 0
