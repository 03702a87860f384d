"""What Kubernetes objects say of work: pods, the jobs that own them and Kueue's workloads, each a witness.

Sources: the API references of Kubernetes (Pod, Job), Kubeflow trainer, JobSet, LeaderWorkerSet, Volcano and Kueue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.importers.kubernetes_gangs import Candidate
from sim.importers.kubernetes_values import Needs, items, mapping, pod_needs, quantity
from sim.importers.moments import moment

_GROUPS = (
    "training.kubeflow.org/job-name", "jobset.sigs.k8s.io/jobset-name", "ray.io/cluster", "volcano.sh/job-name",
    "leaderworkerset.sigs.k8s.io/name", "kueue.x-k8s.io/pod-group-name", "scheduling.k8s.io/group-name",
    "scheduling.volcano.sh/pod-group", "batch.kubernetes.io/job-name", "job-name",
)  # fmt: skip
"""Labels or annotations that name the gang of a pod, widest first."""
_QUEUES = (
    "kueue.x-k8s.io/queue-name", "kai.scheduler/queue", "runai/queue", "scheduling.volcano.sh/queue-name",
    "volcano.sh/queue-name",
)  # fmt: skip
_CLASSES = ("kueue.x-k8s.io/priority-class", "priorityClassName")
_REPLICAS = ("pytorchReplicaSpecs", "tfReplicaSpecs", "mpiReplicaSpecs", "xgbReplicaSpecs", "jaxReplicaSpecs")
_PHASES = {"Succeeded": "completed", "Failed": "failed", "Running": "running", "Pending": "pending"}
_KNOWN = (
    "Pod",
    "Workload",
    "Job",
    "PyTorchJob",
    "TFJob",
    "MPIJob",
    "JAXJob",
    "JobSet",
    "LeaderWorkerSet",
    "PodGroup",
)


def candidates(one: Mapping[str, Any], place: str, priorities: Mapping[str, float]) -> list[Candidate] | None:
    """What an object says of work; None where it says nothing of any."""
    kind = str(one.get("kind", ""))
    if kind not in _KNOWN:
        return None
    if kind == "PodGroup":
        return [_pod_group(one, place, priorities)]
    if kind == "Pod":
        return [_pod(one, place, priorities)]
    if kind == "Workload":
        return [_workload(one, place, priorities)]
    return [_template(one, place, priorities)]


def _common(
    one: Mapping[str, Any], spec: Mapping[str, Any], priorities: Mapping[str, float]
) -> dict[str, Any]:
    metadata = mapping(one.get("metadata"))
    labels = {**mapping(metadata.get("annotations")), **mapping(metadata.get("labels"))}
    queue = next(
        (str(labels[key]) for key in _QUEUES if key in labels),
        str(spec.get("queue") or spec.get("queueName") or ""),
    )
    named = next(
        (str(labels[key]) for key in _CLASSES if key in labels), str(spec.get("priorityClassName") or "")
    )
    stated = quantity(spec.get("priority")) if spec.get("priority") is not None else None
    limit = quantity(
        spec.get("activeDeadlineSeconds")
        or mapping(spec.get("runPolicy")).get("activeDeadlineSeconds")
        or spec.get("maximumExecutionTimeSeconds")
        or labels.get("provreq.kueue.x-k8s.io/maxRunDurationSeconds")
    )
    return {
        "created_s": moment(metadata.get("creationTimestamp")),
        "queue": queue or str(metadata.get("namespace") or ""),
        "priority": priorities.get(named, 0.0) if stated is None else stated,
        "limit_s": limit,
    }


def _key(one: Mapping[str, Any], name: str) -> str:
    return f"{mapping(one.get('metadata')).get('namespace', 'default')}/{name}"


def _pod(one: Mapping[str, Any], place: str, priorities: Mapping[str, float]) -> Candidate:
    metadata, spec, status = (mapping(one.get(part)) for part in ("metadata", "spec", "status"))
    labels = {**mapping(metadata.get("annotations")), **mapping(metadata.get("labels"))}
    owner = next(iter(items(metadata.get("ownerReferences"))), {})
    gang = next((str(labels[key]) for key in _GROUPS if key in labels), "")
    if not gang and owner.get("kind") not in (None, "ReplicaSet", "StatefulSet", "DaemonSet", "Node"):
        gang = str(owner.get("name", ""))
    scheduled = [
        c
        for c in items(status.get("conditions"))
        if c.get("type") == "PodScheduled" and c.get("status") == "True"
    ]
    ends = [
        moment(mapping(mapping(each.get("state")).get("terminated")).get("finishedAt"))
        for each in items(status.get("containerStatuses"))
    ]
    needs = pod_needs(one)
    serves = owner.get("kind") in ("ReplicaSet", "StatefulSet")
    fault = ""
    if owner.get("kind") in ("DaemonSet", "Node"):
        fault = "pod of the node itself (DaemonSet or static)"
    elif serves and not needs.gpus:
        fault = "pod of a service without devices"
    phase = str(status.get("phase", ""))
    return Candidate(
        gang=_key(one, gang or str(metadata.get("name") or metadata.get("generateName") or "pod")),
        place=place,
        rank=3 if status else 1,
        needs=((1, needs),),
        started_s=moment(scheduled[0].get("lastTransitionTime"))
        if scheduled
        else moment(status.get("startTime")),
        ended_s=max((end for end in ends if end is not None), default=None)
        if phase in ("Succeeded", "Failed")
        else None,
        outcome=_PHASES.get(phase, "pending"),
        kind="serving" if serves else "",
        fault=fault,
        **_common(one, spec, priorities),
    )


def _workload(one: Mapping[str, Any], place: str, priorities: Mapping[str, float]) -> Candidate:
    """Kueue's Workload: admitted at condition Admitted, ended at Finished."""
    metadata, spec, status = (mapping(one.get(part)) for part in ("metadata", "spec", "status"))
    conditions = {str(c.get("type")): c for c in items(status.get("conditions"))}

    def since(kind: str) -> float | None:
        condition = conditions.get(kind, {})
        return moment(condition.get("lastTransitionTime")) if condition.get("status") == "True" else None

    admission = mapping(status.get("admission"))
    finished = since("Finished")
    started = since("Admitted") or since("QuotaReserved")
    if started is None and finished is not None and "Admitted" in conditions:
        started = moment(conditions["Admitted"].get("lastTransitionTime"))
    told = f"{conditions.get('Finished', {}).get('reason', '')}{conditions.get('Finished', {}).get('message', '')}"
    failed = "fail" in told.lower()
    ended = "failed" if failed else "completed"
    common = _common(one, spec, priorities)
    owner = next(iter(items(metadata.get("ownerReferences"))), {})
    sets = [
        (int(quantity(each.get("count", 1)) or 0), pod_needs(mapping(each.get("template"))))
        for each in items(spec.get("podSets"))
    ]
    least = [quantity(each.get("minCount")) for each in items(spec.get("podSets"))]
    return Candidate(
        gang=_key(one, str(owner.get("name") or metadata.get("name", ""))),
        place=place,
        rank=2 if status else 1,
        needs=tuple(sets),
        started_s=started,
        ended_s=finished,
        outcome=ended if finished is not None else "running" if started is not None else "pending",
        least_pods=int(least[0]) if len(least) == 1 and least[0] else None,
        **{**common, "queue": str(admission.get("clusterQueue") or common["queue"])},
    )


def _template(one: Mapping[str, Any], place: str, priorities: Mapping[str, float]) -> Candidate:
    """Job (batch and Volcano), Kubeflow jobs, JobSet and LeaderWorkerSet."""
    metadata, spec, status = (mapping(one.get(part)) for part in ("metadata", "spec", "status"))
    needs, least, fault = _members(spec, str(one.get("apiVersion", "")))
    started, ended = moment(status.get("startTime")), moment(status.get("completionTime"))
    conditions = {str(c.get("type")): c for c in items(status.get("conditions")) if c.get("status") == "True"}
    outcome = "completed" if ended is not None else "running" if started is not None else "pending"
    if "Failed" in conditions:
        outcome, ended = "failed", ended or moment(conditions["Failed"].get("lastTransitionTime"))
    template = mapping(mapping(spec.get("template")).get("metadata"))
    common = _common(
        {
            **one,
            "metadata": {
                **template,
                **metadata,
                "labels": {**mapping(template.get("labels")), **mapping(metadata.get("labels"))},
            },
        },
        spec,
        priorities,
    )
    return Candidate(
        gang=_key(
            one,
            str(
                metadata.get("name")
                or f"{metadata.get('generateName', 'job-')}{place.rpartition(':')[2].strip()}"
            ),
        ),
        place=place,
        rank=2 if started is not None else 1,
        needs=needs,
        started_s=started,
        ended_s=ended,
        outcome=outcome,
        least_pods=least,
        kind="serving" if one.get("kind") == "LeaderWorkerSet" else "",
        fault=fault,
        **common,
    )


def _pod_group(one: Mapping[str, Any], place: str, priorities: Mapping[str, float]) -> Candidate:
    """Volcano's and the scheduler plugins' PodGroup: what the gang needs at least, in all (minResources)."""
    metadata, spec, status = (mapping(one.get(part)) for part in ("metadata", "spec", "status"))
    owner = next(iter(items(metadata.get("ownerReferences"))), {})
    whole = pod_needs(
        {"spec": {"containers": [{"resources": {"requests": mapping(spec.get("minResources"))}}]}}
    )
    return Candidate(
        gang=_key(one, str(owner.get("name") or metadata.get("name", ""))),
        place=place,
        rank=0,
        needs=((1, whole),),
        started_s=None,
        ended_s=None,
        outcome="pending" if str(status.get("phase", "")) in ("", "Pending", "Inqueue") else "running",
        **_common(one, spec, priorities),
    )


Members = tuple[tuple[int, Needs], ...]


def _members(spec: Mapping[str, Any], version: str) -> tuple[Members, int | None, str]:
    """(pods, needs) of the gang, fewest pods it starts with, and what its scheduler's webhook would refuse."""
    if version.startswith("batch.volcano.sh"):
        tasks = items(spec.get("tasks"))
        pods = tuple(
            (_whole(task.get("replicas"), 1), pod_needs(mapping(task.get("template")))) for task in tasks
        )
        least = quantity(spec.get("minAvailable"))
        names = [str(task.get("name")) for task in tasks]
        if len(set(names)) < len(names):
            return pods, None, "Volcano refuses it: two tasks of one name"
        if least is not None and least > sum(count for count, _ in pods):
            return pods, None, "Volcano refuses it: minAvailable is more than its replicas"
        return pods, None if least is None else int(least), ""
    for name in _REPLICAS:
        if name in spec:
            roles = [mapping(role) for role in mapping(spec[name]).values()]
            return (
                tuple((_whole(r.get("replicas"), 1), pod_needs(mapping(r.get("template")))) for r in roles),
                None,
                "",
            )
    if "replicatedJobs" in spec:
        found = []
        for each in items(spec["replicatedJobs"]):
            inner = mapping(mapping(each.get("template")).get("spec"))
            pods_each = _whole(inner.get("parallelism"), 1)
            found.append(
                (_whole(each.get("replicas"), 1) * pods_each, pod_needs(mapping(inner.get("template"))))
            )
        return tuple(found), None, ""
    if "leaderWorkerTemplate" in spec:
        group = mapping(spec["leaderWorkerTemplate"])
        worker = pod_needs(mapping(group.get("workerTemplate")))
        leader = pod_needs(mapping(group["leaderTemplate"])) if group.get("leaderTemplate") else worker
        copies, size = _whole(spec.get("replicas"), 1), _whole(group.get("size"), 1)
        return ((copies, leader), (copies * (size - 1), worker)), None, ""
    return ((_whole(spec.get("parallelism"), 1), pod_needs(mapping(spec.get("template")))),), None, ""


def _whole(value: Any, default: int) -> int:
    number = None if value is None else quantity(value)
    return default if number is None else int(number)
